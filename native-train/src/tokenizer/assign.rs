//! Semantic IDs for new items under a frozen tokenizer (`tigret tokenize --assign`).
//!
//! Items and vectors are streamed: beside the catalogue and ids, only a block of them is in memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::Value;
use tigret_infer::quantizer::{TakenCodes, to_unit_length};
use tigret_infer::{CatalogFile, CatalogItem, Quantizer, Structure};

use super::check::too_large;
use super::codes::encode;
use super::ids::{TOKENIZE, ids_of, ids_of_items, read_ids};
use super::quantizer_file::{OTHER_ENCODER, QuantizerFile, check_encoder};
use crate::data::new_items::{NewItem, for_each_new_item, text_recipe};
use crate::data::template::TextRecipe;
use crate::data::{Item, PREPARE_HINT};
use crate::embed::Vectors;
use crate::embed::append::NewRows;
use crate::embed::encoder::{Ready, is_precomputed};
use crate::embed::rows::VectorFile;
use crate::error::{Result, TrainError};
use crate::files::{Together, check_is_kept, open_file, read_json, write_line};
use crate::hash::Fingerprint;
use crate::run_dir::RunDir;

/// Items that are quantised together.
const BLOCK: usize = 8192;

/// What was assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Assigned {
    /// Items that have an ID now and had none before.
    pub new: usize,
    /// Items of the file that had one already and keep it.
    pub known: usize,
    /// New items that share their codes with others and took a further code to be told apart.
    pub collided: usize,
    /// Texts whose vector is zero, since the run's encoder knows none of their terms.
    pub zero_vectors: usize,
    /// Items of the catalogue now.
    pub items: usize,
    /// Whether the run has vectors that are not known to be of its items, so that those of new ones
    /// are not added.
    pub stale_vectors: bool,
}

/// Where the vectors of new items come from.
enum Source<'a> {
    /// In the field `embedding` of each line, else of its text.
    Inline(Texts<'a>),
    /// In a file of their own, a row an item in the same order.
    File(Box<VectorFile>),
    /// Not needed: codes are drawn from ids.
    None,
}

/// Encodes the texts of items; the run's encoder is loaded when the first text needs it.
struct Texts<'a> {
    run: &'a RunDir,
    recipe: Option<TextRecipe>,
    load: &'a dyn Fn(&RunDir) -> Result<Ready>,
    encoder: Option<Ready>,
}

/// New items that were read and are not yet quantised.
#[derive(Default)]
struct Block {
    ids: Vec<String>,
    lines: Vec<usize>,
    vectors: Vec<f32>,
    /// Texts whose vectors are to be put into `vectors`, and at which row.
    texts: Vec<(usize, String)>,
}

/// Gives the items of a JSONL file (`id`, any other fields) semantic IDs and adds them to the
/// catalogue, to `items.jsonl` and, where these are what the tokenizer was fitted to, to the vectors
/// of the run. IDs that exist do not change.
///
/// The vector of an item is its row of the file `vectors`, else its field `embedding`, else that
/// of its text ([`NewItem::text`]) by the encoder that `load_encoder` gives.
///
/// Nothing is written unless every item got an ID.
///
/// # Errors
/// [`TrainError::Line`] or [`TrainError::File`] for items or vectors that are wrong, or an item
/// for which all codes under its prefix are taken, and for a pipe.
pub fn assign(
    run: &RunDir,
    items: &Path,
    vectors: Option<&Path>,
    load_encoder: &dyn Fn(&RunDir) -> Result<Ready>,
    progress: &ProgressBar,
) -> Result<Assigned> {
    // Again for `items.jsonl`, once all have IDs.
    check_is_kept(items)?;
    let (mut state, old) = State::read(run, vectors, load_encoder)?;
    let there: HashSet<&str> = old.iter().map(String::as_str).collect();
    let known = state.catalog.items.len();
    let missing = state.add_items(items, vectors, &there, progress)?;
    progress.finish_and_clear();
    let State { rows, catalog, recipe, assigned, quantizer, .. } = state;
    // All are written before one takes its place; in this order: were the files after the first or the
    // second one not put there, the same command would mend that.
    let mut files = Together::default();
    let new: Vec<&str> = catalog.items[known..].iter().map(|item| item.id.as_str()).collect();
    if let Some(rows) = rows
        && missing == new.len()
        && !new.iter().any(|id| there.contains(id))
    {
        rows.append(run, [&ids_of(&catalog.items[..known]), &old], &new, &mut files)?;
    }
    files.write(&run.catalog(), |file| write_line(file, &catalog))?;
    append_items(run, items, &there, recipe.as_ref(), &mut files)?;
    files.put()?;
    let has_vectors = quantizer.config().structure != Structure::Hash && run.vectors().exists();
    let are_known = || -> Result<bool> {
        let there = Vectors::ids_hash(run);
        let orders = [ids_of(&catalog.items), ids_of_items(run)?];
        Ok(orders.iter().any(|ids| there == Some(Fingerprint::of(ids))))
    };
    let stale_vectors = has_vectors && !are_known()?;
    Ok(Assigned { items: catalog.items.len(), stale_vectors, ..assigned })
}

fn open_vectors(path: &Path, run: &RunDir, quantizer: &Quantizer) -> Result<VectorFile> {
    let file = VectorFile::open(path, None, "leave one in the file")?;
    // A file of the user's own need not say; one of `embed --texts` does. Where the vectors were
    // given, whoever gives further ones knows what they are.
    let known = encoder_of_tokenizer(run).unwrap_or_default();
    let known = known.filter(|known| !is_precomputed(known));
    if let (Some(encoder), Some(known)) = (file.encoder(), &known)
        && encoder != known
    {
        return Err(TrainError::file(
            path,
            format!(
                "has vectors of the encoder {encoder}, and the tokenizer was trained on those of \
                 {known}; run `tigret embed --texts` again with that one"
            ),
        ));
    }
    let wanted = quantizer.config().embedding();
    if file.dimensions() != wanted {
        return Err(TrainError::file(
            path,
            format!(
                "has rows of {} numbers, the tokenizer was trained on {wanted}",
                file.dimensions()
            ),
        ));
    }
    Ok(file)
}

impl Block {
    /// Adds the vector of an item, or the text that has to give it.
    fn add(
        &mut self,
        item: &NewItem<'_>,
        texts: &mut Texts<'_>,
        quantizer: &Quantizer,
    ) -> Result<()> {
        let width = quantizer.config().embedding();
        match item.embedding(width)? {
            Some(embedding) => self.vectors.extend(embedding),
            None => {
                texts.encoder(quantizer).map_err(|error| {
                    item.wrong(format!(
                        "has no \"embedding\" of {width} numbers, and its text cannot be encoded: \
                         {error}"
                    ))
                })?;
                let text = item.text_to_encode(texts.recipe.as_ref())?;
                self.texts.push((self.vectors.len() / width, text));
                self.vectors.resize(self.vectors.len() + width, 0.0);
            }
        }
        Ok(())
    }
}

impl Texts<'_> {
    /// Puts the vectors of a block's texts into their rows. Returns how many are zero.
    fn encode(&mut self, block: &mut Block, quantizer: &Quantizer) -> Result<usize> {
        if block.texts.is_empty() {
            return Ok(0);
        }
        let encoder = self.encoder(quantizer)?;
        let texts: Vec<&str> = block.texts.iter().map(|(_, text)| text.as_str()).collect();
        let vectors = encoder.encode(&texts, &|| false)?;
        let width = vectors.dimensions;
        for (at, (row, _)) in block.texts.iter().enumerate() {
            block.vectors[row * width..(row + 1) * width].copy_from_slice(vectors.row(at));
        }
        Ok(vectors.zero_rows())
    }

    /// The run's encoder, checked to be the one whose vectors the tokenizer knows.
    fn encoder(&mut self, quantizer: &Quantizer) -> Result<&Ready> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => self.load(quantizer)?,
        };
        Ok(self.encoder.insert(encoder))
    }

    fn load(&self, quantizer: &Quantizer) -> Result<Ready> {
        let encoder = (self.load)(self.run)?;
        let of_tokenizer = encoder_of_tokenizer(self.run)?;
        if of_tokenizer.as_deref() != Some(encoder.id())
            || encoder.dimensions() != quantizer.config().embedding()
        {
            return Err(TrainError::file(self.run.tokenizer(), OTHER_ENCODER));
        }
        Ok(encoder)
    }
}

/// Checks that a row of a vector file is that of an item.
fn check_row(item: &NewItem<'_>, file: &VectorFile, row: usize) -> Result<()> {
    let id = &item.id;
    if row >= file.rows() {
        return Err(item.wrong(format!(
            "item \"{id}\" has no vector: the vector file has {} rows",
            file.rows()
        )));
    }
    match file.ids() {
        Some(ids) if ids[row] != *id => Err(item.wrong(format!(
            "item \"{id}\" stands where the vector file has item \"{}\"; bring both into one order",
            ids[row]
        ))),
        _ => Ok(()),
    }
}

/// The catalogue while it grows.
struct State<'a> {
    quantizer: Quantizer,
    source: Source<'a>,
    /// How texts are made.
    recipe: Option<TextRecipe>,
    catalog: CatalogFile,
    taken: TakenCodes,
    ids: HashSet<String>,
    block: Block,
    /// The content vectors of the new items, where the run keeps them.
    rows: Option<NewRows>,
    assigned: Assigned,
}

impl<'a> State<'a> {
    /// What a run has before, and the ids of its items.
    fn read(
        run: &'a RunDir,
        vectors: Option<&Path>,
        load: &'a dyn Fn(&RunDir) -> Result<Ready>,
    ) -> Result<(Self, Vec<String>)> {
        let file = QuantizerFile::read(run)?;
        let (layout, before, items) =
            read_ids(&run.tokens(), &run.catalog(), [TOKENIZE; 2], <[CatalogItem]>::to_vec)?;
        let old = ids_of_items(run)?;
        file.check(run, &layout, &before, &ids_of(&items), &old)?;
        drop(before);
        let quantizer = file.quantizer;
        let config = quantizer.config();
        let sizes: Vec<u32> = layout.levels.iter().map(|level| level.size).collect();
        if sizes.len() != quantizer.levels() + 1 || sizes[..quantizer.levels()] != config.sizes {
            return Err(TrainError::file(
                run.tokenizer(),
                "has other levels than tokens.json; run `tigret tokenize` again",
            ));
        }
        let mut taken = TakenCodes::new(sizes[quantizer.levels()]);
        for item in &items {
            let codes: Vec<u16> = item.codes.iter().map(|&code| code as u16).collect();
            taken.insert(&codes);
        }
        let rows = match config.structure {
            Structure::Hash => None,
            // A run that does not say has its codes all the same.
            _ => NewRows::begin(
                run,
                encoder_of_tokenizer(run).unwrap_or_default(),
                config.embedding(),
            )?,
        };
        let recipe = text_recipe(run)?;
        let source = match (vectors, config.structure) {
            (Some(path), Structure::Hash) => {
                let reason = "the run's tokenizer draws codes from ids alone; leave --vectors out";
                return Err(TrainError::file(path, reason));
            }
            (None, Structure::Hash) => Source::None,
            (Some(path), _) => Source::File(Box::new(open_vectors(path, run, &quantizer)?)),
            (None, _) => Source::Inline(Texts { run, recipe: recipe.clone(), load, encoder: None }),
        };
        // A file that says of which encoder it is has been compared with the tokenizer's.
        let is_compared = matches!(&source, Source::File(file) if file.encoder().is_some());
        if config.structure != Structure::Hash && !is_compared {
            check_encoder(run)?;
        }
        let state = Self {
            ids: items.iter().map(|item| item.id.clone()).collect(),
            catalog: CatalogFile { items },
            block: Block::default(),
            assigned: Assigned::default(),
            quantizer,
            source,
            recipe,
            taken,
            rows,
        };
        Ok((state, old))
    }

    /// Adds the items of a file to the catalogue. Returns how many of them `items.jsonl` lacks,
    /// which has the items `there`.
    fn add_items(
        &mut self,
        items: &Path,
        vectors: Option<&Path>,
        there: &HashSet<&str>,
        progress: &ProgressBar,
    ) -> Result<usize> {
        if let Source::File(file) = &self.source {
            progress.set_length(file.rows() as u64);
        }
        let (mut row, mut missing) = (0, 0);
        for_each_new_item(items, |item| {
            let is_known = self.ids.contains(&item.id);
            match &mut self.source {
                Source::Inline(texts) if !is_known => {
                    self.block.add(&item, texts, &self.quantizer)?;
                }
                Source::File(file) => {
                    check_row(&item, file, row)?;
                    let vector = file.next_rows(1)?;
                    if !is_known {
                        self.block.vectors.extend(vector);
                    }
                }
                Source::Inline(_) | Source::None => {}
            }
            row += 1;
            missing += usize::from(!there.contains(item.id.as_str()));
            if is_known {
                self.assigned.known += 1;
            } else {
                self.block.ids.push(item.id);
                self.block.lines.push(item.line);
            }
            if row.is_multiple_of(BLOCK) {
                self.take(items)?;
                progress.inc(BLOCK as u64);
            }
            Ok(())
        })?;
        self.take(items)?;
        match &self.source {
            Source::File(file) if row != file.rows() => Err(TrainError::file(
                vectors.unwrap_or(items),
                format!("has {} rows for {row} items of {}", file.rows(), items.display()),
            )),
            _ => Ok(missing),
        }
    }

    /// Quantises the block and adds its new items to the catalogue.
    fn take(&mut self, path: &Path) -> Result<()> {
        let quantizer = &self.quantizer;
        if let Source::Inline(texts) = &mut self.source {
            self.assigned.zero_vectors += texts.encode(&mut self.block, quantizer)?;
        }
        let Block { ids, lines, vectors, .. } = std::mem::take(&mut self.block);
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let embedding = quantizer.config().embedding();
        let advice = "scale the vectors as those of the run are";
        if let Some(reason) = too_large(&names, &vectors, embedding, advice) {
            return Err(TrainError::file(path, reason));
        }
        let whole = with_unknown(quantizer, vectors);
        let codes = encode(quantizer, &names, &whole);
        let input = quantizer.config().input;
        for (at, prefix) in codes.chunks_exact(quantizer.levels()).enumerate() {
            let id = &ids[at];
            let free = self.taken.take(prefix).ok_or_else(|| {
                let reason = format!("item \"{id}\": {}", self.taken.full(prefix));
                TrainError::line(path, lines[at], reason)
            })?;
            if let Some(rows) = &mut self.rows {
                let mut row = whole[at * input..][..embedding].to_vec();
                if quantizer.config().unit_length {
                    to_unit_length(&mut row);
                }
                rows.push(&row)?;
            }
            self.ids.insert(id.clone());
            self.assigned.new += 1;
            self.assigned.collided += usize::from(free > 0);
            let codes = prefix.iter().chain([&free]).map(|&code| code.into()).collect();
            self.catalog.items.push(CatalogItem { id: id.clone(), codes });
        }
        Ok(())
    }
}

/// Vectors with zeros in the place of what only interactions tell, as items without any had in the
/// tokenizer's training.
fn with_unknown(quantizer: &Quantizer, vectors: Vec<f32>) -> Vec<f32> {
    let config = quantizer.config();
    if config.learned == 0 {
        return vectors;
    }
    let unknown = vec![0.0; config.learned];
    vectors.chunks_exact(config.embedding()).flat_map(|row| [row, &unknown].concat()).collect()
}

/// What made the vectors that the tokenizer was fitted to, as far as `tokenizer.json` says.
pub(super) fn encoder_of_tokenizer(run: &RunDir) -> Result<Option<String>> {
    let report: Value = read_json(&run.tokenizer_report(), TOKENIZE)?;
    Ok(report.get("encoder").and_then(Value::as_str).map(str::to_owned))
}

/// Adds the new items of a file to `items.jsonl`, one of `files`, with their texts and without their
/// embeddings.
fn append_items(
    run: &RunDir,
    items: &Path,
    there: &HashSet<&str>,
    recipe: Option<&TextRecipe>,
    files: &mut Together,
) -> Result<()> {
    let path = run.items();
    let mut old = open_file(&path, PREPARE_HINT)?;
    files.write(&path, |file| {
        io::copy(&mut old, file)?;
        // A file that was edited by hand may not end its last line.
        if !ends_a_line(&mut old)? {
            file.write_all(b"\n")?;
        }
        for_each_new_item(items, |item| {
            if there.contains(item.id.as_str()) {
                return Ok(());
            }
            let text = item.text(recipe);
            let NewItem { id, mut fields, .. } = item;
            for own in ["id", "text", "embedding"] {
                fields.remove(own);
            }
            write_line(file, &Item { id, text, fields }).map_err(|e| TrainError::file(&path, e))
        })
        .map_err(io::Error::other)
    })
}

/// Whether the next line can follow what a file holds.
fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
