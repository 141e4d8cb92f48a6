use serde::Deserialize;

/// A rule that rewrites queries of a table.
#[derive(Debug, Deserialize)]
pub(crate) struct RewriteRule {
    pub(crate) relation: u32,
    pub(crate) name: String,
}

/// Without those that make a view a view.
pub(super) const SQL: &str = "
    SELECT r.ev_class::bigint AS relation, r.rulename AS name
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN searched n ON n.oid = c.relnamespace
    WHERE r.ev_type <> '1' AND r.oid >= 16384 ORDER BY n.nspname, c.relname, r.rulename";
