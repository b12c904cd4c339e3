//! A client of the HTTP API: finds the server and the key, turns answers into failures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use levada_core::Problem;
use serde::Deserialize;
use serde_json::Value;

use crate::args::Global;
use crate::output::{Failure, exit};

/// What a running server writes into its data folder.
#[derive(Debug, Deserialize)]
struct Run {
    url: String,
}

/// A server to talk to and the key to show it.
#[derive(Clone)]
pub struct Connection {
    url: String,
    key: Option<String>,
    http: reqwest::Client,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The data folder meant by a project or data folder.
pub(crate) fn data_dir(project: &Path) -> PathBuf {
    if project.join("run.json").is_file() {
        return project.to_owned();
    }
    let loaded = levada_config::data_dir(project);
    loaded.unwrap_or_else(|| project.join(".levada"))
}

impl Connection {
    /// Finds the server by `--url`, or by the `run.json` of the project's data folder.
    ///
    /// # Errors
    /// `UNREACHABLE` when no server is known.
    pub fn open(global: &Global) -> Result<Self, Failure> {
        let data = data_dir(&global.project);
        let url = match &global.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => Self::running(&data)?,
        };
        let key = match &global.key {
            Some(key) => Some(key.clone()),
            None => std::fs::read_to_string(data.join("admin.key")).ok().map(|k| k.trim().to_owned()),
        };
        Self::to(url, key)
    }

    /// A connection to a known address.
    ///
    /// # Errors
    /// `FAILED` when no HTTP client can be made.
    pub fn to(url: String, key: Option<String>) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(120))
            .no_proxy()
            .build()
            .map_err(|e| Failure::new(exit::FAILED, format!("cannot make an HTTP client: {e}")))?;
        Ok(Self { url, key, http })
    }

    fn running(data: &Path) -> Result<String, Failure> {
        let file = data.join("run.json");
        let text = std::fs::read_to_string(&file).map_err(|_| {
            Failure::new(exit::UNREACHABLE, format!("no server runs on {}", data.display()))
                .hint("start one with `levada up DIR`, or name it with --url or --project")
        })?;
        let run: Run = serde_json::from_str(&text)
            .map_err(|e| Failure::new(exit::FAILED, format!("{} is malformed: {e}", file.display())))?;
        Ok(run.url)
    }

    /// The server's address, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends and returns the answer, whatever its status.
    ///
    /// # Errors
    /// `UNREACHABLE` when no answer comes.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        request.send().await.map_err(|e| {
            let why = if e.is_timeout() { "does not answer in time" } else { "cannot be reached" };
            Failure::new(exit::UNREACHABLE, format!("{} {why}: {}", self.url, root_cause(&e)))
                .hint("is the server running? see `levada up --help`")
        })
    }

    /// Sends and returns the JSON of a good answer.
    ///
    /// # Errors
    /// The problem that the server answered, or `UNREACHABLE`.
    pub async fn json(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| Failure::new(exit::FAILED, e.to_string()))?;
        if status.is_success() {
            if body.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&body)
                .map_err(|e| Failure::new(exit::FAILED, format!("the answer is not JSON: {e}")));
        }
        Err(refusal(status.as_u16(), &body))
    }

    /// `GET path` as JSON.
    ///
    /// # Errors
    /// As [`Connection::json`].
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(self.request(reqwest::Method::GET, path)).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`Connection::json`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(self.request(reqwest::Method::POST, path).json(body)).await
    }
}

impl Connection {
    /// `PATCH path` with a merge patch.
    ///
    /// # Errors
    /// As [`Connection::json`].
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(self.request(reqwest::Method::PATCH, path).json(body)).await
    }
}

/// The failure that an answer stands for.
pub fn refusal(status: u16, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if status == 401 && problem.hint.is_none() => {
            Failure::from(problem).hint("give a key with --key or LEVADA_KEY")
        }
        Ok(problem) => problem.into(),
        Err(_) => Failure::new(exit::FAILED, format!("the server answered {status}")),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Percent-encodes a query value or path segment.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, b| {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}
