use std::collections::BTreeSet;

use tenantry_doctor::{Mend, Report};
use tenantry_migration::TenantTable;

use crate::cases::{ByHand, ByScript, CASES, Case, No, ROLE_CASES};
use crate::support::{Database, ROLES, assert_clean, failed, options, run};

#[tokio::test]
async fn each_broken_rule_is_found_and_mended() {
    let _roles = ROLES.read().await;
    for case in CASES {
        let database = Database::migrated().await;
        tries(&database, case).await;
    }
}

#[tokio::test]
async fn each_broken_rule_about_roles_is_found_and_mended() {
    let _roles = ROLES.write().await;
    for (case, restore) in ROLE_CASES {
        let database = Database::migrated().await;
        tries(&database, case).await;
        database.admin_runs(restore).await;
        assert_clean(&database.examine(&options()).await);
    }
}

#[tokio::test]
async fn no_check_is_without_a_case() {
    let _roles = ROLES.read().await;
    let report = Database::migrated().await.examine(&options()).await;
    let broken = CASES
        .iter()
        .chain(ROLE_CASES.iter().map(|(case, _)| case))
        .flat_map(|case| case.fails);
    let mut broken: BTreeSet<&str> = broken.copied().collect();
    broken.extend(crate::tamperings::ids());
    broken.extend(crate::service_tables::IDS);
    let all: BTreeSet<&str> = report.checks.iter().map(|check| check.id).collect();
    assert_eq!(broken, all);
}

async fn tries(database: &Database, case: &Case) {
    let mut options = options();
    (case.told)(&mut options);
    let sql = sql(case.breaks, database);
    database
        .admin_runs(&format!("SET ROLE tenantry_owner; {sql}"))
        .await;
    let report = database.examine(&options).await;
    let human = report.to_human();
    assert_eq!(failed(&report), case.fails, "{sql}\n{human}");
    assert!(report.failures().all(|check| !check.findings.is_empty()));
    mends(database, case, &report).await;
    if case.mended != No {
        let after = database.examine(&options).await;
        assert_eq!(
            failed(&after),
            Vec::<&str>::new(),
            "{sql}\n{}\n{}",
            report.fix_script(),
            after.to_human()
        );
    }
}

async fn mends(database: &Database, case: &Case, report: &Report) {
    let findings = report.failures().flat_map(|check| &check.findings);
    let mends: Vec<&Mend> = findings.filter_map(|finding| finding.mend.as_ref()).collect();
    // Whatever the script is, it has to run.
    database.admin_runs(&report.fix_script()).await;
    match case.mended {
        ByScript => assert!(
            !mends.is_empty() && mends.iter().all(|mend| mend.is_safe()),
            "{}",
            report.to_human()
        ),
        ByHand => {
            assert!(mends.iter().any(|mend| !mend.is_safe()), "{}", report.to_human());
            let mut admin = database.admin().await;
            for mend in mends.iter().filter(|mend| !mend.is_safe()) {
                run(&mut admin, &mend.sql()).await.unwrap();
            }
        }
        No => assert!(mends.iter().all(|mend| !mend.is_safe()), "{}", report.to_human()),
    }
}

fn sql(breaks: &str, database: &Database) -> String {
    let table = TenantTable::new("notes")
        .column("body", "text")
        .column("task", "uuid")
        .index("notes_task", &["task"]);
    let notes = table.up_sql().unwrap();
    // What makes a table secure comes after the table itself and its indexes.
    let first = notes
        .iter()
        .position(|sql| sql.starts_with("ALTER TABLE"))
        .unwrap();
    let secure = notes[first..].join("; ");
    breaks
        .replace("{notes}", &notes.join("; "))
        .replace("{secure notes}", &secure)
        .replace("{secure readings}", &secure.replace("notes", "readings"))
        .replace("{drop tenant tables}", DROP_TENANT_TABLES)
        .replace("{database}", &database.name)
        .replace(
            "{server}",
            "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing",
        )
}

const DROP_TENANT_TABLES: &str = "DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT attrelid::regclass FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE attname = 'tenant_id' AND NOT relispartition AND relkind IN ('r', 'p')
        AND relnamespace = 'public'::regnamespace
    LOOP EXECUTE 'DROP TABLE ' || name || ' CASCADE'; END LOOP; END $$";
