use serde_json::Value;

use crate::audit::{Outcome, Risk};
use crate::kernel::name::named_enum;
use crate::kernel::{OperatorEventId, OperatorId, TenantId, Time};

named_enum! {
    /// The kind of actor of an entry of the audit of operators.
    pub enum OperatorEventActor {
        /// An operator with a token, or one whose password was right.
        Operator = "operator",
        /// A command on the server, or the server itself.
        System = "system",
        /// A caller who has not logged in.
        Guest = "guest",
    }
}

impl OperatorEventActor {
    /// Actions that only callers cause who have not logged in, where the entry names no operator.
    pub const OF_GUESTS: [&str; 2] = ["account.locked", "operator.login_failed"];
}

/// One entry of the audit of operators, which is append-only: what was done, to which tenant, and why.
///
/// Who (operator, request id) is taken from the scope by the adapter, so that it cannot be told wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorEvent {
    /// Identifies the entry across the platform.
    pub id: OperatorEventId,
    /// When.
    pub at: Time,
    /// What happened, for example `tenant.suspended`.
    pub action: &'static str,
    /// Why, as the operator said.
    pub reason: Option<String>,
    /// The tenant it was done to, or looked at.
    pub target_tenant: Option<TenantId>,
    /// From which address.
    pub ip: Option<String>,
    /// What else is to be known of it, without secrets.
    pub details: Value,
}

/// An entry of the audit of operators, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedOperatorEvent {
    /// Identifies the entry across the platform.
    pub id: OperatorEventId,
    /// When it happened.
    pub at: Time,
    /// The operator; `None` of a command on the server, of the server itself, and of a caller who has not logged in.
    pub operator: Option<OperatorId>,
    /// The present name of the operator.
    pub operator_name: Option<String>,
    /// What happened.
    pub action: String,
    /// Why, as the operator said.
    pub reason: Option<String>,
    /// The tenant it was done to, or looked at.
    pub target_tenant: Option<TenantId>,
    /// The request that caused it.
    pub request_id: String,
    /// From which address.
    pub ip: Option<String>,
    /// What else is to be known of it, without secrets.
    pub details: Value,
}

impl RecordedOperatorEvent {
    /// Whether an operator acted, the server, or a caller who has not logged in.
    pub fn actor(&self) -> OperatorEventActor {
        if self.operator.is_some() {
            OperatorEventActor::Operator
        } else if OperatorEventActor::OF_GUESTS.contains(&self.action.as_str()) {
            OperatorEventActor::Guest
        } else {
            OperatorEventActor::System
        }
    }

    /// Whether the action was done.
    pub fn outcome(&self) -> Outcome {
        Outcome::of(&self.action)
    }

    /// How much the entry deserves attention.
    pub fn risk(&self) -> Risk {
        Risk::of(&self.action, Some(&self.details))
    }
}

/// Which entries of the audit of operators are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorEventFilter {
    /// Only of this operator.
    pub operator: Option<OperatorId>,
    /// Only of this kind of actor.
    pub actor: Option<OperatorEventActor>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only about this tenant.
    pub tenant: Option<TenantId>,
    /// Only from this time on.
    pub from: Option<Time>,
    /// Only before this time.
    pub to: Option<Time>,
}
