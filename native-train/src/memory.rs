//! Free memory: a system that has too little ends a program without a word.

use std::fs;

/// Bytes that programs can still take; `None` where the system does not tell, as outside of Linux.
pub(crate) fn free() -> Option<u64> {
    let of_machine = of_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
    };
    // A container may have less; without a limit its file holds a word.
    let of_container = number("memory.max")
        .zip(number("memory.current"))
        .map(|(most, taken)| most.saturating_sub(taken));
    Some(of_container.map_or(of_machine, |bytes| bytes.min(of_machine)))
}

fn of_meminfo(text: &str) -> Option<u64> {
    let kilobytes = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(1024 * (kilobytes("MemAvailable:")? + kilobytes("SwapFree:").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_what_is_available_and_what_can_be_swapped() {
        let text = "MemTotal:       100 kB\nMemAvailable:    40 kB\nSwapFree:         2 kB\n";
        assert_eq!(of_meminfo(text), Some(42 * 1024));
        assert_eq!(of_meminfo("MemAvailable: 7 kB"), Some(7 * 1024));
        assert_eq!(of_meminfo("MemFree: 7 kB"), None);
        assert_eq!(of_meminfo(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some() {
        assert!(free().is_some_and(|bytes| bytes > 1 << 20));
    }
}
