//! The life of a tenant: deletion, restoration, purge, and what each state allows.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use actix_web::http::Method;
use chrono::Duration;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tenantry_domain::kernel::{Clock as _, SystemScope};
use tenantry_domain::tenant::{Capability, RowWork, TenantStatus, Tombstone, Transition};
use tenantry_migration::TenantTable;
use tenantry_persistence::{PoolConfig, StatementTimeouts};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tenancy::tenant::row_work::{self, Settled};
use tenantry_tests::{Options, PASSWORD, Reply, TenantWorld, World};

const OLGA: &str = "olga@platform.example";
const BECAUSE: SystemScope = SystemScope::because("a test");

async fn delete(world: &World) -> Reply {
    world
        .delete(&world.acme.admin, "/api/v1/tenant")
        .json(&json!({"confirm_slug": "acme"}))
        .await
}

async fn operate(world: &World, token: &str, what: &str) -> Reply {
    let path = format!("/api/v1/admin/tenants/{}/{what}", world.acme.id);
    let body = json!({"reason": "a test"});
    world.client.post(&path, &body).bearer(token).await
}

async fn settle(world: &World) -> Settled {
    row_work::settle(&world.app, world.acme.id, None, &|_| {})
        .await
        .unwrap()
}

/// How many rows of a tenant there are, table by table, as a superuser sees them.
async fn rows(world: &World, tenant: &TenantWorld, and: &str) -> BTreeMap<String, i64> {
    let mut admin = world.database.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE a.attname = 'tenant_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition \
         AND c.relnamespace = 'public'::regnamespace \
         AND ($1 = '' OR EXISTS (SELECT FROM pg_attribute d WHERE d.attrelid = c.oid AND d.attname = 'deleted_at'))",
    )
    .bind(and)
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut counts = BTreeMap::new();
    for table in tables {
        let sql = format!(
            "SELECT count(*) FROM \"{table}\" WHERE tenant_id = '{}' {and}",
            tenant.id
        );
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        if count > 0 {
            counts.insert(table, count);
        }
    }
    counts
}

async fn tasks_of_acme(world: &World, count: i64) {
    let sql = format!(
        "INSERT INTO tasks (tenant_id, id, created_at, updated_at, version, project_id, title, status, priority) \
         SELECT '{}', gen_random_uuid(), now(), now(), 1, '{}', 'Task ' || n, 'todo', 'normal' FROM generate_series(1, {count}) n",
        world.acme.id, world.acme.project
    );
    world.sql(sql).await;
}

/// Without the tables that the deletion and the restoration write to themselves.
async fn contents(world: &World, tenant: &TenantWorld) -> Vec<(String, String)> {
    let mut digest = world.digest(tenant).await;
    let written = ["audit_events", "event_outbox", "events", "jobs", "tenants"];
    digest.retain(|(table, _)| !written.contains(&table.as_str()));
    digest
}

#[actix_web::test]
async fn deleted_tenant_is_gone_at_once_and_restored_exactly() {
    let world = World::new().await;
    let olga = world.operator(OLGA).await;
    // A project that was deleted before the tenant stays deleted.
    let body = json!({"name": "Former"});
    let former = world.post(&world.acme.admin, "/api/v1/projects", &body).await;
    let former = format!(
        "/api/v1/projects/{}",
        former.expect(201).json()["id"].as_str().unwrap()
    );
    world.delete(&world.acme.admin, &former).await.expect(204);
    let body = json!({"name": "Reports", "scopes": ["projects.read"]});
    let key = world.post(&world.acme.admin, "/api/v1/api-keys", &body).await;
    let key = key.expect(201).json()["key"].as_str().unwrap().to_owned();
    let (acme, globex) = (
        contents(&world, &world.acme).await,
        world.digest(&world.globex).await,
    );
    let listed = world
        .get(&world.acme.admin, "/api/v1/projects?include_deleted=true")
        .await
        .json();

    world.clock.advance(Duration::seconds(1));
    let gone = delete(&world).await.expect(202).json();
    assert_eq!(
        (&gone["status"], &gone["status_actor"]),
        (&json!("deleted"), &json!("user"))
    );
    assert_eq!(gone["row_work"], json!({"task": "delete", "rows": 0}));
    world
        .get(&world.acme.admin, "/api/v1/tenant")
        .await
        .problem(410, "tenant_gone");
    world
        .get(&world.acme.viewer, "/api/v1/projects")
        .await
        .problem(410, "tenant_gone");
    let login = world.login("acme", &world.acme.admin.email, PASSWORD).await;
    login.problem(410, "tenant_gone");

    assert_eq!(settle(&world).await, Settled::Done);
    let live = rows(&world, &world.acme, "AND deleted_at IS NULL").await;
    assert_eq!(live, BTreeMap::new(), "rows that are not marked");
    // The users are marked, too, and the answer is the same.
    let again = world.get(&world.acme.admin, "/api/v1/tenant").await;
    again.problem(410, "tenant_gone");
    let by_key = world.client.get("/api/v1/projects").bearer(&key).await;
    by_key.problem(410, "tenant_gone");
    let read = world
        .client
        .get(&format!("/api/v1/admin/tenants/{}", world.acme.id));
    let read = read.bearer(&olga).await.expect(200).json();
    assert_eq!(read["row_work"], Value::Null);

    let restored = operate(&world, &olga, "restore").await.expect(200).json();
    assert_eq!(
        (
            &restored["status"],
            &restored["deleted_at"],
            &restored["purge_at"]
        ),
        (&json!("active"), &Value::Null, &Value::Null)
    );
    assert_eq!(contents(&world, &world.acme).await, acme);
    let again = world
        .get(&world.acme.admin, "/api/v1/projects?include_deleted=true")
        .await
        .expect(200);
    assert_eq!(again.json(), listed);
    assert_eq!(world.digest(&world.globex).await, globex);
    let actions: Vec<String> = world
        .audit(&world.acme)
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    assert_eq!(
        actions[actions.len() - 2..],
        ["tenant.deleted", "tenant.restored"]
    );
    operate(&world, &olga, "restore").await.problem(409, "conflict");
}

#[actix_web::test]
async fn deletion_needs_an_admin_and_the_slug() {
    let world = World::new().await;
    let body = |slug: &str| json!({"confirm_slug": slug});
    let ask = async |who, body: &Value| world.delete(who, "/api/v1/tenant").json(body).await;
    ask(&world.acme.member, &body("acme"))
        .await
        .problem(403, "forbidden");
    let wrong = ask(&world.acme.admin, &body("globex"))
        .await
        .problem(422, "validation_failed");
    assert_eq!(wrong.json()["errors"][0]["pointer"], "/confirm_slug");
    ask(&world.acme.admin, &json!({}))
        .await
        .problem(422, "validation_failed");
    ask(&world.acme.admin, &json!({"confirm_slug": "acme", "force": true}))
        .await
        .problem(422, "unknown_field");
    ask(&world.acme.admin, &body("ac\u{0}me"))
        .await
        .problem(422, "validation_failed");
    // Also while the tenant is suspended.
    world.set_status(&world.acme, "suspended").await;
    ask(&world.acme.admin, &body("acme")).await.expect(202);
}

#[actix_web::test]
async fn suspended_tenant_is_suspended_again_after_a_restoration() {
    let world = World::new().await;
    let olga = world.operator(OLGA).await;
    operate(&world, &olga, "suspend").await.expect(200);
    operate(&world, &olga, "delete").await.expect(202);
    operate(&world, &olga, "delete").await.problem(409, "conflict");
    operate(&world, &olga, "suspend").await.problem(409, "conflict");
    operate(&world, &olga, "resume").await.problem(409, "conflict");
    // Before its rows were marked.
    let restored = operate(&world, &olga, "restore").await.expect(200).json();
    assert_eq!(restored["status"], "suspended");
    let capabilities = world
        .get(&world.acme.viewer, "/api/v1/tenant/capabilities")
        .await
        .expect(200)
        .json();
    assert_eq!(capabilities["status"], "suspended");
    for capability in Capability::ALL {
        assert_eq!(
            capabilities["capabilities"][capability.as_str()],
            TenantStatus::Suspended.allows(capability)
        );
    }
    // The index of addresses has its accounts again.
    let listed = format!(
        "SELECT 1 FROM user_addresses WHERE of_tenant = '{}'",
        world.acme.id
    );
    let users = format!(
        "SELECT 1 FROM users WHERE tenant_id = '{}' AND is_active AND email_verified AND deleted_at IS NULL",
        world.acme.id
    );
    assert_eq!(world.sql(listed).await, world.sql(users).await);
}

#[actix_web::test]
async fn work_that_was_interrupted_goes_on_and_restores_exactly() {
    let world = World::new().await;
    tasks_of_acme(&world, 2_500).await;
    let before = contents(&world, &world.acme).await;
    let cx = world.operator_cx();
    world.clock.advance(Duration::seconds(1));
    lifecycle::delete(&cx, world.acme.id, "a test").await.unwrap();
    // The time is over after each batch of a thousand rows.
    let over = Some(world.clock.now() - Duration::seconds(1));
    let step = async || {
        row_work::settle(&world.app, world.acme.id, over, &|_| {})
            .await
            .unwrap()
    };
    assert_eq!(step().await, Settled::Later);
    let marked = rows(&world, &world.acme, "AND deleted_at IS NOT NULL").await;
    assert!(marked.values().sum::<i64>() >= 1_000, "{marked:?}");
    // Restored in the middle of it; also that is interrupted, and a purge is refused meanwhile.
    let restoring = row_work::restore(&cx, world.acme.id, "a test", over)
        .await
        .unwrap();
    assert_eq!(restoring.row_work, Some(RowWork::Restore));
    let refused = lifecycle::purge(&cx, world.acme.id, "a test").await.unwrap_err();
    assert!(refused.to_string().contains("is being restored"), "{refused}");
    assert_eq!(settle(&world).await, Settled::Done);
    assert_eq!(contents(&world, &world.acme).await, before);
}

#[actix_web::test]
async fn purge_leaves_a_tombstone_and_no_row_in_any_table() {
    let world = World::new().await;
    let olga = world.operator(OLGA).await;
    tables_of_an_embedder(&world).await;
    tasks_of_acme(&world, 1_200).await;
    let globex = world.digest(&world.globex).await;
    operate(&world, &olga, "purge").await.problem(409, "conflict");
    operate(&world, &olga, "delete").await.expect(202);
    // Of rows that are marked and rows that are not.
    let there = rows(&world, &world.acme, "").await;
    assert!(there.contains_key("audit_events") && there.contains_key("extras") && there.contains_key("bare"));
    let purging = operate(&world, &olga, "purge").await.expect(202).json();
    assert_eq!(purging["status"], "purged");
    operate(&world, &olga, "restore").await.problem(409, "conflict");
    world
        .get(&world.acme.admin, "/api/v1/tenant")
        .await
        .problem(410, "tenant_gone");
    // Two at once.
    let (one, two) = futures_util::join!(settle(&world), settle(&world));
    assert_eq!((one, two), (Settled::Done, Settled::Done));

    assert_eq!(rows(&world, &world.acme, "").await, BTreeMap::new());
    for table in [
        "tenant_names",
        "user_addresses",
        "provider_customers",
        "sent_mails",
    ] {
        let left = format!("SELECT 1 FROM {table} WHERE of_tenant = '{}'", world.acme.id);
        assert_eq!(world.sql(left).await, 0, "{table}");
    }
    assert_eq!(world.digest(&world.globex).await, globex);
    let tombstones = world.app.ports.tenant_rows.tombstones(BECAUSE).await.unwrap();
    let [tombstone] = tombstones.as_slice() else {
        panic!("{tombstones:?}")
    };
    assert!(tombstone.is_intact());
    let counted: BTreeMap<String, i64> = tombstone
        .row_counts
        .iter()
        .map(|(table, rows)| (table.clone(), i64::try_from(*rows).unwrap()))
        .collect();
    assert_eq!(counted, there);
    let altered = Tombstone {
        row_counts: BTreeMap::new(),
        ..tombstone.clone()
    };
    assert!(!altered.is_intact());

    world.outlive_the_cache();
    world
        .get(&world.acme.admin, "/api/v1/tenant")
        .await
        .problem(401, "token_revoked");
    operate(&world, &olga, "purge").await.problem(404, "not_found");
    // The slug is free.
    let body =
        json!({"name": "Acme", "slug": "acme", "admin": {"email": "ada@new.example", "full_name": "Ada"}});
    let created = world.client.post("/api/v1/tenants", &body).bearer(&olga).await;
    let created = created.expect(201).json();
    assert_ne!(created["tenant"]["id"], json!(world.acme.id));
}

/// An append-only table as an embedding service makes it, and one without an id that somebody made by hand.
async fn tables_of_an_embedder(world: &World) {
    let mut owner = sqlx::PgConnection::connect(&world.database.owner_url())
        .await
        .unwrap();
    let table = TenantTable::new("extras").belongs_to(
        "project_id",
        "projects",
        tenantry_migration::OnDelete::Restrict,
    );
    let bare = "CREATE TABLE bare (tenant_id uuid NOT NULL REFERENCES tenants (id), name text)";
    let security = [
        "ALTER TABLE bare ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE bare FORCE ROW LEVEL SECURITY",
        "CREATE POLICY bare_all ON bare TO tenantry_app \
         USING (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid)",
        "GRANT SELECT, DELETE ON bare TO tenantry_app",
    ];
    let made = table.append_only().up_sql().unwrap();
    let all = made.iter().map(String::as_str).chain([bare]).chain(security);
    for sql in all {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut owner)
            .await
            .unwrap();
    }
    for tenant in [&world.acme, &world.globex] {
        let sql = format!(
            "INSERT INTO extras (tenant_id, id, created_at, project_id) SELECT '{0}', gen_random_uuid(), now(), '{1}' \
             FROM generate_series(1, 3); INSERT INTO bare SELECT '{0}', 'x' FROM generate_series(1, 1500)",
            tenant.id, tenant.project
        );
        world.sql(sql).await;
    }
}

#[actix_web::test]
async fn what_a_restored_backup_brings_back_is_purged_again() {
    let world = World::new().await;
    let cx = world.operator_cx();
    for status in [
        TenantStatus::Active,
        TenantStatus::Suspended,
        TenantStatus::Deleted,
    ] {
        let world = World::new().await;
        let globex = world.digest(&world.globex).await;
        world.set_status(&world.acme, status.as_str()).await;
        let again = lifecycle::purge_again(&world.operator_cx(), world.acme.id)
            .await
            .unwrap();
        assert_eq!(again.status, TenantStatus::Purged, "{status:?}");
        assert_eq!(settle(&world).await, Settled::Done);
        assert_eq!(rows(&world, &world.acme, "").await, BTreeMap::new());
        assert_eq!(world.digest(&world.globex).await, globex);
        assert_eq!(settle(&world).await, Settled::Done, "a second time");
    }
    let unknown = lifecycle::purge_again(
        &cx,
        tenantry_domain::kernel::TenantId::next(world.app.ports.ids.as_ref()),
    );
    assert!(unknown.await.is_err());
}

#[actix_web::test]
async fn deleted_tenant_is_purged_when_its_time_is_over() {
    let world = World::new().await;
    let olga = world.operator(OLGA).await;
    operate(&world, &olga, "delete").await.expect(202);
    let pending = async || {
        let now = world.clock.now();
        world
            .app
            .ports
            .tenant_rows
            .pending(BECAUSE, now, 10)
            .await
            .unwrap()
    };
    assert_eq!(pending().await, [world.acme.id], "its rows are to be marked");
    settle(&world).await;
    assert_eq!(pending().await, []);
    world.clock.advance(Duration::days(29));
    settle(&world).await;
    assert_ne!(rows(&world, &world.acme, "").await, BTreeMap::new());
    world.clock.advance(Duration::days(1));
    assert_eq!(pending().await, [world.acme.id]);
    settle(&world).await;
    assert_eq!(rows(&world, &world.acme, "").await, BTreeMap::new());
}

/// The functions of the owner do nothing for a tenant in another state, and nothing to another tenant, whoever calls them.
#[actix_web::test]
async fn functions_of_the_owner_erase_nothing_of_a_tenant_that_is_not_purged() {
    let world = World::new().await;
    let (acme, globex) = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let mut platform = sqlx::PgConnection::connect(&world.database.platform_url())
        .await
        .unwrap();
    for status in ["active", "suspended", "deleted"] {
        world.set_status(&world.acme, status).await;
        let acme = world.digest(&world.acme).await;
        let erase = format!(
            "SELECT seen FROM tenant_rows_erase('{}', 'audit_events', NULL, 100)",
            world.acme.id
        );
        let seen: Option<i32> = sqlx::query_scalar(sqlx::AssertSqlSafe(erase))
            .fetch_one(&mut platform)
            .await
            .unwrap();
        assert_eq!(seen, None, "{status}");
        let bury = format!("SELECT tenant_bury('{}', now())", world.acme.id);
        let buried: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(bury))
            .fetch_one(&mut platform)
            .await
            .unwrap();
        assert!(!buried, "{status}");
        assert_eq!(world.digest(&world.acme).await, acme);
    }
    world.set_status(&world.acme, "active").await;
    assert_eq!(world.digest(&world.acme).await, acme);
    assert_eq!(world.digest(&world.globex).await, globex);
    // The runtime role may call neither, and its own does nothing without the tenant and the state.
    let mut app = world.database.app().await;
    for function in [
        "tenant_rows_erase(gen_random_uuid(), 'tasks', NULL, 1)",
        "tenant_bury(gen_random_uuid(), now())",
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {function}")))
            .execute(&mut app)
            .await;
        assert!(
            refused.unwrap_err().to_string().contains("permission denied"),
            "{function}"
        );
    }
    let step = format!(
        "BEGIN; SET LOCAL app.current_tenant = '{}'; SELECT tenant_rows_step('tasks', 'purge', NULL, 100); COMMIT",
        world.acme.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(step))
        .execute(&mut app)
        .await
        .unwrap();
    assert_eq!(world.digest(&world.acme).await, acme);
}

/// The matrix in docs/lifecycle.md is the one that is enforced.
#[test]
fn capability_matrix_is_printed_into_the_docs() {
    let head = Capability::ALL.map(Capability::as_str).join(" | ");
    let mut table = format!(
        "| State | {head} |\n| --- |{}\n",
        " --- |".repeat(Capability::ALL.len())
    );
    for status in TenantStatus::ALL {
        let cells = Capability::ALL.map(|one| if status.allows(one) { "yes" } else { "no" });
        table.push_str(&format!("| `{}` | {} |\n", status.as_str(), cells.join(" | ")));
    }
    let mut steps = "| From | Transition | To |\n| --- | --- | --- |\n".to_owned();
    for status in TenantStatus::ALL {
        for transition in Transition::ALL {
            let both = [false, true].map(|suspended| status.after(transition, suspended));
            let [Some(plain), Some(suspended)] = both else {
                continue;
            };
            let to = if plain == suspended {
                format!("`{}`", plain.as_str())
            } else {
                format!(
                    "`{}`, or `{}` if it was that before",
                    plain.as_str(),
                    suspended.as_str()
                )
            };
            steps.push_str(&format!(
                "| `{}` | {} | {to} |\n",
                status.as_str(),
                transition.as_str()
            ));
        }
    }
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/lifecycle.md")).unwrap();
    assert!(docs.contains(&table), "docs/lifecycle.md lacks:\n{table}");
    assert!(docs.contains(&steps), "docs/lifecycle.md lacks:\n{steps}");
}

#[actix_web::test]
async fn operators_of_one_connection_delete_and_restore() {
    let world = World::with(Options {
        pool: PoolConfig {
            size: 1,
            ..PoolConfig::default()
        },
        ..Options::default()
    })
    .await;
    let olga = world.operator(OLGA).await;
    operate(&world, &olga, "delete").await.expect(202);
    operate(&world, &olga, "restore").await.expect(200);
    let request = world.client.request(Method::GET, "/api/v1/tenant");
    request.bearer(&world.acme.viewer.access_token).await.expect(200);
}

/// Deletes acme, whose project then has the name of another one: a request that was under way can still have added a row.
async fn delete_with_a_late_row(world: &World, operator: &str) {
    operate(world, operator, "delete").await.expect(202);
    settle(world).await;
    let late = format!(
        "INSERT INTO projects (tenant_id, id, created_at, updated_at, version, name, status, owner_id, view_count) \
         SELECT tenant_id, gen_random_uuid(), now(), now(), 1, name, status, owner_id, 0 FROM projects WHERE id = '{}'",
        world.acme.project
    );
    world.sql(late).await;
}

#[actix_web::test]
async fn restoration_is_a_conflict_while_a_name_is_in_use() {
    let world = World::new().await;
    let olga = world.operator(OLGA).await;
    let before = contents(&world, &world.acme).await;
    delete_with_a_late_row(&world, &olga).await;
    let refused = operate(&world, &olga, "restore").await.problem(409, "conflict");
    assert!(
        refused.text().contains("is in use by a row that was added since"),
        "{}",
        refused.text()
    );
    world
        .get(&world.acme.admin, "/api/v1/tenant")
        .await
        .problem(410, "tenant_gone");
    world
        .sql(format!(
            "DELETE FROM projects WHERE tenant_id = '{}' AND deleted_at IS NULL",
            world.acme.id
        ))
        .await;
    operate(&world, &olga, "restore").await.expect(200);
    assert_eq!(contents(&world, &world.acme).await, before);
    // What is in the tenant's log names the operator who asked.
    let restored = world.audit(&world.acme).await;
    let (_, restored) = restored
        .iter()
        .rfind(|(action, _)| action == "tenant.restored")
        .unwrap();
    assert_eq!(restored["actor_type"], "operator");
    assert_eq!(restored["after"]["reason"], "a test");
}

/// The entry in the tenant's log is stored before the tenant is back, so that no restoration is without one.
#[actix_web::test]
async fn restoration_ends_when_its_entry_can_be_stored() {
    let options = Options::default();
    let timeouts = StatementTimeouts {
        lock: Some(std::time::Duration::from_millis(100)),
        ..StatementTimeouts::default()
    };
    let pool = PoolConfig {
        timeouts,
        ..options.pool
    };
    let world = World::with(Options { pool, ..options }).await;
    let cx = world.operator_cx();
    lifecycle::delete(&cx, world.acme.id, "a test").await.unwrap();
    settle(&world).await;
    lifecycle::begin_restore(&cx, world.acme.id, "deleted by mistake")
        .await
        .unwrap();
    let mut admin = world.database.admin().await;
    let lock = "BEGIN; LOCK TABLE audit_events IN EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut admin).await.unwrap();
    let refused = row_work::settle(&world.app, world.acme.id, None, &|_| {}).await;
    assert!(refused.is_err(), "{refused:?}");
    let state = async || {
        let found = world.app.ports.tenant_rows.tenant(BECAUSE, world.acme.id).await;
        let tenant = found.unwrap().unwrap();
        (tenant.status, tenant.row_work)
    };
    assert_eq!(state().await, (TenantStatus::Deleted, Some(RowWork::Restore)));
    admin.close().await.unwrap();
    assert_eq!(settle(&world).await, Settled::Done);
    assert_eq!(state().await, (TenantStatus::Active, None));
    let entries = world.audit(&world.acme).await;
    let entries: Vec<_> = entries
        .iter()
        .filter(|(action, _)| action == "tenant.restored")
        .collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].1["after"]["reason"], "deleted by mistake");
}

#[actix_web::test]
async fn tenant_that_cannot_be_restored_can_be_purged() {
    let world = World::new().await;
    let olga = world.operator(OLGA).await;
    delete_with_a_late_row(&world, &olga).await;
    operate(&world, &olga, "restore").await.problem(409, "conflict");
    // It is a deleted tenant again, whose rows are all marked.
    assert_eq!(settle(&world).await, Settled::Done);
    assert_eq!(
        rows(&world, &world.acme, "AND deleted_at IS NULL").await,
        BTreeMap::new()
    );
    operate(&world, &olga, "purge").await.expect(202);
    assert_eq!(settle(&world).await, Settled::Done);
    assert!(
        world
            .app
            .ports
            .tenant_rows
            .tenant(BECAUSE, world.acme.id)
            .await
            .unwrap()
            .is_none()
    );
}
