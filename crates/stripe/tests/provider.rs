//! The adapter against the fake: every method of the port, over real HTTP, with answers that get lost.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::too_many_lines,
    reason = "tests are tables of cases: longer with each case, and no harder to read"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tenantry_domain::billing::{
    ChargedMeter, CheckoutRef, CustomerRef, Delivered, ForgedEvent, InvoiceRef, InvoiceStatus, NewCheckout,
    NewCustomer, NewSubscription, Offer, OpenCheckout, PaymentProvider, ProviderError, ProviderKey,
    ProviderSubscription, SubscriptionRef, SubscriptionStatus, UsageReport,
};
use tenantry_domain::kernel::{Currency, Interval, Limit, Period, Price, Reset, TenantId, Time};
use tenantry_domain::plans::PlanTerms;
use tenantry_domain::usage::{Aggregation, Meter, MeterKey, MeterTerms, Meters, OveragePrice};
use tenantry_stripe::{Published, StripeConfig, StripePayments};
use tenantry_stripe_fake::{Card, Failure, FakeConfig, Matcher, StripeFake, sign};

struct World {
    fake: StripeFake,
    stripe: StripePayments,
}

fn usd() -> Currency {
    Currency::try_from("usd".to_owned()).unwrap()
}

fn calls() -> MeterKey {
    MeterKey::parse("api_calls").unwrap()
}

fn storage() -> MeterKey {
    MeterKey::parse("storage_bytes").unwrap()
}

fn meters() -> Meters {
    [(calls(), Aggregation::Sum), (storage(), Aggregation::Last)]
        .map(|(key, aggregation)| {
            let meter = Meter {
                key: key.clone(),
                title: key.to_string(),
                unit: "one".into(),
                aggregation,
                reset: Reset::BillingCycle,
            };
            (key, Arc::new(meter))
        })
        .into()
}

fn plan(name: &str, amount: i64, included: u64) -> PlanTerms {
    let price = |interval, amount| Price {
        amount,
        currency: usd(),
        interval,
    };
    let overage = OveragePrice {
        currency: usd(),
        amount: 50,
        per: 100,
    };
    let charged = MeterTerms {
        included: Limit::Of(included),
        limit: Limit::Unlimited,
        overage: vec![overage],
    };
    PlanTerms {
        name: name.into(),
        version: 1,
        title: name.to_uppercase(),
        limits: BTreeMap::new(),
        features: BTreeSet::new(),
        settings: BTreeMap::new(),
        meters: [(calls(), charged), (storage(), MeterTerms::FREE)].into(),
        prices: vec![price(Interval::Month, amount), price(Interval::Year, amount * 10)],
        trial_days: 0,
        grace_days: 7,
    }
}

fn plans() -> [PlanTerms; 2] {
    [plan("pro", 3_000, 1_000), plan("enterprise", 9_000, 5_000)]
}

fn stripe_of(fake: &StripeFake, secret_key: &str) -> StripePayments {
    let settings = StripeConfig {
        secret_key: secret_key.into(),
        webhook_secrets: vec!["whsec_new".into(), "whsec_old".into()],
        api_base: Some(fake.url().parse().unwrap()),
        timeout: Duration::from_millis(400),
        clock: None,
    };
    StripePayments::new(&settings).unwrap()
}

async fn world(card: Card) -> World {
    let config = FakeConfig {
        card,
        hang: Duration::from_secs(2),
        ..FakeConfig::default()
    };
    let fake = StripeFake::start(config).unwrap();
    let stripe = stripe_of(&fake, fake.secret_key());
    stripe.publish(&plans(), &meters()).await.unwrap();
    World { fake, stripe }
}

fn key(text: &str) -> ProviderKey {
    ProviderKey::parse(text).unwrap()
}

fn tenant(number: u128) -> TenantId {
    TenantId::from(uuid::Uuid::from_u128(number))
}

fn offer(plan: &str, interval: Interval) -> Offer {
    Offer {
        plan: plan.into(),
        version: 1,
        currency: usd(),
        interval,
    }
}

impl World {
    async fn customer(&self) -> CustomerRef {
        let new = NewCustomer {
            tenant: tenant(1),
            name: "Acme".into(),
            email: Some("acme@example.com".into()),
        };
        self.stripe.create_customer(&key("customer"), &new).await.unwrap()
    }

    async fn subscribe(&self, customer: &CustomerRef, offer: Offer, trial_days: u32) -> ProviderSubscription {
        let new = new_subscription(customer, offer, trial_days);
        self.stripe
            .create_subscription(&key("subscription"), &new)
            .await
            .unwrap()
    }

    fn now(&self) -> Time {
        self.fake.clock().now()
    }

    fn days(&self, days: i64) {
        self.fake.clock().advance(chrono::Duration::days(days));
    }

    fn report(&self, customer: &CustomerRef, quantity: u64, identifier: &str) -> UsageReport {
        UsageReport {
            customer: customer.clone(),
            meter: calls(),
            quantity,
            at: self.now(),
            identifier: key(identifier),
        }
    }
}

fn new_subscription(customer: &CustomerRef, offer: Offer, trial_days: u32) -> NewSubscription {
    NewSubscription {
        customer: customer.clone(),
        tenant: tenant(1),
        offer,
        seats: 2,
        trial_days,
        automatic_tax: false,
    }
}

#[tokio::test]
async fn what_is_published_once_is_not_published_again() {
    let world = world(Card::Pays).await;
    assert_eq!(
        world.fake.prices().len(),
        8,
        "two plans, two intervals, seats and overage each"
    );
    let again = world.stripe.publish(&plans(), &meters()).await.unwrap();
    assert_eq!(again, Published::default());
    let mut dearer = plans();
    dearer[0].prices[0].amount += 1;
    let error = world.stripe.publish(&dearer, &meters()).await.unwrap_err();
    assert!(error.to_string().contains("tenantry:pro:1:usd:month"), "{error}");
    let other = plan("team", 1, 3);
    let mut third = meters();
    let key = MeterKey::parse("seats_used").unwrap();
    let meter = Meter {
        key: key.clone(),
        ..(*third[&storage()]).clone()
    };
    third.insert(key, Arc::new(meter));
    let made = world.stripe.publish(&[other], &third).await.unwrap();
    assert_eq!(
        (made.meters.len(), made.products.len(), made.prices.len()),
        (1, 1, 4)
    );
    assert_eq!(made.meters, ["tenantry_seats_used"]);
}

#[tokio::test]
async fn publishing_goes_on_where_it_was_broken_off() {
    let fake = StripeFake::start(FakeConfig::default()).unwrap();
    let stripe = stripe_of(&fake, fake.secret_key());
    let mut rounds = 0;
    for path in ["/v1/products", "/v1/prices", "/v1/billing/meters"] {
        fake.fail_next(Matcher::path(path).method("POST"), Failure::ResetAfterEffect);
    }
    while stripe.publish(&plans(), &meters()).await.is_err() {
        rounds += 1;
        assert!(rounds < 9);
    }
    assert_eq!((rounds, fake.prices().len()), (3, 8));
}

#[tokio::test]
async fn a_customer_is_made_found_and_removed() {
    let world = world(Card::Pays).await;
    let made = world.customer().await;
    assert_eq!(world.customer().await, made, "the same key is the same customer");
    let known = world.stripe.customers_of(tenant(1)).await.unwrap();
    assert_eq!(known, std::slice::from_ref(&made));
    assert_eq!(world.stripe.customers_of(tenant(2)).await.unwrap(), []);
    world.days(2);
    let second = world.customer().await;
    assert_ne!(second, made, "Stripe has forgotten the key");
    assert_eq!(
        world.stripe.customers_of(tenant(1)).await.unwrap(),
        [made.clone(), second]
    );
    world.stripe.delete_customer(&made).await.unwrap();
    world.stripe.delete_customer(&made).await.unwrap();
    assert_eq!(world.stripe.customers_of(tenant(1)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_subscription_reads_as_it_was_asked_for() {
    let world = world(Card::Missing).await;
    let customer = world.customer().await;
    let offer = offer("pro", Interval::Month);
    let made = world.subscribe(&customer, offer.clone(), 14).await;
    assert_eq!(made.status, SubscriptionStatus::Trialing);
    assert_eq!(
        (made.offer.as_ref(), made.seats, &made.customer),
        (Some(&offer), 2, &customer)
    );
    assert_eq!(made.trial_ends_at, Some(world.now() + chrono::Duration::days(14)));
    assert_eq!(
        made.period,
        Period {
            start: world.now(),
            end: made.trial_ends_at.unwrap()
        }
    );
    assert_eq!(
        world.stripe.subscription(&made.id).await.unwrap(),
        Some(made.clone())
    );
    assert_eq!(
        world.stripe.subscriptions_of(&customer).await.unwrap(),
        std::slice::from_ref(&made)
    );
    let none = SubscriptionRef::parse("sub_none").unwrap();
    assert_eq!(world.stripe.subscription(&none).await.unwrap(), None);
    let cancelling = world
        .stripe
        .cancel_at_period_end(&key("c1"), &made.id, true)
        .await
        .unwrap();
    assert!(cancelling.cancel_at_period_end && cancelling.canceled_at.is_some());
    let going_on = world
        .stripe
        .cancel_at_period_end(&key("c2"), &made.id, false)
        .await
        .unwrap();
    assert!(!going_on.cancel_at_period_end && going_on.canceled_at.is_none());
    let ended = world.stripe.end_subscription(&key("c3"), &made.id).await.unwrap();
    assert_eq!(ended.status, SubscriptionStatus::Canceled);
    assert_eq!(
        world.stripe.end_subscription(&key("c4"), &made.id).await.unwrap(),
        ended
    );
    assert!(matches!(
        world.stripe.end_subscription(&key("c5"), &none).await,
        Err(ProviderError::NotFound(_))
    ));
}

#[tokio::test]
async fn the_first_payment_is_taken_from_the_card_that_is_there() {
    for (card, status) in [
        (Card::Pays, SubscriptionStatus::Active),
        (Card::Missing, SubscriptionStatus::Incomplete),
        (Card::Declines, SubscriptionStatus::Incomplete),
    ] {
        let world = world(card).await;
        let customer = world.customer().await;
        let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
        assert_eq!(made.status, status, "{card:?}");
        let again = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
        assert_eq!(again, made, "{card:?}");
        assert_eq!(world.fake.invoices().len(), 1);
    }
}

#[tokio::test]
async fn an_offer_that_is_not_published_is_named() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let new = new_subscription(&customer, offer("nothing", Interval::Month), 0);
    let error = world
        .stripe
        .create_subscription(&key("s"), &new)
        .await
        .unwrap_err();
    assert!(matches!(&error, ProviderError::NotFound(text) if text.contains("tenantry:nothing:1:usd:month")));
}

#[tokio::test]
async fn a_change_costs_what_its_preview_says() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    world
        .stripe
        .report_usage(&world.report(&customer, 1_400, "before"))
        .await
        .unwrap();
    world.days(10);
    let to = offer("enterprise", Interval::Month);
    let preview = world.stripe.preview_change(&made.id, &to, 3).await.unwrap();
    // 21 of 31 days of 2 × 30.00 back, of 3 × 90.00 asked for, and 400 calls at half a cent.
    let amounts: Vec<_> = preview.lines.iter().map(|line| line.amount).collect();
    assert_eq!(amounts, [-4_065, 18_290, 0, 200]);
    assert_eq!(preview.amount_due, 14_425);
    assert_eq!(
        world.stripe.subscription(&made.id).await.unwrap(),
        Some(made.clone())
    );
    let changed = world
        .stripe
        .change_subscription(&key("up"), &made.id, &to, 3)
        .await
        .unwrap();
    assert_eq!((changed.offer.as_ref(), changed.seats), (Some(&to), 3));
    let again = world
        .stripe
        .change_subscription(&key("up"), &made.id, &to, 3)
        .await
        .unwrap();
    assert_eq!(again, changed);
    let upcoming = world.stripe.upcoming_invoice(&made.id).await.unwrap().unwrap();
    assert_eq!(upcoming.total, preview.amount_due + 27_000);
    assert_eq!(upcoming.subscription.as_ref(), Some(&made.id));
    world
        .stripe
        .report_usage(&world.report(&customer, 5_200, "after"))
        .await
        .unwrap();
    world
        .fake
        .clock()
        .advance(chrono::Duration::days(21) + chrono::Duration::hours(1));
    let invoices = world.stripe.invoices_of(&customer, 10).await.unwrap();
    assert_eq!(invoices[0].total, preview.amount_due + 27_000 + 100);
    assert_eq!(invoices[0].status, Some(InvoiceStatus::Paid));
}

#[tokio::test]
async fn another_interval_begins_at_once() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    world.days(10);
    let to = offer("pro", Interval::Year);
    let preview = world.stripe.preview_change(&made.id, &to, 2).await.unwrap();
    let changed = world
        .stripe
        .change_subscription(&key("year"), &made.id, &to, 2)
        .await
        .unwrap();
    assert_eq!(
        (changed.offer.as_ref(), changed.period.start),
        (Some(&to), world.now())
    );
    let invoices = world.stripe.invoices_of(&customer, 1).await.unwrap();
    assert_eq!((invoices.len(), invoices[0].total), (1, preview.amount_due));
    assert_eq!(preview.lines.last().unwrap().amount, 60_000);
}

#[tokio::test]
async fn in_a_trial_a_change_costs_nothing() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world
        .subscribe(&customer, offer("pro", Interval::Month), 14)
        .await;
    let to = offer("enterprise", Interval::Month);
    let preview = world.stripe.preview_change(&made.id, &to, 5).await.unwrap();
    assert_eq!((preview.amount_due, preview.lines.len()), (0, 0));
}

#[tokio::test]
async fn nothing_is_upcoming_of_what_ends_or_is_not() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    world
        .stripe
        .cancel_at_period_end(&key("c"), &made.id, true)
        .await
        .unwrap();
    assert_eq!(world.stripe.upcoming_invoice(&made.id).await.unwrap(), None);
    let none = SubscriptionRef::parse("sub_none").unwrap();
    assert_eq!(world.stripe.upcoming_invoice(&none).await.unwrap(), None);
}

fn checkout_of(subscription: NewSubscription, terms: &str) -> NewCheckout {
    NewCheckout {
        subscription,
        terms: ProviderKey::parse(terms).unwrap(),
        success_url: "https://a/ok".into(),
        cancel_url: "https://a/no".into(),
    }
}

#[tokio::test]
async fn open_checkouts_are_listed_and_closed_once() {
    let world = world(Card::Missing).await;
    let customer = world.customer().await;
    let mut made = Vec::new();
    for number in ["1", "2", "3"] {
        let new = new_subscription(&customer, offer("pro", Interval::Month), 0);
        let new = checkout_of(new, &format!("terms-{number}"));
        made.push(world.stripe.checkout(&key(number), &new).await.unwrap());
    }
    let open = async || {
        let mut open = world.stripe.open_checkouts(&customer).await.unwrap();
        open.sort_by(|one, other| one.id.cmp(&other.id));
        open
    };
    assert_eq!(open().await, made, "with what they were made for");
    assert_eq!(OpenCheckout::newest(&open().await), made.last());
    assert!(world.stripe.expire_checkout(&made[0].id).await.unwrap());
    assert!(
        world.stripe.expire_checkout(&made[0].id).await.unwrap(),
        "closed already"
    );
    assert!(world.fake.complete_checkout(made[0].id.as_str()).is_none());
    world.fake.complete_checkout(made[1].id.as_str()).unwrap();
    assert!(
        !world.stripe.expire_checkout(&made[1].id).await.unwrap(),
        "it was paid"
    );
    assert_eq!(open().await, made[2..]);
    let never = CheckoutRef::parse("cs_never").unwrap();
    assert!(world.stripe.expire_checkout(&never).await.unwrap());
}

#[tokio::test]
async fn surplus_subscription_ends_with_the_rest_credited() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    world.days(10);
    let ended = world
        .stripe
        .end_subscription(&key("end"), &made.id)
        .await
        .unwrap();
    assert_eq!(
        (ended.status, ended.ended_at),
        (SubscriptionStatus::Canceled, Some(world.now()))
    );
    let invoices = world.stripe.invoices_of(&customer, 10).await.unwrap();
    let (last, first) = (&invoices[0], &invoices[1]);
    assert!(last.total < 0 && -last.total < first.total, "{invoices:?}");
    assert!(last.lines.iter().any(|line| line.proration && line.amount < 0));
}

#[tokio::test]
async fn customer_is_there_until_it_is_deleted_whatever_its_label() {
    let world = world(Card::Missing).await;
    let customer = world.customer().await;
    let label = async || world.stripe.customer(&customer).await.unwrap().unwrap().label;
    assert_eq!(label().await, Some(tenant(1)));
    for (metadata, named) in [
        (tenant(2).to_string(), Some(tenant(2))),
        (String::new(), None),
        ("acme".to_owned(), None),
    ] {
        let path = format!("/v1/customers/{customer}");
        let form = format!("metadata[tenant_id]={metadata}");
        world.fake.dashboard("POST", &path, &form).unwrap();
        assert!(world.stripe.has_customer(&customer).await.unwrap(), "{metadata}");
        assert_eq!(label().await, named, "{metadata}");
    }
    let never = CustomerRef::parse("cus_never").unwrap();
    assert!(!world.stripe.has_customer(&never).await.unwrap());
    assert!(world.fake.delete_customer(customer.as_str()));
    assert!(!world.stripe.has_customer(&customer).await.unwrap());
}

#[tokio::test]
async fn a_checkout_leads_to_a_subscription() {
    let world = world(Card::Missing).await;
    let customer = world.customer().await;
    for (interval, items) in [(Interval::Month, 2), (Interval::Year, 1)] {
        let new = new_subscription(&customer, offer("pro", interval), 0);
        let key = key(&format!("checkout-{}", interval.as_str()));
        let new = checkout_of(new, "terms");
        let checkout = world.stripe.checkout(&key, &new).await.unwrap();
        assert_eq!(
            checkout.link.expires_at,
            Some(world.now() + chrono::Duration::days(1))
        );
        assert_eq!(world.stripe.checkout(&key, &new).await.unwrap(), checkout);
        let id = checkout.link.url.rsplit('/').next().unwrap();
        assert_eq!(checkout.id.as_str(), id);
        let made = SubscriptionRef::parse(&world.fake.complete_checkout(id).unwrap()).unwrap();
        let made = world.stripe.subscription(&made).await.unwrap().unwrap();
        assert_eq!(
            (made.status, made.offer),
            (SubscriptionStatus::Active, Some(offer("pro", interval)))
        );
        let raw = world.fake.subscriptions().pop().unwrap();
        assert_eq!(raw["metadata"]["tenant_id"], tenant(1).to_string());
        assert_eq!(raw["items"]["data"].as_array().unwrap().len(), items);
        assert_eq!(made.charged.len(), items - 1);
        // What a checkout could not hold is added by changing it to what it is.
        let same = offer("pro", interval);
        let begun = world.now();
        world.days(1);
        let changed = world
            .stripe
            .change_subscription(&self::key("complete"), &made.id, &same, 2)
            .await
            .unwrap();
        let since = if items == 2 { begun } else { world.now() };
        let charged = ChargedMeter {
            meter: calls(),
            since,
        };
        assert_eq!(changed.charged, std::slice::from_ref(&charged));
        // Another plan that charges the same has charged it since then.
        world.days(1);
        let other = offer("enterprise", interval);
        let changed = world
            .stripe
            .change_subscription(
                &self::key(&format!("other-{}", since.timestamp())),
                &made.id,
                &other,
                2,
            )
            .await
            .unwrap();
        assert_eq!(changed.charged, [charged]);
        let raw = world.fake.subscriptions().pop().unwrap();
        assert_eq!(raw["items"]["data"].as_array().unwrap().len(), 2);
    }
    let link = world.stripe.portal(&customer, "https://a/back").await.unwrap();
    assert!(link.url.contains(customer.as_str()));
}

#[tokio::test]
async fn invoices_have_all_their_lines() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    for seats in 3..12 {
        let key = key(&format!("seats-{seats}"));
        let same = offer("pro", Interval::Month);
        world
            .stripe
            .change_subscription(&key, &made.id, &same, seats)
            .await
            .unwrap();
    }
    world
        .fake
        .clock()
        .advance(chrono::Duration::days(31) + chrono::Duration::hours(1));
    let invoices = world.stripe.invoices_of(&customer, 1).await.unwrap();
    assert_eq!(invoices[0].lines.len(), 9 * 2 + 2);
    assert_eq!(
        invoices[0].lines.iter().map(|line| line.amount).sum::<i64>(),
        invoices[0].total
    );
    assert_eq!(invoices[0].amount_paid, invoices[0].total);
    assert!(invoices[0].number.is_some() && invoices[0].url.is_some());
    let same = world.stripe.invoice(&invoices[0].id).await.unwrap();
    assert_eq!(same.as_ref(), Some(&invoices[0]));
    let none = InvoiceRef::parse("in_none").unwrap();
    assert_eq!(world.stripe.invoice(&none).await.unwrap(), None);
}

#[tokio::test]
async fn a_failed_payment_says_when_it_is_tried_again() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    world.fake.set_card(customer.as_str(), Card::Declines);
    world
        .fake
        .clock()
        .advance(chrono::Duration::days(31) + chrono::Duration::hours(1));
    let now = world.stripe.subscription(&made.id).await.unwrap().unwrap();
    assert_eq!(now.status, SubscriptionStatus::PastDue);
    let invoice = world.stripe.invoices_of(&customer, 1).await.unwrap().remove(0);
    assert_eq!((invoice.status, invoice.attempts), (Some(InvoiceStatus::Open), 1));
    assert_eq!(
        invoice.next_attempt_at,
        Some(world.now() + chrono::Duration::days(1))
    );
    assert_eq!(invoice.amount_due, invoice.total);
}

#[tokio::test]
async fn usage_is_counted_once_and_can_be_taken_back() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let report = world.report(&customer, 25, "hour-1");
    assert_eq!(world.stripe.report_usage(&report).await, Ok(Delivered::Now));
    // The same call again is the same answer; another one with its identifier is one too many.
    assert_eq!(world.stripe.report_usage(&report).await, Ok(Delivered::Now));
    let more = world.report(&customer, 40, "hour-2");
    world.stripe.report_usage(&more).await.unwrap();
    let minute = chrono::Duration::minutes(1);
    let period = Period {
        start: world.now() - minute,
        end: world.now() + minute,
    };
    assert_eq!(world.stripe.usage_of(&customer, &calls(), period).await, Ok(65));
    let taken = key("hour-1");
    world.stripe.cancel_usage(&calls(), &taken).await.unwrap();
    world.stripe.cancel_usage(&calls(), &taken).await.unwrap();
    world.stripe.cancel_usage(&calls(), &key("never")).await.unwrap();
    assert_eq!(world.stripe.usage_of(&customer, &calls(), period).await, Ok(40));
    let stored = UsageReport {
        meter: storage(),
        quantity: 7,
        ..world.report(&customer, 0, "s1")
    };
    world.stripe.report_usage(&stored).await.unwrap();
    let less = UsageReport {
        quantity: 5,
        at: stored.at + chrono::Duration::seconds(9),
        identifier: key("s2"),
        ..stored
    };
    world.stripe.report_usage(&less).await.unwrap();
    let earlier = UsageReport {
        quantity: 99,
        at: less.at - chrono::Duration::seconds(1),
        identifier: key("s3"),
        ..less.clone()
    };
    world.stripe.report_usage(&earlier).await.unwrap();
    assert_eq!(
        world.stripe.usage_of(&customer, &storage(), period).await,
        Ok(5),
        "the last one counts, by its time and not by when it came"
    );
    world
        .stripe
        .cancel_usage(&storage(), &less.identifier)
        .await
        .unwrap();
    assert_eq!(world.stripe.usage_of(&customer, &storage(), period).await, Ok(99));
    let old = UsageReport {
        at: world.now() - chrono::Duration::days(36),
        ..world.report(&customer, 1, "old")
    };
    let refused = world.stripe.report_usage(&old).await;
    assert!(matches!(refused, Err(ProviderError::Refused(_))), "{refused:?}");
    // Of an hour that is over by our clock only: it can be told later.
    let early = UsageReport {
        at: world.now() + chrono::Duration::minutes(9),
        ..world.report(&customer, 1, "early")
    };
    let refused = world.stripe.report_usage(&early).await;
    assert!(
        matches!(refused, Err(ProviderError::Unavailable(_))),
        "{refused:?}"
    );
    world.fake.clock().advance(chrono::Duration::minutes(5));
    assert_eq!(world.stripe.report_usage(&early).await, Ok(Delivered::Now));
    let unknown = MeterKey::parse("unknown").unwrap();
    let missing = world.stripe.usage_of(&customer, &unknown, period).await;
    assert!(matches!(missing, Err(ProviderError::NotFound(_))), "{missing:?}");
}

#[tokio::test]
async fn what_overage_is_foretold_to_cost_is_what_it_costs() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    let price = plans()[0].meters[&calls()].overage[0].clone();
    let mut used = 0;
    for (number, more) in [0, 999, 1, 1, 1, 97, 12_345].into_iter().enumerate() {
        used += more;
        let report = world.report(&customer, more, &format!("hour-{number}"));
        world.stripe.report_usage(&report).await.unwrap();
        let upcoming = world.stripe.upcoming_invoice(&made.id).await.unwrap().unwrap();
        let overage = upcoming.total - 6_000;
        assert_eq!(overage, price.cost(used.saturating_sub(1_000)), "{used}");
    }
}

#[tokio::test]
async fn the_same_call_several_times_at_once_is_done_once() {
    let world = world(Card::Pays).await;
    let all = futures_util::future::join_all((0..8).map(|_| world.customer())).await;
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    let made = world.fake.customers();
    assert_eq!(made.len(), 1);
}

#[tokio::test]
async fn usage_that_was_delivered_before_is_no_error() {
    let world = world(Card::Pays).await;
    let customer = world.customer().await;
    // Without our key, as when Stripe has forgotten it: what is known then is the identifier.
    let form = format!(
        "event_name=tenantry_api_calls&identifier=hour\
         &payload[stripe_customer_id]={customer}&payload[value]=25"
    );
    post(&world.fake, "/v1/billing/meter_events", &form);
    let report = world.report(&customer, 25, "hour");
    assert_eq!(world.stripe.report_usage(&report).await, Ok(Delivered::Before));
    assert_eq!(
        world
            .fake
            .meter_total("tenantry_api_calls", customer.as_str(), 0, i64::MAX),
        25
    );
}

/// A call that somebody else makes.
fn post(fake: &StripeFake, path: &str, form: &str) {
    use std::io::{Read as _, Write as _};
    let (secret, length) = (fake.secret_key(), form.len());
    let mut stream = std::net::TcpStream::connect(fake.url().strip_prefix("http://").unwrap()).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {secret}\r\n\
         content-length: {length}\r\n\r\n{form}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn whatever_becomes_of_the_answer_a_call_is_done_once() {
    for failure in Failure::ALL {
        let world = world(Card::Pays).await;
        let new = NewCustomer {
            tenant: tenant(1),
            name: "Acme".into(),
            email: None,
        };
        world
            .fake
            .fail_next(Matcher::path("/v1/customers").method("POST"), failure);
        let error = world.stripe.create_customer(&key("k"), &new).await.unwrap_err();
        assert!(error.may_pass(), "{failure:?}: {error}");
        let made = world.stripe.create_customer(&key("k"), &new).await.unwrap();
        assert_eq!(world.fake.customers().len(), 1, "{failure:?}");

        let subscription = new_subscription(&made, offer("pro", Interval::Month), 0);
        for path in ["/v1/subscriptions", "/v1/invoices"] {
            world.fake.fail_next(Matcher::path(path).method("POST"), failure);
            let error = world
                .stripe
                .create_subscription(&key("s"), &subscription)
                .await
                .unwrap_err();
            assert!(error.may_pass(), "{failure:?}: {error}");
        }
        let begun = world
            .stripe
            .create_subscription(&key("s"), &subscription)
            .await
            .unwrap();
        assert_eq!(begun.status, SubscriptionStatus::Active, "{failure:?}");
        assert_eq!(
            (world.fake.subscriptions().len(), world.fake.invoices().len()),
            (1, 1),
            "{failure:?}"
        );

        let to = offer("enterprise", Interval::Month);
        world
            .fake
            .fail_next(Matcher::path("/v1/subscriptions/").method("POST"), failure);
        let error = world
            .stripe
            .change_subscription(&key("c"), &begun.id, &to, 3)
            .await
            .unwrap_err();
        assert!(error.may_pass(), "{failure:?}: {error}");
        let changed = world
            .stripe
            .change_subscription(&key("c"), &begun.id, &to, 3)
            .await
            .unwrap();
        assert_eq!((changed.offer, changed.seats), (Some(to), 3), "{failure:?}");
        let upcoming = world.stripe.upcoming_invoice(&begun.id).await.unwrap().unwrap();
        assert_eq!(
            upcoming.lines.iter().filter(|line| line.proration).count(),
            3,
            "{failure:?}"
        );

        let report = world.report(&made, 9, "hour");
        world
            .fake
            .fail_next(Matcher::path("/v1/billing/meter_events"), failure);
        let error = world.stripe.report_usage(&report).await.unwrap_err();
        assert!(error.may_pass(), "{failure:?}: {error}");
        world.stripe.report_usage(&report).await.unwrap();
        assert_eq!(
            world
                .fake
                .meter_total("tenantry_api_calls", made.as_str(), 0, i64::MAX),
            9,
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn errors_say_whether_to_try_again() {
    let world = world(Card::Pays).await;
    let stranger = stripe_of(&world.fake, "sk_test_other");
    let refused = stranger.customers_of(tenant(1)).await;
    assert_eq!(refused, Err(ProviderError::Unauthenticated));
    let nobody = CustomerRef::parse("cus_none").unwrap();
    let new = new_subscription(&nobody, offer("pro", Interval::Month), 0);
    let missing = world.stripe.create_subscription(&key("x"), &new).await;
    assert!(matches!(missing, Err(ProviderError::NotFound(_))), "{missing:?}");
    let first = NewCustomer {
        tenant: tenant(1),
        name: "A".into(),
        email: None,
    };
    world.stripe.create_customer(&key("same"), &first).await.unwrap();
    let other = NewCustomer {
        name: "B".into(),
        ..first
    };
    let reused = world.stripe.create_customer(&key("same"), &other).await;
    assert!(matches!(reused, Err(ProviderError::Refused(_))), "{reused:?}");
    drop(world.fake);
    let gone = world.stripe.customers_of(tenant(1)).await;
    assert!(matches!(gone, Err(ProviderError::Unavailable(_))), "{gone:?}");
}

#[tokio::test]
async fn what_was_never_told_is_in_the_list_of_events() {
    let world = world(Card::Pays).await;
    world.days(1);
    let since = world.now();
    let customer = world.customer().await;
    let made = world.subscribe(&customer, offer("pro", Interval::Month), 0).await;
    for number in 0..120 {
        let new = NewCustomer {
            tenant: tenant(2),
            name: format!("c{number}"),
            email: None,
        };
        world
            .stripe
            .create_customer(&key(&format!("c{number}")), &new)
            .await
            .unwrap();
    }
    let events = world.stripe.events_since(since).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).take(5).collect();
    assert_eq!(
        kinds[..4],
        [
            "customer.created",
            "customer.subscription.created",
            "invoice.created",
            "invoice.finalized"
        ]
    );
    assert_eq!(
        events.len(),
        world.fake.events().len() - 12,
        "all but those of the catalogue"
    );
    let invoice = &events[2];
    assert_eq!(
        (invoice.customer.as_ref(), invoice.subscription.as_ref()),
        (Some(&customer), Some(&made.id))
    );
    assert_eq!(invoice.object.as_deref(), Some("invoice"));
    assert_eq!(events[1].subscription.as_ref(), Some(&made.id));
    assert_eq!(events[0].customer.as_ref(), Some(&customer));
    // What is told and what is listed are the same.
    for (listed, raw) in events.iter().zip(world.fake.events().iter().skip(12)) {
        let body = raw.to_string();
        let header = sign("whsec_new", since.timestamp(), body.as_bytes());
        assert_eq!(
            world.stripe.read_event(body.as_bytes(), &header, since).as_ref(),
            Ok(listed)
        );
    }
}

fn reader() -> StripePayments {
    let settings = StripeConfig {
        secret_key: "sk_test_x".into(),
        webhook_secrets: vec!["whsec_test_secret".into(), String::new(), "whsec_old".into()],
        api_base: None,
        timeout: Duration::from_secs(1),
        clock: None,
    };
    StripePayments::new(&settings).unwrap()
}

fn at(seconds: i64) -> Time {
    chrono::DateTime::from_timestamp(seconds, 0).unwrap()
}

const T: i64 = 1_492_774_577;
const TAG: &str = "88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a";

#[tokio::test]
async fn a_signature_is_checked_as_stripes_libraries_do() {
    let (stripe, body) = (reader(), br#"{"id":"evt_test_webhook","object":"event"}"#);
    let read = |header: &str, now| stripe.read_event(body, header, at(now));
    let zeros = "0".repeat(64);
    // It is authentic, and has neither a type nor a time.
    for header in [
        format!("t={T},v1={TAG}"),
        format!("t={T},v1={zeros},v1={TAG}"),
        format!("t={T},v0={zeros},v1={TAG},v2=x"),
        format!("v1={TAG},t={T}"),
        format!("t={T},v1={}", TAG.to_uppercase()),
    ] {
        assert_eq!(read(&header, T), Err(ForgedEvent::Body), "{header}");
    }
    let good = format!("t={T},v1={TAG}");
    for (now, expected) in [
        (T + 300, ForgedEvent::Body),
        (T + 301, ForgedEvent::Time),
        (T - 300, ForgedEvent::Body),
        (T - 301, ForgedEvent::Time),
    ] {
        assert_eq!(read(&good, now), Err(expected), "{now}");
    }
    for header in [
        format!("t={},v1={TAG}", T + 1),
        format!("t={T},v1={zeros}"),
        format!("t=0{T},v1={TAG}"),
    ] {
        assert_eq!(read(&header, T), Err(ForgedEvent::Signature), "{header}");
    }
    for header in [
        String::new(),
        "t".into(),
        format!("t={T}"),
        format!("v1={TAG}"),
        format!("t={T},v0={TAG}"),
        format!("t=-{T},v1={TAG}"),
        format!("t=+{T},v1={TAG}"),
        format!("t=,v1={TAG}"),
        format!("t={T},t={T},v1={TAG}"),
        format!("t={T},v1={}", &TAG[1..]),
        format!("t=99999999999999999999,v1={TAG}"),
        format!("t={T},{}", vec![format!("v1={TAG}"); 33].join(",")),
    ] {
        assert_eq!(read(&header, T), Err(ForgedEvent::Header), "{header}");
    }
    let other = stripe.read_event(&body[1..], &good, at(T));
    assert_eq!(other, Err(ForgedEvent::Signature));
}

#[tokio::test]
async fn every_secret_is_good_while_they_are_exchanged_and_an_empty_one_never() {
    let body = br#"{"id":"evt_1","type":"customer.created","created":1}"#;
    let stripe = reader();
    for (secret, expected) in [
        ("whsec_test_secret", true),
        ("whsec_old", true),
        ("", false),
        ("whsec_x", false),
    ] {
        let header = sign(secret, T, body);
        assert_eq!(
            stripe.read_event(body, &header, at(T)).is_ok(),
            expected,
            "{secret}"
        );
    }
}

fn read(body: &str) -> Result<tenantry_domain::billing::ProviderEvent, ForgedEvent> {
    let header = sign("whsec_old", T, body.as_bytes());
    reader().read_event(body.as_bytes(), &header, at(T))
}

#[tokio::test]
async fn events_of_other_versions_are_read_as_far_as_is_needed() {
    // An older form, in which the invoice names its subscription itself, and fields are missing that are
    // required now.
    let old = r#"{"id":"evt_1","type":"invoice.paid","created":1700000000,
        "api_version":"2019-01-01","data":{"object":{"id":"in_1","object":"invoice",
        "customer":{"id":"cus_1","object":"customer"},"subscription":"sub_1"}}}"#;
    let event = read(old).unwrap();
    assert_eq!(event.kind, "invoice.paid");
    assert_eq!(event.created_at, at(1_700_000_000));
    assert_eq!(event.customer.unwrap().as_str(), "cus_1");
    assert_eq!(event.subscription.unwrap().as_str(), "sub_1");
    let new = r#"{"id":"evt_2","type":"some.thing.new","created":1,"data":{"object":{
        "id":"x_1","object":"thing",
        "parent":{"subscription_details":{"subscription":"sub_2"}}}}}"#;
    let event = read(new).unwrap();
    assert_eq!(
        (event.object.as_deref(), event.object_id.as_deref()),
        (Some("thing"), Some("x_1"))
    );
    assert_eq!(event.subscription.unwrap().as_str(), "sub_2");
    let thin = r#"{"id":"evt_test_3","object":"v2.core.event","created":"2026-01-15T12:00:00.000Z",
        "type":"v1.billing.meter.error_report_triggered",
        "related_object":{"id":"mtr_1","type":"billing.meter","url":"/x"}}"#;
    let event = read(thin).unwrap();
    assert_eq!(
        (event.object.as_deref(), event.object_id.as_deref()),
        (Some("billing.meter"), Some("mtr_1"))
    );
    assert_eq!((event.created_at, event.customer), (at(1_768_478_400), None));
    let nothing =
        read(r#"{"id":"evt_4","type":"v1.billing.meter.no_meter_found","created":"2026-01-15T12:00:00Z"}"#);
    assert_eq!(nothing.unwrap().object, None);
    for body in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"id":"evt","type":"x","created":"soon"}"#,
        r#"{"id":"","type":"x","created":1}"#,
        r#"{"id":1,"type":"x","created":1}"#,
        r#"{"id":"evt","created":1}"#,
        r#"{"id":"evt","type":"x","created":9999999999999999}"#,
    ] {
        assert_eq!(read(body), Err(ForgedEvent::Body), "{body}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(&deep), Err(ForgedEvent::Body));
}

#[test]
fn settings_do_not_tell_their_secrets() {
    let settings = StripeConfig {
        secret_key: "sk_live_secret".into(),
        webhook_secrets: vec!["whsec_secret".into()],
        api_base: None,
        timeout: Duration::from_secs(1),
        clock: None,
    };
    let shown = format!("{settings:?} {:?}", StripePayments::new(&settings).unwrap());
    assert!(
        !shown.contains("live_secret") && !shown.contains("whsec"),
        "{shown}"
    );
    let broken = StripeConfig {
        secret_key: "sk\n".into(),
        ..settings
    };
    assert_eq!(
        StripePayments::new(&broken).unwrap_err(),
        ProviderError::Unauthenticated
    );
}

proptest! {
    /// Whatever arrives: it is refused, and nothing else happens.
    #[test]
    fn nobody_gets_in_without_a_secret(
        body: Vec<u8>,
        header in "(t=[0-9]{0,12}|v[01]=[0-9a-f]{0,70}|,|=|\\PC){0,12}",
    ) {
        let outcome = reader().read_event(&body, &header, at(T));
        prop_assert!(matches!(outcome, Err(ForgedEvent::Header | ForgedEvent::Signature)));
    }

    /// Whatever a signed body is, reading it ends.
    #[test]
    fn a_signed_body_is_read_or_refused(body: Vec<u8>, text in "[\\[\\]{}\",:a-z0-9]{0,60}") {
        for body in [body.as_slice(), text.as_bytes()] {
            let header = sign("whsec_old", T, body);
            let outcome = reader().read_event(body, &header, at(T));
            prop_assert!(matches!(outcome, Ok(_) | Err(ForgedEvent::Body)));
        }
    }

    /// Whatever time is signed, ours decides.
    #[test]
    fn a_signature_is_good_for_five_minutes(signed in 0_i64..20_000_000_000, offset in -1_000_i64..1_000) {
        let body = br#"{"id":"evt_1","type":"x","created":1}"#;
        let header = sign("whsec_old", signed, body);
        let outcome = reader().read_event(body, &header, at(signed + offset));
        prop_assert_eq!(outcome.is_ok(), offset.abs() <= 300);
    }
}
