//! `tenantry user correct-email`: the way out for an admin who is alone in a tenant and mistyped the address.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::sync::Arc;

use chrono::Duration;
use serde_json::json;
use tenantry_domain::identity::{Email, User};
use tenantry_domain::kernel::{SystemScope, TenantId};
use tenantry_tenancy::identity::address_correction::{self, CorrectionError};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::World;

use crate::account_passwords::{Mailed, ask, is_unusable};

const FORGOT: &str = "/api/v1/auth/forgot-password";
const RESET: &str = "/api/v1/auth/reset-password";
const OWN: &str = "a staple of batteries";
const WRONG: &str = "bill@mistyped.example";
const RIGHT: &str = "bill@right.example";

async fn correct(world: &World, tenant: TenantId, from: &str, to: &str) -> Result<User, CorrectionError> {
    let because = SystemScope::because("a test of the command");
    let scope = world.app.ports.gate.system(because, tenant).await.unwrap();
    let cx = Cx::new(Arc::clone(&world.app), scope, Origin::default());
    let [from, to] = [from, to].map(|text| Email::parse(text, "/email").unwrap());
    address_correction::correct(&world.operator_cx(), &cx, &from, &to).await
}

/// The first password has expired, and mails go to a stranger. The corrected address gets a link, and nothing that the stranger got works.
#[actix_web::test]
async fn operator_corrects_the_mistyped_address_of_a_sole_admin() {
    let mailed = Mailed::new().await;
    let world = &mailed.world;
    let admin = json!({"email": WRONG, "full_name": "Bill"});
    let body = json!({"name": "Initech", "slug": "initech", "admin": admin});
    let created = world.client.post("/api/v1/tenants", &body).await;
    let created = created.expect(201).json();
    let tenant: TenantId = created["tenant"]["id"].as_str().unwrap().parse().unwrap();
    let first = created["credentials"]["password"].as_str().unwrap();
    mailed.mails_to(WRONG).await;
    world.clock.advance(Duration::days(8));
    let expired = world.login("initech", WRONG, first).await;
    expired.problem(401, "invalid_credentials");
    ask(world, FORGOT, "initech", WRONG).await.expect(202);
    let strangers = mailed.token_for(WRONG).await;
    let others = [world.digest(&world.acme).await, world.digest(&world.globex).await];

    let unchanged = correct(world, tenant, WRONG, WRONG).await;
    assert!(
        matches!(unchanged, Err(CorrectionError::Invalid(_))),
        "{unchanged:?}"
    );
    let unknown = correct(world, tenant, &world.acme.admin.email, RIGHT).await;
    assert!(matches!(unknown, Err(CorrectionError::NoSuchUser)), "{unknown:?}");
    let user = correct(world, tenant, WRONG, RIGHT).await.unwrap();
    assert_eq!((user.email.as_str(), user.email_verified), (RIGHT, false));
    let token = mailed.token_for(RIGHT).await;
    let reset = async |token: &str| {
        let body = json!({"token": token, "new_password": OWN});
        world.client.post(RESET, &body).await
    };
    is_unusable(reset(&strangers).await);
    reset(&token).await.expect(204);
    let login = world.login("initech", RIGHT, OWN).await.expect(200).json();
    assert_eq!(login["user"]["email_verified"], json!(true));
    // From now on mail leads in, and the address is its owner's to change.
    let verified = correct(world, tenant, RIGHT, WRONG).await;
    assert!(matches!(verified, Err(CorrectionError::Verified)), "{verified:?}");
    assert_eq!(
        [world.digest(&world.acme).await, world.digest(&world.globex).await],
        others
    );
    let records = world
        .operator_events()
        .await
        .into_iter()
        .map(|(action, _)| action);
    let records: Vec<_> = records
        .filter(|action| action.starts_with("user.email_"))
        .collect();
    let failed = "user.email_correction_failed";
    // The record comes before the change, and a failure adds a second one.
    assert_eq!(records, ["user.email_corrected", "user.email_corrected", failed]);
}

/// Where an admin can help, no operator changes an address.
#[actix_web::test]
async fn address_is_corrected_of_nobody_with_another_way_in() {
    let world = World::new().await;
    let acme = &world.acme;
    world
        .sql(format!(
            "UPDATE users SET email_verified = false WHERE tenant_id = '{}'",
            acme.id
        ))
        .await;
    let member = correct(&world, acme.id, &acme.member.email, RIGHT).await;
    assert!(matches!(member, Err(CorrectionError::NotAlone)), "{member:?}");
    let taken = correct(&world, acme.id, &acme.admin.email, &acme.member.email).await;
    assert!(matches!(taken, Err(CorrectionError::EmailTaken)), "{taken:?}");
    let body = json!({"email": RIGHT, "role": "member"});
    let invited = world.post(&acme.admin, "/api/v1/invitations", &body).await;
    invited.expect(201);
    let reserved = correct(&world, acme.id, &acme.admin.email, RIGHT).await;
    assert!(
        matches!(reserved, Err(CorrectionError::EmailTaken)),
        "{reserved:?}"
    );
    world.second_admin().await;
    let two = correct(&world, acme.id, &acme.admin.email, "new@right.example").await;
    assert!(matches!(two, Err(CorrectionError::NotAlone)), "{two:?}");
}
