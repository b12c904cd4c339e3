//! Definitions, messages and resolution by example; binary by a round trip against an encoder
//! that knows only the specification, and against damage.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{Schema, Type, TypeId, resolve};

fn schema(definition: Value) -> Schema {
    Schema::parse(&definition.to_string()).expect("the definition is valid")
}

fn refusal(definition: Value) -> String {
    Schema::parse(&definition.to_string()).expect_err("the definition is refused").to_string()
}

fn record(fields: Value) -> Value {
    json!({"type": "record", "name": "Order", "namespace": "shop", "fields": fields})
}

#[test]
fn definitions_follow_the_rules_of_names_unions_and_defaults() {
    let fine = [
        json!("string"),
        json!(["null", "int", {"type": "array", "items": "string"}]),
        record(json!([{"name": "next", "type": ["null", "Order"], "default": null}])),
        record(json!([{"name": "next", "type": ["null", "shop.Order"]}])),
        record(json!([{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}])),
        record(json!([
            {"name": "a", "type": {"type": "enum", "name": "Colour", "symbols": ["RED"]}, "default": "RED"},
            {"name": "b", "type": {"type": "array", "items": "Colour"}, "default": ["RED"]},
            {"name": "c", "type": {"type": "fixed", "name": "other.Id", "size": 2}, "default": "\u{ff}a"},
            {"name": "d", "type": "other.Id"},
            {"name": "e", "type": ["string", "null"], "default": "x", "aliases": ["f"], "doc": "d", "order": "ignore"},
        ])),
    ];
    for definition in fine {
        Schema::parse(&definition.to_string()).unwrap_or_else(|flaw| panic!("{definition}: {flaw}"));
    }
    let wrong = [
        (json!("shop.Order"), "`shop.Order` is not known"),
        (json!({"name": "x"}), "no \"type\""),
        (json!(7), "a type is a name"),
        (json!([]), "at least one type"),
        (json!(["null", "int", "int"]), "$[2]: the union has `int` twice"),
        (json!(["null", "null"]), "`null` twice"),
        (json!(["null", ["int"]]), "$[1]: a union cannot lie in a union"),
        (json!({"type": "array"}), "an array needs \"items\""),
        (json!({"type": "map", "values": "strin"}), "$.values: the type `strin`"),
        (json!({"type": "record", "name": "A"}), "needs \"fields\""),
        (json!({"type": "record", "name": "1A", "fields": []}), "`1A` is not a name"),
        (json!({"type": "record", "name": "int", "fields": []}), "name of a primitive type"),
        (
            record(json!([{"name": "a", "type": "int"}, {"name": "a", "type": "int"}])),
            "$.fields[1]: the field `a`",
        ),
        (record(json!([{"name": "a-b", "type": "int"}])), "a field needs a \"name\""),
        (record(json!([{"name": "a"}])), "the field `a` needs a \"type\""),
        (
            record(json!([{"name": "a", "type": "int", "default": "x"}])),
            "default of field `a` of `shop.Order`",
        ),
        (record(json!([{"name": "a", "type": ["null", "int"], "default": 1}])), "the schema expects null"),
        (record(json!([{"name": "a", "type": record(json!([]))}])), "`shop.Order` is defined twice"),
        (json!({"type": "enum", "name": "E", "symbols": []}), "needs \"symbols\""),
        (json!({"type": "enum", "name": "E", "symbols": ["A", "A"]}), "has `A` twice"),
        (json!({"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}), "not one of its symbols"),
        (json!({"type": "fixed", "name": "F"}), "needs a \"size\""),
        (json!({"type": "fixed", "name": "F", "size": -1}), "needs a \"size\""),
    ];
    for (definition, reason) in wrong {
        let given = refusal(definition.clone());
        assert!(given.contains(reason), "{definition}: {given}");
    }
    assert!(Schema::parse("{'type': 'string'}").expect_err("quotes").to_string().contains("not JSON"));
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(200), "}".repeat(200));
    assert!(Schema::parse(&deep).is_err(), "nesting is bounded");
}

fn order() -> Schema {
    schema(record(json!([
        {"name": "id", "type": "long"},
        {"name": "note", "type": ["null", "string", {"type": "fixed", "name": "Code", "size": 2}]},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
            {"name": "sku", "type": "string"}, {"name": "count", "type": "int", "default": 1}]}}},
        {"name": "tags", "type": {"type": "map", "values": "double"}},
        {"name": "raw", "type": "bytes"},
        {"name": "paid", "type": "boolean"},
    ])))
}

fn message() -> Value {
    json!({
        "id": 7, "note": {"string": "x"}, "colour": "RED", "lines": [{"sku": "a", "count": 2}],
        "tags": {"t": 1.5}, "raw": "\u{0}\u{ff}", "paid": true,
    })
}

#[test]
fn json_messages_are_checked_by_the_rules_of_avro_json() {
    let schema = order();
    let check = |message: &Value| schema.check_json(message.to_string().as_bytes());
    let with = |pointer: &str, value: Value| {
        let mut message = message();
        *message.pointer_mut(pointer).expect("the place is there") = value;
        message
    };
    let fine = [
        message(),
        with("/note", json!(null)),
        with("/note", json!({"shop.Code": "ab"})),
        with("/note", json!({"Code": "ab"})),
        with("/id", json!(i64::MIN)),
        with("/tags", json!({"t": 1, "u": -2.5})),
        with("/lines", json!([])),
        with("/lines/0", json!({"sku": "a", "count": 1, "more": true})),
    ];
    for message in fine {
        check(&message).unwrap_or_else(|flaw| panic!("{message}: {flaw}"));
    }
    let wrong = [
        (with("/id", json!(1.5)), "$.id: the schema expects long, this is the number 1.5"),
        (with("/id", json!("7")), "$.id: the schema expects long, this is a text"),
        (with("/id", json!(u64::MAX)), "$.id: the schema expects long"),
        (with("/note", json!("x")), "$.note: a text is no branch of the union (null, string, shop.Code)"),
        (with("/note", json!({"string": 1})), "$.note.string: the schema expects string"),
        (with("/note", json!({"int": 1})), "$.note: `int` is no branch"),
        (with("/note", json!({"null": null})), "$.note: `null` is no branch"),
        (with("/note", json!({"Code": "abc"})), "$.note.Code: shop.Code has 2 bytes, this has 3"),
        (with("/colour", json!("BLUE")), "$.colour: `BLUE` is no symbol of shop.Colour"),
        (with("/lines/0/count", json!(1i64 << 31)), "$.lines[0].count: the schema expects int"),
        (with("/lines/0", json!({"sku": "a"})), "$.lines[0]: the field `count` of shop.Line is missing"),
        (with("/tags/t", json!("1")), "$.tags[\"t\"]: the schema expects double"),
        (with("/raw", json!("\u{100}")), "$.raw: bytes are written as characters up to \\u00ff"),
        (with("/paid", json!(null)), "$.paid: the schema expects boolean, this is null"),
        (json!([]), "the schema expects shop.Order, this is a list"),
    ];
    for (message, reason) in wrong {
        let given = check(&message).expect_err("refused").to_string();
        assert!(given.contains(reason), "{message}: {given}");
    }
    let many = with("/note", json!({"string": "x", "z": 1}));
    assert!(check(&many).expect_err("two tags").to_string().contains("$.note: an object of several entries"));
    let deep = format!("{{\"more\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    assert!(schema.check_json(deep.as_bytes()).is_err());
    for body in [&b"{"[..], b"", b"null x", b"\xff"] {
        assert!(schema.check_json(body).is_err(), "{body:?}");
    }
}

/// The bytes of a number.
fn long(number: i64) -> Vec<u8> {
    let mut bits = ((number << 1) ^ (number >> 63)) as u64;
    let mut bytes = Vec::new();
    while bits >= 0x80 {
        bytes.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    bytes.push(bits as u8);
    bytes
}

#[test]
fn binary_messages_are_checked_to_their_last_byte() {
    let schema = order();
    // id 7, branch 1 "x", GREEN, one block of one line, no tags, two bytes, true.
    let bytes = [&[14, 2, 2, b'x', 2, 2][..], &[2, b'a', 4, 0], &[0], &[4, 0, 255], &[1]].concat();
    schema.check_binary(&bytes).expect("the message fits");
    // The same line in a block that says its length: count -1, 3 bytes.
    let block = [&[14, 2, 2, b'x', 2, 1, 6][..], &[2, b'a', 4, 0], &[0], &[4, 0, 255], &[1]].concat();
    schema.check_binary(&block).expect("blocks may say their length");
    for end in 0..bytes.len() {
        assert!(schema.check_binary(&bytes[..end]).is_err(), "cut to {end} bytes");
    }
    let refused = |at: usize, byte: u8, reason: &str| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        let flaw = schema.check_binary(&bytes).expect_err(reason).to_string();
        assert!(flaw.contains(reason), "{flaw}");
    };
    refused(1, 6, "$.note: there is no branch of the union 3, the last is 2");
    refused(2, 1, "the length of a string is negative");
    refused(3, 0xff, "$.note: the string is not UTF-8 from its byte 0");
    refused(4, 4, "$.colour: there is no symbol 2");
    refused(14, 2, "$.paid: a boolean is 0 or 1");
    let longer = [&bytes[..], &[0]].concat();
    assert!(schema.check_binary(&longer).expect_err("longer").to_string().contains("1 bytes more"));
    let mut wrong_block = block.clone();
    wrong_block[6] = 4;
    assert!(schema.check_binary(&wrong_block).is_err());

    let int = self::schema(json!("int"));
    int.check_binary(&long(i64::from(i32::MIN))).expect("the smallest");
    assert!(int.check_binary(&long(1 << 31)).expect_err("too large").to_string().contains("32 bits"));
    let long_type = self::schema(json!("long"));
    long_type.check_binary(&long(i64::MIN)).expect("the smallest");
    assert!(long_type.check_binary(&[0xff; 11]).is_err(), "more than 64 bits");
}

#[test]
fn hostile_messages_are_refused_soon() {
    let nulls = schema(json!({"type": "array", "items": "null"}));
    let claim = [&long(i64::MAX)[..], &[0]].concat();
    assert!(nulls.check_binary(&claim).expect_err("too many").to_string().contains("values a byte"));
    let list =
        schema(json!({"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}));
    let nested = |depth: usize| [vec![2; depth], vec![0]].concat();
    list.check_binary(&nested(40)).expect("forty are fine");
    assert!(list.check_binary(&nested(1 << 20)).expect_err("deep").to_string().contains("nested deeper"));
    let json = |depth: usize| {
        format!("{}{{\"next\": null}}{}", "{\"next\": {\"L\": ".repeat(depth), "}}".repeat(depth))
    };
    list.check_json(json(45).as_bytes()).expect("forty-five are fine");
    assert!(list.check_json(json(55).as_bytes()).expect_err("deep").to_string().contains("nested deeper"));
    assert!(list.check_json(json(1 << 20).as_bytes()).is_err());
    // Holds itself without an end: no message can ever fit.
    let endless = schema(json!({"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}));
    assert!(endless.check_binary(&[]).is_err());
}

/// Writes a random message both ways, knowing only the specification.
struct Writer<'a> {
    schema: &'a Schema,
    rng: StdRng,
}

impl Writer<'_> {
    fn write(&mut self, id: TypeId, depth: usize, out: &mut Vec<u8>) -> Value {
        let count = if depth > 4 { 0 } else { self.rng.random_range(0..4) };
        match &self.schema.types[id] {
            Type::Null => Value::Null,
            Type::Boolean => {
                let yes = self.rng.random_bool(0.5);
                out.push(yes.into());
                json!(yes)
            }
            Type::Int => {
                let number: i32 = self.rng.random();
                out.extend(long(number.into()));
                json!(number)
            }
            Type::Long => {
                let number = self.rng.random::<i64>() >> self.rng.random_range(0..64);
                out.extend(long(number));
                json!(number)
            }
            Type::Float => {
                out.extend(1.5f32.to_le_bytes());
                json!(1.5)
            }
            Type::Double => {
                let number: f64 = self.rng.random();
                out.extend(number.to_le_bytes());
                json!(number)
            }
            Type::Bytes => {
                let bytes: Vec<u8> = (0..count).map(|_| self.rng.random()).collect();
                out.extend(long(count));
                out.extend(&bytes);
                json!(bytes.iter().map(|b| *b as char).collect::<String>())
            }
            Type::String => {
                let text = "ä".repeat(count as usize);
                out.extend(long(text.len() as i64));
                out.extend(text.as_bytes());
                json!(text)
            }
            Type::Fixed { size, .. } => {
                out.extend(vec![b'f'; *size]);
                json!("f".repeat(*size))
            }
            Type::Enum { symbols, .. } => {
                // The places differ from the sorted order, the number of symbols does not.
                let index = self.rng.random_range(0..symbols.len());
                out.extend(long(index as i64));
                json!(symbols.iter().nth(index))
            }
            Type::Array(items) => {
                let mut list = Vec::new();
                for _ in 0..count {
                    out.extend(long(1));
                    list.push(self.write(*items, depth + 1, out));
                }
                out.push(0);
                Value::Array(list)
            }
            Type::Map(values) => {
                let mut map = serde_json::Map::new();
                if count > 0 {
                    let mut block = Vec::new();
                    for key in 0..count {
                        block.extend(long(1));
                        block.push(b'a' + key as u8);
                        let value = self.write(*values, depth + 1, &mut block);
                        map.insert(char::from(b'a' + key as u8).to_string(), value);
                    }
                    out.extend(long(-count));
                    out.extend(long(block.len() as i64));
                    out.extend(block);
                }
                out.push(0);
                Value::Object(map)
            }
            Type::Union(union) => {
                let last = if depth > 4 { 1 } else { union.branches.len() };
                let index = self.rng.random_range(0..last);
                out.extend(long(index as i64));
                let branch = union.branches[index];
                let value = self.write(branch, depth + 1, out);
                match self.schema.types[branch] {
                    Type::Null => value,
                    _ => json!({ self.schema.label(branch): value }),
                }
            }
            Type::Record { fields, .. } => fields
                .iter()
                .map(|field| (field.name.clone(), self.write(field.ty, depth + 1, out)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

#[test]
fn what_is_written_by_the_specification_is_accepted_and_damage_never_panics() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let schema = schema(json!({"type": "record", "name": "T", "fields": [
        {"name": "a", "type": ["null", "int", "long", "T", {"type": "map", "values": "T"}]},
        {"name": "b", "type": {"type": "array", "items": ["null", "string", "bytes", "double", "float"]}},
        {"name": "c", "type": {"type": "map", "values": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}}},
        {"name": "d", "type": {"type": "fixed", "name": "n.F", "size": 3}},
        {"name": "e", "type": ["boolean", "n.F", "E"]},
    ]}));
    let mut writer = Writer { schema: &schema, rng: StdRng::seed_from_u64(seed) };
    let mut damaged_and_refused = 0;
    for case in 0..2_000 {
        let mut bytes = Vec::new();
        let value = writer.write(schema.root, 0, &mut bytes);
        schema.check_binary(&bytes).unwrap_or_else(|flaw| panic!("seed {seed} case {case}: {flaw}"));
        schema
            .check_json(value.to_string().as_bytes())
            .unwrap_or_else(|flaw| panic!("seed {seed} case {case}: {value}: {flaw}"));
        let cut = writer.rng.random_range(0..bytes.len());
        assert!(schema.check_binary(&bytes[..cut]).is_err(), "seed {seed} case {case}: cut to {cut}");
        let at = writer.rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << writer.rng.random_range(0..8);
        damaged_and_refused += usize::from(schema.check_binary(&bytes).is_err());
    }
    assert!(damaged_and_refused > 500, "seed {seed}: {damaged_and_refused} of 2000 damaged messages refused");
}

/// Changes the fields of a record.
type Change = fn(&mut Vec<Value>);

#[test]
fn revisions_must_read_each_other() {
    let base = || {
        json!([{"name": "id", "type": "long"}, {"name": "c", "type":
        {"type": "enum", "name": "C", "symbols": ["A", "B"], "default": "A"}}])
    };
    let earlier = schema(record(base()));
    let with = |change: Change| {
        let mut fields = base();
        change(fields.as_array_mut().expect("a list"));
        schema(record(fields))
    };
    let fine: [Change; 4] = [
        |_| (),
        |fields| fields.push(json!({"name": "n", "type": ["null", "string"], "default": null})),
        |fields| fields.push(json!({"name": "self", "type": ["null", "Order"], "default": null})),
        |fields| fields[1]["type"]["symbols"] = json!(["A", "B", "D"]),
    ];
    for change in fine {
        with(change).compatible_with(&earlier).expect("compatible");
        earlier.compatible_with(&with(change)).expect("compatible the other way, too");
    }
    let wrong: [(Change, &str); 6] = [
        (|fields| fields.push(json!({"name": "n", "type": "string"})), "has no default"),
        (|fields| _ = fields.remove(0), "the field `id` of shop.Order is on one side only"),
        (|fields| fields[0]["type"] = json!("string"), "$.id: string cannot be read from long"),
        (
            |fields| fields[0]["type"] = json!("double"),
            "the earlier one cannot read messages of the new one: $.id",
        ),
        (|fields| fields[0]["type"] = json!(["null", "long"]), "long cannot be read from null"),
        (|fields| fields[1]["type"]["name"] = json!("D"), "the type is called shop.D and shop.C"),
    ];
    for (change, reason) in wrong {
        let flaw = with(change).compatible_with(&earlier).expect_err(reason).to_string();
        assert!(flaw.contains(reason), "{flaw}");
    }
    let other = schema(json!({"type": "record", "name": "Other", "fields": base()}));
    assert!(other.compatible_with(&earlier).is_err());
    let renamed =
        schema(json!({"type": "record", "name": "Other", "aliases": ["shop.Order"], "fields": base()}));
    assert!(renamed.compatible_with(&earlier).expect_err("one way").to_string().contains("the earlier one"));
}

#[test]
fn recursive_definitions_are_compared_to_an_end() {
    let tree = |value: &str| {
        schema(json!({"type": "record", "name": "T", "fields": [
            {"name": "l", "type": ["null", "T"]}, {"name": "r", "type": ["null", "T"]}, {"name": "v", "type": value}]}))
    };
    tree("int").compatible_with(&tree("int")).expect("the same");
    assert!(tree("int").compatible_with(&tree("string")).is_err());
    let bytes = tree("bytes");
    bytes.compatible_with(&tree("string")).expect("bytes and string are promoted to each other");
}

#[test]
fn what_a_failed_branch_took_for_granted_is_forgotten() {
    // Each X leads back to its T. `a.T` fits but for its last field, which is met after `a.X` was
    // found to fit because of it.
    let types = |namespace: &str, y: &str| {
        json!({"type": "record", "name": "T", "namespace": namespace, "fields": [
            {"name": "x", "type": {"type": "record", "name": "X", "fields": [{"name": "t", "type": ["null", "T"]}]}},
            {"name": "y", "type": y}]})
    };
    let reader = |second: &str| {
        schema(json!({"type": "record", "name": "R", "fields": [
            {"name": "first", "type": [types("a", "int"), types("b", "string")]},
            {"name": "second", "type": second}]}))
    };
    let writer = schema(json!({"type": "record", "name": "R", "fields": [
        {"name": "first", "type": types("w", "string")}, {"name": "second", "type": "w.X"}]}));
    resolve::can_read(&reader("b.X"), &writer).expect("b.T has the text");
    let flaw = resolve::can_read(&reader("a.X"), &writer).expect_err("a.T has a number").to_string();
    assert!(flaw.contains("$.second.t"), "{flaw}");
}

#[test]
fn large_unions_are_compared_and_hostile_ones_given_up() {
    // Each record holds the one before.
    let chain = || {
        let record = |index: usize| match index {
            0 => json!({"type": "record", "name": "T0", "fields": []}),
            _ => json!({"type": "record", "name": format!("T{index}"), "fields": [
                {"name": "a", "type": format!("T{}", index - 1)}]}),
        };
        schema(Value::Array((0..1_500).map(record).collect()))
    };
    chain().compatible_with(&chain()).expect("the same");
    // In a namespace each, so that by its simple name every record could be every other.
    let many = |ty: &str| {
        let record = |index: usize| json!({"type": "record", "name": format!("{ty}{index}.T"), "fields": [{"name": "a", "type": ty}]});
        schema(Value::Array((0..1_000).map(record).collect()))
    };
    many("int").compatible_with(&many("int")).expect("the same");
    let flaw = many("int").compatible_with(&many("boolean")).expect_err("no two fit").to_string();
    assert!(flaw.contains("is no branch of the union"), "{flaw}");
    // Each fits one other, which comes late: a million pairs would have to be looked at.
    let late = |namespace: &str, order: fn(usize) -> usize| {
        let record = |index: usize| {
            json!({"type": "record", "name": format!("{namespace}{index}.T"), "fields": [
                {"name": format!("f{}", order(index)), "type": "int"}]})
        };
        schema(Value::Array((0..1_000).map(record).collect()))
    };
    let flaw =
        late("a", |index| index).compatible_with(&late("b", |index| 999 - index)).expect_err("given up");
    assert!(flaw.to_string().contains("too large or too deep"), "{flaw}");
}
