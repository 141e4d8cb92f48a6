//! What PostgreSQL itself brings along, as far as somebody changed it.

use serde::Deserialize;

use crate::quote::literal;

/// A row of a system catalogue that initdb made and that was changed later.
#[derive(Debug, Deserialize)]
pub(crate) struct Alteration {
    /// What sort of object, such as `function`.
    pub(crate) kind: String,
    /// Its full name as SQL writes it.
    pub(crate) name: String,
    /// What was changed, where that is known.
    pub(crate) what: Option<String>,
    /// Of a function: a digest of what it is, without who may run it.
    pub(crate) digest: Option<String>,
    /// Of a function that is LEAKPROOF: what the digest would be if it were not.
    pub(crate) otherwise: Option<String>,
    /// The catalogue whose digest ([`DIGESTS`]) covers all of the row.
    pub(crate) class: Option<String>,
}

/// What one of PostgreSQL's own catalogues holds, as far as it is the same on every machine.
#[derive(Debug, Deserialize)]
pub(crate) struct Digest {
    /// The catalogue, such as `pg_proc`.
    pub(crate) class: String,
    pub(crate) digest: String,
}

/// Rows that initdb made in bootstrap mode, whatever their age says. Numbers from 8000 to 9999 belong to what others add to
/// PostgreSQL, those above 11999 depend on the machine's locales. Left out are privileges, costs, and where a text was parsed.
pub(super) const DIGESTS: &str = include_str!("built_in.sql");

/// A grant on an object of PostgreSQL's own that initdb did not make.
#[derive(Debug, Deserialize)]
pub(crate) struct SystemGrant {
    /// As in `GRANT ... ON`: `TABLE`, `ROUTINE`, `SCHEMA`, `PARAMETER`.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// To whom; `None` is everybody.
    pub(crate) grantee: Option<String>,
    pub(crate) privilege: String,
    pub(crate) column: Option<String>,
}

/// A language for functions.
#[derive(Debug, Deserialize)]
pub(crate) struct Language {
    pub(crate) name: String,
    pub(crate) trusted: bool,
}

pub(super) const LANGUAGES: &str =
    "SELECT lanname AS name, lanpltrusted AS trusted FROM pg_language ORDER BY lanname";

/// The digest of a function `p` in the schema `n` and the language `l`, whether it is leakproof being an expression. A body of
/// standard SQL is compared as text: as it is stored it has numbers of other functions, which depend on the machine's locales.
fn digest(leakproof: &str) -> String {
    format!(
        "left(md5(concat_ws('/', n.nspname, p.proname, p.proargtypes::text, p.proowner, l.lanname, p.prosrc, p.probin,
            pg_get_function_sqlbody(p.oid), {leakproof}, p.prosecdef, p.proisstrict, p.proretset, p.provolatile, p.prokind,
            p.proconfig::text, p.prosupport::oid)), 12)"
    )
}

/// Rows of the catalogue that initdb made in bootstrap mode carry the transaction number 1 for good: freezing a row
/// keeps its number, and databases and clusters are copied with it. A higher one is a later change. Functions and views
/// come from scripts of initdb as well, the last of whose transactions makes `template0`, soon after the initial grants
/// were noted. A superuser can move both and freeze a row, so [`DIGESTS`] are compared besides.
pub(super) fn alterations() -> String {
    // With the numbers of the rows that the digest is over.
    let simple = [
        ("pg_cast", "x.oid < 8000 OR x.oid BETWEEN 10000 AND 11999"),
        ("pg_operator", "x.oid < 8000"),
        ("pg_opclass", "x.oid < 8000 OR x.oid BETWEEN 10000 AND 11999"),
        ("pg_opfamily", "x.oid < 8000"),
        ("pg_amop", "x.oid BETWEEN 10000 AND 11999"),
        ("pg_amproc", "x.oid BETWEEN 10000 AND 11999"),
        ("pg_am", "x.oid < 8000"),
        ("pg_conversion", "false"),
    ];
    let simple = simple.map(|(class, covered)| {
        format!(
            "SELECT i.type AS kind, i.identity AS name, NULL AS what, NULL AS digest, NULL AS otherwise,
                CASE WHEN {covered} THEN '{class}' END AS class
             FROM {class} x, LATERAL pg_identify_object('{class}'::regclass, x.oid, 0) i
             WHERE x.oid < 16384 AND x.xmin::text::bigint > 2"
        )
    });
    let last_of_initdb = LAST_OF_INITDB;
    format!(
        "{simple}
         UNION ALL
         SELECT 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), NULL,
            {digest}, CASE WHEN p.proleakproof THEN {otherwise} END, NULL
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
         WHERE p.oid < 16384 AND p.xmin::text::bigint > {last_of_initdb}
         UNION ALL
         SELECT 'type', format_type(t.oid, NULL), NULL, NULL, NULL, NULL
         FROM pg_type t WHERE t.oid < 10000 AND t.xmin::text::bigint > 2 AND t.typacl IS NULL
         UNION ALL
         SELECT 'type', format_type(t.oid, NULL), 'it uses a function of users', NULL, NULL, NULL
         FROM pg_type t WHERE t.oid < 16384 AND greatest(t.typinput::oid, t.typoutput::oid, t.typreceive::oid, t.typsend::oid,
            t.typsubscript::oid) >= 16384
         UNION ALL
         {ALTERED_LANGUAGES}
         UNION ALL
         SELECT 'range', format_type(x.rngtypid, NULL), NULL, NULL, NULL, NULL
         FROM pg_range x WHERE x.rngtypid < 16384 AND x.xmin::text::bigint > 2
         UNION ALL
         SELECT 'text search configuration', m.mapcfg::regconfig::text, 'its dictionaries were replaced', NULL, NULL, NULL
         FROM pg_ts_config_map m WHERE m.mapcfg < 16384 AND m.xmin::text::bigint > {last_of_initdb}
         UNION ALL
         SELECT 'collation', quote_ident(x.collname), 'it is not deterministic', NULL, NULL, NULL
         FROM pg_collation x WHERE x.oid < 16384 AND NOT x.collisdeterministic
         UNION ALL
         SELECT 'aggregate', a.aggfnoid::regprocedure::text, NULL, NULL, NULL, NULL
         FROM pg_aggregate a WHERE a.aggfnoid::oid < 16384 AND a.xmin::text::bigint > 2
         UNION ALL
         SELECT 'view', r.ev_class::regclass::text, 'its query was replaced', NULL, NULL, NULL
         FROM pg_rewrite r WHERE r.oid < 16384 AND r.xmin::text::bigint > {last_of_initdb}
         UNION ALL
         SELECT 'relation', c.oid::regclass::text, 'it belongs to ' || quote_ident(pg_get_userbyid(c.relowner)), NULL, NULL, NULL
         FROM pg_class c WHERE c.oid < 16384 AND c.relowner <> 10
         UNION ALL
         SELECT 'view', c.oid::regclass::text, 'it is no security barrier', NULL, NULL, NULL
         FROM pg_class c WHERE c.oid < 16384 AND c.relname IN ('pg_stats', 'pg_stats_ext', 'pg_stats_ext_exprs')
            AND NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o
                            WHERE o.option_name = 'security_barrier' AND o.option_value::bool)
         ORDER BY 1, 2",
        simple = simple.join(" UNION ALL "),
        digest = digest("p.proleakproof"),
        otherwise = digest("false"),
    )
}

/// The row of a language is changed by a grant on it, so its functions are compared instead.
const ALTERED_LANGUAGES: &str = "
    SELECT 'language', l.lanname, CASE WHEN f.last >= 16384 THEN 'it uses a function of users' ELSE 'its functions are not its own' END,
        NULL, NULL, NULL
    FROM pg_language l, LATERAL (SELECT greatest(l.lanplcallfoid, l.laninline, l.lanvalidator) AS last) f
    WHERE l.oid < 16384 AND (f.last >= 16384 OR l.lanname IN ('internal', 'c', 'sql', 'plpgsql')
        AND concat_ws(' ', l.lanname, l.lanplcallfoid::regproc, l.laninline::regproc, l.lanvalidator::regproc)
            NOT IN ('internal - - fmgr_internal_validator', 'c - - fmgr_c_validator', 'sql - - fmgr_sql_validator',
                'plpgsql plpgsql_call_handler plpgsql_inline_handler plpgsql_validator'))";

/// Whatever the rows say, initdb of versions 15 to 18 needs 724 to 752 transactions.
const LAST_OF_INITDB: &str = "least(1000, (SELECT max(xmin::text::bigint) FROM pg_database WHERE datname = 'template0'), \
    (SELECT max(xmin::text::bigint) + 1000 FROM pg_init_privs WHERE privtype = 'i'))";

/// `pg_init_privs` keeps what initdb granted, in rows as old as itself, but for the information schema, which everybody may read. Functions that it
/// does not name were everybody's from the beginning.
pub(super) fn grants(has_parameters: bool) -> String {
    let initial = |class: &str, object: &str, part: &str| {
        format!(
            "NOT EXISTS (SELECT FROM pg_init_privs i, aclexplode(i.initprivs) b
             WHERE i.classoid = '{class}'::regclass AND i.objoid = {object} AND i.objsubid = {part}
             AND i.privtype = 'i' AND i.xmin::text::bigint <= (SELECT last.transaction FROM last)
             AND b.grantee = a.grantee AND b.privilege_type = a.privilege_type)"
        )
    };
    let grantee = super::sql::role("a.grantee");
    let parameters = if has_parameters {
        format!(
            "UNION ALL SELECT 'PARAMETER', p.parname, {grantee}, a.privilege_type, NULL
             FROM pg_parameter_acl p, aclexplode(p.paracl) a WHERE a.grantee <> 10"
        )
    } else {
        String::new()
    };
    let elsewhere = super::function::BUILT_IN;
    format!(
        "WITH last AS MATERIALIZED (SELECT {LAST_OF_INITDB} AS transaction)
         SELECT 'TABLE' AS kind, c.oid::regclass::text AS name, {grantee} AS grantee, a.privilege_type AS privilege,
            NULL AS column
         FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid < 16384 AND a.grantee <> c.relowner AND {table}
            AND NOT (c.relnamespace = 'information_schema'::regnamespace AND a.grantee = 0 AND a.privilege_type = 'SELECT')
         UNION ALL
         SELECT 'TABLE', c.oid::regclass::text, {grantee}, a.privilege_type, t.attname
         FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
         WHERE c.oid < 16384 AND a.grantee <> c.relowner AND {column}
         UNION ALL
         SELECT 'ROUTINE', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), {grantee},
            a.privilege_type, NULL
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) a
         WHERE p.oid < 16384 AND a.grantee <> p.proowner AND p.proname NOT IN ({elsewhere}) AND {routine}
            AND EXISTS (SELECT FROM pg_init_privs i WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid)
         UNION ALL
         SELECT 'SCHEMA', quote_ident(n.nspname), {grantee}, a.privilege_type, NULL
         FROM pg_namespace n, aclexplode(n.nspacl) a
         WHERE n.oid < 16384 AND n.nspname <> 'public' AND a.grantee <> n.nspowner AND {schema}
            AND NOT (n.nspname = 'information_schema' AND a.grantee = 0 AND a.privilege_type = 'USAGE')
         {parameters}
         ORDER BY 1, 2, 3, 4, 5",
        table = initial("pg_class", "c.oid", "0"),
        column = initial("pg_class", "c.oid", "t.attnum"),
        routine = initial("pg_proc", "p.oid", "0"),
        schema = initial("pg_namespace", "n.oid", "0"),
    )
}

/// Something of users that changes what SQL about PostgreSQL's own types means.
#[derive(Debug, Deserialize)]
pub(crate) struct Meaning {
    /// As in `DROP ...`, such as `CAST`.
    pub(crate) kind: String,
    /// Its full name as SQL writes it.
    pub(crate) name: String,
    /// Whether it lies in `pg_catalog`, before everything else in every search path.
    pub(crate) in_catalogue: bool,
}

/// Without what an extension made.
pub(super) fn meanings() -> String {
    let own = |class: &str, object: &str| {
        let extension = super::sql::extension(class, object);
        format!("{object} >= 16384 AND {extension} IS NULL")
    };
    let catalogue = literal("pg_catalog");
    format!(
        "SELECT 'CAST' AS kind, format('(%s AS %s)', format_type(x.castsource, NULL), format_type(x.casttarget, NULL)) AS name,
            false AS in_catalogue
         FROM pg_cast x WHERE {cast} AND x.castsource < 16384 AND x.casttarget < 16384
         UNION ALL
         SELECT 'OPERATOR', i.identity, n.nspname = {catalogue}
         FROM pg_operator x JOIN pg_namespace n ON n.oid = x.oprnamespace,
         LATERAL pg_identify_object('pg_operator'::regclass, x.oid, 0) i
         WHERE {operator} AND x.oprleft < 16384 AND x.oprright < 16384
         UNION ALL
         SELECT 'OPERATOR CLASS', i.identity, false
         FROM pg_opclass x, LATERAL pg_identify_object('pg_opclass'::regclass, x.oid, 0) i
         WHERE {class} AND x.opcintype < 16384
         UNION ALL
         SELECT i.type, i.identity, false
         FROM pg_amop x, LATERAL pg_identify_object('pg_amop'::regclass, x.oid, 0) i WHERE {amop} AND x.amopfamily < 16384
         UNION ALL
         SELECT i.type, i.identity, false
         FROM pg_amproc x, LATERAL pg_identify_object('pg_amproc'::regclass, x.oid, 0) i WHERE {amproc} AND x.amprocfamily < 16384
         UNION ALL
         SELECT 'CONVERSION', i.identity, false
         FROM pg_conversion x, LATERAL pg_identify_object('pg_conversion'::regclass, x.oid, 0) i
         WHERE {conversion} AND x.condefault
         UNION ALL
         SELECT 'ROUTINE', format('%I.%I(%s)', n.nspname, x.proname, pg_get_function_identity_arguments(x.oid)), true
         FROM pg_proc x JOIN pg_namespace n ON n.oid = x.pronamespace WHERE {function} AND n.nspname = {catalogue}
         ORDER BY 1, 2",
        cast = own("pg_cast", "x.oid"),
        operator = own("pg_operator", "x.oid"),
        class = own("pg_opclass", "x.oid"),
        amop = own("pg_amop", "x.oid"),
        amproc = own("pg_amproc", "x.oid"),
        conversion = own("pg_conversion", "x.oid"),
        function = own("pg_proc", "x.oid"),
    )
}
