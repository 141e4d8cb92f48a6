//! Mail to people of a tenant: a job for each mail, stored with what it tells of, so that there is a mail
//! exactly when that has happened, and one that fails keeps no other from being sent.
//!
//! A job names its recipient by id and finds them in its own tenant when the mail is sent. So no mail leaves
//! the tenant, and whoever is no admin any more gets none. A mail that is tried again carries the same
//! `Message-ID`, which is made of the job's id: where a server took it and its answer was lost, mail programs
//! show it once.

use serde::{Deserialize, Serialize};
use tenantry_domain::billing::Notice;
use tenantry_domain::identity::{Email, User, UserFilter};
use tenantry_domain::kernel::{
    Letter, Line, PageRequest, Permission, Reader, Role, StoreError, Time, UserId,
};
use tenantry_domain::operations::{Mail, MailError, Mailbox, MessageId};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::operations::job::{self, JobError, JobFailure, JobHandler, Terms};

/// A notice to one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// To whom.
    pub to: UserId,
    /// When what it tells of happened.
    pub at: Time,
    /// What it tells of.
    pub notice: Notice,
}

/// Sends a notice.
#[derive(Debug, Clone, Copy)]
pub struct SendMail;

impl JobHandler for SendMail {
    const KIND: &'static str = "mail.send";
    // A tenant that is suspended is told too.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = PATIENCE;
    type Payload = Parcel;

    async fn run(&self, cx: &Cx, parcel: Parcel) -> Result<(), JobFailure> {
        deliver(cx, &parcel).await
    }
}

/// Sends the last notice that people of a tenant get: when it runs the tenant is deleted.
#[derive(Debug, Clone, Copy)]
pub struct SendFarewell;

impl JobHandler for SendFarewell {
    const KIND: &'static str = "mail.farewell";
    const WRITES: bool = false;
    const AFTER_DELETION: bool = true;
    const MAX_ATTEMPTS: u32 = PATIENCE;
    type Payload = Parcel;

    async fn run(&self, cx: &Cx, parcel: Parcel) -> Result<(), JobFailure> {
        deliver(cx, &parcel).await
    }
}

/// How often a mail is tried: for about half a day.
pub(crate) const PATIENCE: u32 = 100;

impl From<MailError> for JobFailure {
    fn from(error: MailError) -> Self {
        if error.may_pass() {
            Self::Retry(error.to_string())
        } else {
            Self::Permanent(error.to_string())
        }
    }
}

/// Asks for a mail to each admin of the tenant, with the running transaction.
///
/// # Errors
/// [`JobError`].
pub async fn tell_admins<H>(cx: &Cx, work: &mut Work, notice: &Notice) -> Result<(), JobError>
where
    H: JobHandler<Payload = Parcel>,
{
    let admins = UserFilter {
        role: Some(Role::Admin),
        is_active: Some(true),
    };
    let mut page = PageRequest {
        limit: 100,
        after: None,
    };
    loop {
        let found = work.users().list(admins, page).await?;
        for user in &found.items {
            let parcel = Parcel {
                to: user.id,
                at: cx.now(),
                notice: notice.clone(),
            };
            job::enqueue::<H>(cx, work, &parcel, Terms::default()).await?;
        }
        page.after = found.next;
        if page.after.is_none() {
            return Ok(());
        }
    }
}

async fn deliver(cx: &Cx, parcel: &Parcel) -> Result<(), JobFailure> {
    cx.require(Permission::SendMail)?;
    match compose(cx, parcel).await? {
        Some(mail) => cx
            .ports()
            .mailer
            .send(&mail)
            .await
            .map(|_| ())
            .map_err(Into::into),
        None => {
            tracing::info!("a mail is not sent: its recipient is no active admin any more");
            Ok(())
        }
    }
}

/// The mail to whoever the recipient is now; none to somebody who is no admin any more.
async fn compose(cx: &Cx, parcel: &Parcel) -> Result<Option<Mail>, JobFailure> {
    let found = reader(cx, parcel.to).await?;
    let Some((user, reader)) = found.filter(|(user, _)| user.is_acting_admin()) else {
        return Ok(None);
    };
    let letter = parcel.notice.letter(&reader);
    addressed(cx, (user.email, reader), letter, parcel.at).map(Some)
}

/// A user, and how mails to them are written; `None` when there is no such user.
pub(crate) async fn reader(cx: &Cx, id: UserId) -> Result<Option<(User, Reader)>, StoreError> {
    let found = cx
        .read(async |work| {
            let user = work.users().find(id).await?;
            let tenant = work.tenants().current().await?;
            let branding = work.branding().current().await?;
            Ok::<_, StoreError>(user.zip(tenant).map(|(user, tenant)| (user, tenant, branding)))
        })
        .await?;
    Ok(found.map(|(user, tenant, branding)| {
        let reader = Reader {
            name: Line::of(&user.full_name),
            tenant: Line::of(branding.display_name.as_ref().unwrap_or(&tenant.name)),
            zone: tenant.settings.timezone,
            app_url: Line::of(&cx.app().policy.app_url),
        };
        (user, reader)
    }))
}

/// The mail of the job that the context is of.
///
/// # Errors
/// [`JobFailure::Permanent`] when the context is of no job.
pub(crate) fn addressed(
    cx: &Cx,
    (email, reader): (Email, Reader),
    letter: Letter,
    written_at: Time,
) -> Result<Mail, JobFailure> {
    let id = cx.scope().job().map(MessageId::of_job);
    Ok(Mail {
        id: id.ok_or_else(|| JobFailure::Permanent("a mail is sent by a job".into()))?,
        to: Mailbox {
            name: Some(reader.name),
            email,
        },
        subject: letter.subject,
        text: letter.text,
        html: None,
        written_at,
    })
}
