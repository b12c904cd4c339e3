//! Calls to addresses that somebody else chose: endpoints of push subscriptions, URLs of
//! enrichments.
//!
//! A URL names a host; what is called is an address. Every address is judged by the rules of
//! [`Egress`] at the moment of the connection, and the connection goes to that very address, so
//! a name that resolves to another one a moment later gains nothing. No redirect is followed,
//! and no proxy of the environment is asked.

use std::collections::VecDeque;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use levada_core::{Egress, Problem};
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Url, redirect};

/// Clients kept at most, one a port; with more ports the one that rested longest goes.
const MAX_CLIENTS: usize = 32;

/// A call that the rules of egress do not allow. It does not tell what a name resolved to: that
/// is nothing for whoever chose the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "calls to `{host}`, port {port}, are not allowed: it is no public address, and `egress` does not name it"
)]
pub struct Refused {
    pub host: String,
    pub port: u16,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Problem::new(422, "egress-refused", refused.to_string())
            .hint("name a public host, or have the operator name this one under `egress` in levada.yaml")
    }
}

/// Why a request cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("`{0}` is no URL with a scheme of http or https and a host")]
    Url(String),
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// Makes requests that go where the rules allow.
pub struct Outbound {
    egress: Arc<Egress>,
    settings: Box<dyn Fn() -> ClientBuilder + Send + Sync>,
    /// By port, since a resolver is not told the port. The one used last is in front.
    clients: Mutex<VecDeque<(u16, Client)>>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("egress", &self.egress).finish_non_exhaustive()
    }
}

impl Outbound {
    /// `settings` begins each client: timeouts, headers, pools. Resolver, redirects and proxies
    /// are set here.
    pub fn new(egress: Egress, settings: impl Fn() -> ClientBuilder + Send + Sync + 'static) -> Self {
        Self { egress: Arc::new(egress), settings: Box::new(settings), clients: Mutex::default() }
    }

    /// A request to a URL. A name is judged when it is resolved, which fails the request: see
    /// [`refusal`].
    ///
    /// # Errors
    /// [`OutboundError`] for a URL that is none, or with an address that is not allowed.
    pub fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, OutboundError> {
        let url = parse(url)?;
        check(&self.egress, &url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(self.client(port)?.request(method, url))
    }

    fn client(&self, port: u16) -> Result<Client, OutboundError> {
        let mut clients = self.clients.lock();
        let kept = clients.iter().position(|(own, _)| *own == port).and_then(|at| clients.remove(at));
        let client = match kept {
            Some((_, client)) => client,
            None => (self.settings)()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Judge { egress: self.egress.clone(), port })
                .build()?,
        };
        clients.push_front((port, client.clone()));
        clients.truncate(MAX_CLIENTS);
        Ok(client)
    }
}

/// Reads a URL of http or https.
///
/// # Errors
/// [`OutboundError::Url`].
pub fn parse(url: &str) -> Result<Url, OutboundError> {
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let parsed = Url::parse(url).ok().filter(usable);
    parsed.ok_or_else(|| OutboundError::Url(url.chars().filter(|c| !c.is_control()).take(300).collect()))
}

/// Judges an address that is written in a URL, in any spelling; nothing is resolved.
///
/// # Errors
/// [`Refused`] where it is not allowed.
pub fn check(egress: &Egress, url: &Url) -> Result<(), Refused> {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match literal {
        Ok(address) if !egress.allows(host, address, port) => Err(Refused { host: host.to_owned(), port }),
        _ => Ok(()),
    }
}

/// Whether a request failed because the rules do not allow where its name led.
pub fn refusal(error: &reqwest::Error) -> Option<&Refused> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return Some(refused);
        }
        cause = inner.source();
    }
    None
}

/// Resolves names for one port, and drops what is not allowed.
struct Judge {
    egress: Arc<Egress>,
    port: u16,
}

impl Resolve for Judge {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, port) = (self.egress.clone(), self.port);
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| egress.allows(host, address.ip(), port)).collect();
            if allowed.is_empty() {
                return Err(Refused { host: host.to_owned(), port }.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
