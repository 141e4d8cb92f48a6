use crate::Options;
use crate::quote::literal;

/// The rows of a query as one JSON list.
pub(super) fn list(query: &str) -> String {
    format!("(SELECT coalesce(json_agg(one), '[]') FROM ({query}) one)")
}

/// Who was granted what, without what an owner has anyway. `acl` is an `aclitem[]`, or NULL for the default of
/// objects of that kind (a letter of `acldefault`).
pub(super) fn grants(acl: &str, kind: &str, owner: &str) -> String {
    list(&format!(
        "SELECT {grantee} AS grantee, a.privilege_type AS privilege
         FROM aclexplode(coalesce({acl}, acldefault({kind}::\"char\", {owner}))) a WHERE a.grantee <> {owner}",
        grantee = role("a.grantee")
    ))
}

/// The name of a role, NULL for PUBLIC.
pub(super) fn role(oid: &str) -> String {
    format!("CASE WHEN {oid} <> 0 THEN pg_get_userbyid({oid}) END")
}

/// The extension an object belongs to; `class` is the catalogue the object is in.
pub(super) fn extension(class: &str, oid: &str) -> String {
    format!(
        "(SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
          WHERE d.classid = '{class}'::regclass AND d.objid = {oid} AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')"
    )
}

/// The names of columns, in the order of an array of their numbers.
pub(super) fn columns(relation: &str, numbers: &str) -> String {
    format!(
        "(SELECT json_agg(a.attname ORDER BY k.place) FROM unnest({numbers}) WITH ORDINALITY k (number, place)
          LEFT JOIN pg_attribute a ON a.attrelid = {relation} AND a.attnum = k.number)"
    )
}

/// The schemas to examine, as `examined`: those that were asked for, else all that are not PostgreSQL's own.
pub(super) fn examined(options: &Options) -> String {
    let asked: Vec<String> = options.schemas.iter().map(|name| literal(name)).collect();
    let condition = if asked.is_empty() {
        String::new()
    } else {
        format!("AND nspname IN ({})", asked.join(", "))
    };
    format!(
        "WITH examined AS MATERIALIZED (SELECT * FROM pg_namespace
         WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' {condition})"
    )
}
