//! Schemas and revisions through their life, through restarts and through crashes.

use std::sync::Arc;
use std::time::Duration;

use levada_core::{ManualClock, ProjectId, ResourceName};
use levada_disk::{Disk, SimDisk};
use levada_store::DocumentStore;
use serde_json::{Value, json};

use super::{MAX_REVISIONS, MAX_SCHEMAS, RegistryError, SchemaRegistry, stored};
use crate::pubsub::{Encoding, Language};

const DIR: &str = "schemas";
const NOW_MS: i64 = 1_700_000_000_000;

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    registry: SchemaRegistry,
}

fn documents(disk: &SimDisk) -> DocumentStore {
    DocumentStore::open(Arc::new(disk.clone()), DIR).expect("the store opens")
}

impl World {
    fn on(disk: SimDisk) -> Self {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let registry = SchemaRegistry::open(documents(&disk), clock.clone()).expect("the registry opens");
        Self { disk, clock, registry }
    }

    fn new() -> Self {
        Self::on(SimDisk::new(1))
    }

    fn create(&self, id: &str, fields: &[&str]) -> String {
        let made = self.registry.create(&name(id), Language::Avro, &record(fields));
        made.expect("the schema is created").id
    }

    fn commit(&self, id: &str, fields: &[&str]) -> Result<String, RegistryError> {
        self.clock.advance(Duration::from_millis(1));
        Ok(self.registry.commit(&name(id), Language::Avro, &record(fields))?.id)
    }

    fn ids(&self, id: &str) -> Vec<String> {
        let revisions = self.registry.revisions(&name(id)).expect("the schema is there");
        revisions.into_iter().map(|revision| revision.id).collect()
    }
}

fn name(id: &str) -> ResourceName {
    ResourceName::new(project(), id.parse().expect("an id"))
}

fn project() -> ProjectId {
    ProjectId::new("demo").expect("a project")
}

/// Fields of type int with a default, so that any two are compatible.
fn record(fields: &[&str]) -> String {
    let fields: Vec<Value> =
        fields.iter().map(|name| json!({"name": name, "type": "int", "default": 0})).collect();
    json!({"type": "record", "name": "R", "fields": fields}).to_string()
}

#[test]
fn a_schema_lives_through_its_calls() {
    let world = World::new();
    let first = world.create("orders", &["a"]);
    assert!(first.len() == 8 && first.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
    let made = world.registry.get(&name("orders"), None).expect("it is there");
    assert_eq!(
        (made.created_at_ms, made.language, &made.definition),
        (NOW_MS, Language::Avro, &record(&["a"]))
    );

    let second = world.commit("orders", &["a", "b"]).expect("compatible");
    assert_eq!(world.ids("orders"), [second.clone(), first.clone()], "newest first");
    assert_eq!(world.registry.get(&name("orders"), Some(&first)).expect("kept").definition, record(&["a"]));

    let back = world.registry.rollback(&name("orders"), &first).expect("rolled back");
    assert_eq!(back.definition, record(&["a"]));
    assert!(![&first, &second].contains(&&back.id), "under an id of its own");
    assert_eq!(world.registry.get(&name("orders"), None).expect("the latest"), back);

    let gone = world.registry.delete_revision(&name("orders"), &back.id).expect("deleted");
    assert_eq!(gone, back);
    assert_eq!(world.registry.get(&name("orders"), None).expect("the one before").id, second);
    world.registry.delete_revision(&name("orders"), &second).expect("deleted");
    let last = world.registry.delete_revision(&name("orders"), &first).expect_err("the only one");
    assert!(matches!(last, RegistryError::OnlyRevision { .. }));

    world.registry.delete(&name("orders")).expect("deleted");
    assert!(matches!(world.registry.get(&name("orders"), None), Err(RegistryError::NotFound(_))));
    assert!(documents(&world.disk).list("").expect("a list").is_empty(), "nothing is left on disk");
}

#[test]
fn refusals_say_why_and_change_nothing() {
    let world = World::new();
    let first = world.create("orders", &["a"]);
    let registry = &world.registry;
    let create =
        |id: &str, text: &str| registry.create(&name(id), Language::Avro, text).expect_err("refused");
    assert!(matches!(create("orders", &record(&["a"])), RegistryError::AlreadyExists(_)));
    assert!(matches!(create("other", "{"), RegistryError::Definition(_)));
    let commit = |id: &str, language: Language, text: &str| {
        registry.commit(&name(id), language, text).expect_err("refused")
    };
    assert!(matches!(commit("other", Language::Avro, "\"int\""), RegistryError::NotFound(_)));
    assert!(matches!(commit("orders", Language::Avro, "\"int"), RegistryError::Definition(_)));
    assert!(matches!(commit("orders", Language::Avro, "\"int\""), RegistryError::Incompatible { .. }));
    let mixed = commit("orders", Language::ProtocolBuffer, "message M {}");
    assert!(mixed.to_string().contains("a schema keeps its type"), "{mixed}");
    for revision in ["00000000", "", "x"] {
        let none = registry.rollback(&name("orders"), revision).expect_err("no such revision");
        assert!(matches!(none, RegistryError::RevisionNotFound { .. }));
        assert!(registry.get(&name("orders"), Some(revision)).is_err());
        assert!(registry.delete_revision(&name("orders"), revision).is_err());
    }
    assert_eq!(world.ids("orders"), [first]);
}

#[test]
fn a_revision_is_compared_with_every_one_that_is_kept() {
    let world = World::new();
    let proto = |fields: &str| format!("syntax = \"proto3\"; message M {{ {fields} }}");
    let commit = |fields: &str| {
        world.clock.advance(Duration::from_millis(1));
        world.registry.commit(&name("events"), Language::ProtocolBuffer, &proto(fields))
    };
    let create = proto("int32 a = 1; string b = 2;");
    let first =
        world.registry.create(&name("events"), Language::ProtocolBuffer, &create).expect("created").id;
    commit("int32 a = 1;").expect("an optional field goes");
    let reused = commit("int32 a = 1; int64 c = 2;").expect_err("its number comes back as something else");
    assert!(
        matches!(&reused, RegistryError::Incompatible { revision, .. } if *revision == first),
        "{reused}"
    );
    world.registry.delete_revision(&name("events"), &first).expect("deleted");
    commit("int32 a = 1; int64 c = 2;").expect("nothing speaks against it now");
}

#[test]
fn messages_are_checked_by_the_newest_revision_of_the_range_that_takes_them() {
    let world = World::new();
    let first = world.create("orders", &["a"]);
    let second = world.commit("orders", &["a", "b"]).expect("compatible");
    let third = world.commit("orders", &["a", "b", "c"]).expect("compatible");
    let check = |from: &str, to: &str, message: &str| {
        let checker = world.registry.checker(&name("orders"), from, to).expect("a range");
        let outcome = checker.check(Encoding::Json, message.as_bytes());
        outcome.map(str::to_owned).map_err(|(revision, flaw)| (revision.to_owned(), flaw.to_string()))
    };
    assert_eq!(check("", "", r#"{"a": 1, "b": 1, "c": 1}"#), Ok(third.clone()));
    assert_eq!(check("", "", r#"{"a": 1, "b": 1}"#), Ok(second.clone()));
    assert_eq!(check("", "", r#"{"a": 1}"#), Ok(first.clone()));
    assert_eq!(check("", &second, r#"{"a": 1, "b": 1, "c": 1}"#), Ok(second.clone()), "more fields are fine");
    let (tried, flaw) = check(&second, "", r#"{"a": 1}"#).expect_err("below the range");
    assert_eq!(tried, second);
    assert!(flaw.contains("the field `b` of R is missing"), "{flaw}");
    assert_eq!(check(&second, &second, r#"{"a": 1, "b": 1}"#), Ok(second.clone()));
    let range =
        |from: &str, to: &str| world.registry.checker(&name("orders"), from, to).expect_err("no range");
    assert!(matches!(range(&third, &first), RegistryError::EmptyRange { .. }));
    assert!(matches!(range("00000000", ""), RegistryError::RevisionNotFound { .. }));
    let latest = world.registry.latest(&name("orders")).expect("the latest");
    assert!(latest.check(Encoding::Json, br#"{"a": 1, "b": 1}"#).is_err());

    let ready =
        |world: &World| world.registry.ready_checker(&name("orders"), "", "").expect("a range").is_some();
    assert!(ready(&world), "what was committed is compiled");
    let world = World::on(world.disk.crash());
    assert!(!ready(&world), "after a restart nothing is");
    world.registry.checker(&name("orders"), "", "").expect("a range");
    assert!(ready(&world));
}

#[test]
fn schemas_are_listed_by_name_in_pages() {
    let world = World::new();
    for id in ["orders", "events", "Zebra", "a%2B+~x"] {
        world.create(id, &["a"]);
    }
    world.commit("orders", &["a", "b"]).expect("compatible");
    let page = |after: Option<&str>, size: usize| {
        let page = world.registry.list(&project(), after.map(name).as_ref(), size).expect("a page");
        let ids: Vec<String> = page.items.iter().map(|schema| schema.name.id.to_string()).collect();
        (ids, page.next.map(|name| name.id.to_string()))
    };
    assert_eq!(page(None, 10).0, ["Zebra", "a%2B+~x", "events", "orders"]);
    assert_eq!(page(None, 10).1, None);
    assert_eq!(page(None, 4).1, None, "the last page says so");
    assert_eq!(page(None, 2), (vec!["Zebra".into(), "a%2B+~x".into()], Some("a%2B+~x".into())));
    assert_eq!(page(Some("a%2B+~x"), 2), (vec!["events".into(), "orders".into()], None));
    assert_eq!(page(Some("zzz"), 2), (vec![], None));
    let latest = world.registry.list(&project(), Some(&name("events")), 1).expect("a page");
    assert_eq!(latest.items[0].definition, record(&["a", "b"]), "the latest revision");
    let other = ProjectId::new("other").expect("a project");
    assert!(world.registry.list(&other, None, 10).expect("a page").items.is_empty());
}

#[test]
fn large_definitions_end_a_page_early() {
    let world = World::new();
    let definition = format!("{}\"int\"", " ".repeat(290 << 10));
    for index in 0..20 {
        let id = format!("schema-{index:02}");
        world.registry.create(&name(&id), Language::Avro, &definition).expect("created");
    }
    let mut seen = 0;
    let mut after = None;
    let mut pages = 0;
    loop {
        let page = world.registry.list(&project(), after.as_ref(), 100).expect("a page");
        seen += page.items.len();
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (20, 2));
}

#[test]
fn revisions_and_schemas_are_bounded() {
    let world = World::new();
    let first = world.create("orders", &["a"]);
    for _ in 1..MAX_REVISIONS {
        world.commit("orders", &["a"]).expect("below the bound");
    }
    assert_eq!(world.ids("orders").len(), MAX_REVISIONS);
    let full = world.commit("orders", &["a"]).expect_err("at the bound");
    assert!(matches!(full, RegistryError::TooManyRevisions(_)));
    assert!(matches!(
        world.registry.rollback(&name("orders"), &first),
        Err(RegistryError::TooManyRevisions(_))
    ));
    world.registry.delete_revision(&name("orders"), &first).expect("deleted");
    world.commit("orders", &["a"]).expect("below the bound again");

    // The heads of a full project, put beside the registry to save the time of its calls.
    let store = documents(&world.disk);
    for index in 1..MAX_SCHEMAS {
        let head: Value = json!({"version": 1, "name": format!("demo/many-{index}"), "language": "avro",
            "revisions": [{"id": "0a0b0c0d", "created_at_ms": 0}]});
        store.put(&stored::head_name(&name(&format!("many-{index}"))), &head).expect("put");
    }
    let world = World::on(world.disk);
    let full = world.registry.create(&name("other"), Language::Avro, "\"int\"").expect_err("at the bound");
    assert!(matches!(full, RegistryError::TooManySchemas(_)));
    let elsewhere =
        ResourceName::new(ProjectId::new("other").expect("a project"), "orders".parse().expect("an id"));
    world.registry.create(&elsewhere, Language::Avro, "\"int\"").expect("another project has its own bound");
}

#[test]
fn a_crash_leaves_a_schema_as_it_was_before_a_call_or_after_it() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let world = World::on(disk.clone());
        let first = world.create("orders", &["a"]);
        let second = world.commit("orders", &["a", "b"]).expect("compatible");
        // The power goes within one of the writes that follow.
        disk.crash_after(seed % 24);
        let third = world.commit("orders", &["a", "b", "c"]);
        let deleted = world.registry.delete_revision(&name("orders"), &first);
        let disk = disk.crash();
        let world = World::on(disk.clone());
        let ids = world.ids("orders");
        assert!(ids.contains(&second), "seed {seed}: {ids:?}");
        if let Ok(third) = &third {
            assert!(ids.contains(third), "seed {seed}: an answered commit is lost");
        }
        if deleted.is_ok() {
            assert!(!ids.contains(&first), "seed {seed}: an answered deletion came back");
        }
        for revision in world.registry.revisions(&name("orders")).expect("all can be read") {
            assert_eq!(world.registry.get(&name("orders"), Some(&revision.id)).expect("readable"), revision);
        }
        let kept = documents(&disk).list("").expect("a list");
        assert_eq!(kept.len(), ids.len() + 1, "seed {seed}: no revision without a head stays: {kept:?}");
    }
}

#[test]
fn the_documents_are_those_of_the_golden_files() {
    let head = include_str!("../../../testdata/pubsub-head-1.json");
    let revision = include_str!("../../../testdata/pubsub-revision-1.json");
    let disk = SimDisk::new(1);
    let store = documents(&disk);
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("the golden file is JSON");
    let orders = name("orders");
    store.put(&stored::head_name(&orders), &json(head)).expect("put");
    store.put(&stored::revision_name(&orders, "0a0b0c0d"), &json(revision)).expect("put");
    let world = World::on(disk.clone());
    let read = world.registry.get(&orders, None).expect("the golden files are read");
    assert_eq!(
        (read.id.as_str(), read.created_at_ms, read.definition.as_str()),
        ("0a0b0c0d", NOW_MS, "\"int\"")
    );
    let kept = world.registry.head(&orders).expect("there");
    assert_eq!(serde_json::to_value(stored::Stored::head(&kept)).expect("JSON"), json(head));
    assert_eq!(serde_json::to_value(stored::Stored::revision("\"int\"")).expect("JSON"), json(revision));

    let mut newer = json(head);
    newer["version"] = json!(2);
    store.put(&stored::head_name(&orders), &newer).expect("put");
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let error = SchemaRegistry::open(documents(&disk), clock).expect_err("an unknown version");
    assert!(error.to_string().contains("format version 2 is not known"), "{error}");
    assert!(
        disk.metadata(&format!("{DIR}/{}.doc", stored::head_name(&orders))).is_ok(),
        "and it is left alone"
    );
}
