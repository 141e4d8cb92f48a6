use serde::Deserialize;

/// A table whose changes are sent to other servers.
#[derive(Debug, Deserialize)]
pub(crate) struct Published {
    pub(crate) publication: String,
    pub(crate) schema: String,
    pub(crate) table: String,
    /// Whether it is published because all tables are, and so cannot be left out.
    pub(crate) all_tables: bool,
}

pub(super) const SQL: &str = "
    SELECT t.pubname AS publication, t.schemaname AS schema, t.tablename AS table, p.puballtables AS all_tables
    FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname
    WHERE t.schemaname IN (SELECT nspname FROM searched) ORDER BY 1, 2, 3";

/// What writes rows of another server into tables of this database.
#[derive(Debug, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) name: String,
}

pub(super) const SUBSCRIPTIONS: &str = "
    SELECT s.subname AS name FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
    WHERE d.datname = current_database() ORDER BY 1";
