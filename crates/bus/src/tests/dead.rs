//! Dead letters: kept once with reason and bytes, listed and sent again by their tenants only.

use std::time::Duration;

use bytes::Bytes;
use levada_core::attr;

use super::{World, fresh, principal, tenant, topic};
use crate::{DeadFilter, DeadLetter};

fn letter(owner: &str, position: u64) -> DeadLetter {
    DeadLetter {
        tenant: tenant(owner),
        code: "schema-missing-field".into(),
        reason: "field `id` is missing".into(),
        stage: "validate".into(),
        attempts: 1,
        pipeline: "orders".into(),
        position: position.to_string(),
        attributes: [(attr::EVENT_TYPE, "order.made")].into_iter().collect(),
        ordering_key: None,
        body: Bytes::from_static(b"{\"amount\": \xff}"),
        idempotency_key: format!("orders:{position}:validate"),
        resendable: true,
    }
}

async fn visible(world: &World, name: &str, records: u64) {
    let mut end = world.bus.end(&topic(name)).expect("topic");
    end.wait_for(|end| *end >= records).await.expect("visible");
}

fn filter() -> DeadFilter {
    DeadFilter { limit: 100, ..DeadFilter::default() }
}

async fn with_letters() -> World {
    let world = fresh();
    let letters = vec![letter("acme", 1), letter("globex", 2), letter("acme", 3)];
    assert_eq!(world.bus.dead_letter(&topic("orders"), letters).await.expect("written"), 3);
    let mut end = world.bus.end(&topic("orders-dlq")).expect("topic");
    end.wait_for(|end| *end >= 3).await.expect("visible");
    world
}

#[tokio::test]
async fn a_replay_does_not_write_a_dead_letter_twice_even_after_a_restart() {
    let world = with_letters().await;
    assert_eq!(world.bus.dead_letter(&topic("orders"), vec![letter("acme", 1)]).await.expect("known"), 0);
    let world = world.restart(Duration::from_secs(86_400)).await;
    let again = vec![letter("acme", 1), letter("acme", 9)];
    assert_eq!(world.bus.dead_letter(&topic("orders"), again).await.expect("one is new"), 1);
}

#[tokio::test]
async fn a_tenant_sees_and_resends_only_its_own() {
    let world = with_letters().await;
    let acme = principal(&["acme"]);
    let listed = world.bus.dead_letters(&acme.tenants, &filter()).expect("listed");
    let places: Vec<_> =
        listed.iter().map(|e| (e.offset, e.attribute(attr::DEAD_POSITION).to_owned())).collect();
    assert_eq!(places, [(2, "3".into()), (0, "1".into())]);
    assert_eq!(&listed[0].message.body[..], b"{\"amount\": \xff}", "the original bytes");
    assert_eq!(listed[0].attribute(attr::DEAD_REASON), "field `id` is missing");
    assert_eq!(world.bus.dead_letter_counts(&acme.tenants).expect("counted")["schema-missing-field"], 2);

    let stolen = world.bus.resend(&acme, &topic("orders-dlq"), Some(vec![1])).await.expect("answers");
    let missing = world.bus.resend(&acme, &topic("orders-dlq"), Some(vec![77])).await.expect("answers");
    assert_eq!((stolen.sent, stolen.refused[0].1.code.as_str()), (0, "dead-letter-unknown"));
    assert_eq!(stolen.refused[0].1.code, missing.refused[0].1.code);
    assert!(world.bus.read(&topic("orders"), 0, 10, 1 << 20).expect("readable").is_empty());
}

#[tokio::test]
async fn sending_again_is_done_once_and_remembered() {
    let world = with_letters().await;
    let acme = principal(&["acme"]);
    let dlq = topic("orders-dlq");
    let outcome = world.bus.resend(&acme, &dlq, None).await.expect("sent");
    assert_eq!((outcome.sent, outcome.already, outcome.refused.len()), (2, 0, 0));
    let world = world.restart(Duration::from_secs(3600)).await;
    let outcome = world.bus.resend(&acme, &dlq, Some(vec![0, 2])).await.expect("answers");
    assert_eq!((outcome.sent, outcome.already), (0, 2));
    let resent = world.bus.read(&topic("orders"), 0, 10, 1 << 20).expect("readable");
    assert_eq!(resent.len(), 2);
    let attributes = &resent[0].message.attributes;
    assert_eq!(attributes.get(attr::RESENT_FROM), Some("orders-dlq/0"));
    assert_eq!(attributes.get(attr::DEAD_REASON), None);
    assert_eq!(attributes.get(attr::EVENT_TYPE), Some("order.made"));
}

#[tokio::test]
async fn an_event_keeps_its_own_idempotency_key_in_its_dead_letter_and_when_it_is_sent_again() {
    let world = fresh();
    let own = || DeadLetter {
        attributes: [(attr::EVENT_TYPE, "order.made"), (attr::IDEMPOTENCY_KEY, "order-7")]
            .into_iter()
            .collect(),
        ..letter("acme", 7)
    };
    let (acme, dlq) = (principal(&["acme"]), topic("orders-dlq"));
    assert_eq!(world.bus.dead_letter(&topic("orders"), vec![own()]).await.expect("written"), 1);
    let world = world.restart(Duration::from_secs(86_400)).await;
    assert_eq!(world.bus.dead_letter(&topic("orders"), vec![own()]).await.expect("known"), 0);
    let listed = world.bus.dead_letters(&acme.tenants, &filter()).expect("listed");
    assert_eq!(listed[0].attribute(attr::IDEMPOTENCY_KEY), "order-7");
    assert_eq!(world.bus.resend(&acme, &dlq, None).await.expect("sent").sent, 1);
    visible(&world, "orders", 1).await;
    let sent = world.bus.read(&topic("orders"), 0, 10, 1 << 20).expect("readable");
    assert_eq!(sent[0].message.attributes.get(attr::IDEMPOTENCY_KEY), Some("order-7"));
    assert_eq!(sent[0].message.attributes.get(attr::DEAD_KEY), None);
    // What was sent again may fail again, which is another failure.
    let again = DeadLetter {
        attributes: sent[0].message.attributes.clone(),
        idempotency_key: "orders:8:validate".into(),
        ..own()
    };
    assert_eq!(world.bus.dead_letter(&topic("orders"), vec![again]).await.expect("new"), 1);
    visible(&world, "orders-dlq", 2).await;
    let listed = world.bus.dead_letters(&acme.tenants, &filter()).expect("listed");
    assert_eq!(listed[0].attribute(attr::IDEMPOTENCY_KEY), "order-7");
}

#[tokio::test]
async fn rows_of_files_say_that_the_file_must_be_mended() {
    let world = fresh();
    let mut row = letter("acme", 1);
    row.resendable = false;
    row.position = "orders.csv:17".into();
    world.bus.dead_letter(&topic("orders"), vec![row]).await.expect("written");
    let mut end = world.bus.end(&topic("orders-dlq")).expect("topic");
    end.wait_for(|end| *end >= 1).await.expect("visible");
    let outcome = world.bus.resend(&principal(&["acme"]), &topic("orders-dlq"), None).await.expect("answers");
    let problem = &outcome.refused[0].1;
    assert_eq!(problem.code, "dead-letter-from-file");
    assert!(problem.detail.contains("orders.csv:17"), "{problem}");
}

#[tokio::test]
async fn a_list_ends_after_some_megabytes_and_goes_on_where_it_ended() {
    /// Of these, 12 MB.
    const LETTERS: u64 = 600;
    let world = fresh();
    let dlq = topic("orders-dlq");
    for position in 0..LETTERS {
        let body = vec![b'x'; if position.is_multiple_of(3) { 10 } else { 30_000 }];
        let letter = DeadLetter { body: body.into(), ..letter("acme", position) };
        assert_eq!(world.bus.dead_letter(&topic("orders"), vec![letter]).await.expect("written"), 1);
    }
    visible(&world, "orders-dlq", LETTERS).await;
    let tenants = principal(&["acme"]).tenants;
    let mut listed = Vec::new();
    let mut filter = DeadFilter { topic: Some(dlq.clone()), limit: 1_000, ..DeadFilter::default() };
    loop {
        let page = world.bus.dead_letters(&tenants, &filter).expect("listed");
        let bytes: usize = page.iter().map(|entry| entry.message.body.len()).sum();
        assert!(bytes < crate::MAX_LISTED_BYTES + 30_000, "{bytes}");
        let Some(last) = page.last() else { break };
        filter.before = Some(last.offset);
        listed.extend(page.iter().map(|entry| entry.offset));
    }
    assert_eq!(listed, (0..LETTERS).rev().collect::<Vec<_>>());
    assert_eq!(world.bus.dead_letter_counts(&tenants).expect("counted")["schema-missing-field"], LETTERS);
    let some = world.bus.resend(&principal(&["acme"]), &dlq, Some(vec![3, 9_999, 4])).await.expect("answers");
    assert_eq!((some.sent, some.refused.len()), (2, 1));
    let rest = world.bus.resend(&principal(&["acme"]), &dlq, None).await.expect("answers");
    assert_eq!((rest.sent, rest.already, rest.more), (LETTERS as usize - 2, 0, false));
}
