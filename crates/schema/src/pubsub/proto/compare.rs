//! Which definitions may be revisions of one schema. As documented: optional fields may come
//! and go, required ones may not, and no field may change. A repeated field or a map is
//! optional in this: a message without it is complete, and a reader that lacks it passes it over.
//! As Google's service was seen to do, the values of an enum are fixed, too: an earlier reader
//! would meet one it lacks.

use std::collections::HashSet;

use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::pubsub::Flaw;

/// # Errors
/// The first field or value by which the two differ beyond what is allowed.
pub(super) fn messages(newer: &MessageDescriptor, earlier: &MessageDescriptor) -> Result<(), Flaw> {
    // Messages may hold themselves: each pair is compared once, and not by recursion.
    let mut pending = vec![(newer.clone(), earlier.clone())];
    let mut seen = HashSet::new();
    while let Some((newer, earlier)) = pending.pop() {
        if !seen.insert((newer.full_name().to_owned(), earlier.full_name().to_owned())) {
            continue;
        }
        for field in newer.fields() {
            match earlier.get_field(field.number()) {
                Some(before) => unchanged(&field, &before, &mut pending)?,
                None => comes_or_goes(&field, &earlier, "new")?,
            }
        }
        for field in earlier.fields() {
            if newer.get_field(field.number()).is_none() {
                comes_or_goes(&field, &newer, "gone")?;
            }
        }
    }
    Ok(())
}

fn comes_or_goes(field: &FieldDescriptor, other: &MessageDescriptor, what: &str) -> Result<(), Flaw> {
    if field.is_required() {
        return Err(Flaw::new(format!(
            "the required field {} = {} is {what}: only optional and repeated fields can be added or removed",
            field.full_name(),
            field.number()
        )));
    }
    match other.get_field_by_name(field.name()) {
        Some(same) => Err(Flaw::new(format!(
            "the field {} has the number {} and {}: a field keeps its number",
            field.full_name(),
            same.number(),
            field.number()
        ))),
        None => Ok(()),
    }
}

fn unchanged(
    field: &FieldDescriptor,
    before: &FieldDescriptor,
    pending: &mut Vec<(MessageDescriptor, MessageDescriptor)>,
) -> Result<(), Flaw> {
    let name = field.full_name();
    let differs = |what: &str, now: &str, then: &str| {
        Err(Flaw::new(format!("{name} = {} has another {what}: `{now}`, it was `{then}`", field.number())))
    };
    if field.name() != before.name() {
        return differs("name", field.name(), before.name());
    }
    if field.json_name() != before.json_name() {
        return differs("JSON name", field.json_name(), before.json_name());
    }
    if label(field) != label(before) {
        return differs("label", label(field), label(before));
    }
    let (now, then) = (oneof(field), oneof(before));
    if now != then {
        return differs("oneof", now.as_deref().unwrap_or("none"), then.as_deref().unwrap_or("none"));
    }
    match (field.kind(), before.kind()) {
        (Kind::Message(now), Kind::Message(then)) if field.is_group() == before.is_group() => {
            pending.push((now, then));
            Ok(())
        }
        (Kind::Enum(now), Kind::Enum(then)) => {
            values(&now, &then)?;
            values(&then, &now)
        }
        (now, then) if std::mem::discriminant(&now) == std::mem::discriminant(&then) && !field.is_group() => {
            Ok(())
        }
        (now, then) => Err(Flaw::new(format!(
            "{name} of type {now:?} is not compatible with {} of type {then:?}",
            before.full_name()
        ))),
    }
}

/// All values of one are in the other.
fn values(these: &EnumDescriptor, those: &EnumDescriptor) -> Result<(), Flaw> {
    let known: HashSet<(String, i32)> =
        those.values().map(|value| (value.name().to_owned(), value.number())).collect();
    match these.values().find(|value| !known.contains(&(value.name().to_owned(), value.number()))) {
        Some(value) => Err(Flaw::new(format!(
            "{} = {} is missing in {}: the values of an enum cannot change",
            value.full_name(),
            value.number(),
            those.full_name()
        ))),
        None => Ok(()),
    }
}

fn label(field: &FieldDescriptor) -> &'static str {
    match field.cardinality() {
        _ if field.is_map() => "map",
        Cardinality::Optional => "optional",
        Cardinality::Required => "required",
        Cardinality::Repeated => "repeated",
    }
}

/// The `optional` of proto3 is a oneof in the descriptor, but none to its user.
fn oneof(field: &FieldDescriptor) -> Option<String> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic()).map(|oneof| oneof.name().to_owned())
}
