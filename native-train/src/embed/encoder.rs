//! The encoder of a run, kept in `encoder.safetensors` so that texts that come later get vectors
//! of the same kind.

use std::path::PathBuf;

use indicatif::ProgressBar;
use safetensors::tensor::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::Vectors;
use super::sentence::{SentenceEncoder, hub, job};
use super::svd::{self, Projection};
use super::tfidf::{self, Vocabulary};
use crate::device::DeviceChoice;
use crate::error::{Result, TrainError};
use crate::files::read_bytes;
use crate::hash::hex;
use crate::interrupt::Control;
use crate::run_dir::RunDir;
use crate::tensors::{self, Element, Notes, Values};

/// How the files of this step are made.
pub(super) const EMBED: &str = "make it with `tigret embed`";

/// Hexadecimal digits of a fingerprint that tell encoders apart.
const ID_DIGITS: usize = 16;

/// TF-IDF and a projection: the same text has the same vector, bit for bit, whenever it comes.
#[derive(Debug, Clone, PartialEq)]
pub struct TfIdf {
    vocabulary: Vocabulary,
    projection: Projection,
}

impl TfIdf {
    /// Learns terms and projection of some texts; `after_round` is told of each of
    /// [`svd::rounds`] steps. `None` where no term stands in enough texts.
    ///
    /// # Errors
    /// [`TrainError::Torch`] from the dense factorisations.
    pub fn fit(
        texts: &[&str],
        settings: tfidf::Settings,
        dimensions: usize,
        seed: u64,
        after_round: impl Fn(),
    ) -> Result<Option<Self>> {
        let vocabulary = Vocabulary::fit(texts.iter().copied(), settings);
        if vocabulary.is_empty() {
            return Ok(None);
        }
        let matrix = vocabulary.weigh(texts.iter().copied());
        let projection = svd::truncated(&matrix, dimensions, seed, after_round)?;
        Ok(Some(Self { vocabulary, projection }))
    }

    /// Number of terms.
    pub fn terms(&self) -> usize {
        self.vocabulary.len()
    }

    /// Vectors of length 1; zero for a text without any known term.
    pub fn encode(&self, texts: &[&str]) -> Vectors {
        let matrix = self.vocabulary.weigh(texts.iter().copied());
        let dimensions = self.projection.dimensions;
        let mut vectors = Vectors { dimensions, data: self.projection.apply(&matrix) };
        vectors.normalise();
        vectors
    }
}

/// What made the vectors of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Encoder {
    /// TF-IDF and SVD, whole.
    TfIdf(TfIdf),
    /// A sentence-transformers folder: where it was, and a hash of all that it computes from.
    Sentence {
        /// An absolute path, or `hub:NAME`.
        source: String,
        /// [`SentenceEncoder::fingerprint`].
        fingerprint: String,
    },
    /// Another program.
    Precomputed {
        /// Whether its vectors were brought to length 1 here.
        normalised: bool,
    },
}

/// The kind of [`Encoder::Precomputed`], with which its ids begin.
const PRECOMPUTED: &str = "precomputed";

/// Whether an id is that of vectors of another program.
pub(crate) fn is_precomputed(id: &str) -> bool {
    id.starts_with(PRECOMPUTED)
}

impl Encoder {
    /// Tells encoders apart; stands in the artefacts that were made by this one.
    pub fn id(&self) -> String {
        let short = |fingerprint: &str| fingerprint[..ID_DIGITS.min(fingerprint.len())].to_owned();
        match self {
            Self::TfIdf(TfIdf { vocabulary, projection }) => {
                let mut hash = Sha256::new();
                hash.update(format!("{} {}", vocabulary.max_words(), projection.dimensions));
                hash.update(vocabulary.terms().join("\n"));
                let numbers = vocabulary.idf().iter().chain(&projection.data);
                numbers.for_each(|number| hash.update(number.to_le_bytes()));
                format!("tf-idf+svd:{}", short(&hex(hash)))
            }
            Self::Sentence { fingerprint, .. } => format!("sentence:{}", short(fingerprint)),
            Self::Precomputed { normalised: false } => PRECOMPUTED.to_owned(),
            Self::Precomputed { normalised: true } => format!("{PRECOMPUTED}:unit-length"),
        }
    }

    /// Writes `encoder.safetensors`.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&self, run: &RunDir) -> Result<()> {
        let mut notes = Notes::new();
        let mut note = |name: &str, value: &str| notes.insert(name.to_owned(), value.to_owned());
        let terms;
        let mut parts = Vec::new();
        match self {
            Self::TfIdf(TfIdf { vocabulary, projection }) => {
                note("kind", "tf-idf+svd");
                note("words", tfidf::WORDS);
                note("max_words", &vocabulary.max_words().to_string());
                terms = vocabulary.terms().join("\n");
                let (count, width) = (vocabulary.len(), projection.dimensions);
                parts.push(("terms", vec![terms.len()], Values::U8(terms.as_bytes())));
                parts.push(("idf", vec![count], Values::F32(vocabulary.idf())));
                parts.push(("projection", vec![count, width], Values::F32(&projection.data)));
            }
            Self::Sentence { source, fingerprint } => {
                note("kind", "sentence");
                note("source", source);
                note("fingerprint", fingerprint);
            }
            Self::Precomputed { normalised } => {
                note("kind", PRECOMPUTED);
                note("normalised", &normalised.to_string());
            }
        }
        tensors::write(&run.encoder(), parts, notes)
    }

    /// Reads what [`Encoder::save`] wrote.
    ///
    /// # Errors
    /// [`TrainError::File`] when it is missing or damaged.
    pub fn load(run: &RunDir) -> Result<Self> {
        let path = run.encoder();
        let bytes = read_bytes(&path, EMBED)?;
        Self::parse(&bytes).map_err(|reason| {
            TrainError::file(&path, format!("{reason}; run `tigret embed` again"))
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |e: safetensors::SafeTensorError| format!("is damaged ({e})");
        let (tensors, notes) = tensors::parse(bytes).map_err(damaged)?;
        let noted = |name: &str| {
            notes.get(name).cloned().ok_or_else(|| format!("is damaged (it has no {name})"))
        };
        match noted("kind")?.as_str() {
            "tf-idf+svd" => {
                if notes.get("words").is_none_or(|words| words != tfidf::WORDS) {
                    return Err("is of a tigret that finds other words in a text".into());
                }
                let max_words = noted("max_words")?.parse().ok();
                let max_words = max_words
                    .filter(|words| (1..=tfidf::MOST_WORDS).contains(words))
                    .ok_or("is damaged (max_words)")?;
                let terms = tensors.tensor("terms").map_err(damaged)?;
                let terms = std::str::from_utf8(terms.data()).map_err(|_| "is damaged (terms)")?;
                let (_, idf) = floats(&tensors, "idf")?;
                let (shape, projection) = floats(&tensors, "projection")?;
                let vocabulary = Vocabulary::from_parts(terms.split('\n'), idf, max_words);
                let vocabulary = vocabulary.filter(|vocabulary| {
                    matches!(shape[..], [terms, width] if terms == vocabulary.len() && width > 0)
                });
                let vocabulary = vocabulary.ok_or("is damaged (its parts do not fit together)")?;
                let projection = Projection { dimensions: shape[1], data: projection };
                Ok(Self::TfIdf(TfIdf { vocabulary, projection }))
            }
            "sentence" => {
                Ok(Self::Sentence { source: noted("source")?, fingerprint: noted("fingerprint")? })
            }
            PRECOMPUTED => {
                let normalised = notes.get("normalised").is_some_and(|note| note == "true");
                Ok(Self::Precomputed { normalised })
            }
            other => Err(format!("names the encoder \"{other}\", which this tigret does not know")),
        }
    }
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
    let tensor = tensors.tensor(name).map_err(|e| format!("is damaged ({e})"))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("is damaged ({name} is {:?})", tensor.dtype()));
    }
    let values = Element::F32.floats(tensor.data());
    match values.iter().all(|value| value.is_finite()) {
        true => Ok((tensor.shape().to_vec(), values)),
        false => Err(format!("is damaged ({name} holds numbers that are not finite)")),
    }
}

/// The encoder of a run, ready for texts.
#[derive(Debug)]
pub struct Ready {
    id: String,
    network: Network,
}

#[derive(Debug)]
enum Network {
    TfIdf(TfIdf),
    Sentence(Box<SentenceEncoder>),
}

impl Ready {
    /// Makes the encoder of a run ready: a sentence encoder is loaded from where it was, or from
    /// the folder `elsewhere`. `note` is told what a user should know.
    ///
    /// # Errors
    /// [`TrainError::File`] when the run has none, its vectors came from another program, or the
    /// folder is gone or has changed.
    pub fn of_run(
        run: &RunDir,
        elsewhere: Option<&str>,
        device: DeviceChoice,
        note: impl Fn(&str),
    ) -> Result<Self> {
        let encoder = Encoder::load(run)?;
        if Vectors::encoder(run).as_deref() != Some(encoder.id().as_str()) {
            return Err(TrainError::file(
                run.encoder(),
                "is not the encoder of vectors.safetensors; run `tigret embed` again",
            ));
        }
        let id = encoder.id();
        let (source, fingerprint) = match encoder {
            Encoder::TfIdf(_) if elsewhere.is_some() => {
                return Err(TrainError::usage(
                    "--encoder: the vectors of this run are of TF-IDF, which the run holds itself",
                ));
            }
            Encoder::TfIdf(encoder) => return Ok(Self { id, network: Network::TfIdf(encoder) }),
            Encoder::Sentence { source, fingerprint } => (source, fingerprint),
            Encoder::Precomputed { .. } => {
                return Err(TrainError::file(
                    run.vectors(),
                    "was made by another program, which has to encode new texts too; `tigret \
                     tokenize --assign` takes their vectors with --vectors, or as \"embedding\" \
                     in each line",
                ));
            }
        };
        let source = elsewhere.unwrap_or(&source);
        if !source.starts_with(hub::PREFIX) && !PathBuf::from(source).is_dir() {
            return Err(TrainError::file(
                source,
                "made the vectors of this run and is not there any more; put the encoder's folder \
                 back, or encode with `tigret embed --texts FILE --encoder DIR`",
            ));
        }
        let encoder = SentenceEncoder::open(source, device, |file| note(file))?;
        if encoder.fingerprint() != fingerprint {
            return Err(TrainError::file(
                source,
                "is not the encoder that made the vectors of this run, or has changed since; put \
                 the same files back, or run `tigret embed` and `tigret tokenize` again",
            ));
        }
        encoder.notes().iter().for_each(|text| note(text));
        Ok(Self { id, network: Network::Sentence(Box::new(encoder)) })
    }

    /// [`Encoder::id`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Length of its vectors.
    pub fn dimensions(&self) -> usize {
        match &self.network {
            Network::TfIdf(encoder) => encoder.projection.dimensions,
            Network::Sentence(encoder) => encoder.dimensions(),
        }
    }

    /// The vectors of some texts, on all threads.
    ///
    /// # Errors
    /// As [`job::encode_all`].
    pub fn encode(
        &self,
        texts: &[&str],
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vectors> {
        match &self.network {
            Network::TfIdf(encoder) => Ok(encoder.encode(texts)),
            Network::Sentence(encoder) => {
                let control = Control { interrupted, state: None };
                job::encode_all(encoder, texts, control, &ProgressBar::hidden())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] =
        ["red wine glass", "red car, old", "glass of wine, of wine", "blue old car"];

    fn fitted() -> TfIdf {
        let settings = tfidf::Settings { min_texts: 2, max_words: 2 };
        TfIdf::fit(&TEXTS, settings, 3, 0, || ()).unwrap().unwrap()
    }

    #[test]
    fn tf_idf_comes_back_from_its_file_and_gives_each_text_alone_the_vector_it_had_among_others() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let encoder = Encoder::TfIdf(fitted());
        encoder.save(&run).unwrap();
        assert_eq!(Encoder::load(&run).unwrap(), encoder);
        assert_eq!(Encoder::load(&run).unwrap().id(), encoder.id());
        let all = fitted().encode(&TEXTS);
        for (at, text) in TEXTS.iter().enumerate() {
            assert_eq!(fitted().encode(&[text]).data, all.row(at), "{text}");
        }
        assert_eq!(fitted().encode(&["unknown"]).zero_rows(), 1);
    }

    #[test]
    fn other_encoders_come_back_too_and_have_other_ids() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let sentence = |fingerprint: &str| Encoder::Sentence {
            source: "hub:a/b".into(),
            fingerprint: fingerprint.repeat(32),
        };
        let [raw, unit] = [false, true].map(|normalised| Encoder::Precomputed { normalised });
        assert!(is_precomputed(&raw.id()) && is_precomputed(&unit.id()));
        let all = [sentence("ab"), sentence("cd"), raw, unit, Encoder::TfIdf(fitted())];
        for (at, encoder) in all.iter().enumerate() {
            encoder.save(&run).unwrap();
            assert_eq!(Encoder::load(&run).unwrap(), *encoder);
            assert!(all[..at].iter().all(|other| other.id() != encoder.id()));
        }
    }

    #[test]
    fn a_damaged_file_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let refused = |reason: &str| {
            let error = Encoder::load(&run).unwrap_err().to_string();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        };
        refused("not found; make it with `tigret embed`");
        Encoder::TfIdf(fitted()).save(&run).unwrap();
        let good = std::fs::read(run.encoder()).unwrap();
        std::fs::write(run.encoder(), &good[..good.len() - 1]).unwrap();
        refused("is damaged");
        let mut bytes = good.clone();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(run.encoder(), &bytes).unwrap();
        // Whichever tensor comes last: its numbers or its text are wrong now.
        refused("is damaged");
        let other = String::from_utf8_lossy(&good[..300]).contains("tf-idf+svd");
        assert!(other, "the header comes first");
        let at = good.windows(10).position(|part| part == b"tf-idf+svd").unwrap();
        let mut bytes = good.clone();
        bytes[at] = b'x';
        std::fs::write(run.encoder(), &bytes).unwrap();
        refused("\"xf-idf+svd\", which this tigret does not know; run `tigret embed` again");
        // As long as no term is: each text would be gone through as many times.
        let number = good.windows(15).position(|part| part == b"\"max_words\":\"2\"").unwrap();
        bytes = good.clone();
        bytes[number + 13] = b'9';
        std::fs::write(run.encoder(), &bytes).unwrap();
        refused("is damaged (max_words)");
        // Before the words had a note, they were others.
        let at = good.windows(7).position(|part| part == b"\"words\"").unwrap();
        bytes = good;
        bytes[at + 1] = b'x';
        std::fs::write(run.encoder(), &bytes).unwrap();
        refused("is of a tigret that finds other words in a text; run `tigret embed` again");
    }
}
