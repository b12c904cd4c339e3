//! What the calls work with, and the frame around each of them.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName};
use levada_bus::port::{BusPort, Page, PageRequest, PortError, SubscriptionPort, TopicSpec};
use levada_core::{Authenticator, Clock, Egress, IdSource, RequestPlace, ResourceName};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use crate::access::{Access, Caller, Projects};
use crate::error::ApiError;
use crate::guards::Guards;
use crate::iam::PolicyStore;
use crate::metrics;
use crate::names;
use crate::push::Pushing;
use crate::schemas::SchemaStore;
use crate::stream::Streams;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Bounds of the API.
#[derive(Debug, Clone)]
pub struct PubsubConfig {
    /// How long a pull waits for its first message at most.
    pub max_pull_wait: Duration,
    /// Streams open at the same time; more are refused.
    pub max_streams: usize,
    /// An idle stream of protocol version 1 gets an empty response after this, below 15 s.
    pub keepalive: Duration,
    /// A stream is closed after this, and the client opens another.
    pub max_stream_age: Duration,
    /// Where messages may be pushed.
    pub egress: Egress,
}

impl Default for PubsubConfig {
    fn default() -> Self {
        Self {
            max_pull_wait: Duration::from_secs(90),
            max_streams: 10_000,
            keepalive: Duration::from_secs(12),
            max_stream_age: Duration::from_secs(30 * 60),
            egress: Egress::default(),
        }
    }
}

/// What the binary puts together.
pub struct Parts {
    pub bus: Arc<dyn BusPort>,
    pub authenticator: Arc<dyn Authenticator>,
    pub projects: Arc<Projects>,
    pub schemas: Arc<dyn SchemaStore>,
    pub policies: Arc<dyn PolicyStore>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub guards: Guards,
    pub config: PubsubConfig,
}

/// The API; cheap to clone, all clones are one.
#[derive(Clone)]
pub struct PubsubApi(Arc<Inner>);

pub struct Inner {
    pub(crate) parts: Parts,
    pub(crate) streams: Streams,
    pub(crate) pushing: Pushing,
    draining: watch::Sender<bool>,
}

impl Deref for PubsubApi {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// One call: who makes it, and until when its answer is of use.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub caller: Caller,
    pub deadline: Option<Instant>,
    /// The place of its request among those that are answered; none in tests without a server.
    pub place: Option<Arc<RequestPlace>>,
}

impl Deref for Call {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// A subscription that the caller may see.
pub(crate) struct Opened {
    pub access: Access,
    pub port: Arc<dyn SubscriptionPort>,
}

impl PubsubApi {
    pub fn new(parts: Parts) -> Self {
        let streams = Streams::new(parts.config.max_streams);
        Self(Arc::new(Inner {
            parts,
            streams,
            pushing: Pushing::default(),
            draining: watch::Sender::new(false),
        }))
    }

    /// Ends waiting pulls and, with UNAVAILABLE, all streams, so that clients go elsewhere or
    /// come again. Call it when the process is told to stop, before connections are drained.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(crate) async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives as long as `self`, so an error cannot come.
        let _ = draining.wait_for(|draining| *draining).await;
    }

    /// Makes a call of a request's headers.
    pub(crate) fn call(&self, headers: &HeaderMap) -> Result<Call, ApiError> {
        let caller = Caller::authenticate(headers, &*self.authenticator, &self.projects)?;
        let deadline = timeout(headers)?.map(|timeout| Instant::now() + timeout);
        Ok(Call { caller, deadline, place: None })
    }

    /// Makes a call of a request, which from then on counts against its caller.
    pub(crate) fn call_of(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Call, ApiError> {
        let place = extensions.get::<Arc<RequestPlace>>().cloned();
        let call = self.call(headers)?;
        if let Some(place) = &place {
            place.identify(&call.principal)?;
        }
        Ok(Call { place, ..call })
    }

    /// Opens a subscription.
    ///
    /// # Errors
    /// NOT_FOUND when there is none, and when the caller may not see it.
    pub(crate) fn open(&self, call: &Caller, path: &str) -> Result<Opened, ApiError> {
        let name = names::resource(path, "subscriptions")?;
        let missing = || ApiError::not_found(name.id.as_str());
        let access = call.enter(&name.project).ok_or_else(missing)?;
        let seen = |kept: &ResourceName| {
            self.bus.subscription(kept).ok().filter(|port| access.sees(port.spec().tenant.as_ref()))
        };
        match access.kept(&name).iter().find_map(seen) {
            Some(port) => Ok(Opened { access, port }),
            None => Err(self.bus.subscription(&name).err().map_or_else(missing, ApiError::from)),
        }
    }

    /// Whether the caller sees what is kept under exactly that name.
    pub(crate) fn sees_subscription(&self, call: &Caller, kept: &ResourceName) -> bool {
        let Some(access) = call.enter(&kept.project) else { return false };
        self.bus.subscription(kept).is_ok_and(|port| access.sees(port.spec().tenant.as_ref()))
    }

    /// What the caller calls what is kept under a name.
    pub(crate) fn shown(&self, call: &Caller, name: &ResourceName) -> ResourceName {
        call.enter(&name.project).map_or_else(|| name.clone(), |access| access.shown(name))
    }

    /// Enters the project of a resource that must exist.
    pub(crate) fn access(&self, call: &Caller, name: &ResourceName) -> Result<Access, ApiError> {
        call.enter(&name.project).ok_or_else(|| ApiError::not_found(name.id.as_str()))
    }

    /// A topic in a project that the caller has entered.
    ///
    /// # Errors
    /// NOT_FOUND when there is none, and when the caller may not know of it.
    pub(crate) fn topic(&self, call: &Caller, name: &ResourceName) -> Result<TopicSpec, ApiError> {
        if !self.bus.is_visible(name, &call.principal.tenants) {
            return Err(PortError::NotFound { what: "topic", name: name.to_string() }.into());
        }
        Ok(self.bus.topic(name)?)
    }

    /// Enters a project that is named by itself, or in which something is created.
    pub(crate) fn project(&self, call: &Caller, id: &levada_core::ProjectId) -> Result<Access, ApiError> {
        call.enter(id).ok_or_else(|| ApiError::project_not_found(id.as_str()))
    }
}

/// Runs a call until its deadline, and counts it.
pub(crate) async fn timed<T>(
    path: &'static str,
    door: &'static str,
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let result = match deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Err(ApiError::new(Code::DeadlineExceeded, "The deadline of the call passed before it was done."))
        }),
    };
    let code = result.as_ref().err().map_or("OK", ApiError::status_name);
    if let Err(error) = result.as_ref()
        && error.code == Code::Internal
    {
        tracing::warn!(call = path, %error, "a call failed inside");
    }
    metrics::called(path, door, code);
    result
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let text = value.to_str().unwrap_or("");
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or(("", ""));
    let number = digits.parse::<u32>().ok().filter(|_| (1..=8).contains(&digits.len()));
    let duration = number.and_then(|n| {
        Some(match unit {
            "H" => Duration::from_secs(u64::from(n) * 3_600),
            "M" => Duration::from_secs(u64::from(n) * 60),
            "S" => Duration::from_secs(n.into()),
            "m" => Duration::from_millis(n.into()),
            "u" => Duration::from_micros(n.into()),
            "n" => Duration::from_nanos(n.into()),
            _ => return None,
        })
    });
    match duration {
        Some(duration) => Ok(Some(duration)),
        None => {
            Err(ApiError::invalid(format!("The header grpc-timeout is not valid: {}.", names::shown(text))))
        }
    }
}

/// A page of what `keep` lets through, reading on over what it does not.
pub(crate) fn filtered<T>(
    request: &PageRequest,
    fetch: impl Fn(&PageRequest) -> Result<Page<T>, ApiError>,
    name: impl Fn(&T) -> &ResourceName,
    keep: impl Fn(&T) -> bool,
) -> Result<Page<T>, ApiError> {
    let mut items: Vec<T> = Vec::new();
    let mut from = request.clone();
    loop {
        let page = fetch(&from)?;
        for item in page.items.into_iter().filter(&keep) {
            if items.len() == request.size {
                let next = items.last().map(|last| name(last).clone());
                return Ok(Page { items, next });
            }
            items.push(item);
        }
        if page.next.is_none() || items.len() == request.size {
            return Ok(Page { items, next: page.next });
        }
        from.after = page.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_header_is_read_by_its_grammar() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a value"));
            timeout(&headers).ok().flatten()
        };
        assert_eq!(read("10S"), Some(Duration::from_secs(10)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "10", "10s", "-1S", "999999999S", "1é"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_filtered_page_is_full_and_misses_nothing() {
        let all: Vec<ResourceName> =
            (0..25).map(|n| format!("demo/name{n:02}").parse().expect("a name")).collect();
        let fetch = |page: &PageRequest| {
            let rest = all.iter().filter(|n| page.after.as_ref().is_none_or(|after| *n > after));
            let items: Vec<_> = rest.clone().take(page.size).cloned().collect();
            let next = (rest.count() > items.len()).then(|| items.last().cloned()).flatten();
            Ok(Page { items, next })
        };
        let keep = |name: &ResourceName| name.id.as_str().ends_with(['0', '3', '7']);
        for size in 1..=30 {
            let (mut request, mut seen) = (PageRequest { size, after: None }, Vec::new());
            loop {
                let page = filtered(&request, fetch, |n| n, keep).expect("a page");
                assert!(page.items.len() <= size);
                seen.extend(page.items);
                let Some(next) = page.next else { break };
                request.after = Some(next);
            }
            let expected: Vec<_> = all.iter().filter(|n| keep(n)).cloned().collect();
            assert_eq!(seen, expected, "size {size}");
        }
    }
}
