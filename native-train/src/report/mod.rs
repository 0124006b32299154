//! What can be seen of a run's semantic IDs: figures for machines, a summary for a terminal, and a
//! page to send to a colleague.
//!
//! Everything is computed from the artefacts (`catalog.json`, `items.jsonl`,
//! `vectors.safetensors`), so it holds for codes from any tokenizer, also from elsewhere. The
//! last level of the catalogue is taken as the one that resolves collisions.

pub(crate) mod category;
mod format;
mod html;
pub(crate) mod information;
pub(crate) mod neighbours;
mod remarks;
mod summary;
pub(crate) mod training;
mod tree;

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::data::{Dataset, Item};
use crate::destination::check_replaces;
use crate::embed::Vectors;
use crate::error::Result;
use crate::files::read_json;
use crate::run_dir::RunDir;
use crate::tokenizer::SemanticIds;
use crate::tokenizer::collisions::{Collisions, collision_groups, collisions};
use crate::tokenizer::stats::{LevelUse, groups, level_counts, level_use};
use category::Categories;
use information::{Information, Shares};
use neighbours::Neighbours;
use training::Training;

pub(crate) use remarks::{Made, remarks_on_codes};
pub(crate) use summary::summary;

/// Collision groups that are named.
const NAMED_GROUPS: usize = 12;

/// The settings files and figures of a run, by step: `dataset`, `tokenizer`, `model`,
/// `evaluation`, `oracle`; those that are there.
///
/// # Errors
/// [`crate::TrainError::File`] for one that is not JSON.
pub(crate) fn artefacts(run: &RunDir) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    for (step, path) in [
        ("dataset", run.dataset()),
        ("tokenizer", run.tokenizer_report()),
        ("model", run.model().join("config.json")),
        ("evaluation", run.evaluation()),
        ("oracle", run.oracle()),
    ] {
        if path.exists() {
            found.insert(step.into(), read_json(&path, "")?);
        }
    }
    Ok(found)
}

/// How the semantic IDs of a run are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Items whose neighbours are compared; 0 for none.
    pub(crate) sample: usize,
    /// Seed of the sample and of the shuffled baseline.
    pub(crate) seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sample: 2000, seed: 0 }
    }
}

/// The semantic IDs of a run, looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Use of each level's codewords, without the collision level.
    pub(crate) levels: Vec<LevelUse>,
    /// Items that share all codes.
    pub(crate) collisions: Collisions,
    /// Of the items that are not unique, those that also have the same text as another item of
    /// the same codes: no tokenizer of texts tells them apart.
    pub(crate) same_text: usize,
    /// Codes of the collision level: no group may be larger.
    pub(crate) collision_size: usize,
    /// How many groups there are of each size, small ones first; size 1 are the unique items.
    pub(crate) group_sizes: Vec<GroupSize>,
    /// The largest groups of two or more.
    pub(crate) largest_groups: Vec<Group>,
    /// What the codes say about the category, from coarse to fine categories; empty where the
    /// items have none.
    pub(crate) categories: Vec<CategoryInformation>,
    /// Neighbours by code against neighbours by cosine; `None` without vectors.
    pub(crate) neighbours: Option<Neighbours>,
    /// What made the vectors, as their file says.
    pub(crate) encoder: Option<String>,
    /// Length of a vector.
    pub(crate) dimensions: Option<usize>,
    /// The tokenizer's own account.
    pub(crate) training: Training,
    /// What could not be looked at, and why.
    pub(crate) omitted: Vec<String>,
    #[serde(skip)]
    material: Material,
}

/// Groups of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct GroupSize {
    /// Items of a group.
    pub(crate) size: usize,
    /// Groups.
    pub(crate) groups: usize,
}

/// Items that share all codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Group {
    /// The codes.
    pub(crate) codes: Vec<u16>,
    /// Ids of the items, in the order of the data set.
    pub(crate) ids: Vec<String>,
    #[serde(skip)]
    items: Vec<u32>,
}

/// What codes say about the category of an item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CategoryInformation {
    /// The field of the items.
    pub(crate) field: &'static str,
    /// Step of the field's path, from 0.
    pub(crate) depth: usize,
    /// Categories.
    pub(crate) categories: usize,
    /// Items that have one; the others are left out.
    pub(crate) items: usize,
    /// The first code, the first two, and so on.
    pub(crate) prefixes: Vec<Shares>,
    /// The code of each level alone.
    pub(crate) levels: Vec<Shares>,
}

/// What the page shows beside the figures.
#[derive(Debug)]
struct Material {
    items: Vec<Item>,
    /// `[items, levels]`, without the collision level.
    codes: Vec<u16>,
    levels: usize,
    /// Items of each codeword, by level.
    counts: Vec<Vec<u32>>,
    /// The coarsest, which colours tell apart.
    categories: Option<Categories>,
}

impl Report {
    /// Looks at the semantic IDs of a run.
    ///
    /// # Errors
    /// [`crate::TrainError::File`] or [`crate::TrainError::Line`] when items or codes are missing
    /// or wrong. Vectors that are missing or wrong are only named in [`Report::omitted`].
    pub(crate) fn new(run: &RunDir, settings: Settings) -> Result<Self> {
        let items = Dataset::load_items(run)?;
        let ids = SemanticIds::load(run, &items)?;
        let levels = ids.catalog.levels() - 1;
        let codes: Vec<u16> =
            (0..items.len() as u32).flat_map(|item| &ids.codes(item)[..levels]).copied().collect();
        let sizes: Vec<u32> = ids.layout.levels[..levels].iter().map(|level| level.size).collect();
        let counts = level_counts(&codes, &sizes);
        let categories = category::categories(&items);
        let mut omitted = Vec::new();
        if categories.is_empty() {
            omitted.push(
                "category information: the items have no field of categories that tells them apart"
                    .to_owned(),
            );
        }
        let mut neighbours = None;
        let mut dimensions = None;
        match Vectors::load(run, &items) {
            Ok(vectors) => {
                dimensions = Some(vectors.dimensions);
                let Settings { sample, seed } = settings;
                neighbours = neighbours::neighbours(vectors, &codes, levels, sample, seed)?;
                if neighbours.is_none() {
                    omitted.push(match sample {
                        0 => "neighbours: no items were sampled (--sample 0)".to_owned(),
                        _ => "neighbours: fewer than two items have a vector".to_owned(),
                    });
                }
            }
            Err(e) => omitted.push(format!("neighbours: {e}")),
        }
        let grouped = collision_groups(&codes, levels);
        let collisions = collisions(&codes, levels);
        Ok(Self {
            levels: level_use(&codes, &sizes),
            collision_size: ids.layout.levels[levels].size as usize,
            group_sizes: group_sizes(collisions.unique_items, &grouped),
            collisions,
            same_text: same_text(&items, &grouped),
            largest_groups: grouped
                .into_iter()
                .take(NAMED_GROUPS)
                .map(|group| Group {
                    codes: codes[group[0] as usize * levels..][..levels].to_vec(),
                    ids: group.iter().map(|&at| items[at as usize].id.clone()).collect(),
                    items: group,
                })
                .collect(),
            categories: categories
                .iter()
                .map(|found| category_information(&codes, levels, found, settings.seed))
                .collect(),
            neighbours,
            encoder: dimensions.and_then(|_| Vectors::encoder(run)),
            dimensions,
            training: Training::load(run)?,
            omitted,
            material: Material {
                items,
                codes,
                levels,
                counts,
                categories: categories.into_iter().next(),
            },
        })
    }

    /// The page: one file that loads nothing. `name` is the run's, `artefacts` what
    /// [`artefacts`] found in it.
    pub(crate) fn html(&self, name: &str, artefacts: &Map<String, Value>) -> String {
        html::page(self, name, artefacts)
    }
}

/// Refuses to write the page where something else lies.
///
/// # Errors
/// [`crate::TrainError::File`].
pub(crate) fn check_html(path: &Path) -> Result<()> {
    check_replaces(path, html::is_page, "is no report of `tigret inspect`")
}

/// Groups of each size; `grouped` are those of two or more, the largest first.
fn group_sizes(unique: usize, grouped: &[Vec<u32>]) -> Vec<GroupSize> {
    let mut sizes = vec![GroupSize { size: 1, groups: unique }];
    for same in grouped.chunk_by(|a, b| a.len() == b.len()).rev() {
        sizes.push(GroupSize { size: same[0].len(), groups: same.len() });
    }
    sizes
}

/// Items of the groups whose text another item of their group has too.
fn same_text(items: &[Item], grouped: &[Vec<u32>]) -> usize {
    let in_group = |group: &Vec<u32>| {
        let mut texts: Vec<&str> =
            group.iter().map(|&at| items[at as usize].text.as_str()).collect();
        texts.sort_unstable();
        let same = texts.chunk_by(|a, b| a == b).filter(|same| same.len() > 1);
        same.map(<[&str]>::len).sum::<usize>()
    };
    grouped.iter().map(in_group).sum()
}

fn category_information(
    codes: &[u16],
    levels: usize,
    categories: &Categories,
    seed: u64,
) -> CategoryInformation {
    let known: Vec<usize> =
        (0..categories.of_item.len()).filter(|&item| categories.of_item[item].is_some()).collect();
    let labels: Vec<u32> = categories.of_item.iter().flatten().copied().collect();
    let codes: Vec<u16> =
        known.iter().flat_map(|&item| &codes[item * levels..][..levels]).copied().collect();
    let shares = |at| Information::new(&groups(&codes, levels, at), &labels, seed).shares();
    CategoryInformation {
        field: categories.field,
        depth: categories.depth,
        categories: categories.names.len(),
        items: labels.len(),
        prefixes: (1..=levels).map(|length| shares(0..length)).collect(),
        levels: (0..levels).map(|level| shares(level..level + 1)).collect(),
    }
}

/// What to call an item: its title, else its name, else the start of its text, else its id.
fn title(item: &Item) -> &str {
    let field = |name: &str| item.fields.get(name).and_then(Value::as_str);
    let names = [field("title"), field("name"), Some(&item.text), Some(&item.id)];
    names.into_iter().flatten().find(|name| !name.trim().is_empty()).unwrap_or_default()
}
