//! A small gRPC client for load: requests are encoded before, answers are hardly looked at.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use prost::Message;
use tokio::net::TcpStream;

const WINDOW_BYTES: u32 = 16 << 20;
const PREFIX_BYTES: usize = 5;

/// One HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub struct Client {
    requests: SendRequest<Bytes>,
    authority: String,
}

/// A message with its prefix, ready to be sent.
pub fn frame(message: &impl Message) -> Bytes {
    let mut out = Vec::with_capacity(PREFIX_BYTES + message.encoded_len());
    out.push(0);
    out.extend_from_slice(&u32::try_from(message.encoded_len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&message.encode_to_vec());
    out.into()
}

impl Client {
    pub async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(4 * WINDOW_BYTES);
        let (requests, connection) = builder.handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection ended: {error}");
            }
        });
        Ok(Self { requests, authority: address.to_owned() })
    }

    async fn open(&self, method: &str, end: bool) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
        let request = Request::post(format!("http://{}/google.pubsub.v1.{method}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        Ok(requests.send_request(request, end)?)
    }

    /// One call with one message each way; the answer's message as it came.
    pub async fn call(&self, method: &str, message: Bytes) -> Result<Bytes> {
        let (response, mut body) = self.open(method, false).await?;
        body.send_data(message, true)?;
        let response = response.await?;
        let failed = response.headers().get("grpc-status").cloned();
        let mut stream = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(part) = stream.data().await {
            let part = part?;
            stream.flow_control().release_capacity(part.len())?;
            answer.extend_from_slice(&part);
        }
        let trailers = stream.trailers().await?;
        let status = failed.or_else(|| trailers.as_ref()?.get("grpc-status").cloned());
        let status = status.context("an answer without status")?;
        if status != "0" {
            let text = trailers.as_ref().and_then(|t| t.get("grpc-message")).map(|m| format!("{m:?}"));
            bail!("{method} answered {status:?} {}", text.unwrap_or_default());
        }
        ensure!(answer.len() >= PREFIX_BYTES, "{method} answered nothing");
        answer.advance(PREFIX_BYTES);
        Ok(answer.freeze())
    }

    pub async fn unary<T: Message + Default>(&self, method: &str, message: &impl Message) -> Result<T> {
        Ok(T::decode(self.call(method, frame(message)).await?)?)
    }

    /// A call with streams both ways.
    pub async fn stream(&self, method: &str, first: Bytes) -> Result<(SendStream<Bytes>, Messages)> {
        let (response, mut body) = self.open(method, false).await?;
        body.send_data(first, false)?;
        let response = response.await?;
        ensure!(response.headers().get("grpc-status").is_none(), "{method} was refused: {response:?}");
        Ok((body, Messages { stream: response.into_body(), buffer: BytesMut::new() }))
    }
}

/// The messages of an answer that streams.
pub struct Messages {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    /// The next message; `None` at the end.
    pub async fn next<T: Message + Default>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                if self.buffer.len() >= PREFIX_BYTES + length {
                    let message = self.buffer.split_to(PREFIX_BYTES + length).freeze().slice(PREFIX_BYTES..);
                    return Ok(Some(T::decode(message)?));
                }
            }
            let Some(part) = self.stream.data().await else { return Ok(None) };
            let part = part?;
            self.stream.flow_control().release_capacity(part.len())?;
            self.buffer.extend_from_slice(&part);
        }
    }
}
