//! Which tables are whose.

use super::{Check, Verdict, count};
use crate::options::names;
use crate::subject::{Scope, Subject};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "TEN001",
        title: "There are tables of tenants",
        why: "Where no table has the tenant column, every other check passes without having looked at anything.",
        severity: Severity::Critical,
        guards: true,
        look: any_tenant_table,
    },
    Check {
        id: "TEN002",
        title: "Every table is a tenant's or on the list of global tables",
        why: "A table that was forgotten has no row-level security: each tenant reads all of it.",
        severity: Severity::Critical,
        guards: true,
        look: every_table_is_known,
    },
    Check {
        id: "TEN003",
        title: "The list of global tables is true",
        why: "An entry without a table waits for one of that name and lets it pass unseen.",
        severity: Severity::Warning,
        guards: false,
        look: list_is_true,
    },
];

fn any_tenant_table(subject: &Subject<'_>) -> Verdict {
    // The table of the tenants has no tenant column and proves nothing about the others.
    let number = subject
        .tenant_tables()
        .filter(|table| subject.scope(table) == Scope::Tenant)
        .count();
    let database = Object::new("database", quote::identifier(&subject.catalogue.server.database));
    let column = quote::identifier(&subject.options.tenant_column);
    let finding = Finding::new(database, format!("no table has a column {column}"));
    let tenants = subject
        .tenants()
        .map(|table| format!(" besides {}", table.sql_name()));
    Verdict::of(
        count(number, "tenant table") + &tenants.unwrap_or_default(),
        if number == 0 { vec![finding] } else { Vec::new() },
    )
}

fn every_table_is_known(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("table", subject.tables(), |table| {
        if subject.scope(table) != Scope::Unlisted {
            return None;
        }
        let name = table.sql_name();
        let column = quote::identifier(&subject.options.tenant_column);
        let sql = format!(
            "ALTER TABLE {name} ADD COLUMN {column} {} NOT NULL",
            subject.column_type()
        );
        let object = Object::new("table", &name);
        let finding = Finding::new(
            object,
            format!("no column {column}, and not on the list of global tables"),
        );
        Some(finding.mend(Step::Columns, [sql]).caution(
            "Rows that are there already need a tenant first; a table that is nobody's belongs on the list instead.",
        ))
    })
}

fn list_is_true(subject: &Subject<'_>) -> Verdict {
    let entries = &subject.options.global_tables;
    let examined_as_tenants = subject.tenants().filter(|tenants| {
        let meant = |entry: &String| names(entry, &tenants.schema, &tenants.name);
        entries.iter().any(meant)
    });
    let note = examined_as_tenants
        .map(|tenants| format!(", of which {} is examined as a tenant table", tenants.sql_name()));
    let findings = entries.iter().filter_map(|entry| {
        let mut found = subject
            .tables()
            .filter(|table| names(entry, &table.schema, &table.name))
            .peekable();
        let problem = if found.peek().is_none() {
            "there is no such table"
        } else if found.any(|table| subject.scope(table) == Scope::Tenant) {
            "the table has the tenant column, so it is examined as a tenant's"
        } else {
            return None;
        };
        Some(Finding::new(Object::new("list entry", entry), problem))
    });
    let examined = count(entries.len(), "entry") + &note.unwrap_or_default();
    Verdict::of(examined, findings.collect())
}
