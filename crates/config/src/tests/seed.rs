//! The connector dialect as the platform document prints it.

use super::{check, project};
use crate::model::{FileFolder, FileFormat, Owner, Source, Step, Validation};
use crate::{Loaded, Project, Report, Style, render_all};

const NESTED: &str = include_str!("../../testdata/dialect/example_source.yaml");
const NESTED_SCHEMA: &str = include_str!("../../testdata/dialect/example_source.json");
const FLAT: [(&str, &str); 5] = [
    ("connectors/files.yaml", include_str!("../../testdata/dialect/files.yaml")),
    ("connectors/api.yaml", include_str!("../../testdata/dialect/api.yaml")),
    ("connectors/cdc.yaml", include_str!("../../testdata/dialect/cdc.yaml")),
    ("connectors/transfer.yaml", include_str!("../../testdata/dialect/transfer.yaml")),
    ("connectors/sensors.yaml", include_str!("../../testdata/dialect/sensors.yaml")),
];

fn codes(loaded: &Loaded) -> Vec<&'static str> {
    loaded.diagnostics.iter().map(|d| d.code).collect()
}

fn loaded(files: &[(&str, &str)]) -> (Loaded, Project) {
    let all = files.iter().copied().chain([("levada.yaml", "name: seed\n")]);
    let dir = project(all);
    let mut loaded = check(dir.path());
    let project = loaded.project.take();
    let shown = render_all(&loaded.diagnostics, Style::Plain);
    (loaded, project.unwrap_or_else(|| panic!("{shown}")))
}

/// What must hold of the nested example, whether ours or the document's own text.
fn check_nested(yaml: &str, schema: &str) {
    let (loaded, project) =
        loaded(&[("connectors/example_source.yaml", yaml), ("schemas/example_source.json", schema)]);
    assert_eq!(codes(&loaded), ["W0103", "W0104"], "{}", render_all(&loaded.diagnostics, Style::Plain));
    let [pipeline] = project.pipelines.as_slice() else { panic!("one pipeline") };
    let Source::Files(files) = &pipeline.source else { panic!("files") };
    assert_eq!(files.folder, FileFolder::Bucket { bucket: "landing-zone".into(), prefix: "example".into() });
    assert_eq!(
        (files.format, files.gzip, files.schedule.as_deref()),
        (FileFormat::Json, Some(true), Some("0 3 * * *"))
    );
    assert_eq!(pipeline.validation, Validation::Strict);
    let waiting: Vec<&str> = pipeline.waiting.iter().map(|w| w.step.as_str()).collect();
    assert_eq!(waiting, ["data_quality: email valid_email", "join gold.customers"]);
    let [Step::Deduplicate(deduplicate), Step::Quality { rules }] = pipeline.steps.as_slice() else {
        panic!("{:?}", pipeline.steps)
    };
    assert_eq!(deduplicate.key.iter().map(|k| k.as_str()).collect::<Vec<_>>(), ["id", "timestamp"]);
    assert_eq!(rules.iter().map(|r| r.field.as_str()).collect::<Vec<_>>(), ["amount"]);
    let [model] = project.models.as_slice() else { panic!("one model") };
    assert_eq!(
        model.sql,
        "select s.\"customer_id\" as \"customer_id\", cast(s.\"timestamp\" as date) as \"date\", \
         sum(s.\"amount\") as \"total_amount\", count(*) as \"transaction_count\"\n\
         from silver.example_source as s\n\
         group by s.\"customer_id\", cast(s.\"timestamp\" as date)"
    );
    assert_eq!((model.name.as_str(), &model.waiting), ("example_source", &None));
    let inactive: Vec<&str> = project.inactive.iter().map(|i| i.part.as_str()).collect();
    assert_eq!(
        inactive,
        [
            "serving.third_party_api",
            "serving.reporting",
            "monitoring.sla_minutes",
            "monitoring.alert_email",
            "monitoring.metrics"
        ]
    );
}

/// What must hold of the five flat examples.
fn check_flat(files: &[(&str, &str)]) {
    let (loaded, project) = loaded(files);
    assert_eq!(codes(&loaded), ["W0102", "W0102"], "{}", render_all(&loaded.diagnostics, Style::Plain));
    let names: Vec<&str> = project.pipelines.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for pipeline in &project.pipelines {
        assert!(pipeline.schema.is_none() && pipeline.waiting.len() == 1);
        match &pipeline.source {
            Source::Events { topic, event_types } => {
                assert_eq!((topic.as_str(), event_types.len()), ("iot-events", 0));
                assert_eq!(pipeline.owner, Owner::Shared);
            }
            Source::Files(files) => assert_eq!((files.format, files.gzip), (FileFormat::Csv, None)),
        }
    }
    let mut inactive: Vec<&str> = project.inactive.iter().map(|i| i.part.as_str()).collect();
    inactive.sort_unstable();
    assert_eq!(
        inactive,
        ["pattern cloud_transfer", "pattern database_cdc", "pattern streaming_api", "window_size"]
    );
    let report = Report::of(&project).to_string();
    assert!(report.contains("waits (2)") && report.contains("parsed only (4)"), "{report}");
}

#[test]
fn the_nested_form_runs_with_its_gaps_waiting() {
    check_nested(NESTED, NESTED_SCHEMA);
}

#[test]
fn the_five_flat_forms_parse_and_two_run() {
    check_flat(&FLAT);
}

#[test]
fn a_joined_table_that_exists_is_joined() {
    let model = ("models/customers.sql", "select customer_id, amount from silver.example_source");
    let (loaded, project) = loaded(&[
        ("connectors/example_source.yaml", NESTED),
        ("schemas/example_source.json", NESTED_SCHEMA),
        model,
    ]);
    assert_eq!(codes(&loaded), ["W0103"]);
    let order: Vec<&str> = project.models.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(order, ["customers", "example_source"], "a model comes after what it reads");
    let sql = &project.models[1].sql;
    assert!(sql.contains("join gold.customers as j1 using (\"customer_id\")"), "{sql}");
}

#[test]
fn a_shared_aggregate_keeps_tenants_apart() {
    let yaml = "source_id: taps\npattern: event_streaming\npubsub_topic: taps\nschema_file: schemas/taps.json\n\
        processing:\n  silver_to_gold:\n  - aggregate:\n      group_by: [station]\n      metrics: count(distinct card) as cards\n";
    let schema = r#"{"fields": [{"name": "station", "type": "STRING"}, {"name": "card", "type": "STRING"}]}"#;
    let (_, project) = loaded(&[("connectors/taps.yaml", yaml), ("schemas/taps.json", schema)]);
    let model = &project.models[0];
    assert_eq!(model.owner, Owner::Shared);
    assert_eq!(
        model.sql,
        "select s.tenant_id, s.\"station\" as \"station\", count(distinct s.\"card\") as \"cards\"\n\
         from silver.taps as s\ngroup by s.tenant_id, s.\"station\""
    );
}

/// The document's own text, where it lies beside the checkout.
#[test]
fn the_documents_examples_parse_as_they_stand() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/seeds/data-platform.md");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("the document is not here; the fixtures above stand in for it");
        return;
    };
    let blocks = |language: &str| -> Vec<String> {
        let fence = format!("```{language}\n");
        text.split(&fence)
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
            .collect()
    };
    let (nested, flat): (Vec<String>, Vec<String>) = blocks("yaml")
        .into_iter()
        .filter(|b| b.contains("source_id:"))
        .partition(|b| b.contains("ingestion:"));
    assert_eq!((nested.len(), flat.len()), (1, 5));
    let schema = blocks("json").into_iter().find(|b| b.contains("\"fields\"")).expect("the schema");
    check_nested(&nested[0], &schema);
    let names: Vec<String> = (0..flat.len()).map(|i| format!("connectors/c{i}.yaml")).collect();
    let files: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(flat.iter().map(String::as_str)).collect();
    check_flat(&files);
}

#[test]
fn json_schema_gives_columns_in_the_documents_order() {
    use crate::model::FieldType::{Bool, Date, Float64, Int64, Json, String as Text, Timestamp};
    let pipeline = "pipeline: orders\nsource: {events: {}}\nschema: {file: schemas/order.json}\n";
    let schema = include_str!("../../testdata/dialect/json_schema.json");
    let (_, project) = loaded(&[("pipelines/orders.yaml", pipeline), ("schemas/order.json", schema)]);
    let schema = project.pipelines[0].schema.as_ref().expect("a schema");
    assert!(schema.json_schema.is_some());
    let fields: Vec<_> =
        schema.fields.iter().map(|f| (f.name.as_str(), f.path.join("."), f.kind, f.required)).collect();
    let expected = [
        ("order_id", "orderId", Text, true),
        ("total", "total", Float64, true),
        ("lines", "lines", Json, false),
        ("placed", "placed", Timestamp, false),
        ("due", "due", Date, false),
        ("gift", "gift", Bool, false),
        ("count", "count", Int64, false),
        ("address", "address", Json, false),
    ];
    assert_eq!(fields, expected.map(|(name, path, kind, required)| (name, path.to_owned(), kind, required)));
}

#[test]
fn a_delimiter_and_quiet_times_are_read_in_both_dialects() {
    use crate::model::{Delimiter, FileSource};
    use std::time::Duration;

    let schema = ("schemas/a.json", r#"{"fields": [{"name": "n", "type": "INT64"}]}"#);
    let own = |more: &str| {
        let yaml = format!(
            "pipeline: a\nsource:\n  files:\n    location: in\n    format: csv\n{more}schema: {{file: schemas/a.json}}\n"
        );
        let (_, project) = loaded(&[("pipelines/a.yaml", &yaml), schema]);
        let Source::Files(files) = project.pipelines[0].source.clone() else { panic!("files") };
        (files.delimiter, files.settle, files.settle_end)
    };
    let seconds = Duration::from_secs;
    assert_eq!(own(""), (Delimiter::Comma, FileSource::SETTLE, FileSource::SETTLE_END));
    for (written, wanted) in [
        ("\";\"", Delimiter::Semicolon),
        (";", Delimiter::Semicolon),
        ("\"\\t\"", Delimiter::Tab),
        ("\\t", Delimiter::Tab),
        ("tab", Delimiter::Tab),
        ("'|'", Delimiter::Pipe),
        ("','", Delimiter::Comma),
    ] {
        assert_eq!(own(&format!("    delimiter: {written}\n")).0, wanted, "{written}");
    }
    assert_eq!(own("    settle: 90s\n").2, seconds(90), "the end is not proven sooner than the rest");
    assert_eq!(own("    settle: 0s\n    settle_end: 1m\n"), (Delimiter::Comma, seconds(0), seconds(60)));

    let yaml = "source_id: b\npattern: batch_file\nlocation: in\nformat: csv\ndelimiter: tab\nsettle: 1s\nschema_file: schemas/a.json\n";
    let (found, project) = loaded(&[("connectors/b.yaml", yaml), schema]);
    assert_eq!(codes(&found), Vec::<&str>::new());
    let Source::Files(files) = &project.pipelines[0].source else { panic!("files") };
    assert_eq!((files.delimiter, files.settle), (Delimiter::Tab, seconds(1)));
}
