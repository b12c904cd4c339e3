//! From the JSON of a definition to its types, by the rules of the Avro 1.11 specification:
//! names and namespaces, no union within a union, defaults that fit.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::{Field, Name, Schema, Type, TypeId, Union, json, simple};
use crate::pubsub::{Fault, Flaw, shown};

impl Schema {
    /// # Errors
    /// The first breach of the specification, with the way to it.
    pub(in crate::pubsub) fn parse(text: &str) -> Result<Self, Flaw> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Flaw::new(format!("the Avro definition is not JSON: {error}")))?;
        let mut parser = Parser { types: Vec::new(), names: HashMap::new() };
        let root = parser.parse(&value, "")?;
        let schema = Self { types: parser.types, root };
        schema.check_defaults()?;
        Ok(schema)
    }

    /// After all types are known: a default may be of a type that is defined later.
    fn check_defaults(&self) -> Result<(), Flaw> {
        for ty in &self.types {
            let Type::Record { name, fields, .. } = ty else { continue };
            for field in fields {
                let Some(default) = &field.default else { continue };
                json::check_default(self, field.ty, default).map_err(|fault| {
                    let flaw = Flaw::from(fault);
                    Flaw::new(format!(
                        "the default of field `{}` of `{}` does not fit its type: {flaw}",
                        field.name, name.full
                    ))
                })?;
            }
        }
        Ok(())
    }
}

struct Parser {
    types: Vec<Type>,
    /// Full names.
    names: HashMap<String, TypeId>,
}

impl Parser {
    fn add(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        self.types.len() - 1
    }

    /// Nesting is bounded by that of the JSON reader, 128 levels.
    fn parse(&mut self, value: &Value, namespace: &str) -> Result<TypeId, Fault> {
        match value {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            _ => Err(Fault::new("a type is a name, a list of types or an object with \"type\"")),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<TypeId, Fault> {
        if let Some(primitive) = primitive(name) {
            return Ok(self.add(primitive));
        }
        let full = qualified(name, namespace);
        // A name without a namespace may also mean the one of the null namespace.
        let found = self.names.get(&full).or_else(|| self.names.get(name));
        found.copied().ok_or_else(|| {
            Fault::new(format!("the type `{}` is not known: define it before it is used", shown(&full)))
        })
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<TypeId, Fault> {
        let mut ids = Vec::with_capacity(branches.len());
        if branches.is_empty() {
            return Err(Fault::new("a union needs at least one type"));
        }
        let mut tags = HashMap::new();
        let mut by_simple: HashMap<String, Option<TypeId>> = HashMap::new();
        let mut has_null = false;
        for (index, branch) in branches.iter().enumerate() {
            let id = self.parse(branch, namespace).map_err(|fault| fault.at_index(index))?;
            let is_null = matches!(self.types[id], Type::Null);
            let label = self.types[id].label().to_owned();
            let twice =
                if is_null { std::mem::replace(&mut has_null, true) } else { tags.contains_key(&label) };
            if twice {
                return Err(Fault::new(format!("the union has `{label}` twice")).at_index(index));
            }
            if matches!(self.types[id], Type::Union(_)) {
                return Err(Fault::new("a union cannot lie in a union: write one list").at_index(index));
            }
            if !is_null {
                let alone = by_simple.entry(simple(&label).to_owned());
                alone.and_modify(|alone| *alone = None).or_insert(Some(id));
                tags.insert(label, id);
            }
            ids.push(id);
        }
        for (name, id) in by_simple {
            if let Some(id) = id {
                tags.entry(name).or_insert(id);
            }
        }
        Ok(self.add(Type::Union(Union { branches: ids, tags })))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, Fault> {
        let kind = object.get("type").ok_or_else(|| Fault::new("the object has no \"type\""))?;
        let Value::String(kind) = kind else {
            // As in {"type": {"type": "string"}} or {"type": ["null", "string"]}.
            return self.parse(kind, namespace).map_err(|fault| fault.at_field("type"));
        };
        match kind.as_str() {
            "record" | "error" => self.record(object, namespace),
            "enum" => self.enumeration(object, namespace),
            "fixed" => self.fixed(object, namespace),
            "array" => {
                let items = object.get("items").ok_or_else(|| Fault::new("an array needs \"items\""))?;
                let items = self.parse(items, namespace).map_err(|fault| fault.at_field("items"))?;
                Ok(self.add(Type::Array(items)))
            }
            "map" => {
                let values = object.get("values").ok_or_else(|| Fault::new("a map needs \"values\""))?;
                let values = self.parse(values, namespace).map_err(|fault| fault.at_field("values"))?;
                Ok(self.add(Type::Map(values)))
            }
            name => self.named(name, namespace),
        }
    }

    /// Registers a name before what lies within is read, so that it may refer to itself.
    fn define(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<(TypeId, Name), Fault> {
        let text =
            text(object, "name")?.ok_or_else(|| Fault::new("a record, enum or fixed needs a \"name\""))?;
        let own = self::text(object, "namespace")?;
        let full = match own {
            Some(own) if !text.contains('.') => qualified(text, own),
            _ => qualified(text, namespace),
        };
        if !full.split('.').all(is_name) {
            return Err(Fault::new(format!(
                "`{}` is not a name: use letters, digits and _, not starting with a digit, joined by dots",
                shown(&full)
            )));
        }
        if primitive(&full).is_some() {
            return Err(Fault::new(format!("`{full}` is the name of a primitive type: choose another")));
        }
        let within = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let aliases = strings(object, "aliases")?.iter().map(|alias| qualified(alias, within)).collect();
        // What it is, is filled in by the caller; its name is asked for before that.
        let known = Name { full: full.clone(), aliases: Vec::new() };
        let id = self.add(Type::Record { name: known, fields: Vec::new(), by_name: HashMap::new() });
        if self.names.insert(full.clone(), id).is_some() {
            return Err(Fault::new(format!("`{full}` is defined twice: refer to it by its name")));
        }
        Ok((id, Name { full, aliases }))
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, Fault> {
        let (id, name) = self.define(object, namespace)?;
        let within = name.full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let Some(Value::Array(list)) = object.get("fields") else {
            return Err(Fault::new(format!("the record `{}` needs \"fields\", a list", name.full)));
        };
        let mut fields: Vec<Field> = Vec::with_capacity(list.len());
        let mut by_name = HashMap::new();
        for (index, field) in list.iter().enumerate() {
            let at = |fault: Fault| fault.at_index(index).at_field("fields");
            let field = self.field(field, &within).map_err(at)?;
            if by_name.insert(field.name.clone(), index).is_some() {
                return Err(at(Fault::new(format!("the field `{}` is there twice", field.name))));
            }
            fields.push(field);
        }
        self.types[id] = Type::Record { name, fields, by_name };
        Ok(id)
    }

    fn field(&mut self, field: &Value, namespace: &str) -> Result<Field, Fault> {
        let Value::Object(object) = field else {
            return Err(Fault::new("a field is an object with \"name\" and \"type\""));
        };
        let name = text(object, "name")?.filter(|name| is_name(name)).ok_or_else(|| {
            Fault::new("a field needs a \"name\" of letters, digits and _, not starting with a digit")
        })?;
        let ty =
            object.get("type").ok_or_else(|| Fault::new(format!("the field `{name}` needs a \"type\"")))?;
        let ty = self.parse(ty, namespace).map_err(|fault| fault.at_field("type"))?;
        if let Some(order) = text(object, "order")?
            && !matches!(order, "ascending" | "descending" | "ignore")
        {
            return Err(Fault::new("the \"order\" of a field is ascending, descending or ignore"));
        }
        Ok(Field {
            name: name.to_owned(),
            aliases: strings(object, "aliases")?,
            ty,
            default: object.get("default").cloned(),
        })
    }

    fn enumeration(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, Fault> {
        let (id, name) = self.define(object, namespace)?;
        let mut symbols = BTreeSet::new();
        for symbol in strings(object, "symbols")? {
            if !is_name(&symbol) {
                return Err(Fault::new(format!(
                    "`{}` is not a symbol: use letters, digits and _, not starting with a digit",
                    shown(&symbol)
                )));
            }
            if let Some(symbol) = symbols.replace(symbol) {
                return Err(Fault::new(format!("the enum `{}` has `{symbol}` twice", name.full)));
            }
        }
        if symbols.is_empty() {
            return Err(Fault::new(format!("the enum `{}` needs \"symbols\"", name.full)));
        }
        let default = text(object, "default")?;
        if let Some(default) = default
            && !symbols.contains(default)
        {
            let enumeration = &name.full;
            return Err(Fault::new(format!(
                "the default of the enum `{enumeration}` is not one of its symbols"
            )));
        }
        self.types[id] = Type::Enum { name, has_default: default.is_some(), symbols };
        Ok(id)
    }

    fn fixed(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, Fault> {
        let (id, name) = self.define(object, namespace)?;
        let size = object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| {
            Fault::new(format!("the fixed `{}` needs a \"size\", a number of bytes", name.full))
        })?;
        self.types[id] = Type::Fixed { name, size };
        Ok(id)
    }
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" => Type::Int,
        "long" => Type::Long,
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "string" => Type::String,
        _ => return None,
    })
}

fn qualified(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.bytes();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, Fault> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Fault::new(format!("\"{key}\" is a text"))),
    }
}

fn strings(object: &Map<String, Value>, key: &str) -> Result<Vec<String>, Fault> {
    let wrong = || Fault::new(format!("\"{key}\" is a list of texts"));
    match object.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}
