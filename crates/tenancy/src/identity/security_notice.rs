//! Mail to a user when something happens to what protects their account.
//!
//! Each is a job that is stored with what it is about. A user gets a bounded number of each kind in a day
//! ([`SecurityNotice::MOST`]), so that nobody floods a mailbox; the audit log has them all.

use serde::{Deserialize, Serialize};
use tenantry_domain::identity::{Email, SecurityNotice, User};
use tenantry_domain::kernel::{AccountNoticeId, Permission, StoreError, Time, UserId};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};
use crate::operations::mail::{self, PATIENCE, To};

/// Sends a notice about an account's security.
#[derive(Debug, Clone, Copy)]
pub struct SendSecurityNotice;

/// A notice about an account's security.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityNoticeTo {
    /// The user.
    pub to: UserId,
    /// The former address of the user, which gets the notice in place of the present one.
    pub former_address: Option<String>,
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
    const MAX_ATTEMPTS: u32 = PATIENCE;
    type Payload = SecurityNoticeTo;

    async fn run(&self, cx: &Cx, payload: SecurityNoticeTo) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let former = payload.former_address.map(Email::stored);
        let to = former.as_ref().map_or(To::Present, To::Former);
        let found = mail::recipient(cx, payload.to, to).await?;
        // A change of the address that also locks the user out still notifies the former address.
        let Some((_, envelope)) = found.filter(|(user, _)| user.is_active || former.is_some()) else {
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
    enqueue(cx, work, (user, None), notice).await
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

/// Notifies the former address of a user of whom an admin changed the address.
pub(crate) async fn notify_former(cx: &Cx, work: &mut Work, former: &User) -> Result<(), StoreError> {
    let address = former.email.as_str().to_owned();
    enqueue(
        cx,
        work,
        (former.id, Some(address)),
        SecurityNotice::EmailChangedByAdmin,
    )
    .await
}

async fn enqueue(
    cx: &Cx,
    work: &mut Work,
    (to, former_address): (UserId, Option<String>),
    notice: SecurityNotice,
) -> Result<(), StoreError> {
    let (id, now) = (AccountNoticeId::next(cx.ids()), cx.now());
    let span = (now, now - SecurityNotice::WINDOW);
    let number = work
        .bounded_notices()
        .count(id, (to, notice.kind()), span, SecurityNotice::MOST)
        .await?;
    let Some(number) = number else {
        return Ok(());
    };
    let payload = SecurityNoticeTo {
        to,
        former_address,
        at: now,
        notice,
        is_last: number == SecurityNotice::MOST,
    };
    let asked = job::enqueue::<SendSecurityNotice>(cx, work, &payload, Terms::default()).await;
    asked.map(|_| ()).map_err(store_error)
}
