use crate::Options;
use crate::quote::literal;

/// The rows of a query as one JSON list.
pub(super) fn list(query: &str) -> String {
    format!("(SELECT coalesce(json_agg(one), '[]') FROM ({query}) one)")
}

/// The nodes of a stored expression that are not what its text says: the `deed`, the number of the `routine` that runs, and the
/// `varno` and `varattno` of the column that is read. A function call that is written as a cast has the format 1 or 2; of one that
/// is no cast of PostgreSQL's only the first argument may be written. An operator is written by its number and runs the function
/// beside it; a column is written by its syntactic number and read by the other one. Fields are cut out of the text by their names:
/// regular expressions take five times as long, and a guard reads thousands of nodes.
pub(super) fn disguised(tree: &str) -> String {
    let field = |name: &str| format!("split_part(split_part(node, ':{name} ', 2), ' ', 1)");
    let [format, operator, function] = ["funcformat", "opno", "opfuncid"].map(field);
    let [written_no, written_column] = ["varnosyn", "varattnosyn"].map(field);
    format!(
        r"SELECT found.* FROM unnest(string_to_array({tree}::text, '{{')) node, LATERAL (
            SELECT 'cast' AS deed, f.id AS routine, NULL AS varno, NULL AS varattno
            FROM (SELECT CASE WHEN node LIKE 'FUNCEXPR :funcid %' THEN split_part(node, ' ', 3)::oid END AS id) f
            WHERE node LIKE 'FUNCEXPR :funcid %' AND {format} IN ('1', '2')
                AND (f.id >= 16384 OR NOT EXISTS (SELECT FROM pg_cast k WHERE k.castfunc = f.id))
            UNION ALL
            SELECT 'operator', nullif({function}, '')::oid, NULL, NULL
            FROM pg_operator o
            WHERE node LIKE '%:opno %' AND o.oid = nullif({operator}, '')::oid
                AND nullif({function}, '')::oid NOT IN (0, o.oprcode::oid)
            UNION ALL
            SELECT 'column', NULL, split_part(node, ' ', 3), split_part(node, ' ', 5)
            WHERE node LIKE 'VAR :varno %' AND split_part(node, ' ', 3) = {written_no}
                AND split_part(node, ' ', 5) <> {written_column}
        ) found"
    )
}

/// Whether the trigger `t` is a partition's copy of its table's trigger, and runs the same function. A number in `tgparentid`
/// alone proves nothing: a superuser can write any.
pub(super) const COPIED: &str = "
    EXISTS (SELECT FROM pg_trigger whole JOIN pg_inherits h ON h.inhrelid = t.tgrelid AND h.inhparent = whole.tgrelid
            WHERE whole.oid = t.tgparentid AND whole.tgfoid = t.tgfoid)";

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

/// The extension that made an object; `class` is the catalogue the object is in. NULL for an object that was added to
/// the extension later.
pub(super) fn extension(class: &str, oid: &str) -> String {
    format!(
        "(SELECT e.extname FROM pg_depend d JOIN dated e ON e.oid = d.refobjid
          WHERE d.classid = '{class}'::regclass AND d.objid = {oid} AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND {MADE_BY_IT})"
    )
}

/// Whether an extension made the operator family and, in the same transaction at the latest, the row `x` that is part of
/// it: parts of families are no members of extensions themselves.
pub(super) fn part_of_extended(family: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_depend d JOIN dated e ON e.oid = d.refobjid
          WHERE d.classid = 'pg_opfamily'::regclass AND d.objid = {family} AND d.refclassid = 'pg_extension'::regclass
          AND d.deptype = 'e' AND {MADE_BY_IT}
          AND (NOT e.told OR (x.xmin::text::bigint - e.made + 4294967296) % 4294967296 NOT BETWEEN 1 AND 2147483647))"
    )
}

/// The names of columns, in the order of an array of their numbers.
pub(super) fn columns(relation: &str, numbers: &str) -> String {
    format!(
        "(SELECT json_agg(a.attname ORDER BY k.place) FROM unnest({numbers}) WITH ORDINALITY k (number, place)
          LEFT JOIN pg_attribute a ON a.attrelid = {relation} AND a.attnum = k.number)"
    )
}

/// What several queries use:
///
/// * `examined`: the schemas that were asked for, else all that are not PostgreSQL's own.
/// * `searched`: the same and, unless schemas were asked for, PostgreSQL's own, in which a superuser can make objects too.
/// * `sessions`: the schemas of temporary objects, which no other session can reach. One that somebody was granted or
///   given is none of them.
/// * `extended`: the objects that an extension made, and which one.
pub(super) fn common(options: &Options) -> String {
    let asked: Vec<String> = options.schemas.iter().map(|name| literal(name)).collect();
    let (condition, others) = if asked.is_empty() {
        (String::new(), "oid NOT IN (SELECT oid FROM sessions)")
    } else {
        (format!("AND nspname IN ({})", asked.join(", ")), "false")
    };
    format!(
        "WITH sessions AS MATERIALIZED (SELECT oid FROM pg_namespace
            WHERE nspname ~ {TEMPORARY} AND nspowner = 10 AND nspacl IS NULL),
         examined AS MATERIALIZED (SELECT * FROM pg_namespace
            WHERE (oid >= {FIRST_OF_USERS} OR oid = {PUBLIC}) AND nspname !~ {TEMPORARY} {condition}),
         searched AS MATERIALIZED (SELECT * FROM pg_namespace
            WHERE oid IN (SELECT oid FROM examined) OR {others}),
         {}",
        extensions()
    )
}

/// Objects that initdb makes have smaller numbers (`FirstNormalObjectId`).
pub(super) const FIRST_OF_USERS: u32 = 16_384;

/// The number of the schema `public`, which initdb makes for users.
const PUBLIC: u32 = 2_200;

/// The names of the schemas in which sessions have their temporary objects.
pub(super) const TEMPORARY: &str = "'^pg_(toast_)?temp_[0-9]+$'";

/// `ALTER EXTENSION ... ADD` makes any object a member. The transaction that made or updated the extension made its own
/// members, at the latest; a member of a later transaction was added. After `pg_upgrade` all members are later, and
/// cannot be told apart. PostgreSQL's own extension has only members of initdb's.
fn extensions() -> String {
    format!(
        "dated AS MATERIALIZED (SELECT e.oid, e.extname, e.xmin::text::bigint AS made,
            EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                AND d.deptype = 'e' AND (d.xmin::text::bigint - e.xmin::text::bigint + 4294967296) % 4294967296
                NOT BETWEEN 1 AND 2147483647) AS told
            FROM pg_extension e),
         extended AS MATERIALIZED (SELECT d.classid, d.objid FROM pg_depend d JOIN dated e ON e.oid = d.refobjid
            WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.objsubid = 0 AND {MADE_BY_IT})"
    )
}

/// Whether a dependency `d` on the extension `e` is as old as that one. Numbers of transactions begin anew after 2^32.
const MADE_BY_IT: &str = "
    CASE WHEN e.oid < 16384 THEN d.objid < 16384
        WHEN e.told THEN (d.xmin::text::bigint - e.made + 4294967296) % 4294967296 NOT BETWEEN 1 AND 2147483647
        ELSE true END";
