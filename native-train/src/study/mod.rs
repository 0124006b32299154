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
pub(crate) mod paper;
pub(crate) mod plot;
mod quantisation;
pub(crate) mod report;
mod scaling;
pub(crate) mod settings;
pub(crate) mod table;
mod tuning;
mod user;

use clap::ValueEnum;

pub(crate) use lab::Lab;
pub(crate) use report::Written;
pub(crate) use settings::{CommandLine, Settings};

use crate::error::Result;
use crate::pipeline::Verbs;
use comparison::Candidate;
use lab::Variant;
use settings::Data;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Study {
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
    /// Its name on the command line and in files.
    pub(crate) fn name(self) -> &'static str {
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

    /// Refuses a study of which some variant cannot begin, before the hours of the others.
    ///
    /// # Errors
    /// As [`Lab::check`].
    pub(crate) fn check(
        self,
        settings: &Settings,
        verbs: &dyn Verbs,
        command: &clap::Command,
    ) -> Result<()> {
        let lab = Lab::new(settings, self.name(), verbs, command.clone());
        settings.data.iter().try_for_each(|data| {
            self.variants(&lab, data)?.iter().try_for_each(|variant| lab.check(data, variant))
        })
    }

    /// The variants that it begins with on a data set.
    fn variants(self, lab: &Lab<'_>, data: &Data) -> Result<Vec<Variant>> {
        let of = |all: Vec<Candidate>| all.into_iter().map(|candidate| candidate.variant).collect();
        Ok(match self {
            Self::Tuning => tuning::variants(lab, data)?,
            Self::Main => main_table::variants(lab),
            Self::Ids => of(ids::candidates(lab, data)?),
            Self::Layers => of(layers::candidates(lab, data)),
            Self::User => of(user::candidates(lab, data)),
            Self::ColdStart => cold_start::variants(),
            Self::Diversity | Self::Invalid | Self::Quantisation => vec![main_table::tiger()],
            Self::Scaling => scaling::variants(lab, data)?,
        })
    }

    /// Does what is left to do of it and writes its report.
    ///
    /// # Errors
    /// That of the step that fails; [`crate::TrainError::Paused`] at the time limit.
    pub(crate) fn run(
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
