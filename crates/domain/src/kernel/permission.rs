use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::invalid::{Check, Invalid};
use super::role::Permission;

/// A type that stands for a permission, so that a signature can demand it: `Ctx<WriteTasks>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not stand for a permission",
    note = "declare permissions of your own with `permission! {{ pub ReadNotes = \"notes.read\" reads for Role::Viewer; }}`"
)]
pub trait Needs: 'static {
    /// The permission that the use case is called with.
    const PERMISSION: Permission;
}

/// Declares permissions of a service that embeds the product: a type for each, for signatures such as `Ctx<WriteNotes>`. The
/// documentation says what the permission is for, in the API too. `writes`: a suspended tenant, which is read-only, loses it;
/// `reads`: it does not. The role is the least that has it. API keys may have it as a scope, unless `people` follows the role.
///
/// The service registers each, and nobody has one that is not registered: see [`PermissionRegistry`].
///
/// ```
/// use tenantry_domain::kernel::{Needs as _, Role};
///
/// tenantry_domain::permission! {
///     /// See notes.
///     pub ReadNotes = "notes.read" reads for Role::Viewer;
///     /// Create and change notes.
///     pub WriteNotes = "notes.write" writes for Role::Member;
///     /// Decide who may see notes.
///     pub ShareNotes = "notes.share" writes for Role::Admin, people;
/// }
///
/// assert_eq!(WriteNotes::PERMISSION.as_str(), "notes.write");
/// assert_eq!(ReadNotes::PERMISSION.about(), "See notes.");
/// assert!(ReadNotes::PERMISSION.is_scope() && !ShareNotes::PERMISSION.is_scope());
/// ```
#[macro_export]
macro_rules! permission {
    (@writes reads) => {
        false
    };
    (@writes writes) => {
        true
    };
    (@is_scope) => {
        true
    };
    (@is_scope people) => {
        false
    };
    ($($(#[doc = $about:literal])+ $vis:vis $name:ident = $wire:literal $kind:ident for $least:path $(, $people:ident)?;)+) => {$(
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy)]
        $vis struct $name;

        impl $crate::kernel::Needs for $name {
            const PERMISSION: $crate::kernel::Permission =
                $crate::kernel::Permission::defined(&$crate::kernel::PermissionDefinition {
                    name: $wire,
                    about: concat!($($about),+),
                    least_role: Some($least),
                    writes: $crate::permission!(@writes $kind),
                    is_scope: $crate::permission!(@is_scope $($people)?),
                });
        }
    )+};
}

/// The most characters of a permission's name.
const LONGEST: usize = 64;

/// The most names that a request may list: more than there are permissions, and few enough to have an error each.
pub const MOST_NAMES: usize = 500;

/// The permissions of one service: the product's and its own. Made at start and not changed.
///
/// ```
/// use tenantry_domain::kernel::{Needs as _, PermissionRegistry, Role};
///
/// tenantry_domain::permission! {
///     /// See notes.
///     pub ReadNotes = "notes.read" reads for Role::Viewer;
/// }
///
/// let registry = PermissionRegistry::new([ReadNotes::PERMISSION])?;
/// assert_eq!(registry.find("notes.read"), Some(ReadNotes::PERMISSION));
/// assert_eq!(PermissionRegistry::default().find("notes.read"), None);
/// # Ok::<_, tenantry_domain::kernel::PermissionError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PermissionRegistry {
    all: Vec<Permission>,
    by_name: HashMap<&'static str, Permission>,
}

impl PermissionRegistry {
    /// The product's permissions and those of a service that embeds it.
    ///
    /// # Errors
    /// [`PermissionError`].
    pub fn new(own: impl IntoIterator<Item = Permission>) -> Result<Self, PermissionError> {
        let mut registry = Self::default();
        for permission in own {
            let name = permission.as_str();
            if !is_name(name) {
                return Err(PermissionError::Malformed(name));
            }
            if Permission::ALL.iter().any(|product| product.as_str() == name) {
                return Err(PermissionError::Taken(name));
            }
            if registry.by_name.insert(name, permission).is_some() {
                return Err(PermissionError::Duplicate(name));
            }
            registry.all.push(permission);
        }
        Ok(registry)
    }

    /// Every permission: the product's in the order of the permission matrix, then the service's in the order of its declaration.
    pub fn all(&self) -> &[Permission] {
        &self.all
    }

    /// The permission of that name.
    pub fn find(&self, name: &str) -> Option<Permission> {
        self.by_name.get(name).copied()
    }

    /// The permissions of these names, in the order of the registry. Each is one that API keys may have, or one of `held`; there are
    /// 1 to [`MOST_NAMES`]. `pointer` and `code` are those of a name that is neither.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn scopes(
        &self,
        (pointer, code): (&str, &'static str),
        names: &[String],
        held: &PermissionSet,
    ) -> Result<PermissionSet, Invalid> {
        let mut check = Check::new();
        let detail = "must name at least one permission";
        check.require(!names.is_empty(), pointer, "required", detail);
        if names.len() > MOST_NAMES {
            let detail = format!("must name at most {MOST_NAMES} permissions");
            return Err(Invalid::one(pointer, "too_many", detail));
        }
        for (index, name) in names.iter().enumerate() {
            let found = self.find(name);
            check.require(
                found.is_some_and(Permission::is_scope) || held.has_name(name),
                &format!("{pointer}/{index}"),
                code,
                "must be a permission with `scope: true` in GET /api/v1/permissions",
            );
        }
        check.verdict()?;
        let asked: PermissionSet = names.iter().map(String::as_str).collect();
        let known = self.all.iter().map(|permission| permission.as_str());
        let known = known.filter(|name| asked.has_name(name));
        // Then those that no permission of this service has.
        Ok(known.chain(names.iter().map(String::as_str)).collect())
    }

    /// Whether the permission is registered with this definition.
    pub fn contains(&self, permission: Permission) -> bool {
        self.find(permission.as_str()) == Some(permission)
    }
}

impl Default for PermissionRegistry {
    /// The product's permissions.
    fn default() -> Self {
        let named = |permission: &Permission| (permission.as_str(), *permission);
        Self {
            all: Permission::ALL.to_vec(),
            by_name: Permission::ALL.iter().map(named).collect(),
        }
    }
}

/// Two parts of small letters and underscores.
fn is_name(name: &str) -> bool {
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let parts = name.split_once('.');
    name.len() <= LONGEST && parts.is_some_and(|(noun, verb)| is_plain(noun) && is_plain(verb))
}

/// Why the permissions of a service cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermissionError {
    /// The name is not of the form that names have.
    #[error(
        "the permission `{0}` of this service has no valid name: it must be two parts of a-z and _ with a dot between them, \
         like notes.read, and at most {LONGEST} characters"
    )]
    Malformed(&'static str),
    /// The service registers the name twice.
    #[error("this service registers the permission `{0}` twice: give one of them another name")]
    Duplicate(&'static str),
    /// The product has a permission of that name.
    #[error("the permission `{0}` of this service has the name of one of Tenantry's: give it another name")]
    Taken(&'static str),
}

/// The names of some permissions, without duplicates, in the order in which they were put in. Cheap to clone.
///
/// Names that the service does not know are kept, for example those of a service that is no longer part of the program. They grant
/// nothing: a use case demands a [`Permission`], and none has such a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermissionSet(Arc<[String]>);

impl PermissionSet {
    /// Whether the permission is in the set.
    pub fn contains(&self, permission: Permission) -> bool {
        self.has_name(permission.as_str())
    }

    /// Whether the name is in the set, of a permission that the service knows or not.
    pub fn has_name(&self, name: &str) -> bool {
        self.0.iter().any(|one| one == name)
    }

    /// The names in the order of the set, to be stored and shown.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl<N: Into<String>> FromIterator<N> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let mut set: Vec<String> = Vec::new();
        for name in names.into_iter().map(Into::into) {
            if !set.contains(&name) {
                set.push(name);
            }
        }
        Self(set.into())
    }
}

impl Serialize for PermissionSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Role;

    crate::permission! {
        /// See
        /// notes.
        ReadNotes = "notes.read" reads for Role::Viewer;
        /// Create and change notes.
        WriteNotes = "notes.write" writes for Role::Member, people;
        /// See tasks, says this service.
        ReadTasks = "tasks.read" reads for Role::Viewer;
        /// See notes, but only admins.
        OtherReadNotes = "notes.read" reads for Role::Admin;
        /// No name.
        Dotless = "notes" reads for Role::Admin;
        /// Nor this.
        Shouted = "notes.Read" reads for Role::Admin;
        /// Nor this.
        ThreeParts = "notes.read.all" reads for Role::Admin;
        /// Nor this.
        TooLong = "notes.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" reads for Role::Admin;
    }

    #[test]
    fn permission_names_are_unique_and_well_formed() {
        let registry = PermissionRegistry::default();
        for permission in Permission::ALL {
            assert_eq!(registry.find(permission.as_str()), Some(*permission));
            assert!(is_name(permission.as_str()), "{permission:?}");
        }
        assert_eq!(registry.all(), Permission::ALL);
        assert_eq!(registry.by_name.len(), Permission::ALL.len());
        assert_eq!(registry.find("tasks.fly"), None);
    }

    #[test]
    fn permissions_of_a_service_follow_the_products() {
        let own = [ReadNotes::PERMISSION, WriteNotes::PERMISSION];
        let registry = PermissionRegistry::new(own).unwrap();
        assert_eq!(registry.all()[Permission::ALL.len()..], own);
        let [read, write] = own;
        assert_eq!(
            (read.about(), write.about()),
            ("See notes.", "Create and change notes.")
        );
        assert_eq!((read.is_scope(), read.writes()), (true, false));
        assert_eq!((write.is_scope(), write.writes()), (false, true));
        assert_eq!(write.least_role(), Some(Role::Member));
        assert!(registry.contains(read) && registry.contains(Permission::ReadTasks));
        assert!(
            !registry.contains(OtherReadNotes::PERMISSION),
            "another definition"
        );
        assert!(!PermissionRegistry::default().contains(read));
    }

    #[test]
    fn names_that_collide_are_refused_in_one_line() {
        let refused = |own: &[Permission]| {
            let error = PermissionRegistry::new(own.iter().copied()).unwrap_err();
            assert!(!error.to_string().contains('\n'));
            error
        };
        let read = ReadNotes::PERMISSION;
        let duplicate = PermissionError::Duplicate("notes.read");
        assert_eq!(refused(&[read, read]), duplicate);
        assert_eq!(refused(&[read, OtherReadNotes::PERMISSION]), duplicate);
        assert_eq!(
            refused(&[ReadTasks::PERMISSION]),
            PermissionError::Taken("tasks.read")
        );
        for malformed in [
            Dotless::PERMISSION,
            Shouted::PERMISSION,
            ThreeParts::PERMISSION,
            TooLong::PERMISSION,
        ] {
            let name = malformed.as_str();
            assert_eq!(refused(&[read, malformed]), PermissionError::Malformed(name));
        }
    }

    #[test]
    fn a_set_keeps_names_in_order_and_once() {
        let set: PermissionSet = ["tasks.write", "notes.gone", "tenant.read", "tasks.write"]
            .into_iter()
            .collect();
        assert_eq!(set.names(), ["tasks.write", "notes.gone", "tenant.read"]);
        assert!(set.contains(Permission::ReadTenant) && !set.contains(Permission::ReadTasks));
        assert!(set.has_name("notes.gone") && !set.has_name("notes"));
        assert!(PermissionSet::default().names().is_empty());
    }
}
