//! Models: their rows, and running one by command.

use levada_console::{Health, ModelRow};
use levada_core::{Principal, Problem, TenantSet};
use levada_flow::{ModelState, ModelStatus};

use super::{OPERATOR_KNOWS, PlatformData, key, owner_text, sees_whole};
use crate::operations::{owner_tenant, schedule_text, sees};

impl PlatformData {
    pub(super) fn model_rows(&self, principal: &Principal) -> Vec<ModelRow> {
        let visible = self.engines.models().into_iter().filter(|m| sees(principal, &m.owner));
        visible
            .map(|m| {
                let whole = sees_whole(principal, &m.owner);
                model_row(m, whole)
            })
            .collect()
    }

    pub(super) async fn run_one_model(&self, principal: &Principal, wanted: &str) -> Result<String, Problem> {
        let unknown = || Problem::new(404, "model-unknown", "there is no such model");
        if !principal.may_operate() {
            return Err(Problem::new(403, "role-forbidden", "running a model takes the role engineer"));
        }
        let models = self.engines.models();
        let model = models
            .iter()
            .find(|m| sees(principal, &m.owner) && key(&m.owner, m.name.as_str()) == wanted)
            .ok_or_else(unknown)?;
        let name = match owner_tenant(&model.owner) {
            Some(tenant) => format!("{tenant}/{}", model.name),
            None if principal.tenants == TenantSet::All => model.name.to_string(),
            None => {
                return Err(Problem::new(
                    403,
                    "role-forbidden",
                    "a model that tenants share is run by the platform's operators",
                ));
            }
        };
        let done = self.engines.run_model(&name).await?;
        Ok(format!(
            "gold.{} holds {} rows now, made in {} ms",
            done.name,
            done.rows.unwrap_or(0),
            done.duration_ms.unwrap_or(0)
        ))
    }
}

fn model_row(status: ModelStatus, whole: bool) -> ModelRow {
    let (health, note) = match &status.state {
        ModelState::Failed { reason } if whole => (Health::Failing, Some(reason.clone())),
        ModelState::Failed { .. } => (Health::Failing, Some(OPERATOR_KNOWS.to_owned())),
        ModelState::Waiting { reason } => (Health::Waiting, Some(reason.clone())),
        ModelState::Running | ModelState::Idle if status.last_run_ms.is_some() => (Health::Healthy, None),
        ModelState::Running | ModelState::Idle => (Health::Idle, None),
    };
    ModelRow {
        key: key(&status.owner, status.name.as_str()),
        name: status.name.to_string(),
        owner: owner_text(&status.owner),
        table: format!("gold.{}", status.name),
        depends_on: status.reads.iter().map(ToString::to_string).collect(),
        schedule: Some(schedule_text(&status.schedule)),
        rows: status.rows.filter(|_| whole),
        last_run_ms: status.last_run_ms,
        last_duration_ms: status.duration_ms,
        health,
        note,
    }
}
