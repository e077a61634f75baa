//! The table of attribute and metric names that the invariants go by is what the crate `opentelemetry-semantic-conventions`
//! says, whose constants carry the types, the stability and the deprecations of the semantic conventions as comments.
//! `TRACEGATE_BLESS=1 cargo test -p tracegate --test conventions` writes it anew after an update of that crate.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use regex::Regex;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/invariant/conventions.tsv");

/// Where Cargo has unpacked the crate's source.
fn sources() -> PathBuf {
    let lock = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    let name = "opentelemetry-semantic-conventions";
    let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).expect("it is in Cargo.lock");
    let version = package.split('"').next().unwrap_or_default();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).expect("CARGO_HOME or HOME");
    let registries = fs::read_dir(home.join("registry/src")).expect("sources of a registry").flatten();
    let mut places = registries.map(|registry| registry.path().join(format!("{name}-{version}")).join("src"));
    places
        .find(|place| place.is_dir())
        .unwrap_or_else(|| panic!("no source of {name} {version} below {}", home.display()))
}

/// The wire type that the examples show; `None` where there are none.
fn wire_type(doc: &str) -> Option<&'static str> {
    let (_, examples) = doc.split_once("# Examples")?;
    let first = examples.lines().find_map(|line| line.strip_prefix("/// - "))?.trim_matches('`');
    Some(match first {
        "true" | "false" => "bool",
        text if text.starts_with('"') => "string",
        text if text.starts_with('[') => "array",
        text if text.parse::<i64>().is_ok() => "int",
        text if text.parse::<f64>().is_ok() => "double",
        _ => return None,
    })
}

/// What stands instead of a deprecated name; `None` for what only moved to another document.
fn successor(note: &str) -> Option<String> {
    let note = note.split_once("note: ").map_or(note, |(_, note)| note);
    let note = note.rsplit_once(", reason: ").map_or(note, |(note, _)| note);
    let note = note.replace("\\n", " ").trim().trim_end_matches('.').to_owned();
    let moved = note.starts_with("Moved to") || note.contains("which has moved to");
    (!moved && !note.is_empty()).then(|| note.replace("Uncategorized", "Removed"))
}

fn generated() -> String {
    let folder = sources();
    let constant = Regex::new(r#"(?m)((?:^///.*\n)+)((?:^(?:#\[|    |\)\]).*\n)*)^pub const \w+: &str =\s*"([^"]+)";"#)
        .expect("an expression");
    let note = Regex::new(r#"note = "(.*)""#).expect("an expression");
    let mut lines = BTreeSet::new();
    for (what, file) in [("attribute", "attribute.rs"), ("metric", "metric.rs")] {
        let text = fs::read_to_string(folder.join(file)).expect("the crate's source");
        for found in constant.captures_iter(&text) {
            let (doc, attributes, name) = (&found[1], &found[2], &found[3]);
            // `state` and the like are anybody's words.
            if !name.contains('.') {
                continue;
            }
            let stable = !attributes.contains("semconv_experimental");
            match note.captures(attributes) {
                Some(note) => {
                    lines.extend(successor(&note[1]).map(|then| format!("{what}\t{name}\tdeprecated\t{then}")));
                }
                None if stable && what == "attribute" => {
                    lines.extend(wire_type(doc).map(|wire| format!("{what}\t{name}\tstable\t{wire}")));
                }
                None => {}
            }
        }
    }
    assert!(lines.len() > 200, "only {} names were found; has the crate's source another form?", lines.len());
    let lines: Vec<String> = lines.into_iter().collect();
    let schema = opentelemetry_semantic_conventions::SCHEMA_URL;
    format!("# {schema}; made by tests/conventions.rs\n{}\n", lines.join("\n"))
}

#[test]
fn the_table_of_names_is_that_of_the_semantic_conventions_crate() {
    let generated = generated();
    if env::var_os("TRACEGATE_BLESS").is_some() {
        fs::write(TABLE, &generated).expect("the table is written");
    }
    let table = fs::read_to_string(TABLE).unwrap_or_default();
    assert!(table == generated, "the table is not current; TRACEGATE_BLESS=1 writes it anew");
}
