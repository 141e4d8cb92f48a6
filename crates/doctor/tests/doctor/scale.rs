use std::time::Instant;

use tenantry_doctor::{examine, guard};

use crate::support::{Database, ROLES, failed, here, options};

/// Nothing is asserted about time, which is the machine's; that it ends at all says that nothing is quadratic.
#[tokio::test]
async fn two_thousand_tables() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    database.admin_runs(TABLES).await;
    let options = here(&options());
    let mut app = database.app().await;
    let started = Instant::now();
    let report = examine(&mut app, &options).await.unwrap();
    println!(
        "examine: {:?} for {} tables",
        started.elapsed(),
        report.tenant_tables
    );
    assert!(report.tenant_tables > 2000);
    assert_eq!(failed(&report), ["VIEW001"], "{}", report.to_human());
    let started = Instant::now();
    guard(&mut app, &options).await.unwrap();
    println!("guard: {:?}", started.elapsed());
}

const TABLES: &str = "SET ROLE tenantry_owner; DO $$
DECLARE
    rule text := 'tenant_id = nullif(current_setting(''app.current_tenant'', true), '''')::uuid';
BEGIN
    FOR n IN 1..2000 LOOP
        EXECUTE format('CREATE TABLE t%s (tenant_id uuid NOT NULL REFERENCES tenants, id uuid, body text,
            task uuid, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, task) REFERENCES tasks (tenant_id, id))', n);
        EXECUTE format('CREATE INDEX ON t%s (tenant_id, body)', n);
        EXECUTE format('ALTER TABLE t%s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', n);
        EXECUTE format('CREATE POLICY r ON t%s FOR SELECT TO tenantry_app USING (%s)', n, rule);
        EXECUTE format('CREATE POLICY a ON t%s FOR INSERT TO tenantry_app WITH CHECK (%s)', n, rule);
        EXECUTE format('CREATE POLICY w ON t%s FOR UPDATE TO tenantry_app USING (%s)', n, rule);
        EXECUTE format('CREATE POLICY d ON t%s FOR DELETE TO tenantry_app USING (%s)', n, rule);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON t%s TO tenantry_app', n);
        IF n % 100 = 0 THEN EXECUTE format('CREATE VIEW v%s AS SELECT * FROM t%s', n, n); END IF;
    END LOOP;
END $$";
