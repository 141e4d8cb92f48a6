//! Alerts under attack: floods, many subjects, slow requests and programs hide no alert, and no alert hits a bystander.

use serde_json::{Value, json};
use tenantry_domain::kernel::{IdSource as _, Permission};
use tenantry_system::SystemIds;
use tenantry_tenancy::audit::refusal::{self, Refusal, RefusedAction};
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::tenant::audit_upkeep::KeepAudit;
use tenantry_tests::{Person, TenantWorld, World};
use uuid::Uuid;

use crate::account_passwords::Mailed;
use crate::alerts::{ALERTS, RULES, alerts, count, record, search, system};
use crate::mfa::{settle, with_factor};

/// A refresh token of a user that was used again.
async fn reused(world: &World, tenant: &TenantWorld, user: Uuid) {
    let entry = ("refresh_token.reused", "session", SystemIds.uuid());
    record(world, tenant, entry, "198.51.100.1", json!({"user_id": user})).await;
}

/// Open alerts of a rule about users that nobody knows.
async fn filled(world: &World, tenant: &TenantWorld, rule: &str, alerts: u32) {
    let sql = format!(
        "INSERT INTO security_alerts (tenant_id, id, created_at, rule, subject_kind, subject, count, first_at, last_at, severity, state,
             evidence, action, open_key)
         SELECT '{tenant}', gen_random_uuid(), '2020-01-01', '{rule}', 'user', user_id, 1, now(), now(), 'high', 'open', '[]', 'none',
             '{rule}/user/' || user_id
         FROM (SELECT gen_random_uuid()::text AS user_id FROM generate_series(1, {alerts})) AS users",
        tenant = tenant.id
    );
    assert_eq!(world.sql(sql).await, u64::from(alerts));
}

async fn me(world: &World, who: &Person) -> u16 {
    world.get(who, "/api/v1/auth/me").await.status
}

async fn change_policy(world: &World, who: &Person) -> u16 {
    let body = json!({"session_max_days": 30});
    world.patch(who, "/api/v1/security/policy", &body).await.status
}

/// The details of the entries of alerts that were raised.
async fn raised(world: &World, tenant: &TenantWorld) -> Vec<Value> {
    let entries = world.audit(tenant).await;
    let raised = entries
        .into_iter()
        .filter(|(action, _)| action == "security.alert_raised");
    raised.map(|(_, entry)| entry["after"].clone()).collect()
}

/// A hundred alerts about others leave a user's own alert, what is done to the user, the entry and the mail.
#[actix_web::test]
async fn alerts_about_others_keep_no_action_from_a_user() {
    let world = World::new().await;
    let (acme, admin) = (&world.acme, &world.acme.admin);
    let app = with_factor(&world, admin).await;
    settle(&world, admin).await;
    let code = json!({"code": app.next_code(&world)});
    let given = world.post(admin, "/api/v1/auth/mfa/step-up", &code).await;
    let fresh = Person {
        access_token: given.expect(200).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned(),
        ..admin.clone()
    };
    assert_eq!(change_policy(&world, &fresh).await, 200);
    filled(&world, acme, "refresh_token_reused", 100).await;
    reused(&world, acme, admin.id.uuid()).await;
    search(&world, acme).await;
    assert_eq!(change_policy(&world, &fresh).await, 403);
    let found = alerts(&world, &fresh, "?rule=refresh_token_reused&limit=1").await;
    assert_eq!(
        (&found[0]["subject"]["id"], &found[0]["action"]),
        (&json!(admin.id), &json!("step_up"))
    );
    // Beyond a thousand there is one alert about the tenant, and the sessions end.
    filled(&world, acme, "refresh_token_reused", 900).await;
    for who in [&acme.member, &acme.viewer] {
        reused(&world, acme, who.id.uuid()).await;
    }
    search(&world, acme).await;
    assert_eq!(
        (me(&world, &acme.member).await, me(&world, &acme.viewer).await),
        (401, 401)
    );
    assert_eq!(me(&world, &fresh).await, 200);
    let found = alerts(&world, &fresh, "?rule=refresh_token_reused&limit=1").await;
    assert_eq!(found[0]["subject"], json!({"kind": "tenant", "id": acme.id}));
    assert_eq!(
        (&found[0]["count"], &found[0]["action"]),
        (&json!(2), &json!("end_sessions"))
    );
    let named: Vec<_> = raised(&world, acme)
        .await
        .iter()
        .map(|one| one["subject"].clone())
        .collect();
    for who in [admin, &acme.member, &acme.viewer] {
        assert!(named.contains(&json!(who.id.to_string())), "{named:?}");
    }
    let mails = "SELECT count(*) FROM jobs WHERE kind = 'security.alert_mail'";
    assert_eq!(count(&world, mails).await, 3, "one about each of the three");
    assert_eq!(me(&world, &world.globex.member).await, 200);
}

/// A rule without an action folds its rows beyond a hundred, and names each subject in the log.
#[actix_web::test]
async fn folded_alerts_name_their_subjects_in_the_log() {
    let world = World::new().await;
    let acme = &world.acme;
    filled(&world, acme, "new_network_login", 100).await;
    for who in [&acme.member, &acme.viewer] {
        let entry = ("session.started", "session", SystemIds.uuid());
        let details = json!({"user_id": who.id, "new_network": true});
        record(&world, acme, entry, "198.51.100.1", details).await;
    }
    search(&world, acme).await;
    let rows = "SELECT count(*) FROM security_alerts WHERE rule = 'new_network_login'";
    assert_eq!(count(&world, rows).await, 101);
    let named: Vec<_> = raised(&world, acme)
        .await
        .iter()
        .map(|one| one["subject"].clone())
        .collect();
    assert_eq!(named.len(), 2, "{named:?}");
    for who in [&acme.member, &acme.viewer] {
        assert!(named.contains(&json!(who.id.to_string())), "{named:?}");
    }
}

/// A step-up of a user without a factor, or with one that may be a thief's, asks for nothing: the sessions end.
#[actix_web::test]
async fn step_up_without_a_settled_factor_ends_sessions() {
    let world = World::new().await;
    let acme = &world.acme;
    with_factor(&world, &acme.viewer).await;
    for who in [&acme.member, &acme.viewer] {
        reused(&world, acme, who.id.uuid()).await;
        search(&world, acme).await;
        let found = alerts(&world, &acme.admin, "?rule=refresh_token_reused&limit=1").await;
        assert_eq!(found[0]["subject"]["id"], json!(who.id));
        assert_eq!(found[0]["action"], "end_sessions");
        assert_eq!(me(&world, who).await, 401);
    }
    // Of a user who is not of the tenant nothing is claimed.
    reused(&world, acme, world.globex.member.id.uuid()).await;
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "?rule=refresh_token_reused&limit=1").await;
    assert_eq!(
        (&found[0]["action"], &found[0]["acted_at"]),
        (&json!("none"), &Value::Null)
    );
    assert_eq!(me(&world, &world.globex.member).await, 200);
}

/// Failed logins with invented addresses hide no guesses at an account, and count for the tenant.
#[actix_web::test]
async fn invented_addresses_hide_no_guesses_at_an_account() {
    let world = World::new().await;
    let (acme, victim) = (&world.acme, &world.acme.member);
    let cx = system(&world, acme).await;
    let fail = async |ip: String, user: Option<Uuid>, email: String| {
        let failed = Refusal {
            action: RefusedAction::Login,
            target_type: "user",
            target: user,
            actor: None,
            ip: Some(ip),
            details: json!({"email": email}),
        };
        refusal::record(&cx, failed).await.unwrap();
    };
    for number in 0..220 {
        let (network, email) = (number / 20, format!("{number}@invented.example"));
        fail(format!("203.0.{network}.1"), None, email).await;
    }
    for number in 0..10 {
        let ip = format!("198.51.{number}.1");
        fail(ip, Some(victim.id.uuid()), victim.email.clone()).await;
    }
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "?rule=failed_logins_account").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["subject"], json!({"kind": "user", "id": victim.id}));
    assert_eq!(found[0]["count"], 10);
    // Twenty invented addresses are beyond the two hundred, and have no network any more.
    let found = alerts(&world, &acme.admin, "?rule=failed_logins_network").await;
    let of_tenant: Vec<_> = found
        .iter()
        .filter(|alert| alert["subject"]["kind"] == "tenant")
        .collect();
    assert_eq!(of_tenant.len(), 1, "{found:?}");
    assert_eq!(
        (&of_tenant[0]["subject"]["id"], &of_tenant[0]["count"]),
        (&json!(acme.id), &json!(20))
    );
    assert_eq!(alerts(&world, &world.globex.admin, "").await, Vec::<Value>::new());
    let rows = "SELECT count(*) FROM audit_events WHERE action = 'login.failed'";
    assert!(count(&world, rows).await <= 216, "the log stays bounded");
}

/// What a program does is found, about its key, and its creator stays logged in.
#[actix_web::test]
async fn mismatches_of_keys_are_about_the_keys() {
    let world = World::new().await;
    let (acme, admin) = (&world.acme, &world.acme.admin);
    let ends = json!({"tenant_mismatch": {"action": "end_sessions"}});
    world.patch(admin, RULES, &ends).await.expect(200);
    let expires_at = world.app.ports.clock.now() + chrono::Duration::days(30);
    let own = json!({"name": "Own", "scopes": ["projects.read"]});
    let service = json!({
        "name": "Robot", "scopes": ["projects.read"], "service_account": true, "expires_at": expires_at,
    });
    for body in [own, service] {
        let made = world
            .post(admin, "/api/v1/api-keys", &body)
            .await
            .expect(201)
            .json();
        let key = made["key"].as_str().unwrap();
        for _ in 0..12 {
            let request = world.client.get("/api/v1/projects").bearer(key);
            let request = request.header("X-Tenant-Slug", "globex");
            request.await.problem(403, "tenant_mismatch");
        }
        search(&world, acme).await;
        let found = alerts(&world, admin, "?rule=tenant_mismatch&limit=1").await;
        let id = made.pointer("/api_key/id").or_else(|| made.get("id")).unwrap();
        assert_eq!(
            found[0]["subject"],
            json!({"kind": "api_key", "id": id}),
            "{body}"
        );
        assert_eq!(found[0]["count"], 10);
        assert_eq!(found[0]["action"], "none");
        assert_eq!(me(&world, admin).await, 200);
    }
    assert_eq!(alerts(&world, admin, "?rule=tenant_mismatch").await.len(), 2);
    assert_eq!(alerts(&world, &world.globex.admin, "").await, Vec::<Value>::new());
}

/// Requests that are further apart than the window end no session, and an alert says when what it counts happened.
#[actix_web::test]
async fn slow_requests_raise_no_alert() {
    let world = World::new().await;
    let (acme, viewer) = (&world.acme, &world.acme.viewer);
    let strict =
        json!({"permission_probing": {"threshold": 10, "window_minutes": 1, "action": "end_sessions"}});
    world.patch(&acme.admin, RULES, &strict).await.expect(200);
    let probe = async |times: u32| {
        for _ in 0..times {
            let path = format!("/api/v1/tasks/{}", SystemIds.uuid());
            world.get(viewer, &path).await.problem(404, "not_found");
        }
    };
    for _ in 0..2 {
        probe(5).await;
        world.clock.advance(chrono::Duration::seconds(100));
    }
    search(&world, acme).await;
    assert_eq!(alerts(&world, &acme.admin, "").await, Vec::<Value>::new());
    assert_eq!(me(&world, viewer).await, 200);
    let since = world.app.ports.clock.now() - chrono::Duration::seconds(1);
    probe(10).await;
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "?rule=permission_probing").await;
    assert_eq!((found.len(), &found[0]["count"]), (1, &json!(10)));
    let first: chrono::DateTime<chrono::Utc> = found[0]["first_at"].as_str().unwrap().parse().unwrap();
    assert!(first >= since, "{first} {since}");
    assert_eq!(me(&world, viewer).await, 401);
}

/// A front end that goes on in a suspended tenant, or lacks a factor, looks for nothing.
#[actix_web::test]
async fn refusals_for_other_reasons_are_no_probing() {
    let world = World::new().await;
    let (acme, member) = (&world.acme, &world.acme.member);
    let strict = json!({"permission_probing": {"threshold": 10}});
    world.patch(&acme.admin, RULES, &strict).await.expect(200);
    let create = async || {
        let body = json!({"name": "Roof"});
        world.post(member, "/api/v1/projects", &body).await
    };
    world.set_status(acme, "suspended").await;
    for _ in 0..20 {
        create().await.problem(403, "tenant_suspended");
    }
    world.set_status(acme, "active").await;
    search(&world, acme).await;
    assert_eq!(alerts(&world, &acme.admin, "").await, Vec::<Value>::new());
    // What the role does not allow is.
    for _ in 0..10 {
        world.get(member, ALERTS).await.problem(403, "forbidden");
    }
    search(&world, acme).await;
    let found = alerts(&world, &acme.admin, "?rule=permission_probing").await;
    assert_eq!((found.len(), &found[0]["subject"]["id"]), (1, &json!(member.id)));
}

/// Alerts about some subjects keep no mail about another from the admins: what is beyond the bound comes in one mail when the pause is over.
#[actix_web::test]
async fn held_back_alerts_are_mailed_when_the_pause_is_over() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let acme = &world.acme;
    world.sql("UPDATE users SET email_verified = true").await;
    for _ in 0..11 {
        reused(world, acme, SystemIds.uuid()).await;
    }
    search(world, acme).await;
    reused(world, acme, acme.viewer.id.uuid()).await;
    search(world, acme).await;
    assert_eq!(mailed.mails_to(&acme.admin.email).await.len(), 10);
    world.clock.advance(chrono::Duration::minutes(59));
    assert_eq!(mailed.mails_to(&acme.admin.email).await.len(), 0);
    world.clock.advance(chrono::Duration::minutes(2));
    let mails = mailed.mails_to(&acme.admin.email).await;
    assert_eq!(mails.len(), 1);
    assert!(mails[0].text().contains("1 further alert"), "{}", mails[0].text());
    assert_eq!(mailed.mails_to(&world.globex.admin.email).await.len(), 0);
}

/// Acknowledged alerts are deleted with the entries of their time; open ones, and those of other tenants, stay.
#[actix_web::test]
async fn acknowledged_alerts_end_with_the_retention() {
    let world = World::new().await;
    let acme = &world.acme;
    for tenant in [acme, &world.globex] {
        filled(&world, tenant, "refresh_token_reused", 600).await;
        filled(&world, tenant, "mass_reading", 1).await;
        filled(&world, tenant, "new_network_login", 1).await;
    }
    let now = world.app.ports.clock.now();
    for (rule, acknowledged, created) in [("refresh_token_reused", 731, 800), ("mass_reading", 10, 800)] {
        let at = |days| (now - chrono::Duration::days(days)).to_rfc3339();
        let sql = format!(
            "UPDATE security_alerts SET state = 'acknowledged', open_key = NULL, acknowledged_at = '{}', created_at = '{}'
             WHERE rule = '{rule}'",
            at(acknowledged),
            at(created)
        );
        world.sql(sql).await;
    }
    let cx = system(&world, acme).await;
    KeepAudit.run(&cx, Nothing {}).await.unwrap();
    let left = |tenant: &TenantWorld| {
        format!(
            "SELECT count(*) FROM security_alerts WHERE tenant_id = '{}'",
            tenant.id
        )
    };
    assert_eq!(count(&world, &left(acme)).await, 2);
    assert_eq!(count(&world, &left(&world.globex)).await, 602);
    assert!(!world.cx(&acme.admin).await.scope().has(Permission::RaiseAlerts));
}
