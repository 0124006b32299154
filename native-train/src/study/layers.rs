//! `layers`: 3, 4 and 5 layers in encoder and decoder (paper, appendix).

use super::comparison::{Candidate, compare, of_rows, plots, table};
use super::lab::{Lab, Variant};
use super::main_table::tiger;
use super::paper;
use super::report::Report;
use super::settings::Data;
use crate::error::Result;
use crate::pipeline::Step;

pub(super) fn candidates(_lab: &Lab<'_>, data: &Data) -> Vec<Candidate> {
    let candidate = |layers: u32| Candidate {
        name: format!("{layers} layers"),
        variant: Variant::new(format!("layers-{layers}")).with(Step::Train, "layers", layers),
        paper: paper::layers(&data.name, layers.into()),
    };
    [3, 4, 5].map(candidate).into()
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let rows = compare(lab, |lab, data| Ok(candidates(lab, data)))?;
    Ok(Report {
        name: "layers",
        title: "Layers of encoder and decoder",
        about: format!("Everything else as configured. {}", of_rows(lab, &tiger(), &rows)?),
        plots: plots("Recall and NDCG by layers", &rows),
        tables: vec![table("layers", &rows)],
    })
}
