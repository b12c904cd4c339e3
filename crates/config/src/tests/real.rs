//! The starter's schemas hold what real inputs bring, where those lie beside the checkout.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{check, project};
use crate::model::{FieldType, Pipeline, Source};
use crate::starter;

fn data(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        println!("{} is not here", path.display());
    }
    path.exists().then_some(path)
}

fn pipeline(name: &str) -> Pipeline {
    let dir = project(starter("demo"));
    let project = check(dir.path()).project.expect("a project");
    project.pipelines.into_iter().find(|p| p.name.as_str() == name).expect(name)
}

fn fits(kind: FieldType, text: &str) -> bool {
    match kind {
        FieldType::Int64 => text.parse::<i64>().is_ok(),
        FieldType::Float64 => text.parse::<f64>().is_ok_and(f64::is_finite),
        FieldType::Timestamp => text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T',
        _ => true,
    }
}

/// A second reading of the file, with nothing of the engine: every row fits and no key repeats.
#[test]
fn every_weather_row_fits_the_starters_schema() {
    let Some(path) = data("weather/nyc-2013-hourly.csv") else { return };
    let pipeline = pipeline("weather");
    let Source::Files(files) = &pipeline.source else { panic!("files") };
    let fields = &pipeline.schema.as_ref().expect("a schema").fields;
    let text = std::fs::read_to_string(path).expect("the file");
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let columns: Vec<_> = fields
        .iter()
        .map(|f| (f, header.iter().position(|h| *h == f.path[0]).expect("a column for each field")))
        .collect();
    assert_eq!(header.len(), fields.len(), "a field for each column");
    let mut keys = HashSet::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        for (field, at) in &columns {
            let null = files.null_values.iter().any(|n| n == cells[*at]);
            assert!(
                if null { !field.required } else { fits(field.kind, cells[*at]) },
                "{}: {line}",
                field.name
            );
        }
        keys.insert((cells[0], cells[14]));
    }
    assert_eq!(keys.len(), 26_115);
}

#[test]
fn every_webhook_fits_the_starters_schema() {
    let Some(path) = data("webhooks/github") else { return };
    let pipeline = pipeline("webhooks");
    let fields = &pipeline.schema.as_ref().expect("a schema").fields;
    let mut bodies = 0;
    for entry in std::fs::read_dir(path).expect("the folder") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a body");
        let body: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        bodies += 1;
        for field in fields.iter().filter(|f| f.path.first().is_none_or(|p| p != "@")) {
            let value = field.path.iter().try_fold(&body, |value, key| value.get(key));
            let fits = match value {
                None | Some(serde_json::Value::Null) => !field.required,
                Some(value) => field.kind == FieldType::Json || value.is_string(),
            };
            assert!(fits, "{} of {text}", field.name);
        }
    }
    assert_eq!(bodies, 105);
}
