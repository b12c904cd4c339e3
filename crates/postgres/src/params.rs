//! Parameters of a bound statement, from the wire to the lake.
//!
//! Text is passed on as it is wherever the query says what it wants, since the lake casts
//! it; what the client declares matters where the query leaves the type open.

use bytes::Bytes;
use levada_core::Exact;
use levada_lake::Param;
use pgwire::api::Type;

use crate::error::{Outcome, refuse};
use crate::kept::{self, Kept};
use crate::numeric;
use crate::types::Formats;

const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 10_957 * 86_400_000_000;

/// Decodes the parameters of a Bind message. What they come to is taken as `kept` one by one: a
/// value may be many times as long as it is on the wire.
///
/// # Errors
/// 22P02 or 22P03 when a value is not of the type it is declared to be; 54000 or 53200 where there
/// is no room for all.
pub(crate) fn decode(
    values: &[Option<Bytes>],
    formats: &Formats,
    types: &[Type],
    kept: &mut Kept,
) -> Outcome<Vec<Param>> {
    let mut params = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let param = one(value.as_deref(), i, formats, types)?;
        kept.grow(kept::bytes_of_param(&param))?;
        params.push(param);
    }
    Ok(params)
}

fn one(value: Option<&[u8]>, i: usize, formats: &Formats, types: &[Type]) -> Outcome<Param> {
    let Some(bytes) = value else { return Ok(Param::Null) };
    let of = types.get(i).unwrap_or(&Type::UNKNOWN);
    let decoded = if formats.is_binary(i) { binary(bytes, of) } else { text(bytes, of) };
    let code = if formats.is_binary(i) { "22P03" } else { "22P02" };
    decoded.ok_or_else(|| refuse(code, format!("parameter ${} is no {of}", i + 1)))
}

fn text(bytes: &[u8], of: &Type) -> Option<Param> {
    let text = std::str::from_utf8(bytes).ok()?;
    let trimmed = text.trim();
    Some(match *of {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Param::Int(trimmed.parse().ok()?),
        Type::FLOAT4 | Type::FLOAT8 => Param::Float(float(trimmed)?),
        Type::BOOL => Param::Bool(match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => true,
            "f" | "false" | "n" | "no" | "off" | "0" => false,
            _ => return None,
        }),
        Type::BYTEA => Param::Bytes(bytea(text)?),
        Type::NUMERIC => decimal(trimmed),
        _ => Param::Text(text.to_owned()),
    })
}

/// `NaN` and `Infinity` are for the query to refuse.
fn decimal(text: &str) -> Param {
    match Exact::parse(text) {
        Some(_) => Param::Decimal(text.to_owned()),
        None => Param::Text(text.to_owned()),
    }
}

fn float(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "infinity" => Some(f64::INFINITY),
        "-infinity" => Some(f64::NEG_INFINITY),
        other => other.parse().ok(),
    }
}

/// `\x` and hexadecimal digits; the older escapes only where they are plain text.
fn bytea(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else {
        return (!text.contains('\\')).then(|| text.as_bytes().to_vec());
    };
    let digit = |b: u8| char::from(b).to_digit(16);
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

fn binary(bytes: &[u8], of: &Type) -> Option<Param> {
    Some(match *of {
        Type::BOOL => Param::Bool(*bytes.first()? != 0),
        Type::INT2 => Param::Int(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        Type::INT4 => Param::Int(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        Type::INT8 => Param::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
        Type::OID => Param::Int(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        Type::FLOAT4 => Param::Float(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        Type::FLOAT8 => Param::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
        Type::BYTEA => Param::Bytes(bytes.to_vec()),
        Type::DATE => Param::Date(i32::from_be_bytes(bytes.try_into().ok()?).checked_add(EPOCH_DAYS)?),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            Param::Timestamp(i64::from_be_bytes(bytes.try_into().ok()?).checked_add(EPOCH_MICROS)?)
        }
        Type::NUMERIC => Param::Decimal(numeric::decode(bytes)?),
        Type::UUID => {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let cut = |from, to| hex.get(from..to);
            Param::Text(format!(
                "{}-{}-{}-{}-{}",
                cut(0, 8)?,
                cut(8, 12)?,
                cut(12, 16)?,
                cut(16, 20)?,
                cut(20, 32)?
            ))
        }
        // One byte of version goes before the text.
        Type::JSONB => Param::Text(String::from_utf8(bytes.get(1..)?.to_vec()).ok()?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => {
            Param::Text(String::from_utf8(bytes.to_vec()).ok()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(bytes: &[u8], format: i16, of: Type) -> Option<Param> {
        super::one(Some(bytes), 0, &Formats::new(&[format]), &[of]).ok()
    }

    #[test]
    fn text_and_binary_mean_the_same() {
        for (text, binary, of, expected) in [
            (&b"258"[..], &[1u8, 2][..], Type::INT2, Param::Int(258)),
            (b"258", &[0, 0, 1, 2], Type::INT4, Param::Int(258)),
            (b"t", &[1], Type::BOOL, Param::Bool(true)),
            (b"1.5", &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0], Type::FLOAT8, Param::Float(1.5)),
            (b"\\x00ff", &[0, 255], Type::BYTEA, Param::Bytes(vec![0, 255])),
            (b"a", b"a", Type::TEXT, Param::Text("a".into())),
            (
                b"1.50",
                &[0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 0x13, 0x88],
                Type::NUMERIC,
                Param::Decimal("1.50".into()),
            ),
        ] {
            assert_eq!(one(text, 0, of.clone()).as_ref(), Some(&expected), "{of} as text");
            assert_eq!(one(binary, 1, of.clone()), Some(expected), "{of} as binary");
        }
        assert_eq!(one(&[0, 0, 0, 1], 1, Type::DATE), Some(Param::Date(10_958)));
    }

    #[test]
    fn wrong_values_are_refused() {
        for (bytes, format, of) in [
            (&b"x"[..], 0, Type::INT4),
            (&[1, 2, 3], 1, Type::INT4),
            (b"\xff", 0, Type::TEXT),
            (b"\\xf", 0, Type::BYTEA),
            (b"", 1, Type::BOOL),
            (b"abc", 1, Type::UUID),
            (b"abc", 1, Type::INTERVAL),
        ] {
            assert_eq!(one(bytes, format, of.clone()), None, "{of}");
        }
    }
}
