//! What streams have outstanding: the count behind their flow control.
//!
//! A message counts from when it is sent until it is acknowledged, given back or expires, by
//! whichever door: clients acknowledge over another stream or by single calls as they like.
//! So there is one ledger a subscription, and every acknowledgement passes by it. A stream
//! without limits is not in it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use levada_bus::port::AckId;
use levada_core::{DeadlineSet, NumberMap, ResourceName};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::ApiError;

/// Accounts of clients that left are kept for those that come again, up to this many a
/// subscription; the accounts themselves end with their leases.
const MAX_LEFT: usize = 1_000;

/// How much a stream may have outstanding; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    pub messages: Option<u64>,
    pub bytes: Option<u64>,
}

impl FlowLimits {
    fn is_unlimited(self) -> bool {
        self.messages.is_none() && self.bytes.is_none()
    }
}

/// All streams of the process.
#[derive(Debug)]
pub(crate) struct Streams {
    slots: Arc<Semaphore>,
    ledgers: Mutex<HashMap<ResourceName, Arc<Ledger>>>,
    accounts: Arc<AtomicU64>,
}

impl Streams {
    pub(crate) fn new(max_streams: usize) -> Self {
        let slots = Arc::new(Semaphore::new(max_streams.max(1)));
        Self { slots, ledgers: Mutex::default(), accounts: Arc::default() }
    }

    /// A place for one more stream.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when there are too many.
    pub(crate) fn slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.slots.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(
                tonic::Code::ResourceExhausted,
                "There are too many open streams; close some, or raise the limit of the server.",
            )
        })
    }

    /// The ledger that a stream books in.
    pub(crate) fn ledger(&self, subscription: &ResourceName) -> Arc<Ledger> {
        let mut ledgers = self.ledgers.lock();
        // Ledgers that nobody books in any more go when another comes.
        if ledgers.len().is_power_of_two() {
            ledgers.retain(|_, ledger| Arc::strong_count(ledger) > 1 || !ledger.is_idle(Instant::now()));
        }
        let new = || Arc::new(Ledger { books: Mutex::default(), numbers: self.accounts.clone() });
        ledgers.entry(subscription.clone()).or_insert_with(new).clone()
    }

    /// These leases have ended, however they did.
    pub(crate) fn released(&self, subscription: &ResourceName, ids: &[AckId]) {
        let ledger = self.ledgers.lock().get(subscription).cloned();
        if let Some(ledger) = ledger {
            ledger.release(ids);
        }
    }

    /// These leases end at another time.
    pub(crate) fn extended(&self, subscription: &ResourceName, ids: &[AckId], until: Instant) {
        let ledger = self.ledgers.lock().get(subscription).cloned();
        if let Some(ledger) = ledger {
            ledger.extend(ids, until);
        }
    }
}

/// What the streams of one subscription have outstanding.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
    /// The number of the next account. Ordering keys go by the numbers, so none comes twice.
    numbers: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Books {
    /// By ack id.
    leases: NumberMap<Lease>,
    accounts: HashMap<u64, Totals>,
    /// Accounts of streams that ended, by client id.
    left: HashMap<String, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    account: u64,
    bytes: u64,
    until: Instant,
}

#[derive(Debug, Default)]
struct Totals {
    bytes: u64,
    by_end: DeadlineSet<Instant>,
    changed: Arc<Notify>,
}

impl Books {
    fn remove(&mut self, id: AckId) {
        let Some(lease) = self.leases.remove(id.0) else { return };
        if let Some(totals) = self.accounts.get_mut(&lease.account) {
            totals.by_end.remove(lease.until, id.0);
            totals.bytes -= lease.bytes;
            totals.changed.notify_one();
        }
    }

    fn expire(&mut self, account: u64, now: Instant) {
        while let Some((until, id)) = self.accounts.get(&account).and_then(|totals| totals.by_end.first()) {
            if until > now {
                break;
            }
            self.remove(AckId(id));
        }
    }

    fn close(&mut self, account: u64) {
        if let Some(totals) = self.accounts.remove(&account) {
            for id in totals.by_end.into_numbers() {
                self.leases.remove(id);
            }
        }
    }
}

impl Ledger {
    fn is_idle(&self, now: Instant) -> bool {
        let mut books = self.books.lock();
        let accounts: Vec<u64> = books.accounts.keys().copied().collect();
        for account in accounts {
            books.expire(account, now);
        }
        books.leases.is_empty()
    }

    fn release(&self, ids: &[AckId]) {
        let mut books = self.books.lock();
        for id in ids {
            books.remove(*id);
        }
    }

    fn extend(&self, ids: &[AckId], until: Instant) {
        let mut books = self.books.lock();
        let Books { leases, accounts, .. } = &mut *books;
        for id in ids {
            let Some(lease) = leases.get_mut(id.0) else { continue };
            let was = std::mem::replace(&mut lease.until, until);
            if let Some(totals) = accounts.get_mut(&lease.account) {
                totals.by_end.remove(was, id.0);
                totals.by_end.insert(until, id.0);
            }
        }
    }
}

/// One stream's account; it is left to the same client when the stream ends.
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    number: u64,
    client_id: String,
    limits: FlowLimits,
    changed: Arc<Notify>,
}

/// Whether, and how much, a stream may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free {
        messages: u64,
        bytes: u64,
    },
    /// Until an account changes, or at the latest until its first lease ends.
    Full {
        until: Instant,
    },
}

impl Account {
    /// Opens an account, taking over what the client of that id left when its stream ended.
    pub(crate) fn open(ledger: Arc<Ledger>, client_id: &str, limits: FlowLimits) -> Self {
        let mut books = ledger.books.lock();
        let taken = if client_id.is_empty() { None } else { books.left.remove(client_id) };
        let number = taken.unwrap_or_else(|| ledger.numbers.fetch_add(1, Ordering::Relaxed));
        let changed = books.accounts.entry(number).or_default().changed.clone();
        drop(books);
        Self { ledger, number, client_id: client_id.to_owned(), limits, changed }
    }

    /// Names the stream; a client that comes again goes on under the same.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Books messages as sent.
    pub(crate) fn add(&self, sent: &[(AckId, u64)], until: Instant) {
        if self.limits.is_unlimited() {
            return;
        }
        let mut books = self.ledger.books.lock();
        for &(id, bytes) in sent {
            books.remove(id);
            books.leases.insert(id.0, Lease { account: self.number, bytes, until });
            let totals = books.accounts.entry(self.number).or_default();
            totals.bytes += bytes;
            totals.by_end.insert(until, id.0);
        }
    }

    /// How much more may be sent.
    pub(crate) fn room(&self, now: Instant) -> Room {
        let mut books = self.ledger.books.lock();
        books.expire(self.number, now);
        let Some(totals) = books.accounts.get(&self.number) else {
            return Room::Free { messages: u64::MAX, bytes: u64::MAX };
        };
        let left = |limit: Option<u64>, used: u64| limit.map_or(u64::MAX, |limit| limit.saturating_sub(used));
        let messages = left(self.limits.messages, totals.by_end.len() as u64);
        let bytes = left(self.limits.bytes, totals.bytes);
        match totals.by_end.first() {
            Some((until, _)) if messages == 0 || bytes == 0 => Room::Full { until },
            _ => Room::Free { messages: messages.max(1), bytes: bytes.max(1) },
        }
    }

    /// Ends after the account has changed since the last time.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut books = self.ledger.books.lock();
        let is_empty = books.accounts.get(&self.number).is_none_or(|totals| totals.by_end.is_empty());
        if is_empty || self.client_id.is_empty() || books.left.len() >= MAX_LEFT {
            books.close(self.number);
            return;
        }
        let client_id = std::mem::take(&mut self.client_id);
        if let Some(older) = books.left.insert(client_id, self.number) {
            books.close(older);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn account(ledger: &Arc<Ledger>, client: &str, messages: u64, bytes: u64) -> Account {
        let limit = |n: u64| (n > 0).then_some(n);
        Account::open(ledger.clone(), client, FlowLimits { messages: limit(messages), bytes: limit(bytes) })
    }

    #[test]
    fn an_account_is_full_until_leases_end_in_whichever_way() {
        let streams = Streams::new(1);
        let name: ResourceName = "demo/orders".parse().expect("a name");
        let account = account(&streams.ledger(&name), "a", 2, 0);
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        account.add(&[(AckId(1), 5), (AckId(2), 5)], later);
        assert_eq!(account.room(now), Room::Full { until: later });
        streams.released(&name, &[AckId(1), AckId(77)]);
        assert!(matches!(account.room(now), Room::Free { messages: 1, .. }));
        account.add(&[(AckId(3), 5)], later);
        streams.extended(&name, &[AckId(2), AckId(3)], later + Duration::from_secs(5));
        assert!(matches!(account.room(later), Room::Full { .. }), "both were extended");
        assert!(matches!(account.room(later + Duration::from_secs(5)), Room::Free { messages: 2, .. }));
    }

    #[test]
    fn bytes_count_too_and_one_message_may_go_over() {
        let ledger = Arc::new(Ledger::default());
        let account = account(&ledger, "", 0, 100);
        let now = Instant::now();
        account.add(&[(AckId(1), 99)], now + Duration::from_secs(1));
        assert!(matches!(account.room(now), Room::Free { bytes: 1, .. }));
        account.add(&[(AckId(2), 500)], now + Duration::from_secs(1));
        assert!(matches!(account.room(now), Room::Full { .. }));
    }

    #[test]
    fn a_client_that_comes_again_goes_on_with_what_it_left() {
        let ledger = Arc::new(Ledger::default());
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        let first = account(&ledger, "client", 2, 0);
        first.add(&[(AckId(1), 1), (AckId(2), 1)], until);
        let beside = account(&ledger, "client", 2, 0);
        assert!(
            matches!(beside.room(now), Room::Free { .. }),
            "a stream beside an open one has its own account"
        );
        drop(beside);
        drop(first);
        let other = account(&ledger, "another", 2, 0);
        assert!(matches!(other.room(now), Room::Free { messages: 2, .. }));
        let again = account(&ledger, "client", 2, 0);
        assert_eq!(again.room(now), Room::Full { until });
    }
}
