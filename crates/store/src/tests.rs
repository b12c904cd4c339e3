//! Documents come back as they were put, through crashes, or as an error, never empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use levada_disk::{Disk, SimDisk, SimRng, SyncKind, read_all, write_atomic};
use levada_store::{DocumentStore, StoreError};

fn open(disk: &SimDisk) -> DocumentStore {
    DocumentStore::open(Arc::new(disk.clone()), "meta").unwrap()
}

#[test]
fn documents_are_put_replaced_listed_and_removed() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    assert_eq!(store.get::<u32>("a").unwrap(), None);
    assert!(!store.remove("keys/x").unwrap());
    store.put("a", &1).unwrap();
    store.put("a", &2).unwrap();
    store.put("keys/x", &vec!["one", "two"]).unwrap();
    store.put("keys/deep/y", &true).unwrap();
    assert_eq!(store.get("a").unwrap(), Some(2));
    assert_eq!(store.list("").unwrap(), ["a", "keys/deep/y", "keys/x"]);
    assert_eq!(store.list("keys/").unwrap(), ["keys/deep/y", "keys/x"]);
    assert!(matches!(store.get::<u32>("keys/x"), Err(StoreError::Unfit { .. })));
    assert!(store.remove("keys/x").unwrap());
    assert_eq!(open(&disk.crash()).list("keys").unwrap(), ["keys/deep/y"]);
}

#[test]
fn names_that_could_climb_or_hide_are_refused() {
    let store = open(&SimDisk::new(1));
    for name in ["", "..", "a/../b", "/a", "a/", "a//b", ".a", "a\0b", "a b", "é", &"a".repeat(201)] {
        assert!(matches!(store.put(name, &1), Err(StoreError::BadName { .. })), "{name:?}");
        assert!(matches!(store.get::<u32>(name), Err(StoreError::BadName { .. })), "{name:?}");
    }
}

#[test]
fn any_flipped_bit_of_document_and_copy_is_an_error_that_names_the_document() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put("a", &"text").unwrap();
    disk.remove("meta/a.copy").unwrap();
    let len = disk.metadata("meta/a.doc").unwrap().len;
    for at in 0..len {
        disk.flip_bit("meta/a.doc", at, 3).unwrap();
        match store.get::<String>("a") {
            Err(StoreError::Corrupt { name, .. }) => assert_eq!(name, "a"),
            other => panic!("byte {at}: {other:?}"),
        }
        disk.flip_bit("meta/a.doc", at, 3).unwrap();
    }
    assert_eq!(store.get("a").unwrap(), Some("text".to_owned()));
    disk.rename("meta/a.doc", "meta/b.doc").unwrap();
    assert!(matches!(store.get::<String>("b"), Err(StoreError::Corrupt { .. })));
    write_atomic(&disk, "meta/b.doc", b"LVDC").unwrap();
    assert!(matches!(store.get::<String>("b"), Err(StoreError::Corrupt { .. })));
    assert_eq!(
        open(&disk).damage().iter().map(|d| (d.name.as_str(), d.restored)).collect::<Vec<_>>(),
        [("b", false)]
    );
}

#[test]
fn a_document_that_is_damaged_or_gone_comes_back_from_its_copy_and_is_told_of() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put("a", &"old").unwrap();
    for at in 0..disk.metadata("meta/a.doc").unwrap().len {
        disk.flip_bit("meta/a.doc", at, 3).unwrap();
        assert_eq!(store.get("a").unwrap(), Some("old".to_owned()), "byte {at}");
    }
    store.put("a", &"new").unwrap();
    disk.remove("meta/a.doc").unwrap();
    let store = open(&disk.restart());
    assert_eq!(store.list("").unwrap(), ["a"]);
    assert_eq!(store.get("a").unwrap(), Some("new".to_owned()), "never an older one");
    assert_eq!(
        store.damage().iter().map(|d| (d.name.as_str(), d.reason, d.restored)).collect::<Vec<_>>(),
        [("a", "it is gone", true)]
    );
    assert!(store.remove("a").unwrap());
    assert_eq!(
        (store.get::<String>("a").unwrap(), store.list("").unwrap().len()),
        (None, 0),
        "what is removed stays so"
    );
}

#[test]
fn a_folder_of_before_gets_its_copies_when_it_is_opened() {
    let disk = SimDisk::new(1);
    open(&disk).put("keys/x", &1).unwrap();
    disk.remove("meta/keys/x.copy").unwrap();
    drop(open(&disk));
    disk.remove("meta/keys/x.doc").unwrap();
    assert_eq!(open(&disk).get("keys/x").unwrap(), Some(1));
}

#[test]
fn a_full_disk_keeps_the_old_document() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put("a", &1).unwrap();
    disk.set_capacity(Some(20));
    let error = store.put("a", &"a much longer text than fits").unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }) && error.is_retryable());
    assert_eq!(store.get("a").unwrap(), Some(1));
    disk.set_capacity(None);
    store.put("a", &2).unwrap();
    assert_eq!(store.get("a").unwrap(), Some(2));
}

#[test]
fn version_one_is_read_byte_for_byte() {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    store.put("keys/x", &BTreeMap::from([("n", 1)])).unwrap();
    let golden = include_bytes!("../testdata/keys-x.v1.doc");
    assert_eq!(read_all(&disk, "meta/keys/x.doc").unwrap(), golden);
    write_atomic(&disk, "meta/keys/x.doc", golden).unwrap();
    assert_eq!(store.get("keys/x").unwrap(), Some(BTreeMap::from([("n".to_owned(), 1)])));
}

/// Random puts and removes with a crash at a random operation; then every document is
/// what was last confirmed, or what was under way.
fn lives(seed: u64, skip: Option<(SyncKind, &str)>) -> Result<(), String> {
    let mut rng = SimRng::new(seed);
    let mut disk = SimDisk::new(rng.next_u64());
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    for _ in 0..4 {
        if let Some((kind, pattern)) = skip {
            disk.skip_syncs(kind, pattern);
        }
        disk.crash_after(rng.below(200));
        let mut under_way: Option<(String, Option<String>)> = None;
        if let Ok(store) = DocumentStore::open(Arc::new(disk.clone()), "meta") {
            let mut n = 0;
            while !disk.has_crashed() {
                n += 1;
                let name = format!("{}{}", ["", "x/"][rng.below(2) as usize], rng.below(3));
                let value =
                    (!rng.one_in(3)).then(|| format!("{seed} {n} {}", "v".repeat(rng.below(900) as usize)));
                let done = match &value {
                    Some(value) => store.put(&name, value).is_ok(),
                    None => store.remove(&name).is_ok(),
                };
                if !done {
                    under_way = Some((name, value));
                    break;
                }
                match value {
                    Some(value) => model.insert(name, value),
                    None => model.remove(&name),
                };
            }
        }
        disk = if rng.one_in(3) { disk.restart() } else { disk.crash() };
        let clean = disk.clone();
        let store = DocumentStore::open(Arc::new(clean), "meta").map_err(|e| format!("seed {seed}: {e}"))?;
        if let Some((name, value)) = under_way {
            let found = store.get::<String>(&name).map_err(|e| format!("seed {seed}: {e}"))?;
            if found == value {
                match value {
                    Some(value) => model.insert(name, value),
                    None => model.remove(&name),
                };
            }
        }
        // What has been read must stay, even when the power goes now.
        disk = disk.crash();
        let store =
            DocumentStore::open(Arc::new(disk.clone()), "meta").map_err(|e| format!("seed {seed}: {e}"))?;
        let names: Vec<String> = model.keys().cloned().collect();
        let found = store.list("").map_err(|e| format!("seed {seed}: {e}"))?;
        if found != names {
            return Err(format!("seed {seed}: {found:?} instead of {names:?}"));
        }
        for (name, value) in &model {
            if store.get::<String>(name).map_err(|e| format!("seed {seed}: {e}"))?.as_ref() != Some(value) {
                return Err(format!("seed {seed}: {name} is not what was put"));
            }
        }
    }
    Ok(())
}

#[test]
fn documents_survive_crashes_and_kills() {
    for seed in 0..1_500 {
        assert_eq!(lives(seed, None), Ok(()));
    }
}

fn is_noticed(kind: SyncKind, pattern: &str) -> bool {
    (0..500).any(|seed| lives(seed, Some((kind, pattern))).is_err())
}

#[test]
fn the_sync_of_a_documents_file_is_needed() {
    assert!(is_noticed(SyncKind::File, "meta/*.tmp"));
}

#[test]
fn the_sync_of_the_stores_folder_is_needed() {
    assert!(is_noticed(SyncKind::Dir, "meta"));
}

#[test]
fn the_sync_of_a_folder_below_is_needed() {
    assert!(is_noticed(SyncKind::Dir, "meta/x"));
}

#[test]
fn the_sync_after_a_removal_is_needed() {
    let comes_back = |skip: bool| {
        (0..100).any(|seed| {
            let disk = SimDisk::new(seed);
            let store = open(&disk);
            store.put("a", &1).unwrap();
            if skip {
                disk.skip_syncs(SyncKind::Dir, "meta");
            }
            store.remove("a").unwrap();
            open(&disk.crash()).get::<u32>("a").unwrap().is_some()
        })
    };
    assert!(!comes_back(false));
    assert!(comes_back(true));
}

#[test]
fn the_sync_at_opening_is_needed() {
    let vanishes = |skip: bool| {
        (0..100).any(|seed| {
            let disk = SimDisk::new(seed);
            let store = open(&disk);
            disk.skip_syncs(SyncKind::Dir, "meta");
            store.put("a", &1).unwrap();
            let disk = disk.restart();
            if skip {
                disk.skip_syncs(SyncKind::Dir, "meta");
            }
            assert_eq!(open(&disk).get("a").unwrap(), Some(1));
            open(&disk.crash()).get::<u32>("a").unwrap().is_none()
        })
    };
    assert!(!vanishes(false));
    assert!(vanishes(true));
}
