//! Bounds of resources, and documents of an older program that are beyond them.

use super::admin::{admin, principal};
use super::*;
use crate::admin::TopicChange;
use crate::embedded::documents::{Kind, TopicDocument};
use crate::port::{Durability, PushConfig};

fn refused<T: std::fmt::Debug>(outcome: Result<T, PortError>) -> &'static str {
    match outcome {
        Err(PortError::TooLarge(field)) => field.field,
        other => panic!("not refused by a bound: {other:?}"),
    }
}

#[tokio::test]
async fn whatever_makes_or_changes_a_resource_keeps_its_bounds() {
    let port = fresh();
    let orders = port.topic("acme/orders").await;
    let billing = port.subscribe("acme/billing", &orders, |_| {}).await.spec();
    let keyed = |name: ResourceName| TopicSpec { kms_key_name: "k".repeat(1_025), ..TopicSpec::new(name) };
    assert_eq!(refused(port.port.create_topic(keyed(name("acme/more"))).await), "kms_key_name");
    assert_eq!(refused(port.port.update_topic(keyed(orders.clone())).await), "kms_key_name");
    let push = PushConfig { endpoint: "https://x.example/".repeat(200), ..PushConfig::default() };
    let pushed = SubscriptionSpec { push: Some(push), ..(*billing).clone() };
    let made = SubscriptionSpec { name: name("acme/more"), ..pushed.clone() };
    assert_eq!(refused(port.port.update_subscription(pushed).await), "push_config.push_endpoint");
    assert_eq!(refused(port.port.create_subscription(made).await), "push_config.push_endpoint");
    let labels: std::collections::BTreeMap<_, _> =
        (0..65).map(|n| (format!("l{n}"), String::new())).collect();
    let snapshot = port.port.create_snapshot(name("acme/then"), &billing.name, labels.clone()).await;
    assert_eq!(refused(snapshot), "labels");
    let mut snapshot =
        port.port.create_snapshot(name("acme/then"), &billing.name, [].into()).await.expect("made");
    snapshot.labels = labels;
    assert_eq!(refused(port.port.update_snapshot(snapshot).await), "labels");
}

#[tokio::test]
async fn an_old_document_beyond_the_bounds_loads_and_may_change_elsewhere() {
    let port = fresh();
    let orders = port.topic("acme/orders").await;
    let documents = &port.port.inner.documents;
    let number = port.port.inner.topic(&orders).expect("a topic").number;
    let kept: TopicDocument = documents.get(Kind::Topic, number).expect("readable").expect("kept");
    let spec = TopicSpec { kms_key_name: "k".repeat(2 << 20), ..kept.spec };
    documents.put(Kind::Topic, number, &TopicDocument { spec, ..kept }).expect("written");
    let port = port.restart().await;
    let old = port.port.topic(&orders).expect("it is loaded");
    assert_eq!(old.kms_key_name.len(), 2 << 20);
    let change = TopicChange { durability: Some(Durability::Interval), ..TopicChange::default() };
    let changed = admin(&port).topics().change(&principal(&["acme"]), &orders, &change).await;
    assert_eq!(changed.expect("another field").spec.durability, Durability::Interval);
    let larger = TopicSpec { kms_key_name: "k".repeat((2 << 20) + 1), ..old.clone() };
    assert_eq!(refused(port.port.update_topic(larger).await), "kms_key_name");
    let smaller = TopicSpec { kms_key_name: String::new(), ..old };
    port.port.update_topic(smaller).await.expect("within the bounds");
}
