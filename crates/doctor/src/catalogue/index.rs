use serde::Deserialize;

use super::sql;
use crate::Options;
use crate::quote::literal;

/// An index of the database, as `pg_index` describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) relation: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Of a constraint of that name.
    pub(crate) constraint: Option<String>,
    pub(crate) unique: bool,
    pub(crate) primary: bool,
    /// Of an exclusion constraint.
    pub(crate) excludes: bool,
    /// Whether queries can use it.
    pub(crate) valid: bool,
    /// Whether it leaves rows out.
    pub(crate) partial: bool,
    /// Whether it belongs to an index of the parent of a partition.
    pub(crate) inherited: bool,
    pub(crate) method: String,
    /// What it is by, in order; `None` is an expression.
    pub(crate) columns: Vec<Option<String>>,
    /// The SQL of what it is by and of its condition, unless it begins with the tenant column.
    pub(crate) parts: Option<Vec<String>>,
    pub(crate) condition: Option<String>,
}

impl Index {
    /// The name under which it is known: that of its constraint, where it has one.
    pub(crate) fn known_as(&self) -> &str {
        self.constraint.as_deref().unwrap_or(&self.name)
    }

    /// Whether it begins with that column.
    pub(crate) fn is_led_by(&self, column: &str) -> bool {
        self.columns
            .first()
            .is_some_and(|first| first.as_deref() == Some(column))
    }
}

pub(super) fn sql(options: &Options) -> String {
    let columns = sql::columns("i.indrelid", "(i.indkey::int2[])[0:i.indnkeyatts - 1]");
    let column = literal(&options.tenant_column);
    format!(
        "SELECT i.indrelid::bigint AS relation, n.nspname AS schema, x.relname AS name, k.conname AS constraint,
            i.indisunique AS unique, i.indisprimary AS primary, i.indisexclusion AS excludes, i.indisvalid AS valid,
            i.indpred IS NOT NULL AS partial, x.relispartition AS inherited, m.amname AS method,
            {columns} AS columns,
            CASE WHEN a.attname IS DISTINCT FROM {column} THEN
                (SELECT json_agg(pg_get_indexdef(i.indexrelid, place, false) ORDER BY place)
                 FROM generate_series(1, i.indnkeyatts) place) END AS parts,
            CASE WHEN a.attname IS DISTINCT FROM {column} THEN pg_get_expr(i.indpred, i.indrelid) END AS condition
         FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
         JOIN searched n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = x.relam
         LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
         LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
         WHERE c.oid >= 16384 ORDER BY n.nspname, c.relname, x.relname"
    )
}
