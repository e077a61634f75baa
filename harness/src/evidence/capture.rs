//! A capture as a folder of lines, written while it grows and read back in the order in which it came.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{EvidenceError, VERSION};
use crate::{
    capture::{
        Capture, Encoding, ExportRequest, Fault, Lifecycle, Mark, Retention, Signal, Store, Transport, file,
        index::index, stdout::parse_line,
    },
    telemetry::{Arrival, LogOrigin, LogRecord},
};

const ABOUT: &str = "capture.json";
const ARRIVALS: &str = "arrivals.jsonl";
const STDOUT: &str = "stdout.jsonl";
const LIFECYCLE: &str = "lifecycle.jsonl";

const fn file_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "traces.jsonl",
        Signal::Logs => "logs.jsonl",
        Signal::Metrics => "metrics.jsonl",
        Signal::Profiles => "profiles.jsonl",
    }
}

/// What the folder is.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    version: u32,
    /// `pid 4711`, `container 3f2a…`.
    what: String,
}

/// What a line of OTLP/JSON has no place for.
#[derive(Debug, Serialize, Deserialize)]
struct ArrivalRecord {
    #[serde(flatten)]
    arrival: Arrival,
    signal: Signal,
    transport: Transport,
    encoding: Encoding,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    user_agent: String,
    /// What in it was not valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    faults: Vec<String>,
    /// The request itself, in Base64, where it cannot be said in OTLP/JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

/// A line of stdout or stderr.
#[derive(Debug, Serialize, Deserialize)]
struct LineRecord {
    #[serde(flatten)]
    arrival: Arrival,
    stream: LogOrigin,
    line: String,
    /// The record that was made of it, where the line alone does not tell: the platform's own, an extension's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Box<LogRecord>>,
}

/// A mark, or something that was no telemetry at all.
#[derive(Debug, Serialize, Deserialize)]
struct LifecycleRecord {
    #[serde(flatten)]
    arrival: Arrival,
    #[serde(flatten)]
    what: Happened,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Happened {
    Mark(Mark),
    Fault { signal: Signal, reason: String },
}

/// The files of one capture that grows.
#[derive(Debug)]
pub struct CaptureFiles {
    folder: PathBuf,
    /// Everything up to here is written.
    written: u64,
    begun: bool,
}

/// What came since the last time, taken out of the store so that nobody waits for a disk.
struct News {
    requests: Vec<ExportRequest>,
    lines: Vec<Arc<LogRecord>>,
    marks: Vec<Lifecycle>,
    faults: Vec<Fault>,
    upto: u64,
}

impl News {
    fn since(capture: &Capture, written: u64) -> Self {
        let requests = capture.requests();
        let requests = requests.range(requests.partition_point(|request| request.arrival.seq <= written)..);
        let lines = capture.logs().since(written + 1).only(|row| !row.is_exported());
        let marks = capture.lifecycle();
        let faults = capture.faults();
        Self {
            requests: requests.cloned().collect(),
            lines: lines.cloned().collect(),
            marks: marks[marks.partition_point(|mark| mark.arrival.seq <= written)..].to_vec(),
            faults: faults[faults.partition_point(|fault| fault.arrival.seq <= written)..].to_vec(),
            upto: capture.last_seq(),
        }
    }
}

impl CaptureFiles {
    /// Files in `folder`, which is made with the first that is written.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, written: 0, begun: false }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes what came since the last time. `what` is what runs.
    ///
    /// # Errors
    /// Those of the file system; a request that cannot be said in OTLP/JSON is kept as it came.
    pub fn write(&mut self, store: &Store, what: &str) -> Result<(), EvidenceError> {
        if !self.begun {
            fs::create_dir_all(&self.folder).map_err(EvidenceError::io("make", &self.folder))?;
            let about = serde_json::to_string_pretty(&About { version: VERSION, what: what.to_owned() });
            let path = self.folder.join(ABOUT);
            fs::write(&path, about.unwrap_or_default()).map_err(EvidenceError::io("write", &path))?;
            self.begun = true;
        }
        let news = store.look(|capture| News::since(capture, self.written));
        self.exports(&news)?;
        self.lines(&news)?;
        self.lifecycle(&news)?;
        self.written = news.upto;
        Ok(())
    }

    fn exports(&self, news: &News) -> Result<(), EvidenceError> {
        let mut arrivals = Lines::append(&self.folder, ARRIVALS);
        for signal in [Signal::Traces, Signal::Logs, Signal::Metrics, Signal::Profiles] {
            let mut lines = Lines::append(&self.folder, file_of(signal));
            for request in news.requests.iter().filter(|request| request.signal == signal) {
                let line = file::line(request).ok();
                let faults = news.faults.iter().filter(|fault| fault.arrival == request.arrival);
                arrivals.json(&ArrivalRecord {
                    arrival: request.arrival,
                    signal,
                    transport: request.transport,
                    encoding: request.encoding,
                    user_agent: request.user_agent.clone(),
                    faults: faults.map(|fault| fault.reason.clone()).collect(),
                    body: line.is_none().then(|| STANDARD.encode(&request.body)),
                })?;
                if let Some(line) = line {
                    lines.text(&line)?;
                }
            }
            lines.finish()?;
        }
        arrivals.finish()
    }

    fn lines(&self, news: &News) -> Result<(), EvidenceError> {
        let mut lines = Lines::append(&self.folder, STDOUT);
        for record in &news.lines {
            let again = parse_line(&record.raw, record.origin, record.arrival);
            let tells = again.len() == 1 && again[0] == **record;
            lines.json(&LineRecord {
                arrival: record.arrival,
                stream: record.origin,
                line: record.raw.clone(),
                record: (!tells).then(|| Box::new((**record).clone())),
            })?;
        }
        lines.finish()
    }

    fn lifecycle(&self, news: &News) -> Result<(), EvidenceError> {
        let of_requests: Vec<Arrival> = news.requests.iter().map(|request| request.arrival).collect();
        let marks = news
            .marks
            .iter()
            .map(|entry| LifecycleRecord { arrival: entry.arrival, what: Happened::Mark(entry.mark.clone()) });
        // A fault of a request stands with its request.
        let faults = news.faults.iter().filter(|fault| !of_requests.contains(&fault.arrival));
        let faults = faults.map(|fault| LifecycleRecord {
            arrival: fault.arrival,
            what: Happened::Fault { signal: fault.signal, reason: fault.reason.clone() },
        });
        let mut all: Vec<LifecycleRecord> = marks.chain(faults).collect();
        all.sort_by_key(|entry| entry.arrival);
        let mut lines = Lines::append(&self.folder, LIFECYCLE);
        all.iter().try_for_each(|entry| lines.json(entry))?;
        lines.finish()
    }
}

/// A file that lines are appended to, opened by the first.
struct Lines {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Lines {
    fn append(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name), file: None }
    }

    fn text(&mut self, line: &str) -> Result<(), EvidenceError> {
        let path = &self.path;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = File::options().create(true).append(true).open(path);
                self.file.insert(BufWriter::new(opened.map_err(EvidenceError::io("write", path))?))
            }
        };
        let written = file.write_all(line.as_bytes()).and_then(|()| file.write_all(b"\n"));
        written.map_err(EvidenceError::io("write", path))
    }

    fn json(&mut self, value: &impl Serialize) -> Result<(), EvidenceError> {
        let line =
            serde_json::to_string(value).map_err(|error| EvidenceError::malformed(&self.path, error.to_string()))?;
        self.text(&line)
    }

    fn finish(self) -> Result<(), EvidenceError> {
        let flushed = self.file.map_or(Ok(()), |mut file| file.flush());
        flushed.map_err(EvidenceError::io("write", &self.path))
    }
}

/// Values of a file of JSON lines; a file that is not there has none.
pub(super) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, EvidenceError> {
    text_lines(path)?
        .iter()
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_str(line)
                .map_err(|error| EvidenceError::malformed(path, format!("line {}: {error}", at + 1)))
        })
        .collect()
}

fn text_lines(path: &Path) -> Result<Vec<String>, EvidenceError> {
    match File::open(path) {
        Ok(file) => BufReader::new(file).lines().collect::<Result<_, _>>().map_err(EvidenceError::io("read", path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(EvidenceError::io("read", path)(error)),
    }
}

/// Something that came, ready to be put back.
#[derive(Debug)]
enum Piece {
    Export {
        request: ExportRequest,
        faults: Vec<String>,
    },
    /// The records of one line.
    Line(Vec<LogRecord>),
    Mark(Mark),
    Fault {
        signal: Signal,
        reason: String,
    },
}

/// A capture that was written, and is put back into a store from its beginning, as far as somebody asks.
#[derive(Debug)]
pub struct Recording {
    folder: PathBuf,
    /// In order of arrival.
    pieces: std::vec::IntoIter<(Arrival, Piece)>,
    store: Arc<Store>,
}

impl Recording {
    /// Reads the folder of a capture; of what came behind `upto` nothing is asked for.
    ///
    /// # Errors
    /// What cannot be read, with the line.
    pub fn read(folder: &Path, upto: u64) -> Result<Self, EvidenceError> {
        let about = folder.join(ABOUT);
        let text = fs::read_to_string(&about).map_err(EvidenceError::io("read", &about))?;
        let said: About =
            serde_json::from_str(&text).map_err(|error| EvidenceError::malformed(&about, error.to_string()))?;
        if said.version != VERSION {
            let reason = format!("it has version {}, and this tracegate reads version {VERSION}", said.version);
            return Err(EvidenceError::malformed(&about, reason));
        }
        let mut pieces = Vec::new();
        exports(folder, upto, &mut pieces)?;
        let mut last: Option<Arrival> = None;
        for line in read_lines::<LineRecord>(&folder.join(STDOUT))?.into_iter().filter(|line| line.arrival.seq <= upto)
        {
            let records = match line.record {
                Some(record) => vec![*record],
                None => parse_line(&line.line, line.stream, line.arrival),
            };
            match pieces.last_mut() {
                // Several records of one line came at once.
                Some((_, Piece::Line(before))) if last == Some(line.arrival) => before.extend(records),
                _ => pieces.push((line.arrival, Piece::Line(records))),
            }
            last = Some(line.arrival);
        }
        let lifecycle = read_lines::<LifecycleRecord>(&folder.join(LIFECYCLE))?;
        pieces.extend(lifecycle.into_iter().filter(|entry| entry.arrival.seq <= upto).map(|entry| {
            let piece = match entry.what {
                Happened::Mark(mark) => Piece::Mark(mark),
                Happened::Fault { signal, reason } => Piece::Fault { signal, reason },
            };
            (entry.arrival, piece)
        }));
        pieces.sort_by_key(|(arrival, _)| *arrival);
        // What was recorded was kept then, and in this form it may be larger.
        let everything = Retention { bytes: usize::MAX, age: None };
        let store = Arc::new(Store::bounded(None, everything));
        Ok(Self { folder: folder.to_owned(), pieces: pieces.into_iter(), store })
    }

    /// A capture of nothing: that of a deployment that did not start.
    pub fn empty() -> Self {
        Self { folder: PathBuf::new(), pieces: Vec::new().into_iter(), store: Arc::default() }
    }

    /// What was put back so far.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Puts back everything up to `seq`. Time goes forward only: what was put back stays.
    ///
    /// # Errors
    /// When a request is no longer one that can be read.
    pub fn advance(&mut self, seq: u64) -> Result<(), EvidenceError> {
        while self.pieces.as_slice().first().is_some_and(|(arrival, _)| arrival.seq <= seq) {
            let Some((arrival, piece)) = self.pieces.next() else { break };
            match piece {
                Piece::Export { request, faults } => {
                    let contents = index(request.signal, request.encoding, &request.body).map_err(|reason| {
                        let path = self.folder.join(file_of(request.signal));
                        EvidenceError::malformed(&path, format!("the request with seq {}: {reason}", arrival.seq))
                    })?;
                    self.store.stamp_next(arrival);
                    self.store.add_export(request, contents.index, faults);
                }
                Piece::Line(records) => {
                    self.store.stamp_next(arrival);
                    self.store.add_line(String::new(), |_, _| records);
                }
                Piece::Mark(mark) => {
                    self.store.stamp_next(arrival);
                    self.store.mark(mark);
                }
                Piece::Fault { signal, reason } => {
                    self.store.stamp_next(arrival);
                    self.store.add_fault(signal, reason);
                }
            }
        }
        Ok(())
    }
}

fn exports(folder: &Path, upto: u64, pieces: &mut Vec<(Arrival, Piece)>) -> Result<(), EvidenceError> {
    let arrivals = read_lines::<ArrivalRecord>(&folder.join(ARRIVALS))?;
    for signal in [Signal::Traces, Signal::Logs, Signal::Metrics, Signal::Profiles] {
        let path = folder.join(file_of(signal));
        let mut lines = text_lines(&path)?.into_iter();
        for of in arrivals.iter().filter(|of| of.signal == signal) {
            let (encoding, body) = match &of.body {
                Some(body) => {
                    let body = STANDARD.decode(body).map_err(|error| {
                        EvidenceError::malformed(&folder.join(ARRIVALS), format!("seq {}: {error}", of.arrival.seq))
                    })?;
                    (of.encoding, body)
                }
                None => {
                    let line = lines.next().ok_or_else(|| {
                        let seq = of.arrival.seq;
                        EvidenceError::malformed(&path, format!("the request with seq {seq} is missing: was it cut?"))
                    })?;
                    (Encoding::Json, line.into_bytes())
                }
            };
            if of.arrival.seq > upto {
                continue;
            }
            let request = ExportRequest {
                signal,
                transport: of.transport,
                encoding,
                user_agent: of.user_agent.clone(),
                body: Bytes::from(body),
                arrival: of.arrival,
            };
            pieces.push((of.arrival, Piece::Export { request, faults: of.faults.clone() }));
        }
    }
    Ok(())
}
