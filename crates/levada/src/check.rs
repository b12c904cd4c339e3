//! Reading a project whole: what the folder's own check finds, and what the engines say once
//! they have planned its steps and models. `check` prints it, `up` starts from it.

use std::path::Path;
use std::sync::Arc;

use levada_cli::{CheckArgs, Failure, Global, Output, exit, report_check};
use levada_config::{Environment, Loaded, Secrets};
use levada_core::{Clock, SystemClock};
use levada_disk::SimDisk;
use levada_flow::rehearsal::rehearse;
use levada_lake::{Lake, LakeConfig};

use crate::server::enrich_context;

/// `levada check`.
pub async fn run(global: &Global, args: CheckArgs) -> Result<(), Failure> {
    let output = Output::new(global);
    let (loaded, _) = read(&args.dir, &|name| std::env::var(name).ok()).await?;
    report_check(&output, &loaded)
}

/// Reads a project with its secrets. Nothing outside its folder is read, written or called.
///
/// # Errors
/// When the engines cannot be set up at all.
pub async fn read(dir: &Path, environment: Environment<'_>) -> Result<(Loaded, Secrets), Failure> {
    let (secrets, unread) = match Secrets::load(dir) {
        Ok(secrets) => (secrets, None),
        Err(error) => (Secrets::default(), Some(error.diagnostic())),
    };
    let mut loaded = levada_config::load_with(dir, &secrets, environment);
    if let Some(diagnostic) = unread {
        loaded.project = None;
        loaded.diagnostics.insert(0, diagnostic);
    }
    if let Some(project) = &loaded.project {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        // A lake in memory that never holds a row.
        let lake = Lake::open(Arc::new(SimDisk::new(0)), "lake", LakeConfig::default(), clock.clone())
            .map_err(|e| Failure::new(exit::FAILED, format!("cannot plan the project: {e}")))?;
        let refused = rehearse(project, &lake, &enrich_context(&secrets, clock)).await;
        loaded.refuse(&refused);
    }
    Ok((loaded, secrets))
}
