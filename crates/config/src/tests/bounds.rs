//! Documents that grow without end are read in one pass or refused with their place. Each of these
//! sizes took minutes, or all memory, where the work grew with its square or with each alias.

use std::fmt::Write as _;

use super::{check, project};
use crate::Diagnostic;

fn findings(path: &str, text: String) -> Vec<Diagnostic> {
    let files = [("levada.yaml", "name: x\n".to_owned()), (path, text)];
    check(project(files).path()).diagnostics
}

#[track_caller]
fn refused(text: String) -> Diagnostic {
    let found = findings("levada.yaml", text);
    let large = found.into_iter().find(|d| d.code == "E0005").expect("too large");
    assert_eq!(large.file.to_string_lossy(), "levada.yaml");
    large
}

#[test]
fn a_map_of_a_million_keys_is_refused_where_it_is_too_long() {
    let mut text = "name: x\n".to_owned();
    // As many as fit into 4 MiB, the longest file that is read.
    for i in 0..330_000 {
        writeln!(text, "k{i}: 1").expect("a text");
    }
    let found = refused(text);
    assert!(found.line > 90_000 && found.column == 1, "{}:{}", found.line, found.column);
}

#[test]
fn keys_written_twice_or_unknown_are_counted_beyond_what_is_shown() {
    for line in ["name: x\n", "colour: 1\n"] {
        let found = findings("levada.yaml", format!("name: x\n{}", line.repeat(80_000)));
        assert!(found.len() <= 1_001, "{}", found.len());
        assert!(found.last().expect("some").message.contains("more findings"), "{:?}", found.last());
    }
    // The same on one line, where each column is far from the line's start.
    let flow = format!("name: x\nlimits: {{{}}}\n", "é: 1, ".repeat(80_000));
    assert!(findings("levada.yaml", flow).len() <= 1_001);
    let json = format!("{{\"fields\": [], {}\"version\": \"1\"}}", "\"version\": \"é\", ".repeat(80_000));
    let schema = "pipeline: p\nsource: {events: {topic: ppp}}\nschema: {file: schemas/s.json}\n";
    let files = [
        ("levada.yaml", "name: x\n".to_owned()),
        ("pipelines/p.yaml", schema.to_owned()),
        ("schemas/s.json", json),
    ];
    assert!(check(project(files).path()).diagnostics.len() <= 1_001);
}

#[test]
fn long_lists_are_read_in_one_pass() {
    let mut tenants = "name: x\ntenants:\n".to_owned();
    let mut types = "pipeline: p\nsource:\n  events:\n    topic: ppp\n    event_types:\n".to_owned();
    for i in 0..90_000 {
        writeln!(tenants, "- t{i}").expect("a text");
        writeln!(types, "    - a.b").expect("a text");
    }
    types.push_str("schema: {file: schemas/s.json}\n");
    let schema = r#"{"fields": [{"name": "id", "type": "STRING"}]}"#.to_owned();
    let files = [("levada.yaml", tenants), ("pipelines/p.yaml", types), ("schemas/s.json", schema)];
    let found = check(project(files).path());
    assert!(found.diagnostics.is_empty(), "{:?}", found.diagnostics.first());
}

#[test]
fn aliases_cannot_multiply_values_or_texts() {
    let mut laughs = "name: x\na0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        writeln!(laughs, "a{i}: &a{i} [{}]", [before.as_str(); 10].join(", ")).expect("a text");
    }
    refused(laughs);
    let long = "x".repeat(2 << 20);
    refused(format!("name: x\na: &a {long}\nb: [{}]\n", "*a, ".repeat(50_000)));
    let nested = format!("{}{}", (0..60).map(|i| format!("&n{i} [")).collect::<String>(), long);
    refused(format!("name: x\na: {nested}{}\n", "]".repeat(60)));
}

/// The reader of YAML has a bound of its own for some of these.
#[track_caller]
fn first_error(text: String) -> Diagnostic {
    let found = findings("levada.yaml", text);
    found.into_iter().find(|d| matches!(d.code, "E0002" | "E0005")).expect("refused")
}

#[test]
fn nesting_is_refused_at_its_depth() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let text = format!("name: x\na: {}1{}\n", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(first_error(text).line, 2);
    }
    let dashes = format!("name: x\na:\n{}1\n", "- ".repeat(100_000));
    assert_eq!(first_error(dashes).line, 3);
}

#[test]
fn a_schema_of_too_many_fields_names_the_first_beyond() {
    let fields: Vec<String> =
        (0..6_000).map(|i| format!("{{\"name\": \"f{i}\", \"type\": \"STRING\"}}")).collect();
    let list = format!("{{\"fields\": [\n{}]}}", fields.join(",\n"));
    let properties: Vec<String> = (0..6_000).map(|i| format!("\"f{i}\": {{\"type\": \"string\"}}")).collect();
    let document = format!("{{\"type\": \"object\", \"properties\": {{\n{}}}}}", properties.join(",\n"));
    for schema in [list, document] {
        let pipeline = "pipeline: p\nsource: {events: {topic: ppp}}\nschema: {file: schemas/s.json}\n";
        let files = [
            ("levada.yaml", "name: x\n".to_owned()),
            ("pipelines/p.yaml", pipeline.to_owned()),
            ("schemas/s.json", schema),
        ];
        let found = check(project(files).path()).diagnostics;
        let places: Vec<(&str, u32)> = found.iter().map(|d| (d.code, d.line)).collect();
        assert!(places.contains(&("E0113", 5_002)), "{places:?}");
    }
}
