//! Behind a PgBouncer in transaction mode, where each transaction may run on another server connection: tenants are
//! kept apart as without it, and nothing depends on statements that were prepared before.
//!
//! What makes it work is [`PoolConfig::behind_pooler`]: statements are prepared without a name, and the connection
//! asks for no parameter that PgBouncer does not know. The tests at the end say what happens without.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tenantry_domain::kernel::{StoreError, TenantId};
use tenantry_domain::store::{Units, Work};
use tenantry_domain::tenant::TenantScope;
use tenantry_persistence::{Pool, PoolConfig, TenantTx, tenant_tx};
use tenantry_tests::{Options, PgBouncer, TenantWorld, World};

use crate::idempotency;

mod task {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tasks")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub project_id: Uuid,
        pub title: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
    tenantry_persistence::tenant_entity!(Entity, Model, Column);
}

/// Server connections of each role; the application has many more of its own.
const SERVER_CONNECTIONS: u32 = 2;

fn options(bouncer: &PgBouncer) -> Options {
    let pool = PoolConfig {
        size: 20,
        acquire_timeout: Duration::from_secs(10),
        behind_pooler: true,
        ..PoolConfig::default()
    };
    Options {
        pool,
        pooler: Some(bouncer.address()),
        ..Options::default()
    }
}

/// A world whose two roles both connect through a bouncer.
async fn world() -> (World, PgBouncer) {
    let bouncer = PgBouncer::start(SERVER_CONNECTIONS, &[]);
    (World::with(options(&bouncer)).await, bouncer)
}

async fn scopes(world: &World) -> (Units, TenantScope, TenantScope) {
    let acme = world.cx(&world.acme.admin).await.scope().clone();
    let globex = world.cx(&world.globex.admin).await.scope().clone();
    (world.app.ports.units.clone(), acme, globex)
}

#[actix_web::test]
async fn parallel_requests_of_two_tenants_over_two_server_connections_stay_apart() {
    let (world, bouncer) = world().await;
    let names = |tenant: &TenantWorld| {
        if tenant.slug == "acme" {
            ("Acme Inc", "globex")
        } else {
            ("Globex Corp", "acme")
        }
    };
    let mut created = [0_u64; 2];
    for round in 0..6 {
        let requests = (0..50).map(|number| {
            let (tenant, index) = if number % 2 == 0 {
                (&world.acme, 0)
            } else {
                (&world.globex, 1)
            };
            let world = &world;
            async move {
                let admin = &tenant.admin;
                let (project, label) = (tenant.project, format!("{} {round} {number}", names(tenant).0));
                let body = json!({"title": label, "description": format!("secret of {}", tenant.slug)});
                let request = match number % 5 {
                    0 => world.get(admin, "/api/v1/tasks?limit=50"),
                    1 => world.get(admin, &format!("/api/v1/projects/{project}")),
                    2 => world.patch(admin, &format!("/api/v1/tasks/{}", tenant.task), &body),
                    3 => world.get(admin, "/api/v1/users"),
                    _ => world.post(admin, &format!("/api/v1/projects/{project}/tasks"), &body),
                };
                (index, tenant, request.await)
            }
        });
        for (index, tenant, reply) in join_all(requests).await {
            assert!(
                [200, 201].contains(&reply.status),
                "{} {}",
                reply.status,
                reply.text()
            );
            created[index] += u64::from(reply.status == 201);
            let (own, other) = names(tenant);
            let text = reply.text();
            assert!(text.contains(own) || text.contains(tenant.slug), "{text}");
            assert!(!text.to_lowercase().contains(other), "{}: {text}", tenant.slug);
        }
    }
    for (tenant, created) in [(&world.acme, created[0]), (&world.globex, created[1])] {
        let (_, acme, globex) = scopes(&world).await;
        let scope = if tenant.slug == "acme" { &acme } else { &globex };
        let rows = tasks(&world.app.ports.units, scope).await.unwrap();
        assert_eq!(rows.len() as u64, created + 1, "{}", tenant.slug);
        assert!(created > 20);
        assert!(rows.iter().all(|row| TenantId::from(row.tenant_id) == tenant.id));
        assert!(
            rows.iter().all(|row| row.title.starts_with(names(tenant).0)),
            "{rows:?}"
        );
    }
    // It really was in between: the application's many connections were two on the server.
    let backends = backends(&world).await;
    assert!(
        (1..=i64::from(SERVER_CONNECTIONS)).contains(&backends),
        "{backends}"
    );
    assert!(world.pool.open() > 2, "{}", world.pool.open());
    assert_no_statement_was_missing(&bouncer);
}

#[actix_web::test]
async fn foreign_ids_are_ids_of_nothing_behind_a_pooler_too() {
    let (world, bouncer) = world().await;
    let before = world.digest(&world.globex).await;
    let (admin, globex) = (&world.acme.admin, &world.globex);
    let probes = ["projects", "tasks", "resources", "users"].into_iter().zip([
        globex.project.to_string(),
        globex.task.to_string(),
        globex.resource.to_string(),
        globex.member.id.to_string(),
    ]);
    for (noun, id) in probes {
        let path = format!("/api/v1/{noun}/{id}");
        let all = [
            world.get(admin, &path),
            world.patch(admin, &path, &json!({})),
            world.delete(admin, &path),
        ];
        for reply in join_all(all.map(tenantry_tests::Request::send)).await {
            assert!([404, 422].contains(&reply.status), "{path}: {}", reply.text());
        }
        world.get(admin, &path).await.problem(404, "not_found");
    }
    assert_eq!(world.digest(globex).await, before);
    assert_no_statement_was_missing(&bouncer);
}

#[actix_web::test]
async fn the_scoped_transaction_keeps_its_promises_behind_a_pooler() {
    let (world, bouncer) = world().await;
    let (units, acme, globex) = scopes(&world).await;
    let before = world.digest(&world.globex).await;
    // A condition that is always true.
    let always = || {
        Condition::any()
            .add(Expr::val(1).eq(1))
            .add(task::Column::Id.is_not_null())
    };
    let (seen, counted, changed) = on_tx(&units, &acme, async |tx| {
        let seen = tx.find::<task::Entity>().filter(always()).all().await?;
        let counted = tx.find::<task::Entity>().filter(always()).count().await?;
        let row = task::ActiveModel {
            title: Set("changed".into()),
            ..Default::default()
        };
        Ok((
            seen.len(),
            counted,
            tx.update::<task::Entity>()
                .set(row)
                .filter(always())
                .run()
                .await?,
        ))
    })
    .await
    .unwrap();
    assert_eq!((seen, counted, changed), (1, 1, 1));
    // A row of another tenant, by a builder and by SQL.
    let row = task::ActiveModel {
        tenant_id: Set(world.globex.id.uuid()),
        ..Default::default()
    };
    let refused = on_tx(&units, &acme, async |tx| tx.insert(row.clone()).await).await;
    assert!(
        matches!(refused, Err(StoreError::IsolationBreach { .. })),
        "{refused:?}"
    );
    let stolen: &'static str = format!("SELECT * FROM tasks WHERE tenant_id = '{}'", world.globex.id).leak();
    let moved: &'static str = format!("UPDATE tasks SET tenant_id = '{}'", world.globex.id).leak();
    assert_eq!(
        on_tx(&units, &acme, async |tx| tx
            .raw_sql("an attack")
            .execute(stolen, [])
            .await)
        .await,
        Ok(0)
    );
    let refused = on_tx(&units, &acme, async |tx| {
        tx.raw_sql("an attack").execute(moved, []).await
    })
    .await;
    assert!(matches!(refused, Err(StoreError::RowSecurity(_))), "{refused:?}");
    // Work that fails leaves nothing, nor does a failure that is swallowed.
    let own = world.digest(&world.acme).await;
    let failed: Result<(), StoreError> = on_tx(&units, &acme, async |tx| {
        tx.delete::<task::Entity>().run().await?;
        Err(StoreError::Other("on purpose".into()))
    })
    .await;
    assert_eq!(failed, Err(StoreError::Other("on purpose".into())));
    let swallowed = on_tx(&units, &acme, async |tx| {
        tx.delete::<task::Entity>().run().await?;
        assert!(tx.raw_sql("a failure").execute("SELECT 1 / 0", []).await.is_err());
        Ok(())
    });
    assert!(swallowed.await.is_err());
    assert_eq!(world.digest(&world.acme).await, own);
    // A panic.
    let panicked = tokio::spawn({
        let (units, acme) = (units.clone(), acme.clone());
        async move {
            on_tx(&units, &acme, async |tx| -> Result<(), StoreError> {
                tx.delete::<task::Entity>().run().await?;
                std::panic::resume_unwind(Box::new("on purpose"))
            })
            .await
        }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(titles(&units, &acme).await, ["changed"]);
    assert_eq!(titles(&units, &globex).await, ["Globex Corp task"]);
    assert_eq!(world.digest(&world.globex).await, before);
    assert_no_statement_was_missing(&bouncer);
}

#[actix_web::test]
async fn requests_that_are_dropped_leave_nothing_behind_on_the_servers_connections() {
    let (world, bouncer) = world().await;
    let (units, acme, globex) = scopes(&world).await;
    let before = world.digest(&world.globex).await;
    let body = json!({"title": "Acme Inc, dropped or not"});
    let (mut dropped, mut made) = (0, 0);
    // A request takes two polls where all answers are there at once, and many on a machine that has much else to do.
    for polls in (1..=2).cycle().take(40).chain(1..=40) {
        let request = world.post(
            &world.acme.admin,
            &format!("/api/v1/projects/{}/tasks", world.acme.project),
            &body,
        );
        match dropped_after(polls, request.send()).await {
            Some(reply) => {
                reply.expect(201);
                made += 1;
            }
            None => dropped += 1,
        }
        // Whoever is next, on the same two connections, is somebody else.
        assert_eq!(titles(&units, &globex).await, ["Globex Corp task"]);
    }
    assert!(dropped > 3 && made > 3, "{dropped} dropped, {made} made");
    let slow = on_tx(&units, &acme, async |tx| {
        tx.delete::<task::Entity>().run().await?;
        tx.find::<task::Entity>()
            .filter(Expr::cust("pg_sleep(0.2) IS NULL"))
            .all()
            .await?;
        tx.raw_sql("to be slow").execute("SELECT pg_sleep(5)", []).await
    });
    assert!(
        tokio::time::timeout(Duration::from_millis(300), slow)
            .await
            .is_err()
    );
    end_sleepers(&world).await;
    assert_nothing_is_left_open(&world).await;
    let mine = titles(&units, &acme).await;
    assert!(mine.len() > made, "{} tasks, {made} acknowledged", mine.len());
    assert!(mine.iter().all(|title| title.starts_with("Acme Inc")), "{mine:?}");
    assert_eq!(world.digest(&world.globex).await, before);
    assert_no_statement_was_missing(&bouncer);
}

#[actix_web::test]
async fn backends_that_are_killed_cost_a_request_and_no_more() {
    let (world, bouncer) = world().await;
    let mut admin = world.database.admin().await;
    let (mut served, mut unavailable) = (0, 0);
    for _ in 0..10 {
        let requests = (0..20).map(|number| {
            let tenant = if number % 2 == 0 {
                &world.acme
            } else {
                &world.globex
            };
            let request = world.get(&tenant.admin, "/api/v1/tasks");
            async move { (tenant, request.await) }
        });
        let kill = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'tenantry_app'",
        )
        .execute(&mut admin);
        let (replies, killed) = futures_util::future::join(join_all(requests), kill).await;
        killed.unwrap();
        for (tenant, reply) in replies {
            match reply.status {
                200 => {
                    let other = if tenant.slug == "acme" { "Globex" } else { "Acme" };
                    assert!(!reply.text().contains(other), "{}", reply.text());
                    served += 1;
                }
                503 => unavailable += 1,
                other => panic!("{other} {}", reply.text()),
            }
        }
    }
    assert!(served > 0, "{served} served, {unavailable} unavailable");
    let (units, acme, globex) = scopes(&world).await;
    assert_eq!(titles(&units, &acme).await, ["Acme Inc task"]);
    assert_eq!(titles(&units, &globex).await, ["Globex Corp task"]);
    assert_no_statement_was_missing(&bouncer);
}

#[actix_web::test]
async fn requests_with_one_key_are_done_once_behind_a_pooler_too() {
    let (world, bouncer) = world().await;
    idempotency::fifty_at_once(&world).await;
    assert_no_statement_was_missing(&bouncer);
}

#[actix_web::test]
async fn the_tenant_of_a_transaction_is_not_that_of_the_next_on_the_same_server_connection() {
    let (world, bouncer) = world().await;
    let (units, acme, globex) = scopes(&world).await;
    let mut other = through(&world, &bouncer).await;
    let session: &'static str = format!("SET SESSION app.current_tenant = '{}'", world.globex.id).leak();
    for turn in 0..40 {
        let scope = if turn % 2 == 0 { &acme } else { &globex };
        let all = join_all((0..3).map(|_| titles(&units, scope))).await;
        assert!(
            all.iter().all(|titles| *titles == all[0] && titles.len() == 1),
            "{all:?}"
        );
        // Raw SQL that sets it for the session is undone with its transaction, also when the server connections change
        // hands in between.
        let raw = (0..8).map(|_| {
            on_tx(&units, &acme, async move |tx| {
                let hold = "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM tasks";
                tx.raw_sql("an attack").execute(hold, []).await?;
                tx.raw_sql("an attack").execute(session, []).await
            })
        });
        for outcome in join_all(raw).await {
            outcome.unwrap();
        }
        // Somebody who begins without a tenant, on both server connections.
        let mut second = through(&world, &bouncer).await;
        run(&mut other, "BEGIN").await;
        run(&mut second, "BEGIN").await;
        for connection in [&mut other, &mut second] {
            assert_eq!(
                text(
                    connection,
                    "SELECT coalesce(current_setting('app.current_tenant', true), '')"
                )
                .await,
                ""
            );
            assert_eq!(text(connection, "SELECT count(*)::text FROM tasks").await, "0");
            assert_eq!(
                text(
                    connection,
                    "SELECT count(*)::text FROM pg_cursors WHERE name = 'held'"
                )
                .await,
                "0"
            );
            run(connection, "COMMIT").await;
        }
    }
    assert_no_statement_was_missing(&bouncer);
}

/// The first that somebody sees who forgot the setting: PgBouncer refuses the connection by naming the parameter.
#[actix_web::test]
async fn without_the_setting_the_first_connection_is_refused_and_says_why() {
    let (world, bouncer) = world().await;
    let url = PgBouncer::route(&world.database.app_url(), bouncer.address());
    let pool = Pool::new(
        &url,
        &PoolConfig {
            behind_pooler: false,
            ..PoolConfig::default()
        },
    )
    .unwrap();
    match pool.ping().await {
        Err(StoreError::Unavailable(message)) => assert!(message.contains("extra_float_digits"), "{message}"),
        // A later PgBouncer may know the parameter.
        other => assert_eq!(other, Ok(())),
    }
}

/// Who tells PgBouncer to overlook the parameter, as its manual suggests, and not us of PgBouncer: statements prepared by
/// name are on one server connection and missing or taken on the next. That is an error that says so (a PgBouncer from
/// 1.21 on can keep track of them, then it works); it is never another tenant's row.
#[actix_web::test]
async fn without_the_setting_named_statements_fail_with_their_name_or_work_and_show_nothing_of_others() {
    let bouncer = PgBouncer::start(
        SERVER_CONNECTIONS,
        &["ignore_startup_parameters = extra_float_digits"],
    );
    let world = World::with(options(&bouncer)).await;
    let (_, acme, globex) = scopes(&world).await;
    let options = options(&bouncer);
    let unaware = Options {
        pool: PoolConfig {
            behind_pooler: false,
            // It would be refused for another parameter.
            generic_plans: false,
            ..options.pool.clone()
        },
        ..options
    };
    let app = world.instance(&unaware).app;
    let mut failures = 0;
    for _ in 0..10 {
        let reads = (0..10).map(|number| {
            let (tenant, scope) = if number % 2 == 0 {
                (&world.acme, &acme)
            } else {
                (&world.globex, &globex)
            };
            let units = app.ports.units.clone();
            async move { (tenant, tasks(&units, scope).await) }
        });
        for (tenant, outcome) in join_all(reads).await {
            match outcome {
                Ok(rows) => {
                    assert_eq!(rows.len(), 1, "{}", tenant.slug);
                    assert_eq!(TenantId::from(rows[0].tenant_id), tenant.id);
                }
                Err(error) => {
                    assert!(error.to_string().contains("prepared statement"), "{error}");
                    failures += 1;
                }
            }
        }
    }
    eprintln!("{failures} of 100 reads failed for want of a prepared statement");
    // Beside it, who knows of PgBouncer is not disturbed.
    assert_eq!(titles(&world.app.ports.units, &acme).await, ["Acme Inc task"]);
}

// ---------------------------------------------------------------------------------------------------------- the helpers

/// Runs something on the transaction itself.
async fn on_tx<T>(
    units: &Units,
    scope: &TenantScope,
    work: impl AsyncFnOnce(&mut TenantTx) -> Result<T, StoreError> + Clone,
) -> Result<T, StoreError> {
    units
        .write(scope, async |unit: &mut Work| {
            work.clone()(tenant_tx(unit)?).await
        })
        .await
}

async fn tasks(units: &Units, scope: &TenantScope) -> Result<Vec<task::Model>, StoreError> {
    units
        .read(scope, async |work: &mut Work| {
            tenant_tx(work)?.find::<task::Entity>().all().await
        })
        .await
}

async fn titles(units: &Units, scope: &TenantScope) -> Vec<String> {
    tasks(units, scope)
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.title)
        .collect()
}

/// The outcome, unless the future is still at work after so many steps: then it is dropped.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => {
            left -= 1;
            if left == 0 {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}

/// Nobody was told of a statement that is not where they left it, and no connection was refused.
fn assert_no_statement_was_missing(bouncer: &PgBouncer) {
    let log = bouncer.log();
    assert!(
        !log.contains("prepared statement") && !log.contains("unsupported startup parameter"),
        "{log}"
    );
}

/// A connection of the runtime role through the bouncer.
async fn through(world: &World, bouncer: &PgBouncer) -> PgConnection {
    let url = PgBouncer::route(&world.database.app_url(), bouncer.address());
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    PgConnection::connect_with(&options.extra_float_digits(None))
        .await
        .unwrap()
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

async fn text(connection: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query_scalar(sql)
        .persistent(false)
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn backends(world: &World) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'tenantry_app'";
    sqlx::query_scalar(sql)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

async fn end_sleepers(world: &World) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
               AND query LIKE '%pg_sleep(5)%' AND pid <> pg_backend_pid()";
    sqlx::query(sql)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
}

/// What was dropped is rolled back as soon as the bouncer notices.
async fn assert_nothing_is_left_open(world: &World) {
    let mut admin = world.database.admin().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'tenantry_app' AND state <> 'idle'",
        )
        .fetch_one(&mut admin)
        .await
        .unwrap();
        if open == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{open} transactions are left open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
