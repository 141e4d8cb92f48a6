//! What operators do from the command line of the server while it serves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::serving::beside;
use super::*;

/// A command that does what it is told: what it says.
#[track_caller]
fn done(command: &str, config: &[(&str, String)]) -> String {
    let arguments: Vec<_> = command.split_whitespace().collect();
    let output = output(&arguments, config);
    assert!(output.status.success(), "{command}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A command that refuses: why, in one line.
#[track_caller]
fn refused(command: &str, config: &[(&str, String)]) -> String {
    let arguments: Vec<_> = command.split_whitespace().collect();
    let output = output(&arguments, config);
    assert!(!output.status.success(), "{command}");
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    stderr(&output)
}

/// A command that refuses with several lines.
#[track_caller]
fn refused_all(command: &str, config: &[(&str, String)]) -> String {
    let arguments: Vec<_> = command.split_whitespace().collect();
    let output = output(&arguments, config);
    assert!(!output.status.success(), "{command}");
    stderr(&output)
}

fn with(config: &[(&'static str, String)], more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
    config.iter().cloned().chain(more).collect()
}

/// Asks again until the answer is right, for as long as a change may take to be seen by another process.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn json_of(dev: &Dev, token: &str, path: &str) -> Value {
    serde_json::from_str(&dev.get(token, path)).unwrap()
}

/// The plan of a tenant, its version, and how many users it allows.
fn terms(dev: &Dev, token: &str) -> (String, u64, Option<u64>) {
    let can = json_of(dev, token, "/api/v1/tenant/capabilities");
    let limits = can["limits"].as_array().unwrap().iter();
    let users = limits
        .filter(|limit| limit["name"] == "users")
        .collect::<Vec<_>>();
    let name = can["plan"]["name"].as_str().unwrap().to_owned();
    (
        name,
        can["plan"]["version"].as_u64().unwrap(),
        users[0]["allowed"].as_u64(),
    )
}

/// A Redis of the test's own.
struct Redis(Child, String);

impl Redis {
    fn start(folder: &Folder) -> Self {
        let arguments = [
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocket",
            "redis",
        ];
        let child = Command::new("redis-server")
            .args(arguments)
            .current_dir(&folder.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: run scripts/ensure redis"));
        let socket = folder.0.join("redis");
        until("Redis is there", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        Self(child, format!("unix://{}", socket.display()))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn plans_are_listed_changed_agreed_on_and_upgraded_while_a_server_learns_of_it() {
    let folder = Folder::new("plans");
    let redis = Redis::start(&folder);
    let dev = Dev::start_with(&folder.0, &[("REDIS_URL", &redis.1)]);
    let config = with(&beside(&folder.0), &[("TENANTRY__REDIS__URL", &redis.1)]);
    let (acme, globex) = (dev.login("acme"), dev.login("globex"));

    let listed = done("plan list", &config);
    for line in [
        "free version 1 on offer",
        "enterprise version 1 on offer",
        "pro version 1 of 1 tenants",
        "free version 1 of 1 tenants",
    ] {
        assert!(listed.lines().any(|one| one == line), "{line}\n{listed}");
    }
    assert_eq!(
        done("plan change globex --to enterprise --reason trial", &config),
        "globex enterprise version 1\n"
    );
    until("the change of plan is seen", || {
        terms(&dev, &globex).0 == "enterprise"
    });
    assert_eq!(terms(&dev, &acme).0, "pro", "the other tenant keeps its own");
    let unknown = refused("plan change globex --to gold --reason trial", &config);
    assert!(unknown.contains("/plan: must be one of"), "{unknown}");
    let nobody = refused("plan change nobody --to pro --reason trial", &config);
    assert!(nobody.contains("there is no tenant 'nobody'"), "{nobody}");

    let agreed = done(
        "plan agree acme --limit users=61 --feature branding=on --reason trial",
        &config,
    );
    assert!(agreed.starts_with("acme {") && agreed.contains("61"), "{agreed}");
    until("what was agreed is seen", || terms(&dev, &acme).2 == Some(61));
    done("plan agree acme --limit users=plan --reason trial", &config);
    until("what was agreed is taken back", || {
        terms(&dev, &acme).2 != Some(61)
    });
    let slip = refused("plan agree acme --limit usres=61 --reason trial", &config);
    assert!(slip.contains("no plan knows 'usres'"), "{slip}");

    // A plan of which another server has a new version: those who are on it keep the old one until they are moved, and
    // the running server learns the new one without being asked to.
    done("plan change globex --to free --reason trial", &config);
    let newer = with(
        &config,
        &[("TENANTRY__PLANS__OVERRIDES__FREE__LIMITS__USERS", "77")],
    );
    assert!(done("plan list", &newer).contains("free version 2 on offer, stored when"));
    // Reading stores nothing.
    assert!(done("plan list", &config).contains("free version 1 on offer\n"));
    until("the change of plan is seen", || terms(&dev, &globex).0 == "free");
    assert_ne!(terms(&dev, &globex).2, Some(77));
    let dry = done("plan upgrade free --dry-run", &newer);
    assert_eq!(dry, "1 tenants would move to version 2\n");
    assert_eq!(terms(&dev, &globex).1, 1);
    assert_eq!(
        done("plan upgrade free --reason trial", &newer),
        "1 tenants moved to version 2\n"
    );
    let learned = ("free".to_owned(), 2, Some(77));
    until("the server learns the version", || {
        terms(&dev, &globex) == learned
    });
    assert_eq!(
        done("plan upgrade free --reason trial", &newer),
        "0 tenants moved to version 2\n"
    );
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn secrets_are_sealed_anew_and_what_no_key_opens_is_told() {
    let folder = Folder::new("keys");
    let dev = Dev::start(&folder.0);
    let token = dev.login("acme");
    let headers = format!("Authorization: Bearer {token}\r\n");
    let secret = json!({"integrations.smtp_password": "of acme"}).to_string();
    let (status, answer) = dev.request("PATCH", "/api/v1/tenant/settings", &headers, &secret);
    assert_eq!(status, 200, "{answer}");
    let new = folder.0.join("new-key.pem");
    let arguments = ["genpkey", "-algorithm", "ed25519", "-out"];
    let made = Command::new("openssl")
        .args(arguments)
        .arg(&new)
        .status()
        .unwrap();
    assert!(made.success());

    let old_only = beside(&folder.0);
    let new_only = with(
        &old_only,
        &[("TENANTRY__AUTH__SIGNING_KEY_FILE", new.to_str().unwrap())],
    );
    let former = format!("[\"{}\"]", folder.0.join("signing-key.pem").display());
    let both = with(&new_only, &[("TENANTRY__AUTH__PREVIOUS_KEY_FILES", &former)]);
    let shown = done("settings show acme", &old_only);
    for line in [
        "integrations.smtp_password is set",
        "security.mfa_required \"off\" (default)",
    ] {
        assert!(shown.lines().any(|one| one == line), "{line}\n{shown}");
    }
    assert!(!shown.contains("of acme"), "{shown}");
    // Where the configuration of the server overrules settings, its values hold.
    let stricter = with(&old_only, &[("TENANTRY__AUTH__USERS_MFA_MINIMUM", "everyone")]);
    let shown = done("settings show acme", &stricter);
    for line in [
        "security.mfa_required \"everyone\" (server's minimum)",
        "security.session_max_days 30 (server's maximum)",
    ] {
        assert!(shown.lines().any(|one| one == line), "{line}\n{shown}");
    }
    let rotate = "settings rotate-keys";
    let too_early = output(&["settings", "rotate-keys"], &new_only);
    assert!(!too_early.status.success());
    let complaint = stderr(&too_early);
    for part in [
        "acme data key 1 opens with no key that is configured",
        "acme integrations.smtp_password opens with no key that is configured",
        "2 tenants could not be sealed anew: keep the former key",
    ] {
        assert!(complaint.contains(part), "{complaint}");
    }
    let lines = [
        "acme 1 data key(s) and 0 secret(s) sealed anew, 1 secret(s) were already",
        "globex 1 data key(s) and 0 secret(s) sealed anew, 0 secret(s) were already",
    ];
    let said = done(rotate, &both);
    assert!(
        lines.iter().all(|line| said.lines().any(|one| one == *line)),
        "{said}"
    );
    let nothing = "acme 0 data key(s) and 0 secret(s) sealed anew, 1 secret(s) were already";
    assert!(done(rotate, &both).contains(nothing));
    // The former key can be taken away.
    assert!(done(rotate, &new_only).contains(nothing));
    assert_eq!(
        done("keys rotate --tenant acme", &new_only),
        "acme data key 2 seals, 1 secret(s) sealed anew\n"
    );
    let listed = done("keys list --tenant acme", &new_only);
    let states: Vec<_> = listed.lines().map(|line| line.split([',', '(']).next()).collect();
    assert_eq!(states, [Some("1 opens"), Some("2 seals ")], "{listed}");
    assert_eq!(
        done("keys check", &new_only),
        "the data keys and secrets of 2 tenant(s) open\n"
    );
    let lost = refused_all("keys check", &old_only);
    assert!(
        lost.contains("acme no key of the server opens data key 2"),
        "{lost}"
    );
    assert!(
        lost.contains("2 of 2 tenant(s) have lost keys or secrets"),
        "{lost}"
    );
    assert!(
        done("keys rotate --all-tenants", &new_only)
            .contains("globex data key 2 seals, 0 secret(s) sealed anew")
    );
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn flags_are_listed_shown_and_rolled_back_while_a_server_evaluates_them() {
    let folder = Folder::new("flags");
    let dev = Dev::start(&folder.0);
    let config = beside(&folder.0);
    let body = "{\"email\":\"operator@tenantry.example\",\"password\":\"demo-password\"}";
    let (_, answer) = dev.request("POST", "/api/v1/admin/login", "", body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let operator = format!(
        "Authorization: Bearer {}\r\n",
        answer["access_token"].as_str().unwrap()
    );
    let flag = |default: &str| {
        let flag = json!({
            "key": "new-checkout", "description": "On one page", "type": "boolean", "client_visible": true,
            "variants": {"on": true, "off": false}, "default_variant": default, "off_variant": "off",
        });
        flag.to_string()
    };
    let (status, answer) = dev.request("POST", "/api/v1/admin/flags", &operator, &flag("off"));
    assert_eq!(status, 201, "{answer}");
    let one = "/api/v1/admin/flags/new-checkout";
    assert_eq!(dev.request("PUT", one, &operator, &flag("on")).0, 200);
    let token = dev.login("acme");
    let value = || json_of(&dev, &token, "/api/v1/features")["data"][0]["value"].clone();
    assert_eq!(value(), true);

    let listed = "new-checkout boolean active on version 2 On one page\n";
    assert_eq!(done("flags list", &config), listed);
    let shown = |command: &str| -> Value { serde_json::from_str(&done(command, &config)).unwrap() };
    assert_eq!(shown("flags show new-checkout")["default_variant"], "on");
    assert_eq!(
        shown("flags show new-checkout --version 1")["default_variant"],
        "off"
    );
    assert_eq!(
        done("flags rollback new-checkout --to 1", &config),
        listed.replace("version 2", "version 3")
    );
    until("the rollback is seen", || value() == false);
    let history = done("flags history new-checkout", &config);
    let lines: Vec<_> = history.lines().collect();
    assert_eq!(lines.len(), 3, "{history}");
    assert!(
        lines[0].starts_with("3 20") && lines[0].ends_with("Z a command")
            || lines[0].ends_with("Z a command"),
        "{history}"
    );
    assert!(
        lines[1].starts_with("2 20") && !lines[1].ends_with("a command"),
        "{history}"
    );
    assert_eq!(
        done("flags history new-checkout --limit 1", &config)
            .lines()
            .count(),
        1
    );
    for (command, complaint) in [
        ("flags show nothing", "there is no such flag or version"),
        (
            "flags show new-checkout --version 9",
            "there is no such flag or version",
        ),
        ("flags history nothing", "there is no such flag or version"),
        (
            "flags rollback nothing --to 1",
            "there is no such flag or version",
        ),
        (
            "flags rollback new-checkout --to 9",
            "/version: there is no such version",
        ),
    ] {
        let told = refused(command, &config);
        assert!(told.contains(complaint), "{command}: {told}");
    }

    // What was looked up for it is remembered, and operators are told of each memory.
    dev.get(&token, "/api/v1/tenant/settings");
    let (_, health) = dev.request("GET", "/health/detailed", &operator, "");
    let health: Value = serde_json::from_str(&health).unwrap();
    for cache in ["directory", "settings", "flags"] {
        let figures = &health["components"]["caches"][cache];
        assert!(figures["loads"].as_u64().unwrap() > 0, "{cache}: {health:#}");
        assert!(
            figures["hits"].is_u64() && figures["entries"].is_u64(),
            "{health:#}"
        );
    }
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn limits_of_streams_and_of_what_is_public_come_from_the_settings() {
    let folder = Folder::new("public");
    let config = [
        ("TENANTRY__HTTP__EVENT_STREAM_SECONDS", "1"),
        ("TENANTRY__LIMITS__FACTOR", "1"),
        ("TENANTRY__LIMITS__VISITOR_PER_MINUTE", "2"),
        ("TENANTRY__LIMITS__VISITOR_BURST", "3"),
    ];
    let dev = Dev::start_with(&folder.0, &config);
    let token = dev.login("acme");
    let asked = Instant::now();
    // It is read to its end, which comes by itself.
    let stream = dev.get(&token, "/ofrep/v1/events");
    assert!(stream.contains(": connected"), "{stream}");
    assert!(asked.elapsed().as_secs() >= 1);
    let visit = || dev.request("GET", "/api/v1/branding", "X-Tenant-Slug: acme\r\n", "");
    assert_eq!([visit().0, visit().0, visit().0], [200; 3]);
    let (status, answer) = visit();
    let problem: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (status, &problem["violated-policies"]),
        (429, &json!(["visitor"]))
    );
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn what_is_wrong_with_plans_or_redis_stops_the_start_with_one_line() {
    let folder = Folder::new("wrong");
    let standard = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/plans.toml");
    let standard = std::fs::read_to_string(standard).unwrap();
    let file = |name: &str, from: &str, to: &str| {
        assert!(standard.contains(from));
        let path = folder.0.join(name);
        std::fs::write(&path, standard.replacen(from, to, 1)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let setting = "\"retention.audit_days\" = 90";
    let out_of_range = file("range.toml", setting, "\"retention.audit_days\" = 5");
    let unknown = file("unknown.toml", setting, "\"retention.audit_dyas\" = 90");
    let key = folder.0.join("key.pem");
    let arguments = ["genpkey", "-algorithm", "ed25519", "-out"];
    let made = Command::new("openssl")
        .args(arguments)
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let authority = folder.0.join("ca.pem");
    std::fs::write(&authority, "no certificate").unwrap();
    let authority = authority.to_str().unwrap();
    let base = [
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
    type Case<'a> = (&'a [(&'a str, &'a str)], [&'a str; 2]);
    let cases: [Case; 8] = [
        (
            &[("TENANTRY__PLANS__FILE", &out_of_range)],
            ["setting plans.file: ", "retention.audit_days"],
        ),
        (
            &[("TENANTRY__PLANS__FILE", &unknown)],
            ["setting plans.file: ", "retention.audit_dyas"],
        ),
        (
            &[("TENANTRY__PLANS__OVERRIDES__FREE__LIMITS__USRES", "7")],
            ["setting plans.overrides: ", "usres"],
        ),
        (
            &[("TENANTRY__PLANS__OVERRIDES__GOLD__LIMITS__USERS", "7")],
            ["setting plans.overrides: ", "gold"],
        ),
        (
            &[("TENANTRY__REDIS__URL", "rediss://:hunter2@cache/#insecure")],
            [
                "setting redis.url: ",
                "must begin with rediss:// and verify the server",
            ],
        ),
        (
            &[
                ("TENANTRY__REDIS__URL", "rediss://cache"),
                ("TENANTRY__REDIS__CA_FILE", "/nowhere"),
            ],
            ["setting redis.ca_file: /nowhere", "TENANTRY__REDIS__CA_FILE"],
        ),
        (
            &[
                ("TENANTRY__REDIS__URL", "rediss://cache"),
                ("TENANTRY__REDIS__CA_FILE", authority),
            ],
            ["setting redis.ca_file: ", "no certificate"],
        ),
        (
            &[
                ("TENANTRY__REDIS__URL", "redis://cache"),
                ("TENANTRY__REDIS__CA_FILE", authority),
            ],
            ["setting redis.url: ", "must begin with rediss://"],
        ),
    ];
    for (config, parts) in cases {
        let output = output(&["serve"], &[&base[..], config].concat());
        let complaint = stderr(&output);
        assert!(!output.status.success(), "{parts:?}");
        assert!(
            parts.iter().all(|part| complaint.contains(part)),
            "{parts:?}\n{complaint}"
        );
        assert!(!complaint.contains("hunter2"));
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_rotated_key_is_published_by_a_running_server() {
    let folder = Folder::new("keys");
    let dev = Dev::start(&folder.0);
    let config = beside(&folder.0);
    let listed = done("keys list", &config);
    let configured = listed.split_whitespace().next().unwrap().to_owned();
    assert_eq!(listed, format!("{configured} configured, signing\n"));
    let rotated = done("keys rotate --publication-seconds 86400", &config);
    let kid = rotated.split_whitespace().next().unwrap();
    assert!(
        rotated.starts_with(&format!("{kid} published, signs from ")),
        "{rotated}"
    );
    let listed = done("keys list", &config);
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines[0], format!("{configured} configured, signing"));
    assert!(
        lines[1].starts_with(&format!("{kid} published (signs from ")),
        "{listed}"
    );
    until("the server publishes the key", || {
        let (_, keys) = dev.request("GET", "/.well-known/jwks.json", "", "");
        keys.contains(kid) && keys.contains(&configured)
    });
    let again = refused("keys rotate", &config);
    assert!(
        again.contains("is published already") && again.contains(kid),
        "{again}"
    );
    let short = refused("keys rotate --publication-seconds 359", &config);
    assert!(short.contains("must be 360 to 604800 seconds"), "{short}");
}

#[test]
fn an_import_of_users_names_its_wrong_lines_and_can_be_repeated() {
    let folder = Folder::new("user-import");
    let dev = Dev::start(&folder.0);
    let config = beside(&folder.0);
    let file = folder.0.join("users.ndjson");
    let ada = r#"{"email":"ada@moved.example","full_name":"Ada","role":"member","password_hash":"$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"}"#;
    let lines = [
        ada,
        "",
        r#"{"email":"no address","full_name":"Bob","role":"member"}"#,
        r#"{"email":"bob@moved.example","full_name":"Bob","role":"owner"}"#,
        r#"{"email":"bob@moved.example","full_name":"Bob","role":"member","password_hash":"$scrypt$ln=30,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg"}"#,
        "nonsense",
        r#"{"email":"dora@moved.example","role":"member"}"#,
        r#"{"email":"carol@moved.example","full_name":"Carol","role":"viewer"}"#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let command = format!("user import --tenant acme --verified --file {}", file.display());
    let arguments: Vec<_> = command.split_whitespace().collect();
    let first = output(&arguments, &config);
    assert!(!first.status.success());
    let told = stderr(&first);
    let said = String::from_utf8(first.stdout).unwrap();
    assert_eq!(said, "2 created, 0 already there, 5 failed\n", "{told}");
    for part in [
        "line 3: /email: ",
        "line 4: /role: ",
        "line 5: /password_hash: scrypt may take",
        "line 6: ",
        "line 7: /full_name: is missing\n",
        "5 lines not imported",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let body = r#"{"email":"ada@moved.example","password":"U*U*","tenant_slug":"acme"}"#;
    let (status, answer) = dev.request("POST", "/api/v1/auth/login", "", body);
    assert_eq!(status, 200, "{answer}");

    std::fs::write(&file, ada).unwrap();
    assert_eq!(done(&command, &config), "0 created, 1 already there, 0 failed\n");
    let missing = refused("user import --tenant acme --file /nowhere", &config);
    assert!(missing.contains("/nowhere"), "{missing}");
    let unknown = refused("user import --tenant nobody --file /nowhere", &config);
    assert!(unknown.contains("there is no tenant 'nobody'"), "{unknown}");
}

#[test]
fn factor_of_a_user_is_reset_from_the_command_line() {
    let folder = Folder::new("user-reset-mfa");
    let dev = Dev::start(&folder.0);
    let config = beside(&folder.0);
    for (command, reason) in [
        (
            "user reset-mfa --tenant nobody --email ada@acme.example",
            "there is no tenant 'nobody'",
        ),
        (
            "user reset-mfa --tenant acme --email nobody@acme.example",
            "tenant 'acme' has no user nobody@acme.example",
        ),
        (
            "user reset-mfa --tenant acme --email nonsense",
            "/email: must be an e-mail address",
        ),
        (
            "user reset-mfa --tenant acme --email admin@acme.example",
            "the user has no second factor",
        ),
    ] {
        let refused = refused(command, &config);
        assert!(refused.contains(reason), "{command}: {refused}");
    }
    drop(dev);
}
