//! The daily upkeep of notifications: the retention, and what a job that failed has left.

use chrono::Duration;
use tenantry_domain::kernel::Permission;
use tenantry_domain::notifications::{Notification, Rhythm};

use crate::Cx;
use crate::notifications::mail_terms::MailTerms;
use crate::notifications::{fan_out, next_digest};
use crate::operations::job::{JobFailure, JobHandler, Nothing};

/// How many notifications are deleted in one transaction.
const DELETED_AT_ONCE: u32 = 5_000;

/// Deletes notifications that are older than [`Notification::KEPT_DAYS`], and enqueues the jobs of what waits.
#[derive(Debug, Clone, Copy)]
pub struct KeepNotifications;

impl JobHandler for KeepNotifications {
    const KIND: &'static str = "notification.keep";
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::KeepNotifications)?;
        let before = cx.now() - Duration::days(Notification::KEPT_DAYS);
        let batch = u64::from(DELETED_AT_ONCE);
        while cx
            .write(async |work| work.notifications().delete_before(before, DELETED_AT_ONCE).await)
            .await?
            == batch
        {}
        let terms = MailTerms::of(cx).await?;
        cx.write(async |work| {
            let Some(position) = work.notifications().position_for_update().await? else {
                return Ok(());
            };
            let newest = work.events().ends().await?.newest;
            // What notifies nobody is read once and not each day.
            if !fan_out::enqueue_after(cx, work, (position, newest)).await? && position < newest {
                work.notifications().move_to(newest).await?;
            }
            for rhythm in Rhythm::ALL {
                if work.notifications().is_waiting(rhythm).await? {
                    next_digest::enqueue(cx, work, (terms, rhythm, cx.now()), None).await?;
                }
            }
            Ok(())
        })
        .await
    }
}
