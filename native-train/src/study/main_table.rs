//! `main`: TIGER and the baselines on every data set (paper, table 1).

use super::comparison::{Row, of_paper, of_seeds, plots, seeds, table};
use super::lab::{Lab, Variant};
use super::paper;
use super::report::Report;
use crate::error::Result;

/// The whole of the method as it is configured, which other studies share.
pub(super) fn tiger() -> Variant {
    Variant::new("tiger")
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let mut rows = Vec::new();
    for data in &lab.settings.data {
        let trained = seeds(lab, data, &tiger())?;
        let row = |name: &str, runs, paper| Row {
            data: data.name.clone(),
            name: name.into(),
            runs,
            paper,
        };
        // It does not depend on the seed.
        let popularity = trained.iter().take(1).map(|run| run.popularity).collect();
        rows.push(row("popularity", popularity, None));
        let published = paper::methods(&data.name);
        for &(name, figures) in published.iter().filter(|(name, _)| *name != "TIGER") {
            rows.push(of_paper(data, name, figures));
        }
        let runs = trained.iter().map(|run| run.metrics).collect();
        rows.push(row("TIGER", runs, paper::tiger(&data.name)));
    }
    Ok(Report {
        name: "main",
        title: "TIGER and the baselines",
        about: format!(
            "Every user's last item is to be found among all items (table 1 of the paper); \
             baselines follow the same protocol. {}",
            of_seeds(lab)
        ),
        plots: plots("Test users", &rows),
        tables: vec![table("method", &rows)],
    })
}
