//! Reports that are files, made of the end of the stream.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Event, PAGE, Reporter, Summary, html, json, junit};

/// What a file tells a run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `report.html`.
    Html,
    /// `--json`.
    Json,
    /// `--junit`.
    Junit,
}

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    /// Where it was to go.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Writes files when a run is over.
#[derive(Debug)]
pub struct Files {
    wanted: Vec<(Format, Option<PathBuf>)>,
    trouble: Option<WriteError>,
}

impl Files {
    /// `report.html` in the run's output folder, which is written when a scenario ran at all.
    pub fn with_page() -> Self {
        Self { wanted: vec![(Format::Html, None)], trouble: None }
    }

    /// No file but those that are named.
    pub fn none() -> Self {
        Self { wanted: Vec::new(), trouble: None }
    }

    /// One more file.
    #[must_use]
    pub fn with(mut self, format: Format, path: Option<&Path>) -> Self {
        self.wanted.extend(path.map(|path| (format, Some(path.to_owned()))));
        self
    }

    /// What was written.
    ///
    /// # Errors
    /// With the first file that could not be written.
    pub fn finish(self) -> Result<(), WriteError> {
        self.trouble.map_or(Ok(()), Err)
    }
}

impl Reporter for Files {
    fn tell(&mut self, event: &Event) {
        let Event::Finished(summary) = event else { return };
        for (format, path) in &self.wanted {
            let path = match path {
                Some(path) => path.clone(),
                None if summary.outcomes.is_empty() => continue,
                None => summary.output.join(PAGE),
            };
            if let Err(source) = write(*format, &path, summary) {
                self.trouble.get_or_insert(WriteError { path, source });
            }
        }
    }
}

fn write(format: Format, path: &Path, summary: &Summary) -> Result<(), Box<dyn Error + Send + Sync>> {
    let text = match format {
        Format::Html => html(summary)?,
        Format::Json => json(summary)?,
        Format::Junit => junit(summary)?,
    };
    if let Some(parent) = path.parent()
        && let Err(error) = fs::create_dir_all(parent)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error.into());
    }
    Ok(fs::write(path, text)?)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::outcome, *};

    #[test]
    fn each_file_is_written_at_the_end_and_the_first_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (good, blocked) = (folder.path().join("deep/run.json"), folder.path().join("file/junit.xml"));
        fs::write(folder.path().join("file"), "").unwrap();
        let summary = Summary {
            outcomes: vec![outcome("p", "s", None)],
            output: folder.path().join("out"),
            ..Summary::default()
        };
        let mut files = Files::with_page().with(Format::Junit, Some(&blocked)).with(Format::Json, Some(&good));
        files.tell(&Event::Judged(Box::new(outcome("p", "s", None))));
        assert!(!good.exists(), "before the end");
        files.tell(&Event::Finished(summary));
        assert!(good.exists() && folder.path().join("out/report.html").exists());
        assert_eq!(files.finish().unwrap_err().path, blocked);
    }

    #[test]
    fn a_run_without_scenarios_has_no_page() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::with_page();
        files.tell(&Event::Finished(Summary { output: folder.path().to_owned(), ..Summary::default() }));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        files.finish().unwrap();
    }
}
