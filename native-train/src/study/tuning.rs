//! `tuning`: settings of TIGER and of every baseline, by NDCG@10 on the validation items, one
//! setting at a time. The test items are looked at for the settings one began and ended with.

use std::collections::BTreeMap;

use toml::Value;

use super::comparison::{of_ranking, of_trial};
use super::lab::{Lab, Variant};
use super::main_table::{baselines_only, tiger};
use super::plot::{Axis, Bars, Body, Plot};
use super::report::Report;
use super::settings::Data;
use super::table::{Cell, Figure, Table};
use crate::baselines::Method;
use crate::error::{Result, TrainError};
use crate::evaluate::{Evaluation, Split};
use crate::files::read_json;
use crate::metrics::Metrics;
use crate::pipeline::Step;
use crate::pipeline::stamp::Stamp;
use crate::run_dir::RunDir;

/// A method whose settings are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Baseline(Method),
    Tiger,
}

/// A setting and the values that are tried beside the configured one.
struct Knob {
    option: &'static str,
    values: &'static [f64],
}

const fn knob(option: &'static str, values: &'static [f64]) -> Knob {
    Knob { option, values }
}

const fn tiger_knobs(learning_rates: &'static [f64]) -> [Knob; 5] {
    [
        knob("learning-rate", learning_rates),
        knob("dropout", &[0.0, 0.1, 0.2]),
        knob("unlikelihood", &[0.0, 1.0]),
        knob("drop-user", &[0.0, 0.2]),
        knob("drop-items", &[0.0, 0.15, 0.3]),
    ]
}

const SUBJECTS: [Subject; 4] = [
    Subject::Baseline(Method::ItemKnn),
    Subject::Baseline(Method::SemanticKnn),
    Subject::Baseline(Method::SasRec),
    Subject::Tiger,
];

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Baseline(method) => method.name(),
            Self::Tiger => "tiger",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Baseline(method) => method.title(),
            Self::Tiger => "TIGER",
        }
    }

    /// The step that has the settings.
    fn step(self) -> Step {
        match self {
            Self::Baseline(_) => Step::Evaluate,
            Self::Tiger => Step::Train,
        }
    }

    /// In the order in which they are turned, those that matter most first, beside these options.
    fn knobs(self, options: &BTreeMap<String, Vec<String>>) -> &'static [Knob] {
        const ITEM_KNN: &[Knob] = &[
            knob("item-knn-decay", &[0.0, 0.3, 0.5, 0.7, 0.85, 1.0]),
            knob("item-knn-shrinkage", &[0.0, 2.0, 5.0, 20.0]),
            knob("item-knn-neighbours", &[100.0, 500.0, 2000.0]),
        ];
        const SEMANTIC_KNN: &[Knob] =
            &[knob("semantic-knn-decay", &[0.0, 0.3, 0.5, 0.7, 0.85, 1.0])];
        const SASREC: &[Knob] = &[
            knob("sasrec-learning-rate", &[5e-4, 1e-3, 2e-3]),
            knob("sasrec-dropout", &[0.3, 0.5, 0.7]),
            knob("sasrec-dim", &[64.0, 128.0]),
            knob("sasrec-weight-decay", &[0.0, 0.05]),
        ];
        const TIGER: &[Knob] = &tiger_knobs(&[1e-2, 3e-2, 1e-1]);
        // The rates of this optimiser are no shares of a weight's size.
        const TIGER_ADAMW: &[Knob] = &tiger_knobs(&[3e-4, 1e-3, 3e-3]);
        match self {
            Self::Baseline(Method::Popularity) => &[],
            Self::Baseline(Method::ItemKnn) => ITEM_KNN,
            Self::Baseline(Method::SemanticKnn) => SEMANTIC_KNN,
            Self::Baseline(Method::SasRec) => SASREC,
            Self::Tiger if options.get("optimizer").is_some_and(|of| of == &["adamw"]) => {
                TIGER_ADAMW
            }
            Self::Tiger => TIGER,
        }
    }

    /// Its figures, if the evaluation has them.
    fn figures(self, evaluation: &Evaluation) -> Option<Metrics> {
        match self {
            Self::Baseline(method) => evaluation.of(method),
            Self::Tiger => evaluation.model,
        }
    }
}

/// Settings that differ from the configured ones.
type Settings = BTreeMap<&'static str, f64>;

/// Settings and what they come to on validation.
#[derive(Debug, Clone)]
struct Tried {
    settings: Settings,
    validation: Metrics,
}

/// What became of a method on a data set.
struct Tuned {
    data: String,
    subject: Subject,
    /// In the order in which they were tried, the configured settings first.
    tried: Vec<Tried>,
    /// Index of the best of them on validation.
    best: usize,
    /// Test figures of the configured settings and of the best.
    test: [Metrics; 2],
}

/// What each method begins with.
pub(super) fn variants(lab: &Lab<'_>, data: &Data) -> Result<Vec<Variant>> {
    let configured =
        |subject| variant(subject, &Settings::new(), Split::Validation, lab.settings.seeds[0]);
    Ok(wanted(lab, data)?.into_iter().map(configured).collect())
}

pub(super) fn run(lab: &Lab<'_>) -> Result<Report> {
    let mut all = Vec::new();
    for data in &lab.settings.data {
        for subject in wanted(lab, data)? {
            all.push(tune(lab, data, subject)?);
        }
    }
    if all.is_empty() {
        return Err(TrainError::usage(
            "tuning: nothing is left to tune; name baselines in [study.tuning.evaluate], or leave \
             `train = false` out",
        ));
    }
    let seed = lab.settings.seeds[0];
    let small = of_trial(lab);
    Ok(Report {
        name: "tuning",
        title: "Settings by validation",
        about: format!(
            "{small}One setting after another: each value is tried with the best of the settings \
             before it, and the one with the highest NDCG@10 on the validation items of all users \
             stays. Test figures are those of the configured settings and of the chosen ones, which \
             `--set` takes as they stand here. Seed {seed}.{}",
            of_ranking(lab, &tiger())?
        ),
        tables: vec![chosen(&all), trials(&all)],
        plots: plots(&all),
    })
}

/// The methods that the study's options leave on a data set: `evaluate.baselines` names baselines,
/// and `train = false` leaves TIGER out.
fn wanted(lab: &Lab<'_>, data: &Data) -> Result<Vec<Subject>> {
    let as_it_is = str::parse::<String>;
    let named = lab.option(data, &Variant::new("tuning"), Step::Evaluate, "baselines", as_it_is)?;
    let is_named = |name: &str| named.iter().any(|named| named == name);
    let trains = lab.settings.options(data, "tuning").get(Step::Train.verb())
        != Some(&Value::Boolean(false));
    let is_wanted = |subject: &Subject| match subject {
        Subject::Tiger => trains,
        Subject::Baseline(method) => named.is_empty() || is_named("all") || is_named(method.name()),
    };
    Ok(SUBJECTS.into_iter().filter(is_wanted).collect())
}

fn tune(lab: &Lab<'_>, data: &Data, subject: Subject) -> Result<Tuned> {
    let (validation, stamp) = measure(lab, data, subject, &Settings::new(), Split::Validation)?;
    let configured = |option: &str| stamp.key.options.get(option)?.first()?.parse::<f64>().ok();
    let mut tried = vec![Tried { settings: Settings::new(), validation }];
    let mut best = 0;
    // A trial only has to come by every line of code.
    let (knobs, values) = if lab.settings.smoke { (1, 2) } else { (usize::MAX, usize::MAX) };
    for knob in subject.knobs(&stamp.key.options).iter().take(knobs) {
        let before = tried[best].settings.clone();
        let others = knob.values.iter().filter(|&&value| configured(knob.option) != Some(value));
        for &value in others.take(values) {
            let mut settings = before.clone();
            settings.insert(knob.option, value);
            let (validation, _) = measure(lab, data, subject, &settings, Split::Validation)?;
            tried.push(Tried { settings, validation });
            // The earlier of two that are as good stays.
            if validation.ndcg_10 > tried[best].validation.ndcg_10 {
                best = tried.len() - 1;
            }
        }
    }
    let (of_configured, _) = measure(lab, data, subject, &Settings::new(), Split::Test)?;
    let (of_best, _) = measure(lab, data, subject, &tried[best].settings, Split::Test)?;
    let test = [of_configured, of_best];
    Ok(Tuned { data: data.name.clone(), subject, tried, best, test })
}

/// The figures of a method with these settings, and the stamp of the step that has them.
fn measure(
    lab: &Lab<'_>,
    data: &Data,
    subject: Subject,
    settings: &Settings,
    split: Split,
) -> Result<(Metrics, Stamp)> {
    let seed = lab.settings.seeds[0];
    let variant = variant(subject, settings, split, seed);
    let evaluation = lab.evaluate(data, &variant, seed)?;
    let run = RunDir::named(lab.run_dir(data, &variant, seed));
    let metrics = subject.figures(&evaluation).ok_or_else(|| {
        TrainError::file(run.evaluation(), format!("has no figures of {}", subject.name()))
    })?;
    Ok((metrics, read_json(&run.stamp(subject.step().verb()), "")?))
}

/// The pipeline for a method with these settings. Its name has the settings but not the split, so
/// that a test takes the model that was validated.
fn variant(subject: Subject, settings: &Settings, split: Split, seed: u64) -> Variant {
    let mut name = format!("tuning-{}", subject.name());
    for (option, value) in settings {
        let short = option.strip_prefix(subject.name()).unwrap_or(option).trim_start_matches('-');
        name += &format!("-{short}-{value}");
    }
    let mut variant = match subject {
        Subject::Baseline(method) => baselines_only(name, method.name(), seed),
        Subject::Tiger => Variant::new(name).with(Step::Evaluate, "baselines", false),
    };
    for (&option, &value) in settings {
        variant = variant.with(subject.step(), option, number(value));
    }
    variant.with(
        Step::Evaluate,
        "split",
        match split {
            Split::Validation => "validation",
            Split::Test => "test",
        },
    )
}

/// Whole numbers as such: options that count refuse a point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { Value::Integer(value as i64) } else { Value::Float(value) }
}

/// Settings as `--set` takes them.
fn told(subject: Subject, settings: &Settings) -> String {
    if settings.is_empty() {
        return "as configured".into();
    }
    let setting = |(option, value): (&&str, &f64)| format!("{}.{option}={value}", subject.step());
    settings.iter().map(setting).collect::<Vec<_>>().join(" ")
}

/// Before and after, a row a method.
fn chosen(all: &[Tuned]) -> Table {
    let mut table = Table::new(
        "",
        &[
            "data",
            "method",
            "chosen",
            "validation NDCG@10 configured",
            "validation NDCG@10 chosen",
            "Recall@10 configured",
            "Recall@10 chosen",
            "NDCG@10 configured",
            "NDCG@10 chosen",
        ],
    );
    for tuned in all {
        let [configured, best] = [&tuned.tried[0], &tuned.tried[tuned.best]];
        let cell = |value: f64| Cell::figure(Some(value), 4);
        table.rows.push(vec![
            tuned.data.as_str().into(),
            tuned.subject.title().into(),
            told(tuned.subject, &best.settings).into(),
            cell(configured.validation.ndcg_10),
            cell(best.validation.ndcg_10),
            cell(tuned.test[0].recall_10),
            cell(tuned.test[1].recall_10),
            cell(tuned.test[0].ndcg_10),
            cell(tuned.test[1].ndcg_10),
        ]);
    }
    table
}

fn trials(all: &[Tuned]) -> Table {
    let mut table = Table::new(
        "trials",
        &["data", "method", "settings", "validation Recall@10", "validation NDCG@10"],
    );
    for tuned in all {
        for tried in &tuned.tried {
            table.rows.push(vec![
                tuned.data.as_str().into(),
                tuned.subject.title().into(),
                told(tuned.subject, &tried.settings).into(),
                Cell::figure(Some(tried.validation.recall_10), 4),
                Cell::figure(Some(tried.validation.ndcg_10), 4),
            ]);
        }
    }
    table
}

fn plots(all: &[Tuned]) -> Vec<Plot> {
    let several = all.iter().any(|tuned| tuned.data != all[0].data);
    all.chunk_by(|a, b| a.data == b.data)
        .map(|all| {
            let bars = |name: &str, of: fn(&Tuned) -> f64| Bars {
                name: name.into(),
                figures: all.iter().map(|tuned| Some(Figure::from(of(tuned)))).collect(),
                paper: vec![None; all.len()],
            };
            Plot {
                name: if several { all[0].data.clone() } else { String::new() },
                title: format!("Test NDCG@10 before and after, {}", all[0].data),
                body: Body::Bars {
                    x: Axis::from_zero(""),
                    groups: all.iter().map(|tuned| tuned.subject.title().into()).collect(),
                    bars: vec![
                        bars("as configured", |tuned| tuned.test[0].ndcg_10),
                        bars("chosen on validation", |tuned| tuned.test[1].ndcg_10),
                    ],
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::lab::testing::ask;
    use super::*;

    #[test]
    fn named_baselines_are_tuned_and_others_refused() {
        let of = |settings: &[&str]| {
            let wanted = ask("tuning", settings, false, wanted).map_err(|e| e.to_string())?;
            Ok::<_, String>(wanted.into_iter().map(Subject::name).collect::<Vec<_>>())
        };
        let all = ["item-knn", "semantic-knn", "sasrec", "tiger"];
        assert_eq!(of(&[]).unwrap(), all);
        assert_eq!(of(&["evaluate.baselines=all"]).unwrap(), all);
        let none = ["evaluate.baselines=false", "study.tuning.train=false"];
        assert_eq!(of(&none).unwrap(), all[..3]);
        let some = ["study.tuning.evaluate.baselines=[\"sasrec\", \"popularity\"]"];
        assert_eq!(of(&some).unwrap(), ["sasrec", "tiger"]);
        let error = of(&["study.tuning.evaluate.baselines=item-knn,foo"]).unwrap_err();
        assert!(error.contains("[evaluate] invalid value 'foo' for '--baselines"), "{error}");
    }

    #[test]
    fn learning_rates_are_those_of_the_optimiser() {
        let rates = |optimizer: &str| {
            let options = BTreeMap::from([("optimizer".into(), vec![optimizer.to_owned()])]);
            let knob = &Subject::Tiger.knobs(&options)[0];
            assert_eq!(knob.option, "learning-rate");
            knob.values
        };
        assert_eq!(rates("scaled-adamw"), [0.01, 0.03, 0.1]);
        assert_eq!(rates("adamw"), [0.0003, 0.001, 0.003]);
    }
}
