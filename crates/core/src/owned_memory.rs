//! Memory that owners share: a part of the budget, of which each owner holds at most so much.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::memory::{MemoryBudget, MemoryHold};
use crate::problem::Problem;
use crate::quota::QuotaOwner;

/// A share of a [`MemoryBudget`], divided between owners. Cheap to clone; clones are one.
#[derive(Clone)]
pub struct OwnedMemory(Arc<Inner>);

struct Inner {
    what: &'static str,
    share: MemoryBudget,
    per_owner: usize,
    owners: Mutex<HashMap<QuotaOwner, MemoryBudget, ahash::RandomState>>,
}

impl OwnedMemory {
    /// Owners that hold nothing are forgotten when there are more than this.
    const MAX_IDLE: usize = 1_000;

    /// `limit` bytes of all owners together, `per_owner` of each. `what` names it in answers.
    pub fn new(memory: &MemoryBudget, what: &'static str, limit: usize, per_owner: usize) -> Self {
        let share = memory.share(what, limit);
        Self(Arc::new(Inner { what, share, per_owner: per_owner.max(1), owners: Mutex::default() }))
    }

    /// Never refuses, for tests and for tools without a server.
    pub fn unlimited() -> Self {
        Self::new(&MemoryBudget::unlimited(), "memory", usize::MAX, usize::MAX)
    }

    /// The share of all owners.
    pub fn share(&self) -> &MemoryBudget {
        &self.0.share
    }

    /// Bytes that one owner may hold.
    pub fn per_owner(&self) -> usize {
        self.0.per_owner
    }

    /// Takes `bytes` for an owner until the hold is dropped.
    ///
    /// # Errors
    /// `memory-exhausted`: with 429 where the owner holds its part, with 503 where all together
    /// hold theirs.
    pub fn take(&self, owner: &QuotaOwner, bytes: usize) -> Result<OwnedHold, Problem> {
        let own = self.of(owner);
        let hold = own.take(0)?;
        let mut hold = OwnedHold { hold, own, what: self.0.what };
        hold.grow(bytes)?;
        Ok(hold)
    }

    /// Takes `bytes` for an owner as soon as there is room for them. Dropping the call ends the wait.
    ///
    /// # Errors
    /// As [`OwnedMemory::take`], at once, where an owner may never hold so much.
    pub async fn take_when_free(&self, owner: &QuotaOwner, bytes: usize) -> Result<OwnedHold, Problem> {
        let own = self.of(owner);
        if bytes > own.limit() {
            return self.take(owner, bytes);
        }
        let hold = own.take_when_free(bytes).await;
        Ok(OwnedHold { hold, own, what: self.0.what })
    }

    fn of(&self, owner: &QuotaOwner) -> MemoryBudget {
        let mut owners = self.0.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = owners.get(owner) {
            return own.clone();
        }
        if owners.len() >= Self::MAX_IDLE {
            owners.retain(|_, own| own.used() > 0);
        }
        let own = self.0.share.share(self.0.what, self.0.per_owner);
        owners.insert(owner.clone(), own.clone());
        own
    }
}

impl fmt::Debug for OwnedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedMemory({:?}, {} bytes an owner)", self.0.share, self.0.per_owner)
    }
}

/// Bytes taken for an owner; dropping it gives them back.
#[derive(Debug)]
pub struct OwnedHold {
    hold: MemoryHold,
    own: MemoryBudget,
    what: &'static str,
}

impl OwnedHold {
    pub fn bytes(&self) -> usize {
        self.hold.bytes()
    }

    /// Takes `more` bytes, or none.
    ///
    /// # Errors
    /// As [`OwnedMemory::take`].
    pub fn grow(&mut self, more: usize) -> Result<(), Problem> {
        self.hold.grow(more).map_err(|problem| {
            let (used, limit) = (self.own.used(), self.own.limit());
            if used.saturating_add(more) <= limit {
                return problem;
            }
            let what = self.what;
            Problem::new(
                429,
                "memory-exhausted",
                format!("{what} of this caller hold {used} of {limit} bytes"),
            )
            .hint("send less at the same time")
            .retry_after_s(1)
        })
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.hold.shrink_to(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn one_owner_cannot_take_what_the_others_need() {
        let memory = OwnedMemory::new(&MemoryBudget::new(1_000), "request bodies", 300, 200);
        let (a, b) = (QuotaOwner::Principal("a".into()), QuotaOwner::Principal("b".into()));
        let mut held = memory.take(&a, 150).expect("there is room");
        let own = memory.take(&a, 60).expect_err("200 are its part");
        assert_eq!((own.status, own.code.as_str()), (429, "memory-exhausted"));
        held.grow(50).expect("there is room");
        let other = memory.take(&b, 100).expect("what is left");
        assert_eq!(memory.take(&b, 1).map(drop).map_err(|p| p.status), Err(503), "all hold all");
        drop((held, other));
        assert_eq!(memory.share().used(), 0);
    }

    #[test]
    fn an_owner_that_waits_is_served_once_its_part_is_free() {
        let memory = OwnedMemory::new(&MemoryBudget::new(1_000), "answers", 300, 200);
        let owner = QuotaOwner::Principal("a".into());
        let held = memory.take(&owner, 150).expect("there is room");
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = pin!(memory.take_when_free(&owner, 100));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(held);
        let Poll::Ready(Ok(hold)) = waiting.as_mut().poll(&mut cx) else { panic!("there is room now") };
        assert_eq!((hold.bytes(), memory.share().used()), (100, 100));
        let never = pin!(memory.take_when_free(&owner, 201)).poll(&mut cx);
        assert!(
            matches!(never, Poll::Ready(Err(problem)) if problem.status == 429),
            "it is no wait that helps"
        );
    }
}
