//! The peers of the Pub/Sub benchmarks, driven over their own protocols: NATS JetStream with
//! file storage and its default acknowledgements (not fsynced), and Redis Streams with
//! `appendfsync always`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use levada_testkit::services::{Kind, Service};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How much, and how.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub connections: usize,
    pub batch: usize,
    pub message_bytes: usize,
    pub time: Duration,
}

/// Messages a second that were acknowledged. `None` where the peer is not installed.
pub fn publish(kind: Kind, folder: &Path, load: Load) -> Result<Option<f64>> {
    if kind.program().is_none() {
        super::note(format_args!("{} is not installed: no comparison", kind.name()));
        return Ok(None);
    }
    let service = Service::start(kind, folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rate = runtime.block_on(async {
        let address = format!("127.0.0.1:{}", service.port);
        match kind {
            Kind::Nats => Nats::prepare(&address).await?,
            _ => Redis::prepare(&address).await?,
        }
        let (begin, mut tasks) = (Instant::now(), Vec::new());
        for n in 0..load.connections {
            let address = address.clone();
            tasks.push(tokio::spawn(async move {
                match kind {
                    Kind::Nats => Nats::connect(&address).await?.run(n, load, begin + load.time).await,
                    _ => Redis::connect(&address).await?.run(load, begin + load.time).await,
                }
            }));
        }
        let mut messages = 0;
        for task in tasks {
            messages += task.await??;
        }
        anyhow::Ok(messages as f64 / begin.elapsed().as_secs_f64())
    })?;
    Ok(Some(rate))
}

struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 20, stream), line: String::new() })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes).await?)
    }

    async fn line(&mut self) -> Result<&str> {
        self.line.clear();
        ensure!(self.stream.read_line(&mut self.line).await? > 0, "the server closed the connection");
        Ok(self.line.trim_end())
    }
}

struct Nats(Connection);

impl Nats {
    async fn connect(address: &str) -> Result<Self> {
        let mut connection = Connection::open(address).await?;
        let info = connection.line().await?;
        ensure!(info.starts_with("INFO"), "no NATS server: {info}");
        connection.send(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n").await?;
        Ok(Self(connection))
    }

    /// The payload of the next message that is for this connection.
    async fn message(&mut self) -> Result<Vec<u8>> {
        loop {
            let line = self.0.line().await?;
            if line == "PING" {
                self.0.send(b"PONG\r\n").await?;
            } else if let Some(rest) = line.strip_prefix("MSG ") {
                let bytes: usize =
                    rest.rsplit(' ').next().and_then(|n| n.parse().ok()).context("a length")?;
                let mut payload = vec![0; bytes + 2];
                self.0.stream.read_exact(&mut payload).await?;
                payload.truncate(bytes);
                return Ok(payload);
            } else {
                ensure!(!line.starts_with("-ERR"), "NATS: {line}");
            }
        }
    }

    async fn prepare(address: &str) -> Result<()> {
        let mut nats = Self::connect(address).await?;
        let config = r#"{"name":"BENCH","subjects":["bench"],"storage":"file","retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"num_replicas":1}"#;
        let request =
            format!("SUB reply 1\r\nPUB $JS.API.STREAM.CREATE.BENCH reply {}\r\n{config}\r\n", config.len());
        nats.0.send(request.as_bytes()).await?;
        let answer = String::from_utf8(nats.message().await?)?;
        ensure!(!answer.contains("\"error\""), "NATS made no stream: {answer}");
        Ok(())
    }

    async fn run(mut self, n: usize, load: Load, end: Instant) -> Result<u64> {
        self.0.send(format!("SUB acks{n} 1\r\n").as_bytes()).await?;
        let message =
            format!("PUB bench acks{n} {}\r\n{}\r\n", load.message_bytes, "x".repeat(load.message_bytes));
        let batch = message.repeat(load.batch).into_bytes();
        let mut messages = 0;
        while Instant::now() < end {
            self.0.send(&batch).await?;
            for _ in 0..load.batch {
                let answer = self.message().await?;
                ensure!(!answer.windows(7).any(|w| w == b"\"error\""), "NATS refused a message");
            }
            messages += load.batch as u64;
        }
        Ok(messages)
    }
}

struct Redis(Connection);

impl Redis {
    async fn connect(address: &str) -> Result<Self> {
        Ok(Self(Connection::open(address).await?))
    }

    async fn prepare(address: &str) -> Result<()> {
        let mut redis = Self::connect(address).await?;
        for setting in ["appendonly yes", "appendfsync always"] {
            redis.0.send(format!("CONFIG SET {setting}\r\n").as_bytes()).await?;
            let answer = redis.0.line().await?;
            ensure!(answer == "+OK", "Redis refused `{setting}`: {answer}");
        }
        Ok(())
    }

    async fn run(mut self, load: Load, end: Instant) -> Result<u64> {
        let body = "x".repeat(load.message_bytes);
        let message = format!(
            "*5\r\n$4\r\nXADD\r\n$5\r\nbench\r\n$1\r\n*\r\n$1\r\nd\r\n${}\r\n{body}\r\n",
            load.message_bytes
        );
        let batch = message.repeat(load.batch).into_bytes();
        let mut messages = 0;
        while Instant::now() < end {
            self.0.send(&batch).await?;
            for _ in 0..load.batch {
                let length = self.0.line().await?;
                ensure!(length.starts_with('$'), "Redis refused a message: {length}");
                self.0.line().await?;
            }
            messages += load.batch as u64;
        }
        Ok(messages)
    }
}
