//! The commit log: which groups a start would replay, and what stands between them.
//!
//! It follows the rules of `recover`: bad bytes with no sound group behind them are the remains
//! of a group that was never confirmed, and a gap in the numbers of the groups is damage where
//! what is missing was durable once.

use levada_disk::{DiskFile, OpenMode};

use super::walk::crc;
use super::{Check, Fault, Finding, Step, TornTail, Walk};
use crate::TopicId;
use crate::format::{
    BLOCK, COMMIT_HEADER, CommitHeader, GROUP_HEADER, GroupHeader, RecordHeader, was_group_header,
};
use crate::scan::Window;
use crate::tail::was_durable;

/// Blocks that hold no sound group.
struct Bad {
    file: String,
    from: u64,
    to: u64,
    /// End of the last block that begins with something else than zeros.
    used_to: u64,
    /// Where a group begins that is not whole, and its length.
    torn: Option<(u64, u64)>,
}

/// What a walk over all files carries along.
struct Groups {
    /// The number of the next group, once it is known.
    next: Option<u64>,
    /// Blocks since the last sound group.
    bad: Vec<Bad>,
    /// Nothing counts from here on.
    at_tail: bool,
}

/// How much of a file a start needs.
#[derive(Clone, Copy)]
enum Needed {
    Nothing,
    From(u64),
}

/// What the groups of a file carry, and where it was found.
enum Salt {
    Header(u64),
    FirstGroup(u64),
    /// The first sound group begins here: neither header nor first group tell the salt.
    Lost(u64),
    /// No group was ever written.
    Unused,
}

impl Needed {
    fn at(self, position: u64) -> bool {
        matches!(self, Needed::From(from) if position >= from)
    }
}

impl Check<'_> {
    /// Checks all commit files; what their groups add goes to the topics' reports.
    pub(super) fn commit_log(&mut self, files: &[(u64, u64)]) {
        let position = self.start.as_ref().map(|start| start.position);
        if let Some(position) = position.filter(|p| p.bytes > BLOCK as u64) {
            let len = files.iter().find(|f| f.0 == position.file_seq).map(|f| f.1);
            if len.is_none_or(|len| len < position.bytes) {
                let file = self.commit_path(position.file_seq);
                self.commit_finding(file, Fault::CommitFileMissing, len.unwrap_or(0), 0);
            }
        }
        let mut groups = Groups { next: position.map(|p| p.next_group), bad: Vec::new(), at_tail: false };
        for (i, (seq, len)) in files.iter().enumerate() {
            if groups.at_tail {
                self.meter.advance(*len);
                continue;
            }
            let needed = match position {
                Some(p) if *seq < p.file_seq => Needed::Nothing,
                Some(p) if *seq == p.file_seq => Needed::From(p.bytes),
                _ => Needed::From(BLOCK as u64),
            };
            let before = self.meter.done;
            self.report.commit.files += 1;
            if let Err(error) = self.commit_file(&files[i..], needed, &mut groups) {
                let file = self.commit_path(*seq);
                self.commit_finding(file, Fault::Unreadable(error.to_string()), 0, *len);
            }
            self.meter.advance((before + len).saturating_sub(self.meter.done));
        }
        let torn = |bad: &Bad| {
            bad.torn.map(|(position, bytes)| TornTail { file: bad.file.clone(), position, bytes })
        };
        self.report.commit.torn_tail = groups.bad.iter().find_map(torn);
    }

    fn commit_path(&self, seq: u64) -> String {
        format!("{}/commit/{seq:016}.log", self.dir)
    }

    fn commit_finding(&mut self, file: String, fault: Fault, position: u64, bytes: u64) {
        self.damage(Finding { file, position, bytes, topic: None, offsets: None, fault });
    }

    /// Checks the first of some files.
    fn commit_file(
        &mut self,
        files: &[(u64, u64)],
        needed: Needed,
        groups: &mut Groups,
    ) -> std::io::Result<()> {
        let (seq, len) = files[0];
        let path = self.commit_path(seq);
        let file = self.disk.open(&path, OpenMode::Read)?;
        let mut window = Window::new(&*file, len);
        let is_damage = matches!(needed, Needed::From(_));
        let salt = match self.salt(&mut window, seq, len)? {
            Salt::Unused => return Ok(()),
            Salt::Lost(bytes) => {
                // A file that was never synced is a tail, whatever of it is there.
                let is_damage = is_damage
                    && match groups.next {
                        Some(next) => self.was_synced(&mut window, seq, len, bytes, next)?,
                        None => true,
                    };
                self.header_finding(&path, Fault::CommitFileLost, bytes, is_damage);
                return Ok(());
            }
            Salt::Header(salt) => salt,
            Salt::FirstGroup(salt) => {
                self.groups(&*file, window, (files, salt), needed, groups, &path)?;
                // The header becomes durable with the first group, which perhaps never was.
                let mut window = Window::new(&*file, len);
                let first = GroupHeader::parse(window.get(BLOCK as u64, GROUP_HEADER)?);
                let seqs = files.iter().map(|(seq, _)| *seq);
                let was_durable = match first {
                    Some(first) => was_durable(self.disk, self.dir, seqs, BLOCK as u64, first.seq)?,
                    None => false,
                };
                let is_damage = is_damage && was_durable;
                self.header_finding(&path, Fault::CommitFileHeader, BLOCK as u64, is_damage);
                return Ok(());
            }
        };
        self.groups(&*file, window, (files, salt), needed, groups, &path)
    }

    /// Walks the blocks of the first of some files, with the salt of its groups.
    fn groups(
        &mut self,
        file: &dyn DiskFile,
        mut window: Window<'_>,
        (files, salt): (&[(u64, u64)], u64),
        needed: Needed,
        groups: &mut Groups,
        path: &str,
    ) -> std::io::Result<()> {
        let (seq, len) = files[0];
        let mut at = BLOCK as u64;
        while at + GROUP_HEADER as u64 <= len {
            let is_needed = needed.at(at);
            let bytes = window.get(at, GROUP_HEADER)?;
            let is_used = bytes.iter().any(|b| *b != 0);
            let was_header = was_group_header(bytes, salt, seq);
            let header = GroupHeader::parse(bytes)
                .filter(|h| h.salt == salt && h.file_seq == seq)
                .filter(|h| !is_needed || groups.next.is_none_or(|next| h.seq >= next));
            let is_sound = match header {
                Some(h) if at + h.blocks_len() <= len => {
                    let from = at + GROUP_HEADER as u64;
                    crc(&mut window, from, from + u64::from(h.payload_len))? == Some(h.payload_crc)
                }
                _ => false,
            };
            if let Some(header) = header.filter(|_| is_sound) {
                if is_needed && self.is_tail(groups, &header, files, at)? {
                    groups.at_tail = true;
                    groups.note_bad(path, (at, len), true, Some((at, len - at)));
                    self.meter.advance(len - at);
                    return Ok(());
                }
                self.report.commit.groups += 1;
                if is_needed {
                    self.missing_groups(groups, &header, path, at);
                    groups.bad.clear();
                    groups.next = Some(header.seq + 1);
                    self.replay(file, &header, path, at)?;
                }
                at += header.blocks_len();
                self.meter.advance(header.blocks_len());
                continue;
            }
            let block = (at, at + BLOCK as u64);
            let torn = match header {
                Some(header) => Some((at, header.blocks_len().min(len - at))),
                None if was_header => Some((at, BLOCK as u64)),
                None => None,
            };
            if is_needed {
                groups.note_bad(path, block, is_used, torn);
            } else if matches!(needed, Needed::From(_)) {
                self.notice_unneeded(path, block);
            }
            at = block.1;
            self.meter.advance(BLOCK as u64);
        }
        Ok(())
    }

    /// The salt of a file's groups; when its header is damaged, that of its first group.
    fn salt(&self, window: &mut Window<'_>, seq: u64, len: u64) -> std::io::Result<Salt> {
        let header = CommitHeader::parse(window.get(0, COMMIT_HEADER)?).filter(|h| h.file_seq == seq);
        if let Some(header) = header {
            return Ok(Salt::Header(header.salt));
        }
        let mut at = BLOCK as u64;
        while at + GROUP_HEADER as u64 <= len {
            let group = GroupHeader::parse(window.get(at, GROUP_HEADER)?).filter(|g| g.file_seq == seq);
            let Some(group) = group else {
                at += BLOCK as u64;
                continue;
            };
            return Ok(if at == BLOCK as u64 { Salt::FirstGroup(group.salt) } else { Salt::Lost(at) });
        }
        Ok(Salt::Unused)
    }

    fn header_finding(&mut self, path: &str, fault: Fault, bytes: u64, is_damage: bool) {
        let file = path.to_owned();
        let finding = Finding { file, position: 0, bytes, topic: None, offsets: None, fault };
        if is_damage { self.damage(finding) } else { self.report.notice(finding) }
    }

    /// Damage in what the checkpoint already covers: a start does not look there.
    fn notice_unneeded(&mut self, path: &str, (from, to): (u64, u64)) {
        if let Some(last) = self.report.notices.last_mut()
            && last.fault == Fault::CommitGroup
            && last.file == path
            && last.position + last.bytes == from
        {
            last.bytes += to - from;
            return;
        }
        let fault = Fault::CommitGroup;
        let file = path.to_owned();
        let finding = Finding { file, position: from, bytes: to - from, topic: None, offsets: None, fault };
        self.report.notice(finding);
    }

    /// Whether a file without header and first group has one that says that `first` was durable.
    fn was_synced(
        &self,
        window: &mut Window<'_>,
        seq: u64,
        len: u64,
        from: u64,
        first: u64,
    ) -> std::io::Result<bool> {
        let mut at = from;
        while at + GROUP_HEADER as u64 <= len {
            let header = GroupHeader::parse(window.get(at, GROUP_HEADER)?).filter(|h| h.file_seq == seq);
            if header.is_some_and(|h| h.seq > first && h.durable_before() > first) {
                return Ok(true);
            }
            at += BLOCK as u64;
        }
        Ok(false)
    }

    /// Whether what is missing before a sound group was never durable, and so nothing counts
    /// from there on.
    fn is_tail(
        &self,
        groups: &Groups,
        header: &GroupHeader,
        files: &[(u64, u64)],
        at: u64,
    ) -> std::io::Result<bool> {
        let Some(missing) = groups.next.filter(|next| header.seq > *next) else { return Ok(false) };
        let seqs = files.iter().map(|(seq, _)| *seq);
        Ok(!was_durable(self.disk, self.dir, seqs, at, missing)?)
    }

    /// Tells of groups that are missing before a sound one.
    fn missing_groups(&mut self, groups: &Groups, header: &GroupHeader, path: &str, at: u64) {
        if groups.next.is_none_or(|next| header.seq <= next) {
            return;
        }
        let mut is_told = false;
        for bad in groups.bad.iter().filter(|bad| bad.used_to > bad.from) {
            is_told = true;
            let bytes = bad.used_to - bad.from;
            self.commit_finding(bad.file.clone(), Fault::CommitGroup, bad.from, bytes);
        }
        if !is_told {
            self.commit_finding(path.to_owned(), Fault::CommitGroupsMissing, at, 0);
        }
    }

    /// Adds a sound group's records to their topics, as a start would.
    fn replay(
        &mut self,
        file: &dyn DiskFile,
        group: &GroupHeader,
        path: &str,
        at: u64,
    ) -> std::io::Result<()> {
        let from = at + GROUP_HEADER as u64;
        let to = from + u64::from(group.payload_len);
        let mut walk = Walk::new(file, from, to);
        let mut records = 0;
        loop {
            match walk.step()? {
                Step::Record { position, header, payload_is_sound: true } => {
                    records += 1;
                    self.replay_record(&header, path, position);
                }
                Step::End if records == group.count => break,
                // The group's checksum is right, so these bytes were written like this.
                _ => {
                    self.commit_finding(path.to_owned(), Fault::CommitGroup, at, group.blocks_len());
                    break;
                }
            }
        }
        self.report.commit.replay_groups += 1;
        self.report.commit.replay_records += u64::from(group.count);
        Ok(())
    }

    fn replay_record(&mut self, header: &RecordHeader, path: &str, position: u64) {
        let id: TopicId = header.topic;
        let is_named = self.names.as_ref().is_none_or(|names| (id.0 as usize) < names.len());
        if !is_named && !self.topics.contains_key(&id) {
            let (file, fault) = (path.to_owned(), Fault::TopicUnnamed);
            self.damage(Finding { file, position, bytes: 0, topic: Some(id), offsets: None, fault });
        }
        let topic = self.state(id);
        let (offset, next) = (header.offset, topic.next);
        if offset < next {
            // A segment has it already.
            return;
        }
        if topic.segments == 0 && topic.records == 0 {
            topic.first = offset;
        }
        topic.records += 1;
        topic.next = offset + 1;
        topic.bytes += header.record_len() as u64;
        if offset > next {
            self.gap(id, path, position, next..offset);
        }
        self.note_lane(header.lane);
    }
}

impl Groups {
    fn note_bad(&mut self, path: &str, (from, to): (u64, u64), is_used: bool, torn: Option<(u64, u64)>) {
        if self.bad.last().is_none_or(|bad| bad.file != path || bad.to != from) {
            self.bad.push(Bad { file: path.to_owned(), from, to: from, used_to: from, torn: None });
        }
        let bad = self.bad.last_mut().expect("one was just pushed");
        bad.to = to;
        if is_used {
            bad.used_to = to;
        }
        bad.torn = bad.torn.or(torn);
    }
}
