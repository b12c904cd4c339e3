//! Traced deliveries of one subscription that are not settled yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use levada_bus::port::{AckId, Received};
use levada_core::{ResourceName, attr};
use parking_lot::Mutex;

use crate::context::{self, SpanId, TraceId};
use crate::metrics::Reason;
use crate::publish::{SYSTEM, of_message};
use crate::span::{Kind, Span, Value};
use crate::tracer::Tracer;

/// A lease is taken for over so long after its deadline: until then a late acknowledgement may
/// still count.
const GRACE: Duration = Duration::from_secs(1);

/// How many more deliveries may be open.
pub struct Room(AtomicUsize);

impl Room {
    pub fn new(deliveries: usize) -> Self {
        Self(AtomicUsize::new(deliveries))
    }

    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1)).is_ok()
    }

    fn give_back(&self, deliveries: usize) {
        self.0.fetch_add(deliveries, Ordering::Relaxed);
    }
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Acked,
    Nacked,
    Expired,
}

/// A span that has begun.
struct OpenSpan {
    span: Span,
    /// Of the steady clock.
    deadline: Duration,
}

/// See the module.
pub struct Leases {
    name: Arc<str>,
    span_name: Arc<str>,
    room: Arc<Room>,
    open: Mutex<HashMap<AckId, OpenSpan, ahash::RandomState>>,
    /// How many there are, so that a call about others need not take the lock.
    count: AtomicUsize,
}

impl Leases {
    pub fn new(name: &ResourceName, room: Arc<Room>) -> Self {
        let name = name.to_string();
        Self {
            span_name: format!("process {name}").into(),
            name: name.into(),
            room,
            open: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Begins spans for what was delivered just now. `topic` is empty where it is gone.
    pub fn delivered(&self, tracer: &Tracer, topic: &Arc<str>, received: &[Received], lease: Duration) {
        let mut begun = Vec::new();
        let now_ns = tracer.now_ns();
        for delivery in received {
            let parent = context::parent_of(&delivery.message.attributes);
            let trace = context::trace_of(&delivery.message, parent.as_ref())
                .unwrap_or_else(|| TraceId::of_message(topic, delivery.message_id));
            if !tracer.sampler().samples(trace, parent.map(|p| p.sampled)) {
                continue;
            }
            if !self.room.take() {
                tracer.drops().add(Reason::TooManyOpen, 1);
                continue;
            }
            let above =
                context::publish_span_of(&delivery.message, parent.as_ref(), topic, delivery.message_id);
            begun.push((delivery.ack_id, self.begin(trace, above, topic, delivery, now_ns)));
        }
        if begun.is_empty() {
            return;
        }
        let deadline = tracer.monotonic() + lease;
        let mut open = self.open.lock();
        for (ack_id, span) in begun {
            if open.insert(ack_id, OpenSpan { span, deadline }).is_some() {
                // The subscription was made anew and counts its leases from the beginning.
                self.room.give_back(1);
            }
        }
        self.count.store(open.len(), Ordering::Relaxed);
    }

    fn begin(
        &self,
        trace: TraceId,
        parent: Option<SpanId>,
        topic: &Arc<str>,
        delivery: &Received,
        start_ns: u64,
    ) -> Span {
        let message = &delivery.message;
        let mut attributes: Vec<(&'static str, Value)> = vec![
            ("messaging.system", SYSTEM.into()),
            ("messaging.operation.name", "process".into()),
            ("messaging.operation.type", "process".into()),
            ("messaging.destination.name", topic.into()),
            ("messaging.destination.subscription.name", (&self.name).into()),
            ("messaging.message.id", delivery.message_id.to_string().into()),
            ("messaging.message.body.size", message.body.len().into()),
            ("levada.delivery_attempt", u64::from(delivery.delivery_attempt).into()),
        ];
        let (correlation_id, event_type) =
            (message.attributes.get(attr::CORRELATION_ID), message.attributes.get(attr::EVENT_TYPE));
        attributes.extend(of_message(&message.tenant, correlation_id, event_type));
        if let Some(key) = &message.ordering_key {
            attributes.push(("levada.ordering_key", (&**key).into()));
        }
        let (id, at) = (delivery.message_id.to_le_bytes(), start_ns.to_le_bytes());
        Span {
            trace,
            id: SpanId::of("delivery", &[self.name.as_bytes(), &id, &delivery.ack_id.0.to_le_bytes(), &at]),
            parent,
            link: None,
            state: context::state_of(&message.attributes).into(),
            name: self.span_name.clone(),
            kind: Kind::Consumer,
            start_ns,
            end_ns: start_ns,
            attributes,
            failure: None,
        }
    }

    /// Ends the spans of deliveries that were settled.
    pub fn settle(&self, tracer: &Tracer, ended: impl Iterator<Item = (AckId, End)>) {
        let now_ns = tracer.now_ns();
        let mut spans = Vec::new();
        {
            let mut open = self.open.lock();
            for (ack_id, end) in ended {
                spans.extend(open.remove(&ack_id).map(|open| (open.span, end)));
            }
            self.count.store(open.len(), Ordering::Relaxed);
        }
        self.room.give_back(spans.len());
        spans.into_iter().for_each(|(span, end)| tracer.emit(finished(span, end, now_ns)));
    }

    /// Moves deadlines to that long from now.
    pub fn extend(&self, tracer: &Tracer, leases: impl Iterator<Item = (AckId, Duration)>) {
        let now = tracer.monotonic();
        let mut open = self.open.lock();
        for (ack_id, lease) in leases {
            if let Some(open) = open.get_mut(&ack_id) {
                open.deadline = now + lease;
            }
        }
    }

    /// Ends the spans of leases whose time is over.
    pub fn sweep(&self, tracer: &Tracer) {
        if self.is_empty() {
            return;
        }
        let (now, now_ns) = (tracer.monotonic(), tracer.now_ns());
        let over: Vec<OpenSpan> = {
            let mut open = self.open.lock();
            let over = open.extract_if(|_, open| now > open.deadline + GRACE).map(|(_, open)| open).collect();
            self.count.store(open.len(), Ordering::Relaxed);
            over
        };
        self.room.give_back(over.len());
        for OpenSpan { span, deadline } in over {
            let past_ns = u64::try_from((now - deadline).as_nanos()).unwrap_or(0);
            tracer.emit(finished(span, End::Expired, now_ns.saturating_sub(past_ns)));
        }
    }
}

fn finished(mut span: Span, end: End, end_ns: u64) -> Span {
    let (outcome, failure) = match end {
        End::Acked => ("acked", None),
        End::Nacked => ("nacked", Some("the consumer gave the message back")),
        End::Expired => ("expired", Some("the lease ended without an acknowledgement")),
    };
    span.end_ns = end_ns;
    span.attributes.push(("levada.outcome", outcome.into()));
    if let Some(failure) = failure {
        span.attributes.push(("error.type", outcome.into()));
        span.failure = Some(failure.into());
    }
    span
}
