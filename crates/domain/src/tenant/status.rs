use serde::Serialize;
use uuid::Uuid;

use crate::kernel::name::named_enum;
use crate::kernel::{Check, Invalid, OperatorId};

named_enum! {
    /// Where a tenant is in its life.
    pub enum TenantStatus {
        /// Being made; seen by nobody else.
        Provisioning = "provisioning",
        /// In use.
        Active = "active",
        /// Read-only.
        Suspended = "suspended",
        /// Deleted; it can be restored.
        Deleted = "deleted",
        /// Its rows are being erased, and the tenant itself last.
        Purged = "purged",
    }
}

named_enum! {
    /// What a tenant can or cannot do, depending on its state.
    pub enum Capability {
        /// Read what is stored.
        Read = "read",
        /// Change what is stored.
        Write = "write",
        /// Take an export.
        Export = "export",
        /// See and change the subscription, and pay.
        Billing = "billing",
        /// Log in, and everything else that is done before there is a session.
        Login = "login",
        /// Run jobs. Jobs that write also need `write`.
        Jobs = "jobs",
        /// Receive outgoing webhooks.
        Webhooks = "webhooks",
    }
}

named_enum! {
    /// A step in the life of a tenant.
    pub enum Transition {
        /// Provisioning ends.
        Activate = "activate",
        /// The tenant becomes read-only.
        Suspend = "suspend",
        /// A suspended tenant can write again.
        Resume = "resume",
        /// The tenant is deleted, and can be restored.
        Delete = "delete",
        /// A deleted tenant gets the state that it had before.
        Restore = "restore",
        /// The rows of a deleted tenant are erased. Nothing leads back.
        Purge = "purge",
    }
}

named_enum! {
    /// What is still to be done to the rows of a tenant after it has changed its state. A job does it, in batches.
    pub enum RowWork {
        /// Mark all rows as deleted that are not yet.
        Delete = "delete",
        /// Take that mark off again; then the tenant is restored.
        Restore = "restore",
        /// Erase all rows, and the tenant last.
        Purge = "purge",
    }
}

/// The state does not allow the transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transition '{}' is not possible: the tenant is {}{}", wanted.as_str(), is.as_str(), doing.map_or("", RowWork::suffix))]
pub struct InvalidTransition {
    /// The present state.
    pub is: TenantStatus,
    /// What is being done to its rows.
    pub doing: Option<RowWork>,
    /// What was asked for.
    pub wanted: Transition,
}

impl RowWork {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Delete => "",
            Self::Restore => " and is being restored",
            Self::Purge => " and its rows are being erased",
        }
    }

    /// The state of a tenant whose rows this is done to.
    pub const fn status(self) -> TenantStatus {
        match self {
            Self::Delete | Self::Restore => TenantStatus::Deleted,
            Self::Purge => TenantStatus::Purged,
        }
    }
}

impl TenantStatus {
    /// The capability matrix: the only place that says what a tenant in a state can do.
    pub const fn allows(self, capability: Capability) -> bool {
        use Capability::{Billing, Export, Jobs, Login, Read, Webhooks, Write};
        match (self, capability) {
            (Self::Active, Read | Write | Export | Billing | Login | Jobs | Webhooks)
            | (Self::Suspended, Read | Export | Billing | Login | Jobs | Webhooks) => true,
            (Self::Suspended, Write) | (Self::Provisioning | Self::Deleted | Self::Purged, _) => false,
        }
    }

    /// The state after a transition; `None` when it is not possible. `was_suspended` is whether the tenant was suspended when it
    /// was deleted, which restoring it brings back. Suspending or resuming twice is possible: the reason of the latest stands.
    pub const fn after(self, transition: Transition, was_suspended: bool) -> Option<Self> {
        match (self, transition) {
            (Self::Active | Self::Suspended, Transition::Suspend) => Some(Self::Suspended),
            (Self::Provisioning, Transition::Activate)
            | (Self::Active | Self::Suspended, Transition::Resume) => Some(Self::Active),
            (Self::Active | Self::Suspended, Transition::Delete) => Some(Self::Deleted),
            (Self::Deleted, Transition::Restore) if was_suspended => Some(Self::Suspended),
            (Self::Deleted, Transition::Restore) => Some(Self::Active),
            // What was never in use, such as half an import, is erased without having been deleted.
            (Self::Deleted | Self::Provisioning, Transition::Purge) => Some(Self::Purged),
            (
                Self::Provisioning,
                Transition::Suspend | Transition::Resume | Transition::Delete | Transition::Restore,
            )
            | (
                Self::Active | Self::Suspended,
                Transition::Activate | Transition::Restore | Transition::Purge,
            )
            | (
                Self::Deleted,
                Transition::Activate | Transition::Suspend | Transition::Resume | Transition::Delete,
            )
            | (Self::Purged, _) => None,
        }
    }
}

/// Who changed the state of a tenant, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusChange {
    /// The reason; 1 to 500 characters.
    pub reason: String,
    /// What the actor is: `user`, `operator` or `system`.
    pub actor: String,
    /// The id of the user or operator.
    pub actor_id: Option<Uuid>,
}

impl StatusChange {
    /// The operator who asked for it.
    pub fn operator(&self) -> Option<OperatorId> {
        self.actor_id
            .filter(|_| self.actor == "operator")
            .map(OperatorId::from)
    }

    /// A change with a reason that a person wrote.
    ///
    /// # Errors
    /// `invalid_text` at `/reason`.
    pub fn by(actor: &str, actor_id: Option<Uuid>, reason: &str) -> Result<Self, Invalid> {
        Check::all(|check| check.line("/reason", reason, 1..=500))?;
        Ok(Self {
            reason: reason.to_owned(),
            actor: actor.to_owned(),
            actor_id,
        })
    }

    /// A change that the system makes by itself.
    pub fn of_system(reason: &'static str) -> Self {
        Self {
            reason: reason.to_owned(),
            actor: "system".to_owned(),
            actor_id: None,
        }
    }
}

/// The reason of dunning.
pub const UNPAID: &str = "invoices are not paid";
