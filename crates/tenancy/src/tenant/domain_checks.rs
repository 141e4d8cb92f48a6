//! How many checks of custom domains a tenant asks for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::Duration;
use tenantry_domain::kernel::{TenantId, Time};

/// The checks that a tenant may ask for in a minute: more than the domains of the largest standard plan.
const PER_MINUTE: u32 = 60;

/// The time over which checks are counted.
const WINDOW: Duration = Duration::minutes(1);

/// The checks that tenants have asked this server for in the last minute. The pause between two checks of a domain ends with the
/// domain, so that a tenant which deletes and claims one again and again would have name servers of its choice asked without a bound.
#[derive(Default)]
pub(crate) struct DomainChecks(Mutex<HashMap<TenantId, (Time, u32)>>);

impl DomainChecks {
    /// Counts a check of a tenant.
    ///
    /// # Errors
    /// In how many seconds the tenant may ask for one.
    pub(crate) fn count(&self, tenant: TenantId, now: Time) -> Result<(), i64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |since: Time| (Duration::zero()..WINDOW).contains(&(now - since));
        windows.retain(|_, (since, _)| is_open(*since));
        let (since, count) = windows.entry(tenant).or_insert((now, 0));
        if *count >= PER_MINUTE {
            return Err(((*since + WINDOW - now).num_milliseconds() + 999) / 1_000);
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn tenant_has_so_many_checks_a_minute() {
        let checks = DomainChecks::default();
        let tenant = |number| TenantId::from(Uuid::from_u128(number));
        let at = |seconds| Time::UNIX_EPOCH + Duration::seconds(seconds);
        for _ in 0..PER_MINUTE {
            assert_eq!(checks.count(tenant(1), at(0)), Ok(()));
        }
        assert_eq!(checks.count(tenant(1), at(20)), Err(40));
        assert_eq!(checks.count(tenant(2), at(20)), Ok(()));
        assert_eq!(checks.count(tenant(1), at(60)), Ok(()));
    }
}
