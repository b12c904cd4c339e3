//! A server that asks this machine for no credential must not obey a page of the internet that a
//! browser on this machine shows.
//!
//! Such a page can send requests to 127.0.0.1, and it can have its own name resolve to 127.0.0.1
//! and read the answers. It cannot write the `Host` that names this machine, nor hide its
//! `Origin`. Programs that are no browsers send neither `Origin` nor `Sec-Fetch-Site`.

use std::net::IpAddr;

use axum::extract::Request;
use http::{HeaderMap, HeaderName, Method, Uri, header};
use levada_core::Problem;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses requests under another name, and those of other sites' pages. A link to a page of
/// ours may be followed.
///
/// # Errors
/// `foreign-site` (403).
pub fn admit(request: &Request) -> Result<(), Problem> {
    let (headers, uri) = (request.headers(), request.uri());
    let refused = if !is_own_name(headers, uri) {
        "it names another host than this machine"
    } else if !is_own_page(headers, uri) && !is_followed_link(request) {
        "it comes from a page of another site"
    } else {
        return Ok(());
    };
    Err(Problem::new(403, "foreign-site", format!("the request is refused: {refused}"))
        .hint("this server asks for no credential, so it serves only http://localhost and http://127.0.0.1"))
}

/// Whether a request is surely of this machine's own programs or of our own pages.
pub(crate) fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    is_own_name(headers, uri) && is_own_page(headers, uri)
}

/// What the client calls this server: once at least, and every time this machine.
fn is_own_name(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut names = names(headers, uri).peekable();
    names.peek().is_some() && names.all(|name| name.is_some_and(is_loopback_name))
}

fn names<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> impl Iterator<Item = Option<&'r str>> {
    let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
    named.chain(uri.authority().map(|authority| Some(authority.as_str())))
}

/// A browser says from where a request comes: only our own pages may send one.
fn is_own_page(headers: &HeaderMap, uri: &Uri) -> bool {
    let host = names(headers, uri).flatten().next().unwrap_or_default();
    let is_ours = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let mut sites = headers.get_all(FETCH_SITE).iter();
    origins.all(|origin| origin.to_str().is_ok_and(is_ours))
        && sites.all(|site| site == "same-origin" || site == "none")
}

/// The address bar shows our page then, and the other site reads nothing of it.
fn is_followed_link(request: &Request) -> bool {
    let headers = request.headers();
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|v| v == value);
    matches!(*request.method(), Method::GET | Method::HEAD)
        && !headers.contains_key(header::ORIGIN)
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
}

fn is_loopback_name(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |h| h.0);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_machine_itself_are_loopback() {
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "127.8.8.8", "LocalHost"]
        {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in [
            "example.org",
            "localhost.example.org:80",
            "10.0.0.1",
            "127.0.0.1.nip.io",
            "",
            "[::2]:80",
            "me@localhost",
        ] {
            assert!(!is_loopback_name(host), "{host}");
        }
    }

    #[test]
    fn a_request_is_ours_by_its_host_and_where_a_browser_says_it_comes_from() {
        let own = |uri: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(()).expect("a request");
            is_own(request.headers(), request.uri())
        };
        let host = ("host", "localhost:8080");
        assert!(own("/", &[host]) && own("http://localhost:8080/", &[]));
        assert!(own("/", &[host, ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(own("/", &[host, ("sec-fetch-site", "none")]), "typed into the address bar");
        assert!(!own("/", &[]));
        assert!(!own("/", &[host, ("host", "evil.example")]));
        assert!(!own("http://evil.example/", &[host]));
        assert!(!own("/", &[("host", "evil.example"), ("origin", "http://evil.example")]));
        for origin in ["http://evil.example", "null", "http://localhost:3000", "localhost:8080", ""] {
            assert!(!own("/", &[host, ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "x"] {
            assert!(!own("/", &[host, ("sec-fetch-site", site)]), "{site}");
        }
    }
}
