//! Decimals and times that are numbers: what is kept, digit by digit, and what is refused.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, TimestampMicrosecondType};
use levada_config::model::{FieldType, Schema, TimeNumber, Validation};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{decode, field, numbers, one, schema};
use crate::parse_timestamp;

fn money(precision: u8, scale: u8) -> Schema {
    schema(vec![field("m", FieldType::Decimal { precision, scale })])
}

/// A decimal column's text of one body, however it came.
#[track_caller]
fn check(kind: (u8, u8), body: &str, want: Result<&str, &str>) {
    let want = want.map(str::to_owned).map_err(|code| format!("{code} m"));
    let s = money(kind.0, kind.1);
    for (validation, textual) in [(Validation::Strict, false), (Validation::Lenient, false)] {
        assert_eq!(one(&s, validation, textual, body), want, "{validation:?} {body}");
    }
    if body.contains(":\"") {
        assert_eq!(one(&s, Validation::Strict, true, body), want, "textual {body}");
    }
}

#[test]
fn a_decimal_keeps_every_digit_or_is_refused() {
    let ok = |kind, body, want| check(kind, body, Ok(want));
    let no = |kind, body, code| check(kind, body, Err(code));
    ok((12, 2), r#"{"m":0.1}"#, "0.10");
    ok((12, 2), r#"{"m":-0}"#, "0.00");
    ok((12, 2), r#"{"m":1e3}"#, "1000.00");
    ok((12, 2), r#"{"m":"1234567890.10"}"#, "1234567890.10");
    ok((12, 2), r#"{"m":1.50000000}"#, "1.50");
    ok((20, 2), r#"{"m":12345678901234567.89}"#, "12345678901234567.89");
    ok(
        (38, 9),
        r#"{"m":"99999999999999999999999999999.999999999"}"#,
        "99999999999999999999999999999.999999999",
    );
    ok((38, 0), r#"{"m":99999999999999999999999999999999999999}"#, "99999999999999999999999999999999999999");
    ok((38, 9), r#"{"m":null}"#, "-");
    no((12, 2), r#"{"m":1.005}"#, "schema-decimal-scale");
    no((12, 2), r#"{"m":12345678901}"#, "schema-decimal-range");
    no((38, 9), r#"{"m":"999999999999999999999999999999999999999"}"#, "schema-decimal-range");
    no((38, 9), r#"{"m":1e400}"#, "schema-decimal-range");
    no((38, 9), r#"{"m":1e-400}"#, "schema-decimal-scale");
    no((12, 2), r#"{"m":"1,000.00"}"#, "schema-type");
    no((12, 2), r#"{"m":"NaN"}"#, "schema-type");
    no((12, 2), r#"{"m":true}"#, "schema-type");
    no((12, 2), r#"{"m":[1]}"#, "schema-type");
}

#[test]
fn random_decimals_come_back_as_their_text() {
    let seed = std::env::var("LEVADA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0xdec2_u64);
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..5_000 {
        let precision = rng.random_range(1..=38u8);
        let scale = rng.random_range(0..=precision);
        let digits = rng.random_range(1..=usize::from(precision));
        let number: String = (0..digits).map(|_| char::from(b'0' + rng.random_range(0..10u8))).collect();
        let padded = format!("{number:0>width$}", width = usize::from(scale) + 1);
        let (whole, fraction) = padded.split_at(padded.len() - usize::from(scale));
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let point = if scale > 0 { "." } else { "" };
        let zero = number.bytes().all(|d| d == b'0');
        let minus = if !zero && rng.random_bool(0.5) { "-" } else { "" };
        let text = format!("{minus}{whole}{point}{fraction}");
        let s = money(precision, scale);
        for body in [format!("{{\"m\":{text}}}"), format!("{{\"m\":\"{text}\"}}")] {
            let textual = body.contains(":\"");
            let got = one(&s, Validation::Lenient, textual, &body);
            assert_eq!(got.as_deref(), Ok(text.as_str()), "DECIMAL({precision},{scale})");
        }
        let longer = format!("{{\"m\":{minus}{whole}.{fraction}1}}");
        assert!(one(&s, Validation::Lenient, false, &longer).is_err(), "{longer} in {precision},{scale}");
    }
}

#[test]
fn the_column_has_the_declared_digits() {
    let out = decode(&money(12, 2), Validation::Strict, false, &[br#"{"m":3.05}"#, b"{}"]);
    let column = out.batch.column(1);
    assert_eq!(column.data_type(), &DataType::Decimal128(12, 2));
    assert_eq!((column.as_primitive::<Decimal128Type>().value(0), column.is_null(1)), (305, true));
}

#[test]
fn a_number_is_a_time_where_the_schema_says_which() {
    let at = parse_timestamp("2024-01-15T10:00:00Z").expect("a time");
    let cases = [
        (TimeNumber::Seconds, "1705312800"),
        (TimeNumber::Millis, "1705312800000"),
        (TimeNumber::Micros, "1705312800000000"),
        (TimeNumber::Nanos, "1705312800000000000"),
        (TimeNumber::Digits(10), "2024011510"),
    ];
    for (form, number) in cases {
        let s = schema(vec![numbers(field("t", FieldType::Timestamp), form)]);
        let read = |validation, textual, body: String| {
            let out = decode(&s, validation, textual, &[body.as_bytes()]);
            let value = |_| out.batch.column(1).as_primitive::<TimestampMicrosecondType>().value(0);
            out.rows.first().map(value)
        };
        let (bare, quoted) = (format!("{{\"t\":{number}}}"), format!("{{\"t\":\"{number}\"}}"));
        assert_eq!(read(Validation::Strict, false, bare), Some(at), "{form:?}");
        assert_eq!(read(Validation::Lenient, false, quoted.clone()), Some(at), "{form:?}");
        assert_eq!(read(Validation::Strict, true, quoted.clone()), Some(at), "{form:?}");
        let strict = matches!(form, TimeNumber::Digits(_)).then_some(at);
        assert_eq!(read(Validation::Strict, false, quoted), strict, "a text is no epoch: {form:?}");
        let text = r#"{"t":"2024-01-15 12:00:00+02"}"#.to_owned();
        assert_eq!(read(Validation::Strict, false, text), Some(at), "a text is read anyway: {form:?}");
    }
}

#[test]
fn a_number_is_a_day_where_the_schema_says_so() {
    for (form, number) in [(TimeNumber::Digits(8), "20240115"), (TimeNumber::Days, "19737")] {
        let s = schema(vec![numbers(field("d", FieldType::Date), form)]);
        for (textual, body) in
            [(false, format!("{{\"d\":{number}}}")), (true, format!("{{\"d\":\"{number}\"}}"))]
        {
            let out = decode(&s, Validation::Strict, textual, &[body.as_bytes()]);
            assert_eq!(out.batch.column(1).as_primitive::<Date32Type>().value(0), 19_737, "{body}");
        }
    }
}

#[test]
fn reasons_name_what_mends_them() {
    let s = schema(vec![
        field("t", FieldType::Timestamp),
        field("m", FieldType::Decimal { precision: 4, scale: 2 }),
    ]);
    let reason = |body: &[u8]| decode(&s, Validation::Lenient, false, &[body]).failures.remove(0).reason;
    for (body, part) in [
        (&br#"{"t":20240115}"#[..], "\"format\": \"YYYYMMDD\""),
        (br#"{"t":1705312800}"#, "\"unit\": \"s\""),
        (br#"{"t":"2024-02-30 10:00:00"}"#, "no such day"),
        (br#"{"t":"2024-01-15 24:00:01"}"#, "hours go from 00 to 23"),
        (br#"{"t":"soon"}"#, "2024-01-15T10:00:00Z"),
        (br#"{"m":1.005}"#, "DECIMAL(4,2)"),
        (br#"{"m":100}"#, "before the point"),
    ] {
        assert!(reason(body).contains(part), "{}", reason(body));
    }
}

#[test]
fn an_epoch_stays_a_number_for_the_document() {
    let mut s = schema(vec![numbers(field("t", FieldType::Timestamp), TimeNumber::Millis)]);
    s.json_schema = Some(serde_json::json!({
        "type": "object",
        "properties": {"t": {"type": ["integer", "string"], "minimum": 1}}
    }));
    for validation in [Validation::Strict, Validation::Lenient] {
        assert!(one(&s, validation, false, r#"{"t":1705312800000}"#).is_ok());
        assert_eq!(one(&s, validation, false, r#"{"t":-1}"#), Err("schema-invalid t".to_owned()));
    }
}
