//! `levada work`: runs a program on the messages of a subscription.
//!
//! [`runner`] is the loop; around it: [`api`] speaks to the server, [`queue`] keeps the order
//! of keys, [`leases`] keeps messages ours while they run, [`program`] runs the command,
//! [`verdict`] reads what it says, [`settle`] carries that out, [`report`] tells it.

mod api;
mod input;
mod leases;
mod program;
mod queue;
mod report;
mod runner;
mod settle;
#[cfg(test)]
mod tests;
mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use levada_core::retry::Backoff;
use levada_core::{ProjectId, ResourceId, ResourceName};
use serde_json::json;
use tokio::sync::watch;

use crate::args::{Global, WorkArgs};
use crate::client::Connection;
use crate::output::{Failure, Output, exit};
use api::{Api, ApiError, Settings};
use program::{Program, Stage};
use report::Reporter;
use runner::{Config, Runner};

/// While the server is not there yet.
const AWAY: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(10) };

pub async fn work(output: &Output, global: &Global, args: WorkArgs) -> Result<(), Failure> {
    let pubsub_project = args.pubsub_project.as_deref();
    let name = subscription_name(&args.subscription, pubsub_project, &global.project)?;
    let server = Connection::open(global)?;
    let environment =
        vec![("LEVADA_URL", server.url().to_owned()), ("LEVADA_SUBSCRIPTION", name.path("subscriptions"))];
    let timeout = Duration::from_secs(args.timeout_s);
    let program = Program { command: args.command, timeout, environment };
    program.find().map_err(|e| Failure::new(exit::USAGE, e).hint("give the command after `--`"))?;
    let config = Config {
        batch: args.batch.into(),
        concurrency: args.concurrency.into(),
        linger: Duration::from_millis(args.linger_ms),
        grace: Duration::from_secs(args.grace_s),
        exit_idle: args.exit_idle_s.map(Duration::from_secs),
        max_attempts_hint: args.max_attempts_hint,
    };
    let reporter = Arc::new(Reporter::new(output, name.id.as_ref()));
    let stage = watch::Sender::new(Stage::Running);
    let signals = tokio::spawn(signals(stage.clone(), reporter.clone())?);
    let api = Api::new(server, &name.path("subscriptions"));
    let result = life(config, program, api, &reporter, &stage).await;
    signals.abort();
    reporter.finish();
    result.map_err(|error| failure(&error))
}

async fn life(
    config: Config,
    program: Program,
    api: Api,
    reporter: &Arc<Reporter>,
    stage: &watch::Sender<Stage>,
) -> Result<(), ApiError> {
    let Some(settings) = settings(&api, reporter, stage).await? else { return Ok(()) };
    if settings.dead_letter.is_none() {
        reporter.warn(
            "the subscription has no dead-letter policy: what can never be processed comes again and again",
        );
    }
    reporter.event(&json!({
        "event": "started", "subscription": api.path(), "batch": config.batch,
        "concurrency": config.concurrency, "ack_deadline_s": settings.ack_deadline.as_secs(),
        "is_ordered": settings.is_ordered,
        "dead_letter_topic": settings.dead_letter.as_ref().map(|policy| &policy.topic),
    }));
    Runner::new(config, program, (api, settings), reporter.clone(), stage.clone()).run().await
}

/// Reads the subscription, waiting for a server that is not there yet. `None`: told to stop.
async fn settings(
    api: &Api,
    reporter: &Reporter,
    stage: &watch::Sender<Stage>,
) -> Result<Option<Settings>, ApiError> {
    let mut told = stage.subscribe();
    let mut attempt = 0;
    loop {
        tokio::select! {
            _ = told.wait_for(|stage| *stage > Stage::Running) => return Ok(None),
            read = api.settings() => match read {
                Ok(settings) => return Ok(Some(settings)),
                Err(error) if error.is_transient() => {
                    if attempt == 0 {
                        reporter.warn(&format!("{error}; waiting for the server"));
                    }
                }
                Err(error) => return Err(error),
            },
        }
        attempt += 1;
        tokio::select! {
            _ = told.wait_for(|stage| *stage > Stage::Running) => return Ok(None),
            () = tokio::time::sleep(settle::delay(AWAY, attempt)) => {}
        }
    }
}

fn failure(error: &ApiError) -> Failure {
    let failure = Failure::new(exit::FAILED, error.to_string());
    match error {
        ApiError::Refused { status: 404, .. } => failure.hint(
            "create the subscription, or name its project: --subscription projects/PROJECT/subscriptions/NAME",
        ),
        ApiError::Refused { status: 401 | 403, .. } => {
            failure.hint("give a key of the tenant with the role service, client or engineer (--key or LEVADA_KEY)")
        }
        _ => failure,
    }
}

/// The full name of the subscription: as given, or in the Pub/Sub project that is given, or in
/// the one named like the project folder's project.
pub(super) fn subscription_name(
    name: &str,
    pubsub_project: Option<&str>,
    folder: &Path,
) -> Result<ResourceName, Failure> {
    resource_name(name, "subscriptions", pubsub_project, folder)
}

/// A resource as a person names it: its path in the API, or its id alone.
pub(super) fn resource_name(
    name: &str,
    collection: &str,
    pubsub_project: Option<&str>,
    folder: &Path,
) -> Result<ResourceName, Failure> {
    let usage = |message: String| Failure::new(exit::USAGE, message);
    if name.contains('/') {
        return ResourceName::parse_path(name, collection).map_err(|e| usage(e.to_string()));
    }
    let id: ResourceId = name.parse().map_err(|e| usage(format!("{e}")))?;
    Ok(ResourceName::new(project_of(id.as_str(), pubsub_project, folder)?, id))
}

/// The Pub/Sub project that is meant where none stands before a name.
pub(super) fn project_of(
    what: &str,
    pubsub_project: Option<&str>,
    folder: &Path,
) -> Result<ProjectId, Failure> {
    let usage = |message: String| Failure::new(exit::USAGE, message);
    let project = match pubsub_project {
        Some(project) => project.to_owned(),
        None => project_name(folder).ok_or_else(|| {
            usage(format!("the Pub/Sub project of `{what}` is not known"))
                .hint("name it with --pubsub-project, or the folder of a Levada project with --project")
        })?,
    };
    project
        .parse()
        .map_err(|e| usage(format!("{e}")).hint("name another with --pubsub-project, or give the full name"))
}

fn project_name(folder: &Path) -> Option<String> {
    levada_config::load(folder, &levada_config::Secrets::default()).project.map(|project| project.name)
}

/// The first SIGTERM or SIGINT drains, the second ends what runs.
fn signals(
    stage: watch::Sender<Stage>,
    reporter: Arc<Reporter>,
) -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for next in [Stage::Draining, Stage::Stopping] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if next == Stage::Draining {
                reporter.say("stopping: what runs may finish; once more ends it");
            }
            stage.send_modify(|stage| *stage = (*stage).max(next));
        }
    })
}
