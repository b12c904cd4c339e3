//! Traces of events that come in by the gateway, which publishes past the port.

use levada_core::{ProjectId, TenantId, TopicName};

use crate::context::{SpanId, TraceId, TraceParent};
pub use crate::publish::Outcome;
use crate::publish::{Cause, Drafts};
use crate::span::{Kind, Span};
use crate::tracer::Tracer;

/// Makes the spans of the gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    tracer: Tracer,
    /// The project whose topics the gateway publishes to.
    home: ProjectId,
}

/// One request, as it is traced.
#[derive(Debug, Clone)]
pub struct RequestTrace {
    ingest: Ingest,
    trace: TraceId,
    span: SpanId,
    /// The client's span, where it sent one.
    parent: Option<SpanId>,
    sampled: bool,
    start_ns: u64,
}

impl Ingest {
    pub fn new(tracer: Tracer, home: ProjectId) -> Self {
        Self { tracer, home }
    }

    /// Begins a request. `own` is the server's context of it, `client` what the client sent.
    /// `None` where `own` is no trace context.
    pub fn request(&self, own: &str, client: Option<&str>) -> Option<RequestTrace> {
        let own = TraceParent::parse(own)?;
        let client = client.and_then(TraceParent::parse);
        Some(RequestTrace {
            trace: own.trace,
            span: own.span,
            parent: client.map(|client| client.span),
            sampled: self.tracer.sampler().samples(own.trace, client.map(|client| client.sampled)),
            start_ns: self.tracer.now_ns(),
            ingest: self.clone(),
        })
    }
}

impl RequestTrace {
    /// The `traceparent` of an event that brings none: the context of its publish. The event is
    /// of the client's trace; where there is none, of its correlation id's.
    pub fn traceparent(&self, tenant: &TenantId, correlation_id: Option<&str>, event_id: &str) -> String {
        let (trace, sampled) = match (self.parent, correlation_id) {
            (None, Some(correlation_id)) => {
                let trace = TraceId::of_correlation(tenant, correlation_id);
                (trace, self.ingest.tracer.sampler().samples(trace, None))
            }
            _ => (self.trace, self.sampled),
        };
        TraceParent { trace, span: SpanId::of_event(trace, tenant, event_id), sampled }.to_string()
    }

    /// Begins the publish of events to a topic; `None`: none of them is sampled.
    pub fn publish<'m>(
        &self,
        topic: &TopicName,
        messages: impl Iterator<Item = &'m levada_core::Message>,
    ) -> Option<PublishTrace> {
        let topic = format!("{}/{topic}", self.ingest.home);
        let cause = self.sampled.then_some(Cause { trace: self.trace, span: self.span });
        let drafts = Drafts::of(&self.ingest.tracer, &topic, messages, cause)?;
        Some(PublishTrace { tracer: self.ingest.tracer.clone(), drafts })
    }

    /// The answer is about to be sent.
    pub fn answered(self, method: &'static str, route: &'static str, status: u16) {
        if !self.sampled {
            return;
        }
        let tracer = self.ingest.tracer;
        let is_failed = status >= 500;
        let mut attributes = vec![
            ("http.request.method", method.into()),
            ("http.route", route.into()),
            ("http.response.status_code", u64::from(status).into()),
        ];
        if is_failed {
            attributes.push(("error.type", status.to_string().into()));
        }
        tracer.emit(Span {
            trace: self.trace,
            id: self.span,
            parent: self.parent,
            link: None,
            state: Box::default(),
            name: format!("{method} {route}").into(),
            kind: Kind::Server,
            start_ns: self.start_ns,
            end_ns: tracer.now_ns(),
            attributes,
            failure: is_failed.then(Box::default),
        });
    }
}

/// A publish of the gateway that has begun.
pub struct PublishTrace {
    tracer: Tracer,
    drafts: Drafts,
}

impl PublishTrace {
    /// The outcomes are in the order of the messages.
    pub fn finish<'a>(self, outcomes: impl Iterator<Item = Outcome<'a>>) {
        self.drafts.finish(&self.tracer, outcomes);
    }
}
