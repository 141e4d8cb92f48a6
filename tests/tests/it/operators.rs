//! Operators of the platform: a login of their own, what they do across tenants, and the record of it.

use actix_web::http::Method;
use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::operations::OperatorRole;
use tenantry_tenancy::OperatorCx;
use tenantry_tenancy::admin::operator::{self, CreatedOperator, NewOperator, OperatorError};
use tenantry_tests::{PASSWORD, Reply, Request, World};

const OLGA: &str = "olga@platform.example";
const TENANTS: &str = "/api/v1/admin/tenants";

async fn login(world: &World, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    world.client.post("/api/v1/admin/login", &body).await
}

fn get(world: &World, token: &str, path: &str) -> Request {
    world.client.get(path).bearer(token)
}

async fn change(world: &World, token: &str, what: &str, body: &Value) -> Reply {
    let path = format!("{TENANTS}/{}/{what}", world.acme.id);
    world.client.post(&path, body).bearer(token).await
}

fn slugs(page: &Value) -> Vec<String> {
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| row["slug"].as_str().unwrap().to_owned()).collect()
}

fn new_operator(email: &str, full_name: &str, password: Option<String>) -> NewOperator {
    NewOperator {
        email: email.to_owned(),
        full_name: full_name.to_owned(),
        role: OperatorRole::Owner,
        password,
        is_own_password: true,
    }
}

async fn reset_password(
    cx: &OperatorCx,
    email: &str,
    password: Option<String>,
) -> Result<CreatedOperator, OperatorError> {
    let id = operator::id_of(cx, email).await?;
    operator::reset_password(cx, id, password).await
}

#[actix_web::test]
async fn an_operator_logs_in_and_gets_a_short_token_without_a_tenant() {
    let world = World::new().await;
    world.operator(OLGA).await;
    let answer = login(&world, "Olga@Platform.example", PASSWORD)
        .await
        .expect(200)
        .json();
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 900);
    assert_eq!(answer["operator"]["email"], OLGA);
    assert!(answer["operator"].get("password_hash").is_none());
    let token = answer["access_token"].as_str().unwrap();
    let claims = claims_of(token);
    assert_eq!(claims["aud"], "tenantry-api-admin");
    assert!(
        claims.get("tid").is_none() && claims.get("role").is_none(),
        "{claims}"
    );
    get(&world, token, TENANTS).await.expect(200);
    world.clock.advance(Duration::minutes(15) + Duration::seconds(30));
    get(&world, token, TENANTS).await.problem(401, "token_expired");
}

fn claims_of(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[actix_web::test]
async fn an_unknown_address_a_wrong_password_and_a_deactivated_operator_get_the_same_answer() {
    let world = World::new().await;
    world.operator(OLGA).await;
    world.operator("gone@platform.example").await;
    operator::deactivate(&world.operator_cx(), "gone@platform.example")
        .await
        .unwrap();
    let attempts = [
        (OLGA, "wrong horse"),
        ("nobody@platform.example", PASSWORD),
        ("gone@platform.example", PASSWORD),
        ("my secret password", PASSWORD),
        // A user of a tenant is no operator.
        ("admin@acme.example", PASSWORD),
    ];
    let mut answers = Vec::new();
    for (email, password) in attempts {
        let reply = login(&world, email, password)
            .await
            .problem(401, "invalid_credentials");
        answers.push(reply.comparable());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    let events = world.operator_events().await;
    let failed: Vec<_> = events
        .iter()
        .filter(|(action, _)| action == "operator.login_failed")
        .map(|(_, row)| row["details"]["email"].clone())
        .collect();
    assert_eq!(failed.len(), attempts.len());
    // What is no address may be a password in the wrong box, and is not kept.
    assert_eq!((&failed[0], &failed[3]), (&json!(OLGA), &Value::Null));
}

#[actix_web::test]
async fn a_deactivated_operator_is_refused_at_once() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    get(&world, &token, TENANTS).await.expect(200);
    operator::deactivate(&world.operator_cx(), OLGA).await.unwrap();
    get(&world, &token, TENANTS).await.problem(401, "token_revoked");
    change(&world, &token, "suspend", &json!({"reason": "x"}))
        .await
        .problem(401, "token_revoked");
}

#[actix_web::test]
async fn activated_operator_logs_in_again_and_former_tokens_stay_invalid() {
    let world = World::new().await;
    let former = world.operator(OLGA).await;
    let cx = world.operator_cx();
    operator::deactivate(&cx, OLGA).await.unwrap();
    assert!(operator::activate(&cx, OLGA).await.unwrap().is_active);
    get(&world, &former, TENANTS).await.problem(401, "token_revoked");
    let login = login(&world, OLGA, PASSWORD).await.expect(200);
    let token = login.json()["access_token"].as_str().unwrap().to_owned();
    get(&world, &token, TENANTS).await.expect(200);
}

#[actix_web::test]
async fn an_address_is_one_operators_and_input_is_checked() {
    let world = World::new().await;
    let cx = world.operator_cx();
    let created = operator::create(&cx, new_operator(OLGA, "Olga", None))
        .await
        .unwrap();
    let password = created.generated_password.unwrap();
    login(&world, OLGA, password.reveal()).await.expect(200);
    let again = operator::create(&cx, new_operator("OLGA@platform.example", "Olga", None)).await;
    assert!(matches!(again, Err(OperatorError::EmailTaken)), "{again:?}");
    for (email, name, password) in [
        ("nonsense", "Olga", None),
        ("o@o.example", " ", None),
        ("o@o.example", "Olga", Some("short".to_owned())),
    ] {
        let refused = operator::create(&cx, new_operator(email, name, password)).await;
        assert!(matches!(refused, Err(OperatorError::Invalid(_))), "{refused:?}");
    }
    let nobody = operator::deactivate(&cx, "nobody@platform.example").await;
    assert!(matches!(nobody, Err(OperatorError::NotFound)), "{nobody:?}");
}

#[actix_web::test]
async fn tenants_are_listed_in_pages_and_by_filter() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let list = async |query: &str| {
        let path = format!("{TENANTS}?{query}");
        get(&world, &token, &path).await
    };
    let all = list("").await.expect(200).json();
    assert_eq!(slugs(&all), ["globex", "acme"]);
    let first = list("limit=1").await.expect(200);
    assert!(
        first
            .header("link")
            .is_some_and(|link| link.contains("rel=\"next\""))
    );
    let first = first.json();
    assert_eq!(slugs(&first), ["globex"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = list(&format!("limit=1&cursor={cursor}")).await.expect(200).json();
    assert_eq!(
        (slugs(&second), &second["next_cursor"]),
        (vec!["acme".to_owned()], &Value::Null)
    );
    list(&format!("status=active&cursor={cursor}"))
        .await
        .problem(400, "invalid_cursor");
    let other = world.operator("otto@platform.example").await;
    let path = format!("{TENANTS}?limit=1&cursor={cursor}");
    get(&world, &other, &path).await.problem(400, "invalid_cursor");

    assert_eq!(slugs(&list("q=ACME").await.expect(200).json()), ["acme"]);
    assert_eq!(slugs(&list("q=corp").await.expect(200).json()), ["globex"]);
    assert_eq!(slugs(&list("q=%25").await.expect(200).json()), [""; 0]);
    assert_eq!(slugs(&list("plan=nothing").await.expect(200).json()), [""; 0]);
    world.set_status(&world.acme, "deleted").await;
    assert_eq!(slugs(&list("status=deleted").await.expect(200).json()), ["acme"]);
    list("status=lost").await.problem(422, "validation_failed");
    list("tenant=acme").await.problem(422, "unknown_field");
    list("q=%00").await.problem(422, "validation_failed");
}

#[actix_web::test]
async fn a_tenant_is_suspended_and_resumed_with_a_reason_that_is_recorded() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let globex = world.digest(&world.globex).await;
    let reply = change(
        &world,
        &token,
        "suspend",
        &json!({"reason": "invoice 4711 unpaid"}),
    )
    .await;
    let suspended = reply.clone().expect(200).json();
    assert_eq!(
        (&suspended["status"], &suspended["version"]),
        (&json!("suspended"), &json!(2))
    );
    assert_eq!(reply.header("etag"), Some("\"2\""));
    let body = json!({"name": "No"});
    let write = || world.post(&world.acme.admin, "/api/v1/projects", &body);
    write().await.problem(403, "tenant_suspended");
    let read = get(&world, &token, &format!("{TENANTS}/{}", world.acme.id));
    assert_eq!(read.await.expect(200).json()["status"], "suspended");
    change(&world, &token, "resume", &json!({"reason": "paid"}))
        .await
        .expect(200);
    write().await.expect(201);
    assert_eq!(world.digest(&world.globex).await, globex);

    let events = world.operator_events().await;
    let of_acme: Vec<_> = events
        .iter()
        .filter(|(_, row)| row["target_tenant"] == json!(world.acme.id))
        .map(|(action, row)| (action.as_str(), row["reason"].as_str()))
        .collect();
    assert_eq!(
        of_acme,
        [
            ("tenant.suspended", Some("invoice 4711 unpaid")),
            ("tenant.read", None),
            ("tenant.resumed", Some("paid")),
        ]
    );
    let (_, row) = events
        .iter()
        .find(|(action, _)| action == "tenant.suspended")
        .unwrap();
    assert_eq!(row["ip"], "203.0.113.7");
    let olga = row["operator_id"].as_str().unwrap();
    let told = world.audit(&world.acme).await;
    let (_, told) = told
        .iter()
        .find(|(action, _)| action == "tenant.suspended")
        .unwrap();
    assert_eq!(told["before"], json!({"status": "active"}));
    assert_eq!(
        told["after"],
        json!({"status": "suspended", "reason": "invoice 4711 unpaid", "operator_id": olga})
    );
    assert_eq!(told["request_id"], row["request_id"]);
}

#[actix_web::test]
async fn what_cannot_be_done_to_a_tenant_is_said_clearly() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    for body in [
        json!({}),
        json!({"reason": ""}),
        json!({"reason": "a\nb"}),
        json!({"reason": 1}),
    ] {
        let reply = change(&world, &token, "suspend", &body)
            .await
            .problem(422, "validation_failed");
        assert_eq!(reply.json()["errors"][0]["pointer"], "/reason");
    }
    let extra = json!({"reason": "x", "force": true});
    change(&world, &token, "suspend", &extra)
        .await
        .problem(422, "unknown_field");
    let nobody = format!("{TENANTS}/0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11");
    get(&world, &token, &nobody).await.problem(404, "not_found");
    get(&world, &token, &format!("{TENANTS}/nonsense"))
        .await
        .problem(404, "not_found");
    let suspend = world
        .client
        .post(&format!("{nobody}/suspend"), &json!({"reason": "x"}));
    suspend.bearer(&token).await.problem(404, "not_found");
    let events = world.operator_events().await;
    let looked = events
        .iter()
        .filter(|(action, _)| action == "tenant.read")
        .count();
    assert_eq!(looked, 1, "looking for what is not there is recorded too");

    world.set_status(&world.acme, "deleted").await;
    let reply = change(&world, &token, "resume", &json!({"reason": "x"})).await;
    let problem = reply.problem(409, "conflict").json();
    assert_eq!(
        problem["detail"],
        "The transition 'resume' is not possible: the tenant is deleted."
    );
    let read = get(&world, &token, &format!("{TENANTS}/{}", world.acme.id));
    assert_eq!(read.await.expect(200).json()["status"], "deleted");
}

#[actix_web::test]
async fn a_change_whose_record_cannot_be_stored_does_not_happen() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let no_more = "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no more'; END$$;
        CREATE TRIGGER no_more BEFORE INSERT ON operator_events FOR EACH ROW WHEN (NEW.action = 'tenant.suspended')
        EXECUTE FUNCTION no_more()";
    sqlx::raw_sql(no_more)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    // The tenant's own log says what was begun, and that it failed.
    let rows = async || {
        let mut digest = world.digest(&world.acme).await;
        digest.retain(|(table, _)| *table != "audit_events");
        digest
    };
    let before = rows().await;
    let reply = change(&world, &token, "suspend", &json!({"reason": "x"})).await;
    reply.problem(500, "internal");
    assert_eq!(rows().await, before);
    let told = world.audit(&world.acme).await;
    let told: Vec<_> = told.iter().map(|(action, _)| action.as_str()).collect();
    assert!(
        told.ends_with(&["tenant.suspended", "tenant.change_failed"]),
        "{told:?}"
    );
}

#[actix_web::test]
async fn attempts_are_limited_by_address_before_the_body_is_read() {
    let rate = tenantry_domain::operations::Rate::new(4, 4).unwrap();
    let options = tenantry_tests::Options {
        credential_rate: rate,
        ..tenantry_tests::Options::default()
    };
    let world = World::with(options).await;
    for _ in 0..2 {
        login(&world, OLGA, "wrong horse").await.expect(401);
    }
    let request = world
        .client
        .request(Method::POST, "/api/v1/admin/login")
        .body("nonsense");
    request.await.problem(429, "rate_limited");
}

#[actix_web::test]
async fn reset_password_ends_an_operators_tokens_at_once() {
    let world = World::new().await;
    let token = world.operator(OLGA).await;
    let other = world.operator("otto@platform.example").await;
    let cx = world.operator_cx();
    let reset = reset_password(&cx, "Olga@Platform.example", None).await.unwrap();
    let generated = reset.generated_password.unwrap();
    get(&world, &token, TENANTS).await.problem(401, "token_revoked");
    get(&world, &other, TENANTS).await.expect(200);
    login(&world, OLGA, PASSWORD)
        .await
        .problem(401, "invalid_credentials");
    let again = login(&world, OLGA, generated.reveal()).await.expect(200).json();
    let again = again["access_token"].as_str().unwrap();
    get(&world, again, TENANTS).await.expect(200);
    let given = reset_password(&cx, OLGA, Some("a staple of horses".into()))
        .await
        .unwrap();
    assert_eq!(given.generated_password, None);
    get(&world, again, TENANTS).await.expect(401);
    login(&world, OLGA, "a staple of horses").await.expect(200);
    let weak = reset_password(&cx, OLGA, Some("short".into())).await;
    assert!(matches!(weak, Err(OperatorError::Invalid(_))));
    let nobody = reset_password(&cx, "nobody@platform.example", None).await;
    assert!(matches!(nobody, Err(OperatorError::NotFound)));
    let events = world.operator_events().await;
    let resets = events
        .iter()
        .filter(|(action, _)| action == "operator.password_reset");
    let resets: Vec<_> = resets.map(|(_, row)| row.to_string()).collect();
    assert_eq!(resets.len(), 2);
    assert!(
        resets
            .iter()
            .all(|row| !row.contains(generated.reveal()) && !row.contains("argon2"))
    );
}

/// A reset password brings nobody back who was deactivated.
#[actix_web::test]
async fn deactivated_operators_stay_out_after_a_reset() {
    let world = World::new().await;
    world.operator(OLGA).await;
    let cx = world.operator_cx();
    operator::deactivate(&cx, OLGA).await.unwrap();
    let reset = reset_password(&cx, OLGA, None).await.unwrap();
    let password = reset.generated_password.unwrap();
    login(&world, OLGA, password.reveal())
        .await
        .problem(401, "invalid_credentials");
}
