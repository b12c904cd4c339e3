//! Sends the inputs: the file to its landing folder, the events to the gateway.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use levada_cli::Output;
use serde::Deserialize;

use super::inputs::{Event, Inputs};
use crate::server::Server;

const BATCH_EVENTS: usize = 100;
const REQUESTS: usize = 4;

/// What was sent and what the gateway answered.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub file_rows: u64,
    /// Events that the gateway accepted anew.
    pub accepted: u64,
    /// Events that it recognised.
    pub duplicates: u64,
}

impl Sent {
    /// Records that the pipelines must account for.
    pub fn records(&self) -> u64 {
        self.file_rows + self.accepted
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    accepted: u64,
    duplicates: u64,
    #[serde(default)]
    rejected: u64,
}

/// Lands the file, then posts all events with a progress bar.
///
/// # Errors
/// When the gateway refuses anything: the demo's requests are well-formed.
pub async fn send_all(output: &Output, server: &Server, project: &Path, inputs: &Inputs) -> Result<Sent> {
    land(project, &inputs.weather_csv)?;
    let events: Vec<&Event> = interleave(&inputs.check_ins, &inputs.webhooks);
    let bar = output.bar(Some(events.len() as u64), "published");
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/events", server.url);
    let (accepted, duplicates) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let bodies = events.chunks(BATCH_EVENTS).map(|chunk| {
        let texts: Vec<&str> = chunk.iter().map(|e| e.text.as_str()).collect();
        (chunk.len() as u64, format!("[{}]", texts.join(",")))
    });
    futures::stream::iter(bodies.map(Ok::<_, anyhow::Error>))
        .map_ok(|(count, body)| {
            let (http, url, bar) = (&http, &url, &bar);
            let (accepted, duplicates) = (accepted.clone(), duplicates.clone());
            async move {
                let answer = post(http, url, body).await?;
                accepted.fetch_add(answer.accepted, Ordering::Relaxed);
                duplicates.fetch_add(answer.duplicates, Ordering::Relaxed);
                bar.inc(count);
                Ok(())
            }
        })
        .try_buffer_unordered(REQUESTS)
        .try_collect::<()>()
        .await?;
    bar.finish_and_clear();
    Ok(Sent {
        file_rows: inputs.weather_rows(),
        accepted: accepted.load(Ordering::Relaxed),
        duplicates: duplicates.load(Ordering::Relaxed),
    })
}

async fn post(http: &reqwest::Client, url: &str, body: String) -> Result<Answer> {
    let response = http.post(url).header("content-type", "application/json").body(body).send().await?;
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        bail!("the gateway answered {status}: {text}");
    }
    let answer: Answer = serde_json::from_str(&text).with_context(|| format!("unexpected answer: {text}"))?;
    if answer.rejected > 0 {
        bail!("the gateway rejected {} events: {text}", answer.rejected);
    }
    Ok(answer)
}

/// Puts the file into the watched folder as a whole: written beside it, then renamed.
fn land(project: &Path, csv: &[u8]) -> Result<()> {
    let folder = project.join("landing/weather");
    std::fs::create_dir_all(&folder)?;
    let temporary = folder.join(".hourly.csv.tmp");
    std::fs::write(&temporary, csv)?;
    std::fs::rename(&temporary, folder.join("hourly.csv"))?;
    Ok(())
}

/// Spreads the shorter list evenly through the longer one.
fn interleave<'a>(many: &'a [Event], few: &'a [Event]) -> Vec<&'a Event> {
    let mut all = Vec::with_capacity(many.len() + few.len());
    let mut taken = 0;
    for (index, event) in many.iter().enumerate() {
        all.push(event);
        let due = (index + 1) * few.len() / many.len();
        all.extend(&few[taken..due]);
        taken = due;
    }
    all.extend(&few[taken..]);
    all
}
