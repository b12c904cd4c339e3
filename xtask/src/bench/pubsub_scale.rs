//! Whether the cost of a message stays the same as tenants, topics and kept messages grow, and
//! whether a small tenant waits for a large one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1 as pb;

use super::grpc::{Client, frame};
use super::pubsub::{SUBSCRIPTION, TOPIC, prepare, runtime, start};
use super::{Bench, figure, figure_beside, note};

const BATCH: usize = 100;
const UNDER_WAY: usize = 12;
const SMALL_BYTES: usize = 100;
const LARGE_BYTES: usize = 1024;

fn message(tenant: usize, data: &Bytes) -> pb::PubsubMessage {
    let attributes = [("tenant_id".to_owned(), format!("tenant-{tenant}"))].into_iter().collect();
    pb::PubsubMessage { data: data.clone(), attributes, ..pb::PubsubMessage::default() }
}

/// A request of 100 messages whose tenants follow one another.
fn body(topic: &str, tenants: usize, bytes: usize, first: usize) -> Bytes {
    let data = Bytes::from(vec![b'x'; bytes]);
    let messages = (first..first + BATCH).map(|n| message(n % tenants, &data)).collect();
    frame(&pb::PublishRequest { topic: topic.to_owned(), messages })
}

/// Requests that go round the tenants: a hundred at least, so that what differs is not how much
/// of the load fits into a cache.
fn batches(topic: &str, tenants: usize, bytes: usize) -> Vec<Bytes> {
    (0..tenants.div_ceil(BATCH).max(100)).map(|n| body(topic, tenants, bytes, n * BATCH)).collect()
}

/// Messages a second while the bodies are published in turn, for a time or so many messages.
async fn publish(address: &str, bodies: &[Bytes], time: Duration, messages: u64) -> Result<(u64, f64)> {
    let (begin, mut tasks) = (Instant::now(), Vec::new());
    let share = messages.div_ceil((UNDER_WAY * BATCH) as u64);
    let clients = [Client::connect(address).await?, Client::connect(address).await?];
    for n in 0..UNDER_WAY {
        let (client, bodies) = (clients[n % 2].clone(), bodies.to_vec());
        tasks.push(tokio::spawn(async move {
            let mut sent = 0;
            // Each begins elsewhere, so that all of them are always in use.
            for body in bodies.iter().cycle().skip(n * bodies.len() / UNDER_WAY) {
                if begin.elapsed() >= time || sent >= share {
                    break;
                }
                client.call("Publisher/Publish", body.clone()).await?;
                sent += 1;
            }
            anyhow::Ok(sent)
        }));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await??;
    }
    let messages = sent * BATCH as u64;
    Ok((messages, messages as f64 / begin.elapsed().as_secs_f64()))
}

/// Takes so many messages and answers how many came a second.
async fn drain(address: &str, messages: u64) -> Result<f64> {
    let client = Client::connect(address).await?;
    let first = pb::StreamingPullRequest {
        subscription: SUBSCRIPTION.to_owned(),
        stream_ack_deadline_seconds: 60,
        max_outstanding_messages: 20_000,
        ..pb::StreamingPullRequest::default()
    };
    let begin = Instant::now();
    let (mut acks, mut answers) = client.stream("Subscriber/StreamingPull", frame(&first)).await?;
    let mut taken = 0;
    while taken < messages {
        let Some(answer) = answers.next::<pb::StreamingPullResponse>().await? else { break };
        taken += answer.received_messages.len() as u64;
        let ack_ids = answer.received_messages.into_iter().map(|received| received.ack_id).collect();
        let ack = pb::StreamingPullRequest { ack_ids, ..pb::StreamingPullRequest::default() };
        acks.send_data(frame(&ack), false)?;
    }
    ensure!(taken == messages, "{taken} messages came of {messages}");
    Ok(messages as f64 / begin.elapsed().as_secs_f64())
}

pub fn cost(bench: &Bench) -> Result<()> {
    // Each leaves gigabytes behind.
    tenants(bench)?;
    bench.clear()?;
    topics(bench)?;
    bench.clear()?;
    kept(bench)
}

/// What a message costs with 10,000 tenants beside one: publish and drain, in turns, because the
/// machine is not as fast in one minute as in the next. The figures are medians.
pub fn tenants(bench: &Bench) -> Result<()> {
    const ROUNDS: usize = 3;
    let time = Duration::from_secs(bench.pick(3, 8));
    let mut rates = [const { (Vec::new(), Vec::new()) }; 2];
    for _ in 0..ROUNDS {
        for (rates, tenants) in rates.iter_mut().zip([1, 10_000]) {
            let (published, drained) = tenants_once(bench, tenants, time)?;
            rates.0.push(published);
            rates.1.push(drained);
            bench.clear()?;
        }
    }
    let [mut one, mut many] = rates;
    let peer = "one-tenant";
    for (name, many, one) in [("publish", &mut many.0, &mut one.0), ("drain", &mut many.1, &mut one.1)] {
        let name = format!("pubsub_10000_tenants_{name}_per_s");
        figure_beside(&name, at(many, 0.5), "messages/s", peer, Some(at(one, 0.5)));
    }
    Ok(())
}

/// Messages published and drained a second.
fn tenants_once(bench: &Bench, tenants: usize, time: Duration) -> Result<(f64, f64)> {
    let levada = start(bench, &format!("tenants-{tenants}"))?;
    let (published, drained, drain_us) = runtime()?.block_on(async {
        prepare(&Client::connect(&levada.http).await?).await?;
        let bodies = batches(TOPIC, tenants, LARGE_BYTES);
        // Once round first: a tenant's first message makes its lane.
        let (warm, _) = publish(&levada.http, &bodies, Duration::from_secs(60), (2 * tenants) as u64).await?;
        let (messages, published) = publish(&levada.http, &bodies, time, u64::MAX).await?;
        let before = levada.cpu_time()?;
        let drained = drain(&levada.http, warm + messages).await?;
        let took = (levada.cpu_time()? - before).as_secs_f64() * 1e6;
        anyhow::Ok((published, drained, took / (warm + messages) as f64))
    })?;
    note(format_args!(
        "{tenants} tenants: {published:.0} published, {drained:.0} drained a second, the latter at \
         {drain_us:.2} us of the server's processors each"
    ));
    Ok((published, drained))
}

fn topics(bench: &Bench) -> Result<()> {
    const TOPICS: usize = 2_000;
    let time = Duration::from_secs(bench.pick(3, 15));
    let levada = start(bench, "topics")?;
    let (one, many) = runtime()?.block_on(async {
        let client = Client::connect(&levada.http).await?;
        prepare(&client).await?;
        let one = batches(TOPIC, 1, LARGE_BYTES);
        let mut bodies = Vec::with_capacity(TOPICS);
        for n in 0..TOPICS {
            let name = format!("projects/bench/topics/load{n}");
            let topic = pb::Topic { name: name.clone(), ..pb::Topic::default() };
            client.unary::<pb::Topic>("Publisher/CreateTopic", &topic).await?;
            bodies.push(body(&name, 1, LARGE_BYTES, 0));
        }
        let (_, one) = publish(&levada.http, &one, time, u64::MAX).await?;
        publish(&levada.http, &bodies, Duration::from_secs(60), (2 * TOPICS * BATCH) as u64).await?;
        let (_, many) = publish(&levada.http, &bodies, time, u64::MAX).await?;
        anyhow::Ok((one, many))
    })?;
    figure_beside("pubsub_2000_topics_publish_per_s", many, "messages/s", "one-topic", Some(one));
    Ok(())
}

fn kept(bench: &Bench) -> Result<()> {
    let (few, many): (u64, u64) = (100_000, bench.pick(5_000_000, 50_000_000));
    let time = Duration::from_secs(bench.pick(2, 10));
    let levada = start(bench, "kept")?;
    let (first, last, resident) = runtime()?.block_on(async {
        prepare(&Client::connect(&levada.http).await?).await?;
        let bodies = batches(TOPIC, 1, SMALL_BYTES);
        let (warm, _) = publish(&levada.http, &bodies, Duration::from_secs(600), few).await?;
        let (more, first) = publish(&levada.http, &bodies, time, u64::MAX).await?;
        let rest = many.saturating_sub(warm + more);
        publish(&levada.http, &bodies, Duration::from_secs(3600), rest).await?;
        let (_, last) = publish(&levada.http, &bodies, time, u64::MAX).await?;
        anyhow::Ok((first, last, levada.resident_bytes()?))
    })?;
    let name = format!("pubsub_publish_with_{many}_kept_per_s");
    figure_beside(&name, last, "messages/s", &format!("with_{few}_kept"), Some(first));
    figure("pubsub_resident_with_many_kept", resident as f64 / f64::from(1 << 20), "MiB");
    Ok(())
}

/// Latency of tenant B at 100 messages a second: alone, and while tenant A has a backlog of a
/// million and goes on publishing. One stream takes both, 1,000 messages under way.
pub fn fairness(bench: &Bench) -> Result<()> {
    let backlog = bench.pick(300_000, 1_000_000);
    let time = Duration::from_secs(bench.pick(4, 10));
    let levada = start(bench, "fairness")?;
    let (mut quiet, mut loud) = runtime()?.block_on(async {
        prepare(&Client::connect(&levada.http).await?).await?;
        let quiet = small_tenant(&levada.http, time).await?;
        let bodies = batches(TOPIC, 1, LARGE_BYTES);
        publish(&levada.http, &bodies, Duration::from_secs(600), backlog).await?;
        let burst = async {
            // Its connection is its own; it goes on while B is measured.
            let client = Client::connect(&levada.http).await?;
            let begin = Instant::now();
            while begin.elapsed() < time {
                client.call("Publisher/Publish", bodies[0].clone()).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        };
        let (loud, burst) = tokio::join!(small_tenant(&levada.http, time), burst);
        burst?;
        anyhow::Ok((quiet, loud?))
    })?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (quiet, loud) = (at(&mut quiet, share), at(&mut loud, share));
        figure_beside(&format!("pubsub_small_tenant_{name}"), loud, "ms", "quiet", Some(quiet));
    }
    Ok(())
}

fn at(times: &mut [f64], share: f64) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share) as usize]
}

/// From publish to arrival of tenant B's messages, in milliseconds.
async fn small_tenant(address: &str, time: Duration) -> Result<Vec<f64>> {
    let (publisher, consumer) = (Client::connect(address).await?, Client::connect(address).await?);
    let first = pb::StreamingPullRequest {
        subscription: SUBSCRIPTION.to_owned(),
        stream_ack_deadline_seconds: 60,
        max_outstanding_messages: 1_000,
        ..pb::StreamingPullRequest::default()
    };
    let begin = Instant::now();
    let (mut acks, mut answers) = consumer.stream("Subscriber/StreamingPull", frame(&first)).await?;
    let wanted = time.as_millis() as usize / 10;
    let send = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..wanted {
            ticks.tick().await;
            let mut data = (begin.elapsed().as_nanos() as u64).to_le_bytes().to_vec();
            data.resize(LARGE_BYTES, b'b');
            let messages = vec![message(1, &data.into())];
            let body = frame(&pb::PublishRequest { topic: TOPIC.to_owned(), messages });
            let client = publisher.clone();
            calls.spawn(async move { client.call("Publisher/Publish", body).await.map(drop) });
        }
        while let Some(call) = calls.join_next().await {
            call??;
        }
        anyhow::Ok(())
    };
    let receive = async {
        let mut times = Vec::with_capacity(wanted);
        while times.len() < wanted {
            let Some(answer) = answers.next::<pb::StreamingPullResponse>().await? else { break };
            let now = begin.elapsed().as_nanos() as u64;
            let mut ack_ids = Vec::with_capacity(answer.received_messages.len());
            for received in answer.received_messages {
                let data = received.message.unwrap_or_default().data;
                if data.last() == Some(&b'b') {
                    let sent = data.first_chunk::<8>().map_or(now, |bytes| u64::from_le_bytes(*bytes));
                    times.push(now.saturating_sub(sent) as f64 / 1e6);
                }
                ack_ids.push(received.ack_id);
            }
            let ack = pb::StreamingPullRequest { ack_ids, ..pb::StreamingPullRequest::default() };
            acks.send_data(frame(&ack), false)?;
        }
        anyhow::Ok(times)
    };
    let (sent, times) = tokio::join!(send, receive);
    sent?;
    let times = times?;
    ensure!(times.len() == wanted, "{} messages came of {wanted}", times.len());
    Ok(times)
}
