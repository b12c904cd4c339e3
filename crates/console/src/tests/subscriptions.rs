//! The pages of subscriptions, and the buttons that free a blocked key.

use axum::http::{StatusCode, header};

use super::site::Site;

const ALERTS: &str = "/console/subscriptions/mountain-weather/fraud-alerts";

#[tokio::test]
async fn the_list_shows_backlog_age_and_what_needs_attention() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let page = site.get("/console/subscriptions", &cookie).await;
    for shown in [
        "mountain-weather/fraud-alerts",
        "degraded",
        "its consumers do not keep up",
        "its topic was deleted",
        "no topic",
        "coast-tides/tide-log",
        "An estimate",
        "data-live=\"/console/live?view=subscriptions\"",
    ] {
        assert!(page.text.contains(shown), "{shown}");
    }
    assert!(page.text.contains(&format!("href=\"{}\"", ALERTS.replace('-', "%2D"))), "{}", page.text);
    assert!(page.text.contains("aria-current=\"page\">Subscriptions"));
}

#[tokio::test]
async fn the_page_of_one_shows_tenants_and_keys_and_the_buttons_free_a_key() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let page = site.get(ALERTS, &cookie).await;
    for shown in ["user-4711", "hut/&lt;b&gt;9&lt;/b&gt;", "65.5 %", "1,204", "exactly once", "live-lanes"] {
        assert!(page.text.contains(shown), "{shown}");
    }
    assert!(!page.text.contains("disabled"), "there is a dead-letter policy");
    let token = page.csrf();
    let post = async |form: String| site.post(&format!("{ALERTS}/unblock"), &cookie, &form).await;
    assert_eq!(post("skip=coast/user-4711".into()).await.status, StatusCode::FORBIDDEN, "no token");
    let sent = post(format!("csrf={token}&skip=coast%2Fuser-4711")).await;
    assert_eq!(
        (sent.status, sent.header(header::LOCATION)),
        (StatusCode::SEE_OTHER, &*ALERTS.replace('-', "%2D"))
    );
    let after = site.get(ALERTS, &cookie).await;
    assert!(after.text.contains("The message that blocked user-4711 was skipped."));
    assert!(!after.text.contains("1,204") && after.text.contains("hut/&lt;b&gt;9"));
    for (form, text) in [
        ("park=coast%2Fuser-4711", "no message of that ordering key is under way"),
        ("park=alpine%2Fhut%2F%3Cb%3E9%3C%2Fb%3E", "was parked."),
        ("", "no ordering key was named"),
        ("park=x%2Fy&skip=x%2Fy", "no ordering key was named"),
        ("skip=noslash", "no ordering key was named"),
    ] {
        post(format!("csrf={token}&{form}")).await;
        assert!(site.get(ALERTS, &cookie).await.text.contains(text), "{form}");
    }
    let all = site.get(ALERTS, &cookie).await;
    assert!(all.text.contains("No message waits behind another"));
}

#[tokio::test]
async fn who_may_not_see_a_subscription_can_neither_look_at_it_nor_free_its_keys() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_alpine").await;
    let list = site.get("/console/subscriptions", &cookie).await;
    assert!(list.text.contains("mountain-weather/huts") && !list.text.contains("fraud-alerts"));
    let token = list.csrf();
    for path in [ALERTS, "/console/subscriptions/coast-tides/tide-log", "/console/subscriptions/X/y"] {
        assert_eq!(site.get(path, &cookie).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    site.post(&format!("{ALERTS}/unblock"), &cookie, &format!("csrf={token}&skip=coast/user-4711")).await;
    assert!(!site.data.resent.lock().contains("user-4711"));
    let own = site.get("/console/subscriptions/mountain-weather/huts", &cookie).await;
    assert!(own.text.contains("100.0 %"));

    let analyst = site.sign_in("lvd_analyst").await;
    let token = site.csrf(&analyst).await;
    let form = format!("csrf={token}&skip=coast/user-4711");
    assert_eq!(site.post(&format!("{ALERTS}/unblock"), &analyst, &form).await.status, StatusCode::FORBIDDEN);
    for view in ["subscriptions", "subscription&key=mountain-weather%2Fhuts"] {
        let live = site.get(&format!("/console/live?view={view}"), &analyst).await;
        assert!(live.text.starts_with("event: gone"), "{view}");
    }
}
