//! One message of a subscription: its bytes and attributes, and of a dead letter the form by
//! which it is edited and sent back to where it came from.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use levada_core::{Problem, ResourceName};
use maud::{Markup, PreEscaped, html};

use crate::app::{App, Signed};
use crate::form::Fields;
use crate::format::{bytes, utc};
use crate::message::{DeadMark, MessageEdit, MessageRow};
use crate::pages::bytes::{LAID_OUT_BYTES, laid_out, original};
use crate::pages::frame::{Frame, Nav, title};
use crate::pages::lines::{has_breaks, restored, same};
use crate::pages::messages::{crumbs, parse};
use crate::pages::subscriptions::address;
use crate::pages::{
    attributes, back, check_csrf, csrf_field, may_operate, missing, problem_box, problem_page, status,
};
use crate::shown::{DETAIL_CHARS, Shown};

/// Larger bodies are edited at the command line; a form may have 256 KiB, encoded.
const EDITED_BYTES: usize = 64 * 1024;
/// Longer names and values of attributes are edited at the command line.
const EDITED_NAME_BYTES: usize = 1024;
const EDITED_VALUE_BYTES: usize = 4 * 1024;
/// Attributes that a form has.
const EDITED_ATTRIBUTES: usize = 100;
/// Empty rows for new attributes.
const NEW_ROWS: usize = 2;

/// What stands in the form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Typed {
    /// `None`: the body cannot be edited here.
    body: Option<String>,
    attributes: Vec<(String, String)>,
    even_if_taken: bool,
}

/// Whether an attribute stays as it is, whatever the form says.
fn is_fixed(attribute: &str) -> bool {
    DeadMark::owns(attribute) || attribute == "tenant_id" || attribute.starts_with("googclient_schema")
}

/// Whether a form can hold an attribute: browsers take breaks out of a name, which has one line,
/// and put another character in place of a NUL; and an empty name says to take the attribute away.
fn fits(name: &str, value: &str) -> bool {
    !name.is_empty()
        && name.len() <= EDITED_NAME_BYTES
        && value.len() <= EDITED_VALUE_BYTES
        && !has_breaks(name)
        && !name.contains('\0')
        && !value.contains('\0')
}

/// How a body stands in the form: JSON of one line in lines, anything else to the last space.
fn shown(text: &str) -> String {
    let laid = laid_out(text);
    if laid == text.trim() { text.to_owned() } else { laid }
}

impl Typed {
    /// The message as the form begins with it.
    fn of(message: &MessageRow) -> Self {
        let body = Some(&message.body).filter(|body| body.len() <= EDITED_BYTES);
        let text = body.and_then(|body| std::str::from_utf8(body).ok()).filter(|text| !text.contains('\0'));
        let own = message.attributes.iter().filter(|(name, value)| !is_fixed(name) && fits(name, value));
        let own = own.take(EDITED_ATTRIBUTES);
        Self { body: text.map(shown), attributes: own.cloned().collect(), even_if_taken: false }
    }

    /// What was sent, with the ends of lines as they were before a browser had it.
    fn read(fields: &Fields, message: &MessageRow) -> Self {
        let before = Self::of(message);
        let value_of =
            |name: &str| before.attributes.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
        let is_known = |name: &str| before.attributes.iter().any(|(n, _)| n == name);
        let body = fields.get("body").map(|text| restored(text, before.body.as_deref().unwrap_or_default()));
        let pairs = fields.all("name").zip(fields.all("value"));
        let pairs = pairs.map(|(name, value)| (if is_known(name) { name } else { name.trim() }, value));
        let pairs = pairs.filter(|(name, _)| !name.is_empty());
        let attributes = pairs.map(|(name, value)| (name.to_owned(), restored(value, value_of(name))));
        Self { body, attributes: attributes.collect(), even_if_taken: fields.get("taken").is_some() }
    }

    /// What differs from the message as it is.
    fn edit(self, message: &MessageRow) -> MessageEdit {
        let before = Self::of(message);
        let given: BTreeMap<String, String> = self.attributes.into_iter().collect();
        let mut attributes: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (name, _) in before.attributes.iter().filter(|(name, _)| !given.contains_key(name)) {
            attributes.insert(name.clone(), None);
        }
        for (name, value) in given {
            if !before.attributes.iter().any(|(n, v)| *n == name && same(v, &value)) {
                attributes.insert(name, Some(value));
            }
        }
        let is_same = |text: &String| before.body.as_ref().is_some_and(|before| same(before, text));
        let body = self.body.filter(|text| !is_same(text)).map(|text| text.into_bytes().into());
        MessageEdit { body, attributes, even_if_taken: self.even_if_taken }
    }
}

async fn load(
    app: &App,
    signed: &Signed,
    project: &str,
    id: &str,
    message_id: u64,
) -> Result<(ResourceName, MessageRow), Problem> {
    may_operate(signed)?;
    let name = parse(project, id)?;
    let found = app.data.message(&signed.principal, &name, message_id).await?;
    Ok((name, found.ok_or_else(|| missing("there is no such message"))?))
}

pub(crate) async fn detail(
    State(app): State<App>,
    signed: Signed,
    Path((project, id, message_id)): Path<(String, String, u64)>,
) -> Response {
    match load(&app, &signed, &project, &id, message_id).await {
        Ok((name, message)) => {
            let typed = Typed::of(&message);
            page(&app, &signed, &name.to_string(), &message, &typed, None)
        }
        Err(problem) => problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    }
}

pub(crate) async fn send(
    State(app): State<App>,
    signed: Signed,
    Path((project, id, message_id)): Path<(String, String, u64)>,
    fields: Fields,
) -> Response {
    let found = match may_operate(&signed).and_then(|()| check_csrf(&signed, &fields)) {
        Ok(()) => load(&app, &signed, &project, &id, message_id).await,
        Err(problem) => Err(problem),
    };
    let (name, message) = match found {
        Ok(found) => found,
        Err(problem) => return problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    };
    let typed = Typed::read(&fields, &message);
    let edit = typed.clone().edit(&message);
    match app.data.resend_message(&signed.principal, &name, message_id, &edit).await {
        Ok(text) => {
            let list = format!("{}/messages", address(&name.to_string()));
            back(&app, &signed, &list, Ok(text))
        }
        // Nothing of what was typed is lost.
        Err(problem) => page(&app, &signed, &name.to_string(), &message, &typed, Some(&problem)),
    }
}

fn page(
    app: &App,
    signed: &Signed,
    name: &str,
    message: &MessageRow,
    typed: &Typed,
    problem: Option<&Problem>,
) -> Response {
    let place = format!("{}/messages/{}", address(name), message.message_id);
    let heading = format!("Message {}", message.message_id);
    let body = html! {
        (crumbs(name, Some(message.message_id)))
        (title(&heading, None, &html! {}))
        @if let Some(problem) = problem { (problem_box(problem)) }
        @if let Some(dead) = &message.dead { (verdict(dead)) }
        dl.facts {
            div { dt { "Published" } dd { (utc(message.published_ms)) " UTC" } }
            div { dt { "Tenant" } dd { (message.tenant) } }
            @if let Some(key) = &message.ordering_key { div { dt { "Ordering key" } dd { (Shown::cell(key)) } } }
            div { dt { "Size" } dd { (bytes(message.body.len() as u64)) } }
        }
        section aria-labelledby="h-body" {
            div.bar { h2 #h-body { "Body" } a href={ (place) "/body" } download { "Download" } }
            @match short_text(&message.body) {
                Some(text) => (original(laid_out(text).as_bytes())),
                None => (original(&message.body)),
            }
        }
        section aria-labelledby="h-attributes" {
            div.bar { h2 #h-attributes { "Attributes" } }
            (attributes("long", &message.attributes))
        }
        @if message.dead.is_some() { (form(signed, &place, message, typed)) }
    };
    let page =
        Frame { title: &heading, active: Some(Nav::Subscriptions), live: None }.render(app, signed, &body);
    match problem {
        Some(problem) => (status(problem), page).into_response(),
        None => page.into_response(),
    }
}

/// A body as text, where it is one and short enough to be laid out.
fn short_text(body: &[u8]) -> Option<&str> {
    (body.len() <= LAID_OUT_BYTES).then(|| std::str::from_utf8(body).ok())?
}

fn verdict(dead: &DeadMark) -> Markup {
    html! {
        div.verdict {
            @if !dead.code.is_empty() { p { code { (Shown::cell(&dead.code)) } } }
            p.reason { @if dead.reason.is_empty() { "A dead letter" } @else { (Shown::of(&dead.reason, DETAIL_CHARS)) } }
            p { "from " a href=(address(&dead.source)) { (dead.source) } }
        }
    }
}

/// An attribute's name and value. A value of several lines has a text area: browsers take breaks
/// out of what has one line.
fn row(name: &str, value: &str) -> Markup {
    let label = format!("Value of {}", if name.is_empty() { "the new attribute" } else { name });
    html! {
        div {
            input type="text" name="name" value=(name) aria-label="Name" maxlength="256" autocomplete="off" spellcheck="false" placeholder="new attribute";
            @if has_breaks(value) {
                textarea name="value" aria-label=(label) rows="3" maxlength="1024" autocomplete="off" spellcheck="false" { (PreEscaped("\n")) (value) }
            } @else {
                input type="text" name="value" value=(value) aria-label=(label) maxlength="1024" autocomplete="off" spellcheck="false";
            }
        }
    }
}

fn form(signed: &Signed, place: &str, message: &MessageRow, typed: &Typed) -> Markup {
    let blank = (String::new(), String::new());
    let rows = typed.attributes.iter().chain(std::iter::repeat_n(&blank, NEW_ROWS));
    let own = message.attributes.iter().filter(|(name, _)| !is_fixed(name)).count();
    let unfit = own.saturating_sub(Typed::of(message).attributes.len());
    html! {
        section aria-labelledby="h-edit" {
            div.bar { h2 #h-edit { "Edit and send back" } }
            form.edit method="post" action=(place) {
                (csrf_field(signed))
                @match &typed.body {
                    // A first new line of a text area is dropped by browsers.
                    Some(text) => div.field {
                        label for="e-body" { "Body" }
                        textarea #e-body name="body" rows="10" spellcheck="false" autocomplete="off" { (PreEscaped("\n")) (text) }
                    },
                    None => p.faint { "The body is sent as it is: it is no text, or too long for a form. `levada subscriptions resend --data FILE` replaces it." },
                }
                fieldset.pairs {
                    legend { "Attributes" }
                    @for (name, value) in rows { (row(name, value)) }
                    p.faint { "Empty a name to take its attribute away. What tells where the letter came from is left out by itself." }
                    @if unfit > 0 {
                        p.faint { (unfit) " more that are too long, or have characters that a form would change, go back as they are; `levada subscriptions resend` edits them." }
                    }
                }
                label.check { input type="checkbox" name="taken" value="1" checked[typed.even_if_taken];
                    span { "Send it also if it was acknowledged already, or a consumer has it" } }
                div.actions { button.primary type="submit" { "Send back" } }
            }
        }
    }
}

/// The bytes, as a file: never shown by the browser as a page of ours.
pub(crate) async fn body(
    State(app): State<App>,
    signed: Signed,
    Path((project, id, message_id)): Path<(String, String, u64)>,
) -> Response {
    match load(&app, &signed, &project, &id, message_id).await {
        Ok((_, message)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_DISPOSITION, format!("attachment; filename=\"message-{message_id}.bin\"")),
            ];
            (headers, message.body).into_response()
        }
        Err(problem) => problem_page(&app, &signed, Some(Nav::Subscriptions), &problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str, attributes: &[(&str, &str)]) -> MessageRow {
        MessageRow {
            message_id: 7,
            published_ms: 0,
            tenant: "acme".to_owned(),
            ordering_key: None,
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            body: body.to_owned().into(),
            dead: Some(DeadMark::default()),
        }
    }

    fn edit(form: &str, message: &MessageRow) -> MessageEdit {
        Typed::read(&Fields::parse(form.as_bytes()), message).edit(message)
    }

    #[test]
    fn only_what_was_changed_is_an_edit() {
        let before =
            message("{\"n\":1}", &[("a", "1"), ("b", "2"), ("tenant_id", "acme"), ("levada.dead.code", "x")]);
        let as_it_was = "body=%7B%0D%0A++%22n%22%3A+1%0D%0A%7D&name=a&value=1&name=b&value=2&name=&value=";
        assert_eq!(edit(as_it_was, &before), MessageEdit::default(), "lines of a form are no change");
        let changed = edit("body=%7B%7D&name=a&value=9&name=&value=2&name=c&value=3&taken=1", &before);
        assert_eq!(changed.body.as_deref(), Some(&b"{}"[..]));
        let expected = [("a", Some("9")), ("b", None), ("c", Some("3"))];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!((changed.attributes, changed.even_if_taken), (expected.into(), true));
        let lines = message("one\ntwo", &[]);
        assert_eq!(edit("body=one%0D%0Atwo", &lines).body, None);
        assert_eq!(edit("body=one%0D%0A2", &lines).body.as_deref(), Some(&b"one\n2"[..]));
    }

    /// The fields of a form as a browser sends them back: CR LF at the end of each line, and none in
    /// a name, which has one line.
    fn untouched(message: &MessageRow) -> Vec<(&'static str, String)> {
        let lines = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n");
        let typed = Typed::of(message);
        let mut fields: Vec<_> = typed.body.iter().map(|body| ("body", lines(body))).collect();
        for (name, value) in &typed.attributes {
            let is_area = row(name, value).into_string().contains("<textarea");
            let value = if is_area { lines(value) } else { value.replace(['\r', '\n'], "") };
            fields.extend([("name", name.replace(['\r', '\n'], "")), ("value", value)]);
        }
        fields
    }

    fn encoded(fields: &[(&str, String)]) -> String {
        let pairs = fields.iter().map(|(name, value)| format!("{name}={}", crate::pages::encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    #[test]
    fn what_nobody_touched_stays_whatever_browsers_do_to_it() {
        let attributes = [
            ("lines", "one\ntwo\r\nthree\rfour"),
            ("first", "\nthen"),
            (" spaced ", " x "),
            ("two\nlines", "y"),
            ("twolines", "z"),
            ("", "no name"),
            ("nul", "a\0b"),
        ];
        for body in ["a\rb", "a\nb\r\nc", " a\n\n", "\n", "", "{\"n\":1}\n", "a\r\nb\r\n", "a\0b"] {
            let before = message(body, &attributes);
            let mut fields = untouched(&before);
            assert_eq!(edit(&encoded(&fields), &before), MessageEdit::default(), "{body:?}");
            let at = fields.iter().position(|(_, value)| value == "twolines").expect("a row");
            fields[at + 1].1 = "9".to_owned();
            let expected = [("twolines".to_owned(), Some("9".to_owned()))].into();
            let edit = edit(&encoded(&fields), &before);
            assert_eq!((edit.body, edit.attributes), (None, expected), "{body:?}");
        }
    }

    #[test]
    fn an_edit_leaves_the_other_lines_as_they_were() {
        let before = message("a\rb\nc\r\nd", &[("v", "1\n2")]);
        let done = edit("body=a%0D%0AB%0D%0Ac%0D%0Ad&name=v&value=1%0D%0A3&name=+new+&value=+x", &before);
        assert_eq!(done.body.as_deref(), Some(&b"a\rB\nc\r\nd"[..]));
        let expected = [("v", Some("1\n3")), ("new", Some(" x"))];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(done.attributes, expected.into());
        let spaced = message(" a\n", &[]);
        assert_eq!(edit("body=+b%0D%0A", &spaced).body.as_deref(), Some(&b" b\n"[..]));
    }

    #[test]
    fn a_body_that_is_no_text_cannot_be_edited() {
        let mut binary = message("", &[]);
        binary.body = vec![0xff, 0].into();
        assert_eq!(Typed::of(&binary).body, None);
        assert_eq!(edit("name=a&value=1", &binary).body, None);
        assert_eq!(Typed::of(&message(&"x".repeat(EDITED_BYTES + 1), &[])).body, None);
    }
}
