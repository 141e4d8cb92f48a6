//! For each rule: how it is broken, which check fails, and what mends it.

use tenantry_doctor::Options;

/// One broken rule.
pub struct Case {
    /// Exactly the checks that fail.
    pub fails: &'static [&'static str],
    /// The SQL that breaks it, beginning as the owner of the tables.
    pub breaks: &'static str,
    /// What else the doctor is told.
    pub told: fn(&mut Options),
    pub mended: Mended,
}

/// What is done with the mends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// The script does it.
    ByScript,
    /// They are comments in the script, and work when somebody runs them after all.
    ByHand,
    /// There are none, or they need more than SQL.
    No,
}

pub use Mended::{ByHand, ByScript, No};

const fn case(fails: &'static [&'static str], mended: Mended, breaks: &'static str) -> Case {
    Case {
        fails,
        breaks,
        told: |_| {},
        mended,
    }
}

const fn told(told: fn(&mut Options), mut case: Case) -> Case {
    case.told = told;
    case
}

/// `{notes}` stands for the SQL of a tenant table `notes` without a fault, and `{database}` for the database.
pub const CASES: &[Case] = &[
    case(&["TEN001"], No, "{drop tenant tables}"),
    case(
        &["TEN002"],
        No,
        "CREATE TABLE forgotten (id uuid PRIMARY KEY, body text)",
    ),
    told(
        |options| options.global_tables.push("gone".to_owned()),
        case(&["TEN003"], No, "SELECT 1"),
    ),
    told(
        |options| options.global_tables.push("public.tasks".to_owned()),
        case(&["TEN003"], No, "SELECT 1"),
    ),
    case(
        &["TEN004"],
        ByScript,
        "{notes}; ALTER TABLE notes DROP CONSTRAINT notes_pkey; ALTER TABLE notes ALTER tenant_id DROP NOT NULL",
    ),
    case(
        &["TEN005", "TEN006"],
        No,
        "CREATE DOMAIN tenant_ref AS uuid; CREATE TABLE notes (tenant_id tenant_ref NOT NULL PRIMARY KEY); {secure notes}",
    ),
    case(
        &["TEN006"],
        ByScript,
        "{notes}; ALTER TABLE notes DROP CONSTRAINT notes_tenant_id_fkey",
    ),
    case(
        &["TEN006"],
        ByScript,
        "{notes}; ALTER TABLE notes DROP CONSTRAINT notes_tenant_id_fkey; \
         ALTER TABLE notes ADD FOREIGN KEY (tenant_id) REFERENCES tenants NOT VALID",
    ),
    case(
        &["RLS001"],
        ByScript,
        "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
    ),
    case(
        &["RLS001"],
        ByScript,
        "ALTER TABLE tenants DISABLE ROW LEVEL SECURITY",
    ),
    case(
        &["RLS002"],
        ByScript,
        "ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY",
    ),
    case(
        &["RLS003"],
        ByScript,
        "DROP POLICY tasks_delete ON tasks; DROP POLICY tasks_insert ON tasks",
    ),
    case(
        &["RLS003"],
        ByScript,
        "ALTER POLICY tasks_update ON tasks TO tenantry_platform",
    ),
    case(
        &["RLS004"],
        ByScript,
        "ALTER POLICY tasks_select ON tasks USING \
         (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid OR status = 'public')",
    ),
    case(
        &["RLS004"],
        ByScript,
        "ALTER POLICY tasks_update ON tasks WITH CHECK (tenant_id <> current_setting('app.current_tenant', true)::uuid)",
    ),
    case(
        &["RLS005"],
        ByScript,
        "CREATE POLICY open ON tasks FOR SELECT USING (true)",
    ),
    case(
        &["RLS005"],
        ByScript,
        "ALTER POLICY tasks_insert ON tasks WITH CHECK (true)",
    ),
    case(
        &["RLS005"],
        ByScript,
        "CREATE POLICY open ON tasks TO tenantry_app \
         USING (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid) WITH CHECK (status = 'todo')",
    ),
    case(
        &["RLS006"],
        ByHand,
        "CREATE POLICY reporting ON tasks FOR SELECT TO pg_monitor USING (true)",
    ),
    case(
        &["RLS007"],
        ByScript,
        "ALTER POLICY tasks_select ON tasks USING (tenant_id = current_setting('app.current_tenant')::uuid)",
    ),
    case(
        &["RLS007"],
        ByScript,
        "ALTER POLICY tasks_select ON tasks USING (tenant_id = (SELECT current_setting('app.current_tenant', true)::uuid))",
    ),
    case(
        &["RLS008"],
        No,
        "ALTER POLICY tasks_select ON tasks USING \
         (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid AND title LIKE 'a%')",
    ),
    case(
        &["RLS009"],
        ByScript,
        "CREATE TABLE readings (tenant_id uuid NOT NULL REFERENCES tenants, id uuid, PRIMARY KEY (tenant_id, id)) \
             PARTITION BY HASH (tenant_id); \
         {secure readings}; CREATE TABLE readings_0 PARTITION OF readings FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    ),
    case(
        &["RLS010"],
        ByScript,
        "CREATE TABLE old_tasks (PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id) REFERENCES tenants) INHERITS (tasks)",
    ),
    told(
        |options| options.global_tables.push("parent".to_owned()),
        case(
            &["RLS010"],
            No,
            "CREATE TABLE parent (body text); {notes}; ALTER TABLE notes INHERIT parent",
        ),
    ),
    case(
        &["SET001"],
        ByScript,
        "RESET ROLE; ALTER DATABASE {database} SET row_security = off",
    ),
    case(
        &["SET001"],
        ByScript,
        "RESET ROLE; ALTER ROLE tenantry_app IN DATABASE {database} SET row_security = off",
    ),
    case(
        &["SET002"],
        ByScript,
        "RESET ROLE; ALTER DATABASE {database} SET app.current_tenant = 'somebody'",
    ),
    case(
        &["SET003"],
        ByScript,
        "RESET ROLE; ALTER DATABASE {database} SET plpgsql.variable_conflict = use_column",
    ),
    case(
        &["SET005"],
        ByScript,
        "RESET ROLE; ALTER DATABASE {database} SET log_statement = 'mod'; \
         ALTER ROLE tenantry_app IN DATABASE {database} SET log_min_duration_statement = 0",
    ),
    case(
        &["SET005"],
        ByScript,
        "RESET ROLE; ALTER DATABASE {database} SET debug_print_parse = on; \
         ALTER DATABASE {database} SET debug_print_rewritten = on; ALTER DATABASE {database} SET debug_print_plan = on; \
         ALTER ROLE tenantry_platform IN DATABASE {database} SET log_parameter_max_length_on_error = -1",
    ),
    case(
        &["SET005"],
        ByScript,
        "RESET ROLE; ALTER DATABASE {database} SET log_min_duration_sample = '0ms'; \
         ALTER DATABASE {database} SET log_min_messages = 'DEBUG2'; \
         ALTER DATABASE {database} SET auto_explain.log_min_duration = 0",
    ),
    case(
        &["SET005"],
        ByScript,
        "RESET ROLE; ALTER ROLE tenantry_app IN DATABASE {database} SET log_transaction_sample_rate = 0.5",
    ),
    case(
        &["SET006"],
        ByScript,
        "RESET ROLE; ALTER DATABASE {database} SET synchronous_commit = off",
    ),
    case(
        &["SET006"],
        ByScript,
        "RESET ROLE; ALTER ROLE tenantry_app IN DATABASE {database} SET synchronous_commit = off",
    ),
    told(
        |options| options.global_unique.push("tasks_id".to_owned()),
        case(
            &["KEY001"],
            ByScript,
            "CREATE UNIQUE INDEX tasks_id ON tasks (id); {notes}; \
             ALTER TABLE notes ADD FOREIGN KEY (task) REFERENCES tasks (id) ON DELETE SET NULL",
        ),
    ),
    told(
        |options| options.global_unique.push("tasks_title".to_owned()),
        case(
            &["KEY001"],
            ByScript,
            "CREATE UNIQUE INDEX tasks_title ON tasks (title); {notes}; \
             ALTER TABLE notes ADD FOREIGN KEY (body) REFERENCES tasks (title) ON UPDATE CASCADE",
        ),
    ),
    case(
        &["KEY001"],
        No,
        "{notes}; ALTER TABLE notes ADD FOREIGN KEY (task, tenant_id) REFERENCES tasks (tenant_id, id)",
    ),
    told(
        |options| options.global_tables.push("lookup".to_owned()),
        case(
            &["KEY002"],
            No,
            "CREATE TABLE lookup (one uuid, other uuid, FOREIGN KEY (one, other) REFERENCES tasks (tenant_id, id))",
        ),
    ),
    case(
        &["KEY003"],
        ByHand,
        "CREATE UNIQUE INDEX titles ON tasks (lower(title)) WHERE deleted_at IS NULL",
    ),
    case(
        &["KEY003"],
        ByHand,
        "ALTER TABLE tasks ADD CONSTRAINT titles UNIQUE (title, tenant_id)",
    ),
    case(
        &["KEY003"],
        ByHand,
        "{notes}; ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD CONSTRAINT notes_pkey PRIMARY KEY (id)",
    ),
    case(
        &["KEY003"],
        No,
        "ALTER TABLE tasks ADD EXCLUDE USING btree (title WITH =)",
    ),
    case(
        &["KEY004"],
        ByScript,
        "{notes}; ALTER TABLE notes DROP CONSTRAINT notes_pkey; DROP INDEX notes_created_at_idx, notes_task",
    ),
    case(
        &["KEY005"],
        ByHand,
        "CREATE INDEX titles ON tasks (title, tenant_id)",
    ),
    case(
        &["VIEW001"],
        ByScript,
        "CREATE VIEW open_tasks AS SELECT * FROM tasks",
    ),
    case(
        &["VIEW001"],
        ByScript,
        "CREATE VIEW inner_view WITH (security_invoker) AS SELECT * FROM tasks; \
         CREATE VIEW outer_view AS SELECT count(*) FROM inner_view",
    ),
    case(
        &["VIEW002"],
        ByHand,
        "CREATE MATERIALIZED VIEW counts AS SELECT tenant_id, count(*) FROM tasks GROUP BY 1",
    ),
    case(
        &["VIEW003"],
        ByHand,
        "RESET ROLE; {server}; CREATE FOREIGN TABLE far (id int) SERVER nowhere",
    ),
    case(
        &["VIEW004"],
        ByHand,
        "CREATE RULE noisy AS ON INSERT TO tasks DO ALSO NOTIFY tasks",
    ),
    case(
        &["FUN001"],
        ByScript,
        "CREATE FUNCTION f(\"a b\" int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    ),
    case(
        &["FUN002"],
        ByScript,
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public AS 'SELECT 1'; \
         GRANT EXECUTE ON FUNCTION f() TO tenantry_app",
    ),
    case(
        &["FUN002"],
        ByScript,
        "CREATE PROCEDURE p() LANGUAGE sql SECURITY DEFINER SET search_path = public AS 'SELECT 1'; \
         GRANT EXECUTE ON PROCEDURE p() TO PUBLIC",
    ),
    case(
        &["FUN003"],
        ByHand,
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public \
             AS 'BEGIN RETURN NEW; END'; \
         CREATE TRIGGER t BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION f()",
    ),
    case(
        &["FUN004"],
        ByScript,
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION f() TO PUBLIC",
    ),
    case(
        &["FUN005"],
        ByScript,
        "RESET ROLE; CREATE FUNCTION f(int) RETURNS int LANGUAGE internal AS 'int4abs'; \
         REVOKE ALL ON FUNCTION f FROM PUBLIC; GRANT EXECUTE ON FUNCTION f TO tenantry_app",
    ),
    case(
        &["EXT001"],
        ByHand,
        "RESET ROLE; CREATE EXTENSION dblink; REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC",
    ),
    case(
        &["EXT001", "EXT002"],
        ByHand,
        "RESET ROLE; CREATE EXTENSION dblink",
    ),
    case(
        &["EXT002"],
        ByScript,
        "RESET ROLE; GRANT EXECUTE ON FUNCTION pg_read_file(text), lo_import(text) TO tenantry_app",
    ),
    case(
        &["EXT003"],
        ByScript,
        "RESET ROLE; {server}; GRANT USAGE ON FOREIGN SERVER nowhere TO tenantry_app",
    ),
    case(
        &["ROLE006"],
        ByHand,
        "RESET ROLE; CREATE VIEW v AS SELECT 1; ALTER VIEW v OWNER TO tenantry_app",
    ),
    case(
        &["ROLE006"],
        ByHand,
        "RESET ROLE; CREATE FUNCTION f(text, int) RETURNS int LANGUAGE sql AS 'SELECT 1'; \
         REVOKE ALL ON FUNCTION f FROM PUBLIC; ALTER FUNCTION f OWNER TO tenantry_app",
    ),
    case(
        &["ROLE006"],
        ByHand,
        "RESET ROLE; ALTER DATABASE {database} OWNER TO tenantry_app",
    ),
    case(
        &["ROLE006", "LOB001"],
        No,
        "RESET ROLE; SELECT lo_create(4711); ALTER LARGE OBJECT 4711 OWNER TO tenantry_app",
    ),
    case(
        &["GRANT001"],
        ByScript,
        "RESET ROLE; GRANT CREATE ON SCHEMA public TO tenantry_app, PUBLIC",
    ),
    case(
        &["GRANT001"],
        ByScript,
        "RESET ROLE; GRANT CREATE ON DATABASE {database} TO tenantry_app",
    ),
    case(
        &["GRANT002"],
        ByScript,
        "RESET ROLE; GRANT TEMPORARY ON DATABASE {database} TO PUBLIC",
    ),
    case(
        &["GRANT003"],
        ByScript,
        "GRANT TRUNCATE, TRIGGER, REFERENCES (title) ON tasks TO tenantry_app",
    ),
    case(
        &["GRANT003"],
        ByScript,
        "CREATE TABLE readings (tenant_id uuid NOT NULL REFERENCES tenants, id uuid, PRIMARY KEY (tenant_id, id)) \
             PARTITION BY HASH (tenant_id); \
         {secure readings}; CREATE TABLE readings_0 PARTITION OF readings FOR VALUES WITH (MODULUS 1, REMAINDER 0); \
         ALTER TABLE readings_0 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; GRANT TRUNCATE ON readings_0 TO tenantry_app",
    ),
    told(
        |options| options.global_tables.push("lookup".to_owned()),
        case(
            &["GRANT004"],
            ByHand,
            "CREATE TABLE lookup (name text); GRANT SELECT, INSERT, UPDATE (name) ON lookup TO tenantry_app",
        ),
    ),
    case(
        &["GRANT005"],
        No,
        "CREATE SEQUENCE numbers; GRANT USAGE, SELECT ON SEQUENCE numbers TO tenantry_app",
    ),
    case(
        &["GRANT006"],
        ByScript,
        "GRANT SELECT (title), UPDATE (title) ON tasks TO PUBLIC",
    ),
    case(
        &["GRANT006"],
        ByScript,
        "CREATE VIEW one AS SELECT 1; GRANT SELECT ON one TO PUBLIC",
    ),
    case(
        &["GRANT005", "GRANT006"],
        ByScript,
        "CREATE SEQUENCE numbers; GRANT USAGE ON SEQUENCE numbers TO PUBLIC",
    ),
    case(
        &["GRANT007"],
        ByScript,
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    ),
    case(
        &["GRANT007"],
        ByScript,
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO PUBLIC; \
         ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO PUBLIC",
    ),
    case(
        &["GRANT008"],
        ByScript,
        "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
    ),
    case(
        &["PUB001"],
        ByHand,
        "RESET ROLE; CREATE PUBLICATION elsewhere FOR TABLE public.tasks",
    ),
    case(
        &["PUB001"],
        No,
        "RESET ROLE; CREATE PUBLICATION elsewhere FOR ALL TABLES",
    ),
    case(&["LOB001"], No, "SELECT lo_create(0)"),
];

/// A rule about roles, which the whole cluster shares: the SQL that breaks it, and that puts it right again.
pub const ROLE_CASES: &[(Case, &str)] = &[
    (
        case(
            &["ROLE001"],
            ByHand,
            "RESET ROLE; ALTER ROLE tenantry_app SUPERUSER",
        ),
        "ALTER ROLE tenantry_app NOSUPERUSER",
    ),
    (
        case(
            &["ROLE002"],
            ByScript,
            "RESET ROLE; ALTER ROLE tenantry_app BYPASSRLS",
        ),
        "ALTER ROLE tenantry_app NOBYPASSRLS",
    ),
    (
        case(
            &["ROLE003"],
            ByScript,
            "RESET ROLE; ALTER ROLE tenantry_app CREATEROLE",
        ),
        "ALTER ROLE tenantry_app NOCREATEROLE",
    ),
    (
        case(
            &["ROLE004"],
            ByScript,
            "RESET ROLE; ALTER ROLE tenantry_app REPLICATION",
        ),
        "ALTER ROLE tenantry_app NOREPLICATION",
    ),
    (
        case(
            &["ROLE005"],
            ByScript,
            "RESET ROLE; ALTER ROLE tenantry_app CREATEDB",
        ),
        "ALTER ROLE tenantry_app NOCREATEDB",
    ),
    (
        case(
            &["ROLE007"],
            ByScript,
            "RESET ROLE; CREATE ROLE boss BYPASSRLS; GRANT boss TO tenantry_app",
        ),
        "DROP ROLE boss",
    ),
    (
        case(
            &["ROLE007"],
            ByScript,
            "RESET ROLE; REVOKE tenantry_app FROM tenantry_owner; CREATE ROLE \"mid\"\"dle\" NOINHERIT; \
             GRANT tenantry_owner TO \"mid\"\"dle\"; GRANT \"mid\"\"dle\" TO tenantry_app",
        ),
        "DROP ROLE \"mid\"\"dle\"; GRANT tenantry_app TO tenantry_owner",
    ),
    (
        case(
            &["ROLE007"],
            ByScript,
            "RESET ROLE; GRANT tenantry_platform TO tenantry_app",
        ),
        "REVOKE tenantry_platform FROM tenantry_app",
    ),
    (
        case(
            &["ROLE008"],
            ByScript,
            "RESET ROLE; GRANT pg_read_all_data, pg_monitor TO tenantry_app",
        ),
        "REVOKE pg_read_all_data, pg_monitor FROM tenantry_app",
    ),
    (
        case(
            &["ROLE009"],
            ByHand,
            "RESET ROLE; CREATE ROLE \"d\"\"ba\" LOGIN SUPERUSER",
        ),
        "DROP ROLE \"d\"\"ba\"",
    ),
    (
        case(
            &["ROLE009"],
            ByHand,
            "RESET ROLE; CREATE ROLE readers BYPASSRLS; CREATE ROLE dba LOGIN BYPASSRLS NOINHERIT IN ROLE readers; \
             GRANT pg_read_all_data, pg_execute_server_program TO dba",
        ),
        "DROP ROLE dba; DROP ROLE readers",
    ),
    (
        case(
            &["ROLE009"],
            ByHand,
            "RESET ROLE; CREATE ROLE team; GRANT tenantry_owner TO team; CREATE ROLE dba LOGIN IN ROLE team, tenantry_platform",
        ),
        "DROP ROLE dba; DROP ROLE team",
    ),
    (
        case(
            &["ROLE010"],
            ByHand,
            "RESET ROLE; CREATE ROLE dba LOGIN CREATEROLE REPLICATION",
        ),
        "DROP ROLE dba",
    ),
    (
        case(
            &["ROLE010"],
            No,
            "RESET ROLE; CREATE ROLE dba LOGIN; ALTER DATABASE {database} OWNER TO dba",
        ),
        "REASSIGN OWNED BY dba TO tenantry_owner; DROP OWNED BY dba; DROP ROLE dba",
    ),
    (
        case(
            &["SET001"],
            ByScript,
            "RESET ROLE; ALTER ROLE tenantry_app SET row_security = off",
        ),
        "ALTER ROLE tenantry_app RESET row_security",
    ),
    (
        case(
            &["SET002"],
            ByScript,
            "RESET ROLE; ALTER ROLE ALL SET app.current_tenant = 'somebody'",
        ),
        "ALTER ROLE ALL RESET app.current_tenant",
    ),
];
