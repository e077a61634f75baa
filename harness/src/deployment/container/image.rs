//! Images: made from an executable without any registry, from a Dockerfile, or named.

use std::{
    hash::{DefaultHasher, Hasher},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use testcontainers::{GenericBuildableImage, GenericImage, Image, core::BuildImageOptions, runners::AsyncBuilder};

use tokio::sync::OnceCell;

use super::{LABEL, SiteError, context};
use crate::config::{self, Config};

/// Where the image of a deployment comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// From the executable that the launch names first.
    Executable,
    /// One that the engine has or can pull.
    Named(String),
    /// One that is built from a Dockerfile and the folder around it.
    Dockerfile {
        dockerfile: PathBuf,
        context: PathBuf,
        /// Where this run writes.
        output: PathBuf,
        /// Built once for all containers of a site.
        built: Box<OnceCell<GenericImage>>,
    },
}

impl Source {
    pub(super) fn of(config: &Config, deployment: &config::Deployment) -> Self {
        if let Some(image) = &deployment.image {
            return Self::Named(image.clone());
        }
        let Some(dockerfile) = &deployment.dockerfile else { return Self::Executable };
        let dockerfile = config.resolve(dockerfile);
        let context = match &deployment.context {
            Some(context) => config.resolve(context),
            None => dockerfile.parent().unwrap_or(&config.root).to_owned(),
        };
        Self::Dockerfile { dockerfile, context, output: config.resolve(&config.output), built: Box::default() }
    }

    /// The image, and the arguments behind its entry point.
    pub(super) async fn image(
        &self,
        deployment: &str,
        command: Vec<String>,
    ) -> Result<(GenericImage, Vec<String>), SiteError> {
        match self {
            Self::Executable => {
                let mut command = command.into_iter();
                let program = command.next().ok_or_else(|| {
                    SiteError::new(format!("deployment `{deployment}` names no executable to make an image from"))
                })?;
                Ok((of_executable(Path::new(&program)).await?, command.collect()))
            }
            Self::Named(reference) => {
                let (name, tag) = split(reference);
                Ok((GenericImage::new(name, tag), command))
            }
            Self::Dockerfile { dockerfile, context, output, built } => {
                let image = built.get_or_try_init(|| of_dockerfile(deployment, dockerfile, context, output)).await?;
                Ok((image.clone(), command))
            }
        }
    }
}

/// Name and tag of an image reference; a digest counts as a tag.
fn split(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        // A colon before a slash belongs to the port of a registry.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

async fn of_dockerfile(
    deployment: &str,
    dockerfile: &Path,
    context: &Path,
    output: &Path,
) -> Result<GenericImage, SiteError> {
    for (key, path) in [("dockerfile", dockerfile), ("context", context)] {
        if !path.exists() {
            return Err(SiteError::new(format!("deployment `{deployment}`: there is no {} (`{key}`)", path.display())));
        }
    }
    let name = format!("tracegate/{}", repository(deployment));
    let files = {
        let (dockerfile, context, output) = (dockerfile.to_owned(), context.to_owned(), output.to_owned());
        tokio::task::spawn_blocking(move || context::files(&dockerfile, &context, &output)).await
    };
    let files = files.map_err(io::Error::other).and_then(|files| files).map_err(|error| {
        SiteError::because(format!("deployment `{deployment}`: cannot read {} (`context`)", context.display()), error)
    })?;
    let mut image = GenericBuildableImage::new(name, "latest");
    for (source, target) in files {
        image = image.with_file(source, target);
    }
    // The Dockerfile comes last, so that it is the one at the root even when the folder has another of this name.
    image.with_dockerfile(dockerfile).build_image().await.map_err(|error| {
        SiteError::because(format!("deployment `{deployment}`: {} does not build", dockerfile.display()), error)
    })
}

/// A file of an image: where it is here, and its path there.
type Content = (PathBuf, String);

/// An image that holds an executable and nothing but what that needs to run. An executable that was packed before is
/// not packed again: the image's tag is a hash of its content.
pub(super) async fn of_executable(executable: &Path) -> Result<GenericImage, SiteError> {
    let cannot = |error: io::Error| {
        SiteError::because(format!("cannot make a container image from {}", executable.display()), error)
    };
    let stem = executable.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = repository(&stem);
    let (contents, hash) = {
        let (executable, name) = (executable.to_owned(), name.clone());
        tokio::task::spawn_blocking(move || {
            let contents = contents(&executable, &format!("/{name}"))?;
            let hash = hash("", &contents)?;
            Ok((contents, hash))
        })
        .await
        .map_err(|error| cannot(io::Error::other(error)))?
        .map_err(cannot)?
    };
    let dockerfile = format!("FROM scratch\nLABEL {LABEL}=\"{name}\"\nCOPY root/ /\nENTRYPOINT [\"/{name}\"]\n");
    build(&name, hash, dockerfile, contents).await.map_err(cannot)
}

fn reference(image: &GenericImage) -> String {
    format!("{}:{}", image.name(), image.tag())
}

/// Where the programs of an execution environment are in its image.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// `tracegate`, which holds the container open and runs the others.
    pub(super) tracegate: String,
    function: String,
}

impl Environment {
    /// The path of an extension, or of the function.
    pub(super) fn program(&self, extension: Option<&str>) -> String {
        extension.map_or_else(|| self.function.clone(), in_layer)
    }
}

/// Where a layer has an extension ("Lambda extensions API", "Registering the extension").
fn in_layer(extension: &str) -> String {
    format!("/opt/extensions/{extension}")
}

/// The image of a function with extensions: on top of that of `tracegate`, with the extensions where Lambda's layers have
/// them. As with [`of_executable`], what was packed before is not packed again.
pub(super) async fn of_environment(
    tracegate: &Path,
    function: &Path,
    extensions: &[(String, PathBuf)],
) -> Result<(GenericImage, Environment), SiteError> {
    let cannot = |error: io::Error| {
        SiteError::because(
            format!("cannot make a container image from {} and its extensions", function.display()),
            error,
        )
    };
    let base = reference(&of_executable(tracegate).await?);
    let stem = |path: &Path| repository(&path.file_stem().unwrap_or_default().to_string_lossy());
    let name = format!("{}-with-extensions", stem(function));
    // A folder of its own, since a function may be named as anything at the root.
    let environment =
        Environment { tracegate: format!("/{}", stem(tracegate)), function: format!("/var/task/{}", stem(function)) };
    let files: Vec<(PathBuf, String)> = std::iter::once((function.to_owned(), environment.program(None)))
        .chain(extensions.iter().map(|(name, path)| (path.clone(), in_layer(name))))
        .collect();
    let (contents, hash) = tokio::task::spawn_blocking({
        let base = base.clone();
        move || {
            let mut all: Vec<Content> = Vec::new();
            for (source, target) in files {
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", source.display()));
                all.extend(contents(&source, &target).map_err(named)?);
            }
            // Two programs may need the same library.
            let mut seen = std::collections::BTreeSet::new();
            all.retain(|(_, target)| seen.insert(target.clone()));
            let hash = hash(&base, &all)?;
            Ok((all, hash))
        }
    })
    .await
    .map_err(|error| cannot(io::Error::other(error)))?
    .map_err(cannot)?;
    let dockerfile = format!(
        "FROM {base}\nLABEL {LABEL}=\"{name}\"\nCOPY root/ /\nENTRYPOINT [\"{}\", \"inside\", \"hold\"]\n",
        environment.tracegate
    );
    let image = build(&name, hash, dockerfile, contents).await.map_err(cannot)?;
    Ok((image, environment))
}

async fn build(name: &str, hash: u64, dockerfile: String, contents: Vec<Content>) -> io::Result<GenericImage> {
    let mut image = GenericBuildableImage::new(format!("tracegate/{name}"), format!("{hash:016x}"))
        .with_dockerfile_string(dockerfile);
    for (source, target) in contents {
        image = image.with_file(source, format!("root{target}"));
    }
    let built = image.build_image_with(BuildImageOptions::new().with_skip_if_exists(true)).await;
    built.map_err(io::Error::other)
}

/// Lower-case letters, digits and single hyphens, as image names have them.
fn repository(name: &str) -> String {
    let words: Vec<String> = name
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    if words.is_empty() { "service".into() } else { words.join("-") }
}

/// The executable, and its loader and shared libraries if it needs them.
fn contents(executable: &Path, target: &str) -> io::Result<Vec<Content>> {
    let mut contents = vec![(executable.canonicalize()?, target.to_owned())];
    if needs_loader(executable)? {
        contents.extend(shared_libraries(executable)?);
    }
    Ok(contents)
}

/// Whether a program header names an interpreter (ELF specification, "Program Interpreter").
fn needs_loader(executable: &Path) -> io::Result<bool> {
    let mut file = std::fs::File::open(executable)?;
    let foreign = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a 64-bit Linux executable; build it for Linux, or name an `image` or a `dockerfile`",
        )
    };
    let mut header = [0; 64];
    file.read_exact(&mut header).map_err(|_| foreign())?;
    // Magic number, 64 bits, little-endian: x86-64 and AArch64.
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Err(foreign());
    }
    let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let offset = u64::from_le_bytes(header[32..40].try_into().map_err(|_| foreign())?);
    let (size, count) = (number(54), number(56));
    for i in 0..u64::from(count) {
        file.seek(SeekFrom::Start(offset + i * u64::from(size)))?;
        let mut kind = [0; 4];
        file.read_exact(&mut kind).map_err(|_| foreign())?;
        // PT_INTERP
        if u32::from_le_bytes(kind) == 3 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Loader and libraries as `ldd` lists them, at the paths where the loader looks for them.
fn shared_libraries(executable: &Path) -> io::Result<Vec<Content>> {
    let hint = "link it statically (`-C target-feature=+crt-static`) to do without";
    let listed = std::process::Command::new("ldd")
        .arg(executable)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("`ldd` lists its libraries; {hint}: {error}")))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("a library is missing: {}; {hint}", missing.trim()),
        ));
    }
    listed_paths(&listed).map(|path| Ok((Path::new(path).canonicalize()?, path.to_owned()))).collect()
}

/// The paths in the output of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn listed_paths(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let found = line.split_once("=>").map_or(line, |(_, found)| found).trim();
        found.split_whitespace().next().filter(|path| path.starts_with('/'))
    })
}

/// A hash of names and contents, and of what they are put upon. It need not withstand an attacker, only tell builds apart.
fn hash(base: &str, contents: &[Content]) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(base.as_bytes());
    let mut buffer = vec![0; 1 << 20];
    for (source, target) in contents {
        hasher.write(target.as_bytes());
        let mut file = std::fs::File::open(source)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.write(&buffer[..count]),
            }
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_reference_is_split_at_its_tag_and_not_at_its_registrys_port() {
        assert_eq!(split("redis"), ("redis", "latest"));
        assert_eq!(split("redis:7"), ("redis", "7"));
        assert_eq!(split("localhost:5000/a/b"), ("localhost:5000/a/b", "latest"));
        assert_eq!(split("a/b@sha256:0123"), ("a/b@sha256", "0123"));
    }

    #[test]
    fn a_name_becomes_one_that_images_may_have() {
        assert_eq!(repository("My_Service--2"), "my-service-2");
        assert_eq!(repository("…"), "service");
    }

    #[test]
    fn loader_and_libraries_are_found_in_what_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let paths: Vec<_> = listed_paths(listed).collect();
        assert_eq!(paths, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(listed_paths("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn what_is_no_linux_executable_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n".repeat(20)).unwrap();
        let error = needs_loader(&script).unwrap_err().to_string();
        assert!(error.contains("not a 64-bit Linux executable"), "{error}");
    }
}
