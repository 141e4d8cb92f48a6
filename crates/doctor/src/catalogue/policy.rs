use serde::Deserialize;

use super::sql;

/// A policy of row-level security.
#[derive(Debug, Deserialize)]
pub(crate) struct Policy {
    /// Of which table.
    pub(crate) relation: u32,
    pub(crate) name: String,
    pub(crate) permissive: bool,
    /// `r`, `a`, `w`, `d` or `*` for all.
    pub(crate) command: char,
    /// For whom; `None` is everybody.
    pub(crate) roles: Vec<Option<String>>,
    /// Which rows can be seen, changed and deleted.
    pub(crate) using: Option<String>,
    /// Which rows can be made.
    pub(crate) check: Option<String>,
}

/// A function that a policy calls, directly or by an operator, and that may tell what it was called with.
#[derive(Debug, Deserialize)]
pub(crate) struct LeakyCall {
    /// Of which table.
    pub(crate) relation: u32,
    pub(crate) policy: String,
    pub(crate) schema: String,
    pub(crate) function: String,
}

/// What a policy does although its text, as PostgreSQL writes it, does not show it.
#[derive(Debug, Deserialize)]
pub(crate) struct Hidden {
    /// Of which table.
    pub(crate) relation: u32,
    pub(crate) policy: String,
    pub(crate) deed: Deed,
    /// The function or column as SQL writes it.
    pub(crate) name: String,
}

/// What a hidden part of a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// A function of users is applied as a cast.
    Cast,
    /// An operator runs another function than its own.
    Operator,
    /// Another column is read than the text names.
    Column,
}

pub(super) const POLICIES: &str = "
    SELECT p.polrelid::bigint AS relation, p.polname AS name, p.polpermissive AS permissive, p.polcmd AS command,
           (SELECT json_agg(CASE WHEN r <> 0 THEN pg_get_userbyid(r) END) FROM unnest(p.polroles) r) AS roles,
           pg_get_expr(p.polqual, p.polrelid) AS using, pg_get_expr(p.polwithcheck, p.polrelid) AS check
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN searched n ON n.oid = c.relnamespace
    ORDER BY n.nspname, c.relname, p.polname";

/// Built-in functions are no dependencies that the catalogue would know, so they are read from the parsed
/// expressions.
pub(super) const LEAKY_CALLS: &str = r"
    SELECT p.polrelid::bigint AS relation, p.polname AS policy, fn.nspname AS schema, f.proname AS function
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN searched n ON n.oid = c.relnamespace,
    LATERAL (SELECT DISTINCT m[1]::oid AS oid FROM regexp_matches(
        concat_ws(' ', p.polqual::text, p.polwithcheck::text), ':(?:opfuncid|funcid) (\d+)', 'g') m) used
    JOIN pg_proc f ON f.oid = used.oid AND NOT f.proleakproof JOIN pg_namespace fn ON fn.oid = f.pronamespace
    ORDER BY n.nspname, c.relname, p.polname, fn.nspname, f.proname";

/// What policies do that their text does not say.
pub(super) fn hidden() -> String {
    let disguised = sql::disguised("concat_ws(' ', p.polqual::text, p.polwithcheck::text)");
    format!(
        "SELECT DISTINCT p.polrelid::bigint AS relation, p.polname AS policy, found.deed,
            coalesce(quote_ident(fn.nspname) || '.' || quote_ident(f.proname), found.routine::text, quote_ident(a.attname), found.varattno) AS name
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN searched n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL ({disguised}) found
        LEFT JOIN pg_proc f ON f.oid = found.routine LEFT JOIN pg_namespace fn ON fn.oid = f.pronamespace
        LEFT JOIN pg_attribute a ON a.attrelid = p.polrelid AND a.attnum = found.varattno::int AND found.varno = '1'
        ORDER BY 1, 2, 3, 4"
    )
}
