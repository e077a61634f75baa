//! Running the selected scenarios: every deployment at the same time, scenarios of one deployment side by side where
//! their steps allow it.

use std::{
    cell::Cell,
    collections::BTreeSet,
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
    sync::{OnceCell, RwLock, mpsc},
    time::Instant as TokioInstant,
};

use super::{
    registry::{self, Need},
    select::{EXCEPT, Selection, known_labels},
    world::World,
};
use crate::{
    config,
    deployment::{
        SiteError,
        assembly::{Instance, Workshop},
    },
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

/// One deployment of a run, while its scenarios play.
#[derive(Debug)]
pub(super) struct Stage {
    pub spec: config::Deployment,
    pub output: PathBuf,
    /// Folder of the configuration.
    pub root: PathBuf,
    workshop: Workshop,
    shared: OnceCell<Result<Arc<Instance>, Problem>>,
    pub gate: Arc<RwLock<()>>,
    /// Lines that count in no expectation.
    pub ignore: Vec<Regex>,
    /// Whether completeness could not be proven once: the invariants of later scenarios then do not wait for it again.
    pub unprovable: Cell<bool>,
    /// Whether telemetry beyond a fence was waited for once and did not come.
    pub waited_in_vain: Cell<bool>,
    events: mpsc::UnboundedSender<Event>,
}

impl Stage {
    /// The instance that scenarios share, started by the first one that asks.
    pub async fn shared(&self) -> Result<Arc<Instance>, Problem> {
        self.shared
            .get_or_init(|| async {
                let instance = self.start().await?;
                let what = instance.what();
                let _ =
                    self.events.send(Event::Ready { deployment: self.spec.name.clone(), what, took: instance.took });
                Ok(instance)
            })
            .await
            .clone()
    }

    /// An instance for one scenario.
    pub async fn start(&self) -> Result<Arc<Instance>, Problem> {
        let starting = Event::Starting { deployment: self.spec.name.clone(), builds: self.spec.builds() };
        let _ = self.events.send(starting);
        let started = async {
            let instance = Instance::start(&self.workshop, &self.spec).await?;
            // What a start still writes would fall into the time of the first scenario that is alone.
            instance.wake_workers(TokioInstant::now() + self.spec.patience / 4).await?;
            Ok(Arc::new(instance))
        };
        started.await.map_err(|error: SiteError| {
            let problem = Problem::from_error(&error);
            Problem::errored(format!("deployment {} did not start: {}", self.spec.name, problem.message))
        })
    }

    fn playing(&self, scenario: &str) {
        let playing = Event::Playing { deployment: self.spec.name.clone(), scenario: scenario.to_owned() };
        let _ = self.events.send(playing);
    }

    pub fn judged(&self, outcome: Outcome) {
        let _ = self.events.send(Event::Judged(Box::new(outcome)));
    }
}

/// Runs a plan to its end and tells `reporter` what happens, all but [`Event::Finished`].
pub async fn run(plan: Plan, reporter: &mut dyn Reporter) -> Summary {
    let began = Instant::now();
    let config = plan.workshop.config.clone();
    let output = config.resolve(&config.output);
    let known = known_labels(config.deployments.values());
    let (events, mut told) = mpsc::unbounded_channel();
    let mut claimed = BTreeSet::new();
    let mut plays: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
    let mut deployments = Vec::new();
    for spec in &plan.deployments {
        let features = plan.selection.for_deployment(spec, &known);
        let own = Selection { features: features.clone() };
        claimed.extend(places(&own));
        deployments.push((spec.name.clone(), own.scenarios().count()));
        if features.is_empty() {
            continue;
        }
        let stage = Rc::new(Stage {
            spec: spec.clone(),
            output: output.clone(),
            root: config.root.clone(),
            workshop: plan.workshop.clone(),
            shared: OnceCell::new(),
            gate: Arc::default(),
            // The configuration was refused if one of them did not compile.
            ignore: spec.ignore_lines.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect(),
            unprovable: Cell::new(false),
            waited_in_vain: Cell::new(false),
            events: events.clone(),
        });
        plays.push(Box::pin(play(stage, features, plan.jobs)));
    }
    drop(events);
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
    futures::future::join(playing, telling).await;
    // The runner silences panics while steps run; two at once restore each other's silence.
    panic::set_hook(hook);
    summary.took = began.elapsed();
    summary
}

/// A path as seen from the working directory, which is how a person will type it.
fn near(path: &Path) -> PathBuf {
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

async fn play(stage: Rc<Stage>, features: Vec<gherkin::Feature>, jobs: usize) {
    let mut steps = step::Collection::new();
    for compiled in registry::compiled() {
        let regex = compiled.regex.clone();
        steps = match compiled.definition.keyword {
            registry::Keyword::Given => steps.given(None, regex, dispatch),
            registry::Keyword::When => steps.when(None, regex, dispatch),
            registry::Keyword::Then => steps.then(None, regex, dispatch),
        };
    }
    let entering = stage.clone();
    let runner = runner::Basic::default()
        .max_concurrent_scenarios(jobs)
        .steps(steps)
        .before(move |feature, rule, scenario, world| {
            let stage = entering.clone();
            let need = need(feature, rule, scenario);
            let file = feature.path.clone().unwrap_or_default();
            let file = file.canonicalize().unwrap_or(file);
            Box::pin(async move {
                world.enter(stage.clone(), file, need).await;
                stage.playing(&scenario.name);
            })
        })
        .after(move |feature, rule, scenario, finished, mut world| {
            let stage = stage.clone();
            Box::pin(async move {
                if let (Some(world), event::ScenarioFinished::StepPassed) = (&mut world, finished) {
                    world.invariants(scenario, &exceptions(feature, rule, scenario)).await;
                }
                let outcome = judge(&stage, feature, scenario, finished, world);
                stage.judged(outcome);
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
fn exceptions<'a>(
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
        let step = &context.step;
        let result = match registry::find(step) {
            Some((definition, arguments)) => match world.trouble() {
                Some(problem) => Err(problem),
                None => (definition.run)(world, &arguments).await,
            },
            None => Err(Problem::errored("no step is defined for this text")),
        };
        if let Err(problem) = result {
            world.note(format!("{} {}", step.keyword.trim(), step.value), step.position.line, problem);
            panic::resume_unwind(Box::new(DidNotPass));
        }
    })
}

fn judge(
    stage: &Stage,
    feature: &gherkin::Feature,
    scenario: &gherkin::Scenario,
    finished: &event::ScenarioFinished,
    world: Option<&mut World>,
) -> Outcome {
    let noted = world.as_ref().and_then(|world| world.noted());
    let unexplained = |why: String| Verdict::NotPassed {
        step: format!("{} {}", scenario.keyword, scenario.name),
        line: scenario.position.line,
        problem: Problem::errored(why),
    };
    let dropped = world.as_ref().and_then(|world| world.dropped());
    let verdict = match (dropped, noted, finished) {
        // Whatever was judged was not judged on all that came.
        (Some(dropped), Some((step, _, problem)), _) => unexplained(format!("{dropped}\n{step}: {}", problem.message)),
        (Some(dropped), None, _) => unexplained(dropped),
        (None, Some((step, line, problem)), _) => Verdict::NotPassed { step, line, problem },
        (None, None, event::ScenarioFinished::StepPassed) => Verdict::Passed,
        (None, None, event::ScenarioFinished::StepSkipped) => unexplained("a step of it is not defined".into()),
        (None, None, event::ScenarioFinished::StepFailed(_, _, error)) => {
            unexplained(format!("a step of tracegate itself broke down: {error}"))
        }
        (None, None, event::ScenarioFinished::BeforeHookFailed(info)) => {
            let text = info.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| info.downcast_ref::<String>().cloned()).unwrap_or_default();
            unexplained(format!("tracegate itself broke down before the first step: {text}"))
        }
    };
    let file = near(&feature.path.clone().unwrap_or_default());
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = near(&stage.output).join(format!("{stem}-{}", scenario.position.line)).join(&stage.spec.name);
    let left = world.map(|world| world.leave(&folder, &verdict)).unwrap_or_default();
    Outcome {
        deployment: stage.spec.name.clone(),
        file,
        line: scenario.position.line,
        feature: feature.name.clone(),
        scenario: scenario.name.clone(),
        verdict,
        took: left.took,
        proofs: left.proofs,
        advice: left.advice,
        evidence: left.evidence,
        stories: left.stories,
    }
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
