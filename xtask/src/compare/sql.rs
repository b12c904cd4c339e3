//! `cargo xtask compare sql`: the answers of PostgreSQL to the statements that Levada is tested
//! with, written to the golden files beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use levada_testkit::services::{Kind, Service};
use levada_testkit::sql;

/// The tables that the statements read, as PostgreSQL declares them.
const TABLES: &str = "
    create schema silver;
    create table silver.t (id bigint, i int, b bigint, f double precision, n numeric(12,2), s text,
                           d date, ts timestamp, tz timestamptz, ok boolean);
    create table silver.u (id bigint, k text, v double precision);";

/// Where the statements are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/postgres/tests/sql")
}

/// Asks PostgreSQL and writes its answers.
///
/// # Errors
/// When PostgreSQL is not installed, or does not take the tables.
pub fn run() -> Result<()> {
    let folder = folder();
    let place = tempfile::tempdir()?;
    // The server runs as another user where this one is root.
    let data = place.path().join("postgres");
    fs::create_dir(&data)?;
    make_passable(place.path())?;
    let server = Service::start(Kind::Postgres, &data)?;
    psql(&server.url, &["-c", TABLES])?;
    for table in ["t", "u"] {
        let file = folder.join(format!("{table}.csv"));
        let file = file.to_str().context("a path that is no text")?.to_owned();
        psql(&server.url, &["-c", &format!("\\copy silver.{table} from '{file}' csv header")])?;
    }
    let mut count = 0;
    for theme in sql::themes(&folder)? {
        let answers = sql::ask(&server.url, "", &sql::statements(&folder, &theme)?)?;
        sql::write_golden(&folder, &theme, &answers)?;
        count += answers.len();
    }
    println!("{count} statements; now run: cargo test -p levada-postgres --test door differential");
    Ok(())
}

fn make_passable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn psql(url: &str, args: &[&str]) -> Result<()> {
    let status = Command::new("psql").args([url, "-X", "-q", "-v", "ON_ERROR_STOP=1"]).args(args).status()?;
    if !status.success() {
        bail!("psql failed");
    }
    Ok(())
}
