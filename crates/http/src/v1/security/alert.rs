use actix_web::{HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{AuditEventId, SecurityAlertId, UserId};
use tenantry_domain::security::{Alert, AlertAction, AlertFilter, AlertState, Severity, SubjectKind};
use tenantry_tenancy::security::alert;
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::PageParams;
use crate::{
    Answer, Ctx, Endpoint, Id, OptionalBody, PageView, Paged,
    permission::{AcknowledgeAlerts, ReadAlerts},
};

/// An alert: a rule has counted too much of a subject.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityAlert, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "rule": "failed_logins_account", "severity": "medium", "state": "open",
    "subject": {"kind": "user", "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12"}, "count": 5,
    "first_at": "2026-01-31T12:00:00Z", "last_at": "2026-01-31T12:01:00Z", "created_at": "2026-01-31T12:01:03Z",
    "evidence": ["0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15"], "action": "none", "acted_at": null,
    "acknowledged_at": null, "acknowledged_by": null, "note": null,
})))]
pub(crate) struct AlertView {
    #[schema(value_type = Uuid)]
    id: SecurityAlertId,
    /// The name of the rule: `GET /api/v1/security/rules` says what it counts.
    rule: String,
    #[schema(value_type = String, pattern = "^(low|medium|high)$")]
    severity: Severity,
    /// `open`, or `acknowledged` when an admin has looked at it.
    #[schema(value_type = String, pattern = "^(open|acknowledged)$")]
    state: AlertState,
    subject: SubjectView,
    /// How much was counted. It grows while the alert is open.
    #[schema(minimum = 1)]
    count: i64,
    /// When the first of it happened.
    first_at: DateTime<Utc>,
    /// When the last of it happened.
    last_at: DateTime<Utc>,
    /// When the alert was raised.
    created_at: DateTime<Utc>,
    /// The ids of the newest entries of the audit log that were counted.
    #[schema(value_type = Vec<Uuid>, max_items = 20)]
    evidence: Vec<AuditEventId>,
    /// What was done to the user: `none`, `step_up` or `end_sessions`. Of an alert about the tenant: to the last user of whom too much was counted.
    #[schema(value_type = String, pattern = "^(none|step_up|end_sessions)$")]
    action: AlertAction,
    /// When that was done last.
    #[schema(required = true)]
    acted_at: Option<DateTime<Utc>>,
    #[schema(required = true)]
    acknowledged_at: Option<DateTime<Utc>>,
    /// The admin who acknowledged it.
    #[schema(value_type = Option<Uuid>, required = true)]
    acknowledged_by: Option<UserId>,
    /// What that admin has noted.
    #[schema(required = true)]
    note: Option<String>,
}

/// What an alert is about.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityAlertSubject)]
pub(crate) struct SubjectView {
    /// `user`, `api_key`, `network` or `tenant`.
    #[schema(value_type = String, pattern = "^(user|api_key|network|tenant)$")]
    kind: SubjectKind,
    /// The id, or the network in CIDR notation.
    id: String,
}

/// Filters of alerts.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlertParams {
    /// Only in this state: `open` or `acknowledged`.
    #[param(value_type = Option<String>, pattern = "^(open|acknowledged)$")]
    state: Option<AlertState>,
    /// Only of this rule.
    #[param(min_length = 1, max_length = 40)]
    rule: Option<String>,
    /// Only of this severity: `low`, `medium` or `high`.
    #[param(value_type = Option<String>, pattern = "^(low|medium|high)$")]
    severity: Option<Severity>,
}

/// What an admin notes about an alert.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AcknowledgeAlert, examples(json!({"note": "It was me, with an old password."})))]
pub(crate) struct AcknowledgeBody {
    #[schema(min_length = 1, max_length = 1000)]
    note: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/security/alerts").get(list))
        .service(Endpoint::at("/security/alerts/{id}").get(read))
        .service(Endpoint::at("/security/alerts/{id}/acknowledge").post(acknowledge));
}

/// List alerts
///
/// There is one open alert of a rule and a subject; what happens while it is open raises its count. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/security/alerts", operation_id = "list_security_alerts", tag = "Security alerts",
    params(AlertParams, PageParams),
    responses((status = 200, description = "The alerts, newest first.", body = PageView<AlertView>, headers(("Link")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadAlerts>, query: Paged<AlertParams>) -> Answer {
    let filter = AlertFilter {
        state: query.filter.state,
        rule: query.filter.rule.clone(),
        severity: query.filter.severity,
    };
    let page = alert::list(&cx, &filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(AlertView::from)))
}

/// Get an alert
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/security/alerts/{id}", operation_id = "get_security_alert", tag = "Security alerts",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The alert.", body = AlertView)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadAlerts>, id: Id<SecurityAlertId>) -> Answer {
    let alert = alert::get(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(AlertView::from(alert)))
}

/// Acknowledge an alert
///
/// Further activity of its kind raises a new alert. Repeated, it changes nothing and answers with the alert as it is. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/security/alerts/{id}/acknowledge", operation_id = "acknowledge_security_alert",
    tag = "Security alerts",
    params(("id" = Uuid, Path)), request_body(content = Option<AcknowledgeBody>),
    responses((status = 200, description = "The alert, which is acknowledged.", body = AlertView)),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn acknowledge(
    cx: Ctx<AcknowledgeAlerts>,
    id: Id<SecurityAlertId>,
    body: OptionalBody<AcknowledgeBody>,
) -> Answer {
    let note = body.0.and_then(|body| body.note);
    let alert = alert::acknowledge(&cx, id.0, note).await?;
    Ok(HttpResponse::Ok().json(AlertView::from(alert)))
}

impl From<Alert> for AlertView {
    fn from(alert: Alert) -> Self {
        Self {
            id: alert.id,
            rule: alert.rule,
            severity: alert.severity,
            state: alert.state,
            subject: SubjectView {
                kind: alert.subject.kind,
                id: alert.subject.id,
            },
            count: alert.count,
            first_at: alert.first_at,
            last_at: alert.last_at,
            created_at: alert.created_at,
            evidence: alert.evidence,
            action: alert.action,
            acted_at: alert.acted_at,
            acknowledged_at: alert.acknowledged_at,
            acknowledged_by: alert.acknowledged_by,
            note: alert.note,
        }
    }
}
