//! Logins that are not the application's.

use std::collections::BTreeSet;

use super::{Check, Verdict};
use crate::catalogue::{Membership, Relation, Role};
use crate::subject::{Subject, closure};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ROLE009",
        title: "No other login reads or writes the rows of all tenants",
        why: "No policy holds for a superuser, a role with BYPASSRLS, the files of the server or the owner of a table. A member \
              of the runtime role names any tenant, and a login with grants of its own reads tables that have no policy. A login \
              that is meant belongs on the list of allowed objects.",
        severity: Severity::Error,
        guards: true,
        look: |subject| logins(subject, Power::Present),
    },
    Check {
        id: "ROLE010",
        title: "No other login can get at the rows of all tenants",
        why: "With REPLICATION a login copies the whole cluster; with CREATEROLE or an admin option it joins other roles; the \
              owner of the database or a schema puts functions and settings before those that are meant.",
        severity: Severity::Warning,
        guards: true,
        look: |subject| logins(subject, Power::Possible),
    },
    Check {
        id: "ROLE011",
        title: "PostgreSQL's own roles are as initdb made them",
        why: "`pg_read_all_data`, `pg_execute_server_program` and their like are rights to be granted. One that can log in has \
              them without a member that a review would see.",
        severity: Severity::Critical,
        guards: true,
        look: predefined_are_unaltered,
    },
];

/// PostgreSQL's own roles that reach all rows or files.
const PREDEFINED: &[&str] = &[
    "pg_execute_server_program",
    "pg_read_all_data",
    "pg_read_server_files",
    "pg_write_all_data",
    "pg_write_server_files",
];

/// What a login can do to the rows of all tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    /// It reads or writes them.
    Present,
    /// It can give itself the right to.
    Possible,
}

/// The first superuser is left out: every cluster has one, and nobody can take its rights away. The application's roles have
/// checks of their own.
fn logins(subject: &Subject<'_>, power: Power) -> Verdict {
    let ours: Vec<&str> = subject.users.iter().copied().chain(subject.others()).collect();
    let is_ours = |name: &str| ours.contains(&name) || is_named_ours(subject, name);
    let all = subject.catalogue.roles.iter();
    let others = all.filter(|role| role.login && !role.initial && !is_ours(&role.name));
    Verdict::of_each("other login", others, |role| {
        let (found, sql): (Vec<String>, Vec<Vec<String>>) = reasons(subject, role, power).into_iter().unzip();
        let object = Object::new("role", quote::identifier(&role.name));
        if found.is_empty() || subject.allows(&object) {
            return None;
        }
        let (finding, sql) = (Finding::new(object, found.join(", ")), sql.concat());
        Some(match sql.is_empty() {
            true => finding,
            false => finding
                .mend(Step::Roles, sql)
                .caution("Who logs in as it has to do without; a login that is meant belongs on the list of allowed objects."),
        })
    })
}

/// A password without LOGIN opens nothing, and only superusers can read whether there is one.
fn predefined_are_unaltered(subject: &Subject<'_>) -> Verdict {
    let all = subject.catalogue.roles.iter();
    Verdict::of_each("role", all.filter(|role| role.predefined), |role| {
        let attributes = [
            ("LOGIN", "rolcanlogin", role.login),
            ("SUPERUSER", "rolsuper", role.superuser),
            ("BYPASSRLS", "rolbypassrls", role.bypasses),
            ("CREATEROLE", "rolcreaterole", role.makes_roles),
            ("CREATEDB", "rolcreatedb", role.makes_databases),
            ("REPLICATION", "rolreplication", role.replicates),
        ];
        let added = attributes.iter().filter(|(_, _, has)| *has);
        let (words, columns): (Vec<&str>, Vec<String>) = added
            .map(|(word, column, _)| (*word, format!("{column} = false")))
            .unzip();
        let object = Object::new("role", quote::identifier(&role.name));
        if words.is_empty() || subject.allows(&object) {
            return None;
        }
        let sql = format!(
            "UPDATE pg_catalog.pg_authid SET {} WHERE rolname = {}",
            columns.join(", "),
            quote::literal(&role.name)
        );
        let finding = Finding::new(object, format!("is {}", words.join(", "))).mend(Step::Roles, [sql]);
        Some(
            finding.caution(
                "It changes the system catalogue, as what altered the role did: ALTER ROLE refuses it.",
            ),
        )
    })
}

/// Whether it is a role of the application by its name: in a server the login that was given may be another one.
fn is_named_ours(subject: &Subject<'_>, name: &str) -> bool {
    subject.options.our_roles().any(|one| one == name)
}

fn is_runtime(subject: &Subject<'_>, name: &str) -> bool {
    subject.users.contains(&name) || subject.options.our_roles().next() == Some(name)
}

/// What gives a login that power, and the SQL that takes it away.
fn reasons(subject: &Subject<'_>, role: &Role, power: Power) -> Vec<(String, Vec<String>)> {
    let name = quote::identifier(&role.name);
    let words = attributes(role, power).into_iter().map(|word| {
        let sql = format!("ALTER ROLE {name} NO{word}");
        (format!("is {word}"), vec![sql])
    });
    let owned = owned(subject, &role.name).filter(|_| power == Power::Possible && !role.superuser);
    let owned = owned.map(|what| (format!("owns {what}"), Vec::new()));
    let all = subject.catalogue.memberships.iter();
    let own = all.filter(|membership| membership.member == role.name && !role.superuser);
    let memberships = own.filter_map(|membership| {
        let found = through(subject, membership, power)?;
        let sql = format!("REVOKE {} FROM {name}", quote::identifier(&membership.role));
        Some((found, vec![sql]))
    });
    let granted = (power == Power::Present && !role.superuser).then(|| granted(subject, &role.name));
    words
        .chain(owned)
        .chain(memberships)
        .chain(granted.into_iter().flatten())
        .collect()
}

/// What was granted on tables of tenants and global tables to a login or to roles that it can use, one entry for each of
/// those. Grants that are on the list of allowed objects, as CAT010 names them, are left out.
fn granted(subject: &Subject<'_>, login: &str) -> Vec<(String, Vec<String>)> {
    let reached = closure(subject.catalogue, &[login], Membership::is_usable);
    let foreign = reached.iter().filter(|name| present(subject, name).is_none());
    let tables: Vec<&Relation> = subject.all_with_tenant().chain(subject.global_tables()).collect();
    let of = |name: &&str| {
        let to = quote::identifier(name);
        let has = |table: &&&Relation| {
            let mut grants = table.grants.iter();
            let object = Object::new("other grant", format!("{to} on TABLE {}", table.sql_name()));
            grants.any(|grant| grant.grantee.as_deref() == Some(*name)) && !subject.allows_fact(&object)
        };
        let on: Vec<String> = tables.iter().filter(has).map(|table| table.sql_name()).collect();
        let (first, more) = (on.first()?, on.len() - 1);
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        let by = if *name == login {
            String::new()
        } else {
            format!(" through {to}")
        };
        let sql = on
            .iter()
            .map(|table| format!("REVOKE ALL ON TABLE {table} FROM {to}"));
        Some((format!("has grants on {first}{more}{by}"), sql.collect()))
    };
    foreign.filter_map(of).collect()
}

/// A superuser can do everything, of which nothing more is said.
fn attributes(role: &Role, power: Power) -> Vec<&'static str> {
    let words = match power {
        Power::Present => [
            ("SUPERUSER", role.superuser),
            ("BYPASSRLS", role.bypasses && !role.superuser),
        ],
        Power::Possible => [
            ("CREATEROLE", role.makes_roles && !role.superuser),
            ("REPLICATION", role.replicates && !role.superuser),
        ],
    };
    words
        .into_iter()
        .filter_map(|(word, has)| has.then_some(word))
        .collect()
}

/// To which powerful role a membership leads. With an admin option a member can take what it has in name only.
fn through(subject: &Subject<'_>, membership: &Membership, power: Power) -> Option<String> {
    let role = membership.role.as_str();
    let usable = match membership.is_usable() {
        true => closure(subject.catalogue, &[role], Membership::is_usable),
        false => BTreeSet::new(),
    };
    let reaches = |one: &Membership| one.is_usable() || one.admin;
    let reached = match (power, reaches(membership)) {
        (Power::Present, _) => usable.clone(),
        (Power::Possible, true) => closure(subject.catalogue, &[role], reaches),
        (Power::Possible, false) => BTreeSet::new(),
    };
    // What is more than the runtime role is said first.
    let greater = reached.iter().filter(|name| !is_runtime(subject, name));
    let found = greater.chain(&reached).find_map(|name| {
        let reason = match power {
            Power::Present => present(subject, name)?,
            Power::Possible if usable.contains(name) => possible(subject, name)?,
            Power::Possible => present(subject, name).or_else(|| possible(subject, name))?,
        };
        Some((*name, usable.contains(name), reason))
    });
    let (name, is_in, reason) = found?;
    let verb = if is_in { "is in" } else { "can join" };
    let by = match name == role {
        true => String::new(),
        false => format!(" through {}", quote::identifier(role)),
    };
    Some(format!("{verb} {}{by}, which {reason}", quote::identifier(name)))
}

/// Why a role has the rows of all tenants.
fn present(subject: &Subject<'_>, name: &str) -> Option<&'static str> {
    let role = subject.catalogue.roles.iter().find(|role| role.name == name)?;
    let is_worker = subject.workers().any(|worker| worker == name);
    match role {
        role if role.superuser => Some("is a superuser"),
        role if role.bypasses => Some("bypasses row-level security"),
        _ if PREDEFINED.contains(&name) => Some("reaches all rows or files"),
        _ if subject.keepers.contains(&name) => Some("owns the tables"),
        _ if owns_tables(subject, name) && !is_worker => Some("owns tables of tenants"),
        _ if subject.platform.contains(&name) => Some("is a platform role"),
        _ if is_runtime(subject, name) => Some("is the runtime role"),
        _ => None,
    }
}

/// Why a role can get them.
fn possible(subject: &Subject<'_>, name: &str) -> Option<&'static str> {
    let role = subject.catalogue.roles.iter().find(|role| role.name == name)?;
    match role {
        role if role.makes_roles => Some("makes roles"),
        role if role.replicates => Some("replicates"),
        role if owned(subject, &role.name).is_some() => Some("owns the database or a schema"),
        _ => None,
    }
}

/// The database or the schema of tenant tables that a role owns without owning such tables.
fn owned(subject: &Subject<'_>, name: &str) -> Option<String> {
    if subject.keepers.contains(&name) || owns_tables(subject, name) {
        return None;
    }
    let server = &subject.catalogue.server;
    if server.database_owner == name {
        return Some(format!("the database {}", quote::identifier(&server.database)));
    }
    let mut schemas = subject
        .catalogue
        .schemas
        .iter()
        .filter(|schema| schema.owner == name);
    let schema = schemas.find(|schema| subject.tenant_tables().any(|table| table.schema == schema.name))?;
    Some(format!("the schema {}", quote::identifier(&schema.name)))
}

fn owns_tables(subject: &Subject<'_>, name: &str) -> bool {
    subject.tenant_tables().any(|table| table.owner == name)
}
