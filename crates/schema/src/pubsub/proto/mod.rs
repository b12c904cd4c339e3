//! Protocol Buffers: a definition is one file of proto2 or proto3 with one top-level message
//! and no imports, as documented; a message is checked along it, in full.
//!
//! The parser is `protox`; JSON is read by `prost-reflect` into a dynamic message, binary is
//! walked without building one. What they leave to their users is here: a bound on nesting
//! before the parser recurses, required fields, closed enums.

mod compare;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;

use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Syntax,
    Value,
};
use protox::Compiler;
use protox::file::{File, FileResolver};

use super::{Fault, Flaw};

/// What errors call the definition.
const FILE: &str = "definition.proto";
/// Brackets of all kinds within each other; protoc takes 32 messages.
const MAX_NESTING: usize = 32;

/// A compiled definition.
#[derive(Debug)]
pub(super) struct Schema {
    root: MessageDescriptor,
    required: Required,
}

/// The numbers of the required fields of each message that has any.
#[derive(Debug, Default)]
struct Required(HashMap<String, Vec<u32>>);

impl Required {
    fn new(root: &MessageDescriptor) -> Self {
        let mut required = HashMap::new();
        for message in root.parent_pool().all_messages() {
            let fields = message.fields().filter(|field| field.is_required());
            let numbers: Vec<u32> = fields.map(|field| field.number()).collect();
            if !numbers.is_empty() {
                required.insert(message.full_name().to_owned(), numbers);
            }
        }
        Self(required)
    }

    fn of(&self, message: &MessageDescriptor) -> Vec<u32> {
        if self.0.is_empty() {
            Vec::new()
        } else {
            self.0.get(message.full_name()).cloned().unwrap_or_default()
        }
    }
}

impl Schema {
    /// # Errors
    /// What is wrong, with line and column where the parser knows them.
    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        refuse_editions(text)?;
        bound_nesting(text)?;
        // The errors' `Debug` is their text after the place, `Display` the text alone.
        let wrong = |error: protox::Error| Flaw::new(format!("{error:?}"));
        let file = File::from_source(FILE, text).map_err(wrong)?;
        let content = file.file_descriptor_proto();
        if let Some(import) = content.dependency.first() {
            return Err(Flaw::new(format!(
                "{FILE}: imports are not supported (`{import}`): define what is needed within the message"
            )));
        }
        if content.message_type.len() != 1 || !content.enum_type.is_empty() {
            return Err(Flaw::new(format!(
                "{FILE}: exactly one top-level type is needed, a message; there are {} messages and {} enums: \
                 define the others within it",
                content.message_type.len(),
                content.enum_type.len()
            )));
        }
        let mut compiler = Compiler::with_file_resolver(OneFile(file));
        let pool = compiler.open_file(FILE).map_err(wrong)?.descriptor_pool();
        let root = pool.get_file_by_name(FILE).and_then(|file| file.messages().next());
        let root = root.ok_or_else(|| Flaw::new(format!("{FILE}: the message was not found")))?;
        Ok(Self { required: Required::new(&root), root })
    }

    pub(super) fn check_binary(&self, message: &[u8]) -> Result<(), Flaw> {
        wire::check(&self.root, &self.required, message)
    }

    pub(super) fn check_json(&self, message: &[u8]) -> Result<(), Flaw> {
        let wrong = |error| Flaw::new(format!("not a {}: {error}", self.root.full_name()));
        let mut json = serde_json::Deserializer::from_slice(message);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let decoded = DynamicMessage::deserialize_with_options(self.root.clone(), &mut json, &options);
        let decoded = decoded.map_err(wrong)?;
        json.end().map_err(wrong)?;
        Ok(walk(&self.required, &decoded)?)
    }

    pub(super) fn compatible_with(&self, earlier: &Self) -> Result<(), Flaw> {
        compare::messages(&self.root, &earlier.root)
    }
}

/// Serves the one file there is.
struct OneFile(File);

impl FileResolver for OneFile {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == FILE { Ok(self.0.clone()) } else { Err(protox::Error::file_not_found(name)) }
    }
}

/// A file of an edition begins with `edition = "2023";`, which the parser takes for a mistake of
/// spelling. It says neither what is wrong nor what to do.
fn refuse_editions(text: &str) -> Result<(), Flaw> {
    let rest = after_comments(text);
    let Some(value) = rest.strip_prefix("edition").map(after_comments).and_then(|v| v.strip_prefix('='))
    else {
        return Ok(());
    };
    let value = after_comments(value);
    let named: String =
        value.chars().skip(1).take_while(|c| c.is_ascii_alphanumeric() || *c == '_').take(20).collect();
    let before = &text[..text.len() - rest.len()];
    let (line, head) = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default());
    Err(Flaw::new(format!(
        "{FILE}:{line}:{}: editions are not supported (`{named}`): begin with syntax = \"proto3\"; or syntax = \
         \"proto2\"; and write the fields as that syntax has them",
        head.chars().count() + 1
    )))
}

/// The text without the spaces and comments that it begins with.
fn after_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        let rest = if let Some(comment) = text.strip_prefix("//") {
            comment.split_once('\n').map(|(_, rest)| rest)
        } else if let Some(comment) = text.strip_prefix("/*") {
            comment.split_once("*/").map(|(_, rest)| rest)
        } else {
            return text;
        };
        text = rest.unwrap_or_default();
    }
}

/// The parser recurses into brackets, so their depth is bounded before it runs. Brackets in
/// comments and texts do not count.
fn bound_nesting(text: &str) -> Result<(), Flaw> {
    let mut bytes = text.bytes().peekable();
    let mut depth = 0usize;
    while let Some(byte) = bytes.next() {
        match byte {
            b'/' if bytes.peek() == Some(&b'/') => {
                bytes.by_ref().find(|byte| *byte == b'\n');
            }
            b'/' if bytes.peek() == Some(&b'*') => {
                bytes.next();
                let mut last = 0;
                for byte in bytes.by_ref() {
                    if (last, byte) == (b'*', b'/') {
                        break;
                    }
                    last = byte;
                }
            }
            b'"' | b'\'' => {
                let quote = byte;
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => _ = bytes.next(),
                        // A text ends with its line, closed or not.
                        b'\n' => break,
                        byte if byte == quote => break,
                        _ => {}
                    }
                }
            }
            b'{' | b'[' | b'(' | b'<' => depth += 1,
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(Flaw::new(format!("{FILE}: nested deeper than {MAX_NESTING} levels")));
        }
    }
    Ok(())
}

/// What reading JSON does not look at. Its depth is that of the reader, 128 levels.
fn walk(required: &Required, message: &DynamicMessage) -> Result<(), Fault> {
    let descriptor = message.descriptor();
    let mut required_here = required.0.get(descriptor.full_name()).into_iter().flatten();
    if let Some(number) = required_here.find(|number| !message.has_field_by_number(**number)) {
        let name = descriptor.get_field(*number).map(|field| field.name().to_owned()).unwrap_or_default();
        let message = descriptor.full_name();
        return Err(Fault::new(format!("the required field `{name}` of {message} is missing")));
    }
    for (field, value) in message.fields() {
        values(required, &field, value).map_err(|fault| fault.at_field(field.name()))?;
    }
    for (extension, value) in message.extensions() {
        if let Value::Message(inner) = value {
            walk(required, inner).map_err(|fault| fault.at_field(extension.full_name()))?;
        }
    }
    Ok(())
}

fn values(required: &Required, field: &FieldDescriptor, value: &Value) -> Result<(), Fault> {
    let kind = field.kind();
    match value {
        Value::List(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| one(required, &kind, item).map_err(|fault| fault.at_index(index))),
        Value::Map(entries) => {
            let Kind::Message(entry) = &kind else { return Ok(()) };
            let kind = entry.map_entry_value_field().kind();
            entries.iter().try_for_each(|(key, value)| {
                one(required, &kind, value).map_err(|fault| fault.at_key(&format!("{key:?}")))
            })
        }
        value => one(required, &kind, value),
    }
}

fn one(required: &Required, kind: &Kind, value: &Value) -> Result<(), Fault> {
    match (kind, value) {
        (_, Value::Message(message)) => walk(required, message),
        // An enum of proto2 is closed: a number that it lacks is an unknown field.
        (Kind::Enum(kind), Value::EnumNumber(number))
            if kind.parent_file().syntax() == Syntax::Proto2 && kind.get_value(*number).is_none() =>
        {
            Err(Fault::new(format!("{} has no value {number}", kind.full_name())))
        }
        _ => Ok(()),
    }
}
