//! Values of callers that are as long as they can be: pages show the beginning and say so.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Request;
use levada_console::PAGE_BYTES;

use super::site::Site;

const WIDE: usize = 300_000;
/// The frame of a page, and what else it has beside data.
const FRAME_BYTES: usize = 64 * 1024;
const DEAD: &str = "/console/subscriptions/mountain-weather/fraud-dead";

fn wide() -> Site {
    let site = Site::new();
    site.data.wide.store(WIDE, Ordering::Relaxed);
    site
}

#[tokio::test]
async fn a_wide_cell_is_cut_and_a_full_page_ends() {
    let site = wide();
    let cookie = site.sign_in("lvd_analyst").await;
    let form = format!("csrf={}&sql=SELECT+1", site.csrf(&cookie).await);
    let page = site.post("/console/sql", &cookie, &form).await;
    assert_eq!(page.status, 200);
    assert!(page.text.len() < PAGE_BYTES + FRAME_BYTES, "{} bytes", page.text.len());
    for shown in [
        "&quot;<span class=\"faint\">… (300,000 characters)</span></td>",
        "<strong>The first 3",
        "no room for further rows",
        "Values longer than 1,000 characters are cut. POST /v1/sql",
    ] {
        assert!(page.text.contains(shown), "{shown}");
    }
    let part = Request::post("/console/sql").header("cookie", &cookie).header("x-part", "result");
    let part = site.read(part.body(Body::from(form)).expect("a request")).await;
    assert!(part.text.len() <= PAGE_BYTES + 1_024 && part.text.contains("no room"), "{}", part.text.len());

    site.data.wide.store(1_001, Ordering::Relaxed);
    let form = format!("csrf={}&sql=SELECT+1", site.csrf(&cookie).await);
    let page = site.post("/console/sql", &cookie, &form).await;
    assert!(page.text.contains("… (1,001 characters)"));
    site.data.wide.store(300, Ordering::Relaxed);
    let page = site.post("/console/sql", &cookie, &form).await;
    assert!(page.text.contains("<strong>480 rows</strong>") && !page.text.contains("are cut"));
    assert!(!page.text.contains("no room"), "what fits stays as it is");
}

#[tokio::test]
async fn what_is_wrong_with_a_wide_value_does_not_bring_the_value() {
    let site = wide();
    let cookie = site.sign_in("lvd_analyst").await;
    let form = format!("csrf={}&sql=SELECT+CAST", site.csrf(&cookie).await);
    let page = site.post("/console/sql", &cookie, &form).await;
    assert_eq!(page.status, 422);
    assert!(
        page.text.contains("… (300,015 characters)") && page.text.len() < FRAME_BYTES,
        "{}",
        page.text.len()
    );
}

#[tokio::test]
async fn wide_messages_and_letters_are_shown_by_their_beginning() {
    let site = wide();
    let cookie = site.sign_in("lvd_admin").await;
    for (path, most_bytes) in [
        (format!("{DEAD}/messages"), 1 << 20),
        (format!("{DEAD}/messages/48211"), 1 << 20),
        ("/console/dead-letters".to_owned(), 1 << 20),
        ("/console/dead-letters/checkins-dlq/1".to_owned(), 1 << 20),
        ("/console/pipelines".to_owned(), 256 << 10),
    ] {
        let page = site.get(&path, &cookie).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text.len() < most_bytes + FRAME_BYTES, "{path}: {} bytes", page.text.len());
        assert!(page.text.contains(" characters)</span>"), "{path}");
    }
    let whole = site.get("/console/dead-letters/checkins-dlq/1/body", &cookie).await;
    assert_eq!(whole.text.len(), WIDE, "the download has all");
    let form = site.get(&format!("{DEAD}/messages/48211"), &cookie).await;
    assert!(form.text.contains("1 more that are too long") && form.text.contains("sent as it is"));
    let live = site.send(
        Request::get("/console/live?view=pipelines")
            .header("cookie", &cookie)
            .body(Body::empty())
            .expect("a request"),
    );
    let mut body = live.await.into_body().into_data_stream();
    let first = futures::StreamExt::next(&mut body).await.expect("an event").expect("a chunk");
    assert!(first.len() < 256 << 10, "{} bytes", first.len());
}
