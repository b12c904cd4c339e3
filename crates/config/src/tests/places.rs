//! Where findings of the query engine are shown: the place in the query becomes one in the file.

use levada_core::{SourceName, TextPosition};

use crate::model::{Owner, Step};
use crate::{Place, Refused};

const SCHEMA: &str = r#"{"fields": [{"name": "id", "type": "STRING"}, {"name": "n", "type": "INT64"}]}"#;

/// Refuses the second step of a pipeline that is written like this.
fn step(sql: &str, at: Option<(u32, u32)>, reason: &str) -> (u32, u32, String) {
    let text = format!(
        "pipeline: a\nsource: {{events: {{topic: orders}}}}\nschema: {{file: schemas/a.json}}\nsteps:\n  - deduplicate: {{ key: id }}\n{sql}"
    );
    let files = [("levada.yaml", "name: x\n"), ("pipelines/a.yaml", &text), ("schemas/a.json", SCHEMA)];
    let dir = super::project(files);
    let mut loaded = super::check(dir.path());
    let project = loaded.project.as_ref().unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    let pipeline = &project.pipelines[0];
    let Step::Sql { query } = &pipeline.steps[1] else { panic!("{pipeline:?}") };
    let refused = Refused {
        place: Place::Step { index: 1, query: Some(query.clone()) },
        owner: pipeline.owner.clone(),
        name: pipeline.name.clone(),
        reason: reason.to_owned(),
        hint: None,
        at: at.map(|(line, column)| TextPosition { line, column }),
    };
    loaded.refuse(&[refused]);
    assert!(loaded.project.is_none());
    let found = &loaded.diagnostics[0];
    assert_eq!((found.code, found.hint.is_some()), ("E0125", true));
    let line = found.source_line.as_deref().unwrap_or_default();
    (found.line, found.column, line[found.underline.0..found.underline.1].to_owned())
}

#[test]
fn a_place_in_a_query_is_found_however_yaml_writes_it() {
    let block = "  - sql: |\n      select id,\n             m\n\n      from input\n";
    assert_eq!(step(block, Some((2, 8)), "no `m`"), (8, 14, "m".into()));
    assert_eq!(step(block, Some((4, 6)), ""), (10, 12, "input".into()));
    let nested = "  - sql:\n      query: |-\n        select id, m\n        from input\n";
    assert_eq!(step(nested, Some((1, 12)), ""), (8, 20, "m".into()));
    let plain = "  - sql: select id, m from input\n";
    assert_eq!(step(plain, Some((1, 12)), ""), (6, 21, "m".into()));
    // Without a place the name in the reason is looked up.
    assert_eq!(step(plain, None, "there is no column `input.m`"), (6, 21, "m".into()));
    // A folded query is one line to the engine and several in the file: the query is shown.
    let folded = "  - sql: >\n      select id,\n      m from input\n";
    assert_eq!(step(folded, Some((1, 12)), "").0, 7);
    assert_eq!(step(plain, None, "something else").0, 6);
}

#[test]
fn a_place_in_a_model_is_counted_from_the_head_of_its_file() {
    let text = "\n--! schedule: manual\nselect tenant_id,\n  amount\nfrom silver.a\n";
    let pipeline = "pipeline: a\nsource: {events: {topic: orders}}\nschema: {file: schemas/a.json}\n";
    let files = [
        ("levada.yaml", "name: x\n"),
        ("pipelines/a.yaml", pipeline),
        ("schemas/a.json", SCHEMA),
        ("models/m.sql", text),
    ];
    let dir = super::project(files);
    let mut loaded = super::check(dir.path());
    let model = loaded.project.as_ref().expect("a project").models[0].clone();
    // The engine gets the text without the empty line.
    let at = Some(TextPosition { line: 3, column: 3 });
    loaded.refuse(&[Refused {
        place: Place::Model { query: model.sql },
        owner: model.owner,
        name: model.name,
        reason: "there is no column `amount`".into(),
        hint: Some("columns: id, n".into()),
        at,
    }]);
    let found = &loaded.diagnostics[0];
    assert_eq!((found.code, found.line, found.column), ("E0135", 4, 3));
    assert_eq!(found.hint.as_deref(), Some("columns: id, n"));
    assert_eq!(found.file.to_str(), Some("models/m.sql"));
}

#[test]
fn what_has_no_place_is_still_a_finding() {
    let dir = super::project([("levada.yaml", "name: x\n")]);
    let mut loaded = super::check(dir.path());
    loaded.refuse(&[Refused {
        place: Place::Pipeline,
        owner: Owner::Shared,
        name: SourceName::new("lost").expect("a name"),
        reason: "no place".into(),
        hint: None,
        at: None,
    }]);
    assert!(loaded.project.is_none() && loaded.diagnostics[0].message.contains("lost"));
}
