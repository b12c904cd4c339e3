//! Who gets what of a subscription: bytes delivered to each tenant, and each one's share.
//!
//! With thousands of tenants a subscription not all can have figures of their own. At each look
//! the largest get a name that they keep; all others are one. What was counted for a tenant as
//! one of the others stays there, so that the sum over all names is what was delivered.

use std::collections::BTreeMap;

use levada_core::TenantId;

use crate::embedded::meters::OTHERS;
use crate::metrics as names;

/// The largest at a look get a name.
const LARGEST: usize = 20;
/// Names of one subscription in the life of a process: the largest may change.
const MAX_NAMES: usize = 2 * LARGEST;

/// The metrics of one name.
struct Lane {
    bytes: ::metrics::Counter,
    share: ::metrics::Gauge,
    /// As of the last look.
    seen_bytes: u64,
}

impl Lane {
    fn new(subscription: &str, tenant: &str, seen_bytes: u64) -> Self {
        let labels = [("subscription", subscription.to_owned()), ("tenant", tenant.to_owned())];
        Self {
            bytes: ::metrics::counter!(names::LANE_DELIVERED_BYTES, &labels),
            share: ::metrics::gauge!(names::LANE_SHARE, &labels),
            seen_bytes,
        }
    }

    fn grow(&self, by_bytes: u64, of_bytes: u64) {
        self.bytes.increment(by_bytes);
        self.share.set(by_bytes as f64 / of_bytes.max(1) as f64);
    }
}

/// The lanes of one subscription.
pub struct Lanes {
    subscription: String,
    /// Of the subscription: one that was made anew by the name begins at zero.
    number: u64,
    /// Deliveries as of the last look.
    delivered: u64,
    seen_bytes: u64,
    named: BTreeMap<u32, Lane>,
    others: Option<Lane>,
    /// No lane was without a name at the last look.
    is_complete: bool,
    /// Something was delivered between the last two looks.
    is_active: bool,
}

impl Lanes {
    pub fn new(subscription: &str) -> Self {
        Self {
            subscription: subscription.to_owned(),
            number: 0,
            delivered: 0,
            seen_bytes: 0,
            named: BTreeMap::new(),
            others: None,
            is_complete: true,
            is_active: false,
        }
    }

    /// Whether another look would change anything.
    pub fn is_due(&self, number: u64, delivered: u64) -> bool {
        self.is_active || (self.number, self.delivered) != (number, delivered)
    }

    /// `lanes`: all bytes that were ever delivered to each. `room`: names that may still be given
    /// in the life of the process.
    pub fn look(
        &mut self,
        number: u64,
        delivered: u64,
        lanes: &BTreeMap<u32, u64>,
        tenant_of: impl Fn(u32) -> Option<TenantId>,
        room: &mut usize,
    ) {
        if self.number != number {
            self.number = number;
            self.seen_bytes = 0;
            self.is_complete = true;
            self.named.values_mut().for_each(|lane| lane.seen_bytes = 0);
        }
        self.delivered = delivered;
        self.name_the_largest(lanes, tenant_of, room);
        let all_bytes: u64 = lanes.values().sum();
        let grown_bytes = all_bytes.saturating_sub(self.seen_bytes);
        let mut rest_bytes = grown_bytes;
        for (number, lane) in &mut self.named {
            let now_bytes = lanes.get(number).copied().unwrap_or(0);
            let by_bytes = now_bytes.saturating_sub(lane.seen_bytes);
            lane.grow(by_bytes, grown_bytes);
            lane.seen_bytes = now_bytes;
            rest_bytes = rest_bytes.saturating_sub(by_bytes);
        }
        if rest_bytes > 0 && self.others.is_none() {
            self.others = Some(Lane::new(&self.subscription, OTHERS, 0));
        }
        if let Some(others) = &self.others {
            others.grow(rest_bytes, grown_bytes);
        }
        self.seen_bytes = all_bytes;
        self.is_complete = lanes.keys().all(|lane| self.named.contains_key(lane));
        self.is_active = grown_bytes > 0;
    }

    /// Nothing more is delivered.
    pub fn rest(&mut self) {
        if std::mem::take(&mut self.is_active) {
            self.named.values().chain(&self.others).for_each(|lane| lane.share.set(0.0));
        }
    }

    fn name_the_largest(
        &mut self,
        lanes: &BTreeMap<u32, u64>,
        tenant_of: impl Fn(u32) -> Option<TenantId>,
        room: &mut usize,
    ) {
        if self.named.len() >= MAX_NAMES || *room == 0 {
            return;
        }
        let mut largest: Vec<(u64, u32)> = lanes.iter().map(|(lane, bytes)| (*bytes, *lane)).collect();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        for (bytes, lane) in largest.into_iter().take(LARGEST) {
            if self.named.len() >= MAX_NAMES || *room == 0 {
                return;
            }
            if self.named.contains_key(&lane) {
                continue;
            }
            let Some(tenant) = tenant_of(lane) else { continue };
            *room -= 1;
            // Where some had no name, this one was counted with them so far.
            let seen_bytes = if self.is_complete { 0 } else { bytes };
            self.named.insert(lane, Lane::new(&self.subscription, tenant.as_str(), seen_bytes));
        }
    }
}
