//! The Pub/Sub API over gRPC: publish, delivery from a backlog, latency of delivery.
//!
//! Every message is fsynced before its answer. What comes out is counted, and an order-free
//! digest of the message ids is compared with that of what the publishes answered.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1 as pb;
use levada_testkit::Levada;
use levada_testkit::program::Options;
use levada_testkit::services::Kind;
use prost::Message;

use super::grpc::{Client, frame};
use super::peers::{self, Load};
use super::{Bench, figure, figure_beside, note, project};

const MESSAGE_BYTES: usize = 1024;
pub(super) const TOPIC: &str = "projects/bench/topics/load";
pub(super) const SUBSCRIPTION: &str = "projects/bench/subscriptions/load";
/// What a client may have outstanding of its own.
const OUTSTANDING: i64 = 20_000;

pub(super) fn start(bench: &Bench, name: &str) -> Result<Levada> {
    let project = project::empty(&bench.fresh(&format!("{name}-project"))?)?;
    let mut options = Options::new(&project, &bench.fresh(&format!("{name}-data"))?);
    options.postgres = false;
    options.args = vec!["--dev".into()];
    Levada::start(&options)
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(super) async fn prepare(client: &Client) -> Result<()> {
    let topic = pb::Topic { name: TOPIC.to_owned(), ..pb::Topic::default() };
    client.unary::<pb::Topic>("Publisher/CreateTopic", &topic).await?;
    let subscription = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        ack_deadline_seconds: 60,
        ..pb::Subscription::default()
    };
    client.unary::<pb::Subscription>("Subscriber/CreateSubscription", &subscription).await?;
    Ok(())
}

fn request(batch: usize, data: &Bytes) -> pb::PublishRequest {
    let message = pb::PubsubMessage { data: data.clone(), ..pb::PubsubMessage::default() };
    pb::PublishRequest { topic: TOPIC.to_owned(), messages: vec![message; batch] }
}

fn data() -> Bytes {
    Bytes::from("abcdefghijklmnop".repeat(MESSAGE_BYTES / 16))
}

/// Count and order-free sum of message ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Digest {
    messages: u64,
    sum: u64,
}

impl Digest {
    fn add(&mut self, id: &str) -> Result<()> {
        let id: u64 = id.parse()?;
        self.messages += 1;
        self.sum = self.sum.wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (id >> 7));
        Ok(())
    }

    fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, sum: self.sum.wrapping_add(other.sum) }
    }
}

/// Publishes until the time is over: so many requests under way on each connection.
async fn publish(
    address: &str,
    connections: usize,
    under_way: usize,
    batch: usize,
    time: Duration,
) -> Result<(Digest, f64)> {
    let body = frame(&request(batch, &data()));
    let (begin, mut tasks) = (Instant::now(), Vec::new());
    for _ in 0..connections {
        let client = Client::connect(address).await?;
        for _ in 0..under_way {
            let (client, body) = (client.clone(), body.clone());
            tasks.push(tokio::spawn(async move {
                let mut digest = Digest::default();
                while begin.elapsed() < time {
                    let answer = client.call("Publisher/Publish", body.clone()).await?;
                    for id in pb::PublishResponse::decode(answer)?.message_ids {
                        digest.add(&id)?;
                    }
                }
                anyhow::Ok(digest)
            }));
        }
    }
    let mut all = Digest::default();
    for task in tasks {
        all = all.plus(task.await??);
    }
    Ok((all, all.messages as f64 / begin.elapsed().as_secs_f64()))
}

/// Takes messages from a stream and acknowledges them, until there were so many.
async fn consume(address: &str, messages: u64) -> Result<(Digest, Duration)> {
    let client = Client::connect(address).await?;
    let first = pb::StreamingPullRequest {
        subscription: SUBSCRIPTION.to_owned(),
        stream_ack_deadline_seconds: 60,
        max_outstanding_messages: OUTSTANDING,
        ..pb::StreamingPullRequest::default()
    };
    let begin = Instant::now();
    let (mut acks, mut answers) = client.stream("Subscriber/StreamingPull", frame(&first)).await?;
    let (mut digest, expected) = (Digest::default(), data());
    while digest.messages < messages {
        let Some(answer) = answers.next::<pb::StreamingPullResponse>().await? else { break };
        let mut ack_ids = Vec::with_capacity(answer.received_messages.len());
        for received in answer.received_messages {
            let message = received.message.unwrap_or_default();
            ensure!(message.data == expected, "message {} has another content", message.message_id);
            digest.add(&message.message_id)?;
            ack_ids.push(received.ack_id);
        }
        let ack = pb::StreamingPullRequest { ack_ids, ..pb::StreamingPullRequest::default() };
        acks.send_data(frame(&ack), false)?;
    }
    Ok((digest, begin.elapsed()))
}

/// Publishes in batches of 100, beside NATS JetStream and Redis Streams; then drains it all.
pub fn batches(bench: &Bench) -> Result<()> {
    let time = Duration::from_secs(bench.pick(6, 20));
    let (connections, under_way, batch) = (4, 3, 100);
    let levada = start(bench, "pubsub")?;
    let runtime = runtime()?;
    let (published, rate) = runtime.block_on(async {
        prepare(&Client::connect(&levada.http).await?).await?;
        publish(&levada.http, connections, under_way, batch, time).await
    })?;
    let load = Load { connections: connections * under_way, batch, message_bytes: MESSAGE_BYTES, time };
    note(format_args!("{} messages; draining them", published.messages));
    let (drained, took) = runtime.block_on(consume(&levada.http, published.messages))?;
    ensure!(drained == published, "other messages came than were published: {drained:?}, not {published:?}");
    drop(levada);
    let nats = peers::publish(Kind::Nats, &bench.fresh("nats")?, load)?;
    let redis = peers::publish(Kind::Redis, &bench.fresh("redis")?, load)?;
    figure_beside("pubsub_publish_per_s", rate, "messages/s", "nats-jetstream-file", nats);
    figure_beside("pubsub_publish_per_s", rate, "messages/s", "redis-streams-always", redis);
    figure("pubsub_drain_per_s", drained.messages as f64 / took.as_secs_f64(), "messages/s");
    Ok(())
}

/// One message a request, 256 under way.
pub fn singles(bench: &Bench) -> Result<()> {
    let levada = start(bench, "pubsub")?;
    let time = Duration::from_secs(bench.pick(6, 20));
    let (published, rate) = runtime()?.block_on(async {
        prepare(&Client::connect(&levada.http).await?).await?;
        publish(&levada.http, 8, 32, 1, time).await
    })?;
    let (drained, _) = runtime()?.block_on(consume(&levada.http, published.messages))?;
    ensure!(drained == published, "other messages came than were published: {drained:?}, not {published:?}");
    figure("pubsub_publish_single_per_s", rate, "messages/s");
    Ok(())
}

/// From the call of publish to the arrival on a stream, at 5,000 messages a second, beside an
/// empty call on the same server.
pub fn latency(bench: &Bench) -> Result<()> {
    const PER_S: u64 = 5_000;
    /// Publishes are sent together every so often, as a client library would.
    const EVERY: Duration = Duration::from_millis(2);
    let levada = start(bench, "pubsub")?;
    let messages = PER_S * bench.pick(5, 30);
    let (mut times, mut echoes) = runtime()?.block_on(async {
        prepare(&Client::connect(&levada.http).await?).await?;
        let (publisher, caller) =
            (Client::connect(&levada.http).await?, Client::connect(&levada.http).await?);
        let begin = Instant::now();
        let consumer = Client::connect(&levada.http).await?;
        let first = pb::StreamingPullRequest {
            subscription: SUBSCRIPTION.to_owned(),
            stream_ack_deadline_seconds: 60,
            ..pb::StreamingPullRequest::default()
        };
        let (mut acks, mut answers) = consumer.stream("Subscriber/StreamingPull", frame(&first)).await?;
        let send = async {
            let per_tick = PER_S * EVERY.as_millis() as u64 / 1000;
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..messages / per_tick {
                ticks.tick().await;
                for _ in 0..per_tick {
                    let mut data = begin.elapsed().as_nanos().to_le_bytes()[..8].to_vec();
                    data.resize(MESSAGE_BYTES, b'x');
                    let body = frame(&request(1, &data.into()));
                    let client = publisher.clone();
                    calls.spawn(async move { client.call("Publisher/Publish", body).await.map(drop) });
                }
                while calls.try_join_next().is_some() {}
            }
            while let Some(call) = calls.join_next().await {
                call??;
            }
            anyhow::Ok(())
        };
        let receive = async {
            let mut times = Vec::with_capacity(messages as usize);
            while (times.len() as u64) < messages {
                let Some(answer) = answers.next::<pb::StreamingPullResponse>().await? else { break };
                let now = begin.elapsed().as_nanos() as u64;
                let mut ack_ids = Vec::new();
                for received in answer.received_messages {
                    let data = received.message.unwrap_or_default().data;
                    let sent = data.first_chunk::<8>().map_or(now, |bytes| u64::from_le_bytes(*bytes));
                    times.push(now.saturating_sub(sent) as f64 / 1e6);
                    ack_ids.push(received.ack_id);
                }
                let ack = pb::StreamingPullRequest { ack_ids, ..pb::StreamingPullRequest::default() };
                acks.send_data(frame(&ack), false)?;
            }
            anyhow::Ok(times)
        };
        let echo = async {
            let get = frame(&pb::GetTopicRequest { topic: TOPIC.to_owned() });
            let (mut times, stop) = (Vec::new(), begin + Duration::from_secs(messages / PER_S));
            while Instant::now() < stop {
                let start = Instant::now();
                caller.call("Publisher/GetTopic", get.clone()).await?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(times)
        };
        let (sent, times, echoes) = tokio::join!(send, receive, echo);
        sent?;
        anyhow::Ok((times?, echoes?))
    })?;
    ensure!(times.len() as u64 == messages, "{} messages came of {messages}", times.len());
    let share = |times: &mut Vec<f64>, share: f64| {
        times.sort_unstable_by(f64::total_cmp);
        times[((times.len() - 1) as f64 * share) as usize]
    };
    for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
        let echo = share(&mut echoes, at);
        figure_beside(
            &format!("pubsub_delivery_{name}"),
            share(&mut times, at),
            "ms",
            "grpc-echo",
            Some(echo),
        );
    }
    Ok(())
}
