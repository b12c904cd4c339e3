//! The console as a browser meets it, over a made-up platform.

mod bounds;
#[path = "../../examples/preview/double/mod.rs"]
mod double;
mod figures;
mod messages;
mod site;
mod subscriptions;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};

use site::Site;

const PAGES: [&str; 11] = [
    "/console",
    "/console/pipelines",
    "/console/pipelines/checkins",
    "/console/models",
    "/console/topics",
    "/console/subscriptions",
    "/console/subscriptions/mountain-weather/huts",
    "/console/dead-letters",
    "/console/dead-letters/checkins-dlq/1",
    "/console/dead-letters/checkins-dlq/1/body",
    "/console/sql",
];

#[tokio::test]
async fn strangers_are_led_to_the_sign_in_and_see_nothing() {
    let site = Site::new();
    let forged = format!("levada_console={}", "A".repeat(43));
    for path in PAGES {
        for cookie in ["", "levada_console=", &forged] {
            let page = site.get(path, cookie).await;
            assert_eq!(page.status, StatusCode::SEE_OTHER, "{path}");
            assert!(page.header(header::LOCATION).starts_with("/console/sign-in?next=%2Fconsole"), "{path}");
            assert!(page.text.is_empty());
        }
    }
    let live = site.get("/console/live?view=overview", "").await;
    assert_ne!(live.status, StatusCode::OK);
    for path in ["/console/sql", "/console/models/run", "/console/dead-letters/resend", "/console/sign-out"] {
        assert_eq!(site.post(path, "", "sql=SELECT+1&one=checkins-dlq/1").await.status, 401, "{path}");
    }
    assert_eq!(site.get("/", "").await.header(header::LOCATION), "/console");
}

#[tokio::test]
async fn sign_in_makes_a_guarded_cookie_and_a_wrong_key_none() {
    let site = Site::new();
    let page = site.post("/console/sign-in", "", "key=lvd_admin&next=%2Fconsole%2Ftopics").await;
    let cookie = page.header(header::SET_COOKIE);
    for part in ["Path=/console", "HttpOnly", "SameSite=Strict", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "plain HTTP would never send it back");
    assert_eq!(page.header(header::LOCATION), "/console/topics");

    let wrong = site.post("/console/sign-in", "", "key=lvd_nobody").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.header(header::SET_COOKIE), "");
    assert!(wrong.text.contains("unknown, expired or revoked") && !wrong.text.contains("lvd_nobody"));

    let request = Request::post("/console/sign-in")
        .header("x-forwarded-proto", "https")
        .body(Body::from("key=lvd_admin"))
        .expect("a request");
    assert!(site.read(request).await.header(header::SET_COOKIE).ends_with("; Secure"));
}

#[tokio::test]
async fn sign_in_leads_only_to_pages_of_the_console() {
    let site = Site::new();
    for evil in ["https://evil.example", "//evil.example", "/console/../../x\\", "/consoleevil", "/v1/keys"] {
        let form = format!("key=lvd_admin&next={}", evil.replace('/', "%2F").replace('\\', "%5C"));
        let to = site.post("/console/sign-in", "", &form).await.header(header::LOCATION).to_owned();
        assert_eq!(to, "/console", "{evil}");
    }
}

#[tokio::test]
async fn failed_sign_ins_are_limited_by_address() {
    let site = Site::with(|c| c.signin_burst = 3);
    let attempt = |key: &'static str, from: &'static str| {
        let address: SocketAddr = from.parse().expect("an address");
        let mut request =
            Request::post("/console/sign-in").body(Body::from(format!("key={key}"))).expect("a request");
        request.extensions_mut().insert(ConnectInfo(address));
        site.read(request)
    };
    for _ in 0..10 {
        assert_eq!(attempt("lvd_admin", "10.0.0.1:1").await.status, 303, "good keys cost nothing");
    }
    for _ in 0..3 {
        assert_eq!(attempt("lvd_wrong", "10.0.0.1:2").await.status, 401);
    }
    let refused = attempt("lvd_wrong", "10.0.0.1:3").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header(header::RETRY_AFTER), "10");
    assert_eq!(attempt("lvd_wrong", "10.0.0.2:1").await.status, 401, "another address is free");
    assert_eq!(attempt("lvd_admin", "10.0.0.1:4").await.status, 303, "a right key always comes in");
    site.clock.advance(Duration::from_secs(11));
    assert_eq!(attempt("lvd_wrong", "10.0.0.1:4").await.status, 401);
}

#[tokio::test]
async fn revoking_the_key_ends_its_sessions_for_good() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_alpine").await;
    let other = site.sign_in("lvd_admin").await;
    assert_eq!(site.get("/console/topics", &cookie).await.status, 200);
    site.data.revoke("lvd_alpine");
    for path in PAGES {
        assert_eq!(site.get(path, &cookie).await.status, 303, "{path}");
    }
    assert_eq!(site.get("/console/topics", &other).await.status, 200);
}

#[tokio::test]
async fn sessions_expire_and_their_number_is_bounded() {
    let site = Site::with(|c| {
        c.session_lifetime = Duration::from_secs(100);
        c.session_idle = Duration::from_secs(40);
        c.max_sessions = 2;
    });
    let cookie = site.sign_in("lvd_admin").await;
    for _ in 0..3 {
        site.clock.advance(Duration::from_secs(30));
        assert_eq!(site.get("/console/sql", &cookie).await.status, 200, "used within the idle time");
    }
    site.clock.advance(Duration::from_secs(30));
    assert_eq!(site.get("/console/sql", &cookie).await.status, 303, "past its lifetime");

    let idle = site.sign_in("lvd_admin").await;
    site.clock.advance(Duration::from_secs(41));
    assert_eq!(site.get("/console/sql", &idle).await.status, 303, "idle for too long");

    let first = site.sign_in("lvd_admin").await;
    site.clock.advance(Duration::from_secs(1));
    let (second, third) = (site.sign_in("lvd_admin").await, site.sign_in("lvd_admin").await);
    assert_eq!(site.get("/console/sql", &first).await.status, 303, "made room");
    assert_eq!(site.get("/console/sql", &second).await.status, 200);
    let form = format!("csrf={}", site.csrf(&third).await);
    assert_eq!(site.post("/console/sign-out", &third, &form).await.status, 303);
    assert_eq!(site.get("/console/sql", &third).await.status, 303, "signed out");
}

#[tokio::test]
async fn forms_need_their_token_and_their_own_origin() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let stolen = site.csrf(&site.sign_in("lvd_alpine").await).await;
    for token in ["", "csrf=&", "csrf=x&", &format!("csrf={stolen}&")] {
        let form = format!("{token}one=checkins-dlq/1");
        assert_eq!(site.post("/console/dead-letters/resend", &cookie, &form).await.status, 403, "{token}");
        assert_eq!(site.post("/console/sql", &cookie, &format!("{token}sql=SELECT+1")).await.status, 403);
        assert_eq!(site.post("/console/models/run", &cookie, &format!("{token}model=m")).await.status, 403);
        assert_eq!(site.post("/console/sign-out", &cookie, token).await.status, 403);
    }
    let form = format!("csrf={}&one=checkins-dlq/1", site.csrf(&cookie).await);
    for (origin, fetch_site, status) in [
        ("http://evil.example", "cross-site", 403),
        ("http://other.levada.test", "same-site", 403),
        ("null", "", 403),
        ("http://levada.test", "same-origin", 303),
    ] {
        let mut request = Request::post("/console/dead-letters/resend")
            .header("cookie", &cookie)
            .header("host", "levada.test")
            .header("origin", origin);
        if !fetch_site.is_empty() {
            request = request.header("sec-fetch-site", fetch_site);
        }
        let page = site.read(request.body(Body::from(form.clone())).expect("a request")).await;
        assert_eq!(page.status, status, "{origin}");
        assert_eq!(site.data.resent.lock().len(), usize::from(status == 303), "{origin}");
    }
}

#[tokio::test]
async fn a_principal_sees_its_own_tenants_only() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_alpine").await;
    for path in PAGES {
        let page = site.get(path, &cookie).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.text.contains("coast") && !page.text.contains("avalanche-reports-dlq"), "{path}");
    }
    for foreign in [
        "/console/pipelines/coast.avalanche_reports",
        "/console/dead-letters/checkins-dlq/2",
        "/console/dead-letters/checkins-dlq/2/body",
        "/console/dead-letters/no-such-topic-dlq/2",
        "/console/dead-letters/x/2",
        "/console/no-such-page",
    ] {
        let page = site.get(foreign, &cookie).await;
        assert_eq!(page.status, 404, "{foreign}");
        assert!(!page.text.contains("u-0815"), "{foreign}");
    }
    let form = format!("csrf={}&pick=checkins-dlq/2&pick=checkins-dlq/1", site.csrf(&cookie).await);
    site.post("/console/dead-letters/resend", &cookie, &form).await;
    let page = site.get("/console/dead-letters", &cookie).await;
    assert!(page.text.contains("1 dead letter sent again; 1 could not be found."), "{}", page.text);
    assert!(!site.data.resent.lock().contains("checkins-dlq/2"));
}

#[tokio::test]
async fn roles_decide_which_pages_there_are() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_analyst").await;
    let overview = site.get("/console", &cookie).await;
    for hidden in
        ["/console/topics", "/console/pipelines", "/console/models", "/console/dead-letters", "bronze"]
    {
        assert!(!overview.text.contains(hidden), "{hidden}");
    }
    for path in PAGES.iter().filter(|p| !matches!(**p, "/console" | "/console/sql")) {
        let page = site.get(path, &cookie).await;
        assert_eq!(page.status, 403, "{path}");
        assert!(!page.text.contains("u-4711"));
    }
    let sql = site.get("/console/sql", &cookie).await;
    assert!(sql.text.contains("gold.station_day") && !sql.text.contains("bronze.checkins"));
    let token = sql.csrf();
    for (path, form) in [("dead-letters/resend", "one=checkins-dlq/1"), ("models/run", "model=station_day")] {
        let page = site.post(&format!("/console/{path}"), &cookie, &format!("csrf={token}&{form}")).await;
        assert_eq!(page.status, 403, "{path}");
    }
    assert!(site.data.resent.lock().is_empty());
    for view in ["topics", "pipelines", "models", "pipeline&key=checkins"] {
        let page = site.get(&format!("/console/live?view={view}"), &cookie).await;
        assert!(page.text.starts_with("event: gone"), "{view}: {}", page.text);
    }
}

#[tokio::test]
async fn dead_letters_are_filtered_shown_and_sent_again() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let page = site.get("/console/dead-letters?pipeline=weather&code=quality-failed", &cookie).await;
    assert!(page.text.contains("rule `humid in 0..100` failed: 104.2"));
    assert!(!page.text.contains("answered 503"), "another pipeline's");
    assert!(page.text.contains("<option value=\"weather\" selected"));
    let all = site.get("/console/dead-letters", &cookie).await;
    assert!(all.text.contains("href=\"/console/dead-letters?after=20\" rel=\"next\""));

    let letter = site.get("/console/dead-letters/checkins-dlq/2", &cookie).await;
    for shown in ["schema-invalid", "is not a timestamp", "validate", "u-0815", "mobile-app", "7642"] {
        assert!(letter.text.contains(shown), "{shown}");
    }
    let body = site.get("/console/dead-letters/checkins-dlq/2/body", &cookie).await;
    assert_eq!(body.text, r#"{"user":"u-0815","station":"JFK","time":"yesterday"}"#);
    assert_eq!(body.header(header::CONTENT_TYPE), "application/octet-stream");
    assert!(body.header(header::CONTENT_DISPOSITION).starts_with("attachment"));

    let token = letter.csrf();
    let one =
        format!("csrf={token}&one=checkins-dlq%2F2&pick=checkins-dlq%2F1&back=%2Fconsole%2Fdead-letters");
    let sent = site.post("/console/dead-letters/resend", &cookie, &one).await;
    assert_eq!(sent.header(header::LOCATION), "/console/dead-letters");
    assert_eq!(
        site.data.resent.lock().iter().collect::<Vec<_>>(),
        ["checkins-dlq/2"],
        "the row's own button"
    );
    assert!(site.get("/console/dead-letters", &cookie).await.text.contains("1 dead letter sent again."));
    let again = site.get("/console/dead-letters", &cookie).await;
    assert!(!again.text.contains("1 dead letter sent again."), "said once");
    let many = format!("csrf={token}&pick=checkins-dlq/1&pick=weather-dlq/3");
    site.post("/console/dead-letters/resend", &cookie, &many).await;
    assert_eq!(site.data.resent.lock().len(), 3);
    site.post("/console/dead-letters/resend", &cookie, &format!("csrf={token}")).await;
    assert!(site.get("/console/dead-letters", &cookie).await.text.contains("no dead letter was selected"));
}

#[tokio::test]
async fn models_run_by_command() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    for (model, text) in [("station_day", "1,092 rows in 72 ms"), ("nothing", "there is no such model")] {
        let form = format!("csrf={}&model={model}", site.csrf(&cookie).await);
        site.post("/console/models/run", &cookie, &form).await;
        assert!(site.get("/console/models", &cookie).await.text.contains(text), "{model}");
    }
}

#[tokio::test]
async fn sql_shows_rows_or_an_error_with_its_hint() {
    let site = Site::with(|c| c.max_result_rows = 5);
    let cookie = site.sign_in("lvd_analyst").await;
    let token = site.csrf(&cookie).await;
    let page = site.post("/console/sql", &cookie, &format!("csrf={token}&sql=SELECT+1+%3C+2")).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("The first 5 rows") && page.text.contains("as of epoch checkins 1502"));
    assert!(page.text.contains("SELECT 1 &lt; 2</textarea>"), "the statement stays in the box");
    assert!(page.text.contains("<td class=\"null n\">null</td>"));
    assert!(page.text.contains(">reports</td>"), "asked as the principal");

    let wrong = format!("csrf={token}&sql=SELECT+*+FROM+silver.chekins");
    let request = Request::post("/console/sql")
        .header("cookie", &cookie)
        .header("x-part", "result")
        .body(Body::from(wrong))
        .expect("a request");
    let part = site.read(request).await;
    assert_eq!(part.status, 404);
    assert!(part.text.contains("does not exist") && part.text.contains("did you mean `silver.checkins`?"));
    assert!(!part.text.contains("<html"), "only the part");

    let given = site.get("/console/sql?sql=SELECT+1", &cookie).await;
    assert!(given.text.contains("SELECT 1</textarea>") && !given.text.contains("The first 5 rows"));
    let empty = site.post("/console/sql", &cookie, &format!("csrf={token}&sql=+")).await;
    assert_eq!(empty.status, 422);
    let long = format!("csrf={token}&sql={}", "x".repeat(70_000));
    assert_eq!(site.post("/console/sql", &cookie, &long).await.status, 413);
    let longer = format!("csrf={token}&sql={}", "x".repeat(300_000));
    assert_eq!(site.post("/console/sql", &cookie, &longer).await.status, 413);
}

#[tokio::test]
async fn pages_are_closed_to_scripts_that_events_bring_along() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let more = ["/console/dead-letters/github-events-dlq/5", "/console/dead-letters/avalanche-reports-dlq/4"];
    for path in PAGES.iter().chain(&more).filter(|p| !p.ends_with("/body")) {
        let page = site.get(path, &cookie).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(
            page.header(header::CONTENT_SECURITY_POLICY).starts_with("default-src 'none'; style-src 'self'")
        );
        assert_eq!(page.header(header::CACHE_CONTROL), "no-store");
        assert!(!page.text.contains("<script>") && !page.text.contains("<b>here"), "{path}");
        for inline in [" style=\"", " onclick=", " onload=", "javascript:", "http://", "https://"] {
            let text = page.text.replace("http://127.0.0.1:9090", "");
            assert!(!text.contains(inline), "{inline} in {path}");
        }
    }
    let page = site.get("/console", &cookie).await;
    for name in ["console.css", "console.js", "icon.svg"] {
        let start = page.text.find(&format!("-{name}\"")).expect("linked");
        let from = page.text[..start].rfind('"').expect("quoted") + 1;
        let asset = site.get(&page.text[from..start + name.len() + 1], "").await;
        assert_eq!(asset.status, 200, "{name}");
        assert!(asset.header(header::CACHE_CONTROL).contains("immutable"));
    }
    assert_eq!(site.get("/console/assets/000000000000-console.css", "").await.status, 404);
}

#[tokio::test]
async fn live_streams_send_what_changed_until_the_key_is_revoked() {
    let site = Site::with(|c| c.max_live = 1);
    let cookie = site.sign_in("lvd_admin").await;
    let request = || {
        Request::get("/console/live?view=overview")
            .header("cookie", &cookie)
            .body(Body::empty())
            .expect("a request")
    };
    let response = site.send(request()).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut next = async || {
        let chunk = futures::StreamExt::next(&mut body).await?.expect("a chunk");
        Some(String::from_utf8_lossy(&chunk).into_owned())
    };
    let first = next().await.expect("the first event");
    for part in ["live-figures", "live-channel", "live-pipelines", "live-models"] {
        assert!(first.contains(part), "{part}");
    }
    assert!(next().await.expect("a second event").contains("\"parts\":{}"), "nothing changed");
    site.clock.advance(Duration::from_secs(60));
    let changed = loop {
        let event = next().await.expect("an event");
        if !event.contains("\"parts\":{}") {
            break event;
        }
    };
    assert!(changed.contains("live-figures") && !changed.contains("live-health"), "only what changed");
    assert_eq!(site.send(request()).await.status(), 503, "the number of streams is bounded");

    site.data.revoke("lvd_admin");
    let end = loop {
        let event = next().await.expect("an event");
        if !event.starts_with("event: parts") {
            break event;
        }
    };
    assert!(end.starts_with("event: gone"));
    assert!(next().await.is_none(), "the stream ends");
    assert_eq!(site.get("/console", &cookie).await.status, 303);
}
