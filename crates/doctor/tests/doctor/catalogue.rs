//! What is recorded of a database, and what is known of PostgreSQL itself.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::Row as _;
use tenantry_doctor::{Manifest, record};
use tenantry_migration::CATALOGUE;

use crate::support::{Database, ROLES, options, run};

/// Set by `scripts/write-catalogue`: the files are written anew rather than compared.
const WRITE: &str = "TENANTRY_WRITE_CATALOGUE";

#[tokio::test]
async fn the_recorded_catalogue_is_what_migrations_make() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let found = record(&mut database.admin().await, &options()).await.unwrap();
    let text = format!("# What the migrations make; written by scripts/write-catalogue.\n{found}");
    if written("../../migration/catalogue.txt", &text) {
        return;
    }
    let expected: Manifest = CATALOGUE.parse().unwrap();
    let lines = |manifest: &Manifest| {
        let text = manifest.to_string();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (expected, found) = (lines(&expected), lines(&found));
    let missing = expected.iter().filter(|line| !found.contains(line));
    let unknown = found.iter().filter(|line| !expected.contains(line));
    let difference: Vec<String> = missing
        .map(|line| format!("- {line}"))
        .chain(unknown.map(|line| format!("+ {line}")))
        .collect();
    assert!(
        difference.is_empty(),
        "the migrations make something else than migration/catalogue.txt says; if it is meant, run \
         scripts/write-catalogue:\n{}",
        difference.join("\n")
    );
}

#[tokio::test]
async fn every_user_records_the_same() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let by_admin = record(&mut database.admin().await, &options()).await.unwrap();
    for (user, password) in [
        ("tenantry_app", "app"),
        ("tenantry_platform", "platform"),
        ("tenantry_owner", "owner"),
    ] {
        let found = record(&mut database.connect(user, password).await, &options())
            .await
            .unwrap();
        assert_eq!(found.to_string(), by_admin.to_string(), "{user}");
    }
}

/// Its body is stored with the number of the table, which is another one in each database.
#[tokio::test]
async fn a_function_of_standard_sql_is_recorded_alike_everywhere() {
    let _roles = ROLES.read().await;
    let mut recorded = Vec::new();
    for before in ["", "CREATE TABLE earlier (); DROP TABLE earlier;"] {
        let database = Database::migrated().await;
        let mut admin = database.admin().await;
        let made = format!(
            "{before} CREATE TABLE counted (); CREATE FUNCTION total() RETURNS bigint LANGUAGE sql
             BEGIN ATOMIC SELECT count(*) FROM counted; END"
        );
        run(&mut admin, &made).await.unwrap();
        recorded.push(record(&mut admin, &options()).await.unwrap().to_string());
    }
    assert!(recorded[0].contains("total()"), "{}", recorded[0]);
    assert_eq!(recorded[0], recorded[1]);
}

/// What PostgreSQL's own catalogues hold is compared with these digests. Releases of a major version may have several.
#[tokio::test]
async fn the_own_catalogues_of_this_release_are_known() {
    let _roles = ROLES.read().await;
    let database = Database::empty().await;
    let mut admin = database.admin().await;
    let major = admin.server_version_num().unwrap() / 10_000;
    run(&mut admin, "SET search_path = ''").await.unwrap();
    let sql = include_str!("../../src/catalogue/built_in.sql");
    let rows = sqlx::raw_sql(sql).fetch_all(&mut admin).await.unwrap();
    let found = rows.iter().map(|row| {
        let (class, digest): (String, String) = (row.get(0), row.get(1));
        format!("{major} {class} {digest}")
    });
    let known: BTreeSet<String> = include_str!("../../src/check/catalogues.txt")
        .lines()
        .map(str::to_owned)
        .collect();
    let all: BTreeSet<String> = found.chain(known.clone()).collect();
    let text = all.iter().map(|line| format!("{line}\n")).collect::<String>();
    if !written("src/check/catalogues.txt", &text) {
        assert_eq!(
            known, all,
            "run scripts/write-catalogue, and note the release in check/built_in.rs"
        );
    }
}

/// Functions that were altered are looked up in the list: one that was changed back is as it was. On other versions a few of
/// them are unknown, and stay findings.
#[tokio::test]
async fn the_known_functions_are_those_of_version_15() {
    let _roles = ROLES.read().await;
    let database = Database::empty().await;
    let mut admin = database.admin().await;
    if admin.server_version_num().unwrap() / 10_000 != 15 {
        return;
    }
    let rows = sqlx::raw_sql(DIGESTS).fetch_all(&mut admin).await.unwrap();
    let digests: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let text = digests.join("\n") + "\n";
    if !written("src/check/functions_15.txt", &text) {
        assert_eq!(include_str!("../../src/check/functions_15.txt"), text);
    }
}

const DIGESTS: &str = "
    SELECT DISTINCT left(md5(concat_ws('/', n.nspname, p.proname, p.proargtypes::text, p.proowner, l.lanname, p.prosrc,
        p.probin, pg_get_function_sqlbody(p.oid), p.proleakproof, p.prosecdef, p.proisstrict, p.proretset, p.provolatile, p.prokind,
        p.proconfig::text, p.prosupport::oid)), 12)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE p.oid < 16384 ORDER BY 1";

/// Writes the file when that was asked for.
fn written(path: &str, text: &str) -> bool {
    let asked = std::env::var_os(WRITE).is_some();
    if asked {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), text).unwrap();
    }
    asked
}
