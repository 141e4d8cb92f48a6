use serde::Deserialize;

use super::sql;
use crate::Options;
use crate::quote::literal;

/// One line of a manifest: what sort of object, which one, and what holds for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub(crate) struct Fact {
    pub(crate) kind: String,
    pub(crate) object: String,
    pub(crate) fact: String,
}

/// Everything in the database that no initdb made, whatever its schema, and what the application's roles are.
///
/// Temporary objects of sessions are left out, and what an extension made: the extension is a fact. Partitions are one
/// object, named after their table: they come and go with time. Indexes count where they are unique, exclude, have an
/// expression, or a condition with a function or operator of users: others cannot change which rows a query returns, nor
/// run code of users.
pub(super) fn facts(options: &Options, modern: bool) -> String {
    let mut parts = vec![
        tables(),
        columns(),
        constraints(),
        FOREIGN_KEYS.to_owned(),
        indexes(),
        POLICIES.to_owned(),
        triggers(),
        rules(),
        functions(),
        objects(modern),
        EXTENSIONS.to_owned(),
        LABELS.to_owned(),
        DATABASE.to_owned(),
    ];
    let ours: Vec<String> = options.our_roles().map(literal).collect();
    let ours = ours.join(", ");
    parts.push(grants(&ours));
    parts.push(DEFAULT_PRIVILEGES.to_owned());
    parts.push(roles(&ours));
    let parts = parts.join("\nUNION ALL ");
    sql::list(&format!(
        "WITH {} SELECT DISTINCT kind, object, fact FROM ({parts}) facts (kind, object, fact)",
        relations()
    ))
}

/// The migrations that were applied. The table may be missing, and then cannot be in a statement.
pub(super) const MIGRATIONS: &str =
    "SELECT 'migration' AS kind, version AS object, '' AS fact FROM public.seaql_migrations";

/// Whether the current user can read which migrations were applied.
pub(super) const HAS_MIGRATIONS: &str = "SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.seaql_migrations'), 'SELECT'), false)";

/// `shared` are the schemas whose objects other sessions can reach; `rel` are the relations, `made` those that no initdb
/// made: others can have triggers, constraints and indexes of users. A relation is temporary by what it is, not by its
/// schema.
pub(super) fn relations() -> String {
    format!(
        "shared AS MATERIALIZED (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
            WHERE oid NOT IN (SELECT oid FROM sessions)),
         rel AS MATERIALIZED (SELECT c.*, c.oid >= 16384 AS made, CASE WHEN c.relispartition
                THEN (SELECT format('%I.%I/*', pn.nspname, p.relname)
                      FROM pg_class p JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE p.oid = pg_partition_root(c.oid))
                ELSE format('%I.%I', n.nspname, c.relname) END AS name
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE (c.oid >= 16384 OR c.relkind IN ('r', 'p', 'v', 'm', 'f'))
                AND NOT (c.relpersistence = 't' AND n.nspname ~ {temporary})
                AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid))",
        temporary = sql::TEMPORARY
    )
}

/// A table whose row in `pg_class` denies its triggers, indexes or checks goes without them. A partition has one parent, whose
/// rows it holds; by one more they would be another table's, too.
fn tables() -> String {
    let stored = otherwise("w.ev_action");
    format!(
        "
    SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
            WHEN 'S' THEN 'sequence' ELSE 'table' END, name,
        concat_ws(', ', 'owned by ' || quote_ident(pg_get_userbyid(relowner)),
            CASE WHEN relrowsecurity THEN 'row security enabled' END, CASE WHEN relforcerowsecurity THEN 'forced' END,
            CASE WHEN relpersistence <> 'p' THEN 'not permanent' END,
            CASE WHEN relreplident <> 'd' THEN 'replica identity ' || relreplident::text END,
            CASE WHEN relkind IN ('r', 'm') AND relam <> 2
                THEN (SELECT 'using ' || quote_ident(m.amname) FROM pg_am m WHERE m.oid = relam) END,
            CASE WHEN NOT relhastriggers AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = rel.oid)
                THEN 'triggers ignored' END,
            CASE WHEN NOT relhasindex AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = rel.oid)
                THEN 'indexes ignored' END,
            CASE WHEN relchecks < (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = rel.oid AND k.contype = 'c')
                THEN 'checks ignored' END,
            CASE WHEN relkind = 'p' THEN 'partitioned by ' || pg_get_partkeydef(oid) END,
            CASE WHEN EXISTS (SELECT FROM pg_partitioned_table t WHERE t.partrelid = rel.oid AND t.partdefid <> coalesce((
                    SELECT h.inhrelid FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhrelid
                    WHERE h.inhparent = rel.oid AND pg_get_expr(p.relpartbound, p.oid) = 'DEFAULT'), 0))
                THEN 'other default partition' END,
            CASE WHEN relkind IN ('v', 'm') THEN concat_ws(' ', reloptions::text, md5(pg_get_viewdef(oid))
                || coalesce((SELECT {stored} FROM pg_rewrite w WHERE w.ev_class = rel.oid AND w.ev_type = '1'), '')) END,
            (SELECT 'child of ' || string_agg(inhparent::regclass::text, ' ' ORDER BY inhseqno)
                FROM pg_inherits WHERE inhrelid = rel.oid HAVING NOT rel.relispartition OR count(*) > 1))
    FROM rel WHERE made AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
    )
}

/// Of a partition, defaults that its table does not have: they apply where the partition is written to directly. A default that
/// the row of the column denies does not apply.
fn columns() -> String {
    let stored = otherwise("d.adbin");
    format!(
        "
    SELECT 'column', r.name || '.' || quote_ident(a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull THEN 'not null' END,
        CASE a.attgenerated WHEN '' THEN NULL WHEN 's' THEN 'generated' ELSE 'virtual' END,
        CASE WHEN a.attidentity <> '' THEN 'identity' END,
        CASE WHEN a.attcollation <> (SELECT t.typcollation FROM pg_type t WHERE t.oid = a.atttypid)
            THEN 'collate ' || a.attcollation::regcollation::text END,
        (SELECT 'default ' || pg_get_expr(d.adbin, d.adrelid) || {stored} FROM pg_attrdef d
         WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef))
    FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid
    WHERE r.made AND r.relkind IN ('r', 'p', 'f') AND NOT r.relispartition AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'column', r.name || '.' || quote_ident(a.attname), 'default ' || pg_get_expr(d.adbin, d.adrelid) || {stored}
    FROM rel r JOIN pg_attrdef d ON d.adrelid = r.oid JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE r.relispartition AND ({stored} <> '' OR NOT EXISTS (SELECT FROM pg_inherits h
        JOIN pg_attribute b ON b.attrelid = h.inhparent AND b.attname = a.attname AND b.attgenerated = a.attgenerated
        JOIN pg_attrdef e ON e.adrelid = b.attrelid AND e.adnum = b.attnum
        WHERE h.inhrelid = r.oid AND pg_get_expr(e.adbin, e.adrelid) = pg_get_expr(d.adbin, d.adrelid)))"
    )
}

/// Of a partition, those that its table does not have. Those of domains are checked where a value gets the type.
fn constraints() -> String {
    let stored = otherwise("k.conbin");
    format!(
        "
    SELECT 'constraint', format('%I on %s', k.conname, r.name), pg_get_constraintdef(k.oid) || {stored}
    FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid
    WHERE k.oid >= 16384 AND k.contype IN ('c', 'f', 'p', 'u', 'x')
        AND (NOT r.relispartition OR k.conislocal AND k.conparentid = 0)
    UNION ALL
    SELECT 'domain constraint', format('%I on %s', k.conname, k.contypid::regtype), pg_get_constraintdef(k.oid) || {stored}
    FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN shared n ON n.oid = t.typnamespace
    WHERE k.oid >= 16384 AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid)"
    )
}

/// Each key has two triggers on either side, which can be switched off, moved to another table or changed one by one. Of a row and after it they run at
/// INSERT (5), UPDATE (17) or DELETE (9) the functions `RI_FKey_*` of PostgreSQL, whose numbers are fixed. A partitioned table has them on
/// its partitions. The operators that compare its columns are in no text.
const FOREIGN_KEYS: &str = "
    SELECT 'foreign key', format('%I on %s', k.conname, r.name),
        CASE WHEN coalesce(bool_and(t.tgenabled = 'O' AND t.tgattr::text = '' AND t.tgqual IS NULL
                AND t.tgdeferrable = k.condeferrable AND t.tginitdeferred = k.condeferred
                AND t.tgrelid = CASE WHEN t.tgfoid IN (1644, 1645) THEN k.conrelid ELSE k.confrelid END
                AND t.tgconstrrelid = CASE WHEN t.tgfoid IN (1644, 1645) THEN k.confrelid ELSE k.conrelid END
                AND (t.tgtype::int, t.tgfoid::oid::int) IN ((5, 1644), (17, 1645),
                    (9, CASE k.confdeltype WHEN 'c' THEN 1646 WHEN 'r' THEN 1648 WHEN 'n' THEN 1650 WHEN 'd' THEN 1652 ELSE 1654 END),
                    (17, CASE k.confupdtype WHEN 'c' THEN 1647 WHEN 'r' THEN 1649 WHEN 'n' THEN 1651 WHEN 'd' THEN 1653 ELSE 1655 END))),
                r.relkind = 'p') AND (count(t.oid) = 4 OR r.relkind = 'p')
                AND NOT EXISTS (SELECT FROM unnest(k.conpfeqop || k.conppeqop || k.conffeqop) compared (by)
                    LEFT JOIN pg_operator o ON o.oid = compared.by AND o.oprname = '='
                    WHERE o.oid IS NULL)
            THEN 'enforced' ELSE format('not enforced, %s of 4 triggers enabled', count(t.oid) FILTER (WHERE t.tgenabled = 'O')) END
    FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid LEFT JOIN pg_trigger t ON t.tgconstraint = k.oid
    WHERE k.oid >= 16384 AND NOT r.relispartition AND k.contype = 'f' GROUP BY k.oid, k.conname, r.name, r.relkind";

fn indexes() -> String {
    let stored = otherwise("concat(i.indexprs, i.indpred)");
    format!(
        "
    SELECT 'index', format('%I on %s', x.relname, r.name), pg_get_indexdef(i.indexrelid)
        || CASE WHEN i.indisvalid AND i.indisready AND i.indislive THEN '' ELSE ' NOT VALID' END
        || CASE WHEN i.indimmediate THEN '' ELSE ' NOT IMMEDIATE' END || {stored}
    FROM pg_index i JOIN rel r ON r.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
    WHERE x.oid >= 16384 AND r.relkind <> 't'
        AND (i.indisunique OR i.indisexclusion OR i.indexprs IS NOT NULL
            OR i.indpred IS NOT NULL AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                AND d.objid = i.indexrelid AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)))
        AND (NOT r.relispartition OR NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid))"
    )
}

/// What is added to the text of an expression that is not stored as it is written. Casts of users are facts of their own.
fn otherwise(tree: &str) -> String {
    let disguised = sql::disguised(tree);
    format!(
        "CASE WHEN EXISTS (SELECT FROM ({disguised}) d
            WHERE d.deed <> 'cast' OR NOT EXISTS (SELECT FROM pg_cast k WHERE k.castfunc = d.routine))
            THEN ', stored otherwise' ELSE '' END"
    )
}

const POLICIES: &str = "
    SELECT 'policy', format('%I on %s', p.polname, r.name), concat_ws(' ',
        CASE WHEN NOT p.polpermissive THEN 'AS RESTRICTIVE' END,
        'FOR ' || CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
            WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
        'TO ' || (SELECT string_agg(CASE WHEN o = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ', '
            ORDER BY pg_get_userbyid(o)) FROM unnest(p.polroles) o),
        'USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
        'WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
    FROM pg_policy p JOIN rel r ON r.oid = p.polrelid";

/// PostgreSQL's own triggers run PostgreSQL's own functions. A partition's copy runs what its table's trigger does.
fn triggers() -> String {
    let (stored, copied) = (otherwise("t.tgqual"), sql::COPIED);
    format!(
        "
    SELECT 'trigger', format('%I on %s', t.tgname, r.name), pg_get_triggerdef(t.oid)
        || CASE t.tgenabled WHEN 'O' THEN '' ELSE ', state ' || t.tgenabled::text END || {stored}
    FROM pg_trigger t JOIN rel r ON r.oid = t.tgrelid
    WHERE (NOT t.tgisinternal OR t.tgfoid >= 16384) AND NOT {copied}"
    )
}

/// Without those that make a view a view.
fn rules() -> String {
    let stored = otherwise("concat(w.ev_qual, w.ev_action)");
    format!(
        "
    SELECT 'rule', format('%I on %s', w.rulename, r.name), 'text ' || md5(pg_get_ruledef(w.oid))
        || CASE w.ev_enabled WHEN 'O' THEN '' ELSE ', state ' || w.ev_enabled::text END || {stored}
    FROM pg_rewrite w JOIN rel r ON r.oid = w.ev_class
    WHERE w.oid >= 16384 AND (w.rulename <> '_RETURN' OR w.ev_type <> '1')"
    )
}

fn functions() -> String {
    let stored = otherwise("concat(p.prosqlbody, p.proargdefaults)");
    format!(
        "
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
        format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
        concat_ws(' ', 'returns ' || pg_get_function_result(p.oid), 'in ' || quote_ident(l.lanname),
            'owned by ' || quote_ident(pg_get_userbyid(p.proowner)), CASE WHEN p.prosecdef THEN 'security definer' END,
            CASE WHEN p.proleakproof THEN 'leakproof' END, CASE WHEN p.proisstrict THEN 'strict' END,
            CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' END,
            CASE WHEN p.prosupport <> 0 THEN 'support ' || p.prosupport::text END,
            (SELECT format('of %s and %s', g.aggtransfn, g.aggfinalfn) FROM pg_aggregate g WHERE g.aggfnoid = p.oid),
            'with ' || p.proconfig::text, 'defaults ' || pg_get_expr(p.proargdefaults, 0),
            'body ' || md5(concat(p.prosrc, p.probin, pg_get_function_sqlbody(p.oid))) || {stored})
    FROM pg_proc p JOIN shared n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE p.oid >= 16384
        AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)"
    )
}

/// What follows from another object is left out: array types, row types of tables, rules of views.
fn objects(modern: bool) -> String {
    let temporary = sql::TEMPORARY;
    let schemas = format!("x.nspname !~ {temporary}");
    let [operators, functions] =
        ["x.amopfamily", "x.amprocfamily"].map(|family| format!("NOT {}", sql::part_of_extended(family)));
    let mut classes: Vec<(&str, &str)> = vec![
        ("pg_operator", "true"),
        ("pg_opclass", "true"),
        ("pg_opfamily", "true"),
        ("pg_amop", &operators),
        ("pg_amproc", &functions),
        ("pg_am", "true"),
        ("pg_cast", "true"),
        ("pg_collation", "true"),
        ("pg_conversion", "true"),
        ("pg_event_trigger", "true"),
        ("pg_foreign_data_wrapper", "true"),
        ("pg_foreign_server", "true"),
        ("pg_language", "true"),
        ("pg_namespace", &schemas),
        ("pg_publication", "true"),
        ("pg_publication_rel", "true"),
        ("pg_statistic_ext", "true"),
        (
            "pg_subscription",
            "x.subdbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())",
        ),
        ("pg_transform", "true"),
        ("pg_ts_config", "true"),
        ("pg_ts_dict", "true"),
        ("pg_ts_parser", "true"),
        ("pg_ts_template", "true"),
        (
            "pg_type",
            "x.typtype <> 'm' AND x.typnamespace IN (SELECT n.oid FROM shared n)
             AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = x.oid AND e.oid = x.typelem)
             AND (x.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = x.typrelid AND c.relkind = 'c'))",
        ),
    ];
    if modern {
        classes.push(("pg_publication_namespace", "true"));
    }
    let all = classes.iter().map(|(class, condition)| {
        format!(
            "SELECT '{class}'::regclass AS class, x.oid FROM {class} x WHERE x.oid >= 16384 AND {condition}"
        )
    });
    let all = all.collect::<Vec<_>>().join(" UNION ALL ");
    format!(
        "SELECT i.type, i.identity, '' FROM ({all}) o, LATERAL pg_identify_object(o.class, o.oid, 0) i
         WHERE NOT EXISTS (SELECT FROM extended e WHERE e.classid = o.class AND e.objid = o.oid)
         UNION ALL
         SELECT 'user mapping', format('for %I on server %I', m.usename, m.srvname), '' FROM pg_user_mappings m"
    )
}

/// The digest is over the members and the bodies of functions among them, however they came to be members.
const EXTENSIONS: &str = "
    SELECT 'extension', quote_ident(e.extname), format('version %s, %s', e.extversion,
        (SELECT format('%s objects, digest %s', count(*), left(md5(string_agg(concat_ws(' ', i.type, i.identity,
            (SELECT concat_ws('/', p.prosrc, p.probin, pg_get_function_sqlbody(p.oid), p.prosecdef, p.proleakproof, p.proconfig::text)
             FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid),
            (SELECT pg_get_viewdef(c.oid) FROM pg_class c
             WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('v', 'm'))),
            ' ' ORDER BY i.type COLLATE \"C\", i.identity COLLATE \"C\")), 12))
         FROM pg_depend d, LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
         WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'))
    FROM pg_extension e WHERE e.oid >= 16384";

/// Modules of the server read them, such as those that mask columns.
const LABELS: &str = "
    SELECT 'security label', format('of %s on %s %s', l.provider, i.type, i.identity), l.label
    FROM pg_seclabel l, LATERAL pg_identify_object(l.classoid, l.objoid, l.objsubid) i
    UNION ALL
    SELECT 'security label', format('of %s on %s %s', l.provider, i.type, i.identity), l.label
    FROM pg_shseclabel l, LATERAL pg_identify_object(l.classoid, l.objoid, 0) i
    WHERE l.classoid <> 'pg_database'::regclass
        OR l.objoid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())";

/// Every role that creates databases may copy a template, rows of all tenants included.
const DATABASE: &str = "
    SELECT 'database', 'this one', 'a template for others'
    FROM pg_database WHERE datname = current_database() AND datistemplate";

/// Grants to the application's roles and to PUBLIC, and those to others apart. Everybody may look into schemas. What
/// an extension granted on its own objects is left out.
fn grants(ours: &str) -> String {
    format!(
        "SELECT CASE WHEN g.grantee = 0 OR pg_get_userbyid(g.grantee) IN ({ours}) THEN 'grant' ELSE 'other grant' END,
            CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END || ' on ' || g.object,
            g.privilege || CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
         FROM (
            SELECT a.grantee, CASE r.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || r.name AS object,
                a.privilege_type AS privilege, a.is_grantable
            FROM rel r, aclexplode(r.relacl) a
            WHERE r.made AND r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 't') AND a.grantee <> r.relowner
            UNION ALL
            SELECT a.grantee, 'TABLE ' || r.name, format('%s (%I)', a.privilege_type, t.attname), a.is_grantable
            FROM rel r JOIN pg_attribute t ON t.attrelid = r.oid AND NOT t.attisdropped, aclexplode(t.attacl) a
            WHERE r.made AND a.grantee <> r.relowner
            UNION ALL
            SELECT a.grantee, format('ROUTINE %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
                a.privilege_type, a.is_grantable
            FROM pg_proc p JOIN shared n ON n.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            WHERE p.oid >= 16384 AND a.grantee <> p.proowner
                AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
            UNION ALL
            SELECT a.grantee, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass::text,
                a.privilege_type, a.is_grantable
            FROM extended e JOIN pg_class c ON c.oid = e.objid, aclexplode(c.relacl) a
            WHERE e.classid = 'pg_class'::regclass AND c.oid >= 16384 AND a.grantee <> c.relowner AND {relation}
            UNION ALL
            SELECT a.grantee, format('ROUTINE %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
                a.privilege_type, a.is_grantable
            FROM extended e JOIN pg_proc p ON p.oid = e.objid JOIN pg_namespace n ON n.oid = p.pronamespace,
                aclexplode(p.proacl) a
            WHERE e.classid = 'pg_proc'::regclass AND p.oid >= 16384 AND a.grantee NOT IN (0, p.proowner) AND {routine}
            UNION ALL
            SELECT a.grantee, format('SCHEMA %I', n.nspname), a.privilege_type, a.is_grantable
            FROM pg_namespace n, aclexplode(n.nspacl) a
            WHERE (n.oid >= 16384 OR n.nspname = 'public') AND a.grantee <> n.nspowner
                AND NOT (a.grantee = 0 AND a.privilege_type = 'USAGE' AND n.nspname !~ {temporary})
            UNION ALL
            SELECT a.grantee, format('TYPE %I.%I', n.nspname, t.typname), a.privilege_type, a.is_grantable
            FROM pg_type t JOIN shared n ON n.oid = t.typnamespace, aclexplode(t.typacl) a
            WHERE t.oid >= 16384 AND a.grantee NOT IN (0, t.typowner)
            UNION ALL
            SELECT a.grantee, format('FOREIGN SERVER %I', s.srvname), a.privilege_type, a.is_grantable
            FROM pg_foreign_server s, aclexplode(s.srvacl) a WHERE a.grantee <> s.srvowner
            UNION ALL
            SELECT a.grantee, format('FOREIGN DATA WRAPPER %I', w.fdwname), a.privilege_type, a.is_grantable
            FROM pg_foreign_data_wrapper w, aclexplode(w.fdwacl) a WHERE a.grantee <> w.fdwowner
            UNION ALL
            SELECT a.grantee, format('LARGE OBJECT %s', o.oid), a.privilege_type, a.is_grantable
            FROM pg_largeobject_metadata o, aclexplode(o.lomacl) a WHERE a.grantee <> o.lomowner
         ) g",
        relation = further("pg_class", "c.oid"),
        routine = further("pg_proc", "p.oid"),
        temporary = sql::TEMPORARY,
    )
}

/// Whether the extension whose object it is did not grant it.
fn further(class: &str, object: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_init_privs i, aclexplode(i.initprivs) b
         WHERE i.classoid = '{class}'::regclass AND i.objoid = {object} AND i.objsubid = 0
         AND b.grantee = a.grantee AND b.privilege_type = a.privilege_type)"
    )
}

const DEFAULT_PRIVILEGES: &str = "
    SELECT 'default privileges', format('of %I on %s%s', pg_get_userbyid(d.defaclrole),
            CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE d.defaclobjtype::text END,
            (SELECT ' in schema ' || quote_ident(n.nspname) FROM pg_namespace n WHERE n.oid = d.defaclnamespace)),
        CASE WHEN a.grantee IS NULL THEN '' WHEN a.grantee = 0 THEN 'PUBLIC ' || a.privilege_type
            ELSE quote_ident(pg_get_userbyid(a.grantee)) || ' ' || a.privilege_type END
    FROM pg_default_acl d LEFT JOIN LATERAL aclexplode(d.defaclacl) a ON true";

/// What the application's roles are, in which roles they are, who is in them, and what is set for them, for all roles or
/// for the database, but for what cannot change which rows a statement touches. Since version 16 a role that makes
/// roles is a member of what it made, in name.
fn roles(ours: &str) -> String {
    format!(
        "SELECT 'role', quote_ident(rolname), concat_ws(' ',
            CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
            CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
            CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
            CASE WHEN rolreplication THEN 'REPLICATION' END)
         FROM pg_roles WHERE rolname IN ({ours})
         UNION ALL
         SELECT CASE WHEN r.rolname IN ({ours}) THEN 'membership' ELSE 'other membership' END,
            format('%I in %I', r.rolname, pg_get_userbyid(m.roleid)),
            CASE WHEN coalesce((to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit) THEN 'inherits'
                WHEN coalesce((to_jsonb(m) ->> 'set_option')::bool, true) THEN 'by SET ROLE' ELSE 'in name' END
            || CASE WHEN m.admin_option THEN ' with admin option' ELSE '' END
         FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
         WHERE r.rolname IN ({ours})
            OR pg_get_userbyid(m.roleid) IN ({ours}) AND NOT r.rolsuper
                AND (NOT r.rolcreaterole OR coalesce((to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit)
                    OR coalesce((to_jsonb(m) ->> 'set_option')::bool, true))
         UNION ALL
         SELECT 'setting', format('%s of %s%s', split_part(one.text, '=', 1),
                CASE WHEN s.setrole = 0 THEN 'all roles' ELSE quote_ident(pg_get_userbyid(s.setrole)) END,
                CASE WHEN s.setdatabase <> 0 THEN ' in this database' END),
            substr(one.text, strpos(one.text, '=') + 1)
         FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) one (text)
         WHERE (s.setdatabase = 0 OR d.datname = current_database())
            AND (s.setrole = 0 OR pg_get_userbyid(s.setrole) IN ({ours})) AND split_part(one.text, '=', 1) !~* {HARMLESS}"
    )
}

/// Settings about time, memory, plans, logs and formats. Those that lose commits in a crash have a check of their own.
const HARMLESS: &str = "'_timeout$|^(application_name|auto_explain[.]|backend_flush|bytea_output|client_connection|client_min|\
    commit_|cpu_|cursor_tuple|datestyle|deadlock|debug_|default_statistics|default_transaction_|effective_|enable_|\
    extra_float|from_collapse|geqo|gin_|hash_mem|huge_|intervalstyle|io_|jit|join_collapse|lc_|log_|logical_decoding_|\
    maintenance_|max_|min_parallel|parallel_|pg_stat_statements[.]|plan_|random_page|recursive_worktable|seq_page|\
    ssl_reneg|statement_|synchronize_|synchronous_commit|tcp_|temp_|timezone|track_|vacuum_|wal_|work_mem)'";
