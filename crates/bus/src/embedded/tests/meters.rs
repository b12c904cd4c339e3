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
