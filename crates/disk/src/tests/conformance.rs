//! One suite for both disks, so that what is proven on the simulated one means
//! something on the real one.

use std::io::ErrorKind;
use std::sync::Arc;

use levada_disk::{
    Disk, OpenMode, RealDisk, SimDisk, create_dir_durable, read_all, read_exact_at, write_atomic,
};

fn on_both(check: impl Fn(Arc<dyn Disk>)) {
    check(Arc::new(SimDisk::new(1)));
    let folder = tempfile::tempdir().unwrap();
    check(Arc::new(RealDisk::new(folder.path().join("data")).unwrap()));
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|e| e.kind())
}

#[test]
fn files_are_read_and_written_at_positions() {
    on_both(|disk| {
        assert_eq!(kind(disk.open("f", OpenMode::Read)), Some(ErrorKind::NotFound));
        assert_eq!(kind(disk.open("f", OpenMode::Existing)), Some(ErrorKind::NotFound));
        let file = disk.open("f", OpenMode::Write).unwrap();
        file.write_at(3, b"abc").unwrap();
        assert_eq!(read_all(&*disk, "f").unwrap(), b"\0\0\0abc");
        file.write_at(4, b"X").unwrap();
        let mut buf = [0; 8];
        assert_eq!(file.read_at(3, &mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"aXc");
        assert_eq!(file.read_at(6, &mut buf).unwrap(), 0);
        assert_eq!(kind(read_exact_at(&*file, 4, &mut buf)), Some(ErrorKind::UnexpectedEof));
        file.set_len(4).unwrap();
        assert_eq!(file.len().unwrap(), 4);
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        assert_eq!(kind(disk.open("f", OpenMode::CreateNew)), Some(ErrorKind::AlreadyExists));
        let reader = disk.open("f", OpenMode::Read).unwrap();
        assert!(reader.write_at(0, b"x").is_err());
        disk.remove("f").unwrap();
        assert_eq!(reader.len().unwrap(), 4, "an open handle outlives the name");
        assert_eq!(kind(disk.remove("f")), Some(ErrorKind::NotFound));
    });
}

#[test]
fn names_are_listed_moved_and_linked() {
    on_both(|disk| {
        assert_eq!(kind(disk.list("a/b")), Some(ErrorKind::NotFound));
        assert_eq!(kind(disk.open("a/b/f", OpenMode::Write)), Some(ErrorKind::NotFound));
        disk.create_dir_all("a/b").unwrap();
        disk.create_dir_all("a/b").unwrap();
        disk.open("a/b/f", OpenMode::Write).unwrap().write_at(0, b"one").unwrap();
        disk.open("a/g", OpenMode::Write).unwrap().write_at(0, b"second").unwrap();
        disk.link_new("a/b/f", "a/h").unwrap();
        assert_eq!(kind(disk.link_new("a/b/f", "a/g")), Some(ErrorKind::AlreadyExists));
        disk.rename("a/h", "a/g").unwrap();
        assert_eq!(read_all(&*disk, "a/g").unwrap(), b"one");
        let listed: Vec<_> = disk.list("a").unwrap().into_iter().map(|e| (e.name, e.is_dir, e.len)).collect();
        assert_eq!(listed, [("b".into(), true, 0), ("g".into(), false, 3)]);
        assert!(disk.list("").unwrap().iter().any(|e| e.name == "a"));
        assert_eq!(disk.metadata("a/g").unwrap().len, 3);
        for dir in ["a/b", "a", ""] {
            disk.sync_dir(dir).unwrap();
        }
        disk.sync_everything().unwrap();
        assert!(disk.free_bytes().unwrap() > 0);
    });
}

#[test]
fn no_path_leaves_the_root() {
    on_both(|disk| {
        for path in ["../x", "/etc/passwd", "a/../b", "a//b", "./a", "a/", "a\0"] {
            assert_eq!(kind(disk.open(path, OpenMode::Write)), Some(ErrorKind::InvalidInput), "{path:?}");
            assert_eq!(kind(disk.rename("a", path)), Some(ErrorKind::InvalidInput), "{path:?}");
            assert_eq!(kind(disk.create_dir_all(path)), Some(ErrorKind::InvalidInput), "{path:?}");
        }
    });
}

#[test]
fn atomic_writes_replace_whole_files() {
    on_both(|disk| {
        create_dir_durable(&*disk, "x/y").unwrap();
        create_dir_durable(&*disk, "x/y").unwrap();
        write_atomic(&*disk, "x/y/doc", b"a longer first text").unwrap();
        write_atomic(&*disk, "x/y/doc", b"short").unwrap();
        assert_eq!(read_all(&*disk, "x/y/doc").unwrap(), b"short");
        assert_eq!(disk.list("x/y").unwrap().len(), 1, "no temporary file stays");
    });
}
