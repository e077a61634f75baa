//! How large the HTML report is, and how soon it is open in headless Chromium.
//!
//! ```text
//! cargo bench -p tracegate --bench report
//! cargo bench -p tracegate --bench report -- pictures FOLDER
//! ```
//!
//! The runs are synthetic and go through the real reporter: 1,000 scenarios on one, three and eight deployments, with a
//! request or two each, and one request of 5,000 spans. *Open* is the time from the navigation until the list and the first
//! scenario are there and the keyboard is heard (the page's mark `ready`), the median of seven. *Last* is the time from
//! pressing End in the waterfall until the last span has been drawn. With `pictures` it makes pictures instead, for
//! whoever changes the page.

#[path = "../tests/reports/browser.rs"]
mod browser;
#[path = "../tests/reports/synthetic.rs"]
mod synthetic;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use browser::Browser;
use tracegate::report::{Outcome, Problem, Summary, html};

const DEPLOYMENTS: [&str; 8] =
    ["container", "lambda", "lambda-alb", "lambda-container", "lambda-http-api", "process", "s3", "workers"];

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let browser = Browser::start().expect("a browser");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["pictures", folder] => pictures(&browser, Path::new(folder)),
        _ => measure(&browser),
    }
}

fn measure(browser: &Browser) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.html");
    println!("{:<44} {:>10} {:>10} {:>10} {:>10}", "", "made", "size", "open", "last");
    let runs = [1, 3, 8].map(|deployments| {
        let what = format!("1,000 scenarios on {deployments} deployments");
        (what, synthetic::run(1000, &DEPLOYMENTS[..deployments]))
    });
    let trace = ("a request of 5,000 spans".to_owned(), synthetic::trace(5000));
    for (what, summary) in runs.into_iter().chain([trace]) {
        let began = Instant::now();
        let page = html(&summary).expect("a page");
        let made = began.elapsed().as_millis();
        std::fs::write(&path, &page).expect("a file");
        let mut opened: Vec<f64> = (0..7).map(|_| browser.open(&path)).collect();
        opened.sort_by(f64::total_cmp);
        browser.press("Enter");
        let last = browser.eval(
            "new Promise(done => { const began = performance.now(); document.activeElement.dispatchEvent(new \
             KeyboardEvent('keydown', { key: 'End', bubbles: true })); requestAnimationFrame(() => setTimeout(() => \
             done(performance.now() - began))); })",
        );
        let size = page.len() as f64 / 1e6;
        let (open, last) = (opened[opened.len() / 2], last.as_f64().unwrap_or(f64::NAN));
        println!("{what:<44} {made:>7} ms {size:>7.2} MB {open:>7.0} ms {last:>7.0} ms");
    }
}

fn pictures(browser: &Browser, folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let folder = folder.canonicalize().expect("a folder");
    let failing = synthetic::run(200, &DEPLOYMENTS);
    let mut passing = synthetic::run(40, &DEPLOYMENTS[..3]);
    passing.outcomes.retain(|outcome| outcome.problem().is_none());
    let huge = Summary {
        outcomes: vec![Outcome {
            advice: vec!["http.method is deprecated; its successor is http.request.method".into()],
            ..synthetic::trace(5000).outcomes[0].clone()
        }],
        ..Summary::default()
    };
    let long = Problem::failed(format!("found      {}\nexpected   {}", "x".repeat(400), "word ".repeat(80)));
    let long = synthetic::summary(vec![Outcome {
        scenario: "A scenario whose name goes on for as long as its author had something to say of it, and on".into(),
        ..synthetic::outcome(0, "lambda", Some(long), synthetic::trace(40).outcomes[0].stories.clone())
    }]);
    let sizes = [("wide", 1600, 1000), ("middle", 1100, 800), ("narrow", 420, 900)];
    for (name, summary) in [("failing", &failing), ("passing", &passing), ("huge", &huge), ("long", &long)] {
        let path = folder.join(format!("{name}.html"));
        std::fs::write(&path, html(summary).expect("a page")).expect("a file");
        for (scheme, (size, width, height)) in ["light", "dark"].iter().flat_map(|one| sizes.map(|size| (one, size))) {
            browser.scheme(scheme);
            browser.size(width, height);
            browser.open(&path);
            let save = |step: &str| {
                let picture: PathBuf = folder.join(format!("{name}-{scheme}-{size}-{step}.png"));
                std::fs::write(picture, browser.picture()).expect("a file");
            };
            save("opened");
            browser.press("Enter");
            browser.press("Enter");
            save("span");
            browser
                .eval("[...document.querySelectorAll('.pick button')].slice(0, 2).forEach(button => button.click())");
            save("beside");
        }
    }
}
