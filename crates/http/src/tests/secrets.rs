//! No secret in what the process says: logs at the finest level, answers, debug output.

use std::io::Write;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::json;

use super::support::Gateway;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_appears_in_any_log_line_or_answer() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("the only subscriber of this process");
    let gateway = Gateway::start().await;
    let body = json!({"name": "logged", "tenants": ["a"], "roles": ["client"]}).to_string();
    let created = gateway.post("admin", "/v1/keys", body).send().await.json();
    let made = created["key"].as_str().expect("the secret").to_owned();
    let call = |key: &str| {
        gateway.call(Method::POST, "/v1/events").header("x-api-key", key).json(r#"{"type":"x","data":1}"#)
    };
    assert_eq!(call(&made).send().await.status.as_u16(), 202);
    let mistyped = format!("{made}x");
    let refused = call(&mistyped).send().await;
    refused.problem(401, "unauthenticated");
    let in_query = gateway.call(Method::GET, &format!("/v1/status?api_key={made}")).send().await;
    in_query.problem(401, "unauthenticated");
    let id = created["id"].as_str().expect("an id").to_owned();
    let listed = gateway.get("admin", "/v1/keys").send().await;
    let revoked =
        gateway.call(Method::DELETE, &format!("/v1/keys/{id}")).bearer(gateway.key("admin")).send().await;
    let logs = String::from_utf8_lossy(&captured.0.lock().expect("not poisoned")).into_owned();
    assert!(logs.contains("api key created") && logs.contains(&id), "the log does say what happened");
    for secret in [made.as_str(), gateway.key("admin"), gateway.key("client-a")] {
        let random_part = secret.splitn(3, '_').nth(2).expect("three parts");
        for (what, text) in [
            ("the logs", logs.clone()),
            ("the list", listed.text()),
            ("the revocation", revoked.text()),
            ("the refusal", refused.text()),
            ("the query's refusal", in_query.text()),
            ("debug output", format!("{:?} {:?}", gateway.ring, gateway.state.limits)),
        ] {
            assert!(!text.contains(random_part), "{what} hold a secret");
        }
    }
}
