//! What commands of operators leave in the logs, and requests of operators that are late, repeated or wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::{Value, json};
use std::sync::Arc;
use tenantry_domain::kernel::{Invalid, RequestId};
use tenantry_domain::operations::{OperatorChanges, OperatorRole};
use tenantry_domain::tenant::{Denied, Refused};
use tenantry_tenancy::admin::operator;
use tenantry_tenancy::customization::setting::{self, SettingError};
use tenantry_tenancy::identity::user_import::{self, ImportCounts};
use tenantry_tenancy::tenant::data_key;
use tenantry_tenancy::tenant::lifecycle::{self, LifecycleError};
use tenantry_tenancy::{OperatorCx, Origin, Precondition};
use tenantry_tests::{TenantWorld, World};

const OPERATORS: &str = "/api/v1/admin/operators";
const OLGA: &str = "olga@platform.example";

async fn logged(world: &World, tenant: &TenantWorld, action: &str) -> Vec<Value> {
    let all = world.audit(tenant).await.into_iter();
    all.filter(|(found, _)| found == action)
        .map(|(_, row)| row)
        .collect()
}

async fn recorded(world: &World, action: &str) -> Vec<Value> {
    let all = world.operator_events().await.into_iter();
    all.filter(|(found, _)| found == action)
        .map(|(_, row)| row)
        .collect()
}

/// The context of an operator's request that was admitted.
async fn admitted(world: &World, token: &str) -> OperatorCx {
    let request = RequestId::next(world.app.ports.ids.as_ref());
    let scope = world
        .app
        .ports
        .operator_gate
        .bearer(token, request)
        .await
        .unwrap();
    OperatorCx::new(Arc::clone(&world.app), scope, Origin::default())
}

#[actix_web::test]
async fn command_is_in_both_logs_with_one_request_and_its_reason() {
    let world = World::new().await;
    let globex = world.digest(&world.globex).await;
    let cx = world.operator_cx().with_reason("ticket 4711").unwrap();
    let acme = world.acme.id;
    let days = Some(json!(400));
    setting::operate(&cx, acme, "retention.audit_days", days)
        .await
        .unwrap();
    data_key::rotate(&cx, acme).await.unwrap();
    for action in ["settings.updated", "data_key.rotated"] {
        let [record] = &recorded(&world, action).await[..] else {
            panic!("{action}")
        };
        assert_eq!(record["reason"], "ticket 4711");
        assert_eq!(record["target_tenant"], json!(acme));
        assert_eq!(record["operator_id"], Value::Null);
        let entries = logged(&world, &world.acme, action).await;
        assert!(
            entries
                .iter()
                .any(|entry| entry["request_id"] == record["request_id"] && entry["actor_type"] == "system"),
            "{action}: {entries:?}"
        );
    }
    assert_eq!(world.digest(&world.globex).await, globex);
}

/// A change that fails has a second entry; one that is refused before has none.
#[actix_web::test]
async fn failed_command_has_a_second_entry() {
    let world = World::new().await;
    let cx = world.operator_cx().with_reason("ticket 4711").unwrap();
    let unknown = setting::operate(&cx, world.acme.id, "nothing.there", Some(json!(1))).await;
    assert!(matches!(unknown, Err(SettingError::Invalid(_))));
    assert!(recorded(&world, "settings.updated").await.is_empty());
    world
        .sql("ALTER TABLE tenant_settings ADD CONSTRAINT refused CHECK (tenant_id IS NULL) NOT VALID")
        .await;
    let failed = setting::operate(&cx, world.acme.id, "retention.audit_days", Some(json!(400))).await;
    assert!(failed.is_err());
    let [record] = &recorded(&world, "settings.updated").await[..] else {
        panic!()
    };
    let [failure] = &recorded(&world, "settings.update_failed").await[..] else {
        panic!()
    };
    assert_eq!(failure["details"]["event"], record["id"]);
    assert_eq!(failure["reason"], "ticket 4711");
}

#[actix_web::test]
async fn import_that_is_given_up_says_how_far_it_came() {
    let world = World::new().await;
    let cx = world.operator_cx();
    user_import::begin(&cx, world.acme.id, true).await.unwrap();
    let counts = ImportCounts {
        created: 2,
        ..ImportCounts::default()
    };
    user_import::end(&cx, world.acme.id, counts, Some("line 3: no place"))
        .await
        .unwrap();
    assert_eq!(recorded(&world, "users.import_begun").await.len(), 1);
    let [end] = &recorded(&world, "users.import_failed").await[..] else {
        panic!()
    };
    assert_eq!(end["details"]["created"], 2);
    assert_eq!(end["details"]["error"], "line 3: no place");
}

#[actix_web::test]
async fn use_cases_of_commands_refuse_the_request_of_an_operator() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let cx = admitted(&world, &token).await;
    let set = setting::operate(&cx, world.acme.id, "retention.audit_days", None).await;
    assert!(matches!(set, Err(SettingError::Refused(Refused::Forbidden))));
    let rotated = data_key::rotate(&cx, world.acme.id).await;
    assert!(rotated.is_err());
    assert!(user_import::begin(&cx, world.acme.id, true).await.is_err());
    assert!(recorded(&world, "data_key.rotated").await.is_empty());
}

#[actix_web::test]
async fn reason_that_reorders_or_is_too_long_is_refused() {
    let world = World::new().await;
    let long = "x".repeat(501);
    for reason in ["", "a\u{202e}b", "a\u{2066}b", "a\u{85}b", "a\nb", &long] {
        let Err(Invalid(errors)) = world.operator_cx().with_reason(reason) else {
            panic!("{reason:?}")
        };
        assert_eq!(errors[0].pointer, "/reason");
    }
}

/// The body of a request may come minutes after its head.
#[actix_web::test]
async fn late_request_of_a_former_operator_changes_no_tenant() {
    let world = World::new().await;
    let command = world.operator_cx();
    world.operator("other@platform.example").await;
    let olga = admitted(&world, &world.operator(OLGA).await).await;
    let id = operator::id_of(&command, OLGA).await.unwrap();
    let lowered = OperatorChanges {
        role: Some(OperatorRole::Support),
        ..OperatorChanges::default()
    };
    operator::change(&command, id, &Precondition::None, &lowered)
        .await
        .unwrap();
    let suspended = lifecycle::suspend(&olga, world.acme.id, "late").await;
    assert!(
        matches!(suspended, Err(LifecycleError::Refused(Refused::Forbidden))),
        "{suspended:?}"
    );
    operator::deactivate(&command, OLGA).await.unwrap();
    let purged = lifecycle::delete(&olga, world.acme.id, "late").await;
    assert!(
        matches!(purged, Err(LifecycleError::Denied(Denied::Revoked))),
        "{purged:?}"
    );
    world.get(&world.acme.admin, "/api/v1/auth/me").await.expect(200);
    assert!(logged(&world, &world.acme, "tenant.suspended").await.is_empty());
    assert!(recorded(&world, "tenant.deleted").await.is_empty());
}

#[actix_web::test]
async fn repeated_deactivation_changes_nothing() {
    let world = World::new().await;
    let owner = world.operator(OLGA).await;
    world
        .operator_as("sam@platform.example", OperatorRole::Support)
        .await;
    let id = operator::id_of(&world.operator_cx(), "sam@platform.example")
        .await
        .unwrap();
    let path = format!("{OPERATORS}/{id}");
    let delete = async || world.client.delete(&path).bearer(&owner).await.expect(204);
    let version = async || {
        let found = world.client.get(&path).bearer(&owner).await.expect(200);
        found.header("etag").unwrap().to_owned()
    };
    delete().await;
    let (first, events) = (version().await, recorded(&world, "operator.updated").await.len());
    delete().await;
    assert_eq!(version().await, first);
    assert_eq!(recorded(&world, "operator.updated").await.len(), events);
    assert_eq!(recorded(&world, "operator.deactivated").await.len(), 1);
}

/// A name with a slash is one segment of the pointer (RFC 6901).
#[actix_web::test]
async fn pointer_at_an_unknown_name_is_escaped() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let path = format!("/api/v1/admin/tenants/{}", world.acme.id);
    for (kind, body) in [
        ("meters", json!({"meters": {"a/b~c": 1}, "reason": "a test"})),
        ("limits", json!({"limits": {"a/b~c": 1}, "reason": "a test"})),
        (
            "features",
            json!({"features": {"a/b~c": true}, "reason": "a test"}),
        ),
    ] {
        let refused = world.client.patch(&path, &body).bearer(&token).await;
        let refused = refused.problem(422, "validation_failed").json();
        assert_eq!(refused["errors"][0]["pointer"], format!("/{kind}/a~1b~0c"));
    }
}
