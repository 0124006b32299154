//! The steps from raw files to a bundle: what each reads and writes in a run directory.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::checkpoint;
use crate::run_dir::RunDir;

/// A step, which is a verb of `tigret`; they stand in their order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Raw files to a data set.
    Prepare,
    /// Text to vectors.
    Embed,
    /// Vectors to semantic IDs.
    Tokenize,
    /// Semantic IDs to a model.
    Train,
    /// A model to figures.
    Evaluate,
    /// A model to a bundle.
    Export,
    /// Semantic IDs to a report.
    Inspect,
}

impl Step {
    /// Its verb.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Embed => "embed",
            Self::Tokenize => "tokenize",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Export => "export",
            Self::Inspect => "inspect",
        }
    }

    /// To be raised when the step makes something else of the same options and inputs than it did:
    /// results of before then do not count as done.
    pub fn revision(self) -> u32 {
        match self {
            // 2: Amazon's prices and lines that say nothing; UUIDs of Parquet. 3: the density.
            // 4: ids that are whole floats.
            Self::Prepare => 4,
            // 2: encoders obey `tokenizer_config.json`. 3: the vectors' hashes of ids and texts.
            // 4: words with marks, and of scripts without blanks. 5: `--normalize` is kept in mind.
            Self::Embed => 5,
            // 2: `q4` holds the embedding in eight bits, and its other codes are calibrated.
            Self::Export => 2,
            // 2: no batch of an autoencoder is much smaller than the others. 3: one that knows the mean of
            // the vectors alone has not converged.
            Self::Tokenize => 3,
            // 2: nor is one of the model. 3: the average of the weights.
            Self::Train => 3,
            // 2: paths of categories whose roots differ.
            Self::Inspect => 2,
            // 2: nor is one of SASRec. 3: how the model was trained. 4: SASRec's loss of large catalogues.
            // 5: the average of its weights.
            Self::Evaluate => 5,
        }
    }

    /// The artefacts that it reads, those that need not be there included.
    pub fn reads(self, run: &RunDir) -> Vec<PathBuf> {
        let dataset = || vec![run.items(), run.sequences()];
        let ids = || vec![run.tokens(), run.catalog()];
        match self {
            Self::Prepare => vec![],
            Self::Embed => vec![run.items()],
            Self::Tokenize => [dataset(), vec![run.vectors()]].concat(),
            Self::Train => [dataset(), ids()].concat(),
            Self::Evaluate => {
                [dataset(), ids(), model(run), vec![run.vectors(), run.oracle()]].concat()
            }
            Self::Export => [dataset(), ids(), model(run), vec![run.tokenizer()]].concat(),
            Self::Inspect => [
                dataset(),
                ids(),
                model(run),
                vec![
                    run.dataset(),
                    run.vectors(),
                    run.tokenizer_report(),
                    run.tokenizer_log(),
                    run.evaluation(),
                    run.oracle(),
                ],
            ]
            .concat(),
        }
    }

    /// The artefacts that it writes, those that it does not always write included.
    pub fn writes(self, run: &RunDir) -> Vec<PathBuf> {
        match self {
            Self::Prepare => vec![run.items(), run.sequences(), run.dataset(), run.oracle()],
            Self::Embed => vec![run.vectors(), run.encoder()],
            Self::Tokenize => vec![
                run.tokens(),
                run.catalog(),
                run.tokenizer(),
                run.tokenizer_report(),
                run.tokenizer_log(),
            ],
            Self::Train => model(run),
            Self::Evaluate => vec![run.evaluation()],
            Self::Export | Self::Inspect => vec![],
        }
    }

    /// The option that names the file it writes beside those of the run, and the file's name in
    /// the run directory where the option is not given.
    pub fn out(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Export => Some(("out", "bundle.safetensors")),
            Self::Inspect => Some(("html", "report.html")),
            _ => None,
        }
    }

    /// Options that do not belong into a pipeline: it gives them itself, or they would make
    /// something else of the verb than a step.
    pub(super) fn reserved(self) -> &'static [&'static str] {
        match self {
            Self::Embed => &["run", "texts", "out"],
            Self::Tokenize => &["run", "assign", "vectors"],
            Self::Train => &["run", "resume", "begun-by"],
            Self::Evaluate => &["run", "bundle"],
            Self::Inspect => &["path"],
            _ => &["run"],
        }
    }
}

/// The configuration, and the files that hold the weights now.
fn model(run: &RunDir) -> Vec<PathBuf> {
    // Of a folder that cannot be read the verb has more to say.
    let weights = checkpoint::files(&run.model(), checkpoint::MODEL).unwrap_or_default();
    [vec![run.model().join("config.json")], weights].concat()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.verb())
    }
}
