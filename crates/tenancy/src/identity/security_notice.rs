//! Mail to a user when something happens to what protects their account.
//!
//! Each is a job that is stored with what it is about. A user gets a bounded number of each kind in a day
//! ([`SecurityNotice::most`]), so that nobody floods a mailbox; the audit log has them all.

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{SecurityNotice, User};
use tenantry_domain::kernel::{AccountNoticeId, Permission, StoreError, Time, UserId};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};
use crate::operations::mail::{self, AddressThen, MOST_ATTEMPTS, To};

/// Sends a notice about an account's security.
#[derive(Debug, Clone, Copy)]
pub struct SendSecurityNotice;

/// A notice about an account's security.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityNoticeTo {
    /// The user.
    pub to: UserId,
    /// The former address of the user, which gets the notice in place of the present one. Servers of earlier releases store it alone.
    pub former_address: Option<String>,
    /// The address that gets the notice.
    #[serde(default)]
    pub address: Option<AddressThen>,
    /// When it happened.
    pub at: Time,
    /// What happened.
    pub notice: SecurityNotice,
    /// Whether no further one of this kind is sent for a while.
    pub is_last: bool,
}

impl JobHandler for SendSecurityNotice {
    const KIND: &'static str = "account.security_notice";
    // Users of a suspended tenant get it, too.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = SecurityNoticeTo;

    async fn run(&self, cx: &Cx, payload: SecurityNoticeTo) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let former = payload.former_address.map(|email| AddressThen {
            email,
            is_verified: true,
        });
        let then = payload.address.or(former);
        let to = then.as_ref().map_or(To::Present, To::Then);
        let found = mail::recipient(cx, payload.to, to).await?;
        let is_left = |user: &User| then.as_ref().is_some_and(|then| then.is_left_by(user));
        // A change of the address that also locks the user out still notifies the former address.
        let Some((_, envelope)) = found.filter(|(user, _)| user.is_active || is_left(user)) else {
            tracing::info!("a notice is not sent: the user was removed or deactivated");
            return Ok(());
        };
        let message = payload
            .notice
            .message(&envelope.recipient, payload.at, payload.is_last);
        mail::send(cx, Self::KIND, &envelope, &message, payload.at).await
    }
}

/// Stores the job that sends a notice to a user, with the running transaction, unless the user got too many of its kind.
pub(crate) async fn notify(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
    notice: SecurityNotice,
) -> Result<(), StoreError> {
    match work.users().find(user).await? {
        Some(user) => enqueue(cx, work, (&user, None), notice).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Notifies every acting admin of the tenant.
pub(crate) async fn notify_admins(
    cx: &Cx,
    work: &mut Work,
    notice: &SecurityNotice,
) -> Result<(), StoreError> {
    for admin in mail::acting_admins(work).await? {
        notify(cx, work, admin, notice.clone()).await?;
    }
    Ok(())
}

/// Notifies every acting admin of the tenant of what counts only when it is announced. Returns whether each of them gets the mail.
pub(crate) async fn announce(cx: &Cx, work: &mut Work, notice: &SecurityNotice) -> Result<bool, StoreError> {
    let admins = mail::acting_admins(work).await?;
    let mut all = !admins.is_empty();
    for admin in admins {
        if let Some(user) = work.users().find(admin).await? {
            all &= enqueue(cx, work, (&user, None), notice.clone()).await?;
        }
    }
    Ok(all)
}

/// Notifies the former address of a user of whom an admin changed the address.
pub(crate) async fn notify_former(cx: &Cx, work: &mut Work, former: &User) -> Result<(), StoreError> {
    let address = Some(former.email.as_str().to_owned());
    let notice = SecurityNotice::EmailChangedByAdmin;
    enqueue(cx, work, (former, address), notice).await.map(|_| ())
}

/// Returns whether the notice is sent.
async fn enqueue(
    cx: &Cx,
    work: &mut Work,
    (user, former_address): (&User, Option<String>),
    notice: SecurityNotice,
) -> Result<bool, StoreError> {
    let (id, now) = (AccountNoticeId::next(cx.ids()), cx.now());
    let span = (now, now - SecurityNotice::WINDOW);
    let number = work
        .bounded_notices()
        .count(id, (user.id, &notice.counted_as()), span, notice.most())
        .await?;
    let Some(number) = number else {
        return Ok(false);
    };
    let payload = SecurityNoticeTo {
        to: user.id,
        former_address,
        address: Some(AddressThen::of(user)),
        at: now,
        is_last: number == notice.most(),
        notice,
    };
    let asked = job::enqueue::<SendSecurityNotice>(cx, work, &payload, Terms::default()).await;
    asked.map(|_| true).map_err(store_error)
}
