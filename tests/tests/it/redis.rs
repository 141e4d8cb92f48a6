//! What instances share through Redis, and what each of them does while it is away.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::Method;
use deadpool_redis::redis;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tenantry_domain::kernel::{Network, TenantId, UserId};
use tenantry_domain::operations::{
    Account, AccountName, AccountRates, Decision, Demand, Rate, RateLimiter, TenantRates,
};
use tenantry_http::{Api, HttpConfig, Readiness};
use tenantry_redis::{Channel, Redis, RedisConfig, RedisLimiter, RedisMode, Tally};
use tenantry_system::LocalLimiter;
use tenantry_tests::{
    Client, ClusterServer, Lines, ManualClock, Options, PASSWORD, Person, RedisServer, Sentinels,
    TlsRedisServer, World,
};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

/// Much longer than Redis needs on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many at once, and hardly more for as long as a test runs: time is that of Redis, which no test moves.
fn burst(requests: u32) -> Rate {
    Rate::new(1, requests).unwrap()
}

fn rates(tenant: u32, user: u32) -> TenantRates {
    TenantRates {
        tenant: Some(burst(tenant)),
        user: Some(burst(user)),
    }
}

/// Waits for something that another process decides about.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connection that is kept for as long as the test runs.
async fn connected(server: &RedisServer, patience: Duration) -> Redis {
    let redis = Redis::new(&server.url(), patience).unwrap();
    tokio::spawn(redis.keep());
    until("Redis is there", || redis.is_there()).await;
    redis
}

/// One of two instances: its connection, its limiter, and its clients.
struct Instance {
    redis: Redis,
    limiter: Arc<RedisLimiter>,
    client: Client,
}

impl Instance {
    async fn of(world: &World, server: &RedisServer, options: Options) -> Self {
        let redis = connected(server, PATIENCE).await;
        let alone = LocalLimiter::new(world.clock.clone()).one_of(2);
        let limiter = Arc::new(RedisLimiter::new(redis.clone(), Arc::new(alone)));
        let options = Options {
            limiter: Some(limiter.clone()),
            ..options
        };
        Self {
            redis,
            limiter,
            client: world.other_instance(&options).await,
        }
    }

    /// How many of so many requests are answered; all others are refused, and none fails.
    async fn answered(&self, who: &Person, requests: u32) -> u32 {
        let mut answered = 0;
        for _ in 0..requests {
            let request = self.client.get("/api/v1/tasks").bearer(&who.access_token);
            answered += counted(request.await.status, 200);
        }
        answered
    }

    /// How many of so many wrong passwords from an address are looked at.
    async fn guesses(&self, address: &str, requests: u32) -> u32 {
        let body = json!({"tenant_slug": "acme", "email": "nobody@acme.example", "password": "wrong horse"});
        let mut looked_at = 0;
        for _ in 0..requests {
            let request = self.client.post("/api/v1/auth/login", &body);
            let reply = request.header("X-Forwarded-For", address).await;
            looked_at += counted(reply.status, 401);
        }
        looked_at
    }
}

#[track_caller]
fn counted(status: u16, expected: u16) -> u32 {
    assert!([expected, 429].contains(&status), "{status}");
    u32::from(status == expected)
}

fn options(tenant: u32, user: u32, address: u32) -> Options {
    Options {
        rates: Arc::new(rates(tenant, user)),
        credential_rate: burst(address),
        http: HttpConfig {
            trust_forwarded_for: true,
            ..HttpConfig::default()
        },
        ..Options::default()
    }
}

fn trusting(authority: Option<&Vec<u8>>, url: &str) -> Redis {
    let config = RedisConfig {
        trusted: authority.cloned(),
        ..RedisConfig::single(url, PATIENCE)
    };
    Redis::with(&config).unwrap()
}

/// Passes connections on to a server, and counts them.
async fn counting(server: SocketAddr) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counted = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&counted);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            counting.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, counted)
}

#[actix_web::test]
async fn over_tls_a_redis_is_believed_only_with_a_certificate_for_its_name_from_who_is_trusted() {
    let (server, stranger) = (TlsRedisServer::start(), TlsRedisServer::start());
    let trusted = std::fs::read(server.authority()).unwrap();
    let others = std::fs::read(stranger.authority()).unwrap();
    let cases = [
        (None, "127.0.0.1", server.address()),
        (Some(&others), "127.0.0.1", server.address()),
        (Some(&trusted), "127.0.0.1", stranger.address()),
        (Some(&trusted), "localhost", server.address()),
    ];
    for (authority, host, server) in cases {
        let (port, tried) = counting(server).await;
        let url = format!("rediss://{host}:{port}");
        let redis = trusting(authority, &url);
        let keeping = tokio::spawn(redis.keep());
        // A further attempt is made only after one has failed.
        until("it has tried three times", || tried.load(Ordering::Relaxed) >= 3).await;
        assert!(!redis.is_there(), "{authority:?} {url}");
        keeping.abort();
    }
    let (port, _) = counting(server.address()).await;
    let redis = trusting(Some(&trusted), &format!("rediss://127.0.0.1:{port}"));
    tokio::spawn(redis.keep());
    until("Redis is there", || redis.is_there()).await;
    redis.probe().await.unwrap();
    // Messages come over a connection of their own.
    let (channel, ear) = (Channel::new(redis.clone(), "tests"), Ear::default());
    ear.listening_to(&channel);
    until("it listens", || channel.is_live()).await;
    channel.publish("over TLS").await.unwrap();
    until("it is heard", || ear.heard() == ["over TLS"]).await;
}

#[actix_web::test]
async fn two_instances_over_one_redis_share_every_bucket() {
    let (world, server) = (World::new().await, RedisServer::start());
    let one = Instance::of(&world, &server, options(30, 20, 8)).await;
    let two = Instance::of(&world, &server, options(30, 20, 8)).await;
    let (acme, globex) = (&world.acme, &world.globex);
    assert_eq!(one.answered(&acme.viewer, 5).await, 5);
    assert_eq!(two.answered(&acme.viewer, 30).await, 15);
    assert_eq!(one.answered(&acme.viewer, 5).await, 0);
    // The refused ones have not cost the tenant anything: ten are left of its thirty.
    assert_eq!(one.answered(&acme.member, 6).await, 6);
    assert_eq!(two.answered(&acme.member, 20).await, 4);
    assert_eq!(
        one.answered(&globex.viewer, 25).await,
        20,
        "the other tenant has its own"
    );
    assert_eq!(one.guesses("198.51.100.1", 3).await, 3);
    assert_eq!(two.guesses("198.51.100.1", 3).await, 1);
    assert_eq!(two.guesses("198.51.100.2", 9).await, 4);
    assert_eq!(one.limiter.tally().alone + two.limiter.tally().alone, 0);
    let reply = two.client.get("/api/v1/tasks").bearer(&acme.viewer.access_token);
    let reply = reply.await.problem(429, "rate_limited");
    assert_eq!(
        reply.header("ratelimit-policy"),
        Some("\"tenant\";q=1;w=60;tenantry-burst=30, \"user\";q=1;w=60;tenantry-burst=20")
    );
    assert_eq!(reply.json()["violated-policies"], json!(["tenant", "user"]));
}

#[actix_web::test]
async fn while_redis_is_away_requests_go_on_and_each_instance_gives_its_part() {
    let world = World::new().await;
    let mut server = RedisServer::start();
    let one = Instance::of(&world, &server, options(60, 20, 16)).await;
    let two = Instance::of(&world, &server, options(60, 20, 16)).await;
    let acme = &world.acme;
    assert_eq!(one.answered(&acme.viewer, 3).await, 3);
    assert_eq!(two.guesses("198.51.100.1", 1).await, 1);
    let shared = one.limiter.tally();
    assert_eq!(
        shared,
        Tally {
            together: 3,
            alone: 0
        }
    );

    server.kill();
    // Nobody waits for anybody to notice: the very next request is answered.
    for instance in [&one, &two] {
        assert_eq!(instance.answered(&acme.viewer, 30).await, 10);
        assert_eq!(instance.guesses("198.51.100.1", 20).await, 4);
        assert!(!instance.redis.is_there());
    }
    assert_eq!(
        one.limiter.tally(),
        Tally {
            together: 3,
            // Each guess that the address may make also asks the bucket of its account.
            alone: 54
        }
    );
    // A login with the right password is no way around it.
    let body = json!({"tenant_slug": "acme", "email": acme.admin.email, "password": PASSWORD});
    let login = one.client.post("/api/v1/auth/login", &body);
    let login = login.header("X-Forwarded-For", "198.51.100.1").await;
    login.problem(429, "rate_limited");

    server.restart();
    for instance in [&one, &two] {
        until("Redis is back", || instance.redis.is_there()).await;
    }
    assert_eq!(one.answered(&acme.viewer, 12).await, 12);
    assert_eq!(two.answered(&acme.viewer, 12).await, 8);
    assert_eq!(
        one.limiter.tally(),
        Tally {
            together: 15,
            alone: 55
        }
    );
}

#[actix_web::test]
async fn a_redis_that_says_nothing_holds_nobody_up() {
    let server = RedisServer::start();
    let redis = connected(&server, Duration::from_millis(50)).await;
    let alone = LocalLimiter::new(Arc::new(ManualClock::default()));
    let limiter = RedisLimiter::new(redis.clone(), Arc::new(alone));
    let demand = Demand::of_tenant(tenant(1), Some(user(1)), rates(100, 100), 1);
    server.pause();
    let begun = Instant::now();
    let decided = futures_util::future::join_all((0..20).map(|_| limiter.decide(&demand).decision())).await;
    // It never answers, so that whoever waited for it would wait for as long as it is paused.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(decided.iter().all(Decision::allowed));
    assert_eq!(limiter.tally().alone, 20);
    assert!(!redis.is_there());
    server.resume();
    until("Redis is back", || redis.is_there()).await;
}

#[actix_web::test]
async fn what_lies_where_a_bucket_belongs_does_no_harm() {
    let server = RedisServer::start();
    let redis = connected(&server, PATIENCE).await;
    let alone = Arc::new(LocalLimiter::new(Arc::new(ManualClock::default())));
    let limiter = RedisLimiter::new(redis, alone);
    let mut connection = server.connection().await;
    let id = tenant(1);
    let key = format!("rl:{{{id}}}:t");
    let demand = Demand::of_tenant(id, Some(user(1)), rates(100, 100), 1);
    let fields: [(&str, &str); 8] = [
        ("nonsense", "nonsense"),
        ("nan", "nan"),
        ("inf", "-inf"),
        ("inf", "inf"),
        ("1e300", "-1e300"),
        ("6000000000000", "9e15"),
        ("", ""),
        ("0x10", "\n"),
    ];
    for (level, at) in fields {
        let plant = redis::cmd("HSET")
            .arg(&key)
            .arg(&["level", level, "at", at])
            .to_owned();
        redis::cmd("DEL")
            .arg(&key)
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
        plant.query_async::<()>(&mut connection).await.unwrap();
        for _ in 0..3 {
            let decision = limiter.decide(&demand).decision().await;
            let remaining = decision.allowances()[0].remaining;
            assert!(remaining <= 100, "{level} {at}: {remaining}");
        }
        // It can be lived with: either it is a full bucket, or one that fills.
        let expires: i64 = redis::cmd("PTTL")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!((1..=101 * 60_000).contains(&expires), "{level} {at}: {expires}");
    }
    for plant in [
        redis::cmd("SET").arg(&key).arg("a string").to_owned(),
        redis::cmd("LPUSH").arg(&key).arg("a list").to_owned(),
    ] {
        redis::cmd("DEL")
            .arg(&key)
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
        plant.query_async::<()>(&mut connection).await.unwrap();
        let decision = limiter.decide(&demand).decision().await;
        assert_eq!(decision.allowances()[0].remaining, 99);
    }
    assert_eq!(limiter.tally().alone, 0);
    // A script cache that was flushed is filled again.
    redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    assert!(limiter.decide(&demand).decision().await.allowed());
    assert_eq!(limiter.tally().alone, 0);
}

#[actix_web::test]
async fn only_ids_and_addresses_get_into_keys() {
    let (world, server) = (World::new().await, RedisServer::start());
    let one = Instance::of(&world, &server, options(100, 100, 100)).await;
    let token = &world.acme.viewer.access_token;
    for hostile in ["rl:{x}:t", "}{", "*", "\u{1F600}", "..", "a:u:b"] {
        let request = one.client.request(Method::GET, "/api/v1/tasks").bearer(token);
        request.header("X-Request-ID", hostile).await;
        one.guesses(hostile, 1).await;
        let body = json!({"tenant_slug": hostile, "email": hostile, "password": hostile});
        one.client.post("/api/v1/auth/login", &body).await;
    }
    let mut connection = server.connection().await;
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .unwrap();
    keys.sort_by_key(|key| (key.ends_with(":a"), key.clone()));
    let acme = world.acme.id;
    // The buckets of an account have a digest of the address: one from everywhere, and one of the network.
    let account = format!("rl:{{{acme}}}:l:");
    let digests: Vec<_> = keys.extract_if(.., |key| key.starts_with(&account)).collect();
    assert_eq!(digests.len(), 2, "{digests:?}");
    // A claim that is no address is none.
    assert_eq!(digests[1], format!("{}:local", digests[0]));
    let digest = digests[0].strip_prefix(&account).unwrap();
    assert!(digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(
        keys,
        [
            format!("rl:{{{acme}}}:t"),
            format!("rl:{{{acme}}}:u:{}", world.acme.viewer.id),
            // What probes the connection.
            "rl:{probe}".to_owned(),
            "rl:{0.0.0.0}:a".to_owned(),
            "rl:{203.0.113.7}:a".to_owned(),
        ]
    );
}

/// A demand that Redis decides about, as long as it does.
fn demand() -> Demand {
    Demand::of_tenant(tenant(1), Some(user(1)), rates(10_000, 10_000), 1)
}

async fn decides(limiter: &RedisLimiter) {
    assert!(limiter.decide(&demand()).decision().await.allowed());
}

async fn execute(connection: &mut redis::aio::MultiplexedConnection, command: &str) {
    let mut words = command.split(' ');
    let mut asked = redis::cmd(words.next().unwrap());
    for word in words {
        asked.arg(word);
    }
    asked.query_async::<()>(connection).await.unwrap();
}

fn alone() -> Arc<LocalLimiter> {
    Arc::new(LocalLimiter::new(Arc::new(ManualClock::default())))
}

/// A replica after a failover, a full memory, too few replicas, a missing permission: a Redis that answers and does not
/// decide is no help, so it is away for readiness, metrics and limits until it does.
#[actix_web::test]
async fn redis_that_refuses_scripts_counts_as_away() {
    let server = RedisServer::start();
    let mut administrator = server.connection().await;
    let redis = connected(&server, PATIENCE).await;
    let limiter = RedisLimiter::new(redis.clone(), alone());
    decides(&limiter).await;
    for (refusing, accepting) in [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        (
            "CONFIG SET min-replicas-to-write 1",
            "CONFIG SET min-replicas-to-write 0",
        ),
        ("ACL SETUSER default -hset", "ACL SETUSER default +hset"),
        ("ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha"),
    ] {
        let before = limiter.tally();
        execute(&mut administrator, refusing).await;
        decides(&limiter).await;
        assert_eq!(
            (limiter.tally().alone, limiter.tally().together),
            (before.alone + 1, before.together),
            "{refusing}: decided alone"
        );
        assert!(!redis.is_there(), "{refusing}");
        execute(&mut administrator, accepting).await;
        until(accepting, || redis.is_there()).await;
        decides(&limiter).await;
        assert_eq!(limiter.tally().together, before.together + 1, "{accepting}");
    }
    // Without any request it is noticed too.
    execute(&mut administrator, "CONFIG SET maxmemory 1").await;
    until("the probe notices", || !redis.is_there()).await;
}

/// Messages that were sent to a former master reached nobody, so instances must not rely on what they heard.
#[actix_web::test]
async fn a_demoted_server_ends_subscriptions() {
    let server = RedisServer::start();
    let mut administrator = server.connection().await;
    let redis = connected(&server, PATIENCE).await;
    let (channel, ear) = (Channel::new(redis.clone(), "members"), Ear::default());
    let mut live = channel.live();
    ear.listening_to(&channel);
    until("it listens", || channel.is_live()).await;
    live.borrow_and_update();
    execute(&mut administrator, "REPLICAOF 127.0.0.1 1").await;
    // What it returns keeps the value from changing, so it is dropped at once.
    let ended = tokio::time::timeout(Duration::from_secs(20), live.wait_for(|live| !live));
    assert!(ended.await.is_ok(), "the subscription ended");
    assert!(channel.publish("to nobody").await.is_err());
    execute(&mut administrator, "REPLICAOF NO ONE").await;
    until("it listens again", || redis.is_there() && channel.is_live()).await;
    channel.publish("again").await.unwrap();
    until("it is heard", || ear.heard() == ["again"]).await;
}

async fn of_mode(url: String, mode: RedisMode) -> Redis {
    let config = RedisConfig {
        mode,
        ..RedisConfig::single(&url, PATIENCE)
    };
    let redis = Redis::with(&config).unwrap();
    tokio::spawn(redis.keep());
    until("Redis is there", || redis.is_there()).await;
    redis
}

#[actix_web::test]
async fn a_cluster_decides_and_delivers_messages() {
    let server = ClusterServer::start();
    let redis = of_mode(server.url(), RedisMode::Cluster).await;
    let limiter = RedisLimiter::new(redis.clone(), alone());
    for number in 0..20 {
        let demand = Demand::of_tenant(tenant(number), Some(user(number)), rates(1, 1), 1);
        assert!(limiter.decide(&demand).decision().await.allowed());
        assert!(!limiter.decide(&demand).decision().await.allowed());
    }
    assert_eq!(
        limiter.tally(),
        Tally {
            together: 40,
            alone: 0
        }
    );
    let (channel, ear) = (Channel::new(redis.clone(), "members"), Ear::default());
    ear.listening_to(&channel);
    until("it listens", || channel.is_live()).await;
    channel.publish("over a cluster").await.unwrap();
    until("it is heard", || ear.heard() == ["over a cluster"]).await;
    drop(server);
    decides(&limiter).await;
    until("it is away", || !redis.is_there()).await;
}

/// A bucket of a tenant is at one master: each of them has to take writes.
#[actix_web::test]
async fn cluster_of_which_one_master_refuses_counts_as_away() {
    let server = ClusterServer::start();
    let redis = of_mode(server.url(), RedisMode::Cluster).await;
    for node in 0..2 {
        server.tell(node, "CONFIG SET maxmemory 1");
        until("the probe notices", || !redis.is_there()).await;
        server.tell(node, "CONFIG SET maxmemory 0");
        until("it is back", || redis.is_there()).await;
    }
}

#[actix_web::test]
async fn the_master_that_sentinels_name_is_followed() {
    let servers = Sentinels::start();
    let mode = RedisMode::Sentinel {
        master: "mymaster".into(),
        login: None,
    };
    let redis = of_mode(servers.url(), mode).await;
    let limiter = RedisLimiter::new(redis.clone(), alone());
    let (channel, ear) = (Channel::new(redis.clone(), "members"), Ear::default());
    ear.listening_to(&channel);
    until("it listens", || channel.is_live()).await;
    decides(&limiter).await;
    assert_eq!(
        limiter.tally(),
        Tally {
            together: 1,
            alone: 0
        }
    );

    let servers = tokio::task::spawn_blocking(move || {
        servers.fail_over();
        servers
    });
    let servers = servers.await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let master = format!("redis://127.0.0.1:{}", servers.master());
    let client = redis::Client::open(master).unwrap();
    let mut master = client.get_multiplexed_async_connection().await.unwrap();
    // The new master has the key of the former, so it is removed to see where the next decision is made.
    let of_tenant = format!("rl:{{{}}}:t", tenant(1));
    let mut removed = 0;
    loop {
        decides(&limiter).await;
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut master).await.unwrap();
        if format!("{role:?}").contains("master") {
            let count: i64 = redis::cmd("DEL")
                .arg(&of_tenant)
                .query_async(&mut master)
                .await
                .unwrap();
            removed += count;
            if removed > 1 {
                break;
            }
        }
        assert!(Instant::now() < deadline, "nothing is decided at the new master");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while ear.heard().is_empty() {
        assert!(Instant::now() < deadline, "nothing is heard from the new master");
        let _ = channel.publish("again").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Failed logins count by one rule, whether one server counts them or several do.
#[actix_web::test]
async fn successful_logins_are_given_back_in_redis() {
    let server = RedisServer::start();
    let redis = connected(&server, PATIENCE).await;
    let alone = Arc::new(LocalLimiter::new(Arc::new(ManualClock::default())));
    let together = RedisLimiter::new(redis, alone.clone());
    for limiter in [&together as &dyn RateLimiter, alone.as_ref()] {
        let account = Account::User(tenant(1), AccountName::of("ada@acme.example"));
        let rates = AccountRates {
            network: burst(2),
            anywhere: burst(3),
        };
        let demand = |address: &str| {
            let network = Network::site(address.parse().ok());
            Demand::of_account(account, network, rates)
        };
        let allowed = async |address: &str| limiter.decide(&demand(address)).decision().await.allowed();
        for _ in 0..5 {
            assert!(allowed("203.0.113.1").await);
            limiter.give_back(&demand("203.0.113.1")).await;
        }
        let failed = [
            allowed("203.0.113.1").await,
            allowed("203.0.113.2").await,
            allowed("203.0.113.3").await,
            allowed("198.51.100.1").await,
            allowed("192.0.2.1").await,
        ];
        assert_eq!(failed, [true, true, false, true, false]);
    }
    assert_eq!(together.tally().alone, 0);
}

#[actix_web::test]
async fn one_line_says_that_redis_is_away_and_one_that_it_is_back() {
    let mut server = RedisServer::start();
    let lines = Lines::default();
    let _guard = lines.listen();
    let redis = connected(&server, PATIENCE).await;
    let limiter = RedisLimiter::new(
        redis.clone(),
        Arc::new(LocalLimiter::new(Arc::new(ManualClock::default()))),
    );
    let demand = Demand::of_tenant(tenant(1), Some(user(1)), rates(100, 100), 1);
    assert_eq!(
        (lines.count("Redis is there"), lines.count("Redis is away")),
        (1, 0)
    );
    server.kill();
    for _ in 0..50 {
        assert!(limiter.decide(&demand).decision().await.allowed());
    }
    server.restart();
    until("Redis is back", || redis.is_there()).await;
    assert_eq!(
        (lines.count("Redis is there"), lines.count("Redis is away")),
        (2, 1)
    );
    assert_eq!(
        limiter.tally(),
        Tally {
            together: 0,
            alone: 50
        }
    );
}

fn tenant(number: u128) -> TenantId {
    Uuid::from_u128(number).into()
}

fn user(number: u128) -> UserId {
    Uuid::from_u128(number).into()
}

/// What was decided, without the time that is left, which goes on at one side only.
fn essence(decision: &Decision) -> Vec<(u32, bool)> {
    let allowances = decision.allowances().iter();
    allowances
        .map(|allowance| (allowance.remaining, allowance.violated))
        .collect()
}

#[actix_web::test]
async fn redis_and_memory_decide_the_same() {
    let server = RedisServer::start();
    let redis = connected(&server, PATIENCE).await;
    let clock = Arc::new(ManualClock::default());
    let nobody = Arc::new(LocalLimiter::new(clock.clone()));
    let shared = RedisLimiter::new(redis, nobody);
    let request = (0..3_u128, 0..3_u128, 0..6_u32);
    let requests = prop::collection::vec(request, 300);
    let requests = requests
        .new_tree(&mut TestRunner::deterministic())
        .unwrap()
        .current();
    let alone = LocalLimiter::new(clock);
    for (of, by, cost) in requests {
        let demand = Demand::of_tenant(tenant(of), Some(user(by)), rates(Rate::MOST, 90), cost);
        let (here, there) = (alone.decide(&demand), shared.decide(&demand));
        let (here, there) = (here.decision().await, there.decision().await);
        assert_eq!(essence(&here), essence(&there), "{of} {by} {cost}");
    }
    assert_eq!(shared.tally().alone, 0);
}

/// Remembers what it heard.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

impl Ear {
    fn listening_to(&self, channel: &Channel) -> tokio::task::JoinHandle<()> {
        let heard = Arc::clone(&self.0);
        let hear = move |message: &[u8]| {
            let message = String::from_utf8(message.into()).unwrap();
            heard.lock().unwrap().push(message);
        };
        tokio::spawn(channel.listen(hear))
    }

    fn heard(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[actix_web::test]
async fn announcements_reach_every_instance_and_one_knows_when_they_would_not() {
    let mut server = RedisServer::start();
    let (one, two) = (
        connected(&server, PATIENCE).await,
        connected(&server, PATIENCE).await,
    );
    let (one, two) = (Channel::new(one, "members"), Channel::new(two, "members"));
    let other = Channel::new(connected(&server, PATIENCE).await, "others");
    let (ear, far) = (Ear::default(), Ear::default());
    assert!(!one.is_live(), "nobody listens yet");
    let listening = ear.listening_to(&one);
    far.listening_to(&two);
    until("both listen", || one.is_live() && two.is_live()).await;
    other.publish("not for them").await.unwrap();
    one.publish(r#"{"tenant":"a","user":null}"#).await.unwrap();
    two.publish("\u{1F600}").await.unwrap();
    let both = [r#"{"tenant":"a","user":null}"#, "\u{1F600}"];
    until("both heard both", || ear.heard() == both && far.heard() == both).await;

    server.kill();
    until("both know", || !one.is_live() && !two.is_live()).await;
    until("and say so", || !one.live().borrow().to_owned()).await;
    // Whether it is the first to notice or not: who announces something is told that nobody heard it.
    assert!(one.publish("lost").await.is_err());
    server.restart();
    until("both listen again", || one.is_live() && two.is_live()).await;
    let mut sent = one.publish("again").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while sent.is_err() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
        sent = one.publish("again").await;
    }
    until("both hear again", || {
        far.heard().last().is_some_and(|last| last == "again")
    })
    .await;

    server.pause();
    until("silence is noticed too", || !one.is_live()).await;
    server.resume();
    until("it is live again", || one.is_live()).await;
    listening.abort();
    until("nobody listens any more", || !one.is_live()).await;
}

#[actix_web::test]
async fn what_is_revoked_on_one_instance_is_noticed_on_the_other_without_waiting_for_time_to_pass() {
    let mut server = RedisServer::start();
    let options = Options {
        redis: Some(connected(&server, PATIENCE).await),
        ..Options::default()
    };
    let world = World::with(options.clone()).await;
    let other = world.instance(&Options {
        redis: Some(connected(&server, PATIENCE).await),
        ..options.clone()
    });
    let (here, there) = (world.invalidations.clone().unwrap(), other.invalidations.unwrap());
    let api = Api::new(other.app, options.http, Arc::new(Readiness::new()));
    let elsewhere = Client::new(api).await;
    let me = async |who: &Person| {
        let request = elsewhere.get("/api/v1/auth/me").bearer(&who.access_token);
        request.await
    };
    let role = async |role: &str| {
        let path = format!("/api/v1/users/{}", world.acme.viewer.id);
        let body = json!({"role": role});
        world.patch(&world.acme.admin, &path, &body).await.expect(200);
    };
    let becomes = async |role: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while me(&world.acme.viewer).await.expect(200).json()["user"]["role"] != role {
            assert!(Instant::now() < deadline, "nobody said that it is {role} now");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until("both hear", || here.is_live() && there.is_live()).await;
    // So much later that what is remembered is remembered for long.
    world.clock.advance(chrono::Duration::seconds(10));
    me(&world.acme.viewer).await.expect(200);
    let loads = other.cache.stats().loads;
    world.clock.advance(chrono::Duration::seconds(10));
    me(&world.acme.viewer).await.expect(200);
    assert_eq!(other.cache.stats().loads, loads, "it is remembered");
    role("member").await;
    becomes("member").await;

    world.clock.advance(chrono::Duration::seconds(10));
    me(&world.acme.viewer).await.expect(200);
    server.kill();
    until("both know that they hear nothing", || {
        !here.is_live() && !there.is_live()
    })
    .await;
    role("viewer").await;
    world.clock.advance(chrono::Duration::seconds(1));
    assert_eq!(me(&world.acme.viewer).await.json()["user"]["role"], "viewer");

    server.restart();
    until("both hear again", || here.is_live() && there.is_live()).await;
    here.flush(Duration::from_secs(20)).await;
    assert_eq!(me(&world.acme.viewer).await.json()["user"]["role"], "viewer");
    world.clock.advance(chrono::Duration::seconds(10));
    me(&world.acme.viewer).await.expect(200);
    role("member").await;
    becomes("member").await;
}

#[actix_web::test]
async fn configuration_changed_on_one_instance_is_seen_on_the_other_without_waiting_for_time_to_pass() {
    let server = RedisServer::start();
    let options = Options {
        redis: Some(connected(&server, PATIENCE).await),
        ..Options::default()
    };
    let world = World::with(options.clone()).await;
    let other = world.instance(&Options {
        redis: Some(connected(&server, PATIENCE).await),
        ..options.clone()
    });
    let (here, there) = (world.invalidations.clone().unwrap(), other.invalidations.unwrap());
    let elsewhere = Client::new(Api::new(other.app, options.http, Arc::new(Readiness::new()))).await;
    until("both hear", || here.is_live() && there.is_live()).await;
    let admin = &world.acme.admin;
    crate::features::define(
        &world,
        "spring",
        json!({"tenant_overridable": true, "client_visible": true}),
    )
    .await;

    // What the other instance says of the digest, of the flag and of the name, for both tenants.
    let seen = async || {
        let mut all = Vec::new();
        for who in [&world.acme.viewer, &world.globex.viewer] {
            let of = async |path: &str| {
                elsewhere
                    .get(path)
                    .bearer(&who.access_token)
                    .await
                    .expect(200)
                    .json()
            };
            let digest =
                of("/api/v1/tenant/settings").await["settings"]["notifications.email_digest"]["value"]
                    .clone();
            let flags = of("/api/v1/features").await["data"].clone();
            let flag = flags
                .as_array()
                .unwrap()
                .iter()
                .find(|flag| flag["key"] == "spring")
                .unwrap();
            all.push((
                digest,
                flag["variant"].clone(),
                of("/api/v1/branding").await["display_name"].clone(),
            ));
        }
        all
    };
    // So much later that what is remembered is remembered for long.
    world.clock.advance(chrono::Duration::seconds(10));
    let before = seen().await;
    assert_eq!(before[0].1, "off");

    let patch = world.patch(
        admin,
        "/api/v1/tenant/settings",
        &json!({"notifications.email_digest": "off"}),
    );
    patch.await.expect(200);
    let patch = world.patch(
        admin,
        "/api/v1/branding",
        &json!({"display_name": "Acme in spring"}),
    );
    patch.await.expect(200);
    let path = "/api/v1/features/spring/override";
    let chosen = world
        .client
        .put(path, &json!({"variant": "on"}))
        .bearer(&admin.access_token);
    chosen.await.expect(200);
    let after = (json!("off"), json!("on"), json!("Acme in spring"));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = seen().await;
        assert_eq!(now[1], before[1], "the other tenant's stay what they are");
        if now[0] == after {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "nobody said that it is different now: {now:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
