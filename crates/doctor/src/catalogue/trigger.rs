use serde::Deserialize;

use super::sql;

/// A trigger whose function runs with the rights of its owner.
#[derive(Debug, Deserialize)]
pub(crate) struct DefinerTrigger {
    pub(crate) relation: u32,
    pub(crate) name: String,
    pub(crate) schema: String,
    pub(crate) function: String,
}

/// Without the copies that partitions have.
pub(super) fn definers() -> String {
    let copied = sql::COPIED;
    format!(
        "SELECT t.tgrelid::bigint AS relation, t.tgname AS name, f.nspname AS schema, p.proname AS function
         FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid AND p.prosecdef
         JOIN pg_namespace f ON f.oid = p.pronamespace
         JOIN pg_class c ON c.oid = t.tgrelid JOIN searched n ON n.oid = c.relnamespace
         WHERE NOT t.tgisinternal AND NOT {copied} ORDER BY n.nspname, c.relname, t.tgname"
    )
}

/// A trigger that does not fire, or only in a replica.
#[derive(Debug, Deserialize)]
pub(crate) struct SilentTrigger {
    pub(crate) relation: u32,
    pub(crate) name: String,
    /// The foreign key that it enforces.
    pub(crate) constraint: Option<String>,
}

pub(super) const SILENT: &str = "
    SELECT t.tgrelid::bigint AS relation, t.tgname AS name, k.conname AS constraint
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN searched n ON n.oid = c.relnamespace
    LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint AND t.tgisinternal
    WHERE t.tgenabled IN ('D', 'R') ORDER BY n.nspname, c.relname, t.tgname";

/// A trigger whose function sends to other sessions or servers.
#[derive(Debug, Deserialize)]
pub(crate) struct SendingTrigger {
    pub(crate) relation: u32,
    pub(crate) name: String,
    pub(crate) function: String,
    /// What in its text sends.
    pub(crate) by: String,
}

pub(super) fn sending() -> String {
    let copied = sql::COPIED;
    format!(
        r"SELECT t.tgrelid::bigint AS relation, t.tgname AS name, p.oid::regproc::text AS function, m[1] AS by
          FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid AND p.oid >= 16384
          JOIN pg_class c ON c.oid = t.tgrelid JOIN searched n ON n.oid = c.relnamespace,
          LATERAL regexp_match(p.prosrc, '(pg_notify|\mnotify\M|dblink\w*|\mcopy\M|pg_logical_emit_message|\mlo_\w+)', 'i') m
          WHERE NOT t.tgisinternal AND NOT {copied} AND m IS NOT NULL ORDER BY n.nspname, c.relname, t.tgname"
    )
}

/// A trigger on commands that change the schema.
#[derive(Debug, Deserialize)]
pub(crate) struct EventTrigger {
    pub(crate) name: String,
    pub(crate) function: String,
}

pub(super) fn event_triggers() -> String {
    let extension = sql::extension("pg_event_trigger", "e.oid");
    format!(
        "SELECT e.evtname AS name, e.evtfoid::regproc::text AS function
         FROM pg_event_trigger e WHERE {extension} IS NULL AND e.evtenabled <> 'D' ORDER BY e.evtname"
    )
}
