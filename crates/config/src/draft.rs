//! What a file gives before the files are checked against each other.

use std::sync::Arc;

use levada_core::{SourceName, TableName};

use crate::columns::Columns;
use crate::model::{Model, Owner, Pipeline};
use crate::source::{SourceFile, Span};
use crate::tree::{Node, Value};

/// A pipeline or connector, with the places that cross-checks talk about.
pub(crate) struct PipelineDraft {
    pub name: SourceName,
    pub owner: Owner,
    pub file: Arc<SourceFile>,
    pub name_span: Span,
    pub sink_span: Span,
    pub sink: TableName,
    /// Places of the event types that the source asks for, in their order.
    pub type_spans: Vec<Span>,
    /// Places of the steps to silver, in their order.
    pub step_spans: Vec<Span>,
    /// Whether the file is free of errors.
    pub sound: bool,
    /// `None`: it is parsed only, or not sound.
    pub pipeline: Option<Pipeline>,
    pub gold: Option<GoldDraft>,
}

/// The places of the texts of a list; one text alone is a list of one.
pub(crate) fn places(list: Option<&Node>) -> Vec<Span> {
    match list.map(|node| (&node.value, &node.span)) {
        Some((Value::List(items), _)) => items.iter().map(|item| item.span.clone()).collect(),
        Some((_, span)) => vec![span.clone()],
        None => Vec::new(),
    }
}

/// A model, with the places of its references.
pub(crate) struct ModelDraft {
    pub model: Model,
    pub file: Arc<SourceFile>,
    /// The place that talks about the model itself.
    pub span: Span,
    pub references: Vec<(TableName, Span)>,
    /// Made from a connector's `silver_to_gold`.
    pub generated: bool,
}

/// The `silver_to_gold` part of a connector; its SQL is written when all tables are known.
pub(crate) struct GoldDraft {
    pub joins: Vec<Join>,
    pub aggregate: Option<Aggregate>,
    /// The columns of the silver table.
    pub columns: Columns,
    pub span: Span,
    pub description: String,
    /// Why it cannot run, where that is known already.
    pub waiting: Option<String>,
}

pub(crate) struct Join {
    pub table: TableName,
    pub on: Vec<SourceName>,
    pub span: Span,
}

#[derive(Default)]
pub(crate) struct Aggregate {
    pub group_by: Vec<(String, Span)>,
    pub metrics: Vec<Metric>,
}

pub(crate) struct Metric {
    /// Lower case: sum, avg, min, max or count.
    pub function: String,
    pub distinct: bool,
    /// `None`: `*`.
    pub argument: Option<String>,
    pub alias: SourceName,
    pub span: Span,
}
