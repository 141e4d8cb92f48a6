//! The product's types of events. Receivers rely on names, fields and meanings: add, and change nothing.

use crate::events::event_type::EventType;
use crate::events::field::Field;

const PROJECT: &[Field] = &[
    Field::id("id"),
    Field::text("name", "Website"),
    Field::text("description", "The new website").nullable(),
    Field::choice("status", &["active", "archived"]),
    Field::id("owner_id"),
    Field::integer("view_count", 12),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::time("deleted_at").usually_null(),
    Field::integer("version", 2),
];

const MEMBER: &[Field] = &[
    Field::id("id"),
    Field::id("project_id"),
    Field::id("user_id"),
    Field::choice("role", &["member", "owner", "viewer"]),
    Field::time("created_at"),
];

const TASK: &[Field] = &[
    Field::id("id"),
    Field::id("project_id"),
    Field::text("title", "Write the front page"),
    Field::text("description", "With the new logo").nullable(),
    Field::choice("status", &["todo", "in_progress", "done", "cancelled"]),
    Field::choice("priority", &["normal", "low", "high", "urgent"]),
    Field::id("assignee_id").nullable(),
    Field::time("due_at").nullable(),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::time("deleted_at").usually_null(),
    Field::integer("version", 2),
];

const RESOURCE: &[Field] = &[
    Field::id("id"),
    Field::id("project_id").nullable(),
    Field::text("name", "Notes of the meeting"),
    Field::text("kind", "document"),
    Field::text("url", "https://example.com/notes").nullable(),
    Field::id("created_by"),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::integer("version", 2),
];

const USER: &[Field] = &[
    Field::id("id"),
    Field::text("email", "ada@example.com"),
    Field::text("full_name", "Ada Lovelace"),
    Field::choice("role", &["member", "viewer", "admin"]),
    Field::text("custom_role", "support").usually_null(),
    Field::flag("is_active", true),
    Field::flag("email_verified", true),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::time("deleted_at").usually_null(),
    Field::integer("version", 1),
];

const INVITATION: &[Field] = &[
    Field::id("id"),
    Field::text("email", "ada@example.com"),
    Field::choice("role", &["member", "viewer", "admin"]),
    Field::text("custom_role", "support").usually_null(),
    Field::id("invited_by"),
    Field::time("created_at"),
    Field::time("sent_at"),
    Field::integer("mails", 1),
    Field::time("expires_at"),
    Field::time("accepted_at").usually_null(),
    Field::time("revoked_at").usually_null(),
];

const ACCEPTED: &[Field] = &[
    Field::id("id"),
    Field::id("user_id"),
    Field::text("email", "ada@example.com"),
    Field::choice("role", &["member", "viewer", "admin"]),
    Field::text("custom_role", "support").usually_null(),
];

const ERASURE: &[Field] = &[Field::id("id"), Field::id("erasure_id")];

const ROLE: &[Field] = &[
    Field::id("id"),
    Field::text("name", "support"),
    Field::text("description", "Reads tasks"),
    Field::choice("base_role", &["member", "viewer", "admin"]),
    Field::texts("permissions", &["tasks.read"]),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::integer("version", 1),
];

const API_KEY: &[Field] = &[
    Field::id("id"),
    Field::text("name", "Deployments"),
    Field::id("creator"),
    Field::flag("service_account", false),
    Field::texts("scopes", &["tasks.read"]),
    Field::texts("allowed_networks", &["203.0.113.0/24"]),
    Field::time("expires_at"),
    Field::time("revoked_at").usually_null(),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::integer("version", 1),
];

const ENDING_KEY: &[Field] = &[
    Field::id("id"),
    Field::text("name", "Deployments"),
    Field::time("expires_at"),
];

const TENANT: &[Field] = &[
    Field::id("id"),
    Field::text("name", "Acme"),
    Field::text("slug", "acme"),
    Field::text("subdomain", "acme").nullable(),
    Field::text("plan", "pro"),
    Field::integer("plan_version", 1),
    Field::choice("status", &["active", "suspended", "deleted", "provisioning"]),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::time("suspended_at").usually_null(),
    Field::time("deleted_at").usually_null(),
    Field::integer("version", 2),
];

/// The state of a tenant that an operator or the system has changed: of such a change an event has the state and the reason.
const TENANT_STATE: &[Field] = &[
    Field::id("id"),
    Field::choice("status", &["suspended", "active", "deleted"]),
    Field::text("reason", "The invoice was not paid").nullable(),
];

const DOMAIN: &[Field] = &[
    Field::id("id"),
    Field::text("domain", "portal.example.com"),
    Field::choice("state", &["verified", "pending", "active", "failing", "released"]),
    Field::time("claimed_until"),
    Field::time("verified_at").nullable(),
    Field::time("activated_at").usually_null(),
    Field::time("failing_since").usually_null(),
    Field::time("released_at").usually_null(),
    Field::text("release_reason", "proof_gone").usually_null(),
    Field::time("created_at"),
];

const EXPORT: &[Field] = &[
    Field::id("id"),
    Field::integer("rows", 1_200),
    Field::integer("bytes", 65_536),
];

const SETTINGS: &[Field] = &[
    Field::id("id"),
    Field::integer("version", 3),
    Field::object("values"),
];

const BRANDING: &[Field] = &[
    Field::id("id"),
    Field::integer("version", 3),
    Field::text("display_name", "Acme").nullable(),
    Field::text("logo_url", "https://example.com/logo.svg").nullable(),
    Field::text("favicon_url", "https://example.com/favicon.ico").nullable(),
    Field::text("primary_color", "#1a56db"),
    Field::text("accent_color", "#f05252"),
    Field::text("support_email", "help@example.com").nullable(),
    Field::text("custom_css", ""),
];

const QUOTA: &[Field] = &[
    Field::id("id"),
    Field::text("meter", "api_calls"),
    Field::time("period_start"),
    Field::choice("of", &["included", "limit"]),
    Field::integer("percent", 80),
    Field::integer("amount", 8_000),
    Field::integer("used", 8_012),
];

const SUBSCRIPTION: &[Field] = &[
    Field::id("id"),
    Field::text("status", "active").nullable(),
    Field::object("offer").nullable(),
    Field::integer("seats", 5).nullable(),
    Field::flag("cancel_at_period_end", false).nullable(),
    Field::choice("dunning", &["healthy", "grace", "suspended"]),
];

const DUNNING: &[Field] = &[
    Field::id("id"),
    Field::time("failed_at").nullable(),
    Field::time("next_at").nullable(),
];

const ALERT: &[Field] = &[
    Field::id("id"),
    Field::text("rule", "failed_logins_account"),
    Field::choice("severity", &["medium", "low", "high"]),
    Field::choice("subject_kind", &["user", "api_key", "network", "tenant"]),
    Field::text("subject", "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12"),
    Field::integer("count", 5),
    Field::choice("action", &["none", "step_up", "end_sessions"]),
];

/// Of the URL the event has scheme, host and port: path and query may hold a token of the receiver.
const WEBHOOK_ENDPOINT: &[Field] = &[
    Field::id("id"),
    Field::text("url", "https://hooks.example.com"),
    Field::text("description", "Orders for the warehouse").nullable(),
    Field::texts("event_types", &["task.*"]),
    Field::integer("rate_limit", 50).nullable(),
    Field::flag("ordered", false),
    Field::choice("signature", &["v1", "v1a"]),
    Field::text("public_key", "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=").usually_null(),
    Field::texts("header_names", &["authorization"]),
    Field::flag("enabled", true),
    Field::text("disabled_reason", "failing").usually_null(),
    Field::time("disabled_at").usually_null(),
    Field::time("created_at"),
    Field::time("updated_at"),
    Field::integer("version", 1),
];

const SUPPORT_ACCESS: &[Field] = &[
    Field::id("id"),
    Field::id("support_access_id"),
    Field::id("operator_id"),
    Field::text("operator_name", "Sam"),
    Field::choice("access", &["read", "write"]),
    Field::integer("minutes", 30),
    Field::flag("preapproved", false),
    Field::text("reason", "Ticket 42: an import that failed"),
    Field::time("expires_at").nullable(),
];

/// Every type, in the order of the pages of the documentation.
pub(super) const PRODUCT: &[EventType] = &[
    EventType::new("project.created", "A project was created.", PROJECT),
    EventType::new("project.updated", "A project was changed.", PROJECT),
    EventType::new(
        "project.deleted",
        "A project was deleted, with its tasks and resources.",
        PROJECT,
    ),
    EventType::new("project.restored", "A deleted project was restored.", PROJECT),
    EventType::new(
        "project.member_added",
        "A user became a member of a project.",
        MEMBER,
    ),
    EventType::new(
        "project.member_removed",
        "A user is no longer a member of a project.",
        MEMBER,
    ),
    EventType::new("task.created", "A task was created.", TASK),
    EventType::new("task.updated", "A task was changed.", TASK),
    EventType::new("task.deleted", "A task was deleted.", TASK),
    EventType::new(
        "resource.created",
        "A resource was created. The event is without its content.",
        RESOURCE,
    ),
    EventType::new(
        "resource.updated",
        "A resource has a new version. The event is without its content.",
        RESOURCE,
    ),
    EventType::new("resource.deleted", "A resource was deleted.", RESOURCE),
    EventType::new(
        "user.created",
        "A user was created, registered, accepted an invitation, or was imported.",
        USER,
    )
    .emitted_by(&["user.created", "user.registered", "user.imported"]),
    EventType::new("user.updated", "A user was changed, or has a new address.", USER).emitted_by(&[
        "user.updated",
        "user.email_changed",
        "user.email_corrected",
        "user.email_reverted",
    ]),
    EventType::new("user.deleted", "A user was removed.", USER),
    EventType::new("user.erased", "The erasure of a person has begun.", ERASURE),
    EventType::new("user.invited", "A person was invited to the tenant.", INVITATION)
        .emitted_by(&["invitation.created"]),
    EventType::new(
        "invitation.accepted",
        "A person has accepted an invitation.",
        ACCEPTED,
    ),
    EventType::new("invitation.revoked", "An invitation was revoked.", INVITATION),
    EventType::new("role.created", "A custom role was created.", ROLE),
    EventType::new("role.updated", "A custom role was changed.", ROLE),
    EventType::new("role.deleted", "A custom role was deleted.", ROLE),
    EventType::new(
        "api_key.created",
        "An API key was created. The event is without its secret.",
        API_KEY,
    ),
    EventType::new("api_key.updated", "An API key was changed.", API_KEY),
    EventType::new("api_key.rotated", "An API key has a new secret.", API_KEY),
    EventType::new("api_key.revoked", "An API key was revoked.", API_KEY),
    EventType::new("api_key.expires_soon", "An API key expires soon.", ENDING_KEY),
    EventType::new("api_key.expired", "An API key has expired.", ENDING_KEY),
    EventType::new("tenant.created", "The tenant was created.", TENANT),
    EventType::new(
        "tenant.updated",
        "The name or the settings of the tenant were changed.",
        TENANT,
    ),
    EventType::new("tenant.plan_changed", "The tenant has another plan.", TENANT),
    EventType::new(
        "tenant.suspended",
        "The tenant was suspended: it is read-only.",
        TENANT_STATE,
    ),
    EventType::new(
        "tenant.resumed",
        "The suspension of the tenant has ended.",
        TENANT_STATE,
    ),
    EventType::new(
        "tenant.restored",
        "The tenant, which was deleted, was restored.",
        TENANT_STATE,
    ),
    EventType::new("tenant.exported", "An export of the tenant is ready.", EXPORT),
    EventType::new("domain.created", "A custom domain was claimed.", DOMAIN),
    EventType::new("domain.deleted", "A custom domain was given up.", DOMAIN),
    EventType::new("domain.verified", "A custom domain was proven.", DOMAIN),
    EventType::new(
        "domain.activated",
        "The tenant is reached by a custom domain.",
        DOMAIN,
    ),
    EventType::new("domain.failing", "The proof of a custom domain is gone.", DOMAIN),
    EventType::new(
        "domain.recovered",
        "The proof of a custom domain is back.",
        DOMAIN,
    ),
    EventType::new(
        "domain.released",
        "A custom domain was released, since its proof did not come or is gone.",
        DOMAIN,
    ),
    EventType::new(
        "settings.updated",
        "Settings of the tenant were changed.",
        SETTINGS,
    )
    .emitted_by(&["settings.updated", "settings.rolled_back"]),
    EventType::new(
        "branding.updated",
        "The branding of the tenant was changed.",
        BRANDING,
    ),
    EventType::new(
        "quota.threshold_reached",
        "The use of a meter has reached a threshold.",
        QUOTA,
    ),
    EventType::new(
        "billing.subscription_changed",
        "The subscription or the state of payments was changed.",
        SUBSCRIPTION,
    )
    .emitted_by(&["billing.changed"]),
    EventType::new("billing.payment_failed", "A payment has failed.", DUNNING)
        .emitted_by(&["billing.notice.payment_failed"]),
    EventType::new(
        "billing.payment_recovered",
        "Everything that was open is paid.",
        DUNNING,
    )
    .emitted_by(&["billing.notice.recovered"]),
    EventType::new(
        "webhook_endpoint.created",
        "An endpoint of webhooks was created. Events of endpoints are without secrets, and without path and query of the URL.",
        WEBHOOK_ENDPOINT,
    ),
    EventType::new(
        "webhook_endpoint.updated",
        "An endpoint of webhooks was changed, or has a new secret.",
        WEBHOOK_ENDPOINT,
    )
    .emitted_by(&["webhook_endpoint.updated", "webhook_endpoint.secret_rotated"]),
    EventType::new(
        "webhook_endpoint.deleted",
        "An endpoint of webhooks was deleted.",
        WEBHOOK_ENDPOINT,
    ),
    EventType::new(
        "webhook_endpoint.disabled",
        "An endpoint of webhooks was disabled, by an admin or after failures.",
        WEBHOOK_ENDPOINT,
    ),
    EventType::new(
        "webhook_endpoint.enabled",
        "An endpoint of webhooks, which was disabled, was enabled.",
        WEBHOOK_ENDPOINT,
    ),
    EventType::new("security.alert", "A rule has found suspicious activity.", ALERT)
        .emitted_by(&["security.alert_raised"]),
    EventType::new(
        "support_access.requested",
        "An operator asks for access to the tenant.",
        SUPPORT_ACCESS,
    ),
    EventType::new(
        "support_access.approved",
        "An admin or the policy has approved an operator's access.",
        SUPPORT_ACCESS,
    ),
    EventType::new(
        "support_access.ended",
        "The access of an operator to the tenant has ended.",
        SUPPORT_ACCESS,
    ),
];
