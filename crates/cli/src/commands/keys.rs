//! `levada keys`: create, list, revoke.

use serde_json::{Value, json};

use super::text;
use crate::args::{Global, KeysArgs, KeysCommand};
use crate::client::{Connection, encode};
use crate::output::{Failure, Output};

pub async fn keys(output: &Output, global: &Global, args: KeysArgs) -> Result<(), Failure> {
    let server = Connection::open(global)?;
    match args.command {
        KeysCommand::Create { name, tenants, roles, expires_days } => {
            let tenants = if tenants.iter().any(|t| t == "*") { json!("all") } else { json!(tenants) };
            let mut body = json!({ "name": name, "tenants": tenants, "roles": roles });
            if let Some(days) = expires_days {
                body["expires_in_s"] = json!(u64::from(days) * 86_400);
            }
            let made = server.post("/v1/keys", &body).await?;
            if output.json {
                output.value(&made);
            } else {
                output.line(&text(&made, "key"));
                output.say(&format!("key {} made; the secret above is shown this once", text(&made, "id")));
            }
        }
        KeysCommand::List => {
            let answer = server.get("/v1/keys").await?;
            let keys = answer.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
            if output.json {
                output.value(&Value::Array(keys));
                return Ok(());
            }
            let columns = ["id", "name", "tenants", "roles", "created_at", "expires_at", "revoked_at"];
            let rows = keys.iter().map(|key| columns.iter().map(|c| text(key, c)).collect()).collect();
            output.table(&["ID", "NAME", "TENANTS", "ROLES", "CREATED", "EXPIRES", "REVOKED"], rows, &[]);
        }
        KeysCommand::Revoke { id } => {
            let path = format!("/v1/keys/{}", encode(&id));
            server.json(server.request(reqwest::Method::DELETE, &path)).await?;
            output.say(&format!("key {id} is revoked"));
        }
    }
    Ok(())
}
