//! The mail to admins about an alert.

use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Permission, StoreError, Time, UserId};
use tenantry_domain::security::{AlertNotice, Rule, SubjectKind};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::operations::job::{self, JobFailure, JobHandler, Terms, store_error};
use crate::operations::mail::{self, MOST_ATTEMPTS, To};

/// Sends a notice of an alert to an admin.
#[derive(Debug, Clone, Copy)]
pub struct SendAlert;

/// A notice of an alert to an admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertMail {
    /// The admin.
    pub to: UserId,
    /// When the alert was raised.
    pub at: Time,
    /// The alert.
    pub notice: AlertNotice,
}

impl JobHandler for SendAlert {
    const KIND: &'static str = "security.alert_mail";
    // Admins of a suspended tenant get it, too.
    const WRITES: bool = false;
    const MAX_ATTEMPTS: u32 = MOST_ATTEMPTS;
    type Payload = AlertMail;

    async fn run(&self, cx: &Cx, mail: AlertMail) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let found = mail::recipient(cx, mail.to, To::Present).await?;
        let Some((_, envelope)) = found.filter(|(user, _)| user.is_acting_admin()) else {
            tracing::info!("an alert is not mailed: its recipient is no active admin any more");
            return Ok(());
        };
        let name = subject_name(cx, &mail.notice).await?;
        let message = mail.notice.message(&envelope.recipient, mail.at, name.as_deref());
        mail::send(cx, Self::KIND, &envelope, &message, mail.at).await
    }
}

/// Stores a job for each acting admin, with the running transaction.
pub(crate) async fn mail_admins(cx: &Cx, work: &mut Work, notice: &AlertNotice) -> Result<(), StoreError> {
    for to in mail::acting_admins(work).await? {
        let mail = AlertMail {
            to,
            at: cx.now(),
            notice: notice.clone(),
        };
        let asked = job::enqueue::<SendAlert>(cx, work, &mail, Terms::default()).await;
        asked.map_err(store_error)?;
    }
    Ok(())
}

/// Mails admins about the alerts of a rule that were held back.
#[derive(Debug, Clone, Copy)]
pub struct MailHeld;

/// The rule whose alerts were held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAlerts {
    /// The name of the rule.
    pub rule: String,
}

impl JobHandler for MailHeld {
    const KIND: &'static str = "security.held_alerts";
    const WRITES: bool = false;
    type Payload = HeldAlerts;

    async fn run(&self, cx: &Cx, held: HeldAlerts) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let Some(rule) = Rule::find(&held.rule) else {
            return Ok(());
        };
        cx.write(async |work| {
            let Some(mut detection) = work.security_detections().current_for_update().await? else {
                return Ok::<_, StoreError>(());
            };
            let Some(notice) = detection.take_held(rule, cx.now()) else {
                return Ok(());
            };
            work.security_detections().update(&detection).await?;
            mail_admins(cx, work, &notice).await
        })
        .await?;
        Ok(())
    }
}

/// Has the alerts of a rule that are held back mailed at a time, with the running transaction.
pub(crate) async fn mail_later(cx: &Cx, work: &mut Work, rule: &Rule, at: Time) -> Result<(), StoreError> {
    let held = HeldAlerts {
        rule: rule.id.to_owned(),
    };
    let terms = Terms {
        run_at: Some(at),
        dedupe_key: Some(format!("{}/{}", MailHeld::KIND, rule.id)),
        ..Terms::default()
    };
    let asked = job::enqueue::<MailHeld>(cx, work, &held, terms).await;
    asked.map(|_| ()).map_err(store_error)
}

/// The present name of the user or API key that an alert is about.
async fn subject_name(cx: &Cx, notice: &AlertNotice) -> Result<Option<String>, StoreError> {
    let (kind, id) = (notice.subject_kind, &notice.subject);
    cx.read(async |work| {
        let name = match (kind, id.parse::<uuid::Uuid>()) {
            (SubjectKind::User, Ok(id)) => {
                let user = work.users().find(id.into()).await?;
                user.map(|user| user.email.as_str().to_owned())
            }
            (SubjectKind::ApiKey, Ok(id)) => work.api_keys().find(id.into()).await?.map(|key| key.name),
            _ => None,
        };
        Ok(name)
    })
    .await
}
