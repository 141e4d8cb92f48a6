//! The stream of audit entries against content that a receiver rejects: it holds its own log, and no other.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::Duration as Span;
use serde_json::{Value, json};
use tenantry::{AuditStream, AuditStreamKind};
use tenantry_domain::audit::{StreamFrom, StreamRecord};
use tenantry_domain::kernel::{SystemScope, TenantId};
use tenantry_domain::operations::OperatorRole;
use tenantry_tenancy::admin::operator_stream;
use tenantry_tenancy::audit::stream;
use tenantry_tenancy::tenant::row_work;
use tenantry_tenancy::{Cx, Tenancy};
use tenantry_tests::{
    Authority, HttpSiem, Options, PASSWORD, Receipt, Rejection, SyslogEnd, SyslogSiem, World,
};

use crate::audit::chain_in;

const BECAUSE: SystemScope = SystemScope::because("a test of the stream");

/// Part of what firewalls of applications look for.
const POISON: &str = "${jndi:ldap://x}";

/// A world that streams from now on, which is from the beginning of tenants' logs, since nothing of them is chained yet.
async fn streaming() -> (World, HttpSiem) {
    let siem = HttpSiem::default();
    let world = World::with(Options {
        audit_stream: AuditStream {
            kind: AuditStreamKind::Http,
            url: siem.url("http"),
            from: StreamFrom::Now,
            timeout_ms: 2_000,
            ..AuditStream::default()
        },
        ..Options::default()
    })
    .await;
    // The stream of the operators' log begins.
    operator_stream::stream_due(&world.app).await;
    (world, siem)
}

/// A round after the other, as `stream_audit` does, until nothing more can be sent at once.
async fn drain(app: &Arc<Tenancy>) {
    while operator_stream::stream_due(app).await | stream::stream_due(app).await {}
}

/// Signs a tenant up. Returns its id and the token of its admin.
async fn sign_up(world: &World, slug: &str) -> (TenantId, String) {
    let body = json!({"name": "New", "slug": slug,
        "admin": {"email": format!("a@{slug}.example"), "full_name": "A", "password": PASSWORD}});
    let reply = world.client.post("/api/v1/tenants", &body).await.expect(201);
    let body = reply.json();
    let text = |pointer: &str| body.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    (
        text("/tenant/id").parse().unwrap(),
        text("/credentials/access_token"),
    )
}

/// Makes two entries and leaves nothing, so that no limit of a plan is reached.
async fn create(world: &World, token: &str, name: &str) {
    let created = world.client.post("/api/v1/projects", &json!({"name": name}));
    let created = created.bearer(token).await.expect(201);
    let deleted = world.client.delete(created.header("location").unwrap());
    deleted.bearer(token).await.expect(204);
}

async fn cx(world: &World, tenant: TenantId) -> Cx {
    Cx::enter(&world.app, BECAUSE, tenant).await.unwrap().unwrap()
}

/// Chains the log of a tenant. Returns the number of its last entry.
async fn chain(world: &World, tenant: TenantId) -> i64 {
    let cx = cx(world, tenant).await;
    chain_in(&cx).await;
    let tail = cx.read(async |work| work.audit_chain().tail().await);
    tail.await.unwrap().sequence
}

/// The numbers of a tenant's records of this kind in the order of their arrival.
fn sequences(taken: &[Value], kind: &str, tenant: TenantId) -> Vec<i64> {
    let of_tenant = taken
        .iter()
        .filter(|one| one["kind"] == kind && one["tenant_id"] == json!(tenant));
    of_tenant.map(|one| one["sequence"].as_i64().unwrap()).collect()
}

fn of_operators(taken: &[Value]) -> usize {
    taken.iter().filter(|one| one["kind"] == "operator_event").count()
}

/// What the ids of a tenant's records begin with.
fn of_tenant(tenant: TenantId) -> String {
    format!("\"id\":\"{tenant}:")
}

fn is_paused(world: &World) -> bool {
    world.app.audit_stream().is_paused(world.app.ports.clock.now())
}

/// Two poisoned logs have the lowest ids, so they take both places at once. Another tenant's log and the log of operators arrive, however the
/// receiver rejects the others.
#[actix_web::test]
async fn poisoned_logs_hold_no_other_log() {
    let (world, siem) = streaming().await;
    let poisoned = [world.acme.id, world.globex.id];
    let (third, token) = sign_up(&world, "initech").await;
    let tokens = [
        &world.acme.admin.access_token,
        &world.globex.admin.access_token,
        &token,
    ];
    let rejections = [
        Rejection::Status(403, ""),
        Rejection::Status(500, ""),
        Rejection::Close,
        Rejection::Silence(Duration::from_millis(2_500)),
    ];
    for (number, rejection) in rejections.into_iter().enumerate() {
        siem.then([Receipt::Reject(poisoned.map(of_tenant).into(), rejection)]);
        for token in tokens {
            create(&world, token, &format!("Project {number}")).await;
        }
        let operator = format!("olga-{number}@platform.example");
        world.operator_as(&operator, OperatorRole::Owner).await;
        let mut ends = Vec::new();
        for tenant in [poisoned[0], poisoned[1], third] {
            ends.push(chain(&world, tenant).await);
        }
        let before = siem.taken();
        drain(&world.app).await;
        // What fails while the third log is acknowledged is in doubt until the next one is.
        create(&world, &token, &format!("Another {number}")).await;
        ends[2] = chain(&world, third).await;
        drain(&world.app).await;
        let taken = siem.taken();
        let of_third = sequences(&taken, "audit_event", third);
        assert_eq!(of_third, (1..=ends[2]).collect::<Vec<_>>(), "{rejection:?}");
        assert!(of_operators(&taken) > of_operators(&before), "{rejection:?}");
        for tenant in poisoned {
            let kept = sequences(&before, "audit_event", tenant);
            assert_eq!(sequences(&taken, "audit_event", tenant), kept, "{rejection:?}");
        }
        let now = world.app.ports.clock.now();
        assert_eq!(world.app.audit_stream().held_tenants(now), 2, "{rejection:?}");
        assert!(!is_paused(&world), "{rejection:?}");
        // The receiver takes everything again.
        siem.then([]);
        world.clock.advance(Span::seconds(61));
        drain(&world.app).await;
        for (tenant, end) in poisoned.into_iter().zip(ends) {
            let whole: Vec<i64> = (1..=end).collect();
            assert_eq!(
                sequences(&siem.taken(), "audit_event", tenant),
                whole,
                "{rejection:?}"
            );
        }
        assert_eq!(world.app.audit_stream().held_tenants(now), 0);
    }
}

/// More poisoned logs than are tried in a row make everything pause. The next round begins behind them.
#[actix_web::test]
async fn round_after_a_pause_begins_behind_the_failed_tenants() {
    let (world, siem) = streaming().await;
    let mut tenants = vec![world.acme.id, world.globex.id];
    for slug in ["first", "second", "third", "fourth"] {
        tenants.push(sign_up(&world, slug).await.0);
    }
    // The order of a round.
    tenants.sort_unstable();
    let healthy = tenants[5];
    let rejected = tenants[..5].iter().copied().map(of_tenant).collect();
    siem.then([Receipt::Reject(rejected, Rejection::Status(403, ""))]);
    let mut end = 0;
    for tenant in tenants {
        end = chain(&world, tenant).await;
    }
    drain(&world.app).await;
    assert!(is_paused(&world));
    assert!(sequences(&siem.taken(), "audit_event", healthy).is_empty());
    world.clock.advance(Span::seconds(2));
    drain(&world.app).await;
    assert_eq!(
        sequences(&siem.taken(), "audit_event", healthy),
        (1..=end).collect::<Vec<_>>()
    );
    assert!(!is_paused(&world));
}

/// An anonymous caller writes a text into a tenant's log, and another one into the log of operators, that the receiver refuses. Both logs go on,
/// with a record that says which entry was refused.
#[actix_web::test]
async fn refused_record_is_replaced_and_its_log_goes_on() {
    let (world, siem) = streaming().await;
    let guess = json!({"tenant_slug": "acme", "email": world.acme.admin.email, "password": "wrong"});
    let guess = world.client.post("/api/v1/auth/login", &guess);
    guess.header("User-Agent", POISON).await.expect(401);
    let guess = json!({"email": "poison@x.example", "password": "wrong"});
    world.client.post("/api/v1/admin/login", &guess).await.expect(401);
    create(&world, &world.acme.admin.access_token, "Behind it").await;
    world
        .operator_as("olga@platform.example", OperatorRole::Owner)
        .await;
    let end = chain(&world, world.acme.id).await;
    let texts = [POISON, "poison@x.example"].map(str::to_owned).into();
    siem.then([Receipt::Reject(texts, Rejection::Status(400, ""))]);
    for _ in 0..40 {
        drain(&world.app).await;
        world.clock.advance(Span::minutes(16));
    }
    let taken = siem.taken();
    let sent = sequences(&taken, "audit_event", world.acme.id);
    let replaced = sequences(&taken, "audit_refused", world.acme.id);
    assert_eq!(replaced.len(), 1, "{replaced:?}");
    let all: BTreeSet<i64> = sent.iter().chain(&replaced).copied().collect();
    assert_eq!(all, (1..=end).collect(), "nothing else is missing");
    let entry = taken
        .iter()
        .find(|one| one["kind"] == "audit_refused" && one["refused_kind"] == "audit_event")
        .unwrap();
    let id = format!("{}:{}:", world.acme.id, replaced[0]);
    assert!(entry["refused_id"].as_str().unwrap().starts_with(&id), "{entry}");
    assert_eq!(entry["hash"].as_str().map(str::len), Some(64));
    let of_operators: Vec<&Value> = taken
        .iter()
        .filter(|one| one["refused_kind"] == "operator_event")
        .collect();
    assert_eq!(of_operators.len(), 1, "{of_operators:?}");
    assert!(taken.iter().any(|one| one["action"] == "operator.created"));
    // A replaced record says nothing of the text, so the receiver has taken it.
    assert_eq!(world.sql("SELECT FROM operator_event_outbox").await, 0);
}

/// A tenant's admin makes entries that are longer than receivers of syslog accept.
#[actix_web::test]
async fn longest_entries_are_bounded_lines() {
    let (world, siem) = streaming().await;
    let admin = &world.acme.admin;
    let link = json!({"label": "é".repeat(40), "url": format!("https://x.example/{}", "a".repeat(1_970))});
    for times in [20, 19] {
        let navigation = json!({"appearance.navigation": vec![link.clone(); times]});
        let patch = world.patch(admin, "/api/v1/tenant/settings", &navigation);
        patch.await.expect(200);
    }
    let look =
        json!({"display_name": "é".repeat(80), "logo_url": format!("https://x.example/{}", "a".repeat(400))});
    world.patch(admin, "/api/v1/branding", &look).await.expect(200);
    let path = format!("/api/v1/projects/{}", world.acme.project);
    for text in ["\u{1F600}", "\""] {
        let description = json!({"description": text.repeat(10_000)});
        world.patch(admin, &path, &description).await.expect(200);
    }
    let end = chain(&world, world.acme.id).await;
    drain(&world.app).await;
    let taken = siem.taken();
    let sent = sequences(&taken, "audit_event", world.acme.id);
    assert_eq!(sent, (1..=end).collect::<Vec<_>>());
    let longest = taken.iter().map(|one| one.to_string().len()).max().unwrap();
    assert!(longest <= StreamRecord::MOST_BYTES, "{longest}");
    let is_cut = |one: &Value| one["after"] == json!({"cut": true});
    assert!(taken.iter().any(is_cut), "longer entries were made");
}

/// A receiver of syslog has no other answer than to close the connection.
#[actix_web::test]
async fn syslog_receiver_that_closes_on_one_log_gets_the_others() {
    let authority = Arc::new(Authority::make());
    let siem = SyslogSiem::start(Arc::clone(&authority), SyslogEnd::Notify);
    let world = World::with(Options {
        audit_stream: AuditStream {
            kind: AuditStreamKind::Syslog,
            address: siem.address(),
            ca_file: Some(authority.certificate()),
            from: StreamFrom::Now,
            timeout_ms: 2_000,
            ..AuditStream::default()
        },
        ..Options::default()
    })
    .await;
    let (acme, globex) = (world.acme.id, world.globex.id);
    siem.then([Receipt::Reject(vec![of_tenant(acme)], Rejection::Close)]);
    chain(&world, acme).await;
    chain(&world, globex).await;
    drain(&world.app).await;
    // What fails while the other log is acknowledged is in doubt until the next one is.
    create(&world, &world.globex.admin.access_token, "Another").await;
    let end = chain(&world, globex).await;
    drain(&world.app).await;
    let records = |messages: Vec<String>| -> Vec<Value> {
        let json = messages
            .iter()
            .map(|message| message.splitn(8, ' ').last().unwrap());
        json.map(|json| serde_json::from_str(json).unwrap()).collect()
    };
    let taken = records(siem.messages());
    let whole: Vec<i64> = (1..=end).collect();
    assert_eq!(sequences(&taken, "audit_event", globex), whole);
    assert!(sequences(&taken, "audit_event", acme).is_empty());
    let now = world.app.ports.clock.now();
    assert_eq!(world.app.audit_stream().held_tenants(now), 1);
    // In smaller batches, since the size may have been the reason.
    siem.then([]);
    world.clock.advance(Span::seconds(6));
    let before = siem.messages().len();
    stream::stream_due(&world.app).await;
    let first = siem.messages().len() - before;
    drain(&world.app).await;
    assert!(first < siem.messages().len() - before, "{first}");
}

/// The log of a deleted tenant is not streamed. The log of operators says who has deleted the tenant.
#[actix_web::test]
async fn deletion_by_an_admin_is_in_the_log_of_operators() {
    let (world, siem) = streaming().await;
    let admin = &world.acme.admin;
    let delete = world.delete(admin, "/api/v1/tenant");
    delete.json(&json!({"confirm_slug": "acme"})).await.expect(202);
    let settled = row_work::settle(&world.app, world.acme.id, None, &|_| {}).await;
    settled.unwrap();
    drain(&world.app).await;
    let taken = siem.taken();
    let deleted = taken.iter().find(|one| one["action"] == "tenant.rows_deleted");
    let deleted = deleted.unwrap();
    assert_eq!(
        (&deleted["kind"], &deleted["tenant_id"], &deleted["risk"]),
        (&json!("operator_event"), &json!(world.acme.id), &json!("high"))
    );
    let expected = json!({"kind": "user", "id": admin.id, "reason": "an admin of the tenant deleted it"});
    assert_eq!(deleted["details"]["deleted_by"], expected);
}
