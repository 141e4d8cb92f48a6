use serde_json::Value;

use crate::kernel::name::named_enum;

named_enum! {
    /// How much an entry deserves attention.
    #[derive(PartialOrd, Ord)]
    pub enum Risk {
        /// Everyday work.
        Low = "low",
        /// Access to accounts, refused requests, and changes of how the tenant works.
        Medium = "medium",
        /// What an attacker does, or would do: more rights, weaker protection, credentials, loss of data.
        High = "high",
    }
}

named_enum! {
    /// Whether the action was done.
    pub enum Outcome {
        /// It was done.
        Success = "success",
        /// It was refused, or failed.
        Failure = "failure",
    }
}

/// Actions of high risk, whole or by their beginning up to the dot.
const HIGH: [&str; 64] = [
    "account.locked",
    "api_key.created",
    "api_key.rotated",
    "api_key.updated",
    "audit.exported",
    "audit.retained",
    "data_key",
    "mfa.disabled",
    "mfa.recovery_code_used",
    "mfa.recovery_codes_renewed",
    "mfa.removed_by_proof",
    "mfa.reset",
    "operator.activated",
    "operator.created",
    "operator.deactivated",
    "operator.mfa_disabled",
    "operator.mfa_reset",
    "operator.password_reset",
    "operator.recovery_code_used",
    "operator.recovery_codes_renewed",
    "operator.rows_read",
    "passkey.cloned",
    "passkey.removed",
    "project.deleted",
    "quota.corrected",
    "refresh_token.reused",
    "resource.deleted",
    "role",
    "rows.read",
    "secrets",
    "security.alert_raised",
    "security.mass_reading",
    "security.permission_probing",
    "session.ended_all",
    "sessions.ended",
    "signing_key",
    "support_access",
    "tenant.archive_restore_begun",
    "tenant.archive_restored",
    "tenant.deleted",
    "tenant.exported",
    "tenant.import_begun",
    "tenant.imported",
    "tenant.mismatch",
    "tenant.plan_changed",
    "tenant.purge_begun",
    "tenant.purged",
    "tenant.restore_begun",
    "tenant.restored",
    "tenant.rows_deleted",
    "tenant.suspended",
    "user.deleted",
    "user.email_changed",
    "user.email_corrected",
    "user.email_reverted",
    "user.erased",
    "user.exported",
    "user.imported",
    "user.password_reset",
    "users",
    "webhook_endpoint.created",
    "webhook_endpoint.secret_rotated",
    "webhook_endpoint.updated",
    "webhooks.portal_opened",
];

/// Actions of medium risk, in the same way.
const MEDIUM: [&str; 21] = [
    "account_link",
    "api_key",
    "billing",
    "branding",
    "event_export",
    "flag",
    "invitation",
    "invitations",
    "job",
    "login",
    "mail",
    "mfa",
    "operator",
    "passkey",
    "password",
    "plan",
    "quota",
    "settings",
    "tenant",
    "user",
    "webhook_endpoint",
];

impl Risk {
    /// The risk of an action, by its name and what the log has of it: the state after it in a tenant's log, the details in that of operators.
    /// An action that is not known has a low risk. High are a user who becomes an admin, an operator who becomes an owner, and changed
    /// security settings; a refused request has at least a medium risk.
    pub fn of(action: &str, details: Option<&Value>) -> Self {
        let noun = action.split_once('.').map_or(action, |(noun, _)| noun);
        let is_in = |list: &[&str]| list.contains(&action) || list.contains(&noun);
        let has = |judge: fn(&str, &Value) -> bool| details.is_some_and(|details| judge(noun, details));
        if is_in(&HIGH) || has(gives_all_rights) || has(names_security) {
            Self::High
        } else if is_in(&MEDIUM) || is_refused(action) {
            Self::Medium
        } else {
            Self::Low
        }
    }
}

/// Whether it is about an admin of a tenant or an owner of the platform.
fn gives_all_rights(noun: &str, details: &Value) -> bool {
    match noun {
        "user" | "invitation" => details["role"] == "admin",
        "operator" => details["role"] == "owner" || details["operator"]["role"] == "owner",
        _ => false,
    }
}

/// Whether the details of settings have one of security: as a member, at the top or one level below, or as the `key` of a command.
fn names_security(noun: &str, details: &Value) -> bool {
    let is_of_security = |name: &str| name.starts_with("security.");
    let names = |value: &Value| {
        let members = value.as_object();
        members.is_some_and(|members| members.keys().any(|name| is_of_security(name)))
    };
    noun == "settings"
        && (names(details)
            || details["key"].as_str().is_some_and(is_of_security)
            || details
                .as_object()
                .is_some_and(|members| members.values().any(names)))
}

/// Whether the action is a request that was refused, as its name says.
fn is_refused(action: &str) -> bool {
    action.ends_with(".refused")
}

impl Outcome {
    /// The outcome that an action's name says.
    pub fn of(action: &str) -> Self {
        const FAILURES: [&str; 5] = [
            "account.locked",
            "mail.not_sent",
            "passkey.cloned",
            "refresh_token.reused",
            "tenant.mismatch",
        ];
        let failed = FAILURES.contains(&action)
            || is_refused(action)
            || action.ends_with("_failed")
            || action.ends_with(".failed");
        if failed { Self::Failure } else { Self::Success }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn risk_and_outcome_follow_from_the_action() {
        for (action, risk, outcome) in [
            ("task.created", Risk::Low, Outcome::Success),
            ("session.started", Risk::Low, Outcome::Success),
            ("login.failed", Risk::Medium, Outcome::Failure),
            ("password.confirmation_failed", Risk::Medium, Outcome::Failure),
            ("mfa.enabled", Risk::Medium, Outcome::Success),
            ("mfa.reset", Risk::High, Outcome::Success),
            ("role.created", Risk::High, Outcome::Success),
            ("tenant.mismatch", Risk::High, Outcome::Failure),
            ("refresh_token.reused", Risk::High, Outcome::Failure),
            ("user.registered", Risk::Medium, Outcome::Success),
            ("note.created", Risk::Low, Outcome::Success),
            ("operator.mfa_reset", Risk::High, Outcome::Success),
            ("operator.logged_in", Risk::Medium, Outcome::Success),
            ("signing_key.created", Risk::High, Outcome::Success),
            ("network.refused", Risk::Medium, Outcome::Failure),
            ("api_key.refused", Risk::Medium, Outcome::Failure),
            ("users.import_begun", Risk::High, Outcome::Success),
            ("users.import_failed", Risk::High, Outcome::Failure),
            ("data_key.destroyed", Risk::High, Outcome::Success),
            ("session.ended", Risk::Low, Outcome::Success),
        ] {
            assert_eq!(
                (Risk::of(action, None), Outcome::of(action)),
                (risk, outcome),
                "{action}"
            );
        }
    }

    #[test]
    fn new_admins_owners_and_security_settings_are_a_high_risk() {
        for (action, after, risk) in [
            ("user.updated", json!({"role": "admin"}), Risk::High),
            ("user.updated", json!({"role": "viewer"}), Risk::Medium),
            (
                "settings.updated",
                json!({"security.mfa_required": "off"}),
                Risk::High,
            ),
            (
                "settings.updated",
                json!({"values": {"security.mfa_required": "off"}}),
                Risk::High,
            ),
            (
                "settings.updated",
                json!({"tasks.default_priority": "low"}),
                Risk::Medium,
            ),
            (
                "settings.updated",
                json!({"key": "security.mfa_required"}),
                Risk::High,
            ),
            (
                "settings.updated",
                json!({"key": "retention.audit_days"}),
                Risk::Medium,
            ),
            (
                "operator.updated",
                json!({"operator": {"role": "owner"}}),
                Risk::High,
            ),
            (
                "operator.updated",
                json!({"operator": {"role": "billing"}, "before": {"role": "owner"}}),
                Risk::Medium,
            ),
            // The id of an operator is no role.
            ("operator.stepped_up", json!({"operator": "0198"}), Risk::Medium),
        ] {
            assert_eq!(Risk::of(action, Some(&after)), risk, "{action} {after}");
        }
    }

    #[test]
    fn lists_are_sorted_and_name_an_action_once() {
        assert!(HIGH.is_sorted() && MEDIUM.is_sorted());
    }
}
