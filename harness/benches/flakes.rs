//! Whether the same scenarios get the same verdicts, every time.
//!
//! ```text
//! cargo bench -p tracegate --bench flakes -- [--times N] [--busy M] [ARGUMENTS OF tracegate run]
//! ```
//!
//! Runs `tracegate run` N times in a row (200), and M times (50) while a thread a core does nothing but count. Every
//! verdict of each deployment is compared with that of the first run; each that differs is told with its message, and its
//! evidence is kept beside the others in `target/tracegate-flakes`. Exits with 1 when there was one, or when a run did not
//! pass at all.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde_json::Value;

type Failure = Box<dyn Error + Send + Sync>;
/// Deployment, file, line, name, and the how-manieth of those.
type Key = (String, String, u64, String, usize);

fn main() -> Result<ExitCode, Failure> {
    let (mut times, mut busy, mut rest) = (200, 50, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<usize, Failure> { Ok(arguments.next().ok_or("a number is missing")?.parse()?) };
        match argument.as_str() {
            "--times" => times = number()?,
            "--busy" => busy = number()?,
            "--bench" => {}
            _ => rest.push(argument),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let kept = root.join("target/tracegate-flakes");
    fs::create_dir_all(&kept)?;
    let mut first: Option<BTreeMap<Key, (String, String)>> = None;
    let (mut runs, mut verdicts, mut differences) = (0, 0, 0);
    for (what, count) in [("alone", times), ("busy", busy)] {
        let load = (what == "busy" && count > 0).then(Load::start);
        let began = Instant::now();
        for number in 1..=count {
            let found = run(&root, &kept, &rest)?;
            runs += 1;
            verdicts += found.len();
            if number % 10 == 0 {
                println!("{what}: {number} of {count} runs, {differences} differences so far");
            }
            let expected = first.get_or_insert_with(|| found.clone());
            let mut different = Vec::new();
            for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))) {
                let (before, now) = (expected.get(key), found.get(key));
                if before.map(|(verdict, _)| verdict) != now.map(|(verdict, _)| verdict) {
                    different.push((key, before, now));
                }
            }
            // A failure in the first run is no reference.
            if number == 1 && what == "alone" {
                different.extend(
                    found
                        .iter()
                        .filter(|(_, (verdict, _))| verdict != "passed")
                        .map(|(key, now)| (key, None, Some(now))),
                );
            }
            for ((deployment, file, line, name, _), before, now) in &different {
                let word =
                    |verdict: &Option<&(String, String)>| verdict.map_or("absent", |(verdict, _)| verdict).to_owned();
                println!(
                    "{what} {number}: {deployment} {file}:{line} {name}: {} instead of {}",
                    word(now),
                    word(before)
                );
                println!("  {}", now.map_or("", |(_, message)| message).replace('\n', "\n  "));
            }
            differences += different.len();
            if !different.is_empty() {
                keep(&root, &kept.join(format!("{what}-{number}")))?;
            }
        }
        drop(load);
        println!("{what}: {count} runs in {:.0} s", began.elapsed().as_secs_f64());
    }
    println!("{runs} runs, {verdicts} verdicts, {differences} differences");
    Ok(ExitCode::from(u8::from(differences > 0)))
}

/// The verdicts of a run with their messages.
fn run(root: &Path, kept: &Path, arguments: &[String]) -> Result<BTreeMap<Key, (String, String)>, Failure> {
    let report = kept.join("run.json");
    let _ = fs::remove_file(&report);
    let done = Command::new(env!("CARGO_BIN_EXE_tracegate"))
        .arg("run")
        .args(arguments)
        .arg("--json")
        .arg(&report)
        .current_dir(root)
        .env_remove("GITHUB_ACTIONS")
        .output()?;
    let text =
        fs::read(&report).map_err(|_| String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())?;
    let report: Value = serde_json::from_slice(&text)?;
    let mut found = BTreeMap::new();
    for outcome in report["outcomes"].as_array().ok_or("no outcomes")? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = outcome["line"].as_u64().unwrap_or(0);
        let mut key = (text(&outcome["deployment"]), text(&outcome["file"]), line, text(&outcome["scenario"]), 0);
        while found.contains_key(&key) {
            key.4 += 1;
        }
        found.insert(key, (text(&outcome["verdict"]), text(&outcome["problem"]["message"])));
    }
    Ok(found)
}

/// Keeps what the last run wrote.
fn keep(root: &Path, folder: &Path) -> Result<(), Failure> {
    let _ = fs::remove_dir_all(folder);
    let mut open: Vec<(PathBuf, PathBuf)> = vec![(root.join("target/tracegate"), folder.to_owned())];
    while let Some((from, to)) = open.pop() {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push((entry.path(), to));
            } else {
                fs::copy(entry.path(), to)?;
            }
        }
    }
    Ok(())
}

/// A thread a core that does nothing useful.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let over = over.clone();
            std::thread::spawn(move || {
                let mut count: u64 = 0;
                while !over.load(Ordering::Relaxed) {
                    count = black_box(count.wrapping_add(1));
                }
            });
        }
        Self(over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
