//! The promise itself, for every operation of the OpenAPI document: whoever has a credential of one tenant
//! reads, writes, counts and infers nothing of another.
//!
//! They run over a service that embeds Tenantry, so that its routes and its table are held to the same rules.
//! [`table`] has an entry for each operation. An operation without one fails the first test, so a new
//! endpoint is covered or refused.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::flags::{Comparator, Condition, FlagDefinition, FlagRule};
use tenantry_domain::kernel::{Level, Role};
use tenantry_persistence::PoolConfig;
use tenantry_tenancy::flags::flag_definition::{self, DefinitionError, DefinitionReason};
use tenantry_tests::{Options, PASSWORD, Person, Reply, TenantWorld, World, evidence};

use crate::{api_keys, auth, embedder};

/// An id that nothing has.
const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";

/// A flag that every tenant may override; its rules name each tenant.
const SHARED_FLAG: &str = "shared";

/// What an id in a path is of.
#[derive(Debug, Clone, Copy)]
enum Of {
    User,
    Member,
    Project,
    DeletedProject,
    Task,
    Resource,
    ApiKey,
    /// An event of the ledger of usage.
    UsageEvent,
    /// Of the embedding service.
    Note,
    /// The number of a version; no id, so the same in every tenant.
    First,
    /// The key of a flag, which is everybody's.
    Flag,
    /// The key of a meter, which is everybody's.
    Meter,
    Reservation,
    /// Of the tenant's viewer.
    Session,
    Invitation,
    Passkey,
    /// A custom domain that is claimed.
    Domain,
    /// An endpoint of webhooks.
    Endpoint,
    /// A message of webhooks, which is queued for that endpoint.
    Message,
    /// The name of a custom role.
    Role,
    /// The name of a consumer of the feed of events.
    Consumer,
    /// A name that any tenant may give to a consumer of its own.
    AnyConsumer,
}
use Of::{
    ApiKey, DeletedProject, Domain, Endpoint, First, Flag, Invitation, Member, Message, Meter, Note, Passkey,
    Project, Reservation, Resource, Session, Task, UsageEvent, User,
};

/// What the tests know of an operation: how to build a request that succeeds, out of ids of one tenant.
struct Operation {
    method: Method,
    path: &'static str,
    /// Who may at the least; `None` for what is open to everybody.
    least: Option<Role>,
    /// What the ids of the path are of, in their order.
    ids: &'static [Of],
    query: fn(&Ids) -> Vec<(&'static str, String)>,
    body: Option<fn(&Ids) -> Value>,
    /// Whether a suspended tenant loses it.
    writes: bool,
    /// Whether what was done before it may stand in its way.
    may_conflict: bool,
    /// Whether the row may be another user's, whom it is not there for.
    may_be_missing: bool,
    /// Whether its body confirms something with a name, which the sweep gets wrong on purpose.
    may_be_unconfirmed: bool,
    /// Whether it needs a second factor of the caller's own, or a proven mailbox, which the caller has not given.
    may_need_factor: bool,
}

/// Ids of one tenant's rows, as text, so that they may be nonsense too.
#[derive(Debug, Clone)]
struct Ids {
    user: String,
    outsider: String,
    project: String,
    deleted_project: String,
    task: String,
    resource: String,
    api_key: String,
    usage_event: String,
    note: String,
    reservation: String,
    session: String,
    invitation: String,
    passkey: String,
    domain: String,
    endpoint: String,
    message: String,
    role: String,
    consumer: String,
    /// Something that makes names unique.
    label: String,
}

fn table() -> Vec<Operation> {
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let put = Method::PUT;
    let mut table = Vec::new();
    let open = [
        (&post, "/api/v1/tenants"),
        (&post, "/api/v1/auth/login"),
        (&post, "/api/v1/auth/register"),
        (&post, "/api/v1/auth/refresh"),
        (&post, "/api/v1/invitations/accept"),
        (&post, "/api/v1/auth/mfa/verify"),
        (&post, "/api/v1/auth/mfa/required/enroll"),
        (&post, "/api/v1/auth/mfa/required/confirm"),
        (&post, "/api/v1/auth/passkeys/login"),
        (&put, "/api/v1/auth/passkeys/login"),
        (&post, "/api/v1/auth/forgot-password"),
        (&post, "/api/v1/auth/discover"),
        (&post, "/api/v1/auth/reset-password"),
        (&post, "/api/v1/auth/verify-email"),
        (&post, "/api/v1/auth/confirm-email"),
        (&post, "/api/v1/auth/revert-email"),
        (&post, "/api/v1/auth/resend-verification"),
        (&post, "/api/v1/admin/login"),
        (&post, "/api/v1/admin/mfa/verify"),
        (&post, "/api/v1/admin/mfa/required/enroll"),
        (&post, "/api/v1/admin/mfa/required/confirm"),
        (&get, "/api/v1/auth/challenge"),
        (&get, "/health"),
        (&get, "/health/liveness"),
        (&get, "/health/readiness"),
        (&get, "/.well-known/jwks.json"),
        (&get, "/metrics"),
        (&get, "/problems"),
        (&get, "/problems/{code}"),
        (&get, "/openapi.json"),
        (&get, "/openapi.yaml"),
        (&get, "/api/v1/export-links/{id}"),
        (&get, "/api/v1/notifications/unsubscribe"),
        (&post, "/api/v1/notifications/unsubscribe"),
        (&get, "/api/v1/branding"),
        (&get, "/api/v1/branding/theme.css"),
        (&get, "/api/v1/branding/preview"),
        (&get, "/branding/preview"),
        (&post, "/webhooks/stripe"),
    ];
    table.extend(open.map(|(method, path)| Operation::new(method, path, None)));
    let at = |method: &Method, path, least| Operation::new(method, path, Some(least));
    let (viewer, member, admin) = (Role::Viewer, Role::Member, Role::Admin);
    table.extend([
        Operation {
            writes: false,
            ..at(&post, "/api/v1/auth/logout", viewer)
        },
        Operation {
            writes: false,
            may_need_factor: true,
            ..at(&post, "/api/v1/auth/change-email", viewer)
                .body(|ids| json!({"email": format!("{}@moved.example", ids.label), "password": PASSWORD}))
        },
        // These sessions prove no mailbox.
        at(&post, "/api/v1/auth/switch-tenant", viewer)
            .body(|_| json!({"tenant_slug": "nowhere-at-all"}))
            .of_factor(),
        at(&get, "/api/v1/auth/me", viewer),
        at(&get, "/api/v1/auth/sessions", viewer),
        Operation {
            writes: false,
            may_be_missing: true,
            ..at(&delete, "/api/v1/auth/sessions/{id}", viewer).ids(&[Session])
        },
        Operation {
            writes: false,
            ..at(&post, "/api/v1/users/{id}/end-sessions", admin).ids(&[User])
        },
        // Without a second factor, these conflict.
        at(&post, "/api/v1/auth/mfa/confirm", viewer)
            .body(|_| json!({"code": "000000"}))
            .of_factor(),
        at(&post, "/api/v1/auth/mfa/disable", viewer)
            .body(|_| json!({"password": PASSWORD, "code": "000000"}))
            .of_factor(),
        at(&post, "/api/v1/auth/mfa/recovery-codes", viewer)
            .body(|_| json!({"code": "000000"}))
            .of_factor(),
        at(&post, "/api/v1/auth/mfa/step-up", viewer)
            .body(|_| json!({"code": "000000"}))
            .of_factor(),
        at(&post, "/api/v1/auth/mfa/enroll", viewer)
            .body(|_| json!({"password": PASSWORD}))
            .of_factor(),
        // A user has ten passkeys at the most.
        at(&post, "/api/v1/auth/passkeys/registration", viewer).of_factor(),
        // Without a registration that has begun, it conflicts.
        at(&put, "/api/v1/auth/passkeys/registration", viewer)
            .body(|_| json!({"token": "", "credential": {}}))
            .of_factor(),
        at(&get, "/api/v1/auth/passkeys", viewer),
        Operation {
            writes: false,
            may_be_missing: true,
            ..at(&patch, "/api/v1/auth/passkeys/{id}", viewer)
                .ids(&[Passkey])
                .body(|ids| json!({"name": ids.label}))
        },
        Operation {
            writes: false,
            may_be_missing: true,
            may_need_factor: true,
            ..at(&delete, "/api/v1/auth/passkeys/{id}", viewer).ids(&[Passkey])
        },
        at(&get, "/api/v1/tenant", viewer),
        at(&get, "/api/v1/tenant/capabilities", viewer),
        at(&get, "/api/v1/tenant/domains", viewer),
        at(&post, "/api/v1/tenant/domains", admin)
            .body(|ids| json!({"domain": format!("new{}.fresh-corp.com", ids.label.to_lowercase())})),
        at(&get, "/api/v1/tenant/domains/{id}", viewer).ids(&[Domain]),
        at(&post, "/api/v1/tenant/domains/{id}/verify", admin).ids(&[Domain]),
        at(&delete, "/api/v1/tenant/domains/{id}", admin).ids(&[Domain]),
        at(&get, "/api/v1/entitlements", viewer),
        at(&get, "/api/v1/entitlements/{feature}", viewer).ids(&[Meter]),
        at(&get, "/api/v1/quotas", viewer),
        at(&get, "/api/v1/quotas/alerts", viewer),
        at(&get, "/api/v1/quotas/{meter}/reservations", viewer).ids(&[Meter]),
        at(&post, "/api/v1/quotas/{meter}/reservations", member)
            .ids(&[Meter])
            .body(|_| json!({"amount": 2, "ttl_seconds": 600})),
        at(&get, "/api/v1/quotas/{meter}/reservations/{id}", viewer).ids(&[Meter, Reservation]),
        at(&delete, "/api/v1/quotas/{meter}/reservations/{id}", member).ids(&[Meter, Reservation]),
        at(&post, "/api/v1/quotas/{meter}/reservations/{id}/commit", member)
            .ids(&[Meter, Reservation])
            .body(|_| json!({"actual": 1})),
        at(&patch, "/api/v1/tenant", admin).body(|_| json!({"name": "Another name"})),
        at(&get, "/api/v1/security/policy", admin),
        at(&patch, "/api/v1/security/policy", admin).body(|_| json!({"session_max_days": 90})),
        at(&get, "/api/v1/security/rules", admin),
        at(&patch, "/api/v1/security/rules", admin).body(|_| json!({"mass_reading": {"threshold": 7}})),
        at(&get, "/api/v1/security/alerts", admin),
        // The ids are those of sessions, so no alert has them: the system raises alerts, and `alerts` is about them.
        Operation {
            may_be_missing: true,
            ..at(&get, "/api/v1/security/alerts/{id}", admin).ids(&[Session])
        },
        Operation {
            may_be_missing: true,
            ..at(&post, "/api/v1/security/alerts/{id}/acknowledge", admin).ids(&[Session])
        },
        at(&get, "/api/v1/tenant/settings", viewer),
        at(&get, "/api/v1/tenant/settings/schema", viewer),
        at(&patch, "/api/v1/tenant/settings", admin).body(|_| json!({"notifications.digest_hour": 9})),
        at(&post, "/api/v1/tenant/settings/rollback", admin).body(|_| json!({"version": 1})),
        at(&get, "/api/v1/tenant/settings/versions", admin),
        at(&get, "/api/v1/tenant/settings/versions/{n}", admin).ids(&[First]),
        at(&get, "/api/v1/tenant/settings/versions/{a}/diff/{b}", admin).ids(&[First, First]),
        at(&Method::PUT, "/api/v1/branding", admin).body(|ids| json!({"display_name": ids.label})),
        at(&patch, "/api/v1/branding", admin).body(|ids| json!({"display_name": ids.label})),
        at(&get, "/api/v1/billing", admin),
        at(&get, "/api/v1/billing/invoices", admin),
        at(&get, "/api/v1/billing/preview", admin).query(|_| vec![("plan", "enterprise".into())]),
        at(&post, "/api/v1/billing/checkout", admin)
            .body(|_| json!({"plan": "pro"}))
            .pays(),
        at(&post, "/api/v1/billing/portal", admin).pays(),
        at(&post, "/api/v1/billing/subscription", admin)
            .body(|_| json!({"plan": "pro", "interval": "year"}))
            .pays(),
        at(&post, "/api/v1/billing/subscription/cancel", admin).pays(),
        at(&post, "/api/v1/billing/subscription/resume", admin).pays(),
        at(&get, "/api/v1/permissions", viewer),
        at(&get, "/api/v1/users", viewer),
        at(&post, "/api/v1/users", admin)
            .body(|ids| json!({"email": format!("{}@new.example", ids.label), "full_name": "New"})),
        at(&get, "/api/v1/users/{id}", viewer).ids(&[User]),
        at(&post, "/api/v1/users/{id}/send-reset", admin).ids(&[User]),
        // Everybody may change themselves; the one changed here is somebody else.
        at(&patch, "/api/v1/users/{id}", admin)
            .ids(&[User])
            .body(|_| json!({"full_name": "Another name"})),
        at(&get, "/api/v1/auth/mfa/devices", viewer),
        at(&delete, "/api/v1/auth/mfa/devices", viewer).of_factor(),
        Operation {
            may_need_factor: true,
            ..at(&post, "/api/v1/users/{id}/reset-mfa", admin).ids(&[User])
        },
        at(&delete, "/api/v1/users/{id}", admin).ids(&[User]),
        at(&get, "/api/v1/invitations", admin),
        at(&post, "/api/v1/invitations", admin)
            .body(|ids| json!({"email": format!("{}@invited.example", ids.label), "role": "member"})),
        at(&get, "/api/v1/invitations/{id}", admin).ids(&[Invitation]),
        Operation {
            writes: false,
            ..at(&delete, "/api/v1/invitations/{id}", admin).ids(&[Invitation])
        },
        at(&post, "/api/v1/invitations/{id}/resend", admin).ids(&[Invitation]),
        at(&get, "/api/v1/roles", viewer),
        at(&post, "/api/v1/roles", admin)
            .body(|ids| json!({"name": format!("r{}", ids.label), "permissions": ["tasks.read"]})),
        at(&get, "/api/v1/roles/{name}", viewer).ids(&[Of::Role]),
        at(&patch, "/api/v1/roles/{name}", admin)
            .ids(&[Of::Role])
            .body(|_| json!({"permissions": ["projects.read"]})),
        at(&delete, "/api/v1/roles/{name}", admin).ids(&[Of::Role]),
        at(&get, "/api/v1/api-keys", admin),
        at(&post, "/api/v1/api-keys", admin).body(|ids| json!({"name": ids.label, "scopes": ["tasks.read"]})),
        at(&get, "/api/v1/api-keys/{id}", admin).ids(&[ApiKey]),
        at(&patch, "/api/v1/api-keys/{id}", admin)
            .ids(&[ApiKey])
            .body(|ids| json!({"name": ids.label})),
        at(&post, "/api/v1/api-keys/{id}/rotate", admin)
            .ids(&[ApiKey])
            .body(|_| json!({"overlap_seconds": 60})),
        Operation {
            writes: false,
            ..at(&delete, "/api/v1/api-keys/{id}", admin).ids(&[ApiKey])
        },
        at(&get, "/api/v1/projects", viewer),
        at(&post, "/api/v1/projects", member).body(|ids| json!({"name": format!("New {}", ids.label)})),
        at(&get, "/api/v1/projects/{id}", viewer).ids(&[Project]),
        at(&patch, "/api/v1/projects/{id}", member)
            .ids(&[Project])
            .body(|ids| json!({"name": format!("Changed {}", ids.label)})),
        // The owner may as well; the owner here is somebody else.
        at(&delete, "/api/v1/projects/{id}", admin).ids(&[Project]),
        at(&post, "/api/v1/projects/{id}/restore", admin).ids(&[DeletedProject]),
        at(&get, "/api/v1/projects/{id}/members", viewer).ids(&[Project]),
        at(&post, "/api/v1/projects/{id}/members", admin)
            .ids(&[Project])
            .body(|ids| json!({"user_id": ids.outsider, "role": "viewer"})),
        at(&delete, "/api/v1/projects/{id}/members/{user_id}", admin).ids(&[Project, Member]),
        at(&get, "/api/v1/projects/{id}/tasks", viewer)
            .ids(&[Project])
            .query(|ids| vec![("assignee_id", ids.user.clone())]),
        at(&post, "/api/v1/projects/{id}/tasks", member)
            .ids(&[Project])
            .body(|ids| json!({"title": "New", "assignee_id": ids.user})),
        at(&get, "/api/v1/tasks", viewer).query(|ids| {
            vec![
                ("project_id", ids.project.clone()),
                ("assignee_id", ids.user.clone()),
            ]
        }),
        at(&get, "/api/v1/tasks/{id}", viewer).ids(&[Task]),
        at(&patch, "/api/v1/tasks/{id}", member)
            .ids(&[Task])
            .body(|ids| json!({"title": "Changed", "project_id": ids.project, "assignee_id": ids.outsider})),
        at(&delete, "/api/v1/tasks/{id}", member).ids(&[Task]),
        at(&get, "/api/v1/resources", viewer).query(|ids| vec![("project_id", ids.project.clone())]),
        at(&post, "/api/v1/resources", member)
            .body(|ids| json!({"name": "New", "content": "new", "project_id": ids.project})),
        at(&get, "/api/v1/resources/{id}", viewer).ids(&[Resource]),
        at(&patch, "/api/v1/resources/{id}", member)
            .ids(&[Resource])
            .body(|ids| json!({"content": "changed", "project_id": ids.project})),
        at(&delete, "/api/v1/resources/{id}", member).ids(&[Resource]),
        at(&get, "/api/v1/resources/{id}/versions", viewer).ids(&[Resource]),
        at(&get, "/api/v1/resources/{id}/versions/{n}", viewer).ids(&[Resource, First]),
        at(&get, "/api/v1/features", viewer),
        at(&put, "/api/v1/features/{key}/override", admin)
            .ids(&[Flag])
            .body(|_| json!({"variant": "on"})),
        at(&delete, "/api/v1/features/{key}/override", admin).ids(&[Flag]),
        at(&get, "/api/v1/features/{key}/explain", admin).ids(&[Flag]),
        Operation {
            writes: false,
            ..at(&post, "/ofrep/v1/evaluate/flags", viewer)
                .body(|_| json!({"context": {"targetingKey": "somebody"}}))
        },
        Operation {
            writes: false,
            ..at(&post, "/ofrep/v1/evaluate/flags/{key}", viewer)
                .ids(&[Flag])
                .body(|_| json!({}))
        },
        at(&get, "/ofrep/v1/events", viewer),
        at(&get, "/api/v1/audit-events", admin),
        at(&get, "/api/v1/audit-events/verify", admin),
        at(&get, "/api/v1/audit-events/export", admin),
        at(&get, "/api/v1/events", admin),
        at(&get, "/api/v1/events/consumers", admin),
        at(&get, "/api/v1/events/consumers/{name}", admin).ids(&[Of::Consumer]),
        Operation {
            writes: false,
            ..at(&put, "/api/v1/events/consumers/{name}", admin)
                .ids(&[Of::AnyConsumer])
                .body(|_| json!({"cursor": "latest"}))
        },
        Operation {
            writes: false,
            ..at(&delete, "/api/v1/events/consumers/{name}", admin).ids(&[Of::Consumer])
        },
        at(&get, "/api/v1/webhooks/event-types", viewer),
        at(&get, "/api/v1/notifications", viewer),
        at(&get, "/api/v1/notifications/unread-count", viewer),
        Operation {
            writes: false,
            ..at(&post, "/api/v1/notifications/read-all", viewer)
        },
        // The ids are those of sessions, so no notification has them: events notify, and `notifications` is about them.
        Operation {
            writes: false,
            may_be_missing: true,
            ..at(&patch, "/api/v1/notifications/{id}", viewer)
                .ids(&[Session])
                .body(|_| json!({"read": true}))
        },
        at(&get, "/api/v1/auth/me/preferences", viewer),
        Operation {
            writes: false,
            ..at(&patch, "/api/v1/auth/me/preferences", viewer)
                .body(|_| json!({"notifications": {"task.assigned": {"mail": "daily"}}}))
        },
        at(&get, "/api/v1/webhooks/endpoints", admin),
        at(&post, "/api/v1/webhooks/endpoints", admin)
            .body(|ids| json!({"url": format!("https://hooks.example.com/{}", ids.label)})),
        at(&get, "/api/v1/webhooks/endpoints/{id}", admin).ids(&[Endpoint]),
        at(&patch, "/api/v1/webhooks/endpoints/{id}", admin)
            .ids(&[Endpoint])
            .body(|ids| json!({"description": ids.label})),
        at(&delete, "/api/v1/webhooks/endpoints/{id}", admin).ids(&[Endpoint]),
        at(&post, "/api/v1/webhooks/endpoints/{id}/rotate-secret", admin)
            .ids(&[Endpoint])
            .body(|_| json!({"grace_period_seconds": 60})),
        at(&post, "/api/v1/webhooks/endpoints/{id}/test", admin).ids(&[Endpoint]),
        at(&post, "/api/v1/webhooks/endpoints/{id}/recover", admin)
            .ids(&[Endpoint])
            .body(|_| json!({"since": "2026-01-01T00:00:00Z"})),
        at(&get, "/api/v1/webhooks/endpoints/{id}/attempts", admin).ids(&[Endpoint]),
        at(&get, "/api/v1/webhooks/endpoints/{id}/stats", admin).ids(&[Endpoint]),
        at(&get, "/api/v1/webhooks/messages", admin),
        at(&get, "/api/v1/webhooks/messages/{id}", admin).ids(&[Message]),
        at(
            &post,
            "/api/v1/webhooks/messages/{id}/endpoints/{endpoint_id}/resend",
            admin,
        )
        .ids(&[Message, Endpoint]),
        at(&post, "/api/v1/webhooks/portal", admin).body(|_| json!({"expires_in": 60})),
        at(&get, "/api/v1/tenant/exports", admin),
        // One is under way at a time, so the second one conflicts.
        at(&post, "/api/v1/tenant/exports", admin).of_factor(),
        at(&post, "/api/v1/users/{id}/exports", admin)
            .ids(&[User])
            .of_factor(),
        Operation {
            may_be_missing: true,
            ..at(&get, "/api/v1/users/{id}/exports/{export_id}", admin).ids(&[User, Session])
        },
        Operation {
            may_be_unconfirmed: true,
            ..at(&post, "/api/v1/users/{id}/erase", admin)
                .ids(&[User])
                .body(|_| json!({"confirm_email": "nobody@of-no-tenant.example"}))
        },
        // The ids are those of sessions, so no export has them: exports are written by jobs, and `exports` is about them.
        Operation {
            may_be_missing: true,
            ..at(&get, "/api/v1/tenant/exports/{id}", admin).ids(&[Session])
        },
        Operation {
            may_be_missing: true,
            ..at(&get, "/api/v1/tenant/exports/{id}/download", admin).ids(&[Session])
        },
        // The ids are those of sessions, so no access has them: operators ask for accesses, and `support_access` is about them.
        at(&get, "/api/v1/support-access", admin),
        Operation {
            may_be_missing: true,
            ..at(&get, "/api/v1/support-access/{id}", admin).ids(&[Session])
        },
        Operation {
            may_be_missing: true,
            ..at(&get, "/api/v1/support-access/{id}/uses", admin).ids(&[Session])
        },
        Operation {
            writes: false,
            may_be_missing: true,
            ..at(&post, "/api/v1/support-access/{id}/approve", admin).ids(&[Session])
        },
        Operation {
            writes: false,
            may_be_missing: true,
            ..at(&post, "/api/v1/support-access/{id}/deny", admin).ids(&[Session])
        },
        Operation {
            writes: false,
            may_be_missing: true,
            ..at(&post, "/api/v1/support-access/{id}/end", admin).ids(&[Session])
        },
        // It works in a suspended tenant too. Confirmed, it would be the last operation of each sweep.
        Operation {
            writes: false,
            may_be_unconfirmed: true,
            ..at(&delete, "/api/v1/tenant", admin).body(|_| json!({"confirm_slug": "of-no-tenant"}))
        },
        at(&get, "/api/v1/usage", viewer),
        at(&get, "/api/v1/usage/summary", viewer),
        // A list is answered for each of its events, none of which is taken here.
        at(&post, "/api/v1/usage/events", admin)
            .body(|ids| json!([{"idempotency_key": ids.label, "meter": "nothing", "quantity": 1}])),
        at(&post, "/api/v1/usage/events/{id}/invalidate", admin)
            .ids(&[UsageEvent])
            .body(|_| json!({"reason": "a sweep"})),
        at(&get, "/api/v1/tasks/{id}/notes", viewer).ids(&[Task]),
        at(&post, "/api/v1/tasks/{id}/notes", member)
            .ids(&[Task])
            .body(|_| json!({"text": "New"})),
        at(&get, "/api/v1/notes/{id}", viewer).ids(&[Note]),
    ]);
    // Last, since they end the sessions that the sweeps began with. The password is changed to the same one, so that it can be
    // done again.
    table.push(Operation {
        writes: false,
        may_need_factor: true,
        ..at(&post, "/api/v1/auth/change-password", viewer)
            .body(|_| json!({"current_password": PASSWORD, "new_password": PASSWORD}))
    });
    table.push(Operation {
        writes: false,
        ..at(&post, "/api/v1/auth/logout-all", viewer)
    });
    table
}

/// What is for operators of the platform, and no user's credential leads to.
fn of_operators() -> [(Method, &'static str, Option<Value>); 61] {
    let reason = || Some(json!({"reason": "a sweep"}));
    let flag = || json!(FlagDefinition::boolean(SHARED_FLAG, "by a sweep"));
    let segment =
        || json!({"key": SHARED_FLAG, "when": [{"attribute": "a", "operator": "in", "values": ["b"]}]});
    let operator = || json!({"email": "sweep@platform.example", "full_name": "Sweep", "role": "support"});
    let tenant = || {
        json!({
            "name": "Sweep", "slug": "by-a-sweep",
            "admin": {"email": "sweep@sweep.example", "full_name": "Sweep"},
        })
    };
    let code = || Some(json!({"code": "123456"}));
    let both = || Some(json!({"password": "correct horse battery staple", "code": "123456"}));
    let password = || Some(json!({"password": "correct horse battery staple"}));
    [
        (Method::GET, "/health/detailed", None),
        (
            Method::POST,
            "/api/v1/admin/change-password",
            Some(json!({"current_password": PASSWORD, "new_password": "a staple of batteries"})),
        ),
        (Method::POST, "/api/v1/admin/mfa/enroll", password()),
        (Method::POST, "/api/v1/admin/mfa/confirm", code()),
        (Method::POST, "/api/v1/admin/mfa/disable", both()),
        (Method::POST, "/api/v1/admin/mfa/recovery-codes", code()),
        (Method::POST, "/api/v1/admin/mfa/step-up", code()),
        (Method::GET, "/api/v1/admin/operators", None),
        (Method::POST, "/api/v1/admin/operators", Some(operator())),
        (Method::GET, "/api/v1/admin/operators/{id}", None),
        (
            Method::PATCH,
            "/api/v1/admin/operators/{id}",
            Some(json!({"full_name": "Otto"})),
        ),
        (Method::DELETE, "/api/v1/admin/operators/{id}", None),
        (Method::POST, "/api/v1/admin/operators/{id}/end-sessions", None),
        (Method::POST, "/api/v1/admin/operators/{id}/reset-password", None),
        (Method::POST, "/api/v1/admin/operators/{id}/reset-mfa", None),
        (Method::GET, "/api/v1/admin/jobs", None),
        (Method::POST, "/api/v1/admin/jobs/{id}/replay", reason()),
        (Method::POST, "/api/v1/admin/jobs/{id}/cancel", reason()),
        (Method::GET, "/api/v1/admin/users", None),
        (Method::GET, "/api/v1/admin/projects", None),
        (Method::GET, "/api/v1/admin/tasks", None),
        (Method::GET, "/api/v1/admin/usage", None),
        (Method::GET, "/api/v1/admin/tenant-audit-events", None),
        (Method::GET, "/api/v1/admin/events", None),
        (Method::POST, "/api/v1/admin/tenants", Some(tenant())),
        (Method::PATCH, "/api/v1/admin/tenants/{id}", reason()),
        (
            Method::POST,
            "/api/v1/admin/tenants/{id}/plan",
            Some(json!({"plan": "pro", "reason": "a sweep"})),
        ),
        (Method::GET, "/api/v1/admin/audit-events", None),
        (Method::GET, "/api/v1/admin/support-access", None),
        (
            Method::POST,
            "/api/v1/admin/support-access",
            Some(
                json!({"tenant_id": NOBODY, "reason": "asked for by a sweep", "access": "read", "minutes": 5}),
            ),
        ),
        (Method::GET, "/api/v1/admin/support-access/{id}", None),
        (Method::POST, "/api/v1/admin/support-access/{id}/withdraw", None),
        (Method::POST, "/api/v1/admin/support-access/{id}/token", None),
        (Method::GET, "/api/v1/admin/tenants", None),
        (Method::GET, "/api/v1/admin/tenants/{id}", None),
        (Method::POST, "/api/v1/admin/tenants/{id}/suspend", reason()),
        (Method::POST, "/api/v1/admin/tenants/{id}/resume", reason()),
        (Method::POST, "/api/v1/admin/tenants/{id}/delete", reason()),
        (Method::POST, "/api/v1/admin/tenants/{id}/restore", reason()),
        (Method::POST, "/api/v1/admin/tenants/{id}/purge", reason()),
        (Method::GET, "/api/v1/admin/billing/accounts", None),
        (Method::GET, "/api/v1/admin/billing/dead-letters", None),
        (Method::GET, "/api/v1/admin/billing/drift", None),
        (Method::GET, "/api/v1/admin/billing/events", None),
        (
            Method::POST,
            "/api/v1/admin/dunning/simulate",
            Some(json!({"plan": "pro", "failed_at": "2026-01-15T12:00:00Z"})),
        ),
        (Method::GET, "/api/v1/admin/flags", None),
        (Method::POST, "/api/v1/admin/flags", Some(flag())),
        (Method::GET, "/api/v1/admin/flags/{key}", None),
        (Method::PUT, "/api/v1/admin/flags/{key}", Some(flag())),
        (Method::POST, "/api/v1/admin/flags/{key}/archive", None),
        (
            Method::POST,
            "/api/v1/admin/flags/{key}/rollback",
            Some(json!({"version": 1})),
        ),
        (Method::GET, "/api/v1/admin/flags/{key}/versions", None),
        (Method::GET, "/api/v1/admin/flags/{key}/versions/{n}", None),
        (Method::GET, "/api/v1/admin/segments", None),
        (Method::POST, "/api/v1/admin/segments", Some(segment())),
        (Method::GET, "/api/v1/admin/segments/{key}", None),
        (Method::PUT, "/api/v1/admin/segments/{key}", Some(segment())),
        (Method::DELETE, "/api/v1/admin/segments/{key}", None),
        (
            Method::POST,
            "/api/v1/admin/segments/{key}/rollback",
            Some(json!({"version": 1})),
        ),
        (Method::GET, "/api/v1/admin/segments/{key}/versions", None),
        (Method::GET, "/api/v1/admin/segments/{key}/versions/{n}", None),
    ]
}

/// A request to such an operation, about a tenant.
fn operators_call((method, path, body): (Method, &'static str, Option<Value>), tenant: &TenantWorld) -> Call {
    Call {
        method,
        path: path
            .replace("{id}", &tenant.id.to_string())
            .replace("{key}", SHARED_FLAG)
            .replace("{n}", "1"),
        query: Vec::new(),
        body,
    }
}

/// The operations for those with a credential.
fn protected() -> impl Iterator<Item = (Operation, Role)> {
    table()
        .into_iter()
        .filter_map(|operation| operation.least.map(|least| (operation, least)))
}

impl Operation {
    fn new(method: &Method, path: &'static str, least: Option<Role>) -> Self {
        let writes = method != Method::GET;
        Self {
            method: method.clone(),
            path,
            least,
            ids: &[],
            query: |_| Vec::new(),
            body: None,
            writes,
            may_conflict: false,
            may_be_missing: false,
            may_be_unconfirmed: false,
            may_need_factor: false,
        }
    }

    /// About paying: a suspended tenant may, and one thing may stand in the other's way.
    fn pays(self) -> Self {
        Self {
            writes: false,
            may_conflict: true,
            ..self
        }
    }

    /// About the caller's second factor: it works in a suspended tenant, and the caller has none but a passkey.
    fn of_factor(self) -> Self {
        Self {
            writes: false,
            may_conflict: true,
            may_need_factor: true,
            ..self
        }
    }

    /// Whether it was let through.
    fn is_done(&self, reply: &Reply) -> bool {
        let conflicts = self.may_conflict && reply.status == 409 && reply.json()["code"] == "conflict";
        let is_missing = self.may_be_missing && reply.status == 404;
        let needs_factor = self.may_need_factor
            && reply.status == 403
            && ["mfa_required", "mailbox_proof_required"]
                .map(Value::from)
                .contains(&reply.json()["code"]);
        let is_unconfirmed =
            self.may_be_unconfirmed && reply.status == 422 && reply.json()["errors"][0]["code"] == "mismatch";
        let is_done = (200..300).contains(&reply.status);
        is_done || conflicts || is_missing || needs_factor || is_unconfirmed
    }

    fn ids(self, ids: &'static [Of]) -> Self {
        Self { ids, ..self }
    }

    fn query(self, query: fn(&Ids) -> Vec<(&'static str, String)>) -> Self {
        Self { query, ..self }
    }

    fn body(self, body: fn(&Ids) -> Value) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }

    /// Whether its path has an id of a row of the tenant's; the number of a version is none.
    fn names_rows(&self) -> bool {
        self.ids
            .iter()
            .any(|of| !matches!(of, First | Flag | Meter | Of::AnyConsumer))
    }

    /// The path with ids in it.
    fn path(&self, ids: &Ids) -> String {
        let mut path = self.path.to_owned();
        for of in self.ids {
            let (begin, end) = (path.find('{').unwrap(), path.find('}').unwrap());
            path.replace_range(begin..=end, ids.of(*of));
        }
        assert!(!path.contains('{'), "{self:?} has more ids than its entry");
        path
    }

    /// A request; the ids of the path from here, those of query and body from there.
    fn call(&self, path: &Ids, elsewhere: &Ids) -> Call {
        let body = self.body.map(|body| body(elsewhere));
        Call {
            method: self.method.clone(),
            path: self.path(path),
            query: (self.query)(elsewhere),
            body,
        }
    }

    /// Requests that are right but for one id in query or body, each with a pointer to it.
    fn calls_with_one_foreign_id(&self, own: &Ids, foreign: &Ids) -> Vec<(String, Call)> {
        let (right, wrong) = (self.call(own, own), self.call(own, foreign));
        let mut calls = Vec::new();
        for (index, (name, value)) in wrong.query.iter().enumerate() {
            if !foreign.all().contains(&value.as_str()) {
                continue;
            }
            let mut call = right.clone();
            call.query[index].1.clone_from(value);
            calls.push((format!("/query/{name}"), call));
        }
        for (name, value) in wrong.body.iter().filter_map(Value::as_object).flatten() {
            if value.as_str().is_some_and(|text| foreign.all().contains(&text)) {
                let mut call = right.clone();
                call.body.as_mut().unwrap()[name] = value.clone();
                calls.push((format!("/{name}"), call));
            }
        }
        calls
    }
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

thread_local! {
    /// How many requests of the sweep this test has sent; each test has a thread of its own.
    static SENT: Cell<u64> = const { Cell::new(0) };
}

/// Writes down what a sweep tried. Its assertions held, or this would not be reached.
fn swept(what: &str) {
    let counts = json!({"operations": table().len(), "requests": SENT.with(Cell::get)});
    evidence::record(&format!("sweep_{what}"), &counts);
}

/// A request in all its parts.
#[derive(Debug, Clone)]
struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
}

impl Call {
    /// Path and query.
    fn target(&self) -> String {
        let query: Vec<_> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, query.join("&"))
        }
    }

    async fn send(&self, world: &World, headers: &[(&str, &str)]) -> Reply {
        SENT.with(|sent| sent.set(sent.get() + 1));
        let mut request = world.client.request(self.method.clone(), &self.target());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        request.await
    }

    async fn send_as(&self, world: &World, who: &Person) -> Reply {
        self.send(
            world,
            &[("Authorization", &format!("Bearer {}", who.access_token))],
        )
        .await
    }
}

impl Ids {
    /// Rows made for one request, so that a request that deletes or renames them is in nobody's way.
    async fn fresh(world: &World, tenant: &TenantWorld) -> Self {
        let label = label();
        let user = async |name: &str| {
            let body = json!({"email": format!("{name}{label}@fresh.example"), "full_name": name,
                "password": "correct horse"});
            make(world, tenant, "/api/v1/users", &body).await
        };
        let (user, outsider) = (user("user").await, user("outsider").await);
        let project = async |name: &str| {
            make(
                world,
                tenant,
                "/api/v1/projects",
                &json!({"name": format!("{name} {label}")}),
            )
            .await
        };
        let (project, deleted_project) = (project("Live").await, project("Deleted").await);
        let path = format!("/api/v1/projects/{deleted_project}");
        world.delete(&tenant.admin, &path).await.expect(204);
        let path = format!("/api/v1/projects/{project}/members");
        world
            .post(&tenant.admin, &path, &json!({"user_id": user}))
            .await
            .expect(201);
        // There is a first version to look at; the second time nothing changes.
        // The sweeps log in again and again.
        let settings = json!({"tasks.reference_prefix": "FRESH", "security.sessions_per_user": 1_000});
        world
            .patch(&tenant.admin, "/api/v1/tenant/settings", &settings)
            .await
            .expect(200);
        let secret = format!("secret of {}", tenant.slug);
        let body = json!({"title": "Fresh", "description": secret, "assignee_id": user});
        let task = make(world, tenant, &format!("/api/v1/projects/{project}/tasks"), &body).await;
        let body = json!({"name": "Fresh", "content": secret, "project_id": project});
        let resource = make(world, tenant, "/api/v1/resources", &body).await;
        let body = json!({"name": secret, "scopes": ["tasks.read"]});
        let api_key = make(world, tenant, "/api/v1/api-keys", &body).await;
        let note = make(
            world,
            tenant,
            &format!("/api/v1/tasks/{task}/notes"),
            &json!({"text": secret}),
        )
        .await;
        share_a_flag(world, tenant).await;
        let body = json!({"amount": 3, "ttl_seconds": 600});
        let reservation = make(world, tenant, "/api/v1/quotas/renders/reservations", &body).await;
        let body = json!({"email": format!("invited{label}@fresh.example")});
        let invitation = make(world, tenant, "/api/v1/invitations", &body).await;
        // It can be sent again after a minute.
        let sql = format!("UPDATE invitations SET sent_at = '2000-01-01' WHERE id = '{invitation}'");
        let mut admin = world.database.admin().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .unwrap();
        // Those of former requests would fill the tenant's places.
        let sql = "DELETE FROM custom_roles WHERE id IN (SELECT id FROM custom_roles WHERE tenant_id = $1 \
                   ORDER BY created_at DESC OFFSET 20)";
        let delete = sqlx::query(sql).bind(tenant.id.uuid());
        delete.execute(&mut admin).await.unwrap();
        let role = format!("role-{label}");
        let body = json!({"name": role, "description": secret, "permissions": ["tasks.read"]});
        let made = world.post(&tenant.admin, "/api/v1/roles", &body).await;
        made.expect(201);
        let delete = sqlx::query("DELETE FROM event_consumers WHERE tenant_id = $1").bind(tenant.id.uuid());
        delete.execute(&mut admin).await.unwrap();
        let consumer = format!("consumer-{label}");
        let path = format!("/api/v1/events/consumers/{consumer}");
        let made = world.put(&tenant.admin, &path, &json!({"cursor": "latest"}));
        made.await.expect(200);
        let viewer = somebody(world, tenant, Role::Viewer).await;
        let sessions = world
            .get(&viewer, "/api/v1/auth/sessions?limit=1")
            .await
            .expect(200)
            .json();
        Self {
            user,
            outsider,
            project,
            deleted_project,
            task,
            resource,
            api_key,
            usage_event: usage_event(world, tenant).await,
            note,
            reservation,
            session: sessions["data"][0]["id"].as_str().unwrap().to_owned(),
            invitation,
            passkey: passkey(world, tenant).await,
            domain: domain(world, tenant, &label).await,
            endpoint: endpoint(world, tenant).await,
            message: message(world, tenant).await,
            role,
            consumer,
            label,
        }
    }

    /// Rows that are not there any more.
    async fn deleted(world: &World, tenant: &TenantWorld) -> Self {
        let ids = Self::fresh(world, tenant).await;
        for path in [
            "tasks/task",
            "resources/resource",
            "api-keys/api_key",
            "tenant/domains/domain",
            "webhooks/endpoints/endpoint",
            "roles/role",
            "events/consumers/consumer",
            "projects/project",
            "users/user",
            "users/outsider",
        ] {
            let (noun, of) = path.rsplit_once('/').unwrap();
            let id = match of {
                "task" => &ids.task,
                "resource" => &ids.resource,
                "api_key" => &ids.api_key,
                "role" => &ids.role,
                "consumer" => &ids.consumer,
                "domain" => &ids.domain,
                "endpoint" => &ids.endpoint,
                "project" => &ids.project,
                "user" => &ids.user,
                _ => &ids.outsider,
            };
            world
                .delete(&tenant.admin, &format!("/api/v1/{noun}/{id}"))
                .await
                .expect(204);
        }
        // No request deletes any of them; a message goes with its endpoint, in a job.
        let sql = format!(
            "DELETE FROM usage_events WHERE id = '{}'; DELETE FROM quota_reservations WHERE id = '{}'; \
             DELETE FROM refresh_sessions WHERE id = '{}'; DELETE FROM invitations WHERE id = '{}'; \
             DELETE FROM passkeys WHERE id = '{}'; DELETE FROM webhook_deliveries WHERE message_id = '{}'",
            ids.usage_event, ids.reservation, ids.session, ids.invitation, ids.passkey, ids.message
        );
        let mut admin = world.database.admin().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .unwrap();
        ids
    }

    /// The same for everything.
    fn every(id: &str) -> Self {
        let id = || id.to_owned();
        Self {
            user: id(),
            outsider: id(),
            project: id(),
            deleted_project: id(),
            task: id(),
            resource: id(),
            api_key: id(),
            usage_event: id(),
            note: id(),
            reservation: id(),
            session: id(),
            invitation: id(),
            passkey: id(),
            domain: id(),
            endpoint: id(),
            message: id(),
            role: id(),
            consumer: id(),
            label: label(),
        }
    }

    fn of(&self, of: Of) -> &str {
        match of {
            Of::User | Of::Member => &self.user,
            Of::Project => &self.project,
            Of::DeletedProject => &self.deleted_project,
            Of::Task => &self.task,
            Of::Resource => &self.resource,
            Of::ApiKey => &self.api_key,
            Of::UsageEvent => &self.usage_event,
            Of::Note => &self.note,
            Of::First => "1",
            Of::Flag => SHARED_FLAG,
            Of::Meter => "renders",
            Of::Reservation => &self.reservation,
            Of::Session => &self.session,
            Of::Invitation => &self.invitation,
            Of::Passkey => &self.passkey,
            Of::Domain => &self.domain,
            Of::Endpoint => &self.endpoint,
            Of::Message => &self.message,
            Of::Role => &self.role,
            Of::Consumer => &self.consumer,
            Of::AnyConsumer => "sweep",
        }
    }

    fn all(&self) -> [&str; 18] {
        [
            &self.user,
            &self.outsider,
            &self.project,
            &self.deleted_project,
            &self.task,
            &self.resource,
            &self.api_key,
            &self.usage_event,
            &self.note,
            &self.reservation,
            &self.session,
            &self.invitation,
            &self.passkey,
            &self.domain,
            &self.endpoint,
            &self.message,
            &self.role,
            &self.consumer,
        ]
    }
}

/// An event as somebody from outside would have sent it; nothing that they could send is in the standard catalogue.
async fn usage_event(world: &World, tenant: &TenantWorld) -> String {
    let sql = "INSERT INTO usage_events (tenant_id, id, created_at, meter, quantity, event_at, source, idempotency_key, origin) \
               VALUES ($1, gen_random_uuid(), $2, 'pages', 1, $2, 'tenantry:api', 'key', 'api') RETURNING id::text";
    let query = sqlx::query_scalar(sql)
        .bind(tenant.id.uuid())
        .bind(world.app.ports.clock.now());
    query.fetch_one(&mut world.database.admin().await).await.unwrap()
}

/// A domain that is claimed; those of former requests would fill the tenant's places.
async fn domain(world: &World, tenant: &TenantWorld, label: &str) -> String {
    let sql = "DELETE FROM tenant_domains WHERE id IN (SELECT id FROM tenant_domains WHERE tenant_id = $1 \
               ORDER BY created_at DESC, id OFFSET 20)";
    let delete = sqlx::query(sql).bind(tenant.id.uuid());
    delete.execute(&mut world.database.admin().await).await.unwrap();
    let body = json!({"domain": format!("d{}.fresh-corp.com", label.to_lowercase())});
    make(world, tenant, "/api/v1/tenant/domains", &body).await
}

/// An endpoint of webhooks; those of former requests would fill the tenant's places.
async fn endpoint(world: &World, tenant: &TenantWorld) -> String {
    let sql = "DELETE FROM webhook_endpoints WHERE id IN (SELECT id FROM webhook_endpoints WHERE tenant_id = $1 \
               ORDER BY created_at DESC, id OFFSET 20)";
    let delete = sqlx::query(sql).bind(tenant.id.uuid());
    delete.execute(&mut world.database.admin().await).await.unwrap();
    let description = format!("secret of {}", tenant.slug);
    let body = json!({"url": "https://hooks.example.com/", "description": description});
    make(world, tenant, "/api/v1/webhooks/endpoints", &body).await
}

/// An event that is queued for the newest endpoint of the tenant.
async fn message(world: &World, tenant: &TenantWorld) -> String {
    let sql = "WITH e AS (INSERT INTO events (tenant_id, id, created_at, kind, actor_kind, entity, data, position) \
               VALUES ($1, gen_random_uuid(), now(), 'task.updated', 'system', 'task', '{}', 1000000 + floor(random() * 1e12)::bigint) \
               RETURNING id, created_at, kind, position) \
               INSERT INTO webhook_deliveries (tenant_id, created_at, message_id, endpoint_id, kind, position, state, next_attempt_at) \
               SELECT $1, e.created_at, e.id, p.id, e.kind, e.position, 'pending', now() FROM e, (SELECT id FROM webhook_endpoints \
               WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1) p RETURNING message_id::text";
    let query = sqlx::query_scalar(sql).bind(tenant.id.uuid());
    query.fetch_one(&mut world.database.admin().await).await.unwrap()
}

/// A passkey of the viewer, whom the sweeps log in by password.
async fn passkey(world: &World, tenant: &TenantWorld) -> String {
    let sql = "INSERT INTO passkeys (tenant_id, id, created_at, user_id, name, credential_id, public_key, sign_count, backup, transports) \
               VALUES ($1, gen_random_uuid(), now(), $2, $3, sha256(gen_random_uuid()::text::bytea), '', 0, 'none', 0) RETURNING id::text";
    let query = sqlx::query_scalar(sql)
        .bind(tenant.id.uuid())
        .bind(tenant.viewer.id.uuid())
        .bind(format!("secret of {}", tenant.slug));
    let mut admin = world.database.admin().await;
    query.fetch_one(&mut admin).await.unwrap()
}

/// Sees to it that the shared flag is there and that the tenant has overridden it.
async fn share_a_flag(world: &World, tenant: &TenantWorld) {
    let mut flag = FlagDefinition {
        tenant_overridable: true,
        client_visible: true,
        ..FlagDefinition::boolean(SHARED_FLAG, "Shared by all")
    };
    for tenant in [&world.acme, &world.globex] {
        for (attribute, value) in [
            ("tenant_id", tenant.id.to_string()),
            ("tenant_slug", tenant.slug.to_owned()),
        ] {
            let condition = Condition::attribute(attribute, Comparator::In, [value.into()]);
            let mut rule = FlagRule::variant(Level::Tenant, "on").when(condition);
            rule.description = format!("secret of {}", tenant.slug);
            flag = flag.with_rule(rule);
        }
    }
    match flag_definition::create(&world.operator_cx(), flag).await {
        Ok(_) | Err(DefinitionError::Own(DefinitionReason::Taken)) => {}
        Err(error) => panic!("{error}"),
    }
    let path = format!("/api/v1/features/{SHARED_FLAG}/override");
    let body = json!({"variant": "off"});
    let request = world
        .client
        .request(Method::PUT, &path)
        .bearer(&tenant.admin.access_token);
    request.json(&body).await.expect(200);
}

fn label() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("n{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn make(world: &World, tenant: &TenantWorld, path: &str, body: &Value) -> String {
    let reply = world.post(&tenant.admin, path, body).await.expect(201);
    reply.json()["id"].as_str().unwrap().to_owned()
}

/// A new session of somebody of that role, so that logging out is in nobody's way.
async fn somebody(world: &World, tenant: &TenantWorld, role: Role) -> Person {
    let who = match role {
        Role::Viewer => &tenant.viewer,
        Role::Member => &tenant.member,
        Role::Admin => &tenant.admin,
    };
    let login = world
        .login(tenant.slug, &who.email, "correct horse")
        .await
        .expect(200)
        .json();
    let text = |name: &str| login[name].as_str().unwrap().to_owned();
    Person {
        id: who.id,
        email: who.email.clone(),
        access_token: text("access_token"),
        refresh_token: text("refresh_token"),
    }
}

/// Everything that a tenant's rows can be told by: all ids, as a superuser sees them.
async fn ids_in_database(world: &World, tenant: &TenantWorld) -> Vec<String> {
    let mut admin = world.database.admin().await;
    let tables: Vec<String> = world
        .digest(tenant)
        .await
        .into_iter()
        .map(|(table, _)| table)
        .collect();
    let mut ids = vec![tenant.id.to_string()];
    for table in tables.iter().filter(|table| *table != "tenants") {
        let sql = format!(
            "SELECT id::text FROM \"{table}\" WHERE tenant_id = '{}'",
            tenant.id
        );
        let of_table: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut admin)
            .await
            .unwrap();
        ids.extend(of_table);
    }
    assert!(ids.len() > 20, "{ids:?}");
    ids
}

/// Asserts that an answer tells nothing of a tenant but what the request told itself.
#[track_caller]
fn assert_tells_nothing(reply: &Reply, call: &Call, tenant: &TenantWorld, ids: &[String]) {
    let told = format!("{:?} {}", reply.headers, reply.text());
    let sent = format!("{call:?}");
    for secret in [&format!("secret of {}", tenant.slug), &tenant.admin.email] {
        assert!(!told.contains(secret), "{call:?}: {told}");
    }
    for id in ids.iter().filter(|id| !sent.contains(*id)) {
        assert!(!told.contains(id), "{call:?} told {id}: {told}");
    }
}

/// The operations of the document: method and path.
fn operations(document: &Value) -> BTreeMap<(String, String), Value> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap().clone();
        let path = path.clone();
        item.into_iter()
            .map(move |(method, operation)| ((method.to_uppercase(), path.clone()), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

/// An answer apart from what is different for every request.
fn comparable(reply: &Reply) -> (u16, String, Vec<(String, String)>) {
    let mut headers = reply.headers.clone();
    let different = ["x-request-id", "date", "ratelimit"];
    headers.retain(|(name, _)| !different.contains(&name.as_str()));
    headers.sort();
    (reply.status, reply.comparable(), headers)
}

#[actix_web::test]
async fn every_operation_of_the_document_has_an_entry_and_every_entry_an_operation() {
    let world = embedder::world().await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let mut described = operations(&document);
    for (method, path, _) in of_operators() {
        let operation = described.remove(&(method.to_string(), path.to_owned()));
        let security = operation.expect(path)["security"].clone();
        assert_eq!(security, json!([{"operator": []}]), "{method} {path}");
    }
    let known: BTreeMap<_, _> = table()
        .into_iter()
        .map(|op| ((op.method.to_string(), op.path.to_owned()), op.least))
        .collect();
    assert_eq!(known.len(), table().len(), "an entry is there twice");
    let described_keys: BTreeSet<_> = described.keys().collect();
    let known_keys: BTreeSet<_> = known.keys().collect();
    assert_eq!(
        described_keys.difference(&known_keys).collect::<Vec<_>>(),
        Vec::<&&_>::new(),
        "without entry"
    );
    assert_eq!(
        known_keys.difference(&described_keys).collect::<Vec<_>>(),
        Vec::<&&_>::new(),
        "without operation"
    );
    for (key, operation) in &described {
        let secured = operation["security"]
            .as_array()
            .is_some_and(|security| !security.is_empty());
        assert_eq!(
            secured,
            known[key].is_some(),
            "{key:?} is not as open as its entry says"
        );
    }
}

/// What is served to everybody and is no operation of the document.
const PAGES: [&str; 9] = [
    "/",
    "/docs",
    "/docs/",
    "/docs/swagger-initializer.js",
    "/healthz",
    "/livez",
    "/readyz",
    "/openapi.yaml",
    "/nowhere",
];

#[actix_web::test]
async fn no_anonymous_answer_names_a_tenant_the_caller_did_not_name() {
    let world = embedder::world().await;
    // The document has examples of its own, so the tenants have names that no example has.
    let mut secrets = vec![world.acme.id.to_string(), world.globex.id.to_string()];
    for slug in ["quokka-works", "zebrafish-labs"] {
        let body = json!({"name": format!("{slug} limited"), "slug": slug,
            "admin": {"email": format!("ada@{slug}.example"), "full_name": "Ada"}});
        let request = world.client.post("/api/v1/tenants", &body);
        let signed_up = request.await.expect(201).json();
        let token = signed_up["credentials"]["access_token"].as_str().unwrap();
        // So that it is among what is measured and cached.
        let tenant = world.client.get("/api/v1/tenant").bearer(token);
        tenant.await.expect(200);
        secrets.push(signed_up["tenant"]["id"].as_str().unwrap().to_owned());
        secrets.push(slug.to_owned());
    }
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let nobody = Ids::every(NOBODY);
    let documented = operations(&document)
        .into_keys()
        .filter(|(method, _)| method == "GET")
        .map(|(_, path)| path.replace("{code}", "internal").replace("{n}", "1"))
        .map(|path| match path.split_once('{') {
            Some((before, after)) => format!("{before}{}{}", nobody.task, after.split_once('}').unwrap().1),
            None => path,
        });
    for path in documented.chain(PAGES.map(str::to_owned)) {
        for named in [None, Some("quokka-works")] {
            let mut request = world.client.get(&path);
            if let Some(slug) = named {
                request = request.header("X-Tenant-Slug", slug);
            }
            let reply = request.await;
            let told = format!("{:?} {}", reply.headers, reply.text());
            // What the caller has named is the third and the fourth.
            for (number, secret) in secrets.iter().enumerate() {
                let own = named.is_some() && [2, 3].contains(&number);
                assert!(own || !told.contains(secret), "GET {path} names {secret}: {told}");
            }
        }
    }
    swept("anonymous");
}

#[actix_web::test]
async fn what_is_for_operators_takes_no_credential_of_a_user_and_the_other_way_about() {
    let world = embedder::world().await;
    let operator = world.operator("olga@platform.example").await;
    let ids = Ids::fresh(&world, &world.acme).await;
    let forged = auth::forged_tokens(&world).await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let recorded = world.operator_events().await.len();
    for operation in of_operators() {
        for tenant in [&world.acme, &world.globex] {
            let call = operators_call(operation.clone(), tenant);
            call.send(&world, &[]).await.problem(401, "unauthenticated");
            let admin = &world.acme.admin.access_token;
            for token in forged.iter().chain([admin, &world.acme.viewer.access_token]) {
                let bearer = format!("Bearer {token}");
                let reply = call.send(&world, &[("Authorization", &bearer)]).await;
                reply.problem(401, "unauthenticated");
            }
        }
    }
    let bearer = format!("Bearer {operator}");
    for (operation, _) in protected() {
        for headers in [&[][..], &[("X-Tenant-Slug", "acme")]] {
            let headers = [&[("Authorization", bearer.as_str())], headers].concat();
            let reply = operation.call(&ids, &ids).send(&world, &headers).await;
            reply.problem(401, "unauthenticated");
        }
    }
    assert_eq!(world.operator_events().await.len(), recorded);
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    swept("operators");
}

#[actix_web::test]
async fn without_a_credential_no_protected_operation_does_anything() {
    let world = embedder::world().await;
    let ids = Ids::fresh(&world, &world.acme).await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for (operation, _) in protected() {
        let call = operation.call(&ids, &ids);
        let slug: &[(&str, &str)] = &[("X-Tenant-Slug", "acme")];
        for headers in [&[][..], slug] {
            let reply = call.send(&world, headers).await.problem(401, "unauthenticated");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{operation:?}");
        }
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    swept("no_credential");
}

#[actix_web::test]
async fn with_a_forged_token_no_protected_operation_does_anything() {
    let world = embedder::world().await;
    let ids = Ids::fresh(&world, &world.acme).await;
    let forged = auth::forged_tokens(&world).await;
    assert!(forged.len() > 20, "{}", forged.len());
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for (operation, _) in protected() {
        for token in &forged {
            let bearer = format!("Bearer {token}");
            let headers = [("Authorization", bearer.as_str()), ("X-Tenant-Slug", "acme")];
            let reply = operation.call(&ids, &ids).send(&world, &headers).await;
            let reply = reply.problem(401, "unauthenticated");
            let challenge = reply.header("www-authenticate");
            assert_eq!(challenge, Some("Bearer error=\"invalid_token\""), "{operation:?}");
        }
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    swept("forged_token");
}

#[actix_web::test]
async fn with_an_expired_token_no_protected_operation_does_anything() {
    let world = embedder::world().await;
    let ids = Ids::fresh(&world, &world.acme).await;
    world.clock.advance(chrono::Duration::minutes(16));
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for (operation, _) in protected() {
        for who in [&world.acme.admin, &world.globex.admin] {
            let reply = operation.call(&ids, &ids).send_as(&world, who).await;
            reply.problem(401, "token_expired");
        }
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    swept("expired_token");
}

#[actix_web::test]
async fn a_request_with_ids_of_its_own_tenant_succeeds_and_tells_nothing_of_the_other() {
    let world = embedder::world().await;
    Ids::fresh(&world, &world.globex).await;
    let victim = ids_in_database(&world, &world.globex).await;
    let before = world.digest(&world.globex).await;
    let mut own = Ids::fresh(&world, &world.acme).await;
    for (operation, _) in protected() {
        // The last operation needs no rows, and the one before it has ended the session that makes them.
        if !operation.path.ends_with("/logout-all") {
            own = Ids::fresh(&world, &world.acme).await;
        }
        let admin = somebody(&world, &world.acme, Role::Admin).await;
        let call = operation.call(&own, &own);
        let reply = call.send_as(&world, &admin).await;
        assert!(operation.is_done(&reply), "{operation:?}: {}", reply.text());
        assert_eq!(
            reply.header("tenant-resolved-by"),
            Some("credential"),
            "{operation:?}"
        );
        assert_tells_nothing(&reply, &call, &world.globex, &victim);
    }
    assert_eq!(world.digest(&world.globex).await, before);
    swept("own_ids");
}

#[actix_web::test]
async fn ids_of_another_tenant_in_the_path_are_ids_of_nothing() {
    let world = embedder::world().await;
    let own = Ids::fresh(&world, &world.acme).await;
    let foreign = Ids::fresh(&world, &world.globex).await;
    let victim = ids_in_database(&world, &world.globex).await;
    let key = api_keys::with_every_scope(&world, &world.acme.admin).await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let mut tried = 0;
    for (operation, _) in protected().filter(|(operation, _)| operation.names_rows()) {
        for elsewhere in [&own, &foreign] {
            let call = operation.call(&foreign, elsewhere);
            let by_key = call.send(&world, &[("X-API-Key", &key)]).await;
            assert!([403, 404].contains(&by_key.status), "{call:?}: {}", by_key.text());
            assert_tells_nothing(&by_key, &call, &world.globex, &victim);
            let reply = call
                .send_as(&world, &world.acme.admin)
                .await
                .problem(404, "not_found");
            assert_tells_nothing(&reply, &call, &world.globex, &victim);
            if call.method == Method::GET {
                let head = Call {
                    method: Method::HEAD,
                    ..call
                };
                head.send_as(&world, &world.acme.admin).await.expect(404);
            }
            tried += 1;
        }
    }
    let member = format!("/api/v1/projects/{}/members/{}", own.project, foreign.user);
    world
        .delete(&world.acme.admin, &member)
        .await
        .problem(404, "not_found");
    assert!(tried >= 30, "{tried}");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    swept("foreign_ids_in_path");
}

#[actix_web::test]
async fn ids_of_another_tenant_in_query_or_body_are_ids_of_nothing() {
    let world = embedder::world().await;
    let own = Ids::fresh(&world, &world.acme).await;
    let foreign = Ids::fresh(&world, &world.globex).await;
    let victim = ids_in_database(&world, &world.globex).await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let mut tried = Vec::new();
    for (operation, _) in protected() {
        for (pointer, call) in operation.calls_with_one_foreign_id(&own, &foreign) {
            let reply = call.send_as(&world, &world.acme.admin).await;
            if pointer.starts_with("/query/") {
                let page = reply.clone().expect(200).json();
                assert_eq!(page, json!({"data": [], "next_cursor": null}), "{call:?}");
            } else {
                let problem = reply.clone().problem(422, "validation_failed").json();
                assert_eq!(problem["errors"][0]["pointer"], pointer, "{call:?}");
                assert_eq!(problem["errors"][0]["code"], "not_found", "{call:?}");
                let nobody = operation.calls_with_one_foreign_id(&own, &Ids::every(NOBODY));
                let (_, nobody) = nobody.into_iter().find(|(same, _)| *same == pointer).unwrap();
                let nobody = nobody.send_as(&world, &world.acme.admin).await;
                assert_eq!(comparable(&reply), comparable(&nobody), "{call:?}");
            }
            assert_tells_nothing(&reply, &call, &world.globex, &victim);
            tried.push(format!("{operation:?} {pointer}"));
        }
    }
    assert_eq!(tried.len(), 10, "{tried:#?}");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        before
    );
    swept("foreign_ids_in_query_and_body");
}

#[actix_web::test]
async fn a_foreign_a_deleted_a_random_and_a_malformed_id_give_the_same_404_byte_for_byte() {
    let world = embedder::world().await;
    let own = Ids::fresh(&world, &world.acme).await;
    let foreign = Ids::fresh(&world, &world.globex).await;
    let deleted = Ids::deleted(&world, &world.acme).await;
    let upper = foreign.project.to_uppercase();
    let long = "a".repeat(2_000);
    let plain = foreign.project.replace('-', "");
    let malformed = [
        "nope",
        "0",
        "%20",
        "%00",
        "%ff",
        "%F0%9F%98%80",
        "-",
        "..",
        "%2e%2e%2f",
        &plain,
        &upper,
        &long,
    ];
    let malformed: Vec<_> = malformed.into_iter().map(Ids::every).collect();
    let unknown = [
        Ids::every(NOBODY),
        Ids::every("00000000-0000-0000-0000-000000000000"),
    ];
    for (operation, _) in protected().filter(|(operation, _)| operation.names_rows()) {
        let expected = operation
            .call(&foreign, &own)
            .send_as(&world, &world.acme.admin)
            .await;
        let expected = comparable(&expected.problem(404, "not_found"));
        // What is deleted is just what can be restored; a deleted user is exported and erased like any other.
        let takes_deleted = ["/restore", "/users/{id}/exports", "/users/{id}/erase"];
        let gone = !takes_deleted.iter().any(|path| operation.path.ends_with(path));
        let gone = gone.then_some(&deleted);
        for ids in unknown.iter().chain(gone).chain(&malformed) {
            let call = operation.call(ids, &own);
            // Dots would be resolved by a client; here they reach the router as they are.
            let reply = call.send_as(&world, &world.acme.admin).await;
            assert_eq!(comparable(&reply), expected, "{call:?}");
        }
    }
    swept("same_404");
}

#[actix_web::test]
async fn each_role_does_what_it_may_and_nothing_that_needs_a_higher_one() {
    let world = embedder::world().await;
    for (operation, least) in protected() {
        let own = Ids::fresh(&world, &world.acme).await;
        let call = operation.call(&own, &own);
        let before = world.digest(&world.acme).await;
        for role in Role::ALL.into_iter().filter(|role| *role < least) {
            let who = match role {
                Role::Viewer => &world.acme.viewer,
                Role::Member => &world.acme.member,
                Role::Admin => &world.acme.admin,
            };
            call.send_as(&world, who).await.problem(403, "forbidden");
        }
        assert_eq!(world.digest(&world.acme).await, before, "{operation:?}");
        let who = somebody(&world, &world.acme, least).await;
        let reply = call.send_as(&world, &who).await;
        assert!(
            operation.is_done(&reply),
            "{operation:?} as {least:?}: {}",
            reply.text()
        );
    }
    swept("roles");
}

#[actix_web::test]
async fn a_suspended_tenant_reads_and_does_not_write() {
    let world = embedder::world().await;
    let ids = Ids::fresh(&world, &world.acme).await;
    world.set_status(&world.acme, "suspended").await;
    let (mut reads, mut writes) = (0, 0);
    for (operation, _) in protected() {
        let admin = somebody(&world, &world.acme, Role::Admin).await;
        let before = world.digest(&world.acme).await;
        let reply = operation.call(&ids, &ids).send_as(&world, &admin).await;
        if operation.writes {
            reply.problem(403, "tenant_suspended");
            assert_eq!(world.digest(&world.acme).await, before, "{operation:?}");
            writes += 1;
        } else {
            assert!(operation.is_done(&reply), "{operation:?}: {}", reply.text());
            reads += 1;
        }
    }
    assert!(reads > 10 && writes > 10, "{reads} and {writes}");
    // The other one goes on.
    let body = json!({"name": "Still at work"});
    world
        .post(&world.globex.member, "/api/v1/projects", &body)
        .await
        .expect(201);
    swept("suspended_tenant");
}

#[actix_web::test]
async fn a_deleted_tenant_is_gone_for_everybody_who_was_in_it() {
    let world = embedder::world().await;
    let ids = Ids::fresh(&world, &world.acme).await;
    world.set_status(&world.acme, "deleted").await;
    let before = world.digest(&world.acme).await;
    for (operation, _) in protected() {
        for who in [&world.acme.admin, &world.acme.viewer] {
            operation
                .call(&ids, &ids)
                .send_as(&world, who)
                .await
                .problem(410, "tenant_gone");
        }
    }
    assert_eq!(world.digest(&world.acme).await, before);
    world
        .get(&world.globex.viewer, "/api/v1/projects")
        .await
        .expect(200);
    swept("deleted_tenant");
}

#[actix_web::test]
async fn a_header_that_names_another_tenant_is_refused_and_recorded() {
    let world = embedder::world().await;
    let ids = Ids::fresh(&world, &world.acme).await;
    let foreign = Ids::fresh(&world, &world.globex).await;
    let victim = ids_in_database(&world, &world.globex).await;
    let (acme, globex) = (world.acme.id.to_string(), world.globex.id.to_string());
    let bearer = format!("Bearer {}", world.acme.admin.access_token);
    let before = world.digest(&world.globex).await;
    let mut refused = 0;
    for (operation, _) in protected() {
        for path in [&ids, &foreign] {
            let call = operation.call(path, &ids);
            let headers = [
                ("Authorization", bearer.as_str()),
                ("X-Tenant-ID", globex.as_str()),
            ];
            let reply = call.send(&world, &headers).await.problem(403, "tenant_mismatch");
            refused += 1;
            let victim: Vec<_> = victim.iter().filter(|id| **id != globex).cloned().collect();
            assert_tells_nothing(&reply, &call, &world.globex, &victim);
        }
    }
    assert_eq!(world.digest(&world.globex).await, before);
    let audit = world.audit(&world.acme).await;
    let recorded: Vec<_> = audit
        .iter()
        .filter(|(action, _)| action == "tenant.mismatch")
        .collect();
    // One entry for all of it, and how often it was when the hour is over.
    assert_eq!(recorded.len(), 1);
    for (_, event) in recorded {
        assert_eq!(event["category"], "security");
        assert_eq!(event["after"]["tenant_id"], globex);
        assert_eq!(event["actor_id"], world.acme.admin.id.to_string());
    }
    world.app.refusals().end_all();
    tenantry_tenancy::audit::refusal::flush(&world.app).await;
    let (_, repeated) = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(repeated["after"]["repeated"]["count"], refused);
    // One that agrees is no harm.
    let headers = [("Authorization", bearer.as_str()), ("X-Tenant-ID", acme.as_str())];
    for (operation, _) in protected().filter(|(operation, _)| operation.method == Method::GET) {
        let reply = operation.call(&ids, &ids).send(&world, &headers).await;
        assert!(operation.is_done(&reply), "{}", reply.text());
    }
    swept("header_of_another_tenant");
}

#[actix_web::test]
async fn lists_of_two_tenants_have_nothing_in_common_and_leave_nothing_out() {
    let world = embedder::world().await;
    let of_acme = Ids::fresh(&world, &world.acme).await;
    let of_globex = Ids::fresh(&world, &world.globex).await;
    let tables = [
        ("/api/v1/users", "users", "TRUE"),
        ("/api/v1/projects", "projects", "deleted_at IS NULL"),
        ("/api/v1/projects?include_deleted=true", "projects", "TRUE"),
        ("/api/v1/tasks", "tasks", "TRUE"),
        ("/api/v1/resources", "resources", "TRUE"),
    ];
    let mut admin = world.database.admin().await;
    for (path, table, condition) in tables {
        let mut seen = Vec::new();
        for (tenant, fresh) in [(&world.acme, &of_acme), (&world.globex, &of_globex)] {
            let page = world.get(&tenant.admin, path).await.expect(200).json();
            let rows = page["data"].as_array().unwrap();
            let ids: BTreeSet<_> = rows
                .iter()
                .map(|row| row["id"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(ids.len(), rows.len(), "{path}");
            assert!(fresh.all().iter().any(|id| ids.contains(*id)), "{path}");
            let sql = format!(
                "SELECT id::text FROM {table} WHERE tenant_id = '{}' AND {condition}",
                tenant.id
            );
            let there: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_all(&mut admin)
                .await
                .unwrap();
            assert_eq!(ids, there.into_iter().collect(), "{path}");
            seen.push(ids);
        }
        assert!(seen[0].is_disjoint(&seen[1]), "{path}: {seen:?}");
    }
}

#[actix_web::test]
async fn names_and_addresses_are_unique_in_a_tenant_and_not_among_tenants() {
    let world = embedder::world().await;
    let before = world.digest(&world.globex).await;
    let name = json!({"name": "Globex Corp project"});
    world
        .post(&world.acme.member, "/api/v1/projects", &name)
        .await
        .expect(201);
    let user = json!({"email": world.globex.admin.email, "full_name": "Namesake"});
    world
        .post(&world.acme.admin, "/api/v1/users", &user)
        .await
        .expect(201);
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn requests_of_two_tenants_on_one_connection_never_see_each_others_rows() {
    let pool = PoolConfig {
        size: 1,
        ..Options::default().pool
    };
    let world = World::with(Options {
        pool,
        ..embedder::options()
    })
    .await;
    let world = &world;
    let request = |number: usize| async move {
        let (own, other) = if number.is_multiple_of(2) {
            (&world.acme, &world.globex)
        } else {
            (&world.globex, &world.acme)
        };
        let path = [
            "/api/v1/tasks",
            "/api/v1/resources",
            "/api/v1/projects",
            "/api/v1/users",
        ][number / 2 % 4];
        let own_list = world.get(&own.viewer, path).await.expect(200);
        assert!(!own_list.text().contains(other.slug), "{}", own_list.text());
        let foreign = format!("/api/v1/tasks/{}", other.task);
        world.get(&own.admin, &foreign).await.problem(404, "not_found");
        let title = json!({"title": format!("{} {number}", own.slug)});
        let path = format!("/api/v1/projects/{}/tasks", own.project);
        world.post(&own.member, &path, &title).await.expect(201);
    };
    join_all((0..40).map(request)).await;
    assert_eq!(world.pool.open(), 1);
    for tenant in [&world.acme, &world.globex] {
        let page = world
            .get(&tenant.viewer, "/api/v1/tasks?limit=100")
            .await
            .expect(200)
            .json();
        let titles: Vec<_> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["title"].to_string())
            .collect();
        assert_eq!(titles.len(), 21, "{titles:?}");
        assert!(
            titles
                .iter()
                .all(|title| title.to_lowercase().contains(tenant.slug)),
            "{titles:?}"
        );
    }
}
