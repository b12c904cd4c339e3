//! A running platform in a temporary folder, with the clients that the tests use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_testkit::wait::Look;
use levada_testkit::{Answer, Connection, Levada, Options, Request, eventually, program, python};
use serde_json::{Value, json};

/// Time for something to become queryable; generous, since the machine may be busy.
pub const SOON: Duration = Duration::from_secs(90);

pub struct World {
    // Dropped first: the server must be gone before its folder is.
    pub levada: Levada,
    pub options: Options,
    pub project: PathBuf,
    pub admin: String,
    _dir: tempfile::TempDir,
}

/// Rows of an answer, each a list of values.
pub type Rows = Vec<Vec<Value>>;

impl World {
    /// The project that `levada init` writes.
    pub fn starter(env: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let project = dir.path().join("project");
        let output = levada(&["init", text(&project)])?;
        ensure!(output.status.success(), "levada init: {}", String::from_utf8_lossy(&output.stderr));
        Self::start(dir, project, env, &[])
    }

    /// A project of those files.
    pub fn of(files: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Self> {
        Self::of_with(files, env, &[])
    }

    /// The same, with further arguments to `levada up`.
    pub fn of_with(files: &[(&str, &str)], env: &[(&str, &str)], args: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let project = dir.path().join("project");
        for (name, content) in files {
            let path = project.join(name);
            fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            fs::write(path, content)?;
        }
        Self::start(dir, project, env, args)
    }

    fn start(dir: tempfile::TempDir, project: PathBuf, env: &[(&str, &str)], args: &[&str]) -> Result<Self> {
        build()?;
        let mut options = Options::new(&project, &dir.path().join("data"));
        options.env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        options.args = args.iter().map(Into::into).collect();
        let levada = Levada::start(&options)?;
        let admin = levada.admin_key()?;
        Ok(Self { levada, options, project, admin, _dir: dir })
    }

    /// Starts again on the same data, after a kill or a stop.
    pub fn restart(&mut self) -> Result<()> {
        self.levada = Levada::start(&self.options)?;
        Ok(())
    }

    pub fn data(&self) -> &Path {
        &self.options.data
    }

    /// A key for those tenants (none: all) and roles.
    pub fn key(&self, tenants: &[&str], roles: &[&str]) -> Result<String> {
        let mut body =
            json!({ "name": format!("key of {}", tenants.join("+")), "roles": roles, "tenants": tenants });
        if tenants.is_empty() {
            body["tenants"] = json!("all");
        }
        let answer =
            self.send(&Request::post("/v1/keys").key(&self.admin).json(&body))?.expect(201)?.json()?;
        Ok(answer["key"].as_str().context("the answer has no key")?.to_owned())
    }

    pub fn send(&self, request: &Request) -> Result<Answer> {
        self.levada.send(request)
    }

    pub fn get(&self, key: &str, path: &str) -> Result<Value> {
        self.send(&Request::get(path).key(key))?.expect(200)?.json()
    }

    /// Publishes events, a few hundred a request; all must be accepted or be duplicates.
    pub fn publish(&self, key: &str, events: &[Value]) -> Result<()> {
        let mut connection = Connection::open(&self.levada.http)?;
        for part in events.chunks(500) {
            let request = Request::post("/v1/events").key(key).json(&json!(part));
            let answer = connection.send(&request)?.expect(202)?.json()?;
            ensure!(answer["rejected"] == 0, "some were rejected: {answer}");
        }
        Ok(())
    }

    pub fn sql(&self, key: &str, query: &str) -> Result<Rows> {
        let request = Request::post("/v1/sql").key(key).json(&json!({ "sql": query }));
        let answer = self.send(&request)?.expect(200)?.json()?;
        let rows = answer["rows"].as_array().context("no rows")?;
        rows.iter().map(|row| Ok(row.as_array().context("a row is no list")?.clone())).collect()
    }

    /// One count.
    pub fn count(&self, key: &str, query: &str) -> Result<u64> {
        let rows = self.sql(key, query)?;
        rows.first()
            .and_then(|row| row.first()?.as_u64())
            .with_context(|| format!("{query}: no count in {rows:?}"))
    }

    /// Waits until a count is exactly so much. A count above fails at once where it cannot fall.
    pub fn await_count(&self, key: &str, query: &str, expected: u64) -> Result<()> {
        eventually(&format!("{query} = {expected}"), SOON, || {
            // A table that no row has reached yet is not there yet.
            let seen = match self.count(key, query) {
                Ok(seen) => seen,
                Err(error) => return Ok(Look::NotYet(error.to_string())),
            };
            ensure!(seen <= expected, "{query}: {seen}, more than {expected}");
            Ok(if seen == expected { Look::Done(()) } else { Look::NotYet(seen.to_string()) })
        })
    }

    /// Waits until a query answers with those rows.
    pub fn await_rows(&self, key: &str, query: &str, expected: &Rows) -> Result<()> {
        eventually(query, SOON, || {
            Ok(match self.sql(key, query) {
                Ok(rows) if rows == *expected => Look::Done(()),
                Ok(rows) => Look::NotYet(format!("{} rows: {:.2000}", rows.len(), format!("{rows:?}"))),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }

    /// Rows of a query through psycopg. Values that JSON lacks come as texts.
    pub fn psycopg(&self, key: &str, query: &str) -> Result<Value> {
        let address = self.levada.postgres.as_deref().context("the PostgreSQL door is off")?;
        let (host, port) = address.rsplit_once(':').context("an address has a port")?;
        python::run(PSYCOPG, &[host, port, key, query])
    }

    /// Dead letters, newest first.
    pub fn dead_letters(&self, key: &str) -> Result<Vec<Value>> {
        let answer = self.get(key, "/v1/dead-letters?limit=1000")?;
        Ok(answer["dead_letters"].as_array().context("no list")?.clone())
    }

    /// Waits until there are so many dead letters with that code.
    pub fn await_dead(&self, key: &str, code: &str, expected: usize) -> Result<Vec<Value>> {
        eventually(&format!("{expected} dead letters `{code}`"), SOON, || {
            let all = self.dead_letters(key)?;
            let found: Vec<Value> = all.iter().filter(|d| d["code"] == code).cloned().collect();
            Ok(if found.len() == expected {
                Look::Done(found)
            } else {
                let codes: Vec<&Value> = all.iter().map(|d| &d["code"]).collect();
                Look::NotYet(format!("{codes:?}"))
            })
        })
    }

    /// Puts a file into a folder of the project as one should: under another name, then renamed.
    pub fn land(&self, folder: &str, name: &str, content: &[u8]) -> Result<()> {
        let folder = self.project.join(folder);
        fs::create_dir_all(&folder)?;
        let part = folder.join(format!("{name}.part"));
        fs::write(&part, content)?;
        fs::rename(part, folder.join(name))?;
        Ok(())
    }
}

const PSYCOPG: &str = "
import json, sys
import psycopg
host, port, key, query = sys.argv[1:]
with psycopg.connect(host=host, port=port, user='test', password=key, dbname='levada', connect_timeout=30) as connection:
    rows = connection.execute(query).fetchall()
print(json.dumps(rows, default=str))
";

/// An event in Levada's own form.
pub fn event(tenant: &str, event_type: &str, id: &str, payload: Value) -> Value {
    json!({ "tenant_id": tenant, "event_type": event_type, "event_id": id, "payload": payload })
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// Runs the binary to its end.
pub fn levada(args: &[&str]) -> Result<std::process::Output> {
    build()?;
    program::run(args)
}

/// Builds the binary that is tested, unless one is named by `LEVADA_BIN`. What is built
/// already takes a second.
pub fn build() -> Result<()> {
    static BUILT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let built = *BUILT.get_or_init(|| {
        if std::env::var_os("LEVADA_BIN").is_some() {
            return true;
        }
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet", "--package", "levada"]).current_dir(program::workspace());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        // What cargo tells a test of its package would count as a change of the environment
        // to build scripts that watch it (ring's does), and compile DataFusion once more.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_")
                && !matches!(&*text, "CARGO_HOME" | "CARGO_TARGET_DIR" | "CARGO_BUILD_BUILD_DIR")
            {
                cargo.env_remove(&name);
            }
        }
        cargo.status().is_ok_and(|status| status.success())
    });
    ensure!(built, "the binary cannot be built");
    Ok(())
}
