//! Whether one definition can read what another one wrote: the section "Schema Resolution"
//! of the Avro 1.11 specification, decided for all messages at once.

use std::collections::{HashMap, HashSet};

use super::{Field, Name, Schema, Type, TypeId, Union};
use crate::pubsub::{Fault, Flaw};

/// Pairs of types that one comparison may look at. Two definitions at the limit of their
/// size stay below it unless they are built to be slow.
const MAX_PAIRS: usize = 200_000;
/// Types within types. A message that deep would not be accepted either.
const MAX_LEVELS: usize = 250;

/// # Errors
/// The first place, on the way from the root, where the reader cannot take what the writer
/// may write.
pub(super) fn can_read(reader: &Schema, writer: &Schema) -> Result<(), Flaw> {
    let mut pairs = Pairs {
        reader,
        writer,
        assumed: HashSet::new(),
        trail: Vec::new(),
        failed: HashSet::new(),
        looked_at: 0,
        gave_up: false,
    };
    Ok(pairs.resolve(reader.root, writer.root, 0)?)
}

struct Pairs<'a> {
    reader: &'a Schema,
    writer: &'a Schema,
    /// Under comparison or found to fit: a type that holds itself is met again.
    assumed: HashSet<(TypeId, TypeId)>,
    /// The same in the order of coming, so that an attempt can be taken back.
    trail: Vec<(TypeId, TypeId)>,
    /// Found not to fit; final, because assumptions only ever help.
    failed: HashSet<(TypeId, TypeId)>,
    looked_at: usize,
    /// A bound was reached: another branch cannot help.
    gave_up: bool,
}

impl Pairs<'_> {
    fn resolve(&mut self, reader: TypeId, writer: TypeId, level: usize) -> Result<(), Fault> {
        self.looked_at += 1;
        if self.looked_at > MAX_PAIRS || level > MAX_LEVELS {
            self.gave_up = true;
            return Err(Fault::new(
                "the definitions are too large or too deep to be compared: simplify them",
            ));
        }
        if self.failed.contains(&(reader, writer)) {
            return Err(self.other(reader, writer));
        }
        if !self.assumed.insert((reader, writer)) {
            return Ok(());
        }
        self.trail.push((reader, writer));
        let outcome = self.compare(reader, writer, level);
        if outcome.is_err() {
            self.failed.insert((reader, writer));
        }
        outcome
    }

    fn compare(&mut self, r: TypeId, w: TypeId, level: usize) -> Result<(), Fault> {
        let (reader, writer) = (self.reader, self.writer);
        match (&reader.types[r], &writer.types[w]) {
            // Whichever branch was written must be readable.
            (_, Type::Union(union)) => {
                union.branches.iter().try_for_each(|branch| self.resolve(r, *branch, level + 1))
            }
            (Type::Union(union), _) => self.any_of(union, w, level),
            (Type::Null, Type::Null)
            | (Type::Boolean, Type::Boolean)
            | (Type::Int, Type::Int)
            | (Type::Long, Type::Int | Type::Long)
            | (Type::Float, Type::Int | Type::Long | Type::Float)
            | (Type::Double, Type::Int | Type::Long | Type::Float | Type::Double)
            | (Type::Bytes | Type::String, Type::Bytes | Type::String) => Ok(()),
            (Type::Array(r), Type::Array(w)) => {
                self.resolve(*r, *w, level + 1).map_err(|fault| fault.at_field("items"))
            }
            (Type::Map(r), Type::Map(w)) => {
                self.resolve(*r, *w, level + 1).map_err(|fault| fault.at_field("values"))
            }
            (Type::Fixed { name: rn, size: rs }, Type::Fixed { name: wn, size: ws }) => {
                if rs != ws {
                    return Err(Fault::new(format!("{} has {rs} bytes and {ws} bytes", rn.full)));
                }
                same_name(rn, wn)
            }
            (Type::Enum { name: rn, symbols: rs, has_default }, Type::Enum { name: wn, symbols: ws, .. }) => {
                same_name(rn, wn)?;
                match ws.iter().find(|symbol| !rs.contains(*symbol)) {
                    Some(symbol) if !has_default => Err(Fault::new(format!(
                        "the symbol `{symbol}` of {} is on one side only and the enum has no default",
                        rn.full
                    ))),
                    _ => Ok(()),
                }
            }
            (Type::Record { name: rn, fields: rf, .. }, Type::Record { name: wn, fields: wf, .. }) => {
                same_name(rn, wn)?;
                self.fields(rn, rf, wf, level)
            }
            _ => Err(self.other(r, w)),
        }
    }

    fn any_of(&mut self, union: &Union, w: TypeId, level: usize) -> Result<(), Fault> {
        // The branch of the same name first: in revisions it nearly always is the one.
        let same = union.tags.get(self.writer.label(w)).copied();
        let others = union.branches.iter().copied().filter(|branch| Some(*branch) != same);
        for branch in same.into_iter().chain(others) {
            let before = self.trail.len();
            match self.resolve(branch, w, level + 1) {
                Err(fault) if self.gave_up => return Err(fault),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
            // What was found to fit on the way may have leaned on the pair that does not.
            for pair in self.trail.drain(before..) {
                self.assumed.remove(&pair);
            }
        }
        Err(Fault::new(format!(
            "{} is no branch of the union ({})",
            self.writer.label(w),
            self.reader.branches(&union.branches)
        )))
    }

    fn fields(&mut self, name: &Name, reader: &[Field], writer: &[Field], level: usize) -> Result<(), Fault> {
        let written: HashMap<&str, &Field> =
            writer.iter().map(|field| (field.name.as_str(), field)).collect();
        reader.iter().try_for_each(|field| {
            let mut names = std::iter::once(&field.name).chain(&field.aliases);
            match names.find_map(|name| written.get(name.as_str())) {
                Some(written) => {
                    self.resolve(field.ty, written.ty, level + 1).map_err(|fault| fault.at_field(&field.name))
                }
                None if field.default.is_some() => Ok(()),
                None => Err(Fault::new(format!(
                    "the field `{}` of {} is on one side only and has no default: give it one",
                    field.name, name.full
                ))),
            }
        })
    }

    fn other(&self, r: TypeId, w: TypeId) -> Fault {
        Fault::new(format!("{} cannot be read from {}", self.reader.label(r), self.writer.label(w)))
    }
}

/// Names match without their namespace, or by an alias of the reader.
fn same_name(reader: &Name, writer: &Name) -> Result<(), Fault> {
    if reader.simple() == writer.simple() || reader.aliases.contains(&writer.full) {
        return Ok(());
    }
    Err(Fault::new(format!("the type is called {} and {}", reader.full, writer.full)))
}
