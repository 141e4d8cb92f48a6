//! What a tenant's admins are told by mail, and in which words.

use serde::{Deserialize, Serialize};

use crate::billing::{DunningStep, ProviderInvoice};
use crate::kernel::{Currency, Letter, Line, Period, Reader, Time, wall_clock};
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
    /// What is owed, the oldest first.
    pub owed: Vec<Owed>,
    /// When the tenant becomes, or became, read-only.
    pub suspended_at: Option<Time>,
    /// When it is, or was, deleted; `None` when it never is.
    pub deleted_at: Option<Time>,
}

/// An invoice that is to be paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Its number, once it has one.
    pub number: Option<String>,
    /// What is still to be paid, in the currency's minor unit.
    pub amount: i64,
    /// The ISO 4217 currency of the amount.
    pub currency: Currency,
    /// Where it is paid.
    pub url: Option<String>,
}

impl From<&ProviderInvoice> for Owed {
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
    /// The notice in words. The subject is short enough for the name of the tenant to leave the matter in
    /// sight.
    pub fn letter(&self, reader: &Reader) -> Letter {
        let (subject, parts) = match self {
            Self::Quota(notice) => notice.words(reader),
            Self::Dunning(notice) => notice.words(reader),
            Self::ApiKeys(notice) => notice.words(reader),
        };
        let mut text = format!("Hello {},\n", reader.name);
        for part in parts {
            text.push('\n');
            text.push_str(&part);
            text.push('\n');
        }
        let why = format!(
            "\nYou get this mail because you are an admin of {}.\n",
            reader.tenant
        );
        text.push_str(&why);
        Letter {
            subject: reader.subject(&subject),
            text,
        }
    }
}

/// How many invoices a mail lists.
const LISTED: usize = 10;

/// The longest address of an invoice that a mail shows.
const LONGEST_LINK: usize = 2_000;

impl QuotaNotice {
    fn words(&self, reader: &Reader) -> (String, Vec<String>) {
        let (tenant, title) = (&reader.tenant, Line::of(&self.title));
        let Threshold {
            base,
            percent,
            amount,
        } = self.threshold;
        let whole = match base {
            AlertBase::Included => "what the plan includes",
            AlertBase::Limit => "the limit",
        };
        let end = wall_clock(self.period.end, &reader.zone);
        let subject = format!("{title}: {percent} % of {whole} is used");
        let happened = format!("{tenant} has used {percent} % of {whole} of {title} in this period.");
        let figures = table(&[
            ("Meter", format!("{title} ({})", self.meter)),
            (
                "Used",
                format!("{} ({} %)", grouped(self.used), self.used_percent()),
            ),
            (
                match base {
                    AlertBase::Included => "Included",
                    AlertBase::Limit => "Limit",
                },
                grouped(amount),
            ),
            (
                "Period",
                format!("{} to", wall_clock(self.period.start, &reader.zone)),
            ),
            ("", end.clone()),
        ]);
        let next = match (base, percent) {
            (AlertBase::Limit, _) if !self.enforced => {
                "nothing; what goes beyond it is not refused.".to_owned()
            }
            (AlertBase::Limit, ..100) => {
                format!("once the limit is reached, whatever would go beyond it is refused until {end}.")
            }
            (AlertBase::Limit, _) => format!("whatever would go beyond the limit is refused until {end}."),
            (AlertBase::Included, ..100) => {
                "what goes beyond what is included costs what the plan says.".to_owned()
            }
            (AlertBase::Included, _) => format!("whatever is used until {end} costs what the plan says."),
        };
        let next = format!("What happens next: {next}");
        let act = format!("Look at what is used, or change the plan: {}", reader.app_url);
        (subject, vec![happened, figures, next, act])
    }

    /// Rounded down, so that 100 means all of it.
    fn used_percent(&self) -> u128 {
        let whole = u128::from(self.threshold.amount.max(1));
        u128::from(self.used) * 100 / whole
    }
}

impl ApiKeyNotice {
    fn words(&self, reader: &Reader) -> (String, Vec<String>) {
        let (count, over) = (
            self.keys.len(),
            self.keys.iter().filter(|key| key.is_over).count(),
        );
        let (noun, plural) = if count == 1 {
            ("API key", "")
        } else {
            ("API keys", "s")
        };
        let subject = match (count, over) {
            (1, 1) => "an API key has expired".to_owned(),
            (1, _) => "an API key expires soon".to_owned(),
            (_, 0) => format!("{count} API keys expire soon"),
            (_, over) if over == count => format!("{count} API keys have expired"),
            _ => format!("{count} API keys have expired or expire soon"),
        };
        let happened = format!("Programs use the following {noun} of {}:", reader.tenant);
        let lines = self.keys.iter().take(LISTED).map(|key| {
            let verb = if key.is_over { "expired on" } else { "expires on" };
            let at = wall_clock(key.expires_at, &reader.zone);
            format!("  {}: {verb} {at}", Line::within(&key.name, Line::SHORT))
        });
        let mut lines: Vec<_> = lines.collect();
        if count > LISTED {
            lines.push(format!("  and {} more", count - LISTED));
        }
        let next =
            "What happens next: after its end a key is refused, and the programs that use it stop working.";
        let act = format!(
            "Give the key{plural} a later end, or replace the key{plural}: {}",
            reader.app_url
        );
        (subject, vec![happened, lines.join("\n"), next.to_owned(), act])
    }
}

impl DunningNotice {
    fn words(&self, reader: &Reader) -> (String, Vec<String>) {
        let on = |at: Option<Time>| {
            at.map_or_else(
                || "soon".to_owned(),
                |at| format!("on {}", wall_clock(at, &reader.zone)),
            )
        };
        let (suspended, deleted) = (on(self.suspended_at), on(self.deleted_at));
        let next = self.next(&reader.tenant, &suspended, &deleted);
        let parts = [
            self.happened(&reader.tenant, &deleted),
            self.invoices(),
            format!("What happens next: {next}"),
            self.act(&reader.app_url),
        ];
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect();
        (self.subject(&suspended, &deleted), parts)
    }

    fn subject(&self, suspended: &str, deleted: &str) -> String {
        match self.step {
            DunningStep::PaymentFailed => "a payment has failed".to_owned(),
            DunningStep::SuspensionAhead => format!("read-only {suspended} unless an invoice is paid"),
            DunningStep::Suspended => "read-only because an invoice is not paid".to_owned(),
            DunningStep::DeletionAhead => format!("deleted {deleted} unless an invoice is paid"),
            DunningStep::Deleted => "deleted because an invoice was not paid".to_owned(),
            DunningStep::Recovered => "everything is paid".to_owned(),
        }
    }

    fn happened(&self, tenant: &Line, deleted: &str) -> String {
        match self.step {
            DunningStep::PaymentFailed => format!("A payment for {tenant} has failed."),
            DunningStep::SuspensionAhead => {
                format!("A payment for {tenant} has failed, and nothing was paid since.")
            }
            DunningStep::Suspended => {
                format!("Nothing was paid in the days of grace, so {tenant} is read-only now.")
            }
            DunningStep::DeletionAhead => format!("{tenant} is read-only because an invoice is not paid."),
            DunningStep::Deleted => {
                format!("Nothing was paid for so long that {tenant} was deleted {deleted}.")
            }
            DunningStep::Recovered => format!("Everything that was open for {tenant} is paid. Thank you."),
        }
    }

    fn next(&self, tenant: &Line, suspended: &str, deleted: &str) -> String {
        match self.step {
            DunningStep::PaymentFailed => format!(
                "everything works as before. If what is open is not paid by then, {tenant} becomes read-only \
                 {suspended}."
            ),
            DunningStep::SuspensionAhead => format!(
                "{tenant} becomes read-only {suspended}. Reading, exporting and paying still work then."
            ),
            DunningStep::Suspended => {
                let works = "reading, exporting and paying still work. When everything is paid the rest \
                             works again at once.";
                match self.deleted_at {
                    None => works.to_owned(),
                    Some(_) => {
                        format!(
                            "{works} Unless that happens, {tenant} and everything in it is deleted {deleted}."
                        )
                    }
                }
            }
            DunningStep::DeletionAhead => format!(
                "{tenant} and everything in it is deleted {deleted}. Paying before that makes everything \
                 work again at once. Exporting still works."
            ),
            DunningStep::Deleted => {
                "nobody can log in any more. Whoever wants it back should ask us soon.".to_owned()
            }
            DunningStep::Recovered => {
                "nothing. Whatever was read-only because of the payment works again.".to_owned()
            }
        }
    }

    fn act(&self, app_url: &Line) -> String {
        match self.step {
            DunningStep::Recovered => format!("Invoices and the subscription: {app_url}"),
            DunningStep::Deleted => String::new(),
            DunningStep::PaymentFailed
            | DunningStep::SuspensionAhead
            | DunningStep::Suspended
            | DunningStep::DeletionAhead => format!("Pay, or change how you pay: {app_url}"),
        }
    }

    /// What is owed, invoice by invoice, and all of it.
    fn invoices(&self) -> String {
        let mut lines = Vec::new();
        for owed in self.owed.iter().take(LISTED) {
            let number = owed.number.as_deref().unwrap_or("without a number");
            let amount = owed.currency.amount(owed.amount);
            lines.push(format!("  Invoice {}: {amount}", Line::of(number)));
            if let Some(url) = owed.url.as_deref().filter(|url| is_link(url)) {
                lines.push(format!("    {url}"));
            }
        }
        if self.owed.len() > LISTED {
            lines.push(format!("  and {} more", self.owed.len() - LISTED));
        }
        if self.owed.len() > 1 {
            lines.push(format!("  Together: {}", self.total().join(", ")));
        }
        lines.join("\n")
    }

    /// One amount for each currency.
    fn total(&self) -> Vec<String> {
        let mut sums: Vec<(&Currency, i64)> = Vec::new();
        for owed in &self.owed {
            match sums.iter_mut().find(|(currency, _)| *currency == &owed.currency) {
                Some((_, sum)) => *sum = sum.saturating_add(owed.amount),
                None => sums.push((&owed.currency, owed.amount)),
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

/// Rows of a name and a value, the values below each other.
fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = rows
        .iter()
        .map(|(name, value)| format!("  {name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let mut text = number.to_string();
    for at in (1..text.len()).rev().skip(2).step_by(3) {
        text.insert(at, ',');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn reader() -> Reader {
        Reader {
            name: Line::of("Ada"),
            tenant: Line::of("Acme Inc"),
            zone: "Europe/Berlin".into(),
            app_url: Line::of("https://app.example.com/"),
        }
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

    fn owed(number: u32, amount: i64, currency: &str) -> Owed {
        Owed {
            number: Some(format!("INV-{number}")),
            amount,
            currency: Currency::try_from(currency.to_owned()).unwrap(),
            url: Some(format!("https://pay.example.com/{number}")),
        }
    }

    fn dunning(step: DunningStep, owed: Vec<Owed>) -> Notice {
        Notice::Dunning(DunningNotice {
            step,
            owed,
            suspended_at: Some(at("2026-07-08T00:00:00Z")),
            deleted_at: Some(at("2026-08-08T00:00:00Z")),
        })
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (123_456, "123,456"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_quota_is_told_with_its_figures_in_the_time_of_the_tenant() {
        let letter = quota(AlertBase::Limit, 80).letter(&reader());
        assert_eq!(
            letter.subject.as_str(),
            "[Acme Inc] API calls: 80 % of the limit is used"
        );
        for part in [
            "8,003 (80 %)",
            "10,000",
            "2026-08-01 02:00 (Europe/Berlin)",
            "https://app.example.com/",
        ] {
            assert!(letter.text.contains(part), "{part}: {}", letter.text);
        }
        let mut lenient = quota(AlertBase::Limit, 100);
        if let Notice::Quota(notice) = &mut lenient {
            notice.enforced = false;
        }
        let lenient = lenient.letter(&reader()).text;
        assert!(lenient.contains("is not refused"), "{lenient}");
        let full = quota(AlertBase::Included, 100).letter(&reader());
        assert!(full.text.contains("costs what the plan says"), "{}", full.text);
    }

    #[test]
    fn every_step_says_what_is_owed_and_what_comes_next() {
        let mut subjects = Vec::new();
        for step in DunningStep::ALL {
            let letter = dunning(
                step,
                vec![owed(1, 2_900, "usd"), owed(2, 500, "jpy"), owed(3, 1, "usd")],
            )
            .letter(&reader());
            assert!(
                letter
                    .text
                    .contains("INV-1: 29.00 USD\n    https://pay.example.com/1\n"),
                "{}",
                letter.text
            );
            assert!(
                letter.text.contains("Together: 29.01 USD, 500 JPY"),
                "{}",
                letter.text
            );
            assert!(letter.text.contains("What happens next: "), "{}", letter.text);
            subjects.push(letter.subject);
        }
        subjects.dedup();
        assert_eq!(subjects.len(), DunningStep::ALL.len());
        let without = dunning(DunningStep::PaymentFailed, Vec::new()).letter(&reader());
        assert!(
            !without.text.contains("Invoice") && !without.text.contains("\n\n\n"),
            "{}",
            without.text
        );
        let many = (0..12).map(|number| owed(number, 100, "usd")).collect();
        let many = dunning(DunningStep::PaymentFailed, many).letter(&reader());
        assert!(
            many.text.contains("and 2 more\n  Together: 12.00 USD"),
            "{}",
            many.text
        );
    }

    #[test]
    fn what_was_stored_is_read_again() {
        for notice in [
            quota(AlertBase::Limit, 80),
            dunning(DunningStep::Deleted, vec![owed(1, 2, "usd")]),
        ] {
            let stored = serde_json::to_value(&notice).unwrap();
            assert_eq!(serde_json::from_value::<Notice>(stored).unwrap(), notice);
        }
    }

    proptest! {
        /// Whatever people, tenants, meters and invoices are called: no line of a mail is theirs alone, and
        /// nothing in it is more than text.
        #[test]
        fn names_stay_in_their_lines(names: [String; 4], url: String) {
            let [name, tenant, title, number] = names;
            let reader = Reader { name: Line::of(&name), tenant: Line::of(&tenant), ..reader() };
            let mut quota = quota(AlertBase::Limit, 80);
            if let Notice::Quota(notice) = &mut quota {
                notice.title = title;
            }
            let owed = Owed {
                number: Some(number),
                url: Some(format!("https://{url}")),
                ..owed(1, 2_900, "usd")
            };
            let beginnings = ["Hello ", "What happens", "A payment ", "Look at ", "Pay, or ", "You get "];
            for notice in [quota, dunning(DunningStep::PaymentFailed, vec![owed])] {
                let letter = notice.letter(&reader);
                let plain = letter.text.replace('\n', "");
                prop_assert!(!plain.contains(|c: char| c.is_control()), "{}", letter.text);
                let own = |line: &str| {
                    let begins = beginnings.iter().any(|beginning| line.starts_with(beginning));
                    line.is_empty() || line.starts_with(' ') || line.contains(" % of ") || begins
                };
                prop_assert!(letter.text.lines().all(own), "{}", letter.text);
            }
        }
    }
}
