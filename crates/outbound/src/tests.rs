//! Against a server on this machine, which only some rules allow to call.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use levada_core::EgressRule;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that answers everything with a redirect to itself, and counts.
async fn server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{port}/again\r\n\
                 Content-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, calls)
}

fn outbound(egress: Egress) -> Outbound {
    Outbound::new(egress, || Client::builder().timeout(Duration::from_secs(20)))
}

async fn status(outbound: &Outbound, url: &str) -> Result<u16, Option<Refused>> {
    let request = match outbound.request(Method::GET, url) {
        Ok(request) => request,
        Err(OutboundError::Refused(refused)) => return Err(Some(refused)),
        Err(error) => panic!("{url}: {error}"),
    };
    match request.send().await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(refusal(&error).cloned()),
    }
}

#[tokio::test]
async fn nothing_of_this_machine_is_called_in_any_spelling() {
    let (port, calls) = server().await;
    let public = outbound(Egress::default());
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "①②⑦.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
        "0.0.0.0",
        "0",
        "user:pass@127.0.0.1",
        "169.254.169.254",
        "[64:ff9b::7f00:1]",
    ] {
        let answer = status(&public, &format!("http://{host}:{port}/")).await;
        assert!(matches!(answer, Err(Some(_))), "{host}: {answer:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_rule_opens_what_it_names_and_no_redirect_is_followed() {
    let (port, calls) = server().await;
    let (other, _) = server().await;
    let own = outbound(Egress::default().and([EgressRule::host("localhost", port)]));
    assert_eq!(status(&own, &format!("http://localhost:{port}/")).await, Ok(307));
    assert_eq!(calls.load(Ordering::SeqCst), 1, "the redirect is an answer");
    assert!(status(&own, &format!("http://localhost:{other}/")).await.is_err_and(|r| r.is_some()));
    assert!(status(&own, &format!("http://127.0.0.1:{port}/")).await.is_err_and(|r| r.is_some()));
    let local = outbound(Egress::default().with_loopback());
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(status(&local, &format!("http://{host}:{port}/")).await, Ok(307));
    }
}

#[tokio::test]
async fn clients_are_kept_for_some_ports_only() {
    let public = outbound(Egress::default());
    for port in 1..100 {
        let _ = public.request(Method::GET, &format!("http://example.org:{port}/")).expect("a request");
    }
    assert_eq!(public.clients.lock().len(), MAX_CLIENTS);
    let _ = public.request(Method::GET, "http://example.org:99/").expect("a request");
    assert_eq!(public.clients.lock().len(), MAX_CLIENTS, "the same one");
}

#[test]
fn only_urls_of_the_web_are_urls() {
    for bad in ["", "example.org", "ftp://example.org", "file:///etc/passwd", "http://", "unix:/x"] {
        assert!(matches!(parse(bad), Err(OutboundError::Url(_))), "{bad}");
    }
    let problem: Problem =
        check(&Egress::default(), &parse("http://10.0.0.1/x").expect("a URL")).expect_err("refused").into();
    assert_eq!((problem.status, &*problem.code), (422, "egress-refused"));
}
