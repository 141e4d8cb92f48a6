//! Nothing holds on to a connection, a transaction or a client for longer than the settings say.

use std::time::Duration;

use serde_json::json;
use tenantry_persistence::{PoolConfig, StatementTimeouts, tenant_tx};
use tenantry_tests::{Options, PgBouncer, World};

/// A row of the first tenant, held by somebody else for as long as this lives.
async fn hold_the_project(world: &World) -> sqlx::PgConnection {
    let mut admin = world.database.admin().await;
    let hold = format!(
        "BEGIN; SELECT 1 FROM projects WHERE id = '{}' FOR UPDATE",
        world.acme.project
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold))
        .execute(&mut admin)
        .await
        .unwrap();
    admin
}

fn options(timeouts: StatementTimeouts) -> Options {
    let options = Options::default();
    Options {
        pool: PoolConfig {
            timeouts,
            ..options.pool
        },
        ..options
    }
}

#[actix_web::test]
async fn a_request_that_is_late_is_answered_503_and_leaves_nothing_behind() {
    let mut options = options(StatementTimeouts::default());
    options.http.request_timeout = Duration::from_millis(300);
    // As many as can be late at once: none of their connections may be lost for good.
    options.pool.size = 2;
    let world = World::with(options).await;
    let before = world.digest(&world.acme).await;
    let holding = hold_the_project(&world).await;
    let path = format!("/api/v1/projects/{}", world.acme.project);
    let body = json!({"name": "Too late"});
    for _ in 0..3 {
        let reply = world.patch(&world.acme.admin, &path, &body).await;
        let reply = reply.problem(503, "unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    sqlx::Connection::close(holding).await.unwrap();
    world.get(&world.acme.admin, "/api/v1/projects").await.expect(200);
    assert_eq!(world.digest(&world.acme).await, before);
    world.patch(&world.acme.admin, &path, &body).await.expect(200);
}

#[actix_web::test]
async fn waiting_for_a_lock_ends_with_the_lock_timeout_of_the_settings() {
    let timeouts = StatementTimeouts {
        lock: Some(Duration::from_millis(50)),
        ..StatementTimeouts::default()
    };
    let world = World::with(options(timeouts)).await;
    let _holding = hold_the_project(&world).await;
    let path = format!("/api/v1/projects/{}", world.acme.project);
    let late = world.patch(&world.acme.admin, &path, &json!({"name": "Late"}));
    late.await.problem(503, "unavailable");
}

#[actix_web::test]
async fn a_lock_timeout_at_begin_is_not_retried() {
    let timeouts = StatementTimeouts {
        lock: Some(Duration::from_millis(50)),
        ..StatementTimeouts::default()
    };
    let world = World::with(Options {
        pool: PoolConfig {
            size: 1,
            ..options(timeouts).pool
        },
        ..Options::default()
    })
    .await;
    let backend = async || -> i32 {
        let sql = "SELECT pid FROM pg_stat_activity WHERE usename = 'tenantry_app' AND datname = $1";
        sqlx::query_scalar(sql)
            .bind(world.database.name())
            .fetch_one(&mut world.database.admin().await)
            .await
            .unwrap()
    };
    let look = || async {
        world.outlive_the_cache();
        world.get(&world.acme.admin, "/api/v1/auth/me").await
    };
    look().await.expect(200);
    let before = backend().await;
    let mut holding = world.database.admin().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE refresh_sessions IN ACCESS EXCLUSIVE MODE")
        .execute(&mut holding)
        .await
        .unwrap();
    look().await.problem(503, "unavailable");
    // A connection would be closed for each attempt.
    assert_eq!(backend().await, before);
    sqlx::Connection::close(holding).await.unwrap();
    look().await.expect(200);
    assert_eq!(backend().await, before);
}

/// Whether a transaction of the runtime role runs under these, in the words of PostgreSQL.
async fn runs_under(world: &World, statement: &str, lock: &str, idle: &str) -> bool {
    let sql = "SELECT 1 WHERE (current_setting('statement_timeout'), current_setting('lock_timeout'), \
               current_setting('idle_in_transaction_session_timeout')) = ($1, $2, $3)";
    let values = [statement, lock, idle].map(sea_orm::Value::from);
    let cx = world.cx(&world.acme.admin).await;
    let rows = cx
        .read(async move |work| {
            let tx = tenant_tx(work)?;
            tx.raw_sql("what a transaction runs under")
                .execute(sql, values)
                .await
        })
        .await;
    rows.unwrap() == 1
}

fn odd() -> StatementTimeouts {
    StatementTimeouts {
        statement: Some(Duration::from_millis(12_345)),
        lock: Some(Duration::from_millis(2_345)),
        idle_in_transaction: Some(Duration::from_millis(45_678)),
    }
}

#[actix_web::test]
async fn each_transaction_runs_under_the_timeouts_of_the_settings_or_else_of_the_role() {
    let world = World::with(options(odd())).await;
    // The second time on the same connection, whose session was cleaned in between.
    for _ in 0..2 {
        assert!(runs_under(&world, "12345ms", "2345ms", "45678ms").await);
    }
    let world = World::new().await;
    assert!(runs_under(&world, "30s", "5s", "1min").await);
}

#[actix_web::test]
async fn behind_a_pooler_they_hold_for_the_transaction_and_for_nobody_else() {
    let bouncer = PgBouncer::start(1, &[]);
    let pooled = |timeouts| {
        let mut options = options(timeouts);
        options.pool.behind_pooler = true;
        options.pooler = Some(bouncer.address());
        options
    };
    let world = World::with(pooled(odd())).await;
    assert!(runs_under(&world, "12345ms", "2345ms", "45678ms").await);
    // On the one server connection there is.
    let other = World {
        app: world.instance(&pooled(StatementTimeouts::default())).app,
        ..world
    };
    assert!(runs_under(&other, "30s", "5s", "1min").await);
}
