//! The bytes of a document's file, version 1: `LVDC`, version, checksum (CRC32C over name
//! and contents, so that a file under a wrong name is noticed), length, contents as JSON.
//! Numbers are 32 bit, little endian.

const MAGIC: &[u8; 4] = b"LVDC";
const VERSION: u32 = 1;
const HEADER: usize = 16;

fn checksum(name: &str, json: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), json)
}

pub(crate) fn encode(name: &str, json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + json.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&checksum(name, json).to_le_bytes());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(json);
    out
}

pub(crate) fn decode<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let Some((header, json)) = bytes.split_at_checked(HEADER) else { return Err("it is cut short") };
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if &header[..4] != MAGIC {
        return Err("it is not a document file");
    }
    if number(4) != VERSION {
        return Err("its format version is not known here");
    }
    if number(12) as usize != json.len() || number(8) != checksum(name, json) {
        return Err("it does not match its checksum");
    }
    Ok(json)
}
