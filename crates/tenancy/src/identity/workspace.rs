//! The list of an address's workspaces, by mail.
//!
//! A request names no tenant and no account is needed for it, so it stores one row and nothing else, for known and unknown
//! addresses alike. Servers answer the rows later. Only an address with an account gets a mail: a mail that says that there is
//! none would be a mail to a stranger, of any caller's choice.

use std::sync::atomic::{AtomicU64, Ordering};

use tenantry_domain::customization::Colour;
use tenantry_domain::identity::{
    ChallengeError, ChallengePurpose, Email, Requested, Workspace, WorkspaceMail, WorkspaceRequest,
};
use tenantry_domain::kernel::{Invalid, Line, Network, Recipient, StoreError, SystemScope};
use tenantry_domain::operations::{
    Mail, MailDecision, MailError, Mailbox, MessageId, OutgoingMail, TemplateError,
};
use uuid::Uuid;

use crate::identity::challenge::{self, ChallengeResponse};
use crate::operations::mail;
use crate::{Origin, Tenancy};

/// Why a list is not asked for.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No response to a challenge was accepted.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks for a mail to an address with the list of its workspaces. The answer says nothing of whether it has any.
///
/// # Errors
/// `/email` when it is no address, [`DiscoverError::Challenge`], and those of the store.
pub async fn discover(
    app: &Tenancy,
    origin: &Origin,
    email: &str,
    challenge: &ChallengeResponse,
) -> Result<(), DiscoverError> {
    let email = Email::parse(email, "/email")?;
    challenge::check_from(app, origin, ChallengePurpose::Discover, challenge).await?;
    let request = WorkspaceRequest {
        id: app.ports.ids.uuid(),
        email,
        network: Network::of(origin.address()).last().map(Network::to_string),
        requested_at: app.ports.clock.now(),
        attempts: 0,
    };
    let because = SystemScope::because("a caller asks for the workspaces of an address");
    let requested = app.ports.workspaces.request(because, &request).await?;
    app.state::<DroppedRequests>().count(requested);
    Ok(())
}

/// How many requests for lists of workspaces were dropped, since the start of this process.
#[derive(Debug, Default)]
pub struct DroppedRequests {
    repeated: AtomicU64,
    network_full: AtomicU64,
    full: AtomicU64,
}

impl DroppedRequests {
    /// Each reason with its count.
    pub fn counts(&self) -> [(Requested, u64); 3] {
        [
            (Requested::Repeated, &self.repeated),
            (Requested::NetworkFull, &self.network_full),
            (Requested::Full, &self.full),
        ]
        .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    fn count(&self, requested: Requested) {
        let count = match requested {
            Requested::Stored => return,
            Requested::Repeated => &self.repeated,
            Requested::NetworkFull => &self.network_full,
            Requested::Full => &self.full,
        };
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            let reason = requested.as_str();
            tracing::info!(reason, "request for workspaces dropped, further ones are counted");
        }
    }
}

/// Answers the requests that are due, one after the other, until none is; how many there were. Of several servers each request is
/// answered by one.
///
/// # Errors
/// Those of the store.
pub async fn answer_due(app: &Tenancy) -> Result<u64, StoreError> {
    let because = SystemScope::because("workspaces of an address are mailed to it");
    let workspaces = &app.ports.workspaces;
    let now = app.ports.clock.now();
    workspaces
        .delete_settled(because, now - WorkspaceRequest::PAUSE)
        .await?;
    let mut answered = 0;
    while let Some(request) = workspaces.take_due(because, app.ports.clock.now()).await? {
        match answer(app, because, &request).await {
            Ok(()) => {
                workspaces
                    .settle(because, &request, app.ports.clock.now())
                    .await?;
            }
            // A row that cannot be answered must hold up no other, and must not be tried for ever.
            Err(error) if error.may_pass() && request.attempts < WorkspaceRequest::MOST_ATTEMPTS => {
                tracing::warn!(%error, attempts = request.attempts, "a list of workspaces is not sent, trying again later");
                let due_at = app.ports.clock.now() + request.pause();
                workspaces.put_off(because, &request, due_at).await?;
            }
            Err(error) => {
                tracing::error!(%error, attempts = request.attempts, "a list of workspaces is not sent, giving up");
                workspaces
                    .settle(because, &request, app.ports.clock.now())
                    .await?;
            }
        }
        answered += 1;
    }
    Ok(answered)
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unanswered {
    const fn may_pass(&self) -> bool {
        match self {
            Self::Template(_) => false,
            Self::Mail(error) => error.may_pass(),
            Self::Store(_) => true,
        }
    }
}

async fn answer(app: &Tenancy, because: SystemScope, request: &WorkspaceRequest) -> Result<(), Unanswered> {
    let most = Workspace::MOST_LISTED + 1;
    let found = app.ports.workspaces.list(because, &request.email, most).await?;
    if found.is_empty() {
        return Ok(());
    }
    let id = MessageId::once(request.id);
    let outgoing = OutgoingMail {
        id,
        // The platform's.
        tenant: Uuid::nil().into(),
        recipient: OutgoingMail::recipient(app.ports.seal.as_ref(), &request.email),
        kind: "workspaces",
        is_verified: true,
        at: app.ports.clock.now(),
    };
    let limits = app.policy.mail_limits;
    let decision = app.ports.sent_mails.admit(because, &outgoing, limits).await?;
    if decision != MailDecision::Send {
        app.unsent_mails().count(decision);
        tracing::warn!(
            kind = outgoing.kind,
            limit = decision.as_str(),
            "mail not sent: a limit is reached"
        );
        return Ok(());
    }
    let app_url = &app.policy.app_url;
    let message = WorkspaceMail {
        workspaces: &found,
        app_url,
    }
    .message();
    let look = mail::look(&app.policy.default_settings.locale, Colour::BLACK);
    let rendered = app
        .ports
        .mail_templates
        .render(&message, &of_platform(app_url), &look)?;
    let mail = Mail {
        id,
        to: Mailbox {
            name: None,
            email: request.email.clone(),
        },
        subject: rendered.subject,
        text: rendered.text,
        html: Some(rendered.html),
        written_at: request.requested_at,
        unsubscribe: None,
    };
    Ok(mail::hand_over(app, &mail).await??)
}

/// The mail is the platform's, which is called by the host of its address: no tenant has a part in it.
fn of_platform(app_url: &str) -> Recipient {
    let (_, rest) = app_url.split_once("://").unwrap_or(("", app_url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    Recipient {
        name: Line::of(""),
        tenant: Line::of(host),
        zone: "UTC".into(),
        app_url: Line::of(app_url),
    }
}
