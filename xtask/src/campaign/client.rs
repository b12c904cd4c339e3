//! As little HTTP as the campaign needs: one request, one answer, from a chosen address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A kept-alive connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// Status and body.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

pub async fn connect(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream =
        tokio::time::timeout(Duration::from_secs(5), socket.connect(to)).await.context("no connection")??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The bytes of a request with a JSON body.
pub fn post(path: &str, key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: levada\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub fn query(key: &str, sql: &str) -> Vec<u8> {
    post("/v1/sql", key, &serde_json::json!({ "sql": sql }).to_string())
}

impl Client {
    pub async fn open(from: IpAddr, to: SocketAddr) -> Result<Self> {
        Ok(Self { stream: connect(from, to).await?, buffer: Vec::with_capacity(16 << 10) })
    }

    /// # Errors
    /// When the connection ends before the answer does.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some(answer) = whole(&self.buffer)? {
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
        }
    }
}

/// The answer, where all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?.to_ascii_lowercase();
    let body = &bytes[end + 4..];
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let done = match field("content-length: ") {
        Some(length) => body.len() >= length.trim().parse::<usize>()?,
        None if field("transfer-encoding: chunked").is_some() => body.ends_with(b"0\r\n\r\n"),
        None => bail!("an answer without a length"),
    };
    Ok(done.then(|| Answer { status, body: String::from_utf8_lossy(body).into_owned() }))
}
