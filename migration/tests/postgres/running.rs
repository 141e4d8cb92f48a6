use sea_orm_migration::prelude::*;
use tenantry_migration::{
    Migrator, OnDelete, TenantTable, down, down_with, fresh, pending, status, unknown_with, up, up_with,
};

use crate::support::{A, B, Database, code, count_in, names, run, run_in};

const TABLES: &str = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";

/// How many migrations there are.
fn all() -> usize {
    Migrator::migrations().len()
}

#[tokio::test]
async fn up_with_data_down_and_up_again() {
    let database = Database::empty().await;
    let url = database.owner_url();
    assert_eq!(pending(&url).await.unwrap().len(), all());

    assert_eq!(up(&url, None).await.unwrap().len(), all());
    let tables = names(&mut database.owner().await, TABLES).await;
    database.populate().await;
    assert_eq!(pending(&url).await.unwrap(), Vec::<String>::new());
    assert_eq!(up(&url, None).await.unwrap(), Vec::<String>::new());

    assert_eq!(down(&url, None).await.unwrap().len(), all());
    assert_eq!(
        names(&mut database.owner().await, TABLES).await,
        ["seaql_migrations"]
    );

    up(&url, None).await.unwrap();
    assert_eq!(names(&mut database.owner().await, TABLES).await, tables);
    database.populate().await;
}

#[tokio::test]
async fn steps_are_counted() {
    let database = Database::empty().await;
    let url = database.owner_url();
    let first = ["m20261121_000001_tenants", "m20261121_000002_users"];
    assert_eq!(up(&url, Some(2)).await.unwrap(), first);
    assert_eq!(down(&url, Some(1)).await.unwrap(), ["m20261121_000002_users"]);
    let applied: Vec<_> = status(&url)
        .await
        .unwrap()
        .into_iter()
        .filter(|(_, applied)| *applied)
        .collect();
    assert_eq!(applied, [("m20261121_000001_tenants".to_owned(), true)]);
}

#[tokio::test]
async fn several_processes_may_migrate_at_once() {
    let database = Database::empty().await;
    let url = database.owner_url();
    let (one, two, three) = tokio::join!(up(&url, None), up(&url, None), up(&url, None));
    let applied = one.unwrap().len() + two.unwrap().len() + three.unwrap().len();
    assert_eq!(applied, all());
}

#[tokio::test]
async fn fresh_forgets_everything() {
    let database = Database::populated().await;
    let count = "SELECT count(*) FROM tasks";
    assert_eq!(count_in(&mut database.app().await, A, count).await, 1);
    assert_eq!(fresh(&database.owner_url()).await.unwrap().len(), all());
    assert_eq!(count_in(&mut database.app().await, A, count).await, 0);
}

#[tokio::test]
async fn the_runtime_role_may_look_but_not_migrate() {
    let database = Database::migrated().await;
    assert_eq!(pending(&database.app_url()).await.unwrap(), Vec::<String>::new());
    let refused = up(&database.app_url(), None).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "migrations run as tenantry_owner, but this connection is tenantry_app's"
    );
}

#[tokio::test]
async fn an_empty_database_is_looked_at_without_a_trace() {
    let database = Database::empty().await;
    assert_eq!(pending(&database.app_url()).await.unwrap().len(), all());
    assert_eq!(
        names(&mut database.owner().await, TABLES).await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn errors_are_one_line_without_the_password() {
    let database = Database::empty().await;
    let mut errors = vec![
        up("postgres://tenantry_owner:secret@127.0.0.1:1/x", None)
            .await
            .unwrap_err()
            .to_string(),
        up(&database.url("tenantry_owner", "secret"), None)
            .await
            .unwrap_err()
            .to_string(),
        up("not a URL with secret in it", None)
            .await
            .unwrap_err()
            .to_string(),
    ];
    up(&database.owner_url(), Some(1)).await.unwrap();
    let mut owner = database.owner().await;
    run(
        &mut owner,
        "INSERT INTO seaql_migrations VALUES ('m2', 1), ('m3', 1)",
    )
    .await
    .unwrap();
    errors.push(down(&database.owner_url(), None).await.unwrap_err().to_string());
    for error in errors {
        assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn another_service_adds_a_table_of_its_own() {
    let database = Database::populated().await;
    let url = database.owner_url();
    assert_eq!(
        up_with::<Ours>(&url, None).await.unwrap(),
        ["m20270101_000001_notes"]
    );
    let mut app = database.app().await;
    let insert = format!(
        "INSERT INTO notes (tenant_id, task_id, body, created_at)
         VALUES ('{A}', '00000000-0000-0000-0000-000000000004', 'x', now())"
    );
    run_in(&mut app, A, &insert).await.unwrap();
    assert_eq!(code(run_in(&mut app, A, &insert).await), "23505");
    assert_eq!(code(run_in(&mut app, B, &insert).await), "42501");
    assert_eq!(count_in(&mut app, A, "SELECT count(*) FROM notes").await, 1);
    assert_eq!(count_in(&mut app, B, "SELECT count(*) FROM notes").await, 0);
    // The stock program leaves it as it is, and works on its own migrations only.
    assert_eq!(
        unknown_with::<Migrator>(&url).await.unwrap(),
        ["m20270101_000001_notes"]
    );
    assert_eq!(pending(&url).await.unwrap(), [""; 0]);
    assert_eq!(up(&url, None).await.unwrap(), [""; 0]);
    assert!(
        status(&url)
            .await
            .unwrap()
            .iter()
            .all(|(name, applied)| *applied && name != "m20270101_000001_notes")
    );
    let error = down(&url, Some(1)).await.unwrap_err().to_string();
    assert!(
        error.starts_with("m20270101_000001_notes is a migration of another service"),
        "{error}"
    );
    assert_eq!(count_in(&mut app, A, "SELECT count(*) FROM notes").await, 1);
    assert_eq!(
        down_with::<Ours>(&url, Some(1)).await.unwrap(),
        ["m20270101_000001_notes"]
    );
}

struct Ours;

impl MigratorTrait for Ours {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = Migrator::migrations();
        all.push(Box::new(CreateNotes));
        all
    }
}

struct CreateNotes;

impl MigrationName for CreateNotes {
    fn name(&self) -> &str {
        "m20270101_000001_notes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateNotes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        notes().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        notes().drop(manager).await
    }
}

fn notes() -> TenantTable {
    TenantTable::new("notes")
        .belongs_to("task_id", "tasks", OnDelete::Cascade)
        .column("body", "text NOT NULL")
        .junction("notes_body_key", &["task_id", "body"])
}
