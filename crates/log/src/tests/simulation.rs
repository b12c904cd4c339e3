//! Seeded crashes: whatever was confirmed is there exactly once, in order, and nothing
//! else is; and each single fsync is needed for that.
//!
//! `LEVADA_SEED=n` runs one seed again, `LEVADA_CASES=n` runs so many.

use super::sim::{Faults, is_noticed, run, seeds};
use levada_disk::SyncKind;

fn check(default_cases: u64, faults: Faults) {
    for seed in seeds(default_cases) {
        if let Err(error) = run(seed, None, faults) {
            panic!("{error}; run it again with LEVADA_SEED={seed}");
        }
    }
}

#[test]
fn what_was_confirmed_survives_crashes_and_kills() {
    check(2_500, Faults::None);
}

#[test]
fn what_was_confirmed_survives_full_disks_and_failed_syncs_too() {
    check(2_500, Faults::DiskFullAndSyncErrors);
}

#[test]
fn the_sync_of_commit_data_is_needed() {
    assert!(is_noticed(SyncKind::File, "log/commit/*"));
}

#[test]
fn the_sync_of_the_commit_folder_is_needed() {
    assert!(is_noticed(SyncKind::Dir, "log/commit"));
}

#[test]
fn the_sync_of_segment_data_is_needed() {
    assert!(is_noticed(SyncKind::File, "log/topics/*.seg"));
}

#[test]
fn the_sync_of_index_files_is_needed() {
    assert!(is_noticed(SyncKind::File, "log/topics/*.idx"));
}

#[test]
fn the_sync_of_a_topics_folder_is_needed() {
    assert!(is_noticed(SyncKind::Dir, "log/topics/*"));
}

#[test]
fn the_sync_of_the_folder_of_topics_is_needed() {
    assert!(is_noticed(SyncKind::Dir, "log/topics"));
}

#[test]
fn the_sync_of_the_whole_file_system_is_needed() {
    assert!(is_noticed(SyncKind::Everything, ""));
}

#[test]
fn the_sync_of_registered_names_is_needed() {
    assert!(is_noticed(SyncKind::File, "log/registry"));
}

#[test]
fn the_sync_of_the_rewritten_registry_is_needed() {
    assert!(is_noticed(SyncKind::File, "log/registry.tmp"));
}

#[test]
fn the_sync_of_the_checkpoint_is_needed() {
    assert!(is_noticed(SyncKind::File, "log/checkpoint.tmp"));
}

#[test]
fn the_sync_of_the_logs_folder_is_needed() {
    assert!(is_noticed(SyncKind::Dir, "log"));
}

#[test]
fn the_sync_of_the_folder_above_the_log_is_needed() {
    assert!(is_noticed(SyncKind::Dir, ""));
}
