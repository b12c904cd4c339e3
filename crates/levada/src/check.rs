//! Reading a project whole: what the folder's own check finds, and what the engines say once
//! they have planned its steps and models. `check` prints it, `up` starts from it.

use std::path::Path;
use std::sync::Arc;

use levada_cli::{CheckArgs, Failure, Global, Output, exit, report_check};
use levada_config::{Environment, Loaded, Secrets};
use levada_core::{Clock, Egress, SystemClock};
use levada_disk::{RealDisk, SimDisk};
use levada_flow::rehearsal::rehearse;
use levada_lake::{Lake, LakeConfig};

use crate::server::{LAKE_DIR, enrich_context};
use crate::up::data_dir;

/// `levada check`.
pub async fn run(global: &Global, args: CheckArgs) -> Result<(), Failure> {
    let output = Output::new(global);
    let (loaded, _) = read(&args.dir, Egress::default(), &|name| std::env::var(name).ok()).await?;
    report_check(&output, &loaded)
}

/// Reads a project with its secrets. Nothing outside its folder and the descriptions of its tables is
/// read, nothing is written or called.
/// `egress` is what calls may reach beside what the project names.
///
/// # Errors
/// When the engines cannot be set up at all.
pub async fn read(
    dir: &Path,
    egress: Egress,
    environment: Environment<'_>,
) -> Result<(Loaded, Secrets), Failure> {
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
        let egress = egress.and(project.server.egress.iter().cloned());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        // A lake in memory that never holds a row.
        let lake = Lake::open(Arc::new(SimDisk::new(0)), "lake", LakeConfig::default(), clock.clone())
            .map_err(|e| Failure::new(exit::FAILED, format!("cannot plan the project: {e}")))?;
        let refused = rehearse(project, &lake, &enrich_context(&secrets, egress, clock)).await;
        loaded.refuse(&refused);
        warn_of_doubles(&mut loaded, &lake);
    }
    Ok((loaded, secrets))
}

/// Says which columns stay doubles because their tables hold them so. `planned` holds the tables as
/// the project asks for them.
fn warn_of_doubles(loaded: &mut Loaded, planned: &Lake) {
    let Some(project) = &loaded.project else { return };
    let dir = data_dir(project);
    // A disk would create its folder.
    let Some(disk) = dir.is_dir().then(|| RealDisk::new(dir).ok()).flatten() else { return };
    let mut found = Vec::new();
    for pipeline in &project.pipelines {
        let key = levada_flow::table_key(pipeline);
        let tables = planned.spec(&key).zip(levada_lake::stored_table(&disk, LAKE_DIR, &key));
        let Some((wanted, table)) = tables else { continue };
        let columns = levada_flow::stay_double(&wanted.schema, &table.schema);
        if !columns.is_empty() {
            found.push((pipeline.owner.clone(), pipeline.name.clone(), pipeline.sink.clone(), columns));
        }
    }
    for (owner, name, table, columns) in found {
        loaded.stay_double(&owner, &name, &table, &columns);
    }
}
