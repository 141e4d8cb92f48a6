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

pub(super) const SQL: &str = "
    SELECT CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END AS role, d.datname AS database,
           split_part(one.text, '=', 1) AS name, substr(one.text, strpos(one.text, '=') + 1) AS value
    FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) one (text)
    WHERE s.setdatabase = 0 OR d.datname = current_database() ORDER BY 1, 2, 3";
