//! `user`: with and without the user token (paper, appendix).

use super::comparison::{Candidate, compare, of_rows, plots, table};
use super::lab::{Lab, Variant};
use super::main_table::tiger;
use super::paper;
use super::report::Report;
use super::settings::Data;
use crate::error::Result;
use crate::pipeline::Step;

pub(super) fn candidates(_lab: &Lab<'_>, data: &Data) -> Vec<Candidate> {
    vec![
        Candidate {
            name: "user token".into(),
            variant: given(tiger()),
            paper: paper::tiger(&data.name),
        },
        Candidate {
            name: "the same, token withheld at test".into(),
            variant: Variant::new("user-withheld").with(Step::Evaluate, "no-user", true),
            paper: None,
        },
        Candidate {
            name: "no user token".into(),
            variant: given(Variant::new("user-none")).with(Step::Tokenize, "users", 0),
            paper: paper::without_user(&data.name),
        },
    ]
}

/// With the user token at test, whatever the other studies are configured to do.
fn given(variant: Variant) -> Variant {
    variant.with(Step::Evaluate, "no-user", false)
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let rows = compare(lab, |lab, data| Ok(candidates(lab, data)))?;
    Ok(Report {
        name: "user",
        title: "The user token",
        about: format!(
            "In training the user token is dropped from a share of the samples (`--drop-user`), so \
             that a page that knows no user can leave it out; the second row is that page. The third \
             is a model that never had one. {}",
            of_rows(lab, &given(tiger()), &rows)?
        ),
        plots: plots("Recall and NDCG by user token", &rows),
        tables: vec![table("variant", &rows)],
    })
}

#[cfg(test)]
mod tests {
    use super::super::lab::testing::ask;
    use super::*;

    #[test]
    fn only_the_second_row_withholds_the_token() {
        for settings in [&[][..], &["evaluate.no-user=true"]] {
            let withheld = ask("user", settings, false, |lab, data| {
                candidates(lab, data)
                    .iter()
                    .map(|candidate| {
                        let step = Step::Evaluate;
                        lab.option(data, &candidate.variant, step, "no-user", str::parse).unwrap()
                    })
                    .collect::<Vec<Vec<bool>>>()
            });
            assert_eq!(withheld, [[false], [true], [false]], "{settings:?}");
        }
    }
}
