//! What docs/your-service.md tells users to write is what the harness reads.

use std::path::Path;

use tracegate::{config::Config, gherkin};

/// The code blocks of a language, without the indentation of a list.
fn blocks(language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/your-service.md");
    let text = std::fs::read_to_string(path).unwrap();
    let open = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == open {
            let indent = line.len() - line.trim_start().len();
            let inside = lines.by_ref().take_while(|line| line.trim() != "```");
            blocks.push(inside.map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect());
        }
    }
    blocks
}

#[test]
fn every_configuration_of_the_page_is_one() {
    let blocks = blocks("toml");
    assert!(blocks.len() > 4, "{blocks:?}");
    let web = "[deployments.web]\nkind = 'process'\ncommand = ['x']\nready = { http = '/' }\n";
    for block in blocks {
        let whole = match block.starts_with('[') {
            true if block.contains("[deployments.") => block,
            true => format!("{block}\n{web}"),
            false => format!("{web}{block}"),
        };
        let read = Config::parse(&whole, Path::new("/"), Path::new("tracegate.toml"));
        assert!(read.is_ok(), "{}\n{whole}", read.unwrap_err());
    }
}

#[test]
fn every_step_of_the_starter_is_in_the_vocabulary() {
    let blocks = blocks("gherkin");
    let [starter] = blocks.as_slice() else { panic!("{blocks:?}") };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("starter.feature");
    std::fs::write(&file, starter).unwrap();
    let selection = gherkin::select(&[file], None).unwrap();
    assert_eq!(selection.scenarios().count(), 5);
}
