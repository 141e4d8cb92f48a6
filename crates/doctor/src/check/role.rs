//! What the roles of the application are.

use super::{Check, Verdict};
use crate::catalogue::Role;
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ROLE001",
        title: "No role of the application is a superuser",
        why: "No policy and no grant holds for a superuser.",
        severity: Severity::Critical,
        guards: true,
        look: no_superuser,
    },
    Check {
        id: "ROLE002",
        title: "No role of the application bypasses row-level security",
        why: "With BYPASSRLS every policy means nothing.",
        severity: Severity::Critical,
        guards: true,
        look: no_bypass,
    },
    Check {
        id: "ROLE003",
        title: "No role of the application makes roles",
        why: "With CREATEROLE it can join other roles, before PostgreSQL 16 nearly any.",
        severity: Severity::Critical,
        guards: true,
        look: no_roles,
    },
    Check {
        id: "ROLE004",
        title: "No role of the application replicates",
        why: "With REPLICATION it can copy the whole cluster, every tenant's rows included.",
        severity: Severity::Critical,
        guards: true,
        look: no_replication,
    },
    Check {
        id: "ROLE005",
        title: "No role of the application makes databases",
        why: "In a database of its own it may do anything, copying another as a template included.",
        severity: Severity::Warning,
        guards: false,
        look: no_databases,
    },
];

fn no_superuser(subject: &Subject<'_>) -> Verdict {
    // The last superuser of a server may be this one, and it may own the whole database.
    attribute(
        subject,
        "SUPERUSER",
        |role| role.superuser,
        Some("Make a role of its own for the application instead."),
    )
}

fn no_bypass(subject: &Subject<'_>) -> Verdict {
    attribute(
        subject,
        "BYPASSRLS",
        |role| role.bypasses && !role.superuser,
        None,
    )
}

fn no_roles(subject: &Subject<'_>) -> Verdict {
    attribute(
        subject,
        "CREATEROLE",
        |role| role.makes_roles && !role.superuser,
        None,
    )
}

fn no_replication(subject: &Subject<'_>) -> Verdict {
    attribute(
        subject,
        "REPLICATION",
        |role| role.replicates && !role.superuser,
        None,
    )
}

fn no_databases(subject: &Subject<'_>) -> Verdict {
    attribute(
        subject,
        "CREATEDB",
        |role| role.makes_databases && !role.superuser,
        None,
    )
}

fn attribute(
    subject: &Subject<'_>,
    word: &str,
    has: impl Fn(&Role) -> bool,
    caution: Option<&str>,
) -> Verdict {
    let ours: Vec<&str> = subject.users.iter().copied().chain(subject.others()).collect();
    let all = subject.catalogue.roles.iter();
    let roles = all.filter(|role| ours.contains(&role.name.as_str()));
    Verdict::of_each("role", roles, |role| {
        let name = quote::identifier(&role.name);
        let sql = format!("ALTER ROLE {name} NO{word}");
        let finding = Finding::new(Object::new("role", name), format!("is {word}")).mend(Step::Roles, [sql]);
        has(role).then(|| match caution {
            Some(why) => finding.caution(why),
            None => finding,
        })
    })
}
