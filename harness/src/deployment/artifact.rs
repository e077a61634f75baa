//! What a deployment runs: built or found before the run, once for all deployments that share it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tokio::{process::Command, sync::OnceCell};

use super::SiteError;
use crate::config::{self, CargoBinary, Config, Kind};

/// How a binary of a Cargo workspace is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Linking {
    /// As `cargo build` links it: a build that the developer has already made is used.
    Any,
    /// With all that it needs inside, so that it runs in an image that holds nothing else.
    Static,
}

impl Linking {
    /// What a deployment of this kind needs.
    pub const fn for_kind(kind: Kind) -> Self {
        if kind.is_container() { Self::Static } else { Self::Any }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Static => "static",
        }
    }
}

/// How much of a build's output an error shows.
const LINES_OF_OUTPUT: usize = 40;

/// Program and first arguments of a deployment, on this machine; runs `build` and compiles `cargo` first. For `image`
/// and `dockerfile` there is no program, and only the configured command comes back.
///
/// The same build is made once in a process, however many deployments ask for it at the same time.
///
/// # Errors
/// When a build fails, with the end of what it printed, or when the file is not there.
pub async fn program(
    config: &Config,
    deployment: &config::Deployment,
    linking: Linking,
) -> Result<Vec<String>, SiteError> {
    let of = |what: String| format!("deployment `{}`: {what}", deployment.name);
    if !deployment.build.is_empty() {
        run_build(&deployment.build, &config.directory(deployment)).await.map_err(|what| SiteError::new(of(what)))?;
    }
    if let Some(cargo) = &deployment.cargo {
        let built = cargo_binary(config, cargo, linking).await.map_err(|what| SiteError::new(of(what)))?;
        return Ok(vec![text(&built)?]);
    }
    if let Some(binary) = &deployment.binary {
        let path = config.resolve(binary);
        if !path.is_file() {
            let hint = if deployment.build.is_empty() { "; `build` can make it before the run" } else { "" };
            return Err(SiteError::new(of(format!("there is no file {} (`binary`){hint}", path.display()))));
        }
        return Ok(vec![text(&path)?]);
    }
    let mut command = deployment.command.clone();
    if let Some(program) = command.first_mut()
        && !deployment.kind.is_container()
        && program.contains('/')
    {
        *program = text(&config.resolve(Path::new(program)))?;
    }
    Ok(command)
}

/// Program and arguments of an extension; compiles `cargo` first.
///
/// # Errors
/// When the build fails, with the end of what it printed.
pub async fn extension(
    config: &Config,
    deployment: &config::Deployment,
    extension: &config::Extension,
) -> Result<Vec<String>, SiteError> {
    let mut command = extension.command.clone();
    if let Some(cargo) = &extension.cargo {
        let built = cargo_binary(config, cargo, Linking::for_kind(deployment.kind)).await.map_err(|what| {
            SiteError::new(format!("deployment `{}`, extension `{}`: {what}", deployment.name, extension.name()))
        })?;
        return Ok(vec![text(&built)?]);
    }
    if let Some(program) = command.first_mut()
        && program.contains('/')
    {
        *program = text(&config.resolve(Path::new(program)))?;
    }
    Ok(command)
}

fn text(path: &Path) -> Result<String, SiteError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| SiteError::new(format!("the path {} is not UTF-8; move the file", path.display())))
}

/// Something that is made once: the outcome for whoever asks first, and for all that ask later.
type Made = Arc<OnceCell<Result<PathBuf, String>>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Cargo { root: PathBuf, output: PathBuf, binary: CargoBinary, linking: Linking },
    Build { command: Vec<String>, directory: PathBuf },
}

fn made(key: Key) -> Made {
    static MADE: OnceLock<Mutex<HashMap<Key, Made>>> = OnceLock::new();
    MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
}

async fn run_build(command: &[String], directory: &Path) -> Result<(), String> {
    let key = Key::Build { command: command.to_vec(), directory: directory.to_owned() };
    let run = || async {
        let [program, arguments @ ..] = command else { return Ok(directory.to_owned()) };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory);
        output(command, "`build`").await.map(|_| directory.to_owned())
    };
    made(key).get_or_init(run).await.clone().map(drop)
}

async fn cargo_binary(config: &Config, cargo: &CargoBinary, linking: Linking) -> Result<PathBuf, String> {
    let key = Key::Cargo { root: config.root.clone(), output: config.output.clone(), binary: cargo.clone(), linking };
    made(key).get_or_init(|| compile(config, cargo, linking)).await.clone()
}

async fn compile(config: &Config, cargo: &CargoBinary, linking: Linking) -> Result<PathBuf, String> {
    let bin = cargo.bin.as_ref().unwrap_or(&cargo.package);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&config.root);
    command.arg(if linking == Linking::Static { "rustc" } else { "build" });
    command.args(["--package", &cargo.package, "--bin", bin]);
    command.arg("--message-format=json-render-diagnostics");
    if linking == Linking::Static {
        if cfg!(not(target_os = "linux")) {
            return Err(format!(
                "`{bin}` cannot be linked for a container on {}; name an `image`, a `dockerfile` or a `binary` for Linux",
                std::env::consts::OS
            ));
        }
        // Only the last step differs from an ordinary build, so its dependencies are compiled once for both. Debug
        // information would make the image several times as large.
        command.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]);
    }
    let messages = output(command, "the build").await?;
    let built = executable(&messages, bin)
        .ok_or_else(|| format!("cargo built no executable `{bin}` of package `{}`", cargo.package))?;
    // Cargo gives builds of either linking the same name, and the next one replaces the file.
    let folder = config.resolve(&config.output).join("bin").join(linking.folder());
    let kept = folder.join(built.file_name().unwrap_or(bin.as_ref()));
    keep(&built, &kept)
        .await
        .map_err(|error| format!("cannot copy {} to {}: {error}", built.display(), kept.display()))?;
    Ok(kept)
}

/// Copies in such a way that a process that still runs the old file keeps it.
async fn keep(built: &Path, kept: &Path) -> std::io::Result<()> {
    let folder = kept.parent().unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(folder).await?;
    let temporary = folder.join(format!(".{}", uuid::Uuid::new_v4()));
    let copied = async {
        tokio::fs::copy(built, &temporary).await?;
        tokio::fs::rename(&temporary, kept).await
    };
    let copied = copied.await;
    if copied.is_err() {
        drop(tokio::fs::remove_file(&temporary).await);
    }
    copied
}

/// The executable that Cargo's messages name for a binary target.
fn executable(messages: &str, bin: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact"
                && message["target"]["name"] == bin
                && message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"))
        })
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

/// Runs a build and returns its standard output; the error ends with what it printed last.
async fn output(mut command: Command, what: &str) -> Result<String, String> {
    let shown = {
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let directory = command.as_std().get_current_dir().map(|path| path.display().to_string()).unwrap_or_default();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let done = command
        .output()
        .await
        .map_err(|error| format!("{what} cannot be started: `{shown}` in {directory}: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let printed = [String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)];
    // Messages for programs are of no use to a person; Cargo renders the compiler's on standard error.
    let lines: Vec<&str> =
        printed.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with("{\"reason\":")).collect();
    let tail = lines[lines.len().saturating_sub(LINES_OF_OUTPUT)..].join("\n");
    Err(format!("{what} failed with {}: `{shown}` in {directory}\n{tail}", done.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path, deployment: &str) -> Config {
        let text = format!("[deployments.d]\nready = {{ http = '/' }}\n{deployment}");
        Config::parse(&text, folder, Path::new("tracegate.toml")).unwrap()
    }

    async fn program_of(config: &Config, linking: Linking) -> Result<Vec<String>, SiteError> {
        program(config, &config.deployments["d"], linking).await
    }

    fn crate_with(main: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/main.rs"), main).unwrap();
        let manifest = "[package]\nname = 'subject'\nedition = '2024'\n[workspace]\n";
        std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        folder
    }

    fn run(program: &[String]) -> String {
        let output = std::process::Command::new(&program[0]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[tokio::test]
    async fn a_cargo_binary_is_built_in_either_linking_and_neither_replaces_the_other() {
        let folder = crate_with("fn main() { print!(\"built\") }");
        let config = config(folder.path(), "kind = 'process'\ncargo = { package = 'subject' }");
        let any = program_of(&config, Linking::Any).await.unwrap();
        assert_eq!(run(&any), "built");
        if cfg!(target_os = "linux") {
            let linked = program_of(&config, Linking::Static).await.unwrap();
            assert_ne!(any, linked);
            assert_eq!((run(&any), run(&linked)), ("built".into(), "built".into()));
        }
    }

    #[tokio::test]
    async fn code_that_does_not_compile_is_shown_with_the_compilers_words() {
        let folder = crate_with("fn main() { missing() }");
        let config = config(folder.path(), "kind = 'process'\ncargo = { package = 'subject' }");
        let error = program_of(&config, Linking::Any).await.unwrap_err().to_string();
        assert!(error.contains("cannot find function `missing`") && error.contains("deployment `d`"), "{error}");
    }

    #[tokio::test]
    async fn a_package_that_is_not_there_is_named() {
        let folder = crate_with("fn main() {}");
        let config = config(folder.path(), "kind = 'process'\ncargo = { package = 'other' }");
        let error = program_of(&config, Linking::Any).await.unwrap_err().to_string();
        assert!(error.contains("other"), "{error}");
    }

    #[tokio::test]
    async fn a_build_command_runs_once_for_all_that_ask_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            config(folder.path(), "kind = 'process'\ncommand = ['./d']\nbuild = ['sh', '-c', 'echo once >> log']");
        let asked = (0..4).map(|_| program_of(&config, Linking::Any));
        for program in futures::future::join_all(asked).await {
            assert_eq!(program.unwrap(), [folder.path().join("./d").to_str().unwrap()]);
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("log")).unwrap(), "once\n");
    }

    #[tokio::test]
    async fn a_build_command_that_fails_or_is_not_there_is_shown_with_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let failing = "kind = 'process'\ncommand = ['d']\nbuild = ['sh', '-c', 'echo broken >&2; exit 3']";
        let error = program_of(&config(folder.path(), failing), Linking::Any).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("broken"), "{error}");
        let missing = "kind = 'process'\ncommand = ['d']\nbuild = ['no-such-program']";
        let error = program_of(&config(folder.path(), missing), Linking::Any).await.unwrap_err().to_string();
        assert!(error.contains("cannot be started: `no-such-program`"), "{error}");
    }

    #[tokio::test]
    async fn a_binary_that_is_not_there_is_named_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "kind = 'process'\nbinary = 'bin/d'");
        let error = program_of(&config, Linking::Any).await.unwrap_err().to_string();
        assert!(error.contains("bin/d") && error.contains("`build` can make it"), "{error}");
    }

    #[tokio::test]
    async fn a_command_found_by_path_search_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), "kind = 'process'\ncommand = ['node', 'server.js']");
        assert_eq!(program_of(&config, Linking::Any).await.unwrap(), ["node", "server.js"]);
    }
}
