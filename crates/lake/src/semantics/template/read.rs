//! Reading a time by a template, as `to_timestamp(text, template)` and `to_date` do.
//!
//! As in PostgreSQL, space before a number is passed over, a separator of the template stands
//! for any separators, and what follows the last field is ignored. A value that is no time, or a
//! text that ends inside a field, is an error.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Weekday};

use super::time::{DAYS, Field, MONTHS, Part};

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Read {
    pub at: NaiveDateTime,
    /// Seconds east of UTC, where the text says so.
    pub offset_s: Option<i32>,
}

#[derive(Debug, Default)]
struct Fields {
    year: Option<i32>,
    is_before_christ: bool,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    iso_year: Option<i32>,
    iso_week: Option<u32>,
    iso_day: Option<u32>,
    julian: Option<i64>,
    hour: u32,
    is_twelve_hours: bool,
    is_afternoon: Option<bool>,
    minute: u32,
    second: u32,
    second_of_day: Option<u32>,
    micros: i64,
    zone_sign: i32,
    zone_hours: Option<i32>,
    zone_minutes: i32,
}

/// Reads a text.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(parts: &[Part], text: &str) -> Result<Read, String> {
    let mut fields = Fields { zone_sign: 1, ..Fields::default() };
    let mut rest = text;
    for (i, part) in parts.iter().enumerate() {
        match part {
            Part::Text(literal) => rest = pass(literal, rest),
            Part::Field { field, is_filled, ordinal, .. } => {
                rest = rest.trim_start();
                if rest.is_empty() {
                    break;
                }
                // Digits of the next field must not be taken for those of this one.
                let next_is_digits =
                    matches!(parts.get(i + 1), Some(Part::Field { field, .. }) if is_digits(*field));
                let is_bounded = next_is_digits && !is_filled;
                rest = take(&mut fields, *field, is_bounded, rest)?;
                if ordinal.is_some() {
                    rest = rest.get(2..).unwrap_or("");
                }
            }
        }
    }
    fields.finish(text)
}

/// Passes over the text that stands for a literal of the template.
fn pass<'a>(literal: &str, text: &'a str) -> &'a str {
    let mut rest = text;
    for c in literal.chars() {
        if c.is_whitespace() || is_separator(c) {
            let trimmed = rest.trim_start();
            rest = match trimmed.strip_prefix(is_separator) {
                Some(after) if !(trimmed.starts_with(['+', '-']) && c.is_whitespace()) => after,
                _ => trimmed,
            };
        } else {
            let mut chars = rest.chars();
            chars.next();
            rest = chars.as_str();
        }
    }
    rest
}

fn is_separator(c: char) -> bool {
    c.is_ascii() && !c.is_ascii_alphanumeric() && !c.is_ascii_whitespace()
}

fn is_digits(field: Field) -> bool {
    !matches!(
        field,
        Field::Era { .. }
            | Field::Meridiem { .. }
            | Field::DayName
            | Field::DayShort
            | Field::MonthName
            | Field::MonthShort
            | Field::ZoneHours
            | Field::Roman
    )
}

fn take<'a>(fields: &mut Fields, field: Field, is_bounded: bool, text: &'a str) -> Result<&'a str, String> {
    let number = |width: usize| digits(text, if is_bounded { width } else { 18.min(width.max(width * 4)) });
    match field {
        Field::Year(4) => {
            let (value, _, rest) = number(4)?;
            fields.year = i32::try_from(value).ok();
            return Ok(rest);
        }
        Field::Year(width) => {
            let (value, read, rest) = number(usize::from(width))?;
            let value = i32::try_from(value).map_err(|_| "the year is out of range")?;
            fields.year = Some(if read < 4 { near_2020(value) } else { value });
            return Ok(rest);
        }
        Field::YearWithComma => {
            let (thousands, _, rest) = digits(text, 3)?;
            let rest = rest.strip_prefix(',').ok_or("a year such as 2,024 is expected")?;
            let (ones, _, rest) = digits(rest, 3)?;
            fields.year = i32::try_from(thousands * 1000 + ones).ok();
            return Ok(rest);
        }
        Field::Century
        | Field::DayOfWeek
        | Field::IsoDayOfYear
        | Field::WeekOfYear
        | Field::WeekOfMonth
        | Field::Roman => return Err("this pattern is offered for writing only".to_owned()),
        Field::Offset | Field::Zone => {
            return Err("the patterns TZ and OF are for writing only; read an offset with TZH:TZM".to_owned());
        }
        Field::Era { dotted } => return fields.era(text, dotted),
        Field::Meridiem { dotted } => return fields.meridiem(text, dotted),
        Field::MonthName | Field::MonthShort => {
            let (index, rest) = name(text, &MONTHS).ok_or("a month's name is expected")?;
            fields.month = Some(index + 1);
            return Ok(rest);
        }
        Field::DayName | Field::DayShort => {
            return name(text, &DAYS)
                .map(|(_, rest)| rest)
                .ok_or_else(|| "a day's name is expected".to_owned());
        }
        Field::Fraction(_) | Field::Millisecond | Field::Microsecond => {
            let width = match field {
                Field::Fraction(width) => usize::from(width),
                Field::Millisecond => 3,
                _ => 6,
            };
            let (value, read, rest) = digits(text, if is_bounded { width } else { 6.max(width) })?;
            let places = u32::try_from(6 - read.min(6)).unwrap_or(0);
            fields.micros = value * 10i64.pow(places);
            return Ok(rest);
        }
        Field::ZoneHours => {
            let sign = text.chars().next().filter(|c| matches!(c, '+' | '-'));
            fields.zone_sign = if sign == Some('-') { -1 } else { 1 };
            let (value, _, rest) = digits(&text[usize::from(sign.is_some())..], 2)?;
            fields.zone_hours = i32::try_from(value).ok();
            return Ok(rest);
        }
        _ => {}
    }
    let width = match field {
        Field::DayOfYear => 3,
        Field::IsoYear(width) => usize::from(width),
        Field::IsoDay | Field::Quarter => 1,
        Field::SecondOfDay => 5,
        Field::Julian => 7,
        _ => 2,
    };
    let (value, _, rest) = number(width)?;
    fields.number(field, value)?;
    Ok(rest)
}

fn near_2020(year: i32) -> i32 {
    year + match year {
        0..70 => 2000,
        70..100 => 1900,
        100..520 => 2000,
        520..1000 => 1000,
        _ => 0,
    }
}

/// Up to `width` digits: their value, how many they are, and what follows.
fn digits(text: &str, width: usize) -> Result<(i64, usize, &str), String> {
    let text = text.trim_start();
    let read = text.bytes().take(width).take_while(u8::is_ascii_digit).count();
    match text[..read].parse() {
        Ok(value) => Ok((value, read, &text[read..])),
        Err(_) => Err(format!("a number is expected at \"{}\"", text.chars().take(10).collect::<String>())),
    }
}

/// The index of a name at the beginning of the text: the whole one, or its first three letters.
fn name<'a>(text: &'a str, names: &[&str]) -> Option<(u32, &'a str)> {
    let starts = |name: &str| text.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
    let found = |length: fn(&str) -> usize| {
        names.iter().position(|name| starts(&name[..length(name)])).map(|i| (i, length(names[i])))
    };
    let (index, length) = found(str::len).or_else(|| found(|_| 3))?;
    Some((u32::try_from(index).ok()?, &text[length..]))
}

impl Fields {
    fn number(&mut self, field: Field, value: i64) -> Result<(), String> {
        let value_32 = u32::try_from(value).map_err(|_| "a number is out of range")?;
        let at_most = |max: u32| match value_32 <= max {
            true => Ok(value_32),
            false => Err(format!("date/time field value out of range: {value}")),
        };
        match field {
            Field::Month => self.month = Some(value_32),
            Field::DayOfMonth => self.day = Some(value_32),
            Field::DayOfYear => self.day_of_year = Some(value_32),
            Field::IsoYear(width) => {
                let year = i32::try_from(value).map_err(|_| "the year is out of range")?;
                self.iso_year = Some(if width < 4 { near_2020(year) } else { year });
            }
            Field::IsoWeek => self.iso_week = Some(value_32),
            Field::IsoDay => self.iso_day = Some(value_32),
            Field::Julian => self.julian = Some(value),
            Field::Hour12 => {
                if !(1..=12).contains(&value_32) {
                    return Err(format!("hour \"{value}\" is invalid for the 12-hour clock"));
                }
                (self.hour, self.is_twelve_hours) = (value_32, true);
            }
            Field::Hour24 => self.hour = at_most(24)?,
            Field::Minute => self.minute = at_most(59)?,
            Field::Second => self.second = at_most(59)?,
            Field::SecondOfDay => self.second_of_day = Some(at_most(86_399)?),
            Field::ZoneMinutes => self.zone_minutes = i32::try_from(at_most(59)?).unwrap_or(0),
            _ => {}
        }
        Ok(())
    }

    fn era<'a>(&mut self, text: &'a str, dotted: bool) -> Result<&'a str, String> {
        let length = if dotted { 4 } else { 2 };
        let head = text.get(..length).unwrap_or("").to_ascii_uppercase().replace('.', "");
        self.is_before_christ = match head.as_str() {
            "BC" => true,
            "AD" => false,
            _ => return Err("BC or AD is expected".to_owned()),
        };
        Ok(&text[length..])
    }

    fn meridiem<'a>(&mut self, text: &'a str, dotted: bool) -> Result<&'a str, String> {
        let length = if dotted { 4 } else { 2 };
        let head = text.get(..length).unwrap_or("").to_ascii_uppercase().replace('.', "");
        self.is_afternoon = Some(match head.as_str() {
            "PM" => true,
            "AM" => false,
            _ => return Err("AM or PM is expected".to_owned()),
        });
        Ok(&text[length..])
    }

    fn date(&self) -> Option<NaiveDate> {
        if let Some(julian) = self.julian {
            return NaiveDate::from_num_days_from_ce_opt(i32::try_from(julian - 1_721_425).ok()?);
        }
        if self.iso_year.is_some() || self.iso_week.is_some() {
            let day = match self.iso_day.unwrap_or(1) {
                1 => Weekday::Mon,
                2 => Weekday::Tue,
                3 => Weekday::Wed,
                4 => Weekday::Thu,
                5 => Weekday::Fri,
                6 => Weekday::Sat,
                7 => Weekday::Sun,
                _ => return None,
            };
            return NaiveDate::from_isoywd_opt(self.iso_year?, self.iso_week.unwrap_or(1), day);
        }
        let year = match self.year {
            // A year that is not told is 1 BC, which is year 0 of the calendar.
            None | Some(0) => 0,
            Some(year) if self.is_before_christ => 1 - year,
            Some(year) => year,
        };
        match self.day_of_year {
            Some(day) if self.month.is_none() => NaiveDate::from_yo_opt(year, day),
            _ => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1)),
        }
    }

    fn finish(self, text: &str) -> Result<Read, String> {
        let out_of_range = || format!("date/time field value out of range: \"{text}\"");
        let date = self.date().ok_or_else(out_of_range)?;
        if self.is_afternoon.is_some() && !self.is_twelve_hours && self.hour > 12 {
            return Err(format!("hour \"{}\" is invalid for the 12-hour clock", self.hour));
        }
        let hour = match self.is_afternoon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let seconds = self.second_of_day.unwrap_or(hour * 3600 + self.minute * 60 + self.second);
        let at = date.and_time(NaiveTime::MIN);
        let at = at.checked_add_signed(TimeDelta::seconds(seconds.into())).ok_or_else(out_of_range)?;
        let at = at.checked_add_signed(TimeDelta::microseconds(self.micros)).ok_or_else(out_of_range)?;
        let offset_s = self.zone_hours.map(|hours| self.zone_sign * (hours * 3600 + self.zone_minutes * 60));
        Ok(Read { at, offset_s })
    }
}
