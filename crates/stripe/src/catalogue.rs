//! Our offers and meters as Stripe has them: found by lookup key and by event name, and remembered for a
//! while.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use stripe_billing::billing_meter::ListBillingMeter;
use stripe_product::price::ListPrice;
use stripe_shared::Price;
use tenantry_domain::billing::{Offer, ProviderError};
use tenantry_domain::kernel::{Currency, Interval};
use tenantry_domain::usage::MeterKey;

use crate::StripePayments;
use crate::failure::failure;

/// TTL of cached prices and meters. Prices do not change, but new ones are published.
const TTL: Duration = Duration::from_secs(300);

/// What a version of a plan may be, as it is stored.
const VERSIONS: RangeInclusive<u32> = 1..=i32::MAX.unsigned_abs();

/// A cache of Stripe's prices and meters.
#[derive(Debug, Default)]
pub struct Catalogue {
    offers: TtlCache<Offer, Priced>,
    meters: TtlCache<String, Metered>,
}

impl Catalogue {
    /// Drops all cached values, after a change.
    pub fn invalidate(&self) {
        self.offers.clear();
        self.meters.clear();
    }
}

/// The prices of an offer.
#[derive(Debug, Clone)]
pub struct Priced {
    /// What each seat costs.
    pub base: String,
    /// What use beyond what is included costs; one for each meter that is charged.
    pub metered: Vec<(MeterKey, String)>,
    /// Whether usage is billed for as long as seats are, so that both fit into one checkout.
    pub one_interval: bool,
}

/// A meter as Stripe has it.
#[derive(Debug, Clone)]
pub struct Metered {
    /// Its id there.
    pub id: String,
    /// How it counts.
    pub formula: stripe_billing::BillingMeterResourceAggregationSettingsFormula,
}

#[derive(Debug)]
struct TtlCache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for TtlCache<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> TtlCache<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, value) = known.get(key)?;
        (since.elapsed() < TTL).then(|| value.clone())
    }

    fn put(&self, key: K, value: V) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The cache is bounded by the number of offers; expired values go all the same.
        known.retain(|_, (since, _)| since.elapsed() < TTL);
        known.insert(key, (Instant::now(), value));
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The lookup key of an offer's price: `tenantry:pro:1:usd:month`.
pub fn lookup_key(offer: &Offer) -> String {
    let (currency, interval) = (offer.currency.as_str(), offer.interval.as_str());
    format!("tenantry:{}:{}:{currency}:{interval}", offer.plan, offer.version)
}

/// The lookup key of what overage costs: `tenantry:pro:1:usd:month:meter:api_calls`.
pub fn overage_key(offer: &Offer, meter: &MeterKey) -> String {
    format!("{}:meter:{meter}", lookup_key(offer))
}

/// The offer that a lookup key names; `None` when it is none of ours, or that of an overage price.
pub fn offer_of(lookup_key: &str) -> Option<Offer> {
    let mut parts = lookup_key.split(':');
    if parts.next()? != "tenantry" {
        return None;
    }
    let offer = Offer {
        plan: parts.next()?.to_owned(),
        version: parts
            .next()?
            .parse()
            .ok()
            .filter(|version| VERSIONS.contains(version))?,
        currency: Currency::try_from(parts.next()?.to_owned()).ok()?,
        interval: Interval::parse(parts.next()?)?,
    };
    parts.next().is_none().then_some(offer)
}

/// The meter whose overage the price of a lookup key is for; `None` when it is none of ours, or that of seats.
pub fn meter_of(lookup_key: &str) -> Option<MeterKey> {
    let (offer, meter) = lookup_key.split_once(":meter:")?;
    offer_of(offer)?;
    MeterKey::parse(meter)
}

/// What events of a meter are called there.
pub fn event_name(meter: &MeterKey) -> String {
    format!("tenantry_{meter}")
}

impl StripePayments {
    /// The prices of an offer.
    pub(crate) async fn priced(&self, offer: &Offer) -> Result<Priced, ProviderError> {
        if let Some(known) = self.catalogue.offers.get(offer) {
            return Ok(known);
        }
        let key = lookup_key(offer);
        let request = ListPrice::new().lookup_keys([key.clone()]).active(true);
        let mut found = self.ask(&request).await?.data;
        let Some(base) = found.pop() else {
            let text = format!("there is no price {key}; publish it with the command `billing publish`");
            return Err(ProviderError::NotFound(text));
        };
        let beside = self.prices_of(base.product.id().as_str()).await?;
        let overage = format!("{key}:meter:");
        let of_offer = |price: &Price| {
            let key = price.lookup_key.as_deref()?;
            key.starts_with(&overage).then(|| meter_of(key)).flatten()
        };
        let metered = beside.iter().filter_map(|price| Some((of_offer(price)?, price)));
        let metered: Vec<(MeterKey, &Price)> = metered.collect();
        let interval = |price: &Price| price.recurring.as_ref().map(|it| it.interval.to_string());
        let priced = Priced {
            one_interval: metered
                .iter()
                .all(|(_, price)| interval(price) == interval(&base)),
            base: base.id.to_string(),
            metered: metered
                .into_iter()
                .map(|(meter, price)| (meter, price.id.to_string()))
                .collect(),
        };
        self.catalogue.offers.put(offer.clone(), priced.clone());
        Ok(priced)
    }

    /// All prices of a product that are on offer.
    pub(crate) async fn prices_of(&self, product: &str) -> Result<Vec<Price>, ProviderError> {
        let request = ListPrice::new().product(product).active(true).limit(100);
        let prices = request.paginate().stream(&self.client).try_collect().await;
        prices.map_err(|error| failure(&error))
    }

    /// A meter, by the name of its events.
    pub(crate) async fn metered(&self, meter: &MeterKey) -> Result<Metered, ProviderError> {
        let name = event_name(meter);
        if let Some(known) = self.catalogue.meters.get(&name) {
            return Ok(known);
        }
        for meter in self.meters().await? {
            let known = Metered {
                id: meter.id.to_string(),
                formula: meter.default_aggregation.formula,
            };
            self.catalogue.meters.put(meter.event_name, known);
        }
        let unknown = || {
            ProviderError::NotFound(format!(
                "there is no meter {name}; publish it with the command `billing publish`"
            ))
        };
        self.catalogue.meters.get(&name).ok_or_else(unknown)
    }

    /// All meters that count.
    pub(crate) async fn meters(&self) -> Result<Vec<stripe_billing::BillingMeter>, ProviderError> {
        let request = ListBillingMeter::new()
            .status(stripe_billing::BillingMeterStatus::Active)
            .limit(100);
        let meters = request.paginate().stream(&self.client).try_collect().await;
        meters.map_err(|error| failure(&error))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer() -> Offer {
        Offer {
            plan: "pro".into(),
            version: 3,
            currency: Currency::try_from("usd".to_owned()).unwrap(),
            interval: Interval::Year,
        }
    }

    #[test]
    fn a_lookup_key_names_its_offer_and_nothing_else_does() {
        assert_eq!(lookup_key(&offer()), "tenantry:pro:3:usd:year");
        assert_eq!(offer_of("tenantry:pro:3:usd:year"), Some(offer()));
        let meter = MeterKey::parse("api_calls").unwrap();
        assert_eq!(
            overage_key(&offer(), &meter),
            "tenantry:pro:3:usd:year:meter:api_calls"
        );
        assert_eq!(meter_of(&overage_key(&offer(), &meter)), Some(meter.clone()));
        for key in [
            "tenantry:pro:3:usd:year",
            "other:pro:3:usd:year:meter:api_calls",
            "tenantry:pro:3:usd:year:meter:",
            "tenantry:pro:3:usd:year:meter:A",
        ] {
            assert_eq!(meter_of(key), None, "{key}");
        }
        for key in [
            "",
            "tenantry",
            "tenantry:pro:3:usd",
            "tenantry:pro:3:usd:week",
            "tenantry:pro:x:usd:year",
            "tenantry:pro:0:usd:year",
            "tenantry:pro:2147483648:usd:year",
            "tenantry:pro:3:USD:year",
            "other:pro:3:usd:year",
            "tenantry:pro:3:usd:year:",
            &overage_key(&offer(), &meter),
        ] {
            assert_eq!(offer_of(key), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn every_offer_is_found_again(
            plan in "[a-z][a-z0-9-]{2,62}", version in VERSIONS, currency in "[a-z]{3}", year: bool,
        ) {
            let currency = Currency::try_from(currency).unwrap();
            let interval = if year { Interval::Year } else { Interval::Month };
            let offer = Offer { plan, version, currency, interval };
            prop_assert_eq!(offer_of(&lookup_key(&offer)), Some(offer));
        }

        #[test]
        fn no_text_is_too_strange(text in ".*") {
            let _ = offer_of(&text);
        }
    }
}
