//! The Pub/Sub API of the built binary and the official clients for Node and Go: in development
//! mode without credentials, and with an API key over TLS by the lines of `docs/pubsub.md`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use levada_testkit::{go, node, program};

use crate::world::World;

const SETTINGS: &str = "name: shop
tenants: [acme]
pubsub:
  projects:
    - {id: acme-prod, tenant: acme}
";

/// A proxy that speaks TLS before the server. Dropping it ends it.
struct Front {
    child: Child,
    /// It ends with its input.
    _input: ChildStdin,
    address: String,
    certificate: PathBuf,
    _folder: tempfile::TempDir,
}

impl Front {
    fn of(world: &World) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '))
            .args("-subj /CN=localhost -addext subjectAltName=DNS:localhost".split(' '))
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .context("openssl is not installed: apt-get install openssl")?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        let mut child = Command::new("node")
            .arg(program::workspace().join("tests/node/tls_front.js"))
            .arg(&world.levada.http)
            .args([&certificate, &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("node is not installed: apt-get install nodejs npm")?;
        let input = child.stdin.take().context("no input")?;
        let mut port = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut port)?;
        let address = format!("localhost:{}", port.trim());
        Ok(Self { child, _input: input, address, certificate, _folder: folder })
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node_client() -> Result<Command> {
    let mut command = Command::new("node");
    command.arg(program::workspace().join("tests/node/pubsub_client.js")).env("NODE_PATH", node::modules()?);
    Ok(command)
}

fn go_client() -> Result<Command> {
    Ok(Command::new(go::build(&program::workspace().join("tests/go/pubsub_client.go"))?))
}

fn expect_success(world: &World, client: &mut Command) -> Result<()> {
    let output = client.stdin(Stdio::null()).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    ensure!(output.status.success(), "{out}\n{err}\n{}", world.levada.log_tail());
    Ok(())
}

/// Runs a client in development mode.
fn without_a_key(mut client: Command) -> Result<()> {
    let world = World::of_with(&[("levada.yaml", "name: clients\n")], &[], &["--dev"])?;
    expect_success(&world, client.env("PUBSUB_EMULATOR_HOST", &world.levada.http))
}

/// Runs a client in a tenant's project, with that tenant's key; `trust` names the variable by
/// which the client finds the certificate to trust.
fn with_a_key(mut client: Command, trust: &str) -> Result<()> {
    let world = World::of(&[("levada.yaml", SETTINGS)], &[])?;
    let front = Front::of(&world)?;
    let key = world.key(&["acme"], &["engineer"])?;
    client.env_remove("PUBSUB_EMULATOR_HOST").env(trust, &front.certificate);
    client.envs([
        ("LEVADA_HOST", front.address.as_str()),
        ("LEVADA_KEY", &key),
        ("LEVADA_PROJECT", "acme-prod"),
    ]);
    expect_success(&world, &mut client)
}

#[test]
fn the_official_node_client_works_unmodified() -> Result<()> {
    without_a_key(node_client()?)
}

#[test]
fn the_official_node_client_works_with_a_key() -> Result<()> {
    with_a_key(node_client()?, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
}

#[test]
fn the_official_go_client_works_unmodified() -> Result<()> {
    without_a_key(go_client()?)
}

#[test]
fn the_official_go_client_works_with_a_key() -> Result<()> {
    with_a_key(go_client()?, "SSL_CERT_FILE")
}
