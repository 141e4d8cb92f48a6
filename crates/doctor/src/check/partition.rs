//! Tables that are parts of tenant tables.

use super::{Check, Verdict};
use crate::catalogue::Relation;
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "RLS009",
        title: "Partitions are covered like their parents",
        why: "The policies of a parent hold for queries of the parent; a partition that is named itself has only its own.",
        severity: Severity::Critical,
        guards: true,
        look: partitions,
    },
    Check {
        id: "RLS010",
        title: "Inheritance children are covered like their parents",
        why: "A child that is named itself has only its own policies, and is read through its parent under the parent's.",
        severity: Severity::Critical,
        guards: true,
        look: children,
    },
];

fn partitions(subject: &Subject<'_>) -> Verdict {
    let partitions = subject.all_with_tenant().filter(|table| table.partition);
    Verdict::of_each("partition", partitions, |table| uncovered("partition", table))
}

fn children(subject: &Subject<'_>) -> Verdict {
    let children = subject.tenant_tables().filter(|table| !table.parents.is_empty());
    Verdict::of_each("child", children, |table| match subject.tenant_parent(table) {
        Some(_) => uncovered("child", table),
        None => Some(Finding::new(
            Object::new("table", table.sql_name()),
            "is a child of a table without the tenant column, through which it is read past its policies",
        )),
    })
}

/// With row-level security and no policy of its own nobody can use it but through its parent, which is well.
fn uncovered(kind: &'static str, table: &Relation) -> Option<Finding> {
    let name = table.sql_name();
    let found = match (table.enabled, table.forced) {
        (true, true) => return None,
        (true, false) => "row-level security is not forced",
        (false, _) => "row-level security is not enabled and forced",
    };
    let sql = ["ENABLE", "FORCE"].map(|word| format!("ALTER TABLE {name} {word} ROW LEVEL SECURITY"));
    Some(Finding::new(Object::new(kind, name), found).mend(Step::RowSecurity, sql))
}
