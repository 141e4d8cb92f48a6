use serde::Deserialize;

/// A role.
#[derive(Debug, Deserialize)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) superuser: bool,
    pub(crate) bypasses: bool,
    pub(crate) makes_roles: bool,
    pub(crate) makes_databases: bool,
    pub(crate) replicates: bool,
}

/// A role in a role.
#[derive(Debug, Deserialize)]
pub(crate) struct Membership {
    pub(crate) role: String,
    pub(crate) member: String,
    /// Whether the member has the rights of the role without asking (`SET ROLE`).
    pub(crate) inherits: bool,
}

pub(super) const ROLES: &str = "
    SELECT rolname AS name, rolsuper AS superuser, rolbypassrls AS bypasses, rolcreaterole AS makes_roles,
           rolcreatedb AS makes_databases, rolreplication AS replicates
    FROM pg_roles ORDER BY rolname";

/// Until version 15 inheriting was up to the member, since then it is up to each membership.
pub(super) const MEMBERSHIPS: &str = "
    SELECT pg_get_userbyid(m.roleid) AS role, r.rolname AS member,
           coalesce((to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit) AS inherits
    FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member ORDER BY 1, 2";
