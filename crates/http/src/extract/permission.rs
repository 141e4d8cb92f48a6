//! The permissions as types, for the signatures of handlers: `Ctx<WriteTasks>`.

use tenantry_domain::kernel::{Needs, Permission};

macro_rules! permissions {
    ($($name:ident)*) => {$(
        #[doc = concat!("Stands for [`Permission::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Needs for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )*};
}

permissions! {
    ReadTenant ManageTenant DeleteTenant ReadSettingHistory ManageSettings ManageBranding ReadUsers ManageUsers ReadInvitations RevokeInvitations EditSelf ManageOwnAccount EndSession EndUserSessions ReadRoles ManageRoles ReadDomains ManageDomains ReadApiKeys ManageApiKeys RevokeApiKeys RotateApiKeys ReadProjects WriteProjects
    ReadDeletedProjects RestoreProjects ReadTasks WriteTasks ReadResources WriteResources
    ReadFeatures ExplainFeatures ManageFeatures ReadUsage RecordUsage InvalidateUsage ReserveQuota
    ReadBilling ManageBilling ReadAlerts AcknowledgeAlerts ReadAudit ReadEvents ConsumeEvents ReadEventTypes ReadWebhooks WriteWebhooks OpenWebhookPortal ExportAudit ReadSupportAccess ManageSupportAccess ExportTenant
}
