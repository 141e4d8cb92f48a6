use serde::Deserialize;

/// A role of the cluster, as `pg_roles` describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Role {
    pub(crate) name: String,
    /// Whether it can log in.
    pub(crate) login: bool,
    /// Whether initdb made it: the first superuser.
    pub(crate) initial: bool,
    /// Whether it is one of PostgreSQL's own (`pg_read_all_data`), which nobody can be.
    pub(crate) predefined: bool,
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
    /// Whether the member can become the role by `SET ROLE`.
    pub(crate) sets: bool,
    /// Whether the member can make members of the role, itself included.
    pub(crate) admin: bool,
}

impl Membership {
    /// Whether the member has the rights of the role, or can take them.
    pub(crate) fn is_usable(&self) -> bool {
        self.inherits || self.sets
    }
}

pub(super) const ROLES: &str = "
    SELECT rolname AS name, rolcanlogin AS login, oid = 10 AS initial,
           oid < 16384 AND oid <> 10 OR rolname LIKE 'pg\\_%' AS predefined,
           rolsuper AS superuser, rolbypassrls AS bypasses, rolcreaterole AS makes_roles,
           rolcreatedb AS makes_databases, rolreplication AS replicates
    FROM pg_roles ORDER BY rolname";

/// Until version 15 inheriting was up to the member, and every member could use SET ROLE; since then both are up to each
/// membership.
pub(super) const MEMBERSHIPS: &str = "
    SELECT pg_get_userbyid(m.roleid) AS role, r.rolname AS member,
           coalesce((to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit) AS inherits,
           coalesce((to_jsonb(m) ->> 'set_option')::bool, true) AS sets, m.admin_option AS admin
    FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member ORDER BY 1, 2";
