//! Where the commit log ends after a power loss.
//!
//! Groups that were written without a sync between them may be on disk in part, a later one
//! without an earlier one. A group's header tells how many before it were not durable yet, so
//! a missing group was durable once exactly when some group that was written later says so.

use levada_disk::{Disk, OpenMode};

use crate::format::{BLOCK, COMMIT_HEADER, CommitHeader, GROUP_HEADER, GroupHeader};
use crate::scan::Window;
use crate::shared::commit_path;

/// Whether a group that is missing was durable once, by what stands at and behind a position
/// in the first of these files.
pub(crate) fn was_durable(
    disk: &dyn Disk,
    dir: &str,
    seqs: impl Iterator<Item = u64>,
    from: u64,
    missing: u64,
) -> std::io::Result<bool> {
    let mut at = from;
    for seq in seqs {
        let file = disk.open(&commit_path(dir, seq), OpenMode::Read)?;
        let len = file.len()?;
        let mut window = Window::new(&*file, len);
        if let Some(salt) = salt(&mut window, seq)? {
            while at + GROUP_HEADER as u64 <= len {
                let header = GroupHeader::parse(window.get(at, GROUP_HEADER)?)
                    .filter(|h| h.salt == salt && h.file_seq == seq && h.seq > missing);
                match header {
                    Some(header) if header.durable_before() > missing => return Ok(true),
                    Some(header) => at += header.blocks_len(),
                    None => at += BLOCK as u64,
                }
            }
        }
        at = BLOCK as u64;
    }
    Ok(false)
}

/// The salt of a commit file; when its header is damaged, that of its first group. `None`
/// when the file was never put into use.
pub(crate) fn salt(window: &mut Window<'_>, seq: u64) -> std::io::Result<Option<u64>> {
    let header = CommitHeader::parse(window.get(0, COMMIT_HEADER)?).filter(|h| h.file_seq == seq);
    if let Some(header) = header {
        return Ok(Some(header.salt));
    }
    let group = GroupHeader::parse(window.get(BLOCK as u64, GROUP_HEADER)?).filter(|g| g.file_seq == seq);
    Ok(group.map(|g| g.salt))
}
