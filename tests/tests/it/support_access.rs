//! Operators' access to a tenant: asked for, approved by an admin, used, recorded and ended.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeSet;

use actix_web::http::Method;
use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::operations::{OperatorRole, Rate, TenantRates};
use tenantry_http::OperatorRates;
use tenantry_tests::{Options, Reply, Request, TenantWorld, World};

use crate::account_passwords::Mailed;
use crate::mfa::with_factor;

pub(crate) const ADMIN: &str = "/api/v1/admin/support-access";
pub(crate) const OWN: &str = "/api/v1/support-access";
pub(crate) const SAM: &str = "sam@platform.example";
const REASON: &str = "ticket 4711: tasks are missing";

pub(crate) fn asks(tenant: &TenantWorld, access: &str) -> Value {
    json!({"tenant_id": tenant.id, "reason": REASON, "access": access, "minutes": 30})
}

pub(crate) async fn post(world: &World, token: &str, path: &str, body: Value) -> Reply {
    world.client.post(path, &body).bearer(token).await
}

/// The id of a request of an operator.
pub(crate) async fn ask(world: &World, operator: &str, tenant: &TenantWorld, access: &str) -> String {
    let asked = post(world, operator, ADMIN, asks(tenant, access))
        .await
        .expect(202);
    asked.json()["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn decide(world: &World, tenant: &TenantWorld, id: &str, what: &str) -> Reply {
    let path = format!("{OWN}/{id}/{what}");
    post(world, &tenant.admin.access_token, &path, json!({})).await
}

/// A token with an access that was asked for and approved.
pub(crate) async fn granted(
    world: &World,
    operator: &str,
    tenant: &TenantWorld,
    access: &str,
) -> (String, String) {
    let id = ask(world, operator, tenant, access).await;
    decide(world, tenant, &id, "approve").await.expect(200);
    let token = token(world, operator, &id).await.expect(200).json();
    (id, token["access_token"].as_str().unwrap().to_owned())
}

pub(crate) async fn token(world: &World, operator: &str, id: &str) -> Reply {
    post(world, operator, &format!("{ADMIN}/{id}/token"), json!({})).await
}

pub(crate) fn get(world: &World, token: &str, path: &str) -> Request {
    world.client.get(path).bearer(token)
}

pub(crate) async fn support(world: &World) -> String {
    world.operator_as(SAM, OperatorRole::Support).await
}

/// The entries of an action in a tenant's log.
pub(crate) async fn logged(world: &World, tenant: &TenantWorld, action: &str) -> Vec<Value> {
    let all = world.audit(tenant).await.into_iter();
    all.filter(|(one, _)| one == action).map(|(_, row)| row).collect()
}

async fn recorded(world: &World, action: &str) -> Vec<Value> {
    let all = world.operator_events().await.into_iter();
    all.filter(|(one, _)| one == action).map(|(_, row)| row).collect()
}

#[actix_web::test]
async fn approved_operator_reads_one_tenant_for_its_minutes() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let sam = support(&world).await;
    let id = ask(&world, &sam, acme, "read").await;
    token(&world, &sam, &id).await.problem(409, "conflict");
    let path = format!("{OWN}/{id}");
    let seen = world.get(&acme.admin, &path).await.expect(200).json();
    assert_eq!(
        (&seen["status"], &seen["reason"]),
        (&json!("pending"), &json!(REASON))
    );
    let approved = decide(&world, acme, &id, "approve").await.expect(200).json();
    assert_eq!(approved["status"], "active");
    assert_eq!(approved["decided_by"], json!(acme.admin.id));
    let given = token(&world, &sam, &id).await.expect(200).json();
    let seconds = given["expires_in"].as_i64().unwrap();
    assert!((1_790..=1_800).contains(&seconds), "{seconds}");
    assert_eq!(given["tenant_id"], json!(acme.id));
    let bearer = given["access_token"].as_str().unwrap();

    let tasks = get(&world, bearer, "/api/v1/tasks").await.expect(200);
    assert!(
        tasks.text().contains(&acme.task.to_string()) && !tasks.text().contains(&globex.task.to_string())
    );
    get(&world, bearer, "/api/v1/users").await.expect(200);
    let foreign = format!("/api/v1/tasks/{}", globex.task);
    get(&world, bearer, &foreign).await.problem(404, "not_found");
    get(&world, bearer, "/api/v1/tasks")
        .header("X-Tenant-ID", globex.id.to_string())
        .await
        .problem(403, "tenant_mismatch");
    post(&world, bearer, "/api/v1/projects", json!({"name": "By support"}))
        .await
        .problem(403, "forbidden");
    // It is no token of an operator, nor is that one of a user.
    get(&world, bearer, "/api/v1/admin/tenants")
        .await
        .problem(401, "unauthenticated");
    get(&world, &sam, "/api/v1/tasks")
        .await
        .problem(401, "unauthenticated");

    world.clock.advance(Duration::minutes(30));
    get(&world, bearer, "/api/v1/tasks")
        .await
        .problem(401, "token_revoked");
    for action in [
        "support_access.requested",
        "support_access.approved",
        "support_access.token_issued",
    ] {
        let (own, platform) = (logged(&world, acme, action).await, recorded(&world, action).await);
        assert_eq!((own.len(), platform.len()), (1, 1), "{action}");
        assert_eq!(own[0]["risk"], "high", "{action}");
        assert_eq!(platform[0]["target_tenant"], json!(acme.id), "{action}");
    }
    assert!(
        logged(&world, globex, "support_access.requested")
            .await
            .is_empty()
    );
}

#[actix_web::test]
async fn an_admin_ends_the_access_at_once_on_every_server() {
    let world = World::new().await;
    let other = world.other_instance(&Options::default()).await;
    let sam = support(&world).await;
    let (id, bearer) = granted(&world, &sam, &world.acme, "write").await;
    let elsewhere = || other.get("/api/v1/tasks").bearer(&bearer);
    elsewhere().await.expect(200);
    decide(&world, &world.acme, &id, "end").await.expect(200);
    elsewhere().await.problem(401, "token_revoked");
    get(&world, &bearer, "/api/v1/tasks")
        .await
        .problem(401, "token_revoked");
    token(&world, &sam, &id).await.problem(409, "conflict");
    decide(&world, &world.acme, &id, "approve")
        .await
        .problem(409, "conflict");
}

#[actix_web::test]
async fn only_the_operator_uses_the_access_and_owners_withdraw_it() {
    let world = World::new().await;
    let owner = world.operator("olga@platform.example").await;
    let sam = support(&world).await;
    let (id, _) = granted(&world, &sam, &world.acme, "read").await;
    token(&world, &owner, &id).await.problem(403, "forbidden");
    let withdrawn = post(&world, &owner, &format!("{ADMIN}/{id}/withdraw"), json!({})).await;
    assert_eq!(withdrawn.expect(200).json()["status"], "withdrawn");
}

#[actix_web::test]
async fn the_state_of_the_tenant_counts_for_support_too() {
    let world = World::new().await;
    let sam = support(&world).await;
    let (_, bearer) = granted(&world, &sam, &world.acme, "write").await;
    world.set_status(&world.acme, "suspended").await;
    world.outlive_the_cache();
    get(&world, &bearer, "/api/v1/tasks").await.expect(200);
    post(&world, &bearer, "/api/v1/projects", json!({"name": "By support"}))
        .await
        .problem(403, "tenant_suspended");
    world.set_status(&world.acme, "deleted").await;
    world.outlive_the_cache();
    get(&world, &bearer, "/api/v1/tasks")
        .await
        .problem(410, "tenant_gone");
    post(&world, &sam, ADMIN, asks(&world.acme, "read"))
        .await
        .problem(410, "tenant_gone");
}

#[actix_web::test]
async fn changes_and_reads_are_marked_in_the_log() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let (id, bearer) = granted(&world, &sam, acme, "write").await;
    let made = post(&world, &bearer, "/api/v1/projects", json!({"name": "By support"}))
        .await
        .expect(201)
        .json();
    assert_eq!(
        made["owner_id"],
        json!(acme.admin.id),
        "it belongs to the admin who approved"
    );
    let entry = logged(&world, acme, "project.created").await.pop().unwrap();
    let operator = recorded(&world, "support_access.requested").await[0]["operator_id"].clone();
    assert_eq!(
        (&entry["actor_type"], &entry["actor_id"]),
        (&json!("operator"), &operator)
    );
    assert_eq!(
        (&entry["after"]["support_access_id"], &entry["after"]["name"]),
        (&json!(id), &json!("By support"))
    );
    let path = format!("/api/v1/projects/{}", made["id"].as_str().unwrap());
    world.client.delete(&path).bearer(&bearer).await.expect(204);
    let entry = logged(&world, acme, "project.deleted").await.pop().unwrap();
    assert_eq!(entry["after"]["support_access_id"], json!(id));

    let task = format!("/api/v1/tasks/{}", acme.task);
    for _ in 0..5 {
        get(&world, &bearer, &task).await.expect(200);
    }
    let many = join_all((0..5).map(|_| get(&world, &bearer, "/api/v1/tasks").send())).await;
    assert!(many.iter().all(|reply| reply.status == 200));
    // What was refused is recorded, too.
    get(&world, &bearer, "/api/v1/audit-events")
        .await
        .problem(403, "forbidden");
    let used: Vec<_> = logged(&world, acme, "support_access.used")
        .await
        .into_iter()
        .map(|row| row["after"]["operation"].as_str().unwrap().to_owned())
        .collect();
    let kinds: BTreeSet<_> = used.iter().cloned().collect();
    assert_eq!(used.len(), kinds.len(), "one entry for each: {used:?}");
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [
            "DELETE /api/v1/projects/{id}",
            "GET /api/v1/audit-events",
            "GET /api/v1/tasks",
            "GET /api/v1/tasks/{id}",
            "POST /api/v1/projects",
        ]
    );
    let uses = format!("{OWN}/{id}/uses?limit=2");
    let uses = world.get(&acme.admin, &uses).await.expect(200).json();
    assert_eq!(uses["data"].as_array().unwrap().len(), 2);
    let all = format!("{OWN}/{id}/uses");
    let all = world.get(&acme.admin, &all).await.expect(200).json();
    let one = |operation: &str| {
        let mut uses = all["data"].as_array().unwrap().iter();
        uses.find(|one| one["operation"] == operation).unwrap().clone()
    };
    let read = one("GET /api/v1/tasks/{id}");
    assert_eq!(
        (&read["requests"], &read["entity"]),
        (&json!(5), &json!(acme.task))
    );
    assert_eq!(one("GET /api/v1/tasks")["requests"], 5);
    let listed = world.get(&acme.admin, "/api/v1/audit-events?actor=operator");
    assert!(listed.await.expect(200).text().contains("support_access.used"));
}

#[actix_web::test]
async fn only_admins_of_the_tenant_decide() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let sam = support(&world).await;
    let id = ask(&world, &sam, acme, "write").await;
    let path = |what: &str| format!("{OWN}/{id}{what}");
    for who in [&acme.member, &acme.viewer] {
        world.get(who, OWN).await.problem(403, "forbidden");
        post(&world, &who.access_token, &path("/approve"), json!({}))
            .await
            .problem(403, "forbidden");
    }
    let nobody = path("").replace(&id, &acme.id.to_string());
    let missing = world.get(&globex.admin, &nobody).await.problem(404, "not_found");
    let foreign = world
        .get(&globex.admin, &path(""))
        .await
        .problem(404, "not_found");
    assert_eq!(
        missing.comparable().replace(&acme.id.to_string(), ""),
        foreign.comparable().replace(&id, "")
    );
    for what in ["/approve", "/deny", "/end"] {
        post(&world, &globex.admin.access_token, &path(what), json!({}))
            .await
            .problem(404, "not_found");
    }
    let listed = world.get(&globex.admin, OWN).await.expect(200).json();
    assert_eq!(listed["data"], json!([]));
    assert!(
        recorded(&world, "support_access.approved").await.is_empty(),
        "attempts of others leave nothing in the operators' log"
    );
    // Support approves nothing, not even its own.
    decide(&world, acme, &id, "approve").await.expect(200);
    let bearer = token(&world, &sam, &id).await.json()["access_token"].clone();
    let olga = world.operator("olga@platform.example").await;
    let second = ask(&world, &olga, acme, "write").await;
    post(
        &world,
        bearer.as_str().unwrap(),
        &format!("{OWN}/{second}/approve"),
        json!({}),
    )
    .await
    .problem(403, "forbidden");
    let billing = world
        .operator_as("bill@platform.example", OperatorRole::Billing)
        .await;
    post(&world, &billing, ADMIN, asks(acme, "read"))
        .await
        .problem(403, "forbidden");
    decide(&world, acme, &second, "deny").await.expect(200);
    token(&world, &olga, &second).await.problem(409, "conflict");
}

#[actix_web::test]
async fn approval_needs_a_recent_second_factor() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let id = ask(&world, &sam, acme, "read").await;
    with_factor(&world, &acme.admin).await;
    world.clock.advance(Duration::minutes(11));
    let refused = decide(&world, acme, &id, "approve").await;
    refused.problem(403, "mfa_required");
}

#[actix_web::test]
async fn requests_are_checked_and_lapse_after_a_day() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let with = |field: &str, value: Value| {
        let mut body = asks(acme, "read");
        body[field] = value;
        body
    };
    for (field, value) in [
        ("minutes", json!(0)),
        ("minutes", json!(61)),
        ("minutes", json!(9_007_199_254_740_993_i64)),
        ("minutes", json!(-1)),
        ("minutes", json!("5")),
        ("reason", json!("")),
        ("reason", json!("too\u{0}short for a line")),
        ("reason", json!("x".repeat(501))),
        ("access", json!("admin")),
        ("tenant_id", json!("acme")),
    ] {
        let reply = post(&world, &sam, ADMIN, with(field, value.clone())).await;
        assert!(
            [400, 422].contains(&reply.status),
            "{field} {value}: {}",
            reply.text()
        );
    }
    post(&world, &sam, ADMIN, with("tenant_id", json!(acme.project)))
        .await
        .problem(404, "not_found");
    // Of many at once one is open.
    let many = join_all((0..5).map(|_| post(&world, &sam, ADMIN, asks(acme, "read")))).await;
    let made: Vec<_> = many.iter().filter(|reply| reply.status == 202).collect();
    assert_eq!(made.len(), 1);
    assert!(many.iter().all(|reply| [202, 409].contains(&reply.status)));
    let id = made[0].json()["id"].as_str().unwrap().to_owned();
    world.clock.advance(Duration::hours(24));
    let lapsed = world
        .login("acme", &acme.admin.email, tenantry_tests::PASSWORD)
        .await;
    let admin = lapsed.expect(200).json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    post(&world, &admin, &format!("{OWN}/{id}/approve"), json!({}))
        .await
        .problem(409, "conflict");
    for (status, count) in [("lapsed", 1), ("pending", 0), ("active", 0), ("expired", 0)] {
        let path = format!("{OWN}?status={status}");
        let listed = get(&world, &admin, &path).await.expect(200).json();
        assert_eq!(listed["data"].as_array().unwrap().len(), count, "{status}");
    }
}

#[actix_web::test]
async fn policy_preapproves_reads_and_the_admins_get_a_mail() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let acme = &world.acme;
    world.sql("UPDATE users SET email_verified = true").await;
    let sam = support(world).await;
    let policy = json!({"preapprove_support_read": true});
    let patched = world.patch(&acme.admin, "/api/v1/security/policy", &policy);
    patched.await.expect(200);
    let asked = post(world, &sam, ADMIN, asks(acme, "read"))
        .await
        .expect(202)
        .json();
    assert_eq!(
        (&asked["status"], &asked["preapproved"]),
        (&json!("active"), &json!(true))
    );
    token(world, &sam, asked["id"].as_str().unwrap())
        .await
        .expect(200);
    let mails = mailed.mails_to(&acme.admin.email).await;
    let mail = mails.last().unwrap();
    assert!(
        mail.header("Subject").contains("support has access"),
        "{}",
        mail.header("Subject")
    );
    let text = mail.text();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(REASON) && text.contains("30 minutes"), "{text}");
    decide(world, acme, asked["id"].as_str().unwrap(), "end")
        .await
        .expect(200);
    let write = post(world, &sam, ADMIN, asks(acme, "write"))
        .await
        .expect(202)
        .json();
    assert_eq!(write["status"], "pending", "only reads");
    let mails = mailed.mails_to(&acme.admin.email).await;
    assert!(
        mails
            .last()
            .unwrap()
            .header("Subject")
            .contains("asks for access")
    );
    // The policy of one tenant is nothing to another.
    let elsewhere = post(world, &sam, ADMIN, asks(&world.globex, "read"))
        .await
        .expect(202)
        .json();
    assert_eq!(elsewhere["status"], "pending");
}

/// The accesses that the policy has approved end in the transaction that changes it, and those that an admin has approved go on.
#[actix_web::test]
async fn policy_that_is_switched_off_ends_what_it_approved() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let (acme, globex) = (&world.acme, &world.globex);
    world.sql("UPDATE users SET email_verified = true").await;
    let sam = support(world).await;
    let sue = world
        .operator_as("sue@platform.example", OperatorRole::Support)
        .await;
    let (_, approved) = granted(world, &sue, acme, "read").await;
    let set = async |tenant: &TenantWorld, is_on: bool| {
        let policy = json!({"preapprove_support_read": is_on});
        let patched = world.patch(&tenant.admin, "/api/v1/security/policy", &policy);
        patched.await.expect(200);
    };
    let mut tokens = Vec::new();
    for tenant in [acme, globex] {
        set(tenant, true).await;
        let asked = post(world, &sam, ADMIN, asks(tenant, "read")).await.expect(202);
        let id = asked.json()["id"].as_str().unwrap().to_owned();
        let given = token(world, &sam, &id).await.expect(200).json();
        tokens.push((id, given["access_token"].as_str().unwrap().to_owned()));
    }
    for (_, token) in &tokens {
        get(world, token, "/api/v1/tasks").await.expect(200);
    }
    set(acme, false).await;
    let (id, ended) = &tokens[0];
    get(world, ended, "/api/v1/tasks")
        .await
        .problem(401, "token_revoked");
    token(world, &sam, id).await.problem(409, "conflict");
    let seen = world.get(&acme.admin, &format!("{OWN}/{id}")).await.expect(200);
    assert_eq!(seen.json()["status"], "ended");
    let entries = logged(world, acme, "support_access.ended").await;
    assert_eq!((entries.len(), &entries[0]["target_id"]), (1, &json!(id)));
    assert_eq!(entries[0]["after"]["because"], "policy_changed");
    // Neither the access of an admin's approval nor that of another tenant ends.
    for token in [&approved, &tokens[1].1] {
        get(world, token, "/api/v1/tasks").await.expect(200);
    }
    assert!(logged(world, globex, "support_access.ended").await.is_empty());
    let asked = post(world, &sam, ADMIN, asks(acme, "read")).await.expect(202);
    assert_eq!(asked.json()["status"], "pending");
}

#[actix_web::test]
async fn support_has_a_bucket_of_its_own_and_is_not_billed() {
    let rate = |requests| Rate::new(requests, requests).unwrap();
    let options = Options {
        rates: std::sync::Arc::new(TenantRates {
            tenant: Some(rate(20)),
            user: Some(rate(20)),
        }),
        operator_rates: OperatorRates {
            admin: rate(100),
            support: rate(5),
        },
        ..Options::default()
    };
    let world = World::with(options).await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let (_, bearer) = granted(&world, &sam, acme, "read").await;
    let before = calls(&world);
    for _ in 0..5 {
        let reply = get(&world, &bearer, "/api/v1/tasks").await.expect(200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"support\";q=5;w=60"));
    }
    let refused = get(&world, &bearer, "/api/v1/tasks").await;
    let refused = refused.problem(429, "rate_limited").json();
    assert_eq!(refused["violated-policies"], json!(["support"]));
    assert_eq!(calls(&world), before, "nothing is metered");
    // A tenant that has used up its own does not keep support out.
    world.clock.advance(Duration::seconds(13));
    while world.get(&acme.member, "/api/v1/tasks").await.status == 200 {}
    get(&world, &bearer, "/api/v1/tasks").await.expect(200);
    let reply = get(&world, &sam, ADMIN).await.expect(200);
    assert_eq!(reply.header("ratelimit-policy"), Some("\"operator\";q=100;w=60"));
}

/// How many calls wait to be metered.
fn calls(world: &World) -> usize {
    let spool = &world.app.ports.calls;
    let mut count = 0;
    for batch in spool.batches() {
        spool.read(&batch, &mut |_| count += 1).unwrap();
    }
    count
}

/// Every operation of the document with a token of support: those of the list are allowed, and all others are refused.
#[actix_web::test]
async fn every_operation_is_allowed_or_refused_by_the_list() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let olga = world.operator("olga@platform.example").await;
    let (_, reader) = granted(&world, &sam, acme, "read").await;
    let (_, writer) = granted(&world, &olga, acme, "write").await;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            if !security.iter().any(|way| way.get("bearer").is_some()) || template == "/ofrep/v1/events" {
                continue;
            }
            let path = concrete(template);
            let method: Method = method.to_uppercase().parse().unwrap();
            let send = async |token: &str| {
                let request = world.client.request(method.clone(), &path).bearer(token);
                request.await
            };
            let name = format!("{method} {template}");
            for (token, allowed) in [(&reader, &mut reads), (&writer, &mut writes)] {
                let reply = send(token).await;
                assert_ne!(reply.status, 401, "{name}: {}", reply.text());
                assert!(reply.status < 500, "{name}: {}", reply.text());
                if reply.status != 403 || !reply.text().contains("forbidden") {
                    allowed.push(name.clone());
                }
            }
        }
    }
    let added: Vec<_> = writes.iter().filter(|name| !reads.contains(name)).collect();
    assert!(reads.iter().all(|name| writes.contains(name)));
    insta::assert_snapshot!(
        "support_operations",
        format!(
            "read:\n  {}\nwrite adds:\n  {}\n",
            reads.join("\n  "),
            added
                .iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join("\n  ")
        )
    );
}

/// A path with ids that nothing has.
fn concrete(template: &str) -> String {
    let some = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
    let mut path = template
        .replace("{meter}", "api_calls")
        .replace("{feature}", "api_calls");
    for (name, value) in [
        ("{n}", "1"),
        ("{a}", "1"),
        ("{b}", "1"),
        ("{key}", "shown"),
        ("{name}", "some"),
    ] {
        path = path.replace(name, value);
    }
    path.replace("{id}", some).replace("{user_id}", some)
}

#[actix_web::test]
async fn log_of_operators_is_filtered_by_kind_of_actor() {
    let world = World::new().await;
    let owner = world.operator("olga@platform.example").await;
    let listed = async |actor: &str| {
        let path = format!("/api/v1/admin/audit-events?actor={actor}");
        get(&world, &owner, &path).await
    };
    for kind in ["system", "operator"] {
        let all = listed(kind).await.expect(200).json();
        let all = all["data"].as_array().unwrap();
        assert!(
            !all.is_empty() && all.iter().all(|one| one["actor"]["kind"] == kind),
            "{kind}"
        );
    }
    for actor in ["System", "user", "0198f3a2"] {
        listed(actor).await.problem(422, "validation_failed");
    }
}

#[actix_web::test]
async fn event_stream_ends_with_the_access() {
    let world = World::new().await;
    let sam = support(&world).await;
    let (id, bearer) = granted(&world, &sam, &world.acme, "read").await;
    // What the stream reads is cached by then, so that the end does not come before it.
    let context = json!({"context": {"targetingKey": "someone"}});
    post(&world, &bearer, "/ofrep/v1/evaluate/flags", context)
        .await
        .expect(200);
    let open = get(&world, &bearer, "/ofrep/v1/events").send();
    let end = async {
        let sql = "SELECT count(*) FROM support_access_uses WHERE operation = 'GET /ofrep/v1/events'";
        let mut admin = world.database.admin().await;
        // Its record is the last step before the stream is open.
        while sqlx::query_scalar::<_, i64>(sql)
            .fetch_one(&mut admin)
            .await
            .unwrap()
            == 0
        {
            tokio::task::yield_now().await;
        }
        decide(&world, &world.acme, &id, "end").await.expect(200);
    };
    // The answer is read to its end, which comes although the stream would live for minutes.
    let both = futures_util::future::join(open, end);
    let limit = std::time::Duration::from_secs(20);
    let (stream, ()) = tokio::time::timeout(limit, both).await.expect("the stream ends");
    stream.expect(200);
}
