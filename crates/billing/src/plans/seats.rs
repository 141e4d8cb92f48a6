//! Seats: how many a tenant pays for or is about to, and how many are taken.

use tenantry_domain::billing::{SeatLimit, SeatsOf};
use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;
use tenantry_tenancy::Cx;
use tenantry_tenancy::plans::{AddError, NotInPlan};

use crate::kernel::granted;
use crate::plans::subscription_change::{Changing, SubscriptionChange};

/// Makes sure that a seat is free for one more active user; in a transaction that holds the tenant's row. So do those that
/// begin a checkout or ask for fewer seats: from then on there are no more active users than will be paid. Nothing is paid
/// by the seat without a subscription, and none is about to begin without a checkout.
///
/// # Errors
/// [`AddError`].
pub(crate) async fn require_free(cx: &Cx, work: &mut Work) -> Result<(), AddError> {
    let Some(seats) = of(cx, work).await? else {
        return Ok(());
    };
    if seats.used < u64::from(seats.allowed.seats) {
        return Ok(());
    }
    let refused = NotInPlan::Seats {
        allowed: seats.allowed,
        used: seats.used,
        current: granted::current(cx).terms.name.clone(),
    };
    Err(refused.into())
}

/// The seats of a tenant.
pub(crate) struct Seats {
    /// How many there are, and of what.
    pub allowed: SeatLimit,
    /// How many active users and open invitations take one.
    pub used: u64,
}

/// Returns the seats of the scope's tenant; `None` where it does not pay by the seat.
pub(crate) async fn of(cx: &Cx, work: &mut Work) -> Result<Option<Seats>, StoreError> {
    let Some(payments) = &cx.ports().payments else {
        return Ok(None);
    };
    let Some(account) = work.billing().current().await? else {
        return Ok(None);
    };
    let now = payments.now(cx.now());
    let limit = account.seat_limit(now);
    // Only a subscription that runs can be changed.
    let pending = match account.live_subscription() {
        Some(_) => pending(work).await?,
        None => None,
    };
    let Some(allowed) = limit.into_iter().chain(pending).min() else {
        return Ok(None);
    };
    let used = in_use(cx, work).await?;
    Ok(Some(Seats { allowed, used }))
}

/// How many seats are taken: one by each active user, and one by each open invitation.
pub(crate) async fn in_use(cx: &Cx, work: &mut Work) -> Result<u64, StoreError> {
    Ok(work.users().count_active().await? + work.invitations().count_open(cx.now()).await?)
}

/// The seats of the change that is under way: until the provider has answered and the account is synchronized, or the change
/// is given up, the tenant may end up with these.
///
/// # Errors
/// [`StoreError`].
async fn pending(work: &mut Work) -> Result<Option<SeatLimit>, StoreError> {
    let Some(change) = SubscriptionChange::open(work).await? else {
        return Ok(None);
    };
    Ok(match change.what {
        Changing::Offer { seats, .. } => Some(SeatLimit {
            seats,
            of: SeatsOf::Change,
        }),
        Changing::Ending(_) => None,
    })
}
