use std::sync::Arc;

use serde_json::json;
use tenantry_billing::usage;
use tenantry_billing::usage::usage_rollup::RollUp;
use tenantry_domain::kernel::{SystemScope, TenantId, Time, UsageEventId};
use tenantry_domain::usage::{Appended, MeterKey, NewUsage, UsageKey, UsageOrigin};
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::{Cx, Origin, Tenancy};

use crate::{PASSWORD, World};

/// Puts what a tenant used of a meter at a moment into its ledger, also of a meter that only the server records; its event.
pub async fn use_up(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    meter: &str,
    at: Time,
    quantity: u64,
) -> UsageEventId {
    record(app, tenant, meter, (at, quantity, None)).await
}

/// Puts that somebody used a meter at a moment into the ledger, where it is subjects that are counted; the event.
pub async fn used_by(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    meter: &str,
    at: Time,
    subject: &str,
) -> UsageEventId {
    record(app, tenant, meter, (at, 1, Some(subject.to_owned()))).await
}

async fn record(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    meter: &str,
    (at, quantity, subject): (Time, u64, Option<String>),
) -> UsageEventId {
    let cx = system(app, tenant).await;
    let event = NewUsage {
        key: UsageKey::new("test", cx.ids().uuid().to_string()),
        meter: MeterKey::parse(meter).unwrap(),
        quantity,
        event_at: Some(at),
        subject,
        properties: None,
        origin: UsageOrigin::Api,
    };
    let appended = cx.write(async |work| usage::record(&cx, work, std::slice::from_ref(&event)).await);
    match appended.await.unwrap().as_slice() {
        [Appended::Accepted(id)] => *id,
        other => panic!("{other:?}"),
    }
}

/// Takes an event back, as its tenant's admin does.
pub async fn take_back(world: &World, slug: &str, email: &str, event: UsageEventId) {
    let login = world.login(slug, email, PASSWORD).await.expect(200).json();
    let token = login["access_token"].as_str().unwrap();
    let path = format!("/api/v1/usage/events/{event}/invalidate");
    let reason = json!({"reason": "it was a test"});
    let request = world.client.post(&path, &reason).bearer(token);
    request.await.expect(200);
}

/// Totals the hours of a tenant in which something has changed.
pub async fn roll_up(app: &Arc<Tenancy>, tenant: TenantId) {
    RollUp.run(&system(app, tenant).await, Nothing {}).await.unwrap();
}

async fn system(app: &Arc<Tenancy>, tenant: TenantId) -> Cx {
    let because = SystemScope::because("a test of usage");
    let scope = app.ports.gate.system(because, tenant).await.unwrap();
    Cx::new(Arc::clone(app), scope, Origin::default())
}
