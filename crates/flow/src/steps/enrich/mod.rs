//! Enrichment: for each row a GET whose URL is filled from the row, and columns from the
//! JSON that it answers.
//!
//! Rows that lead to one URL are asked for once per batch and answers are cached, the
//! knowledge that there is none included. What cannot be enriched goes to the dead letter and
//! can be sent again. While the service's breaker is open its rows go there at once: a
//! pipeline that waited would hold up every tenant for one service.

mod answer;
mod breakers;
mod service;
mod template;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ahash::AHashMap;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use levada_config::model::{Enrich, Owner};
use levada_core::{Backoff, Clock, Egress, EgressRule, Problem};
use levada_outbound::{OutboundError, check, parse};
use levada_schema::{Cell, ColumnBuilder, data_type};

use self::answer::Answer;
pub use self::breakers::Breakers;
use self::service::{Miss, Service};
use self::template::Template;
use super::{BuildError, Fault, Passed, StepError, Transform};
use crate::rows;

/// A secret's value by its name.
pub type Secrets = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A random number in `[0, 1)`.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// What every enrichment step shares.
#[derive(Clone)]
pub struct EnrichContext {
    pub clock: Arc<dyn Clock>,
    pub jitter: Jitter,
    pub secrets: Secrets,
    /// Between attempts of one call.
    pub backoff: Backoff,
    pub breakers: Breakers,
    /// Where calls may go, beside the own host of what the root folder declares.
    pub egress: Egress,
    /// Answers that one step remembers at most.
    pub cache_entries: u64,
    /// A longer answer is refused.
    pub answer_bytes: usize,
}

/// The step.
pub struct EnrichStep {
    stage: String,
    config: Enrich,
    template: Template,
    service: Service,
    schema: SchemaRef,
}

impl EnrichStep {
    /// # Errors
    /// When the URL cannot be used or names an address that calls may not go to, a placeholder or
    /// the secret is unknown, or an output column exists already.
    pub fn new(
        config: &Enrich,
        input: &Schema,
        owner: &Owner,
        context: &EnrichContext,
    ) -> Result<Self, BuildError> {
        let stage = format!("enrich:{}", config.name);
        let wrong = |reason: String| BuildError::new(stage.clone(), reason);
        let template = Template::parse(&config.url).map_err(wrong)?;
        for name in template.placeholders() {
            if input.index_of(name).is_err() {
                return Err(wrong(format!("`{{{name}}}` in the URL is no column of the rows")));
            }
        }
        let mut fields: Vec<_> = input.fields().iter().filter(|f| f.name() != rows::ROW).cloned().collect();
        for field in &config.fields {
            if fields.iter().any(|f| f.name() == field.name.as_str()) {
                return Err(wrong(format!("column `{}` exists already", field.name)));
            }
            fields.push(Arc::new(ArrowField::new(field.name.as_str(), data_type(field.kind), true)));
        }
        let schema = rows::with_row_field(&Schema::new(fields));
        let egress = egress(context, owner, template.origin()).map_err(|problem| BuildError {
            answer: Some(Box::new(problem.clone())),
            ..wrong(problem.detail)
        })?;
        let service = Service::new(config, template.origin(), owner, egress, context).map_err(wrong)?;
        Ok(Self { stage, config: config.clone(), template, service, schema })
    }

    /// The columns after this step.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Asks for each URL once, at most `concurrency` at a time.
    async fn ask(&self, urls: Vec<&str>) -> AHashMap<String, Result<Arc<Answer>, Miss>> {
        let mut answers = AHashMap::with_capacity(urls.len());
        let mut rest = urls.into_iter();
        // A service that was down is probed with one call before the others follow.
        while self.service.is_suspect() {
            let Some(url) = rest.next() else { break };
            let answer = self.service.lookup(url).await;
            let refused = answer.is_err();
            answers.insert(url.to_owned(), answer);
            if refused {
                break;
            }
        }
        let rest: Vec<String> = rest.map(str::to_owned).collect();
        let mut calls = futures::stream::iter(rest)
            .map(|url| async move {
                let answer = self.service.lookup(&url).await;
                (url, answer)
            })
            .buffer_unordered(self.config.concurrency.max(1));
        while let Some((url, answer)) = calls.next().await {
            answers.insert(url, answer);
        }
        answers
    }

    /// The cells of a row, or why there are none.
    fn cells<'a>(
        &self,
        url: &Result<String, String>,
        answers: &'a AHashMap<String, Result<Arc<Answer>, Miss>>,
    ) -> Result<Option<&'a [Cell<'static>]>, Miss> {
        let missing = |code, reason: String| match self.config.optional {
            true => Ok(None),
            false => Err(Miss { code, reason, attempts: 1 }),
        };
        let url = match url {
            Ok(url) => url,
            Err(reason) => return missing("enrich-key-missing", reason.clone()),
        };
        match answers.get(url) {
            Some(Ok(answer)) => match &**answer {
                Answer::Found(cells) => Ok(Some(cells)),
                Answer::NotFound => {
                    missing("enrich-not-found", format!("the service knows nothing at {url}"))
                }
            },
            Some(Err(miss)) => Err(miss.clone()),
            None => Err(Miss {
                code: "enrich-unavailable",
                reason: "the service was not asked".into(),
                attempts: 0,
            }),
        }
    }
}

#[async_trait]
impl Transform for EnrichStep {
    async fn run(&self, batch: RecordBatch) -> Result<Passed, StepError> {
        let filled = self.template.fill(&batch)?;
        let mut urls: Vec<&str> = filled.iter().filter_map(|u| u.as_deref().ok()).collect();
        urls.sort_unstable();
        urls.dedup();
        let answers = self.ask(urls).await;
        let numbers = rows::numbers(&batch).ok_or_else(|| StepError::MissingColumn(rows::ROW.into()))?;
        let mut flags = Vec::with_capacity(filled.len());
        let mut faults = Vec::new();
        let mut columns: Vec<_> =
            self.config.fields.iter().map(|f| ColumnBuilder::new(f.kind, filled.len())).collect();
        for (at, url) in filled.iter().enumerate() {
            match self.cells(url, &answers) {
                Ok(Some(cells)) => {
                    columns.iter_mut().zip(cells).for_each(|(column, cell)| column.append(cell))
                }
                Ok(None) => columns.iter_mut().for_each(|column| column.append(&Cell::Null)),
                Err(Miss { code, reason, attempts }) => {
                    let row = numbers.value(at);
                    faults.push(Fault { row, stage: self.stage.clone(), code, reason, attempts });
                    flags.push(false);
                    continue;
                }
            }
            flags.push(true);
        }
        let kept = rows::keep(&batch, flags)?;
        let (row_column, mut arrays): (Vec<ArrayRef>, Vec<ArrayRef>) = {
            let named = kept.schema_ref().fields().iter().zip(kept.columns());
            let (row, others): (Vec<_>, Vec<_>) = named.partition(|(f, _)| f.name() == rows::ROW);
            (
                row.into_iter().map(|(_, c)| c.clone()).collect(),
                others.into_iter().map(|(_, c)| c.clone()).collect(),
            )
        };
        arrays.extend(columns.into_iter().map(ColumnBuilder::finish));
        arrays.extend(row_column);
        Ok(Passed { batch: RecordBatch::try_new(self.schema.clone(), arrays)?, faults })
    }
}

/// What the calls of one declaration may reach. The operator's own names its host and port on
/// purpose; a tenant's opens nothing.
fn egress(context: &EnrichContext, owner: &Owner, origin: &str) -> Result<Egress, Problem> {
    let unusable = |error: OutboundError| Problem::new(422, "egress-refused", error.to_string());
    let url = parse(origin).map_err(unusable)?;
    let host = url.host_str().zip(url.port_or_known_default());
    let own = host.filter(|_| *owner == Owner::Shared).map(|(host, port)| EgressRule::host(host, port));
    let egress = context.egress.and(own);
    check(&egress, &url)?;
    Ok(egress)
}
