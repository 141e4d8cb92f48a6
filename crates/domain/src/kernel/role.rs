use crate::kernel::name::named_enum;

named_enum! {
    /// What a user is in their tenant. Ordered: `Viewer < Member < Admin`.
    #[derive(PartialOrd, Ord)]
    pub enum Role {
        /// Reads everything of the tenant, changes only their own profile.
        Viewer = "viewer",
        /// Also writes projects, tasks and resources.
        Member = "member",
        /// Also manages users and the tenant itself.
        Admin = "admin",
    }
}

/// What a use case may require of its scope. The product's are the constants of this type, a row of the permission matrix
/// each; a service that embeds the product declares its own with [`permission!`](crate::permission).
///
/// Who has a permission is decided by its definition alone, so services in one process do not see each other's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permission(&'static PermissionDefinition);

/// A row of the permission matrix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PermissionDefinition {
    /// See [`Permission::as_str`].
    pub name: &'static str,
    /// See [`Permission::about`].
    pub about: &'static str,
    /// See [`Permission::least_role`].
    pub least_role: Option<Role>,
    /// See [`Permission::writes`].
    pub writes: bool,
    /// See [`Permission::is_scope`].
    pub is_scope: bool,
}

/// Declares the product's permissions: the one table of their names, minimum roles and properties.
macro_rules! permissions {
    ($($name:ident $wire:literal $least:ident $kind:ident $scope:ident $about:literal;)*) => {
        #[expect(non_upper_case_globals, reason = "named as the types that stand for them in the signatures of handlers")]
        impl Permission {
            $(#[doc = $about]
            pub const $name: Self = Self(&PermissionDefinition {
                name: $wire,
                about: $about,
                least_role: least!($least),
                writes: writes!($kind),
                is_scope: scope!($scope),
            });)*

            /// The product's permissions, in the order of the permission matrix.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

macro_rules! least {
    (None) => {
        None
    };
    ($role:ident) => {
        Some(Role::$role)
    };
}

macro_rules! writes {
    (writes) => {
        true
    };
    (reads) => {
        false
    };
}

macro_rules! scope {
    (scope) => {
        true
    };
    (people) => {
        false
    };
}

// Name, wire name, minimum role (`None`: only the system), whether a suspended tenant loses it, and whether an API key may have
// it as a scope. What decides who may do what (users, keys, security settings) is for people: a key that had it could give
// itself the rest.
permissions! {
    ReadTenant "tenant.read" Viewer reads scope "See the tenant and its plan.";
    ManageTenant "tenant.manage" Admin writes people "Rename the tenant and change its settings.";
    DeleteTenant "tenant.delete" Admin reads people "Delete the tenant; works in a suspended tenant too.";
    ReadSettingHistory "settings.history" Admin reads scope "See what the tenant had set at which time.";
    ManageSettings "settings.manage" Admin writes people "Change what the tenant has set.";
    ManageBranding "branding.manage" Admin writes scope "Change how the tenant looks.";
    OperateSettings "settings.operate" None reads people "Seal the tenant's secrets anew, or set what no user may; only the system does.";
    ReadUsers "users.read" Viewer reads scope "See the tenant's users.";
    ManageUsers "users.manage" Admin writes people "Create, change, invite and remove users.";
    ImportUsers "users.import" None writes people "Create users who move in with their password hashes; only the system does.";
    RecoverUsers "users.recover" None reads people "Remove the second factors of a user who has lost them or shares them with a thief; only the system does.";
    ReadInvitations "invitations.read" Admin reads people "See the tenant's invitations.";
    RevokeInvitations "invitations.revoke" Admin reads people "Revoke invitations; works in a suspended tenant too, where nobody should join.";
    EditSelf "profile.edit" Viewer writes people "Change one's own profile.";
    ManageOwnAccount "account.manage" Viewer reads people "Change one's own password and address with the password; works in a suspended tenant too.";
    EndSession "session.end" Viewer reads people "See and end one's own sessions; works in a suspended tenant too.";
    EndUserSessions "sessions.end" Admin reads people "End the sessions of every user; works also in a suspended tenant.";
    ReadRoles "roles.read" Viewer reads scope "See the tenant's custom roles.";
    ManageRoles "roles.manage" Admin writes people "Create, change and delete custom roles.";
    ReadDomains "domains.read" Viewer reads scope "See the tenant's custom domains.";
    ManageDomains "domains.manage" Admin writes scope "Claim, verify and delete custom domains.";
    KeepDomains "domains.keep" None reads people "Verify custom domains again and release them; only the system does.";
    ReadApiKeys "api_keys.read" Admin reads people "See the tenant's API keys, without their secrets.";
    ManageApiKeys "api_keys.manage" Admin writes people "Create and change API keys.";
    RevokeApiKeys "api_keys.revoke" Admin reads people "Revoke API keys; works in a suspended tenant too.";
    RotateApiKeys "api_keys.rotate" Admin writes people "Rotate API keys. A service account's key has it for itself.";
    RecordApiKeyUse "api_keys.record_use" None reads people "Store when API keys were last used; only the system does.";
    NotifyOfApiKeys "api_keys.notify" None reads people "Notify admins of API keys that end; only the system does.";
    ReadProjects "projects.read" Viewer reads scope "See projects and their members.";
    WriteProjects "projects.write" Member writes scope "Create and change projects, and remove or staff those one owns.";
    ReadDeletedProjects "projects.read_deleted" Admin reads scope "See deleted projects.";
    RestoreProjects "projects.restore" Admin writes scope "Restore deleted projects.";
    ReadTasks "tasks.read" Viewer reads scope "See tasks.";
    WriteTasks "tasks.write" Member writes scope "Create, change and delete tasks.";
    ReadResources "resources.read" Viewer reads scope "See resources and their former versions.";
    WriteResources "resources.write" Member writes scope "Create, change and delete resources.";
    ReadFeatures "features.read" Viewer reads scope "See the flags of the tenant and their values.";
    ExplainFeatures "features.explain" Admin reads scope "See how a flag came to its value.";
    ManageFeatures "features.manage" Admin writes scope "Choose variants of the flags that the tenant may override.";
    ReadUsage "usage.read" Viewer reads scope "See what is used, and how much of it is left.";
    RecordUsage "usage.record" Admin writes scope "Record usage. It may cost the tenant money.";
    BackfillUsage "usage.backfill" Admin writes scope "Record usage of days ago.";
    InvalidateUsage "usage.invalidate" Admin writes scope "Take recorded usage back.";
    MeterUsage "usage.meter" None reads people "Record what the server counts itself, and total it; only the system does.";
    ReserveQuota "quotas.reserve" Member writes scope "Set units of a quota aside for work that is under way.";
    LendQuota "quotas.lend" None reads people "Lend parts of quotas to instances and take them back; only the system does.";
    ReadBilling "billing.read" Admin reads scope "See what the tenant pays, and what for.";
    ManageBilling "billing.manage" Admin reads scope "Begin, change and end the subscription; works in a suspended tenant too, since paying lifts the suspension.";
    OperateBilling "billing.operate" None reads people "Follow the payment provider's messages; only the system does.";
    ReadAudit "audit.read" Admin reads scope "See and verify the tenant's audit log.";
    ReadSupportAccess "support_access.read" Admin reads people "See the operators' access to the tenant.";
    ManageSupportAccess "support_access.manage" Admin reads people "Approve, deny and end the operators' access; works in a suspended tenant too.";
    ExportTenant "tenant.export" Admin reads people "Export everything that the tenant owns.";
    RunExport "tenant.run_export" None reads people "Write the archives of exports, and read them for the bearer of a signed link; only the system does.";
    ExportAudit "audit.export" Admin reads scope "Export the tenant's audit log.";
    KeepAudit "audit.keep" None reads people "Chain the entries of the audit log, sign its heads and delete old entries; only the system does.";
    ReadEvents "events.read" Admin reads scope "See the tenant's events.";
    ConsumeEvents "events.consume" Admin reads scope "Store and delete positions in the feed of the tenant's events; works in a suspended tenant too.";
    KeepEvents "events.keep" None reads people "Publish events in the tenant's feed and delete old ones; only the system does.";
    KeepNotifications "notifications.keep" None reads people "Notify users of events, mail what they have chosen, and delete old notifications; only the system does.";
    ReadEventTypes "event_types.read" Viewer reads scope "See the catalogue of the types of events.";
    ReadWebhooks "webhooks.read" Admin reads scope "See the endpoints of webhooks, and what was sent to them.";
    WriteWebhooks "webhooks.write" Admin writes scope "Create, change and delete endpoints of webhooks, and send to them again.";
    OpenWebhookPortal "webhooks.open_portal" Admin writes people "Issue tokens for the pages on which endpoints of webhooks are managed.";
    ReadAlerts "security_alerts.read" Admin reads scope "See alerts about suspicious activity, and the rules that raise them.";
    AcknowledgeAlerts "security_alerts.acknowledge" Admin writes people "Acknowledge alerts about suspicious activity.";
    RaiseAlerts "security_alerts.raise" None reads people "Look for suspicious activity in the audit log and raise alerts; only the system does.";
    SendMail "mail.send" None reads people "Send mail to people of the tenant; only the system does.";
    CountViews "projects.count_views" None reads people "Add buffered view counts; only the system does.";
    Purge "tenant.purge" None writes people "Delete what ended long ago; only the system does.";
}

impl Permission {
    /// What users keep with every custom role: to see the tenant and their own account, and to manage the account.
    pub const OF_EVERY_USER: [Self; 4] = [
        Self::ReadTenant,
        Self::EditSelf,
        Self::ManageOwnAccount,
        Self::EndSession,
    ];

    /// What a portal token opens, as far as its issuer has it: the operations below `/webhooks`.
    pub const OF_PORTAL: [Self; 3] = [Self::ReadEventTypes, Self::ReadWebhooks, Self::WriteWebhooks];

    /// The permission of a definition, for [`permission!`](crate::permission).
    pub const fn defined(definition: &'static PermissionDefinition) -> Self {
        Self(definition)
    }

    /// The stable name on the wire and in the database, for example `tasks.read`.
    pub const fn as_str(self) -> &'static str {
        self.0.name
    }

    /// A sentence about it, for people.
    pub const fn about(self) -> &'static str {
        self.0.about.trim_ascii()
    }

    /// The minimum role that has it; `None` means no user does.
    pub const fn least_role(self) -> Option<Role> {
        self.0.least_role
    }

    /// Whether an API key may have it as a scope.
    pub const fn is_scope(self) -> bool {
        self.0.is_scope
    }

    /// Whether a suspended tenant, which is read-only, loses it.
    pub const fn writes(self) -> bool {
        self.0.writes
    }
}

impl std::fmt::Debug for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permission({})", self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_permission_is_a_scope() {
        for permission in Permission::ALL {
            assert!(
                !permission.is_scope() || permission.least_role().is_some(),
                "{permission:?}"
            );
        }
        for people in [
            Permission::ManageUsers,
            Permission::ManageApiKeys,
            Permission::ManageSettings,
            Permission::ManageTenant,
            Permission::EndSession,
        ] {
            assert!(!people.is_scope(), "{people:?}");
        }
    }
}
