use std::str::FromStr;

use sea_orm_migration::SchemaManager;
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseConnection, DbErr, SqlxPostgresConnector, TransactionTrait,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tenantry_migration::DataMigration;

use crate::support::{A, B, Database, count_in, run_in};

const TODO: &str = "SELECT count(*) FROM tasks WHERE title = 'T'";
const CHANGED: &str = "SELECT count(*) FROM tasks WHERE title = 'Untitled'";

fn untitled() -> DataMigration {
    DataMigration::on("tasks")
        .expect(TODO)
        .run("UPDATE tasks SET title = 'Untitled' WHERE title = 'T'")
}

async fn owner(database: &Database) -> DatabaseConnection {
    let options = PgConnectOptions::from_str(&database.owner_url()).unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap();
    SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
}

async fn apply(database: &Database, migration: &DataMigration) -> Result<u64, DbErr> {
    let connection = owner(database).await;
    let transaction = connection.begin().await.unwrap();
    let touched = migration.apply(&SchemaManager::new(&transaction)).await?;
    // The migration goes on as the owner.
    transaction
        .execute_unprepared("ALTER TABLE tasks ADD CONSTRAINT titled CHECK (title <> '')")
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    Ok(touched)
}

#[tokio::test]
async fn every_tenant_is_changed() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    run_in(
        &mut app,
        B,
        "UPDATE tenants SET deleted_at = now(), status = 'deleted'",
    )
    .await
    .unwrap();
    assert_eq!(apply(&database, &untitled()).await.unwrap(), 2);
    assert_eq!(count_in(&mut app, A, CHANGED).await, 1);
    assert_eq!(count_in(&mut app, B, CHANGED).await, 1);
}

#[tokio::test]
async fn a_plain_update_by_the_owner_changes_nothing() {
    let database = Database::populated().await;
    let connection = owner(&database).await;
    let done = connection
        .execute_unprepared("UPDATE tasks SET title = 'Untitled'")
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), 0);
}

#[tokio::test]
async fn counts_that_differ_undo_everything() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    run_in(&mut app, B, "UPDATE tasks SET status = 'done'")
        .await
        .unwrap();
    let careless = DataMigration::on("tasks")
        .expect(TODO)
        .run("UPDATE tasks SET title = 'Untitled' WHERE title = 'T' AND status = 'todo'");
    let error = apply(&database, &careless).await.unwrap_err().to_string();
    let expected = format!("data migration of tasks: tenant {B}: 1 rows were expected, 0 were touched");
    assert!(error.contains(&expected), "{error}");
    assert_eq!(count_in(&mut app, A, CHANGED).await, 0);
}

#[tokio::test]
async fn what_is_left_to_do_is_an_error() {
    let database = Database::populated().await;
    let idle = DataMigration::on("tasks")
        .expect(TODO)
        .run("UPDATE tasks SET title = title WHERE title = 'T'");
    let error = apply(&database, &idle).await.unwrap_err().to_string();
    let expected = format!("data migration of tasks: tenant {A}: 1 rows were touched, 1 are left to do");
    assert!(error.contains(&expected), "{error}");
}

#[tokio::test]
async fn it_needs_a_transaction() {
    let database = Database::populated().await;
    let connection = owner(&database).await;
    untitled()
        .apply(&SchemaManager::new(&connection))
        .await
        .unwrap_err();
    assert_eq!(count_in(&mut database.app().await, A, CHANGED).await, 0);
}

#[tokio::test]
async fn it_wants_to_know_what_to_do() {
    let database = Database::migrated().await;
    for incomplete in [
        DataMigration::on("tasks").run("UPDATE tasks SET title = 'x'"),
        DataMigration::on("tasks").expect(TODO),
        DataMigration::on("tasks; DROP TABLE tasks")
            .expect(TODO)
            .run("UPDATE tasks SET title = 'x'"),
    ] {
        let error = apply(&database, &incomplete).await.unwrap_err();
        assert!(matches!(error, DbErr::Migration(_)), "{error}");
    }
}
