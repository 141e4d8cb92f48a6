//! A tenant that asks for too much keeps itself waiting, and nobody else.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tenantry_domain::kernel::SystemScope;
use tenantry_persistence::PoolConfig;
use tenantry_tests::{Options, PASSWORD, Reply, World};

fn pool(size: usize, queue: usize) -> Options {
    let usual = Options::default();
    Options {
        pool: PoolConfig {
            size,
            queue,
            per_tenant: PoolConfig::default().per_tenant,
            ..usual.pool.clone()
        },
        ..usual
    }
}

/// Holds the project of a tenant, so that whoever wants to change it waits with a connection in hand.
async fn hold(world: &World) -> PgConnection {
    let acme = world.acme.id;
    hold_by(
        world,
        format!("SELECT FROM projects WHERE tenant_id = '{acme}' FOR UPDATE"),
    )
    .await
}

/// Holds a table, so that whatever touches it waits with a connection in hand.
async fn hold_table(world: &World, table: &str) -> PgConnection {
    hold_by(world, format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await
}

async fn hold_by(world: &World, lock: String) -> PgConnection {
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {lock}")))
        .execute(&mut admin)
        .await
        .unwrap();
    admin
}

/// Waits until so many connections wait for what is held.
async fn until_waiting(world: &World, least: i64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let waiting = world.waiting_for_locks().await;
        if waiting >= least {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{waiting} connections wait for locks, {least} should"
        );
        // The database does the work: there is no clock of ours to move.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The replies to requests that are stuck behind `held` while another one is served ten times: of those that are stuck, one
/// holds a connection.
async fn while_one_is_stuck(
    world: &World,
    held: PgConnection,
    stuck: impl Future<Output = Vec<Reply>>,
    served: impl AsyncFn(),
    allowed: &str,
) -> Vec<Reply> {
    let others = async {
        until_waiting(world, 1).await;
        for _ in 0..10 {
            served().await;
        }
        assert_eq!(world.waiting_for_locks().await, 1, "{allowed}");
        held.close().await.unwrap();
    };
    join(stuck, others).await.0
}

#[actix_web::test]
async fn while_one_tenants_requests_are_stuck_in_the_database_another_tenant_is_served() {
    let world = World::with(pool(8, 1_000)).await;
    let admin = hold(&world).await;
    world.get(&world.globex.viewer, "/api/v1/tasks").await.expect(200);
    let path = format!("/api/v1/projects/{}", world.acme.project);
    let stuck = join_all((0..12).map(|number| {
        let body = json!({"name": format!("Name {number}")});
        world.patch(&world.acme.admin, &path, &body).send()
    }));
    let others = async {
        // Acme's requests have all they can get by now.
        until_waiting(&world, 2).await;
        for _ in 0..10 {
            world.get(&world.globex.viewer, "/api/v1/tasks").await.expect(200);
        }
        // A quarter, as others are there; half, should the machine have been so slow that these seemed to be gone.
        let stuck = world.waiting_for_locks().await;
        assert!((2..=4).contains(&stuck), "{stuck} of 8 connections");
        admin.close().await.unwrap();
    };
    let (stuck, ()) = join(stuck, others).await;
    for reply in stuck {
        reply.expect(200);
    }
}

#[actix_web::test]
async fn whoever_finds_the_queue_full_is_told_so_at_once_and_nobody_else_is() {
    let world = World::with(pool(2, 3)).await;
    // So that authentication asks for no connection.
    let read = |who| world.get(who, "/api/v1/auth/me").send();
    read(&world.acme.admin).await.expect(200);
    read(&world.globex.viewer).await.expect(200);
    let admin = hold(&world).await;
    let path = format!("/api/v1/projects/{}", world.acme.project);
    let requests = join_all((0..10).map(|number| {
        let body = json!({"name": format!("Name {number}")});
        world.patch(&world.acme.admin, &path, &body).send()
    }));
    let others = async {
        until_waiting(&world, 1).await;
        read(&world.globex.viewer).await.expect(200);
        admin.close().await.unwrap();
    };
    let (replies, ()) = join(requests, others).await;
    let (served, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(
        (served.len(), refused.len()),
        (4, 6),
        "one at work and three in the queue"
    );
    for reply in refused {
        let reply = reply.problem(503, "unavailable");
        assert!(reply.header("retry-after").is_some());
    }
}

#[actix_web::test]
async fn failed_logins_leave_the_tenants_users_their_connections() {
    let world = World::with(pool(8, 1_000)).await;
    let read = || world.get(&world.acme.viewer, "/api/v1/tasks").send();
    read().await.expect(200);
    let admin = hold_table(&world, "audit_events").await;
    // Each failure is written to the audit log, and waits there.
    let logins = join_all((0..6).map(|_| world.login("acme", &world.acme.viewer.email, "wrong")));
    let logins = while_one_is_stuck(
        &world,
        admin,
        logins,
        async || drop(read().await.expect(200)),
        "a quarter of the tenant's four",
    )
    .await;
    for reply in logins {
        reply.problem(401, "invalid_credentials");
    }
}

/// Each sign-up is of a tenant of its own, and waits for the table of the audit log.
#[actix_web::test]
async fn signups_together_leave_tenants_their_connections() {
    let world = World::with(pool(8, 1_000)).await;
    let read = || world.get(&world.acme.viewer, "/api/v1/tasks").send();
    read().await.expect(200);
    let admin = hold_table(&world, "audit_events").await;
    let signups = join_all((0..6).map(|number| {
        let email = format!("peter-{number}@initech.example");
        let founder = json!({"email": email, "full_name": "Peter", "password": PASSWORD});
        let body = json!({"name": "Initech", "slug": format!("initech-{number}"), "admin": founder});
        world.client.post("/api/v1/tenants", &body).send()
    }));
    let signups = while_one_is_stuck(
        &world,
        admin,
        signups,
        async || drop(read().await.expect(200)),
        "a quarter of one tenant's four",
    )
    .await;
    for reply in signups {
        reply.expect(201);
    }
}

#[actix_web::test]
async fn lookups_of_unknown_slugs_leave_operators_their_connections() {
    let world = World::with(pool(8, 1_000)).await;
    let operator = world.operator("olga@platform.example").await;
    let admin = hold_table(&world, "tenants").await;
    let lookups = join_all((0..6).map(|number| {
        let slug = format!("unknown-{number}");
        let request = world.client.get("/api/v1/branding");
        request.header("X-Tenant-Slug", slug).send()
    }));
    let flags = async || {
        let request = world.client.get("/api/v1/admin/flags");
        request.bearer(&operator).await.expect(200);
    };
    let lookups = while_one_is_stuck(&world, admin, lookups, flags, "one of the two of the platform").await;
    for reply in lookups {
        reply.problem(404, "tenant_not_found");
    }
}

/// Callers who are no operators try to log in as one, and everything that this reads and writes is stuck.
#[actix_web::test]
async fn failed_logins_of_operators_leave_the_platform_its_connections() {
    let world = World::with(pool(8, 1_000)).await;
    for table in ["operators", "operator_events"] {
        let admin = hold_table(&world, table).await;
        // As many as one network has places in the queue of hashing for operators.
        let logins = join_all((0..4).map(|number| {
            let body =
                json!({"email": format!("{table}-{number}@platform.example"), "password": "wrong horse"});
            world.client.post("/api/v1/admin/login", &body).send()
        }));
        let tenants = async || {
            let because = SystemScope::because("a job of the platform");
            let tenants = world.app.ports.registry.list(because, None, 10).await;
            assert_eq!(tenants.unwrap().len(), 2);
        };
        let logins =
            while_one_is_stuck(&world, admin, logins, tenants, "one of the two of the platform").await;
        for reply in logins {
            reply.problem(401, "invalid_credentials");
        }
    }
}

/// Where a tenant has one connection at a time, its users and callers without a credential take turns on it.
#[actix_web::test]
async fn users_and_guests_are_served_from_the_smallest_pools() {
    for size in [1, 2] {
        let world = World::with(pool(size, 1_000)).await;
        let guests = join_all((0..20).map(|number| {
            let email = format!("nobody-{number}@acme.example");
            let world = &world;
            async move { world.login("acme", &email, "wrong horse").await }
        }));
        let users = join_all((0..20).map(|_| world.get(&world.acme.viewer, "/api/v1/tasks").send()));
        let (guests, users) = join(guests, users).await;
        guests
            .into_iter()
            .for_each(|reply| drop(reply.problem(401, "invalid_credentials")));
        users.into_iter().for_each(|reply| drop(reply.expect(200)));
    }
}

/// Where a tenant has one connection at a time, its users go before a caller without a credential who has waited for longer.
#[actix_web::test]
async fn users_go_before_guests_where_a_tenant_has_one_connection() {
    let world = World::with(pool(2, 1_000)).await;
    let read = |who| world.get(who, "/api/v1/tasks").send();
    // So that authentication asks for no connection.
    read(&world.acme.viewer).await.expect(200);
    // By then whoever wants a connection waits for it.
    let others = async |count: usize| {
        for _ in 0..count {
            read(&world.globex.viewer).await.expect(200);
        }
    };
    others(1).await;
    let resources = hold_table(&world, "resources").await;
    let users = hold_table(&world, "users").await;
    let stuck = world.get(&world.acme.viewer, "/api/v1/resources").send();
    let waiting = async {
        until_waiting(&world, 1).await;
        let login = world.login("acme", "nobody@acme.example", "wrong horse");
        let served = async {
            others(20).await;
            let reads = join_all((0..10).map(|_| read(&world.acme.viewer)));
            let release = async {
                others(5).await;
                resources.close().await.unwrap();
            };
            let (reads, ()) = join(reads, release).await;
            reads.into_iter().for_each(|reply| drop(reply.expect(200)));
            // The login would have kept the connection until then.
            users.close().await.unwrap();
        };
        let (login, ()) = join(login, served).await;
        login.problem(401, "invalid_credentials");
    };
    let (stuck, ()) = join(stuck, waiting).await;
    stuck.expect(200);
}
