//! Errors of storage. What SQL answers is a [`levada_core::Problem`] instead, since a
//! caller reads it.

use crate::types::TableKey;

/// Why an operation on the lake failed.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("there is no table {0}")]
    UnknownTable(TableKey),
    /// The caller asks for something that the table cannot be; a retry gives the same answer.
    #[error("table {table}: {reason}")]
    Incompatible { table: TableKey, reason: String },
    /// An object of that name with other content exists: bronze is immutable.
    #[error("bronze object {path} exists with other content")]
    ObjectConflict { path: String },
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{what}: {source}")]
    Table {
        what: String,
        #[source]
        source: deltalake::DeltaTableError,
    },
    #[error("{what}: {source}")]
    Arrow {
        what: String,
        #[source]
        source: arrow::error::ArrowError,
    },
    /// Stored metadata cannot be read.
    #[error("{path} is damaged: {reason}")]
    Damaged { path: String, reason: String },
    /// A query of a model failed.
    #[error(transparent)]
    Sql(#[from] levada_core::Problem),
}

impl LakeError {
    /// Whether the same call may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        match self {
            LakeError::Io { .. } | LakeError::Table { .. } => true,
            LakeError::Sql(problem) => problem.is_retryable(),
            _ => false,
        }
    }
}

/// Adds what was being done to an error.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, LakeError>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, LakeError> {
        self.map_err(|source| LakeError::Io { what: what(), source })
    }
}

impl<T> Context<T> for Result<T, deltalake::DeltaTableError> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, LakeError> {
        self.map_err(|source| LakeError::Table { what: what(), source })
    }
}

impl<T> Context<T> for Result<T, arrow::error::ArrowError> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, LakeError> {
        self.map_err(|source| LakeError::Arrow { what: what(), source })
    }
}

impl<T> Context<T> for Result<T, parquet::errors::ParquetError> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, LakeError> {
        self.map_err(|source| LakeError::Arrow { what: what(), source: source.into() })
    }
}
