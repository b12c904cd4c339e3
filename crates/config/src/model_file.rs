//! A model file: one SELECT whose result becomes `gold.<file name>`.
//!
//! Lines that begin with `--!` before the query are its settings:
//! `schedule` (`cron 0 6 * * *`, `on_change 10s` or `manual`), `description`,
//! `cluster_by` and `shared`. Other comments are prose.

use std::sync::Arc;
use std::time::Duration;

use levada_core::{SourceName, TableName, TenantId, Zone};

use crate::codes;
use crate::columns::TENANT_COLUMN;
use crate::diagnostic::{Diagnostic, Sink};
use crate::draft::ModelDraft;
use crate::fields::{check_cron, cut};
use crate::model::{Model, ModelSchedule, Owner};
use crate::quantity;
use crate::source::{SourceFile, Span};
use crate::sql::{Query, Reference};
use crate::suggest;
use crate::world::Base;

const SETTINGS: [&str; 4] = ["schedule", "description", "cluster_by", "shared"];
/// How often a model runs at most when a table that it reads keeps changing.
pub(crate) const ON_CHANGE: Duration = Duration::from_secs(10);

struct Header {
    schedule: ModelSchedule,
    description: Option<String>,
    cluster_by: Vec<SourceName>,
    shared: Option<Span>,
}

/// Reads the file. `None`: it has errors, which the sink holds.
pub(crate) fn read(file: &Arc<SourceFile>, base: &Base, sink: &mut Sink) -> Option<ModelDraft> {
    let before = sink.errors();
    let stem = file.path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let mut reader = Reader { file, sink };
    let name = match SourceName::new(stem) {
        Ok(name) => Some(name),
        Err(error) => {
            reader.report(codes::BAD_NAME, &(0..0), format!("the file's name is the table's: {error}"));
            None
        }
    };
    let header = reader.header();
    let query = match Query::parse(&file.text) {
        Ok(query) => query,
        Err(error) => {
            reader.report(codes::MODEL_SQL, &error.span, format!("a model is one SELECT: {}", error.why));
            return None;
        }
    };
    let references: Vec<(TableName, Span)> =
        query.references().into_iter().filter_map(|r| reader.table(&r).map(|t| (t, r.span))).collect();
    let owner = match (&base.tenant, &header.shared) {
        (Some(tenant), None) => Owner::Tenant(tenant.clone()),
        (Some(tenant), Some(span)) => {
            reader.report(codes::OWNERSHIP, span, format!("a file of tenant `{tenant}` cannot be shared"));
            Owner::Tenant(tenant.clone())
        }
        (None, None) => Owner::Tenant(TenantId::default_tenant()),
        (None, Some(span)) => {
            if !query.mentions(TENANT_COLUMN) {
                reader
                    .report(codes::MODEL_SHARED, span, "a shared model must select `tenant_id`")
                    .hint("select `tenant_id` and group by it, so that each row belongs to its tenant");
            }
            Owner::Shared
        }
    };
    if sink.errors() > before {
        return None;
    }
    let mut reads: Vec<TableName> = references.iter().map(|(table, _)| table.clone()).collect();
    reads.sort();
    reads.dedup();
    let model = Model {
        name: name?,
        owner,
        file: file.path.clone(),
        sql: file.text.trim().trim_end_matches(';').to_owned(),
        reads,
        schedule: header.schedule,
        description: header.description,
        cluster_by: header.cluster_by,
        waiting: None,
    };
    Some(ModelDraft { model, file: Arc::clone(file), span: 0..0, references, generated: false })
}

struct Reader<'a> {
    file: &'a SourceFile,
    sink: &'a mut Sink,
}

impl Reader<'_> {
    fn report(
        &mut self,
        code: &'static codes::Code,
        span: &Span,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.sink.push(Diagnostic::at(self.file, code, span, message))
    }

    fn table(&mut self, reference: &Reference) -> Option<TableName> {
        let written = reference.parts.join(".");
        if let Ok(table) = written.parse::<TableName>() {
            return Some(table);
        }
        self.report(codes::UNKNOWN_TABLE, &reference.span, format!("`{}` is not a table", cut(&written)))
            .hint("write bronze.<source>, silver.<table> or gold.<model>");
        None
    }

    fn header(&mut self) -> Header {
        let mut header = Header {
            schedule: ModelSchedule::OnChange { at_most_every: ON_CHANGE },
            description: None,
            cluster_by: Vec::new(),
            shared: None,
        };
        let mut seen: Vec<String> = Vec::new();
        let mut start = 0;
        let file = self.file;
        for line in file.text.split_inclusive('\n') {
            let span = start..start + line.trim_end().len();
            start += line.len();
            let text = line.trim();
            if text.is_empty() {
                continue;
            }
            let Some(comment) = text.strip_prefix("--") else { break };
            let Some(setting) = comment.strip_prefix('!') else {
                self.forgotten_mark(comment, &span);
                continue;
            };
            let Some((key, value)) = setting.split_once(':') else {
                self.report(codes::MODEL_HEADER, &span, "a setting is written `--! name: value`");
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            if seen.iter().any(|s| s == key) {
                self.report(codes::DUPLICATE_KEY, &span, format!("`{}` is written twice", cut(key)));
            }
            seen.push(key.to_owned());
            self.setting(&mut header, key, value, &span);
        }
        header
    }

    /// `-- schedule: ...` would be ignored, which its writer did not mean.
    fn forgotten_mark(&mut self, comment: &str, span: &Span) {
        let key = comment.split(':').next().unwrap_or_default().trim();
        if comment.contains(':') && SETTINGS.contains(&key) {
            self.report(codes::MODEL_HEADER, span, format!("this comment sets no {key}"))
                .hint(format!("write `--! {key}: ...`"));
        }
    }

    fn setting(&mut self, header: &mut Header, key: &str, value: &str, span: &Span) {
        let place = self.file.find_within(span, value);
        match key {
            "description" => header.description = Some(value.to_owned()),
            "schedule" => header.schedule = self.schedule(value, &place).unwrap_or(ModelSchedule::Manual),
            "shared" => match value {
                "true" => header.shared = Some(place),
                "false" => {}
                _ => {
                    self.report(codes::WRONG_TYPE, &place, "`shared` must be true or false");
                }
            },
            "cluster_by" => {
                for name in value.split(',').map(str::trim) {
                    match SourceName::new(name) {
                        Ok(name) => header.cluster_by.push(name),
                        Err(error) => {
                            self.report(codes::BAD_NAME, &place, error.to_string());
                        }
                    }
                }
                if header.cluster_by.len() > 4 {
                    self.report(codes::BAD_VALUE, &place, "a table is clustered by at most 4 columns");
                }
            }
            other => {
                let hint = suggest::hint(other, SETTINGS, "settings");
                self.report(codes::UNKNOWN_FIELD, span, format!("a model has no setting `{}`", cut(other)))
                    .hint(hint);
            }
        }
    }

    fn schedule(&mut self, value: &str, span: &Span) -> Option<ModelSchedule> {
        let (kind, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        let rest = rest.trim();
        match (kind, rest) {
            ("manual", "") => Some(ModelSchedule::Manual),
            ("on_change", "") => Some(ModelSchedule::OnChange { at_most_every: ON_CHANGE }),
            ("on_change", every) => match quantity::duration(every) {
                Some(every) => Some(ModelSchedule::OnChange { at_most_every: every }),
                None => {
                    self.report(codes::BAD_QUANTITY, span, format!("`{}` is not a duration", cut(every)))
                        .hint("write `on_change 10s`");
                    None
                }
            },
            ("cron", expression) => {
                let expression = expression.trim_matches('"').trim();
                match check_cron(expression) {
                    Ok(()) => Some(ModelSchedule::Cron(expression.to_owned())),
                    Err(why) => {
                        self.report(
                            codes::BAD_CRON,
                            span,
                            format!("`{}` is not a cron expression: {why}", cut(expression)),
                        )
                        .hint("write `cron 0 6 * * *` for 06:00 UTC");
                        None
                    }
                }
            }
            _ => {
                self.report(codes::MODEL_HEADER, span, format!("`{}` is not a schedule", cut(value)))
                    .hint("write `cron 0 6 * * *`, `on_change 10s` or `manual`");
                None
            }
        }
    }
}

/// The table that a model fills.
pub(crate) fn table(model: &Model) -> TableName {
    TableName::new(Zone::Gold, model.name.clone())
}
