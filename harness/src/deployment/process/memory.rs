//! How much memory a process group holds, from `/proc`.

use std::fs;

use nix::unistd::Pid;

use super::super::{Memory, SiteError};

/// Adds up all processes of a group.
pub(super) fn of_group(group: Pid) -> Result<Memory, SiteError> {
    let failed = |source| SiteError::because("the memory of the service cannot be read from /proc", source);
    let mut memory = Memory::default();
    let mut found = false;
    for entry in fs::read_dir("/proc").map_err(failed)?.flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_process {
            continue;
        }
        // A process may be gone by the time that its files are read.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if group_of(&stat) != Some(group.as_raw()) {
            continue;
        }
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        found = true;
        memory.resident += field(&status, "VmRSS:");
        memory.peak += field(&status, "VmHWM:");
    }
    if found { Ok(memory) } else { Err(SiteError::new("the service has ended, so it holds no memory")) }
}

/// Field 5 of `/proc/PID/stat` (proc(5)); the name in field 2 may hold spaces and parentheses.
fn group_of(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(2)?.parse().ok()
}

/// A line of `/proc/PID/status` in bytes; it says kB and means KiB. A zombie has none.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_behind_a_name_that_looks_like_fields() {
        assert_eq!(group_of("17 (a) S 9 (b) S 1 42 42 0 -1 4194560"), Some(42));
        assert_eq!(group_of("nonsense"), None);
    }

    #[test]
    fn memory_is_told_in_bytes_and_a_zombie_has_none() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t     512 kB\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "VmHWM:")), (512 * 1024, 2048 * 1024));
        assert_eq!(field("Name:\tx\nState:\tZ (zombie)\n", "VmRSS:"), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_group_of_this_test_holds_memory_and_one_that_does_not_exist_is_an_error() {
        let own = of_group(nix::unistd::getpgrp()).unwrap();
        assert!(own.resident > 1 << 20 && own.peak >= own.resident / 2, "{own:?}");
        assert!(of_group(Pid::from_raw(i32::MAX)).unwrap_err().what.contains("has ended"));
    }
}
