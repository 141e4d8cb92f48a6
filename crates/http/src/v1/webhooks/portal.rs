use actix_web::HttpResponse;
use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_tenancy::webhooks::portal::{self, IssuedPortalToken};
use utoipa::ToSchema;

use crate::{Answer, Body, Ctx, Endpoint, permission::OpenWebhookPortal};

/// How long a portal token is to live.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenWebhookPortal, examples(json!({"expires_in": 900})))]
pub(crate) struct PortalBody {
    /// In seconds; 900 when absent. The token lives no longer than the idle timeout of sessions.
    #[schema(minimum = 60, maximum = 3_600)]
    expires_in: Option<i64>,
}

/// A portal token, which is shown once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookPortalToken, examples(json!({
    "token": "eyJ0eXAiOiJhdCtqd3QifQ…", "token_type": "Bearer", "expires_in": 900, "expires_at": "2026-01-31T12:15:00Z",
})))]
pub(crate) struct PortalTokenView {
    /// The token, for `Authorization: Bearer`. It opens the operations below `/api/v1/webhooks`, and no other.
    token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// For how many seconds the token is accepted.
    expires_in: i64,
    expires_at: DateTime<Utc>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/webhooks/portal").post(open));
}

/// Issue a portal token
///
/// The token opens the operations below `/api/v1/webhooks` in the name of the caller, and no other; it issues no further tokens. Put it
/// behind a link to a page on which endpoints are managed. It ends after `expires_in` seconds, with the session in which it was issued,
/// and with the caller's role. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/webhooks/portal", operation_id = "open_webhook_portal", tag = "Webhooks",
    request_body = PortalBody,
    responses((status = 200, description = "The token.", body = PortalTokenView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended"]))),
)]
pub(crate) async fn open(cx: Ctx<OpenWebhookPortal>, body: Body<PortalBody>) -> Answer {
    let issued = portal::open(&cx, body.expires_in).await?;
    Ok(HttpResponse::Ok().json(PortalTokenView::from(issued)))
}

impl From<IssuedPortalToken> for PortalTokenView {
    fn from(issued: IssuedPortalToken) -> Self {
        Self {
            token: issued.token,
            token_type: "Bearer",
            expires_in: issued.expires_in,
            expires_at: issued.expires_at,
        }
    }
}
