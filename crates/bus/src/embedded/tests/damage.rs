//! A damaged document: from its copy where there is one, and otherwise one resource less.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The files of the documents of a kind, in order.
fn documents(disk: &SimDisk, kind: &str) -> Vec<String> {
    let dir = format!("{}/port", crate::bus::STORE_DIR);
    let names = disk.list(&dir).expect("a folder").into_iter().map(|entry| entry.name);
    names
        .filter(|name| name.starts_with(kind) && name.ends_with(".doc"))
        .map(|name| format!("{dir}/{name}"))
        .collect()
}

fn break_both(disk: &SimDisk, document: &str) {
    for file in [document.to_owned(), document.replace(".doc", ".copy")] {
        disk.flip_bit(&file, 20, 1).expect("a file");
    }
}

#[tokio::test]
async fn one_damaged_document_does_not_stop_the_start_and_costs_no_message() {
    let disk = SimDisk::new(1);
    let port = open(Arc::new(disk.clone()), Arc::new(ManualClock::new(START_MS)));
    let (one, two) = (port.topic("shop/one").await, port.topic("shop/two").await);
    port.subscribe("shop/one-sub", &one, |_| {}).await;
    port.subscribe("shop/two-sub", &two, |_| {}).await;
    port.publish(&one, &["kept"]).await;
    port.publish(&two, &["seen"]).await;
    let broken = documents(&disk, "topic-").swap_remove(0);
    let subscription = documents(&disk, "subscription-").swap_remove(0);
    port.world.bus.close().await.expect("closes");
    drop(port);
    break_both(&disk, &broken);
    break_both(&disk, &subscription);

    let port = open(Arc::new(disk.clone()), Arc::new(ManualClock::new(START_MS)));
    let found = port.open_subscription("shop/two-sub").pull(limits(10)).await.expect("the other works");
    assert_eq!(bodies(&found), ["seen"]);
    assert!(port.port.subscription(&name("shop/one-sub")).is_err(), "the damaged one is left out");
    let lost: Vec<bool> = port.world.bus.documents().damage().iter().map(|damage| damage.restored).collect();
    assert_eq!(lost, [false, false], "and told");
    // What nobody seems to need is kept until the document is back.
    port.advance(8 * DAY);
    port.world.bus.maintain().await.expect("upkeep");
    port.world.bus.close().await.expect("closes");
    drop(port);
    break_both(&disk, &broken);
    break_both(&disk, &subscription);
    let port = open(Arc::new(disk), Arc::new(ManualClock::new(START_MS)));
    let found = port.open_subscription("shop/one-sub").pull(limits(10)).await.expect("back again");
    assert_eq!(bodies(&found), ["kept"]);
}

#[tokio::test]
async fn a_vanished_or_damaged_document_comes_back_from_its_copy() {
    let disk = SimDisk::new(2);
    let port = open(Arc::new(disk.clone()), Arc::new(ManualClock::new(START_MS)));
    let topic = port.topic("shop/one").await;
    port.subscribe("shop/sub", &topic, |_| {}).await;
    port.publish(&topic, &["kept"]).await;
    port.world.bus.close().await.expect("closes");
    drop(port);
    disk.remove(&documents(&disk, "topic-")[0]).expect("a document");
    disk.flip_bit(&documents(&disk, "subscription-")[0], 30, 2).expect("a document");
    let port = open(Arc::new(disk), Arc::new(ManualClock::new(START_MS)));
    let found = port.open_subscription("shop/sub").pull(limits(10)).await.expect("as before");
    assert_eq!(bodies(&found), ["kept"]);
    let told: Vec<bool> = port.world.bus.documents().damage().iter().map(|damage| damage.restored).collect();
    assert_eq!(told, [true, true]);
}
