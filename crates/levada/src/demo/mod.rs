//! `levada demo`: the starter project at work on generated or real inputs.
//!
//! Everything goes the way a user's data goes: files land in the watched folder, events are
//! posted to the gateway over HTTP, answers are read from the lake.

mod generate;
mod inputs;
mod observations;
mod report;
mod stream;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use levada_cli::{DemoArgs, Failure, Global, LogFormat, Output, exit};
use levada_core::{Egress, Principal, Role, TenantSet};
use tokio::net::TcpListener;

use crate::server::{Options, Server};
use crate::{logging, up};
use generate::Fate;
use inputs::Inputs;
use report::Report;

/// No pipeline made progress for this long: something is wrong.
const STALLED: Duration = Duration::from_secs(60);

pub async fn run(global: &Global, args: DemoArgs) -> Result<(), Failure> {
    logging::init(LogFormat::Auto, "warn");
    let output = Output::new(global);
    demo(&output, args).await.map_err(|e| Failure::new(exit::FAILED, format!("{e:#}")))
}

async fn demo(output: &Output, args: DemoArgs) -> Result<()> {
    let started = Instant::now();
    let inputs = match &args.data {
        Some(folder) => Inputs::from_folder(folder, args.seed, args.events)?,
        None => Inputs::generated(args.seed, args.events)?,
    };
    let folder = tempfile::Builder::new().prefix("levada-demo-").tempdir().context("no temporary folder")?;
    let project = folder.path().join("project");
    write_starter(&project)?;
    output.say(&format!("project     {}", project.display()));

    let weather = observations::serve(inputs.observations.clone()).await?;
    let server = start(output, &project, &weather, &args).await?;
    let sent = stream::send_all(output, &server, &project, &inputs).await?;
    settle(output, &server, &sent).await?;
    for model in server.engines.models() {
        server.engines.run_model(model.name.as_str()).await.map_err(anyhow::Error::from)?;
    }
    let report = Report::gather(&server, &sent, started.elapsed()).await?;
    // The inputs say what is wrong with them; anything else would be a defect of ours.
    ensure!(
        report.dead_letters() == inputs.fated(Fate::Dead),
        "{} events were sent broken, {} dead letters came of it",
        inputs.fated(Fate::Dead),
        report.dead_letters()
    );
    if output.json {
        output.value(&report.json());
    } else {
        report.print(output, &server);
    }
    if !args.exit {
        output.say("\nserving until ctrl-c");
        up::wait_for_signal().await;
    }
    server.stop().await
}

fn write_starter(project: &Path) -> Result<()> {
    for (path, text) in levada_config::starter("demo") {
        let path = project.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn start(output: &Output, project: &Path, weather: &str, args: &DemoArgs) -> Result<Server> {
    let environment = |name: &str| match name {
        "LEVADA_WEATHER_URL" => Some(weather.to_owned()),
        other => std::env::var(other).ok(),
    };
    let ready = up::load(project, false, output, Egress::default().with_loopback(), &environment)
        .await
        .map_err(|f| anyhow::anyhow!("the starter project does not check: {}", f.message))?;
    // Open to whoever is on this machine, and to nobody else.
    let everybody = Principal {
        id: "loopback".to_owned(),
        name: "anyone on this machine (demo)".to_owned(),
        tenants: TenantSet::All,
        roles: [Role::Admin].into(),
    };
    Server::start(Options {
        project: ready.project,
        secrets: ready.secrets,
        data_dir: project.join(".levada"),
        http: free_loopback(&args.listen).await?,
        postgres: Some(free_loopback(&args.postgres).await?),
        open_on_loopback: Some(Arc::new(everybody)),
        dev: true,
        telemetry: None,
    })
    .await
}

/// The address, or a free port beside it where it is taken. Only loopback will do.
async fn free_loopback(address: &str) -> Result<String> {
    let address: SocketAddr =
        address.parse().with_context(|| format!("`{address}` is no address like 127.0.0.1:8080"))?;
    ensure!(
        address.ip().is_loopback(),
        "the demo is open without a key and listens on loopback only, not on {address}"
    );
    match TcpListener::bind(address).await {
        Ok(_) => Ok(address.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Ok(SocketAddr::new(address.ip(), 0).to_string())
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
    }
}

/// Waits until every record has become a row, a dropped duplicate or a dead letter.
async fn settle(output: &Output, server: &Server, sent: &stream::Sent) -> Result<()> {
    let total = sent.records();
    let bar = output.bar(Some(total), "queryable");
    let mut last = (0, Instant::now());
    loop {
        let done: u64 = server
            .engines
            .pipelines()
            .iter()
            .map(|p| p.totals.rows_out + p.totals.duplicates + p.totals.dead_letters)
            .sum();
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
            return Ok(());
        }
        if done != last.0 {
            last = (done, Instant::now());
        } else if last.1.elapsed() > STALLED {
            let states: Vec<String> =
                server.engines.pipelines().iter().map(|p| format!("{}: {:?}", p.name, p.state)).collect();
            bail!("{done} of {total} records arrived and nothing moves: {}", states.join("; "));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
