//! The SQL that the API really sends: each statement carries the tenant of each table it names, and each read uses
//! an index led by the tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tenantry::{AuditStream, AuditStreamKind};
use tenantry_billing::billing::{billing_provision, billing_sync, meter_report};
use tenantry_billing::usage::quota;
use tenantry_billing::usage::quota_drift::{self, Repair};
use tenantry_billing::usage::quota_lending::StoredQuotas;
use tenantry_domain::audit::StreamFrom;
use tenantry_domain::kernel::{Clock as _, InvitationId, SystemScope};
use tenantry_domain::operations::{
    Accepted, Mail, MailError, Mailer, QuotaAsk, QuotaLender as _, QuotaLoan, Spent,
};
use tenantry_domain::usage::MeterKey;
use tenantry_tenancy::audit::stream;
use tenantry_tenancy::events::export;
use tenantry_tenancy::events::upkeep::KeepEvents;
use tenantry_tenancy::identity::first_password::NotifyOfFirstPasswords;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::security::detection::DetectActivity;
use tenantry_tenancy::tenant::audit_upkeep::KeepAudit;
use tenantry_tenancy::tenant::purge::{Ended, Purge};
use tenantry_tenancy::{Cx, Origin};
use tenantry_tests::{
    HttpSiem, Mailing, ManualClock, MemoryPayments, Options, PASSWORD, Payments, World, roll_up, use_up,
};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::audit::chain_in;
use crate::embedder;
use crate::event_export::Broker;

const BECAUSE: SystemScope = SystemScope::because("a test of statements");

/// Collects what the transactions send.
#[derive(Clone, Default)]
pub(crate) struct Statements(Arc<Mutex<BTreeSet<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Sql<'a>(&'a Statements);
        impl Visit for Sql<'_> {
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "sql" {
                    self.0.0.lock().unwrap().insert(value.to_owned());
                }
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        if event.metadata().target() == "tenantry::sql" {
            event.record(&mut Sql(self));
        }
    }
}

impl Statements {
    pub(crate) fn taken(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Keeps what is mailed.
#[derive(Default)]
struct Inbox(Mutex<Vec<Mail>>);

#[async_trait::async_trait]
impl Mailer for Inbox {
    async fn send(&self, mail: &Mail) -> Result<Accepted, MailError> {
        self.0.lock().unwrap().push(mail.clone());
        Ok(Accepted("kept".into()))
    }
}

impl Inbox {
    /// The token of the link that was mailed last.
    fn token(&self) -> String {
        let mails = self.0.lock().unwrap();
        let links = mails
            .iter()
            .rev()
            .find_map(|mail| mail.text.split_once("#token="));
        links.unwrap().1.split_whitespace().next().unwrap().to_owned()
    }
}

/// A world in which payments are taken, with an invoice, and with something used that is to be told.
async fn world() -> (World, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let clock = Arc::new(ManualClock::default());
    let payments = MemoryPayments::new(clock.clone());
    payments.sell_at_least(1_000);
    let options = Options {
        payments: Some(Payments(payments.clone())),
        clock: Some(clock.clone()),
        mailer: Some(Mailing(inbox.clone())),
        webhooks: crate::webhook_deliveries::options().webhooks,
        audit_stream: AuditStream {
            kind: AuditStreamKind::Http,
            url: HttpSiem::default().url("http"),
            from: StreamFrom::Beginning,
            ..AuditStream::default()
        },
        event_export: Some(Broker::default().export()),
        ..Options::default()
    };
    let world = World::with(options).await;
    embedder::work(&world).await;
    let subscription = payments.subscriptions().remove(0).id;
    payments.fail_payment(&subscription);
    for tenant in [&world.acme, &world.globex] {
        let at = clock.now() - chrono::Duration::minutes(1);
        use_up(&world.app, tenant.id, "api_calls", at, 1).await;
        roll_up(&world.app, tenant.id).await;
    }
    (world, inbox)
}

/// The statements of every read of the API, and those of every write.
async fn statements((world, inbox): &(World, Arc<Inbox>)) -> (BTreeSet<String>, BTreeSet<String>) {
    let invitation = invite(world, "read@acme.example").await;
    // There is a version to read, and what is cached of settings is read anew.
    let settings = json!({"notifications.digest_hour": 7});
    let patch = world.patch(&world.acme.admin, "/api/v1/tenant/settings", &settings);
    patch.await.expect(200);
    let cursor = json!({"cursor": "oldest"});
    let consumer = world.put(&world.acme.admin, "/api/v1/events/consumers/read", &cursor);
    consumer.await.expect(200);
    let reservation = reserve(world).await;
    let webhooks = crate::webhook_deliveries::readable(world).await;
    let seen = Statements::default();
    let _guard = tenantry_tests::listen(tracing_subscriber::registry().with(seen.clone()));
    read_everything(world, &reservation, &invitation, &webhooks).await;
    let reads = seen.taken();
    // Before time passes, and tokens end.
    crate::notifications::use_everything(world).await;
    world.sql("UPDATE users SET email_verified = false").await;
    write_everything(world).await;
    use_links(world, inbox).await;
    reuse_a_token(world).await;
    move_address(world, inbox).await;
    end_registrations(world, inbox).await;
    (reads, seen.taken())
}

async fn read_everything(world: &World, reservation: &str, invitation: &str, webhooks: &[String]) {
    let acme = &world.acme;
    let first = world
        .get(&acme.admin, "/api/v1/tasks?limit=1")
        .await
        .expect(200)
        .json();
    let mut paths = vec![
        "/api/v1/auth/me".to_owned(),
        "/api/v1/auth/sessions".to_owned(),
        "/api/v1/tenant".to_owned(),
        "/api/v1/tenant/settings".to_owned(),
        "/api/v1/tenant/settings/versions".to_owned(),
        "/api/v1/tenant/settings/versions/1".to_owned(),
        "/api/v1/branding".to_owned(),
        "/api/v1/billing".to_owned(),
        "/api/v1/billing/invoices".to_owned(),
        "/api/v1/billing/preview?plan=enterprise".to_owned(),
        "/api/v1/api-keys".to_owned(),
        "/api/v1/security/alerts".to_owned(),
        "/api/v1/security/alerts?state=open&rule=mass_reading&severity=high".to_owned(),
        "/api/v1/roles".to_owned(),
        "/api/v1/tenant/domains".to_owned(),
        "/api/v1/webhooks/endpoints".to_owned(),
        "/api/v1/webhooks/messages".to_owned(),
        "/api/v1/users".to_owned(),
        "/api/v1/users?custom_role=support".to_owned(),
        "/api/v1/invitations".to_owned(),
        format!("/api/v1/invitations/{invitation}"),
        "/api/v1/users?role=member&is_active=true".to_owned(),
        format!("/api/v1/users/{}", acme.member.id),
        "/api/v1/projects".to_owned(),
        "/api/v1/projects?status=active".to_owned(),
        "/api/v1/projects?include_deleted=true".to_owned(),
        format!("/api/v1/projects/{}", acme.project),
        format!("/api/v1/projects/{}/members", acme.project),
        format!("/api/v1/projects/{}/tasks", acme.project),
        "/api/v1/tasks".to_owned(),
        format!("/api/v1/tasks?project_id={}", acme.project),
        "/api/v1/tasks?status=todo".to_owned(),
        format!("/api/v1/tasks?assignee_id={}", acme.member.id),
        "/api/v1/tasks?q=task".to_owned(),
        format!("/api/v1/tasks/{}", acme.task),
        "/api/v1/features".to_owned(),
        "/api/v1/entitlements".to_owned(),
        "/api/v1/quotas".to_owned(),
        "/api/v1/quotas/alerts".to_owned(),
        "/api/v1/quotas/renders/reservations".to_owned(),
        format!("/api/v1/quotas/renders/reservations/{reservation}"),
        "/api/v1/resources".to_owned(),
        format!("/api/v1/resources?project_id={}", acme.project),
        format!("/api/v1/resources/{}", acme.resource),
        format!("/api/v1/resources/{}/versions", acme.resource),
        format!("/api/v1/resources/{}/versions/1", acme.resource),
        "/api/v1/usage?meter=api_calls".to_owned(),
        "/api/v1/usage?meter=storage_bytes&granularity=day".to_owned(),
        "/api/v1/usage/summary".to_owned(),
        "/api/v1/audit-events".to_owned(),
        "/api/v1/audit-events?actor=user&action=task.created&risk=low&from=2026-01-01T00:00:00Z".to_owned(),
        format!("/api/v1/audit-events?entity=task&entity_id={}", acme.task),
        "/api/v1/audit-events/verify".to_owned(),
        "/api/v1/events".to_owned(),
        "/api/v1/events/consumers".to_owned(),
        "/api/v1/events/consumers/read".to_owned(),
        "/api/v1/events?consumer=read".to_owned(),
        "/api/v1/notifications".to_owned(),
        "/api/v1/notifications?unread=true".to_owned(),
        "/api/v1/notifications/unread-count".to_owned(),
        "/api/v1/auth/me/preferences".to_owned(),
        "/api/v1/events?after=latest&types=task.created,task.updated".to_owned(),
    ];
    paths.extend(webhooks.iter().cloned());
    paths.push(format!(
        "/api/v1/tasks?limit=1&cursor={}",
        first["next_cursor"].as_str().unwrap()
    ));
    for path in paths {
        world.get(&acme.admin, &path).await.expect(200);
    }
}

async fn invite(world: &World, email: &str) -> String {
    let body = json!({"email": email});
    let reply = world.post(&world.acme.admin, "/api/v1/invitations", &body).await;
    reply.expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// Invitations that are sent again, taken back, expired, in the way of a user, and accepted.
async fn write_invitations(world: &World) {
    let admin = &world.acme.admin;
    let path = |id: &str| format!("/api/v1/invitations/{id}");
    let first = invite(world, "first@acme.example").await;
    world.clock.advance(chrono::Duration::minutes(2));
    let resend = format!("{}/resend", path(&first));
    world.post(admin, &resend, &json!({})).await.expect(202);
    world.delete(admin, &path(&first)).await.expect(204);
    invite(world, "user@acme.example").await;
    let user = json!({"email": "user@acme.example", "full_name": "U", "password": PASSWORD});
    world.post(admin, "/api/v1/users", &user).await.expect(201);
    let accepted: InvitationId = invite(world, "accepted@acme.example").await.parse().unwrap();
    let token = world.app.ports.invitation_tokens.issue(world.acme.id, accepted);
    sqlx::query("UPDATE invitations SET token_hash = $1 WHERE id = $2")
        .bind(token.hash.to_vec())
        .bind(accepted.uuid())
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    let body = json!({"token": token.token, "full_name": "A", "password": PASSWORD});
    let request = world.client.post("/api/v1/invitations/accept", &body);
    request.await.expect(200);
}

/// A reservation, and a lease beside it.
async fn reserve(world: &World) -> String {
    let path = "/api/v1/quotas/renders/reservations";
    let body = json!({"amount": 3, "ttl_seconds": 60});
    let reply = world.post(&world.acme.admin, path, &body).await.expect(201);
    lend(world, 100, Vec::new()).await;
    reply.json()["id"].as_str().unwrap().to_owned()
}

async fn lend(world: &World, block: u64, spent: Vec<Spent>) -> QuotaLoan {
    let ask = QuotaAsk {
        instance: uuid::Uuid::nil(),
        now: 1,
        block,
        ttl: Duration::from_secs(10),
        spent,
        counting: None,
    };
    let meter = MeterKey::parse(MeterKey::STORAGE_BYTES).unwrap();
    let lender = StoredQuotas::new(Arc::clone(&world.app));
    lender.lend(world.acme.id, &meter, &ask).await.unwrap()
}

/// Everything that is done with quotas, also with what has expired.
async fn write_quotas(world: &World) {
    let path = "/api/v1/quotas/renders/reservations";
    let admin = &world.acme.admin;
    let first = format!("{path}/{}", reserve(world).await);
    let commit = world.post(admin, &format!("{first}/commit"), &json!({"actual": 1}));
    commit.await.expect(200);
    let second = format!("{path}/{}", reserve(world).await);
    world.delete(admin, &second).await.expect(204);
    reserve(world).await;
    let loan = lend(world, 10, Vec::new()).await;
    let (lease, _) = loan.lease.unwrap();
    let start = loan.period.start;
    lend(
        world,
        0,
        vec![Spent {
            lease,
            start,
            used: 2,
        }],
    )
    .await;
    let mut owner = world.database.admin().await;
    sqlx::raw_sql(
        "UPDATE quota_leases SET expires_at = now(); UPDATE quota_reservations SET expires_at = now()",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    let cx = world.cx(admin).await;
    let meter = MeterKey::parse(MeterKey::STORAGE_BYTES).unwrap();
    quota::consume(&cx, &meter, 90_000_000_000).await.unwrap();
    lend(world, 10, Vec::new()).await;
    let because = SystemScope::because("a test reconciles a quota");
    let scope = world.app.ports.gate.system(because, world.acme.id).await.unwrap();
    let system = Cx::new(Arc::clone(&world.app), scope, Origin::default());
    sqlx::raw_sql("UPDATE quota_leases SET expires_at = now() - interval '2 hours'")
        .execute(&mut owner)
        .await
        .unwrap();
    quota_drift::reconcile(&system, Repair::All).await.unwrap();
}

/// Creates, reads, uses, changes, rotates and revokes an API key.
async fn use_a_key(world: &World) {
    let admin = &world.acme.admin;
    let body = json!({"name": "CI", "scopes": ["tasks.read"]});
    let key = world.post(admin, "/api/v1/api-keys", &body).await.expect(201);
    let key = key.json();
    let path = format!("/api/v1/api-keys/{}", key["id"].as_str().unwrap());
    world.get(admin, &path).await.expect(200);
    let tasks = world
        .client
        .get("/api/v1/tasks")
        .bearer(key["key"].as_str().unwrap());
    tasks.await.expect(200);
    assert_eq!(world.app.key_uses().flush(&world.app).await, 1);
    let change = world.patch(admin, &path, &json!({"name": "CD"}));
    change.await.expect(200);
    let rotate = json!({"overlap_seconds": 60});
    let rotate = world.post(admin, &format!("{path}/rotate"), &rotate);
    rotate.await.expect(201);
    world.delete(admin, &path).await.expect(204);
}

/// Claims, reads, checks and deletes a custom domain, and lets the system check it.
async fn use_a_domain(world: &World) {
    let admin = &world.acme.admin;
    let body = json!({"domain": "portal.acme-corp.com"});
    let domain = world.post(admin, "/api/v1/tenant/domains", &body).await;
    let path = format!(
        "/api/v1/tenant/domains/{}",
        domain.expect(201).json()["id"].as_str().unwrap()
    );
    world.get(admin, &path).await.expect(200);
    let verify = world.post(admin, &format!("{path}/verify"), &json!(null));
    verify.body("").await.expect(200);
    crate::domains::run(
        world,
        &world.acme,
        tenantry_tenancy::tenant::custom_domain::CheckDomains,
    )
    .await;
    assert!(!crate::domains::is_served(world, "portal.acme-corp.com").await);
    world.delete(admin, &path).await.expect(204);
}

/// Creates, reads, gives, changes and deletes a custom role.
async fn use_a_role(world: &World) {
    let admin = &world.acme.admin;
    let body = json!({"name": "support", "permissions": ["tasks.read"]});
    world.post(admin, "/api/v1/roles", &body).await.expect(201);
    let path = "/api/v1/roles/support";
    world.get(admin, path).await.expect(200);
    let user = format!("/api/v1/users/{}", world.acme.viewer.id);
    for custom_role in [json!("support"), json!(null)] {
        let give = world.patch(admin, &user, &json!({"custom_role": custom_role}));
        give.await.expect(200);
    }
    let change = world.patch(admin, path, &json!({"permissions": ["projects.read"]}));
    change.await.expect(200);
    world.delete(admin, path).await.expect(204);
}

/// Creates, moves and deletes a consumer of the feed of events.
async fn use_a_consumer(world: &World) {
    let path = "/api/v1/events/consumers/written";
    for cursor in ["oldest", "latest"] {
        let body = json!({"cursor": cursor});
        world.put(&world.acme.admin, path, &body).await.expect(200);
    }
    world.delete(&world.acme.admin, path).await.expect(204);
}

async fn write_everything(world: &World) {
    use_a_key(world).await;
    use_a_role(world).await;
    use_a_consumer(world).await;
    use_a_domain(world).await;
    crate::webhook_endpoints::use_an_endpoint(world).await;
    crate::webhook_deliveries::use_deliveries(world).await;
    write_quotas(world).await;
    write_invitations(world).await;
    let admin = &world.acme.admin;
    for hour in [9, 10] {
        let settings = json!({"notifications.digest_hour": hour});
        let patch = world.patch(admin, "/api/v1/tenant/settings", &settings);
        patch.await.expect(200);
        let branding = json!({"display_name": format!("Acme {hour}")});
        let patch = world.patch(admin, "/api/v1/branding", &branding);
        patch.await.expect(200);
    }
    let made = |reply: tenantry_tests::Reply| reply.expect(201).json()["id"].as_str().unwrap().to_owned();
    world.login("acme", &admin.email, "wrong").await.expect(401);
    let user = json!({"email": "new@acme.example", "full_name": "New", "role": "admin"});
    let user = made(world.post(admin, "/api/v1/users", &user).await);
    let project = made(
        world
            .post(admin, "/api/v1/projects", &json!({"name": "New"}))
            .await,
    );
    let task = json!({"title": "New", "assignee_id": user});
    let task = made(
        world
            .post(admin, &format!("/api/v1/projects/{project}/tasks"), &task)
            .await,
    );
    let resource = json!({"name": "New", "content": "x", "project_id": project});
    let resource = made(world.post(admin, "/api/v1/resources", &resource).await);
    let member = json!({"user_id": user});
    world
        .post(admin, &format!("/api/v1/projects/{project}/members"), &member)
        .await
        .expect(201);
    world
        .delete(admin, &format!("/api/v1/projects/{project}/members/{user}"))
        .await
        .expect(204);
    world
        .patch(admin, "/api/v1/tenant", &json!({"name": "Acme"}))
        .await
        .expect(200);
    world
        .patch(
            admin,
            &format!("/api/v1/users/{user}"),
            &json!({"role": "viewer"}),
        )
        .await
        .expect(200);
    world
        .patch(
            admin,
            &format!("/api/v1/projects/{project}"),
            &json!({"name": "Newer"}),
        )
        .await
        .expect(200);
    world
        .patch(
            admin,
            &format!("/api/v1/tasks/{task}"),
            &json!({"status": "done"}),
        )
        .await
        .expect(200);
    world
        .patch(
            admin,
            &format!("/api/v1/resources/{resource}"),
            &json!({"content": "y"}),
        )
        .await
        .expect(200);
    world
        .delete(admin, &format!("/api/v1/resources/{resource}"))
        .await
        .expect(204);
    world
        .delete(admin, &format!("/api/v1/projects/{project}"))
        .await
        .expect(204);
    let nothing = json!({});
    world
        .post(admin, &format!("/api/v1/projects/{project}/restore"), &nothing)
        .await
        .expect(200);
    world
        .delete(admin, &format!("/api/v1/tasks/{task}"))
        .await
        .expect(204);
    world
        .delete(admin, &format!("/api/v1/users/{user}"))
        .await
        .expect(204);
    let flushed = world.app.views().flush(&world.app).await;
    assert!(flushed.views > 0);
    let registered =
        json!({"tenant_slug": "acme", "email": "self@acme.example", "password": PASSWORD, "full_name": "S"});
    world
        .client
        .post("/api/v1/auth/register", &registered)
        .await
        .expect(201);
    let founded =
        json!({"name": "New", "slug": "new", "admin": {"email": "a@new.example", "full_name": "A"}});
    world.client.post("/api/v1/tenants", &founded).await.expect(201);
    let refresh = json!({"refresh_token": world.acme.viewer.refresh_token});
    world
        .client
        .post("/api/v1/auth/refresh", &refresh)
        .await
        .expect(200);
    let login = world
        .login("acme", &world.acme.viewer.email, PASSWORD)
        .await
        .expect(200);
    let viewer = login.json();
    let viewer = |method, path: &str| {
        let request = world.client.request(method, path);
        request.bearer(viewer["access_token"].as_str().unwrap())
    };
    let own = viewer(actix_web::http::Method::GET, "/api/v1/auth/sessions")
        .await
        .expect(200)
        .json();
    let mut others = own["data"].as_array().unwrap().iter();
    let other = others.find(|session| session["current"] == false).unwrap();
    let own = format!("/api/v1/auth/sessions/{}", other["id"].as_str().unwrap());
    viewer(actix_web::http::Method::DELETE, &own).await.expect(204);
    viewer(actix_web::http::Method::POST, "/api/v1/auth/logout-all")
        .await
        .expect(204);
    world
        .client
        .request(actix_web::http::Method::POST, "/api/v1/auth/logout")
        .bearer(&admin.access_token)
        .await
        .expect(204);
    crate::mfa::use_all(world).await;
    crate::passkeys::use_all(world).await;
    override_a_flag(world).await;
    crate::usage::look_after(&world.app, world.acme.id).await;
    bill(world).await;
    repeat_a_request(world).await;
}

/// The access token of globex's member, who logs in.
async fn log_in(world: &World) -> String {
    let login = world.login("globex", &world.globex.member.email, PASSWORD).await;
    let login = login.expect(200).json();
    login["access_token"].as_str().unwrap().to_owned()
}

/// A password is changed, and links are asked for, sent and used.
async fn use_links(world: &World, inbox: &Inbox) {
    let member = &world.globex.member;
    let change = json!({"current_password": PASSWORD, "new_password": PASSWORD});
    let changed = world.client.post("/api/v1/auth/change-password", &change);
    changed.bearer(&log_in(world).await).await.expect(204);
    let asked = json!({"tenant_slug": "globex", "email": member.email});
    for (ask, redeem) in [
        ("resend-verification", "verify-email"),
        ("forgot-password", "reset-password"),
    ] {
        let path = |name| format!("/api/v1/auth/{name}");
        world.client.post(&path(ask), &asked).await.expect(202);
        embedder::work(world).await;
        let mut body = json!({"token": inbox.token()});
        if redeem == "reset-password" {
            body["new_password"] = PASSWORD.into();
        }
        world.client.post(&path(redeem), &body).await.expect(204);
    }
    switch(world).await;
}

/// A user whose password was chosen with a link asks for the list of workspaces, and switches to another one.
async fn switch(world: &World) {
    let member = &world.globex.member;
    let discover = json!({"email": member.email});
    let discover = world.client.post("/api/v1/auth/discover", &discover);
    discover.await.expect(202);
    tenantry_tenancy::identity::workspace::answer_due(&world.app)
        .await
        .unwrap();
    let switch = json!({"tenant_slug": "acme"});
    let switch = world.client.post("/api/v1/auth/switch-tenant", &switch);
    let switched = switch.bearer(&log_in(world).await).await;
    switched.problem(404, "tenant_not_found");
}

/// An address is changed, and the change taken back.
async fn move_address(world: &World, inbox: &Inbox) {
    let body = json!({"email": "moved@globex.example", "password": PASSWORD});
    let asked = world.client.post("/api/v1/auth/change-email", &body);
    asked.bearer(&log_in(world).await).await.expect(202);
    for redeem in ["confirm-email", "revert-email"] {
        embedder::work(world).await;
        let body = json!({"token": inbox.token()});
        let path = format!("/api/v1/auth/{redeem}");
        world.client.post(&path, &body).await.expect(204);
    }
}

/// A registration ends with a link alone, and another one for want of a proof.
async fn end_registrations(world: &World, inbox: &Inbox) {
    let register = async |name: &str| {
        let email = format!("{name}@globex.example");
        let body = json!({"tenant_slug": "globex", "email": email, "full_name": "S", "password": PASSWORD});
        let registered = world.client.post("/api/v1/auth/register", &body).await;
        assert!([201, 202].contains(&registered.status), "{}", registered.text());
    };
    register("stranger").await;
    embedder::work(world).await;
    let body = json!({"token": inbox.token()});
    let verify = world.client.post("/api/v1/auth/verify-email", &body);
    verify.await.expect(204);
    register("unproven").await;
    let pending = "UPDATE users SET password_hash = 'pending:' || password_hash, updated_at = updated_at - interval '8 days' \
                   WHERE email = 'unproven@globex.example'";
    sqlx::raw_sql(pending)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    let scope = world
        .app
        .ports
        .gate
        .system(BECAUSE, world.globex.id)
        .await
        .unwrap();
    let cx = Cx::new(Arc::clone(&world.app), scope, Origin::default());
    Purge.run(&cx, Ended { days: 30 }).await.unwrap();
    // The head is signed once there is a chain, which waits for transactions of other tests on the same server.
    chain_in(&cx).await;
    KeepAudit.run(&cx, Nothing {}).await.unwrap();
    DetectActivity.run(&cx, Nothing {}).await.unwrap();
    NotifyOfFirstPasswords.run(&cx, Nothing {}).await.unwrap();
    KeepEvents.run(&cx, Nothing {}).await.unwrap();
    let exported = world.app.ports.event_export.clone().unwrap();
    assert!(export::export_next(&cx, &exported).await.unwrap());
    let receiver = world.app.ports.audit_receiver.clone().unwrap();
    assert!(stream::send_next(&cx, &receiver).await.unwrap());
}

/// A user is notified of the reuse of a refresh token.
async fn reuse_a_token(world: &World) {
    let login = world.login("globex", &world.globex.viewer.email, PASSWORD).await;
    let login = login.expect(200).json();
    let body = json!({"refresh_token": login["refresh_token"]});
    for status in [200, 401] {
        let refresh = world.client.post("/api/v1/auth/refresh", &body);
        refresh.await.expect(status);
        world.clock.advance(chrono::Duration::seconds(11));
    }
}

/// A change is asked for, the provider followed, usage told, and somebody becomes a customer.
async fn bill(world: &World) {
    let body = json!({"plan": "pro", "interval": "year"});
    let globex = &world.globex;
    let request = world.post(&globex.admin, "/api/v1/billing/subscription", &body);
    request.await.expect(202);
    let payments = world.app.ports.payments.clone().unwrap();
    let sql = "SELECT id FROM tenants WHERE slug IN ('acme', 'globex', 'new')";
    let mut admin = world.database.admin().await;
    let tenants: Vec<uuid::Uuid> = sqlx::query_scalar(sql).fetch_all(&mut admin).await.unwrap();
    for tenant in tenants {
        let scope = world.app.ports.gate.system(BECAUSE, tenant.into()).await.unwrap();
        let cx = Cx::new(Arc::clone(&world.app), scope, Origin::default());
        billing_provision::customer(&cx, payments.as_ref()).await.unwrap();
        billing_sync::sync(&cx, payments.as_ref()).await.unwrap();
        meter_report::publish(&cx).await.unwrap();
        meter_report::drift(&cx, None).await.unwrap();
    }
}

async fn override_a_flag(world: &World) {
    let theirs = json!({"tenant_overridable": true});
    crate::features::define(world, "theirs", theirs).await;
    let who = &world.globex.admin;
    let path = "/api/v1/features/theirs/override";
    for variant in ["on", "off"] {
        let body = json!({"variant": variant});
        world.put(who, path, &body).await.expect(200);
    }
    world.delete(who, path).await.expect(204);
}

/// How the statements begin with which workers look, as the platform role, which tenants have something to do, and do the
/// system's own jobs.
const OF_WORKERS: [&str; 27] = [
    "SELECT s.id FROM tenant_tombstones ",
    "DELETE FROM workspace_requests ",
    "WITH present AS (SELECT (SELECT count(*) FROM (SELECT FROM workspace_requests ",
    "UPDATE workspace_requests SET answered_at ",
    "SELECT t.name, t.slug FROM user_addresses ",
    "UPDATE workspace_requests SET attempts ",
    "UPDATE workspace_requests SET due_at ",
    "DELETE FROM sent_mails ",
    "DELETE FROM tenant_names ",
    "INSERT INTO sent_mails ",
    "SELECT EXISTS (SELECT FROM sent_mails ",
    "INSERT INTO \"system_jobs\" ",
    "SELECT \"system_jobs\".",
    "UPDATE \"system_jobs\" ",
    "DELETE FROM \"system_jobs\" ",
    "INSERT INTO provider_watermark ",
    "SELECT looked_until FROM provider_watermark",
    "UPDATE \"provider_events\" ",
    "SELECT DISTINCT q.tenant_id FROM quota_leases q ",
    "SELECT clock_timestamp() AS at",
    "SELECT pg_advisory_xact_lock(1952804449, 1)",
    "SELECT t.id FROM tenants t WHERE ('x' || right(t.id::text, 8))",
    "SELECT t.id FROM tenants t WHERE t.row_work IS NOT NULL UNION ",
    "SELECT usage_events_partitions(",
    "WITH RECURSIVE next AS ((SELECT u.tenant_id FROM usage_dirty u ",
    "WITH RECURSIVE round (tenant_id, step) AS (",
    "SELECT l.tenant_id FROM webhook_lanes l JOIN tenants t ON t.id = l.tenant_id ",
];

/// What is done as the platform role, for everybody: the runtime role has no grant on these tables.
fn is_of_platform(sql: &str) -> bool {
    let tables = [
        "flags",
        "flag_versions",
        "segments",
        "segment_versions",
        "operator_events",
        "provider_events",
    ];
    let customers = sql.contains(" provider_customers ");
    let lock = sql == "SELECT pg_advisory_xact_lock(1952804449, 3)";
    lock || customers
        || OF_WORKERS.iter().any(|begin| sql.starts_with(begin))
        || tables.iter().any(|table| {
            sql.contains(&format!("FROM \"{table}\"")) || sql.starts_with(&format!("INSERT INTO \"{table}\""))
        })
}

/// A request that is done, one that is answered as before, and one whose key is free again.
async fn repeat_a_request(world: &World) {
    for wait in [0, 0, 24] {
        world.clock.advance(chrono::Duration::hours(wait));
        let login = world
            .login("acme", &world.acme.member.email, PASSWORD)
            .await
            .expect(200)
            .json();
        let resource = json!({"name": "Repeated", "content": "x"});
        let request = world.client.post("/api/v1/resources", &resource);
        let request = request.bearer(login["access_token"].as_str().unwrap());
        request.header("Idempotency-Key", "key").await.expect(201);
    }
}

#[actix_web::test]
async fn every_statement_carries_the_tenant_of_every_table_it_names() {
    let mailed = world().await;
    add_tasks(&mailed.0, 3).await;
    let (reads, writes) = statements(&mailed).await;
    assert!(
        reads.len() > 20 && writes.len() > 20,
        "{} reads, {} writes",
        reads.len(),
        writes.len()
    );
    let is_known = |sql: &str| {
        // The directory asks the platform role which tenant a name means; it sees that one table only.
        let directory = sql.starts_with("SELECT \"tenants\".") && sql.contains("WHERE \"tenants\".\"");
        // So does a host, by the hosts that are held.
        let host = sql.contains(" FROM domain_hosts h JOIN tenants t ON t.id = h.of_tenant WHERE h.");
        // A lock is on no table; the tenant is part of what is locked.
        let lock = (sql.starts_with("SELECT pg_try_advisory_xact_lock(")
            || sql.starts_with("SELECT pg_advisory_xact_lock("))
            && sql.contains("$1::uuid")
            && !sql.contains("FROM");
        // Nor is the clock.
        let clock = sql == "SELECT clock_timestamp() AS at, $1::uuid AS tenant";
        // Nor are the transactions that are under way.
        let snapshot = sql.starts_with("SELECT pg_snapshot_xmin(") && !sql.contains("FROM");
        directory || host || lock || clock || snapshot || is_of_platform(sql) || is_scoped(sql)
    };
    let strange: Vec<&String> = reads.iter().chain(&writes).filter(|sql| !is_known(sql)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
    insta::assert_snapshot!("statements", list(&reads) + "\n-- writes\n" + &list(&writes));
}

fn list(statements: &BTreeSet<String>) -> String {
    statements.iter().map(|sql| format!("{sql}\n")).collect()
}

/// Whether each table after FROM, JOIN, UPDATE or INTO is compared with the tenant, by its name or by what it is called
/// there, or has it inserted. What WITH gives a name to is no table, nor is a function.
fn is_scoped(sql: &str) -> bool {
    let words: Vec<&str> = sql.split_whitespace().collect();
    let named = |at: &usize| matches!(words[*at], "FROM" | "JOIN" | "UPDATE" | "INTO");
    let word = |at: usize| {
        let word = words.get(at).copied().unwrap_or_default();
        word.trim_matches(['"', '(', ')']).trim_end_matches(',')
    };
    let tables = (0..words.len()).filter(named).map(|at| {
        (
            word(at + 1),
            word(if word(at + 2) == "AS" { at + 3 } else { at + 2 }),
        )
    });
    let is_made_here = |name: &str| {
        let parts = words.windows(3);
        parts
            .filter(|part| part[1] == "AS" && (part[2].starts_with("(") || part[2] == "MATERIALIZED"))
            .any(|part| part[0] == name)
    };
    let mut tables = tables
        .filter(|(table, _)| !["SELECT", ""].contains(table) && !table.contains('(') && !is_made_here(table))
        .peekable();
    tables.peek().is_some()
        && tables.all(|(table, alias)| {
            let column = if table == "tenants" { "id" } else { "tenant_id" };
            let by_name = format!("\"{table}\".\"{column}\" = $");
            let fixed = format!("{alias}.{column} = $1");
            let inserted = sql.starts_with("INSERT INTO") && sql.contains(&format!("\"{column}\""));
            let of_a_query = sql.split(&format!("INSERT INTO {table} ({column}, ")).nth(1);
            let of_a_query = of_a_query.and_then(|rest| rest.split_once(") SELECT "));
            let selected = of_a_query.is_some_and(|(_, selected)| selected.starts_with("$1, "));
            sql.contains(&by_name) || sql.contains(&fixed) || inserted || selected
        })
}

#[test]
fn a_statement_that_forgets_the_tenant_of_one_of_its_tables_is_noticed() {
    let good = "WITH r AS MATERIALIZED (SELECT * FROM rows($2) AS x (id uuid)), k AS (INSERT INTO keys (tenant_id, id) \
                SELECT $1, id FROM r RETURNING id) INSERT INTO events (tenant_id, id) SELECT $1, id FROM k";
    assert!(is_scoped(good));
    assert!(!is_scoped(&good.replace(
        "keys (tenant_id, id) SELECT $1, id",
        "keys (tenant_id, id) SELECT id, id"
    )));
    assert!(!is_scoped(&good.replace(
        "events (tenant_id, id) SELECT $1",
        "events (tenant_id, id) SELECT $2"
    )));
    assert!(!is_scoped(
        &good.replace("FROM k", "FROM k JOIN tasks t ON t.id = k.id")
    ));
    assert!(!is_scoped("SELECT * FROM tasks t WHERE t.id = $1"));
    assert!(is_scoped("SELECT * FROM tasks t WHERE t.tenant_id = $1"));
}

#[actix_web::test]
async fn every_read_uses_an_index_led_by_the_tenant() {
    let mailed = world().await;
    let world = &mailed.0;
    fill(world).await;
    let (reads, _) = statements(&mailed).await;
    let mut app = world.database.app().await;
    let leading = leading_columns(&mut world.database.admin().await).await;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "SET plan_cache_mode = force_generic_plan; SET app.current_tenant = '{}'",
        world.acme.id
    )))
    .execute(&mut app)
    .await
    .unwrap();
    let mut explained = 0;
    for sql in reads
        .iter()
        .filter(|sql| !sql.contains("WHERE \"tenants\".\"slug\"") && !is_of_platform(sql))
    {
        let plan = explain(&mut app, sql).await;
        let mut complaints = Vec::new();
        walk(&plan[0]["Plan"], &leading, &mut complaints);
        assert!(complaints.is_empty(), "{sql}\n{complaints:?}\n{plan:#}");
        explained += 1;
    }
    assert!(explained > 20, "{explained}");
}

/// A plan of a statement with parameters: prepared, with a generic plan, so that their values do not matter.
async fn explain(app: &mut PgConnection, sql: &str) -> Value {
    let parameters = (1..100).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = if parameters == 0 {
        String::new()
    } else {
        format!("({})", vec!["NULL"; parameters].join(", "))
    };
    sqlx::raw_sql(AssertSqlSafe(format!("PREPARE statement AS {sql}")))
        .execute(&mut *app)
        .await
        .unwrap();
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE statement{nulls}");
    let row = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_one(&mut *app)
        .await
        .unwrap();
    sqlx::raw_sql("DEALLOCATE statement").execute(app).await.unwrap();
    let text: String = sqlx::Row::try_get_unchecked(&row, 0).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn walk(node: &Value, leading: &BTreeMap<String, String>, complaints: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap();
    if kind == "Seq Scan" {
        complaints.push(format!("sequential scan of {}", node["Relation Name"]));
    }
    if let Some(index) = node["Index Name"].as_str() {
        let column = leading.get(index).map_or("", String::as_str);
        let own = index == "tenants_pkey" && column == "id";
        if column != "tenant_id" && !own {
            complaints.push(format!("{index} is led by {column}"));
        }
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, leading, complaints);
    }
}

async fn leading_columns(admin: &mut PgConnection) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT i.relname::text, a.attname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid \
         JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] \
         WHERE i.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(admin)
    .await
    .unwrap();
    rows.into_iter().collect()
}

async fn add_tasks(world: &World, count: u32) {
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    for number in 0..count {
        world
            .post(
                &world.acme.admin,
                &path,
                &json!({"title": format!("task {number}")}),
            )
            .await
            .expect(201);
    }
}

/// Enough rows of many tenants that a plan without the tenant's index would be chosen if there were nothing better.
async fn fill(world: &World) {
    let mut admin = PgConnection::connect(&world.database.admin_url()).await.unwrap();
    sqlx::raw_sql(
        "SET session_replication_role = replica;
         CREATE TEMP TABLE t AS SELECT gen_random_uuid() AS id, g AS n FROM generate_series(1, 200) g;
         INSERT INTO t SELECT id, 1000 + row_number() OVER () FROM tenants;
         INSERT INTO tenants SELECT t.id, 'T', 'tenant-' || n, 'tenant-' || n, 'free', 'active', '{}', now(), now(), NULL, 1
           FROM t WHERE n <= 200;
         INSERT INTO tenants SELECT gen_random_uuid(), 'E', 'empty-' || g, NULL, 'free', 'active', '{}', now(), now(), NULL, 1
           FROM generate_series(1, 5000) g;
         INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash, created_at, updated_at, version)
           SELECT id, gen_random_uuid(), 'u' || g || '@x.example', 'U', 'member', true, true, 'x', now(), now(), 1
           FROM t, generate_series(1, 50) g;
         INSERT INTO refresh_sessions (tenant_id, id, user_id, token_hash, created_at, expires_at)
           SELECT tenant_id, gen_random_uuid(), id, decode(repeat('00', 32), 'hex'), now(), now() FROM users;
         INSERT INTO invitations (tenant_id, id, created_at, invited_by, email, role, token_hash, sent_at, mails, expires_at, accepted_at)
           SELECT id, gen_random_uuid(), now() - g * interval '1 minute', gen_random_uuid(), 'i' || g || '@x.example', 'member',
             decode(repeat('00', 32), 'hex'), now(), 1, now(), CASE WHEN g > 5 THEN now() END FROM t, generate_series(1, 50) g;
         INSERT INTO totp_factors (tenant_id, id, created_at, user_id, sealed_secret, confirmed_at)
           SELECT tenant_id, gen_random_uuid(), now(), id, 's', now() FROM users WHERE email LIKE '%@x.example';
         INSERT INTO recovery_codes (tenant_id, id, created_at, user_id, code_hash)
           SELECT tenant_id, gen_random_uuid(), now(), id, sha256(g::text::bytea) FROM users, generate_series(1, 3) g;
         INSERT INTO trusted_devices (tenant_id, id, created_at, user_id, token_hash, password_digest, expires_at)
           SELECT tenant_id, gen_random_uuid(), now(), id, sha256(g::text::bytea), sha256('x'), now() + g * interval '1 minute'
           FROM users, generate_series(1, 3) g;
         INSERT INTO mfa_challenges (tenant_id, id, created_at, user_id, password_digest, failures, expires_at)
           SELECT tenant_id, gen_random_uuid(), now(), id, sha256('x'), 0, now() + g * interval '1 minute'
           FROM users, generate_series(1, 3) g;
         INSERT INTO passkeys (tenant_id, id, created_at, user_id, name, credential_id, public_key, sign_count, backup, transports)
           SELECT tenant_id, gen_random_uuid(), now(), id, 'K', sha256((id::text || g)::bytea), 'x', 0, 'none', 0
           FROM users, generate_series(1, 3) g WHERE email LIKE 'u%@x.example';
         INSERT INTO passkey_ceremonies (tenant_id, id, created_at, user_id, digest, ends_at)
           SELECT tenant_id, gen_random_uuid(), now(), id, sha256((id::text || g)::bytea), now() + g * interval '1 minute'
           FROM users, generate_series(1, 3) g;
         INSERT INTO api_keys (tenant_id, id, created_at, name, user_id, service_account, scopes, allowed_networks, secret_hash, expires_at,
             notified, revoked_at, updated_at, version)
           SELECT tenant_id, gen_random_uuid(), now(), 'K', id, false, '[]', '[]', decode(repeat('00', 32), 'hex'), now(), 'far',
             CASE WHEN right(id::text, 1) = '0' THEN now() END, now(), 1 FROM users;
         INSERT INTO custom_roles (tenant_id, id, created_at, name, description, base_role, permissions, updated_at, version)
           SELECT id, gen_random_uuid(), now(), 'r' || g, '', 'member', '[]', now(), 1 FROM t, generate_series(1, 40) g;
         INSERT INTO tenant_domains (tenant_id, id, created_at, domain, state, token, claimed_until, updated_at, version)
           SELECT id, gen_random_uuid(), now(), 'd' || g || '.x.com', 'pending', 't', now(), now(), 1 FROM t, generate_series(1, 40) g;
         INSERT INTO webhook_endpoints (tenant_id, id, created_at, url, event_types, ordered, signature, header_names, sealed_credentials,
             enabled, updated_at, version)
           SELECT id, gen_random_uuid(), now(), 'https://x.com/' || g, '[]', false, 'v1', '[]', decode(repeat('00', 60), 'hex'),
             true, now(), 1 FROM t, generate_series(1, 40) g;
         INSERT INTO webhook_deliveries (tenant_id, created_at, message_id, endpoint_id, kind, position, state)
           SELECT tenant_id, now() - g * interval '1 minute', gen_random_uuid(), id, 'task.created', g, 'succeeded'
           FROM webhook_endpoints, generate_series(1, 3) g;
         INSERT INTO webhook_attempts (tenant_id, created_at, delivery_id, endpoint_id, number, outcome, latency_ms)
           SELECT tenant_id, created_at, id, endpoint_id, 1, 'delivered', 5 FROM webhook_deliveries;
         INSERT INTO webhook_lanes (tenant_id, created_at, endpoint_id, send_window) SELECT tenant_id, now(), id, 8 FROM webhook_endpoints
           ON CONFLICT DO NOTHING;
         INSERT INTO data_keys (tenant_id, created_at, number, sealed)
           SELECT id, now(), 1000 + g, decode(repeat('00', 60), 'hex') FROM t, generate_series(1, 20) g;
         INSERT INTO audit_events (tenant_id, id, created_at, category, action, target_type, actor_type, request_id)
           SELECT id, gen_random_uuid(), now(), 'change', 'task.updated', 'task', 'user', 'r' FROM t, generate_series(1, 50) g;
         INSERT INTO event_outbox (tenant_id, id, created_at, kind, actor_kind, entity, data)
           SELECT id, gen_random_uuid(), now(), 'task.created', 'user', 'task', '{}' FROM t, generate_series(1, 50) g;
         INSERT INTO events (tenant_id, id, created_at, kind, actor_kind, entity, data, position)
           SELECT id, gen_random_uuid(), now(), 'task.created', 'user', 'task', '{}', g FROM t, generate_series(1, 50) g;
         INSERT INTO event_consumers (tenant_id, id, created_at, name, position, updated_at, version)
           SELECT id, gen_random_uuid(), now(), 'c' || g, g, now(), 1 FROM t, generate_series(1, 50) g;
         INSERT INTO event_progress (tenant_id, created_at, published, listed) SELECT id, now(), 50, 50 FROM t;
         INSERT INTO notifications (tenant_id, id, created_at, user_id, kind, event_id, occurred_at, actor_kind, entity, parts, in_app)
           SELECT tenant_id, gen_random_uuid(), now(), id, 'task.assigned', gen_random_uuid(), now(), 'system', 'task', '{}', true
           FROM users, generate_series(1, 3) g WHERE email LIKE 'u%@x.example';
         INSERT INTO notification_preferences (tenant_id, created_at, user_id, choices, updated_at, version)
           SELECT tenant_id, now(), id, '{}', now(), 1 FROM users WHERE email LIKE 'u%@x.example';
         INSERT INTO notification_positions (tenant_id, created_at, position) SELECT id, now(), 0 FROM t;
         INSERT INTO security_alerts (tenant_id, id, created_at, rule, subject_kind, subject, count, first_at, last_at, severity, state,
             evidence, action, open_key)
           SELECT id, gen_random_uuid(), now(), 'rule_' || substr('abcde', 1 + g % 5, 1), 'network', 'n' || g, 1, now(), now(), 'low', 'open',
             '[]', 'none', 'k' || g FROM t, generate_series(1, 50) g;
         INSERT INTO audit_blocks (tenant_id, id, created_at, first_sequence, last_sequence, links, min_at, max_at, cursor_xact, cursor_id)
           SELECT id, gen_random_uuid(), now(), 1000000 + g, 1000000 + g, decode(repeat('00', 64), 'hex'), now(), now(), 1, gen_random_uuid()
           FROM t, generate_series(1, 50) g;
         INSERT INTO audit_heads (tenant_id, id, created_at, kind, sequence, hash, kid, public_key, signature)
           SELECT id, gen_random_uuid(), now(), 'head', 1000000 + g, decode(repeat('00', 32), 'hex'), 'k', 'x', 'x'
           FROM t, generate_series(1, 50) g;
         INSERT INTO projects (tenant_id, id, name, status, owner_id, created_at, updated_at, version)
           SELECT id, gen_random_uuid(), 'P' || g, 'active', gen_random_uuid(), now(), now(), 1 FROM t, generate_series(1, 50) g;
         INSERT INTO project_members (tenant_id, id, project_id, user_id, role, created_at)
           SELECT p.tenant_id, gen_random_uuid(), p.id, u.id, 'member', now()
           FROM projects p JOIN users u ON u.tenant_id = p.tenant_id AND right(u.id::text, 1) = '0' AND right(p.id::text, 1) IN ('0', '1', '2')
           ON CONFLICT DO NOTHING;
         INSERT INTO tasks (tenant_id, id, project_id, title, status, priority, assignee_id, created_at, updated_at, version)
           SELECT p.tenant_id, gen_random_uuid(), p.id, 'task ' || g, (ARRAY['todo','in_progress','done','cancelled'])[1 + g % 4], 'normal',
                  CASE WHEN g = 1 THEN gen_random_uuid() END, now() - g * interval '1 minute', now(), 1
           FROM projects p, generate_series(1, 10) g;
         INSERT INTO resources (tenant_id, id, project_id, name, kind, content, created_by, created_at, updated_at, version)
           SELECT p.tenant_id, gen_random_uuid(), p.id, 'R', 'document', 'x', gen_random_uuid(), now(), now(), 1
           FROM projects p, generate_series(1, 2) g;
         INSERT INTO resource_versions (tenant_id, id, resource_id, version, name, kind, content, created_by, created_at)
           SELECT tenant_id, gen_random_uuid(), id, g, 'R', 'document', 'x', created_by, now() FROM resources, generate_series(1, 2) g
           ON CONFLICT DO NOTHING;
         INSERT INTO storage_usage (tenant_id, bytes, created_at)
           SELECT id, 1, now() FROM tenants WHERE slug LIKE '%-%';
         INSERT INTO tenant_settings (tenant_id, values, secrets, created_at, updated_at, version)
           SELECT id, '{}', '{}', now(), now(), 1 FROM tenants WHERE slug LIKE '%-%';
         INSERT INTO tenant_setting_versions (tenant_id, version, values, secrets, created_at)
           SELECT id, g, '{}', '{}', now() FROM tenants, generate_series(1, 5) g WHERE slug LIKE '%-%';
         INSERT INTO brandings (tenant_id, primary_color, accent_color, custom_css, created_at, updated_at, version)
           SELECT id, '#000000', '#ffffff', '', now(), now(), 1 FROM tenants WHERE slug LIKE '%-%';
         INSERT INTO billing_accounts (tenant_id, id, created_at, dunning, dunning_steps, fetches, applied, updated_at, version)
           SELECT id, gen_random_uuid(), now(), 'healthy', 0, 0, 0, now(), 1 FROM tenants WHERE slug LIKE '%-%';
         INSERT INTO invoices (tenant_id, id, created_at, invoice_ref, customer_ref, currency, total, amount_due, amount_paid,
             period_start, period_end, attempts, lines, updated_at)
           SELECT id, gen_random_uuid(), now(), 'in_' || g, 'cus', 'usd', 1, 1, 0, now(), now(), 0, '[]', now()
           FROM t, generate_series(1, 50) g;
         INSERT INTO meter_outbox (tenant_id, id, created_at, meter, hour, revision, quantity, identifier, state, attempts)
           SELECT id, gen_random_uuid(), now(), 'api_calls', now() - g * interval '1 hour', 1, 1, 'i', 'sent', 1
           FROM t, generate_series(1, 50) g;
         INSERT INTO jobs (tenant_id, id, created_at, kind, schema_version, payload, dedupe_key, state, run_at, attempts, max_attempts,
             actor_type, request_id, finished_at)
           SELECT id, gen_random_uuid(), now(), 'kind', 1, '{}', 'key-' || g, CASE WHEN g > 5 THEN 'done' ELSE 'queued' END, now(), 0, 5,
             'system', 'r', CASE WHEN g > 5 THEN now() END FROM t, generate_series(1, 50) g;
         INSERT INTO flag_overrides (tenant_id, id, created_at, flag, variant, updated_at, version)
           SELECT id, gen_random_uuid(), now(), 'flag-' || g, 'on', now(), 1 FROM t, generate_series(1, 50) g;
         INSERT INTO usage_events (tenant_id, id, created_at, meter, quantity, event_at, source, idempotency_key, origin, invalidates)
           SELECT id, gen_random_uuid(), now(), 'meter_' || g % 5, 1, now() + interval '1 day' * (g - 180), 's', 'k', 'api',
             CASE WHEN g % 10 = 0 THEN gen_random_uuid() END FROM t, generate_series(1, 360) g;
         INSERT INTO usage_keys (tenant_id, id, created_at, source, key, payload_hash)
           SELECT id, gen_random_uuid(), now(), 's', 'key-' || g, 'h' FROM t, generate_series(1, 50) g;
         INSERT INTO usage_intake (tenant_id, created_at, meter, day, events, quantity)
           SELECT id, now(), 'meter_' || g % 5, now() - interval '1 day' * g, 1, 1 FROM t, generate_series(1, 50) g;
         INSERT INTO usage_dirty (tenant_id, id, created_at, meter, hour)
           SELECT id, gen_random_uuid(), now(), 'meter_' || g, now() FROM t, generate_series(1, 50) g;
         INSERT INTO usage_hours (tenant_id, created_at, meter, hour, quantity, events, revision, computed_at)
           SELECT id, now(), 'meter_' || g % 5, now() - interval '1 hour' * g, 1, 1, 1, now() FROM t, generate_series(1, 50) g;
         INSERT INTO usage_days (tenant_id, created_at, meter, day, quantity, events, revision, computed_at)
           SELECT id, now(), 'meter_' || g % 5, now() - interval '1 day' * g, 1, 1, 1, now() FROM t, generate_series(1, 50) g;
         INSERT INTO quota_counters (tenant_id, id, created_at, meter, period_start, period_end, used, reserved, leased, alerted_included, alerted_limit)
           SELECT id, gen_random_uuid(), now(), 'm' || g % 3, now() - g * interval '1 day', now(), 1, 0, 0, 0, 0 FROM t, generate_series(1, 30) g;
         INSERT INTO quota_leases (tenant_id, id, created_at, counter_id, instance, amount, expires_at, expired)
           SELECT tenant_id, gen_random_uuid(), now(), id, gen_random_uuid(), 1, now(), g < 3 FROM quota_counters, generate_series(1, 4) g;
         INSERT INTO quota_reservations (tenant_id, id, created_at, counter_id, meter, period_start, period_end, amount, state, expires_at)
           SELECT tenant_id, gen_random_uuid(), now(), id, meter, period_start, period_end, 1, (ARRAY['open','released'])[1 + g % 2], now()
           FROM quota_counters, generate_series(1, 4) g;
         INSERT INTO quota_alerts (tenant_id, id, created_at, counter_id, meter, period_start, period_end, base, percent, amount, used)
           SELECT tenant_id, gen_random_uuid(), now(), id, meter, period_start, period_end, 'limit', g, 10, 8
           FROM quota_counters, generate_series(1, 4) g;
         ANALYZE;",
    )
    .execute(&mut admin)
    .await
    .unwrap();
}
