use serde::Deserialize;

use super::{Grant, sql};

/// What is granted on objects that a role makes later.
#[derive(Debug, Deserialize)]
pub(crate) struct DefaultPrivilege {
    /// Who makes them.
    pub(crate) owner: String,
    /// In which schema; `None` is in any.
    pub(crate) schema: Option<String>,
    /// `r` tables, `S` sequences, `f` functions, `T` types, `n` schemas.
    pub(crate) kind: char,
    pub(crate) grants: Vec<Grant>,
}

pub(super) fn sql() -> String {
    let grants = sql::list(&format!(
        "SELECT {} AS grantee, a.privilege_type AS privilege FROM aclexplode(d.defaclacl) a",
        sql::role("a.grantee")
    ));
    format!(
        "SELECT pg_get_userbyid(d.defaclrole) AS owner, n.nspname AS schema, d.defaclobjtype AS kind, {grants} AS grants
         FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
         WHERE d.defaclnamespace = 0 OR n.oid IN (SELECT oid FROM searched) ORDER BY 1, 2, 3"
    )
}
