use async_trait::async_trait;
use tenantry_domain::kernel::{StoreError, SystemScope, Time};
use tenantry_domain::operations::{MailCounts, MailDecision, MailLimits, MessageId, OutgoingMail, SentMails};
use tenantry_domain::store::Mode;
use uuid::Uuid;

use crate::Pool;
use crate::kernel::advisory;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// The mails that were sent lately, as the platform role; the runtime role has no grant on them.
#[derive(Debug, Clone)]
pub struct PgSentMails {
    platform: Pool,
}

impl PgSentMails {
    /// Mails over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

/// `$1` id, `$2` recipient, `$3` tenant, `$4` from when on, `$5` whether the address is verified, `$6` kind, `$7` from when on a
/// mail was sent lately, `$8` whether it is one of [`OutgoingMail::NOTICES`].
const COUNT: &str = "\
SELECT EXISTS (SELECT FROM sent_mails m WHERE m.id = $1) AS again, \
 count(*) FILTER (WHERE NOT r.is_verified AND r.is_alike) AS of_recipient, \
 count(*) FILTER (WHERE r.is_of_account) AS of_account, \
 count(*) FILTER (WHERE r.is_of_account AND r.sent_at > $7) AS of_account_lately, \
 (SELECT count(*) FROM sent_mails m WHERE m.of_tenant = $3 AND m.sent_at > $4 AND NOT m.is_verified) AS of_tenant \
 FROM (SELECT m.sent_at, m.is_verified, c.is_alike, \
   m.of_tenant = $3 AND m.is_verified = $5 AND CASE WHEN $5 THEN m.kind = $6 ELSE c.is_alike END AS is_of_account \
   FROM sent_mails m \
   CROSS JOIN LATERAL (SELECT (m.kind IN ('account.notice', 'account.security_notice')) = $8 AS is_alike) c \
   WHERE m.recipient = $2 AND m.sent_at > $4) r";

const ADD: &str = "\
INSERT INTO sent_mails (id, of_tenant, recipient, kind, is_verified, sent_at) VALUES ($1, $2, $3, $4, $5, $6)";

const IN_DOUBT: &str =
    "UPDATE sent_mails m SET in_doubt = m.in_doubt + 1 WHERE m.id = $1 RETURNING m.in_doubt";

const DELETE: &str = "DELETE FROM sent_mails m WHERE m.sent_at < $1 RETURNING m.id";

#[async_trait]
impl SentMails for PgSentMails {
    async fn admit(
        &self,
        because: SystemScope,
        mail: &OutgoingMail,
        limits: MailLimits,
    ) -> Result<MailDecision, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        // In this order, so that no two wait for each other.
        let recipient = vec![Uuid::nil().into(), mail.recipient.to_vec().into()];
        tx.fetch_fixed(advisory::COUNT_MAIL_TO, recipient).await?;
        if !mail.is_verified {
            tx.fetch_fixed(advisory::COUNT_MAIL_OF_TENANT, vec![mail.tenant.uuid().into()])
                .await?;
        }
        let (again, counts) = count(&mut tx, mail).await?;
        let decision = if again {
            MailDecision::Send
        } else {
            limits.decide(mail.is_verified, counts)
        };
        if decision == MailDecision::Send && !again {
            add(&mut tx, mail).await?;
        }
        tx.commit().await?;
        Ok(decision)
    }

    async fn note_in_doubt(&self, because: SystemScope, id: MessageId) -> Result<u32, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let rows = tx.fetch_fixed(IN_DOUBT, vec![id.uuid().into()]).await?;
        tx.commit().await?;
        // Its row is deleted after a day.
        let times = rows
            .first()
            .map(|row| column::<i32>(row, "in_doubt"))
            .transpose()?;
        Ok(times.map_or(1, i32::unsigned_abs))
    }

    async fn delete_before(&self, because: SystemScope, before: Time) -> Result<u64, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let deleted = tx.fetch_fixed(DELETE, vec![before.into()]).await?;
        tx.commit().await?;
        Ok(deleted.len() as u64)
    }
}

async fn count(tx: &mut PlatformTx, mail: &OutgoingMail) -> Result<(bool, MailCounts), StoreError> {
    let arguments = vec![
        mail.id.uuid().into(),
        mail.recipient.to_vec().into(),
        mail.tenant.uuid().into(),
        (mail.at - MailLimits::WINDOW).into(),
        mail.is_verified.into(),
        mail.kind.into(),
        (mail.at - MailLimits::always(mail.is_verified)).into(),
        OutgoingMail::NOTICES.contains(&mail.kind).into(),
    ];
    let rows = tx.fetch_fixed(COUNT, arguments).await?;
    let row = rows.first();
    let row = row.ok_or_else(|| StoreError::Other("a count of mails has no row".into()))?;
    let number =
        |name: &str| Ok::<_, StoreError>(u64::try_from(column::<i64>(row, name)?).unwrap_or_default());
    let counts = MailCounts {
        recipient: number("of_recipient")?,
        account: number("of_account")?,
        account_lately: number("of_account_lately")?,
        tenant: number("of_tenant")?,
    };
    Ok((column(row, "again")?, counts))
}

async fn add(tx: &mut PlatformTx, mail: &OutgoingMail) -> Result<(), StoreError> {
    let arguments = vec![
        mail.id.uuid().into(),
        mail.tenant.uuid().into(),
        mail.recipient.to_vec().into(),
        mail.kind.into(),
        mail.is_verified.into(),
        mail.at.into(),
    ];
    tx.fetch_fixed(ADD, arguments).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_those_of_the_domain() {
        let list = OutgoingMail::NOTICES.map(|kind| format!("'{kind}'")).join(", ");
        assert_eq!(COUNT.matches(&format!("m.kind IN ({list})")).count(), 1);
    }
}
