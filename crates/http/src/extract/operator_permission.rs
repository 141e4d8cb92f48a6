//! Types that stand for permissions of operators, for the signatures of handlers: `OperatorCtx<may::ReadTenants>`.

use tenantry_domain::operations::{OperatorNeeds, OperatorPermission};

macro_rules! operator_permissions {
    ($($name:ident)*) => {$(
        #[doc = concat!("Stands for [`OperatorPermission::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl OperatorNeeds for $name {
            const PERMISSION: OperatorPermission = OperatorPermission::$name;
        }
    )*};
}

operator_permissions! {
    ManageOwnAccount ChangeOwnPassword ReadTenants CreateTenants SuspendTenants RestoreTenants DeleteTenants PurgeTenants ManagePlans
    ReadBilling ReadFlags ManageFlags ReadJobs ManageJobs ReadRows ReadSupportAccess UseSupportAccess ReadUsage ReadAudit ReadOperators
    ManageOperators
}
