//! Founding a tenant: all of it at once, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_domain::kernel::{RequestId, SystemScope};
use tenantry_domain::tenant::NewTenant;
use tenantry_tenancy::Origin;
use tenantry_tenancy::operations::job::{Nothing, SystemJobHandler as _};
use tenantry_tenancy::tenant::provision::{self, NewAdmin, SignUpError, SignedUp};
use tenantry_tenancy::tenant::purge::FreeNames;
use tenantry_tests::{
    ManualClock, MemoryPayments, Options, Payments, Reply, TenantWorld, World, plans_without_prices,
};

const PASSWORD: &str = "a good long one";

/// A sign-up that succeeds.
fn initech() -> Value {
    json!({
        "name": "Initech",
        "slug": "initech",
        "admin": {"email": "peter@initech.example", "full_name": "Peter Gibbons", "password": PASSWORD},
    })
}

/// The same with some members replaced or added.
fn initech_with(changes: Value) -> Value {
    let mut body = initech();
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn sign_up(world: &World, body: &Value) -> Reply {
    world.client.post("/api/v1/tenants", body).await
}

/// Pointer and code of every field that was refused.
fn refused(reply: &Reply) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = reply.json()["errors"].as_array().unwrap().clone();
    let fields: BTreeSet<_> = errors
        .iter()
        .map(|error| (text(&error["pointer"]), text(&error["code"])))
        .collect();
    assert_eq!(fields.len(), errors.len(), "each is said once: {}", reply.text());
    fields
}

fn fields(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected
        .iter()
        .map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned()))
        .collect()
}

/// How many rows there are in every table, whosever they are.
async fn rows(world: &World) -> BTreeMap<String, i64> {
    let mut admin = world.database.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut rows = BTreeMap::new();
    for table in tables {
        let sql = format!("SELECT count(*) FROM \"{table}\"");
        let count = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        rows.insert(table, count);
    }
    assert!(rows.len() > 8, "{rows:?}");
    rows
}

async fn run(world: &World, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
}

/// The audit log of a tenant that was just signed up.
async fn audit(world: &World, signed_up: &Value) -> Vec<(String, Value)> {
    let id = signed_up["tenant"]["id"].as_str().unwrap().parse().unwrap();
    world
        .audit(&TenantWorld {
            id,
            ..world.acme.clone()
        })
        .await
}

#[actix_web::test]
async fn signing_up_answers_with_the_tenant_its_admin_and_their_credentials() {
    let world = World::new().await;
    let others = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let reply = sign_up(&world, &initech()).await.expect(201);
    let json = reply.json();
    let (tenant, admin, credentials) = (&json["tenant"], &json["admin"], &json["credentials"]);
    let expected_tenant = json!({
        "id": tenant["id"], "name": "Initech", "slug": "initech", "subdomain": "initech", "plan": "free",
        "status": "active", "settings": {"self_registration": true, "timezone": "UTC", "locale": "en"},
        "created_at": tenant["created_at"], "updated_at": tenant["created_at"], "suspended_at": null,
        "status_reason": null, "status_actor": null, "deleted_at": null, "purge_at": null, "row_work": null, "version": 1,
    });
    let expected_admin = json!({
        "id": admin["id"], "email": "peter@initech.example", "full_name": "Peter Gibbons", "role": "admin", "custom_role": null,
        "is_active": true, "email_verified": false, "created_at": admin["created_at"],
        "updated_at": admin["created_at"], "version": 1,
    });
    let expected_credentials = json!({
        "email": "peter@initech.example", "access_token": credentials["access_token"],
        "refresh_token": credentials["refresh_token"], "token_type": "Bearer", "expires_in": 900,
    });
    let expected =
        json!({"tenant": expected_tenant, "admin": expected_admin, "credentials": expected_credentials});
    assert_eq!(json, expected);
    for (id, created_at) in [
        (&tenant["id"], &tenant["created_at"]),
        (&admin["id"], &admin["created_at"]),
    ] {
        let id: uuid::Uuid = id.as_str().unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        let created_at = created_at.as_str().unwrap();
        assert!(
            created_at.ends_with('Z') && created_at.starts_with("2026-01-15T12:00:00"),
            "{created_at}"
        );
    }
    assert_eq!(reply.header("location"), Some("/api/v1/tenant"));
    assert_eq!(reply.header("etag"), Some("\"1\""));
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        others
    );
}

#[actix_web::test]
async fn the_credentials_of_a_sign_up_work_at_once() {
    let world = World::new().await;
    let signed_up = sign_up(&world, &initech()).await.expect(201);
    let (location, json) = (signed_up.header("location").unwrap().to_owned(), signed_up.json());
    let token = json["credentials"]["access_token"].as_str().unwrap();
    let me = world
        .client
        .get("/api/v1/auth/me")
        .bearer(token)
        .await
        .expect(200)
        .json();
    assert_eq!(me, json!({"user": json["admin"], "tenant": json["tenant"]}));
    let tenant = world.client.get(&location).bearer(token).await.expect(200);
    assert_eq!(
        (tenant.json(), tenant.header("etag")),
        (json["tenant"].clone(), signed_up.header("etag"))
    );
    let project = world
        .client
        .post("/api/v1/projects", &json!({"name": "First"}))
        .bearer(token)
        .await;
    assert_eq!(project.expect(201).json()["owner_id"], json["admin"]["id"]);
    let login = world
        .login("initech", "peter@initech.example", PASSWORD)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&login["user"], &login["tenant"]),
        (&json["admin"], &json["tenant"])
    );
    let refresh = json!({"refresh_token": json["credentials"]["refresh_token"]});
    world
        .client
        .post("/api/v1/auth/refresh", &refresh)
        .await
        .expect(200);
}

#[actix_web::test]
async fn a_generated_password_is_shown_once_and_works() {
    let world = World::new().await;
    let admin = json!({"email": "peter@initech.example", "full_name": "Peter Gibbons"});
    let json = sign_up(&world, &initech_with(json!({"admin": admin})))
        .await
        .expect(201)
        .json();
    let password = json["credentials"]["password"].as_str().unwrap();
    // 128 bits need at least 22 characters of base64.
    assert!(password.len() >= 22, "{password}");
    let again = sign_up(&world, &initech_with(json!({"slug": "initrode", "admin": admin})))
        .await
        .expect(201)
        .json();
    assert_ne!(again["credentials"]["password"], password);

    let login = world
        .login("initech", "peter@initech.example", password)
        .await
        .expect(200);
    assert!(!login.text().contains(password));
    world
        .login("initrode", "peter@initech.example", password)
        .await
        .problem(401, "invalid_credentials");
    let token = json["credentials"]["access_token"].as_str().unwrap();
    for path in ["/api/v1/auth/me", "/api/v1/users", "/api/v1/tenant"] {
        let reply = world.client.get(path).bearer(token).await.expect(200);
        assert!(!reply.text().contains(password), "{path}");
    }
    let stored: Vec<String> = sqlx::query_scalar(
        "SELECT password_hash FROM users UNION ALL SELECT a::text FROM audit_events a UNION ALL \
         SELECT t::text FROM tenants t UNION ALL SELECT s::text FROM refresh_sessions s",
    )
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    assert!(stored.iter().all(|text| !text.contains(password)));
}

#[actix_web::test]
async fn a_plan_is_one_that_is_on_offer_and_the_default_one_when_absent() {
    let world = World::new().await;
    let json = sign_up(&world, &initech()).await.expect(201).json();
    assert_eq!(json["tenant"]["plan"], "free");
    let json = sign_up(&world, &initech_with(json!({"slug": "initrode", "plan": "free"})))
        .await
        .expect(201)
        .json();
    assert_eq!(json["tenant"]["plan"], "free");
    let before = rows(&world).await;
    for plan in ["", "Pro", "platinum"] {
        let body = initech_with(json!({"slug": "umbrella", "plan": plan}));
        let reply = sign_up(&world, &body).await.problem(422, "validation_failed");
        assert_eq!(refused(&reply), fields(&[("/plan", "unknown_plan")]));
    }
    assert_eq!(rows(&world).await, before);
}

/// A plan with a price is for those who pay, or for whom an operator creates a tenant.
#[actix_web::test]
async fn plan_with_a_price_is_refused_without_payments() {
    let world = World::new().await;
    let before = rows(&world).await;
    for plan in ["pro", "enterprise"] {
        let body = initech_with(json!({"plan": plan}));
        let refused = sign_up(&world, &body).await.problem(403, "plan_requires_payment");
        assert!(refused.json()["detail"].as_str().unwrap().contains(plan));
    }
    assert_eq!(rows(&world).await, before);
    // What is wrong with the rest is said first.
    let body = initech_with(json!({"plan": "pro", "name": " "}));
    sign_up(&world, &body).await.problem(422, "validation_failed");
    let made = found(&world, "initech", "enterprise").await;
    assert_eq!(made.unwrap().login.tenant.plan, "enterprise");
}

/// A tenant that an operator creates.
async fn found(world: &World, slug: &str, plan: &str) -> Result<SignedUp, SignUpError> {
    let tenant = NewTenant {
        name: "Initech".into(),
        slug: slug.into(),
        subdomain: None,
        plan: Some(plan.into()),
    };
    let admin = NewAdmin {
        email: format!("ada@{slug}.example"),
        full_name: "Ada".into(),
        password: None,
    };
    let because = SystemScope::because("a test of sign-up");
    let request = RequestId::next(world.app.ports.ids.as_ref());
    provision::found(&world.app, because, Origin::default(), request, tenant, admin).await
}

/// A plan that costs nothing is not for everyone because of that: operators make such plans for partners and themselves.
#[actix_web::test]
async fn plan_without_a_price_needs_an_operator_at_signup() {
    let clock = std::sync::Arc::new(ManualClock::default());
    let payments = [None, Some(Payments(MemoryPayments::new(clock.clone())))];
    for payments in payments {
        let world = World::with(Options {
            plans: Some(plans_without_prices()),
            payments,
            clock: Some(clock.clone()),
            ..Options::default()
        })
        .await;
        let before = rows(&world).await;
        let body = initech_with(json!({"plan": "internal"}));
        let refused = sign_up(&world, &body).await.problem(403, "forbidden");
        assert!(refused.json()["detail"].as_str().unwrap().contains("'internal'"));
        assert_eq!(rows(&world).await, before);
        for (slug, plan) in [("initech", "partner"), ("initrode", "free")] {
            let made = sign_up(&world, &initech_with(json!({"slug": slug, "plan": plan}))).await;
            assert_eq!(made.expect(201).json()["tenant"]["plan"], plan);
        }
        let made = found(&world, "umbrella", "internal").await;
        assert_eq!(made.unwrap().login.tenant.plan, "internal");
    }
}

#[actix_web::test]
async fn a_subdomain_of_its_own_may_differ_from_the_slug() {
    let world = World::new().await;
    let json = sign_up(&world, &initech_with(json!({"subdomain": "tps-reports"})))
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&json["tenant"]["slug"], &json["tenant"]["subdomain"]),
        (&json!("initech"), &json!("tps-reports"))
    );
}

#[actix_web::test]
async fn everything_that_is_wrong_with_a_sign_up_is_said_at_once() {
    let world = World::new().await;
    let before = rows(&world).await;
    let body = json!({
        "name": " ", "slug": "-initech", "subdomain": "Initech", "plan": "platinum",
        "admin": {"email": "peter", "full_name": "", "password": "short"},
    });
    let reply = sign_up(&world, &body).await.problem(422, "validation_failed");
    let expected = fields(&[
        ("/name", "invalid_text"),
        ("/slug", "invalid_slug"),
        ("/subdomain", "invalid_slug"),
        ("/plan", "unknown_plan"),
        ("/admin/email", "invalid_email"),
        ("/admin/full_name", "invalid_text"),
        ("/admin/password", "weak_password"),
    ]);
    assert_eq!(refused(&reply), expected);
    assert!(
        !reply.text().contains("short"),
        "a password is not echoed: {}",
        reply.text()
    );
    assert_eq!(rows(&world).await, before);
}

#[actix_web::test]
async fn a_body_of_the_wrong_shape_says_where() {
    let world = World::new().await;
    let before = rows(&world).await;
    let peter = |role: Value| json!({"email": "p@i.example", "full_name": "P", "role": role});
    let cases = [
        (
            json!({"name": "Initech", "slug": "initech"}),
            "validation_failed",
            "/admin",
            "required",
        ),
        (
            initech_with(json!({"admin": {"full_name": "P"}})),
            "validation_failed",
            "/admin/email",
            "required",
        ),
        (
            initech_with(json!({"admin": []})),
            "validation_failed",
            "/admin",
            "invalid_type",
        ),
        (
            initech_with(json!({"name": 7})),
            "validation_failed",
            "/name",
            "invalid_type",
        ),
        (
            initech_with(json!({"status": "active"})),
            "unknown_field",
            "/status",
            "unknown_field",
        ),
        (
            initech_with(json!({"admin": peter(json!("admin"))})),
            "unknown_field",
            "/admin/role",
            "unknown_field",
        ),
    ];
    for (body, code, pointer, field_code) in cases {
        let reply = sign_up(&world, &body).await.problem(422, code);
        assert_eq!(refused(&reply), fields(&[(pointer, field_code)]), "{body}");
    }
    let nothing = sign_up(&world, &json!({}))
        .await
        .problem(422, "validation_failed");
    let required = ["/admin", "/name", "/slug"].map(|pointer| (pointer, "required"));
    assert_eq!(refused(&nothing), fields(&required));
    assert_eq!(rows(&world).await, before);
}

#[actix_web::test]
async fn a_slug_is_a_dns_label_of_3_to_63_characters() {
    let world = World::new().await;
    let longest = "x".repeat(63);
    for slug in ["abc", "a1b", "a--b", "0-0", "123", &longest] {
        let json = sign_up(&world, &initech_with(json!({"slug": slug})))
            .await
            .expect(201)
            .json();
        assert_eq!(
            (&json["tenant"]["slug"], &json["tenant"]["subdomain"]),
            (&json!(slug), &json!(slug))
        );
    }
    let before = rows(&world).await;
    let too_long = "x".repeat(64);
    let wrong = [
        "",
        "a",
        "ab",
        &too_long,
        "Abc",
        "ABC",
        "abC",
        "-abc",
        "abc-",
        "---",
        "a_b",
        "a.b",
        "a b",
        " abc",
        "abc ",
        "abc\n",
        "äbc",
        "ab\u{441}",
        "ａｂｃ",
        "a\u{301}bc",
        "abc🎉",
        "a/b",
        "%61bc",
        // DNS reads these as names in another alphabet, or may one day.
        "xn--80ak6aa92e",
        "ab--cd",
    ];
    for text in wrong {
        for member in ["slug", "subdomain"] {
            let mut body = initech_with(json!({"slug": "umbrella"}));
            body[member] = text.into();
            let reply = sign_up(&world, &body).await.problem(422, "validation_failed");
            assert_eq!(
                refused(&reply),
                fields(&[(&format!("/{member}"), "invalid_slug")]),
                "{text:?}"
            );
        }
    }
    assert_eq!(rows(&world).await, before);
}

#[actix_web::test]
async fn a_reserved_name_is_nobodys() {
    let world = World::new().await;
    let before = rows(&world).await;
    for name in [
        "www",
        "api",
        "app",
        "admin",
        "console",
        "mail",
        "localhost",
        "tenantry",
    ] {
        let reply = sign_up(&world, &initech_with(json!({"slug": name})))
            .await
            .problem(422, "validation_failed");
        // The subdomain that goes with the slug is not complained about a second time.
        assert_eq!(refused(&reply), fields(&[("/slug", "reserved")]), "{name}");
        let reply = sign_up(&world, &initech_with(json!({"subdomain": name})))
            .await
            .problem(422, "validation_failed");
        assert_eq!(refused(&reply), fields(&[("/subdomain", "reserved")]), "{name}");
    }
    assert_eq!(rows(&world).await, before);
}

#[actix_web::test]
async fn a_slug_belongs_to_one_tenant_also_after_it_is_deleted() {
    let world = World::new().await;
    let before = rows(&world).await;
    let body = initech_with(json!({"slug": "globex", "subdomain": "initech"}));
    sign_up(&world, &body).await.problem(409, "slug_taken");
    world.set_status(&world.globex, "deleted").await;
    sign_up(&world, &body).await.problem(409, "slug_taken");
    assert_eq!(rows(&world).await, before);
}

#[actix_web::test]
async fn a_subdomain_belongs_to_one_tenant() {
    let world = World::new().await;
    let before = rows(&world).await;
    sign_up(&world, &initech_with(json!({"subdomain": "acme"})))
        .await
        .problem(409, "subdomain_taken");
    // The one that goes with the slug can be taken just as well.
    world
        .patch(
            &world.acme.admin,
            "/api/v1/tenant",
            &json!({"subdomain": "initech"}),
        )
        .await
        .expect(200);
    sign_up(&world, &initech()).await.problem(409, "subdomain_taken");
    let after = rows(&world).await;
    assert_eq!(
        after["audit_events"],
        before["audit_events"] + 1,
        "the change above"
    );
    assert_eq!(
        (after["tenants"], after["users"]),
        (before["tenants"], before["users"])
    );
    // The one that was given up is still its slug.
    sign_up(
        &world,
        &initech_with(json!({"slug": "initrode", "subdomain": "acme"})),
    )
    .await
    .problem(409, "subdomain_taken");
}

/// One who has the slug `acme` is `acme` to everybody, whatever subdomain it has.
#[actix_web::test]
async fn slugs_and_subdomains_are_one_namespace() {
    let world = World::new().await;
    let before = rows(&world).await;
    let with_subdomain = async |who, subdomain: &str| {
        world
            .patch(who, "/api/v1/tenant", &json!({"subdomain": subdomain}))
            .await
    };
    with_subdomain(&world.acme.admin, "acme-shop").await.expect(200);
    with_subdomain(&world.globex.admin, "acme")
        .await
        .problem(409, "subdomain_taken");
    with_subdomain(&world.globex.admin, "acme-shop")
        .await
        .problem(409, "subdomain_taken");
    for (slug, subdomain, code) in [
        ("acme-shop", "initech", "slug_taken"),
        ("initech", "acme", "subdomain_taken"),
        ("initech", "acme-shop", "subdomain_taken"),
    ] {
        let body = initech_with(json!({"slug": slug, "subdomain": subdomain}));
        sign_up(&world, &body).await.problem(409, code);
    }
    let after = rows(&world).await;
    assert_eq!(
        (after["tenants"], after["users"]),
        (before["tenants"], before["users"])
    );
    sign_up(&world, &initech_with(json!({"subdomain": "initech-shop"})))
        .await
        .expect(201);
    // A tenant may use its own names for both.
    with_subdomain(&world.acme.admin, "acme").await.expect(200);
}

#[actix_web::test]
async fn a_name_that_was_given_up_is_reserved_for_its_tenant_for_30_days() {
    let world = World::new().await;
    // Tokens do not live for days.
    let with_subdomain = async |tenant: &TenantWorld, subdomain: Value| {
        let login = world.login(tenant.slug, &tenant.admin.email, tenantry_tests::PASSWORD);
        let token = login.await.expect(200).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned();
        let request = world
            .client
            .patch("/api/v1/tenant", &json!({"subdomain": subdomain}));
        request.bearer(&token).await
    };
    let free = async || {
        let because = SystemScope::because("a test frees names");
        FreeNames.run(&world.app, because, Nothing {}).await.unwrap();
    };
    let (acme, globex) = (&world.acme, &world.globex);
    with_subdomain(acme, json!("acme-shop")).await.expect(200);
    with_subdomain(acme, json!(null)).await.expect(200);
    for days in [0, 29] {
        world.clock.advance(chrono::Duration::days(days));
        free().await;
        with_subdomain(globex, json!("acme-shop"))
            .await
            .problem(409, "subdomain_taken");
        let body = initech_with(json!({"slug": "acme-shop"}));
        sign_up(&world, &body).await.problem(409, "slug_taken");
    }
    // Its former tenant may have it again; then the time begins anew.
    with_subdomain(acme, json!("acme-shop")).await.expect(200);
    world.clock.advance(chrono::Duration::days(31));
    free().await;
    with_subdomain(globex, json!("acme-shop"))
        .await
        .problem(409, "subdomain_taken");
    with_subdomain(acme, json!(null)).await.expect(200);
    world.clock.advance(chrono::Duration::days(31));
    with_subdomain(globex, json!("acme-shop"))
        .await
        .problem(409, "subdomain_taken");
    free().await;
    with_subdomain(globex, json!("acme-shop")).await.expect(200);
    with_subdomain(acme, json!("acme-shop"))
        .await
        .problem(409, "subdomain_taken");
}

#[actix_web::test]
async fn a_tenant_keeps_the_latest_five_of_its_former_names() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let name = |n: u32| json!({"subdomain": format!("name-{n}")});
    let take = async |tenant: &TenantWorld, n: u32| {
        let request = world.client.patch("/api/v1/tenant", &name(n));
        request.bearer(&tenant.admin.access_token).await
    };
    for n in 0..8 {
        take(acme, n).await.expect(200);
        world.clock.advance(chrono::Duration::seconds(1));
    }
    for n in 2..8 {
        take(globex, n).await.problem(409, "subdomain_taken");
    }
    for n in 0..2 {
        take(globex, n).await.expect(200);
    }
}

#[actix_web::test]
async fn of_ten_sign_ups_with_one_slug_at_once_exactly_one_succeeds() {
    let world = World::new().await;
    let before = rows(&world).await;
    let bodies: Vec<_> = (0..10)
        .map(|n| initech_with(json!({"admin": {"email": format!("p{n}@initech.example"), "full_name": "P"}})))
        .collect();
    let replies = join_all(bodies.iter().map(|body| sign_up(&world, body))).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 201);
    assert_eq!((won.len(), lost.len()), (1, 9));
    for reply in lost {
        reply.problem(409, "slug_taken");
    }
    let after = rows(&world).await;
    for (table, added) in [
        ("tenants", 1),
        ("users", 1),
        ("refresh_sessions", 1),
        ("audit_events", 3),
    ] {
        assert_eq!(after[table], before[table] + added, "{table}");
    }
    let token = won[0].json()["credentials"]["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let users = world
        .client
        .get("/api/v1/users")
        .bearer(&token)
        .await
        .expect(200)
        .json();
    assert_eq!(users["data"], json!([won[0].json()["admin"]]));
}

#[actix_web::test]
async fn a_sign_up_that_fails_halfway_leaves_nothing() {
    let world = World::new().await;
    let before = rows(&world).await;
    run(
        &world,
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'on purpose'; END $$",
    )
    .await;
    for (table, when) in [
        ("users", "true"),
        ("refresh_sessions", "true"),
        ("audit_events", "NEW.action = 'tenant.created'"),
        ("audit_events", "NEW.action = 'user.created'"),
    ] {
        let trigger = format!("CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW WHEN ({when})");
        run(&world, &format!("{trigger} EXECUTE FUNCTION fail()")).await;
        let reply = sign_up(&world, &initech()).await.problem(500, "internal");
        assert!(!reply.text().contains("purpose"), "{}", reply.text());
        assert_eq!(rows(&world).await, before, "{table}, {when}");
        run(&world, &format!("DROP TRIGGER fail ON {table}")).await;
    }
    // Nor is the name still taken.
    sign_up(&world, &initech()).await.expect(201);
}

#[actix_web::test]
async fn a_new_tenant_begins_with_the_default_settings() {
    for self_registration in [true, false] {
        let world = World::with(Options {
            self_registration,
            ..Options::default()
        })
        .await;
        let json = sign_up(&world, &initech()).await.expect(201).json();
        let settings = json!({"self_registration": self_registration, "timezone": "UTC", "locale": "en"});
        assert_eq!(json["tenant"]["settings"], settings);
        let stored: Value = sqlx::query_scalar("SELECT settings FROM tenants WHERE slug = 'initech'")
            .fetch_one(&mut world.database.admin().await)
            .await
            .unwrap();
        assert_eq!(stored, settings);
    }
}

#[actix_web::test]
async fn a_sign_up_is_in_the_audit_log_of_the_new_tenant() {
    let world = World::new().await;
    let request = world
        .client
        .post("/api/v1/tenants", &initech())
        .header("X-Request-ID", "sign-up-7");
    let json = request.await.expect(201).json();
    let entries = audit(&world, &json).await;
    let actions: Vec<_> = entries.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["tenant.created", "user.created", "account_link.sent"]);
    for (action, entry) in &entries[..2] {
        let noun = action.split_once('.').unwrap().0;
        let view = if noun == "tenant" {
            &json["tenant"]
        } else {
            &json["admin"]
        };
        assert_eq!(entry["request_id"], "sign-up-7");
        assert_eq!(entry["ip"], "203.0.113.7");
        assert_eq!(
            (&entry["category"], &entry["actor_type"]),
            (&json!("change"), &json!("founder"))
        );
        assert_eq!(
            (&entry["target_type"], &entry["target_id"]),
            (&json!(noun), &view["id"])
        );
        assert_eq!(entry["before"], Value::Null);
        assert_eq!(entry["after"]["id"], view["id"]);
        let text = entry.to_string();
        assert!(
            !text.contains(PASSWORD) && !text.contains("$argon2") && !text.contains("password"),
            "{text}"
        );
    }
    assert_eq!(entries[0].1["after"]["slug"], "initech");
    assert_eq!(entries[1].1["after"]["email"], "peter@initech.example");
}

#[actix_web::test]
async fn where_sign_up_is_closed_nobody_founds_a_tenant() {
    let world = World::with(Options {
        signup_enabled: false,
        ..Options::default()
    })
    .await;
    let before = rows(&world).await;
    let closed = sign_up(&world, &initech()).await.problem(403, "forbidden");
    assert_eq!(
        closed.json()["detail"],
        "Sign-up is not open. Operators create tenants with POST /api/v1/admin/tenants."
    );
    // A credential of some tenant changes nothing.
    let request = world
        .client
        .post("/api/v1/tenants", &initech())
        .bearer(&world.acme.admin.access_token);
    request.await.problem(403, "forbidden");
    assert_eq!(rows(&world).await, before);
}

#[actix_web::test]
async fn one_address_may_be_a_user_in_several_tenants() {
    let world = World::new().await;
    let email = &world.acme.admin.email;
    let admin = json!({"email": email, "full_name": "Somebody Else", "password": PASSWORD});
    let json = sign_up(&world, &initech_with(json!({"admin": admin})))
        .await
        .expect(201)
        .json();
    assert_ne!(json["admin"]["id"], json!(world.acme.admin.id));
    let login = world.login("initech", email, PASSWORD).await.expect(200).json();
    assert_eq!(login["user"], json["admin"]);
    // Each has their own password.
    world
        .login("acme", email, PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    world
        .login("initech", email, "correct horse")
        .await
        .problem(401, "invalid_credentials");
    let login = world
        .login("acme", email, "correct horse")
        .await
        .expect(200)
        .json();
    assert_eq!(login["user"]["id"], json!(world.acme.admin.id));
}
