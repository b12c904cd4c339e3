//! REST
use crate::api::PubsubApi;
pub(crate) fn router(_api: PubsubApi) -> axum::Router {
    axum::Router::new()
}
