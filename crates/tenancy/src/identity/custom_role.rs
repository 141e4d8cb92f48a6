//! Roles that a tenant defines for itself: each narrows the role of the users who have one.

use tenantry_domain::identity::{CustomRole, CustomRolePatch, NewCustomRole, RoleName};
use tenantry_domain::kernel::{Constraint, CustomRoleId, Page, PageRequest, Permission, StoreError, counted};
use tenantry_domain::store::Work;

use crate::kernel::step_up::{RecentFactor, require_held};
use crate::plans::Feature;
use crate::{Changed, Cx, OwnReason, Precondition, UseCaseError, audited};

audited!(CustomRole, "role");

/// Errors of the use cases of custom roles.
pub type CustomRoleError = UseCaseError<CustomRoleReason>;

/// Why a custom role is not created or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CustomRoleReason {
    /// Another role of the tenant has that name.
    #[error("another role has this name")]
    NameTaken,
    /// The tenant has [`CustomRole::MOST`] roles.
    #[error("the tenant has {} custom roles, which is the maximum", CustomRole::MOST)]
    TooMany,
    /// The role is given to users or invitations.
    #[error("the role is in use by {} and {}", counted(.users, "user"), counted(.invitations, "invitation"))]
    InUse {
        /// How many users have it.
        users: u64,
        /// How many invitations, neither accepted nor revoked, name it.
        invitations: u64,
    },
}

impl OwnReason for CustomRoleReason {
    fn of_store(error: StoreError) -> CustomRoleError {
        match error {
            StoreError::Unique(Constraint::RoleName) => Self::NameTaken.into(),
            other => UseCaseError::Store(other),
        }
    }
}

/// A page of the tenant's roles, newest first.
///
/// # Errors
/// [`CustomRoleError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<CustomRole>, CustomRoleError> {
    cx.require(Permission::ReadRoles)?;
    cx.read(async |work| Ok(work.custom_roles().list(page).await?))
        .await
}

/// Returns one role.
///
/// # Errors
/// [`CustomRoleError`].
pub async fn get(cx: &Cx, name: &RoleName) -> Result<CustomRole, CustomRoleError> {
    cx.require(Permission::ReadRoles)?;
    cx.read(async |work| {
        let found = work.custom_roles().find(name).await?;
        found.ok_or(CustomRoleError::NotFound)
    })
    .await
}

/// Creates a role. Its permissions are among those of its creator.
///
/// # Errors
/// [`CustomRoleError`].
pub async fn create(cx: &Cx, new: NewCustomRole) -> Result<CustomRole, CustomRoleError> {
    cx.require(Permission::ManageRoles)?;
    cx.require_feature(Feature::CUSTOM_ROLES)?;
    let factor = cx.require_recent_factor().await??;
    let id = CustomRoleId::next(cx.ids());
    let role = CustomRole::new(id, new, &cx.ports().permissions, cx.now())?;
    require_held(cx, &role.permissions)?;
    cx.write_as_admin(async |work, _| {
        if work.custom_roles().count().await? >= CustomRole::MOST {
            return Err(CustomRoleReason::TooMany.into());
        }
        work.custom_roles().insert(&role).await?;
        record(cx, work, Changed::created(&role), factor).await?;
        Ok(role)
    })
    .await
}

/// Changes a role: the next request of each user who has it is held to the change. New permissions are among those of the caller.
/// Works without the plan's feature too.
///
/// # Errors
/// [`CustomRoleError`].
pub async fn update(
    cx: &Cx,
    name: &RoleName,
    when: &Precondition,
    patch: CustomRolePatch,
) -> Result<CustomRole, CustomRoleError> {
    cx.require(Permission::ManageRoles)?;
    let factor = cx.require_recent_factor().await??;
    cx.write_as_admin(async |work, _| {
        let before = find_for_update(work, name).await?;
        when.check(before.version)?;
        let mut role = before.clone();
        role.apply(patch.clone(), &cx.ports().permissions, cx.now())?;
        if role.permissions != before.permissions {
            require_held(cx, &role.permissions)?;
        }
        work.custom_roles().update(&role).await?;
        record(cx, work, Changed::updated(&before, &role), factor).await?;
        Ok(role)
    })
    .await
}

/// Deletes a role that no user and no invitation has. Works without the plan's feature too.
///
/// # Errors
/// [`CustomRoleError`].
pub async fn delete(cx: &Cx, name: &RoleName, when: &Precondition) -> Result<(), CustomRoleError> {
    cx.require(Permission::ManageRoles)?;
    let factor = cx.require_recent_factor().await??;
    // A request that gives a role to a user or an invitation locks the tenant first, too.
    cx.write_as_admin(async |work, _| {
        let before = find_for_update(work, name).await?;
        when.check(before.version)?;
        let users = work.users().count_with_role(name).await?;
        let invitations = work.invitations().count_with_role(name).await?;
        if users + invitations > 0 {
            return Err(CustomRoleReason::InUse { users, invitations }.into());
        }
        work.custom_roles().delete(&before).await?;
        record(cx, work, Changed::deleted(&before), factor).await?;
        Ok(())
    })
    .await
}

async fn find_for_update(work: &mut Work, name: &RoleName) -> Result<CustomRole, CustomRoleError> {
    let found = work.custom_roles().find_for_update(name).await?;
    found.ok_or(CustomRoleError::NotFound)
}

async fn record(cx: &Cx, work: &mut Work, changed: Changed, _: RecentFactor) -> Result<(), StoreError> {
    cx.record(work, changed).await
}
