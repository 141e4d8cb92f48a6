//! Archives that an operator writes and restores: what is recorded, what a new tenant has, and versions of restored rows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tenantry_domain::archive::{ArchiveError, Put};
use tenantry_domain::kernel::SystemScope;
use tenantry_system::{FileArchiveReader, FileArchiveWriter};
use tenantry_tenancy::archive::diff::TableDiff;
use tenantry_tenancy::archive::import::{self, Imported};
use tenantry_tenancy::archive::write::Subject;
use tenantry_tenancy::archive::{file_export, read};
use tenantry_tests::{World, operator_cx};

const BECAUSE: SystemScope = SystemScope::because("a test of archives");

/// Exports acme as the command does.
async fn exported(world: &World) -> PathBuf {
    let file = world.database.exports().join("acme.tar");
    std::fs::create_dir_all(world.database.exports()).unwrap();
    let tenant = world.app.ports.tenant_rows.tenant(BECAUSE, world.acme.id).await;
    let tenant = tenant.unwrap().unwrap();
    let sink = Box::new(FileArchiveWriter::create(&file).unwrap());
    let until = world.app.ports.clock.now() + chrono::Duration::hours(1);
    file_export::export(
        &operator_cx(&world.app),
        BECAUSE,
        Subject {
            tenant: &tenant,
            person: None,
        },
        sink,
        (until, &|_| {}),
    )
    .await
    .unwrap();
    file
}

async fn restored(world: &World, file: &Path) -> Result<Put, ArchiveError> {
    let mut source = FileArchiveReader::open(file).await.unwrap();
    let verified = read::verify(&world.app, &mut source, &[]).await.unwrap();
    let operators = operator_cx(&world.app);
    let restoration = import::plan_restore(&operators, BECAUSE, verified).await.unwrap();
    restoration.run(&operators, BECAUSE, &|_| {}).await
}

async fn differs(world: &World, file: &Path) -> bool {
    let mut source = FileArchiveReader::open(file).await.unwrap();
    let verified = read::verify(&world.app, &mut source, &[]).await.unwrap();
    let operators = operator_cx(&world.app);
    let restoration = import::plan_restore(&operators, BECAUSE, verified).await.unwrap();
    restoration.diffs.iter().any(TableDiff::is_restorable)
}

/// The actions on archives in the log of acme, and in that of the operators, with their details.
async fn records(world: &World) -> [Vec<(String, Value)>; 2] {
    let is_one =
        |action: &str| action.contains("archive") || action.contains("export") || action.contains("import");
    let of_tenant = world.audit(&world.acme).await.into_iter();
    let of_operators = world.operator_events().await.into_iter();
    let of_tenant = of_tenant.map(|(action, row)| (action, row["after"].clone()));
    let of_operators = of_operators.map(|(action, row)| (action, row["details"].clone()));
    [
        of_tenant.filter(|(action, _)| is_one(action)).collect(),
        of_operators.filter(|(action, _)| is_one(action)).collect(),
    ]
}

fn actions(records: &[(String, Value)]) -> Vec<&str> {
    records.iter().map(|(action, _)| action.as_str()).collect()
}

async fn project(world: &World, name: &str) -> String {
    let made = world.post(&world.acme.admin, "/api/v1/projects", &json!({"name": name}));
    let made = made.await.expect(201).json();
    format!("/api/v1/projects/{}", made["id"].as_str().unwrap())
}

/// Users are written before projects, so they are changed when a project cannot be.
#[actix_web::test]
async fn restoration_that_stops_half_way_is_recorded() {
    let world = World::new().await;
    let path = project(&world, "Apollo").await;
    let file = exported(&world).await;
    world
        .sql(format!(
            "UPDATE users SET full_name = 'Changed' WHERE tenant_id = '{}'",
            world.acme.id
        ))
        .await;
    let admin = &world.acme.admin;
    world
        .patch(admin, &path, &json!({"name": "Gemini"}))
        .await
        .expect(200);
    let other = project(&world, "Apollo").await;

    let error = restored(&world, &file).await.unwrap_err().to_string();
    assert!(
        error.contains("of the table projects violates the unique constraint"),
        "{error}"
    );
    let begun = [
        "tenant.export_requested",
        "tenant.exported",
        "tenant.archive_compared",
        "tenant.archive_restore_begun",
        "tenant.archive_restore_failed",
    ];
    for records in records(&world).await {
        assert_eq!(actions(&records), begun);
        assert!(records[4].1["replaced"].as_u64().unwrap() > 0, "{records:?}");
    }

    world.delete(admin, &other).await.expect(204);
    // As a run that is killed after its last row leaves it: nothing differs, and the storage is not settled.
    restored(&world, &file).await.unwrap();
    assert!(!differs(&world, &file).await);
    let wrong = format!(
        "INSERT INTO storage_usage (tenant_id, created_at, bytes) VALUES ('{}', now(), 77) ON CONFLICT (tenant_id) DO UPDATE SET bytes = 77",
        world.acme.id
    );
    world.sql(wrong).await;
    let put = restored(&world, &file).await.unwrap();
    assert_eq!(put, Put::default());
    let left = format!(
        "DELETE FROM storage_usage WHERE tenant_id = '{}' AND bytes = 77",
        world.acme.id
    );
    assert_eq!(world.sql(left).await, 0, "the storage is computed anew");
    for records in records(&world).await {
        assert_eq!(actions(&records).last(), Some(&"tenant.archive_restored"));
    }
    let globex = world.audit(&world.globex).await;
    assert!(globex.iter().all(|(action, _)| !action.contains("archive")));
}

/// A client that has read a version before a restoration does not overwrite what is written after it.
#[actix_web::test]
async fn restored_row_has_a_version_that_it_never_had() {
    let world = World::new().await;
    let (path, gone) = (project(&world, "Apollo").await, project(&world, "Gemini").await);
    let file = exported(&world).await;
    let admin = &world.acme.admin;
    let rename = async |path: &str, name: &str, version: Option<&str>| {
        let mut request = world.patch(admin, path, &json!({"name": name}));
        if let Some(version) = version {
            request = request.header("If-Match", version);
        }
        request.await
    };
    let edited = rename(&path, "Apollo 2", None).await.expect(200);
    let stale = edited.header("etag").unwrap().to_owned();
    world
        .sql(format!(
            "DELETE FROM projects WHERE id = '{}'",
            gone.rsplit('/').next().unwrap()
        ))
        .await;
    restored(&world, &file).await.unwrap();
    assert!(!differs(&world, &file).await, "a version is no difference");
    rename(&path, "Apollo 3", None).await.expect(200);
    rename(&path, "Apollo 4", Some(&stale)).await.expect(412);
    // Of a row that was missing nobody knows which versions it had.
    rename(&gone, "Gemini 2", None).await.expect(200);
    for version in 1..5 {
        rename(&gone, "Gemini 3", Some(&format!("\"{version}\"")))
            .await
            .expect(412);
    }
}

#[actix_web::test]
async fn imported_tenant_has_a_data_key_and_records() {
    let world = World::new().await;
    let file = exported(&world).await;
    let imported = world.import_archive(&file, "acme-copy").await;
    let Imported { tenant, put } = imported.unwrap();
    assert!(put.inserted > 0);
    let count = async |sql: String| -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut world.database.admin().await)
            .await
            .unwrap()
    };
    let id = tenant.id;
    let keys = format!("SELECT count(*) FROM data_keys WHERE tenant_id = '{id}' AND number = 1");
    assert_eq!(count(keys).await, 1);
    for action in ["tenant.created", "tenant.import_begun", "tenant.imported"] {
        let entries =
            format!("SELECT count(*) FROM audit_events WHERE tenant_id = '{id}' AND action = '{action}'");
        assert_eq!(count(entries).await, 1, "{action}");
    }
    let [_, operators] = records(&world).await;
    assert_eq!(
        actions(&operators),
        [
            "tenant.export_requested",
            "tenant.exported",
            "tenant.import_begun",
            "tenant.imported"
        ]
    );
}

/// The second run goes on with the tenant of the first one. A run of an import that is finished records nothing.
#[actix_web::test]
async fn imports_of_one_archive_at_once_are_one_import() {
    let world = World::new().await;
    let file = exported(&world).await;
    let import = || world.import_archive(&file, "acme-copy");
    let (one, two) = futures_util::join!(import(), import());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.tenant.id, two.tenant.id);
    let again = import().await.unwrap();
    assert_eq!((again.tenant.id, again.put), (one.tenant.id, Put::default()));
    let tasks = |slug: &str| {
        format!("SELECT 1 FROM tasks k JOIN tenants t ON t.id = k.tenant_id WHERE t.slug = '{slug}'")
    };
    assert_eq!(
        world.sql(tasks("acme-copy")).await,
        world.sql(tasks("acme")).await
    );
    let entries = format!(
        "SELECT 1 FROM audit_events WHERE tenant_id = '{}' AND action = 'tenant.imported'",
        one.tenant.id
    );
    assert_eq!(world.sql(entries).await, 1);
    let records = "SELECT 1 FROM operator_events WHERE action = 'tenant.imported'";
    assert_eq!(world.sql(records).await, 1);
}
