//! The lakehouse: bronze objects, silver and gold Delta tables, SQL over them.
//!
//! The only crate that names DataFusion and Delta. Others see arrow batches and the small
//! types of [`types`].
//!
//! Public surface, in the order in which an epoch uses it:
//!
//! ```text
//! Lake::open(disk: Arc<dyn Disk>, dir: &str, LakeConfig, Arc<dyn Clock>) -> Result<Lake, LakeError>
//! async Lake::ensure_table(&self, &TableSpec) -> Result<(), LakeError>
//! async Lake::stage(&self, &TableKey, Vec<RecordBatch>) -> Result<Vec<StagedFile>, LakeError>
//! async Lake::commit(&self, &TableKey, app_id: &str, epoch: i64, Vec<StagedFile>) -> Result<Committed, LakeError>
//! async Lake::replace(&self, &TableKey, app_id: &str, epoch: i64, Vec<RecordBatch>) -> Result<Committed, LakeError>
//! async Lake::epoch(&self, &TableKey, app_id: &str) -> Result<Option<i64>, LakeError>
//! async Lake::archive(&self, BronzeObject) -> Result<Archived, LakeError>
//! async Lake::compact(&self, &TableKey) -> Result<Maintained, LakeError>      // always
//! async Lake::vacuum(&self, &TableKey) -> Result<Maintained, LakeError>
//! async Lake::scrub(&self, budget_bytes: u64) -> Vec<Damage>                          // checks files, a part at a time
//! async Lake::maintain(&self, &TableKey) -> Result<Maintained, LakeError>     // compact when many small files, then vacuum
//! Lake::specs(&self) -> Vec<TableSpec>
//! async Lake::tables(&self) -> Result<Vec<TableStats>, LakeError>
//! async Lake::table_stats(&self, &TableKey) -> Result<TableStats, LakeError>
//! Lake::session(&self, &Principal, narrowed: Option<&TenantId>) -> Result<SqlSession, Problem>
//! Lake::compile(&self, sql: &str, input: SchemaRef) -> Result<Program, Problem>
//! async Lake::execute_model(&self, sql: &str, owner: &Owner) -> Result<Vec<RecordBatch>, Problem>
//! async Lake::describe_model(&self, sql: &str, owner: &Owner) -> Result<SchemaRef, Problem>
//! async Lake::rehearse_model(&self, sql: &str, owner: &Owner) -> Result<SchemaRef, Problem>   // for checks: planned to the end
//! Lake::declare_source(&self, &SourceName, &TenantId)
//!
//! SqlSession::tables(&self) -> Vec<TableInfo>
//! SqlSession::add_relation(&mut self, schema: &str, name: &str, RecordBatch) -> Result<(), Problem>   // e.g. pg_catalog.pg_tables
//! async SqlSession::describe(&self, sql: &str) -> Result<Description, Problem>
//! async SqlSession::query(&self, sql: &str, Vec<Param>, QueryLimits) -> Result<QueryOutput, Problem>
//! QueryOutput { schema: SchemaRef, stream: BatchStream, as_of: Vec<AsOf> }, .truncated() -> bool after the end,
//!     async .collect() -> Result<Vec<RecordBatch>, Problem>
//! Program::schema(&self) -> SchemaRef; async Program::run(&self, RecordBatch) -> Result<Vec<RecordBatch>, Problem>
//! bronze::encode_line(&bronze::Envelope, &mut Vec<u8>)
//! ```

mod amplify;
mod answer;
mod balance;
mod blocks;
pub mod bronze;
mod catalog;
mod commit;
mod constants;
mod dialect;
mod diskstore;
mod engine;
mod error;
mod guard;
mod guarded;
mod inlined;
mod lake;
mod lanes;
mod limits;
mod maintain;
mod metrics;
mod node;
mod operators;
mod output;
mod pace;
mod params;
mod pins;
mod program;
mod provider;
mod purse;
mod rehearsal;
mod runtime;
mod schema;
mod scope;
mod scrub;
mod semantics;
mod session;
mod shape;
mod spec;
mod stack;
mod stage;
mod statement;
mod stats;
mod table;
mod text;
mod turns;
pub mod types;
mod values;
mod watch;
mod widths;
mod windows;

#[cfg(test)]
mod tests;

pub use blocks::Damage;
pub use diskstore::DiskStore;
pub use error::LakeError;
pub use lake::Lake;
pub use output::{BatchStream, QueryOutput, Truncation};
pub use program::{INPUT, Program};
pub use semantics::{
    SqlSettings, TimeZone, duration_text, float_text, float_text_32, interval_text, timestamp_text,
};
pub use session::SqlSession;
pub use spec::stored_table;
pub use text::{TextCells, TextColumn, TextRows, each_row_as_text};
pub use types::*;
