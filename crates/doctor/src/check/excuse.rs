//! What an unknown migration excuses: objects beside those of the manifest that reach none of them.

use std::collections::{BTreeMap, BTreeSet};

use super::expected::{Key, Pair, applied, is_allowed, split};
use super::service_table::{Rules, ServiceTables, table_of};
use crate::catalogue::{Constrained, Fact, Risk};
use crate::options::names;
use crate::subject::Subject;
use crate::{Manifest, Object};

/// How the migrations that were applied differ from those of the manifest, and what the manifest names.
pub(super) struct Excuse<'a> {
    /// Applied, not in the manifest, and not allowed: a newer version's, or what passes for one.
    pub(super) unknown: Vec<&'a str>,
    /// Whether a migration of the manifest was not applied.
    pending: bool,
    /// The relations and functions of the manifest.
    named: BTreeSet<&'a str>,
    /// The columns of the manifest.
    columns: BTreeSet<&'a str>,
    /// The tables, sequences and functions that are there and not in the manifest, where a migration is unknown.
    found: Vec<Fact>,
    subject: &'a Subject<'a>,
    rules: Rules<'a>,
}

impl<'a> Excuse<'a> {
    pub(super) fn of(subject: &'a Subject<'a>, manifest: &'a Manifest) -> Self {
        let known = manifest.migrations();
        let applied = applied(subject);
        let allowed = |name: &str| is_allowed(subject, &Object::new("migration", name), &BTreeSet::new());
        let unknown = applied.iter().flatten().copied();
        let unknown: Vec<&str> = unknown
            .filter(|name| !known.contains(name) && !allowed(name))
            .collect();
        let of_kinds = |kinds: &'static [&'static str]| {
            let named = manifest.facts();
            let named = named.filter(move |fact| kinds.contains(&fact.kind.as_str()));
            named.map(|fact| fact.object.as_str())
        };
        let named: BTreeSet<&str> = of_kinds(NAMED).collect();
        let found = subject.catalogue.facts.iter().filter(|fact| {
            !unknown.is_empty()
                && NAMED.contains(&fact.kind.as_str())
                && !named.contains(fact.object.as_str())
        });
        Self {
            pending: applied.is_some_and(|applied| !known.is_subset(&applied)),
            columns: of_kinds(&["column"]).collect(),
            found: found.map(Fact::on_one_line).collect(),
            rules: Rules::new(subject.options, subject.runtime()),
            unknown,
            named,
            subject,
        }
    }

    /// Whether an unknown migration may have made the object, and the object reaches nothing that the manifest names. What acts on
    /// a table or function of the manifest is not new: a policy, a trigger, a grant, a view. Neither is what runs code of users.
    pub(super) fn is_new(&self, (kind, object): &Key<'_>, (expected, found): &Pair<'_>) -> bool {
        if self.unknown.is_empty() || !expected.is_empty() || found.is_empty() {
            return false;
        }
        if self.has(Risk::Code, kind, object) || found.iter().any(|fact| fact.contains("stored otherwise")) {
            return false;
        }
        let on = split(object, " on ").map(|(_, on)| on);
        match *kind {
            "policy" => self.is_beside(on.unwrap_or_default()),
            "grant" | "other grant" => on.is_some_and(|on| self.is_beside_granted(on)),
            _ if is_systems(on.unwrap_or(object)) => false,
            "table" => !found.iter().any(|fact| self.is_child(fact)),
            "function" | "procedure" | "aggregate" => self.is_harmless_function(kind, object, found),
            "constraint" => on.is_some_and(|table| self.is_new_constraint(object, table, found)),
            "index" => on.is_some_and(|table| self.is_new_index(table, found)),
            "sequence" | "column" | "foreign key" | "type" | "domain constraint" | "schema"
            | "statistics object" => true,
            _ => false,
        }
    }

    /// The new tables that are made as tenant tables are, with all of their parts.
    pub(super) fn obedient<'p>(&self, pairs: &'p BTreeMap<Key<'p>, Pair<'p>>) -> BTreeSet<&'p str> {
        if self.unknown.is_empty() {
            return BTreeSet::new();
        }
        let (new, others): (Vec<_>, Vec<_>) = pairs
            .iter()
            .filter(|(_, (expected, found))| expected.is_empty() && !found.is_empty())
            .partition(|((kind, object), pair)| {
                self.is_new(&(*kind, *object), pair) && !self.has(Risk::Type, kind, object)
            });
        let spoiled: BTreeSet<&str> = others
            .iter()
            .filter_map(|((kind, object), _)| table_of(kind, object))
            .collect();
        let tables = ServiceTables::of(new.into_iter().map(|(key, pair)| (*key, &pair.1)));
        let mut obedient = tables.obedient(&self.rules);
        obedient.retain(|table| !spoiled.contains(table));
        obedient
    }

    /// Whether a migration that was not applied yet may make the object.
    pub(super) fn is_awaited(&self, (_, found): &Pair<'_>) -> bool {
        self.pending && found.is_empty()
    }

    fn has(&self, risk: Risk, kind: &str, object: &str) -> bool {
        let mut all = self.subject.catalogue.risky.iter();
        all.any(|one| one.risk == risk && one.kind == kind && one_line(&one.object) == object)
    }

    fn is_ours(&self, name: &str) -> bool {
        name == "public" || self.named.contains(name)
    }

    fn is_beside(&self, name: &str) -> bool {
        !name.is_empty() && !self.is_ours(name) && !is_systems(name)
    }

    /// Whether a grant is on a new object. A view is none, and nor is a function that is no new one.
    fn is_beside_granted(&self, on: &str) -> bool {
        let Some((what, name)) = on.split_once(' ') else {
            return false;
        };
        let is_found = |kinds: &[&str]| {
            let mut found = self.found.iter();
            found.any(|fact| kinds.contains(&fact.kind.as_str()) && fact.object == name)
        };
        self.is_beside(name)
            && match what {
                "TABLE" => is_found(&["table"]),
                "SEQUENCE" => is_found(&["sequence"]),
                "ROUTINE" => self.found.iter().any(|fact| {
                    let found = BTreeSet::from([fact.fact.as_str()]);
                    ["function", "procedure", "aggregate"].contains(&fact.kind.as_str())
                        && fact.object == name
                        && self.is_new(&(&fact.kind, &fact.object), &(BTreeSet::new(), found))
                }),
                "SCHEMA" | "TYPE" => true,
                _ => false,
            }
    }

    /// Whether a table passes its rows to one of the manifest.
    fn is_child(&self, fact: &str) -> bool {
        let parents = fact.split_once("child of ").map(|(_, parents)| parents);
        parents.is_some_and(|parents| parents.split(' ').any(|parent| self.named.contains(parent)))
    }

    /// Whether a function does what its caller may and no more, and is called by no one who means another one: a name of the
    /// manifest with other arguments may be the better match.
    fn is_harmless_function(&self, kind: &str, object: &str, found: &BTreeSet<&str>) -> bool {
        let bare = |name: &str| name.split('(').next().unwrap_or_default().to_owned();
        let name = bare(object);
        let is_overload = self
            .named
            .iter()
            .any(|named| bare(named) == name && named.contains('('));
        let plain = |fact: &&str| {
            // What an aggregate calls is a function of its own.
            (kind == "aggregate"
                || fact.contains(" in sql owned by ")
                || fact.contains(" in plpgsql owned by "))
                && !fact.contains(" security definer")
                && !fact.contains(" leakproof")
        };
        !is_overload && found.iter().all(plain)
    }

    /// Whether a constraint is on a new table, or on a new column of one of the manifest and within its tenant. Of a new table, a
    /// reference to a table of the manifest is within the tenant as well: others tell which rows there are.
    fn is_new_constraint(&self, object: &str, table: &str, found: &BTreeSet<&str>) -> bool {
        let within = || found.iter().all(|fact| self.rules.is_of_tenant(fact));
        if !self.named.contains(table) {
            let refers_to_ours = |fact: &&str| {
                let referred = split(fact, " REFERENCES ").and_then(|(_, to)| split(to, "("));
                referred.is_some_and(|(to, _)| self.named.contains(to))
            };
            return !found.iter().any(refers_to_ours) || within();
        }
        let all = self.subject.catalogue.constrained.iter();
        let columns = |one: &Constrained| one.columns.iter().map(|name| one_line(name)).collect();
        let columns: Vec<String> = all
            .filter(|one| one_line(&one.object) == object)
            .flat_map(|one| -> Vec<String> { columns(one) })
            .collect();
        let has_new = columns.iter().any(|name| !self.columns.contains(name.as_str()));
        has_new && (self.is_global(table) || within())
    }

    /// Whether an index decides nothing about rows of several tenants of a table of the manifest.
    fn is_new_index(&self, table: &str, found: &BTreeSet<&str>) -> bool {
        let within = |fact: &&str| !fact.contains("UNIQUE") || self.rules.begins_with_tenant(fact, "btree (");
        !self.named.contains(table) || self.is_global(table) || found.iter().all(within)
    }

    /// Whether a table is one of the platform, whose rows are of no tenant.
    fn is_global(&self, table: &str) -> bool {
        let Some((schema, name)) = split(table, ".") else {
            return false;
        };
        let global = &self.subject.options.global_tables;
        global.iter().any(|entry| names(entry, schema, name))
    }
}

/// The kinds whose names others refer to.
const NAMED: &[&str] = &[
    "table",
    "view",
    "materialized view",
    "foreign table",
    "sequence",
    "function",
    "procedure",
    "aggregate",
];

/// Whether it is in a schema in which no migration makes anything.
fn is_systems(name: &str) -> bool {
    name.starts_with("pg_") || name.starts_with("information_schema.")
}

fn one_line(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}
