//! Pages that show figures: what each step did, the last epochs, what the zones hold.

use super::site::{Page, Site};

/// The words of a part of a page, without its marks.
fn words(page: &Page, id: &str) -> String {
    let start = page.text.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("there is a part {id}"));
    let part = &page.text[start..];
    let end = part.find("<section").unwrap_or(part.len());
    let mut words = String::new();
    for piece in part[..end].split('<').skip(1) {
        let text = piece.split_once('>').map_or("", |(_, text)| text).trim();
        if !text.is_empty() {
            words.push_str(text);
            words.push(' ');
        }
    }
    words
}

#[tokio::test]
async fn a_pipelines_page_shows_what_each_step_did_and_the_last_epochs() {
    let site = Site::new();
    let page = site.get("/console/pipelines/checkins", &site.sign_in("lvd_admin").await).await;
    let steps = words(&page, "live-steps");
    let step =
        "deduplicate by event_id, within 1 h or 1,000,000 keys in 11.2 M out 11.1 M dropped 46,500 dead 0";
    assert!(
        steps.contains("validate schema checkin.json, strict in 11.2 M out 11.2 M dropped 0 dead 1,200"),
        "{steps}"
    );
    assert!(steps.contains(step), "{steps}");
    let epochs = words(&page, "live-epochs");
    assert!(
        epochs.starts_with(
            "Epoch Rows Files Took Committed 1,500 7,440 1 61 ms now 1,499 7,453 2 68 ms 5 s ago"
        ),
        "{epochs}"
    );
    assert!(
        epochs.contains("1,494 7,518 1 – 30 s ago"),
        "of epochs before a start it is not known: {epochs}"
    );
}

#[tokio::test]
async fn of_a_shared_pipeline_a_tenant_is_told_no_figure_of_all() {
    let site = Site::new();
    let page = site.get("/console/pipelines/checkins", &site.sign_in("lvd_alpine").await).await;
    let steps = words(&page, "live-steps");
    assert!(steps.contains("deduplicate by event_id") && !steps.contains(" dropped "), "{steps}");
    let epochs = words(&page, "live-epochs");
    assert!(epochs.contains("1,500 7,440 – – now"), "its own rows, and nothing of the others: {epochs}");
    let own = site.get("/console/pipelines/alpine.weather", &site.sign_in("lvd_alpine").await).await;
    assert!(words(&own, "live-steps").contains("in 72,000 out"), "{}", words(&own, "live-steps"));
}

#[tokio::test]
async fn a_backlog_that_nobody_knows_is_a_dash_and_no_zero() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let known = words(&site.get("/console/pipelines/checkins", &cookie).await, "live-figures");
    assert!(known.contains("Backlog 1,"), "{known}");
    let unknown = words(&site.get("/console/pipelines/example_source", &cookie).await, "live-figures");
    assert!(unknown.contains("Backlog – Epoch –"), "{unknown}");
}

#[tokio::test]
async fn dead_letters_are_asked_for_by_the_name_that_they_carry() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let page = site.get("/console/pipelines/alpine.weather", &cookie).await;
    assert!(page.text.contains("/console/dead-letters?pipeline=alpine%2Fweather"));
    let list = site.get("/console/pipelines", &cookie).await;
    assert!(list.text.contains("/console/dead-letters?pipeline=alpine%2Fweather"));
}

#[tokio::test]
async fn bronze_is_a_zone_among_the_others() {
    let site = Site::new();
    let cookie = site.sign_in("lvd_admin").await;
    let zones = words(&site.get("/console", &cookie).await, "live-channel");
    assert!(zones.contains("bronze 18.0 M 5 sources · 750 objects · 18.4 GiB"), "{zones}");
    assert!(zones.contains("silver 17.9 M 4 tables · 3.49 GiB"), "{zones}");
    let tables = site.get("/console/sql", &cookie).await;
    assert!(tables.text.contains("11,175,000 rows · 11,176 objects · 426 MiB"), "{}", tables.text);
    assert!(tables.text.contains("1,092 rows · 2 files · 42.7 KiB"), "{}", tables.text);
}
