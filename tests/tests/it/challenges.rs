//! Challenges that keep programs from signing up, registering and asking for links.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;

use chrono::Duration;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_domain::identity::{
    ChallengeError, ChallengeOffer, ChallengePurpose, ChallengeVerifier, Challenges,
};
use tenantry_persistence::{PgSpentChallenges, Pool, PoolConfig};
use tenantry_tests::{Client, Options, PASSWORD, Request, World};

const CHALLENGE: &str = "/api/v1/auth/challenge";
const HEADER: &str = "Challenge-Response";

fn all() -> Options {
    Options {
        proof_of_work: ChallengePurpose::ALL.into(),
        ..Options::default()
    }
}

/// Makes a request for a new name.
type Make = fn(&Client, &str) -> Request;

async fn solved(client: &Client, purpose: &str) -> String {
    let path = format!("{CHALLENGE}?purpose={purpose}");
    let reply = client.get(&path).await.expect(200);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let offer = reply.json();
    assert_eq!(
        (
            &offer["required"],
            &offer["kind"],
            &offer["algorithm"],
            &offer["difficulty"]
        ),
        (
            &json!(true),
            &json!("proof_of_work"),
            &json!("SHA-256"),
            &json!(8)
        )
    );
    let challenge = offer["challenge"].as_str().unwrap();
    let mut answers = (0..).map(|nonce| format!("{challenge}.{nonce}"));
    answers
        .find(|text| Sha256::digest(text.as_bytes())[0] == 0)
        .unwrap()
}

fn sign_up(client: &Client, slug: &str) -> Request {
    let admin = json!({"email": "ada@new.example", "full_name": "Ada", "password": PASSWORD});
    let body = json!({"name": "New", "slug": slug, "admin": admin});
    client.post("/api/v1/tenants", &body)
}

fn register(client: &Client, name: &str) -> Request {
    let body = json!({"email": format!("{name}@acme.example"), "full_name": name, "password": PASSWORD, "tenant_slug": "acme"});
    client.post("/api/v1/auth/register", &body)
}

fn forgot(client: &Client, _: &str) -> Request {
    let body = json!({"email": "member@acme.example", "tenant_slug": "acme"});
    client.post("/api/v1/auth/forgot-password", &body)
}

fn discover(client: &Client, _: &str) -> Request {
    client.post("/api/v1/auth/discover", &json!({"email": "member@acme.example"}))
}

#[actix_web::test]
async fn anonymous_requests_need_a_solved_challenge_of_their_purpose() {
    let world = World::with(all()).await;
    let client = &world.client;
    for (purpose, status, request) in [
        ("sign_up", 201, sign_up as Make),
        ("register", 201, register as Make),
        ("forgot_password", 202, forgot as Make),
        ("discover", 202, discover as Make),
    ] {
        let request = |name| request(client, name);
        request("first").await.problem(403, "challenge_required");
        let wrong = if purpose == "register" {
            "sign_up"
        } else {
            "register"
        };
        let wrong = solved(client, wrong).await;
        let refused = request("first").header(HEADER, &wrong).await;
        let detail = refused.problem(403, "challenge_required").json()["detail"].clone();
        assert!(detail.as_str().unwrap().contains("another purpose"), "{detail}");
        let response = solved(client, purpose).await;
        request("first").header(HEADER, &response).await.expect(status);
        let again = request("second").header(HEADER, &response).await;
        let detail = again.problem(403, "challenge_required").json()["detail"].clone();
        assert!(detail.as_str().unwrap().contains("used already"), "{detail}");
        let response = solved(client, purpose).await;
        world.clock.advance(Duration::minutes(5));
        let late = request("third").header(HEADER, &response).await;
        let detail = late.problem(403, "challenge_required").json()["detail"].clone();
        assert!(detail.as_str().unwrap().contains("expired"), "{detail}");
    }
    world
        .login("acme", "member@acme.example", PASSWORD)
        .await
        .expect(200);
}

#[actix_web::test]
async fn a_response_is_accepted_once_by_all_servers() {
    let world = World::with(all()).await;
    let elsewhere = world.other_instance(&all()).await;
    let response = solved(&world.client, "register").await;
    let one = register(&world.client, "one").header(HEADER, &response);
    let other = register(&elsewhere, "other").header(HEADER, &response);
    let (one, other) = tokio::join!(one.send(), other.send());
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403]);
}

/// A lost answer is repeated with its idempotency key; the response to the challenge is used up by then.
#[actix_web::test]
async fn a_repeated_request_gets_its_answer_without_a_new_challenge() {
    let world = World::with(all()).await;
    let client = &world.client;
    let key = "5f0c7d4e-0d0a-4f0e-9f43-6f3d2a1b0c9d";
    for (purpose, request) in [("sign_up", sign_up as Make), ("register", register as Make)] {
        let response = solved(client, purpose).await;
        let send = || {
            let request = request(client, "again").header("Idempotency-Key", key);
            request.header(HEADER, &response).send()
        };
        let first = send().await.expect(201).json();
        let second = send().await.expect(201);
        assert_eq!(second.header("idempotent-replayed"), Some("true"), "{purpose}");
        assert_eq!(second.json(), first, "{purpose}");
    }
}

#[actix_web::test]
async fn requests_that_need_no_challenge_ask_for_none() {
    let world = World::with(Options {
        proof_of_work: [ChallengePurpose::SignUp].into(),
        ..Options::default()
    })
    .await;
    let offer = world.client.get(&format!("{CHALLENGE}?purpose=register")).await;
    assert_eq!(
        offer.expect(200).json(),
        json!({"required": false, "kind": "none"})
    );
    register(&world.client, "free").await.expect(201);
    forgot(&world.client, "").await.expect(202);
    for purpose in ["", "login", "SIGN_UP"] {
        let path = format!("{CHALLENGE}?purpose={purpose}");
        world.client.get(&path).await.problem(422, "validation_failed");
    }
    world
        .client
        .get(CHALLENGE)
        .await
        .problem(422, "validation_failed");
    let long = "x".repeat(4_097);
    let refused = sign_up(&world.client, "long").header(HEADER, &long).await;
    refused.problem(400, "invalid_request");
}

/// Expired rows are deleted as challenges are answered, so the table stays as small as its traffic.
#[actix_web::test]
async fn answered_challenges_are_deleted_when_they_have_expired() {
    let world = World::with(all()).await;
    let count = async || -> i64 {
        let sql = "SELECT count(*) FROM spent_challenges";
        sqlx::query_scalar(sql)
            .fetch_one(&mut world.database.admin().await)
            .await
            .unwrap()
    };
    for round in 1..=3 {
        let response = solved(&world.client, "forgot_password").await;
        forgot(&world.client, "")
            .header(HEADER, &response)
            .await
            .expect(202);
        assert_eq!(count().await, round);
    }
    world.clock.advance(Duration::minutes(6));
    let response = solved(&world.client, "forgot_password").await;
    forgot(&world.client, "")
        .header(HEADER, &response)
        .await
        .expect(202);
    assert_eq!(count().await, 1);
}

/// What a provider answers next.
struct Provider(Mutex<Result<(), ChallengeError>>);

impl Provider {
    fn answer(&self, answer: Result<(), ChallengeError>) {
        *self.0.lock().unwrap() = answer;
    }
}

#[async_trait::async_trait]
impl ChallengeVerifier for Provider {
    fn offer(&self, _: ChallengePurpose) -> ChallengeOffer {
        ChallengeOffer::Widget {
            site_key: "site".into(),
        }
    }

    async fn verify(&self, _: ChallengePurpose, _: &str, _: Option<IpAddr>) -> Result<(), ChallengeError> {
        self.0.lock().unwrap().clone()
    }
}

/// While the provider is away nothing is created, unless the operator has chosen that.
#[actix_web::test]
async fn a_provider_that_is_away_closes_sign_up_unless_set() {
    let away = Err(ChallengeError::Unavailable("secret of the inside".into()));
    let provider = Arc::new(Provider(Mutex::new(away)));
    let options = |fail_open| Options {
        challenges: Some(Challenges {
            verifier: provider.clone(),
            purposes: [ChallengePurpose::Register].into(),
            fail_open,
            spent: None,
        }),
        ..Options::default()
    };
    let world = World::with(options(false)).await;
    let offer = world.client.get(&format!("{CHALLENGE}?purpose=register")).await;
    let expected = json!({"required": true, "kind": "widget", "site_key": "site"});
    assert_eq!(offer.expect(200).json(), expected);
    let before = world.digest(&world.acme).await;
    let closed = register(&world.client, "one").header(HEADER, "token").await;
    let problem = closed.problem(503, "challenge_unavailable");
    assert!(problem.header("retry-after").is_some());
    let text: Value = problem.json();
    assert!(!text.to_string().contains("secret of the inside"), "{text}");
    assert_eq!(world.digest(&world.acme).await, before);

    let open = world.other_instance(&options(true)).await;
    register(&open, "two").header(HEADER, "token").await.expect(201);
    register(&open, "three").await.problem(403, "challenge_required");
    // What clients can cause does not switch the challenge off.
    provider.answer(Err(ChallengeError::Unverified("secret of the inside".into())));
    let full = register(&open, "three").header(HEADER, "token").await;
    let problem = full.problem(503, "challenge_unavailable");
    let text: Value = problem.json();
    assert!(!text.to_string().contains("secret of the inside"), "{text}");
    provider.answer(Ok(()));
    register(&world.client, "four")
        .header(HEADER, "token")
        .await
        .expect(201);
}

/// A provider may accept a token again, and one that is away refuses none. Of all servers together one accepts it, once, also when the
/// request fails for another reason.
#[actix_web::test]
async fn response_of_a_provider_is_accepted_once_by_all_servers() {
    let provider = Arc::new(Provider(Mutex::new(Ok(()))));
    let world = World::new().await;
    let server = async || {
        let platform = Pool::new(&world.database.platform_url(), &PoolConfig::default()).unwrap();
        let options = Options {
            challenges: Some(Challenges {
                verifier: provider.clone(),
                purposes: [ChallengePurpose::Register].into(),
                fail_open: true,
                spent: Some(Arc::new(PgSpentChallenges::new(platform))),
            }),
            ..Options::default()
        };
        world.other_instance(&options).await
    };
    let both = [server().await, server().await];
    register(&both[0], "one")
        .header(HEADER, "token 1")
        .await
        .expect(201);
    for server in &both {
        let again = register(server, "two").header(HEADER, "token 1").await;
        let problem = again.problem(403, "challenge_required");
        assert!(problem.text().contains("was used already"), "{}", problem.text());
    }
    // Of many at once one is accepted.
    let sent = (0..10).map(|number| {
        let server = &both[number % 2];
        register(server, &format!("at-once-{number}"))
            .header(HEADER, "token 2")
            .send()
    });
    let replies = futures_util::future::join_all(sent).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    // While the provider is away any text is accepted, once too.
    provider.answer(Err(ChallengeError::Unavailable("away".into())));
    register(&both[0], "three")
        .header(HEADER, "any")
        .await
        .expect(201);
    let again = register(&both[1], "four").header(HEADER, "any").await;
    again.problem(403, "challenge_required");
    // A refused one is not stored.
    provider.answer(Err(ChallengeError::Refused("is wrong")));
    let wrong = register(&both[0], "five").header(HEADER, "token 3").await;
    wrong.problem(403, "challenge_required");
    provider.answer(Ok(()));
    register(&both[0], "five")
        .header(HEADER, "token 3")
        .await
        .expect(201);
}
