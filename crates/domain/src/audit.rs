use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::{AuditEventId, StoreError, Time};

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Somebody changed something.
    Change,
    /// Something that concerns security: a refused credential, a mismatch of tenants.
    Security,
}

impl Category {
    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Security => "security",
        }
    }
}

/// One entry of the audit log: who did what to what, when and from where.
///
/// Who (actor, request id) is taken from the scope by the adapter, so that it cannot be told wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// Its id.
    pub id: AuditEventId,
    /// When.
    pub at: Time,
    /// What kind.
    pub category: Category,
    /// What happened, for example `project.created`.
    pub action: &'static str,
    /// The kind of thing it happened to, for example `project`.
    pub target_type: &'static str,
    /// Which one.
    pub target_id: Option<Uuid>,
    /// From which address.
    pub ip: Option<String>,
    /// State before, without secrets.
    pub before: Option<Value>,
    /// State after, without secrets.
    pub after: Option<Value>,
}

/// The audit log of the scope's tenant; append-only.
#[async_trait]
pub trait AuditLog: Send {
    /// Appends an entry in the running transaction.
    async fn record(&mut self, event: AuditEvent) -> Result<(), StoreError>;
}
