//! What reads tenant tables and can itself be read.

use std::collections::BTreeSet;

use super::{Check, Verdict};
use crate::catalogue::{Kind, Relation};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "VIEW001",
        title: "Views over tenant tables read as whoever asks",
        why: "Without `security_invoker` a view reads with the rights and under the policies of its owner, who may see \
              every tenant's rows.",
        severity: Severity::Critical,
        guards: true,
        look: views_invoke,
    },
    Check {
        id: "VIEW002",
        title: "No materialized view holds rows of tenants",
        why: "It is a copy without row-level security, which cannot be had on one.",
        severity: Severity::Critical,
        guards: true,
        look: nothing_is_materialized,
    },
    Check {
        id: "VIEW003",
        title: "There are no foreign tables",
        why: "A foreign table cannot have row-level security, and is read there as one user for all tenants.",
        severity: Severity::Error,
        guards: false,
        look: nothing_is_foreign,
    },
    Check {
        id: "VIEW004",
        title: "No rule rewrites queries of a tenant table",
        why: "What a rule adds to a query runs with the rights and under the policies of the table's owner.",
        severity: Severity::Error,
        guards: true,
        look: no_rules,
    },
];

fn views_invoke(subject: &Subject<'_>) -> Verdict {
    let can_invoke = subject.catalogue.server.version_number >= 150_000;
    Verdict::of_each("view", of_kind(subject, Kind::View), |view| {
        let source = source(subject, view).filter(|_| !view.invoker)?;
        let (name, owner) = (view.sql_name(), quote::identifier(&view.owner));
        let found = format!("reads {} as its owner {owner}", source.sql_name());
        let sql = format!("ALTER VIEW {name} SET (security_invoker = true)");
        let finding = Finding::new(Object::new("view", name), found);
        Some(if can_invoke {
            finding.mend(Step::Code, [sql])
        } else {
            finding
        })
    })
}

fn nothing_is_materialized(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each(
        "materialized view",
        of_kind(subject, Kind::MaterializedView),
        |view| {
            let source = source(subject, view)?;
            let name = view.sql_name();
            let sql = format!("DROP MATERIALIZED VIEW {name}");
            let found = format!("holds rows of {}", source.sql_name());
            let finding = Finding::new(Object::new(view.kind.word(), name), found);
            Some(
                finding
                    .mend(Step::Code, [sql])
                    .caution("Whatever reads it has to read something else first."),
            )
        },
    )
}

fn nothing_is_foreign(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("foreign table", of_kind(subject, Kind::ForeignTable), |table| {
        let name = table.sql_name();
        let sql = format!("DROP FOREIGN TABLE {name}");
        let finding = Finding::new(Object::new(table.kind.word(), name), "has no row-level security");
        Some(
            finding
                .mend(Step::Code, [sql])
                .caution("Whatever uses it has to do without first."),
        )
    })
}

fn no_rules(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("rule", subject.catalogue.rules.iter(), |rule| {
        let table = subject.relation(rule.relation)?;
        let tenants = subject.is_tenant(table) || source(subject, table).is_some();
        let name = table.sql_name();
        let sql = format!("DROP RULE {} ON {name}", quote::identifier(&rule.name));
        let finding = Finding::new(
            Object::part("rule", &rule.name, &name),
            "acts as the owner of the table",
        );
        let why = "What it does has to be done by a trigger, or by the application, first.";
        tenants.then(|| finding.mend(Step::Code, [sql]).caution(why))
    })
}

fn of_kind<'a>(subject: &Subject<'a>, kind: Kind) -> impl Iterator<Item = &'a Relation> {
    subject
        .catalogue
        .relations
        .iter()
        .filter(move |relation| relation.kind == kind)
}

/// A tenant table that a view reads, itself or through other views.
fn source<'a>(subject: &Subject<'a>, view: &Relation) -> Option<&'a Relation> {
    let mut seen = BTreeSet::from([view.oid]);
    let mut open = vec![view.oid];
    while let Some(reader) = open.pop() {
        let reads = subject
            .catalogue
            .view_sources
            .iter()
            .filter(|source| source.view == reader);
        for read in reads.map(|source| source.reads) {
            if let Some(table) = subject
                .relation(read)
                .filter(|table| table.is_table() && subject.is_tenant(table))
            {
                return Some(table);
            }
            if seen.insert(read) {
                open.push(read);
            }
        }
    }
    None
}
