//! `levada sql`: a question, its rows.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::args::{Global, SqlArgs, SqlFormat};
use crate::client::{Connection, refusal};
use crate::output::{Failure, Output, exit};

pub async fn sql(output: &Output, global: &Global, args: SqlArgs) -> Result<(), Failure> {
    let server = Connection::open(global)?;
    let query = if args.query == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        text
    } else {
        args.query
    };
    let mut body = json!({ "sql": query });
    if let Some(max) = args.max_rows {
        body["max_rows"] = json!(max);
    }
    if args.format == SqlFormat::Csv && !output.json {
        return csv(&server, &body).await;
    }
    let answer = server.post("/v1/sql", &body).await?;
    if output.json || args.format == SqlFormat::Json {
        output.value(&answer);
        return Ok(());
    }
    print_rows(output, &answer);
    Ok(())
}

async fn csv(server: &Connection, body: &Value) -> Result<(), Failure> {
    let request = server.request(reqwest::Method::POST, "/v1/sql").header("accept", "text/csv").json(body);
    let mut response = server.send(request).await?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        return Err(refusal(status, &response.bytes().await.unwrap_or_default()));
    }
    let mut out = std::io::stdout().lock();
    while let Some(chunk) = response.chunk().await.map_err(|e| Failure::new(exit::FAILED, e.to_string()))? {
        out.write_all(&chunk)?;
    }
    Ok(())
}

/// Prints an answer of `/v1/sql` as a table.
pub fn print_rows(output: &Output, answer: &Value) {
    let empty = Vec::new();
    let columns = answer["columns"].as_array().unwrap_or(&empty);
    let rows = answer["rows"].as_array().unwrap_or(&empty);
    let header: Vec<&str> = columns.iter().map(|c| c["name"].as_str().unwrap_or("")).collect();
    let is_number = |i: &usize| rows.iter().all(|r| r[*i].is_number() || r[*i].is_null());
    let right: Vec<usize> = (0..header.len()).filter(is_number).collect();
    let cell = |value: &Value| match value {
        Value::Null => "∅".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let count = rows.len();
    let cells = rows.iter().map(|row| row.as_array().unwrap_or(&empty).iter().map(cell).collect()).collect();
    output.table(&header, cells, &right);
    let cut = if answer["truncated"].as_bool() == Some(true) { ", more were cut off" } else { "" };
    output.say(&format!("({count} row{}{cut})", if count == 1 { "" } else { "s" }));
}
