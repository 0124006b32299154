//! Encoding many texts: sorted by length, on all threads, and resumable.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use safetensors::tensor::Dtype;

use super::SentenceEncoder;
use crate::embed::Vectors;
use crate::error::{Result, TrainError};
use crate::hash::Fingerprint;
use crate::interrupt::{Control, SAVE_EVERY, WORK_PER_SAVE, goes_on_from};
use crate::tensors::{self, Header, Notes, Values};

/// Tokens of a batch: enough to fill a core's matrix units, few enough for its caches.
const CPU_BATCH_TOKENS: usize = 2048;

/// Tokens of a batch on a GPU.
const CUDA_BATCH_TOKENS: usize = 32_768;

/// Texts of one length.
struct Batch {
    texts: Vec<u32>,
    length: usize,
}

/// The vectors of all texts, in their order; `progress` is over texts.
///
/// Unfinished work of the same encoder and texts is taken up from `control.state`; batches do not
/// depend on where it stopped, so the vectors are those of an uninterrupted run, bit for bit. The file
/// stays: whoever keeps the vectors removes it then. A text without any token has a zero vector.
///
/// # Errors
/// [`TrainError::Interrupted`] after the state is saved; [`TrainError::File`] when it cannot be;
/// whatever the encoder reports; [`TrainError::Usage`] for a vector that is not finite.
pub fn encode_all(
    encoder: &SentenceEncoder,
    texts: &[&str],
    control: Control<'_>,
    progress: &ProgressBar,
) -> Result<Vectors> {
    let tokens = encoder.tokenize(texts)?;
    let cuda = encoder.device.is_cuda();
    let batches = batches(&tokens, if cuda { CUDA_BATCH_TOKENS } else { CPU_BATCH_TOKENS });
    let dimensions = encoder.dimensions();
    let job = Job { encoder, tokens, batches, key: key(encoder, texts), control, progress };
    let mut work = control
        .state
        .and_then(|path| Work::load(path, &job.key, texts.len(), dimensions, job.batches.len()))
        .unwrap_or_else(|| Work::new(texts.len(), dimensions, job.batches.len()));
    job.encode_open(&mut work)?;
    if work.done.contains(&0) {
        if let Some(path) = control.state {
            work.save(path, &job.key)?;
        }
        return Err(TrainError::Interrupted);
    }
    if let Some(at) = work.vectors.data.iter().position(|x| !x.is_finite()) {
        let text = at / dimensions + 1;
        return Err(TrainError::usage(format!(
            "the encoder's vector of text {text} is not finite; its weights are broken"
        )));
    }
    Ok(work.vectors)
}

/// What threads share.
struct Job<'a> {
    encoder: &'a SentenceEncoder,
    /// Of each text.
    tokens: Vec<Vec<u32>>,
    batches: Vec<Batch>,
    key: String,
    control: Control<'a>,
    progress: &'a ProgressBar,
}

impl Job<'_> {
    /// Encodes the batches that are not done until all are or an interrupt is asked for, and saves
    /// the state now and then.
    fn encode_open(&self, work: &mut Work) -> Result<()> {
        let (numbers, open): (Vec<usize>, Vec<&Batch>) =
            self.batches.iter().enumerate().filter(|&(at, _)| work.done[at] == 0).unzip();
        let left: usize = open.iter().map(|batch| batch.texts.len()).sum();
        goes_on_from(self.progress, (self.tokens.len() - left) as u64);
        let next = AtomicUsize::new(0);
        let threads = match self.encoder.device.is_cuda() {
            true => 1,
            false => rayon::current_num_threads(),
        };
        thread::scope(|scope| {
            let (send, receive) = mpsc::sync_channel(2 * threads);
            for number in 0..threads {
                let (send, open, next) = (send.clone(), &open, &next);
                // A batch a thread: its own products must not spread over the threads again.
                let encode = move || on_one_thread(|| self.encode_next(open, next, &send));
                if let Err(none) = thread::Builder::new().spawn_scoped(scope, encode) {
                    // With fewer than asked for it takes longer.
                    if number == 0 {
                        return Err(TrainError::no_thread(&none));
                    }
                    break;
                }
            }
            drop(send);
            let (mut saved, mut took) = (Instant::now(), Duration::ZERO);
            // Where this ends early, nobody receives any more, and the threads end after their batch.
            for (at, vectors) in receive {
                work.keep(numbers[at], &open[at].texts, &vectors?);
                self.progress.inc(open[at].texts.len() as u64);
                // The state has all vectors, of a million texts gigabytes.
                if let Some(path) = self.control.state
                    && saved.elapsed() > SAVE_EVERY.max(took * WORK_PER_SAVE)
                {
                    let begin = Instant::now();
                    work.save(path, &self.key)?;
                    saved = Instant::now();
                    took = saved - begin;
                }
            }
            Ok(())
        })
    }

    /// Sends the vectors of one open batch after the other, each with its place among them.
    fn encode_next(
        &self,
        open: &[&Batch],
        next: &AtomicUsize,
        send: &SyncSender<(usize, Result<Vec<f32>>)>,
    ) {
        while !(self.control.interrupted)() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = open.get(at) else { break };
            if send.send((at, self.encode(batch))).is_err() {
                break;
            }
        }
    }

    fn encode(&self, batch: &Batch) -> Result<Vec<f32>> {
        if batch.length == 0 {
            return Ok(vec![0.0; batch.texts.len() * self.encoder.dimensions()]);
        }
        let tokens = batch.texts.iter().flat_map(|&text| &self.tokens[text as usize]);
        let tokens: Vec<u32> = tokens.copied().collect();
        self.encoder.encode(&tokens, batch.length)
    }
}

/// Runs work whose matrix products stay on this thread.
fn on_one_thread(work: impl FnOnce() + Send) {
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(work),
        // Without a pool of its own it shares the common one: slower, and the same.
        Err(_) => work(),
    }
}

/// Texts by length, the longest first, so that no thread is left with a long batch at the end.
fn batches(tokens: &[Vec<u32>], batch_tokens: usize) -> Vec<Batch> {
    let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
    let length = |text: &u32| tokens[*text as usize].len();
    order.sort_by_key(|text| (std::cmp::Reverse(length(text)), *text));
    let mut batches = Vec::new();
    for texts in order.chunk_by(|a, b| length(a) == length(b)) {
        let length = length(&texts[0]);
        let texts_each = (batch_tokens / length.max(1)).max(1);
        batches
            .extend(texts.chunks(texts_each).map(|texts| Batch { texts: texts.to_vec(), length }));
    }
    batches
}

/// Tells jobs apart: the encoder, the kind of device, the texts and their order.
fn key(encoder: &SentenceEncoder, texts: &[&str]) -> String {
    let of_encoder = [encoder.fingerprint(), encoder.device_name()];
    Fingerprint::of(of_encoder.iter().chain(texts))
}

/// Vectors so far and which batches they are from.
struct Work {
    vectors: Vectors,
    done: Vec<u8>,
}

impl Work {
    fn new(texts: usize, dimensions: usize, batches: usize) -> Self {
        let vectors = Vectors { dimensions, data: vec![0.0; texts * dimensions] };
        Self { vectors, done: vec![0; batches] }
    }

    fn keep(&mut self, batch: usize, texts: &[u32], vectors: &[f32]) {
        let dimensions = self.vectors.dimensions;
        for (&text, vector) in texts.iter().zip(vectors.chunks_exact(dimensions)) {
            let start = text as usize * dimensions;
            self.vectors.data[start..start + dimensions].copy_from_slice(vector);
        }
        self.done[batch] = 1;
    }

    /// `None` where there is no unfinished work of this job; a broken file is none either.
    fn load(
        path: &Path,
        key: &str,
        texts: usize,
        dimensions: usize,
        batches: usize,
    ) -> Option<Self> {
        let mut file = BufReader::new(File::open(path).ok()?);
        let header = Header::read(&mut file).ok()?;
        let (vectors, done) = (header.tensors.info("vectors")?, header.tensors.info("done")?);
        if header.note("key") != Some(key)
            || vectors.dtype != Dtype::F32
            || vectors.shape != [texts, dimensions]
            || done.dtype != Dtype::U8
            || done.shape != [batches]
        {
            return None;
        }
        let data = header.read_f32s(&mut file, vectors).ok()?;
        let done = header.read_u8s(&mut file, done).ok()?;
        Some(Self { vectors: Vectors { dimensions, data }, done })
    }

    fn save(&self, path: &Path, key: &str) -> Result<()> {
        let Vectors { dimensions, data } = &self.vectors;
        let tensors = vec![
            ("vectors", vec![data.len() / dimensions, *dimensions], Values::F32(data)),
            ("done", vec![self.done.len()], Values::U8(&self.done)),
        ];
        tensors::write(path, tensors, Notes::from([("key".to_owned(), key.to_owned())]))
    }
}
