//! New passwords are compared with a list of breached ones, where the server names one.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use serde_json::{Value, json};
use tenantry_domain::operations::OperatorRole;
use tenantry_tenancy::admin::operator::{self, NewOperator};
use tenantry_tenancy::identity::new_password::UncheckedPasswords;
use tenantry_tests::{Options, PASSWORD, Request, World, operator_cx};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::account_passwords::Mailed;

/// A password that the list has, which the other rules accept. Its SHA-1 begins with A41B2.
const BREACHED: &str = "plausible lamp 94 gravel";
const REST: &str = "B72944AEC0017385A69A5CF98FDEE81E7BE";
const OTHER: &str = "plausible lamp 95 gravel";

/// A list that has one password.
async fn list() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "the request is cut off");
                request.extend_from_slice(&buffer[..read]);
            }
            let has_it = request.starts_with(b"GET /range/A41B2 ");
            let body = if has_it {
                format!("{REST}:7\r\n")
            } else {
                String::new()
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

fn with_list(url: String) -> Options {
    Options {
        breached_passwords: Some(url),
        ..Options::default()
    }
}

fn register(world: &World, name: &str, password: &str) -> Request {
    let email = format!("{name}@acme.example");
    let body = json!({"email": email, "full_name": name, "password": password, "tenant_slug": "acme"});
    world.client.post("/api/v1/auth/register", &body)
}

async fn refused(request: Request, pointer: &str) {
    let errors = request.await.problem(422, "validation_failed").json()["errors"].clone();
    let error = &errors[0];
    assert_eq!(
        (&error["pointer"], &error["code"]),
        (&json!(pointer), &json!("weak_password"))
    );
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("breach"), "{detail}");
}

/// Each request that chooses a password, with the place of the password in it.
async fn choices(mailed: &Mailed, password: &str) -> Vec<(Request, &'static str)> {
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let reset = mailed.forgotten(acme, &acme.viewer).await;
    let invited = format!("invited{}@acme.example", password.len());
    let invitation = json!({"email": invited, "role": "member"});
    let invitation = world.post(&acme.admin, "/api/v1/invitations", &invitation).await;
    invitation.expect(201);
    let invitation = mailed.token_for(&invited).await;
    let anonymous = |path: &str, body: Value| world.client.post(path, &body);
    let admin = json!({"email": "lin@new.example", "full_name": "Lin", "password": password});
    vec![
        (register(world, "reg", password), "/password"),
        (
            anonymous("/api/v1/tenants", json!({"name": "New", "slug": "new", "admin": admin})),
            "/admin/password",
        ),
        (
            world.post(
                &acme.admin,
                "/api/v1/users",
                &json!({"email": "kim@acme.example", "full_name": "Kim", "role": "member", "password": password}),
            ),
            "/password",
        ),
        (
            world.post(
                &acme.member,
                "/api/v1/auth/change-password",
                &json!({"current_password": PASSWORD, "new_password": password}),
            ),
            "/new_password",
        ),
        (
            anonymous(
                "/api/v1/auth/reset-password",
                json!({"token": reset, "new_password": password}),
            ),
            "/new_password",
        ),
        (
            anonymous(
                "/api/v1/invitations/accept",
                json!({"token": invitation, "full_name": "Ira", "password": password}),
            ),
            "/password",
        ),
    ]
}

/// The list refuses its password wherever one is chosen, and no other; what was refused leaves no row.
#[actix_web::test]
async fn breached_password_is_refused_wherever_one_is_chosen() {
    let mailed = Mailed::with(with_list(list().await)).await;
    let world = &mailed.world;
    let choices_of_breached = choices(&mailed, BREACHED).await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for (request, pointer) in choices_of_breached {
        refused(request, pointer).await;
    }
    let new = |password: &str| NewOperator {
        email: "olga@example.com".into(),
        full_name: "Olga".into(),
        role: OperatorRole::Owner,
        password: Some(password.to_owned()),
        is_own_password: true,
    };
    let by_operator = operator::create(&operator_cx(&world.app), new(BREACHED)).await;
    let error = format!("{:?}", by_operator.unwrap_err());
    assert!(error.contains("weak_password"), "{error}");
    let after = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    assert_eq!(before, after);
    // A password that is there goes on to work: it is compared when it is chosen.
    world
        .login("acme", &world.acme.viewer.email, PASSWORD)
        .await
        .expect(200);
    register(world, "other", OTHER).await.expect(201);
    operator::create(&operator_cx(&world.app), new(OTHER))
        .await
        .unwrap();
    assert_eq!(world.app.state::<UncheckedPasswords>().total(), 0);
}

/// Otherwise nobody could replace a stolen password while the list is away. The metric says how many were not compared.
#[actix_web::test]
async fn list_that_is_away_refuses_no_password() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let world = World::with(with_list(url)).await;
    register(&world, "first", BREACHED).await.expect(201);
    register(&world, "second", OTHER).await.expect(201);
    assert_eq!(world.app.state::<UncheckedPasswords>().total(), 2);
    // The other rules hold.
    register(&world, "third", "acme is my company")
        .await
        .problem(422, "validation_failed");
    assert_eq!(world.app.state::<UncheckedPasswords>().total(), 2);
}
