//! Notifications: an event notifies whom it is about once, nobody else and nobody of another tenant; mails and digests are what users
//! have chosen, and a link ends them without a login.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use actix_web::http::Method;
use chrono::Duration;
use futures_util::future::join;
use regex::Regex;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::Clock as _;
use tenantry_domain::notifications::{DigestSchedule, PresentedUnsubscribe, Rhythm, UnsubscribeFrom};
use tenantry_tenancy::events::publish;
use tenantry_tenancy::identity::erasure;
use tenantry_tenancy::notifications::fan_out::{Behind, NotifyUsers};
use tenantry_tenancy::notifications::next_digest::SendDigests;
use tenantry_tenancy::notifications::upkeep::KeepNotifications;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tests::{Options, Person, Reply, SmtpServer, TenantWorld, World};

use crate::audit::system;
use crate::mail::{mailing, work};

pub(crate) const LIST: &str = "/api/v1/notifications";
pub(crate) const COUNT: &str = "/api/v1/notifications/unread-count";
pub(crate) const READ_ALL: &str = "/api/v1/notifications/read-all";
pub(crate) const PREFERENCES: &str = "/api/v1/auth/me/preferences";

/// The path of a link that was mailed to a person and ends the digests.
pub(crate) fn link(world: &World, tenant: &TenantWorld, person: &Person) -> String {
    let seal = world.app.ports.seal.as_ref();
    let token = world.app.ports.unsubscribe_tokens.issue(&PresentedUnsubscribe {
        tenant: tenant.id,
        user: person.id,
        tag: UnsubscribeFrom::Digests.tag(seal, &Email::stored(person.email.clone())),
    });
    format!("{LIST}/unsubscribe?token={token}")
}

/// Runs what notifications do, so that each of their statements is seen.
pub(crate) async fn use_everything(world: &World) {
    let acme = &world.acme;
    start(world).await;
    let daily = json!({"notifications": {"task.assigned": {"mail": "daily"}}});
    world.get(&acme.member, PREFERENCES).await.expect(200);
    for mail in ["daily", "weekly"] {
        let change = json!({"notifications": {"task.assigned": {"mail": mail}}});
        world.patch(&acme.member, PREFERENCES, &change).await.expect(200);
    }
    world.patch(&acme.member, PREFERENCES, &daily).await.expect(200);
    let task = assign(world, acme, &acme.member, "For the list").await;
    notify(world, acme).await;
    for query in ["", "?unread=true", "?unread=false"] {
        world
            .get(&acme.member, &format!("{LIST}{query}"))
            .await
            .expect(200);
    }
    world.get(&acme.member, COUNT).await.expect(200);
    let of_task = format!("entity_id = '{}'", task.as_str().unwrap());
    let id = one(
        world,
        &format!("SELECT id::text FROM notifications WHERE {of_task}"),
    )
    .await;
    let path = format!("{LIST}/{id}");
    for read in [true, false] {
        let mark = world.patch(&acme.member, &path, &json!({"read": read}));
        mark.await.expect(200);
    }
    let back =
        format!("UPDATE notifications SET created_at = created_at - interval '9 days' WHERE {of_task}");
    world.sql(back).await;
    let cx = system(world, acme).await;
    SendDigests.run(&cx, Nothing {}).await.unwrap();
    work(world).await;
    KeepNotifications.run(&cx, Nothing {}).await.unwrap();
    world
        .post(&acme.member, READ_ALL, &json!(null))
        .body("")
        .await
        .expect(200);
    for method in [Method::GET, Method::POST] {
        let request = world.client.request(method, &link(world, acme, &acme.member));
        request.await.expect(200);
    }
}

/// Lets the events of a new world notify, and forgets that. All addresses are verified.
pub(crate) async fn start(world: &World) {
    for tenant in [&world.acme, &world.globex] {
        publish::publish(&system(world, tenant).await).await.unwrap();
    }
    work(world).await;
    world.sql("DELETE FROM notifications").await;
    world.sql("UPDATE users SET email_verified = true").await;
}

/// An admin makes a task for somebody. Returns its id.
pub(crate) async fn assign(world: &World, tenant: &TenantWorld, to: &Person, title: &str) -> Value {
    let path = format!("/api/v1/projects/{}/tasks", tenant.project);
    let task = json!({"title": title, "assignee_id": to.id});
    let made = world.post(&tenant.admin, &path, &task).await.expect(201);
    made.json()["id"].clone()
}

/// Publishes the events of a tenant, and does what is to be done then.
pub(crate) async fn notify(world: &World, tenant: &TenantWorld) {
    publish::publish(&system(world, tenant).await).await.unwrap();
    work(world).await;
}

pub(crate) async fn list(world: &World, who: &Person) -> Vec<Value> {
    let page = world.get(who, LIST).await.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

pub(crate) async fn number(world: &World, sql: &str) -> i64 {
    let mut admin = world.database.admin().await;
    let found = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    found.fetch_one(&mut admin).await.unwrap()
}

async fn one(world: &World, sql: &str) -> String {
    let mut admin = world.database.admin().await;
    let found = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    found.fetch_one(&mut admin).await.unwrap()
}

pub(crate) async fn prefer(world: &World, who: &Person, kind: &str, choice: Value) -> Reply {
    let change = json!({"notifications": {kind: choice}});
    world.patch(who, PREFERENCES, &change).await
}

#[actix_web::test]
async fn assignee_is_notified_once_and_nobody_else() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    let task = assign(&world, acme, &acme.member, "Write the front page").await;
    // Nobody is notified of what they did themselves.
    assign(&world, acme, &acme.admin, "My own").await;
    notify(&world, acme).await;
    let all = list(&world, &acme.member).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let first = &all[0];
    assert_eq!(
        (&first["type"], &first["entity"], &first["entity_id"]),
        (&json!("task.assigned"), &json!("task"), &task)
    );
    assert_eq!(
        first["parts"],
        json!({"title": "Write the front page", "status": "todo"})
    );
    assert_eq!(first["actor"], json!({"kind": "user", "id": acme.admin.id}));
    assert_eq!(first["read"], false);
    for other in [
        &acme.admin,
        &acme.viewer,
        &world.globex.member,
        &world.globex.admin,
    ] {
        assert_eq!(list(&world, other).await, Vec::<Value>::new());
    }
    // A change of something else notifies nobody, and neither does a job that runs again.
    let path = format!("/api/v1/tasks/{}", task.as_str().unwrap());
    let rename = world.patch(&acme.admin, &path, &json!({"title": "Renamed"}));
    rename.await.expect(200);
    notify(&world, acme).await;
    let cx = system(&world, acme).await;
    NotifyUsers.run(&cx, Behind { position: 0 }).await.unwrap();
    assert_eq!(list(&world, &acme.member).await.len(), 1);
    // Another assignee is notified by the change.
    let give = world.patch(&acme.admin, &path, &json!({"assignee_id": acme.viewer.id}));
    give.await.expect(200);
    notify(&world, acme).await;
    assert_eq!(list(&world, &acme.viewer).await[0]["parts"]["title"], "Renamed");
}

/// The jobs are stored with the numbers in the feed, so a server that is killed behind its commit leaves them. Two servers that notify at
/// once, and one that begins anew, notify once.
#[actix_web::test]
async fn event_notifies_once_although_jobs_are_repeated_at_once() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    for n in 0..5 {
        assign(&world, acme, &acme.member, &format!("Made {n}")).await;
    }
    publish::publish(&system(&world, acme).await).await.unwrap();
    let waiting = "SELECT count(*) FROM jobs WHERE kind = 'notification.fan_out' AND state = 'queued'";
    assert_eq!(number(&world, waiting).await, 1);
    assert_eq!(number(&world, "SELECT count(*) FROM notifications").await, 0);
    let (one, other) = (system(&world, acme).await, system(&world, acme).await);
    let behind = Behind { position: 0 };
    let ran = join(NotifyUsers.run(&one, behind), NotifyUsers.run(&other, behind)).await;
    ran.0.unwrap();
    ran.1.unwrap();
    work(&world).await;
    assert_eq!(list(&world, &acme.member).await.len(), 5);
    let mails = "SELECT count(*) FROM jobs WHERE kind = 'notification.mail' AND payload->>'to' = ";
    let mails = format!("{mails}'{}'", acme.member.id);
    assert_eq!(number(&world, &mails).await, 5);
    // A number that was lost is begun again with the first event: each has notified already.
    world.sql("DELETE FROM notification_positions").await;
    NotifyUsers.run(&one, behind).await.unwrap();
    let repeated = "SELECT count(*) FROM notifications WHERE parts->>'title' LIKE 'Made %'";
    assert_eq!(number(&world, repeated).await, 5);
}

#[actix_web::test]
async fn user_who_may_not_read_is_not_notified() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    let role = format!(
        "INSERT INTO custom_roles (tenant_id, id, created_at, name, description, base_role, permissions, updated_at, version) \
         VALUES ('{}', gen_random_uuid(), now(), 'narrow', '', 'member', '[\"projects.read\"]', now(), 1)",
        acme.id
    );
    world.sql(role).await;
    let narrow = |name: &str| {
        format!(
            "UPDATE users SET custom_role = {name} WHERE id = '{}'",
            acme.member.id
        )
    };
    world.sql(narrow("'narrow'")).await;
    assign(&world, acme, &acme.member, "Hidden").await;
    notify(&world, acme).await;
    world.sql(narrow("NULL")).await;
    world
        .sql(format!(
            "UPDATE users SET is_active = false WHERE id = '{}'",
            acme.viewer.id
        ))
        .await;
    assign(&world, acme, &acme.member, "Shown").await;
    notify(&world, acme).await;
    let titles: Vec<_> = list(&world, &acme.member).await;
    let titles: Vec<_> = titles.iter().map(|one| one["parts"]["title"].clone()).collect();
    assert_eq!(titles, ["Shown"]);
    // Of a task that was given to somebody else before the job ran, nobody is told any more.
    let task = assign(&world, acme, &acme.member, "Moved").await;
    let path = format!("/api/v1/tasks/{}", task.as_str().unwrap());
    let give = world.patch(&acme.admin, &path, &json!({"assignee_id": null}));
    give.await.expect(200);
    notify(&world, acme).await;
    assert_eq!(list(&world, &acme.member).await.len(), 1);
}

#[actix_web::test]
async fn new_member_of_a_project_is_notified_with_its_name() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    let project = world.post(&acme.admin, "/api/v1/projects", &json!({"name": "Moon"}));
    let project = project.await.expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/v1/projects/{project}/members");
    let add = world.post(
        &acme.admin,
        &path,
        &json!({"user_id": acme.viewer.id, "role": "viewer"}),
    );
    add.await.expect(201);
    notify(&world, acme).await;
    let all = list(&world, &acme.viewer).await;
    assert_eq!(all[0]["type"], "project.member_added");
    assert_eq!(all[0]["parts"], json!({"title": "Moon", "role": "viewer"}));
}

#[actix_web::test]
async fn admins_are_notified_of_alerts_and_get_no_second_mail() {
    let server = SmtpServer::start();
    let world = World::with(mailing(Options::default(), &server, |_| {})).await;
    let acme = &world.acme;
    start(&world).await;
    let before = server.received().len();
    let cx = system(&world, acme).await;
    let recorded = cx.write(async |work| {
        let details = json!({"rule": "mass_reading", "severity": "high", "subject": "x"});
        let entry = cx.security("security.alert_raised", "security_alert", None, details);
        work.audit().record(entry).await
    });
    recorded.await.unwrap();
    notify(&world, acme).await;
    let all = list(&world, &acme.admin).await;
    assert_eq!(
        all[0]["parts"],
        json!({"rule": "mass_reading", "severity": "high"})
    );
    assert!(
        list(&world, &acme.member).await.is_empty() && list(&world, &world.globex.admin).await.is_empty()
    );
    assert_eq!(server.received().len(), before);
}

#[actix_web::test]
async fn notifications_wait_while_the_tenant_is_suspended() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    assign(&world, acme, &acme.member, "Later").await;
    lifecycle::suspend(&world.operator_cx(), acme.id, "invoice unpaid")
        .await
        .unwrap();
    notify(&world, acme).await;
    assert!(list(&world, &acme.member).await.is_empty());
    world
        .post(&acme.member, READ_ALL, &json!(null))
        .body("")
        .await
        .expect(200);
    lifecycle::resume(&world.operator_cx(), acme.id, "invoice paid")
        .await
        .unwrap();
    work(&world).await;
    assert_eq!(list(&world, &acme.member).await[0]["parts"]["title"], "Later");
}

#[actix_web::test]
async fn own_notifications_are_read_and_counted() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    for n in 0..3 {
        assign(&world, acme, &acme.member, &format!("Task {n}")).await;
    }
    notify(&world, acme).await;
    let count = async || world.get(&acme.member, COUNT).await.expect(200).json()["unread"].clone();
    assert_eq!(count().await, 3);
    let page = world
        .get(&acme.member, &format!("{LIST}?limit=2"))
        .await
        .expect(200)
        .json();
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    let next = format!("{LIST}?limit=2&cursor={}", page["next_cursor"].as_str().unwrap());
    let rest = world.get(&acme.member, &next).await.expect(200).json();
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["next_cursor"]),
        (1, &Value::Null)
    );
    let id = page["data"][0]["id"].as_str().unwrap();
    let path = format!("{LIST}/{id}");
    let read = json!({"read": true});
    for foreign in [&acme.admin, &world.globex.member] {
        world.patch(foreign, &path, &read).await.problem(404, "not_found");
    }
    let marked = world.patch(&acme.member, &path, &read).await.expect(200).json();
    assert_eq!(marked["read"], true);
    let again = world.patch(&acme.member, &path, &read).await.expect(200).json();
    assert_eq!(again["read_at"], marked["read_at"]);
    assert_eq!(count().await, 2);
    let unread = world
        .get(&acme.member, &format!("{LIST}?unread=true"))
        .await
        .expect(200)
        .json();
    assert_eq!(unread["data"].as_array().unwrap().len(), 2);
    let all = world.post(&acme.member, READ_ALL, &json!(null)).body("").await;
    assert_eq!(all.expect(200).json(), json!({"marked": 2}));
    assert_eq!(count().await, 0);
    let undone = world.patch(&acme.member, &path, &json!({"read": false})).await;
    assert_eq!(undone.expect(200).json()["read_at"], Value::Null);
    assert_eq!(count().await, 1);
}

#[actix_web::test]
async fn preferences_are_own_versioned_and_checked() {
    let world = World::new().await;
    let acme = &world.acme;
    let read = world.get(&acme.member, PREFERENCES).await.expect(200);
    let (tag, defaults) = (read.header("etag").unwrap().to_owned(), read.json());
    let types = &defaults["notifications"];
    assert_eq!(types["task.assigned"]["mail"], "instant");
    // The default of the setting `notifications.email_digest`.
    assert_eq!(types["project.member_added"]["mail"], "weekly");
    assert_eq!(types["security.alert"]["mail_fixed"], true);
    let unchanged = world
        .get(&acme.member, PREFERENCES)
        .header("If-None-Match", &tag)
        .await;
    unchanged.expect(304);
    let setting = json!({"notifications.email_digest": "daily"});
    let changed = world.patch(&acme.admin, "/api/v1/tenant/settings", &setting);
    changed.await.expect(200);
    let read = world
        .get(&acme.member, PREFERENCES)
        .header("If-None-Match", &tag)
        .await;
    assert_eq!(
        read.expect(200).json()["notifications"]["project.member_added"]["mail"],
        "daily"
    );

    let off = json!({"notifications": {"task.assigned": {"mail": "off", "in_app": false}}});
    let stale = world
        .patch(&acme.member, PREFERENCES, &off)
        .header("If-Match", "\"7\"");
    stale.await.problem(412, "stale_version");
    let change = world
        .patch(&acme.member, PREFERENCES, &off)
        .header("If-Match", "\"0\"");
    let changed = change.await.expect(200).json();
    assert_eq!(
        (
            &changed["version"],
            &changed["notifications"]["task.assigned"]["mail"]
        ),
        (&json!(1), &json!("off"))
    );
    for (kind, choice, code) in [
        (
            "task.unknown",
            json!({"mail": "off"}),
            "unknown_notification_type",
        ),
        ("security.alert", json!({"mail": "off"}), "mail_fixed"),
        ("task.assigned", json!({"mail": "hourly"}), "invalid_value"),
    ] {
        let refused = prefer(&world, &acme.member, kind, choice)
            .await
            .problem(422, "validation_failed");
        assert_eq!(refused.json()["errors"][0]["code"], code, "{kind}");
    }
    // They are of one user of one tenant.
    for other in [&acme.viewer, &world.globex.member] {
        let read = world.get(other, PREFERENCES).await.expect(200).json();
        assert_eq!(
            (&read["version"], &read["notifications"]["task.assigned"]["mail"]),
            (&json!(0), &json!("instant"))
        );
    }
    let reset = prefer(&world, &acme.member, "task.assigned", Value::Null)
        .await
        .expect(200)
        .json();
    assert_eq!(reset["notifications"]["task.assigned"]["in_app"], true);
    let logged = world.audit(acme).await;
    let logged = logged
        .iter()
        .filter(|(action, _)| action == "notification_preferences.updated");
    assert_eq!(logged.count(), 2);
}

#[actix_web::test]
async fn choice_hides_notifications_from_the_list() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    let hidden = json!({"in_app": false, "mail": "daily"});
    prefer(&world, &acme.member, "task.assigned", hidden)
        .await
        .expect(200);
    let nothing = json!({"in_app": false, "mail": "off"});
    prefer(&world, &acme.viewer, "task.assigned", nothing)
        .await
        .expect(200);
    assign(&world, acme, &acme.member, "For the digest").await;
    assign(&world, acme, &acme.viewer, "For nobody").await;
    notify(&world, acme).await;
    assert!(list(&world, &acme.member).await.is_empty());
    assert_eq!(
        world.get(&acme.member, COUNT).await.expect(200).json(),
        json!({"unread": 0})
    );
    assert_eq!(number(&world, "SELECT count(*) FROM notifications").await, 1);
}

/// A world with a mail server of its own.
pub(crate) struct Mailed {
    pub(crate) world: World,
    pub(crate) server: SmtpServer,
}

impl Mailed {
    pub(crate) async fn new() -> Self {
        let server = SmtpServer::start();
        let world = World::with(mailing(Options::default(), &server, |_| {})).await;
        start(&world).await;
        Self { world, server }
    }

    /// The mails about notifications that a person got, by their headers.
    pub(crate) fn of(&self, who: &Person) -> Vec<tenantry_tests::Received> {
        let received = self.server.received().into_iter();
        let received = received.filter(|mail| mail.to == [who.email.clone()]);
        received
            .filter(|mail| mail.data.contains("List-Unsubscribe: "))
            .collect()
    }

    /// Lets the time of the next digest come, and does what is to be done then.
    pub(crate) async fn come_to(&self, rhythm: Rhythm) {
        let now = self.world.clock.now();
        let due = DigestSchedule::new("UTC", 8).next(now, rhythm, None).unwrap();
        self.world.clock.advance(due.at - now + Duration::seconds(1));
        work(&self.world).await;
    }
}

/// The path in the header of a mail.
pub(crate) fn link_of(mail: &tenantry_tests::Received) -> String {
    let header = Regex::new("List-Unsubscribe: <https://[^/]+(/[^>]+)>").unwrap();
    header.captures(&mail.data).unwrap()[1].to_owned()
}

#[actix_web::test]
async fn assignment_is_mailed_at_once_with_a_link_that_ends_it() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    assign(world, acme, &acme.member, "Write the front page").await;
    notify(world, acme).await;
    let mails = mailed.of(&acme.member);
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0]
            .text()
            .contains("a task was assigned to you: Write the front page"),
        "{}",
        mails[0].text()
    );
    let path = link_of(&mails[0]);
    assert!(mails[0].text().contains(&path));

    // Mail scanners open links. Only a POST changes something.
    let page = world.client.get(&path).await.expect(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
    assert!(page.text().contains("<form method=\"post\">"), "{}", page.text());
    assert_eq!(
        number(world, "SELECT count(*) FROM notification_preferences").await,
        0
    );
    for _ in 0..2 {
        let click = world.client.request(Method::POST, &path);
        let click = click.header("Content-Type", "application/x-www-form-urlencoded");
        click.body("List-Unsubscribe=One-Click").await.expect(200);
    }
    let read = world.get(&acme.member, PREFERENCES).await.expect(200).json();
    assert_eq!(read["notifications"]["task.assigned"]["mail"], "off");
    assert_eq!(read["notifications"]["project.member_added"]["mail"], "weekly");
    assert_eq!(read["version"], 1);
    assign(world, acme, &acme.member, "In the list only").await;
    notify(world, acme).await;
    assert_eq!(mailed.of(&acme.member).len(), 1);
    assert_eq!(list(world, &acme.member).await.len(), 2);
}

#[actix_web::test]
async fn token_ends_mails_of_its_user_and_address_only() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let path = link(&world, acme, &acme.member);
    let post = async |path: &str| world.client.request(Method::POST, path).await;
    let token = path.rsplit_once('=').unwrap().1.to_owned();
    for wrong in [
        format!("{}x", &path[..path.len() - 1]),
        format!("{LIST}/unsubscribe?token=un_"),
        path.replace("un_", "lt_"),
    ] {
        let refused = post(&wrong).await.problem(422, "validation_failed");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/query/token");
        assert!(!refused.text().contains(&token[..20]));
    }
    // A token of acme with an id of globex in it was not issued here, and one of a user that the tenant does not have ends nothing.
    let seal = world.app.ports.seal.as_ref();
    let foreign = world.app.ports.unsubscribe_tokens.issue(&PresentedUnsubscribe {
        tenant: globex.id,
        user: acme.member.id,
        tag: UnsubscribeFrom::Digests.tag(seal, &Email::stored(acme.member.email.clone())),
    });
    post(&format!("{LIST}/unsubscribe?token={foreign}"))
        .await
        .problem(422, "validation_failed");
    // A suspended tenant's users get rid of mails, too, from any network; after a change of the address the former one ends nothing.
    world.set_status(acme, "suspended").await;
    post(&path).await.expect(200);
    world.set_status(acme, "active").await;
    let ended = |who: &Person| {
        format!(
            "SELECT count(*) FROM notification_preferences WHERE user_id = '{}'",
            who.id
        )
    };
    assert_eq!(number(&world, &ended(&acme.member)).await, 1);
    assert_eq!(
        number(&world, "SELECT count(*) FROM notification_preferences").await,
        1
    );
    world
        .sql(format!(
            "UPDATE users SET email = 'new@acme.example' WHERE id = '{}'",
            acme.member.id
        ))
        .await;
    post(&path).await.problem(422, "validation_failed");
    world.set_status(globex, "deleted").await;
    post(&link(&world, globex, &globex.member))
        .await
        .problem(422, "validation_failed");
}

#[actix_web::test]
async fn digest_has_what_is_unread_once() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    for who in [&acme.member, &acme.viewer] {
        prefer(world, who, "task.assigned", json!({"mail": "daily"}))
            .await
            .expect(200);
    }
    for n in 0..23 {
        assign(world, acme, &acme.member, &format!("Task {n}")).await;
    }
    assign(world, acme, &acme.viewer, "Read before").await;
    notify(world, acme).await;
    world
        .post(&acme.viewer, READ_ALL, &json!(null))
        .body("")
        .await
        .expect(200);
    assert!(mailed.of(&acme.member).is_empty());
    let open = "SELECT count(*) FROM jobs WHERE kind = 'notification.digest' AND state = 'queued'";
    assert_eq!(number(world, open).await, 1);

    mailed.come_to(Rhythm::Daily).await;
    let mails = mailed.of(&acme.member);
    assert_eq!(mails.len(), 1);
    let text = mails[0].text();
    assert!(
        text.matches(": Task ").count() == 20 && text.contains("and 3 more"),
        "{text}"
    );
    let subject = mails[0].header("Subject");
    assert!(subject.ends_with("] 23 new notifications"), "{subject}");
    assert!(mailed.of(&acme.viewer).is_empty());
    // Nothing is new the day after, and no job waits.
    mailed.come_to(Rhythm::Daily).await;
    assert_eq!(mailed.of(&acme.member).len(), 1);
    assert_eq!(number(world, open).await, 0);
    // The job that runs twice, and at once, sends nothing again.
    let cx = system(world, acme).await;
    let both = join(SendDigests.run(&cx, Nothing {}), SendDigests.run(&cx, Nothing {})).await;
    both.0.unwrap();
    both.1.unwrap();
    work(world).await;
    assert_eq!(mailed.of(&acme.member).len(), 1);
}

#[actix_web::test]
async fn weekly_digest_waits_for_monday_and_a_link_ends_digests() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let german = json!({"settings": {"locale": "de"}});
    world
        .patch(&acme.admin, "/api/v1/tenant", &german)
        .await
        .expect(200);
    prefer(world, &acme.member, "task.assigned", json!({"mail": "weekly"}))
        .await
        .expect(200);
    assign(world, acme, &acme.member, "Für Montag").await;
    notify(world, acme).await;
    mailed.come_to(Rhythm::Weekly).await;
    let mails = mailed.of(&acme.member);
    assert_eq!(mails.len(), 1);
    assert!(mails[0].text().contains("Für Montag"), "{}", mails[0].text());
    let path = link_of(&mails[0]);
    let page = world.client.get(&path).await.expect(200).text();
    assert!(
        page.contains("<html lang=\"de\">") && page.contains("Abbestellen"),
        "{page}"
    );
    world.client.request(Method::POST, &path).await.expect(200);
    let choices = "SELECT string_agg(key || ' ' || (value->>'mail'), ', ' ORDER BY key) FROM notification_preferences, jsonb_each(choices)";
    assert_eq!(
        one(world, choices).await,
        "billing.subscription_changed off, domain.activated off, project.member_added off, task.assigned off"
    );
}

#[actix_web::test]
async fn digest_of_a_choice_that_was_ended_is_not_mailed() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    prefer(world, &acme.member, "task.assigned", json!({"mail": "daily"}))
        .await
        .expect(200);
    assign(world, acme, &acme.member, "Not wanted").await;
    notify(world, acme).await;
    prefer(world, &acme.member, "task.assigned", json!({"mail": "off"}))
        .await
        .expect(200);
    mailed.come_to(Rhythm::Daily).await;
    assert!(mailed.of(&acme.member).is_empty());
    assert_eq!(
        number(world, "SELECT count(*) FROM notifications WHERE mail IS NOT NULL").await,
        0
    );
}

#[actix_web::test]
async fn address_that_is_refused_gets_no_more_mail() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    mailed.server.refuse(&acme.member.email, 550);
    for n in 0..5 {
        assign(world, acme, &acme.member, &format!("Task {n}")).await;
        notify(world, acme).await;
    }
    let read = world.get(&acme.member, PREFERENCES).await.expect(200).json();
    assert!(read["mail_stopped_at"].is_string(), "{read}");
    let dead = "SELECT count(*) FROM jobs WHERE kind = 'notification.mail' AND state = 'dead'";
    assert_eq!(number(world, dead).await, 3);
    assert_eq!(list(world, &acme.member).await.len(), 5);
    // A change of the preferences lets mail be sent again.
    let again = prefer(world, &acme.member, "task.assigned", json!({"mail": "instant"})).await;
    assert_eq!(again.expect(200).json()["mail_stopped_at"], Value::Null);
}

#[actix_web::test]
async fn unverified_address_gets_no_mail_of_notifications() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    world.sql("UPDATE users SET email_verified = false").await;
    assign(world, acme, &acme.member, "In the list").await;
    notify(world, acme).await;
    assert!(mailed.of(&acme.member).is_empty());
    assert_eq!(list(world, &acme.member).await.len(), 1);
}

#[actix_web::test]
async fn lists_are_bounded_by_number_and_age() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    let rows = |days: i32, count: i32| {
        format!(
            "INSERT INTO notifications (tenant_id, id, created_at, user_id, kind, event_id, occurred_at, actor_kind, entity, parts, in_app) \
             SELECT '{}', gen_random_uuid(), '{}'::timestamptz - interval '{days} days', '{}', 'task.assigned', gen_random_uuid(), now(), \
             'system', 'task', '{{}}', true FROM generate_series(1, {count})",
            acme.id,
            world.clock.now().to_rfc3339(),
            acme.member.id
        )
    };
    world.sql(rows(1, 510)).await;
    assign(&world, acme, &acme.member, "Newest").await;
    notify(&world, acme).await;
    assert_eq!(number(&world, "SELECT count(*) FROM notifications").await, 500);
    assert_eq!(list(&world, &acme.member).await[0]["parts"]["title"], "Newest");
    world.sql("DELETE FROM notifications").await;
    world.sql(rows(91, 10)).await;
    world.sql(rows(89, 10)).await;
    KeepNotifications
        .run(&system(&world, acme).await, Nothing {})
        .await
        .unwrap();
    assert_eq!(number(&world, "SELECT count(*) FROM notifications").await, 10);
}

/// The upkeep asks again for what a job that failed for good has left.
#[actix_web::test]
async fn upkeep_finds_events_and_digests_that_were_left() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    prefer(&world, &acme.member, "task.assigned", json!({"mail": "daily"}))
        .await
        .expect(200);
    assign(&world, acme, &acme.member, "First").await;
    notify(&world, acme).await;
    assign(&world, acme, &acme.member, "Left").await;
    publish::publish(&system(&world, acme).await).await.unwrap();
    world.sql("DELETE FROM jobs").await;
    KeepNotifications
        .run(&system(&world, acme).await, Nothing {})
        .await
        .unwrap();
    work(&world).await;
    assert_eq!(list(&world, &acme.member).await.len(), 2);
    let open = "SELECT count(*) FROM jobs WHERE kind = 'notification.digest' AND state = 'queued'";
    assert_eq!(number(&world, open).await, 1);
}

#[actix_web::test]
async fn removed_person_leaves_no_notification() {
    let world = World::new().await;
    let acme = &world.acme;
    start(&world).await;
    assign(&world, acme, &acme.member, "Mine").await;
    notify(&world, acme).await;
    prefer(&world, &acme.member, "task.assigned", json!({"mail": "off"}))
        .await
        .expect(200);
    world
        .sql(format!(
            "UPDATE tasks SET assignee_id = NULL WHERE assignee_id = '{}'",
            acme.member.id
        ))
        .await;
    let rows =
        "SELECT (SELECT count(*) FROM notifications) + (SELECT count(*) FROM notification_preferences)";
    assert_eq!(number(&world, rows).await, 2);
    crate::persons::erase(&world, &acme.admin, &acme.member)
        .await
        .expect(202);
    erasure::finish(&system(&world, acme).await, acme.member.id)
        .await
        .unwrap();
    assert_eq!(number(&world, rows).await, 0);
}
