use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpResponse, http::header, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::customization::{
    Definition, Difference, Editor, EffectiveSettings, SettingRegistry, SettingVersion, Warning,
};
use tenantry_domain::kernel::{Patch, Resolved, UserId};
use tenantry_domain::tenant::TenantScope;
use tenantry_tenancy::Cx;
use tenantry_tenancy::customization::setting::{self, Changed};
use utoipa::ToSchema;

use crate::extract::page::NoParams;
use crate::extract::{etag::tag_of, page::PageParams};
use crate::v1::{kernel::schema as schemas, work::resource::VersionNumber};
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, Ids, IfMatch, IfNoneMatch, PageView, Paged,
    permission::{ManageSettings, ReadSettingHistory, ReadTenant},
};

/// The settings of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Settings, examples(json!({
    "version": 3, "updated_at": "2026-01-31T12:00:00Z",
    "settings": {
        "notifications.email_digest": {
            "value": "daily", "origin": "tenant", "editable": true, "levels": {"default": "weekly", "tenant": "daily"}
        },
        "retention.audit_days": {
            "value": 90, "origin": "plan", "editable": false, "levels": {"default": 365, "plan": 90}
        },
        "integrations.smtp_password": {"is_set": true},
    },
})))]
pub(crate) struct SettingsView {
    /// The number of changes that the tenant has made; 0 before the first.
    version: i64,
    #[schema(required = true)]
    updated_at: Option<DateTime<Utc>>,
    /// The settings that the caller may see, by key.
    settings: BTreeMap<String, SettingView>,
}

/// A setting with its value, or a secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Setting)]
pub(crate) enum SettingView {
    Open(OpenSettingView),
    Secret(SecretSettingView),
}

/// A setting with its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenSetting)]
pub(crate) struct OpenSettingView {
    /// The value that applies.
    value: Value,
    /// The level that the value comes from.
    #[schema(value_type = schemas::Level)]
    origin: &'static str,
    /// Whether an admin of the tenant may change the setting.
    editable: bool,
    /// The value of each level that has one. The last one applies.
    levels: BTreeMap<&'static str, Value>,
}

/// A secret. Its value is never returned.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecretSetting)]
pub(crate) struct SecretSettingView {
    /// Whether it is set.
    is_set: bool,
}

/// The settings after a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedSettings)]
pub(crate) struct ChangedView {
    #[serde(flatten)]
    settings: SettingsView,
    /// Accepted values that are probably mistakes.
    warnings: Vec<WarningView>,
}

/// An accepted value that is probably a mistake.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Warning, examples(json!({
    "pointer": "/support.url", "code": "host_not_found", "detail": "nobody knows this host name at the moment",
})))]
pub(crate) struct WarningView {
    /// A JSON pointer to the value.
    pointer: String,
    code: &'static str,
    detail: String,
}

/// A version of the tenant's settings.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsVersion, examples(json!({
    "version": 3, "settings": {"notifications.email_digest": "daily", "integrations.smtp_password": {"is_set": true}},
    "changed_by": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "rolled_back_to": null, "created_at": "2026-01-31T12:00:00Z",
})))]
pub(crate) struct SettingsVersionView {
    version: i64,
    /// The values that were set, by key. Absent settings were inherited.
    settings: BTreeMap<String, Value>,
    /// The user who made the version; null for an operator.
    #[schema(value_type = Option<Uuid>, required = true)]
    changed_by: Option<UserId>,
    /// The version that a rollback restored; null for other changes.
    #[schema(required = true)]
    rolled_back_to: Option<i64>,
    created_at: DateTime<Utc>,
}

/// The differences of two versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsDiff, examples(json!({
    "from": 2, "to": 3, "changes": [{"key": "notifications.email_digest", "before": null, "after": "daily"}],
})))]
pub(crate) struct DiffView {
    from: i64,
    to: i64,
    changes: Vec<DifferenceView>,
}

/// The difference of two versions in one setting. Null is inherited.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsDifference)]
pub(crate) struct DifferenceView {
    key: String,
    #[schema(required = true)]
    before: Option<Value>,
    #[schema(required = true)]
    after: Option<Value>,
}

/// New values, by key. Null restores the inherited value. An absent setting is unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChangeSettings, value_type = BTreeMap<String, Value>)]
pub(crate) struct ChangeSettings(BTreeMap<String, Patch<Value>>);

/// The version to restore.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RollBack, examples(json!({"version": 2})))]
pub(crate) struct RollBack {
    #[schema(minimum = 1)]
    version: i64,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/tenant/settings").get(list).patch(update))
        .service(Endpoint::at("/tenant/settings/schema").get(schema))
        .service(Endpoint::at("/tenant/settings/rollback").post(roll_back))
        .service(Endpoint::at("/tenant/settings/versions").get(list_versions))
        .service(Endpoint::at("/tenant/settings/versions/{n}").get(read_version))
        .service(Endpoint::at("/tenant/settings/versions/{a}/diff/{b}").get(diff));
}

/// List settings
///
/// Returns each setting with the level that its value comes from. Admins see all settings; other users see those
/// that clients may read. Secrets are never returned, only whether they are set. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tenant/settings", operation_id = "list_settings", tag = "Settings",
    params(IfNoneMatch),
    responses((status = 200, description = "The settings, by key.", body = SettingsView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadTenant>, seen: IfNoneMatch) -> Answer {
    let configuration = setting::list(&cx).await?;
    let view = SettingsView::of(&cx.ports().settings, cx.scope(), &configuration.settings);
    Ok(seen.answer_of(view.version, &view))
}

/// Get the JSON Schema of the settings
///
/// Describes the body of `PATCH /api/v1/tenant/settings`. Settings that only operators change are `readOnly`.
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tenant/settings/schema", operation_id = "get_settings_schema", tag = "Settings",
    responses(
        (status = 200, description = "A JSON Schema (2020-12).", body = Value, content_type = "application/schema+json"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn schema(cx: Ctx<ReadTenant>) -> Answer {
    let schema = cx.ports().settings.schema(cx.scope());
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/schema+json"))
        .body(schema.to_string()))
}

/// Update settings
///
/// A merge patch by key: a value replaces the earlier one completely, null restores the inherited value. Either all
/// changes are made or none. URLs must be https and must not lead to an internal network. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/tenant/settings", operation_id = "update_settings", tag = "Settings",
    params(IfMatch),
    request_body(content = ChangeSettings, example = json!({
        "notifications.email_digest": "daily", "support.url": null,
    })),
    responses(
        (status = 200, description = "The updated settings.", body = ChangedView, headers(("ETag"))),
    ),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "403 mfa_required"]))),
)]
pub(crate) async fn update(cx: Ctx<ManageSettings>, when: IfMatch, body: Body<ChangeSettings>) -> Answer {
    let changed = setting::update(&cx, &when.0, &body.0.0).await?;
    Ok(answer(&cx.ports().settings, cx.scope(), changed))
}

/// Roll the settings back
///
/// Makes an earlier version the next version. Secrets and settings that only operators change stay as they are. A
/// version with values that are no longer valid is refused, and the error names them. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/tenant/settings/rollback", operation_id = "roll_back_settings", tag = "Settings",
    params(IfMatch, IdempotencyKey), request_body = RollBack,
    responses(
        (status = 200, description = "The updated settings.", body = ChangedView, headers(("ETag"))),
    ),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "403 mfa_required"]))),
)]
pub(crate) async fn roll_back(
    cx: Ctx<ManageSettings>,
    when: IfMatch,
    key: IdempotencyKey,
    body: Body<RollBack>,
) -> Answer {
    let work = async |cx: &Cx| setting::roll_back(cx, &when.0, body.0.version).await;
    let (registry, scope) = (Arc::clone(&cx.ports().settings), cx.scope().clone());
    key.once(&cx, work, move |changed| answer(&registry, &scope, changed))
        .await
}

/// List the versions of the settings
///
/// The first is the current version. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/tenant/settings/versions", operation_id = "list_settings_versions", tag = "Settings",
    params(PageParams),
    responses(
        (status = 200, description = "The versions, newest first.", body = PageView<SettingsVersionView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list_versions(cx: Ctx<ReadSettingHistory>, query: Paged<NoParams>) -> Answer {
    let versions = setting::list_versions(&cx, query.before(cx.scope())?, query.limit).await?;
    let versions = versions.into_iter().map(SettingsVersionView::from).collect();
    Ok(query.answer_numbered(cx.scope(), versions, |version| version.version))
}

/// Get a version of the settings
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/tenant/settings/versions/{n}", operation_id = "get_settings_version", tag = "Settings",
    params(("n" = i64, Path, description = "The number of the version, from 1.")),
    responses((status = 200, description = "The version.", body = SettingsVersionView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn read_version(cx: Ctx<ReadSettingHistory>, number: Id<VersionNumber>) -> Answer {
    let version = setting::get_version(&cx, number.0.0).await?;
    Ok(HttpResponse::Ok().json(SettingsVersionView::from(version)))
}

/// Compare two versions of the settings
///
/// For a secret only the fact that it changed is returned. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/tenant/settings/versions/{a}/diff/{b}", operation_id = "diff_settings_versions",
    tag = "Settings",
    params(
        ("a" = i64, Path, description = "The number of the one version."),
        ("b" = i64, Path, description = "The number of the other version."),
    ),
    responses((status = 200, description = "The changes from `a` to `b`.", body = DiffView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn diff(cx: Ctx<ReadSettingHistory>, numbers: Ids<VersionNumber, VersionNumber>) -> Answer {
    let from = setting::get_version(&cx, numbers.0.0).await?;
    let to = setting::get_version(&cx, numbers.1.0).await?;
    let changes = from
        .differences(&to)
        .into_iter()
        .map(DifferenceView::from)
        .collect();
    Ok(HttpResponse::Ok().json(DiffView {
        from: from.version,
        to: to.version,
        changes,
    }))
}

fn answer(registry: &SettingRegistry, scope: &TenantScope, changed: Changed) -> HttpResponse {
    let settings = SettingsView::of(registry, scope, &changed.settings);
    let tag = tag_of(settings.version, &settings);
    let warnings = changed.warnings.into_iter().map(WarningView::from).collect();
    HttpResponse::Ok()
        .insert_header((header::ETAG, tag))
        .json(ChangedView { settings, warnings })
}

impl SettingsView {
    /// What the scope's user may see of it.
    fn of(registry: &SettingRegistry, scope: &TenantScope, settings: &EffectiveSettings) -> Self {
        let seen = registry.iter().filter(|definition| definition.is_seen_by(scope));
        let view = |definition: &Definition| {
            Some((definition.key.to_owned(), SettingView::of(definition, settings)?))
        };
        Self {
            version: settings.version,
            updated_at: settings.updated_at,
            settings: seen.filter_map(view).collect(),
        }
    }
}

impl SettingView {
    fn of(definition: &Definition, settings: &EffectiveSettings) -> Option<Self> {
        if definition.secret {
            let is_set = settings.secrets.contains_key(definition.key);
            return Some(Self::Secret(SecretSettingView { is_set }));
        }
        let Resolved {
            value,
            level,
            considered,
        } = settings.values.get(definition.key)?;
        let levels = considered
            .iter()
            .filter_map(|(level, said)| Some((level.as_str(), said.clone()?)));
        Some(Self::Open(OpenSettingView {
            value: value.clone(),
            origin: level.as_str(),
            editable: definition.editor == Editor::TenantAdmin,
            levels: levels.collect(),
        }))
    }
}

impl From<Warning> for WarningView {
    fn from(warning: Warning) -> Self {
        Self {
            pointer: warning.pointer,
            code: warning.code,
            detail: warning.detail,
        }
    }
}

impl From<SettingVersion> for SettingsVersionView {
    fn from(version: SettingVersion) -> Self {
        Self {
            version: version.version,
            settings: version.shown(),
            changed_by: version.changed_by,
            rolled_back_to: version.rolled_back_to,
            created_at: version.created_at,
        }
    }
}

impl From<Difference> for DifferenceView {
    fn from(difference: Difference) -> Self {
        Self {
            key: difference.key,
            before: difference.before,
            after: difference.after,
        }
    }
}
