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

/// The releases that the digests were made with, as `server_version_num`. Another release may have a corrected row.
const KNOWN_RELEASES: &[u32] = &[
    150_000, 150_001, 150_003, 150_004, 150_005, 150_006, 150_008, 150_018, 160_001, 160_014, 170_000,
    170_010, 180_000, 180_001, 180_002, 180_003, 180_004,
];

fn catalogues_are_released(subject: &Subject<'_>) -> Verdict {
    let server = &subject.catalogue.server;
    compare_with_releases(
        (server.version_number, &server.version),
        &subject.catalogue.digests,
        |object| subject.allows(object),
    )
}

/// Compares the digests of a server's catalogues with those of the releases of its major version. A difference is a finding
/// where the digests of the server's own release are known, and says nothing where they are not.
fn compare_with_releases(
    (number, version): (u32, &str),
    all: &[Digest],
    allows: impl Fn(&Object) -> bool,
) -> Verdict {
    let major = number / 10_000;
    if !KNOWN_RELEASES.iter().any(|known| known / 10_000 == major) {
        return Verdict::not_applicable(format!(
            "no digests of PostgreSQL {major} are known; SYS001 goes by the age of rows alone"
        ));
    }
    let findings = all.iter().filter(|one| !is_released(major, one)).map(|one| {
        let object = Object::new("built-in", format!("catalogue {}", one.class));
        Finding::new(object, format!("its rows are not those of PostgreSQL {major}"))
    });
    let findings: Vec<Finding> = findings.filter(|finding| !allows(&finding.object)).collect();
    if !findings.is_empty() && !KNOWN_RELEASES.contains(&number) {
        return Verdict::not_applicable(format!(
            "the digests of PostgreSQL {} are not known, and those of other releases differ; SYS001 goes by the age of rows alone",
            quote::printable(version)
        ));
    }
    Verdict::of(count(all.len(), "catalogue"), findings)
}

/// Whether a catalogue is that of a release of the major version.
fn is_released(major: u32, one: &Digest) -> bool {
    let line = format!("{major} {} {}", one.class, one.digest);
    KNOWN_CATALOGUES.lines().any(|known| known == line)
}

/// Digests of the functions of PostgreSQL 15, one on a line, so that a function that was changed back counts as unchanged.
const KNOWN_FUNCTIONS: &str = include_str!("functions_15.txt");

fn built_ins_are_unaltered(subject: &Subject<'_>) -> Verdict {
    let all = &subject.catalogue.alterations;
    let known: BTreeSet<&str> = KNOWN_FUNCTIONS.lines().collect();
    let is_known = |digest: Option<&str>| digest.is_some_and(|one| known.contains(one));
    let (major, digests) = (
        subject.catalogue.server.version_number / 10_000,
        &subject.catalogue.digests,
    );
    // A row of such a catalogue was changed back: it is old no longer, and what it was.
    let is_put_right = |class: Option<&str>| {
        let mut of = digests.iter().filter(|one| Some(one.class.as_str()) == class);
        of.any(|one| is_released(major, one))
    };
    let altered = all
        .iter()
        .filter(|one| !is_known(one.digest.as_deref()) && !is_put_right(one.class.as_deref()));
    let findings = altered.map(|one| alteration(one, is_known(one.otherwise.as_deref())));
    let findings = findings.filter(|finding| !subject.allows(&finding.object));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The first digest that is known of each catalogue of a major version.
    fn digests(major: u32) -> Vec<Digest> {
        let mut all: Vec<Digest> = Vec::new();
        for line in KNOWN_CATALOGUES.lines() {
            let [of, class, digest] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let is_there = all.iter().any(|one| one.class == class);
            if of == major.to_string() && !is_there {
                let (class, digest) = (class.to_owned(), digest.to_owned());
                all.push(Digest { class, digest });
            }
        }
        assert!(!all.is_empty());
        all
    }

    fn with_a_changed_function(major: u32) -> Vec<Digest> {
        let mut all = digests(major);
        let functions = all.iter_mut().find(|one| one.class == "pg_proc").unwrap();
        functions.digest = "0".repeat(32);
        all
    }

    fn judge(number: u32, all: &[Digest]) -> Verdict {
        let version = format!("{}.{}", number / 10_000, number % 10_000);
        compare_with_releases((number, &version), all, |_| false)
    }

    #[test]
    fn changed_catalogue_of_a_known_release_is_found() {
        for number in KNOWN_RELEASES {
            let verdict = judge(*number, &with_a_changed_function(number / 10_000));
            assert!(verdict.applicable);
            let found: Vec<String> = verdict
                .findings
                .iter()
                .map(|one| one.object.to_string())
                .collect();
            assert_eq!(found, ["built-in catalogue pg_proc"], "{number}");
            let allowed = with_a_changed_function(number / 10_000);
            let allowed = compare_with_releases((*number, "x"), &allowed, |_| true);
            assert!(allowed.applicable && allowed.findings.is_empty());
        }
    }

    /// Most lie between releases that are known, 15.19 and 18.5 after them.
    #[test]
    fn changed_catalogue_of_an_unknown_release_is_not_judged() {
        for number in [150_002, 150_007, 150_019, 160_000, 160_005, 170_004, 180_005] {
            let verdict = judge(number, &with_a_changed_function(number / 10_000));
            assert!(!verdict.applicable && verdict.findings.is_empty(), "{number}");
            let release = format!("PostgreSQL {}.{} are not known", number / 10_000, number % 10_000);
            assert!(verdict.examined.contains(&release), "{}", verdict.examined);
            // Where nothing differs, it is one of those that are known.
            let verdict = judge(number, &digests(number / 10_000));
            assert!(verdict.applicable && verdict.findings.is_empty(), "{number}");
        }
        let verdict = judge(140_001, &digests(15));
        assert!(!verdict.applicable, "{}", verdict.examined);
    }
}
