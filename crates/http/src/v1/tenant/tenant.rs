use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Invalid, Patch, TenantId};
use tenantry_domain::tenant::{Settings, Tenant, TenantPatch, TenantStatus};
use tenantry_tenancy::tenant;
use utoipa::ToSchema;

use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, IfMatch, IfNoneMatch, entity,
    permission::{self, ManageTenant, ReadTenant},
};

/// A tenant: a customer, who owns all its data.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "name": "Acme", "slug": "acme", "subdomain": "acme",
    "plan": "free", "status": "active",
    "settings": {"self_registration": false, "timezone": "UTC", "locale": "en"},
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "suspended_at": null,
    "status_reason": null, "status_actor": null, "deleted_at": null, "purge_at": null, "row_work": null, "version": 1,
})))]
pub(crate) struct TenantView {
    #[schema(value_type = Uuid)]
    id: TenantId,
    name: String,
    /// The name in URLs: unique, cannot be changed.
    slug: String,
    /// The label below the base domain: unique.
    #[schema(required = true)]
    subdomain: Option<String>,
    plan: String,
    #[schema(value_type = schema::TenantStatus)]
    status: TenantStatus,
    settings: SettingsView,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Since when the tenant is read-only.
    #[schema(required = true)]
    suspended_at: Option<DateTime<Utc>>,
    /// Why the status was changed last.
    #[schema(required = true)]
    status_reason: Option<String>,
    /// Who changed the status last: a `user` of the tenant, an `operator` or the `system`.
    #[schema(required = true, examples("operator"))]
    status_actor: Option<String>,
    #[schema(required = true)]
    deleted_at: Option<DateTime<Utc>>,
    /// When a deleted tenant is purged: until then the operator can restore it.
    #[schema(required = true)]
    purge_at: Option<DateTime<Utc>>,
    /// What is being done to the rows of the tenant in the background; null when nothing is.
    #[schema(required = true)]
    row_work: Option<RowWorkView>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// What is being done to the rows of a tenant that was deleted, is restored or purged.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantRowWork, examples(json!({"task": "delete", "rows": 1200})))]
pub(crate) struct RowWorkView {
    /// `delete` marks rows as deleted, `restore` takes the mark off, `purge` erases them.
    #[schema(examples("delete"))]
    task: &'static str,
    /// The number of rows that are done.
    rows: u64,
}

/// The settings of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantSettings)]
pub(crate) struct SettingsView {
    /// Whether users may register themselves as members.
    self_registration: bool,
    /// IANA time zone for presentation.
    #[schema(examples("Europe/Berlin"))]
    timezone: String,
    /// BCP 47 language tag for presentation.
    #[schema(examples("de-DE"))]
    locale: String,
}

/// A change of the tenant. An absent field is unchanged.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeTenant, examples(json!({"name": "Acme Ltd", "settings": {"self_registration": true}})))]
pub(crate) struct ChangeTenant {
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 120)]
    name: Patch<String>,
    /// Null for none.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$")]
    subdomain: Patch<String>,
    #[serde(default)]
    #[schema(value_type = ChangeSettings, required = false)]
    settings: Patch<ChangeSettings>,
}

/// A change of the settings. An absent field is unchanged.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeTenantSettings)]
pub(crate) struct ChangeSettings {
    #[serde(default)]
    #[schema(value_type = bool, required = false)]
    self_registration: Patch<bool>,
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 64)]
    timezone: Patch<String>,
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 2, max_length = 35)]
    locale: Patch<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/tenant").get(read).patch(update).delete(delete));
}

/// Get the current tenant
///
/// Returns the tenant of the credential. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tenant", operation_id = "get_tenant", tag = "Tenant",
    params(IfNoneMatch),
    responses((status = 200, description = "The tenant.", body = TenantView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadTenant>, seen: IfNoneMatch) -> Answer {
    let tenant = tenant::get(&cx).await?;
    Ok(seen.answer(tenant.version, &TenantView::from(tenant)))
}

/// Update the current tenant
///
/// A merge patch: an absent field is unchanged, null clears it. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/tenant", operation_id = "update_tenant", tag = "Tenant",
    params(IfMatch), request_body = ChangeTenant,
    responses((status = 200, description = "The updated tenant.", body = TenantView, headers(("ETag")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_suspended", "subdomain_taken"]))),
)]
pub(crate) async fn update(cx: Ctx<ManageTenant>, when: IfMatch, body: Body<ChangeTenant>) -> Answer {
    let tenant = tenant::update(&cx, &when.0, body.0.try_into()?).await?;
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// The confirmation of a deletion.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeleteTenant, examples(json!({"confirm_slug": "acme"})))]
pub(crate) struct DeleteTenant {
    /// The slug of the tenant, so that the wrong one is not deleted.
    confirm_slug: String,
}

/// Delete the current tenant
///
/// The tenant is gone at once: every later request is answered 410 `tenant_gone`. The operator can restore it until `purge_at`; then
/// all of its data is erased. A subscription ends. Minimum role: admin, with a recent second factor where the user has one.
#[utoipa::path(
    delete, path = "/api/v1/tenant", operation_id = "delete_tenant", tag = "Tenant",
    request_body = DeleteTenant,
    responses((status = 202, description = "The deleted tenant.", body = TenantView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required"]))),
)]
pub(crate) async fn delete(cx: Ctx<permission::DeleteTenant>, body: Body<DeleteTenant>) -> Answer {
    let tenant = tenant::delete(&cx, &body.confirm_slug).await?;
    Ok(HttpResponse::Accepted().json(TenantView::from(tenant)))
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        let change = tenant.status_change;
        Self {
            id: tenant.id,
            name: tenant.name,
            slug: tenant.slug.as_str().to_owned(),
            subdomain: tenant.subdomain.map(|subdomain| subdomain.as_str().to_owned()),
            plan: tenant.plan,
            status: tenant.status,
            settings: tenant.settings.into(),
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
            suspended_at: tenant.suspended_at,
            status_reason: change.as_ref().map(|change| change.reason.clone()),
            status_actor: change.map(|change| change.actor),
            deleted_at: tenant.deleted_at,
            purge_at: tenant.purge_at,
            row_work: tenant.row_work.map(|work| RowWorkView {
                task: work.as_str(),
                rows: tenant.row_counts.values().sum(),
            }),
            version: tenant.version,
        }
    }
}

impl From<Settings> for SettingsView {
    fn from(settings: Settings) -> Self {
        Self {
            self_registration: settings.self_registration,
            timezone: settings.timezone,
            locale: settings.locale,
        }
    }
}

impl TryFrom<ChangeTenant> for TenantPatch {
    type Error = Invalid;

    fn try_from(body: ChangeTenant) -> Result<Self, Invalid> {
        let settings = match body.settings {
            Patch::Keep => ChangeSettings::default(),
            Patch::Clear => return Err(Invalid::one("/settings", "required", "must not be null")),
            Patch::Set(settings) => settings,
        };
        Ok(Self {
            name: body.name,
            subdomain: body.subdomain,
            self_registration: settings.self_registration,
            timezone: settings.timezone,
            locale: settings.locale,
        })
    }
}
