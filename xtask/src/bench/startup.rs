//! Time from the start of the process until it is ready, and what it holds in memory when idle:
//! on an empty project, and on one of 500 connectors and 1,000 tables.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use levada_testkit::Levada;

use super::{Bench, figure, project};

/// Idle means: this long without a request.
const IDLE: Duration = Duration::from_secs(5);

pub fn run(bench: &Bench) -> Result<()> {
    let empty = project::empty(&bench.fresh("empty")?)?;
    measure("empty", &empty, &bench.fresh("empty-data")?)?;
    let large = bench.fresh("large")?;
    write_large(&large)?;
    measure("large", &large, &bench.fresh("large-data")?)
}

fn measure(name: &str, project: &Path, data: &Path) -> Result<()> {
    let (mut levada, first) = timed(project, data)?;
    figure(&format!("ready_{name}_first"), first, "s");
    std::thread::sleep(IDLE);
    figure(&format!("idle_{name}_resident"), levada.resident_bytes()? as f64 / f64::from(1 << 20), "MiB");
    levada.terminate(Duration::from_secs(60))?;
    let (_levada, again) = timed(project, data)?;
    figure(&format!("ready_{name}_again"), again, "s");
    Ok(())
}

fn timed(project: &Path, data: &Path) -> Result<(Levada, f64)> {
    let start = Instant::now();
    let levada = project::start(project, data)?;
    Ok((levada, start.elapsed().as_secs_f64()))
}

/// 500 connectors with a silver table each, and 500 gold models over them.
fn write_large(folder: &Path) -> Result<()> {
    project::write(folder, "levada.yaml", "name: large\n")?;
    let schema = "{\"source_id\": \"any\", \"version\": \"1.0\", \"fields\": [\
        {\"name\": \"id\", \"type\": \"STRING\", \"mode\": \"REQUIRED\"},\
        {\"name\": \"amount\", \"type\": \"FLOAT64\", \"mode\": \"REQUIRED\"},\
        {\"name\": \"at\", \"type\": \"TIMESTAMP\", \"mode\": \"REQUIRED\"}]}\n";
    project::write(folder, "schemas/any.json", schema)?;
    for i in 0..500 {
        let connector = format!(
            "pipeline: source_{i:03}\n\
             source:\n  events:\n    topic: source-{i:03}\n    event_types: [\"source{i:03}.*\"]\n\
             schema:\n  file: schemas/any.json\n\
             steps:\n  - deduplicate:\n      key: [id]\n"
        );
        project::write(folder, &format!("pipelines/source_{i:03}.yaml"), &connector)?;
        let model = format!(
            "--! schedule: manual\n--! shared: true\n\
             select tenant_id, count(*) as n, sum(amount) as amount from silver.source_{i:03} group by tenant_id\n"
        );
        project::write(folder, &format!("models/total_{i:03}.sql"), &model)?;
    }
    Ok(())
}
