//! What one scenario knows while it plays: the deployment it runs on, what its Given steps said, what it has sent.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cucumber::gherkin::Scenario;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{registry::Need, run::Stage, soak::Soak};
use crate::{
    correlation::segments::segments,
    deployment::{Memory, assembly::Instance},
    report::{Problem, Story, Verdict},
    stimulus::{Caller, ContextForm, Delivery, HttpRequest, Identity},
};

/// What a scenario leaves behind.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub took: Duration,
    /// What the verdict rested on.
    pub proofs: Vec<String>,
    /// What invariants say that fails nothing.
    pub advice: Vec<String>,
    /// Where the evidence lies.
    pub evidence: Option<PathBuf>,
    pub stories: Vec<Story>,
}

/// The state of one scenario.
#[derive(Debug, Default)]
pub struct World {
    scene: Option<Scene>,
    trouble: Option<Problem>,
    noted: Option<(String, usize, Problem)>,
}

impl cucumber::World for World {
    type Error = Infallible;

    async fn new() -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

/// A scenario's hold on the deployment that it shares; released when the scenario ends.
#[derive(Debug)]
enum Hold {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
    Own,
}

/// A scenario that has its deployment.
#[derive(Debug)]
pub(super) struct Scene {
    pub stage: Rc<Stage>,
    pub instance: Arc<Instance>,
    /// The feature file, absolute.
    pub feature: PathBuf,
    /// What the Given steps said of the stimuli to come.
    pub draft: Draft,
    /// What was sent, in order.
    pub sent: Vec<Sent>,
    /// How it was before the collector began to misbehave, once it has.
    pub ordeal: Option<Ordeal>,
    /// The soak that was sent last.
    pub soak: Option<Soak>,
    /// What verdicts rested on.
    pub proofs: BTreeSet<String>,
    /// What invariants say that fails nothing.
    pub advice: BTreeSet<String>,
    began: Instant,
    hold: Hold,
}

/// How it was before the collector began to misbehave.
#[derive(Debug)]
pub(super) struct Ordeal {
    /// How many requests were sent before.
    pub calm: usize,
    /// What the service held, or why that cannot be told.
    pub memory: Result<Memory, String>,
}

/// One stimulus with what is known of the completeness of its telemetry.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub delivery: Delivery,
    /// Why nothing more will come, once that was proven.
    pub settled: Option<Settled>,
}

/// What is known of a stimulus once it is proven that nothing more will come.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    /// Why.
    pub proof: String,
    /// Whether what sends telemetry had ended or stood still, so that no process can have been missed.
    pub ended: bool,
    /// Whether the proof speaks for OTLP log records too.
    pub logs: bool,
    /// The last stamp that belongs to the request.
    pub window_end: u64,
    /// The last stamp before the proof.
    pub proven_at: u64,
}

impl Sent {
    /// A stimulus of which nothing is known yet.
    pub fn new(delivery: Delivery) -> Self {
        Self { delivery, settled: None }
    }
}

/// What the next stimulus is like.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub form: ContextForm,
    pub sampled: bool,
    pub headers: Vec<(String, String)>,
    /// Values that must not show up in any telemetry.
    pub secrets: Vec<String>,
    /// Who the caller of a function is.
    pub identity: Identity,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            form: ContextForm::default(),
            sampled: true,
            headers: Vec::new(),
            secrets: Vec::new(),
            identity: Identity::default(),
        }
    }
}

impl Draft {
    /// The request that this draft and a step make, with a fresh caller.
    pub fn request(&self, method: &str, target: &str, body: Bytes) -> HttpRequest {
        HttpRequest {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: self.headers.clone(),
            body,
            caller: Caller::now(self.sampled),
            form: self.form,
        }
    }
}

impl World {
    /// Gets the scenario its deployment. What goes wrong is told by the first step.
    pub(super) async fn enter(&mut self, stage: Rc<Stage>, feature: PathBuf, need: Need) {
        let hold = match need {
            Need::Shared => Hold::Shared { _guard: stage.gate.clone().read_owned().await },
            Need::Alone => Hold::Alone { _guard: stage.gate.clone().write_owned().await },
            Need::Own => Hold::Own,
        };
        let instance = if need == Need::Own { stage.start().await } else { stage.shared().await };
        let began = Instant::now();
        match instance {
            Ok(instance) => {
                self.scene = Some(Scene {
                    stage,
                    instance,
                    feature,
                    draft: Draft::default(),
                    sent: Vec::new(),
                    ordeal: None,
                    soak: None,
                    proofs: BTreeSet::new(),
                    advice: BTreeSet::new(),
                    began,
                    hold,
                });
            }
            Err(problem) => self.trouble = Some(problem),
        }
    }

    /// Judges the rules that always hold, when every step did.
    pub(super) async fn invariants(&mut self, scenario: &Scenario, except: &[&str]) {
        let (None, Some(scene)) = (&self.noted, &mut self.scene) else { return };
        if let Err(problem) = scene.invariants(except).await {
            self.note(format!("Invariants of the scenario {:?}", scenario.name), scenario.position.line, problem);
        }
    }

    /// Why there is no scene.
    pub(super) fn trouble(&self) -> Option<Problem> {
        self.trouble.clone()
    }

    /// Keeps the problem that ends the scenario.
    pub(super) fn note(&mut self, step: String, line: usize, problem: Problem) {
        self.noted = Some((step, line, problem));
    }

    pub(super) fn noted(&self) -> Option<(String, usize, Problem)> {
        self.noted.clone()
    }

    /// What of the telemetry is not there to be judged, because the store had no room for it.
    pub(super) fn dropped(&self) -> Option<String> {
        let dropped = self.scene.as_ref()?.instance.store().look(|capture| *capture.dropped());
        (!dropped.is_nothing()).then(|| {
            format!(
                "the sink dropped the oldest of what it had taken, so nothing can be judged: {dropped}; set retention-mib (or \
                 retention-age) of [sink] in tracegate.toml higher"
            )
        })
    }

    /// The scene; every step has one, because [`trouble`](Self::trouble) is asked first.
    pub(super) fn scene(&mut self) -> Result<&mut Scene, Problem> {
        self.scene.as_mut().ok_or_else(|| Problem::errored("the scenario has no deployment"))
    }

    /// Writes the evidence, tells what came of the requests, and lets the deployment go.
    pub(super) fn leave(&mut self, folder: &Path, verdict: &Verdict) -> Left {
        let Some(scene) = self.scene.take() else { return Left::default() };
        let took = scene.began.elapsed();
        let stories = scene.instance.store().look(|capture| {
            let story = |sent: &Sent| {
                Story::of(&sent.delivery, &scene.evidence(capture, sent), &segments(capture, &sent.delivery))
            };
            scene.sent.iter().map(story).collect()
        });
        let evidence = super::evidence::write(folder, &scene, verdict).ok().map(|()| folder.to_owned());
        let (proofs, advice) = (scene.proofs.into_iter().collect(), scene.advice.into_iter().collect());
        Left { took, proofs, advice, evidence, stories }
    }
}

impl Scene {
    /// Whether nobody else used the deployment since the scenario began.
    pub fn is_alone(&self) -> bool {
        !matches!(self.hold, Hold::Shared { .. })
    }

    /// Refuses what only a function would hear of.
    pub fn only_a_function_hears(&self, what: &str) -> Result<(), Problem> {
        let spec = &self.stage.spec;
        if spec.kind.is_lambda() {
            return Ok(());
        }
        let (name, kind) = (&spec.name, spec.kind);
        Err(Problem::errored(format!(
            "{name} is a {kind}, and only a function hears of {what}; restrict the scenario with @lambda"
        )))
    }

    /// A literal event: a JSON file beside the feature file, or in a folder above it up to that of tracegate.toml.
    pub fn read_event(&self, name: &str) -> Result<serde_json::Value, Problem> {
        let root = &self.stage.root;
        let folders = self.feature.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
        let mut places: Vec<PathBuf> = folders.map(|folder| folder.join(name)).collect();
        places.push(root.join(name));
        let Some(path) = places.iter().find(|path| path.is_file()) else {
            let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
            return Err(Problem::errored(format!("there is no event file {name:?}; looked at {}", places.join(", "))));
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Problem::errored(format!("cannot read {}: {error}", path.display())))?;
        serde_json::from_str(&text)
            .map_err(|error| Problem::errored(format!("{} is not JSON: {error}", path.display())))
    }

    /// The stimulus that steps speak of: the last one.
    pub fn last(&self) -> Result<&Sent, Problem> {
        self.sent.last().ok_or_else(|| Problem::errored("nothing was sent yet: a When step must come first"))
    }
}
