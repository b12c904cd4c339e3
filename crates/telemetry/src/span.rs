//! Spans as the platform makes them, and as they go out.

use std::sync::Arc;

use crate::context::{SpanId, TraceId};
use crate::proto;

/// What side of a message a span is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Server,
    Producer,
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(Arc<str>),
    Int(i64),
    Bool(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&Arc<str>> for Value {
    fn from(text: &Arc<str>) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// What does not fit is told as the largest that does.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A finished span. Times are nanoseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    /// Another span that this one comes from, in another trace.
    pub link: Option<(TraceId, SpanId)>,
    pub state: Box<str>,
    pub name: Arc<str>,
    pub kind: Kind,
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, where it did.
    pub failure: Option<Box<str>>,
}

impl Span {
    /// As it is sent.
    pub fn into_proto(self) -> proto::Span {
        let kind = match self.kind {
            Kind::Server => proto::SpanKind::Server,
            Kind::Producer => proto::SpanKind::Producer,
            Kind::Consumer => proto::SpanKind::Consumer,
        };
        let link = |(trace, span): (TraceId, SpanId)| proto::Link {
            trace_id: trace.0.into(),
            span_id: span.0.into(),
        };
        let failed = |message: Box<str>| proto::Status {
            message: message.into(),
            code: proto::StatusCode::Error.into(),
        };
        proto::Span {
            trace_id: self.trace.0.into(),
            span_id: self.id.0.into(),
            trace_state: self.state.into(),
            parent_span_id: self.parent.map(|id| id.0.into()).unwrap_or_default(),
            name: self.name.to_string(),
            kind: kind.into(),
            start_time_unix_nano: self.start_ns,
            end_time_unix_nano: self.end_ns.max(self.start_ns),
            attributes: self.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
            links: self.link.map(link).into_iter().collect(),
            status: self.failure.map(failed),
            flags: 1,
        }
    }
}

fn attribute(key: &str, value: Value) -> proto::KeyValue {
    use proto::any_value::Value as Any;
    let value = match value {
        Value::Text(text) => Any::Text(text.to_string()),
        Value::Int(number) => Any::Int(number),
        Value::Bool(yes) => Any::Bool(yes),
    };
    proto::KeyValue { key: key.to_owned(), value: Some(proto::AnyValue { value: Some(value) }) }
}
