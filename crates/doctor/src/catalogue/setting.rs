use serde::Deserialize;

/// A setting that every session of a role or a database begins with.
#[derive(Debug, Deserialize)]
pub(crate) struct RoleSetting {
    /// `None` is every role.
    pub(crate) role: Option<String>,
    /// `None` is every database.
    pub(crate) database: Option<String>,
    pub(crate) name: String,
    pub(crate) value: String,
}

/// What a setting is for the sessions of the connection's user when they begin, where that is not the default.
#[derive(Debug, Deserialize)]
pub(crate) struct Effective {
    pub(crate) name: String,
    pub(crate) value: String,
    /// As `pg_settings` says it: `configuration file`, `database`, `user`, `client`, `session` and the like; else [`UNKNOWN`].
    pub(crate) source: String,
}

/// The source of a setting that `pg_settings` does not have.
pub(crate) const UNKNOWN: &str = "configuration";

/// Read before anything is set for the transaction, with a search path that may be anything. Settings that the user may not
/// see are missing. What is set for PL/pgSQL is no row before a session used it.
pub(super) const EFFECTIVE: &str = "
    SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', s.name, 'value', s.setting,
        'source', s.source)), '[]')::pg_catalog.text
    FROM (SELECT name, setting, source FROM pg_catalog.pg_settings
        UNION ALL SELECT name, pg_catalog.current_setting(name, true), 'configuration'
        FROM (VALUES ('plpgsql.variable_conflict'::pg_catalog.text)) further (name)
        WHERE name OPERATOR(pg_catalog.<>) ALL (SELECT known.name FROM pg_catalog.pg_settings known)) s
    WHERE s.source OPERATOR(pg_catalog.<>) 'default' AND s.setting IS NOT NULL";

pub(super) const SQL: &str = "
    SELECT CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END AS role, d.datname AS database,
           split_part(one.text, '=', 1) AS name, substr(one.text, strpos(one.text, '=') + 1) AS value
    FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) one (text)
    WHERE s.setdatabase = 0 OR d.datname = current_database() ORDER BY 1, 2, 3";
