//! `levada quotas`: what may be held at the same time, and what is.

use serde_json::Value;

use super::text;
use crate::args::Global;
use crate::client::Connection;
use crate::output::{Failure, Output};

pub async fn quotas(output: &Output, global: &Global) -> Result<(), Failure> {
    let answer = Connection::open(global)?.get("/v1/quotas").await?;
    if output.json {
        output.value(&answer);
        return Ok(());
    }
    let rows = |list: &str, columns: &[&str]| -> Vec<Vec<String>> {
        let items = answer.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        items.iter().map(|item| columns.iter().map(|column| text(item, column)).collect()).collect()
    };
    let quotas = rows("quotas", &["owner", "quota", "held", "limit", "refused", "what"]);
    output.table(&["OWNER", "QUOTA", "HELD", "LIMIT", "REFUSED", "WHAT"], quotas, &[2, 3, 4]);
    let memory = rows("memory", &["name", "used_bytes", "limit_bytes"]);
    if !memory.is_empty() {
        output.table(&["MEMORY", "USED BYTES", "LIMIT BYTES"], memory, &[1, 2]);
    }
    Ok(())
}
