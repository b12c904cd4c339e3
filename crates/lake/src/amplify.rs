//! How large the result of a function can be, known before it is computed.
//!
//! Most functions answer no more than they are given, by a small factor. Those here make much
//! out of little (`repeat('x', 1000000000)`); without an estimate the memory would be gone
//! before anybody could count it. An estimate is an upper bound. Where it is a loose one
//! (`replace`), the rows are computed in parts, so that few are refused that would have fitted.
//!
//! The same holds for the time of a call, in which nobody can stop it: [`steps`] tells of functions
//! that may take long for a text that is not.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;

use crate::limits::array_bytes;

/// The operators `~`, `~*`, `!~` and `!~*` as a function.
pub(crate) const MATCHES: &str = "regexp_matches";

/// The bytes of a result: of all rows, and of the largest value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub bytes: u64,
    pub largest: u64,
    /// Far more than the result will mostly have.
    pub is_loose: bool,
}

/// Whether a function is one of those here.
pub(crate) fn is_amplifier(name: &str) -> bool {
    kind(name).is_some_and(|kind| kind != Kind::RegexpTest)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All arguments one after the other.
    Sum,
    /// The first between all others.
    SumWithSeparator,
    /// The first so often as the second says.
    Times,
    /// So many characters as the second says.
    Pad,
    Range,
    Resize,
    Replace,
    RegexpReplace,
    RegexpMatch,
    /// Yes, no, or a number: only the patterns are large.
    RegexpTest,
    Join,
    ReplaceElements,
    /// Some bytes for each byte of the second.
    Format,
    /// An element for each byte.
    Split,
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "concat" | "array_concat" | "array_append" | "array_prepend" | "make_array" | "array_union"
        | "overlay" | "map" | "string_concat" => Kind::Sum,
        "concat_ws" => Kind::SumWithSeparator,
        "repeat" | "array_repeat" => Kind::Times,
        "lpad" | "rpad" => Kind::Pad,
        "range" | "generate_series" => Kind::Range,
        "array_resize" => Kind::Resize,
        "replace" => Kind::Replace,
        "regexp_replace" => Kind::RegexpReplace,
        "regexp_match" => Kind::RegexpMatch,
        "regexp_like" | "regexp_count" | "regexp_instr" | MATCHES => Kind::RegexpTest,
        "array_to_string" => Kind::Join,
        "array_replace" | "array_replace_n" | "array_replace_all" => Kind::ReplaceElements,
        "to_char" => Kind::Format,
        "string_to_array" => Kind::Split,
        _ => return None,
    })
}

/// The bound of a call, or `None` where the function is no amplifier or the arguments are not
/// of the kinds that it takes.
pub(crate) fn bound(name: &str, args: &[ColumnarValue], rows: usize) -> Option<Bound> {
    let kind = kind(name)?;
    let args: Vec<Values> = args.iter().map(Values::of).collect();
    if matches!(kind, Kind::Sum | Kind::SumWithSeparator) {
        return Some(sum(kind, &args, rows));
    }
    // Constants have one result, which is repeated by whoever needs it often.
    let rows = if args.iter().all(|arg| arg.is_constant) { 1 } else { rows };
    let is_loose = matches!(
        kind,
        Kind::Replace
            | Kind::RegexpReplace
            | Kind::RegexpMatch
            | Kind::RegexpTest
            | Kind::ReplaceElements
            | Kind::Format
            | Kind::Split
    );
    let mut bound = Bound { is_loose, ..Bound::default() };
    let integers: Vec<Option<Whole>> = args.iter().map(Whole::of).collect();
    for row in 0..rows {
        let bytes = row_bytes(kind, &args, &integers, row)?;
        bound.bytes = bound.bytes.saturating_add(bytes);
        bound.largest = bound.largest.max(bytes);
    }
    if let (Kind::RegexpReplace | Kind::RegexpMatch | Kind::RegexpTest, Some(patterns)) = (kind, args.get(1))
    {
        bound.bytes = bound.bytes.saturating_add(patterns_bytes(patterns, rows));
    }
    Some(bound)
}

/// How long the longest and all calls may take, in steps of about a nanosecond; `None` for
/// functions that take a step or so for each byte.
pub(crate) fn steps(name: &str, args: &[ColumnarValue], rows: usize) -> Option<(u64, u64)> {
    let is_regexp = match kind(name) {
        Some(Kind::RegexpReplace | Kind::RegexpMatch | Kind::RegexpTest) => true,
        _ if COMPARE_ALL.contains(&name) => false,
        _ => return None,
    };
    let args: Vec<Values> = args.iter().take(2).map(Values::of).collect();
    let [text, other] = &args[..] else { return None };
    let rows = if text.is_constant && other.is_constant { 1 } else { rows };
    let (mut longest, mut all) = (0_u64, 0_u64);
    for row in 0..rows {
        let per_byte = match (is_regexp, other.text(row)) {
            (true, Some(pattern)) => states(pattern),
            _ => other.size(row),
        };
        let steps = text.size(row).saturating_mul(per_byte);
        longest = longest.max(steps);
        all = all.saturating_add(steps);
    }
    Some((longest, all))
}

/// Functions that may compare each part of the first argument with each of the second.
const COMPARE_ALL: [&str; 9] = [
    "levenshtein",
    "btrim",
    "ltrim",
    "rtrim",
    "strpos",
    "translate",
    "array_has_all",
    "array_has_any",
    "arrays_overlap",
];

/// The states of a regular expression's automaton, about, by its length, its classes (`\w` has
/// hundreds of ranges) and the counts of its repetitions: `(a{100}){50}` is `a` 5,000 times.
fn states(pattern: &str) -> u64 {
    let mut times = 1_u64;
    for part in pattern.split('{').skip(1) {
        let Some((counts, _)) = part.split_once('}') else { continue };
        let largest = counts.split(',').filter_map(|count| count.trim().parse::<u64>().ok()).max();
        times = times.saturating_mul(largest.unwrap_or(1).max(1));
    }
    let classes = pattern.bytes().filter(|byte| matches!(byte, b'\\' | b'[' | b'.')).count() as u64;
    times.saturating_mul(pattern.len() as u64 + 200 * classes)
}

/// The memory of compiled patterns. The engine keeps each different one of a batch for as long as
/// it computes the batch, and bounds each by 10 MiB, besides what a search of it caches.
fn patterns_bytes(patterns: &Values, rows: usize) -> u64 {
    const ONE: u64 = 12 << 20;
    let rows = if patterns.is_constant { 1 } else { rows };
    let different: HashSet<&str> = (0..rows).filter_map(|row| patterns.text(row)).collect();
    if different.len() <= 1 {
        return 0;
    }
    let bytes = |pattern: &&str| (64 << 10) + states(pattern).saturating_mul(2 << 10).min(ONE);
    different.iter().map(bytes).fold(0, u64::saturating_add)
}

fn sum(kind: Kind, args: &[Values], rows: usize) -> Bound {
    let constant = args.iter().all(|arg| arg.is_constant);
    let rows = if constant { 1 } else { rows as u64 };
    let total = |arg: &Values| if arg.is_constant { arg.total.saturating_mul(rows) } else { arg.total };
    let mut bytes = args.iter().fold(0_u64, |sum, arg| sum.saturating_add(total(arg)));
    if kind == Kind::SumWithSeparator
        && let Some(separator) = args.first()
    {
        bytes = bytes.saturating_add(total(separator).saturating_mul(args.len() as u64));
    }
    // At least the largest of many rows; with one row it is the value itself.
    Bound { bytes, largest: if rows <= 1 { bytes } else { 0 }, is_loose: false }
}

fn row_bytes(kind: Kind, args: &[Values], integers: &[Option<Whole>], row: usize) -> Option<u64> {
    let size = |n: usize| args.get(n).map(|arg| arg.size(row));
    let count = |n: usize| integers.get(n)?.as_ref().map(|whole| whole.at(row));
    let positive = |n: usize| count(n).map(|count| u64::try_from(count.unwrap_or(0)).unwrap_or(0));
    Some(match kind {
        Kind::Sum | Kind::SumWithSeparator => return None,
        Kind::Times => size(0)?.max(1).saturating_mul(positive(1)?),
        Kind::Pad => positive(1)?.saturating_mul(4),
        Kind::Resize => size(0)?.saturating_add(positive(1)?.saturating_mul(size(2).unwrap_or(0).max(8))),
        Kind::Range => range(args, row)?.saturating_mul(16),
        Kind::Replace => {
            let (text, from, to) = (size(0)?, size(1)?, size(2)?);
            text.saturating_add((text / from.max(1) + 1).saturating_mul(to))
        }
        Kind::RegexpReplace => {
            let (text, to) = (size(0)?, size(2)?);
            // Each reference such as \1 puts in a part of what was matched.
            let references = to / 2 + 1;
            let all = size(3).is_some_and(|flags| flags > 0);
            let times = if all { text.saturating_add(1) } else { 1 };
            times.saturating_mul(to).saturating_add(text.saturating_mul(references.saturating_add(1)))
        }
        Kind::RegexpTest => 16,
        Kind::RegexpMatch => size(0)?.saturating_mul(size(1)?.max(1)),
        Kind::Join => {
            let (list, separator, null) = (size(0)?, size(1)?, size(2).unwrap_or(0));
            let elements = args.first()?.elements(row);
            // A number of 8 bytes has 20 digits.
            let one = separator.saturating_add(null);
            list.saturating_mul(3).saturating_add(elements.saturating_mul(one))
        }
        Kind::ReplaceElements => {
            size(0)?.saturating_add(args.first()?.elements(row).saturating_mul(size(2)?))
        }
        Kind::Format => size(1)?.saturating_mul(16),
        Kind::Split => size(0)?.saturating_mul(24),
    })
}

/// An argument whose sizes are asked for row by row.
struct Values {
    array: ArrayRef,
    is_constant: bool,
    total: u64,
}

impl Values {
    fn of(value: &ColumnarValue) -> Self {
        let (array, is_constant) = match value {
            ColumnarValue::Array(array) => (ArrayRef::clone(array), false),
            ColumnarValue::Scalar(scalar) => (constant(scalar), true),
        };
        let total = array_bytes(&array) as u64;
        Self { array, is_constant, total }
    }

    fn at(&self, row: usize) -> Option<usize> {
        let row = if self.is_constant { 0 } else { row };
        (row < self.array.len() && self.array.is_valid(row)).then_some(row)
    }

    fn size(&self, row: usize) -> u64 {
        let Some(row) = self.at(row) else { return 0 };
        let bytes = match self.array.data_type() {
            DataType::Utf8 => self.array.as_string::<i32>().value_length(row) as usize,
            DataType::LargeUtf8 => {
                usize::try_from(self.array.as_string::<i64>().value_length(row)).unwrap_or(0)
            }
            DataType::Utf8View => self.array.as_string_view().value(row).len(),
            other => match other.primitive_width() {
                Some(width) => width,
                None => array_bytes(&self.array.slice(row, 1)),
            },
        };
        bytes as u64
    }

    /// A text, `None` where it is null or none.
    fn text(&self, row: usize) -> Option<&str> {
        let row = self.at(row)?;
        match self.array.data_type() {
            DataType::Utf8 => Some(self.array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Some(self.array.as_string::<i64>().value(row)),
            DataType::Utf8View => Some(self.array.as_string_view().value(row)),
            _ => None,
        }
    }

    /// The elements of a list.
    fn elements(&self, row: usize) -> u64 {
        let Some(row) = self.at(row) else { return 0 };
        let count = match self.array.data_type() {
            DataType::List(_) => self.array.as_list::<i32>().value(row).len(),
            DataType::LargeList(_) => self.array.as_list::<i64>().value(row).len(),
            DataType::FixedSizeList(_, length) => usize::try_from(*length).unwrap_or(0),
            _ => 0,
        };
        count as u64
    }
}

fn constant(scalar: &ScalarValue) -> ArrayRef {
    scalar.to_array_of_size(1).unwrap_or_else(|_| arrow::array::new_null_array(&DataType::Null, 1))
}

/// An argument as whole numbers.
struct Whole {
    array: ArrayRef,
    is_constant: bool,
}

impl Whole {
    fn of(values: &Values) -> Option<Self> {
        let array = match values.array.data_type() {
            of if of.is_numeric() => cast(&values.array, &DataType::Int64).ok()?,
            _ => return None,
        };
        Some(Self { array, is_constant: values.is_constant })
    }

    fn at(&self, row: usize) -> Option<i64> {
        let row = if self.is_constant { 0 } else { row };
        let numbers = self.array.as_primitive::<arrow::datatypes::Int64Type>();
        (row < numbers.len() && numbers.is_valid(row)).then(|| numbers.value(row))
    }
}

/// The elements of `range(stop)`, `range(start, stop)`, and with a step, of numbers or times.
fn range(args: &[Values], row: usize) -> Option<u64> {
    let point = |n: usize| args.get(n).and_then(|arg| point(arg, row));
    let (start, stop, step) = match args.len() {
        1 => (0, point(0).unwrap_or(0), 1),
        2 => (point(0).unwrap_or(0), point(1).unwrap_or(0), 1),
        _ => (point(0).unwrap_or(0), point(1).unwrap_or(0), point(2).unwrap_or(0)),
    };
    let elements = (stop - start).unsigned_abs() / step.unsigned_abs().max(1);
    Some(u64::try_from(elements).unwrap_or(u64::MAX).saturating_add(1))
}

/// A number as it is; a time in nanoseconds; an interval in the least that it can have.
fn point(arg: &Values, row: usize) -> Option<i128> {
    const DAY: i128 = 86_400_000_000_000;
    let row = arg.at(row)?;
    let whole = || {
        let value = arg.array.slice(row, 1);
        let value = match value.data_type() {
            DataType::Date32 => cast(&value, &DataType::Int32).ok()?,
            _ => value,
        };
        let value = cast(&value, &DataType::Int64).ok()?;
        let value = value.as_primitive::<arrow::datatypes::Int64Type>();
        value.is_valid(0).then(|| i128::from(value.value(0)))
    };
    match arg.array.data_type() {
        DataType::Date32 => whole().map(|days| days * DAY),
        DataType::Date64 => whole().map(|ms| ms * 1_000_000),
        DataType::Timestamp(unit, _) => {
            let ns = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            whole().map(|value| value * ns)
        }
        DataType::Interval(_) => {
            let value = arg.array.slice(row, 1);
            let month_day_nano = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
            let value = cast(&value, &month_day_nano).ok()?;
            let value = value.as_primitive::<IntervalMonthDayNanoType>().value(0);
            let days = i128::from(value.months) * 28 + i128::from(value.days);
            Some(days * DAY + i128::from(value.nanoseconds))
        }
        _ => whole(),
    }
}
