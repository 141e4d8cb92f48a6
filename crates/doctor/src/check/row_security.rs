//! Whether row-level security is on.

use super::{Check, Verdict};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "RLS001",
        title: "Row-level security is enabled on every tenant table",
        why: "Until it is enabled, policies are not looked at: a query without the tenant reads every tenant's rows.",
        severity: Severity::Critical,
        guards: true,
        look: enabled,
    },
    Check {
        id: "RLS002",
        title: "Row-level security is forced on every tenant table",
        why: "Unless it is forced it does not hold for the owner, in migrations, scripts and SECURITY DEFINER functions.",
        severity: Severity::Critical,
        guards: true,
        look: forced,
    },
];

fn enabled(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("tenant table", subject.roots(), |table| {
        let name = table.sql_name();
        let sql = format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY");
        let finding = Finding::new(Object::new("table", name), "row-level security is not enabled");
        (!table.enabled).then(|| finding.mend(Step::RowSecurity, [sql]))
    })
}

fn forced(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("tenant table", subject.roots(), |table| {
        let name = table.sql_name();
        let sql = format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY");
        let finding = Finding::new(Object::new("table", name), "row-level security is not forced");
        (!table.forced).then(|| finding.mend(Step::RowSecurity, [sql]))
    })
}
