//! What is looked after in every tenant about once a day: a few tenants at a time, all day long.

use std::sync::Arc;

use chrono::Duration;
use tenantry_domain::kernel::SystemScope;

use crate::Tenancy;
use crate::events::upkeep::KeepEvents;
use crate::identity::api_key_expiry::NotifyOfExpiry;
use crate::identity::first_password::NotifyOfFirstPasswords;
use crate::notifications::upkeep::KeepNotifications;
use crate::operations::job::{JobFailure, Nothing, SystemJobHandler, run_in_each};
use crate::security::detection::DetectActivity;
use crate::tenant::audit_upkeep::KeepAudit;
use crate::tenant::custom_domain::KeepDomains;
use crate::tenant::data_key::KeepDataKeys;
use crate::tenant::purge::{Ended, KEPT_DAYS, Purge};

/// How often some tenants are looked after.
const EVERY: Duration = Duration::minutes(5);

/// Into so many parts all tenants are dealt; each is looked after once in so many times [`EVERY`], which is 21 hours and 55
/// minutes. It is a prime, and the turns of a day are no multiple of it, so that a server that is up for the same hours every
/// day comes to every part too.
const PARTS: u32 = 263;

/// Looks after the tenants whose turn it is: [`Purge`], [`NotifyOfExpiry`], [`NotifyOfFirstPasswords`], [`KeepAudit`], [`KeepEvents`], [`KeepNotifications`], [`DetectActivity`], [`KeepDataKeys`], [`KeepDomains`] and the upkeep of the ledger of usage.
#[derive(Debug, Clone, Copy)]
pub struct TendSome;

impl SystemJobHandler for TendSome {
    const KIND: &'static str = "tenant.tend_some";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let part = part_at(app.ports.clock.now().timestamp());
        let tenants = app.ports.registry.dealt(because, part, PARTS).await?;
        run_in_each(app, because, &tenants, &Purge, &Ended { days: KEPT_DAYS }).await?;
        run_in_each(app, because, &tenants, &NotifyOfExpiry, &Nothing {}).await?;
        run_in_each(app, because, &tenants, &NotifyOfFirstPasswords, &Nothing {}).await?;
        run_in_each(app, because, &tenants, &KeepAudit, &Nothing {}).await?;
        run_in_each(app, because, &tenants, &KeepEvents, &Nothing {}).await?;
        run_in_each(app, because, &tenants, &KeepNotifications, &Nothing {}).await?;
        run_in_each(app, because, &tenants, &DetectActivity, &Nothing {}).await?;
        run_in_each(app, because, &tenants, &KeepDataKeys, &Nothing {}).await?;
        run_in_each(app, because, &tenants, &KeepDomains, &Nothing {}).await?;
        app.ports.usage_recorder.keep(app, because, &tenants).await
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((EVERY, Nothing {}))
    }
}

/// Whose turn it is at that second since 1970.
fn part_at(second: i64) -> u32 {
    let turn = second.div_euclid(EVERY.num_seconds());
    u32::try_from(turn.rem_euclid(i64::from(PARTS))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parts(seconds: impl Iterator<Item = i64>) -> BTreeSet<u32> {
        seconds.map(part_at).collect()
    }

    #[test]
    fn every_part_has_its_turn_within_a_day() {
        let begin = 1_795_000_123;
        assert_eq!(
            parts((0..86_400).map(|second| begin + second)).len(),
            PARTS as usize
        );
        assert!(
            parts((-1_000_000..0).step_by(100))
                .iter()
                .all(|part| *part < PARTS)
        );
    }

    #[test]
    fn every_part_has_its_turn_on_a_server_that_is_up_for_an_hour_a_day() {
        let hours =
            (0..263_i64).flat_map(|day| (0..3_600).step_by(300).map(move |second| day * 86_400 + second));
        assert_eq!(parts(hours).len(), PARTS as usize);
    }
}
