//! The OpenFeature Remote Evaluation Protocol, over the whole application.

use serde_json::{Value, json};
use tenantry_domain::flags::Bucket;
use tenantry_http::HttpConfig;
use tenantry_tests::{Options, Person, Reply, World};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    features::{define, redefine},
    openfeature::serve,
};

const ALL: &str = "/ofrep/v1/evaluate/flags";

async fn ask(world: &World, who: &Person, key: &str, context: Value) -> Reply {
    let body = json!({"context": context});
    world.post(who, &format!("{ALL}/{key}"), &body).await
}

/// A refusal in the protocol's own shape.
#[track_caller]
fn refused(reply: Reply, status: u16, body: Value) {
    let reply = reply.expect(status);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut json = reply.json();
    let details = json.as_object_mut().unwrap().remove("errorDetails").unwrap();
    assert!(!details.as_str().unwrap().is_empty());
    assert_eq!(json, body);
}

#[actix_web::test]
async fn one_flag_is_evaluated_for_whoever_the_context_names() {
    let world = World::new().await;
    let who = &world.acme.viewer;
    let rule = |level: &str, attribute: &str, value: &str, variant: &str| json!({"level": level, "when": [{"attribute": attribute, "operator": "in", "values": [value]}], "serve": {"variant": variant}});
    let rules = json!([
        rule("user", "country", "de", "blue"),
        rule("user", "role", "viewer", "green")
    ]);
    define(
        &world,
        "colour",
        json!({"type": "string", "variants": {"red": "#f00", "green": "#0f0", "blue": "#00f"},
        "default_variant": "red", "off_variant": "red", "rules": rules}),
    )
    .await;
    assert_eq!(
        ask(
            &world,
            who,
            "colour",
            json!({"targetingKey": "somebody", "country": "de"})
        )
        .await
        .expect(200)
        .json(),
        json!({"key": "colour", "value": "#00f", "variant": "blue", "reason": "TARGETING_MATCH",
            "metadata": {"level": "user", "lifecycle": "active"}})
    );
    let value = async |context| ask(&world, who, "colour", context).await.expect(200).json()["value"].clone();
    assert_eq!(
        value(json!({})).await,
        "#0f0",
        "the user of the credential, whose role is known"
    );
    assert_eq!(value(json!({"targetingKey": who.id})).await, "#0f0");
    assert_eq!(
        value(json!({"targetingKey": who.id, "role": "admin"})).await,
        "#0f0",
        "what is stored counts"
    );
    assert_eq!(
        value(json!({"targetingKey": "somebody"})).await,
        "#f00",
        "of somebody else no role is known"
    );
    assert_eq!(
        value(json!({"targetingKey": "somebody", "role": "viewer"})).await,
        "#0f0",
        "but what is said"
    );
    let none = ask(&world, who, "colour", json!({"targetingKey": "somebody"}))
        .await
        .json();
    assert_eq!(none["reason"], "UNKNOWN");
    let without = world
        .post(who, &format!("{ALL}/colour"), &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(without["variant"], "green");
}

#[actix_web::test]
async fn what_cannot_be_evaluated_is_refused_in_the_words_of_the_protocol() {
    let world = World::new().await;
    let who = &world.acme.viewer;
    define(&world, "shown", json!({})).await;
    define(&world, "hidden", json!({"client_visible": false})).await;
    for key in ["hidden", "nothing"] {
        refused(
            ask(&world, who, key, json!({})).await,
            404,
            json!({"key": key, "errorCode": "FLAG_NOT_FOUND"}),
        );
    }
    let big = json!({"attribute": "x".repeat(70_000)});
    for context in [
        json!([]),
        json!("x"),
        json!({"targetingKey": 7}),
        json!({"targetingKey": ""}),
        json!({"targetingKey": "k".repeat(257)}),
        big,
    ] {
        refused(
            ask(&world, who, "shown", context.clone()).await,
            400,
            json!({"key": "shown", "errorCode": "INVALID_CONTEXT"}),
        );
        let all = world.post(who, ALL, &json!({"context": context})).await;
        refused(all, 400, json!({"errorCode": "INVALID_CONTEXT"}));
    }
    for body in ["", "{", "[]", "7", "nil", "{\"context\": {\"a\": NaN}}"] {
        let request = world
            .client
            .request(actix_web::http::Method::POST, ALL)
            .bearer(&who.access_token);
        let reply = request
            .header("Content-Type", "application/json")
            .body(body)
            .await;
        refused(reply, 400, json!({"errorCode": "PARSE_ERROR"}));
    }
    world
        .client
        .post(ALL, &json!({}))
        .await
        .problem(401, "unauthenticated");
    // What callers send beside what there is to say makes no difference.
    for context in [
        json!(null),
        json!({"a": {"b": [1, null]}, "plan": "business", "": ""}),
    ] {
        ask(&world, who, "shown", context).await.expect(200);
    }
}

#[actix_web::test]
async fn the_tenant_comes_from_the_credential_and_a_context_can_only_agree() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let rule = json!({"level": "tenant", "when": [{"attribute": "tenant_id", "operator": "in", "values": [globex.id]}], "serve": {"variant": "on"}});
    define(&world, "theirs", json!({"rules": [rule]})).await;
    for tenant in [json!(acme.id), json!("acme")] {
        let reply = ask(&world, &acme.viewer, "theirs", json!({"tenant": tenant}))
            .await
            .expect(200)
            .json();
        assert_eq!(reply["value"], false);
    }
    for tenant in [
        json!(globex.id),
        json!("globex"),
        json!("nobody"),
        json!(7),
        json!(null),
    ] {
        let context = json!({"tenant": tenant});
        refused(
            ask(&world, &acme.viewer, "theirs", context.clone()).await,
            400,
            json!({"key": "theirs", "errorCode": "INVALID_CONTEXT"}),
        );
        let all = world.post(&acme.viewer, ALL, &json!({"context": context})).await;
        refused(all, 400, json!({"errorCode": "INVALID_CONTEXT"}));
    }
    // Calling it an attribute does not help either.
    let lie = json!({"tenant_id": globex.id, "tenant_slug": "globex"});
    assert_eq!(
        ask(&world, &acme.viewer, "theirs", lie).await.expect(200).json()["value"],
        false
    );
    assert_eq!(
        ask(&world, &globex.viewer, "theirs", json!({}))
            .await
            .expect(200)
            .json()["value"],
        true
    );
}

#[actix_web::test]
async fn all_flags_come_with_a_tag_that_changes_with_whatever_may_change_them() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let rollout = |percent: u32| {
        json!({"tenant_overridable": true, "rules": [{"level": "global",
            "serve": {"split": {"by": "tenant", "parts": [{"variant": "on", "percent": percent}]}}}]})
    };
    define(&world, "rollout", rollout(20)).await;
    define(&world, "static", json!({})).await;
    let all = async |who: &Person, context: Value, tag: &str| {
        let request = world.post(
            who,
            &format!("{ALL}?flagConfigEtag=x&flagConfigLastModified=7"),
            &json!({"context": context}),
        );
        request.header("If-None-Match", tag).await
    };
    let first = all(&acme.viewer, json!({"b": 1, "a": 2}), "\"unknown\"")
        .await
        .expect(200);
    let tag = first.header("etag").unwrap().to_owned();
    let json = first.json();
    let on = u32::from(Bucket::of("rollout", &acme.id.to_string()).number()) < 2_000;
    assert_eq!(json["flags"][0]["value"], on);
    assert_eq!(
        json["flags"][1],
        json!({"key": "static", "value": false, "variant": "off", "reason": "STATIC", "metadata": {"level": "default", "lifecycle": "active"}})
    );
    let uri = json["eventStreams"][0]["endpoint"]["requestUri"].clone();
    let version = json["metadata"]["version"].as_str().unwrap();
    assert!(
        uri.as_str()
            .unwrap()
            .starts_with(&format!("/ofrep/v1/events?since={version}&ticket=")),
        "{uri}"
    );
    assert_eq!(
        json["eventStreams"],
        json!([{"type": "sse", "endpoint": {"requestUri": uri}, "inactivityDelaySec": 120}])
    );
    let unchanged = all(&acme.viewer, json!({"a": 2, "b": 1}), &tag).await.expect(304);
    assert_eq!(
        (unchanged.bytes.len(), unchanged.header("etag")),
        (0, Some(tag.as_str()))
    );
    all(&acme.viewer, json!({"a": 2, "b": 1}), &format!("\"x\", W/{tag}"))
        .await
        .expect(304);
    all(&acme.viewer, json!({"a": 2, "b": 2}), &tag).await.expect(200);
    all(&acme.viewer, json!({"a": 2, "b": 1, "targetingKey": "x"}), &tag)
        .await
        .expect(200);
    all(&acme.admin, json!({"a": 2, "b": 1}), &tag).await.expect(200);
    all(&globex.viewer, json!({"a": 2, "b": 1}), &tag)
        .await
        .expect(200);
    // Another tenant's choice is nothing to this one; its own is, and so is a change of the definition.
    let path = "/api/v1/features/rollout/override";
    world
        .put(&globex.admin, path, &json!({"variant": "on"}))
        .await
        .expect(200);
    all(&acme.viewer, json!({"a": 2, "b": 1}), &tag).await.expect(304);
    world
        .put(&acme.admin, path, &json!({"variant": "on"}))
        .await
        .expect(200);
    let second = all(&acme.viewer, json!({"a": 2, "b": 1}), &tag).await.expect(200);
    assert_eq!(second.json()["flags"][0]["value"], true);
    redefine(&world, "static", json!({"enabled": false})).await;
    all(
        &acme.viewer,
        json!({"a": 2, "b": 1}),
        second.header("etag").unwrap(),
    )
    .await
    .expect(200);
}

#[actix_web::test]
async fn a_rule_about_another_tenant_changes_nothing_that_is_seen() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let about = |tenants: &[&str]| {
        json!({"rules": [{"level": "tenant", "description": "early access",
            "when": [{"attribute": "tenant_slug", "operator": "in", "values": tenants}],
            "serve": {"variant": "on"}}]})
    };
    define(&world, "early", json!({})).await;
    let all = async |who: &Person| world.post(who, ALL, &json!({})).await.expect(200);
    let seen = async |who: &Person| {
        let reply = all(who).await;
        let json = reply.json();
        let version = json["metadata"]["version"].as_str().unwrap().to_owned();
        (
            version,
            reply.header("etag").unwrap().to_owned(),
            json["flags"].clone(),
        )
    };
    // The stream of somebody who has seen this version.
    let missed = async |who: &Person, version: &str| {
        let request = world
            .get(who, "/ofrep/v1/events")
            .header("Last-Event-ID", version);
        request.await.expect(200).text().contains("refetchEvaluation")
    };
    let (before, theirs) = (seen(&acme.viewer).await, seen(&globex.viewer).await);
    assert_ne!(before.0, theirs.0, "equal flags look different to two tenants");
    redefine(&world, "early", about(&["globex"])).await;
    assert_eq!(seen(&acme.viewer).await, before);
    assert!(!missed(&acme.viewer, &before.0).await);
    assert_ne!(seen(&globex.viewer).await, theirs);
    assert!(missed(&globex.viewer, &theirs.0).await);

    // Neither do the others in a rule that is about this tenant too.
    redefine(&world, "early", about(&["globex", "acme"])).await;
    let with = seen(&acme.viewer).await;
    assert_ne!(with, before);
    redefine(&world, "early", about(&["acme", "initech"])).await;
    assert_eq!(seen(&acme.viewer).await, with);
    assert!(!missed(&acme.viewer, &with.0).await);
}

#[actix_web::test]
async fn evaluating_is_not_writing() {
    let world = World::new().await;
    define(&world, "shown", json!({})).await;
    let before = world.digest(&world.acme).await;
    ask(&world, &world.acme.viewer, "shown", json!({}))
        .await
        .expect(200);
    world.post(&world.acme.viewer, ALL, &json!({})).await.expect(200);
    assert_eq!(world.digest(&world.acme).await, before);
    world.set_status(&world.acme, "suspended").await;
    ask(&world, &world.acme.viewer, "shown", json!({}))
        .await
        .expect(200);
}

#[actix_web::test]
async fn a_stream_begins_with_what_was_missed() {
    let world = World::new().await;
    define(&world, "shown", json!({})).await;
    let revision = world.post(&world.acme.viewer, ALL, &json!({})).await.json()["metadata"]["version"]
        .as_str()
        .unwrap()
        .to_owned();
    let stream = async |last: Option<&str>| {
        let request = world.get(&world.acme.viewer, "/ofrep/v1/events");
        let request = last
            .into_iter()
            .fold(request, |request, last| request.header("Last-Event-ID", last));
        let reply = request.await.expect(200);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        reply.text()
    };
    assert!(!stream(None).await.contains("refetchEvaluation"));
    assert!(!stream(Some(&revision)).await.contains("refetchEvaluation"));
    let missed = stream(Some("before")).await;
    assert!(
        missed.contains(&format!("id: {revision}\nevent: message\ndata: {{")),
        "{missed}"
    );
    assert!(missed.contains("\"type\":\"refetchEvaluation\""), "{missed}");
}

/// The head of the answer to a request for the stream, and the connection that keeps it open.
async fn open_stream(url: &str, who: &Person) -> (String, TcpStream) {
    let address = url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let token = &who.access_token;
    let request =
        format!("GET /ofrep/v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.contains("\r\n\r\n") {
        let mut some = [0; 1_024];
        let read = connection.read(&mut some).await.unwrap();
        assert!(read > 0, "{head}");
        head.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    (head.to_lowercase(), connection)
}

#[actix_web::test]
async fn a_tenant_and_a_server_have_so_many_streams_and_one_that_ends_gives_its_place_up() {
    let options = Options::default();
    let http = HttpConfig {
        event_stream_lifetime: std::time::Duration::from_secs(60),
        event_streams: 3,
        event_streams_per_tenant: 2,
        ..options.http
    };
    let world = World::with(Options { http, ..options }).await;
    let (url, server) = serve(&world);
    let (acme, globex) = (&world.acme, &world.globex);
    let mut open = Vec::new();
    for who in [&acme.viewer, &acme.admin, &globex.viewer] {
        let (head, connection) = open_stream(&url, who).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        open.push(connection);
    }
    let (head, _) = open_stream(&url, &acme.member).await;
    assert!(
        head.starts_with("http/1.1 429") && head.contains("retry-after: 60"),
        "{head}"
    );
    let (head, _) = open_stream(&url, &globex.admin).await;
    assert!(
        head.starts_with("http/1.1 503") && head.contains("retry-after: 60"),
        "{head}"
    );
    // A stream ends with its session.
    let logout = world
        .client
        .request(actix_web::http::Method::POST, "/api/v1/auth/logout");
    logout.bearer(&acme.viewer.access_token).await.expect(204);
    let freed = async {
        while !open_stream(&url, &globex.admin)
            .await
            .0
            .starts_with("http/1.1 200")
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), freed).await;
    waited.expect("the place of a stream that ended is free");
    server.stop(false).await;
}

#[actix_web::test]
async fn a_ticket_stands_for_its_token_at_the_stream_and_nowhere_else() {
    let world = World::new().await;
    let who = &world.acme.viewer;
    let all = world.post(who, ALL, &json!({})).await.expect(200).json();
    let uri = all["eventStreams"][0]["endpoint"]["requestUri"]
        .as_str()
        .unwrap()
        .to_owned();
    let stream = async || world.client.get(&uri).await;
    assert!(
        !stream().await.expect(200).text().contains("refetchEvaluation"),
        "nothing was missed"
    );
    define(&world, "shown", json!({})).await;
    assert!(
        stream().await.expect(200).text().contains("refetchEvaluation"),
        "now something was"
    );
    let ticket = uri.rsplit_once("ticket=").unwrap().1;
    for path in ["/api/v1/features", "/api/v1/auth/me"] {
        let path = format!("{path}?ticket={ticket}");
        world.client.get(&path).await.problem(401, "unauthenticated");
        let bearer = world.client.get(&path).bearer(ticket);
        bearer.await.problem(401, "unauthenticated");
    }
    for forged in ["", "x", &ticket[1..], &who.access_token] {
        let path = format!("/ofrep/v1/events?ticket={forged}");
        world.client.get(&path).await.problem(401, "unauthenticated");
    }
    let logout = world
        .client
        .request(actix_web::http::Method::POST, "/api/v1/auth/logout");
    logout.bearer(&who.access_token).await.expect(204);
    stream().await.problem(401, "token_revoked");
}

/// A ticket names a tenant like a header does: beside a bearer token of another one the request is refused and recorded.
#[actix_web::test]
async fn ticket_of_another_tenant_beside_a_bearer_is_a_mismatch() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let address = async |who: &Person| {
        let all = world.post(who, ALL, &json!({})).await.expect(200).json();
        let uri = &all["eventStreams"][0]["endpoint"]["requestUri"];
        uri.as_str().unwrap().to_owned()
    };
    let (own, foreign) = (address(&acme.viewer).await, address(&globex.viewer).await);
    let ticket = foreign.rsplit_once("ticket=").unwrap().1;
    let stream = async |uri: &str| {
        let request = world.client.get(uri).bearer(&acme.viewer.access_token);
        request.await
    };
    let before = world.digest(globex).await;
    stream(&foreign).await.problem(403, "tenant_mismatch");
    assert_eq!(world.digest(globex).await, before);
    let recorded = world.audit(acme).await;
    let mismatches = recorded.iter().filter(|(action, _)| action == "tenant.mismatch");
    assert_eq!(mismatches.count(), 1, "{recorded:?}");
    // Its own ticket agrees, and what is no ticket names no tenant.
    stream(&own).await.expect(200);
    stream("/ofrep/v1/events?ticket=nonsense").await.expect(200);
    let twice = format!("{foreign}&ticket={ticket}");
    stream(&twice).await.problem(422, "validation_failed");
    // Expired since, it still names its tenant.
    world.clock.advance(chrono::Duration::minutes(16));
    let login = world
        .login("acme", &acme.viewer.email, tenantry_tests::PASSWORD)
        .await;
    let login = login.expect(200).json();
    let fresh = world
        .client
        .get(&foreign)
        .bearer(login["access_token"].as_str().unwrap());
    fresh.await.problem(403, "tenant_mismatch");
}
