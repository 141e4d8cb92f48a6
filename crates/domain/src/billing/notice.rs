//! What a tenant's admins are notified of by mail.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::billing::{DunningStep, ProviderInvoice};
use crate::kernel::{Currency, Line, MailTemplate, Message, Period, Recipient, Time, wall_clock};
use crate::usage::{AlertBase, MeterKey, Threshold};

/// Something that a tenant's admins are told of. It carries the figures of the moment in which it happened,
/// so that a mail that is sent late, or again, says the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum Notice {
    /// A threshold of a quota was reached.
    Quota(QuotaNotice),
    /// A step of dunning was taken.
    Dunning(DunningNotice),
    /// API keys end soon, or have ended.
    ApiKeys(ApiKeyNotice),
    /// The proof of a custom domain is gone.
    Domain(DomainNotice),
    /// An endpoint of webhooks was disabled.
    Webhook(WebhookNotice),
}

/// An endpoint of webhooks was disabled by the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookNotice {
    /// Scheme, host and port of its URL: path and query may hold a token.
    pub origin: String,
    /// What the admins call it.
    pub description: Option<String>,
    /// Since when all attempts have failed; `None` where the receiver wants no more messages.
    pub failing_since: Option<Time>,
}

/// The proof of a custom domain is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainNotice {
    /// The host name.
    pub domain: String,
    /// The name of the TXT record that proves it.
    pub record: String,
    /// What the record must have.
    pub value: String,
    /// When the domain is released unless the record comes back; `None` when it was released.
    pub release_at: Option<Time>,
}

/// API keys end soon, or have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyNotice {
    /// The keys, the earliest end first.
    pub keys: Vec<EndingKey>,
}

/// An API key that ends soon, or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingKey {
    /// The name that its creator gave the key.
    pub name: String,
    /// When it ends or has ended.
    pub expires_at: Time,
    /// Whether it has ended.
    pub is_over: bool,
}

/// A threshold of a quota was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaNotice {
    /// Key of the limited meter.
    pub meter: MeterKey,
    /// The meter's title, for people.
    pub title: String,
    /// The threshold that was reached.
    pub threshold: Threshold,
    /// What was used then.
    pub used: u64,
    /// Whether what would go beyond the limit is refused.
    pub enforced: bool,
    /// The period that the units are counted in.
    pub period: Period,
}

/// A step of dunning was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DunningNotice {
    /// The step of dunning that was taken.
    pub step: DunningStep,
    /// The open invoices, the oldest first.
    #[serde(rename = "owed")]
    pub open_invoices: Vec<OpenInvoice>,
    /// When the tenant becomes, or became, read-only.
    pub suspended_at: Option<Time>,
    /// When it is, or was, deleted; `None` when it never is.
    pub deleted_at: Option<Time>,
}

/// An invoice that waits for payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvoice {
    /// Its number, once it has one.
    pub number: Option<String>,
    /// The outstanding amount, in the currency's minor unit.
    pub amount: i64,
    /// The ISO 4217 currency of the amount.
    pub currency: Currency,
    /// Where it is paid.
    pub url: Option<String>,
}

impl From<&ProviderInvoice> for OpenInvoice {
    fn from(invoice: &ProviderInvoice) -> Self {
        Self {
            number: invoice.number.clone(),
            amount: invoice.amount_due,
            currency: invoice.currency.clone(),
            url: invoice.url.clone(),
        }
    }
}

impl Notice {
    /// The notice as a mail.
    pub fn message(&self, recipient: &Recipient) -> Message {
        match self {
            Self::Quota(notice) => notice.message(recipient),
            Self::Dunning(notice) => notice.message(recipient),
            Self::ApiKeys(notice) => notice.message(recipient),
            Self::Domain(notice) => notice.message(recipient),
            Self::Webhook(notice) => notice.message(recipient),
        }
    }
}

/// How many invoices or keys a mail lists.
const LISTED: usize = 10;

/// The longest address of an invoice that a mail shows.
const LONGEST_LINK: usize = 2_000;

impl QuotaNotice {
    fn message(&self, recipient: &Recipient) -> Message {
        let Threshold {
            base,
            percent,
            amount,
        } = self.threshold;
        let base = match base {
            AlertBase::Included => "included",
            AlertBase::Limit => "limit",
        };
        Message::new(MailTemplate::Quota)
            .with("title", Line::of(&self.title))
            .with("meter", Line::of(self.meter.as_str()))
            .with("base", base)
            .with("percent", percent)
            .with("amount", amount)
            .with("used", self.used)
            .with("used_percent", self.used_percent().to_string())
            .with("enforced", self.enforced)
            .with("start", wall_clock(self.period.start, &recipient.zone))
            .with("end", wall_clock(self.period.end, &recipient.zone))
    }

    /// Rounded down, so that 100 means all of it.
    fn used_percent(&self) -> u128 {
        let whole = u128::from(self.threshold.amount.max(1));
        u128::from(self.used) * 100 / whole
    }
}

impl ApiKeyNotice {
    fn message(&self, recipient: &Recipient) -> Message {
        let listed = |key: &EndingKey| {
            json!({
                "name": Line::within(&key.name, Line::SHORT),
                "at": wall_clock(key.expires_at, &recipient.zone),
                "is_over": key.is_over,
            })
        };
        let keys: Vec<_> = self.keys.iter().take(LISTED).map(listed).collect();
        Message::new(MailTemplate::ApiKeys)
            .with("count", self.keys.len())
            .with("over", self.keys.iter().filter(|key| key.is_over).count())
            .with("keys", keys)
            .with("more", self.keys.len().saturating_sub(LISTED))
    }
}

impl DomainNotice {
    fn message(&self, recipient: &Recipient) -> Message {
        Message::new(MailTemplate::Domain)
            .with("domain", Line::of(&self.domain))
            .with("record", Line::of(&self.record))
            .with("value", Line::of(&self.value))
            .with(
                "release_at",
                self.release_at.map(|at| wall_clock(at, &recipient.zone)),
            )
    }
}

impl WebhookNotice {
    fn message(&self, recipient: &Recipient) -> Message {
        let description = self.description.as_deref();
        Message::new(MailTemplate::WebhookDisabled)
            .with("origin", Line::of(&self.origin))
            .with(
                "description",
                description.map(|text| Line::within(text, Line::SHORT)),
            )
            .with(
                "failing_since",
                self.failing_since.map(|at| wall_clock(at, &recipient.zone)),
            )
    }
}

impl DunningNotice {
    fn message(&self, recipient: &Recipient) -> Message {
        let clock = |at: Option<Time>| at.map(|at| wall_clock(at, &recipient.zone));
        let listed = |invoice: &OpenInvoice| {
            json!({
                "number": invoice.number.as_deref().map(Line::of),
                "amount": invoice.currency.amount(invoice.amount),
                "url": invoice.url.as_deref().filter(|url| is_link(url)),
            })
        };
        let invoices: Vec<_> = self.open_invoices.iter().take(LISTED).map(listed).collect();
        Message::new(MailTemplate::Dunning)
            .with("step", self.step.as_str())
            .with("suspended_at", clock(self.suspended_at))
            .with("deleted_at", clock(self.deleted_at))
            .with("invoices", invoices)
            .with("more", self.open_invoices.len().saturating_sub(LISTED))
            .with(
                "total",
                (self.open_invoices.len() > 1).then(|| self.total().join(", ")),
            )
    }

    /// One amount for each currency.
    fn total(&self) -> Vec<String> {
        let mut sums: Vec<(&Currency, i64)> = Vec::new();
        for invoice in &self.open_invoices {
            match sums
                .iter_mut()
                .find(|(currency, _)| *currency == &invoice.currency)
            {
                Some((_, sum)) => *sum = sum.saturating_add(invoice.amount),
                None => sums.push((&invoice.currency, invoice.amount)),
            }
        }
        let written = sums.into_iter().map(|(currency, sum)| currency.amount(sum));
        written.collect()
    }
}

/// An address that can be shown as it is.
fn is_link(url: &str) -> bool {
    url.starts_with("https://")
        && url.len() <= LONGEST_LINK
        && url.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn quota(base: AlertBase, percent: u32) -> Notice {
        Notice::Quota(QuotaNotice {
            meter: MeterKey::api_calls(),
            title: "API calls".into(),
            threshold: Threshold {
                base,
                percent,
                amount: 10_000,
            },
            used: 8_003,
            enforced: true,
            period: Period {
                start: at("2026-07-01T00:00:00Z"),
                end: at("2026-08-01T00:00:00Z"),
            },
        })
    }

    fn open_invoice(number: u32, amount: i64, currency: &str) -> OpenInvoice {
        OpenInvoice {
            number: Some(format!("INV-{number}")),
            amount,
            currency: Currency::try_from(currency.to_owned()).unwrap(),
            url: Some(format!("https://pay.example.com/{number}")),
        }
    }

    fn dunning(step: DunningStep, open_invoices: Vec<OpenInvoice>) -> Notice {
        Notice::Dunning(DunningNotice {
            step,
            open_invoices,
            suspended_at: Some(at("2026-07-08T00:00:00Z")),
            deleted_at: Some(at("2026-08-08T00:00:00Z")),
        })
    }

    #[test]
    fn what_was_stored_is_read_again() {
        for notice in [
            quota(AlertBase::Limit, 80),
            dunning(DunningStep::Deleted, vec![open_invoice(1, 2, "usd")]),
        ] {
            let stored = serde_json::to_value(&notice).unwrap();
            assert_eq!(serde_json::from_value::<Notice>(stored).unwrap(), notice);
        }
    }
}
