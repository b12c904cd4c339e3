//! Every spelling against chrono, and what must be refused with its reason.

use chrono::{DateTime, FixedOffset, NaiveDate};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

#[test]
fn agrees_with_chrono_on_times_of_every_shape() {
    for text in [
        "1970-01-01T00:00:00Z",
        "2013-01-01T06:00:00Z",
        "2024-02-29T23:59:59.999999Z",
        "2000-02-29t12:30:00.5+05:30",
        "1969-12-31 23:59:59.25-00:30",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2016-12-31T23:59:60Z",
        "2026-11-21T10:11:12.123456789Z",
    ] {
        let want = DateTime::parse_from_rfc3339(text).map(|t| t.timestamp_micros()).ok();
        assert_eq!(parse_timestamp(text), want, "{text}");
    }
}

/// A random instant in a random spelling that is accepted, and what chrono says of it.
fn spelled(rng: &mut SmallRng) -> (String, i64) {
    let micros = match rng.random_range(0..3) {
        0 => rng.random_range(FIRST / DAY + 2..LAST / DAY - 2) * DAY + rng.random_range(0..DAY),
        1 => rng.random_range(0..4_000_000_000i64) * 1_000_000,
        _ => rng.random_range(0..60_000_000i64) * 60_000_000,
    };
    let offset = match rng.random_range(0..3) {
        0 => 0,
        1 => rng.random_range(-23..=23) * 60,
        _ => rng.random_range(-1439..=1439),
    };
    let zone = FixedOffset::east_opt(offset * 60).expect("below a day");
    let at = DateTime::from_timestamp_micros(micros).expect("in range").with_timezone(&zone);
    let basic = rng.random_range(0..3) == 0;
    let date = if basic { "%Y%m%d" } else { "%Y-%m-%d" };
    let separator = ["T", "t", " "][rng.random_range(0..3)];
    let colons = rng.random_bool(0.7);
    let whole_minute = micros.rem_euclid(60_000_000) == 0;
    let time = match (colons, whole_minute && rng.random_bool(0.5)) {
        (true, true) => "%H:%M",
        (false, true) => "%H%M",
        (true, false) => "%H:%M:%S",
        (false, false) => "%H%M%S",
    };
    let fraction = match micros.rem_euclid(1_000_000) {
        0 => String::new(),
        part => {
            let point = if rng.random_bool(0.7) { '.' } else { ',' };
            let tail = ["", "0", "999"][rng.random_range(0..3)];
            format!("{point}{part:06}{tail}")
        }
    };
    let space = if rng.random_bool(0.3) { " " } else { "" };
    let suffix = match offset {
        0 => ["Z", "z", "+00", "-00", "+0000", "+00:00", "-00:00", "UTC", "GMT", "+0000 UTC"]
            [rng.random_range(0..10)]
        .to_owned(),
        _ if offset % 60 == 0 && rng.random_bool(0.5) => at.format("%z").to_string()[..3].to_owned(),
        _ if rng.random_bool(0.5) => at.format("%z").to_string(),
        _ => at.format("%:z").to_string(),
    };
    let text = format!("{}{separator}{}{fraction}{space}{suffix}", at.format(date), at.format(time));
    (text, micros)
}

#[test]
fn random_instants_agree_with_chrono_in_every_spelling() {
    let seed = std::env::var("LEVADA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x7135_u64);
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..50_000 {
        let (text, want) = spelled(&mut rng);
        assert_eq!(timestamp(&text, false), Ok(want), "{text}");
    }
}

#[test]
fn what_postgresql_go_ruby_and_iso_write_is_read() {
    let at = parse_timestamp("2024-01-15T10:00:00Z");
    for text in [
        "2024-01-15 12:00:00+02",
        "2024-01-15 05:00:00-05",
        "2024-01-15T15:30:00+0530",
        "2024-01-15 10:00:00 +0000",
        "2024-01-15 10:00:00 +0000 UTC",
        "2024-01-15T10:00Z",
        "2024-01-15T100000Z",
        "20240115T100000Z",
        "20240115T1000Z",
        "2024-01-15t10:00:00z",
        "2024-01-15T10:00:00,000Z",
        "2024-01-15 10:00:00 UTC",
    ] {
        assert_eq!(parse_timestamp(text), at, "{text}");
        assert!(at.is_some());
    }
}

#[test]
fn refuses_what_is_no_time_and_says_why() {
    for (text, why) in [
        ("", TimeFault::Shape),
        ("2013", TimeFault::Shape),
        ("20240115", TimeFault::Shape),
        ("20240115100000", TimeFault::Shape),
        ("2013-1-1", TimeFault::Shape),
        ("2013-01-01T10Z", TimeFault::Shape),
        ("2013-01-01T10:0Z", TimeFault::Shape),
        ("2013-01-01T00:00:00.Z", TimeFault::Shape),
        ("2013-01-01X00:00:00Z", TimeFault::Shape),
        ("2013/01/01T00:00:00Z", TimeFault::Shape),
        ("２013-01-01T00:00:00Z", TimeFault::Shape),
        ("2013-02-29T00:00:00Z", TimeFault::Day),
        ("2024-02-30T00:00:00Z", TimeFault::Day),
        ("2013-13-01T00:00:00Z", TimeFault::Month),
        ("2013-00-01T00:00:00Z", TimeFault::Month),
        ("2013-01-00T00:00:00Z", TimeFault::Day),
        ("2013-01-01T24:00:00Z", TimeFault::Hour),
        ("2013-01-01T24:00:01Z", TimeFault::Hour),
        ("2013-01-01T10:60:00Z", TimeFault::Minute),
        ("2013-01-01T10:00:61Z", TimeFault::Second),
        ("2013-01-01T00:00:00", TimeFault::Zone),
        ("2013-01-01", TimeFault::Zone),
        ("2013-01-01T00:00:00+5:00", TimeFault::Offset),
        ("2013-01-01T00:00:00+24:00", TimeFault::Offset),
        ("2013-01-01T00:00:00+05:60", TimeFault::Offset),
        ("2013-01-01T00:00:00+0100 UTC", TimeFault::Offset),
        ("2013-01-01T00:00:00Zx", TimeFault::Offset),
        ("2013-01-01T00:00:00 CET", TimeFault::Offset),
        ("0000-01-01T00:00:00Z", TimeFault::Year),
        ("10000-01-01T00:00:00Z", TimeFault::Year),
        ("9999-12-31T23:59:59-00:01", TimeFault::Range),
        ("0001-01-01T00:00:00+00:01", TimeFault::Range),
    ] {
        assert_eq!(timestamp(text, false), Err(why), "{text}");
        assert!(!why.says().is_empty());
    }
}

#[test]
fn the_relaxed_form_takes_utc_for_granted() {
    let want = timestamp("2013-01-01T06:00:00Z", false);
    for text in ["2013-01-01 06:00:00", "2013-01-01T06:00:00", "20130101T0600", "2013-01-01 06:00"] {
        assert_eq!(timestamp(text, true), want, "{text}");
    }
    assert_eq!(timestamp("2013-01-01", true), timestamp("2013-01-01T00:00:00Z", false));
}

#[test]
fn a_number_is_read_by_its_form_alone() {
    let at = |text: &str| timestamp(text, true);
    let read = |text: &str, form| number(text, form);
    use TimeNumber::{Days, Digits, Micros, Millis, Nanos, Seconds};
    for (text, form, want) in [
        ("1356998400", Seconds, "2013-01-01"),
        ("1356998400.25", Seconds, "2013-01-01T00:00:00.25Z"),
        ("1.3569984e9", Seconds, "2013-01-01"),
        ("-1", Seconds, "1969-12-31T23:59:59Z"),
        ("1356998400000", Millis, "2013-01-01"),
        ("1356998400000001", Micros, "2013-01-01T00:00:00.000001Z"),
        ("1356998400000001999", Nanos, "2013-01-01T00:00:00.000001Z"),
        ("-1", Nanos, "1969-12-31T23:59:59.999999Z"),
        ("15706", Days, "2013-01-01"),
        ("20240115", Digits(8), "2024-01-15"),
        ("20240115.0", Digits(8), "2024-01-15"),
        ("2024", Digits(4), "2024-01-01"),
        ("202402", Digits(6), "2024-02-01"),
        ("2024011510", Digits(10), "2024-01-15T10:00Z"),
        ("202401151030", Digits(12), "2024-01-15T10:30Z"),
        ("20240115103059", Digits(14), "2024-01-15T10:30:59Z"),
        ("00010101", Digits(8), "0001-01-01"),
    ] {
        assert_eq!(read(text, form), at(want), "{text} {form:?}");
        assert!(at(want).is_ok());
    }
    for (text, form, why) in [
        ("1e300", Seconds, TimeFault::Range),
        ("1356998400000000000", Seconds, TimeFault::Range),
        ("20240230", Digits(8), TimeFault::Day),
        ("2024", Digits(8), TimeFault::Shape),
        ("202401152400", Digits(12), TimeFault::Hour),
        ("1.5", Days, TimeFault::Shape),
        ("9223372036854775807", Days, TimeFault::Range),
    ] {
        assert_eq!(read(text, form), Err(why), "{text} {form:?}");
    }
}

#[test]
fn a_date_is_a_day_and_loses_nothing() {
    let want = NaiveDate::from_ymd_opt(2013, 1, 1).expect("a date").to_epoch_days();
    assert_eq!(day("2013-01-01", false), Ok(want));
    for text in ["2013-01-01T00:00:00Z", "2013-01-01 00:00:00", "20130101T0000Z"] {
        assert_eq!(day(text, true), day("2013-01-01", false), "{text}");
        assert_eq!(day(text, false), Err(TimeFault::Shape), "{text}");
    }
    for text in ["2013-01-01T00:00:01Z", "2013-01-01T22:00:00-02:00", "2013-01-01T00:00:00+02:00", "20130101"]
    {
        assert!(day(text, true).is_err(), "{text}");
    }
    assert_eq!(day("2013-02-30", false), Err(TimeFault::Day));
}
