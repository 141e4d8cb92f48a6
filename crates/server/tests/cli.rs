//! The program as somebody at a terminal meets it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::too_many_lines,
    reason = "tests are tables of cases: longer with each case, and no harder to read"
)]

#[path = "cli/archives.rs"]
mod archives;
#[path = "cli/audit_stream.rs"]
mod audit_stream;
#[path = "cli/billing_faults.rs"]
mod billing_faults;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/demo_payments.rs"]
mod demo_payments;
#[path = "cli/documented_metrics.rs"]
mod documented_metrics;
#[path = "cli/domains.rs"]
mod domains;
#[path = "cli/guarding.rs"]
mod guarding;
#[path = "cli/killed_servers.rs"]
mod killed_servers;
#[path = "cli/life_faults.rs"]
mod life_faults;
#[path = "cli/lifecycle.rs"]
mod lifecycle;
#[path = "cli/mail.rs"]
mod mail;
#[path = "cli/metering.rs"]
mod metering;
#[path = "cli/notifications.rs"]
mod notifications;
#[path = "cli/operating.rs"]
mod operating;
#[path = "cli/provisioning.rs"]
mod provisioning;
#[path = "cli/quotas.rs"]
mod quotas;
#[path = "cli/records.rs"]
mod records;
#[path = "cli/restoring.rs"]
mod restoring;
#[path = "cli/serving.rs"]
mod serving;
#[path = "cli/tour.rs"]
mod tour;
#[path = "cli/webhook_faults.rs"]
mod webhook_faults;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tenantry_tests::{DevServer, Folder, Program, request};

const TENANTRY: &str = env!("CARGO_BIN_EXE_tenantry");

/// No settings.
const NOTHING: &[(&str, &str)] = &[];

/// The program of this package.
struct Stock;

impl Program for Stock {
    const PATH: &'static str = TENANTRY;
}

type Dev = DevServer<Stock>;

/// The program without the settings of whoever runs the tests.
fn tenantry(arguments: &[&str]) -> Command {
    Stock::command(arguments)
}

fn output(arguments: &[&str], config: &[(&str, impl AsRef<OsStr>)]) -> Output {
    tenantry(arguments)
        .envs(config.iter().map(|(key, value)| (key, value)))
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn postgres_is_up(data: &Path) -> bool {
    let port = std::fs::read_to_string(data.join("postgres/port")).unwrap();
    TcpStream::connect(("127.0.0.1", port.trim().parse().unwrap())).is_ok()
}

#[test]
fn dev_starts_a_stand_in_for_stripe_when_it_is_told_to() {
    let folder = Folder::new("stripe");
    let data = folder.0.to_str().unwrap();
    let said = |more: &[&str]| {
        let output = tenantry(&[&["dev", "--check", "--data-dir", data], more].concat())
            .env("TENANTRY__SERVER__PORT", "0")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (succeeded, text) = said(&["--stripe", "fake"]);
    assert!(
        succeeded && text.contains("A stand-in for Stripe is at http://127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("/_fake/clock/advance -d days=31"), "{text}");
    let (succeeded, text) = said(&[]);
    assert!(succeeded && !text.contains("Stripe"), "{text}");
    assert!(!said(&["--stripe", "real"]).0);
}

#[test]
fn dev_serves_a_demo_stops_with_its_database_and_comes_back_with_its_data() {
    let folder = Folder::new("dev");
    let dev = Dev::start_as(&folder.0, &[], &[]);
    let token = dev.login("acme");
    assert!(dev.get(&token, "/api/v1/tasks").contains("Ask three customers"));
    assert_eq!(dev.request("GET", "/health/readiness", "", "").0, 200);
    let projects = dev.get(&token, "/api/v1/projects?limit=1");
    let project = projects
        .split("\"id\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    dev.get(&token, &format!("/api/v1/projects/{project}"));
    assert!(postgres_is_up(&folder.0));
    assert_eq!(dev.stop(), Some(0));
    assert!(!postgres_is_up(&folder.0), "PostgreSQL outlived it");

    // A Redis that is not there is a pity and no more.
    let dev = Dev::start_with(&folder.0, &[("REDIS_URL", "redis://127.0.0.1:1")]);
    let (status, health) = dev.request("GET", "/health/readiness", "", "");
    assert_eq!(status, 200);
    assert!(health.contains("\"redis\":\"degraded\""), "{health}");
    let seen = dev.get(&token, "/api/v1/projects?limit=1");
    assert!(
        seen.contains("\"view_count\":1"),
        "the view was stored at the stop, the token is still good: {seen}"
    );
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn dev_takes_over_the_database_that_a_killed_one_left_running() {
    let folder = Folder::new("killed");
    let mut dev = Dev::start(&folder.0);
    dev.signal("KILL");
    dev.child.wait().unwrap();
    assert!(postgres_is_up(&folder.0));
    drop(dev);
    let dev = Dev::start(&folder.0);
    dev.login("globex");
    assert_eq!(dev.stop(), Some(0));
    assert!(!postgres_is_up(&folder.0));
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["dev", "--help"],
        &["migrate", "--help"],
        &["openapi", "--help"],
        &["doctor", "--help"],
        &["jobs", "--help"],
        &["jobs", "list", "--help"],
        &["jobs", "replay", "--help"],
        &["jobs", "cancel", "--help"],
        &["flags", "--help"],
        &["flags", "list", "--help"],
        &["flags", "show", "--help"],
        &["flags", "history", "--help"],
        &["flags", "rollback", "--help"],
        &["keys", "--help"],
        &["keys", "rotate", "--help"],
        &["keys", "list", "--help"],
        &["mail", "--help"],
        &["mail", "test", "--help"],
        &["operator", "--help"],
        &["operator", "create", "--help"],
        &["operator", "list", "--help"],
        &["operator", "deactivate", "--help"],
        &["operator", "activate", "--help"],
        &["plan", "--help"],
        &["plan", "list", "--help"],
        &["plan", "change", "--help"],
        &["plan", "agree", "--help"],
        &["plan", "upgrade", "--help"],
        &["quota", "--help"],
        &["quota", "reconcile", "--help"],
        &["settings", "--help"],
        &["settings", "set", "--help"],
        &["settings", "show", "--help"],
        &["settings", "rotate-keys", "--help"],
        &["tenant", "--help"],
        &["tenant", "list", "--help"],
        &["tenant", "create", "--help"],
        &["tenant", "suspend", "--help"],
        &["tenant", "resume", "--help"],
        &["tenant", "delete", "--help"],
        &["tenant", "restore", "--help"],
        &["tenant", "purge", "--help"],
        &["tombstones", "--help"],
        &["tombstones", "list", "--help"],
        &["tombstones", "apply", "--help"],
        &["user", "--help"],
        &["user", "import", "--help"],
        &["user", "correct-email", "--help"],
        &["user", "reset-mfa", "--help"],
    ] {
        let help = output(command, NOTHING);
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(
            help.status.success() && text.contains("Example: "),
            "{command:?}\n{text}"
        );
        assert!(
            !text.contains(">\n          \n"),
            "an argument without a help text: {text}"
        );
    }
}

#[test]
fn serve_names_the_setting_that_is_missing_or_weak() {
    let url = (
        "TENANTRY__DATABASE__URL",
        "postgres://tenantry_app:a-long-password@127.0.0.1:9/none",
    );
    let platform = (
        "TENANTRY__DATABASE__PLATFORM_URL",
        "postgres://tenantry_platform:a-long-password@127.0.0.1:9/none",
    );
    let cases: [(&[(&str, &str)], &str); 5] = [
        (
            &[],
            "setting database.url: a PostgreSQL URL is required (set it in TENANTRY__DATABASE__URL",
        ),
        (
            &[("TENANTRY__DATABASE__URL", "postgres://tenantry_app:postgres@db/x")],
            "setting database.url: the password",
        ),
        (
            &[url],
            "setting database.platform_url: a PostgreSQL URL is required",
        ),
        (
            &[url, platform],
            "setting auth.signing_key: is not set; it needs an Ed25519 key",
        ),
        (&[("TENANTRY__SERVER__PORT", "many")], "server.port: "),
    ];
    for (config, complaint) in cases {
        let output = output(&["serve"], config);
        assert!(!output.status.success());
        assert!(
            stderr(&output).contains(complaint),
            "{complaint}\n{}",
            stderr(&output)
        );
        assert_eq!(
            stderr(&output).lines().count(),
            1,
            "one line: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_key_made_for_development_is_refused_in_production() {
    let folder = Folder::new("key");
    let key = folder.0.join("signing-key.pem");
    std::fs::write(
        &key,
        "# made by `tenantry dev`, refused in production\n-----BEGIN PRIVATE KEY-----\n",
    )
    .unwrap();
    let config = [
        (
            "TENANTRY__DATABASE__URL",
            "postgres://tenantry_app:a-long-password@127.0.0.1:9/none",
        ),
        (
            "TENANTRY__DATABASE__PLATFORM_URL",
            "postgres://tenantry_platform:a-long-password@127.0.0.1:9/none",
        ),
        ("TENANTRY__AUTH__SIGNING_KEY_FILE", key.to_str().unwrap()),
    ];
    let output = output(&["serve"], &config);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("works with TENANTRY_PROFILE=development only"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn migrate_does_not_destroy_data_unasked() {
    for direction in ["down", "fresh"] {
        let output = output(
            &["migrate", direction],
            &[("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none")],
        );
        assert!(!output.status.success());
        assert!(stderr(&output).contains("say --yes"), "{}", stderr(&output));
    }
}

/// Roles made with a password that the next command refuses would have to be made again.
#[test]
fn bootstrap_refuses_the_passwords_that_serve_refuses() {
    let with = |owner: &str, app: &str, platform: &str| {
        let url = |role: &str, password: &str| format!("postgres://{role}:{password}@127.0.0.1:9/none");
        let config = [
            ("TENANTRY__DATABASE__ADMIN_URL", url("postgres", "x")),
            ("TENANTRY__DATABASE__OWNER_URL", url("tenantry_owner", owner)),
            ("TENANTRY__DATABASE__URL", url("tenantry_app", app)),
            (
                "TENANTRY__DATABASE__PLATFORM_URL",
                url("tenantry_platform", platform),
            ),
        ];
        let output = output(&["migrate", "up", "--bootstrap"], &config);
        assert!(!output.status.success());
        stderr(&output)
    };
    let good = "a-long-password";
    for (told, key) in [
        (with("a", good, good), "setting database.owner_url: the password"),
        (with(good, "a", good), "setting database.url: the password"),
        (
            with(good, good, "changeme"),
            "setting database.platform_url: the password",
        ),
    ] {
        assert!(told.contains(key), "{key}: {told}");
    }
    let told = with(good, good, good);
    assert!(!told.contains("the password is"), "{told}");
}

/// Clap shows what the environment sets as if it had to be given.
#[test]
fn usage_has_no_options_of_the_environment() {
    for config in [&[("TENANTRY_PROFILE", "development")][..], NOTHING] {
        let output = output(&["tenant", "suspend"], config);
        assert!(!output.status.success());
        let complaint = stderr(&output);
        assert!(
            complaint.contains("Usage: tenantry tenant suspend --reason <"),
            "{complaint}"
        );
        assert!(!complaint.contains("--profile"), "{complaint}");
    }
}

#[test]
fn openapi_prints_the_document() {
    let output = output(&["openapi"], NOTHING);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/v1/tasks/{id}"]["get"].is_object());
}

/// The URL of a role of the demo's database.
fn url(data: &Path, role: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(data.join(path)).unwrap();
    let port = read("postgres/port");
    let password = if role == "postgres" {
        read("postgres/superuser.password").trim().to_owned()
    } else {
        let passwords: serde_json::Value = serde_json::from_str(&read("roles.json")).unwrap();
        passwords[role.trim_start_matches("tenantry_")]
            .as_str()
            .unwrap()
            .to_owned()
    };
    format!("postgres://{role}:{password}@127.0.0.1:{}/tenantry", port.trim())
}

fn execute(data: &Path, sql: &str) {
    use sqlx::Connection as _;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut admin = sqlx::PgConnection::connect(&url(data, "postgres")).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(&mut admin)
            .await
            .unwrap();
    });
}

fn doctor(data: &Path, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["doctor"], arguments].concat();
    let output = output(&arguments, &[("DATABASE_URL", &url(data, "tenantry_app"))]);
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_doctor_finds_a_forgotten_rule_says_what_mends_it_and_certifies() {
    let folder = Folder::new("doctor");
    let dev = Dev::start(&folder.0);
    let (healthy, report) = doctor(&folder.0, &[]);
    assert!(healthy, "{report}");

    execute(&folder.0, "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY");
    let (healthy, report) = doctor(&folder.0, &["--format", "json"]);
    assert!(!healthy);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let failed = |check: &&serde_json::Value| check["outcome"] == "fail" && check["severity"] == "critical";
    assert_eq!(
        report["checks"].as_array().unwrap().iter().filter(failed).count(),
        1,
        "{report:#}"
    );
    let (_, sarif) = doctor(&folder.0, &["--format", "sarif"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&sarif).unwrap()["version"],
        "2.1.0"
    );

    let (_, script) = doctor(&folder.0, &["--fix"]);
    execute(&folder.0, &script);
    let certificate = folder.0.join("certificate");
    let evidence = folder.0.join("evidence");
    std::fs::create_dir(&evidence).unwrap();
    std::fs::write(evidence.join("sweep.json"), "{\"counts\": {\"operations\": 42}}").unwrap();
    let arguments = [
        "--certificate",
        certificate.to_str().unwrap(),
        "--evidence",
        evidence.to_str().unwrap(),
    ];
    let (healthy, report) = doctor(&folder.0, &arguments);
    assert!(healthy, "{report}");
    let page = std::fs::read_to_string(certificate.join("certificate.md")).unwrap();
    assert!(page.contains("| sweep | counts (operations 42) |"), "{page}");
    let json = std::fs::read_to_string(certificate.join("certificate.json")).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["summary"]["passed"],
        true
    );
    assert_eq!(dev.stop(), Some(0));
}

/// What no SQL mends is not promised to be mended: both forms of the report say what to do.
#[test]
fn doctor_says_what_to_do_where_no_sql_mends() {
    let folder = Folder::new("unmended");
    let dev = Dev::start(&folder.0);
    let config = [("DATABASE_URL", url(&folder.0, "tenantry_app"))];
    execute(
        &folder.0,
        "CREATE OR REPLACE TRIGGER users_addresses_update AFTER UPDATE OF email ON users FOR EACH ROW \
         EXECUTE FUNCTION user_addresses_keep()",
    );
    for arguments in [&["doctor"][..], &["doctor", "--fix"]] {
        let output = output(arguments, &config);
        assert!(!output.status.success());
        let complaint = stderr(&output);
        assert!(
            complaint.contains("1 check failed; no SQL is known that mends what was found"),
            "{complaint}"
        );
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("users_addresses_update on public.users: is CREATE TRIGGER"),
            "{text}"
        );
        assert!(
            text.contains("No SQL is known that mends it. Define it again as stated"),
            "{text}"
        );
        assert!(!text.contains("BEGIN;"), "{text}");
    }
    execute(&folder.0, "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY");
    let complaint = stderr(&output(&["doctor"], &config));
    assert!(
        complaint.contains("findings, and what to do about the others"),
        "{complaint}"
    );
    assert_eq!(dev.stop(), Some(0));
}

/// The header with the access token of an answer to a login.
fn bearer_of(answer: &str) -> String {
    let token = answer.split("\"access_token\":\"").nth(1).unwrap();
    let token = token.split('"').next().unwrap();
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn operators_are_added_listed_and_deactivated_and_log_in_meanwhile() {
    let folder = Folder::new("operators");
    let dev = Dev::start(&folder.0);
    let (runtime, platform) = (
        url(&folder.0, "tenantry_app"),
        url(&folder.0, "tenantry_platform"),
    );
    let key = folder.0.join("signing-key.pem");
    let config = [
        ("TENANTRY_PROFILE", "development"),
        ("TENANTRY__DATABASE__URL", runtime.as_str()),
        ("TENANTRY__DATABASE__PLATFORM_URL", platform.as_str()),
        ("TENANTRY__AUTH__SIGNING_KEY_FILE", key.to_str().unwrap()),
    ];
    let login = |email: &str, password: &str| {
        let body = format!("{{\"email\":\"{email}\",\"password\":\"{password}\"}}");
        dev.request("POST", "/api/v1/admin/login", "", &body)
    };
    assert_eq!(login("operator@tenantry.example", "demo-password").0, 200);

    let email = "olga@platform.example";
    let create = [
        "operator", "create", "--email", email, "--name", "Olga", "--role", "owner",
    ];
    let created = output(&create, &config);
    let text = String::from_utf8(created.stdout).unwrap();
    let password = text
        .lines()
        .find_map(|line| line.strip_prefix("password "))
        .unwrap();
    let (status, answer) = login(email, password);
    assert_eq!(status, 200, "{answer}");
    let again = output(&create, &config);
    assert!(!again.status.success() && stderr(&again).contains("the address is taken"));

    let mut child = tenantry(&[
        "operator",
        "create",
        "--email",
        "otto@platform.example",
        "--name",
        "Otto",
        "--role",
        "owner",
    ])
    .arg("--password-stdin")
    .envs(config)
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let told = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(
        !told.contains("correct horse") && told.lines().count() == 2,
        "{told}"
    );
    assert!(told.contains("\nthe password expires at "), "{told}");
    let (status, otto) = login("otto@platform.example", "correct horse");
    assert_eq!(status, 200, "{otto}");
    let otto = bearer_of(&otto);
    let reset = || output(&["operator", "reset-mfa", "otto@platform.example"], &config);
    assert!(stderr(&reset()).contains("the operator has no second factor"));
    let enroll = "{\"password\":\"correct horse\"}";
    assert_eq!(
        dev.request("POST", "/api/v1/admin/mfa/enroll", &otto, enroll).0,
        200
    );
    assert!(reset().status.success());
    assert_eq!(dev.request("GET", "/api/v1/admin/tenants", &otto, "").0, 401);

    assert!(
        output(&["operator", "deactivate", email], &config)
            .status
            .success()
    );
    assert_eq!(login(email, password).0, 401);
    let bearer = bearer_of(&answer);
    assert_eq!(dev.request("GET", "/api/v1/admin/tenants", &bearer, "").0, 401);
    let list = String::from_utf8(output(&["operator", "list"], &config).stdout).unwrap();
    assert!(
        list.contains(&format!("{email} owner deactivated Olga")),
        "{list}"
    );
    assert!(list.contains("otto@platform.example owner active Otto"), "{list}");

    let activated = output(&["operator", "activate", email], &config);
    let line = String::from_utf8(activated.stdout).unwrap();
    assert!(line.contains(&format!("{email} owner active Olga")), "{line}");
    assert_eq!(login(email, password).0, 200);
    assert_eq!(
        dev.request("GET", "/api/v1/admin/tenants", &bearer, "").0,
        401,
        "a token of the time before stays invalid"
    );
    assert_eq!(dev.stop(), Some(0));
}

/// PostgreSQL of a demo, which is stopped and let go on with signals: it takes connections and answers nothing.
struct Stopped(Vec<String>);

impl Stopped {
    fn new(data: &Path) -> Self {
        let file = std::fs::read_to_string(data.join("postgres/pg/postmaster.pid")).unwrap();
        let postmaster = file.lines().next().unwrap().trim().to_owned();
        // The postmaster first, so that it starts nobody new.
        Self::signal("STOP", std::slice::from_ref(&postmaster));
        let list = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        let mut processes = vec![postmaster];
        processes.extend(list.split_whitespace().map(str::to_owned));
        Self::signal("STOP", &processes);
        Self(processes)
    }

    fn signal(name: &str, processes: &[String]) {
        // One of them may have ended by itself.
        let _ = Command::new("kill")
            .args(["-s", name])
            .args(processes)
            .status()
            .unwrap();
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        Self::signal("CONT", &self.0);
    }
}

#[test]
fn operators_see_how_each_part_is_also_when_the_database_and_redis_are_stuck() {
    // It takes connections and answers nothing.
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let redis = format!("redis://{}", stuck.local_addr().unwrap());
    let folder = Folder::new("health");
    let dev = Dev::start_with(&folder.0, &[("REDIS_URL", &redis)]);
    let body = "{\"email\":\"operator@tenantry.example\",\"password\":\"demo-password\"}";
    let (_, answer) = dev.request("POST", "/api/v1/admin/login", "", body);
    let token = answer
        .split("\"access_token\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let look = || {
        let asked = std::time::Instant::now();
        let (status, text) = dev.request("GET", "/health/detailed", &bearer, "");
        let health: serde_json::Value = serde_json::from_str(&text).unwrap();
        (status, health, asked.elapsed())
    };
    // On a machine that is busy the database may take longer than the check waits for it.
    let (mut status, mut health, _) = look();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while status != 200 && std::time::Instant::now() < deadline {
        (status, health, _) = look();
    }
    let components = &health["components"];
    assert_eq!((status, &health["status"]), (200, &"ok".into()), "{health:#}");
    assert_eq!(components["redis"]["status"], "down");
    for name in ["database", "jobs", "caches", "spool", "disk", "memory", "guard"] {
        assert_eq!(components[name]["status"], "ok", "{health:#}");
    }
    let database = &components["database"];
    assert!(database["latency_ms"].as_f64().unwrap() > 0.0, "{health:#}");
    assert_eq!(database["pool"]["max"], 10);
    assert!(database["migrations"]["applied"].as_u64().unwrap() >= 13);
    assert_eq!(database["migrations"]["pending"], 0);
    assert!(database["replication_lag_ms"].is_null());
    assert!(components["disk"]["free_bytes"].as_u64().unwrap() > 0);
    assert!(components["memory"]["resident_bytes"].as_u64().unwrap() > 1_000_000);
    assert!(components["jobs"]["queued"].is_u64() && components["jobs"]["dead"].is_u64());
    let admin = format!("Authorization: Bearer {}\r\n", dev.login("acme"));
    assert_eq!(dev.request("GET", "/health/detailed", &admin, "").0, 401);
    assert_eq!(dev.request("GET", "/health/detailed", "", "").0, 401);

    let stopped = Stopped::new(&folder.0);
    let (status, health, took) = look();
    assert_eq!(
        (status, &health["status"]),
        (503, &"unavailable".into()),
        "{health:#}"
    );
    assert_eq!(health["components"]["database"]["status"], "down");
    assert_eq!(health["components"]["memory"]["status"], "ok");
    // The database is stopped, so that whoever waited for it would wait for as long.
    assert!(took.as_secs() < 60, "{took:?}");
    // Without the database a token of somebody else is not enough either.
    assert_eq!(dev.request("GET", "/health/detailed", &admin, "").0, 401);
    drop(stopped);
    assert_eq!(look().0, 200);
    assert_eq!(dev.stop(), Some(0));
}

/// What comes over a connection until it is closed, while `drip` is sent over it again and again.
fn drip(address: &str, begin: &str, drip: &str) -> (String, std::time::Duration) {
    let begun = std::time::Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_millis(20)))
        .unwrap();
    stream.write_all(begin.as_bytes()).unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
            // Nothing yet.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                assert!(begun.elapsed().as_secs() < 20, "still open after {heard:?}");
            }
            Err(_) => break,
        }
        // What was closed at the other end cannot be written to, which the next read says.
        let _ = stream.write_all(drip.as_bytes());
    }
    (String::from_utf8(heard).unwrap(), begun.elapsed())
}

#[test]
fn clients_that_dawdle_are_turned_away_and_keep_nobody_waiting() {
    let folder = Folder::new("dawdle");
    let config = [
        ("TENANTRY__HTTP__HEADER_TIMEOUT_MS", "500"),
        ("TENANTRY__HTTP__BODY_TIMEOUT_MS", "500"),
        ("TENANTRY__HTTP__KEEP_ALIVE_MS", "500"),
        ("TENANTRY__HTTP__DISCONNECT_TIMEOUT_MS", "200"),
    ];
    let dev = Dev::start_with(&folder.0, &config);
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n";
    let ready = "GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n";
    // Head trickling, body trickling, nothing at all, nothing after a request.
    let cases = [("GET / HTTP/1.1\r\nX: ", "x"), (head, " "), ("", ""), (ready, "")];
    let address = dev.address.as_str();
    let answers = std::thread::scope(|scope| {
        let slow: Vec<_> = (0..40)
            .map(|number| {
                let (begin, rest) = cases[number % 4];
                scope.spawn(move || drip(address, begin, rest))
            })
            .collect();
        // Meanwhile others are served.
        while slow.iter().any(|thread| !thread.is_finished()) {
            assert_eq!(dev.request("GET", "/health/readiness", "", "").0, 200);
        }
        slow.into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    for (number, (heard, took)) in answers.into_iter().enumerate() {
        let expected = match number % 4 {
            1 => "HTTP/1.1 408",
            3 => "HTTP/1.1 200",
            _ => "",
        };
        assert!(heard.starts_with(expected), "{number}: {heard}");
        if number % 4 == 1 {
            assert!(
                heard.contains("application/problem+json") && heard.contains("\"request_timeout\""),
                "{heard}"
            );
        }
        assert!((450..60_000).contains(&took.as_millis()), "{number}: {took:?}");
    }
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn measurements_have_a_port_of_their_own_and_tell_of_limits_jobs_and_redis() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = free.port().to_string();
    let folder = Folder::new("metrics");
    let config = [
        ("TENANTRY__METRICS__PORT", port.as_str()),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("TENANTRY__JOBS__POLL_MS", "50"),
    ];
    let mut dev = Dev::start_with(&folder.0, &config);
    assert_eq!(
        dev.request("GET", "/metrics", "", "").0,
        404,
        "not beside the API"
    );
    let token = dev.login("acme");
    dev.get(&token, "/api/v1/tasks");
    let api = std::mem::replace(&mut dev.address, free.to_string());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // The worker's first job is one of the system's own; it runs when it comes to it.
    let text = loop {
        let (status, text) = dev.request("GET", "/metrics", "", "");
        assert_eq!(status, 200);
        if text.contains("outcome=\"done\"") && text.contains("tenantry_jobs{state=\"queued\"}") {
            break text;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
        // Another process does the work: there is no clock of ours to move.
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    for line in [
        "tenantry_rate_limit_decisions_total{class=\"credential\",outcome=\"allowed\"} 1",
        "tenantry_rate_limit_decisions_total{class=\"tenant\",outcome=\"allowed\"} 1",
        "tenantry_rate_limit_decided_alone_total 3",
        "tenantry_rate_limit_decided_together_total 0",
        "tenantry_rate_limit_alone 1.0",
        "tenantry_redis_up 0.0",
        "tenantry_jobs{state=\"dead\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    let claimed = text
        .lines()
        .find(|line| line.contains("outcome=\"claimed\""))
        .unwrap();
    assert!(
        claimed.starts_with("tenantry_jobs_run_total{kind=\""),
        "{claimed}"
    );
    assert_eq!(
        dev.request("GET", "/api/v1/tasks", "", "").0,
        404,
        "nothing else is there"
    );
    dev.address = api;
    assert_eq!(dev.stop(), Some(0));
}

/// A collector: what is posted to it, until there is a body that has all of these in it.
fn collect(listener: &std::net::TcpListener, wanted: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    let has = |all: &[u8], part: &[u8]| all.windows(part.len()).any(|window| window == part);
    while !wanted.iter().all(|part| has(&all, part)) {
        let (stream, _) = listener.accept().unwrap();
        take_post(stream, &mut all);
    }
    all
}

/// Takes one post of a connection, and closes it: the next one may be another signal's.
fn take_post(stream: impl std::io::Read + std::io::Write, all: &mut Vec<u8>) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        // A client that does not trust the collector ends the connection.
        if stream.read_line(&mut line).unwrap_or_default() == 0 {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        all.extend_from_slice(line.as_bytes());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    all.extend(body);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.get_mut().write_all(answer);
}

#[test]
fn traces_arrive_at_the_collector_and_one_that_is_away_disturbs_nobody() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let folder = Folder::new("traces");
    let config = [
        ("TENANTRY__TRACING__OTLP_ENDPOINT", endpoint.as_str()),
        ("TENANTRY__TRACING__SERVICE_NAME", "shop-backend"),
        // A quiet log has no fewer traces.
        ("TENANTRY__LOG__LEVEL", "error"),
    ];
    let dev = Dev::start_with(&folder.0, &config);
    let trace = [
        0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
    ];
    let parent = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
    let header = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let collecting = std::thread::spawn(move || {
        let wanted: [&[u8]; 5] = [&trace, &parent, b"request", b"/health/liveness", b"shop-backend"];
        collect(&listener, &wanted)
    });
    assert_eq!(dev.request("GET", "/health/liveness", header, "").0, 200);
    assert_eq!(
        dev.request("GET", "/health/liveness", "traceparent: nonsense\r\n", "")
            .0,
        200
    );
    // What is not sent yet is sent at the end.
    assert_eq!(dev.stop(), Some(0));
    let sent = String::from_utf8_lossy(&collecting.join().unwrap()).into_owned();
    assert!(sent.starts_with("POST /v1/traces HTTP/1.1"), "{sent}");
    assert!(sent.contains("application/x-protobuf"), "{sent}");

    // The collector is gone with the thread that was it.
    let dev = Dev::start_with(&folder.0, &config);
    let token = dev.login("acme");
    dev.get(&token, "/api/v1/tasks");
    assert_eq!(dev.stop(), Some(0));
}

/// A hosted collector: https, a key in a header, a path; logs and metrics beside traces.
#[test]
fn a_collector_over_https_gets_every_signal_with_headers() {
    let authority = tenantry_tests::Authority::make();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}/otlp", listener.local_addr().unwrap());
    let certificate = authority.certificate();
    let folder = Folder::new("otlp");
    let config = [
        ("TENANTRY__TRACING__OTLP_ENDPOINT", endpoint.as_str()),
        ("TENANTRY__TRACING__OTLP_HEADERS", "x-team=hush%2Chush"),
        (
            "TENANTRY__TRACING__OTLP_SIGNALS",
            "[\"traces\", \"logs\", \"metrics\"]",
        ),
        ("SSL_CERT_FILE", certificate.to_str().unwrap()),
    ];
    let dev = Dev::start_with(&folder.0, &config);
    let collecting = std::thread::spawn(move || {
        let wanted: [&[u8]; 7] = [
            b"POST /otlp/v1/traces",
            b"POST /otlp/v1/logs",
            b"POST /otlp/v1/metrics",
            b"x-team: hush,hush",
            b"/health/liveness",
            b"stopping: readiness is off",
            b"tenantry_http_request_duration_seconds",
        ];
        let mut all = Vec::new();
        let has = |all: &[u8], part: &[u8]| all.windows(part.len()).any(|window| window == part);
        while !wanted.iter().all(|part| has(&all, part)) {
            let (stream, _) = listener.accept().unwrap();
            take_post(authority.serve(stream), &mut all);
        }
    });
    assert_eq!(dev.request("GET", "/health/liveness", "", "").0, 200);
    // What is not sent yet is sent at the end.
    assert_eq!(dev.stop(), Some(0));
    collecting.join().unwrap();
}

#[test]
fn nothing_is_served_from_a_database_that_does_not_keep_tenants_apart_unless_told_to() {
    let folder = Folder::new("guard");
    let dev = Dev::start(&folder.0);
    execute(&folder.0, "ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY");
    let (runtime, platform) = (
        url(&folder.0, "tenantry_app"),
        url(&folder.0, "tenantry_platform"),
    );
    let key = folder.0.join("signing-key.pem");
    let config = [
        ("TENANTRY_PROFILE", "development"),
        ("TENANTRY__DATABASE__URL", runtime.as_str()),
        ("TENANTRY__DATABASE__PLATFORM_URL", platform.as_str()),
        ("TENANTRY__AUTH__SIGNING_KEY_FILE", key.to_str().unwrap()),
        ("TENANTRY__SERVER__PORT", "0"),
    ];
    let refused = output(&["serve"], &config);
    assert!(!refused.status.success());
    let complaint = stderr(&refused);
    assert!(
        complaint.contains("tasks") && complaint.contains("FORCE ROW LEVEL SECURITY"),
        "{complaint}"
    );

    let mut serving = tenantry(&["serve"])
        .envs(config)
        .env("TENANTRY__GUARD__SERVE_ANYWAY", "true")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(serving.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let warned = log.find(|line| line.contains("guard.serve_anyway is set"));
    let address = log.find(|line| line.contains("serving")).unwrap();
    assert!(warned.is_some());
    let address = address
        .split("address=")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /health/readiness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"isolation\":\"overridden\""),
        "{answer}"
    );
    Command::new("kill")
        .args(["-s", "TERM", &serving.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(serving.wait().unwrap().code(), Some(0));
    assert_eq!(dev.stop(), Some(0));
}
