//! One subscription at work: its machine, what was read for it, and who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::bus::TopicState;
use crate::delivery::{KeyBounds, Progress, Rules, SHARED_LANE, State};
use crate::embedded::cache::Cache;
use crate::embedded::rate::Rate;
use crate::filter::Filter;
use crate::port::{KeyScope, SubscriptionSpec};

/// Messages leased at once by one subscription.
const MAX_LEASED: usize = 100_000;
/// Entries that one subscription keeps of messages that are not settled.
const LOOK_AHEAD: usize = 250_000;
/// Of one ordering key under way at once. So much comes again when the first message fails.
const KEY_BOUNDS: KeyBounds = KeyBounds { messages: 10_000, bytes: 32 << 20 };
/// See [`Machine::is_used`].
const USED: Duration = Duration::from_secs(10);

pub(crate) struct Subscription {
    pub number: u64,
    pub log: Arc<TopicState>,
    pub filter: Filter,
    /// Of the one tenant that it delivers; `None`: of all.
    pub lane: Option<u32>,
    /// Messages from here on are not for it: those after a replay was made.
    pub until: u64,
    /// When it was made, where that is known; milliseconds since the epoch.
    pub made_ms: i64,
    /// The scope of ordering keys where the topic does not set it.
    ordering: KeyScope,
    spec: RwLock<Arc<SubscriptionSpec>>,
    pub machine: Mutex<Machine>,
    /// One scan at a time.
    pub scanning: Mutex<()>,
    /// A scan in the background is under way.
    pub catching_up: AtomicBool,
    pub cache: Mutex<Cache>,
    /// One move to the dead letter at a time.
    pub burying: Mutex<()>,
    /// Woken when something may have become deliverable.
    pub ready: Notify,
    /// Counts changes of the settings.
    changes: watch::Sender<u64>,
    pub deleted: AtomicBool,
    /// It is on the list of those whose acknowledgements wait for the journal.
    pub queued: AtomicBool,
    hasher: ahash::RandomState,
}

pub(crate) struct Machine {
    pub state: State,
    /// Grows with each seek: what an older one acknowledged means nothing any more.
    pub generation: u32,
    /// Acknowledged, and not yet in the journal.
    pub pending: Vec<u64>,
    /// When a consumer last asked, by the monotonic clock.
    pub active_at: Duration,
    pub dead_lettered: u64,
    /// `None`: deliveries have no bound.
    pub rate: Option<Rate>,
}

impl Machine {
    /// Whether a consumer asked lately. What nobody asks for takes no room in the cache.
    pub fn is_used(&self, now: Duration) -> bool {
        now.saturating_sub(self.active_at) < USED
    }
}

impl Subscription {
    pub fn new(
        number: u64,
        spec: SubscriptionSpec,
        log: Arc<TopicState>,
        lane: Option<u32>,
        filter: Filter,
        start: Start,
        cache: Cache,
    ) -> Self {
        let state = State::new(rules(&spec), start.progress, start.first_ack_id);
        let machine = Machine {
            state,
            generation: start.generation,
            pending: Vec::new(),
            active_at: start.active_at,
            dead_lettered: 0,
            rate: spec.max_rate_per_s.map(Rate::new),
        };
        Self {
            number,
            made_ms: start.made_ms,
            ordering: start.ordering,
            until: spec.replay.as_ref().map_or(u64::MAX, |replay| replay.until),
            log,
            filter,
            lane,
            spec: RwLock::new(Arc::new(spec)),
            machine: Mutex::new(machine),
            scanning: Mutex::default(),
            catching_up: AtomicBool::new(false),
            cache: Mutex::new(cache),
            burying: Mutex::default(),
            ready: Notify::new(),
            changes: watch::Sender::new(0),
            deleted: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            hasher: ahash::RandomState::with_seeds(number, 1, 2, 3),
        }
    }

    pub fn spec(&self) -> Arc<SubscriptionSpec> {
        self.spec.read().clone()
    }

    /// Takes other settings and tells everybody who looks at them.
    pub fn set_spec(&self, spec: SubscriptionSpec) {
        let mut machine = self.machine.lock();
        machine.state.set_rules(rules(&spec));
        if machine.rate.as_ref().map(Rate::per_s) != spec.max_rate_per_s {
            machine.rate = spec.max_rate_per_s.map(Rate::new);
        }
        drop(machine);
        *self.spec.write() = Arc::new(spec);
        self.tell();
    }

    pub fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.cache.lock().clear();
        self.tell();
    }

    fn tell(&self) {
        self.changes.send_modify(|n| *n += 1);
        self.ready.notify_waiters();
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Among which messages a key keeps the order now.
    pub fn key_scope(&self) -> KeyScope {
        // Of one tenant's messages, and where there is no order, both are the same.
        if self.lane.is_some() || !self.spec.read().ordered {
            return KeyScope::Tenant;
        }
        self.log.ordering.lock().unwrap_or(self.ordering)
    }

    /// In which lane a message takes its turn, and the hash by which those of its ordering key go
    /// one after another.
    pub fn place(&self, scope: KeyScope, lane: u32, key: Option<&str>) -> (u32, u64) {
        let Some(key) = key else { return (lane, 0) };
        let lane = match scope {
            KeyScope::Tenant => lane,
            KeyScope::Global => SHARED_LANE,
        };
        (lane, self.hasher.hash_one((lane, key)).max(1))
    }

    /// Shares of tenants in delivery, by their lanes.
    pub fn set_weights(&self, weights: impl Iterator<Item = (u32, u32)>) {
        self.machine.lock().state.set_weights(weights);
    }
}

/// Where a subscription begins.
pub(crate) struct Start {
    pub progress: Progress,
    pub generation: u32,
    pub first_ack_id: u64,
    /// When a consumer last asked, by the monotonic clock.
    pub active_at: Duration,
    pub made_ms: i64,
    pub ordering: KeyScope,
}

fn rules(spec: &SubscriptionSpec) -> Rules {
    Rules {
        ordered: spec.ordered,
        key_bounds: KEY_BOUNDS,
        exactly_once: spec.exactly_once,
        ack_deadline: spec.ack_deadline,
        retry: spec.retry,
        max_attempts: spec.dead_letter.as_ref().map(|policy| policy.max_delivery_attempts),
        max_leased: MAX_LEASED,
        look_ahead: LOOK_AHEAD,
    }
}
