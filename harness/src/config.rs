//! `tracegate.toml`: the deployments of a service, and how each is started and reached.
//!
//! Relative paths are relative to the folder of the file. In `env` and `args`, `{port}` stands for the port that the
//! service must listen on, `{otlp}` for the URL of the OTLP endpoint (`{otlp.authority}` for its `host:port`), and
//! `{upstream.NAME}` for the URL of a stand-in declared under `[upstreams.NAME]`, and `{extension.NAME.port}` for a free
//! port on which an extension of the deployment can listen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::capture::Retention;

mod judging;

pub use judging::{Canaries, Invariants};

/// Why a configuration cannot be used. The message names the file, the key and the way out.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error("cannot read {}", path.display())]
    #[diagnostic(help("create a tracegate.toml, or name one with --config; the README has an example"))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML, or a key or value is not known.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// The values do not fit together.
    #[error("{}: {}", path.display(), problems.join("; "))]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// All problems.
        problems: Vec<String>,
    },
}

/// A whole `tracegate.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Folder of the file; everything relative is relative to it.
    #[serde(skip)]
    pub root: PathBuf,
    /// Folder with the feature files. Default `features`.
    #[serde(default = "default_features")]
    pub features: PathBuf,
    /// Folder for evidence and reports. Default `target/tracegate`.
    #[serde(default = "default_output")]
    pub output: PathBuf,
    /// Environment variables of every deployment; a deployment's own `env` wins.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the sink demands of exporters.
    #[serde(default)]
    pub sink: Sink,
    /// How strict the invariants are, everywhere.
    #[serde(default)]
    pub invariants: Invariants,
    /// What is planted in every request; a deployment's own `canaries` win.
    #[serde(default)]
    pub canaries: Canaries,
    /// HTTP servers that stand in for what the service calls, by name.
    #[serde(default)]
    pub upstreams: BTreeMap<String, Upstream>,
    /// The ways in which the service runs, by name.
    pub deployments: BTreeMap<String, Deployment>,
}

fn default_features() -> PathBuf {
    "features".into()
}

fn default_output() -> PathBuf {
    "target/tracegate".into()
}

/// One way in which the service runs, and how it is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Deployment {
    /// The key in `[deployments.NAME]`.
    #[serde(skip)]
    pub name: String,
    /// Process or container, HTTP server or function.
    pub kind: Kind,
    /// Program and arguments (process kinds); a container's command (container kinds, with `image` or `dockerfile`).
    #[serde(default)]
    pub command: Vec<String>,
    /// A binary target of the Cargo workspace, built before the run.
    pub cargo: Option<CargoBinary>,
    /// An executable file. Container kinds put it into an image of its own, so it must be linked statically.
    pub binary: Option<PathBuf>,
    /// An image that the engine has or can pull (container kinds).
    pub image: Option<String>,
    /// A Dockerfile to build (container kinds).
    pub dockerfile: Option<PathBuf>,
    /// Build context of `dockerfile`. Default: its folder.
    pub context: Option<PathBuf>,
    /// Command to run once before the first start, in `directory`.
    #[serde(default)]
    pub build: Vec<String>,
    /// Program and arguments in front of what is run (process kinds): a tracer, a supervisor, `opentelemetry-instrument`.
    #[serde(default)]
    pub wrap: Vec<String>,
    /// Arguments behind the program of `cargo`, `binary` or `image`.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables of the service. Nothing is added but the OTLP endpoint (and, for a function, what Lambda
    /// sets).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory. Default: the folder of `tracegate.toml`.
    pub directory: Option<PathBuf>,
    /// Port on which the service listens inside its container. Default 8080.
    #[serde(default = "default_port")]
    pub port: u16,
    /// When the service counts as started. A function is ready when its runtime asks for the first event.
    pub ready: Option<Ready>,
    /// How long starting may take. Default 30 s.
    #[serde(default = "default_start_timeout", deserialize_with = "duration")]
    pub start_timeout: Duration,
    /// How long an expectation waits for telemetry before it fails. Default 20 s: SDKs export spans every 5 s unless they
    /// are told otherwise, and a proof of completeness may need three of their rounds.
    #[serde(default = "default_patience", deserialize_with = "duration")]
    pub patience: Duration,
    /// How long a client waits for an answer. Default 10 s.
    #[serde(default = "default_request_timeout", deserialize_with = "duration")]
    pub request_timeout: Duration,
    /// Last resort where no fence comes back: nothing more is expected once no span and no log record has been exported
    /// for this long. Not set by default, because silence proves little; the verdict says that it rests on it.
    #[serde(default, deserialize_with = "some_duration")]
    pub quiet: Option<Duration>,
    /// `GET` target of the requests that prove completeness. Default: the target of `ready.http`, else `/`.
    pub fence: Option<String>,
    /// Worker processes that the service runs; each must show itself in the resource. Default 1.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// The gateway in front of a function.
    #[serde(default)]
    pub gateway: Gateway,
    /// The function, for the Lambda kinds.
    #[serde(default)]
    pub function: Function,
    /// External extensions of the function's execution environment, started before its runtime. On `lambda-container` they
    /// are put into the function's image, at `/opt/extensions/NAME`, and run in its container.
    #[serde(default)]
    pub extensions: Vec<Extension>,
    /// Own words that scenarios can restrict themselves to by tag.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// Regular expressions; lines, and OTLP log records by their body, that match are left out of every log expectation
    /// (background work, banners).
    #[serde(default)]
    pub ignore_lines: Vec<String>,
    /// What is planted in every request. Default: `[canaries]`.
    pub canaries: Option<Canaries>,
    /// `[invariants]`.
    #[serde(skip)]
    pub invariants: Invariants,
}

/// Process or container, HTTP server or function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process that serves HTTP.
    Process,
    /// A container that serves HTTP.
    Container,
    /// A process that speaks the Lambda Runtime API.
    LambdaProcess,
    /// A container that speaks the Lambda Runtime API.
    LambdaContainer,
}

impl Kind {
    /// Whether it is a function behind a gateway.
    pub const fn is_lambda(self) -> bool {
        matches!(self, Self::LambdaProcess | Self::LambdaContainer)
    }

    /// Whether it needs a container engine.
    pub const fn is_container(self) -> bool {
        matches!(self, Self::Container | Self::LambdaContainer)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::LambdaProcess => "lambda-process",
            Self::LambdaContainer => "lambda-container",
        })
    }
}

/// A binary target of a Cargo workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CargoBinary {
    /// Package name.
    pub package: String,
    /// Binary target. Default: the package's name.
    pub bin: Option<String>,
}

/// An external extension: a process beside the runtime that speaks the Lambda Extensions API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Extension {
    /// The name that it registers with. Default: its program's file name, as on Lambda.
    pub name: Option<String>,
    /// Program and arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// A binary target of the Cargo workspace, built before the run.
    pub cargo: Option<CargoBinary>,
    /// Environment variables besides the function's. The OTLP endpoint is the sink's again, unless set here.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl Extension {
    /// The name that it registers with.
    pub fn name(&self) -> &str {
        let program = self.command.first().map(|program| program.rsplit('/').next().unwrap_or(program));
        let cargo = self.cargo.as_ref().map(|cargo| cargo.bin.as_ref().unwrap_or(&cargo.package).as_str());
        self.name.as_deref().or(cargo).or(program).unwrap_or_default()
    }
}

/// When a service counts as started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// `GET` of this target answers with a status below 500.
    Http(String),
    /// A line of its output contains this text.
    Log(String),
}

/// Which gateway invokes a function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Gateway {
    /// The event's form. Default `rest-api`.
    pub kind: GatewayKind,
    /// Stage name (API Gateway kinds). Default `prod` of a REST API, `$default` of an HTTP API.
    pub stage: Option<String>,
    /// Path of the resource or route that the function stands behind (API Gateway kinds). Default `/{proxy+}` of a REST
    /// API, the route `$default` of an HTTP API.
    pub resource: Option<String>,
    /// Media types that a REST API counts as binary; `*/*` stands for all. Default none, as in AWS.
    pub binary_media_types: Vec<String>,
    /// How long the gateway waits for the function. Default 29 s of a REST API, 30 s of an HTTP API; a load balancer and a
    /// function URL wait as long as the function may run.
    #[serde(deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
}

impl Gateway {
    fn problems(&self) -> Vec<String> {
        let kind = self.kind;
        let mut problems = Vec::new();
        for (key, given, fits) in [
            ("stage", self.stage.is_some(), kind.is_api_gateway()),
            ("resource", self.resource.is_some(), kind.is_api_gateway()),
            ("binary-media-types", !self.binary_media_types.is_empty(), kind == GatewayKind::RestApi),
        ] {
            if given && !fits {
                problems.push(format!("`gateway.{key}` does not fit gateway kind {kind}"));
            }
        }
        if self.resource.as_ref().is_some_and(|resource| !resource.starts_with('/')) {
            problems.push("`gateway.resource` must begin with `/`".into());
        }
        problems
    }
}

/// The event's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayKind {
    /// API Gateway REST API, Lambda proxy integration, payload format 1.0.
    #[default]
    RestApi,
    /// API Gateway HTTP API, Lambda proxy integration, payload format 2.0.
    HttpApi,
    /// Application Load Balancer with the function as target.
    Alb,
    /// The same, with multi-value headers on in the target group.
    AlbMultiValue,
    /// The function's own URL.
    FunctionUrl,
}

impl GatewayKind {
    /// Whether it is one of API Gateway, with stages and routes.
    pub const fn is_api_gateway(self) -> bool {
        matches!(self, Self::RestApi | Self::HttpApi)
    }

    /// The words that scenarios can restrict themselves to by tag.
    pub const fn labels(self) -> &'static [&'static str] {
        match self {
            Self::RestApi => &["rest-api"],
            Self::HttpApi => &["http-api"],
            Self::Alb => &["alb"],
            Self::AlbMultiValue => &["alb", "alb-multi-value"],
            Self::FunctionUrl => &["function-url"],
        }
    }
}

impl fmt::Display for GatewayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.labels()[self.labels().len() - 1])
    }
}

/// A function's settings, as Lambda shows them to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Function {
    /// Function name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Handler, `_HANDLER`.
    pub handler: String,
    /// Memory in MB.
    pub memory: u32,
    /// Limit of one invocation.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Limit of Init; Lambda's is 10 s, and longer with provisioned concurrency. An Init that takes longer is ended, and
    /// made again at the first invocation within that one's limit.
    #[serde(deserialize_with = "duration")]
    pub init_timeout: Duration,
    /// How many execution environments there may be at the same time, each with one invocation at a time. With one, the
    /// default, requests that are sent at once run one after the other; with more, a request that finds no free
    /// environment gets a new one, a cold start, as on Lambda.
    pub environments: usize,
    /// Makes the function one on Lambda Managed Instances: an environment has so many invocations at the same time,
    /// `AWS_LAMBDA_MAX_CONCURRENCY`, and is never frozen.
    pub concurrency: Option<usize>,
    /// Whether the execution environment is frozen between invocations, as Lambda does. Off, nothing proves that an
    /// invocation's telemetry is complete.
    pub freeze: bool,
    /// AWS region.
    pub region: String,
    /// AWS account, 12 digits.
    pub account: String,
    /// Whether Lambda's active tracing is on; off means `Sampled=0` towards the runtime.
    pub tracing: bool,
}

impl Function {
    /// Whether its environments are frozen between invocations.
    pub const fn freezes(&self) -> bool {
        self.freeze && self.concurrency.is_none()
    }

    /// `AWS_LAMBDA_INITIALIZATION_TYPE`.
    pub const fn initialization_type(&self) -> &'static str {
        if self.concurrency.is_some() { "lambda-managed-instances" } else { "on-demand" }
    }
}

impl Default for Function {
    fn default() -> Self {
        Self {
            name: "function".into(),
            version: "$LATEST".into(),
            handler: "bootstrap".into(),
            memory: 512,
            timeout: Duration::from_secs(30),
            init_timeout: Duration::from_secs(10),
            environments: 1,
            concurrency: None,
            freeze: true,
            region: "us-west-2".into(),
            account: "123456789012".into(),
            tracing: true,
        }
    }
}

/// What the sink of every deployment demands of exporters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Sink {
    /// Headers that every export request must have, with these values.
    pub require_headers: BTreeMap<String, String>,
    /// Origins whose pages may export; `*` stands for all.
    pub cors_origins: Vec<String>,
    /// Most MiB of telemetry and lines that are kept of a deployment. Default 2048. Beyond it the oldest is dropped, and no
    /// scenario is judged any more.
    pub retention_mib: Option<NonZeroUsize>,
    /// How long telemetry and lines are kept at most. Default: as long as the deployment runs.
    #[serde(deserialize_with = "some_duration")]
    pub retention_age: Option<Duration>,
}

impl Sink {
    /// How much the store of a deployment keeps.
    pub fn retention(&self) -> Retention {
        let default = Retention::default();
        let bytes = self.retention_mib.map_or(default.bytes, |mib| mib.get().saturating_mul(1 << 20));
        Retention { bytes, age: self.retention_age.or(default.age) }
    }

    /// The settings of a sink that demands this; the error names what is no header. Values are never repeated.
    pub fn settings(&self) -> Result<crate::capture::sink::Settings, String> {
        let header = |(name, value): (&String, &String)| {
            let parsed: HeaderName =
                name.parse().map_err(|_| format!("[sink] require-headers: {name:?} is no header name"))?;
            let mut value: HeaderValue =
                value.parse().map_err(|_| format!("[sink] require-headers: the value of {name} is no header value"))?;
            value.set_sensitive(true);
            Ok::<_, String>((parsed, value))
        };
        let origin =
            |origin: &String| origin.parse().map_err(|_| format!("[sink] cors-origins: {origin:?} is no header value"));
        Ok(crate::capture::sink::Settings {
            required_headers: self.require_headers.iter().map(header).collect::<Result<_, _>>()?,
            cors_origins: self.cors_origins.iter().map(origin).collect::<Result<_, _>>()?,
            ..Default::default()
        })
    }
}

/// An HTTP server that stands in for what the service calls, with fixed answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Upstream {
    /// Tried in order; the first that fits answers. A request that none fits is answered with 404.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// One fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Answer {
    /// Method. Default: any.
    pub method: Option<String>,
    /// Path, without the query. A trailing `*` stands for any rest.
    pub path: String,
    /// Status. Default 200.
    #[serde(default = "default_status")]
    pub status: u16,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body.
    #[serde(default)]
    pub body: String,
}

const fn default_port() -> u16 {
    8080
}

const fn default_status() -> u16 {
    200
}

const fn default_workers() -> usize {
    1
}

const fn default_start_timeout() -> Duration {
    Duration::from_secs(30)
}

const fn default_patience() -> Duration {
    Duration::from_secs(20)
}

const fn default_request_timeout() -> Duration {
    Duration::from_secs(10)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let invalid = || de::Error::custom(format!("{text:?} is not a duration like \"500ms\", \"10s\" or \"2m\""));
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| invalid())?;
    Duration::try_from(parsed).map_err(|_| invalid())
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let root = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = root.canonicalize().map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, &root, path)
    }

    /// Checks the text of a file that stands in `root`; `path` is for messages.
    pub fn parse(text: &str, root: &Path, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        config.root = root.to_owned();
        for (name, deployment) in &mut config.deployments {
            deployment.name.clone_from(name);
            deployment.invariants = config.invariants.clone();
            for (key, value) in &config.env {
                deployment.env.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let problems: Vec<String> = config
            .deployments
            .values()
            .flat_map(|deployment| {
                deployment
                    .problems(&config.upstreams)
                    .into_iter()
                    .map(|what| format!("[deployments.{}] {what}", deployment.name))
            })
            .chain(config.sink.settings().err())
            .chain(config.invariants.problems())
            .chain(config.canaries.problems())
            .chain(config.deployments.is_empty().then(|| "no deployment is configured".to_owned()))
            .collect();
        for deployment in config.deployments.values_mut() {
            deployment.canaries.get_or_insert_with(|| config.canaries.clone());
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Inconsistent { path: path.to_owned(), problems })
        }
    }

    /// A path of the configuration, absolute.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

impl Deployment {
    /// Words that a scenario's tags can restrict it to: the kind, `http` or `lambda` and `gateway` with the
    /// gateway's kind, `workers`, the name, and [`labels`](Self::labels).
    pub fn all_labels(&self) -> BTreeSet<String> {
        let mut labels = self.labels.clone();
        labels.insert(self.name.clone());
        labels.insert(self.kind.to_string());
        labels.insert(if self.kind.is_container() { "container" } else { "process" }.into());
        if self.kind.is_lambda() {
            labels.insert("lambda".into());
            labels.insert("gateway".into());
            labels.extend(self.gateway.kind.labels().iter().map(|&label| label.to_owned()));
        } else {
            labels.insert("http".into());
        }
        if self.workers > 1 {
            labels.insert("workers".into());
        }
        labels
    }

    /// What is planted in its requests.
    pub fn canaries(&self) -> Canaries {
        self.canaries.clone().unwrap_or_default()
    }

    /// What is built before the first start, if anything: `cargo package`, or the build command.
    pub fn builds(&self) -> Option<String> {
        let cargo = self.cargo.as_ref().map(|cargo| format!("cargo package {}", cargo.package));
        cargo.or_else(|| (!self.build.is_empty()).then(|| self.build.join(" ")))
    }

    /// Target of the requests that prove completeness.
    pub fn fence_target(&self) -> &str {
        match (&self.fence, &self.ready) {
            (Some(target), _) | (None, Some(Ready::Http(target))) => target,
            _ => "/",
        }
    }

    fn problems(&self, upstreams: &BTreeMap<String, Upstream>) -> Vec<String> {
        let mut problems: Vec<String> = self.canaries.iter().flat_map(Canaries::problems).collect();
        let sources = [
            ("command", !self.command.is_empty() && self.image.is_none() && self.dockerfile.is_none()),
            ("cargo", self.cargo.is_some()),
            ("binary", self.binary.is_some()),
            ("image", self.image.is_some()),
            ("dockerfile", self.dockerfile.is_some()),
        ];
        let given: Vec<_> = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let allowed: &[_] = if self.kind.is_container() {
            &["cargo", "binary", "image", "dockerfile"]
        } else {
            &["command", "cargo", "binary"]
        };
        match given.as_slice() {
            [one] if allowed.contains(one) => {}
            [] => problems.push(format!("says nothing to run; a {} takes one of {}", self.kind, allowed.join(", "))),
            [one] => {
                problems.push(format!("{one} does not fit kind {}; it takes one of {}", self.kind, allowed.join(", ")))
            }
            several => problems.push(format!("{} exclude each other", several.join(" and "))),
        }
        if !self.kind.is_lambda() && self.ready.is_none() {
            problems.push("has no `ready`: { http = \"/path\" } or { log = \"text\" }".into());
        }
        if self.kind.is_lambda() && self.ready.is_some() {
            problems.push("`ready` is not for a function: it is ready when it asks for the first event".into());
        }
        if !self.kind.is_lambda() && self.gateway != Gateway::default() {
            problems.push(format!("`gateway` is for functions; a {} speaks HTTP itself", self.kind));
        }
        problems.extend(self.gateway.problems());
        if !self.wrap.is_empty() && self.kind.is_container() {
            problems.push("`wrap` is for processes; put the wrapper into the image".into());
        }
        if self.workers == 0 {
            problems.push("`workers` must be at least 1".into());
        }
        for (key, target) in [
            ("fence", self.fence.as_deref()),
            (
                "ready.http",
                match &self.ready {
                    Some(Ready::Http(target)) => Some(target.as_str()),
                    _ => None,
                },
            ),
        ] {
            if target.is_some_and(|target| !target.starts_with('/')) {
                problems.push(format!("`{key}` must begin with `/`"));
            }
        }
        problems.extend(self.extension_problems());
        if self.function.environments == 0 {
            problems.push("`function.environments` must be at least 1".into());
        }
        if self.function.concurrency == Some(0) {
            problems
                .push("`function.concurrency` must be at least 1; leave it out for one invocation at a time".into());
        }
        for pattern in &self.ignore_lines {
            if let Err(error) = regex::Regex::new(pattern) {
                problems.push(format!("`ignore-lines` has {pattern:?}: {error}"));
            }
        }
        let of_extensions =
            self.extensions.iter().flat_map(|extension| extension.env.values().chain(&extension.command));
        for text in self.env.values().chain(&self.args).chain(of_extensions) {
            if self.function.environments > 1 && text.contains("{extension.") {
                problems.push(format!(
                    "{text:?} is one port, and `function.environments` are {}: their extensions cannot share it",
                    self.function.environments
                ));
            }
            for (at, found) in text.match_indices("{extension.") {
                let name = text[at + found.len()..].split_once(".port}").map_or("", |(name, _)| name);
                if !self.extensions.iter().any(|extension| extension.name() == name) {
                    problems
                        .push(format!("{text:?} names no extension of this deployment; write {{extension.NAME.port}}"));
                }
            }
            for (_, rest) in text.match_indices("{upstream.").map(|(at, found)| (at, &text[at + found.len()..])) {
                let name = rest.split('}').next().unwrap_or_default();
                if !upstreams.contains_key(name) {
                    problems.push(format!("{text:?} names an upstream that is not declared: {name:?}"));
                }
            }
        }
        problems
    }

    fn extension_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.extensions.is_empty() && !self.kind.is_lambda() {
            problems.push(format!("`extensions` are for functions, and a {} is none", self.kind));
        }
        if !self.extensions.is_empty() && (self.image.is_some() || self.dockerfile.is_some()) {
            problems.push(
                "`extensions` stand in one image with the function, which is made from `cargo` or `binary`; \
                 `image` and `dockerfile` exclude them"
                    .into(),
            );
        }
        // "Quotas" of the Extensions API.
        if self.extensions.len() > 10 {
            problems.push(format!("`extensions` has {}; Lambda takes at most 10", self.extensions.len()));
        }
        let mut names = BTreeSet::new();
        for extension in &self.extensions {
            let name = extension.name();
            match (extension.command.is_empty(), &extension.cargo) {
                (true, None) => problems.push("an extension says nothing to run; it takes `command` or `cargo`".into()),
                (false, Some(_)) => problems.push(format!("extension {name:?}: command and cargo exclude each other")),
                _ => {}
            }
            if self.kind.is_container() && (name.contains('/') || name.chars().any(char::is_control)) {
                problems.push(format!("extension {name:?}: its `name` is a file name in the image and has no `/`"));
            }
            if !names.insert(name) {
                problems.push(format!("two extensions are named {name:?}; give one another `name`"));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests;
