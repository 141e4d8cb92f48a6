//! What runs when rows are written, read only where a migration was applied that the manifest does not know.

use serde::Deserialize;

use super::{fact, sql};
use crate::Manifest;
use crate::quote::literal;

/// Why an unknown migration is no excuse for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Risk {
    /// It runs more than functions of PostgreSQL that depend on nothing but their arguments and the time.
    Code,
    /// Its type is no type of PostgreSQL: the functions and constraints of the type run with it.
    Type,
}

/// An object of users, with the kind and the name that it has as a [`Fact`](super::Fact).
#[derive(Debug, Deserialize)]
pub(crate) struct Risky {
    pub(crate) kind: String,
    pub(crate) object: String,
    pub(crate) risk: Risk,
}

/// The columns that a constraint is about, named like those of the facts.
#[derive(Debug, Deserialize)]
pub(crate) struct Constrained {
    pub(crate) object: String,
    pub(crate) columns: Vec<String>,
}

/// Whether a migration was applied that is not in the manifest. The planner asks this before it reads anything else.
fn has_unknown(manifest: Option<&Manifest>) -> String {
    let known: Vec<String> = manifest
        .map(Manifest::migrations)
        .unwrap_or_default()
        .into_iter()
        .map(literal)
        .collect();
    let known = known.join(", ");
    format!("EXISTS (SELECT FROM public.seaql_migrations WHERE version <> ALL (ARRAY[{known}]::text[]))")
}

/// Functions of PostgreSQL in C that are immutable or tell the time, read a setting or make a random value. Of the stable ones those
/// of dates and times (the numbers are their types), which depend on the time zone of the session.
const HARMLESS: &str = "
    harmless AS MATERIALIZED (SELECT p.oid FROM pg_proc p
        WHERE p.oid < 16384 AND p.prolang = 12 AND p.prokind = 'f' AND NOT p.prosecdef AND (p.provolatile = 'i'
            OR p.provolatile = 's' AND p.proargtypes::oid[] && '{1082,1083,1114,1184,1186,1266}'::oid[]
            OR p.proname IN ('now', 'transaction_timestamp', 'statement_timestamp', 'clock_timestamp', 'current_setting',
                'gen_random_uuid', 'random', 'uuidv4', 'uuidv7')))";

/// Whether a stored expression has a node that is not known to be harmless, or names an object of users. What runs is a number
/// behind the name of the node: a function, or an operator and its function. Versions up to 15 have shorter names for some nodes.
fn is_risky(tree: &str) -> String {
    let operator = "(SELECT o.oid < 16384 AND m[2]::oid = o.oprcode AND m[2]::oid IN (SELECT oid FROM harmless)
         FROM regexp_match(node, '^[A-Z]+ :opno (\\d+) :opfuncid (\\d+) ') m JOIN pg_operator o ON o.oid = m[1]::oid)";
    format!(
        r"({tree} ~* ':\w*type(id)? (1638[4-9]|1639\d|16[4-9]\d\d|1[7-9]\d{{3}}|[2-9]\d{{4}}|\d{{6,}})'
          OR EXISTS (SELECT FROM unnest(string_to_array({tree}, '{{')) WITH ORDINALITY nodes (node, place)
            WHERE place > 1 AND NOT coalesce(CASE split_part(node, ' ', 1)
                WHEN 'FUNCEXPR' THEN substring(node FROM '^FUNCEXPR :funcid (\d+) ')::oid IN (SELECT oid FROM harmless)
                WHEN 'OPEXPR' THEN {operator}
                WHEN 'DISTINCTEXPR' THEN {operator}
                WHEN 'NULLIFEXPR' THEN {operator}
                WHEN 'SCALARARRAYOPEXPR' THEN {operator}
                ELSE split_part(node, ' ', 1) IN ('VAR', 'CONST', 'BOOLEXPR', 'NULLTEST', 'BOOLEANTEST', 'RELABELTYPE',
                    'COERCEVIAIO', 'ARRAYCOERCEEXPR', 'COLLATE', 'COLLATEEXPR', 'CASE', 'CASEEXPR', 'WHEN', 'CASEWHEN',
                    'CASETESTEXPR', 'COERCETODOMAINVALUE', 'COALESCE', 'COALESCEEXPR', 'MINMAX', 'MINMAXEXPR', 'ARRAY',
                    'ARRAYEXPR', 'SUBSCRIPTINGREF', 'SQLVALUEFUNCTION')
            END, false)))"
    )
}

/// A default may take the next value of the sequence that belongs to its column.
const OWN_SEQUENCE: &str = "
    EXISTS (SELECT FROM pg_depend s JOIN pg_class q ON q.oid = s.objid AND q.relkind = 'S'
        WHERE s.classid = 'pg_class'::regclass AND s.refclassid = 'pg_class'::regclass AND s.refobjid = d.adrelid
            AND s.refobjsubid = d.adnum AND s.deptype IN ('a', 'i')
            AND pg_get_expr(d.adbin, d.adrelid) = format('nextval(%L::regclass)', q.oid::regclass))";

/// Objects with code of their own. A function with the name of one of PostgreSQL's can be called in its place.
pub(super) fn risky(manifest: Option<&Manifest>) -> String {
    sql::list(&format!(
        "WITH {relations}, {HARMLESS},
         trees (kind, object, tree) AS (
            SELECT 'column', r.name || '.' || quote_ident(a.attname), d.adbin::text
            FROM rel r JOIN pg_attrdef d ON d.adrelid = r.oid
                JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
            WHERE r.made AND NOT {OWN_SEQUENCE}
            UNION ALL
            SELECT 'constraint', format('%I on %s', k.conname, r.name), k.conbin::text
            FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid WHERE k.oid >= 16384
            UNION ALL
            SELECT 'domain constraint', format('%I on %s', k.conname, k.contypid::regtype), k.conbin::text
            FROM pg_constraint k WHERE k.oid >= 16384 AND k.contypid <> 0
            UNION ALL
            SELECT 'index', format('%I on %s', x.relname, r.name), concat(i.indexprs, i.indpred)
            FROM pg_index i JOIN rel r ON r.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
            WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
            UNION ALL
            SELECT 'policy', format('%I on %s', p.polname, r.name), concat(p.polqual, p.polwithcheck)
            FROM pg_policy p JOIN rel r ON r.oid = p.polrelid
            UNION ALL
            SELECT 'table', r.name, t.partexprs::text FROM pg_partitioned_table t JOIN rel r ON r.oid = t.partrelid
            UNION ALL
            SELECT i.type, i.identity, s.stxexprs::text
            FROM pg_statistic_ext s, LATERAL pg_identify_object('pg_statistic_ext'::regclass, s.oid, 0) i
            UNION ALL
            SELECT i.type, i.identity, t.typdefaultbin::text
            FROM pg_type t, LATERAL pg_identify_object('pg_type'::regclass, t.oid, 0) i
            WHERE t.oid >= 16384 AND t.typdefaultbin IS NOT NULL)
         SELECT DISTINCT kind, object, risk FROM (
            SELECT kind, object, 'code' FROM trees WHERE {is_risky}
            UNION ALL
            SELECT i.type, i.identity, 'code'
            FROM pg_type t, LATERAL pg_identify_object('pg_type'::regclass, t.oid, 0) i
            WHERE t.oid >= 16384 AND t.typtype NOT IN ('c', 'd', 'e')
                AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid AND e.oid = t.typelem)
            UNION ALL
            SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
                format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), 'code'
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE p.oid >= 16384 AND EXISTS (SELECT FROM pg_proc b WHERE b.oid < 16384 AND b.proname = p.proname)
            UNION ALL
            SELECT 'column', r.name || '.' || quote_ident(a.attname), 'type'
            FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid
            WHERE r.made AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
         ) found (kind, object, risk) WHERE {unknown}",
        relations = fact::relations(),
        is_risky = is_risky("tree"),
        unknown = has_unknown(manifest),
    ))
}

/// What the constraints of tables are about.
pub(super) fn constrained(manifest: Option<&Manifest>) -> String {
    sql::list(&format!(
        "WITH {relations}
         SELECT format('%I on %s', k.conname, r.name) AS object,
            (SELECT coalesce(json_agg(r.name || '.' || quote_ident(a.attname)), '[]')
             FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum = ANY (k.conkey)) AS columns
         FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid WHERE k.oid >= 16384 AND {unknown}",
        relations = fact::relations(),
        unknown = has_unknown(manifest),
    ))
}
