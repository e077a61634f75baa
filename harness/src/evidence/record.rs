//! What is kept of one scenario on one deployment.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{EvidenceError, VERSION, capture::read_lines, mask};
use crate::{
    capture::sink::behaviour::Incident,
    config::{self, Ready},
    deployment::{Exit, Memory},
    report::{Problem, Verdict},
    stimulus::{Client, ContextForm, Delivery, HttpRequest, Identity},
    telemetry::digest,
};

pub(super) const SCENARIO: &str = "scenario.json";
const ACTS: &str = "acts.jsonl";

/// One scenario on one deployment, as it was judged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScenarioRecord {
    /// Of the format.
    pub version: u32,
    /// Which tracegate wrote it.
    pub tracegate: String,
    /// The feature file, relative to the folder of tracegate.toml where it lies below.
    pub file: PathBuf,
    /// Name of the feature.
    pub feature: String,
    /// Name of the scenario.
    pub scenario: String,
    /// Its line.
    pub line: usize,
    /// Name of the deployment.
    pub deployment: String,
    /// What of its configuration decides a verdict.
    pub settings: Settings,
    /// Whether nobody else used the deployment meanwhile.
    pub alone: bool,
    /// Where what was captured lies.
    pub capture: CaptureKind,
    /// Why there was no deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Problem>,
    /// What was said of a service that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obituary: Option<String>,
    /// What of the telemetry there was no room for, so that nothing could be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
    /// Every step that was played, and behind them the invariants.
    pub steps: Vec<StepRecord>,
    /// The last stamp that any verdict looked at.
    pub ends: u64,
    /// What the collector did on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<Incident>,
    /// Misbehaviour that met no request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmet: Vec<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// What it rested on.
    pub proofs: Vec<String>,
    /// From the first step to the last, in milliseconds.
    pub took_ms: u64,
}

/// Where a scenario's capture lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureKind {
    /// In the scenario's own folder: nobody else looked at it.
    Own,
    /// In this folder below `deployments`, with that of the other scenarios that shared the deployment.
    Shared(String),
    /// There is none, because nothing was started.
    Nothing,
}

/// A step that was played.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepRecord {
    /// As it stands in the file, secrets masked.
    pub step: String,
    /// The digest of all of it, with its table or doc string, by which it is known again.
    pub digest: String,
    /// The last stamp that it looked at.
    pub looked_at: u64,
    /// What was proven complete by the end of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Settled>,
    /// Why something could not be proven complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<Problem>,
}

/// What is known of a delivery once it is proven that nothing more will come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Mark of the delivery.
    pub delivery: String,
    /// Why nothing more will come.
    pub proof: String,
    /// Whether what sends telemetry had ended or stood still.
    pub ended: bool,
    /// Whether the proof speaks for OTLP log records too.
    pub logs: bool,
    /// The last stamp that belongs to the request.
    pub window_end: u64,
    /// The last stamp before the proof.
    pub proven_at: u64,
}

/// Something that a scenario did to its deployment, with what came back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActRecord {
    /// What.
    #[serde(flatten)]
    pub undertaking: Undertaking,
    /// The digest of what was sent, secrets included, by which it is known again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Why it did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What a scenario can do to its deployment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub enum Undertaking {
    /// A request.
    Sent {
        /// Method.
        method: String,
        /// Path and query.
        target: String,
        /// Headers of the scenario, without the context's.
        headers: Vec<(String, String)>,
        /// In which headers the context went.
        form: ContextForm,
        /// What came back.
        delivery: Option<Box<Delivery>>,
    },
    /// A literal event.
    Delivered {
        /// The event.
        event: serde_json::Value,
        /// What came back.
        delivery: Option<Box<Delivery>>,
    },
    /// The execution environments were shut down.
    Recycled {
        /// How many there were.
        environments: usize,
    },
    /// It was asked to end.
    Stopped {
        /// `SIGTERM`, `SIGINT`.
        signal: String,
        /// How it ended.
        exit: Exit,
    },
    /// The collector was told to do something wrong, or right again.
    Collector {
        /// What.
        what: String,
    },
    /// What the service holds was looked at.
    Memory {
        /// What it held.
        held: Option<Memory>,
    },
    /// Worker processes were looked for.
    Workers {
        /// Those that showed themselves.
        seen: Vec<String>,
    },
}

impl Undertaking {
    /// As a person would say it: `GET /files/`.
    pub fn what(&self) -> String {
        match self {
            Self::Sent { method, target, .. } => format!("{method} {target}"),
            Self::Delivered { .. } => "a literal event".into(),
            Self::Recycled { .. } => "the end of the execution environments".into(),
            Self::Stopped { signal, .. } => format!("a stop with {signal}"),
            Self::Collector { what } => format!("the collector: {what}"),
            Self::Memory { .. } => "a look at the memory".into(),
            Self::Workers { .. } => "a look for worker processes".into(),
        }
    }

    /// The digest of a request with all that a scenario says of it.
    pub fn digest_of_request(request: &HttpRequest, client: &Client) -> String {
        let Client { identity, connection } = client;
        let mut parts = vec![
            request.method.clone().into_bytes(),
            request.target.clone().into_bytes(),
            request.body.to_vec(),
            format!("{:?} {}", request.form, request.caller.sampled).into_bytes(),
            format!("{identity:?}").into_bytes(),
        ];
        if connection.is_some() {
            parts.push(b"kept connection".into());
        }
        parts.extend(request.headers.iter().flat_map(|(name, value)| [name.clone().into(), value.clone().into()]));
        format!("{:016x}", digest(&parts))
    }

    /// The digest of an event.
    pub fn digest_of_event(event: &serde_json::Value, identity: &Identity) -> String {
        format!("{:016x}", digest(&[event.to_string(), format!("{identity:?}")]))
    }
}

/// What of a deployment's configuration decides a verdict, as tracegate.toml says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ready: Option<Ready>,
    fence: String,
    workers: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal_to: Option<config::SignalTo>,
    patience: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quiet: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ignore_lines: Vec<String>,
    canaries: config::Canaries,
    /// Advice that failed, and how far clocks might be apart in nanoseconds: `[invariants]` belongs to the whole run.
    judging: (Vec<String>, u64),
}

impl Settings {
    /// Those of a deployment.
    pub fn of(spec: &config::Deployment) -> Self {
        let text = |time: Duration| format!("{}ms", time.as_millis());
        Self {
            kind: spec.kind.to_string(),
            ready: spec.ready.clone(),
            fence: spec.fence_target().to_owned(),
            workers: spec.workers,
            signal_to: spec.signal_to,
            patience: text(spec.patience),
            quiet: spec.quiet.map(text),
            ignore_lines: spec.ignore_lines.clone(),
            canaries: spec.canaries(),
            judging: (spec.invariants.deny.clone(), u64::try_from(spec.invariants.skew.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    /// A deployment of this name that has them, and nothing to run.
    ///
    /// # Errors
    /// When they are none that this tracegate knows.
    pub fn deployment(&self, name: &str) -> Result<config::Deployment, String> {
        let mut settings = serde_json::to_value(self).map_err(|error| error.to_string())?;
        // Which is no setting of a deployment.
        settings.as_object_mut().and_then(|settings| settings.remove("judging"));
        let mut spec: config::Deployment = serde_json::from_value(settings).map_err(|error| error.to_string())?;
        name.clone_into(&mut spec.name);
        let (deny, skew) = &self.judging;
        spec.invariants = config::Invariants { deny: deny.clone(), skew: Duration::from_nanos(*skew) };
        Ok(spec)
    }
}

/// Writes a scenario and its acts into `folder`, with everything in `secrets` masked.
///
/// # Errors
/// Those of the file system.
pub fn write_scenario(
    folder: &Path,
    scenario: &ScenarioRecord,
    acts: &[ActRecord],
    secrets: &[String],
) -> Result<(), EvidenceError> {
    let path = folder.join(ACTS);
    let mut lines = String::new();
    for act in acts {
        let wrong = |error: serde_json::Error| EvidenceError::malformed(&path, error.to_string());
        let mut value = serde_json::to_value(act).map_err(wrong)?;
        // What the service answered is its own to keep secret, and a step judges it as it was.
        let response = value.pointer("/delivery/response").cloned();
        mask(&mut value, secrets);
        if let (Some(masked), Some(response)) = (value.pointer_mut("/delivery/response"), response) {
            *masked = response;
        }
        lines.push_str(&value.to_string());
        lines.push('\n');
    }
    fs::write(&path, lines).map_err(EvidenceError::io("write", &path))?;
    let path = folder.join(SCENARIO);
    let wrong = |error: serde_json::Error| EvidenceError::malformed(&path, error.to_string());
    let mut value = serde_json::to_value(scenario).map_err(wrong)?;
    mask(&mut value["verdict"], secrets);
    for step in value["steps"].as_array_mut().into_iter().flatten() {
        mask(&mut step["step"], secrets);
    }
    let text = serde_json::to_string_pretty(&value).map_err(wrong)?;
    fs::write(&path, text + "\n").map_err(EvidenceError::io("write", &path))
}

/// Reads a scenario, and its acts with secrets still masked.
///
/// # Errors
/// What cannot be read, and what another version wrote.
pub fn read_scenario(folder: &Path) -> Result<(ScenarioRecord, Vec<serde_json::Value>), EvidenceError> {
    let path = folder.join(SCENARIO);
    let text = fs::read_to_string(&path).map_err(EvidenceError::io("read", &path))?;
    let malformed = |error: serde_json::Error| EvidenceError::malformed(&path, error.to_string());
    let value: serde_json::Value = serde_json::from_str(&text).map_err(malformed)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => {
            let reason = format!("it has version {version}, and this tracegate reads version {VERSION}");
            return Err(EvidenceError::malformed(&path, reason));
        }
        None => return Err(EvidenceError::malformed(&path, "it has no version")),
    }
    let scenario = serde_json::from_value(value).map_err(malformed)?;
    Ok((scenario, read_lines(&folder.join(ACTS))?))
}
