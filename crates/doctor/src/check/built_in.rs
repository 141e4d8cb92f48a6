//! What PostgreSQL brings along, and what users made that changes it.

use std::collections::BTreeSet;

use super::grant::taken_back;
use super::{Check, Verdict, count};
use crate::catalogue::{Alteration, Deed, Digest, Language, Meaning, SystemGrant};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "SYS001",
        title: "PostgreSQL's own functions, operators and casts are as initdb made them",
        why: "Policies are made of them. A function that is LEAKPROOF without being so runs before the policy, on rows of \
              every tenant.",
        severity: Severity::Critical,
        guards: true,
        look: built_ins_are_unaltered,
    },
    Check {
        id: "SYS002",
        title: "The application's roles have no grants on system catalogues and parameters but those of initdb",
        why: "The catalogues hold samples of every tenant's rows (`pg_statistic`) and password hashes (`pg_authid`); some \
              parameters switch off foreign keys and triggers.",
        severity: Severity::Critical,
        guards: true,
        look: no_system_grants,
    },
    Check {
        id: "SYS003",
        title: "No cast, operator, operator class or conversion of users is for PostgreSQL's own types",
        why: "A cast from text to uuid decides which tenant a setting names; an operator class decides which rows an index \
              finds. The text of the policy stays the same.",
        severity: Severity::Critical,
        guards: true,
        look: nothing_changes_meanings,
    },
    Check {
        id: "SYS004",
        title: "Only the languages that cannot leave the database are trusted",
        why: "In a trusted language every role that may create a function may write one; C and its like can do whatever the \
              server can.",
        severity: Severity::Critical,
        guards: true,
        look: untrusted_languages,
    },
    Check {
        id: "SYS005",
        title: "PostgreSQL's own functions, types and operators are those of a release",
        why: "A superuser can make a changed row look as old as initdb, but not change it and keep the digest of all rows. A fork \
              of PostgreSQL may differ; it belongs on the list of allowed objects.",
        severity: Severity::Critical,
        guards: true,
        look: catalogues_are_released,
    },
];

/// Digests of PostgreSQL's own catalogues: major version, catalogue, digest. Where releases differ there are several.
const KNOWN_CATALOGUES: &str = include_str!("catalogues.txt");

/// The newest releases that are among them. A later one may have mended a row.
const NEWEST: &[u32] = &[150_018, 160_014, 170_010, 180_004];

fn catalogues_are_released(subject: &Subject<'_>) -> Verdict {
    let (server, all) = (&subject.catalogue.server, &subject.catalogue.digests);
    let major = server.version_number / 10_000;
    let Some(newest) = NEWEST.iter().find(|newest| *newest / 10_000 == major) else {
        return Verdict::not_applicable(format!(
            "no digests of PostgreSQL {major} are known; SYS001 goes by the age of rows alone"
        ));
    };
    let is_known = |one: &Digest| {
        let line = format!("{major} {} {}", one.class, one.digest);
        KNOWN_CATALOGUES.lines().any(|known| known == line)
    };
    let findings = all.iter().filter(|one| !is_known(one)).map(|one| {
        let object = Object::new("built-in", format!("catalogue {}", one.class));
        Finding::new(object, format!("its rows are not those of PostgreSQL {major}"))
    });
    let findings: Vec<Finding> = findings
        .filter(|finding| !subject.allows(&finding.object))
        .collect();
    if !findings.is_empty() && server.version_number > *newest {
        return Verdict::not_applicable(format!(
            "PostgreSQL {} is newer than the releases whose digests are known; SYS001 goes by the age of rows alone",
            quote::printable(&server.version)
        ));
    }
    Verdict::of(count(all.len(), "catalogue"), findings)
}

/// Digests of the functions of PostgreSQL 15, one on a line, so that a function that was changed back counts as unchanged.
const KNOWN_FUNCTIONS: &str = include_str!("functions_15.txt");

fn built_ins_are_unaltered(subject: &Subject<'_>) -> Verdict {
    let all = &subject.catalogue.alterations;
    let known: BTreeSet<&str> = KNOWN_FUNCTIONS.lines().collect();
    let is_known = |digest: Option<&str>| digest.is_some_and(|one| known.contains(one));
    let altered = all.iter().filter(|one| !is_known(one.digest.as_deref()));
    let findings = altered.map(|one| alteration(one, is_known(one.otherwise.as_deref())));
    Verdict::of("PostgreSQL's own catalogue", findings.collect())
}

fn alteration(altered: &Alteration, only_leakproof: bool) -> Finding {
    let Alteration { kind, name, what, .. } = altered;
    let object = Object::new("built-in", format!("{kind} {name}"));
    if only_leakproof {
        let sql = format!("ALTER FUNCTION {name} NOT LEAKPROOF");
        return Finding::new(object, "was made LEAKPROOF after initdb").mend(Step::Code, [sql]);
    }
    let found = what.as_deref().unwrap_or("was altered after initdb");
    Finding::new(object, found.to_owned())
}

fn no_system_grants(subject: &Subject<'_>) -> Verdict {
    let all = subject.catalogue.system_grants.iter();
    Verdict::of_each("further grant", all, |grant| {
        let SystemGrant { kind, name, .. } = grant;
        let (column, to) = (grant.column.as_deref(), grant.grantee.as_deref());
        let (found, sql) = taken_back(&grant.privilege, column, to, &format!("{kind} {name}"));
        let object = Object::new("system object", format!("{} {name}", kind.to_lowercase()));
        let finding = Finding::new(object, found);
        subject
            .any_holds(grant.grantee.as_deref())
            .then(|| finding.mend(Step::Grants, [sql]))
    })
}

fn nothing_changes_meanings(subject: &Subject<'_>) -> Verdict {
    let all = &subject.catalogue.meanings;
    let hidden = subject.catalogue.hidden.iter().filter_map(|hidden| {
        let table = subject.relation(hidden.relation)?;
        let object = Object::part("policy", &hidden.policy, &table.sql_name());
        let name = quote::printable(&hidden.name);
        let deed = match hidden.deed {
            Deed::Cast => format!("applies {name} as a cast"),
            Deed::Operator => format!("runs {name} for an operator"),
            Deed::Column => format!("reads the column {name}"),
        };
        Some(Finding::new(
            object,
            format!("{deed}, which its text does not show"),
        ))
    });
    let findings = all.iter().map(meaning).chain(hidden).collect();
    Verdict::of(count(all.len(), "such object"), findings)
}

fn meaning(meaning: &Meaning) -> Finding {
    let Meaning {
        kind,
        name,
        in_catalogue,
    } = meaning;
    let found = if *in_catalogue {
        "lies in pg_catalog, which comes before every other schema"
    } else {
        "changes what SQL about PostgreSQL's own types means"
    };
    let finding = Finding::new(
        Object::new("object of users", format!("{} {name}", kind.to_lowercase())),
        found,
    );
    // Members of operator families have no command of their own.
    if kind.contains(" of ") {
        return finding;
    }
    finding
        .mend(Step::Code, [format!("DROP {} {name}", kind.to_uppercase())])
        .caution("Whatever uses it has to do without first, and policies have to be made again.")
}

fn untrusted_languages(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("language", subject.catalogue.languages.iter(), |language| {
        let Language { name, trusted } = language;
        let leaves = ["internal", "c"].contains(&name.as_str())
            || (name.ends_with('u') && (name.starts_with("pl") || name.contains("python")));
        let name = quote::identifier(name);
        let sql = format!("UPDATE pg_catalog.pg_language SET lanpltrusted = false WHERE lanname = '{name}'");
        let finding = Finding::new(
            Object::new("language", &name),
            "is trusted, and can leave the database",
        );
        (leaves && *trusted).then(|| {
            finding
                .mend(Step::Code, [sql])
                .caution("It changes the system catalogue, as what made it trusted did.")
        })
    })
}
