//! From an envelope to a message: whose it is, where it goes, what it is called.
//!
//! One [`Admission`] serves one request. A batch mostly names one tenant and a few event
//! types, so what was resolved once is remembered for the rest of the batch.

use bytes::Bytes;
use levada_bus::Publish;
use levada_core::{Attributes, Message, Principal, Problem, TenantContext, TenantId, TopicName, attr};
use levada_telemetry::RequestTrace;

use super::envelope::{Envelope, Payload, check_time, invalid};
use crate::layers::context::RequestContext;
use crate::state::AppState;
use crate::{auth, routing::Route};

const REMEMBERED_ROUTES: usize = 16;

/// What one request knows for all of its events.
pub struct Admission<'a> {
    pub state: &'a AppState,
    pub principal: &'a Principal,
    pub request: &'a RequestContext,
    /// `None`: the request is not traced.
    pub trace: Option<&'a RequestTrace>,
    /// Topic of the query string, for events that name none.
    pub topic: Option<&'a str>,
    /// The `Idempotency-Key` header, on a request of one event.
    pub idempotency_key: Option<&'a str>,
    now: String,
    tenants: Vec<TenantContext>,
    routes: Vec<Remembered>,
}

struct Remembered {
    event_type: String,
    tenant: TenantId,
    explicit: Option<String>,
    topic: TopicName,
}

impl<'a> Admission<'a> {
    pub fn new(
        state: &'a AppState,
        principal: &'a Principal,
        request: &'a RequestContext,
        trace: Option<&'a RequestTrace>,
    ) -> Self {
        let now = chrono::DateTime::from_timestamp_millis(state.clock.now_ms()).unwrap_or_default();
        Self {
            state,
            principal,
            request,
            trace,
            topic: None,
            idempotency_key: None,
            now: now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            tenants: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// Checks one event and makes the message of it. `body` is what the envelope borrows from.
    ///
    /// # Errors
    /// The problem of this event alone.
    pub fn admit(&mut self, envelope: Envelope<'_>, body: &Bytes) -> Result<(TopicName, Publish), Problem> {
        let context = self.tenant(envelope.tenant_id.as_deref())?;
        let event_type = envelope.event_type.as_deref().ok_or_else(|| {
            invalid("field-missing", "the event has no `event_type`".into())
                .hint("name what happened, such as `order.created`")
        })?;
        if let Some(timestamp) = &envelope.timestamp {
            check_time("timestamp", timestamp)?;
        }
        if let Some(traceparent) = &envelope.traceparent
            && !RequestContext::is_traceparent(traceparent)
        {
            return Err(invalid("field-invalid", "`traceparent` is no W3C trace context".into()));
        }
        let topic = self.route(event_type, context.tenant(), envelope.topic.as_deref())?;
        let idempotency_key = self.idempotency_key(&envelope, event_type, context.tenant())?;
        let attributes = self.attributes(&envelope, event_type, context.tenant(), idempotency_key.as_deref());
        let message = Message {
            tenant: context.tenant().clone(),
            attributes,
            ordering_key: envelope.ordering_key.map(Box::from),
            body: match envelope.payload {
                Payload::Slice(slice) if slice == b"null" => Bytes::from_static(b"null"),
                Payload::Slice(slice) => body.slice_ref(slice),
                Payload::Owned(bytes) => bytes.into(),
                Payload::Missing => {
                    return Err(invalid("payload-missing", "the event has no `payload`".into()));
                }
            },
        };
        Ok((topic, Publish { context, message, idempotency_key }))
    }

    /// The tenant that the event names, else the only one of the caller.
    fn tenant(&mut self, named: Option<&str>) -> Result<TenantContext, Problem> {
        let single = self.principal.tenants.single();
        let name = named.or(single.map(TenantId::as_str)).ok_or_else(|| {
            Problem::new(
                422,
                "tenant-required",
                "this credential may act for several tenants, and the event names none",
            )
            .hint("send `tenant_id` in the event or the X-Tenant-ID header")
        })?;
        if let Some(known) = self.tenants.iter().find(|c| c.tenant().as_str() == name) {
            return Ok(known.clone());
        }
        let context = auth::enter(self.principal, &*self.state.tenants, name)?;
        self.tenants.push(context.clone());
        Ok(context)
    }

    fn route(
        &mut self,
        event_type: &str,
        tenant: &TenantId,
        named: Option<&str>,
    ) -> Result<TopicName, Problem> {
        let explicit = named.or(self.topic);
        let hit = |r: &&Remembered| {
            r.event_type == event_type && r.tenant == *tenant && r.explicit.as_deref() == explicit
        };
        if let Some(known) = self.routes.iter().find(hit) {
            return Ok(known.topic.clone());
        }
        let topic = Route::route(&*self.state.routes, event_type, tenant, explicit)?;
        if self.routes.len() == REMEMBERED_ROUTES {
            self.routes.clear();
        }
        self.routes.push(Remembered {
            event_type: event_type.to_owned(),
            tenant: tenant.clone(),
            explicit: explicit.map(str::to_owned),
            topic: topic.clone(),
        });
        Ok(topic)
    }

    /// The sender's key, or one made of the sender's event id. An id that the gateway makes
    /// is new at every attempt and so protects nothing: such an event has no key.
    fn idempotency_key(
        &self,
        envelope: &Envelope<'_>,
        event_type: &str,
        tenant: &TenantId,
    ) -> Result<Option<String>, Problem> {
        match (envelope.idempotency_key.as_deref(), self.idempotency_key) {
            (Some(field), Some(header)) if field != header => {
                return Err(invalid(
                    "field-conflict",
                    "`idempotency_key` and the Idempotency-Key header differ".into(),
                ));
            }
            (Some(key), _) | (None, Some(key)) => return Ok(Some(key.to_owned())),
            (None, None) => {}
        }
        Ok(envelope.event_id.as_deref().map(|id| match envelope.source_service.as_deref() {
            Some(source) if envelope.id_per_source => format!("{event_type}:{tenant}:{source}:{id}"),
            _ => format!("{event_type}:{tenant}:{id}"),
        }))
    }

    fn attributes(
        &self,
        envelope: &Envelope<'_>,
        event_type: &str,
        tenant: &TenantId,
        idempotency_key: Option<&str>,
    ) -> Attributes {
        let made_id;
        let event_id = match envelope.event_id.as_deref() {
            Some(id) => id,
            None => {
                made_id = self.state.ids.uuid().to_string();
                &made_id
            }
        };
        let made_context;
        let traceparent = match (envelope.traceparent.as_deref(), self.trace) {
            (Some(sent), _) => sent,
            (None, Some(trace)) => {
                made_context = trace.traceparent(tenant, envelope.correlation_id.as_deref(), event_id);
                &made_context
            }
            (None, None) => &self.request.traceparent,
        };
        let own = [
            (attr::TENANT_ID, Some(tenant.as_str())),
            (attr::EVENT_ID, Some(event_id)),
            (attr::EVENT_TYPE, Some(event_type)),
            (attr::SCHEMA_VERSION, envelope.schema_version.as_deref().or(Some("1"))),
            (attr::TIMESTAMP, envelope.timestamp.as_deref().or(Some(&self.now))),
            (attr::SOURCE_SERVICE, envelope.source_service.as_deref().or(Some(&self.principal.name))),
            (attr::CORRELATION_ID, envelope.correlation_id.as_deref().or(Some(&self.request.id))),
            (attr::CAUSATION_ID, envelope.causation_id.as_deref()),
            (attr::IDEMPOTENCY_KEY, idempotency_key),
            (attr::TRACEPARENT, Some(traceparent)),
            (attr::CONTENT_TYPE, envelope.content_type.as_deref()),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
        own.chain(envelope.extra.iter().map(|(name, value)| (name.as_str(), &**value))).collect()
    }
}
