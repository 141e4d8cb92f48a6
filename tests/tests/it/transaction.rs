//! The scoped transaction: what it lets through, and what becomes of its connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::kernel::{SessionId, StoreError, TenantId, UserId};
use tenantry_domain::store::{Units, Work};
use tenantry_domain::tenant::{Directory as _, TenantScope};
use tenantry_persistence::{Lock, PgDirectory, Pool, PoolConfig, TenantEntity, TenantTx, tenant_tx};
use tenantry_test_postgres::TestServer;
use tenantry_tests::{Options, TenantWorld, World};
use uuid::Uuid;

/// The tasks table as an embedder would declare it.
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
        pub status: String,
        pub priority: String,
        pub version: i64,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    tenantry_persistence::tenant_entity!(Entity, Model, Column);
}

/// The users table, for a join.
mod user {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub email: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
    tenantry_persistence::tenant_entity!(Entity, Model, Column);
}

/// The tasks table by somebody who got the tenant wrong: rows that come back look like another tenant's.
mod mistaken {
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
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl TenantEntity for mistaken::Entity {
    fn tenant_column() -> mistaken::Column {
        mistaken::Column::TenantId
    }
    fn tenant_of(model: &mistaken::Model) -> TenantId {
        TenantId::from(model.project_id)
    }
}

async fn world(size: usize) -> World {
    let pool = PoolConfig {
        size,
        per_tenant: size,
        acquire_timeout: Duration::from_millis(300),
        ..PoolConfig::default()
    };
    World::with(Options {
        pool,
        ..Options::default()
    })
    .await
}

async fn scopes(world: &World) -> (Units, TenantScope, TenantScope) {
    let acme = world.cx(&world.acme.admin).await.scope().clone();
    let globex = world.cx(&world.globex.admin).await.scope().clone();
    (world.app.ports.units.clone(), acme, globex)
}

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

async fn titles(units: &Units, scope: &TenantScope) -> Vec<String> {
    let rows = on_tx(units, scope, async |tx| tx.find::<task::Entity>().all().await)
        .await
        .unwrap();
    rows.into_iter().map(|row| row.title).collect()
}

#[actix_web::test]
async fn every_builder_carries_the_predicate_and_nests_the_callers_conditions() {
    let world = world(2).await;
    let (units, acme, _) = scopes(&world).await;
    let either = Condition::any()
        .add(task::Column::Title.eq("x"))
        .add(Expr::val(true).eq(true));
    let (find, both) = on_tx(&units, &acme, async |tx| {
        let find = tx
            .find::<task::Entity>()
            .filter(either.clone())
            .lock(Lock::Update)
            .to_sql();
        let same = Expr::col((user::Entity, user::Column::Id))
            .eq(Expr::col((task::Entity, task::Column::ProjectId)));
        let both = tx
            .find::<task::Entity>()
            .with::<user::Entity>(Condition::any().add(same))
            .to_sql();
        Ok((find, both))
    })
    .await
    .unwrap();
    let tenant = acme.tenant();
    let predicate = format!("WHERE \"tasks\".\"tenant_id\" = '{tenant}' AND (\"tasks\".\"title\" = 'x' OR ");
    assert!(find.contains(&predicate), "{find}");
    assert!(find.ends_with("FOR NO KEY UPDATE"), "{find}");
    assert!(
        both.contains(&format!("ON \"users\".\"tenant_id\" = '{tenant}' AND ")),
        "{both}"
    );
    assert!(
        both.contains(&format!("WHERE \"tasks\".\"tenant_id\" = '{tenant}'")),
        "{both}"
    );
}

#[actix_web::test]
async fn a_condition_that_is_always_true_still_sees_and_changes_one_tenant_only() {
    let world = world(2).await;
    let (units, acme, _) = scopes(&world).await;
    let before = world.digest(&world.globex).await;
    let always = || {
        Condition::any()
            .add(Expr::val(1).eq(1))
            .add(task::Column::Id.is_not_null())
    };
    let (seen, counted, changed, deleted) = on_tx(&units, &acme, async |tx| {
        let seen = tx.find::<task::Entity>().filter(always()).all().await?;
        let counted = tx.find::<task::Entity>().filter(always()).count().await?;
        let row = task::ActiveModel {
            title: Set("changed".into()),
            ..Default::default()
        };
        let changed = tx
            .update::<task::Entity>()
            .set(row)
            .filter(always())
            .run()
            .await?;
        let deleted = tx.delete::<task::Entity>().filter(always()).run().await?;
        Ok((seen, counted, changed, deleted))
    })
    .await
    .unwrap();
    assert_eq!((seen.len(), counted, changed, deleted), (1, 1, 1, 1));
    assert_eq!(TenantId::from(seen[0].tenant_id), world.acme.id);
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn a_row_that_names_another_tenant_is_not_inserted() {
    let world = world(2).await;
    let (units, acme, _) = scopes(&world).await;
    let row = task::ActiveModel {
        tenant_id: Set(world.globex.id.uuid()),
        ..new_task(&world)
    };
    let refused = on_tx(&units, &acme, async |tx| tx.insert(row.clone()).await).await;
    let breach = StoreError::IsolationBreach {
        table: "tasks",
        scope: world.acme.id,
        found: world.globex.id,
    };
    assert_eq!(refused, Err(breach));
}

#[actix_web::test]
async fn an_update_never_moves_a_row_to_another_tenant() {
    let world = world(2).await;
    let (units, acme, globex) = scopes(&world).await;
    let row = task::ActiveModel {
        tenant_id: Set(world.globex.id.uuid()),
        title: Set("stays".into()),
        ..Default::default()
    };
    on_tx(&units, &acme, async |tx| {
        tx.update::<task::Entity>().set(row.clone()).run().await
    })
    .await
    .unwrap();
    assert_eq!(titles(&units, &acme).await, ["stays"]);
    assert_eq!(titles(&units, &globex).await, ["Globex Corp task"]);
}

#[actix_web::test]
async fn a_row_of_another_tenant_trips_the_wire_and_is_withheld() {
    let world = world(2).await;
    let (units, acme, _) = scopes(&world).await;
    let found = on_tx(&units, &acme, async |tx| {
        tx.find::<mistaken::Entity>().all().await
    })
    .await;
    let project = TenantId::from(world.acme.project.uuid());
    assert_eq!(
        found,
        Err(StoreError::IsolationBreach {
            table: "tasks",
            scope: world.acme.id,
            found: project
        })
    );
}

#[actix_web::test]
async fn one_connection_serves_tenants_in_turn_and_none_sees_the_other() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    for _ in 0..20 {
        assert_eq!(titles(&units, &acme).await, ["Acme Inc task"]);
        assert_eq!(titles(&units, &globex).await, ["Globex Corp task"]);
    }
    assert_eq!(world.pool.open(), 1);
}

#[actix_web::test]
async fn work_that_fails_leaves_nothing() {
    let world = world(1).await;
    let (units, acme, _) = scopes(&world).await;
    let before = world.digest(&world.acme).await;
    let outcome: Result<(), StoreError> = on_tx(&units, &acme, async |tx| {
        tx.insert(new_task(&world)).await?;
        Err(StoreError::Other("on purpose".into()))
    })
    .await;
    assert_eq!(outcome, Err(StoreError::Other("on purpose".into())));
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn a_swallowed_failure_is_not_committed_as_success() {
    let world = world(1).await;
    let (units, acme, _) = scopes(&world).await;
    let before = world.digest(&world.acme).await;
    let outcome = on_tx(&units, &acme, async |tx| {
        tx.insert(new_task(&world)).await?;
        let orphan = task::ActiveModel {
            project_id: Set(uuid::Uuid::nil()),
            ..new_task(&world)
        };
        // PostgreSQL has aborted the transaction now; COMMIT would silently roll back.
        assert!(tx.insert(orphan).await.is_err());
        Ok(())
    })
    .await;
    assert!(matches!(outcome, Err(StoreError::Other(_))), "{outcome:?}");
    assert_eq!(world.digest(&world.acme).await, before);
    assert_eq!(
        titles(&units, &acme).await.len(),
        1,
        "the connection is of use again"
    );
}

#[actix_web::test]
async fn a_read_cannot_write() {
    let world = world(1).await;
    let (units, acme, _) = scopes(&world).await;
    let outcome = units
        .read(&acme, async |unit: &mut Work| {
            tenant_tx(unit)?.insert(new_task(&world)).await
        })
        .await;
    assert!(outcome.is_err());
    assert_eq!(titles(&units, &acme).await.len(), 1);
}

#[actix_web::test]
async fn a_cancelled_request_gives_its_connection_up() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    for _ in 0..3 {
        let slow = on_tx(&units, &acme, async |tx| {
            tx.insert(new_task(&world)).await?;
            tx.find::<task::Entity>()
                .filter(Expr::cust("pg_sleep(60) IS NOT NULL"))
                .all()
                .await
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(100), slow)
                .await
                .is_err()
        );
        assert_eq!(
            titles(&units, &globex).await,
            ["Globex Corp task"],
            "the only connection serves somebody else"
        );
    }
    end_sleepers(&world).await;
    assert_eq!(
        titles(&units, &acme).await,
        ["Acme Inc task"],
        "nothing of it was kept"
    );
}

#[actix_web::test]
async fn a_panic_in_the_work_gives_its_connection_up() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    let spawned = tokio::spawn({
        let units = units.clone();
        async move {
            on_tx(&units, &acme, async |tx| {
                tx.find::<task::Entity>().count().await?;
                if tx.tenant() == acme.tenant() {
                    panic!("on purpose");
                }
                Ok(())
            })
            .await
        }
    });
    assert!(spawned.await.unwrap_err().is_panic());
    assert_eq!(titles(&units, &globex).await, ["Globex Corp task"]);
}

#[actix_web::test]
async fn who_gets_no_connection_in_time_is_told_so() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    let outcome = on_tx(&units, &acme, async |tx| {
        tx.find::<task::Entity>().count().await?;
        Ok(units
            .read(&globex, async |_: &mut Work| Ok::<_, StoreError>(()))
            .await)
    })
    .await;
    assert!(
        matches!(outcome, Ok(Err(StoreError::Unavailable(_)))),
        "{outcome:?}"
    );
}

#[actix_web::test]
async fn connections_that_died_unseen_are_replaced() {
    let world = world(3).await;
    let (units, acme, _) = scopes(&world).await;
    let all = futures_util::future::join_all((0..3).map(|_| titles(&units, &acme))).await;
    assert_eq!(all.len(), 3);
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tenantry_app' AND datname = $1")
        .bind(world.database.name())
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(titles(&units, &acme).await, ["Acme Inc task"]);
    }
}

/// Something that was begun and waits for the only connection.
struct Waiting<F>(RefCell<Pin<Box<F>>>);

impl<F: Future> Waiting<F> {
    fn new(work: F) -> Self {
        Self(RefCell::new(Box::pin(work)))
    }

    fn begin(&self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.0.borrow_mut().as_mut().poll(&mut context).is_pending());
    }

    async fn finish(self) -> F::Output {
        self.0.into_inner().await
    }
}

/// Reads over the only connection while somebody else waits for it; the reader is done when this returns.
async fn read_before<F: Future>(units: &Units, reader: &TenantScope, waiting: &Waiting<F>) {
    let reading = units.read(reader, async |unit: &mut Work| {
        tenant_tx(unit)?.find::<task::Entity>().count().await?;
        waiting.begin();
        Ok::<_, StoreError>(())
    });
    reading.await.unwrap();
}

/// What the one connection of the runtime role does, and what it did last.
async fn activity(world: &World) -> Option<(String, String)> {
    let all = "SELECT state, query FROM pg_stat_activity WHERE usename = 'tenantry_app' AND datname = $1";
    sqlx::query_as(all)
        .bind(world.database.name())
        .fetch_optional(&mut world.database.admin().await)
        .await
        .unwrap()
}

#[actix_web::test]
async fn a_read_leaves_its_end_to_whoever_waits_and_they_see_nothing_of_it() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    let waiting = Waiting::new(units.read(&globex, async |unit: &mut Work| {
        let tx = tenant_tx(unit)?;
        let (_, began) = activity(&world).await.unwrap();
        let rows = tx.find::<task::Entity>().all().await?;
        let foreign = tx.raw_sql("a test: what row-level security lets through");
        let all = foreign.all::<task::Entity>("SELECT * FROM tasks", []).await?;
        Ok::<_, StoreError>((began, rows, all.len()))
    }));
    read_before(&units, &acme, &waiting).await;
    assert_eq!(activity(&world).await.unwrap().0, "idle in transaction");
    let (began, rows, all) = waiting.finish().await.unwrap();
    assert!(began.starts_with("COMMIT; BEGIN READ ONLY; SET LOCAL"), "{began}");
    assert_eq!((rows.len(), all), (1, 1));
    assert_eq!(rows[0].title, "Globex Corp task");
    assert_eq!(
        activity(&world).await.unwrap().0,
        "idle",
        "nobody waited any more"
    );
}

#[actix_web::test]
async fn whoever_waits_takes_the_connection_that_was_left_open_and_not_one_that_came_back_later() {
    let world = world(2).await;
    let (units, acme, globex) = scopes(&world).await;
    let waiting = Waiting::new(titles(&units, &globex));
    let longer = units.read(&acme, async |unit: &mut Work| {
        tenant_tx(unit)?.find::<task::Entity>().count().await?;
        read_before(&units, &acme, &waiting).await;
        Ok::<_, StoreError>(())
    });
    longer.await.unwrap();
    assert_eq!(waiting.finish().await, ["Globex Corp task"]);
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenantry_app' AND datname = $1 AND state <> 'idle'",
    )
    .bind(world.database.name())
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap();
    assert_eq!(open, 0, "a transaction lies in the pool");
}

#[actix_web::test]
async fn a_request_that_is_still_connecting_is_left_no_open_transaction() {
    let world = world(2).await;
    let (_, acme, globex) = scopes(&world).await;
    // A pool that has opened no connection yet.
    let fresh = world.instance(&Options {
        pool: PoolConfig {
            size: 2,
            per_tenant: 2,
            ..PoolConfig::default()
        },
        ..Options::default()
    });
    let units = fresh.app.ports.units.clone();
    let connecting = Waiting::new(titles(&units, &globex));
    read_before(&units, &acme, &connecting).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenantry_app' AND datname = $1 \
               AND state LIKE 'idle in transaction%'";
    let left_open: i64 = sqlx::query_scalar(sql)
        .bind(world.database.name())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(left_open, 0);
    assert_eq!(connecting.finish().await, ["Globex Corp task"]);
}

#[actix_web::test]
async fn a_connection_left_open_for_somebody_who_went_away_is_closed() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    let waiting = Waiting::new(titles(&units, &globex));
    read_before(&units, &acme, &waiting).await;
    assert_eq!(activity(&world).await.unwrap().0, "idle in transaction");
    drop(waiting);
    while activity(&world).await.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(titles(&units, &acme).await, ["Acme Inc task"]);
}

#[actix_web::test]
async fn a_connection_that_died_while_it_was_left_open_is_replaced() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    let waiting = Waiting::new(titles(&units, &globex));
    read_before(&units, &acme, &waiting).await;
    sqlx::query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'tenantry_app' AND datname = $1")
        .bind(world.database.name())
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(waiting.finish().await, ["Globex Corp task"]);
}

/// Who is looked up: a user of a tenant in one of their sessions.
type Whose = (TenantId, UserId, SessionId);

async fn admins(world: &World) -> [Whose; 2] {
    let mut admin = world.database.admin().await;
    let mut of = async |tenant: &TenantWorld| {
        let sql = "SELECT id FROM refresh_sessions WHERE tenant_id = $1 AND user_id = $2 LIMIT 1";
        let session: Uuid = sqlx::query_scalar(sql)
            .bind(tenant.id.uuid())
            .bind(tenant.admin.id.uuid())
            .fetch_one(&mut admin)
            .await
            .unwrap();
        (tenant.id, tenant.admin.id, session.into())
    };
    [of(&world.acme).await, of(&world.globex).await]
}

/// A directory that remembers nothing, over the one connection.
fn directory(world: &World) -> PgDirectory {
    PgDirectory::new(world.pool.clone(), world.pool.clone(), world.clock.clone())
}

async fn slug(directory: &PgDirectory, (tenant, user, session): Whose) -> Option<String> {
    let found = directory.membership(tenant, user, session).await.unwrap();
    found.map(|facts| facts.tenant.slug.as_str().to_owned())
}

#[actix_web::test]
async fn what_is_looked_up_alone_is_one_message_and_leaves_neither_transaction_nor_tenant() {
    let world = world(1).await;
    let (units, _, globex_scope) = scopes(&world).await;
    let ([acme, globex], directory) = (admins(&world).await, directory(&world));
    for _ in 0..5 {
        assert_eq!(slug(&directory, acme).await.as_deref(), Some("acme"));
        let (state, asked) = activity(&world).await.unwrap();
        assert_eq!(state, "idle");
        assert!(
            asked.ends_with("; COMMIT") && asked.contains("; EXECUTE tenantry_membership("),
            "{asked}"
        );
        assert_eq!(titles(&units, &globex_scope).await, ["Globex Corp task"]);
        assert_eq!(slug(&directory, globex).await.as_deref(), Some("globex"));
    }
    let (_, asked) = activity(&world).await.unwrap();
    assert!(
        asked.starts_with("BEGIN READ ONLY; SET LOCAL"),
        "it is prepared once: {asked}"
    );
    // What is one tenant's is nobody's in another.
    for foreign in [
        (acme.0, globex.1, globex.2),
        (acme.0, acme.1, globex.2),
        (acme.0, globex.1, acme.2),
        (globex.0, acme.1, acme.2),
    ] {
        assert_eq!(slug(&directory, foreign).await, None);
    }
    let facts = directory
        .membership(acme.0, acme.1, acme.2)
        .await
        .unwrap()
        .unwrap();
    assert!(facts.is_active && facts.session_is_live);
    world.clock.advance(chrono::Duration::days(400));
    let later = directory
        .membership(acme.0, acme.1, acme.2)
        .await
        .unwrap()
        .unwrap();
    assert!(!later.session_is_live);
    assert_eq!(later.session_expires_at, facts.session_expires_at);
}

#[actix_web::test]
async fn what_is_looked_up_alone_ends_the_read_that_was_left_open_for_it() {
    let world = world(1).await;
    let (units, acme, _) = scopes(&world).await;
    let ([_, globex], directory) = (admins(&world).await, directory(&world));
    for _ in 0..2 {
        let waiting = Waiting::new(slug(&directory, globex));
        read_before(&units, &acme, &waiting).await;
        assert_eq!(activity(&world).await.unwrap().0, "idle in transaction");
        assert_eq!(waiting.finish().await.as_deref(), Some("globex"));
        let (state, asked) = activity(&world).await.unwrap();
        assert_eq!(state, "idle");
        assert!(asked.starts_with("COMMIT; "), "{asked}");
    }
}

#[actix_web::test]
async fn a_look_that_is_cut_short_or_whose_connection_died_is_of_no_consequence() {
    let world = world(1).await;
    let (units, acme_scope, _) = scopes(&world).await;
    let ([acme, globex], directory) = (admins(&world).await, directory(&world));
    assert_eq!(slug(&directory, acme).await.as_deref(), Some("acme"));
    sqlx::query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'tenantry_app' AND datname = $1")
        .bind(world.database.name())
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(
        slug(&directory, globex).await.as_deref(),
        Some("globex"),
        "it is prepared anew"
    );
    let mut admin = world.database.admin().await;
    for sql in ["BEGIN", "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"] {
        sqlx::raw_sql(sql).execute(&mut admin).await.unwrap();
    }
    let cut_short = tokio::time::timeout(Duration::from_millis(100), slug(&directory, acme)).await;
    assert!(cut_short.is_err());
    sqlx::raw_sql("ROLLBACK").execute(&mut admin).await.unwrap();
    assert_eq!(slug(&directory, globex).await.as_deref(), Some("globex"));
    assert_eq!(titles(&units, &acme_scope).await, ["Acme Inc task"]);
    // A statement that fails in the message closes the connection, and the next one is fresh.
    sqlx::raw_sql("ALTER TABLE users RENAME COLUMN is_active TO was_active")
        .execute(&mut admin)
        .await
        .unwrap();
    assert!(directory.membership(acme.0, acme.1, acme.2).await.is_err());
    sqlx::raw_sql("ALTER TABLE users RENAME COLUMN was_active TO is_active")
        .execute(&mut admin)
        .await
        .unwrap();
    assert_eq!(slug(&directory, acme).await.as_deref(), Some("acme"));
}

#[actix_web::test]
async fn a_read_with_raw_sql_or_a_failure_ends_before_anybody_else_begins() {
    let world = world(1).await;
    let (units, acme, globex) = scopes(&world).await;
    for fails in [false, true] {
        let waiting = Waiting::new(titles(&units, &globex));
        let reading = units.read(&acme, async |unit: &mut Work| {
            let tx = tenant_tx(unit)?;
            let sql = if fails { "SELECT 1 / 0" } else { "SELECT 1" };
            let done = tx
                .raw_sql("a test: what it leaves on the session")
                .execute(sql, [])
                .await;
            waiting.begin();
            done.map(|_| ())
        });
        assert_eq!(reading.await.is_err(), fails);
        assert_eq!(activity(&world).await.unwrap().0, "idle", "{fails}");
        assert_eq!(waiting.finish().await, ["Globex Corp task"]);
    }
}

#[actix_web::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let config = PoolConfig {
        connect_timeout: Duration::from_millis(300),
        ..PoolConfig::default()
    };
    // Port 9 is discard, where nobody listens.
    let pool = tenantry_persistence::Pool::new("postgres://nobody@127.0.0.1:9/nothing", &config).unwrap();
    assert!(matches!(pool.ping().await, Err(StoreError::Unavailable(_))));
}

/// A connection that all threads share belongs to the runtime of all threads, also when a thread with a runtime of its own
/// opened it: at a shutdown the threads of requests end first, and what is buffered is stored after that.
#[test]
fn a_shared_connection_outlives_the_thread_that_opened_it() {
    let single = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let lasting = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let database = single().block_on(tenantry_tests::Database::new());
    let config = PoolConfig {
        size: 1,
        ..PoolConfig::default()
    };
    let pool = lasting
        .block_on(async { tenantry_persistence::Pool::new(&database.platform_url(), &config) })
        .unwrap();
    let ending = pool.clone();
    let opened = std::thread::spawn(move || single().block_on(ending.ping()));
    opened.join().unwrap().unwrap();
    assert_eq!(pool.open(), 1);
    lasting.block_on(pool.ping()).unwrap();
    assert_eq!(pool.open(), 1, "it is the same connection");
}

#[actix_web::test]
async fn contention_is_tried_again_a_bounded_number_of_times() {
    let world = world(1).await;
    let (units, acme, _) = scopes(&world).await;
    let tries = AtomicU32::new(0);
    let outcome: Result<(), StoreError> = units
        .write(&acme, async |_: &mut Work| {
            tries.fetch_add(1, Ordering::Relaxed);
            Err(StoreError::Contention)
        })
        .await;
    assert_eq!(
        (outcome, tries.load(Ordering::Relaxed)),
        (Err(StoreError::Contention), Units::ATTEMPTS)
    );
}

#[actix_web::test]
async fn what_is_written_behind_is_seen_at_once_and_on_the_disk_when_it_is_said_to_be() {
    let world = World::new().await;
    let (units, acme, _) = scopes(&world).await;
    let mut admin = world.database.admin().await;
    for number in 0..20 {
        let written = units.write_behind(&acme, async |work: &mut Work| {
            let row = task::ActiveModel {
                title: Set(format!("title {number}")),
                ..Default::default()
            };
            tenant_tx(work)?.update::<task::Entity>().set(row).run().await
        });
        assert!(written.await.unwrap() > 0);
        let seen = titles(&units, &acme).await;
        assert!(
            seen.iter().all(|title| *title == format!("title {number}")),
            "{seen:?}"
        );
        let position: String = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
            .fetch_one(&mut admin)
            .await
            .unwrap();
        units.make_durable().await.unwrap();
        let is_on_disk: bool = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn")
            .bind(&position)
            .fetch_one(&mut admin)
            .await
            .unwrap();
        assert!(is_on_disk, "round {number}");
    }
}

#[actix_web::test]
async fn a_deadlock_is_resolved_by_running_one_of_them_again() {
    let world = world(2).await;
    let (units, acme, _) = scopes(&world).await;
    let other = new_task(&world);
    let (first, second) = (world.acme.task.uuid(), *other.id.as_ref());
    on_tx(&units, &acme, async |tx| tx.insert(other.clone()).await)
        .await
        .unwrap();
    let lock = async |tx: &mut TenantTx, id| {
        tx.find::<task::Entity>()
            .filter(task::Column::Id.eq(id))
            .lock(Lock::Update)
            .one()
            .await
            .map(|row| row.is_some())
    };
    // Both hold one row before either asks for the other's, so they must meet.
    let barrier = tokio::sync::Barrier::new(2);
    let met = AtomicU32::new(0);
    let (barrier, met, lock) = (&barrier, &met, &lock);
    let cross = |here, there| {
        on_tx(&units, &acme, async move |tx| {
            lock(tx, here).await?;
            if met.fetch_add(1, Ordering::SeqCst) < 2 {
                barrier.wait().await;
            }
            lock(tx, there).await
        })
    };
    let (left, right) = futures_util::future::join(cross(first, second), cross(second, first)).await;
    assert_eq!((left, right), (Ok(true), Ok(true)));
    let runs = met.load(Ordering::SeqCst);
    assert!(
        (3..=2 * Units::ATTEMPTS).contains(&runs),
        "one of them ran again: {runs}"
    );
}

#[test]
fn units_of_work_can_be_spawned() {
    fn spawnable<T: Send>(_: T) {}
    fn check(units: Units, scope: TenantScope) {
        spawnable(async move {
            units
                .write(&scope, async |work: &mut Work| {
                    tenant_tx(work)?.find::<task::Entity>().count().await
                })
                .await
        });
    }
    let _ = check;
}

fn new_task(world: &World) -> task::ActiveModel {
    let now = tenantry_domain::kernel::Clock::now(world.clock.as_ref());
    task::ActiveModel {
        id: Set(tenantry_domain::kernel::TaskId::next(world.app.ports.ids.as_ref()).uuid()),
        project_id: Set(world.acme.project.uuid()),
        title: Set("another".into()),
        status: Set("todo".into()),
        priority: Set("normal".into()),
        version: Set(1),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    }
}

/// A server notices that its client is gone only when it answers; a test's database cannot be dropped before.
async fn end_sleepers(world: &World) {
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()")
        .bind(world.database.name())
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
}

#[actix_web::test]
async fn statements_are_planned_once_for_all_values_unless_the_settings_say_otherwise() {
    for generic_plans in [true, false] {
        let pool = PoolConfig {
            generic_plans,
            ..PoolConfig::default()
        };
        let world = World::with(Options {
            pool,
            ..Options::default()
        })
        .await;
        let (units, acme, _) = scopes(&world).await;
        let seen = on_tx(&units, &acme, async |tx| {
            let generic =
                "SELECT * FROM tasks WHERE current_setting('plan_cache_mode') = 'force_generic_plan'";
            let asked = tx.raw_sql("a test: how statements are planned");
            asked.all::<task::Entity>(generic, []).await
        });
        assert_eq!(seen.await.unwrap().len(), usize::from(generic_plans));
    }
}

/// After a failover a name may lead to a standby for a while. Its rows are of the past, and a pool keeps connections for long.
#[actix_web::test]
async fn connection_to_a_standby_is_refused() {
    let server = TestServer::start_durable().await;
    let pool = Pool::new(&server.admin_url("postgres"), &PoolConfig::default()).unwrap();
    pool.ping().await.unwrap();
    server.restart_as_standby().await;
    // The first use finds the connection of before closed.
    let _ = pool.ping().await;
    let refused = pool.ping().await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unavailable(why) if why.contains("the server is a standby")),
        "{refused}"
    );
}
