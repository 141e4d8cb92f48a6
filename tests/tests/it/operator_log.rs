//! The log of operators: risks, outcomes and actors of its entries, and whose log has which reason.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use serde_json::{Value, json};
use tenantry_billing::plans::tenant_plan;
use tenantry_tenancy::customization::setting;
use tenantry_tests::World;

const OLGA: &str = "olga@platform.example";

/// The entries of the log of operators, as the API shows them.
async fn list(world: &World, token: &str, query: &str) -> Vec<Value> {
    let path = format!("/api/v1/admin/audit-events?limit=100&{query}");
    let page = world.client.get(&path).bearer(token).await.expect(200).json();
    page["data"].as_array().unwrap().clone()
}

/// A caller who fails to log in is neither an operator nor a command on the server.
#[actix_web::test]
async fn failed_login_of_an_operator_has_a_guest_as_actor() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let wrong = json!({"email": OLGA, "password": "wrong horse battery staple"});
    let reply = world.client.post("/api/v1/admin/login", &wrong).await;
    reply.problem(401, "invalid_credentials");
    let of_guests = list(&world, &token, "actor=guest").await;
    assert_eq!(of_guests.len(), 1, "{of_guests:?}");
    let failed = &of_guests[0];
    assert_eq!(failed["action"], "operator.login_failed");
    assert_eq!(
        failed["actor"],
        json!({"kind": "guest", "id": null, "name": null})
    );
    assert_eq!(
        (&failed["outcome"], &failed["risk"]),
        (&json!("failure"), &json!("medium"))
    );
    for kind in ["system", "operator"] {
        let others = list(&world, &token, &format!("actor={kind}")).await;
        assert!(
            !others.is_empty() && others.iter().all(|one| one["actor"]["kind"] == kind),
            "{others:?}"
        );
    }
    let wrong = world.client.get("/api/v1/admin/audit-events?actor=nobody");
    let wrong = wrong
        .bearer(&token)
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(wrong["errors"][0]["pointer"], "/query/actor");
}

/// A risk depends on what was changed, in the log of operators as in those of tenants.
#[actix_web::test]
async fn details_decide_the_risk_of_operators_entries() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let cx = world.operator_cx();
    for (key, value) in [
        ("security.mfa_required", json!("everyone")),
        ("retention.audit_days", json!(400)),
    ] {
        setting::operate(&cx, world.acme.id, key, Some(value))
            .await
            .unwrap();
    }
    let changed = list(&world, &token, "action=settings.updated").await;
    let risk = |key: &str| {
        let entry = changed.iter().find(|one| one["details"]["key"] == key);
        entry.unwrap()["risk"].clone()
    };
    assert_eq!(risk("security.mfa_required"), "high");
    assert_eq!(risk("retention.audit_days"), "medium");

    let new = json!({"email": "sam@platform.example", "full_name": "Sam Support", "role": "support"});
    let made = world.client.post("/api/v1/admin/operators", &new).bearer(&token);
    let made = made.await.expect(201).json();
    let path = format!(
        "/api/v1/admin/operators/{}",
        made["operator"]["id"].as_str().unwrap()
    );
    for (role, risk) in [("billing", "medium"), ("owner", "high")] {
        let change = world.client.patch(&path, &json!({"role": role}));
        change.bearer(&token).await.expect(200);
        let entries = list(&world, &token, "action=operator.updated").await;
        let of_role = entries
            .iter()
            .find(|one| one["details"]["operator"]["role"] == role);
        assert_eq!(of_role.unwrap()["risk"], risk, "{entries:?}");
    }
}

/// The reason of an upgrade is about every tenant that is moved, so it may name one of them.
#[actix_web::test]
async fn reason_of_an_upgrade_is_only_in_the_operators_log() {
    const REASON: &str = "the terms agreed with Acme";
    let world = World::new().await;
    let cx = world.operator_cx();
    tenant_plan::upgrade(&cx, world.globex.id, "enterprise", REASON)
        .await
        .unwrap();
    let events = world.operator_events().await;
    let (action, event) = events
        .iter()
        .find(|(_, event)| event["reason"] == REASON)
        .unwrap();
    assert_eq!(action, "tenant.plan_changed");
    let own = world.audit(&world.globex).await;
    let entry = own
        .iter()
        .find(|(_, entry)| entry["after"]["operator_event"] == event["id"]);
    assert_eq!(entry.unwrap().0, "tenant.plan_changed");
    assert!(!json!(own).to_string().contains(REASON), "{own:?}");
}
