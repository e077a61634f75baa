//! What one scenario knows while it plays: the deployment it runs on, what its Given steps said, what it has sent.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cucumber::gherkin::{Scenario, Step, StepType};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{
    counterpart::{Counterpart, INVARIANTS, Live, REST, digest_of},
    registry::Need,
    run::{Play, Stage},
    soak::Soak,
};
use crate::{
    correlation::segments::segments,
    deployment::Memory,
    evidence::{Settled, mask_text},
    report::{Problem, Story},
    stimulus::{Caller, Client, ContextForm, Delivery, HttpRequest, http::Connection},
};

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
pub(super) enum Hold {
    Shared {
        _guard: OwnedRwLockReadGuard<()>,
    },
    Alone {
        _guard: OwnedRwLockWriteGuard<()>,
    },
    Own,
    /// What is judged again holds nothing up, and is told whether it was alone.
    Recorded {
        alone: bool,
    },
}

/// A scenario that has its deployment.
#[derive(Debug)]
pub(super) struct Scene {
    pub stage: Rc<Stage>,
    /// What runs, or the record of it.
    pub instance: Counterpart,
    /// The feature file, absolute.
    pub feature: PathBuf,
    /// What the Given steps said of the stimuli to come.
    pub draft: Draft,
    /// What was sent, in order.
    pub sent: Vec<Sent>,
    /// How much of it the steps had judged when the last `When` steps began.
    pub asked: usize,
    judging: bool,
    /// How it was before the collector began to misbehave, once it has.
    pub ordeal: Option<Ordeal>,
    /// The soak that was sent last.
    pub soak: Option<Soak>,
    /// What a few requests of the last soak lack.
    pub lacking: Vec<String>,
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

impl Sent {
    /// A stimulus of which nothing is known yet.
    pub fn new(delivery: Delivery) -> Self {
        Self { delivery, settled: None }
    }

    /// The proof of its completeness, where its service goes on and a fence does not speak for everything.
    pub fn proven_and_running(&self) -> Option<&Settled> {
        self.settled.as_ref().filter(|settled| !settled.ended)
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
    /// Who sends it.
    pub client: Client,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            form: ContextForm::default(),
            sampled: true,
            headers: Vec::new(),
            secrets: Vec::new(),
            client: Client::default(),
        }
    }
}

impl Draft {
    /// One of several clients that are alike: each that keeps its connection has one of its own.
    pub fn one_of_several(&self) -> Client {
        let Client { identity, connection } = self.client.clone();
        Client { identity, connection: connection.map(|_| Connection::default()) }
    }

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
    pub(super) async fn enter(&mut self, play: Rc<Play>, feature: PathBuf, need: Need) {
        let hold = match need {
            Need::Shared => Hold::Shared { _guard: play.gate.clone().read_owned().await },
            Need::Alone => Hold::Alone { _guard: play.gate.clone().write_owned().await },
            Need::Own => Hold::Own,
        };
        match if need == Need::Own { play.own().await } else { play.shared().await } {
            Ok(running) => {
                let instance = Counterpart::Live(Live::new(running));
                self.scene = Some(Scene::new(play.stage.clone(), instance, feature, hold));
            }
            Err(problem) => self.trouble = Some(problem),
        }
    }

    /// A step begins.
    pub(super) fn begin(&mut self, text: &str, step: &Step) {
        if let Some(scene) = &mut self.scene {
            scene.goes_on_to(step.ty);
            scene.instance.begin(text, digest_of(step));
        }
    }

    /// The step is over.
    pub(super) fn end(&self) {
        if let Some(scene) = &self.scene {
            scene.instance.end();
        }
    }

    /// Lets come what a scenario that ended early has not waited for, so that its evidence is whole and a changed step can be
    /// judged on it. Not where a proof was already waited for in vain.
    pub(super) async fn come_to_rest(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let open = scene.sent.iter().any(|sent| sent.settled.is_none());
        if open && !scene.stage.unprovable.get() && !scene.instance.is_unproven() {
            scene.instance.begin(REST, REST.to_owned());
            scene.settle_so_far().await;
            scene.instance.end();
        }
    }

    /// Up to where the step with this digest looked, when it was recorded; to the end when it was not.
    pub(super) fn looks_at(&self, digest: &str) -> u64 {
        match self.scene.as_ref().map(|scene| &scene.instance) {
            Some(Counterpart::Recorded(recorded)) => recorded.looks_at(digest),
            _ => 0,
        }
    }

    /// A world in which a scenario is judged again.
    pub(super) fn recorded(scene: Result<Scene, Problem>) -> Self {
        match scene {
            Ok(scene) => Self { scene: Some(scene), ..Self::default() },
            Err(problem) => Self { trouble: Some(problem), ..Self::default() },
        }
    }

    /// Judges the rules that always hold, when every step did.
    pub(super) async fn invariants(&mut self, scenario: &Scenario, except: &[&str]) {
        let (None, Some(scene)) = (&self.noted, &mut self.scene) else { return };
        scene.instance.begin(INVARIANTS, INVARIANTS.to_owned());
        let judged = scene.invariants(except).await;
        scene.instance.end();
        if let Err(problem) = judged {
            self.note(format!("Invariants of the scenario {:?}", scenario.name), scenario.position.line, problem);
        }
    }

    /// Why there is no scene.
    pub(super) fn trouble(&self) -> Option<Problem> {
        self.trouble.clone()
    }

    /// Keeps the problem that ends the scenario. A secret is in no message, whatever the service made of it.
    pub(super) fn note(&mut self, step: String, line: usize, mut problem: Problem) {
        if let Some(scene) = &self.scene {
            problem.message = scene.hidden(mask_text(problem.message, &scene.draft.secrets));
        }
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

    /// Takes the scene out; it lets the deployment go when it is dropped.
    pub(super) fn leave(&mut self) -> Option<Scene> {
        self.scene.take()
    }
}

impl Scene {
    /// A scene in which nothing has happened yet.
    pub fn new(stage: Rc<Stage>, instance: Counterpart, feature: PathBuf, hold: Hold) -> Self {
        let (draft, sent) = (Draft::default(), Vec::new());
        let (proofs, advice, lacking) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let (ordeal, soak, began) = (None, None, Instant::now());
        let (asked, judging) = (0, false);
        Self {
            stage,
            instance,
            feature,
            draft,
            sent,
            asked,
            judging,
            ordeal,
            soak,
            lacking,
            proofs,
            advice,
            began,
            hold,
        }
    }

    /// A step of this kind comes: a `When` behind a `Then` asks anew.
    fn goes_on_to(&mut self, step: StepType) {
        match step {
            StepType::Given => {}
            StepType::When if self.judging => (self.asked, self.judging) = (self.sent.len(), false),
            StepType::When => {}
            StepType::Then => self.judging = true,
        }
    }

    /// What came of its requests, for a report.
    pub fn stories(&self) -> Vec<Story> {
        self.instance.store().look(|capture| {
            let story = |sent: &Sent| {
                Story::of(&sent.delivery, &self.evidence(capture, sent), &segments(capture, &sent.delivery))
            };
            self.sent.iter().map(story).collect()
        })
    }

    /// Since when it plays.
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether nobody else used the deployment since the scenario began.
    pub fn is_alone(&self) -> bool {
        !matches!(self.hold, Hold::Shared { .. } | Hold::Recorded { alone: false })
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
