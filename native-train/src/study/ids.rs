//! `ids`: every tokenizer under the same model (paper, table 2, and beyond).

use super::comparison::{Candidate, compare, of_rows, plots, table};
use super::lab::{Lab, Variant};
use super::main_table::tiger;
use super::paper;
use super::report::Report;
use super::settings::Data;
use crate::error::Result;
use crate::pipeline::Step;

/// Weight of the vectors learned from interactions.
const COLLABORATIVE: f64 = 0.5;

/// Least number of codes that tell apart items which share all others: simple tokenizers have large
/// groups.
const COLLISION_SIZE: u32 = 256;

/// That number, unless the configured one, or that of the largest codebook, is larger.
fn collision_size(lab: &Lab<'_>, data: &Data) -> Result<u32> {
    let configured = content_only("rq-vae", "rq-vae");
    let sizes = |option| lab.option(data, &configured, Step::Tokenize, option, str::parse::<u32>);
    let mut given = sizes("collision-size")?;
    if given.is_empty() {
        given = sizes("codebook-size")?;
    }
    Ok(given.into_iter().fold(COLLISION_SIZE, u32::max))
}

/// Branches of a node of hierarchical k-means.
fn branches(lab: &Lab<'_>) -> i64 {
    // With codebooks this small a tree of three levels has about as many leaves as there are items.
    if lab.settings.smoke { 8 } else { 24 }
}

pub(super) fn candidates(lab: &Lab<'_>, data: &Data) -> Result<Vec<Candidate>> {
    let collision_size = i64::from(collision_size(lab, data)?);
    let tokenizer = |name: &str, method: &str| {
        content_only(name, method).with(Step::Tokenize, "collision-size", collision_size)
    };
    let candidate = |name: &str, variant: Variant| Candidate {
        name: name.into(),
        variant,
        paper: paper::ids(&data.name, name),
    };
    let plain = |method: &str| candidate(method, tokenizer(method, method));
    Ok(vec![
        candidate("rq-vae", content_only("rq-vae", "rq-vae")),
        candidate(
            "rq-vae, collaborative",
            tokenizer("rq-vae-collaborative", "rq-vae").with(
                Step::Tokenize,
                "collaborative",
                COLLABORATIVE,
            ),
        ),
        plain("vq-vae"),
        plain("rq-kmeans"),
        candidate(
            "hierarchical-kmeans",
            tokenizer("hierarchical-kmeans", "hierarchical-kmeans").with(
                Step::Tokenize,
                "codebook-size",
                branches(lab),
            ),
        ),
        plain("opq"),
        candidate(
            "lsh",
            // 8 hyperplanes a code, 4 codes (paper, section 4.2).
            tokenizer("lsh", "lsh").with(Step::Tokenize, "levels", 4).with(
                Step::Tokenize,
                "codebook-size",
                256,
            ),
        ),
        plain("random"),
    ])
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let branches = branches(lab);
    let rows = compare(lab, candidates)?;
    Ok(Report {
        name: "ids",
        title: "Semantic IDs by every tokenizer",
        about: format!(
            "The same model on IDs of different tokenizers (table 2 of the paper has RQ-VAE, LSH and \
             random). LSH has 4 codes of 8 hyperplanes each; the tree of hierarchical k-means has \
             {branches} branches a node; `collaborative` joins vectors learned from the training \
             interactions with weight {COLLABORATIVE}; the others have the levels and codebooks of \
             RQ-VAE. {}",
            of_rows(lab, &tiger(), &rows)?
        ),
        plots: plots("Recall and NDCG by tokenizer", &rows),
        tables: vec![table("tokenizer", &rows)],
    })
}

/// A method on content alone, whatever the other studies are configured to use.
fn content_only(name: &str, method: &str) -> Variant {
    Variant::new(name)
        .with(Step::Tokenize, "method", method)
        .with(Step::Tokenize, "collaborative", 0)
        .with(Step::Tokenize, "sinkhorn", false)
}
