//! A failing sync, a full disk, a flipped bit and a torn tail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use levada_bus::port::{AckOutcome, BusPort, PortError, SubscriptionSpec};
use levada_disk::SimRng;
use levada_log::LogConfig;

use super::beside_others;
use super::ground::Ground;
use super::world::{
    Clocks, SECOND, World, acknowledge, bodies, body, counted, drain, ids, message, name, open, open_with,
    small_files, sorted, take,
};

const PUBLISHERS: usize = 8;

fn exactly_once(spec: &mut SubscriptionSpec) {
    spec.exactly_once = true;
    spec.ack_deadline = 600 * SECOND;
}

/// Publishes until the first refusal; what was answered and what was refused.
async fn publish_until_refused(world: &World, publisher: usize, answered: &AtomicUsize) -> [Vec<String>; 2] {
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for n in 0..100_000 {
        let text = format!("p{publisher}-{n}");
        match world.publish(&name("orders"), &[&text]).await {
            Ok(_) => kept.push(text),
            Err(error) => {
                assert!(matches!(error, PortError::Unavailable(_)), "{error:?}");
                refused.push(text);
                break;
            }
        }
        answered.fetch_add(1, Ordering::AcqRel);
    }
    [kept, refused]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_answered_and_a_restart_has_all_that_was() {
    let _turn = beside_others().await;
    for ground in Ground::several() {
        let (clocks, kind) = (Clocks::new(), ground.name());
        let world = Arc::new(open(ground.disk(), &clocks).await);
        let topic = world.topic("orders").await;
        let exact = world.subscribe("exact", &topic, exactly_once).await;
        world.publish(&topic, &["confirmed", "in doubt"]).await.expect("published");
        let first = take(&exact, 2).await;
        acknowledge(&exact, &first[..1]).await;

        let answered = Arc::new(AtomicUsize::new(0));
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|p| {
                let (world, answered) = (world.clone(), answered.clone());
                tokio::spawn(async move { publish_until_refused(&world, p, &answered).await })
            })
            .collect();
        while answered.load(Ordering::Acquire) < 200 {
            tokio::task::yield_now().await;
        }
        ground.set(|s| &s.syncs_fail, true);
        let (mut kept, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for publisher in publishers {
            let [of_kept, of_refused] = publisher.await.expect("no panic");
            kept.extend(of_kept);
            refused.extend(of_refused);
        }
        assert!(ground.switches().failed_syncs.load(Ordering::Acquire) > 0, "{kind}");
        assert_eq!(refused.len(), PUBLISHERS, "{kind}: each was refused once");

        // The disk seems well again. What it lost is unknown, so nothing more is taken.
        ground.set(|s| &s.syncs_fail, false);
        let error = world.publish(&topic, &["later"]).await.expect_err("refused");
        assert!(
            matches!(&error, PortError::Unavailable(text) if text.contains("no more appends") && text.contains("sync")),
            "{kind}: {error:?}"
        );
        let outcomes = exact.acknowledge(ids(&first[1..])).await.expect("answers");
        assert_eq!(outcomes, [AckOutcome::TransientFailure], "{kind}: not a false promise");
        let delivered = take(&exact, kept.len()).await;
        assert_eq!(delivered.len(), kept.len(), "{kind}: what was answered is still delivered");

        drop(exact);
        let world = Arc::into_inner(world).expect("nobody else has it");
        world.abandon().await;
        let ground = ground.after_the_end();
        let world = open(ground.disk(), &clocks).await;
        let found = counted(&drain(&world.subscription("exact")).await);
        let lost: Vec<_> = kept.iter().filter(|text| !found.contains_key(*text)).collect();
        assert!(lost.is_empty(), "{kind}: answered and lost: {lost:?}");
        assert!(!found.contains_key("confirmed"), "{kind}: it was confirmed");
        let unknown =
            found.keys().filter(|t| !kept.contains(*t) && !refused.contains(*t) && *t != "in doubt");
        assert_eq!(unknown.collect::<Vec<_>>(), [""; 0], "{kind}: nobody published it, or it was refused");
        assert!(found.values().all(|count| *count == 1), "{kind}: {found:?}");
        world.publish(&topic, &["after"]).await.expect("published");
        assert_eq!(bodies(&drain(&world.subscription("exact")).await), ["after"], "{kind}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_loses_nothing_and_all_goes_on_with_space() {
    let _turn = beside_others().await;
    for ground in Ground::several() {
        let (clocks, kind) = (Clocks::new(), ground.name());
        let world = open(ground.disk(), &clocks).await;
        let topic = world.topic("orders").await;
        let exact = world.subscribe("exact", &topic, exactly_once).await;
        let plain = world.subscribe("plain", &topic, |spec| spec.ack_deadline = 600 * SECOND).await;
        let texts: Vec<String> = (0..50).map(|n| format!("before-{n:02}")).collect();
        let mut answered = world.publish_each(&topic, &texts).await;
        assert_eq!(answered.len(), 50, "{kind}");
        let (of_exact, of_plain) = (take(&exact, 50).await, take(&plain, 50).await);

        ground.set(|s| &s.full, true);
        // The log looks at the space that is left once in a while, so some may still fit.
        let error = loop {
            let text = format!("meanwhile-{}", answered.len());
            match world.publish(&topic, &[&text]).await {
                Ok(_) => answered.push(text),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, PortError::Unavailable(text) if text.contains("full")), "{kind}: {error:?}");
        let outcomes = exact.acknowledge(ids(&of_exact)).await.expect("answers");
        assert_eq!(outcomes, vec![AckOutcome::TransientFailure; 50], "{kind}: cannot be kept now");
        acknowledge(&plain, &of_plain[..20]).await;
        let spec = SubscriptionSpec::new(name("late"), topic.clone());
        world.port.create_subscription(spec.clone()).await.expect_err("there is no space for it");
        assert!(world.port.subscription(&name("late")).is_err(), "{kind}: it is not half there");
        world.bus.maintain().await.expect_err("what cannot be written is told");
        assert_eq!(
            sorted(&take(&plain, answered.len() - 50).await),
            answered[50..],
            "{kind}: delivery goes on"
        );

        ground.set(|s| &s.full, false);
        loop {
            match world.publish(&topic, &["with space"]).await {
                Ok(_) => break answered.push("with space".to_owned()),
                Err(error) => assert!(error.to_string().contains("full"), "{kind}: {error:?}"),
            }
            tokio::task::yield_now().await;
        }
        world.port.create_subscription(spec).await.expect("now it can be made");
        // The leases go on, so the same ids count.
        acknowledge(&exact, &of_exact[..30]).await;
        world.maintain().await;
        assert_eq!(bodies(&take(&plain, 1).await), ["with space"], "{kind}");
        drop((exact, plain));
        let next = ground.after_the_end();
        world.abandon().await;

        let world = open(next.disk(), &clocks).await;
        let left = |settled: usize| answered[settled..].iter().map(String::as_str).collect::<BTreeSet<_>>();
        let exact = drain(&world.subscription("exact")).await;
        let plain = drain(&world.subscription("plain")).await;
        assert_eq!(
            bodies(&exact).into_iter().collect::<BTreeSet<_>>(),
            left(30),
            "{kind}: confirmed are gone"
        );
        assert_eq!(
            bodies(&plain).into_iter().collect::<BTreeSet<_>>(),
            left(20),
            "{kind}: acknowledged are gone"
        );
        world.close().await;
    }
}

/// What a bit flipped in an old segment does, at one place.
async fn flip(ground: &Ground, seed: u64) -> (usize, u64) {
    const MESSAGES: usize = 150;
    let (clocks, kind) = (Clocks::new(), ground.name());
    let world = open(ground.disk(), &clocks).await;
    let topic = world.topic("orders").await;
    world.subscribe("all", &topic, |_| {}).await;
    let texts: Vec<String> = (0..MESSAGES).map(|n| format!("m-{n:04} {}", "x".repeat(400))).collect();
    let all: Vec<&str> = texts.iter().map(String::as_str).collect();
    for part in all.chunks(10) {
        world.publish(&topic, part).await.expect("published");
    }
    world.close().await;

    let mut rng = SimRng::new(seed);
    let path = ground.segments().remove(0);
    let before = ground.bytes_of(&path);
    // Behind the header of the segment.
    let at = 32 + rng.below(before.len() as u64 - 32);
    let byte = before[usize::try_from(at).expect("fits")] ^ (1 << rng.below(8));
    ground.overwrite(&path, at, &[byte]);

    let world = open(ground.disk(), &clocks).await;
    let received = drain(&world.subscription("all")).await;
    let found = counted(&received);
    for (text, count) in &found {
        assert!(texts.contains(text), "{kind} seed {seed}: wrong bytes were delivered: {text}");
        assert_eq!(*count, 1, "{kind} seed {seed}: {text}");
    }
    let missing = MESSAGES - found.len();
    let quarantined = world.bus.log_stats().quarantined;
    let stats = world.subscription("all").stats();
    assert_eq!(stats.backlog_messages, 0, "{kind} seed {seed}: what is damaged does not stay in the backlog");
    // What was cut out is kept aside, with the flipped bit in it.
    let kept: Vec<Vec<u8>> = ground.names_in("log/quarantine").iter().map(|n| ground.bytes_of(n)).collect();
    let damaged: Vec<&String> = texts.iter().filter(|text| !found.contains_key(*text)).collect();
    for text in &damaged {
        let number = &text.as_bytes()[..6];
        let is_kept = kept.iter().any(|bytes| {
            bytes.windows(6).any(|w| {
                // The flip may be in the number itself.
                w.iter().zip(number).filter(|(a, b)| a != b).count() <= 1
            })
        });
        assert!(is_kept, "{kind} seed {seed}: {} is in no quarantine", &text[..6]);
    }
    assert_eq!(
        missing > 0,
        quarantined > 0,
        "{kind} seed {seed}: {missing} missing, {quarantined} places named"
    );
    world.publish(&topic, &["later"]).await.expect("published");
    assert_eq!(bodies(&drain(&world.subscription("all")).await), ["later"]);
    world.close().await;
    (missing, quarantined)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_costs_the_damaged_messages_only_and_no_wrong_byte_is_delivered() {
    let _turn = beside_others().await;
    println!("seeds 0..24");
    let (mut payloads, mut headers) = (0, 0);
    for seed in 0..24 {
        let ground = if seed % 4 == 3 { Ground::real() } else { Ground::simulated(seed) };
        match flip(&ground, seed).await {
            (1, 1) => payloads += 1,
            // Behind a damaged header reading goes on at the next entry of the index.
            (missing, 1) if (2..=4).contains(&missing) => headers += 1,
            other => panic!("seed {seed}: {other:?} messages missing and places named"),
        }
    }
    println!("{payloads} flips cost one message, {headers} cost a few behind a damaged header");
    assert!(payloads > 0);
}

/// Nothing is checkpointed meanwhile: the commit log is all there is.
fn commit_log_only() -> levada_bus::BusConfig {
    let config = small_files();
    let log = LogConfig { idle_checkpoint_ms: 3_600_000, commit_file_bytes: 1 << 20, ..config.log };
    levada_bus::BusConfig { log, ..config }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_torn_in_the_middle_is_gone_as_a_whole_and_all_before_it_is_there() {
    let _turn = beside_others().await;
    for ground in Ground::both() {
        let (clocks, kind) = (Clocks::new(), ground.name());
        let world = open_with(ground.disk(), &clocks, commit_log_only()).await;
        let topic = world.topic("orders").await;
        let exact = world.subscribe("exact", &topic, exactly_once).await;
        let texts: Vec<String> = (0..40).map(|n| format!("before-{n:02}")).collect();
        world.publish_each(&topic, &texts).await;
        let taken = take(&exact, 40).await;
        acknowledge(&exact, &taken[..10]).await;
        let last: Vec<String> = (0..30).map(|n| format!("torn-{n:02} {}", "y".repeat(1_000))).collect();
        let last: Vec<&str> = last.iter().map(String::as_str).collect();
        world.publish(&topic, &last).await.expect("published");
        drop(exact);
        let image = ground.after_the_end();
        world.abandon().await;

        // The power went while the last group was on its way: its end never arrived.
        let path = image.names_in("log/commit").pop().expect("a commit file");
        let bytes = image.bytes_of(&path);
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("groups") as u64;
        image.overwrite(&path, end - 9_000, &[0; 9_001]);
        let world = open(image.disk(), &clocks).await;
        let found = drain(&world.subscription("exact")).await;
        assert_eq!(sorted(&found), texts[10..].iter().map(String::as_str).collect::<Vec<_>>(), "{kind}");
        assert_eq!(world.bus.log_stats().quarantined, 0, "{kind}: a torn tail is no damage");
        world.publish(&topic, &["after"]).await.expect("published");
        assert_eq!(bodies(&drain(&world.subscription("exact")).await), ["after"], "{kind}");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_moment_of_a_publish_leaves_all_of_it_or_nothing() {
    let _turn = beside_others().await;
    let (mut all, mut none) = (0, 0);
    for after in 0..48 {
        let (ground, clocks) = (Ground::simulated(after), Clocks::new());
        let world = open(ground.disk(), &clocks).await;
        let topic = world.topic("orders").await;
        world.subscribe("all", &topic, |_| {}).await;
        world.publish(&topic, &["first"]).await.expect("published");
        ground.power_fails_after(after);
        let request: Vec<_> =
            (0..25).map(|n| message("acme", &format!("r-{n:02} {}", "z".repeat(800)))).collect();
        let mut answered = world.send(&topic, request).await.is_ok();
        let second = world.publish(&topic, &["second"]).await.is_ok();
        let image = ground.after_the_end();
        world.abandon().await;
        let world = open(image.disk(), &clocks).await;
        let found = drain(&world.subscription("all")).await;
        let of_request = found.iter().filter(|m| body(m).starts_with("r-")).count();
        assert!(bodies(&found).contains(&"first"), "power cut after {after}: the first was answered");
        assert!(
            !second || bodies(&found).contains(&"second"),
            "power cut after {after}: the second was answered"
        );
        assert!(
            of_request == 25 || of_request == 0 && !answered,
            "power cut after {after}: {of_request} of 25"
        );
        answered |= of_request == 25;
        *(if answered { &mut all } else { &mut none }) += 1;
        world.close().await;
    }
    println!("power cuts at 48 moments: {all} times all of the request was there, {none} times none");
    assert!(all > 0 && none > 0);
}
