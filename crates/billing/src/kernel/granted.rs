//! What a tenant is granted: by its plan in the version that it bought, and by what was agreed beside it.

use std::sync::Arc;

use tenantry_domain::plans::{Entitlements, Subscription};
use tenantry_tenancy::{Cx, Ports};

/// The limit of how many events of usage are accepted from outside in a day, UTC; its name in the plan catalogue.
pub const USAGE_EVENTS: &str = "usage_events_per_day";

/// Returns what the scope's tenant is granted.
pub fn current(cx: &Cx) -> Entitlements {
    let ports = cx.ports();
    match cx.scope().subscription() {
        Some(subscription) => of(ports, Arc::clone(subscription)),
        // The founder of a tenant chooses among what is on offer.
        None => Entitlements {
            terms: ports.plans.terms(ports.plans.default_plan(), 0),
            subscription: None,
        },
    }
}

/// Returns what a subscription grants.
pub fn of(ports: &Ports, subscription: Arc<Subscription>) -> Entitlements {
    Entitlements {
        terms: ports.plans.terms(&subscription.plan, subscription.version),
        subscription: Some(subscription),
    }
}
