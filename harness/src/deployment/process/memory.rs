//! How much memory a process and its descendants had at most.

/// The sum of the peaks (`VmHWM`) of a process and its descendants, in bytes; `None` once it has ended, and where there is
/// no `/proc`. Peaks of descendants that have ended are not in it.
#[cfg(target_os = "linux")]
pub(super) fn peak(pid: i32) -> Option<u64> {
    use std::fs;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let own = in_status(&status)?;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let of_children =
        |pids: String| -> u64 { pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(peak).sum() };
    Some(own + children.map(of_children).sum::<u64>())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn peak(_: i32) -> Option<u64> {
    None
}

/// The peak in `/proc/PID/status`, in bytes; one that has ended and was not waited for has none.
#[cfg(target_os = "linux")]
fn in_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_bytes_and_a_process_that_has_ended_has_none() {
        assert_eq!(in_status("Name:\tx\nVmHWM:\t    1024 kB\nVmRSS:\t 8 kB\n"), Some(1024 * 1024));
        assert_eq!(in_status("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn a_process_is_counted_with_its_children() {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "cat; true"]).stdin(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let own = |pid: i32| in_status(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap()).unwrap();
        // The shell starts `cat` some time later.
        let both = std::iter::repeat_with(|| peak(pid).unwrap()).take(1_000_000).find(|sum| *sum > own(pid));
        assert!(both.is_some(), "the child is counted");
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(peak(pid), None);
    }
}
