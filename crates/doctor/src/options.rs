use serde::{Deserialize, Serialize};

use crate::Manifest;

/// What the doctor has to know about a database that the catalogue does not say.
///
/// The default is what holds for Tenantry's own. A table can be named alone, which means in every schema, or
/// as `schema.table`; names are written as they are, without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The column that says whose a row is. A table that has it is a tenant table.
    pub tenant_column: String,
    /// The run-time setting that says whose rows a transaction may touch.
    pub setting: String,
    /// The role the application connects as. Without one, or when it is one of the platform roles or owners:
    /// `tenantry_app` where there is such a role, else the user of the connection. The guard always takes the user of the
    /// connection.
    pub runtime_role: Option<String>,
    /// Roles whose wider policies are meant: operators, the directory of tenants. They are examined as well, apart from
    /// their policies. Those that do not exist are ignored.
    pub platform_roles: Vec<String>,
    /// Roles that own the tables and run the migrations. They are examined for attributes that no owner needs.
    pub owner_roles: Vec<String>,
    /// The schemas to examine; all but PostgreSQL's own when there is none.
    pub schemas: Vec<String>,
    /// The table with a row for each tenant. It obeys the rule by its own id.
    pub tenants_table: String,
    /// The column of that table that every tenant column refers to.
    pub tenants_id_column: String,
    /// The tables that are nobody's, and may therefore lack the tenant column.
    pub global_tables: Vec<String>,
    /// Functions that stand for the setting in policies. Each must be a STABLE function in SQL without
    /// arguments that gives the setting and does nothing else.
    pub tenant_functions: Vec<String>,
    /// Unique keys that are meant to be unique among all tenants, by the name of constraint or index.
    pub global_unique: Vec<String>,
    /// SECURITY DEFINER functions that the runtime role may run, or that a trigger does.
    pub allowed_definer_functions: Vec<String>,
    /// Objects that are meant although [`Self::expected`] lacks them or says otherwise, as findings name them:
    /// `trigger audit on public.tasks`. With what holds for the object, separated by a colon, an entry means this state only:
    /// `schema reports`, but `extension pg_trgm: version 1.6, 36 objects, digest 0f1e2d3c4b5a`. An extension stands for the
    /// objects that it made, and not for those that were added to it. A setting is named `setting array_nulls of the server`,
    /// a login of others `role replicator`.
    pub allowed_objects: Vec<String>,
    /// What the catalogue has to be. Without it, or in a database that has none of its tables, nothing is compared.
    #[serde(skip)]
    pub expected: Option<Manifest>,
}

impl Default for Options {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            tenant_column: "tenant_id".to_owned(),
            setting: "app.current_tenant".to_owned(),
            runtime_role: None,
            platform_roles: list(&["tenantry_platform"]),
            owner_roles: list(&["tenantry_owner"]),
            schemas: Vec::new(),
            tenants_table: "tenants".to_owned(),
            tenants_id_column: "id".to_owned(),
            global_tables: list(&[
                "domain_hosts",
                "event_log",
                "event_log_state",
                "flag_versions",
                "flags",
                "operator_event_outbox",
                "operator_event_stream",
                "operator_events",
                "operator_lockouts",
                "operator_recovery_codes",
                "operator_totp_factors",
                "operators",
                "plan_versions",
                "provider_customers",
                "provider_events",
                "provider_watermark",
                "seaql_migrations",
                "segment_versions",
                "segments",
                "signing_keys",
                "spent_challenges",
                "sent_mails",
                "system_jobs",
                "tenant_names",
                "tenant_tombstones",
                "tenants",
                "user_addresses",
                "workspace_requests",
            ]),
            tenant_functions: Vec::new(),
            global_unique: Vec::new(),
            allowed_definer_functions: list(&[
                "audit_erase",
                "audit_retain",
                "domain_hosts_hold",
                "tenant_names_keep",
                "user_addresses_drop",
                "user_addresses_keep",
            ]),
            allowed_objects: Vec::new(),
            expected: None,
        }
    }
}

impl Options {
    /// The roles of the application, whether they exist or not.
    pub(crate) fn our_roles(&self) -> impl Iterator<Item = &str> {
        let runtime = self.runtime_role.as_deref().filter(|name| !self.is_other(name));
        let others = self.platform_roles.iter().chain(&self.owner_roles);
        std::iter::once(runtime.unwrap_or(TENANTRYS)).chain(others.map(String::as_str))
    }

    /// Whether it is a platform role or an owner.
    pub(crate) fn is_other(&self, role: &str) -> bool {
        let mut others = self.platform_roles.iter().chain(&self.owner_roles);
        others.any(|other| other == role)
    }
}

/// The runtime role of Tenantry itself.
pub(crate) const TENANTRYS: &str = "tenantry_app";

/// Whether an entry of a list means that object: by its name alone, or with its schema.
pub(crate) fn names(entry: &str, schema: &str, name: &str) -> bool {
    entry == name
        || entry
            .strip_prefix(schema)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|rest| rest == name)
}

/// Whether a list has an entry for that object.
pub(crate) fn listed(list: &[String], schema: &str, name: &str) -> bool {
    list.iter().any(|entry| names(entry, schema, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_meant_with_and_without_its_schema() {
        assert!(names("tasks", "public", "tasks"));
        assert!(names("public.tasks", "public", "tasks"));
        assert!(names("a.b.c", "a.b", "c"));
        assert!(!names("other.tasks", "public", "tasks"));
        assert!(!names("publictasks", "public", "tasks"));
    }
}
