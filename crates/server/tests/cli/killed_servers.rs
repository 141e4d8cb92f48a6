//! Servers that are killed while an operator gets access to a tenant, and while an alert is raised and mailed.

use serde_json::{Value, json};
use tenantry_tests::SmtpServer;

use super::life_faults::{Held, Idle};
use super::serving::{Serving, until};
use super::*;

const LOGIN: &str = "/api/v1/auth/login";

/// The settings of servers beside nothing else. Jobs run on none of them unless a test says so.
fn config(idle: &Idle, more: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let mut config = idle.config.clone();
    config.extend([
        ("TENANTRY__SERVER__PORT", "0".to_owned()),
        ("TENANTRY__LIMITS__ENABLED", "false".to_owned()),
        ("TENANTRY__JOBS__ENABLED", "false".to_owned()),
    ]);
    config.extend_from_slice(more);
    config
}

/// A success in JSON.
#[track_caller]
fn sent(serving: &Serving, method: &str, path: &str, token: &str, body: &Value) -> Value {
    let (status, answer) = asked(serving, method, path, token, body);
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    serde_json::from_str(&answer).unwrap()
}

fn asked(serving: &Serving, method: &str, path: &str, token: &str, body: &Value) -> (u16, String) {
    let header = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let body = match method {
        "GET" => String::new(),
        _ => body.to_string(),
    };
    request(&serving.address, (method, path), &header, &body)
}

/// Sends a request whose answer never comes, because its server is killed.
fn unanswered(serving: &Serving, (method, path): (&str, &str), token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&serving.address).unwrap();
    let body = if method == "GET" { "" } else { "{}" };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stream
}

/// Kills a server whose request waits for what is held.
fn kill_blocked(idle: &Idle, serving: Serving, held: Held) {
    idle.blocked(1);
    serving.end("KILL");
    held.release();
    idle.settled();
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// Servers are killed during the approval, between that and the first request of the operator, and during that request. One access is
/// approved once, each request is done once, and no other tenant is seen.
#[test]
fn killed_servers_lose_and_double_nothing_of_support_access() {
    const ADMIN: &str = "/api/v1/admin/support-access";
    let idle = Idle::new("support");
    let config = config(&idle, &[]);
    let entries = |action: &str| {
        let count = format!(
            "SELECT concat(count(*) FILTER (WHERE tenant_id = $ACME), ' of ', count(*)) FROM audit_events \
             WHERE action = 'support_access.{action}'"
        );
        idle.terminal.of_acme(&count)
    };
    let serving = Serving::start(&config);
    let login = json!({"tenant_slug": "acme", "email": "admin@acme.example", "password": "demo-password"});
    let admin = sent(&serving, "POST", LOGIN, "", &login);
    let admin = text(&admin, "access_token");
    let login = json!({"email": "operator@tenantry.example", "password": "demo-password"});
    let operator = sent(&serving, "POST", "/api/v1/admin/login", "", &login);
    let operator = text(&operator, "access_token");
    let tenant = idle
        .terminal
        .one("SELECT id::text FROM tenants WHERE slug = 'acme'");
    let wanted = json!({"tenant_id": tenant, "reason": "ticket 4711", "access": "read", "minutes": 30});
    let access = sent(&serving, "POST", ADMIN, operator, &wanted);
    let id = text(&access, "id");
    let status = format!("SELECT status FROM support_accesses WHERE id = '{id}'");

    // During the approval: it is not approved, though the operators' log has the attempt.
    let approve = format!("/api/v1/support-access/{id}/approve");
    let row = format!("SELECT 1 FROM support_accesses WHERE id = '{id}' FOR UPDATE");
    let held = Held::row(&idle.terminal, &row);
    let approval = unanswered(&serving, ("POST", &approve), admin);
    kill_blocked(&idle, serving, held);
    drop(approval);
    assert_eq!(idle.terminal.one(&status), "pending");
    assert_eq!(entries("approved"), "0 of 0");

    // Between the approval and the use.
    let serving = Serving::start(&config);
    let token = format!("{ADMIN}/{id}/token");
    assert_eq!(asked(&serving, "POST", &token, operator, &json!({})).0, 409);
    sent(&serving, "POST", &approve, admin, &json!({}));
    serving.end("KILL");
    let serving = Serving::start(&config);
    assert_eq!(asked(&serving, "POST", &approve, admin, &json!({})).0, 409);
    let given = sent(&serving, "POST", &token, operator, &json!({}));
    let support = text(&given, "access_token");
    let tasks = sent(&serving, "GET", "/api/v1/tasks?limit=100", support, &Value::Null);
    let seen: Vec<&str> = tasks["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| text(task, "id"))
        .collect();
    let own = idle
        .terminal
        .of_acme("SELECT string_agg(id::text, ' ') FROM tasks WHERE tenant_id = $ACME");
    assert!(
        !seen.is_empty() && seen.iter().all(|task| own.contains(task)),
        "{seen:?}"
    );

    // During a request: it is counted before it is done, so that it is neither.
    let requests = format!(
        "SELECT concat(count(*), ' ', sum(requests)) FROM support_access_uses WHERE support_access_id = '{id}'"
    );
    assert_eq!(idle.terminal.one(&requests), "1 1");
    let held = Held::row(
        &idle.terminal,
        &format!("SELECT 1 FROM support_access_uses WHERE support_access_id = '{id}' FOR UPDATE"),
    );
    let used = unanswered(&serving, ("GET", "/api/v1/tasks?limit=100"), support);
    kill_blocked(&idle, serving, held);
    drop(used);
    assert_eq!(idle.terminal.one(&requests), "1 1");
    let serving = Serving::start(&config);
    sent(&serving, "GET", "/api/v1/tasks?limit=100", support, &Value::Null);
    assert_eq!(idle.terminal.one(&requests), "1 2");
    sent(
        &serving,
        "POST",
        &format!("/api/v1/support-access/{id}/end"),
        admin,
        &json!({}),
    );
    let refused = asked(&serving, "GET", "/api/v1/tasks", support, &Value::Null);
    assert_eq!(refused.0, 401, "{}", refused.1);
    serving.end("TERM");

    for action in ["requested", "approved", "token_issued", "used", "ended"] {
        assert_eq!(entries(action), "1 of 1", "{action}");
    }
    let attempts = "SELECT count(*)::text FROM operator_events WHERE action = 'support_access.approved'";
    assert_eq!(idle.terminal.one(attempts), "2");
    idle.run(&["audit", "verify", "--tenant", "acme"]);
}

/// Servers are killed while an alert is raised, between that and its mail, and while the mail is sent. There is one alert, and each admin
/// of the tenant gets one mail.
#[test]
fn killed_servers_lose_and_double_no_alert_and_no_mail_of_it() {
    let idle = Idle::new("alerts");
    let mut mail = SmtpServer::start();
    let silent = config(&idle, &[]);
    let mailing = config(
        &idle,
        &[
            ("TENANTRY__JOBS__ENABLED", "true".to_owned()),
            // A job of a killed server is taken over after that.
            ("TENANTRY__JOBS__LEASE_SECONDS", "5".to_owned()),
            (
                "TENANTRY__MAIL__FROM",
                "Example <no-reply@mail.example>".to_owned(),
            ),
            ("TENANTRY__MAIL__SMTP__HOST", "127.0.0.1".to_owned()),
            ("TENANTRY__MAIL__SMTP__PORT", mail.address().port().to_string()),
            ("TENANTRY__MAIL__SMTP__TLS", "none".to_owned()),
        ],
    );
    let fail = |serving: &Serving, tenant: &str| {
        let login = json!({"tenant_slug": tenant, "email": format!("viewer@{tenant}.example"), "password": "wrong password"});
        let (status, answer) = asked(serving, "POST", LOGIN, "", &login);
        assert!((400..500).contains(&status), "{answer}");
    };
    let alerts = || {
        idle.terminal.of_acme(
            "SELECT concat((SELECT count(*) FROM security_alerts WHERE rule = 'failed_logins_account' AND tenant_id = $ACME), ' of ', \
             (SELECT count(*) FROM security_alerts WHERE rule = 'failed_logins_account'), ', ', \
             (SELECT count(*) FROM audit_events WHERE action = 'security.alert_raised' AND after ->> 'rule' = 'failed_logins_account'), \
             ' recorded, ', (SELECT count(*) FROM jobs WHERE kind = 'security.alert_mail' \
             AND payload #>> '{notice,rule}' = 'failed_logins_account'), ' mails')",
        )
    };
    let admins: usize = idle
        .terminal
        .of_acme(
            "SELECT count(*)::text FROM users WHERE tenant_id = $ACME AND role = 'admin' AND custom_role IS NULL \
             AND is_active AND deleted_at IS NULL",
        )
        .parse()
        .unwrap();

    // While it is raised: all of it, or nothing.
    let serving = Serving::start(&silent);
    let held = Held::table(&idle.terminal, "security_alerts");
    for _ in 0..5 {
        fail(&serving, "acme");
    }
    fail(&serving, "globex");
    kill_blocked(&idle, serving, held);
    assert_eq!(alerts(), "0 of 0, 0 recorded, 0 mails");

    // Between that and the mail. What the killed server had not searched is searched with the next entry.
    let serving = Serving::start(&silent);
    fail(&serving, "acme");
    let raised = format!("1 of 1, 1 recorded, {admins} mails");
    until("the alert is raised", || alerts() == raised);
    serving.end("KILL");
    assert_eq!(mail.received(), []);

    // While the mail is sent, to a server that says nothing.
    mail.fall_silent();
    let serving = Serving::start(&mailing);
    until("the mail is under way", || mail.connections() > 0);
    serving.end("KILL");
    mail.restart();
    assert_eq!(mail.received(), []);

    let serving = Serving::start(&mailing);
    let done = "SELECT count(*)::text FROM jobs WHERE kind = 'security.alert_mail' AND state = 'done' \
                AND payload #>> '{notice,rule}' = 'failed_logins_account'";
    until("the mails are sent", || {
        idle.terminal.one(done) == admins.to_string()
    });
    serving.end("TERM");
    assert_eq!(alerts(), raised);
    let received = mail.received();
    let of_alert = received.iter().filter(|mail| {
        mail.header("Subject").ends_with("Security alert") && mail.text().contains("failed_logins_account")
    });
    let mut to: Vec<String> = of_alert.flat_map(|mail| mail.to.clone()).collect();
    assert_eq!(to.len(), admins, "{received:?}");
    to.sort_unstable();
    to.dedup();
    assert_eq!(to.len(), admins, "{to:?}");
    assert!(
        to.iter().all(|address| address.ends_with("@acme.example")),
        "{to:?}"
    );
    idle.run(&["audit", "verify", "--tenant", "acme"]);
}
