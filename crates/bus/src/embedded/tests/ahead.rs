//! What is known of a topic before its messages are delivered.

use std::sync::Arc;
use std::time::Duration;

use levada_disk::SimDisk;

use super::*;

/// More than is read at once into the cache.
const BACKLOG: usize = 80_000;

/// Two tenants whose messages alternate, so that no two neighbours are of one, and a small one
/// behind. A body is the number of its message in the topic.
async fn backlog(port: &Port, topic: &ResourceName) {
    for first in (0..BACKLOG).step_by(100) {
        let messages = (first..first + 100).map(|n| message(["acme", "globex"][n % 2], &n.to_string()));
        port.try_publish(topic, messages.collect()).await.expect("published");
    }
    port.try_publish(topic, vec![message("small", &BACKLOG.to_string())]).await.expect("published");
    port.visible(topic).await;
}

#[tokio::test]
async fn a_tenant_behind_the_alternating_backlogs_of_others_is_found_by_a_slow_consumer() {
    let port = fresh();
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    backlog(&port, &topic).await;
    subscription.pull(limits(1)).await.expect("pulls");
    let known = async {
        while subscription.stats().unscanned > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known).await.expect("all is looked at");
    let received = subscription.pull(limits(200)).await.expect("pulls");
    assert!(received.iter().any(|r| r.message.tenant == tenant("small")), "it waits behind the others");
}

#[tokio::test]
async fn messages_far_ahead_come_once_and_in_the_order_of_their_tenants() {
    let port = open(Arc::new(SimDisk::new(2)), Arc::new(ManualClock::new(START_MS)));
    let topic = port.topic("acme/orders").await;
    let subscription = port.subscribe("acme/billing", &topic, |_| {}).await;
    backlog(&port, &topic).await;
    // All of it is known before the first pull, and nothing is kept for who has not asked lately.
    port.advance(Duration::from_secs(60));
    port.port.inner.end_by_age();
    assert_eq!(subscription.stats().unscanned, 0);
    let (mut count, mut last) = (0, std::collections::HashMap::new());
    while count <= BACKLOG {
        let received = subscription.pull(limits(1_000)).await.expect("pulls");
        assert!(!received.is_empty(), "only {count} came");
        for received in &received {
            assert_eq!(body(received), received.message_id.to_string());
            let last = last.insert(received.message.tenant.clone(), received.message_id);
            assert!(last.is_none_or(|last| last < received.message_id), "{}", received.message_id);
        }
        count += received.len();
        subscription.acknowledge(ids(&received)).await.expect("acknowledges");
    }
    assert_eq!(subscription.stats().backlog_messages, 0);
}
