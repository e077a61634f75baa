//! Whether the service is there at all.

use axum::Json;

/// Ping This Api
///
/// Return 200 to demonstrate that this REST API is reachable and can execute.
#[utoipa::path(
    get,
    path = "/healthcheck",
    tag = "Admin",
    operation_id = "ping_this_api_healthcheck_get",
    responses((status = 200, description = "Successful Response", content_type = "application/json", body = serde_json::Value)),
)]
pub async fn healthcheck() -> Json<&'static str> {
    Json("200 OK")
}
