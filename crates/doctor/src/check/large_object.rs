//! Rows that are no table's.

use super::{Check, Verdict, count};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, quote};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "LOB001",
    title: "There are no large objects",
    why: "Large objects belong to roles and not to tenants; which tenant's one is, and who reads it, is not examined.",
    severity: Severity::Info,
    guards: false,
    look: no_large_objects,
}];

fn no_large_objects(subject: &Subject<'_>) -> Verdict {
    let server = &subject.catalogue.server;
    let number = server.large_objects.iter().map(|one| one.number).sum();
    let (state, everybody) = match server.lo_compat_privileges {
        true => ("on", "everybody may read and write them all"),
        false => ("off", "their owners and whom they granted them may read them"),
    };
    let examined = format!(
        "{}, lo_compat_privileges is {state}",
        count(number, "large object")
    );
    let database = Object::new("database", quote::identifier(&server.database));
    let finding = Finding::new(
        database,
        format!("{}: {everybody}", count(number, "large object")),
    );
    Verdict::of(examined, if number == 0 { Vec::new() } else { vec![finding] })
}
