//! A large project is checked quickly: `up` has five seconds for it and everything else.

use std::time::Instant;

use super::{check, project};

/// 500 connectors with a schema each and 1,000 models.
fn large() -> Vec<(String, String)> {
    let mut files = vec![("levada.yaml".to_owned(), "name: large\n".to_owned())];
    for i in 0..500 {
        let fields: Vec<String> =
            (0..12).map(|f| format!("{{\"name\": \"f{f}\", \"type\": \"STRING\"}}")).collect();
        files.push((
            format!("schemas/s{i}.json"),
            format!("{{\"version\": \"1\", \"fields\": [{}]}}", fields.join(", ")),
        ));
        let yaml = format!(
            "source_id: s{i}\ndisplay_name: Source {i}\ningestion:\n  pattern: batch_file\n  location: gs://in/s{i}/\n  \
             schedule: \"{} 3 * * *\"\n  format: json\nschema:\n  file: schemas/s{i}.json\nprocessing:\n  bronze_to_silver:\n  \
             - deduplication:\n      key: [f0, f1]\n  - data_quality:\n      rules:\n      - {{field: f2, check: not_null}}\n      \
             - {{field: f3, check: regex, pattern: \"^[a-z]+{i}$\"}}\n",
            i % 60
        );
        files.push((format!("connectors/s{i}.yaml"), yaml));
    }
    for i in 0..1_000 {
        let from = if i == 0 { "silver.s0".to_owned() } else { format!("gold.m{}", i - 1) };
        files.push((
            format!("models/m{i}.sql"),
            format!(
                "--! schedule: cron 5 * * * *\nselect f0 from {from} join silver.s{} using (f0)",
                i % 500
            ),
        ));
    }
    files
}

#[test]
fn a_thousand_tables_are_checked_at_once() {
    let dir = project(large());
    let start = Instant::now();
    let loaded = check(dir.path());
    let took = start.elapsed();
    println!("500 connectors and 1,000 models in {took:?}");
    assert!(loaded.diagnostics.is_empty());
    let project = loaded.project.expect("a project");
    assert_eq!((project.pipelines.len(), project.models.len()), (500, 1_000));
    // Without optimisation the time says nothing; regular expressions alone take seconds.
    if !cfg!(debug_assertions) {
        assert!(took.as_millis() < 1_000, "{took:?}");
    }
}
