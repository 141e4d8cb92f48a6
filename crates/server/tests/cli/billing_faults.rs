//! Billing while servers are killed, databases restart and answers are lost: with real servers, and a stand-in for Stripe
//! that outlives them.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenantry_domain::kernel::{Clock as _, Period, Time};
use tenantry_stripe_fake::{Card, Failure, FakeConfig, Held, Hold, Matcher, StripeFake, sign};
use tenantry_system::SystemClock;

use super::metering::waiting;
use super::serving::{Serving, beside, row};
use super::*;

const SECRET: &str = "whsec_test";

/// A demo whose tenants pay. It answers requests and runs no jobs: those are run by servers beside it, which are killed.
struct Shop {
    dev: Dev,
    fake: StripeFake,
    config: Vec<(&'static str, String)>,
    folder: Folder,
}

/// A tenant with the token of its admin.
struct Member {
    id: String,
    token: String,
}

impl Shop {
    /// One whose stand-in's clock stands still, so long ago.
    fn open(name: &str, ago: chrono::Duration) -> Self {
        let folder = Folder::new(name);
        let fake = FakeConfig {
            now: SystemClock::new().now() - ago,
            hang: Duration::from_secs(600),
            ..FakeConfig::default()
        };
        let fake = StripeFake::start(fake).unwrap();
        let plans = folder.0.join("plans.toml");
        std::fs::write(&plans, plans_with_pages()).unwrap();
        let stripe = vec![
            ("TENANTRY__PLANS__FILE", plans.to_str().unwrap().to_owned()),
            (
                "TENANTRY__BILLING__STRIPE__SECRET_KEY",
                fake.secret_key().to_owned(),
            ),
            (
                "TENANTRY__BILLING__STRIPE__WEBHOOK_SECRETS",
                format!("[\"{SECRET}\"]"),
            ),
            ("TENANTRY__BILLING__STRIPE__API_BASE", fake.url().to_owned()),
            ("TENANTRY__BILLING__STRIPE__TIMEOUT_MS", "60000".to_owned()),
        ];
        let mut of_dev = borrowed(&stripe);
        of_dev.push(("TENANTRY__JOBS__ENABLED", "false"));
        // The demo's tenants become customers when they are seeded.
        let dev = Dev::start_as(&folder.0, &[], &of_dev);
        let mut config = stripe.clone();
        config.extend(beside(&folder.0));
        for (key, value) in [
            ("TENANTRY__JOBS__POLL_MS", "20"),
            ("TENANTRY__JOBS__AT_ONCE", "64"),
            ("TENANTRY__JOBS__LEASE_SECONDS", "5"),
            // Whoever waits for Stripe holds no connection meanwhile.
            ("TENANTRY__DATABASE__POOL_SIZE", "2"),
        ] {
            config.push((key, value.to_owned()));
        }
        let shop = Self {
            dev,
            fake,
            config,
            folder,
        };
        // What each server does once an hour is done with.
        let serving = shop.serving(&[]);
        shop.until(
            "the plans are on offer and the demo's tenants are customers",
            || shop.fake.subscriptions().len() == 1 && shop.open_jobs() == 0,
        );
        serving.end("KILL");
        // So it is for the hours that may begin while the test runs.
        let changed = "'id', gen_random_uuid(), 'dedupe_key', (j.dedupe_key::bigint + n)::text";
        let later = format!("jsonb_populate_record(j, jsonb_build_object({changed})) AS one");
        let hourly = "j.kind LIKE 'billing.%' AND j.kind <> 'billing.provider_event'";
        let from = format!("(SELECT {later} FROM system_jobs j, generate_series(1, 2) n WHERE {hourly}) l");
        let sql = format!("INSERT INTO system_jobs SELECT (one).* FROM {from} ON CONFLICT DO NOTHING");
        execute(&shop.folder.0, &sql);
        shop
    }

    /// A server that runs jobs.
    fn serving(&self, more: &[(&'static str, &str)]) -> Serving {
        Serving::start(&[&borrowed(&self.config), more].concat())
    }

    fn sign_up(&self, slug: &str) -> Member {
        let body = json!({"name": slug, "slug": slug, "plan": "pro",
            "admin": {"email": format!("a@{slug}.example"), "full_name": "A", "password": "correct horse"}});
        let (status, answer) = self.dev.request("POST", "/api/v1/tenants", "", &body.to_string());
        assert_eq!(status, 201, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        Member {
            id: answer["tenant"]["id"].as_str().unwrap().to_owned(),
            token: answer["credentials"]["access_token"].as_str().unwrap().to_owned(),
        }
    }

    fn post(&self, member: &Member, path: &str, body: &Value) -> Value {
        let headers = format!("Authorization: Bearer {}\r\n", member.token);
        let (status, answer) = self.dev.request("POST", path, &headers, &body.to_string());
        assert!((200..300).contains(&status), "{path}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    fn one<T>(&self, sql: &str) -> T
    where
        (T,): for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        row::<(T,)>(&self.folder.0, sql).0
    }

    /// How many jobs of billing and of usage are still to be done today.
    fn open_jobs(&self) -> i64 {
        let of = |table: &str| {
            format!(
                "SELECT count(*) FROM {table} WHERE state IN ('queued', 'running') \
                 AND run_at < now() + interval '1 day' AND (kind LIKE 'billing.%' OR kind LIKE 'usage.roll_up%')"
            )
        };
        self.one(&format!("SELECT ({}) + ({})", of("jobs"), of("system_jobs")))
    }

    /// Asks again until it is so: other processes do the work, and none of our clocks is theirs.
    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "not yet: {what}\n{}",
                self.unfinished()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What has not come to its end, for whoever waits for that in vain.
    fn unfinished(&self) -> String {
        let of = |table: &str| {
            format!(
                "SELECT concat_ws(' ', kind, state, attempts, run_at, last_error) AS one FROM {table} \
                 WHERE state NOT IN ('done', 'cancelled')"
            )
        };
        let sql = format!("{} UNION ALL {}", of("jobs"), of("system_jobs"));
        self.one(&format!(
            "SELECT coalesce(string_agg(one, '\n'), 'no job is open') FROM ({sql}) open"
        ))
    }

    /// What is done once in a while is due at once, for the next server that starts.
    fn make_due(&self, kind: &str) {
        let hour = "floor(extract(epoch FROM now()) / 3600)::bigint::text";
        let present = format!("kind = '{kind}' AND (kind NOT LIKE 'billing.%' OR dedupe_key = {hour})");
        execute(
            &self.folder.0,
            &format!("DELETE FROM system_jobs WHERE {present}"),
        );
    }

    /// What has changed is totalled by the next server that starts, although its hour may not be over yet.
    fn make_totals_due(&self) {
        let long_ago = "UPDATE usage_dirty SET created_at = created_at - interval '1 hour'";
        execute(&self.folder.0, long_ago);
        self.make_due("usage.roll_up_all");
    }

    /// Whether all is totalled that is due.
    fn is_totalled(&self) -> bool {
        let due = "hour < date_trunc('hour', now()) OR created_at < now() - interval '10 minutes'";
        self.one::<i64>(&format!("SELECT count(*) FROM usage_dirty WHERE {due}")) == 0
    }

    /// A server totals what was used.
    fn roll_up(&self) {
        self.make_totals_due();
        let serving = self.serving(&[]);
        self.until("what was used is totalled", || {
            self.is_totalled() && self.open_jobs() == 0
        });
        serving.end("KILL");
    }

    /// A server dies in the middle of calls, and another one takes its work over. How many calls were under way.
    fn die_in_the_middle(&self, calls: &[Doomed<'_>], meanwhile: impl FnOnce()) -> usize {
        let matcher = |member: &Member| Matcher::any().about(&member.id);
        let hold = |(member, which, end): &Doomed<'_>| self.fake.hold(matcher(member), *which, end.held());
        let holds: Vec<(End, Hold)> = calls.iter().map(|call| (call.2, hold(call))).collect();
        let reached = || holds.iter().filter(|(_, hold)| hold.is_reached()).count();
        let doomed = self.serving(&[]);
        self.until("all that is still to be done waits for Stripe", || {
            // Asked for first: what is reached then has its job among those that are open.
            let reached = reached();
            reached > 0 && self.open_jobs() == i64::try_from(reached).unwrap()
        });
        let reached = reached();
        doomed.end("KILL");
        for (end, hold) in holds {
            match end {
                End::NeverDone | End::DoneBefore => hold.lose(),
                End::DoneAfterwards => hold.release(),
            }
        }
        meanwhile();
        let successor = self.serving(&[]);
        self.until("the work of the dead is done", || self.open_jobs() == 0);
        successor.end("KILL");
        let dead = "SELECT (SELECT count(*) FROM jobs WHERE state = 'dead') \
                    + (SELECT count(*) FROM system_jobs WHERE state = 'dead')";
        assert_eq!(self.one::<i64>(dead), 0);
        reached
    }

    /// What the stand-in and we have of a tenant, after a look whether that is the same: the prices it is subscribed to,
    /// its plan, how many invoices it has, and how often its account has changed.
    fn books(&self, member: &Member) -> (Vec<String>, String, usize, i64) {
        let id = &member.id;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let customers = self.fake.customers().into_iter();
        let of_tenant = customers.filter(|one| one["deleted"] != true && one["metadata"]["tenant_id"] == *id);
        let customers: Vec<String> = of_tenant.map(|one| text(&one["id"])).collect();
        let [customer] = customers.as_slice() else {
            panic!("{id} has the customers {customers:?}");
        };
        let subscriptions = self.fake.subscriptions().into_iter();
        let subscriptions: Vec<Value> = subscriptions
            .filter(|one| one["customer"] == **customer)
            .collect();
        let [subscription] = subscriptions.as_slice() else {
            panic!("{id} has the subscriptions {subscriptions:#?}");
        };
        type Account = (String, String, String, bool, String, String, i64);
        let account: Account = row(
            &self.folder.0,
            &format!(
                "SELECT a.customer_ref, c.customer_ref, a.subscription_ref, a.cancel_at_period_end, t.plan, a.plan, \
                   (SELECT count(*) FROM audit_events e WHERE e.tenant_id = t.id AND e.action = 'billing.changed') \
                 FROM tenants t JOIN billing_accounts a ON a.tenant_id = t.id \
                 JOIN provider_customers c ON c.of_tenant = t.id WHERE t.id = '{id}'"
            ),
        );
        let (known, bound, subscribed, ends, plan, bought, changes) = account;
        assert_eq!((&known, &bound), (customer, customer));
        assert_eq!(subscribed, subscription["id"]);
        assert_eq!(ends, subscription["cancel_at_period_end"]);
        assert_eq!(plan, bought);
        let invoices = self.fake.invoices().into_iter();
        let invoices = invoices.filter(|one| one["customer"] == **customer);
        let theirs: Vec<String> = invoices.map(|one| text(&one["id"])).collect();
        let ours: Vec<String> = self.one(&format!(
            "SELECT coalesce(array_agg(invoice_ref ORDER BY invoice_ref), '{{}}') FROM invoices WHERE tenant_id = '{id}'"
        ));
        assert_eq!(ours, theirs, "every invoice is mirrored, and once");
        let items = subscription["items"]["data"].as_array().unwrap().iter();
        let mut prices: Vec<String> = items.map(|item| text(&item["price"]["lookup_key"])).collect();
        prices.sort();
        (prices, plan, theirs.len(), changes)
    }

    /// How often something was carried out at the stand-in, by the beginning of its path; what was repeated under its key
    /// or its identifier was not.
    fn done(&self, path: &str) -> usize {
        let calls = self.fake.calls().into_iter();
        let done = calls.filter(|call| call.method == "POST" && call.path.starts_with(path));
        done.filter(|call| call.status == 200 && !call.replayed).count()
    }

    /// A tenant prints pages, in one event each; the ids of these.
    fn print(&self, member: &Member, events: &[(Time, u64)]) -> Vec<String> {
        let event = |(number, (at, quantity)): (usize, &(Time, u64))| {
            let key = format!("{}-{number}-{quantity}", at.timestamp());
            json!({"idempotency_key": key, "meter": "pages", "quantity": quantity, "occurred_at": at})
        };
        let list: Value = events.iter().enumerate().map(event).collect();
        let answer = self.post(member, "/api/v1/usage/events", &list);
        assert_eq!(answer["accepted"], events.len(), "{answer}");
        let ids = answer["ids"].as_array().unwrap().iter();
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// A tenant's admin takes an event back.
    fn take_back(&self, member: &Member, event: &str) {
        let path = format!("/api/v1/usage/events/{event}/invalidate");
        self.post(member, &path, &json!({"reason": "it was a test"}));
    }

    /// What a tenant printed: by the ledger, by the totals of its hours, by what was told, and by what the stand-in counts.
    fn printed(&self, member: &Member) -> [i64; 4] {
        let id = &member.id;
        let sum = |what: &str, of: &str| -> i64 {
            let sql = format!("SELECT coalesce(sum({what}), 0)::bigint FROM {of}");
            self.one(&sql)
        };
        let events = format!(
            "usage_events e WHERE tenant_id = '{id}' AND meter = 'pages' AND invalidates IS NULL AND NOT EXISTS \
             (SELECT FROM usage_events i WHERE i.tenant_id = e.tenant_id AND i.invalidates = e.id)"
        );
        let told = format!("meter_outbox WHERE tenant_id = '{id}' AND meter = 'pages' AND state = 'sent'");
        let totals = format!("usage_hours WHERE tenant_id = '{id}' AND meter = 'pages'");
        let customer: String = self.one(&format!(
            "SELECT customer_ref FROM billing_accounts WHERE tenant_id = '{id}'"
        ));
        let theirs = self.fake.meter_total("tenantry_pages", &customer, 0, i64::MAX);
        [
            sum("quantity", &events),
            sum("quantity", &totals),
            sum("quantity", &told),
            i64::try_from(theirs).unwrap(),
        ]
    }

    /// `tenantry billing reconcile` finds nothing that it cannot explain, and of pages no difference at all.
    fn reconcile(&self) {
        let output = output(&["billing", "reconcile"], &borrowed(&self.config));
        assert!(output.status.success(), "{}", stderr(&output));
        let said = String::from_utf8(output.stdout).unwrap();
        let pages: Vec<&str> = said.lines().filter(|line| line.contains(" pages ")).collect();
        assert!(
            !pages.is_empty() && pages.iter().all(|line| line.contains(" difference 0 ")),
            "{said}"
        );
    }
}

/// How a call ends whose caller was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It never arrived.
    NeverDone,
    /// It was carried out after the death.
    DoneAfterwards,
    /// It had been carried out, and the answer is lost.
    DoneBefore,
}

/// A call in the middle of which a server dies: about whom, the so-manieth from now on, and how it ends.
type Doomed<'a> = (&'a Member, u32, End);

/// The first call about three tenants, the second about the three after them, and so on: of each three one in each of the
/// ways in which a call can end.
fn one_after_the_other(members: &[Member]) -> Vec<Doomed<'_>> {
    let calls = (1..).flat_map(|which| END.map(|end| (which, end)));
    let calls = members.iter().zip(calls);
    calls.map(|(member, (which, end))| (member, which, end)).collect()
}

const END: [End; 3] = [End::NeverDone, End::DoneAfterwards, End::DoneBefore];

impl End {
    const fn held(self) -> Held {
        match self {
            Self::NeverDone | Self::DoneAfterwards => Held::BeforeEffect,
            Self::DoneBefore => Held::AfterEffect,
        }
    }
}

fn borrowed<'a>(config: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    config.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

/// The standard plans, with a meter that anybody may record usage of: who pays for a plan pays for each page beyond ten, and
/// for nothing that a request of the test's uses, because an hour may end while it runs.
fn plans_with_pages() -> String {
    let standard = include_str!("../../../../config/plans.toml");
    let mut text = String::new();
    for line in standard.lines().filter(|line| !line.starts_with("overage =")) {
        if line == "[[plan]]" || line == "[[meter]]" {
            text.push_str(if text.contains("key = \"pages\"") {
                ""
            } else {
                PAGES
            });
        }
        if line == "[plan.meters.active_users]" {
            let paid = text.contains("[[plan.prices]]") || text.contains("trial_days = 14");
            text.push_str("[plan.meters.pages]\nincluded = 10\nlimit = \"unlimited\"\n");
            text.push_str(if paid { OVERAGE } else { "" });
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

const PAGES: &str = "[[meter]]\nkey = \"pages\"\ntitle = \"Pages\"\nunit = \"page\"\naggregation = \"sum\"\n\
                     reset = \"billing_cycle\"\n\n";
const OVERAGE: &str = "overage = [{ amount = 2, currency = \"usd\", per = 1 }]\n\n";

/// A moment of the hour that was so many hours ago.
fn within(hours_ago: i64) -> Time {
    Period::hour_of(SystemClock::new().now()).start - chrono::Duration::minutes(hours_ago * 60 - 5)
}

/// Seven calls of each tenant in the three ways in which a call can end.
const MEMBERS: usize = 7 * END.len();

#[test]
fn who_is_killed_in_any_call_of_billing_is_replaced_without_a_trace() {
    let shop = Shop::open("killed-billing", chrono::Duration::hours(20));
    let members: Vec<Member> = (0..MEMBERS)
        .map(|number| shop.sign_up(&format!("member-{number}")))
        .collect();
    let same_books = |plan: &str, changes: i64| {
        let books: Vec<_> = members.iter().map(|member| shop.books(member)).collect();
        let price = format!("tenantry:{plan}:1:usd:month");
        let pages = format!("{price}:meter:pages");
        assert_eq!(books[0].0, [price, pages]);
        assert_eq!((books[0].1.as_str(), books[0].3), (plan, changes));
        // Of the last ones nobody was killed.
        assert!(books.iter().all(|one| one == &books[MEMBERS - 1]), "{books:#?}");
    };
    let (customers, subscriptions) = (shop.done("/v1/customers"), shop.done("/v1/subscriptions"));
    let provisioning = shop.die_in_the_middle(&one_after_the_other(&members), || ());
    assert!(provisioning >= 6 * END.len(), "{provisioning}");
    same_books("pro", 1);
    assert_eq!(shop.done("/v1/customers") - customers, MEMBERS);
    assert_eq!(shop.done("/v1/subscriptions") - subscriptions, MEMBERS);

    let ask = |path: &str, body: Value| {
        for member in &members {
            shop.post(member, &format!("/api/v1/billing/subscription{path}"), &body);
        }
    };
    let before = shop.done("/v1/subscriptions/");
    ask("", json!({"plan": "pro", "seats": 3}));
    let changing = shop.die_in_the_middle(&one_after_the_other(&members), || ());
    assert!(changing >= 4 * END.len(), "{changing}");
    same_books("pro", 2);
    ask("/cancel", json!({}));
    let cancelling = shop.die_in_the_middle(&one_after_the_other(&members), || ());
    assert!(cancelling >= 3 * END.len(), "{cancelling}");
    same_books("pro", 3);
    assert_eq!(
        shop.done("/v1/subscriptions/") - before,
        2 * MEMBERS,
        "each change once"
    );

    // Usage, of two hours.
    shop.fake.clock().advance_to(SystemClock::new().now());
    let printed = |number: usize| 11 + i64::try_from(number).unwrap();
    let mut events = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let quantity = printed(number).unsigned_abs();
        events.push(shop.print(
            member,
            &[(within(2), quantity), (within(1), quantity), (within(1), 1_000)],
        ));
    }
    shop.roll_up();
    let told = shop.done("/v1/billing/meter_events");
    shop.make_due("billing.publish_all");
    let publishing = shop.die_in_the_middle(&one_after_the_other(&members), || ());
    assert_eq!(publishing, 2 * END.len());
    let same_usage = |expected: &dyn Fn(usize) -> i64| {
        for (number, member) in members.iter().enumerate() {
            assert_eq!(shop.printed(member), [expected(number); 4], "member {number}");
        }
        shop.reconcile();
    };
    same_usage(&|number| 2 * printed(number) + 1_000);
    assert_eq!(
        shop.done("/v1/billing/meter_events") - told,
        2 * MEMBERS,
        "each hour once"
    );

    // One of the hours is corrected: what was told of it is taken back, and it is told anew.
    for (member, events) in members.iter().zip(&events) {
        shop.take_back(member, &events[2]);
    }
    shop.roll_up();
    shop.make_due("billing.publish_all");
    let correcting = shop.die_in_the_middle(&one_after_the_other(&members), || ());
    assert_eq!(correcting, 2 * END.len());
    same_usage(&|number| 2 * printed(number));

    // All of that is told, and a server dies while it acts on it.
    for body in shop.fake.events() {
        tell(&shop.dev.address, &body.to_string());
    }
    let listening = shop.die_in_the_middle(&one_after_the_other(&members), || ());
    assert!(listening >= 2 * END.len(), "{listening}");
    same_books("pro", 3);
    let open = "SELECT count(*) FROM provider_events WHERE state NOT IN ('done', 'ignored')";
    assert_eq!(shop.one::<i64>(open), 0);
    eprintln!(
        "killed in {provisioning} calls of provisioning, {changing} of changing, {cancelling} of cancelling, \
         {publishing} of publishing, {correcting} of correcting and {listening} of acting on messages"
    );
}

#[test]
fn of_a_deleted_tenant_no_customer_is_left_whoever_is_killed() {
    let shop = Shop::open("killed-deletion", chrono::Duration::hours(20));
    let members = END.map(|end| (end, shop.sign_up(&format!("{end:?}").to_lowercase())));
    let serving = shop.serving(&[]);
    shop.until("they are customers", || {
        shop.open_jobs() == 0 && shop.fake.customers().len() >= 2 + END.len()
    });
    serving.end("KILL");
    for (end, member) in &members {
        let deleted = "UPDATE tenants SET status = 'deleted', deleted_at = now() WHERE id";
        execute(&shop.folder.0, &format!("{deleted} = '{}'", member.id));
        shop.make_due("billing.remove_left_behind");
        // It is removed by its stored reference, without looking for it, after a look at its subscriptions.
        assert_eq!(shop.die_in_the_middle(&[(member, 2, *end)], || ()), 1);
        let customers = shop.fake.customers().into_iter();
        let left =
            customers.filter(|one| one["metadata"]["tenant_id"] == member.id && one["deleted"] != true);
        assert_eq!(left.count(), 0, "{end:?}");
        let known = "SELECT removed_at IS NOT NULL FROM provider_customers WHERE of_tenant";
        assert!(shop.one::<bool>(&format!("{known} = '{}'", member.id)), "{end:?}");
    }
}

#[test]
fn an_hour_that_is_corrected_while_nobody_knows_whether_it_was_told_is_billed_once() {
    let shop = Shop::open("killed-correction", chrono::Duration::hours(20));
    let members = ["never", "afterwards", "before"].map(|slug| shop.sign_up(slug));
    let serving = shop.serving(&[]);
    shop.until("they are customers", || {
        shop.open_jobs() == 0 && shop.fake.customers().len() >= 5
    });
    serving.end("KILL");
    shop.fake.clock().advance_to(SystemClock::new().now());
    let at = within(1);
    let events = members
        .each_ref()
        .map(|member| shop.print(member, &[(at, 7), (at, 100)]));
    shop.roll_up();
    shop.make_due("billing.publish_all");
    let publishing = shop.die_in_the_middle(&one_after_the_other(&members), || {
        for (member, events) in members.iter().zip(&events) {
            shop.take_back(member, &events[1]);
        }
        // What has changed is totalled before the reports of the dead are tried again.
        shop.make_totals_due();
    });
    assert_eq!(publishing, 3);
    shop.roll_up();
    shop.make_due("billing.publish_all");
    let serving = shop.serving(&[]);
    // With those of the two hours to come.
    let published = "SELECT count(*) FROM system_jobs WHERE kind = 'billing.publish_all' AND state = 'done'";
    shop.until("everything is told", || {
        shop.one::<i64>(published) == 3 && shop.open_jobs() == 0
    });
    serving.end("KILL");
    for (member, end) in members.iter().zip(END) {
        assert_eq!(shop.printed(member), [7; 4], "{end:?}");
    }
    shop.reconcile();
}

#[test]
fn an_hour_that_changes_while_two_publish_it_is_billed_once() {
    let shop = Shop::open("two-publish", chrono::Duration::hours(20));
    let members = ["before", "after", "between"].map(|slug| shop.sign_up(slug));
    let serving = shop.serving(&[]);
    shop.until("they are customers", || {
        shop.open_jobs() == 0 && shop.fake.customers().len() >= 5
    });
    serving.end("KILL");
    shop.fake.clock().advance_to(SystemClock::new().now());
    let config = borrowed(&shop.config);
    let reports = |member: &Member| Matcher::path("/v1/billing/meter_events").about(&member.id);
    let [before, after, between] = &members;

    // A server is telling the former number when the command tells the new one.
    let events = [before, after].map(|member| shop.print(member, &[(within(1), 7), (within(1), 100)]));
    shop.roll_up();
    let ends = [(before, Held::BeforeEffect), (after, Held::AfterEffect)];
    let holds = ends.map(|(member, held)| shop.fake.hold(reports(member), 1, held));
    shop.make_due("billing.publish_all");
    let telling = shop.serving(&[]);
    shop.until("both are being told", || holds.iter().all(Hold::is_reached));
    for ((member, _), events) in ends.iter().zip(&events) {
        shop.take_back(member, &events[1]);
    }
    shop.make_totals_due();
    let totalling = shop.serving(&[]);
    shop.until("it is totalled", || shop.is_totalled());
    totalling.end("TERM");
    for slug in ["before", "after"] {
        let told = output(&["billing", "publish", "--tenant", slug], &config);
        assert!(told.status.success(), "{}", stderr(&told));
    }
    holds.into_iter().for_each(Hold::release);
    shop.until("everything is told", || shop.open_jobs() == 0);
    telling.end("TERM");
    for member in [before, after] {
        assert_eq!(shop.printed(member), [7; 4]);
    }

    // The command is telling it; a server finds that the provider does not have it yet, and it arrives after that.
    let events = shop.print(between, &[(within(1), 7), (within(1), 100)]);
    shop.roll_up();
    let report = shop.fake.hold(reports(between), 1, Held::BeforeEffect);
    let command = tenantry(&["billing", "publish", "--tenant", "between"])
        .envs(config)
        .spawn();
    shop.until("it is being told", || report.is_reached());
    shop.take_back(between, &events[1]);
    shop.roll_up();
    let taking_back = Matcher::path("/v1/billing/meter_event_adjustments");
    let taking_back = shop.fake.hold(taking_back, 1, Held::AfterEffect);
    shop.make_due("billing.publish_all");
    let serving = shop.serving(&[]);
    shop.until("it is being taken back", || taking_back.is_reached());
    report.release();
    assert!(command.unwrap().wait().unwrap().success());
    taking_back.release();
    shop.until("everything is told", || shop.open_jobs() == 0);
    serving.end("TERM");
    assert_eq!(shop.printed(between), [7; 4]);
    shop.reconcile();
}

// ------------------------------------------------------------------------------------------------------- the database

/// PostgreSQL is told to do something, as whoever owns its folder.
fn pg_ctl(data: &Path, arguments: &[&str]) {
    let cluster = data.join("postgres/pg").canonicalize().unwrap();
    let log = data.join("postgres/postgres.log").canonicalize().unwrap();
    let running = std::fs::read_to_string(cluster.join("postmaster.opts")).unwrap();
    let (program, options) = running.trim().split_once(' ').unwrap();
    let owner = std::fs::metadata(&cluster).unwrap();
    let mut command = Command::new(Path::new(program).with_file_name("pg_ctl"));
    command
        .args(arguments)
        .arg("--silent")
        .arg("--pgdata")
        .arg(&cluster);
    if !arguments.contains(&"stop") {
        command.arg("--log").arg(&log);
    }
    // A restart has them from the server that runs.
    if arguments.contains(&"start") {
        command.arg("--options").arg(options);
    }
    let status = command
        .uid(owner.uid())
        .gid(owner.gid())
        .current_dir("/")
        .status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

/// Calls a server until it is told to stop: how many were answered with a success. Nothing else may come than a failure of
/// the server.
fn call(address: &str, token: &str, stop: &AtomicBool, answered: &AtomicU64) {
    while !stop.load(Ordering::SeqCst) {
        match Serving::get(address, token, "/api/v1/tasks?limit=1") {
            Some(200) => answered.fetch_add(1, Ordering::SeqCst),
            Some(500..) => 0,
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn a_database_that_restarts_while_usage_is_told_and_calls_are_stored_loses_and_doubles_nothing() {
    const HOURS: i64 = 20;
    let shop = Shop::open("restarts", chrono::Duration::hours(22));
    let members: Vec<Member> = (0..4)
        .map(|number| shop.sign_up(&format!("member-{number}")))
        .collect();
    let serving = shop.serving(&[]);
    shop.until("they are customers", || {
        shop.open_jobs() == 0 && shop.fake.customers().len() >= 6
    });
    serving.end("KILL");
    shop.fake.clock().advance_to(SystemClock::new().now());
    for member in &members {
        let events: Vec<_> = (1..=HOURS)
            .map(|hours| (within(hours), 100 + hours.unsigned_abs()))
            .collect();
        shop.print(member, &events);
    }
    shop.roll_up();
    let before = shop.done("/v1/billing/meter_events");
    let held = |which: u32| -> Vec<Hold> {
        let ends = [Held::BeforeEffect, Held::AfterEffect];
        let holds = members.iter().zip(ends.iter().cycle());
        let events = Matcher::path("/v1/billing/meter_events");
        holds
            .map(|(member, end)| shop.fake.hold(events.clone().about(&member.id), which, *end))
            .collect()
    };
    let (early, late) = (held(5), held(12));
    let all = |holds: &[Hold]| holds.iter().all(Hold::is_reached);
    let spool = shop.folder.0.join("spool");
    let token = shop.dev.login("globex");
    shop.make_due("billing.publish_all");
    let serving = shop.serving(&[
        ("TENANTRY__METERING__SPOOL_DIR", spool.to_str().unwrap()),
        ("TENANTRY__METERING__FLUSH_INTERVAL_MS", "100"),
    ]);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let so_far = || answered.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| call(&serving.address, &token, &stop, &answered));
        }
        shop.until("reports are under way, and calls", || {
            all(&early) && so_far() > 100
        });
        pg_ctl(&shop.folder.0, &["restart", "--mode=fast"]);
        early.into_iter().for_each(Hold::release);
        let seen = so_far();
        shop.until("reports are under way again, and calls", || {
            all(&late) && so_far() > seen + 100
        });
        pg_ctl(&shop.folder.0, &["stop", "--mode=immediate"]);
        // What the reports come to cannot be stored.
        late.into_iter().for_each(Hold::release);
        shop.until("every report has come back", || {
            let calls = shop.fake.calls().into_iter();
            let calls = calls.filter(|call| call.path == "/v1/billing/meter_events");
            calls.count() >= before + 4 * 12
        });
        pg_ctl(&shop.folder.0, &["start"]);
        let seen = so_far();
        shop.until("calls are answered again", || so_far() > seen + 100);
        stop.store(true, Ordering::SeqCst);
    });
    shop.until("everything is told and stored", || {
        shop.open_jobs() == 0 && waiting(&spool) == 0
    });
    serving.end("TERM");
    shop.roll_up();
    let expected: i64 = (1..=HOURS).map(|hours| 100 + hours).sum();
    for member in &members {
        assert_eq!(shop.printed(member), [expected; 4]);
        let reports = format!(
            "SELECT count(*) FROM meter_outbox WHERE tenant_id = '{}'",
            member.id
        );
        assert_eq!(shop.one::<i64>(&reports), HOURS, "one of each hour");
    }
    assert_eq!(
        shop.done("/v1/billing/meter_events") - before,
        4 * HOURS.unsigned_abs() as usize
    );
    shop.reconcile();
    let calls = |table: &str| -> i64 {
        shop.one(&format!(
            "SELECT coalesce(sum(quantity), 0)::bigint FROM {table} \
             WHERE tenant_id = (SELECT id FROM tenants WHERE slug = 'globex') AND meter = 'api_calls'"
        ))
    };
    let answered = i64::try_from(so_far()).unwrap();
    assert_eq!(
        (calls("usage_events"), calls("usage_hours")),
        (answered, answered)
    );
}

// ------------------------------------------------------------------------------------------------------- messages

/// The same numbers each time (SplitMix64).
fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Tells a server of something that has happened.
fn tell(address: &str, body: &str) {
    let at = SystemClock::new().now().timestamp();
    let signature = sign(SECRET, at, body.as_bytes());
    let headers = format!("Stripe-Signature: {signature}\r\n");
    let (status, answer) = request(address, ("POST", "/webhooks/stripe"), &headers, body);
    assert_eq!(status, 200, "{answer}");
}

/// Ten senders tell two servers of everything that has happened, five times each and each in an order of its own.
fn tell_fifty_times(shop: &Shop, servers: &[Serving; 2], round: u64) {
    let barrier = Barrier::new(10);
    std::thread::scope(|scope| {
        for sender in 0..10 {
            let (barrier, address) = (&barrier, &servers[sender % 2].address);
            scope.spawn(move || {
                let mut state = round * 100 + sender as u64;
                let mut bodies: Vec<String> = shop.fake.events().iter().map(Value::to_string).collect();
                bodies = [(); 5].iter().flat_map(|()| bodies.clone()).collect();
                bodies.sort_by_cached_key(|_| dice(&mut state));
                barrier.wait();
                bodies.iter().for_each(|body| tell(address, body));
            });
        }
    });
}

#[test]
fn two_servers_that_are_told_everything_fifty_times_in_any_order_act_on_it_once() {
    let shop = Shop::open("fifty-times", chrono::Duration::days(15));
    let member = shop.sign_up("member");
    let servers = [(); 2].map(|()| shop.serving(&[]));
    let account = || -> (String, String) {
        let sql = "SELECT coalesce(subscription_status, ''), dunning FROM billing_accounts";
        row(
            &shop.folder.0,
            &format!("{sql} WHERE tenant_id = '{}'", member.id),
        )
    };
    shop.until("it is a customer", || {
        shop.open_jobs() == 0 && shop.fake.subscriptions().len() == 2
    });
    // The trial is over since yesterday, and the card is declined.
    let customer: String = shop.one(&format!(
        "SELECT customer_ref FROM billing_accounts WHERE tenant_id = '{}'",
        member.id
    ));
    // The others pay: a trial without a card ends the subscription, which leaves work for later.
    for other in shop.fake.customers() {
        assert!(shop.fake.set_card(other["id"].as_str().unwrap(), Card::Pays));
    }
    assert!(shop.fake.set_card(&customer, Card::Declines));
    shop.fake.clock().advance_to(SystemClock::new().now());
    let check = |state: (&str, &str), notices: &[&str], changes: i64| {
        shop.until("all of it is acted on", || shop.open_jobs() == 0);
        assert_eq!(account(), (state.0.to_owned(), state.1.to_owned()));
        let kinds: Vec<Value> = shop.fake.events();
        let known = "SELECT count(*) FROM provider_events";
        assert_eq!(shop.one::<i64>(known), i64::try_from(kinds.len()).unwrap());
        let unsettled = format!("{known} WHERE state NOT IN ('done', 'ignored')");
        assert_eq!(shop.one::<i64>(&unsettled), 0);
        let done = format!("{known} WHERE state = 'done'");
        let acted =
            "SELECT count(*) FROM system_jobs WHERE kind = 'billing.provider_event' AND state = 'done'";
        assert_eq!(shop.one::<i64>(acted), shop.one::<i64>(&done), "a job for each");
        let told: Vec<String> = shop.one(&format!(
            "SELECT coalesce(array_agg(action ORDER BY id), '{{}}') FROM audit_events \
             WHERE tenant_id = '{}' AND action LIKE 'billing.notice.%'",
            member.id
        ));
        assert_eq!(told, notices);
        assert_eq!(shop.books(&member).3, changes);
    };
    tell_fifty_times(&shop, &servers, 1);
    let failed = "billing.notice.payment_failed";
    check(("past_due", "grace"), &[failed], 2);
    let invoices = shop.fake.invoices();
    let open = |one: &&Value| one["customer"] == *customer && one["status"] == "open";
    let open = invoices.iter().find(open).unwrap();
    assert!(shop.fake.pay_invoice(open["id"].as_str().unwrap()));
    tell_fifty_times(&shop, &servers, 2);
    check(("active", "healthy"), &[failed, "billing.notice.recovered"], 3);
}

// ------------------------------------------------------------------------------------------------------- late answers

#[test]
fn what_is_answered_after_our_timeout_is_asked_for_again_and_not_done_again() {
    let shop = Shop::open("late-answers", chrono::Duration::hours(20));
    let member = shop.sign_up("member");
    let lose = |method: &str, path: &str| {
        let matcher = Matcher::path(path).method(method).about(&member.id);
        shop.fake.fail_next(matcher, Failure::TimeoutAfterEffect);
    };
    let lost = || shop.fake.calls().iter().filter(|call| call.status == 0).count();
    lose("POST", "/v1/customers");
    lose("POST", "/v1/subscriptions");
    lose("GET", "/v1/invoices");
    // A tenth of a second less than no call could be made with.
    let serving = shop.serving(&[("TENANTRY__BILLING__STRIPE__TIMEOUT_MS", "300")]);
    shop.until("the first answer is late", || lost() == 1);
    shop.until("it is asked for again", || lost() == 2);
    shop.until("it is a customer", || shop.open_jobs() == 0);
    assert_eq!(lost(), 3);
    let (prices, plan, invoices, changes) = shop.books(&member);
    assert_eq!((plan.as_str(), prices.len(), changes), ("pro", 2, 1));

    lose("POST", "/v1/subscriptions/");
    shop.post(
        &member,
        "/api/v1/billing/subscription",
        &json!({"plan": "pro", "seats": 2}),
    );
    shop.until("there is another seat", || shop.open_jobs() == 0);
    lose("POST", "/v1/subscriptions/");
    shop.post(&member, "/api/v1/billing/subscription/cancel", &json!({}));
    shop.until("it ends with its period", || shop.open_jobs() == 0);
    let (_, plan, invoices_now, changes) = shop.books(&member);
    assert_eq!((plan.as_str(), invoices_now, changes), ("pro", invoices, 3));

    shop.fake.clock().advance_to(SystemClock::new().now());
    shop.print(&member, &[(within(2), 20), (within(1), 30)]);
    serving.end("TERM");
    shop.roll_up();
    lose("POST", "/v1/billing/meter_events");
    shop.make_due("billing.publish_all");
    let serving = shop.serving(&[("TENANTRY__BILLING__STRIPE__TIMEOUT_MS", "300")]);
    shop.until("usage is told", || lost() == 6 && shop.open_jobs() == 0);
    assert_eq!(shop.printed(&member), [50; 4]);
    serving.end("TERM");
    shop.reconcile();
}
