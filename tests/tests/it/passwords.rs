//! Passwords: which ones are taken, how they are compared, and that hashing them is shared fairly.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use chrono::Duration;
use futures_util::StreamExt as _;
use futures_util::future::{Either, join, select};
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tenantry_domain::identity::{CallerClass, CallerGroup, HashingCaller, PasswordError};
use tenantry_domain::operations::{AccountRates, Rate};
use tenantry_http::HttpConfig;
use tenantry_system::{Argon2Passwords, PasswordCost};
use tenantry_tests::{Lines, Options, PASSWORD, Reply, World};
use tokio::task::JoinHandle;

const LOGIN: &str = "/api/v1/auth/login";
const OPERATOR_LOGIN: &str = "/api/v1/admin/login";
const OLGA: &str = "olga@platform.example";

/// Behind a proxy that tells addresses.
fn proxied() -> Options {
    let usual = Options::default();
    Options {
        http: HttpConfig {
            trust_forwarded_for: true,
            ..usual.http.clone()
        },
        ..usual
    }
}

async fn post_from(world: &World, address: &str, path: &str, body: &Value) -> Reply {
    let request = world.client.post(path, body);
    request.header("X-Forwarded-For", address).await
}

async fn login_from(world: &World, address: &str, slug: &str, email: &str, password: &str) -> Reply {
    let body = json!({"tenant_slug": slug, "email": email, "password": password});
    post_from(world, address, LOGIN, &body).await
}

/// A hasher that does one password at a time while 63 may wait, and a world behind a proxy that has it.
async fn one_at_a_time() -> (Arc<Argon2Passwords>, World) {
    let passwords = Arc::new(Argon2Passwords::new(PasswordCost::for_tests(), 1, 63));
    let world = World::with(Options {
        passwords: Some(Arc::clone(&passwords)),
        ..proxied()
    })
    .await;
    (passwords, world)
}

/// Occupies a hasher until the sender is dropped; the hashing of other callers waits behind this work.
async fn occupy(
    passwords: &Arc<Argon2Passwords>,
    group: CallerGroup,
) -> (Sender<()>, JoinHandle<Result<(), PasswordError>>) {
    let (release, released) = channel();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let passwords = Arc::clone(passwords);
    let standing = actix_web::rt::spawn(async move {
        let work = move || {
            begin.send(()).ok();
            released.recv().ok();
        };
        let caller = HashingCaller::new(CallerClass::Guest, group, None);
        passwords.occupy(&caller, work).await
    });
    begun.await.unwrap();
    (release, standing)
}

fn field_errors(reply: &Reply) -> Vec<(String, String)> {
    let errors = reply.json()["errors"].as_array().unwrap().clone();
    let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
    errors
        .iter()
        .map(|error| (text(error, "pointer"), text(error, "code")))
        .collect()
}

/// One tenant has a hundred passwords hashed at once, while the hasher stands still.
#[actix_web::test]
async fn a_flood_of_one_tenant_keeps_no_login_of_others_out() {
    let (passwords, world) = one_at_a_time().await;
    world.operator(OLGA).await;
    let (release, standing) = occupy(&passwords, CallerGroup::Tenant(world.acme.id)).await;

    let mut flood: FuturesUnordered<_> = (0..100)
        .map(|number| {
            let body = json!({
                "email": format!("new-{number}@acme.example"), "full_name": "New", "password": "battery staple",
            });
            let request = world.post(&world.acme.admin, "/api/v1/users", &body);
            let address = format!("198.51.{number}.1");
            request.header("X-Forwarded-For", address).send()
        })
        .collect();
    // A quarter of 64 places, of which one is the work that stands still.
    for _ in 0..85 {
        let busy = flood.next().await.unwrap().problem(503, "unavailable");
        assert!(busy.header("retry-after").is_some());
    }
    let operator = json!({"email": OLGA, "password": PASSWORD});
    post_from(&world, "203.0.113.9", OPERATOR_LOGIN, &operator)
        .await
        .expect(200);

    let login = login_from(
        &world,
        "203.0.113.9",
        "globex",
        &world.globex.admin.email,
        PASSWORD,
    );
    let go_on = async {
        // The login is polled first, so by now it waits behind the flood.
        drop(release);
        flood.collect::<Vec<_>>().await
    };
    let (login, flood) = join(login, go_on).await;
    login.expect(200);
    assert_eq!(flood.len(), 15);
    flood.into_iter().for_each(|reply| drop(reply.expect(201)));
    standing.await.unwrap().unwrap();
}

#[actix_web::test]
async fn common_passwords_and_names_are_refused_where_one_is_chosen() {
    let world = World::new().await;
    let sign_up = |password: &str| {
        let admin = json!({"email": "peter.gibbons@initech.example", "full_name": "Peter Gibbons", "password": password});
        world.client.post(
            "/api/v1/tenants",
            &json!({"name": "Office Space", "slug": "initech", "admin": admin}),
        )
    };
    let register = |password: &str| {
        let body = json!({
            "tenant_slug": "acme", "email": "grace.hopper@x.example", "full_name": "Grace Murray", "password": password,
        });
        world.client.post("/api/v1/auth/register", &body)
    };
    let create = |password: &str| {
        let body =
            json!({"email": "grace.hopper@x.example", "full_name": "Grace Murray", "password": password});
        world.post(&world.acme.admin, "/api/v1/users", &body)
    };
    let common = [
        "password",
        "Passw0rd123",
        "12345678",
        "qwerty123456",
        "iloveyou",
        "I run on Tenantry",
        "I run on Ｔｅｎａｎｔｒｙ",
    ];
    for password in common.into_iter().chain([
        "our-initech-2026",
        "Peter.Gibbons and co",
        "peter gibbons 7",
        "PeterGibbons2026",
        "Gibbons-2026-!!!",
        "OfficeSpace 2026",
        "Office Space 1999",
    ]) {
        let reply = sign_up(password).await.problem(422, "validation_failed");
        let expected = [("/admin/password".to_owned(), "weak_password".to_owned())];
        assert_eq!(field_errors(&reply), expected, "{password}");
        assert!(
            !reply.text().contains(&format!("\"{password}\"")),
            "it is not echoed"
        );
    }
    for password in common.into_iter().chain([
        "our-acme-2026!",
        "our-ａｃｍｅ-2026!",
        "Grace.Hopper and co",
        "by grace murray",
        "GraceMurray2026",
        "murray_murray_1",
    ]) {
        for request in [register(password), create(password)] {
            let reply = request.await.problem(422, "validation_failed");
            let expected = [("/password".to_owned(), "weak_password".to_owned())];
            assert_eq!(field_errors(&reply), expected, "{password}");
        }
    }
    sign_up("a stapler of red").await.expect(201);
    register("a stapler of red").await.expect(201);
}

#[actix_web::test]
async fn a_password_set_in_one_unicode_form_is_right_in_another() {
    let world = World::new().await;
    let body = json!({
        "email": "zoe@acme.example", "full_name": "Zoë", "password": "Zu\u{308}rich im \u{fb01}nsteren",
    });
    world
        .post(&world.acme.admin, "/api/v1/users", &body)
        .await
        .expect(201);
    for password in ["Z\u{fc}rich im finsteren", "Zu\u{308}rich im \u{fb01}nsteren"] {
        world
            .login("acme", "zoe@acme.example", password)
            .await
            .expect(200);
    }
    let wrong = world
        .login("acme", "zoe@acme.example", "Zurich im finsteren")
        .await;
    wrong.problem(401, "invalid_credentials");
}

/// Costs were raised since the hash was made: until it is made anew, its account answers faster than an unknown one.
#[actix_web::test]
async fn a_login_upgrades_a_hash_of_a_lower_cost() {
    let world = World::new().await;
    world.operator(OLGA).await;
    let dearer = Options {
        passwords: Some(Arc::new(Argon2Passwords::new(
            PasswordCost::new(7_168, 5, 1).unwrap(),
            2,
            100,
        ))),
        ..Options::default()
    };
    let raised = world.other_instance(&dearer).await;
    let hash_of = async |table: &str, email: &str| -> String {
        let sql = format!("SELECT password_hash FROM {table} WHERE email = '{email}'");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
        query.fetch_one(&mut world.database.admin().await).await.unwrap()
    };
    let member = &world.acme.member.email;
    let body = json!({"tenant_slug": "acme", "email": member, "password": PASSWORD});
    let wrong = json!({"tenant_slug": "acme", "email": member, "password": "wrong horse"});
    let operator = json!({"email": OLGA, "password": PASSWORD});
    let before = hash_of("users", member).await;
    raised.post(LOGIN, &wrong).await.expect(401);
    assert_eq!(hash_of("users", member).await, before);
    raised.post(LOGIN, &body).await.expect(200);
    raised.post(OPERATOR_LOGIN, &operator).await.expect(200);
    for (table, email) in [("users", member.as_str()), ("operators", OLGA)] {
        let hash = hash_of(table, email).await;
        assert!(
            hash.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"),
            "{table}: {hash}"
        );
        // It is the same password, and it is not hashed with each login.
        raised.post(LOGIN, &body).await.expect(200);
        raised.post(OPERATOR_LOGIN, &operator).await.expect(200);
        assert_eq!(hash_of(table, email).await, hash);
    }
    world.login("acme", member, PASSWORD).await.expect(200);
}

/// A limit that nothing reaches.
fn unreachable_rate() -> Rate {
    Rate::new(Rate::MOST, Rate::MOST).unwrap()
}

fn with_account_rates(network: Rate, anywhere: Rate) -> Options {
    Options {
        account_rates: AccountRates { network, anywhere },
        ..proxied()
    }
}

/// A world in which operators and users log in, each from an address.
struct Logins(World);

impl Logins {
    async fn with(options: Options) -> Self {
        let world = World::with(options).await;
        world.operator(OLGA).await;
        Self(world)
    }

    /// A member and an operator log in from an address: the statuses.
    async fn statuses(&self, address: &str, password: &str) -> [u16; 2] {
        let [user, operator] = self.replies(address, password).await;
        [user.status, operator.status]
    }

    async fn replies(&self, address: &str, password: &str) -> [Reply; 2] {
        let world = &self.0;
        let user = login_from(world, address, "acme", &world.acme.member.email, password).await;
        let operator = json!({"email": OLGA, "password": password});
        [user, post_from(world, address, OPERATOR_LOGIN, &operator).await]
    }

    /// Both are refused by the limit of the account, for so many seconds.
    async fn are_limited(&self, address: &str, password: &str, seconds: &str) {
        for reply in self.replies(address, password).await {
            assert_eq!(reply.header("retry-after"), Some(seconds), "{}", reply.text());
            let problem = reply.problem(429, "rate_limited").json();
            assert_eq!(problem["violated-policies"], json!(["account"]));
        }
    }
}

/// Trying passwords locks nobody out but those of the same network.
#[actix_web::test]
async fn failed_logins_are_held_to_a_rate_for_each_network() {
    let rates = with_account_rates(Rate::new(3, 3).unwrap(), unreachable_rate());
    let logins = Logins::with(rates).await;
    let world = &logins.0;
    for (network, elsewhere) in [
        ("198.51.100.", "198.51.101.1"),
        ("2001:db8:0:1", "2001:db8:0:200::1"),
    ] {
        let address = |number: u32| match network.contains(':') {
            true => format!("{network}{number}::1"),
            false => format!("{network}{number}"),
        };
        for number in 1..=3 {
            assert_eq!(logins.statuses(&address(number), "wrong horse").await, [401, 401]);
        }
        for password in [PASSWORD, "wrong horse"] {
            logins.are_limited(&address(9), password, "20").await;
        }
        // In any case of the letters it is the same account.
        let email = world.acme.member.email.to_uppercase();
        let reply = login_from(world, &address(4), "acme", &email, PASSWORD).await;
        reply.problem(429, "rate_limited");
        assert_eq!(logins.statuses(elsewhere, PASSWORD).await, [200, 200]);
        // Other accounts, and an account of that address elsewhere, are not the same.
        let admin = login_from(world, &address(4), "acme", &world.acme.admin.email, PASSWORD).await;
        admin.expect(200);
        let of_globex = login_from(world, &address(4), "globex", &world.acme.member.email, PASSWORD).await;
        of_globex.expect(401);
        world.clock.advance(Duration::seconds(20));
        assert_eq!(logins.statuses(&address(9), PASSWORD).await, [200, 200]);
    }
}

#[actix_web::test]
async fn successful_logins_use_up_no_rate() {
    let two = Rate::new(2, 2).unwrap();
    let logins = Logins::with(with_account_rates(two, two)).await;
    for _ in 0..5 {
        assert_eq!(logins.statuses("203.0.113.1", PASSWORD).await, [200, 200]);
    }
    assert_eq!(logins.statuses("203.0.113.1", "wrong horse").await, [401, 401]);
}

/// A flood of logins with the right password, while hashing is full. Its attempts take all of the rate, and give it back.
#[actix_web::test]
async fn logins_that_end_in_503_use_up_no_rate() {
    const FLOOD: u32 = 20;
    let rate = Rate::new(FLOOD, FLOOD).unwrap();
    let passwords = Arc::new(Argon2Passwords::new(PasswordCost::for_tests(), 1, 0));
    let logins = Logins::with(Options {
        passwords: Some(Arc::clone(&passwords)),
        ..with_account_rates(rate, unreachable_rate())
    })
    .await;
    let standing = [
        occupy(&passwords, CallerGroup::SignUp).await,
        occupy(&passwords, CallerGroup::Operator).await,
    ];
    let (world, operator) = (&logins.0, json!({"email": OLGA, "password": PASSWORD}));
    let address = "203.0.113.1";
    let user = || login_from(world, address, "acme", &world.acme.member.email, PASSWORD);
    for _ in 0..FLOOD {
        user().await.problem(503, "unavailable");
    }
    let mut flood: FuturesUnordered<_> = (0..FLOOD)
        .map(|_| post_from(world, address, OPERATOR_LOGIN, &operator))
        .collect();
    // A network has a quarter of the 16 places of operators.
    for _ in 0..FLOOD - 4 {
        flood.next().await.unwrap().problem(503, "unavailable");
    }
    for (release, work) in standing {
        drop(release);
        work.await.unwrap().unwrap();
    }
    while let Some(reply) = flood.next().await {
        reply.expect(200);
    }
    for _ in 0..FLOOD {
        assert_eq!(logins.statuses(address, "wrong horse").await, [401, 401]);
    }
    logins.are_limited(address, PASSWORD, "3").await;
}

/// Many networks together guess at a bounded rate, and keep nobody out of an account that it is used from.
#[actix_web::test]
async fn failures_from_many_networks_lock_out_no_known_network() {
    let rates = with_account_rates(Rate::new(2, 2).unwrap(), Rate::new(6, 6).unwrap());
    let logins = Logins::with(rates).await;
    assert_eq!(logins.statuses("203.0.113.1", PASSWORD).await, [200, 200]);
    let guess = async |from: usize| {
        for number in from..from + 6 {
            let address = format!("198.51.{number}.1");
            assert_eq!(logins.statuses(&address, "wrong horse").await, [401, 401]);
        }
        for password in [PASSWORD, "wrong horse"] {
            logins.are_limited("198.51.250.1", password, "10").await;
        }
    };
    guess(0).await;
    // Another address of the network that both have logged in from, as often as they like.
    for _ in 0..4 {
        assert_eq!(logins.statuses("203.0.113.77", PASSWORD).await, [200, 200]);
    }
    // From there, too, guessing has a rate.
    for _ in 0..2 {
        assert_eq!(logins.statuses("203.0.113.77", "wrong horse").await, [401, 401]);
    }
    logins.are_limited("203.0.113.77", PASSWORD, "30").await;
    // What was learnt of one account says nothing of another.
    let world = &logins.0;
    for number in 0..7 {
        let address = format!("198.51.{number}.1");
        let expected = if number < 6 { 401 } else { 429 };
        let reply = login_from(world, &address, "acme", &world.acme.viewer.email, "wrong horse").await;
        reply.expect(expected);
    }
    let viewer = login_from(world, "203.0.113.1", "acme", &world.acme.viewer.email, PASSWORD).await;
    viewer.problem(429, "rate_limited");
    // A network is known for thirty days.
    world.clock.advance(Duration::days(31));
    guess(100).await;
    logins.are_limited("203.0.113.1", PASSWORD, "10").await;
}

/// An anonymous network floods a tenant's login, while the hasher stands still.
#[actix_web::test]
async fn flood_of_a_tenants_login_leaves_its_users_a_place() {
    let (passwords, world) = one_at_a_time().await;
    let (release, standing) = occupy(&passwords, CallerGroup::SignUp).await;
    let mut flood: FuturesUnordered<_> = (0..100)
        .map(|number| {
            let email = format!("nobody-{number}@acme.example");
            let world = &world;
            async move {
                login_from(
                    world,
                    &format!("198.51.100.{number}"),
                    "acme",
                    &email,
                    "wrong horse",
                )
                .await
            }
        })
        .collect();
    // The tenant has a quarter of 64 places.
    for _ in 0..84 {
        flood.next().await.unwrap().problem(503, "unavailable");
    }
    let mut login = Box::pin(login_from(
        &world,
        "203.0.113.9",
        "acme",
        &world.acme.member.email,
        PASSWORD,
    ));
    // It takes the place of one of the flood, and not the other way about.
    match select(&mut login, flood.next()).await {
        Either::Left((login, _)) => panic!("{} {}", login.status, login.text()),
        Either::Right((displaced, _)) => drop(displaced.unwrap().problem(503, "unavailable")),
    }
    drop(release);
    let (login, flood) = join(login, flood.collect::<Vec<_>>()).await;
    login.expect(200);
    assert_eq!(flood.len(), 15);
    flood.into_iter().for_each(|reply| drop(reply.expect(401)));
    standing.await.unwrap().unwrap();
}

/// Guests from more networks than there are places try one login, while the hasher stands still.
#[actix_web::test]
async fn guests_of_many_networks_keep_no_known_network_out() {
    let (passwords, world) = one_at_a_time().await;
    world.operator(OLGA).await;
    let (known, unknown) = ("203.0.113.9", "203.0.114.9");
    let member = async |address: &str, password: &str| {
        login_from(&world, address, "acme", &world.acme.member.email, password).await
    };
    let operator = async |address: &str, password: &str| {
        let body = json!({"email": OLGA, "password": password});
        post_from(&world, address, OPERATOR_LOGIN, &body).await
    };
    member(known, PASSWORD).await.expect(200);
    operator(known, PASSWORD).await.expect(200);
    let standing = [
        occupy(&passwords, CallerGroup::SignUp).await,
        occupy(&passwords, CallerGroup::Operator).await,
    ];

    let mut flood = FuturesUnordered::new();
    for number in 0..20 {
        for is_member in [true, false] {
            let (member, operator, address) = (&member, &operator, format!("198.51.{number}.1"));
            flood.push(async move {
                match is_member {
                    true => member(&address, "wrong horse").await,
                    false => operator(&address, "wrong horse").await,
                }
            });
        }
    }
    // A quarter of 64 places for the tenant, and 16 for operators, of which one is the work that stands still.
    for _ in 0..4 + 5 {
        flood.next().await.unwrap().problem(503, "unavailable");
    }
    for reply in [member(unknown, PASSWORD).await, operator(unknown, PASSWORD).await] {
        reply.problem(503, "unavailable");
    }
    let mut logins = Box::pin(join(member(known, PASSWORD), operator(known, PASSWORD)));
    for _ in 0..2 {
        match select(&mut logins, flood.next()).await {
            Either::Left((logins, _)) => panic!("{} {}", logins.0.status, logins.1.status),
            Either::Right((displaced, _)) => drop(displaced.unwrap().problem(503, "unavailable")),
        }
    }
    let (releases, standing): (Vec<_>, Vec<_>) = standing.into_iter().unzip();
    drop(releases);
    let (logins, flood) = join(logins, flood.collect::<Vec<_>>()).await;
    logins.0.expect(200);
    logins.1.expect(200);
    assert_eq!(flood.len(), 40 - 9 - 2);
    flood.into_iter().for_each(|reply| drop(reply.expect(401)));
    for work in standing {
        work.await.unwrap().unwrap();
    }
}

#[actix_web::test]
async fn ignored_forwarding_header_is_logged_once() {
    let lines = Lines::default();
    let _guard = lines.listen();
    let world = World::new().await;
    let warnings = || lines.count("http.trust_forwarded_for");
    let body = json!({"tenant_slug": "acme", "email": "nobody@acme.example", "password": "wrong horse"});
    world.client.post(LOGIN, &body).await.expect(401);
    assert_eq!(warnings(), 0);
    for header in ["X-Forwarded-For", "Forwarded"] {
        let request = world.client.post(LOGIN, &body);
        request.header(header, "203.0.113.1").await.expect(401);
        assert_eq!(warnings(), 1, "{header}");
    }
    let trusting = World::with(proxied()).await;
    login_from(
        &trusting,
        "203.0.113.1",
        "acme",
        "nobody@acme.example",
        "wrong horse",
    )
    .await
    .expect(401);
    assert_eq!(warnings(), 1);
}

/// Callers without an account cause these entries: however often they try, an hour has a bounded number of them.
#[actix_web::test]
async fn failed_logins_leave_a_bounded_number_of_rows_an_hour() {
    let world = World::with(proxied()).await;
    world.operator(OLGA).await;
    let known = world.audit(&world.acme).await.len();
    let failures = async || {
        let audit = world.audit(&world.acme).await.split_off(known);
        audit
            .into_iter()
            .filter(|(action, _)| action == "login.failed")
            .collect::<Vec<_>>()
    };
    let member = world.acme.member.email.as_str();
    for second in 0..20 {
        login_from(&world, "198.51.100.1", "acme", member, "wrong horse")
            .await
            .expect(401);
        let operator = json!({"email": OLGA, "password": "wrong horse"});
        post_from(&world, "198.51.100.1", OPERATOR_LOGIN, &operator)
            .await
            .expect(401);
        assert_eq!(failures().await.len(), 1, "{second}");
        world.clock.advance(Duration::seconds(1));
    }
    // Other addresses of mail and of the network, a few of which are entries of their own.
    for number in 0..60 {
        let email = format!("nobody-{number}@acme.example");
        login_from(&world, "198.51.100.2", "acme", &email, "wrong horse")
            .await
            .expect(401);
    }
    assert_eq!(failures().await.len(), 1 + 21);
    // However many logins fail, another action has entries of its own.
    let mismatch = world.get(&world.acme.viewer, "/api/v1/tasks");
    let mismatch = mismatch.header("X-Forwarded-For", "198.51.100.2");
    let reply = mismatch.header("X-Tenant-Slug", "globex").await;
    reply.problem(403, "tenant_mismatch");
    let (action, entry) = world.audit(&world.acme).await.pop().unwrap();
    assert_eq!(
        (action.as_str(), &entry["after"]["tenant_slug"]),
        ("tenant.mismatch", &json!("globex"))
    );
    // Of the member, of the operator, and of what was beyond the bound: 5, 10 and 20.
    assert_eq!(tenantry_tenancy::audit::refusal::flush(&world.app).await, 3 * 3);
    world.clock.advance(Duration::hours(1));
    assert_eq!(tenantry_tenancy::audit::refusal::flush(&world.app).await, 1);
    let entries = failures().await;
    assert_eq!(entries.len(), 1 + 21 + 3 + 4);
    let repeated = |email: Value| {
        let of_email = entries[22..]
            .iter()
            .filter(|(_, row)| row["after"]["email"] == email);
        let counts: Vec<_> = of_email
            .map(|(_, row)| row["after"]["repeated"]["count"].clone())
            .collect();
        counts
    };
    assert_eq!(repeated(json!(member)), [5, 10, 20]);
    assert_eq!(repeated(Value::Null), [5, 10, 20, 40]);
    let of_operators = world.operator_events().await;
    let counts: Vec<_> = of_operators
        .iter()
        .filter(|(action, _)| action == "operator.login_failed")
        .map(|(_, row)| row["details"]["repeated"]["count"].clone())
        .collect();
    assert_eq!(counts, [Value::Null, json!(5), json!(10), json!(20)]);
    // The next hour begins with an entry.
    login_from(&world, "198.51.100.1", "acme", member, "wrong horse")
        .await
        .expect(401);
    assert_eq!(failures().await.len(), 1 + 21 + 3 + 4 + 1);
}

#[actix_web::test]
async fn a_header_of_any_length_leaves_a_short_entry() {
    let world = World::new().await;
    let known = world.audit(&world.acme).await.len();
    for _ in 0..5 {
        let request = world.get(&world.acme.viewer, "/api/v1/tasks");
        let request = request.header("X-Tenant-Slug", "x".repeat(90_000));
        request.await.problem(403, "tenant_mismatch");
    }
    let entries = world.audit(&world.acme).await.split_off(known);
    assert_eq!(entries.len(), 1);
    let row = entries[0].1.to_string();
    assert!(
        row.len() < 1_500 && row.contains("(90000 characters in all)"),
        "{row}"
    );
}
