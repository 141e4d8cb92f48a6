//! Rate limits out of settings and plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use tenantry_billing::plans::{PlanBook, PlanRates, RateError, RateOverride};
use tenantry_domain::kernel::Clock;
use tenantry_domain::operations::{AccountRates, Rate, RateLimiter};
use tenantry_domain::tenant::Slug;
use tenantry_http::{AddressRates, Limits, OperatorRates};
use tenantry_redis::{Redis, RedisLimiter};
use tenantry_system::LocalLimiter;

use crate::config::{AgreedRates, ConfigurationError, Limits as LimitConfig};

/// The limiter that servers over one Redis share, where the configuration asks for it.
pub fn shared(
    config: &LimitConfig,
    redis: Option<Redis>,
    clock: Arc<dyn Clock>,
) -> Option<Arc<RedisLimiter>> {
    let redis = redis.filter(|_| config.enabled && config.shared)?;
    let alone = Arc::new(LocalLimiter::new(clock).one_of(config.instances));
    Some(Arc::new(RedisLimiter::new(redis, alone)))
}

/// The limits that requests are held to; none when they are switched off.
pub fn limits(
    config: &LimitConfig,
    plans: Arc<PlanBook>,
    shared: Option<Arc<RedisLimiter>>,
    clock: Arc<dyn Clock>,
) -> Result<Option<Limits>, ConfigurationError> {
    let rates = rates(config, plans)?;
    let addresses = addresses(config)?;
    let (per_minute, burst) = (config.billing_per_minute, config.billing_burst);
    let billing = rate("limits.billing_per_minute", per_minute, burst, config)?;
    let operators = operators(config)?;
    if !config.enabled {
        return Ok(None);
    }
    let limiter: Arc<dyn RateLimiter> = match shared {
        Some(shared) => shared,
        None => Arc::new(LocalLimiter::new(clock).one_of(config.instances)),
    };
    let limits = Limits::new(limiter, Arc::new(rates), addresses, billing);
    Ok(Some(limits.operators(operators)))
}

fn rate(
    key: &'static str,
    per_minute: u32,
    burst: u32,
    config: &LimitConfig,
) -> Result<Rate, ConfigurationError> {
    let rate = Rate::new(per_minute, burst).map(|rate| rate.times(config.factor));
    rate.ok_or_else(|| ConfigurationError::invalid(key, "must not be 0"))
}

fn operators(config: &LimitConfig) -> Result<OperatorRates, ConfigurationError> {
    Ok(OperatorRates {
        admin: rate(
            "limits.operator_per_minute",
            config.operator_per_minute,
            config.operator_burst,
            config,
        )?,
        support: rate(
            "limits.support_per_minute",
            config.support_per_minute,
            config.support_burst,
            config,
        )?,
    })
}

fn addresses(config: &LimitConfig) -> Result<AddressRates, ConfigurationError> {
    let rate = |key, per_minute, burst| rate(key, per_minute, burst, config);
    let (credential, visitor) = ("limits.credential_per_minute", "limits.visitor_per_minute");
    Ok(AddressRates {
        credential: rate(credential, config.credential_per_minute, config.credential_burst)?,
        visitor: rate(visitor, config.visitor_per_minute, config.visitor_burst)?,
        account: AccountRates {
            network: rate(
                "limits.account_per_minute",
                config.account_per_minute,
                config.account_burst,
            )?,
            anywhere: rate(
                "limits.account_anywhere_per_minute",
                config.account_anywhere_per_minute,
                config.account_anywhere_burst,
            )?,
        },
    })
}

fn rates(config: &LimitConfig, plans: Arc<PlanBook>) -> Result<PlanRates, ConfigurationError> {
    let agreed = agreed(&config.overrides)?;
    PlanRates::new(plans, agreed, config.factor).map_err(|error| {
        let key = match error {
            RateError::Missing { .. } | RateError::OutOfRange { .. } => "plans.file",
            RateError::Override { .. } => OVERRIDES,
        };
        ConfigurationError::invalid(key, error.to_string())
    })
}

const OVERRIDES: &str = "limits.overrides";

fn agreed(
    overrides: &BTreeMap<String, AgreedRates>,
) -> Result<BTreeMap<String, RateOverride>, ConfigurationError> {
    if let Some(slug) = overrides.keys().find(|slug| Slug::parse(slug).is_none()) {
        return Err(ConfigurationError::invalid(
            OVERRIDES,
            format!("'{slug}' is no slug"),
        ));
    }
    let agreed = |rates: &AgreedRates| RateOverride {
        requests_per_minute: rates.requests_per_minute,
        requests_burst: rates.requests_burst,
        user_requests_per_minute: rates.user_requests_per_minute,
        user_requests_burst: rates.user_requests_burst,
    };
    Ok(overrides
        .iter()
        .map(|(slug, rates)| (slug.clone(), agreed(rates)))
        .collect())
}

#[cfg(test)]
mod tests {
    use tenantry_billing::plans::Plans;
    use tenantry_system::SystemClock;

    use super::*;

    fn with(config: &LimitConfig) -> Result<bool, String> {
        let limits = limits(
            config,
            Arc::new(PlanBook::new(Plans::standard()).unwrap()),
            None,
            Arc::new(SystemClock::new()),
        );
        limits
            .map(|limits| limits.is_some())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_on_unless_they_are_switched_off() {
        let config = LimitConfig::default();
        assert_eq!(with(&config), Ok(true));
        let enabled = false;
        assert_eq!(with(&LimitConfig { enabled, ..config }), Ok(false));
    }

    #[test]
    fn buckets_are_shared_only_with_a_redis_and_unless_the_settings_say_otherwise() {
        let redis = Redis::new("redis://127.0.0.1:1", std::time::Duration::from_millis(1)).unwrap();
        let is_shared = |redis: Option<Redis>, is_shared: bool| {
            let config = LimitConfig {
                shared: is_shared,
                ..LimitConfig::default()
            };
            shared(&config, redis, Arc::new(SystemClock::new())).is_some()
        };
        assert!(is_shared(Some(redis.clone()), true));
        assert!(!is_shared(Some(redis), false));
        assert!(!is_shared(None, true));
    }

    #[test]
    fn an_override_that_cannot_be_is_named() {
        let complaint = |slug: &str, requests: u32| {
            let rates = AgreedRates {
                requests_per_minute: Some(requests),
                ..AgreedRates::default()
            };
            let config = LimitConfig {
                overrides: BTreeMap::from([(slug.to_owned(), rates)]),
                ..LimitConfig::default()
            };
            with(&config).err().unwrap_or_default()
        };
        assert_eq!(complaint("acme", 5), "");
        assert!(complaint("Acme!", 5).contains("limits.overrides: 'Acme!' is no slug"));
        assert!(complaint("acme", 0).contains("acme.requests_per_minute must be in 1..=1000000"));
    }
}
