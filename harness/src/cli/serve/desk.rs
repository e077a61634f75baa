//! What `tracegate serve` does with what it receives: keeps it for queries, writes it to a file, tells of it.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{describe, say};
use crate::{
    capture::{
        ExportRequest, Index, Signal, Store,
        file::{self, Appender, FileError},
        index::index,
        sink::Receiver,
    },
    telemetry::Arrival,
};

/// Receives for a store, a file and whoever reads stdout.
#[derive(Debug)]
pub struct Desk {
    pub store: Arc<Store>,
    pub file: Option<Mutex<Output>>,
    pub quiet: bool,
}

/// A file that is written to, and how many requests it lacks since it could last be written to.
#[derive(Debug)]
pub struct Output {
    appender: Appender,
    lost: u64,
}

impl Output {
    pub fn open(path: &Path) -> Result<Mutex<Self>, FileError> {
        Ok(Mutex::new(Self { appender: Appender::open(path)?, lost: 0 }))
    }

    /// Writes a request; what there is to be told about it.
    fn write(&mut self, request: &ExportRequest) -> Option<String> {
        match self.appender.write(request) {
            Ok(()) if self.lost > 0 => {
                let lost = std::mem::take(&mut self.lost);
                Some(format!("it can be written to again; {lost} requests are not in it"))
            }
            Ok(()) => None,
            Err(error) => {
                self.lost += 1;
                // A full disk stays full: said once, and counted.
                (self.lost == 1).then(|| match std::error::Error::source(&error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                })
            }
        }
    }
}

impl Desk {
    fn tell(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }
}

impl Receiver for Desk {
    fn export(&self, request: ExportRequest, index: Index, faults: Vec<String>) {
        // First of all, so that who is answered finds it in the file.
        let problem =
            self.file.as_ref().and_then(|output| output.lock().unwrap_or_else(PoisonError::into_inner).write(&request));
        if let Some(problem) = problem {
            eprintln!("tracegate: {problem}");
            self.note(format!("--write: {problem}"));
        }
        let text = (!self.quiet).then(|| describe(&request, &index.decode(), &faults));
        self.store.export(request, index, faults);
        if let Some(text) = text {
            say(&text);
        }
    }

    fn fault(&self, signal: Signal, reason: String) {
        self.tell(&format!("refused  {reason}"));
        self.store.fault(signal, reason);
    }

    fn note(&self, what: String) -> Arrival {
        self.tell(&format!("note     {what}"));
        self.store.note(what)
    }

    fn astray(&self, what: String) {
        self.tell(&format!("refused  {what}"));
        self.store.astray(what);
    }
}

/// Puts what is in a file into a store; how many requests that were.
pub fn load(path: &Path, store: &Store) -> Result<u64, FileError> {
    let mut requests = file::read(path)?;
    let mut count = 0;
    while let Some(read) = requests.next() {
        let (_, request) = read?;
        let contents = index(request.signal, request.encoding, &request.body);
        let contents = contents.map_err(|unreadable| requests.wrong(unreadable.to_string()))?;
        store.export(request, contents.index, contents.faults);
        count += 1;
    }
    Ok(count)
}
