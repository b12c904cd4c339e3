//! Keys over HTTP: who gets in, who may make keys, and how fast a revoked one is dead.

use http::Method;
use levada_core::{Principal, Role, TenantSet};
use levada_http::MetricsAccess;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use super::support::{Gateway, Setup, create_key, only};

const EVENT: &str = r#"{"type":"x","data":1}"#;

#[tokio::test(flavor = "multi_thread")]
async fn both_headers_open_and_everything_else_does_not() {
    let gateway = Gateway::start().await;
    let call = || gateway.call(Method::POST, "/v1/events").json(EVENT);
    let key = gateway.key("client-a");
    assert_eq!(call().bearer(key).send().await.status.as_u16(), 202);
    assert_eq!(call().header("x-api-key", key).send().await.status.as_u16(), 202);
    let none = call().send().await;
    none.problem(401, "unauthenticated");
    assert!(none.header("www-authenticate").starts_with("Bearer"));
    call().header("authorization", &format!("Basic {key}")).send().await.problem(401, "unauthenticated");
    call()
        .bearer(key)
        .header("x-api-key", gateway.key("client-b"))
        .send()
        .await
        .problem(401, "unauthenticated");
    call().bearer(&key[..key.len() - 1]).send().await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_dead_at_once_also_on_an_open_connection() {
    let gateway = Gateway::start().await;
    let (id, secret) = create_key(&gateway.ring, "doomed", only(&["a"]), &[Role::Client]);
    let mut raw = gateway.raw().await;
    let request = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {secret}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{EVENT}",
        EVENT.len()
    );
    raw.write(&request).await;
    assert!(raw.read_until("]}").await.starts_with("HTTP/1.1 202"));
    let revoked =
        gateway.call(Method::DELETE, &format!("/v1/keys/{id}")).bearer(gateway.key("admin")).send().await;
    assert_eq!((revoked.status.as_u16(), &revoked.json()["state"]), (200, &json!("revoked")));
    raw.write(&request).await;
    let refused = raw.read_until("request_id").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let unknown =
        gateway.call(Method::POST, "/v1/events").bearer("lvd_aaaaaaaaaaaa_b").json(EVENT).send().await;
    let dead = gateway.call(Method::POST, "/v1/events").bearer(&secret).json(EVENT).send().await;
    let (unknown, dead) = (unknown.problem(401, "unauthenticated"), dead.problem(401, "unauthenticated"));
    assert_eq!((&unknown["detail"], &unknown["hint"]), (&dead["detail"], &dead["hint"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_dead_on_the_dot() {
    let gateway = Gateway::start().await;
    let body = json!({"name": "short", "tenants": ["a"], "roles": ["client"], "expires_in_s": 60});
    let created = gateway.post("admin", "/v1/keys", body.to_string()).send().await;
    assert_eq!(created.status.as_u16(), 201, "{}", created.text());
    let key = created.json()["key"].as_str().expect("the secret").to_owned();
    let call = || gateway.call(Method::POST, "/v1/events").bearer(&key).json(EVENT).send();
    gateway.clock.advance(Duration::from_millis(59_999));
    assert_eq!(call().await.status.as_u16(), 202);
    gateway.clock.advance(Duration::from_millis(1));
    call().await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_listed_and_revoked_within_the_creators_reach() {
    let gateway = Gateway::start().await;
    let create = |key: &'static str, body: Value| gateway.post(key, "/v1/keys", body.to_string()).send();
    let own =
        create("admin-a", json!({"name": "mine", "tenants": ["a"], "roles": ["engineer", "admin"]})).await;
    assert_eq!(own.status.as_u16(), 201, "{}", own.text());
    assert_eq!(own.json()["tenants"], json!(["a"]));
    let implied = create("admin-a", json!({"name": "mine too", "roles": ["client"]})).await;
    assert_eq!(implied.json()["tenants"], json!(["a"]), "left out, the creator's own");
    for tenants in [json!(["b"]), json!(["a", "b"]), json!("all"), json!(["nowhere"])] {
        let body = json!({"name": "greedy", "tenants": tenants, "roles": ["client"]});
        create("admin-a", body).await.problem(403, "tenant-forbidden");
    }
    create("admin", json!({"name": "x", "tenants": ["nowhere"], "roles": ["client"]}))
        .await
        .problem(422, "tenant-unknown");
    create("admin", json!({"name": "x", "tenants": [], "roles": ["client"]}))
        .await
        .problem(422, "key-invalid");
    create("admin", json!({"name": "x", "tenants": "all", "roles": []})).await.problem(422, "key-invalid");
    create("admin", json!({"name": "", "tenants": "all", "roles": ["client"]}))
        .await
        .problem(422, "key-invalid");
    let past = json!({"name": "x", "roles": ["client"], "expires_at": "2020-01-01T00:00:00Z"});
    create("admin", past).await.problem(422, "key-invalid");
    for key in ["engineer-a", "client-a", "service-ab", "platform-engineer", "analyst-a"] {
        create(key, json!({"name": "x", "roles": ["client"]})).await.problem(403, "role-forbidden");
        gateway.get(key, "/v1/keys").send().await.problem(403, "role-forbidden");
    }
    let narrowed = gateway.post("admin", "/v1/keys", r#"{"name":"x","tenants":"all","roles":["client"]}"#);
    narrowed.header("x-tenant-id", "a").send().await.problem(403, "tenant-forbidden");
    let all = create("admin", json!({"name": "everywhere", "tenants": "all", "roles": ["service"]})).await;
    assert_eq!((all.status.as_u16(), &all.json()["tenants"]), (201, &json!("all")));
    let seen = gateway.get("admin-a", "/v1/keys").send().await.json();
    let names: Vec<&str> =
        seen["keys"].as_array().expect("keys").iter().filter_map(|k| k["name"].as_str()).collect();
    assert!(names.contains(&"mine") && names.contains(&"client-a"), "{names:?}");
    for hidden in ["client-b", "service-ab", "admin", "everywhere"] {
        assert!(!names.contains(&hidden), "{hidden} reaches beyond tenant a");
    }
    let everywhere = all.json()["id"].as_str().expect("an id").to_owned();
    let foreign =
        gateway.call(Method::DELETE, &format!("/v1/keys/{everywhere}")).bearer(gateway.key("admin-a"));
    foreign.send().await.problem(404, "key-unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_platform_admin_stays() {
    let gateway = Gateway::start().await;
    let keys = gateway.get("admin", "/v1/keys").send().await.json();
    let admin = keys["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .find(|k| k["name"] == "admin")
        .expect("the admin")
        .clone();
    let path = format!("/v1/keys/{}", admin["id"].as_str().expect("an id"));
    let refused = gateway.call(Method::DELETE, &path).bearer(gateway.key("admin")).send().await;
    refused.problem(409, "key-last-admin");
    assert_eq!(gateway.get("admin", "/v1/keys").send().await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_open_what_they_should_and_nothing_more() {
    let gateway = Gateway::start().await;
    gateway.publish("client-a", EVENT).await;
    let may = |key: &'static str, path: &'static str| {
        let call = gateway.get(key, path);
        async move { call.send().await.status.as_u16() }
    };
    for path in
        ["/v1/topics", "/v1/topics/events/messages", "/v1/dead-letters", "/v1/pipelines", "/v1/models"]
    {
        assert_eq!(may("engineer-a", path).await, 200, "{path}");
        assert_eq!(may("admin-a", path).await, 200, "{path}");
        for key in ["client-a", "analyst-a", "service-ab"] {
            assert_eq!(may(key, path).await, 403, "{key} {path}");
        }
    }
    for key in ["client-a", "analyst-a", "engineer-a", "admin"] {
        assert_eq!(may(key, "/v1/status").await, 200, "{key}");
    }
    gateway.post("analyst-a", "/v1/events", EVENT).send().await.problem(403, "role-forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_of_the_whole_platform_and_closed_to_the_rest() {
    let gateway = Gateway::start().await;
    gateway.publish("client-a", EVENT).await;
    gateway.call(Method::GET, "/metrics").send().await.problem(401, "unauthenticated");
    for key in ["engineer-a", "admin-a", "service-ab"] {
        gateway.get(key, "/metrics").send().await.problem(403, "role-forbidden");
    }
    for key in ["admin", "platform-engineer"] {
        let metrics = gateway.get(key, "/metrics").send().await;
        assert_eq!(metrics.status.as_u16(), 200);
        assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
        let text = metrics.text();
        assert!(text.contains("levada_events_accepted_total{tenant=\"a\"}"), "{text}");
        assert!(text.contains("route=\"/v1/events\"") && text.contains("# HELP levada_http_requests_total"));
        assert!(text.contains("levada_http_request_duration_seconds_bucket"));
    }
    for (access, expected) in
        [(MetricsAccess::Loopback, 200), (MetricsAccess::Open, 200), (MetricsAccess::Key, 401)]
    {
        let mut setup = Setup::default();
        setup.gateway.metrics = access;
        let gateway = Gateway::with(setup).await;
        assert_eq!(
            gateway.call(Method::GET, "/metrics").send().await.status.as_u16(),
            expected,
            "{access:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_open_on_loopback_is_open_to_this_machine_and_no_web_page() {
    let mut setup = Setup::default();
    setup.gateway.loopback_principal = Some(Arc::new(Principal {
        id: "demo".into(),
        name: "demo".into(),
        tenants: TenantSet::All,
        roles: [Role::Admin].into(),
    }));
    let gateway = Gateway::with(setup).await;
    let status = |host: &str, header: Option<(&str, &str)>| {
        let mut raw = format!("GET /v1/status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        if let Some((name, value)) = header {
            raw.push_str(&format!("{name}: {value}\r\n"));
        }
        raw.push_str("\r\n");
        let gateway = &gateway;
        async move {
            let mut connection = gateway.raw().await;
            connection.write(&raw).await;
            connection.read_to_close().await[9..12].to_owned()
        }
    };
    assert_eq!(status("127.0.0.1:1", None).await, "200");
    assert_eq!(status("localhost:1", Some(("origin", "http://localhost:1"))).await, "200");
    assert_eq!(status("evil.example", None).await, "401", "a rebound name");
    assert_eq!(status("localhost:1", Some(("origin", "http://evil.example"))).await, "401", "another origin");
    assert_eq!(status("localhost:1", Some(("origin", "null"))).await, "401");
    assert_eq!(status("localhost:1", Some(("sec-fetch-site", "cross-site"))).await, "401");
    assert_eq!(
        status("localhost:1", Some(("authorization", "Bearer wrong"))).await,
        "401",
        "a wrong key is no guest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_credentials_serves_this_machine_and_no_web_page_at_any_address() {
    let mut setup = Setup::default();
    setup.gateway.own_site_only = true;
    setup.extra = axum::Router::new().route("/other/door", axum::routing::any(|| async { "open" }));
    let gateway = Gateway::with(setup).await;
    let status = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut raw = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        for (name, value) in headers {
            raw.push_str(&format!("{name}: {value}\r\n"));
        }
        raw.push_str("\r\n");
        let gateway = &gateway;
        async move {
            let mut connection = gateway.raw().await;
            connection.write(&raw).await;
            connection.read_to_close().await
        }
    };
    let own = ("host", "localhost:1");
    for (path, answer) in [("/other/door", "200"), ("/healthz", "200"), ("/v1/status", "401")] {
        assert_eq!(&status("GET", path, &[own]).await[9..12], answer, "{path}");
        for foreign in [
            &[("host", "evil.example")][..],
            &[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")],
            &[own, ("origin", "http://evil.example")],
            &[own, ("origin", "http://localhost:3000")],
            &[own, ("origin", "null")],
            &[own, ("sec-fetch-site", "cross-site")],
            &[own, ("sec-fetch-site", "same-site")],
        ] {
            for method in ["GET", "POST"] {
                let refused = status(method, path, foreign).await;
                assert_eq!(&refused[9..12], "403", "{method} {path} {foreign:?}");
                assert!(refused.contains("foreign-site"), "{refused}");
            }
        }
    }
    let link = [
        own,
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(&status("GET", "/other/door", &link).await[9..12], "200", "a link may be followed");
    assert_eq!(&status("POST", "/other/door", &link).await[9..12], "403", "a form may not be sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_fails_again_and_again_waits_and_no_other_one_does() {
    let gateway = Gateway::start().await;
    let wrong = "lvd_aaaaaaaaaa_wrong";
    let attempt =
        async |key: &str| gateway.call(Method::GET, "/v1/status").bearer(key).send().await.status.as_u16();
    for n in 0..100 {
        assert_eq!(attempt(wrong).await, 401, "{n}");
    }
    assert_eq!(attempt(wrong).await, 429);
    let answer = gateway.call(Method::GET, "/v1/status").bearer(wrong).send().await;
    answer.problem(429, "too-many-sign-ins");
    assert_eq!(attempt(gateway.key("admin")).await, 200, "from the same address");
    for n in 0..200 {
        attempt(&format!("lvd_crowd{n:05}_wrong")).await;
    }
    let own = gateway.key("admin").split('_').nth(1).expect("its public part");
    for _ in 0..101 {
        attempt(&format!("lvd_{own}_wrong")).await;
    }
    assert_eq!(attempt(&format!("lvd_{own}_wrong")).await, 429);
    assert_eq!(attempt(gateway.key("admin")).await, 200, "a right key always comes in");
    gateway.clock.advance(std::time::Duration::from_secs(200));
    assert_eq!(attempt("lvd_bbbbbbbbbb_wrong").await, 401);
    assert_eq!(attempt("no key").await, 401);
    gateway.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(attempt(wrong).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_header_that_cannot_be_read_is_refused_alike_for_every_key() {
    let gateway = Gateway::start().await;
    for key in ["admin", "admin-b"] {
        for value in ["\u{fc}", "Not Valid", "../etc"] {
            let raw = format!(
                "GET /v1/status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nx-tenant-id: {value}\r\n\
                 connection: close\r\n\r\n",
                gateway.key(key)
            );
            let mut connection = gateway.raw().await;
            connection.write(&raw).await;
            let answer = connection.read_to_close().await;
            assert_eq!(&answer[9..12], "400", "{key} {value}: {answer}");
            assert!(answer.contains("header-invalid"), "{answer}");
        }
    }
}
