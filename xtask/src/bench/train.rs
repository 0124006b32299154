//! `cargo xtask bench train`: Tigret's training beside that of Hugging Face `transformers`, on the
//! same weights and batches, in turns.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use super::{check_python, json_of};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::report::Report;
use crate::setup::libtorch::{Libtorch, let_threads_sleep};
use crate::tigret;
use crate::workspace;

/// Largest difference of the loss of the first batch: more means another model, not another speed.
const SAME_LOSS: f64 = 1e-2;

/// Arguments of `cargo xtask bench train`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A run with semantic IDs to take batches from, instead of random data with Beauty's sizes.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Where to compute: cpu or cuda.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// What matrix products compute in: f32 or bf16 [default: f32 on cpu, bf16 on cuda].
    #[arg(long)]
    precision: Option<String>,
    /// Samples a step.
    #[arg(long, default_value_t = 256)]
    batch: u64,
    /// Steps that are timed in a round [default: 8 on cpu, 200 on cuda].
    #[arg(long)]
    steps: Option<u64>,
    /// Rounds; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A Python with torch 2.11.0, transformers and safetensors.
    #[arg(long, env = "TIGRET_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Time `torch.compile` as well.
    #[arg(long)]
    compile: bool,
}

/// Times both in turns and prints medians and their ratio.
pub(super) fn run(args: &Args, as_json: bool, report: &Report) -> Result<ExitCode> {
    check_python(&args.python, &["torch", "transformers", "safetensors"])?;
    let libtorch = Libtorch::locate(report)?;
    let program = tigret::build(&libtorch, report)?;
    let folder = workspace::root().join(".tigret").join("bench-train");
    // On CUDA, kernels are loaded and chosen, and memory is found, by each new shape of a batch.
    let (precision, steps, warm_up, compiling) =
        if args.device == "cuda" { ("bf16", 200, "50", "50") } else { ("f32", 8, "2", "20") };
    let precision = args.precision.as_deref().unwrap_or(precision);
    let steps = args.steps.unwrap_or(steps).to_string();

    let ours = || {
        let mut command = Command::new(&program);
        command.args(["bench", "--json", "--users", "0", "--steps", &steps, "--warm-up", warm_up]);
        command.args(["--batch", &args.batch.to_string(), "--precision", precision]);
        // The peer's optimiser.
        command.args(["--optimizer", "adamw"]);
        command.args(["--device", &args.device]).arg("--dump").arg(&folder);
        if let Some(run) = &args.run {
            command.arg("--run").arg(run);
        }
        json_of(libtorch.apply(&mut command))
    };
    let theirs = |compile: bool, waiting: Waiting| {
        let mut command = Command::new(&args.python);
        match waiting {
            Waiting::AsOurs => let_threads_sleep(&mut command),
            Waiting::AsItComes => command.env_remove("OMP_WAIT_POLICY"),
        };
        command.arg(workspace::root().join("tests/bench_train.py")).arg(&folder);
        command.args(["--steps", &steps, "--device", &args.device, "--precision", precision]);
        // Compiling a graph for each new shape takes some steps.
        command.args(["--warm-up", if compile { compiling } else { warm_up }]);
        if compile {
            command.arg("--compile");
        }
        json_of(&mut command)
    };

    let mut rates = Rates::default();
    let mut last = (Value::Null, Value::Null);
    for round in 1..=args.rounds.max(1) {
        report.doing("bench train", format!("round {round} of {}", args.rounds.max(1)));
        let mine = ours()?;
        rates.tigret.push(number(&mine, "train_samples_per_s")?);
        let peer = theirs(false, Waiting::AsOurs)?;
        rates.eager.push(number(&peer, "samples_per_second")?);
        if args.device == "cpu" {
            let spinning = theirs(false, Waiting::AsItComes)?;
            rates.eager_spinning.push(number(&spinning, "samples_per_second")?);
        }
        let difference = (number(&mine, "first_loss")? - number(&peer, "first_loss")?).abs();
        if difference > SAME_LOSS {
            return Err(Error::message(format!(
                "the two do not train the same model: their losses of the first batch differ by \
                 {difference}"
            )));
        }
        if args.compile {
            rates.compiled.push(number(&theirs(true, Waiting::AsOurs)?, "samples_per_second")?);
        }
        last = (mine, peer);
    }
    let answer = json!({
        "machine": Machine::here().json(),
        "precision": precision,
        "tigret": last.0,
        "peer": last.1,
        "samples_per_second": {
            "tigret": median(&rates.tigret),
            "transformers": median(&rates.eager),
            "transformers, spinning threads": median(&rates.eager_spinning),
            "transformers, torch.compile": median(&rates.compiled),
        },
    });
    if as_json {
        println!("{answer}");
    } else {
        print!("\n{}\n{}", Machine::here().lines(), rates.table(&answer));
    }
    Ok(ExitCode::SUCCESS)
}

/// Samples a second, a value a round.
#[derive(Debug, Default)]
struct Rates {
    tigret: Vec<f64>,
    eager: Vec<f64>,
    eager_spinning: Vec<f64>,
    compiled: Vec<f64>,
}

/// How the peer's threads wait for each other on a CPU. Which is faster depends on what else runs:
/// Tigret's sleep, and the peer should not lose by spinning, or by not spinning.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    AsOurs,
    AsItComes,
}

impl Rates {
    fn table(&self, answer: &Value) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let peer = &answer["peer"];
        let mut table = format!(
            "torch {}, transformers {}, {} threads, {}, {:.0} samples and {:.0} tokens a step\n",
            text(&peer["torch"]),
            text(&peer["transformers"]),
            peer["threads"],
            text(&answer["precision"]),
            answer["tigret"]["samples_per_step"].as_f64().unwrap_or_default(),
            answer["tigret"]["tokens_per_step"].as_f64().unwrap_or_default(),
        );
        let Some(mine) = median(&self.tigret) else { return table };
        for (name, rates) in [
            ("Tigret", &self.tigret),
            ("transformers, eager", &self.eager),
            ("the same, threads that spin", &self.eager_spinning),
            ("transformers, torch.compile", &self.compiled),
        ] {
            if let Some(rate) = median(rates) {
                let ratio = mine / rate;
                table += &format!("{name:<28} {rate:>9.1} samples/s  Tigret is {ratio:.2} x\n");
            }
        }
        table
    }
}

fn number(answer: &Value, key: &str) -> Result<f64> {
    answer[key].as_f64().ok_or_else(|| Error::message(format!("no number {key} in {answer}")))
}

/// The middle value, or the mean of the two in the middle; `None` of none.
fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[lower], values[upper]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_sets_every_peer_against_tigret() {
        let rates =
            Rates { tigret: vec![30.0, 10.0, 20.0], eager: vec![8.0, 12.0], ..Rates::default() };
        let answer = json!({
            "precision": "f32", "tigret": {"samples_per_step": 256.0, "tokens_per_step": 9000.4},
            "peer": {"torch": "2.11.0", "transformers": "5.0", "threads": 2},
        });
        let table = rates.table(&answer);
        assert!(
            table.starts_with("torch 2.11.0, transformers 5.0, 2 threads, f32, 256 "),
            "{table}"
        );
        assert!(table.contains("Tigret                            20.0 samples/s"), "{table}");
        assert!(table.contains("Tigret is 2.00 x"), "{table}");
        assert!(!table.contains("compile") && !table.contains("spin"), "{table}");
    }
}
