//! The gate must be shown to bite, and to bite again from its evidence alone: each instrumentation fault is applied to the service from outside (by environment, by
//! a wrapper, or by rewriting what passes through the sink), and the run must fail, not err, in the scenario that
//! should see it. Prints the table of faults with what caught each.

mod faults;

use std::{path::Path, process::ExitCode, sync::Arc};

use faults::Fault;
use futures::{StreamExt, stream};
use tracegate::{
    config::Config,
    deployment::assembly::Workshop,
    evidence,
    gherkin::{self, Plan},
    report::{Event, Problem, ProblemKind, Reporter, Summary, Verdict},
};

/// How many faults are tried at once: each has a service of its own.
const AT_ONCE: usize = 3;

/// Invariants that other tests show to bite: what the platform ends is in `lambda_verdicts.rs`.
const ELSEWHERE: [&str; 1] = ["invocation-ends"];

struct Quiet;

impl Reporter for Quiet {
    fn tell(&mut self, _: &Event) {}
}

fn main() -> ExitCode {
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut results: Vec<(&'static str, Result<String, String>)> = runtime.block_on(async {
        let room = "the store has no room";
        let without_room = async {
            if only.is_empty() || only.iter().any(|name| room.contains(name)) {
                vec![(room, without_room().await)]
            } else {
                Vec::new()
            }
        };
        let late = faults::late::serve().await;
        let garble = faults::late::garble().await;
        let all = faults::all(&late).into_iter().chain(faults::invariants::all(&garble));
        let all: Vec<Fault> = all.collect();
        for rule in tracegate::invariant::rules().filter(|rule| !ELSEWHERE.contains(&rule.name)) {
            let shown = all.iter().any(|fault| fault.because == rule.name);
            assert!(shown, "no fault shows that the invariant {} bites", rule.name);
        }
        let chosen =
            all.into_iter().filter(|fault| only.is_empty() || only.iter().any(|name| fault.name.contains(name)));
        stream::iter(chosen)
            .map(|fault| async move { (fault.name, try_one(fault).await) })
            .buffer_unordered(AT_ONCE)
            .chain(stream::once(without_room).flat_map(stream::iter))
            .inspect(|(name, result)| match result {
                Ok(caught) => println!("caught  {name}\n          {}", caught.replace('\n', "\n          ")),
                Err(why) => println!("MISSED  {name}\n          {}", why.replace('\n', "\n          ")),
            })
            .collect()
            .await
    });
    results.sort_by_key(|(name, _)| *name);
    let missed = results.iter().filter(|(_, result)| result.is_err()).count();
    let word = if missed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} passed; {missed} failed; 0 ignored", results.len() - missed);
    ExitCode::from(u8::from(missed > 0 || results.is_empty()))
}

/// A run in which the sink drops something can be no pass, and no failure either: it must err, and say why.
async fn without_room() -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("tracegate.toml");
    let mut config = Config::read(&path).map_err(|error| error.to_string())?;
    config.output = config.output.join("bite").join("the-store-has-no-room");
    config.sink.retention_age = Some(std::time::Duration::from_millis(1));
    let mut spec = config.deployments["process"].clone();
    spec.patience = std::time::Duration::from_secs(4);
    let feature = config.resolve(&config.features).join("routes/files.feature");
    let mut selection = gherkin::select(&[feature], None).map_err(|error| error.to_string())?;
    for feature in &mut selection.features {
        feature.scenarios.truncate(1);
    }
    let tracegate = env!("CARGO_BIN_EXE_tracegate").into();
    let plan = Plan {
        workshop: Workshop { config: Arc::new(config), tracegate, tamper: None },
        selection,
        deployments: vec![spec],
        unavailable: Vec::new(),
        jobs: 1,
    };
    let summary = gherkin::run(plan, &mut Quiet).await;
    match summary.outcomes.as_slice() {
        [outcome] => match &outcome.verdict {
            Verdict::NotPassed { problem: Problem { kind: ProblemKind::Errored, message }, .. }
                if message.contains("the sink dropped the oldest") =>
            {
                Ok(message.lines().next().unwrap_or_default().to_owned())
            }
            other => Err(format!("{other:?}")),
        },
        others => Err(format!("{} scenarios ran", others.len())),
    }
}

/// What caught the fault, or what went wrong instead.
async fn try_one(fault: Fault) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("tracegate.toml");
    let mut config = Config::read(&path).map_err(|error| error.to_string())?;
    config.output = config.output.join("bite").join(fault.name.replace(' ', "-"));
    let mut spec = config.deployments[fault.deployment].clone();
    // A fault that keeps telemetry away is waited for; no sound run of these scenarios needs this long.
    spec.patience = std::time::Duration::from_secs(4);
    (fault.apply)(&mut spec);
    faults::invariants::deny(fault.because, &mut spec);
    let feature = config.resolve(&config.features).join(fault.feature);
    let mut selection = gherkin::select(&[feature], None).map_err(|error| error.to_string())?;
    for feature in &mut selection.features {
        feature.scenarios.retain(|scenario| scenario.name == fault.caught_by);
    }
    if selection.scenarios().next().is_none() {
        return Err(format!("{} has no scenario {:?}", fault.feature, fault.caught_by));
    }
    let tracegate = env!("CARGO_BIN_EXE_tracegate").into();
    let plan = Plan {
        workshop: Workshop { config: Arc::new(config), tracegate, tamper: fault.tamper },
        selection,
        deployments: vec![spec],
        unavailable: Vec::new(),
        jobs: 1,
    };
    let output = plan.workshop.config.resolve(&plan.workshop.config.output);
    let summary = gherkin::run(plan, &mut Quiet).await;
    let caught = verdict(&summary, fault.because)?;
    judged_again(&output, summary.outcomes.len()).await?;
    Ok(caught)
}

/// What was recorded of a run gives the same verdicts, in every word, without any service.
async fn judged_again(output: &Path, scenarios: usize) -> Result<(), String> {
    let found = evidence::find(output).map_err(|error| error.to_string())?;
    let replayed = gherkin::replay(&found, None).await.map_err(|error| error.to_string())?;
    if replayed.len() != scenarios {
        return Err(format!("{scenarios} scenarios were judged, and {} again", replayed.len()));
    }
    match replayed.iter().find(|one| !one.same) {
        None => Ok(()),
        Some(one) => {
            Err(format!("judged again it is another verdict: {:?}\nwas {:?}", one.outcome.verdict, one.recorded))
        }
    }
}

fn verdict(summary: &Summary, because: &str) -> Result<String, String> {
    let mut seen = Vec::new();
    for outcome in &summary.outcomes {
        match &outcome.verdict {
            Verdict::NotPassed { step, problem: Problem { kind: ProblemKind::Failed, message }, .. } => {
                if message.contains(because) {
                    return Ok(format!(
                        "{} — {step}\n{}",
                        outcome.scenario,
                        message.lines().next().unwrap_or_default()
                    ));
                }
                seen.push(format!("failed, but says nothing of {because:?}: {step}\n{message}"));
            }
            Verdict::NotPassed { step, problem, .. } => seen.push(format!("errored: {step}\n{}", problem.message)),
            Verdict::Passed => seen.push(format!("passed: {}", outcome.scenario)),
        }
    }
    Err(if seen.is_empty() { "no scenario ran".into() } else { seen.join("\n") })
}
