//! Definitions, messages in both encodings, and revisions by example; damage by chance.

use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, Value};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{MAX_NESTING, Schema};

fn schema(definition: &str) -> Schema {
    Schema::parse(definition).unwrap_or_else(|flaw| panic!("{definition}: {flaw}"))
}

const ORDER: &str = r#"
syntax = "proto3";
package shop.v1;
message Order { // the { in a comment does not count
  enum Colour { NONE = 0; RED = 1; }
  message Line { string sku = 1; int32 count = 2; }
  int64 id = 1;
  optional string note = 2;
  Colour colour = 3;
  repeated Line lines = 4;
  map<string, double> tags = 5;
  oneof pay { bool cash = 6; bytes card_token = 7; }
  Order previous = 8;
  repeated sint32 numbers = 10;
}
"#;

#[test]
fn a_definition_is_one_file_with_one_message_and_no_imports() {
    schema(ORDER);
    schema("message M { required string a = 1; optional group G = 2 { optional int32 b = 3; } }");
    schema("syntax = 'proto3'; message Message { optional string key = 1; }");
    schema("syntax = \"proto3\"; message M {}");
    let wrong = [
        ("", "exactly one top-level type"),
        ("message {", "definition.proto:1:9: expected an identifier"),
        ("syntax = \"proto3\"; message A {} message B {}", "there are 2 messages and 0 enums"),
        ("syntax = \"proto3\"; message A {} enum B { C = 0; }", "there are 1 messages and 1 enums"),
        (
            "syntax = \"proto3\";\nimport \"google/protobuf/timestamp.proto\";\nmessage A {}",
            "imports are not supported",
        ),
        ("syntax = \"proto3\"; message A { B b = 1; }", "B"),
        ("syntax = \"proto3\"; message A { int32 a = 1; int32 b = 1; }", "1"),
        ("syntax = \"proto3\"; message A { int32 a = 1; int32 a = 2; }", "a"),
        ("syntax = \"proto3\"; message A { required int32 a = 1; }", "required"),
        ("syntax = \"proto3\"; message A { int32 a = 0; }", "must be between 1 and"),
        ("syntax = \"proto3\"; message A { enum E { X = 1; } }", "must be 0"),
        ("edition = \"2023\"; message A {}", "definition.proto:1:1: editions are not supported (`2023`)"),
        ("// new\n/* edition = 1 */ edition='2024';", "definition.proto:2:19: editions are not supported"),
        ("editions = \"2023\";", "definition.proto:1:1: expected"),
        (r#"{"type": "record"}"#, "definition.proto:1:1"),
    ];
    for (definition, reason) in wrong {
        let flaw = Schema::parse(definition).expect_err(definition).to_string();
        assert!(flaw.contains(reason), "{definition}: {flaw}");
    }
}

#[test]
fn nesting_is_bounded_before_the_parser_recurses() {
    let nested = |levels: usize| {
        let open: String = (0..levels).map(|level| format!("message M{level} {{ ")).collect();
        format!("syntax = \"proto3\"; {open}{}", "}".repeat(levels))
    };
    schema(&nested(MAX_NESTING));
    for levels in [MAX_NESTING + 1, 10_000] {
        let flaw = Schema::parse(&nested(levels)).expect_err("too deep").to_string();
        assert!(flaw.contains("nested deeper"), "{flaw}");
    }
    let quoted =
        format!("message M {{ optional string a = 1 [default = \"{}\\\"{{\"]; /* {{{{ */ }}", "{".repeat(90));
    schema(&quoted);
    assert!(Schema::parse(&"[".repeat(300_000)).is_err());
}

/// tag and value of a field by the wire format.
fn field(number: u8, wire: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | wire], value].concat()
}

#[test]
fn binary_messages_are_checked_in_full() {
    let schema = schema(ORDER);
    let line = |sku: &[u8]| field(4, 2, &[&[sku.len() as u8 + 2, 10, sku.len() as u8], sku].concat());
    let fine = [
        vec![],
        field(1, 0, &[7]),
        [field(1, 0, &[7]), field(2, 2, b"\x01x"), field(3, 0, &[1]), line(b"a"), field(6, 0, &[1])].concat(),
        field(3, 0, &[9]), // an enum of proto3 is open
        field(5, 2, &[&[12, 10, 1, b't', 17][..], &1.5f64.to_le_bytes()].concat()),
    ];
    for message in fine {
        schema.check_binary(&message).unwrap_or_else(|flaw| panic!("{message:?}: {flaw}"));
    }
    let wrong = [
        (field(9, 0, &[1]), "shop.v1.Order has no field 9 (byte 1)"),
        (field(4, 2, &[2, 24, 1]), "$.lines: shop.v1.Order.Line has no field 3 (byte 3)"),
        (field(8, 2, &[2, 72, 1]), "$.previous: shop.v1.Order has no field 9"),
        (field(1, 0, &[0xff]), "not a shop.v1.Order"),
        (field(2, 2, &[9, b'x']), "not a shop.v1.Order"),
        (field(2, 2, &[1, 0xff]), "UTF-8"),
        (field(1, 2, &[1, b'x']), "wire type"),
        (b"{\"id\": 7}".to_vec(), "shop.v1.Order has no field 15"),
    ];
    for (message, reason) in wrong {
        let flaw = schema.check_binary(&message).expect_err(reason).to_string();
        assert!(flaw.contains(reason), "{message:?}: {flaw}");
    }
    let nested = (0..5_000).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut outer = vec![8 << 3 | 2];
        prost_reflect::prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    });
    assert!(schema.check_binary(&nested).is_err(), "depth is bounded");
}

#[test]
fn json_messages_are_checked_in_full() {
    let schema = schema(ORDER);
    let fine = [
        "{}",
        r#"{"id": "7", "note": "x", "colour": "RED", "lines": [{"sku": "a", "count": 2}]}"#,
        r#"{"id": 7, "tags": {"t": 1.5}, "cardToken": "AAE=", "previous": {"id": 1}}"#,
        r#"{"card_token": "AAE=", "note": null}"#,
    ];
    for message in fine {
        schema.check_json(message.as_bytes()).unwrap_or_else(|flaw| panic!("{message}: {flaw}"));
    }
    let wrong = [
        r#"{"other": 1}"#,
        r#"{"lines": [{"sku": "a", "other": 1}]}"#,
        r#"{"id": "x"}"#,
        r#"{"colour": "BLUE"}"#,
        r#"{"cardToken": "***"}"#,
        r#"{"cash": true, "cardToken": "AAE="}"#,
        r#"{"id": 1} {"id": 2}"#,
        r#"{"id": 1"#,
        "[]",
        "",
    ];
    for message in wrong {
        let flaw = schema.check_json(message.as_bytes()).expect_err(message).to_string();
        assert!(flaw.starts_with("not a shop.v1.Order: "), "{message}: {flaw}");
    }
}

#[test]
fn proto2_has_required_fields_and_closed_enums() {
    let schema = schema(
        "message M { required string a = 1; optional E e = 2; optional M m = 3; enum E { X = 1; } repeated E l = 4; }",
    );
    schema.check_binary(b"\x0a\x01x\x10\x01").expect("the message fits");
    schema.check_json(br#"{"a": "x", "e": "X"}"#).expect("the message fits");
    let refused = |outcome: Result<(), super::Flaw>, reason: &str| {
        let flaw = outcome.expect_err(reason).to_string();
        assert!(flaw.contains(reason), "{flaw}");
    };
    refused(schema.check_binary(b""), "the required field `a` of M is missing");
    refused(schema.check_json(b"{}"), "the required field `a` of M is missing");
    refused(schema.check_json(br#"{"a": "x", "m": {}}"#), "$.m: the required field `a`");
    refused(schema.check_binary(b"\x0a\x01x\x10\x05"), "$.e: M.E has no value 5");
    refused(schema.check_binary(b"\x0a\x01x\x20\x01\x20\x05"), "$.l: M.E has no value 5");
}

/// Whether the decoder of another hand takes a message and knows all of it.
fn decodes(schema: &Schema, bytes: &[u8]) -> bool {
    fn knows(message: &DynamicMessage) -> bool {
        let inner = |value: &Value| match value {
            Value::Message(inner) => knows(inner),
            Value::List(items) => items.iter().filter_map(Value::as_message).all(knows),
            Value::Map(entries) => entries.values().filter_map(Value::as_message).all(knows),
            _ => true,
        };
        message.unknown_fields().next().is_none() && message.fields().all(|(_, value)| inner(value))
    }
    DynamicMessage::decode(schema.root.clone(), bytes).is_ok_and(|message| knows(&message))
}

#[test]
fn the_walk_agrees_with_a_decoder_also_on_damage_and_with_json() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let schema = schema(ORDER);
    let (mut taken, mut refused) = (0, 0);
    for case in 0..4_000 {
        let mut message = DynamicMessage::new(schema.root.clone());
        message.set_field_by_name("id", Value::I64(rng.random()));
        if rng.random_bool(0.5) {
            message.set_field_by_name("note", Value::String("ä".repeat(rng.random_range(0..10))));
        }
        message.set_field_by_name("colour", Value::EnumNumber(rng.random_range(0..2)));
        if rng.random_bool(0.5) {
            let numbers = (0..3).map(|_| Value::I32(rng.random())).collect();
            let mut previous = DynamicMessage::new(schema.root.clone());
            previous.set_field_by_name("card_token", Value::Bytes(vec![rng.random(); 3].into()));
            previous.set_field_by_name("numbers", Value::List(numbers));
            message.set_field_by_name("previous", Value::Message(previous));
        }
        let mut bytes = message.encode_to_vec();
        schema.check_binary(&bytes).unwrap_or_else(|flaw| panic!("seed {seed} case {case}: {flaw}"));
        let json = serde_json::to_vec(&message).expect("the message has a JSON form");
        schema.check_json(&json).unwrap_or_else(|flaw| panic!("seed {seed} case {case}: {flaw}"));
        for _ in 0..rng.random_range(1..3) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] =
                if rng.random_bool(0.5) { rng.random() } else { bytes[at] ^ (1 << rng.random_range(0..8)) };
        }
        if rng.random_bool(0.2) {
            bytes.truncate(rng.random_range(1..=bytes.len()));
        }
        match (schema.check_binary(&bytes), decodes(&schema, &bytes)) {
            (Ok(()), true) => taken += 1,
            (Err(_), false) => refused += 1,
            // The decoder overlooks what does not belong into the entry of a map.
            (Err(flaw), true) if flaw.to_string().contains("TagsEntry") => refused += 1,
            (outcome, decoded) => {
                panic!("seed {seed} case {case}: {outcome:?}, decoded: {decoded}, {bytes:?}")
            }
        }
        let _ = schema.check_json(&bytes);
    }
    println!("{taken} damaged messages taken, {refused} refused");
    assert!(taken > 200 && refused > 200, "seed {seed}: {taken} taken, {refused} refused");
}

#[test]
fn groups_extensions_and_packed_numbers_are_walked() {
    let schema = schema(
        "message M { optional group G = 1 { required int32 a = 2; } repeated int32 n = 3; repeated fixed32 f = 4; \
         repeated string s = 6; extensions 100 to 199; extend M { optional M more = 100; } }",
    );
    let more = |inner: &[u8]| [&[0xa2, 0x06, inner.len() as u8], inner].concat();
    let fine: [&[u8]; 7] = [
        &[11, 16, 1, 12],
        &[24, 1, 24, 2],
        &[26, 2, 1, 2],
        &[26, 0],
        &[34, 4, 1, 2, 3, 4, 37, 1, 2, 3, 4],
        &more(&[24, 1]),
        &more(&more(&[])),
    ];
    for message in fine {
        schema.check_binary(message).unwrap_or_else(|flaw| panic!("{message:?}: {flaw}"));
        assert!(decodes(&schema, message), "{message:?}");
    }
    let wrong: [(&[u8], &str); 9] = [
        (&[11, 16, 1], "not a M.G: it ends"),
        (&[11, 12], "$.g: the required field `a` of M.G is missing"),
        (&[11, 16, 1, 20], "has the wire type 4, not 0"),
        (&[12], "has the wire type 4, not 3"),
        (&[26, 2, 1, 0x80], "$.n: not a M: it ends"),
        (&[34, 3, 1, 2, 3], "$.f: not a M: it ends"),
        (&[50, 1, 0xff], "$.s: the text is not UTF-8"),
        (&more(&[40, 1]), "$.M.more: M has no field 5"),
        (&[0, 0], "M has no field 0"),
    ];
    for (message, reason) in wrong {
        let flaw = schema.check_binary(message).expect_err(reason).to_string();
        assert!(flaw.contains(reason), "{message:?}: {flaw}");
    }
}

#[test]
fn revisions_may_add_and_remove_all_but_required_fields() {
    let m = |fields: &str| schema(&format!("syntax = \"proto3\"; message M {{ {fields} }}"));
    let m2 = |fields: &str| schema(&format!("message M {{ {fields} }}"));
    let fine = [
        (m("int32 a = 1;"), m("int32 a = 1; string b = 2;")),
        (m("int32 a = 1;"), m("optional int32 a = 1;")),
        (m("M m = 1;"), m("M m = 1; oneof o { int32 a = 2; }")),
        (m2("required int32 a = 1;"), m2("required int32 a = 1; optional int32 b = 2;")),
        (m("int32 a = 1;"), m("int32 a = 1; repeated int32 b = 2;")),
        (m("int32 a = 1;"), m("int32 a = 1; repeated N n = 2; message N { repeated string s = 1; }")),
        (m("int32 a = 1;"), m("int32 a = 1; map<string, int32> b = 2;")),
        (
            m2("optional int32 a = 1;"),
            m2("optional int32 a = 1; repeated group G = 2 { optional int32 b = 3; }"),
        ),
        (m("message N { int32 a = 1; } N n = 1;"), m("message K { int32 a = 1; int32 b = 2; } K n = 1;")),
    ];
    for (one, other) in &fine {
        one.compatible_with(other).expect("compatible");
        other.compatible_with(one).expect("compatible the other way, too");
    }
    let wrong = [
        (
            m("int32 a = 1;"),
            m("string a = 1;"),
            "M.a of type int32 is not compatible with M.a of type string",
        ),
        (m("int32 a = 1;"), m("int32 b = 1;"), "has another name: `a`, it was `b`"),
        (m("int32 a = 1;"), m("int32 a = 2;"), "a field keeps its number"),
        (m("int32 a = 1;"), m("repeated int32 a = 1;"), "has another label"),
        (m("int32 a = 1 [json_name = \"x\"];"), m("int32 a = 1;"), "has another JSON name"),
        (m("oneof o { int32 a = 1; }"), m("int32 a = 1;"), "has another oneof: `o`, it was `none`"),
        (m("repeated int32 a = 1;"), m("repeated int32 a = 2;"), "a field keeps its number"),
        (m2("optional int32 a = 1;"), m2("optional int32 a = 1; required int32 b = 2;"), "M.b = 2 is gone"),
        (
            m("enum E { X = 0; Y = 1; } E e = 1;"),
            m("enum E { X = 0; } E e = 1;"),
            "M.Y = 1 is missing in M.E",
        ),
        (
            m("message N { int32 a = 1; } map<string, N> n = 1;"),
            m("message N { bool a = 1; } map<string, N> n = 1;"),
            "M.N.a of type int32",
        ),
    ];
    for (newer, earlier, reason) in &wrong {
        let flaw = newer.compatible_with(earlier).expect_err(reason).to_string();
        assert!(flaw.contains(reason), "{flaw}");
        assert!(earlier.compatible_with(newer).is_err(), "the other way of: {reason}");
    }
}
