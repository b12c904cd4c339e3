//! The memory of the process as one budget.
//!
//! Everything that holds memory in proportion to what callers send (queries, request bodies,
//! epochs, windows, caches, streams) takes it here first and gives it back when it is dropped.
//! At the limit a caller is refused or waits; nothing else is touched. A [`MemoryBudget::share`]
//! is a part of a budget with a lower limit of its own, so that one kind of work cannot take
//! what the others need.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};

use crate::problem::Problem;

/// A number of bytes that may be held at the same time. Cheap to clone; clones are one budget.
#[derive(Clone)]
pub struct MemoryBudget(Arc<Inner>);

struct Inner {
    what: &'static str,
    limit: usize,
    used: AtomicUsize,
    parent: Option<MemoryBudget>,
    /// For lists: the parts of it, as long as somebody has them.
    parts: Mutex<Vec<Weak<Inner>>>,
    /// Those who wait until something is given back.
    waiting: Mutex<Vec<Waker>>,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self::of("memory", limit, None)
    }

    /// A budget that never refuses, for tests and for tools without a server.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// A part of this budget that holds at most `limit` bytes. `what` names it in answers and
    /// metrics.
    #[must_use]
    pub fn share(&self, what: &'static str, limit: usize) -> Self {
        let part = Self::of(what, limit.min(self.limit()), Some(self.clone()));
        let mut parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.len().is_power_of_two() {
            parts.retain(|part| part.strong_count() > 0);
        }
        parts.push(Arc::downgrade(&part.0));
        drop(parts);
        part
    }

    /// Its shares, by name; those of one name are one.
    pub fn shares(&self) -> Vec<MemoryUse> {
        let parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_name: BTreeMap<&'static str, MemoryUse> = BTreeMap::new();
        for part in parts.iter().filter_map(Weak::upgrade) {
            let all = by_name.entry(part.what).or_insert(MemoryUse { what: part.what, used: 0, limit: 0 });
            all.used += part.used.load(Ordering::Relaxed);
            all.limit = all.limit.saturating_add(part.limit).min(self.limit());
        }
        by_name.into_values().collect()
    }

    fn of(what: &'static str, limit: usize, parent: Option<Self>) -> Self {
        let (used, waiting, parts) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { what, limit, used, parent, parts, waiting }))
    }

    pub fn what(&self) -> &'static str {
        self.0.what
    }

    /// Bytes that may be held.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` until the hold is dropped.
    ///
    /// # Errors
    /// `memory-exhausted` (503, retryable) where this budget or one that it is part of has no
    /// room for them.
    pub fn take(&self, bytes: usize) -> Result<MemoryHold, Problem> {
        let mut hold = MemoryHold { budget: self.clone(), bytes: 0 };
        hold.grow(bytes)?;
        Ok(hold)
    }

    /// Takes `bytes` as soon as there is room. A caller that wants more than the whole budget
    /// gets the whole budget: it works alone rather than never.
    pub async fn take_when_free(&self, bytes: usize) -> MemoryHold {
        let bytes = bytes.min(self.narrowest());
        std::future::poll_fn(|cx| {
            if let Ok(hold) = self.take(bytes) {
                return Poll::Ready(hold);
            }
            self.register(cx.waker());
            // What was given back between the two was not announced to this caller.
            match self.take(bytes) {
                Ok(hold) => Poll::Ready(hold),
                Err(_) => Poll::Pending,
            }
        })
        .await
    }

    fn narrowest(&self) -> usize {
        self.0.parent.as_ref().map_or(self.0.limit, |parent| parent.narrowest().min(self.0.limit))
    }

    fn register(&self, waker: &Waker) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        drop(waiting);
        if let Some(parent) = &self.0.parent {
            parent.register(waker);
        }
    }

    fn grow(&self, bytes: usize) -> Result<(), Problem> {
        let limit = self.0.limit;
        let room = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        if self.0.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room).is_err() {
            return Err(self.exhausted(bytes));
        }
        if let Some(parent) = &self.0.parent
            && let Err(problem) = parent.grow(bytes)
        {
            self.0.used.fetch_sub(bytes, Ordering::AcqRel);
            return Err(problem);
        }
        Ok(())
    }

    fn shrink(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::AcqRel);
        let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
        if let Some(parent) = &self.0.parent {
            parent.shrink(bytes);
        }
    }

    fn exhausted(&self, bytes: usize) -> Problem {
        let (what, limit, used) = (self.0.what, self.0.limit, self.used());
        Problem::new(
            503,
            "memory-exhausted",
            format!("{what} holds {used} of its {limit} bytes and has no room for {bytes} more"),
        )
        .hint("try again in a moment; `memory` in levada.yaml sets what the server may hold")
        .retry_after_s(1)
    }
}

/// What a budget or a share holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    pub what: &'static str,
    /// Bytes.
    pub used: usize,
    /// Bytes.
    pub limit: usize,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBudget({}: {} of {} bytes)", self.0.what, self.used(), self.0.limit)
    }
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct MemoryHold {
    budget: MemoryBudget,
    bytes: usize,
}

impl MemoryHold {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `more` bytes, or none.
    ///
    /// # Errors
    /// As [`MemoryBudget::take`].
    pub fn grow(&mut self, more: usize) -> Result<(), Problem> {
        self.budget.grow(more)?;
        self.bytes += more;
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(less) = self.bytes.checked_sub(bytes).filter(|less| *less > 0) {
            self.bytes = bytes;
            self.budget.shrink(less);
        }
    }
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn a_budget_refuses_beyond_its_limit_and_takes_back_what_is_dropped() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.take(60).expect("there is room");
        assert_eq!(budget.take(41).map(drop).map_err(|p| p.code), Err("memory-exhausted".to_owned()));
        first.grow(40).expect("there is room");
        assert_eq!(first.grow(1).map_err(|p| p.status), Err(503));
        assert_eq!(budget.used(), 100, "what was refused is not held");
        first.shrink_to(10);
        assert_eq!((budget.used(), first.bytes()), (10, 10));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_share_is_bounded_by_itself_and_by_the_whole() {
        let whole = MemoryBudget::new(100);
        let (queries, bodies) = (whole.share("queries", 80), whole.share("bodies", 50));
        let held = queries.take(70).expect("there is room");
        assert!(bodies.take(40).is_err(), "the whole has 30 left");
        assert_eq!((whole.used(), bodies.used()), (70, 0));
        let other = bodies.take(30).expect("there is room");
        let shown: Vec<_> = whole.shares().into_iter().map(|of| (of.what, of.used, of.limit)).collect();
        assert_eq!(shown, [("bodies", 30, 50), ("queries", 70, 80)]);
        assert!(queries.take(1).is_err());
        drop((held, other));
        assert!(queries.take(81).is_err(), "the share ends before the whole");
        assert_eq!((whole.used(), queries.used(), bodies.used()), (0, 0, 0));
    }

    #[test]
    fn who_waits_is_woken_when_another_share_gives_back() {
        let whole = MemoryBudget::new(100);
        let (queries, bodies) = (whole.share("queries", 100), whole.share("bodies", 100));
        let held = queries.take(90).expect("there is room");
        let mut waiting = pin!(bodies.take_when_free(1_000));
        let (waker, woken) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert!(woken.load(Ordering::Relaxed) > 0);
        let Poll::Ready(hold) = waiting.as_mut().poll(&mut cx) else { panic!("there is room now") };
        assert_eq!(hold.bytes(), 100, "more than everything is everything");
    }

    fn counting_waker() -> (Waker, Arc<AtomicUsize>) {
        struct Count(Arc<AtomicUsize>);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        (Waker::from(Arc::new(Count(count.clone()))), count)
    }
}
