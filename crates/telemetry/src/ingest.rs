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
        messages: impl ExactSizeIterator<Item = &'m levada_core::Message>,
    ) -> Option<PublishTrace> {
        let topic = format_args!("{}/{topic}", self.ingest.home);
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

#[cfg(test)]
mod tests {
    use levada_core::{Message, attr};
    use tokio::sync::mpsc;

    use super::*;
    use crate::context::{parent_of, publish_span_of};
    use crate::sampler::Sampler;
    use crate::tracer::tests::caught;

    const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

    fn gateway() -> (Ingest, mpsc::Receiver<Span>) {
        let (tracer, spans, ..) = caught(Sampler::default(), 10);
        (Ingest::new(tracer, ProjectId::new("shop").unwrap()), spans)
    }

    fn message(traceparent: &str) -> Message {
        Message {
            tenant: TenantId::new("acme").unwrap(),
            attributes: [(attr::EVENT_ID, "e1"), (attr::TRACEPARENT, traceparent)].into_iter().collect(),
            ordering_key: None,
            body: bytes::Bytes::new(),
        }
    }

    fn published(request: &RequestTrace, message: &Message, outcome: Outcome<'_>) {
        let topic = TopicName::new("orders").unwrap();
        let trace = request.publish(&topic, std::iter::once(message)).unwrap();
        trace.finish(std::iter::once(outcome));
    }

    #[test]
    fn an_event_is_below_its_request_and_its_delivery_below_the_event() {
        let (ingest, mut spans) = gateway();
        let request = ingest.request(OWN, Some(CLIENT)).unwrap();
        let tenant = TenantId::new("acme").unwrap();
        let message = message(&request.traceparent(&tenant, Some("order-7"), "e1"));
        published(&request, &message, Outcome::Kept(7));
        request.answered("POST", "/v1/events", 202);
        let (publish, server) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
        assert_eq!(
            (server.trace.to_string(), server.id.to_string()),
            (OWN[3..35].into(), OWN[36..52].into())
        );
        assert_eq!(server.parent.unwrap().to_string(), CLIENT[36..52]);
        assert_eq!((publish.trace, publish.parent, publish.link), (server.trace, Some(server.id), None));
        let parent = parent_of(&message.attributes);
        assert_eq!(publish_span_of(&message, parent.as_ref(), "shop/orders", 7), Some(publish.id));
    }

    #[test]
    fn without_a_clients_trace_it_is_the_correlations_linked_to_the_request() {
        let (ingest, mut spans) = gateway();
        let request = ingest.request(OWN, None).unwrap();
        let tenant = TenantId::new("acme").unwrap();
        let message = message(&request.traceparent(&tenant, Some("order-7"), "e1"));
        published(&request, &message, Outcome::Kept(7));
        let publish = spans.try_recv().unwrap();
        assert_eq!((publish.trace, publish.parent), (TraceId::of_correlation(&tenant, "order-7"), None));
        assert_eq!(publish.link, Some((request.trace, request.span)));
        assert_eq!(&*publish.name, "publish shop/orders");
        // A duplicate is another span than the publish that it repeats.
        published(&request, &message, Outcome::Duplicate(7));
        let duplicate = spans.try_recv().unwrap();
        assert_eq!(duplicate.trace, publish.trace);
        assert_ne!(duplicate.id, publish.id);
    }

    #[test]
    fn the_context_that_the_sender_gave_stays_the_parent() {
        let (ingest, mut spans) = gateway();
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        published(&ingest.request(OWN, None).unwrap(), &message(sent), Outcome::Failed("tenant-mismatch"));
        let publish = spans.try_recv().unwrap();
        assert_eq!(publish.trace.to_string(), sent[3..35]);
        assert_eq!(publish.parent.unwrap().to_string(), sent[36..52]);
        assert_eq!(publish.failure.as_deref(), Some("tenant-mismatch"));
        let unsampled =
            ingest.request(&OWN.replace("-01", "-00"), Some(&CLIENT.replace("-01", "-00"))).unwrap();
        unsampled.answered("POST", "/v1/events", 500);
        assert!(spans.try_recv().is_err(), "as the client wishes");
    }
}
