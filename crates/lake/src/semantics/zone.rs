//! Time zones as PostgreSQL names them, and `AT TIME ZONE` between instants and local time.

use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, FixedOffset, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone as _};
use chrono_tz::{OffsetName, TZ_VARIANTS, Tz};
use datafusion::common::{exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;

use super::function::{Function, by_rows, texts, type_of};

/// The zone of every instant in a plan; what a session shows is another matter.
pub(super) const UTC: &str = "UTC";

/// A time zone: one of the tz database, or a fixed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeZone(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Named(Tz),
    Fixed(FixedOffset),
}

impl TimeZone {
    pub const UTC: Self = Self(Kind::Named(Tz::UTC));

    /// The zone of a name of the tz database, in any case, of an abbreviation that it knows, or
    /// of an offset with the sign of POSIX, as PostgreSQL reads `AT TIME ZONE '+02'`: two hours
    /// west.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("zulu") {
            return Some(Self::UTC);
        }
        if let Some(zone) = TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(text)) {
            return Some(Self(Kind::Named(*zone)));
        }
        if let Some(seconds) = abbreviation(text) {
            return Self::fixed(seconds);
        }
        let letters = text.find(|c: char| !c.is_ascii_alphabetic())?;
        if letters != 0 && !(3..=5).contains(&letters) {
            return None;
        }
        Self::fixed(-offset(&text[letters..])?)
    }

    /// A fixed offset, in seconds east of UTC.
    pub fn fixed(seconds: i32) -> Option<Self> {
        if seconds == 0 {
            return Some(Self::UTC);
        }
        FixedOffset::east_opt(seconds).map(|offset| Self(Kind::Fixed(offset)))
    }

    /// The name that Arrow and `SHOW` know it by.
    pub fn name(&self) -> String {
        match self.0 {
            Kind::Named(zone) => zone.name().to_owned(),
            Kind::Fixed(offset) => offset.to_string(),
        }
    }

    /// The zone of a name made by [`TimeZone::name`]: offsets have the sign of ISO 8601.
    pub fn of_name(name: &str) -> Self {
        match offset(name) {
            Some(seconds) => Self::fixed(seconds).unwrap_or(Self::UTC),
            None => Self::parse(name).unwrap_or(Self::UTC),
        }
    }

    /// Seconds east of UTC at an instant.
    pub fn offset_s(&self, utc: NaiveDateTime) -> i32 {
        match self.0 {
            Kind::Named(zone) => zone.offset_from_utc_datetime(&utc).fix().local_minus_utc(),
            Kind::Fixed(offset) => offset.local_minus_utc(),
        }
    }

    /// What the zone is called at an instant, such as `CEST`; nothing for a mere offset.
    pub fn abbreviation(&self, utc: NaiveDateTime) -> Option<String> {
        match self.0 {
            Kind::Named(zone) => zone.offset_from_utc_datetime(&utc).abbreviation().map(str::to_owned),
            Kind::Fixed(_) => None,
        }
    }

    /// The wall clock at an instant.
    pub fn local(&self, utc: NaiveDateTime) -> Option<NaiveDateTime> {
        utc.checked_add_signed(TimeDelta::seconds(self.offset_s(utc).into()))
    }

    /// The instant of a wall clock. One that a change of the clock leaves out is read with the
    /// offset from before it, one that comes twice with the offset from after it.
    pub fn instant(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let seconds = match self.0 {
            Kind::Fixed(offset) => offset.local_minus_utc(),
            Kind::Named(zone) => match zone.offset_from_local_datetime(&local) {
                MappedLocalTime::Single(offset) => offset.fix().local_minus_utc(),
                MappedLocalTime::Ambiguous(one, other) => {
                    one.fix().local_minus_utc().min(other.fix().local_minus_utc())
                }
                MappedLocalTime::None => self.offset_s(local.checked_sub_signed(TimeDelta::days(1))?),
            },
        };
        local.checked_sub_signed(TimeDelta::seconds(seconds.into()))
    }
}

/// Abbreviations that PostgreSQL knows and the tz database has no zone for.
fn abbreviation(text: &str) -> Option<i32> {
    const HOURS: [(&str, i32); 16] = [
        ("PST", -8),
        ("PDT", -7),
        ("MDT", -6),
        ("CST", -6),
        ("CDT", -5),
        ("EDT", -4),
        ("AKST", -9),
        ("AKDT", -8),
        ("BST", 1),
        ("CEST", 2),
        ("EEST", 3),
        ("WEST", 1),
        ("MSK", 3),
        ("JST", 9),
        ("AEST", 10),
        ("AEDT", 11),
    ];
    HOURS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, hours)| hours * 3600)
}

/// Seconds of `[+-]H[H][[:]MM[[:]SS]]`.
fn offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let parts: Vec<&str> = match digits.contains(':') {
        true => digits.split(':').collect(),
        false if digits.len() > 2 && digits.len() % 2 == 0 && digits.is_ascii() => {
            (0..digits.len() / 2).map(|i| &digits[i * 2..i * 2 + 2]).collect()
        }
        false => vec![digits],
    };
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty() || part.len() > 2) {
        return None;
    }
    let mut seconds = 0;
    for (part, unit) in parts.iter().zip([3600, 60, 1]) {
        if !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        seconds += part.parse::<i32>().ok()? * unit;
    }
    (seconds < 16 * 3600).then_some(sign * seconds)
}

/// The zone of the session that a plan is made for.
pub(super) fn of_session(options: &ConfigOptions) -> TimeZone {
    options.execution.time_zone.as_deref().map_or(TimeZone::UTC, TimeZone::of_name)
}

pub(super) fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

pub(super) fn local_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// `timezone(zone, t)`, which is what `t AT TIME ZONE zone` means: local time of an instant, or
/// the instant of a local time.
pub(super) fn timezone() -> Arc<ScalarUDF> {
    Function::udf(
        "timezone",
        |types| {
            let [zone, time] = types else { return plan_err!("timezone takes a zone and a time") };
            let zone = match zone {
                DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
                _ => DataType::Utf8,
            };
            match time {
                DataType::Timestamp(_, None) => Ok(vec![zone, local_type()]),
                DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => {
                    Ok(vec![zone, instant_type()])
                }
                of if of.is_string() => Ok(vec![zone, instant_type()]),
                other => plan_err!("AT TIME ZONE takes a timestamp, not {other}"),
            }
        },
        |args| match type_of(args, 1)? {
            DataType::Timestamp(_, None) => Ok(instant_type()),
            _ => Ok(local_type()),
        },
        |args| {
            let gives_instant = matches!(args.return_type(), DataType::Timestamp(_, Some(_)));
            by_rows(args, |arrays| {
                let times = arrays[1].as_primitive::<TimestampMicrosecondType>();
                let converted = match arrays[0].data_type() {
                    DataType::Interval(_) => {
                        let zones = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
                        convert(times, gives_instant, |row| match zones.is_null(row) {
                            true => Ok(None),
                            false => of_interval(zones.value(row)).map(Some),
                        })?
                    }
                    _ => {
                        let zones = texts(&arrays[0])?;
                        let mut last: Option<(String, TimeZone)> = None;
                        convert(times, gives_instant, |row| {
                            if zones.is_null(row) {
                                return Ok(None);
                            }
                            let name = zones.value(row);
                            if let Some((known, zone)) = &last
                                && known == name
                            {
                                return Ok(Some(*zone));
                            }
                            let Some(zone) = TimeZone::parse(name) else {
                                return exec_err!("time zone \"{name}\" not recognized");
                            };
                            last = Some((name.to_owned(), zone));
                            Ok(Some(zone))
                        })?
                    }
                };
                Ok(Arc::new(match gives_instant {
                    true => converted.with_timezone(UTC),
                    false => converted,
                }))
            })
        },
    )
}

fn of_interval(interval: arrow::datatypes::IntervalMonthDayNano) -> Result<TimeZone> {
    let seconds = i32::try_from(interval.nanoseconds / 1_000_000_000).ok();
    match seconds.filter(|_| interval.months == 0 && interval.days == 0).and_then(TimeZone::fixed) {
        Some(zone) => Ok(zone),
        None => exec_err!("an interval of a time zone must be less than a day, in hours and minutes"),
    }
}

fn convert(
    times: &TimestampMicrosecondArray,
    gives_instant: bool,
    mut zone: impl FnMut(usize) -> Result<Option<TimeZone>>,
) -> Result<TimestampMicrosecondArray> {
    let mut out = PrimitiveArray::<TimestampMicrosecondType>::builder(times.len());
    for row in 0..times.len() {
        let Some(zone) = zone(row)?.filter(|_| times.is_valid(row)) else {
            out.append_null();
            continue;
        };
        let time = DateTime::from_timestamp_micros(times.value(row)).map(|time| time.naive_utc());
        let converted =
            time.and_then(|time| if gives_instant { zone.instant(time) } else { zone.local(time) });
        match converted {
            Some(time) => out.append_value(time.and_utc().timestamp_micros()),
            None => return exec_err!("timestamp out of range"),
        }
    }
    Ok(out.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        text.parse().expect("a time")
    }

    #[test]
    fn zones_are_known_by_name_in_any_case_and_by_posix_offset() {
        let summer = at("2024-07-01T02:00:00");
        for (name, seconds) in [
            ("Europe/Vienna", 7200),
            ("europe/vienna", 7200),
            ("UTC", 0),
            ("z", 0),
            ("+02", -7200),
            ("-05:30", 19_800),
            ("UTC+3", -10_800),
            ("EST", -18_000),
            ("CEST", 7200),
        ] {
            let zone = TimeZone::parse(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(zone.offset_s(summer), seconds, "{name}");
            assert_eq!(TimeZone::of_name(&zone.name()), zone, "{name}");
        }
        for name in ["", "Mars/Olympus", "+99", "12", "x+1"] {
            assert_eq!(TimeZone::parse(name), None, "{name}");
        }
    }

    #[test]
    fn changes_of_the_clock_are_read_as_postgresql_reads_them() {
        let zone = TimeZone::parse("Europe/Vienna").expect("a zone");
        for (local, instant) in [
            ("2024-07-01T12:00:00", "2024-07-01T10:00:00"),
            ("2024-03-31T02:30:00", "2024-03-31T01:30:00"),
            ("2024-10-27T02:30:00", "2024-10-27T01:30:00"),
        ] {
            assert_eq!(zone.instant(at(local)), Some(at(instant)), "{local}");
        }
        assert_eq!(zone.local(at("2024-07-01T10:00:00")), Some(at("2024-07-01T12:00:00")));
    }
}
