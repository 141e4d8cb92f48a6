use serde_json::Value;

use crate::kernel::{OperatorEventId, OperatorId, TenantId, Time};

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
    /// The operator; `None` of a command on the server and of the server itself.
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

/// Which entries of the audit of operators are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorEventFilter {
    /// Only of this operator.
    pub operator: Option<OperatorId>,
    /// Only of operators (false), or only of commands on the server and of the server itself (true).
    pub by_system: Option<bool>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only about this tenant.
    pub tenant: Option<TenantId>,
    /// Only from this time on.
    pub from: Option<Time>,
    /// Only before this time.
    pub to: Option<Time>,
}
