//! Calls about schemas.

use serde_json::{Value, json};

use super::calls::{Call, Choice, Fields, Script};
use super::random::Random;
use super::topics::list;

const AVRO: &str = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"string"}]}"#;
const LATER: &str = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"string"},{"name":"y","type":"int","default":0}]}"#;
const OTHER: &str = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"long"}]}"#;
const PROTO: &str = "syntax = \"proto3\"; message A { string x = 1; }";

pub fn any(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "schema");
    let path = script.path("schemas", &id);
    match random.below(10) {
        0 | 1 => create(script, random),
        2 => {
            let (view, query) = view(random);
            Call::new("GetSchema", "GET", format!("{path}{query}")).with(what).with(view)
        }
        3 => list(script, random, "ListSchemas", "schemas"),
        4 => Call::new("ListSchemaRevisions", "GET", format!("{path}:listRevisions")).with(what),
        5 => {
            let mut fields = Fields::default();
            fields.maybe(random, 1, "schema", &definitions());
            fields.call(Call::new("CommitSchema", "POST", format!("{path}:commit")).with(what))
        }
        6 => {
            let mut fields = Fields::default();
            fields.maybe(random, 2, "revisionId", &[("missing", json!("00000000"))]);
            fields.call(Call::new("RollbackSchema", "POST", format!("{path}:rollback")).with(what))
        }
        7 if random.once_in(2) => Call::new("DeleteSchema", "DELETE", path).with(what),
        7 => {
            Call::new("DeleteSchemaRevision", "DELETE", format!("{path}@00000000:deleteRevision")).with(what)
        }
        8 => {
            let mut fields = Fields::default();
            fields.maybe(random, 1, "schema", &definitions());
            let path = format!("projects/{}/schemas:validate", script.project);
            fields.call(Call::new("ValidateSchema", "POST", path))
        }
        _ => validate_message(script, random),
    }
}

fn view(random: &mut Random) -> (Option<String>, &'static str) {
    let (what, query) = *random.pick(&[
        ("", ""),
        ("", "?view=FULL"),
        ("", "?view=BASIC"),
        ("number", "?view=2"),
        ("unknown", "?view=HALF"),
    ]);
    ((!what.is_empty()).then(|| format!("view={what}")), query)
}

fn definitions() -> Vec<Choice> {
    let of = |kind: Value, definition: &str| json!({ "type": kind, "definition": definition });
    vec![
        ("", of(json!("AVRO"), AVRO)),
        ("", of(json!("AVRO"), LATER)),
        ("", of(json!(2), AVRO)),
        ("proto", of(json!("PROTOCOL_BUFFER"), PROTO)),
        ("another type", of(json!("AVRO"), OTHER)),
        ("nonsense", of(json!("AVRO"), "nonsense")),
        ("nonsense proto", of(json!("PROTOCOL_BUFFER"), "nonsense")),
        ("no type", json!({ "definition": AVRO })),
        ("type 9", of(json!(9), AVRO)),
        ("unknown type", of(json!("JSON"), AVRO)),
        ("no definition", json!({ "type": "AVRO" })),
    ]
}

pub fn create(script: &Script, random: &mut Random) -> Call {
    let (id, what) = script.id(random, "schema");
    let choices = definitions();
    let choices = if random.once_in(2) { &choices[..1] } else { &choices[..] };
    let (named, schema) = random.pick(choices);
    // In a query a plus sign is a space.
    let id = id.replace('+', "%2B");
    let path = format!("projects/{}/schemas?schemaId={id}", script.project);
    let trait_ = (!named.is_empty()).then(|| format!("schema={named}"));
    Call::new("CreateSchema", "POST", path).body(schema.clone()).with(what).with(trait_)
}

fn validate_message(script: &Script, random: &mut Random) -> Call {
    let mut fields = Fields::default();
    if random.once_in(3) {
        fields.set("name", script.path("schemas", "schema-0"));
    } else {
        fields.set("schema", json!({ "type": "AVRO", "definition": AVRO }));
    }
    // `{"x":"a"}`, `{"x":1}` and no JSON at all.
    let messages =
        [("", json!("eyJ4IjoiYSJ9")), ("wrong", json!("eyJ4IjoxfQ==")), ("no JSON", json!("aGk="))];
    fields.maybe(random, 1, "message", &messages);
    let encodings = [("", json!("JSON")), ("", json!("JSON")), ("none", json!("ENCODING_UNSPECIFIED"))];
    fields.maybe(random, 1, "encoding", &encodings);
    let path = format!("projects/{}/schemas:validateMessage", script.project);
    fields.call(Call::new("ValidateMessage", "POST", path))
}
