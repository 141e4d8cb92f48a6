//! The list of a user's notifications.

use tenantry_domain::kernel::{NotificationId, Page, PageRequest, Permission, UserId};
use tenantry_domain::notifications::Notification;
use tenantry_domain::tenant::Refused;

use crate::{Cx, UseCaseError};

/// Errors of the use cases of notifications.
pub type NotificationError = UseCaseError;

/// A page of the caller's notifications, newest first: all, or those that are unread or read.
///
/// # Errors
/// [`NotificationError`].
pub async fn list(
    cx: &Cx,
    unread: Option<bool>,
    page: PageRequest,
) -> Result<Page<Notification>, NotificationError> {
    let user = own(cx)?;
    cx.read(async |work| Ok(work.notifications().list(user, unread, page).await?))
        .await
}

/// How many of the caller's notifications are unread.
///
/// # Errors
/// [`NotificationError`].
pub async fn count_unread(cx: &Cx) -> Result<u64, NotificationError> {
    let user = own(cx)?;
    cx.read(async |work| Ok(work.notifications().count_unread(user).await?))
        .await
}

/// Marks a notification of the caller as read or unread. One that is read already keeps the time.
///
/// # Errors
/// [`NotificationError`].
pub async fn mark(cx: &Cx, id: NotificationId, is_read: bool) -> Result<Notification, NotificationError> {
    let user = own(cx)?;
    cx.write(async |work| {
        let found = work.notifications().find_for_update(user, id).await?;
        let mut notification = found.ok_or(NotificationError::NotFound)?;
        if notification.read_at.is_some() != is_read {
            notification.read_at = is_read.then(|| cx.now());
            work.notifications().set_read(id, notification.read_at).await?;
        }
        Ok(notification)
    })
    .await
}

/// Marks all notifications of the caller as read. Returns how many were unread.
///
/// # Errors
/// [`NotificationError`].
pub async fn read_all(cx: &Cx) -> Result<u64, NotificationError> {
    let user = own(cx)?;
    cx.write(async |work| Ok(work.notifications().read_all(user, cx.now()).await?))
        .await
}

/// The user who asks. Notifications are of people: an API key and an operator have none.
pub(super) fn own(cx: &Cx) -> Result<UserId, Refused> {
    cx.require(Permission::ManageOwnAccount)?;
    cx.scope().user().ok_or(Refused::Forbidden)
}
