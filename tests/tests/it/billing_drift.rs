//! What somebody does at the payment provider by hand: subscriptions for other things, edited metadata, former customers.

use serde_json::{Value, json};
use tenantry_billing::billing::billing_oversight;
use tenantry_domain::billing::{CustomerRef, NewSubscription, ProviderKey, SubscriptionStatus};
use tenantry_domain::kernel::{SystemScope, TenantId};
use tenantry_stripe_fake::{Card, Failure, Matcher};
use tenantry_tests::Lines;

use crate::billing_checkout::{actions, live, new_subscription, posted};
use crate::billing_stripe::{Shop, WrongKey};

const BECAUSE: SystemScope = SystemScope::because("a test of what is done at the provider by hand");

/// Subscribes a customer to a product that is none of our plans.
fn subscribe_elsewhere(shop: &Shop, customer: &str) -> String {
    let by_hand = |path: &str, form: &str| {
        let made = shop.fake.dashboard("POST", path, form).unwrap();
        made["id"].as_str().unwrap().to_owned()
    };
    assert!(shop.fake.set_card(customer, Card::Pays));
    let product = by_hand("/v1/products", "name=Consulting");
    let price = format!("currency=usd&product={product}&unit_amount=50000&recurring[interval]=month");
    let price = by_hand("/v1/prices", &price);
    by_hand(
        "/v1/subscriptions",
        &format!("customer={customer}&items[0][price]={price}&items[0][quantity]=90"),
    )
}

fn label(shop: &Shop, customer: &str, tenant: &str) {
    let form = format!("metadata[tenant_id]={tenant}");
    let path = format!("/v1/customers/{customer}");
    shop.fake.dashboard("POST", &path, &form).unwrap();
}

pub(crate) fn status(shop: &Shop, subscription: &str) -> String {
    let all = shop.fake.subscriptions().into_iter();
    let mut all = all.filter(|one| one["id"] == subscription);
    all.next().unwrap()["status"].as_str().unwrap().to_owned()
}

/// Surplus and findings of the drift report.
pub(crate) async fn drift(shop: &Shop) -> (Value, Value) {
    // Nobody can be made twice.
    let name = shop.world.app.ports.ids.uuid();
    let operator = shop.world.operator(&format!("{name}@tenantry.example")).await;
    let request = shop.world.client.get("/api/v1/admin/billing/drift?limit=100");
    let report = request.bearer(&operator).await.expect(200).json();
    (report["surplus"].clone(), report["findings"].clone())
}

/// Deletes a tenant behind the application's back.
async fn delete(shop: &Shop, tenant: TenantId) {
    let sql = "UPDATE tenants SET status = 'deleted', deleted_at = now() WHERE id = $1";
    sqlx::query(sql)
        .bind(tenant.uuid())
        .execute(&mut shop.world.database.admin().await)
        .await
        .unwrap();
    shop.world.outlive_the_cache();
}

#[actix_web::test]
async fn foreign_subscription_is_reported_and_left_alone() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    let other = shop.sign_up("globodyne", "free").await;
    shop.work().await;
    let ours = shop.account(id).await.subscription.unwrap().id;
    shop.pass(1).await;
    let customer = shop.customer(id).await;
    let foreign = subscribe_elsewhere(&shop, &customer);
    let alone = subscribe_elsewhere(&shop, &shop.customer(other).await);
    shop.work().await;
    shop.pass(1).await;

    let account = shop.account(id).await;
    let kept = account.subscription.clone().unwrap();
    assert_eq!((&kept.id, &kept.status), (&ours, &SubscriptionStatus::Trialing));
    assert_eq!(
        (account.paid_seats(), shop.plan(id).await),
        (Some(1), "pro".into())
    );
    assert_eq!(live(&shop, &customer).len(), 2, "both run");
    assert_eq!(actions(&shop, id, "billing.surplus").await, [""; 0]);
    let (surplus, findings) = drift(&shop).await;
    assert_eq!(surplus, json!([]));
    let mut expected = [
        (id, &customer, &foreign),
        (other, &shop.customer(other).await, &alone),
    ];
    expected.sort();
    let expected = expected.map(|(tenant, customer, subscription)| {
        json!({"tenant_id": tenant, "kind": "foreign_subscription", "customer": customer, "subscription": subscription})
    });
    assert_eq!(findings, json!(expected));

    // It is no subscription here: the tenant has none, and begins one.
    assert_eq!(
        (shop.plan(other).await, shop.account(other).await.paid_seats()),
        ("free".into(), None)
    );
    shop.check_out("globodyne", &json!({"plan": "enterprise"})).await;
    assert_eq!(shop.plan(other).await, "enterprise");
    assert_eq!(status(&shop, &alone), "active");
    shop.close().await;
}

/// What is owed for something else is no reason to suspend a tenant here.
#[actix_web::test]
async fn unpaid_foreign_invoice_suspends_nobody() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "free").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    let foreign = subscribe_elsewhere(&shop, &customer);
    assert!(shop.fake.set_card(&customer, Card::Declines));
    for _ in 0..45 {
        shop.pass(24).await;
    }
    assert_ne!(status(&shop, &foreign), "active");
    assert_eq!(shop.account(id).await.dunning.state.as_str(), "healthy");
    assert_eq!(actions(&shop, id, "billing.notice.").await, [""; 0]);
    shop.close().await;
}

#[actix_web::test]
async fn customer_with_edited_metadata_is_kept_and_reported() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    let other = shop.sign_up("globodyne", "free").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    for metadata in [String::new(), "acme".into(), other.to_string()] {
        label(&shop, &customer, &metadata);
        posted(&shop, "initech", "/api/v1/billing/portal", &json!({}))
            .await
            .expect(200);
        posted(
            &shop,
            "initech",
            "/api/v1/billing/checkout",
            &json!({"plan": "pro"}),
        )
        .await
        .problem(409, "conflict");
        let lost = billing_oversight::lost_customer_of(&shop.world.operator_cx(), id, true).await;
        assert_eq!(lost.unwrap(), []);
        shop.pass(1).await;
        assert_eq!(
            (shop.customer(id).await, shop.plan(id).await),
            (customer.clone(), "pro".into())
        );
        let expected = json!([{
            "tenant_id": id, "kind": "customer_metadata", "customer": customer, "subscription": null,
        }]);
        assert_eq!(drift(&shop).await.1, expected, "{metadata}");
    }
    label(&shop, &customer, &id.to_string());
    assert_eq!(drift(&shop).await.1, json!([]));
    assert_eq!(actions(&shop, id, "billing.customer_replaced").await, [""; 0]);
    shop.close().await;
}

/// A label names any tenant that somebody writes there: another tenant's customer is neither taken nor removed for it.
#[actix_web::test]
async fn label_gives_no_tenant_the_customer_of_another() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    let other = shop.sign_up("globodyne", "free").await;
    label(&shop, &customer, &other.to_string());
    shop.work().await;
    assert_ne!(shop.customer(other).await, customer);
    assert_eq!(shop.customer(id).await, customer);

    // Of this one it is not known whether it has a customer, so the provider is asked to search.
    let gone = shop.sign_up("umbrella", "free").await;
    let refused = Matcher::path("/v1/customers").method("POST");
    shop.fake.fail(refused, Failure::ServerError, 100);
    shop.work().await;
    delete(&shop, gone).await;
    label(&shop, &customer, &gone.to_string());
    for _ in 0..30 {
        shop.pass(1).await;
    }
    let all = shop.fake.customers().into_iter();
    let mut all = all.filter(|one| one["id"] == customer.as_str());
    assert_ne!(all.next().unwrap()["deleted"], true);
    assert_eq!(shop.plan(id).await, "pro");
    shop.close().await;
}

/// Puts a tenant onto a second customer at the same provider, as when the first one was taken for gone.
async fn move_to_another_customer(shop: &Shop, tenant: TenantId) -> (String, String) {
    let former = shop.customer(tenant).await;
    let form = format!("name=Again&metadata[tenant_id]={tenant}");
    let made = shop.fake.dashboard("POST", "/v1/customers", &form).unwrap();
    let now = made["id"].as_str().unwrap().to_owned();
    let [old, new] = [&former, &now].map(|id| CustomerRef::parse(id).unwrap());
    let customers = &shop.world.app.ports.customers;
    customers.replace(BECAUSE, tenant, &old, &new).await.unwrap();
    let cx = shop.cx(tenant).await;
    cx.write(async |work| {
        let mut account = work.billing().current_for_update().await?.unwrap();
        account.replace_customer(new.clone(), cx.now());
        work.billing().update(&account).await
    })
    .await
    .unwrap();
    (former, now)
}

#[actix_web::test]
async fn subscription_of_a_former_customer_ends() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    let other = shop.sign_up("globodyne", "pro").await;
    shop.work().await;
    let (former, now) = move_to_another_customer(&shop, id).await;
    let foreign = subscribe_elsewhere(&shop, &former);
    shop.check_out("initech", &json!({"plan": "enterprise"})).await;
    assert_eq!(shop.plan(id).await, "enterprise");
    assert_eq!(live(&shop, &now).len(), 1);
    // A message about the former customer was enough, or else the hourly look at each tenant.
    shop.pass(1).await;
    let left = live(&shop, &former);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["id"], foreign.as_str());
    assert_eq!(live(&shop, &now).len(), 1);
    assert_eq!(
        actions(&shop, id, "billing.surplus").await,
        ["billing.surplus_found", "billing.surplus_ended"]
    );
    assert_eq!(live(&shop, &shop.customer(other).await).len(), 1);
    assert_eq!(drift(&shop).await, (json!([]), json!([])));
    shop.close().await;
}

#[actix_web::test]
async fn running_subscription_of_a_former_customer_is_reported() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let runs = shop.account(id).await.subscription.unwrap().id;
    let (former, _) = move_to_another_customer(&shop, id).await;
    let finding = json!([{
        "tenant_id": id, "kind": "former_customer", "customer": former, "subscription": runs,
    }]);
    assert_eq!(drift(&shop).await.1, finding);
    assert_eq!(live(&shop, &former).len(), 1, "looking ends nothing");
    let lines = Lines::default();
    let guard = lines.listen();
    shop.pass(1).await;
    drop(guard);
    let said = [
        "a former customer has a subscription",
        "a tenant has two subscriptions",
    ];
    assert_eq!(said.map(|text| lines.count(text)), [1, 0]);
    let kept =
        "SELECT after->'kept' FROM audit_events WHERE tenant_id = $1 AND action = 'billing.surplus_found'";
    let kept: Value = sqlx::query_scalar(kept)
        .bind(id.uuid())
        .fetch_one(&mut shop.world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(kept, Value::Null, "the tenant has no other subscription");
    assert_eq!(live(&shop, &former).len(), 0);
    assert_eq!(drift(&shop).await.1, json!([]));
    shop.close().await;
}

/// With a wrong key the present customer is not there, and the former one may be the right one.
#[actix_web::test]
async fn nothing_of_a_former_customer_ends_without_the_present_one() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let first = shop.customer(id).await;
    let wrong = WrongKey::set(&shop).await;
    wrong.replace(id).await;
    for _ in 0..3 {
        shop.pass(1).await;
    }
    assert_eq!(live(&shop, &first).len(), 1);
    shop.replace(id).await;
    assert_eq!(
        (shop.customer(id).await, shop.plan(id).await),
        (first, "pro".into())
    );
    shop.close().await;
    wrong.elsewhere.close().await;
}

#[actix_web::test]
async fn removal_ends_ours_and_leaves_what_is_foreign() {
    let shop = Shop::open().await;
    let id = shop.sign_up("initech", "pro").await;
    shop.work().await;
    let customer = shop.customer(id).await;
    let foreign = subscribe_elsewhere(&shop, &customer);
    let (former, now) = move_to_another_customer(&shop, id).await;
    let payments = shop.world.app.ports.payments.clone().unwrap();
    let new = NewSubscription {
        trial_days: 14,
        ..new_subscription(&shop, id, &now, "pro")
    };
    let key = ProviderKey::parse("again").unwrap();
    payments.create_subscription(&key, &new).await.unwrap();
    assert_eq!(live(&shop, &now).len(), 1);
    delete(&shop, id).await;
    for _ in 0..3 {
        shop.pass(1).await;
    }
    assert_eq!(former, customer);
    assert_eq!(live(&shop, &now).len(), 0, "the former customer keeps no other");
    assert_eq!(shop.customers_of(id), [former.as_str()]);
    let left = live(&shop, &former);
    assert_eq!((left.len(), &left[0]["id"]), (1, &json!(foreign)));
    let path = format!("/v1/subscriptions/{foreign}");
    shop.fake.dashboard("DELETE", &path, "").unwrap();
    for _ in 0..3 {
        shop.pass(1).await;
    }
    assert_eq!(shop.customers_of(id), [""; 0]);
    shop.close().await;
}
