//! Numbers as they are written: digits and a power of ten, never a double in between.
//!
//! A value on its way into an integer, a decimal or an epoch is read here, and so are the bounds of
//! quality rules, so that `9007199254740993.0` and `0.1` stay what they are.

use std::cmp::Ordering;

/// The most digits that a decimal column holds.
pub const MAX_DIGITS: u8 = 38;
/// Exponents beyond this say nothing more: no column reaches so far.
const FAR: i64 = 1_000_000_000;

/// A number in decimal notation.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    negative: bool,
    /// The first 38 significant digits, without the zeros at either end.
    mantissa: u128,
    /// Significant digits of the text, which may be more than the mantissa holds; 0 is zero.
    digits: i64,
    /// The power of ten that the last significant digit stands for.
    exponent: i64,
}

/// Why a number has no place in a decimal column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// More digits before the point than the column holds.
    Range,
    /// More digits after the point than the column holds.
    Scale,
}

impl Exact {
    /// Reads `[+-]digits[.digits][e[+-]digits]`; a digit on one side of the point is enough.
    /// `None`: it is no number, such as `1,000`, `NaN` or an empty text.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let mut number = Self { negative, mantissa: 0, digits: 0, exponent: 0 };
        let (mut zeros, mut fraction, mut any) = (0i64, 0i64, false);
        let mut in_fraction = false;
        let mut at = 0;
        while let Some(&byte) = rest.get(at) {
            match byte {
                b'0'..=b'9' => {
                    any = true;
                    fraction += i64::from(in_fraction);
                    number.push(byte - b'0', &mut zeros);
                }
                b'.' if !in_fraction => in_fraction = true,
                _ => break,
            }
            at += 1;
        }
        let power = match rest.get(at) {
            None => 0,
            Some(b'e' | b'E') => exponent(&rest[at + 1..])?,
            Some(_) => return None,
        };
        if number.digits > 0 {
            number.exponent = power.saturating_sub(fraction).saturating_add(zeros);
        }
        any.then_some(number)
    }

    /// Adds a digit; `zeros` counts those that may turn out to stand at the end.
    fn push(&mut self, digit: u8, zeros: &mut i64) {
        if digit == 0 {
            *zeros += i64::from(self.digits > 0);
            return;
        }
        for next in std::iter::repeat_n(0, usize::try_from(*zeros).unwrap_or(0)).chain([digit]) {
            self.digits += 1;
            if self.digits <= i64::from(MAX_DIGITS) {
                self.mantissa = self.mantissa * 10 + u128::from(next);
            }
        }
        *zeros = 0;
    }

    /// The value times ten to the power of `scale`, of at most `precision` digits.
    ///
    /// # Errors
    /// [`Misfit`] when the column would have to round or cut it.
    pub fn unscaled(&self, precision: u8, scale: u8) -> Result<i128, Misfit> {
        if self.digits == 0 {
            return Ok(0);
        }
        if self.digits + self.exponent > i64::from(precision) - i64::from(scale) {
            return Err(Misfit::Range);
        }
        // So the shift is at most the precision, and the mantissa holds every digit.
        let shift = self.exponent + i64::from(scale);
        let power = u32::try_from(shift).map_err(|_| Misfit::Scale)?;
        let value = 10u128.checked_pow(power).and_then(|p| self.mantissa.checked_mul(p));
        let value = value.and_then(|v| i128::try_from(v).ok()).ok_or(Misfit::Range)?;
        Ok(if self.negative { -value } else { value })
    }

    /// The whole number that this is, in 64 bits.
    pub fn integer(&self) -> Option<i64> {
        self.unscaled(19, 0).ok().and_then(|value| i64::try_from(value).ok())
    }

    /// The greatest whole number of units of ten to the power of `-scale` that is not above the value.
    /// `None`: beyond 38 digits.
    pub fn floor(&self, scale: i64) -> Option<i128> {
        if self.digits > i64::from(MAX_DIGITS) {
            return None;
        }
        let shift = self.exponent + scale;
        let mantissa = i128::try_from(self.mantissa).ok()?;
        let signed = if self.negative { -mantissa } else { mantissa };
        match u32::try_from(shift) {
            _ if self.digits == 0 => Some(0),
            Ok(power) => 10i128.checked_pow(power)?.checked_mul(signed),
            Err(_) => {
                let cut = u32::try_from(-shift).ok().and_then(|p| 10i128.checked_pow(p));
                Some(cut.map_or(-i128::from(self.negative), |cut| signed.div_euclid(cut)))
            }
        }
    }

    /// The least whole number of units of ten to the power of `-scale` that is not below the value.
    /// `None`: beyond 38 digits.
    pub fn ceil(&self, scale: i64) -> Option<i128> {
        Self { negative: !self.negative, ..*self }.floor(scale).and_then(i128::checked_neg)
    }

    /// Significant digits: from the first that is not zero to the last.
    pub fn significant(&self) -> i64 {
        self.digits
    }

    /// Digits that the value has after the point.
    pub fn decimals(&self) -> i64 {
        (-self.exponent).max(0)
    }

    fn sign(&self) -> i8 {
        match (self.digits, self.negative) {
            (0, _) => 0,
            (_, true) => -1,
            (_, false) => 1,
        }
    }

    pub fn is_positive(&self) -> bool {
        self.sign() > 0
    }

    /// Orders two values; digits beyond the 38th of both count for nothing.
    pub fn compare(&self, other: &Self) -> Ordering {
        let by_sign = self.sign().cmp(&other.sign());
        if by_sign != Ordering::Equal || self.digits == 0 {
            return by_sign;
        }
        let size = self.size(other);
        if self.negative { size.reverse() } else { size }
    }

    /// Orders the distance from zero of two values that are not zero.
    fn size(&self, other: &Self) -> Ordering {
        let reach = |n: &Self| n.digits + n.exponent;
        reach(self).cmp(&reach(other)).then_with(|| {
            let held = |n: &Self| u32::try_from(n.digits.min(i64::from(MAX_DIGITS))).unwrap_or(0);
            let (mine, theirs) = (held(self), held(other));
            let level = |value: u128, by: u32| value.saturating_mul(10u128.saturating_pow(by));
            let most = mine.max(theirs);
            level(self.mantissa, most - mine).cmp(&level(other.mantissa, most - theirs))
        })
    }
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let far = |n: i64, d: &u8| (n * 10 + i64::from(d - b'0')).min(FAR);
    let value = digits.iter().fold(0, far);
    Some(if negative { -value } else { value })
}

/// The text of `value` units of ten to the power of `-scale` in one spelling: without zeros at the end
/// of its fraction, so that a value reads alike whatever the scale.
pub fn decimal_text(value: i128, scale: u32) -> String {
    let digits = value.unsigned_abs().to_string();
    let scale = scale as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let (minus, point) = (if value < 0 { "-" } else { "" }, if fraction.is_empty() { "" } else { "." });
    format!("{minus}{whole}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_or_refused_and_never_rounded() {
        let check = |text: &str, (precision, scale), want: Result<i128, Misfit>| {
            let number = Exact::parse(text).unwrap_or_else(|| panic!("{text} is a number"));
            assert_eq!(number.unscaled(precision, scale), want, "{text} as DECIMAL({precision},{scale})");
        };
        let nines = 10i128.pow(38) - 1;
        for (text, kind, want) in [
            ("0", (12, 2), Ok(0)),
            ("-0", (12, 2), Ok(0)),
            ("0.000", (1, 0), Ok(0)),
            ("1.50", (12, 2), Ok(150)),
            ("1.5000000", (12, 2), Ok(150)),
            ("1.505", (12, 2), Err(Misfit::Scale)),
            ("-0.01", (12, 2), Ok(-1)),
            (".5", (12, 2), Ok(50)),
            ("5.", (12, 2), Ok(500)),
            ("+7", (12, 2), Ok(700)),
            ("1e3", (12, 2), Ok(100_000)),
            ("1.5E-1", (12, 2), Ok(15)),
            ("1e-3", (12, 2), Err(Misfit::Scale)),
            ("9999999999.99", (12, 2), Ok(999_999_999_999)),
            ("10000000000", (12, 2), Err(Misfit::Range)),
            ("1e400", (38, 9), Err(Misfit::Range)),
            ("1e-400", (38, 9), Err(Misfit::Scale)),
            ("0e99999999999999999999", (38, 9), Ok(0)),
            ("1e99999999999999999999", (38, 0), Err(Misfit::Range)),
            ("99999999999999999999999999999999999999", (38, 0), Ok(nines)),
            ("-99999999999999999999999999999.999999999", (38, 9), Ok(-nines)),
            ("100000000000000000000000000000000000000", (38, 0), Err(Misfit::Range)),
            ("0.00000000000000000000000000000000000001", (38, 38), Ok(1)),
            ("1.00000000000000000000000000000000000000000000", (38, 9), Ok(1_000_000_000)),
        ] {
            check(text, kind, want);
        }
        for text in
            ["", "-", ".", "e5", "1e", "1e+", "1,000", "1_000", "1 000", "0x10", "NaN", "inf", "1.2.3", "--1"]
        {
            assert!(Exact::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn integers_keep_every_digit() {
        for (text, want) in [
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("1e18", Some(1_000_000_000_000_000_000)),
            ("9223372036854775807.000", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1.5", None),
        ] {
            assert_eq!(Exact::parse(text).and_then(|n| n.integer()), want, "{text}");
        }
    }

    #[test]
    fn random_numbers_compare_and_round_as_their_integers_do() {
        // A linear congruential generator, by Knuth's constants.
        let mut state = 0xdec1_u64;
        let mut random = |below: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i64::try_from(state >> 33).expect("31 bits") % below
        };
        for _ in 0..20_000 {
            let scale = u32::try_from(random(6)).expect("small");
            let (a, b) = (random(200_001) - 100_000, random(200_001) - 100_000);
            let (x, y) = (decimal_text(i128::from(a), scale), decimal_text(i128::from(b), scale));
            let (left, right) = (Exact::parse(&x).expect("a"), Exact::parse(&y).expect("b"));
            assert_eq!(left.compare(&right), a.cmp(&b), "{x} {y}");
            let (value, unit) = (i128::from(a), 10i128.pow(scale));
            assert_eq!(left.floor(0), Some(value.div_euclid(unit)), "{x}");
            assert_eq!(left.ceil(0), Some(-(-value).div_euclid(unit)), "{x}");
            assert_eq!(left.unscaled(38, 5), Ok(value * 10i128.pow(5 - scale)), "{x}");
        }
    }

    #[test]
    fn a_decimal_has_one_spelling() {
        for (value, scale, text) in [
            (0, 0, "0"),
            (0, 9, "0"),
            (150, 2, "1.5"),
            (-5, 2, "-0.05"),
            (100, 2, "1"),
            (100, 0, "100"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
        ] {
            assert_eq!(decimal_text(value, scale), text);
        }
    }
}
