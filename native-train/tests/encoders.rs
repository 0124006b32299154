//! Sentence encoders against `sentence-transformers`: golden folders, faults, interruption.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use tigret_train::TrainError;
use tigret_train::embed::Vectors;
use tigret_train::embed::sentence::job::{self, Control};
use tigret_train::embed::sentence::{Place, SentenceEncoder};

/// What `make_encoder_golden.py` wrote.
#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/encoders").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_str(&fs::read_to_string(golden(name).join("expected.json")).unwrap()).unwrap()
}

fn encode(encoder: &SentenceEncoder, texts: &[&str]) -> Vectors {
    let control = Control { interrupted: &AtomicBool::new(false), state: None };
    job::encode_all(encoder, texts, control, |_| ()).unwrap()
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
    let encoder = SentenceEncoder::load(&golden(name), Place::Cpu).unwrap();
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
    let encoder = SentenceEncoder::load(&golden("bert"), Place::Cpu).unwrap();
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
    let encoder = SentenceEncoder::load(&golden("mpnet"), Place::Cpu).unwrap();
    let texts: Vec<String> =
        (0..400).map(|at| format!("red lamp {at} {}", "soft oil ".repeat(at % 60))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let whole = encode(&encoder, &texts);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (mut rounds, mut seen) = (0, Vec::new());
    let vectors = loop {
        rounds += 1;
        let interrupted = AtomicBool::new(false);
        let control = Control { interrupted: &interrupted, state: Some(&state) };
        let mut done = 0;
        let limit = rounds * 80;
        let outcome = job::encode_all(&encoder, &texts, control, |count| {
            done += count;
            interrupted.store(done >= limit, Ordering::Relaxed);
        });
        seen.push(done);
        match outcome {
            Ok(vectors) => break vectors,
            Err(TrainError::Interrupted) => assert!(state.exists()),
            Err(other) => panic!("{other}"),
        }
    };
    assert!(rounds > 2, "it was to be interrupted at least twice: {seen:?}");
    assert!(seen.is_sorted() && seen[0] < 400, "work is taken up, not begun again: {seen:?}");
    assert_eq!(vectors, whole);
    assert!(!state.exists(), "finished work leaves no state");
}

#[test]
fn unfinished_work_of_other_texts_or_a_broken_state_is_not_taken_up() {
    let encoder = SentenceEncoder::load(&golden("bert"), Place::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let interrupted = AtomicBool::new(true);
    let control = Control { interrupted: &interrupted, state: Some(&state) };
    let stopped = job::encode_all(&encoder, &["red", "lamp"], control, |_| ());
    assert!(matches!(stopped, Err(TrainError::Interrupted)));
    let control = Control { interrupted: &AtomicBool::new(false), state: Some(&state) };
    let other = job::encode_all(&encoder, &["lamp", "red"], control, |_| ()).unwrap();
    assert_eq!(other, encode(&encoder, &["lamp", "red"]));
    fs::write(&state, b"not a state").unwrap();
    let again = job::encode_all(&encoder, &["lamp", "red"], control, |_| ()).unwrap();
    assert_eq!(again, other);
}
