//! New rows behind those of `vectors.safetensors`, block by block, so that items that are assigned
//! later need not be encoded again.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use safetensors::tensor::Dtype;

use super::rows::VectorFile;
use super::{TENSOR, TextsNote, Vectors, vector_notes};
use crate::error::{Result, TrainError};
use crate::files::{Together, unfinished};
use crate::hash::Fingerprint;
use crate::run_dir::RunDir;
use crate::tensors::{self, Place};

/// Rows of the old file that are copied at a time.
const BLOCK: usize = 8192;

/// Rows that wait, in a file beside `vectors.safetensors`, until all are there.
#[derive(Debug)]
pub(crate) struct NewRows {
    path: PathBuf,
    file: BufWriter<File>,
    encoder: String,
    dimensions: usize,
    count: usize,
}

impl NewRows {
    /// Begins with no row; `None` where the run has no vectors of this encoder and length.
    ///
    /// # Errors
    /// [`TrainError::File`] where the rows cannot be kept.
    pub(crate) fn begin(
        run: &RunDir,
        encoder: Option<String>,
        dimensions: usize,
    ) -> Result<Option<Self>> {
        let like = |file: VectorFile| file.dimensions() == dimensions;
        let Some(encoder) = encoder.filter(|encoder| {
            Vectors::encoder(run).as_ref() == Some(encoder)
                && VectorFile::open(&run.vectors(), Some(TENSOR), "").is_ok_and(like)
        }) else {
            return Ok(None);
        };
        let path = unfinished(&run.vectors().with_extension("new"));
        let file = File::create(&path).map_err(|e| TrainError::file(&path, e))?;
        Ok(Some(Self { path, file: BufWriter::new(file), encoder, dimensions, count: 0 }))
    }

    /// Adds the row of a new item.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn push(&mut self, row: &[f32]) -> Result<()> {
        self.count += 1;
        let mut write = || row.iter().try_for_each(|x| self.file.write_all(&x.to_le_bytes()));
        write().map_err(|e| TrainError::file(&self.path, e))
    }

    /// Puts the rows, one for each of `new`, behind those of the run, which are of the items `old` in
    /// one of these orders. Vectors of other items stay as they are: those of `old` and `new` already
    /// have the rows, and any others are not to be mixed with. They are one of `files`, which puts them in
    /// place.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(crate) fn append(
        mut self,
        run: &RunDir,
        old: [&[String]; 2],
        new: &[&str],
        files: &mut Together,
    ) -> Result<()> {
        let there = Vectors::ids_hash(run);
        let old = old.into_iter().find(|old| there == Some(Fingerprint::of(*old)));
        let Some(old) = old.filter(|_| new.len() == self.count && !new.is_empty()) else {
            return Ok(());
        };
        let ids = Fingerprint::of(old.iter().map(String::as_str).chain(new.iter().copied()));
        self.file.flush().map_err(|e| TrainError::file(&self.path, e))?;
        let mut before = VectorFile::open(&run.vectors(), Some(TENSOR), "")?;
        let added = File::open(&self.path).map_err(|e| TrainError::file(&self.path, e))?;
        let rows = before.rows() + self.count;
        let place = Place {
            name: TENSOR,
            dtype: Dtype::F32,
            shape: vec![rows, self.dimensions],
            bytes: 4 * rows * self.dimensions,
        };
        let texts = Vectors::header(run).as_ref().and_then(TextsNote::of);
        let notes = vector_notes(&self.encoder, ids, texts);
        let header = tensors::header(std::iter::once(place), &notes)
            .map_err(|e| TrainError::file(run.vectors(), e))?;
        files.write(&run.vectors(), |file| {
            file.write_all(&header)?;
            loop {
                let block = before.next_rows(BLOCK).map_err(std::io::Error::other)?;
                if block.is_empty() {
                    break;
                }
                block.iter().try_for_each(|x| file.write_all(&x.to_le_bytes()))?;
            }
            std::io::copy(&mut BufReader::new(&added), file).map(drop)
        })
    }
}

impl Drop for NewRows {
    fn drop(&mut self) {
        // A file that stays is replaced the next time.
        let _ = fs::remove_file(&self.path);
    }
}
