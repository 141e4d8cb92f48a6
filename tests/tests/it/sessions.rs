//! Sessions of users: which there are, ending them, the idle timeout and the most that a user may have.

use std::sync::Arc;

use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_http::{Api, Readiness};
use tenantry_tests::{Client, Options, PASSWORD, Person, Reply, TenantWorld, World};

use crate::mfa::with_factor;

const SESSIONS: &str = "/api/v1/auth/sessions";
const ME: &str = "/api/v1/auth/me";
const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";

fn person(who: &Person, json: &Value) -> Person {
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    Person {
        access_token: text("access_token"),
        refresh_token: text("refresh_token"),
        ..who.clone()
    }
}

async fn login(world: &World, tenant: &TenantWorld, who: &Person) -> Person {
    let reply = world.login(tenant.slug, &who.email, PASSWORD).await.expect(200);
    person(who, &reply.json())
}

async fn refresh(world: &World, token: &str) -> Reply {
    let body = json!({"refresh_token": token});
    world.client.post("/api/v1/auth/refresh", &body).await
}

async fn set(world: &World, tenant: &TenantWorld, settings: Value) {
    let patch = world.patch(&tenant.admin, "/api/v1/tenant/settings", &settings);
    patch.await.expect(200);
}

/// A page of the sessions of somebody.
async fn sessions(world: &World, who: &Person, query: &str) -> Value {
    let path = format!("{SESSIONS}{query}");
    world.get(who, &path).await.expect(200).json()
}

fn ids(page: &Value) -> Vec<String> {
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

async fn current(world: &World, who: &Person) -> String {
    let page = sessions(world, who, "").await;
    let rows = page["data"].as_array().unwrap();
    let current = rows.iter().filter(|row| row["current"] == true);
    let current: Vec<_> = current.collect();
    assert_eq!(current.len(), 1, "{page}");
    current[0]["id"].as_str().unwrap().to_owned()
}

async fn count(world: &World, condition: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM refresh_sessions WHERE {condition}");
    let query = sqlx::query_scalar(AssertSqlSafe(sql));
    query.fetch_one(&mut world.database.admin().await).await.unwrap()
}

#[actix_web::test]
async fn list_has_own_live_sessions_only() {
    let world = World::new().await;
    let member = &world.acme.member;
    world.clock.advance(Duration::minutes(1));
    let body = json!({"tenant_slug": "acme", "email": member.email, "password": PASSWORD});
    let phone = world.client.post("/api/v1/auth/login", &body);
    let phone = phone.header("User-Agent", "A phone").await.expect(200);
    let phone = person(member, &phone.json());
    let gone = login(&world, &world.acme, member).await;
    world
        .post(&gone, "/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);
    world.clock.advance(Duration::minutes(1));
    let refreshed = refresh(&world, &member.refresh_token).await.expect(200);
    let refreshed = person(member, &refreshed.json());

    let page = sessions(&world, &phone, "").await;
    let rows = page["data"].as_array().unwrap();
    assert_eq!((rows.len(), &page["next_cursor"]), (2, &Value::Null), "{page}");
    let newest = &rows[0];
    assert_eq!(newest["user_agent"], "A phone");
    assert_eq!(
        (&newest["current"], &newest["trusted"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(newest["created_at"], newest["last_used_at"]);
    assert_eq!(rows[1]["current"], false);
    assert!(
        rows[1]["created_at"].as_str() < rows[1]["last_used_at"].as_str(),
        "{page}"
    );
    let fields: Vec<_> = newest.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "address",
        "created_at",
        "current",
        "id",
        "last_used_at",
        "trusted",
        "user_agent",
    ];
    assert_eq!(fields, expected);
    let of_other = sessions(&world, &refreshed, "").await;
    assert_eq!(ids(&of_other), ids(&page));
    assert_eq!(of_other["data"][1]["current"], true);
    for other in [&world.acme.admin, &world.acme.viewer, &world.globex.member] {
        let theirs = ids(&sessions(&world, other, "").await);
        assert!(theirs.iter().all(|id| !ids(&page).contains(id)), "{theirs:?}");
    }
}

#[actix_web::test]
async fn ten_thousand_sessions_are_paged_and_cut_at_the_next_login() {
    let world = World::new().await;
    let member = &world.acme.member;
    let sql = format!(
        "INSERT INTO refresh_sessions (tenant_id, id, created_at, user_id, token_hash, expires_at) \
         SELECT s.tenant_id, gen_random_uuid(), s.created_at - n * interval '1 millisecond', s.user_id, sha256(n::text::bytea), \
         s.expires_at FROM refresh_sessions s, generate_series(1, 10000) n WHERE s.user_id = '{}'",
        member.id
    );
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .unwrap();
    let first = sessions(&world, member, "?limit=100").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = sessions(&world, member, &format!("?limit=100&cursor={cursor}")).await;
    let (first, second) = (ids(&first), ids(&second));
    assert_eq!((first.len(), second.len()), (100, 100));
    assert!(second.iter().all(|id| !first.contains(id)));
    let newest = login(&world, &world.acme, member).await;
    let left = sessions(&world, &newest, "?limit=100").await;
    assert_eq!((ids(&left).len(), &left["next_cursor"]), (20, &Value::Null));
    let open = format!("user_id = '{}' AND revoked_at IS NULL", member.id);
    assert_eq!(count(&world, &open).await, 20);
    let (_, event) = world
        .audit(&world.acme)
        .await
        .into_iter()
        .find(|(action, _)| action == "session.ended")
        .unwrap();
    let expected = json!({"user_id": member.id, "sessions": 9_982, "reason": "limit"});
    assert_eq!((&event["after"], &event["risk"]), (&expected, &json!("low")));
}

#[actix_web::test]
async fn own_session_is_ended_at_once_and_no_other() {
    let world = World::new().await;
    let member = &world.acme.member;
    let phone = login(&world, &world.acme, member).await;
    let id = current(&world, &phone).await;
    world
        .delete(member, &format!("{SESSIONS}/{id}"))
        .await
        .expect(204);
    world.get(&phone, ME).await.problem(401, "token_revoked");
    refresh(&world, &phone.refresh_token)
        .await
        .problem(401, "token_revoked");
    world.get(member, ME).await.expect(200);
    let event = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(
        (event.0.as_str(), &event.1["target_id"]),
        ("session.ended", &json!(id))
    );
    // It has ended, so it is not there any more.
    let path = format!("{SESSIONS}/{id}");
    world.delete(member, &path).await.problem(404, "not_found");
    let own = current(&world, member).await;
    world
        .delete(member, &format!("{SESSIONS}/{own}"))
        .await
        .expect(204);
    world.get(member, ME).await.problem(401, "token_revoked");
}

/// A stolen session alone must not throw its owner out, where the tenant says so. One's own session ends without a question.
#[actix_web::test]
async fn ending_other_sessions_takes_a_factor_where_the_tenant_asks() {
    let world = World::new().await;
    let acme = &world.acme;
    let others = [&acme.member, &acme.viewer, &acme.admin, &world.globex.member];
    let mut theirs = Vec::new();
    for (who, tenant) in others.into_iter().zip([acme, acme, acme, &world.globex]) {
        let other = login(&world, tenant, who).await;
        theirs.push(format!("{SESSIONS}/{}", current(&world, &other).await));
    }
    let app = with_factor(&world, &acme.viewer).await;
    set(&world, acme, json!({"security.session_end_step_up": true})).await;
    world.clock.advance(Duration::minutes(10));

    // Without a factor: a login of the last ten minutes. What is not there is refused in the same way.
    let member = &acme.member;
    let nobody = format!("{SESSIONS}/{NOBODY}");
    for path in [&theirs[0], &nobody] {
        world.delete(member, path).await.problem(403, "forbidden");
    }
    let all = "/api/v1/auth/logout-all";
    world
        .post(member, all, &json!({}))
        .await
        .problem(403, "forbidden");
    let own = format!("/api/v1/users/{}/end-sessions", acme.admin.id);
    world
        .post(&acme.admin, &own, &json!({}))
        .await
        .problem(403, "forbidden");
    let fresh = login(&world, acme, member).await;
    world.delete(&fresh, &theirs[0]).await.expect(204);
    world.delete(&fresh, &nobody).await.problem(404, "not_found");
    let present = format!("{SESSIONS}/{}", current(&world, member).await);
    world.delete(member, &present).await.expect(204);
    world.post(&fresh, all, &json!({})).await.expect(204);

    // With one: a code of the last ten minutes.
    let viewer = &acme.viewer;
    world
        .delete(viewer, &theirs[1])
        .await
        .problem(403, "mfa_required");
    world
        .post(viewer, all, &json!({}))
        .await
        .problem(403, "mfa_required");
    let code = json!({"code": app.next_code(&world)});
    let given = world.post(viewer, "/api/v1/auth/mfa/step-up", &code).await;
    let stepped = Person {
        access_token: given.expect(200).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned(),
        ..viewer.clone()
    };
    world.delete(&stepped, &theirs[1]).await.expect(204);
    world
        .post(viewer, "/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);

    // Nothing of it holds in the other tenant, nor for admins who end the sessions of members.
    world.delete(&world.globex.member, &theirs[3]).await.expect(204);
    let members = format!("/api/v1/users/{}/end-sessions", member.id);
    world.post(&acme.admin, &members, &json!({})).await.expect(202);
}

#[actix_web::test]
async fn sessions_of_others_are_the_same_404() {
    let world = World::new().await;
    let member = &world.acme.member;
    let colleague = current(&world, &world.acme.viewer).await;
    let foreign = current(&world, &world.globex.member).await;
    let before = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let end = async |id: &str| {
        let path = format!("{SESSIONS}/{id}");
        world
            .delete(member, &path)
            .await
            .problem(404, "not_found")
            .comparable()
    };
    let expected = end(NOBODY).await;
    for id in [
        colleague.as_str(),
        &foreign,
        "nonsense",
        "%00",
        &"a".repeat(2_000),
    ] {
        assert_eq!(end(id).await, expected, "{id}");
    }
    // An admin has another way.
    let path = format!("{SESSIONS}/{colleague}");
    world
        .delete(&world.acme.admin, &path)
        .await
        .problem(404, "not_found");
    let after = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    assert_eq!(after, before);
}

#[actix_web::test]
async fn logout_all_ends_every_own_session_here_and_elsewhere() {
    let world = World::new().await;
    let options = Options::default();
    let app = world.instance(&options).app;
    let there = Client::new(Api::new(app, options.http, Arc::new(Readiness::new()))).await;
    let member = &world.acme.member;
    let phone = login(&world, &world.acme, member).await;
    let me_there = |who: &Person| there.get(ME).bearer(&who.access_token).send();
    me_there(&phone).await.expect(200);
    let globex = world.digest(&world.globex).await;
    let reply = world
        .post(member, "/api/v1/auth/logout-all", &json!({}))
        .await
        .expect(204);
    assert!(reply.bytes.is_empty());
    for who in [member, &phone] {
        world.get(who, ME).await.problem(401, "token_revoked");
        refresh(&world, &who.refresh_token)
            .await
            .problem(401, "token_revoked");
    }
    world.clock.advance(Duration::seconds(1));
    me_there(&phone).await.problem(401, "token_revoked");
    world.get(&world.acme.viewer, ME).await.expect(200);
    let event = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(
        (event.0.as_str(), &event.1["after"]["sessions"]),
        ("sessions.ended", &json!(2))
    );
    assert_eq!(event.1["actor_id"], json!(member.id));
    assert_eq!(world.digest(&world.globex).await, globex);
    login(&world, &world.acme, member).await;
}

#[actix_web::test]
async fn admin_ends_sessions_of_a_user_in_a_suspended_tenant_too() {
    let world = World::new().await;
    let (admin, member) = (&world.acme.admin, &world.acme.member);
    let path = format!("/api/v1/users/{}/end-sessions", member.id);
    for who in [member, &world.acme.viewer] {
        world.post(who, &path, &json!({})).await.problem(403, "forbidden");
    }
    world.get(member, ME).await.expect(200);
    world.post(admin, &path, &json!({})).await.expect(202);
    world.get(member, ME).await.problem(401, "token_revoked");
    refresh(&world, &member.refresh_token)
        .await
        .problem(401, "token_revoked");
    world.get(admin, ME).await.expect(200);
    let again = login(&world, &world.acme, member).await;
    world.set_status(&world.acme, "suspended").await;
    world.post(admin, &path, &json!({})).await.expect(202);
    world.get(&again, ME).await.problem(401, "token_revoked");
    let foreign = format!("/api/v1/users/{}/end-sessions", world.globex.member.id);
    let nobody = format!("/api/v1/users/{NOBODY}/end-sessions");
    let refused = world
        .post(admin, &foreign, &json!({}))
        .await
        .problem(404, "not_found");
    let unknown = world
        .post(admin, &nobody, &json!({}))
        .await
        .problem(404, "not_found");
    assert_eq!(refused.comparable(), unknown.comparable());
    world.get(&world.globex.member, ME).await.expect(200);
}

#[actix_web::test]
async fn idle_session_ends_and_used_one_lives_on() {
    let world = World::new().await;
    set(&world, &world.acme, json!({"security.session_idle_minutes": 60})).await;
    let mut used = login(&world, &world.acme, &world.acme.member).await;
    let left = login(&world, &world.acme, &world.acme.member).await;
    for _ in 0..3 {
        world.clock.advance(Duration::minutes(59));
        used = person(
            &used,
            &refresh(&world, &used.refresh_token).await.expect(200).json(),
        );
    }
    assert_eq!(
        ids(&sessions(&world, &used, "").await).len(),
        1,
        "idle sessions are not live"
    );
    refresh(&world, &left.refresh_token)
        .await
        .problem(401, "token_revoked");
    let event = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(
        (event.0.as_str(), &event.1["after"]["reason"]),
        ("session.ended", &json!("idle"))
    );
    // It lives until the limit.
    world.clock.advance(Duration::minutes(60) - Duration::seconds(1));
    let at_limit = refresh(&world, &used.refresh_token).await.expect(200).json();
    world.clock.advance(Duration::minutes(60) + Duration::seconds(1));
    let token = at_limit["refresh_token"].as_str().unwrap();
    refresh(&world, token).await.problem(401, "token_revoked");
}

#[actix_web::test]
async fn access_token_is_shorter_than_a_short_idle_timeout() {
    let world = World::new().await;
    set(&world, &world.acme, json!({"security.session_idle_minutes": 5})).await;
    let reply = world
        .login("acme", &world.acme.member.email, PASSWORD)
        .await
        .expect(200);
    assert_eq!(reply.json()["expires_in"], 150);
    let mut who = person(&world.acme.member, &reply.json());
    // A client in use refreshes when its token has expired, and is never logged out.
    for _ in 0..5 {
        world.clock.advance(Duration::seconds(150 + 30));
        world.get(&who, ME).await.problem(401, "token_expired");
        let reply = refresh(&world, &who.refresh_token).await.expect(200);
        assert_eq!(reply.json()["expires_in"], 150);
        who = person(&who, &reply.json());
    }
    // Nothing of the session works after five minutes without a use.
    world.clock.advance(Duration::minutes(5) + Duration::seconds(1));
    world.get(&who, ME).await.problem(401, "token_expired");
    refresh(&world, &who.refresh_token)
        .await
        .problem(401, "token_revoked");
    // The other tenant has the default.
    let reply = world
        .login("globex", &world.globex.member.email, PASSWORD)
        .await
        .expect(200);
    assert_eq!(reply.json()["expires_in"], 900);
}

#[actix_web::test]
async fn oldest_session_ends_at_a_login_beyond_the_limit() {
    let world = World::new().await;
    set(&world, &world.acme, json!({"security.sessions_per_user": 2})).await;
    let member = &world.acme.member;
    world.clock.advance(Duration::seconds(1));
    let second = login(&world, &world.acme, member).await;
    world.get(member, ME).await.expect(200);
    world.clock.advance(Duration::seconds(1));
    let third = login(&world, &world.acme, member).await;
    world.get(member, ME).await.problem(401, "token_revoked");
    for who in [&second, &third, &world.acme.viewer] {
        world.get(who, ME).await.expect(200);
    }
    assert_eq!(ids(&sessions(&world, &third, "").await).len(), 2);
    // A session that has ended takes no place.
    world
        .post(&third, "/api/v1/auth/logout", &json!({}))
        .await
        .expect(204);
    login(&world, &world.acme, member).await;
    world.get(&second, ME).await.expect(200);
}

#[actix_web::test]
async fn logins_at_once_leave_as_many_sessions_as_allowed() {
    let world = World::new().await;
    set(&world, &world.acme, json!({"security.sessions_per_user": 3})).await;
    let member = &world.acme.member;
    let logins = (0..12).map(|_| world.login("acme", &member.email, PASSWORD));
    let people: Vec<_> = join_all(logins).await;
    let people: Vec<_> = people
        .into_iter()
        .map(|reply| person(member, &reply.expect(200).json()))
        .collect();
    let open = format!("user_id = '{}' AND revoked_at IS NULL", member.id);
    assert_eq!(count(&world, &open).await, 3);
    let mut live = 0;
    for who in &people {
        live += i32::from(world.get(who, ME).await.status == 200);
    }
    assert_eq!(live, 3);
}
