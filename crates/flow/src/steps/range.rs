//! The bounds of a `range` or `positive` rule, compared exactly: a bound of 0.1 is 0.1 beside a
//! decimal, and one beyond 2^53 tells integers apart. Only a double is compared as a double.

use std::cmp::Ordering;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type};
use levada_core::{Exact, MAX_DIGITS};

use crate::rows;

/// What a value is compared with.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// Zero itself does not hold.
    AboveZero,
    Exact(Exact, f64),
}

/// From and to, both inclusive.
#[derive(Debug, Clone)]
pub struct Range {
    min: Option<Bound>,
    max: Option<Bound>,
    /// As the rule writes them.
    written: (Option<String>, Option<String>),
}

impl Range {
    pub const POSITIVE: Self = Self { min: Some(Bound::AboveZero), max: None, written: (None, None) };

    /// # Errors
    /// When a bound is no number.
    pub fn new(min: Option<&str>, max: Option<&str>) -> Result<Self, String> {
        let read = |text: Option<&str>| -> Result<Option<Bound>, String> {
            let Some(text) = text else { return Ok(None) };
            let exact = Exact::parse(text).filter(|e| e.significant() <= i64::from(MAX_DIGITS));
            let exact = exact.zip(text.parse::<f64>().ok());
            exact
                .map(|(e, f)| Some(Bound::Exact(e, f)))
                .ok_or_else(|| format!("`{text}` is no number of at most {MAX_DIGITS} digits"))
        };
        let written = (min.map(str::to_owned), max.map(str::to_owned));
        Ok(Self { min: read(min)?, max: read(max)?, written })
    }

    /// For each row whether its value lies outside. A text that is no number does; a null does not.
    pub fn breaks(&self, column: &ArrayRef) -> Vec<bool> {
        if let Some(values) = column.as_primitive_opt::<Float64Type>() {
            return values.iter().map(|v| v.is_some_and(|v| !self.holds_double(v))).collect();
        }
        if let Some(values) = column.as_primitive_opt::<Int64Type>() {
            let within = self.within(0);
            return values.iter().map(|v| v.is_some_and(|v| !within(i128::from(v)))).collect();
        }
        if let Some(values) = column.as_primitive_opt::<Decimal128Type>() {
            let within = self.within(i64::from(values.scale()));
            return values.iter().map(|v| v.is_some_and(|v| !within(v))).collect();
        }
        let holds = |text: &str| Exact::parse(text.trim()).is_some_and(|v| self.holds(&v));
        (0..column.len()).map(|row| rows::text(column, row).is_some_and(|t| !holds(&t))).collect()
    }

    fn holds_double(&self, value: f64) -> bool {
        let low = match self.min {
            None => true,
            Some(Bound::AboveZero) => value > 0.0,
            Some(Bound::Exact(_, min)) => value >= min,
        };
        low && match self.max {
            Some(Bound::Exact(_, max)) => value <= max,
            _ => true,
        }
    }

    fn holds(&self, value: &Exact) -> bool {
        let low = match &self.min {
            None => true,
            Some(Bound::AboveZero) => value.is_positive(),
            Some(Bound::Exact(min, _)) => value.compare(min) != Ordering::Less,
        };
        low && match &self.max {
            Some(Bound::Exact(max, _)) => value.compare(max) != Ordering::Greater,
            _ => true,
        }
    }

    /// The test of whole numbers that count units of ten to the power of `-scale`.
    fn within(&self, scale: i64) -> impl Fn(i128) -> bool {
        // The bounds as such units: the first that holds and the last.
        let far = |bound: &Exact| if bound.is_positive() { i128::MAX } else { i128::MIN };
        let first = match &self.min {
            None => i128::MIN,
            Some(Bound::AboveZero) => 1,
            Some(Bound::Exact(min, _)) => min.ceil(scale).unwrap_or_else(|| far(min)),
        };
        let last = match &self.max {
            Some(Bound::Exact(max, _)) => max.floor(scale).unwrap_or_else(|| far(max)),
            _ => i128::MAX,
        };
        move |value| first <= value && value <= last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |written: &Option<String>| written.clone().unwrap_or_else(|| "any".to_owned());
        write!(f, "{} to {}", bound(&self.written.0), bound(&self.written.1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float64Array, Int64Array, StringArray};

    use super::*;

    fn broken(min: Option<&str>, max: Option<&str>, column: impl Array + 'static) -> Vec<bool> {
        Range::new(min, max).expect("bounds").breaks(&(Arc::new(column) as ArrayRef))
    }

    #[test]
    fn bounds_are_exact_beside_integers_and_decimals() {
        let beyond = vec![9_007_199_254_740_992, 9_007_199_254_740_993, 9_007_199_254_740_994];
        let ints = || Int64Array::from(beyond.clone());
        assert_eq!(broken(Some("9007199254740993"), None, ints()), [true, false, false]);
        assert_eq!(broken(None, Some("9007199254740993.5"), ints()), [false, false, true]);
        assert_eq!(broken(Some("1e400"), None, ints()), [true, true, true]);
        let decimals = || {
            let values = Decimal128Array::from(vec![Some(9), Some(10), Some(11), None, Some(-1)]);
            values.with_precision_and_scale(12, 2).expect("fits")
        };
        assert_eq!(broken(Some("0.1"), None, decimals()), [true, false, false, false, true]);
        assert_eq!(broken(Some("-0.005"), Some("0.105"), decimals()), [false, false, true, false, true]);
        assert_eq!(
            Range::POSITIVE.breaks(&(Arc::new(decimals()) as ArrayRef)),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn doubles_and_texts_are_compared_as_what_they_are() {
        assert_eq!(
            broken(Some("0.1"), Some("1"), Float64Array::from(vec![0.1, 0.09, 1.0, f64::NAN])),
            [false, true, false, true]
        );
        let texts =
            StringArray::from(vec![Some(" 1.5 "), Some("many"), Some("99999999999999999999.1"), None]);
        assert_eq!(broken(Some("1"), Some("99999999999999999999"), texts), [false, true, true, false]);
    }
}
