//! What prepared statements and portals hold, taken from the memory budget.
//!
//! A client keeps as many as it likes between its queries, and their texts, names, columns and
//! parameters stay for as long. So each takes its bytes before it is kept: of its session, which
//! may hold [`SESSION_BYTES`], and of its owner's part of what all sessions hold together.

use std::mem::size_of;

use arrow::datatypes::{Field, Schema};
use levada_core::{MemoryBudget, MemoryHold, OwnedHold, OwnedMemory, Principal, Problem, QuotaOwner};
use levada_lake::Param;
use pgwire::api::Type;

use crate::error::{Failure, Outcome, info, refuse_with};
use crate::portal::Prepared;
use crate::statement::Statement;

/// Of the prepared statements and portals of one session.
pub(crate) const SESSION_BYTES: usize = 4 << 20;
/// Of all sessions, as a part of the whole memory; of one owner, as a part of that.
const SHARE_OF_MEMORY: usize = 8;
const SHARE_OF_OWNER: usize = 4;
/// Maps, counters and allocations around one statement or portal.
const OVERHEAD_BYTES: usize = 512;
const HINT: &str = "close prepared statements and cursors that are no longer needed";

/// What all sessions may hold together, divided by owners.
pub(crate) fn of_all(memory: &MemoryBudget) -> OwnedMemory {
    let all = memory.limit() / SHARE_OF_MEMORY;
    OwnedMemory::new(memory, "prepared statements", all, all / SHARE_OF_OWNER)
}

/// Where a session takes its bytes from.
#[derive(Debug)]
pub(crate) struct Shelf {
    of_session: MemoryBudget,
    of_all: OwnedMemory,
    owner: QuotaOwner,
}

/// Bytes of one statement or portal, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    of_session: MemoryHold,
    of_owner: OwnedHold,
}

impl Shelf {
    pub fn new(of_all: OwnedMemory, principal: &Principal) -> Self {
        let of_session = MemoryBudget::new(SESSION_BYTES);
        Self { of_session, of_all, owner: QuotaOwner::of(principal) }
    }

    /// Takes `bytes` and what surrounds them.
    ///
    /// # Errors
    /// 54000 where the session has no room, 53200 where its owner or all together have none.
    pub fn take(&self, bytes: usize) -> Outcome<Kept> {
        let of_session = self.of_session.take(0).map_err(|_| session_is_full())?;
        let of_owner = self.of_all.take(&self.owner, 0).map_err(|problem| no_room(&problem))?;
        let mut kept = Kept { of_session, of_owner };
        kept.grow(bytes.saturating_add(OVERHEAD_BYTES))?;
        Ok(kept)
    }
}

impl Kept {
    /// Takes `more` bytes.
    ///
    /// # Errors
    /// As of [`Shelf::take`].
    pub fn grow(&mut self, more: usize) -> Outcome<()> {
        self.of_session.grow(more).map_err(|_| session_is_full())?;
        self.of_owner.grow(more).map_err(|problem| no_room(&problem))
    }
}

fn session_is_full() -> Failure {
    let text = format!(
        "the prepared statements and cursors of this session would hold more than {SESSION_BYTES} bytes"
    );
    refuse_with("54000", text, HINT)
}

fn no_room(problem: &Problem) -> Failure {
    let mut info = info("ERROR", problem);
    info.hint = Some(HINT.to_owned());
    Failure::Statement(Box::new(info))
}

/// Bytes of a prepared statement under a name.
pub(crate) fn bytes_of(name: &str, prepared: &Prepared) -> usize {
    let types = prepared.params.len() * size_of::<Type>();
    // A statement about the session holds parts of its text once more.
    let texts = if prepared.statement == Statement::Query { 1 } else { 2 };
    texts * prepared.sql.len() + name.len() + types + prepared.schema.as_deref().map_or(0, columns)
}

/// Bytes of the columns of a result.
pub(crate) fn columns(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| Field::size(field)).sum()
}

/// Bytes of a parameter of a bound statement.
pub(crate) fn bytes_of_param(param: &Param) -> usize {
    let own = match param {
        Param::Decimal(text) | Param::Text(text) => text.len(),
        Param::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    size_of::<Param>() + own
}

#[cfg(test)]
mod tests {
    use levada_core::TenantSet;

    use super::*;

    fn shelf(of_all: &OwnedMemory, id: &str) -> Shelf {
        let (id, tenants) = (id.to_owned(), TenantSet::All);
        Shelf::new(of_all.clone(), &Principal { name: id.clone(), id, tenants, roles: [].into() })
    }

    fn code<T>(outcome: Outcome<T>) -> String {
        match outcome {
            Err(Failure::Statement(info)) => info.code,
            Err(_) => "fatal".to_owned(),
            Ok(_) => "fine".to_owned(),
        }
    }

    #[test]
    fn a_session_an_owner_and_all_together_end_at_their_bounds() {
        const MIB: usize = 1 << 20;
        // 24 MiB for all, 6 for one owner, 4 for one session.
        let all = of_all(&MemoryBudget::new(192 * MIB));
        let first = shelf(&all, "a");
        let held = first.take(3 * MIB).expect("there is room");
        assert_eq!(code(first.take(MIB)), "54000", "the session is at its bound");
        let second = shelf(&all, "a");
        assert_eq!(code(second.take(3 * MIB)), "53200", "the owner is at its bound");
        let more = second.take(2 * MIB).expect("what its owner has left");
        let others: Vec<_> = ["b", "c", "d", "e", "f", "g"].map(|id| shelf(&all, id)).into();
        let full: Vec<_> = others.iter().map(|shelf| shelf.take(3 * MIB)).collect();
        assert_eq!(full.into_iter().map(code).collect::<Vec<_>>(), ["fine"; 6], "others are not touched");
        drop((held, more));
        assert_eq!(all.share().used(), 0, "what was refused is not held");
    }
}
