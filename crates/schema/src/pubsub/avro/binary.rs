//! Checks a message in Avro's binary encoding by walking it along its schema. No value is
//! built, so the cost is that of reading the bytes once.

use super::{Schema, Type, TypeId};
use crate::pubsub::{Fault, Flaw, MAX_DEPTH};

/// How many values a message may hold, beside so many a byte. Values of no bytes (null, an
/// empty record) would otherwise let a short message claim 2^63 of them.
const FREE_VALUES: usize = 1 << 16;
const VALUES_A_BYTE: usize = 16;

/// # Errors
/// The first byte that does not fit, or bytes that are left at the end.
pub(super) fn check(schema: &Schema, message: &[u8]) -> Result<(), Flaw> {
    let mut walk = Walk {
        schema,
        rest: message,
        len: message.len(),
        values_left: FREE_VALUES + message.len() * VALUES_A_BYTE,
    };
    walk.value(schema.root, 0)?;
    match walk.rest.len() {
        0 => Ok(()),
        left => Err(Flaw::new(format!(
            "the message has {left} bytes more than the schema takes, from byte {}",
            walk.at()
        ))),
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    rest: &'a [u8],
    len: usize,
    values_left: usize,
}

impl<'a> Walk<'a> {
    fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(Fault::new(format!(
                "the message ends within a {what}: {count} bytes needed at byte {}, {} left",
                self.at(),
                self.rest.len()
            )));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A zigzag number of up to ten bytes.
    fn long(&mut self, what: &str) -> Result<i64, Fault> {
        let mut bits = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1, what)?[0];
            if shift == 63 && byte > 1 {
                break;
            }
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(Fault::new(format!("the {what} before byte {} has more than 64 bits", self.at())))
    }

    /// The length of a text or of bytes.
    fn length(&mut self, what: &str) -> Result<usize, Fault> {
        let length = self.long(what)?;
        usize::try_from(length)
            .map_err(|_| Fault::new(format!("the length of a {what} is negative ({length})")))
    }

    /// The place in a list of `count`.
    fn index(&mut self, what: &str, count: usize) -> Result<usize, Fault> {
        let index = self.long(what)?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < count)
            .ok_or_else(|| Fault::new(format!("there is no {what} {index}, the last is {}", count - 1)))
    }

    fn value(&mut self, id: TypeId, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::new(format!("the message is nested deeper than {MAX_DEPTH} levels")));
        }
        self.values_left = self.values_left.checked_sub(1).ok_or_else(|| {
            Fault::new(format!("the message claims more than {VALUES_A_BYTE} values a byte"))
        })?;
        let schema = self.schema;
        match &schema.types[id] {
            Type::Null => {}
            Type::Boolean => {
                let byte = self.take(1, "boolean")?[0];
                if byte > 1 {
                    return Err(Fault::new(format!("a boolean is 0 or 1, this is {byte}")));
                }
            }
            Type::Int => {
                let number = self.long("int")?;
                if i32::try_from(number).is_err() {
                    return Err(Fault::new(format!("{number} does not fit an int of 32 bits")));
                }
            }
            Type::Long => _ = self.long("long")?,
            Type::Float => _ = self.take(4, "float")?,
            Type::Double => _ = self.take(8, "double")?,
            Type::Bytes => {
                let length = self.length("bytes")?;
                self.take(length, "bytes")?;
            }
            Type::String => {
                self.text("string")?;
            }
            Type::Fixed { size, .. } => _ = self.take(*size, "fixed")?,
            Type::Enum { symbols, .. } => _ = self.index("symbol", symbols.len())?,
            Type::Array(items) => self
                .blocks(|walk, index| walk.value(*items, depth + 1).map_err(|fault| fault.at_index(index)))?,
            Type::Map(values) => self.blocks(|walk, _| {
                let key = walk.text("key")?;
                walk.value(*values, depth + 1).map_err(|fault| fault.at_key(key))
            })?,
            Type::Union(union) => {
                let index = self.index("branch of the union", union.branches.len())?;
                self.value(union.branches[index], depth + 1)?;
            }
            Type::Record { fields, .. } => {
                for field in fields {
                    self.value(field.ty, depth + 1).map_err(|fault| fault.at_field(&field.name))?;
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, what: &str) -> Result<&'a str, Fault> {
        let length = self.length(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|error| {
            Fault::new(format!("the {what} is not UTF-8 from its byte {}", error.valid_up_to()))
        })
    }

    /// Arrays and maps come in blocks; a negative count is followed by the block's bytes.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self, usize) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut index = 0;
        loop {
            let count = self.long("count")?;
            if count == 0 {
                return Ok(());
            }
            let end =
                if count < 0 {
                    let bytes = self.length("block")?;
                    let left = self.rest.len().checked_sub(bytes);
                    Some(left.ok_or_else(|| {
                        Fault::new(format!("a block of {bytes} bytes goes beyond the message"))
                    })?)
                } else {
                    None
                };
            for _ in 0..count.unsigned_abs() {
                item(self, index)?;
                index += 1;
            }
            if end.is_some_and(|end| end != self.rest.len()) {
                return Err(Fault::new("a block has another length than it says"));
            }
        }
    }
}
