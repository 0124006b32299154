//! Semantic IDs of a data set: both look-up directions, and the files that hold them.

use std::path::Path;

use tigret_infer::{Catalog, CatalogFile, CatalogItem, TokenLayout};

use crate::data::lines::{for_each_line, object};
use crate::data::new_items::id_of;
use crate::data::{Dataset, Item, PREPARE_HINT};
use crate::error::{Result, TrainError};
use crate::files::{read_text, write_atomically, write_json, write_line};
use crate::model::{Provenance, check_model};
use crate::run_dir::RunDir;

/// How the files of this step are made.
pub(crate) const TOKENIZE: &str = "make it with `tigret tokenize`";

/// The ids of `items.jsonl`.
pub(super) fn ids_of_items(run: &RunDir) -> Result<Vec<String>> {
    let path = run.items();
    let mut ids = Vec::new();
    for_each_line(&path, PREPARE_HINT, |line, text| {
        let fields = object(text).map_err(|e| TrainError::line(&path, line, e))?;
        ids.push(id_of(&path, line, &fields)?);
        Ok(())
    })?;
    Ok(ids)
}

/// Reads a token layout (`tokens.json`) and a catalogue (`catalog.json`), and what `keep` takes of the
/// items in the order of the file.
///
/// # Errors
/// [`TrainError::File`], with `hints` (how to make the two files) where one is missing.
pub(crate) fn read_ids<T>(
    tokens: &Path,
    catalog: &Path,
    hints: [&str; 2],
    keep: impl FnOnce(&[CatalogItem]) -> T,
) -> Result<(TokenLayout, Catalog, T)> {
    let layout = read_text(tokens, hints[0])?;
    let layout = TokenLayout::parse(&layout).map_err(|e| TrainError::file(tokens, e))?;
    let text = read_text(catalog, hints[1])?;
    if text.trim_start().starts_with('[') {
        let reason = "is an array; it has to be an object that has it under `items`";
        return Err(TrainError::file(catalog, reason));
    }
    let CatalogFile { items } =
        serde_json::from_str(&text).map_err(|e| TrainError::file(catalog, e))?;
    let kept = keep(&items);
    let sorted = Catalog::from_items(items, &layout).map_err(|e| TrainError::file(catalog, e))?;
    Ok((layout, sorted, kept))
}

/// The semantic IDs of a data set's items, of which functions are given all in their order.
#[derive(Debug, Clone)]
pub struct SemanticIds {
    /// How codes become tokens.
    pub layout: TokenLayout,
    /// Items sorted by code.
    pub catalog: Catalog,
    /// Rank in the catalogue of each item of the data set.
    pub rank_of_item: Vec<u32>,
    /// Item of the data set at each rank.
    pub item_of_rank: Vec<u32>,
    /// Ranks in the order of the catalogue's file: that of the items when they got their IDs, with
    /// later ones behind.
    in_file: Vec<u32>,
}

impl SemanticIds {
    /// Joins codes (row-major `[items, levels]`) to the items of a data set.
    ///
    /// # Errors
    /// [`TrainError::Bundle`] for codes that are not unique or out of range.
    pub fn new(items: &[Item], layout: TokenLayout, codes: &[u16]) -> Result<Self> {
        let of_catalog = items
            .iter()
            .zip(codes.chunks_exact(layout.levels.len()))
            .map(|(item, codes)| CatalogItem {
                id: item.id.clone(),
                codes: codes.iter().map(|&c| u32::from(c)).collect(),
            })
            .collect();
        let catalog = Catalog::from_items(of_catalog, &layout)?;
        let in_file = items.iter().map(|item| item.id.as_str());
        Self::join(items, layout, catalog, in_file)
            .map_err(|id| TrainError::usage(format!("item \"{id}\" has no semantic ID")))
    }

    /// Joins a catalogue, whose file has the items `in_file`, to those of a data set; fails with the
    /// id of one that it lacks.
    fn join<'a>(
        items: &[Item],
        layout: TokenLayout,
        catalog: Catalog,
        in_file: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let rank_of_item = items
            .iter()
            .map(|item| catalog.rank_of(&item.id).ok_or_else(|| item.id.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut item_of_rank = vec![0; catalog.len()];
        for (item, &rank) in rank_of_item.iter().enumerate() {
            item_of_rank[rank as usize] = item as u32;
        }
        let in_file = in_file.filter_map(|id| catalog.rank_of(id)).collect();
        Ok(Self { layout, catalog, rank_of_item, item_of_rank, in_file })
    }

    /// [`check_model`] of these.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn check_model(&self, folder: &Path) -> Result<()> {
        check_model(folder, |then| self.are_of(then))
    }

    /// Whether a model was trained on these, but perhaps for new items behind them. The order of then
    /// is still that of the data set or that of the catalogue's file: a later `tigret prepare` may
    /// bring the items in another one, and somebody may have written the file in another one.
    pub fn are_of(&self, then: &Provenance) -> bool {
        let in_data_set = self.rank_of_item.iter().map(|&rank| self.item(rank));
        then.has_ids(&self.layout, self.in_file()) || then.has_ids(&self.layout, in_data_set)
    }

    /// Whether a model was trained on the sequences of a data set of these; orders as above.
    pub fn sequences_are_of(&self, then: &Provenance, dataset: &Dataset) -> bool {
        let in_data_set: Vec<u32> = (0..self.rank_of_item.len() as u32).collect();
        then.has_sequences(dataset, &self.places_in_file())
            || then.has_sequences(dataset, &in_data_set)
    }

    fn item(&self, rank: u32) -> (&str, &[u16]) {
        (self.catalog.id_of(rank), self.catalog.codes_of(rank))
    }

    /// Id and codes of each item, in the order of the catalogue's file.
    pub fn in_file(&self) -> impl ExactSizeIterator<Item = (&str, &[u16])> {
        self.in_file.iter().map(|&rank| self.item(rank))
    }

    /// The place of each item of the data set in the catalogue's file.
    pub fn places_in_file(&self) -> Vec<u32> {
        let mut places = vec![0; self.in_file.len()];
        for (place, &rank) in (0..).zip(&self.in_file) {
            places[self.item_of_rank[rank as usize] as usize] = place;
        }
        places
    }

    /// The codes of an item of the data set.
    pub fn codes(&self, item: u32) -> &[u16] {
        self.catalog.codes_of(self.rank_of_item[item as usize])
    }

    /// Writes `tokens.json` and `catalog.json`.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub fn save(&self, run: &RunDir) -> Result<()> {
        let items = self
            .in_file()
            .map(|(id, codes)| CatalogItem {
                id: id.to_owned(),
                codes: codes.iter().map(|&c| u32::from(c)).collect(),
            })
            .collect();
        let catalog = CatalogFile { items };
        // On one line, as `--assign` writes it: with a code a line it would be three times as large.
        write_atomically(&run.catalog(), |file| write_line(file, &catalog))?;
        write_json(&run.tokens(), &self.layout)
    }

    /// Reads what [`SemanticIds::save`] wrote, or what the user put in its place.
    ///
    /// # Errors
    /// [`TrainError::File`] when a file is missing or wrong or lacks an item.
    pub fn load(run: &RunDir, items: &[Item]) -> Result<Self> {
        let path = run.catalog();
        let (layout, catalog, in_file) = read_ids(&run.tokens(), &path, [TOKENIZE; 2], ids_of)?;
        let count = catalog.len();
        let ids = Self::join(items, layout, catalog, in_file.iter().map(String::as_str))
            .map_err(|id| lacks(run, &id))?;
        if count != items.len() {
            return Err(TrainError::file(
                &path,
                format!(
                    "has {count} items, of which the data set has {}; repeat a `tigret tokenize \
                     --assign` that was interrupted, or run `tigret prepare` with all of them \
                     (--k-core 0 drops none that is in the log), or `tigret embed` and `tigret \
                     tokenize` again",
                    items.len()
                ),
            ));
        }
        Ok(ids)
    }
}

/// The ids of a catalogue's items, in the order of its file.
pub(crate) fn ids_of(items: &[CatalogItem]) -> Vec<String> {
    items.iter().map(|item| item.id.clone()).collect()
}

/// What is said of a catalogue that lacks an item of the data set.
pub(crate) fn lacks(run: &RunDir, id: &str) -> TrainError {
    TrainError::file(
        run.catalog(),
        format!(
            "lacks items of the data set, such as \"{id}\"; give new items their semantic IDs with \
             `tigret tokenize --assign` before `tigret prepare` brings them, or run `tigret embed` \
             and `tigret tokenize` again"
        ),
    )
}
