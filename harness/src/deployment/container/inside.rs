//! What `tracegate` does inside the container of an execution environment: hold it open, run a program in it, signal one.
//!
//! An environment with extensions has several programs in one container, and an engine follows the first process only. So
//! the first is [`hold`], which does nothing, and each program is run by [`run`], which the engine starts in the container
//! (`exec`) and which says on its own standard output which process the program has and how it ended.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// The first process of the container: what it writes is what the engine keeps as the container's output.
const OUTPUT: [&str; 2] = ["/proc/1/fd/1", "/proc/1/fd/2"];

/// Begins a report among what a program writes. No text has it.
const MARK: u8 = 0;

/// What [`run`] says of its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// It runs, in a process group with this number.
    Runs(i32),
    /// It ended so: `exit status: 0`, `signal: 9 (SIGKILL)`.
    Ended(String),
    /// It could not be started.
    Failed(String),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(group) => write!(f, "tracegate runs {group}"),
            Self::Ended(status) => write!(f, "tracegate ended {status}"),
            Self::Failed(why) => write!(f, "tracegate failed {why}"),
        }
    }
}

impl Report {
    fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.strip_prefix("tracegate ")?.split_once(' ')?;
        match word {
            "runs" => rest.parse().ok().map(Self::Runs),
            "ended" => Some(Self::Ended(rest.to_owned())),
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }

    fn tell(&self) {
        let mut out = io::stdout().lock();
        // Nobody may be listening any more; the program goes on all the same.
        let _ = out.write_all(&[MARK]).and_then(|()| writeln!(out, "{self}")).and_then(|()| out.flush());
    }
}

/// Tells reports from what the program writes to the same stream, wherever the reads fall.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The mark and what came behind it, up to its line feed.
    open: Vec<u8>,
}

/// A piece of such a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Output(Vec<u8>),
    Report(Report),
}

impl Reports {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.open.is_empty() {
                let at = rest.iter().position(|&byte| byte == MARK).unwrap_or(rest.len());
                if at > 0 {
                    pieces.push(Piece::Output(rest[..at].to_vec()));
                }
                self.open.extend(rest.get(at));
                rest = rest.get(at + 1..).unwrap_or_default();
                continue;
            }
            let end = rest.iter().position(|&byte| byte == b'\n');
            self.open.extend(&rest[..end.map_or(rest.len(), |end| end + 1)]);
            rest = end.map_or(&[], |end| &rest[end + 1..]);
            if end.is_some() {
                let whole = std::mem::take(&mut self.open);
                let text = String::from_utf8_lossy(&whole[1..]);
                // A program may write a zero byte itself.
                pieces.push(Report::parse(text.trim_end()).map_or(Piece::Output(whole), Piece::Report));
            }
        }
        pieces
    }
}

/// Holds a container open. Ends with the container.
pub fn hold() -> ! {
    loop {
        std::thread::park();
    }
}

/// Runs a program in a process group of its own, says which, and says how it ended. The output of the `main` one goes where
/// the container's goes, so that the engine keeps it; any other's goes where the reports go.
///
/// # Errors
/// When the program cannot be started, which is reported too.
pub fn run(main: bool, program: &str, arguments: &[String]) -> io::Result<ExitStatus> {
    let start = || {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        if main {
            let [out, err] = OUTPUT.map(|path| File::options().append(true).open(path));
            command.stdout(out?).stderr(err?);
        }
        command.spawn()
    };
    let mut child = start().inspect_err(|error| Report::Failed(error.to_string()).tell())?;
    Report::Runs(child.id().try_into().unwrap_or(i32::MAX)).tell();
    let status = child.wait()?;
    let text = match status.signal().and_then(|number| Signal::try_from(number).ok()) {
        Some(signal) => format!("signal: {} ({signal})", signal as i32),
        None => status.to_string(),
    };
    Report::Ended(text).tell();
    Ok(status)
}

/// Signals the process group of a program.
///
/// # Errors
/// When there is none.
pub fn signal(signal: Signal, group: i32) -> io::Result<()> {
    Ok(killpg(Pid::from_raw(group), signal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[&[u8]]) -> (String, Vec<Report>) {
        let mut reports = Reports::default();
        let (mut output, mut found) = (Vec::new(), Vec::new());
        for piece in pieces.iter().flat_map(|piece| reports.feed(piece)) {
            match piece {
                Piece::Output(bytes) => output.extend(bytes),
                Piece::Report(report) => found.push(report),
            }
        }
        (String::from_utf8_lossy(&output).into_owned(), found)
    }

    #[test]
    fn reports_are_told_from_output_wherever_the_reads_fall() {
        let stream = b"\0tracegate runs 7\nfirst\nunended\0tracegate ended exit status: 3\nlast";
        let expected = [Report::Runs(7), Report::Ended("exit status: 3".into())];
        for size in 1..stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let (output, found) = told(&pieces);
            assert_eq!((output.as_str(), &found[..]), ("first\nunendedlast", &expected[..]), "{size}");
        }
    }

    #[test]
    fn a_zero_byte_of_the_programs_own_is_output() {
        let (output, found) = told(&[b"a\0b\nc\n", b"\0tracegate jumps 3\n"]);
        assert_eq!((output.as_str(), found.len()), ("a\0b\nc\n\0tracegate jumps 3\n", 0));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for report in
            [Report::Runs(12), Report::Ended("signal: 9 (SIGKILL)".into()), Report::Failed("no such file".into())]
        {
            assert_eq!(Report::parse(&report.to_string()), Some(report));
        }
        assert_eq!(Report::parse("tracegate runs far"), None);
    }
}
