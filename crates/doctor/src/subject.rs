use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::{Catalogue, Grant, Index, Membership, Policy, Relation, TenantFunction};
use crate::expression::{Rule, Wrapper};
use crate::options::{listed, names};
use crate::{Object, Options, quote};

/// What is examined: a catalogue, seen from the runtime role.
pub(crate) struct Subject<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) options: &'a Options,
    /// The runtime role; when a server is its own witness, also who it was before SET ROLE.
    pub(crate) users: Vec<&'a str>,
    /// The users, and every role whose rights they have.
    pub(crate) inherited: BTreeSet<&'a str>,
    /// The users, and every role they can become.
    pub(crate) reachable: BTreeSet<&'a str>,
    /// The platform roles, where they exist and are not the users.
    pub(crate) platform: Vec<&'a str>,
    /// The owners of the tables, where they exist and are none of the others.
    pub(crate) keepers: Vec<&'a str>,
    /// What the platform roles have or can get, other than by way of greater roles.
    platform_peers: BTreeSet<&'a str>,
    /// Those of them that are no more than the users: what greater roles have, nobody should take from them
    /// because a user is in one.
    pub(crate) peers: BTreeSet<&'a str>,
    owners: BTreeSet<&'a str>,
    wrappers: Vec<Wrapper<'a>>,
    relations: BTreeMap<u32, &'a Relation>,
    policies: BTreeMap<u32, Vec<&'a Policy>>,
    indexes: BTreeMap<u32, Vec<&'a Index>>,
}

/// Whose the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Of the tenant in the tenant column.
    Tenant,
    /// Each is a tenant.
    Tenants,
    /// Nobody's, and that is on record.
    Global,
    /// An extension's own.
    Extension,
    /// Nobody said.
    Unlisted,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(catalogue: &'a Catalogue, options: &'a Options, users: Vec<&'a str>) -> Self {
        let relations = catalogue
            .relations
            .iter()
            .map(|relation| (relation.oid, relation));
        let mut subject = Self {
            catalogue,
            options,
            inherited: closure(catalogue, &users, |membership| membership.inherits),
            reachable: closure(catalogue, &users, |_| true),
            peers: BTreeSet::new(),
            platform: existing(catalogue, &options.platform_roles, &users),
            keepers: Vec::new(),
            platform_peers: BTreeSet::new(),
            owners: owners(catalogue),
            users,
            wrappers: Vec::new(),
            relations: relations.collect(),
            policies: group(&catalogue.policies, |policy| policy.relation),
            indexes: group(&catalogue.indexes, |index| index.relation),
        };
        let is_peer = |membership: &Membership| {
            !membership.role.starts_with("pg_") && subject.greatness(&membership.role).is_none()
        };
        let peers = closure(catalogue, &subject.users, is_peer);
        let platform_peers = closure(catalogue, &subject.platform, is_peer);
        (subject.peers, subject.platform_peers) = (peers, platform_peers);
        let others: Vec<&str> = subject.users.iter().chain(&subject.platform).copied().collect();
        subject.keepers = existing(catalogue, &options.owner_roles, &others);
        let wrappers = catalogue.tenant_functions.iter();
        subject.wrappers = wrappers
            .filter_map(|function| subject.wrapper(function))
            .collect();
        subject
    }

    /// The role that is examined.
    pub(crate) fn runtime(&self) -> &'a str {
        self.users.first().copied().unwrap_or_default()
    }

    /// The roles that work with rows: the users and the platform roles.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &'a str> {
        self.users.iter().chain(&self.platform).copied()
    }

    /// Every role of the application but the users.
    pub(crate) fn others(&self) -> impl Iterator<Item = &'a str> {
        self.platform.iter().chain(&self.keepers).copied()
    }

    pub(crate) fn relation(&self, oid: u32) -> Option<&'a Relation> {
        self.relations.get(&oid).copied()
    }

    pub(crate) fn scope(&self, relation: &Relation) -> Scope {
        let parent = relation.parents.first().and_then(|oid| self.relation(*oid));
        if relation.tenant.is_some() {
            let tenants = names(&self.options.tenants_table, &relation.schema, &relation.name);
            if tenants { Scope::Tenants } else { Scope::Tenant }
        } else if let (true, Some(parent)) = (relation.partition, parent) {
            self.scope(parent)
        } else if listed(&self.options.global_tables, &relation.schema, &relation.name) {
            Scope::Global
        } else if relation.extension.is_some() {
            Scope::Extension
        } else {
            Scope::Unlisted
        }
    }

    /// Every table but partitions, which have nothing that their parents have not.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'a Relation> {
        let all = self.catalogue.relations.iter();
        all.filter(|relation| relation.is_table() && !relation.partition)
    }

    /// The tables with rows of tenants, without partitions.
    pub(crate) fn tenant_tables(&self) -> impl Iterator<Item = &'a Relation> {
        self.tables().filter(|table| self.is_tenant(table))
    }

    /// The tables that are nobody's.
    pub(crate) fn global_tables(&self) -> impl Iterator<Item = &'a Relation> {
        self.tables().filter(|table| self.scope(table) == Scope::Global)
    }

    /// The tables of tenants that are queried under their own policies, rather than under those of a parent.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &'a Relation> {
        self.tenant_tables()
            .filter(|table| self.tenant_parent(table).is_none())
    }

    /// The partitions and the tenant tables themselves.
    pub(crate) fn all_with_tenant(&self) -> impl Iterator<Item = &'a Relation> {
        let all = self.catalogue.relations.iter();
        all.filter(|relation| relation.is_table() && self.is_tenant(relation))
    }

    pub(crate) fn is_tenant(&self, relation: &Relation) -> bool {
        matches!(self.scope(relation), Scope::Tenant | Scope::Tenants)
    }

    /// The tenant table that this one is a partition or a child of.
    pub(crate) fn tenant_parent(&self, relation: &Relation) -> Option<&'a Relation> {
        let parents = relation.parents.iter().filter_map(|oid| self.relation(*oid));
        parents.into_iter().find(|parent| self.is_tenant(parent))
    }

    /// The table with a row for each tenant.
    pub(crate) fn tenants(&self) -> Option<&'a Relation> {
        self.tables().find(|table| self.scope(table) == Scope::Tenants)
    }

    /// The name of the column that says whose a row is.
    pub(crate) fn column<'s>(&'s self, relation: &'s Relation) -> &'s str {
        let own = relation.tenant.as_ref().map(|column| column.name.as_str());
        own.unwrap_or(&self.options.tenant_column)
    }

    /// The type that tenant columns should have: that of the tenants' own id, else the most common.
    pub(crate) fn column_type(&self) -> &'a str {
        let of = |table: &'a Relation| table.tenant.as_ref().map(|column| column.type_name.as_str());
        if let Some(found) = self.tenants().and_then(of) {
            return found;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for found in self.tenant_tables().filter_map(of) {
            *counts.entry(found).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map_or("uuid", |(name, _)| name)
    }

    /// What the policies of a table have to say.
    pub(crate) fn rule<'s>(&'s self, relation: &'s Relation) -> Rule<'s> {
        let tenant = relation.tenant.as_ref();
        Rule {
            table: &relation.name,
            column: tenant.map_or(&self.options.tenant_column, |column| &column.name),
            column_type: tenant.map_or("uuid", |column| &column.type_name),
            setting: &self.options.setting,
            functions: &self.wrappers,
        }
    }

    pub(crate) fn policies(&self, relation: &Relation) -> impl Iterator<Item = &'a Policy> {
        self.policies.get(&relation.oid).into_iter().flatten().copied()
    }

    pub(crate) fn indexes(&self, relation: &Relation) -> impl Iterator<Item = &'a Index> {
        self.indexes.get(&relation.oid).into_iter().flatten().copied()
    }

    /// Whether the runtime role has what was granted, or can get it, other than by way of a greater role.
    pub(crate) fn holds(&self, grant: &Grant) -> bool {
        self.is_ours(grant.grantee.as_deref())
    }

    /// The same for the runtime role and the platform roles.
    pub(crate) fn any_holds(&self, grantee: Option<&str>) -> bool {
        self.is_ours(grantee) || grantee.is_some_and(|role| self.platform_peers.contains(role))
    }

    /// Whether what concerns a role (`None` is everybody) concerns the runtime role, other than by way of a greater
    /// one, about which there is a check of its own.
    pub(crate) fn is_ours(&self, role: Option<&str>) -> bool {
        role.is_none_or(|role| self.peers.contains(role))
    }

    /// Whether the role owns a relation, a schema or the database.
    pub(crate) fn owns_something(&self, role: &str) -> bool {
        self.owners.contains(role)
    }

    /// What makes a role more than the runtime role should be.
    pub(crate) fn greatness(&self, name: &str) -> Option<&'static str> {
        let role = self.catalogue.roles.iter().find(|role| role.name == name)?;
        match role {
            role if role.superuser => Some("is a superuser"),
            role if role.bypasses => Some("bypasses row-level security"),
            role if role.makes_roles => Some("makes roles"),
            role if role.replicates => Some("replicates"),
            _ if self.owners.contains(name) => Some("owns what is examined"),
            _ if self.is_platform(name) => Some("is a platform role"),
            _ => None,
        }
    }

    /// Whether the object is on the list of those that are meant.
    pub(crate) fn allows(&self, object: &Object) -> bool {
        self.options.allowed_objects.contains(&object.to_string())
    }

    /// Whether an object that is compared with a manifest is on that list, by its name or by its name and all that holds for it.
    pub(crate) fn allows_fact(&self, object: &Object) -> bool {
        let facts = self.catalogue.facts.iter();
        let found = facts.filter(|fact| fact.kind == object.kind && fact.object == object.name);
        let found: BTreeSet<String> = found.map(|fact| fact.on_one_line().fact).collect();
        let found: Vec<String> = found.into_iter().collect();
        self.allows(object)
            || self
                .options
                .allowed_objects
                .contains(&format!("{object}: {}", found.join(", ")))
    }

    /// Whether the extension is on that list, in any state or in the one that it is in.
    pub(crate) fn allows_extension(&self, name: &str) -> bool {
        let object = Object::new("extension", quote::identifier(name));
        let facts = self.catalogue.facts.iter();
        let mut states = facts.filter(|fact| fact.kind == object.kind && fact.object == object.name);
        let allowed = &self.options.allowed_objects;
        self.allows(&object)
            || states.any(|state| allowed.contains(&format!("{object}: {}", state.on_one_line().fact)))
    }

    /// Whether a role's wider policies are meant.
    pub(crate) fn is_platform(&self, name: &str) -> bool {
        self.options
            .platform_roles
            .iter()
            .any(|platform| platform == name)
    }

    /// Whether a listed function really gives the setting, the same throughout a query.
    fn wrapper(&self, function: &'a TenantFunction) -> Option<Wrapper<'a>> {
        let rule = Rule {
            table: "",
            column: &self.options.tenant_column,
            column_type: self.column_type(),
            setting: &self.options.setting,
            functions: &[],
        };
        let care = rule.gives_setting(&function.body)?;
        let (schema, name) = (function.schema.as_str(), function.name.as_str());
        (function.stable && function.language == "sql").then_some(Wrapper { schema, name, care })
    }
}

/// A grantee as SQL writes it.
pub(crate) fn grantee(name: Option<&str>) -> String {
    name.map_or_else(|| "PUBLIC".to_owned(), quote::identifier)
}

/// The roles, and those they are in, by such memberships as count.
pub(crate) fn closure<'a>(
    catalogue: &'a Catalogue,
    from: &[&'a str],
    counts: impl Fn(&Membership) -> bool,
) -> BTreeSet<&'a str> {
    let mut found: BTreeSet<&str> = from.iter().copied().collect();
    loop {
        let before = found.len();
        for membership in &catalogue.memberships {
            if found.contains(membership.member.as_str()) && counts(membership) {
                found.insert(&membership.role);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Those of the names that are roles, and not among others.
fn existing<'a>(catalogue: &'a Catalogue, names: &[String], others: &[&str]) -> Vec<&'a str> {
    let roles = catalogue.roles.iter().map(|role| role.name.as_str());
    roles
        .filter(|role| names.iter().any(|name| name == role) && !others.contains(role))
        .collect()
}

fn owners(catalogue: &Catalogue) -> BTreeSet<&str> {
    let relations = catalogue.relations.iter().map(|relation| relation.owner.as_str());
    let schemas = catalogue.schemas.iter().map(|schema| schema.owner.as_str());
    relations
        .chain(schemas)
        .chain([catalogue.server.database_owner.as_str()])
        .collect()
}

/// Things by the table they belong to: there may be thousands of either.
fn group<T>(all: &[T], of: impl Fn(&T) -> u32) -> BTreeMap<u32, Vec<&T>> {
    let mut groups: BTreeMap<u32, Vec<&T>> = BTreeMap::new();
    for one in all {
        groups.entry(of(one)).or_default().push(one);
    }
    groups
}
