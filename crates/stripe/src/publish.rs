//! Our catalogue made known to Stripe: a meter for each of ours, a product for each version of a plan, and
//! for each price of it one price for seats and one for the overage of each meter that is charged.
//!
//! **What overage costs at Stripe.** All use is reported, and the price is tiered (`graduated`): what is
//! included costs nothing, each unit beyond it costs `amount ÷ per`. Stripe does not combine
//! `transform_quantity` with tiers, so packages are not sold whole: a part of one costs its part, and the
//! line is rounded to the minor unit. Usage is billed by the month also where seats are paid by the year
//! (Stripe's *mixed intervals*), because what is included is so by the month.

use std::collections::HashMap;

use stripe_billing::billing_meter::{
    CreateBillingMeter, CreateBillingMeterCustomerMapping, CreateBillingMeterCustomerMappingType,
    CreateBillingMeterDefaultAggregation, CreateBillingMeterDefaultAggregationFormula,
    CreateBillingMeterValueSettings,
};
use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType,
    CreatePriceTiers, CreatePriceTiersUpTo,
};
use stripe_product::product::{CreateProduct, ListProduct};
use stripe_shared::{Price as TheirPrice, PriceBillingScheme, PriceTiersMode};
use tenantry_domain::billing::{Offer, ProviderError};
use tenantry_domain::kernel::{Interval, Limit, Price};
use tenantry_domain::plans::PlanTerms;
use tenantry_domain::usage::{Aggregation, Meter, MeterKey, Meters, OveragePrice};

use crate::StripePayments;
use crate::catalogue::{event_name, lookup_key, overage_key};
use crate::reading::{TERMS, their_currency};

/// What was made at Stripe; everything else had been there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Meters, by the name of their events.
    pub meters: Vec<String>,
    /// Products, by id.
    pub products: Vec<String>,
    /// Prices, by lookup key.
    pub prices: Vec<String>,
}

impl StripePayments {
    /// Makes what is missing at Stripe of these plans and meters. What is there is left alone, so that it may
    /// be done again at any time, and be gone on with after it was broken off.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] when something of the same name is there on other terms: prices do not
    /// change, a plan with others is another version of it.
    pub async fn publish(&self, plans: &[PlanTerms], meters: &Meters) -> Result<Published, ProviderError> {
        let mut published = Published::default();
        let ids = self.publish_meters(meters, &mut published).await?;
        for terms in plans.iter().filter(|terms| !terms.prices.is_empty()) {
            self.publish_plan(terms, &ids, &mut published).await?;
        }
        self.catalogue.invalidate();
        Ok(published)
    }

    /// Makes the missing meters and returns the ids of all.
    async fn publish_meters(
        &self,
        meters: &Meters,
        published: &mut Published,
    ) -> Result<HashMap<MeterKey, String>, ProviderError> {
        let there = self.meters().await?;
        let mut ids = HashMap::new();
        for meter in meters.values() {
            let name = event_name(&meter.key);
            let formula = formula(meter.aggregation);
            if let Some(known) = there.iter().find(|it| it.event_name == name) {
                same(
                    &name,
                    &known.default_aggregation.formula.to_string(),
                    formula.as_str(),
                )?;
                ids.insert(meter.key.clone(), known.id.to_string());
                continue;
            }
            let made = self.create_meter(meter, &name, formula).await?;
            ids.insert(meter.key.clone(), made);
            published.meters.push(name);
        }
        Ok(ids)
    }

    async fn create_meter(
        &self,
        meter: &Meter,
        name: &str,
        formula: CreateBillingMeterDefaultAggregationFormula,
    ) -> Result<String, ProviderError> {
        let by_id = CreateBillingMeterCustomerMappingType::ById;
        let request = CreateBillingMeter::new(
            CreateBillingMeterDefaultAggregation::new(formula),
            meter.title.clone(),
            name,
        )
        .customer_mapping(CreateBillingMeterCustomerMapping::new(
            "stripe_customer_id",
            by_id,
        ))
        .value_settings(CreateBillingMeterValueSettings::new("value"));
        let made = self.change(&format!("publish:{name}"), &request).await?;
        Ok(made.id.to_string())
    }

    async fn publish_plan(
        &self,
        terms: &PlanTerms,
        meters: &HashMap<MeterKey, String>,
        published: &mut Published,
    ) -> Result<(), ProviderError> {
        let product = format!("tenantry_{}_{}", terms.name, terms.version);
        // Asked for in a list: one that is not there yet is no error.
        let request = ListProduct::new().ids([product.clone()]);
        if self.ask(&request).await?.data.is_empty() {
            let request = CreateProduct::new(terms.title.clone()).id(product.clone());
            self.change(&format!("publish:{product}"), &request).await?;
            published.products.push(product.clone());
        }
        let there = self.prices_of(&product).await?;
        for price in &terms.prices {
            let wanted = wanted(terms, price, &product, meters)?;
            for (key, its_terms, request) in wanted {
                if let Some(known) = there
                    .iter()
                    .find(|it| it.lookup_key.as_deref() == Some(key.as_str()))
                {
                    same(&key, terms_of(known), &its_terms)?;
                    continue;
                }
                self.change(&format!("publish:{key}:{its_terms}"), &request)
                    .await?;
                published.prices.push(key);
            }
        }
        Ok(())
    }
}

/// A price that there has to be: its lookup key, its terms, and the call that makes it.
type Wanted = (String, String, CreatePrice);

fn wanted(
    terms: &PlanTerms,
    price: &Price,
    product: &str,
    meters: &HashMap<MeterKey, String>,
) -> Result<Vec<Wanted>, ProviderError> {
    let offer = Offer {
        plan: terms.name.clone(),
        version: terms.version,
        currency: price.currency.clone(),
        interval: price.interval,
    };
    let mut wanted = vec![base(&offer, price, product)?];
    for (meter, its) in &terms.meters {
        let Limit::Of(included) = its.included else {
            continue;
        };
        let Some(id) = meters.get(meter) else {
            return Err(ProviderError::Refused(format!(
                "{} charges {meter}, which is no meter",
                terms.name
            )));
        };
        for overage in its.overage.iter().filter(|it| it.currency == price.currency) {
            wanted.push(overage_price(&offer, meter, id, included, overage, product)?);
        }
    }
    Ok(wanted)
}

fn base(offer: &Offer, price: &Price, product: &str) -> Result<Wanted, ProviderError> {
    let terms = format!("amount={}", price.amount);
    let interval = match price.interval {
        Interval::Month => CreatePriceRecurringInterval::Month,
        Interval::Year => CreatePriceRecurringInterval::Year,
    };
    let key = lookup_key(offer);
    let request = CreatePrice::new(their_currency(&offer.currency)?)
        .product(product)
        .lookup_key(key.clone())
        .metadata(metadata(&terms))
        .unit_amount(price.amount)
        .recurring(CreatePriceRecurring::new(interval));
    Ok((key, terms, request))
}

fn overage_price(
    offer: &Offer,
    meter: &MeterKey,
    meter_id: &str,
    included: u64,
    overage: &OveragePrice,
    product: &str,
) -> Result<Wanted, ProviderError> {
    let key = overage_key(offer, meter);
    let terms = format!(
        "included={included};amount={};per={}",
        overage.amount, overage.per
    );
    let refused = |what: &str| ProviderError::Refused(format!("{key}: {what}"));
    let unit = unit_amount_decimal(overage)
        .ok_or_else(|| refused("amount ÷ per has more than twelve decimals, which Stripe cannot keep"))?;
    let mut tiers = Vec::new();
    if included > 0 {
        let up_to = i64::try_from(included).map_err(|_| refused("too much is included"))?;
        let mut free = CreatePriceTiers::new(CreatePriceTiersUpTo::I64(up_to));
        free.unit_amount = Some(0);
        tiers.push(free);
    }
    let mut rest = CreatePriceTiers::new(CreatePriceTiersUpTo::Inf);
    rest.unit_amount_decimal = Some(unit);
    tiers.push(rest);
    let mut recurring = CreatePriceRecurring::new(CreatePriceRecurringInterval::Month);
    recurring.usage_type = Some(CreatePriceRecurringUsageType::Metered);
    recurring.meter = Some(meter_id.to_owned());
    let request = CreatePrice::new(their_currency(&offer.currency)?)
        .product(product)
        .lookup_key(key.clone())
        .metadata(metadata(&terms))
        .billing_scheme(PriceBillingScheme::Tiered)
        .tiers_mode(PriceTiersMode::Graduated)
        .tiers(tiers)
        .recurring(recurring);
    Ok((key, terms, request))
}

/// What a unit of overage costs, in the minor unit with at most twelve decimals; `None` where that is not
/// exact.
fn unit_amount_decimal(overage: &OveragePrice) -> Option<String> {
    const PARTS: i128 = 1_000_000_000_000;
    let (amount, per) = (i128::from(overage.amount) * PARTS, i128::from(overage.per.max(1)));
    (amount % per == 0).then(|| {
        let parts = amount / per;
        format!("{}.{:012}", parts / PARTS, parts % PARTS)
    })
}

/// How Stripe counts what is reported of a meter: each hour its own number where hours add up, otherwise the
/// number of the period so far.
const fn formula(aggregation: Aggregation) -> CreateBillingMeterDefaultAggregationFormula {
    match aggregation {
        Aggregation::Sum | Aggregation::Count => CreateBillingMeterDefaultAggregationFormula::Sum,
        Aggregation::Max | Aggregation::Last | Aggregation::Unique => {
            CreateBillingMeterDefaultAggregationFormula::Last
        }
    }
}

fn metadata(terms: &str) -> HashMap<String, String> {
    HashMap::from([(TERMS.to_owned(), terms.to_owned())])
}

fn terms_of(price: &TheirPrice) -> &str {
    price.metadata.get(TERMS).map_or("", String::as_str)
}

fn same(name: &str, there: &str, wanted: &str) -> Result<(), ProviderError> {
    if there == wanted {
        return Ok(());
    }
    let text =
        format!("{name} is there already on other terms ('{there}', not '{wanted}'); make a new version");
    Err(ProviderError::Refused(text))
}

#[cfg(test)]
mod tests {
    use tenantry_domain::kernel::Currency;

    use super::*;

    #[test]
    fn what_a_unit_costs_is_exact_or_refused() {
        let unit = |amount, per| {
            let currency = Currency::try_from("usd".to_owned()).unwrap();
            unit_amount_decimal(&OveragePrice {
                currency,
                amount,
                per,
            })
        };
        assert_eq!(unit(100, 10_000).unwrap(), "0.010000000000");
        assert_eq!(unit(50, 1).unwrap(), "50.000000000000");
        assert_eq!(unit(1, 1_000_000_000_000).unwrap(), "0.000000000001");
        assert_eq!(unit(1, 3), None);
        assert_eq!(unit(1, 10_000_000_000_000), None);
        assert!(unit(i64::MAX, 1).is_some());
    }
}
