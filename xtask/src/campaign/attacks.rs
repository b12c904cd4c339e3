//! What tenant `a` does, each as a function that goes on until its time is over and tells what
//! it was answered.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{self, Client, connect, post, query};

/// The address of the attacker; the victim is at 127.0.0.1.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const PAUSE: Duration = Duration::from_millis(200);

/// Addresses, and keys of tenant `a`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scene {
    pub http: SocketAddr,
    pub postgres: SocketAddr,
    pub analyst: String,
    pub service: String,
    pub engineer: String,
}

type Running = Pin<Box<dyn Future<Output = Answers> + Send>>;

pub struct Attack {
    pub name: &'static str,
    pub run: fn(Arc<Scene>, Instant) -> Running,
}

pub const ALL: &[Attack] = &[
    Attack { name: "deep queries", run: |s, u| Box::pin(deep_queries(s, u)) },
    Attack { name: "hungry queries", run: |s, u| Box::pin(hungry_queries(s, u)) },
    Attack { name: "long queries", run: |s, u| Box::pin(long_queries(s, u)) },
    Attack { name: "idle connections", run: |s, u| Box::pin(idle_connections(s, u)) },
    Attack { name: "open streams", run: |s, u| Box::pin(open_streams(s, u)) },
    Attack { name: "waiting pulls", run: |s, u| Box::pin(waiting_pulls(s, u)) },
    Attack { name: "postgres startups", run: |s, u| Box::pin(startups(s, u)) },
    Attack { name: "unfinished bodies", run: |s, u| Box::pin(unfinished_bodies(s, u)) },
    Attack { name: "hanging push endpoints", run: |s, u| Box::pin(hanging_push(s, u)) },
    Attack { name: "idempotency keys", run: |s, u| Box::pin(idempotency_keys(s, u)) },
    Attack { name: "wrong keys", run: |s, u| Box::pin(wrong_keys(s, u)) },
];

/// How often each answer came.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answers(BTreeMap<String, u64>);

impl Answers {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    fn answer(&mut self, answer: Result<client::Answer>) {
        match answer {
            Ok(answer) => {
                let text =
                    |name: &str| answer.body.split(&format!("\"{name}\":\"")).nth(1)?.split('"').next();
                let why = text("code").or_else(|| text("message")).unwrap_or_default();
                self.count(format!("{} {why}", answer.status).trim().to_owned());
            }
            Err(_) => self.count("cut"),
        }
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(|(what, count)| format!("{what}: {count}")).collect();
        f.write_str(&shown.join(", "))
    }
}

/// What a process of an attacker is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub scene: Scene,
    /// Names of the attacks that run beside one another.
    pub attacks: Vec<String>,
    pub seconds: f64,
}

/// Carries an order out.
///
/// # Errors
/// When an attack panics, or its name is unknown.
pub async fn carry_out(order: Order) -> Result<Answers> {
    let until = Instant::now() + Duration::from_secs_f64(order.seconds);
    let scene = Arc::new(order.scene);
    let mut running = Vec::new();
    for name in &order.attacks {
        let attack = ALL.iter().find(|attack| attack.name == name).context("no such attack")?;
        running.push(tokio::spawn((attack.run)(Arc::clone(&scene), until)));
    }
    let mut said = Answers::default();
    for attack in running {
        said.add(attack.await?);
    }
    Ok(said)
}

/// Sends requests one after another over one connection, a new one after each cut.
async fn repeat(http: SocketAddr, until: Instant, mut next: impl FnMut(u64) -> Vec<u8>) -> Answers {
    let (mut said, mut open, mut n) = (Answers::default(), None, 0);
    while Instant::now() < until {
        let request = next(n);
        n += 1;
        let answer = timeout(until.saturating_duration_since(Instant::now()), async {
            let client = match &mut open {
                Some(client) => client,
                None => open.insert(Client::open(FROM, http).await?),
            };
            client.send(&request).await
        });
        match answer.await {
            Ok(answer) => {
                if answer.is_err() {
                    open = None;
                    tokio::time::sleep(PAUSE).await;
                }
                said.answer(answer);
            }
            Err(_) => said.count("unanswered"),
        }
    }
    said
}

/// Runs `count` of something beside each other.
async fn beside<F, W>(count: u64, make: F) -> Answers
where
    F: Fn(u64) -> W,
    W: Future<Output = Answers> + Send + 'static,
{
    let mut tasks: JoinSet<Answers> = (0..count).map(make).collect();
    let mut said = Answers::default();
    while let Some(done) = tasks.join_next().await {
        said.add(done.unwrap_or_default());
    }
    said
}

/// Two connections that ask the texts in turn, with the key of the lowest role.
async fn ask_in_turn(scene: Arc<Scene>, texts: Arc<[String]>, until: Instant) -> Answers {
    beside(2, |i| {
        let (scene, texts) = (Arc::clone(&scene), Arc::clone(&texts));
        async move {
            repeat(scene.http, until, |n| {
                query(&scene.analyst, &texts[((n * 2 + i) % texts.len() as u64) as usize])
            })
            .await
        }
    })
    .await
}

async fn deep_queries(scene: Arc<Scene>, until: Instant) -> Answers {
    let repeat_text = |first: &str, part: &str, count: usize| format!("select {first}{}", part.repeat(count));
    let nested = |open: &str, close: &str, count: usize| {
        format!("select {}1{}", open.repeat(count), close.repeat(count))
    };
    let texts: Arc<[String]> = Arc::new([
        repeat_text("1", "+1", 3_000),
        repeat_text("1", "::int", 2_500),
        repeat_text("true", " or true", 8_000),
        repeat_text("1", " is null", 5_000),
        repeat_text("'a'", "||'a'", 5_000),
        repeat_text("1", " union all select 1", 5_000),
        repeat_text("1", " - -1", 5_000),
        repeat_text("true", " = true", 20_000),
        nested("abs(", ")", 2_000),
        nested("(", ")", 5_000),
        nested("case when true then ", " end", 1_000),
        format!(
            "with c0 as (select 1 as x){} select * from c1999",
            (1..2_000).map(|i| format!(", c{i} as (select x from c{})", i - 1)).collect::<String>()
        ),
    ]);
    ask_in_turn(scene, texts, until).await
}

async fn hungry_queries(scene: Arc<Scene>, until: Instant) -> Answers {
    let doubled =
        (1..26).map(|i| format!(", c{i} as (select x from c{0} union all select x from c{0})", i - 1));
    let texts: Arc<[String]> = Arc::new([
        "select array_length(range(0, 1000000000))".to_owned(),
        "select length(repeat('x', 2000000000))".to_owned(),
        "select length(lpad('x', 2000000000, 'y'))".to_owned(),
        "select array_length(array_repeat('xxxxxxxxxxxxxxxx', 500000000))".to_owned(),
        "select array_length(generate_series(0, 1000000000))".to_owned(),
        "select length(string_agg(repeat('x', 1000), ',')) from generate_series(1, 10000000)".to_owned(),
        "select length(regexp_replace(repeat('x', 1000000), 'x', repeat('y', 10000), 'g'))".to_owned(),
        "select array_length(array_agg(value)) from generate_series(1, 1000000000)".to_owned(),
        format!("with c0 as (select 1 as x){} select count(*) from c25", doubled.collect::<String>()),
    ]);
    ask_in_turn(scene, texts, until).await
}

async fn long_queries(scene: Arc<Scene>, until: Instant) -> Answers {
    beside(20, |_| {
        let scene = Arc::clone(&scene);
        let sql = "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b where a.value % 7 = b.value % 11";
        async move { repeat(scene.http, until, |_| query(&scene.analyst, sql)).await }
    })
    .await
}

/// Holds something open until the end, or until the server cuts it, over and over.
async fn hold(to: SocketAddr, first: Vec<u8>, until: Instant) -> Answers {
    let mut said = Answers::default();
    while Instant::now() < until {
        let held = async {
            let mut stream = connect(FROM, to).await?;
            stream.write_all(&first).await?;
            let mut buffer = [0; 4096];
            loop {
                if stream.read(&mut buffer).await? == 0 {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        };
        match timeout(until.saturating_duration_since(Instant::now()), held).await {
            Err(_) => said.count("held"),
            Ok(_) => {
                said.count("cut");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    said
}

async fn idle_connections(scene: Arc<Scene>, until: Instant) -> Answers {
    let request = b"GET /healthz HTTP/1.1\r\nhost: levada\r\n\r\n".to_vec();
    beside(4_200, |_| hold(scene.http, request.clone(), until)).await
}

async fn startups(scene: Arc<Scene>, until: Instant) -> Answers {
    // Every other one asks for TLS and then says nothing.
    let asks = vec![0, 0, 0, 8, 4, 210, 22, 47];
    beside(300, |i| hold(scene.postgres, if i % 2 == 0 { asks.clone() } else { Vec::new() }, until)).await
}

async fn unfinished_bodies(scene: Arc<Scene>, until: Instant) -> Answers {
    beside(300, |i| {
        let (path, key) = match i % 3 {
            0 => ("/v1/projects/project-a/topics/t:publish", &scene.analyst),
            1 => ("/v1/projects/project-a/topics/t:publish", &scene.service),
            _ => ("/v1/events", &scene.service),
        };
        let mut request = post(path, key, &format!("[\"{}\"]", "x".repeat(8 << 20)));
        request.truncate(request.len() - 100);
        hold(scene.http, request, until)
    })
    .await
}

/// HTTP/2 connections full of streams that never send their first message.
async fn open_streams(scene: Arc<Scene>, until: Instant) -> Answers {
    beside(17, |_| {
        let scene = Arc::clone(&scene);
        async move {
            let mut said = Answers::default();
            while Instant::now() < until {
                let left = until.saturating_duration_since(Instant::now());
                match timeout(left, full_connection(&scene)).await {
                    Err(_) => said.count("held"),
                    Ok(cut) => {
                        said.count(cut.err().map_or_else(|| "refused".to_owned(), |_| "cut".to_owned()));
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            said
        }
    })
    .await
}

async fn full_connection(scene: &Scene) -> Result<()> {
    let stream = connect(FROM, scene.http).await?;
    let (requests, connection) = h2::client::handshake(stream).await?;
    let driving = tokio::spawn(connection);
    let mut open: JoinSet<()> = JoinSet::new();
    for _ in 0..255 {
        let request =
            http::Request::post(format!("http://{}/google.pubsub.v1.Subscriber/StreamingPull", scene.http))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("authorization", format!("Bearer {}", scene.engineer))
                .body(())?;
        let mut ready = requests.clone().ready().await?;
        let (response, body): (_, h2::SendStream<Bytes>) = ready.send_request(request, false)?;
        open.spawn(async move {
            let _body = body;
            if let Ok(response) = response.await {
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.data().await {}
            }
        });
    }
    while open.join_next().await.is_some() {}
    driving.abort();
    Ok(())
}

async fn waiting_pulls(scene: Arc<Scene>, until: Instant) -> Answers {
    prepare(&scene, "pulled", None).await;
    let request =
        post("/v1/projects/project-a/subscriptions/pulled-0:pull", &scene.engineer, r#"{"maxMessages": 10}"#);
    beside(600, |_| {
        let (scene, request) = (Arc::clone(&scene), request.clone());
        async move { repeat(scene.http, until, |_| request.clone()).await }
    })
    .await
}

/// A topic with five subscriptions, perhaps pushed to an endpoint.
async fn prepare(scene: &Scene, name: &str, endpoint: Option<&str>) -> Answers {
    let mut said = Answers::default();
    let Ok(mut client) = Client::open(FROM, scene.http).await else { return said };
    let put = |path: &str, body: &str| {
        let text = String::from_utf8_lossy(&post(path, &scene.engineer, body)).replacen("POST", "PUT", 1);
        text.into_bytes()
    };
    said.answer(client.send(&put(&format!("/v1/projects/project-a/topics/{name}"), "{}")).await);
    for i in 0..5 {
        let mut body = serde_json::json!({ "topic": format!("projects/project-a/topics/{name}") });
        if let Some(endpoint) = endpoint {
            body["pushConfig"] = serde_json::json!({ "pushEndpoint": endpoint });
        }
        let path = format!("/v1/projects/project-a/subscriptions/{name}-{i}");
        said.answer(client.send(&put(&path, &body.to_string())).await);
    }
    said
}

/// Endpoints that take a connection and never answer.
async fn hanging_push(scene: Arc<Scene>, until: Instant) -> Answers {
    let mut said = Answers::default();
    let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await else { return said };
    let Ok(address) = listener.local_addr() else { return said };
    let hanging = tokio::spawn(async move {
        let mut held: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    said.add(prepare(&scene, "pushed", Some(&format!("https://{address}/hang"))).await);
    let message = r#"{"data": "eA=="}"#;
    let body = format!("{{\"messages\": [{}]}}", vec![message; 200].join(","));
    let request = post("/v1/projects/project-a/topics/pushed:publish", &scene.engineer, &body);
    said.add(repeat_slowly(scene.http, until, &request).await);
    hanging.abort();
    said
}

async fn repeat_slowly(http: SocketAddr, until: Instant, request: &[u8]) -> Answers {
    let mut said = Answers::default();
    while Instant::now() < until {
        said.add(repeat(http, Instant::now() + Duration::from_millis(1), |_| request.to_vec()).await);
        tokio::time::sleep(PAUSE).await;
    }
    said
}

async fn idempotency_keys(scene: Arc<Scene>, until: Instant) -> Answers {
    beside(4, |worker| {
        let scene = Arc::clone(&scene);
        async move {
            repeat(scene.http, until, |n| {
                let event = |i: u64| {
                    format!("{{\"event_type\":\"noise.made\",\"idempotency_key\":\"{worker}-{n}-{i}-{until:?}\",\"payload\":{{\"n\":{i}}}}}")
                };
                post("/v1/events", &scene.service, &format!("[{}]", (0..1_000).map(event).collect::<Vec<_>>().join(",")))
            })
            .await
        }
    })
    .await
}

async fn wrong_keys(scene: Arc<Scene>, until: Instant) -> Answers {
    beside(20, |i| {
        let scene = Arc::clone(&scene);
        async move { repeat(scene.http, until, |n| query(&format!("lv_wrong{i}_{n}"), "select 1")).await }
    })
    .await
}
