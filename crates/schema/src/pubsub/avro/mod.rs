//! Avro 1.11: definitions, messages in JSON and in binary, and schema resolution.
//!
//! Written here and not taken from a crate because what is needed is small and different:
//! a message is walked over its schema without building a value, and the bounds hold against
//! hostile bytes. The known crate would also change the features of crates under DataFusion.
//!
//! Logical types are not looked at: a definition may use any, and a message is checked by
//! the type beneath, which is how the specification treats those that it does not know.

mod binary;
mod json;
mod parse;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::Flaw;

/// The place of a type in [`Schema::types`].
type TypeId = usize;

/// A definition: types that refer to each other by place, so that they may be recursive.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    root: TypeId,
}

#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed {
        name: Name,
        size: usize,
    },
    Enum {
        name: Name,
        symbols: BTreeSet<String>,
        has_default: bool,
    },
    Array(TypeId),
    Map(TypeId),
    Union(Union),
    Record {
        name: Name,
        fields: Vec<Field>,
        /// Their places.
        by_name: HashMap<String, usize>,
    },
}

#[derive(Debug)]
struct Union {
    branches: Vec<TypeId>,
    /// By the tag of the JSON encoding: the full name of a type, and its simple name where only
    /// one branch has that. `null` has no tag.
    tags: HashMap<String, TypeId>,
}

/// The name of a record, an enum or a fixed.
#[derive(Debug, Clone, Default)]
struct Name {
    /// With the namespace, if there is one.
    full: String,
    /// Full names, too.
    aliases: Vec<String>,
}

impl Name {
    /// Without the namespace.
    fn simple(&self) -> &str {
        simple(&self.full)
    }
}

fn simple(full: &str) -> &str {
    full.rsplit('.').next().unwrap_or(full)
}

#[derive(Debug)]
struct Field {
    name: String,
    aliases: Vec<String>,
    ty: TypeId,
    default: Option<Value>,
}

impl Type {
    /// How a type is called in a message to a person and in a union in JSON.
    fn label(&self) -> &str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Union(_) => "union",
            Self::Fixed { name, .. } | Self::Enum { name, .. } | Self::Record { name, .. } => &name.full,
        }
    }
}

impl Schema {
    fn label(&self, id: TypeId) -> &str {
        self.types[id].label()
    }

    /// The names of a union's branches, for a person.
    fn branches(&self, ids: &[TypeId]) -> String {
        let names: Vec<&str> = ids.iter().take(8).map(|id| self.label(*id)).collect();
        let more = if ids.len() > 8 { ", …" } else { "" };
        format!("{}{more}", names.join(", "))
    }

    pub(super) fn check_json(&self, message: &[u8]) -> Result<(), Flaw> {
        json::check(self, message)
    }

    pub(super) fn check_binary(&self, message: &[u8]) -> Result<(), Flaw> {
        binary::check(self, message)
    }

    /// As a reader and as a writer.
    pub(super) fn compatible_with(&self, earlier: &Self) -> Result<(), Flaw> {
        resolve::can_read(self, earlier)
            .map_err(|flaw| Flaw::new(format!("messages of the earlier one cannot be read: {flaw}")))?;
        resolve::can_read(earlier, self)
            .map_err(|flaw| Flaw::new(format!("the earlier one cannot read messages of the new one: {flaw}")))
    }
}
