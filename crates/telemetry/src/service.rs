//! The export in the background: a queue of spans that goes out in batches, and the figures of
//! `/metrics` at an interval.

use std::sync::Arc;
use std::time::Duration;

use levada_core::Clock;
use metrics::counter;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::attempts::{Attempts, Voice, pause};
use crate::config::{Config, ConfigError};
use crate::exporter::{Exporter, Sent};
use crate::figures::{Times, metrics};
use crate::metrics::{self as names, Drops, Reason};
use crate::proto::{
    ExportMetricsServiceRequest, ExportTraceServiceRequest, InstrumentationScope, Resource, ResourceMetrics,
    ResourceSpans, ScopeMetrics, ScopeSpans, text,
};
use crate::span::Span;
use crate::tracer::Tracer;
use crate::units::Units;

/// Gives what `/metrics` would answer now.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;
/// Random numbers in `[0, 1)`.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// What the export works with.
pub struct Parts {
    pub config: Config,
    /// Attributes of the resource that hold unless the configuration names them.
    pub resource: Vec<(String, String)>,
    /// `None`: there are no metrics to export.
    pub figures: Option<(Render, Units)>,
    pub clock: Arc<dyn Clock>,
    pub jitter: Jitter,
}

/// A running export. [`Telemetry::stop`] sends what is left; dropping it does not.
pub struct Telemetry {
    tracer: Option<Tracer>,
    drops: Arc<Drops>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What both signals need.
#[derive(Clone)]
struct Common {
    resource: Resource,
    clock: Arc<dyn Clock>,
    jitter: Jitter,
}

impl Common {
    fn scope(&self) -> Option<InstrumentationScope> {
        Some(InstrumentationScope {
            name: "levada".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

impl Telemetry {
    /// Must be called on a runtime.
    ///
    /// # Errors
    /// [`ConfigError`] for a certificate that cannot be used.
    pub fn start(parts: Parts) -> Result<Self, ConfigError> {
        let Parts { config, resource, figures, clock, jitter } = parts;
        let mut attributes = config.resource.clone();
        attributes
            .extend(resource.into_iter().filter(|(key, _)| !config.resource.iter().any(|(k, _)| k == key)));
        let resource =
            Resource { attributes: attributes.iter().map(|(key, value)| text(key, value)).collect() };
        let common = Common { resource, clock: clock.clone(), jitter };
        let (stop, stopped) = watch::channel(false);
        let (mut tasks, mut tracer) = (Vec::new(), None);
        let drops = Arc::new(Drops::default());
        if let Some(target) = config.traces {
            let exporter = Exporter::new(target)?;
            tracing::info!(place = exporter.place(), sampler = ?config.sampler, "traces are exported");
            let (queue, spans) = mpsc::channel(config.max_queue_spans);
            tracer = Some(Tracer::new(config.sampler, clock, queue, drops.clone()));
            let export = Spans {
                voice: Voice::new("traces", exporter.place()),
                exporter,
                common: common.clone(),
                drops: drops.clone(),
                delay: config.span_delay,
                max_batch: config.max_batch_spans,
                stopped: stopped.clone(),
            };
            tasks.push(tokio::spawn(export.run(spans)));
        }
        if let Some((target, (render, units))) = config.metrics.zip(figures) {
            let exporter = Exporter::new(target)?;
            let every = config.metric_interval;
            tracing::info!(place = exporter.place(), every_s = every.as_secs_f64(), "metrics are exported");
            let export = Figures {
                voice: Voice::new("metrics", exporter.place()),
                exporter,
                start_ns: nanoseconds(common.clock.now_ms()),
                common,
                render,
                units,
                stopped,
            };
            tasks.push(tokio::spawn(export.run(every)));
        }
        Ok(Self { tracer, drops, stop, tasks })
    }

    /// `None`: traces are not exported.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Sends what waits and the last figures, for at most that long.
    pub async fn stop(self, within: Duration) {
        self.stop.send_replace(true);
        let deadline = Instant::now() + within;
        let mut is_cut = false;
        for mut task in self.tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                is_cut = true;
            }
        }
        let dropped = self.drops.total();
        if is_cut || dropped > 0 {
            let reasons = self.drops.told();
            tracing::warn!(is_cut, dropped, reasons, "not all telemetry was exported");
        }
    }
}

fn nanoseconds(now_ms: i64) -> u64 {
    u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000_000)
}

struct Spans {
    exporter: Exporter,
    voice: Voice,
    common: Common,
    drops: Arc<Drops>,
    delay: Duration,
    max_batch: usize,
    stopped: watch::Receiver<bool>,
}

impl Spans {
    async fn run(mut self, mut queue: mpsc::Receiver<Span>) {
        loop {
            let batch = self.gather(&mut queue).await;
            if batch.is_empty() {
                return;
            }
            self.send(batch).await;
        }
    }

    /// The next batch: full, or what came within the delay. Empty at the end.
    async fn gather(&mut self, queue: &mut mpsc::Receiver<Span>) -> Vec<Span> {
        let mut batch = Vec::new();
        let mut deadline = None;
        while batch.len() < self.max_batch {
            let room = self.max_batch - batch.len();
            if *self.stopped.borrow() {
                // Takes in what is there and then answers that there is no more.
                queue.close();
                if queue.recv_many(&mut batch, room).await == 0 {
                    break;
                }
                continue;
            }
            let is_over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                got = queue.recv_many(&mut batch, room) => {
                    if got == 0 {
                        break;
                    }
                    deadline.get_or_insert_with(|| Instant::now() + self.delay);
                }
                () = is_over => break,
                _ = self.stopped.wait_for(|stop| *stop) => {}
            }
        }
        batch
    }

    async fn send(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let spans = batch.into_iter().map(Span::into_proto).collect();
        let scope = ScopeSpans { scope: self.common.scope(), spans };
        let resource = Some(self.common.resource.clone());
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans: vec![scope] }],
        };
        let mut attempts = Attempts::begin();
        loop {
            let sent = self.exporter.send(&request, self.common.clock.now_ms()).await;
            heard(&self.voice, &sent);
            self.voice.lost(&self.drops);
            match sent {
                Sent::Taken { rejected, .. } => {
                    let rejected = rejected.min(count);
                    counter!(names::SPANS_EXPORTED).increment(count - rejected);
                    if rejected > 0 {
                        self.drops.add(Reason::Refused, rejected);
                    }
                    return;
                }
                Sent::Refused { .. } => return self.drops.add(Reason::Refused, count),
                Sent::Retry { after, .. } => match attempts.next(after, (self.common.jitter)()) {
                    Some(wait) => pause(wait, &mut self.stopped).await,
                    None => return self.drops.add(Reason::Unreachable, count),
                },
            }
        }
    }
}

fn heard(voice: &Voice, sent: &Sent) {
    if matches!(sent, Sent::Retry { .. } | Sent::Refused { .. }) {
        counter!(names::EXPORTS_FAILED, "signal" => voice.signal()).increment(1);
    }
    voice.heard(sent);
}

struct Figures {
    exporter: Exporter,
    voice: Voice,
    common: Common,
    render: Render,
    units: Units,
    start_ns: u64,
    stopped: watch::Receiver<bool>,
}

impl Figures {
    async fn run(mut self, every: Duration) {
        loop {
            let stops = tokio::time::timeout(every, self.stopped.wait_for(|stop| *stop)).await.is_ok();
            let mut attempts = Attempts::begin();
            // Sums only grow: a later look tells all that the one did that was not taken.
            while let Some(after) = self.send().await {
                let Some(wait) = attempts.next(after, (self.common.jitter)()) else { break };
                pause(wait, &mut self.stopped).await;
            }
            if stops || *self.stopped.borrow() {
                return;
            }
        }
    }

    /// Sends the figures of now. Something where it is worth another try.
    async fn send(&self) -> Option<Option<Duration>> {
        let times = Times { start_ns: self.start_ns, now_ns: nanoseconds(self.common.clock.now_ms()) };
        let (render, units) = (self.render.clone(), self.units.clone());
        let lists = tokio::task::spawn_blocking(move || metrics(&render(), &units, times)).await.ok()?;
        for metrics in lists {
            let scope = ScopeMetrics { scope: self.common.scope(), metrics };
            let resource = Some(self.common.resource.clone());
            let request = ExportMetricsServiceRequest {
                resource_metrics: vec![ResourceMetrics { resource, scope_metrics: vec![scope] }],
            };
            let sent = self.exporter.send(&request, self.common.clock.now_ms()).await;
            heard(&self.voice, &sent);
            match sent {
                Sent::Taken { .. } => {}
                Sent::Refused { .. } => return None,
                Sent::Retry { after, .. } => return Some(after),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
