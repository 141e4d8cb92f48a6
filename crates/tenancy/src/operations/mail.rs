//! Mail to people of a tenant: a job for each mail, stored with what it tells of, so that there is a mail
//! exactly when that has happened, and one that fails keeps no other from being sent.
//!
//! A job names its recipient by id and finds them in its own tenant when the mail is sent. So no mail leaves
//! the tenant, and whoever is no admin any more gets none. A mail that is tried again carries the same
//! `Message-ID`, which is made of the job's id: where a server took it and its answer was lost, mail programs
//! show it once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::billing::Notice;
use tenantry_domain::customization::Colour;
use tenantry_domain::identity::{Email, User};
use tenantry_domain::kernel::{
    Language, Line, Message, PageRequest, Permission, Recipient, StoreError, SystemScope, Time, UserId,
};
use tenantry_domain::operations::{
    Look, Mail, MailDecision, MailError, MailLimits, Mailbox, MessageId, OutgoingMail,
};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Capability;

use crate::audit::refusal::{self, Refusal, RefusedAction};
use crate::operations::job::{self, JobError, JobFailure, JobHandler, Terms};
use crate::{Cx, Tenancy};

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
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = Parcel;

    async fn run(&self, cx: &Cx, parcel: Parcel) -> Result<(), JobFailure> {
        deliver(cx, Self::KIND, &parcel).await
    }
}

/// Sends the last notice that people of a tenant get: when it runs the tenant is deleted.
#[derive(Debug, Clone, Copy)]
pub struct SendFarewell;

impl JobHandler for SendFarewell {
    const KIND: &'static str = "mail.farewell";
    const WRITES: bool = false;
    const AFTER_DELETION: bool = true;
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = Parcel;

    async fn run(&self, cx: &Cx, parcel: Parcel) -> Result<(), JobFailure> {
        deliver(cx, Self::KIND, &parcel).await
    }
}

/// How often a mail is tried: for about half a day.
pub(crate) const MOST_ATTEMPTS: u32 = 100;

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
    for to in acting_admins(work).await? {
        let parcel = Parcel {
            to,
            at: cx.now(),
            notice: notice.clone(),
        };
        job::enqueue::<H>(cx, work, &parcel, Terms::default()).await?;
    }
    Ok(())
}

/// The acting admins of the tenant, who get what concerns all of it.
pub(crate) async fn acting_admins(work: &mut Work) -> Result<Vec<UserId>, StoreError> {
    let mut page = PageRequest {
        limit: 100,
        after: None,
    };
    let mut admins = Vec::new();
    loop {
        let found = work.users().list_acting_admins(page).await?;
        admins.extend(found.items.iter().map(|admin| admin.id));
        page.after = found.next;
        if page.after.is_none() {
            return Ok(admins);
        }
    }
}

async fn deliver(cx: &Cx, kind: &'static str, parcel: &Parcel) -> Result<(), JobFailure> {
    cx.require(Permission::SendMail)?;
    let found = recipient(cx, parcel.to, To::Present).await?;
    let Some((_, envelope)) = found.filter(|(user, _)| user.is_acting_admin()) else {
        tracing::info!("a mail is not sent: its recipient is no active admin any more");
        return Ok(());
    };
    let message = parcel.notice.message(&envelope.recipient);
    send(cx, kind, &envelope, &message, parcel.at).await
}

/// The user, also of a tenant that is deleted.
async fn user_of(cx: &Cx, work: &mut Work, id: UserId) -> Result<Option<User>, StoreError> {
    if cx.scope().allows(Capability::Read) {
        return work.users().find(id).await;
    }
    let tenant = work.tenants().current().await?;
    match tenant.and_then(|tenant| tenant.deleted_at) {
        Some(deleted) => work.users().find_as_of_deletion(id, deleted).await,
        None => Ok(None),
    }
}

/// Which address of a user a mail goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To<'a> {
    /// The address that the account has now.
    Present,
    /// The address that the account had when something happened, which the mail is about.
    Then(&'a AddressThen),
    /// Another one, which may be a stranger's.
    Other(&'a Email),
    /// One that was verified before the user got another one.
    Former(&'a Email),
}

/// The address that a user had when something happened. A notice goes there also when the account has another one by the time that it is
/// sent, which may be a thief's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressThen {
    /// The address.
    pub email: String,
    /// Whether the user had verified it.
    pub is_verified: bool,
}

impl AddressThen {
    /// The present address of a user.
    pub(crate) fn of(user: &User) -> Self {
        Self {
            email: user.email.as_str().to_owned(),
            is_verified: user.email_verified,
        }
    }

    /// Whether the user has had another address since.
    pub(crate) fn is_left_by(&self, user: &User) -> bool {
        self.email != user.email.as_str()
    }
}

/// The address of a mail, and what its text and its look depend on.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// The address.
    pub email: Email,
    /// Whether the recipient has verified it, as a user of the tenant.
    pub is_verified: bool,
    /// The recipient's names, as the mail shows them.
    pub recipient: Recipient,
    /// The mail's colors and language.
    pub look: Look,
    /// The link that ends mails like this one.
    pub unsubscribe: Option<String>,
}

/// Returns a user and the envelope of a mail to the user; `None` when there is no such user.
pub(crate) async fn recipient(
    cx: &Cx,
    id: UserId,
    to: To<'_>,
) -> Result<Option<(User, Envelope)>, StoreError> {
    let user = cx.read(async |work| user_of(cx, work, id).await).await?;
    let Some(user) = user else { return Ok(None) };
    let (email, is_verified) = match to {
        To::Then(then) if then.is_left_by(&user) => (Email::stored(then.email.clone()), then.is_verified),
        To::Then(_) | To::Present => (user.email.clone(), user.email_verified),
        To::Other(email) => (email.clone(), false),
        To::Former(email) => (email.clone(), true),
    };
    let envelope = addressed(cx, email, &user.full_name, is_verified).await?;
    Ok(envelope.map(|envelope| (user, envelope)))
}

/// Returns the envelope of a mail to an address. To a recipient who has not verified it, the names that senders choose are shown as
/// [`Line::of_stranger`] shows them.
pub(crate) async fn addressed(
    cx: &Cx,
    email: Email,
    name: &str,
    is_verified: bool,
) -> Result<Option<Envelope>, StoreError> {
    let found = cx
        .read(async |work| {
            let tenant = work.tenants().current().await?;
            let branding = work.branding().current().await?;
            Ok::<_, StoreError>(tenant.map(|tenant| (tenant, branding)))
        })
        .await?;
    let shown = if is_verified { Line::of } else { Line::of_stranger };
    Ok(found.map(|(tenant, branding)| Envelope {
        email,
        is_verified,
        recipient: Recipient {
            name: shown(name),
            tenant: shown(branding.display_name.as_ref().unwrap_or(&tenant.name)),
            zone: tenant.settings.timezone.clone(),
            app_url: Line::of(&cx.app().policy.app_url),
        },
        look: look(
            &tenant.settings.locale,
            Colour::parse(&branding.primary_color).unwrap_or(Colour::BLACK),
        ),
        unsubscribe: None,
    }))
}

/// The language and the colors of a mail.
pub(crate) fn look(locale: &str, color: Colour) -> Look {
    Look {
        language: Language::of(locale),
        color: color.to_string(),
        text_color: color.text().to_string(),
    }
}

/// Sends the mail of the job that the context is of, unless a limit of [`MailLimits`](tenantry_domain::operations::MailLimits)
/// is reached. Then nothing is sent, and the job is done: neither the tenant nor a caller gets another answer. That the limit
/// of all tenants is reached is in the metrics only.
///
/// # Errors
/// [`JobFailure::Permanent`] when the context is of no job; those of the mailer and the store.
pub(crate) async fn send(
    cx: &Cx,
    kind: &'static str,
    to: &Envelope,
    message: &Message,
    written_at: Time,
) -> Result<(), JobFailure> {
    try_to_send(cx, kind, to, message, written_at).await.map(|_| ())
}

/// Does what [`send`] does, and returns whether the mail was sent or which limit is reached.
///
/// # Errors
/// Those of [`send`].
pub(crate) async fn try_to_send(
    cx: &Cx,
    kind: &'static str,
    to: &Envelope,
    message: &Message,
    written_at: Time,
) -> Result<MailDecision, JobFailure> {
    Ok(attempt(cx, kind, to, message, written_at).await??)
}

/// Does what [`try_to_send`] does. The inner error is the mail server's.
///
/// # Errors
/// Those of [`send`].
pub(crate) async fn attempt(
    cx: &Cx,
    kind: &'static str,
    to: &Envelope,
    message: &Message,
    written_at: Time,
) -> Result<Result<MailDecision, MailError>, JobFailure> {
    let id = cx.scope().job().map(MessageId::of_job);
    let id = id.ok_or_else(|| JobFailure::Permanent("a mail is sent by a job".into()))?;
    let outgoing = OutgoingMail {
        id,
        tenant: cx.scope().tenant(),
        recipient: OutgoingMail::recipient(cx.ports().seal.as_ref(), &to.email),
        kind,
        is_verified: to.is_verified,
        at: cx.now(),
    };
    let because = SystemScope::because("mail to an address is limited over all tenants");
    let limits = cx.app().policy.mail_limits;
    let decision = cx.ports().sent_mails.admit(because, &outgoing, limits).await?;
    if decision != MailDecision::Send {
        withhold(cx, kind, decision).await;
        return Ok(Ok(decision));
    }
    let rendered = cx.ports().mail_templates.render(message, &to.recipient, &to.look);
    let rendered = rendered.map_err(|error| JobFailure::Permanent(error.to_string()))?;
    let mail = Mail {
        id,
        to: Mailbox {
            name: to.is_verified.then(|| to.recipient.name.clone()),
            email: to.email.clone(),
        },
        subject: rendered.subject,
        text: rendered.text,
        html: Some(rendered.html),
        written_at,
        unsubscribe: to.unsubscribe.clone(),
    };
    let handed = hand_over(cx.app(), &mail).await?;
    Ok(handed.map(|()| decision))
}

/// Hands a mail over to the mail server. When the server took it [`MailLimits::MOST_IN_DOUBT`] times without an answer, that is
/// [`MailError::GivenUp`]: its reader may have as many copies already. The outer error is the store's.
///
/// [`MailLimits::MOST_IN_DOUBT`]: tenantry_domain::operations::MailLimits::MOST_IN_DOUBT
///
/// # Errors
/// Those of the mailer inside.
pub(crate) async fn hand_over(app: &Tenancy, mail: &Mail) -> Result<Result<(), MailError>, StoreError> {
    let problem = match app.ports.mailer.send(mail).await {
        Ok(_) => return Ok(Ok(())),
        Err(MailError::InDoubt(problem)) => problem,
        Err(error) => return Ok(Err(error)),
    };
    let because = SystemScope::because("mails are sent a bounded number of times");
    let times = app.ports.sent_mails.note_in_doubt(because, mail.id).await?;
    if times < MailLimits::MOST_IN_DOUBT {
        return Ok(Err(MailError::InDoubt(problem)));
    }
    app.unsent_mails().give_up();
    Ok(Err(MailError::GivenUp(times)))
}

/// Counts a mail that is not sent. It is in the tenant's audit log, too, where the tenant's own mails have reached the limit.
async fn withhold(cx: &Cx, kind: &'static str, decision: MailDecision) {
    cx.app().unsent_mails().count(decision);
    tracing::warn!(
        kind,
        limit = decision.as_str(),
        "mail not sent: a limit is reached"
    );
    match decision {
        MailDecision::Send | MailDecision::Recipient => return,
        MailDecision::Tenant | MailDecision::Account => {}
    }
    let refusal = Refusal {
        action: RefusedAction::Mail,
        target_type: "mail",
        target: None,
        actor: None,
        ip: None,
        details: json!({"kind": kind, "limit": decision.as_str()}),
    };
    // A deleted tenant has no log any more.
    if let Err(error) = refusal::record(cx, refusal).await {
        tracing::warn!(error = %error, "a mail that was not sent is not in the audit log");
    }
}

/// How many mails were not sent because of a limit, or given up, since the start of this process.
#[derive(Debug, Default)]
pub struct UnsentMails {
    tenant: AtomicU64,
    account: AtomicU64,
    recipient: AtomicU64,
    given_up: AtomicU64,
}

impl Tenancy {
    /// Returns how many mails were not sent because of a limit.
    pub fn unsent_mails(&self) -> Arc<UnsentMails> {
        self.state()
    }
}

impl UnsentMails {
    /// How many were given up after the server took each several times without an answer.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    fn give_up(&self) {
        self.given_up.fetch_add(1, Ordering::Relaxed);
    }

    /// Each limit with its count.
    pub fn counts(&self) -> [(MailDecision, u64); 3] {
        [
            (MailDecision::Tenant, &self.tenant),
            (MailDecision::Account, &self.account),
            (MailDecision::Recipient, &self.recipient),
        ]
        .map(|(limit, count)| (limit, count.load(Ordering::Relaxed)))
    }

    pub(crate) fn count(&self, limit: MailDecision) {
        let count = match limit {
            MailDecision::Send => return,
            MailDecision::Tenant => &self.tenant,
            MailDecision::Account => &self.account,
            MailDecision::Recipient => &self.recipient,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
