//! What the port promises, one rule a test.

use std::time::Duration;

use levada_core::{Message, TenantSet, attr};

use super::*;
use crate::port::{DeadLetterPolicy, RetryPolicy, SeekTo, Unblock};

const DEADLINE: Duration = Duration::from_secs(10);

fn with(message: Message, attributes: &[(&str, &str)], key: Option<&str>) -> Message {
    Message { attributes: attributes.iter().copied().collect(), ordering_key: key.map(Into::into), ..message }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_what_is_does_not_even_after_a_restart() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    port.publish(&topic, &["before"]).await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    let published = port.publish(&topic, &["a", "b", "c"]).await;
    let first = subscription.pull(limits(10)).await.expect("pulls");
    assert_eq!(bodies(&first), ["a", "b", "c"], "and nothing from before it was there");
    assert_eq!(first.iter().map(|r| r.message_id).collect::<Vec<_>>(), published);
    assert!(subscription.pull(limits(10)).await.expect("pulls").is_empty(), "all are on lease");
    acknowledge(&subscription, &first[..1]).await;
    refuse(&subscription, &first[1..2]).await;
    let again = subscription.pull(limits(10)).await.expect("pulls");
    assert_eq!((bodies(&again), again[0].delivery_attempt), (vec!["b"], 2));
    port.advance(DEADLINE);
    let expired = subscription.pull(limits(10)).await.expect("pulls");
    assert_eq!(bodies(&expired).len(), 2, "both leases ended");
    let late = subscription.acknowledge(ids(&first[2..])).await.expect("acknowledges");
    assert_eq!(late, [AckOutcome::Done], "a late acknowledgement still counts");
    drop(subscription);
    let port = port.restart().await;
    let subscription = port.open_subscription("acme/billing");
    let left = subscription.pull(limits(10)).await.expect("pulls");
    assert_eq!(bodies(&left), ["b"]);
    assert_eq!(left[0].delivery_attempt, 4, "attempts are counted across the restart");
    let stats = subscription.stats();
    assert_eq!((stats.backlog_messages, stats.leased), (1, 1));
}

#[tokio::test]
async fn exactly_once_knows_the_newest_lease_only() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |spec| spec.exactly_once = true).await;
    port.publish(&topic, &["a", "b"]).await;
    let first = subscription.pull(limits(1)).await.expect("pulls");
    port.advance(DEADLINE);
    let second = subscription.pull(limits(1)).await.expect("pulls");
    assert_eq!(bodies(&second), ["a"], "its lease has ended");
    let outcomes = subscription.acknowledge(ids(&first)).await.expect("answers");
    assert_eq!(outcomes, [AckOutcome::InvalidAckId]);
    acknowledge(&subscription, &second).await;
    assert_eq!(subscription.acknowledge(ids(&second)).await.expect("answers"), [AckOutcome::Done], "again");
    let third = subscription.pull(limits(1)).await.expect("pulls");
    assert_eq!(bodies(&third), ["b"]);
    drop(subscription);
    let port = port.restart().await;
    let subscription = port.open_subscription("acme/billing");
    let outcomes = subscription.acknowledge(ids(&third)).await.expect("answers");
    assert_eq!(outcomes, [AckOutcome::InvalidAckId], "leases end with the process");
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["b"]);
}

#[tokio::test]
async fn a_filter_and_a_tenant_narrow_a_subscription() {
    let port = fresh();
    let topic = port.topic("shared/orders").await;
    let paid =
        port.subscribe("shared/paid", &topic, |s| s.filter = "attributes.state = \"paid\"".into()).await;
    let own = port.subscribe("shared/own", &topic, |s| s.tenant = Some(tenant("globex"))).await;
    let messages = vec![
        with(message("acme", "1"), &[("state", "paid")], None),
        with(message("globex", "2"), &[("state", "open")], None),
        with(message("globex", "3"), &[("state", "paid")], None),
    ];
    port.try_publish(&topic, messages).await.expect("published");
    assert_eq!(bodies(&paid.pull(limits(9)).await.expect("pulls")), ["1", "3"]);
    assert_eq!(bodies(&own.pull(limits(9)).await.expect("pulls")), ["2", "3"]);
    let wrong = SubscriptionSpec {
        filter: "state = paid".into(),
        ..SubscriptionSpec::new(name("shared/bad"), topic)
    };
    let refused = port.port.create_subscription(wrong).await;
    assert!(matches!(refused, Err(PortError::InvalidArgument(_))), "{refused:?}");
}

#[tokio::test]
async fn one_message_of_a_key_is_under_way_and_the_next_follow_it_again() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |spec| spec.ordered = true).await;
    let keyed = |body: &str, key: &str| with(message("acme", body), &[], Some(key));
    let messages =
        vec![keyed("a1", "a"), keyed("a2", "a"), keyed("b1", "b"), keyed("a3", "a"), message("acme", "free")];
    port.try_publish(&topic, messages).await.expect("published");
    let first = subscription.pull(singly()).await.expect("pulls");
    assert_eq!(bodies(&first), ["a1", "b1", "free"]);
    refuse(&subscription, &first[..1]).await;
    let again = subscription.pull(singly()).await.expect("pulls");
    assert_eq!(bodies(&again), ["a1"]);
    let blocked = subscription.blocked_keys(10);
    assert_eq!((blocked.len(), &*blocked[0].key, blocked[0].waiting), (1, "a", 2));
    acknowledge(&subscription, &again).await;
    let next = subscription.pull(singly()).await.expect("pulls");
    assert_eq!(bodies(&next), ["a2"]);
    subscription.unblock(&tenant("acme"), "a", Unblock::Skip).await.expect("skips");
    assert_eq!(bodies(&subscription.pull(singly()).await.expect("pulls")), ["a3"], "a2 was skipped");
}

#[tokio::test]
async fn a_message_that_fails_too_often_moves_to_the_dead_letter_once() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let dead = port.topic("acme/dead").await;
    let graves = port.subscribe("acme/graves", &dead, |_| {}).await;
    let policy = DeadLetterPolicy { topic: dead.clone(), max_delivery_attempts: 5 };
    let subscription = port.subscribe("acme/billing", &topic, |spec| spec.dead_letter = Some(policy)).await;
    port.try_publish(&topic, vec![with(message("acme", "bad"), &[("kind", "x")], None)])
        .await
        .expect("published");
    for attempt in 1..=5 {
        let received = subscription.pull(limits(9)).await.expect("pulls");
        assert_eq!(received.iter().map(|r| r.delivery_attempt).collect::<Vec<_>>(), [attempt]);
        refuse(&subscription, &received).await;
    }
    assert!(subscription.pull(limits(9)).await.expect("pulls").is_empty());
    let found = graves.pull(limits(9)).await.expect("pulls");
    assert_eq!(bodies(&found), ["bad"]);
    let attributes = &found[0].message.attributes;
    assert_eq!(attributes.get("kind"), Some("x"));
    assert_eq!(attributes.get("CloudPubSubDeadLetterSourceDeliveryCount"), Some("5"));
    assert_eq!(attributes.get("CloudPubSubDeadLetterSourceSubscription"), Some("billing"));
    assert_eq!(attributes.get("CloudPubSubDeadLetterSourceSubscriptionProject"), Some("acme"));
    assert!(attributes.get("CloudPubSubDeadLetterSourceTopicPublishTime").is_some_and(|t| t.ends_with('Z')));
    assert_eq!(attributes.get(attr::DEAD_CODE), Some("delivery-attempts-exhausted"));
    assert_eq!(attributes.get(attr::DEAD_REASON), Some("5 deliveries failed"));
    assert_eq!(attributes.get(attr::DEAD_STAGE), Some("subscription acme/billing"));
    assert_eq!(subscription.stats().dead_lettered, 1);
    drop((subscription, graves));
    let port = port.restart().await;
    let subscription = port.open_subscription("acme/billing");
    assert!(subscription.pull(limits(9)).await.expect("pulls").is_empty(), "it does not come back");
    // Without its topic nothing can be moved, and nothing is lost.
    port.port.delete_topic(&dead).await.expect("deleted");
    port.publish(&topic, &["worse"]).await;
    for _ in 1..=7 {
        let received = subscription.pull(limits(9)).await.expect("pulls");
        assert_eq!(bodies(&received), ["worse"]);
        refuse(&subscription, &received).await;
    }
}

#[tokio::test]
async fn failures_wait_as_long_as_the_policy_says() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let policy = RetryPolicy { minimum_backoff: DEADLINE, maximum_backoff: 2 * DEADLINE };
    let subscription = port.subscribe("acme/billing", &topic, |spec| spec.retry = Some(policy)).await;
    port.publish(&topic, &["a"]).await;
    for wait in [1, 2, 2] {
        let received = subscription.pull(limits(9)).await.expect("pulls");
        refuse(&subscription, &received).await;
        port.advance(wait * DEADLINE - Duration::from_millis(1));
        assert!(subscription.pull(limits(9)).await.expect("pulls").is_empty());
        port.advance(Duration::from_millis(1));
    }
    assert_eq!(subscription.pull(limits(9)).await.expect("pulls").len(), 1);
}

#[tokio::test]
async fn a_message_comes_when_it_is_due() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    let later = with(message("acme", "later"), &[("levada.delay_ms", "60000")], None);
    port.try_publish(&topic, vec![later, message("acme", "now")]).await.expect("published");
    let wrong = with(message("acme", "never"), &[("levada.delay_ms", "soon")], None);
    let context = TenantContext::system(tenant("acme"), "test");
    let results = port.port.publish(&topic, vec![Publication::new(context, wrong)]).await.expect("answers");
    assert_eq!(results[0].as_ref().expect_err("refused").code, "schedule-invalid");
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["now"]);
    drop(subscription);
    let port = port.restart().await;
    let subscription = port.open_subscription("acme/billing");
    port.advance(Duration::from_secs(59));
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["now"]);
    port.advance(Duration::from_secs(1));
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["later"]);
}

#[tokio::test]
async fn a_seek_by_time_brings_back_what_is_retained_and_drops_what_came_before() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let keeps = port.subscribe("acme/keeps", &topic, |spec| spec.retain_acked = true).await;
    let drops = port.subscribe("acme/drops", &topic, |_| {}).await;
    port.publish(&topic, &["a"]).await;
    port.advance(Duration::from_secs(60));
    let middle_ms = START_MS + 60_000;
    port.publish(&topic, &["b", "c"]).await;
    for subscription in [&keeps, &drops] {
        let received = subscription.pull(limits(2)).await.expect("pulls");
        acknowledge(subscription, &received).await;
    }
    port.port.seek(&name("acme/keeps"), SeekTo::TimeMs(middle_ms)).await.expect("seeks");
    port.port.seek(&name("acme/drops"), SeekTo::TimeMs(middle_ms)).await.expect("seeks");
    assert_eq!(bodies(&keeps.pull(limits(9)).await.expect("pulls")), ["b", "c"]);
    assert_eq!(bodies(&drops.pull(limits(9)).await.expect("pulls")), ["c"], "b is not retained");
    port.port.seek(&name("acme/drops"), SeekTo::TimeMs(middle_ms + 3_600_000)).await.expect("seeks");
    port.publish(&topic, &["d"]).await;
    assert_eq!(bodies(&drops.pull(limits(9)).await.expect("pulls")), ["d"], "published after the seek");
    drop((keeps, drops));
    let port = port.restart().await;
    port.advance(Duration::from_secs(7_200));
    port.publish(&topic, &["e"]).await;
    let drops = port.open_subscription("acme/drops");
    let received = drops.pull(limits(9)).await.expect("pulls");
    let mut left = bodies(&received);
    left.sort();
    assert_eq!(left, ["d", "e"], "d was not acknowledged");
}

#[tokio::test]
async fn a_snapshot_is_a_state_to_come_back_to() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    port.publish(&topic, &["a", "b", "c"]).await;
    let received = subscription.pull(limits(9)).await.expect("pulls");
    acknowledge(&subscription, &received[1..2]).await;
    let snapshot =
        port.port.create_snapshot(name("acme/then"), &name("acme/billing"), Default::default()).await;
    assert_eq!(snapshot.expect("made").expires_at_ms, START_MS + 7 * 24 * 3_600_000);
    acknowledge(&subscription, &received).await;
    drop(subscription);
    let port = port.restart().await;
    port.publish(&topic, &["d"]).await;
    port.port.seek(&name("acme/billing"), SeekTo::Snapshot(name("acme/then"))).await.expect("seeks");
    let subscription = port.open_subscription("acme/billing");
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["a", "c", "d"]);
    port.advance(Duration::from_secs(8 * 24 * 3600));
    let gone = port.port.snapshot(&name("acme/then"));
    assert!(matches!(gone, Err(PortError::NotFound { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_topic_made_again_is_another_one() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    port.publish(&topic, &["old"]).await;
    let twice = port.port.create_topic(TopicSpec::new(topic.clone())).await;
    assert!(matches!(twice, Err(PortError::AlreadyExists { .. })), "{twice:?}");
    port.port.delete_topic(&topic).await.expect("deleted");
    assert!(matches!(
        port.try_publish(&topic, vec![message("acme", "x")]).await,
        Err(PortError::NotFound { .. })
    ));
    let port = port.restart().await;
    port.topic("acme/orders").await;
    port.publish(&topic, &["new"]).await;
    let subscription_spec = port.open_subscription("acme/billing").spec();
    assert_eq!(subscription_spec.topic, None, "it keeps the old one's backlog and gets nothing new");
    drop(subscription);
    let subscription = port.open_subscription("acme/billing");
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["old"]);
}

#[tokio::test]
async fn topics_of_the_project_folder_are_topics_of_the_home_project() {
    let port = fresh();
    let orders = name("home/orders");
    let listed = port.port.topics(&orders.project, &Default::default()).items;
    assert_eq!(listed.iter().map(|t| t.name.to_string()).collect::<Vec<_>>(), ["home/orders"]);
    let refused = port.port.delete_topic(&orders).await;
    assert!(matches!(refused, Err(PortError::FailedPrecondition(_))), "{refused:?}");
    let subscription = port.subscribe("home/billing", &orders, |_| {}).await;
    let event = crate::tests::event("acme", Some("k"), "by the gateway");
    port.world.bus.publish(&crate::tests::topic("orders"), vec![event]).await.expect("published");
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["by the gateway"]);
    port.topic("home/made").await;
    assert!(
        port.world.bus.topics().iter().all(|t| t.name.as_str() == "orders"),
        "those of the port stay apart"
    );
}

#[tokio::test]
async fn dead_letters_of_pipelines_and_of_subscriptions_are_one_topic() {
    let port = fresh();
    let dead = port.topic("home/orders-dlq").await;
    let graves = port.subscribe("home/graves", &dead, |_| {}).await;
    let policy = DeadLetterPolicy { topic: dead.clone(), max_delivery_attempts: 5 };
    let orders = name("home/orders");
    let failing = port.subscribe("home/failing", &orders, |spec| spec.dead_letter = Some(policy)).await;
    port.publish(&orders, &["bad"]).await;
    for _ in 1..=5 {
        let received = failing.pull(limits(9)).await.expect("pulls");
        refuse(&failing, &received).await;
    }
    let letter = crate::DeadLetter {
        tenant: tenant("acme"),
        code: "schema-type".into(),
        reason: "a text is no number".into(),
        stage: "validate".into(),
        attempts: 1,
        pipeline: "orders".into(),
        position: "7".into(),
        attributes: Attributes::default(),
        ordering_key: None,
        body: Bytes::from_static(b"worse"),
        idempotency_key: "orders:7".into(),
        resendable: true,
    };
    port.world.bus.dead_letter(&crate::tests::topic("orders"), vec![letter]).await.expect("written");
    assert_eq!(bodies(&graves.pull(limits(9)).await.expect("pulls")), ["bad", "worse"]);
    let filter = crate::DeadFilter { limit: 10, ..crate::DeadFilter::default() };
    let listed = port.world.bus.dead_letters(&TenantSet::All, &filter).expect("lists");
    let codes: Vec<_> = listed.iter().map(|entry| entry.attribute(attr::DEAD_CODE)).collect();
    assert_eq!(codes, ["schema-type", "delivery-attempts-exhausted"]);
    let twice = port.port.create_topic(TopicSpec::new(dead)).await;
    assert!(matches!(twice, Err(PortError::AlreadyExists { .. })), "{twice:?}");
}

#[tokio::test]
async fn a_detached_subscription_is_empty_for_good_and_a_deleted_one_is_gone() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    port.publish(&topic, &["a"]).await;
    port.port.detach_subscription(&name("acme/billing")).await.expect("detaches");
    let refused = subscription.pull(limits(9)).await;
    assert!(matches!(refused, Err(PortError::FailedPrecondition(_))), "{refused:?}");
    assert!(port.port.topic_subscriptions(&topic, &Default::default()).expect("lists").items.is_empty());
    port.port.delete_subscription(&name("acme/billing")).await.expect("deleted");
    assert!(matches!(subscription.pull(limits(9)).await, Err(PortError::NotFound { .. })));
    let again = port.subscribe("acme/billing", &topic, |_| {}).await;
    assert!(again.pull(limits(9)).await.expect("pulls").is_empty(), "it begins anew");
}

#[tokio::test]
async fn subscriptions_that_nobody_uses_expire_and_old_messages_go() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let day = Duration::from_secs(24 * 3600);
    let used = port.subscribe("acme/used", &topic, |spec| spec.retention = day).await;
    port.subscribe("acme/unused", &topic, |_| {}).await;
    port.publish(&topic, &["old"]).await;
    port.advance(30 * day);
    port.publish(&topic, &["new"]).await;
    port.visible(&topic).await;
    port.world.bus.maintain().await.expect("maintains");
    assert_eq!(bodies(&used.pull(limits(9)).await.expect("pulls")), ["new"]);
    port.advance(2 * day);
    port.world.bus.maintain().await.expect("maintains");
    assert!(port.port.subscription(&name("acme/unused")).is_err(), "31 days have passed");
    assert!(port.port.subscription(&name("acme/used")).is_ok());
}

#[tokio::test]
async fn a_late_acknowledgement_means_nothing_to_a_subscription_made_again() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let first = port.subscribe("acme/billing", &topic, |_| {}).await;
    port.publish(&topic, &["old"]).await;
    let held = first.pull(limits(9)).await.expect("pulls");
    port.port.delete_subscription(&name("acme/billing")).await.expect("deleted");
    let again = port.subscribe("acme/billing", &topic, |_| {}).await;
    port.publish(&topic, &["new"]).await;
    assert_eq!(bodies(&again.pull(limits(9)).await.expect("pulls")), ["new"]);
    let _ = again.acknowledge(ids(&held)).await.expect("answers");
    port.advance(DEADLINE);
    assert_eq!(bodies(&again.pull(limits(9)).await.expect("pulls")), ["new"], "nobody acknowledged it");
}

#[tokio::test]
async fn what_only_the_topic_retains_stays_after_a_seek_to_it() {
    let port = fresh();
    let day = Duration::from_secs(24 * 3600);
    let spec = TopicSpec { retention: Some(31 * day), ..TopicSpec::new(name("acme/orders")) };
    let topic = port.port.create_topic(spec).await.expect("a topic").name;
    let subscription = port.subscribe("acme/billing", &topic, |spec| spec.expires_after = None).await;
    port.publish(&topic, &["old"]).await;
    port.visible(&topic).await;
    let received = subscription.pull(limits(9)).await.expect("pulls");
    acknowledge(&subscription, &received).await;
    port.advance(20 * day);
    port.port.seek(&name("acme/billing"), SeekTo::TimeMs(START_MS)).await.expect("seeks");
    port.world.bus.maintain().await.expect("maintains");
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["old"]);
}

#[tokio::test]
async fn a_schedule_beyond_the_retention_comes_before_the_message_would_be_gone() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let hour = Duration::from_secs(3600);
    let subscription = port.subscribe("acme/billing", &topic, |spec| spec.retention = hour).await;
    let later = with(message("acme", "later"), &[("levada.delay_ms", "7200000")], None);
    port.try_publish(&topic, vec![later]).await.expect("published");
    assert!(subscription.pull(limits(9)).await.expect("pulls").is_empty());
    port.advance(hour - hour / 10);
    assert_eq!(bodies(&subscription.pull(limits(9)).await.expect("pulls")), ["later"]);
}

#[tokio::test]
async fn a_pull_counts_large_messages_among_small_ones_by_their_size() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    let small = "s".repeat(100);
    let large = "L".repeat(8_000);
    let sent: Vec<&str> = std::iter::repeat_n(&*large, 3).chain(std::iter::repeat_n(&*small, 50)).collect();
    port.publish(&topic, &sent).await;
    let mut all = 0;
    while all < sent.len() {
        let received =
            subscription.pull(PullLimits { max_bytes: 10_000, ..limits(100) }).await.expect("pulls");
        let bytes: usize = received.iter().map(|r| r.message.body.len()).sum();
        assert!(!received.is_empty() && bytes <= 10_000, "{} messages, {bytes} bytes", received.len());
        acknowledge(&subscription, &received).await;
        all += received.len();
    }
    assert_eq!(subscription.stats().backlog_messages, 0);
}

#[tokio::test]
async fn a_waiting_pull_ends_with_the_next_message() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    let waiting = PullLimits { wait: Duration::from_secs(30), ..limits(9) };
    let publish = async {
        tokio::task::yield_now().await;
        port.publish(&topic, &["a"]).await
    };
    let (received, _) = tokio::join!(subscription.pull(waiting), publish);
    assert_eq!(bodies(&received.expect("pulls")), ["a"]);
}

#[tokio::test]
async fn lists_come_in_pages_of_one_project() {
    let port = fresh();
    for n in 0..7 {
        port.topic(&format!("acme/topic{n}")).await;
        port.topic(&format!("globex/topic{n}")).await;
    }
    let (mut found, mut request) = (Vec::new(), crate::port::PageRequest { size: 3, after: None });
    loop {
        let page = port.port.topics(&name("acme/x00").project, &request);
        assert!(page.items.len() <= 3);
        found.extend(page.items.into_iter().map(|t| t.name.to_string()));
        match page.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, (0..7).map(|n| format!("acme/topic{n}")).collect::<Vec<_>>());
}
