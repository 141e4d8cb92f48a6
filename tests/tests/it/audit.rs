//! The audit log that is read: lists, the hash chain, verification, exports and retention.

use std::time::Duration;

use chrono::Duration as Span;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use tenantry_billing::plans::tenant_plan;
use tenantry_domain::audit::{HeadKind, WrongReason};
use tenantry_domain::kernel::SystemScope;
use tenantry_tenancy::Cx;
use tenantry_tenancy::audit::chain::{self, Advanced};
use tenantry_tenancy::audit::verify::{self, Verified};
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::tenant::audit_upkeep::KeepAudit;
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tests::{PASSWORD, Person, TenantWorld, World, operator_cx};

const EVENTS: &str = "/api/v1/audit-events";
const EXPORT: &str = "/api/v1/audit-events/export";
const VERIFY: &str = "/api/v1/audit-events/verify";
const BECAUSE: SystemScope = SystemScope::because("a test in the system's place");

pub(crate) async fn system(world: &World, tenant: &TenantWorld) -> Cx {
    Cx::enter(&world.app, BECAUSE, tenant.id).await.unwrap().unwrap()
}

/// Entries wait for every transaction of the server that began before them, those of other tests included.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Chains everything that has committed. Transactions of other tests in the same server make the chain wait.
pub(crate) async fn chain_all(world: &World, tenant: &TenantWorld) -> usize {
    chain_in(&system(world, tenant).await).await
}

/// The same in a context of the tenant.
pub(crate) async fn chain_in(cx: &Cx) -> usize {
    let (mut chained, deadline) = (0, tokio::time::Instant::now() + LONGEST_WAIT);
    loop {
        let advanced = chain::advance(cx).await.unwrap();
        chained += advanced.chained;
        if !advanced.waiting {
            return chained;
        }
        assert!(tokio::time::Instant::now() < deadline, "the chain waits for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn verified(world: &World, tenant: &TenantWorld) -> Verified {
    verify::verify_of(&world.app, BECAUSE, tenant.id)
        .await
        .unwrap()
        .unwrap()
}

async fn list(world: &World, who: &Person, query: &str) -> Vec<Value> {
    let page = world.get(who, &format!("{EVENTS}{query}")).await;
    let page = page.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

async fn rename(world: &World, tenant: &TenantWorld, title: &str) {
    let path = format!("/api/v1/tasks/{}", tenant.task);
    let change = world.patch(&tenant.member, &path, &json!({"title": title}));
    let change = change.header("User-Agent", "probe/1.0");
    change.await.expect(200);
}

#[actix_web::test]
async fn entries_say_who_what_when_and_from_where() {
    let world = World::new().await;
    let acme = &world.acme;
    rename(&world, acme, "Renamed").await;
    let of_task = format!("?entity=task&entity_id={}", acme.task);
    let history = list(&world, &acme.admin, &of_task).await;
    let actions: Vec<_> = history.iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["task.updated", "task.created"]);
    let entry = &history[0];
    assert_eq!(entry["actor"]["kind"], "user");
    assert_eq!(entry["actor"]["id"], json!(acme.member.id));
    assert!(entry["actor"]["name"].is_string());
    assert_eq!(entry["after"]["title"], "Renamed");
    assert!(
        entry["before"].get("status").is_none(),
        "only what has changed: {entry}"
    );
    assert_eq!(
        (&entry["address"], &entry["user_agent"]),
        (&json!("203.0.113.7"), &json!("probe/1.0"))
    );
    assert_eq!(
        (&entry["outcome"], &entry["risk"]),
        (&json!("success"), &json!("low"))
    );
    assert_eq!((&entry["sequence"], &entry["hash"]), (&Value::Null, &Value::Null));
    assert!(entry["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    chain_all(&world, acme).await;
    let entry = &list(&world, &acme.admin, &of_task).await[0];
    assert!(entry["sequence"].as_i64().is_some_and(|number| number > 1));
    assert_eq!(entry["hash"].as_str().map(str::len), Some(64));
    // The other tenant has none of it.
    let theirs = list(&world, &world.globex.admin, &of_task).await;
    assert_eq!(theirs, Vec::<Value>::new());
    for path in [EVENTS, VERIFY, EXPORT] {
        for who in [&acme.member, &acme.viewer] {
            world.get(who, path).await.problem(403, "forbidden");
        }
    }
}

#[actix_web::test]
async fn filters_and_pages_find_what_they_say() {
    let world = World::new().await;
    let acme = &world.acme;
    for number in 0..5 {
        rename(&world, acme, &number.to_string()).await;
    }
    world
        .login("acme", &acme.admin.email, "wrong")
        .await
        .problem(401, "invalid_credentials");
    let admin = &acme.admin;
    let actor = format!("?actor={}", acme.member.id);
    assert!(
        list(&world, admin, &actor)
            .await
            .iter()
            .all(|entry| entry["actor"]["id"] == json!(acme.member.id))
    );
    let failed = list(&world, admin, "?actor=guest&action=login.failed&risk=medium").await;
    assert_eq!((failed.len(), &failed[0]["outcome"]), (1, &json!("failure")));
    let all = list(&world, admin, "?limit=100").await;
    let third = all[2]["at"].as_str().unwrap();
    let since = list(&world, admin, &format!("?limit=100&from={third}")).await;
    let before = list(&world, admin, &format!("?limit=100&to={third}")).await;
    assert_eq!((since.len(), since.len() + before.len()), (3, all.len()));
    let (mut paged, mut path) = (Vec::new(), format!("{EVENTS}?limit=3"));
    loop {
        let page = world.get(admin, &path).await.expect(200).json();
        paged.extend(page["data"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("{EVENTS}?limit=3&cursor={next}");
        // A cursor is of one tenant and filter.
        world.get(&world.globex.admin, &path).await.expect(400);
    }
    assert_eq!(paged, all);
    for (query, pointer) in [
        ("?actor=nobody", "/query/actor"),
        ("?action=", "/query/action"),
        ("?entity_id=1", "/query/entity_id"),
        ("?risk=huge", "/query/risk"),
        ("?from=yesterday", "/query/from"),
        ("?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "/query/to"),
        ("?entity=a%00b", "/query/entity"),
        ("?other=1", "/query/other"),
    ] {
        let refused = world.get(admin, &format!("{EVENTS}{query}")).await.expect(422);
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{query}");
    }
}

#[actix_web::test]
async fn chains_of_two_tenants_have_no_gaps_and_verify() {
    let world = World::new().await;
    for number in 0..20 {
        let title = number.to_string();
        futures_util::join!(
            rename(&world, &world.acme, &title),
            rename(&world, &world.globex, &title),
        );
        if number % 5 == 0 {
            chain_all(&world, &world.acme).await;
        }
    }
    for tenant in [&world.acme, &world.globex] {
        chain_all(&world, tenant).await;
        chain::sign_head(&system(&world, tenant).await)
            .await
            .unwrap()
            .unwrap();
        let answer = world.get(&tenant.admin, VERIFY).await.expect(200).json();
        let entries = world.audit(tenant).await.len();
        assert_eq!(answer["valid"], true, "{answer}");
        assert_eq!(answer["entries"], entries);
        assert_eq!(answer["unchained"], 0);
        assert_eq!(answer["signed_head"]["sequence"], entries);
        assert_eq!(answer["signed_head"]["hash"], answer["last_hash"]);
        let mut sequences: Vec<i64> = list(&world, &tenant.admin, "?limit=100")
            .await
            .iter()
            .map(|entry| entry["sequence"].as_i64().unwrap())
            .collect();
        sequences.sort_unstable();
        assert_eq!(
            sequences,
            (1..=i64::try_from(entries).unwrap()).collect::<Vec<_>>()
        );
    }
    // Signed already.
    assert_eq!(
        chain::sign_head(&system(&world, &world.acme).await)
            .await
            .unwrap(),
        None
    );
    assert_eq!(chain_all(&world, &world.acme).await, 0);
}

/// An entry of a transaction that began first and commits last is chained when it has committed. Meanwhile nothing behind it is
/// chained, and what is not chained is counted.
#[actix_web::test]
async fn late_commit_is_chained_later_and_not_skipped() {
    let world = World::new().await;
    let acme = &world.acme;
    chain_all(&world, acme).await;
    let mut late = world.database.app().await;
    let mut open = late.begin().await.unwrap();
    open.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "SET LOCAL app.current_tenant = '{0}'; \
         INSERT INTO audit_events (tenant_id, id, created_at, category, action, target_type, actor_type, request_id) \
         VALUES ('{0}', gen_random_uuid(), '2026-01-15T12:00:00Z', 'change', 'note.late', 'note', 'system', 'r')",
        acme.id
    ))))
    .await
    .unwrap();
    rename(&world, acme, "Soon").await;
    let cx = system(&world, acme).await;
    let waiting = chain::advance(&cx).await.unwrap();
    assert_eq!(
        waiting,
        Advanced {
            chained: 0,
            waiting: true
        }
    );
    let answer = world.get(&acme.admin, VERIFY).await.expect(200).json();
    assert_eq!(
        (&answer["valid"], &answer["unchained"]),
        (&json!(true), &json!(1))
    );
    assert!(answer["oldest_unchained_at"].is_string());
    open.commit().await.unwrap();
    assert_eq!(chain_all(&world, acme).await, 2);
    let late = &list(&world, &acme.admin, "?action=note.late").await[0];
    let soon = &list(&world, &acme.admin, "?action=task.updated").await[0];
    assert_eq!(
        late["sequence"].as_i64().unwrap() + 1,
        soon["sequence"].as_i64().unwrap()
    );
    assert_eq!(verified(&world, acme).await.wrong, None);
}

#[actix_web::test]
async fn two_servers_that_chain_at_once_chain_each_entry_once() {
    let world = World::new().await;
    for number in 0..30 {
        rename(&world, &world.acme, &number.to_string()).await;
    }
    let cx = system(&world, &world.acme).await;
    let all = futures_util::future::join_all((0..8).map(|_| chain::advance(&cx))).await;
    for advanced in all {
        let _ = advanced.unwrap();
    }
    chain_all(&world, &world.acme).await;
    let verified = verified(&world, &world.acme).await;
    assert_eq!(verified.wrong, None);
    assert_eq!(
        usize::try_from(verified.entries),
        Ok(world.audit(&world.acme).await.len())
    );
}

/// What a server has written is chained by its own loop, seconds later.
#[actix_web::test]
async fn marked_tenants_are_chained_when_they_are_due() {
    let world = World::new().await;
    rename(&world, &world.acme, "Renamed").await;
    assert!(world.app.audit_marks().waiting().0 >= 1);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while verify_unchained(&world).await > 0 {
        world.clock.advance(Span::seconds(3));
        chain::chain_due(&world.app).await;
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.clock.advance(Span::seconds(90));
    chain::chain_due(&world.app).await;
    assert_eq!(world.app.audit_marks().waiting(), (0, None));
}

async fn verify_unchained(world: &World) -> i64 {
    let answer = world.get(&world.acme.admin, VERIFY).await.expect(200).json();
    answer["unchained"].as_i64().unwrap()
}

/// What a superuser does to the log, each with the reason that verification gives. All that was signed before.
#[actix_web::test]
async fn tampering_of_a_superuser_is_named_with_its_entry() {
    let world = World::new().await;
    let acme = &world.acme;
    for number in 0..4 {
        rename(&world, acme, &number.to_string()).await;
        chain_all(&world, acme).await;
    }
    chain::sign_head(&system(&world, acme).await)
        .await
        .unwrap()
        .unwrap();
    let last = verified(&world, acme).await;
    assert_eq!(last.wrong, None);
    let tables = ["audit_events", "audit_blocks", "audit_heads"];
    for table in tables {
        world
            .sql(format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}"))
            .await;
    }
    let (id, end) = (acme.id, last.last_sequence);
    let event = format!("tenant_id = '{id}' AND action = 'task.updated'");
    // Transactions of other tests on the same server may have parted the entries before the last three into several blocks.
    let (first, second) = (end - 3, end - 2);
    for (what, sql, reason, sequence) in [
        (
            "an entry is forged",
            format!("UPDATE audit_events SET after = '{{\"title\": \"forged\"}}' WHERE {event}"),
            WrongReason::HashMismatch,
            end - 3,
        ),
        (
            "its actor is another one",
            format!("UPDATE audit_events SET actor_id = gen_random_uuid() WHERE {event}"),
            WrongReason::HashMismatch,
            end - 3,
        ),
        (
            "entries are deleted",
            format!("DELETE FROM audit_events WHERE {event}"),
            WrongReason::MissingEntry,
            end - 3,
        ),
        (
            "two entries change places",
            format!(
                "UPDATE audit_blocks SET links = substr(links, 65, 64) || substr(links, 1, 64) || substr(links, 129) \
                 WHERE tenant_id = '{id}' AND first_sequence = 1"
            ),
            WrongReason::HashMismatch,
            1,
        ),
        (
            "a block is spliced out",
            format!("DELETE FROM audit_blocks WHERE tenant_id = '{id}' AND first_sequence = {second}"),
            WrongReason::Gap,
            end - 1,
        ),
        (
            "the beginning is cut off",
            format!(
                "DELETE FROM audit_events USING saved_audit_blocks b WHERE audit_events.tenant_id = '{id}' \
                 AND b.tenant_id = '{id}' AND b.last_sequence <= {first} AND position(uuid_send(audit_events.id) IN b.links) > 0; \
                 DELETE FROM audit_blocks WHERE tenant_id = '{id}' AND last_sequence <= {first}"
            ),
            WrongReason::Gap,
            end - 2,
        ),
        (
            "the beginning is cut off behind a checkpoint of one's own",
            format!(
                "INSERT INTO audit_heads SELECT h.tenant_id, gen_random_uuid(), h.created_at, 'checkpoint', b.last_sequence, \
                 substr(b.links, length(b.links) - 31), h.kid, h.public_key, h.signature FROM audit_heads h, audit_blocks b \
                 WHERE h.tenant_id = '{id}' AND b.tenant_id = '{id}' AND b.last_sequence = {first}; \
                 DELETE FROM audit_blocks WHERE tenant_id = '{id}' AND last_sequence <= {first}"
            ),
            WrongReason::WrongSignature,
            end - 3,
        ),
        (
            "the end is cut off",
            format!(
                "DELETE FROM audit_events WHERE {event} AND created_at = (SELECT max(created_at) FROM audit_events WHERE {event}); \
                 DELETE FROM audit_blocks WHERE tenant_id = '{id}' AND last_sequence = {end}"
            ),
            WrongReason::CutOff,
            end,
        ),
        (
            "the whole log is deleted",
            format!(
                "DELETE FROM audit_events WHERE tenant_id = '{id}'; DELETE FROM audit_blocks WHERE tenant_id = '{id}'"
            ),
            WrongReason::CutOff,
            end,
        ),
        (
            "a signature is forged",
            format!(
                "UPDATE audit_heads SET signature = decode(repeat('00', 64), 'hex') WHERE tenant_id = '{id}'"
            ),
            WrongReason::WrongSignature,
            end,
        ),
        (
            "the chain of the other tenant is put in its place",
            format!(
                "DELETE FROM audit_blocks WHERE tenant_id = '{id}'; DELETE FROM audit_heads WHERE tenant_id = '{id}'; \
                 UPDATE audit_blocks SET tenant_id = '{id}'; UPDATE audit_events SET tenant_id = '{id}' \
                 WHERE tenant_id = '{}'",
                world.globex.id
            ),
            WrongReason::HashMismatch,
            1,
        ),
        (
            "an entry is added with a transaction of long ago",
            format!(
                "INSERT INTO audit_events (tenant_id, id, created_at, category, action, target_type, actor_type, request_id, xact) \
                 VALUES ('{id}', gen_random_uuid(), now(), 'change', 'task.deleted', 'task', 'user', 'r', 1)"
            ),
            WrongReason::UnchainedEntry,
            end,
        ),
    ] {
        if what.contains("other tenant") {
            chain_all(&world, &world.globex).await;
        }
        world.sql(sql).await;
        let answer = world.get(&acme.admin, VERIFY).await.expect(200).json();
        assert_eq!(answer["valid"], false, "{what}: {answer}");
        let wrong = &answer["first_wrong"];
        assert_eq!(
            (&wrong["reason"], &wrong["sequence"]),
            (&json!(reason.as_str()), &json!(sequence)),
            "{what}: {answer}"
        );
        if what == "an entry is forged" {
            // Verification stops at the wrong entry; those behind it are chained all the same.
            assert_eq!(answer["unchained"], 0, "{answer}");
        }
        for table in tables {
            world
                .sql(format!(
                    "TRUNCATE {table}; INSERT INTO {table} SELECT * FROM saved_{table}"
                ))
                .await;
        }
        let answer = world.get(&acme.admin, VERIFY).await.expect(200).json();
        assert_eq!(answer["valid"], true, "after {what}: {answer}");
    }
}

#[actix_web::test]
async fn runtime_role_only_appends_to_the_log() {
    let world = World::new().await;
    chain_all(&world, &world.acme).await;
    chain::sign_head(&system(&world, &world.acme).await)
        .await
        .unwrap();
    let end = verified(&world, &world.acme).await.last_sequence;
    for sql in [
        "UPDATE audit_events SET action = 'x'".to_owned(),
        "DELETE FROM audit_events".into(),
        "TRUNCATE audit_events".into(),
        "UPDATE audit_blocks SET links = links".into(),
        "DELETE FROM audit_blocks".into(),
        "UPDATE audit_heads SET sequence = 1".into(),
        "DELETE FROM audit_heads".into(),
        // Without a checkpoint nothing is deleted, and with one nothing of the last 29 days.
        format!("SELECT audit_retain({end})"),
        format!(
            "UPDATE tenants SET updated_at = updated_at; INSERT INTO audit_heads \
             (tenant_id, id, created_at, kind, sequence, hash, kid, public_key, signature) VALUES \
             ('{}', gen_random_uuid(), now(), 'checkpoint', 999, decode(repeat('00', 32), 'hex'), 'k', '', ''); \
             SELECT audit_retain(999)",
            world.acme.id
        ),
    ] {
        let mut app = world.database.app().await;
        let all = format!(
            "BEGIN; SET LOCAL app.current_tenant = '{}'; {sql}; COMMIT",
            world.acme.id
        );
        let refused = app.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(all))).await;
        let code = refused
            .unwrap_err()
            .into_database_error()
            .unwrap()
            .code()
            .unwrap()
            .into_owned();
        let expected = if sql.contains("audit_retain") {
            "22023"
        } else {
            "42501"
        };
        assert_eq!(code, expected, "{sql}");
    }
    // Young entries, behind a proper checkpoint.
    let young = "UPDATE audit_events SET created_at = now(); UPDATE audit_blocks SET max_at = now()";
    world.sql(young).await;
    let later = "2100-01-01T00:00:00Z".parse().unwrap();
    let refused = chain::retain(&system(&world, &world.acme).await, later).await;
    assert!(refused.is_err());
    assert_eq!(
        world
            .sql("SELECT FROM audit_heads WHERE kind = 'checkpoint'")
            .await,
        0
    );
}

/// The world's clock is months behind that of the database, for which its entries are old.
#[actix_web::test]
async fn retention_leaves_a_checkpoint_from_which_the_rest_verifies() {
    let world = World::new().await;
    let acme = &world.acme;
    let cx = system(&world, acme).await;
    chain_all(&world, acme).await;
    KeepAudit.run(&cx, Nothing {}).await.unwrap();
    let whole = verified(&world, acme).await;
    assert_eq!(
        (whole.wrong.clone(), whole.checkpoint),
        (None, None),
        "nothing is old yet"
    );
    world.clock.advance(Span::days(700));
    let login = world
        .login("acme", &acme.admin.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let admin = Person {
        access_token: login["access_token"].as_str().unwrap().into(),
        ..acme.admin.clone()
    };
    chain_all(&world, acme).await;
    // `pro` keeps entries for 730 days.
    world.clock.advance(Span::days(40));
    let cx = system(&world, acme).await;
    KeepAudit.run(&cx, Nothing {}).await.unwrap();
    let actions: Vec<String> = world
        .audit(acme)
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    assert_eq!(actions, ["session.started", "audit.retained"]);
    chain_all(&world, acme).await;
    let rest = verified(&world, acme).await;
    assert_eq!(rest.wrong, None);
    assert_eq!((rest.checkpoint, rest.entries), (Some(whole.last_sequence), 2));
    assert_eq!(rest.last_sequence, whole.last_sequence + 2);
    // Nobody of the other tenant lost anything.
    assert!(world.audit(&world.globex).await.len() > 5);
    let login = world
        .login("acme", &admin.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let answer = world
        .client
        .get(VERIFY)
        .bearer(login["access_token"].as_str().unwrap());
    let answer = answer.await.expect(200).json();
    assert_eq!(answer["checkpoint_sequence"], whole.last_sequence);
    // And again, with nothing left to delete.
    KeepAudit.run(&cx, Nothing {}).await.unwrap();
    // All of it, so that the chain goes on from its checkpoint.
    chain_all(&world, acme).await;
    let before = verified(&world, acme).await.last_sequence;
    // For the database's clock they are not old enough yet.
    let all = world.app.ports.clock.now() + Span::days(1);
    assert!(chain::retain(&cx, all).await.is_err());
    world
        .sql("UPDATE audit_events SET created_at = '2026-01-01'; UPDATE audit_blocks SET max_at = '2026-01-01'")
        .await;
    chain::retain(&cx, world.app.ports.clock.now() + Span::days(1))
        .await
        .unwrap();
    chain_all(&world, acme).await;
    let rest = verified(&world, acme).await;
    assert_eq!(
        (rest.wrong, rest.checkpoint, rest.entries),
        (None, Some(before), 1)
    );
}

#[actix_web::test]
async fn signatures_outlast_the_rotation_of_their_key() {
    let world = World::new().await;
    let acme = &world.acme;
    chain_all(&world, acme).await;
    let head = chain::sign_head(&system(&world, acme).await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(head.kind, HeadKind::Head);
    assert!(head.public_key.len() > 32, "the public key is sealed");
    // Another server with the same configured key, whose ring knows nothing else.
    let verified = verified(&world, acme).await;
    assert_eq!((verified.wrong, verified.unverifiable), (None, 0));
    assert_eq!(verified.signed, Some(head));
    // A server that cannot open the key says so, and does not take it for a forgery.
    world.sql("UPDATE audit_heads SET public_key = '\\x00'").await;
    let answer = world.get(&acme.admin, VERIFY).await.expect(200).json();
    assert_eq!(
        (&answer["valid"], &answer["unverifiable_signatures"]),
        (&json!(true), &json!(1))
    );
}

/// After a restore into another server, transactions have lower numbers than the entries that were chained before.
#[actix_web::test]
async fn restored_database_goes_on_chaining() {
    let world = World::new().await;
    let acme = &world.acme;
    chain_all(&world, acme).await;
    world
        .sql("UPDATE audit_blocks SET cursor_xact = 9000000000000000")
        .await;
    world.sql("UPDATE audit_events SET xact = 9000000000000000").await;
    rename(&world, acme, "After").await;
    assert_eq!(chain_all(&world, acme).await, 1);
    rename(&world, acme, "Later").await;
    assert_eq!(chain_all(&world, acme).await, 1);
    let verified = verified(&world, acme).await;
    assert_eq!(
        usize::try_from(verified.entries),
        Ok(world.audit(acme).await.len())
    );
}

#[actix_web::test]
async fn operators_are_named_in_the_logs_of_both_sides() {
    let world = World::new().await;
    let token = world.operator("olga@platform.example").await;
    let path = format!("/api/v1/admin/tenants/{}/suspend", world.acme.id);
    let body = json!({"reason": "unpaid"});
    world.client.post(&path, &body).bearer(&token).await.expect(200);
    let entry = &list(&world, &world.acme.admin, "?actor=operator").await[0];
    assert_eq!(entry["action"], "tenant.suspended");
    assert!(entry["actor"]["id"].is_string());
    assert_eq!(
        (&entry["risk"], &entry["actor"]["name"]),
        (&json!("high"), &Value::Null)
    );
    let of_tenant = format!(
        "/api/v1/admin/audit-events?tenant_id={}&action=tenant.suspended",
        world.acme.id
    );
    let page = world
        .client
        .get(&of_tenant)
        .bearer(&token)
        .await
        .expect(200)
        .json();
    let event = &page["data"][0];
    assert_eq!(event["actor"]["id"], entry["actor"]["id"]);
    assert_eq!(event["actor"]["name"], "Olga Operator");
    assert_eq!(
        (&event["reason"], &event["tenant_id"]),
        (&json!("unpaid"), &json!(world.acme.id))
    );
    let all = world
        .client
        .get("/api/v1/admin/audit-events?limit=2")
        .bearer(&token);
    let all = all.await.expect(200).json();
    // Reading is recorded as well.
    assert_eq!(all["data"][0]["action"], "audit.listed");
    let next = format!(
        "/api/v1/admin/audit-events?limit=2&cursor={}",
        all["next_cursor"].as_str().unwrap()
    );
    world.client.get(&next).bearer(&token).await.expect(200);
    world
        .get(&world.acme.admin, "/api/v1/admin/audit-events")
        .await
        .problem(401, "unauthenticated");
    let cx = world.operator_cx();
    lifecycle::resume(&cx, world.acme.id, "paid").await.unwrap();
    let resumed = &list(&world, &world.acme.admin, "?action=tenant.resumed").await[0];
    assert_eq!(
        resumed["actor"],
        json!({"kind": "system", "id": null, "name": null})
    );
}

#[actix_web::test]
async fn exports_stream_everything_in_both_formats() {
    let world = World::new().await;
    let acme = &world.acme;
    world
        .sql(format!(
            "INSERT INTO audit_events (tenant_id, id, created_at, category, action, target_type, actor_type, request_id, after) \
             SELECT '{}', gen_random_uuid(), '2025-12-01T00:00:00Z'::timestamptz + n * interval '1 second', 'change', 'note.created', \
             'note', 'system', '=1+1', jsonb_build_object('text', repeat('x', 100)) FROM generate_series(1, 1700) AS n",
            acme.id
        ))
        .await;
    chain_all(&world, acme).await;
    let reply = world.get(&acme.admin, EXPORT).await.expect(200);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let stored = world.audit(acme).await;
    let exported = stored.iter().any(|(action, _)| action == "audit.exported");
    // All of before the export, which is an entry itself.
    assert!(exported && lines.len() == stored.len() - 1);
    assert!(
        lines
            .iter()
            .filter(|line| line["action"] == "note.created")
            .all(|line| line["hash"].is_string())
    );
    assert!(lines.is_sorted_by_key(|line| std::cmp::Reverse(line["at"].as_str().unwrap().to_owned())));
    let filtered = format!("{EXPORT}?actor=operator&risk=high");
    world.get(&acme.admin, &filtered).await.expect(200);
    let stored = world.audit(acme).await;
    let (_, exported) = stored
        .iter()
        .rfind(|(action, _)| action == "audit.exported")
        .unwrap();
    let of = &exported["after"];
    assert_eq!(
        (&of["actor_kind"], &of["risk"]),
        (&json!("operator"), &json!("high"))
    );
    let reply = world
        .get(&acme.admin, &format!("{EXPORT}?format=csv&entity=note"))
        .await
        .expect(200);
    assert!(
        reply
            .header("content-disposition")
            .unwrap()
            .contains("audit-events.csv")
    );
    let text = reply.text();
    let rows: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 1_701);
    assert!(rows[0].starts_with("id,sequence,at,actor_kind"));
    assert!(
        rows[1..].iter().all(|row| row.contains("\"'=1+1\"")),
        "no cell is a formula"
    );
    for (query, pointer) in [("?format=xml", "/query/format"), ("?limit=3", "/query/limit")] {
        let refused = world
            .get(&acme.admin, &format!("{EXPORT}{query}"))
            .await
            .expect(422);
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    }
    // The other tenant's export has nothing of it.
    let theirs = world.get(&world.globex.admin, EXPORT).await.expect(200);
    assert!(!theirs.text().contains("note.created"));
}

#[actix_web::test]
async fn exports_need_the_plan_feature() {
    let world = World::new().await;
    tenant_plan::change(&operator_cx(&world.app), world.acme.id, "free", "a test")
        .await
        .unwrap();
    world.outlive_the_cache();
    let refused = world.get(&world.acme.admin, EXPORT).await;
    let refused = refused.problem(403, "plan_feature_required").json();
    assert_eq!(refused["feature"], "audit_export");
    world.get(&world.acme.admin, EVENTS).await.expect(200);
}

/// Erasure of a person: the owner of the database replaces what tells about them by hashes and destroys the salt.
#[actix_web::test]
async fn erased_entries_keep_the_chain() {
    let world = World::new().await;
    let acme = &world.acme;
    chain_all(&world, acme).await;
    let cx = system(&world, acme).await;
    let blocks = cx
        .read(async |work| work.audit_chain().blocks_after(0, 10).await)
        .await
        .unwrap();
    for link in blocks.iter().flat_map(|block| &block.links) {
        let entries = cx
            .read(async |work| work.audit_chain().entries(&[link.id]).await)
            .await
            .unwrap();
        let erased = entries[&link.id].erased(&link.salt);
        sqlx::query(
            "UPDATE audit_events SET ip = $2, user_agent = $3, before = $4, after = $5 WHERE id = $1",
        )
        .bind(link.id.uuid())
        .bind(&erased.address)
        .bind(&erased.user_agent)
        .bind(&erased.before)
        .bind(&erased.after)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    }
    world
        .sql(format!(
            "UPDATE audit_blocks b SET links = (SELECT string_agg(substr(b.links, n * 64 + 1, 16) || decode(repeat('00', 16), 'hex') \
             || substr(b.links, n * 64 + 33, 32), '' ORDER BY n) FROM generate_series(0, octet_length(b.links) / 64 - 1) AS n) \
             WHERE tenant_id = '{}'",
            acme.id
        ))
        .await;
    let stored = world.audit(acme).await;
    let text = json!(stored.iter().map(|(_, row)| row).collect::<Vec<_>>()).to_string();
    assert!(
        !text.contains(&acme.admin.email) && text.contains("erased:"),
        "{text}"
    );
    assert_eq!(verified(&world, acme).await.wrong, None);
}
