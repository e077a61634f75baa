//! What GitHub shows of a run: an annotation on the line of each step that did not hold, and a summary of the job.
//!
//! Workflow commands and their escapes are those of "Workflow commands for GitHub Actions" and of the toolkit's
//! `packages/core/src/command.ts`.

mod summary;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{Event, ProblemKind, Reporter, Summary, Verdict};

/// Writes workflow commands around what another reporter prints.
///
/// The other reporter quotes what a service wrote, and the runner obeys commands in any line. So commands are stopped, with
/// a token that nobody can know, until the other is done.
pub struct GitHub<'a, W> {
    inner: &'a mut dyn Reporter,
    out: W,
    /// What file names are relative to.
    workspace: Option<PathBuf>,
    /// Where the job's summary goes.
    summary: Option<PathBuf>,
    token: String,
}

impl<W> std::fmt::Debug for GitHub<'_, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitHub").field("workspace", &self.workspace).field("summary", &self.summary).finish()
    }
}

impl<'a> GitHub<'a, io::Stdout> {
    /// On standard output, as the runner's variables have it.
    pub fn of_environment(inner: &'a mut dyn Reporter) -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self::new(inner, io::stdout(), path("GITHUB_WORKSPACE"), path("GITHUB_STEP_SUMMARY"))
    }
}

impl<'a, W: Write> GitHub<'a, W> {
    /// Commands go to `out`, which is where `inner` prints too.
    pub fn new(inner: &'a mut dyn Reporter, out: W, workspace: Option<PathBuf>, summary: Option<PathBuf>) -> Self {
        Self { inner, out, workspace, summary, token: uuid::Uuid::new_v4().to_string() }
    }

    fn line(&mut self, text: &str) {
        // A closed pipe must not change the verdict.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    fn finished(&mut self, summary: &Summary) {
        for command in annotations(summary, self.workspace.as_deref()) {
            self.line(&command);
        }
        let Some(path) = &self.summary else { return };
        let written = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let room = summary::LIMIT.saturating_sub(usize::try_from(written).unwrap_or(usize::MAX));
        let text = summary::markdown(summary, room);
        let appended = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = appended.and_then(|mut file| file.write_all(text.as_bytes())) {
            let message = format!("the step summary cannot be written to {}: {error}", path.display());
            self.line(&format!("::warning::{}", escaped_data(&message)));
        }
    }
}

impl<W: Write> Reporter for GitHub<'_, W> {
    fn tell(&mut self, event: &Event) {
        if matches!(event, Event::Started { .. }) {
            self.line(&format!("::stop-commands::{}", self.token));
        }
        self.inner.tell(event);
        if let Event::Finished(summary) = event {
            self.line(&format!("::{}::", self.token));
            self.finished(summary);
        }
    }
}

/// `::error file=…,line=…,title=…::…`, one for each way in which a step did not hold, failures first: GitHub shows the
/// first ten of a step.
fn annotations(summary: &Summary, workspace: Option<&Path>) -> Vec<String> {
    type Key<'a> = (bool, &'a Path, usize, &'a str, &'a str, &'a str);
    let mut found: BTreeMap<Key<'_>, Vec<&str>> = BTreeMap::new();
    for outcome in &summary.outcomes {
        let Verdict::NotPassed { step, line, problem } = &outcome.verdict else { continue };
        // The trace's id, the times and the tree differ from deployment to deployment; what is wrong does not.
        let first = problem.message.lines().next().unwrap_or_default();
        let errored = problem.kind == ProblemKind::Errored;
        let key = (errored, outcome.file.as_path(), *line, step.as_str(), outcome.scenario.as_str(), first);
        found.entry(key).or_default().push(&outcome.deployment);
    }
    let commands = found.into_iter().map(|((errored, file, line, step, scenario, first), deployments)| {
        let what = if errored { "could not be judged" } else { "failed" };
        let title = format!("{scenario}: {what} on {}", deployments.join(", "));
        let mut command = format!("::error file={}", escaped_property(&relative(file, workspace)));
        if line > 0 {
            let _ = write!(command, ",line={line}");
        }
        let message = format!("{step}\n{first}");
        let _ = write!(command, ",title={}::{}", escaped_property(&title), escaped_data(&message));
        command
    });
    commands.collect()
}

/// A file as GitHub names it: from the root of the checkout.
fn relative(file: &Path, workspace: Option<&Path>) -> String {
    let whole = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let root = workspace.and_then(|root| root.canonicalize().ok());
    let inside = root.and_then(|root| whole.strip_prefix(root).ok().map(Path::to_owned));
    inside.unwrap_or_else(|| file.to_owned()).display().to_string()
}

fn escaped_data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escaped_property(text: &str) -> String {
    escaped_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Outcome, Problem, samples::outcome};

    fn failed(deployment: &str, message: &str) -> Outcome {
        outcome(deployment, "50%: a, b", Some(Problem::failed(message)))
    }

    #[test]
    fn an_annotation_stands_on_the_steps_line_once_for_all_deployments_with_everything_escaped() {
        let outcomes = vec![
            outcome("zeta", "later", Some(Problem::errored("no engine"))),
            failed("lambda", "closest    x\r\ntrace      1"),
            failed("process", "closest    x\r\ntrace      2"),
            outcome("process", "fine", None),
        ];
        let commands = annotations(&Summary { outcomes, ..Summary::default() }, None);
        let [first, second] = commands.as_slice() else { panic!("{commands:?}") };
        assert_eq!(
            first,
            "::error file=/p/features/correlation/files.feature,line=14,\
             title=50%25%3A a%2C b%3A failed on lambda%2C process::\
             Then the trace has a SERVER span \"GET /files/{path}\"%0Aclosest    x"
        );
        assert!(second.contains("title=later%3A could not be judged on zeta::"), "{second}");
    }

    #[test]
    fn a_file_is_named_from_the_root_of_the_checkout() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub/a.feature");
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(relative(&file, Some(folder.path())), "sub/a.feature");
        assert_eq!(relative(Path::new("gone.feature"), Some(folder.path())), "gone.feature");
    }

    struct Quoting<'a>(&'a std::cell::RefCell<Vec<u8>>);

    impl Write for Quoting<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_command_that_a_service_wrote_is_not_obeyed() {
        let out = std::cell::RefCell::new(Vec::new());
        let mut terminal = crate::report::Terminal::plain(Quoting(&out));
        let mut github = GitHub::new(&mut terminal, Quoting(&out), None, None);
        let token = github.token.clone();
        let bad = failed("lambda", "found\n::add-mask::e");
        github.tell(&Event::Started { scenarios: 1, deployments: vec![("lambda".into(), 1)] });
        github.tell(&Event::Judged(Box::new(bad.clone())));
        github.tell(&Event::Finished(Summary { outcomes: vec![bad], ..Summary::default() }));
        let said = String::from_utf8(out.into_inner()).unwrap();
        let (stop, go) = (said.find("::stop-commands::").unwrap(), said.find(&format!("\n::{token}::\n")).unwrap());
        let quoted = said.find("::add-mask::").unwrap();
        assert!(stop < quoted && quoted < go && go < said.find("::error ").unwrap(), "{said}");
        assert_eq!(said.matches("::add-mask::").count(), 1, "{said}");
    }

    #[test]
    fn the_summary_is_appended_and_what_cannot_be_written_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.md");
        fs::write(&path, "before\n").unwrap();
        let told = |path: PathBuf| {
            let (mut out, mut inner) = (Vec::new(), crate::report::Terminal::plain(Vec::new()));
            let summary = Summary { outcomes: vec![outcome("p", "s", None)], ..Summary::default() };
            GitHub::new(&mut inner, &mut out, None, Some(path)).tell(&Event::Finished(summary));
            String::from_utf8(out).unwrap()
        };
        assert!(!told(path.clone()).contains("::warning::"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n") && text.contains("1 passed"), "{text}");
        assert!(told(folder.path().to_owned()).contains("::warning::the step summary cannot be written"));
    }
}
