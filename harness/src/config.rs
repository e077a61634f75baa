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

mod function;
mod judging;
mod upstream;

pub use function::{Extension, Function, Gateway, GatewayKind};
pub use judging::{Canaries, Invariants};
pub use upstream::{Answer, Upstream};

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
    /// Who is signalled when the service is stopped (`process` only). Default `group`.
    pub signal_to: Option<SignalTo>,
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

/// Who of a process deployment gets the signal that stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalTo {
    /// Every process of the group at once, as Ctrl-C and systemd do.
    #[default]
    Group,
    /// The first process alone, as `docker stop` and Kubernetes do: its children's end is its affair.
    Leader,
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

/// When a service counts as started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// `GET` of this target answers with a status below 500.
    Http(String),
    /// A line of its output contains this text.
    Log(String),
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

const fn default_port() -> u16 {
    8080
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
            .chain(config.upstreams.iter().flat_map(|(name, upstream)| {
                upstream.problems().into_iter().map(move |what| format!("[upstreams.{name}] {what}"))
            }))
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

    /// Where a deployment is built and its processes run.
    pub fn directory(&self, deployment: &Deployment) -> PathBuf {
        deployment.directory.as_ref().map_or_else(|| self.root.clone(), |path| self.resolve(path))
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
        // It names a folder of the evidence, and a tag.
        let fits = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
        if !self.name.chars().all(fits) || !self.name.starts_with(|first: char| first.is_alphanumeric() || first == '_')
        {
            problems.push(
                "has a name that is not made of letters, digits, `-`, `_` and `.`, or begins with one of the signs"
                    .into(),
            );
        }
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
        for (key, given) in
            [("workers", self.workers != 1), ("fence", self.fence.is_some()), ("quiet", self.quiet.is_some())]
        {
            // One that does not freeze has no other proof than a silence.
            let proven = key != "quiet" || self.function.freezes();
            if self.kind.is_lambda() && given && proven {
                problems.push(format!("`{key}` is not for a function: the freeze proves that nothing more will come"));
            }
        }
        if !self.kind.is_lambda() && self.gateway != Gateway::default() {
            problems.push(format!("`gateway` is for functions; a {} speaks HTTP itself", self.kind));
        }
        problems.extend(self.gateway.problems());
        if !self.wrap.is_empty() && self.kind.is_container() {
            problems.push("`wrap` is for processes; put the wrapper into the image".into());
        }
        if self.signal_to.is_some() && self.kind != Kind::Process {
            let what = match self.kind {
                Kind::Container => "an engine signals the first process alone",
                _ => "an environment is shut down as Lambda does it",
            };
            problems.push(format!("`signal-to` is for kind process; {what}"));
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
        for text in self.env.values().chain(&self.command).chain(&self.args).chain(of_extensions) {
            problems.extend(misspelt(text));
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
}

/// What `{…}` stands for by itself.
const PLACEHOLDERS: [&str; 3] = ["port", "otlp", "otlp.authority"];

/// A placeholder that stands for nothing and is nearly one that does. Others are the program's own affair.
fn misspelt(text: &str) -> Option<String> {
    let words = text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(word, _)| word);
    // Letters in another order or case, one too many or one too few: `{part}` is another word.
    let slip = |word: &str, known: &str| {
        let word = word.to_lowercase();
        let distance = strsim::damerau_levenshtein(&word, known);
        distance == 0 || (distance == 1 && (word.len() != known.len() || strsim::levenshtein(&word, known) == 2))
    };
    let like = |word: &str| PLACEHOLDERS.into_iter().find(|known| word != *known && slip(word, known));
    let of_another = |word: &str| PLACEHOLDERS.contains(&word) || word.contains(['"', ' ', ':']);
    let found = words.filter(|word| !of_another(word)).find_map(|word| Some((word, like(word)?)));
    found.map(|(word, known)| format!("{text:?}: {{{word}}} stands for nothing, {{{known}}} would"))
}

#[cfg(test)]
mod tests;
