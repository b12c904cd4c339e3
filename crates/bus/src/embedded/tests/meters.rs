//! What the metrics of subscriptions say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use super::*;

/// Keeps the values of metrics by name and label; gauges as the bits of their number.
#[derive(Default)]
struct Values(Mutex<BTreeMap<(String, String), Arc<AtomicU64>>>);

impl Values {
    fn slot(&self, key: &Key) -> Arc<AtomicU64> {
        let label = key.labels().map(|l| l.value().to_owned()).collect();
        self.0.lock().entry((key.name().to_owned(), label)).or_default().clone()
    }

    fn raw(&self, name: &str, label: &str) -> u64 {
        let kept = self.0.lock();
        kept.get(&(name.to_owned(), label.to_owned())).expect("a metric").load(Ordering::SeqCst)
    }

    fn gauge(&self, name: &str, label: &str) -> f64 {
        f64::from_bits(self.raw(name, label))
    }
}

impl Recorder for Values {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.slot(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn metrics_tell_backlog_age_and_what_was_done_and_survive_a_deletion() {
    let port = fresh();
    let values = Values::default();
    let meter = |port: &Port| ::metrics::with_local_recorder(&values, || port.port.inner.meter());
    let (label, other) = ("acme/billing", "acme/audit");
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe(label, &topic, |_| {}).await;
    port.subscribe(other, &topic, |_| {}).await;
    port.publish(&topic, &["a", "b", "c"]).await;
    let first = subscription.pull(limits(2)).await.expect("pulls");
    acknowledge(&subscription, &first[..1]).await;
    refuse(&subscription, &first[1..]).await;
    assert_eq!(bodies(&subscription.pull(limits(1)).await.expect("pulls")), ["b"], "again");
    port.advance(Duration::from_secs(90));
    meter(&port);
    let figures = |label: &str| {
        let all = ["delivered", "redelivered", "acknowledged", "expired", "dead_lettered"];
        all.map(|what| values.raw(&format!("levada_subscription_{what}_total"), label))
    };
    assert_eq!(figures(label), [3, 1, 1, 0, 0]);
    assert_eq!(figures(other), [0; 5]);
    assert_eq!(values.gauge("levada_subscription_backlog_messages", label), 2.0);
    assert_eq!(values.gauge("levada_subscription_backlog_messages", other), 3.0);
    assert_eq!(values.gauge("levada_subscription_oldest_unacked_seconds", label), 90.0);

    assert_eq!(subscription.pull(limits(9)).await.expect("pulls").len(), 2, "a lease has ended");
    meter(&port);
    assert_eq!(figures(label), [3, 1, 1, 0, 0], "too early for another look");
    port.advance(Duration::from_secs(5));
    meter(&port);
    assert_eq!(figures(label), [5, 2, 1, 1, 0]);

    port.port.delete_subscription(&name(label)).await.expect("deleted");
    port.advance(Duration::from_secs(5));
    meter(&port);
    assert_eq!(values.gauge("levada_subscription_backlog_messages", label), 0.0);
    let anew = port.subscribe(label, &topic, |_| {}).await;
    port.publish(&topic, &["d"]).await;
    assert_eq!(anew.pull(limits(9)).await.expect("pulls").len(), 1);
    port.advance(Duration::from_secs(5));
    meter(&port);
    assert_eq!(figures(label), [6, 2, 1, 1, 0], "a counter never falls");
}

#[tokio::test]
async fn names_for_which_there_is_no_room_are_counted_together() {
    let port = fresh();
    let values = Values::default();
    let meter = |port: &Port| ::metrics::with_local_recorder(&values, || port.port.inner.meter());
    port.port.inner.meters.set_room(2);
    let topic = port.topic("acme/orders").await;
    for n in 0..5 {
        port.subscribe(&format!("acme/sub-{n}"), &topic, |_| {}).await;
    }
    port.publish(&topic, &["a"]).await;
    meter(&port);
    let backlog = "levada_subscription_backlog_messages";
    assert_eq!((values.gauge(backlog, "acme/sub-1"), values.gauge(backlog, "others")), (1.0, 3.0));
    port.port.delete_subscription(&name("acme/sub-0")).await.expect("deleted");
    port.subscribe("acme/another", &topic, |_| {}).await;
    port.advance(Duration::from_secs(5));
    meter(&port);
    let labels: Vec<String> =
        values.0.lock().keys().filter(|k| k.0 == backlog).map(|k| k.1.clone()).collect();
    assert_eq!(labels, ["acme/sub-0", "acme/sub-1", "others"], "no name ever makes room for another");
}

const LANE_BYTES: &str = "levada_subscription_lane_delivered_bytes_total";
const LANE_SHARE: &str = "levada_subscription_lane_share_ratio";

/// Publishes a body for a tenant.
async fn publish_for(port: &Port, topic: &ResourceName, owner: &str, body: &str) {
    let context = TenantContext::system(tenant(owner), "test");
    let message = Message {
        tenant: tenant(owner),
        attributes: Default::default(),
        ordering_key: None,
        body: bytes::Bytes::copy_from_slice(body.as_bytes()),
    };
    let published = port.port.publish(topic, vec![Publication::new(context, message)]).await;
    published.expect("published").remove(0).expect("kept");
}

#[tokio::test]
async fn each_tenant_has_its_bytes_and_its_share_of_what_came_lately() {
    let port = fresh();
    let values = Values::default();
    let meter = |port: &Port| {
        port.advance(Duration::from_secs(5));
        ::metrics::with_local_recorder(&values, || port.port.inner.meter());
    };
    let label = "acme/billing";
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe(label, &topic, |_| {}).await;
    let bytes = |tenant: &str| values.raw(LANE_BYTES, &format!("{label}{tenant}"));
    let share = |tenant: &str| values.gauge(LANE_SHARE, &format!("{label}{tenant}"));
    publish_for(&port, &topic, "large", &"x".repeat(3_000)).await;
    publish_for(&port, &topic, "small", &"x".repeat(1_000)).await;
    let got = subscription.pull(limits(9)).await.expect("pulls");
    assert_eq!(got.len(), 2);
    meter(&port);
    let (large, small) = (bytes("large"), bytes("small"));
    assert!(large >= 3_000 && small >= 1_000 && large < 3_200 && small < 1_200, "{large} {small}");
    assert_eq!(share("large"), large as f64 / (large + small) as f64);
    acknowledge(&subscription, &got).await;

    // One that comes later is not mistaken for one of the others.
    publish_for(&port, &topic, "late", "x").await;
    assert_eq!(subscription.pull(limits(9)).await.expect("pulls").len(), 1);
    meter(&port);
    assert_eq!((bytes("large"), share("large"), share("late")), (large, 0.0, 1.0));
    assert!(bytes("late") > 0);
    meter(&port);
    assert_eq!(share("late"), 0.0, "nothing came since");
    assert!(!values.0.lock().contains_key(&(LANE_BYTES.to_owned(), format!("{label}others"))));
}

#[tokio::test]
async fn only_the_largest_tenants_have_names_and_nothing_is_lost() {
    let port = fresh();
    let values = Values::default();
    let meter = |port: &Port| {
        port.advance(Duration::from_secs(5));
        ::metrics::with_local_recorder(&values, || port.port.inner.meter());
    };
    let label = "acme/billing";
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe(label, &topic, |_| {}).await;
    let sizes = |n: usize| "x".repeat(100 * (n + 1));
    for n in 0..30 {
        publish_for(&port, &topic, &format!("t{n:02}"), &sizes(n)).await;
    }
    let got = subscription.pull(limits(100)).await.expect("pulls");
    assert_eq!(got.len(), 30);
    meter(&port);
    let named = || -> Vec<String> {
        values.0.lock().keys().filter(|k| k.0 == LANE_BYTES).map(|k| k.1[label.len()..].to_owned()).collect()
    };
    let mut expected: Vec<String> = (10..30).map(|n| format!("t{n:02}")).collect();
    expected.insert(0, "others".to_owned());
    assert_eq!(named(), expected);
    let sum =
        || -> u64 { named().iter().map(|name| values.raw(LANE_BYTES, &format!("{label}{name}"))).sum() };
    let delivered = || subscription.stats().by_tenant.values().map(|lane| lane.delivered_bytes).sum::<u64>();
    assert_eq!(sum(), delivered());

    // The smallest becomes the largest: it gets a name, and what came before stays with the others.
    acknowledge(&subscription, &got).await;
    for n in 0..60 {
        publish_for(&port, &topic, "t00", &"x".repeat(1_000)).await;
        publish_for(&port, &topic, &format!("new{n:02}"), &"x".repeat(5_000)).await;
    }
    let got = subscription.pull(limits(200)).await.expect("pulls");
    assert_eq!(got.len(), 120);
    meter(&port);
    assert!(named().contains(&"t00".to_owned()), "{:?}", named());
    assert_eq!(named().len(), 41, "and no more, whoever comes");
    assert_eq!(sum(), delivered());
    let shares: f64 = named().iter().map(|name| values.gauge(LANE_SHARE, &format!("{label}{name}"))).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
}
