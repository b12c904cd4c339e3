//! Project folders for the benchmarks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use levada_testkit::{Connection, Levada, Options, Request};
use serde_json::{Value, json};

/// A project without pipelines.
pub fn empty(folder: &Path) -> Result<PathBuf> {
    write(folder, "levada.yaml", "name: bench\n")?;
    Ok(folder.to_owned())
}

pub fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)?;
    Ok(())
}

pub fn start(project: &Path, data: &Path) -> Result<Levada> {
    let mut options = Options::new(project, data);
    options.ready_within = Duration::from_secs(600);
    options.env.push(("RUST_LOG".to_owned(), "warn".to_owned()));
    Levada::start(&options)
}

/// A key of those roles for all tenants.
pub fn key(levada: &Levada, roles: &[&str]) -> Result<String> {
    let body = json!({ "name": "bench", "tenants": "all", "roles": roles });
    let answer = levada.send(&Request::post("/v1/keys").key(&levada.admin_key()?).json(&body))?;
    let answer = answer.expect(201)?.json()?;
    Ok(answer["key"].as_str().context("the answer has no key")?.to_owned())
}

/// Rows of a query, each a JSON array or object.
pub fn sql(connection: &mut Connection, key: &str, query: &str) -> Result<Value> {
    let request =
        Request::post("/v1/sql").key(key).header("accept", "application/json").json(&json!({ "sql": query }));
    connection.send(&request)?.expect(200)?.json()
}
