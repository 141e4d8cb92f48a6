//! Users who move in with their password hashes.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

use serde_json::json;
use tenantry_domain::kernel::{Invalid, Role};
use tenantry_tenancy::Cx;
use tenantry_tenancy::identity::user::UserError;
use tenantry_tenancy::identity::user_import::{self, ImportUser, Imported};
use tenantry_tests::{PASSWORD, TenantWorld, World, operator_cx};

/// Of "correct horse", made with Python.
const PBKDF2: &str =
    "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz991ay6PT8Srwk4M";
const SCRYPT: &str =
    "$scrypt$ln=4,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$OAkZqUBelG6VIYdTJfYSENL5OmZRxMa3GwXn5oFliTg";
/// Of "U*U*", from Openwall's crypt_blowfish.
const BCRYPT: &str = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK";

async fn context(world: &World, tenant: &TenantWorld) -> Cx {
    user_import::begin(&operator_cx(&world.app), tenant.id, true)
        .await
        .unwrap()
}

fn user(name: &str, hash: Option<&str>) -> ImportUser {
    ImportUser {
        email: format!("{name}@moved.example"),
        full_name: name.to_uppercase(),
        role: Role::Member,
        custom_role: None,
        password_hash: hash.map(str::to_owned),
        email_verified: true,
    }
}

async fn hash_of(world: &World, name: &str) -> String {
    sqlx::query_scalar("SELECT password_hash FROM users WHERE email = $1")
        .bind(format!("{name}@moved.example"))
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

#[actix_web::test]
async fn an_imported_hash_logs_in_and_is_replaced_at_the_first_login() {
    let world = World::new().await;
    let cx = context(&world, &world.acme).await;
    for (name, hash, password) in [
        ("bcrypt", BCRYPT, "U*U*"),
        ("pbkdf2", PBKDF2, "correct horse"),
        ("scrypt", SCRYPT, "correct horse"),
    ] {
        let imported = user_import::import(&cx, user(name, Some(hash))).await.unwrap();
        assert_eq!(imported, Imported::Created);
        let email = format!("{name}@moved.example");
        let wrong = world.login("acme", &email, "wrong horse").await;
        wrong.problem(401, "invalid_credentials");
        assert_eq!(hash_of(&world, name).await, hash);
        let login = world.login("acme", &email, password).await.expect(200).json();
        assert_eq!(login["user"]["email_verified"], json!(true));
        let replaced = hash_of(&world, name).await;
        assert!(replaced.starts_with("$argon2id$"), "{replaced}");
        world.login("acme", &email, password).await.expect(200);
        // The other tenant has no such user.
        let elsewhere = world.login("globex", &email, password).await;
        elsewhere.problem(401, "invalid_credentials");
    }
}

#[actix_web::test]
async fn an_import_can_be_repeated_and_sends_no_mail() {
    let world = World::new().await;
    let cx = context(&world, &world.acme).await;
    let jobs = "SELECT count(*) FROM jobs";
    let count = async || -> i64 {
        sqlx::query_scalar(jobs)
            .fetch_one(&mut world.database.admin().await)
            .await
            .unwrap()
    };
    let before = count().await;
    let unverified = ImportUser {
        email_verified: false,
        ..user("ada", None)
    };
    let imported = user_import::import(&cx, unverified).await.unwrap();
    assert_eq!(imported, Imported::Created);
    let hash = hash_of(&world, "ada").await;
    let again = ImportUser {
        email: "ADA@moved.example".into(),
        role: Role::Admin,
        ..user("ada", Some(BCRYPT))
    };
    assert_eq!(user_import::import(&cx, again).await.unwrap(), Imported::Present);
    assert_eq!(
        hash_of(&world, "ada").await,
        hash,
        "the user is left as they were"
    );
    let both = [user("bob", None), user("bob", None)];
    let [one, other] = both.map(|user| user_import::import(&cx, user));
    let (one, other) = tokio::join!(one, other);
    let created = [one.unwrap(), other.unwrap()];
    let created = created.iter().filter(|done| **done == Imported::Created).count();
    assert_eq!(created, 1);
    assert_eq!(count().await, before);
    for password in ["", PASSWORD] {
        let login = world.login("acme", "ada@moved.example", password).await;
        login.problem(401, "invalid_credentials");
    }
    let audit = world.audit(&world.acme).await;
    assert_eq!(audit.iter().filter(|event| event.0 == "user.imported").count(), 2);
    assert!(!format!("{audit:?}").contains("$argon2id"));
}

#[actix_web::test]
async fn a_hostile_import_is_refused_and_names_its_fields() {
    let world = World::new().await;
    let cx = context(&world, &world.acme).await;
    let digest = world.digest(&world.acme).await;
    let salt = "$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg";
    for hash in [
        &format!("$scrypt$ln=30,r=8,p=1{salt}"),
        &format!("$pbkdf2-sha256$i=1000000000{salt}"),
        "$2b$31$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK",
        "plain",
        "",
        "\0",
    ] {
        let wrong = ImportUser {
            email: "no address".into(),
            full_name: " ".into(),
            ..user("x", Some(hash))
        };
        let refused = user_import::import(&cx, wrong).await.unwrap_err();
        let UserError::Invalid(Invalid(errors)) = refused else {
            panic!("{refused}")
        };
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/email", "/full_name", "/password_hash"], "{hash}");
    }
    assert_eq!(world.digest(&world.acme).await, digest);
}

#[actix_web::test]
async fn nothing_is_imported_into_a_suspended_or_deleted_tenant() {
    let world = World::new().await;
    world.set_status(&world.acme, "suspended").await;
    let cx = context(&world, &world.acme).await;
    let refused = user_import::import(&cx, user("ada", None)).await.unwrap_err();
    assert!(matches!(refused, UserError::Refused(_)), "{refused}");
    world.set_status(&world.acme, "deleted").await;
    assert!(
        user_import::begin(&operator_cx(&world.app), world.acme.id, true)
            .await
            .is_err()
    );
}

/// A tenant on the free plan has a limit on users.
#[actix_web::test]
async fn an_import_obeys_the_limit_of_the_plan() {
    let world = World::new().await;
    sqlx::query("UPDATE tenants SET plan = 'free' WHERE id = $1")
        .bind(world.acme.id.uuid())
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    world.outlive_the_cache();
    let cx = context(&world, &world.acme).await;
    let mut created = 0;
    let refused = loop {
        match user_import::import(&cx, user(&format!("user{created}"), None)).await {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
        assert!(created < 1_000);
    };
    assert!(matches!(refused, UserError::NotInPlan(_)), "{refused}");
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE tenant_id = $1")
        .bind(world.acme.id.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(users, created + 3);
}
