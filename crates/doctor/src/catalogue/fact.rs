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

/// Everything in the database that no initdb made, and what the application's roles are.
///
/// Objects of an extension are left out, the extension itself is a fact. Partitions are one object, named after
/// their table: they come and go with time. Columns count where an expression or a collation is part of them, and
/// indexes where they are unique or have an expression: others cannot change which rows a query returns.
pub(super) fn facts(options: &Options) -> String {
    let mut parts = vec![
        RELATIONS.to_owned(),
        COLUMNS.to_owned(),
        CONSTRAINTS.to_owned(),
        FOREIGN_KEYS.to_owned(),
        INDEXES.to_owned(),
        POLICIES.to_owned(),
        TRIGGERS.to_owned(),
        FUNCTIONS.to_owned(),
        objects(),
    ];
    let ours: Vec<String> = options.our_roles().map(literal).collect();
    let ours = ours.join(", ");
    parts.push(grants(&ours));
    parts.push(DEFAULT_PRIVILEGES.to_owned());
    parts.push(roles(&ours));
    let parts = parts.join("\nUNION ALL ");
    sql::list(&format!(
        "WITH {OWN} SELECT DISTINCT kind, object, fact FROM ({parts}) facts (kind, object, fact)"
    ))
}

/// The migrations that were applied. The table may be missing, and then cannot be in a statement.
pub(super) const MIGRATIONS: &str =
    "SELECT 'migration' AS kind, version AS object, '' AS fact FROM public.seaql_migrations";

/// Whether the current user can read which migrations were applied.
pub(super) const HAS_MIGRATIONS: &str = "SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.seaql_migrations'), 'SELECT'), false)";

const OWN: &str = "
    extended AS MATERIALIZED (SELECT classid, objid FROM pg_depend
        WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass),
    own AS MATERIALIZED (SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
        WHERE nspname !~ '^pg_(toast|temp)' AND nspname <> 'information_schema'),
    rel AS MATERIALIZED (SELECT c.*, CASE WHEN c.relispartition
            THEN (SELECT format('%I.%I/*', pn.nspname, p.relname)
                  FROM pg_class p JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE p.oid = pg_partition_root(c.oid))
            ELSE format('%I.%I', n.nspname, c.relname) END AS name
        FROM pg_class c JOIN own n ON n.oid = c.relnamespace
        WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM extended e
            WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid))";

const RELATIONS: &str = "
    SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
            WHEN 'S' THEN 'sequence' ELSE 'table' END, name,
        concat_ws(', ', 'owned by ' || quote_ident(pg_get_userbyid(relowner)),
            CASE WHEN relrowsecurity THEN 'row security enabled' END, CASE WHEN relforcerowsecurity THEN 'forced' END,
            CASE WHEN relpersistence <> 'p' THEN 'not permanent' END,
            CASE WHEN relreplident <> 'd' THEN 'replica identity ' || relreplident::text END,
            CASE WHEN relkind IN ('v', 'm') THEN concat_ws(' ', reloptions::text, md5(pg_get_viewdef(oid))) END,
            CASE WHEN NOT relispartition THEN (SELECT 'child of ' || string_agg(inhparent::regclass::text, ' ' ORDER BY inhseqno)
                FROM pg_inherits WHERE inhrelid = rel.oid) END)
    FROM rel WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')";

const COLUMNS: &str = "
    SELECT 'column', r.name || '.' || quote_ident(a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
        CASE a.attgenerated WHEN '' THEN NULL WHEN 's' THEN 'generated' ELSE 'virtual' END,
        CASE WHEN a.attidentity <> '' THEN 'identity' END,
        CASE WHEN a.attcollation NOT IN (0, 100, 950, 951) THEN 'collate ' || a.attcollation::regcollation::text END,
        (SELECT 'default ' || pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
         WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum))
    FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid
    WHERE r.relkind IN ('r', 'p', 'f') AND NOT r.relispartition AND a.attnum > 0 AND NOT a.attisdropped
        AND (a.atthasdef OR a.attidentity <> '' OR a.attcollation NOT IN (0, 100, 950, 951) OR a.atttypid >= 16384)";

const CONSTRAINTS: &str = "
    SELECT 'constraint', format('%I on %s', k.conname, r.name), pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid
    WHERE NOT r.relispartition AND k.contype IN ('c', 'f', 'p', 'u', 'x')";

/// Each key has two triggers on either side, which can be switched off one by one. A partitioned table has them on
/// its partitions.
const FOREIGN_KEYS: &str = "
    SELECT 'foreign key', format('%I on %s', k.conname, r.name),
        CASE WHEN coalesce(bool_and(t.tgenabled = 'O'), r.relkind = 'p') AND (count(t.oid) = 4 OR r.relkind = 'p')
            THEN 'enforced' ELSE format('%s of 4 triggers enabled', count(t.oid) FILTER (WHERE t.tgenabled = 'O')) END
    FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid LEFT JOIN pg_trigger t ON t.tgconstraint = k.oid
    WHERE NOT r.relispartition AND k.contype = 'f' GROUP BY k.oid, k.conname, r.name, r.relkind";

const INDEXES: &str = "
    SELECT 'index', format('%I on %s', x.relname, r.name), pg_get_indexdef(i.indexrelid)
        || CASE WHEN i.indisvalid AND i.indisready AND i.indislive THEN '' ELSE ' NOT VALID' END
    FROM pg_index i JOIN rel r ON r.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
    WHERE NOT r.relispartition AND (i.indisunique OR i.indisexclusion OR i.indexprs IS NOT NULL)";

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

const TRIGGERS: &str = "
    SELECT 'trigger', format('%I on %s', t.tgname, r.name), pg_get_triggerdef(t.oid)
        || CASE t.tgenabled WHEN 'O' THEN '' ELSE ', state ' || t.tgenabled::text END
    FROM pg_trigger t JOIN rel r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal AND t.tgparentid = 0";

const FUNCTIONS: &str = "
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
        format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
        concat_ws(' ', 'returns ' || pg_get_function_result(p.oid), 'in ' || quote_ident(l.lanname),
            'owned by ' || quote_ident(pg_get_userbyid(p.proowner)), CASE WHEN p.prosecdef THEN 'security definer' END,
            CASE WHEN p.proleakproof THEN 'leakproof' END,
            CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' END,
            'with ' || p.proconfig::text, 'body ' || md5(concat(p.prosrc, p.probin, p.prosqlbody)))
    FROM pg_proc p JOIN own n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE p.oid >= 16384
        AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)";

/// What follows from another object is left out: array types, row types of tables, rules of views.
fn objects() -> String {
    const CLASSES: &[(&str, &str)] = &[
        ("pg_operator", "true"),
        ("pg_opclass", "true"),
        ("pg_opfamily", "true"),
        ("pg_amop", "true"),
        ("pg_amproc", "true"),
        ("pg_am", "true"),
        ("pg_cast", "true"),
        ("pg_collation", "true"),
        ("pg_conversion", "true"),
        ("pg_event_trigger", "true"),
        ("pg_extension", "true"),
        ("pg_foreign_data_wrapper", "true"),
        ("pg_foreign_server", "true"),
        ("pg_language", "true"),
        ("pg_namespace", "x.nspname !~ '^pg_(toast|temp)'"),
        ("pg_publication", "true"),
        ("pg_rewrite", "x.rulename <> '_RETURN'"),
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
            "x.typtype <> 'm' AND NOT (x.typcategory = 'A' AND x.typelem <> 0)
             AND (x.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = x.typrelid AND c.relkind = 'c'))",
        ),
    ];
    let all = CLASSES.iter().map(|(class, condition)| {
        format!(
            "SELECT '{class}'::regclass AS class, x.oid FROM {class} x WHERE x.oid >= 16384 AND {condition}"
        )
    });
    let all = all.collect::<Vec<_>>().join(" UNION ALL ");
    format!(
        "SELECT i.type, i.identity, '' FROM ({all}) o, LATERAL pg_identify_object(o.class, o.oid, 0) i
         WHERE NOT EXISTS (SELECT FROM extended e WHERE e.classid = o.class AND e.objid = o.oid)"
    )
}

/// Grants to the application's roles and to PUBLIC, and those to others apart. Everybody may look into schemas.
fn grants(ours: &str) -> String {
    format!(
        "SELECT CASE WHEN g.grantee = 0 OR pg_get_userbyid(g.grantee) IN ({ours}) THEN 'grant' ELSE 'other grant' END,
            CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END || ' on ' || g.object,
            g.privilege || CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
         FROM (
            SELECT a.grantee, CASE r.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || r.name AS object,
                a.privilege_type AS privilege, a.is_grantable
            FROM rel r, aclexplode(r.relacl) a WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND a.grantee <> r.relowner
            UNION ALL
            SELECT a.grantee, 'TABLE ' || r.name, format('%s (%I)', a.privilege_type, t.attname), a.is_grantable
            FROM rel r JOIN pg_attribute t ON t.attrelid = r.oid AND NOT t.attisdropped, aclexplode(t.attacl) a
            WHERE a.grantee <> r.relowner
            UNION ALL
            SELECT a.grantee, format('ROUTINE %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
                a.privilege_type, a.is_grantable
            FROM pg_proc p JOIN own n ON n.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
            WHERE p.oid >= 16384 AND a.grantee <> p.proowner
                AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
            UNION ALL
            SELECT a.grantee, format('SCHEMA %I', n.nspname), a.privilege_type, a.is_grantable
            FROM own n, aclexplode(n.nspacl) a WHERE n.nspname <> 'pg_catalog' AND a.grantee <> n.nspowner
                AND NOT (a.grantee = 0 AND a.privilege_type = 'USAGE')
            UNION ALL
            SELECT a.grantee, format('TYPE %I.%I', n.nspname, t.typname), a.privilege_type, a.is_grantable
            FROM pg_type t JOIN own n ON n.oid = t.typnamespace, aclexplode(t.typacl) a
            WHERE t.oid >= 16384 AND a.grantee NOT IN (0, t.typowner)
         ) g"
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

/// What the application's roles are, in which roles they are, and what is set for them, for all roles or for the
/// database, but for what cannot change which rows a statement touches.
fn roles(ours: &str) -> String {
    format!(
        "SELECT 'role', quote_ident(rolname), concat_ws(' ',
            CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
            CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
            CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
            CASE WHEN rolreplication THEN 'REPLICATION' END)
         FROM pg_roles WHERE rolname IN ({ours})
         UNION ALL
         SELECT 'membership', format('%I in %I', r.rolname, pg_get_userbyid(m.roleid)),
            CASE WHEN coalesce((to_jsonb(m) ->> 'inherit_option')::bool, r.rolinherit) THEN 'inherits' ELSE 'by SET ROLE' END
            || CASE WHEN m.admin_option THEN ' with admin option' ELSE '' END
         FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname IN ({ours})
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

/// Settings about time, memory, plans, logs and formats.
const HARMLESS: &str = "'_timeout$|^(application_name|auto_explain[.]|backend_flush|bytea_output|client_connection|client_min|\
    commit_|cpu_|cursor_tuple|datestyle|deadlock|debug_|default_statistics|default_transaction_|effective_|enable_|\
    extra_float|from_collapse|geqo|gin_|hash_mem|huge_|intervalstyle|io_|jit|join_collapse|lc_|log_|logical_decoding_|\
    maintenance_|max_|min_parallel|parallel_|pg_stat_statements[.]|plan_|random_page|recursive_worktable|seq_page|\
    ssl_reneg|statement_|synchronize_|synchronous_commit|tcp_|temp_|timezone|track_|vacuum_|wal_|work_mem)'";
