//! Ways to open the isolation of Tenantry's own database, each with checks that have to notice.

use std::collections::BTreeSet;

use tenantry_doctor::{Outcome, guard};

use crate::support::{Database, ROLES, assert_clean, expecting, failed};

/// One change, made as a superuser.
pub struct Tampering {
    /// Checks that fail, perhaps among others.
    pub fails: &'static [&'static str],
    pub sql: &'static str,
    /// Whether the guard finds it, too.
    pub guarded: bool,
    /// What undoes it, where it is not about one database.
    pub undo: &'static str,
}

const fn guarded(fails: &'static [&'static str], sql: &'static str) -> Tampering {
    Tampering {
        fails,
        sql,
        guarded: true,
        undo: "",
    }
}

const fn noticed(fails: &'static [&'static str], sql: &'static str) -> Tampering {
    Tampering {
        guarded: false,
        ..guarded(fails, sql)
    }
}

const fn everywhere(fails: &'static [&'static str], sql: &'static str, undo: &'static str) -> Tampering {
    Tampering {
        undo,
        ..guarded(fails, sql)
    }
}

/// `{database}` stands for the database, `{leak}` for a function `leak(text)` that tells its argument, `{victim}` for a
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
    noticed(
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
    noticed(&["CAT010"], "GRANT SELECT ON tasks TO pg_monitor"),
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
    noticed(&["EXT004", "CAT010"], "CREATE EXTENSION pg_stat_statements"),
    noticed(&["EXT001", "CAT010"], "CREATE EXTENSION dblink"),
    noticed(&["CAT010"], "CREATE SCHEMA reports"),
    // Migrations.
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
    (tampering.guarded && passes).then(|| format!("{sql}\nthe guard passes it, the doctor found {found:?}"))
}

const LEAK: &str = "CREATE FUNCTION public.leak(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS \
    $$ BEGIN RAISE NOTICE '%', $1; RETURN $1; END $$";

const VICTIM: &str = "CREATE FUNCTION public.victim(text) RETURNS uuid LANGUAGE sql IMMUTABLE AS \
    $$ SELECT '00000000-0000-7000-8000-000000000001'::uuid $$";

/// The ids that a tampering is there for.
pub fn ids() -> BTreeSet<&'static str> {
    let all = TAMPERINGS.iter().chain(ROLE_TAMPERINGS);
    all.flat_map(|tampering| tampering.fails).copied().collect()
}
