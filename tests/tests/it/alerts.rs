//! Suspicious activity: alerts that the rules raise from the audit log, and what may and may not come of them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_domain::kernel::{IdSource as _, StoreError, SystemScope};
use tenantry_http::HttpConfig;
use tenantry_system::SystemIds;
use tenantry_tenancy::Cx;
use tenantry_tenancy::audit::refusal;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::security::detection::{self, DetectActivity};
use tenantry_tests::{Options, PASSWORD, Person, TenantWorld, World};
use uuid::Uuid;

use crate::account_passwords::Mailed;
use crate::audit::chain_in;
use crate::mfa::{settle, with_factor};

pub(crate) const ALERTS: &str = "/api/v1/security/alerts";
pub(crate) const RULES: &str = "/api/v1/security/rules";
const BECAUSE: SystemScope = SystemScope::because("a test in the system's place");

pub(crate) async fn system(world: &World, tenant: &TenantWorld) -> Cx {
    Cx::enter(&world.app, BECAUSE, tenant.id).await.unwrap().unwrap()
}

/// Stores what is counted in memory, chains it and searches it.
pub(crate) async fn search(world: &World, tenant: &TenantWorld) {
    refusal::flush(&world.app).await;
    world.app.activity().flush(&world.app).await;
    let cx = system(world, tenant).await;
    chain_in(&cx).await;
    DetectActivity.run(&cx, Nothing {}).await.unwrap();
}

pub(crate) async fn alerts(world: &World, who: &Person, query: &str) -> Vec<Value> {
    let page = world.get(who, &format!("{ALERTS}{query}")).await;
    page.expect(200).json()["data"].as_array().unwrap().clone()
}

/// An entry of the audit log in the system's name, as of an address.
pub(crate) async fn record(
    world: &World,
    tenant: &TenantWorld,
    entry: (&'static str, &'static str, Uuid),
    ip: &str,
    details: Value,
) {
    let cx = system(world, tenant).await;
    let (action, kind, id) = entry;
    cx.write(async |work| {
        let mut event = cx.security(action, kind, Some(id), details.clone());
        event.ip = Some(ip.to_owned());
        work.audit().record(event).await?;
        Ok::<_, StoreError>(())
    })
    .await
    .unwrap();
}

async fn failed(world: &World, tenant: &TenantWorld, who: &Person, ip: &str) {
    record(
        world,
        tenant,
        ("login.failed", "user", who.id.uuid()),
        ip,
        json!({}),
    )
    .await;
}

pub(crate) async fn count(world: &World, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

/// A world whose requests come by a trusted proxy.
async fn proxied() -> World {
    let options = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..options.http
    };
    World::with(Options { http, ..options }).await
}

#[actix_web::test]
async fn five_wrong_logins_raise_one_alert_that_is_acknowledged() {
    let world = World::new().await;
    let (acme, member) = (&world.acme, &world.acme.member);
    for _ in 0..5 {
        world
            .login("acme", &member.email, "wrong password")
            .await
            .expect(401);
    }
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "?state=open&rule=failed_logins_account").await;
    assert_eq!(found.len(), 1, "{found:?}");
    let alert = &found[0];
    assert_eq!(alert["subject"], json!({"kind": "user", "id": member.id}));
    assert_eq!(
        (&alert["count"], &alert["severity"]),
        (&json!(5), &json!("medium"))
    );
    assert_eq!(alert["evidence"].as_array().map(Vec::len), Some(2), "{alert}");
    let one = format!("{ALERTS}/{}", alert["id"].as_str().unwrap());
    // One alert while it is open, whose count rises; nothing without news.
    failed(&world, acme, member, "198.51.100.1").await;
    search(&world, acme).await;
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "?rule=failed_logins_account").await;
    assert_eq!((found.len(), &found[0]["count"]), (1, &json!(6)));
    // Nobody else's.
    assert_eq!(alerts(&world, &world.globex.admin, "").await, Vec::<Value>::new());
    world
        .get(&world.globex.admin, &one)
        .await
        .problem(404, "not_found");
    for who in [&acme.member, &acme.viewer] {
        world.get(who, ALERTS).await.problem(403, "forbidden");
        let acknowledge = world.post(who, &format!("{one}/acknowledge"), &json!({}));
        acknowledge.await.problem(403, "forbidden");
    }
    let acknowledge = async |who: &Person, body: Value| {
        let path = format!("{one}/acknowledge");
        world.post(who, &path, &body).await
    };
    acknowledge(&world.globex.admin, json!({}))
        .await
        .problem(404, "not_found");
    for bad in [
        json!({"note": ""}),
        json!({"note": "x".repeat(1_001)}),
        json!({"note": "a\u{1}b"}),
        json!({"other": 1}),
    ] {
        acknowledge(&acme.admin, bad).await.expect(422);
    }
    let first = acknowledge(&acme.admin, json!({"note": "It was me."}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&first["state"], &first["note"]),
        (&json!("acknowledged"), &json!("It was me."))
    );
    assert_eq!(first["acknowledged_by"], json!(acme.admin.id));
    let second = acknowledge(&acme.admin, json!({"note": "Again."}))
        .await
        .expect(200)
        .json();
    assert_eq!(second, first);
    assert_eq!(
        alerts(&world, &acme.admin, "?state=open").await,
        Vec::<Value>::new()
    );
    let actions: Vec<_> = world
        .audit(acme)
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    for action in ["security.alert_raised", "security_alert.acknowledged"] {
        assert_eq!(actions.iter().filter(|one| *one == action).count(), 1, "{action}");
    }
    // What comes after it is counted anew.
    for _ in 0..5 {
        failed(&world, acme, member, "198.51.100.1").await;
    }
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "?state=open").await;
    assert_eq!((found.len(), &found[0]["count"]), (1, &json!(5)));
    for (query, pointer) in [
        ("?state=closed", "/query/state"),
        ("?rule=", "/query/rule"),
        ("?severity=1", "/query/severity"),
        ("?x=1", "/query/x"),
    ] {
        let refused = world
            .get(&acme.admin, &format!("{ALERTS}{query}"))
            .await
            .expect(422);
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    }
}

/// A flood of failed logins from many networks gives a bounded number of alerts, one mail to each admin, and ends no session.
#[actix_web::test]
async fn anonymous_flood_neither_bombs_admins_nor_locks_users_out() {
    let world = World::new().await;
    let (acme, victim) = (&world.acme, &world.acme.member);
    let ends = json!({"failed_logins_network": {"action": "end_sessions"}});
    let refused = world.patch(&acme.admin, RULES, &ends).await.expect(422).json();
    let error = &refused["errors"][0];
    assert_eq!(
        (&error["pointer"], &error["code"], &error["detail"]),
        (
            &json!("/failed_logins_network/action"),
            &json!("unknown_field"),
            &json!("this rule can have no action")
        )
    );
    for number in 0..130 {
        let ip = format!("198.51.{number}.1");
        let details = json!({"repeated": {"count": 21, "since_last": 20}});
        record(
            &world,
            acme,
            ("login.failed", "user", victim.id.uuid()),
            &ip,
            details,
        )
        .await;
    }
    search(&world, acme).await;
    let of_rule = "SELECT count(*) FROM security_alerts WHERE rule = 'failed_logins_network'";
    assert_eq!(count(&world, of_rule).await, 101);
    let all = format!("{of_rule} AND subject_kind = 'tenant' AND count = 600");
    assert_eq!(count(&world, &all).await, 1);
    let mails = "SELECT count(*) FROM jobs WHERE kind = 'security.alert_mail'";
    assert_eq!(
        count(&world, mails).await,
        4,
        "one about the account and three about networks, to the one admin"
    );
    world.get(victim, "/api/v1/auth/me").await.expect(200);
    assert_eq!(
        count(
            &world,
            "SELECT count(*) FROM security_alerts WHERE action <> 'none'"
        )
        .await,
        0
    );
    // The other tenant has nothing of it.
    let foreign = format!(
        "SELECT count(*) FROM security_alerts WHERE tenant_id <> '{}'",
        acme.id
    );
    assert_eq!(count(&world, &foreign).await, 0);
}

/// Searches at once, and searches that are dropped in the middle, count each entry once.
#[actix_web::test]
async fn concurrent_and_aborted_searches_count_each_entry_once() {
    let world = World::new().await;
    let acme = &world.acme;
    let instance = world.instance(&Options::default());
    for round in 1..=4 {
        for _ in 0..10 {
            failed(&world, acme, &acme.viewer, "198.51.100.1").await;
        }
        let cx = system(&world, acme).await;
        chain_in(&cx).await;
        for millis in 0..4 {
            let limit = std::time::Duration::from_millis(millis);
            let _: Result<_, _> = tokio::time::timeout(limit, detection::detect(&cx)).await;
        }
        let other = Cx::enter(&instance.app, BECAUSE, acme.id).await.unwrap().unwrap();
        let searches = [&cx, &other, &cx, &other].map(async |cx| detection::detect(cx).await);
        for found in join_all(searches).await {
            found.unwrap();
        }
        DetectActivity.run(&cx, Nothing {}).await.unwrap();
        let found = alerts(&world, &acme.admin, "?rule=failed_logins_account").await;
        assert_eq!((found.len(), &found[0]["count"]), (1, &json!(10 * round)));
    }
}

#[actix_web::test]
async fn step_up_asks_for_the_second_factor_again() {
    let world = World::new().await;
    let (acme, admin) = (&world.acme, &world.acme.admin);
    let app = with_factor(&world, admin).await;
    settle(&world, admin).await;
    let give = async || {
        let body = json!({"code": app.next_code(&world)});
        let given = world
            .post(admin, "/api/v1/auth/mfa/step-up", &body)
            .await
            .expect(200)
            .json();
        Person {
            access_token: given["access_token"].as_str().unwrap().to_owned(),
            ..admin.clone()
        }
    };
    let change = async |who: &Person| {
        let body = json!({"session_max_days": 30});
        world.patch(who, "/api/v1/security/policy", &body).await
    };
    let fresh = give().await;
    change(&fresh).await.expect(200);
    record(
        &world,
        acme,
        ("refresh_token.reused", "session", SystemIds.uuid()),
        "198.51.100.1",
        json!({"user_id": admin.id}),
    )
    .await;
    search(&world, acme).await;
    change(&fresh).await.problem(403, "mfa_required");
    world.get(&fresh, "/api/v1/auth/me").await.expect(200);
    world.clock.advance(chrono::Duration::seconds(60));
    let fresh = give().await;
    change(&fresh).await.expect(200);
    let found = alerts(&world, &fresh, "?rule=refresh_token_reused&severity=high").await;
    assert_eq!((found.len(), &found[0]["action"]), (1, &json!("step_up")));
}

#[actix_web::test]
async fn rule_of_a_tenant_ends_the_sessions_of_its_user() {
    let world = World::new().await;
    let (acme, member) = (&world.acme, &world.acme.member);
    let ends = json!({"refresh_token_reused": {"action": "end_sessions"}});
    world.patch(&acme.admin, RULES, &ends).await.expect(200);
    let reused = |tenant| {
        let entry = ("refresh_token.reused", "session", SystemIds.uuid());
        record(
            &world,
            tenant,
            entry,
            "198.51.100.1",
            json!({"user_id": member.id}),
        )
    };
    // The id of another tenant's user is nobody's here.
    world.patch(&world.globex.admin, RULES, &ends).await.expect(200);
    reused(&world.globex).await;
    search(&world, &world.globex).await;
    world.get(member, "/api/v1/auth/me").await.expect(200);
    reused(acme).await;
    search(&world, acme).await;
    world
        .get(member, "/api/v1/auth/me")
        .await
        .problem(401, "token_revoked");
    world.get(&acme.viewer, "/api/v1/auth/me").await.expect(200);
    world
        .get(&world.globex.member, "/api/v1/auth/me")
        .await
        .expect(200);
}

#[actix_web::test]
async fn tenant_changes_thresholds_and_disables_rules() {
    let world = World::new().await;
    let (acme, admin) = (&world.acme, &world.acme.admin);
    let read = world.get(admin, RULES).await.expect(200);
    let etag = read.header("ETag").unwrap().to_owned();
    assert_eq!(read.json()["rules"].as_array().map(Vec::len), Some(10));
    for (patch, pointer) in [
        (json!({"nope": {"threshold": 3}}), "/nope"),
        (
            json!({"mass_reading": {"threshold": 0}}),
            "/mass_reading/threshold",
        ),
        (
            json!({"mass_reading": {"window_minutes": 1_441}}),
            "/mass_reading/window_minutes",
        ),
        (
            json!({"mass_reading": {"action": "explode"}}),
            "/mass_reading/action",
        ),
        (json!({"mass_reading": {"treshold": 3}}), "/mass_reading/treshold"),
        (json!({"mass_reading": 9}), "/mass_reading"),
    ] {
        let refused = world.patch(admin, RULES, &patch).await.expect(422).json();
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    for who in [&acme.member, &acme.viewer] {
        world.get(who, RULES).await.problem(403, "forbidden");
        world
            .patch(who, RULES, &json!({}))
            .await
            .problem(403, "forbidden");
    }
    let patch = json!({"failed_logins_account": {"threshold": 2, "window_minutes": 5}, "failed_logins_network": {"enabled": false}});
    let request = world.patch(admin, RULES, &patch).header("If-Match", &etag);
    request.await.expect(200);
    let stale = world.patch(admin, RULES, &patch).header("If-Match", &etag);
    stale.await.problem(412, "stale_version");
    let merged = json!({"failed_logins_account": {"window_minutes": null}});
    let rules = world.patch(admin, RULES, &merged).await.expect(200).json();
    let rule = |rules: &Value, id: &str| {
        let all = rules["rules"].as_array().unwrap();
        all.iter().find(|rule| rule["id"] == id).unwrap().clone()
    };
    let account = rule(&rules, "failed_logins_account");
    assert_eq!(
        (&account["threshold"], &account["window_minutes"]),
        (&json!(2), &json!(15))
    );
    assert_eq!(rule(&rules, "failed_logins_network")["enabled"], false);
    for tenant in [acme, &world.globex] {
        for number in 0..2 {
            failed(&world, tenant, &tenant.viewer, &format!("198.51.{number}.1")).await;
        }
        search(&world, tenant).await;
        let expected = usize::from(tenant.id == acme.id);
        assert_eq!(alerts(&world, &tenant.admin, "").await.len(), expected);
    }
    let restored = world
        .patch(admin, RULES, &json!({"failed_logins_account": null}))
        .await
        .expect(200)
        .json();
    let account = rule(&restored, "failed_logins_account");
    assert_eq!(
        (&account["threshold"], &account["changed"]),
        (&json!(5), &json!(false))
    );
}

#[actix_web::test]
async fn probing_and_mass_reading_are_found() {
    let world = World::new().await;
    let (acme, viewer) = (&world.acme, &world.acme.viewer);
    for _ in 0..50 {
        let path = format!("/api/v1/tasks/{}", SystemIds.uuid());
        world.get(viewer, &path).await.problem(404, "not_found");
    }
    let scope = world.cx(&acme.member).await;
    let activity = world.app.activity();
    for _ in 0..100 {
        activity.note_read(
            scope.scope(),
            scope.origin(),
            1_024 * 1_000,
            world.app.ports.clock.now(),
        );
    }
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "").await;
    let found: Vec<_> = found
        .iter()
        .map(|alert| (&alert["rule"], &alert["subject"]["id"], &alert["count"]))
        .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.contains(&(&json!("permission_probing"), &json!(viewer.id), &json!(50))),
        "{found:?}"
    );
    assert!(
        found.contains(&(&json!("mass_reading"), &json!(acme.member.id), &json!(100_000))),
        "{found:?}"
    );
}

#[actix_web::test]
async fn new_networks_of_logins_and_keys_are_found() {
    let world = proxied().await;
    let (acme, member) = (&world.acme, &world.acme.member);
    let body = json!({"name": "Reports", "scopes": ["projects.read"]});
    let made = world
        .post(&acme.admin, "/api/v1/api-keys", &body)
        .await
        .expect(201)
        .json();
    let key = made["key"].as_str().unwrap();
    let login = json!({"tenant_slug": "acme", "email": member.email, "password": PASSWORD});
    for (address, expected) in [("192.0.2.1", 0), ("192.0.2.77", 0), ("198.51.100.1", 1)] {
        let used = world.client.get("/api/v1/projects").bearer(key);
        used.header("X-Forwarded-For", address).await.expect(200);
        let login = world.client.post("/api/v1/auth/login", &login);
        login.header("X-Forwarded-For", address).await.expect(200);
        world.app.key_uses().flush(&world.app).await;
        search(&world, acme).await;
        let found = alerts(&world, &acme.admin, "?rule=api_key_new_network").await;
        assert_eq!(found.len(), expected, "{address} {found:?}");
    }
    let found = alerts(&world, &acme.admin, "?rule=new_network_login").await;
    assert_eq!((found.len(), &found[0]["subject"]["id"]), (1, &json!(member.id)));
    assert_eq!(alerts(&world, &world.globex.admin, "").await, Vec::<Value>::new());
}

#[actix_web::test]
async fn suspended_tenant_has_alerts_and_a_deleted_one_has_none() {
    let world = World::new().await;
    let acme = &world.acme;
    world.set_status(acme, "suspended").await;
    world.outlive_the_cache();
    for _ in 0..5 {
        failed(&world, acme, &acme.viewer, "198.51.100.1").await;
    }
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "").await;
    assert_eq!(found.len(), 1);
    let path = format!("{ALERTS}/{}/acknowledge", found[0]["id"].as_str().unwrap());
    world
        .post(&acme.admin, &path, &json!({}))
        .await
        .problem(403, "tenant_suspended");
    failed(&world, acme, &acme.viewer, "198.51.100.1").await;
    chain_in(&system(&world, acme).await).await;
    world.set_status(acme, "deleted").await;
    world.outlive_the_cache();
    assert_eq!(detection::detect_due(&world.app).await, 0);
    assert!(world.app.chained().take().is_empty(), "it is not tried for ever");
}

#[actix_web::test]
async fn admins_get_one_mail_an_hour_about_a_rule_and_subject() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let acme = &world.acme;
    world.sql("UPDATE users SET email_verified = true").await;
    let mails_about = async |person: &Person| {
        let entry = ("refresh_token.reused", "session", SystemIds.uuid());
        let user = json!({"user_id": person.id});
        record(world, acme, entry, "198.51.100.1", user).await;
        search(world, acme).await;
        let mails = mailed.mails_to(&acme.admin.email).await;
        for mail in &mails {
            assert!(mail.header("Subject").contains("Security alert: look at it now"));
            assert!(mail.text().contains("refresh_token_reused"), "{}", mail.text());
            assert!(
                mail.text().contains("All sessions of this user have ended"),
                "{}",
                mail.text()
            );
            assert!(mail.text().contains(&person.email) && !mail.text().contains("further alerts"));
        }
        mails.len()
    };
    assert_eq!(mails_about(&acme.member).await, 1);
    assert_eq!(mails_about(&acme.viewer).await, 1);
    let acknowledged =
        "UPDATE security_alerts SET state = 'acknowledged', open_key = NULL, acknowledged_at = now()";
    world.sql(acknowledged).await;
    assert_eq!(mails_about(&acme.member).await, 0);
    world.clock.advance(chrono::Duration::minutes(61));
    let held = mailed.mails_to(&acme.admin.email).await;
    assert_eq!(held.len(), 1, "what was held back");
    assert!(held[0].text().contains(&acme.member.email));
    assert_eq!(count(world, "SELECT count(*) FROM security_alerts").await, 3);
}
