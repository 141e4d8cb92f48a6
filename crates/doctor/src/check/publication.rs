//! What is sent elsewhere.

use super::{Check, Verdict};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "PUB001",
    title: "No publication sends rows of tenants",
    why: "A subscriber gets every tenant's rows and has no policies unless somebody made them there too.",
    severity: Severity::Warning,
    guards: false,
    look: nothing_is_published,
}];

fn nothing_is_published(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each(
        "published table",
        subject.catalogue.published.iter(),
        |published| {
            let mut tables = subject.all_with_tenant();
            let table =
                tables.find(|table| table.schema == published.schema && table.name == published.table)?;
            let (publication, name) = (quote::identifier(&published.publication), table.sql_name());
            let object = Object::new("publication", publication.clone());
            let finding = Finding::new(object, format!("sends {name}"));
            let why = "The subscriber stops getting the table's changes.";
            let sql = format!("ALTER PUBLICATION {publication} DROP TABLE {name}");
            // A table cannot be left out of a publication that is for all.
            Some(if published.all_tables {
                finding
            } else {
                finding.mend(Step::Code, [sql]).caution(why)
            })
        },
    )
}
