//! Ways out of the database.

use std::collections::BTreeMap;

use super::grant::revocation;
use super::{Check, Verdict, count};
use crate::subject::{Subject, grantee};
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "EXT001",
        title: "No extension reaches other servers or files",
        why: "A connection from the database to itself is another session, as whomever it names and without the tenant.",
        severity: Severity::Warning,
        guards: false,
        look: no_way_out,
    },
    Check {
        id: "EXT002",
        title: "The runtime role and the platform roles run nothing that reaches other servers or files",
        why: "The files of the server and a connection of its own hold the rows of all tenants, without policies.",
        severity: Severity::Error,
        guards: true,
        look: nothing_reaches_out,
    },
    Check {
        id: "EXT003",
        title: "The runtime role and the platform roles use no foreign server",
        why: "What is read from another server is read as one user for all tenants.",
        severity: Severity::Error,
        guards: false,
        look: no_foreign_server,
    },
    Check {
        id: "EXT004",
        title: "The application's roles read nothing that shows statements of others",
        why: "All tenants' statements are the same role's; their texts hold values of every tenant.",
        severity: Severity::Warning,
        guards: false,
        look: no_statements_of_others,
    },
];

/// Extensions whose purpose is to leave the database.
const WAYS_OUT: &[&str] = &[
    "adminpack",
    "dblink",
    "file_fdw",
    "http",
    "mysql_fdw",
    "ogr_fdw",
    "oracle_fdw",
    "pg_net",
    "plproxy",
    "postgres_fdw",
    "redis_fdw",
    "tds_fdw",
];

/// Extensions that show what other sessions did, or the pages of tables.
const SHOWS: &[&str] = &[
    "pageinspect",
    "pg_buffercache",
    "pg_qualstats",
    "pg_stat_kcache",
    "pg_stat_monitor",
    "pg_stat_statements",
    "pg_store_plans",
    "pg_track_settings",
    "pg_visibility",
    "pg_wait_sampling",
    "pg_walinspect",
];

fn no_statements_of_others(subject: &Subject<'_>) -> Verdict {
    let all = subject.catalogue.relations.iter();
    // An extension that is allowed may show what it was made to show.
    let shows = |name: &str| SHOWS.contains(&name) && !subject.allows_extension(name);
    let showing = all.filter(|one| one.extension.as_deref().is_some_and(shows));
    Verdict::of_each("such relation", showing, |relation| {
        let name = relation.sql_name();
        let on = format!("TABLE {name}");
        let held = relation
            .grants
            .iter()
            .filter(|grant| subject.any_holds(grant.grantee.as_deref()));
        let (found, sql): (Vec<String>, Vec<String>) = held.map(|grant| revocation(grant, &on)).unzip();
        let finding = Finding::new(Object::new(relation.kind.word(), name), found.join(", "));
        (!sql.is_empty()).then(|| finding.mend(Step::Grants, sql))
    })
}

fn no_way_out(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("extension", subject.catalogue.extensions.iter(), |extension| {
        let name = quote::identifier(&extension.name);
        let finding = Finding::new(Object::new("extension", &name), "reaches other servers or files");
        let mended = finding.mend(Step::Code, [format!("DROP EXTENSION {name}")]);
        let why = "Whatever uses it has to do without first.";
        let leaves = WAYS_OUT.contains(&extension.name.as_str());
        (leaves && !subject.allows_extension(&extension.name)).then(|| mended.caution(why))
    })
}

/// One finding for each extension, which may have dozens of functions, and one for PostgreSQL itself.
fn nothing_reaches_out(subject: &Subject<'_>) -> Verdict {
    let mut groups: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
    let mut examined = 0;
    for function in &subject.catalogue.functions {
        let extension = function
            .extension
            .as_deref()
            .filter(|name| WAYS_OUT.contains(name));
        if extension.is_none() && !function.built_in {
            continue;
        }
        examined += 1;
        let held = function
            .grants
            .iter()
            .filter(|grant| subject.any_holds(grant.grantee.as_deref()));
        let grantees: Vec<String> = held.map(|grant| grantee(grant.grantee.as_deref())).collect();
        if !grantees.is_empty() {
            let revoke = format!(
                "REVOKE EXECUTE ON ROUTINE {} FROM {}",
                function.sql_name(),
                grantees.join(", ")
            );
            groups.entry(extension).or_default().push(revoke);
        }
    }
    let findings = groups.into_iter().map(|(extension, revokes)| {
        let object = match extension {
            Some(name) => Object::new("extension", quote::identifier(name)),
            None => Object::new("schema", "pg_catalog"),
        };
        let found = format!(
            "the application's roles may run {}",
            count(revokes.len(), "such function")
        );
        Finding::new(object, found).mend(Step::Grants, revokes)
    });
    Verdict::of(count(examined, "such function"), findings.collect())
}

fn no_foreign_server(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each(
        "foreign server",
        subject.catalogue.foreign_servers.iter(),
        |server| {
            let held = server
                .grants
                .iter()
                .filter(|grant| subject.any_holds(grant.grantee.as_deref()));
            let grantees: Vec<String> = held.map(|grant| grantee(grant.grantee.as_deref())).collect();
            let name = quote::identifier(&server.name);
            let sql = format!(
                "REVOKE USAGE ON FOREIGN SERVER {name} FROM {}",
                grantees.join(", ")
            );
            let found = format!(
                "{} may use it, through {}",
                grantees.join(" and "),
                quote::printable(&server.wrapper)
            );
            let finding = Finding::new(Object::new("foreign server", name), found);
            (!grantees.is_empty()).then(|| finding.mend(Step::Grants, [sql]))
        },
    )
}
