//! The folder that a Dockerfile is built in, without what is none of the image's: what `.dockerignore` names, and what the run
//! itself is writing, which would change while it is packed.

use std::{
    io,
    path::{Path, PathBuf},
};

use ignore::{
    Match, WalkBuilder,
    gitignore::{Gitignore, GitignoreBuilder},
};

/// The files of a build context and its empty folders, each with its path there.
///
/// # Errors
/// A folder that cannot be read, and a pattern in `.dockerignore` that is none.
pub(super) fn files(dockerfile: &Path, context: &Path, output: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let ignored = ignored(dockerfile, context)?;
    let output = output.canonicalize().unwrap_or_else(|_| output.to_owned());
    let mut walk = WalkBuilder::new(context);
    walk.standard_filters(false).sort_by_file_path(Ord::cmp).filter_entry(move |entry| {
        // The context itself may lie in it: then it is no output of this run that is packed.
        entry.depth() == 0 || entry.path().canonicalize().map_or(true, |path| path != output)
    });
    let mut files = Vec::new();
    for entry in walk.build() {
        let entry = entry.map_err(io::Error::other)?;
        let path = entry.path();
        let Ok(within) = path.strip_prefix(context) else { continue };
        // Through links, as what is packed is what they lead to. One that leads nowhere is left out.
        let Ok(found) = path.metadata() else { continue };
        let walked = entry.file_type().is_some_and(|kind| kind.is_dir());
        let left_out = within.as_os_str().is_empty()
            || matches!(ignored.matched_path_or_any_parents(within, found.is_dir()), Match::Ignore(_))
            || (walked && path.read_dir()?.next().is_some());
        if !left_out {
            files.push((path.to_owned(), within.to_string_lossy().into_owned()));
        }
    }
    Ok(files)
}

/// What `.dockerignore` names: `DOCKERFILE.dockerignore` beside the Dockerfile, else the one at the root of the context. Its
/// patterns are those of `.gitignore`, but all of them begin at the root (Docker documentation, "Build context").
fn ignored(dockerfile: &Path, context: &Path) -> io::Result<Gitignore> {
    let own = PathBuf::from(format!("{}.dockerignore", dockerfile.display()));
    let path = if own.is_file() { own } else { context.join(".dockerignore") };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Gitignore::empty()),
        Err(error) => return Err(error),
    };
    // Paths are given relative to the context.
    let mut patterns = GitignoreBuilder::new("");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (not, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
        let pattern = pattern.trim_start_matches("./").trim_start_matches('/').trim_end_matches('/');
        let named = |error| io::Error::other(format!("{}: {line:?}: {error}", path.display()));
        patterns.add_line(None, &format!("{not}/{pattern}")).map_err(named)?;
    }
    patterns.build().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn packed(folder: &tempfile::TempDir, output: &str) -> Vec<String> {
        let root = folder.path();
        let files = files(&root.join("Dockerfile"), root, &root.join(output)).unwrap();
        files.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn what_the_run_writes_is_not_packed_and_everything_else_is() {
        let folder =
            context(&[("Dockerfile", ""), ("app/.env", ""), ("target/app", ""), ("target/tracegate/run.json", "")]);
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        assert_eq!(packed(&folder, "target/tracegate"), ["Dockerfile", "app/.env", "empty", "target/app"]);
        assert_eq!(packed(&folder, "elsewhere").last().unwrap(), "target/tracegate/run.json");
    }

    #[test]
    fn what_dockerignore_names_is_not_packed_and_its_exceptions_are() {
        let rules = "# rules\n\ntarget/\n**/*.log\n!keep.log\n./notes\n";
        let all = [("Dockerfile", ""), ("target/app", ""), ("src/a.log", ""), ("keep.log", ""), ("src/target/b", "")];
        let folder = context(&[&all[..], &[("notes/n.txt", ""), (".dockerignore", rules)]].concat());
        assert_eq!(packed(&folder, "out"), [".dockerignore", "Dockerfile", "keep.log", "src/target/b"]);
    }

    #[test]
    fn a_dockerfile_may_have_rules_of_its_own() {
        let folder = context(&[
            ("Dockerfile", ""),
            ("a", ""),
            (".dockerignore", "a"),
            ("Dockerfile.dockerignore", "b"),
            ("b", ""),
        ]);
        assert_eq!(packed(&folder, "out"), [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a"]);
    }
}
