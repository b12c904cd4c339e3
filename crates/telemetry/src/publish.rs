//! The span of a publish: drafted before it, finished when the bus has answered.

use std::sync::Arc;

use levada_core::{Message, Problem, TenantId, attr};

use crate::context::{self, SpanId, TraceId, TraceParent};
use crate::span::{Kind, Span, Value};
use crate::tracer::Tracer;

pub const SYSTEM: &str = "levada";

/// What is known of a sampled message before it has a place.
struct Draft {
    parent: Option<TraceParent>,
    /// `None`: the message tells nothing, its place will.
    trace: Option<TraceId>,
    /// The message holds the context of its own publish span.
    is_own: bool,
    state: Box<str>,
    tenant: TenantId,
    correlation_id: Option<Box<str>>,
    event_type: Option<Box<str>>,
    ordering_key: Option<Box<str>>,
    body_bytes: usize,
}

/// Where the request stands that messages come in by.
#[derive(Debug, Clone, Copy)]
pub struct Cause {
    pub trace: TraceId,
    pub span: SpanId,
}

/// The drafts of one publish.
pub struct Drafts {
    topic: Arc<str>,
    start_ns: u64,
    /// Of the messages that are sampled, with their places in the publish.
    drafts: Vec<(usize, Draft)>,
    /// All messages of the publish.
    messages: usize,
    cause: Option<Cause>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// Kept under that id.
    Kept(u64),
    /// An earlier publish of it is kept under that id.
    Duplicate(u64),
    /// With what stands as the error's type.
    Failed(&'a str),
}

impl<'a> From<&'a Result<u64, Problem>> for Outcome<'a> {
    fn from(result: &'a Result<u64, Problem>) -> Self {
        match result {
            Ok(id) => Self::Kept(*id),
            Err(problem) => Self::Failed(&problem.code),
        }
    }
}

impl Drafts {
    /// `None` where no message is sampled: nothing was allocated, and nothing is to be finished.
    pub fn of<'m>(
        tracer: &Tracer,
        topic: &impl std::fmt::Display,
        messages: impl ExactSizeIterator<Item = &'m Message>,
        cause: Option<Cause>,
    ) -> Option<Self> {
        let count = messages.len();
        let sampled = messages.enumerate().filter_map(|(at, message)| Some((at, draft(tracer, message)?)));
        let drafts: Vec<(usize, Draft)> = sampled.collect();
        if drafts.is_empty() {
            return None;
        }
        let (topic, start_ns) = (topic.to_string().into(), tracer.now_ns());
        Some(Self { topic, start_ns, drafts, messages: count, cause })
    }

    /// Hands the spans over. The outcomes are in the order of the messages.
    pub fn finish<'a>(self, tracer: &Tracer, outcomes: impl Iterator<Item = Outcome<'a>>) {
        let (name, end_ns): (Arc<str>, u64) = (format!("publish {}", self.topic).into(), tracer.now_ns());
        let mut drafts = self.drafts.iter().peekable();
        for (at, outcome) in outcomes.enumerate() {
            let Some((_, draft)) = drafts.next_if(|(place, _)| *place == at) else { continue };
            let (trace, id) = self.ids(draft, at, outcome, end_ns);
            if draft.trace.is_none() && !tracer.sampler().samples(trace, None) {
                continue;
            }
            let (here, elsewhere) = match self.cause {
                Some(cause) if cause.trace == trace => (Some(cause.span), None),
                Some(cause) => (None, Some((cause.trace, cause.span))),
                None => (None, None),
            };
            let brought = draft.parent.filter(|_| !draft.is_own).map(|parent| parent.span);
            tracer.emit(Span {
                trace,
                id,
                parent: brought.or(here),
                link: elsewhere,
                state: draft.state.clone(),
                name: name.clone(),
                kind: Kind::Producer,
                start_ns: self.start_ns,
                end_ns,
                attributes: attributes(draft, &self.topic, self.messages, outcome),
                failure: match outcome {
                    Outcome::Failed(code) => Some(code.into()),
                    Outcome::Kept(_) | Outcome::Duplicate(_) => None,
                },
            });
        }
    }

    /// What got a place has ids that its deliveries find again; nobody asks for those of the rest.
    fn ids(&self, draft: &Draft, at: usize, outcome: Outcome<'_>, end_ns: u64) -> (TraceId, SpanId) {
        let lone =
            [self.topic.as_bytes(), &self.start_ns.to_le_bytes(), &end_ns.to_le_bytes(), &at.to_le_bytes()];
        let place = match outcome {
            Outcome::Kept(id) => Some(id),
            Outcome::Duplicate(_) | Outcome::Failed(_) => None,
        };
        let trace = match (draft.trace, place) {
            (Some(trace), _) => trace,
            (None, Some(id)) => TraceId::of_message(&self.topic, id),
            (None, None) => TraceId::of("lone", &lone),
        };
        let span = match (place, draft.parent.filter(|_| draft.is_own)) {
            (Some(_), Some(own)) => own.span,
            (Some(id), None) => SpanId::of_publish(&self.topic, id),
            (None, _) => SpanId::of("lone", &lone),
        };
        (trace, span)
    }

    /// Finishes a publish that failed as a whole.
    pub fn fail(self, tracer: &Tracer, error_type: &str) {
        let count = self.messages;
        self.finish(tracer, std::iter::repeat_n(Outcome::Failed(error_type), count));
    }
}

fn draft(tracer: &Tracer, message: &Message) -> Option<Draft> {
    let parent = context::parent_of(&message.attributes);
    let trace = context::trace_of(message, parent.as_ref());
    let sampler = tracer.sampler();
    let is_sampled = match trace {
        Some(trace) => sampler.samples(trace, parent.map(|p| p.sampled)),
        None => !sampler.is_quiet(),
    };
    if !is_sampled {
        return None;
    }
    let text = |name| message.attributes.get(name).map(Box::from);
    Some(Draft {
        parent,
        trace,
        is_own: parent.is_some_and(|parent| context::is_publish_of(&parent, message)),
        state: context::state_of(&message.attributes).into(),
        tenant: message.tenant.clone(),
        correlation_id: text(attr::CORRELATION_ID),
        event_type: text(attr::EVENT_TYPE),
        ordering_key: message.ordering_key.clone(),
        body_bytes: message.body.len(),
    })
}

fn attributes(
    draft: &Draft,
    topic: &Arc<str>,
    count: usize,
    outcome: Outcome<'_>,
) -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("messaging.system", SYSTEM.into()),
        ("messaging.operation.name", "publish".into()),
        ("messaging.operation.type", "send".into()),
        ("messaging.destination.name", topic.into()),
        ("messaging.message.body.size", draft.body_bytes.into()),
    ];
    all.extend(of_message(&draft.tenant, draft.correlation_id.as_deref(), draft.event_type.as_deref()));
    if count > 1 {
        all.push(("messaging.batch.message_count", count.into()));
    }
    if let Some(key) = &draft.ordering_key {
        all.push(("levada.ordering_key", (&**key).into()));
    }
    match outcome {
        Outcome::Kept(id) => all.push(("messaging.message.id", id.to_string().into())),
        Outcome::Duplicate(id) => {
            all.push(("messaging.message.id", id.to_string().into()));
            all.push(("levada.duplicate", Value::Bool(true)));
        }
        Outcome::Failed(code) => all.push(("error.type", code.into())),
    }
    all
}

/// Whose message it is and what it belongs to.
pub fn of_message(
    tenant: &TenantId,
    correlation_id: Option<&str>,
    event_type: Option<&str>,
) -> impl Iterator<Item = (&'static str, Value)> {
    let correlation = correlation_id.into_iter().flat_map(|id| {
        // The name of the messaging conventions, and ours, which is the name of the attribute.
        [("messaging.message.conversation_id", id.into()), ("levada.correlation_id", id.into())]
    });
    let event_type = event_type.map(|event_type| ("levada.event_type", event_type.into()));
    let all: Vec<_> = [("levada.tenant_id", tenant.as_str().into())]
        .into_iter()
        .chain(correlation)
        .chain(event_type)
        .collect();
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;
    use crate::sampler::{Root, Sampler};
    use crate::tracer::tests::caught;

    /// What a message costs on its way in while it is not sampled. Run with `--release`,
    /// `--ignored` and `--nocapture`.
    #[test]
    #[ignore = "prints figures"]
    fn overhead_of_what_is_not_sampled() {
        const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let attributes = [
            (attr::TENANT_ID, "acme"),
            (attr::EVENT_ID, "0192f0c1-6a5e-7000-8000-000000000000"),
            (attr::EVENT_TYPE, "order.created"),
            (attr::SCHEMA_VERSION, "1"),
            (attr::TIMESTAMP, "2026-11-21T10:00:00.000Z"),
            (attr::SOURCE_SERVICE, "shop"),
            (attr::CORRELATION_ID, "order-7"),
        ];
        let with_parent = attributes.into_iter().chain([(attr::TRACEPARENT, PARENT)]);
        let cases = [
            ("parent not sampled", Sampler::default(), with_parent.collect()),
            ("off by correlation id", Sampler::new(Root::Never), attributes.into_iter().collect()),
            (
                "ratio 0.0001 by correlation id",
                Sampler::new(Root::Ratio(0.0001)),
                attributes.into_iter().collect(),
            ),
        ];
        for (name, sampler, attributes) in cases {
            let (tracer, _spans, ..) = caught(sampler, 10);
            let tenant = TenantId::new("acme").unwrap();
            let message = Message { tenant, attributes, ordering_key: None, body: bytes::Bytes::new() };
            let (rounds, start) = (1_000_000_u32, Instant::now());
            for _ in 0..rounds {
                black_box(draft(&tracer, black_box(&message)));
            }
            println!("{name}: {} ns a message", start.elapsed().as_nanos() / u128::from(rounds));
        }
    }
}
