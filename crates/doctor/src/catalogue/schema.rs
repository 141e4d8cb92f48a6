use serde::Deserialize;

use super::{Grant, sql};

/// A schema that is examined.
#[derive(Debug, Deserialize)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) grants: Vec<Grant>,
}

pub(super) fn sql() -> String {
    format!(
        "SELECT nspname AS name, pg_get_userbyid(nspowner) AS owner, {} AS grants FROM examined ORDER BY nspname",
        sql::grants("nspacl", "'n'", "nspowner")
    )
}
