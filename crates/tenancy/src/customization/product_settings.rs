//! The settings of the product: the one place where they are defined.
//!
//! A setting is read by the code that acts on it, or by clients, which read it from `GET /api/v1/tenant/settings`. The
//! description of one that nothing acts on begins with "Not yet in effect"; a test lists those (`published`).

use serde_json::{Value, json};
use tenantry_domain::customization::{Definition, Field, Kind, Setting};
use tenantry_domain::identity::{AddressRules, MfaRequirement};
use tenantry_domain::notifications::MailChoice;
use tenantry_domain::security::{RULES, Rule, RuleChanges, RuleTerms};
use tenantry_domain::work::Priority;

/// How notifications are mailed of which a user has not chosen it.
pub const EMAIL_DIGEST: Setting<MailChoice> = Setting::new("notifications.email_digest");
/// The hour of digests in the time zone of the tenant.
pub const DIGEST_HOUR: Setting<u32> = Setting::new("notifications.digest_hour");
/// How urgent a task is that does not say so.
pub const TASKS_DEFAULT_PRIORITY: Setting<Priority> = Setting::new("tasks.default_priority");
/// After how many minutes without a use a session ends.
pub const SESSION_IDLE_MINUTES: Setting<u32> = Setting::new("security.session_idle_minutes");
/// The default of [`SESSION_IDLE_MINUTES`], also for a tenant without settings.
pub const DEFAULT_SESSION_IDLE_MINUTES: u32 = 60;
/// How many live sessions a user may have.
pub const SESSIONS_PER_USER: Setting<u32> = Setting::new("security.sessions_per_user");
/// The default of [`SESSIONS_PER_USER`], also for a tenant without settings.
pub const DEFAULT_SESSIONS_PER_USER: u32 = 20;
/// For how many days a session lives from its login, where the server does not say less.
pub const SESSION_MAX_DAYS: Setting<u32> = Setting::new("security.session_max_days");
/// The default of [`SESSION_MAX_DAYS`], also for a tenant without settings.
pub const DEFAULT_SESSION_MAX_DAYS: u32 = 365;
/// How many characters a new password has at least, where the server does not say more.
pub const PASSWORD_MIN_LENGTH: Setting<usize> = Setting::new("security.password_min_length");
/// For how many days a password works that somebody else chose for its user, or that the server generated.
pub const FIRST_PASSWORD_DAYS: Setting<i64> = Setting::new("security.first_password_days");
/// The default of [`FIRST_PASSWORD_DAYS`], also for a tenant without settings.
pub const DEFAULT_FIRST_PASSWORD_DAYS: i64 = 7;
/// The networks from which requests are taken; all when there is none.
pub const ALLOWED_NETWORKS: Setting<Vec<String>> = Setting::new("security.allowed_networks");
/// The networks from which no requests are taken.
pub const DENIED_NETWORKS: Setting<Vec<String>> = Setting::new("security.denied_networks");
/// The domains that addresses of users may have.
pub const ALLOWED_EMAIL_DOMAINS: Setting<Vec<String>> = Setting::new("security.allowed_email_domains");
/// Which users need a second factor.
pub const MFA_REQUIRED: Setting<MfaRequirement> = Setting::new("security.mfa_required");
/// Whether only users with a verified address may log in.
pub const REQUIRE_VERIFIED_EMAIL: Setting<bool> = Setting::new("security.require_verified_email");
/// What the tenant changes about the rules that find suspicious activity.
pub const ALERT_RULES: Setting<RuleChanges> = Setting::new("security.alert_rules");
/// For how many days the audit log is kept.
pub const RETENTION_AUDIT_DAYS: Setting<i64> = Setting::new("retention.audit_days");
/// For how many days events are kept.
pub const RETENTION_EVENTS_DAYS: Setting<i64> = Setting::new("retention.events_days");
/// Whether users come in from other tenants with a proof of their mailbox.
pub const ALLOW_TENANT_SWITCH: Setting<bool> = Setting::new("security.allow_tenant_switch");
/// Whether links in mail keep second factors that were added lately.
pub const LINKS_KEEP_FACTORS: Setting<bool> = Setting::new("security.links_keep_factors");
/// Whether users authenticate again before they end their other sessions.
pub const SESSION_END_STEP_UP: Setting<bool> = Setting::new("security.session_end_step_up");
/// Whether operators who ask for read access get it without an admin's approval.
pub const PREAPPROVE_SUPPORT_READ: Setting<bool> = Setting::new("security.preapprove_support_read");
/// The password of the tenant's own mail server.
pub const SMTP_PASSWORD: Setting<String> = Setting::new("integrations.smtp_password");
/// Where events are sent that name no other receiver.
pub const WEBHOOK_DEFAULT_URL: Setting<Option<String>> = Setting::new("webhook.default_url");

/// The definitions of the product. An embedder puts its own behind them.
pub fn definitions() -> Vec<Definition> {
    [
        notifications(),
        tasks(),
        appearance(),
        security(),
        integrations(),
        retention(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn notifications() -> Vec<Definition> {
    vec![
        Definition::new(
            "notifications.email_digest",
            Kind::Choice(&["off", "daily", "weekly"]),
            json!("weekly"),
            "How often users get a digest of notifications by mail who have not chosen it themselves.",
        )
        .client_visible(),
        Definition::new(
            "notifications.digest_hour",
            Kind::Integer(0..=23),
            json!(8),
            "The hour of the day, in the tenant's time zone, at which digests are mailed; weekly ones on Mondays.",
        )
        .client_visible(),
    ]
}

fn tasks() -> Vec<Definition> {
    vec![
        Definition::new(
            "tasks.default_priority",
            Kind::Choice(&["low", "normal", "high", "urgent"]),
            json!("normal"),
            "The priority of a new task that names none.",
        )
        .client_visible(),
        Definition::new(
            "tasks.reference_prefix",
            Kind::matching(2..=10, "[A-Z][A-Z0-9]*"),
            json!("TASK"),
            "What clients put before the number of a task when they show it.",
        )
        .client_visible(),
    ]
}

fn appearance() -> Vec<Definition> {
    vec![
        Definition::new(
            "appearance.theme",
            Kind::Choice(&["system", "light", "dark"]),
            json!("system"),
            "The theme that clients begin with.",
        )
        .client_visible(),
        Definition::new(
            "appearance.highlight_color",
            Kind::Colour,
            json!("#fde68a"),
            "The colour in which clients mark what was found.",
        )
        .client_visible(),
        Definition::new(
            "appearance.navigation",
            Kind::list(
                Kind::Object(vec![
                    Field::required("label", Kind::text(1..=40)),
                    Field::required("url", Kind::Url),
                    Field::optional("new_window", Kind::Boolean),
                ]),
                20,
            ),
            json!([]),
            "Links of the tenant's own that clients show in their navigation.",
        )
        .client_visible(),
        Definition::new(
            "support.url",
            Kind::Url,
            Value::Null,
            "The page where clients say that people of the tenant find help.",
        )
        .client_visible(),
    ]
}

fn security() -> Vec<Definition> {
    let mut definitions = access();
    definitions.extend(logins());
    definitions.push(Definition::new(
        "security.alert_rules",
        Kind::Object(RULES.iter().map(alert_rule).collect()),
        json!({}),
        "What the tenant changes about the rules that find suspicious activity, by the name of the rule.",
    ));
    definitions
}

/// The terms of a rule. One whose entries callers without a credential can cause has no action.
fn alert_rule(rule: &Rule) -> Field {
    let mut terms = vec![
        Field::optional("enabled", Kind::Boolean),
        Field::optional("threshold", Kind::Integer(1..=RuleTerms::MOST.into())),
        Field::optional("window_minutes", Kind::Integer(1..=RuleTerms::LONGEST.into())),
    ];
    if rule.may_act() {
        let actions = Kind::Choice(&["none", "step_up", "end_sessions"]);
        terms.push(Field::optional("action", actions));
    }
    Field::optional(rule.id, Kind::Object(terms))
}

/// For how long, with which passwords, and from where.
fn access() -> Vec<Definition> {
    vec![
        Definition::new(
            "security.session_idle_minutes",
            Kind::Integer(5..=43_200),
            json!(DEFAULT_SESSION_IDLE_MINUTES),
            "The idle timeout of sessions, in minutes: a session ends when its refresh token is not used for longer. \
             Clients log out after as many minutes without input.",
        )
        .client_visible(),
        Definition::new(
            "security.session_max_days",
            Kind::Integer(1..=365),
            json!(DEFAULT_SESSION_MAX_DAYS),
            "The longest lifetime of sessions, in days from the login, however often they are refreshed. The server's \
             `auth.session_max_days` holds where it is shorter.",
        ),
        Definition::new(
            "security.password_min_length",
            Kind::Integer(12..=64),
            json!(12),
            "The minimum length of passwords that are chosen from now on, in characters.",
        )
        .client_visible(),
        Definition::new(
            "security.first_password_days",
            Kind::Integer(1..=90),
            json!(DEFAULT_FIRST_PASSWORD_DAYS),
            "For how many days a password works that an admin chose for a user, or that the server generated, unless its user \
             changes it. Users who are created from now on.",
        ),
        Definition::new(
            "security.allowed_networks",
            Kind::list(Kind::Network, AddressRules::MOST),
            json!([]),
            "The networks from which users and API keys may send requests, in CIDR notation; an empty list allows all. A \
             change that refuses the address it comes from is refused.",
        ),
        Definition::new(
            "security.denied_networks",
            Kind::list(Kind::Network, AddressRules::MOST),
            json!([]),
            "The networks from which no requests are taken, also where `security.allowed_networks` allows them.",
        ),
    ]
}

/// Who logs in, and with what.
fn logins() -> Vec<Definition> {
    vec![
        Definition::new(
            "security.sessions_per_user",
            Kind::Integer(1..=1_000),
            json!(DEFAULT_SESSIONS_PER_USER),
            "The maximum number of live sessions of a user. A login beyond it ends the oldest session.",
        )
        .client_visible(),
        Definition::new(
            "security.mfa_required",
            Kind::Choice(&["off", "admins", "everyone"]),
            json!("off"),
            "Which users need a second factor. A user without one enrolls it at the next login. With `everyone`, users \
             cannot register themselves.",
        )
        .client_visible(),
        Definition::new(
            "security.links_keep_factors",
            Kind::Boolean,
            json!(false),
            "Whether a link to reset the password, or to take a change of address back, keeps second factors that were added less than 24 \
             hours before. An admin removes them where a stranger added them.",
        ),
        Definition::new(
            "security.session_end_step_up",
            Kind::Boolean,
            json!(false),
            "Whether users give their second factor again, or log in again, before they end other sessions of theirs.",
        )
        .client_visible(),
        Definition::new(
            "security.require_verified_email",
            Kind::Boolean,
            json!(false),
            "Whether only users with a verified e-mail address may log in and refresh their tokens.",
        )
        .client_visible(),
        Definition::new(
            "security.allow_tenant_switch",
            Kind::Boolean,
            json!(true),
            "Whether users who have proven their mailbox in another tenant may switch to this one without its password.",
        )
        .client_visible(),
        Definition::new(
            "security.preapprove_support_read",
            Kind::Boolean,
            json!(false),
            "Whether operators of the platform who ask for read access get it without an admin's approval. The admins get a mail all \
             the same.",
        ),
        Definition::new(
            "security.allowed_email_domains",
            Kind::list(
                Kind::matching(
                    3..=253,
                    "[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+",
                ),
                50,
            ),
            json!([]),
            "The domains that addresses of users may have, when they are invited, register, are created or change; an \
             empty list allows all.",
        ),
    ]
}

fn integrations() -> Vec<Definition> {
    vec![
        Definition::new(
            "webhook.default_url",
            Kind::Url,
            Value::Null,
            "Not yet in effect: where events are sent that name no other receiver.",
        ),
        Definition::new(
            "integrations.smtp_password",
            Kind::text(1..=500),
            Value::Null,
            "Not yet in effect: the password of the tenant's own mail server.",
        )
        .secret(),
    ]
}

fn retention() -> Vec<Definition> {
    vec![
        Definition::new(
            "retention.audit_days",
            Kind::Integer(30..=3_650),
            json!(365),
            "For how many days the audit log is kept. The plan says it.",
        )
        .operator_only(),
        Definition::new(
            "retention.events_days",
            Kind::Integer(1..=365),
            json!(30),
            "For how many days events are kept in the feed. A plan may set it.",
        )
        .operator_only(),
    ]
}

#[cfg(test)]
mod tests {
    use tenantry_domain::customization::SettingRegistry;

    use super::*;

    #[test]
    fn the_definitions_hold_and_can_be_read_with_their_types() {
        let registry = SettingRegistry::new(definitions()).unwrap();
        let default = |key| registry.get(key).unwrap().default.clone();
        let priority: Priority = serde_json::from_value(default(TASKS_DEFAULT_PRIORITY.key())).unwrap();
        assert_eq!(priority, Priority::default());
        let required: MfaRequirement = serde_json::from_value(default(MFA_REQUIRED.key())).unwrap();
        assert_eq!(required, MfaRequirement::default());
        let verified: bool = serde_json::from_value(default(REQUIRE_VERIFIED_EMAIL.key())).unwrap();
        assert!(!verified);
        let switch: bool = serde_json::from_value(default(ALLOW_TENANT_SWITCH.key())).unwrap();
        assert!(switch);
        for off in [&LINKS_KEEP_FACTORS, &SESSION_END_STEP_UP] {
            let value: bool = serde_json::from_value(default(off.key())).unwrap();
            assert!(!value, "{}", off.key());
        }
        let digest: MailChoice = serde_json::from_value(default(EMAIL_DIGEST.key())).unwrap();
        assert_eq!(digest, MailChoice::Weekly);
        let webhook: Option<String> = serde_json::from_value(default(WEBHOOK_DEFAULT_URL.key())).unwrap();
        assert_eq!(webhook, None);
        assert!(registry.get(SMTP_PASSWORD.key()).unwrap().secret);
    }
}
