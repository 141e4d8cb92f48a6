//! Which roles the roles of the application are in.

use super::{Check, Verdict};
use crate::catalogue::Membership;
use crate::subject::{Subject, closure};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ROLE007",
        title: "The runtime role and the platform roles are in no role that is more than they",
        why: "Whoever is in a role can become it by SET ROLE, and is then as free as that one.",
        severity: Severity::Critical,
        guards: true,
        look: in_no_greater_role,
    },
    Check {
        id: "ROLE008",
        title: "No role of the application is in one of PostgreSQL's own roles that see everything",
        why: "They read or write tables, files or other sessions' statements without regard to tenants.",
        severity: Severity::Error,
        guards: true,
        look: in_no_predefined_role,
    },
];

/// Those of PostgreSQL's own roles that are about more than the state of the server.
const PREDEFINED: &[&str] = &[
    "pg_create_subscription",
    "pg_execute_server_program",
    "pg_maintain",
    "pg_read_all_data",
    "pg_read_all_stats",
    "pg_read_server_files",
    "pg_signal_backend",
    "pg_stat_scan_tables",
    "pg_write_all_data",
    "pg_write_server_files",
];

fn in_no_greater_role(subject: &Subject<'_>) -> Verdict {
    // The owner is in the others by design, for data migrations.
    let workers: Vec<&str> = subject.workers().collect();
    memberships(subject, &workers, |name| subject.greatness(name))
}

fn in_no_predefined_role(subject: &Subject<'_>) -> Verdict {
    let ours: Vec<&str> = subject.users.iter().copied().chain(subject.others()).collect();
    memberships(subject, &ours, |name| {
        PREDEFINED.contains(&name).then_some("is PostgreSQL's own")
    })
}

/// The memberships of those roles themselves that lead to a role about which there is something to say.
fn memberships(
    subject: &Subject<'_>,
    roles: &[&str],
    reason: impl Fn(&str) -> Option<&'static str>,
) -> Verdict {
    let all = subject.catalogue.memberships.iter();
    // What the owner has through one of the others is reported of that one.
    let by_design = |membership: &&Membership| {
        let (role, member) = (membership.role.as_str(), membership.member.as_str());
        subject.keepers.contains(&member) && subject.workers().any(|worker| worker == role)
    };
    let own = all
        .filter(|membership| roles.contains(&membership.member.as_str()))
        .filter(|membership| !by_design(membership));
    Verdict::of_each("membership", own, |Membership { role, member, .. }| {
        let reached = closure(subject.catalogue, &[role.as_str()], |_| true);
        let found = reached
            .iter()
            .filter(|name| **name != member && !subject.users.contains(*name))
            .find_map(|name| {
                let name_in_sql = quote::identifier(name);
                let through = if name == role {
                    String::new()
                } else {
                    format!(" through {}", quote::identifier(role))
                };
                Some(format!("is in {name_in_sql}{through}, which {}", reason(name)?))
            })?;
        let (role, member) = (quote::identifier(role), quote::identifier(member));
        let sql = format!("REVOKE {role} FROM {member}");
        Some(Finding::new(Object::new("role", member), found).mend(Step::Roles, [sql]))
    })
}
