//! Sizes and limits of a log.

/// Sizes and limits of a log. The defaults suit one server with one disk.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Size of one commit file; a checkpoint frees whole files.
    pub commit_file_bytes: u64,
    /// A checkpoint is due once so many commit files are full.
    pub checkpoint_files: u64,
    /// Appends wait when so many commit files are not yet freed: bounds the replay at start.
    pub max_commit_files: u64,
    /// A segment is sealed once it has so many bytes (a group may take it a little beyond).
    pub segment_bytes: u64,
    /// A commit group takes no further append beyond this.
    pub group_bytes: usize,
    /// Appends wait when so many bytes are queued. Also the largest single append.
    pub queue_bytes: usize,
    /// Distance of the entries of the sparse index in a segment.
    pub index_interval_bytes: u64,
    /// Largest head plus body of one record.
    pub max_record_bytes: usize,
    /// Open segment files.
    pub open_files: usize,
    /// Beyond so many dirty files a checkpoint syncs the whole file system at once.
    pub sync_each_limit: usize,
    /// Appends answer `Full` when the disk has less than this left, so that segments,
    /// checkpoints and the lake still find room.
    pub min_free_bytes: u64,
    /// What is answered before its fsync gets it within this time.
    pub sync_interval_ms: u64,
    /// A checkpoint is made after this long without an append.
    pub idle_checkpoint_ms: u64,
    /// A round of the scrubber begins at the earliest this long after the one before it.
    pub scrub_every_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            commit_file_bytes: 128 << 20,
            checkpoint_files: 2,
            max_commit_files: 6,
            segment_bytes: 64 << 20,
            group_bytes: 4 << 20,
            queue_bytes: 32 << 20,
            index_interval_bytes: 64 << 10,
            max_record_bytes: 16 << 20,
            open_files: 256,
            sync_each_limit: 16,
            min_free_bytes: 64 << 20,
            sync_interval_ms: 20,
            idle_checkpoint_ms: 2_000,
            scrub_every_ms: 6 * 3_600_000,
        }
    }
}

impl LogConfig {
    /// The largest append, in encoded bytes: it must fit the queue and one commit file.
    pub(crate) fn max_append_bytes(&self) -> usize {
        let file = usize::try_from(self.commit_file_bytes / 2).unwrap_or(usize::MAX);
        self.queue_bytes.min(file).min(u32::MAX as usize / 2)
    }
}
