//! `tigret tokenize --assign`: semantic IDs for new items.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::Output;
use crate::device::DeviceChoice;
use crate::embed::encoder::Ready;
use crate::error::Result;
use crate::run_dir::RunDir;
use crate::tokenizer::assign::{Assigned, assign};

/// What `--assign` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    assigned: Assigned,
    seconds: f64,
}

pub(super) fn run(run: &Path, items: &Path, vectors: Option<&Path>, output: &Output) -> Result<()> {
    let run = RunDir::open(run)?;
    let begin = Instant::now();
    let progress = output.progress(0, "items");
    let load_encoder =
        |run: &RunDir| Ready::of_run(run, None, DeviceChoice::Auto, |text| output.note(text));
    let assigned = assign(&run, items, vectors, &load_encoder, &progress)?;
    if assigned.stale_vectors {
        output.note(format!(
            "{} is of other items than the run's, or does not say of which, so the vectors of the new \
             items were not added",
            run.vectors().display()
        ));
    }
    let report = Report { assigned, seconds: begin.elapsed().as_secs_f64() };
    output.result(&report, || {
        let Assigned { new, known, collided, zero_vectors, items, .. } = assigned;
        let zero = match zero_vectors {
            0 => String::new(),
            count => format!("{count} texts have no term that the encoder knows; "),
        };
        format!(
            "{new} new items have semantic IDs, {collided} of them share their codes with others; \
             {known} had one already; {zero}the catalogue has {items} items; {:.1} s",
            report.seconds
        )
    });
    Ok(())
}
