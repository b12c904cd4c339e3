//! The project check as a whole: folders in, findings out.

use std::fs;
use std::path::Path;

use super::*;

mod bounds;
mod fields;
mod golden;
mod mutation;
mod places;
mod real;
mod seed;
mod speed;

/// Writes files into a fresh folder.
pub(crate) fn project<P: AsRef<Path>, T: AsRef<str>>(
    files: impl IntoIterator<Item = (P, T)>,
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make folders");
        fs::write(path, text.as_ref()).expect("write");
    }
    dir
}

/// Checks a folder with no secrets and no environment.
pub(crate) fn check(root: &Path) -> Loaded {
    load_with(root, &Secrets::default(), &|_| None)
}

#[test]
fn the_starter_has_no_findings_and_runs_whole() {
    let dir = project(starter("It's \"mine\": demo"));
    let loaded = check(dir.path());
    assert_eq!(render_all(&loaded.diagnostics, Style::Plain), "");
    let project = loaded.project.expect("a project");
    assert_eq!(project.name, "It's \"mine\": demo");
    let report = Report::of(&project);
    let names: Vec<&str> = report.runs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["checkins", "weather", "webhooks", "gold.station_days", "gold.webhook_activity"]);
    assert!(report.waits.is_empty() && report.inactive.is_empty(), "{report}");
    let tenants: Vec<&str> = project.tenants.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(tenants, ["default", "northwind", "lakeside"]);
}

#[test]
fn the_weather_service_of_the_starter_comes_from_the_environment() {
    let dir = project(starter("demo"));
    let loaded = load_with(dir.path(), &Secrets::default(), &|n| {
        (n == "LEVADA_WEATHER_URL").then(|| "http://w:1".to_owned())
    });
    let project = loaded.project.expect("a project");
    let url = project.pipelines.iter().flat_map(|p| &p.steps).find_map(|step| match step {
        model::Step::Enrich(enrich) => Some(enrich.url.as_str()),
        _ => None,
    });
    assert_eq!(url, Some("http://w:1/v1/observations/{station}/{checked_in_at}"));
}

#[test]
fn a_schema_may_declare_the_tenant_that_a_body_names_and_an_enrichment_may_not() {
    let pipeline =
        "pipeline: orders\nsource: {events: {topic: orders}}\nschema: {file: schemas/orders.json}\n";
    let schema = r#"{"fields": [{"name": "tenant_id", "path": "meta.tenant", "type": "STRING"}, {"name": "n", "type": "INT64"}]}"#;
    let with = |steps: &str| {
        project([
            ("levada.yaml", "name: x\n".to_owned()),
            ("pipelines/orders.yaml", format!("{pipeline}{steps}")),
            ("schemas/orders.json", schema.to_owned()),
        ])
    };
    let dir = with("");
    let loaded = check(dir.path());
    let project = loaded.project.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let field = &project.pipelines[0].schema.as_ref().expect("a schema").fields[0];
    assert_eq!((field.name.as_str(), field.path.join(".").as_str()), ("tenant_id", "meta.tenant"));
    let dir = with(
        "steps:\n  - enrich:\n      name: who\n      url: http://who.example/{n}\n      fields: [{name: tenant_id, type: STRING}]\n",
    );
    let codes: Vec<&str> = check(dir.path()).diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["E0113"]);
}
