//! `levada subscriptions resend`: one dead letter, edited, back to where it came from.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::args::ResendArgs;
use crate::client::{Connection, refusal};
use crate::commands::text;
use crate::output::{Failure, Output, exit};

/// More than a message can hold.
const MAX_BODY_BYTES: u64 = 16 << 20;

/// A message's body as the API shows it.
#[derive(Debug, Deserialize)]
struct Browsed {
    messages: Vec<Letter>,
}

#[derive(Debug, Deserialize)]
struct Letter {
    message_id: String,
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
}

pub async fn resend(
    output: &Output,
    server: &Connection,
    subscription: &str,
    args: &ResendArgs,
) -> Result<(), Failure> {
    let body = match &args.data {
        Some(file) => Some(read(file)?),
        None if args.edit => {
            let before = body_of(server, subscription, args.message_id).await?;
            let after = edit(&before)?;
            let is_same = after == before;
            if is_same && args.set.is_empty() && args.unset.is_empty() {
                return Err(Failure::new(exit::FAILED, "nothing was changed, and nothing was sent")
                    .hint("to send the message as it is, leave --edit out"));
            }
            (!is_same).then_some(after)
        }
        None => None,
    };
    let path = format!("{subscription}/messages/{}/resend", args.message_id);
    let sent = server.post(&path, &request(args, body.as_deref())).await?;
    if output.json {
        output.value(&sent);
        return Ok(());
    }
    output.say(&format!("sent to {} as message {}", text(&sent, "topic"), text(&sent, "message_id")));
    if sent["acknowledged"] != true {
        output.say("the dead letter itself was not acknowledged: it may be delivered again");
    }
    Ok(())
}

/// What the server is asked.
fn request(args: &ResendArgs, body: Option<&[u8]>) -> Value {
    let set = args.set.iter().map(|(name, value)| (name.clone(), json!(value)));
    let attributes: Map<String, Value> =
        set.chain(args.unset.iter().map(|name| (name.clone(), Value::Null))).collect();
    let mut request = json!({ "attributes": attributes, "even_if_taken": args.even_if_taken });
    if let Some(body) = body {
        request["data"] = json!(STANDARD.encode(body));
    }
    request
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(exit::FAILED, format!("cannot read {}: {error}", file.display()))
    };
    let mut body = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_BODY_BYTES).read_to_end(&mut body).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MAX_BODY_BYTES).read_to_end(&mut body).map_err(failed)?;
    }
    Ok(body)
}

/// The body of a message, to the byte.
async fn body_of(server: &Connection, subscription: &str, message_id: u64) -> Result<Vec<u8>, Failure> {
    let before = message_id.saturating_add(1);
    let path = format!("{subscription}/messages?limit=1&before={before}");
    let response = server.send(server.request(reqwest::Method::GET, &path)).await?;
    let status = response.status();
    let answer = response.bytes().await.map_err(|e| Failure::new(exit::FAILED, e.to_string()))?;
    if !status.is_success() {
        return Err(refusal(status.as_u16(), &answer));
    }
    let malformed =
        |why: String| Failure::new(exit::FAILED, format!("the answer cannot be understood: {why}"));
    let found: Browsed = serde_json::from_slice(&answer).map_err(|e| malformed(e.to_string()))?;
    let letter = found.messages.into_iter().find(|letter| letter.message_id == message_id.to_string());
    let letter = letter.ok_or_else(|| {
        Failure::new(exit::FAILED, format!("the subscription has no message {message_id}"))
            .hint("`levada subscriptions messages` lists the messages with their ids")
    })?;
    match (letter.payload, letter.payload_base64) {
        (Some(payload), _) => Ok(payload.get().as_bytes().to_vec()),
        (None, Some(text)) => STANDARD.decode(text).map_err(|e| malformed(e.to_string())),
        (None, None) => Ok(Vec::new()),
    }
}

/// Has a person edit the body in a file that only they can read.
fn edit(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var_os(name).filter(|e| !e.is_empty()));
    let editor = editor.ok_or_else(|| {
        Failure::new(exit::USAGE, "no editor is known")
            .hint("set EDITOR, or give the new body with --data FILE")
    })?;
    edit_with(&editor, body)
}

fn edit_with(editor: &OsString, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut file = tempfile::Builder::new().prefix("levada-message-").suffix(".json").tempfile()?;
    file.write_all(body)?;
    file.flush()?;
    // As git does it: the setting is a command line, and the file its last argument.
    let mut command = Command::new("sh");
    command.arg("-c").arg("eval \"$0 \\\"\\$1\\\"\"").arg(editor).arg(file.path());
    let status = command
        .status()
        .map_err(|error| Failure::new(exit::FAILED, format!("cannot start {}: {error}", editor.display())))?;
    if !status.success() {
        return Err(Failure::new(exit::FAILED, "the editor failed, and nothing was sent"));
    }
    let mut after = read(file.path())?;
    // Editors end a text with a new line, which the message did not have.
    if after.last() == Some(&b'\n') && body.last() != Some(&b'\n') {
        after.pop();
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{SubscriptionsArgs, SubscriptionsCommand};

    fn args(line: &str) -> Result<ResendArgs, String> {
        let line = format!("levada subscriptions resend p/letters {line}");
        let cli = crate::Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        match cli.command {
            crate::Command::Subscriptions(SubscriptionsArgs {
                command: SubscriptionsCommand::Resend(args),
            }) => Ok(args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn an_edit_is_asked_for_as_it_was_typed() {
        let typed = args("7 --set a=b=c --set empty= --unset old --even-if-taken").expect("parses");
        let expected = json!({
            "attributes": {"a": "b=c", "empty": "", "old": null}, "even_if_taken": true, "data": "e30=",
        });
        assert_eq!(request(&typed, Some(b"{}")), expected);
        let plain = request(&args("7").expect("parses"), None);
        assert_eq!(plain, json!({"attributes": {}, "even_if_taken": false}));
        for bad in ["x", "7 --set a", "7 --set =b", "7 --edit --data f"] {
            assert!(args(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_editor_changes_the_body_and_nothing_else() {
        let edited = |editor: &str, body: &[u8]| edit_with(&editor.into(), body).map_err(|f| f.message);
        assert_eq!(edited("sed -i s/1/2/", b"{\"n\":1}"), Ok(b"{\"n\":2}".to_vec()));
        assert_eq!(edited("true", b"\xff\n"), Ok(b"\xff\n".to_vec()), "as it was");
        assert_eq!(edited("sh -c 'echo new > \"$0\"'", b"old"), Ok(b"new".to_vec()));
        assert!(edited("false", b"x").is_err());
    }
}
