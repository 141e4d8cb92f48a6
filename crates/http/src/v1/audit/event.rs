use actix_web::{HttpRequest, HttpResponse, web::ServiceConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::audit::{AuditFilter, AuditRecord, Outcome, Risk};
use tenantry_domain::kernel::{AuditEventId, ErrorCode, Invalid, Time, hex};
use tenantry_tenancy::audit::verify::Verified;
use tenantry_tenancy::audit::{log, verify};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::places::Full;
use crate::connection::connection::Gone;
use crate::extract::page::PageParams;
use crate::v1::kernel::schema;
use crate::{
    Answer, Api, ApiError, Ctx, Endpoint, Moment, NoFilter, PageView, Paged, Query, permission::ReadAudit,
};

/// Declares the query of a list of entries: its own parameters and the filter.
macro_rules! audit_params {
    ($(#[$about:meta])* $name:ident { $($(#[$about_field:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, Deserialize, IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(crate) struct $name {
            $($(#[$about_field])* pub(crate) $field: $type,)*
            /// Only of this actor: an id, or a kind (`user`, `api_key`, `operator`, `job`, `system`, `guest`, `founder`).
            #[param(pattern = "^(user|api_key|operator|job|system|guest|founder|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$")]
            actor: Option<String>,
            /// Only of this action, for example `project.created`.
            #[param(min_length = 1, max_length = 100)]
            action: Option<String>,
            /// Only of this kind of entity, for example `project`.
            #[param(min_length = 1, max_length = 100)]
            entity: Option<String>,
            /// Only of the entity with this id.
            entity_id: Option<Uuid>,
            /// Only of this risk.
            #[param(value_type = schema::Risk, inline, required = false)]
            risk: Option<Risk>,
            /// Only from this time on.
            #[param(value_type = Option<DateTime<Utc>>)]
            from: Option<Moment>,
            /// Only before this time.
            #[param(value_type = Option<DateTime<Utc>>)]
            to: Option<Moment>,
        }

        impl TryFrom<&$name> for AuditFilter {
            type Error = Invalid;

            fn try_from(params: &$name) -> Result<Self, Invalid> {
                let filter = Self {
                    action: params.action.clone(),
                    entity: params.entity.clone(),
                    entity_id: params.entity_id,
                    risk: params.risk,
                    from: params.from.map(Time::from),
                    to: params.to.map(Time::from),
                    ..Self::default()
                };
                filter.of_actor(params.actor.as_deref())
            }
        }
    };
}
pub(crate) use audit_params;

audit_params! {
    /// Filters of the audit log.
    AuditParams {}
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "sequence": 4711, "at": "2026-01-31T12:00:00Z",
    "actor": {"kind": "user", "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "name": "Ada Lovelace"},
    "action": "task.updated", "entity": "task", "entity_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13",
    "before": {"status": "todo"}, "after": {"status": "done"}, "address": "192.0.2.1", "user_agent": "curl/8.5.0",
    "request_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a15", "outcome": "success", "risk": "low",
    "hash": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
})))]
pub(crate) struct AuditEventView {
    #[schema(value_type = Uuid)]
    pub(crate) id: AuditEventId,
    /// The number of the entry in the tenant's log, from 1 on without gaps. Null in the first seconds, until it is chained.
    #[schema(required = true)]
    pub(crate) sequence: Option<i64>,
    pub(crate) at: DateTime<Utc>,
    pub(crate) actor: ActorView,
    /// What happened, for example `project.created`.
    pub(crate) action: String,
    /// The kind of thing it happened to.
    pub(crate) entity: String,
    /// The id of that thing, where it has one.
    #[schema(required = true)]
    pub(crate) entity_id: Option<Uuid>,
    /// The state before, without secrets; of an update the fields that have changed.
    #[schema(value_type = Option<Object>, required = true)]
    pub(crate) before: Option<Value>,
    /// The state after, in the same way, or details of a security event.
    #[schema(value_type = Option<Object>, required = true)]
    pub(crate) after: Option<Value>,
    #[schema(required = true)]
    pub(crate) address: Option<String>,
    #[schema(required = true)]
    pub(crate) user_agent: Option<String>,
    pub(crate) request_id: String,
    #[schema(value_type = schema::Outcome)]
    pub(crate) outcome: Outcome,
    #[schema(value_type = schema::Risk)]
    pub(crate) risk: Risk,
    /// The hash of the entry, hexadecimal: SHA-256 over the hash before it and the entry. Null until it is chained.
    #[schema(required = true)]
    pub(crate) hash: Option<String>,
}

/// What acted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditActor)]
pub(crate) struct ActorView {
    /// `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    pub(crate) kind: String,
    /// The id of the user, API key or operator; of a job that of the user for whom it ran.
    #[schema(required = true)]
    pub(crate) id: Option<Uuid>,
    /// The present name of the user or API key. It is not part of the log.
    #[schema(required = true)]
    pub(crate) name: Option<String>,
}

/// The outcome of a verification.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditVerification)]
pub(crate) struct VerificationView {
    /// Whether nothing is wrong.
    valid: bool,
    /// The number of verified entries.
    entries: i64,
    /// The number of the last chained entry; 0 without any.
    last_sequence: i64,
    /// Its hash, hexadecimal.
    last_hash: String,
    /// The number of the last entry that was deleted because of its age; the chain is verified from there on.
    #[schema(required = true)]
    checkpoint_sequence: Option<i64>,
    /// The newest signed head of the chain.
    #[schema(required = true)]
    signed_head: Option<SignedHeadView>,
    /// The number of signatures whose keys the server does not recognize.
    unverifiable_signatures: usize,
    /// The number of entries that are not chained yet.
    unchained: i64,
    /// When the oldest of these was written.
    #[schema(required = true)]
    oldest_unchained_at: Option<DateTime<Utc>>,
    /// The first entry with which something is wrong.
    #[schema(required = true)]
    first_wrong: Option<WrongView>,
}

/// A signed head of the chain.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditHead)]
pub(crate) struct SignedHeadView {
    sequence: i64,
    /// The hash of that entry, hexadecimal.
    hash: String,
    signed_at: DateTime<Utc>,
    /// The name of the signing key.
    kid: String,
    /// The Ed25519 signature, hexadecimal.
    signature: String,
}

/// An entry with which something is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WrongAuditEvent)]
pub(crate) struct WrongView {
    sequence: i64,
    #[schema(value_type = Option<Uuid>, required = true)]
    id: Option<AuditEventId>,
    /// `gap`, `missing_entry`, `hash_mismatch`, `signed_hash_mismatch`, `cut_off`, `wrong_signature` or `unchained_entry`.
    reason: &'static str,
    detail: &'static str,
}

/// How many verifications run at once: of one tenant, and in all. Each computes on one core for as long as it takes.
const VERIFICATIONS: (usize, usize) = (1, 2);

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/audit-events").get(list)).service(
        Endpoint::at("/audit-events/verify")
            .without_deadline()
            .get(verification),
    );
}

/// List the audit log
///
/// With `entity` and `entity_id` it is the history of one entity. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/audit-events", operation_id = "list_audit_events", tag = "Audit log",
    params(AuditParams, PageParams),
    responses(
        (status = 200, description = "The entries, newest first.", body = PageView<AuditEventView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadAudit>, query: Paged<AuditParams>) -> Answer {
    let filter = AuditFilter::try_from(&query.filter)?;
    let page = log::list(&cx, &filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(AuditEventView::from)))
}

/// Verify the audit log
///
/// Computes the whole hash chain anew and compares it with the stored one and with its signed heads: half a minute for some hundred
/// thousand entries. It ends when the client closes the connection. One runs at a time in a tenant, and a few on a server; others are 429
/// `rate_limited` and 503 `unavailable` until then. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/audit-events/verify", operation_id = "verify_audit_log", tag = "Audit log",
    responses((status = 200, description = "Whether the log is as it was written.", body = VerificationView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["validation_failed"]))),
)]
pub(crate) async fn verification(cx: Ctx<ReadAudit>, http: HttpRequest, _: Query<NoFilter>) -> Answer {
    let api = Api::of(&http)?;
    let place = api.verifications.enter(cx.scope().tenant(), VERIFICATIONS);
    let _place = place.map_err(|full| refused(&full))?;
    let client = Gone::of(&http);
    let verified = tokio::select! {
        verified = verify::verify(&cx) => verified?,
        () = client.wait() => return Err(ApiError::new(ErrorCode::RequestTimeout)),
    };
    Ok(HttpResponse::Ok().json(VerificationView::from(verified)))
}

fn refused(full: &Full) -> ApiError {
    full.refused(
        "The audit log is being verified. Wait for that verification to end.".to_owned(),
        "As many audit logs are being verified as this server verifies at once.",
        30,
    )
}

impl From<AuditRecord> for AuditEventView {
    fn from(record: AuditRecord) -> Self {
        let AuditRecord {
            entry,
            actor_name,
            chained,
        } = record;
        Self {
            id: entry.id,
            sequence: chained.map(|chained| chained.sequence),
            at: entry.at,
            actor: ActorView {
                kind: entry.actor_kind,
                id: entry.actor_id,
                name: actor_name,
            },
            action: entry.action,
            entity: entry.entity,
            entity_id: entry.entity_id,
            before: entry.before,
            after: entry.after,
            address: entry.address,
            user_agent: entry.user_agent,
            request_id: entry.request_id,
            outcome: entry.outcome,
            risk: entry.risk,
            hash: chained.map(|chained| hex(&chained.hash)),
        }
    }
}

impl From<Verified> for VerificationView {
    fn from(verified: Verified) -> Self {
        Self {
            valid: verified.wrong.is_none(),
            entries: verified.entries,
            last_sequence: verified.last_sequence,
            last_hash: hex(&verified.last_hash),
            checkpoint_sequence: verified.checkpoint,
            signed_head: verified.signed.map(|head| SignedHeadView {
                sequence: head.sequence,
                hash: hex(&head.hash),
                signed_at: head.created_at,
                kid: head.kid,
                signature: hex(&head.signature),
            }),
            unverifiable_signatures: verified.unverifiable,
            unchained: verified.unchained,
            oldest_unchained_at: verified.oldest_unchained,
            first_wrong: verified.wrong.map(|wrong| WrongView {
                sequence: wrong.sequence,
                id: wrong.id,
                reason: wrong.reason.as_str(),
                detail: wrong.reason.about(),
            }),
        }
    }
}
