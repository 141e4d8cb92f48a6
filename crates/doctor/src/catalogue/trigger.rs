use serde::Deserialize;

/// A trigger whose function runs with the rights of its owner.
#[derive(Debug, Deserialize)]
pub(crate) struct DefinerTrigger {
    pub(crate) relation: u32,
    pub(crate) name: String,
    pub(crate) schema: String,
    pub(crate) function: String,
}

/// Without the copies that partitions have.
pub(super) const SQL: &str = "
    SELECT t.tgrelid::bigint AS relation, t.tgname AS name, f.nspname AS schema, p.proname AS function
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid AND p.prosecdef
    JOIN pg_namespace f ON f.oid = p.pronamespace
    JOIN pg_class c ON c.oid = t.tgrelid JOIN examined n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY n.nspname, c.relname, t.tgname";
