//! Times and dates from text, without allocation: these run for every row.
//!
//! A text is read as RFC 3339 and as the spellings of ISO 8601, PostgreSQL, Go and Ruby that mean one
//! instant. A number is read only by the form that the schema names: nothing is guessed by size.

use levada_config::model::TimeNumber;
use levada_core::Exact;

/// Microseconds a day.
const DAY: i64 = 86_400_000_000;
/// 0001-01-01T00:00:00Z and the last microsecond of 9999, in microseconds since 1970.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeFault {
    /// It has no spelling of a time at all.
    Shape,
    /// It does not say its offset from UTC, and validation is strict.
    Zone,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Offset,
    /// Before the year 1 or after 9999 in UTC.
    Range,
}

impl TimeFault {
    /// What is wrong, as the end of a sentence.
    pub fn says(self) -> &'static str {
        match self {
            Self::Shape => "write it as 2024-01-15T10:00:00Z",
            Self::Zone => "it lacks its offset from UTC, such as Z or +02:00",
            Self::Year | Self::Range => "years go from 0001 to 9999, in UTC",
            Self::Month => "months go from 01 to 12",
            Self::Day => "that month has no such day",
            Self::Hour => "hours go from 00 to 23; midnight is 00:00 of the next day",
            Self::Minute => "minutes go from 00 to 59",
            Self::Second => "seconds go from 00 to 59, and 60 for a leap second",
            Self::Offset => "the offset from UTC should be Z, +HH, +HHMM or +HH:MM",
        }
    }
}

type Parsed<T> = Result<T, TimeFault>;

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

/// Takes exactly `n` decimal digits from the front.
fn digits(text: &mut &[u8], n: usize) -> Parsed<i64> {
    let (head, rest) = text.split_at_checked(n).ok_or(TimeFault::Shape)?;
    *text = rest;
    head.iter()
        .try_fold(0i64, |value, c| c.is_ascii_digit().then(|| value * 10 + i64::from(c - b'0')))
        .ok_or(TimeFault::Shape)
}

fn skip(text: &mut &[u8], wanted: impl Fn(u8) -> bool) -> bool {
    match text.split_first() {
        Some((first, rest)) if wanted(*first) => {
            *text = rest;
            true
        }
        _ => false,
    }
}

fn civil(year: i64, month: i64, day: i64) -> Parsed<i64> {
    if year < 1 {
        Err(TimeFault::Year)
    } else if !(1..=12).contains(&month) {
        Err(TimeFault::Month)
    } else if day < 1 || day > days_in_month(year, month) {
        Err(TimeFault::Day)
    } else {
        Ok(days_from_civil(year, month, day))
    }
}

/// Takes `YYYY-MM-DD`, or `YYYYMMDD` where a time follows: alone it could be any number.
fn date(text: &mut &[u8]) -> Parsed<i64> {
    let leading = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let after = text.get(leading).copied();
    let dashed = match (leading, after) {
        (4, Some(b'-')) => true,
        (8, Some(b'T' | b't' | b' ')) => false,
        (5.., Some(b'-')) => return Err(TimeFault::Year),
        _ => return Err(TimeFault::Shape),
    };
    let mut part = |n: usize| -> Parsed<i64> {
        if dashed && n == 2 && !skip(text, |c| c == b'-') {
            return Err(TimeFault::Shape);
        }
        digits(text, n)
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    civil(year, month, day)
}

/// Takes `HH:MM`, `HH:MM:SS`, `HHMM` or `HHMMSS`, the seconds with a fraction: microseconds of the day.
/// Digits beyond microseconds are cut; a leap second counts as the second that follows.
fn clock(text: &mut &[u8]) -> Parsed<i64> {
    let hour = digits(text, 2)?;
    let colons = skip(text, |c| c == b':');
    let minute = digits(text, 2)?;
    let seconds =
        if colons { skip(text, |c| c == b':') } else { text.first().is_some_and(u8::is_ascii_digit) };
    let second = if seconds { digits(text, 2)? } else { 0 };
    let mut micros = 0;
    if seconds && skip(text, |c| matches!(c, b'.' | b',')) {
        let fraction = text.iter().take_while(|c| c.is_ascii_digit()).count();
        let (head, rest) = text.split_at(fraction);
        *text = rest;
        let mut unit = 100_000;
        for digit in head {
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
        }
        if fraction == 0 {
            return Err(TimeFault::Shape);
        }
    }
    if hour > 23 {
        Err(TimeFault::Hour)
    } else if minute > 59 {
        Err(TimeFault::Minute)
    } else if second > 60 {
        Err(TimeFault::Second)
    } else {
        Ok(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
    }
}

/// The offset from UTC in minutes; `None` where nothing is said.
fn zone(mut text: &[u8]) -> Parsed<Option<i64>> {
    while skip(&mut text, |c| c == b' ') {}
    let utc = |text: &[u8]| [&b"z"[..], b"utc", b"gmt"].iter().any(|name| text.eq_ignore_ascii_case(name));
    let Some((sign, rest)) = text.split_first() else { return Ok(None) };
    if utc(text) {
        return Ok(Some(0));
    }
    if !matches!(sign, b'+' | b'-') {
        return Err(TimeFault::Offset);
    }
    // Go writes `+0000 UTC`.
    let name = rest.iter().position(|c| *c == b' ').unwrap_or(rest.len());
    let (offset, name) = rest.split_at(name);
    let (mut hours, mut minutes) = match offset.len() {
        2 => (offset, &b"00"[..]),
        4 => offset.split_at(2),
        5 if offset[2] == b':' => (&offset[..2], &offset[3..]),
        _ => return Err(TimeFault::Offset),
    };
    let wrong = |_| TimeFault::Offset;
    let (hours, minutes) = (digits(&mut hours, 2).map_err(wrong)?, digits(&mut minutes, 2).map_err(wrong)?);
    let offset = hours * 60 + minutes;
    let named = name.is_empty() || offset == 0 && utc(name.trim_ascii());
    if hours > 23 || minutes > 59 || !named {
        return Err(TimeFault::Offset);
    }
    Ok(Some(if *sign == b'-' { -offset } else { offset }))
}

fn in_range(micros: i64) -> Parsed<i64> {
    if (FIRST..=LAST).contains(&micros) { Ok(micros) } else { Err(TimeFault::Range) }
}

/// Microseconds since 1970-01-01T00:00:00Z, and the offset in minutes that the text names.
fn instant(text: &str) -> Parsed<(i64, Option<i64>)> {
    let mut text = text.as_bytes();
    let days = date(&mut text)?;
    if text.is_empty() {
        return Ok((days * DAY, None));
    }
    if !skip(&mut text, |c| matches!(c, b'T' | b't' | b' ')) {
        return Err(TimeFault::Shape);
    }
    let micros = clock(&mut text)?;
    let offset = zone(text)?;
    let micros = days * DAY + micros - offset.unwrap_or(0) * 60_000_000;
    Ok((in_range(micros)?, offset))
}

/// Microseconds since 1970-01-01T00:00:00Z. With `zone_optional`, a text without an offset, and a date
/// alone, is taken as UTC.
pub(crate) fn timestamp(text: &str, zone_optional: bool) -> Parsed<i64> {
    match instant(text)? {
        (_, None) if !zone_optional => Err(TimeFault::Zone),
        (micros, _) => Ok(micros),
    }
}

/// Microseconds since the epoch of a time that names its offset from UTC.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    timestamp(text, false).ok()
}

/// Days since 1970-01-01 of `YYYY-MM-DD`. With `or_midnight`, also of a time that is midnight of a day
/// in UTC: nothing of it is lost.
pub(crate) fn day(text: &str, or_midnight: bool) -> Parsed<i32> {
    if text.len() > 10 && !or_midnight {
        return Err(TimeFault::Shape);
    }
    let (micros, offset) = instant(text)?;
    if micros.rem_euclid(DAY) != 0 || offset.is_some_and(|minutes| minutes != 0) {
        return Err(TimeFault::Shape);
    }
    i32::try_from(micros.div_euclid(DAY)).map_err(|_| TimeFault::Range)
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Option<i32> {
    day(text, false).ok()
}

/// Microseconds since the epoch of a number, by the form that the schema names. What is finer than a
/// microsecond is cut.
pub(crate) fn number(text: &str, form: TimeNumber) -> Parsed<i64> {
    let scale = match form {
        TimeNumber::Seconds => 6,
        TimeNumber::Millis => 3,
        TimeNumber::Micros => 0,
        TimeNumber::Nanos => -3,
        TimeNumber::Days => return days(text)?.checked_mul(DAY).ok_or(TimeFault::Range).and_then(in_range),
        TimeNumber::Digits(n) => return calendar(text, n),
    };
    let number = Exact::parse(text).ok_or(TimeFault::Shape)?;
    let micros = number.floor(scale).and_then(|v| i64::try_from(v).ok());
    in_range(micros.ok_or(TimeFault::Range)?)
}

fn days(text: &str) -> Parsed<i64> {
    Exact::parse(text).and_then(|n| n.integer()).ok_or(TimeFault::Shape)
}

/// A date, or date and time, written as `n` digits without anything between them.
fn calendar(text: &str, n: u8) -> Parsed<i64> {
    const REST: &[u8; 14] = b"00010101000000";
    let mut padded = *REST;
    let count = usize::from(n).clamp(4, REST.len());
    let whole;
    let shown = match text.len() == count && text.bytes().all(|c| c.is_ascii_digit()) {
        true => text,
        // Programs that know numbers only write 20240115.0.
        false => {
            whole = days(text)?.to_string();
            &whole
        }
    };
    if shown.len() != count {
        return Err(TimeFault::Shape);
    }
    padded[..count].copy_from_slice(shown.as_bytes());
    let mut rest = &padded[..];
    let (year, month, day) = (digits(&mut rest, 4)?, digits(&mut rest, 2)?, digits(&mut rest, 2)?);
    Ok(civil(year, month, day)? * DAY + clock(&mut rest)?)
}

#[cfg(test)]
mod tests;
