//! Files of OTLP/JSON lines, as the Collector's file exporter writes them and its `otlpjsonfile` receiver reads them: each
//! line is one export request, and its first name says of which signal (OTLP specification, "OTLP File Exporter").
//!
//! Nothing is lost on the way: what is read back from a line decodes to what the request decodes to. What a file has no place
//! for is the transport and the exporter's `User-Agent`.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{
    Encoding, ExportRequest, Signal, Transport,
    sink::{json, to_json::to_json},
};
use crate::telemetry::Arrival;

/// A longer line is not read: the longest that a request of the sink can become is shorter.
const LINE_AT_MOST: u64 = 1 << 30;

/// The line of a request, without its line feed; the error says why there is none.
///
/// Profiles that came as JSON are written as they came, without white space: their messages change from version to version.
pub fn line(request: &ExportRequest) -> Result<String, String> {
    match (request.encoding, request.signal) {
        (Encoding::Protobuf, signal) => to_json(signal, &request.body),
        (Encoding::Json, Signal::Profiles) => json::parse(&request.body).map(|json| json.to_string()),
        (Encoding::Json, signal) => to_json(signal, &json::to_protobuf(signal, &request.body)?),
    }
}

/// The request in a line. Its body is JSON, for the [index](super::index::index()) to take; that it can be decoded is
/// not yet said. The error says what kept its signal from being told.
pub fn request(line: &[u8]) -> Result<ExportRequest, String> {
    let signal =
        serde_json::from_slice(line).map(|Named(signal)| signal).map_err(|error| format!("not JSON: {error}"))??;
    Ok(ExportRequest {
        signal,
        transport: Transport::File,
        encoding: Encoding::Json,
        user_agent: String::new(),
        body: Bytes::copy_from_slice(line),
        arrival: Arrival::default(),
    })
}

/// Which signal the names of a JSON object tell of.
struct Named(Result<Signal, String>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one of resourceSpans, resourceLogs, resourceMetrics and resourceProfiles")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
        let mut found: Option<Signal> = None;
        let mut others = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let _: IgnoredAny = map.next_value()?;
            let signal = match name.as_str() {
                "resourceSpans" => Signal::Traces,
                "resourceLogs" => Signal::Logs,
                "resourceMetrics" => Signal::Metrics,
                "resourceProfiles" => Signal::Profiles,
                _ => {
                    others.push(name);
                    continue;
                }
            };
            if let Some(before) = found.replace(signal).filter(|before| *before != signal) {
                return Ok(Named(Err(format!("both {before} and {signal} in one line"))));
            }
        }
        Ok(Named(found.ok_or_else(|| {
            let there =
                if others.is_empty() { "it is empty".to_owned() } else { format!("it has {}", others.join(", ")) };
            format!("none of resourceSpans, resourceLogs, resourceMetrics and resourceProfiles is there: {there}")
        })))
    }
}

/// Why a file of OTLP/JSON lines cannot be read or written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum FileError {
    /// It cannot be opened.
    #[error("cannot open {}", .path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {}, line {number}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        number: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A line that is no export request.
    #[error("{}, line {number}: {reason}", .path.display())]
    #[diagnostic(help(
        "each line is one export request in OTLP/JSON, as the Collector's file exporter writes it with `format: json`"
    ))]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A request that cannot be written as a line.
    #[error("a {signal} request cannot be written to {}: {reason}", .path.display())]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// What it carries.
        signal: Signal,
        /// Why.
        reason: String,
    },
    /// Writing failed.
    #[error("cannot write to {}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The requests of a file, each with the number of its line; blank lines are skipped. After an error of the system nothing
/// comes any more, after a line that is none of the protocol's the next one does.
#[derive(Debug)]
pub struct Requests<R> {
    path: PathBuf,
    reader: R,
    number: u64,
    over: bool,
}

/// Opens a file to read its requests.
pub fn read(path: &Path) -> Result<Requests<BufReader<File>>, FileError> {
    let file = File::open(path).map_err(|source| FileError::Open { path: path.to_owned(), source })?;
    Ok(Requests::new(path, BufReader::new(file)))
}

impl<R: BufRead> Requests<R> {
    /// Reads from `reader`; `path` is only named in errors.
    pub fn new(path: &Path, reader: R) -> Self {
        Self { path: path.to_owned(), reader, number: 0, over: false }
    }

    /// An error about the line that came last.
    pub fn wrong(&self, reason: String) -> FileError {
        FileError::Line { path: self.path.clone(), number: self.number, reason }
    }
}

impl<R: BufRead> Iterator for Requests<R> {
    type Item = Result<(u64, ExportRequest), FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            self.number += 1;
            let mut line = Vec::new();
            match self.reader.by_ref().take(LINE_AT_MOST + 1).read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) if line.len() as u64 > LINE_AT_MOST => {
                    self.over = true;
                    return Some(Err(self.wrong(format!("longer than {LINE_AT_MOST} bytes"))));
                }
                Ok(_) => {}
                Err(source) => {
                    self.over = true;
                    let (path, number) = (self.path.clone(), self.number);
                    return Some(Err(FileError::Read { path, number, source }));
                }
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                let request = request(line).map_err(|reason| self.wrong(reason));
                return Some(request.map(|request| (self.number, request)));
            }
        }
        self.over = true;
        None
    }
}

/// Appends requests to a file, one line each.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
    /// The file does not end with a line feed: a line was cut short, by a full disk or by the end of who wrote it.
    cut: bool,
}

impl Appender {
    /// Opens a file, or makes it. What is in it stays.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let opened = || -> io::Result<Self> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            let mut last = [b'\n'];
            if file.metadata()?.is_file() && file.seek(SeekFrom::End(0))? > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            Ok(Self { path: path.to_owned(), file, cut: last != [b'\n'] })
        };
        opened().map_err(|source| FileError::Open { path: path.to_owned(), source })
    }

    /// Writes a request, and returns when the system has it. After an error the next one may be written.
    pub fn write(&mut self, request: &ExportRequest) -> Result<(), FileError> {
        let mut text = line(request).map_err(|reason| {
            let (path, signal) = (self.path.clone(), request.signal);
            FileError::Unwritable { path, signal, reason }
        })?;
        text.push('\n');
        if self.cut {
            text.insert(0, '\n');
        }
        self.cut = true;
        self.file.write_all(text.as_bytes()).map_err(|source| FileError::Write { path: self.path.clone(), source })?;
        self.cut = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
