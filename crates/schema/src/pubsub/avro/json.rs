//! Checks a message in Avro's JSON encoding while it is read: unions are tagged with the
//! branch (`{"string": "x"}`, a bare `null`), bytes are texts of ISO-8859-1, every field is
//! there. No value is built, for one of `0`s would take a hundred times the message's size.
//!
//! A record may have more fields than the schema: Google's service was seen to take them.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{Field, Schema, Type, TypeId, Union};
use crate::pubsub::{Fault, Flaw, MAX_DEPTH, shown};

/// # Errors
/// The first value that does not fit, with the way to it.
pub(super) fn check(schema: &Schema, message: &[u8]) -> Result<(), Flaw> {
    let text = std::str::from_utf8(message)
        .map_err(|error| Flaw::new(format!("the message is not UTF-8 from byte {}", error.valid_up_to())))?;
    let walk = Walk { schema, unions: Unions::Tagged, fault: RefCell::new(None) };
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = walk.value(schema.root, 0).deserialize(&mut json).and_then(|()| json.end());
    outcome.map_err(|error| match walk.fault.take() {
        Some(fault) => fault.into(),
        None => Flaw::new(format!("the message is not JSON: {error}")),
    })
}

/// Checks the default of a field: as a message, but a union stands for its first branch.
pub(super) fn check_default(schema: &Schema, ty: TypeId, default: &Value) -> Result<(), Fault> {
    let walk = Walk { schema, unions: Unions::First, fault: RefCell::new(None) };
    let outcome = walk.value(ty, 0).deserialize(default);
    outcome.map_err(|error| walk.fault.take().unwrap_or_else(|| Fault::new(error.to_string())))
}

#[derive(Clone, Copy)]
enum Unions {
    Tagged,
    First,
}

struct Walk<'a> {
    schema: &'a Schema,
    unions: Unions,
    /// Why reading was broken off; the reader's error cannot carry it.
    fault: RefCell<Option<Fault>>,
}

impl Walk<'_> {
    fn value(&self, id: TypeId, depth: usize) -> Wanted<'_> {
        Wanted { walk: self, id, depth }
    }

    /// Breaks off.
    fn refuse<T, E: Error>(&self, fault: Fault) -> Result<T, E> {
        *self.fault.borrow_mut() = Some(fault);
        Err(E::custom("refused"))
    }

    /// Adds where a fault is, if there is one.
    fn located<T, E>(&self, outcome: Result<T, E>, at: impl FnOnce(Fault) -> Fault) -> Result<T, E> {
        if outcome.is_err() {
            let fault = self.fault.take();
            *self.fault.borrow_mut() = fault.map(at);
        }
        outcome
    }
}

/// A value of this type comes next.
struct Wanted<'w> {
    walk: &'w Walk<'w>,
    id: TypeId,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, reader: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            let text = format!("the message is nested deeper than {MAX_DEPTH} levels");
            return self.walk.refuse(Fault::new(text));
        }
        if let (Type::Union(union), Unions::First) = (self.ty(), self.walk.unions) {
            self.id = union.branches[0];
        }
        reader.deserialize_any(self)
    }
}

impl<'w> Wanted<'w> {
    fn ty(&self) -> &'w Type {
        &self.walk.schema.types[self.id]
    }

    fn inner(&self, id: TypeId) -> Wanted<'w> {
        self.walk.value(id, self.depth + 1)
    }

    /// Another kind of value than the type's.
    fn other<E: Error>(&self, given: &str) -> Result<(), E> {
        let text = match self.ty() {
            Type::Union(union) => self.no_branch(union, given),
            ty => format!("the schema expects {}, this is {given}", ty.label()),
        };
        self.walk.refuse(Fault::new(text))
    }

    fn no_branch(&self, union: &Union, given: &str) -> String {
        let branches = self.walk.schema.branches(&union.branches);
        format!("{given} is no branch of the union ({branches}): write null or {{\"<branch>\": <value>}}")
    }

    fn number<E: Error>(&self, integer: Option<i64>, shown: &dyn fmt::Display) -> Result<(), E> {
        match (self.ty(), integer) {
            (Type::Float | Type::Double, _) | (Type::Long, Some(_)) => Ok(()),
            (Type::Int, Some(number)) if i32::try_from(number).is_ok() => Ok(()),
            _ => self.other(&format!("the number {shown}")),
        }
    }

    /// How many bytes a text stands for.
    fn bytes<E: Error>(&self, text: &str) -> Result<usize, E> {
        match text.chars().find(|c| *c as u32 > 0xff) {
            Some(wrong) => self.walk.refuse(Fault::new(format!(
                "bytes are written as characters up to \\u00ff, this has \\u{:04x}",
                wrong as u32
            ))),
            None => Ok(text.chars().count()),
        }
    }

    fn tagged<'de, A: MapAccess<'de>>(&self, union: &Union, mut object: A) -> Result<(), A::Error> {
        let Some(tag) = object.next_key::<String>()? else { return self.other("an empty object") };
        let Some(id) = union.tags.get(&tag) else {
            let text = self.no_branch(union, &format!("`{}`", shown(&tag)));
            return self.walk.refuse(Fault::new(text));
        };
        let inner = object.next_value_seed(self.inner(*id));
        self.walk.located(inner, |fault| fault.at_field(&tag))?;
        match object.next_key::<IgnoredAny>()? {
            Some(_) => self.other("an object of several entries"),
            None => Ok(()),
        }
    }

    fn fields<'de, A: MapAccess<'de>>(&self, fields: &[Field], mut object: A) -> Result<(), A::Error> {
        let Type::Record { by_name, .. } = self.ty() else { return self.other("an object") };
        let mut seen = vec![false; fields.len()];
        while let Some(name) = object.next_key::<String>()? {
            match by_name.get(&name) {
                Some(index) => {
                    let inner = object.next_value_seed(self.inner(fields[*index].ty));
                    self.walk.located(inner, |fault| fault.at_field(&name))?;
                    seen[*index] = true;
                }
                None => _ = object.next_value::<IgnoredAny>()?,
            }
        }
        let missing = fields.iter().zip(&seen).find(|(field, seen)| match self.walk.unions {
            Unions::Tagged => !**seen,
            // A default of a record may leave out what has a default itself.
            Unions::First => !**seen && field.default.is_none(),
        });
        match missing {
            Some((field, _)) => self.walk.refuse(Fault::new(format!(
                "the field `{}` of {} is missing (a default does not stand in when publishing)",
                field.name,
                self.ty().label()
            ))),
            None => Ok(()),
        }
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.ty().label())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        let schema = self.walk.schema;
        match self.ty() {
            Type::Null => Ok(()),
            Type::Union(union) if union.branches.iter().any(|id| matches!(schema.types[*id], Type::Null)) => {
                Ok(())
            }
            _ => self.other("null"),
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        if matches!(self.ty(), Type::Boolean) { Ok(()) } else { self.other("a boolean") }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.number(Some(number), &number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.number(i64::try_from(number).ok(), &number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.number(None, &number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.ty() {
            Type::String => Ok(()),
            Type::Bytes => self.bytes(text).map(|_| ()),
            Type::Fixed { name, size } => match self.bytes(text)? {
                given if given == *size => Ok(()),
                given => {
                    self.walk.refuse(Fault::new(format!("{} has {size} bytes, this has {given}", name.full)))
                }
            },
            Type::Enum { symbols, .. } if symbols.contains(text) => Ok(()),
            Type::Enum { name, .. } => {
                self.walk.refuse(Fault::new(format!("`{}` is no symbol of {}", shown(text), name.full)))
            }
            _ => self.other("a text"),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Type::Array(items) = self.ty() else { return self.other("a list") };
        for index in 0.. {
            let item = list.next_element_seed(self.inner(*items));
            if self.walk.located(item, |fault| fault.at_index(index))?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        match self.ty() {
            Type::Union(union) => self.tagged(union, object),
            Type::Record { fields, .. } => self.fields(fields, object),
            Type::Map(values) => {
                while let Some(key) = object.next_key::<String>()? {
                    let inner = object.next_value_seed(self.inner(*values));
                    self.walk.located(inner, |fault| fault.at_key(&key))?;
                }
                Ok(())
            }
            _ => self.other("an object"),
        }
    }
}
