use std::fmt::Write as _;

use tenantry_domain::kernel::{PermissionRegistry, Role};

/// The permission matrix of a service as text, for a snapshot: a row for each permission, with the roles that have it, whether it can
/// be a scope of an API key, and whether a suspended tenant keeps it.
pub fn permission_matrix(permissions: &PermissionRegistry) -> String {
    let mut matrix = format!(
        "{:<28}{:<8}{:<8}{:<8}{:<8}{}\n",
        "permission", "viewer", "member", "admin", "scope", "suspended"
    );
    let mark = |yes| if yes { "yes" } else { "-" };
    for permission in permissions.all() {
        let has = |role: Role| mark(permission.least_role().is_some_and(|least| role >= least));
        let [viewer, member, admin] = Role::ALL.map(has);
        let scope = mark(permission.is_scope());
        let suspended = mark(!permission.writes());
        let name = permission.as_str();
        writeln!(
            matrix,
            "{name:<28}{viewer:<8}{member:<8}{admin:<8}{scope:<8}{suspended}"
        )
        .unwrap();
    }
    matrix
}
