//! Reading a process's stdout or stderr line by line into the store.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use nix::errno::Errno;
use tokio::{net::unix::pipe, sync::watch, task::JoinHandle};

use crate::{
    capture::{
        Store,
        stdout::{EXTENSION_LOGGER, parse_line, plain_line},
    },
    telemetry::LogOrigin,
};

/// Longest line that is kept, in bytes; what a longer one has more is dropped with a note, so that a service that never
/// writes a line feed cannot fill the harness's memory.
const LONGEST_LINE: usize = 1 << 20;

/// Most lines of a JSON object that is written over several.
const LONGEST_OBJECT: usize = 1000;

/// Reads in one go before others get their turn. A Linux pipe holds 64 KiB, so this is the content of many pipes.
const READS: usize = 64;

/// The reading end of one stream.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    shared: Arc<Shared>,
    ended: watch::Receiver<bool>,
    reader: Arc<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    pipe: pipe::Receiver,
    lines: Mutex<Lines>,
}

/// What a round of reading ended with.
enum Round {
    /// The pipe is empty.
    Empty,
    /// There may be more.
    More,
    /// Nobody can write to it any more.
    Ended,
}

impl Tap {
    /// Starts to read.
    pub(super) fn open(pipe: io::PipeReader, lines: Lines) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { pipe: pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?, lines: Mutex::new(lines) });
        let (end, ended) = watch::channel(false);
        let reader = tokio::spawn({
            let shared = shared.clone();
            async move {
                while shared.pipe.readable().await.is_ok() {
                    match shared.read() {
                        Round::Empty => {}
                        Round::More => tokio::task::yield_now().await,
                        Round::Ended => break,
                    }
                }
                end.send_replace(true);
            }
        });
        Ok(Self { shared, ended, reader: Arc::new(reader) })
    }

    /// Takes what the pipe holds now. Without it, what a process wrote just before it was stopped could reach the store
    /// behind the mark that says so: the reader's wake-up comes through the event loop, some time later.
    pub(super) fn drain(&self) {
        self.shared.read();
    }

    /// Waits until nobody can write any more.
    pub(super) async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Takes what is there and reads no further, whoever may still write.
    pub(super) async fn close(&self) {
        self.drain();
        self.reader.abort();
        if !*self.ended.borrow() {
            self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner).finish();
        }
    }
}

impl Shared {
    fn read(&self) -> Round {
        // Held over reading and storing, so that the reader and a drain cannot swap two pieces of one line.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 16 * 1024];
        let mut round = Round::More;
        // `try_io` forgets that the pipe was readable when the closure says that it is empty. It does not call the
        // closure when the event loop has not said so yet, which is why this reads directly first.
        let read = |lines: &mut Lines, buffer: &mut [u8]| {
            for _ in 0..READS {
                match nix::unistd::read(self.pipe.as_fd(), buffer) {
                    Ok(0) => {
                        lines.finish();
                        return Ok(Round::Ended);
                    }
                    Ok(count) => lines.feed(&buffer[..count]),
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                    Err(error) => return Err(io::Error::from(error)),
                }
            }
            Ok(Round::More)
        };
        match read(&mut lines, &mut buffer) {
            Ok(Round::More) => {}
            Ok(other) => round = other,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                round = Round::Empty;
                match self.pipe.try_io(|| read(&mut lines, &mut buffer)) {
                    Ok(more) => round = more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => round = Round::Ended,
                }
            }
            Err(_) => round = Round::Ended,
        }
        round
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub(in crate::deployment) struct Lines {
    store: Arc<Store>,
    origin: LogOrigin,
    /// The extension that writes them, if it is not the service.
    extension: Option<String>,
    partial: Vec<u8>,
    dropped: usize,
    /// The lines so far of a JSON object that is written over several.
    object: Vec<String>,
}

impl Lines {
    pub(in crate::deployment) fn new(store: Arc<Store>, origin: LogOrigin) -> Self {
        Self { store, origin, extension: None, partial: Vec::new(), dropped: 0, object: Vec::new() }
    }

    /// Lines of an extension, not of the service.
    pub(in crate::deployment) fn of(self, extension: Option<String>) -> Self {
        Self { extension, ..self }
    }

    pub(in crate::deployment) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end]);
            self.emit();
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE - self.partial.len();
        let kept = bytes.len().min(room);
        self.partial.extend_from_slice(&bytes[..kept]);
        self.dropped += bytes.len() - kept;
    }

    fn emit(&mut self) {
        let bytes = std::mem::take(&mut self.partial);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(&bytes);
        let mut line = String::from_utf8_lossy(bytes).into_owned();
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            line.push_str(&format!(" … [{dropped} more bytes of this line were dropped]"));
        }
        self.take(line);
    }

    /// A JSON object that was pretty-printed is one record: from a line that is `{` over lines that are indented to one that
    /// is `}`. What turns out not to be one is lines again.
    fn take(&mut self, line: String) {
        let (begins, ends) = (line.trim_end() == "{", line.trim_end() == "}");
        let goes_on = !self.object.is_empty() && line.starts_with([' ', '\t']) && self.object.len() < LONGEST_OBJECT;
        if !self.object.is_empty() && ends {
            let mut whole = std::mem::take(&mut self.object);
            whole.push(line);
            let text = whole.join("\n");
            if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok() {
                self.add(text);
            } else {
                whole.into_iter().for_each(|line| self.add(line));
            }
        } else if goes_on {
            self.object.push(line);
        } else {
            self.give_up();
            if begins { self.object.push(line) } else { self.add(line) }
        }
    }

    fn give_up(&mut self) {
        std::mem::take(&mut self.object).into_iter().for_each(|line| self.add(line));
    }

    fn add(&self, line: String) {
        let origin = self.origin;
        match &self.extension {
            None => self.store.add_line(line, |line, arrival| parse_line(line, origin, arrival)),
            Some(name) => self.store.add_line(line, |line, arrival| {
                plain_line(line, origin, arrival, &format!("{EXTENSION_LOGGER}{name}"))
            }),
        };
    }

    /// A last line without its line feed is a line.
    pub(in crate::deployment) fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.emit();
        }
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let store = Arc::new(Store::default());
        let mut lines = Lines::new(store.clone(), LogOrigin::Stdout);
        pieces.iter().for_each(|piece| lines.feed(piece));
        lines.finish();
        store.look(|capture| capture.logs().iter().map(|record| record.raw.clone()).collect())
    }

    #[test]
    fn lines_are_cut_at_line_feeds_wherever_the_reads_fall_and_an_empty_one_is_no_record() {
        assert_eq!(lines(&[b"on", b"e\ntwo\n\nfo", b"ur"]), ["one", "two", "four"]);
    }

    #[test]
    fn a_json_object_over_several_lines_is_one_record_and_what_only_looks_like_one_is_lines() {
        let pretty = "{\n  \"msg\": \"a\",\n  \"tags\": [\n    1\n  ]\n}";
        assert_eq!(lines(&[b"x\n", pretty.as_bytes(), b"\ny\n"]), ["x", pretty, "y"]);
        assert_eq!(lines(&[b"{\n  code();\n}\nend\n"]), ["{", "  code();", "}", "end"]);
        assert_eq!(lines(&[b"{\n  \"a\": 1,\nother\n{\n"]), ["{", "  \"a\": 1,", "other", "{"]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced_and_a_carriage_return_is_no_part_of_the_line() {
        assert_eq!(lines(&[b"a\xffb\r\n"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn a_line_over_the_limit_is_cut_and_says_how_much_was_lost() {
        let long = vec![b'x'; LONGEST_LINE + 5];
        let found = lines(&[&long, b"\nnext\n"]);
        assert!(found[0].ends_with("x … [5 more bytes of this line were dropped]"));
        assert_eq!(found[1], "next");
    }
}
