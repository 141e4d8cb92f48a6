//! How much a tenant may ask of the payment provider, beside its other rates.

use actix_web::http::Method;
use serde_json::{Value, json};
use tenantry_billing::BillingHandlers as _;
use tenantry_domain::operations::Rate;
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tests::Reply;

use crate::billing_checkout::{asked, page, posted, session};
use crate::billing_stripe::Shop;
use crate::jobs::worker;

/// What is left in the bucket for billing, by the header of an answer.
fn left(reply: &Reply) -> i64 {
    let field = reply.header("RateLimit").unwrap();
    let of_billing = field.split("\"billing\";r=").nth(1).unwrap();
    of_billing.split([';', ',']).next().unwrap().parse().unwrap()
}

#[actix_web::test]
async fn billing_requests_cost_at_least_the_calls_that_they_make() {
    const FULL: u32 = 10_000;
    let shop = Shop::open_held_to(Rate::new(1, FULL).unwrap()).await;
    shop.sign_up("initech", "free").await;
    shop.work().await;
    let (get, post) = (Method::GET, Method::POST);
    let mut before = i64::from(FULL);
    for (method, path, body, subscribes) in [
        (&post, "/checkout", json!({"plan": "enterprise"}), false),
        (
            &post,
            "/checkout",
            json!({"plan": "enterprise", "seats": 2}),
            false,
        ),
        (
            &post,
            "/checkout",
            json!({"plan": "enterprise", "seats": 3}),
            true,
        ),
        (&post, "/portal", json!({}), false),
        (
            &post,
            "/subscription",
            json!({"plan": "enterprise", "seats": 5}),
            false,
        ),
        (&post, "/subscription/cancel", json!({}), false),
        (&post, "/subscription/resume", json!({}), false),
        (&get, "", Value::Null, false),
        (&get, "/preview?plan=pro", Value::Null, false),
        (&get, "/invoices", Value::Null, false),
    ] {
        shop.fake.settled().await;
        let asked_before = shop.fake.calls().len();
        let path = format!("/api/v1/billing{path}");
        let reply = asked(&shop, "initech", method.clone(), &path, &body).await;
        assert!((200..300).contains(&reply.status), "{path}: {}", reply.text());
        // The job that changes a subscription runs, and what Stripe tells of it afterwards is not counted.
        let worker = worker(&shop.world, Handlers::standard().with_usage().with_billing());
        worker.run_once().await.unwrap();
        let calls = i64::try_from(shop.fake.calls().len() - asked_before).unwrap();
        let now = left(&reply);
        assert!(
            before - now >= calls,
            "{path} costs {} and makes {calls}",
            before - now
        );
        before = now;
        if subscribes {
            let link = reply.json()["url"].as_str().unwrap().to_owned();
            shop.fake.complete_checkout(session(&link)).unwrap();
        }
        shop.work().await;
    }
    shop.close().await;
}

#[actix_web::test]
async fn tenant_is_held_to_its_rate_of_provider_calls() {
    let shop = Shop::open_held_to(Rate::new(30, 30).unwrap()).await;
    for slug in ["initech", "globodyne"] {
        shop.sign_up(slug, "free").await;
    }
    shop.work().await;
    for seats in 1..=2 {
        page(&shop, "initech", json!({"plan": "enterprise", "seats": seats})).await;
    }
    let calls = shop.fake.calls().len();
    let refused = posted(
        &shop,
        "initech",
        "/api/v1/billing/checkout",
        &json!({"plan": "enterprise", "seats": 3}),
    )
    .await
    .problem(429, "rate_limited");
    assert_eq!(refused.json()["violated-policies"], json!(["billing"]));
    assert_eq!(refused.header("Retry-After"), Some("12"));
    assert_eq!(shop.fake.calls().len(), calls);
    // Its other requests go on, and so does billing of others.
    asked(&shop, "initech", Method::GET, "/api/v1/users", &json!({}))
        .await
        .expect(200);
    page(&shop, "globodyne", json!({"plan": "enterprise"})).await;
    shop.world.clock.advance(chrono::Duration::minutes(1));
    page(&shop, "initech", json!({"plan": "enterprise", "seats": 3})).await;
    shop.close().await;
}
