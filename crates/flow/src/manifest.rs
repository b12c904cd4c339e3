//! The manifest: what one epoch did, in one durable file.
//!
//! ```text
//! "LVDEPOCH" | version u32 | meta (JSON) | letters | windows | shares | crc32c u32 of all before
//! meta, letters and each name and value of windows are length-prefixed (u64); counts are u64
//! ```
//!
//! A snapshot of the windows has the same form with the magic `LVDSTATE`, without letters and
//! shares. The format is stored for good: a golden file holds each version still.
//!
//! Version 1 had no shares, and in its meta neither a time nor steps.

use std::ops::RangeInclusive;
use std::sync::Arc;

use levada_lake::StagedFile;
use serde::{Deserialize, Serialize};

use crate::codec::{Reader, put_bytes};
use crate::counts::StepFigures;
use crate::letter::{self, Letter};
use crate::shares::Shares;

/// A kind of file: its first bytes and the versions that can be read. The last one is written.
struct Form {
    magic: &'static [u8; 8],
    versions: RangeInclusive<u32>,
}

const MANIFEST: Form = Form { magic: b"LVDEPOCH", versions: 1..=2 };
const SNAPSHOT: Form = Form { magic: b"LVDSTATE", versions: 1..=1 };
/// The first version that tells tenants apart.
const WITH_SHARES: u32 = 2;

/// Encoded windows by name.
pub type WindowBytes = Vec<(String, Vec<u8>)>;

/// Figures since the pipeline's first epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub records_in: u64,
    pub rows_out: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.records_in += other.records_in;
        self.rows_out += other.rows_out;
        self.duplicates += other.duplicates;
        self.dead_letters += other.dead_letters;
    }
}

/// What an epoch is, besides letters and window deltas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub epoch: u64,
    /// The snapshot on which the deltas up to this epoch build: 0 for none, the epoch itself
    /// where nothing is needed.
    pub base: u64,
    /// Where the epoch began; absent is the start of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<serde_json::Value>,
    /// The source's position after the epoch.
    pub position: serde_json::Value,
    /// Records between the two, rejects not counted.
    pub records: u64,
    /// Durable files that the epoch adds to its table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<StagedFile>,
    /// Where the dead-letter topic ended before the letters of this epoch were sent.
    pub dead_from: u64,
    pub totals: Totals,
    /// When the epoch was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
    /// What each step did since the pipeline's first epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepFigures>,
}

/// One epoch, decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub meta: Meta,
    pub letters: Vec<Letter>,
    pub deltas: WindowBytes,
    /// The totals by tenant. Version 1 did not tell tenants apart.
    pub shares: Arc<Shares>,
}

impl Manifest {
    /// # Errors
    /// When a value has no JSON form, which is a defect.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = header(&MANIFEST);
        put_bytes(&mut out, &serde_json::to_vec(&self.meta)?);
        letter::encode(&self.letters, &mut out)?;
        put_windows(&mut out, &self.deltas);
        self.shares.encode(&mut out);
        Ok(sealed(out))
    }

    /// # Errors
    /// A sentence that says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (version, mut reader) = opened(bytes, &MANIFEST)?;
        let cut = || "a length in it is wrong".to_owned();
        let meta = reader.bytes().ok_or_else(cut)?;
        let meta: Meta = serde_json::from_slice(meta).map_err(|e| e.to_string())?;
        let letters = letter::decode(&mut reader).ok_or_else(cut)?;
        let deltas = windows(&mut reader).ok_or_else(cut)?;
        let shares = match version {
            WITH_SHARES.. => Shares::decode(&mut reader).ok_or_else(cut)?,
            _ => Shares::untold(meta.totals),
        };
        Ok(Self { meta, letters, deltas, shares: Arc::new(shares) })
    }
}

/// Encodes a snapshot of all windows.
pub fn encode_snapshot(state: &WindowBytes) -> Vec<u8> {
    let mut out = header(&SNAPSHOT);
    put_windows(&mut out, state);
    sealed(out)
}

/// # Errors
/// A sentence that says what is wrong with the bytes.
pub fn decode_snapshot(bytes: &[u8]) -> Result<WindowBytes, String> {
    let (_, mut reader) = opened(bytes, &SNAPSHOT)?;
    windows(&mut reader).ok_or_else(|| "a length in it is wrong".to_owned())
}

fn header(form: &Form) -> Vec<u8> {
    let mut out = form.magic.to_vec();
    out.extend_from_slice(&form.versions.end().to_le_bytes());
    out
}

fn sealed(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn opened<'a>(bytes: &'a [u8], form: &Form) -> Result<(u32, Reader<'a>), String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum does not match".to_owned());
    }
    let rest = body.strip_prefix(form.magic).ok_or("it begins with something else")?;
    let mut reader = Reader(rest);
    match reader.u32() {
        Some(version) if form.versions.contains(&version) => Ok((version, reader)),
        version => {
            let known = form.versions.end();
            Err(format!("its version is {version:?}, and this program knows those up to {known}"))
        }
    }
}

fn put_windows(out: &mut Vec<u8>, windows: &WindowBytes) {
    out.extend_from_slice(&(windows.len() as u64).to_le_bytes());
    for (name, bytes) in windows {
        put_bytes(out, name.as_bytes());
        put_bytes(out, bytes);
    }
}

fn windows(reader: &mut Reader<'_>) -> Option<WindowBytes> {
    let count = reader.u64()?;
    let mut windows = Vec::new();
    for _ in 0..count {
        let name = std::str::from_utf8(reader.bytes()?).ok()?.to_owned();
        windows.push((name, reader.bytes()?.to_vec()));
    }
    Some(windows)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use levada_core::TenantId;

    use super::*;
    use crate::counts::StepCounts;
    use crate::letter::About;

    fn sample() -> Manifest {
        let about = About {
            tenant: TenantId::default_tenant(),
            code: "schema-type".into(),
            reason: "`n` should be a 64-bit integer, not \"x\"".into(),
            stage: "validate".into(),
            attempts: 1,
            position: "41".into(),
            resendable: true,
        };
        let file = StagedFile {
            path: "part-1.parquet".into(),
            size_bytes: 512,
            rows: 3,
            partition_values: std::collections::BTreeMap::new(),
            stats: "{\"numRecords\":3}".into(),
            modified_ms: 1_700_000_000_000,
            blocks: None,
        };
        Manifest {
            meta: Meta {
                epoch: 7,
                base: 4,
                from: Some(serde_json::json!({"offset": 40})),
                position: serde_json::json!({"offset": 45}),
                records: 5,
                files: vec![file],
                dead_from: 2,
                totals: Totals { records_in: 45, rows_out: 40, duplicates: 3, dead_letters: 2 },
                at_ms: Some(1_700_000_000_123),
                steps: vec![step("validate", 45, 43, 0, 2), step("deduplicate", 43, 40, 3, 0)],
            },
            letters: vec![Letter {
                about,
                attributes: [("event_id", "e-1")].into_iter().collect(),
                body: Bytes::from_static(b"{\"n\":\"x\"}"),
            }],
            deltas: vec![("deduplicate:id".into(), (0u8..48).collect())],
            shares: Arc::new(shares()),
        }
    }

    fn step(name: &str, rows_in: u64, rows_out: u64, dropped: u64, dead: u64) -> StepFigures {
        StepFigures { name: name.into(), counts: StepCounts { rows_in, rows_out, dropped, dead } }
    }

    fn shares() -> Shares {
        let tenant = |name| TenantId::new(name).expect("a tenant");
        let mut epoch = Shares::default();
        *epoch.totals_of(&tenant("a")) =
            Totals { records_in: 30, rows_out: 28, duplicates: 1, dead_letters: 1 };
        *epoch.totals_of(&tenant("b")) =
            Totals { records_in: 12, rows_out: 10, duplicates: 2, dead_letters: 0 };
        let mut shares =
            Shares::untold(Totals { records_in: 3, rows_out: 2, duplicates: 0, dead_letters: 1 });
        shares.add(&epoch, 7, 1_700_000_000_123);
        shares
    }

    #[test]
    fn a_manifest_of_version_1_reads_as_it_was_written() {
        let golden = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/manifest-v1.bin"));
        let mut old = sample();
        (old.meta.at_ms, old.meta.steps) = (None, Vec::new());
        old.shares = Arc::new(Shares::untold(old.meta.totals));
        assert_eq!(Manifest::decode(&golden.expect("the golden file")), Ok(old));
    }

    #[test]
    fn a_manifest_of_version_2_reads_as_it_was_written() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/manifest-v2.bin");
        let written = sample().encode().expect("encodes");
        if std::env::var_os("LEVADA_BLESS").is_some() {
            std::fs::write(path, &written).expect("writes the golden file");
        }
        let golden = std::fs::read(path).expect("the golden file");
        assert_eq!(Manifest::decode(&golden).as_ref(), Ok(&sample()));
        assert_eq!(written, golden, "the format changed without a new version");
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = sample().encode().expect("encodes");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(Manifest::decode(&bad).is_err(), "bit of byte {at}");
            assert!(Manifest::decode(&good[..at]).is_err(), "cut at {at}");
        }
        let state = vec![("w".to_owned(), vec![1, 2, 3])];
        let snapshot = encode_snapshot(&state);
        assert_eq!(decode_snapshot(&snapshot), Ok(state));
        assert!(Manifest::decode(&snapshot).is_err(), "a snapshot is no manifest");
    }
}
