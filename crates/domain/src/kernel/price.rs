use serde::{Deserialize, Serialize};

use crate::kernel::name::named_enum;

/// What a plan costs, for one interval in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// In the currency's minor unit, as ISO 4217 defines it: 2900 is 29.00 in `usd` and ¥2900 in `jpy`. Not
    /// negative.
    pub amount: i64,
    /// The ISO 4217 currency of the amount.
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

    /// How many decimals its minor unit stands for, after ISO 4217 (table A.1 of 2024): 2 for most.
    pub fn decimals(&self) -> u32 {
        match self.0.as_str() {
            "bif" | "clp" | "djf" | "gnf" | "isk" | "jpy" | "kmf" | "krw" | "pyg" | "rwf" | "ugx" | "uyi"
            | "vnd" | "vuv" | "xaf" | "xof" | "xpf" => 0,
            "bhd" | "iqd" | "jod" | "kwd" | "lyd" | "omr" | "tnd" => 3,
            "clf" | "uyw" => 4,
            _ => 2,
        }
    }

    /// An amount in its minor unit, for people: 2900 is `29.00 USD` and `2900 JPY`. Nothing is rounded.
    pub fn amount(&self, minor: i64) -> String {
        let (sign, digits) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
        let (code, decimals) = (self.0.to_ascii_uppercase(), self.decimals());
        let unit = 10_u64.pow(decimals);
        let (whole, part, width) = (digits / unit, digits % unit, decimals as usize);
        if decimals == 0 {
            return format!("{sign}{whole} {code}");
        }
        format!("{sign}{whole}.{part:0width$} {code}")
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

named_enum! {
    /// How long one payment lasts.
    #[derive(PartialOrd, Ord)]
    pub enum Interval {
        /// Payments are due monthly.
        Month = "month",
        /// Payments are due yearly.
        Year = "year",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_is_written_in_the_units_of_its_currency() {
        for (code, minor, written) in [
            ("usd", 2_900, "29.00 USD"),
            ("usd", 5, "0.05 USD"),
            ("eur", -1_234_567, "-12345.67 EUR"),
            ("jpy", 2_900, "2900 JPY"),
            ("kwd", 1_001, "1.001 KWD"),
            ("clf", 12_345, "1.2345 CLF"),
            ("usd", 0, "0.00 USD"),
            ("usd", i64::MIN, "-92233720368547758.08 USD"),
        ] {
            assert_eq!(Currency(code.into()).amount(minor), written);
        }
    }

    proptest! {
        #[test]
        fn no_digit_of_an_amount_is_lost(minor: i64, which in 0_usize..4) {
            let code = ["usd", "jpy", "kwd", "clf"][which];
            let written = Currency(code.into()).amount(minor);
            let digits: String = written.chars().filter(|c| c.is_ascii_digit() || *c == '-').collect();
            prop_assert_eq!(digits.parse::<i64>().unwrap(), minor);
        }
    }

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
