//! Roles that a tenant defines for itself.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::kernel::{
    Check, CustomRoleId, Invalid, MOST_NAMES, Page, PageRequest, Patch, Permission, PermissionRegistry,
    PermissionSet, Role, StoreError, Time,
};

/// The name of a custom role: 1 to 40 characters of `a-z`, `0-9`, `_` and `-`, the first one a letter, and no built-in role's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RoleName(String);

impl RoleName {
    /// The name in a text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let holds = (1..=40).contains(&text.len())
            && text.bytes().all(is_plain)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && Role::parse(text).is_none();
        holds.then(|| Self(text.to_owned()))
    }

    /// A name that was accepted before and kept by the database.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The name that a user or an invitation is given.
    ///
    /// # Errors
    /// `unknown_role` at `/custom_role` for a text that no role can have as its name.
    pub fn of_user(text: &str) -> Result<Self, Invalid> {
        Self::parse(text).ok_or_else(Self::unknown)
    }

    /// No role has the name that a user or an invitation was given.
    pub fn unknown() -> Invalid {
        Invalid::one(
            "/custom_role",
            "unknown_role",
            "must be a name in GET /api/v1/roles",
        )
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RoleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no [`RoleName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a custom role")]
pub struct ParseRoleNameError;

impl std::str::FromStr for RoleName {
    type Err = ParseRoleNameError;

    fn from_str(text: &str) -> Result<Self, ParseRoleNameError> {
        Self::parse(text).ok_or(ParseRoleNameError)
    }
}

impl TryFrom<String> for RoleName {
    type Error = ParseRoleNameError;

    fn try_from(text: String) -> Result<Self, ParseRoleNameError> {
        text.parse()
    }
}

impl From<RoleName> for String {
    fn from(name: RoleName) -> Self {
        name.0
    }
}

/// A named subset of the permissions of a built-in role. A user who has one can do what both their role and it allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CustomRole {
    /// Identifies the role in the audit log.
    pub id: CustomRoleId,
    /// Unique in the tenant; it does not change.
    pub name: RoleName,
    /// At most 200 characters.
    pub description: String,
    /// The built-in role that it is a part of: no user with the custom role has more than this one, whatever their role is.
    pub base_role: Role,
    /// What it leaves of a user's role, beside what every user has ([`Permission::OF_EVERY_USER`]).
    pub permissions: PermissionSet,
    /// When it was created.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Counts the changes, from 1.
    pub version: i64,
}

/// A role to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCustomRole {
    /// See [`CustomRole::name`].
    pub name: String,
    /// See [`CustomRole::description`]; empty when absent.
    pub description: Option<String>,
    /// See [`CustomRole::base_role`]; the minimum role that has all of the permissions when absent.
    pub base_role: Option<Role>,
    /// The names of permissions that the base role has and API keys may have, at least one.
    pub permissions: Vec<String>,
}

/// What may be changed of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomRolePatch {
    /// See [`CustomRole::description`].
    pub description: Patch<String>,
    /// See [`CustomRole::base_role`].
    pub base_role: Patch<Role>,
    /// See [`NewCustomRole::permissions`].
    pub permissions: Patch<Vec<String>>,
}

impl CustomRole {
    /// The most custom roles of a tenant.
    pub const MOST: u64 = 50;

    /// A new role, with permissions of a registry.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(
        id: CustomRoleId,
        new: NewCustomRole,
        permissions: &PermissionRegistry,
        now: Time,
    ) -> Result<Self, Invalid> {
        let mut check = Check::new();
        let name = RoleName::parse(&new.name);
        check.require(
            name.is_some(),
            "/name",
            "invalid_name",
            "must have 1 to 40 characters of a-z, 0-9, _ and -, begin with a letter, and be none of admin, member and viewer",
        );
        let set = check.take(read(&new.permissions, &PermissionSet::default(), permissions));
        let set = set.unwrap_or_default();
        if let Some(base_role) = new.base_role {
            check_within(&mut check, base_role, &new.permissions, permissions);
        }
        let base_role = new.base_role.unwrap_or_else(|| least_role(&set, permissions));
        let role = Self {
            id,
            name: name.unwrap_or_else(|| RoleName(String::new())),
            description: new.description.unwrap_or_default().trim().to_owned(),
            base_role,
            permissions: set,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        check.line("/description", &role.description, 0..=200);
        check.verdict()?;
        Ok(role)
    }

    /// Applies a change. Permissions are among those of a registry; those that the role has already may stay.
    ///
    /// # Errors
    /// [`Invalid`]; then nothing has changed.
    pub fn apply(
        &mut self,
        patch: CustomRolePatch,
        permissions: &PermissionRegistry,
        now: Time,
    ) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut role = self.clone();
        check.not_null("/base_role", &patch.base_role);
        check.not_null("/permissions", &patch.permissions);
        match patch.description {
            Patch::Keep => {}
            Patch::Clear => role.description = String::new(),
            Patch::Set(text) => text.trim().clone_into(&mut role.description),
        }
        check.line("/description", &role.description, 0..=200);
        let is_lowered = !patch.base_role.is_keep();
        patch.base_role.apply_required(&mut role.base_role);
        if let Patch::Set(names) = patch.permissions {
            let set = check.take(read(&names, &self.permissions, permissions));
            check_within(&mut check, role.base_role, &names, permissions);
            role.permissions = set.unwrap_or_default();
        } else if is_lowered {
            check.require(
                role.base_role >= least_role(&self.permissions, permissions),
                "/base_role",
                "too_low",
                "must have each permission of the role, see `least_role` in GET /api/v1/permissions",
            );
        }
        check.verdict()?;
        role.updated_at = now;
        role.version += 1;
        *self = role;
        Ok(())
    }
}

/// What a custom role leaves of a user's permissions, as scopes carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Narrowing {
    /// See [`CustomRole::base_role`].
    pub base_role: Role,
    /// See [`CustomRole::permissions`].
    pub permissions: PermissionSet,
}

impl Narrowing {
    /// Whether a user with the custom role keeps a permission that their role has. What decides who may do what is for users with
    /// all of their role: a custom role never leaves it, as no API key has it.
    pub fn leaves(&self, permission: Permission) -> bool {
        let in_base = permission
            .least_role()
            .is_some_and(|least| self.base_role >= least);
        let is_listed = permission.is_scope() && self.permissions.contains(permission);
        Permission::OF_EVERY_USER.contains(&permission) || in_base && is_listed
    }

    /// What a role is with the custom role: a member at the most, since what admins may beyond their permissions is not left.
    pub fn narrowed(&self, role: Role) -> Role {
        role.min(self.base_role).min(Role::Member)
    }
}

/// The minimum role that has all of the permissions.
fn least_role(set: &PermissionSet, permissions: &PermissionRegistry) -> Role {
    let named = set.names().iter().filter_map(|name| permissions.find(name));
    named
        .filter_map(Permission::least_role)
        .max()
        .unwrap_or(Role::Viewer)
}

/// Notes each permission that the base role does not have: it would never be effective.
fn check_within(check: &mut Check, base_role: Role, names: &[String], permissions: &PermissionRegistry) {
    for (index, name) in names.iter().enumerate().take(MOST_NAMES) {
        let found = permissions.find(name).filter(|found| found.is_scope());
        let least = found.and_then(Permission::least_role);
        check.require(
            least.is_none_or(|least| base_role >= least),
            &format!("/permissions/{index}"),
            "not_in_base_role",
            "must be a permission that the base role has, see `least_role` in GET /api/v1/permissions",
        );
    }
}

fn read(
    names: &[String],
    held: &PermissionSet,
    permissions: &PermissionRegistry,
) -> Result<PermissionSet, Invalid> {
    permissions.scopes(("/permissions", "unknown_permission"), names, held)
}

/// The custom roles of the scope's tenant.
#[async_trait]
pub trait CustomRoles: Send {
    /// The role of that name.
    async fn find(&mut self, name: &RoleName) -> Result<Option<CustomRole>, StoreError>;
    /// The same, locked until the transaction ends.
    async fn find_for_update(&mut self, name: &RoleName) -> Result<Option<CustomRole>, StoreError>;
    /// A page of them, newest first.
    async fn list(&mut self, page: PageRequest) -> Result<Page<CustomRole>, StoreError>;
    /// How many there are. Only meaningful while the tenant is locked.
    async fn count(&mut self) -> Result<u64, StoreError>;
    /// Adds a role.
    async fn insert(&mut self, role: &CustomRole) -> Result<(), StoreError>;
    /// Stores a changed role. Users who have it are held to it with their next request.
    async fn update(&mut self, role: &CustomRole) -> Result<(), StoreError>;
    /// Deletes a role that no user has.
    async fn delete(&mut self, role: &CustomRole) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn new(name: &str, permissions: &[&str]) -> Result<CustomRole, Vec<String>> {
        let new = NewCustomRole {
            name: name.into(),
            description: Some(" Answers questions. ".into()),
            base_role: None,
            permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
        };
        let registry = PermissionRegistry::default();
        let role = CustomRole::new(Uuid::from_u128(1).into(), new, &registry, Time::UNIX_EPOCH);
        role.map_err(|invalid| invalid.0.into_iter().map(|error| error.pointer).collect())
    }

    #[test]
    fn a_role_has_permissions_of_the_registry_in_its_order() {
        let role = new("support", &["tasks.write", "tasks.read", "tasks.read"]).unwrap();
        assert_eq!(role.permissions.names(), ["tasks.read", "tasks.write"]);
        assert_eq!(
            (role.description.as_str(), role.base_role),
            ("Answers questions.", Role::Member)
        );
        assert_eq!(new("support", &[]), Err(vec!["/permissions".into()]));
        let wrong = new(
            "Support",
            &["tasks.read", "tasks.fly", "users.manage", "mail.send"],
        );
        let expected = ["/name", "/permissions/1", "/permissions/2", "/permissions/3"];
        assert_eq!(wrong.unwrap_err(), expected);
    }

    #[test]
    fn names_of_built_in_roles_are_no_names() {
        for name in [
            "admin",
            "member",
            "viewer",
            "",
            "1st",
            "-a",
            "a b",
            "a/b",
            "ä",
            "Admin",
            &"a".repeat(41),
        ] {
            assert_eq!(RoleName::parse(name), None, "{name}");
        }
        for name in ["a", "support-2_b", &"a".repeat(40)] {
            assert_eq!(RoleName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_change_of_a_role_is_applied_whole_or_not() {
        let registry = PermissionRegistry::default();
        let mut role = new("support", &["tasks.read"]).unwrap();
        let before = role.clone();
        let patch = |names: &[&str]| CustomRolePatch {
            description: Patch::Clear,
            base_role: Patch::Keep,
            permissions: Patch::Set(names.iter().map(|name| (*name).to_owned()).collect()),
        };
        assert!(
            role.apply(patch(&["tasks.fly"]), &registry, Time::UNIX_EPOCH)
                .is_err()
        );
        let cleared = CustomRolePatch {
            permissions: Patch::Clear,
            ..CustomRolePatch::default()
        };
        assert!(role.apply(cleared, &registry, Time::UNIX_EPOCH).is_err());
        // The base role is what has all of its permissions.
        assert_eq!(role.base_role, Role::Viewer);
        assert!(
            role.apply(patch(&["tasks.write"]), &registry, Time::UNIX_EPOCH)
                .is_err()
        );
        assert_eq!(role, before);
        role.apply(patch(&["projects.read"]), &registry, Time::UNIX_EPOCH)
            .unwrap();
        assert_eq!((role.version, role.description.as_str()), (2, ""));
        assert_eq!(role.permissions.names(), ["projects.read"]);
    }

    #[test]
    fn a_permission_above_the_base_role_is_refused() {
        let registry = PermissionRegistry::default();
        let new = NewCustomRole {
            name: "support".into(),
            description: None,
            base_role: Some(Role::Viewer),
            permissions: vec!["tasks.read".into(), "tasks.write".into()],
        };
        let refused =
            CustomRole::new(Uuid::from_u128(1).into(), new, &registry, Time::UNIX_EPOCH).unwrap_err();
        assert_eq!(
            (refused.0[0].pointer.as_str(), refused.0[0].code),
            ("/permissions/1", "not_in_base_role")
        );
        let mut role = self::new("support", &["tasks.read", "tasks.write"]).unwrap();
        let lower = CustomRolePatch {
            base_role: Patch::Set(Role::Viewer),
            ..CustomRolePatch::default()
        };
        let refused = role.apply(lower, &registry, Time::UNIX_EPOCH).unwrap_err();
        assert_eq!(
            (refused.0[0].pointer.as_str(), refused.0[0].code),
            ("/base_role", "too_low")
        );
    }

    #[test]
    fn a_huge_list_is_one_error() {
        let names = vec!["tasks.fly"; MOST_NAMES + 1];
        assert_eq!(new("support", &names).unwrap_err(), ["/permissions"]);
    }

    /// For each base role and permission, with every permission listed: what is left is in the base role, and is no permission that
    /// decides who may do what.
    #[test]
    fn what_is_left_is_never_more_than_the_base_role() {
        for base_role in [Role::Viewer, Role::Member, Role::Admin] {
            let narrowing = Narrowing {
                base_role,
                permissions: Permission::ALL
                    .iter()
                    .map(|permission| permission.as_str())
                    .collect(),
            };
            for permission in Permission::ALL {
                let in_base = permission.least_role().is_some_and(|least| base_role >= least);
                let own = Permission::OF_EVERY_USER.contains(permission);
                assert_eq!(
                    narrowing.leaves(*permission),
                    own || in_base && permission.is_scope(),
                    "{permission:?}"
                );
            }
            for role in [Role::Viewer, Role::Member, Role::Admin] {
                let narrowed = narrowing.narrowed(role);
                assert!(narrowed <= role && narrowed <= base_role && narrowed < Role::Admin);
            }
        }
    }
}
