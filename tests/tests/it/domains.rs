//! Custom domains: claims, proofs by DNS, resolution, release.
#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use chrono::Duration;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::kernel::{Clock as _, SystemScope};
use tenantry_tenancy::operations::job::{JobHandler, Nothing};
use tenantry_tenancy::tenant::custom_domain::{CheckDomains, KeepDomains};
use tenantry_tenancy::tenant::domain_ask;
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{
    DnsAnswer, DnsRecord, DnsServer, EDGE, Options, PASSWORD, Person, Reply, TenantWorld, World,
};

const DOMAINS: &str = "/api/v1/tenant/domains";
const LOGIN: &str = "/api/v1/auth/login";
const HOST: &str = "portal.acme-corp.com";

/// A world that asks a name server.
async fn world() -> (World, DnsServer) {
    let dns = DnsServer::start();
    let options = Options {
        dns: Some(dns.address()),
        ..Options::default()
    };
    (World::with(options).await, dns)
}

async fn claim(world: &World, who: &Person, domain: &str) -> Value {
    let claimed = world.post(who, DOMAINS, &json!({"domain": domain})).await;
    claimed.expect(201).json()
}

/// Checks a domain after the pause.
async fn verify(world: &World, who: &Person, domain: &Value) -> Reply {
    world.clock.advance(Duration::seconds(10));
    let path = format!("{DOMAINS}/{}/verify", domain["id"].as_str().unwrap());
    world.post(who, &path, &json!(null)).body("").await
}

async fn state(world: &World, who: &Person, domain: &Value) -> String {
    let checked = verify(world, who, domain).await.expect(200).json();
    checked["state"].as_str().unwrap().to_owned()
}

/// Sets the records that a claim asks for.
fn set_records(dns: &DnsServer, domain: &Value) {
    prove(dns, domain);
    dns.set_alias(domain["domain"].as_str().unwrap(), EDGE);
}

fn prove(dns: &DnsServer, domain: &Value) {
    let txt = &domain["records"][0];
    dns.set_txt(
        txt["name"].as_str().unwrap(),
        &["v=spf1 -all", txt["value"].as_str().unwrap()],
    );
}

/// An active domain of acme.
async fn active(world: &World, dns: &DnsServer) -> Value {
    let domain = claim(world, &world.acme.admin, HOST).await;
    set_records(dns, &domain);
    assert_eq!(state(world, &world.acme.admin, &domain).await, "active");
    domain
}

/// A login at a host.
async fn login(world: &World, who: &Person, host: &str) -> Reply {
    let body = json!({"email": who.email, "password": PASSWORD});
    world.client.post(LOGIN, &body).header("Host", host).await
}

/// Runs a job of the system in a tenant.
pub async fn run<H: JobHandler<Payload = Nothing>>(world: &World, tenant: &TenantWorld, handler: H) {
    let because = SystemScope::because("a test in the worker's place");
    let scope = world.app.ports.gate.system(because, tenant.id).await.unwrap();
    let cx = Cx::new(world.app.clone(), scope, Origin::default());
    handler.run(&cx, Nothing {}).await.unwrap();
}

/// The states of a tenant's domains, newest first.
async fn states(world: &World, tenant: &TenantWorld) -> Vec<String> {
    let sql = "SELECT state FROM tenant_domains WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC";
    let states = sqlx::query_scalar(sql).bind(tenant.id.uuid());
    states.fetch_all(&mut world.database.admin().await).await.unwrap()
}

/// The admin of a tenant, logged in again: the access tokens of the world expire while its clock is moved.
async fn admin(world: &World, tenant: &TenantWorld) -> Person {
    let login = world
        .login(tenant.slug, &tenant.admin.email, PASSWORD)
        .await
        .expect(200);
    Person {
        access_token: login.json()["access_token"].as_str().unwrap().to_owned(),
        ..tenant.admin.clone()
    }
}

/// Whether a proxy may get a certificate for a host.
pub async fn is_served(world: &World, host: &str) -> bool {
    domain_ask::is_served(&world.app, host).await.unwrap()
}

#[actix_web::test]
async fn domain_is_claimed_proven_and_served() {
    let (world, dns) = world().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let domain = claim(&world, &acme.admin, "Portal.ACME-corp.com.").await;
    assert_eq!(
        (&domain["domain"], &domain["state"]),
        (&json!(HOST), &json!("pending"))
    );
    let [txt, cname] = [0, 1].map(|at| domain["records"][at].clone());
    assert_eq!(txt["name"], format!("_tenantry-verify.{HOST}"));
    assert_eq!(cname, json!({"type": "CNAME", "name": HOST, "value": EDGE}));
    let token = txt["value"]
        .as_str()
        .unwrap()
        .strip_prefix("tenant-verification=")
        .unwrap();
    assert_eq!(token.len(), 43);

    let checked = verify(&world, &acme.admin, &domain).await.expect(200).json();
    assert_eq!(checked["state"], "pending");
    assert_eq!(checked["last_check"]["result"], "not_found");
    let path = format!("{DOMAINS}/{}/verify", domain["id"].as_str().unwrap());
    let again = world.post(&acme.admin, &path, &json!(null)).body("").await;
    let again = again.problem(429, "rate_limited");
    assert_eq!(again.header("retry-after"), Some("10"));

    dns.set_txt(
        txt["name"].as_str().unwrap(),
        &["v=spf1 -all", "tenant-verification=x"],
    );
    let checked = verify(&world, &acme.admin, &domain).await.expect(200).json();
    assert_eq!(checked["last_check"]["result"], "other_value");
    prove(&dns, &domain);
    assert_eq!(state(&world, &acme.admin, &domain).await, "verified");
    login(&world, &acme.viewer, HOST)
        .await
        .problem(400, "tenant_required");
    assert!(!is_served(&world, HOST).await);

    // A chain of aliases that ends at the edge.
    dns.set_alias(HOST, "alias.cdn-corp.com");
    dns.set_alias("alias.cdn-corp.com", EDGE);
    dns.set(
        EDGE,
        DnsAnswer::Records(vec![DnsRecord::Address("192.0.2.7".parse().unwrap())]),
    );
    assert_eq!(state(&world, &acme.admin, &domain).await, "active");
    for host in [HOST, "PORTAL.acme-corp.com:8443", "portal.acme-corp.com."] {
        let reply = login(&world, &acme.viewer, host).await.expect(200);
        assert_eq!(reply.json()["tenant"]["slug"], "acme", "{host}");
        assert_eq!(
            reply.header("tenant-resolved-by"),
            Some("custom_domain"),
            "{host}"
        );
    }
    login(&world, &globex.viewer, HOST)
        .await
        .problem(401, "invalid_credentials");
    assert!(is_served(&world, HOST).await);

    let actions: Vec<String> = world
        .audit(acme)
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    for action in ["domain.created", "domain.verified", "domain.activated"] {
        assert!(actions.iter().any(|found| found == action), "{action}");
    }
    let path = format!("{DOMAINS}/{}", domain["id"].as_str().unwrap());
    world.delete(&acme.admin, &path).await.expect(204);
    login(&world, &acme.viewer, HOST)
        .await
        .problem(400, "tenant_required");
    assert!(!is_served(&world, HOST).await);
    world.get(&acme.admin, &path).await.problem(404, "not_found");
}

#[actix_web::test]
async fn host_and_credential_of_two_tenants_are_refused() {
    let (world, dns) = world().await;
    active(&world, &dns).await;
    let tenant = "/api/v1/tenant";
    let with = |who: &Person, host: &str| world.get(who, tenant).header("Host", host);
    with(&world.acme.admin, HOST).await.expect(200);
    with(&world.globex.admin, HOST)
        .await
        .problem(403, "tenant_mismatch");
    let entry = world.audit(&world.globex).await.pop().unwrap();
    assert_eq!(entry.1["after"]["domain"], HOST, "{entry:?}");
    // Names that are nobody's count for nothing, with a credential and without.
    for host in [
        "unknown.acme-corp.com",
        "server.internal",
        "127.0.0.1:8080",
        "localhost",
    ] {
        with(&world.globex.admin, host).await.expect(200);
        login(&world, &world.globex.viewer, host)
            .await
            .problem(400, "tenant_required");
        let body = json!({"email": world.globex.viewer.email, "password": PASSWORD, "tenant_slug": "globex"});
        let named = world.client.post(LOGIN, &body).header("Host", host).await;
        named.expect(200);
    }
    // A header is first, as with subdomains; a body may only agree.
    let body = json!({"email": world.globex.viewer.email, "password": PASSWORD});
    let headed = world.client.post(LOGIN, &body).header("Host", HOST);
    headed.header("X-Tenant-Slug", "globex").await.expect(200);
    let body = json!({"email": world.globex.viewer.email, "password": PASSWORD, "tenant_slug": "globex"});
    let named = world.client.post(LOGIN, &body).header("Host", HOST).await;
    named.problem(403, "tenant_mismatch");
}

#[actix_web::test]
async fn claims_of_two_tenants_do_not_meet_before_a_proof() {
    let (world, dns) = world().await;
    let (acme, globex) = (&world.acme.admin, &world.globex.admin);
    let ours = active(&world, &dns).await;
    // The claim and an unproven check tell nothing of the other tenant.
    let theirs = claim(&world, globex, HOST).await;
    assert_ne!(ours["records"][0]["value"], theirs["records"][0]["value"]);
    let checked = verify(&world, globex, &theirs).await.expect(200).json();
    assert_eq!(checked["last_check"]["result"], "other_value");
    assert_eq!(states(&world, &world.globex).await, ["pending"]);
    // The proof of another tenant is none of this one.
    let foreign = format!("{DOMAINS}/{}", ours["id"].as_str().unwrap());
    world.get(globex, &foreign).await.problem(404, "not_found");
    world.delete(globex, &foreign).await.problem(404, "not_found");
    world
        .post(globex, &format!("{foreign}/verify"), &json!(null))
        .body("")
        .await
        .problem(404, "not_found");
    // Both have proven it: who holds it keeps it.
    let values = [&ours, &theirs].map(|domain| domain["records"][0]["value"].as_str().unwrap());
    dns.set_txt(&format!("_tenantry-verify.{HOST}"), &values);
    let refused = verify(&world, globex, &theirs).await.problem(409, "conflict");
    assert!(!refused.text().contains("acme\""), "{}", refused.text());
    assert_eq!(states(&world, &world.globex).await, ["pending"]);
    let page = format!("{DOMAINS}/{}", theirs["id"].as_str().unwrap());
    let seen = world.get(globex, &page).await.expect(200).json();
    assert_eq!(
        seen["last_check"]["result"], "proven",
        "what was found is true all the same"
    );
    // Deleted there, it is proven here, and no cache leads to the former tenant.
    login(&world, &world.acme.viewer, HOST).await.expect(200);
    world.delete(acme, &foreign).await.expect(204);
    assert_eq!(state(&world, globex, &theirs).await, "active");
    login(&world, &world.acme.viewer, HOST)
        .await
        .problem(401, "invalid_credentials");
    let reply = login(&world, &world.globex.viewer, HOST).await.expect(200);
    assert_eq!(reply.json()["tenant"]["slug"], "globex");
}

#[actix_web::test]
async fn proof_of_two_tenants_at_once_is_won_by_one() {
    let (world, dns) = world().await;
    let claims = [
        claim(&world, &world.acme.admin, HOST).await,
        claim(&world, &world.globex.admin, HOST).await,
    ];
    let values = [0, 1].map(|at: usize| claims[at]["records"][0]["value"].as_str().unwrap());
    dns.set_txt(&format!("_tenantry-verify.{HOST}"), &values);
    dns.set_alias(HOST, EDGE);
    let (ours, theirs) = tokio::join!(
        verify(&world, &world.acme.admin, &claims[0]),
        verify(&world, &world.globex.admin, &claims[1])
    );
    let mut statuses = [ours.status, theirs.status].map(|status| status.to_string());
    statuses.sort();
    assert!(
        statuses[0].starts_with("200") && statuses[1].starts_with("409"),
        "{statuses:?}"
    );
}

#[actix_web::test]
async fn lost_proof_fails_then_releases_with_mail() {
    let (world, dns) = world().await;
    active(&world, &dns).await;
    let record = format!("_tenantry-verify.{HOST}");
    let mails = async || -> Vec<Value> {
        let sql = "SELECT payload->'notice' FROM jobs WHERE kind = 'mail.send' ORDER BY created_at, id";
        let rows: Vec<Value> = sqlx::query_scalar(sql)
            .fetch_all(&mut world.database.admin().await)
            .await
            .unwrap();
        rows.into_iter()
            .filter(|notice| notice["about"] == "domain")
            .collect()
    };
    let after_hours = async |hours: i64| {
        world.clock.advance(Duration::hours(hours));
        run(&world, &world.acme, CheckDomains).await;
        states(&world, &world.acme).await.remove(0)
    };
    // What fails on the way says nothing about the proof.
    for answer in [DnsAnswer::Code(2), DnsAnswer::Code(5), DnsAnswer::Silence] {
        dns.set(&record, answer);
        assert_eq!(after_hours(12).await, "active");
    }
    dns.set(&record, DnsAnswer::NoName);
    let asked = dns.questions();
    assert_eq!(after_hours(1).await, "active", "it was checked an hour ago");
    assert_eq!(dns.questions(), asked);
    assert_eq!(after_hours(12).await, "failing");
    login(&world, &world.acme.viewer, HOST).await.expect(200);
    assert_eq!(mails().await.len(), 1);
    assert!(mails().await[0]["release_at"].is_string());
    assert_eq!(after_hours(24).await, "failing");
    assert_eq!(mails().await.len(), 1, "one mail for a failure");
    // It comes back, and is lost for good.
    let txt = world.database.admin().await;
    let token: String = sqlx::query_scalar("SELECT token FROM tenant_domains")
        .fetch_one(&mut { txt })
        .await
        .unwrap();
    dns.set_txt(&record, &[&format!("tenant-verification={token}")]);
    assert_eq!(after_hours(24).await, "active");
    dns.set_txt(&record, &["something else"]);
    assert_eq!(after_hours(24).await, "failing");
    assert_eq!(after_hours(167).await, "failing");
    assert_eq!(after_hours(12).await, "released");
    assert_eq!(mails().await.len(), 3);
    assert!(mails().await[2]["release_at"].is_null());
    login(&world, &world.acme.viewer, HOST)
        .await
        .problem(400, "tenant_required");
    assert!(!is_served(&world, HOST).await);
    // It is listed for a while, and can be claimed anew.
    let admin = admin(&world, &world.acme).await;
    let again = claim(&world, &admin, HOST).await;
    set_records(&dns, &again);
    assert_eq!(state(&world, &admin, &again).await, "active");
}

#[actix_web::test]
async fn claim_expires_after_two_weeks_and_is_deleted_later() {
    let (world, dns) = world().await;
    let domain = claim(&world, &world.acme.admin, HOST).await;
    let keep = async |days: i64| {
        world.clock.advance(Duration::days(days));
        run(&world, &world.acme, KeepDomains).await;
        run(&world, &world.acme, CheckDomains).await;
        states(&world, &world.acme).await
    };
    assert_eq!(keep(13).await, ["pending"]);
    let asked = dns.questions();
    set_records(&dns, &domain);
    assert_eq!(keep(1).await, ["released"], "also when the records came too late");
    assert_eq!(
        dns.questions(),
        asked,
        "nobody is asked about a claim that is over"
    );
    let again = admin(&world, &world.acme).await;
    verify(&world, &again, &domain).await.problem(409, "conflict");
    assert_eq!(keep(29).await, ["released"]);
    assert_eq!(keep(1).await, Vec::<String>::new());
    // The upkeep puts one check into the queue.
    claim(&world, &admin(&world, &world.acme).await, HOST).await;
    world.clock.advance(Duration::days(1));
    run(&world, &world.acme, KeepDomains).await;
    run(&world, &world.acme, KeepDomains).await;
    let sql = "SELECT count(*) FROM jobs WHERE kind = 'domain.check' AND state = 'queued'";
    let queued: i64 = sqlx::query_scalar(sql)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(queued, 1);
}

#[actix_web::test]
async fn answers_of_name_servers_are_bounded_and_told_apart() {
    let (world, dns) = world().await;
    let domain = claim(&world, &world.acme.admin, HOST).await;
    let (name, value) = (
        domain["records"][0]["name"].as_str().unwrap(),
        domain["records"][0]["value"].as_str().unwrap(),
    );
    let text = |number: usize| DnsRecord::Txt(format!("{number} {}", "x".repeat(400)));
    let many: Vec<_> = (0..100).map(text).collect();
    let with_proof = [vec![DnsRecord::Txt(value.to_owned())], many.clone()].concat();
    let longer = DnsRecord::Txt(format!("{value}x"));
    let spread = vec![DnsRecord::Alias("proofs.dns-corp.com".into())];
    dns.set_txt("proofs.dns-corp.com", &[value]);
    for (answer, result) in [
        (DnsAnswer::Code(2), "servers_failed"),
        (DnsAnswer::Code(5), "servers_failed"),
        (DnsAnswer::Silence, "timeout"),
        (DnsAnswer::NoName, "not_found"),
        (DnsAnswer::Records(Vec::new()), "not_found"),
        (DnsAnswer::Records(vec![longer]), "other_value"),
        (DnsAnswer::Records(many), "too_many_records"),
        (DnsAnswer::Records(spread), "proven"),
        (DnsAnswer::Records(with_proof), "proven"),
    ] {
        dns.set(name, answer.clone());
        let checked = verify(&world, &world.acme.admin, &domain)
            .await
            .expect(200)
            .json();
        assert_eq!(checked["last_check"]["result"], result);
    }
    assert!(dns.over_tcp() > 0, "what does not fit comes over TCP");
    // An apex, which cannot be an alias, has the addresses of the edge.
    let address = |text: &str| DnsRecord::Address(text.parse().unwrap());
    dns.set_txt(name, &[value]);
    dns.set(
        EDGE,
        DnsAnswer::Records(vec![address("192.0.2.7"), address("2001:db8::7")]),
    );
    dns.set(HOST, DnsAnswer::Records(vec![address("192.0.2.8")]));
    assert_eq!(state(&world, &world.acme.admin, &domain).await, "verified");
    dns.set(HOST, DnsAnswer::Records(vec![address("2001:db8::7")]));
    assert_eq!(state(&world, &world.acme.admin, &domain).await, "active");
}

#[actix_web::test]
async fn domain_follows_the_state_of_its_tenant() {
    let (world, dns) = world().await;
    let domain = active(&world, &dns).await;
    world.set_status(&world.acme, "suspended").await;
    login(&world, &world.acme.viewer, HOST).await.expect(200);
    assert!(is_served(&world, HOST).await);
    world
        .post(&world.acme.admin, DOMAINS, &json!({"domain": "b.acme-corp.com"}))
        .await
        .problem(403, "tenant_suspended");
    world.clock.advance(Duration::hours(12));
    run(&world, &world.acme, CheckDomains).await;
    world.set_status(&world.acme, "deleted").await;
    login(&world, &world.acme.viewer, HOST)
        .await
        .problem(410, "tenant_gone");
    assert!(!is_served(&world, HOST).await);
    // Another tenant cannot have it before the purge.
    let globex = admin(&world, &world.globex).await;
    let theirs = claim(&world, &globex, HOST).await;
    let values = [&domain, &theirs].map(|domain| domain["records"][0]["value"].as_str().unwrap());
    dns.set_txt(&format!("_tenantry-verify.{HOST}"), &values);
    verify(&world, &globex, &theirs).await.problem(409, "conflict");
    world
        .sql("DELETE FROM tenant_domains WHERE tenant_id = '".to_owned() + &world.acme.id.to_string() + "'")
        .await;
    assert_eq!(state(&world, &globex, &theirs).await, "active");
}

/// Rows of domains of acme, whose id is `$1`; `$2` is the time.
async fn put_rows(world: &World, rows: &str) {
    let sql = format!(
        "INSERT INTO tenant_domains (tenant_id, id, created_at, domain, state, token, claimed_until, verified_at, activated_at,
             released_at, release_reason, checked_at, updated_at, version) {rows}"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(world.acme.id.uuid())
        .bind(world.clock.now())
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
}

#[actix_web::test]
async fn released_domains_keep_no_other_from_its_check() {
    let (world, _dns) = world().await;
    put_rows(
        &world,
        "SELECT $1, gen_random_uuid(), $2, 'd' || g || '.acme-corp.com', 'released', 't', $2, NULL, NULL, $2, 'claim_expired',
             $2, $2, 1 FROM generate_series(1, 130) g",
    )
    .await;
    put_rows(
        &world,
        "SELECT $1, gen_random_uuid(), $2, 'portal.acme-corp.com', 'active', 't', $2, $2, $2, NULL, NULL,
             $2 - interval '3 days', $2, 1",
    )
    .await;
    run(&world, &world.acme, CheckDomains).await;
    let failing = states(&world, &world.acme).await;
    assert_eq!(failing.iter().filter(|state| *state == "failing").count(), 1);
    world.clock.advance(Duration::days(31));
    run(&world, &world.acme, KeepDomains).await;
    run(&world, &world.acme, KeepDomains).await;
    let left = states(&world, &world.acme).await;
    assert!(!left.contains(&"released".to_owned()), "{left:?}");
}

#[actix_web::test]
async fn nothing_is_served_by_custom_domains_that_are_switched_off() {
    let options = Options {
        without_edge: true,
        ..Options::default()
    };
    let world = World::with(options).await;
    put_rows(
        &world,
        "SELECT $1, gen_random_uuid(), $2, 'portal.acme-corp.com', 'active', 't', $2, $2, $2, NULL, NULL, $2, $2, 1",
    )
    .await;
    assert!(!is_served(&world, HOST).await);
    assert_ne!(login(&world, &world.acme.viewer, HOST).await.status, 200);
    // The answer says who can change that, and that trying again does not.
    let admin = &world.acme.admin;
    let listed = world.get(admin, DOMAINS).await.expect(200).json();
    let verify = format!("{DOMAINS}/{}/verify", listed["data"][0]["id"].as_str().unwrap());
    for (path, body) in [
        (DOMAINS, json!({"domain": "new.acme-corp.com"})),
        (&verify, json!(null)),
    ] {
        let request = world.post(admin, path, &body);
        let refused = match body {
            Value::Null => request.body("").await,
            _ => request.await,
        };
        assert!(refused.header("retry-after").is_none(), "{path}");
        let refused = refused.problem(404, "domains_unavailable").json();
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("`domains.edge`"), "{detail}");
    }
}

#[actix_web::test]
async fn certificates_are_for_hosts_that_are_served() {
    let (world, dns) = world().await;
    active(&world, &dns).await;
    assert!(!is_served(&world, "localhost").await);
    for host in [
        HOST,
        "Portal.ACME-corp.com",
        EDGE,
        "example.test",
        "acme.example.test",
        "www.example.test",
    ] {
        assert!(is_served(&world, host).await, "{host}");
    }
    for host in [
        "",
        "other.acme-corp.com",
        "acme-corp.com",
        "nobody.example.test",
        "a.acme.example.test",
        "portal.acme-corp.com:443",
        "127.0.0.1",
        "[::1]",
        "localhost",
        "*.acme-corp.com",
    ] {
        assert!(!is_served(&world, host).await, "{host}");
    }
    // While the store fails, what was served before still is.
    world
        .sql("REVOKE SELECT ON domain_hosts, tenants FROM tenantry_platform")
        .await;
    world.outlive_the_cache();
    assert!(is_served(&world, HOST).await);
    assert!(
        domain_ask::is_served(&world.app, "new.acme-corp.com")
            .await
            .is_err()
    );
    world.clock.advance(Duration::days(2));
    assert!(domain_ask::is_served(&world.app, HOST).await.is_err());
    world
        .sql("GRANT SELECT ON domain_hosts, tenants TO tenantry_platform")
        .await;
}

/// A proxy asks at the issue and at the renewal of a certificate, so a host may not have been asked about for months. No number of
/// made-up names keeps it from its answer.
#[actix_web::test]
async fn flood_of_made_up_names_refuses_no_live_host() {
    let (world, dns) = world().await;
    active(&world, &dns).await;
    world.outlive_the_cache();
    let app = world.instance(&Options::default()).app;
    let made_up = (0..3_000).flat_map(|n| {
        [
            format!("n{n}.made-up.example"),
            format!("made-up-{n}.example.test"),
        ]
    });
    let live = [
        HOST,
        "acme.example.test",
        "globex.example.test",
        "www.example.test",
        EDGE,
    ];
    let asked: Vec<String> = made_up.chain(live.map(str::to_owned)).collect();
    let answers = join_all(asked.iter().map(|host| domain_ask::is_served(&app, host))).await;
    for (host, answer) in asked.iter().zip(answers) {
        assert_eq!(answer, Ok(live.contains(&host.as_str())), "{host}");
    }
    // One that looks up for another and is dropped leaves that one with an answer.
    let app = world.instance(&Options::default()).app;
    let [mut looking, mut other] = ["globex", "acme"].map(|label| {
        let (app, host) = (app.clone(), format!("{label}.example.test"));
        Box::pin(async move { domain_ask::is_served(&app, &host).await })
    });
    for waiting in [&mut looking, &mut other] {
        assert_eq!(waiting.as_mut().now_or_never(), None);
    }
    drop(looking);
    assert_eq!(other.await, Ok(true));
    // A tenant that is deleted is served no longer, also when its host was.
    let confirmed = json!({"confirm_slug": "globex"});
    let deleted = world
        .delete(&world.globex.admin, "/api/v1/tenant")
        .json(&confirmed)
        .await;
    deleted.expect(202);
    world.outlive_the_cache();
    assert_eq!(
        domain_ask::is_served(&app, "globex.example.test").await,
        Ok(false)
    );
}

/// Deleting a domain ends the pause between its checks, and not the bound on those of its tenant.
#[actix_web::test]
async fn checks_of_a_tenant_are_bounded_whatever_it_deletes() {
    let (world, _dns) = world().await;
    let admin = &world.acme.admin;
    let check_anew = async || {
        let domain = claim(&world, admin, HOST).await;
        let path = format!("{DOMAINS}/{}", domain["id"].as_str().unwrap());
        let checked = world
            .post(admin, &format!("{path}/verify"), &json!(null))
            .body("")
            .await;
        world.delete(admin, &path).await.expect(204);
        checked
    };
    for _ in 0..60 {
        check_anew().await.expect(200);
    }
    let refused = check_anew().await;
    assert_eq!(refused.header("retry-after"), Some("60"));
    let refused = refused.problem(429, "rate_limited").json();
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("too many checks of domains")
    );
    world.clock.advance(Duration::minutes(1));
    check_anew().await.expect(200);
}

#[actix_web::test]
async fn plan_decides_whether_and_how_many() {
    let (world, _dns) = world().await;
    let admin = &world.acme.admin;
    let sql = format!(
        "UPDATE tenants SET agreed = '{{\"limits\": {{\"domains\": 5}}}}' WHERE id = '{}'",
        world.acme.id
    );
    world.sql(sql).await;
    world.outlive_the_cache();
    for number in 0..5 {
        claim(&world, admin, &format!("d{number}.acme-corp.com")).await;
    }
    let one_more = |domain: &str| world.post(admin, DOMAINS, &json!({"domain": domain}));
    let refused = one_more("d6.acme-corp.com")
        .await
        .problem(403, "plan_limit_reached");
    assert_eq!(refused.json()["limit"], "domains", "{}", refused.text());
    let sql = format!("UPDATE tenants SET plan = 'free' WHERE id = '{}'", world.acme.id);
    world.sql(sql).await;
    world.outlive_the_cache();
    one_more("d7.acme-corp.com")
        .await
        .problem(403, "plan_feature_required");
    assert_eq!(states(&world, &world.acme).await.len(), 5);
}

#[actix_web::test]
async fn names_that_cannot_be_claimed_are_refused() {
    let (world, _dns) = world().await;
    let admin = &world.acme.admin;
    for (domain, code) in [
        ("127.0.0.1", "invalid_domain"),
        ("acme", "invalid_domain"),
        ("acme-corp.com:443", "invalid_domain"),
        ("acme-corp.com/x", "invalid_domain"),
        ("a\u{0}b.com", "invalid_text"),
        ("app.example.test", "reserved_domain"),
        (EDGE, "reserved_domain"),
        ("acme.internal", "reserved_domain"),
        ("co.uk", "public_suffix"),
    ] {
        let reply = world.post(admin, DOMAINS, &json!({"domain": domain})).await;
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["code"], code, "{domain:?}");
        assert_eq!(problem["errors"][0]["pointer"], "/domain");
    }
    let apex = claim(&world, admin, "acme-corp.com").await;
    let records = apex["records"].as_array().unwrap().iter();
    let kinds: Vec<_> = records.map(|record| record["type"].clone()).collect();
    assert_eq!(kinds, ["TXT"], "an apex cannot be a CNAME");
    let unicode = claim(&world, admin, "bücher.acme-corp.com").await;
    assert_eq!(unicode["domain"], "xn--bcher-kva.acme-corp.com");
    world
        .post(admin, DOMAINS, &json!({"domain": "xn--bcher-kva.acme-corp.com"}))
        .await
        .problem(409, "conflict");
    for who in [&world.acme.member, &world.acme.viewer] {
        let claim = world
            .post(who, DOMAINS, &json!({"domain": "c.acme-corp.com"}))
            .await;
        claim.problem(403, "forbidden");
    }
}
