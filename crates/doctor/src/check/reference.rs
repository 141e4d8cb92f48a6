//! References between tables.

use super::tenant_column::same_type;
use super::{Check, Verdict};
use crate::catalogue::{ForeignKey, Relation};
use crate::subject::{Scope, Subject};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "KEY001",
        title: "References between tenant tables carry the tenant",
        why: "Foreign keys are checked past row-level security: a simple one lets a row refer to another tenant's, \
              and tells whether an id exists there.",
        severity: Severity::Error,
        guards: false,
        look: references_are_composite,
    },
    Check {
        id: "KEY002",
        title: "No global table refers to a tenant table",
        why: "What refers to a tenant's row is about that tenant, and is itself without row-level security.",
        severity: Severity::Warning,
        guards: false,
        look: no_reference_from_outside,
    },
];

fn references_are_composite(subject: &Subject<'_>) -> Verdict {
    let keys = subject.catalogue.foreign_keys.iter().filter_map(|key| {
        let (from, to) = (subject.relation(key.from)?, subject.relation(key.to)?);
        // What refers to the tenants themselves says who is one, and nothing of what they have.
        let between = subject.is_tenant(from) && subject.scope(to) == Scope::Tenant;
        between.then_some((key, from, to))
    });
    Verdict::of_each("reference", keys, |(key, from, to)| {
        let carries = |key: &ForeignKey| {
            key.pairs()
                .any(|pair| pair == (subject.column(from), subject.column(to)))
        };
        if carries(key) {
            return None;
        }
        // A simple reference does no harm beside a composite one of the same columns: both have to hold.
        let covered = subject.catalogue.foreign_keys.iter().any(|other| {
            let same = (other.from, other.to) == (key.from, key.to) && carries(other);
            same && key
                .pairs()
                .all(|pair| is_tenants(subject, pair, from, to) || other.pairs().any(|one| one == pair))
        });
        (!covered).then(|| simple_reference(subject, key, from, to))
    })
}

/// Whether the pair is about the tenant on one side at least, so that a composite key takes its place.
fn is_tenants(subject: &Subject<'_>, pair: (&str, &str), from: &Relation, to: &Relation) -> bool {
    pair.0 == subject.column(from) || pair.1 == subject.column(to)
}

fn simple_reference(subject: &Subject<'_>, key: &ForeignKey, from: &Relation, to: &Relation) -> Finding {
    let (name, other) = (from.sql_name(), to.sql_name());
    let found = format!("refers to {other} without the tenant in the same place on both sides");
    let finding = Finding::new(Object::part("constraint", &key.name, &name), found);
    // Where the tenant is on one side only it cannot be told which column was meant to be what.
    if key.pairs().any(|pair| is_tenants(subject, pair, from, to)) || !same_type(from, to) {
        return finding;
    }
    let mine = with_tenant(subject.column(from), &key.columns);
    let theirs = with_tenant(subject.column(to), &key.to_columns);
    let mut sql = Vec::new();
    if !has_unique_key(subject, to, &key.to_columns) {
        sql.push(format!("ALTER TABLE {other} ADD UNIQUE ({theirs})"));
    }
    let actions = actions(subject, key);
    sql.push(format!(
        "ALTER TABLE {name} ADD FOREIGN KEY ({mine}) REFERENCES {other} ({theirs}){actions}"
    ));
    finding.mend(Step::Keys, sql)
}

fn with_tenant(tenant: &str, columns: &[String]) -> String {
    let all: Vec<String> = std::iter::once(tenant)
        .chain(columns.iter().map(String::as_str))
        .map(quote::identifier)
        .collect();
    all.join(", ")
}

/// Whether a reference to the tenant column and those others has a key to refer to.
fn has_unique_key(subject: &Subject<'_>, to: &Relation, others: &[String]) -> bool {
    let wanted = |column: &str| column == subject.column(to) || others.iter().any(|other| other == column);
    subject.indexes(to).any(|index| {
        let whole = index.unique && index.valid && !index.partial;
        let exact = index
            .columns
            .iter()
            .all(|column| column.as_deref().is_some_and(wanted));
        whole && exact && index.columns.len() == others.len() + 1
    })
}

/// What the old reference does on deletion the new one does too, and never by taking the tenant from a row.
fn actions(subject: &Subject<'_>, key: &ForeignKey) -> String {
    let list: Vec<String> = key
        .columns
        .iter()
        .map(|column| quote::identifier(column))
        .collect();
    let can_name_columns = subject.catalogue.server.version_number >= 150_000;
    let on_delete = match key.on_delete {
        'r' => " ON DELETE RESTRICT".to_owned(),
        'c' => " ON DELETE CASCADE".to_owned(),
        'n' if can_name_columns => format!(" ON DELETE SET NULL ({})", list.join(", ")),
        'd' if can_name_columns => format!(" ON DELETE SET DEFAULT ({})", list.join(", ")),
        _ => String::new(),
    };
    let on_update = if key.on_update == 'c' {
        " ON UPDATE CASCADE"
    } else {
        ""
    };
    on_delete + on_update
}

fn no_reference_from_outside(subject: &Subject<'_>) -> Verdict {
    let keys = subject.catalogue.foreign_keys.iter().filter_map(|key| {
        let (from, to) = (subject.relation(key.from)?, subject.relation(key.to)?);
        (subject.scope(from) == Scope::Global).then_some((key, from, to))
    });
    Verdict::of_each("reference", keys, |(key, from, to)| {
        let object = Object::part("constraint", &key.name, &from.sql_name());
        let finding = Finding::new(object, format!("refers to rows of {}", to.sql_name()));
        (subject.scope(to) == Scope::Tenant).then_some(finding)
    })
}

impl ForeignKey {
    /// Each column with the one it refers to.
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns
            .iter()
            .zip(&self.to_columns)
            .map(|(from, to)| (from.as_str(), to.as_str()))
    }
}
