//! Mail as the program sends it.

use std::time::{Duration, Instant};

use tenantry_tests::{Encryption, SmtpServer};

use super::serving::beside;
use super::*;

/// The settings that lead to a server without TLS.
fn leading_to(server: &SmtpServer) -> Vec<(&'static str, String)> {
    vec![
        (
            "TENANTRY__MAIL__FROM",
            "Example <no-reply@mail.example>".to_owned(),
        ),
        ("TENANTRY__MAIL__SMTP__HOST", "127.0.0.1".to_owned()),
        ("TENANTRY__MAIL__SMTP__PORT", server.address().port().to_string()),
        ("TENANTRY__MAIL__SMTP__TLS", "none".to_owned()),
    ]
}

fn tried(config: &[(&'static str, String)]) -> Output {
    let config: Vec<_> = config.iter().map(|(key, value)| (*key, value.as_str())).collect();
    output(&["mail", "test", "--to", "ada@example.com"], &config)
}

/// Why the command refuses: one line.
#[track_caller]
fn refused(config: &[(&'static str, String)]) -> String {
    let output = tried(config);
    assert!(!output.status.success());
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn mail_test_sends_one_mail_and_says_what_the_server_answered() {
    let mut server = SmtpServer::start();
    let config = leading_to(&server);
    let sent = tried(&config);
    assert!(sent.status.success(), "{}", stderr(&sent));
    let answer = format!("127.0.0.1:{}: 250 2.0.0 taken as 4711\n", server.address().port());
    assert_eq!(String::from_utf8(sent.stdout).unwrap(), answer);
    let received = server.received();
    assert_eq!(
        (received.len(), received[0].to.as_slice()),
        (1, &["ada@example.com".to_owned()][..])
    );
    assert_eq!(received[0].header("From"), "Example <no-reply@mail.example>");

    server.refuse("ada@example.com", 550);
    assert!(refused(&config).contains("the mail server refuses the recipient: permanent error (550)"));
    server.stop();
    assert!(refused(&config).contains("error: the mail server is unavailable: "));
}

#[test]
fn mail_test_encrypts_and_logs_in_and_shows_no_password() {
    let server = SmtpServer::with(Encryption::Starttls);
    server.demand("tenantry", "hush-hush-hush");
    let mut config = leading_to(&server);
    config.pop();
    config.push(("TENANTRY__MAIL__SMTP__USER", "tenantry".to_owned()));
    config.push(("TENANTRY__MAIL__SMTP__PASSWORD", "hush-hush-hush".to_owned()));
    let unknown = refused(&config);
    assert!(
        unknown.contains("see mail.smtp: invalid peer certificate"),
        "{unknown}"
    );
    let authority = server.authority().to_str().unwrap().to_owned();
    config.push(("TENANTRY__MAIL__SMTP__CA_FILE", authority));
    let sent = tried(&config);
    assert!(sent.status.success(), "{}", stderr(&sent));
    assert!(server.received()[0].encrypted);
    config.push(("TENANTRY__MAIL__SMTP__PASSWORD", "hush-hush-wrong".to_owned()));
    let wrong = refused(&config);
    assert!(wrong.contains("535") && !wrong.contains("hush"), "{wrong}");
}

#[test]
fn mail_test_names_the_setting_that_is_wrong() {
    let server = SmtpServer::start();
    for (key, value, complaint) in [
        (
            "TENANTRY__MAIL__FROM",
            "",
            "setting mail.from: must be no-reply@example.com",
        ),
        ("TENANTRY__MAIL__SMTP__TLS", "ssl", "mail.smtp.tls: "),
        ("TENANTRY__MAIL__SMTP__USER", "me", "setting mail.smtp.password: "),
        (
            "TENANTRY__MAIL__SMTP__HOST",
            "smtp://x",
            "setting mail.smtp.host: ",
        ),
        ("TENANTRY__MAIL__APP_URL", "x", "setting mail.app_url: "),
    ] {
        let mut config = leading_to(&server);
        config.push((key, value.to_owned()));
        let refused = refused(&config);
        assert!(refused.contains(complaint), "{key}: {refused}");
    }
    let nobody = output(&["mail", "test", "--to", "nobody"], NOTHING);
    assert!(stderr(&nobody).contains("must be an address such as ada@example.com"));
    let nowhere = tried(&[]);
    let said = String::from_utf8(nowhere.stdout.clone()).unwrap();
    assert!(nowhere.status.success(), "{}", stderr(&nowhere));
    assert!(
        said.contains("the log (mail.smtp.host is not set): written to the log"),
        "{said}"
    );
    assert_eq!(server.received(), []);
}

#[test]
fn an_admin_whose_tenant_uses_much_gets_a_mail_and_operators_see_that_it_went() {
    let server = SmtpServer::start();
    let folder = Folder::new("mail");
    let mut config = leading_to(&server);
    config.push(("TENANTRY__MAIL__APP_URL", "https://app.example.com/".to_owned()));
    config.push(("TENANTRY__JOBS__POLL_MS", "50".to_owned()));
    let borrowed: Vec<_> = config.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let dev = Dev::start_as(&folder.0, &[], &borrowed);
    let command = beside(&folder.0);
    let command: Vec<_> = command
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let agreed = output(
        &[
            "plan",
            "agree",
            "acme",
            "--meter",
            "api_calls=10",
            "--reason",
            "a test",
        ],
        &command,
    );
    assert!(agreed.status.success(), "{}", stderr(&agreed));
    let token = dev.login("acme");
    let deadline = Instant::now() + Duration::from_secs(30);
    // Links to verify the addresses of the demo are mailed as well.
    let of_quota = || {
        let mut mails = server.received().into_iter();
        mails.find(|mail| mail.header("Subject").contains("API calls"))
    };
    let mail = loop {
        if let Some(mail) = of_quota() {
            break mail;
        }
        assert!(Instant::now() < deadline, "no mail came");
        let bearer = format!("Authorization: Bearer {token}\r\n");
        dev.request("GET", "/api/v1/tasks?limit=1", &bearer, "");
        // Another process sends it: there is no clock of ours to move.
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(mail.to, ["admin@acme.example"]);
    assert!(
        mail.header("Subject")
            .contains("API calls: 80 % of the limit is used")
    );
    assert!(
        mail.text().contains("https://app.example.com/"),
        "{}",
        mail.text()
    );

    let login = "{\"email\":\"operator@tenantry.example\",\"password\":\"demo-password\"}";
    let (status, answer) = dev.request("POST", "/api/v1/admin/login", "", login);
    assert_eq!(status, 200, "{answer}");
    let operator: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let health = dev.get(operator["access_token"].as_str().unwrap(), "/health/detailed");
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    let seen = &health["components"]["mail"];
    assert_eq!(
        (&seen["status"], &seen["transport"]),
        (&"ok".into(), &"smtp".into()),
        "{health:#}"
    );
    assert!(
        seen["last_success"].is_string() && seen["last_failure"].is_null(),
        "{seen}"
    );
    let (_, metrics) = dev.request("GET", "/metrics", "", "");
    let sent = metrics
        .lines()
        .find(|line| line.contains("mails_total{outcome=\"sent\"}"))
        .unwrap();
    assert_ne!(sent.split_whitespace().last(), Some("0"), "{sent}");
    assert_eq!(dev.stop(), Some(0));
}
