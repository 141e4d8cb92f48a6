use serde::Serialize;

/// What a user is in their tenant. Ordered: `Viewer < Member < Admin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything of the tenant, changes only their own profile.
    Viewer,
    /// Also writes projects, tasks and resources.
    Member,
    /// Also manages users and the tenant itself.
    Admin,
}

crate::name::deserialize_by_name!(Role);

impl Role {
    /// Every role, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Member, Self::Admin];

    /// The role's name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// What a use case may require of its scope. The least role of each is a row of the permission matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See the tenant itself.
    ReadTenant,
    /// Rename the tenant, change its settings.
    ManageTenant,
    /// See what the tenant had set at which time.
    ReadSettingHistory,
    /// Change what the tenant has set.
    ManageSettings,
    /// Change how the tenant looks.
    ManageBranding,
    /// Seal the tenant's secrets anew, or set what no user may; only the system does.
    OperateSettings,
    /// See the tenant's users.
    ReadUsers,
    /// Create, change, invite and remove users.
    ManageUsers,
    /// See the tenant's invitations.
    ReadInvitations,
    /// Change one's own profile; everybody may, also in a suspended tenant's read-only state they may not.
    EditSelf,
    /// Change one's own password and address with the password; works in a suspended tenant too.
    ManageOwnAccount,
    /// See and end one's own sessions; works in a suspended tenant too.
    EndSession,
    /// End the sessions of every user; works in a suspended tenant too, where accounts can be stolen as well.
    EndUserSessions,
    /// See projects and their members.
    ReadProjects,
    /// Create and change projects, and remove or staff those one owns.
    WriteProjects,
    /// See deleted projects.
    ReadDeletedProjects,
    /// Restore deleted projects.
    RestoreProjects,
    /// See tasks.
    ReadTasks,
    /// Create, change and delete tasks.
    WriteTasks,
    /// See resources and their former versions.
    ReadResources,
    /// Create, change and delete resources.
    WriteResources,
    /// See the flags of the tenant, and what they are.
    ReadFeatures,
    /// See how a flag came to what it is.
    ExplainFeatures,
    /// Choose variants of the flags that are the tenant's to choose.
    ManageFeatures,
    /// See what is used, and how much of it is left.
    ReadUsage,
    /// Record usage. It may cost the tenant money, so it is not for everybody who works in it.
    RecordUsage,
    /// Record usage of days ago.
    BackfillUsage,
    /// Take recorded usage back.
    InvalidateUsage,
    /// Record what the server counts itself, and total it; only the system does.
    MeterUsage,
    /// Set units of a quota aside for work that is under way.
    ReserveQuota,
    /// Lend parts of quotas to instances and take them back; only the system does.
    LendQuota,
    /// See what the tenant pays, and what for.
    ReadBilling,
    /// Begin, change and end the subscription; works in a suspended tenant too, since paying is what lifts that.
    ManageBilling,
    /// Follow the payment provider's word; only the system does.
    OperateBilling,
    /// Send mail to people of the tenant; only the system does.
    SendMail,
    /// Add buffered view counts; only the system does.
    CountViews,
    /// Delete what ended long ago; only the system does.
    Purge,
}

impl Permission {
    /// Every permission, for the permission matrix.
    pub const ALL: [Self; 37] = [
        Self::ReadTenant,
        Self::ManageTenant,
        Self::ReadSettingHistory,
        Self::ManageSettings,
        Self::ManageBranding,
        Self::OperateSettings,
        Self::ReadUsers,
        Self::ManageUsers,
        Self::ReadInvitations,
        Self::EditSelf,
        Self::ManageOwnAccount,
        Self::EndSession,
        Self::EndUserSessions,
        Self::ReadProjects,
        Self::WriteProjects,
        Self::ReadDeletedProjects,
        Self::RestoreProjects,
        Self::ReadTasks,
        Self::WriteTasks,
        Self::ReadResources,
        Self::WriteResources,
        Self::ReadFeatures,
        Self::ExplainFeatures,
        Self::ManageFeatures,
        Self::ReadUsage,
        Self::RecordUsage,
        Self::BackfillUsage,
        Self::InvalidateUsage,
        Self::MeterUsage,
        Self::ReserveQuota,
        Self::LendQuota,
        Self::ReadBilling,
        Self::ManageBilling,
        Self::OperateBilling,
        Self::SendMail,
        Self::CountViews,
        Self::Purge,
    ];

    /// The least role that has it; `None` means no user does.
    pub const fn least_role(self) -> Option<Role> {
        match self {
            Self::ReadTenant
            | Self::ReadUsers
            | Self::EditSelf
            | Self::ManageOwnAccount
            | Self::EndSession
            | Self::ReadProjects
            | Self::ReadTasks
            | Self::ReadResources
            | Self::ReadFeatures
            | Self::ReadUsage => Some(Role::Viewer),
            Self::WriteProjects | Self::WriteTasks | Self::WriteResources | Self::ReserveQuota => {
                Some(Role::Member)
            }
            Self::ManageTenant
            | Self::ReadSettingHistory
            | Self::ManageSettings
            | Self::ManageBranding
            | Self::ManageUsers
            | Self::ReadInvitations
            | Self::EndUserSessions
            | Self::ReadDeletedProjects
            | Self::RestoreProjects
            | Self::ExplainFeatures
            | Self::ManageFeatures
            | Self::RecordUsage
            | Self::BackfillUsage
            | Self::InvalidateUsage
            | Self::ReadBilling
            | Self::ManageBilling => Some(Role::Admin),
            Self::OperateSettings
            | Self::OperateBilling
            | Self::LendQuota
            | Self::MeterUsage
            | Self::SendMail
            | Self::CountViews
            | Self::Purge => None,
        }
    }

    /// Whether a suspended tenant, which is read-only, loses it.
    pub const fn writes(self) -> bool {
        match self {
            Self::ReadTenant
            | Self::ReadSettingHistory
            | Self::OperateSettings
            | Self::ReadUsers
            | Self::ReadInvitations
            | Self::ManageOwnAccount
            | Self::EndSession
            | Self::EndUserSessions
            | Self::ReadProjects
            | Self::ReadDeletedProjects
            | Self::ReadTasks
            | Self::ReadResources
            | Self::ReadFeatures
            | Self::ExplainFeatures
            | Self::ReadUsage
            | Self::MeterUsage
            | Self::LendQuota
            | Self::ReadBilling
            | Self::ManageBilling
            | Self::OperateBilling
            | Self::SendMail
            | Self::CountViews => false,
            Self::ManageTenant
            | Self::ManageSettings
            | Self::ManageBranding
            | Self::ManageUsers
            | Self::EditSelf
            | Self::WriteProjects
            | Self::RestoreProjects
            | Self::WriteTasks
            | Self::WriteResources
            | Self::ManageFeatures
            | Self::RecordUsage
            | Self::BackfillUsage
            | Self::InvalidateUsage
            | Self::ReserveQuota
            | Self::Purge => true,
        }
    }
}
