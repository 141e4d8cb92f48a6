use std::collections::BTreeMap;

use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Patch, WebhookEndpointId};
use tenantry_domain::webhooks::{
    DisableReason, NewWebhookEndpoint, SignatureKind, WebhookEndpoint, WebhookEndpointPatch,
};
use tenantry_tenancy::Cx;
use tenantry_tenancy::webhooks::endpoint::{self, DEFAULT_GRACE_SECONDS, IssuedEndpoint};
use utoipa::ToSchema;

use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, IfMatch, IfNoneMatch, PageView, Paged, created, entity,
    no_content,
    permission::{ReadWebhooks, WriteWebhooks},
};

/// An endpoint of webhooks, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookEndpoint, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "url": "https://hooks.example.com/tenantry", "description": "Orders for the warehouse",
    "event_types": ["task.*"], "rate_limit": 50, "ordered": false, "signature": "v1", "public_key": null,
    "header_names": ["authorization"], "enabled": true, "disabled_reason": null, "disabled_at": null, "former_secret_until": null,
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct WebhookEndpointView {
    #[schema(value_type = Uuid)]
    id: WebhookEndpointId,
    /// Where webhooks are sent, in the normal form of the URL standard.
    url: String,
    #[schema(required = true)]
    description: Option<String>,
    /// The types of events that it gets, and groups of them such as `task.*`. Empty: every event.
    event_types: Vec<String>,
    /// The most attempts of a second. Null: no limit.
    #[schema(required = true)]
    rate_limit: Option<u32>,
    /// Whether an event waits until those before it were delivered or given up.
    ordered: bool,
    #[schema(value_type = schema::WebhookSignature)]
    signature: SignatureKind,
    /// The key that verifies `v1a` signatures (`whpk_`). Null for `v1`.
    #[schema(required = true)]
    public_key: Option<String>,
    /// The names of the custom headers, in lower case. Their values are not shown.
    header_names: Vec<String>,
    enabled: bool,
    /// Why the server has disabled it. Null while it is enabled, and where an admin has disabled it.
    #[schema(value_type = Option<schema::WebhookDisableReason>, required = true)]
    disabled_reason: Option<DisableReason>,
    #[schema(required = true)]
    disabled_at: Option<DateTime<Utc>>,
    /// Until when the secrets before the last rotation sign as well.
    #[schema(required = true)]
    former_secret_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// An endpoint with its secret, which is shown once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssuedWebhookEndpoint)]
pub(crate) struct IssuedWebhookEndpointView {
    #[serde(flatten)]
    endpoint: WebhookEndpointView,
    /// The secret that signs and verifies (`whsec_`). Null for `v1a`: the receiver verifies with `public_key`.
    #[schema(required = true)]
    secret: Option<String>,
}

/// An endpoint to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhookEndpoint, examples(json!({"url": "https://hooks.example.com/tenantry", "event_types": ["task.*"]})))]
pub(crate) struct NewWebhookEndpointBody {
    /// An `https` URL at a public address and an allowed port, without user, password and fragment.
    #[schema(max_length = 2_000)]
    url: String,
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Types of `GET /api/v1/webhooks/event-types`, and groups of them such as `task.*`. Every event when absent or empty.
    #[schema(max_items = 100)]
    event_types: Option<Vec<String>>,
    /// The most attempts of a second. No limit when absent.
    #[schema(minimum = 1, maximum = 1_000)]
    rate_limit: Option<i64>,
    /// Headers that are added to the requests, such as `Authorization`; 10 at most. They are stored sealed.
    headers: Option<BTreeMap<String, String>>,
    /// Whether an event waits until those before it were delivered or given up; `false` when absent.
    ordered: Option<bool>,
    /// Whether it gets events from now on; `true` when absent.
    enabled: Option<bool>,
    /// How events are signed; `v1` when absent.
    #[schema(value_type = schema::WebhookSignature, required = false)]
    signature: Option<SignatureKind>,
}

/// A change of an endpoint; fields that are absent stay as they are.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeWebhookEndpoint, examples(json!({"event_types": ["task.*", "project.created"]})))]
pub(crate) struct ChangeWebhookEndpointBody {
    /// A URL with another scheme, host or port needs `headers` beside it, where the endpoint has custom headers.
    #[serde(default)]
    #[schema(value_type = String, required = false, max_length = 2_000)]
    url: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 500)]
    description: Patch<String>,
    /// Null: every event.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, max_items = 100)]
    event_types: Patch<Vec<String>>,
    /// Null: no limit.
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000)]
    rate_limit: Patch<i64>,
    /// All custom headers, in place of those before. Null: none.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Patch<BTreeMap<String, String>>,
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    ordered: Patch<bool>,
    /// `true` enables an endpoint that was disabled: it begins without failures.
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    enabled: Patch<bool>,
}

/// How a secret is rotated.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateWebhookSecret, examples(json!({"grace_period_seconds": 86_400})))]
pub(crate) struct RotateWebhookSecretBody {
    /// For how long the secrets before sign as well: up to a week, a day when absent. 0: they sign nothing more.
    #[schema(minimum = 0, maximum = 604_800)]
    grace_period_seconds: Option<i64>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/webhooks/endpoints").get(list).post(create))
        .service(
            Endpoint::at("/webhooks/endpoints/{id}")
                .get(read)
                .patch(update)
                .delete(delete),
        )
        .service(Endpoint::at("/webhooks/endpoints/{id}/rotate-secret").post(rotate));
}

/// List webhook endpoints
///
/// Newest first. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/webhooks/endpoints", operation_id = "list_webhook_endpoints", tag = "Webhooks",
    params(PageParams),
    responses((status = 200, description = "The endpoints.", body = PageView<WebhookEndpointView>, headers(("Link")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadWebhooks>, query: Paged<NoParams>) -> Answer {
    let page = endpoint::list(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(WebhookEndpointView::from)))
}

/// Create a webhook endpoint
///
/// The secret is shown once. The name in the URL is not resolved now: its addresses are checked at each delivery. The plan limits how many
/// endpoints a tenant has. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/webhooks/endpoints", operation_id = "create_webhook_endpoint", tag = "Webhooks",
    params(IdempotencyKey), request_body = NewWebhookEndpointBody,
    responses((status = 201, description = "The endpoint.", body = IssuedWebhookEndpointView, headers(("ETag"), ("Location")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "plan_limit_reached", "conflict"]))),
)]
pub(crate) async fn create(
    cx: Ctx<WriteWebhooks>,
    key: IdempotencyKey,
    body: Body<NewWebhookEndpointBody>,
) -> Answer {
    let create = async |cx: &Cx| endpoint::create(cx, body.0.into()).await;
    key.once(&cx, create, |issued: IssuedEndpoint| {
        let location = format!("/api/v1/webhooks/endpoints/{}", issued.endpoint.id);
        let version = issued.endpoint.version;
        created(&location, Some(version), &IssuedWebhookEndpointView::from(issued))
    })
    .await
}

/// Get a webhook endpoint
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/webhooks/endpoints/{id}", operation_id = "get_webhook_endpoint", tag = "Webhooks",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The endpoint.", body = WebhookEndpointView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadWebhooks>, id: Id<WebhookEndpointId>, seen: IfNoneMatch) -> Answer {
    let endpoint = endpoint::get(&cx, id.0).await?;
    Ok(seen.answer(endpoint.version, &WebhookEndpointView::from(endpoint)))
}

/// Update a webhook endpoint
///
/// A merge patch. `enabled: true` enables an endpoint that was disabled. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/webhooks/endpoints/{id}", operation_id = "update_webhook_endpoint", tag = "Webhooks",
    params(("id" = Uuid, Path), IfMatch), request_body = ChangeWebhookEndpointBody,
    responses((status = 200, description = "The updated endpoint.", body = WebhookEndpointView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "conflict"]))),
)]
pub(crate) async fn update(
    cx: Ctx<WriteWebhooks>,
    id: Id<WebhookEndpointId>,
    when: IfMatch,
    body: Body<ChangeWebhookEndpointBody>,
) -> Answer {
    let endpoint = endpoint::update(&cx, id.0, &when.0, body.0.into()).await?;
    Ok(entity(endpoint.version, &WebhookEndpointView::from(endpoint)))
}

/// Delete a webhook endpoint
///
/// Nothing more is sent to it. Minimum role: admin.
#[utoipa::path(
    delete, path = "/api/v1/webhooks/endpoints/{id}", operation_id = "delete_webhook_endpoint", tag = "Webhooks",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The endpoint is deleted.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn delete(cx: Ctx<WriteWebhooks>, id: Id<WebhookEndpointId>, when: IfMatch) -> Answer {
    endpoint::delete(&cx, id.0, &when.0).await?;
    Ok(no_content())
}

/// Rotate the secret of a webhook endpoint
///
/// Returns the endpoint with a new secret, which is shown once. The secrets before sign as well for `grace_period_seconds`, so that the
/// receiver can change in between; at most five sign at once. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/webhooks/endpoints/{id}/rotate-secret", operation_id = "rotate_webhook_secret", tag = "Webhooks",
    params(("id" = Uuid, Path), IdempotencyKey), request_body = RotateWebhookSecretBody,
    responses((status = 200, description = "The endpoint.", body = IssuedWebhookEndpointView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "conflict"]))),
)]
pub(crate) async fn rotate(
    cx: Ctx<WriteWebhooks>,
    id: Id<WebhookEndpointId>,
    key: IdempotencyKey,
    body: Body<RotateWebhookSecretBody>,
) -> Answer {
    let grace = body.grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    let rotate = async |cx: &Cx| endpoint::rotate(cx, id.0, grace).await;
    key.once(&cx, rotate, |issued: IssuedEndpoint| {
        entity(issued.endpoint.version, &IssuedWebhookEndpointView::from(issued))
    })
    .await
}

impl From<WebhookEndpoint> for WebhookEndpointView {
    fn from(endpoint: WebhookEndpoint) -> Self {
        Self {
            id: endpoint.id,
            url: endpoint.url.as_str().to_owned(),
            description: endpoint.description,
            event_types: endpoint.filter.texts(),
            rate_limit: endpoint.rate_limit,
            ordered: endpoint.ordered,
            signature: endpoint.signature,
            public_key: endpoint.public_key,
            header_names: endpoint.header_names,
            enabled: endpoint.state.is_enabled(),
            disabled_reason: endpoint.state.disabled_reason(),
            disabled_at: endpoint.state.disabled_at(),
            former_secret_until: endpoint.former_until,
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
            version: endpoint.version,
        }
    }
}

impl From<IssuedEndpoint> for IssuedWebhookEndpointView {
    fn from(IssuedEndpoint { endpoint, secret }: IssuedEndpoint) -> Self {
        Self {
            endpoint: endpoint.into(),
            secret: secret.map(|secret| secret.expose().to_owned()),
        }
    }
}

impl From<NewWebhookEndpointBody> for NewWebhookEndpoint {
    fn from(body: NewWebhookEndpointBody) -> Self {
        Self {
            url: body.url,
            description: body.description,
            event_types: body.event_types.unwrap_or_default(),
            rate_limit: body.rate_limit,
            headers: body.headers.unwrap_or_default(),
            ordered: body.ordered.unwrap_or(false),
            enabled: body.enabled.unwrap_or(true),
            signature: body.signature.unwrap_or(SignatureKind::Hmac),
        }
    }
}

impl From<ChangeWebhookEndpointBody> for WebhookEndpointPatch {
    fn from(body: ChangeWebhookEndpointBody) -> Self {
        Self {
            url: body.url,
            description: body.description,
            event_types: body.event_types,
            rate_limit: body.rate_limit,
            headers: body.headers,
            ordered: body.ordered,
            enabled: body.enabled,
        }
    }
}
