//! What each command leaves in the log of operators. The table in docs/operators.md is printed from here.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _};
use tenantry_domain::audit::Risk;

use crate::Cli;

/// Whether a command changes anything, and its record.
enum Kind {
    /// It changes nothing. Where it reads rows of tenants, it has a record all the same.
    Reads(&'static [&'static str]),
    /// It changes something, or takes rows out, on record.
    Writes(&'static [&'static str]),
    /// It changes something without a record, for this reason.
    Excused(&'static str),
}

use Kind::{Excused, Reads, Writes};

/// Every command that has none below it, with the actions of its successful runs.
const COMMANDS: &[(&str, Kind)] = &[
    ("audit verify", Reads(&[])),
    (
        "billing customers",
        Writes(&["billing.customer_replaced", "billing.customers_checked"]),
    ),
    ("billing events", Writes(&["billing.events_fetched"])),
    ("billing publish", Writes(&["billing.usage_published"])),
    ("billing reconcile", Reads(&["billing.drift_reported"])),
    ("dev", Excused("it is a demo on this machine")),
    ("doctor", Reads(&[])),
    ("events rewind", Writes(&["event_export.rewound"])),
    ("export verify", Reads(&[])),
    ("flags history", Reads(&[])),
    ("flags list", Reads(&[])),
    ("flags rollback", Writes(&["flag.rolled_back"])),
    ("flags show", Reads(&[])),
    ("jobs cancel", Writes(&["job.cancelled"])),
    ("jobs list", Reads(&[])),
    ("jobs replay", Writes(&["job.replayed"])),
    ("keys check", Reads(&[])),
    ("keys list", Reads(&[])),
    (
        "keys rotate",
        Writes(&["data_key.rotated", "signing_key.created"]),
    ),
    ("mail test", Excused("it sends one mail, and needs no database")),
    (
        "migrate",
        Excused("it makes the log itself, as the owner of the tables; the applied migrations are stored"),
    ),
    ("openapi", Reads(&[])),
    ("operator activate", Writes(&["operator.activated"])),
    ("operator create", Writes(&["operator.created"])),
    ("operator deactivate", Writes(&["operator.deactivated"])),
    ("operator list", Reads(&[])),
    ("operator reset-mfa", Writes(&["operator.mfa_reset"])),
    ("operator reset-password", Writes(&["operator.password_reset"])),
    ("operator set-role", Writes(&["operator.updated"])),
    ("plan agree", Writes(&["tenant.agreed"])),
    ("plan change", Writes(&["tenant.plan_changed"])),
    ("plan list", Reads(&[])),
    ("plan upgrade", Writes(&["tenant.plan_changed"])),
    ("quota correct", Writes(&["quota.corrected"])),
    ("quota reconcile", Writes(&["quota.repaired"])),
    (
        "serve",
        Excused("it is the server; what operators do there is on record"),
    ),
    ("settings rotate-keys", Writes(&["secrets.resealed"])),
    ("settings set", Writes(&["settings.updated"])),
    ("settings show", Reads(&["settings.read"])),
    ("tenant create", Writes(&["tenant.created"])),
    ("tenant delete", Writes(&["tenant.deleted"])),
    ("tenant diff", Reads(&["tenant.archive_compared"])),
    ("tenant export", Writes(&["tenant.exported"])),
    (
        "tenant import",
        Writes(&["tenant.archive_restored", "tenant.imported"]),
    ),
    ("tenant list", Reads(&[])),
    ("tenant purge", Writes(&["tenant.purge_begun"])),
    ("tenant restore", Writes(&["tenant.restore_begun"])),
    ("tenant resume", Writes(&["tenant.resumed"])),
    ("tenant suspend", Writes(&["tenant.suspended"])),
    ("tombstones apply", Writes(&["tenant.purge_begun"])),
    ("tombstones list", Reads(&[])),
    ("user correct-email", Writes(&["user.email_corrected"])),
    ("user erase", Writes(&["user.erased"])),
    ("user export", Writes(&["user.exported"])),
    ("user import", Writes(&["users.imported"])),
    ("user reset-mfa", Writes(&["mfa.reset"])),
];

/// The risk of each action above, without what its details add: an owner, or a setting of security. High are more rights, weaker
/// protection, new credentials and loss of data, as docs/audit.md says.
const RISKS: &[(&str, Risk)] = &[
    ("billing.customer_replaced", Risk::Medium),
    ("billing.customers_checked", Risk::Medium),
    ("billing.drift_reported", Risk::Medium),
    ("billing.events_fetched", Risk::Medium),
    ("billing.usage_published", Risk::Medium),
    ("data_key.rotated", Risk::High),
    ("event_export.rewound", Risk::Medium),
    ("flag.rolled_back", Risk::Medium),
    ("job.cancelled", Risk::Medium),
    ("job.replayed", Risk::Medium),
    ("mfa.reset", Risk::High),
    ("operator.activated", Risk::High),
    ("operator.created", Risk::High),
    ("operator.deactivated", Risk::High),
    ("operator.mfa_reset", Risk::High),
    ("operator.password_reset", Risk::High),
    ("operator.updated", Risk::Medium),
    ("quota.corrected", Risk::High),
    ("quota.repaired", Risk::Medium),
    ("secrets.resealed", Risk::High),
    ("settings.read", Risk::Medium),
    ("settings.updated", Risk::Medium),
    ("signing_key.created", Risk::High),
    ("tenant.agreed", Risk::Medium),
    ("tenant.archive_compared", Risk::Medium),
    ("tenant.archive_restored", Risk::High),
    ("tenant.created", Risk::Medium),
    ("tenant.deleted", Risk::High),
    ("tenant.exported", Risk::High),
    ("tenant.imported", Risk::High),
    ("tenant.plan_changed", Risk::High),
    ("tenant.purge_begun", Risk::High),
    ("tenant.restore_begun", Risk::High),
    ("tenant.resumed", Risk::Medium),
    ("tenant.suspended", Risk::High),
    ("user.email_corrected", Risk::High),
    ("user.erased", Risk::High),
    ("user.exported", Risk::High),
    ("users.imported", Risk::High),
];

/// The commands that have none below them, with their full names.
fn leaves(command: &Command, above: &str, found: &mut Vec<(String, Command)>) {
    for below in command.get_subcommands().filter(|it| it.get_name() != "help") {
        let name = format!("{above} {}", below.get_name());
        if below.has_subcommands() {
            leaves(below, &name, found);
        } else {
            found.push((name.trim().to_owned(), below.clone()));
        }
    }
}

/// Whether the command takes a reason: not at all, if one is given, or always.
fn reason(command: &Command) -> &'static str {
    let found = command.get_arguments().find(|it| it.get_id() == "reason");
    match found {
        None => "",
        // With `--dry-run` nothing is changed.
        Some(reason) if reason.is_required_set() || command.get_name() == "upgrade" => "mandatory",
        Some(_) => "optional",
    }
}

/// A command that changes something cannot be added without its record and its reason.
#[test]
fn every_command_is_in_the_table_and_writing_ones_take_a_reason() {
    let mut found = Vec::new();
    leaves(&Cli::command(), "", &mut found);
    let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let listed: BTreeSet<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names, listed,
        "list each command in COMMANDS, with what it records"
    );
    for (name, kind) in COMMANDS {
        let (_, command) = found.iter().find(|(found, _)| found == name).unwrap();
        let takes_one = !reason(command).is_empty();
        match kind {
            Writes(actions) => assert!(takes_one && !actions.is_empty(), "{name} needs --reason"),
            Excused(why) => assert!(!takes_one && !why.is_empty(), "{name}"),
            Reads(actions) => assert!(!takes_one || !actions.is_empty(), "{name} changes nothing"),
        }
    }
}

/// A new action needs a line in `RISKS`.
#[test]
fn every_record_of_a_command_has_a_decided_risk() {
    let actions = COMMANDS.iter().flat_map(|(_, kind)| match kind {
        Writes(actions) | Reads(actions) => *actions,
        Excused(_) => &[],
    });
    let recorded: BTreeSet<&str> = actions.copied().collect();
    let decided: BTreeSet<&str> = RISKS.iter().map(|(action, _)| *action).collect();
    assert_eq!(recorded, decided, "list each action in RISKS, with its risk");
    for (action, risk) in RISKS {
        assert_eq!(Risk::of(action, None), *risk, "{action}");
    }
}

/// The test `cli::records` runs the commands of this table and looks for their records.
#[test]
fn commands_and_their_records_are_printed_into_the_docs() {
    let mut found = Vec::new();
    leaves(&Cli::command(), "", &mut found);
    let mut table = "| Command | Record | `--reason` |\n| --- | --- | --- |\n".to_owned();
    for (name, kind) in COMMANDS {
        let (Writes(actions) | Reads(actions)) = kind else {
            continue;
        };
        if actions.is_empty() {
            continue;
        }
        let (_, command) = found.iter().find(|(found, _)| found == name).unwrap();
        let actions: Vec<_> = actions.iter().map(|action| format!("`{action}`")).collect();
        table += &format!(
            "| `tenantry {name}` | {} | {} |\n",
            actions.join(", "),
            reason(command)
        );
    }
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operators.md"));
    assert!(
        docs.unwrap().contains(&table),
        "docs/operators.md lacks:\n{table}"
    );
}
