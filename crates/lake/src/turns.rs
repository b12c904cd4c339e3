//! Whose query runs next.
//!
//! Every owner has a number of queries that run at the same time ([`Quota::Queries`]) and a
//! short queue of its own for further ones. All queries together have a number of slots. An
//! owner without a running query may pass that number, so that nobody waits behind the queries
//! of somebody else; where several wait for a slot, the owner with the fewest queries is next.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use levada_core::{Problem, Quota, QuotaOwner, QuotaPlace, Quotas};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::metrics;

/// Queries of one owner that wait for their turn; more are refused.
const MAX_WAITING: usize = 32;
/// Owners without a running query may use so many times the slots.
const FIRST: usize = 4;

/// Cheap to clone; clones are one.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Inner>);

struct Inner {
    quotas: Quotas,
    slots: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    tickets: u64,
    owners: HashMap<QuotaOwner, Own>,
}

#[derive(Default)]
struct Own {
    running: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    give: oneshot::Sender<Place>,
}

/// The right to run one query. Dropping it lets the next one run.
pub(crate) struct Place {
    turns: Turns,
    owner: QuotaOwner,
    /// `None` only while it is dropped.
    quota: Option<QuotaPlace>,
    is_first: bool,
}

impl Place {
    /// Whether the owner ran no other query when this one began.
    pub fn is_first(&self) -> bool {
        self.is_first
    }
}

impl Turns {
    pub fn new(quotas: Quotas, slots: usize) -> Self {
        Self(Arc::new(Inner { quotas, slots: slots.max(1), state: Mutex::default() }))
    }

    /// Waits until the owner may run one more query, at the longest until `deadline`.
    ///
    /// # Errors
    /// `quota-exceeded` when as many wait as may, or the wait took too long.
    pub async fn enter(&self, owner: &QuotaOwner, deadline: Instant) -> Result<Place, Problem> {
        let waiting = {
            let mut state = self.0.state.lock();
            let own = state.owners.entry(owner.clone()).or_default();
            own.waiting.retain(|waiting| !waiting.give.is_closed());
            let full = own.waiting.len() >= MAX_WAITING;
            if own.waiting.is_empty() && self.may_start(&state, owner) || full {
                // Where the queue is full this is refused, and counted as a refusal.
                return self.start(&mut state, owner);
            }
            state.tickets += 1;
            let (ticket, (give, given)) = (state.tickets, oneshot::channel());
            let own = state.owners.entry(owner.clone()).or_default();
            own.waiting.push_back(Waiting { ticket, give });
            given
        };
        metrics::query("queued");
        match timeout_at(deadline, waiting).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(self.waited(owner)),
        }
    }

    fn may_start(&self, state: &State, owner: &QuotaOwner) -> bool {
        let own = state.owners.get(owner).map_or(0, |own| own.running);
        let slots = if own == 0 { self.0.slots.saturating_mul(FIRST) } else { self.0.slots };
        own < self.0.quotas.limit(owner, Quota::Queries) && state.running < slots
    }

    fn start(&self, state: &mut State, owner: &QuotaOwner) -> Result<Place, Problem> {
        let quota = self.0.quotas.take(owner, Quota::Queries)?;
        let own = state.owners.entry(owner.clone()).or_default();
        let is_first = own.running == 0;
        own.running += 1;
        state.running += 1;
        Ok(Place { turns: self.clone(), owner: owner.clone(), quota: Some(quota), is_first })
    }

    fn waited(&self, owner: &QuotaOwner) -> Problem {
        let limit = self.0.quotas.limit(owner, Quota::Queries);
        let detail = format!("the query waited too long for its turn: {limit} run at the same time");
        Problem::new(429, "quota-exceeded", detail)
            .hint(format!("send fewer queries at once, or raise `quotas.{}` in levada.yaml", Quota::Queries))
            .retry_after_s(1)
    }

    /// Gives free places to those who wait.
    fn hand_on(&self) {
        let mut unwanted = Vec::new();
        let mut state = self.0.state.lock();
        loop {
            let waiting = state.owners.iter().filter_map(|(owner, own)| {
                let first = own.waiting.front()?;
                Some(((own.running, first.ticket), owner))
            });
            let next =
                waiting.filter(|(_, owner)| self.may_start(&state, owner)).min().map(|(_, o)| o.clone());
            let Some(owner) = next else { break };
            let waiting = state.owners.get_mut(&owner).and_then(|own| own.waiting.pop_front());
            let Some(waiting) = waiting else { break };
            if waiting.give.is_closed() {
                continue;
            }
            let Ok(place) = self.start(&mut state, &owner) else { break };
            if let Err(place) = waiting.give.send(place) {
                // It went away just now. Its place cannot be given back under the lock.
                unwanted.push(place);
            }
        }
        drop(state);
        drop(unwanted);
    }

    /// How many run.
    #[cfg(test)]
    pub fn running(&self) -> usize {
        self.0.state.lock().running
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.0.state.lock();
        state.running = state.running.saturating_sub(1);
        if let Some(own) = state.owners.get_mut(&self.owner) {
            own.running = own.running.saturating_sub(1);
            if own.running == 0 && own.waiting.is_empty() {
                state.owners.remove(&self.owner);
            }
        }
        drop(state);
        // Before the next one asks for it.
        drop(self.quota.take());
        self.turns.hand_on();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use levada_core::{TenantId, TenantQuotas};

    use super::*;

    fn owner(name: &str) -> QuotaOwner {
        QuotaOwner::Tenant(TenantId::new(name).expect("a valid id"))
    }

    fn turns(quota: u64, slots: usize) -> Turns {
        Turns::new(Quotas::new(&[(Quota::Queries, quota)], &TenantQuotas::new()), slots)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn at_once() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn queries_beyond_the_quota_wait_in_the_queue_of_their_owner() {
        let turns = turns(2, 100);
        let held = [turns.enter(&owner("a"), soon()).await.ok(), turns.enter(&owner("a"), soon()).await.ok()];
        assert!(held.iter().all(Option::is_some));
        let (third, other) = tokio::join!(async { turns.enter(&owner("a"), soon()).await }, async {
            let other = turns.enter(&owner("b"), soon()).await;
            let [first, _second] = held;
            drop(first);
            other
        },);
        assert!(other.is_ok() && third.is_ok());
        assert_eq!(turns.running(), 2);
        drop((third, other));
        assert_eq!(turns.running(), 0);
        assert!(turns.0.state.lock().owners.is_empty(), "nothing is kept of who has left");
    }

    #[tokio::test]
    async fn a_full_queue_and_a_long_wait_are_refused() {
        let turns = turns(1, 100);
        let held = turns.enter(&owner("a"), soon()).await.expect("a place");
        let waited = turns.enter(&owner("a"), at_once()).await.err().expect("nobody leaves");
        assert_eq!((waited.status, waited.code.as_str()), (429, "quota-exceeded"));
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| wait_as(&turns, "a")).collect();
        tokio::task::yield_now().await;
        let refused = turns.enter(&owner("a"), soon()).await.err().expect("the queue is full");
        assert_eq!(refused.code, "quota-exceeded");
        waiting.pop().expect("one").abort();
        tokio::task::yield_now().await;
        let last = wait_as(&turns, "a");
        drop(held);
        for task in waiting {
            assert!(task.await.expect("a task").is_ok());
        }
        assert!(last.await.expect("a task").is_ok());
    }

    fn wait_as(turns: &Turns, name: &str) -> tokio::task::JoinHandle<Result<(), Problem>> {
        let (turns, owner) = (turns.clone(), owner(name));
        tokio::spawn(async move { turns.enter(&owner, soon()).await.map(drop) })
    }

    #[tokio::test]
    async fn who_runs_nothing_starts_although_all_slots_are_taken() {
        let turns = turns(8, 2);
        let _a = [turns.enter(&owner("a"), soon()).await.ok(), turns.enter(&owner("a"), soon()).await.ok()];
        assert!(turns.enter(&owner("a"), at_once()).await.is_err(), "all slots are taken");
        let b = turns.enter(&owner("b"), soon()).await;
        assert!(b.is_ok());
        assert!(turns.enter(&owner("b"), at_once()).await.is_err());
    }
}
