//! Login, registration, and the life of tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Duration;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_domain::identity::{AccessClaims, AccessTokens as _, AuthMethods, RefreshTokens as _};
use tenantry_domain::kernel::{Clock as _, Role};
use tenantry_http::{Api, Readiness};
use tenantry_system::{HmacRefreshTokens, JwtAccessTokens, SigningKey, SigningKeyRing, SystemIds};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tests::{Client, Options, Person, Reply, TenantWorld, World};

const PASSWORD: &str = "correct horse";
const ME: &str = "/api/v1/auth/me";

async fn refresh(world: &World, token: &str) -> Reply {
    world
        .client
        .post("/api/v1/auth/refresh", &json!({"refresh_token": token}))
        .await
}

/// A registration that succeeds, once.
fn registration(slug: &str, email: &str) -> Value {
    json!({"tenant_slug": slug, "email": email, "password": "battery staple", "full_name": "Grace Hopper"})
}

async fn register(world: &World, body: &Value) -> Reply {
    world.client.post("/api/v1/auth/register", body).await
}

async fn me(world: &World, token: &str) -> Reply {
    world.client.get(ME).bearer(token).await
}

async fn login(world: &World, tenant: &TenantWorld, who: &Person) -> Person {
    let json = world
        .login(tenant.slug, &who.email, PASSWORD)
        .await
        .expect(200)
        .json();
    Person {
        access_token: text(&json["access_token"]),
        refresh_token: text(&json["refresh_token"]),
        ..who.clone()
    }
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Header (0) or claims (1) of a token.
fn part(token: &str, number: usize) -> Value {
    let text = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

async fn patch_user(world: &World, id: impl std::fmt::Display, body: Value) -> Reply {
    world
        .patch(&world.acme.admin, &format!("/api/v1/users/{id}"), &body)
        .await
}

async fn remove_user(world: &World, id: impl std::fmt::Display) -> Reply {
    world
        .delete(&world.acme.admin, &format!("/api/v1/users/{id}"))
        .await
}

async fn actions(world: &World, tenant: &TenantWorld) -> Vec<String> {
    world
        .audit(tenant)
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect()
}

/// An answer without what differs from request to request: problem and headers.
fn indistinguishable(reply: &Reply) -> (u16, String, BTreeSet<(String, String)>) {
    let headers = reply
        .headers
        .iter()
        // What is left of a limit is less with every request, whatever its answer.
        .filter(|(name, _)| name != "x-request-id" && name != "ratelimit")
        .cloned()
        .collect();
    (reply.status, reply.comparable(), headers)
}

#[actix_web::test]
async fn a_login_answers_with_tokens_the_user_and_the_tenant() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let (acme, member) = (&world.acme, &world.acme.member);
    let reply = world.login("acme", &member.email, PASSWORD).await.expect(200);
    let json = reply.json();
    let expected = json!({
        "access_token": json["access_token"], "refresh_token": json["refresh_token"], "token_type": "Bearer",
        "expires_in": 900,
        "user": {
            "id": member.id, "email": "member@acme.example", "full_name": "member of acme", "role": "member",
            "custom_role": null, "is_active": true, "email_verified": false, "created_at": json["user"]["created_at"],
            "updated_at": json["user"]["updated_at"], "version": 1,
        },
        "tenant": {
            "id": acme.id, "name": "Acme Inc", "slug": "acme", "subdomain": "acme", "plan": "pro",
            "status": "active", "settings": {"self_registration": true, "timezone": "UTC", "locale": "en"},
            "created_at": json["tenant"]["created_at"], "updated_at": json["tenant"]["updated_at"],
            "suspended_at": null, "status_reason": null, "status_actor": null, "deleted_at": null, "purge_at": null,
            "row_work": null, "version": 1,
        },
    });
    assert_eq!(json, expected);
    assert!(!reply.text().contains("$argon2"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_ne!(
        json["refresh_token"], member.refresh_token,
        "each login is a session of its own"
    );
    me(&world, json["access_token"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn an_access_token_is_a_signed_jwt_with_exactly_the_promised_claims() {
    let world = World::new().await;
    let member = login(&world, &world.acme, &world.acme.member).await;
    let (header, claims) = (part(&member.access_token, 0), part(&member.access_token, 1));
    assert_eq!(
        header,
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": header["kid"]})
    );
    let expected = json!({
        "iss": "tenantry", "aud": "tenantry-api", "sub": member.id, "tid": world.acme.id,
        "sid": claims["sid"], "role": "member", "iat": claims["iat"], "exp": claims["exp"],
        "jti": claims["jti"],
    });
    assert_eq!(claims, expected);
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        900
    );
    assert_eq!(claims["iat"].as_i64().unwrap(), world.clock.now().timestamp());
    let again = refresh(&world, &member.refresh_token).await.expect(200).json();
    let again = part(again["access_token"].as_str().unwrap(), 1);
    assert_eq!(again["sid"], claims["sid"], "the session stays");
    assert_ne!(again["jti"], claims["jti"], "each token has an id of its own");
}

#[actix_web::test]
async fn the_published_key_is_the_public_half_of_the_one_that_signs() {
    let world = World::new().await;
    let reply = world.client.get("/.well-known/jwks.json").await.expect(200);
    let keys = reply.json()["keys"].as_array().unwrap().clone();
    let [key] = &keys[..] else {
        panic!("one key: {keys:?}")
    };
    let kid = part(&world.acme.admin.access_token, 0)["kid"].clone();
    let expected =
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": key["x"]});
    assert_eq!(*key, expected, "and no \"d\"");
    assert_eq!(
        URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap().len(),
        32
    );
}

#[actix_web::test]
async fn every_failed_login_looks_the_same() {
    let world = World::new().await;
    let (admin, member, viewer) = (&world.acme.admin, &world.acme.member, &world.acme.viewer);
    patch_user(&world, member.id, json!({"is_active": false}))
        .await
        .expect(200);
    remove_user(&world, viewer.id).await.expect(204);
    let mut seen = BTreeSet::new();
    for (email, password) in [
        (admin.email.as_str(), "wrong horse"),
        (&admin.email, ""),
        (&admin.email, "Correct horse"),
        (&admin.email, "correct horse "),
        (&admin.email, &"x".repeat(10_000)),
        ("nobody@acme.example", PASSWORD),
        (&member.email, PASSWORD),
        (&member.email, "wrong horse"),
        (&viewer.email, PASSWORD),
        ("no address", PASSWORD),
        ("", PASSWORD),
    ] {
        let reply = world
            .login("acme", email, password)
            .await
            .problem(401, "invalid_credentials");
        assert!(
            reply
                .header("www-authenticate")
                .is_some_and(|challenge| challenge.starts_with("Bearer"))
        );
        seen.insert(indistinguishable(&reply));
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
    world.login("acme", &admin.email, PASSWORD).await.expect(200);
}

#[actix_web::test]
async fn an_address_is_the_same_in_upper_and_lower_case() {
    let world = World::new().await;
    for email in ["MEMBER@ACME.EXAMPLE", "Member@Acme.example"] {
        let json = world.login("acme", email, PASSWORD).await.expect(200).json();
        assert_eq!(json["user"]["id"], json!(world.acme.member.id));
        assert_eq!(json["user"]["email"], "member@acme.example");
    }
}

#[actix_web::test]
async fn a_login_never_crosses_tenants() {
    let world = World::new().await;
    let acme = world.digest(&world.acme).await;
    let unknown = world
        .login("globex", "nobody@globex.example", PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    for who in [&world.acme.admin, &world.acme.member, &world.acme.viewer] {
        let reply = world
            .login("globex", &who.email, PASSWORD)
            .await
            .problem(401, "invalid_credentials");
        assert_eq!(indistinguishable(&reply), indistinguishable(&unknown));
    }
    assert_eq!(world.digest(&world.acme).await, acme);
    // The same address is somebody else over there.
    let twin = json!({"email": world.acme.member.email, "full_name": "Twin", "password": "another horse"});
    let twin = world
        .post(&world.globex.admin, "/api/v1/users", &twin)
        .await
        .expect(201)
        .json();
    world
        .login("globex", &world.acme.member.email, PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    world
        .login("acme", &world.acme.member.email, "another horse")
        .await
        .problem(401, "invalid_credentials");
    let json = world
        .login("globex", &world.acme.member.email, "another horse")
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&json["user"]["id"], &json["tenant"]["id"]),
        (&twin["id"], &json!(world.globex.id))
    );
    assert_eq!(
        part(json["access_token"].as_str().unwrap(), 1)["tid"],
        json!(world.globex.id)
    );
}

#[actix_web::test]
async fn logins_and_failed_logins_are_audited_without_the_password() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let known = world.audit(&world.acme).await.len();
    let attempt = |email: &str, password: &str| {
        let body = json!({"tenant_slug": "acme", "email": email, "password": password});
        world
            .client
            .post("/api/v1/auth/login", &body)
            .header("X-Request-ID", "try-1")
            .send()
    };
    attempt("Member@acme.example", "hunter2 hunter2")
        .await
        .problem(401, "invalid_credentials");
    attempt("nobody@acme.example", "hunter2 hunter2")
        .await
        .problem(401, "invalid_credentials");
    // A password in the wrong box.
    attempt("hunter2 hunter2", "")
        .await
        .problem(401, "invalid_credentials");
    attempt("member@acme.example", PASSWORD).await.expect(200);

    let entries = world.audit(&world.acme).await.split_off(known);
    let member = json!(world.acme.member.id);
    let told: Vec<_> = entries
        .iter()
        .map(|(action, row)| (action.as_str(), &row["after"], &row["target_id"]))
        .collect();
    let session = entries[3].1["target_id"].clone();
    let expected = [
        ("login.failed", &json!({"email": "member@acme.example"}), &member),
        (
            "login.failed",
            &json!({"email": "nobody@acme.example"}),
            &Value::Null,
        ),
        ("login.failed", &json!({"email": null}), &Value::Null),
        ("session.started", &json!({"user_id": member}), &session),
    ];
    assert_eq!(told, expected);
    for (_, row) in &entries {
        assert_eq!(
            (&row["category"], &row["actor_type"]),
            (&json!("security"), &json!("guest"))
        );
        assert_eq!(
            (&row["request_id"], &row["ip"]),
            (&json!("try-1"), &json!("203.0.113.7"))
        );
        let text = row.to_string();
        assert!(!text.contains("hunter2") && !text.contains(PASSWORD), "{text}");
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn a_refresh_answers_like_a_login_with_new_tokens() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let before = world
        .login("acme", &world.acme.member.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let after = refresh(&world, before["refresh_token"].as_str().unwrap())
        .await
        .expect(200)
        .json();
    for member in ["user", "tenant", "token_type", "expires_in"] {
        assert_eq!(after[member], before[member]);
    }
    assert_eq!(
        after.as_object().unwrap().len(),
        before.as_object().unwrap().len()
    );
    for token in ["access_token", "refresh_token"] {
        assert_ne!(after[token], before[token]);
    }
    me(&world, after["access_token"].as_str().unwrap())
        .await
        .expect(200);
    let next = refresh(&world, after["refresh_token"].as_str().unwrap())
        .await
        .expect(200)
        .json();
    assert_ne!(next["refresh_token"], after["refresh_token"]);
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn a_refresh_token_used_twice_within_ten_seconds_has_the_same_child_again() {
    let world = World::new().await;
    let parent = &world.acme.member.refresh_token;
    let first = refresh(&world, parent).await.expect(200).json();
    world.clock.advance(Duration::seconds(9));
    let second = refresh(&world, parent).await.expect(200).json();
    assert_eq!(second["refresh_token"], first["refresh_token"]);
    me(&world, second["access_token"].as_str().unwrap())
        .await
        .expect(200);
    let child = refresh(&world, first["refresh_token"].as_str().unwrap())
        .await
        .expect(200)
        .json();
    assert_ne!(child["refresh_token"], first["refresh_token"]);
    assert!(
        !actions(&world, &world.acme)
            .await
            .contains(&"refresh_token.reused".to_owned())
    );
}

#[actix_web::test]
async fn five_refreshes_at_once_get_one_child() {
    let world = World::new().await;
    let parent = &world.acme.member.refresh_token;
    let replies = join_all((0..5).map(|_| refresh(&world, parent))).await;
    let children: BTreeSet<_> = replies
        .into_iter()
        .map(|reply| text(&reply.expect(200).json()["refresh_token"]))
        .collect();
    assert_eq!(children.len(), 1, "{children:?}");
    refresh(&world, children.first().unwrap()).await.expect(200);
}

/// The server that rotated the token has a clock ten minutes ahead of the one that sees the used token.
#[actix_web::test]
async fn clock_that_is_ahead_stretches_no_grace_of_used_tokens() {
    let world = World::new().await;
    let stolen = login(&world, &world.acme, &world.acme.member).await;
    world.clock.advance(Duration::minutes(10));
    refresh(&world, &stolen.refresh_token).await.expect(200);
    world.clock.advance(Duration::seconds(12) - Duration::minutes(10));
    refresh(&world, &stolen.refresh_token)
        .await
        .problem(401, "token_revoked");
}

#[actix_web::test]
async fn a_used_up_refresh_token_ends_its_session() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let stolen = login(&world, &world.acme, &world.acme.member).await;
    let child = refresh(&world, &stolen.refresh_token).await.expect(200).json();
    let (access, current) = (text(&child["access_token"]), text(&child["refresh_token"]));
    let session = part(&access, 1)["sid"].clone();
    world.clock.advance(Duration::seconds(11));
    me(&world, &access).await.expect(200);

    let request = world.client.post(
        "/api/v1/auth/refresh",
        &json!({"refresh_token": stolen.refresh_token}),
    );
    request
        .header("X-Request-ID", "thief-1")
        .await
        .problem(401, "token_revoked");
    refresh(&world, &current).await.problem(401, "token_revoked");
    for token in [&stolen.access_token, &access] {
        me(&world, token).await.problem(401, "token_revoked");
    }
    // Once is enough: the session has ended by then.
    refresh(&world, &stolen.refresh_token)
        .await
        .problem(401, "token_revoked");
    let reused: Vec<_> = world
        .audit(&world.acme)
        .await
        .into_iter()
        .filter(|(action, _)| action == "refresh_token.reused")
        .collect();
    let [(_, row)] = &reused[..] else {
        panic!("{reused:?}")
    };
    assert_eq!(
        (&row["category"], &row["target_id"]),
        (&json!("security"), &session)
    );
    assert_eq!(
        (&row["request_id"], &row["after"]),
        (&json!("thief-1"), &json!({"user_id": stolen.id}))
    );

    // The user's other session, and everybody else's, live on.
    for who in [&world.acme.member, &world.acme.admin] {
        world.get(who, ME).await.expect(200);
        refresh(&world, &who.refresh_token).await.expect(200);
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn two_tenants_in_one_request_are_refused_at_login_and_refresh() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let refresh = |token: &str, bearer: &str| {
        let body = json!({"refresh_token": token});
        let request = world.client.post("/api/v1/auth/refresh", &body);
        request.bearer(bearer).send()
    };
    let login = |bearer: &str| {
        let body = json!({"tenant_slug": "acme", "email": acme.admin.email, "password": PASSWORD});
        let request = world.client.post("/api/v1/auth/login", &body);
        request.bearer(bearer).send()
    };
    let before = world.digest(globex).await;
    for expired in [false, true] {
        if expired {
            world.clock.advance(chrono::Duration::minutes(16));
        }
        let theirs = &globex.admin.access_token;
        let reply = refresh(&acme.admin.refresh_token, theirs).await;
        reply.problem(403, "tenant_mismatch");
        login(theirs).await.problem(403, "tenant_mismatch");
    }
    assert_eq!(world.digest(globex).await, before);
    let recorded = actions(&world, acme).await;
    let mismatches = recorded.iter().filter(|action| *action == "tenant.mismatch");
    // What repeats within the hour is counted, not stored again.
    assert_eq!(mismatches.count(), 1, "{recorded:?}");
    // A token of the same tenant agrees, and so does what is no token of ours.
    login(&acme.viewer.access_token).await.expect(200);
    login("nonsense").await.expect(200);
    refresh(&acme.admin.refresh_token, &acme.admin.access_token)
        .await
        .expect(200);
}

/// Which of two credentials counts is nothing that a server may guess, on public routes and those of operators too.
#[actix_web::test]
async fn two_credentials_that_differ_are_refused_on_every_kind_of_route() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let new = json!({"name": "Ours", "scopes": ["tasks.read"]});
    let key = world.post(&acme.admin, "/api/v1/api-keys", &new).await;
    let key = key.expect(201).json()["key"].as_str().unwrap().to_owned();
    let operator = world.operator("olga@ops.example").await;
    let bodies = [
        (
            "login",
            json!({"tenant_slug": "globex", "email": globex.admin.email, "password": PASSWORD}),
        ),
        ("refresh", json!({"refresh_token": globex.admin.refresh_token})),
        (
            "forgot-password",
            json!({"tenant_slug": "globex", "email": globex.admin.email}),
        ),
        ("discover", json!({"email": globex.admin.email})),
    ];
    let before = world.digest(globex).await;
    for bearer in [&globex.admin.access_token, &operator, "junk"] {
        for (route, body) in &bodies {
            let request = world.client.post(&format!("/api/v1/auth/{route}"), body);
            let reply = request.bearer(bearer).header("X-API-Key", &key).await;
            reply.problem(401, "unauthenticated");
        }
    }
    let tenants = world.client.get("/api/v1/admin/tenants").bearer(&operator);
    let reply = tenants.header("X-API-Key", &key).await;
    reply.problem(401, "unauthenticated");
    assert_eq!(world.digest(globex).await, before);
}

#[actix_web::test]
async fn what_is_no_refresh_token_of_ours_gets_nothing_and_ends_nothing() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let (ours, theirs) = (
        &world.acme.member.refresh_token,
        &world.globex.member.refresh_token,
    );
    let sid = part(&world.acme.member.access_token, 1)["sid"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    // Somebody who knows tenant and session, but not the key.
    let foreign = HmacRefreshTokens::new(&[7; 32]).first(world.acme.id, sid).token;
    assert_eq!(foreign.len(), ours.len());
    // Tenant and session of one token with the secret of another, and every other way of tampering.
    let mut bytes = URL_SAFE_NO_PAD.decode(&ours[3..]).unwrap();
    bytes[..32].copy_from_slice(&URL_SAFE_NO_PAD.decode(&theirs[3..]).unwrap()[..32]);
    let spliced = format!("rt_{}", URL_SAFE_NO_PAD.encode(&bytes));
    let flipped = |at: usize| {
        let mut bytes = URL_SAFE_NO_PAD.decode(&ours[3..]).unwrap();
        bytes[at] ^= 1;
        format!("rt_{}", URL_SAFE_NO_PAD.encode(&bytes))
    };
    let rubbish = [
        String::new(),
        "rt_".into(),
        "null".into(),
        "ünïcödé".into(),
        "x".repeat(5000),
        ours[3..].to_owned(),
        ours[..ours.len() - 1].to_owned(),
        format!("{ours}A"),
        format!(" {ours}"),
        world.acme.member.access_token.clone(),
        foreign,
        spliced,
        flipped(0),
        flipped(20),
        flipped(40),
        flipped(79),
    ];
    let mut seen = BTreeSet::new();
    for token in &rubbish {
        let reply = refresh(&world, token).await.expect(401);
        assert!(
            reply
                .header("www-authenticate")
                .is_some_and(|challenge| challenge.starts_with("Bearer"))
        );
        seen.insert(indistinguishable(&reply));
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
    refresh(&world, ours).await.expect(200);
}

#[actix_web::test]
async fn a_refresh_token_is_stored_as_a_hash_only() {
    let world = World::new().await;
    let token = refresh(&world, &world.acme.member.refresh_token)
        .await
        .expect(200)
        .json();
    let token = text(&token["refresh_token"]);
    let bytes = URL_SAFE_NO_PAD.decode(&token[3..]).unwrap();
    let secret: String = bytes[32..].iter().map(|byte| format!("{byte:02x}")).collect();
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT s::text FROM refresh_sessions s UNION ALL SELECT a::text FROM audit_events a",
    )
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    assert!(
        rows.iter()
            .all(|row| !row.contains(&token) && !row.contains(&secret))
    );
}

#[actix_web::test]
async fn a_user_who_is_not_active_or_not_there_any_more_cannot_refresh() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    patch_user(&world, member.id, json!({"is_active": false}))
        .await
        .expect(200);
    remove_user(&world, viewer.id).await.expect(204);
    for who in [member, viewer] {
        refresh(&world, &who.refresh_token)
            .await
            .problem(401, "token_revoked");
    }
    // It is the stored user that counts, not that their sessions were ended along with them.
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    world
        .sql(&format!(
            "UPDATE users SET is_active = false WHERE id = '{}'",
            member.id
        ))
        .await;
    world
        .sql(&format!(
            "UPDATE users SET deleted_at = now() WHERE id = '{}'",
            viewer.id
        ))
        .await;
    for who in [member, viewer] {
        refresh(&world, &who.refresh_token)
            .await
            .problem(401, "token_revoked");
        world.get(who, ME).await.problem(401, "token_revoked");
    }
}

#[actix_web::test]
async fn a_session_ends_after_thirty_days_without_a_refresh() {
    let options = Options {
        session_max_days: 365,
        ..Options::default()
    };
    let world = World::with(options).await;
    let (kept, left) = (&world.acme.member, &world.acme.viewer);
    // Without an idle timeout that is shorter.
    let idle = json!({"security.session_idle_minutes": 43_200});
    let patch = world.patch(&world.acme.admin, "/api/v1/tenant/settings", &idle);
    patch.await.expect(200);
    world.clock.advance(Duration::days(29));
    let json = refresh(&world, &kept.refresh_token).await.expect(200).json();
    world.clock.advance(Duration::days(2));
    refresh(&world, &left.refresh_token)
        .await
        .problem(401, "token_revoked");
    // A refresh begins the thirty days anew.
    let json = refresh(&world, json["refresh_token"].as_str().unwrap())
        .await
        .expect(200)
        .json();
    world.clock.advance(Duration::days(29));
    let json = refresh(&world, json["refresh_token"].as_str().unwrap())
        .await
        .expect(200)
        .json();
    world.clock.advance(Duration::days(31));
    refresh(&world, json["refresh_token"].as_str().unwrap())
        .await
        .problem(401, "token_revoked");
}

#[actix_web::test]
async fn session_ends_thirty_days_after_its_login_however_used() {
    let world = World::new().await;
    let idle = json!({"security.session_idle_minutes": 43_200});
    let patch = world.patch(&world.acme.admin, "/api/v1/tenant/settings", &idle);
    patch.await.expect(200);
    let mut member = login(&world, &world.acme, &world.acme.member).await;
    for _ in 0..2 {
        world.clock.advance(Duration::days(14));
        let reply = refresh(&world, &member.refresh_token).await.expect(200).json();
        member.refresh_token = reply["refresh_token"].as_str().unwrap().to_owned();
    }
    world.clock.advance(Duration::days(2) - Duration::seconds(1));
    let reply = refresh(&world, &member.refresh_token).await.expect(200).json();
    let last = reply["refresh_token"].as_str().unwrap();
    world.clock.advance(Duration::seconds(1));
    let reply = refresh(&world, last).await.problem(401, "token_revoked");
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("at most 30 days from its login"), "{detail}");
    let audit = world.audit(&world.acme).await;
    let ended = audit.iter().filter(|(action, _)| action == "session.ended");
    let reasons: Vec<_> = ended.map(|(_, row)| row["after"]["reason"].clone()).collect();
    assert_eq!(reasons, ["lifetime"]);
    // It has ended, so it is not told again, and a login begins another one.
    let again = refresh(&world, last).await.problem(401, "token_revoked");
    assert!(
        !again.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .contains("30 days")
    );
    login(&world, &world.acme, &world.acme.member).await;
}

/// A longest lifetime that was lowered holds for sessions that began before, too.
#[actix_web::test]
async fn lowered_lifetime_ends_older_sessions_at_their_refresh() {
    let world = World::new().await;
    let idle = json!({"security.session_idle_minutes": 43_200});
    let patch = world.patch(&world.acme.admin, "/api/v1/tenant/settings", &idle);
    patch.await.expect(200);
    world.clock.advance(Duration::days(2));
    let options = Options {
        session_max_days: 1,
        ..Options::default()
    };
    let client = world.other_instance(&options).await;
    let body = json!({"refresh_token": world.acme.member.refresh_token});
    let reply = client.post("/api/v1/auth/refresh", &body).await;
    let reply = reply.problem(401, "token_revoked");
    assert!(
        reply.json()["detail"]
            .as_str()
            .unwrap()
            .contains("at most 1 days")
    );
}

/// Clocks may differ by 30 seconds.
#[actix_web::test]
async fn an_access_token_expires_after_fifteen_minutes() {
    let world = World::new().await;
    let member = login(&world, &world.acme, &world.acme.member).await;
    world.clock.advance(Duration::seconds(900 + 29));
    world.get(&member, ME).await.expect(200);
    world.clock.advance(Duration::seconds(1));
    let reply = world.get(&member, ME).await.problem(401, "token_expired");
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Bearer error=\"invalid_token\"")
    );
    refresh(&world, &member.refresh_token).await.expect(200);
}

#[actix_web::test]
async fn a_forged_access_token_is_not_accepted() {
    let world = World::new().await;
    let both = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let forged = forged_tokens(&world).await;
    for token in &forged {
        let reply = me(&world, token).await.problem(401, "unauthenticated");
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Bearer error=\"invalid_token\""),
            "{token}"
        );
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        both
    );
    me(&world, &world.acme.viewer.access_token).await.expect(200);
}

/// Tokens that nobody gave out, made of what a viewer of Acme has and of what everybody can know.
pub async fn forged_tokens(world: &World) -> Vec<String> {
    let real = &world.acme.viewer.access_token;
    let (header, claims) = (part(real, 0), part(real, 1));
    let [first, second, signature] = real.split('.').collect::<Vec<_>>()[..] else {
        panic!("{real}")
    };
    let with = |changes: Value| {
        let mut changed = claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            changed[name] = value.clone();
        }
        encoded(&changed)
    };
    let mut forged = vec![
        format!("{first}.{}.{signature}", with(json!({"role": "admin"}))),
        format!(
            "{first}.{}.{signature}",
            with(json!({"sub": world.acme.admin.id}))
        ),
        format!("{first}.{}.{signature}", with(json!({"tid": world.globex.id}))),
        format!("{first}.{}.{signature}", with(json!({"exp": 4_000_000_000_i64}))),
        format!("{first}.{second}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
        format!(
            "{first}.{second}.{}",
            world.globex.admin.access_token.rsplit('.').next().unwrap()
        ),
        format!("{first}.{second}."),
        format!("{first}.{second}"),
        format!("{real}."),
        format!("{real}{}", &signature[..4]),
        second.to_owned(),
        "nonsense".to_owned(),
        "..".to_owned(),
        "x".repeat(10_000),
        world.acme.viewer.refresh_token.clone(),
    ];
    for algorithm in ["none", "None", "NONE", ""] {
        for header in [
            json!({"alg": algorithm, "typ": "at+jwt", "kid": header["kid"]}),
            json!({"alg": algorithm}),
        ] {
            forged.push(format!("{}.{second}.", encoded(&header)));
            forged.push(format!("{}.{second}.{signature}", encoded(&header)));
        }
    }
    forged.extend(symmetric(world, real).await);
    // A key of somebody's own, under its own name and under ours.
    let ids = Arc::new(SystemIds);
    let keys = SigningKeyRing::new(vec![SigningKey::generate()], Arc::clone(&world.clock) as Arc<_>);
    let other = JwtAccessTokens::new(
        Arc::new(keys.unwrap()),
        "tenantry".into(),
        "tenantry-api".into(),
        900,
        Arc::clone(&world.clock) as Arc<_>,
        ids,
    );
    let other = other
        .unwrap()
        .sign(&access_claims(world, &world.acme, &world.acme.admin));
    forged.push(format!("{first}.{}", other.split_once('.').unwrap().1));
    forged.push(other);
    forged
}

/// What a token of ours says of somebody who is logged in.
fn access_claims(world: &World, tenant: &TenantWorld, who: &Person) -> AccessClaims {
    let issued_at = world.clock.now();
    AccessClaims {
        tenant: tenant.id,
        user: who.id,
        session: part(&who.access_token, 1)["sid"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
        role: Role::Admin,
        factor_at: None,
        methods: AuthMethods::PASSWORD,
        issued_at,
        expires_at: issued_at + Duration::minutes(15),
    }
}

/// The token signed with HS256 under everything that somebody could take our public key for: a verifier that
/// lets the header choose the algorithm would accept one of them.
async fn symmetric(world: &World, token: &str) -> Vec<String> {
    let jwks = world
        .client
        .get("/.well-known/jwks.json")
        .await
        .expect(200)
        .json();
    let x = text(&jwks["keys"][0]["x"]);
    let raw = URL_SAFE_NO_PAD.decode(&x).unwrap();
    // RFC 8410 section 4: the fixed beginning of a SubjectPublicKeyInfo of Ed25519.
    let spki = [
        &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0],
        &raw[..],
    ]
    .concat();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&spki);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{base64}\n-----END PUBLIC KEY-----\n");
    let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": part(token, 0)["kid"]});
    let message = format!("{}.{}", encoded(&header), token.split('.').nth(1).unwrap());
    let mut tokens = Vec::new();
    for key in [raw, x.into_bytes(), spki, pem.into_bytes()] {
        let mac = hmac_sha256(world, &key, message.as_bytes()).await;
        tokens.push(format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac)));
    }
    tokens
}

/// RFC 2104 over the database's SHA-256.
async fn hmac_sha256(world: &World, key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut admin = world.database.admin().await;
    let mut hash = async |bytes: Vec<u8>| -> Vec<u8> {
        sqlx::query_scalar("SELECT sha256($1)")
            .bind(bytes)
            .fetch_one(&mut admin)
            .await
            .unwrap()
    };
    let mut block = if key.len() > 64 {
        hash(key.to_vec()).await
    } else {
        key.to_vec()
    };
    block.resize(64, 0);
    let padded = |pad: u8| block.iter().map(|byte| byte ^ pad).collect::<Vec<_>>();
    let inner = hash([&padded(0x36)[..], message].concat()).await;
    hash([&padded(0x5c)[..], &inner].concat()).await
}

#[actix_web::test]
async fn a_token_signed_by_us_for_a_tenant_its_user_is_not_in_is_worth_nothing() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let sign = |claims: &AccessClaims| world.app.ports.access_tokens.sign(claims);
    let (acme, theirs) = (&world.acme, &world.globex);
    let honest = access_claims(&world, acme, &acme.admin);
    me(&world, &sign(&honest)).await.expect(200);
    for claims in [
        AccessClaims {
            tenant: theirs.id,
            ..honest.clone()
        },
        AccessClaims {
            tenant: theirs.id,
            user: theirs.admin.id,
            ..honest.clone()
        },
        AccessClaims {
            user: theirs.admin.id,
            ..honest.clone()
        },
        AccessClaims {
            user: acme.member.id,
            ..honest.clone()
        },
        AccessClaims {
            tenant: world.acme.project.uuid().into(),
            ..honest
        },
    ] {
        me(&world, &sign(&claims)).await.problem(401, "token_revoked");
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}

#[actix_web::test]
async fn the_role_in_a_token_decides_nothing() {
    let world = World::new().await;
    let claims = access_claims(&world, &world.acme, &world.acme.viewer);
    assert_eq!(claims.role, Role::Admin);
    let token = world.app.ports.access_tokens.sign(&claims);
    assert_eq!(
        me(&world, &token).await.expect(200).json()["user"]["role"],
        "viewer"
    );
    let request = world
        .client
        .patch("/api/v1/tenant", &json!({"name": "Mine"}))
        .bearer(&token);
    request.await.problem(403, "forbidden");
}

#[actix_web::test]
async fn who_sends_no_bearer_token_is_told_how_to() {
    let world = World::new().await;
    let token = &world.acme.member.access_token;
    let reply = world.client.get(ME).await.problem(401, "unauthenticated");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    for value in [
        "Bearer",
        "Bearer ",
        "Basic bWU6c2VjcmV0",
        token,
        &format!("Token {token}"),
        "",
    ] {
        let reply = world
            .client
            .get(ME)
            .header("Authorization", value)
            .await
            .problem(401, "unauthenticated");
        assert!(
            reply
                .header("www-authenticate")
                .is_some_and(|challenge| challenge.starts_with("Bearer")),
            "{value}"
        );
    }
    // The name of the scheme has no case (RFC 9110 section 11.1).
    world
        .client
        .get(ME)
        .header("Authorization", format!("bearer {token}"))
        .await
        .expect(200);
    // A token in the address would end in logs; it is no credential there.
    world
        .client
        .get(&format!("{ME}?access_token={token}"))
        .await
        .problem(401, "unauthenticated");
}

#[actix_web::test]
async fn a_logout_ends_its_session_and_no_other() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let here = login(&world, &world.acme, &world.acme.member).await;
    let reply = world
        .client
        .request(actix_web::http::Method::POST, "/api/v1/auth/logout")
        .bearer(&here.access_token);
    let reply = reply.await.expect(204);
    assert!(reply.bytes.is_empty());
    let revoked = world.get(&here, ME).await.problem(401, "token_revoked");
    assert_eq!(
        revoked.header("www-authenticate"),
        Some("Bearer error=\"invalid_token\"")
    );
    refresh(&world, &here.refresh_token)
        .await
        .problem(401, "token_revoked");
    let (action, row) = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(
        (action.as_str(), &row["target_id"]),
        ("session.ended", &part(&here.access_token, 1)["sid"])
    );
    assert_eq!(row["actor_id"], json!(here.id));
    // There is nothing left to log out of.
    world
        .post(&here, "/api/v1/auth/logout", &json!({}))
        .await
        .problem(401, "token_revoked");
    world
        .client
        .post("/api/v1/auth/logout", &json!({}))
        .await
        .problem(401, "unauthenticated");

    let elsewhere = &world.acme.member;
    assert_eq!(elsewhere.id, here.id);
    for who in [elsewhere, &world.acme.viewer] {
        world.get(who, ME).await.expect(200);
        refresh(&world, &who.refresh_token).await.expect(200);
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}

/// The session that ends is the credential's, whatever tokens the body has.
#[actix_web::test]
async fn a_logout_revokes_no_token_of_another_tenant() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let here = login(&world, &world.acme, &world.acme.member).await;
    let other = &world.globex.member;
    let token = &other.refresh_token;
    let body = json!({"refresh_token": token, "token": token, "token_type_hint": "refresh_token"});
    world.post(&here, "/api/v1/auth/logout", &body).await.expect(204);
    world.get(&here, ME).await.problem(401, "token_revoked");
    assert_eq!(world.digest(&world.globex).await, globex);
    world.get(other, ME).await.expect(200);
    refresh(&world, token).await.expect(200);
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let logout = &document["paths"]["/api/v1/auth/logout"]["post"];
    assert!(logout.get("requestBody").is_none());
    let text = logout["description"].as_str().unwrap();
    assert!(text.contains("a token in it is not revoked"), "{text}");
}

#[actix_web::test]
async fn a_suspended_tenant_lets_its_people_in_and_out() {
    let world = World::new().await;
    world.set_status(&world.acme, "suspended").await;
    let json = world
        .login("acme", &world.acme.viewer.email, PASSWORD)
        .await
        .expect(200)
        .json();
    assert_eq!(json["tenant"]["status"], "suspended");
    let json = refresh(&world, json["refresh_token"].as_str().unwrap())
        .await
        .expect(200)
        .json();
    let token = json["access_token"].as_str().unwrap();
    me(&world, token).await.expect(200);
    world
        .client
        .post("/api/v1/auth/logout", &json!({}))
        .bearer(token)
        .await
        .expect(204);
    me(&world, token).await.problem(401, "token_revoked");
}

#[actix_web::test]
async fn everybody_sees_who_and_where_they_are() {
    let world = World::new().await;
    for tenant in [&world.acme, &world.globex] {
        for (who, role) in [
            (&tenant.admin, "admin"),
            (&tenant.member, "member"),
            (&tenant.viewer, "viewer"),
        ] {
            let reply = world.get(who, ME).await.expect(200);
            assert_eq!(reply.header("tenant-resolved-by"), Some("credential"));
            let json = reply.json();
            let user = world
                .get(who, &format!("/api/v1/users/{}", who.id))
                .await
                .expect(200)
                .json();
            let own = world.get(who, "/api/v1/tenant").await.expect(200).json();
            assert_eq!(json, json!({"user": user, "tenant": own}));
            assert_eq!(
                (&json["user"]["id"], &json["user"]["role"]),
                (&json!(who.id), &json!(role))
            );
            assert_eq!(
                (&json["tenant"]["id"], &json["tenant"]["slug"]),
                (&json!(tenant.id), &json!(tenant.slug))
            );
        }
    }
}

#[actix_web::test]
async fn a_change_of_role_holds_at_once_for_tokens_that_are_out() {
    let world = World::new().await;
    let member = &world.acme.member;
    let rename = |name: &str| {
        world
            .patch(member, "/api/v1/tenant", &json!({"name": name}))
            .send()
    };
    let write = |name: &str| {
        world
            .post(member, "/api/v1/projects", &json!({"name": name}))
            .send()
    };
    rename("Mine").await.problem(403, "forbidden");
    patch_user(&world, member.id, json!({"role": "admin"}))
        .await
        .expect(200);
    rename("Ours").await.expect(200);
    assert_eq!(
        world.get(member, ME).await.expect(200).json()["user"]["role"],
        "admin"
    );
    patch_user(&world, member.id, json!({"role": "viewer"}))
        .await
        .expect(200);
    rename("Mine").await.problem(403, "forbidden");
    write("New").await.problem(403, "forbidden");
    patch_user(&world, member.id, json!({"role": "member"}))
        .await
        .expect(200);
    write("New").await.expect(201);
    // A refreshed token says the new role.
    patch_user(&world, member.id, json!({"role": "viewer"}))
        .await
        .expect(200);
    let json = refresh(&world, &member.refresh_token).await.expect(200).json();
    assert_eq!(part(json["access_token"].as_str().unwrap(), 1)["role"], "viewer");
}

#[actix_web::test]
async fn who_is_deactivated_or_removed_is_out_at_once() {
    let world = World::new().await;
    let (member, viewer) = (&world.acme.member, &world.acme.viewer);
    let member_elsewhere = login(&world, &world.acme, member).await;
    patch_user(&world, member.id, json!({"is_active": false}))
        .await
        .expect(200);
    remove_user(&world, viewer.id).await.expect(204);
    for who in [member, &member_elsewhere, viewer] {
        for path in [ME, "/api/v1/projects"] {
            world.get(who, path).await.problem(401, "token_revoked");
        }
        refresh(&world, &who.refresh_token)
            .await
            .problem(401, "token_revoked");
    }
    // Who is let in again has to log in again.
    patch_user(&world, member.id, json!({"is_active": true}))
        .await
        .expect(200);
    world.get(member, ME).await.problem(401, "token_revoked");
    refresh(&world, &member.refresh_token)
        .await
        .problem(401, "token_revoked");
    let again = login(&world, &world.acme, member).await;
    world.get(&again, ME).await.expect(200);
    world.get(&world.acme.admin, ME).await.expect(200);
}

/// Runs requests into a row lock: the change is kept open until that many of them wait for it, then commits.
pub(crate) async fn overtaken<T>(
    world: &World,
    change: &str,
    waiters: i64,
    requests: impl Future<Output = T>,
) -> T {
    let mut admin = world.database.admin().await;
    let begin = AssertSqlSafe(format!("BEGIN; {change}"));
    sqlx::raw_sql(begin).execute(&mut admin).await.unwrap();
    let commit = async {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while world.waiting_for_locks().await < waiters {
            assert!(
                std::time::Instant::now() < deadline,
                "the requests never came to the row"
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut admin).await.unwrap();
    };
    join(requests, commit).await.0
}

#[actix_web::test]
async fn a_login_that_is_overtaken_by_a_change_of_the_user_fails() {
    let world = World::new().await;
    let member = &world.acme.member;
    let unknown = world.login("acme", "nobody@acme.example", PASSWORD).await;
    let sessions = "SELECT count(*) FROM refresh_sessions";
    let count = async || -> i64 {
        sqlx::query_scalar(sessions)
            .fetch_one(&mut world.database.admin().await)
            .await
            .unwrap()
    };
    let before = count().await;
    // Everybody has the same password.
    let undo = format!(
        "UPDATE users SET is_active = true, deleted_at = NULL, \
         password_hash = (SELECT password_hash FROM users WHERE id = '{}') WHERE id = '{}'",
        world.acme.viewer.id, member.id
    );
    // The password was right and the user active when it was verified.
    for change in [
        "is_active = false",
        "deleted_at = now()",
        "password_hash = 'another'",
    ] {
        let change = format!("UPDATE users SET {change} WHERE id = '{}'", member.id);
        let reply = overtaken(&world, &change, 1, world.login("acme", &member.email, PASSWORD)).await;
        let reply = reply.problem(401, "invalid_credentials");
        assert_eq!(indistinguishable(&reply), indistinguishable(&unknown));
        assert_eq!(count().await, before, "no session was begun");
        let (action, row) = world.audit(&world.acme).await.pop().unwrap();
        assert_eq!(
            (action.as_str(), &row["target_id"]),
            ("login.failed", &json!(member.id))
        );
        world.sql(&undo).await;
    }
    world.login("acme", &member.email, PASSWORD).await.expect(200);
}

#[actix_web::test]
async fn a_refresh_that_is_overtaken_by_the_end_of_its_session_fails() {
    let world = World::new().await;
    let member = &world.acme.member;
    let end = format!(
        "UPDATE refresh_sessions SET revoked_at = now() WHERE user_id = '{}'",
        member.id
    );
    overtaken(&world, &end, 1, refresh(&world, &member.refresh_token))
        .await
        .problem(401, "token_revoked");
    // What it waits for need not be its end.
    let end = format!(
        "UPDATE refresh_sessions SET revoked_at = NULL WHERE user_id = '{}'",
        member.id
    );
    overtaken(&world, &end, 1, refresh(&world, &member.refresh_token))
        .await
        .expect(200);
}

#[actix_web::test]
async fn what_ends_a_session_ends_it_here_at_once_and_elsewhere_within_a_second() {
    let world = World::new().await;
    let options = Options::default();
    let app = world.instance(&options).app;
    let there = Client::new(Api::new(app, options.http, Arc::new(Readiness::new()))).await;
    let me_here = |who: &Person| world.get(who, ME).send();
    let me_there = |who: &Person| there.get(ME).bearer(&who.access_token).send();
    let second = || world.clock.advance(Duration::seconds(1));
    let (admin, member, viewer) = (&world.acme.admin, &world.acme.member, &world.acme.viewer);
    for who in [admin, member, viewer] {
        me_here(who).await.expect(200);
        me_there(who).await.expect(200);
    }
    patch_user(&world, viewer.id, json!({"role": "member"}))
        .await
        .expect(200);
    let role = |reply: Reply| reply.expect(200).json()["user"]["role"].clone();
    assert_eq!(role(me_here(viewer).await), "member");
    second();
    assert_eq!(role(me_there(viewer).await), "member");
    patch_user(&world, viewer.id, json!({"is_active": false}))
        .await
        .expect(200);
    me_here(viewer).await.problem(401, "token_revoked");
    second();
    me_there(viewer).await.problem(401, "token_revoked");
    world
        .post(member, "/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);
    me_here(member).await.problem(401, "token_revoked");
    second();
    me_there(member).await.problem(401, "token_revoked");
    lifecycle::suspend(&world.operator_cx(), world.acme.id, "invoice unpaid")
        .await
        .unwrap();
    let project = json!({"name": "Not now"});
    let create = "/api/v1/projects";
    world
        .post(admin, create, &project)
        .await
        .problem(403, "tenant_suspended");
    second();
    let reply = there.post(create, &project).bearer(&admin.access_token).await;
    reply.problem(403, "tenant_suspended");
    world.set_status(&world.acme, "deleted").await;
    me_here(admin).await.problem(410, "tenant_gone");
    me_there(admin).await.problem(410, "tenant_gone");
    me_there(&world.globex.viewer).await.expect(200);
}

#[actix_web::test]
async fn who_registers_is_a_member_and_logged_in() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let body = json!({
        "tenant_slug": "acme", "email": "Grace@Example.com", "password": "battery staple",
        "full_name": " Grace Hopper ",
    });
    let reply = register(&world, &body).await.expect(201);
    let json = reply.json();
    let tenant = world
        .get(&world.acme.admin, "/api/v1/tenant")
        .await
        .expect(200)
        .json();
    let expected = json!({
        "access_token": json["access_token"], "refresh_token": json["refresh_token"], "token_type": "Bearer",
        "expires_in": 900,
        "user": {
            "id": json["user"]["id"], "email": "grace@example.com", "full_name": "Grace Hopper",
            "role": "member", "custom_role": null, "is_active": true, "email_verified": false,
            "created_at": json["user"]["created_at"], "updated_at": json["user"]["created_at"], "version": 1,
        },
        "tenant": tenant,
    });
    assert_eq!(json, expected);
    let token = json["access_token"].as_str().unwrap();
    let location = reply.header("location").unwrap();
    let user = world.client.get(location).bearer(token).await.expect(200).json();
    assert_eq!(user, json["user"]);
    world
        .client
        .post("/api/v1/projects", &json!({"name": "Hers"}))
        .bearer(token)
        .await
        .expect(201);
    world
        .client
        .patch("/api/v1/tenant", &json!({"name": "Hers"}))
        .bearer(token)
        .await
        .problem(403, "forbidden");
    refresh(&world, json["refresh_token"].as_str().unwrap())
        .await
        .expect(200);
    world
        .login("acme", "grace@example.com", "battery staple")
        .await
        .expect(200);
    assert_eq!(world.digest(&world.globex).await, globex);
    world
        .login("globex", "grace@example.com", "battery staple")
        .await
        .problem(401, "invalid_credentials");

    let audit = world.audit(&world.acme).await;
    let (_, row) = audit
        .iter()
        .find(|(action, _)| action == "user.registered")
        .unwrap();
    assert_eq!(
        (&row["target_id"], &row["actor_type"]),
        (&json["user"]["id"], &json!("guest"))
    );
    assert!(!row.to_string().contains("battery staple") && !row.to_string().contains("$argon2"));
}

#[actix_web::test]
async fn a_tenant_closes_its_registration_for_itself_only() {
    let world = World::new().await;
    let settings = json!({"settings": {"self_registration": false}});
    world
        .patch(&world.acme.admin, "/api/v1/tenant", &settings)
        .await
        .expect(200);
    let before = world.digest(&world.acme).await;
    register(&world, &registration("acme", "grace@example.com"))
        .await
        .problem(403, "forbidden");
    // Whether an address is known here cannot be found out this way either.
    let known = registration("acme", &world.acme.admin.email);
    register(&world, &known).await.problem(403, "forbidden");
    assert_eq!(world.digest(&world.acme).await, before);
    register(&world, &registration("globex", "grace@example.com"))
        .await
        .expect(201);
}

#[actix_web::test]
async fn nobody_registers_in_a_suspended_tenant() {
    let world = World::new().await;
    world.set_status(&world.acme, "suspended").await;
    let before = world.digest(&world.acme).await;
    let body = registration("acme", "grace@example.com");
    register(&world, &body).await.problem(403, "tenant_suspended");
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn a_registration_needs_an_address_of_its_own() {
    let world = World::new().await;
    let before = world.digest(&world.acme).await;
    for email in ["member@acme.example", "Member@ACME.example"] {
        register(&world, &registration("acme", email))
            .await
            .problem(409, "email_taken");
    }
    assert_eq!(world.digest(&world.acme).await, before);
    register(&world, &registration("globex", "member@acme.example"))
        .await
        .expect(201);
    // Of many at once, one.
    let twin = registration("acme", "new@acme.example");
    let mut statuses: Vec<_> = join_all((0..5).map(|_| register(&world, &twin)))
        .await
        .into_iter()
        .map(|reply| reply.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409]);
}

#[actix_web::test]
async fn everything_that_is_wrong_with_a_registration_is_said_at_once() {
    let world = World::new().await;
    let before = world.digest(&world.acme).await;
    let body = json!({"tenant_slug": "acme", "email": "grace", "password": "short", "full_name": "  "});
    let reply = register(&world, &body).await.problem(422, "validation_failed");
    let errors = reply.json()["errors"].clone();
    let fields: BTreeSet<_> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (text(&error["pointer"]), text(&error["code"])))
        .collect();
    let expected = [
        ("/email", "invalid_email"),
        ("/full_name", "invalid_text"),
        ("/password", "weak_password"),
    ];
    assert_eq!(
        fields,
        expected
            .map(|(pointer, code)| (pointer.to_owned(), code.to_owned()))
            .into()
    );
    // Nobody makes themselves more than a member.
    for (field, value) in [
        ("role", json!("admin")),
        ("is_active", json!(true)),
        ("tenant_id", json!(world.globex.id)),
    ] {
        let mut body = registration("acme", "grace@example.com");
        body[field] = value;
        let reply = register(&world, &body).await.problem(422, "unknown_field");
        assert_eq!(reply.json()["errors"][0]["pointer"], format!("/{field}"));
    }
    for length in [11, 129] {
        let mut body = registration("acme", "grace@example.com");
        body["password"] = json!("ü".repeat(length));
        let reply = register(&world, &body).await.problem(422, "validation_failed");
        assert_eq!(reply.json()["errors"][0]["pointer"], "/password");
    }
    assert_eq!(world.digest(&world.acme).await, before);
}
