//! Messages to be delivered later, by two reserved attributes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_core::Message;

use super::super::check::same;
use super::super::world::{World, bodies, keyed, message, name, publication, with};

super::cases! {
    "schedule":
    a_delayed_message_comes_when_it_is_due [Schedules],
    a_wait_ends_with_a_message_that_falls_due [Schedules],
    not_before_its_time [Schedules, ManualTime],
    a_message_comes_at_its_time [Schedules, ManualTime],
    a_time_that_is_over_is_now [Schedules],
    nonsense_is_refused_alone [Schedules],
    a_delay_holds_up_no_other [Schedules],
    a_key_keeps_its_order [Schedules, ManualTime],
    a_delay_outlives_a_restart [Schedules, Restart, ManualTime],
    a_delayed_message_is_backlog [Schedules, Stats],
}

const AT: &str = "levada.deliver_at";
const DELAY: &str = "levada.delay_ms";

fn delayed(message: Message, by: Duration) -> Message {
    with(message, &[(DELAY, &by.as_millis().to_string())])
}

async fn a_delayed_message_comes_when_it_is_due(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, vec![delayed(message("later"), world.unit())]).await?;
    world.pass(world.unit()).await;
    let received = world.expect(&subscription, &["later"]).await?;
    same("the attempt", received[0].delivery_attempt, 1)?;
    world.ack(&subscription, &received).await?;
    world.settled(&subscription)
}

async fn a_wait_ends_with_a_message_that_falls_due(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, vec![delayed(message("later"), world.unit())]).await?;
    if world.has(super::super::Need::ManualTime) {
        world.pass(world.unit()).await;
    }
    let received = world.woken_by(&subscription, async { Ok(()) }).await?;
    same("the messages", bodies(&received), vec!["later".to_owned()])
}

async fn not_before_its_time(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, vec![delayed(message("later"), Duration::from_secs(60))]).await?;
    world.nothing(&subscription, "it is due in a minute").await?;
    world.pass(Duration::from_millis(59_999)).await;
    world.nothing(&subscription, "it is due in a millisecond").await?;
    world.pass(Duration::from_millis(1)).await;
    world.expect(&subscription, &["later"]).await?;
    Ok(())
}

async fn a_message_comes_at_its_time(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    // The first full day ahead, so that its text needs no calendar but that of days.
    let due_ms = (world.now_ms() / 86_400_000 + 1) * 86_400_000;
    let text = rfc3339_of_day(due_ms / 86_400_000);
    world.send(&topic, vec![with(message("later"), &[(AT, &text)])]).await?;
    let left = Duration::from_millis(u64::try_from(due_ms - world.now_ms())?);
    world.pass(left - Duration::from_millis(1)).await;
    world.nothing(&subscription, &format!("it is due at {text}")).await?;
    world.pass(Duration::from_millis(1)).await;
    world.expect(&subscription, &["later"]).await?;
    Ok(())
}

/// Midnight of a day since the epoch. Source: H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`, for days after the epoch.
fn rfc3339_of_day(day: i64) -> String {
    let days = day + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (date, month) =
        (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}T00:00:00Z")
}

async fn a_time_that_is_over_is_now(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let past = with(message("past"), &[(AT, "2001-02-03T04:05:06Z")]);
    let none = with(message("none"), &[(DELAY, "0")]);
    world.send(&topic, vec![past, none]).await?;
    world.expect(&subscription, &["past", "none"]).await?;
    Ok(())
}

async fn nonsense_is_refused_alone(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let nonsense = [
        &[(DELAY, "soon")][..],
        &[(DELAY, "-1")],
        &[(DELAY, "99999999999999999999")],
        &[(DELAY, "2678400001")],
        &[(AT, "tomorrow")],
        &[(AT, "9999-01-01T00:00:00Z")],
        &[(AT, "2001-02-03T04:05:06Z"), (DELAY, "1")],
    ];
    let mut items = vec![publication(message("first"))];
    items.extend(nonsense.iter().map(|attributes| publication(with(message("wrong"), attributes))));
    items.push(publication(message("last")));
    let results = world.port().publish(&topic, items).await?;
    for (attributes, result) in nonsense.iter().zip(&results[1..]) {
        let refused = result.as_ref().err().with_context(|| format!("{attributes:?} was accepted"))?;
        ensure!(refused.status == 422, "{attributes:?} was refused with {refused:?}, not with 422");
    }
    world.expect(&subscription, &["first", "last"]).await?;
    world.nothing(&subscription, "the rest was refused").await
}

async fn a_delay_holds_up_no_other(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    let later = delayed(message("later"), Duration::from_secs(3600));
    world.send(&topic, vec![later, message("now"), message("too")]).await?;
    world.expect(&subscription, &["now", "too"]).await?;
    world.nothing(&subscription, "the other is due in an hour").await
}

async fn a_key_keeps_its_order(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|spec| spec.ordered = true).await?;
    let first = delayed(keyed("k", "k1"), Duration::from_secs(60));
    world.send(&topic, vec![first, keyed("k", "k2"), keyed("l", "l1")]).await?;
    world.expect(&subscription, &["l1"]).await?;
    world.nothing(&subscription, "k2 comes after k1, which is due in a minute").await?;
    world.pass(Duration::from_secs(60)).await;
    for wanted in ["k1", "k2"] {
        let received = world.expect(&subscription, &[wanted]).await?;
        world.ack(&subscription, &received).await?;
    }
    Ok(())
}

async fn a_delay_outlives_a_restart(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, vec![delayed(message("later"), Duration::from_secs(60))]).await?;
    world.nothing(&subscription, "it is due in a minute").await?;
    drop(subscription);
    world.restart().await?;
    let subscription = world.subscription("billing")?;
    world.pass(Duration::from_secs(59)).await;
    world.nothing(&subscription, "it is due in a second").await?;
    world.pass(Duration::from_secs(1)).await;
    let received = world.expect(&subscription, &["later"]).await?;
    same("the attempt", received[0].delivery_attempt, 1)
}

async fn a_delayed_message_is_backlog(world: &mut World) -> Result<()> {
    let (topic, subscription) = world.pair(|_| {}).await?;
    world.send(&topic, vec![delayed(message("later"), Duration::from_secs(3600))]).await?;
    world.nothing(&subscription, "it is due in an hour").await?;
    let stats = subscription.stats();
    same("backlog and leases", (stats.backlog_messages, stats.leased), (1, 0))?;
    let end = levada_bus::port::SeekTo::TimeMs(world.now_ms() + 1);
    world.port().seek(&name("billing"), end).await?;
    world.pass(world.unit()).await;
    world.nothing(&subscription, "a seek acknowledged it").await?;
    world.settled(&subscription)
}
