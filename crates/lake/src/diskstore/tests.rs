//! The store against the rules of object stores, on both disks.

use std::sync::Arc;

use futures::TryStreamExt;
use levada_disk::{Disk, RealDisk, SimDisk};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    RenameOptions, RenameTargetMode,
};

use super::DiskStore;

async fn on_both<F: AsyncFn(DiskStore)>(check: F) {
    check(DiskStore::open(Arc::new(SimDisk::new(1)), "store").unwrap()).await;
    let dir = tempfile::TempDir::new().unwrap();
    check(DiskStore::open(Arc::new(RealDisk::new(dir.path()).unwrap()), "store").unwrap()).await;
    let dir = tempfile::TempDir::new().unwrap();
    check(DiskStore::open(Arc::new(RealDisk::new(dir.path()).unwrap()), "").unwrap()).await;
}

async fn put(store: &DiskStore, path: &str, bytes: &[u8]) {
    store.put(&Path::from(path), PutPayload::from(bytes.to_vec())).await.unwrap();
}

async fn read(store: &DiskStore, path: &str) -> Result<Vec<u8>, Error> {
    Ok(store.get(&Path::from(path)).await?.bytes().await?.to_vec())
}

async fn names(store: &DiskStore, prefix: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(Path::from);
    let found: Vec<_> = store.list(prefix.as_ref()).try_collect().await.unwrap();
    found.into_iter().map(|meta| meta.location.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_is_got_whole_and_in_parts() {
    on_both(async |store| {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        put(&store, "a/b/c.bin", &bytes).await;
        assert_eq!(read(&store, "a/b/c.bin").await.unwrap(), bytes);
        let at = Path::from("a/b/c.bin");
        for range in [0..10, 999_999..1_000_001, 2_999_990..3_000_000] {
            let part = store.get_range(&at, range.clone()).await.unwrap();
            assert_eq!(part, bytes[range.start as usize..range.end as usize]);
        }
        let parts = store.get_ranges(&at, &[5..7, 100..200]).await.unwrap();
        assert_eq!((parts[0].as_ref(), parts[1].as_ref()), (&bytes[5..7], &bytes[100..200]));
        for (range, wanted) in
            [(GetRange::Suffix(3), 2_999_997..3_000_000), (GetRange::Offset(2_999_998), 2_999_998..3_000_000)]
        {
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            let got = store.get_opts(&at, options).await.unwrap();
            assert_eq!(got.range, wanted);
            assert_eq!(got.bytes().await.unwrap(), bytes[wanted.start as usize..]);
        }
        assert!(store.get_range(&at, 3_000_000..3_000_001).await.is_err(), "a start beyond the end");
        let head = store.head(&at).await.unwrap();
        assert_eq!(head.size, 3_000_000);
        let same = GetOptions { if_match: head.e_tag.clone(), ..GetOptions::default() };
        assert!(store.get_opts(&at, same).await.is_ok());
        let other = GetOptions { if_none_match: head.e_tag, ..GetOptions::default() };
        assert!(matches!(store.get_opts(&at, other).await, Err(Error::NotModified { .. })));
        put(&store, "empty", b"").await;
        assert_eq!(read(&store, "empty").await.unwrap(), b"");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_never_replaces_and_overwrite_does() {
    on_both(async |store| {
        let at = Path::from("x/1.json");
        assert!(store.put_opts(&at, "one".into(), PutMode::Create.into()).await.is_ok());
        let again = store.put_opts(&at, "two".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        assert_eq!(read(&store, "x/1.json").await.unwrap(), b"one");
        put(&store, "x/1.json", b"three").await;
        assert_eq!(read(&store, "x/1.json").await.unwrap(), b"three");
        assert!(matches!(read(&store, "x/2.json").await, Err(Error::NotFound { .. })));
        assert!(
            matches!(store.head(&Path::from("x")).await, Err(Error::NotFound { .. })),
            "a directory is no object"
        );
        assert_eq!(names(&store, None).await, ["x/1.json"], "nothing unfinished is listed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_is_sorted_and_bounded_by_prefix_and_offset() {
    on_both(async |store| {
        for path in ["t/_delta_log/00.json", "t/_delta_log/01.json", "t/p=1/b", "t/p=1/a", "t/z", "tt/x"] {
            put(&store, path, b"1").await;
        }
        assert_eq!(
            names(&store, Some("t")).await,
            ["t/_delta_log/00.json", "t/_delta_log/01.json", "t/p=1/a", "t/p=1/b", "t/z"]
        );
        assert_eq!(names(&store, Some("nowhere")).await, Vec::<String>::new());
        let offset = Path::from("t/_delta_log/00.json");
        let after: Vec<_> =
            store.list_with_offset(Some(&Path::from("t/_delta_log")), &offset).try_collect().await.unwrap();
        assert_eq!(after.len(), 1);
        let level = store.list_with_delimiter(Some(&Path::from("t"))).await.unwrap();
        let prefixes: Vec<String> = level.common_prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(prefixes, ["t/_delta_log", "t/p=1"]);
        assert_eq!(level.objects.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_deleted_copied_and_renamed() {
    on_both(async |store| {
        put(&store, "a", b"a").await;
        put(&store, "b", b"b").await;
        let (a, b, c) = (Path::from("a"), Path::from("b"), Path::from("d/c"));
        store.copy(&a, &c).await.unwrap();
        store.copy(&b, &c).await.unwrap();
        assert_eq!(read(&store, "d/c").await.unwrap(), b"b");
        let create = CopyOptions::new().with_mode(CopyMode::Create);
        assert!(matches!(store.copy_opts(&a, &c, create).await, Err(Error::AlreadyExists { .. })));
        put(&store, "b", b"changed").await;
        assert_eq!(read(&store, "d/c").await.unwrap(), b"b", "a copy is on its own");
        let create = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
        assert!(store.rename_opts(&a, &c, create).await.is_err());
        store.rename(&a, &c).await.unwrap();
        assert_eq!(names(&store, None).await, ["b", "d/c"]);
        assert_eq!(read(&store, "d/c").await.unwrap(), b"a");
        store.delete(&c).await.unwrap();
        assert!(matches!(store.delete(&c).await, Err(Error::NotFound { .. })));
        assert_eq!(names(&store, None).await, ["b"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_appears_when_it_is_complete() {
    on_both(async |store| {
        let at = Path::from("big/one");
        let mut upload = store.put_multipart(&at).await.unwrap();
        let first = upload.put_part(vec![1u8; 1000].into());
        let second = upload.put_part(vec![2u8; 500].into());
        second.await.unwrap();
        first.await.unwrap();
        assert!(read(&store, "big/one").await.is_err());
        upload.complete().await.unwrap();
        let bytes = read(&store, "big/one").await.unwrap();
        assert_eq!((bytes.len(), bytes[999], bytes[1000]), (1500, 1, 2));
        let mut upload = store.put_multipart(&at).await.unwrap();
        upload.put_part(vec![3u8; 10].into()).await.unwrap();
        upload.abort().await.unwrap();
        assert_eq!(read(&store, "big/one").await.unwrap().len(), 1500);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_operation_survives_a_power_cut() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let store = DiskStore::open(Arc::new(disk.clone()), "store").unwrap();
        put(&store, "a/1", b"one").await;
        put(&store, "a/2", b"two").await;
        put(&store, "a/1", b"uno").await;
        store.rename(&Path::from("a/2"), &Path::from("b/2")).await.unwrap();
        store.copy(&Path::from("a/1"), &Path::from("c/1")).await.unwrap();
        store.delete(&Path::from("a/1")).await.unwrap();
        let mut upload = store.put_multipart(&Path::from("d/3")).await.unwrap();
        upload.put_part("three".into()).await.unwrap();
        upload.complete().await.unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk.crash());
        let store = DiskStore::open(disk, "store").unwrap();
        assert_eq!(names(&store, None).await, ["b/2", "c/1", "d/3"], "seed {seed}");
        assert_eq!(read(&store, "c/1").await.unwrap(), b"uno", "seed {seed}");
        assert_eq!(read(&store, "b/2").await.unwrap(), b"two", "seed {seed}");
        assert_eq!(read(&store, "d/3").await.unwrap(), b"three", "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unfinished_write_leaves_is_swept_at_open() {
    let disk = SimDisk::new(5);
    let store = DiskStore::open(Arc::new(disk.clone()), "store").unwrap();
    let mut upload = store.put_multipart(&Path::from("x")).await.unwrap();
    upload.put_part("lost".into()).await.unwrap();
    assert_eq!(disk.list("store/.tmp").unwrap().len(), 1);
    let store = DiskStore::open(Arc::new(disk.clone()), "store").unwrap();
    assert!(disk.list("store/.tmp").unwrap().is_empty());
    assert!(names(&store, None).await.is_empty());
}
