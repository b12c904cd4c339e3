//! `GET /v1/pipelines`, `GET /v1/models`, `POST /v1/models/{name}/run`.

use axum::extract::State;
use axum::response::Response;
use serde_json::json as value;

use super::visible::json;
use crate::answers::Whole;
use crate::auth::Caller;
use crate::extract::Path;
use crate::operations::{runnable_model, visible_models, visible_pipelines};
use crate::problem::ApiProblem;
use crate::state::AppState;

pub async fn pipelines(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let whole = Whole::begin(&state, &caller, Whole::LIST_BYTES).await?;
    let seen = visible_pipelines(&caller.principal, state.operations.pipelines());
    Ok(whole.json(&value!({ "pipelines": seen }))?)
}

pub async fn models(State(state): State<AppState>, caller: Caller) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let whole = Whole::begin(&state, &caller, Whole::LIST_BYTES).await?;
    let seen = visible_models(&caller.principal, state.operations.models());
    Ok(whole.json(&value!({ "models": seen }))?)
}

pub async fn run_model(
    State(state): State<AppState>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiProblem> {
    caller.require_operator()?;
    let owner = runnable_model(&caller.principal, state.operations.models(), &name)?;
    tracing::info!(actor = %caller.principal.id, model = %name, "model run by command");
    // A client that leaves must not leave a model half run: the run goes on by itself.
    let run = tokio::spawn(async move { state.operations.run_model(owner.as_ref(), &name).await });
    let run = run
        .await
        .map_err(|_| levada_core::Problem::new(500, "internal", "the run of the model failed"))??;
    Ok(json(&run))
}
