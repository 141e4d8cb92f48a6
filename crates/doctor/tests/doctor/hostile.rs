//! Names that try to get out of where they are put.

use tenantry_doctor::{Certificate, Occasion, Options};

use crate::support::{Database, ROLES, assert_clean, failed, options};

/// In a name it ends a quote, a comment line, and a statement.
const EVIL: &str = "a\"b'c\n; DROP TABLE tasks; --\r\u{1b}[2J\u{202e}\\x";

#[tokio::test]
async fn hostile_names_stay_names() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let quoted = |more: &str| format!("\"{}{more}\"", EVIL.replace('"', "\"\""));
    let sql = SCHEMA
        .replace("{evil}", &quoted(""))
        .replace("{evil2}", &quoted("2"))
        .replace("{evil3}", &quoted("3"))
        .replace("{database}", &database.name);
    database.admin_runs(&sql).await;
    let list = |name: &str| vec![name.to_owned()];
    let options = Options {
        tenant_functions: list(EVIL),
        global_unique: list("once"),
        ..options()
    };
    let report = database.examine(&options).await;
    let expected = [
        "TEN004", "TEN006", "RLS001", "RLS002", "RLS005", "KEY001", "KEY004", "KEY005", "VIEW001", "VIEW002",
        "VIEW004", "FUN001", "FUN002", "GRANT001", "GRANT003", "GRANT006", "PUB001",
    ];
    assert_eq!(failed(&report), expected, "{}", report.to_human());
    let occasion = Occasion {
        generated_at: EVIL.to_owned(),
        command: EVIL.to_owned(),
        test_evidence: None,
    };
    let page = Certificate::new(&report, occasion).to_markdown();
    for text in [report.to_human(), report.fix_script(), page] {
        assert!(
            !text.contains('\u{1b}') && !text.contains('\r') && !text.contains('\u{202e}'),
            "{text}"
        );
    }
    database.admin_runs(&report.fix_script()).await;
    let after = database.examine(&options).await;
    assert_eq!(
        failed(&after),
        ["KEY005", "VIEW002", "VIEW004", "PUB001"],
        "{}",
        after.to_human()
    );
    // What the script left as comments does what it says, too.
    for mend in after
        .failures()
        .flat_map(|check| &check.findings)
        .filter_map(|finding| finding.mend.as_ref())
    {
        database.admin_runs(&mend.sql()).await;
    }
    assert_clean(&database.examine(&options).await);
}

const SCHEMA: &str = "
    GRANT CREATE ON DATABASE {database} TO tenantry_owner;
    SET ROLE tenantry_owner;
    CREATE SCHEMA {evil};
    GRANT CREATE ON SCHEMA {evil} TO tenantry_app;
    CREATE TABLE {evil}.{evil} (tenant_id uuid, {evil} uuid);
    CREATE INDEX {evil} ON tasks (title);
    CREATE UNIQUE INDEX once ON tasks (id);
    ALTER TABLE {evil}.{evil} ADD CONSTRAINT {evil} FOREIGN KEY ({evil}) REFERENCES tasks (id);
    CREATE POLICY {evil} ON {evil}.{evil} USING ({evil} IS NULL);
    GRANT TRUNCATE, REFERENCES ({evil}) ON {evil}.{evil} TO tenantry_app;
    GRANT SELECT ({evil}) ON {evil}.{evil} TO PUBLIC;
    CREATE VIEW {evil}.v AS SELECT {evil} FROM {evil}.{evil};
    CREATE MATERIALIZED VIEW {evil}.{evil2} AS SELECT {evil} FROM {evil}.{evil};
    CREATE RULE {evil} AS ON INSERT TO {evil}.{evil} DO ALSO NOTIFY tasks;
    CREATE TYPE {evil}.{evil3} AS (a int);
    CREATE FUNCTION {evil}.{evil}({evil} {evil}.{evil3}) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    GRANT EXECUTE ON FUNCTION {evil}.{evil} TO tenantry_app;
    RESET ROLE;
    CREATE PUBLICATION {evil} FOR TABLE {evil}.{evil}";

#[tokio::test]
async fn every_keyword_is_quoted() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let mut admin = database.admin().await;
    let sql = "SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'";
    let words: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut admin).await.unwrap();
    let tables: Vec<String> = words
        .iter()
        .map(|word| format!("CREATE TABLE \"{word}\" (tenant_id uuid)"))
        .collect();
    database.admin_runs(&tables.join("; ")).await;
    let report = database.examine(&options()).await;
    let bare = report
        .check("RLS001")
        .unwrap()
        .findings
        .iter()
        .filter(|finding| !finding.object.name.contains('"'));
    assert_eq!(bare.count(), 0);
    database.admin_runs(&report.fix_script()).await;
}
