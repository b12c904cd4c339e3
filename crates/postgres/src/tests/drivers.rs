//! psycopg: the extended protocol, binary values, server-side cursors, cancel, revocation.

use serde_json::Value;

use super::stage::Stage;

/// Runs a script with the server's port; its last line is JSON. `None` where there is no Python:
/// on CI that is a failure.
async fn python(stage: &Stage, script: &'static str, args: &[&str]) -> Option<Value> {
    let mut all = vec![stage.address.port().to_string()];
    all.extend(args.iter().map(|a| (*a).to_owned()));
    let run = tokio::task::spawn_blocking(move || {
        if let Err(error) = levada_testkit::python::interpreter() {
            assert!(!levada_testkit::skipping_is_failure(), "{error:#}");
            eprintln!("skipped: {error:#}");
            return None;
        }
        let args: Vec<&str> = all.iter().map(String::as_str).collect();
        Some(levada_testkit::python::run(script, &args).unwrap_or_else(|error| panic!("{error:#}")))
    });
    run.await.expect("the script passes")
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_speaks_the_extended_protocol() {
    let stage = Stage::new().await;
    let Some(seen) = python(&stage, include_str!("extended.py"), &[]).await else { return };
    assert_eq!(seen["checks"], 11, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_can_cancel_and_times_out() {
    let stage = Stage::new().await;
    let Some(seen) = python(&stage, include_str!("cancel.py"), &[]).await else { return };
    assert_eq!(seen["cancelled"], "57014");
    assert_eq!(seen["timed_out"], "57014");
    assert_eq!(seen["after"], 1, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_cut_at_the_next_statement() {
    // No look in between: this is about the statement.
    let stage = Stage::with(|c| c.recheck = std::time::Duration::from_secs(3600)).await;
    let signal = tempfile::TempDir::new().expect("a directory");
    let (ready, go) = (signal.path().join("ready"), signal.path().join("go"));
    let args = [ready.display().to_string(), go.display().to_string()];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let script = python(&stage, include_str!("revoked.py"), &args);
    let revoke = async {
        while !ready.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            if signal.path().join("skipped").exists() {
                return;
            }
        }
        stage.keys.revoke("lvd_acme");
        std::fs::write(&go, b"").expect("a signal");
    };
    let seen = tokio::select! {
        (seen, ()) = async { tokio::join!(script, revoke) } => seen,
        () = tokio::time::sleep(std::time::Duration::from_secs(300)) => panic!("neither side went on"),
    };
    let Some(seen) = seen else { return };
    assert_eq!(seen["before"], 3);
    assert_eq!(seen["simple"], "28P01");
    assert_eq!(seen["extended"], "28P01");
    assert_eq!(seen["suspended"], "28P01");
    assert_eq!(seen["closed"], true);
}
