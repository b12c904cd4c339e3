//! Failed sign-ins, which are told to wait when there are many of one account from one address.
//!
//! A right key always comes in: many people may share an address, behind a proxy or a company's
//! router, and one of them must not be able to lock out the others. So a key is looked up first,
//! and only a wrong one is told to wait. That is enough for keys, which have 256 bits and are not
//! guessed; a secret that can be guessed (a password, a code of six digits) needs the wait before
//! the look.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Clock, Problem, TokenBucket};

/// Addresses remembered; beyond it the one that failed longest ago is forgotten. Strangers never
/// share a delay.
const MAX_ADDRESSES: usize = 4_096;
/// Accounts of one address that are told apart; further ones are one.
const MAX_ACCOUNTS: usize = 16;
const MAX_ACCOUNT_BYTES: usize = 64;

/// `None`: nobody knows from where.
type Origin = Option<IpAddr>;

/// Counts sign-ins that fail. Shared by reference; all methods are quick.
#[derive(Debug)]
pub struct SignIns {
    clock: Arc<dyn Clock>,
    burst: f64,
    rate_per_s: f64,
    origins: Mutex<HashMap<Origin, Failures>>,
    /// Of `origins`, so that nobody waits for the lock while nothing fails.
    known: AtomicUsize,
}

#[derive(Debug)]
struct Failures {
    last: Duration,
    accounts: HashMap<Box<str>, TokenBucket>,
}

impl SignIns {
    /// Of one account from one address so many failures at once, then one in each `refill`.
    pub fn new(clock: Arc<dyn Clock>, burst: u32, refill: Duration) -> Self {
        Self {
            clock,
            burst: f64::from(burst.max(1)),
            rate_per_s: 1.0 / refill.as_secs_f64().max(0.001),
            origins: Mutex::default(),
            known: AtomicUsize::new(0),
        }
    }

    /// The account that a presented API key claims to be: its public part; empty for what is no
    /// key.
    pub fn account(presented: &str) -> &str {
        let claimed = presented.strip_prefix("lvd_").and_then(|rest| rest.split_once('_'));
        claimed.map(|(id, _)| id).filter(|id| id.len() <= MAX_ACCOUNT_BYTES).unwrap_or_default()
    }

    /// An account is refused at an address.
    ///
    /// # Errors
    /// `too-many-sign-ins` (429) with the time to wait, to be answered in place of the refusal.
    pub fn failed(&self, address: Option<IpAddr>, account: &str) -> Result<(), Problem> {
        let now = self.clock.monotonic();
        let mut origins = self.lock();
        let origin = origin(address);
        if origins.len() >= MAX_ADDRESSES && !origins.contains_key(&origin) {
            self.make_room(&mut origins, now);
        }
        let failures =
            origins.entry(origin).or_insert_with(|| Failures { last: now, accounts: HashMap::new() });
        failures.last = now;
        let is_known = failures.accounts.contains_key(account) || failures.accounts.len() < MAX_ACCOUNTS;
        let account = if is_known { account } else { "" };
        let bucket = failures
            .accounts
            .entry(account.into())
            .or_insert_with(|| TokenBucket::new(self.rate_per_s, self.burst, now));
        let decision = bucket.take(1.0, now);
        self.known.store(origins.len(), Ordering::Relaxed);
        match decision.allowed {
            true => Ok(()),
            false => Err(too_many(decision.reset)),
        }
    }

    /// An account came in at an address: what failed before counts no more.
    pub fn succeeded(&self, address: Option<IpAddr>, account: &str) {
        if self.known.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut origins = self.lock();
        let origin = origin(address);
        if let Some(failures) = origins.get_mut(&origin) {
            failures.accounts.remove(account);
            if failures.accounts.is_empty() {
                origins.remove(&origin);
            }
        }
        self.known.store(origins.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Failures>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets who has waited long enough, or else who failed longest ago.
    fn make_room(&self, origins: &mut HashMap<Origin, Failures>, now: Duration) {
        // A full bucket says nothing that a new one would not.
        let is_full = |bucket: &TokenBucket| bucket.clone().take(0.0, now).remaining >= self.burst as u64;
        origins.retain(|_, failures| !failures.accounts.values().all(is_full));
        if origins.len() >= MAX_ADDRESSES {
            let oldest = origins.iter().min_by_key(|(_, failures)| failures.last).map(|(origin, _)| *origin);
            oldest.map(|origin| origins.remove(&origin));
        }
    }
}

/// An IPv6 network of 64 bits is one household.
fn origin(address: Option<IpAddr>) -> Origin {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    })
}

fn too_many(wait: Duration) -> Problem {
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    Problem::new(429, "too-many-sign-ins", "too many sign-ins failed for that key from this address")
        .hint(format!("wait {seconds} s and try again"))
        .retry_after_s(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    fn table() -> (Arc<ManualClock>, SignIns) {
        let clock = Arc::new(ManualClock::new(0));
        (clock.clone(), SignIns::new(clock, 3, Duration::from_secs(10)))
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn failures_delay_the_account_at_its_address_and_nobody_else() {
        let (clock, table) = table();
        let (here, there) = (ip("10.0.0.1"), ip("10.0.0.2"));
        for _ in 0..3 {
            table.failed(here, "admin").expect("free");
        }
        let refused = table.failed(here, "admin").expect_err("delayed");
        assert_eq!(
            (refused.status, &*refused.code, refused.retry_after_s),
            (429, "too-many-sign-ins", Some(10))
        );
        assert!(table.failed(there, "admin").is_ok(), "another address");
        assert!(table.failed(here, "other").is_ok(), "another account");
        assert!(table.failed(ip("::ffff:10.0.0.1"), "admin").is_err(), "one address in two spellings");
        clock.advance(Duration::from_secs(10));
        assert!(table.failed(here, "admin").is_ok());
        assert!(table.failed(here, "admin").is_err());
        table.succeeded(here, "admin");
        assert!(table.failed(here, "admin").is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let (_, table) = table();
        for n in 1..=3 {
            table.failed(ip(&format!("2001:db8:1:1::{n}")), "admin").expect("free");
        }
        assert!(table.failed(ip("2001:db8:1:1:ffff::"), "admin").is_err());
        assert!(table.failed(ip("2001:db8:1:2::1"), "admin").is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_the_crowd_delays_nobody() {
        let (clock, table) = table();
        for n in 0..MAX_ADDRESSES as u32 * 2 {
            clock.advance(Duration::from_millis(1));
            for _ in 0..3 {
                table.failed(Some(IpAddr::from(n.to_be_bytes())), "admin").expect("free");
            }
        }
        assert_eq!(table.lock().len(), MAX_ADDRESSES);
        assert!(table.failed(ip("192.0.2.1"), "admin").is_ok());
        assert!(table.failed(None, "admin").is_ok());
        let noisy = ip("10.9.9.9");
        let refused = (0..1_000).filter(|n| table.failed(noisy, &format!("account-{n}")).is_err());
        assert_eq!(refused.count(), 1_000 - MAX_ACCOUNTS - 3, "too many to tell apart are one");
        assert!(table.lock()[&noisy].accounts.len() <= MAX_ACCOUNTS + 1);
        assert!(table.failed(noisy, "account-1").is_ok());
    }

    #[test]
    fn an_account_is_the_public_part_of_a_key() {
        assert_eq!(SignIns::account("lvd_abcdefghij_secret_x"), "abcdefghij");
        for none in ["", "lvd_abc", "abc_def", "lvd"] {
            assert_eq!(SignIns::account(none), "", "{none}");
        }
        assert_eq!(SignIns::account(&format!("lvd_{}_x", "a".repeat(65))), "");
    }
}
