//! Unique keys and other indexes.

use super::{Check, Verdict};
use crate::catalogue::{Index, Relation};
use crate::options::listed;
use crate::subject::{Scope, Subject};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "KEY003",
        title: "Unique keys begin with the tenant",
        why: "Uniqueness is checked past row-level security: a key without the tenant tells one tenant what another has, \
              and lets it take a name from the other.",
        severity: Severity::Error,
        guards: false,
        look: unique_keys,
    },
    Check {
        id: "KEY004",
        title: "Every tenant table has an index led by the tenant",
        why: "Each query has the tenant in it, by policy; without such an index it reads the rows of all tenants, \
              and takes the longer the more others have.",
        severity: Severity::Error,
        guards: false,
        look: has_index,
    },
    Check {
        id: "KEY005",
        title: "Other indexes are led by the tenant",
        why: "An index by something else leads to rows of all tenants, of which the policy then drops most; how long \
              that takes tells of the others.",
        severity: Severity::Warning,
        guards: false,
        look: other_indexes,
    },
];

/// The indexes of tenant tables. The table of the tenants is left out: its keys are unique among all by design.
fn indexes<'a>(subject: &'a Subject<'a>) -> impl Iterator<Item = (&'a Index, &'a Relation)> {
    subject.catalogue.indexes.iter().filter_map(|index| {
        let table = subject.relation(index.relation)?;
        (!index.inherited && subject.scope(table) == Scope::Tenant).then_some((index, table))
    })
}

fn unique_keys(subject: &Subject<'_>) -> Verdict {
    let keys = indexes(subject).filter(|(index, _)| index.unique || index.excludes);
    Verdict::of_each("key", keys, |(index, table)| {
        let column = subject.column(table);
        let has = index.columns.iter().flatten().any(|one| one == column);
        let allowed = [index.known_as(), &index.name]
            .map(|name| listed(&subject.options.global_unique, &index.schema, name));
        if index.is_led_by(column) || (index.excludes && has) || allowed.contains(&true) {
            return None;
        }
        let found = if has {
            "has the tenant in it, but not first"
        } else {
            "is unique among all tenants"
        };
        let kind = if index.constraint.is_some() {
            "constraint"
        } else {
            "index"
        };
        let object = Object::part(kind, index.known_as(), &table.sql_name());
        let finding = Finding::new(object, found);
        // What takes the place of an exclusion depends on its operators, which are for its author to judge.
        if index.excludes {
            return Some(finding);
        }
        Some(finding.mend(Step::Keys, replacement(index, table, column)).caution(
            "It drops the old key: references to it, and ON CONFLICT clauses that name it, have to be changed first.",
        ))
    })
}

/// The statements that put a key with the tenant in front into the place of one without.
fn replacement(index: &Index, table: &Relation, column: &str) -> Vec<String> {
    let name = table.sql_name();
    let parts = parts(index, column);
    let Some(constraint) = &index.constraint else {
        let condition = condition(index);
        return vec![
            format!("CREATE UNIQUE INDEX ON {name} ({parts}){condition}"),
            format!("DROP INDEX {}", quote::qualified(&index.schema, &index.name)),
        ];
    };
    let drop = format!(
        "ALTER TABLE {name} DROP CONSTRAINT {}",
        quote::identifier(constraint)
    );
    if index.primary {
        vec![format!("{drop}, ADD PRIMARY KEY ({parts})")]
    } else {
        vec![format!("{drop}, ADD UNIQUE ({parts})")]
    }
}

/// What an index is by, with the tenant in front.
fn parts(index: &Index, column: &str) -> String {
    let column = quote::identifier(column);
    let old = index.parts.iter().flatten().filter(|part| **part != column);
    let all: Vec<&str> = std::iter::once(column.as_str())
        .chain(old.map(String::as_str))
        .collect();
    all.join(", ")
}

fn condition(index: &Index) -> String {
    index
        .condition
        .as_ref()
        .map(|condition| format!(" WHERE {condition}"))
        .unwrap_or_default()
}

fn has_index(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("tenant table", subject.tenant_tables(), |table| {
        let column = subject.column(table);
        if subject
            .indexes(table)
            .any(|index| index.valid && !index.partial && index.is_led_by(column))
        {
            return None;
        }
        let name = table.sql_name();
        let sql = format!("CREATE INDEX ON {name} ({})", quote::identifier(column));
        let found = "no index over all rows begins with the tenant";
        Some(Finding::new(Object::new("table", name), found).mend(Step::Keys, [sql]))
    })
}

/// Of B-trees only: what other methods are for (text search, documents, places) seldom goes with a tenant.
fn other_indexes(subject: &Subject<'_>) -> Verdict {
    let others =
        indexes(subject).filter(|(index, _)| !index.unique && !index.excludes && index.method == "btree");
    Verdict::of_each("index", others, |(index, table)| {
        let column = subject.column(table);
        if index.is_led_by(column) {
            return None;
        }
        let name = table.sql_name();
        let (parts, condition) = (parts(index, column), condition(index));
        let sql = [
            format!("CREATE INDEX ON {name} ({parts}){condition}"),
            format!("DROP INDEX {}", quote::qualified(&index.schema, &index.name)),
        ];
        let finding = Finding::new(
            Object::part("index", &index.name, &name),
            "does not begin with the tenant",
        );
        Some(
            finding
                .mend(Step::Keys, sql)
                .caution("It drops the old index, which some query may still want."),
        )
    })
}
