//! Free memory: a system that has too little ends a program without a word.

use std::fs;
use std::path::Path;

/// Where Linux shows the limits of control groups, those of containers too.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes that programs can still take; `None` where the system does not tell, as outside of Linux.
pub(crate) fn free() -> Option<u64> {
    let of_machine = of_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(of_groups(Path::new(GROUPS), &own).map_or(of_machine, |bytes| bytes.min(of_machine)))
}

fn of_meminfo(text: &str) -> Option<u64> {
    let kilobytes = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(1024 * (kilobytes("MemAvailable:")? + kilobytes("SwapFree:").unwrap_or(0)))
}

/// What the control groups of a process leave it, which `own` lists (`/proc/self/cgroup`): a group's
/// limit is that of all groups in it. `None` where nothing limits it.
fn of_groups(root: &Path, own: &str) -> Option<u64> {
    let lines = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let left = lines.filter_map(|(controllers, group)| {
        let (tree, files) = match controllers {
            "" => (root.to_owned(), &UNIFIED),
            // The first version has a tree for each controller.
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), &LEGACY)
            }
            _ => return None,
        };
        // In a container the group's path may be one of the system around it, which is not there.
        let within = Path::new(group).strip_prefix("/").unwrap_or(Path::new(""));
        within.ancestors().filter_map(|group| files.left(&tree.join(group))).min()
    });
    left.min()
}

/// The names of what a control group tells of its memory.
struct Files {
    limit: &'static str,
    taken: &'static str,
    /// Of `memory.stat`: files that the system keeps in memory as long as nobody needs it.
    cached: [&'static str; 2],
}

const UNIFIED: Files = Files {
    limit: "memory.max",
    taken: "memory.current",
    cached: ["inactive_file ", "active_file "],
};

const LEGACY: Files = Files {
    limit: "memory.limit_in_bytes",
    taken: "memory.usage_in_bytes",
    cached: ["total_inactive_file ", "total_active_file "],
};

impl Files {
    /// Bytes that are left to a group; `None` where it has no limit: its file holds a word then.
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(group.join(name)).ok()?.trim().parse().ok()
        };
        let (limit, taken) = (number(self.limit)?, number(self.taken)?);
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = self.cached.iter().filter_map(|name| -> Option<u64> {
            stat.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
        });
        Some(limit.saturating_sub(taken.saturating_sub(cached.sum())))
    }
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

    #[test]
    fn a_group_has_what_the_tightest_of_those_around_it_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |file: &str, text: &str| {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(of_groups(root, "0::/\n"), None);
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        assert_eq!(of_groups(root, "0::/\n"), Some(100));
        // Files that were read are in memory, too, and make room.
        write("memory.stat", "anon 200\nfile 700\ninactive_file 500\nactive_file 150\n");
        assert_eq!(of_groups(root, "0::/\n"), Some(750));
        write("job/memory.max", "300");
        write("job/memory.current", "100");
        write("job/step/memory.max", "max");
        write("job/step/memory.current", "100");
        assert_eq!(of_groups(root, "0::/job/step\n"), Some(200));
        assert_eq!(of_groups(root, "0::/elsewhere\n"), Some(750));
        write("memory/of/memory.limit_in_bytes", "90");
        write("memory/of/memory.usage_in_bytes", "80");
        write("memory/of/memory.stat", "inactive_file 1\ntotal_inactive_file 30\n");
        assert_eq!(of_groups(root, "7:cpu,memory:/of\n"), Some(40));
        assert_eq!(of_groups(root, "7:cpu:/of\nnothing\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some() {
        assert!(free().is_some_and(|bytes| bytes > 1 << 20));
    }
}
