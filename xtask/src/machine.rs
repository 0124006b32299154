//! The machine that a figure was measured on.

use std::fs;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::process;
use crate::workspace;

/// What is said of a machine beside its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: Option<u64>,
    system: String,
    rustc: String,
}

impl Machine {
    /// This machine, as far as it tells.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        let mut rustc = Command::new("rustc");
        rustc.arg("--version").current_dir(workspace::root());
        Self {
            cpu: value_after(&read("/proc/cpuinfo"), "model name")
                .or_else(|| {
                    let name = ["-n", "machdep.cpu.brand_string"];
                    process::output(Command::new("sysctl").args(name)).ok()
                })
                .unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_gib: value_after(&read("/proc/meminfo"), "MemTotal").as_deref().and_then(gib),
            system: pretty_name(&read("/etc/os-release"))
                .unwrap_or_else(|| std::env::consts::OS.to_owned()),
            rustc: process::output(&mut rustc).unwrap_or_else(|_| unknown()),
        }
    }

    /// For people.
    pub(crate) fn lines(&self) -> String {
        let memory = self.memory_gib.map_or_else(|| "unknown".into(), |gib| format!("{gib} GiB"));
        format!(
            "CPU:    {}, {} cores\nmemory: {memory}\nsystem: {}\nRust:   {}\n",
            self.cpu, self.cores, self.system, self.rustc
        )
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "memory_gib": self.memory_gib,
            "system": self.system,
            "rustc": self.rustc,
        })
    }
}

/// The value of the first `key : value` line of a file under /proc.
pub(crate) fn value_after(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// Whole GiB, rounded, of a size such as `16384000 kB`.
fn gib(size: &str) -> Option<u64> {
    let kib: u64 = size.strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib + (1 << 19)) >> 20)
}

fn pretty_name(os_release: &str) -> Option<String> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_files_are_read() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nmodel name\t: another\n";
        assert_eq!(value_after(cpuinfo, "model name").as_deref(), Some("A CPU @ 2 GHz"));
        assert_eq!(value_after(cpuinfo, "model"), None);
        assert_eq!(gib("24605048 kB"), Some(23));
        assert_eq!(gib("many"), None);
        let os = "NAME=\"D\"\nPRETTY_NAME=\"D GNU/Linux 12\"\n";
        assert_eq!(pretty_name(os).as_deref(), Some("D GNU/Linux 12"));
    }
}
