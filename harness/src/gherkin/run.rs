//! Running the selected scenarios: every deployment at the same time, scenarios of one deployment side by side where
//! their steps allow it.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    panic,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use cucumber::{
    Cucumber, Event as CucumberEvent, Parser, Writer, cli, event, gherkin, parser::Result as Parsed, runner, step,
    writer::Normalized,
};
use futures::{
    future::{LocalBoxFuture, join_all},
    stream,
};
use regex::Regex;
use tokio::{
    sync::{Mutex, RwLock, mpsc},
    time::Instant as TokioInstant,
};

use super::{
    counterpart::Counterpart,
    evidence::Aside,
    registry::{self, Need},
    roster::{Roster, names},
    select::{EXCEPT, Selection, known_labels},
    world::{Scene, World},
};
use crate::{
    config,
    deployment::{
        SiteError,
        assembly::{Instance, Workshop},
    },
    evidence::{self, CaptureFiles, DEPLOYMENTS},
    report::{Event, Outcome, Problem, Reporter, Summary, Verdict},
};

/// What is to be run.
#[derive(Debug)]
pub struct Plan {
    /// How instances are made.
    pub workshop: Workshop,
    /// The scenarios.
    pub selection: Selection,
    /// The deployments that they run on.
    pub deployments: Vec<config::Deployment>,
    /// Deployments that were to run and cannot, with the reason.
    pub unavailable: Vec<(String, String)>,
    /// How many scenarios run at once on a deployment.
    pub jobs: usize,
}

/// What of a deployment decides a verdict, whether it runs or is recorded.
#[derive(Debug)]
pub(super) struct Stage {
    pub spec: config::Deployment,
    /// Folder of the configuration.
    pub root: PathBuf,
    /// Lines that count in no expectation.
    pub ignore: Vec<Regex>,
    /// Whether completeness could not be proven once: the invariants of later scenarios then do not wait for it again.
    pub unprovable: Cell<bool>,
    /// Whether telemetry beyond a fence was waited for once and did not come.
    pub waited_in_vain: Cell<bool>,
    /// Whether nothing of a request had come when `patience` was over, no fence either.
    pub silent: Cell<bool>,
    /// Whether traces that lines name were waited for once and did not all come.
    pub waited_for_traces: Cell<bool>,
    /// Whether log records that lines have copies of were waited for once and did not all come.
    pub waited_for_copies: Cell<bool>,
}

impl Stage {
    pub fn new(spec: config::Deployment, root: PathBuf) -> Self {
        // The configuration was refused if one of them did not compile.
        let ignore = spec.ignore_lines.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect();
        let no = || Cell::new(false);
        let (unprovable, waited_in_vain, silent) = (no(), no(), no());
        let (waited_for_traces, waited_for_copies) = (no(), no());
        Self { spec, root, ignore, unprovable, waited_in_vain, silent, waited_for_traces, waited_for_copies }
    }
}

/// One deployment of a run, while its scenarios play.
#[derive(Debug)]
pub(super) struct Play {
    pub stage: Rc<Stage>,
    pub gate: Arc<RwLock<()>>,
    output: PathBuf,
    workshop: Workshop,
    shared: Mutex<Shared>,
    /// What the evidence of each feature file is named after.
    names: Rc<BTreeMap<PathBuf, String>>,
    events: mpsc::UnboundedSender<Event>,
}

/// What scenarios share now, or why there is none.
#[derive(Debug, Default)]
struct Shared {
    starts: usize,
    now: Option<Result<Rc<Running>, Problem>>,
}

/// What was started, and where what it sends is written.
#[derive(Debug)]
pub(super) struct Running {
    pub instance: Instance,
    /// Where it stands among the evidence, when several scenarios look at it.
    pub shared_as: Option<String>,
    pub files: Arc<Mutex<CaptureFiles>>,
    /// Whether its end was asked for, or a verdict tells of it.
    pub mourned: Cell<bool>,
}

impl Running {
    /// What is wrong when it has ended and nobody asked it to; said once.
    pub fn obituary(&self) -> Option<String> {
        let text = self.instance.crashed().filter(|_| !self.mourned.get())?;
        self.mourned.set(true);
        Some(text)
    }
}

impl Play {
    /// What scenarios share, started by the first one that asks, and anew where it has ended: a crash is the failure of who
    /// was there, and not of everybody behind.
    pub async fn shared(&self) -> Result<Rc<Running>, Problem> {
        let mut shared = self.shared.lock().await;
        if let Some(Ok(running)) = &shared.now
            && running.instance.crashed().is_some()
        {
            let untold = running.obituary();
            shared.now = None;
            if let Some(untold) = untold {
                return Err(Problem::errored(format!(
                    "{untold}\nthat was between two scenarios, so it is told here; those behind this one get a new one"
                )));
            }
        }
        if let Some(now) = &shared.now {
            return now.clone();
        }
        shared.starts += 1;
        let name = match shared.starts {
            1 => self.stage.spec.name.clone(),
            // No name of a deployment has this sign.
            again => format!("{}~{again}", self.stage.spec.name),
        };
        let started = self.start(Some(name)).await.map(Rc::new);
        if let Ok(running) = &started {
            let (deployment, what) = (self.stage.spec.name.clone(), running.instance.what());
            let _ = self.events.send(Event::Ready { deployment, what, took: running.instance.took });
        }
        shared.now = Some(started.clone());
        started
    }

    /// Something for one scenario.
    pub async fn own(&self) -> Result<Rc<Running>, Problem> {
        self.start(None).await.map(Rc::new)
    }

    async fn start(&self, shared_as: Option<String>) -> Result<Running, Problem> {
        let spec = &self.stage.spec;
        let starting = Event::Starting { deployment: spec.name.clone(), builds: spec.builds() };
        let _ = self.events.send(starting);
        let started = async {
            let instance = Instance::start(&self.workshop, spec).await?;
            // What a start still writes would fall into the time of the first scenario that is alone.
            instance.wake_workers(TokioInstant::now() + spec.patience / 4).await?;
            Ok(instance)
        };
        let instance = started.await.map_err(|error: SiteError| {
            let problem = Problem::from_error(&error);
            Problem::errored(format!("deployment {} did not start: {}", spec.name, problem.message))
        })?;
        // One of a scenario's own is given its folder with the scenario's.
        let folder = shared_as.as_ref().map(|name| self.output.join(DEPLOYMENTS).join(name)).unwrap_or_default();
        let files = Arc::new(Mutex::new(CaptureFiles::new(folder)));
        Ok(Running { instance, shared_as, files, mourned: Cell::new(false) })
    }

    /// Where the evidence of a scenario lies.
    fn folder(&self, file: &Path, line: usize) -> PathBuf {
        let name = self.names.get(file).map_or("", String::as_str);
        near(&self.output).join(format!("{name}-{line}")).join(&self.stage.spec.name)
    }

    fn playing(&self, scenario: &str) {
        let playing = Event::Playing { deployment: self.stage.spec.name.clone(), scenario: scenario.to_owned() };
        let _ = self.events.send(playing);
    }

    pub fn judged(&self, outcome: Outcome) {
        let _ = self.events.send(Event::Judged(Box::new(outcome)));
    }
}

/// Runs a plan to its end and tells `reporter` what happens, all but [`Event::Finished`].
pub async fn run(plan: Plan, reporter: &mut dyn Reporter) -> Summary {
    run_until(plan, reporter, std::future::pending()).await
}

/// The same, unless `stop` comes to its end before: then all that was started is ended, and what was not judged by then is an
/// error that says what `stop` does.
pub async fn run_until(plan: Plan, reporter: &mut dyn Reporter, stop: impl Future<Output = String>) -> Summary {
    let began = Instant::now();
    let config = plan.workshop.config.clone();
    let output = config.resolve(&config.output);
    let known = known_labels(config.deployments.values());
    let (events, mut told) = mpsc::unbounded_channel();
    let names = Rc::new(names(&plan.selection));
    let mut roster = Roster::default();
    let mut claimed = BTreeSet::new();
    let mut plays: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
    let mut deployments = Vec::new();
    for spec in &plan.deployments {
        let features = plan.selection.for_deployment(spec, &known);
        let own = Selection { features: features.clone() };
        claimed.extend(places(&own));
        roster.enrol(&spec.name, &own);
        deployments.push((spec.name.clone(), own.scenarios().count()));
        if features.is_empty() {
            continue;
        }
        let play = Rc::new(Play {
            stage: Rc::new(Stage::new(spec.clone(), config.root.clone())),
            gate: Arc::default(),
            output: output.clone(),
            workshop: plan.workshop.clone(),
            shared: Mutex::default(),
            names: names.clone(),
            events: events.clone(),
        });
        plays.push(Box::pin(play_all(play, features, plan.jobs)));
    }
    drop(events);
    if !plays.is_empty() {
        // Where this fails nothing can be written behind it either, and every scenario says so.
        let _ = evidence::begin_run(&output, &config.root);
    }
    // What cannot run here is told as such, and not as a scenario that nobody takes.
    for spec in plan.unavailable.iter().filter_map(|(name, _)| config.deployments.get(name)) {
        claimed.extend(places(&Selection { features: plan.selection.for_deployment(spec, &known) }));
    }
    let all = places(&plan.selection);
    reporter.tell(&Event::Started { scenarios: all.len(), deployments });
    for (deployment, reason) in &plan.unavailable {
        reporter.tell(&Event::Unavailable { deployment: deployment.clone(), reason: reason.clone() });
    }
    let mut summary = Summary {
        unavailable: plan.unavailable.clone(),
        unclaimed: all
            .difference(&claimed)
            .map(|(file, line, name)| format!("{}:{line}  {name}", near(file).display()))
            .collect(),
        output: near(&output),
        ..Summary::default()
    };
    let hook = panic::take_hook();
    let playing = join_all(plays);
    let telling = async {
        while let Some(event) = told.recv().await {
            reporter.tell(&event);
            if let Event::Judged(outcome) = event {
                summary.outcomes.push(*outcome);
            }
        }
    };
    let interrupted = tokio::select! {
        _ = futures::future::join(playing, telling) => None,
        why = stop => Some(why),
    };
    // The runner silences panics while steps run; two at once restore each other's silence.
    panic::set_hook(hook);
    let why = interrupted.as_deref().unwrap_or(
        "tracegate itself broke down while it judged this scenario, so it has no verdict; please report this with its evidence",
    );
    for lost in roster.unjudged(&summary.outcomes, why) {
        reporter.tell(&Event::Judged(Box::new(lost.clone())));
        summary.outcomes.push(lost);
    }
    summary.interrupted = interrupted;
    summary.took = began.elapsed();
    summary
}

/// A path as seen from the working directory, which is how a person will type it.
pub(crate) fn near(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned)).unwrap_or_else(|| path.to_owned())
}

fn places(selection: &Selection) -> BTreeSet<(PathBuf, usize, String)> {
    selection
        .scenarios()
        .map(|selected| {
            let file = selected.feature.path.clone().unwrap_or_default();
            (file, selected.scenario.position.line, selected.scenario.name.clone())
        })
        .collect()
}

async fn play_all(play: Rc<Play>, features: Vec<gherkin::Feature>, jobs: usize) {
    let mut steps = step::Collection::new();
    for compiled in registry::compiled() {
        let regex = compiled.regex.clone();
        steps = match compiled.definition.keyword {
            registry::Keyword::Given => steps.given(None, regex, dispatch),
            registry::Keyword::When => steps.when(None, regex, dispatch),
            registry::Keyword::Then => steps.then(None, regex, dispatch),
        };
    }
    let entering = play.clone();
    let runner = runner::Basic::default()
        .max_concurrent_scenarios(jobs)
        // A tag that begins with `retry` would have a scenario that failed played again until it passes.
        .retry_options(|_, _, _, _| None)
        .steps(steps)
        .before(move |feature, rule, scenario, world| {
            let play = entering.clone();
            let need = need(feature, rule, scenario);
            let file = feature.path.clone().unwrap_or_default();
            let file = file.canonicalize().unwrap_or(file);
            Box::pin(async move {
                world.enter(play.clone(), file, need).await;
                play.playing(&scenario.name);
            })
        })
        .after(move |feature, rule, scenario, finished, mut world| {
            let play = play.clone();
            Box::pin(async move {
                if let Some(world) = &mut world {
                    match finished {
                        event::ScenarioFinished::StepPassed => {
                            world.invariants(scenario, &exceptions(feature, rule, scenario)).await;
                        }
                        _ => world.come_to_rest().await,
                    }
                }
                let verdict = verdict(scenario, finished, world.as_deref());
                let outcome = conclude(&play, feature, scenario, verdict, world).await;
                play.judged(outcome);
            })
        });
    Cucumber::<World, _, (), _, _>::custom(Given(features), runner, Silent)
        .with_cli(cli::Opts::<cli::Empty, runner::basic::Cli, cli::Empty, cli::Empty>::default())
        .run(())
        .await;
}

/// How much of the deployment a scenario needs: the most that one of its steps does.
fn need(feature: &gherkin::Feature, rule: Option<&gherkin::Rule>, scenario: &gherkin::Scenario) -> Need {
    let tagged = tags(feature, rule, scenario).filter_map(|tag| match tag.as_str() {
        "isolated" => Some(Need::Own),
        "alone" => Some(Need::Alone),
        _ => None,
    });
    let backgrounds = feature.background.iter().chain(rule.into_iter().filter_map(|rule| rule.background.as_ref()));
    let steps = backgrounds.flat_map(|background| &background.steps).chain(&scenario.steps);
    let needed = steps.filter_map(registry::find).map(|(definition, _)| definition.need);
    tagged.chain(needed).max().unwrap_or(Need::Shared)
}

fn tags<'a>(
    feature: &'a gherkin::Feature,
    rule: Option<&'a gherkin::Rule>,
    scenario: &'a gherkin::Scenario,
) -> impl Iterator<Item = &'a String> {
    feature.tags.iter().chain(rule.into_iter().flat_map(|rule| &rule.tags)).chain(&scenario.tags)
}

/// The invariants that a scenario opts out of; that they exist and have a reason was checked before the run.
pub(super) fn exceptions<'a>(
    feature: &'a gherkin::Feature,
    rule: Option<&'a gherkin::Rule>,
    scenario: &'a gherkin::Scenario,
) -> Vec<&'a str> {
    tags(feature, rule, scenario).filter_map(|tag| tag.strip_prefix(EXCEPT)).collect()
}

/// Thrown by [`dispatch`] so that the runner skips the rest of the scenario; the problem itself is in the world.
struct DidNotPass;

fn dispatch(world: &mut World, context: step::Context) -> LocalBoxFuture<'_, ()> {
    Box::pin(async move {
        if !play_step(world, &context.step).await {
            panic::resume_unwind(Box::new(DidNotPass));
        }
    })
}

/// Plays one step; `false` when it did not pass, and then the world has the problem.
pub(super) async fn play_step(world: &mut World, step: &gherkin::Step) -> bool {
    let text = format!("{} {}", step.keyword.trim(), step.value);
    let result = match (registry::find(step), world.trouble()) {
        (_, Some(problem)) => Err(problem),
        (Some((definition, arguments)), None) => {
            world.begin(&text, step);
            let result = (definition.run)(world, &arguments).await;
            world.end();
            result
        }
        (None, None) => Err(Problem::errored("no step is defined for this text")),
    };
    let passed = result.is_ok();
    if let Err(problem) = result {
        world.note(text, step.position.line, problem);
    }
    passed
}

fn verdict(scenario: &gherkin::Scenario, finished: &event::ScenarioFinished, world: Option<&World>) -> Verdict {
    let noted = world.and_then(World::noted);
    let unexplained = |why: String| Verdict::NotPassed {
        step: format!("{} {}", scenario.keyword, scenario.name),
        line: scenario.position.line,
        problem: Problem::errored(why),
    };
    match (noted, finished) {
        (Some((step, line, problem)), _) => Verdict::NotPassed { step, line, problem },
        (None, event::ScenarioFinished::StepPassed) => Verdict::Passed,
        (None, event::ScenarioFinished::StepSkipped) => unexplained("a step of it is not defined".into()),
        (None, event::ScenarioFinished::StepFailed(_, _, error)) => {
            unexplained(format!("a step of tracegate itself broke down: {error}"))
        }
        (None, event::ScenarioFinished::BeforeHookFailed(info)) => {
            let text = info.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| info.downcast_ref::<String>().cloned()).unwrap_or_default();
            unexplained(format!("tracegate itself broke down before the first step: {text}"))
        }
    }
}

/// Whatever was judged where something was dropped was not judged on all that came.
pub(super) fn unless_dropped(verdict: Verdict, scenario: &gherkin::Scenario, dropped: Option<String>) -> Verdict {
    let Some(dropped) = dropped else { return verdict };
    let why = match verdict {
        Verdict::NotPassed { step, problem, .. } => format!("{dropped}\n{step}: {}", problem.message),
        Verdict::Passed => dropped,
    };
    let step = format!("{} {}", scenario.keyword, scenario.name);
    Verdict::NotPassed { step, line: scenario.position.line, problem: Problem::errored(why) }
}

/// A service that has ended, and nobody asked it to, passes nothing; where something else is wrong, it may be why.
pub(super) fn with_obituary(verdict: Verdict, scenario: &gherkin::Scenario, obituary: Option<String>) -> Verdict {
    let Some(obituary) = obituary else { return verdict };
    match verdict {
        Verdict::Passed => Verdict::NotPassed {
            step: format!("{} {}", scenario.keyword, scenario.name),
            line: scenario.position.line,
            problem: Problem::failed(format!("expected   the service goes on\nreceived   {obituary}")),
        },
        Verdict::NotPassed { step, line, mut problem } => {
            problem.message = format!("{}\nmeanwhile  {obituary}", problem.message);
            Verdict::NotPassed { step, line, problem }
        }
    }
}

/// Writes the evidence, tells what came of the requests, and lets the deployment go.
async fn conclude(
    play: &Play,
    feature: &gherkin::Feature,
    scenario: &gherkin::Scenario,
    verdict: Verdict,
    world: Option<&mut World>,
) -> Outcome {
    let path = feature.path.clone().unwrap_or_default();
    let folder = play.folder(&path, scenario.position.line);
    let trouble = world.as_ref().and_then(|world| world.trouble());
    let dropped = world.as_ref().and_then(|world| world.dropped());
    let scene = world.and_then(World::leave);
    let obituary = scene.as_ref().and_then(|scene| match &scene.instance {
        Counterpart::Live(live) => live.running.obituary(),
        Counterpart::Recorded(_) => None,
    });
    let verdict = with_obituary(verdict, scenario, obituary.clone());
    let verdict = unless_dropped(verdict, scenario, dropped.clone());
    let mut outcome = Outcome {
        deployment: play.stage.spec.name.clone(),
        file: near(&path),
        line: scenario.position.line,
        feature: feature.name.clone(),
        scenario: scenario.name.clone(),
        verdict,
        took: scene.as_ref().map(Scene::took).unwrap_or_default(),
        proofs: scene.as_ref().map(|scene| scene.proofs.iter().cloned().collect()).unwrap_or_default(),
        advice: scene.as_ref().map(|scene| scene.advice.iter().cloned().collect()).unwrap_or_default(),
        evidence: Some(folder.clone()),
        stories: scene.as_ref().map(Scene::stories).unwrap_or_default(),
    };
    let aside = Aside { trouble, obituary, dropped };
    let written = super::evidence::write(&folder, &outcome, &play.stage, aside, scene.as_ref()).await;
    if let Err(error) = written {
        outcome.evidence = None;
        outcome.proofs.push(format!("no evidence: {}", Problem::from_error(&error).message));
    }
    outcome
}

/// Features that were read and checked before.
struct Given(Vec<gherkin::Feature>);

impl Parser<()> for Given {
    type Cli = cli::Empty;
    type Output = stream::Iter<std::vec::IntoIter<Parsed<gherkin::Feature>>>;

    fn parse(self, (): (), _: cli::Empty) -> Self::Output {
        stream::iter(self.0.into_iter().map(Ok).collect::<Vec<_>>())
    }
}

/// Writes nothing: verdicts are told by the hook behind each scenario.
struct Silent;

impl Writer<World> for Silent {
    type Cli = cli::Empty;

    async fn handle_event(&mut self, _: Parsed<CucumberEvent<event::Cucumber<World>>>, _: &cli::Empty) {}
}

impl Normalized for Silent {}
