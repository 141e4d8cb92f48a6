//! Erasures of persons, attacked: former addresses, jobs and counts that are under way, two at once, tables of a service, the payment
//! provider, and the database function that erases entries of the audit log.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tenantry_billing::BillingHandlers as _;
use tenantry_migration::{OnDelete, TenantTable};
use tenantry_tenancy::audit::refusal;
use tenantry_tenancy::identity::erasure;
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tests::{ManualClock, MemoryPayments, Options, Payments, Person, World};

use crate::account_passwords::{Mailed, post};
use crate::audit::chain_in;
use crate::jobs::worker;
use crate::persons::{assert_chain, busy, erase, exported, found_anywhere, run_jobs, system};

async fn sql(world: &World, sql: &str) {
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut admin)
        .await
        .unwrap();
}

async fn number(world: &World, sql: &str) -> i64 {
    let mut admin = world.database.admin().await;
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(&mut admin)
        .await
        .unwrap()
}

/// Chains the log of acme, erases everything that is left of a person, and returns whether that is finished.
async fn is_finished(world: &World, person: &Person) -> bool {
    let cx = system(world, &world.acme).await;
    chain_in(&cx).await;
    let erasure = erasure::finish(&cx, person.id).await.unwrap().unwrap();
    erasure.finished_at.is_some()
}

async fn is_nowhere(world: &World, text: &str) {
    let found = found_anywhere(world, text).await;
    assert!(found.is_empty(), "{text}: {found:?}");
}

/// An account that came by an invitation and has got another address since: the invitation and its entries have the former one.
#[actix_web::test]
async fn former_addresses_are_erased() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let invited = json!({"email": "old.name@acme.example", "role": "viewer"});
    world
        .post(&acme.admin, "/api/v1/invitations", &invited)
        .await
        .expect(201);
    let token = mailed.token_for("old.name@acme.example").await;
    let accept = json!({"token": token, "full_name": "Guest", "password": tenantry_tests::PASSWORD});
    let joined = post(world, "/api/v1/invitations/accept", accept)
        .await
        .expect(200)
        .json();
    let text = |pointer: &str| joined.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let guest = Person {
        email: "new.name@acme.example".into(),
        id: text("/user/id").parse().unwrap(),
        access_token: text("/access_token"),
        refresh_token: text("/refresh_token"),
    };
    let moved = json!({"email": guest.email});
    let path = format!("/api/v1/users/{}", guest.id);
    world.patch(&acme.admin, &path, &moved).await.expect(200);
    run_jobs(world).await;
    sql(world, "DELETE FROM account_links").await;
    erase(world, &acme.admin, &guest).await.expect(202);
    assert!(is_finished(world, &guest).await);
    is_nowhere(world, "old.name@").await;
    is_nowhere(world, "new.name@").await;
    assert_eq!(
        number(world, "SELECT sum(jsonb_array_length(digests)) FROM erasures").await,
        2
    );
    assert_chain(world).await;
}

/// An address that another account has by now is that account's, and so are the entries that name it.
#[actix_web::test]
async fn address_of_another_account_is_not_erased() {
    let world = World::new().await;
    let acme = &world.acme;
    let taken = acme.member.email.clone();
    let path = format!("/api/v1/users/{}", acme.member.id);
    let moved = json!({"email": "moved@acme.example"});
    world.patch(&acme.admin, &path, &moved).await.expect(200);
    let other = json!({"email": taken, "full_name": "Successor"});
    world.post(&acme.admin, "/api/v1/users", &other).await.expect(201);
    world.login("acme", &taken, "wrong").await;
    let member = Person {
        email: "moved@acme.example".into(),
        id: acme.member.id,
        access_token: String::new(),
        refresh_token: String::new(),
    };
    erase(&world, &acme.admin, &member).await.expect(202);
    assert!(is_finished(&world, &member).await);
    is_nowhere(&world, "moved@").await;
    let failed = "SELECT count(*) FROM audit_events WHERE action = 'login.failed' AND after ->> 'email' NOT LIKE 'erased:%' AND ip NOT LIKE 'erased:%'";
    assert_eq!(number(&world, failed).await, 1);
}

/// Refusals and requests that are counted in memory when a person is erased become entries without an address.
#[actix_web::test]
async fn counts_that_are_open_are_recorded_without_the_person() {
    let world = World::new().await;
    let acme = &world.acme;
    for _ in 0..3 {
        world.login("acme", &acme.member.email, "wrong").await;
        world.login("acme", "former@acme.example", "wrong").await;
    }
    for _ in 0..10 {
        world.get(&acme.member, "/api/v1/audit-events").await.expect(403);
    }
    sql(
        &world,
        &format!(
            "UPDATE users SET email = 'former@acme.example' WHERE id = '{}'",
            acme.member.id
        ),
    )
    .await;
    sql(&world, "UPDATE audit_events SET after = NULL WHERE after ->> 'email' IS NOT NULL AND action = 'user.created'").await;
    let member = Person {
        email: "former@acme.example".into(),
        id: acme.member.id,
        access_token: String::new(),
        refresh_token: String::new(),
    };
    erase(&world, &acme.admin, &member).await.expect(202);
    let before = number(&world, "SELECT count(*) FROM audit_events").await;
    world.app.refusals().end_all();
    assert!(refusal::flush(&world.app).await >= 2);
    assert!(world.app.activity().flush(&world.app).await >= 1);
    assert!(number(&world, "SELECT count(*) FROM audit_events").await >= before + 3);
    let named = "SELECT count(*) FROM audit_events WHERE (after ? 'repeated' OR action = 'security.permission_probing') \
                 AND (ip IS NOT NULL OR after ->> 'email' NOT LIKE 'erased:%')";
    assert_eq!(number(&world, named).await, 0);
    let of_others = World::new().await;
    for _ in 0..3 {
        of_others
            .login("acme", &of_others.acme.member.email, "wrong")
            .await;
    }
    of_others.app.refusals().end_all();
    refusal::flush(&of_others.app).await;
    let named = "SELECT count(*) FROM audit_events WHERE after ? 'repeated' AND ip IS NOT NULL AND after ->> 'email' LIKE '%@%'";
    assert_eq!(number(&of_others, named).await, 1, "nobody was erased");
}

/// Both erasures find the same block; neither brings a salt back that the other has replaced by zeros.
#[actix_web::test]
async fn erasures_at_once_leave_no_salt() {
    let world = World::new().await;
    busy(&world).await;
    let acme = &world.acme;
    let task = format!("/api/v1/tasks/{}", acme.task);
    for who in [&acme.member, &acme.viewer] {
        world.login("acme", &who.email, "wrong").await;
    }
    world
        .patch(&acme.member, &task, &json!({"title": "Again"}))
        .await
        .expect(200);
    let (cx, other) = (system(&world, acme).await, system(&world, acme).await);
    chain_in(&cx).await;
    for who in [&acme.member, &acme.viewer] {
        erase(&world, &acme.admin, who).await.expect(202);
    }
    chain_in(&cx).await;
    let mut holder = world.database.admin().await;
    sqlx::raw_sql("BEGIN; SELECT b.id FROM audit_blocks b FOR UPDATE")
        .execute(&mut holder)
        .await
        .unwrap();
    let release = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while number(&world, waiting).await < 2 {
            tokio::task::yield_now().await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    };
    let (one, two, ()) = tokio::join!(
        erasure::finish(&cx, acme.member.id),
        erasure::finish(&other, acme.viewer.id),
        release
    );
    assert!(one.unwrap().unwrap().finished_at.is_some() && two.unwrap().unwrap().finished_at.is_some());
    let salts = format!(
        "SELECT count(*) FROM audit_blocks b CROSS JOIN LATERAL generate_series(0, octet_length(b.links) / 64 - 1) n \
         JOIN audit_events e ON e.tenant_id = b.tenant_id AND replace(e.id::text, '-', '') = encode(substr(b.links, n * 64 + 1, 16), 'hex') \
         WHERE (e.actor_id IN ('{0}', '{1}') OR e.target_id IN ('{0}', '{1}')) \
         AND substr(b.links, n * 64 + 17, 16) <> decode(repeat('00', 16), 'hex')",
        acme.member.id, acme.viewer.id
    );
    assert_eq!(number(&world, &salts).await, 0);
    assert_chain(&world).await;
}

/// Commits a transaction once something waits for what it has locked.
async fn release(world: &World, holder: &mut PgConnection) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.waiting_for_locks().await < 1 {
        assert!(Instant::now() < deadline, "nothing waits");
        tokio::task::yield_now().await;
    }
    sqlx::raw_sql("COMMIT").execute(holder).await.unwrap();
}

/// A row of the person that another transaction changes while the erasure deletes rows goes as well, and that of the other tenant stays.
#[actix_web::test]
async fn row_that_is_changed_during_an_erasure_is_erased() {
    let world = World::new().await;
    let acme = &world.acme;
    for tenant in [acme, &world.globex] {
        let notice = format!(
            "INSERT INTO account_notices (tenant_id, id, created_at, user_id, kind, sent_at) \
             VALUES ('{}', gen_random_uuid(), now(), '{}', 'test', now())",
            tenant.id, tenant.member.id
        );
        sql(&world, &notice).await;
    }
    let mut holder = world.database.admin().await;
    sqlx::raw_sql("BEGIN; UPDATE account_notices SET sent = sent + 1 WHERE kind = 'test'")
        .execute(&mut holder)
        .await
        .unwrap();
    let (erased, ()) = tokio::join!(
        erase(&world, &acme.admin, &acme.member),
        release(&world, &mut holder)
    );
    erased.expect(202);
    let left = "SELECT count(*) FROM account_notices WHERE kind = 'test' AND sent = 2";
    assert_eq!(number(&world, left).await, 1);
    let of_member = format!("{left} AND user_id = '{}'", acme.member.id);
    assert_eq!(number(&world, &of_member).await, 0);
    assert!(is_finished(&world, &acme.member).await);
}

/// An entry that another transaction changes while it is erased is erased all the same, before its salt is destroyed.
#[actix_web::test]
async fn entry_that_is_changed_during_an_erasure_is_erased() {
    let world = World::new().await;
    busy(&world).await;
    let acme = &world.acme;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    let cx = system(&world, acme).await;
    chain_in(&cx).await;
    let mut holder = world.database.admin().await;
    sqlx::raw_sql("BEGIN; UPDATE audit_events SET action = action")
        .execute(&mut holder)
        .await
        .unwrap();
    let (erased, ()) = tokio::join!(erasure::finish(&cx, acme.member.id), release(&world, &mut holder));
    assert!(erased.unwrap().unwrap().finished_at.is_some());
    is_nowhere(&world, "Memorable Name").await;
    assert_chain(&world).await;
}

/// What the runtime role may ask of the function.
async fn ask(world: &World, person: &Person, entries: &Value) -> Result<i64, String> {
    let acme = world.acme.id;
    let mut app = world.database.app().await;
    let mut tx = app.begin().await.unwrap();
    let set = format!("SET LOCAL app.current_tenant = '{acme}'");
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *tx).await.unwrap();
    let mut replaced = 0;
    let blocks: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM audit_blocks ORDER BY first_sequence")
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    for block in blocks {
        let done: i64 = sqlx::query_scalar("SELECT audit_erase($1, $2, $3)")
            .bind(person.id.uuid())
            .bind(block)
            .bind(entries)
            .fetch_one(&mut *tx)
            .await
            .map_err(|error| error.to_string())?;
        replaced += done;
    }
    tx.commit().await.unwrap();
    Ok(replaced)
}

/// The runtime role erases entries of a person whose erasure is under way, and changes nothing else of the log.
#[actix_web::test]
async fn audit_log_is_rewritten_for_no_one() {
    let world = World::new().await;
    busy(&world).await;
    let acme = &world.acme;
    let entry = async |action: &str, whose: &Person| -> Value {
        let all = world.audit(acme).await;
        let found = all.into_iter().find(|(of, row)| {
            of == action && (row["actor_id"] == json!(whose.id) || row["target_id"] == json!(whose.id))
        });
        found.unwrap().1
    };
    let own = entry("task.updated", &acme.member).await;
    let of_admin = entry("user.created", &acme.admin).await;
    let rewritten = |entry: &Value, after: Value| {
        json!([{"id": entry["id"], "ip": entry["ip"], "user_agent": entry["user_agent"],
        "before": entry["before"], "after": after}])
    };
    let forged = json!({"title": "Forged"});
    let error = ask(&world, &acme.member, &rewritten(&own, forged.clone()))
        .await
        .unwrap_err();
    assert!(error.contains("no erasure of the person"), "{error}");
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    let error = ask(&world, &acme.member, &rewritten(&of_admin, forged.clone()))
        .await
        .unwrap_err();
    assert!(error.contains("does not concern"), "{error}");
    let error = ask(&world, &acme.member, &rewritten(&own, forged))
        .await
        .unwrap_err();
    assert!(error.contains("erased form"), "{error}");
    let blackened = format!("erased:{}", "0".repeat(64));
    let mut wrong = rewritten(&own, json!({"title": blackened}));
    wrong[0]["ip"] = json!(blackened);
    wrong[0]["user_agent"] = json!(blackened);
    let error = ask(&world, &acme.member, &wrong).await.unwrap_err();
    assert!(error.contains("erased form"), "{error}");
    assert_eq!(entry("task.updated", &acme.member).await, own);
    // The runtime role can add to the log, and neither change it nor take an erasure back.
    let mut app = world.database.app().await;
    for refused in [
        "UPDATE audit_events SET after = NULL",
        "UPDATE audit_blocks SET links = links",
        "DELETE FROM erasures",
    ] {
        let error = sqlx::raw_sql(refused).execute(&mut app).await.unwrap_err();
        assert!(
            error.to_string().contains("permission denied"),
            "{refused}: {error}"
        );
    }
    assert_chain(&world).await;
    assert!(is_finished(&world, &acme.member).await);
    let error = ask(&world, &acme.member, &json!([])).await.unwrap_err();
    assert!(error.contains("no erasure of the person"), "{error}");
    assert_chain(&world).await;
}

/// Numbers that JSON parsers round, lists and texts that look like erased ones are erased, and nothing about them changes.
#[actix_web::test]
async fn states_of_any_shape_are_erased() {
    let world = World::new().await;
    let acme = &world.acme;
    let cx = system(&world, acme).await;
    cx.write(async |work| {
        let details = json!({"email": ["a@x.example", 7], "phone": 4_917_100, "user_name": "Zoë \"Q\" \\ \u{1F600}", "deep": [{"full_name": "Ann", "n": 1.5}],
            "recipient": format!("erased:{}", "ab".repeat(32)), "address": {"email": "x@x.example"}, "by": acme.member.id});
        let event = cx.security("test.shapes", "user", Some(acme.member.id.uuid()), details);
        work.audit().record(event).await
    })
    .await
    .unwrap();
    chain_in(&cx).await;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    assert!(is_finished(&world, &acme.member).await);
    let all = world.audit(acme).await;
    let after = &all.iter().find(|(action, _)| action == "test.shapes").unwrap().1["after"];
    for text in ["a@x", "4917100", "Zo", "Ann", "x@x"] {
        assert!(!after.to_string().contains(text), "{text}: {after}");
    }
    assert_eq!(after["deep"][0]["n"], json!(1.5));
    assert_chain(&world).await;
}

async fn tables_of_a_service(world: &World) {
    let mut owner = PgConnection::connect(&world.database.owner_url()).await.unwrap();
    let integrations = TenantTable::new("integrations").belongs_to("user_id", "users", OnDelete::Cascade);
    let logs =
        TenantTable::new("integration_logs").belongs_to("integration_id", "integrations", OnDelete::Restrict);
    let parts = TenantTable::new("integration_log_parts").belongs_to(
        "log_id",
        "integration_logs",
        OnDelete::Restrict,
    );
    for table in [integrations, logs, parts] {
        for sql in table.up_sql().unwrap() {
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut owner)
                .await
                .unwrap();
        }
    }
    for who in [&world.acme.member, &world.acme.viewer] {
        let rows = format!(
            "INSERT INTO integrations (tenant_id, id, created_at, user_id) VALUES ('{0}', '{1}', now(), '{1}'); \
             INSERT INTO integration_logs (tenant_id, id, created_at, integration_id) \
             SELECT '{0}', gen_random_uuid(), now(), '{1}' FROM generate_series(1, 6000); \
             INSERT INTO integration_log_parts (tenant_id, id, created_at, log_id) \
             SELECT l.tenant_id, l.id, now(), l.id FROM integration_logs l WHERE l.integration_id = '{1}'",
            world.acme.id, who.id
        );
        sql(world, &rows).await;
    }
}

/// An ordinary foreign key behind a table whose rows go with a person keeps nobody from being erased.
#[actix_web::test]
async fn rows_behind_those_of_a_person_go_first() {
    let world = World::new().await;
    let acme = &world.acme;
    tables_of_a_service(&world).await;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    assert!(is_finished(&world, &acme.member).await);
    for (table, left) in [
        ("integrations", 1),
        ("integration_logs", 6_000),
        ("integration_log_parts", 6_000),
    ] {
        assert_eq!(
            number(&world, &format!("SELECT count(*) FROM {table}")).await,
            left,
            "{table}"
        );
    }
}

/// A row that no erasure can delete is named before anything is done.
#[actix_web::test]
async fn reference_that_keeps_a_person_is_named() {
    let world = World::new().await;
    let acme = &world.acme;
    tables_of_a_service(&world).await;
    sql(
        &world,
        "DELETE FROM integration_log_parts; DELETE FROM integration_logs; CREATE SCHEMA elsewhere; \
         CREATE TABLE elsewhere.pins (tenant_id uuid, integration uuid, CONSTRAINT pins_keep FOREIGN KEY (tenant_id, integration) \
         REFERENCES public.integrations (tenant_id, id)); \
         INSERT INTO elsewhere.pins SELECT i.tenant_id, i.id FROM integrations i",
    )
    .await;
    let refused = erase(&world, &acme.admin, &acme.member).await;
    let refused = refused.problem(409, "conflict");
    assert!(refused.text().contains("pins_keep"), "{}", refused.text());
    world.get(&acme.member, "/api/v1/tasks").await.expect(200);
    sql(&world, "DROP SCHEMA elsewhere CASCADE").await;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
}

/// The job of an erasure that was given up begins again with the next request, and one that waits is there once.
#[actix_web::test]
async fn unfinished_erasure_is_started_again() {
    let world = World::new().await;
    let acme = &world.acme;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    let queued = "SELECT count(*) FROM jobs WHERE kind = 'user.erase_traces' AND state = 'queued'";
    assert_eq!(number(&world, queued).await, 1);
    sql(
        &world,
        "UPDATE jobs SET state = 'dead', finished_at = now() WHERE kind = 'user.erase_traces'",
    )
    .await;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    assert_eq!(number(&world, queued).await, 1);
    chain_in(&system(&world, acme).await).await;
    run_jobs(&world).await;
    let erased = erase(&world, &acme.admin, &acme.member).await.expect(202).json();
    assert!(erased["finished_at"].is_string(), "{erased}");
    assert_eq!(number(&world, queued).await, 0);
}

/// A job that runs while the person is erased has the address until it has ended; the erasure is not finished before.
#[actix_web::test]
async fn jobs_that_run_during_an_erasure_are_deleted_later() {
    let world = World::new().await;
    let acme = &world.acme;
    let running = format!(
        "INSERT INTO jobs (tenant_id, id, created_at, kind, schema_version, payload, state, run_at, attempts, max_attempts, \
         actor_type, request_id, lease_id, lease_until, worker) \
         VALUES ('{}', gen_random_uuid(), '2020-01-01', 'test.running', 1, '{{\"email\": \"{}\"}}', 'running', now(), 1, 3, \
         'system', 'r', gen_random_uuid(), now() + interval '1 hour', 'w')",
        acme.id, acme.member.email
    );
    sql(&world, &running).await;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    assert!(!is_finished(&world, &acme.member).await);
    sql(
        &world,
        "UPDATE jobs SET state = 'done', finished_at = now(), lease_id = NULL, lease_until = NULL, worker = NULL \
         WHERE kind = 'test.running'",
    )
    .await;
    assert!(is_finished(&world, &acme.member).await);
    is_nowhere(&world, &acme.member.email).await;
}

/// Another account gets the address while the erasure is not finished: what it does is not erased.
#[actix_web::test]
async fn address_is_free_once_an_erasure_has_begun() {
    let world = World::new().await;
    let acme = &world.acme;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    world.clock.advance(chrono::Duration::seconds(1));
    let email = acme.member.email.as_str();
    let invited = json!({"email": email, "role": "viewer"});
    let invite = world.post(&acme.admin, "/api/v1/invitations", &invited);
    invite.await.expect(201);
    assert!(is_finished(&world, &acme.member).await);
    let named = |of: &str| format!("SELECT count(*) FROM {of} WHERE t::text LIKE '%{email}%'");
    assert_eq!(number(&world, &named("invitations t")).await, 1);
    assert_eq!(number(&world, &named("audit_events t")).await, 1);
    assert_chain(&world).await;
}

/// The archive that a person's export has made goes with the person.
#[actix_web::test]
async fn archive_of_an_erased_person_is_deleted() {
    let world = World::new().await;
    let acme = &world.acme;
    exported(&world, &acme.member, &acme.member).await;
    let folder = world.database.exports().join(acme.id.to_string());
    let archives = || std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(archives(), 1);
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    assert!(is_finished(&world, &acme.member).await);
    assert_eq!(archives(), 0);
}

/// Invoices go to another admin, and no stored message of the payment provider has the address.
#[actix_web::test]
async fn payment_provider_has_nothing_of_an_erased_admin() {
    let clock = std::sync::Arc::new(ManualClock::default());
    let payments = MemoryPayments::new(clock.clone());
    payments.sell_at_least(1_000);
    let world = World::with(Options {
        payments: Some(Payments(payments.clone())),
        clock: Some(clock),
        ..Options::default()
    })
    .await;
    let work = async || {
        let worker = worker(&world, Handlers::standard().with_usage().with_billing());
        while !worker.run_once().await.unwrap().is_empty() {}
    };
    work().await;
    let acme = &world.acme;
    let all = payments.customers();
    let customer = |tenant| all.iter().find(|(_, of)| *of == tenant).unwrap().0.clone();
    let (own, theirs) = (customer(acme.id), customer(world.globex.id));
    assert_eq!(payments.email_of(&own), Some(acme.admin.email.clone()));
    let of_globex = payments.email_of(&theirs);
    let second = world.second_admin().await;
    for (id, customer, state) in [
        ("evt_dead", &own, "dead"),
        ("evt_pending", &own, "pending"),
        ("evt_theirs", &theirs, "dead"),
    ] {
        let settled = if state == "pending" { "NULL" } else { "now()" };
        let event = format!(
            "INSERT INTO provider_events (id, kind, created_at, customer_ref, body, received_at, state, attempts, settled_at) \
             VALUES ('{id}', 'invoice.paid', now(), '{customer}', convert_to('{{\"customer_email\": \"{}\"}}', 'UTF8'), now(), '{state}', 0, {settled})",
            acme.admin.email.to_uppercase()
        );
        sql(&world, &event).await;
    }
    erase(&world, &second, &acme.admin).await.expect(202);
    assert!(
        !is_finished(&world, &acme.admin).await,
        "a message waits to be acted on"
    );
    assert_eq!(payments.email_of(&own), Some(second.email.clone()));
    assert_eq!(payments.email_of(&theirs), of_globex);
    let with_body = "SELECT count(*) FROM provider_events WHERE body IS NOT NULL AND id = ";
    assert_eq!(number(&world, &format!("{with_body}'evt_dead'")).await, 0);
    assert_eq!(number(&world, &format!("{with_body}'evt_pending'")).await, 1);
    sql(
        &world,
        "UPDATE provider_events SET state = 'done', settled_at = now() WHERE id = 'evt_pending'",
    )
    .await;
    assert!(is_finished(&world, &acme.admin).await);
    assert_eq!(number(&world, &format!("{with_body}'evt_pending'")).await, 0);
    assert_eq!(
        number(&world, &format!("{with_body}'evt_theirs'")).await,
        1,
        "the messages of the other tenant"
    );
}

/// The feed is erased in batches with transactions of their own, and the erasure notes how far it is.
#[actix_web::test]
async fn long_feed_is_erased_in_batches() {
    let world = World::new().await;
    let acme = &world.acme;
    crate::events::publish_all(&world, acme).await;
    let fill = format!(
        "INSERT INTO events (tenant_id, id, created_at, kind, actor_kind, entity, entity_id, data, position) \
         SELECT '{0}', gen_random_uuid(), now(), 'user.updated', 'system', 'user', '{1}', \
         jsonb_build_object('object', jsonb_build_object('email', '{2}')), \
         g + (SELECT max(position) FROM events WHERE tenant_id = '{0}') FROM generate_series(1, 12000) g",
        acme.id, acme.member.id, acme.member.email
    );
    sql(&world, &fill).await;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    let cx = system(&world, acme).await;
    chain_in(&cx).await;
    // The last event cannot be changed yet: the batches before its own are erased and committed meanwhile.
    let mut holder = world.database.admin().await;
    let hold = format!(
        "BEGIN; SELECT id FROM events WHERE tenant_id = '{}' ORDER BY position DESC LIMIT 1 FOR UPDATE",
        acme.id
    );
    sqlx::raw_sql(AssertSqlSafe(hold))
        .execute(&mut holder)
        .await
        .unwrap();
    let erased = format!(
        "SELECT count(*) FROM events WHERE tenant_id = '{}' AND data ? 'erased'",
        acme.id
    );
    let position = format!(
        "SELECT event_position FROM erasures WHERE user_id = '{}'",
        acme.member.id
    );
    let commit = async {
        let deadline = Instant::now() + Duration::from_secs(60);
        while world.waiting_for_locks().await < 1 {
            assert!(Instant::now() < deadline, "nothing waits");
            tokio::task::yield_now().await;
        }
        let found = (number(&world, &erased).await, number(&world, &position).await);
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
        found
    };
    let (finished, (batches, searched)) = tokio::join!(erasure::finish(&cx, acme.member.id), commit);
    finished.unwrap();
    assert!(batches > 9_000 && searched == 10_000, "{batches} {searched}");
    assert!(is_finished(&world, &acme.member).await);
    let newest = format!("SELECT max(position) FROM events WHERE tenant_id = '{}'", acme.id);
    assert_eq!(number(&world, &position).await, number(&world, &newest).await);
    is_nowhere(&world, &acme.member.email).await;
}
