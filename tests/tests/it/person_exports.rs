//! Exports of one person: addresses that are not proven show nothing of their owners, and no secret of a service is in one.

use serde_json::json;
use sqlx::Connection as _;
use tenantry_migration::{OnDelete, TenantTable};
use tenantry_tenancy::archive::export;
use tenantry_tests::{Options, PASSWORD, Person, World};

use crate::account_passwords::{Mailed, ask, post};
use crate::persons::{exported, system};

const RESEND: &str = "/api/v1/auth/resend-verification";
const CAROL: &str = "carol.victim@elsewhere.example";

/// The addresses that an export of a person is searched by.
async fn proven(world: &World, who: &Person) -> Vec<String> {
    let cx = system(world, &world.acme).await;
    let about = export::about(&cx, who.id).await.unwrap().unwrap();
    about.proven
}

async fn change_email(world: &World, who: &Person, email: &str) {
    let body = json!({"email": email, "password": PASSWORD});
    let asked = world.post(who, "/api/v1/auth/change-email", &body);
    asked.await.expect(202);
}

fn rows<'a>(archive: &'a str, table: &str) -> Vec<&'a str> {
    let prefix = format!("{table} ");
    let rows = archive.lines();
    rows.filter(|row| row.starts_with(&prefix)).collect()
}

#[actix_web::test]
async fn registered_address_without_proof_shows_nothing_of_its_owner() {
    let world = World::with(Options {
        self_registration: true,
        ..Options::default()
    })
    .await;
    world.login("acme", CAROL, "wrong").await;
    let body = json!({"tenant_slug": "acme", "email": CAROL, "full_name": "Out Sider", "password": PASSWORD});
    let made = post(&world, "/api/v1/auth/register", body)
        .await
        .expect(201)
        .json();
    let text = |pointer: &str| made.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let outsider = Person {
        email: CAROL.into(),
        id: text("/user/id").parse().unwrap(),
        access_token: text("/access_token"),
        refresh_token: text("/refresh_token"),
    };
    assert_eq!(proven(&world, &outsider).await, Vec::<String>::new());
    let archive = exported(&world, &outsider, &outsider).await;
    assert!(archive.contains("user.registered"), "{archive}");
    assert!(!archive.contains("login.failed"), "{archive}");
}

#[actix_web::test]
async fn address_to_be_confirmed_shows_nothing_of_its_owner() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    world.login("acme", &acme.admin.email, "wrong").await;
    ask(world, RESEND, "acme", &acme.admin.email).await.expect(202);
    let invited = json!({"email": "guest@acme.example", "role": "viewer"});
    world
        .post(&acme.admin, "/api/v1/invitations", &invited)
        .await
        .expect(201);
    change_email(world, &acme.viewer, &acme.admin.email).await;
    shows_nothing_of_others(world).await;
    // A second link takes the place of the first.
    world.clock.advance(chrono::Duration::minutes(6));
    change_email(world, &acme.viewer, "guest@acme.example").await;
    shows_nothing_of_others(world).await;
}

/// The export of the viewer has nothing about the admin and the guest.
async fn shows_nothing_of_others(world: &World) {
    let acme = &world.acme;
    let archive = exported(world, &acme.viewer, &acme.viewer).await;
    for not in ["login.failed", "invitation.created"] {
        assert!(!archive.contains(not), "{not}: {archive}");
    }
    assert_eq!(rows(&archive, "invitations"), Vec::<&str>::new());
    let admin = acme.admin.id.to_string();
    let about_admin = [
        format!("\"user_id\": \"{admin}\""),
        format!("\"target_id\": \"{admin}\""),
        format!("\"target_id\":\"{admin}\""),
    ];
    let is_of_admin = |row: &&str| about_admin.iter().any(|text| row.contains(text));
    assert_eq!(archive.lines().filter(is_of_admin).count(), 0, "{archive}");
    let links = rows(&archive, "account_links");
    assert_eq!(links.len(), 1, "the link that the viewer asked for");
}

#[actix_web::test]
async fn proven_addresses_count_until_another_account_has_them() {
    let mailed = Mailed::new().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let viewer = &acme.viewer;
    ask(world, RESEND, "acme", &viewer.email).await.expect(202);
    let token = mailed.token_for(&viewer.email).await;
    post(world, "/api/v1/auth/verify-email", json!({"token": token}))
        .await
        .expect(204);
    assert_eq!(proven(world, viewer).await, [viewer.email.as_str()]);
    change_email(world, viewer, "moved@acme.example").await;
    assert_eq!(
        proven(world, viewer).await,
        [viewer.email.as_str()],
        "it is not confirmed"
    );
    let token = mailed.token_for("moved@acme.example").await;
    post(world, "/api/v1/auth/confirm-email", json!({"token": token}))
        .await
        .expect(204);
    // The link that gives the address back is gone after a week; the log says the same.
    let mut admin = world.database.admin().await;
    sqlx::raw_sql("DELETE FROM account_links")
        .execute(&mut admin)
        .await
        .unwrap();
    let mut both = proven(world, viewer).await;
    both.sort();
    let mut expected = vec!["moved@acme.example".to_owned(), viewer.email.clone()];
    expected.sort();
    assert_eq!(both, expected);
    // An admin gives the account an address, and the former one to somebody else.
    let path = format!("/api/v1/users/{}", viewer.id);
    let given = json!({"email": "given@acme.example"});
    world.patch(&acme.admin, &path, &given).await.expect(200);
    let other = json!({"email": viewer.email, "full_name": "Another"});
    world.post(&acme.admin, "/api/v1/users", &other).await.expect(201);
    assert_eq!(proven(world, viewer).await, ["moved@acme.example"]);
    let archive = exported(world, viewer, viewer).await;
    assert!(!archive.contains("Another"), "{archive}");
}

#[actix_web::test]
async fn export_of_a_person_has_no_secret_of_a_service() {
    let world = World::new().await;
    let acme = &world.acme;
    let mut owner = sqlx::PgConnection::connect(&world.database.owner_url())
        .await
        .unwrap();
    let table = TenantTable::new("integrations")
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("title", "text NOT NULL")
        .column("api_key", "text NOT NULL")
        .column("recovery_tokens", "jsonb NOT NULL");
    let mut sql = table.up_sql().unwrap();
    sql.push("ALTER TABLE integrations ADD COLUMN \"accessToken\" text".to_owned());
    for sql in sql {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut owner)
            .await
            .unwrap();
    }
    let insert = format!(
        "INSERT INTO integrations (tenant_id, id, created_at, user_id, title, api_key, recovery_tokens, \"accessToken\") \
         VALUES ('{}', gen_random_uuid(), now(), '{}', 'Shown', 'key-s3cret', '[\"recovery-s3cret\"]', 'access-s3cret')",
        acme.id, acme.member.id
    );
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert))
        .execute(&mut admin)
        .await
        .unwrap();
    let archive = exported(&world, &acme.member, &acme.member).await;
    assert!(archive.contains("Shown"), "{archive}");
    assert!(!archive.contains("s3cret"), "{archive}");
}
