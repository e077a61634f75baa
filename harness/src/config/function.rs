//! A function's settings: the function itself, its extensions, and the gateway in front of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::Deserialize;

use super::{CargoBinary, Deployment, duration, some_duration};

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
    pub(super) fn problems(&self) -> Vec<String> {
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

impl Deployment {
    /// What is wrong with its extensions, each with the way out.
    pub(super) fn extension_problems(&self) -> Vec<String> {
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
