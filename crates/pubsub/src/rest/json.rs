//! proto3 JSON to protobuf's wire form and back, by the shapes of `schema`.
//!
//! Going through the wire form keeps this to one walk a direction for all messages: the
//! calls themselves work with the decoded messages and never meet JSON.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Buf, Bytes};
use chrono::{DateTime, SecondsFormat, Utc};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use serde_json::{Map as Object, Value};

use super::schema::{Field, Kind, Shape, camel, snake};
use super::system::Enums;
use crate::error::ApiError;
use crate::names::shown;

/// Nesting beyond which a document is refused; the messages need five.
const MAX_DEPTH: usize = 16;

/// A JSON object as the message of that shape.
///
/// # Errors
/// INVALID_ARGUMENT in Google's words for an unknown name and for a value of the wrong kind.
pub(super) fn to_wire(shape: &Shape, value: &Value) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::new();
    message(shape, value, "", 0, &mut out)?;
    Ok(out)
}

pub(super) fn invalid(path: &str, kind: &str, value: &Value) -> ApiError {
    let text = format!("Invalid value at '{}' ({kind}), {}", shown(path), shown(&value.to_string()));
    ApiError::invalid_field(shown(path), text)
}

fn message(
    shape: &Shape,
    value: &Value,
    path: &str,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let Value::Object(object) = value else {
        return Err(invalid(path, "type.googleapis.com/message", value));
    };
    if depth > MAX_DEPTH {
        return Err(ApiError::invalid("Invalid JSON payload received. The document is nested too deeply."));
    }
    let (mut seen, mut groups) = (HashSet::new(), HashSet::new());
    for (name, value) in object {
        let Some(field) = shape.field(name) else {
            let at = if path.is_empty() { String::new() } else { format!(" at '{path}'") };
            let text = format!(
                "Invalid JSON payload received. Unknown name \"{}\"{at}: Cannot find field.",
                shown(name)
            );
            return Err(ApiError::invalid_field(path, text));
        };
        let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        if !seen.insert(field.number) {
            let text = format!("Invalid JSON payload received. '{path}' is given twice.");
            return Err(ApiError::invalid_field(path, text));
        }
        if value.is_null() {
            continue;
        }
        if !field.oneof.is_empty() && !groups.insert(field.oneof) {
            let text = format!(
                "Invalid value at '{path}' (oneof), oneof field '{}' is already set. Cannot set '{}'",
                field.oneof,
                camel(field.name)
            );
            return Err(ApiError::invalid_field(path, text));
        }
        match (field.repeated, value) {
            (false, value) => put(field, value, &path, depth, out)?,
            (true, Value::Array(items)) => {
                for (n, item) in items.iter().enumerate() {
                    put(field, item, &format!("{path}[{n}]"), depth, out)?;
                }
            }
            (true, _) => return Err(invalid(&path, "repeated field", value)),
        }
    }
    Ok(())
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_number(number: u32, value: i64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value.cast_unsigned(), out);
}

fn put(field: &Field, value: &Value, path: &str, depth: usize, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let number = field.number;
    let text = |kind| value.as_str().ok_or_else(|| invalid(path, kind, value));
    match field.kind {
        Kind::String => put_bytes(number, text("TYPE_STRING")?.as_bytes(), out),
        Kind::Bytes => {
            let bytes = base64(text("TYPE_BYTES")?).ok_or_else(|| {
                let text = format!("Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed");
                ApiError::invalid_field(path, text)
            })?;
            put_bytes(number, &bytes, out);
        }
        Kind::Bool => {
            // As text too, as Google's own parsers take it: in a query everything is text.
            let texts = [("true", true), ("false", false)];
            let named = || texts.iter().find(|(text, _)| value.as_str() == Some(text)).map(|(_, flag)| *flag);
            let flag = value.as_bool().or_else(named).ok_or_else(|| invalid(path, "TYPE_BOOL", value))?;
            put_number(number, flag.into(), out);
        }
        Kind::Int32 => {
            let n = integer(value).filter(|n| i32::try_from(*n).is_ok());
            put_number(number, n.ok_or_else(|| invalid(path, "TYPE_INT32", value))?, out);
        }
        Kind::Enum(values) => {
            let named = value.as_str().and_then(|text| values.iter().find(|(name, _)| *name == text));
            // A number as text too: in a query everything is text.
            let numbered = || integer(value).filter(|n| i32::try_from(*n).is_ok());
            let n = named.map(|(_, n)| i64::from(*n)).or_else(numbered);
            put_number(number, n.ok_or_else(|| invalid(path, "TYPE_ENUM", value))?, out);
        }
        Kind::Message(shape) => {
            let mut inner = Vec::new();
            message(shape, value, path, depth + 1, &mut inner)?;
            put_bytes(number, &inner, out);
        }
        Kind::Timestamp => {
            let time = DateTime::parse_from_rfc3339(text("type.googleapis.com/google.protobuf.Timestamp")?)
                .map_err(|_| invalid(path, "type.googleapis.com/google.protobuf.Timestamp", value))?;
            put_time(number, time.timestamp(), time.timestamp_subsec_nanos().into(), out);
        }
        Kind::Duration => {
            let kind = "type.googleapis.com/google.protobuf.Duration";
            let (seconds, nanos) = duration(text(kind)?).ok_or_else(|| invalid(path, kind, value))?;
            put_time(number, seconds, nanos, out);
        }
        Kind::FieldMask => {
            let mut inner = Vec::new();
            let paths = text("type.googleapis.com/google.protobuf.FieldMask")?;
            for path in paths.split(',').map(str::trim).filter(|path| !path.is_empty()) {
                put_bytes(1, snake(path).as_bytes(), &mut inner);
            }
            put_bytes(number, &inner, out);
        }
        Kind::Map => {
            let object = value.as_object().ok_or_else(|| invalid(path, "map", value))?;
            for (key, value) in object {
                let path = format!("{path}[\"{}\"]", shown(key));
                let text = value.as_str().ok_or_else(|| invalid(&path, "TYPE_STRING", value))?;
                let mut entry = Vec::new();
                put_bytes(1, key.as_bytes(), &mut entry);
                put_bytes(2, text.as_bytes(), &mut entry);
                put_bytes(number, &entry, out);
            }
        }
        Kind::Lacking => {
            value.as_object().ok_or_else(|| invalid(path, "message", value))?;
            put_bytes(number, &[], out);
        }
    }
    Ok(())
}

fn put_time(number: u32, seconds: i64, nanos: i64, out: &mut Vec<u8>) {
    let mut inner = Vec::new();
    put_number(1, seconds, &mut inner);
    put_number(2, nanos, &mut inner);
    put_bytes(number, &inner, out);
}

/// A number, or its text; a fraction of zero is no fraction.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| {
            let float = n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15)?;
            Some(float as i64)
        }),
        Value::String(text) => text.parse().ok().or_else(|| {
            let number: serde_json::Number = text.parse().ok()?;
            integer(&Value::Number(number))
        }),
        _ => None,
    }
}

/// Both alphabets, with and without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    if text.len() - bare.len() > 2 {
        return None;
    }
    STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare)).ok()
}

/// `-1.5s` as seconds and nanoseconds of one sign.
fn duration(text: &str) -> Option<(i64, i64)> {
    let number = text.strip_suffix('s')?;
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 12) || !digits(fraction, 9) {
        return None;
    }
    let seconds: i64 = whole.parse().ok().filter(|s| *s <= 315_576_000_000)?;
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// A message of that shape as a JSON object; what has its default value is left out.
///
/// # Errors
/// A text when the bytes are not of that shape.
pub(super) fn from_wire(shape: &Shape, mut wire: Bytes, enums: Enums) -> Result<Value, String> {
    let mut object = Object::new();
    let mut maps: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
    while wire.has_remaining() {
        let (number, wire_type) = decode_key(&mut wire).map_err(|error| error.to_string())?;
        let n = decode_varint(&mut wire).map_err(|error| error.to_string())?;
        let bytes = match wire_type {
            WireType::Varint => Bytes::new(),
            WireType::LengthDelimited => {
                let len = usize::try_from(n).ok().filter(|len| *len <= wire.remaining());
                wire.split_to(len.ok_or("a length beyond the end")?)
            }
            _ => return Err(format!("field {number} has a wire type that no message uses")),
        };
        let Some(field) = shape.numbered(number) else { continue };
        if let Kind::Map = field.kind {
            let (key, value) = entry(bytes)?;
            maps.entry(number).or_default().insert(key, value);
            continue;
        }
        let value = get(field, n, bytes, enums)?;
        let name = camel(field.name);
        if field.repeated {
            let items = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = items {
                items.push(value);
            }
        } else {
            object.insert(name, value);
        }
    }
    for (number, map) in maps {
        let name = shape.numbered(number).map(|field| camel(field.name)).unwrap_or_default();
        object.insert(
            name,
            map.into_iter().map(|(k, v)| (k, Value::String(v))).collect::<Object<_, _>>().into(),
        );
    }
    Ok(Value::Object(object))
}

fn get(field: &Field, n: u64, bytes: Bytes, enums: Enums) -> Result<Value, String> {
    Ok(match field.kind {
        Kind::String => Value::String(utf8(&bytes)?),
        Kind::Bytes => Value::String(STANDARD.encode(&bytes)),
        Kind::Bool => Value::Bool(n != 0),
        Kind::Int32 => Value::from(n.cast_signed() as i32),
        Kind::Enum(_) if enums == Enums::Numbers => Value::from(n.cast_signed() as i32),
        Kind::Enum(values) => {
            let n = n.cast_signed() as i32;
            values
                .iter()
                .find(|(_, known)| *known == n)
                .map_or_else(|| Value::from(n), |(name, _)| Value::from(*name))
        }
        Kind::Message(shape) => from_wire(shape, bytes, enums)?,
        Kind::Timestamp => {
            let (seconds, nanos) = time(bytes)?;
            let time = DateTime::<Utc>::from_timestamp(seconds, u32::try_from(nanos).unwrap_or(0));
            let time = time.ok_or("a time out of range")?;
            Value::String(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        }
        Kind::Duration => {
            let (seconds, nanos) = time(bytes)?;
            let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
            let fraction = match nanos.unsigned_abs() {
                0 => String::new(),
                n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
                n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
                n => format!(".{n:09}"),
            };
            Value::String(format!("{sign}{}{fraction}s", seconds.unsigned_abs()))
        }
        Kind::FieldMask => {
            let mut paths = Vec::new();
            let mut bytes = bytes;
            while bytes.has_remaining() {
                paths.push(camel(&delimited(&mut bytes)?.1));
            }
            Value::String(paths.join(","))
        }
        Kind::Map | Kind::Lacking => Value::Object(Object::new()),
    })
}

fn utf8(bytes: &Bytes) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

fn delimited(bytes: &mut Bytes) -> Result<(u32, String), String> {
    let (number, _) = decode_key(bytes).map_err(|error| error.to_string())?;
    let len = decode_varint(bytes).map_err(|error| error.to_string())?;
    let len =
        usize::try_from(len).ok().filter(|len| *len <= bytes.remaining()).ok_or("a length beyond the end")?;
    Ok((number, utf8(&bytes.split_to(len))?))
}

fn entry(mut bytes: Bytes) -> Result<(String, String), String> {
    let (mut key, mut value) = (String::new(), String::new());
    while bytes.has_remaining() {
        match delimited(&mut bytes)? {
            (1, text) => key = text,
            (_, text) => value = text,
        }
    }
    Ok((key, value))
}

fn time(mut bytes: Bytes) -> Result<(i64, i64), String> {
    let (mut seconds, mut nanos) = (0, 0);
    while bytes.has_remaining() {
        let (number, _) = decode_key(&mut bytes).map_err(|error| error.to_string())?;
        let n = decode_varint(&mut bytes).map_err(|error| error.to_string())?.cast_signed();
        if number == 1 { seconds = n } else { nanos = n }
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests;
