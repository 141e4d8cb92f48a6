use serde::Deserialize;

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

/// Of each node of the parsed expressions. A function call that is written as a cast has the format 1 or 2; of one
/// that is no cast only the first argument would be written. An operator is
/// written by its number and runs the function beside it; a column is written by its syntactic number and read by the
/// other one.
pub(super) const HIDDEN: &str = r"
    SELECT DISTINCT p.polrelid::bigint AS relation, p.polname AS policy, found.deed, found.name
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN searched n ON n.oid = c.relnamespace,
    LATERAL unnest(string_to_array(concat_ws(' ', p.polqual::text, p.polwithcheck::text), '{')) node,
    LATERAL (
        SELECT 'cast' AS deed, format('%I.%I', fn.nspname, f.proname) AS name
        FROM regexp_match(node, '^FUNCEXPR :funcid (\d+) .*:funcformat [12] ') m
        JOIN pg_proc f ON f.oid = m[1]::oid JOIN pg_namespace fn ON fn.oid = f.pronamespace
        WHERE node LIKE 'FUNCEXPR %'
            AND (f.oid >= 16384 OR NOT EXISTS (SELECT FROM pg_cast k WHERE k.castfunc = f.oid))
        UNION ALL
        SELECT 'operator', format('%I.%I', fn.nspname, f.proname)
        FROM regexp_match(node, ':opno (\d+) :opfuncid (\d+) ') m JOIN pg_operator o ON o.oid = m[1]::oid
        JOIN pg_proc f ON f.oid = m[2]::oid AND f.oid <> o.oprcode JOIN pg_namespace fn ON fn.oid = f.pronamespace
        WHERE node LIKE '%:opno %'
        UNION ALL
        SELECT 'column', coalesce(quote_ident(a.attname), m[2])
        FROM regexp_match(node, ':varno (\d+) :varattno (-?\d+) .*:varnosyn (\d+) :varattnosyn (-?\d+)') m
        LEFT JOIN pg_attribute a ON a.attrelid = p.polrelid AND a.attnum = m[2]::int AND m[1] = '1'
        WHERE node LIKE 'VAR %' AND m[1] = m[3] AND m[2] <> m[4]
    ) found ORDER BY 1, 2, 3, 4";
