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
const HIGH: [&str; 48] = [
    "account.locked",
    "api_key.created",
    "api_key.rotated",
    "api_key.updated",
    "audit.exported",
    "audit.retained",
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
    "security.alert_raised",
    "security.mass_reading",
    "security.permission_probing",
    "session.ended_all",
    "sessions.ended",
    "signing_key",
    "support_access",
    "tenant.deleted",
    "tenant.mismatch",
    "tenant.plan_changed",
    "tenant.purged",
    "tenant.restored",
    "tenant.rows_deleted",
    "tenant.suspended",
    "user.deleted",
    "user.email_changed",
    "user.email_reverted",
    "user.erased",
    "user.imported",
    "user.password_reset",
];

/// Actions of medium risk, in the same way.
const MEDIUM: [&str; 18] = [
    "account_link",
    "api_key",
    "billing",
    "branding",
    "flag",
    "invitation",
    "invitations",
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
];

impl Risk {
    /// The risk of an action, by its name and the state after it; one that is not known has a low risk. A user who becomes an admin
    /// and changed security settings are a high risk.
    pub fn of(action: &str, after: Option<&Value>) -> Self {
        let noun = action.split_once('.').map_or(action, |(noun, _)| noun);
        let is_in = |list: &[&str]| list.contains(&action) || list.contains(&noun);
        let of_admin =
            matches!(noun, "user" | "invitation") && after.is_some_and(|after| after["role"] == "admin");
        let of_security = noun == "settings" && after.is_some_and(names_security);
        if of_admin || of_security || is_in(&HIGH) {
            Self::High
        } else if is_in(&MEDIUM) {
            Self::Medium
        } else {
            Self::Low
        }
    }
}

/// Whether a state has a security setting, at its top or one level below.
fn names_security(state: &Value) -> bool {
    let names = |value: &Value| {
        let members = value.as_object();
        members.is_some_and(|members| members.keys().any(|name| name.starts_with("security.")))
    };
    names(state)
        || state
            .as_object()
            .is_some_and(|members| members.values().any(names))
}

impl Outcome {
    /// The outcome that an action's name says.
    pub fn of(action: &str) -> Self {
        const FAILURES: [&str; 9] = [
            "account.locked",
            "api_key.refused",
            "mail.not_sent",
            "mfa.failed",
            "login.failed",
            "operator.refused",
            "passkey.cloned",
            "refresh_token.reused",
            "tenant.mismatch",
        ];
        let failed = FAILURES.contains(&action) || action.ends_with("_failed") || action.ends_with(".failed");
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
        ] {
            assert_eq!(
                (Risk::of(action, None), Outcome::of(action)),
                (risk, outcome),
                "{action}"
            );
        }
    }

    #[test]
    fn new_admins_and_security_settings_are_a_high_risk() {
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
        ] {
            assert_eq!(Risk::of(action, Some(&after)), risk, "{action} {after}");
        }
    }

    #[test]
    fn lists_are_sorted_and_name_an_action_once() {
        assert!(HIGH.is_sorted() && MEDIUM.is_sorted());
    }
}
