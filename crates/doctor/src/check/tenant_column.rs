//! The column that says whose a row is.

use super::{Check, Verdict};
use crate::catalogue::Relation;
use crate::subject::{Scope, Subject};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "TEN004",
        title: "The tenant column is NOT NULL",
        why: "A row without a tenant is nobody's: no policy matches it, and no composite key binds it.",
        severity: Severity::Error,
        guards: false,
        look: not_null,
    },
    Check {
        id: "TEN005",
        title: "The tenant column has the same type everywhere",
        why: "Where types differ a policy compares by a cast, so that no index helps, and no composite key can be made.",
        severity: Severity::Error,
        guards: false,
        look: one_type,
    },
    Check {
        id: "TEN006",
        title: "The tenant column refers to the table of tenants",
        why: "Rows of tenants that never were, or are gone, belong to whoever is given that id next.",
        severity: Severity::Error,
        guards: false,
        look: refers_to_tenants,
    },
];

fn not_null(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("tenant table", subject.tenant_tables(), |table| {
        let column = table.tenant.as_ref().filter(|column| !column.not_null)?;
        let (name, column) = (table.sql_name(), quote::identifier(&column.name));
        let sql = format!("ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL");
        let finding = Finding::new(Object::new("column", format!("{name}.{column}")), "can be NULL");
        Some(finding.mend(Step::Columns, [sql]))
    })
}

fn one_type(subject: &Subject<'_>) -> Verdict {
    let expected = subject.column_type();
    Verdict::of_each("tenant table", subject.tenant_tables(), |table| {
        let column = table
            .tenant
            .as_ref()
            .filter(|column| column.type_name != expected)?;
        let (name, found) = (table.sql_name(), &column.type_name);
        let column = quote::identifier(&column.name);
        let object = Object::new("column", format!("{name}.{column}"));
        let sql = format!(
            "ALTER TABLE {name} ALTER COLUMN {column} TYPE {expected} USING {column}::text::{expected}"
        );
        let finding = Finding::new(object, format!("is {found}, others are {expected}"));
        Some(finding.mend(Step::Columns, [sql]).caution(
            "It rewrites the table, and policies, views and keys that use the column have to be dropped first.",
        ))
    })
}

fn refers_to_tenants(subject: &Subject<'_>) -> Verdict {
    let Some(tenants) = subject.tenants() else {
        return Verdict::not_applicable(format!("there is no table {}", subject.options.tenants_table));
    };
    let others = subject
        .tenant_tables()
        .filter(|table| subject.scope(table) == Scope::Tenant);
    Verdict::of_each("tenant table", others, |table| {
        missing_reference(subject, table, tenants)
    })
}

fn missing_reference(subject: &Subject<'_>, table: &Relation, tenants: &Relation) -> Option<Finding> {
    let (column, id) = (subject.column(table), subject.column(tenants));
    let found = subject.catalogue.foreign_keys.iter().find(|key| {
        (key.from, key.to) == (table.oid, tenants.oid) && key.columns == [column] && key.to_columns == [id]
    });
    let (name, other) = (table.sql_name(), tenants.sql_name());
    let object = Object::new("column", format!("{name}.{}", quote::identifier(column)));
    match found {
        Some(key) if key.validated => None,
        Some(key) => {
            let key = quote::identifier(&key.name);
            let sql = format!("ALTER TABLE {name} VALIDATE CONSTRAINT {key}");
            let finding = Finding::new(
                object,
                format!("{key} was never validated: older rows may refer to nothing"),
            );
            Some(finding.mend(Step::Keys, [sql]))
        }
        None => {
            let (column, id) = (quote::identifier(column), quote::identifier(id));
            let sql = format!("ALTER TABLE {name} ADD FOREIGN KEY ({column}) REFERENCES {other} ({id})");
            let finding = Finding::new(object, format!("does not refer to {other} ({id})"));
            Some(if can_refer(subject, table, tenants) {
                finding.mend(Step::Keys, [sql])
            } else {
                finding
            })
        }
    }
}

/// A reference needs the same type on both sides, and a key to refer to.
fn can_refer(subject: &Subject<'_>, table: &Relation, tenants: &Relation) -> bool {
    let id = subject.column(tenants);
    let mut keys = subject.indexes(tenants);
    let has_key = keys.any(|key| key.unique && !key.partial && key.columns.len() == 1 && key.is_led_by(id));
    has_key && same_type(table, tenants)
}

/// Whether two tables' tenant columns can be compared without a cast.
pub(super) fn same_type(one: &Relation, other: &Relation) -> bool {
    let type_of = |table: &Relation| table.tenant.as_ref().map(|column| column.type_name.clone());
    type_of(one) == type_of(other)
}
