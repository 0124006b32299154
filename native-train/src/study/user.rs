//! `user`: with and without the user token (paper, appendix).

use super::comparison::{Candidate, compare, of_seeds, plots, table};
use super::lab::{Lab, Variant};
use super::main_table::tiger;
use super::paper;
use super::report::Report;
use super::settings::Data;
use crate::error::Result;
use crate::pipeline::Step;

pub(super) fn candidates(_lab: &Lab<'_>, data: &Data) -> Vec<Candidate> {
    vec![
        Candidate { name: "user token".into(), variant: tiger(), paper: paper::tiger(&data.name) },
        Candidate {
            name: "the same, token withheld at test".into(),
            variant: Variant::new("user-withheld").with(Step::Evaluate, "no-user", true),
            paper: None,
        },
        Candidate {
            name: "no user token".into(),
            variant: Variant::new("user-none").with(Step::Tokenize, "users", 0),
            paper: paper::without_user(&data.name),
        },
    ]
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let rows = compare(lab, candidates)?;
    Ok(Report {
        name: "user",
        title: "The user token",
        about: format!(
            "In training the user token is dropped from a share of the samples (`--drop-user`), so \
             that a page that knows no user can leave it out; the second row is that page. The third \
             is a model that never had one. {}",
            of_seeds(lab)
        ),
        plots: plots("Recall and NDCG by user token", &rows),
        tables: vec![table("variant", &rows)],
    })
}
