//! `cargo xtask campaign attacks`: what one tenant does to a server while another one works.
//!
//! Tenant `b` publishes 500 events and asks 20 queries a second, open loop: by a timetable that
//! does not wait for answers. Tenant `a`, from another address and with keys of low roles, runs
//! one attack after another, then all of them at once. It is a process of its own with a low
//! priority (nice 19): it stands for a machine elsewhere, whose own work costs the server nothing.
//! Each phase prints `b`'s p99 beside its
//! quiet value, what `a` was answered, and the memory of the server, which runs with
//! `memory: 1GiB` in a control group of 2 GiB where the machine allows one.

mod attacker;
mod attacks;
mod cage;
mod client;
mod victim;

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use levada_testkit::{Levada, Options, Request};
use serde_json::json;

use crate::bench::machine;
use attacks::{Order, Scene};
use victim::{Latencies, Victim};

/// How much later than on a quiet server an answer may come, at the 99th percentile.
const TOLERATED_MS: f64 = 20.0;

#[derive(clap::Args)]
pub struct Args {
    campaign: Campaign,
    /// Length of each phase
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Length of the phase in which all attacks run at once; the full campaign is 3600
    #[arg(long, default_value_t = 60)]
    all_seconds: u64,
    /// Only this attack, and not all at once
    #[arg(long)]
    only: Option<String>,
    /// How often the binary is killed
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Be the attacker: carry out the order on the standard input
    #[arg(long, hide = true)]
    attack: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Campaign {
    /// One tenant's attacks beside another's work
    Attacks,
    /// `kill -9` of the binary under load, far more often than the tests do it
    Kills,
}

pub fn run(args: &Args) -> Result<()> {
    match args.campaign {
        Campaign::Attacks if args.attack => attacker::obey(),
        Campaign::Attacks => attack(args),
        Campaign::Kills => kill(args.kills),
    }
}

/// Runs the end-to-end tests of crashes with so many kills.
fn kill(kills: u32) -> Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--release", "-p", "levada-tests", "--test", "e2e", "--", "crashes", "--nocapture"])
        .env("LEVADA_E2E_KILLS", kills.to_string())
        .current_dir(levada_testkit::program::workspace())
        .status()?;
    ensure!(status.success(), "the tests of crashes failed");
    Ok(())
}

fn attack(args: &Args) -> Result<()> {
    let parent = levada_testkit::program::workspace().join("target/campaign");
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&parent)?;
    eprintln!("{}", machine::describe());
    let (project, data) = (folder.path().join("project"), folder.path().join("data"));
    write_project(&project)?;
    let mut options = Options::new(&project, &data);
    options.env.push(("RUST_LOG".to_owned(), "error".to_owned()));
    let cage = cage::Cage::make(2 << 30);
    let levada = Levada::start(&options)?;
    match &cage {
        Some(cage) => cage.lock_in(levada.pid())?,
        None => {
            eprintln!("no control group can be made here: only the server's own figures bound its memory")
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(phases(args, &levada));
    eprintln!("{}", levada.log_tail());
    outcome
}

fn write_project(project: &std::path::Path) -> Result<()> {
    let write = |name: &str, text: &str| crate::bench::project::write(project, name, text);
    write(
        "levada.yaml",
        "name: campaign\nmemory: 1GiB\ntenants: [a, b]\npubsub: {projects: [{id: project-a, tenant: a}]}\negress: ['127.0.0.1']\n",
    )?;
    write(
        "schemas/ticks.json",
        r#"{"version": "1.0", "fields": [{"name": "n", "type": "INT64", "mode": "REQUIRED"}, {"name": "s", "type": "STRING"}]}"#,
    )?;
    write(
        "pipelines/ticks.yaml",
        "pipeline: ticks\nsource: {events: {topic: ticks, event_types: [tick.made]}}\nschema: {file: schemas/ticks.json}\nepoch: 1s\n",
    )
}

async fn phases(args: &Args, levada: &Levada) -> Result<()> {
    let (scene, b) = scene(levada)?;
    let time = Duration::from_secs(args.seconds);
    // The first answers warm caches, files and the table.
    victim::work(&b, Duration::from_secs(5)).await?;
    let quiet = victim::work(&b, time).await?;
    report("quiet", &quiet, &quiet, levada, "")?;
    let mut late = Vec::new();
    for attack in attacks::ALL {
        if args.only.as_deref().is_some_and(|only| only != attack.name) {
            continue;
        }
        let (meanwhile, said) = under_attack(&scene, &b, &[attack.name], time).await?;
        if report(attack.name, &meanwhile, &quiet, levada, &said)? {
            late.push(attack.name);
        }
        victim::work(&b, Duration::from_secs(3)).await?;
    }
    if args.only.is_none() {
        let all: Vec<&'static str> = attacks::ALL.iter().map(|attack| attack.name).collect();
        let time = Duration::from_secs(args.all_seconds);
        let (meanwhile, said) = under_attack(&scene, &b, &all, time).await?;
        if report("all", &meanwhile, &quiet, levada, &said)? {
            late.push("all");
        }
    }
    ensure!(
        late.is_empty(),
        "tenant b was more than {TOLERATED_MS} ms later, or refused, under: {}",
        late.join(", ")
    );
    Ok(())
}

/// Runs attacks until the victim's time is over.
async fn under_attack(
    scene: &Scene,
    b: &Victim,
    attacks: &[&str],
    time: Duration,
) -> Result<(Latencies, String)> {
    let before = Duration::from_millis(500);
    let attacks = attacks.iter().map(|name| (*name).to_owned()).collect();
    let order = Order { scene: scene.clone(), attacks, seconds: (time + before).as_secs_f64() };
    let attacker = attacker::Attacker::start(&order)?;
    tokio::time::sleep(before).await;
    let meanwhile = victim::work(b, time).await;
    let said = tokio::task::spawn_blocking(|| attacker.said()).await??;
    Ok((meanwhile?, said.to_string()))
}

/// Prints a line of figures. True where the victim suffered.
fn report(name: &str, now: &Latencies, quiet: &Latencies, levada: &Levada, said: &str) -> Result<bool> {
    let suffered = now.failed > 0
        || now.publish_ms(0.99) > quiet.publish_ms(0.99) + TOLERATED_MS
        || now.query_ms(0.99) > quiet.query_ms(0.99) + TOLERATED_MS;
    let resident = levada.resident_bytes()? >> 20;
    println!(
        "{}",
        json!({
            "attack": name,
            "publish_p50_ms": now.publish_ms(0.5), "publish_p99_ms": now.publish_ms(0.99),
            "query_p50_ms": now.query_ms(0.5), "query_p99_ms": now.query_ms(0.99),
            "answered": now.answered(), "failed": now.failed, "resident_mib": resident,
            "attacker_was_answered": said, "suffered": suffered,
        })
    );
    if let Some(why) = &now.first_failure {
        eprintln!("{name}: {why}");
    }
    Ok(suffered)
}

fn scene(levada: &Levada) -> Result<(Scene, Victim)> {
    let admin = levada.admin_key()?;
    let key = |tenant: &str, roles: &[&str]| -> Result<String> {
        let body = json!({ "name": "campaign", "tenants": [tenant], "roles": roles });
        let answer = levada.send(&Request::post("/v1/keys").key(&admin).json(&body))?.expect(201)?.json()?;
        Ok(answer["key"].as_str().unwrap_or_default().to_owned())
    };
    let scene = Scene {
        http: levada.http.parse()?,
        postgres: levada.postgres.as_deref().unwrap_or_default().parse()?,
        analyst: key("a", &["analyst"])?,
        service: key("a", &["service"])?,
        engineer: key("a", &["engineer"])?,
    };
    let b = Victim { http: levada.http.parse()?, key: key("b", &["engineer"])? };
    Ok((scene, b))
}
