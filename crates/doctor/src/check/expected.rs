//! Whether the catalogue is what a manifest says, object by object.

use std::collections::{BTreeMap, BTreeSet};

use super::excuse::Excuse;
use super::service_table::table_of;
use super::{Check, Verdict, count};
use crate::catalogue::Fact;
use crate::subject::Subject;
use crate::{Finding, Manifest, Object, Severity, Step};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "CAT001",
        title: "Every migration that this version has was applied",
        why: "Rules that a missing migration makes do not hold yet, and the catalogue cannot be compared.",
        severity: Severity::Error,
        guards: true,
        look: nothing_is_pending,
    },
    Check {
        id: "CAT002",
        title: "No migration was applied that this version does not know, and no object is new with one",
        why: "A newer version made the schema, or another service did. What this version knows is compared all the same; new \
              objects beside it are not known here. Tables of another service that obey every rule are no finding: see CAT011. \
              Whatever reaches the tables of this version, or runs more than PostgreSQL's own functions, is found by CAT003 to CAT010.",
        severity: Severity::Warning,
        guards: true,
        look: nothing_is_unknown,
    },
    Check {
        id: "CAT003",
        title: "Tables, constraints and unique indexes are what the migrations make",
        why: "Each is part of the rule: a default that calls a function, a key without the tenant, another owner, a view. A function \
              that a default, a check or an index runs can set the tenant of the transaction; no unknown migration excuses it.",
        severity: Severity::Error,
        guards: true,
        look: |subject| differences(subject, Part::Tables),
    },
    Check {
        id: "CAT004",
        title: "Policies are what the migrations make",
        why: "One policy more lets rows by that the others keep back.",
        severity: Severity::Critical,
        guards: true,
        look: |subject| differences(subject, Part::Policies),
    },
    Check {
        id: "CAT005",
        title: "The application's roles and PUBLIC have the grants that the migrations make",
        why: "Tables of the platform have no policies; only the missing grant keeps the runtime role away from them, and \
              records that are appended to from being rewritten.",
        severity: Severity::Critical,
        guards: true,
        look: |subject| differences(subject, Part::Grants),
    },
    Check {
        id: "CAT006",
        title: "Functions, triggers and rules are what the migrations make",
        why: "What runs with a statement sees its rows, and can send them elsewhere or give grants.",
        severity: Severity::Critical,
        guards: true,
        look: |subject| differences(subject, Part::Code),
    },
    Check {
        id: "CAT007",
        title: "Types, casts, operators and languages are what the migrations make",
        why: "They decide what the text of a policy or a query means.",
        severity: Severity::Critical,
        guards: true,
        look: |subject| differences(subject, Part::Meaning),
    },
    Check {
        id: "CAT008",
        title: "The application's roles are what the installation makes",
        why: "An attribute, a membership or a setting of a role holds for every session, whatever the tables say.",
        severity: Severity::Critical,
        guards: true,
        look: |subject| differences(subject, Part::Roles),
    },
    Check {
        id: "CAT009",
        title: "Nothing replicates rows or reaches other servers but what the migrations make",
        why: "Replication and foreign servers read and write rows without the tenant.",
        severity: Severity::Error,
        guards: true,
        look: |subject| differences(subject, Part::Elsewhere),
    },
    Check {
        id: "CAT010",
        title: "Extensions, schemas, grants to other roles and their memberships are what the migrations make",
        why: "Each widens what can be read here, and should be on record.",
        severity: Severity::Warning,
        guards: true,
        look: |subject| differences(subject, Part::Surroundings),
    },
    Check {
        id: "CAT011",
        title: "No tables of other services are unknown here",
        why: "A migration that is not known here made them, as it makes tenant tables: owner, row-level security, policies, grants \
              and keys are right. A later change that keeps to these rules is not noticed here.",
        severity: Severity::Info,
        guards: true,
        look: obedient_tables,
    },
];

/// A group of facts that one check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Tables,
    Policies,
    Grants,
    Code,
    Meaning,
    Roles,
    Elsewhere,
    Surroundings,
}

impl Part {
    fn of(kind: &str) -> Self {
        match kind {
            "table" | "view" | "materialized view" | "foreign table" | "sequence" | "column"
            | "constraint" | "domain constraint" | "foreign key" | "index" => Self::Tables,
            "policy" => Self::Policies,
            "grant" | "default privileges" => Self::Grants,
            "function" | "procedure" | "aggregate" | "trigger" | "rule" | "event trigger" => Self::Code,
            "role" | "membership" | "setting" => Self::Roles,
            "publication"
            | "publication relation"
            | "publication namespace"
            | "subscription"
            | "foreign-data wrapper"
            | "server"
            | "user mapping"
            | "database" => Self::Elsewhere,
            "extension" | "schema" | "other grant" | "other membership" | "statistics object" => {
                Self::Surroundings
            }
            // Every other kind of object can change what SQL means; one that is not known here, too.
            _ => Self::Meaning,
        }
    }
}

/// The manifest to compare with; else why there is nothing to compare.
fn expected<'a>(subject: &Subject<'a>) -> Result<&'a Manifest, Verdict> {
    let Some(manifest) = &subject.options.expected else {
        return Err(Verdict::not_applicable("no manifest was given"));
    };
    let tables = manifest.tables();
    let mut found = subject.tables().filter(|table| {
        let owned = subject.options.owner_roles.contains(&table.owner);
        owned || tables.contains(table.sql_name().as_str())
    });
    if found.next().is_none() {
        return Err(Verdict::not_applicable("none of the manifest's tables is there"));
    }
    Ok(manifest)
}

/// The names of the migrations that were applied; `None` when they cannot be read.
pub(super) fn applied<'a>(subject: &Subject<'a>) -> Option<BTreeSet<&'a str>> {
    let migrations = subject.catalogue.migrations.as_ref()?;
    Some(migrations.iter().map(|one| one.object.as_str()).collect())
}

fn nothing_is_pending(subject: &Subject<'_>) -> Verdict {
    let manifest = match expected(subject) {
        Ok(manifest) => manifest,
        Err(verdict) => return verdict,
    };
    let Some(applied) = applied(subject) else {
        return no_migrations();
    };
    let pending = manifest.migrations().into_iter();
    let findings = pending
        .filter(|name| !applied.contains(name))
        .map(|name| Finding::new(Object::new("migration", name), "was not applied"));
    Verdict::of(count(applied.len(), "migration"), findings.collect())
}

fn nothing_is_unknown(subject: &Subject<'_>) -> Verdict {
    let manifest = match expected(subject) {
        Ok(manifest) => manifest,
        Err(verdict) => return verdict,
    };
    let Some(applied) = applied(subject) else {
        return no_migrations();
    };
    let excuse = Excuse::of(subject, manifest);
    let found = found(subject, |_| true);
    let pairs = pairs(manifest, &found, |_| true);
    let obedient = excuse.obedient(&pairs);
    let new = pairs.iter().filter(|(key, pair)| excuse.is_new(key, pair));
    let others = new.filter(|((kind, object), _)| {
        let table = table_of(kind, object);
        !table.is_some_and(|table| obedient.contains(table))
    });
    let named = others.map(|((kind, object), pair)| (Object::new(word(kind), *object), pair));
    let named = named.filter(|(object, pair)| !is_allowed(subject, object, &pair.1));
    let objects: Vec<Finding> = named
        .map(|(object, _)| Finding::new(object, "is not known here; an unknown migration may make it"))
        .collect();
    // What such migrations made is known to obey the rules, when it is all there is.
    let harmless = objects.is_empty() && !obedient.is_empty();
    let unknown = excuse.unknown.iter().filter(|_| !harmless);
    let migrations = unknown.map(|name| Finding::new(Object::new("migration", *name), "is not known here"));
    Verdict::of(
        count(applied.len(), "migration"),
        migrations.chain(objects).collect(),
    )
}

fn obedient_tables(subject: &Subject<'_>) -> Verdict {
    let manifest = match expected(subject) {
        Ok(manifest) => manifest,
        Err(verdict) => return verdict,
    };
    let found = found(subject, |_| true);
    let pairs = pairs(manifest, &found, |_| true);
    let obedient = Excuse::of(subject, manifest).obedient(&pairs);
    let findings = obedient.into_iter().map(|table| {
        let found = "is of another service and obeys every rule; to compare it with what its migrations make, record that \
                     (doctor --record FILE --beyond-own) and name the file (doctor --catalogue, guard.catalogues)";
        Finding::new(Object::new("table", table), found)
    });
    let findings: Vec<_> = findings.collect();
    Verdict::of(count(findings.len(), "table"), findings)
}

fn no_migrations() -> Verdict {
    let object = Object::new("table", "public.seaql_migrations");
    let finding = Finding::new(object, "is missing, or cannot be read by this user");
    Verdict::of("0 migrations", vec![finding])
}

/// Kind and name of an object.
pub(super) type Key<'a> = (&'a str, &'a str);

/// Expected and found facts of one object.
pub(super) type Pair<'a> = (BTreeSet<&'a str>, BTreeSet<&'a str>);

fn differences(subject: &Subject<'_>, part: Part) -> Verdict {
    let manifest = match expected(subject) {
        Ok(manifest) => manifest,
        Err(verdict) => return verdict,
    };
    let excuse = Excuse::of(subject, manifest);
    let found = found(subject, |kind| Part::of(kind) == part);
    let pairs = pairs(manifest, &found, |kind| Part::of(kind) == part);
    let judged = pairs
        .iter()
        .filter(|(key, pair)| !excuse.is_new(key, pair) && !excuse.is_awaited(pair));
    let findings = judged.filter_map(|((kind, object), pair)| {
        let finding = difference(kind, object, &pair.0, &pair.1)?;
        (!is_allowed(subject, &finding.object, &pair.1)).then_some(finding)
    });
    Verdict::of(count(pairs.len(), "object"), findings.collect())
}

fn found(subject: &Subject<'_>, concerned: impl Fn(&str) -> bool) -> Vec<Fact> {
    let all = subject.catalogue.facts.iter();
    all.filter(|fact| concerned(&fact.kind))
        .map(Fact::on_one_line)
        .collect()
}

fn pairs<'a>(
    manifest: &'a Manifest,
    found: &'a [Fact],
    concerned: impl Fn(&str) -> bool,
) -> BTreeMap<Key<'a>, Pair<'a>> {
    let mut pairs: BTreeMap<Key<'_>, Pair<'_>> = BTreeMap::new();
    for fact in manifest.facts().filter(|fact| concerned(&fact.kind)) {
        let pair = pairs.entry((&fact.kind, &fact.object)).or_default();
        pair.0.insert(&fact.fact);
    }
    for fact in found {
        let pair = pairs.entry((&fact.kind, &fact.object)).or_default();
        pair.1.insert(&fact.fact);
    }
    pairs
}

/// Whether the object is on the list of those that are meant: by its name, or by its name and what holds for it.
pub(super) fn is_allowed(subject: &Subject<'_>, object: &Object, found: &BTreeSet<&str>) -> bool {
    let facts: Vec<&str> = found.iter().copied().collect();
    let exactly = format!("{object}: {}", facts.join(", "));
    subject.allows(object) || subject.options.allowed_objects.contains(&exactly)
}

fn difference(
    kind: &str,
    object: &str,
    expected: &BTreeSet<&str>,
    found: &BTreeSet<&str>,
) -> Option<Finding> {
    let extra: Vec<&str> = found.difference(expected).copied().collect();
    let missing: Vec<&str> = expected.difference(found).copied().collect();
    let list = |facts: &[&str]| facts.join(", ");
    let text = match (extra.is_empty(), missing.is_empty()) {
        (true, true) => return None,
        (false, true) if list(&extra).is_empty() => "is not made by any migration".to_owned(),
        (false, true) => format!("is not made by any migration: {}", list(&extra)),
        (true, false) if list(&missing).is_empty() => "is missing".to_owned(),
        (true, false) => format!("is missing: {}", list(&missing)),
        (false, false) => format!("is {} instead of {}", list(&extra), list(&missing)),
    };
    let finding = Finding::new(Object::new(word(kind), object), text);
    let sql = mend(kind, object, &extra, &missing);
    if sql.is_empty() {
        return Some(finding);
    }
    let step = match Part::of(kind) {
        Part::Tables => Step::Keys,
        Part::Policies => Step::Policies,
        Part::Grants | Part::Surroundings => Step::Grants,
        Part::Roles => Step::Roles,
        Part::Code | Part::Meaning | Part::Elsewhere => Step::Code,
    };
    let finding = finding.mend(step, sql);
    // Grants, policies and switched-off keys are put right without a loss; the rest may be in use.
    Some(match kind {
        "grant" | "policy" | "foreign key" | "setting" => finding,
        _ => finding.caution(
            "Something may use what it drops; what is meant belongs on the list of allowed objects.",
        ),
    })
}

/// The statements that make the object what it should be; none where SQL alone cannot.
fn mend(kind: &str, object: &str, extra: &[&str], missing: &[&str]) -> Vec<String> {
    // A partition is named after its table here.
    if object.ends_with("/*") {
        return Vec::new();
    }
    let part = split(object, " on ");
    match (kind, part) {
        ("grant" | "other grant", _) => {
            let Some((to, on)) = part else {
                return Vec::new();
            };
            let bare = |fact: &str| fact.replace(" WITH GRANT OPTION", "");
            let revoke = extra
                .iter()
                .map(|fact| format!("REVOKE {} ON {on} FROM {to}", bare(fact)));
            let grant = missing
                .iter()
                .map(|fact| format!("GRANT {} ON {on} TO {to}", bare(fact)));
            revoke.chain(grant).collect()
        }
        ("policy", Some((name, table))) => {
            // Another finding may have made one of that name by then.
            let drop = format!("DROP POLICY IF EXISTS {name} ON {table}");
            let make = missing
                .iter()
                .map(|fact| format!("CREATE POLICY {name} ON {table} {fact}"));
            std::iter::once(drop).chain(make).collect()
        }
        ("foreign key", Some((_, table))) if !extra.is_empty() && !missing.is_empty() => {
            vec![format!("ALTER TABLE {table} ENABLE TRIGGER ALL")]
        }
        ("constraint", Some((name, table))) => {
            let drop = (!extra.is_empty()).then(|| format!("ALTER TABLE {table} DROP CONSTRAINT {name}"));
            let make = missing
                .iter()
                .map(|fact| format!("ALTER TABLE {table} ADD CONSTRAINT {name} {fact}"));
            drop.into_iter().chain(make).collect()
        }
        ("trigger" | "rule", Some((name, table))) if missing.is_empty() => {
            vec![format!("DROP {} {name} ON {table}", kind.to_uppercase())]
        }
        ("setting", _) => setting(object, missing).into_iter().collect(),
        ("membership" | "other membership", _) => {
            let roles = split(object, " in ").filter(|_| missing.is_empty());
            let sql = roles.map(|(member, role)| format!("REVOKE {role} FROM {member}"));
            sql.into_iter().collect()
        }
        (
            "function" | "procedure" | "aggregate" | "cast" | "operator" | "operator class"
            | "operator family" | "event trigger" | "extension" | "server" | "language" | "publication"
            | "subscription" | "transform" | "type" | "collation" | "conversion" | "access method" | "view"
            | "materialized view" | "foreign table",
            _,
        ) if missing.is_empty() => vec![format!("DROP {} {object}", kind.to_uppercase())],
        ("foreign-data wrapper", _) => vec![format!("DROP FOREIGN DATA WRAPPER {object}")],
        _ => Vec::new(),
    }
}

/// The names on either side of a word that is in none of them: a quoted name may have anything in it.
pub(super) fn split<'t>(object: &'t str, word: &str) -> Option<(&'t str, &'t str)> {
    let outside = |start: usize| object[..start].matches('"').count().is_multiple_of(2);
    let (start, _) = object.match_indices(word).find(|(start, _)| outside(*start))?;
    Some((&object[..start], &object[start + word.len()..]))
}

/// Puts a setting of a role right; one of a database is reported with its name by another check.
fn setting(object: &str, missing: &[&str]) -> Option<String> {
    let (name, role) = split(object, " of ")?;
    if role.ends_with(" in this database") {
        return None;
    }
    let role = if role == "all roles" { "ALL" } else { role };
    Some(match missing {
        [value] => format!("ALTER ROLE {role} SET {name} = {value}"),
        _ => format!("ALTER ROLE {role} RESET {name}"),
    })
}

/// The kinds are those of the catalogue, which are all known; what is not is an object.
fn word(kind: &str) -> &'static str {
    const WORDS: &[&str] = &[
        "table",
        "view",
        "materialized view",
        "foreign table",
        "sequence",
        "column",
        "constraint",
        "domain constraint",
        "foreign key",
        "index",
        "policy",
        "grant",
        "other grant",
        "default privileges",
        "function",
        "procedure",
        "aggregate",
        "trigger",
        "rule",
        "event trigger",
        "role",
        "membership",
        "other membership",
        "setting",
        "database",
        "publication",
        "publication relation",
        "publication namespace",
        "subscription",
        "foreign-data wrapper",
        "server",
        "user mapping",
        "security label",
        "extension",
        "schema",
        "statistics object",
        "type",
        "cast",
        "operator",
        "operator class",
        "operator family",
        "operator of access method",
        "function of access method",
        "access method",
        "collation",
        "conversion",
        "language",
        "transform",
        "text search configuration",
        "text search dictionary",
        "text search parser",
        "text search template",
    ];
    WORDS
        .iter()
        .find(|word| **word == kind)
        .copied()
        .unwrap_or("object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_outside_of_quotes() {
        assert_eq!(split("a on public.b", " on "), Some(("a", "public.b")));
        let hostile = "\"x on y; DROP TABLE z; --\" on public.\"t on \"\"u\"";
        let expected = ("\"x on y; DROP TABLE z; --\"", "public.\"t on \"\"u\"");
        assert_eq!(split(hostile, " on "), Some(expected));
        assert_eq!(split("\"only on inside\"", " on "), None);
    }

    #[test]
    fn a_grant_is_revoked_and_restored() {
        let sql = mend(
            "grant",
            "app on TABLE public.t",
            &["SELECT WITH GRANT OPTION"],
            &["SELECT"],
        );
        assert_eq!(
            sql,
            [
                "REVOKE SELECT ON TABLE public.t FROM app",
                "GRANT SELECT ON TABLE public.t TO app"
            ]
        );
    }
}
