//! Settings from the environment, all checked before anything starts.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use tracing::Level;
use url::Url;

use crate::telemetry::settings::TelemetrySettings;

/// Environment variables by name. An empty value counts as not set, as OpenTelemetry has it.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; those that are not UTF-8 are left out.
    pub fn of_this_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The given variables and no others.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The value of a variable; `None` if it is not set or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether any variable whose name begins so is set.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.with_prefix(prefix).next().is_some()
    }

    /// The variables whose names begin so, with their values.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// What is wrong with the settings, collected.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Adds `name: problem`; the same one twice counts once.
    pub fn add(&mut self, name: &str, problem: impl fmt::Display) {
        let message = format!("{name}: {problem}");
        if !self.0.contains(&message) {
            self.0.push(message);
        }
    }

    /// All messages, in the order in which they were found.
    pub fn into_messages(self) -> Vec<String> {
        self.0
    }
}

/// All that is wrong with the settings, in one message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError {
    /// One message per problem, each beginning with the variable's name.
    pub problems: Vec<String>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} wrong in the settings:",
            match self.problems.len() {
                1 => "1 thing is".to_owned(),
                n => format!("{n} things are"),
            }
        )?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Where the files live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageSettings {
    /// In this process, gone with it.
    Memory,
    /// In a directory (`FILES_DIRECTORY`).
    Directory(PathBuf),
    /// In a bucket.
    S3 {
        /// `S3_BUCKET_NAME`
        bucket: String,
        /// `S3_OBJECT_PREFIX` without slashes at its ends; empty for none.
        prefix: String,
        /// The `AWS_*` variables.
        aws: Vec<(String, String)>,
    },
}

/// The Lambda function that this process is, from the variables that Lambda sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LambdaFunction {
    /// `AWS_LAMBDA_FUNCTION_NAME`
    pub name: String,
    /// `AWS_LAMBDA_FUNCTION_VERSION`
    pub version: String,
    /// `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`, in bytes.
    pub memory_bytes: i64,
    /// `AWS_REGION`, else `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// `AWS_LAMBDA_LOG_STREAM_NAME`
    pub log_stream: Option<String>,
}

/// Everything that can be set from outside.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ROOT_PATH`: path prefix under which callers know this API; empty or `/…` without a slash
    /// at its end.
    pub root_path: String,
    /// `ENVIRONMENT`, e.g. `production`.
    pub environment: String,
    /// Origins that browsers may call from.
    pub cors_origins: Vec<String>,
    /// `DEV_HOST`: address to listen on.
    pub host: IpAddr,
    /// `DEV_PORT`: port to listen on; 0 for any free one.
    pub port: u16,
    /// `WEB_CONCURRENCY`: worker processes.
    pub workers: u16,
    /// `LOG_LEVEL`: least severe level that is written.
    pub log_level: Level,
    /// `RUST_LOG`: filter for what libraries say.
    pub library_filter: Option<String>,
    /// `SHUTDOWN_TIMEOUT`: how long requests may take to finish after a signal to stop.
    pub shutdown_timeout: Duration,
    /// Where the files live.
    pub storage: StorageSettings,
    /// The function, when `AWS_LAMBDA_RUNTIME_API` is set.
    pub lambda: Option<LambdaFunction>,
    /// The `OTEL_*` variables.
    pub telemetry: TelemetrySettings,
}

impl Settings {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// Every problem there is, not only the first.
    pub fn from_environment(env: &Environment) -> Result<Self, SettingsError> {
        let mut problems = Problems::default();
        let found = &mut problems;
        let lambda = lambda(env, found);
        let settings = Self {
            root_path: root_path(env, found),
            environment: env.get("ENVIRONMENT").unwrap_or("development").to_owned(),
            cors_origins: cors_origins(env, found),
            host: parsed(env, "DEV_HOST", "no IP address", found).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port: parsed(env, "DEV_PORT", "no port from 0 to 65535", found).unwrap_or(8000),
            workers: workers(env, found),
            log_level: parsed(env, "LOG_LEVEL", "none of error, warn, info, debug and trace", found)
                .unwrap_or(Level::INFO),
            library_filter: library_filter(env, found),
            shutdown_timeout: Duration::from_secs(
                parsed(env, "SHUTDOWN_TIMEOUT", "no whole number of seconds", found).unwrap_or(10),
            ),
            storage: storage(env, found),
            telemetry: TelemetrySettings::from_environment(env, lambda.is_some(), found),
            lambda,
        };
        match problems.into_messages() {
            none if none.is_empty() => Ok(settings),
            problems => Err(SettingsError { problems }),
        }
    }
}

fn parsed<T: std::str::FromStr>(env: &Environment, name: &str, not: &str, problems: &mut Problems) -> Option<T> {
    let value = env.get(name)?;
    let parsed = value.parse().ok();
    if parsed.is_none() {
        problems.add(name, format!("`{value}` is {not}"));
    }
    parsed
}

/// More worker processes than this are a mistake.
pub const MAX_WORKERS: u16 = 256;

fn workers(env: &Environment, problems: &mut Problems) -> u16 {
    let name = "WEB_CONCURRENCY";
    match env.get(name).map(str::parse) {
        None => 1,
        Some(Ok(count)) if (1..=MAX_WORKERS).contains(&count) => count,
        Some(_) => {
            problems.add(name, format!("is no number from 1 to {MAX_WORKERS}"));
            1
        }
    }
}

fn root_path(env: &Environment, problems: &mut Problems) -> String {
    let path = env.get("ROOT_PATH").unwrap_or_default().trim_end_matches('/');
    let is_path = path.parse::<http::Uri>().is_ok_and(|uri| uri.path() == path);
    let is_rooted = path.starts_with('/') && is_path;
    if !path.is_empty() && !is_rooted {
        problems.add("ROOT_PATH", format!("`{path}` is no path beginning with /"));
    }
    path.to_owned()
}

fn cors_origins(env: &Environment, problems: &mut Problems) -> Vec<String> {
    let port =
        parsed(env, "FRONTEND_DEV_PORT", "no port from 1 to 65535", problems).map_or(3000, std::num::NonZeroU16::get);
    let mut origins = vec![format!("http://localhost:{port}")];
    if let Some(origin) = env.get("FRONTEND_CORS_URL") {
        match Url::parse(origin) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                origins.push(origin.to_owned());
            }
            _ => problems.add("FRONTEND_CORS_URL", format!("`{origin}` is no http:// or https:// URL")),
        }
    }
    origins
}

fn library_filter(env: &Environment, problems: &mut Problems) -> Option<String> {
    let filter = env.get("RUST_LOG")?;
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(filter) {
        problems.add("RUST_LOG", error);
    }
    Some(filter.to_owned())
}

fn storage(env: &Environment, problems: &mut Problems) -> StorageSettings {
    let directory = env.get("FILES_DIRECTORY");
    let Some(bucket) = env.get("S3_BUCKET_NAME") else {
        if env.get("S3_OBJECT_PREFIX").is_some() {
            problems.add("S3_OBJECT_PREFIX", "is set, but S3_BUCKET_NAME is not");
        }
        return match directory {
            Some(directory) => {
                if !std::path::Path::new(directory).is_dir() {
                    problems.add("FILES_DIRECTORY", format!("`{directory}` is no directory"));
                }
                StorageSettings::Directory(directory.into())
            }
            None => StorageSettings::Memory,
        };
    };
    if directory.is_some() {
        problems.add("FILES_DIRECTORY", "is set, and S3_BUCKET_NAME is too: files live in one place");
    }
    let is_name = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !is_name {
        problems.add("S3_BUCKET_NAME", format!("`{bucket}` is no bucket name"));
    }
    let prefix = env.get("S3_OBJECT_PREFIX").unwrap_or_default().trim_matches('/');
    if object_store::path::Path::parse(prefix).is_err() {
        problems.add("S3_OBJECT_PREFIX", format!("`{prefix}` is no object key"));
    }
    if let Some(endpoint) = env.get("AWS_ENDPOINT_URL")
        && !Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
    {
        problems.add("AWS_ENDPOINT_URL", format!("`{endpoint}` is no http:// or https:// URL"));
    }
    StorageSettings::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        aws: env.with_prefix("AWS_").map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

fn lambda(env: &Environment, problems: &mut Problems) -> Option<LambdaFunction> {
    env.get("AWS_LAMBDA_RUNTIME_API")?;
    let required = |name: &str, problems: &mut Problems| {
        env.get(name).map(str::to_owned).unwrap_or_else(|| {
            problems.add(name, "is not set, although AWS_LAMBDA_RUNTIME_API is");
            String::new()
        })
    };
    let name = required("AWS_LAMBDA_FUNCTION_NAME", problems);
    let version = required("AWS_LAMBDA_FUNCTION_VERSION", problems);
    let memory_name = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
    let megabytes = match env.get(memory_name) {
        Some(_) => parsed::<i32>(env, memory_name, "no whole number of megabytes", problems),
        None => required(memory_name, problems).parse().ok(),
    };
    Some(LambdaFunction {
        name,
        version,
        memory_bytes: i64::from(megabytes.unwrap_or_default()) * 1024 * 1024,
        region: env.get("AWS_REGION").or_else(|| env.get("AWS_DEFAULT_REGION")).map(str::to_owned),
        log_stream: env.get("AWS_LAMBDA_LOG_STREAM_NAME").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_environment(&Environment::of(pairs)).unwrap()
    }

    fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
        match Settings::from_environment(&Environment::of(pairs)) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems,
        }
    }

    #[test]
    fn no_set_up_is_needed() {
        let settings = accepted(&[]);
        assert_eq!(settings.port, 8000);
        assert_eq!(settings.workers, 1);
        assert_eq!(settings.host, IpAddr::from([0, 0, 0, 0]));
        assert_eq!(settings.root_path, "");
        assert_eq!(settings.environment, "development");
        assert_eq!(settings.cors_origins, ["http://localhost:3000"]);
        assert_eq!(settings.storage, StorageSettings::Memory);
        assert_eq!(settings.lambda, None);
    }

    #[test]
    fn the_documented_settings_are_read() {
        let settings = accepted(&[
            ("ROOT_PATH", "/prod/"),
            ("ENVIRONMENT", "production"),
            ("FRONTEND_CORS_URL", "https://frontend.example"),
            ("FRONTEND_DEV_PORT", "3001"),
            ("DEV_PORT", "0"),
            ("WEB_CONCURRENCY", "4"),
            ("DEV_HOST", "::1"),
            ("S3_BUCKET_NAME", "bucket"),
            ("S3_OBJECT_PREFIX", "/data/"),
            ("AWS_REGION", "us-west-2"),
        ]);
        assert_eq!(settings.root_path, "/prod");
        assert_eq!(settings.cors_origins, ["http://localhost:3001", "https://frontend.example"]);
        assert_eq!(settings.port, 0);
        assert_eq!(settings.workers, 4);
        assert_eq!(
            settings.storage,
            StorageSettings::S3 {
                bucket: "bucket".into(),
                prefix: "data".into(),
                aws: vec![("AWS_REGION".into(), "us-west-2".into())],
            }
        );
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        assert_eq!(accepted(&[("DEV_PORT", ""), ("S3_BUCKET_NAME", "")]).port, 8000);
    }

    #[test]
    fn every_wrong_setting_is_named_at_once() {
        let problems = problems(&[
            ("ROOT_PATH", "prod"),
            ("FRONTEND_CORS_URL", "frontend"),
            ("FRONTEND_DEV_PORT", "0"),
            ("DEV_PORT", "65536"),
            ("DEV_HOST", "localhost"),
            ("LOG_LEVEL", "loud"),
            ("RUST_LOG", "a=b=c"),
            ("SHUTDOWN_TIMEOUT", "soon"),
            ("WEB_CONCURRENCY", "257"),
            ("S3_BUCKET_NAME", "b"),
            ("S3_OBJECT_PREFIX", "a/../b"),
            ("FILES_DIRECTORY", "/tmp"),
            ("AWS_ENDPOINT_URL", "s3"),
            ("OTEL_PROPAGATORS", "b3"),
        ]);
        let names: Vec<_> = problems.iter().filter_map(|line| line.split(':').next()).collect();
        for name in [
            "ROOT_PATH",
            "FRONTEND_CORS_URL",
            "FRONTEND_DEV_PORT",
            "DEV_PORT",
            "DEV_HOST",
            "LOG_LEVEL",
            "RUST_LOG",
            "SHUTDOWN_TIMEOUT",
            "WEB_CONCURRENCY",
            "S3_BUCKET_NAME",
            "S3_OBJECT_PREFIX",
            "FILES_DIRECTORY",
            "AWS_ENDPOINT_URL",
            "OTEL_PROPAGATORS",
        ] {
            assert!(names.contains(&name), "{name} is missing in {problems:#?}");
        }
        assert_eq!(problems.len(), 14, "{problems:#?}");
    }

    #[test]
    fn a_prefix_without_a_bucket_is_a_mistake() {
        assert_eq!(problems(&[("S3_OBJECT_PREFIX", "data")]), ["S3_OBJECT_PREFIX: is set, but S3_BUCKET_NAME is not"]);
    }

    #[test]
    fn a_directory_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        assert_eq!(problems(&[("FILES_DIRECTORY", path)]), Vec::<String>::new());
        assert_eq!(problems(&[("FILES_DIRECTORY", &format!("{path}/none"))]).len(), 1);
    }

    #[test]
    fn a_lambda_function_needs_lambdas_variables() {
        assert_eq!(problems(&[("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")]).len(), 3);
        let function = accepted(&[
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
            ("AWS_LAMBDA_FUNCTION_NAME", "files"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ])
        .lambda
        .unwrap();
        assert_eq!(function.memory_bytes, 256 << 20);
    }

    #[test]
    fn the_message_lists_all_problems() {
        let error = SettingsError { problems: vec!["A: x".into(), "B: y".into()] };
        assert_eq!(error.to_string(), "2 things are wrong in the settings:\n  A: x\n  B: y");
    }
}
