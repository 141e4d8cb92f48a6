//! Commands in another terminal beside a running demo.

use super::*;

/// What a command of another terminal does, in a folder that has nothing to do with the demo.
fn in_another_terminal(export: &str, command: &str) -> Output {
    Command::new("bash")
        .args(["-c", &format!("{export}\n{command}")])
        .current_dir("/")
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .env_remove("TENANTRY_PROFILE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn commands_find_what_a_running_demo_uses_and_say_so() {
    let folder = Folder::new("beside");
    let mut dev = Dev::start_as(&folder.0, &["--stripe", "fake"], &[]);
    let export = dev.line_for_another_terminal();
    let using = format!("using the demo at http://{} (", dev.address);
    for command in [
        "doctor",
        "tenant list",
        "plan list",
        "plan agree acme --meter api_calls=20000 --reason trial",
        "operator create --email olga@example.com --name Olga --role owner",
        "operator reset-password olga@example.com",
        "operator set-role olga@example.com --role support",
        "operator list",
        "flags list",
        "settings set acme security.session_idle_minutes 30",
        "settings show acme",
        "keys rotate",
        "keys list",
        "settings rotate-keys",
        "jobs list --state dead",
        "quota reconcile",
        "quota correct acme --meter api_calls --used 5 --reason 'counted twice'",
        "user import --tenant acme --file /dev/null",
        "billing publish",
        "billing customers",
        "billing reconcile",
        "billing events --fetch",
        "mail test --to ada@example.com",
        "migrate status",
    ] {
        let output = in_another_terminal(&export, &format!("tenantry {command}"));
        let told = stderr(&output);
        assert!(output.status.success(), "{command}: {told}");
        assert!(told.starts_with(&using), "{command}: {told}");
        if command.starts_with("operator create") || command.starts_with("operator reset-password") {
            // Scripts take the password from the end of the last line.
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(
                printed.contains("\nthe password expires at 20"),
                "{command}: {printed}"
            );
            let last = printed.lines().last().unwrap_or_default();
            assert!(last.starts_with("password "), "{command}: {printed}");
        }
        for part in ["/tenantry, signing key ", "Stripe http://127.0.0.1:"] {
            assert!(told.contains(part), "{command}: {told}");
        }
        let roles = std::fs::read_to_string(folder.0.join("roles.json")).unwrap();
        let roles: std::collections::BTreeMap<String, String> = serde_json::from_str(&roles).unwrap();
        assert!(roles.values().all(|password| !told.contains(password)), "{told}");
    }
    for command in ["replay", "cancel"] {
        let nothing = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
        let output = in_another_terminal(
            &export,
            &format!("tenantry jobs {command} {nothing} --reason trial"),
        );
        let told = stderr(&output);
        assert!(
            !output.status.success() && told.starts_with(&using),
            "{command}: {told}"
        );
        assert!(told.contains("there is no such job"), "{command}: {told}");
    }
    assert_eq!(dev.stop(), Some(0));
    let output = in_another_terminal(&export, "tenantry plan list");
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("start it with `tenantry dev`"),
        "{}",
        stderr(&output)
    );
    assert!(!folder.0.join("demo.json").exists());
}

/// The linter of the format's own project: names, units, types and help texts of everything that a server measures.
#[test]
fn promtool_has_no_complaint_about_the_metrics() {
    let Some(mut promtool) = tenantry_tests::outside::program("promtool") else {
        return;
    };
    let folder = Folder::new("promtool");
    let dev = Dev::start_as(&folder.0, &["--stripe", "fake"], &[]);
    let login = "{\"email\":\"operator@tenantry.example\",\"password\":\"demo-password\"}";
    let (status, answer) = dev.request("POST", "/api/v1/admin/login", "", login);
    assert_eq!(status, 200, "{answer}");
    let operator: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let metrics = dev.get(operator["access_token"].as_str().unwrap(), "/metrics");
    assert!(metrics.contains("tenantry_http_requests_total"), "{metrics}");

    let mut linter = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    linter
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let complaints = linter.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&complaints.stderr) + String::from_utf8_lossy(&complaints.stdout);
    assert!(complaints.status.success() && text.is_empty(), "{text}");
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn a_demo_is_used_in_development_only_and_not_beside_a_named_database() {
    let folder = Folder::new("strict");
    let dev = Dev::start(&folder.0);
    let data = folder.0.to_str().unwrap().to_owned();
    let place = ("TENANTRY_DATA_DIR", data.as_str());
    let refused = |config: &[(&str, &str)]| {
        let output = output(&["plan", "list"], config);
        assert!(!output.status.success(), "{config:?}");
        let told = stderr(&output);
        assert!(!told.contains("using the demo"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        told
    };
    let told = refused(&[place, ("TENANTRY_PROFILE", "production")]);
    assert!(
        told.contains("database.url: a PostgreSQL URL is required") && !told.contains("the demo"),
        "{told}"
    );
    let told = refused(&[place]);
    assert!(
        told.contains("for the demo that runs here, set TENANTRY_PROFILE=development"),
        "{told}"
    );
    let served = output(&["serve"], &[place, ("TENANTRY_PROFILE", "development")]);
    let told = stderr(&served);
    assert!(
        told.contains("`tenantry serve` never uses the demo that runs here"),
        "{told}"
    );
    let told = refused(&[
        place,
        ("TENANTRY_PROFILE", "development"),
        ("TENANTRY__DATABASE__URL", "postgres://me@127.0.0.1:9/mine"),
    ]);
    assert!(told.contains("database.platform_url"), "{told}");

    let second = output(&["dev", "--data-dir", &data], &[("TENANTRY__SERVER__PORT", "0")]);
    assert!(!second.status.success());
    assert!(
        stderr(&second).contains("a demo runs over") && postgres_is_up(&folder.0),
        "{}",
        stderr(&second)
    );
    assert_eq!(dev.stop(), Some(0));
}
