//! What is kept of a scenario: a record to judge again, and text to read.

use std::{fmt::Write as _, fs, path::Path};

use super::{
    counterpart::Counterpart,
    run::Stage,
    world::{Scene, Sent},
};
use crate::{
    capture::Capture,
    correlation::segments::{drawn, segments},
    evidence::{
        CAPTURE, CaptureFiles, CaptureKind, EvidenceError, ScenarioRecord, Settings, VERSION, mask_text, write_scenario,
    },
    report::{Outcome, Problem, Verdict},
};

/// What decided a verdict besides the steps.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Why there is no scene.
    pub trouble: Option<Problem>,
    /// What is to be said of a service that ended by itself.
    pub obituary: Option<String>,
    /// What of the telemetry there was no room for.
    pub dropped: Option<String>,
}

/// Writes what is known of a scenario into `folder`, which is emptied before, and what its deployment sent since somebody
/// wrote it last. Most of it is written aside: the thread of the scenarios has others to listen to.
///
/// # Errors
/// Those of the file system.
pub(super) async fn write(
    folder: &Path,
    outcome: &Outcome,
    stage: &Stage,
    Aside { trouble, obituary, dropped }: Aside,
    scene: Option<&Scene>,
) -> Result<(), EvidenceError> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| EvidenceError::Io { what, path, source }
    };
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io("remove", folder))?;
    }
    fs::create_dir_all(folder).map_err(io("make", folder))?;
    let file = outcome.file.canonicalize().unwrap_or_else(|_| outcome.file.clone());
    let mut record = ScenarioRecord {
        version: VERSION,
        tracegate: env!("CARGO_PKG_VERSION").into(),
        file: file.strip_prefix(&stage.root).map(Path::to_owned).unwrap_or(file),
        feature: outcome.feature.clone(),
        scenario: outcome.scenario.clone(),
        line: outcome.line,
        deployment: stage.spec.name.clone(),
        settings: Settings::of(&stage.spec),
        alone: scene.is_none_or(Scene::is_alone),
        capture: CaptureKind::Nothing,
        trouble,
        obituary,
        dropped,
        steps: Vec::new(),
        ends: 0,
        incidents: Vec::new(),
        unmet: Vec::new(),
        verdict: outcome.verdict.clone(),
        proofs: outcome.proofs.clone(),
        took_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
    };
    let mut acts = Vec::new();
    let mut secrets: Vec<String> = Vec::new();
    let mut sent = None;
    if let Some(scene) = scene {
        secrets.clone_from(&scene.draft.secrets);
        if let Counterpart::Live(live) = &scene.instance {
            let running = &live.running;
            let files = running.files.clone();
            record.capture = match &running.shared_as {
                Some(name) => CaptureKind::Shared(name.clone()),
                None => {
                    *files.lock().await = CaptureFiles::new(folder.join(CAPTURE));
                    CaptureKind::Own
                }
            };
            sent = Some((files, running.instance.store().clone(), running.instance.what()));
            let tape = live.tape();
            record.steps.clone_from(&tape.steps);
            record.ends = tape.steps.iter().map(|step| step.looked_at).max().unwrap_or(0);
            record.incidents.clone_from(&tape.incidents);
            record.unmet.clone_from(&tape.unmet);
            acts.clone_from(&tape.acts);
        }
        let text = scene.instance.store().look(|capture| text(scene, capture));
        let path = folder.join("trace.txt");
        fs::write(&path, mask_text(text, &secrets)).map_err(io("write", &path))?;
    }
    let path = folder.join("verdict.txt");
    fs::write(&path, mask_text(verdict_text(outcome), &secrets)).map_err(io("write", &path))?;
    let own = folder.to_owned();
    let aside = tokio::task::spawn_blocking(move || {
        if let Some((files, store, what)) = sent {
            files.blocking_lock().write(&store, &what)?;
        }
        write_scenario(&own, &record, &acts, &secrets)
    });
    aside.await.unwrap_or_else(|error| Err(io("write", folder)(error.into())))
}

fn text(scene: &Scene, capture: &Capture) -> String {
    let mut text = String::new();
    for sent in &scene.sent {
        request(scene, capture, sent, &mut text);
    }
    text + &received(capture)
}

fn request(scene: &Scene, capture: &Capture, sent: &Sent, text: &mut String) {
    let evidence = scene.evidence(capture, sent);
    let delivery = &sent.delivery;
    let _ = writeln!(text, "{} {} -> {}", delivery.method, delivery.target, delivery.response.status);
    if let Some(invocation) = &delivery.invocation {
        let _ = writeln!(text, "invocation {}, cold start: {}", invocation.request_id, invocation.cold_start);
        if let Some(trouble) = invocation.trouble() {
            let _ = writeln!(text, "{trouble}");
        }
    }
    let _ = writeln!(text, "found by {}", evidence.found_by);
    for line in drawn(&segments(capture, delivery), &evidence.trace) {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    for record in evidence.logs.iter().chain(&evidence.text) {
        let _ = writeln!(text, "  {:<6} span {}  {}", record.origin, record.span_id, record.raw);
    }
    text.push('\n');
}

fn verdict_text(outcome: &Outcome) -> String {
    let advice: String = outcome.advice.iter().map(|advice| format!("advice  {advice}\n")).collect();
    match &outcome.verdict {
        Verdict::Passed => format!("passed\n{}\n{advice}", outcome.proofs.join("\n")),
        Verdict::NotPassed { step, line, problem } => {
            format!("{:?} in line {line}: {step}\n{}\n", problem.kind, problem.message)
        }
    }
}

fn received(capture: &Capture) -> String {
    let mut text = format!(
        "in all: {} export requests, {} spans, {} log records and lines, {} faults\n",
        capture.requests().len(),
        capture.spans().len(),
        capture.logs().len(),
        capture.faults().len()
    );
    if !capture.dropped().is_nothing() {
        let _ = writeln!(text, "dropped, because there was no room: {}", capture.dropped());
    }
    for fault in capture.faults() {
        let _ = writeln!(text, "fault in {}: {}", fault.signal, fault.reason);
    }
    // Beside the faults, so that a failure shows what the sink did to whom, and when.
    for entry in capture.lifecycle() {
        if let Some(what) = entry.mark.at_the_sink() {
            let _ = writeln!(text, "sink at {}: {what}", moment(entry.arrival.unix_nano));
        }
    }
    text
}

fn moment(unix_nano: u64) -> String {
    let nanos = i128::from(unix_nano);
    jiff::Timestamp::from_nanosecond(nanos).map_or_else(|_| unix_nano.to_string(), |moment| format!("{moment:.6}"))
}
