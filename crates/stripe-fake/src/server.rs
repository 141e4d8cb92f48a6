use std::net::TcpListener;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming as Body};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot::Receiver;

use crate::account::API_VERSION;
use crate::control;
use crate::hold::{Fate, Gate, Held};
use crate::params::Params;
use crate::state::{Incoming, Outcome, Shared};
use crate::webhooks;

/// More than any call of Stripe's has.
const LARGEST_BODY: usize = 1 << 20;

/// Why a connection is closed instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
struct Closed;

/// Answers until it is told to stop.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, stopped: Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    tokio::spawn(webhooks::deliver(Arc::clone(&shared)));
    tokio::spawn(tick(Arc::clone(&shared)));
    let accept = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                // How a connection ends is the client's business.
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopped => {}
    }
}

/// Notices what is due when time passes by itself and nobody calls.
async fn tick(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        shared.read(|_| ());
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Result<Response<Full<Bytes>>, Closed> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
        return Err(Closed);
    };
    let body = body.to_bytes();
    let (method, path) = (head.method.as_str(), head.uri.path());
    let params = parameters(&head.headers, head.uri.query(), &body);
    if path == "/_fake" || path.starts_with("/_fake/") {
        return Ok(control::answer(&shared, method, path, &params));
    }
    let gate = shared.gate(method, path, &params);
    let called = call(Arc::clone(&shared), head, params, gate);
    // A task of its own: what has arrived goes on although whoever sent it may be gone.
    match tokio::spawn(called).await.unwrap_or(Outcome::Closed) {
        Outcome::Answer {
            status,
            body,
            replayed,
        } => {
            let mut answer = reply(status, "application/json", body.to_string());
            let headers = answer.headers_mut();
            headers.insert("stripe-version", value(API_VERSION));
            headers.insert("request-id", value("req_fake"));
            if replayed {
                headers.insert("idempotent-replayed", value("true"));
            }
            Ok(answer)
        }
        Outcome::Garbage => Ok(reply(200, "text/html", "<html>Bad Gateway</html>".into())),
        Outcome::Silence => {
            tokio::time::sleep(shared.hang).await;
            Err(Closed)
        }
        Outcome::Closed => Err(Closed),
    }
}

/// Carries a call out; one that is held when it is let go, or at once and answers then.
async fn call(shared: Arc<Shared>, head: Parts, params: Params, gate: Option<Arc<Gate>>) -> Outcome {
    let bearer = bearer(&head.headers);
    let incoming = Incoming {
        method: head.method.as_str(),
        path: head.uri.path(),
        key: text(&head.headers, "idempotency-key"),
        bearer: bearer.as_deref(),
        params,
    };
    match gate.map(|gate| (gate.held, gate)) {
        None => shared.call(&incoming),
        Some((Held::BeforeEffect, gate)) => match gate.wait().await {
            Fate::GoesOn => shared.call(&incoming),
            Fate::Lost => Outcome::Closed,
        },
        Some((Held::AfterEffect, gate)) => {
            let outcome = shared.call(&incoming);
            match gate.wait().await {
                Fate::GoesOn => outcome,
                Fate::Lost => Outcome::Closed,
            }
        }
    }
}

fn parameters(headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Params {
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/json"));
    let query = Params::form(query.unwrap_or_default().as_bytes());
    let body = if is_json {
        Params::json(body).unwrap_or_default()
    } else {
        Params::form(body)
    };
    query.merged(body)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The key: as a bearer token, or as the user of basic authentication, which `curl -u sk_test_…:` sends.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let given = text(headers, AUTHORIZATION.as_str())?;
    if let Some(token) = given.strip_prefix("Bearer ") {
        return Some(token.to_owned());
    }
    let decoded = unbase64(given.strip_prefix("Basic ")?)?;
    let decoded = String::from_utf8(decoded).ok()?;
    Some(decoded.split(':').next().unwrap_or_default().to_owned())
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits: u32 = 0;
    let mut count = 0;
    let mut bytes = Vec::new();
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = alphabet.iter().position(|known| *known == byte)?;
        bits = (bits << 6) | u32::try_from(digit).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn value(text: &'static str) -> hyper::header::HeaderValue {
    hyper::header::HeaderValue::from_static(text)
}

/// An answer of a kind.
pub fn reply(status: u16, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, value(kind));
    answer
}
