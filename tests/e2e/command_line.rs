//! The command line, from an empty folder to an answered question.

use std::fs;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::world::{SOON, World, levada, text};

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ok(output: Output, what: &str) -> Result<String> {
    ensure!(output.status.success(), "{what}: {}\n{}", out(&output), String::from_utf8_lossy(&output.stderr));
    Ok(out(&output))
}

#[test]
fn the_starter_project_checks_and_a_broken_one_says_where() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let project = dir.path().join("mine");
    ok(levada(&["init", text(&project)])?, "init")?;
    ok(levada(&["check", text(&project)])?, "check")?;
    ensure!(!levada(&["init", text(&project)])?.status.success(), "a folder that is not empty is left alone");
    let path = project.join("pipelines/checkins.yaml");
    let broken = fs::read_to_string(&path)?.replace("validation: strict", "validaton: strict");
    fs::write(&path, broken)?;
    fs::write(project.join("models/loop.sql"), "select * from gold.loop")?;
    let output = levada(&["check", text(&project)])?;
    ensure!(output.status.code() == Some(3), "{:?}", output.status);
    let said = out(&output) + &String::from_utf8_lossy(&output.stderr);
    for part in ["pipelines/checkins.yaml", "validaton", "validation", "models/loop.sql"] {
        ensure!(said.contains(part), "`{part}` is not in:\n{said}");
    }
    ensure!(!levada(&["up", text(&project)])?.status.success(), "a broken project does not start");
    Ok(())
}

#[test]
fn queries_that_cannot_run_are_errors_of_the_check() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let project = dir.path().join("mine");
    ok(levada(&["init", text(&project)])?, "init")?;
    let path = project.join("pipelines/checkins.yaml");
    let written = fs::read_to_string(&path)?;
    let (query, place) = ("select *, (temp - 32) * 5 / 9 as temp_c from input", "pipelines/checkins.yaml");
    let line = written.lines().position(|l| l.contains(query)).context("the SQL step")? + 1;
    let model = project.join("models/more.sql");
    for (step, model_sql, wanted) in [
        ("select *, (tmep - 32) as c from input", None, format!("{place}:{line}:21")),
        ("select * form input where x", None, format!("{place}:{line}:")),
        (
            query,
            Some("--! schedule: manual\nselect station,\n  tmep\nfrom silver.checkins"),
            "models/more.sql:3:3".into(),
        ),
        (query, Some("select station from silver.checkins where"), "models/more.sql:1:".into()),
    ] {
        fs::write(&path, written.replace(query, step))?;
        match model_sql {
            Some(sql) => fs::write(&model, sql)?,
            None => {
                let _ = fs::remove_file(&model);
            }
        }
        let output = levada(&["check", text(&project)])?;
        let said = out(&output) + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(3), "{:?} for {step} {model_sql:?}: {said}", output.status);
        ensure!(said.contains(&wanted) && said.contains("help"), "`{wanted}` is not in:\n{said}");
        ensure!(levada(&["up", text(&project)])?.status.code() == Some(3), "it does not start");
    }
    Ok(())
}

#[test]
fn a_newcomer_publishes_asks_and_mends_by_commands() -> Result<()> {
    let world = World::starter(&[])?;
    let data = text(world.data()).to_owned();
    let run = |args: &[&str]| {
        let mut all = vec!["--project", data.as_str()];
        all.extend_from_slice(args);
        levada(&all)
    };
    let body = world.project.join("star.json");
    fs::write(&body, r#"{"action":"created","repository":{"full_name":"a/b"},"sender":{"login":"me"}}"#)?;
    let published =
        run(&["publish", text(&body), "--type", "github.star", "--tenant", "northwind", "--json"])?;
    ok(published, "publish")?;
    world.await_count(&world.admin, "select count(*) from silver.webhooks", 1)?;

    let answer = ok(run(&["sql", "select sender, action from silver.webhooks", "--format", "csv"])?, "sql")?;
    ensure!(answer.contains("me,created"), "{answer}");
    let answer = ok(run(&["tail", "webhooks", "--from", "0", "--no-follow", "--json"])?, "tail")?;
    let message: Value = serde_json::from_str(answer.lines().next().context("a message")?)?;
    ensure!(message["payload"]["repository"]["full_name"] == "a/b", "{message}");

    let created = ok(
        run(&["keys", "create", "--name", "bi", "--tenant", "northwind", "--role", "analyst", "--json"])?,
        "keys create",
    )?;
    let created: Value = serde_json::from_str(&created)?;
    let (id, key) = (created["id"].as_str().context("id")?, created["key"].as_str().context("key")?);
    ensure!(world.count(key, "select count(*) from silver.webhooks")? == 1);
    let listed = ok(run(&["keys", "list", "--json"])?, "keys list")?;
    ensure!(listed.contains(id) && !listed.contains(key), "a secret is shown once: {listed}");
    ok(run(&["keys", "revoke", id])?, "keys revoke")?;
    ensure!(world.count(key, "select count(*) from silver.webhooks").is_err(), "revoked");

    fs::write(&body, r#"{"user_id":"u1","station":"XXX","time":"2013-07-04T15:20:00Z"}"#)?;
    ok(run(&["publish", text(&body), "--type", "user.checked_in", "--tenant", "northwind"])?, "publish")?;
    let letter = levada_testkit::eventually("the dead letter is listed", SOON, || {
        let listed = ok(run(&["deadletters", "list", "--json"])?, "deadletters list")?;
        Ok(if listed.contains("XXX") {
            levada_testkit::wait::Look::Done(listed)
        } else {
            levada_testkit::wait::Look::NotYet(listed)
        })
    })?;
    ensure!(letter.contains("station"), "the reason names the field: {letter}");
    ok(run(&["deadletters", "resend", "checkins", "--all"])?, "deadletters resend")?;
    Ok(())
}

#[test]
fn help_completions_and_exit_codes_are_there() -> Result<()> {
    let help = ok(levada(&["--help"])?, "--help")?;
    for command in ["init", "check", "up", "publish", "tail", "sql", "keys", "deadletters", "demo"] {
        ensure!(help.contains(command), "{command} is not in the help");
    }
    let help = ok(levada(&["up", "--help"])?, "up --help")?.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(help.contains("tenants need not be declared"), "{help}");
    ensure!(ok(levada(&["completions", "bash"])?, "completions")?.contains("levada"));
    ensure!(levada(&["nonsense"])?.status.code() == Some(2));
    let dir = tempfile::tempdir()?;
    let unanswered = levada(&["--project", text(dir.path()), "sql", "select 1"])?;
    ensure!(unanswered.status.code() == Some(4), "{:?}", unanswered.status);
    Ok(())
}
