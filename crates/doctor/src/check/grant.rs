//! What the runtime role and the platform roles were granted.

use super::{Check, Verdict, count};
use crate::catalogue::{Grant, Kind, Relation};
use crate::subject::{Subject, grantee};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "GRANT001",
        title: "The runtime role and the platform roles create nothing",
        why: "What it creates it owns, and a function or table of its own can take the place of one that others use.",
        severity: Severity::Error,
        guards: true,
        look: creates_nothing,
    },
    Check {
        id: "GRANT002",
        title: "The runtime role and the platform roles make no temporary tables",
        why: "A temporary table comes before all others in a search_path, and outlives the transaction of its tenant on \
              a shared connection.",
        severity: Severity::Warning,
        guards: true,
        look: no_temporary_tables,
    },
    Check {
        id: "GRANT003",
        title: "Neither the runtime role nor a platform role has TRUNCATE, REFERENCES, TRIGGER or MAINTAIN on tenant tables",
        why: "TRUNCATE takes every tenant's rows without asking a policy; the others let it put keys and code on a table.",
        severity: Severity::Critical,
        guards: true,
        look: no_more_than_rows,
    },
    Check {
        id: "GRANT004",
        title: "The runtime role does not write to global tables",
        why: "What one tenant can write and another can read is a channel between them.",
        severity: Severity::Warning,
        guards: false,
        look: global_tables_are_read_only,
    },
    Check {
        id: "GRANT005",
        title: "The runtime role uses no sequences",
        why: "Numbers that all tenants share tell each how much the others do.",
        severity: Severity::Info,
        guards: false,
        look: no_sequences,
    },
];

fn creates_nothing(subject: &Subject<'_>) -> Verdict {
    let server = &subject.catalogue.server;
    let database = ("database", server.database.as_str(), &server.database_grants);
    let schemas = subject.catalogue.schemas.iter();
    let schemas = schemas.map(|schema| ("schema", schema.name.as_str(), &schema.grants));
    Verdict::of_each("place", schemas.chain([database]), |(kind, name, grants)| {
        let name = quote::identifier(name);
        let on = format!("{} {name}", kind.to_uppercase());
        revoke(Object::new(kind, name), &on, grants, |grant| {
            grant.privilege == "CREATE" && subject.any_holds(grant.grantee.as_deref())
        })
    })
}

fn no_temporary_tables(subject: &Subject<'_>) -> Verdict {
    let server = &subject.catalogue.server;
    let name = quote::identifier(&server.database);
    let on = format!("DATABASE {name}");
    let finding = revoke(
        Object::new("database", name),
        &on,
        &server.database_grants,
        |grant| grant.privilege == "TEMPORARY" && subject.any_holds(grant.grantee.as_deref()),
    );
    Verdict::of("1 database", finding.into_iter().collect())
}

fn no_more_than_rows(subject: &Subject<'_>) -> Verdict {
    const TOO_MUCH: &[&str] = &["TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"];
    Verdict::of_each("table", subject.all_with_tenant(), |table| {
        on_table(table, |grant| {
            TOO_MUCH.contains(&grant.privilege.as_str()) && subject.any_holds(grant.grantee.as_deref())
        })
    })
}

fn global_tables_are_read_only(subject: &Subject<'_>) -> Verdict {
    const WRITING: &[&str] = &["INSERT", "UPDATE", "DELETE", "TRUNCATE"];
    Verdict::of_each("global table", subject.global_tables(), |table| {
        let writes = |grant: &Grant| WRITING.contains(&grant.privilege.as_str()) && subject.holds(grant);
        let finding = on_table(table, writes).filter(|_| !table.enabled)?;
        Some(
            finding
                .caution("The application may have a reason to write there, which then belongs on record."),
        )
    })
}

fn no_sequences(subject: &Subject<'_>) -> Verdict {
    let all = subject.catalogue.relations.iter();
    let sequences = all.filter(|relation| relation.kind == Kind::Sequence && relation.extension.is_none());
    Verdict::of_each("sequence", sequences, |sequence| {
        let held = sequence.grants.iter().filter(|grant| subject.holds(grant));
        let grantees: Vec<String> = held.map(|grant| grantee(grant.grantee.as_deref())).collect();
        let object = Object::new("sequence", sequence.sql_name());
        (!grantees.is_empty()).then(|| Finding::new(object, format!("{} may use it", unique(grantees))))
    })
}

fn on_table(table: &Relation, is_bad: impl Fn(&Grant) -> bool) -> Option<Finding> {
    let name = table.sql_name();
    let on = format!("TABLE {name}");
    revoke(Object::new("table", name), &on, &table.grants, is_bad)
}

/// A finding about the bad ones of the grants, with the SQL that takes them away.
fn revoke(object: Object, on: &str, grants: &[Grant], is_bad: impl Fn(&Grant) -> bool) -> Option<Finding> {
    let bad = grants.iter().filter(|grant| is_bad(grant));
    let (found, sql): (Vec<String>, Vec<String>) = bad.map(|grant| revocation(grant, on)).unzip();
    (!sql.is_empty()).then(|| Finding::new(object, found.join(", ")).mend(Step::Grants, sql))
}

/// What a grant says, and the SQL that takes it back.
pub(super) fn revocation(grant: &Grant, on: &str) -> (String, String) {
    taken_back(
        &grant.privilege,
        grant.column.as_deref(),
        grant.grantee.as_deref(),
        on,
    )
}

/// What is granted to whom, of a column or of all, and the SQL that takes it back.
pub(super) fn taken_back(
    privilege: &str,
    column: Option<&str>,
    to: Option<&str>,
    on: &str,
) -> (String, String) {
    let column = column.map(|column| format!(" ({})", quote::identifier(column)));
    let (column, to) = (column.unwrap_or_default(), grantee(to));
    (
        format!("{to} has {privilege}{column}"),
        format!("REVOKE {privilege}{column} ON {on} FROM {to}"),
    )
}

fn unique(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    names.join(" and ")
}

/// How many objects a check of everything looked at.
pub(super) fn examined(subject: &Subject<'_>) -> String {
    count(subject.catalogue.relations.len(), "relation")
}
