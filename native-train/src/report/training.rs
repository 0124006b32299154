//! What the tokenizer said of itself: `tokenizer.json` and `tokenizer.jsonl`.
//!
//! Each kind of tokenizer writes other settings and other losses, so both files are read without
//! a schema: whatever number a line of the log has is a curve.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::format::clip;
use crate::error::{Result, TrainError};
use crate::files::{read_json, read_text};
use crate::run_dir::RunDir;

/// Fields of a log line that say where it stands.
const STEPS: [&str; 3] = ["epoch", "iteration", "step"];

/// Numbers of a log line that are not curves.
const NO_CURVES: [&str; 3] = ["seconds", "learning_rate", "time"];

/// Curves that are kept; no tokenizer of ours logs as many numbers.
const MOST_CURVES: usize = 100;

/// Characters of a setting's name: those of settings in settings grow with each.
const LONGEST_NAME: usize = 120;

/// Points of a curve that are kept: more than a chart has pixels shows nothing more.
const MOST_POINTS: usize = 400;

/// The tokenizer's own account.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Training {
    /// How items got their codes: `rq-vae`, `opq`, ….
    pub(crate) method: Option<String>,
    /// Settings by name, nested ones as `autoencoder.batch`, and what is said of the training as
    /// `training.epochs`.
    #[serde(skip)]
    pub(crate) settings: Vec<(String, String)>,
    /// Share of the vectors' variance that the codes lose.
    pub(crate) reconstruction: Option<f64>,
    /// Items that shared all codes and had the vector of another when they were tokenized.
    pub(crate) same_vector: usize,
    /// Epochs of training, and whether it ended because the error no longer fell.
    pub(crate) epochs: Option<(u64, bool)>,
    /// Seconds it took.
    pub(crate) seconds: Option<f64>,
    /// What the horizontal axis of the curves counts: `epoch`, `iteration`, `step` or `line`.
    pub(crate) axis: String,
    /// Curves of the log.
    #[serde(skip)]
    pub(crate) curves: Vec<Curve>,
    /// Codewords revived in all; `None` where the log does not say.
    pub(crate) revived: Option<u64>,
    /// Notes of the log and where they stand; of equal ones the first.
    pub(crate) notes: Vec<(f64, String)>,
}

/// One number over the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// Name of the field; `perplexity of level 1` for those of the levels.
    pub(crate) name: String,
    /// Position and value.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Training {
    /// Reads what there is; a run whose codes were made elsewhere has neither file.
    ///
    /// # Errors
    /// [`TrainError::File`] or [`TrainError::Line`] for a file that is there and is not JSON.
    pub(crate) fn load(run: &RunDir) -> Result<Self> {
        let mut training = Self::default();
        let path = run.tokenizer_report();
        if path.exists() {
            training.read_report(&read_json(&path, "")?);
        }
        let path = run.tokenizer_log();
        if path.exists() {
            let text = read_text(&path, "")?;
            let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
            let lines = lines.map(|(number, line)| {
                serde_json::from_str(line).map_err(|e| TrainError::line(&path, number, e))
            });
            training.read_log(&lines.collect::<Result<Vec<Value>>>()?);
        }
        Ok(training)
    }

    fn read_report(&mut self, report: &Value) {
        self.method = report["settings"]["method"].as_str().map(str::to_owned);
        flatten("", &report["settings"], &mut self.settings);
        for part in ["collaborative", "separated", "training"] {
            flatten(part, &report[part], &mut self.settings);
        }
        self.reconstruction = report["reconstruction"].as_f64();
        self.same_vector = report["same_vector"].as_u64().unwrap_or(0) as usize;
        let training = &report["training"];
        let converged = training["converged"].as_bool().unwrap_or(false);
        self.epochs = training["epochs"].as_u64().map(|epochs| (epochs, converged));
        self.seconds = report["seconds"].as_f64();
    }

    fn read_log(&mut self, lines: &[Value]) {
        let axis = STEPS.iter().find(|name| lines.iter().all(|line| line.get(name).is_some()));
        self.axis = axis.map_or("line", |name| name).to_owned();
        let mut curves: Vec<Curve> = Vec::new();
        let mut add = |name: &str, at: f64, value: &Value| {
            let Some(value) = value.as_f64() else { return };
            let has_room = curves.len() < MOST_CURVES;
            match curves.iter_mut().find(|curve| curve.name == name) {
                Some(curve) => curve.points.push((at, value)),
                None if !has_room => {}
                None => curves.push(Curve { name: name.to_owned(), points: vec![(at, value)] }),
            }
        };
        let mut known = HashSet::new();
        for (number, line) in lines.iter().enumerate() {
            let at = axis.and_then(|axis| line[axis].as_f64()).unwrap_or(number as f64);
            for (name, value) in line.as_object().into_iter().flatten() {
                if !STEPS.contains(&name.as_str()) && !NO_CURVES.contains(&name.as_str()) {
                    add(name, at, value);
                }
            }
            let levels = line.get("levels").and_then(Value::as_array);
            for (level, value) in levels.into_iter().flatten().enumerate() {
                let name = format!("perplexity of level {}", level + 1);
                add(&name, at, &value["perplexity"]);
            }
            if let Some(note) = line.get("note").and_then(Value::as_str)
                && known.insert(note)
            {
                self.notes.push((at, note.to_owned()));
            }
            if let Some(revived) = line.get("revived").and_then(Value::as_u64) {
                let sum = self.revived.get_or_insert(0);
                *sum = sum.saturating_add(revived);
            }
        }
        // A single point is a figure and no curve.
        curves.retain(|curve| curve.points.len() > 1);
        for curve in &mut curves {
            thin(&mut curve.points);
        }
        self.curves = curves;
    }
}

/// Keeps at most [`MOST_POINTS`] points, evenly, and the last.
fn thin(points: &mut Vec<(f64, f64)>) {
    let stride = points.len().div_ceil(MOST_POINTS);
    let last = points.len() - 1;
    let mut at = 0;
    points.retain(|_| {
        at += 1;
        (at - 1) % stride == 0 || at - 1 == last
    });
}

fn flatten(prefix: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&clip(&name, LONGEST_NAME), value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => into.push((prefix.to_owned(), text.clone())),
        Value::Array(parts) => {
            let parts: Vec<String> = parts.iter().map(Value::to_string).collect();
            into.push((prefix.to_owned(), parts.join(", ")));
        }
        other => into.push((prefix.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn every_number_of_the_log_is_a_curve() {
        let mut training = Training::default();
        training.read_log(&[
            json!({"epoch": 0, "loss": 2.0, "seconds": 1.0, "revived": 3, "levels": [{"perplexity": 5.0}]}),
            json!({"epoch": 2, "loss": 1.0, "revived": 4, "levels": [{"perplexity": 6.0}],
                   "note": "why"}),
            json!({"epoch": 4, "loss": 0.5, "note": "why", "odd": "text", "once": 1}),
        ]);
        assert_eq!((training.axis.as_str(), training.revived), ("epoch", Some(7)));
        assert_eq!(training.notes, [(2.0, "why".to_owned())]);
        let curves: Vec<_> =
            training.curves.iter().map(|c| (c.name.as_str(), c.points.clone())).collect();
        assert_eq!(curves[0], ("loss", vec![(0.0, 2.0), (2.0, 1.0), (4.0, 0.5)]));
        assert_eq!((curves[1].0, curves[2].0), ("revived", "perplexity of level 1"));
        assert_eq!(curves.len(), 3);
    }

    #[test]
    fn a_log_and_settings_of_any_size_are_cut() {
        let mut training = Training::default();
        let many: Map<String, Value> = (0..300).map(|at| (format!("n{at}"), json!(at))).collect();
        let line = json!(many);
        let revived = json!({"revived": u64::MAX});
        training.read_log(&[line.clone(), line, revived.clone(), revived]);
        assert_eq!((training.curves.len(), training.revived), (MOST_CURVES, Some(u64::MAX)));
        let long = "x".repeat(1000);
        training.read_report(&json!({"settings": {long.clone(): {long: 1}}}));
        assert_eq!(training.settings[0].0.chars().count(), LONGEST_NAME + 1);
    }

    #[test]
    fn settings_of_any_shape_are_listed() {
        let mut training = Training::default();
        training.read_report(&json!({"reconstruction": 0.25, "collaborative": null,
            "settings": {"method": "opq", "seed": 1, "sizes": [8, 4], "autoencoder": {"batch": 32}},
            "training": {"epochs": 7, "converged": true}}));
        let settings: Vec<String> =
            training.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            settings.join(" "),
            "autoencoder.batch=32 method=opq seed=1 sizes=8, 4 training.converged=true \
             training.epochs=7"
        );
        assert_eq!((training.method.as_deref(), training.epochs), (Some("opq"), Some((7, true))));
        assert_eq!((training.reconstruction, training.seconds), (Some(0.25), None));
        // A file of another make says less.
        let mut training = Training::default();
        training.read_report(&json!([]));
        assert_eq!(training, Training::default());
    }

    #[test]
    fn long_curves_are_thinned_and_keep_their_ends() {
        let mut points: Vec<(f64, f64)> = (0..20_000).map(|x| (f64::from(x), 0.0)).collect();
        thin(&mut points);
        assert!(points.len() <= MOST_POINTS + 1);
        assert_eq!((points[0].0, points.last().unwrap().0), (0.0, 19_999.0));
    }
}
