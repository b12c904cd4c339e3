//! `cargo xtask services`: starts real servers for work by hand, prints how to reach them, and
//! stops them when its input ends.

use std::io::Read;

use anyhow::{Result, bail};
use levada_testkit::python;
use levada_testkit::services::{Kind, Service};

#[derive(clap::Args)]
pub struct Args {
    /// postgres, redis, nats, sftp, chromium or python; none lists what is installed
    names: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    if args.names.is_empty() {
        return list();
    }
    let folder = tempfile::tempdir()?;
    let mut running = Vec::new();
    for name in &args.names {
        if name == "python" {
            println!("python {}", python::interpreter()?.display());
            continue;
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) else {
            bail!("there is no service `{name}`");
        };
        let service = Service::start(kind, &folder.path().join(name))?;
        println!("{name} {}", service.url);
        running.push(service);
    }
    eprintln!("running; end the input (Ctrl-D) to stop");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn list() -> Result<()> {
    for kind in Kind::ALL {
        match kind.program() {
            Some(path) => println!("{:<9} {}", kind.name(), path.display()),
            None => println!("{:<9} not installed: apt-get install {}", kind.name(), kind.package()),
        }
    }
    Ok(())
}
