//! Tables that another service made over the same database, which this version does not know.

use tenantry_doctor::{Options, Outcome, Report, Severity, record};
use tenantry_migration::{CATALOGUE, TenantTable, up_with};

use crate::support::{Database, ROLES, assert_clean, expecting, failed};

/// The ids that these tests are there for.
pub const IDS: [&str; 1] = ["CAT011"];

tenantry_migration::migrator! {
    /// Those of a service for bills.
    Bills {
        "m20270101_000001_bills" => TenantTable::new("bills")
            .belongs_to("task_id", "tasks", tenantry_migration::OnDelete::Cascade)
            .column("number", "text NOT NULL")
            .column("amount_minor", "bigint NOT NULL")
            .check("bills_amount_is_positive", "amount_minor > 0")
            .unique("bills_number_key", &["number"]),
    }
}

async fn database() -> Database {
    let database = Database::migrated().await;
    up_with::<Bills>(&database.owner_url().await, None).await.unwrap();
    database
}

/// The tables that are known to obey the rules though they are of another service.
fn obedient(report: &Report) -> Vec<&str> {
    let check = report.check("CAT011").unwrap();
    let tables = check.findings.iter().map(|finding| finding.object.name.as_str());
    tables.collect()
}

#[tokio::test]
async fn tables_that_obey_every_rule_are_a_notice() {
    let _roles = ROLES.read().await;
    let database = database().await;
    for report in [
        database.guard_as_app(&expecting()).await,
        database.examine(&expecting()).await,
    ] {
        assert_clean(&report);
        assert!(report.passed());
        assert_eq!(obedient(&report), ["public.bills"]);
        let check = report.check("CAT011").unwrap();
        assert_eq!(check.outcome, Outcome::Notice);
        let said = &check.findings[0].found;
        assert!(
            said.contains("--record") && said.contains("guard.catalogues"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn tables_that_break_a_rule_are_findings() {
    let _roles = ROLES.read().await;
    for (sql, fails) in [
        ("ALTER TABLE bills NO FORCE ROW LEVEL SECURITY", "RLS002"),
        ("ALTER TABLE bills DISABLE ROW LEVEL SECURITY", "RLS001"),
        ("DROP POLICY bills_select ON bills", "RLS003"),
        ("ALTER POLICY bills_select ON bills USING (true)", "RLS005"),
        (
            "CREATE POLICY more ON bills FOR SELECT TO tenantry_app USING (true)",
            "RLS005",
        ),
        (
            "CREATE POLICY more ON bills FOR SELECT TO tenantry_platform USING (true)",
            "CAT002",
        ),
        ("GRANT SELECT ON bills TO tenantry_platform", "CAT002"),
        ("GRANT TRUNCATE ON bills TO tenantry_app", "CAT002"),
        (
            "GRANT SELECT ON bills TO tenantry_app WITH GRANT OPTION",
            "CAT002",
        ),
        ("GRANT SELECT ON bills TO PUBLIC", "CAT002"),
        ("ALTER TABLE bills OWNER TO postgres", "CAT002"),
        (
            "ALTER TABLE bills ALTER tenant_id SET DEFAULT gen_random_uuid()",
            "CAT002",
        ),
        ("ALTER TABLE bills DROP CONSTRAINT bills_tenant_id_fkey", "CAT002"),
        (
            "ALTER TABLE bills DROP CONSTRAINT bills_pkey; ALTER TABLE bills ADD PRIMARY KEY (id)",
            "CAT002",
        ),
        ("CREATE UNIQUE INDEX ON bills (number)", "CAT002"),
        ("ALTER TABLE bills ADD task uuid UNIQUE", "CAT002"),
        ("ALTER TABLE bills DISABLE TRIGGER ALL", "CAT002"),
        (
            "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
             CREATE TRIGGER spy BEFORE INSERT ON bills FOR EACH ROW EXECUTE FUNCTION spy()",
            "CAT002",
        ),
        (
            "CREATE RULE silent AS ON DELETE TO bills DO INSTEAD NOTHING",
            "CAT002",
        ),
    ] {
        let database = database().await;
        database.admin_runs(sql).await;
        let report = database.guard_as_app(&expecting()).await;
        for check in [fails, "CAT002"] {
            assert!(failed(&report).contains(&check), "{sql}\n{}", report.to_human());
        }
        assert_eq!(obedient(&report), Vec::<&str>::new(), "{sql}");
    }
}

/// What a table of a service runs, runs in the transactions that write to it: a deletion of a task deletes its bills.
#[tokio::test]
async fn tables_that_run_code_are_errors() {
    let _roles = ROLES.read().await;
    for (sql, fails) in [
        ("ALTER TABLE bills ADD CHECK ({switch} IS NOT NULL)", "CAT003"),
        ("ALTER TABLE bills ADD z text DEFAULT {switch}", "CAT003"),
        (
            "ALTER TABLE bills ADD CHECK (pg_notify('x', number) IS NOT NULL)",
            "CAT003",
        ),
        (
            "ALTER TABLE bills ADD CHECK (query_to_xml('SELECT 1', true, true, '') IS NOT NULL)",
            "CAT003",
        ),
        (
            "ALTER TABLE bills ADD CHECK (lo_from_bytea(0, convert_to(number, 'UTF8')) > 0)",
            "CAT003",
        ),
        (
            "ALTER TABLE bills ADD CHECK (CASE WHEN number = ANY (ARRAY['1', lower({switch})]) THEN true END)",
            "CAT003",
        ),
        (
            "ALTER TABLE bills ADD z bigint DEFAULT nextval('public.other')",
            "CAT003",
        ),
        (
            "ALTER TABLE bills ADD z text GENERATED ALWAYS AS (public.spy(number)) STORED",
            "CAT003",
        ),
        ("CREATE INDEX ON bills (tenant_id, public.spy(number))", "CAT003"),
        (
            "CREATE INDEX ON bills (tenant_id) WHERE public.spy(number) <> ''",
            "CAT003",
        ),
        (
            "ALTER TABLE bills ADD CHECK (number OPERATOR(public.~~~) number)",
            "CAT003",
        ),
        (
            "ALTER TABLE bills ADD CHECK (number::public.checked IS NOT NULL)",
            "CAT003",
        ),
        ("ALTER TABLE bills ADD z public.checked", "CAT003"),
        (
            "CREATE POLICY more ON bills FOR SELECT TO tenantry_platform USING ({switch} IS NOT NULL)",
            "CAT004",
        ),
        (
            "CREATE TRIGGER spy BEFORE INSERT ON bills FOR EACH ROW EXECUTE FUNCTION public.spies()",
            "CAT006",
        ),
        (
            "CREATE RULE spy AS ON DELETE TO bills DO ALSO DELETE FROM operators",
            "CAT006",
        ),
        ("ALTER TABLE bills ADD z uuid REFERENCES operators (id)", "CAT003"),
    ] {
        let database = database().await;
        let sql = format!("{OBJECTS}; {sql}").replace("{switch}", SWITCH);
        database.admin_runs(&sql).await;
        let report = database.guard_as_app(&expecting()).await;
        for check in [fails, "CAT002"] {
            assert!(failed(&report).contains(&check), "{sql}\n{}", report.to_human());
        }
        assert!(report.worst() >= Some(Severity::Error), "{sql}");
        assert_eq!(obedient(&report), Vec::<&str>::new(), "{sql}");
    }
}

const SWITCH: &str = "set_config('app.current_tenant', '00000000-0000-7000-8000-000000000001', true)";

const OBJECTS: &str = "CREATE FUNCTION public.spy(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS \
    $$ BEGIN PERFORM {switch}; RETURN $1; END $$; \
    CREATE FUNCTION public.spies() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {switch}; RETURN NEW; END $$; \
    CREATE FUNCTION public.alike(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT {switch} IS NOT NULL $$; \
    CREATE OPERATOR public.~~~ (FUNCTION = public.alike, LEFTARG = text, RIGHTARG = text); \
    CREATE DOMAIN public.checked AS text CHECK ({switch} IS NOT NULL); CREATE SEQUENCE public.other";

/// Functions of PostgreSQL that depend on nothing but their arguments and the time are part of many tables.
#[tokio::test]
async fn harmless_expressions_stay_a_notice() {
    let _roles = ROLES.read().await;
    let database = database().await;
    let sql = "SET ROLE tenantry_owner; ALTER TABLE bills ADD due timestamptz NOT NULL DEFAULT now() + interval '30 days', \
        ADD made date DEFAULT CURRENT_DATE, ADD writer text DEFAULT CURRENT_USER, ADD tags text[] DEFAULT '{}', \
        ADD mark uuid DEFAULT gen_random_uuid(), ADD lot double precision DEFAULT random(), \
        ADD state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid')), \
        ADD total numeric GENERATED ALWAYS AS (round(amount_minor / 100.0, 2)) STORED, \
        ADD CHECK (due >= made AND tags[1] IS DISTINCT FROM 'x' AND NOT 'y' = ANY (tags) AND state COLLATE \"C\" > 'a'), \
        ADD CHECK (CASE WHEN state = 'paid' THEN coalesce(amount_minor, 0) > 0 ELSE greatest(amount_minor, 1) < 1000000 END), \
        ADD CHECK (nullif(number, '')::text ~ '^[0-9]+$' IS NOT FALSE AND length(trim(number)) BETWEEN 1 AND 99); \
        CREATE INDEX ON bills (tenant_id, lower(number)) WHERE state <> 'paid'";
    database.admin_runs(sql).await;
    for report in [
        database.guard_as_app(&expecting()).await,
        database.examine(&expecting()).await,
    ] {
        assert_clean(&report);
        assert_eq!(obedient(&report), ["public.bills"], "{}", report.to_human());
    }
}

/// What is not known to be harmless, and runs no code of its own either, keeps nobody from starting.
#[tokio::test]
async fn types_and_sequences_of_a_service_are_warnings() {
    let _roles = ROLES.read().await;
    for (sql, is_obedient) in [
        ("ALTER TABLE bills ADD z bigserial", true),
        (
            "ALTER TABLE bills ADD z bigint GENERATED ALWAYS AS IDENTITY",
            true,
        ),
        (
            "CREATE TYPE public.mood AS ENUM ('good'); ALTER TABLE bills ADD z public.mood[]",
            false,
        ),
        (
            "CREATE DOMAIN public.amount AS bigint CHECK (VALUE > 0); ALTER TABLE bills ADD z public.amount",
            false,
        ),
        (
            "ALTER TABLE tasks ADD bill text CHECK (bill <> ''), ADD bill_id uuid, \
             ADD FOREIGN KEY (tenant_id, bill_id) REFERENCES bills (tenant_id, id)",
            true,
        ),
    ] {
        let database = database().await;
        database
            .admin_runs(&format!("SET ROLE tenantry_owner; {sql}"))
            .await;
        let report = database.guard_as_app(&expecting()).await;
        assert_eq!(failed(&report).contains(&"CAT011"), is_obedient, "{sql}");
        assert_eq!(
            report.worst(),
            Some(Severity::Warning),
            "{sql}\n{}",
            report.to_human()
        );
    }
}

/// What the unknown migration made beside an obedient table is found as before.
#[tokio::test]
async fn other_objects_of_the_service_are_findings() {
    let _roles = ROLES.read().await;
    for (sql, fails, worst) in [
        ("CREATE TABLE open (id int)", "TEN002", Severity::Critical),
        (
            "ALTER TABLE tasks ADD COLUMN further text",
            "CAT002",
            Severity::Warning,
        ),
        ("CREATE SCHEMA more", "CAT002", Severity::Warning),
        (
            "GRANT SELECT ON operators TO tenantry_app",
            "CAT005",
            Severity::Critical,
        ),
    ] {
        let database = database().await;
        database.admin_runs(sql).await;
        let report = database.guard_as_app(&expecting()).await;
        assert!(failed(&report).contains(&fails), "{sql}\n{}", report.to_human());
        assert_eq!(report.worst(), Some(worst), "{sql}");
        assert_eq!(obedient(&report), ["public.bills"], "{sql}");
    }
}

#[tokio::test]
async fn recorded_tables_of_a_service_are_compared() {
    let _roles = ROLES.read().await;
    let database = database().await;
    let recorded = record(&mut database.admin().await, &expecting()).await.unwrap();
    let known: Vec<&str> = CATALOGUE.lines().collect();
    let recorded = recorded.to_string();
    let own: Vec<&str> = recorded.lines().filter(|line| !known.contains(line)).collect();
    assert!(own.iter().all(|line| line.contains("bills")), "{own:?}");
    let options = Options {
        expected: Some(format!("{CATALOGUE}\n{}", own.join("\n")).parse().unwrap()),
        ..expecting()
    };
    let report = database.guard_as_app(&options).await;
    assert_clean(&report);
    assert_eq!(obedient(&report), Vec::<&str>::new());
    database
        .admin_runs("ALTER TABLE bills ADD COLUMN further text")
        .await;
    assert_eq!(failed(&database.guard_as_app(&options).await), ["CAT003"]);
}
