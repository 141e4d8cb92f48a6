//! The fake as a client sees it: over HTTP, in Stripe's own forms.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tenantry_stripe_fake::{Card, Delivery, Exhausted, Failure, FakeConfig, Held, Matcher, StripeFake};

struct Client<'a>(&'a StripeFake);

impl Client<'_> {
    fn send(&self, method: &str, path: &str, form: &str, key: Option<&str>) -> (u16, Value) {
        self.try_send(method, path, form, key).unwrap()
    }

    /// `None` when the connection is closed without an answer.
    fn try_send(&self, method: &str, path: &str, form: &str, key: Option<&str>) -> Option<(u16, Value)> {
        let address = self.0.url().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let key = key
            .map(|key| format!("idempotency-key: {key}\r\n"))
            .unwrap_or_default();
        let secret = self.0.secret_key();
        let length = form.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: fake\r\nconnection: close\r\n\
             authorization: Bearer {secret}\r\n{key}\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{form}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1;
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    fn post(&self, path: &str, form: &str) -> Value {
        let (status, body) = self.send("POST", path, form, None);
        assert_eq!(status, 200, "POST {path} {form}: {body}");
        body
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.send("GET", path, "", None);
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    fn made(&self, path: &str, form: &str) -> String {
        self.post(path, form)["id"].as_str().unwrap().to_owned()
    }
}

fn start(card: Card) -> StripeFake {
    let config = FakeConfig {
        card,
        hang: Duration::from_millis(50),
        webhook_backoff: Duration::from_millis(5),
        ..FakeConfig::default()
    };
    StripeFake::start(config).unwrap()
}

/// A customer, a licensed price, a metered price with 1000 included, and a subscription to both.
struct Sold {
    customer: String,
    licensed: String,
    metered: String,
    subscription: String,
}

fn sell(client: &Client<'_>, more: &str) -> Sold {
    let customer = client.made("/v1/customers", "name=Acme&metadata[tenant_id]=t1");
    let product = client.made("/v1/products", "name=Pro");
    let meter = client.made(
        "/v1/billing/meters",
        "display_name=Calls&event_name=calls&default_aggregation[formula]=sum",
    );
    let recurring = "recurring[interval]=month";
    let licensed = client.made(
        "/v1/prices",
        &format!("currency=usd&product={product}&unit_amount=3000&lookup_key=pro&{recurring}"),
    );
    let metered = client.made(
        "/v1/prices",
        &format!(
            "currency=usd&product={product}&billing_scheme=tiered&tiers_mode=graduated&tiers[0][up_to]=1000\
             &tiers[0][unit_amount]=0&tiers[1][up_to]=inf&tiers[1][unit_amount_decimal]=0.5&{recurring}\
             &recurring[usage_type]=metered&recurring[meter]={meter}"
        ),
    );
    let subscription = client.made(
        "/v1/subscriptions",
        &format!(
            "customer={customer}&items[0][price]={licensed}&items[0][quantity]=2\
             &items[1][price]={metered}{more}"
        ),
    );
    Sold {
        customer,
        licensed,
        metered,
        subscription,
    }
}

fn use_up(client: &Client<'_>, sold: &Sold, value: u64, identifier: &str) -> (u16, Value) {
    let form = format!(
        "event_name=calls&payload[stripe_customer_id]={}&payload[value]={value}&identifier={identifier}",
        sold.customer
    );
    client.send("POST", "/v1/billing/meter_events", &form, None)
}

fn subscription(client: &Client<'_>, sold: &Sold) -> Value {
    client.get(&format!("/v1/subscriptions/{}", sold.subscription))
}

fn days(count: i64) -> chrono::Duration {
    chrono::Duration::days(count)
}

#[test]
fn a_period_is_paid_in_advance_and_usage_afterwards() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "");
    assert_eq!(subscription(&client, &sold)["status"], "active");
    assert_eq!(fake.invoices()[0]["total"], 6_000);
    assert_eq!(fake.invoices()[0]["status"], "paid");
    assert_eq!(use_up(&client, &sold, 1_500, "one").0, 200);
    fake.clock().advance(days(31));
    let second = fake.invoices()[1].clone();
    assert_eq!(
        (&second["status"], &second["billing_reason"]),
        (&"draft".into(), &"subscription_cycle".into())
    );
    // What is told within the hour, of the period that is over, still gets into its invoice.
    let late = fake.clock().now().timestamp() - 10;
    let form = format!(
        "event_name=calls&payload[stripe_customer_id]={}&payload[value]=100&timestamp={late}",
        sold.customer
    );
    client.post("/v1/billing/meter_events", &form);
    fake.clock().advance(chrono::Duration::hours(1));
    let second = fake.invoices()[1].clone();
    assert_eq!(second["status"], "paid");
    assert_eq!(second["total"], 6_000 + 300);
    let quantities: Vec<_> = second["lines"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["quantity"].clone())
        .collect();
    assert_eq!(quantities, [1_000, 600, 2]);
    let items = &subscription(&client, &sold)["items"]["data"];
    assert_eq!(items[0]["current_period_start"], second["period_end"]);
}

#[test]
fn a_failed_card_is_tried_four_times_more() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "");
    fake.set_card(&sold.customer, Card::Declines);
    fake.clock().advance(days(31) + chrono::Duration::hours(1));
    assert_eq!(subscription(&client, &sold)["status"], "past_due");
    let status_after = |more: i64| {
        fake.clock().advance(days(more));
        let attempts = fake.invoices()[1]["attempt_count"].as_u64().unwrap();
        (
            attempts,
            subscription(&client, &sold)["status"]
                .as_str()
                .unwrap()
                .to_owned(),
        )
    };
    assert_eq!(status_after(1), (2, "past_due".into()));
    assert_eq!(status_after(2), (3, "past_due".into()));
    assert_eq!(status_after(2), (4, "past_due".into()));
    assert_eq!(status_after(2), (5, "unpaid".into()));
    assert!(fake.pay_invoice(fake.invoices()[1]["id"].as_str().unwrap()));
    assert_eq!(subscription(&client, &sold)["status"], "active");
    assert_eq!(fake.invoices()[1]["amount_remaining"], 0);
}

/// Each way to write an unpaid invoice off, by Stripe's API and by the fake's own.
#[test]
fn invoice_written_off_is_owed_no_longer() {
    let ways = [
        ("/v1/invoices/{id}/void", "", "void"),
        ("/v1/invoices/{id}/mark_uncollectible", "", "uncollectible"),
        ("/_fake/invoices/{id}/write_off", "as=void", "void"),
        (
            "/_fake/invoices/{id}/write_off",
            "as=uncollectible",
            "uncollectible",
        ),
    ];
    for (path, form, status) in ways {
        let fake = start(Card::Pays);
        let client = Client(&fake);
        let sold = sell(&client, "");
        fake.set_card(&sold.customer, Card::Declines);
        fake.clock().advance(days(31 + 8));
        assert_eq!(subscription(&client, &sold)["status"], "unpaid");
        let invoice = fake.invoices()[1]["id"].as_str().unwrap().to_owned();
        client.post(&path.replace("{id}", &invoice), form);
        let written_off = client.get(&format!("/v1/invoices/{invoice}"));
        assert_eq!(written_off["status"], status, "{path}");
        assert!(written_off["next_payment_attempt"].is_null());
        assert_eq!(subscription(&client, &sold)["status"], "active", "{path}");
        // What is paid cannot be written off, nor what was be paid.
        let paid = fake.invoices()[0]["id"].as_str().unwrap().to_owned();
        for (path, invoice) in [("void", &paid), ("mark_uncollectible", &paid), ("pay", &invoice)] {
            let refused = client.send("POST", &format!("/v1/invoices/{invoice}/{path}"), "", None);
            assert_eq!(refused.0, 400, "{path}");
        }
    }
    // The first invoice of a subscription that waits for it: it never begins.
    let fake = start(Card::Missing);
    let client = Client(&fake);
    let sold = sell(&client, "&payment_behavior=default_incomplete");
    assert!(fake.void_invoice(fake.invoices()[0]["id"].as_str().unwrap()));
    assert_eq!(subscription(&client, &sold)["status"], "incomplete_expired");
}

#[test]
fn open_checkouts_are_listed_and_expire_once() {
    let fake = start(Card::Missing);
    let client = Client(&fake);
    let sold = sell(&client, "&trial_period_days=14");
    let form = format!(
        "mode=subscription&customer={}&line_items[0][price]={}&metadata[tenantry_terms]=a",
        sold.customer, sold.licensed
    );
    let ids = [0, 1].map(|_| client.made("/v1/checkout/sessions", &form));
    let open = || {
        let path = format!("/v1/checkout/sessions?customer={}&status=open", sold.customer);
        let data = client.get(&path)["data"].as_array().unwrap().clone();
        let id = |one: &Value| one["id"].as_str().unwrap().to_owned();
        data.iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(open(), [ids[1].clone(), ids[0].clone()]);
    let expire = |id: &str| {
        let path = format!("/v1/checkout/sessions/{id}/expire");
        client.send("POST", &path, "", None).0
    };
    assert_eq!((expire(&ids[0]), expire(&ids[0])), (200, 400));
    fake.complete_checkout(&ids[1]).unwrap();
    assert_eq!(expire(&ids[1]), 400);
    assert_eq!(open(), [""; 0]);
    let of_nobody = client.get("/v1/checkout/sessions?customer=cus_none");
    assert_eq!(of_nobody["data"], Value::Array(Vec::new()));
}

/// What somebody keeps of a fake that ran before means nothing at the next one.
#[test]
fn ids_of_two_runs_have_nothing_in_common() {
    let customer_of = |seconds: i64| {
        let config = FakeConfig {
            now: FakeConfig::default().now + chrono::Duration::seconds(seconds),
            runs: true,
            ..FakeConfig::default()
        };
        let fake = StripeFake::start(config).unwrap();
        Client(&fake).made("/v1/customers", "name=Acme")
    };
    assert_ne!(customer_of(0), customer_of(1));
}

/// As those of two accounts of Stripe: a key that is mixed up leads to no customer of somebody else's.
#[test]
fn ids_of_two_fakes_beside_each_other_have_nothing_in_common() {
    let customer_of = |run: &str| {
        let config = FakeConfig {
            run: run.to_owned(),
            ..FakeConfig::default()
        };
        let fake = StripeFake::start(config).unwrap();
        Client(&fake).made("/v1/customers", "name=Acme")
    };
    assert_ne!(customer_of("a"), customer_of("b"));
}

#[test]
fn a_card_that_recovers_brings_the_subscription_back() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "");
    fake.set_card(&sold.customer, Card::DeclinesTimes(2));
    fake.clock()
        .advance(days(31) + chrono::Duration::hours(1) + days(1));
    assert_eq!(subscription(&client, &sold)["status"], "past_due");
    fake.clock().advance(days(2));
    assert_eq!(subscription(&client, &sold)["status"], "active");
}

#[test]
fn an_unpaid_subscription_may_be_cancelled_in_the_end() {
    let fake = start(Card::Pays);
    fake.after_retries(Exhausted::Canceled);
    let client = Client(&fake);
    let sold = sell(&client, "");
    fake.set_card(&sold.customer, Card::Missing);
    fake.clock().advance(days(31 + 8));
    let ended = subscription(&client, &sold);
    assert_eq!(ended["status"], "canceled");
    assert_eq!(ended["cancellation_details"]["reason"], "payment_failed");
}

#[test]
fn without_a_card_the_first_payment_is_waited_for_a_day() {
    let fake = start(Card::Missing);
    let client = Client(&fake);
    let sold = sell(&client, "&payment_behavior=default_incomplete");
    assert_eq!(subscription(&client, &sold)["status"], "incomplete");
    fake.clock().advance(days(1));
    assert_eq!(subscription(&client, &sold)["status"], "incomplete_expired");
    assert_eq!(fake.invoices()[0]["status"], "void");
    let form = format!("customer={}&items[0][price]={}", sold.customer, sold.licensed);
    let (status, body) = client.send("POST", "/v1/subscriptions", &form, None);
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &"resource_missing".into())
    );
}

#[test]
fn a_trial_costs_nothing_and_ends_in_a_period() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "&trial_period_days=14");
    assert_eq!(subscription(&client, &sold)["status"], "trialing");
    use_up(&client, &sold, 9_000, "in the trial");
    fake.clock().advance(days(11));
    let kinds: Vec<_> = fake
        .events()
        .iter()
        .map(|it| it["type"].as_str().unwrap().to_owned())
        .collect();
    assert!(kinds.contains(&"customer.subscription.trial_will_end".to_owned()));
    fake.clock().advance(days(3) + chrono::Duration::hours(1));
    assert_eq!(subscription(&client, &sold)["status"], "active");
    let totals: Vec<_> = fake
        .invoices()
        .iter()
        .map(|it| it["total"].as_i64().unwrap())
        .collect();
    assert_eq!(totals, [0, 6_000]);
}

#[test]
fn what_ends_with_its_period_is_billed_for_usage_once_more() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "");
    client.post(
        &format!("/v1/subscriptions/{}", sold.subscription),
        "cancel_at_period_end=true",
    );
    use_up(&client, &sold, 1_010, "one");
    fake.clock().advance(days(32));
    let ended = subscription(&client, &sold);
    assert_eq!(ended["status"], "canceled");
    let last = fake.invoices().pop().unwrap();
    assert_eq!((&last["total"], &last["status"]), (&5.into(), &"paid".into()));
}

#[test]
fn a_preview_is_what_the_change_then_costs_and_changes_nothing() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "");
    fake.clock().advance(days(10));
    let item = subscription(&client, &sold)["items"]["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let change = format!("items[0][id]={item}&items[0][quantity]=5");
    let previewed = client.post(
        "/v1/invoices/create_preview",
        &format!(
            "subscription={}&subscription_details[items][0][id]={item}\
             &subscription_details[items][0][quantity]=5",
            sold.subscription
        ),
    );
    assert_eq!(subscription(&client, &sold)["items"]["data"][0]["quantity"], 2);
    client.post(&format!("/v1/subscriptions/{}", sold.subscription), &change);
    fake.clock().advance(days(21) + chrono::Duration::hours(1));
    let billed = fake.invoices().pop().unwrap();
    assert_eq!(billed["total"], previewed["total"]);
    // 21 of 31 days: 6000 back, 15000 asked for.
    let prorations: Vec<_> = billed["lines"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .take(2)
        .map(|it| it["amount"].clone())
        .collect();
    assert_eq!(prorations, [-4_065, 10_161]);
}

#[test]
fn what_is_paid_by_the_year_has_its_usage_billed_by_the_month() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "");
    let product = client.made("/v1/products", "name=Yearly");
    let yearly = client.made(
        "/v1/prices",
        &format!("currency=usd&product={product}&unit_amount=36500&recurring[interval]=year"),
    );
    let made = client.post(
        "/v1/subscriptions",
        &format!(
            "customer={}&items[0][price]={yearly}&items[1][price]={}",
            sold.customer, sold.metered
        ),
    );
    let ends: Vec<_> = (0..2)
        .map(|at| made["items"]["data"][at]["current_period_end"].clone())
        .collect();
    assert_ne!(ends[0], ends[1]);
    use_up(&client, &sold, 1_002, "one");
    fake.clock().advance(days(31) + chrono::Duration::hours(1));
    let of_it = |it: &Value| it["parent"]["subscription_details"]["subscription"] == made["id"];
    let totals: Vec<_> = fake
        .invoices()
        .iter()
        .filter(|it| of_it(it))
        .map(|it| it["total"].clone())
        .collect();
    assert_eq!(totals, [36_500, 1]);
    fake.clock().advance(days(334));
    let totals: Vec<_> = fake
        .invoices()
        .iter()
        .filter(|it| of_it(it))
        .map(|it| it["total"].clone())
        .collect();
    assert_eq!(totals.len(), 13);
    assert_eq!(totals[12], 36_500);
}

#[test]
fn usage_is_counted_once_for_each_identifier_and_within_its_time() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let sold = sell(&client, "");
    assert_eq!(use_up(&client, &sold, 5, "a").0, 200);
    let (status, body) = use_up(&client, &sold, 5, "a");
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &"duplicate_meter_event".into())
    );
    for (offset, expected) in [(-36 * 86_400, 400), (301, 400), (-34 * 86_400, 200), (299, 200)] {
        let at = fake.clock().now().timestamp() + offset;
        let form = format!(
            "event_name=calls&payload[stripe_customer_id]={}&payload[value]=1&timestamp={at}",
            sold.customer
        );
        assert_eq!(
            client.send("POST", "/v1/billing/meter_events", &form, None).0,
            expected,
            "{offset}"
        );
    }
    let cancel = "event_name=calls&type=cancel&cancel[identifier]=a";
    client.post("/v1/billing/meter_event_adjustments", cancel);
    assert_eq!(fake.meter_total("calls", &sold.customer, 0, i64::MAX), 2);
    fake.clock().advance(days(1));
    assert_eq!(
        use_up(&client, &sold, 7, "a").0,
        200,
        "after a day the identifier is forgotten"
    );
    fake.clock().advance(days(2));
    assert_eq!(
        client
            .send("POST", "/v1/billing/meter_event_adjustments", cancel, None)
            .0,
        400
    );
}

#[test]
fn a_call_with_the_same_key_is_done_once() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    let send = |form: &str| client.send("POST", "/v1/customers", form, Some("k1"));
    let first = send("name=A");
    assert_eq!(send("name=A"), first);
    assert_eq!(fake.customers().len(), 1);
    assert!(fake.calls()[1].replayed);
    let (status, body) = send("name=B");
    assert_eq!(
        (status, &body["error"]["type"]),
        (400, &"idempotency_error".into())
    );
    fake.clock().advance(days(1));
    assert_eq!(send("name=A").0, 200);
    assert_eq!(fake.customers().len(), 2, "keys are forgotten after a day");
}

#[test]
fn each_failure_is_what_it_says() {
    for failure in Failure::ALL {
        let fake = start(Card::Pays);
        let client = Client(&fake);
        fake.fail_next(Matcher::path("/v1/customers").method("post"), failure);
        let seen = client.try_send("POST", "/v1/customers", "name=A", Some("k"));
        let status = seen.map(|(status, _)| status);
        let expected = match failure {
            Failure::TooManyRequests => Some(429),
            Failure::ServerError | Failure::ServerErrorAfterEffect => Some(500),
            Failure::Garbage => Some(200),
            Failure::TimeoutBeforeEffect
            | Failure::TimeoutAfterEffect
            | Failure::ResetBeforeEffect
            | Failure::ResetAfterEffect => None,
        };
        assert_eq!(status, expected, "{failure:?}");
        assert_eq!(
            fake.customers().len(),
            usize::from(failure.after_effect()),
            "{failure:?}"
        );
        assert_eq!(client.send("POST", "/v1/customers", "name=A", Some("k")).0, 200);
        assert_eq!(fake.customers().len(), 1, "{failure:?}");
        assert_eq!(Failure::parse(failure.as_str()), Some(failure));
    }
}

#[test]
fn a_call_that_is_held_is_done_when_it_is_let_go_or_lost() {
    let until = |done: &dyn Fn() -> bool| {
        let began = std::time::Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for (held, loses) in [
        (Held::BeforeEffect, false),
        (Held::BeforeEffect, true),
        (Held::AfterEffect, false),
        (Held::AfterEffect, true),
    ] {
        let fake = start(Card::Pays);
        let customer = Client(&fake).made("/v1/customers", "name=A&metadata[of]=tenant-1");
        let hold = fake.hold(Matcher::any().about("tenant-1"), 2, held);
        let path = format!("/v1/customers/{customer}");
        // The caller is gone before the call is let go, as somebody who was killed.
        let call = |name: &str| {
            let address = fake.url().strip_prefix("http://").unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            let secret = fake.secret_key();
            let body = format!("name={name}");
            write!(
                stream,
                "POST {path} HTTP/1.1\r\nhost: fake\r\nauthorization: Bearer {secret}\r\n\
                 content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            stream
        };
        let name = || fake.customers()[0]["name"].as_str().unwrap().to_owned();
        let first = call("B");
        until(&|| name() == "B");
        Client(&fake).made("/v1/customers", "name=of-nobody");
        assert!(!hold.is_reached(), "another's call, or the first of two");
        let second = call("C");
        until(&|| hold.is_reached());
        let after = held == Held::AfterEffect;
        assert_eq!(name(), if after { "C" } else { "B" });
        drop((first, second));
        if loses {
            hold.lose();
        } else {
            hold.release();
        }
        let expected = if loses && !after { "B" } else { "C" };
        if expected == "C" {
            until(&|| name() == "C");
        }
        assert_eq!(
            Client(&fake).get(&path)["name"],
            expected,
            "{held:?}, lost: {loses}"
        );
    }
}

#[test]
fn pages_hold_what_was_asked_for() {
    let fake = start(Card::Pays);
    let client = Client(&fake);
    for number in 0..7 {
        client.made("/v1/customers", &format!("name=c{number}"));
    }
    let mut seen = Vec::new();
    let mut address = "/v1/customers?limit=3".to_owned();
    loop {
        let page = client.get(&address);
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["name"].as_str().unwrap().to_owned()),
        );
        if page["has_more"] == false {
            break;
        }
        let last = page["data"][2]["id"].as_str().unwrap();
        address = format!("/v1/customers?limit=3&starting_after={last}");
    }
    assert_eq!(seen, ["c6", "c5", "c4", "c3", "c2", "c1", "c0"]);
    for query in ["limit=0", "limit=101", "limit=x", "starting_after=cus_none"] {
        assert_eq!(
            client.send("GET", &format!("/v1/customers?{query}"), "", None).0,
            400,
            "{query}"
        );
    }
    let found = client.get("/v1/customers/search?query=email%3A'nobody'");
    assert_eq!(found["object"], "search_result");
}

#[test]
fn the_control_api_does_what_the_rust_api_does() {
    let fake = start(Card::Missing);
    let client = Client(&fake);
    let sold = sell(&client, "&trial_period_days=14");
    let before = fake.clock().now();
    client.post("/_fake/clock/advance", "days=1&hours=2");
    assert_eq!(fake.clock().now() - before, chrono::Duration::hours(26));
    client.post("/_fake/fail", "failure=server_error&path=/v1/customers&times=2");
    for expected in [500, 500, 200] {
        assert_eq!(client.send("GET", "/v1/customers", "", None).0, expected);
    }
    client.post(&format!("/_fake/customers/{}/card", sold.customer), "card=pays");
    let session = client.post(
        "/v1/checkout/sessions",
        &format!(
            "mode=subscription&customer={}&line_items[0][price]={}&line_items[0][quantity]=3\
             &success_url=http://x/ok&subscription_data[metadata][tenant_id]=t1",
            sold.customer, sold.licensed
        ),
    );
    assert!(session["url"].as_str().unwrap().contains("/_fake/checkout/"));
    let id = session["id"].as_str().unwrap();
    let done = client.post(&format!("/_fake/checkout/{id}/complete"), "");
    let made = client.get(&format!(
        "/v1/subscriptions/{}",
        done["subscription"].as_str().unwrap()
    ));
    assert_eq!(
        (&made["status"], &made["metadata"]["tenant_id"]),
        (&"active".into(), &"t1".into())
    );
    assert_eq!(made["items"]["data"][0]["quantity"], 3);
    assert_eq!(
        client.send("POST", "/_fake/checkout/none/complete", "", None).0,
        404
    );
    for path in ["fail", "customers/x/card", "webhooks", "after_retries", "nothing"] {
        assert!(
            client.send("POST", &format!("/_fake/{path}"), "", None).0 >= 400,
            "{path}"
        );
    }
}

#[test]
fn calls_without_the_key_are_refused() {
    let fake = start(Card::Pays);
    let mut stream = TcpStream::connect(fake.url().strip_prefix("http://").unwrap()).unwrap();
    stream
        .write_all(b"GET /v1/customers HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

/// An endpoint that keeps the events it is told, and refuses the first so many.
fn endpoint(refuse: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&taken);
    std::thread::spawn(move || {
        let mut refused = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = String::new();
            let mut buffer = [0; 4_096];
            let body = loop {
                let count = stream.read(&mut buffer).unwrap();
                text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .unwrap();
                if body.len() >= length.parse().unwrap() {
                    assert!(head.contains("stripe-signature: t="));
                    break body.to_owned();
                }
            };
            let status = if refused < refuse {
                refused += 1;
                "500 No"
            } else {
                let event: Value = serde_json::from_str(&body).unwrap();
                kept.lock()
                    .unwrap()
                    .push(event["data"]["object"]["name"].as_str().unwrap().to_owned());
                "200 OK"
            };
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            .unwrap();
        }
    });
    (url, taken)
}

fn delivered(delivery: Delivery, refuse: usize) -> (StripeFake, Vec<String>) {
    let fake = start(Card::Pays);
    let (url, taken) = endpoint(refuse);
    fake.webhook_to(&url, "whsec_x");
    fake.webhooks(delivery);
    for number in 0..5 {
        Client(&fake).made("/v1/customers", &format!("name=c{number}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(fake.settled());
    let taken = taken.lock().unwrap().clone();
    (fake, taken)
}

#[test]
fn webhooks_arrive_as_they_are_told_to() {
    let all = ["c0", "c1", "c2", "c3", "c4"];
    assert_eq!(delivered(Delivery::InOrder, 0).1, all);
    let (fake, taken) = delivered(Delivery::InOrder, 2);
    assert_eq!(
        (taken.as_slice(), fake.undelivered()),
        (all.map(str::to_owned).as_slice(), 0)
    );
    let (fake, taken) = delivered(Delivery::InOrder, 5);
    assert_eq!(
        (taken.len(), fake.undelivered()),
        (4, 1),
        "the first was refused five times"
    );
    assert_eq!(delivered(Delivery::Lost(2), 0).1, all[2..]);
    let (fake, mut twice) = delivered(Delivery::Duplicated, 0);
    assert_eq!(twice.len(), 10);
    assert_eq!(fake.events().len(), 5);
    twice.sort();
    twice.dedup();
    assert_eq!(twice, all);
    let (_, mut reordered) = delivered(Delivery::Reordered(3), 0);
    reordered.sort();
    assert_eq!(reordered, all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is changed and used when: totals are their lines, and nobody pays for time twice.
    #[test]
    fn invoices_are_what_their_lines_are(
        steps in prop::collection::vec((0_i64..20, 0_u64..2_000, prop::option::of(1_u64..9)), 1..8),
    ) {
        let fake = start(Card::Pays);
        let client = Client(&fake);
        let sold = sell(&client, "");
        let mut used = 0;
        for (number, (wait, value, seats)) in steps.iter().enumerate() {
            fake.clock().advance(days(*wait));
            prop_assert_eq!(use_up(&client, &sold, *value, &format!("e{number}")).0, 200);
            used += value;
            if let Some(seats) = seats {
                let items = &subscription(&client, &sold)["items"]["data"];
                let item = items[0]["id"].as_str().unwrap();
                let change = format!("items[0][id]={item}&items[0][quantity]={seats}");
                client.post(&format!("/v1/subscriptions/{}", sold.subscription), &change);
            }
        }
        fake.clock().advance(days(62));
        let mut counted = 0;
        for invoice in fake.invoices() {
            // The invoice itself shows the first ten of them.
            let id = invoice["id"].as_str().unwrap();
            let page = client.get(&format!("/v1/invoices/{id}/lines?limit=100"));
            prop_assert_eq!(&page["has_more"], &Value::Bool(false));
            let lines = page["data"].as_array().unwrap();
            let sum: i64 = lines.iter().map(|it| it["amount"].as_i64().unwrap()).sum();
            prop_assert_eq!(invoice["total"].as_i64().unwrap(), sum);
            let due = invoice["amount_due"].as_i64().unwrap();
            let balance = invoice["starting_balance"].as_i64().unwrap();
            prop_assert_eq!(due, (sum + balance).max(0));
            let price = |it: &Value| it["pricing"]["price_details"]["price"].clone();
            let metered = lines.iter().filter(|it| price(it) == sold.metered.as_str());
            counted += metered.map(|it| it["quantity"].as_u64().unwrap()).sum::<u64>();
        }
        prop_assert_eq!(counted, used);
        prop_assert_eq!(fake.meter_total("calls", &sold.customer, 0, i64::MAX), used);
    }
}

/// A file that is removed in the end.
struct Journal(std::path::PathBuf);

impl Journal {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tenantry-fake-{}-{name}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn start(&self) -> StripeFake {
        let config = FakeConfig {
            journal: Some(self.0.clone()),
            run: "x".into(),
            ..FakeConfig::default()
        };
        StripeFake::start(config).unwrap()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// All that a fake has, without its address.
fn everything(fake: &StripeFake) -> String {
    let parts = [
        fake.customers(),
        fake.prices(),
        fake.subscriptions(),
        fake.invoices(),
        fake.events(),
    ];
    let text: Vec<String> = parts.iter().flatten().map(Value::to_string).collect();
    text.join("\n").replace(fake.url(), "")
}

#[test]
fn fake_over_the_same_file_has_what_the_earlier_one_had() {
    let journal = Journal::new("kept");
    let fake = journal.start();
    let client = Client(&fake);
    let sold = sell(&client, "&trial_period_days=14");
    let (_, keyed) = client.send("POST", "/v1/customers", "name=Keyed", Some("key"));
    assert_eq!(
        client
            .send("POST", "/v1/subscriptions", "customer=cus_none", None)
            .0,
        400
    );
    // A call without an effect is done by no other fake either.
    fake.fail_next(Matcher::path("/v1/customers"), Failure::ServerError);
    assert_eq!(client.send("POST", "/v1/customers", "name=Lost", None).0, 500);
    client.post(
        &format!("/_fake/customers/{}/card", sold.customer),
        "card=declines",
    );
    use_up(&client, &sold, 7_000, "u1");
    client.post("/_fake/clock/advance", "days=31");
    let owed = fake
        .invoices()
        .into_iter()
        .find(|one| one["status"] == "open")
        .unwrap();
    let (before, at) = (everything(&fake), fake.clock().now());
    drop(fake);

    let fake = journal.start();
    let client = Client(&fake);
    assert_eq!(everything(&fake), before);
    assert_eq!(fake.clock().now(), at, "it is as far ahead");
    let customers = fake.customers().len();
    client.post(
        &format!("/_fake/invoices/{}/pay", owed["id"].as_str().unwrap()),
        "",
    );
    assert_eq!(fake.customers().len(), customers);
    client.made("/v1/customers", "name=Next");
    let before = everything(&fake);
    drop(fake);

    // A process that was killed has left a part of a line.
    let mut text = std::fs::read_to_string(&journal.0).unwrap();
    text.push_str("{\"at\":17684");
    std::fs::write(&journal.0, text).unwrap();
    let fake = journal.start();
    assert_eq!(everything(&fake), before);
    Client(&fake).made("/v1/customers", "name=Last");
    let before = everything(&fake);
    drop(fake);
    assert_eq!(everything(&journal.start()), before);
    assert!(before.contains(keyed["id"].as_str().unwrap()));
}

#[test]
fn key_of_a_call_is_known_after_a_restart() {
    let journal = Journal::new("keys");
    let fake = journal.start();
    let first = Client(&fake).send("POST", "/v1/customers", "name=A", Some("k1"));
    drop(fake);
    let fake = journal.start();
    assert_eq!(
        Client(&fake).send("POST", "/v1/customers", "name=A", Some("k1")),
        first
    );
    assert_eq!(fake.customers().len(), 1);
}
