//! Tables that another service made over the same database, and whether each is made as a tenant table is.

use std::collections::{BTreeMap, BTreeSet};

use super::expected::{Key, split};
use crate::Options;
use crate::quote::literal;

/// The new objects of an unknown migration, by the table that they are parts of.
#[derive(Debug, Default)]
pub(super) struct ServiceTables<'a> {
    parts: BTreeMap<&'a str, Vec<(Key<'a>, &'a BTreeSet<&'a str>)>>,
}

impl<'a> ServiceTables<'a> {
    /// Groups new objects, each with what holds for it.
    pub(super) fn of(objects: impl IntoIterator<Item = (Key<'a>, &'a BTreeSet<&'a str>)>) -> Self {
        let objects: Vec<_> = objects.into_iter().collect();
        let tables = objects.iter().filter(|((kind, _), _)| *kind == "table");
        let mut parts: BTreeMap<_, _> = tables.map(|((_, name), _)| (*name, Vec::new())).collect();
        for ((kind, object), facts) in objects {
            if let Some(own) = table_of(kind, object).and_then(|table| parts.get_mut(table)) {
                own.push(((kind, object), facts));
            }
        }
        Self { parts }
    }

    /// The tables that obey each rule of a tenant table for the runtime role, with all of their parts.
    pub(super) fn obedient(&self, rules: &Rules<'_>) -> BTreeSet<&'a str> {
        let obedient = self
            .parts
            .iter()
            .filter(|(table, parts)| rules.obeyed_by(table, parts));
        obedient.map(|(table, _)| *table).collect()
    }
}

/// The table that an object is, or is a part of.
pub(super) fn table_of<'t>(kind: &str, object: &'t str) -> Option<&'t str> {
    let on = split(object, " on ").map(|(_, on)| on);
    match kind {
        "table" => Some(object),
        "column" => {
            let outside = |dot: usize| object[..dot].matches('"').count().is_multiple_of(2);
            let mut dots = object.rmatch_indices('.').map(|(dot, _)| dot);
            dots.find(|dot| outside(*dot)).map(|dot| &object[..dot])
        }
        "constraint" | "foreign key" | "index" | "policy" | "trigger" | "rule" => on,
        "grant" | "other grant" => on.and_then(|on| on.strip_prefix("TABLE ")),
        _ => None,
    }
}

/// How `TenantTable` of the migrations makes a table: what differs from it is no tenant table for the doctor.
pub(super) struct Rules<'o> {
    options: &'o Options,
    runtime: &'o str,
    policies: BTreeSet<String>,
}

impl<'o> Rules<'o> {
    pub(super) fn new(options: &'o Options, runtime: &'o str) -> Self {
        let (column, setting) = (&options.tenant_column, literal(&options.setting));
        let rule = format!("(({column} = (NULLIF(current_setting({setting}::text, true), ''::text))::uuid))");
        let policies = [
            format!("FOR SELECT TO {runtime} USING {rule}"),
            format!("FOR INSERT TO {runtime} WITH CHECK {rule}"),
            format!("FOR UPDATE TO {runtime} USING {rule} WITH CHECK {rule}"),
            format!("FOR DELETE TO {runtime} USING {rule}"),
        ];
        Self {
            options,
            runtime,
            policies: policies.into(),
        }
    }

    fn obeyed_by(&self, table: &str, parts: &[(Key<'_>, &BTreeSet<&str>)]) -> bool {
        let mut policies = BTreeSet::new();
        let (mut has_key, mut has_tenant, mut has_column) = (false, false, false);
        let column = &self.options.tenant_column;
        for ((kind, object), facts) in parts {
            let mut facts = facts.iter().copied();
            // Each part has one fact, but for a grant, which has one for each right.
            let obeys = match *kind {
                "grant" => facts.all(|right| self.is_granted(object, right)),
                kind => {
                    facts.len() == 1
                        && facts.all(|fact| {
                            !fact.contains("stored otherwise")
                                && match kind {
                                    "table" => self.is_owned(fact),
                                    "column" if object.strip_prefix(table) == Some(&format!(".{column}")) => {
                                        has_column = fact == "uuid not null";
                                        has_column
                                    }
                                    "column" => true,
                                    "constraint" => {
                                        has_key |= fact.starts_with("PRIMARY KEY");
                                        has_tenant |= self.refers_to_tenants(fact);
                                        self.is_of_tenant(fact)
                                    }
                                    "foreign key" => fact == "enforced",
                                    "index" => {
                                        !fact.contains("UNIQUE") || self.begins_with_tenant(fact, "btree (")
                                    }
                                    "policy" => {
                                        policies.insert(fact.to_owned()) && self.policies.contains(fact)
                                    }
                                    _ => false,
                                }
                        })
                }
            };
            if !obeys {
                return false;
            }
        }
        has_key && has_tenant && has_column && policies == self.policies
    }

    fn is_owned(&self, fact: &str) -> bool {
        let owners = self.options.owner_roles.iter();
        let mut forced = owners.map(|owner| format!("owned by {owner}, row security enabled, forced"));
        forced.any(|expected| fact == expected)
    }

    /// Whether a right is one that the runtime role has on a tenant table.
    fn is_granted(&self, object: &str, right: &str) -> bool {
        let to = split(object, " on ").map(|(to, _)| to);
        to == Some(self.runtime) && ["SELECT", "INSERT", "UPDATE", "DELETE"].contains(&right)
    }

    fn refers_to_tenants(&self, fact: &str) -> bool {
        let (column, id) = (&self.options.tenant_column, &self.options.tenants_id_column);
        let tenants = &self.options.tenants_table;
        let reference = |table: String| format!("FOREIGN KEY ({column}) REFERENCES {table}({id})");
        let references = [reference(format!("public.{tenants}")), reference(tenants.clone())];
        references.iter().any(|reference| fact.starts_with(reference))
    }

    /// Whether a constraint is about rows of one tenant: a key that begins with the tenant, a reference within it, or a check.
    pub(super) fn is_of_tenant(&self, fact: &str) -> bool {
        let is = |what: &str| fact.starts_with(what) && self.begins_with_tenant(fact, what);
        let refers_within = || {
            let (_, referred) = fact.split_once(" REFERENCES ").unwrap_or_default();
            self.begins_with_tenant(referred, "(")
        };
        fact.starts_with("CHECK (")
            || is("PRIMARY KEY (")
            || is("UNIQUE (")
            || self.refers_to_tenants(fact)
            || is("FOREIGN KEY (") && refers_within()
    }

    /// Whether the list of columns after these words begins with the tenant column.
    pub(super) fn begins_with_tenant(&self, fact: &str, words: &str) -> bool {
        let rest = fact.split_once(words).map(|(_, columns)| columns);
        let rest = rest.and_then(|columns| columns.strip_prefix(self.options.tenant_column.as_str()));
        rest.is_some_and(|rest| rest.starts_with([',', ')']))
    }
}
