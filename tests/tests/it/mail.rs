//! Mail: who is told of what, once, whatever becomes of the mail server and of whoever sends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tenantry_billing::BillingHandlers as _;
use tenantry_billing::usage::quota;
use tenantry_billing::usage::quota_alert::TellAlert;
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{Clock, IdSource as _, Line, Role, UserId};
use tenantry_domain::operations::{Job, JobFilter, JobState, Mail, MailError, Mailbox, Mailer, MessageId};
use tenantry_domain::tenant::TenantStatus;
use tenantry_domain::usage::MeterKey;
use tenantry_mail::{LogMailer, Login, SmtpConfig, SmtpMailer, TalliedMailer, Tls};
use tenantry_persistence::PoolConfig;
use tenantry_system::SystemIds;
use tenantry_tenancy::BillingPolicy;
use tenantry_tenancy::admin::operator_job::JobStep;
use tenantry_tenancy::identity::user;
use tenantry_tenancy::identity::user::AddUser;
use tenantry_tenancy::operations::job::{self, Handlers, JobHandler, Terms};
use tenantry_tenancy::operations::mail::{Parcel, SendMail};
use tenantry_tenancy::operations::worker::{Outcome, Ran, Worker};
use tenantry_tenancy::tenant::row_work::{self, Settled};
use tenantry_tests::{
    Encryption, Mailing, ManualClock, Options, PASSWORD, Reaction, Received, SmtpServer, TenantWorld, World,
};

use crate::billing::Paying;
use crate::headers::Log;
use crate::jobs::worker;
use crate::quotas::limit;

/// The settings that lead to a server without TLS.
fn plain(server: &SmtpServer) -> SmtpConfig {
    SmtpConfig {
        host: server.address().ip().to_string(),
        port: server.address().port(),
        tls: Tls::None,
        login: None,
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        pool_size: 2,
        from: Mailbox::parse("Tenantry <no-reply@mail.example>").unwrap(),
    }
}

/// A world whose mail goes to a server of its own.
struct Post {
    world: World,
    server: SmtpServer,
}

impl Post {
    async fn new() -> Self {
        Self::with(Options::default(), |_| {}).await
    }

    async fn with(options: Options, change: impl FnOnce(&mut SmtpConfig)) -> Self {
        let server = SmtpServer::start();
        let options = mailing(options, &server, change);
        Self {
            world: World::with(options).await,
            server,
        }
    }

    /// A tenant uses so much of 100 calls.
    async fn use_calls(&self, tenant: &TenantWorld, amount: u64) {
        let cx = self.world.cx(&tenant.admin).await;
        quota::consume(&cx, &MeterKey::api_calls(), amount).await.unwrap();
    }

    /// Acme may make 100 calls, has made 80, and two admins are about to be told.
    async fn alerted(&self) -> UserId {
        limit(&self.world, &self.world.acme, "api_calls", 100).await;
        let second = self.add("grace@acme.example", Role::Admin).await;
        self.use_calls(&self.world.acme, 80).await;
        second
    }

    async fn add(&self, email: &str, role: Role) -> UserId {
        add(&self.world, email, role).await
    }

    /// Does what there is to do, until there is nothing more to do at once.
    async fn work(&self) -> Vec<Ran> {
        work(&self.world).await
    }

    /// The alerts become mails, which are not sent yet.
    async fn tell_alerts(&self) {
        let alerts = worker(&self.world, Handlers::default().with(TellAlert));
        alerts.run_once().await.unwrap();
    }

    /// The outcomes of the mails among it, in order.
    async fn outcomes(&self) -> Vec<Outcome> {
        let mails = self
            .work()
            .await
            .into_iter()
            .filter(|ran| ran.kind == SendMail::KIND);
        let mut outcomes: Vec<_> = mails.map(|ran| ran.outcome).collect();
        outcomes.sort_by_key(|outcome| outcome.as_str());
        outcomes
    }

    /// The mails of acme's queue.
    async fn mails(&self) -> Vec<Job> {
        let all = job::list(&self.world.app, self.world.acme.id, JobFilter::default(), 1_000).await;
        let mut mails: Vec<_> = all
            .unwrap()
            .into_iter()
            .filter(|job| job.kind == SendMail::KIND)
            .collect();
        mails.sort_by_key(|job| job.id);
        mails
    }
}

/// A mailer whose pauses pass with a clock of the test's.
fn timed_by(settings: SmtpConfig, clock: &Arc<ManualClock>) -> SmtpMailer {
    let (start, clock) = (clock.now(), Arc::clone(clock));
    SmtpMailer::timed_by(settings, move || {
        (clock.now() - start).to_std().unwrap_or_default()
    })
    .unwrap()
}

pub(crate) fn mailing(
    options: Options,
    server: &SmtpServer,
    change: impl FnOnce(&mut SmtpConfig),
) -> Options {
    let clock = Arc::new(ManualClock::default());
    let mut settings = plain(server);
    change(&mut settings);
    let mailer = timed_by(settings, &clock);
    Options {
        mailer: Some(Mailing(Arc::new(mailer))),
        clock: Some(clock),
        ..options
    }
}

pub(crate) async fn work(world: &World) -> Vec<Ran> {
    let worker = worker(world, Handlers::standard().with_usage());
    let mut all = Vec::new();
    loop {
        let ran = worker.run_once().await.unwrap();
        if ran.is_empty() {
            return all;
        }
        all.extend(ran);
    }
}

async fn add(world: &World, email: &str, role: Role) -> UserId {
    let cx = world.cx(&world.acme.admin).await;
    let data = AddUser {
        email: email.into(),
        full_name: "Grace Hopper".into(),
        role,
        custom_role: None,
        password: Some(PASSWORD.into()),
        is_own_password: true,
    };
    let added = user::create(&cx, data).await.unwrap().user.id;
    world.forget_links().await;
    added
}

/// Who got something, in order of their addresses.
fn recipients(server: &SmtpServer) -> Vec<String> {
    let mut all: Vec<_> = server.received().into_iter().flat_map(|mail| mail.to).collect();
    all.sort();
    all
}

/// Everything of a mail that a reader sees.
fn shown(mail: &Received) -> String {
    let heads = ["From", "To", "Subject", "Date"].map(|name| format!("{name}: {}\n", mail.header(name)));
    format!("{}\n{}", heads.concat(), mail.text())
}

// --------------------------------------------------------------------------------------- who is told of what

#[actix_web::test]
async fn each_admin_of_the_tenant_is_told_of_a_threshold_once_and_nobody_else() {
    let post = Post::new().await;
    let (world, acme) = (&post.world, &post.world.acme);
    let look = json!({"display_name": "Acme & Söhne"});
    world
        .patch(&acme.admin, "/api/v1/branding", &look)
        .await
        .expect(200);
    let zone = json!({"settings": {"timezone": "America/New_York"}});
    world
        .patch(&acme.admin, "/api/v1/tenant", &zone)
        .await
        .expect(200);
    let gone = post.add("gone@acme.example", Role::Admin).await;
    let path = format!("/api/v1/users/{gone}");
    world
        .patch(&acme.admin, &path, &json!({"is_active": false}))
        .await
        .expect(200);
    post.alerted().await;
    assert_eq!(post.outcomes().await, [Outcome::Done, Outcome::Done]);
    assert_eq!(
        recipients(&post.server),
        ["admin@acme.example", "grace@acme.example"]
    );
    let received = post.server.received();
    let mail = received
        .iter()
        .find(|mail| mail.to == ["admin@acme.example"])
        .unwrap();
    assert_eq!(mail.from, "no-reply@mail.example");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    insta::assert_snapshot!("quota_mail", shown(mail));
    // The same period, and the other tenant.
    post.work().await;
    assert_eq!(post.server.received().len(), 2);
    limit(world, &world.globex, "api_calls", 100).await;
    post.use_calls(&world.globex, 100).await;
    post.work().await;
    let received = post.server.received().split_off(2);
    let others: Vec<_> = received.into_iter().flat_map(|mail| mail.to).collect();
    assert_eq!(others, ["admin@globex.example"; 2], "80 and 100 percent");
}

#[actix_web::test]
async fn twenty_who_reach_thresholds_at_once_cause_one_mail_for_each_person_and_threshold() {
    let post = Post::new().await;
    let world = &post.world;
    limit(world, &world.acme, "api_calls", 100).await;
    post.add("grace@acme.example", Role::Admin).await;
    let cx = world.cx(&world.acme.admin).await;
    let meter = &MeterKey::api_calls();
    quota::consume(&cx, meter, 79).await.unwrap();
    join_all((0..21).map(|_| quota::consume(&cx, meter, 1))).await;
    let workers = [(); 3].map(|()| worker(world, Handlers::standard().with_usage()));
    for _ in 0..3 {
        join_all(workers.iter().map(Worker::run_once)).await;
    }
    let mut told: Vec<_> = post
        .server
        .received()
        .iter()
        .map(|mail| (mail.to[0].clone(), mail.header("Subject")))
        .collect();
    told.sort();
    let subject = |percent| format!("[Acme Inc] API calls: {percent} % of the limit is used");
    let expected: Vec<_> = ["admin@acme.example", "grace@acme.example"]
        .iter()
        .flat_map(|to| [100, 80].map(|percent| ((*to).to_owned(), subject(percent))))
        .collect();
    assert_eq!(told, expected);
}

#[actix_web::test]
async fn every_step_of_dunning_is_told_each_admin_the_deletion_too() {
    let server = SmtpServer::start();
    let paying = Paying::over(mailing(deleting(), &server, |_| {})).await;
    paying.payments.sell_at_least(9);
    let acme = paying.world.acme.id;
    paying.work().await;
    add(&paying.world, "grace@acme.example", Role::Admin).await;
    let subscription = paying.subscription(acme).await;
    paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    paying.pass(19).await;
    assert_eq!(paying.tenant(acme).await.status, TenantStatus::Deleted);
    let subjects = |to: &str| {
        let all = server.received().into_iter().filter(|mail| mail.to == [to]);
        all.map(|mail| mail.header("Subject")).collect::<Vec<_>>()
    };
    let expected = [
        "[Acme Inc] a payment has failed",
        "[Acme Inc] read-only on 2026-01-22 12:00 (UTC) unless an invoice is paid",
        "[Acme Inc] read-only because an invoice is not paid",
        "[Acme Inc] deleted on 2026-02-01 12:00 (UTC) unless an invoice is paid",
        "[Acme Inc] deleted because an invoice was not paid",
    ];
    assert_eq!(subjects("admin@acme.example"), expected);
    assert_eq!(subjects("grace@acme.example"), expected);
    assert_eq!(server.received().len(), 10, "and nobody else");
    let ids: std::collections::BTreeSet<_> = server
        .received()
        .iter()
        .map(|mail| mail.header("Message-ID"))
        .collect();
    assert_eq!(ids.len(), 10);
    insta::assert_snapshot!("dunning_mail", shown(&server.received()[4]));
    insta::assert_snapshot!("farewell_mail", shown(server.received().last().unwrap()));
}

/// Who does not pay is read-only after seven days and deleted ten days later.
fn deleting() -> Options {
    Options {
        billing: BillingPolicy {
            delete_after_days: Some(10),
            ..BillingPolicy::default()
        },
        ..Options::default()
    }
}

#[actix_web::test]
async fn a_deletion_is_told_after_it_has_happened_when_the_server_is_back() {
    let mut server = SmtpServer::start();
    let paying = Paying::over(mailing(deleting(), &server, |_| {})).await;
    paying.payments.sell_at_least(9);
    let (world, acme) = (&paying.world, paying.world.acme.id);
    paying.work().await;
    add(world, "grace@acme.example", Role::Admin).await;
    let left = add(world, "left@acme.example", Role::Admin).await;
    let subscription = paying.subscription(acme).await;
    paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    paying.pass(8).await;
    let before = server.received().len();
    server.stop();
    paying.pass(10).await;
    assert_eq!(paying.tenant(acme).await.status, TenantStatus::Deleted);
    world
        .sql(format!("UPDATE users SET is_active = false WHERE id = '{left}'"))
        .await;
    // Its users are marked as deleted by then.
    let settled = row_work::settle(&world.app, acme, None, &|_| {}).await;
    assert_eq!(settled.unwrap(), Settled::Done);
    server.restart();
    paying.pass(1).await;
    let received = server.received().split_off(before);
    let told: Vec<_> = received
        .iter()
        .map(|mail| (mail.to[0].as_str(), mail.header("Subject")))
        .collect();
    // What was ahead has happened by now, and whoever is inactive is nobody.
    let deleted = || "[Acme Inc] deleted because an invoice was not paid".to_owned();
    let expected = [
        ("admin@acme.example", deleted()),
        ("grace@acme.example", deleted()),
    ];
    assert!(
        told.len() == 2 && expected.iter().all(|mail| told.contains(mail)),
        "{told:?}"
    );
    let states = format!(
        "SELECT kind, state, count(*) FROM jobs WHERE tenant_id = '{acme}' AND kind LIKE 'mail.%' \
         AND state <> 'done' GROUP BY 1, 2"
    );
    let left_over: Vec<(String, String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(states))
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(left_over, [("mail.send".to_owned(), "parked".to_owned(), 3)]);
}

#[actix_web::test]
async fn paying_is_told_and_steps_that_are_past_are_not() {
    let server = SmtpServer::start();
    let paying = Paying::over(mailing(Options::default(), &server, |_| {})).await;
    let acme = paying.world.acme.id;
    paying.work().await;
    let subscription = paying.subscription(acme).await;
    let invoice = paying.payments.fail_payment(&subscription);
    // Nobody hears of it for eight days: what is past is not announced, and the suspension still is.
    paying.world.clock.advance(chrono::Duration::days(8));
    paying.tell_all().await;
    paying.payments.pay(&invoice);
    paying.tell_all().await;
    let subjects: Vec<_> = server
        .received()
        .iter()
        .map(|mail| mail.header("Subject"))
        .collect();
    assert_eq!(
        subjects,
        [
            "[Acme Inc] read-only on 2026-01-26 12:00 (UTC) unless an invoice is paid",
            "[Acme Inc] everything is paid"
        ]
    );
}

#[actix_web::test]
async fn a_deletion_that_an_operator_has_averted_is_not_told() {
    let server = SmtpServer::start();
    let paying = Paying::over(mailing(deleting(), &server, |_| {})).await;
    paying.payments.sell_at_least(9);
    let acme = paying.world.acme.id;
    paying.work().await;
    let subscription = paying.subscription(acme).await;
    paying.payments.fail_payment(&subscription);
    paying.tell_all().await;
    paying.pass(8).await;
    let operator = paying.world.operator_cx();
    tenantry_tenancy::tenant::lifecycle::resume(&operator, acme, "they promised")
        .await
        .unwrap();
    paying.pass(12).await;
    assert_eq!(paying.tenant(acme).await.status, TenantStatus::Active);
    assert_eq!(server.received().len(), 3, "failed, read-only ahead, read-only");
}

#[actix_web::test]
async fn whoever_is_no_admin_any_more_when_it_is_sent_gets_nothing() {
    let post = Post::new().await;
    let (world, acme) = (&post.world, &post.world.acme);
    let path = |id: UserId| format!("/api/v1/users/{id}");
    let demoted = post.alerted().await;
    let inactive = post.add("inactive@acme.example", Role::Admin).await;
    let removed = post.add("removed@acme.example", Role::Admin).await;
    let moved = post.add("old@acme.example", Role::Admin).await;
    post.use_calls(acme, 20).await;
    post.tell_alerts().await;
    assert_eq!(post.mails().await.len(), 10);
    let change = async |id, body: Value| {
        world.patch(&acme.admin, &path(id), &body).await.expect(200);
    };
    change(demoted, json!({"role": "member"})).await;
    change(inactive, json!({"is_active": false})).await;
    change(moved, json!({"email": "new@acme.example"})).await;
    world.forget_links().await;
    world.delete(&acme.admin, &path(removed)).await.expect(204);
    assert_eq!(post.outcomes().await, [Outcome::Done; 10]);
    let expected = [
        "admin@acme.example",
        "admin@acme.example",
        "new@acme.example",
        "new@acme.example",
        // The notice that the address was changed.
        "old@acme.example",
    ];
    assert_eq!(recipients(&post.server), expected);
}

#[actix_web::test]
async fn a_mail_of_one_tenant_never_reaches_anybody_of_another() {
    let post = Post::new().await;
    let (acme, globex) = (&post.world.acme, &post.world.globex);
    post.alerted().await;
    post.work().await;
    let before = post.server.received().len();
    // A job of acme's that names an admin of the other tenant, as no code of ours makes one.
    let parcel: Parcel = serde_json::from_value(post.mails().await[0].payload.clone()).unwrap();
    let foreign = Parcel {
        to: globex.admin.id,
        ..parcel
    };
    let cx = post.world.cx(&acme.admin).await;
    cx.write(async |work| job::enqueue::<SendMail>(&cx, work, &foreign, Terms::default()).await)
        .await
        .unwrap();
    assert_eq!(post.outcomes().await, [Outcome::Done]);
    assert_eq!(post.server.received().len(), before);
}

#[actix_web::test]
async fn names_that_are_meant_to_do_harm_stay_names() {
    let post = Post::new().await;
    post.alerted().await;
    let evil = [
        "Acme\\r\\nBcc: eve@example.com\\r\\n\\r\\nYou have won",
        "<script>alert(1)</script>",
        "\\u202Eevil\\u2066\\u2028Bcc: eve@example.com",
        "\\u05E9\\u05DC\\u05D5\\u05DD \\u05E2\\u05D5\\u05DC\\u05DD",
        "a\\r\\n.\\r\\nMAIL FROM:<eve@example.com>",
    ];
    let long = "10 kB ".repeat(1_700);
    post.tell_alerts().await;
    let jobs = post.mails().await;
    let parcel: Parcel = serde_json::from_value(jobs[0].payload.clone()).unwrap();
    for (number, name) in evil.iter().copied().chain([long.as_str()]).enumerate() {
        let acme = post.world.acme.id;
        let users = format!("UPDATE users SET full_name = E'{name}' WHERE tenant_id = '{acme}';");
        post.world
            .sql(format!(
                "{users} UPDATE tenants SET name = E'{name}' WHERE id = '{acme}'"
            ))
            .await;
        let cx = post.world.cx(&post.world.acme.admin).await;
        cx.write(async |work| job::enqueue::<SendMail>(&cx, work, &parcel, Terms::default()).await)
            .await
            .unwrap();
        post.work().await;
        let mail = post.server.received().pop().unwrap();
        assert_eq!(mail.to.len(), 1, "{name}");
        let headers = [
            "Message-ID",
            "Date",
            "From",
            "To",
            "Subject",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
        ];
        assert_eq!(mail.header_names(), headers, "{name}");
        assert!(mail.header("Content-Type").starts_with("multipart/alternative;"));
        assert!(mail.html().contains("<html lang=\"en\">"));
        let text = mail.text();
        assert!(
            text.starts_with("Hello ") && text.len() < 4_000,
            "{number}: {text}"
        );
        assert!(
            !text.contains(['\u{202E}', '\u{2066}', '\u{2028}', '\r']),
            "{text:?}"
        );
        assert!(!text.contains("\nBcc") && !text.contains("\n.\n"), "{text}");
        match number {
            // The address is not verified, so names are shown without what could be markup or a link.
            1 => assert!(text.contains("script alert(1) script has used 80 %"), "{text}"),
            3 => assert_eq!(
                mail.header("Subject"),
                "[שלום עולם] API calls: 80 % of the limit is used"
            ),
            _ => {}
        }
    }
    assert!(
        recipients(&post.server)
            .iter()
            .all(|to| to.ends_with("@acme.example"))
    );
}

// -------------------------------------------------------------------------------------- once, and in the end

#[actix_web::test]
async fn while_the_server_is_away_mail_waits_and_is_sent_once_when_it_is_back() {
    let mut post = Post::new().await;
    post.server.stop();
    post.alerted().await;
    assert_eq!(post.outcomes().await, [Outcome::Retried, Outcome::Retried]);
    for job in post.mails().await {
        let problem = job.progress.last_error.unwrap();
        assert!(
            problem.starts_with("the mail server is unavailable: "),
            "{problem}"
        );
    }
    post.world.clock.advance(chrono::Duration::minutes(15));
    assert_eq!(post.outcomes().await, [Outcome::Retried, Outcome::Retried]);
    post.server.restart();
    post.world.clock.advance(chrono::Duration::minutes(15));
    assert_eq!(post.outcomes().await, [Outcome::Done, Outcome::Done]);
    assert_eq!(
        recipients(&post.server),
        ["admin@acme.example", "grace@acme.example"]
    );
    post.world.clock.advance(chrono::Duration::minutes(15));
    assert_eq!(post.outcomes().await, []);
}

#[actix_web::test]
async fn what_is_refused_for_good_is_given_up_and_the_others_get_theirs() {
    let post = Post::new().await;
    post.server.refuse("admin@acme.example", 550);
    post.alerted().await;
    assert_eq!(post.outcomes().await, [Outcome::Dead, Outcome::Done]);
    assert_eq!(recipients(&post.server), ["grace@acme.example"]);
    let mails = post.mails().await;
    let dead: Vec<_> = mails
        .iter()
        .filter(|job| job.progress.state == JobState::Dead)
        .collect();
    assert_eq!(dead.len(), 1);
    let problem = dead[0].progress.last_error.as_deref().unwrap();
    assert!(
        problem.contains("550") && problem.contains("refuses"),
        "{problem}"
    );
    assert!(!problem.contains("admin@acme.example"), "{problem}");
    // An operator begins anew.
    post.server.refuse("admin@acme.example", 450);
    post.world
        .step_job(post.world.acme.id, dead[0].id.uuid(), JobStep::Replay)
        .await
        .unwrap();
    assert_eq!(post.outcomes().await, [Outcome::Retried], "4xx may pass");
    for answer in [Reaction::AtEnd(451), Reaction::AtEnd(554)] {
        post.server.react(answer);
    }
    limit(&post.world, &post.world.globex, "api_calls", 100).await;
    post.use_calls(&post.world.globex, 80).await;
    assert_eq!(post.outcomes().await, [Outcome::Retried]);
    post.world.clock.advance(chrono::Duration::minutes(15));
    assert_eq!(post.outcomes().await, [Outcome::Dead, Outcome::Retried]);
}

#[actix_web::test]
async fn a_mail_whose_acceptance_was_lost_is_the_same_mail_when_it_is_sent_again() {
    let post = Post::new().await;
    limit(&post.world, &post.world.acme, "api_calls", 100).await;
    post.server.react(Reaction::TakeAndVanish);
    post.use_calls(&post.world.acme, 80).await;
    assert_eq!(post.outcomes().await, [Outcome::Retried]);
    post.world.clock.advance(chrono::Duration::minutes(15));
    assert_eq!(post.outcomes().await, [Outcome::Done]);
    let received = post.server.received();
    assert_eq!(received.len(), 2);
    let id = format!("<{}@mail.example>", post.mails().await[0].id);
    assert_eq!(received[0].header("Message-ID"), id);
    assert_eq!(received[0].data, received[1].data, "to the byte");
}

/// Each attempt is a copy for the reader, so there are few.
#[actix_web::test]
async fn mail_without_an_answer_is_given_up_after_three_copies() {
    let post = Post::with(Options::default(), |settings| {
        settings.timeout = Duration::from_millis(300);
    })
    .await;
    // A refusal is an answer, so it does not count.
    post.server.refuse("admin@globex.example", 450);
    for tenant in [&post.world.acme, &post.world.globex] {
        limit(&post.world, tenant, "api_calls", 100).await;
    }
    for reaction in [
        Reaction::TakeAndHang,
        Reaction::TakeAndVanish,
        Reaction::TakeAndHang,
    ] {
        post.server.react(reaction);
    }
    for tenant in [&post.world.acme, &post.world.globex] {
        post.use_calls(tenant, 80).await;
    }
    for outcome in [Outcome::Retried, Outcome::Retried, Outcome::Dead] {
        assert_eq!(post.outcomes().await, [outcome, Outcome::Retried]);
        post.world.clock.advance(chrono::Duration::minutes(15));
    }
    assert_eq!(post.outcomes().await, [Outcome::Retried]);
    assert_eq!(post.server.received().len(), 3);
    assert_eq!(post.world.app.unsent_mails().given_up(), 1);
    let problem = post.mails().await.remove(0).progress.last_error.unwrap();
    assert!(problem.contains("3 times"), "{problem}");
}

#[actix_web::test]
async fn a_worker_that_dies_after_sending_leaves_the_same_mail_to_the_next() {
    let post = Post::new().await;
    limit(&post.world, &post.world.acme, "api_calls", 100).await;
    post.use_calls(&post.world.acme, 80).await;
    post.tell_alerts().await;
    post.server.react(Reaction::TakeAndHang);
    let doomed = worker(&post.world, Handlers::standard().with_usage());
    let running = tokio::spawn(async move { doomed.run_once().await });
    while post.server.received().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(post.outcomes().await, [], "the lease still stands");
    crate::jobs::expire_leases(&post.world).await;
    assert_eq!(post.outcomes().await, [Outcome::Done]);
    let received = post.server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].header("Message-ID"), received[1].header("Message-ID"));
    assert_eq!(
        post.server.connections(),
        2,
        "nobody goes on where somebody was interrupted"
    );
}

#[actix_web::test]
async fn a_server_that_hangs_takes_no_room_from_other_work() {
    let post = Post::with(Options::default(), |settings| {
        settings.connect_timeout = Duration::from_millis(300);
    })
    .await;
    post.server.fall_silent();
    for number in 0..20 {
        post.add(&format!("admin-{number}@acme.example"), Role::Admin)
            .await;
    }
    limit(&post.world, &post.world.acme, "api_calls", 100).await;
    post.use_calls(&post.world.acme, 80).await;
    let outcomes = post.outcomes().await;
    assert_eq!(outcomes, [Outcome::Retried; 21]);
    assert_eq!(
        post.server.connections(),
        1,
        "one has looked for all, and the others did not wait"
    );
}

#[actix_web::test]
async fn one_connection_to_the_database_is_enough() {
    let pool = PoolConfig {
        size: 1,
        per_tenant: 1,
        acquire_timeout: Duration::from_secs(10),
        ..PoolConfig::default()
    };
    let options = Options {
        pool,
        ..Options::default()
    };
    let post = Post::with(options, |_| {}).await;
    post.alerted().await;
    assert_eq!(post.outcomes().await, [Outcome::Done, Outcome::Done]);
    assert_eq!(
        post.server.connections(),
        1,
        "the second mail goes over the same connection"
    );
}

#[actix_web::test]
async fn a_suspended_tenant_is_told_and_a_deleted_one_is_not_told_of_its_use() {
    let post = Post::new().await;
    post.alerted().await;
    post.world.set_status(&post.world.acme, "suspended").await;
    assert_eq!(post.outcomes().await, [Outcome::Done, Outcome::Done]);
    post.world.set_status(&post.world.acme, "active").await;
    post.use_calls(&post.world.acme, 20).await;
    post.tell_alerts().await;
    post.world.set_status(&post.world.acme, "deleted").await;
    assert_eq!(post.outcomes().await, [Outcome::Parked, Outcome::Parked]);
    assert_eq!(post.server.received().len(), 2);
}

// ------------------------------------------------------------------------------------------------ the server

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::default())
}

fn mail(to: &str) -> Mail {
    Mail {
        id: MessageId::once(SystemIds.uuid()),
        to: Mailbox {
            name: None,
            email: Email::parse(to, "").unwrap(),
        },
        subject: Line::of("Hello"),
        text: "Hello.\n.\nGood bye.\n".into(),
        html: None,
        written_at: "2026-01-15T12:00:00Z".parse().unwrap(),
        unsubscribe: None,
    }
}

fn mailer(settings: SmtpConfig) -> SmtpMailer {
    SmtpMailer::new(settings).unwrap()
}

#[actix_web::test]
async fn with_tls_nothing_is_said_in_the_clear_and_only_the_right_certificate_counts() {
    for (encryption, tls, other) in [
        (Encryption::Starttls, Tls::Starttls, Tls::Implicit),
        (Encryption::Implicit, Tls::Implicit, Tls::Starttls),
    ] {
        let server = SmtpServer::with(encryption);
        server.demand("tenantry", "hush-hush");
        let login = |password: &str| {
            Some(Login {
                user: "tenantry".into(),
                password: password.into(),
            })
        };
        let config = SmtpConfig {
            tls,
            login: login("hush-hush"),
            ca_file: Some(server.authority()),
            connect_timeout: Duration::from_millis(1_500),
            ..plain(&server)
        };
        assert!(!format!("{config:?}").contains("hush-hush"));
        let right = mailer(config.clone());
        assert!(!format!("{right:?}").contains("hush-hush"));
        let accepted = right.send(&mail("ada@example.com")).await.unwrap();
        assert_eq!(accepted.0, "250 2.0.0 taken as 4711");
        right.send(&mail("ada@example.com")).await.unwrap();
        let received = server.received();
        assert!(
            received.iter().all(|mail| mail.encrypted && mail.login.is_some()),
            "{received:?}"
        );
        assert_eq!(received[0].text(), "Hello.\n.\nGood bye.\n");
        for (wrong, changed) in [
            (
                "password",
                SmtpConfig {
                    login: login("hush"),
                    ..config.clone()
                },
            ),
            (
                "no login",
                SmtpConfig {
                    login: None,
                    ..config.clone()
                },
            ),
            (
                "somebody else's authority",
                SmtpConfig {
                    ca_file: None,
                    ..config.clone()
                },
            ),
            (
                "the other way",
                SmtpConfig {
                    tls: other,
                    ..config.clone()
                },
            ),
        ] {
            let error = mailer(changed).send(&mail("ada@example.com")).await.unwrap_err();
            assert!(
                wrong == "the other way" || matches!(error, MailError::Misconfigured(_)),
                "{wrong}: {error}"
            );
            assert!(
                error.may_pass(),
                "{wrong}: it is the configuration's fault, not the mail's: {error}"
            );
            assert!(!error.to_string().contains("hush"), "{wrong}: {error}");
        }
        assert_eq!(server.received().len(), 2);
    }
}

#[actix_web::test]
async fn a_server_that_does_not_offer_to_encrypt_gets_no_mail() {
    let server = SmtpServer::start();
    let config = SmtpConfig {
        tls: Tls::Starttls,
        ..plain(&server)
    };
    let error = mailer(config).send(&mail("ada@example.com")).await.unwrap_err();
    assert!(matches!(error, MailError::Misconfigured(_)), "{error}");
    assert_eq!(server.received(), []);
}

#[actix_web::test]
async fn a_file_without_a_certificate_is_refused() {
    let server = SmtpServer::start();
    for (file, problem) in [
        ("/nowhere/ca.pem", "No such file"),
        (
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            "there is no certificate in it",
        ),
    ] {
        let config = SmtpConfig {
            tls: Tls::Starttls,
            ca_file: Some(file.into()),
            ..plain(&server)
        };
        let error = SmtpMailer::new(config).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(file), "{error}");
    }
}

#[actix_web::test]
async fn a_connection_that_went_bad_is_replaced_and_one_that_hangs_is_given_up() {
    let mut server = SmtpServer::start();
    let clock = Arc::new(ManualClock::default());
    let config = SmtpConfig {
        timeout: Duration::from_millis(300),
        ..plain(&server)
    };
    let mailer = timed_by(config, &clock);
    mailer.send(&mail("ada@example.com")).await.unwrap();
    // The connection that is kept is dead by now.
    server.restart();
    mailer.send(&mail("ada@example.com")).await.unwrap();
    server.react(Reaction::TakeAndHang);
    let slow = mailer.send(&mail("ada@example.com")).await.unwrap_err();
    let problem = "no answer within 300 ms".to_owned();
    assert_eq!(
        slow,
        MailError::InDoubt(problem.clone()),
        "it has all of the mail"
    );
    let connections = server.connections();
    let away = mailer.send(&mail("ada@example.com")).await.unwrap_err();
    assert_eq!(
        away,
        MailError::Unavailable(problem),
        "it has nothing of this one"
    );
    assert_eq!(server.connections(), connections, "nobody waits again at once");
    clock.advance(chrono::Duration::seconds(5));
    mailer.send(&mail("ada@example.com")).await.unwrap();
    assert_eq!(server.received().len(), 4);
}

#[actix_web::test]
async fn what_became_of_mail_is_counted() {
    let server = SmtpServer::start();
    let tallied = TalliedMailer::new(Box::new(mailer(plain(&server))), clock());
    assert!(tallied.stats().goes_out());
    server.refuse("no@example.com", 550);
    server.refuse("later@example.com", 450);
    for to in ["ada@example.com", "no@example.com", "later@example.com"] {
        let _ = tallied.send(&mail(to)).await;
    }
    let stats = tallied.stats();
    assert_eq!(
        (stats.sent, stats.failed, stats.retried, stats.in_doubt),
        (1, 1, 1, 0)
    );
    assert!(!stats.goes_out(), "the last one was not taken");
    assert!(stats.last_failure.unwrap().1.contains("450"));
    tallied.send(&mail("ada@example.com")).await.unwrap();
    assert!(tallied.stats().goes_out());
}

#[actix_web::test]
async fn without_a_server_the_log_says_as_much_as_it_may() {
    for (contents, expected) in [(true, true), (false, false)] {
        let log = Log::default();
        let guard = log.collect();
        LogMailer::new(contents)
            .send(&mail("ada@example.com"))
            .await
            .unwrap();
        drop(guard);
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["ada@example.com", "Good bye"] {
            assert_eq!(text.contains(part), expected, "{part}: {text}");
        }
    }
}
