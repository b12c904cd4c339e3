//! What a file is by its first bytes, whatever its name says.

/// Bytes that are enough to tell.
pub(crate) const HEAD_BYTES: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing says that it is not text.
    Text,
    Gzip,
    /// Text in an encoding that is not UTF-8.
    Encoded(&'static str),
    /// Something else, as one says it after "the file is".
    Other(&'static str),
}

/// First bytes that no text of ours begins with.
const MAGIC: [(&[u8], &str); 12] = [
    (b"PK\x03\x04", "a ZIP archive (or an Excel workbook)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x28\xB5\x2F\xFD", "compressed with zstd"),
    (b"\xFD7zXZ\0", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive"),
    (b"\x04\x22\x4D\x18", "compressed with lz4"),
    (b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "an old Excel workbook"),
    (b"PAR1", "a Parquet file"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"SQLite format 3\0", "an SQLite database"),
];

/// Judges by the first bytes of a file: all of them, or [`HEAD_BYTES`].
pub(crate) fn kind(head: &[u8]) -> Kind {
    match head {
        [0x1F, 0x8B, ..] => return Kind::Gzip,
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return Kind::Encoded("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Kind::Encoded("UTF-16"),
        // No text has a NUL in every second place.
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] if *a != 0 && *b != 0 => return Kind::Encoded("UTF-16"),
        _ => {}
    }
    // A header may begin with `PAR1` or `ORC`; what follows tells.
    let is_binary = |c: &u8| *c < 9 || (14..32).contains(c) || *c >= 0x80;
    let binary = head.iter().any(is_binary);
    match MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, what)) if binary => Kind::Other(what),
        _ if head.get(257..262) == Some(b"ustar".as_slice()) => Kind::Other("a tar archive"),
        _ => Kind::Text,
    }
}

/// Whether the text may end here: its last bytes are `tail`.
pub(crate) fn may_end(tail: &[u8], json: bool) -> bool {
    let Some(last) = tail.last() else { return true };
    if !json {
        return *last == b'\n';
    }
    match tail.trim_ascii_end().last() {
        None | Some(b'}' | b']') => true,
        Some(b',' | b':' | b'{' | b'[') => false,
        Some(_) => *last == b'\n',
    }
}
