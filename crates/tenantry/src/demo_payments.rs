//! The demo is paid through a fake of Stripe whose clock is moved by hand. It keeps what it has beside the demo's data.

use std::sync::Arc;
use std::time::Duration;

use tenantry_billing::billing::billing_oversight::{self, LostCustomer, Sweep};
use tenantry_billing::billing::billing_provision::{self, SignedUpFor};
use tenantry_billing::billing::billing_sync;
use tenantry_domain::kernel::{Clock, SystemScope, Time};
use tenantry_domain::plans::PlanTerms;
use tenantry_stripe_fake::FakeClock;
use tenantry_system::SystemClock;
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::CommandError;
use crate::boot::Booted;
use crate::tenant::other;

const BECAUSE: SystemScope = SystemScope::because("the fake of Stripe in the demo");

/// How often it is looked whether the clock of the fake was moved.
const LOOK: Duration = Duration::from_secs(1);

/// The clock of the fake.
#[derive(Debug)]
pub struct FakeTime(pub FakeClock);

impl Clock for FakeTime {
    fn now(&self) -> Time {
        self.0.now()
    }
}

/// Puts on sale at the fake what is on offer. Customers that the fake does not have, because its file is gone, are made anew, with what
/// they had.
pub async fn prepare(booted: &Booted) -> Result<(), CommandError> {
    let Some(stripe) = &booted.stripe else {
        return Ok(());
    };
    let plans = &booted.app.ports.plans;
    let on_offer: Vec<PlanTerms> = plans
        .on_offer()
        .iter()
        .map(|terms| PlanTerms::clone(terms))
        .collect();
    let published = stripe.publish(&on_offer, plans.meters()).await;
    published.map_err(|error| other(&error))?;
    let cx = OperatorCx::command(&booted.app, BECAUSE);
    let mut after = None;
    loop {
        let swept = billing_oversight::lost_customers(&cx, true, Sweep { after, limit: 100 }).await;
        let swept = swept.map_err(|error| other(&error))?;
        for lost in swept.found {
            subscribe_again(&booted.app, lost).await?;
        }
        after = swept.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn subscribe_again(app: &Arc<Tenancy>, lost: LostCustomer) -> Result<(), CommandError> {
    let Some(offer) = lost.ended else { return Ok(()) };
    let wanted = SignedUpFor { plan: offer.plan };
    let asked = billing_provision::again(app, BECAUSE, lost.tenant, &wanted).await;
    asked.map_err(|error| other(&error))
}

/// Takes the steps of dunning that have become due whenever the clock of the fake is moved.
pub fn follow(app: Arc<Tenancy>, clock: FakeClock) {
    let ahead = move || clock.now() - SystemClock::new().now();
    tokio::spawn(async move {
        let mut before = ahead();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = ahead();
            if now - before > chrono::Duration::minutes(1) {
                before = now;
                if let Err(error) = catch_up(&app).await {
                    tracing::warn!(%error, "the demo cannot follow the clock of the fake");
                }
            }
        }
    });
}

async fn catch_up(app: &Arc<Tenancy>) -> Result<(), CommandError> {
    let mut after = None;
    loop {
        let some = app.ports.customers.list(BECAUSE, after, 100).await;
        let some = some.map_err(|error| other(&error))?;
        let Some(last) = some.last() else { return Ok(()) };
        after = Some(*last);
        for tenant in some {
            let synced = billing_sync::sync_of(app, BECAUSE, tenant).await;
            synced.map_err(|error| other(&error))?;
        }
    }
}
