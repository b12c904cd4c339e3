//! The check of a project that only the engines can make: every step is built and every
//! model planned, on a lake that holds the project's tables and no rows.
//!
//! It takes the way that a start takes, so what passes here fails at a start only for what
//! the data folder holds, such as a table whose column had another type.

use std::collections::BTreeSet;

use levada_config::model::{Model, Owner, Pipeline, Project, Step};
use levada_config::{Place, Refused};
use levada_core::{Problem, TableName, TenantId};
use levada_lake::{Lake, TableKey};

use crate::engine::{self, Maker};
use crate::error::FlowError;
use crate::models;
use crate::names;
use crate::rows::ROW;
use crate::steps::enrich::EnrichContext;

/// Plans all pipelines and models. `lake` is an empty one on a disk in memory; nothing is called
/// or read. What stands in for a part that is refused is not reported again.
pub async fn rehearse(project: &Project, lake: &Lake, enrich: &EnrichContext) -> Vec<Refused> {
    let mut rehearsal = Rehearsal { lake, refused: Vec::new(), unknown: BTreeSet::new() };
    let tenants: Vec<TenantId> = project.tenants.iter().map(|t| t.id.clone()).collect();
    for pipeline in &project.pipelines {
        rehearsal.pipeline(pipeline, &tenants, enrich).await;
    }
    for model in models::schedule::in_order(&project.models) {
        rehearsal.model(&model).await;
    }
    rehearsal.refused
}

struct Rehearsal<'a> {
    lake: &'a Lake,
    refused: Vec<Refused>,
    /// Tables whose columns nobody knows, since what fills them is refused or waits.
    unknown: BTreeSet<TableKey>,
}

impl Rehearsal<'_> {
    async fn pipeline(&mut self, pipeline: &Pipeline, tenants: &[TenantId], enrich: &EnrichContext) {
        match &pipeline.owner {
            Owner::Tenant(tenant) => self.lake.declare_source(&pipeline.name, tenant),
            Owner::Shared => tenants.iter().for_each(|t| self.lake.declare_source(&pipeline.name, t)),
        }
        let maker = Maker { lake: self.lake, enrich, owner: &pipeline.owner };
        let table = match engine::build(&maker, pipeline) {
            Ok(Some(works)) => engine::table_spec(pipeline, &works.chain).map_err(FlowError::from),
            // Without a schema it only archives.
            Ok(None) => {
                self.unknown.insert(engine::table_key(pipeline));
                return;
            }
            Err(error) => Err(error),
        };
        let declared = match table {
            Ok(spec) => self.lake.ensure_table(&spec).await.map_err(FlowError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = declared {
            self.unknown.insert(engine::table_key(pipeline));
            self.refused.push(refused_pipeline(pipeline, &error));
        }
    }

    async fn model(&mut self, model: &Model) {
        let key = models::table_key(model);
        let blind = model.reads.iter().any(|table| self.is_unknown(table, &model.owner));
        if model.waiting.is_some() || blind {
            self.unknown.insert(key);
            return;
        }
        if let Err(problem) = self.declare(model).await {
            self.unknown.insert(key);
            self.refused.push(Refused {
                place: Place::Model { query: model.sql.clone() },
                owner: model.owner.clone(),
                name: model.name.clone(),
                reason: problem.detail,
                hint: problem.hint,
                at: problem.at,
            });
        }
    }

    async fn declare(&self, model: &Model) -> Result<(), Problem> {
        let schema = self.lake.rehearse_model(&model.sql, &names::lake_owner(&model.owner)).await?;
        let spec = models::table_spec(model, schema)?;
        let refused = |e: levada_lake::LakeError| Problem::new(422, "model-failed", e.to_string());
        self.lake.ensure_table(&spec).await.map_err(refused)
    }

    /// A tenant's own table comes before a shared one of that name.
    fn is_unknown(&self, table: &TableName, reader: &Owner) -> bool {
        [names::lake_owner(reader), levada_lake::Owner::Shared]
            .into_iter()
            .any(|owner| self.unknown.contains(&TableKey::new(owner, table.clone())))
    }
}

fn refused_pipeline(pipeline: &Pipeline, error: &FlowError) -> Refused {
    let refused = Refused {
        place: Place::Pipeline,
        owner: pipeline.owner.clone(),
        name: pipeline.name.clone(),
        reason: error.to_string(),
        hint: None,
        at: None,
    };
    let FlowError::Build(build) = error else { return refused };
    let place = match build.index {
        Some(index) => {
            let query = pipeline.steps.get(index).and_then(|step| match step {
                Step::Sql { query } => Some(query.clone()),
                _ => None,
            });
            Place::Step { index, query }
        }
        None => Place::Pipeline,
    };
    match &build.answer {
        Some(problem) => Refused {
            place,
            reason: problem.detail.clone(),
            // The column by which a row finds its record is nobody's to name.
            hint: problem.hint.as_ref().map(|hint| hint.replace(&format!(", {ROW}"), "")),
            at: problem.at,
            ..refused
        },
        None => Refused { place, reason: format!("{}: {}", build.step, build.reason), ..refused },
    }
}
