//! Files checked against each other: names and tables that collide, models that read what
//! nothing fills, circles among models. Also writes the SQL of generated models, since
//! only here it is known which tables exist.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use levada_core::{SourceName, TableName, TenantId, Zone};

use crate::claims;
use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, Sink};
use crate::draft::{Join, ModelDraft, PipelineDraft};
use crate::gold;
use crate::model::{Model, ModelSchedule, Owner, Pipeline, Waiting};
use crate::model_file::{self, ON_CHANGE};
use crate::source::{SourceFile, Span};
use crate::suggest;

/// Whether a table will have rows.
#[derive(Debug, Clone, PartialEq)]
enum State {
    Live,
    /// Why it is not filled.
    Idle(String),
}

struct Table {
    owner: Owner,
    state: State,
    file: Arc<SourceFile>,
    span: Span,
}

#[derive(Default)]
struct Tables {
    by_name: BTreeMap<TableName, Vec<Table>>,
}

/// Whether somebody could see both, so that one name would mean two things.
fn overlap(a: &Owner, b: &Owner) -> bool {
    a == b || *a == Owner::Shared || *b == Owner::Shared
}

/// Whether a reader sees a table of an owner.
fn sees(reader: &Owner, owner: &Owner) -> bool {
    *owner == Owner::Shared || reader == owner
}

impl Tables {
    /// The table that a reader means by a name.
    fn find(&self, name: &TableName, reader: &Owner) -> Option<&Table> {
        self.by_name.get(name)?.iter().find(|t| sees(reader, &t.owner))
    }

    fn clash(&self, name: &TableName, owner: &Owner) -> Option<&Table> {
        self.by_name.get(name)?.iter().find(|t| overlap(&t.owner, owner))
    }

    fn add(&mut self, name: TableName, table: Table) {
        self.by_name.entry(name).or_default().push(table);
    }

    fn hint(&self, name: &TableName, reader: &Owner) -> String {
        let shown = name.to_string();
        let visible: Vec<String> = self
            .by_name
            .iter()
            .filter(|(_, tables)| tables.iter().any(|t| sees(reader, &t.owner)))
            .map(|(name, _)| name.to_string())
            .collect();
        suggest::hint(&shown, visible.iter().map(String::as_str), "tables")
    }
}

fn report<'s>(
    sink: &'s mut Sink,
    file: &SourceFile,
    code: &'static Code,
    span: &Span,
    message: String,
) -> &'s mut Diagnostic {
    sink.push(Diagnostic::at(file, code, span, message))
}

/// Checks the drafts against each other and gives what the project runs.
///
/// `broken` are the names of files that gave no draft: their tables are not called missing.
pub(crate) fn check(
    drafts: Vec<PipelineDraft>,
    models: Vec<ModelDraft>,
    broken: &[String],
    sink: &mut Sink,
) -> (Vec<Pipeline>, Vec<Model>) {
    let mut tables = Tables::default();
    names(&drafts, sink);
    claims::check(&drafts, sink);
    pipeline_tables(&drafts, &mut tables, sink);
    for model in &models {
        model_table(
            model_file::table(&model.model),
            &model.model.owner,
            &model.file,
            &model.span,
            &mut tables,
            sink,
        );
    }
    for draft in drafts.iter().filter(|d| d.gold.is_some()) {
        let span = draft.gold.as_ref().map_or(draft.name_span.clone(), |g| g.span.clone());
        model_table(gold::table(&draft.name), &draft.owner, &draft.file, &span, &mut tables, sink);
    }
    let mut all = models;
    let mut pipelines = Vec::new();
    for draft in drafts {
        let (pipeline, model) = finish(draft, &tables, sink);
        pipelines.extend(pipeline);
        all.extend(model);
    }
    let order = order(&all, sink);
    let models = resolve(all, &order, broken, &mut tables, sink);
    (pipelines, models)
}

fn place(file: &SourceFile, span: &Span) -> String {
    format!("{}:{}", file.path.display(), file.line_of(span.start))
}

fn names(drafts: &[PipelineDraft], sink: &mut Sink) {
    let mut seen: HashMap<&SourceName, Vec<&PipelineDraft>> = HashMap::new();
    for draft in drafts {
        let before = seen.entry(&draft.name).or_default();
        if let Some(first) = before.iter().find(|d| overlap(&d.owner, &draft.owner)) {
            let message = format!("a second pipeline `{}`", draft.name);
            let hint =
                format!("the first is at {}; rename one of them", place(&first.file, &first.name_span));
            report(sink, &draft.file, codes::DUPLICATE_PIPELINE, &draft.name_span, message).hint(hint);
        }
        before.push(draft);
    }
}

/// Bronze and the sink of every pipeline. Two of one name were reported already, so their
/// bronze tables and default sinks are not reported again.
fn pipeline_tables(drafts: &[PipelineDraft], tables: &mut Tables, sink: &mut Sink) {
    for draft in drafts {
        let bronze = TableName::new(Zone::Bronze, draft.name.clone());
        let live = |state: State| Table {
            owner: draft.owner.clone(),
            state,
            file: Arc::clone(&draft.file),
            span: draft.sink_span.clone(),
        };
        let (bronze_state, sink_state) = match &draft.pipeline {
            // Its errors stop the project; what reads it is not at fault.
            None if !draft.sound => (State::Live, State::Live),
            None => {
                let why = State::Idle(format!("`{}` does not run", draft.name));
                (why.clone(), why)
            }
            Some(p) if p.schema.is_none() => {
                (State::Live, State::Idle(format!("`{}` waits for its schema", draft.name)))
            }
            Some(_) => (State::Live, State::Live),
        };
        let named_alike = tables.clash(&bronze, &draft.owner).is_some();
        if let Some(first) = tables.clash(&draft.sink, &draft.owner)
            && !(named_alike && draft.sink.name == draft.name)
        {
            let message = format!("a second pipeline fills `{}`", draft.sink);
            let hint = format!(
                "the first is at {}; give one of them another `sink`",
                place(&first.file, &first.span)
            );
            report(sink, &draft.file, codes::DUPLICATE_SINK, &draft.sink_span, message).hint(hint);
        }
        tables.add(bronze, live(bronze_state));
        tables.add(draft.sink.clone(), live(sink_state));
    }
}

fn model_table(
    name: TableName,
    owner: &Owner,
    file: &Arc<SourceFile>,
    span: &Span,
    tables: &mut Tables,
    sink: &mut Sink,
) {
    if let Some(first) = tables.clash(&name, owner) {
        let hint = format!("the first is at {}; rename one of them", place(&first.file, &first.span));
        report(sink, file, codes::DUPLICATE_SINK, span, format!("`{name}` is filled already")).hint(hint);
    }
    tables.add(
        name,
        Table { owner: owner.clone(), state: State::Live, file: Arc::clone(file), span: span.clone() },
    );
}

/// The pipeline of a draft, and the model that its `silver_to_gold` generates.
fn finish(draft: PipelineDraft, tables: &Tables, sink: &mut Sink) -> (Option<Pipeline>, Option<ModelDraft>) {
    let PipelineDraft { name, owner, file, name_span, sink: silver, mut pipeline, gold, .. } = draft;
    let Some(gold) = gold else { return (pipeline, None) };
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut joins: Vec<&Join> = Vec::new();
    for join in &gold.joins {
        if tables.find(&join.table, &owner).is_some() {
            joins.push(join);
            continue;
        }
        let reason = format!("nothing fills `{}`", join.table);
        let hint = format!("{}; until then the join is left out", tables.hint(&join.table, &owner));
        report(sink, &file, codes::WAITING_TABLE, &join.span, reason.clone()).hint(hint);
        waiting.push(Waiting {
            code: codes::WAITING_TABLE.id.into(),
            step: format!("join {}", join.table),
            reason,
        });
    }
    // A join alone whose table is missing leaves nothing to do.
    let alone = gold.aggregate.is_none() && joins.is_empty();
    let lost = if alone { waiting.first().map(|w| w.reason.clone()) } else { None };
    let (sql, why) = match (lost.or(gold.waiting.clone()), gold::sql(&gold, &silver, &owner, &joins)) {
        (why, Ok(sql)) => (sql, why),
        (_, Err(unclear)) => {
            let code = codes::WAITING_AGGREGATE;
            let reason = unclear.message;
            report(sink, &file, code, &unclear.span, reason.clone()).hint(unclear.hint);
            waiting.push(Waiting {
                code: code.id.into(),
                step: "silver_to_gold".into(),
                reason: reason.clone(),
            });
            (String::new(), Some(reason))
        }
    };
    let mut references = vec![(silver, name_span)];
    references.extend(joins.iter().map(|j| (j.table.clone(), j.span.clone())));
    if let Some(pipeline) = &mut pipeline {
        pipeline.waiting.extend(waiting);
    }
    let model = Model {
        name,
        owner,
        file: file.path.clone(),
        sql,
        reads: references.iter().map(|(table, _)| table.clone()).collect(),
        schedule: ModelSchedule::OnChange { at_most_every: ON_CHANGE },
        description: Some(gold.description.clone()),
        cluster_by: Vec::new(),
        waiting: why,
    };
    (pipeline, Some(ModelDraft { model, file, span: gold.span, references, generated: true }))
}

/// The models in the order in which they can run; circles are reported.
fn order(models: &[ModelDraft], sink: &mut Sink) -> Vec<usize> {
    let mut fillers: HashMap<TableName, Vec<usize>> = HashMap::new();
    for (at, draft) in models.iter().enumerate() {
        fillers.entry(model_file::table(&draft.model)).or_default().push(at);
    }
    let mut sort =
        Sort { models, fillers, marks: vec![Mark::New; models.len()], order: Vec::new(), path: Vec::new() };
    for at in 0..models.len() {
        sort.visit(at, sink);
    }
    sort.order
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

struct Sort<'a> {
    models: &'a [ModelDraft],
    fillers: HashMap<TableName, Vec<usize>>,
    marks: Vec<Mark>,
    order: Vec<usize>,
    path: Vec<usize>,
}

impl Sort<'_> {
    /// Depth first with its own stack, so that a long chain of models cannot exhaust ours.
    fn visit(&mut self, start: usize, sink: &mut Sink) {
        if self.marks[start] != Mark::New {
            return;
        }
        let mut stack = vec![(start, 0usize)];
        self.open(start);
        while let Some((at, next)) = stack.pop() {
            let draft = &self.models[at];
            let Some((table, span)) = draft.references.get(next) else {
                self.marks[at] = Mark::Done;
                self.path.pop();
                self.order.push(at);
                continue;
            };
            stack.push((at, next + 1));
            let reader = &draft.model.owner;
            let filler = self
                .fillers
                .get(table)
                .and_then(|all| all.iter().copied().find(|i| sees(reader, &self.models[*i].model.owner)));
            match filler.map(|i| (i, self.marks[i])) {
                Some((i, Mark::New)) => {
                    self.open(i);
                    stack.push((i, 0));
                }
                Some((i, Mark::Open)) => self.circle(i, draft, span, sink),
                _ => {}
            }
        }
    }

    fn open(&mut self, at: usize) {
        self.marks[at] = Mark::Open;
        self.path.push(at);
    }

    fn circle(&self, back_to: usize, from: &ModelDraft, span: &Span, sink: &mut Sink) {
        let start = self.path.iter().position(|i| *i == back_to).unwrap_or(0);
        let mut round: Vec<String> = self.path[start..]
            .iter()
            .map(|i| model_file::table(&self.models[*i].model).to_string())
            .collect();
        round.push(model_file::table(&self.models[back_to].model).to_string());
        let message = match round.as_slice() {
            [only, _] => format!("`{only}` reads itself"),
            _ => format!("models in a circle: {}", round.join(" reads ")),
        };
        report(sink, &from.file, codes::CYCLE, span, message)
            .hint("take this reference out, or read a silver table instead");
    }
}

/// Checks what models read, in an order in which a waiting model makes those after it wait.
fn resolve(
    models: Vec<ModelDraft>,
    order: &[usize],
    broken: &[String],
    tables: &mut Tables,
    sink: &mut Sink,
) -> Vec<Model> {
    let mut slots: Vec<Option<ModelDraft>> = models.into_iter().map(Some).collect();
    let mut out = Vec::new();
    for at in order {
        let Some(mut draft) = slots[*at].take() else { continue };
        let owner = draft.model.owner.clone();
        for (name, span) in &draft.references {
            match tables.find(name, &owner).map(|t| t.state.clone()) {
                Some(State::Live) => {}
                Some(State::Idle(why)) => {
                    // A generated model reads its own connector, which was reported itself.
                    if !draft.generated {
                        let message = format!("`{name}` has no rows yet: {why}");
                        report(sink, &draft.file, codes::WAITING_TABLE, span, message)
                            .hint("the model runs once the table is there");
                    }
                    draft.model.waiting.get_or_insert(why);
                }
                None if broken.iter().any(|stem| stem == name.name.as_str()) => {}
                None => dangling(name, span, &draft, tables, sink),
            }
        }
        if let Some(why) = &draft.model.waiting {
            let filled = model_file::table(&draft.model);
            let all = tables.by_name.get_mut(&filled);
            if let Some(table) = all.and_then(|all| all.iter_mut().find(|t| t.owner == owner)) {
                table.state = State::Idle(why.clone());
            }
        }
        out.push(draft.model);
    }
    out
}

fn dangling(name: &TableName, span: &Span, draft: &ModelDraft, tables: &Tables, sink: &mut Sink) {
    let owner = &draft.model.owner;
    let others: Vec<&TenantId> = tables
        .by_name
        .get(name)
        .into_iter()
        .flatten()
        .filter_map(|t| match &t.owner {
            Owner::Tenant(tenant) => Some(tenant),
            Owner::Shared => None,
        })
        .collect();
    match (others.first(), owner) {
        (Some(tenant), Owner::Shared) => {
            let message = format!("a shared model cannot read `{name}`, which belongs to tenant `{tenant}`");
            report(sink, &draft.file, codes::MODEL_SHARED, span, message)
                .hint("take `--! shared: true` out, or read shared tables only");
        }
        (Some(tenant), _) => {
            let hint = format!(
                "`{name}` belongs to tenant `{tenant}`, whose models lie in tenants/{tenant}/models/"
            );
            report(sink, &draft.file, codes::UNKNOWN_TABLE, span, format!("nothing fills `{name}` here"))
                .hint(hint);
        }
        (None, _) => {
            let hint = tables.hint(name, owner);
            report(sink, &draft.file, codes::UNKNOWN_TABLE, span, format!("nothing fills `{name}`"))
                .hint(hint);
        }
    }
}
