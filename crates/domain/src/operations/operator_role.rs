use crate::kernel::name::named_enum;

named_enum! {
    /// The role of a platform operator. A role is a set of [`OperatorPermission`]s; only [`OperatorRole::Owner`] has all of them.
    pub enum OperatorRole {
        /// Answers tenants' questions: reads, and repairs jobs.
        Support = "support",
        /// Manages plans and payments.
        Billing = "billing",
        /// Does everything, and manages the operators.
        Owner = "owner",
    }
}

/// A type that stands for an operator's permission, so that a signature can demand it: `OperatorCtx<ReadTenants>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not stand for a permission of operators",
    note = "the handlers of operators name one of `OperatorPermission`'s types"
)]
pub trait OperatorNeeds: 'static {
    /// The permission that the use case is called with.
    const PERMISSION: OperatorPermission;
}

/// Declares what operators may do: the one table of names, roles, and which requests need a recent second factor.
macro_rules! operator_permissions {
    ($($name:ident $wire:literal [$($role:ident)+] $factor:ident $about:literal;)+) => {
        named_enum! {
            /// What an operator's role allows. The system itself, such as a command on the server, has every permission.
            pub enum OperatorPermission {
                $(#[doc = $about] $name = $wire,)+
            }
        }

        impl OperatorPermission {
            /// A sentence about it, for people.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$name => $about,)+
                }
            }

            /// Which operators may do it, by their role; at least the owners.
            pub const fn roles(self) -> &'static [OperatorRole] {
                match self {
                    $(Self::$name => &[$(OperatorRole::$role),+],)+
                }
            }

            /// Whether it needs a second factor that was given minutes ago.
            pub const fn needs_recent_factor(self) -> bool {
                match self {
                    $(Self::$name => needs_recent_factor!($factor),)+
                }
            }
        }
    };
}

macro_rules! needs_recent_factor {
    (recent) => {
        true
    };
    (plain) => {
        false
    };
}

// `recent` needs a second factor of the last minutes: what cannot be undone, what shows a tenant's rows, and who may do what.
operator_permissions! {
    ManageOwnAccount "account.manage" [Support Billing Owner] plain "Manage one's own second factor.";
    ChangeOwnPassword "account.change_password" [Support Billing Owner] recent "Change one's own password.";
    ReadTenants "tenants.read" [Support Billing Owner] plain "See the tenants.";
    CreateTenants "tenants.create" [Billing Owner] plain "Create tenants.";
    SuspendTenants "tenants.suspend" [Billing Owner] plain "Suspend and resume tenants.";
    RestoreTenants "tenants.restore" [Support Owner] plain "Restore deleted tenants.";
    DeleteTenants "tenants.delete" [Owner] recent "Delete tenants.";
    PurgeTenants "tenants.purge" [Owner] recent "Erase deleted tenants for good.";
    ManagePlans "plans.manage" [Billing Owner] plain "Change the plans of tenants, and agree on limits with them.";
    ReadBilling "billing.read" [Billing Owner] plain "See billing accounts, reports and the payment provider's events.";
    ReadFlags "flags.read" [Support Billing Owner] plain "See feature flags and segments.";
    ManageFlags "flags.manage" [Owner] plain "Change feature flags and segments.";
    ReadJobs "jobs.read" [Support Owner] plain "See background jobs, without their payloads.";
    ManageJobs "jobs.manage" [Support Owner] plain "Replay and cancel background jobs.";
    ReadRows "rows.read" [Support Owner] recent "See users, projects, tasks and audit entries across tenants, with a reason.";
    ReadSupportAccess "support_access.read" [Support Owner] plain "See the operators' access to tenants.";
    UseSupportAccess "support_access.use" [Support Owner] recent "Ask for access to a tenant, and use it when an admin of the tenant approves.";
    ReadUsage "usage.read" [Support Billing Owner] plain "See what tenants use, with a reason.";
    ReadAudit "audit.read" [Owner] plain "See the log of operators.";
    ReadOperators "operators.read" [Owner] plain "See the operators.";
    ManageOperators "operators.manage" [Owner] recent "Create, change and deactivate operators.";
}

impl OperatorRole {
    /// Whether the role has a permission.
    pub fn has(self, permission: OperatorPermission) -> bool {
        permission.roles().contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_has_every_permission() {
        for permission in OperatorPermission::ALL {
            assert!(OperatorRole::Owner.has(permission), "{permission:?}");
        }
    }

    #[test]
    fn only_owners_decide_about_operators_and_erase() {
        use OperatorPermission::{DeleteTenants, ManageOperators, PurgeTenants, ReadAudit, ReadOperators};
        for permission in [
            DeleteTenants,
            PurgeTenants,
            ManageOperators,
            ReadOperators,
            ReadAudit,
        ] {
            assert_eq!(permission.roles(), [OperatorRole::Owner], "{permission:?}");
        }
        for permission in [DeleteTenants, PurgeTenants, ManageOperators] {
            assert!(permission.needs_recent_factor(), "{permission:?}");
        }
    }
}
