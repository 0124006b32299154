//! Vectors for the texts of a file, by the encoder of a run (`tigret embed --texts`): streamed,
//! and taken up where it was interrupted.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use safetensors::tensor::Dtype;
use serde::Serialize;
use serde_json::json;

use super::encoder::Ready;
use super::{TENSOR, Vectors};
use crate::data::new_items::for_each_new_item;
use crate::data::template::TextRecipe;
use crate::destination::{check_replaces, destination, start};
use crate::error::{Result, TrainError};
use crate::files::{check_is_kept, open_unfinished, unfinished};
use crate::hash::Fingerprint;
use crate::interrupt::goes_on_from;
use crate::tensors::{self, Header, Notes, Place};

/// Texts that are encoded together: the vectors of a sentence encoder depend, in their last bit,
/// on what is encoded at once, so work that is taken up has to cut the file at the same places.
const BLOCK: usize = 1024;

/// Longest list of ids that is written: safetensors' own readers take headers of 100 MB.
const MOST_IDS: usize = 90_000_000;

/// What was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Encoded {
    /// Texts.
    pub texts: usize,
    /// Length of a vector.
    pub dimensions: usize,
    /// Texts whose vector is zero, since the encoder knows none of their terms.
    pub zero_vectors: usize,
}

/// Encodes the items of a JSONL file into a `.safetensors` file: tensor `vectors`
/// `[texts, dimensions]`, f32, and the ids as the JSON list `ids` in its metadata (left out where
/// they would make the header longer than safetensors allows).
///
/// Unfinished work lies in `OUT.tigret.partial`; the same call goes on from its last whole block and ends
/// with the bytes of an uninterrupted one. Beside the ids, only a block is in memory.
///
/// # Errors
/// [`TrainError::Line`] for an item without an id or a text, [`TrainError::File`] for files that
/// cannot be read or written, [`TrainError::Interrupted`], and what the encoder reports.
pub fn encode_file(
    encoder: &Ready,
    recipe: Option<&TextRecipe>,
    items: &Path,
    out: &Path,
    interrupted: &(dyn Fn() -> bool + Sync),
    progress: &ProgressBar,
) -> Result<Encoded> {
    // For the header, and again to encode them.
    check_is_kept(items)?;
    let out = &destination(out)?;
    let (header, count) = header(encoder, recipe, items)?;
    let mut file = Partial::open(out, &header, encoder.dimensions())?;
    let already = file.rows;
    progress.set_length(count as u64);
    goes_on_from(progress, already as u64);
    let (mut block, mut at) = (Vec::with_capacity(BLOCK), 0);
    for_each_new_item(items, |item| {
        at += 1;
        if at > already {
            block.push(item.text_to_encode(recipe)?);
        }
        if block.len() == BLOCK || (at == count && !block.is_empty()) {
            let texts: Vec<&str> = block.iter().map(String::as_str).collect();
            file.append(&encoder.encode(&texts, interrupted)?)?;
            progress.set_position(at as u64);
            block.clear();
            if interrupted() {
                return Err(TrainError::Interrupted);
            }
        }
        Ok(())
    })?;
    if file.rows != count {
        return Err(TrainError::file(items, "has changed while it was read"));
    }
    let zero_vectors = file.finish(out)?;
    progress.finish_and_clear();
    Ok(Encoded { texts: count, dimensions: encoder.dimensions(), zero_vectors })
}

/// The start of the file, which says what follows and of what it is, and the number of texts.
fn header(encoder: &Ready, recipe: Option<&TextRecipe>, items: &Path) -> Result<(Vec<u8>, usize)> {
    let mut ids = Vec::new();
    let mut texts = Fingerprint::default();
    for_each_new_item(items, |item| {
        texts.add(item.text_to_encode(recipe)?);
        ids.push(item.id);
        Ok(())
    })?;
    if ids.is_empty() {
        return Err(TrainError::file(items, "has no items"));
    }
    let mut notes =
        Notes::from([("encoder".into(), encoder.id().into()), ("texts".into(), texts.end())]);
    let list = json!(ids).to_string();
    // A text in the header, where each of its quotes takes another byte.
    if json!(list).to_string().len() <= MOST_IDS {
        notes.insert("ids".into(), list);
    }
    let place = Place {
        name: TENSOR,
        dtype: Dtype::F32,
        shape: vec![ids.len(), encoder.dimensions()],
        bytes: ids.len() * encoder.dimensions() * 4,
    };
    let header = tensors::header(std::iter::once(place), &notes);
    Ok((header.map_err(|e| TrainError::file(items, e))?, ids.len()))
}

/// Refuses to replace anything but what [`encode_file`] wrote.
///
/// # Errors
/// [`TrainError::File`].
pub fn check_out(out: &Path) -> Result<()> {
    if out.extension().is_none_or(|kind| kind != "safetensors") {
        return Err(TrainError::file(out, "must end in .safetensors"));
    }
    tensors::check_replaces(out, is_ours, "holds no vectors of texts")
}

/// Whether a file's header is one of [`encode_file`].
fn is_ours(header: &Header) -> bool {
    ["encoder", "texts"].iter().all(|name| header.note(name).is_some())
}

/// The file while it grows.
struct Partial {
    path: PathBuf,
    file: File,
    /// Rows that it has, whole blocks of them.
    rows: usize,
    zero: usize,
}

impl Partial {
    /// Takes up the whole blocks of unfinished work with this header, or begins anew in the place
    /// of work of another; what is no such work is refused.
    fn open(out: &Path, header: &[u8], dimensions: usize) -> Result<Self> {
        let path = unfinished(out);
        let is_work = |mut file: File| {
            let is_begun = start(&mut file, header.len()).is_ok_and(|s| header.starts_with(&s));
            let rewound = file.rewind().map(|()| BufReader::new(file));
            is_begun
                || rewound.is_ok_and(|mut file| {
                    Header::read_start(&mut file).is_ok_and(|(header, _)| is_ours(&header))
                })
        };
        check_replaces(&path, is_work, "holds no unfinished work of this command")?;
        let attempt = || -> std::io::Result<(File, usize, usize)> {
            let mut file = open_unfinished(&path)?;
            let (mut rows, mut zero) = (0, 0);
            if start(&mut file, header.len())? == header {
                let mut block = vec![0; BLOCK * dimensions * 4];
                while file.read_exact(&mut block).is_ok() {
                    rows += BLOCK;
                    let row = |row: &&[u8]| row.iter().all(|&byte| byte == 0);
                    zero += block.chunks_exact(dimensions * 4).filter(row).count();
                }
            } else {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(header)?;
            }
            let end = (header.len() + rows * dimensions * 4) as u64;
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            Ok((file, rows, zero))
        };
        let (file, rows, zero) = attempt().map_err(|e| TrainError::file(&path, e))?;
        Ok(Self { path, file, rows, zero })
    }

    fn append(&mut self, vectors: &Vectors) -> Result<()> {
        let bytes: Vec<u8> = vectors.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(|e| TrainError::file(&self.path, e))?;
        self.rows += vectors.data.len() / vectors.dimensions;
        self.zero += vectors.zero_rows();
        Ok(())
    }

    /// Gives the file its name. Returns the number of zero vectors.
    fn finish(self, out: &Path) -> Result<usize> {
        self.file.sync_all().map_err(|e| TrainError::file(&self.path, e))?;
        std::fs::rename(&self.path, out).map_err(|e| TrainError::file(out, e))?;
        Ok(self.zero)
    }
}
