//! Messages of a subscription: looked at, edited, and sent back; weights of tenants.

use axum::http::StatusCode;
use levada_console::RedriveOrder;

use super::site::Site;

const DEAD: &str = "/console/subscriptions/mountain-weather/fraud-dead";

#[tokio::test]
async fn messages_are_shown_newest_first_with_reason_and_body_page_by_page() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let about = site.get(DEAD, &cookie).await;
    assert!(about.text.contains("Look at its messages"));
    let first = site.get(&format!("{DEAD}/messages"), &cookie).await;
    for shown in [
        "delivery-parked",
        "5 deliveries failed",
        "&lt;b&gt;odd&lt;/b&gt;",
        "no such place",
        "0a 07 75 ff",
        "priority=high",
        "key user-0",
        "rel=\"next\"",
        "Send dead letters back",
    ] {
        assert!(first.text.contains(shown), "{shown}");
    }
    assert!(first.text.contains("48211") && !first.text.contains("48100"));
    assert!(!first.text.contains("levada.dead.code="), "what the letter is about has a column of its own");
    let next = site.get(&format!("{DEAD}/messages?before=48112"), &cookie).await;
    assert!(
        next.text.contains("48111") && next.text.contains("Newest") && !next.text.contains("rel=\"next\"")
    );
    let bad = site.get(&format!("{DEAD}/messages?filter=%21"), &cookie).await;
    assert!(bad.text.contains("breaks off") && bad.text.contains("value=\"!\""), "{}", bad.text);
    let none = site.get("/console/subscriptions/mountain-weather/huts/messages", &cookie).await;
    assert!(none.text.contains("No messages") && !none.text.contains("Send dead letters back"));
}

#[tokio::test]
async fn a_redrive_is_ordered_by_a_form_and_told_of() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let token = site.get(&format!("{DEAD}/messages"), &cookie).await.csrf();
    let post = async |form: String| site.post(&format!("{DEAD}/redrive"), &cookie, &form).await;
    assert_eq!(post("limit=5".into()).await.status, StatusCode::FORBIDDEN, "no token");
    post(format!("csrf={token}&filter=attributes%3Atype&limit=50&rate=2.5")).await;
    let expected = RedriveOrder { filter: "attributes:type".into(), limit: 50, rate_per_s: Some(2.5) };
    assert_eq!(*site.data.redriven.lock(), [expected]);
    let told = site.get(&format!("{DEAD}/messages"), &cookie).await;
    assert!(
        told.text.contains("50 messages sent back, 3 left alone by the filter; 2 refused:"),
        "{}",
        told.text
    );
    for form in ["limit=0", "limit=10001", "limit=x", "limit=5&rate=0", "limit=5&rate=fast"] {
        post(format!("csrf={token}&{form}")).await;
        assert!(site.get(DEAD, &cookie).await.text.contains("role=\"alert\""), "{form}");
    }
    assert_eq!(site.data.redriven.lock().len(), 1);
}

#[tokio::test]
async fn a_dead_letter_is_edited_in_a_form_that_keeps_what_was_typed() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let place = format!("{DEAD}/messages/48211");
    let page = site.get(&place, &cookie).await;
    for shown in [
        "delivery-attempts-exhausted",
        "<textarea",
        "&quot;user_id&quot;: &quot;u-0&quot;",
        "CloudPubSubDeadLetterSourceSubscription",
    ] {
        assert!(page.text.contains(shown), "{shown}");
    }
    assert!(!page.text.contains("value=\"tenant_id\""), "whose it is cannot be edited");
    let token = page.csrf();
    let post = async |form: &str| site.post(&place, &cookie, form).await;
    assert_eq!(post("body=x").await.status, StatusCode::FORBIDDEN, "no token");
    let refused = post(&format!("csrf={token}&body=mended&name=goog&value=1")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    for kept in ["mended</textarea>", "value=\"goog\"", "may not begin"] {
        assert!(refused.text.contains(kept), "{kept}: {}", refused.text);
    }
    let sent = post(&format!("csrf={token}&body=mended&name=type&value=checkin&name=by&value=hand")).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER);
    let edit = site.data.edits.lock().last().cloned().expect("an edit");
    assert_eq!(edit.body.as_deref(), Some(&b"mended"[..]));
    let expected = [("by", Some("hand")), ("priority", None)];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
    assert_eq!(edit.attributes, expected.into());
    let list = site.get(&format!("{DEAD}/messages"), &cookie).await;
    assert!(list.text.contains("was sent to mountain-weather/checkins as message 90210."));
    assert_eq!(site.get(&place, &cookie).await.status, StatusCode::NOT_FOUND, "it is gone");
    let binary = site.get(&format!("{DEAD}/messages/48208"), &cookie).await;
    assert!(binary.text.contains("sent as it is") && !binary.text.contains("<textarea"));
    let file = site.get(&format!("{DEAD}/messages/48208/body"), &cookie).await;
    assert_eq!(file.header(axum::http::header::CONTENT_TYPE), "application/octet-stream");
}

#[tokio::test]
async fn weights_are_set_and_taken_away() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let page = site.get(DEAD, &cookie).await;
    assert!(page.text.contains("Weights of tenants") && page.text.contains("Take the weight of coast away"));
    let token = page.csrf();
    let post = async |form: &str| site.post(&format!("{DEAD}/weights"), &cookie, form).await;
    assert_eq!(post("tenant=alpine&weight=5").await.status, StatusCode::FORBIDDEN, "no token");
    post(&format!("csrf={token}&tenant=alpine&weight=5")).await;
    post(&format!("csrf={token}&remove=coast")).await;
    assert_eq!(*site.data.weights.lock(), [("alpine".to_owned(), 5)].into());
    for bad in
        ["tenant=alpine&weight=0", "tenant=alpine&weight=1001", "tenant=alpine&weight=x", "tenant=alpine"]
    {
        post(&format!("csrf={token}&{bad}")).await;
        assert!(site.get(DEAD, &cookie).await.text.contains("role=\"alert\""), "{bad}");
    }
    assert_eq!(site.data.weights.lock()["alpine"], 5);
}

#[tokio::test]
async fn who_may_not_operate_or_see_does_none_of_it() {
    let site = Site::new();
    let alpine = site.sign_in("lvd_alpine").await;
    let token = site.get("/console/subscriptions", &alpine).await.csrf();
    for path in
        [format!("{DEAD}/messages"), format!("{DEAD}/messages/48211"), format!("{DEAD}/messages/48211/body")]
    {
        assert_eq!(site.get(&path, &alpine).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    site.post(&format!("{DEAD}/weights"), &alpine, &format!("csrf={token}&tenant=alpine&weight=5")).await;
    let sent = site.post(&format!("{DEAD}/messages/48211"), &alpine, &format!("csrf={token}&body=x")).await;
    assert_eq!(sent.status, StatusCode::NOT_FOUND);
    let analyst = site.sign_in("lvd_analyst").await;
    let token = site.csrf(&analyst).await;
    for (path, form) in
        [("weights", "tenant=coast&weight=5"), ("redrive", "limit=5"), ("messages/48211", "body=x")]
    {
        let answer = site.post(&format!("{DEAD}/{path}"), &analyst, &format!("csrf={token}&{form}")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert!(site.data.redriven.lock().is_empty() && site.data.edits.lock().is_empty());
    assert_eq!(site.data.weights.lock().len(), 1);
}

#[tokio::test]
async fn a_replay_shows_how_far_it_is() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let page = site.get("/console/subscriptions/mountain-weather/fraud-again", &cookie).await;
    for shown in ["Replay of ", "20,311", " to go.", "30 %"] {
        assert!(page.text.contains(shown), "{shown}");
    }
    let done = site.get("/console/subscriptions/mountain-weather/october", &cookie).await;
    assert!(done.text.contains("finished."));
    let list = site.get("/console/subscriptions", &cookie).await;
    assert!(list.text.contains("replay, finished"));
    let topics = site.get("/console/topics", &cookie).await;
    assert!(topics.text.contains("by checkin_id within 6 h") && topics.text.contains("a crash may lose"));
}
