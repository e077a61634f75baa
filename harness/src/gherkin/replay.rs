//! Judging recorded scenarios again: the same steps over the same captures, without any service.
//!
//! Time goes forward only, as it did: the steps of all scenarios that looked at one capture are judged in the order in which
//! they looked, and before each as much of the capture is put back as it saw. So a capture is read once, however many
//! scenarios shared it. A step that was not recorded looks at all that its scenario waited for, and so do those behind it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use cucumber::gherkin;
use serde_json::Value;

use super::{
    counterpart::{Counterpart, INVARIANTS, Recorded, digest_of},
    run::{Stage, exceptions, near, play_step, unless_dropped, with_obituary},
    select::{self, SelectError},
    world::{Hold, Scene, World},
};
use crate::{
    evidence::{
        CAPTURE, CaptureKind, DEPLOYMENTS, EvidenceError, Found, Recording, ScenarioRecord, mask, read_scenario,
    },
    report::{Outcome, Problem, Verdict},
};

/// Why nothing can be judged again.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ReplayError {
    /// The evidence cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Evidence(#[from] EvidenceError),
    /// The features cannot.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Features(#[from] SelectError),
}

/// A scenario that was judged again.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// The verdict now.
    pub outcome: Outcome,
    /// The verdict then, its secrets masked.
    pub recorded: Verdict,
    /// Whether both say the same, in every word.
    pub same: bool,
}

/// Judges everything in `found` again, with the feature files below `root`; by default those of the run's own folder.
///
/// # Errors
/// When the evidence or a feature file cannot be read. That a scenario is gone, or asks for what was not recorded, is its own
/// verdict.
pub async fn replay(found: &Found, root: Option<&Path>) -> Result<Vec<Replayed>, ReplayError> {
    let root = root.unwrap_or(&found.run.root);
    let mut features = Features { root: root.to_owned(), read: HashMap::new() };
    let mut groups: BTreeMap<PathBuf, Vec<(usize, Cast)>> = BTreeMap::new();
    for (at, folder) in found.scenarios.iter().enumerate() {
        let (record, acts) = read_scenario(folder)?;
        let capture = match &record.capture {
            CaptureKind::Own | CaptureKind::Nothing => folder.join(CAPTURE),
            CaptureKind::Shared(name) => found.output.join(DEPLOYMENTS).join(name),
        };
        let played = features.find(&record)?;
        groups
            .entry(capture)
            .or_default()
            .push((at, Cast { folder: folder.clone(), record: Rc::new(record), acts, played }));
    }
    let mut all = Vec::new();
    for (capture, casts) in groups {
        all.extend(judge_again(&capture, casts, root).await?);
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, replayed)| replayed).collect())
}

/// A recorded scenario with what its feature file says now.
struct Cast {
    folder: PathBuf,
    record: Rc<ScenarioRecord>,
    acts: Vec<Value>,
    /// `None` when the file has no such scenario any more.
    played: Option<Played>,
}

/// A scenario of a feature file.
#[derive(Clone)]
struct Played {
    feature: Rc<gherkin::Feature>,
    rule: Option<gherkin::Rule>,
    scenario: gherkin::Scenario,
    /// Of its steps, by which it is told from others of its name.
    digests: Rc<[String]>,
}

impl Played {
    fn new(feature: Rc<gherkin::Feature>, rule: Option<&gherkin::Rule>, scenario: &gherkin::Scenario) -> Self {
        let mut played = Self { feature, rule: rule.cloned(), scenario: scenario.clone(), digests: Rc::default() };
        played.digests = played.steps().iter().map(digest_of).collect();
        played
    }

    /// Every step, with those of the backgrounds.
    fn steps(&self) -> Vec<gherkin::Step> {
        let backgrounds = self.feature.background.iter();
        let backgrounds = backgrounds.chain(self.rule.iter().filter_map(|rule| rule.background.as_ref()));
        backgrounds.flat_map(|background| &background.steps).chain(&self.scenario.steps).cloned().collect()
    }
}

/// Feature files, each read once.
struct Features {
    root: PathBuf,
    read: HashMap<PathBuf, Vec<Played>>,
}

impl Features {
    fn find(&mut self, record: &ScenarioRecord) -> Result<Option<Played>, SelectError> {
        let path = self.root.join(&record.file);
        if !self.read.contains_key(&path) {
            let played = scenarios(&path)?;
            self.read.insert(path.clone(), played);
        }
        let all = self.read.get(&path).into_iter().flatten();
        let named: Vec<&Played> = all.filter(|played| played.scenario.name == record.scenario).collect();
        // Rows of an outline may share their name: the one that says most of what was recorded, then the nearest.
        let alike = |played: &&&Played| {
            let known = record.steps.iter().filter(|step| played.digests.contains(&step.digest)).count();
            (known, Reverse(played.scenario.position.line.abs_diff(record.line)))
        };
        Ok(named.iter().max_by_key(alike).map(|played| (*played).clone()))
    }
}

fn scenarios(path: &Path) -> Result<Vec<Played>, SelectError> {
    let selection = select::select(&[path.to_owned()], None)?;
    let mut all = Vec::new();
    for feature in selection.features {
        let feature = Rc::new(feature);
        let played = |rule, scenario| Played::new(feature.clone(), rule, scenario);
        all.extend(feature.scenarios.iter().map(|scenario| played(None, scenario)));
        for rule in &feature.rules {
            all.extend(rule.scenarios.iter().map(|scenario| played(Some(rule), scenario)));
        }
    }
    Ok(all)
}

/// A scenario that is being judged again.
struct Actor {
    at: usize,
    folder: PathBuf,
    record: Rc<ScenarioRecord>,
    played: Played,
    world: World,
    steps: std::vec::IntoIter<gherkin::Step>,
    /// Whether its verdict is known, and only its report is to be made.
    judged: bool,
    began: Instant,
}

async fn judge_again(
    capture: &Path,
    casts: Vec<(usize, Cast)>,
    root: &Path,
) -> Result<Vec<(usize, Replayed)>, ReplayError> {
    let upto = casts.iter().map(|(_, cast)| cast.record.ends).max().unwrap_or(0);
    let nothing = casts.iter().all(|(_, cast)| cast.record.capture == CaptureKind::Nothing);
    let mut recording = if nothing { Recording::empty() } else { Recording::read(capture, upto)? };
    let mut judged = Vec::new();
    let mut actors: Vec<Actor> = Vec::new();
    for (at, cast) in casts {
        let Cast { folder, record, acts, played } = cast;
        let Some(played) = played else {
            let gone = Problem::errored(format!(
                "{} has no scenario {:?} any more, so there is nothing to judge its evidence by",
                root.join(&record.file).display(),
                record.scenario
            ));
            let (step, line) = (format!("Scenario {}", record.scenario), record.line);
            judged.push((at, replayed(&folder, &record, None, Verdict::NotPassed { step, line, problem: gone })));
            continue;
        };
        let world = World::recorded(scene(&folder, &record, acts, &recording, root)?);
        let steps = played.steps().into_iter();
        actors.push(Actor { at, folder, record, played, world, steps, judged: false, began: Instant::now() });
    }
    // What looks first is judged first.
    let mut turns = BinaryHeap::new();
    for (index, actor) in actors.iter().enumerate() {
        turns.push(Reverse((actor.looks_at(), index)));
    }
    let mut now = 0;
    while let Some(Reverse((looks_at, index))) = turns.pop() {
        let actor = &mut actors[index];
        now = now.max(looks_at);
        recording.advance(now)?;
        let goes_on = match actor.steps.next() {
            _ if actor.judged => false,
            Some(step) => play_step(&mut actor.world, &step).await,
            None => {
                let Played { feature, rule, scenario, .. } = &actor.played;
                actor.world.invariants(scenario, &exceptions(feature, rule.as_ref(), scenario)).await;
                false
            }
        };
        if goes_on {
            turns.push(Reverse((actor.looks_at(), index)));
            continue;
        }
        if actor.world.noted().is_some() && actor.record.ends > now {
            // Its report shows all that came, as it did, but others are judged on less until then.
            actor.judged = true;
            turns.push(Reverse((actor.record.ends, index)));
            continue;
        }
        actor.world.come_to_rest().await;
        judged.push((actor.at, actor.verdict()));
    }
    Ok(judged)
}

fn scene(
    folder: &Path,
    record: &Rc<ScenarioRecord>,
    acts: Vec<Value>,
    recording: &Recording,
    root: &Path,
) -> Result<Result<Scene, Problem>, EvidenceError> {
    if let Some(trouble) = &record.trouble {
        return Ok(Err(trouble.clone()));
    }
    let spec = record.settings.deployment(&record.deployment).map_err(|reason| EvidenceError::Malformed {
        path: folder.join("scenario.json"),
        reason: format!("its settings: {reason}"),
    })?;
    let instance = Counterpart::Recorded(Recorded::new(record.clone(), acts, recording.store().clone()));
    let stage = Rc::new(Stage::new(spec, root.to_owned()));
    Ok(Ok(Scene::new(stage, instance, root.join(&record.file), Hold::Recorded { alone: record.alone })))
}

impl Actor {
    /// Up to where its next step looks.
    fn looks_at(&self) -> u64 {
        let next = self.steps.as_slice().first().map_or_else(|| INVARIANTS.to_owned(), digest_of);
        self.world.looks_at(&next)
    }

    fn verdict(&mut self) -> Replayed {
        let scenario = &self.played.scenario;
        let verdict = match self.world.noted() {
            Some((step, line, problem)) => Verdict::NotPassed { step, line, problem },
            None => Verdict::Passed,
        };
        let verdict = with_obituary(verdict, scenario, self.record.obituary.clone());
        let verdict = unless_dropped(verdict, scenario, self.record.dropped.clone());
        let scene = self.world.leave();
        let mut replayed = replayed(&self.folder, &self.record, scene.as_ref(), verdict);
        replayed.outcome.took = self.began.elapsed();
        replayed.outcome.line = scenario.position.line;
        replayed
    }
}

fn replayed(folder: &Path, record: &ScenarioRecord, scene: Option<&Scene>, verdict: Verdict) -> Replayed {
    let secrets = scene.map(|scene| scene.draft.secrets.clone()).unwrap_or_default();
    Replayed {
        same: said(&verdict, &secrets) == said(&record.verdict, &secrets),
        recorded: record.verdict.clone(),
        outcome: Outcome {
            deployment: record.deployment.clone(),
            file: record.file.clone(),
            line: record.line,
            feature: record.feature.clone(),
            scenario: record.scenario.clone(),
            verdict,
            took: std::time::Duration::ZERO,
            proofs: scene.map(|scene| scene.proofs.iter().cloned().collect()).unwrap_or_default(),
            advice: scene.map(|scene| scene.advice.iter().cloned().collect()).unwrap_or_default(),
            evidence: Some(near(folder)),
            stories: scene.map(Scene::stories).unwrap_or_default(),
        },
    }
}

/// What a verdict says, wherever its step stands now.
fn said(verdict: &Verdict, secrets: &[String]) -> Value {
    let mut said = match verdict {
        Verdict::Passed => Value::Null,
        Verdict::NotPassed { step, problem, .. } => serde_json::json!([step, problem]),
    };
    mask(&mut said, secrets);
    said
}
