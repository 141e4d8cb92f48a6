use std::collections::BTreeMap;

use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use tenantry_billing::plans::{plan::Agreement, tenant_plan};
use tenantry_domain::kernel::{Invalid, Limit, TenantId, pointer_segment};
use tenantry_domain::plans::Agreed;
use tenantry_domain::tenant::{NewTenant, Tenant, TenantFilter, TenantStatus};
use tenantry_domain::usage::MeterKey;
use tenantry_tenancy::Cx;
use tenantry_tenancy::tenant::provision::{self, NewAdmin, SignedUp};
use tenantry_tenancy::tenant::{lifecycle, row_work};
use utoipa::{IntoParams, ToSchema};

use crate::extract::operator_permission as may;
use crate::extract::{idempotency::UnguessableKey, page::PageParams};
use crate::{
    Answer, Body, Endpoint, Id, IdempotencyKey, IfMatch, OperatorCtx, PageView, Paged, created, entity,
    v1::{
        identity::user::UserView,
        kernel::schema,
        tenant::{signup::SignUpBody, tenant::TenantView},
    },
};

/// A tenant as operators see it: with what was agreed beside its plan.
#[derive(Serialize, ToSchema)]
#[schema(as = TenantOfOperator, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "name": "Acme", "slug": "acme", "subdomain": "acme",
    "plan": "free", "status": "active",
    "settings": {"self_registration": false, "timezone": "UTC", "locale": "en"},
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "suspended_at": null,
    "status_reason": null, "status_actor": null, "deleted_at": null, "purge_at": null, "row_work": null, "version": 1,
    "agreements": {"features": {"branding": true}, "limits": {"users": 60}, "meters": {"api_calls": "unlimited"}},
})))]
pub(crate) struct TenantOfOperatorView {
    #[serde(flatten)]
    tenant: TenantView,
    agreements: AgreementsView,
}

/// What was agreed with a tenant beside its plan, as it is set now. What is absent is as the plan has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Agreements, examples(json!({
    "features": {"branding": true}, "limits": {"users": 60}, "meters": {"api_calls": "unlimited"},
})))]
pub(crate) struct AgreementsView {
    /// Features, on or off whatever the plan says.
    features: BTreeMap<String, bool>,
    /// Limits in place of the plan's: a whole number or `"unlimited"`.
    #[schema(value_type = BTreeMap<String, schema::SetLimit>)]
    limits: BTreeMap<String, Limit>,
    /// Hard limits of meters in place of the plan's: a whole number or `"unlimited"`.
    #[schema(value_type = BTreeMap<String, schema::SetLimit>)]
    meters: BTreeMap<MeterKey, Limit>,
}

/// Filters of tenants.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TenantParams {
    /// Only of this status.
    #[param(value_type = schema::TenantStatus, inline, required = false)]
    status: Option<TenantStatus>,
    /// Only on this plan.
    plan: Option<String>,
    /// Only those whose name or slug contains this text, whatever the case.
    #[param(min_length = 1, max_length = 120)]
    q: Option<String>,
}

/// The reason. It is written to the operators' audit and to the tenant's audit log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Reason, examples(json!({"reason": "invoice 4711 unpaid"})))]
pub(crate) struct ReasonBody {
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// A tenant that an operator created. There are no tokens: operators are not admins of tenants.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedTenant)]
pub(crate) struct CreatedTenantView {
    tenant: TenantView,
    admin: UserView,
    credentials: AdminCredentialsView,
}

/// The first credentials of an admin.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminCredentials)]
pub(crate) struct AdminCredentialsView {
    email: String,
    /// The password, if it was generated. It is shown once.
    #[schema(required = true)]
    password: Option<String>,
    /// When the password expires, unless it is changed before.
    #[schema(required = true)]
    password_expires_at: Option<DateTime<Utc>>,
}

/// The plan of a tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PlanOfTenant, examples(json!({"plan": "pro", "reason": "contract 4711"})))]
pub(crate) struct PlanBody {
    plan: String,
    /// It is written to the operators' log and to the tenant's audit log.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// What is agreed with a tenant beside its plan. What is absent stays as it was; null takes an agreement back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantAgreement, examples(json!({
    "limits": {"users": 60}, "features": {"branding": true}, "meters": {"api_calls": null}, "reason": "contract 4711",
})))]
pub(crate) struct AgreementBody {
    /// Features of plans, on or off.
    #[serde(default)]
    #[schema(required = false)]
    features: BTreeMap<String, Option<bool>>,
    /// Limits of plans: a whole number or `"unlimited"`.
    #[serde(default)]
    #[schema(required = false, value_type = BTreeMap<String, schema::AgreedLimit>)]
    limits: BTreeMap<String, Option<Limit>>,
    /// Hard limits of meters: a whole number or `"unlimited"`.
    #[serde(default)]
    #[schema(required = false, value_type = BTreeMap<String, schema::AgreedLimit>)]
    meters: BTreeMap<String, Option<Limit>>,
    /// It is written to the operators' log and to the tenant's audit log.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::operator("/admin/tenants").get(list).post(create))
        .service(Endpoint::operator("/admin/tenants/{id}").get(read).patch(agree))
        .service(Endpoint::operator("/admin/tenants/{id}/plan").post(change_plan))
        .service(Endpoint::operator("/admin/tenants/{id}/suspend").post(suspend))
        .service(Endpoint::operator("/admin/tenants/{id}/resume").post(resume))
        .service(Endpoint::operator("/admin/tenants/{id}/delete").post(delete))
        .service(Endpoint::operator("/admin/tenants/{id}/restore").post(restore))
        .service(Endpoint::operator("/admin/tenants/{id}/purge").post(purge));
}

/// List tenants
///
/// Deleted tenants are included.
#[utoipa::path(
    get, path = "/api/v1/admin/tenants", operation_id = "list_tenants", tag = "Operators",
    params(TenantParams, PageParams),
    responses(
        (status = 200, description = "The tenants, newest first.", body = PageView<TenantView>, headers(("Link"))),
    ),
    security(("operator" = [])),
)]
pub(crate) async fn list(cx: OperatorCtx<may::ReadTenants>, query: Paged<TenantParams>) -> Answer {
    let filter = TenantFilter::from(&query.filter);
    let page = lifecycle::list(&cx, &filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(TenantView::from)))
}

/// Create a tenant as an operator
///
/// Creates a tenant with its first admin, whether sign-up is open or not, on any plan. A generated password is shown once. An
/// `Idempotency-Key` counts for one slug and one e-mail address.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants", operation_id = "create_tenant_as_operator", tag = "Operators",
    params(UnguessableKey), request_body = SignUpBody,
    responses((
        status = 201, description = "The tenant, its admin and the admin's credentials.", body = CreatedTenantView,
        headers(("ETag"), ("Location"))
    )),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["slug_taken", "subdomain_taken"]))),
)]
pub(crate) async fn create(
    cx: OperatorCtx<may::CreateTenants>,
    key: IdempotencyKey,
    body: Body<SignUpBody>,
) -> Answer {
    let (tenant, admin): (NewTenant, NewAdmin) = body.0.into();
    let inside = provision::operator_cx(&cx)?;
    let email = admin.email.clone();
    let user = |done: &SignedUp| done.login.user.id;
    let create = async |inside: &Cx| provision::create_as_operator(&cx, inside, tenant, admin).await;
    key.once_registered(&inside, email, user, create, |done| {
        let tenant = &done.login.tenant;
        let (location, version) = (format!("/api/v1/admin/tenants/{}", tenant.id), tenant.version);
        created(&location, Some(version), &CreatedTenantView::from(done))
    })
    .await
}

/// Agree on limits with a tenant
///
/// Gives a tenant features, limits and quotas beside those of its plan. What is absent stays as it was; null takes an agreement back. The
/// reason is written to the audit log. The answer has all agreements in `agreements`.
#[utoipa::path(
    patch, path = "/api/v1/admin/tenants/{id}", operation_id = "agree_with_tenant", tag = "Operators",
    params(("id" = Uuid, Path), IfMatch), request_body = AgreementBody,
    responses((status = 200, description = "The updated tenant.", body = TenantOfOperatorView, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["tenant_gone"]))),
)]
pub(crate) async fn agree(
    cx: OperatorCtx<may::ManagePlans>,
    id: Id<TenantId>,
    when: IfMatch,
    body: Body<AgreementBody>,
) -> Answer {
    let (agreement, reason) = body.0.try_into()?;
    let tenant = tenant_plan::agree(&cx, id.0, &when.0, agreement, &reason).await?;
    Ok(entity(tenant.version, &TenantOfOperatorView::from(tenant)))
}

/// Change the plan of a tenant
///
/// Puts a tenant on the present version of a plan. What it has more of than the plan allows stays. The reason is written to the audit
/// log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/plan", operation_id = "change_plan_of_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = PlanBody,
    responses((status = 200, description = "The updated tenant.", body = TenantView, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["tenant_gone"]))),
)]
pub(crate) async fn change_plan(
    cx: OperatorCtx<may::ManagePlans>,
    id: Id<TenantId>,
    body: Body<PlanBody>,
) -> Answer {
    let tenant = tenant_plan::change(&cx, id.0, &body.plan, &body.reason).await?;
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Get a tenant
///
/// Deleted tenants are included. `agreements` has what was agreed with the tenant beside its plan.
#[utoipa::path(
    get, path = "/api/v1/admin/tenants/{id}", operation_id = "get_tenant_as_operator", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The tenant.", body = TenantOfOperatorView, headers(("ETag")))),
    security(("operator" = [])),
)]
pub(crate) async fn read(cx: OperatorCtx<may::ReadTenants>, id: Id<TenantId>) -> Answer {
    let tenant = lifecycle::get(&cx, id.0).await?;
    Ok(entity(tenant.version, &TenantOfOperatorView::from(tenant)))
}

/// Suspend a tenant
///
/// Makes a tenant read-only. The reason is written to the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/suspend", operation_id = "suspend_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 200, description = "The updated tenant.", body = TenantView, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn suspend(
    cx: OperatorCtx<may::SuspendTenants>,
    id: Id<TenantId>,
    body: Body<ReasonBody>,
) -> Answer {
    let tenant = lifecycle::suspend(&cx, id.0, &body.reason).await?;
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Resume a tenant
///
/// Allows a suspended tenant to write again. The reason is written to the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/resume", operation_id = "resume_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 200, description = "The updated tenant.", body = TenantView, headers(("ETag")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn resume(
    cx: OperatorCtx<may::SuspendTenants>,
    id: Id<TenantId>,
    body: Body<ReasonBody>,
) -> Answer {
    let tenant = lifecycle::resume(&cx, id.0, &body.reason).await?;
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Delete a tenant
///
/// The tenant is gone at once: every request of it is answered 410 `tenant_gone`. Its rows are marked as deleted in the background. It
/// can be restored until `purge_at`. The reason is written to the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/delete", operation_id = "delete_tenant_as_operator", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 202, description = "The deleted tenant.", body = TenantView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict"]))),
)]
pub(crate) async fn delete(
    cx: OperatorCtx<may::DeleteTenants>,
    id: Id<TenantId>,
    body: Body<ReasonBody>,
) -> Answer {
    let tenant = lifecycle::delete(&cx, id.0, &body.reason).await?;
    Ok(HttpResponse::Accepted().json(TenantView::from(tenant)))
}

/// For how long a request restores rows before it leaves the rest to the background, in seconds.
const RESTORING_SECONDS: i64 = 5;

/// Restore a deleted tenant
///
/// The tenant gets back the state that it had, and exactly the rows that it had: what was deleted before the tenant stays deleted. A
/// tenant with many rows is restored in the background (202), and stays deleted until all of them are back. The reason is written to
/// the audit log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/restore", operation_id = "restore_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses(
        (status = 200, description = "The restored tenant.", body = TenantView, headers(("ETag"))),
        (status = 202, description = "The tenant, which is restored in the background.", body = TenantView),
    ),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn restore(
    cx: OperatorCtx<may::RestoreTenants>,
    id: Id<TenantId>,
    body: Body<ReasonBody>,
) -> Answer {
    let until = cx.now() + Duration::seconds(RESTORING_SECONDS);
    let tenant = row_work::restore(&cx, id.0, &body.reason, Some(until)).await?;
    if tenant.row_work.is_some() {
        return Ok(HttpResponse::Accepted().json(TenantView::from(tenant)));
    }
    Ok(entity(tenant.version, &TenantView::from(tenant)))
}

/// Purge a deleted tenant
///
/// Erases every row of a deleted tenant in the background, and the tenant last. Nothing leads back. A tombstone with its id, the time
/// and the number of rows stays. The reason is written to the operators' log.
#[utoipa::path(
    post, path = "/api/v1/admin/tenants/{id}/purge", operation_id = "purge_tenant", tag = "Operators",
    params(("id" = Uuid, Path)), request_body = ReasonBody,
    responses((status = 202, description = "The tenant, whose rows are being erased.", body = TenantView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict"]))),
)]
pub(crate) async fn purge(
    cx: OperatorCtx<may::PurgeTenants>,
    id: Id<TenantId>,
    body: Body<ReasonBody>,
) -> Answer {
    let tenant = lifecycle::purge(&cx, id.0, &body.reason).await?;
    Ok(HttpResponse::Accepted().json(TenantView::from(tenant)))
}

impl From<&TenantParams> for TenantFilter {
    fn from(params: &TenantParams) -> Self {
        Self {
            status: params.status,
            plan: params.plan.clone(),
            q: params.q.clone(),
        }
    }
}

impl From<Tenant> for TenantOfOperatorView {
    fn from(mut tenant: Tenant) -> Self {
        let Agreed {
            features,
            limits,
            meters,
        } = std::mem::take(&mut tenant.agreed);
        Self {
            tenant: tenant.into(),
            agreements: AgreementsView {
                features,
                limits,
                meters,
            },
        }
    }
}

impl From<SignedUp> for CreatedTenantView {
    fn from(created: SignedUp) -> Self {
        let password = created.generated_password.as_ref();
        let credentials = AdminCredentialsView {
            email: created.login.user.email.as_str().to_owned(),
            password: password.map(|password| password.reveal().to_owned()),
            password_expires_at: created.login.user.password_expires_at,
        };
        Self {
            tenant: created.login.tenant.into(),
            admin: created.login.user.into(),
            credentials,
        }
    }
}

impl TryFrom<AgreementBody> for (Agreement, String) {
    type Error = Invalid;

    fn try_from(body: AgreementBody) -> Result<Self, Invalid> {
        let key = |(name, limit): (String, Option<Limit>)| match MeterKey::parse(&name) {
            Some(key) => Ok((key, limit)),
            None => Err(Invalid::one(
                format!("/meters/{}", pointer_segment(&name)),
                "unknown_name",
                "is not the key of a meter",
            )),
        };
        let agreement = Agreement {
            features: body.features,
            limits: body.limits,
            meters: body.meters.into_iter().map(key).collect::<Result<_, _>>()?,
        };
        Ok((agreement, body.reason))
    }
}
