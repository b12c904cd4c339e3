//! Whose a message is stays true whatever way it takes, and topics of one tenant stay its own.

use levada_core::{TenantSet, attr};
use levada_log::Append;

use super::admin::{admin, principal};
use super::*;
use crate::admin::{Edit, Redrive};
use crate::codec;
use crate::filter::Filter;
use crate::port::{DeadLetterPolicy, PageRequest, SeekTo, Unblock};

const FORGED: [(&str, &str); 2] = [(attr::TENANT_ID, "globex"), ("a", "b")];

fn forged(body: &str) -> Message {
    Message {
        attributes: FORGED.into_iter().collect(),
        ordering_key: Some("k".into()),
        ..message("acme", body)
    }
}

/// Writes a message past the publish, as an earlier version did that took every attribute.
async fn write(port: &Port, topic: &ResourceName, message: Message) {
    let inner = &port.world.bus.inner;
    let lane = inner.lane(&message.tenant).await.expect("a lane").id;
    let log = port.port.inner.topic(topic).expect("a topic").log;
    let head = codec::encode(&message);
    let record = Append { topic: log.id, lane, key_id: 0, timestamp_ms: START_MS, head, body: message.body };
    let written = inner.log.append_blocking(vec![record]).expect("written");
    log.committed.fetch_max(written[0] + 1, std::sync::atomic::Ordering::AcqRel);
    port.visible(topic).await;
}

fn owner(received: &[Received]) -> Vec<Option<&str>> {
    received.iter().map(|r| r.message.attributes.get(attr::TENANT_ID)).collect()
}

fn everything() -> Redrive {
    Redrive { filter: Filter::parse("").expect("everything"), limit: 100, rate_per_s: None }
}

/// What a subscription gets, acknowledged.
async fn take(subscription: &Arc<dyn SubscriptionPort>) -> Vec<Received> {
    let received = subscription.pull(limits(9)).await.expect("pulls");
    acknowledge(subscription, &received).await;
    received
}

#[tokio::test]
async fn a_publish_cannot_name_another_owner() {
    let port = fresh();
    for topic in ["home/orders", "acme/orders"] {
        let topic = if topic == "home/orders" { name(topic) } else { port.topic(topic).await };
        let id = format!("{}/all", topic.project);
        let all = port.subscribe(&id, &topic, |_| {}).await;
        port.try_publish(&topic, vec![forged("x"), message("acme", "y")]).await.expect("published");
        port.visible(&topic).await;
        let received = all.pull(limits(9)).await.expect("pulls");
        assert_eq!(owner(&received), [Some("acme"), None], "{topic}");
        assert_eq!(received[0].message.attributes.get("a"), Some("b"));
    }
}

#[tokio::test]
async fn a_dead_letter_of_a_tenants_project_says_whose_it_is_where_others_read_it() {
    let port = fresh();
    let orders = port.topic("acme/orders").await;
    let (shared, own) = (port.topic("shared/dead").await, port.topic("acme/dead").await);
    for (to, expected) in [(&shared, [Some("acme"), Some("acme")]), (&own, [Some("acme"), None])] {
        let policy = DeadLetterPolicy { topic: to.clone(), max_delivery_attempts: 5 };
        let set = |s: &mut SubscriptionSpec| {
            s.ordered = true;
            s.dead_letter = Some(policy);
        };
        let id = format!("acme/to-{}", to.project);
        let failing = port.subscribe(&id, &orders, set).await;
        let letters = port.subscribe(&format!("{}/letters", to.project), to, |_| {}).await;
        write(&port, &orders, forged("1")).await;
        write(&port, &orders, Message { ordering_key: Some("k".into()), ..message("acme", "2") }).await;
        assert!(!failing.pull(limits(9)).await.expect("pulls").is_empty());
        failing.unblock(&tenant("acme"), "k", Unblock::Park).await.expect("parked");
        port.visible(to).await;
        assert_eq!(owner(&letters.pull(limits(9)).await.expect("pulls")), expected, "{to}");
    }
}

#[tokio::test]
async fn what_is_sent_again_into_another_project_says_whose_it_is() {
    let port = fresh();
    let (orders, dead) = (port.topic("shared/orders").await, port.topic("acme/dead").await);
    let all = port.subscribe("shared/all", &orders, |s| s.retain_acked = true).await;
    port.subscribe("shared/of-acme", &orders, |s| s.tenant = Some(tenant("acme"))).await;
    port.subscribe("acme/letters", &dead, |_| {}).await;
    let source = [
        ("CloudPubSubDeadLetterSourceSubscription", "of-acme"),
        ("CloudPubSubDeadLetterSourceSubscriptionProject", "shared"),
    ];
    let letter = |attributes: &[(&str, &str)]| Message {
        attributes: attributes.iter().chain(&source).copied().collect(),
        ..message("acme", "x")
    };
    let (acme, of) = (principal(&["acme"]), name("acme/letters"));
    for attributes in [&FORGED[..], &FORGED[1..]] {
        write(&port, &dead, letter(attributes)).await;
        let done = admin(&port).redrive(&acme, &of, &everything()).await.expect("redriven");
        assert_eq!(done.published, 1, "{:?}", done.refused);
        port.visible(&orders).await;
        assert_eq!(owner(&take(&all).await), [Some("acme")], "redriven");
        write(&port, &dead, letter(attributes)).await;
        let found = admin(&port).browse(&acme, &of, None, 1, &Filter::parse("").expect("a filter"));
        let id = found.expect("seen").messages[0].message_id;
        admin(&port).resend(&acme, &of, id, &Edit::default()).await.expect("sent again");
        port.visible(&orders).await;
        assert_eq!(owner(&take(&all).await), [Some("acme")], "sent again");
    }
    // To deliver once more is no way in: what comes is what is in the topic.
    port.port.seek(&name("shared/all"), SeekTo::TimeMs(0)).await.expect("sought");
    assert_eq!(owner(&take(&all).await), [Some("acme"); 4]);
}

#[tokio::test]
async fn a_topic_of_one_tenant_is_not_there_for_another_and_takes_nothing_of_it() {
    let port = fresh();
    let (bus, orders) = (&port.world.bus, name("home/orders"));
    bus.own_topics([(crate::tests::topic("orders"), [tenant("acme")].into())].into());
    let letters = crate::tests::topic("orders-dlq");
    bus.ensure_topic(&letters, TopicConfig::default()).expect("a topic");
    let only = |t: &str| TenantSet::Only([tenant(t)].into());
    for topic in [&orders, &name("home/orders-dlq")] {
        assert!(port.port.is_visible(topic, &only("acme")) && port.port.is_visible(topic, &TenantSet::All));
        assert!(!port.port.is_visible(topic, &only("globex")), "{topic}");
    }
    assert!(port.port.is_visible(&name("home/other"), &only("globex")));
    assert!(port.port.is_visible(&name("acme/orders"), &only("globex")), "only names of the folder");
    let publication =
        |owner: &str| Publication::new(TenantContext::system(tenant(owner), "test"), message(owner, "x"));
    let results = port.port.publish(&orders, vec![publication("globex"), publication("acme")]).await;
    let results = results.expect("answers");
    assert_eq!(results[0].as_ref().map_err(|p| &*p.code), Err("topic-unknown"));
    assert!(results[1].is_ok());

    // Nor by a policy that was made before the topic was somebody's.
    let other = port.topic("globex/mine").await;
    let policy = DeadLetterPolicy { topic: orders.clone(), max_delivery_attempts: 5 };
    let failing = port
        .subscribe("globex/failing", &other, |s| {
            s.ordered = true;
            s.dead_letter = Some(policy);
        })
        .await;
    let lost = Message { ordering_key: Some("k".into()), ..message("globex", "x") };
    port.try_publish(&other, vec![lost]).await.expect("published");
    port.visible(&other).await;
    assert_eq!(failing.pull(limits(9)).await.expect("pulls").len(), 1);
    assert!(failing.unblock(&tenant("globex"), "k", Unblock::Park).await.is_err());
    assert_eq!(failing.stats().backlog_messages, 1, "it is kept");
}

#[tokio::test]
async fn the_topics_of_a_platforms_project_are_listed_as_far_as_they_are_seen() {
    let port = fresh();
    let owner_of = |_: &ProjectId| Some(crate::admin::ProjectOwner::Platform);
    let admin =
        crate::admin::SubscriptionAdmin::new(Arc::new(port.port.clone()), Arc::new(owner_of)).topics();
    port.world.bus.own_topics([(crate::tests::topic("orders"), [tenant("acme")].into())].into());
    let (home, page) = (ProjectId::new("home").expect("a project"), PageRequest::default());
    let listed = |t: &str| admin.list(&principal(&[t]), &home, &page).items.len();
    assert_eq!((listed("acme"), listed("globex")), (1, 0));
    assert!(admin.show(&principal(&["acme"]), &name("home/orders")).is_ok());
    let hidden = admin.show(&principal(&["globex"]), &name("home/orders")).expect_err("hidden");
    let missing = admin.show(&principal(&["globex"]), &name("home/orderz")).expect_err("missing");
    assert_eq!((hidden.code, hidden.hint), (missing.code, missing.hint));
}
