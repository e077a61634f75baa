//! `tracegate run`.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use miette::{IntoDiagnostic, WrapErr};

use crate::{
    config::Config,
    deployment::{assembly::Workshop, container},
    evidence,
    gherkin::{self, Plan},
    report::{Event, Exit, Files, Format, GitHub, Reporter, Summary, Terminal},
};

/// Arguments of `tracegate run`.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// Feature files, also with the line of a scenario (a.feature:12), and folders [default: `features` of the configuration]
    pub features: Vec<PathBuf>,
    /// Configuration file
    #[arg(long, default_value = "tracegate.toml")]
    pub config: PathBuf,
    /// Run on this deployment only; may be given several times
    #[arg(long, value_name = "NAME")]
    pub deployment: Vec<String>,
    /// Run only scenarios with fitting tags, as in "@gateway and not @slow"
    #[arg(long, value_name = "EXPR")]
    pub tags: Option<String>,
    /// Where evidence and the HTML report are written [default: `output` of the configuration]
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write a report for programs, in JSON; `tracegate schema` prints its schema
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Annotate failed steps and write the job's summary, as GitHub Actions has them [default: on GitHub Actions]
    #[arg(long, env = "GITHUB_ACTIONS", hide_env = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub github: bool,
    /// Make it an error when deployments of this kind cannot run here; may be given several times
    #[arg(long, value_name = "KIND", env = "TRACEGATE_REQUIRE", value_delimiter = ',', value_parser = ["container"])]
    pub require: Vec<String>,
    /// How many scenarios run at once on a deployment
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
}

/// The exit code with the report that explains it.
pub type Ended = Result<Exit, (Exit, miette::Report)>;

impl RunArguments {
    /// Runs the scenarios and tells the terminal.
    pub fn run(self) -> Ended {
        let runtime = runtime()?;
        let tracegate = std::env::current_exe()
            .into_diagnostic()
            .wrap_err("cannot tell which file this program is")
            .map_err(|report| (Exit::Environment, report))?;
        let mut terminal = Terminal::stdout();
        let stop = async { format!("interrupted by {}; what had been started was ended", interrupted().await) };
        let ended = runtime.block_on(self.run_until(tracegate, None, &mut terminal, stop));
        // Ends what is still being ended (containers are removed in the background), but waits for nobody.
        runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        let summary = ended?;
        match &summary.interrupted {
            Some(why) => Err((summary.exit(), miette::miette!("{why}"))),
            None => Ok(summary.exit()),
        }
    }

    /// Runs the scenarios and tells `reporter`. `tracegate` is the executable that containers use as neighbour;
    /// `tamper` changes what is received, for tests of the gate itself.
    ///
    /// # Errors
    /// With the exit code that fits: usage or environment.
    pub async fn run_with(
        &self,
        tracegate: PathBuf,
        tamper: Option<Arc<dyn crate::capture::Tamper>>,
        reporter: &mut dyn Reporter,
    ) -> Result<Summary, (Exit, miette::Report)> {
        self.run_until(tracegate, tamper, reporter, std::future::pending()).await
    }

    async fn run_until(
        &self,
        tracegate: PathBuf,
        tamper: Option<Arc<dyn crate::capture::Tamper>>,
        reporter: &mut dyn Reporter,
        stop: impl Future<Output = String>,
    ) -> Result<Summary, (Exit, miette::Report)> {
        let usage = |report: miette::Report| (Exit::Usage, report);
        let mut config = Config::read(&self.config).map_err(|error| usage(error.into()))?;
        if let Some(output) = &self.output {
            config.output = std::path::absolute(output).into_diagnostic().map_err(usage)?;
        }
        let paths =
            if self.features.is_empty() { vec![config.resolve(&config.features)] } else { self.features.clone() };
        let selection = gherkin::select(&paths, self.tags.as_deref()).map_err(|error| usage(error.into()))?;
        let mut chosen = Vec::new();
        for name in &self.deployment {
            let found = config.deployments.get(name).ok_or_else(|| {
                let names: Vec<_> = config.deployments.keys().map(String::as_str).collect();
                usage(miette::miette!(
                    help = format!("configured are: {}", names.join(", ")),
                    "{} has no deployment {name:?}",
                    self.config.display()
                ))
            })?;
            chosen.push(found.clone());
        }
        let named = !chosen.is_empty();
        if !named {
            chosen = config.deployments.values().cloned().collect();
        }
        let mut unavailable = Vec::new();
        if chosen.iter().any(|deployment| deployment.kind.is_container())
            && let Err(error) = container::engine_available().await
        {
            let reason = crate::report::Problem::from_error(&error).message.replace('\n', "; ");
            if named || self.require.iter().any(|kind| kind == "container") {
                return Err((Exit::Environment, miette::miette!("containers are required here, but {reason}")));
            }
            let (containers, rest) = chosen.into_iter().partition(|deployment| deployment.kind.is_container());
            chosen = rest;
            let missed: Vec<crate::config::Deployment> = containers;
            unavailable = missed
                .into_iter()
                .map(|deployment| {
                    let reason = format!("{reason} (with a Docker engine it runs too; --require container insists)");
                    (deployment.name, reason)
                })
                .collect();
        }
        let claim = evidence::claim(&config.resolve(&config.output));
        let _claim = claim.map_err(|error| (Exit::Environment, error.into()))?;
        let plan = Plan {
            workshop: Workshop { config: Arc::new(config), tracegate, tamper },
            selection,
            deployments: chosen,
            unavailable,
            jobs: usize::from(self.jobs),
        };
        let mut files =
            Files::with_page().with(Format::Junit, self.junit.as_deref()).with(Format::Json, self.json.as_deref());
        let mut github;
        let reporter = if self.github {
            github = GitHub::of_environment(reporter);
            &mut github
        } else {
            reporter
        };
        let mut all = Both(&mut files, reporter);
        let summary = gherkin::run_until(plan, &mut all, stop).await;
        all.tell(&Event::Finished(summary.clone()));
        files.finish().into_diagnostic().map_err(|report| (summary.exit_unreported(), report))?;
        Ok(summary)
    }
}

/// Files first, so that whoever reads that the run is over finds them.
struct Both<'a>(&'a mut Files, &'a mut dyn Reporter);

impl Reporter for Both<'_> {
    fn tell(&mut self, event: &Event) {
        self.0.tell(event);
        self.1.tell(event);
    }
}

/// The runtime that a command runs on.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, (Exit, miette::Report)> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.into_diagnostic().map_err(|report| (Exit::Environment, report))
}

async fn interrupted() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = tokio::signal::ctrl_c() => "SIGINT",
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
            "SIGINT"
        }
    }
}
