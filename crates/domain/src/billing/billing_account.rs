use async_trait::async_trait;

use crate::billing::{
    CustomerRef, Dunning, InvoiceStatus, Offer, ProviderInvoice, ProviderSubscription, SubscriptionStatus,
};
use crate::kernel::{BillingAccountId, BillingCycle, StoreError, Time};

/// What a tenant has with the payment provider, as far as we know: a mirror of the provider's state, and how far dunning
/// has come. A tenant has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingAccount {
    /// Its id; keys of calls to the provider are made of it.
    pub id: BillingAccountId,
    /// The tenant as a customer; `None` until the provider has made one.
    pub customer: Option<CustomerRef>,
    /// Its subscription as it was when we last asked; an ended one stays until there is another.
    pub subscription: Option<ProviderSubscription>,
    /// What the tenant's months are counted from.
    pub cycle_anchor: Option<Time>,
    /// How far dunning has come.
    pub dunning: Dunning,
    /// Why the provider refused what was last asked of it.
    pub refusal: Option<String>,
    /// How many times it was begun to ask the provider for its state.
    pub fetches: i64,
    /// Which of those times the present state is of. An answer to an earlier one is of no use any more.
    pub applied: i64,
    /// When that was, by the clock of whoever asked.
    pub synced_at: Option<Time>,
    /// The checkout that can still be paid.
    pub checkout: Option<PendingCheckout>,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Counts its changes, from 1.
    pub version: i64,
}

/// An open checkout, as far as it limits the tenant: once it is paid, its seats are all that is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCheckout {
    /// How many seats it sells, at least 1.
    pub seats: u32,
    /// When it can no longer be paid.
    pub until: Time,
    /// The number of the fetch that found it: [`BillingAccount::fetches`] when the fetch began.
    pub number: i64,
}

/// How many active users the seats of a tenant allow, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeatLimit {
    /// The most active users.
    pub seats: u32,
    /// What has so many seats.
    pub of: SeatsOf,
}

/// What has a number of seats that limits active users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeatsOf {
    /// The subscription that runs.
    Subscription,
    /// A change of it that is under way.
    Change,
    /// A checkout that is open.
    Checkout,
    /// A subscription whose first payment is not made yet.
    UnpaidSubscription,
}

/// What the provider said of a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedAccount {
    /// Which time of asking it was: [`BillingAccount::fetches`] when it was begun.
    pub number: i64,
    /// When it was begun.
    pub at: Time,
    /// Every subscription of the customer.
    pub subscriptions: Vec<ProviderSubscription>,
    /// The newest invoices of the customer.
    pub invoices: Vec<ProviderInvoice>,
    /// Whether the customer was found to have no open checkout; false when the provider was not asked.
    pub has_no_checkout: bool,
}

/// What follows for the plan of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanStep {
    /// It stays as it is.
    Keep,
    /// The tenant gets what was offered.
    Grant(Offer),
    /// The tenant no longer has this.
    Withdraw(Offer),
}

impl BillingAccount {
    /// The account of a tenant of whom the provider knows nothing yet.
    pub fn new(id: BillingAccountId, now: Time) -> Self {
        Self {
            id,
            customer: None,
            subscription: None,
            cycle_anchor: None,
            dunning: Dunning::HEALTHY,
            refusal: None,
            fetches: 0,
            applied: 0,
            synced_at: None,
            checkout: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// Begins to ask the provider; the number belongs into the [`FetchedAccount`].
    pub fn begin_fetch(&mut self) -> i64 {
        self.fetches += 1;
        self.fetches
    }

    /// Drops the answers to every fetch that has begun: they are of a time before a change that has just been made at the
    /// provider. A fetch has to follow.
    pub fn discard_fetches(&mut self) {
        self.applied = self.fetches;
    }

    /// Whether an answer was applied, or discarded, since this state was read.
    #[must_use]
    pub fn is_behind(&self, current: &Self) -> bool {
        self.applied != current.applied
    }

    /// Takes over what the provider said. `None` when somebody who began to ask later was faster: then nothing changes.
    ///
    /// What it becomes depends on what was fetched alone, so that it makes no difference how often and in which order it
    /// was heard that something had changed.
    pub fn absorb(&mut self, fetched: &FetchedAccount) -> Option<PlanStep> {
        if fetched.number <= self.applied {
            return None;
        }
        self.applied = fetched.number;
        self.synced_at = Some(fetched.at);
        let is_over = |open: &PendingCheckout| fetched.has_no_checkout && open.number <= fetched.number;
        self.checkout = self.checkout.take().filter(|open| !is_over(open));
        let had = self.granted().cloned();
        if let Some(subscription) = fetched.kept() {
            self.cycle_anchor = Some(anchor(subscription));
            self.subscription = Some(subscription.clone());
        } else if let Some(known) = &mut self.subscription {
            // It is no longer for a price of ours.
            let is_foreign = |one: &&ProviderSubscription| one.id == known.id && !one.is_ours();
            if let Some(foreign) = fetched.subscriptions.iter().find(is_foreign) {
                known.clone_from(foreign);
            }
        }
        let step = match (had, self.granted()) {
            (had, Some(has)) if had.as_ref() != Some(has) => PlanStep::Grant(has.clone()),
            (Some(had), None) => PlanStep::Withdraw(had),
            (None, None) | (Some(_), Some(_)) | (None, Some(_)) => PlanStep::Keep,
        };
        Some(step)
    }

    /// Takes another customer in place of one that the provider no longer has. What the former customer had there is over:
    /// its subscription has ended. Answers to questions about it that are still under way are dropped.
    pub fn replace_customer(&mut self, customer: CustomerRef, now: Time) -> PlanStep {
        let had = self.granted().cloned();
        if let Some(subscription) = &mut self.subscription {
            subscription.customer.clone_from(&customer);
            if !subscription.has_ended() {
                subscription.status = SubscriptionStatus::Canceled;
                subscription.canceled_at = subscription.canceled_at.or(Some(now));
                subscription.ended_at = Some(now);
            }
        }
        self.customer = Some(customer);
        self.discard_fetches();
        self.updated_at = now;
        self.version += 1;
        had.map_or(PlanStep::Keep, PlanStep::Withdraw)
    }

    /// How many seats are paid; `None` without a running subscription, when nothing is paid by the seat.
    pub fn paid_seats(&self) -> Option<u32> {
        self.live_subscription().map(|subscription| subscription.seats)
    }

    /// Notes the one checkout that is open. Returns false, and notes nothing, when a fetch that began later has found
    /// another one.
    pub fn hold_checkout(&mut self, open: PendingCheckout) -> bool {
        let is_older = self
            .checkout
            .as_ref()
            .is_some_and(|held| held.number > open.number);
        if !is_older {
            self.checkout = Some(open);
        }
        !is_older
    }

    /// How many active users the account allows at a moment of the provider's time: as many as the fewest seats that are
    /// paid or may be paid before anyone is asked again. `None` when nothing is paid by the seat.
    pub fn seat_limit(&self, now: Time) -> Option<SeatLimit> {
        let limit = |of| move |seats| SeatLimit { seats, of };
        let paid = self.paid_seats().map(limit(SeatsOf::Subscription));
        let open = self.checkout.as_ref().filter(|open| now < open.until);
        let open = open.map(|open| open.seats).map(limit(SeatsOf::Checkout));
        let unpaid = self.unpaid_subscription().map(|one| one.seats);
        let unpaid = unpaid.map(limit(SeatsOf::UnpaidSubscription));
        paid.into_iter().chain(open).chain(unpaid).min()
    }

    /// The subscription, while its first payment can still be made.
    pub fn unpaid_subscription(&self) -> Option<&ProviderSubscription> {
        let subscription = self.subscription.as_ref()?;
        (subscription.is_ours() && subscription.awaits_payment()).then_some(subscription)
    }

    /// What the subscription grants now: nothing before the first payment, and nothing after its end. While a payment is
    /// owed it still does; what then happens is for dunning to say.
    pub fn granted(&self) -> Option<&Offer> {
        let subscription = self.subscription.as_ref()?;
        subscription.grants().then_some(())?;
        subscription.offer.as_ref()
    }

    /// The subscription, while it can be changed.
    pub fn live_subscription(&self) -> Option<&ProviderSubscription> {
        self.subscription
            .as_ref()
            .filter(|subscription| subscription.is_ours() && subscription.grants())
    }

    /// The tenant's months.
    pub fn cycle(&self) -> BillingCycle {
        self.cycle_anchor
            .map_or(BillingCycle::CALENDAR, BillingCycle::anchored)
    }
}

impl ProviderSubscription {
    /// Whether it is for a price of our catalogue. The provider may sell other things to the same customer: those grant
    /// nothing here, count for nothing and are never changed.
    pub const fn is_ours(&self) -> bool {
        self.offer.is_some()
    }

    /// Whether what it is for may be used.
    pub const fn grants(&self) -> bool {
        match self.status {
            SubscriptionStatus::Trialing
            | SubscriptionStatus::Active
            | SubscriptionStatus::PastDue
            | SubscriptionStatus::Unpaid => true,
            SubscriptionStatus::Incomplete
            | SubscriptionStatus::IncompleteExpired
            | SubscriptionStatus::Canceled
            | SubscriptionStatus::Paused
            | SubscriptionStatus::Unrecognised(_) => false,
        }
    }

    /// Whether it is over for good.
    pub const fn has_ended(&self) -> bool {
        matches!(
            self.status,
            SubscriptionStatus::IncompleteExpired | SubscriptionStatus::Canceled
        )
    }

    /// Whether its first payment can still be made. The provider keeps the invoice payable for a day.
    pub const fn awaits_payment(&self) -> bool {
        matches!(self.status, SubscriptionStatus::Incomplete)
    }

    /// Whether it is for our catalogue and is paid or can be.
    pub const fn is_payable(&self) -> bool {
        self.is_ours() && (self.grants() || self.awaits_payment())
    }

    /// Whether it was never paid and grants nothing.
    const fn never_began(&self) -> bool {
        matches!(
            self.status,
            SubscriptionStatus::Incomplete | SubscriptionStatus::IncompleteExpired
        )
    }
}

impl FetchedAccount {
    /// The subscription that counts.
    pub fn kept(&self) -> Option<&ProviderSubscription> {
        current(&self.subscriptions)
    }

    /// The subscriptions of our catalogue beside the one that counts that are paid or can be: a tenant has one, and pays
    /// twice for another. Of several that wait for their first payment each can still become the one.
    pub fn surplus(&self) -> Vec<&ProviderSubscription> {
        let Some(kept) = self.kept().filter(|kept| kept.grants()) else {
            return Vec::new();
        };
        let subscriptions = self.subscriptions.iter();
        subscriptions
            .filter(|one| one.is_payable() && one.id != kept.id)
            .collect()
    }

    /// The running subscriptions for something else than our catalogue.
    pub fn foreign(&self) -> impl Iterator<Item = &ProviderSubscription> {
        let all = self.subscriptions.iter();
        all.filter(|one| !one.is_ours() && one.grants())
    }

    /// Returns the outstanding invoices, the oldest first: those that are open after an attempt to collect them. What belongs
    /// to a subscription that never began, or that is not for our catalogue, is no debt; nor is the first invoice after a
    /// trial once the subscription has ended without it being paid.
    pub fn outstanding(&self) -> Vec<&ProviderInvoice> {
        let does_not_count = |invoice: &ProviderInvoice| {
            let mut subscriptions = self.subscriptions.iter();
            subscriptions.any(|one| {
                invoice.subscription.as_ref() == Some(&one.id)
                    && (one.never_began() || !one.is_ours() || self.is_of_lapsed_trial(one, invoice))
            })
        };
        let outstanding = self
            .invoices
            .iter()
            .filter(|invoice| invoice.is_outstanding() && !does_not_count(invoice));
        let mut outstanding: Vec<_> = outstanding.collect();
        outstanding.sort_by_key(|invoice| invoice.created_at);
        outstanding
    }

    /// Whether an invoice is the first after a trial of a subscription that has ended: an invoice of the trial is of nothing.
    fn is_of_lapsed_trial(&self, subscription: &ProviderSubscription, invoice: &ProviderInvoice) -> bool {
        let mut others = self.invoices.iter();
        let is_earlier = |other: &ProviderInvoice| {
            other.subscription == invoice.subscription
                && other.total > 0
                && other.created_at < invoice.created_at
        };
        subscription.has_ended()
            && subscription
                .trial_ends_at
                .is_some_and(|end| end <= invoice.created_at)
            && !others.any(is_earlier)
    }

    /// What the subscription was for whose invoice is [`Self::outstanding`] longest, where that is known.
    pub fn outstanding_for(&self) -> Option<&Offer> {
        let subscription = self.outstanding().first()?.subscription.as_ref()?;
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.find(|one| one.id == *subscription)?.offer.as_ref()
    }

    /// Since when something is owed: when the oldest invoice was made that is [`Self::outstanding`]. Where the
    /// subscription says that it is not paid and no such invoice is to be seen, it is the beginning of the
    /// period.
    pub fn outstanding_since(&self) -> Option<Time> {
        let unpaid = || {
            let subscription = self.kept()?;
            let owes = matches!(
                subscription.status,
                SubscriptionStatus::PastDue | SubscriptionStatus::Unpaid
            );
            owes.then_some(subscription.period.start)
        };
        let oldest = self.outstanding().first().map(|invoice| invoice.created_at);
        oldest.or_else(unpaid)
    }
}

impl ProviderInvoice {
    /// Whether it was tried to collect it, in vain.
    pub fn is_outstanding(&self) -> bool {
        self.status == Some(InvoiceStatus::Open) && self.attempts > 0 && self.amount_due > 0
    }
}

/// The subscription that counts, of those for our catalogue: one that is paid, before one that is tried, before one for which
/// a payment is owed, before one that may yet begin, before one that has ended. Of those the newest, as the customer's last
/// decision, and of one second the one with the greatest id, so that everyone who sees the same subscriptions chooses the
/// same one. One in a state that we do not know does not count.
fn current(subscriptions: &[ProviderSubscription]) -> Option<&ProviderSubscription> {
    let rank = |one: &ProviderSubscription| match one.status {
        SubscriptionStatus::Active => Some(4),
        SubscriptionStatus::Trialing => Some(3),
        SubscriptionStatus::PastDue | SubscriptionStatus::Unpaid => Some(2),
        SubscriptionStatus::Incomplete | SubscriptionStatus::Paused => Some(1),
        SubscriptionStatus::IncompleteExpired | SubscriptionStatus::Canceled => Some(0),
        SubscriptionStatus::Unrecognised(_) => None,
    };
    let ours = subscriptions.iter().filter(|one| one.is_ours());
    let ranked = ours.filter_map(|one| Some((rank(one)?, one)));
    let best = ranked.max_by(|(left, a), (right, b)| {
        (left, a.created_at, a.id.as_str()).cmp(&(right, b.created_at, b.id.as_str()))
    });
    best.map(|(_, one)| one)
}

/// What the months of a subscription are counted from: the end of its trial, or its beginning, where its present period
/// begins so; else that period's beginning. Of a 31st the present period alone may only show a 28th.
fn anchor(subscription: &ProviderSubscription) -> Time {
    let start = subscription.period.start;
    let fits = |anchor: &Time| {
        let second = |at: Time| at.timestamp();
        second(BillingCycle::anchored(*anchor).period(start).start) == second(start)
    };
    let trial = subscription.trial_ends_at;
    if subscription.status == SubscriptionStatus::Trialing
        && let Some(end) = trial
    {
        return end;
    }
    let mut known = trial.into_iter().chain([subscription.created_at]);
    known.find(|anchor| fits(anchor)).unwrap_or(start)
}

/// The account of the scope's tenant.
#[async_trait]
pub trait BillingAccounts: Send {
    /// The account, if there is one.
    async fn current(&mut self) -> Result<Option<BillingAccount>, StoreError>;
    /// The account, locked until the transaction ends.
    async fn current_for_update(&mut self) -> Result<Option<BillingAccount>, StoreError>;
    /// Adds the account, unless there is one.
    async fn insert_unless_there(&mut self, account: &BillingAccount) -> Result<(), StoreError>;
    /// Stores its new state.
    async fn update(&mut self, account: &BillingAccount) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::billing::{InvoiceRef, SubscriptionRef};
    use crate::kernel::{Currency, Interval, Period};

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn offer(plan: &str) -> Offer {
        Offer {
            plan: plan.into(),
            version: 1,
            currency: Currency::try_from("usd".to_owned()).unwrap(),
            interval: Interval::Month,
        }
    }

    fn subscription(id: &str, status: SubscriptionStatus, plan: &str) -> ProviderSubscription {
        ProviderSubscription {
            id: SubscriptionRef::parse(id).unwrap(),
            customer: CustomerRef::parse("cus_1").unwrap(),
            status,
            offer: Some(offer(plan)),
            seats: 1,
            charged: Vec::new(),
            period: Period {
                start: at("2026-02-28T10:00:00Z"),
                end: at("2026-03-31T10:00:00Z"),
            },
            trial_ends_at: None,
            cancel_at_period_end: false,
            canceled_at: None,
            ended_at: None,
            created_at: at("2026-01-31T10:00:00Z"),
        }
    }

    fn invoice(id: &str, subscription: &str, created_at: &str) -> ProviderInvoice {
        ProviderInvoice {
            id: InvoiceRef::parse(id).unwrap(),
            customer: CustomerRef::parse("cus_1").unwrap(),
            subscription: SubscriptionRef::parse(subscription),
            number: None,
            status: Some(InvoiceStatus::Open),
            currency: Currency::try_from("usd".to_owned()).unwrap(),
            total: 100,
            amount_due: 100,
            amount_paid: 0,
            period: Period {
                start: at(created_at),
                end: at(created_at),
            },
            attempts: 1,
            next_attempt_at: None,
            url: None,
            created_at: at(created_at),
            lines: Vec::new(),
        }
    }

    fn account() -> BillingAccount {
        BillingAccount::new(uuid::Uuid::from_u128(1).into(), at("2026-01-31T10:00:00Z"))
    }

    fn fetched(
        account: &mut BillingAccount,
        subscriptions: Vec<ProviderSubscription>,
        invoices: Vec<ProviderInvoice>,
    ) -> FetchedAccount {
        FetchedAccount {
            number: account.begin_fetch(),
            at: at("2026-03-01T00:00:00Z"),
            subscriptions,
            invoices,
            has_no_checkout: false,
        }
    }

    fn held(seats: u32, until: &str, number: i64) -> PendingCheckout {
        PendingCheckout {
            seats,
            until: at(until),
            number,
        }
    }

    #[test]
    fn fewest_seats_that_may_be_paid_limit_users() {
        let mut account = account();
        let now = at("2026-02-01T00:00:00Z");
        let limit = |account: &BillingAccount| account.seat_limit(now).map(|it| (it.seats, it.of));
        assert_eq!(limit(&account), None, "nothing is paid by the seat");
        assert!(account.hold_checkout(held(3, "2026-02-01T00:00:01Z", 1)));
        assert_eq!(limit(&account), Some((3, SeatsOf::Checkout)));
        assert_eq!(
            account.seat_limit(at("2026-02-01T00:00:01Z")),
            None,
            "it has expired"
        );
        for (status, expected) in [
            (SubscriptionStatus::Active, (1, SeatsOf::Subscription)),
            (SubscriptionStatus::Incomplete, (1, SeatsOf::UnpaidSubscription)),
            (SubscriptionStatus::IncompleteExpired, (3, SeatsOf::Checkout)),
            (SubscriptionStatus::Canceled, (3, SeatsOf::Checkout)),
        ] {
            account.subscription = Some(subscription("sub_1", status.clone(), "pro"));
            assert_eq!(limit(&account), Some(expected), "{status:?}");
        }
    }

    #[test]
    fn checkout_ends_for_those_who_asked_after_it_was_found() {
        let mut account = account();
        let mut early = fetched(&mut account, Vec::new(), Vec::new());
        early.has_no_checkout = true;
        let number = account.begin_fetch();
        assert!(account.hold_checkout(held(2, "2026-03-02T00:00:00Z", number)));
        assert!(!account.hold_checkout(held(9, "2026-03-02T00:00:00Z", number - 1)));
        account.absorb(&early);
        assert_eq!(account.checkout.as_ref().map(|open| open.seats), Some(2));
        let silent = fetched(&mut account, Vec::new(), Vec::new());
        account.absorb(&silent);
        assert!(account.checkout.is_some(), "the provider was not asked");
        let mut late = fetched(&mut account, Vec::new(), Vec::new());
        late.has_no_checkout = true;
        account.absorb(&late);
        assert_eq!(account.checkout, None);
    }

    #[test]
    fn nothing_is_granted_before_the_first_payment_nor_after_the_end() {
        let mut account = account();
        for (status, step) in [
            (SubscriptionStatus::Incomplete, PlanStep::Keep),
            (SubscriptionStatus::Active, PlanStep::Grant(offer("pro"))),
            (SubscriptionStatus::PastDue, PlanStep::Keep),
            (SubscriptionStatus::Unpaid, PlanStep::Keep),
            (SubscriptionStatus::Canceled, PlanStep::Withdraw(offer("pro"))),
            (SubscriptionStatus::IncompleteExpired, PlanStep::Keep),
        ] {
            let fetched = fetched(
                &mut account,
                vec![subscription("sub_1", status.clone(), "pro")],
                Vec::new(),
            );
            assert_eq!(account.absorb(&fetched), Some(step), "{status:?}");
        }
    }

    #[test]
    fn who_asked_earlier_and_hears_later_changes_nothing() {
        let mut account = account();
        let early = fetched(
            &mut account,
            vec![subscription("sub_1", SubscriptionStatus::Active, "pro")],
            Vec::new(),
        );
        let late = fetched(
            &mut account,
            vec![subscription("sub_1", SubscriptionStatus::Canceled, "pro")],
            Vec::new(),
        );
        assert_eq!(account.absorb(&late), Some(PlanStep::Keep));
        let after = account.clone();
        assert_eq!(account.absorb(&early), None);
        assert_eq!(account.absorb(&late), None);
        assert_eq!(account, after);
    }

    #[test]
    fn of_several_subscriptions_the_newest_that_grants_something_counts() {
        let mut newer = subscription("sub_2", SubscriptionStatus::Incomplete, "enterprise");
        newer.created_at = at("2026-02-28T10:00:00Z");
        let odd = subscription("sub_9", SubscriptionStatus::Unrecognised("odd".into()), "odd");
        let older = subscription("sub_1", SubscriptionStatus::Active, "pro");
        let all = [newer.clone(), odd, older];
        assert_eq!(current(&all).unwrap().id.as_str(), "sub_1");
        newer.status = SubscriptionStatus::Active;
        let all = [all[2].clone(), newer, all[1].clone()];
        assert_eq!(current(&all).unwrap().id.as_str(), "sub_2");
    }

    /// What is paid is the customer's decision; a trial is begun for them at sign-up, and may be begun a moment later.
    #[test]
    fn a_paid_subscription_counts_before_a_newer_trial() {
        let paid = subscription("sub_1", SubscriptionStatus::Active, "enterprise");
        let mut trial = subscription("sub_2", SubscriptionStatus::Trialing, "pro");
        trial.created_at = at("2026-02-28T10:00:00Z");
        let mut account = account();
        let both = fetched(&mut account, vec![trial, paid], Vec::new());
        assert_eq!(both.kept().unwrap().id.as_str(), "sub_1");
        assert_eq!(both.surplus()[0].id.as_str(), "sub_2");
    }

    #[test]
    fn foreign_subscriptions_grant_nothing_and_owe_nothing() {
        let mut foreign = subscription("sub_9", SubscriptionStatus::PastDue, "pro");
        foreign.offer = None;
        foreign.created_at = at("2026-02-28T10:00:00Z");
        let ours = subscription("sub_1", SubscriptionStatus::PastDue, "pro");
        let mut account = account();
        let debt = invoice("in_9", "sub_9", "2026-02-04T00:00:00Z");
        let alone = fetched(&mut account, vec![foreign.clone()], vec![debt.clone()]);
        assert_eq!(
            (alone.kept(), alone.surplus().len(), alone.outstanding_since()),
            (None, 0, None)
        );
        assert_eq!(account.absorb(&alone), Some(PlanStep::Keep));
        assert_eq!((account.live_subscription(), account.paid_seats()), (None, None));

        let beside = fetched(&mut account, vec![foreign.clone(), ours.clone()], vec![debt]);
        assert_eq!(account.absorb(&beside), Some(PlanStep::Grant(offer("pro"))));
        assert_eq!(beside.kept(), Some(&ours));
        assert_eq!((beside.surplus().len(), beside.foreign().count()), (0, 1));
        assert_eq!(beside.outstanding_since(), Some(ours.period.start));
    }

    #[test]
    fn a_subscription_moved_to_a_foreign_price_is_withdrawn() {
        let mut account = account();
        let ours = subscription("sub_1", SubscriptionStatus::Active, "pro");
        let first = fetched(&mut account, vec![ours.clone()], Vec::new());
        account.absorb(&first);
        let mut moved = ours.clone();
        moved.offer = None;
        let second = fetched(&mut account, vec![moved], Vec::new());
        assert_eq!(account.absorb(&second), Some(PlanStep::Withdraw(offer("pro"))));
        assert_eq!(account.live_subscription(), None);
        // A state that we do not know still changes nothing.
        let third = fetched(&mut account, vec![ours.clone()], Vec::new());
        account.absorb(&third);
        let mut odd = ours;
        odd.status = SubscriptionStatus::Unrecognised("odd".into());
        let fourth = fetched(&mut account, vec![odd], Vec::new());
        assert_eq!(account.absorb(&fourth), Some(PlanStep::Keep));
    }

    #[test]
    fn fetch_begun_before_a_change_at_the_provider_is_dropped() {
        let mut account = account();
        let two = || {
            vec![
                subscription("sub_1", SubscriptionStatus::Active, "pro"),
                subscription("sub_2", SubscriptionStatus::Active, "pro"),
            ]
        };
        let first = fetched(&mut account, two(), Vec::new());
        let late = fetched(&mut account, two(), Vec::new());
        account.absorb(&first);
        let seen = account.clone();
        assert!(!seen.is_behind(&account));
        account.discard_fetches();
        assert!(seen.is_behind(&account));
        assert_eq!(
            account.absorb(&late),
            None,
            "it was asked before the surplus ended"
        );
        let after = fetched(&mut account, two(), Vec::new());
        assert!(account.absorb(&after).is_some());
    }

    #[test]
    fn a_replaced_customer_leaves_no_running_subscription() {
        let mut account = account();
        let active = || subscription("sub_1", SubscriptionStatus::Active, "pro");
        let first = fetched(&mut account, vec![active()], Vec::new());
        account.absorb(&first);
        let late = fetched(&mut account, vec![active()], Vec::new());
        let now = at("2026-03-02T00:00:00Z");
        let fresh = CustomerRef::parse("cus_2").unwrap();
        let step = account.replace_customer(fresh.clone(), now);
        assert_eq!(step, PlanStep::Withdraw(offer("pro")));
        assert_eq!(account.absorb(&late), None, "it was asked of the former customer");
        let ended = account.subscription.clone().unwrap();
        assert_eq!((ended.status.as_str(), ended.ended_at), ("canceled", Some(now)));
        assert_eq!(
            (account.customer.as_ref(), account.granted()),
            (Some(&fresh), None)
        );
        assert_eq!(account.replace_customer(fresh, now), PlanStep::Keep);
    }

    fn any_status() -> impl Strategy<Value = SubscriptionStatus> {
        let words = [
            "trialing",
            "active",
            "past_due",
            "unpaid",
            "incomplete",
            "incomplete_expired",
            "canceled",
            "paused",
            "odd",
        ];
        proptest::sample::select(words.to_vec()).prop_map(SubscriptionStatus::parse)
    }

    proptest! {
        #[test]
        fn one_granting_subscription_is_kept_whatever_the_order(
            made in proptest::collection::vec((any_status(), 0..3_i64, proptest::bool::weighted(0.8)), 0..6),
            seed: u64,
        ) {
            let mut all: Vec<_> = made
                .into_iter()
                .enumerate()
                .map(|(number, (status, second, is_ours))| {
                    let mut one = subscription(&format!("sub_{number}"), status, "pro");
                    one.offer = one.offer.filter(|_| is_ours);
                    one.created_at += chrono::Duration::seconds(second);
                    one
                })
                .collect();
            let mut account = account();
            let ids = |fetched: &FetchedAccount| {
                let mut ids: Vec<_> = fetched.surplus().iter().map(|one| one.id.clone()).collect();
                ids.sort();
                ids
            };
            let kept = current(&all).cloned();
            let surplus = ids(&fetched(&mut account, all.clone(), Vec::new()));
            let granting = all.iter().filter(|one| one.is_ours() && one.grants()).count();
            let payable = all.iter().filter(|one| one.is_ours() && one.awaits_payment()).count();
            let expected = if granting == 0 { 0 } else { granting - 1 + payable };
            prop_assert_eq!(surplus.len(), expected);
            if let Some(kept) = kept.as_ref().filter(|_| granting > 0) {
                prop_assert!(kept.is_ours() && kept.grants() && !surplus.contains(&kept.id));
                for status in [SubscriptionStatus::Active, SubscriptionStatus::Trialing] {
                    let like = all.iter().filter(|one| one.is_ours() && one.status == status);
                    if let Some(newest) = like.map(|one| one.created_at).max() {
                        prop_assert!(kept.status == status && kept.created_at == newest);
                        break;
                    }
                }
            }
            // Another order, and another server, come to the same.
            let turns = usize::try_from(seed % 6).unwrap() % all.len().max(1);
            all.rotate_left(turns);
            prop_assert_eq!(current(&all).cloned(), kept.clone());
            prop_assert_eq!(ids(&fetched(&mut account, all.clone(), Vec::new())), surplus.clone());
            // Once the surplus has ended, there is none.
            for one in all.iter_mut().filter(|one| surplus.contains(&one.id)) {
                one.status = SubscriptionStatus::Canceled;
            }
            prop_assert_eq!(current(&all).map(|one| &one.id), kept.as_ref().map(|one| &one.id));
            prop_assert!(fetched(&mut account, all, Vec::new()).surplus().is_empty());
        }
    }

    #[test]
    fn months_are_counted_from_the_beginning_and_after_a_trial_from_its_end() {
        let mut one = subscription("sub_1", SubscriptionStatus::Active, "pro");
        assert_eq!(
            anchor(&one),
            one.created_at,
            "the 31st, although this month began on a 28th"
        );
        one.trial_ends_at = Some(at("2026-02-28T10:00:00Z"));
        one.created_at = at("2026-02-14T10:00:00Z");
        assert_eq!(anchor(&one), at("2026-02-28T10:00:00Z"));
        one.status = SubscriptionStatus::Trialing;
        one.period.start = at("2026-02-14T10:00:00Z");
        assert_eq!(anchor(&one), at("2026-02-28T10:00:00Z"));
        one.status = SubscriptionStatus::Active;
        one.trial_ends_at = None;
        one.period.start = at("2026-03-05T00:00:00Z");
        assert_eq!(anchor(&one), one.period.start, "the provider has moved it");
    }

    #[test]
    fn outstanding_since_the_oldest_open_invoice_that_was_tried() {
        let mut account = account();
        let subs = vec![
            subscription("sub_1", SubscriptionStatus::PastDue, "pro"),
            subscription("sub_2", SubscriptionStatus::Incomplete, "enterprise"),
        ];
        let mut untried = invoice("in_0", "sub_1", "2026-02-01T00:00:00Z");
        untried.attempts = 0;
        let mut paid = invoice("in_1", "sub_1", "2026-02-02T00:00:00Z");
        paid.status = Some(InvoiceStatus::Paid);
        let never = invoice("in_2", "sub_2", "2026-02-03T00:00:00Z");
        let invoices = vec![
            invoice("in_4", "sub_1", "2026-02-05T00:00:00Z"),
            invoice("in_3", "sub_1", "2026-02-04T00:00:00Z"),
            untried,
            paid,
            never,
        ];
        let mut all = fetched(&mut account, subs, invoices);
        assert_eq!(all.outstanding_since(), Some(at("2026-02-04T00:00:00Z")));
        all.invoices.clear();
        assert_eq!(all.outstanding_since(), Some(at("2026-02-28T10:00:00Z")));
        all.subscriptions[0].status = SubscriptionStatus::Active;
        assert_eq!(all.outstanding_since(), None);
    }

    #[test]
    fn unpaid_first_invoice_after_a_trial_that_ended_is_no_debt() {
        let mut account = account();
        let mut lapsed = subscription("sub_1", SubscriptionStatus::PastDue, "pro");
        lapsed.trial_ends_at = Some(at("2026-02-14T10:00:00Z"));
        let mut of_trial = invoice("in_0", "sub_1", "2026-01-31T10:00:00Z");
        (of_trial.total, of_trial.amount_due) = (0, 0);
        of_trial.status = Some(InvoiceStatus::Paid);
        let first = invoice("in_1", "sub_1", "2026-02-14T10:00:00Z");
        let mut all = fetched(&mut account, vec![lapsed], vec![first, of_trial]);
        assert_eq!(
            all.outstanding_since(),
            Some(at("2026-02-14T10:00:00Z")),
            "it grants what was bought"
        );
        all.subscriptions[0].status = SubscriptionStatus::Canceled;
        assert_eq!(all.outstanding_since(), None);
        let second = invoice("in_2", "sub_1", "2026-03-14T10:00:00Z");
        all.invoices.push(second);
        assert_eq!(all.outstanding_since(), Some(at("2026-03-14T10:00:00Z")));
        // What follows a paid invoice is owed.
        all.invoices[0].status = Some(InvoiceStatus::Paid);
        assert_eq!(all.outstanding_since(), Some(at("2026-03-14T10:00:00Z")));
    }
}
