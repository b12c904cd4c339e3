//! The worker's loop: pull what there is room for, run the program on it, settle.
//!
//! Nothing runs and nothing is asked while there is nothing to do, but for one pull that
//! waits at the server.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use levada_core::retry::Backoff;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::{Api, ApiError, Pulled, Settings};
use super::input;
use super::leases::Leases;
use super::program::{Program, Stage};
use super::report::Reporter;
use super::settle::{Settler, delay};
use super::verdict::{End, Verdict};

/// While the server is away.
const AWAY: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// A server that answers an empty pull sooner than this does not wait for messages.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// Between pulls at such a server.
const POLL: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(5) };

/// After runs that failed altogether, one after another.
const FAILING: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

/// How long a stopping worker waits for an answer that may be on its way.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// Bounds of a worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Messages a run, at most.
    pub batch: usize,
    /// Runs at the same time.
    pub concurrency: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
    /// How long runs may take after the worker was told to stop.
    pub grace: Duration,
    /// Stop after so long without a message.
    pub exit_idle: Option<Duration>,
    /// What programs are told about a subscription without dead-letter policy.
    pub max_attempts_hint: Option<u32>,
}

type Pull = BoxFuture<'static, (Result<Vec<Pulled>, ApiError>, Duration)>;

/// What a run leaves behind.
struct Done {
    messages: usize,
    keys: HashSet<String>,
    failed_keys: HashSet<String>,
    /// Not one message of it succeeded.
    is_failure: bool,
}

/// A worker; [`Runner::run`] is its life.
pub struct Runner {
    config: Config,
    program: Arc<Program>,
    settler: Settler,
    stage: watch::Sender<Stage>,
    queue: super::queue::Queue,
    jobs: JoinSet<Done>,
    /// Messages that run.
    running: usize,
    pull: Option<Pull>,
    /// Failed pulls, empty short pulls and failed runs, each in a row.
    away: u32,
    short_waits: u32,
    failing: u32,
    last_message: Instant,
    /// When the messages that wait came.
    waiting_since: Instant,
}

/// Something to act on.
enum Event {
    Pulled(Result<Vec<Pulled>, ApiError>, Duration),
    Done(Result<Done, tokio::task::JoinError>),
    Stop,
    Linger,
    Idle,
}

impl Runner {
    pub fn new(
        config: Config,
        program: Program,
        (api, settings): (Api, Settings),
        reporter: Arc<Reporter>,
        stage: watch::Sender<Stage>,
    ) -> Self {
        let settler = Settler { api, settings: Arc::new(settings), leases: Leases::default(), reporter };
        Self {
            config,
            program: Arc::new(program),
            settler,
            stage,
            queue: super::queue::Queue::default(),
            jobs: JoinSet::new(),
            running: 0,
            pull: None,
            away: 0,
            short_waits: 0,
            failing: 0,
            last_message: Instant::now(),
            waiting_since: Instant::now(),
        }
    }

    /// Works until it is told to stop, is idle for long enough, or the server refuses.
    ///
    /// # Errors
    /// What the server refused, after what ran has been settled.
    pub async fn run(mut self) -> Result<(), ApiError> {
        let Settler { api, settings, leases, reporter } = self.settler.clone();
        let keeper = tokio::spawn(leases.keep(api, settings.ack_deadline, reporter));
        let result = self.work().await;
        self.drain().await;
        keeper.abort();
        result
    }

    async fn work(&mut self) -> Result<(), ApiError> {
        let mut stage = self.stage.subscribe();
        loop {
            self.start_runs();
            self.start_pull();
            self.settler.reporter.status("working", self.running, self.queue.len());
            match self.next(&mut stage).await {
                Event::Stop | Event::Idle => return Ok(()),
                Event::Linger => {}
                Event::Done(done) => self.finish(done).await,
                Event::Pulled(result, took) => {
                    self.pull = None;
                    self.pulled(result, took)?;
                }
            }
        }
    }

    async fn next(&mut self, stage: &mut watch::Receiver<Stage>) -> Event {
        let is_busy = self.running > 0 || self.queue.len() > 0;
        let linger_ends = self.waiting_since + self.config.linger;
        let is_lingering = self.queue.ready() > 0 && Instant::now() < linger_ends;
        let idle_ends = self.config.exit_idle.filter(|_| !is_busy).map(|idle| self.last_message + idle);
        let pull = &mut self.pull;
        tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage > Stage::Running) => Event::Stop,
            Some(done) = self.jobs.join_next() => Event::Done(done),
            (result, took) = async { match pull { Some(pull) => pull.await, None => pending().await } } => {
                Event::Pulled(result, took)
            }
            () = tokio::time::sleep_until(linger_ends), if is_lingering => Event::Linger,
            () = sleep_until(idle_ends) => Event::Idle,
        }
    }

    /// Pulls as much as could run now, never more: what waits here cannot run elsewhere.
    fn start_pull(&mut self) {
        let capacity = self.config.concurrency * self.config.batch;
        let room = capacity.saturating_sub(self.running + self.queue.len()).min(1_000);
        if self.pull.is_some() || room == 0 {
            return;
        }
        let api = self.settler.api.clone();
        let pause = [(AWAY, self.away), (POLL, self.short_waits), (FAILING, self.failing)]
            .into_iter()
            .filter(|(_, times)| *times > 0)
            .map(|(backoff, times)| delay(backoff, times))
            .max()
            .unwrap_or_default();
        self.pull = Some(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let started = Instant::now();
            let result = api.pull(room).await;
            (result, started.elapsed())
        }));
    }

    fn pulled(&mut self, result: Result<Vec<Pulled>, ApiError>, took: Duration) -> Result<(), ApiError> {
        let reporter = &self.settler.reporter;
        match result {
            Ok(pulled) => {
                if self.away > 0 {
                    reporter.event(&json!({ "event": "back" }));
                    self.away = 0;
                }
                if pulled.is_empty() {
                    self.short_waits = if took < SHORT_WAIT { self.short_waits.saturating_add(1) } else { 0 };
                    return Ok(());
                }
                self.short_waits = 0;
                self.last_message = Instant::now();
                if self.queue.len() == 0 {
                    self.waiting_since = self.last_message;
                }
                self.settler.leases.add(pulled.iter().map(|pulled| &pulled.ack_id));
                self.queue.extend(pulled);
                Ok(())
            }
            Err(error) if error.is_transient() => {
                if self.away == 0 {
                    reporter.warn(&format!("{error}; trying again"));
                }
                self.away = self.away.saturating_add(1);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn start_runs(&mut self) {
        while self.jobs.len() < self.config.concurrency {
            let ready = self.queue.ready();
            let waits = ready < self.config.batch && self.waiting_since.elapsed() < self.config.linger;
            if ready == 0 || waits {
                return;
            }
            let batch = self.queue.take(self.config.batch);
            self.waiting_since = Instant::now();
            self.running += batch.len();
            self.jobs.spawn(one_run(
                self.program.clone(),
                self.settler.clone(),
                batch,
                self.config.max_attempts_hint,
                self.stage.subscribe(),
            ));
        }
    }

    async fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let done = match done {
            Ok(done) => done,
            // A defect in the worker itself: its messages come again when their leases end.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.running -= done.messages;
        self.failing = if done.is_failure { self.failing.saturating_add(1) } else { 0 };
        self.queue.release(&done.keys);
        let dropped = self.queue.drop_keys(&done.failed_keys);
        self.settler.give_back(ack_ids(&dropped)).await;
    }

    /// Ends the pull that waits. An answer that is already on its way is taken in, so that
    /// its messages can be given back instead of waiting for the end of their leases.
    async fn end_pull(&mut self) {
        let Some(pull) = self.pull.take() else { return };
        if let Ok((Ok(pulled), _)) = tokio::time::timeout(LAST_ANSWER, pull).await {
            self.queue.extend(pulled);
        }
    }

    /// Gives back what did not start, lets what runs finish within the grace, then ends it.
    async fn drain(&mut self) {
        self.end_pull().await;
        self.stage.send_if_modified(|stage| {
            let is_first = *stage == Stage::Running;
            *stage = (*stage).max(Stage::Draining);
            is_first
        });
        let reporter = self.settler.reporter.clone();
        reporter.event(&json!({ "event": "draining", "running": self.running, "waiting": self.queue.len() }));
        let waiting = self.queue.drain();
        self.settler.give_back(ack_ids(&waiting)).await;
        let end = tokio::time::sleep(self.config.grace);
        tokio::pin!(end);
        let mut is_over = false;
        while !self.jobs.is_empty() {
            reporter.status("draining", self.running, 0);
            tokio::select! {
                Some(done) = self.jobs.join_next() => self.finish(done).await,
                () = &mut end, if !is_over => {
                    is_over = true;
                    reporter.warn("the grace is over: what still runs is ended and comes again");
                    self.stage.send_replace(Stage::Stopping);
                }
            }
        }
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => pending().await,
    }
}

fn ack_ids(pulled: &[Pulled]) -> Vec<String> {
    pulled.iter().map(|pulled| pulled.ack_id.clone()).collect()
}

/// Runs the program on one batch and settles what it says.
async fn one_run(
    program: Arc<Program>,
    settler: Settler,
    batch: Vec<Pulled>,
    max_attempts_hint: Option<u32>,
    stage: watch::Receiver<Stage>,
) -> Done {
    let max_attempts = settler.settings.dead_letter.as_ref().map(|policy| policy.max_delivery_attempts);
    let ids: HashSet<String> = batch.iter().map(|pulled| pulled.message.message_id.clone()).collect();
    let keys = batch.iter().map(|pulled| &pulled.message.ordering_key).filter(|key| !key.is_empty());
    let keys: HashSet<String> = keys.cloned().collect();
    let started = Instant::now();
    let talk = |line: &str| settler.reporter.say(line);
    let input = input::lines(&batch, max_attempts.or(max_attempts_hint));
    let finished = program.run(input, &ids, stage, &talk).await;
    let mut failed_keys = HashSet::new();
    let mut judged = Vec::with_capacity(batch.len());
    for pulled in batch {
        let key = &pulled.message.ordering_key;
        let mut verdict = finished.verdict(&pulled.message.message_id);
        // The server delivers all later messages of the key again, so none may be taken as done.
        if failed_keys.contains(key) {
            verdict = Verdict::Retry(format!("an earlier message of the ordering key `{key}` comes again"));
        } else if matches!(verdict, Verdict::Retry(_)) && settler.settings.is_ordered && !key.is_empty() {
            failed_keys.insert(key.clone());
        }
        judged.push((pulled, verdict));
    }
    let is_failure = finished.end != End::Stopped
        && judged.iter().all(|(_, verdict)| matches!(verdict, Verdict::Retry(_)));
    let messages = judged.len();
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    settler.settle(judged, took_ms).await;
    Done { messages, keys, failed_keys, is_failure }
}
