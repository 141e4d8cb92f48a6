//! Batches of rows touch their own rows, whatever the statistics of the database say of the tenant, and miss none that moves meanwhile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tenancy::tenant::row_work::{self, Settled};
use tenantry_tests::{TenantWorld, World};

/// A batch of 1,000 reads some rows more than once. Before its rows were found by their places it read all of the tenant's.
const READ_AT_MOST: i64 = 10_000;

async fn add_tasks(world: &World, tenant: &TenantWorld, count: i64) {
    let sql = format!(
        "INSERT INTO tasks (tenant_id, id, created_at, updated_at, version, project_id, title, status, priority) \
         SELECT '{}', gen_random_uuid(), now(), now(), 1, '{}', 'Task ' || n, 'todo', 'normal' FROM generate_series(1, {count}) n",
        tenant.id, tenant.project
    );
    world.sql(sql).await;
}

/// A world whose statistics were made before acme got nearly all of its tasks.
async fn world_with_stale_statistics() -> World {
    let world = World::new().await;
    world
        .sql("ALTER TABLE tasks SET (autovacuum_enabled = false)")
        .await;
    add_tasks(&world, &world.globex, 3_000).await;
    world.sql("ANALYZE tasks").await;
    add_tasks(&world, &world.acme, 50_000).await;
    world
}

/// A transaction of the runtime role in acme, in which a statement that reads all of its tasks for each of a batch fails.
async fn enter<'a>(world: &World, app: &'a mut PgConnection) -> Transaction<'a, Postgres> {
    let mut tx = app.begin().await.unwrap();
    let enter = format!(
        "SET LOCAL app.current_tenant = '{}'; SET LOCAL statement_timeout = '5s'",
        world.acme.id
    );
    sqlx::raw_sql(AssertSqlSafe(enter))
        .execute(&mut *tx)
        .await
        .unwrap();
    tx
}

/// How many tasks the transaction has read.
async fn read(tx: &mut Transaction<'_, Postgres>) -> i64 {
    let sql = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'tasks'";
    sqlx::query_scalar(sql).fetch_one(&mut **tx).await.unwrap()
}

#[actix_web::test]
async fn batch_reads_its_own_rows_with_stale_statistics() {
    let world = world_with_stale_statistics().await;
    lifecycle::delete(&world.operator_cx(), world.acme.id, "a test")
        .await
        .unwrap();
    let mut app = world.database.app().await;
    for (work, status) in [("delete", "deleted"), ("restore", "deleted"), ("purge", "purged")] {
        let state = format!(
            "UPDATE tenants SET status = '{status}', row_work = '{work}' WHERE id = '{}'",
            world.acme.id
        );
        world.sql(state).await;
        let mut tx = enter(&world, &mut app).await;
        let batch = "SELECT s.seen, s.done FROM tenant_rows_step('tasks', $1, NULL, 1000) s";
        let batch: (i32, i32) = sqlx::query_as(batch)
            .bind(work)
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(batch, (1_000, 1_000), "{work}");
        let read = read(&mut tx).await;
        assert!(read <= READ_AT_MOST, "{work}: {read} rows were read");
        tx.commit().await.unwrap();
    }
}

#[actix_web::test]
async fn restored_batch_reads_its_own_rows_with_stale_statistics() {
    let world = world_with_stale_statistics().await;
    let mut app = world.database.app().await;
    let mut tx = enter(&world, &mut app).await;
    let rows = "SELECT set_config('test.rows', (SELECT jsonb_agg(to_jsonb(t) || '{\"title\": \"Changed\"}')::text \
                FROM (SELECT * FROM tasks ORDER BY id LIMIT 1000) t), true)";
    sqlx::query(rows).execute(&mut *tx).await.unwrap();
    let before = read(&mut tx).await;
    for replaced in [1_000, 0] {
        let write = "SELECT w.inserted, w.replaced FROM tenant_archive_write('tasks', current_setting('test.rows')::jsonb, '{}', true) w";
        let written: (i64, i64) = sqlx::query_as(write).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(written, (0, replaced));
    }
    let read = read(&mut tx).await - before;
    assert!(read <= READ_AT_MOST, "{read} rows were read");
}

/// A request that was under way changes a row between the choice of a batch and its change: the row has another place then.
#[actix_web::test]
async fn row_that_moves_meanwhile_is_marked_as_well() {
    let world = World::new().await;
    add_tasks(&world, &world.acme, 10).await;
    lifecycle::delete(&world.operator_cx(), world.acme.id, "a test")
        .await
        .unwrap();
    let mut admin = world.database.admin().await;
    let mut request = admin.begin().await.unwrap();
    let change = format!(
        "UPDATE tasks SET title = 'Moved' WHERE tenant_id = '{}'",
        world.acme.id
    );
    sqlx::query(AssertSqlSafe(change))
        .execute(&mut *request)
        .await
        .unwrap();
    let settle = row_work::settle(&world.app, world.acme.id, None, &|_| {});
    let end_of_request = async {
        while world.waiting_for_locks().await == 0 {
            tokio::task::yield_now().await;
        }
        request.commit().await.unwrap();
    };
    let both = async { futures_util::join!(settle, end_of_request) };
    let (settled, ()) = tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
    assert_eq!(settled.unwrap(), Settled::Done);
    let live = format!(
        "SELECT 1 FROM tasks WHERE tenant_id = '{}' AND deleted_at IS NULL",
        world.acme.id
    );
    assert_eq!(world.sql(live).await, 0);
}
