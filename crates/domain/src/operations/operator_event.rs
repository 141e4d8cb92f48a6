use serde_json::Value;

use crate::kernel::{OperatorEventId, TenantId, Time};

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
