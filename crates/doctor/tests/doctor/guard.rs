use std::time::Instant;

use sqlx::PgConnection;
use tenantry_doctor::{Options, Outcome, Severity, guard};

use crate::support::{Database, ROLES, assert_clean, expecting, failed, options, run};

#[tokio::test]
async fn a_good_database_is_let_by() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let report = database.guard_as_app(&options()).await;
    assert_clean(&report);
    assert_eq!(report.role, "tenantry_app");
    // Every one of its checks is among those of an examination, and says the same there.
    let full = database.examine(&options()).await;
    for check in &report.checks {
        let other = full.check(check.id).unwrap();
        assert_eq!((check.title, check.severity), (other.title, other.severity));
    }
    // A newer version's migrations, extensions and the like are worth a word and no reason to stop.
    let milder = report
        .checks
        .iter()
        .filter(|check| check.severity < Severity::Error);
    let milder: Vec<&str> = milder.map(|check| check.id).collect();
    assert_eq!(milder, ["ROLE010", "GRANT002", "CAT002", "CAT010", "CAT011"]);
    assert_clean(&database.guard_as_app(&expecting()).await);
}

#[tokio::test]
async fn who_is_connected_is_who_is_examined() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let options = Options {
        runtime_role: Some("tenantry_app".to_owned()),
        ..options()
    };
    let report = guard(&mut database.admin().await, &options).await.unwrap();
    assert_eq!(failed(&report), ["RLS003", "ROLE001"]);
    let report = guard(&mut database.connect("tenantry_owner", "owner").await, &options)
        .await
        .unwrap();
    assert!(failed(&report).contains(&"ROLE006"), "{}", report.to_human());
    // A superuser in disguise can take it off.
    let mut disguised = database.admin().await;
    run(&mut disguised, "SET ROLE tenantry_app").await.unwrap();
    let report = guard(&mut disguised, &options).await.unwrap();
    assert_eq!(report.role, "tenantry_app");
    assert_eq!(failed(&report), ["ROLE001"], "{}", report.to_human());
}

#[tokio::test]
async fn what_is_critical_is_noticed() {
    let _roles = ROLES.read().await;
    for (sql, id) in [
        ("ALTER TABLE tasks DISABLE ROW LEVEL SECURITY", "RLS001"),
        ("ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY", "RLS002"),
        ("DROP POLICY tasks_select ON tasks", "RLS003"),
        (
            "ALTER POLICY tasks_select ON tasks USING (tenant_id::text < current_setting('app.current_tenant'))",
            "RLS004",
        ),
        ("CREATE POLICY open ON tasks USING (true)", "RLS005"),
        ("CREATE TABLE forgotten (id int)", "TEN002"),
        ("ALTER TABLE tasks OWNER TO tenantry_app", "ROLE006"),
    ] {
        let database = Database::migrated().await;
        database.admin_runs(sql).await;
        let report = database.guard_as_app(&options()).await;
        assert_eq!(failed(&report), [id], "{sql}\n{}", report.to_human());
        assert!(!report.passed());
        let findings = &report.check(id).unwrap().findings;
        assert!(findings.iter().all(|finding| finding.mend.is_some()));
    }
}

#[tokio::test]
async fn a_setting_that_nobody_set_is_noticed() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let mut app = database.app().await;
    run(
        &mut app,
        "SET app.current_tenant = 'somebody'; SET row_security = off; SET plpgsql.variable_conflict = use_column",
    )
    .await
    .unwrap();
    let report = guard(&mut app, &options()).await.unwrap();
    assert_eq!(failed(&report), ["SET001", "SET002", "SET003"]);
}

#[tokio::test]
async fn it_takes_one_round_trip_and_leaves_nothing() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    database
        .admin_runs(&format!(
            "ALTER DATABASE {} SET log_statement = 'all'",
            database.name
        ))
        .await;
    let mut app = database.app().await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut app)
        .await
        .unwrap();
    let before = statements(pid).await;
    let started = Instant::now();
    let report = guard(&mut app, &options()).await.unwrap();
    println!(
        "guard: {:?} for {} tables",
        started.elapsed(),
        report.tenant_tables
    );
    assert_eq!(statements(pid).await.len(), before.len() + 1);
    assert_eq!(report.count(Outcome::Fail), 0);
    assert_eq!(state(&mut app).await, ("public".to_owned(), "off".to_owned()));
}

#[tokio::test]
async fn an_error_leaves_no_transaction_behind() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let mut app = database.app().await;
    run(&mut app, "SET statement_timeout = 1").await.unwrap();
    guard(&mut app, &options()).await.unwrap_err();
    run(&mut app, "SET statement_timeout = 0").await.unwrap();
    assert_clean(&guard(&mut app, &options()).await.unwrap());
}

async fn state(connection: &mut PgConnection) -> (String, String) {
    let sql = "SELECT current_setting('search_path'), current_setting('transaction_read_only')";
    sqlx::query_as(sql).fetch_one(connection).await.unwrap()
}

/// What the server's log has of that session. Statements that come together are one entry.
async fn statements(pid: i32) -> Vec<String> {
    let log = shared_log().await;
    let mark = format!("[{pid}] ");
    log.lines()
        .filter(|line| line.contains(&mark) && line.contains(" LOG: "))
        .map(str::to_owned)
        .collect()
}

async fn shared_log() -> String {
    crate::support::shared().await.log().await
}
