//! The web console: server-rendered pages over a small port, [`ConsoleData`].
//!
//! The console knows nothing of the log, the lake or the pipelines: the binary implements
//! [`ConsoleData`] over them. What a page shows is asked for with the signed-in principal,
//! so the port decides what its tenants may see, and the pages decide by role which parts
//! to ask for at all. Pages work without script; the script adds live updates, keyboard
//! short cuts and partial loading.

mod app;
mod assets;
mod data;
mod flash;
mod form;
mod format;
mod live;
mod message;
mod pages;
mod rows;
mod session;
mod shown;
mod subscription;

#[cfg(test)]
extern crate self as levada_console;
#[cfg(test)]
mod tests;

pub use app::{ConsoleConfig, router};
pub use data::{
    BlockedRow, ConsoleData, DeadLetter, DeadLetterFilter, DeadLetterPage, EpochRow, Health, LaneRow,
    ModelRow, Overview, PipelineDetail, PipelineRow, QueryAnswer, ReasonCount, Resent, StepCounts, StepRow,
    SubscriptionDetail, SubscriptionRow, TableRow, TopicRow, Unblock, ZoneRow,
};
pub use message::{
    DeadMark, MessageEdit, MessageFilter, MessagePage, MessageRow, PREVIEW_BYTES, PubsubTopicRow,
    RedriveDone, RedriveOrder,
};
pub use rows::{Column, PAGE_BYTES, PAGE_COLUMNS, ShownRows};
pub use shown::{CELL_CHARS, Shown};
pub use subscription::ReplayMark;
