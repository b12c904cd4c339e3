//! The simulated disk loses what it should lose, and `write_atomic` withstands it.

use levada_disk::{
    Disk, Fault, FaultError, OpKind, OpenMode, SimDisk, SyncKind, create_dir_durable, is_disk_full, read_all,
    write_atomic,
};

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) {
    disk.open(path, OpenMode::Write).unwrap().write_at(0, bytes).unwrap();
}

fn sync(disk: &SimDisk, path: &str) -> std::io::Result<()> {
    disk.open(path, OpenMode::Write).unwrap().sync_data()
}

#[test]
fn a_synced_name_and_file_survive_every_crash() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        write(&disk, "f", &[7; 3000]);
        sync(&disk, "f").unwrap();
        disk.sync_dir("").unwrap();
        write(&disk, "g", b"unsynced");
        assert_eq!(read_all(&disk.crash(), "f").unwrap(), [7; 3000], "seed {seed}");
    }
}

#[test]
fn unsynced_writes_are_kept_lost_or_torn_by_the_seed() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        write(&disk, "f", &[0; 4096]);
        sync(&disk, "f").unwrap();
        disk.sync_dir("").unwrap();
        write(&disk, "f", &[1; 4096]);
        let after = read_all(&disk.crash(), "f").unwrap();
        match after.iter().filter(|b| **b == 1).count() {
            0 => lost += 1,
            4096 => kept += 1,
            n => {
                assert_eq!(n % 512, 0, "seed {seed}: torn inside a sector");
                torn += 1;
            }
        }
    }
    assert!(kept > 20 && lost > 20 && torn > 20, "kept {kept} lost {lost} torn {torn}");
}

#[test]
fn an_unsynced_name_can_be_lost_although_its_file_was_synced() {
    let survived = (0..100).filter(|seed| {
        let disk = SimDisk::new(*seed);
        write(&disk, "f", b"x");
        sync(&disk, "f").unwrap();
        disk.crash().metadata("f").is_ok()
    });
    let survived = survived.count();
    assert!((1..100).contains(&survived), "{survived}");
}

#[test]
fn a_failed_sync_loses_the_data_though_it_is_still_read() {
    let disk = SimDisk::new(3);
    write(&disk, "f", b"old");
    sync(&disk, "f").unwrap();
    disk.sync_dir("").unwrap();
    disk.fail(Fault { kind: OpKind::SyncData, path: "f".into(), nth: 1, error: FaultError::Io });
    write(&disk, "f", b"new");
    assert_eq!(sync(&disk, "f").unwrap_err().raw_os_error(), Some(5));
    sync(&disk, "f").expect("the second sync claims success, as on Linux");
    let killed = disk.restart();
    assert_eq!(read_all(&killed, "f").unwrap(), b"new", "the page cache still has it");
    assert_eq!(read_all(&killed.crash(), "f").unwrap(), b"old");
}

#[test]
fn a_kill_keeps_the_page_cache_and_stops_the_old_process() {
    let disk = SimDisk::new(4);
    write(&disk, "f", b"text");
    let killed = disk.restart();
    assert_eq!(read_all(&killed, "f").unwrap(), b"text");
    assert!(disk.open("f", OpenMode::Read).is_err());
}

#[test]
fn faults_hit_the_planned_operation_only() {
    let disk = SimDisk::new(5);
    write(&disk, "f", b"1");
    disk.fail(Fault { kind: OpKind::Write, path: "f".into(), nth: 2, error: FaultError::DiskFull });
    let file = disk.open("f", OpenMode::Write).unwrap();
    file.write_at(0, b"2").unwrap();
    assert!(is_disk_full(&file.write_at(0, b"3").unwrap_err()));
    file.write_at(0, b"4").unwrap();
    disk.set_capacity(Some(4));
    file.write_at(0, b"1234").unwrap();
    assert!(is_disk_full(&file.write_at(1, b"1234").unwrap_err()));
    assert_eq!(disk.free_bytes().unwrap(), 0);
    disk.set_capacity(None);
    file.write_at(1, b"1234").unwrap();
    disk.flip_bit("f", 0, 0).unwrap();
    assert_eq!(read_all(&disk, "f").unwrap(), b"01234");
    disk.crash_after(1);
    file.write_at(0, b"x").unwrap();
    assert!(file.write_at(0, b"x").is_err() && disk.has_crashed());
}

/// Replaces a document many times with a crash at every operation in turn; a reader
/// must find the last confirmed text or the one being written.
fn torn_document(skip: Option<(SyncKind, &str)>) -> Option<u64> {
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        create_dir_durable(&disk, "d").unwrap();
        if let Some((kind, pattern)) = skip {
            disk.skip_syncs(kind, pattern);
        }
        disk.crash_after(1 + seed % 40);
        let text = |n: u32| format!("version {n} {}", "x".repeat(1200)).into_bytes();
        let mut confirmed = 0;
        while write_atomic(&disk, "d/doc", &text(confirmed + 1)).is_ok() {
            confirmed += 1;
        }
        let found = read_all(&disk.crash(), "d/doc").unwrap_or_default();
        let right = found == text(confirmed) || found == text(confirmed + 1);
        if !right && (confirmed > 0 || !found.is_empty()) {
            return Some(seed);
        }
    }
    None
}

#[test]
fn write_atomic_is_atomic_and_durable() {
    assert_eq!(torn_document(None), None, "lost or torn at this seed");
}

#[test]
fn write_atomic_needs_the_sync_of_its_file() {
    assert!(torn_document(Some((SyncKind::File, "d/doc.tmp"))).is_some());
}

#[test]
fn write_atomic_needs_the_sync_of_its_folder() {
    assert!(torn_document(Some((SyncKind::Dir, "d"))).is_some());
}

#[test]
fn create_dir_durable_covers_folders_that_a_killed_process_left() {
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        disk.create_dir_all("a/b").unwrap();
        let disk = disk.restart();
        create_dir_durable(&disk, "a/b").unwrap();
        assert!(disk.crash().metadata("a/b").is_ok(), "seed {seed}");
    }
}

#[test]
fn create_dir_durable_needs_the_sync_of_each_folder_above() {
    let survives = |skip: Option<&str>| {
        (0..100).all(|seed| {
            let disk = SimDisk::new(seed);
            if let Some(path) = skip {
                disk.skip_syncs(SyncKind::Dir, path);
            }
            create_dir_durable(&disk, "a/b/c").unwrap();
            disk.crash().metadata("a/b/c").is_ok()
        })
    };
    assert!(survives(None));
    for site in ["", "a", "a/b"] {
        assert!(!survives(Some(site)), "{site:?}");
    }
}
