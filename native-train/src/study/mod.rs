//! The paper's experiments (`tigret study`): variants of a pipeline, a measurement of each, and a
//! report with the paper's own figures beside ours.

mod cold_start;
mod comparison;
mod diversity;
mod ids;
mod invalid;
mod lab;
mod layers;
mod main_table;
pub mod paper;
pub mod plot;
mod quantisation;
pub mod report;
mod scaling;
pub mod settings;
pub mod table;
mod tuning;
mod user;

use clap::ValueEnum;

pub use lab::Lab;
pub use report::{Report, Written};
pub use settings::{CommandLine, Settings};

use crate::error::Result;
use crate::pipeline::Verbs;

/// An experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Study {
    /// Settings of TIGER and of the baselines, by NDCG@10 on validation.
    Tuning,
    /// TIGER and the baselines on every data set (table 1).
    Main,
    /// Every tokenizer (table 2).
    Ids,
    /// 3, 4 and 5 layers.
    Layers,
    /// With and without the user token.
    User,
    /// Items that nobody has interacted with, by the codes that they share.
    ColdStart,
    /// Entropy of the categories at several temperatures of sampling.
    Diversity,
    /// Invalid IDs by beam width without the constraint, and what the constraint changes.
    Invalid,
    /// Layers and widths: quality against bytes and milliseconds.
    Scaling,
    /// Weight formats: quality against bytes.
    Quantisation,
}

impl Study {
    /// All of them, in the order in which they are done.
    pub const ALL: [Self; 10] = [
        Self::Tuning,
        Self::Main,
        Self::Ids,
        Self::Layers,
        Self::User,
        Self::ColdStart,
        Self::Diversity,
        Self::Invalid,
        Self::Scaling,
        Self::Quantisation,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tuning => "tuning",
            Self::Main => "main",
            Self::Ids => "ids",
            Self::Layers => "layers",
            Self::User => "user",
            Self::ColdStart => "cold-start",
            Self::Diversity => "diversity",
            Self::Invalid => "invalid",
            Self::Scaling => "scaling",
            Self::Quantisation => "quantisation",
        }
    }

    /// Does what is left to do of it and writes its report.
    ///
    /// # Errors
    /// That of the step that fails; [`crate::TrainError::Paused`] at the time limit.
    pub fn run(
        self,
        settings: &Settings,
        verbs: &dyn Verbs,
        command: &clap::Command,
    ) -> Result<Written> {
        let lab = Lab::new(settings, self.name(), verbs, command.clone());
        let report = match self {
            Self::Tuning => tuning::run(&lab),
            Self::Main => main_table::run(&lab),
            Self::Ids => ids::run(&lab),
            Self::Layers => layers::run(&lab),
            Self::User => user::run(&lab),
            Self::ColdStart => cold_start::run(&lab),
            Self::Diversity => diversity::run(&lab),
            Self::Invalid => invalid::run(&lab),
            Self::Scaling => scaling::run(&lab),
            Self::Quantisation => quantisation::run(&lab),
        }?;
        report.write(&settings.out.join(self.name()))
    }
}
