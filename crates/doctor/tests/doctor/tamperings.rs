//! Ways to open the isolation of Tenantry's own database, each with checks that have to notice.

use std::collections::BTreeSet;

use tenantry_doctor::{Outcome, guard, record};

use crate::support::{Database, ROLES, assert_clean, expecting, failed, run};

/// One change, made as a superuser.
pub struct Tampering {
    /// Checks that fail, perhaps among others.
    pub fails: &'static [&'static str],
    pub sql: &'static str,
    /// What undoes it, where it is not about one database.
    pub undo: &'static str,
}

/// Makes a stored expression always true while its text stays the same. `boolge` is marked as a cast, of which the first argument
/// alone is written; the second one is false.
macro_rules! always_true {
    ($table:literal, $column:literal, $which:literal) => {
        concat!(
            "SET allow_system_table_mods = on; CREATE CAST (text AS pg_node_tree) WITHOUT FUNCTION; UPDATE ",
            $table,
            " SET ",
            $column,
            " = ('{FUNCEXPR :funcid 1692 :funcresulttype 16 :funcretset false :funcvariadic false :funcformat 2 \
             :funccollid 0 :inputcollid 0 :args (' || ",
            $column,
            "::text || ' {CONST :consttype 16 :consttypmod -1 :constcollid 0 :constlen 1 :constbyval true \
             :constisnull false :location -1 :constvalue 1 [ 0 0 0 0 0 0 0 0 ]}) :location -1}')::pg_node_tree WHERE ",
            $which,
            "; DROP CAST (text AS pg_node_tree)"
        )
    };
}

const fn guarded(fails: &'static [&'static str], sql: &'static str) -> Tampering {
    Tampering { fails, sql, undo: "" }
}

const fn everywhere(fails: &'static [&'static str], sql: &'static str, undo: &'static str) -> Tampering {
    Tampering {
        undo,
        ..guarded(fails, sql)
    }
}

/// `{database}` stands for the database, `{unknown}` for a migration that no version has, `{leak}` for a function `leak(text)` that tells its argument, `{victim}` for a
/// function from text to the id of another tenant.
pub const TAMPERINGS: &[Tampering] = &[
    // What policies and queries mean.
    guarded(
        &["SYS003", "CAT006", "CAT007"],
        "{victim}; CREATE CAST (text AS uuid) WITH FUNCTION public.victim(text)",
    ),
    guarded(
        &["SYS003", "CAT006"],
        "{victim}; CREATE CAST (text AS uuid) WITH FUNCTION public.victim(text); ALTER POLICY tasks_select ON tasks \
         USING (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid); \
         ALTER FUNCTION public.victim(text) RENAME TO victim2; \
         SET allow_system_table_mods = on; DELETE FROM pg_cast WHERE oid >= 16384",
    ),
    guarded(
        &["SYS003", "CAT007"],
        "CREATE FUNCTION public.same(uuid, uuid) RETURNS bool LANGUAGE sql AS 'SELECT true'; \
         CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = uuid, RIGHTARG = uuid)",
    ),
    guarded(
        &["SYS003", "CAT003", "CAT007"],
        "CREATE FUNCTION public.order_of(uuid, uuid) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0'; \
         CREATE OPERATOR CLASS public.loose FOR TYPE uuid USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, \
             OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 public.order_of(uuid, uuid); \
         CREATE UNIQUE INDEX loose_idx ON tasks (tenant_id public.loose, id)",
    ),
    guarded(
        &["SYS003", "CAT007"],
        "CREATE FUNCTION public.order_of(int4, uuid) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0'; \
         ALTER OPERATOR FAMILY integer_ops USING btree ADD FUNCTION 1 (int4, uuid) public.order_of(int4, uuid)",
    ),
    guarded(
        &["SYS003", "CAT007"],
        "CREATE DEFAULT CONVERSION public.odd FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    ),
    guarded(
        &["SYS003", "CAT006"],
        "CREATE FUNCTION pg_catalog.lower(uuid) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
    ),
    guarded(
        &["CAT006"],
        "CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
    ),
    guarded(
        &["CAT003", "CAT007"],
        "CREATE COLLATION public.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
         ALTER TABLE plan_versions ADD COLUMN note text COLLATE public.loose",
    ),
    guarded(&["CAT007"], "CREATE DOMAIN public.tenant_ref AS uuid"),
    // The text of these stays the same.
    guarded(
        &["SYS003"],
        always_true!("pg_policy", "polqual", "polname = 'tasks_select'"),
    ),
    guarded(
        &["CAT003"],
        always_true!("pg_constraint", "conbin", "conname = 'tasks_version_check'"),
    ),
    guarded(
        &["CAT006"],
        always_true!("pg_trigger", "tgqual", "tgname = 'tenants_names_update'"),
    ),
    guarded(
        &["SYS003"],
        "SET allow_system_table_mods = on; CREATE CAST (text AS pg_node_tree) WITHOUT FUNCTION; \
         UPDATE pg_policy SET polqual = replace(polqual::text, ':opfuncid 2956 ', ':opfuncid 2957 ')::pg_node_tree \
         WHERE polname = 'tasks_select'; DROP CAST (text AS pg_node_tree)",
    ),
    guarded(
        &["SYS003"],
        "SET allow_system_table_mods = on; CREATE CAST (text AS pg_node_tree) WITHOUT FUNCTION; \
         UPDATE pg_policy SET polqual = replace(polqual::text, ':varattno 1 ', ':varattno 2 ')::pg_node_tree \
         WHERE polname = 'tasks_select'; DROP CAST (text AS pg_node_tree)",
    ),
    // PostgreSQL's own objects.
    guarded(
        &["SYS001"],
        "ALTER FUNCTION pg_catalog.int4div(int, int) LEAKPROOF",
    ),
    guarded(
        &["SYS001"],
        "CREATE OR REPLACE FUNCTION pg_catalog.int4div(int, int) RETURNS int LANGUAGE internal IMMUTABLE STRICT \
         PARALLEL SAFE AS 'int4pl'",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; UPDATE pg_proc SET prosrc = 'uuid_ne' WHERE proname = 'uuid_eq'",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; UPDATE pg_cast SET castcontext = 'i' \
         WHERE castsource = 'int8'::regtype AND casttarget = 'int4'::regtype",
    ),
    guarded(&["SYS001"], "ALTER OPERATOR = (uuid, uuid) SET (RESTRICT = NONE)"),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; ALTER VIEW pg_catalog.pg_stats SET (security_barrier = false)",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_group AS \
         SELECT rolpassword::name AS groname, oid AS grosysid, ARRAY[]::oid[] AS grolist FROM pg_authid",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; UPDATE pg_class SET relowner = 'tenantry_platform'::regrole \
         WHERE relname = 'pg_statistic'",
    ),
    guarded(
        &["SYS004"],
        "SET allow_system_table_mods = on; UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'c'",
    ),
    guarded(
        &["SYS001", "CAT006"],
        "CREATE FUNCTION public.h() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'; \
         SET allow_system_table_mods = on; \
         UPDATE pg_language SET lanplcallfoid = 'public.h'::regproc WHERE lanname = 'plpgsql'",
    ),
    guarded(
        &["SYS001", "CAT006"],
        "CREATE FUNCTION public.written(uuid) RETURNS cstring LANGUAGE internal AS 'uuid_out'; \
         SET allow_system_table_mods = on; GRANT USAGE ON TYPE uuid TO tenantry_app; \
         UPDATE pg_type SET typoutput = 'public.written'::regproc WHERE typname = 'uuid'",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; \
         UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'ucs_basic'",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; UPDATE pg_language SET lanvalidator = 2246 WHERE lanname = 'plpgsql'",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; UPDATE pg_conversion SET condefault = false \
         WHERE conname = 'iso_8859_1_to_utf8'",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; UPDATE pg_range SET rngcanonical = 0 WHERE rngtypid = 'int4range'::regtype",
    ),
    guarded(
        &["SYS001"],
        "SET allow_system_table_mods = on; UPDATE pg_ts_config_map SET mapdict = 'simple'::regdictionary \
         WHERE mapcfg = 'english'::regconfig",
    ),
    // Grants on the system.
    guarded(&["SYS002"], "GRANT SELECT ON pg_statistic TO tenantry_app"),
    guarded(
        &["SYS002"],
        "GRANT SELECT (stavalues1) ON pg_statistic TO tenantry_app",
    ),
    guarded(
        &["SYS002"],
        "GRANT SELECT (rolname, rolpassword) ON pg_authid TO tenantry_platform",
    ),
    guarded(&["SYS002"], "GRANT SELECT ON pg_authid TO PUBLIC"),
    guarded(
        &["SYS002"],
        "GRANT SELECT ON pg_largeobject, pg_user_mapping TO tenantry_app",
    ),
    guarded(&["SYS002"], "GRANT CREATE ON SCHEMA pg_catalog TO tenantry_app"),
    guarded(
        &["SYS002"],
        "GRANT EXECUTE ON FUNCTION pg_ls_logdir() TO tenantry_app",
    ),
    guarded(
        &["EXT002"],
        "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO tenantry_platform",
    ),
    // Functions and triggers.
    guarded(
        &["FUN006", "CAT006"],
        "CREATE FUNCTION public.f(text) RETURNS bool LANGUAGE sql LEAKPROOF AS 'SELECT true'",
    ),
    guarded(
        &["TRG002", "CAT006"],
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_notify('rows', NEW.title); RETURN NEW; END $$; \
         CREATE TRIGGER tells AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION public.f()",
    ),
    guarded(
        &["FUN003", "CAT006"],
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS \
             $$ BEGIN EXECUTE 'GRANT SELECT ON operators TO tenantry_app'; RETURN NEW; END $$; \
         CREATE TRIGGER grants AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION public.f()",
    ),
    guarded(
        &["TRG003", "CAT006"],
        "CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS \
             $$ BEGIN EXECUTE 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO tenantry_app'; END $$; \
         CREATE EVENT TRIGGER grants ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.f()",
    ),
    guarded(&["TRG001", "CAT003"], "ALTER TABLE tasks DISABLE TRIGGER ALL"),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_trigger SET tgtype = 32 \
         WHERE tgrelid = 'tasks'::regclass AND tgfoid = 1644",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_trigger SET tgconstrrelid = 'users'::regclass \
         WHERE tgrelid = 'tasks'::regclass AND tgfoid = 1644",
    ),
    // Rows of the table that refers are no longer checked.
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_trigger SET tgrelid = 'idempotency_keys'::regclass \
         WHERE tgrelid = 'tasks'::regclass AND tgfoid = 1644",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_partitioned_table SET partdefid = 'tasks'::regclass",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_trigger SET tgattr = '1' \
         WHERE tgrelid = 'tasks'::regclass AND tgfoid = 1645",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_index SET indimmediate = false \
         WHERE indexrelid = 'tenants_slug_key'::regclass",
    ),
    guarded(
        &["VIEW004"],
        "CREATE RULE r AS ON UPDATE TO tasks DO ALSO UPDATE operators SET email = 'x@example.com'; \
         ALTER RULE r ON tasks RENAME TO \"_RETURN\"",
    ),
    guarded(
        &["TRG001", "CAT003"],
        "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE tasks DISABLE TRIGGER %I', tgname) FROM pg_trigger \
             WHERE tgrelid = 'tasks'::regclass AND tgisinternal LIMIT 1); END $$",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; DELETE FROM pg_trigger WHERE oid = (SELECT min(oid) FROM pg_trigger \
             WHERE tgrelid = 'tasks'::regclass AND tgisinternal)",
    ),
    guarded(
        &["CAT006"],
        "CREATE RULE silent AS ON DELETE TO audit_events DO INSTEAD NOTHING",
    ),
    guarded(
        &["FUN002", "CAT005"],
        "GRANT EXECUTE ON FUNCTION usage_events_partitions TO tenantry_app",
    ),
    guarded(
        &["FUN001", "CAT006"],
        "ALTER FUNCTION usage_events_partitions RESET search_path",
    ),
    guarded(
        &["CAT006"],
        "CREATE OR REPLACE FUNCTION usage_events_partitions(before integer, after integer) RETURNS integer \
         LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS \
         $$ BEGIN GRANT SELECT ON public.tasks TO tenantry_platform; RETURN 0; END $$",
    ),
    // Tables.
    guarded(
        &["TEN002", "CAT003"],
        "CREATE TABLE public.forgotten (id uuid PRIMARY KEY)",
    ),
    guarded(
        &["CAT003"],
        "ALTER TABLE tasks DROP CONSTRAINT tasks_project_id_fkey",
    ),
    guarded(
        &["CAT003"],
        "{leak}; ALTER TABLE tasks ALTER title SET DEFAULT public.leak('x')",
    ),
    guarded(
        &["CAT003"],
        "{leak}; ALTER TABLE tasks ADD CHECK (public.leak(title) <> '')",
    ),
    guarded(
        &["CAT003"],
        "{leak}; CREATE INDEX telling_idx ON tasks (tenant_id, public.leak(title))",
    ),
    guarded(
        &["KEY003", "CAT003"],
        "CREATE UNIQUE INDEX titles ON tasks (title)",
    ),
    guarded(
        &["CAT003"],
        "ALTER TABLE tasks ALTER title TYPE text COLLATE \"C\"",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_attribute SET atthasdef = false \
         WHERE attrelid = 'projects'::regclass AND attname = 'view_count'",
    ),
    guarded(&["CAT003"], "ALTER TABLE tasks OWNER TO postgres"),
    guarded(&["CAT003"], "ALTER TABLE tasks REPLICA IDENTITY FULL"),
    guarded(
        &["VIEW001", "CAT003"],
        "CREATE VIEW public.all_tasks AS SELECT * FROM tasks",
    ),
    guarded(
        &["CAT003"],
        "CREATE MATERIALIZED VIEW public.copied AS SELECT count(*) FROM operators",
    ),
    guarded(
        &["RLS009", "CAT003"],
        "ALTER TABLE usage_events_default NO FORCE ROW LEVEL SECURITY",
    ),
    guarded(
        &["RLS002", "CAT003"],
        "ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY",
    ),
    // Policies.
    guarded(
        &["CAT004"],
        "CREATE POLICY open ON tasks FOR SELECT TO tenantry_platform USING (true)",
    ),
    guarded(
        &["RLS005", "CAT004"],
        "CREATE POLICY open ON tasks FOR SELECT USING (true)",
    ),
    guarded(
        &["CAT004"],
        "ALTER POLICY jobs_platform_update ON jobs USING (true) WITH CHECK (true)",
    ),
    guarded(&["RLS003", "CAT004"], "DROP POLICY tasks_delete ON tasks"),
    // Grants.
    guarded(&["CAT005"], "GRANT SELECT ON operators TO tenantry_app"),
    guarded(
        &["CAT005"],
        "GRANT SELECT (password_hash) ON operators TO tenantry_app",
    ),
    guarded(
        &["CAT005"],
        "GRANT SELECT (of_tenant) ON provider_customers TO tenantry_app",
    ),
    guarded(&["CAT005"], "GRANT INSERT ON provider_events TO tenantry_app"),
    guarded(
        &["CAT005"],
        "GRANT UPDATE, DELETE ON audit_events TO tenantry_app",
    ),
    guarded(
        &["CAT005"],
        "GRANT DELETE ON operator_events TO tenantry_platform",
    ),
    guarded(
        &["CAT005"],
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO tenantry_platform",
    ),
    guarded(&["CAT005"], "GRANT SELECT (payload) ON jobs TO tenantry_platform"),
    guarded(
        &["CAT005"],
        "GRANT SELECT ON tasks TO tenantry_app WITH GRANT OPTION",
    ),
    guarded(
        &["CAT005"],
        "GRANT SELECT ON usage_events_default TO tenantry_app",
    ),
    guarded(
        &["GRANT003", "CAT005"],
        "GRANT TRUNCATE ON tasks TO tenantry_platform",
    ),
    guarded(
        &["GRANT001", "CAT005"],
        "GRANT CREATE ON SCHEMA public TO tenantry_platform",
    ),
    guarded(&["GRANT006", "CAT005"], "GRANT SELECT ON plan_versions TO PUBLIC"),
    guarded(
        &["GRANT009", "CAT005"],
        "ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner GRANT ALL ON TABLES TO tenantry_app",
    ),
    guarded(
        &["CAT005"],
        "ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner GRANT SELECT ON TABLES TO tenantry_platform",
    ),
    guarded(&["CAT010"], "GRANT SELECT ON tasks TO pg_monitor"),
    // What reaches elsewhere.
    guarded(
        &["PUB001", "CAT009"],
        "CREATE PUBLICATION elsewhere FOR TABLE tasks",
    ),
    guarded(
        &["SUB001", "CAT009"],
        "CREATE SUBSCRIPTION from_{database} CONNECTION 'dbname=nowhere' PUBLICATION rows WITH (connect = false)",
    ),
    guarded(&["CAT009"], "CREATE FOREIGN DATA WRAPPER elsewhere"),
    guarded(&["EXT004", "CAT010"], "CREATE EXTENSION pg_stat_statements"),
    guarded(&["EXT001", "CAT010"], "CREATE EXTENSION dblink"),
    guarded(&["CAT010"], "CREATE SCHEMA reports"),
    guarded(
        &["EXT003", "CAT005", "CAT009"],
        "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER there FOREIGN DATA WRAPPER elsewhere; \
         CREATE USER MAPPING FOR PUBLIC SERVER there; GRANT USAGE ON FOREIGN SERVER there TO tenantry_app",
    ),
    guarded(&["CAT009"], "ALTER DATABASE {database} IS_TEMPLATE true"),
    // Schemas of PostgreSQL's own.
    guarded(
        &["FUN002", "CAT006"],
        "CREATE FUNCTION information_schema.f() RETURNS SETOF public.tasks LANGUAGE sql SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM public.tasks'",
    ),
    guarded(
        &["VIEW001", "CAT003"],
        "CREATE VIEW information_schema.all_tasks AS SELECT * FROM public.tasks; \
         GRANT SELECT ON information_schema.all_tasks TO tenantry_app",
    ),
    guarded(
        &["CAT006"],
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; \
         CREATE TRIGGER tells AFTER INSERT ON information_schema.sql_features EXECUTE FUNCTION public.f()",
    ),
    guarded(
        &["CAT003", "CAT006"],
        "{leak}; ALTER DOMAIN information_schema.yes_or_no ADD CHECK (public.leak(VALUE::text) <> '')",
    ),
    guarded(
        &["FUN002", "CAT006"],
        "CREATE FUNCTION pg_toast.f() RETURNS SETOF public.tasks LANGUAGE sql SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM public.tasks'",
    ),
    guarded(
        &["CAT005"],
        "GRANT USAGE ON SCHEMA pg_toast TO tenantry_app; DO $$ BEGIN EXECUTE format('GRANT SELECT ON %s TO tenantry_app', \
         (SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'tasks'::regclass)); END $$",
    ),
    guarded(
        &["VIEW001", "CAT003", "CAT010"],
        "SET allow_system_table_mods = on; CREATE SCHEMA pg_toast_mine; \
         CREATE VIEW pg_toast_mine.all_tasks AS SELECT * FROM public.tasks; \
         GRANT SELECT ON pg_toast_mine.all_tasks TO tenantry_app",
    ),
    guarded(
        &["FUN002", "CAT006", "CAT010"],
        "SET allow_system_table_mods = on; CREATE SCHEMA pg_temp_mine; \
         CREATE FUNCTION pg_temp_mine.f() RETURNS SETOF public.tasks LANGUAGE sql SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM public.tasks'",
    ),
    guarded(
        &["CAT005"],
        "CREATE TEMP TABLE t (); DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %s TO tenantry_app', \
         pg_my_temp_schema()::regnamespace); END $$",
    ),
    guarded(
        &["VIEW001", "CAT003"],
        "SET allow_system_table_mods = on; CREATE VIEW pg_catalog.all_tasks AS SELECT * FROM public.tasks; \
         GRANT SELECT ON pg_catalog.all_tasks TO tenantry_app",
    ),
    guarded(
        &["SYS002"],
        "SET allow_system_table_mods = on; GRANT SELECT ON pg_authid TO tenantry_app; UPDATE pg_init_privs \
         SET initprivs = (SELECT relacl FROM pg_class WHERE relname = 'pg_authid') WHERE objoid = 'pg_authid'::regclass",
    ),
    // Objects that pass for an extension's.
    guarded(
        &["FUN002", "CAT006"],
        "CREATE FUNCTION public.f() RETURNS SETOF public.tasks LANGUAGE sql SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM public.tasks'; \
         ALTER EXTENSION plpgsql ADD FUNCTION public.f()",
    ),
    guarded(
        &["TEN002", "CAT003"],
        "CREATE TABLE public.forgotten (id uuid PRIMARY KEY); ALTER EXTENSION plpgsql ADD TABLE public.forgotten",
    ),
    guarded(
        &["VIEW001", "CAT003", "CAT005"],
        "CREATE VIEW public.all_tasks AS SELECT * FROM tasks; GRANT SELECT ON public.all_tasks TO tenantry_app; \
         ALTER EXTENSION plpgsql ADD VIEW public.all_tasks",
    ),
    guarded(
        &["SYS003", "CAT006", "CAT007"],
        "{victim}; CREATE CAST (text AS uuid) WITH FUNCTION public.victim(text); \
         ALTER EXTENSION plpgsql ADD FUNCTION public.victim(text); ALTER EXTENSION plpgsql ADD CAST (text AS uuid)",
    ),
    guarded(
        &["SYS003", "CAT007"],
        "CREATE FUNCTION public.same(uuid, uuid) RETURNS bool LANGUAGE sql AS 'SELECT true'; \
         CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = uuid, RIGHTARG = uuid); \
         ALTER EXTENSION plpgsql ADD OPERATOR public.= (uuid, uuid)",
    ),
    guarded(
        &["TRG003", "CAT006"],
        "CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; \
         CREATE EVENT TRIGGER grants ON ddl_command_end EXECUTE FUNCTION public.f(); \
         ALTER EXTENSION plpgsql ADD EVENT TRIGGER grants",
    ),
    // What is in no other comparison.
    guarded(&["CAT003"], "ALTER TABLE tasks ADD COLUMN further text"),
    guarded(&["CAT003"], "ALTER TABLE tasks ALTER title DROP NOT NULL"),
    guarded(
        &["CAT003"],
        "{leak}; CREATE INDEX telling_idx ON tasks (tenant_id) WHERE public.leak(title) <> ''",
    ),
    guarded(
        &["CAT003"],
        "{leak}; ALTER TABLE usage_events_default ADD CHECK (public.leak(meter) <> '')",
    ),
    guarded(
        &["CAT003"],
        "{leak}; CREATE INDEX telling_idx ON usage_events_default (tenant_id, public.leak(meter))",
    ),
    guarded(
        &["CAT003", "CAT007"],
        "CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler; \
         ALTER TABLE tasks SET ACCESS METHOD other",
    ),
    guarded(
        &["CAT006"],
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; \
         CREATE TRIGGER hidden AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION public.f(); \
         SET allow_system_table_mods = on; UPDATE pg_trigger SET tgisinternal = true WHERE tgname = 'hidden'",
    ),
    guarded(
        &["CAT007"],
        "SET allow_system_table_mods = on; \
         INSERT INTO pg_seclabel VALUES ('tasks'::regclass, 'pg_class'::regclass, 0, 'masks', 'everything')",
    ),
    guarded(
        &["CAT005"],
        "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC",
    ),
    guarded(
        &["ROLE006"],
        "SELECT lo_create(4711); ALTER LARGE OBJECT 4711 OWNER TO tenantry_app",
    ),
    guarded(
        &["ROLE006"],
        "SELECT lo_create(4711); ALTER LARGE OBJECT 4711 OWNER TO tenantry_platform",
    ),
    guarded(
        &["CAT006", "FUN003", "TRG002"],
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS \
             $$ BEGIN PERFORM pg_notify('rows', NEW.title); RETURN NEW; END $$; \
         CREATE TRIGGER copied AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION public.f(); \
         SET allow_system_table_mods = on; \
         UPDATE pg_trigger SET tgparentid = (SELECT oid FROM pg_trigger WHERE tgname = 'tenants_names_update') \
         WHERE tgname = 'copied'",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; \
         INSERT INTO pg_inherits VALUES ('usage_events_default'::regclass, 'tasks'::regclass, 2, false)",
    ),
    guarded(
        &["CAT003"],
        "{leak}; ALTER TABLE usage_events_default ALTER meter SET DEFAULT public.leak('x')",
    ),
    guarded(
        &["SET003", "CAT008"],
        "ALTER DATABASE {database} SET plpgsql.variable_conflict = use_variable",
    ),
    guarded(
        &["GRANT001"],
        "GRANT CREATE ON DATABASE {database} TO tenantry_platform",
    ),
    guarded(
        &["GRANT002"],
        "GRANT TEMPORARY ON DATABASE {database} TO tenantry_platform",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_class SET relhastriggers = false WHERE oid = 'tasks'::regclass",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_class SET relhasindex = false WHERE oid = 'tasks'::regclass",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_class SET relchecks = 0 WHERE oid = 'billing_accounts'::regclass",
    ),
    guarded(
        &["CAT003"],
        "SET allow_system_table_mods = on; UPDATE pg_constraint SET conpfeqop = array_fill( \
             (SELECT oid FROM pg_operator WHERE oprname = '<>' AND oprleft = 'uuid'::regtype), ARRAY[cardinality(conpfeqop)]) \
         WHERE conname = 'tasks_project_id_fkey'",
    ),
    // Migrations.
    guarded(
        &["CAT002", "CAT005"],
        "{unknown}; GRANT SELECT ON operators TO tenantry_app",
    ),
    guarded(
        &["CAT002", "CAT004"],
        "{unknown}; CREATE POLICY open ON tasks FOR SELECT TO tenantry_platform USING (true)",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; ALTER TABLE tasks OWNER TO postgres",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; ALTER TABLE tasks DROP CONSTRAINT tasks_project_id_fkey",
    ),
    guarded(
        &["CAT002", "CAT006"],
        "{unknown}; CREATE RULE silent AS ON DELETE TO audit_events DO INSTEAD NOTHING",
    ),
    guarded(
        &["CAT002", "CAT006"],
        "{unknown}; CREATE FUNCTION information_schema.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ),
    guarded(
        &["CAT002", "CAT007"],
        "{unknown}; CREATE CAST (text AS uuid) WITH INOUT AS ASSIGNMENT",
    ),
    guarded(
        &["CAT002", "CAT009"],
        "{unknown}; CREATE PUBLICATION elsewhere FOR TABLE tasks",
    ),
    guarded(&["CAT002", "CAT010"], "{unknown}; CREATE EXTENSION dblink"),
    guarded(
        &["CAT002", "CAT003", "CAT005"],
        "{unknown}; CREATE VIEW public.g AS SELECT email, password_hash FROM operators; \
         ALTER VIEW public.g OWNER TO tenantry_owner; GRANT SELECT ON public.g TO tenantry_app",
    ),
    guarded(
        &["CAT002", "CAT003", "CAT005"],
        "{unknown}; CREATE VIEW public.g AS SELECT * FROM operators; GRANT SELECT (email) ON public.g TO tenantry_platform",
    ),
    guarded(
        &["CAT002", "CAT003", "CAT005"],
        "{unknown}; CREATE MATERIALIZED VIEW public.g AS SELECT * FROM tasks; GRANT SELECT ON public.g TO PUBLIC",
    ),
    guarded(
        &["CAT002", "CAT005", "CAT006"],
        "{unknown}; CREATE FUNCTION public.f() RETURNS SETOF tasks LANGUAGE sql SECURITY DEFINER \
         SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM public.tasks'; \
         REVOKE ALL ON FUNCTION public.f() FROM PUBLIC; GRANT EXECUTE ON FUNCTION public.f() TO tenantry_platform",
    ),
    guarded(
        &["CAT002", "CAT006"],
        "{unknown}; CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
    ),
    guarded(
        &["CAT002", "CAT006"],
        "{unknown}; CREATE FUNCTION public.usage_events_partitions(bigint, bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; ALTER TABLE tasks ADD CHECK (set_config('app.current_tenant', title, true) IS NOT NULL)",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; ALTER TABLE tasks ADD CHECK (title <> 'x')",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; ALTER TABLE tasks ADD further text DEFAULT set_config('app.current_tenant', '', true)",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; {leak}; CREATE INDEX further_idx ON tasks (tenant_id, public.leak(title))",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; CREATE UNIQUE INDEX further_idx ON tasks (title)",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; ALTER TABLE tasks ADD further uuid UNIQUE",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; CREATE TABLE public.more () INHERITS (tasks)",
    ),
    guarded(
        &["CAT002", "CAT007"],
        "{unknown}; CREATE DOMAIN public.switch AS text DEFAULT set_config('app.current_tenant', '', true)",
    ),
    guarded(
        &["CAT002", "CAT003"],
        "{unknown}; CREATE DOMAIN public.switch AS text CHECK (set_config('app.current_tenant', VALUE, true) IS NOT NULL)",
    ),
    guarded(
        &["CAT001", "CAT005"],
        "DELETE FROM seaql_migrations WHERE version LIKE '%jobs'; GRANT SELECT ON operators TO tenantry_app",
    ),
    guarded(
        &["CAT001"],
        "DELETE FROM seaql_migrations WHERE version LIKE '%jobs'",
    ),
    guarded(&["CAT001"], "ALTER TABLE seaql_migrations RENAME TO other"),
    guarded(
        &["CAT002"],
        "INSERT INTO seaql_migrations VALUES ('m20990101_000001_odd', 0)",
    ),
    // Settings of the database.
    guarded(
        &["SET003", "CAT008"],
        "ALTER DATABASE {database} SET session_replication_role = replica",
    ),
    guarded(
        &["SET004", "CAT008"],
        "CREATE SCHEMA evil; GRANT CREATE ON SCHEMA evil TO pg_monitor; \
         ALTER ROLE tenantry_app IN DATABASE {database} SET search_path = evil, public",
    ),
    guarded(
        &["SET004", "CAT008"],
        "ALTER ROLE tenantry_app IN DATABASE {database} SET search_path = pg_temp, public",
    ),
    guarded(
        &["SET004", "CAT008"],
        "ALTER ROLE tenantry_platform IN DATABASE {database} SET search_path = public, pg_catalog",
    ),
    guarded(
        &["SET003", "CAT008"],
        "ALTER ROLE tenantry_app IN DATABASE {database} SET standard_conforming_strings = off",
    ),
    guarded(
        &["SET003", "CAT008"],
        "ALTER ROLE tenantry_platform IN DATABASE {database} SET transform_null_equals = on",
    ),
    guarded(
        &["SET002", "CAT008"],
        "ALTER ROLE tenantry_platform IN DATABASE {database} SET app.current_tenant = 'somebody'",
    ),
];

/// Roles are the whole cluster's.
pub const ROLE_TAMPERINGS: &[Tampering] = &[
    everywhere(
        &["ROLE002", "CAT008", "CAT005"],
        "ALTER ROLE tenantry_platform BYPASSRLS; GRANT SELECT ON ALL TABLES IN SCHEMA public TO tenantry_platform",
        "ALTER ROLE tenantry_platform NOBYPASSRLS",
    ),
    everywhere(
        &["ROLE001", "CAT008"],
        "ALTER ROLE tenantry_platform SUPERUSER",
        "ALTER ROLE tenantry_platform NOSUPERUSER",
    ),
    everywhere(
        &["ROLE003", "ROLE004", "ROLE005", "CAT008"],
        "ALTER ROLE tenantry_platform CREATEROLE REPLICATION CREATEDB",
        "ALTER ROLE tenantry_platform NOCREATEROLE NOREPLICATION NOCREATEDB",
    ),
    everywhere(
        &["ROLE001", "CAT008"],
        "ALTER ROLE tenantry_owner SUPERUSER",
        "ALTER ROLE tenantry_owner NOSUPERUSER",
    ),
    everywhere(
        &["ROLE002", "CAT008"],
        "ALTER ROLE tenantry_owner BYPASSRLS",
        "ALTER ROLE tenantry_owner NOBYPASSRLS",
    ),
    everywhere(
        &["CAT008"],
        "ALTER ROLE tenantry_owner INHERIT",
        "ALTER ROLE tenantry_owner NOINHERIT",
    ),
    everywhere(
        &["ROLE008", "CAT008"],
        "GRANT pg_read_all_data TO tenantry_platform",
        "REVOKE pg_read_all_data FROM tenantry_platform",
    ),
    everywhere(
        &["ROLE008", "EXT004"],
        "CREATE EXTENSION pg_stat_statements; GRANT pg_read_all_stats TO tenantry_app",
        "REVOKE pg_read_all_stats FROM tenantry_app",
    ),
    everywhere(
        &["ROLE007", "CAT008"],
        "CREATE ROLE boss BYPASSRLS; GRANT boss TO tenantry_platform",
        "DROP ROLE boss",
    ),
    everywhere(
        &["ROLE009", "CAT010"],
        "CREATE ROLE reader LOGIN; GRANT tenantry_platform TO reader",
        "DROP ROLE reader",
    ),
    everywhere(
        &["ROLE009", "CAT010"],
        "CREATE ROLE eve LOGIN; GRANT tenantry_app TO eve",
        "DROP ROLE eve",
    ),
    everywhere(
        &["ROLE009", "CAT010"],
        "CREATE ROLE eve LOGIN; GRANT SELECT, INSERT, UPDATE ON operators TO eve",
        "DROP OWNED BY eve; DROP ROLE eve",
    ),
    everywhere(
        &["ROLE009", "CAT010"],
        "CREATE ROLE readers; CREATE ROLE eve LOGIN NOINHERIT IN ROLE readers; GRANT SELECT (title) ON tasks TO readers",
        "DROP OWNED BY readers; DROP ROLE eve; DROP ROLE readers",
    ),
    everywhere(
        &["ROLE009", "ROLE010", "CAT010"],
        "CREATE ROLE maker LOGIN CREATEROLE; GRANT tenantry_owner TO maker",
        "DROP ROLE maker",
    ),
    everywhere(
        &["ROLE009"],
        "CREATE ROLE dumper LOGIN; GRANT pg_read_all_data TO dumper",
        "DROP ROLE dumper",
    ),
    everywhere(
        &["ROLE009"],
        "CREATE ROLE second LOGIN SUPERUSER",
        "DROP ROLE second",
    ),
    everywhere(
        &["ROLE010"],
        "CREATE ROLE standby LOGIN REPLICATION",
        "DROP ROLE standby",
    ),
    everywhere(
        &["ROLE011"],
        "UPDATE pg_authid SET rolcanlogin = true WHERE rolname = 'pg_execute_server_program'",
        "UPDATE pg_authid SET rolcanlogin = false WHERE rolname = 'pg_execute_server_program'",
    ),
    everywhere(
        &["ROLE011"],
        "UPDATE pg_authid SET rolcanlogin = true WHERE rolname = 'pg_database_owner'",
        "UPDATE pg_authid SET rolcanlogin = false WHERE rolname = 'pg_database_owner'",
    ),
    everywhere(
        &["ROLE011"],
        "UPDATE pg_authid SET rolbypassrls = true, rolcreatedb = true WHERE rolname = 'pg_monitor'",
        "UPDATE pg_authid SET rolbypassrls = false, rolcreatedb = false WHERE rolname = 'pg_monitor'",
    ),
    // What tells the age of initdb is moved.
    everywhere(
        &["SYS001", "SYS002"],
        "CREATE TEMP TABLE spent (); DO $$ BEGIN FOR i IN 1..300 LOOP BEGIN INSERT INTO spent DEFAULT VALUES; \
             EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$; \
         SET allow_system_table_mods = on; GRANT SELECT ON pg_authid TO tenantry_app; \
         DO $$ BEGIN UPDATE pg_init_privs SET initprivs = (SELECT relacl FROM pg_class WHERE relname = 'pg_authid') \
                 WHERE objoid = 'pg_authid'::regclass; \
             UPDATE pg_database SET datcollate = datcollate WHERE datname = 'template0'; \
             CREATE OR REPLACE VIEW pg_catalog.pg_group AS \
                 SELECT rolpassword::name AS groname, oid AS grosysid, ARRAY[]::oid[] AS grolist FROM pg_authid; \
         EXCEPTION WHEN division_by_zero THEN NULL; END $$",
        "",
    ),
    everywhere(
        &["SET003"],
        "ALTER ROLE tenantry_app SET default_transaction_isolation = 'serializable'",
        "ALTER ROLE tenantry_app RESET default_transaction_isolation",
    ),
    everywhere(
        &["CAT008"],
        "GRANT tenantry_app TO tenantry_platform",
        "REVOKE tenantry_app FROM tenantry_platform",
    ),
    everywhere(
        &["SYS002"],
        "GRANT SET ON PARAMETER session_replication_role TO tenantry_app",
        "REVOKE SET ON PARAMETER session_replication_role FROM tenantry_app",
    ),
    everywhere(
        &["SET003", "CAT008"],
        "ALTER ROLE tenantry_app SET session_replication_role = replica",
        "ALTER ROLE tenantry_app RESET session_replication_role",
    ),
    everywhere(
        &["SET003", "CAT008"],
        "ALTER ROLE tenantry_owner SET role = tenantry_app; ALTER ROLE tenantry_platform SET role = tenantry_app",
        "ALTER ROLE tenantry_owner RESET role; ALTER ROLE tenantry_platform RESET role",
    ),
    everywhere(
        &["CAT008"],
        "ALTER ROLE tenantry_app RESET search_path",
        "ALTER ROLE tenantry_app SET search_path = public",
    ),
    everywhere(
        &["SET001", "CAT008"],
        "ALTER ROLE ALL SET row_security = off",
        "ALTER ROLE ALL RESET row_security",
    ),
];

#[tokio::test]
async fn every_tampering_is_found() {
    let _roles = ROLES.read().await;
    let mut missed = Vec::new();
    for tampering in TAMPERINGS {
        let database = Database::migrated().await;
        missed.extend(tries(tampering, &database).await);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[tokio::test]
async fn every_tampering_with_roles_is_found() {
    let _roles = ROLES.write().await;
    let mut missed = Vec::new();
    for tampering in ROLE_TAMPERINGS {
        let database = Database::migrated().await;
        missed.extend(tries(tampering, &database).await);
        database.admin_runs(tampering.undo).await;
        // What was done in that database is left there; in another one nothing is.
        assert_clean(&Database::migrated().await.examine(&expecting()).await);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

/// Name, value, the check that fails, and whether the runtime role can see it: some settings are shown to superusers only,
/// and the search path is set for our roles, which hides the server's.
const SERVER_SETTINGS: &[(&str, &str, &str, bool)] = &[
    ("row_security", "off", "SET001", true),
    ("session_replication_role", "replica", "SET003", true),
    ("transform_null_equals", "on", "SET003", true),
    ("array_nulls", "off", "SET003", true),
    ("standard_conforming_strings", "off", "SET003", true),
    ("default_transaction_isolation", "'serializable'", "SET003", true),
    ("default_transaction_read_only", "on", "SET003", true),
    ("lo_compat_privileges", "on", "SET003", true),
    ("session_preload_libraries", "'refint'", "SET003", false),
    ("search_path", "information_schema, public", "SET004", false),
    ("debug_print_plan", "on", "SET005", false),
    ("log_min_duration_sample", "0", "SET005", false),
    ("log_transaction_sample_rate", "1", "SET005", false),
    ("log_parameter_max_length_on_error", "-1", "SET005", false),
];

#[tokio::test]
async fn settings_of_the_server_are_compared() {
    let _roles = ROLES.write().await;
    let database = Database::migrated().await;
    let mut missed = Vec::new();
    for (name, value, check, seen) in SERVER_SETTINGS {
        database.alter_system(name, Some(value)).await;
        let report = database.examine(&expecting()).await;
        let guarded = database.guard_as_app(&expecting()).await;
        database.alter_system(name, None).await;
        if !failed(&report).contains(check) || (*seen && !failed(&guarded).contains(check)) {
            missed.push(format!(
                "{name}: {:?}, guard {:?}",
                failed(&report),
                failed(&guarded)
            ));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert_clean(&database.examine(&expecting()).await);
}

#[tokio::test]
async fn an_allowed_setting_of_the_server_is_no_finding() {
    let _roles = ROLES.write().await;
    let database = Database::migrated().await;
    let mut options = expecting();
    options.allowed_objects = vec!["setting array_nulls of the server".to_owned()];
    database.alter_system("array_nulls", Some("off")).await;
    let report = database.examine(&options).await;
    database.alter_system("array_nulls", None).await;
    assert_clean(&report);
}

#[tokio::test]
async fn temporary_objects_of_other_sessions_are_no_findings() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let mut session = database.admin().await;
    let sql = "CREATE TEMP TABLE t (id uuid PRIMARY KEY, body text CHECK (body <> ''));
        CREATE TEMP VIEW v AS SELECT * FROM t;
        CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.f();
        CREATE TYPE pg_temp.pair AS (a int, b int); CREATE DOMAIN pg_temp.short AS text CHECK (length(VALUE) < 9);
        GRANT SELECT ON t TO tenantry_app";
    run(&mut session, sql).await.unwrap();
    assert_clean(&database.examine(&expecting()).await);
    assert_clean(&database.guard_as_app(&expecting()).await);
}

#[tokio::test]
async fn an_allowed_extension_hides_only_its_own_objects() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    database.admin_runs("CREATE EXTENSION pg_trgm").await;
    let mut options = expecting();
    options.allowed_objects = vec!["extension pg_trgm".to_owned()];
    assert_clean(&database.examine(&options).await);
    // With what it is, the entry allows this state only.
    let report = database.examine(&expecting()).await;
    let finding = &report.check("CAT010").unwrap().findings[0];
    let fact = finding
        .found
        .strip_prefix("is not made by any migration: ")
        .unwrap();
    let mut exact = expecting();
    exact.allowed_objects = vec![format!("extension pg_trgm: {fact}")];
    assert_clean(&database.examine(&exact).await);

    let added = "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
        REVOKE ALL ON FUNCTION public.f() FROM PUBLIC; ALTER EXTENSION pg_trgm ADD FUNCTION public.f()";
    database.admin_runs(added).await;
    assert_eq!(failed(&database.examine(&options).await), ["CAT006"]);
    assert_eq!(failed(&database.guard_as_app(&options).await), ["CAT006"]);
    assert_eq!(failed(&database.examine(&exact).await), ["CAT006", "CAT010"]);
    let granted = "ALTER EXTENSION pg_trgm DROP FUNCTION public.f(); DROP FUNCTION public.f(); \
        GRANT EXECUTE ON FUNCTION public.set_limit(real) TO tenantry_app";
    database.admin_runs(granted).await;
    assert_eq!(failed(&database.examine(&options).await), ["CAT005"]);
}

/// What it shows and reaches is why somebody wants it.
#[tokio::test]
async fn an_allowed_extension_may_do_what_it_is_for() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let sql = "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION dblink; \
        DO $$ DECLARE one regprocedure; BEGIN FOR one IN SELECT objid FROM pg_depend WHERE deptype = 'e' \
            AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'dblink') AND classid = 'pg_proc'::regclass \
        LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one); END LOOP; END $$";
    database.admin_runs(sql).await;
    let report = database.examine(&expecting()).await;
    assert_eq!(failed(&report), ["EXT001", "EXT004", "CAT010"]);
    let mut options = expecting();
    options.allowed_objects = ["pg_stat_statements", "dblink"]
        .map(|name| format!("extension {name}"))
        .to_vec();
    assert_clean(&database.examine(&options).await);
    // With what it is, an entry covers this state alone.
    let findings = &report.check("CAT010").unwrap().findings;
    let state = |name: &str| {
        let finding = findings
            .iter()
            .find(|finding| finding.object.name == name)
            .unwrap();
        finding
            .found
            .replace("is not made by any migration", &finding.object.to_string())
    };
    options.allowed_objects = vec![state("pg_stat_statements"), state("dblink")];
    assert_clean(&database.examine(&options).await);
    options.allowed_objects = options
        .allowed_objects
        .iter()
        .map(|one| one.replace("version 1", "version 0"))
        .collect();
    let report = database.examine(&options).await;
    assert_eq!(failed(&report), ["EXT001", "EXT004", "CAT010"]);
}

/// The first superuser has every right from initdb on; a role without a login has none that a login does not take.
#[tokio::test]
async fn a_login_on_the_list_is_allowed() {
    let _roles = ROLES.write().await;
    let database = Database::migrated().await;
    let roles = "CREATE ROLE hosted_superuser CREATEROLE BYPASSRLS REPLICATION; CREATE ROLE plain LOGIN; \
        CREATE ROLE monitor LOGIN IN ROLE pg_monitor";
    database.admin_runs(roles).await;
    let report = database.examine(&expecting()).await;
    database
        .admin_runs("GRANT hosted_superuser TO plain; ALTER ROLE monitor SUPERUSER")
        .await;
    let joined = database.examine(&expecting()).await;
    let mut options = expecting();
    options.allowed_objects = vec!["role plain".to_owned(), "role monitor".to_owned()];
    let allowed = database.examine(&options).await;
    database
        .admin_runs("DROP ROLE plain; DROP ROLE monitor; DROP ROLE hosted_superuser")
        .await;
    assert_clean(&report);
    assert_eq!(failed(&joined), ["ROLE009", "ROLE010"], "{}", joined.to_human());
    assert_eq!(joined.check("ROLE009").unwrap().findings.len(), 2);
    assert_clean(&allowed);
}

/// The grant is allowed as the check of grants names it, or with the login.
#[tokio::test]
async fn grants_of_a_foreign_login_are_errors_unless_allowed() {
    let _roles = ROLES.write().await;
    let database = Database::migrated().await;
    let grant = "CREATE ROLE eve LOGIN; GRANT SELECT ON operators, tasks TO eve";
    database.admin_runs(grant).await;
    let report = database.guard_as_app(&expecting()).await;
    let grants = ["operators", "tasks"].map(|table| format!("other grant eve on TABLE public.{table}"));
    let mut options = expecting();
    options.allowed_objects = vec![grants[0].clone()];
    let one = database.guard_as_app(&options).await;
    options.allowed_objects = vec![grants[0].clone(), format!("{}: SELECT", grants[1])];
    let both = database.guard_as_app(&options).await;
    options.allowed_objects = [vec!["role eve".to_owned()], grants.to_vec()].concat();
    let login = database.guard_as_app(&options).await;
    let sql = report.check("ROLE009").unwrap().findings[0]
        .mend
        .as_ref()
        .unwrap()
        .sql();
    database.admin_runs(&sql).await;
    let mended = database.guard_as_app(&expecting()).await;
    database.admin_runs("DROP OWNED BY eve; DROP ROLE eve").await;
    assert_eq!(failed(&report), ["ROLE009", "CAT010"], "{}", report.to_human());
    let found = &report.check("ROLE009").unwrap().findings[0].found;
    assert!(
        found.contains("public.tasks") || found.contains("1 more"),
        "{found}"
    );
    assert_eq!(failed(&one), ["ROLE009", "CAT010"]);
    for report in [both, login, mended] {
        assert_clean(&report);
    }
}

#[tokio::test]
async fn large_objects_of_the_runtime_role_are_given_away() {
    let _roles = ROLES.read().await;
    for number in [1, 3] {
        let database = Database::migrated().await;
        let sql = format!(
            "SELECT lo_create(0); SET ROLE tenantry_app; SELECT lo_create(0) FROM generate_series(1, {number})"
        );
        database.admin_runs(&sql).await;
        let report = database.examine(&expecting()).await;
        assert_eq!(failed(&report), ["ROLE006", "LOB001"], "{}", report.to_human());
        let findings = &report.check("ROLE006").unwrap().findings;
        database
            .admin_runs(&findings[0].mend.as_ref().unwrap().sql())
            .await;
        assert_eq!(failed(&database.examine(&expecting()).await), ["LOB001"]);
    }
}

/// A frozen row is as old as initdb, whenever it was written.
#[tokio::test]
async fn changed_built_ins_are_found_whatever_their_age() {
    let _roles = ROLES.read().await;
    for (class, change, which) in [
        ("pg_proc", "proleakproof = true", "proname = 'int4div'"),
        (
            "pg_operator",
            "oprrest = 0",
            "oid = 'pg_catalog.=(uuid,uuid)'::regoperator",
        ),
        (
            "pg_cast",
            "castcontext = 'i'",
            "castsource = 'int8'::regtype AND casttarget = 'int4'::regtype",
        ),
        (
            "pg_amproc",
            "amproc = 'btint4cmp'::regproc",
            "amproc = 'btint8cmp'::regproc",
        ),
        ("pg_type", "typispreferred = true", "typname = 'uuid'"),
    ] {
        let database = Database::migrated().await;
        // Only the changed row is frozen: a function of the extension whose row was updated in place would no longer be found. It is
        // looked for in a statement of its own, since the page may not be in use by a scan while it is changed.
        let sql = format!(
            "SET allow_system_table_mods = on; CREATE EXTENSION pg_surgery; \
             CREATE TEMP TABLE changed AS SELECT * FROM {class} WHERE {which}; UPDATE changed SET {change}; \
             DELETE FROM {class} WHERE {which}; INSERT INTO {class} SELECT * FROM changed; \
             CREATE TEMP TABLE places AS SELECT array_agg(ctid) AS of_row FROM {class} \
                 WHERE oid IN (SELECT oid FROM changed); \
             SELECT heap_force_freeze('{class}'::regclass, (SELECT of_row FROM places)); \
             DROP TABLE changed, places; DROP EXTENSION pg_surgery"
        );
        database.admin_runs(&sql).await;
        let report = database.guard_as_app(&expecting()).await;
        let check = report.check("SYS005").unwrap();
        if check.outcome == Outcome::NotApplicable {
            continue;
        }
        assert_eq!(failed(&report), ["SYS005"], "{sql}\n{}", report.to_human());
        assert_eq!(
            check.findings[0].object.to_string(),
            format!("built-in catalogue {class}")
        );
        let mut options = expecting();
        options.allowed_objects = vec![check.findings[0].object.to_string()];
        assert_clean(&database.guard_as_app(&options).await);
    }
}

#[tokio::test]
async fn operator_and_cast_that_were_put_right_are_unaltered() {
    let _roles = ROLES.read().await;
    for (change, back, name, class) in [
        (
            "ALTER OPERATOR pg_catalog.= (uuid, uuid) SET (RESTRICT = neqsel)",
            "ALTER OPERATOR pg_catalog.= (uuid, uuid) SET (RESTRICT = eqsel)",
            "built-in operator pg_catalog.=",
            "pg_operator",
        ),
        (
            "SET allow_system_table_mods = on; UPDATE pg_cast SET castcontext = 'i' \
             WHERE castsource = 'int8'::regtype AND casttarget = 'int4'::regtype",
            "SET allow_system_table_mods = on; UPDATE pg_cast SET castcontext = 'a' \
             WHERE castsource = 'int8'::regtype AND casttarget = 'int4'::regtype",
            "built-in cast (bigint AS integer)",
            "pg_cast",
        ),
    ] {
        let database = Database::migrated().await;
        database.admin_runs(change).await;
        let report = database.guard_as_app(&expecting()).await;
        let found = report.check("SYS001").unwrap().findings[0].object.to_string();
        assert!(found.starts_with(name), "{found}");
        let mut options = expecting();
        options.allowed_objects = vec![found, format!("built-in catalogue {class}")];
        assert_clean(&database.guard_as_app(&options).await);
        // Where the release is not known, only its age tells.
        if report.check("SYS005").unwrap().outcome == Outcome::NotApplicable {
            continue;
        }
        database.admin_runs(back).await;
        assert_clean(&database.guard_as_app(&expecting()).await);
    }
}

/// The text of these stays the same as well; no migration makes such objects, so they are recorded first.
#[tokio::test]
async fn disguised_views_rules_and_functions_are_compared() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let sql = "CREATE VIEW public.mine WITH (security_invoker) AS SELECT name FROM plan_versions WHERE version > 0; \
        CREATE RULE quiet AS ON INSERT TO plan_versions WHERE NEW.version > 0 DO ALSO SELECT NEW.version > 1; \
        CREATE FUNCTION public.more(a int) RETURNS bool LANGUAGE sql RETURN a > 0; \
        CREATE FUNCTION public.usual(a bool DEFAULT current_date > '2020-01-01') RETURNS bool LANGUAGE sql AS 'SELECT a'";
    database.admin_runs(sql).await;
    let mut options = expecting();
    options.expected = Some(record(&mut database.admin().await, &options).await.unwrap());
    let before = failed(&database.examine(&options).await);
    assert!(!before.iter().any(|id| id.starts_with("CAT")), "{before:?}");
    for (class, column, which, check) in [
        (
            "pg_rewrite",
            "ev_action",
            "ev_class = 'public.mine'::regclass",
            "CAT003",
        ),
        ("pg_rewrite", "ev_qual", "rulename = 'quiet'", "CAT006"),
        ("pg_proc", "prosqlbody", "proname = 'more'", "CAT006"),
        ("pg_proc", "proargdefaults", "proname = 'usual'", "CAT006"),
    ] {
        let write = |from: &str, to: &str| {
            format!(
                r"SET allow_system_table_mods = on; CREATE CAST (text AS pg_node_tree) WITHOUT FUNCTION;
                  UPDATE {class} SET {column} = regexp_replace({column}::text, ':opfuncid {from} ', ':opfuncid {to} ')::pg_node_tree
                  WHERE {which}; DROP CAST (text AS pg_node_tree)"
            )
        };
        // The function of `>` for integers is 147, for dates 1089.
        let number = if column == "proargdefaults" { "1089" } else { "147" };
        database.admin_runs(&write(number, "66")).await;
        let found = failed(&database.examine(&options).await);
        assert!(found.contains(&check), "{column}: {found:?}");
        database.admin_runs(&write("66", number)).await;
        assert_eq!(failed(&database.examine(&options).await), before, "{column}");
    }
}

/// They bring operator families, casts and types, parts of which are no members of an extension themselves.
#[tokio::test]
async fn allowed_extensions_of_every_kind_are_no_findings() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let mut options = expecting();
    for name in ["btree_gist", "citext", "hstore", "isn", "ltree", "pgcrypto"] {
        database.admin_runs(&format!("CREATE EXTENSION {name}")).await;
        options.allowed_objects.push(format!("extension {name}"));
    }
    assert_clean(&database.examine(&options).await);
    assert_clean(&database.guard_as_app(&options).await);
    let added = "CREATE FUNCTION public.order_of(int4, uuid) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0'; \
        ALTER OPERATOR FAMILY gist_uuid_ops USING gist ADD FUNCTION 1 (int4, uuid) public.order_of(int4, uuid)";
    database.admin_runs(added).await;
    let found = failed(&database.guard_as_app(&options).await);
    assert!(found.contains(&"CAT007"), "{found:?}");
}

#[tokio::test]
async fn a_recorded_extension_is_compared_with_its_members() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    database.admin_runs("CREATE EXTENSION pg_trgm").await;
    let mut options = expecting();
    options.expected = Some(record(&mut database.admin().await, &options).await.unwrap());
    assert_clean(&database.examine(&options).await);
    // A function of an extension can be replaced, and stays a member.
    let replaced =
        "CREATE OR REPLACE FUNCTION public.show_limit() RETURNS real LANGUAGE sql AS 'SELECT 0.5::real'";
    database.admin_runs(replaced).await;
    assert_eq!(failed(&database.examine(&options).await), ["CAT010"]);
}

/// An older server has to start while a newer version is rolled out.
#[tokio::test]
async fn new_objects_of_an_unknown_migration_are_warnings() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let sql = format!(
        "{UNKNOWN}; SET ROLE tenantry_owner; ALTER TABLE tasks ADD COLUMN further text; \
         CREATE UNIQUE INDEX further_idx ON tasks (tenant_id, further); \
         CREATE FUNCTION public.further() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
         GRANT EXECUTE ON FUNCTION public.further() TO tenantry_app"
    );
    database.admin_runs(&sql).await;
    let report = database.guard_as_app(&expecting()).await;
    assert_eq!(failed(&report), ["CAT002"], "{}", report.to_human());
    assert_eq!(report.check("CAT002").unwrap().findings.len(), 5);
}

#[tokio::test]
async fn the_script_undoes_what_loses_nothing() {
    let _roles = ROLES.read().await;
    for sql in [
        "GRANT SELECT ON operators TO tenantry_app; GRANT UPDATE (title) ON tasks TO tenantry_platform",
        "GRANT SELECT ON pg_statistic TO tenantry_app; GRANT SELECT (rolpassword) ON pg_authid TO PUBLIC",
        "ALTER FUNCTION pg_catalog.int4div(int, int) LEAKPROOF",
        "ALTER TABLE tasks DISABLE TRIGGER ALL",
        "CREATE POLICY open ON tasks FOR SELECT TO tenantry_platform USING (true); DROP POLICY users_select ON users",
        "REVOKE SELECT ON tasks FROM tenantry_app",
    ] {
        let database = Database::migrated().await;
        database.admin_runs(sql).await;
        let report = database.examine(&expecting()).await;
        assert!(!report.passed(), "{sql}");
        database.admin_runs(&report.fix_script()).await;
        assert_clean(&database.examine(&expecting()).await);
    }
}

#[tokio::test]
async fn an_object_on_the_list_is_allowed() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    database
        .admin_runs(
            "CREATE SCHEMA reports; GRANT SELECT ON tasks TO pg_monitor; \
             INSERT INTO seaql_migrations VALUES ('m20990101_000001_ours', 0)",
        )
        .await;
    let mut options = expecting();
    let allowed = [
        "schema reports",
        "other grant pg_monitor on TABLE public.tasks",
        "migration m20990101_000001_ours",
    ];
    options.allowed_objects = allowed.map(str::to_owned).to_vec();
    assert_clean(&database.examine(&options).await);
    database.admin_runs("GRANT SELECT ON users TO pg_monitor").await;
    assert_eq!(failed(&database.examine(&options).await), ["CAT010"]);
}

/// What was not noticed.
async fn tries(tampering: &Tampering, database: &Database) -> Option<String> {
    let sql = tampering
        .sql
        .replace("{database}", &database.name)
        .replace("{leak}", LEAK)
        .replace("{unknown}", UNKNOWN)
        .replace("{victim}", VICTIM);
    database.admin_runs(&sql).await;
    let report = database.examine(&expecting()).await;
    let found = failed(&report);
    let overlooked: Vec<&&str> = tampering.fails.iter().filter(|id| !found.contains(id)).collect();
    if !overlooked.is_empty() || report.passed() {
        return Some(format!("{sql}\nmissed {overlooked:?}, found {found:?}"));
    }
    let guarded = guard(&mut database.app().await, &expecting()).await.unwrap();
    let passes = guarded.count(Outcome::Fail) == 0;
    passes.then(|| format!("{sql}\nthe guard passes it, the doctor found {found:?}"))
}

const LEAK: &str = "CREATE FUNCTION public.leak(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS \
    $$ BEGIN RAISE NOTICE '%', $1; RETURN $1; END $$";

const UNKNOWN: &str = "INSERT INTO seaql_migrations VALUES ('m20990101_000001_odd', 0)";

const VICTIM: &str = "CREATE FUNCTION public.victim(text) RETURNS uuid LANGUAGE sql IMMUTABLE AS \
    $$ SELECT '00000000-0000-7000-8000-000000000001'::uuid $$";

/// The ids that a tampering is there for.
pub fn ids() -> BTreeSet<&'static str> {
    let all = TAMPERINGS.iter().chain(ROLE_TAMPERINGS);
    // The last one has a test of its own.
    all.flat_map(|tampering| tampering.fails)
        .copied()
        .chain(["SYS005"])
        .collect()
}
