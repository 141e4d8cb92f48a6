//! A database that never heard of Tenantry: other names, another type, a schema of its own, policies of the other
//! kind (restrictive, with a function for the setting).

use tenantry_doctor::{Options, Outcome, Report, examine, guard};

use crate::support::{Database, ROLES, assert_clean, failed, here};

const SCHEMA: &str = "
    CREATE SCHEMA acme AUTHORIZATION acme_owner;
    REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
    GRANT USAGE ON SCHEMA acme TO acme_web;
    ALTER DEFAULT PRIVILEGES FOR ROLE acme_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    SET ROLE acme_owner; SET search_path = acme;
    CREATE FUNCTION org() RETURNS bigint LANGUAGE sql STABLE AS
        $$ SELECT nullif(current_setting('acme.org', true), '')::bigint $$;
    GRANT EXECUTE ON FUNCTION org() TO acme_web;
    CREATE TABLE orgs (org bigint PRIMARY KEY, name text UNIQUE);
    CREATE TABLE countries (code text PRIMARY KEY);
    CREATE TABLE invoices (org_id bigint NOT NULL REFERENCES orgs, number int, country text REFERENCES countries,
                           PRIMARY KEY (org_id, number));
    CREATE TABLE \"Lines\" (org_id bigint NOT NULL REFERENCES orgs, number int, place int, PRIMARY KEY (org_id, number, place),
                            FOREIGN KEY (number, org_id) REFERENCES invoices (number, org_id));
    ALTER TABLE orgs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE \"Lines\" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY own ON orgs TO acme_web USING (org = org());
    CREATE POLICY own ON invoices AS RESTRICTIVE USING (org_id = (SELECT org()));
    CREATE POLICY base ON invoices TO acme_web USING (true) WITH CHECK (true);
    CREATE POLICY own ON \"Lines\" TO acme_web USING (org_id = (SELECT org()) AND place > 0);
    GRANT SELECT, INSERT, UPDATE, DELETE ON orgs, invoices, \"Lines\" TO acme_web;
    GRANT SELECT ON countries TO acme_web";

const ROLES_SQL: &str = "DO $$ BEGIN
    IF to_regrole('acme_web') IS NULL THEN
        CREATE ROLE acme_owner; CREATE ROLE acme_web LOGIN PASSWORD 'web';
    END IF; END $$";

fn options() -> Options {
    let one = |name: &str| vec![name.to_owned()];
    Options {
        tenant_column: "org_id".to_owned(),
        setting: "acme.org".to_owned(),
        runtime_role: Some("acme_web".to_owned()),
        platform_roles: Vec::new(),
        tenants_table: "acme.orgs".to_owned(),
        tenants_id_column: "org".to_owned(),
        global_tables: one("countries"),
        tenant_functions: one("acme.org"),
        ..Options::default()
    }
}

async fn stranger() -> Database {
    let database = Database::empty().await;
    database.admin_runs(ROLES_SQL).await;
    database
        .admin_runs(&SCHEMA.replace("{database}", &database.name))
        .await;
    database
}

#[tokio::test]
async fn a_strangers_good_schema_passes() {
    let _roles = ROLES.write().await;
    let database = stranger().await;
    let report = database.examine(&options()).await;
    assert_clean(&report);
    assert_eq!((report.tenant_tables, report.global_tables), (3, 1));
    let mut web = database.connect("acme_web", "web").await;
    assert_clean(&examine(&mut web, &here(&options())).await.unwrap());
    assert_clean(&guard(&mut web, &options()).await.unwrap());
    // Without being told of the function, nobody can say what it gives.
    let untold = Options {
        tenant_functions: Vec::new(),
        ..options()
    };
    assert_eq!(
        failed(&examine(&mut web, &here(&untold)).await.unwrap()),
        ["RLS005", "RLS008"]
    );
    let elsewhere = Options {
        setting: "acme.other".to_owned(),
        ..options()
    };
    assert_eq!(
        failed(&examine(&mut web, &here(&elsewhere)).await.unwrap()),
        ["RLS005"]
    );
    // Without a table of tenants there is nothing to refer to.
    let nowhere = Options {
        tenants_table: "customers".to_owned(),
        ..options()
    };
    let report = examine(&mut web, &nowhere).await.unwrap();
    assert_eq!(report.check("TEN006").unwrap().outcome, Outcome::NotApplicable);
}

#[tokio::test]
async fn the_function_is_looked_into() {
    let _roles = ROLES.write().await;
    for (body, fails) in [
        (
            "STABLE AS 'SELECT coalesce(nullif(current_setting(''acme.org'', true), ''''), ''1'')::bigint'",
            true,
        ),
        (
            "STABLE AS 'SELECT nullif(current_setting(''acme.other'', true), '''')::bigint'",
            true,
        ),
        (
            "VOLATILE AS 'SELECT nullif(current_setting(''acme.org'', true), '''')::bigint'",
            true,
        ),
        (
            "STABLE RETURN nullif(current_setting('acme.org', true), '')::bigint",
            false,
        ),
    ] {
        let database = stranger().await;
        let sql = format!("CREATE OR REPLACE FUNCTION acme.org() RETURNS bigint LANGUAGE sql {body}");
        database.admin_runs(&sql).await;
        let report = database.examine(&options()).await;
        assert_eq!(failed(&report).contains(&"RLS005"), fails, "{body}");
    }
}

#[tokio::test]
async fn a_strangers_mistakes_are_found_and_mended() {
    let _roles = ROLES.write().await;
    let database = stranger().await;
    database
        .admin_runs(
            "ALTER TABLE acme.orgs DISABLE ROW LEVEL SECURITY; DROP POLICY own ON acme.invoices; \
             DROP POLICY own ON acme.\"Lines\"; GRANT ALL ON acme.\"Lines\" TO acme_web; \
             GRANT SELECT ON acme.countries TO PUBLIC; GRANT acme_owner TO acme_web; \
             CREATE VIEW acme.v AS SELECT * FROM acme.\"Lines\"; CREATE TABLE acme.notes (org_id bigint, body text); \
             ALTER TABLE acme.notes OWNER TO acme_owner",
        )
        .await;
    let report = database.examine(&options()).await;
    let expected = [
        "TEN004", "TEN006", "RLS001", "RLS002", "RLS003", "RLS005", "KEY004", "VIEW001", "ROLE007",
        "GRANT003", "GRANT006",
    ];
    assert_eq!(failed(&report), expected, "{}", report.to_human());
    let guarded = guard(&mut database.connect("acme_web", "web").await, &options())
        .await
        .unwrap();
    assert_eq!(
        failed(&guarded),
        [
            "RLS001", "RLS002", "RLS003", "RLS005", "VIEW001", "ROLE007", "GRANT003"
        ]
    );
    database.admin_runs(&report.fix_script()).await;
    // What was a function in a policy is the plain expression where the policy had to be made anew.
    assert_clean(&database.examine(&options()).await);
}

#[tokio::test]
async fn a_wrong_column_is_not_a_pass() {
    let _roles = ROLES.write().await;
    let database = stranger().await;
    let report: Report = database
        .examine(&Options {
            tenant_column: "orgid".to_owned(),
            ..options()
        })
        .await;
    assert_eq!(failed(&report)[..2], ["TEN001", "TEN002"]);
    assert!(!report.passed());
}
