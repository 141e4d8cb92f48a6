//! Every command that changes something leaves its record in the log of operators, and in that of the tenant.

use std::collections::BTreeSet;

use super::lifecycle::Terminal;
use super::*;

/// The commands with their records, as docs/operators.md lists them: name, actions, and whether they need a reason.
const DOCS: &str = include_str!("../../../../docs/operators.md");

/// Commands of that list that are not run here, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("billing reconcile", "it changes nothing"),
    (
        "operator reset-mfa",
        "needs an operator with a second factor: `operator_mfa`",
    ),
    (
        "plan upgrade",
        "needs a former version of a plan: `cli::operating`",
    ),
    ("quota reconcile", "needs a lease that was lost: `cli::quotas`"),
    ("tombstones apply", "needs a restored backup: `lifecycle`"),
    ("user reset-mfa", "needs a user with a second factor: `recovery`"),
];

/// Commands after which a tenant has an entry of the same request in its own log. After the others nothing leads into the tenant, or no
/// tenant was changed.
const IN_TENANT: &[&str] = &[
    "data_key.rotated",
    "event_export.rewound",
    "quota.corrected",
    "settings.updated",
    "tenant.agreed",
    "tenant.created",
    "tenant.deleted",
    "tenant.exported",
    "tenant.imported",
    "tenant.plan_changed",
    "tenant.resumed",
    "tenant.suspended",
    "user.email_corrected",
    "user.erased",
    "user.exported",
    "users.imported",
];

struct Row {
    command: String,
    actions: BTreeSet<String>,
    needs_reason: bool,
}

fn documented() -> Vec<Row> {
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `tenantry "));
    let rows = rows.filter_map(|row| {
        let [command, actions, reason] = row.trim_end_matches(" |").splitn(3, " | ").collect::<Vec<_>>()[..]
        else {
            return None;
        };
        Some(Row {
            command: command.trim_end_matches('`').to_owned(),
            actions: actions
                .split(", ")
                .map(|it| it.trim_matches('`').to_owned())
                .collect(),
            needs_reason: reason == "mandatory",
        })
    });
    rows.collect()
}

/// A terminal beside a demo, and what was run in it.
struct Log {
    terminal: Terminal,
    config: [(&'static str, String); 2],
    seen: BTreeSet<String>,
    run: usize,
}

impl Log {
    /// Runs a command with a reason of its own; what it prints. Its records have the reason, and one of the actions of the docs.
    #[track_caller]
    fn run(&mut self, arguments: &[&str]) -> String {
        self.run += 1;
        let reason = format!("test {}", self.run);
        let all = [arguments, &["--reason", &reason]].concat();
        let output = output(&all, &self.config);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        let rows = documented();
        let row = rows
            .iter()
            .find(|row| arguments.join(" ").starts_with(&row.command))
            .unwrap_or_else(|| panic!("{arguments:?} is not in the docs"));
        let recorded = self.recorded(&reason);
        let found: Vec<&String> = row
            .actions
            .iter()
            .filter(|action| recorded.contains(*action))
            .collect();
        assert!(!found.is_empty(), "{arguments:?}: {recorded:?}");
        for action in found.iter().filter(|action| IN_TENANT.contains(&action.as_str())) {
            let entries = self.terminal.one(&format!(
                "SELECT count(*)::text FROM audit_events a JOIN operator_events e ON e.target_tenant = a.tenant_id \
                 AND e.request_id = a.request_id WHERE e.reason = '{reason}'"
            ));
            assert_ne!(entries, "0", "{arguments:?}: {action} is not in the tenant's log");
        }
        assert!(
            !recorded.iter().any(|action| action.ends_with("_failed")),
            "{recorded:?}"
        );
        self.seen.insert(row.command.clone());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The actions of commands with a reason.
    fn recorded(&self, reason: &str) -> BTreeSet<String> {
        let sql = format!(
            "SELECT coalesce(string_agg(action, ' '), '') FROM operator_events WHERE reason = '{reason}' AND operator_id IS NULL"
        );
        let actions = self.terminal.one(&sql);
        actions.split_whitespace().map(str::to_owned).collect()
    }
}

#[test]
fn commands_that_change_something_are_in_the_log_of_operators() {
    let folder = Folder::new("records");
    let dev = Dev::start_as(&folder.0, &["--stripe", "fake"], &[]);
    let data = folder.0.to_str().unwrap();
    let mut log = Log {
        terminal: Terminal::new(&folder.0),
        config: [
            ("TENANTRY_DATA_DIR", data.to_owned()),
            ("TENANTRY_PROFILE", "development".to_owned()),
        ],
        seen: BTreeSet::new(),
        run: 0,
    };
    let file = |name: &str| format!("{data}/{name}");
    let (users, archive, person) = (file("users.ndjson"), file("acme.tar"), file("ada.tar"));
    std::fs::write(
        &users,
        r#"{"email":"ada@moved.example","full_name":"Ada","role":"member"}"#,
    )
    .unwrap();

    for arguments in [
        "plan change globex --to pro",
        "plan agree acme --limit users=60",
        "settings set acme retention.audit_days 400",
        "settings show acme",
        "settings rotate-keys",
        "keys rotate",
        "keys rotate --tenant acme",
        "quota correct acme --meter api_calls --used 5",
        "events rewind --tenant acme",
        "operator create --email olga@example.com --name Olga --role support",
        "operator set-role olga@example.com --role billing",
        "operator reset-password olga@example.com",
        "operator deactivate olga@example.com",
        "operator activate olga@example.com",
        "billing publish --tenant acme",
        "billing customers",
        "billing events --fetch",
        "tenant suspend globex",
        "tenant resume globex",
        "tenant create --name Initech --slug initech --admin-email a@initech.example --admin-name A",
        "user correct-email --tenant initech --email a@initech.example --to b@initech.example",
        "tenant delete initech",
        "tenant restore initech",
        "tenant delete initech",
        "tenant purge initech --confirm",
    ] {
        log.run(&arguments.split_whitespace().collect::<Vec<_>>());
    }
    log.run(&["user", "import", "--tenant", "globex", "--file", &users]);
    let ada = ["--tenant", "globex", "--email", "ada@moved.example"];
    log.run(&[&["user", "export"][..], &ada, &["--out", &person]].concat());
    log.run(&[&["user", "erase"][..], &ada, &["--confirm", "ada@moved.example"]].concat());
    log.run(&["tenant", "export", "acme", "--out", &archive]);
    log.run(&["tenant", "diff", &archive]);
    log.run(&["tenant", "import", &archive, "--as-new", "acme-copy"]);
    flag_is_rolled_back(&dev, &mut log);
    jobs_are_repaired(&mut log);

    let found: Vec<String> = log
        .seen
        .iter()
        .cloned()
        .chain(NOT_RUN.iter().map(|(it, _)| (*it).to_owned()))
        .collect();
    let listed: BTreeSet<String> = documented().into_iter().map(|row| row.command).collect();
    assert_eq!(
        found.into_iter().collect::<BTreeSet<_>>(),
        listed,
        "run each command, or say why not"
    );
    failures_and_refusals(&log);
    assert_eq!(dev.stop(), Some(0));
}

fn flag_is_rolled_back(dev: &Dev, log: &mut Log) {
    let login = r#"{"email":"operator@tenantry.example","password":"demo-password"}"#;
    let (_, answer) = dev.request("POST", "/api/v1/admin/login", "", login);
    let operator: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let headers = format!(
        "Authorization: Bearer {}\r\n",
        operator["access_token"].as_str().unwrap()
    );
    let flag = r#"{"key":"of-the-test","description":"A flag of a test","type":"boolean","variants":{"on":true,"off":false},
        "default_variant":"off","off_variant":"off","client_visible":true}"#;
    let (status, answer) = dev.request("POST", "/api/v1/admin/flags", &headers, flag);
    assert_eq!(status, 201, "{answer}");
    log.run(&["flags", "rollback", "of-the-test", "--to", "1"]);
}

/// A job of the system's own that is dead, and one that waits.
fn jobs_are_repaired(log: &mut Log) {
    let dead = log.terminal.all(
        "INSERT INTO system_jobs (id, created_at, kind, schema_version, payload, state, run_at, attempts, max_attempts, finished_at) \
         VALUES (gen_random_uuid(), now(), 'nothing.of_a_test', 1, '{}', 'dead', now(), 1, 1, now()) RETURNING id::text",
    );
    log.run(&["jobs", "replay", &dead]);
    let waits = log.terminal.all(
        "INSERT INTO system_jobs (id, created_at, kind, schema_version, payload, state, run_at, attempts, max_attempts) \
         VALUES (gen_random_uuid(), now(), 'nothing.of_a_test', 1, '{}', 'queued', now() + interval '1 day', 0, 1) RETURNING id::text",
    );
    log.run(&["jobs", "cancel", &waits]);
}

/// What fails has a second entry, and a command without its mandatory reason, or with one that misleads, does nothing.
fn failures_and_refusals(log: &Log) {
    let nothing = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
    let replay = [
        "jobs",
        "replay",
        nothing,
        "--tenant",
        "acme",
        "--reason",
        "a failure",
    ];
    assert!(!output(&replay, &log.config).status.success());
    let both = ["job.replay_failed", "job.replayed"].map(str::to_owned);
    assert_eq!(log.recorded("a failure"), BTreeSet::from(both));
    for row in documented().iter().filter(|row| row.needs_reason) {
        let arguments: Vec<&str> = row.command.split(' ').collect();
        let told = stderr(&output(&arguments, &log.config));
        assert!(told.contains("--reason <TEXT>"), "{}: {told}", row.command);
    }
    let long = "x".repeat(501);
    for reason in ["", "two\nlines", "\u{202e}reversed", &long] {
        let set = [
            "settings",
            "set",
            "acme",
            "retention.audit_days",
            "500",
            "--reason",
            reason,
        ];
        let told = stderr(&output(&set, &log.config));
        assert!(told.contains("/reason: must"), "{told}");
    }
}
