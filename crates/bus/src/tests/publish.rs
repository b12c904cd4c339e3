//! Publish: idempotency, conflicts, races, restarts, refusals.

use std::time::Duration;

use super::{World, event, fresh, topic};

const TOPIC: &str = "orders";

async fn publish(world: &World, owner: &str, key: &str, body: &str) -> Result<crate::Published, String> {
    let mut results =
        world.bus.publish(&topic(TOPIC), vec![event(owner, Some(key), body)]).await.expect("the log accepts");
    results.pop().expect("one result").map_err(|p| p.code)
}

fn bodies(world: &World) -> Vec<String> {
    let records = world.bus.read(&topic(TOPIC), 0, 10_000, 1 << 30).expect("readable");
    records.iter().map(|d| String::from_utf8_lossy(&d.message.body).into_owned()).collect()
}

/// Waits until everything published is visible to readers.
async fn visible(world: &World, next: u64) {
    let mut end = world.bus.end(&topic(TOPIC)).expect("topic");
    end.wait_for(|end| *end >= next).await.expect("the log runs");
}

#[tokio::test]
async fn a_key_is_kept_once_and_answers_with_the_first_id() {
    let world = fresh();
    let first = publish(&world, "acme", "k1", "a").await.expect("accepted");
    let again = publish(&world, "acme", "k1", "a").await.expect("a duplicate is no error");
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.id, first.offset), (again.id, again.offset));
    assert_eq!(publish(&world, "acme", "k1", "b").await, Err("idempotency-conflict".into()));
    let other_tenant = publish(&world, "globex", "k1", "b").await.expect("keys are a tenant's own");
    assert!(!other_tenant.duplicate);
    visible(&world, 2).await;
    assert_eq!(bodies(&world), ["a", "b"]);
}

#[tokio::test]
async fn duplicates_within_one_batch_and_between_racing_calls_are_one_record() {
    let world = fresh();
    let batch = (0..6).map(|i| event("acme", Some(["x", "y"][i % 2]), ["1", "2"][i % 2])).collect();
    let results = world.bus.publish(&topic(TOPIC), batch).await.expect("accepted");
    let duplicates: Vec<bool> = results.into_iter().map(|r| r.expect("each accepted").duplicate).collect();
    assert_eq!(duplicates, [false, false, true, true, true, true]);

    let name = topic(TOPIC);
    let race = (0..32).map(|_| world.bus.publish(&name, vec![event("acme", Some("z"), "3")]));
    let results = futures_join(race).await;
    assert_eq!(results.iter().filter(|duplicate| !**duplicate).count(), 1, "one of the racers is the first");
    visible(&world, 3).await;
    assert_eq!(bodies(&world), ["1", "2", "3"]);
}

async fn futures_join<F>(calls: impl Iterator<Item = F>) -> Vec<bool>
where
    F: Future<Output = Result<Vec<Result<crate::Published, levada_core::Problem>>, crate::BusError>>,
{
    // Polled together by hand: the crate needs no futures library for one test.
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    let mut done = vec![None; calls.len()];
    std::future::poll_fn(|context| {
        for (call, slot) in calls.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(result) = call.as_mut().poll(context)
            {
                let published = result.expect("accepted").pop().expect("one").expect("accepted");
                *slot = Some(published.duplicate);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn the_window_survives_a_restart_and_downtime_does_not_count() {
    let world = fresh();
    let first = publish(&world, "acme", "k1", "a").await.expect("accepted");
    let world = world.restart(Duration::from_secs(3600)).await;
    let found = (world.recovery.idempotency_keys, world.recovery.scanned_records);
    assert_eq!(found, (1, 0), "a clean stop leaves nothing to read again");
    let again = publish(&world, "acme", "k1", "a").await.expect("recognised");
    assert_eq!((again.duplicate, again.offset), (true, first.offset));
    assert_eq!(publish(&world, "acme", "k1", "other").await, Err("idempotency-conflict".into()));
}

#[tokio::test]
async fn the_window_ends_with_time() {
    let world = fresh();
    publish(&world, "acme", "k1", "a").await.expect("accepted");
    world.clock.advance(Duration::from_secs(599));
    assert!(publish(&world, "acme", "k1", "a").await.expect("inside").duplicate);
    world.clock.advance(Duration::from_secs(2));
    assert!(!publish(&world, "acme", "k1", "a").await.expect("outside").duplicate);
}

#[tokio::test]
async fn the_window_is_bounded_by_count() {
    let world = fresh();
    let config = crate::BusConfig { idempotency_keys: 10, ..super::config() };
    let world = {
        world.bus.close().await.expect("closes");
        super::open_with(world.disk, world.clock, config)
    };
    for i in 0..25 {
        publish(&world, "acme", &format!("k{i}"), "a").await.expect("accepted");
    }
    assert!(publish(&world, "acme", "k24", "a").await.expect("young").duplicate);
    assert!(!publish(&world, "acme", "k3", "a").await.expect("forgotten").duplicate);
}

#[tokio::test]
async fn one_tenants_events_never_make_the_window_forget_anothers_key() {
    let world = fresh();
    let config = crate::BusConfig { idempotency_keys: 10, ..super::config() };
    let mut world = {
        world.bus.close().await.expect("closes");
        super::open_with(world.disk, world.clock, config.clone())
    };
    let paid = publish(&world, "acme", "payment", "a").await.expect("accepted");
    for round in 0..3 {
        for i in 0..25 {
            publish(&world, "flood", &format!("{round}-{i}"), "a").await.expect("accepted");
        }
        let again = publish(&world, "acme", "payment", "a").await.expect("recognised");
        assert_eq!((again.duplicate, again.offset), (true, paid.offset), "round {round}");
        // The files of the window are saved at each close; the first is soon behind the flood.
        world.bus.close().await.expect("closes");
        world = super::open_with(world.disk, world.clock, config.clone());
    }
    assert!(publish(&world, "flood", "2-24", "a").await.expect("young").duplicate);
    assert!(!publish(&world, "flood", "2-3", "a").await.expect("forgotten").duplicate);
    assert!(publish(&world, "acme", "payment", "a").await.expect("recognised").duplicate);
}

#[tokio::test]
async fn refusals_are_of_the_item_and_leave_the_rest() {
    let world = fresh();
    let mut stranger = event("acme", None, "stolen");
    stranger.message.tenant = super::tenant("globex");
    let huge = event("acme", Some("huge"), &"x".repeat(10_000_001));
    let results = world
        .bus
        .publish(&topic(TOPIC), vec![event("acme", None, "ok"), stranger, huge])
        .await
        .expect("the call succeeds");
    let codes: Vec<_> = results.iter().map(|r| r.as_ref().map_err(|p| p.code.as_str()).map(|_| ())).collect();
    assert_eq!(codes, [Ok(()), Err("tenant-mismatch"), Err("message-too-large")]);
    // The refused key is free again.
    assert!(!publish(&world, "acme", "huge", "small").await.expect("accepted").duplicate);
    let unknown = world.bus.publish(&topic("nowhere"), vec![event("acme", None, "x")]).await;
    assert!(matches!(unknown, Err(crate::BusError::UnknownTopic(_))));
}

#[tokio::test]
async fn dropping_the_call_does_not_lose_the_reservation() {
    let world = fresh();
    let name = topic(TOPIC);
    {
        let call = world.bus.publish(&name, vec![event("acme", Some("k"), "a")]);
        let mut call = Box::pin(call);
        // Begun, then abandoned.
        let _ = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
    }
    let retry = publish(&world, "acme", "k", "a").await.expect("accepted");
    assert_eq!(retry.offset, 0);
    visible(&world, 1).await;
    assert_eq!(bodies(&world), ["a"]);
}
