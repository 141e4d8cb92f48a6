//! What of usage is charged: from the moment at which a subscription begins to charge it, up to that at which it ends, and
//! of what does not add up what the month comes to. With the stand-in for Stripe, which makes the invoices.

use std::sync::Arc;
use std::time::Duration as Wait;

use chrono::Duration;
use serde_json::json;
use tenantry_billing::billing::meter_report::{self, Drift};
use tenantry_billing::plans::{PlanBook, Plans};
use tenantry_domain::kernel::{Clock as _, Period, TenantId, Time, UsageEventId};
use tenantry_tests::{roll_up, take_back, use_up, used_by};

use crate::billing_stripe::Shop;

const STANDARD: &str = include_str!("../../../config/plans.toml");
const ADMIN: &str = "a@initech.example";

fn book(text: &str) -> Option<Arc<PlanBook>> {
    Some(Arc::new(PlanBook::new(Plans::parse(text).unwrap()).unwrap()))
}

impl Shop {
    /// What time it is at the stand-in, which ours is ahead of by what its caches last.
    fn now(&self) -> Time {
        self.fake.clock().now()
    }

    /// Something was used, and is totalled.
    async fn used(&self, tenant: TenantId, at: Time, quantity: u64) -> UsageEventId {
        let event = use_up(&self.world.app, tenant, "api_calls", at, quantity).await;
        roll_up(&self.world.app, tenant).await;
        event
    }

    /// What has arrived of a meter for a customer.
    fn arrived(&self, customer: &str, meter: &str, period: Period) -> u64 {
        let (start, end) = (period.start.timestamp(), period.end.timestamp());
        let name = format!("tenantry_{meter}");
        self.fake.meter_total(&name, customer, start, end)
    }

    /// How the meters of a tenant differ here and there: all of it has a reason.
    async fn drifts(&self, tenant: TenantId, period: Option<Period>) -> Vec<Drift> {
        let drifts = meter_report::drift(&self.cx(tenant).await, period).await.unwrap();
        for drift in &drifts {
            assert_eq!(drift.unexplained(), 0, "{drift:?}");
        }
        drifts
    }

    /// The quantities and amounts of usage on the last invoice of a customer.
    fn charged(&self, customer: &str) -> Vec<(u64, i64)> {
        let invoices = self.fake.invoices().into_iter();
        let mut of_customer: Vec<_> = invoices.filter(|one| one["customer"] == customer).collect();
        of_customer.sort_by_key(|one| one["id"].as_str().unwrap().to_owned());
        let lines = of_customer.last().unwrap()["lines"]["data"].clone();
        let lines = lines.as_array().unwrap().iter();
        lines
            .map(|line| {
                (
                    line["quantity"].as_u64().unwrap(),
                    line["amount"].as_i64().unwrap(),
                )
            })
            .collect()
    }

    fn changes(&self) -> usize {
        let calls = self.fake.calls().into_iter();
        calls
            .filter(|call| call.method == "POST" && call.path.starts_with("/v1/subscriptions/"))
            .count()
    }
}

// -------------------------------------------------------------------------------------------------------- its beginning

#[actix_web::test]
async fn a_checkout_begins_a_subscription_that_charges_use_from_the_first_hour() {
    for (interval, changes) in [("month", 0), ("year", 1)] {
        let shop = Shop::open().await;
        let id = shop.sign_up("initech", "free").await;
        shop.work().await;
        let begun = shop.now();
        shop.check_out("initech", &json!({"plan": "enterprise", "interval": interval}))
            .await;
        // A page sells nothing that is paid for in two intervals: for a year the rest is added, by nobody's hand.
        assert_eq!(shop.changes(), changes, "{interval}");
        let subscription = shop.account(id).await.subscription.unwrap();
        let charged = &subscription.charged[..];
        assert_eq!(charged.len(), 1, "{interval}");
        assert_eq!(
            (charged[0].meter.as_str(), charged[0].since),
            ("api_calls", begun)
        );
        shop.used(id, begun, 20_500_000).await;
        shop.pass(2).await;
        let customer = shop.customer(id).await;
        let always = Period {
            start: begun - Duration::days(1),
            end: begun + Duration::days(40),
        };
        assert_eq!(shop.arrived(&customer, "api_calls", always), 20_500_000);
        for _ in 0..32 {
            shop.pass(24).await;
        }
        let lines = shop.charged(&customer);
        assert!(
            lines.contains(&(20_000_000, 0)) && lines.contains(&(500_000, 2_500)),
            "{lines:?}"
        );
        assert_eq!(shop.changes(), changes, "{interval}");
        shop.close().await;
    }
}

#[actix_web::test]
async fn what_provisioning_subscribes_to_is_complete_and_a_trial_costs_nothing_to_the_minute() {
    let shop = Shop::open().await;
    shop.wait(Duration::minutes(20)).await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let begun = shop.now();
    let subscription = shop.account(id).await.subscription.unwrap();
    assert_eq!((subscription.charged.len(), shop.changes()), (1, 0));
    let customer = shop.customer(id).await;
    assert!(shop.fake.set_card(&customer, tenantry_stripe_fake::Card::Pays));
    for _ in 0..13 {
        shop.pass(24).await;
    }
    let end = begun + Duration::days(14);
    assert_eq!(subscription.trial_ends_at, Some(end));
    // An hour of the trial, the part of an hour before its end, and the part after it.
    shop.used(id, end - Duration::hours(3), 7_000_000).await;
    shop.used(id, end - Duration::minutes(1), 5_000_000).await;
    shop.used(id, end, 1_010_000).await;
    for _ in 0..34 {
        shop.pass(24).await;
    }
    let lines = shop.charged(&customer);
    assert_eq!(lines, [(1_000_000, 0), (10_000, 100), (1, 2_900)]);
    let trial = Period {
        start: begun,
        end: end + Duration::hours(2),
    };
    let drifts = shop.drifts(id, Some(trial)).await;
    assert_eq!(
        drifts[0].ours, 8_010_000,
        "the trial's last twenty minutes are not told"
    );
    shop.close().await;
}

#[actix_web::test]
async fn only_what_is_used_between_its_beginning_and_its_end_is_charged() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let noon = shop.now();
    // In the hour of the checkout, on the free plan.
    shop.used(id, noon, 9_000_000).await;
    shop.wait(Duration::minutes(20)).await;
    shop.check_out("initech", &json!({"plan": "enterprise"})).await;
    let begun = shop.now();
    let before = shop.used(id, begun - Duration::seconds(1), 5_000_000).await;
    shop.used(id, begun, 20_400_000).await;
    shop.pass(2).await;
    let customer = shop.customer(id).await;
    let always = Period {
        start: noon - Duration::days(1),
        end: noon + Duration::days(60),
    };
    let arrived = || shop.arrived(&customer, "api_calls", always);
    assert_eq!(arrived(), 20_400_000);
    assert_eq!(shop.drifts(id, None).await[0].ours, 20_400_000);
    // What is corrected before the beginning changes the hour, and nothing of what is told.
    take_back(&shop.world, "initech", ADMIN, before).await;
    roll_up(&shop.world.app, id).await;
    let published = meter_report::publish(&shop.cx(id).await).await.unwrap();
    assert_eq!(published.made, 0);
    // And what takes its place after the beginning changes what is told, and not the hour.
    shop.used(id, begun + Duration::minutes(5), 5_000_000).await;
    shop.work().await;
    meter_report::publish(&shop.cx(id).await).await.unwrap();
    assert_eq!(arrived(), 25_400_000);
    shop.drifts(id, None).await;

    // It ends with its month, twenty past twelve.
    shop.post("initech", "/api/v1/billing/subscription/cancel", &json!({}))
        .await;
    shop.work().await;
    let ends_at = shop.account(id).await.subscription.unwrap().period.end;
    while ends_at - shop.now() > Duration::hours(24) {
        shop.pass(24).await;
    }
    let left = ends_at - shop.now() - Duration::minutes(5);
    shop.wait(left).await;
    // Nobody has totalled that before the last invoice is final.
    let at = ends_at - Duration::minutes(10);
    use_up(&shop.world.app, id, "api_calls", at, 100).await;
    shop.wait(Duration::minutes(15)).await;
    assert_eq!(
        shop.account(id).await.subscription.unwrap().ended_at,
        Some(ends_at)
    );
    assert_eq!(shop.plan(id).await, "free");
    shop.used(id, shop.now(), 9_000_000).await;
    for _ in 0..3 {
        shop.wait(Duration::minutes(25)).await;
    }
    shop.used(id, shop.now() - Duration::minutes(1), 9_000_000).await;
    shop.pass(24).await;
    assert_eq!(arrived(), 25_400_100);
    assert_eq!(shop.charged(&customer), [(20_000_000, 0), (5_400_100, 27_001)]);
    let drifts = shop.drifts(id, Some(always)).await;
    assert_eq!(drifts[0].ours, 25_400_100);
    shop.close().await;
}

#[actix_web::test]
async fn a_meter_is_charged_from_the_change_to_a_plan_that_charges_it() {
    let free_calls = STANDARD.replace(
        "overage = [{ amount = 100, currency = \"usd\", per = 10_000 }]\n",
        "",
    );
    // A change during a trial is to a plan that has one, too.
    let free_calls = free_calls.replace(
        "name = \"enterprise\"\n",
        "name = \"enterprise\"\ntrial_days = 14\n",
    );
    let shop = Shop::open_with(book(&free_calls), Wait::from_millis(400)).await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    assert_eq!(shop.account(id).await.subscription.unwrap().charged, []);
    let noon = shop.now();
    shop.used(id, noon, 700).await;
    shop.wait(Duration::minutes(20)).await;
    shop.post(
        "initech",
        "/api/v1/billing/subscription",
        &json!({"plan": "enterprise"}),
    )
    .await;
    shop.work().await;
    shop.used(id, noon + Duration::minutes(19), 30).await;
    shop.used(id, noon + Duration::minutes(30), 11).await;
    shop.pass(2).await;
    let customer = shop.customer(id).await;
    let day = Period::day_of(noon);
    assert_eq!(shop.arrived(&customer, "api_calls", day), 11);
    assert_eq!(shop.drifts(id, None).await[0].ours, 11);
    // Back again: what is used from then on is not told.
    shop.post("initech", "/api/v1/billing/subscription", &json!({"plan": "pro"}))
        .await;
    shop.work().await;
    shop.used(id, shop.now(), 5).await;
    shop.pass(2).await;
    assert_eq!(shop.arrived(&customer, "api_calls", day), 11);
    assert_eq!(shop.drifts(id, None).await, []);
    shop.close().await;
}

// ------------------------------------------------------------------------------------------------ what does not add up

/// Plans that charge what is stored in the end, the largest number of seats, and how many users there were.
fn levels() -> Option<Arc<PlanBook>> {
    let users = "[plan.meters.active_users]\nincluded = \"unlimited\"\nlimit = \"unlimited\"\n";
    let seats = "\n[plan.meters.seats]\nincluded = 10\nlimit = \"unlimited\"\n\
                 overage = [{ amount = 7, currency = \"usd\", per = 1 }]\n";
    let charged_users = "[plan.meters.active_users]\nincluded = 2\nlimit = \"unlimited\"\n\
                         overage = [{ amount = 500, currency = \"usd\", per = 1 }]\n";
    let stored = "included = 10_995_116_277_760 # 10 TiB\nlimit = 10_995_116_277_760\n";
    let charged_stored = "included = 1_000\nlimit = \"unlimited\"\n\
                          overage = [{ amount = 3, currency = \"usd\", per = 1 }]\n";
    let meter = "[[meter]]\nkey = \"seats\"\ntitle = \"Seats\"\nunit = \"seat\"\naggregation = \"max\"\n\
                 reset = \"billing_cycle\"\n\n[[plan]]\nname = \"free\"";
    assert!(STANDARD.contains(users) && STANDARD.contains(stored));
    let text = STANDARD
        .replace(users, &format!("{charged_users}{seats}"))
        .replace(stored, charged_stored)
        .replace("[[plan]]\nname = \"free\"", meter);
    book(&text)
}

const LEVELS: [&str; 3] = ["active_users", "seats", "storage_bytes"];

#[actix_web::test]
async fn of_what_does_not_add_up_the_month_is_charged_for_what_it_comes_to() {
    let shop = Shop::open_with(levels(), Wait::from_millis(400)).await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let app = Arc::clone(&shop.world.app);
    let noon = shop.now();
    // On the free plan: what is stored then goes on being stored, the others are of no interest afterwards.
    use_up(&app, id, "storage_bytes", noon, 400).await;
    use_up(&app, id, "seats", noon, 90).await;
    used_by(&app, id, "active_users", noon, "ulf").await;
    shop.wait(Duration::minutes(20)).await;
    shop.check_out("initech", &json!({"plan": "enterprise"})).await;
    let (begun, customer) = (shop.now(), shop.customer(id).await);
    let month = Period {
        start: begun,
        end: begun + Duration::days(31),
    };
    let arrived = || LEVELS.map(|meter| shop.arrived(&customer, meter, month));
    let day = |day: i64| begun + Duration::days(day);
    shop.pass(2).await;
    assert_eq!(arrived(), [0, 0, 400]);

    shop.pass(46).await;
    for (days, user) in [(0, "ann"), (1, "bob"), (2, "ann")] {
        used_by(&app, id, "active_users", day(days), user).await;
    }
    use_up(&app, id, "storage_bytes", day(1), 2_500).await;
    let peak = use_up(&app, id, "seats", day(1), 30).await;
    use_up(&app, id, "seats", day(0), 12).await;
    shop.pass(2).await;
    assert_eq!(arrived(), [2, 30, 2_500]);
    shop.drifts(id, None).await;

    // What was told of the largest number was a mistake: the smaller one is told later, and counts.
    shop.pass(48).await;
    take_back(&shop.world, "initech", ADMIN, peak).await;
    used_by(&app, id, "active_users", day(3), "cid").await;
    // Somebody hears late of what was stored in between: it was no longer so on the second day.
    use_up(&app, id, "storage_bytes", day(0), 9_999).await;
    shop.pass(2).await;
    assert_eq!(arrived(), [3, 12, 2_500]);
    use_up(&app, id, "storage_bytes", day(4), 0).await;
    shop.pass(2).await;
    assert_eq!(
        arrived(),
        [3, 12, 0],
        "that nothing is stored any more is told, too"
    );
    use_up(&app, id, "storage_bytes", day(4) + Duration::minutes(1), 1_500).await;
    let dashboard = shop.drifts(id, None).await;
    assert_eq!(dashboard.len(), 4);
    assert_eq!(dashboard[3].untold, 1_500);
    for _ in 0..29 {
        shop.pass(24).await;
    }
    let lines = shop.charged(&customer);
    for line in [(1, 500), (2, 14), (500, 1_500)] {
        assert!(lines.contains(&line), "{line:?} in {lines:?}");
    }

    // In the next month only what is stored is still so, without anybody doing anything.
    let next = Period {
        start: month.end,
        end: month.end + Duration::days(28),
    };
    let of_next = || LEVELS.map(|meter| shop.arrived(&customer, meter, next));
    assert_eq!(of_next(), [0, 0, 1_500]);
    shop.drifts(id, None).await;
    // What is heard of the former month is told of it, although its invoice is made, and changes nothing of the next.
    used_by(&app, id, "active_users", day(30), "dan").await;
    shop.pass(2).await;
    assert_eq!((arrived()[0], of_next()[0]), (4, 0));
    shop.drifts(id, Some(month)).await;
    shop.close().await;
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Something that was used of a level.
struct Use {
    id: UsageEventId,
    meter: usize,
    at: Time,
    quantity: u64,
    stands: bool,
}

/// What the month so far comes to, by the definition.
fn figure(uses: &[Use], meter: usize, month: Period) -> u64 {
    let of_meter = uses.iter().filter(|one| one.stands && one.meter == meter);
    let within = of_meter.clone().filter(|one| month.contains(one.at));
    match LEVELS[meter] {
        "active_users" => {
            let subjects: std::collections::BTreeSet<u64> = within.map(|one| one.quantity).collect();
            subjects.len() as u64
        }
        "seats" => within.map(|one| one.quantity).max().unwrap_or(0),
        _ => of_meter
            .filter(|one| one.at < month.end)
            .max_by_key(|one| one.at)
            .map_or(0, |one| one.quantity),
    }
}

/// Whatever comes late, is taken back or is told again because an answer was lost: the last that arrived is the month's.
#[actix_web::test]
async fn the_last_that_arrived_is_what_the_month_comes_to_whatever_happens_in_between() {
    let shop = Shop::open_with(levels(), Wait::from_millis(400)).await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    shop.wait(Duration::minutes(20)).await;
    shop.check_out("initech", &json!({"plan": "enterprise"})).await;
    let (begun, customer) = (shop.now(), shop.customer(id).await);
    let app = Arc::clone(&shop.world.app);
    let (mut dice, mut uses) = (Dice(20_260_115), Vec::<Use>::new());
    for step in 0..60 {
        for _ in 0..=dice.below(2) {
            let meter = usize::try_from(dice.below(3)).unwrap();
            let quantity = 1 + dice.below(12);
            let most = u64::try_from((shop.now() - begun).num_minutes()).unwrap();
            // Mostly of the last hours.
            let ago = dice.below(most + 1).min(dice.below(4_000));
            let at =
                shop.now() - Duration::minutes(i64::try_from(ago).unwrap()) + Duration::milliseconds(step);
            let event = if meter == 0 {
                used_by(&app, id, LEVELS[0], at, &format!("user {quantity}")).await
            } else {
                use_up(&app, id, LEVELS[meter], at, quantity).await
            };
            uses.push(Use {
                id: event,
                meter,
                at,
                quantity,
                stands: true,
            });
        }
        if step % 3 == 0 {
            let number = uses.len() - 1 - usize::try_from(dice.below(uses.len().min(6) as u64)).unwrap();
            if uses[number].stands {
                uses[number].stands = false;
                shop.world.outlive_the_cache();
                take_back(&shop.world, "initech", ADMIN, uses[number].id).await;
            }
        }
        if step % 7 == 0 {
            let path = tenantry_stripe_fake::Matcher::path("/v1/billing/meter_events");
            shop.fake
                .fail_next(path, tenantry_stripe_fake::Failure::ServerErrorAfterEffect);
        }
        shop.wait(Duration::minutes(i64::try_from(40 + dice.below(500)).unwrap()))
            .await;
        let published = meter_report::publish(&shop.cx(id).await).await;
        assert!(published.is_ok(), "{published:?}");
        let month = Period {
            start: begun,
            end: Period::hour_of(shop.world.clock.now()).start,
        };
        for (number, meter) in LEVELS.into_iter().enumerate() {
            let arrived = shop.arrived(&customer, meter, month);
            assert_eq!(arrived, figure(&uses, number, month), "{meter} in step {step}");
        }
        shop.drifts(id, None).await;
    }
    assert!(shop.now() - begun < Duration::days(31), "it is one month");
    shop.close().await;
}
