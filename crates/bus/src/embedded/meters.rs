//! The metrics of subscriptions, brought up to date by the upkeep.
//!
//! A label is the name of a subscription. So that users who make and delete subscriptions all
//! day cannot fill the memory of whoever collects the metrics, only the first [`MAX_LABELLED`]
//! names of a process have figures of their own; the others are counted together, and have no
//! figures by tenant.

mod lanes;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use levada_core::ResourceName;
use parking_lot::Mutex;

use self::lanes::Lanes;
use crate::embedded::Embedded;
use crate::embedded::subscription::Subscription;
use crate::metrics as names;

/// Names with figures of their own in the life of a process.
const MAX_LABELLED: usize = 2_000;
/// Names of tenants beside those of subscriptions, of all subscriptions together.
const MAX_LANES_LABELLED: usize = 20_000;
/// The label of all others; no subscription can be called so.
const OTHERS: &str = "others";
/// The upkeep comes more often than anybody looks at the figures.
const EVERY: Duration = Duration::from_secs(5);

/// Figures that only grow, since the program started.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    delivered: u64,
    redelivered: u64,
    acknowledged: u64,
    expired: u64,
    dead_lettered: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    backlog_messages: u64,
    oldest_unacked_s: f64,
    totals: Totals,
}

/// The metrics of one label.
struct Series {
    backlog: ::metrics::Gauge,
    oldest: ::metrics::Gauge,
    delivered: ::metrics::Counter,
    redelivered: ::metrics::Counter,
    acknowledged: ::metrics::Counter,
    expired: ::metrics::Counter,
    dead_lettered: ::metrics::Counter,
    lanes: Lanes,
    /// The subscription was there at the last look.
    live: bool,
}

impl Series {
    fn new(label: &str) -> Self {
        let gauge = |name: &'static str| ::metrics::gauge!(name, "subscription" => label.to_owned());
        let counter = |name: &'static str| ::metrics::counter!(name, "subscription" => label.to_owned());
        Self {
            backlog: gauge(names::SUBSCRIPTION_BACKLOG),
            oldest: gauge(names::SUBSCRIPTION_OLDEST),
            delivered: counter(names::SUBSCRIPTION_DELIVERED),
            redelivered: counter(names::SUBSCRIPTION_REDELIVERED),
            acknowledged: counter(names::SUBSCRIPTION_ACKNOWLEDGED),
            expired: counter(names::SUBSCRIPTION_EXPIRED),
            dead_lettered: counter(names::SUBSCRIPTION_DEAD_LETTERED),
            lanes: Lanes::new(label),
            live: true,
        }
    }

    fn stand(&self, backlog_messages: u64, oldest_unacked_s: f64) {
        self.backlog.set(backlog_messages as f64);
        self.oldest.set(oldest_unacked_s);
    }

    /// Adds what has come since `before`. A subscription that was made anew under the same
    /// name begins at zero; its counter goes on.
    fn grow(&self, before: &Totals, now: &Totals) {
        let add = |counter: &::metrics::Counter, before: u64, now: u64| {
            if now > before {
                counter.increment(now - before);
            }
        };
        add(&self.delivered, before.delivered, now.delivered);
        add(&self.redelivered, before.redelivered, now.redelivered);
        add(&self.acknowledged, before.acknowledged, now.acknowledged);
        add(&self.expired, before.expired, now.expired);
        add(&self.dead_lettered, before.dead_lettered, now.dead_lettered);
    }
}

#[derive(Default)]
pub(crate) struct Meters(Mutex<State>);

struct State {
    last: Option<Duration>,
    /// Names that may still get figures of their own.
    room: usize,
    lane_room: usize,
    series: BTreeMap<ResourceName, Series>,
    others: Option<Series>,
    /// What was counted already, by the number of the subscription.
    counted: HashMap<u64, Totals>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            last: None,
            room: MAX_LABELLED,
            lane_room: MAX_LANES_LABELLED,
            series: BTreeMap::new(),
            others: None,
            counted: HashMap::new(),
        }
    }
}

#[cfg(test)]
impl Meters {
    pub fn set_room(&self, room: usize) {
        self.0.lock().room = room;
    }
}

impl Embedded {
    /// Brings the metrics up to date when it is time to. Reads at most one record a subscription.
    pub fn meter(&self) {
        let now = self.now();
        let mut state = self.meters.0.lock();
        if state.last.is_some_and(|last| now.at.saturating_sub(last) < EVERY) {
            return;
        }
        state.last = Some(now.at);
        let all: Vec<_> = {
            let catalog = self.catalog.read();
            catalog.subscriptions.iter().map(|(name, s)| (name.clone(), s.clone())).collect()
        };
        let State { room, lane_room, series, others, counted, .. } = &mut *state;
        series.values_mut().for_each(|s| s.live = false);
        let before = std::mem::take(counted);
        let (mut rest_backlog, mut rest_oldest_s) = (0, 0.0_f64);
        for (name, subscription) in all {
            let figures = self.figures(&subscription, now.wall_ms);
            let grown = before.get(&subscription.number).copied().unwrap_or_default();
            counted.insert(subscription.number, figures.totals);
            if *room > 0 && !series.contains_key(&name) {
                *room -= 1;
                series.insert(name.clone(), Series::new(&name.to_string()));
            }
            match series.get_mut(&name) {
                Some(own) => {
                    own.live = true;
                    own.stand(figures.backlog_messages, figures.oldest_unacked_s);
                    own.grow(&grown, &figures.totals);
                    self.meter_lanes(&subscription, &mut own.lanes, figures.totals.delivered, lane_room);
                }
                None => {
                    rest_backlog += figures.backlog_messages;
                    rest_oldest_s = rest_oldest_s.max(figures.oldest_unacked_s);
                    others.get_or_insert_with(|| Series::new(OTHERS)).grow(&grown, &figures.totals);
                }
            }
        }
        // Nothing waits in what was deleted.
        for gone in series.values_mut().filter(|s| !s.live) {
            gone.stand(0, 0.0);
            gone.lanes.rest();
        }
        if let Some(others) = others {
            others.stand(rest_backlog, rest_oldest_s);
        }
    }

    /// Looks at the tenants of a subscription that delivers; one that rests costs nothing.
    fn meter_lanes(&self, subscription: &Subscription, lanes: &mut Lanes, delivered: u64, room: &mut usize) {
        if !lanes.is_due(subscription.number, delivered) {
            return;
        }
        let (delivered, bytes): (u64, BTreeMap<u32, u64>) = {
            let machine = subscription.machine.lock();
            let by_lane = machine.state.by_lane().map(|(lane, (_, bytes))| (lane, bytes));
            (machine.state.counts().delivered, by_lane.collect())
        };
        let tenant_of = |lane| self.bus.inner.log.lane_name(lane);
        lanes.look(subscription.number, delivered, &bytes, tenant_of, room);
    }

    fn figures(&self, subscription: &Subscription, now_ms: i64) -> Figures {
        let end = self.end_for(subscription);
        let (totals, backlog_messages, floor) = {
            let machine = subscription.machine.lock();
            let (state, counts) = (&machine.state, machine.state.counts());
            let totals = Totals {
                delivered: counts.delivered,
                redelivered: counts.redelivered,
                acknowledged: counts.acknowledged,
                expired: counts.expired,
                dead_lettered: machine.dead_lettered,
            };
            let unscanned = end.saturating_sub(state.scan_position());
            (totals, state.known_backlog() + unscanned, state.settled().floor())
        };
        let oldest_ms = self.oldest_unacked_ms(subscription, floor, end).filter(|_| backlog_messages > 0);
        let age_ms = oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest).max(0));
        Figures { backlog_messages, oldest_unacked_s: age_ms as f64 / 1000.0, totals }
    }

    /// When the first message at or after `floor` was published.
    pub fn oldest_unacked_ms(&self, subscription: &Subscription, floor: u64, end: u64) -> Option<i64> {
        if floor >= end {
            return None;
        }
        let records = self.bus.inner.log.read(subscription.log.id, floor, 1, 1).ok()?;
        // What readers cannot see yet was published just now.
        Some(records.first().map_or_else(|| self.bus.inner.clock.now_ms(), |record| record.timestamp_ms))
    }
}
