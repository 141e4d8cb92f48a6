//! A month of two hundred tenants who pay through the stand-in for Stripe: who used what, what was told, what was billed
//! and who was suspended come to the same here, there, and in a reckoning of the test's own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use chrono::{Duration, Months};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_billing::BillingHandlers as _;
use tenantry_billing::billing::meter_report::{self, Drift};
use tenantry_billing::plans::{PlanBook, Plans};
use tenantry_billing::usage::quota_alert::TellAlert;
use tenantry_billing::usage::usage_rollup::{RollUp, RollUpAll};
use tenantry_domain::billing::{DunningState, InvoiceStatus, ProviderInvoice, SubscriptionStatus};
use tenantry_domain::kernel::{Clock as _, Interval, PageRequest, Period, TenantId, Time, UsageEventId};
use tenantry_domain::tenant::TenantStatus;
use tenantry_domain::usage::{MeterKey, OveragePrice};
use tenantry_stripe_fake::{Card, Delivery};
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tenancy::operations::worker::Worker;
use tenantry_tests::{roll_up, take_back, use_up};

use crate::billing_stripe::Shop;
use crate::jobs::worker;

const TENANTS: usize = 200;
const TRIAL: i64 = 2;
/// The month of the last one who signs up is over by then.
const DAYS: i64 = 38;

/// What becomes of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is on the free plan.
    Free,
    /// It pays.
    Pays,
    /// It pays after so many declines.
    Declined(u32),
    /// It never pays.
    NeverPays,
    /// It does not pay, is suspended, and pays then.
    Recovers,
    /// It takes a larger plan in the middle of the month.
    Upgrades,
    /// It leaves at the end of its month.
    Cancels,
}

impl Fate {
    fn of(number: usize) -> Self {
        match number % 20 {
            0..5 => Self::Free,
            5 | 6 => Self::Declined(1 + u32::try_from(number % 3).unwrap()),
            7 => Self::NeverPays,
            8 => Self::Recovers,
            9 => Self::Upgrades,
            10 => Self::Cancels,
            _ => Self::Pays,
        }
    }

    const fn is_paying(self) -> bool {
        !matches!(self, Self::Free)
    }

    /// Whether the month that is charged is one of one plan, and paid.
    const fn is_plain(self) -> bool {
        matches!(self, Self::Pays | Self::Declined(_) | Self::Cancels)
    }
}

/// What counts of something that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// It is told, and billed.
    Told,
    /// It came when it was too late to tell.
    Late,
    /// It was taken back in time.
    TakenBack,
}

/// A tenant, and what the test knows of it without asking.
struct Member {
    id: TenantId,
    slug: String,
    fate: Fate,
    customer: String,
    /// When its subscription began, to the second.
    since: Time,
    /// What it used: when, how much, and what of it counts.
    events: Vec<(UsageEventId, Time, u64, Event)>,
}

impl Member {
    fn sum(&self, of: impl Fn(Time, Event) -> bool) -> u64 {
        let events = self.events.iter().filter(|(_, at, _, event)| of(*at, *event));
        events.map(|(_, _, quantity, _)| quantity).sum()
    }

    fn used(&self) -> u64 {
        self.sum(|_, event| event != Event::TakenBack)
    }

    /// Whether what it used at a moment is charged: not what was of the trial in the hour in which that ended, nor what
    /// comes after the end.
    fn is_charged(&self, at: Time) -> bool {
        let month = self.month();
        let of_trial = Period::hour_of(month.start).start <= at && at < month.start;
        !of_trial && (self.fate != Fate::Cancels || at < month.end)
    }

    fn charged(&self) -> u64 {
        self.sum(|at, event| event != Event::TakenBack && self.is_charged(at))
    }

    fn late(&self) -> u64 {
        self.sum(|at, event| event == Event::Late && self.is_charged(at))
    }

    /// What it used in the hours that are told within a period: each is told for its last second, that in which the
    /// subscription ends for the last one before.
    fn told_in(&self, period: Period) -> u64 {
        let told_at = |at: Time| {
            let hour = Period::hour_of(at);
            let ends = self.fate == Fate::Cancels && hour.contains(self.month().end);
            let end = if ends { self.month().end } else { hour.end };
            end - Duration::seconds(1)
        };
        self.sum(|at, event| event == Event::Told && self.is_charged(at) && period.contains(told_at(at)))
    }

    /// The month that it is charged for.
    fn month(&self) -> Period {
        let start = self.since + Duration::days(TRIAL);
        Period {
            start,
            end: start + Months::new(1),
        }
    }
}

/// SplitMix64: the same month each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn plans() -> Arc<PlanBook> {
    let standard = include_str!("../../../config/plans.toml");
    let text = standard.replace("trial_days = 14", &format!("trial_days = {TRIAL}"));
    Arc::new(PlanBook::new(Plans::parse(&text).unwrap()).unwrap())
}

struct Month {
    shop: Shop,
    /// What three servers do in the background; each has connections of its own.
    servers: [Worker; 3],
    members: Vec<Member>,
    dice: Dice,
    begin: Time,
}

impl Month {
    /// Moves both clocks to so many minutes after the beginning of a day.
    fn go_to(&self, day: i64, minutes: i64) {
        let at = self.begin + Duration::days(day) + Duration::minutes(minutes);
        self.shop.world.clock.advance(at - self.shop.world.clock.now());
        self.shop.fake.clock().advance_to(at);
        self.shop.world.outlive_the_cache();
    }

    /// Does what there is to do about usage and payments.
    async fn work(&self) {
        loop {
            self.shop.fake.settled().await;
            let ran = join_all(self.servers.iter().map(Worker::run_once)).await;
            if ran.into_iter().all(|ran| ran.unwrap().is_empty()) {
                return;
            }
        }
    }

    async fn sign_up(&mut self, numbers: impl Iterator<Item = usize>) {
        let mut new = Vec::new();
        for number in numbers {
            let (slug, fate) = (format!("member-{number}"), Fate::of(number));
            let plan = if fate.is_paying() { "pro" } else { "free" };
            let id = self.shop.sign_up(&slug, plan).await;
            new.push((id, slug, fate));
        }
        self.work().await;
        let since = self.shop.fake.clock().now();
        for (id, slug, fate) in new {
            let customer = self.shop.customer(id).await;
            let card = match fate {
                Fate::Declined(times) => Card::DeclinesTimes(times),
                Fate::NeverPays | Fate::Recovers => Card::Declines,
                Fate::Free | Fate::Pays | Fate::Upgrades | Fate::Cancels => Card::Pays,
            };
            assert!(self.shop.fake.set_card(&customer, card));
            self.members.push(Member {
                id,
                slug,
                fate,
                customer,
                since,
                events: Vec::new(),
            });
        }
    }

    /// What half of them use of the API in the day before now, some of it in the hour in which periods end. Nothing is of an
    /// hour that was told already.
    async fn use_a_day(&mut self, day: i64) {
        let now = self.shop.world.clock.now();
        let app = &self.shop.world.app;
        let mut used = Vec::new();
        for (number, member) in self.members.iter().enumerate() {
            if number % 4 / 2 != usize::try_from(day % 2).unwrap() {
                continue;
            }
            // Every other one stays below what is included.
            let most = if number % 2 == 0 { 50_000 } else { 400_000 };
            let ago = Duration::minutes(i64::try_from(self.dice.below(23 * 60 + 30)).unwrap());
            used.push((number, (now - ago).max(member.since), 1 + self.dice.below(most)));
        }
        for some in used.chunks(4) {
            let recorded = some.iter().map(async |(number, at, quantity)| {
                let tenant = self.members[*number].id;
                let id = use_up(app, tenant, "api_calls", *at, *quantity).await;
                roll_up(app, tenant).await;
                id
            });
            for ((number, at, quantity), id) in some.iter().zip(join_all(recorded).await) {
                self.members[*number]
                    .events
                    .push((id, *at, *quantity, Event::Told));
            }
        }
    }

    /// Some of what was told in the last hours is taken back, and something is added to it.
    async fn correct(&mut self) {
        let now = self.shop.world.clock.now();
        for number in (0..self.members.len()).step_by(7) {
            let member = &mut self.members[number];
            if self.shop.status(member.id).await == TenantStatus::Suspended {
                continue;
            }
            let recent = member.events.iter_mut().rev();
            let Some((id, at, _, stands)) = recent
                .take(1)
                .find(|event| (6..30).contains(&(now - event.1).num_hours()))
            else {
                continue;
            };
            let at = *at;
            *stands = Event::TakenBack;
            let email = format!("a@{}.example", member.slug);
            take_back(&self.shop.world, &member.slug, &email, *id).await;
            let quantity = 1 + self.dice.below(5_000);
            let id = use_up(&self.shop.world.app, member.id, "api_calls", at, quantity).await;
            member.events.push((id, at, quantity, Event::Told));
            roll_up(&self.shop.world.app, member.id).await;
        }
    }

    /// Some usage is of hours that were told days ago.
    async fn be_late(&mut self) {
        for number in (5..self.members.len()).step_by(41) {
            let member = &mut self.members[number];
            let Some((_, at, ..)) = member.events.get(member.events.len() / 2).copied() else {
                continue;
            };
            let quantity = 1_000 + self.dice.below(1_000);
            let id = use_up(&self.shop.world.app, member.id, "api_calls", at, quantity).await;
            member.events.push((id, at, quantity, Event::Late));
            roll_up(&self.shop.world.app, member.id).await;
        }
    }

    async fn each(&self, fate: Fate, path: &str, body: &Value) {
        for member in self.members.iter().filter(|member| member.fate == fate) {
            self.shop.post(&member.slug, path, body).await;
        }
    }

    /// Those who recover pay what they owe.
    async fn pay_up(&self) {
        let invoices = self.invoices();
        for member in self.members.iter().filter(|one| one.fate == Fate::Recovers) {
            assert_eq!(self.shop.status(member.id).await, TenantStatus::Suspended);
            self.shop.fake.set_card(&member.customer, Card::Pays);
            for invoice in theirs(&invoices, member) {
                if invoice["status"] == "open" {
                    assert!(self.shop.fake.pay_invoice(invoice["id"].as_str().unwrap()));
                }
            }
        }
    }

    /// The invoices that the stand-in has, by customer, the oldest first.
    fn invoices(&self) -> BTreeMap<String, Vec<Value>> {
        by_customer(self.shop.fake.invoices())
    }

    async fn ours(&self, member: &Member) -> Vec<ProviderInvoice> {
        let page = PageRequest {
            limit: 100,
            after: None,
        };
        let cx = self.shop.cx(member.id).await;
        let ours = cx.read(async |work| work.invoices().list(page).await).await;
        let mut ours: Vec<ProviderInvoice> = ours.unwrap().items.into_iter().map(|one| one.mirror).collect();
        ours.sort_by_key(|one| one.id.to_string());
        ours
    }

    /// A number of each tenant.
    async fn numbers(&self, sql: &str) -> BTreeMap<TenantId, u64> {
        let rows: Vec<(uuid::Uuid, i64)> = sqlx::query_as(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut self.shop.world.database.admin().await)
            .await
            .unwrap();
        let number = |(tenant, number): (uuid::Uuid, i64)| (tenant.into(), u64::try_from(number).unwrap());
        rows.into_iter().map(number).collect()
    }
}

#[actix_web::test]
async fn a_month_of_two_hundred_tenants_comes_to_the_same_everywhere() {
    let started = Instant::now();
    let shop = Shop::open_with(Some(plans()), std::time::Duration::from_secs(20)).await;
    let begin = shop.fake.clock().now();
    let handlers = || {
        let handlers = Handlers::default().with(RollUp).with_system(RollUpAll);
        handlers.with(TellAlert).with_billing()
    };
    let mut month = Month {
        servers: [(); 3].map(|()| worker(&shop.world, handlers())),
        shop,
        members: Vec::new(),
        dice: Dice(20_260_115),
        begin,
    };
    month.work().await;
    // They sign up at minutes of the hour, so that their months end within hours.
    for slot in 0..8 {
        month.go_to(slot / 2, 10 + slot % 2 * 13);
        let first = usize::try_from(slot).unwrap() * TENANTS / 8;
        month.sign_up(first..first + TENANTS / 8).await;
        if slot % 2 == 1 {
            live(&mut month, slot / 2).await;
        }
    }
    for day in 4..=DAYS {
        live(&mut month, day).await;
    }
    // The last hours are over.
    month.go_to(DAYS + 1, 30);
    month.work().await;
    let lived = started.elapsed();
    check_usage(&month).await;
    let invoices = check_invoices(&month).await;
    check_states(&month).await;
    let drifts = check_drift(&month).await;
    let events: usize = month.members.iter().map(|member| member.events.len()).sum();
    eprintln!(
        "{} tenants, {events} events of usage, {invoices} invoices, {} calls, {} messages, {:.1?} of which {:.1?} checked",
        month.members.len(),
        month.shop.fake.calls().len(),
        month.shop.fake.events().len(),
        started.elapsed(),
        started.elapsed() - lived,
    );
    eprintln!("{}", drift_report(&drifts));
    month.shop.close().await;
}

/// What happens on a day; on a quiet one nothing, as when the worker is away for a day or two.
async fn live(month: &mut Month, day: i64) {
    if (6..32).contains(&day) && ![6, 9, 12, 15, 18, 20, 21, 25, 28].contains(&day) {
        return;
    }
    month.go_to(day, 30);
    month.shop.fake.webhooks(match day % 3 {
        0 => Delivery::Reordered(day.unsigned_abs()),
        1 => Delivery::Duplicated,
        _ => Delivery::InOrder,
    });
    month.use_a_day(day).await;
    match day {
        15 => {
            month
                .each(
                    Fate::Upgrades,
                    "/api/v1/billing/subscription",
                    &json!({"plan": "enterprise"}),
                )
                .await;
        }
        18 => {
            month
                .each(Fate::Cancels, "/api/v1/billing/subscription/cancel", &json!({}))
                .await;
        }
        20 => month.pay_up().await,
        25 => month.be_late().await,
        _ => {}
    }
    month.work().await;
    if [12, 21].contains(&day) {
        month.go_to(day, 30 + 7 * 60);
        month.correct().await;
        month.work().await;
    }
}

/// The ledger, its totals, what was told, and what has arrived.
async fn check_usage(month: &Month) {
    let ledger = "SELECT tenant_id, sum(quantity)::bigint FROM usage_events e WHERE meter = 'api_calls' \
         AND NOT EXISTS (SELECT FROM usage_events i WHERE i.tenant_id = e.tenant_id AND i.invalidates = e.id) GROUP BY 1";
    let ledger = month.numbers(ledger).await;
    let totals =
        "SELECT tenant_id, sum(quantity)::bigint FROM usage_hours WHERE meter = 'api_calls' GROUP BY 1";
    let totals = month.numbers(totals).await;
    let days = "SELECT tenant_id, sum(quantity)::bigint FROM usage_days WHERE meter = 'api_calls' GROUP BY 1";
    let days = month.numbers(days).await;
    let told = "SELECT tenant_id, sum(quantity)::bigint FROM meter_outbox WHERE state = 'sent' GROUP BY 1";
    let told = month.numbers(told).await;
    let (start, end) = (
        month.begin.timestamp() - 86_400,
        month.begin.timestamp() + 60 * 86_400,
    );
    let mut everything = 0;
    for member in &month.members {
        let used = member.used();
        let of = |numbers: &BTreeMap<TenantId, u64>| numbers.get(&member.id).copied().unwrap_or_default();
        assert_eq!(of(&ledger), used, "{} {:?}", member.slug, member.fate);
        assert_eq!((of(&totals), of(&days)), (used, used), "{}", member.slug);
        let arrived = month
            .shop
            .fake
            .meter_total("tenantry_api_calls", &member.customer, start, end);
        let due = if member.fate.is_paying() {
            member.charged() - member.late()
        } else {
            0
        };
        assert_eq!(
            (of(&told), arrived),
            (due, due),
            "{} {:?}",
            member.slug,
            member.fate
        );
        everything += arrived;
    }
    // Nobody else was told of.
    let customers = month.shop.fake.customers();
    let all = customers.iter().map(|one| {
        let customer = one["id"].as_str().unwrap();
        month
            .shop
            .fake
            .meter_total("tenantry_api_calls", customer, start, end)
    });
    assert_eq!(all.sum::<u64>(), everything);
    let waiting =
        "SELECT tenant_id, count(*) FROM meter_outbox WHERE state IN ('pending', 'dead') GROUP BY 1";
    assert_eq!(month.numbers(waiting).await, BTreeMap::new());
}

/// Every invoice is here as it is there, and those of tenants who stay on one plan are what the plan says.
async fn check_invoices(month: &Month) -> usize {
    let mut count = 0;
    let invoices = month.invoices();
    for member in &month.members {
        let (ours, theirs) = (month.ours(member).await, theirs(&invoices, member));
        count += theirs.len();
        let ours: Vec<Value> = ours.iter().map(told).collect();
        let same: Vec<Value> = theirs.iter().map(seen).collect();
        assert_eq!(ours, same, "{} {:?}", member.slug, member.fate);
        if !member.fate.is_paying() {
            assert!(theirs.is_empty(), "{}", member.slug);
        }
        if member.fate.is_plain() {
            check_lines(month, member, theirs);
        }
    }
    // The two tenants of every world are customers as well, and all other invoices are theirs.
    let is_member = |customer: &str| month.members.iter().any(|member| member.customer == customer);
    let others = invoices.keys().filter(|customer| !is_member(customer));
    assert!(others.count() <= 2);
    assert!(count > 0);
    invoices.values().map(Vec::len).sum()
}

/// What the stand-in has, by the customer it belongs to.
fn by_customer(all: Vec<Value>) -> BTreeMap<String, Vec<Value>> {
    let mut of_customers = BTreeMap::<String, Vec<Value>>::new();
    for one in all {
        let customer = one["customer"].as_str().unwrap().to_owned();
        of_customers.entry(customer).or_default().push(one);
    }
    for of_customer in of_customers.values_mut() {
        of_customer.sort_by_key(|one| one["id"].as_str().unwrap().to_owned());
    }
    of_customers
}

fn theirs<'a>(all: &'a BTreeMap<String, Vec<Value>>, member: &Member) -> &'a [Value] {
    all.get(&member.customer).map_or(&[], Vec::as_slice)
}

fn told(invoice: &ProviderInvoice) -> Value {
    let lines: Vec<Value> = invoice
        .lines
        .iter()
        .map(|line| json!([line.description, line.amount, line.quantity]))
        .collect();
    json!({"id": invoice.id.to_string(), "status": invoice.status.map(InvoiceStatus::as_str),
        "total": invoice.total, "paid": invoice.amount_paid, "lines": lines})
}

fn seen(invoice: &Value) -> Value {
    let lines = invoice["lines"]["data"].as_array().unwrap().iter();
    let lines: Vec<Value> = lines
        .map(|line| json!([line["description"], line["amount"], line["quantity"]]))
        .collect();
    json!({"id": invoice["id"], "status": invoice["status"], "total": invoice["total"],
        "paid": invoice["amount_paid"], "lines": lines})
}

/// The trial costs nothing; then there is the price of a month; and in the end what was used in it beyond what is
/// included, with the price of the next month unless the tenant has left.
fn check_lines(month: &Month, member: &Member, theirs: &[Value]) {
    let plans = &month.shop.world.app.ports.plans;
    let terms = plans.current("pro").unwrap();
    let price = terms
        .prices
        .iter()
        .find(|price| price.interval == Interval::Month)
        .unwrap();
    let meter = terms.meter(&MeterKey::parse("api_calls").unwrap());
    let overage: &OveragePrice = &meter.overage[0];
    let used = member.told_in(member.month());
    let beyond = used.saturating_sub(1_000_000);
    let mut last = vec![(used - beyond, 0)];
    if beyond > 0 {
        last.push((beyond, overage.cost(beyond)));
    }
    if member.fate != Fate::Cancels {
        last.push((1, price.amount));
    }
    // Nothing is asked of who leaves and owes nothing.
    let is_asked = member.fate != Fate::Cancels || beyond > 0;
    let mut expected = vec![vec![(1, 0)], vec![(1, price.amount)]];
    expected.extend(is_asked.then_some(last));
    let lines = |invoice: &Value| -> Vec<(u64, i64)> {
        let lines = invoice["lines"]["data"].as_array().unwrap().iter();
        lines
            .map(|line| {
                (
                    line["quantity"].as_u64().unwrap(),
                    line["amount"].as_i64().unwrap(),
                )
            })
            .collect()
    };
    let got: Vec<Vec<(u64, i64)>> = theirs.iter().map(lines).collect();
    assert_eq!(got, expected, "{} {:?}", member.slug, member.fate);
    for (invoice, lines) in theirs.iter().zip(&expected) {
        let total: i64 = lines.iter().map(|(_, amount)| amount).sum();
        assert_eq!(
            (&invoice["total"], &invoice["status"]),
            (&json!(total), &json!("paid"))
        );
    }
}

/// Who pays may work, who does not may read, and everybody has the plan that they pay for.
async fn check_states(month: &Month) {
    let mut customers = month.shop.fake.customers();
    customers.retain(|one| one["deleted"] != true);
    let subscriptions = by_customer(month.shop.fake.subscriptions());
    let tenants: Vec<(uuid::Uuid, String, String)> = sqlx::query_as("SELECT id, status, plan FROM tenants")
        .fetch_all(&mut month.shop.world.database.admin().await)
        .await
        .unwrap();
    let tenants = tenants
        .into_iter()
        .map(|(id, status, plan)| (id.into(), (status, plan)));
    let tenants: BTreeMap<TenantId, (String, String)> = tenants.collect();
    for member in &month.members {
        let account = month.shop.account(member.id).await;
        let status = account.subscription.as_ref().map(|one| one.status.clone());
        let (is_now, has) = &tenants[&member.id];
        let is = (is_now.as_str(), account.dunning.state, status, has.as_str());
        let (tenant, dunning, status, plan) = match member.fate {
            Fate::Free => (TenantStatus::Active, DunningState::Healthy, None, "free"),
            Fate::NeverPays => (
                TenantStatus::Suspended,
                DunningState::Suspended,
                Some(SubscriptionStatus::Unpaid),
                "pro",
            ),
            Fate::Cancels => (
                TenantStatus::Active,
                DunningState::Healthy,
                Some(SubscriptionStatus::Canceled),
                "free",
            ),
            Fate::Upgrades => (
                TenantStatus::Active,
                DunningState::Healthy,
                Some(SubscriptionStatus::Active),
                "enterprise",
            ),
            Fate::Pays | Fate::Declined(_) | Fate::Recovers => (
                TenantStatus::Active,
                DunningState::Healthy,
                Some(SubscriptionStatus::Active),
                "pro",
            ),
        };
        assert_eq!(
            is,
            (tenant.as_str(), dunning, status, plan),
            "{} {:?}",
            member.slug,
            member.fate
        );
        let mut of_tenant = customers.iter();
        let is_theirs = |one: &&Value| one["metadata"]["tenant_id"] == member.id.to_string();
        let first = of_tenant.find(is_theirs).unwrap();
        assert_eq!(first["id"], member.customer.as_str());
        assert_eq!(of_tenant.find(is_theirs), None, "{}", member.slug);
        let subscriptions = theirs(&subscriptions, member);
        assert_eq!(
            subscriptions.len(),
            usize::from(member.fate.is_paying()),
            "{}",
            member.slug
        );
        for subscription in subscriptions {
            assert_eq!(subscription["metadata"]["tenant_id"], member.id.to_string());
        }
    }
    assert_eq!(month.shop.fake.undelivered(), 0);
}

/// What is different has a reason, and only that which the test has made.
async fn check_drift(month: &Month) -> Vec<(String, Drift)> {
    let period = Period {
        start: month.begin,
        end: month.begin + Duration::days(DAYS + 2),
    };
    let mut drifts = Vec::new();
    for member in &month.members {
        let cx = month.shop.cx(member.id).await;
        for drift in meter_report::drift(&cx, Some(period)).await.unwrap() {
            assert_eq!(drift.unexplained(), 0, "{drift:?}");
            assert_eq!((drift.untold, drift.pending, drift.dead), (0, 0, 0), "{drift:?}");
            assert_eq!(
                (drift.ours, drift.late),
                (member.charged(), i64::try_from(member.late()).unwrap())
            );
            drifts.push((member.slug.clone(), drift));
        }
    }
    let paying = month.members.iter().filter(|member| member.fate.is_paying());
    assert_eq!(drifts.len(), paying.count());
    drifts
}

fn drift_report(drifts: &[(String, Drift)]) -> String {
    let sum = |of: fn(&Drift) -> i64| drifts.iter().map(|(_, drift)| of(drift)).sum::<i64>();
    let total = |of: fn(&Drift) -> u64| drifts.iter().map(|(_, drift)| of(drift)).sum::<u64>();
    let mut report = format!(
        "drift of {} tenants: ours {}, theirs {}, late {}, unexplained {}",
        drifts.len(),
        total(|drift| drift.ours),
        total(|drift| drift.theirs),
        sum(|drift| drift.late),
        sum(Drift::unexplained),
    );
    for (slug, drift) in drifts.iter().filter(|(_, drift)| drift.difference() != 0) {
        let _ = write!(
            report,
            "\n  {slug}: ours {}, theirs {}, late {}, unexplained {}",
            drift.ours,
            drift.theirs,
            drift.late,
            drift.unexplained()
        );
    }
    report
}
