//! Where evidence lies: the folders of a run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use super::{EvidenceError, VERSION, record::SCENARIO};
use crate::report::PAGE;

const RUN: &str = "run.json";
const LOCK: &str = ".run-lock";
/// The folder of what several scenarios looked at.
pub(crate) const DEPLOYMENTS: &str = "deployments";
/// The folder of what only one scenario looked at, in its own.
pub(crate) const CAPTURE: &str = "capture";

/// Which run wrote the evidence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// Of the format.
    pub version: u32,
    /// Which tracegate wrote it.
    pub tracegate: String,
    /// The folder of tracegate.toml, for feature files and events.
    pub root: PathBuf,
}

/// An output folder that one run has for itself until this is dropped: two would take each other's evidence away.
#[derive(Debug)]
pub struct Claim {
    /// `None` where the file system knows no locks.
    _lock: Option<Flock<fs::File>>,
}

/// Claims an output folder, and makes it where there is none.
///
/// # Errors
/// Another run has it, in this process or in another one; those of the file system.
pub fn claim(output: &Path) -> Result<Claim, EvidenceError> {
    fs::create_dir_all(output).map_err(EvidenceError::io("make", output))?;
    let path = output.join(LOCK);
    let file = fs::File::options().create(true).append(true).open(&path).map_err(EvidenceError::io("write", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Claim { _lock: Some(lock) }),
        Err((_, Errno::EWOULDBLOCK)) => Err(EvidenceError::Taken { path: output.to_owned() }),
        Err(_) => Ok(Claim { _lock: None }),
    }
}

/// Takes the evidence of the run before out of `output`, and says whose it is from now on.
///
/// # Errors
/// Those of the file system.
pub fn begin_run(output: &Path, root: &Path) -> Result<(), EvidenceError> {
    let page = output.join(PAGE);
    if page.exists() {
        // One that is interrupted before it writes its own must not leave that of another run.
        fs::remove_file(&page).map_err(EvidenceError::io("remove", &page))?;
    }
    let deployments = output.join(DEPLOYMENTS);
    if deployments.exists() {
        fs::remove_dir_all(&deployments).map_err(EvidenceError::io("remove", &deployments))?;
    }
    for folder in scenarios(output) {
        fs::remove_dir_all(&folder).map_err(EvidenceError::io("remove", &folder))?;
        // The scenario's folder goes with the last deployment's.
        if let Some(scenario) = folder.parent() {
            let _ = fs::remove_dir(scenario);
        }
    }
    fs::create_dir_all(output).map_err(EvidenceError::io("make", output))?;
    let run = RunRecord { version: VERSION, tracegate: env!("CARGO_PKG_VERSION").into(), root: root.to_owned() };
    let path = output.join(RUN);
    let text =
        serde_json::to_string_pretty(&run).map_err(|error| EvidenceError::malformed(&path, error.to_string()))?;
    fs::write(&path, text + "\n").map_err(EvidenceError::io("write", &path))
}

/// What evidence there is.
#[derive(Debug)]
pub struct Found {
    /// The output folder of the run.
    pub output: PathBuf,
    /// Which run it was.
    pub run: RunRecord,
    /// The folder of each scenario on each deployment, in order.
    pub scenarios: Vec<PathBuf>,
}

/// The evidence in `folder`: that of one scenario on one deployment, that of one scenario, or a whole run's.
///
/// # Errors
/// When there is none, or another version wrote it.
pub fn find(folder: &Path) -> Result<Found, EvidenceError> {
    let nothing = || EvidenceError::Nothing { path: folder.to_owned() };
    let folder = folder.canonicalize().map_err(|_| nothing())?;
    let (output, scenarios) = if folder.join(SCENARIO).is_file() {
        (folder.ancestors().nth(2).map(Path::to_owned), vec![folder])
    } else if folder.join(RUN).is_file() {
        let scenarios = scenarios(&folder);
        (Some(folder), scenarios)
    } else {
        let within = folders(&folder).into_iter().filter(|folder| folder.join(SCENARIO).is_file()).collect();
        (folder.parent().map(Path::to_owned), within)
    };
    let output = output.filter(|_| !scenarios.is_empty()).ok_or_else(nothing)?;
    let path = output.join(RUN);
    let text = fs::read_to_string(&path).map_err(EvidenceError::io("read", &path))?;
    let run: RunRecord =
        serde_json::from_str(&text).map_err(|error| EvidenceError::malformed(&path, error.to_string()))?;
    if run.version != VERSION {
        let reason = format!("it has version {}, and this tracegate reads version {VERSION}", run.version);
        return Err(EvidenceError::malformed(&path, reason));
    }
    Ok(Found { output, run, scenarios })
}

/// The folder of each scenario on each deployment.
fn scenarios(output: &Path) -> Vec<PathBuf> {
    let deployments = folders(output).into_iter().flat_map(|scenario| folders(&scenario));
    deployments.filter(|folder| folder.join(SCENARIO).is_file()).collect()
}

fn folders(within: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(within).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_runs_until_that_run_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("not/there/yet");
        let first = claim(&output).unwrap();
        let refused = claim(&output).unwrap_err();
        assert!(matches!(&refused, EvidenceError::Taken { path } if *path == output), "{refused}");
        assert!(claim(&folder.path().join("another")).is_ok());
        drop(first);
        assert!(claim(&output).is_ok());
    }
}
