//! Checks a message in the wire format by walking it along its descriptor. No value is built:
//! a message of empty messages, two bytes each, would become a hundred times its size.
//!
//! Everything must be known: a field that the message does not have, or has with another wire
//! type, is refused, and so are a missing required field and a value that a closed enum lacks.

use prost_reflect::{Kind, MessageDescriptor, Syntax};

use super::Required;
use crate::pubsub::{Fault, Flaw, MAX_DEPTH};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const GROUP: u64 = 3;
const END_GROUP: u64 = 4;
const FIXED32: u64 = 5;

/// # Errors
/// The first byte that does not fit, with the way to it.
pub(super) fn check(root: &MessageDescriptor, required: &Required, message: &[u8]) -> Result<(), Flaw> {
    let mut walk = Walk { required, rest: message, len: message.len() };
    Ok(walk.message(root, None, 0)?)
}

struct Walk<'a> {
    required: &'a Required,
    /// What is left of the message, or of the part of it that is being walked.
    rest: &'a [u8],
    len: usize,
}

/// What matters of a field or an extension.
struct Shape {
    number: u32,
    kind: Kind,
    is_list: bool,
    is_group: bool,
}

impl<'a> Walk<'a> {
    /// The fields to the end of `rest`, or to the end of the group of that number.
    fn message(&mut self, of: &MessageDescriptor, group: Option<u32>, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new(format!("the message is nested deeper than {MAX_DEPTH} levels")));
        }
        let mut missing = self.required.of(of);
        loop {
            if self.rest.is_empty() && group.is_none() {
                break;
            }
            let key = self.varint(of)?;
            let (number, wire) = (u32::try_from(key >> 3).unwrap_or(0), key & 7);
            if wire == END_GROUP && group == Some(number) {
                break;
            }
            let field = shape(of, number).ok_or_else(|| {
                Fault::new(format!(
                    "{} has no field {} (byte {}): every field of a message must be in the schema",
                    of.full_name(),
                    key >> 3,
                    self.len - self.rest.len()
                ))
            })?;
            missing.retain(|required| *required != number);
            self.field(of, &field, wire, depth).map_err(|fault| fault.at_field(&name(of, number)))?;
        }
        match missing.first().and_then(|number| of.get_field(*number)) {
            Some(field) => {
                let message = of.full_name();
                Err(Fault::new(format!("the required field `{}` of {message} is missing", field.name())))
            }
            None => Ok(()),
        }
    }

    fn field(&mut self, of: &MessageDescriptor, field: &Shape, wire: u64, depth: usize) -> Result<(), Fault> {
        let wanted = wire_type(field);
        if wire == wanted {
            return match &field.kind {
                Kind::Message(inner) if wire == GROUP => self.message(inner, Some(field.number), depth + 1),
                Kind::Message(inner) => self.within(of, |walk| walk.message(inner, None, depth + 1)),
                kind => self.scalar(of, kind, wire),
            };
        }
        // Numbers that repeat may come packed, whatever the definition says.
        if wire == BYTES && field.is_list && matches!(wanted, VARINT | FIXED64 | FIXED32) {
            return self.within(of, |walk| {
                while !walk.rest.is_empty() {
                    walk.scalar(of, &field.kind, wanted)?;
                }
                Ok(())
            });
        }
        Err(Fault::new(format!(
            "not a {}: the field {} of type {:?} has the wire type {wire}, not {wanted}",
            of.full_name(),
            field.number,
            field.kind
        )))
    }

    fn scalar(&mut self, of: &MessageDescriptor, kind: &Kind, wire: u64) -> Result<(), Fault> {
        match wire {
            FIXED64 => self.take(of, 8).map(drop),
            FIXED32 => self.take(of, 4).map(drop),
            VARINT => {
                // Larger numbers are cut to 32 bits, as every decoder does.
                let number = self.varint(of)? as i32;
                match kind {
                    // An enum of proto2 is closed: a number that it lacks is an unknown field.
                    Kind::Enum(values)
                        if values.parent_file().syntax() == Syntax::Proto2
                            && values.get_value(number).is_none() =>
                    {
                        Err(Fault::new(format!("{} has no value {number}", values.full_name())))
                    }
                    _ => Ok(()),
                }
            }
            _ => {
                let length = self.length(of)?;
                let bytes = self.take(of, length)?;
                match (kind, std::str::from_utf8(bytes)) {
                    (Kind::String, Err(error)) => {
                        let at = error.valid_up_to();
                        Err(Fault::new(format!("the text is not UTF-8 from its byte {at}")))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Walks the next length-delimited part alone.
    fn within(
        &mut self,
        of: &MessageDescriptor,
        walk: impl FnOnce(&mut Walk<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let length = self.length(of)?;
        let part = self.take(of, length)?;
        let end = self.len - self.rest.len();
        walk(&mut Walk { required: self.required, rest: part, len: end })
    }

    fn length(&mut self, of: &MessageDescriptor) -> Result<usize, Fault> {
        let length = self.varint(of)?;
        usize::try_from(length).map_err(|_| self.cut_short(of))
    }

    fn take(&mut self, of: &MessageDescriptor, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.cut_short(of))?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self, of: &MessageDescriptor) -> Result<u64, Fault> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(of, 1)?[0];
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        let at = self.len - self.rest.len();
        Err(Fault::new(format!(
            "not a {}: the number before byte {at} has more than 64 bits",
            of.full_name()
        )))
    }

    fn cut_short(&self, of: &MessageDescriptor) -> Fault {
        let at = self.len - self.rest.len();
        Fault::new(format!("not a {}: it ends within what begins at byte {at}", of.full_name()))
    }
}

fn shape(of: &MessageDescriptor, number: u32) -> Option<Shape> {
    if let Some(field) = of.get_field(number) {
        return Some(Shape {
            number,
            kind: field.kind(),
            is_list: field.is_list(),
            is_group: field.is_group(),
        });
    }
    let extension = of.get_extension(number)?;
    Some(Shape {
        number,
        kind: extension.kind(),
        is_list: extension.is_list(),
        is_group: extension.is_group(),
    })
}

fn name(of: &MessageDescriptor, number: u32) -> String {
    match (of.get_field(number), of.get_extension(number)) {
        (Some(field), _) => field.name().to_owned(),
        (None, Some(extension)) => extension.full_name().to_owned(),
        (None, None) => number.to_string(),
    }
}

fn wire_type(field: &Shape) -> u64 {
    match field.kind {
        _ if field.is_group => GROUP,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => FIXED64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => FIXED32,
        Kind::String | Kind::Bytes | Kind::Message(_) => BYTES,
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Bool
        | Kind::Enum(_) => VARINT,
    }
}
