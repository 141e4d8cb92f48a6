//! The list of a user's notifications.

use tenantry_domain::kernel::{NotificationId, Page, PageRequest, Permission, UserId};
use tenantry_domain::notifications::{NoticeType, Notification};
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
    let (user, kinds) = (own(cx)?, readable(cx));
    let kinds = kinds.as_slice();
    cx.read(async |work| Ok(work.notifications().list(user, (kinds, unread), page).await?))
        .await
}

/// How many of the caller's notifications are unread.
///
/// # Errors
/// [`NotificationError`].
pub async fn count_unread(cx: &Cx) -> Result<u64, NotificationError> {
    let (user, kinds) = (own(cx)?, readable(cx));
    let kinds = kinds.as_slice();
    cx.read(async |work| Ok(work.notifications().count_unread(user, kinds).await?))
        .await
}

/// Marks a notification of the caller as read or unread. One that is read already keeps the time.
///
/// # Errors
/// [`NotificationError`].
pub async fn mark(cx: &Cx, id: NotificationId, is_read: bool) -> Result<Notification, NotificationError> {
    let (user, kinds) = (own(cx)?, readable(cx));
    let kinds = kinds.as_slice();
    cx.write(async |work| {
        let found = work.notifications().find_for_update(user, id, kinds).await?;
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
    let (user, kinds) = (own(cx)?, readable(cx));
    let kinds = kinds.as_slice();
    cx.write(async |work| Ok(work.notifications().read_all(user, kinds, cx.now()).await?))
        .await
}

/// The types of notifications that the caller may read now: a user who has lost a permission does not see what it is needed for. A
/// suspension of the tenant takes nothing away.
fn readable(cx: &Cx) -> Vec<&'static str> {
    let types = NoticeType::all().iter();
    let readable = types.filter(|notice| cx.scope().has(notice.needs));
    readable.map(|notice| notice.name).collect()
}

/// The user who asks. Notifications are of people: an API key and an operator have none.
pub(super) fn own(cx: &Cx) -> Result<UserId, Refused> {
    cx.require(Permission::ManageOwnAccount)?;
    cx.scope().user().ok_or(Refused::Forbidden)
}
