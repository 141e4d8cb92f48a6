//! Invitations: who may invite whom, what the mail says, accepting once, the seats of the plan, and allowed domains.

use std::sync::{Arc, Mutex};

use chrono::Duration;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tenantry_billing::BillingHandlers as _;
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::{Accepted, Mail, MailError, Mailer};
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tenancy::tenant::{lifecycle, purge::Ended};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{Mailing, Options, PASSWORD, Person, Reply, TenantWorld, World};

use crate::billing_checkout::{page, posted};
use crate::billing_stripe::Shop;
use crate::jobs::worker;
use crate::plans::{book, options};

const INVITATIONS: &str = "/api/v1/invitations";
const ACCEPT: &str = "/api/v1/invitations/accept";
const NOBODY: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";

/// Keeps the mail that was sent.
#[derive(Default)]
struct Outbox(Mutex<Vec<Mail>>);

#[async_trait::async_trait]
impl Mailer for Outbox {
    async fn send(&self, mail: &Mail) -> Result<Accepted, MailError> {
        self.0.lock().unwrap().push(mail.clone());
        Ok(Accepted("kept".into()))
    }
}

/// A world whose mail is kept.
struct Post {
    world: World,
    outbox: Arc<Outbox>,
}

impl Post {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// Acme's plan allows so many users, of which three are there.
    async fn of_users(users: u32) -> Self {
        Self::with(options(&book(users, 100, 1_000))).await
    }

    async fn with(options: Options) -> Self {
        let outbox = Arc::new(Outbox::default());
        let options = Options {
            mailer: Some(Mailing(outbox.clone())),
            ..options
        };
        Self {
            world: World::with(options).await,
            outbox,
        }
    }

    /// The admin of a tenant with a fresh access token, however late it is.
    async fn admin(&self, tenant: &TenantWorld) -> Person {
        let login = self.world.login(tenant.slug, &tenant.admin.email, PASSWORD).await;
        let access_token = login.expect(200).json()["access_token"]
            .as_str()
            .unwrap()
            .to_owned();
        Person {
            access_token,
            ..tenant.admin.clone()
        }
    }

    async fn invite(&self, tenant: &TenantWorld, email: &str, role: &str) -> Reply {
        let body = json!({"email": email, "role": role});
        let admin = self.admin(tenant).await;
        self.world.post(&admin, INVITATIONS, &body).await
    }

    async fn revoke(&self, id: &str) -> Reply {
        let admin = self.admin(&self.world.acme).await;
        self.world.delete(&admin, &format!("{INVITATIONS}/{id}")).await
    }

    /// Invites somebody to acme; the id of the invitation.
    async fn invited(&self, email: &str, role: &str) -> String {
        let reply = self.invite(&self.world.acme, email, role).await.expect(201);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// The mails that are sent when the jobs are done.
    async fn mails(&self) -> Vec<Mail> {
        let worker = worker(&self.world, Handlers::standard().with_usage());
        while !worker.run_once().await.unwrap().is_empty() {}
        let mut mails = std::mem::take(&mut *self.outbox.0.lock().unwrap());
        mails.retain(|mail| !mail.subject.as_str().ends_with("verify your e-mail address"));
        mails
    }

    /// The token in the one mail that is sent.
    async fn token(&self) -> String {
        let mails = self.mails().await;
        assert_eq!(mails.len(), 1, "{mails:?}");
        token_of(&mails[0])
    }

    async fn accept(&self, token: &str) -> Reply {
        let body = json!({"token": token, "full_name": "Grace Hopper", "password": PASSWORD});
        self.world.client.post(ACCEPT, &body).await
    }

    async fn resend(&self, id: &str) -> Reply {
        let admin = self.admin(&self.world.acme).await;
        let path = format!("{INVITATIONS}/{id}/resend");
        self.world.post(&admin, &path, &json!({})).await
    }

    async fn list(&self) -> Vec<Value> {
        let admin = self.admin(&self.world.acme).await;
        let reply = self.world.get(&admin, INVITATIONS).await;
        reply.expect(200).json()["data"].as_array().unwrap().clone()
    }

    async fn actions(&self) -> Vec<String> {
        let audit = self.world.audit(&self.world.acme).await;
        audit.into_iter().map(|(action, _)| action).collect()
    }

    async fn set(&self, settings: Value) {
        let patch = self
            .world
            .patch(&self.world.acme.admin, "/api/v1/tenant/settings", &settings);
        patch.await.expect(200);
    }

    async fn users(&self) -> i64 {
        self.count("users WHERE deleted_at IS NULL").await
    }

    /// How many rows of acme there are.
    async fn count(&self, from: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM {from} AND tenant_id = '{}'",
            self.world.acme.id
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql));
        query
            .fetch_one(&mut self.world.database.admin().await)
            .await
            .unwrap()
    }
}

fn token_of(mail: &Mail) -> String {
    let (_, rest) = mail.text.split_once("/accept-invitation#token=").unwrap();
    rest.lines().next().unwrap().to_owned()
}

/// What a token that is no good is answered.
fn refused(reply: Reply) -> String {
    reply.problem(401, "token_revoked").comparable()
}

async fn me(world: &World, token: &str) -> Reply {
    world.client.get("/api/v1/auth/me").bearer(token).await
}

// ------------------------------------------------------------------------------------------------- the usual way

#[actix_web::test]
async fn invited_address_becomes_a_verified_user_by_its_link() {
    let post = Post::new().await;
    let (world, admin) = (&post.world, &post.world.acme.admin);
    let look = json!({"display_name": "Acme & Söhne"});
    world.patch(admin, "/api/v1/branding", &look).await.expect(200);
    let reply = post
        .invite(&world.acme, " Grace@Example.com ", "viewer")
        .await
        .expect(201);
    let (location, json) = (reply.header("location").unwrap().to_owned(), reply.json());
    let expected = json!({
        "id": json["id"], "email": "grace@example.com", "role": "viewer", "custom_role": null, "status": "open", "invited_by": admin.id,
        "created_at": json["created_at"], "sent_at": json["created_at"], "expires_at": json["expires_at"],
    });
    assert_eq!(json, expected);
    assert_eq!(world.get(admin, &location).await.expect(200).json(), json);
    assert_eq!(post.list().await, [json]);

    let mails = post.mails().await;
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert_eq!(mail.to.email.as_str(), "grace@example.com");
    assert_eq!(
        mail.subject.as_str(),
        "[Acme & Söhne] Ada Admin invites you to join"
    );
    let token = token_of(mail);
    assert!(token.starts_with("inv_"), "{token}");
    assert!(
        mail.text
            .contains("Ada Admin invites you to join Acme & Söhne as a viewer."),
        "{}",
        mail.text
    );
    let link = format!("\n  https://app.example.test/accept-invitation#token={token}\n");
    assert!(mail.text.contains(&link), "{}", mail.text);

    let login = post.accept(&token).await.expect(200).json();
    assert_eq!(login["user"]["email"], "grace@example.com");
    assert_eq!(
        (&login["user"]["role"], &login["user"]["email_verified"]),
        (&json!("viewer"), &json!(true))
    );
    assert_eq!(
        (&login["tenant"]["slug"], &login["token_type"]),
        (&json!("acme"), &json!("Bearer"))
    );
    me(world, login["access_token"].as_str().unwrap())
        .await
        .expect(200);
    world
        .login("acme", "grace@example.com", PASSWORD)
        .await
        .expect(200);
    world
        .login("globex", "grace@example.com", PASSWORD)
        .await
        .expect(401);
    assert!(post.list().await.is_empty());
    world.get(admin, &location).await.problem(404, "not_found");
    let actions = post.actions().await;
    for action in ["invitation.created", "invitation.accepted", "user.created"] {
        assert!(
            actions.iter().any(|there| there == action),
            "{action}: {actions:?}"
        );
    }
}

#[actix_web::test]
async fn token_is_in_no_row_and_no_answer() {
    let post = Post::new().await;
    let reply = post
        .invite(&post.world.acme, "grace@example.com", "member")
        .await
        .expect(201);
    let everything = "SELECT string_agg(r, ' ') FROM (SELECT to_jsonb(j)::text FROM jobs j UNION ALL \
                      SELECT to_jsonb(i)::text FROM invitations i UNION ALL SELECT to_jsonb(a)::text FROM audit_events a) t (r)";
    let mut admin = post.world.database.admin().await;
    let before: String = sqlx::query_scalar(everything)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    let token = post.token().await;
    let after: String = sqlx::query_scalar(everything)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    let secret = token.strip_prefix("inv_").unwrap();
    let bytes: Vec<_> = token.bytes().map(|byte| byte.to_string()).collect();
    for text in [&before, &after, &reply.text()] {
        assert!(!text.contains(secret), "{text}");
        assert!(!text.replace(' ', "").contains(&bytes.join(",")), "{text}");
    }
}

// ------------------------------------------------------------------------------------------------------- tokens

#[actix_web::test]
async fn used_expired_revoked_replaced_and_forged_tokens_answer_alike() {
    let post = Post::new().await;
    let world = &post.world;
    let id = post.invited("used@example.com", "member").await;
    let used = post.token().await;
    post.accept(&used).await.expect(200);
    let expected = refused(post.accept(&used).await);
    world
        .get(&world.acme.admin, &format!("{INVITATIONS}/{id}"))
        .await
        .problem(404, "not_found");

    let id = post.invited("revoked@example.com", "member").await;
    let revoked = post.token().await;
    let path = format!("{INVITATIONS}/{id}");
    world.delete(&world.acme.admin, &path).await.expect(204);
    world
        .delete(&world.acme.admin, &path)
        .await
        .problem(404, "not_found");

    let id = post.invited("replaced@example.com", "member").await;
    let replaced = post.token().await;
    world.clock.advance(Duration::minutes(1));
    post.resend(&id).await.expect(202);
    let present = post.token().await;
    assert_ne!(replaced, present);

    let id = post.invited("purged@example.com", "member").await;
    let purged = post.token().await;
    let sql = format!("DELETE FROM invitations WHERE id = '{id}'");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();

    let other = if present[30..].starts_with('A') { "B" } else { "A" };
    let forged = format!("{}{other}{}", &present[..30], &present[31..]);
    let refresh = world.acme.member.refresh_token.clone();
    let as_refresh = refresh.replacen("rt_", "inv_", 1);
    let before = world.digest(&world.acme).await;
    let texts = ["", "inv_", "ü", &forged, &refresh, &as_refresh];
    for token in texts.into_iter().chain([revoked.as_str(), &replaced, &purged]) {
        assert_eq!(refused(post.accept(token).await), expected, "{token}");
    }
    let huge = "a".repeat(100_000);
    assert_eq!(refused(post.accept(&huge).await), expected);
    assert_eq!(world.digest(&world.acme).await, before);
    post.accept(&present).await.expect(200);

    post.invited("late@example.com", "member").await;
    let late = post.token().await;
    world.clock.advance(Duration::days(7));
    assert_eq!(refused(post.accept(&late).await), expected);
}

#[actix_web::test]
async fn token_accepted_at_once_by_many_makes_one_user() {
    let post = Post::new().await;
    post.invited("grace@example.com", "member").await;
    let token = post.token().await;
    let users = post.users().await;
    let replies = join_all((0..6).map(|_| post.accept(&token))).await;
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401, 401, 401]);
    assert_eq!(post.users().await, users + 1);
}

#[actix_web::test]
async fn other_tenant_sees_and_changes_no_invitation() {
    let post = Post::new().await;
    let (world, globex) = (&post.world, &post.world.globex.admin);
    let id = post.invited("grace@example.com", "member").await;
    let before = world.digest(&world.acme).await;
    let path = format!("{INVITATIONS}/{id}");
    let nobody = format!("{INVITATIONS}/{NOBODY}");
    for path in [&path, &nobody] {
        world.get(globex, path).await.problem(404, "not_found");
        world.delete(globex, path).await.problem(404, "not_found");
        world
            .post(globex, &format!("{path}/resend"), &json!({}))
            .await
            .problem(404, "not_found");
    }
    assert_eq!(
        world.get(globex, INVITATIONS).await.expect(200).json()["data"],
        json!([])
    );
    assert_eq!(world.digest(&world.acme).await, before);
    // The same address there is another invitation.
    post.invite(&world.globex, "grace@example.com", "member")
        .await
        .expect(201);
    // A token is of its tenant, whatever headers say.
    let mails = post.mails().await;
    let mail = mails.iter().find(|mail| mail.subject.as_str().contains("Acme"));
    let token = token_of(mail.unwrap());
    let body = json!({"token": token, "full_name": "G", "password": PASSWORD});
    let request = world.client.post(ACCEPT, &body).header("X-Tenant-Slug", "globex");
    request.await.problem(403, "tenant_mismatch");
    assert_eq!(
        post.accept(&token).await.expect(200).json()["tenant"]["slug"],
        "acme"
    );
}

// ------------------------------------------------------------------------------------------------------- inviting

#[actix_web::test]
async fn address_is_invited_once_and_users_are_not() {
    let post = Post::new().await;
    let world = &post.world;
    let id = post.invited("grace@example.com", "member").await;
    post.invite(&world.acme, "GRACE@example.com", "admin")
        .await
        .problem(409, "conflict");
    post.invite(&world.acme, &world.acme.viewer.email, "member")
        .await
        .problem(409, "email_taken");
    let at_once = join_all((0..4).map(|_| post.invite(&world.acme, "race@example.com", "member"))).await;
    let mut statuses: Vec<_> = at_once.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
    // An expired invitation is in nobody's way.
    world.clock.advance(Duration::days(7));
    assert!(post.list().await.iter().all(|row| row["status"] == "expired"));
    let again = post.invited("grace@example.com", "member").await;
    assert_ne!(again, id);
    assert_eq!(post.list().await.len(), 2);
}

#[actix_web::test]
async fn only_admins_invite_and_bad_input_is_refused() {
    let post = Post::new().await;
    let world = &post.world;
    let body = json!({"email": "grace@example.com", "role": "viewer"});
    for who in [&world.acme.member, &world.acme.viewer] {
        world
            .post(who, INVITATIONS, &body)
            .await
            .problem(403, "forbidden");
        world.get(who, INVITATIONS).await.problem(403, "forbidden");
    }
    let long = format!("{}@example.com", "a".repeat(300));
    for email in [
        "",
        "nobody",
        "a\r\nBcc: e@example.com",
        "a@b\0.example",
        "ü@example.com",
        &long,
    ] {
        let problem = post
            .invite(&world.acme, email, "member")
            .await
            .problem(422, "validation_failed");
        assert_eq!(problem.json()["errors"][0]["pointer"], "/email", "{email}");
    }
    post.invite(&world.acme, "grace@example.com", "owner")
        .await
        .expect(422);
    let id = post.invited("grace@example.com", "member").await;
    let token = post.token().await;
    let accept = |name: &str, password: &str| {
        let body = json!({"token": token, "full_name": name, "password": password});
        world.client.post(ACCEPT, &body).send()
    };
    accept("", PASSWORD).await.problem(422, "validation_failed");
    accept("Grace\nHopper", PASSWORD)
        .await
        .problem(422, "validation_failed");
    accept("Grace", "short").await.problem(422, "validation_failed");
    assert_eq!(post.list().await[0]["id"], json!(id), "the token is not used up");
    accept("Grace", PASSWORD).await.expect(200);
}

#[actix_web::test]
async fn invitations_of_a_removed_or_demoted_admin_are_void() {
    let post = Post::new().await;
    let world = &post.world;
    for (email, change) in [
        ("first@acme.example", "demote"),
        ("second@acme.example", "delete"),
    ] {
        let user = json!({"email": email, "full_name": "Second", "role": "admin", "password": PASSWORD});
        let user = world
            .post(&world.acme.admin, "/api/v1/users", &user)
            .await
            .expect(201)
            .json();
        let login = world.login("acme", email, PASSWORD).await.expect(200).json();
        let body = json!({"email": format!("friend-{email}"), "role": "admin"});
        let request = world.client.post(INVITATIONS, &body);
        request
            .bearer(login["access_token"].as_str().unwrap())
            .await
            .expect(201);
        let token = post.token().await;
        let path = format!("/api/v1/users/{}", user["id"].as_str().unwrap());
        match change {
            "demote" => world
                .patch(&world.acme.admin, &path, &json!({"role": "member"}))
                .await
                .expect(200),
            _ => world.delete(&world.acme.admin, &path).await.expect(204),
        };
        refused(post.accept(&token).await);
        assert!(post.list().await.is_empty(), "{change}");
        assert!(
            post.actions()
                .await
                .iter()
                .any(|action| action == "invitations.revoked")
        );
    }
}

#[actix_web::test]
async fn resending_is_bounded_and_begins_the_days_anew() {
    let post = Post::new().await;
    let world = &post.world;
    let id = post.invited("grace@example.com", "member").await;
    let soon = post.resend(&id).await.problem(429, "rate_limited");
    assert_eq!(soon.header("retry-after"), Some("60"));
    world.clock.advance(Duration::days(6));
    let resent = post.resend(&id).await.expect(202).json();
    assert_eq!((&resent["id"], &resent["status"]), (&json!(id), &json!("open")));
    world.clock.advance(Duration::days(6));
    // Of two mails that wait in the queue only the latest is sent.
    post.accept(&post.token().await).await.expect(200);

    let id = post.invited("often@example.com", "member").await;
    for _ in 1..10 {
        world.clock.advance(Duration::minutes(1));
        post.resend(&id).await.expect(202);
    }
    world.clock.advance(Duration::minutes(1));
    post.resend(&id).await.problem(409, "conflict");
    assert!(
        post.actions()
            .await
            .iter()
            .any(|action| action == "invitation.resent")
    );
}

#[actix_web::test]
async fn one_tenant_invites_so_many_a_day_and_no_more() {
    let post = Post::new().await;
    let id = post.invited("first@example.com", "member").await;
    let sql = format!(
        "INSERT INTO invitations (tenant_id, id, created_at, invited_by, email, role, token_hash, sent_at, mails, expires_at, revoked_at) \
         SELECT tenant_id, gen_random_uuid(), created_at, invited_by, n || email, role, token_hash, sent_at, 1, expires_at, sent_at \
         FROM invitations, generate_series(1, 499) n WHERE id = '{id}'"
    );
    let mut admin = post.world.database.admin().await;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .unwrap();
    let refused = post.invite(&post.world.acme, "last@example.com", "member").await;
    assert_eq!(
        refused.problem(429, "rate_limited").header("retry-after"),
        Some("3600")
    );
    post.invite(&post.world.globex, "last@example.com", "member")
        .await
        .expect(201);
    post.world.clock.advance(Duration::days(1));
    post.invited("last@example.com", "member").await;
}

// ---------------------------------------------------------------------------------------------------------- seats

#[actix_web::test]
async fn open_invitations_count_as_users_of_the_plan() {
    let post = Post::of_users(4).await;
    let (world, admin) = (&post.world, &post.world.acme.admin);
    post.invited("grace@example.com", "member").await;
    let capabilities = world
        .get(admin, "/api/v1/tenant/capabilities")
        .await
        .expect(200)
        .json();
    let limits = capabilities["limits"].as_array().unwrap();
    let users = limits.iter().find(|limit| limit["name"] == "users").unwrap();
    assert_eq!((&users["allowed"], &users["used"]), (&json!(4), &json!(4)));
    let user = json!({"email": "new@acme.example", "full_name": "New", "password": PASSWORD});
    world
        .post(admin, "/api/v1/users", &user)
        .await
        .problem(403, "plan_limit_reached");
    post.invite(&world.acme, "more@example.com", "member")
        .await
        .problem(403, "plan_limit_reached");
    let register =
        json!({"tenant_slug": "acme", "email": "r@acme.example", "full_name": "R", "password": PASSWORD});
    let register = world.client.post("/api/v1/auth/register", &register);
    register.await.problem(403, "plan_limit_reached");
    // It is the seat of whoever accepts.
    post.accept(&post.token().await).await.expect(200);
    assert_eq!(post.users().await, 4);
    world
        .post(admin, "/api/v1/users", &user)
        .await
        .problem(403, "plan_limit_reached");
}

#[actix_web::test]
async fn revoked_and_expired_invitations_free_their_seat() {
    let post = Post::of_users(4).await;
    let world = &post.world;
    let id = post.invited("one@example.com", "member").await;
    post.revoke(&id).await.expect(204);
    let second = post.invited("two@example.com", "member").await;
    world.clock.advance(Duration::days(7));
    let third = post.invited("three@example.com", "member").await;
    // The seat of the expired invitation is taken by now.
    post.resend(&second).await.problem(403, "plan_limit_reached");
    post.revoke(&third).await.expect(204);
    post.resend(&second).await.expect(202);
    post.invite(&world.acme, "four@example.com", "member")
        .await
        .problem(403, "plan_limit_reached");
}

#[actix_web::test]
async fn last_seat_is_taken_once_by_invitations_and_users() {
    let post = Post::of_users(6).await;
    let (world, admin) = (&post.world, &post.world.acme.admin);
    // Two people accept while others take the last seat.
    let mut tokens = Vec::new();
    for email in ["one@example.com", "two@example.com"] {
        post.invited(email, "member").await;
        tokens.push(post.token().await);
    }
    let accepts = join_all(tokens.iter().map(|token| post.accept(token)));
    let invites =
        (0..3).map(|n| post.invite(&world.acme, "last@example.com", ["member", "viewer", "admin"][n]));
    let creates = (0..3).map(|n| {
        let user = json!({"email": format!("c{n}@acme.example"), "full_name": "C", "password": PASSWORD});
        async move { world.post(admin, "/api/v1/users", &user).await }
    });
    let (accepts, invites, creates) =
        futures_util::future::join3(accepts, join_all(invites), join_all(creates)).await;
    assert!(
        accepts.iter().all(|reply| reply.status == 200),
        "an invited person has a seat"
    );
    let taken = invites.iter().chain(&creates).filter(|reply| reply.status == 201);
    assert_eq!(taken.count(), 1);
    let open = post
        .count("invitations WHERE accepted_at IS NULL AND revoked_at IS NULL")
        .await;
    assert_eq!(post.users().await + open, 6);
}

#[actix_web::test]
async fn paid_seats_count_open_invitations() {
    let shop = Shop::open().await;
    shop.sign_up("initech", "free").await;
    shop.work().await;
    page(&shop, "initech", json!({"plan": "enterprise", "seats": 2})).await;
    let invite = json!({"email": "one@example.com"});
    posted(&shop, "initech", INVITATIONS, &invite).await.expect(201);
    let user = json!({"email": "u@initech.example", "full_name": "U", "password": PASSWORD});
    let refused = posted(&shop, "initech", "/api/v1/users", &user)
        .await
        .problem(403, "plan_limit_reached");
    let refused = refused.json();
    assert_eq!(
        (&refused["limit"], &refused["used"]),
        (&json!("seats"), &json!(2))
    );
    assert!(
        refused["detail"].as_str().unwrap().contains("open invitations"),
        "{refused}"
    );
    // Fewer seats than are taken cannot be bought.
    let fewer = json!({"plan": "enterprise", "seats": 1});
    let refused = posted(&shop, "initech", "/api/v1/billing/checkout", &fewer).await;
    assert_eq!(
        refused.problem(422, "validation_failed").json()["errors"][0]["code"],
        "seats_in_use"
    );
    shop.close().await;
}

#[actix_web::test]
async fn address_with_an_open_invitation_is_reserved() {
    let post = Post::of_users(4).await;
    let (world, admin) = (&post.world, &post.world.acme.admin);
    post.invited("grace@example.com", "admin").await;
    let token = post.token().await;
    // The invitation has the last seat. A full tenant gives all addresses the same answer.
    let register =
        json!({"tenant_slug": "acme", "email": "grace@example.com", "full_name": "E", "password": PASSWORD});
    let register = || world.client.post("/api/v1/auth/register", &register).send();
    register().await.problem(403, "plan_limit_reached");
    let path = format!("/api/v1/users/{}", world.acme.member.id);
    let change = json!({"email": "grace@example.com"});
    world
        .patch(admin, &path, &change)
        .await
        .problem(409, "email_taken");
    // An admin takes the invitation back by making the user, who gets its seat.
    let user = json!({"email": "grace@example.com", "full_name": "G", "password": PASSWORD});
    world.post(admin, "/api/v1/users", &user).await.expect(201);
    refused(post.accept(&token).await);
    assert!(post.list().await.is_empty());
    assert_eq!(post.users().await, 4);
}

// -------------------------------------------------------------------------------------------------------- domains

#[actix_web::test]
async fn allowed_domains_hold_for_every_way_to_an_address() {
    let post = Post::new().await;
    let (world, admin) = (&post.world, &post.world.acme.admin);
    post.set(json!({"security.allowed_email_domains": ["acme.example"]}))
        .await;
    let refused = |reply: Reply| {
        let problem = reply.problem(422, "validation_failed").json();
        assert_eq!(problem["errors"][0]["pointer"], "/email", "{problem}");
        assert_eq!(problem["errors"][0]["code"], "domain_not_allowed", "{problem}");
        assert!(!problem.to_string().contains("acme.example"), "{problem}");
    };
    let register = |email: &str| {
        let body = json!({"tenant_slug": "acme", "email": email, "full_name": "R", "password": PASSWORD});
        world.client.post("/api/v1/auth/register", &body).send()
    };
    let create = |email: &str| {
        let body = json!({"email": email, "full_name": "C", "password": PASSWORD});
        world.post(admin, "/api/v1/users", &body).send()
    };
    let path = format!("/api/v1/users/{}", world.acme.member.id);
    let change = |email: &str| world.patch(admin, &path, &json!({"email": email})).send();
    for domain in ["evil.example", "mail.acme.example", "notacme.example"] {
        refused(post.invite(&world.acme, &format!("i@{domain}"), "member").await);
        refused(register(&format!("r@{domain}")).await);
        refused(create(&format!("c@{domain}")).await);
        refused(change(&format!("m@{domain}")).await);
    }
    post.invite(&world.acme, "i@ACME.example", "member")
        .await
        .expect(201);
    register("r@acme.example").await.expect(202);
    create("c@acme.example").await.expect(201);
    change("m@acme.example").await.expect(200);
    // The other tenant allows all.
    post.invite(&world.globex, "i@evil.example", "member")
        .await
        .expect(201);
    // Who is there already stays, and can be changed otherwise.
    post.set(json!({"security.allowed_email_domains": ["other.example"]}))
        .await;
    let rename = json!({"full_name": "Still here", "email": "m@acme.example"});
    world.patch(admin, &path, &rename).await.expect(200);
}

/// The link of an invitation is refused while its domain is not allowed, and is not used up by that.
#[actix_web::test]
async fn tightened_domains_hold_for_open_invitations() {
    let post = Post::new().await;
    post.invited("i@other.example", "member").await;
    let token = post.token().await;
    post.set(json!({"security.allowed_email_domains": ["acme.example"]}))
        .await;
    let before = post.world.digest(&post.world.acme).await;
    let refused = post.accept(&token).await.problem(422, "validation_failed").json();
    let error = &refused["errors"][0];
    assert_eq!(
        (&error["pointer"], &error["code"]),
        (&json!("/token"), &json!("domain_not_allowed"))
    );
    assert_eq!(post.world.digest(&post.world.acme).await, before);
    post.set(json!({"security.allowed_email_domains": []})).await;
    post.accept(&token).await.expect(200);
}

// ---------------------------------------------------------------------------------------------- tenants and time

#[actix_web::test]
async fn suspended_and_deleted_tenants_invite_and_admit_no_one() {
    let post = Post::new().await;
    let world = &post.world;
    let id = post.invited("grace@example.com", "member").await;
    let token = post.token().await;
    post.invited("waiting@example.com", "member").await;
    let unwanted = post.invited("unwanted@example.com", "member").await;
    lifecycle::suspend(&world.operator_cx(), world.acme.id, "unpaid")
        .await
        .unwrap();
    post.accept(&token).await.problem(403, "tenant_suspended");
    post.invite(&world.acme, "new@example.com", "member")
        .await
        .problem(403, "tenant_suspended");
    post.resend(&id).await.problem(403, "tenant_suspended");
    assert_eq!(post.list().await.len(), 3, "reading goes on");
    let path = format!("/api/v1/invitations/{unwanted}");
    world.delete(&world.acme.admin, &path).await.expect(204);
    assert_eq!(post.list().await.len(), 2, "revoking too");
    assert!(post.mails().await.is_empty(), "the mail waits");
    lifecycle::resume(&world.operator_cx(), world.acme.id, "paid")
        .await
        .unwrap();
    assert_eq!(post.mails().await.len(), 1);
    world.set_status(&world.acme, "deleted").await;
    post.accept(&token).await.problem(410, "tenant_gone");
}

#[actix_web::test]
async fn settled_invitations_are_purged_in_batches() {
    let post = Post::new().await;
    let world = &post.world;
    let id = post.invited("first@example.com", "member").await;
    let sql = format!(
        "INSERT INTO invitations (tenant_id, id, created_at, invited_by, email, role, token_hash, sent_at, mails, expires_at, revoked_at) \
         SELECT tenant_id, gen_random_uuid(), created_at, invited_by, n || email, role, token_hash, sent_at, 1, expires_at, sent_at \
         FROM invitations, generate_series(1, 2500) n WHERE id = '{id}'"
    );
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .unwrap();
    let globex = world.digest(&world.globex).await;
    world.clock.advance(Duration::days(38));
    let open = post.invited("open@example.com", "member").await;
    let because = SystemScope::because("a test purges");
    let scope = world.app.ports.gate.system(because, world.acme.id).await.unwrap();
    let cx = Cx::new(Arc::clone(&world.app), scope, Origin::default());
    let purge = tenantry_tenancy::tenant::purge::Purge;
    tenantry_tenancy::operations::job::JobHandler::run(&purge, &cx, Ended { days: 30 })
        .await
        .unwrap();
    assert_eq!(post.count("invitations WHERE true").await, 1);
    assert_eq!(post.list().await[0]["id"], json!(open));
    assert_eq!(world.digest(&world.globex).await, globex);
}
