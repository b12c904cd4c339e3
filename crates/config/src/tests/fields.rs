//! Types of fields as data: what is written, and what is read or refused.

use super::{check, project};
use crate::model::{Check, Field, FieldType, Step, TimeNumber};

/// The fields of a schema, or the codes of what is wrong with it.
fn read(schema: &str) -> Result<Vec<Field>, Vec<String>> {
    let pipeline = "pipeline: p\nsource: {events: {topic: ppp}}\nschema: {file: schemas/s.json}\n";
    let dir =
        project([("levada.yaml", "name: x\n"), ("pipelines/p.yaml", pipeline), ("schemas/s.json", schema)]);
    let mut loaded = check(dir.path());
    match loaded.project.take() {
        Some(mut project) => Ok(project.pipelines.remove(0).schema.expect("a schema").fields),
        None => Err(loaded
            .diagnostics
            .iter()
            .map(|d| format!("{} {}", d.code, d.hint.as_deref().unwrap_or("")))
            .collect()),
    }
}

fn one(keys: &str) -> Result<(FieldType, Option<TimeNumber>), Vec<String>> {
    let fields = read(&format!("{{\"fields\": [{{\"name\": \"f\", {keys}}}]}}"))?;
    Ok((fields[0].kind, fields[0].numbers))
}

#[test]
fn decimals_have_their_digits() {
    let decimal = |precision, scale| Ok((FieldType::Decimal { precision, scale }, None));
    for (keys, want) in [
        (r#""type": "DECIMAL(12,2)""#, decimal(12, 2)),
        (r#""type": "numeric( 12 , 2 )""#, decimal(12, 2)),
        (r#""type": "NUMERIC(5)""#, decimal(5, 0)),
        (r#""type": "NUMERIC""#, decimal(38, 9)),
        (r#""type": "DECIMAL""#, decimal(38, 9)),
        (r#""type": "BIGNUMERIC""#, decimal(38, 9)),
        (r#""type": "BIGNUMERIC(60,10)""#, decimal(38, 10)),
        (r#""type": "NUMERIC", "precision": 12, "scale": 2"#, decimal(12, 2)),
        (r#""type": "NUMERIC", "precision": "12", "scale": "2""#, decimal(12, 2)),
        (r#""type": "DECIMAL(38,38)""#, decimal(38, 38)),
    ] {
        assert_eq!(one(keys), want, "{keys}");
    }
    for keys in [
        r#""type": "DECIMAL(39,2)""#,
        r#""type": "DECIMAL(0)""#,
        r#""type": "DECIMAL(4,5)""#,
        r#""type": "DECIMAL(12,2""#,
        r#""type": "DECIMAL()""#,
        r#""type": "DECIMAL(12,2,1)""#,
        r#""type": "DECIMAL(a)""#,
        r#""type": "BIGNUMERIC(77)""#,
        r#""type": "DECIMAL(12,2)", "precision": 12"#,
        r#""type": "DECIMAL", "scale": 2"#,
        r#""type": "DECIMAL", "precision": "many""#,
        r#""type": "INT64(5)""#,
        r#""type": "DECIMALS(5)""#,
    ] {
        let found = one(keys).expect_err(keys);
        assert!(found.iter().any(|f| f.starts_with("E0112 ")), "{keys}: {found:?}");
    }
}

#[test]
fn numbers_mean_a_time_by_unit_or_format() {
    use TimeNumber::{Days, Digits, Micros, Millis, Nanos, Seconds};
    for (keys, want) in [
        (r#""unit": "s""#, Some(Seconds)),
        (r#""unit": "Milliseconds""#, Some(Millis)),
        (r#""unit": "us""#, Some(Micros)),
        (r#""unit": "nanos""#, Some(Nanos)),
        (r#""unit": "days""#, Some(Days)),
        (r#""format": "epoch_ms""#, Some(Millis)),
        (r#""format": "epoch""#, Some(Seconds)),
        (r#""format": "unix""#, Some(Seconds)),
        (r#""format": "YYYYMMDD""#, Some(Digits(8))),
        (r#""format": "%Y%m%d%H%M%S""#, Some(Digits(14))),
        (r#""format": "yyyyMMddHHmm""#, Some(Digits(12))),
        (r#""format": "YYYY""#, Some(Digits(4))),
        (r#""format": "RFC3339""#, None),
    ] {
        let keys = format!("\"type\": \"TIMESTAMP\", {keys}");
        assert_eq!(one(&keys), Ok((FieldType::Timestamp, want)), "{keys}");
    }
    assert_eq!(one(r#""type": "DATE", "format": "YYYYMMDD""#), Ok((FieldType::Date, Some(Digits(8)))));
    for keys in [
        r#""type": "TIMESTAMP", "unit": "fortnight""#,
        r#""type": "TIMESTAMP", "format": "DD.MM.YYYY""#,
        r#""type": "TIMESTAMP", "unit": "s", "format": "epoch_s""#,
        r#""type": "DATE", "unit": "ms""#,
        r#""type": "DATE", "format": "YYYYMMDDHHMMSS""#,
    ] {
        let found = one(keys).expect_err(keys);
        assert!(found.iter().any(|f| f.starts_with("E0013 ")), "{keys}: {found:?}");
    }
    assert_eq!(
        one(r#""type": "STRING", "format": "email""#),
        Ok((FieldType::String, None)),
        "only a warning"
    );
}

#[test]
fn a_json_schema_names_the_unit_of_a_date_time() {
    let kind = |property: &str| {
        let fields = read(&format!("{{\"type\": \"object\", \"properties\": {{\"f\": {property}}}}}"));
        fields.map(|fields| (fields[0].kind, fields[0].numbers))
    };
    assert_eq!(
        kind(r#"{"type": "integer", "format": "date-time", "unit": "ms"}"#),
        Ok((FieldType::Timestamp, Some(TimeNumber::Millis)))
    );
    assert_eq!(kind(r#"{"type": "string", "format": "date-time"}"#), Ok((FieldType::Timestamp, None)));
    assert_eq!(kind(r#"{"type": "integer", "format": "date-time"}"#), Ok((FieldType::Int64, None)));
    assert_eq!(kind(r#"{"type": "number", "unit": "EUR"}"#), Ok((FieldType::Float64, None)));
}

#[test]
fn bounds_of_a_range_stay_as_written() {
    let pipeline = "pipeline: p\nsource: {events: {topic: ppp}}\nschema: {file: schemas/s.json}\nsteps:\n- quality:\n    \
        rules:\n    - {field: f, check: range, min: 9007199254740993, max: 99999999999999999999.99}\n    \
        - {field: f, check: one_of, values: [1.50, 2]}\n";
    let schema = r#"{"fields": [{"name": "f", "type": "DECIMAL(30,2)"}]}"#;
    let dir =
        project([("levada.yaml", "name: x\n"), ("pipelines/p.yaml", pipeline), ("schemas/s.json", schema)]);
    let project = check(dir.path()).project.expect("a project");
    let [Step::Quality { rules }] = project.pipelines[0].steps.as_slice() else { panic!("rules") };
    let range =
        Check::Range { min: Some("9007199254740993".into()), max: Some("99999999999999999999.99".into()) };
    assert_eq!(rules[0].check, range);
}
