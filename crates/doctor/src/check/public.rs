//! What everybody was granted.

use std::collections::BTreeSet;

use super::grant::{examined, revocation};
use super::{Check, Verdict, count};
use crate::catalogue::{DefaultPrivilege, Kind};
use crate::subject::{Subject, grantee};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "GRANT006",
        title: "Nothing is granted to PUBLIC",
        why: "What everybody has, every role that is ever made has too, whether anybody thought of it or not.",
        severity: Severity::Error,
        guards: false,
        look: nothing_for_everybody,
    },
    Check {
        id: "GRANT007",
        title: "Nothing will be granted to PUBLIC by default",
        why: "The next table or sequence would be everybody's from its first moment on.",
        severity: Severity::Error,
        guards: false,
        look: nothing_by_default,
    },
    Check {
        id: "GRANT008",
        title: "New functions of the owners of tenant tables are nobody's to run",
        why: "Unless that is changed, PostgreSQL lets everybody run a new function, SECURITY DEFINER ones included.",
        severity: Severity::Warning,
        guards: false,
        look: new_functions,
    },
    Check {
        id: "GRANT009",
        title: "The application's roles will get no more than rows by default",
        why: "The next table would come with TRUNCATE, which asks no policy, or with the right to put triggers on it.",
        severity: Severity::Error,
        guards: false,
        look: nothing_more_by_default,
    },
];

fn nothing_for_everybody(subject: &Subject<'_>) -> Verdict {
    let own = subject
        .catalogue
        .relations
        .iter()
        .filter(|relation| relation.extension.is_none());
    let findings = own.filter_map(|relation| {
        let name = relation.sql_name();
        let on = format!(
            "{} {name}",
            if relation.kind == Kind::Sequence {
                "SEQUENCE"
            } else {
                "TABLE"
            }
        );
        let public = relation.grants.iter().filter(|grant| grant.grantee.is_none());
        let (found, sql): (Vec<String>, Vec<String>) = public.map(|grant| revocation(grant, &on)).unzip();
        let finding = Finding::new(Object::new(relation.kind.word(), name), found.join(", "));
        (!sql.is_empty()).then(|| finding.mend(Step::Grants, sql))
    });
    Verdict::of(examined(subject), findings.collect())
}

fn nothing_by_default(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("entry", subject.catalogue.default_privileges.iter(), |entry| {
        let kinds = match entry.kind {
            'r' => "TABLES",
            'S' => "SEQUENCES",
            'n' => "SCHEMAS",
            // Everywhere it is what PostgreSQL does of itself, which the next check is about.
            'f' if entry.schema.is_some() => "FUNCTIONS",
            _ => return None,
        };
        let public = entry.grants.iter().any(|grant| grant.grantee.is_none());
        public.then(|| default_privilege(entry, kinds))
    })
}

fn default_privilege(entry: &DefaultPrivilege, kinds: &str) -> Finding {
    let owner = quote::identifier(&entry.owner);
    let schema = entry
        .schema
        .as_deref()
        .map(|schema| format!(" IN SCHEMA {}", quote::identifier(schema)));
    let schema = schema.unwrap_or_default();
    let sql = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner}{schema} REVOKE ALL ON {kinds} FROM PUBLIC");
    let object = Object::new("default privileges", format!("of {owner}{schema}"));
    Finding::new(object, format!("new {} are everybody's", kinds.to_lowercase())).mend(Step::Grants, [sql])
}

fn nothing_more_by_default(subject: &Subject<'_>) -> Verdict {
    const TOO_MUCH: &[&str] = &["TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN", "CREATE"];
    Verdict::of_each("entry", subject.catalogue.default_privileges.iter(), |entry| {
        let kinds = match entry.kind {
            'r' => "TABLES",
            'n' => "SCHEMAS",
            _ => return None,
        };
        let bad = entry.grants.iter().filter(|grant| {
            let much = TOO_MUCH.contains(&grant.privilege.as_str());
            much && grant.grantee.is_some() && subject.any_holds(grant.grantee.as_deref())
        });
        let owner = quote::identifier(&entry.owner);
        let schema = entry.schema.as_deref().map(quote::identifier);
        let schema = schema
            .map(|schema| format!(" IN SCHEMA {schema}"))
            .unwrap_or_default();
        let pairs = bad.map(|grant| {
            let (to, privilege) = (grantee(grant.grantee.as_deref()), &grant.privilege);
            let sql = format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {owner}{schema} REVOKE {privilege} ON {kinds} FROM {to}"
            );
            (format!("{to} will have {privilege}"), sql)
        });
        let (found, sql): (Vec<String>, Vec<String>) = pairs.unzip();
        let object = Object::new("default privileges", format!("of {owner}{schema}"));
        let finding = Finding::new(object, found.join(", "));
        (!sql.is_empty()).then(|| finding.mend(Step::Grants, sql))
    })
}

fn new_functions(subject: &Subject<'_>) -> Verdict {
    let owners: BTreeSet<&str> = subject
        .tenant_tables()
        .map(|table| table.owner.as_str())
        .collect();
    let findings = owners.iter().filter_map(|owner| {
        let closed = subject.catalogue.default_privileges.iter().any(|entry| {
            let everywhere = entry.owner == **owner && entry.kind == 'f' && entry.schema.is_none();
            everywhere && entry.grants.iter().all(|grant| grant.grantee.is_some())
        });
        let owner = quote::identifier(owner);
        let sql =
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC");
        let finding = Finding::new(Object::new("role", owner), "everybody may run what it makes next");
        (!closed).then(|| finding.mend(Step::Grants, [sql]))
    });
    Verdict::of(count(owners.len(), "owner"), findings.collect())
}
