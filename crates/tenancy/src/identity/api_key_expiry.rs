//! Mail before API keys end, and when they have ended.

use chrono::Duration;
use serde_json::json;
use tenantry_domain::billing::{ApiKeyNotice, EndingKey, Notice};
use tenantry_domain::identity::{ApiKey, ExpiryStage};
use tenantry_domain::kernel::Permission;

use crate::Cx;
use crate::operations::job::{JobFailure, JobHandler, Nothing};
use crate::operations::mail::{SendMail, tell_admins};

/// Notifies the admins of keys that end within a week, and once more of keys that have ended: one mail to each admin, with an
/// entry in the audit log for each key.
#[derive(Debug, Clone, Copy)]
pub struct NotifyOfExpiry;

impl JobHandler for NotifyOfExpiry {
    const KIND: &'static str = "api_key.notify_of_expiry";
    // Keys of a suspended tenant still read.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::NotifyOfApiKeys)?;
        let now = cx.now();
        let by = now + Duration::days(ApiKey::NOTICE_DAYS);
        cx.write(async |work| {
            let keys = work.api_keys().ending(by).await?;
            let due: Vec<_> = keys
                .iter()
                .filter_map(|key| Some((key, key.due_notice(now)?)))
                .collect();
            if due.is_empty() {
                return Ok(());
            }
            for (key, stage) in &due {
                work.api_keys().record_notice(key.id, *stage).await?;
                let action = match stage {
                    ExpiryStage::Over => "api_key.expired",
                    ExpiryStage::Far | ExpiryStage::Ahead => "api_key.expires_soon",
                };
                let details = json!({"name": key.name, "expires_at": key.expires_at});
                let event = cx.security(action, "api_key", Some(key.id.uuid()), details);
                work.audit().record(event).await?;
            }
            let ending = |(key, stage): &(&ApiKey, ExpiryStage)| EndingKey {
                name: key.name.clone(),
                expires_at: key.expires_at,
                is_over: *stage == ExpiryStage::Over,
            };
            let notice = ApiKeyNotice {
                keys: due.iter().map(ending).collect(),
            };
            tell_admins::<SendMail>(cx, work, &Notice::ApiKeys(notice)).await?;
            Ok(())
        })
        .await
    }
}
