//! No more active users than seats that are paid, or will be when what is under way is done: over the wire, with the fake of Stripe.

use actix_web::http::Method;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tenantry_domain::billing::{CustomerRef, NewCheckout, ProviderKey};
use tenantry_domain::kernel::TenantId;
use tenantry_stripe_fake::Delivery;
use tenantry_tests::{PASSWORD, Reply};

use crate::billing_checkout::{
    CHECKOUT, SUBSCRIPTION, actions, asked, live, new_subscription, page, posted, session, user_path,
};
use crate::billing_drift::{drift, status};
use crate::billing_stripe::Shop;

const USERS: &str = "/api/v1/users";

/// What the admin of a tenant is answered who adds a user.
async fn add(shop: &Shop, slug: &str, name: &str) -> Reply {
    let user = json!({
        "email": format!("{name}@{slug}.example"), "full_name": "U", "role": "member", "password": PASSWORD,
    });
    posted(shop, slug, USERS, &user).await
}

/// Adds a user. Returns its path.
async fn added(shop: &Shop, slug: &str, name: &str) -> String {
    user_path(&add(shop, slug, name).await.expect(201).json())
}

async fn activate(shop: &Shop, slug: &str, user: &str, active: bool) -> Reply {
    asked(shop, slug, Method::PATCH, user, &json!({"is_active": active})).await
}

async fn active_users(shop: &Shop, tenant: TenantId) -> u64 {
    let cx = shop.cx(tenant).await;
    let counted = cx.read(async |work| work.users().count_active().await);
    counted.await.unwrap()
}

/// The refusal of one more active user: how many seats there are, and what it says.
#[track_caller]
fn refused(reply: Reply) -> (u64, String) {
    let problem = reply.problem(403, "plan_limit_reached").json();
    assert_eq!(problem["limit"], "seats", "{problem}");
    let detail = problem["detail"].as_str().unwrap().to_owned();
    (problem["allowed"].as_u64().unwrap(), detail)
}

async fn open_checkouts(shop: &Shop, tenant: TenantId) -> usize {
    let customer = CustomerRef::parse(&shop.customer(tenant).await).unwrap();
    let payments = shop.world.app.ports.payments.clone().unwrap();
    payments.open_checkouts(&customer).await.unwrap().len()
}

// ------------------------------------------------------------------------------------------------------------ checkouts

#[actix_web::test]
async fn open_checkout_limits_users_to_its_seats() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.sign_up("globodyne", "free").await;
    shop.work().await;
    page(&shop, "initech", json!({"plan": "enterprise", "seats": 1})).await;
    let (seats, detail) = refused(add(&shop, "initech", "u1").await);
    assert_eq!(seats, 1);
    assert!(detail.contains("checkout for 1 seat is open"), "{detail}");
    assert!(detail.contains("begin a checkout for more seats"), "{detail}");
    let body = json!({"tenant_slug": "initech", "email": "r@initech.example", "full_name": "R", "password": PASSWORD});
    let registered = shop.world.client.post("/api/v1/auth/register", &body).send();
    registered.await.problem(403, "plan_limit_reached");
    // The neighbor has begun no checkout.
    added(&shop, "globodyne", "u1").await;

    // One for more seats takes its place.
    let url = page(&shop, "initech", json!({"plan": "enterprise", "seats": 2})).await;
    let user = added(&shop, "initech", "u1").await;
    assert_eq!(refused(add(&shop, "initech", "u2").await).0, 2);
    activate(&shop, "initech", &user, false).await.expect(200);
    added(&shop, "initech", "u2").await;
    assert_eq!(refused(activate(&shop, "initech", &user, true).await).0, 2);
    shop.fake.complete_checkout(session(&url)).unwrap();
    // Paid or still to be heard of: the seats are the same.
    assert_eq!(refused(add(&shop, "initech", "u3").await).0, 2);
    shop.work().await;
    assert_eq!(
        (active_users(&shop, id).await, shop.account(id).await.paid_seats()),
        (2, Some(2))
    );
    assert_eq!(shop.account(id).await.checkout, None);
    let (_, detail) = refused(add(&shop, "initech", "u3").await);
    assert!(detail.contains("subscription has 2 seats"), "{detail}");
    shop.close().await;
}

#[actix_web::test]
async fn checkout_that_ended_unpaid_limits_nobody() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let one = json!({"plan": "enterprise", "seats": 1});
    // It is closed at the provider.
    let url = page(&shop, "initech", one.clone()).await;
    let path = format!("/v1/checkout/sessions/{}/expire", session(&url));
    shop.fake.dashboard("POST", &path, "").unwrap();
    refused(add(&shop, "initech", "u1").await);
    shop.work().await;
    added(&shop, "initech", "u1").await;
    // It expires, and the message of it is lost.
    let url = page(&shop, "initech", json!({"plan": "enterprise", "seats": 2})).await;
    shop.fake.webhooks(Delivery::Lost(1_000));
    refused(add(&shop, "initech", "u2").await);
    shop.pass(26).await;
    assert!(shop.fake.complete_checkout(session(&url)).is_none());
    added(&shop, "initech", "u2").await;
    assert_eq!(active_users(&shop, id).await, 3);
    shop.close().await;
}

/// Of a checkout for the users that are there and one more user, one comes second and is refused.
#[actix_web::test]
async fn checkout_and_new_user_at_once_leave_seats_for_all() {
    let shop = Shop::open().await;
    let slugs = ["a", "b", "c", "d", "e", "f"].map(|letter| format!("race-{letter}"));
    let mut tenants = Vec::new();
    for slug in &slugs {
        tenants.push(shop.sign_up(slug, "free").await);
    }
    shop.work().await;
    let wish = json!({"plan": "enterprise", "seats": 1});
    let pairs = slugs
        .iter()
        .map(|slug| join(posted(&shop, slug, CHECKOUT, &wish), add(&shop, slug, "u1")));
    let replies = join_all(pairs).await;
    for ((checkout, user), tenant) in replies.into_iter().zip(&tenants) {
        let (users, open) = (
            active_users(&shop, *tenant).await,
            open_checkouts(&shop, *tenant).await,
        );
        match checkout.status {
            200 => {
                refused(user);
                assert_eq!((users, open), (1, 1));
                let url = checkout.json()["url"].as_str().unwrap().to_owned();
                shop.fake.complete_checkout(session(&url)).unwrap();
            }
            _ => {
                let problem = checkout.problem(422, "validation_failed").json();
                assert_eq!(problem["errors"][0]["code"], "seats_in_use", "{problem}");
                user.expect(201);
                assert_eq!((users, open), (2, 0));
            }
        }
    }
    shop.work().await;
    for tenant in tenants {
        if let Some(paid) = shop.account(tenant).await.paid_seats() {
            assert!(active_users(&shop, tenant).await <= u64::from(paid));
        }
    }
    shop.close().await;
}

// -------------------------------------------------------------------------------------------------------------- changes

/// A tenant with three paid seats, two active users and one who is not. Returns the path of that one.
async fn with_spare_seat(shop: &Shop) -> (TenantId, String) {
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    shop.check_out("initech", &json!({"plan": "enterprise", "seats": 3}))
        .await;
    shop.world.outlive_the_cache();
    added(shop, "initech", "u1").await;
    let spare = added(shop, "initech", "u2").await;
    activate(shop, "initech", &spare, false).await.expect(200);
    (id, spare)
}

async fn change_seats(shop: &Shop, seats: u32) -> Reply {
    let wish = json!({"plan": "enterprise", "seats": seats});
    posted(shop, "initech", SUBSCRIPTION, &wish).await
}

#[actix_web::test]
async fn pending_change_to_fewer_seats_limits_users() {
    let shop = Shop::open().await;
    let (id, spare) = with_spare_seat(&shop).await;
    change_seats(&shop, 2).await.expect(202);
    let (seats, detail) = refused(activate(&shop, "initech", &spare, true).await);
    assert_eq!(seats, 2);
    assert!(detail.contains("change to 2 seats is in progress"), "{detail}");
    assert_eq!(refused(add(&shop, "initech", "u3").await).0, 2);
    let path = "/api/v1/entitlements/users";
    let can = asked(&shop, "initech", Method::GET, path, &json!({})).await;
    assert_eq!(can.expect(200).json()["limit"], 2);
    shop.work().await;
    assert_eq!(shop.account(id).await.paid_seats(), Some(2));
    // More seats count when they are paid.
    change_seats(&shop, 3).await.expect(202);
    refused(activate(&shop, "initech", &spare, true).await);
    shop.work().await;
    activate(&shop, "initech", &spare, true).await.expect(200);
    // A change that the provider refuses is over.
    activate(&shop, "initech", &spare, false).await.expect(200);
    change_seats(&shop, 2).await.expect(202);
    let gone = shop.account(id).await.subscription.unwrap().id;
    shop.fake
        .dashboard("DELETE", &format!("/v1/subscriptions/{gone}"), "")
        .unwrap();
    shop.work().await;
    activate(&shop, "initech", &spare, true).await.expect(200);
    shop.close().await;
}

#[actix_web::test]
async fn fewer_seats_and_activation_at_once_leave_seats_for_all() {
    let shop = Shop::open().await;
    let (id, spare) = with_spare_seat(&shop).await;
    for _ in 0..6 {
        let (changed, activated) =
            join(change_seats(&shop, 2), activate(&shop, "initech", &spare, true)).await;
        match changed.status {
            202 => assert_eq!(refused(activated).0, 2),
            _ => {
                changed.problem(422, "validation_failed");
                activated.expect(200);
            }
        }
        shop.work().await;
        let paid = shop.account(id).await.paid_seats().unwrap();
        assert!(active_users(&shop, id).await <= u64::from(paid));
        if paid == 2 {
            change_seats(&shop, 3).await.expect(202);
            shop.work().await;
        } else {
            activate(&shop, "initech", &spare, false).await.expect(200);
        }
    }
    shop.close().await;
}

// ------------------------------------------------------------------------------------------------ unpaid subscriptions

fn invoice_of(shop: &Shop, subscription: &str) -> Value {
    let invoices = shop.fake.invoices().into_iter();
    let mut of_it =
        invoices.filter(|one| one["parent"]["subscription_details"]["subscription"] == subscription);
    of_it.next().unwrap()
}

/// Sign-up for a plan without a trial: the first invoice can be paid for a day, and is for one seat.
#[actix_web::test]
async fn unpaid_subscription_limits_users_until_a_checkout() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "enterprise").await;
    shop.work().await;
    let unpaid = shop.account(id).await.subscription.unwrap().id.to_string();
    assert_eq!(status(&shop, &unpaid), "incomplete");
    let (seats, detail) = refused(add(&shop, "initech", "u1").await);
    assert_eq!(seats, 1);
    assert!(detail.contains("awaits its first payment"), "{detail}");
    // A checkout takes its place.
    let url = page(&shop, "initech", json!({"plan": "enterprise", "seats": 2})).await;
    assert_eq!(status(&shop, &unpaid), "incomplete_expired");
    let invoice = invoice_of(&shop, &unpaid);
    assert_eq!(invoice["status"], "void");
    assert!(!shop.fake.pay_invoice(invoice["id"].as_str().unwrap()));
    added(&shop, "initech", "u1").await;
    shop.fake.complete_checkout(session(&url)).unwrap();
    shop.work().await;
    assert_eq!(
        (shop.plan(id).await.as_str(), shop.account(id).await.paid_seats()),
        ("enterprise", Some(2))
    );
    assert_eq!(actions(&shop, id, "billing.surplus").await, [""; 0]);
    shop.close().await;
}

#[actix_web::test]
async fn unpaid_subscription_beside_a_paid_one_is_withdrawn() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "enterprise").await;
    let other = shop.sign_up("globodyne", "enterprise").await;
    shop.work().await;
    let unpaid = shop.account(id).await.subscription.unwrap().id.to_string();
    let customer = shop.customer(id).await;
    // Paid on a page of the dashboard's, say, beside the invoice of sign-up.
    let payments = shop.world.app.ports.payments.clone().unwrap();
    let new = NewCheckout {
        subscription: new_subscription(&shop, id, &customer, "enterprise"),
        terms: ProviderKey::parse("terms").unwrap(),
        success_url: "https://a.example/".into(),
        cancel_url: "https://a.example/".into(),
    };
    let key = ProviderKey::parse("page").unwrap();
    let page = payments.checkout(&key, &new).await.unwrap();
    shop.fake.complete_checkout(page.id.as_str()).unwrap();
    let surplus = drift(&shop).await.0;
    assert_eq!(surplus[0]["surplus"], json!([unpaid]), "{surplus}");
    shop.work().await;
    assert_eq!(status(&shop, &unpaid), "incomplete_expired");
    let invoice = invoice_of(&shop, &unpaid);
    assert_eq!(invoice["status"], "void");
    assert!(!shop.fake.pay_invoice(invoice["id"].as_str().unwrap()));
    assert_eq!(
        actions(&shop, id, "billing.surplus").await,
        ["billing.surplus_found", "billing.surplus_ended"]
    );
    assert_eq!(shop.plan(id).await, "enterprise");
    assert_eq!(live(&shop, &customer).len(), 1);
    assert_eq!(shop.account(id).await.dunning.state.as_str(), "healthy");
    assert_eq!(drift(&shop).await.0, json!([]));
    // The neighbor's only subscription can still be paid.
    let waits = shop.account(other).await.subscription.unwrap().id;
    assert_eq!(status(&shop, waits.as_str()), "incomplete");
    shop.close().await;
}

/// Somebody changes the seats at the provider.
#[actix_web::test]
async fn fewer_seats_than_users_are_a_finding() {
    let shop = Shop::open().await;
    let (id, spare) = with_spare_seat(&shop).await;
    assert_eq!(drift(&shop).await.1, json!([]));
    let customer = shop.customer(id).await;
    let subscription = live(&shop, &customer).remove(0);
    let subscription_id = subscription["id"].as_str().unwrap();
    let seats_at_provider = |seats: u32| {
        let item = subscription["items"]["data"][0]["id"].as_str().unwrap();
        let form = format!("items[0][id]={item}&items[0][quantity]={seats}");
        let path = format!("/v1/subscriptions/{subscription_id}");
        shop.fake.dashboard("POST", &path, &form).unwrap();
    };
    seats_at_provider(1);
    shop.work().await;
    let expected = json!([{
        "tenant_id": id, "kind": "unpaid_seats", "customer": customer, "subscription": subscription_id,
    }]);
    assert_eq!(drift(&shop).await.1, expected);
    assert_eq!(active_users(&shop, id).await, 2, "nobody is removed");
    assert_eq!(refused(activate(&shop, "initech", &spare, true).await).0, 1);
    seats_at_provider(2);
    assert_eq!(drift(&shop).await.1, json!([]));
    shop.close().await;
}
