//! Semantic IDs for new items under a frozen tokenizer (`tigret tokenize --assign`).
//!
//! Items and vectors are streamed: beside the catalogue, only a block of them is in memory.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Map, Value};
use tigret_infer::quantizer::TakenCodes;
use tigret_infer::{CatalogFile, CatalogItem, Quantizer, Structure, TokenLayout};

use super::fit::encode;
use crate::data::lines::for_each_line;
use crate::embed::rows::VectorFile;
use crate::error::{Result, TrainError};
use crate::run_dir::{RunDir, read_json, read_text, write_atomically};

/// Items that are quantised together.
const BLOCK: usize = 8192;
const TOKENIZE: &str = "make it with `tigret tokenize`";

/// What was assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Assigned {
    /// Items that have an ID now and had none before.
    pub new: usize,
    /// Items of the file that had one already and keep it.
    pub known: usize,
    /// New items that share their codes with others and took a further code to be told apart.
    pub collided: usize,
    /// Items of the catalogue now.
    pub items: usize,
}

/// The vectors of an items file.
enum Vectors {
    /// In the field `embedding` of each line.
    Inline,
    /// In a file of their own, a row an item in the same order.
    File(Box<VectorFile>),
    /// Not needed: codes are drawn from ids.
    None,
}

/// Items read and not yet quantised.
#[derive(Default)]
struct Block {
    ids: Vec<String>,
    lines: Vec<usize>,
    vectors: Vec<f32>,
}

/// Gives the items of a JSONL file (`id`, for display any other fields, and `embedding` where
/// there is no vector file) semantic IDs and adds them to the catalogue and to `items.jsonl` of
/// the run. IDs that exist do not change.
///
/// Nothing is written unless every item got an ID.
///
/// # Errors
/// [`TrainError::Line`] or [`TrainError::File`] for items or vectors that are wrong, or an item
/// for which all codes under its prefix are taken.
pub fn assign(
    run: &RunDir,
    items: &Path,
    vectors: Option<&Path>,
    progress: &ProgressBar,
) -> Result<Assigned> {
    let quantizer = load_quantizer(run)?;
    let layout = TokenLayout::parse(&read_text(&run.tokens(), TOKENIZE)?)
        .map_err(|e| TrainError::file(run.tokens(), e))?;
    let sizes: Vec<u32> = layout.levels.iter().map(|level| level.size).collect();
    if sizes.len() != quantizer.levels() + 1
        || sizes[..quantizer.levels()] != quantizer.config().sizes
    {
        return Err(TrainError::file(
            run.tokenizer(),
            "has other levels than tokens.json; run `tigret tokenize` again",
        ));
    }
    let mut catalog: CatalogFile = read_json(&run.catalog(), TOKENIZE)?;
    let mut state = State::new(&catalog, sizes[quantizer.levels()]);
    let mut source = match (vectors, quantizer.config().structure) {
        (_, Structure::Hash) => Vectors::None,
        (Some(path), _) => Vectors::File(Box::new(open_vectors(path, &quantizer)?)),
        (None, _) => Vectors::Inline,
    };
    if let Vectors::File(file) = &source {
        progress.set_length(file.rows() as u64);
    }

    let mut block = Block::default();
    let mut row = 0;
    let mut lines_of_ids: HashMap<String, usize> = HashMap::new();
    for_each_line(items, "name the new items' file", |line, text| {
        let fields = parse(items, line, text)?;
        let id = id_of(items, line, &fields)?;
        if let Some(first) = lines_of_ids.insert(id.clone(), line) {
            let reason = format!("item \"{id}\" stands already on line {first}");
            return Err(TrainError::line(items, line, reason));
        }
        if let (Vectors::Inline, false) = (&source, state.has(&id)) {
            block.vectors.extend(embedding(items, line, &fields, &quantizer)?);
        }
        if let Vectors::File(file) = &source {
            check_row(items, line, file, row, &id)?;
        }
        row += 1;
        block.ids.push(id);
        block.lines.push(line);
        if block.ids.len() == BLOCK {
            state.take(items, &quantizer, &mut source, &mut block, &mut catalog)?;
            progress.inc(BLOCK as u64);
        }
        Ok(())
    })?;
    state.take(items, &quantizer, &mut source, &mut block, &mut catalog)?;
    if let Vectors::File(file) = &source
        && row != file.rows()
    {
        return Err(TrainError::file(
            vectors.unwrap_or(items),
            format!("has {} rows for {row} items of {}", file.rows(), items.display()),
        ));
    }
    progress.finish_and_clear();
    let assigned = Assigned { items: catalog.items.len(), ..state.assigned };
    // The catalogue first: were the second file not written, the same command would mend that.
    write_atomically(&run.catalog(), |file| {
        serde_json::to_writer(&mut *file, &catalog)?;
        file.write_all(b"\n")
    })?;
    append_items(run, items)?;
    Ok(assigned)
}

/// The quantiser of a run.
///
/// # Errors
/// [`TrainError::File`] when it is missing or of an older kind.
pub fn load_quantizer(run: &RunDir) -> Result<Quantizer> {
    let path = run.tokenizer();
    let bytes = std::fs::read(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::file(&path, format!("not found; {TOKENIZE}")),
        _ => TrainError::file(&path, e),
    })?;
    Quantizer::from_bytes(&bytes)
        .map_err(|e| TrainError::file(&path, format!("{e}; run `tigret tokenize` again")))
}

fn open_vectors(path: &Path, quantizer: &Quantizer) -> Result<VectorFile> {
    let file = VectorFile::open(path)?;
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

fn parse(path: &Path, line: usize, text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|e| TrainError::line(path, line, e))
}

fn id_of(path: &Path, line: usize, fields: &Map<String, Value>) -> Result<String> {
    match fields.get("id") {
        Some(Value::String(id)) if !id.is_empty() => Ok(id.clone()),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err(TrainError::line(path, line, "has no \"id\" that is a text or a number")),
    }
}

fn embedding(
    path: &Path,
    line: usize,
    fields: &Map<String, Value>,
    quantizer: &Quantizer,
) -> Result<Vec<f32>> {
    let wanted = quantizer.config().embedding();
    let wrong = |reason: String| TrainError::line(path, line, reason);
    let numbers = fields.get("embedding").and_then(Value::as_array).ok_or_else(|| {
        wrong(format!("has no \"embedding\" of {wanted} numbers; give one, or a file by --vectors"))
    })?;
    if numbers.len() != wanted {
        let found = numbers.len();
        return Err(wrong(format!(
            "\"embedding\" has {found} numbers, the tokenizer was trained on {wanted}"
        )));
    }
    numbers
        .iter()
        .map(|number| {
            let number = number.as_f64().map(|number| number as f32);
            number.filter(|number| number.is_finite()).ok_or_else(|| {
                wrong("\"embedding\" holds something else than finite numbers".into())
            })
        })
        .collect()
}

/// Checks that a row of a vector file is that of an item.
fn check_row(path: &Path, line: usize, file: &VectorFile, row: usize, id: &str) -> Result<()> {
    let wrong = |reason: String| Err(TrainError::line(path, line, reason));
    if row >= file.rows() {
        return wrong(format!(
            "item \"{id}\" has no vector: the vector file has {} rows",
            file.rows()
        ));
    }
    match file.ids() {
        Some(ids) if ids[row] != id => wrong(format!(
            "item \"{id}\" stands where the vector file has item \"{}\"; bring both into one order",
            ids[row]
        )),
        _ => Ok(()),
    }
}

/// The catalogue while it grows.
struct State {
    taken: TakenCodes,
    ids: HashSet<String>,
    assigned: Assigned,
}

impl State {
    fn new(catalog: &CatalogFile, size: u32) -> Self {
        let mut taken = TakenCodes::new(size);
        for item in &catalog.items {
            let codes: Vec<u16> = item.codes.iter().map(|&code| code as u16).collect();
            taken.insert(&codes);
        }
        let ids = catalog.items.iter().map(|item| item.id.clone()).collect();
        Self { taken, ids, assigned: Assigned::default() }
    }

    fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Quantises a block and adds its new items to the catalogue.
    fn take(
        &mut self,
        path: &Path,
        quantizer: &Quantizer,
        source: &mut Vectors,
        block: &mut Block,
        catalog: &mut CatalogFile,
    ) -> Result<()> {
        let Block { ids, lines, vectors } = std::mem::take(block);
        let (vectors, skip_known) = match source {
            Vectors::File(file) => (file.next_rows(ids.len())?, false),
            Vectors::Inline => (vectors, true),
            Vectors::None => (Vec::new(), false),
        };
        // Inline vectors were read for new items only; a file's rows for all.
        let quantised: Vec<&str> =
            ids.iter().map(String::as_str).filter(|id| !(skip_known && self.has(id))).collect();
        let whole = with_unknown(quantizer, vectors);
        let codes = encode(quantizer, &quantised, &whole);
        let mut codes = codes.chunks_exact(quantizer.levels());
        for (id, line) in ids.iter().zip(lines) {
            let known = self.ids.contains(id);
            let prefix = if skip_known && known { None } else { codes.next() };
            let (Some(prefix), false) = (prefix, known) else {
                self.assigned.known += 1;
                continue;
            };
            let free = self.taken.take(prefix).ok_or_else(|| {
                let reason = format!("item \"{id}\": {}", self.taken.full(prefix));
                TrainError::line(path, line, reason)
            })?;
            self.ids.insert(id.clone());
            self.assigned.new += 1;
            self.assigned.collided += usize::from(free > 0);
            let codes = prefix.iter().chain([&free]).map(|&code| code.into()).collect();
            catalog.items.push(CatalogItem { id: id.clone(), codes });
        }
        Ok(())
    }
}

/// Vectors with the mean in the place of what only interactions tell.
fn with_unknown(quantizer: &Quantizer, vectors: Vec<f32>) -> Vec<f32> {
    let config = quantizer.config();
    if config.learned == 0 {
        return vectors;
    }
    let unknown = &quantizer.tensors().mean[config.embedding()..];
    vectors.chunks_exact(config.embedding()).flat_map(|row| [row, unknown].concat()).collect()
}

/// Adds the new items of a file to `items.jsonl`, without their embeddings.
fn append_items(run: &RunDir, items: &Path) -> Result<()> {
    let mut there = HashSet::new();
    for_each_line(&run.items(), "make it with `tigret prepare`", |line, text| {
        there.insert(id_of(&run.items(), line, &parse(&run.items(), line, text)?)?);
        Ok(())
    })?;
    let mut old = std::fs::File::open(run.items()).map_err(|e| TrainError::file(run.items(), e))?;
    let mut failed = None;
    write_atomically(&run.items(), |file| {
        std::io::copy(&mut old, file)?;
        let added = for_each_line(items, "", |line, text| {
            let mut fields = parse(items, line, text)?;
            let id = id_of(items, line, &fields)?;
            if there.contains(&id) {
                return Ok(());
            }
            fields.remove("embedding");
            fields.insert("id".into(), id.into());
            fields.entry("text").or_insert_with(|| String::new().into());
            write_line(file, &fields).map_err(|e| TrainError::file(run.items(), e))
        });
        if let Err(error) = added {
            failed = Some(error);
            return Err(std::io::Error::other("a line was refused"));
        }
        Ok(())
    })
    .map_err(|e| failed.unwrap_or(e))
}

fn write_line(file: &mut dyn Write, fields: &Map<String, Value>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, fields)?;
    file.write_all(b"\n")
}
