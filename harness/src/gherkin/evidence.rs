//! What is kept of a scenario for whoever looks into it: a folder with text to read and OTLP-shaped JSON to search.

use std::{fmt::Write as _, fs, io, path::Path, sync::Arc};

use super::world::Scene;
use crate::{
    capture::{Capture, Mark},
    correlation::segments::{drawn, segments},
    report::Verdict,
    telemetry::{LogRecord, Span},
};

/// Writes `verdict.txt`, `trace.txt`, `spans.ndjson` and `logs.ndjson` into `folder`, which is emptied before.
///
/// # Errors
/// Those of the file system.
pub(super) fn write(folder: &Path, scene: &Scene, verdict: &Verdict) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    scene.instance.store().look(|capture| {
        fs::write(folder.join("verdict.txt"), verdict_text(scene, verdict))?;
        let mut text = String::new();
        let mut spans: Vec<Arc<Span>> = Vec::new();
        let mut logs: Vec<Arc<LogRecord>> = Vec::new();
        for sent in &scene.sent {
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
            spans.extend(evidence.trace.spans().cloned());
            logs.extend(evidence.logs.iter().chain(&evidence.text).cloned());
        }
        fs::write(folder.join("trace.txt"), text + &received(capture))?;
        fs::write(folder.join("spans.ndjson"), lines(&spans)?)?;
        fs::write(folder.join("logs.ndjson"), lines(&logs)?)
    })
}

fn verdict_text(scene: &Scene, verdict: &Verdict) -> String {
    let proofs: Vec<&str> = scene.proofs.iter().map(String::as_str).collect();
    let advice: String = scene.advice.iter().map(|advice| format!("advice  {advice}\n")).collect();
    match verdict {
        Verdict::Passed => format!("passed\n{}\n{advice}", proofs.join("\n")),
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
        if let Mark::Sink { what } = &entry.mark {
            let _ = writeln!(text, "sink at {}: {what}", moment(entry.arrival.unix_nano));
        }
    }
    text
}

fn moment(unix_nano: u64) -> String {
    let nanos = i128::from(unix_nano);
    jiff::Timestamp::from_nanosecond(nanos).map_or_else(|_| unix_nano.to_string(), |moment| format!("{moment:.6}"))
}

fn lines<T: serde::Serialize>(values: &[Arc<T>]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for value in values {
        serde_json::to_writer(&mut bytes, value)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}
