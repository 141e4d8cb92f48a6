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
