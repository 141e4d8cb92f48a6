use serde::{Deserialize, Serialize};

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
    /// The role the application connects as. Without one: `tenantry_app` where there is such a role, else the
    /// user of the connection. The guard always takes the user of the connection.
    pub runtime_role: Option<String>,
    /// Roles whose wider policies are meant: operators, the directory of tenants.
    pub platform_roles: Vec<String>,
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
}

impl Default for Options {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            tenant_column: "tenant_id".to_owned(),
            setting: "app.current_tenant".to_owned(),
            runtime_role: None,
            platform_roles: list(&["tenantry_platform"]),
            schemas: Vec::new(),
            tenants_table: "tenants".to_owned(),
            tenants_id_column: "id".to_owned(),
            global_tables: list(&[
                "flag_versions",
                "flags",
                "operator_events",
                "operators",
                "plan_versions",
                "provider_customers",
                "provider_events",
                "provider_watermark",
                "seaql_migrations",
                "segment_versions",
                "segments",
                "system_jobs",
                "tenants",
            ]),
            tenant_functions: Vec::new(),
            global_unique: Vec::new(),
            allowed_definer_functions: Vec::new(),
        }
    }
}

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
