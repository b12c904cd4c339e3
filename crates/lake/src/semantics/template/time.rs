//! Templates of times (`YYYY-MM-DD HH24:MI:SS`): what they are made of, and writing by them.

use std::fmt::Write;

use chrono::{Datelike, NaiveDateTime, Timelike};

use super::ordinal_suffix;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Era {
        dotted: bool,
    },
    Meridiem {
        dotted: bool,
    },
    Century,
    DayName,
    DayShort,
    DayOfYear,
    DayOfMonth,
    DayOfWeek,
    IsoDayOfYear,
    IsoDay,
    /// Digits of the second's fraction.
    Fraction(u8),
    Hour12,
    Hour24,
    IsoWeek,
    /// The last digits of the year that a week belongs to.
    IsoYear(u8),
    Julian,
    Minute,
    Month,
    MonthName,
    MonthShort,
    Millisecond,
    Offset,
    Quarter,
    Roman,
    SecondOfDay,
    Second,
    Zone,
    ZoneHours,
    ZoneMinutes,
    Microsecond,
    WeekOfYear,
    WeekOfMonth,
    YearWithComma,
    /// The last digits of the year.
    Year(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Capital,
    Lower,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Field {
        field: Field,
        case: Case,
        /// `FM`: no padding.
        is_filled: bool,
        ordinal: Option<Case>,
    },
    Text(String),
}

/// Patterns, the longer before those that they begin with.
const PATTERNS: [(&str, Field); 52] = [
    ("A.D.", Field::Era { dotted: true }),
    ("A.M.", Field::Meridiem { dotted: true }),
    ("AD", Field::Era { dotted: false }),
    ("AM", Field::Meridiem { dotted: false }),
    ("B.C.", Field::Era { dotted: true }),
    ("BC", Field::Era { dotted: false }),
    ("CC", Field::Century),
    ("DAY", Field::DayName),
    ("DDD", Field::DayOfYear),
    ("DD", Field::DayOfMonth),
    ("DY", Field::DayShort),
    ("D", Field::DayOfWeek),
    ("FF1", Field::Fraction(1)),
    ("FF2", Field::Fraction(2)),
    ("FF3", Field::Fraction(3)),
    ("FF4", Field::Fraction(4)),
    ("FF5", Field::Fraction(5)),
    ("FF6", Field::Fraction(6)),
    ("HH24", Field::Hour24),
    ("HH12", Field::Hour12),
    ("HH", Field::Hour12),
    ("IDDD", Field::IsoDayOfYear),
    ("ID", Field::IsoDay),
    ("IW", Field::IsoWeek),
    ("IYYY", Field::IsoYear(4)),
    ("IYY", Field::IsoYear(3)),
    ("IY", Field::IsoYear(2)),
    ("I", Field::IsoYear(1)),
    ("J", Field::Julian),
    ("MI", Field::Minute),
    ("MM", Field::Month),
    ("MONTH", Field::MonthName),
    ("MON", Field::MonthShort),
    ("MS", Field::Millisecond),
    ("OF", Field::Offset),
    ("P.M.", Field::Meridiem { dotted: true }),
    ("PM", Field::Meridiem { dotted: false }),
    ("Q", Field::Quarter),
    ("RM", Field::Roman),
    ("SSSSS", Field::SecondOfDay),
    ("SSSS", Field::SecondOfDay),
    ("SS", Field::Second),
    ("TZH", Field::ZoneHours),
    ("TZM", Field::ZoneMinutes),
    ("TZ", Field::Zone),
    ("US", Field::Microsecond),
    ("WW", Field::WeekOfYear),
    ("W", Field::WeekOfMonth),
    ("Y,YYY", Field::YearWithComma),
    ("YYYY", Field::Year(4)),
    ("YYY", Field::Year(3)),
    ("YY", Field::Year(2)),
];

/// Reads a template.
///
/// # Errors
/// Which pattern of PostgreSQL's is not offered here.
pub(super) fn parse(template: &str) -> Result<Vec<Part>, String> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = template;
    let mut is_filled = false;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("FM") || rest.starts_with("fm") {
            is_filled = true;
            rest = &rest[2..];
            continue;
        }
        for unsupported in ["TM", "FX"] {
            if rest.starts_with(unsupported) {
                return Err(format!("the prefix {unsupported} of a time template is not offered"));
            }
        }
        if let Some((field, case, length)) = pattern(rest) {
            rest = &rest[length..];
            let mut ordinal = None;
            for (suffix, case) in [("TH", Case::Upper), ("th", Case::Lower)] {
                if rest.starts_with(suffix) && is_number(field) {
                    ordinal = Some(case);
                    rest = &rest[2..];
                }
            }
            if rest.starts_with("SP") {
                return Err("the suffix SP of a time template is not offered".to_owned());
            }
            parts.push(Part::Field { field, case, is_filled, ordinal });
            is_filled = false;
            continue;
        }
        is_filled = false;
        let length = match first {
            '"' => quoted(rest, &mut parts),
            '\\' if rest[1..].starts_with('"') => {
                push_text(&mut parts, '"');
                2
            }
            c => {
                push_text(&mut parts, c);
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Ok(parts)
}

fn pattern(rest: &str) -> Option<(Field, Case, usize)> {
    let is = |name: &str| rest.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
    let found = PATTERNS.iter().find(|(name, _)| is(name) && has_one_case(&rest[..name.len()], name));
    let (name, field) = match found {
        Some((name, field)) => (*name, *field),
        None if rest.starts_with(['Y', 'y']) => ("Y", Field::Year(1)),
        None => return None,
    };
    let head = &rest[..name.len()];
    let case = match head {
        _ if head.chars().all(|c| !c.is_ascii_lowercase()) => Case::Upper,
        _ if head.starts_with(|c: char| c.is_ascii_uppercase()) => Case::Capital,
        _ => Case::Lower,
    };
    Some((field, case, name.len()))
}

/// A pattern is written in capitals or small letters; a name also with one capital.
fn has_one_case(head: &str, name: &str) -> bool {
    let letters = || head.chars().filter(char::is_ascii_alphabetic);
    let is_name = matches!(name, "DAY" | "DY" | "MONTH" | "MON");
    letters().all(|c| c.is_ascii_uppercase())
        || letters().all(|c| c.is_ascii_lowercase())
        || (is_name && letters().skip(1).all(|c| c.is_ascii_lowercase()))
}

fn is_number(field: Field) -> bool {
    !matches!(
        field,
        Field::DayName
            | Field::DayShort
            | Field::MonthName
            | Field::MonthShort
            | Field::Era { .. }
            | Field::Meridiem { .. }
            | Field::Zone
            | Field::Roman
            | Field::Offset
    )
}

fn push_text(parts: &mut Vec<Part>, c: char) {
    match parts.last_mut() {
        Some(Part::Text(text)) => text.push(c),
        _ => parts.push(Part::Text(c.to_string())),
    }
}

/// Reads text in quotes and answers its length.
fn quoted(rest: &str, parts: &mut Vec<Part>) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return at + 1,
            '\\' => {
                if let Some((_, c)) = chars.next() {
                    push_text(parts, c);
                }
            }
            c => push_text(parts, c),
        }
    }
    rest.len()
}

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub(super) const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// What is written: a wall clock, and where it hangs.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    pub at: NaiveDateTime,
    /// Seconds east of UTC and the zone's name, for an instant.
    pub zone: Option<(i32, String)>,
}

/// Writes a time.
pub(super) fn format(parts: &[Part], clock: &Clock) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Field { field, case, is_filled, ordinal } => {
                let text = written(*field, *case, *is_filled, clock);
                out.push_str(&text);
                match ordinal {
                    Some(Case::Upper) => out.push_str(&ordinal_suffix(&text).to_ascii_uppercase()),
                    Some(_) => out.push_str(ordinal_suffix(&text)),
                    None => {}
                }
            }
        }
    }
    out
}

fn written(field: Field, case: Case, is_filled: bool, clock: &Clock) -> String {
    let at = &clock.at;
    let number = |value: i64, width: usize| match is_filled {
        true => value.to_string(),
        false => format!("{value:0width$}"),
    };
    let name = |text: &str, width: usize| {
        let text = cased(text, case);
        if is_filled { text } else { format!("{text:<width$}") }
    };
    let year = i64::from(if at.year() <= 0 { 1 - at.year() } else { at.year() });
    let week = at.iso_week();
    let micros = i64::from(at.nanosecond() / 1000 % 1_000_000);
    let seconds = clock.zone.as_ref().map_or(0, |(seconds, _)| *seconds);
    match field {
        Field::Era { dotted } => {
            let text = match (at.year() <= 0, dotted) {
                (true, true) => "B.C.",
                (true, false) => "BC",
                (false, true) => "A.D.",
                (false, false) => "AD",
            };
            cased(text, case)
        }
        Field::Meridiem { dotted } => {
            let text = match (at.hour() >= 12, dotted) {
                (true, true) => "P.M.",
                (true, false) => "PM",
                (false, true) => "A.M.",
                (false, false) => "AM",
            };
            cased(text, case)
        }
        Field::Century => {
            let century = (year - 1) / 100 + 1;
            if at.year() <= 0 { number(-century, 3) } else { number(century, 2) }
        }
        Field::DayName => name(DAYS[at.weekday().num_days_from_sunday() as usize], 9),
        Field::DayShort => cased(&DAYS[at.weekday().num_days_from_sunday() as usize][..3], case),
        Field::DayOfYear => number(at.ordinal().into(), 3),
        Field::DayOfMonth => number(at.day().into(), 2),
        Field::DayOfWeek => number(i64::from(at.weekday().num_days_from_sunday()) + 1, 1),
        Field::IsoDayOfYear => {
            number(i64::from((week.week() - 1) * 7 + at.weekday().number_from_monday()), 3)
        }
        Field::IsoDay => number(at.weekday().number_from_monday().into(), 1),
        Field::Fraction(digits) => format!("{micros:06}")[..usize::from(digits)].to_owned(),
        Field::Hour12 => number(i64::from((at.hour() + 11) % 12 + 1), 2),
        Field::Hour24 => number(at.hour().into(), 2),
        Field::IsoWeek => number(week.week().into(), 2),
        Field::IsoYear(digits) => last_digits(i64::from(week.year()), digits, is_filled),
        Field::Julian => (i64::from(at.num_days_from_ce()) + 1_721_425).to_string(),
        Field::Minute => number(at.minute().into(), 2),
        Field::Month => number(at.month().into(), 2),
        Field::MonthName => name(MONTHS[at.month0() as usize], 9),
        Field::MonthShort => cased(&MONTHS[at.month0() as usize][..3], case),
        Field::Millisecond => number(micros / 1000, 3),
        Field::Microsecond => number(micros, 6),
        Field::Offset => offset(seconds, is_filled),
        Field::Quarter => number(i64::from(at.month0() / 3 + 1), 1),
        Field::Roman => {
            let text = cased(ROMAN[at.month0() as usize], case);
            if is_filled { text } else { format!("{text:<4}") }
        }
        Field::SecondOfDay => at.num_seconds_from_midnight().to_string(),
        Field::Second => number(at.second().into(), 2),
        Field::Zone => {
            let name = clock.zone.as_ref().map(|(_, name)| name.clone()).unwrap_or_default();
            if case == Case::Upper { name.to_ascii_uppercase() } else { name.to_ascii_lowercase() }
        }
        Field::ZoneHours => {
            format!("{}{:02}", if seconds < 0 { '-' } else { '+' }, seconds.abs() / 3600)
        }
        Field::ZoneMinutes => format!("{:02}", seconds.abs() / 60 % 60),
        Field::WeekOfYear => number(i64::from(at.ordinal0() / 7 + 1), 2),
        Field::WeekOfMonth => number(i64::from(at.day0() / 7 + 1), 1),
        Field::YearWithComma => format!("{},{:03}", year / 1000, year % 1000),
        Field::Year(digits) => last_digits(year, digits, is_filled),
    }
}

fn last_digits(year: i64, digits: u8, is_filled: bool) -> String {
    let value = match digits {
        4 => year,
        3 => year % 1000,
        2 => year % 100,
        _ => year % 10,
    };
    match is_filled {
        true => value.to_string(),
        false => format!("{value:0width$}", width = usize::from(digits)),
    }
}

fn offset(seconds: i32, is_filled: bool) -> String {
    let (sign, size) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    let hours = size / 3600;
    let mut out = if is_filled { format!("{sign}{hours}") } else { format!("{sign}{hours:02}") };
    if size % 3600 != 0 {
        let _ = write!(out, ":{:02}", size / 60 % 60);
    }
    out
}

fn cased(text: &str, case: Case) -> String {
    match case {
        Case::Upper => text.to_ascii_uppercase(),
        Case::Capital => text.to_owned(),
        Case::Lower => text.to_ascii_lowercase(),
    }
}
