//! The fake's own API, below `/_fake`: what a test does through [`crate::StripeFake`], for whoever has only
//! curl.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{HeaderValue, LOCATION};
use serde_json::{Value, json};

use crate::failure::{Failure, Matcher};
use crate::params::Params;
use crate::problem::Problem;
use crate::server::reply;
use crate::state::Shared;
use crate::webhooks::Delivery;
use crate::{Card, Exhausted, objects};

/// What there is, told by `GET /_fake`.
const CALLS: &[&str] = &[
    "POST /_fake/clock/advance  seconds= minutes= hours= days=",
    "POST /_fake/fail  failure= path=/v1/… method= times=1",
    "POST /_fake/customers/{id}/card  card=missing|pays|declines|declines_times times=",
    "POST /_fake/customers/{id}/delete",
    "POST /_fake/invoices/{id}/pay",
    "POST /_fake/invoices/{id}/write_off  as=void|uncollectible",
    "POST /_fake/checkout/{id}/complete",
    "POST /_fake/webhooks  url= secret=",
    "POST /_fake/webhooks/delivery  mode=in_order|reordered|duplicated|lost seed= count=",
    "POST /_fake/events/{id}/resend",
    "POST /_fake/after_retries  then=unpaid|canceled|past_due",
    "GET  /_fake/calls  /_fake/events  /_fake/customers  /_fake/subscriptions  /_fake/invoices",
];

type Answer = Response<Full<Bytes>>;

/// Answers a call of it.
pub fn answer(shared: &Shared, method: &str, path: &str, params: &Params) -> Answer {
    let segments: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    let at = shared.now();
    let answer = answered(shared, method, &segments, params);
    if is_kept(method, &segments) {
        shared.keep(at, method, path, params);
    }
    answer
}

/// Whether a call changes what there is; the others change how the fake behaves until it ends.
fn is_kept(method: &str, segments: &[&str]) -> bool {
    let changing = ["clock", "customers", "invoices", "checkout", "after_retries"];
    method == "POST" && segments.first().is_some_and(|first| changing.contains(first))
}

fn answered(shared: &Shared, method: &str, segments: &[&str], params: &Params) -> Answer {
    match (method, segments) {
        ("GET", ["checkout", id]) => checkout_page(shared, id),
        ("POST", ["checkout", id, "pay"]) => pay_checkout(shared, id),
        ("GET", ["invoices", id]) => invoice_page(shared, id),
        ("GET", ["portal", id]) => portal_page(id),
        (method, segments) => match done(shared, method, segments, params) {
            Ok(value) => json_reply(200, &value),
            Err(problem) => json_reply(problem.status, &problem.body()),
        },
    }
}

fn done(shared: &Shared, method: &str, segments: &[&str], params: &Params) -> Result<Value, Problem> {
    match (method, segments) {
        ("GET", []) => Ok(json!({ "now": shared.now(), "calls": CALLS })),
        ("GET", [kind]) => listed(shared, kind).ok_or_else(|| no_route(method, segments)),
        ("POST", ["clock", "advance"]) => advance(shared, params),
        ("POST", ["fail"]) => fail(shared, params),
        ("POST", ["customers", id, "card"]) => {
            let known = shared.set_card(id, card(params)?);
            let unknown = || Problem::no_such("customer", id, None);
            known.then(|| json!({ "customer": id })).ok_or_else(unknown)
        }
        ("POST", ["invoices", id, "pay"]) => {
            let paid = shared.pay_invoice(id);
            let closed = || Problem::refused("invoice_not_open", "There is no open invoice of this id.");
            paid.then(|| json!({ "invoice": id, "status": "paid" }))
                .ok_or_else(closed)
        }
        ("POST", ["invoices", id, "write_off"]) => {
            let status = write_off(params)?;
            shared.write_off(id, status)?;
            Ok(json!({ "invoice": id, "status": status }))
        }
        ("POST", ["customers", id, "delete"]) => shared.delete_customer(id),
        ("POST", ["checkout", id, "complete"]) => shared
            .complete_checkout(id)
            .map(|subscription| json!({ "subscription": subscription })),
        ("POST", ["webhooks"]) => {
            shared.endpoint(
                &params.required("url")?,
                &params.required("secret")?,
                params.texts("events"),
            );
            Ok(json!({ "url": params.text("url") }))
        }
        ("POST", ["webhooks", "delivery"]) => {
            shared.delivery(delivery(params)?);
            Ok(json!({ "mode": params.text("mode") }))
        }
        ("POST", ["events", id, "resend"]) => {
            let known = shared.resend(id);
            let unknown = || Problem::no_such("event", id, None);
            known.then(|| json!({ "event": id })).ok_or_else(unknown)
        }
        ("POST", ["after_retries"]) => {
            shared.after_retries(exhausted(params)?);
            Ok(json!({ "then": params.text("then") }))
        }
        (method, segments) => Err(no_route(method, segments)),
    }
}

/// All objects of a kind; `None` when there is no such kind.
fn listed(shared: &Shared, kind: &str) -> Option<Value> {
    let listed = match kind {
        "calls" => calls(shared),
        "events" => shared.read(|it| it.events.iter().map(|it| it.body.clone()).collect()),
        "customers" => shared.read(|it| it.customers.values().map(objects::customer).collect()),
        "subscriptions" => shared.read(|account| {
            let subscriptions = account.subscriptions.values();
            subscriptions
                .map(|it| objects::subscription(account, it))
                .collect()
        }),
        "invoices" => shared.read(|account| {
            let invoices = account.invoices.values();
            invoices.map(|it| objects::invoice(account, it)).collect()
        }),
        _ => return None,
    };
    Some(listed)
}

fn no_route(method: &str, segments: &[&str]) -> Problem {
    Problem::no_route(method, &format!("/_fake/{}", segments.join("/")))
}

fn advance(shared: &Shared, params: &Params) -> Result<Value, Problem> {
    let mut seconds: i64 = 0;
    for (name, length) in [
        ("seconds", 1),
        ("minutes", 60),
        ("hours", 3_600),
        ("days", 86_400),
    ] {
        let count = params.number::<u32>(name)?.unwrap_or(0);
        seconds = seconds.saturating_add(i64::from(count) * length);
    }
    if seconds == 0 {
        return Err(Problem::missing("days"));
    }
    shared.advance_to(shared.now().saturating_add(seconds));
    Ok(json!({ "now": shared.now() }))
}

fn fail(shared: &Shared, params: &Params) -> Result<Value, Problem> {
    let name = params.required("failure")?;
    let names = Failure::ALL.map(Failure::as_str).join(", ");
    let unknown = || Problem::invalid("parameter_invalid", "failure", &format!("One of {names}."));
    let failure = Failure::parse(&name).ok_or_else(unknown)?;
    let path = params.text("path").unwrap_or_else(|| "/v1/".into());
    let matcher = match params.text("method") {
        Some(method) => Matcher::path(&path).method(&method),
        None => Matcher::path(&path),
    };
    let times = params.number("times")?.unwrap_or(1);
    shared.fail(matcher, failure, times);
    Ok(json!({ "failure": name, "path": path, "times": times }))
}

fn card(params: &Params) -> Result<Card, Problem> {
    match params.required("card")?.as_str() {
        "missing" => Ok(Card::Missing),
        "pays" => Ok(Card::Pays),
        "declines" => Ok(Card::Declines),
        "declines_times" => Ok(Card::DeclinesTimes(params.number("times")?.unwrap_or(1))),
        _ => {
            let text = "One of missing, pays, declines, declines_times.";
            Err(Problem::invalid("parameter_invalid", "card", text))
        }
    }
}

fn write_off(params: &Params) -> Result<&'static str, Problem> {
    match params.required("as")?.as_str() {
        "void" => Ok("void"),
        "uncollectible" => Ok("uncollectible"),
        _ => {
            let text = "One of void, uncollectible.";
            Err(Problem::invalid("parameter_invalid", "as", text))
        }
    }
}

fn delivery(params: &Params) -> Result<Delivery, Problem> {
    match params.required("mode")?.as_str() {
        "in_order" => Ok(Delivery::InOrder),
        "reordered" => Ok(Delivery::Reordered(params.number("seed")?.unwrap_or(1))),
        "duplicated" => Ok(Delivery::Duplicated),
        "lost" => Ok(Delivery::Lost(params.number("count")?.unwrap_or(1))),
        _ => {
            let text = "One of in_order, reordered, duplicated, lost.";
            Err(Problem::invalid("parameter_invalid", "mode", text))
        }
    }
}

fn exhausted(params: &Params) -> Result<Exhausted, Problem> {
    match params.required("then")?.as_str() {
        "unpaid" => Ok(Exhausted::Unpaid),
        "canceled" => Ok(Exhausted::Canceled),
        "past_due" => Ok(Exhausted::PastDue),
        _ => {
            let text = "One of unpaid, canceled, past_due.";
            Err(Problem::invalid("parameter_invalid", "then", text))
        }
    }
}

fn calls(shared: &Shared) -> Value {
    let call = |it: crate::Call| {
        json!({
            "method": it.method, "path": it.path, "key": it.key, "status": it.status, "replayed": it.replayed,
        })
    };
    shared.calls().into_iter().map(call).collect()
}

fn json_reply(status: u16, value: &Value) -> Answer {
    reply(status, "application/json", format!("{value:#}\n"))
}

fn checkout_page(shared: &Shared, id: &str) -> Answer {
    let status = shared.read(|it| it.checkouts.get(id).map(|it| it.status));
    match status {
        Some("open") => page(
            "Checkout",
            &format!("<form method=post action='/_fake/checkout/{id}/pay'>{BUTTON}"),
        ),
        Some(status) => page("Checkout", status),
        None => json_reply(404, &Problem::no_such("checkout.session", id, None).body()),
    }
}

fn pay_checkout(shared: &Shared, id: &str) -> Answer {
    if let Err(problem) = shared.complete_checkout(id) {
        return json_reply(problem.status, &problem.body());
    }
    let back = shared.read(|it| it.checkouts.get(id).and_then(|it| it.success_url.clone()));
    let back = back.unwrap_or_default().replace("{CHECKOUT_SESSION_ID}", id);
    let mut answer = reply(303, "text/plain", String::new());
    if let Ok(location) = HeaderValue::from_str(&back) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

fn invoice_page(shared: &Shared, id: &str) -> Answer {
    match shared.read(|it| it.invoices.get(id).map(|it| it.status)) {
        Some("open") => page(
            "Invoice",
            &format!("<form method=post action='/_fake/invoices/{id}/pay'>{BUTTON}"),
        ),
        Some(status) => page("Invoice", status),
        None => json_reply(404, &Problem::no_such("invoice", id, None).body()),
    }
}

fn portal_page(customer: &str) -> Answer {
    let known = customer
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let form = format!("<form method=post action='/_fake/customers/{customer}/card?card=pays'>{BUTTON}");
    page("Card", if known { &form } else { "" })
}

const BUTTON: &str = "<button>Pay with a pretended card</button></form>";

fn page(title: &str, body: &str) -> Answer {
    let text = format!("<!doctype html><title>{title} (not Stripe)</title><h1>{title}</h1>{body}");
    reply(200, "text/html; charset=utf-8", text)
}
