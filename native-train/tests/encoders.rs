//! Sentence encoders against `sentence-transformers`: golden folders, faults, interruption.

use std::fs;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::Deserialize;
use tigret_train::TrainError;
use tigret_train::device::DeviceChoice;
use tigret_train::embed::Vectors;
use tigret_train::embed::sentence::{SentenceEncoder, job};
use tigret_train::interrupt::Control;

use crate::tigret::{Place, files, golden_encoder};

/// What `make_encoder_golden.py` wrote.
#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

fn expected(name: &str) -> Expected {
    serde_json::from_str(&fs::read_to_string(golden_encoder(name).join("expected.json")).unwrap())
        .unwrap()
}

fn encode(encoder: &SentenceEncoder, texts: &[&str]) -> Vectors {
    job::encode_all(encoder, texts, Control::none(), &ProgressBar::hidden()).unwrap()
}

/// Largest difference and smallest cosine.
fn distance(found: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(found.len(), expected.len());
    let pairs = || found.iter().zip(expected);
    let dot: f32 = pairs().map(|(a, b)| a * b).sum();
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let error = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    (error, dot / (length(found) * length(expected)))
}

fn holds(name: &str) {
    holds_in(&golden_encoder(name), name);
}

/// Whether a folder gives the vectors of a golden one.
fn holds_in(folder: &Path, name: &str) {
    let encoder = SentenceEncoder::load(folder, DeviceChoice::Cpu).unwrap();
    let expected = expected(name);
    let texts: Vec<&str> = expected.texts.iter().map(String::as_str).collect();
    let found = encode(&encoder, &texts);
    for (at, vector) in expected.vectors.iter().enumerate() {
        let (error, cosine) = distance(found.row(at), vector);
        let text = texts[at];
        assert!(error < 2e-5 && cosine > 0.999_999, "{name} {text:?}: {error} off, {cosine}");
    }
}

#[test]
fn bert_gives_the_vectors_of_sentence_transformers() {
    holds("bert");
}

#[test]
fn joined_poolings_and_a_dense_layer_are_those_of_sentence_transformers() {
    holds("bert-joined");
}

#[test]
fn mpnet_gives_the_vectors_of_sentence_transformers() {
    holds("mpnet");
}

#[test]
fn sentence_t5_gives_the_vectors_of_sentence_transformers() {
    holds("t5");
    holds("t5-gated");
}

#[test]
fn a_text_has_the_same_vector_in_any_company() {
    let encoder = SentenceEncoder::load(&golden_encoder("bert"), DeviceChoice::Cpu).unwrap();
    let texts: Vec<String> = (0..300).map(|at| "red lamp oil ".repeat(at % 7 + 1)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let all = encode(&encoder, &texts);
    for at in [0, 1, 6, 299] {
        let (error, _) = distance(encode(&encoder, &texts[at..=at]).row(0), all.row(at));
        assert!(error < 1e-6, "text {at} is {error} off");
    }
}

#[test]
fn an_interrupted_job_ends_with_the_same_vectors_bit_for_bit() {
    let encoder = SentenceEncoder::load(&golden_encoder("mpnet"), DeviceChoice::Cpu).unwrap();
    let texts: Vec<String> =
        (0..400).map(|at| format!("red lamp {at} {}", "soft oil ".repeat(at % 60))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let whole = encode(&encoder, &texts);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (mut rounds, mut seen) = (0, Vec::new());
    let vectors = loop {
        rounds += 1;
        let progress = ProgressBar::hidden();
        let stop = || progress.position() >= rounds * 80;
        let control = Control { interrupted: &stop, state: Some(&state) };
        let outcome = job::encode_all(&encoder, &texts, control, &progress);
        let done = progress.position();
        seen.push(done);
        match outcome {
            Ok(vectors) => break vectors,
            Err(TrainError::Interrupted) => assert!(state.exists()),
            Err(other) => panic!("{other}"),
        }
        // What was done before is no work of this session.
        let (progress, control) =
            (ProgressBar::hidden(), Control { interrupted: &|| true, ..control });
        assert!(job::encode_all(&encoder, &texts, control, &progress).is_err());
        assert_eq!((progress.position(), progress.per_sec()), (done, 0.0));
    };
    assert!(rounds > 2, "it was to be interrupted at least twice: {seen:?}");
    assert!(seen.is_sorted() && seen[0] < 400, "work is taken up, not begun again: {seen:?}");
    assert_eq!(vectors, whole);
    assert!(state.exists(), "the state stays until the vectors are kept");
}

#[test]
fn unfinished_work_of_other_texts_or_a_broken_state_is_not_taken_up() {
    let encoder = SentenceEncoder::load(&golden_encoder("bert"), DeviceChoice::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let control = Control { interrupted: &|| true, state: Some(&state) };
    let stopped = job::encode_all(&encoder, &["red", "lamp"], control, &ProgressBar::hidden());
    assert!(matches!(stopped, Err(TrainError::Interrupted)));
    let control = Control { state: Some(&state), ..Control::none() };
    let other =
        job::encode_all(&encoder, &["lamp", "red"], control, &ProgressBar::hidden()).unwrap();
    assert_eq!(other, encode(&encoder, &["lamp", "red"]));
    fs::write(&state, b"not a state").unwrap();
    let again =
        job::encode_all(&encoder, &["lamp", "red"], control, &ProgressBar::hidden()).unwrap();
    assert_eq!(again, other);
}

/// A copy of a golden folder that a test may spoil.
struct Copied(Place);

impl Copied {
    fn new(name: &str) -> Self {
        let (folder, golden) = (Place::new(), golden_encoder(name));
        for file in files(&golden) {
            folder.write(&file, fs::read(golden.join(&file)).unwrap());
        }
        Self(folder)
    }

    fn at(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Changes a file's bytes.
    fn spoil(&self, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let bytes = fs::read(self.at(file)).unwrap();
        fs::write(self.at(file), change(bytes)).unwrap();
    }

    /// Replaces a text that must stand in a file.
    fn replace(&self, file: &str, from: &str, to: &str) {
        self.spoil(file, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{file} has no {from}");
            text.replacen(from, to, 1).into_bytes()
        });
    }

    /// The message of loading it.
    fn refused(&self) -> String {
        SentenceEncoder::load(&self.0, DeviceChoice::Cpu).unwrap_err().to_string()
    }
}

#[test]
fn a_pooling_that_chooses_nothing_takes_the_mean() {
    let folder = Copied::new("bert");
    let (mode, older) = ("\"pooling_mode\": \"mean\"", "\"pooling_mode_mean_tokens\": false");
    folder.replace("1_Pooling/config.json", mode, older);
    holds_in(&folder.0, "bert");
}

#[test]
fn a_tokenizers_own_limit_is_no_more_than_the_positions() {
    let long = "red lamp oil ".repeat(100);
    for (name, limit, positions) in [("bert", 40, 64), ("mpnet", 200, 200)] {
        let encode_long = |length: usize, folder: &Copied| {
            let (from, to) = (format!("_length\": {limit}"), format!("_length\": {length}"));
            folder.replace("tokenizer_config.json", &from, &to);
            let encoder = SentenceEncoder::load(&folder.0, DeviceChoice::Cpu).unwrap();
            encode(&encoder, &[&long])
        };
        let all = encode_long(positions, &Copied::new(name));
        assert_eq!(encode_long(positions + 2, &Copied::new(name)), all, "{name}");
        assert_ne!(encode_long(positions - 1, &Copied::new(name)), all, "{name}");
    }
}

#[test]
fn a_text_is_cut_from_the_side_that_the_folder_names() {
    let long = "red lamp oil ".repeat(100);
    let end = format!("lamp oil {}", "red lamp oil ".repeat(12));
    let right = ("\"direction\": \"Right\"", "\"direction\": \"Left\"");
    let ways: [&dyn Fn(&Copied); 2] =
        [&|f| f.replace("tokenizer_config.json", "{", "{\"truncation_side\": \"left\","), &|f| {
            f.replace("tokenizer.json", right.0, right.1)
        }];
    let plain = SentenceEncoder::load(&golden_encoder("bert"), DeviceChoice::Cpu).unwrap();
    for way in ways {
        let folder = Copied::new("bert");
        way(&folder);
        let encoder = SentenceEncoder::load(&folder.0, DeviceChoice::Cpu).unwrap();
        assert_ne!(encoder.fingerprint(), plain.fingerprint());
        // The last tokens that go between the two that every text has.
        let expected = encode(&plain, &[&end]);
        let (error, _) = distance(encode(&encoder, &[&long]).row(0), expected.row(0));
        assert!(error < 1e-6, "{error} off");
    }
}

#[test]
fn case_is_that_of_the_tokenizers_class() {
    let load = |spoil: &dyn Fn(&Copied)| {
        let folder = Copied::new("bert");
        spoil(&folder);
        SentenceEncoder::load(&folder.0, DeviceChoice::Cpu).unwrap()
    };
    let set = |f: &Copied, class: &str, lower: &str| {
        let class = format!("\"tokenizer_class\": \"{class}\"{lower}");
        f.replace("tokenizer_config.json", "\"tokenizer_class\": \"TokenizersBackend\"", &class);
    };
    let cased =
        |f: &Copied| f.replace("tokenizer.json", "\"lowercase\": true", "\"lowercase\": false");
    let plain = load(&|_| ());
    let expected = encode(&plain, &["red lamp"]);
    for (ignores_case, encoder) in [
        (true, load(&|f| set(f, "BertTokenizer", ", \"do_lower_case\": true"))),
        (false, load(&|f| set(f, "BertTokenizerFast", ", \"do_lower_case\": false"))),
        (
            true,
            load(&|f| {
                set(f, "BertTokenizer", "");
                cased(f)
            }),
        ),
        (
            true,
            load(&|f| {
                set(f, "MPNetTokenizer", ", \"do_lower_case\": true");
                cased(f)
            }),
        ),
        // A class that takes the file as it is.
        (true, load(&|f| set(f, "PreTrainedTokenizerFast", ", \"do_lower_case\": false"))),
        (
            false,
            load(&|f| {
                set(f, "TokenizersBackend", ", \"do_lower_case\": true");
                cased(f)
            }),
        ),
    ] {
        assert_eq!(encode(&encoder, &["Red LAMP"]) == expected, ignores_case);
        assert_eq!(encode(&encoder, &["red lamp"]), expected);
    }
    let other = load(&|f| set(f, "BertTokenizer", ", \"do_lower_case\": false"));
    assert_ne!(other.fingerprint(), plain.fingerprint());
}

/// Spoils a folder and says which message must come.
type Fault<'a> = (&'a str, &'a dyn Fn(&Copied), &'a str);

fn assert_refused(faults: &[Fault<'_>]) {
    for (name, spoil, reason) in faults {
        let folder = Copied::new(name);
        spoil(&folder);
        let error = folder.refused();
        assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        assert!(error.starts_with(folder.0.to_str().unwrap()), "it names a file: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

fn remove(folder: &Copied, file: &str) {
    fs::remove_file(folder.at(file)).unwrap();
}

#[test]
fn a_folder_that_lacks_a_file_is_refused_by_that_file() {
    let error =
        SentenceEncoder::load(Path::new("nowhere"), DeviceChoice::Cpu).unwrap_err().to_string();
    assert!(error.contains("nowhere: is not a folder; give the folder of"), "{error}");
    assert_refused(&[
        ("bert", &|f| remove(f, "config.json"), "config.json: not found; the folder is not compl"),
        ("bert", &|f| remove(f, "tokenizer.json"), "tokenizer.json: not found; the folder is not"),
        ("bert", &|f| remove(f, "model.safetensors"), "model.safetensors: not found; the folder i"),
        ("bert", &|f| remove(f, "1_Pooling/config.json"), "1_Pooling/config.json: not found"),
        ("bert-joined", &|f| remove(f, "2_Dense/config.json"), "2_Dense/config.json: not found"),
        (
            "bert-joined",
            &|f| remove(f, "2_Dense/model.safetensors"),
            "2_Dense/model.safetensors: not found",
        ),
        (
            "mpnet",
            &|f| fs::rename(f.at("model.safetensors"), f.at("pytorch_model.bin")).unwrap(),
            "save pytorch_model.bin as safetensors with `save_pretrained`",
        ),
        (
            "t5",
            &|f| {
                let index = "{\"weight_map\": {\"a\": \"part-1.safetensors\"}}";
                fs::write(f.at("model.safetensors.index.json"), index).unwrap();
                remove(f, "model.safetensors");
            },
            "part-1.safetensors",
        ),
        (
            "t5",
            &|f| {
                let index = "{\"weight_map\": {\"a\": \"../t5/model.safetensors\"}}";
                fs::write(f.at("model.safetensors.index.json"), index).unwrap();
                fs::rename(f.at("model.safetensors"), f.at("other.safetensors")).unwrap();
            },
            "names \"../t5/model.safetensors\", which is not a file beside it",
        ),
    ]);
}

#[test]
fn a_folder_that_asks_for_what_is_not_known_is_refused_with_what_is() {
    const POOLING: &str = "\"pooling_mode\": \"mean\"";
    let activation = ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"swish\"");
    assert_refused(&[
        (
            "bert",
            &|f| f.replace("config.json", "\"bert\"", "\"gpt2\""),
            "config.json: names the architecture \"gpt2\"; bert (MiniLM too), mpnet and t5 are kn",
        ),
        (
            "bert",
            &|f| f.replace("config.json", "\"model_type\"", "\"model\""),
            "names the architecture \"(none)\"",
        ),
        (
            "bert",
            &|f| f.replace("config.json", activation.0, activation.1),
            "has the activation \"swish\"; gelu is known",
        ),
        (
            "mpnet",
            &|f| f.replace("config.json", activation.0, activation.1),
            "has the activation \"swish\"; gelu is known",
        ),
        (
            "bert",
            &|f| f.replace("config.json", "{", "{\"position_embedding_type\": \"relative_key\","),
            "has positions \"relative_key\"; \"absolute\" are known",
        ),
        (
            "t5",
            &|f| {
                f.replace("config.json", "\"feed_forward_proj\": \"", "\"feed_forward_proj\": \"x")
            },
            "has the feed-forward layer \"x",
        ),
        (
            "t5",
            &|f| {
                f.replace(
                    "config.json",
                    "\"feed_forward_proj\": \"relu\"",
                    "\"feed_forward_proj\": \"gelu\"",
                );
            },
            "has the feed-forward layer \"gelu\"; relu, gated-gelu and gated-silu are known",
        ),
        (
            "bert",
            &|f| f.replace("1_Pooling/config.json", POOLING, "\"pooling_mode\": \"lasttoken\""),
            "1_Pooling/config.json: asks for \"lasttoken\"; cls, max, mean, mean_sqrt_len_tokens are",
        ),
        (
            "bert",
            &|f| {
                let older = "\"pooling_mode_weightedmean_tokens\": true";
                f.replace("1_Pooling/config.json", POOLING, older);
            },
            "asks for \"pooling_mode_weightedmean_tokens\"; cls, max",
        ),
        (
            "bert",
            &|f| f.replace("1_Pooling/config.json", POOLING, "\"pooling_mode\": []"),
            "chooses no pooling; cls, max",
        ),
        (
            "bert",
            &|f| f.replace("modules.json", "normalize.Normalize", "lstm.LSTM"),
            "modules.json: asks for the module \"LSTM\"; Transformer, Pooling, Dense and Normalize",
        ),
        (
            "bert",
            &|f| f.replace("modules.json", "transformer.Transformer", "bow.BoW"),
            "begins with \"BoW\"; only a Transformer can come first",
        ),
        (
            "bert",
            &|f| f.replace("modules.json", "pooling.Pooling", "dropout.Dropout"),
            "has \"Normalize\" where it cannot stand; Pooling comes once",
        ),
        (
            "bert-joined",
            &|f| f.replace("2_Dense/config.json", "activation.Tanh", "activation.Softplus"),
            "2_Dense/config.json: has the activation \"Softplus\"; Identity, Tanh, ReLU",
        ),
        (
            "bert-joined",
            &|f| f.replace("2_Dense/config.json", "{", "{\"use_residual\": true,"),
            "2_Dense/config.json: adds what comes in (use_residual), which is not known here",
        ),
        (
            "bert-joined",
            &|f| {
                f.replace(
                    "2_Dense/config.json",
                    "_output_name\": \"sentence_embedding",
                    "_output_name\": \"other",
                )
            },
            "2_Dense/config.json: reads or writes \"other\"; sentence_embedding is known",
        ),
        (
            "bert",
            &|f| f.replace("2_Normalize/config.json", "sentence_embedding", "token_embeddings"),
            "2_Normalize/config.json: reads or writes \"token_embeddings\"; sentence_embedding is kn",
        ),
    ]);
    let folder = Copied::new("bert");
    fs::write(folder.at("modules.json"), "[]").unwrap();
    assert!(folder.refused().contains("modules.json: lists no module"));
}

#[test]
fn a_folder_whose_files_contradict_each_other_is_refused() {
    assert_refused(&[
        (
            "bert",
            &|f| f.replace("config.json", "\"hidden_size\": 18", "\"hidden_size\": 21"),
            "model.safetensors: does not fit config.json: shape mismatch",
        ),
        (
            "mpnet",
            &|f| f.replace("config.json", "\"intermediate_size\": ", "\"intermediate_size\": 1"),
            "does not fit config.json: shape mismatch",
        ),
        (
            "mpnet",
            &|f| f.replace("config.json", "num_buckets\": 32", "num_buckets\": 1"),
            "has 1 relative_attention_num_buckets, which do not suit distances up to 128",
        ),
        (
            "mpnet",
            &|f| f.replace("config.json", "num_buckets\": 32", "num_buckets\": 512"),
            "has 512 relative_attention_num_buckets, which do not suit distances up to 128",
        ),
        (
            "t5",
            &|f| f.replace("config.json", "max_distance\": 128", "max_distance\": 8"),
            "has 32 relative_attention_num_buckets, which do not suit distances up to 8",
        ),
        (
            "t5",
            &|f| f.replace("config.json", "\"d_ff\": ", "\"d_ff\": 1"),
            "does not fit config.json: shape mismatch",
        ),
        (
            "bert",
            &|f| {
                f.replace("config.json", "\"num_attention_heads\": 3", "\"num_attention_heads\": 4")
            },
            "has hidden_size 18, which 4 heads do not divide",
        ),
        (
            "bert",
            &|f| f.replace("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"),
            "model.safetensors: does not fit config.json: it has more than 1 layers",
        ),
        (
            "bert",
            &|f| f.replace("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
            "does not fit config.json: cannot find tensor encoder.layer.2",
        ),
        (
            "bert",
            &|f| f.replace("config.json", "\"vocab_size\": 118", "\"vocab_size\": 90"),
            "model.safetensors: does not fit config.json",
        ),
        (
            "bert",
            &|f| f.replace("sentence_bert_config.json", "{", "{\"max_seq_length\": 65,"),
            "allows 65 tokens (max_seq_length), but config.json has 64 positions",
        ),
        (
            "bert",
            &|f| f.replace("sentence_bert_config.json", "{", "{\"max_seq_length\": 1,"),
            "allows 1 tokens (max_seq_length), too few for any text",
        ),
        (
            "bert",
            &|f| f.replace("tokenizer_config.json", "_length\": 40", "_length\": 1"),
            "allows 1 tokens (model_max_length), too few for any text",
        ),
        (
            "bert",
            &|f| f.replace("tokenizer_config.json", "{", "{\"truncation_side\": \"top\","),
            "tokenizer_config.json: unknown variant `top`, expected `left` or `right`",
        ),
        (
            "bert-joined",
            &|f| f.replace("2_Dense/config.json", "\"in_features\": 72", "\"in_features\": 18"),
            "2_Dense/config.json: takes 18 features, but 72 come in",
        ),
        (
            "bert-joined",
            &|f| f.replace("2_Dense/config.json", "\"out_features\": 10", "\"out_features\": 11"),
            "2_Dense/model.safetensors: does not fit config.json: shape mismatch",
        ),
    ]);
}

#[test]
fn damaged_files_are_refused() {
    let cut = |file: &'static str| move |f: &Copied| f.spoil(file, |b| b[..b.len() / 2].to_vec());
    assert_refused(&[
        ("bert", &cut("model.safetensors"), "model.safetensors: "),
        ("bert", &|f| f.spoil("model.safetensors", |_| vec![]), "model.safetensors: "),
        ("bert", &|f| f.spoil("model.safetensors", |_| vec![255; 64]), "model.safetensors: "),
        ("bert-joined", &cut("2_Dense/model.safetensors"), "2_Dense/model.safetensors: "),
        ("bert", &cut("config.json"), "config.json: EOF"),
        ("bert", &cut("modules.json"), "modules.json: EOF"),
        ("bert", &cut("tokenizer.json"), "tokenizer.json: EOF"),
        ("bert", &cut("1_Pooling/config.json"), "1_Pooling/config.json: EOF"),
        (
            "bert",
            &|f| f.replace("config.json", "\"hidden_size\": 18", "\"hidden_size\": \"x\""),
            "config.json: invalid type: string \"x\"",
        ),
    ]);
    // Weights that are no numbers are met when they are used.
    let folder = Copied::new("bert");
    folder.spoil("model.safetensors", |mut bytes| {
        let end = bytes.len();
        bytes[end / 2..].chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&[0, 0, 192, 127]));
        bytes
    });
    let encoder = SentenceEncoder::load(&folder.0, DeviceChoice::Cpu).unwrap();
    let outcome = job::encode_all(&encoder, &["red lamp"], Control::none(), &ProgressBar::hidden());
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("vector of text 1 is not finite; its weights are broken"), "{error}");
}
