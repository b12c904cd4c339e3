//! The demo, as the README tells a newcomer to run it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::inputs;
use crate::world::{levada, text};

/// Runs the demo to its end; the object that it prints last.
fn demo(args: &[&str]) -> Result<Value> {
    let mut all = vec!["demo", "--exit", "--json", "--listen", "127.0.0.1:0", "--postgres", "127.0.0.1:0"];
    all.extend_from_slice(args);
    let output = levada(&all)?;
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {said}", output.status);
    let last = text.lines().last().context("it prints nothing")?;
    serde_json::from_str(last).with_context(|| format!("not one object: {last}"))
}

/// What holds of any run, whatever the input.
fn consistent(result: &Value) -> Result<()> {
    for field in ["accepted", "duplicates", "seconds"] {
        ensure!(result[field].is_number(), "no `{field}`: {result}");
    }
    let (p50, p99) = (result["latency_ms"]["p50"].as_f64(), result["latency_ms"]["p99"].as_f64());
    ensure!(p50.is_some() && p50 <= p99, "{result}");
    ensure!(result["dead_letters"].is_object() && result["rows"]["silver"].is_object(), "{result}");
    Ok(())
}

fn sum(value: &Value) -> u64 {
    value.as_object().map_or(0, |map| map.values().filter_map(Value::as_u64).sum())
}

#[test]
fn the_demo_runs_on_generated_events_and_adds_up() -> Result<()> {
    let result = demo(&["--events", "5000", "--seed", "7"])?;
    consistent(&result)?;
    ensure!(result["accepted"].as_u64().is_some_and(|n| n > 0), "{result}");
    ensure!(sum(&result["rows"]["silver"]) > 0 && sum(&result["rows"]["gold"]) > 0, "{result}");
    let again = demo(&["--events", "5000", "--seed", "7"])?;
    for field in ["accepted", "duplicates", "dead_letters", "rows"] {
        ensure!(result[field] == again[field], "`{field}` differs for the same seed: {result} {again}");
    }
    Ok(())
}

#[test]
fn the_demo_runs_on_real_inputs() -> Result<()> {
    let Some(folder) = inputs::folder()? else { return Ok(()) };
    let result = demo(&["--data", text(&folder)])?;
    consistent(&result)?;
    ensure!(result["rows"]["silver"]["weather"] == 26_115, "{result}");
    ensure!(result["rows"]["silver"]["webhooks"] == 105, "{result}");
    Ok(())
}
