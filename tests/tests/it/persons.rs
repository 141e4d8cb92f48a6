//! The data of one person: what an export has, what an erasure leaves, and that no archive brings an erased person back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use serde_json::{Value, json};
use tenantry_domain::kernel::SystemScope;
use tenantry_system::FileArchiveReader;
use tenantry_tenancy::Cx;
use tenantry_tenancy::archive::{diff, export, read};
use tenantry_tenancy::audit::verify;
use tenantry_tenancy::identity::erasure;
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tests::{Person, TenantWorld, World, operator_cx};

use crate::audit::chain_in;
use crate::jobs::worker;

const BECAUSE: SystemScope = SystemScope::because("a test");

pub(crate) async fn system(world: &World, tenant: &TenantWorld) -> Cx {
    Cx::enter(&world.app, BECAUSE, tenant.id).await.unwrap().unwrap()
}

fn exports_of(person: &Person) -> String {
    format!("/api/v1/users/{}/exports", person.id)
}

/// Runs every job that is due.
pub(crate) async fn run_jobs(world: &World) {
    let worker = worker(world, Handlers::standard());
    while !worker.run_once().await.unwrap().is_empty() {}
}

/// Has a person export the data of another one, or their own, and reads every row of the archive.
pub(crate) async fn exported(world: &World, who: &Person, of: &Person) -> String {
    let asked = world.post(who, &exports_of(of), &json!({})).await;
    let asked = asked.expect(202);
    let path = asked.header("location").unwrap().to_owned();
    run_jobs(world).await;
    let export = world.get(who, &path).await.expect(200).json();
    assert_eq!(
        (&export["status"], &export["user_id"]),
        (&json!("ready"), &json!(of.id)),
        "{export}"
    );
    let link = export["download_url"].as_str().unwrap();
    let whole = world.client.get(link).await.expect(200);
    let part = world
        .client
        .get(link)
        .header("Range", "bytes=0-9")
        .await
        .expect(206);
    assert_eq!(part.bytes, whole.bytes[..10]);
    let file = world.database.exports().join("person.tar");
    std::fs::write(&file, &whole.bytes).unwrap();
    rows_of(world, &file).await
}

/// Every row of an archive, each behind the name of its table.
async fn rows_of(world: &World, file: &Path) -> String {
    let mut archive = FileArchiveReader::open(file).await.unwrap();
    let verified = read::verify(&world.app, &mut archive, &[]).await.unwrap();
    let mut rows = String::new();
    for table in verified.source.manifest().tables.clone() {
        verified.source.open(&table.name).await.unwrap();
        loop {
            let next = verified.source.next(1 << 20).await.unwrap();
            if next.is_empty() {
                break;
            }
            next.iter()
                .for_each(|row| rows.push_str(&format!("{} {row}\n", table.name)));
        }
    }
    rows
}

/// What every table of the database has of a text, of all tenants.
pub(crate) async fn found_anywhere(world: &World, text: &str) -> Vec<String> {
    let mut admin = world.database.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let sql = format!("SELECT t::text FROM {table} t WHERE position($1 IN t::text) > 0");
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(text)
            .fetch_all(&mut admin)
            .await
            .unwrap();
        found.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    found
}

/// Gives a member something in most tables, and the audit log entries by and about them.
pub(crate) async fn busy(world: &World) {
    let acme = &world.acme;
    let task = format!("/api/v1/tasks/{}", acme.task);
    let change = json!({"title": "By the member", "assignee_id": acme.member.id});
    world
        .patch(&acme.member, &task, &change)
        .header("User-Agent", "probe/7")
        .await
        .expect(200);
    let own = json!({"name": "Project of the member"});
    world
        .post(&acme.member, "/api/v1/projects", &own)
        .await
        .expect(201);
    let name = json!({"full_name": "Memorable Name"});
    let path = format!("/api/v1/users/{}", acme.member.id);
    world
        .patch(&acme.admin, &path, &name)
        .header("User-Agent", "admins-agent")
        .await
        .expect(200);
    world.login("acme", &acme.member.email, "wrong").await;
    let invited = json!({"email": "guest@invited.example", "role": "viewer"});
    world
        .post(&acme.admin, "/api/v1/invitations", &invited)
        .await
        .expect(201);
    chain_in(&system(world, acme).await).await;
}

pub(crate) async fn assert_chain(world: &World) {
    let verified = verify::verify_of(&world.app, BECAUSE, world.acme.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(verified.wrong, None);
    assert!(verified.entries > 0);
}

pub(crate) async fn erase(world: &World, who: &Person, of: &Person) -> tenantry_tests::Reply {
    let path = format!("/api/v1/users/{}/erase", of.id);
    world.post(who, &path, &json!({"confirm_email": of.email})).await
}

#[actix_web::test]
async fn export_of_a_person_has_what_is_about_them_and_nothing_of_others() {
    let world = World::new().await;
    busy(&world).await;
    let acme = &world.acme;
    // An entry that concerns the member and tells about somebody else as well.
    let cx = system(&world, acme).await;
    cx.write(async |work| {
        let details = json!({"user_id": acme.member.id, "invited": {"email": "guest@invited.example"}});
        let event = cx.security("test.of_two", "project", None, details);
        work.audit().record(event).await
    })
    .await
    .unwrap();
    let rows = exported(&world, &acme.member, &acme.member).await;
    for (table, text) in [
        ("users", "Memorable Name"),
        ("refresh_sessions", "expires_at"),
        ("tasks", "By the member"),
        ("projects", "Project of the member"),
        ("audit_events", "\"task.updated\""),
        ("audit_events", "\"login.failed\""),
        ("audit_events", "\"session.started\""),
        ("audit_events", "\"test.of_two\""),
    ] {
        let has = |row: &str| row.starts_with(table) && row.contains(text);
        assert!(rows.lines().any(has), "{table} has no {text}: {rows}");
    }
    let (admin, globex) = (acme.admin.email.as_str(), world.globex.id.to_string());
    for not in [
        admin,
        &globex,
        "admins-agent",
        "argon2",
        "token_hash",
        "guest@invited.example",
    ] {
        assert!(!rows.contains(not), "{not}: {rows}");
    }
    let own = |row: &&str| row.starts_with("users ");
    assert_eq!(rows.lines().filter(own).count(), 1);

    // An admin gets the same of anybody, also of a user who was removed.
    let path = format!("/api/v1/users/{}", acme.member.id);
    let version = world.get(&acme.admin, &path).await.expect(200);
    let etag = version.header("etag").unwrap().to_owned();
    world
        .delete(&acme.admin, &path)
        .header("If-Match", etag)
        .await
        .expect(204);
    let rows = exported(&world, &acme.admin, &acme.member).await;
    assert!(rows.contains("Memorable Name"), "{rows}");
    let actions = world.audit(acme).await;
    assert!(
        actions.iter().any(|(action, _)| action == "user.exported"),
        "{actions:?}"
    );
}

#[actix_web::test]
async fn export_is_for_the_person_and_admins() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    world
        .post(&acme.viewer, &exports_of(&acme.member), &json!({}))
        .await
        .problem(403, "forbidden");
    world
        .post(&globex.admin, &exports_of(&acme.member), &json!({}))
        .await
        .problem(404, "not_found");
    let path = world
        .post(&acme.member, &exports_of(&acme.member), &json!({}))
        .await
        .expect(202);
    let path = path.header("location").unwrap().to_owned();
    // One of a person is under way at a time; that of another person and of the tenant are beside it.
    world
        .post(&acme.admin, &exports_of(&acme.member), &json!({}))
        .await
        .problem(409, "conflict");
    world
        .post(&acme.viewer, &exports_of(&acme.viewer), &json!({}))
        .await
        .expect(202);
    world
        .post(&acme.admin, "/api/v1/tenant/exports", &json!({}))
        .await
        .expect(202);
    world.get(&acme.viewer, &path).await.problem(403, "forbidden");
    world.get(&globex.admin, &path).await.problem(404, "not_found");
    world.get(&acme.admin, &path).await.expect(200);
    // It is neither in the list of the tenant's exports nor under their paths, whoever asks.
    let id = path.rsplit('/').next().unwrap();
    for path in [
        format!("/api/v1/tenant/exports/{id}"),
        format!("/api/v1/tenant/exports/{id}/download"),
    ] {
        world.get(&acme.admin, &path).await.problem(404, "not_found");
    }
    let listed = world
        .get(&acme.admin, "/api/v1/tenant/exports")
        .await
        .expect(200)
        .json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let of_viewer = format!("{}/{id}", exports_of(&acme.viewer));
    world.get(&acme.admin, &of_viewer).await.problem(404, "not_found");
}

#[actix_web::test]
async fn erased_person_is_found_nowhere_and_the_chain_verifies() {
    let world = World::new().await;
    busy(&world).await;
    let acme = &world.acme;
    let before = world.digest(&world.globex).await;
    exported(&world, &acme.member, &acme.member).await;
    let erased = erase(&world, &acme.admin, &acme.member).await.expect(202).json();
    assert_eq!(erased["finished_at"], Value::Null, "{erased}");
    // The account ends at once.
    world.get(&acme.member, "/api/v1/tasks").await.expect(401);
    chain_in(&system(&world, acme).await).await;
    run_jobs(&world).await;
    let erased = erase(&world, &acme.admin, &acme.member).await.expect(202).json();
    assert!(erased["finished_at"].is_string(), "{erased}");
    assert!(erased["audit_entries"].as_u64().unwrap() >= 4, "{erased}");

    for text in [acme.member.email.as_str(), "Memorable Name", "probe/7"] {
        let found = found_anywhere(&world, text).await;
        let found: Vec<_> = found
            .iter()
            .filter(|row| !row.contains(&world.globex.id.to_string()))
            .collect();
        assert!(found.is_empty(), "{text}: {found:?}");
    }
    assert_chain(&world).await;
    assert_eq!(
        world.digest(&world.globex).await,
        before,
        "nothing of the other tenant"
    );
    let archives = world.database.exports().join(acme.id.to_string());
    assert_eq!(
        std::fs::read_dir(&archives).unwrap().count(),
        0,
        "the archive of the person"
    );

    // What stays refers to an anonymous account, and the log names nobody.
    let page = world
        .get(&acme.admin, "/api/v1/projects")
        .await
        .expect(200)
        .json();
    let owned = json!(acme.member.id);
    assert!(
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|project| project["owner_id"] == owned),
        "{page}"
    );
    let path = format!("/api/v1/audit-events?actor={}", acme.member.id);
    let page = world.get(&acme.admin, &path).await.expect(200).json();
    let entries = page["data"].as_array().unwrap();
    // A job for the person has no address.
    let addresses: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry["address"].as_str())
        .collect();
    assert!(
        !addresses.is_empty() && addresses.iter().all(|address| address.starts_with("erased:")),
        "{page}"
    );
    assert!(
        entries
            .iter()
            .all(|entry| entry["actor"]["name"] == "Erased user"),
        "{page}"
    );
    let path = format!("/api/v1/users/{}", acme.member.id);
    world.get(&acme.admin, &path).await.problem(404, "not_found");
    // Nobody can be exported who was erased, and the address is free.
    world
        .post(&acme.admin, &exports_of(&acme.member), &json!({}))
        .await
        .problem(404, "not_found");
    let again = json!({"email": acme.member.email, "full_name": "Another"});
    world.post(&acme.admin, "/api/v1/users", &again).await.expect(201);
}

#[actix_web::test]
async fn erasure_is_confirmed_and_keeps_an_admin() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let path = format!("/api/v1/users/{}/erase", acme.member.id);
    let wrong = json!({"confirm_email": acme.viewer.email});
    let refused = world.post(&acme.admin, &path, &wrong).await.expect(422);
    assert!(refused.text().contains("/confirm_email"), "{}", refused.text());
    world
        .post(&acme.admin, &path, &json!({"confirm_email": "\u{0}"}))
        .await
        .expect(422);
    erase(&world, &acme.member, &acme.viewer)
        .await
        .problem(403, "forbidden");
    erase(&world, &globex.admin, &acme.member)
        .await
        .problem(404, "not_found");
    erase(&world, &acme.admin, &acme.admin)
        .await
        .problem(409, "last_admin");
    let second = world.second_admin().await;
    erase(&world, &acme.admin, &acme.admin).await.expect(202);
    world.get(&acme.admin, "/api/v1/tasks").await.expect(401);
    erase(&world, &second, &second).await.problem(409, "last_admin");
}

/// Every admin erases all others at once: one is left.
#[actix_web::test]
async fn erasures_at_once_leave_an_admin() {
    let world = World::new().await;
    let second = world.second_admin().await;
    let (one, other) = tokio::join!(
        erase(&world, &world.acme.admin, &second),
        erase(&world, &second, &world.acme.admin)
    );
    let done = [one.status, other.status]
        .into_iter()
        .filter(|status| *status == 202)
        .count();
    assert_eq!(done, 1, "{} {}", one.text(), other.text());
}

/// The job is begun again after each transaction, as after a kill: what is done stays done, and nothing is done twice.
#[actix_web::test]
async fn erasure_goes_on_where_it_was_killed() {
    let world = World::new().await;
    busy(&world).await;
    let acme = &world.acme;
    erase(&world, &acme.admin, &acme.member).await.expect(202);
    let cx = system(&world, acme).await;
    chain_in(&cx).await;
    // A run that dies somewhere: its transactions are bounded by a statement that waits for a lock.
    for wait in [1, 5, 20, 60] {
        let run = erasure::finish(&cx, acme.member.id);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(wait), run).await;
        assert_chain(&world).await;
    }
    let first = erasure::finish(&cx, acme.member.id).await.unwrap().unwrap();
    assert!(first.finished_at.is_some());
    let again = erasure::finish(&cx, acme.member.id).await.unwrap().unwrap();
    assert_eq!(
        (again.entries, again.finished_at),
        (first.entries, first.finished_at)
    );
    assert_chain(&world).await;
    assert_eq!(found_anywhere(&world, "probe/7").await, Vec::<String>::new());
}

#[actix_web::test]
async fn no_archive_brings_an_erased_person_back() {
    let world = World::new().await;
    busy(&world).await;
    let acme = &world.acme;
    let cx = system(&world, acme).await;
    let invited = json!({"email": "second@invited.example", "role": "viewer"});
    world
        .post(&acme.admin, "/api/v1/invitations", &invited)
        .await
        .expect(201);
    let file = world.write_archive("before.tar", None).await;

    erase(&world, &acme.admin, &acme.member).await.expect(202);
    chain_in(&cx).await;
    erasure::finish(&cx, acme.member.id).await.unwrap();

    let mut archive = FileArchiveReader::open(&file).await.unwrap();
    let verified = read::verify(&world.app, &mut archive, &[]).await.unwrap();
    let diffs = diff::diff(&operator_cx(&world.app), BECAUSE, verified)
        .await
        .unwrap();
    let users = diffs.iter().find(|diff| diff.table == "users").unwrap();
    assert_eq!((users.missing, users.different, users.surplus), (0, 0, 1));
    world.restore_archive(&file).await.unwrap();
    assert_eq!(
        found_anywhere(&world, &acme.member.email).await,
        Vec::<String>::new()
    );

    // As a new tenant the person is anonymous, too, and the records that refer to them are there.
    let imported = world.import_archive(&file, "acme-copy").await.unwrap();
    assert_eq!(
        found_anywhere(&world, &acme.member.email).await,
        Vec::<String>::new()
    );
    assert_eq!(
        found_anywhere(&world, "Memorable Name").await,
        Vec::<String>::new()
    );
    let copied = format!(
        "SELECT count(*) FROM projects p JOIN users u ON u.tenant_id = p.tenant_id AND u.id = p.owner_id \
         WHERE p.tenant_id = '{}' AND u.full_name = 'Erased user' AND p.name = 'Project of the member'",
        imported.tenant.id
    );
    let mut admin = world.database.admin().await;
    let copied: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(copied))
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(copied, 1);

    // Whatever else writes the row fails unless it stays anonymous.
    let back = format!(
        "UPDATE users SET email = 'back@x.example' WHERE id = '{}'",
        acme.member.id
    );
    let error = sqlx::raw_sql(sqlx::AssertSqlSafe(back))
        .execute(&mut admin)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("users_erased_check"), "{error}");
}

/// The archive of a person is no archive of a tenant.
#[actix_web::test]
async fn archive_of_a_person_is_not_imported() {
    let world = World::new().await;
    let acme = &world.acme;
    let cx = system(&world, acme).await;
    let about = export::about(&cx, acme.member.id).await.unwrap().unwrap();
    let file = world.write_archive("person.tar", Some(&about)).await;
    let refused = world.import_archive(&file, "acme-copy").await;
    assert!(refused.unwrap_err().to_string().contains("archive of one person"));
}
