//! Mails that callers without an account cause wait for one another, and not in front of those of users and admins.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use chrono::Duration;
use serde_json::json;
use tenantry_domain::kernel::Role;
use tenantry_http::HttpConfig;
use tenantry_tenancy::identity::account_link::AskForLink;
use tenantry_tenancy::identity::user::{self, AddUser};
use tenantry_tenancy::operations::job::{Handlers, JobHandler as _};
use tenantry_tests::{Options, PASSWORD, Reply, TenantWorld, World};

use crate::account_passwords::Mailed;
use crate::jobs::worker;
use crate::mail;

const FORGOT: &str = "/api/v1/auth/forgot-password";

/// A world behind a proxy that names the callers' addresses.
async fn mailed() -> Mailed {
    let options = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..options.http
    };
    Mailed::with(Options { http, ..options }).await
}

async fn forgot(world: &World, tenant: &TenantWorld, email: &str, address: &str) -> Reply {
    let body = json!({"email": email, "tenant_slug": tenant.slug});
    let request = world.client.post(FORGOT, &body);
    request.header("X-Forwarded-For", address).await.expect(202)
}

/// Adds users to acme whose addresses are verified; their addresses.
async fn users(world: &World, number: usize) -> Vec<String> {
    let cx = world.cx(&world.acme.admin).await;
    let mut added = Vec::new();
    for number in 0..number {
        let email = format!("user{number}@acme.example");
        let data = AddUser {
            email: email.clone(),
            full_name: "Grace Hopper".into(),
            role: Role::Member,
            custom_role: None,
            password: Some(PASSWORD.into()),
            is_own_password: true,
        };
        user::create(&cx, data).await.unwrap();
        added.push(email);
    }
    mail::work(world).await;
    world.sql("UPDATE users SET email_verified = true").await;
    added
}

/// Looks at the requests for links, fewer than a worker takes at once, and sends none.
async fn look_at_requests(world: &World) {
    let only = worker(world, Handlers::default().with(AskForLink));
    let ran = only.run_once().await.unwrap();
    assert!(ran.iter().all(|ran| ran.kind == AskForLink::KIND));
}

#[actix_web::test]
async fn flood_of_anonymous_requests_delays_no_mail_of_an_admin() {
    let mailed = mailed().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let flooded = users(world, 40).await;
    let before = mailed.server.received().len();
    let mut answers = Vec::new();
    for (network, email) in flooded.iter().enumerate() {
        let address = format!("203.0.{network}.7");
        answers.push(forgot(world, acme, email, &address).await);
        answers.push(forgot(world, acme, &format!("nobody{network}@acme.example"), &address).await);
    }
    assert!(answers.iter().all(|answer| answer.bytes == answers[0].bytes));
    forgot(world, &world.globex, &world.globex.viewer.email, "203.0.1.7").await;
    look_at_requests(world).await;
    let invitation = json!({"email": "new@invited.example", "role": "member"});
    let invited = world.post(&acme.admin, "/api/v1/invitations", &invitation);
    invited.await.expect(201);
    mail::work(world).await;

    let sent = mailed.server.received().split_off(before);
    let to: Vec<&str> = sent
        .iter()
        .flat_map(|mail| mail.to.iter().map(String::as_str))
        .collect();
    assert_eq!(to.len(), 5 + 2, "{to:?}");
    assert!(
        to.contains(&"new@invited.example"),
        "it waits for five of the flood: {to:?}"
    );
    assert!(
        to.contains(&world.globex.viewer.email.as_str()),
        "another tenant waits for nothing"
    );
    // The others follow in turn, as many as may wait.
    for number in 6..=30 {
        world.clock.advance(Duration::seconds(10));
        mail::work(world).await;
        assert_eq!(mailed.server.received().len() - before, number + 2);
    }
    world.clock.advance(Duration::minutes(1));
    mail::work(world).await;
    assert_eq!(mailed.server.received().len() - before, 30 + 2);
}

#[actix_web::test]
async fn flood_delays_no_user_who_asks_from_a_known_network() {
    let mailed = mailed().await;
    let (world, acme) = (&mailed.world, &mailed.world.acme);
    let body = json!({"tenant_slug": "acme", "email": acme.member.email, "password": PASSWORD});
    let login = world.client.post("/api/v1/auth/login", &body);
    login.header("X-Forwarded-For", "198.51.100.9").await.expect(200);
    for (network, email) in users(world, 40).await.iter().enumerate() {
        forgot(world, acme, email, &format!("203.0.{network}.7")).await;
    }
    look_at_requests(world).await;
    forgot(world, acme, &acme.member.email, "198.51.100.200").await;
    assert_eq!(mailed.mails_to(&acme.member.email).await.len(), 1);
}

#[actix_web::test]
async fn bounded_number_of_requests_for_links_waits() {
    let mailed = mailed().await;
    let world = &mailed.world;
    for number in 0..105 {
        let email = format!("nobody{number}@acme.example");
        forgot(world, &world.acme, &email, &format!("203.0.{number}.7")).await;
    }
    forgot(world, &world.globex, "nobody@globex.example", "203.0.1.7").await;
    let waiting = async |tenant: &TenantWorld| -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM jobs WHERE tenant_id = $1 AND kind = 'account.ask_link'")
            .bind(tenant.id.uuid())
            .fetch_one(&mut world.database.admin().await)
            .await
            .unwrap()
    };
    assert_eq!(
        (waiting(&world.acme).await, waiting(&world.globex).await),
        (100, 1)
    );
}
