//! Notifications when something does not go as planned: jobs out of order, settings that change between two digests, roles that change between
//! a notification and its reading, limits of mail, and servers that refuse.

use actix_web::http::Method;
use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::kernel::Clock as _;
use tenantry_domain::notifications::Rhythm;
use tenantry_tenancy::events::publish;
use tenantry_tenancy::notifications::fan_out::{Behind, NotifyUsers};
use tenantry_tenancy::notifications::next_digest::SendDigests;
use tenantry_tenancy::notifications::upkeep::KeepNotifications;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tests::{PASSWORD, Reaction, World};

use crate::audit::system;
use crate::mail::work;
use crate::notifications::{
    COUNT, LIST, Mailed, PREFERENCES, READ_ALL, assign, link, link_of, list, notify, number, prefer, start,
};

/// The job of the later events runs first, in a tenant in which nothing has notified before.
#[actix_web::test]
async fn first_events_notify_although_jobs_run_out_of_order() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    world.sql("DELETE FROM notification_positions").await;
    let cx = system(&world, acme).await;
    let mut behind = Vec::new();
    for title in ["First", "Second"] {
        let newest = "SELECT coalesce(max(position), 0) FROM events WHERE tenant_id = ";
        behind.push(number(&world, &format!("{newest}'{}'", acme.id)).await);
        assign(&world, acme, &acme.member, title).await;
        publish::publish(&cx).await.unwrap();
    }
    let positions = "SELECT count(*) FROM notification_positions";
    assert_eq!(number(&world, positions).await, 1);
    for position in behind.into_iter().rev() {
        NotifyUsers.run(&cx, Behind { position }).await.unwrap();
    }
    assert_eq!(list(&world, &acme.member).await.len(), 2);
}

/// What notifies is behind more changes of tasks than are published in one transaction, and its job is gone.
#[actix_web::test]
async fn upkeep_finds_an_event_behind_many_that_notify_nobody() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    assign(&world, acme, &acme.member, "Known").await;
    notify(&world, acme).await;
    let changes = format!(
        "INSERT INTO events (tenant_id, id, created_at, kind, actor_kind, entity, data, position) \
         SELECT '{0}', gen_random_uuid(), now(), 'task.updated', 'system', 'task', \
         '{{\"object\": {{\"assignee_id\": \"{1}\"}}, \"previous_attributes\": {{\"title\": \"x\"}}}}', \
         (SELECT max(position) FROM events WHERE tenant_id = '{0}') + n FROM generate_series(1, 600) n",
        acme.id, acme.member.id
    );
    world.sql(changes.clone()).await;
    assign(&world, acme, &acme.member, "Left").await;
    let cx = system(&world, acme).await;
    publish::publish(&cx).await.unwrap();
    world.sql("DELETE FROM jobs").await;
    KeepNotifications.run(&cx, Nothing {}).await.unwrap();
    work(&world).await;
    assert_eq!(list(&world, &acme.member).await.len(), 2);
    // Changes that notify nobody are passed once.
    world.sql(changes).await;
    KeepNotifications.run(&cx, Nothing {}).await.unwrap();
    let left = "SELECT (SELECT max(e.position) FROM events e WHERE e.tenant_id = p.tenant_id) - p.position \
                FROM notification_positions p WHERE p.tenant_id = ";
    assert_eq!(number(&world, &format!("{left}'{}'", acme.id)).await, 0);
}

/// An event that notifies many admins ends the transaction sooner than 100 events do.
#[actix_web::test]
async fn large_tenant_is_notified_in_several_transactions() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    let admins = format!(
        "INSERT INTO users SELECT (jsonb_populate_record(u, jsonb_build_object('id', gen_random_uuid(), 'email', 'admin' || n || \
         '@acme.example'))).* FROM users u, generate_series(1, 11) n WHERE u.id = '{}'",
        acme.admin.id
    );
    world.sql(admins).await;
    let cx = system(&world, acme).await;
    let recorded = cx.write(async |work| {
        for n in 0..60 {
            let details = json!({"rule": "mass_reading", "severity": "high", "subject": n.to_string()});
            let entry = cx.security("security.alert_raised", "security_alert", None, details);
            work.audit().record(entry).await?;
        }
        Ok::<_, tenantry_domain::kernel::StoreError>(())
    });
    recorded.await.unwrap();
    notify(&world, acme).await;
    let made = "SELECT count(*) FROM notifications WHERE kind = 'security.alert'";
    let each = number(&world, made).await;
    assert!(each >= 12 * 60, "{each}");
    let transactions = "SELECT count(DISTINCT xmin::text) FROM notifications WHERE kind = 'security.alert'";
    assert!(number(&world, transactions).await > 1);
}

#[actix_web::test]
async fn change_of_the_hour_gives_a_date_no_second_digest() {
    let mut mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    prefer(world, &acme.member, "task.assigned", json!({"mail": "daily"}))
        .await
        .expect(200);
    assign(world, acme, &acme.member, "Morning").await;
    notify(world, acme).await;
    mailed.come_to(Rhythm::Daily).await;
    assert_eq!(mailed.of(&acme.member).len(), 1);
    // The tokens have expired until then.
    let login = world.login("acme", &acme.admin.email, PASSWORD).await;
    let token = login.expect(200).json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    mailed.world.acme.admin.access_token = token;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let evening = json!({"notifications.digest_hour": 20});
    world
        .patch(&acme.admin, "/api/v1/tenant/settings", &evening)
        .await
        .expect(200);
    world.clock.advance(Duration::minutes(1));
    assign(world, acme, &acme.member, "Noon").await;
    notify(world, acme).await;
    // 20:01 of the same date.
    world.clock.advance(Duration::hours(12));
    work(world).await;
    SendDigests
        .run(&system(world, acme).await, Nothing {})
        .await
        .unwrap();
    work(world).await;
    assert_eq!(mailed.of(&acme.member).len(), 1);
    world.clock.advance(Duration::days(1));
    work(world).await;
    let mails = mailed.of(&acme.member);
    assert_eq!(mails.len(), 2);
    assert!(mails[1].text().contains("Noon"), "{}", mails[1].text());
}

/// Each step takes the users after those of the step before.
#[actix_web::test]
async fn digests_of_many_users_are_mailed_once_each() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    assign(&world, acme, &acme.member, "Begins the position").await;
    notify(&world, acme).await;
    let users = format!(
        "INSERT INTO users SELECT (jsonb_populate_record(u, jsonb_build_object('id', gen_random_uuid(), 'email', 'user' || n || \
         '@acme.example'))).* FROM users u, generate_series(1, 120) n WHERE u.id = '{}'",
        acme.member.id
    );
    world.sql(users).await;
    let rows = format!(
        "INSERT INTO notifications (tenant_id, id, created_at, user_id, kind, event_id, occurred_at, actor_kind, entity, parts, in_app, mail) \
         SELECT u.tenant_id, gen_random_uuid(), '{}'::timestamptz - interval '8 days', u.id, 'task.assigned', gen_random_uuid(), now(), 'system', \
         'task', '{{}}', true, rhythm FROM users u, unnest(ARRAY['daily', 'weekly']) rhythm WHERE u.email LIKE 'user%@acme.example'",
        world.clock.now().to_rfc3339()
    );
    world.sql(rows).await;
    SendDigests
        .run(&system(&world, acme).await, Nothing {})
        .await
        .unwrap();
    let waiting = "SELECT count(*) FROM notifications WHERE mail IS NOT NULL";
    assert_eq!(number(&world, waiting).await, 0);
    let mails = "SELECT count(DISTINCT payload->>'to') FROM jobs WHERE kind = 'notification.mail' AND payload->>'is_digest' = 'true'";
    assert_eq!(number(&world, mails).await, 120);
}

/// The tenant mails no digests at the time of the click, and weekly ones afterwards.
#[actix_web::test]
async fn digests_that_a_link_has_ended_stay_ended() {
    let world = World::new().await;
    let acme = &world.acme;
    let set = async |rhythm: &str| {
        let setting = json!({"notifications.email_digest": rhythm});
        world
            .patch(&acme.admin, "/api/v1/tenant/settings", &setting)
            .await
            .expect(200);
    };
    set("off").await;
    let path = link(&world, acme, &acme.member);
    world.client.request(Method::POST, &path).await.expect(200);
    set("weekly").await;
    let read = world.get(&acme.member, PREFERENCES).await.expect(200).json();
    assert_eq!(read["notifications"]["project.member_added"]["mail"], "off");
    let other = world.get(&acme.viewer, PREFERENCES).await.expect(200).json();
    assert_eq!(other["notifications"]["project.member_added"]["mail"], "weekly");
}

/// Mail gateways add parameters to links.
#[actix_web::test]
async fn link_with_a_parameter_of_a_gateway_works() {
    let world = World::new().await;
    let path = format!(
        "{}&utm_source=mail",
        link(&world, &world.acme, &world.acme.member)
    );
    for method in [Method::GET, Method::POST] {
        world.client.request(method, &path).await.expect(200);
    }
}

#[actix_web::test]
async fn notifications_are_read_with_the_present_role() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    let cx = system(&world, acme).await;
    let recorded = cx.write(async |work| {
        let details = json!({"rule": "mass_reading", "severity": "high", "subject": "x"});
        let entry = cx.security("security.alert_raised", "security_alert", None, details);
        work.audit().record(entry).await
    });
    recorded.await.unwrap();
    notify(&world, acme).await;
    let alert = list(&world, &acme.admin).await[0].clone();
    assert_eq!(alert["type"], "security.alert");
    // The alert is of a user who is no admin any more.
    world
        .sql(format!(
            "UPDATE notifications SET user_id = '{}' WHERE id = '{}'",
            acme.member.id,
            alert["id"].as_str().unwrap()
        ))
        .await;
    assert_eq!(list(&world, &acme.member).await, Vec::<Value>::new());
    let count = world.get(&acme.member, COUNT).await.expect(200).json();
    assert_eq!(count, json!({"unread": 0}));
    let path = format!("{LIST}/{}", alert["id"].as_str().unwrap());
    let mark = world.patch(&acme.member, &path, &json!({"read": true}));
    mark.await.problem(404, "not_found");
    let all = world.post(&acme.member, READ_ALL, &json!(null)).body("").await;
    assert_eq!(all.expect(200).json(), json!({"marked": 0}));
}

#[actix_web::test]
async fn digest_names_no_task_that_another_user_has() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    prefer(world, &acme.member, "task.assigned", json!({"mail": "daily"}))
        .await
        .expect(200);
    let given = assign(world, acme, &acme.member, "Given away").await;
    assign(world, acme, &acme.member, "Kept").await;
    notify(world, acme).await;
    let path = format!("/api/v1/tasks/{}", given.as_str().unwrap());
    let give = world.patch(&acme.admin, &path, &json!({"assignee_id": acme.viewer.id}));
    give.await.expect(200);
    mailed.come_to(Rhythm::Daily).await;
    let mails = mailed.of(&acme.member);
    let text = mails[0].text();
    assert!(text.contains("Kept") && !text.contains("Given away"), "{text}");
}

/// The newest 20 are read between the digest and its mail.
#[actix_web::test]
async fn digest_lists_what_is_unread_when_it_is_sent() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    prefer(world, &acme.member, "task.assigned", json!({"mail": "daily"}))
        .await
        .expect(200);
    for n in 0..23 {
        assign(world, acme, &acme.member, &format!("Task {n}")).await;
    }
    notify(world, acme).await;
    let back = "UPDATE notifications SET created_at = created_at - interval '2 days'";
    world.sql(back).await;
    SendDigests
        .run(&system(world, acme).await, Nothing {})
        .await
        .unwrap();
    let read = "UPDATE notifications SET read_at = now() WHERE id IN \
                (SELECT id FROM notifications ORDER BY created_at DESC, id DESC LIMIT 20)";
    world.sql(read).await;
    work(world).await;
    let mails = mailed.of(&acme.member);
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].text().matches(": Task ").count(), 3);
}

/// A tenant sends an address 20 mails of a kind a day.
#[actix_web::test]
async fn mail_over_the_limit_is_in_the_next_digest() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for n in 0..21 {
        assign(world, acme, &acme.member, &format!("Task {n}")).await;
    }
    notify(world, acme).await;
    assert_eq!(mailed.of(&acme.member).len(), 20);
    let deferred = "SELECT count(*) FROM notifications WHERE mail = 'daily'";
    assert_eq!(number(world, deferred).await, 1);
    mailed.come_to(Rhythm::Daily).await;
    let mails = mailed.of(&acme.member);
    assert_eq!(mails.len(), 21);
    assert_eq!(mails[20].text().matches(": Task ").count(), 1);
    assert!(link_of(&mails[20]).contains("token=un_"));
}

/// The server has blocked us, and says so after the text of the mail.
#[actix_web::test]
async fn refused_text_stops_no_notifications() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for n in 0..4 {
        mailed.server.react(Reaction::AtEnd(554));
        assign(world, acme, &acme.member, &format!("Task {n}")).await;
        notify(world, acme).await;
    }
    let read = world.get(&acme.member, PREFERENCES).await.expect(200).json();
    assert_eq!(read["mail_stopped_at"], Value::Null);
    assign(world, acme, &acme.member, "Taken").await;
    notify(world, acme).await;
    assert_eq!(mailed.of(&acme.member).len(), 1);
}

/// What waits for a digest is no part of the list, and is kept for the digest when the list is full.
#[actix_web::test]
async fn full_list_takes_nothing_from_a_digest() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let rows = |in_app: bool, mail: &str, count: i32| {
        format!(
            "INSERT INTO notifications (tenant_id, id, created_at, user_id, kind, event_id, occurred_at, actor_kind, entity, parts, in_app, mail) \
             SELECT '{}', gen_random_uuid(), '{}'::timestamptz - interval '1 hour', '{}', 'task.assigned', gen_random_uuid(), now(), 'system', \
             'task', '{{}}', {in_app}, {mail} FROM generate_series(1, {count})",
            acme.id,
            world.clock.now().to_rfc3339(),
            acme.member.id
        )
    };
    world.sql(rows(false, "'daily'", 30)).await;
    world.sql(rows(true, "'daily'", 501)).await;
    assign(world, acme, &acme.member, "Newest").await;
    notify(world, acme).await;
    let listed = "SELECT count(*) FROM notifications WHERE in_app";
    assert_eq!(number(world, listed).await, 500);
    let waiting = "SELECT count(*) FROM notifications WHERE mail = 'daily'";
    assert_eq!(number(world, waiting).await, 531);
}

/// A notification that was for the digest alone is deleted when the digest is sent.
#[actix_web::test]
async fn hidden_notifications_are_deleted_after_their_digest() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let hidden = json!({"in_app": false, "mail": "daily"});
    prefer(world, &acme.member, "task.assigned", hidden)
        .await
        .expect(200);
    assign(world, acme, &acme.member, "For the digest").await;
    notify(world, acme).await;
    mailed.come_to(Rhythm::Daily).await;
    assert_eq!(mailed.of(&acme.member).len(), 1);
    assert_eq!(number(world, "SELECT count(*) FROM notifications").await, 0);
}
