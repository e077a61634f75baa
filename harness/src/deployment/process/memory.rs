//! How much memory a process and its descendants hold, from `/proc`.

use std::fs;

use super::super::Memory;

/// The sum over a process and its descendants; `None` once it has ended, and where there is no `/proc`. Peaks of descendants
/// that have ended are not in it.
pub(super) fn of_tree(pid: i32) -> Option<Memory> {
    let mut memory = in_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for pids in threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()) {
        for child in pids.split_whitespace().filter_map(|pid| of_tree(pid.parse().ok()?)) {
            memory.resident += child.resident;
            memory.peak += child.peak;
        }
    }
    Some(memory)
}

/// What `/proc/PID/status` says; it says kB and means KiB. One that has ended and was not waited for says nothing.
fn in_status(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    };
    Some(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes_and_a_process_that_has_ended_has_none() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t     512 kB\n";
        assert_eq!(in_status(status), Some(Memory { resident: 512 * 1024, peak: 2048 * 1024 }));
        assert_eq!(in_status("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn a_process_is_counted_with_its_children() {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "cat; true"]).stdin(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let own = |pid: i32| in_status(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap()).unwrap().peak;
        // The shell starts `cat` some time later.
        let sums = std::iter::repeat_with(|| of_tree(pid).unwrap().peak);
        assert!(sums.take(1_000_000).any(|sum| sum > own(pid)), "the child is counted");
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(of_tree(pid), None);
    }
}
