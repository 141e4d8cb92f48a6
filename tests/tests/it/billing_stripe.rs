//! Billing end to end: the API behind a socket, its worker, the adapter for Stripe, and a stand-in for Stripe that bills,
//! collects, tells and fails as that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration as Wait;

use actix_web::dev::ServerHandle;
use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_billing::BillingHandlers as _;
use tenantry_billing::billing::{billing_oversight, meter_report};
use tenantry_billing::plans::{PlanBook, Plans};
use tenantry_domain::billing::{
    BillingAccount, Dunning, DunningState, EventState, InvoiceStatus, MeterReport, NewCheckout,
    NewSubscription, PaymentProvider as _, ProviderKey, ReportState, SubscriptionStatus,
};
use tenantry_domain::kernel::{Clock, PageRequest, Period, SystemScope, TenantId, Time};
use tenantry_domain::operations::Rate;
use tenantry_domain::plans::{PlanCatalogue, PlanTerms};
use tenantry_domain::tenant::TenantStatus;
use tenantry_domain::usage::MeterKey;
use tenantry_http::Api;
use tenantry_stripe::{StripeConfig, StripePayments};
use tenantry_stripe_fake::{
    Card, Delivery, Exhausted, Failure, FakeClock, FakeConfig, Held, Hold, Matcher, StripeFake, sign,
};
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tenancy::operations::worker::Worker;
use tenantry_tenancy::{Cx, OperatorCx, Origin, Tenancy};
use tenantry_tests::{Client, ManualClock, Options, PASSWORD, Payments, World, roll_up, take_back, use_up};

use crate::billing_checkout::{CHECKOUT, actions, new_subscription, posted, subscription_to};
use crate::jobs::{expire_leases, worker, worker_of};
use crate::openfeature::serve;
use crate::plans::store;

const BECAUSE: SystemScope = SystemScope::because("a test of billing with Stripe");
const SECRET: &str = "whsec_test";

/// The stand-in's clock as one of ours.
#[derive(Debug)]
struct FakeTime(FakeClock);

impl Clock for FakeTime {
    fn now(&self) -> Time {
        self.0.now()
    }
}

/// A world that is paid through the stand-in.
pub(crate) struct Shop {
    pub(crate) world: World,
    pub(crate) fake: StripeFake,
    stripe: Arc<StripePayments>,
    options: Options,
    server: ServerHandle,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::open_with(None, Wait::from_millis(400)).await
    }

    /// One with plans of its own that waits so long for the stand-in.
    pub(crate) async fn open_with(plans: Option<Arc<PlanBook>>, timeout: Wait) -> Self {
        let options = Options {
            plans,
            ..Options::default()
        };
        Self::open_at(options, timeout, false).await
    }

    /// One in which tenants may ask for so much of what calls the stand-in.
    pub(crate) async fn open_held_to(billing_rate: Rate) -> Self {
        let options = Options {
            billing_rate,
            ..Options::default()
        };
        Self::open_at(options, Wait::from_millis(400), false).await
    }

    /// One whose payments are due by the clock of the stand-in, as in the demo.
    pub(crate) async fn open_by_its_clock() -> Self {
        Self::open_at(Options::default(), Wait::from_millis(400), true).await
    }

    async fn open_at(options: Options, timeout: Wait, by_its_clock: bool) -> Self {
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let fake = StripeFake::start(FakeConfig {
            hang: Wait::from_secs(2),
            // As in the demo: moved ahead, it still signs at everybody else's time, by which messages are checked.
            runs: by_its_clock,
            // Each shop has an account of its own at Stripe.
            run: format!("{:x}x", OPENED.fetch_add(1, Ordering::Relaxed)),
            ..FakeConfig::default()
        });
        let fake = fake.unwrap();
        let settings = StripeConfig {
            secret_key: fake.secret_key().to_owned(),
            webhook_secrets: vec![SECRET.to_owned()],
            api_base: Some(fake.url().parse().unwrap()),
            timeout,
            clock: by_its_clock.then(|| Arc::new(FakeTime(fake.clock())) as Arc<dyn Clock>),
        };
        let stripe = Arc::new(StripePayments::new(&settings).unwrap());
        let options = Options {
            payments: Some(Payments(stripe.clone())),
            clock: Some(Arc::new(ManualClock::default())),
            ..options
        };
        let world = World::with(options.clone()).await;
        publish(&stripe, world.app.ports.plans.as_ref()).await;
        let (url, server) = serve(&world);
        fake.webhook_to(&format!("{url}/webhooks/stripe"), SECRET);
        Self {
            world,
            fake,
            stripe,
            options,
            server,
        }
    }

    /// Replaces the customer of a tenant, which the stand-in does not have. Returns the one in its place.
    pub(crate) async fn replace(&self, tenant: TenantId) -> String {
        replaced(&self.world.operator_cx(), tenant).await
    }

    /// Another server over this shop's database that is paid through another shop's stand-in, as after a change of the key.
    fn beside(&self, other: &Self) -> Arc<Tenancy> {
        self.world.instance(&self.options_beside(other)).app
    }

    /// A client of such a server.
    pub(crate) async fn client_beside(&self, other: &Self) -> Client {
        self.world.other_instance(&self.options_beside(other)).await
    }

    fn options_beside(&self, other: &Self) -> Options {
        Options {
            payments: other.options.payments.clone(),
            ..self.options.clone()
        }
    }

    pub(crate) async fn close(self) {
        self.server.stop(false).await;
    }

    /// Lets what was told arrive, and does what there is to do.
    pub(crate) async fn work(&self) {
        let worker = worker(&self.world, Handlers::standard().with_usage().with_billing());
        for _ in 0..20 {
            self.fake.settled().await;
            if worker.run_once().await.unwrap().is_empty() {
                return;
            }
        }
    }

    /// Lets time pass here and there, an hour at a time where that matters.
    pub(crate) async fn pass(&self, hours: i64) {
        self.wait(Duration::hours(hours)).await;
    }

    /// Lets time pass here and there, and does what there is to do then.
    pub(crate) async fn wait(&self, time: Duration) {
        self.world.clock.advance(time);
        self.fake.clock().advance_to(self.world.clock.now());
        self.work().await;
    }

    /// Lets failed work be tried again.
    async fn try_again(&self) {
        for _ in 0..6 {
            self.pass(1).await;
        }
    }

    pub(crate) async fn sign_up(&self, slug: &str, plan: &str) -> TenantId {
        let body = json!({"name": "New", "slug": slug, "plan": plan,
            "admin": {"email": format!("a@{slug}.example"), "full_name": "A", "password": PASSWORD}});
        let reply = self.world.client.post("/api/v1/tenants", &body).await;
        let body = reply.expect(201).json();
        body["tenant"]["id"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn cx(&self, tenant: TenantId) -> Cx {
        self.world.outlive_the_cache();
        let scope = self.world.app.ports.gate.system(BECAUSE, tenant).await.unwrap();
        Cx::new(Arc::clone(&self.world.app), scope, Origin::default())
    }

    pub(crate) async fn account(&self, tenant: TenantId) -> BillingAccount {
        let cx = self.cx(tenant).await;
        let account = cx.read(async |work| work.billing().current().await).await;
        account.unwrap().unwrap()
    }

    pub(crate) async fn customer(&self, tenant: TenantId) -> String {
        self.account(tenant).await.customer.unwrap().to_string()
    }

    pub(crate) async fn status(&self, tenant: TenantId) -> TenantStatus {
        let mut work = self.world.operator_cx().begin().await.unwrap();
        work.tenant(tenant).await.unwrap().unwrap().status
    }

    pub(crate) async fn plan(&self, tenant: TenantId) -> String {
        let mut work = self.world.operator_cx().begin().await.unwrap();
        work.tenant(tenant).await.unwrap().unwrap().plan
    }

    pub(crate) async fn post(&self, slug: &str, path: &str, body: &Value) -> Value {
        let login = self
            .world
            .login(slug, &format!("a@{slug}.example"), PASSWORD)
            .await;
        let token = login.expect(200).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned();
        let reply = self.world.client.post(path, body).bearer(&token).await;
        assert!((200..300).contains(&reply.status), "{path}: {}", reply.text());
        reply.json()
    }

    /// An admin of a tenant begins a checkout, and pays on its page.
    pub(crate) async fn check_out(&self, slug: &str, wish: &Value) {
        let link = self.post(slug, "/api/v1/billing/checkout", wish).await;
        let session = link["url"].as_str().unwrap().rsplit('/').next().unwrap();
        self.fake.complete_checkout(session).unwrap();
        self.work().await;
    }

    /// The customers of a tenant that the stand-in has and that are not deleted.
    pub(crate) fn customers_of(&self, tenant: TenantId) -> Vec<String> {
        let all = self.fake.customers().into_iter();
        all.filter(|one| one["deleted"] != true && one["metadata"]["tenant_id"] == tenant.to_string())
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn subscriptions_of(&self, customer: &str) -> Vec<Value> {
        let all = self.fake.subscriptions().into_iter();
        all.filter(|one| one["customer"] == customer).collect()
    }
}

/// Puts what is on offer on sale at the stand-in.
async fn publish(stripe: &StripePayments, plans: &dyn PlanCatalogue) {
    let on_offer = plans.on_offer();
    let on_offer: Vec<PlanTerms> = on_offer.iter().map(|terms| PlanTerms::clone(terms)).collect();
    stripe.publish(&on_offer, plans.meters()).await.unwrap();
}

/// A key of another account, and a server over a shop's database that has it.
pub(crate) struct WrongKey {
    /// The other account.
    pub(crate) elsewhere: Shop,
    /// The server's operators.
    pub(crate) cx: OperatorCx,
}

impl WrongKey {
    pub(crate) async fn set(shop: &Shop) -> Self {
        let elsewhere = Shop::open().await;
        let cx = OperatorCx::command(&shop.beside(&elsewhere), BECAUSE);
        Self { elsewhere, cx }
    }

    /// Replaces the customer of a tenant, which the other account does not have. Returns the one in its place.
    pub(crate) async fn replace(&self, tenant: TenantId) -> String {
        replaced(&self.cx, tenant).await
    }
}

async fn replaced(cx: &OperatorCx, tenant: TenantId) -> String {
    let lost = billing_oversight::lost_customer_of(cx, tenant, true)
        .await
        .unwrap();
    lost[0].replacement.as_ref().unwrap().to_string()
}

/// During a rolling deploy one server sells a plan that the other, which hears of the sale, has not read yet.
#[actix_web::test]
async fn plan_that_another_server_has_just_put_on_sale_is_granted() {
    let text = include_str!("../../../config/plans.toml");
    let pro = text.find("[[plan]]\nname = \"pro\"").unwrap();
    let enterprise = text.find("[[plan]]\nname = \"enterprise\"").unwrap();
    let team = text[pro..enterprise].replacen("\"pro\"", "\"team\"", 1);
    let book = |text: &str| Arc::new(PlanBook::new(Plans::parse(text).unwrap()).unwrap());
    let (old, new) = (book(text), book(&format!("{text}\n{team}")));
    let shop = Shop::open_with(Some(Arc::clone(&old)), Wait::from_millis(400)).await;
    let store = store(&shop.world);
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    for book in [&old, &new] {
        book.sync(&store, shop.world.clock.now()).await.unwrap();
    }
    publish(&shop.stripe, new.as_ref()).await;
    let terms = new.current("team").unwrap();
    let sold = NewSubscription {
        trial_days: 14,
        ..subscription_to(&terms, id, &shop.customer(id).await)
    };
    let key = ProviderKey::parse("team").unwrap();
    shop.stripe.create_subscription(&key, &sold).await.unwrap();
    assert!(!old.knows("team", 1));
    shop.work().await;
    assert_eq!(shop.plan(id).await, "team");
    shop.close().await;
}

#[actix_web::test]
async fn from_sign_up_over_a_card_that_fails_to_read_only_and_back() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    assert_eq!(shop.customers_of(id), std::slice::from_ref(&customer));
    let trial = shop.account(id).await.subscription.unwrap();
    assert_eq!((trial.status, trial.seats), (SubscriptionStatus::Trialing, 1));
    assert_eq!(shop.plan(id).await, "pro");

    // The trial ends, and the card is declined.
    assert!(shop.fake.set_card(&customer, Card::Declines));
    for _ in 0..15 {
        shop.pass(24).await;
    }
    let account = shop.account(id).await;
    assert_eq!(account.dunning.state, DunningState::Grace, "{account:?}");
    assert_eq!(account.subscription.unwrap().status, SubscriptionStatus::PastDue);
    assert_eq!(shop.status(id).await, TenantStatus::Active);
    for _ in 0..7 {
        shop.pass(24).await;
    }
    assert_eq!(shop.status(id).await, TenantStatus::Suspended);

    // The customer pays on the invoice's page, as a suspended tenant may.
    assert!(shop.fake.set_card(&customer, Card::Pays));
    shop.post("initech", "/api/v1/billing/portal", &json!({})).await;
    let invoice = open_invoice(&shop, id).await;
    assert!(shop.fake.pay_invoice(&invoice));
    shop.work().await;
    assert_eq!(shop.status(id).await, TenantStatus::Active);
    let account = shop.account(id).await;
    assert_eq!(account.dunning.state, DunningState::Healthy);
    assert_eq!(account.subscription.unwrap().status, SubscriptionStatus::Active);
    assert_eq!(shop.fake.undelivered(), 0);
    shop.close().await;
}

#[actix_web::test]
async fn trial_without_a_card_falls_back_to_the_default_plan() {
    let shop = Shop::open().await;
    shop.fake.after_retries(Exhausted::Canceled);
    let id = shop.sign_up("initech", "pro").await;
    let declined = shop.sign_up("globodyne", "pro").await;
    shop.work().await;
    assert!(shop.fake.set_card(&shop.customer(declined).await, Card::Declines));
    for _ in 0..16 {
        shop.pass(24).await;
    }
    let account = shop.account(id).await;
    assert_eq!(account.subscription.unwrap().status, SubscriptionStatus::Canceled);
    assert_eq!(shop.plan(declined).await, "pro", "grace");
    for _ in 0..10 {
        shop.pass(24).await;
    }
    for id in [id, declined] {
        let account = shop.account(id).await;
        assert_eq!(account.dunning, Dunning::HEALTHY);
        assert_eq!(shop.plan(id).await, "free");
        assert_eq!(shop.status(id).await, TenantStatus::Active);
    }
    let customer = shop.customer(id).await;
    let mut asked = shop.fake.invoices();
    asked.retain(|one| one["customer"] == customer.as_str() && one["total"] != 0);
    assert_eq!(asked, [Value::Null; 0], "nothing is charged");
    // It may begin anew, as soon as it pays.
    shop.check_out("initech", &json!({"plan": "pro"})).await;
    assert_eq!(shop.plan(id).await, "pro");
    shop.close().await;
}

/// A trial that a checkout begins ends like that of sign-up.
#[actix_web::test]
async fn trial_of_a_checkout_ends_with_a_removed_card() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    shop.check_out("initech", &json!({"plan": "pro"})).await;
    let trial = shop.account(id).await.subscription.unwrap();
    assert_eq!(trial.status, SubscriptionStatus::Trialing);
    assert!(shop.fake.set_card(&shop.customer(id).await, Card::Missing));
    for _ in 0..15 {
        shop.pass(24).await;
    }
    assert_eq!(shop.plan(id).await, "free");
    let account = shop.account(id).await;
    assert_eq!(account.dunning, Dunning::HEALTHY);
    assert_eq!(account.subscription.unwrap().status, SubscriptionStatus::Canceled);
    shop.close().await;
}

/// A tenant on the eighth day of a debt of `enterprise`, whose grace is 14 days; Stripe has ended the subscription.
async fn owing_for_an_ended_subscription(shop: &Shop) -> (TenantId, String) {
    shop.fake.after_retries(Exhausted::Canceled);
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    shop.check_out("initech", &json!({"plan": "enterprise", "seats": 1}))
        .await;
    assert!(shop.fake.set_card(&customer, Card::Declines));
    for _ in 0..40 {
        shop.pass(24).await;
        if shop.plan(id).await == "free" {
            break;
        }
    }
    shop.pass(24).await;
    let account = shop.account(id).await;
    assert_eq!(shop.plan(id).await, "free");
    assert_eq!(account.dunning.state, DunningState::Grace, "{account:?}");
    let dunning = account.dunning;
    assert_eq!(
        dunning.suspends_at.unwrap() - dunning.failed_at.unwrap(),
        Duration::days(14)
    );
    assert!(shop.fake.set_card(&customer, Card::Pays));
    (id, customer)
}

#[actix_web::test]
async fn debt_keeps_its_timetable_when_another_plan_is_paid() {
    let shop = Shop::open().await;
    let (id, customer) = owing_for_an_ended_subscription(&shop).await;
    let announced = shop.account(id).await.dunning.suspends_at.unwrap();
    // On a page that was open before, or is the dashboard's: `pro` has a grace of 7 days.
    let pro = new_subscription(&shop, id, &customer, "pro");
    let key = ProviderKey::parse("pro").unwrap();
    let page = NewCheckout {
        subscription: pro,
        terms: ProviderKey::parse("terms").unwrap(),
        success_url: "https://a.example/".into(),
        cancel_url: "https://a.example/".into(),
    };
    let page = shop.stripe.checkout(&key, &page).await.unwrap();
    shop.fake.complete_checkout(page.id.as_str()).unwrap();
    shop.work().await;
    assert_eq!(shop.plan(id).await, "pro");
    assert_eq!(shop.status(id).await, TenantStatus::Active);
    let warned = async || {
        let said = actions(&shop, id, "billing.notice.").await;
        said.contains(&"billing.notice.suspension_ahead".to_owned())
    };
    assert!(!warned().await);
    while shop.world.clock.now() < announced {
        assert_eq!(shop.status(id).await, TenantStatus::Active);
        assert_eq!(
            warned().await,
            shop.world.clock.now() >= announced - Duration::days(3)
        );
        shop.pass(6).await;
    }
    assert_eq!(shop.status(id).await, TenantStatus::Suspended);
    assert!(shop.fake.pay_invoice(&open_invoice(&shop, id).await));
    shop.work().await;
    assert_eq!(shop.status(id).await, TenantStatus::Active);
    shop.close().await;
}

#[actix_web::test]
async fn checkout_waits_for_the_open_invoice_of_an_ended_subscription() {
    let shop = Shop::open().await;
    let (id, _) = owing_for_an_ended_subscription(&shop).await;
    let wish = json!({"plan": "pro", "seats": 1});
    let refused = posted(&shop, "initech", CHECKOUT, &wish).await;
    let body = refused.problem(422, "validation_failed").json();
    assert_eq!(body["errors"][0]["pointer"], "/plan", "{body}");
    assert_eq!(body["errors"][0]["code"], "invoice_open", "{body}");
    let invoice = open_invoice(&shop, id).await;
    let all = shop.fake.invoices();
    let number = all.iter().find(|one| one["id"] == invoice.as_str()).unwrap()["number"].clone();
    let detail = body["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains(number.as_str().unwrap()), "{detail}");
    assert!(shop.fake.pay_invoice(&invoice));
    shop.check_out("initech", &wish).await;
    assert_eq!(shop.plan(id).await, "pro");
    assert_eq!(shop.status(id).await, TenantStatus::Active);
    shop.close().await;
}

async fn open_invoice(shop: &Shop, tenant: TenantId) -> String {
    let cx = shop.cx(tenant).await;
    let page = PageRequest {
        limit: 100,
        after: None,
    };
    let invoices = cx
        .read(async |work| work.invoices().list(page).await)
        .await
        .unwrap();
    let open = invoices
        .items
        .into_iter()
        .find(|one| one.mirror.status == Some(InvoiceStatus::Open));
    open.unwrap().mirror.id.to_string()
}

#[actix_web::test]
async fn a_plan_without_a_trial_is_granted_when_it_is_paid_in_a_checkout_and_then_changed() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let body = json!({"plan": "enterprise", "seats": 2});
    let link = shop.post("initech", "/api/v1/billing/checkout", &body).await;
    let again = shop.post("initech", "/api/v1/billing/checkout", &body).await;
    assert_eq!(link["url"], again["url"], "the same page within the hour");
    assert_eq!(shop.plan(id).await, "free");
    shop.check_out("initech", &body).await;
    assert_eq!(shop.plan(id).await, "enterprise");
    let subscription = shop.account(id).await.subscription.unwrap();
    assert_eq!(
        (subscription.status, subscription.seats),
        (SubscriptionStatus::Active, 2)
    );
    // A downgrade, of which the answer is lost after the effect.
    let lost = Matcher::path("/v1/subscriptions/").method("POST");
    shop.fake.fail_next(lost, Failure::TimeoutAfterEffect);
    shop.post("initech", "/api/v1/billing/subscription", &json!({"plan": "pro"}))
        .await;
    shop.try_again().await;
    assert_eq!(shop.plan(id).await, "pro");
    shop.post("initech", "/api/v1/billing/subscription/cancel", &json!({}))
        .await;
    shop.work().await;
    assert!(shop.account(id).await.subscription.unwrap().cancel_at_period_end);
    for _ in 0..32 {
        shop.pass(24).await;
    }
    assert_eq!(shop.plan(id).await, "free", "the period is over");
    shop.close().await;
}

/// Whatever goes wrong with a call: no second customer, no second subscription, and nobody waits at sign-up.
#[actix_web::test]
async fn answers_that_are_lost_leave_nothing_behind_on_either_side() {
    let shop = Shop::open().await;
    shop.work().await;
    for (round, failure) in Failure::ALL.into_iter().enumerate() {
        for (path, name) in [("/v1/customers", "c"), ("/v1/subscriptions", "s")] {
            shop.fake.fail_next(Matcher::path(path).method("POST"), failure);
            let id = shop.sign_up(&format!("lost-{name}{round}"), "pro").await;
            shop.work().await;
            shop.try_again().await;
            let customers = shop.customers_of(id);
            assert_eq!(customers.len(), 1, "{failure:?} at {path}");
            assert_eq!(shop.customer(id).await, customers[0]);
            assert_eq!(
                shop.subscriptions_of(&customers[0]).len(),
                1,
                "{failure:?} at {path}"
            );
            assert!(shop.account(id).await.live_subscription().is_some());
        }
    }
    shop.close().await;
}

/// Waits until a call that is to be held has come.
async fn reached(call: &Hold) {
    while !call.is_reached() {
        tokio::time::sleep(Wait::from_millis(1)).await;
    }
}

/// The worker dies while each of its calls is under way, after Stripe has done it; another takes its job over.
#[actix_web::test]
async fn a_worker_that_is_killed_between_any_two_steps_is_replaced_without_a_trace() {
    let shop = Shop::open().await;
    shop.work().await;
    let steps = [
        ("GET", "/v1/customers/search"),
        ("POST", "/v1/customers"),
        ("GET", "/v1/subscriptions"),
        ("POST", "/v1/subscriptions"),
        ("GET", "/v1/invoices"),
    ];
    for (round, (method, path)) in steps.into_iter().enumerate() {
        let matcher = Matcher::path(path).method(method);
        let call = shop.fake.hold(matcher, 1, Held::AfterEffect);
        let id = shop.sign_up(&format!("killed-{round}"), "pro").await;
        let doomed = worker(&shop.world, Handlers::standard().with_usage().with_billing());
        // Dropped as soon as the call hangs: nothing of it runs on, as after a `kill -9`.
        tokio::select! {
            biased;
            () = reached(&call) => {}
            ran = doomed.run_once() => panic!("{method} {path} was not asked: {ran:?}"),
        }
        call.lose();
        // Leases run out by the database's clock, which no test moves.
        expire_leases(&shop.world).await;
        shop.try_again().await;
        let customers = shop.customers_of(id);
        assert_eq!(customers.len(), 1, "{method} {path}");
        assert_eq!(shop.subscriptions_of(&customers[0]).len(), 1, "{method} {path}");
        assert!(
            shop.account(id).await.live_subscription().is_some(),
            "{method} {path}"
        );
    }
    shop.close().await;
}

#[actix_web::test]
async fn two_servers_and_messages_in_any_order_and_twice_come_to_what_stripe_has() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    shop.fake.set_card(&customer, Card::DeclinesTimes(2));
    for (round, delivery) in [
        Delivery::Reordered(7),
        Delivery::Duplicated,
        Delivery::Reordered(11),
        Delivery::Duplicated,
    ]
    .into_iter()
    .enumerate()
    {
        shop.fake.webhooks(delivery);
        shop.world.clock.advance(Duration::days(10));
        shop.fake.clock().advance_to(shop.world.clock.now());
        shop.fake.settled().await;
        let servers = [0, 1].map(|_| worker(&shop.world, Handlers::standard().with_usage().with_billing()));
        join_all(servers.iter().map(Worker::run_once)).await;
        shop.work().await;
        let theirs = shop.subscriptions_of(&customer).remove(0);
        let ours = shop.account(id).await.subscription.unwrap();
        assert_eq!(ours.status.as_str(), theirs["status"], "{round}");
        let cx = shop.cx(id).await;
        let page = PageRequest {
            limit: 100,
            after: None,
        };
        let ours = cx
            .read(async |work| work.invoices().list(page).await)
            .await
            .unwrap()
            .items;
        let theirs = shop
            .fake
            .invoices()
            .into_iter()
            .filter(|one| one["customer"] == customer.as_str());
        let mut theirs: Vec<(String, Value)> = theirs
            .map(|one| (one["id"].as_str().unwrap().to_owned(), one["status"].clone()))
            .collect();
        let mut ours: Vec<(String, Value)> = ours
            .into_iter()
            .map(|one| (one.mirror.id.to_string(), json!(one.mirror.status)))
            .collect();
        ours.sort_by(|a, b| a.0.cmp(&b.0));
        theirs.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(ours, theirs, "{round}");
    }
    shop.close().await;
}

#[actix_web::test]
async fn what_was_never_told_is_fetched_and_strangers_are_ignored() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    shop.fake.set_card(&customer, Card::Declines);
    shop.fake.webhooks(Delivery::Lost(1_000));
    for _ in 0..16 {
        shop.pass(24).await;
    }
    assert_eq!(
        shop.account(id).await.dunning.state,
        DunningState::Grace,
        "by the hourly look"
    );
    // A customer that somebody else has made there, and that names our tenant in its metadata.
    let before = shop.account(id).await;
    let body = json!({"id": "evt_forged", "object": "event", "type": "invoice.paid", "api_version": "2026-09-30.endive",
        "created": shop.world.clock.now().timestamp(), "livemode": false,
        "data": {"object": {"id": "in_x", "object": "invoice", "customer": "cus_stranger",
            "metadata": {"tenant_id": id.to_string()}, "customer_email": "a@initech.example"}}});
    let text = body.to_string();
    let signature = sign(SECRET, shop.world.clock.now().timestamp(), text.as_bytes());
    let request = shop.world.client.post("/webhooks/stripe", &body);
    request.header("Stripe-Signature", &signature).await.expect(200);
    shop.try_again().await;
    let events = shop
        .world
        .app
        .ports
        .provider_events
        .list(BECAUSE, None, 1_000)
        .await
        .unwrap();
    let forged = events
        .into_iter()
        .find(|one| one.event.id.as_str() == "evt_forged")
        .unwrap();
    assert_eq!(forged.state, EventState::Ignored);
    let after = shop.account(id).await;
    assert_eq!(
        (after.subscription, after.dunning.failed_at),
        (before.subscription, before.dunning.failed_at)
    );
    shop.close().await;
}

#[actix_web::test]
async fn usage_arrives_there_to_the_unit_and_nothing_drifts() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    let begin = shop.world.clock.now();
    let (mut used, mut hour) = (0, begin);
    let mut newest = None;
    for round in 0..30_u64 {
        let quantity = 1_000 + round * 37;
        use_up(&shop.world.app, id, "api_calls", hour, 5).await;
        newest = Some(use_up(&shop.world.app, id, "api_calls", hour, quantity - 5).await);
        roll_up(&shop.world.app, id).await;
        used += quantity;
        hour += Duration::hours(1);
        if round % 4 == 0 {
            let path = "/v1/billing/meter_events";
            shop.fake.fail_next(
                Matcher::path(path),
                Failure::ALL[usize::try_from(round / 4).unwrap()],
            );
        }
        shop.pass(1).await;
    }
    // One hour is corrected.
    shop.world.outlive_the_cache();
    take_back(&shop.world, "initech", "a@initech.example", newest.unwrap()).await;
    used = used - (1_000 + 29 * 37) + 5;
    shop.try_again().await;
    let (start, end) = (
        begin.timestamp() - 3_600,
        shop.world.clock.now().timestamp() + 3_600,
    );
    assert_eq!(
        shop.fake.meter_total("tenantry_api_calls", &customer, start, end),
        used
    );
    let cx = shop.cx(id).await;
    let drift = meter_report::drift(&cx, None).await.unwrap().remove(0);
    assert_eq!((drift.ours, drift.theirs, drift.unexplained()), (used, used, 0));
    shop.close().await;
}

#[actix_web::test]
async fn a_report_whose_answer_was_lost_is_counted_once_although_nobody_tries_again_for_a_day() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    let begin = shop.world.clock.now();
    for hours in [0, 1] {
        use_up(
            &shop.world.app,
            id,
            "api_calls",
            begin + Duration::hours(hours),
            100,
        )
        .await;
        shop.world.clock.advance(Duration::hours(1));
    }
    roll_up(&shop.world.app, id).await;
    shop.fake.clock().advance_to(shop.world.clock.now());
    // The first arrives and its answer is lost; the second is never sent.
    shop.fake.fail_next(
        Matcher::path("/v1/billing/meter_events"),
        Failure::TimeoutAfterEffect,
    );
    meter_report::publish(&shop.cx(id).await).await.unwrap_err();
    shop.world.clock.advance(Duration::hours(26));
    shop.fake.clock().advance_to(shop.world.clock.now());
    let cx = shop.cx(id).await;
    assert_eq!(meter_report::publish(&cx).await.unwrap().sent, 2);
    let end = shop.world.clock.now().timestamp();
    let told = shop.fake.meter_total("tenantry_api_calls", &customer, 0, end);
    assert_eq!(told, 200);
    let drift = meter_report::drift(&cx, None).await.unwrap().remove(0);
    assert_eq!((drift.ours, drift.difference()), (200, 0));
    shop.close().await;
}

// ---------------------------------------------------------------------------------------------------------- two clocks

/// A shop with two instances, of which one's clock is ten minutes ahead of the other's and of the provider's.
struct Skewed {
    shop: Shop,
    ahead: Arc<ManualClock>,
    other: Arc<Tenancy>,
}

const SKEW: Duration = Duration::minutes(10);

impl Skewed {
    async fn open() -> Self {
        let shop = Shop::open().await;
        let ahead = Arc::new(ManualClock::default());
        ahead.advance(shop.world.clock.now() + SKEW - ahead.now());
        let other = shop.world.instance_at(&shop.options, ahead.clone()).app;
        Self { shop, ahead, other }
    }

    /// Lets time pass for everybody, and does what there is to do: who is ahead comes first.
    async fn pass(&self, by: Duration) {
        self.shop.world.clock.advance(by);
        self.ahead
            .advance(self.shop.world.clock.now() + SKEW - self.ahead.now());
        self.shop.fake.clock().advance_to(self.shop.world.clock.now());
        self.shop.world.outlive_the_cache();
        self.work().await;
    }

    async fn work(&self) {
        let handlers = || Handlers::standard().with_usage().with_billing();
        let world = &self.shop.world;
        let servers = [
            worker_of(world, &self.other, handlers()),
            worker(world, handlers()),
        ];
        for _ in 0..20 {
            self.shop.fake.settled().await;
            let mut idle = true;
            for server in &servers {
                idle &= server.run_once().await.unwrap().is_empty();
            }
            if idle {
                return;
            }
        }
        panic!("there is always more to do");
    }

    /// The reports of a tenant: the hour, the number, and where it stands.
    async fn reports(&self, tenant: TenantId) -> Vec<MeterReport> {
        let cx = self.shop.cx(tenant).await;
        let meter = MeterKey::api_calls();
        let now = self.shop.world.clock.now();
        let period = Period {
            start: now - Duration::days(2),
            end: now + Duration::days(1),
        };
        cx.read(async |work| work.meter_reports().list(&meter, period).await)
            .await
            .unwrap()
    }
}

#[actix_web::test]
async fn hours_are_told_once_and_all_of_them_although_a_clock_is_ten_minutes_ahead() {
    let skewed = Skewed::open().await;
    let (shop, here) = (&skewed.shop, &skewed.shop.world.clock);
    let id = shop.sign_up("initech", "pro").await;
    skewed.work().await;
    let customer = shop.customer(id).await;
    let hour = Period::hour_of(here.now());
    let mut used = [0_u64; 5];
    let mut note = |at: Time, quantity: u64| {
        used[usize::try_from((at - hour.start).num_hours()).unwrap()] += quantity;
    };
    let mut was_early = 0;
    for step in 0..4 * 12_u64 {
        skewed.pass(Duration::minutes(5)).await;
        // Each records by its own clock, so that an hour which is over for one is going on for the other.
        for (app, at, quantity) in [
            (&shop.world.app, here.now(), 100 + step),
            (&skewed.other, skewed.ahead.now(), 10_000 + step),
        ] {
            use_up(app, id, "api_calls", at, quantity).await;
            roll_up(app, id).await;
            note(at, quantity);
        }
        // Schedules have one clock. A request that reports has that of its server.
        let scope = skewed.other.ports.gate.system(BECAUSE, id).await.unwrap();
        let ahead = Cx::new(Arc::clone(&skewed.other), scope, Origin::default());
        if let Err(error) = meter_report::publish(&ahead).await {
            assert!(error.to_string().contains("timestamp_in_future"), "{error:?}");
        }
        let reports = skewed.reports(id).await;
        for report in &reports {
            let is_told = report.state == ReportState::Sent;
            assert!(report.state != ReportState::Dead, "{report:?}");
            let told_before = report.told_at(None) - shop.fake.clock().now();
            assert!(!is_told || told_before <= SKEW, "{report:?}");
            was_early +=
                usize::from(report.state == ReportState::Pending && told_before > Duration::minutes(5));
        }
    }
    assert!(
        was_early >= 3,
        "each hour is over for one clock when the provider does not take it yet: {was_early}"
    );
    // The hours of the day before are over for everybody.
    skewed.pass(Duration::hours(1)).await;
    skewed.pass(Duration::hours(1)).await;
    for (number, expected) in used.iter().enumerate() {
        let start = hour.start + Duration::hours(i64::try_from(number).unwrap());
        let (start, end) = (start.timestamp(), start.timestamp() + 3_600);
        let theirs = shop.fake.meter_total("tenantry_api_calls", &customer, start, end);
        assert_eq!(theirs, *expected, "hour {number}");
    }
    for app in [&shop.world.app, &skewed.other] {
        let drift = meter_report::drift_of(app, BECAUSE, id, None)
            .await
            .unwrap()
            .remove(0);
        let sum: u64 = used.iter().sum();
        assert_eq!((drift.ours, drift.theirs, drift.difference()), (sum, sum, 0));
    }
    skewed.shop.close().await;
}

#[actix_web::test]
async fn who_does_not_pay_is_told_once_although_a_clock_is_ten_minutes_ahead() {
    let skewed = Skewed::open().await;
    let shop = &skewed.shop;
    let id = shop.sign_up("initech", "pro").await;
    skewed.work().await;
    let customer = shop.customer(id).await;
    assert!(shop.fake.set_card(&customer, Card::Declines));
    // The trial is over, and the first invoice is final an hour later.
    skewed.pass(Duration::days(14)).await;
    skewed.pass(Duration::hours(2)).await;
    let account = shop.account(id).await;
    assert_eq!(account.dunning.state, DunningState::Grace, "{account:?}");
    let due = account.dunning.failed_at.unwrap() + Duration::days(7);
    let until = |at: Time| at - shop.world.clock.now();
    let status = async || shop.status(id).await;
    skewed.pass(until(due - SKEW - Duration::minutes(1))).await;
    assert_eq!(status().await, TenantStatus::Active, "not due for anybody");
    skewed.pass(Duration::minutes(2)).await;
    assert_eq!(
        status().await,
        TenantStatus::Suspended,
        "due for the one that is ahead"
    );
    skewed.pass(until(due + Duration::minutes(1))).await;
    skewed.pass(Duration::hours(3)).await;
    assert_eq!(status().await, TenantStatus::Suspended);
    let sql = format!(
        "SELECT coalesce(array_agg(action ORDER BY id), '{{}}') FROM audit_events \
         WHERE tenant_id = '{id}' AND action LIKE 'billing.notice.%'"
    );
    let told: (Vec<String>,) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_one(&mut shop.world.database.admin().await)
        .await
        .unwrap();
    let steps = ["payment_failed", "suspension_ahead", "suspended"];
    assert_eq!(told.0, steps.map(|step| format!("billing.notice.{step}")));
    skewed.shop.close().await;
}

#[actix_web::test]
async fn a_message_is_kept_by_whoever_has_the_right_time() {
    let skewed = Skewed::open().await;
    let (shop, world) = (&skewed.shop, &skewed.shop.world);
    let api = Api::new(
        Arc::clone(&skewed.other),
        shop.options.http.clone(),
        Arc::clone(&world.readiness),
    );
    let ahead = Client::new(api).await;
    let event = json!({"id": "evt_skewed", "object": "event", "type": "invoice.paid",
        "api_version": "2026-09-30.endive", "created": world.clock.now().timestamp(), "livemode": false,
        "data": {"object": {"id": "in_x", "object": "invoice", "customer": "cus_x"}}});
    let text = event.to_string();
    let signature = sign(SECRET, world.clock.now().timestamp(), text.as_bytes());
    let tell = async |client: &Client| {
        let request = client.post("/webhooks/stripe", &event);
        request.header("Stripe-Signature", &signature).await
    };
    // Too old by more than five minutes, for all it can see; the provider tells it again.
    let refused = tell(&ahead).await.expect(400).json();
    assert_eq!(refused["code"], "webhook_signature_invalid");
    for _ in 0..2 {
        tell(&world.client).await.expect(200);
    }
    let kept = async || {
        let events = world
            .app
            .ports
            .provider_events
            .list(BECAUSE, None, 1_000)
            .await
            .unwrap();
        events
            .iter()
            .filter(|one| one.event.id.as_str() == "evt_skewed")
            .count()
    };
    assert_eq!(kept().await, 1);
    skewed.shop.close().await;
}
