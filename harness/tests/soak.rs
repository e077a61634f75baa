//! What it costs to ask of each request of a soak whether its trace is complete: the wall time of the same load on the same
//! service with exporters on, once with nobody asking. Measures and judges no time, so it is run by hand:
//! `cargo test --release -p tracegate --test soak -- --ignored --nocapture`. The figures stand in `docs/sink.md`.
//!
//! `SOAK_CONFIG` names another configuration than the project's (one whose service is a release build), `SOAK_DEPLOYMENT` its
//! deployment, `SOAK_REQUESTS` how many are sent.

use std::{path::PathBuf, sync::Arc};

use tracegate::{
    config::Config,
    deployment::assembly::Workshop,
    gherkin::{self, Plan},
    report::{Event, Reporter, Verdict},
};

struct Quiet;

impl Reporter for Quiet {
    fn tell(&mut self, _: &Event) {}
}

fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

/// Plays one scenario; its wall time in seconds, without the start of the service.
async fn play(requests: &str, then: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let feature = folder.path().join("soak.feature");
    let text = format!(
        "Feature: soak\n  Scenario: soak\n    When 8 clients send {requests} requests GET /healthcheck, each with its own \
         trace\n    Then {then}\n"
    );
    std::fs::write(&feature, text).unwrap();
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../tracegate.toml");
    let mut config = Config::read(&PathBuf::from(setting("SOAK_CONFIG", usual))).unwrap();
    config.output = folder.path().join("output");
    let mut spec = config.deployments[setting("SOAK_DEPLOYMENT", "process").as_str()].clone();
    spec.patience = std::time::Duration::from_secs(120);
    let plan = Plan {
        workshop: Workshop {
            config: Arc::new(config),
            tracegate: env!("CARGO_BIN_EXE_tracegate").into(),
            tamper: None,
        },
        selection: gherkin::select(&[feature], None).unwrap(),
        deployments: vec![spec],
        unavailable: Vec::new(),
        jobs: 1,
    };
    let summary = gherkin::run(plan, &mut Quiet).await;
    let outcome = summary.outcomes.first().expect("the scenario was played");
    if let Verdict::NotPassed { problem, .. } = &outcome.verdict {
        panic!("{}", problem.message);
    }
    println!("{then}: {:.1} s  {}", outcome.took.as_secs_f64(), outcome.proofs.join("; "));
    outcome.took.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; its figures stand in docs/sink.md"]
async fn asking_of_each_request_costs_little_beside_the_load() {
    let requests = setting("SOAK_REQUESTS", "20000");
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let nobody = play(&requests, "the response status is 200").await;
        let asked = play(&requests, "each request of the soak has a complete, correlated trace").await;
        ratios.push(asked / nobody);
    }
    ratios.sort_by(f64::total_cmp);
    println!("{requests} requests: {:.2} times the load alone (median of three)", ratios[1]);
}
