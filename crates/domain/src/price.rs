use serde::{Deserialize, Serialize};

/// What a plan costs, for one interval in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// In the currency's minor unit, as ISO 4217 defines it: 2900 is 29.00 in `usd` and ¥2900 in `jpy`. Not
    /// negative.
    pub amount: i64,
    /// The currency.
    pub currency: Currency,
    /// What one payment covers.
    pub interval: Interval,
}

/// An ISO 4217 currency code in lower case, as Stripe writes it. Only the form is checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Currency(String);

impl Currency {
    /// The code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Currency {
    type Error = CurrencyError;

    fn try_from(code: String) -> Result<Self, CurrencyError> {
        let holds = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase());
        if holds {
            Ok(Self(code))
        } else {
            Err(CurrencyError(code))
        }
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a currency: three lower-case letters after ISO 4217")]
pub struct CurrencyError(String);

/// How long one payment lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interval {
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Interval {
    /// Its name in the configuration and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The interval of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Month, Self::Year]
            .into_iter()
            .find(|interval| interval.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_is_three_lower_case_letters() {
        assert_eq!(Currency::try_from("usd".to_owned()).unwrap().to_string(), "usd");
        for code in ["", "us", "usdt", "USD", "u5d", "€", "us "] {
            assert!(Currency::try_from(code.to_owned()).is_err(), "{code}");
        }
    }

    #[test]
    fn a_price_reads_back_as_written() {
        let price = Price {
            amount: 2900,
            currency: Currency("usd".into()),
            interval: Interval::Month,
        };
        let json = r#"{"amount":2900,"currency":"usd","interval":"month"}"#;
        assert_eq!(serde_json::to_string(&price).unwrap(), json);
        assert_eq!(serde_json::from_str::<Price>(json).unwrap(), price);
        assert_eq!(Interval::Year.as_str(), "year");
    }
}
