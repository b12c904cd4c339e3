//! Quality rules: each looks at one column; a row that breaks one is a fault with the value
//! in its reason. A null passes every rule but `not_null`.

use std::time::Duration;

use ahash::AHashSet;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, Schema, TimestampMicrosecondType};
use levada_config::model::{Check, Rule};
use levada_core::{Exact, MAX_DIGITS, decimal_text};
use regex::Regex;

use super::deduplicate::Keyer;
use super::email::is_email;
use super::range::Range;
use super::{BuildError, Fault, StepError};
use crate::rows;
use crate::window::{Key, Window};

/// Name of this step in dead letters.
pub const STAGE: &str = "quality";

enum Test {
    NotNull,
    Range(Range),
    Regex(Regex),
    OneOf(AHashSet<String>),
    Email,
    Positive,
    Unique(Keyer),
    NotInFuture(Duration),
}

struct Compiled {
    field: String,
    test: Test,
}

/// The rules of one step.
pub struct QualityStep {
    rules: Vec<Compiled>,
}

/// What the rules left.
pub struct Checked {
    pub batch: RecordBatch,
    pub faults: Vec<Fault>,
    /// Of rows that pass: rule, row number and key of `unique` rules, to be remembered once the
    /// row has come through.
    pub claims: Vec<(usize, u32, Key)>,
}

impl QualityStep {
    /// # Errors
    /// When a column is not there, has no type that the rule can judge, or a pattern is wrong.
    pub fn new(rules: &[Rule], schema: &Schema) -> Result<Self, BuildError> {
        let rules = rules.iter().map(|rule| compile(rule, schema)).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// The rules that need a window: their index in the step and the column.
    pub fn unique_rules(&self) -> impl Iterator<Item = (usize, &str)> {
        let unique = |(at, rule): (usize, &Compiled)| matches!(rule.test, Test::Unique(_)).then_some(at);
        self.rules.iter().enumerate().filter_map(unique).map(|at| (at, self.rules[at].field.as_str()))
    }

    /// Judges every row; the first rule that a row breaks is its fault.
    ///
    /// # Errors
    /// [`StepError`] for a defect.
    pub fn run<'w>(
        &self,
        batch: &RecordBatch,
        now_ms: i64,
        window: impl Fn(usize) -> Option<&'w Window>,
    ) -> Result<Checked, StepError> {
        let numbers = rows::numbers(batch).ok_or_else(|| StepError::MissingColumn(rows::ROW.into()))?;
        let mut passes = vec![true; batch.num_rows()];
        let mut faults = Vec::new();
        let mut claims = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let column = batch
                .column_by_name(&rule.field)
                .ok_or_else(|| StepError::MissingColumn(rule.field.clone()))?;
            let broken = match &rule.test {
                Test::Unique(keyer) => {
                    let keys = keyer.keys(batch)?;
                    let seen = window(at);
                    let mut batch_keys = AHashSet::with_capacity(keys.len());
                    let mut broken = vec![false; keys.len()];
                    for (row, key) in keys.into_iter().enumerate().filter(|(row, _)| passes[*row]) {
                        let Some(key) = key else { continue };
                        broken[row] = seen.is_some_and(|w| w.contains(key)) || !batch_keys.insert(key);
                        if !broken[row] {
                            claims.push((at, numbers.value(row), key));
                        }
                    }
                    broken
                }
                test => breaks(test, column, now_ms),
            };
            for row in (0..broken.len()).filter(|row| broken[*row]) {
                if std::mem::replace(&mut passes[row], false) {
                    faults.push(fault(rule, column, row, numbers.value(row)));
                }
            }
        }
        let failed: AHashSet<u32> = faults.iter().map(|f| f.row).collect();
        claims.retain(|(_, row, _)| !failed.contains(row));
        Ok(Checked { batch: rows::keep(batch, passes)?, faults, claims })
    }
}

fn compile(rule: &Rule, schema: &Schema) -> Result<Compiled, BuildError> {
    let field = rule.field.to_string();
    let wrong = |reason: String| BuildError::new(format!("quality rule on `{field}`"), reason);
    let kind = schema
        .field_with_name(&field)
        .map_err(|_| wrong("there is no such column".to_owned()))?
        .data_type()
        .clone();
    let number = kind.is_numeric();
    let words = matches!(kind, DataType::Utf8 | DataType::Utf8View);
    let time =
        matches!(kind, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) | DataType::Date32);
    let test = match &rule.check {
        Check::NotNull => Test::NotNull,
        Check::Range { min, max } if number || words => {
            Test::Range(Range::new(min.as_deref(), max.as_deref()).map_err(wrong)?)
        }
        Check::Positive if number || words => Test::Positive,
        Check::Regex { pattern } => Test::Regex(Regex::new(pattern).map_err(|e| wrong(e.to_string()))?),
        Check::OneOf { values } if kind.is_decimal() => {
            // As [`rows::text`] writes a decimal, so that `1.5` is `1.50`.
            let text = |v: &String| one_spelling(v).ok_or_else(|| wrong(format!("`{v}` is no number")));
            Test::OneOf(values.iter().map(text).collect::<Result<_, _>>()?)
        }
        Check::OneOf { values } => Test::OneOf(values.iter().cloned().collect()),
        Check::ValidEmail if words => Test::Email,
        Check::Unique => Test::Unique(Keyer::new(STAGE, std::slice::from_ref(&field), schema)?),
        Check::NotInFuture { allowance } if time => Test::NotInFuture(*allowance),
        _ => return Err(wrong(format!("the rule does not apply to a column of type {kind}"))),
    };
    Ok(Compiled { field, test })
}

/// For each row whether it breaks the rule.
fn breaks(test: &Test, column: &ArrayRef, now_ms: i64) -> Vec<bool> {
    let rows = 0..column.len();
    let by_text = |holds: &dyn Fn(&str) -> bool| -> Vec<bool> {
        rows.clone().map(|row| rows::text(column, row).is_some_and(|t| !holds(&t))).collect()
    };
    match test {
        Test::NotNull => rows.map(|row| column.is_null(row)).collect(),
        Test::Range(range) => range.breaks(column),
        Test::Positive => Range::POSITIVE.breaks(column),
        Test::Regex(regex) => by_text(&|t| regex.is_match(t)),
        Test::OneOf(values) => by_text(&|t| values.contains(t)),
        Test::Email => by_text(&is_email),
        Test::NotInFuture(allowance) => {
            let allowed = i64::try_from(allowance.as_millis()).unwrap_or(i64::MAX);
            let latest_ms = now_ms.saturating_add(allowed);
            match column.as_primitive_opt::<TimestampMicrosecondType>() {
                Some(times) => times.iter().map(|t| t.is_some_and(|t| t / 1000 > latest_ms)).collect(),
                None => match column.as_primitive_opt::<Date32Type>() {
                    Some(days) => days
                        .iter()
                        .map(|d| d.is_some_and(|d| i64::from(d) * 86_400_000 > latest_ms))
                        .collect(),
                    None => vec![false; column.len()],
                },
            }
        }
        Test::Unique(_) => vec![false; column.len()],
    }
}

/// The one spelling of a decimal.
fn one_spelling(written: &str) -> Option<String> {
    let number = Exact::parse(written.trim())?;
    let scale = number.decimals().min(i64::from(MAX_DIGITS));
    let value = number.unscaled(MAX_DIGITS, u8::try_from(scale).ok()?).ok()?;
    Some(decimal_text(value, u32::try_from(scale).ok()?))
}

fn fault(rule: &Compiled, column: &ArrayRef, at: usize, row: u32) -> Fault {
    let value = rows::text(column, at).map_or("null".to_owned(), |t| {
        let end = t.floor_char_boundary(60);
        if end < t.len() { format!("{}...", &t[..end]) } else { t.into_owned() }
    });
    let field = &rule.field;
    let (code, reason) = match &rule.test {
        Test::NotNull => ("quality-not-null", format!("`{field}` is null")),
        Test::Range(range) => ("quality-range", format!("`{field}` is {value}, outside {range}")),
        Test::Regex(regex) => {
            ("quality-regex", format!("`{field}` is {value}, which does not match {regex}"))
        }
        Test::OneOf(_) => {
            ("quality-one-of", format!("`{field}` is {value}, which is not among the allowed values"))
        }
        Test::Email => {
            ("quality-email", format!("`{field}` is {value}, which is not a valid e-mail address"))
        }
        Test::Positive => ("quality-positive", format!("`{field}` is {value}, which is not positive")),
        Test::Unique(_) => ("quality-unique", format!("`{field}` is {value}, which was seen before")),
        Test::NotInFuture(_) => ("quality-future", format!("`{field}` is {value}, which lies in the future")),
    };
    Fault { row, stage: STAGE.to_owned(), code, reason, attempts: 1 }
}
