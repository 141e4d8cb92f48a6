//! Rate limits: what is told, what is refused, and that nobody pays for another.

use std::sync::Arc;

use actix_web::http::Method;
use chrono::Duration;
use serde_json::json;
use tenantry_billing::plans::{PlanBook, PlanRates, Plans, RateOverride};
use tenantry_domain::operations::{Rate, TenantRates};
use tenantry_http::HttpConfig;
use tenantry_tests::{Options, PASSWORD, Person, Reply, World};

const TASKS: &str = "/api/v1/tasks";
const LOGIN: &str = "/api/v1/auth/login";

fn rate(requests: u32) -> Rate {
    Rate::new(requests, requests).unwrap()
}

/// So many requests a minute for a tenant, for a user, and with credentials from an address.
fn limited(tenant: u32, user: u32, address: u32) -> Options {
    Options {
        rates: Arc::new(TenantRates {
            tenant: Some(rate(tenant)),
            user: Some(rate(user)),
        }),
        credential_rate: rate(address),
        ..Options::default()
    }
}

async fn tasks(world: &World, who: &Person) -> Reply {
    world.get(who, TASKS).await
}

/// How many of so many requests one after another are answered.
async fn answered(world: &World, who: &Person, requests: u32) -> u32 {
    let mut answered = 0;
    for _ in 0..requests {
        answered += u32::from(tasks(world, who).await.status == 200);
    }
    answered
}

/// The policies that a refused request would have exceeded.
#[track_caller]
fn violated(reply: Reply) -> Vec<String> {
    let problem = reply.problem(429, "rate_limited").json();
    serde_json::from_value(problem["violated-policies"].clone()).unwrap()
}

#[actix_web::test]
async fn every_answer_says_how_much_may_be_asked_for() {
    let world = World::with(limited(600, 120, 10)).await;
    let acme = &world.acme;
    let policy = "\"tenant\";q=600;w=60, \"user\";q=120;w=60";
    let nobody = "/api/v1/tasks/0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
    let short = json!({"name": ""});
    let project = json!({"name": "A project"});
    let replies = [
        (tasks(&world, &acme.member).await.expect(200), 599, 119),
        (world.get(&acme.member, nobody).await.expect(404), 598, 118),
        (
            world
                .post(&acme.member, "/api/v1/projects", &short)
                .await
                .expect(422),
            596,
            116,
        ),
        (
            world
                .post(&acme.viewer, "/api/v1/projects", &project)
                .await
                .expect(403),
            594,
            118,
        ),
        (
            world
                .post(&acme.member, "/api/v1/projects", &project)
                .await
                .expect(201),
            592,
            114,
        ),
        (
            world
                .client
                .request(Method::HEAD, TASKS)
                .bearer(&acme.member.access_token)
                .await
                .expect(200),
            591,
            113,
        ),
    ];
    for (reply, tenant, user) in replies {
        let standing = format!("\"tenant\";r={tenant};t=1, \"user\";r={user};t=1");
        assert_eq!(reply.header("ratelimit-policy"), Some(policy));
        assert_eq!(reply.header("ratelimit"), Some(standing.as_str()));
        assert_eq!(reply.header("retry-after"), None);
    }
    let login = world.login("acme", &acme.admin.email, PASSWORD).await.expect(200);
    assert_eq!(login.header("ratelimit-policy"), Some("\"address\";q=10;w=60"));
    assert_eq!(login.header("ratelimit"), Some("\"address\";r=8;t=6"));
    // Whoever is nobody is held to nothing, and is told nothing.
    for path in [TASKS, "/health", "/healthz", "/nope"] {
        let reply = world.client.get(path).await;
        assert_eq!(reply.header("ratelimit-policy"), None, "{path}");
        assert_eq!(reply.header("ratelimit"), None, "{path}");
    }
}

#[actix_web::test]
async fn a_refusal_names_the_rule_and_the_time_and_time_heals() {
    let world = World::with(limited(60, 6, 10)).await;
    let member = &world.acme.member;
    assert_eq!(answered(&world, member, 6).await, 6);
    let refused = tasks(&world, member).await.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("10"));
    assert_eq!(
        refused.header("ratelimit"),
        Some("\"tenant\";r=54;t=1, \"user\";r=0;t=10")
    );
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(violated(refused), ["user"]);
    world.clock.advance(Duration::seconds(9));
    assert_eq!(violated(tasks(&world, member).await), ["user"]);
    world.clock.advance(Duration::seconds(1));
    assert_eq!(answered(&world, member, 2).await, 1);
    world.clock.advance(Duration::minutes(10));
    assert_eq!(
        answered(&world, member, 20).await,
        6,
        "a pause saves up a burst and no more"
    );
}

#[actix_web::test]
async fn a_refused_request_takes_nothing_reads_nothing_and_changes_nothing() {
    let world = World::with(limited(20, 5, 10)).await;
    let acme = &world.acme;
    assert_eq!(answered(&world, &acme.member, 4).await, 4);
    let before = (world.digest(acme).await, world.digest(&world.globex).await);
    // One is left: not enough for a write, whose body would not even be valid; a read still goes through.
    for _ in 0..20 {
        let write = world.client.request(Method::POST, "/api/v1/projects");
        let write = write.bearer(&acme.member.access_token).body("nonsense");
        let write = write.header("Content-Type", "application/json").await;
        assert_eq!(
            write.header("ratelimit"),
            Some("\"tenant\";r=16;t=3, \"user\";r=1;t=12")
        );
        assert_eq!(violated(write), ["user"]);
    }
    assert_eq!(answered(&world, &acme.member, 2).await, 1);
    assert_eq!(answered(&world, &acme.viewer, 9).await, 5);
    let after = (world.digest(acme).await, world.digest(&world.globex).await);
    assert_eq!(after, before);
}

/// A long list empties a full bucket and is answered, also where its length is known only when it was read.
#[actix_web::test]
async fn long_usage_without_a_length_takes_a_full_bucket_once() {
    let world = World::with(limited(60, 30, 10)).await;
    let acme = &world.acme;
    let list = format!("[]{}", " ".repeat(40_000));
    let send = |length: &str, value: String| {
        let request = world.client.request(Method::POST, "/api/v1/usage/events");
        let request = request.bearer(&acme.admin.access_token).header(length, value);
        let request = request.header("Content-Type", "application/json");
        request.body(list.clone()).send()
    };
    for (length, value) in [
        ("Transfer-Encoding", "chunked".to_owned()),
        ("Content-Length", list.len().to_string()),
    ] {
        let reply = send(length, value.clone()).await;
        assert_ne!(reply.status, 429, "{length}: {}", reply.text());
        assert_eq!(violated(tasks(&world, &acme.admin).await), ["user"], "{length}");
        world.clock.advance(Duration::minutes(2));
    }
}

#[actix_web::test]
async fn a_noisy_user_leaves_the_others_what_is_theirs() {
    let world = World::with(limited(100, 10, 10)).await;
    let acme = &world.acme;
    assert_eq!(answered(&world, &acme.viewer, 50).await, 10);
    assert_eq!(answered(&world, &acme.member, 20).await, 10);
    assert_eq!(answered(&world, &acme.admin, 20).await, 10);
}

#[actix_web::test]
async fn a_tenant_at_its_limit_does_not_affect_another() {
    let world = World::with(limited(12, 10, 10)).await;
    let (acme, globex) = (&world.acme, &world.globex);
    assert_eq!(answered(&world, &acme.viewer, 15).await, 10);
    assert_eq!(answered(&world, &acme.member, 15).await, 2);
    assert_eq!(violated(tasks(&world, &acme.admin).await), ["tenant"]);
    assert_eq!(violated(tasks(&world, &acme.viewer).await), ["tenant", "user"]);
    // Not even with a request that names it.
    let cross = world.get(&acme.admin, TASKS).header("X-Tenant-Slug", "globex");
    assert_eq!(violated(cross.await), ["tenant"]);
    let reply = tasks(&world, &globex.viewer).await.expect(200);
    assert_eq!(
        reply.header("ratelimit"),
        Some("\"tenant\";r=11;t=5, \"user\";r=9;t=6")
    );
    assert_eq!(answered(&world, &globex.viewer, 15).await, 9);
}

#[actix_web::test]
async fn naming_another_tenant_is_recorded_only_as_often_as_the_limits_allow() {
    let world = World::with(limited(100, 3, 10)).await;
    for attempt in 0..10 {
        let cross = world
            .get(&world.acme.viewer, TASKS)
            .header("X-Tenant-Slug", "globex");
        let reply = cross.await;
        assert_eq!(reply.status, if attempt < 3 { 403 } else { 429 });
    }
    let recorded = world.audit(&world.acme).await;
    let mismatches = recorded.iter().filter(|(action, _)| action == "tenant.mismatch");
    assert_eq!(mismatches.count(), 1);
    world.clock.advance(Duration::hours(1));
    assert_eq!(tenantry_tenancy::audit::refusal::flush(&world.app).await, 1);
    let (_, repeated) = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(repeated["after"]["repeated"]["count"], 3);
}

#[actix_web::test]
async fn what_is_open_to_everybody_is_held_to_a_rate_of_the_address_beside_that_for_credentials() {
    let options = limited(100, 100, 4);
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..options.http
    };
    let visitor_rate = rate(6);
    let world = World::with(Options {
        http,
        visitor_rate,
        ..options
    })
    .await;
    let visit = async |path: &str, tenant: &str, address: &str| {
        let request = world.client.get(path).header("X-Tenant-Slug", tenant);
        request.header("X-Forwarded-For", address).await
    };
    let paths = [
        "/api/v1/branding",
        "/api/v1/branding/theme.css",
        "/api/v1/branding/preview",
    ];
    for (left, path) in (0..6).rev().zip(paths.into_iter().cycle()) {
        let tenant = if left % 2 == 0 { "acme" } else { "globex" };
        let reply = visit(path, tenant, "203.0.113.7").await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"visitor\";q=6;w=60"));
        assert_eq!(
            reply.header("ratelimit"),
            Some(format!("\"visitor\";r={left};t=10").as_str())
        );
    }
    // Whoever is refused is refused for any tenant, there or not, and a tenant's other visitors are let in.
    for tenant in ["acme", "globex", "nobody"] {
        let refused = visit(paths[0], tenant, "203.0.113.7").await;
        assert_eq!(refused.header("retry-after"), Some("10"));
        assert_eq!(violated(refused), ["visitor"]);
    }
    visit(paths[0], "acme", "203.0.113.8").await.expect(200);
    // Somebody at that address can still log in.
    let body = json!({"tenant_slug": "acme", "email": world.acme.admin.email, "password": PASSWORD});
    let login = world
        .client
        .post(LOGIN, &body)
        .header("X-Forwarded-For", "203.0.113.7");
    login.await.expect(200);
    world.clock.advance(Duration::seconds(10));
    visit(paths[0], "acme", "203.0.113.7").await.expect(200);
}

#[actix_web::test]
async fn guessing_uses_up_the_address_whatever_tenant_is_guessed_at() {
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..HttpConfig::default()
    };
    let world = World::with(Options {
        http,
        ..limited(100, 100, 8)
    })
    .await;
    let from = |address: &str, slug: &str, email: &str, password: &str| {
        let body = json!({"tenant_slug": slug, "email": email, "password": password});
        let request = world.client.post(LOGIN, &body);
        request.header("X-Forwarded-For", address).send()
    };
    let (acme, globex) = (&world.acme.admin.email, &world.globex.admin.email);
    for (slug, email) in [
        ("acme", acme.as_str()),
        ("globex", globex.as_str()),
        ("acme", "nobody@acme.example"),
        ("nowhere", "nobody@nowhere.example"),
    ] {
        let reply = from("198.51.100.1", slug, email, "wrong horse").await;
        assert!([401, 404].contains(&reply.status), "{}", reply.text());
    }
    // From here on it makes no difference whether it is right.
    for password in [PASSWORD, "wrong horse"] {
        let refused = from("198.51.100.1", "acme", acme, password).await;
        assert_eq!(refused.header("retry-after"), Some("15"));
        assert_eq!(violated(refused), ["address"]);
    }
    let register =
        json!({"tenant_slug": "acme", "email": "new@acme.example", "full_name": "New", "password": PASSWORD});
    let found =
        json!({"name": "New", "slug": "new", "admin": {"email": "new@new.example", "full_name": "New"}});
    let refresh = json!({"refresh_token": world.acme.admin.refresh_token});
    let accept = json!({"token": "inv_x", "full_name": "New", "password": PASSWORD});
    for (path, body) in [
        ("/api/v1/auth/register", register),
        ("/api/v1/tenants", found),
        ("/api/v1/auth/refresh", refresh),
        ("/api/v1/invitations/accept", accept),
    ] {
        let request = world.client.post(path, &body);
        let refused = request.header("X-Forwarded-For", "198.51.100.1").await;
        assert_eq!(violated(refused), ["address"], "{path}");
    }
    from("198.51.100.2", "acme", acme, PASSWORD).await.expect(200);
    // Whoever is logged in goes on.
    tasks(&world, &world.acme.admin).await.expect(200);
    world.clock.advance(Duration::seconds(15));
    from("198.51.100.1", "acme", acme, PASSWORD).await.expect(200);
}

#[actix_web::test]
async fn a_caller_cannot_choose_the_address_they_are_held_to() {
    let world = World::with(limited(100, 100, 4)).await;
    let attempt = |claims: &[&str]| {
        let body = json!({"tenant_slug": "acme", "email": "a@acme.example", "password": "wrong horse"});
        let request = world.client.post(LOGIN, &body);
        let claimed = claims
            .iter()
            .fold(request, |request, claim| request.header("X-Forwarded-For", claim));
        claimed.header("Forwarded", "for=192.0.2.60").send()
    };
    attempt(&["192.0.2.1"]).await.expect(401);
    attempt(&["192.0.2.2", "192.0.2.3"]).await.expect(401);
    assert_eq!(violated(attempt(&["192.0.2.4"]).await), ["address"]);

    let http = HttpConfig {
        trust_forwarded_for: true,
        ..HttpConfig::default()
    };
    let world = World::with(Options {
        http,
        ..limited(100, 100, 4)
    })
    .await;
    let attempt = |claim: &str| {
        let body = json!({"tenant_slug": "acme", "email": "a@acme.example", "password": "wrong horse"});
        let request = world.client.post(LOGIN, &body);
        request.header("X-Forwarded-For", claim).send()
    };
    // Behind a proxy its own entry counts, which is the last; one network of IPv6 is one caller.
    attempt("192.0.2.1, 2001:db8:1:2::1").await.expect(401);
    attempt("192.0.2.2, 2001:db8:1:2:ffff::9").await.expect(401);
    assert_eq!(
        violated(attempt("192.0.2.3, 2001:db8:1:2:3:4:5:6").await),
        ["address"]
    );
    // What is no address is none, which is one caller for all such claims together; one with a port is an address.
    attempt("192.0.2.4, 198.51.100.7:80").await.expect(401);
    let hostile = ["rl:{x}:t", "1.2.3.4 5", "{}", "fe80::1%eth0", "*", "1.2.3.4:x"];
    let mut refused = 0;
    for claim in hostile {
        refused += usize::from(attempt(claim).await.status == 429);
    }
    assert_eq!(refused, hostile.len() - 2);
}

#[actix_web::test]
async fn a_suspended_tenant_is_held_to_its_limits_like_any_other() {
    let world = World::with(limited(100, 5, 10)).await;
    world.set_status(&world.acme, "suspended").await;
    let project = json!({"name": "A project"});
    let write = world.post(&world.acme.member, "/api/v1/projects", &project);
    let refused = write.await.problem(403, "tenant_suspended");
    assert_eq!(
        refused.header("ratelimit"),
        Some("\"tenant\";r=98;t=1, \"user\";r=3;t=12")
    );
    assert_eq!(answered(&world, &world.acme.member, 5).await, 3);
    let write = world.post(&world.acme.member, "/api/v1/projects", &project);
    assert_eq!(violated(write.await), ["user"]);
}

#[actix_web::test]
async fn rates_are_those_of_the_plan_and_what_was_agreed_with_the_tenant() {
    let agreed = RateOverride {
        requests_per_minute: Some(900),
        user_requests_burst: Some(10),
        ..RateOverride::default()
    };
    let agreed = [("globex".to_owned(), agreed)].into();
    let rates = PlanRates::new(Arc::new(PlanBook::new(Plans::standard()).unwrap()), agreed, 1).unwrap();
    let world = World::with(Options {
        rates: Arc::new(rates),
        ..Options::default()
    })
    .await;
    let policy = async |who| {
        let reply = tasks(&world, who).await.expect(200);
        reply.header("ratelimit-policy").unwrap().to_owned()
    };
    assert_eq!(
        policy(&world.acme.viewer).await,
        "\"tenant\";q=600;w=60, \"user\";q=120;w=60"
    );
    assert_eq!(
        policy(&world.globex.viewer).await,
        "\"tenant\";q=900;w=60, \"user\";q=120;w=60;tenantry-burst=10"
    );
    assert_eq!(answered(&world, &world.globex.viewer, 30).await, 9);
}
