//! One subscription, one customer, and as many users as there are seats: over the wire, with a stand-in for Stripe.

use actix_web::http::Method;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_billing::BillingHandlers as _;
use tenantry_billing::billing::billing_oversight::{self, DriftLine, Sweep};
use tenantry_domain::billing::{
    CustomerRef, Dunning, NewCheckout, NewSubscription, Offer, ProviderKey, SubscriptionStatus,
};
use tenantry_domain::kernel::{Clock as _, SystemScope, TenantId};
use tenantry_domain::plans::PlanTerms;
use tenantry_stripe_fake::{Card, Delivery, Failure, Matcher};
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tenancy::operations::worker::Worker;
use tenantry_tests::{PASSWORD, Reply};

use crate::billing_stripe::{Shop, WrongKey};
use crate::jobs::worker;

const BECAUSE: SystemScope = SystemScope::because("a test of checkouts");
pub(crate) const CHECKOUT: &str = "/api/v1/billing/checkout";
pub(crate) const SUBSCRIPTION: &str = "/api/v1/billing/subscription";

/// What the admin of a tenant is answered.
pub(crate) async fn asked(shop: &Shop, slug: &str, method: Method, path: &str, body: &Value) -> Reply {
    let login = shop
        .world
        .login(slug, &format!("a@{slug}.example"), PASSWORD)
        .await;
    let login = login.expect(200).json();
    let token = login["access_token"].as_str().unwrap();
    let request = shop.world.client.request(method, path).json(body);
    request.bearer(token).await
}

pub(crate) async fn posted(shop: &Shop, slug: &str, path: &str, body: &Value) -> Reply {
    asked(shop, slug, Method::POST, path, body).await
}

pub(crate) async fn page(shop: &Shop, slug: &str, wish: Value) -> String {
    let link = posted(shop, slug, CHECKOUT, &wish).await.expect(200).json();
    link["url"].as_str().unwrap().to_owned()
}

pub(crate) fn session(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

pub(crate) async fn actions(shop: &Shop, tenant: TenantId, prefix: &str) -> Vec<String> {
    let sql =
        "SELECT action FROM audit_events WHERE tenant_id = $1 AND action LIKE $2 ORDER BY created_at, id";
    let found = sqlx::query_scalar(sql)
        .bind(tenant.uuid())
        .bind(format!("{prefix}%"));
    found
        .fetch_all(&mut shop.world.database.admin().await)
        .await
        .unwrap()
}

pub(crate) fn live(shop: &Shop, customer: &str) -> Vec<Value> {
    let all = shop.subscriptions_of(customer).into_iter();
    all.filter(|one| one["status"] == "active" || one["status"] == "trialing")
        .collect()
}

// ----------------------------------------------------------------------------------------------------- one subscription

#[actix_web::test]
async fn one_checkout_is_open_and_the_earlier_one_is_closed() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let first = page(&shop, "initech", json!({"plan": "enterprise", "seats": 1})).await;
    let again = page(&shop, "initech", json!({"plan": "enterprise"})).await;
    assert_eq!(first, again, "it asks for the same");
    let second = page(&shop, "initech", json!({"plan": "enterprise", "seats": 3})).await;
    assert_ne!(first, second);
    assert!(
        shop.fake.complete_checkout(session(&first)).is_none(),
        "it is closed"
    );
    shop.fake.complete_checkout(session(&second)).unwrap();
    // The message of it is still under way: Stripe is asked before there is another page.
    let more = json!({"plan": "pro"});
    posted(&shop, "initech", CHECKOUT, &more)
        .await
        .problem(409, "conflict");
    shop.work().await;
    posted(&shop, "initech", CHECKOUT, &more)
        .await
        .problem(409, "conflict");
    let subscription = shop.account(id).await.subscription.unwrap();
    assert_eq!(
        (subscription.status, subscription.seats),
        (SubscriptionStatus::Active, 3)
    );
    shop.close().await;
}

#[actix_web::test]
async fn checkouts_begun_at_once_leave_one_open() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let wishes = [1, 2, 3, 4].map(|seats| json!({"plan": "enterprise", "seats": seats}));
    let replies = join_all(wishes.iter().map(|wish| posted(&shop, "initech", CHECKOUT, wish))).await;
    for reply in &replies {
        assert!(matches!(reply.status, 200 | 409), "{}", reply.text());
    }
    let customer = CustomerRef::parse(&shop.customer(id).await).unwrap();
    let payments = shop.world.app.ports.payments.clone().unwrap();
    assert_eq!(payments.open_checkouts(&customer).await.unwrap().len(), 1);
    shop.close().await;
}

#[actix_web::test]
async fn paid_plan_without_a_trial_takes_the_place_of_a_trial() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    let wish = json!({"plan": "enterprise", "seats": 2});
    let refused = posted(&shop, "initech", SUBSCRIPTION, &wish)
        .await
        .expect(422)
        .json();
    let detail = refused["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("POST /api/v1/billing/checkout"), "{refused}");
    let path = "/api/v1/billing/preview?plan=enterprise&seats=2";
    let preview = asked(&shop, "initech", Method::GET, path, &json!({})).await;
    assert_eq!(preview.expect(200).json()["proration"], Value::Null);
    // The plan that is tried is changed, not bought.
    posted(&shop, "initech", CHECKOUT, &json!({"plan": "pro"}))
        .await
        .problem(409, "conflict");
    let url = page(&shop, "initech", wish.clone()).await;
    shop.work().await;
    assert_eq!(shop.plan(id).await, "pro", "it is not paid yet");
    assert_eq!(live(&shop, &customer)[0]["status"], "trialing");

    shop.fake.complete_checkout(session(&url)).unwrap();
    let worker = worker(&shop.world, Handlers::standard().with_billing());
    for _ in 0..20 {
        shop.fake.settled().await;
        let is_done = worker.run_once().await.unwrap().is_empty();
        assert_ne!(shop.plan(id).await, "free", "there is no gap");
        if is_done {
            break;
        }
    }
    assert_eq!(shop.plan(id).await, "enterprise");
    let left = live(&shop, &customer);
    assert_eq!((left.len(), &left[0]["status"]), (1, &json!("active")));
    let account = shop.account(id).await;
    assert_eq!(
        (account.paid_seats(), account.dunning),
        (Some(2), Dunning::HEALTHY)
    );
    for _ in 0..16 {
        shop.pass(24).await;
    }
    let mut charged = shop.fake.invoices();
    charged.retain(|one| one["customer"] == customer.as_str() && one["total"] != 0);
    assert_eq!(charged.len(), 1, "the trial is never charged: {charged:?}");
    shop.close().await;
}

#[actix_web::test]
async fn checkout_beside_a_trial_cannot_outlast_it() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let end = shop
        .account(id)
        .await
        .subscription
        .unwrap()
        .trial_ends_at
        .unwrap();
    shop.wait(end - chrono::Duration::hours(25) - shop.world.clock.now())
        .await;
    let wish = json!({"plan": "enterprise"});
    let refused = posted(&shop, "initech", CHECKOUT, &wish).await.expect(422).json();
    assert_eq!(refused["errors"][0]["code"], "no_trial", "{refused}");
    // The trial has no card: it ends, and the plan is bought.
    shop.pass(27).await;
    assert_eq!(shop.plan(id).await, "free");
    shop.check_out("initech", &wish).await;
    assert_eq!(shop.plan(id).await, "enterprise");
    shop.close().await;
}

/// A subscription of one seat, without a trial, to the first price of a plan.
pub(crate) fn new_subscription(shop: &Shop, tenant: TenantId, customer: &str, plan: &str) -> NewSubscription {
    let terms = shop.world.app.ports.plans.current(plan).unwrap();
    subscription_to(&terms, tenant, customer)
}

/// [`new_subscription`] to these terms.
pub(crate) fn subscription_to(terms: &PlanTerms, tenant: TenantId, customer: &str) -> NewSubscription {
    let price = &terms.prices[0];
    NewSubscription {
        customer: CustomerRef::parse(customer).unwrap(),
        tenant,
        offer: Offer {
            plan: terms.name.clone(),
            version: terms.version,
            currency: price.currency.clone(),
            interval: price.interval,
        },
        seats: 1,
        trial_days: 0,
        automatic_tax: false,
    }
}

/// Pays on two pages that are open side by side, as before there was one only, or as with a page of the dashboard's.
async fn subscribe_twice(shop: &Shop, tenant: TenantId) -> String {
    let customer = shop.customer(tenant).await;
    let payments = shop.world.app.ports.payments.clone().unwrap();
    let mut pages = Vec::new();
    for seats in [2, 5] {
        let new = NewCheckout {
            subscription: NewSubscription {
                seats,
                ..new_subscription(shop, tenant, &customer, "enterprise")
            },
            terms: ProviderKey::parse("terms").unwrap(),
            success_url: "https://a.example/".into(),
            cancel_url: "https://a.example/".into(),
        };
        let key = ProviderKey::parse(&format!("page-{tenant}-{seats}")).unwrap();
        pages.push(payments.checkout(&key, &new).await.unwrap());
    }
    for page in pages {
        shop.fake.complete_checkout(page.id.as_str()).unwrap();
    }
    customer
}

#[actix_web::test]
async fn surplus_subscription_is_ended_credited_and_reported() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    let other = shop.sign_up("globodyne", "pro").await;
    shop.work().await;
    let customer = subscribe_twice(&shop, id).await;
    assert_eq!(live(&shop, &customer).len(), 2);
    // The report has a line for it while it lasts.
    let operator = shop.world.operator("op@tenantry.example").await;
    let drift = async || {
        let request = shop.world.client.get("/api/v1/admin/billing/drift?limit=100");
        request.bearer(&operator).await.expect(200).json()
    };
    let report = drift().await;
    assert_eq!(report["surplus"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["surplus"][0]["tenant_id"], id.to_string());
    // Two servers hear of both in the same moment.
    shop.fake.settled().await;
    let servers = [0, 1].map(|_| worker(&shop.world, Handlers::standard().with_usage().with_billing()));
    join_all(servers.iter().map(Worker::run_once)).await;
    shop.work().await;

    let kept = live(&shop, &customer);
    assert_eq!(kept.len(), 1);
    assert_eq!(report["surplus"][0]["kept"], kept[0]["id"]);
    assert_eq!(kept[0]["items"]["data"][0]["quantity"], 5, "the newest");
    let account = shop.account(id).await.subscription.unwrap();
    assert_eq!(
        (account.id.as_str(), account.seats),
        (kept[0]["id"].as_str().unwrap(), 5)
    );
    assert_eq!(shop.plan(id).await, "enterprise");
    let credited = shop.fake.customers();
    let credited = credited
        .iter()
        .find(|one| one["id"] == customer.as_str())
        .unwrap();
    assert!(credited["balance"].as_i64().unwrap() < 0, "{credited}");
    assert_eq!(
        actions(&shop, id, "billing.surplus").await,
        ["billing.surplus_found", "billing.surplus_ended"]
    );
    assert_eq!(drift().await["surplus"], json!([]));
    // The neighbor's only subscription is none too many.
    assert_eq!(actions(&shop, other, "billing.surplus").await, [""; 0]);
    assert_eq!(live(&shop, &shop.customer(other).await).len(), 1);
    shop.close().await;
}

#[actix_web::test]
async fn surplus_is_ended_once_although_answers_are_lost() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let lost = Matcher::path("/v1/subscriptions/").method("DELETE");
    shop.fake.fail_next(lost, Failure::TimeoutAfterEffect);
    let customer = subscribe_twice(&shop, id).await;
    shop.work().await;
    for _ in 0..3 {
        shop.pass(1).await;
    }
    assert_eq!(live(&shop, &customer).len(), 1);
    let deleted = shop
        .fake
        .calls()
        .into_iter()
        .filter(|call| call.method == "DELETE");
    let ended = deleted.filter(|call| call.path.starts_with("/v1/subscriptions/") && !call.replayed);
    assert_eq!(ended.count(), 1);
    assert_eq!(
        actions(&shop, id, "billing.surplus").await,
        ["billing.surplus_found", "billing.surplus_ended"]
    );
    shop.close().await;
}

/// Works until the surplus is found; the job that ends it has not run yet.
async fn find_surplus(shop: &Shop, tenant: TenantId) {
    let worker = worker(&shop.world, Handlers::standard().with_usage().with_billing());
    for _ in 0..20 {
        shop.fake.settled().await;
        worker.run_once().await.unwrap();
        if !actions(shop, tenant, "billing.surplus").await.is_empty() {
            break;
        }
    }
    let found = actions(shop, tenant, "billing.surplus").await;
    assert_eq!(found, ["billing.surplus_found"]);
}

/// Who has ended surplus subscriptions of a tenant, by its audit log.
async fn ended_by(shop: &Shop, tenant: TenantId) -> Vec<Option<String>> {
    let sql = "SELECT after->>'ended_by' FROM audit_events WHERE tenant_id = $1 AND action = 'billing.surplus_ended'";
    sqlx::query_scalar(sql)
        .bind(tenant.uuid())
        .fetch_all(&mut shop.world.database.admin().await)
        .await
        .unwrap()
}

#[actix_web::test]
async fn end_of_surplus_is_recorded_once_although_syncs_fail() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let customer = subscribe_twice(&shop, id).await;
    find_surplus(&shop, id).await;
    // Subscriptions can be read and ended; a sync reads invoices, too.
    let invoices = Matcher::path("/v1/invoices").method("GET");
    shop.fake.fail(invoices, Failure::ServerError, 40);
    for _ in 0..12 {
        shop.pass(1).await;
    }
    assert_eq!(live(&shop, &customer).len(), 1);
    assert_eq!(ended_by(&shop, id).await, [Some("server".to_owned())]);
    for _ in 0..24 {
        shop.pass(1).await;
    }
    assert_eq!(ended_by(&shop, id).await, [Some("server".to_owned())]);
    assert_eq!(shop.plan(id).await, "enterprise");
    shop.close().await;
}

#[actix_web::test]
async fn surplus_that_the_customer_ended_is_not_claimed() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let customer = subscribe_twice(&shop, id).await;
    find_surplus(&shop, id).await;
    let kept = shop.account(id).await.subscription.unwrap().id;
    let both = live(&shop, &customer);
    let surplus = both.iter().find(|one| one["id"] != kept.as_str()).unwrap();
    let path = format!("/v1/subscriptions/{}", surplus["id"].as_str().unwrap());
    shop.fake.dashboard("DELETE", &path, "").unwrap();
    shop.work().await;
    assert_eq!(live(&shop, &customer).len(), 1);
    assert_eq!(ended_by(&shop, id).await, [Some("unknown".to_owned())]);
    shop.close().await;
}

// ----------------------------------------------------------------------------------------------------------- customers

#[actix_web::test]
async fn deleted_customer_is_replaced_and_the_tenant_can_pay() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let former = shop.customer(id).await;
    let old_page = page(&shop, "initech", json!({"plan": "enterprise"})).await;
    assert!(shop.fake.delete_customer(&former));
    shop.work().await;
    let new_page = page(&shop, "initech", json!({"plan": "enterprise"})).await;
    assert_ne!(old_page, new_page, "nobody can pay on the old one");
    shop.fake.complete_checkout(session(&new_page)).unwrap();
    shop.work().await;
    assert_eq!(shop.plan(id).await, "enterprise");
    posted(&shop, "initech", "/api/v1/billing/portal", &json!({}))
        .await
        .expect(200);
    let customer = shop.customer(id).await;
    assert_eq!(shop.customers_of(id), std::slice::from_ref(&customer));
    let known = shop
        .world
        .app
        .ports
        .customers
        .known(BECAUSE, id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(known.customer.unwrap().as_str(), customer);
    assert_eq!(
        known.former.iter().map(CustomerRef::as_str).collect::<Vec<_>>(),
        [former.as_str()]
    );
    assert_eq!(actions(&shop, id, "billing.customer_replaced").await.len(), 1);
    // What is told late of the former customer still finds the tenant.
    let former = CustomerRef::parse(&former).unwrap();
    let of = shop
        .world
        .app
        .ports
        .customers
        .tenant_of(BECAUSE, &former)
        .await
        .unwrap();
    assert_eq!(of, Some(id));
    shop.close().await;
}

#[actix_web::test]
async fn subscription_lost_with_its_customer_blocks_no_checkout() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    assert!(shop.account(id).await.live_subscription().is_some());
    let former = shop.customer(id).await;
    // Nobody is told that it was deleted.
    shop.fake.webhooks(Delivery::Lost(1_000));
    assert!(shop.fake.delete_customer(&former));
    shop.fake.settled().await;
    shop.fake.webhooks(Delivery::InOrder);
    let url = page(&shop, "initech", json!({"plan": "pro"})).await;
    assert_eq!(shop.plan(id).await, "free", "the former subscription has ended");
    shop.fake.complete_checkout(session(&url)).unwrap();
    shop.work().await;
    assert_eq!(shop.plan(id).await, "pro");
    let account = shop.account(id).await.subscription.unwrap();
    assert_eq!(account.status, SubscriptionStatus::Active, "there is one trial");
    shop.close().await;
}

/// A wrong key leads to another account for a while; then the right one is back, and the tenant pays once.
#[actix_web::test]
async fn former_customer_is_taken_again_after_a_wrong_key() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let first = shop.customer(id).await;
    let wrong = WrongKey::set(&shop).await;
    let all = Sweep {
        after: None,
        limit: 100,
    };
    let lost = billing_oversight::lost_customers(&wrong.cx, false, all)
        .await
        .unwrap()
        .found;
    assert!(
        lost.iter()
            .any(|lost| lost.tenant == id && lost.replacement.is_none())
    );
    assert_eq!(shop.customer(id).await, first, "it was only looked at");
    let there = wrong.replace(id).await;
    assert_eq!(shop.customer(id).await, there);
    assert_eq!(wrong.elsewhere.customers_of(id), [there]);
    assert_eq!(shop.plan(id).await, "free");

    assert_eq!(shop.replace(id).await, first);
    let cx = shop.world.operator_cx();
    assert_eq!(
        (shop.customer(id).await, shop.plan(id).await),
        (first.clone(), "pro".into())
    );
    assert_eq!(shop.customers_of(id), [first]);
    let lines = billing_oversight::drift_of(&cx, id, None).await.unwrap();
    assert!(lines.iter().all(|line| matches!(line, DriftLine::Meter(_))));
    assert_eq!(
        billing_oversight::lost_customer_of(&cx, id, true).await.unwrap(),
        []
    );
    shop.close().await;
    wrong.elsewhere.close().await;
}

#[actix_web::test]
async fn preview_says_that_the_customer_is_gone() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let elsewhere = Shop::open().await;
    let before = shop.customer(id).await;
    let client = shop.client_beside(&elsewhere).await;
    let login = shop.world.login("initech", "a@initech.example", PASSWORD).await;
    let login = login.expect(200).json();
    let request = client.get("/api/v1/billing/preview?plan=pro&interval=year");
    let reply = request.bearer(login["access_token"].as_str().unwrap()).await;
    reply.problem(409, "billing_customer_gone");
    assert_eq!(shop.customer(id).await, before);
    shop.close().await;
    elsewhere.close().await;
}

#[actix_web::test]
async fn customer_that_cannot_be_removed_keeps_no_other() {
    let shop = Shop::open().await;
    let mut customers = Vec::new();
    for slug in ["first", "second", "third"] {
        let id = shop.sign_up(slug, "pro").await;
        shop.work().await;
        customers.push((id, shop.customer(id).await));
    }
    customers.sort();
    let stuck = customers[0].1.clone();
    let sql = "UPDATE tenants SET status = 'deleted', deleted_at = now() WHERE id = ANY($1)";
    let ids: Vec<_> = customers.iter().map(|(id, _)| id.uuid()).collect();
    sqlx::query(sql)
        .bind(ids)
        .execute(&mut shop.world.database.admin().await)
        .await
        .unwrap();
    shop.world.outlive_the_cache();
    let path = format!("/v1/customers/{stuck}");
    let refusing = Matcher::path(&path).method("DELETE");
    shop.fake.fail(refusing, Failure::ServerError, 2);
    let asked_before = shop.fake.calls().len();
    shop.pass(1).await;
    let left: Vec<_> = customers
        .iter()
        .flat_map(|(id, _)| shop.customers_of(*id))
        .collect();
    assert_eq!(left, [stuck], "the first of them");
    let searched = shop.fake.calls().into_iter().skip(asked_before);
    let searched = searched.filter(|call| call.path.contains("search"));
    assert_eq!(searched.count(), 0, "the references are stored");
    for _ in 0..3 {
        shop.pass(1).await;
    }
    assert!(customers.iter().all(|(id, _)| shop.customers_of(*id).is_empty()));
    let open = shop
        .world
        .app
        .ports
        .customers
        .left_behind(BECAUSE, None, 10)
        .await;
    assert_eq!(open.unwrap(), []);
    shop.close().await;
}

// --------------------------------------------------------------------------------------------------------------- seats

fn new_user(number: usize) -> Value {
    json!({"email": format!("u{number}@initech.example"), "full_name": "U", "role": "member", "password": PASSWORD})
}

/// The path of a user, by the answer to its creation.
pub(crate) fn user_path(created: &Value) -> String {
    let id = created["user"]["id"].as_str().or(created["id"].as_str());
    format!("/api/v1/users/{}", id.unwrap())
}

/// A tenant that pays for so many seats, with one user.
async fn with_seats(shop: &Shop, seats: u32) -> TenantId {
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    shop.check_out("initech", &json!({"plan": "enterprise", "seats": seats}))
        .await;
    shop.world.outlive_the_cache();
    id
}

#[actix_web::test]
async fn users_are_limited_to_the_paid_seats() {
    let shop = Shop::open().await;
    with_seats(&shop, 2).await;
    let user = posted(&shop, "initech", "/api/v1/users", &new_user(1))
        .await
        .expect(201)
        .json();
    let refused = posted(&shop, "initech", "/api/v1/users", &new_user(2)).await;
    let refused = refused.problem(403, "plan_limit_reached").json();
    assert_eq!(
        (&refused["limit"], &refused["allowed"], &refused["used"]),
        (&json!("seats"), &json!(2), &json!(2)),
        "{refused}"
    );
    // Who may register is told no numbers.
    let body = json!({"tenant_slug": "initech", "email": "r@initech.example", "full_name": "R", "password": PASSWORD});
    let registered = shop.world.client.post("/api/v1/auth/register", &body).await;
    registered.problem(403, "plan_limit_reached");
    let can = asked(
        &shop,
        "initech",
        Method::GET,
        "/api/v1/entitlements/users",
        &json!({}),
    )
    .await;
    let can = can.expect(200).json();
    assert_eq!(
        (&can["limit"], &can["has_access"]),
        (&json!(2), &json!(false)),
        "{can}"
    );

    // A user who is not active takes no seat; only one of two can be active again.
    let path = user_path(&user);
    let active = async |active: bool| {
        asked(
            &shop,
            "initech",
            Method::PATCH,
            &path,
            &json!({"is_active": active}),
        )
        .await
    };
    active(false).await.expect(200);
    posted(&shop, "initech", "/api/v1/users", &new_user(2))
        .await
        .expect(201);
    active(true).await.problem(403, "plan_limit_reached");

    // More seats, and it goes on.
    posted(
        &shop,
        "initech",
        SUBSCRIPTION,
        &json!({"plan": "enterprise", "seats": 3}),
    )
    .await
    .expect(202);
    shop.work().await;
    active(true).await.expect(200);
    posted(&shop, "initech", "/api/v1/users", &new_user(3))
        .await
        .problem(403, "plan_limit_reached");
    shop.close().await;
}

#[actix_web::test]
async fn fewer_seats_than_users_are_refused() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    posted(&shop, "initech", "/api/v1/users", &new_user(1))
        .await
        .expect(201);
    let fewer = json!({"plan": "enterprise", "seats": 1});
    let refused = posted(&shop, "initech", CHECKOUT, &fewer)
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(refused["errors"][0]["code"], "seats_in_use", "{refused}");
    // Without a number it is a seat for each.
    shop.check_out("initech", &json!({"plan": "enterprise"})).await;
    assert_eq!(shop.account(id).await.paid_seats(), Some(2));
    let refused = posted(
        &shop,
        "initech",
        SUBSCRIPTION,
        &json!({"plan": "enterprise", "seats": 1}),
    )
    .await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["pointer"], "/seats");
    // A user is there all the same between the question and the job: nobody is left without a seat then.
    posted(
        &shop,
        "initech",
        SUBSCRIPTION,
        &json!({"plan": "enterprise", "seats": 4}),
    )
    .await
    .expect(202);
    shop.work().await;
    let third = posted(&shop, "initech", "/api/v1/users", &new_user(2)).await;
    let third = third.expect(201).json();
    let path = user_path(&third);
    asked(
        &shop,
        "initech",
        Method::PATCH,
        &path,
        &json!({"is_active": false}),
    )
    .await
    .expect(200);
    posted(
        &shop,
        "initech",
        SUBSCRIPTION,
        &json!({"plan": "enterprise", "seats": 2}),
    )
    .await
    .expect(202);
    let sql = "UPDATE users SET is_active = true WHERE tenant_id = $1";
    sqlx::query(sql)
        .bind(id.uuid())
        .execute(&mut shop.world.database.admin().await)
        .await
        .unwrap();
    shop.work().await;
    let account = shop.account(id).await;
    assert_eq!(account.paid_seats(), Some(4));
    assert!(account.refusal.unwrap().contains("3 active users"));
    shop.close().await;
}

#[actix_web::test]
async fn last_seat_is_taken_once_under_contention() {
    let shop = Shop::open().await;
    let id = with_seats(&shop, 3).await;
    posted(&shop, "initech", "/api/v1/users", &new_user(0))
        .await
        .expect(201);
    let bodies: Vec<_> = (1..9).map(new_user).collect();
    let replies = join_all(
        bodies
            .iter()
            .map(|body| posted(&shop, "initech", "/api/v1/users", body)),
    )
    .await;
    let mut created = 0;
    for reply in replies {
        match reply.status {
            201 => created += 1,
            _ => drop(reply.problem(403, "plan_limit_reached")),
        }
    }
    assert_eq!(created, 1);
    let cx = shop.cx(id).await;
    assert_eq!(
        cx.read(async |work| work.users().count_active().await)
            .await
            .unwrap(),
        3
    );
    shop.close().await;
}

#[actix_web::test]
async fn trial_has_a_seat_for_each_user_that_is_there() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    posted(&shop, "initech", "/api/v1/users", &new_user(1))
        .await
        .expect(201);
    shop.work().await;
    assert_eq!(shop.account(id).await.paid_seats(), Some(2));
    posted(&shop, "initech", "/api/v1/users", &new_user(2))
        .await
        .problem(403, "plan_limit_reached");
    // In a trial more seats cost nothing yet.
    posted(
        &shop,
        "initech",
        SUBSCRIPTION,
        &json!({"plan": "pro", "seats": 5}),
    )
    .await
    .expect(202);
    shop.work().await;
    posted(&shop, "initech", "/api/v1/users", &new_user(2))
        .await
        .expect(201);
    shop.close().await;
}

// ------------------------------------------------------------------------------------------------------------- dunning

/// Fails the payment after the trial, up to grace.
async fn fail_to_pay(shop: &Shop) -> (TenantId, String) {
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    assert!(shop.fake.set_card(&customer, Card::Declines));
    for _ in 0..16 {
        shop.pass(24).await;
    }
    assert_eq!(shop.account(id).await.dunning.state.as_str(), "grace");
    // Another tenant of the world may have an open invoice as well.
    let open = shop
        .fake
        .invoices()
        .into_iter()
        .find(|one| one["status"] == "open" && one["customer"] == customer.as_str());
    (id, open.unwrap()["id"].as_str().unwrap().to_owned())
}

#[actix_web::test]
async fn invoice_written_off_ends_dunning() {
    for void in [true, false] {
        let shop = Shop::open().await;
        let (id, invoice) = fail_to_pay(&shop).await;
        assert!(if void {
            shop.fake.void_invoice(&invoice)
        } else {
            shop.fake.mark_uncollectible(&invoice)
        });
        shop.work().await;
        let account = shop.account(id).await;
        assert_eq!(account.dunning.state.as_str(), "healthy", "{account:?}");
        assert_eq!(account.subscription.unwrap().status, SubscriptionStatus::Active);
        shop.close().await;
    }
}

/// The clock of a fake is moved ahead of ours, as in the demo: payments are due by it.
#[actix_web::test]
async fn dunning_follows_the_clock_of_the_provider() {
    let shop = Shop::open_by_its_clock().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    assert!(shop.fake.set_card(&shop.customer(id).await, Card::Declines));
    // The debt begins with the end of the trial, and is announced before anything happens.
    for days in [16, 15] {
        assert_eq!(
            shop.status(id).await,
            tenantry_domain::tenant::TenantStatus::Active
        );
        shop.fake.clock().advance(chrono::Duration::days(days));
        shop.work().await;
    }
    assert_eq!(
        shop.status(id).await,
        tenantry_domain::tenant::TenantStatus::Suspended
    );
    let told = actions(&shop, id, "billing.notice.").await;
    assert!(told.contains(&"billing.notice.suspended".to_owned()), "{told:?}");
    shop.close().await;
}
