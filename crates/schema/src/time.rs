//! Times and dates from text, without allocation: these run for every row.

/// Microseconds a day.
const DAY: i64 = 86_400_000_000;

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Exactly `n` decimal digits at `at`.
fn digits(text: &[u8], at: usize, n: usize) -> Option<i64> {
    text.get(at..at + n)?
        .iter()
        .try_fold(0i64, |value, c| c.is_ascii_digit().then(|| value * 10 + i64::from(c - b'0')))
}

fn date_at_start(text: &[u8]) -> Option<i64> {
    let (year, month, day) = (digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?);
    let shaped = text[4] == b'-' && text[7] == b'-';
    let valid = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    (shaped && valid).then(|| days_from_civil(year, month, day))
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Option<i32> {
    let text = text.as_bytes();
    if text.len() != 10 {
        return None;
    }
    date_at_start(text).and_then(|days| i32::try_from(days).ok())
}

/// Microseconds since 1970-01-01T00:00:00Z of an RFC 3339 time. With `zone_optional`, also of
/// `YYYY-MM-DD HH:MM:SS` and `YYYY-MM-DD`, taken as UTC. Digits beyond microseconds are cut;
/// a leap second counts as the second that follows.
pub(crate) fn timestamp(text: &str, zone_optional: bool) -> Option<i64> {
    let text = text.as_bytes();
    let days = date_at_start(text)?;
    if text.len() == 10 {
        return zone_optional.then_some(days * DAY);
    }
    let (hour, minute, second) = (digits(text, 11, 2)?, digits(text, 14, 2)?, digits(text, 17, 2)?);
    let shaped = matches!(text[10], b'T' | b't' | b' ') && text[13] == b':' && text[16] == b':';
    if !shaped || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut micros = 0i64;
    if text.get(at) == Some(&b'.') {
        at += 1;
        let start = at;
        let mut unit = 100_000;
        while let Some(c) = text.get(at).filter(|c| c.is_ascii_digit()) {
            micros += i64::from(c - b'0') * unit;
            unit /= 10;
            at += 1;
        }
        if at == start {
            return None;
        }
    }
    let offset_minutes = zone(&text[at..], zone_optional)?;
    let seconds = (hour * 60 + minute - offset_minutes) * 60 + second;
    Some(days * DAY + seconds * 1_000_000 + micros)
}

/// The offset from UTC in minutes.
fn zone(text: &[u8], optional: bool) -> Option<i64> {
    match text {
        b"Z" | b"z" => Some(0),
        b"" | b" UTC" if optional => Some(0),
        [sign @ (b'+' | b'-'), ..] if text.len() == 6 && text[3] == b':' => {
            let (hours, minutes) = (digits(text, 1, 2)?, digits(text, 4, 2)?);
            let offset = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            Some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

/// Microseconds since the epoch of an RFC 3339 time.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    timestamp(text, false)
}

/// Epoch seconds, milliseconds or microseconds, told apart by size: seconds reach the year
/// 5138, milliseconds begin in 1973.
pub(crate) fn epoch_number(value: f64) -> Option<i64> {
    let micros = match value.abs() {
        v if v < 1e11 => value * 1e6,
        v if v < 1e14 => value * 1e3,
        v if v < 1e17 => value,
        _ => return None,
    };
    Some(micros.round() as i64)
}

#[cfg(test)]
mod tests {
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
            "2026-11-21T10:11:12.123456789Z",
        ] {
            let want = chrono::DateTime::parse_from_rfc3339(text).map(|t| t.timestamp_micros()).ok();
            assert_eq!(parse_timestamp(text), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "2013",
            "2013-02-29T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T00:00:00",
            "2013-01-01",
            "2013-01-01T00:00:00.Z",
            "2013-01-01T00:00:00+5:00",
            "2013-01-01T00:00:00Zx",
            "２０13-01-01T00:00:00Z",
            "2013-01-01X00:00:00Z",
            "2013/01/01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn the_relaxed_form_takes_utc_for_granted() {
        let want = parse_timestamp("2013-01-01T06:00:00Z");
        for text in ["2013-01-01 06:00:00", "2013-01-01T06:00:00", "2013-01-01 06:00:00 UTC"] {
            assert_eq!(timestamp(text, true), want, "{text}");
        }
        assert_eq!(timestamp("2013-01-01", true), parse_timestamp("2013-01-01T00:00:00Z"));
        assert_eq!(epoch_number(1_356_998_400.0), parse_timestamp("2013-01-01T00:00:00Z"));
        assert_eq!(epoch_number(1_356_998_400_000.0), parse_timestamp("2013-01-01T00:00:00Z"));
        assert_eq!(epoch_number(1e300), None);
        assert_eq!(epoch_number(f64::NAN), None);
    }
}
