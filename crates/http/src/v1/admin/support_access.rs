use actix_web::{HttpResponse, http::header, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{OperatorId, SupportAccessId, TenantId, Time};
use tenantry_domain::operations::{PlatformSupportAccess, SupportFilter};
use tenantry_domain::tenant::{NewSupportAccess, SupportAccess, SupportLevel, SupportStatus};
use tenantry_tenancy::tenant::support_request::{self, SupportToken};
use utoipa::{IntoParams, ToSchema};

use crate::extract::operator_permission as may;
use crate::extract::page::PageParams;
use crate::v1::{kernel::schema, tenant::support_access::SupportAccessView};
use crate::{Answer, Body, Endpoint, Id, OperatorCtx, PageView, Paged};

/// Access that an operator asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSupportAccess, examples(json!({
    "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "reason": "ticket 4711: tasks are missing", "access": "read", "minutes": 30,
})))]
pub(crate) struct NewSupportAccessBody {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// The admins of the tenant read it.
    #[schema(min_length = 10, max_length = 500)]
    reason: String,
    #[schema(value_type = schema::SupportLevel)]
    access: SupportLevel,
    /// For how many minutes from the approval on.
    #[schema(minimum = 1, maximum = 60)]
    minutes: i64,
}

/// An access of an operator to a tenant, as operators see it: with the tenant that it is about.
#[derive(Serialize, ToSchema)]
#[schema(as = SupportAccessOfTenant)]
pub(crate) struct SupportAccessOfTenantView {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    #[serde(flatten)]
    access: SupportAccessView,
}

/// A token for the routes of one tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = SupportToken, examples(json!({
    "access_token": "eyJ…", "token_type": "Bearer", "expires_in": 1800, "tenant_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11",
    "access": "read", "expires_at": "2026-01-31T12:30:00Z",
})))]
pub(crate) struct SupportTokenView {
    access_token: String,
    #[schema(value_type = String)]
    token_type: &'static str,
    /// In seconds. There is no refresh token.
    expires_in: i64,
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    #[schema(value_type = schema::SupportLevel)]
    access: SupportLevel,
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
}

/// Which accesses are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SupportOfTenantsParams {
    /// Only to this tenant.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// Only of this operator.
    #[param(value_type = Option<Uuid>)]
    operator_id: Option<OperatorId>,
    /// Only of this status.
    #[param(value_type = schema::SupportStatus, inline, required = false)]
    status: Option<SupportStatus>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(
            Endpoint::operator("/admin/support-access")
                .get(list)
                .post(request),
        )
        .service(Endpoint::operator("/admin/support-access/{id}").get(read))
        .service(Endpoint::operator("/admin/support-access/{id}/withdraw").post(withdraw))
        .service(Endpoint::operator("/admin/support-access/{id}/token").post(token));
}

/// List support access to tenants
///
/// For support and owners.
#[utoipa::path(
    get, path = "/api/v1/admin/support-access", operation_id = "list_support_access_to_tenants", tag = "Operators",
    params(SupportOfTenantsParams, PageParams),
    responses((
        status = 200, description = "The accesses, newest first.", body = PageView<SupportAccessOfTenantView>, headers(("Link"))
    )),
    security(("operator" = [])),
)]
pub(crate) async fn list(
    cx: OperatorCtx<may::ReadSupportAccess>,
    query: Paged<SupportOfTenantsParams>,
) -> Answer {
    let filter = SupportFilter {
        tenant: query.filter.tenant_id,
        operator: query.filter.operator_id,
        status: query.filter.status,
    };
    let page = support_request::list(&cx, &filter, query.request(cx.scope())?).await?;
    let view = |found| SupportAccessOfTenantView::of(found, cx.now());
    Ok(query.answer(cx.scope(), page.map(view)))
}

/// Ask for support access
///
/// Asks the admins of a tenant, who get a mail. The request lapses after a day without an answer. Where the security policy of the
/// tenant has `preapprove_support_read`, read access is `active` at once, unless the admins' mails about the operator are used up (20 a
/// day). An operator has one open access to a tenant: another request is 409. For support and owners, with a recent second factor.
#[utoipa::path(
    post, path = "/api/v1/admin/support-access", operation_id = "request_support_access", tag = "Operators",
    request_body = NewSupportAccessBody,
    responses((status = 202, description = "The request, which the admins of the tenant decide about.", body = SupportAccessOfTenantView, headers(("Location")))),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "not_found", "tenant_gone", "conflict"]))),
)]
pub(crate) async fn request(
    cx: OperatorCtx<may::UseSupportAccess>,
    body: Body<NewSupportAccessBody>,
) -> Answer {
    let tenant = body.0.tenant_id;
    let found = support_request::request(&cx, tenant, body.0.into()).await?;
    let location = format!("/api/v1/admin/support-access/{}", found.access.id);
    let view = SupportAccessOfTenantView::of(found, cx.now());
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .json(view))
}

/// Get a support access to a tenant
///
/// For support and owners.
#[utoipa::path(
    get, path = "/api/v1/admin/support-access/{id}", operation_id = "get_support_access_to_tenant", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The access.", body = SupportAccessOfTenantView)),
    security(("operator" = [])),
)]
pub(crate) async fn read(cx: OperatorCtx<may::ReadSupportAccess>, id: Id<SupportAccessId>) -> Answer {
    let found = support_request::get(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(SupportAccessOfTenantView::of(found, cx.now())))
}

/// Withdraw support access
///
/// Takes a request back, or gives an access up before its minutes are over. Operators withdraw their own, owners each. 409 when it is
/// over already. For support and owners, with a recent second factor.
#[utoipa::path(
    post, path = "/api/v1/admin/support-access/{id}/withdraw", operation_id = "withdraw_support_access", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The access, which is withdrawn.", body = SupportAccessOfTenantView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_gone", "conflict"]))),
)]
pub(crate) async fn withdraw(cx: OperatorCtx<may::UseSupportAccess>, id: Id<SupportAccessId>) -> Answer {
    let found = support_request::withdraw(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(SupportAccessOfTenantView::of(found, cx.now())))
}

/// Get a token for a tenant
///
/// An access token for the routes of the tenant, which ends with the access. Its `act` claim names the operator. For the operator who
/// has asked, with a recent second factor. 409 unless the access is in force.
#[utoipa::path(
    post, path = "/api/v1/admin/support-access/{id}/token", operation_id = "issue_support_token", tag = "Operators",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The token.", body = SupportTokenView)),
    security(("operator" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "tenant_gone", "conflict"]))),
)]
pub(crate) async fn token(cx: OperatorCtx<may::UseSupportAccess>, id: Id<SupportAccessId>) -> Answer {
    let token = support_request::token(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(SupportTokenView::from(token)))
}

impl From<NewSupportAccessBody> for NewSupportAccess {
    fn from(body: NewSupportAccessBody) -> Self {
        Self {
            reason: body.reason,
            access: body.access,
            minutes: body.minutes,
        }
    }
}

impl SupportAccessOfTenantView {
    fn of(found: PlatformSupportAccess, now: Time) -> Self {
        let PlatformSupportAccess { tenant, access } = found;
        Self {
            tenant_id: tenant,
            access: SupportAccessView::of(access, now),
        }
    }
}

impl From<SupportToken> for SupportTokenView {
    fn from(token: SupportToken) -> Self {
        let PlatformSupportAccess { tenant, access } = token.granted;
        let SupportAccess {
            access, expires_at, ..
        } = access;
        Self {
            access_token: token.access_token,
            token_type: "Bearer",
            expires_in: token.expires_in,
            tenant_id: tenant,
            access,
            expires_at,
        }
    }
}
