//! `levada up`: check the project, start the server, say where it is, drain on a signal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use levada_cli::{Failure, Global, Output, UpArgs, exit};
use levada_config::model::Project;
use levada_config::{Environment, Secrets, Style, render_all};
use levada_core::Egress;

use crate::check;
use crate::logging;
use crate::server::{Options, Server};

/// The first lines wait this long for pipelines that take their time to start.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);
/// Failed parts that the first lines name.
const MOST_SHOWN: usize = 20;

/// A project that may run, with its secrets.
pub struct Ready {
    pub project: Project,
    pub secrets: Secrets,
}

/// Loads a project for running: its errors are printed, its inactive parts refused.
///
/// # Errors
/// `PROJECT` with everything already printed, or what to do about inactive parts.
pub async fn load(
    dir: &Path,
    allow_inactive: bool,
    output: &Output,
    egress: Egress,
    environment: Environment<'_>,
) -> Result<Ready, Failure> {
    let (loaded, secrets) = check::read(dir, egress, environment).await?;
    if !loaded.diagnostics.is_empty() {
        output.say(&render_all(&loaded.diagnostics, style(output)));
    }
    let Some(project) = loaded.project else {
        return Err(Failure::silent(exit::PROJECT));
    };
    if !project.inactive.is_empty() && !allow_inactive {
        let parts: Vec<String> = project
            .inactive
            .iter()
            .map(|i| format!("  {}:{}: {}: {}", i.file.display(), i.line, i.part, i.reason))
            .collect();
        return Err(Failure::new(
            exit::PROJECT,
            format!("parts of the project are only parsed so far and would not run:\n{}", parts.join("\n")),
        )
        .hint("take them out, or start with --allow-inactive to run the rest"));
    }
    Ok(Ready { project, secrets })
}

fn style(output: &Output) -> Style {
    if output.color { Style::Colour } else { Style::Plain }
}

pub async fn run(global: &Global, args: UpArgs) -> Result<(), Failure> {
    logging::init(
        args.log,
        "info,buoyant_kernel=warn,buoyant_kernel_engine=warn,deltalake=warn,deltalake_core=warn,datafusion=warn",
    );
    let output = Output::new(global);
    let egress = if args.dev { Egress::default().with_loopback() } else { Egress::default() };
    let ready =
        load(&args.dir, args.allow_inactive, &output, egress, &|name| std::env::var(name).ok()).await?;
    let variables = |name: &str| std::env::var(name).ok();
    let telemetry = levada_telemetry::Config::from_variables(&variables, args.otlp_endpoint.as_deref());
    let telemetry = telemetry.map_err(|e| {
        Failure::new(exit::USAGE, format!("telemetry cannot be exported: {e}"))
            .hint("mend the setting, or start with --otlp-endpoint off")
    })?;
    let options = Options { telemetry, ..options(&args, ready) };
    if options.dev && !is_loopback(&options.http) {
        return Err(Failure::new(
            exit::USAGE,
            format!(
                "--dev serves without credentials, so it listens on loopback only, not on {}",
                options.http
            ),
        )
        .hint("add --listen 127.0.0.1:8080, or leave out --dev and give clients a key"));
    }
    let server = Server::start(options).await.map_err(failure)?;
    server.engines.settled(SETTLED_WITHIN).await;
    announce(&output, &server);
    wait_for_signal().await;
    output.say("stopping: requests in flight finish, pipelines commit what they read");
    server.stop().await.map_err(|e| Failure::new(exit::FAILED, format!("{e:#}")))
}

fn options(args: &UpArgs, ready: Ready) -> Options {
    let server = &ready.project.server;
    let postgres = match args.postgres.as_deref() {
        Some("off") => None,
        Some(address) => Some(address.to_owned()),
        None => server.postgres.clone(),
    };
    Options {
        data_dir: args.data.clone().unwrap_or_else(|| data_dir(&ready.project)),
        http: args.listen.clone().unwrap_or_else(|| server.http.clone()),
        postgres,
        open_on_loopback: None,
        dev: args.dev,
        telemetry: None,
        project: ready.project,
        secrets: ready.secrets,
    }
}

/// A problem with a code keeps it, and its mend.
fn failure(error: anyhow::Error) -> Failure {
    match error.downcast::<levada_core::Problem>() {
        Ok(problem) => Failure::from(problem),
        Err(error) => Failure::new(exit::FAILED, format!("{error:#}")),
    }
}

/// Whether an address to listen on can only be reached from this machine. A name other than
/// `localhost` is taken for the outside.
fn is_loopback(address: &str) -> bool {
    if let Ok(address) = address.parse::<std::net::SocketAddr>() {
        return address.ip().is_loopback();
    }
    address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost")
}

pub fn data_dir(project: &Project) -> PathBuf {
    let dir = project.server.data_dir.clone().unwrap_or_else(|| PathBuf::from(".levada"));
    project.root.join(dir)
}

fn announce(output: &Output, server: &Server) {
    if server.first_start {
        output.say(&format!("made the first admin key: {}", server.admin_key_path.display()));
    }
    output.say(&format!("gateway     {}", server.url));
    output.say(&format!("console     {}/console", server.url));
    if let Some(postgres) = server.postgres {
        output.say(&format!("PostgreSQL  {postgres}"));
    }
    if server.dev {
        output.say(&format!(
            "Pub/Sub     export PUBSUB_EMULATOR_HOST={}",
            server.url.trim_start_matches("http://")
        ));
    }
    let failing = server.engines.failing();
    for part in failing.iter().take(MOST_SHOWN) {
        let name = part.tenant.as_ref().map_or_else(|| part.name.clone(), |t| format!("{t}/{}", part.name));
        output.say(&format!("failed      {} {name}: {}", part.kind, part.reason));
    }
    match failing.len() {
        0 => output.say("ready; stop with ctrl-c"),
        n => output.say(&format!(
            "ready without {}: mend what is told above and start again; GET /readyz counts what failed, \
             and names it to a key; stop with ctrl-c",
            if n == 1 { "1 part that failed".to_owned() } else { format!("{n} parts that failed") }
        )),
    }
}

/// Ends on SIGTERM or SIGINT.
pub async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let term = signal(SignalKind::terminate());
    let terminated = async {
        match term {
            Ok(mut term) => {
                term.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
