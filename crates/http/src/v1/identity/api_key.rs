use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{ApiKey, ApiKeyPatch, NewApiKey};
use tenantry_domain::kernel::{ApiKeyId, Patch, UserId};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::api_key::{self, Issued};
use utoipa::ToSchema;

use crate::extract::page::{NoParams, PageParams};
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, IfMatch, IfNoneMatch, Moment, PageView, Paged, created,
    entity, no_content,
    permission::{ManageApiKeys, ReadApiKeys, RevokeApiKeys, RotateApiKeys},
};

/// A key for programs, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "name": "CI", "scopes": ["tasks.read", "tasks.write"],
    "service_account": false, "created_by": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "allowed_networks": ["10.0.0.0/8"],
    "expires_at": "2026-04-30T12:00:00Z", "last_used_at": null, "former_secret_until": null,
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct ApiKeyView {
    #[schema(value_type = Uuid)]
    id: ApiKeyId,
    name: String,
    /// The permissions of the key. A name that `GET /api/v1/permissions` does not list grants nothing.
    scopes: Vec<String>,
    /// Whether the key belongs to the tenant. Otherwise it can do at most what its creator can.
    service_account: bool,
    /// The user who created the key.
    #[schema(value_type = Uuid)]
    created_by: UserId,
    /// The networks that the key can be used from. Null: from every address.
    #[schema(required = true)]
    allowed_networks: Option<Vec<String>>,
    expires_at: DateTime<Utc>,
    /// When the key was last used, to about five minutes.
    #[schema(required = true)]
    last_used_at: Option<DateTime<Utc>>,
    /// Until when the secret before the last rotation is accepted too.
    #[schema(required = true)]
    former_secret_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// A key with its text, which is shown once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IssuedApiKey)]
pub(crate) struct IssuedApiKeyView {
    #[serde(flatten)]
    api_key: ApiKeyView,
    /// The key, for `Authorization: Bearer` or `X-API-Key`. It is shown this once.
    #[schema(pattern = "^tk_[a-z0-9]{1,16}_[0-9A-Za-z]{43}_[0-9A-Za-z]{49}$")]
    key: String,
}

/// A key to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiKey, examples(json!({"name": "CI", "scopes": ["tasks.read", "tasks.write"]})))]
pub(crate) struct NewApiKeyBody {
    #[schema(min_length = 1, max_length = 120)]
    name: String,
    /// Permissions with `scope: true` in `GET /api/v1/permissions`.
    #[schema(min_items = 1)]
    scopes: Vec<String>,
    /// In 90 days when absent; at most 366 days from now. Required for a service account.
    #[schema(value_type = DateTime<Utc>, required = false)]
    expires_at: Option<Moment>,
    /// Networks in CIDR notation that the key can be used from. From every address when absent.
    #[schema(min_items = 1, max_items = 50)]
    allowed_networks: Option<Vec<String>>,
    /// Whether the key belongs to the tenant and not to its creator.
    service_account: Option<bool>,
}

/// A change of a key; fields that are absent stay as they are.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeApiKey, examples(json!({"expires_at": "2026-12-31T12:00:00Z"})))]
pub(crate) struct ChangeApiKeyBody {
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 120)]
    name: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Vec<String>, required = false, min_items = 1)]
    scopes: Patch<Vec<String>>,
    /// Earlier or later; at most 366 days from now.
    #[serde(default)]
    #[schema(value_type = DateTime<Utc>, required = false)]
    expires_at: Patch<Moment>,
    /// Null: from every address.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 50)]
    allowed_networks: Patch<Vec<String>>,
}

/// How a key is rotated.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateApiKey, examples(json!({"overlap_seconds": 86_400})))]
pub(crate) struct RotateApiKeyBody {
    /// For how long the present secret is accepted beside the new one: up to a week, not at all when 0 or absent.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 604_800)]
    overlap_seconds: i64,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/api-keys").get(list).post(create))
        .service(
            Endpoint::at("/api-keys/{id}")
                .get(read)
                .patch(update)
                .delete(revoke),
        )
        .service(Endpoint::at("/api-keys/{id}/rotate").post(rotate));
}

/// List API keys
///
/// Returns the keys that are not revoked, newest first. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/api-keys", operation_id = "list_api_keys", tag = "API keys",
    params(PageParams),
    responses((status = 200, description = "The keys.", body = PageView<ApiKeyView>, headers(("Link")))),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadApiKeys>, query: Paged<NoParams>) -> Answer {
    let page = api_key::list(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(ApiKeyView::from)))
}

/// Create an API key
///
/// The key is shown once. Its scopes must be permissions of the caller; later it can do at most what its creator can then,
/// unless it is a service account's. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/api-keys", operation_id = "create_api_key", tag = "API keys",
    params(IdempotencyKey), request_body = NewApiKeyBody,
    responses((status = 201, description = "The key.", body = IssuedApiKeyView, headers(("ETag"), ("Location")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "conflict"]))),
)]
pub(crate) async fn create(cx: Ctx<ManageApiKeys>, key: IdempotencyKey, body: Body<NewApiKeyBody>) -> Answer {
    let create = async |cx: &Cx| api_key::create(cx, body.0.into()).await;
    key.once(&cx, create, |issued: Issued| {
        let location = format!("/api/v1/api-keys/{}", issued.key.id);
        created(
            &location,
            Some(issued.key.version),
            &IssuedApiKeyView::from(issued),
        )
    })
    .await
}

/// Get an API key
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/api-keys/{id}", operation_id = "get_api_key", tag = "API keys",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The key.", body = ApiKeyView, headers(("ETag")))),
    security(("bearer" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadApiKeys>, id: Id<ApiKeyId>, seen: IfNoneMatch) -> Answer {
    let key = api_key::get(&cx, id.0).await?;
    Ok(seen.answer(key.version, &ApiKeyView::from(key)))
}

/// Update an API key
///
/// A merge patch. New scopes must be permissions of the caller. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/api-keys/{id}", operation_id = "update_api_key", tag = "API keys",
    params(("id" = Uuid, Path), IfMatch), request_body = ChangeApiKeyBody,
    responses((status = 200, description = "The updated key.", body = ApiKeyView, headers(("ETag")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended"]))),
)]
pub(crate) async fn update(
    cx: Ctx<ManageApiKeys>,
    id: Id<ApiKeyId>,
    when: IfMatch,
    body: Body<ChangeApiKeyBody>,
) -> Answer {
    let key = api_key::update(&cx, id.0, &when.0, body.0.into()).await?;
    Ok(entity(key.version, &ApiKeyView::from(key)))
}

/// Revoke an API key
///
/// The key is refused at once. Works in a suspended tenant too. Minimum role: admin.
#[utoipa::path(
    delete, path = "/api/v1/api-keys/{id}", operation_id = "revoke_api_key", tag = "API keys",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The key is revoked.")),
    security(("bearer" = [])),
)]
pub(crate) async fn revoke(cx: Ctx<RevokeApiKeys>, id: Id<ApiKeyId>, when: IfMatch) -> Answer {
    api_key::revoke(&cx, id.0, &when.0).await?;
    Ok(no_content())
}

/// Rotate an API key
///
/// Returns the key with a new secret, which is shown once. The present secret is accepted for `overlap_seconds` more; one
/// that was replaced earlier no longer. The key of a service account may rotate itself with its present secret (403 `forbidden`
/// with a former one). A personal key is rotated by the user who created it alone (403 `forbidden` for other admins, who may revoke it).
/// That user is notified. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/api-keys/{id}/rotate", operation_id = "rotate_api_key", tag = "API keys",
    params(("id" = Uuid, Path), IdempotencyKey), request_body = RotateApiKeyBody,
    responses((status = 201, description = "The key.", body = IssuedApiKeyView, headers(("ETag"), ("Location")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "conflict"]))),
)]
pub(crate) async fn rotate(
    cx: Ctx<RotateApiKeys>,
    id: Id<ApiKeyId>,
    key: IdempotencyKey,
    body: Body<RotateApiKeyBody>,
) -> Answer {
    let rotate = async |cx: &Cx| api_key::rotate(cx, id.0, body.0.overlap_seconds).await;
    key.once(&cx, rotate, |issued: Issued| {
        let location = format!("/api/v1/api-keys/{}", issued.key.id);
        created(
            &location,
            Some(issued.key.version),
            &IssuedApiKeyView::from(issued),
        )
    })
    .await
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        let networks: Vec<_> = key.allowed_networks.iter().map(ToString::to_string).collect();
        Self {
            id: key.id,
            name: key.name,
            scopes: key.scopes.names().to_vec(),
            service_account: key.service_account,
            created_by: key.creator,
            allowed_networks: (!networks.is_empty()).then_some(networks),
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            former_secret_until: key.former.map(|former| former.until),
            created_at: key.created_at,
            updated_at: key.updated_at,
            version: key.version,
        }
    }
}

impl From<Issued> for IssuedApiKeyView {
    fn from(Issued { key, issued }: Issued) -> Self {
        Self {
            api_key: key.into(),
            key: issued.text,
        }
    }
}

impl From<NewApiKeyBody> for NewApiKey {
    fn from(body: NewApiKeyBody) -> Self {
        Self {
            name: body.name,
            scopes: body.scopes,
            expires_at: body.expires_at.map(Into::into),
            allowed_networks: body.allowed_networks,
            service_account: body.service_account.unwrap_or(false),
        }
    }
}

impl From<ChangeApiKeyBody> for ApiKeyPatch {
    fn from(body: ChangeApiKeyBody) -> Self {
        Self {
            name: body.name,
            scopes: body.scopes,
            expires_at: body.expires_at.map(Into::into),
            allowed_networks: body.allowed_networks,
        }
    }
}
