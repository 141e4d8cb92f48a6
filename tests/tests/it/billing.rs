//! Payments: a tenant is a customer, what the payment provider says is taken over however it is told, and who does not
//! pay is read-only until they do.

use std::sync::Arc;

use chrono::Duration;
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tenantry_billing::BillingHandlers as _;
use tenantry_billing::billing::{meter_report, provider_event};
use tenantry_billing::plans::{PlanBook, Plans};
use tenantry_domain::billing::{
    BillingAccount, CustomerRef, EventState, Invoice, PaymentProvider as _, ProviderError, ProviderEvent,
    SubscriptionRef, SubscriptionStatus,
};
use tenantry_domain::kernel::{PageRequest, SystemScope, TenantId, Time, UsageEventId};
use tenantry_domain::tenant::{Tenant, TenantStatus};
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tenancy::operations::worker::{Outcome, Ran, Worker};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tenancy::{BillingPolicy, Cx, Origin};
use tenantry_tests::{
    Failing, ManualClock, MemoryPayments, Options, PASSWORD, Payments, Reply, SIGNATURE, TenantWorld, World,
    roll_up, take_back, use_up,
};

use crate::jobs::worker;
use crate::plans::store;

const BECAUSE: SystemScope = SystemScope::because("a test of billing");
const BILLING: &str = "/api/v1/billing";
const SUBSCRIPTION: &str = "/api/v1/billing/subscription";

/// A world with payments.
pub struct Paying {
    pub world: World,
    pub payments: Arc<MemoryPayments>,
}

impl Paying {
    async fn new() -> Self {
        Self::with(BillingPolicy::default()).await
    }

    async fn with(billing: BillingPolicy) -> Self {
        Self::over(Options {
            billing,
            ..Options::default()
        })
        .await
    }

    /// A world that differs.
    pub async fn over(options: Options) -> Self {
        let clock = options
            .clock
            .clone()
            .unwrap_or_else(|| Arc::new(ManualClock::default()));
        let payments = MemoryPayments::new(clock.clone());
        let options = Options {
            payments: Some(Payments(payments.clone())),
            clock: Some(clock),
            ..options
        };
        Self {
            world: World::with(options).await,
            payments,
        }
    }

    /// A world whose tenants are customers already.
    async fn settled() -> Self {
        let paying = Self::new().await;
        paying.work().await;
        paying
    }

    /// A world whose subscription was tried and is paid.
    async fn paid() -> Self {
        let paying = Self::settled().await;
        let subscription = paying.subscription(paying.world.acme.id).await;
        paying
            .payments
            .change(&subscription, |one| one.status = SubscriptionStatus::Active);
        paying.tell_all().await;
        paying
    }

    /// Does what there is to do, until there is nothing more to do at once.
    pub async fn work(&self) -> Vec<Ran> {
        let worker = worker(&self.world, Handlers::standard().with_usage().with_billing());
        let mut all = Vec::new();
        loop {
            let ran = worker.run_once().await.unwrap();
            if ran.is_empty() {
                return all;
            }
            all.extend(ran);
        }
    }

    /// Lets time pass, in steps, and does what there is to do in each.
    pub async fn pass(&self, days: i64) {
        for _ in 0..days * 4 {
            self.world.clock.advance(Duration::hours(6));
            self.work().await;
        }
    }

    async fn cx(&self, tenant: TenantId) -> Cx {
        let scope = self.world.app.ports.gate.system(BECAUSE, tenant).await.unwrap();
        Cx::new(Arc::clone(&self.world.app), scope, Origin::default())
    }

    /// Something was used, and is totalled.
    async fn used(&self, tenant: TenantId, meter: &str, at: Time, quantity: u64) -> UsageEventId {
        let event = use_up(&self.world.app, tenant, meter, at, quantity).await;
        roll_up(&self.world.app, tenant).await;
        event
    }

    async fn account(&self, tenant: TenantId) -> BillingAccount {
        let cx = self.cx(tenant).await;
        cx.read(async |work| work.billing().current().await)
            .await
            .unwrap()
            .unwrap()
    }

    pub async fn tenant(&self, id: TenantId) -> Tenant {
        let mut work = self.world.operator_cx().begin().await.unwrap();
        work.tenant(id).await.unwrap().unwrap()
    }

    /// The subscription of a tenant.
    pub async fn subscription(&self, tenant: TenantId) -> SubscriptionRef {
        self.account(tenant).await.subscription.unwrap().id
    }

    /// The provider tells of an event.
    async fn tell(&self, event: &ProviderEvent) -> Reply {
        let body = MemoryPayments::message(event);
        let request = self.world.client.post("/webhooks/stripe", &body);
        request.header("Stripe-Signature", SIGNATURE).await
    }

    /// It tells of everything, in order.
    pub async fn tell_all(&self) {
        for event in self.payments.events() {
            self.tell(&event).await.expect(200);
        }
        self.work().await;
    }

    async fn sign_up(&self, slug: &str, plan: &str) -> (TenantId, String) {
        let body = json!({"name": "New", "slug": slug, "plan": plan,
            "admin": {"email": format!("a@{slug}.example"), "full_name": "A", "password": PASSWORD}});
        let reply = self.world.client.post("/api/v1/tenants", &body).await;
        let body = reply.expect(201).json();
        let text = |pointer: &str| body.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        (
            text("/tenant/id").parse().unwrap(),
            text("/credentials/access_token"),
        )
    }

    /// Where and why a change of the subscription is refused.
    async fn ask_change(&self, token: &str, body: Value) -> (String, String) {
        let request = self.world.client.post(SUBSCRIPTION, &body).bearer(token);
        let refused = request.await.expect(422).json();
        let text = |field: &str| refused["errors"][0][field].as_str().unwrap().to_owned();
        (text("pointer"), text("code"))
    }

    async fn dashboard(&self) -> Value {
        self.world
            .get(&self.world.acme.admin, BILLING)
            .await
            .expect(200)
            .json()
    }

    async fn actions(&self, tenant: &TenantWorld, prefix: &str) -> Vec<String> {
        let audit = self.world.audit(tenant).await.into_iter();
        audit
            .map(|(action, _)| action)
            .filter(|action| action.starts_with(prefix))
            .collect()
    }

    async fn event(&self, id: &str) -> (EventState, Option<String>) {
        let events = &self.world.app.ports.provider_events;
        let all = events.list(BECAUSE, None, 1_000).await.unwrap();
        let found = all.into_iter().find(|one| one.event.id.as_str() == id).unwrap();
        (found.state, found.reason)
    }
}

// ---------------------------------------------------------------------------------------------------------- provisioning

#[actix_web::test]
async fn who_signs_up_for_a_plan_with_a_trial_has_it_at_once_and_becomes_a_customer() {
    let paying = Paying::settled().await;
    let (id, token) = paying.sign_up("initech", "pro").await;
    assert_eq!(paying.tenant(id).await.plan, "pro");
    paying.work().await;
    let account = paying.account(id).await;
    let subscription = account.subscription.unwrap();
    assert_eq!(subscription.status, SubscriptionStatus::Trialing);
    assert_eq!(paying.payments.customers().len(), 3);
    let bound = paying
        .world
        .app
        .ports
        .customers
        .tenant_of(BECAUSE, &subscription.customer)
        .await;
    assert_eq!(bound.unwrap(), Some(id));
    let reply = paying
        .world
        .client
        .get(BILLING)
        .bearer(&token)
        .await
        .expect(200)
        .json();
    assert_eq!(reply["subscription"]["status"], "trialing");
    assert_eq!(reply["payment"]["state"], "healthy");
    let second = |value: &Value| value.as_str().unwrap()[..19].to_owned();
    assert_eq!(
        second(&reply["period"]["end"]),
        second(&reply["subscription"]["trial_ends_at"])
    );
    // Doing it all again changes nothing.
    let customers = paying.payments.customers();
    paying.tell_all().await;
    assert_eq!(paying.payments.customers(), customers);
    assert_eq!(paying.payments.subscriptions().len(), 3);
}

#[actix_web::test]
async fn what_is_to_be_paid_first_is_granted_when_it_is_paid() {
    let paying = Paying::settled().await;
    let (id, _) = paying.sign_up("initech", "enterprise").await;
    assert_eq!(paying.tenant(id).await.plan, "free");
    paying.work().await;
    assert_eq!(paying.tenant(id).await.plan, "free", "incomplete grants nothing");
    let subscription = paying.subscription(id).await;
    paying
        .payments
        .change(&subscription, |one| one.status = SubscriptionStatus::Active);
    paying.tell_all().await;
    assert_eq!(paying.tenant(id).await.plan, "enterprise");
    paying
        .payments
        .change(&subscription, |one| one.status = SubscriptionStatus::Canceled);
    paying.tell_all().await;
    assert_eq!(
        paying.tenant(id).await.plan,
        "free",
        "and no longer than it is paid"
    );
}

#[actix_web::test]
async fn a_provider_that_is_away_keeps_nobody_from_signing_up() {
    let paying = Paying::settled().await;
    let away = || Failing::Before(ProviderError::Unavailable("away".into()));
    paying.payments.fail_next(away());
    paying.payments.fail_next(Failing::After);
    paying.payments.fail_next(away());
    paying.payments.fail_next(Failing::After);
    let (id, token) = paying.sign_up("initech", "pro").await;
    let me = paying.world.client.get("/api/v1/auth/me").bearer(&token).await;
    me.expect(200);
    let mut failed = 0;
    for _ in 0..8 {
        let ran = paying.work().await;
        failed += ran.iter().filter(|ran| ran.outcome == Outcome::Retried).count();
        paying.world.clock.advance(Duration::minutes(15));
    }
    assert!(failed >= 3, "{failed}");
    let customers = paying.payments.customers();
    assert_eq!(customers.iter().filter(|(_, tenant)| *tenant == id).count(), 1);
    let customer = paying.account(id).await.customer.unwrap();
    let subscriptions = paying.payments.subscriptions_of(&customer).await.unwrap();
    assert_eq!(subscriptions.len(), 1, "made once although the answer was lost");
}

#[actix_web::test]
async fn of_a_tenant_that_is_deleted_meanwhile_no_customer_is_left() {
    let paying = Paying::settled().await;
    let (before, _) = paying.sign_up("before", "pro").await;
    // The customer is made and the answer lost; then the tenant goes.
    paying.payments.fail_next(Failing::After);
    paying.work().await;
    assert_eq!(paying.payments.customers().len(), 3);
    let (never, _) = paying.sign_up("never", "pro").await;
    for id in [before, never] {
        let sql = format!("UPDATE tenants SET status = 'deleted', deleted_at = now() WHERE id = '{id}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut paying.world.database.admin().await)
            .await
            .unwrap();
    }
    paying.world.outlive_the_cache();
    paying.world.clock.advance(Duration::hours(2));
    paying.work().await;
    let left: Vec<TenantId> = paying
        .payments
        .customers()
        .into_iter()
        .map(|(_, tenant)| tenant)
        .collect();
    assert!(!left.contains(&before) && !left.contains(&never), "{left:?}");
    assert_eq!(left.len(), 2);
    assert_eq!(
        paying
            .world
            .app
            .ports
            .customers
            .left_behind(BECAUSE, None, 10)
            .await
            .unwrap(),
        []
    );
}

// ---------------------------------------------------------------------------------------------------------------- dunning

#[actix_web::test]
async fn who_does_not_pay_becomes_read_only_after_grace_and_paying_lifts_that() {
    let paying = Paying::settled().await;
    let (world, acme) = (&paying.world, &paying.world.acme);
    let globex = world.digest(&world.globex).await;
    let subscription = paying.subscription(acme.id).await;
    let invoice = paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    assert_eq!(paying.dashboard().await["payment"]["state"], "grace");
    assert_eq!(paying.tenant(acme.id).await.status, TenantStatus::Active);

    paying.pass(6).await;
    assert_eq!(
        paying.tenant(acme.id).await.status,
        TenantStatus::Active,
        "grace is seven days"
    );
    paying.pass(2).await;
    let tenant = paying.tenant(acme.id).await;
    assert!(tenant.status == TenantStatus::Suspended && tenant.suspended_for_payment);
    world.get(&acme.admin, "/api/v1/tasks").await.expect(401);
    let login = world
        .login("acme", &acme.admin.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let token = login["access_token"].as_str().unwrap();
    let get = async |path: &str| world.client.get(path).bearer(token).await;
    get("/api/v1/tasks").await.expect(200);
    let write = world
        .client
        .post("/api/v1/projects", &json!({"name": "N"}))
        .bearer(token)
        .await;
    assert_eq!(write.expect(403).json()["code"], "tenant_suspended");
    assert_eq!(
        get(BILLING).await.expect(200).json()["payment"]["state"],
        "suspended"
    );
    let invoices = get("/api/v1/billing/invoices").await.expect(200).json();
    assert_eq!(invoices["data"][0]["status"], "open");
    let portal = world
        .client
        .post("/api/v1/billing/portal", &json!({}))
        .bearer(token)
        .await;
    assert!(
        portal.expect(200).json()["url"]
            .as_str()
            .unwrap()
            .starts_with("https://")
    );

    paying.payments.pay(&invoice);
    paying.tell_all().await;
    assert_eq!(paying.tenant(acme.id).await.status, TenantStatus::Active);
    world
        .client
        .post("/api/v1/projects", &json!({"name": "N"}))
        .bearer(token)
        .await
        .expect(201);
    let invoices = get("/api/v1/billing/invoices").await.expect(200).json();
    assert_eq!(invoices["data"][0]["status"], "paid");
    let told = paying.actions(acme, "billing.notice.").await;
    let steps = ["payment_failed", "suspension_ahead", "suspended", "recovered"];
    assert_eq!(told, steps.map(|step| format!("billing.notice.{step}")));
    let unchanged = |digest: &[(String, String)]| {
        let mut digest = digest.to_vec();
        digest.retain(|(table, _)| table == "tenants" || table == "invoices" || table == "audit_events");
        digest
    };
    assert_eq!(unchanged(&world.digest(&world.globex).await), unchanged(&globex));
}

#[actix_web::test]
async fn nobody_is_suspended_while_the_provider_cannot_be_asked() {
    let paying = Paying::settled().await;
    let acme = &paying.world.acme;
    let subscription = paying.subscription(acme.id).await;
    let invoice = paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    // It is paid, and nobody tells us.
    paying.payments.pay(&invoice);
    paying.world.clock.advance(Duration::days(8));
    paying.work().await;
    assert_eq!(paying.tenant(acme.id).await.status, TenantStatus::Active);
    assert_eq!(
        paying.actions(acme, "billing.notice.").await,
        ["billing.notice.payment_failed", "billing.notice.recovered"]
    );
}

#[actix_web::test]
async fn what_an_operator_suspends_is_not_lifted_by_paying() {
    let paying = Paying::settled().await;
    let (world, acme) = (&paying.world, &paying.world.acme);
    let subscription = paying.subscription(acme.id).await;
    let suspended = async || paying.tenant(acme.id).await.status == TenantStatus::Suspended;
    // First the operator, then dunning.
    lifecycle::suspend(&world.operator_cx(), acme.id, "abuse")
        .await
        .unwrap();
    let invoice = paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    paying.pass(8).await;
    paying.payments.pay(&invoice);
    paying.tell_all().await;
    assert!(suspended().await);
    lifecycle::resume(&world.operator_cx(), acme.id, "settled")
        .await
        .unwrap();
    // First dunning, then the operator.
    let invoice = paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    paying.pass(8).await;
    assert!(paying.tenant(acme.id).await.suspended_for_payment);
    lifecycle::suspend(&world.operator_cx(), acme.id, "abuse")
        .await
        .unwrap();
    paying.payments.pay(&invoice);
    paying.tell_all().await;
    assert!(
        suspended().await,
        "the operator has taken it into their own hands"
    );
}

#[actix_web::test]
async fn who_never_pays_is_deleted_where_the_operator_wants_that() {
    let policy = BillingPolicy {
        delete_after_days: Some(10),
        ..BillingPolicy::default()
    };
    let paying = Paying::with(policy).await;
    paying.work().await;
    let acme = paying.world.acme.id;
    let subscription = paying.subscription(acme).await;
    paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    paying.pass(16).await;
    assert_eq!(paying.tenant(acme).await.status, TenantStatus::Suspended);
    paying.pass(2).await;
    assert_eq!(paying.tenant(acme).await.status, TenantStatus::Deleted);
    paying.pass(1).await;
    let customers = paying.payments.customers();
    assert!(
        customers.iter().all(|(_, tenant)| *tenant != acme),
        "{customers:?}"
    );
    let told = paying.actions(&paying.world.acme, "billing.notice.").await;
    assert_eq!(told.last().unwrap(), "billing.notice.deleted");
    assert_eq!(told[3], "billing.notice.deletion_ahead");
}

#[actix_web::test]
async fn an_operator_sees_the_timetable_before_it_happens() {
    let paying = Paying::new().await;
    let token = paying.world.operator("olga@example.com").await;
    let post = async |body: Value| {
        let request = paying.world.client.post("/api/v1/admin/dunning/simulate", &body);
        request.bearer(&token).await
    };
    let body = json!({"plan": "enterprise", "failed_at": "2026-03-01T00:00:00Z"});
    let steps = post(body).await.expect(200).json();
    assert_eq!(steps["grace_days"], 14);
    assert_eq!(
        steps["steps"],
        json!([
            {"at": "2026-03-01T00:00:00Z", "step": "payment_failed"},
            {"at": "2026-03-12T00:00:00Z", "step": "suspension_ahead"},
            {"at": "2026-03-15T00:00:00Z", "step": "suspended"},
        ])
    );
    post(json!({"plan": "none", "failed_at": "2026-03-01T00:00:00Z"}))
        .await
        .expect(422);
    let backwards =
        json!({"plan": "pro", "failed_at": "2026-03-01T00:00:00Z", "paid_at": "2026-02-01T00:00:00Z"});
    post(backwards).await.expect(422);
}

// --------------------------------------------------------------------------------------------------------------- webhooks

#[actix_web::test]
async fn a_message_is_kept_once_and_a_forged_one_not_at_all() {
    let paying = Paying::settled().await;
    paying.tell_all().await;
    let events = &paying.world.app.ports.provider_events;
    let kept = async || events.list(BECAUSE, None, 10).await.unwrap().len();
    assert_eq!(kept().await, 2);
    let event = paying.payments.events().remove(0);
    for _ in 0..3 {
        paying.tell(&event).await.expect(200);
    }
    assert_eq!(kept().await, 2);
    let client = &paying.world.client;
    let body = json!({"id": "evt_forged", "kind": "invoice.paid", "at": "2026-01-15T12:00:00Z"});
    let forged = client
        .post("/webhooks/stripe", &body)
        .header("Stripe-Signature", "forged")
        .await;
    assert_eq!(forged.expect(400).json()["code"], "webhook_signature_invalid");
    let unsigned = client.post("/webhooks/stripe", &body).await;
    assert_eq!(unsigned.expect(400).json()["code"], "webhook_signature_invalid");
    let signed = client
        .post("/webhooks/stripe", &json!([]))
        .header("Stripe-Signature", SIGNATURE)
        .await;
    signed.expect(400);
    assert_eq!(kept().await, 2);
}

#[actix_web::test]
async fn what_nothing_depends_on_is_taken_and_ignored() {
    let paying = Paying::settled().await;
    let mut event = paying.payments.events().remove(0);
    event.id = tenantry_domain::billing::EventRef::parse("evt_odd").unwrap();
    event.kind = "radar.early_fraud_warning.created".into();
    paying.tell(&event).await.expect(200);
    assert_eq!(paying.event("evt_odd").await.0, EventState::Ignored);
}

#[actix_web::test]
async fn an_event_of_a_customer_that_nobody_knows_is_hoped_for_and_then_ignored() {
    let paying = Paying::settled().await;
    paying.tell_all().await;
    let mut event = paying.payments.events().remove(0);
    event.id = tenantry_domain::billing::EventRef::parse("evt_stranger").unwrap();
    event.customer = CustomerRef::parse("cus_stranger");
    let before = (
        paying.world.digest(&paying.world.acme).await,
        paying.world.digest(&paying.world.globex).await,
    );
    paying.tell(&event).await.expect(200);
    paying.work().await;
    let (state, reason) = paying.event("evt_stranger").await;
    assert_eq!(state, EventState::Pending);
    assert!(reason.unwrap().contains("cus_stranger"));
    for _ in 0..8 {
        paying.world.clock.advance(Duration::minutes(15));
        paying.work().await;
    }
    let (state, reason) = paying.event("evt_stranger").await;
    assert_eq!(state, EventState::Ignored);
    assert_eq!(reason.unwrap(), "no tenant is cus_stranger");
    let token = paying.world.operator("olga@example.com").await;
    let path = "/api/v1/admin/billing/events?state=ignored";
    let seen = paying
        .world
        .client
        .get(path)
        .bearer(&token)
        .await
        .expect(200)
        .json();
    assert_eq!(seen["data"][0]["id"], "evt_stranger");
    // Whoever's turn it is to be looked after in the meantime has what it stores recorded.
    let kept = |table: &str| {
        !["jobs", "audit_blocks", "audit_heads", "security_detections"].contains(&table)
            && !table.starts_with("usage_")
    };
    let jobless = |digest: Vec<(String, String)>| -> Vec<_> {
        digest.into_iter().filter(|(table, _)| kept(table)).collect()
    };
    assert_eq!(
        jobless(paying.world.digest(&paying.world.acme).await),
        jobless(before.0)
    );
    assert_eq!(
        jobless(paying.world.digest(&paying.world.globex).await),
        jobless(before.1)
    );
}

#[actix_web::test]
async fn an_event_that_is_faster_than_our_own_commit_is_acted_on_later() {
    let paying = Paying::new().await;
    let acme = paying.world.acme.id;
    // The provider has the customer, and we do not know it yet.
    let new = tenantry_domain::billing::NewCustomer {
        tenant: acme,
        name: "Acme".into(),
        email: None,
    };
    let key = tenantry_domain::billing::ProviderKey::digest(&[&"test"]);
    let customer = paying.payments.create_customer(&key, &new).await.unwrap();
    let mut event = ProviderEvent {
        id: tenantry_domain::billing::EventRef::parse("evt_early").unwrap(),
        kind: "customer.subscription.created".into(),
        created_at: tenantry_domain::kernel::Clock::now(paying.world.clock.as_ref()),
        object: None,
        object_id: None,
        customer: Some(customer.clone()),
        subscription: None,
    };
    event.object = Some("subscription".into());
    paying.tell(&event).await.expect(200);
    paying.work().await;
    for _ in 0..4 {
        paying.world.clock.advance(Duration::minutes(15));
        paying.work().await;
    }
    assert_eq!(paying.event("evt_early").await.0, EventState::Done);
    assert_eq!(
        paying.account(acme).await.customer,
        Some(customer),
        "the one that was there"
    );
}

#[actix_web::test]
async fn events_that_were_never_told_are_fetched() {
    let paying = Paying::settled().await;
    let acme = paying.world.acme.id;
    paying.tell_all().await;
    let subscription = paying.subscription(acme).await;
    paying.world.clock.advance(Duration::hours(5));
    paying.payments.change(&subscription, |one| one.seats = 7);
    assert_eq!(
        provider_event::fetch_missed(&paying.world.app, BECAUSE)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        provider_event::fetch_missed(&paying.world.app, BECAUSE)
            .await
            .unwrap(),
        0
    );
    paying.work().await;
    assert_eq!(paying.account(acme).await.subscription.unwrap().seats, 7);
}

#[actix_web::test]
async fn two_servers_that_act_on_the_same_events_come_to_the_same() {
    let paying = Paying::settled().await;
    let acme = paying.world.acme.id;
    let subscription = paying.subscription(acme).await;
    let invoice = paying.payments.fail_payment(&subscription);
    paying.payments.pay(&invoice);
    for event in paying.payments.events() {
        paying.tell(&event).await.expect(200);
    }
    let server = || worker(&paying.world, Handlers::standard().with_usage().with_billing());
    let servers = [server(), server(), server()];
    join_all(servers.iter().map(Worker::run_once)).await;
    // And once more without a lease in between: the handlers themselves, all at once.
    let cx = paying.cx(acme).await;
    let provider = paying.payments.clone();
    let syncs = (0..8).map(|_| tenantry_billing::billing::billing_sync::sync(&cx, provider.as_ref()));
    for done in join_all(syncs).await {
        done.unwrap();
    }
    paying.work().await;
    let account = paying.account(acme).await;
    assert_eq!(account.subscription.unwrap().status, SubscriptionStatus::Active);
    assert_eq!(account.dunning, tenantry_domain::billing::Dunning::HEALTHY);
    let invoices = invoices(&paying, acme).await;
    assert_eq!(invoices.len(), 1);
}

async fn invoices(paying: &Paying, tenant: TenantId) -> Vec<Invoice> {
    let cx = paying.cx(tenant).await;
    let page = PageRequest {
        limit: 100,
        after: None,
    };
    cx.read(async |work| work.invoices().list(page).await)
        .await
        .unwrap()
        .items
}

/// What a history came to, but for ids and the microseconds that two tenants are apart.
async fn outcome(paying: &Paying, tenant: TenantId) -> Value {
    let account = paying.account(tenant).await;
    let subscription = account.subscription.unwrap();
    let second = |at: Option<tenantry_domain::kernel::Time>| at.map(|at| at.timestamp());
    let mut invoices: Vec<String> = invoices(paying, tenant)
        .await
        .into_iter()
        .map(|Invoice { mirror, .. }| {
            let at = mirror.created_at.timestamp();
            format!(
                "{at} {:?} {} {} {}",
                mirror.status, mirror.amount_due, mirror.amount_paid, mirror.attempts
            )
        })
        .collect();
    invoices.sort();
    let tenant = paying.tenant(tenant).await;
    json!({
        "subscription": subscription.status.as_str(), "offer": subscription.offer, "seats": subscription.seats,
        "ends": subscription.cancel_at_period_end, "dunning": account.dunning.state, "steps": account.dunning.steps,
        "failed_at": second(account.dunning.failed_at), "next_at": second(account.dunning.next_at),
        "anchor": second(account.cycle_anchor), "invoices": invoices, "plan": tenant.plan,
        "version": tenant.plan_version, "status": tenant.status, "for_payment": tenant.suspended_for_payment,
    })
}

/// A thing that the provider does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    FailPayment,
    Pay,
    Seats(u32),
    Enterprise,
    CancelAtEnd,
    End,
    Days(i64),
}

fn do_deed(
    paying: &Paying,
    subscription: &SubscriptionRef,
    deed: Deed,
    open: &mut Vec<tenantry_domain::billing::InvoiceRef>,
) {
    let payments = &paying.payments;
    match deed {
        Deed::FailPayment => open.push(payments.fail_payment(subscription)),
        Deed::Pay => {
            if let Some(invoice) = open.pop() {
                payments.pay(&invoice);
            }
        }
        Deed::Seats(seats) => {
            payments.change(subscription, |one| one.seats = seats);
        }
        Deed::Enterprise => {
            payments.change(subscription, |one| {
                if let Some(offer) = &mut one.offer {
                    offer.plan = "enterprise".into();
                }
            });
        }
        Deed::CancelAtEnd => {
            payments.change(subscription, |one| one.cancel_at_period_end = true);
        }
        Deed::End => {
            payments.change(subscription, |one| one.status = SubscriptionStatus::Canceled);
        }
        Deed::Days(days) => paying.world.clock.advance(Duration::days(days)),
    }
}

/// Whatever happened, and in whatever order and how often the provider's messages of it arrive: in the end account,
/// invoices and tenant are the same. Both tenants are looked at between the same deeds, because the date of a suspension
/// follows from what was known when the debt was first seen.
#[actix_web::test]
async fn any_order_of_an_event_history_with_duplicates_ends_the_same() {
    let deed = prop_oneof![
        3 => Just(Deed::FailPayment), 3 => Just(Deed::Pay), 1 => (2_u32..9).prop_map(Deed::Seats),
        1 => Just(Deed::Enterprise), 1 => Just(Deed::CancelAtEnd), 1 => Just(Deed::End),
        2 => (1_i64..6).prop_map(Deed::Days),
    ];
    // For each deed whether the worker and some messages come in between, and a shuffled multiset of messages at the end.
    let history = prop::collection::vec((deed, any::<bool>(), any::<u16>()), 1..8);
    let strategy = (history, any::<u64>());
    let mut runner = TestRunner::new(Config {
        cases: 12,
        ..Config::default()
    });
    let mut cases = Vec::new();
    for _ in 0..12 {
        cases.push(strategy.new_tree(&mut runner).unwrap().current());
    }
    let paying = Paying::settled().await;
    for (round, (history, seed)) in cases.into_iter().enumerate() {
        let (straight, _) = paying.sign_up(&format!("straight-{round}"), "pro").await;
        let (shuffled, _) = paying.sign_up(&format!("shuffled-{round}"), "pro").await;
        paying.work().await;
        let ids = [straight, shuffled];
        let mut subscriptions = Vec::new();
        for id in ids {
            subscriptions.push((paying.subscription(id).await, paying.account(id).await.customer));
        }
        let before = paying.payments.events().len();
        let (mut open, mut told) = ([Vec::new(), Vec::new()], 0_u64);
        for (deed, in_between, which) in &history {
            for (index, (subscription, _)) in subscriptions.iter().enumerate() {
                // Time passes once for both.
                if index == 1 && matches!(deed, Deed::Days(_)) {
                    continue;
                }
                do_deed(&paying, subscription, *deed, &mut open[index]);
            }
            if *in_between {
                let events = paying.payments.events().split_off(before);
                for (index, (_, customer)) in subscriptions.iter().enumerate() {
                    let of_one: Vec<_> = events.iter().filter(|one| one.customer == *customer).collect();
                    let Some(latest) = of_one.last() else {
                        continue;
                    };
                    if index == 1 {
                        let any = of_one[usize::from(*which) % of_one.len()];
                        paying.tell(any).await.expect(200);
                    }
                    paying.tell(latest).await.expect(200);
                }
                paying.work().await;
            }
        }
        let events = paying.payments.events().split_off(before);
        let of = |index: usize| {
            let of_one = events
                .iter()
                .filter(|event| event.customer == subscriptions[index].1);
            of_one.cloned().collect::<Vec<_>>()
        };
        for event in of(0) {
            paying.tell(&event).await.expect(200);
            paying.work().await;
        }
        let mut messages = of(1);
        messages.extend(of(1));
        // A shuffle by the seed: sorted by what a simple generator gives for each.
        let mut state = seed | 1;
        messages.sort_by_cached_key(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        });
        for message in &messages {
            paying.tell(message).await.expect(200);
            told += 1;
            if (seed >> (told % 64)) & 1 == 1 {
                paying.work().await;
            }
        }
        paying.work().await;
        let (one, other) = (outcome(&paying, straight).await, outcome(&paying, shuffled).await);
        assert_eq!(one, other, "{history:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------- the API

#[actix_web::test]
async fn without_payments_billing_is_not_available_and_everything_else_is() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    for path in [
        BILLING,
        "/api/v1/billing/invoices",
        "/api/v1/billing/preview?plan=pro",
    ] {
        let reply = world.get(admin, path).await.expect(503).json();
        assert_eq!(reply["code"], "billing_unavailable", "{path}");
        let detail = reply["detail"].as_str().unwrap();
        assert!(
            detail.contains("not set up") && detail.contains("billing.stripe.secret_key"),
            "{detail}"
        );
    }
    for (path, body) in [
        ("/api/v1/billing/checkout", json!({"plan": "pro"})),
        ("/api/v1/billing/portal", json!({})),
        ("/api/v1/billing/subscription", json!({"plan": "pro"})),
        ("/api/v1/billing/subscription/cancel", json!({})),
        ("/api/v1/billing/subscription/resume", json!({})),
    ] {
        let reply = world.post(admin, path, &body).await;
        assert_eq!(reply.expect(503).json()["code"], "billing_unavailable", "{path}");
        world.post(&world.acme.member, path, &body).await.expect(403);
    }
    let told = world
        .client
        .post("/webhooks/stripe", &json!({}))
        .header("Stripe-Signature", "s")
        .await;
    assert_eq!(told.expect(503).json()["code"], "billing_unavailable");
    world.get(admin, "/api/v1/tasks").await.expect(200);
}

#[actix_web::test]
async fn a_change_is_asked_for_once_and_takes_effect_when_the_provider_says_so() {
    let paying = Paying::paid().await;
    let (world, acme) = (&paying.world, &paying.world.acme);
    let path = "/api/v1/billing/subscription";
    let ask =
        |key: &'static str, body: &Value| world.post(&acme.admin, path, body).header("Idempotency-Key", key);
    let body = json!({"plan": "enterprise", "seats": 3});
    let stale = ask("stale", &body).header("If-Match", "\"99\"").await;
    assert_eq!(stale.expect(412).json()["code"], "stale_version");
    let first = ask("one", &body).await.expect(202).json();
    assert_eq!(first["status"], "pending");
    assert_eq!(
        ask("one", &body).await.expect(202).json(),
        first,
        "the first answer"
    );
    let other = ask("two", &json!({"plan": "enterprise", "seats": 4})).await;
    assert_eq!(other.expect(409).json()["code"], "conflict", "one at a time");
    assert_eq!(
        paying.tenant(acme.id).await.plan,
        "pro",
        "not before it is confirmed"
    );
    // The answer of the first call is lost; it is done once.
    paying.payments.fail_next(Failing::After);
    paying.work().await;
    paying.world.clock.advance(Duration::minutes(10));
    paying.work().await;
    assert_eq!(paying.tenant(acme.id).await.plan, "enterprise");
    let seen = paying.account(acme.id).await.subscription.unwrap();
    assert_eq!(seen.seats, 3);
    let again = ask("one", &body).await.expect(202);
    assert_eq!(again.header("Idempotent-Replayed"), Some("true"));
    paying.work().await;
    let changes = paying
        .payments
        .calls()
        .into_iter()
        .filter(|call| call == "change_subscription");
    assert_eq!(changes.count(), 2, "the lost one and its repetition");
    let same = ask("three", &body).await.expect(422).json();
    assert_eq!(same["errors"][0]["code"], "unchanged");
}

#[actix_web::test]
async fn change_during_a_trial_grants_no_plan_without_a_trial() {
    let paying = Paying::settled().await;
    let (id, token) = paying.sign_up("trying", "pro").await;
    paying.work().await;
    let before = paying.account(id).await.subscription.unwrap();
    assert_eq!(before.status, SubscriptionStatus::Trialing);
    let refused = paying
        .ask_change(&token, json!({"plan": "enterprise", "seats": 1000}))
        .await;
    assert_eq!(refused, ("/plan".to_owned(), "no_trial".to_owned()));
    paying.work().await;
    assert_eq!(paying.tenant(id).await.plan, "pro");
    let more = paying
        .world
        .client
        .post(SUBSCRIPTION, &json!({"plan": "pro", "seats": 2}));
    more.bearer(&token).await.expect(202);
}

#[actix_web::test]
async fn change_while_an_invoice_is_open_grants_nothing_more() {
    let paying = Paying::paid().await;
    let acme = &paying.world.acme;
    let token = &acme.admin.access_token;
    let more = paying
        .world
        .client
        .post(SUBSCRIPTION, &json!({"plan": "pro", "seats": 5}));
    more.bearer(token).await.expect(202);
    paying.work().await;
    let invoice = paying.payments.fail_payment(&paying.subscription(acme.id).await);
    paying.tell_all().await;
    let refused = async |body: Value| paying.ask_change(token, body).await;
    let open = |pointer: &str| (pointer.to_owned(), "invoice_open".to_owned());
    assert_eq!(refused(json!({"plan": "enterprise"})).await, open("/plan"));
    assert_eq!(
        refused(json!({"plan": "pro", "interval": "year"})).await,
        open("/plan")
    );
    assert_eq!(refused(json!({"plan": "pro", "seats": 6})).await, open("/seats"));
    let fewer = paying
        .world
        .client
        .post(SUBSCRIPTION, &json!({"plan": "pro", "seats": 4}));
    fewer.bearer(token).await.expect(202);
    paying.work().await;
    paying.payments.pay(&invoice);
    paying.tell_all().await;
    let other = paying
        .world
        .client
        .post(SUBSCRIPTION, &json!({"plan": "enterprise"}));
    other.bearer(token).await.expect(202);
    paying.work().await;
    assert_eq!(paying.tenant(acme.id).await.plan, "enterprise");
}

/// Another server has added the version, and this one has not read it yet.
#[actix_web::test]
async fn version_that_is_paid_for_is_granted_before_it_is_known() {
    let paying = Paying::settled().await;
    let id = paying.world.acme.id;
    let subscription = paying.subscription(id).await;
    paying.payments.change(&subscription, |one| {
        one.offer.as_mut().unwrap().version = 2;
    });
    paying.tell_all().await;
    let tenant = paying.tenant(id).await;
    assert_eq!((tenant.plan.as_str(), tenant.plan_version), ("pro", 2));
}

/// A plan has got dearer since the tenant bought it.
#[actix_web::test]
async fn change_of_seats_keeps_the_version_that_was_bought() {
    let text = include_str!("../../../config/plans.toml");
    let book = |text: &str| Arc::new(PlanBook::new(Plans::parse(text).unwrap()).unwrap());
    let dearer = text.replacen("amount = 2900\n", "amount = 3900\n", 1);
    let (first, second) = (book(text), book(&dearer));
    let options = Options {
        plans: Some(Arc::clone(&first)),
        ..Options::default()
    };
    let paying = Paying::over(options).await;
    let store = store(&paying.world);
    for book in [&first, &second, &first] {
        book.sync(
            &store,
            tenantry_domain::kernel::Clock::now(paying.world.clock.as_ref()),
        )
        .await
        .unwrap();
    }
    paying.work().await;
    let options = Options {
        plans: Some(second),
        payments: Some(Payments(paying.payments.clone())),
        clock: Some(Arc::clone(&paying.world.clock)),
        ..Options::default()
    };
    let client = paying.world.other_instance(&options).await;
    let acme = &paying.world.acme;
    let change = async |body: Value| {
        let request = client.post("/api/v1/billing/subscription", &body);
        request.bearer(&acme.admin.access_token).await.expect(202);
        paying.work().await;
        let subscription = paying.account(acme.id).await.subscription.unwrap();
        (subscription.offer.unwrap().version, subscription.seats)
    };
    assert_eq!(change(json!({"plan": "pro", "seats": 9})).await, (1, 9));
    assert_eq!(
        change(json!({"plan": "pro", "seats": 8, "interval": "month"})).await,
        (1, 8)
    );
    assert_eq!(
        change(json!({"plan": "pro"})).await,
        (2, 8),
        "as it is on offer now"
    );
    assert_eq!(paying.tenant(acme.id).await.plan_version, 2);
}

#[actix_web::test]
async fn a_subscription_ends_with_its_period_or_goes_on_and_a_refusal_is_shown() {
    let paying = Paying::paid().await;
    let (world, acme) = (&paying.world, &paying.world.acme);
    let post = async |path: &str, body: Value| world.post(&acme.admin, path, &body).await;
    post("/api/v1/billing/subscription/cancel", json!({}))
        .await
        .expect(202);
    paying.work().await;
    assert_eq!(
        paying.dashboard().await["subscription"]["cancel_at_period_end"],
        true
    );
    post("/api/v1/billing/subscription/resume", json!({}))
        .await
        .expect(202);
    paying.work().await;
    assert_eq!(
        paying.dashboard().await["subscription"]["cancel_at_period_end"],
        false
    );
    paying
        .payments
        .fail_next(Failing::Before(ProviderError::Refused("card declined".into())));
    post("/api/v1/billing/subscription", json!({"plan": "enterprise"}))
        .await
        .expect(202);
    paying.work().await;
    let shown = paying.dashboard().await;
    assert_eq!(shown["plan"]["name"], "pro");
    assert!(
        shown["payment"]["refusal"]
            .as_str()
            .unwrap()
            .contains("card declined")
    );
    let refused = post("/api/v1/billing/checkout", json!({"plan": "pro"})).await;
    assert_eq!(
        refused.expect(409).json()["code"],
        "conflict",
        "there is a subscription"
    );
    // Once it is over there is nothing to change, and a checkout begins another.
    let subscription = paying.subscription(acme.id).await;
    paying
        .payments
        .change(&subscription, |one| one.status = SubscriptionStatus::Canceled);
    paying.tell_all().await;
    assert_eq!(paying.tenant(acme.id).await.plan, "free");
    let none = post("/api/v1/billing/subscription", json!({"plan": "pro"})).await;
    assert_eq!(none.expect(409).json()["code"], "no_subscription");
    let link = post("/api/v1/billing/checkout", json!({"plan": "pro", "seats": 3}))
        .await
        .expect(200)
        .json();
    let same = post("/api/v1/billing/checkout", json!({"plan": "pro", "seats": 3}))
        .await
        .expect(200)
        .json();
    assert_eq!(link["url"], same["url"]);
    for body in [
        json!({"plan": "none"}),
        json!({"plan": "free"}),
        json!({"plan": "pro", "seats": 0}),
        json!({"plan": "pro", "seats": 100_001}),
        json!({"plan": "pro", "currency": "eur"}),
        json!({"plan": "pro", "currency": "EUR"}),
        json!({"plan": "pro", "interval": "week"}),
        json!({"plan": "pro", "price": 1}),
    ] {
        post("/api/v1/billing/checkout", body).await.expect(422);
    }
}

#[actix_web::test]
async fn a_preview_says_what_would_be_lost_and_what_there_would_be_too_much_of() {
    let paying = Paying::settled().await;
    let admin = &paying.world.acme.admin;
    for name in ["A", "B", "C", "D"] {
        let body = json!({"name": name});
        paying
            .world
            .post(admin, "/api/v1/projects", &body)
            .await
            .expect(201);
    }
    let get = async |path: &str| paying.world.get(admin, path).await;
    get("/api/v1/billing/preview?plan=free").await.expect(422);
    // A plan without a trial is bought with a checkout while the trial lasts, so nothing is prorated.
    let preview = get("/api/v1/billing/preview?plan=enterprise&interval=year&seats=4")
        .await
        .expect(200)
        .json();
    assert_eq!(preview["proration"], Value::Null);
    let preview = get("/api/v1/billing/preview?plan=pro&interval=year&seats=4")
        .await
        .expect(200)
        .json();
    assert_eq!(preview["features_gained"], json!([]));
    assert_eq!(preview["features_lost"], json!([]));
    assert_eq!(preview["proration"]["amount_due"], 1_700);
    assert_eq!(
        (&preview["interval"], &preview["seats"]),
        (&json!("year"), &json!(4))
    );
    get("/api/v1/billing/preview?plan=pro&seats=x").await.expect(422);
    get("/api/v1/billing/preview").await.expect(422);
}

// ------------------------------------------------------------------------------------------------------------------ usage

#[actix_web::test]
async fn usage_is_told_hour_by_hour_once_and_corrected_while_that_is_possible() {
    let paying = Paying::settled().await;
    let acme = paying.world.acme.id;
    let now = || tenantry_domain::kernel::Clock::now(paying.world.clock.as_ref());
    let cx = paying.cx(acme).await;
    let drift = async || meter_report::drift(&cx, None).await.unwrap().remove(0);
    let begin = now();
    paying.used(acme, "api_calls", begin, 90).await;
    let mistaken = paying.used(acme, "api_calls", begin, 10).await;
    paying.used(acme, "storage_bytes", begin, 1_000).await;
    let globex = paying.world.globex.id;
    paying.used(globex, "api_calls", begin, 7).await;
    paying.world.clock.advance(Duration::hours(2));
    // The answer of the first is lost: it is told again under the same name.
    paying.payments.fail_next(Failing::After);
    meter_report::publish(&cx).await.unwrap_err();
    let published = meter_report::publish(&cx).await.unwrap();
    assert_eq!((published.made, published.sent), (0, 1));
    assert_eq!(
        meter_report::publish(&cx).await.unwrap(),
        meter_report::Published::default()
    );
    let told = paying.payments.usage();
    assert_eq!(
        told.len(),
        1,
        "of meters that the plan charges for, and of this tenant"
    );
    assert_eq!(told[0].quantity, 100);
    // An hour in which a period ends is billed with the next one, whose invoice is still to come.
    let last = tenantry_domain::kernel::Period::hour_of(begin).end - Duration::seconds(1);
    assert_eq!(told[0].at, last);
    assert_eq!(drift().await.difference(), 0);

    // Corrected within a day: taken back and told anew.
    paying.world.outlive_the_cache();
    let email = &paying.world.acme.admin.email;
    take_back(&paying.world, "acme", email, mistaken).await;
    roll_up(&paying.world.app, acme).await;
    meter_report::publish(&cx).await.unwrap();
    let told: Vec<u64> = paying
        .payments
        .usage()
        .iter()
        .map(|report| report.quantity)
        .collect();
    assert_eq!(told, [90]);
    // Later it is too late, and the difference has a reason.
    paying.world.clock.advance(Duration::days(2));
    paying.used(acme, "api_calls", begin, 5).await;
    let at = now() - Duration::hours(3);
    paying.used(acme, "api_calls", at, 11).await;
    let seen = drift().await;
    assert_eq!((seen.difference(), seen.untold, seen.unexplained()), (16, 16, 0));
    meter_report::publish(&cx).await.unwrap();
    let seen = drift().await;
    assert_eq!(
        (seen.ours, seen.theirs, seen.late, seen.unexplained()),
        (106, 101, 5, 0)
    );

    // What is told after five weeks is not taken any more, and stays in sight.
    let at = begin + Duration::hours(1);
    paying.used(acme, "api_calls", at, 3).await;
    paying.world.clock.advance(Duration::days(40));
    let published = meter_report::publish(&cx).await.unwrap();
    assert_eq!((published.made, published.dead), (1, 1));
    let token = paying.world.operator("olga@example.com").await;
    let get = async |path: &str| {
        paying
            .world
            .client
            .get(path)
            .bearer(&token)
            .await
            .expect(200)
            .json()
    };
    let dead = get("/api/v1/admin/billing/dead-letters").await;
    assert_eq!(dead["data"][0]["quantity"], 3);
    assert_eq!(dead["data"][0]["tenant_id"], json!(acme));
    let period = format!(
        "from={}&to={}",
        rfc(begin - Duration::hours(1)),
        rfc(begin + Duration::days(30))
    );
    let report = get(&format!("/api/v1/admin/billing/drift?tenant={acme}&{period}")).await;
    let row = &report["data"][0];
    assert_eq!(
        (&row["difference"], &row["dead"], &row["late"]),
        (&json!(8), &json!(3), &json!(5))
    );
    assert_eq!(row["unexplained"], 0);
    assert_eq!(
        get("/api/v1/admin/billing/drift?limit=1").await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

fn rfc(at: tenantry_domain::kernel::Time) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[actix_web::test]
async fn the_worker_tells_usage_every_hour_of_every_customer() {
    let paying = Paying::settled().await;
    let now = tenantry_domain::kernel::Clock::now(paying.world.clock.as_ref());
    for tenant in [&paying.world.acme, &paying.world.globex] {
        paying.used(tenant.id, "api_calls", now, 5).await;
    }
    paying.world.clock.advance(Duration::hours(2));
    paying.work().await;
    let told = paying.payments.usage();
    assert_eq!(told.len(), 2);
    assert_ne!(told[0].customer, told[1].customer);
    assert_ne!(told[0].identifier, told[1].identifier);
}

#[actix_web::test]
async fn the_dashboard_counts_projects_and_says_what_it_will_cost() {
    let paying = Paying::settled().await;
    let acme = paying.world.acme.id;
    let subscription = paying.subscription(acme).await;
    let begin = tenantry_domain::kernel::Clock::now(paying.world.clock.as_ref());
    paying.payments.change(&subscription, |one| {
        one.status = SubscriptionStatus::Active;
        one.trial_ends_at = None;
        one.seats = 2;
    });
    for day in 0..10 {
        let at = begin + Duration::days(day);
        // In two hours of the day, which its total adds up.
        paying.used(acme, "api_calls", at, 60_000).await;
        paying
            .used(acme, "api_calls", at + Duration::hours(2), 40_000)
            .await;
    }
    paying.world.clock.advance(Duration::days(10));
    paying.tell_all().await;
    let login = paying
        .world
        .login("acme", &paying.world.acme.admin.email, PASSWORD)
        .await
        .expect(200)
        .json();
    let request = paying
        .world
        .client
        .get(BILLING)
        .bearer(login["access_token"].as_str().unwrap());
    let dashboard = request.await.expect(200).json();
    let calls = &dashboard["meters"][1];
    assert_eq!(calls["meter"], "api_calls");
    assert_eq!(
        (&calls["used"], &calls["included"]),
        (&json!(1_000_000), &json!(1_000_000))
    );
    assert_eq!((&calls["overage"], &calls["limit"]), (&json!(0), &Value::Null));
    // The 31 days of the month from the 15th: 21 are left, and the nine whole days that are over had 100,000 each.
    let likely = calls["projected"]["likely"].as_u64().unwrap();
    assert!((3_090_000..=3_110_000).contains(&likely), "{calls}");
    assert_eq!(calls["projected_overage"], likely - 1_000_000);
    let costs = &dashboard["costs"];
    assert_eq!(
        costs[0],
        json!({"meter": null, "currency": "usd", "now": 5_800, "low": 5_800, "likely": 5_800, "high": 5_800})
    );
    assert_eq!(costs[1]["meter"], "api_calls");
    assert_eq!(
        (&costs[1]["now"], &costs[1]["likely"]),
        (&json!(0), &json!((likely - 1_000_000).div_ceil(10_000) * 100))
    );
}
