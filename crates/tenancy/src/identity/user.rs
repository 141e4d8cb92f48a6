//! The people of a tenant.

use tenantry_domain::identity::{
    LinkPurpose, Password, PasswordError, RoleName, User, UserFilter, UserPatch,
};
use tenantry_domain::kernel::{Constraint, Invalid, Page, PageRequest, Permission, Role, StoreError, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;

use crate::identity::applicant::{self, Applicant, PrepareError};
use crate::identity::email_domain::AllowedDomains;
use crate::identity::{
    account_link, address, first_password, invitation, mfa, security_notice, session, support_end,
};
use crate::kernel::step_up::{
    self, ActingAdmin, GrantedRole, RecentFactor, may_give_role, require_acting_admin,
};
use crate::plans::Countable;
use crate::{Changed, Cx, OwnReason, Precondition, UseCaseError};

/// Errors of the user use cases.
pub type UserError = UseCaseError<UserReason>;

/// Why a user is not added, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum UserReason {
    /// Another user of the tenant has that address.
    #[error("the address is taken")]
    EmailTaken,
    /// The user registered and has not proven the address: neither the role nor the address is changed before.
    #[error("the user waits for the proof of the address")]
    AwaitsProof,
    /// The tenant would be left without an acting admin.
    #[error("the last admin cannot be removed, demoted or deactivated")]
    LastAdmin,
    /// The person cannot be erased: rows that no erasure deletes refer to rows that go with the account, by this foreign key.
    #[error("rows that cannot be deleted refer to rows of the user, by the foreign key {0}")]
    Referenced(String),
    /// Passwords cannot be hashed now.
    #[error(transparent)]
    Password(PasswordError),
}

impl OwnReason for UserReason {
    fn of_store(error: StoreError) -> UserError {
        match error {
            StoreError::Unique(Constraint::UserEmail) => Self::EmailTaken.into(),
            other => UseCaseError::Store(other),
        }
    }
}

/// Who is to be added, by an admin.
#[derive(Debug, Clone)]
pub struct AddUser {
    /// Their address.
    pub email: String,
    /// The name of the person, as shown to others.
    pub full_name: String,
    /// What the user may do in the tenant.
    pub role: Role,
    /// The name of the custom role that narrows the role, if one does.
    pub custom_role: Option<String>,
    /// Their password; generated when absent.
    pub password: Option<String>,
    /// Whether the password is the user's own, as in data for a demonstration. Otherwise it is a first one, which expires.
    pub is_own_password: bool,
}

/// A user that was added.
#[derive(Debug, Clone)]
pub struct Added {
    /// What is stored of the new user.
    pub user: User,
    /// The password, when it was generated; this is the only time it is seen.
    pub generated_password: Option<Password>,
}

/// A page of the tenant's users.
///
/// # Errors
/// [`UserError`].
pub async fn list(cx: &Cx, filter: &UserFilter, page: PageRequest) -> Result<Page<User>, UserError> {
    cx.require(Permission::ReadUsers)?;
    cx.read(async |work| Ok(work.users().list(filter, page).await?))
        .await
}

/// One user.
///
/// # Errors
/// [`UserError`].
pub async fn get(cx: &Cx, id: UserId) -> Result<User, UserError> {
    cx.require(Permission::ReadUsers)?;
    cx.read(async |work| work.users().find(id).await?.ok_or(UserError::NotFound))
        .await
}

/// Adds a user. The password is generated or the admin's choice, so it expires unless the user changes it.
///
/// # Errors
/// [`UserError`].
pub async fn create(cx: &Cx, data: AddUser) -> Result<Added, UserError> {
    cx.require(Permission::ManageUsers)?;
    let tenant = cx
        .read(async |work| work.tenants().current().await?.ok_or(UserError::NotFound))
        .await?;
    AllowedDomains::of(cx).await?.check_text(&data.email)?;
    let role = GrantedRole::by_caller(cx, data.role).await??;
    let custom_role = data.custom_role.as_deref().map(RoleName::of_user).transpose()?;
    let expires_at = match data.is_own_password {
        true => None,
        false => Some(cx.now() + first_password::lifetime(cx).await?),
    };
    let applicant = Applicant {
        email: data.email,
        full_name: data.full_name,
        password: data.password,
    };
    let (mut user, generated) = applicant::prepare(cx, applicant, role, &tenant).await?;
    user.custom_role = custom_role;
    user.password_expires_at = expires_at;
    cx.write_as_admin(async |work, _| {
        if let Some(name) = &user.custom_role {
            may_give_role::<UserError>(cx, work, name).await?;
        }
        if address::is_former(cx, work, &user.email, None).await? {
            return Err(UserReason::EmailTaken.into());
        }
        invitation::supersede(cx, work, &user.email).await?;
        address::supersede_registration(cx, work, &user.email).await?;
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Users)
            .await?;
        work.users().insert(&user).await?;
        cx.record(work, Changed::created(&user)).await?;
        account_link::verify(cx, work, &user).await?;
        Ok(Added {
            user,
            generated_password: generated,
        })
    })
    .await
}

/// Changes a user: admins anybody, everybody themselves, but role, custom role and activity only admins. Those and the address of
/// another user take a recent factor. The address of a user whose factor is not settled, or who registered and never proved the address,
/// takes a settled factor of one's own, as a reset of the factor does: a link to the new address would remove it. A user whose new role needs a second factor that they do not have loses their sessions,
/// and enrolls one at the next login.
///
/// # Errors
/// [`UserError`].
pub async fn update(cx: &Cx, id: UserId, when: &Precondition, patch: UserPatch) -> Result<User, UserError> {
    cx.require(Permission::EditSelf)?;
    let privileged = !patch.role.is_keep() || !patch.custom_role.is_keep() || !patch.is_active.is_keep();
    let is_of_admins = privileged || cx.scope().user() != Some(id);
    if is_of_admins {
        cx.require(Permission::ManageUsers)?;
    }
    let moves_another = cx.scope().user() != Some(id) && !patch.email.is_keep();
    let factor = if privileged || moves_another {
        Some(cx.require_recent_factor().await??)
    } else {
        None
    };
    let own_factor = if moves_another {
        Some(cx.require_own_factor().await?)
    } else {
        None
    };
    let domains = AllowedDomains::of(cx).await?;
    let required = mfa::requirement(cx).await?;
    cx.write(async |work| {
        if let Some(factor) = factor.filter(|_| privileged) {
            lock_admins(work, factor).await?;
        } else if is_of_admins || !patch.email.is_keep() {
            address::lock_tenant(work).await?;
        }
        let before = work
            .users()
            .find_for_update(id)
            .await?
            .ok_or(UserError::NotFound)?;
        when.check(before.version)?;
        let mut user = before.clone();
        user.apply(patch.clone(), cx.now())?;
        keep_registration(&before, &user)?;
        if user.email != before.email {
            may_move(cx, work, &user, own_factor).await?;
            domains.check(&user.email)?;
        }
        keep_an_admin(cx, work, &before, &user).await?;
        if is_of_admins {
            let _: ActingAdmin = require_acting_admin(cx, work).await??;
        }
        if let Some(name) = user
            .custom_role
            .as_ref()
            .filter(|_| user.custom_role != before.custom_role)
        {
            may_give_role::<UserError>(cx, work, name).await?;
        }
        // A registration takes its seat with the proof of the address.
        if user.is_active && !before.is_active && !user.awaits_proof() {
            cx.ports().entitlements.require_seat(cx, work).await?;
        }
        work.users().update(&user).await?;
        if let Some(factor) = factor.filter(|_| user.email != before.email) {
            readdressed(cx, work, (&before, &user), factor).await?;
        }
        if !user.is_active || mfa::is_missing_since(work, required, &before, &user).await? {
            session::end_all(cx, work, &mut user).await?;
        }
        cx.record(work, Changed::updated(&before, &user)).await?;
        Ok(user)
    })
    .await
}

/// Removes a user with their factors and passkeys, and ends their sessions.
///
/// # Errors
/// [`UserError`].
pub async fn delete(cx: &Cx, id: UserId, when: &Precondition) -> Result<(), UserError> {
    cx.require(Permission::ManageUsers)?;
    let factor = cx.require_recent_factor().await??;
    cx.write(async |work| {
        lock_admins(work, factor).await?;
        let before = work
            .users()
            .find_for_update(id)
            .await?
            .ok_or(UserError::NotFound)?;
        when.check(before.version)?;
        let mut user = before.clone();
        user.remove(cx.now());
        keep_an_admin(cx, work, &before, &user).await?;
        let _: ActingAdmin = require_acting_admin(cx, work).await??;
        session::end_all(cx, work, &mut user).await?;
        mfa::remove_all(work, id).await?;
        Ok(cx.record(work, Changed::deleted(&before)).await?)
    })
    .await
}

/// Makes sure that a user may be given the address by the caller, who is another user.
async fn may_move(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    own_factor: Option<Result<RecentFactor, Refused>>,
) -> Result<(), UserError> {
    // A session alone must not be enough to move an account to another inbox, and so to reset its password.
    let Some(own_factor) = own_factor else {
        let detail =
            "one's own address is changed by POST /api/v1/auth/change-email, which asks for the password";
        return Err(Invalid::one("/email", "confirmation_required", detail).into());
    };
    if address::is_reserved(cx, work, &user.email, Some(user.id)).await? {
        return Err(UserReason::EmailTaken.into());
    }
    let is_removed_by_link = if user.may_be_a_strangers() {
        step_up::has_any_factor(work, user.id).await?
    } else {
        step_up::has_unsettled_factor(cx, work, user.id).await?
    };
    if is_removed_by_link {
        let _: RecentFactor = own_factor?;
    }
    Ok(address::supersede_registration(cx, work, &user.email).await?)
}

/// What follows when an admin gives a user another address, which is not proven. Links to former addresses that take a change
/// back stay: the admin may not be who the owner of the account takes them for. The former address is notified.
async fn readdressed(
    cx: &Cx,
    work: &mut Work,
    (former, user): (&User, &User),
    _: RecentFactor,
) -> Result<(), StoreError> {
    let links = work.account_links();
    links.delete_of(user.id, &LinkPurpose::OF_PRESENT_ADDRESS).await?;
    security_notice::notify_former(cx, work, former).await?;
    account_link::verify(cx, work, user).await
}

/// Serialises everything that could take away an admin: two requests that each see the other admin must not both
/// succeed.
pub(super) async fn lock_admins(work: &mut Work, _: RecentFactor) -> Result<(), UserError> {
    work.tenants()
        .current_for_update()
        .await?
        .ok_or(UserError::NotFound)
        .map(|_| ())
}

/// Leaves the role and the address of a registration alone that waits for the proof of the address: nobody knows who registered, and the
/// one who proves the address takes what the account has.
fn keep_registration(before: &User, after: &User) -> Result<(), UserReason> {
    let of = |user: &User| (user.email.clone(), user.role, user.custom_role.clone());
    if before.awaits_proof() && of(before) != of(after) {
        return Err(UserReason::AwaitsProof);
    }
    Ok(())
}

/// Makes sure that there is another admin when one is taken away, revokes what that one has invited, and ends the accesses of operators that
/// one has approved.
pub(super) async fn keep_an_admin(
    cx: &Cx,
    work: &mut Work,
    before: &User,
    after: &User,
) -> Result<(), UserError> {
    let loses_one = before.is_acting_admin() && !after.is_acting_admin();
    if !loses_one {
        return Ok(());
    }
    if work.users().count_other_admins(after.id).await? == 0 {
        return Err(UserReason::LastAdmin.into());
    }
    support_end::of_approver(cx, work, Some(after.id)).await?;
    Ok(invitation::revoke_of(cx, work, after.id).await?)
}

impl From<PrepareError> for UserError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Invalid(invalid) => invalid.into(),
            PrepareError::Password(error) => UserReason::Password(error).into(),
            PrepareError::Store(error) => error.into(),
        }
    }
}
