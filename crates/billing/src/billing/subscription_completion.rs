//! Meters that a subscription does not charge yet: the change that adds them is asked for.

use tenantry_domain::billing::{BillingAccount, Offer, ProviderSubscription};
use tenantry_domain::kernel::Limit;
use tenantry_domain::store::Work;
use tenantry_domain::usage::{MeterKey, MeterTerms};
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::job::{self, JobError, Terms};

use crate::plans::{Changing, SubscriptionChange};

/// Changes a subscription as it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Change;

/// Asks for what a subscription lacks of what it is for: a page of the provider's sells nothing that is paid for in two
/// intervals, so after one for a year there is nothing yet that charges use, which is charged by the month.
///
/// # Errors
/// [`JobError`].
pub(crate) async fn complete(cx: &Cx, work: &mut Work, account: &BillingAccount) -> Result<(), JobError> {
    let Some((subscription, offer)) = lacking(cx, account) else {
        return Ok(());
    };
    let change = SubscriptionChange {
        id: cx.ids().uuid(),
        subscription: subscription.id.clone(),
        what: Changing::Offer {
            offer: offer.clone(),
            seats: subscription.seats,
        },
    };
    // Any other change that is under way adds it as well.
    job::enqueue::<Change>(cx, work, &change, one_change()).await?;
    Ok(())
}

/// A tenant has one change of its subscription under way at a time.
pub(crate) fn one_change() -> Terms {
    Terms {
        dedupe_key: Some(SubscriptionChange::KEY.into()),
        ..Terms::default()
    }
}

/// The subscription that runs and what it is for, where it does not charge a meter that its plan does.
pub(crate) fn lacking<'a>(
    cx: &Cx,
    account: &'a BillingAccount,
) -> Option<(&'a ProviderSubscription, &'a Offer)> {
    let subscription = account.live_subscription()?;
    let offer = subscription.offer.as_ref()?;
    let terms = cx.ports().plans.terms(&offer.plan, offer.version);
    let charges = |meter: &MeterTerms| {
        let mut prices = meter.overage.iter();
        meter.included != Limit::Unlimited && prices.any(|price| price.currency == offer.currency)
    };
    let is_charged = |key: &MeterKey| subscription.charged.iter().any(|charged| charged.meter == *key);
    let mut meters = terms.meters.iter();
    // Of a plan that is not known the terms are those of another.
    let is_lacking =
        terms.name == offer.plan && meters.any(|(key, meter)| charges(meter) && !is_charged(key));
    is_lacking.then_some((subscription, offer))
}
