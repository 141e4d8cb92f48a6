use serde::Deserialize;

use super::{Grant, sql};
use crate::Options;
use crate::quote::{self, literal};

/// A table, or what can be read like one.
#[derive(Debug, Deserialize)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) owner: String,
    /// Whether row-level security is enabled.
    pub(crate) enabled: bool,
    /// Whether it holds for the owner too.
    pub(crate) forced: bool,
    /// Whether it is a partition.
    pub(crate) partition: bool,
    /// For a view: whether it reads with the rights of whoever asks.
    pub(crate) invoker: bool,
    /// What it is a partition or a child of.
    pub(crate) parents: Vec<u32>,
    /// The extension it belongs to.
    pub(crate) extension: Option<String>,
    pub(crate) tenant: Option<TenantColumn>,
    pub(crate) grants: Vec<Grant>,
}

/// What sort of relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Kind {
    #[serde(rename = "r")]
    Table,
    #[serde(rename = "p")]
    PartitionedTable,
    #[serde(rename = "v")]
    View,
    #[serde(rename = "m")]
    MaterializedView,
    #[serde(rename = "f")]
    ForeignTable,
    #[serde(rename = "S")]
    Sequence,
}

/// The column that says whose a row is.
#[derive(Debug, Deserialize)]
pub(crate) struct TenantColumn {
    pub(crate) name: String,
    pub(crate) not_null: bool,
    /// As PostgreSQL writes it.
    #[serde(rename = "type")]
    pub(crate) type_name: String,
}

impl Relation {
    /// Its full name as SQL writes it.
    pub(crate) fn sql_name(&self) -> String {
        quote::qualified(&self.schema, &self.name)
    }

    /// Whether it has rows of its own and a user can make policies for it.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.kind, Kind::Table | Kind::PartitionedTable)
    }
}

impl Kind {
    /// The word for it, in a report and in SQL.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Table | Self::PartitionedTable => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::ForeignTable => "foreign table",
            Self::Sequence => "sequence",
        }
    }
}

pub(super) fn sql(options: &Options) -> String {
    let extension = sql::extension("pg_class", "c.oid");
    let grants = all_grants();
    let (column, id) = (
        literal(&options.tenant_column),
        literal(&options.tenants_id_column),
    );
    let tenants = literal(&options.tenants_table);
    format!(
        "SELECT c.oid::bigint, n.nspname AS schema, c.relname AS name, c.relkind AS kind, pg_get_userbyid(c.relowner) AS owner,
            c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced, c.relispartition AS partition,
            EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o
                    WHERE o.option_name = 'security_invoker' AND o.option_value::bool) AS invoker,
            (SELECT coalesce(json_agg(i.inhparent::bigint), '[]') FROM pg_inherits i WHERE i.inhrelid = c.oid) AS parents,
            {extension} AS extension,
            (SELECT json_build_object('name', a.attname, 'not_null', a.attnotnull,
                                      'type', format_type(a.atttypid, a.atttypmod))
             FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname =
                CASE WHEN {tenants} IN (c.relname::text, n.nspname || '.' || c.relname) THEN {id} ELSE {column} END
            ) AS tenant,
            {grants} AS grants
         FROM pg_class c JOIN searched n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.oid >= 16384 ORDER BY n.nspname, c.relname"
    )
}

/// What is granted on a whole relation and on columns of it.
fn all_grants() -> String {
    let grantee = sql::role("a.grantee");
    sql::list(&format!(
        "SELECT {grantee} AS grantee, a.privilege_type AS privilege, NULL AS column
         FROM aclexplode(coalesce(c.relacl,
                acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) a
         WHERE a.grantee <> c.relowner
         UNION ALL SELECT {grantee}, a.privilege_type, t.attname
         FROM pg_attribute t, aclexplode(t.attacl) a
         WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL AND NOT t.attisdropped AND a.grantee <> c.relowner"
    ))
}
