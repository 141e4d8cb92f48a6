use serde::Deserialize;

use super::{Grant, sql};
use crate::Options;
use crate::quote::literal;

/// The server, the database and the connection.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Server {
    pub(crate) version: String,
    /// Such as 150014 for 15.14.
    pub(crate) version_number: u32,
    pub(crate) database: String,
    pub(crate) database_owner: String,
    pub(crate) database_grants: Vec<Grant>,
    pub(crate) current_user: String,
    pub(crate) session_user: String,
    /// What the tenant setting is on this connection.
    pub(crate) setting: Option<String>,
    pub(crate) lo_compat_privileges: bool,
    pub(crate) large_objects: Vec<LargeObjects>,
}

/// The large objects of one owner.
#[derive(Debug, Deserialize)]
pub(crate) struct LargeObjects {
    pub(crate) owner: String,
    pub(crate) number: usize,
    /// The number by which the first one is named.
    pub(crate) first: u32,
}

pub(super) fn sql(options: &Options) -> String {
    let grants = sql::grants("d.datacl", "'d'", "d.datdba");
    let setting = literal(&options.setting);
    let large_objects = sql::list(LARGE_OBJECTS);
    format!(
        "(SELECT row_to_json(one) FROM (SELECT
            split_part(current_setting('server_version'), ' ', 1) AS version,
            current_setting('server_version_num')::int AS version_number,
            d.datname AS database, pg_get_userbyid(d.datdba) AS database_owner, {grants} AS database_grants,
            current_user, session_user,
            nullif(current_setting({setting}, true), '') AS setting,
            current_setting('lo_compat_privileges')::bool AS lo_compat_privileges,
            {large_objects} AS large_objects
          FROM pg_database d WHERE d.datname = current_database()) one)"
    )
}

const LARGE_OBJECTS: &str = "
    SELECT pg_get_userbyid(lomowner) AS owner, count(*) AS number, min(oid)::bigint AS first
    FROM pg_largeobject_metadata GROUP BY lomowner ORDER BY 1";
