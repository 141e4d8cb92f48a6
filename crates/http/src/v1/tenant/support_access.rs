use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{OperatorId, SupportAccessId, Time, UserId};
use tenantry_domain::tenant::{SupportAccess, SupportLevel, SupportStatus, SupportUse};
use tenantry_tenancy::tenant::support_access;
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::PageParams;
use crate::v1::kernel::schema;
use crate::{
    Answer, Ctx, Endpoint, Id, PageView, Paged,
    permission::{ManageSupportAccess, ReadSupportAccess},
};

/// Access of an operator of the platform to a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SupportAccess, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "status": "pending", "access": "read", "minutes": 30,
    "reason": "ticket 4711: tasks are missing", "operator_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12",
    "operator_name": "Sam Support", "created_at": "2026-01-31T12:00:00Z", "lapses_at": "2026-02-01T12:00:00Z",
    "preapproved": false, "decided_by": null, "decided_at": null, "expires_at": null, "ended_at": null,
})))]
pub(crate) struct SupportAccessView {
    #[schema(value_type = Uuid)]
    id: SupportAccessId,
    #[schema(value_type = schema::SupportStatus)]
    status: SupportStatus,
    #[schema(value_type = schema::SupportLevel)]
    access: SupportLevel,
    /// For how many minutes from the approval on.
    minutes: i64,
    reason: String,
    #[schema(value_type = Uuid)]
    operator_id: OperatorId,
    operator_name: String,
    created_at: DateTime<Utc>,
    /// When the request lapses, if nobody answers.
    lapses_at: DateTime<Utc>,
    /// Whether the security policy of the tenant has approved it.
    preapproved: bool,
    /// The admin who has approved or denied it.
    #[schema(required = true, value_type = Option<Uuid>)]
    decided_by: Option<UserId>,
    #[schema(required = true)]
    decided_at: Option<DateTime<Utc>>,
    /// When an approved access is over.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    /// When it was ended, by an admin or with the account of the operator or the approver, or withdrawn.
    #[schema(required = true)]
    ended_at: Option<DateTime<Utc>>,
}

/// What was asked for with a support access: one entry for each operation and entity.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SupportUse, examples(json!({
    "operation": "GET /api/v1/tasks/{id}", "entity": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "requests": 3,
    "first_at": "2026-01-31T12:00:00Z", "last_at": "2026-01-31T12:05:00Z",
})))]
pub(crate) struct SupportUseView {
    /// Method and path template.
    operation: String,
    /// What the path names; empty where it names nothing.
    entity: String,
    /// The number of requests, refused ones included.
    requests: i64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

/// Which accesses are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SupportParams {
    /// Only of this status.
    #[param(value_type = schema::SupportStatus, inline, required = false)]
    status: Option<SupportStatus>,
}

/// No filter.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UseParams {}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/support-access").get(list))
        .service(Endpoint::at("/support-access/{id}").get(read))
        .service(Endpoint::at("/support-access/{id}/uses").get(uses))
        .service(Endpoint::at("/support-access/{id}/approve").post(approve))
        .service(Endpoint::at("/support-access/{id}/deny").post(deny))
        .service(Endpoint::at("/support-access/{id}/end").post(end));
}

/// List support access
///
/// What operators of the platform have asked for, and what they got. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/support-access", operation_id = "list_support_access", tag = "Tenant",
    params(SupportParams, PageParams),
    responses(
        (status = 200, description = "The accesses, newest first.", body = PageView<SupportAccessView>, headers(("Link"))),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadSupportAccess>, query: Paged<SupportParams>) -> Answer {
    let page = support_access::list(&cx, query.filter.status, query.request(cx.scope())?).await?;
    let view = |access| SupportAccessView::of(access, cx.now());
    Ok(query.answer(cx.scope(), page.map(view)))
}

/// Get a support access
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/support-access/{id}", operation_id = "get_support_access", tag = "Tenant",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The access.", body = SupportAccessView)),
    security(("bearer" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadSupportAccess>, id: Id<SupportAccessId>) -> Answer {
    let access = support_access::get(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(SupportAccessView::of(access, cx.now())))
}

/// List what was done with a support access
///
/// One entry for each operation and entity, with the number of requests. Changes are in the audit log, each with this access. Minimum
/// role: admin.
#[utoipa::path(
    get, path = "/api/v1/support-access/{id}/uses", operation_id = "list_support_access_uses", tag = "Tenant",
    params(("id" = Uuid, Path), PageParams),
    responses(
        (status = 200, description = "The uses, the newest first.", body = PageView<SupportUseView>, headers(("Link"))),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn uses(
    cx: Ctx<ReadSupportAccess>,
    id: Id<SupportAccessId>,
    query: Paged<UseParams>,
) -> Answer {
    let page = support_access::uses(&cx, id.0, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(SupportUseView::from)))
}

/// Approve support access
///
/// The minutes begin now. An admin who has a second factor gives it within 10 minutes before. 409 unless the request is pending. Works
/// in a suspended tenant too. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/support-access/{id}/approve", operation_id = "approve_support_access", tag = "Tenant",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The access, which is in force.", body = SupportAccessView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["403 mfa_required", "conflict"]))),
)]
pub(crate) async fn approve(cx: Ctx<ManageSupportAccess>, id: Id<SupportAccessId>) -> Answer {
    let access = support_access::approve(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(SupportAccessView::of(access, cx.now())))
}

/// Deny support access
///
/// 409 unless the request is pending. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/support-access/{id}/deny", operation_id = "deny_support_access", tag = "Tenant",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The access, which is denied.", body = SupportAccessView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn deny(cx: Ctx<ManageSupportAccess>, id: Id<SupportAccessId>) -> Answer {
    let access = support_access::deny(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(SupportAccessView::of(access, cx.now())))
}

/// End support access
///
/// The next request of the operator is 401 `token_revoked`, as is one under way that has not committed its change, and event streams end.
/// 409 unless the access is in force. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/support-access/{id}/end", operation_id = "end_support_access", tag = "Tenant",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The access, which has ended.", body = SupportAccessView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["conflict"]))),
)]
pub(crate) async fn end(cx: Ctx<ManageSupportAccess>, id: Id<SupportAccessId>) -> Answer {
    let access = support_access::end(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(SupportAccessView::of(access, cx.now())))
}

impl SupportAccessView {
    /// How an access stands at a time.
    pub(crate) fn of(access: SupportAccess, now: Time) -> Self {
        Self {
            id: access.id,
            status: access.status_at(now),
            access: access.access,
            minutes: access.minutes,
            operator_id: access.operator,
            operator_name: access.operator_name,
            created_at: access.created_at,
            lapses_at: access.lapses_at,
            preapproved: access.preapproved,
            decided_by: access.decided_by,
            decided_at: access.decided_at,
            expires_at: access.expires_at,
            ended_at: access.ended_at,
            reason: access.reason,
        }
    }
}

impl From<SupportUse> for SupportUseView {
    fn from(one: SupportUse) -> Self {
        Self {
            operation: one.operation,
            entity: one.entity,
            requests: one.requests,
            first_at: one.first_at,
            last_at: one.last_at,
        }
    }
}
