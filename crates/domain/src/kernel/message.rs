//! Mails before they are put into words: which template, with which values, in which language.

use serde::Serialize;
use serde_json::{Map, Value};

/// A language that mails are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// English, also where no other language is known.
    English,
    /// German, in its formal form of address.
    German,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::English, Self::German];

    /// The language of a language tag (BCP 47) such as `de-AT`.
    pub fn of(tag: &str) -> Self {
        let language = tag.split('-').next().unwrap_or_default();
        let known = Self::ALL.into_iter();
        let mut known = known.filter(|known| language.eq_ignore_ascii_case(known.as_str()));
        known.next().unwrap_or(Self::English)
    }

    /// Its language tag.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }
}

/// A kind of mail, which has a template in each language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailTemplate {
    /// A link that opens an account.
    AccountLink,
    /// Something that happened to an account.
    AccountNotice,
    /// API keys end soon, or have ended.
    ApiKeys,
    /// The proof of a custom domain is gone.
    Domain,
    /// A step of dunning.
    Dunning,
    /// An invitation to join a tenant, with its link.
    Invitation,
    /// Notifications that a user has not turned off.
    Notifications,
    /// A threshold of a quota.
    Quota,
    /// An alert about suspicious activity.
    SecurityAlert,
    /// Something that happened to what protects an account.
    SecurityNotice,
    /// An endpoint of webhooks was disabled.
    WebhookDisabled,
    /// The workspaces of an address.
    Workspaces,
}

impl MailTemplate {
    /// Every template.
    pub const ALL: [Self; 12] = [
        Self::AccountLink,
        Self::AccountNotice,
        Self::ApiKeys,
        Self::Domain,
        Self::Dunning,
        Self::Invitation,
        Self::Notifications,
        Self::Quota,
        Self::SecurityAlert,
        Self::SecurityNotice,
        Self::WebhookDisabled,
        Self::Workspaces,
    ];

    /// Its name, that of its file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccountLink => "account_link",
            Self::AccountNotice => "account_notice",
            Self::ApiKeys => "api_keys",
            Self::Domain => "domain",
            Self::Dunning => "dunning",
            Self::Invitation => "invitation",
            Self::Notifications => "notifications",
            Self::Quota => "quota",
            Self::SecurityAlert => "security_alert",
            Self::SecurityNotice => "security_notice",
            Self::WebhookDisabled => "webhook_disabled",
            Self::Workspaces => "workspaces",
        }
    }
}

/// A mail as values: the template has the words.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    template: MailTemplate,
    values: Map<String, Value>,
}

impl Message {
    /// A mail of a template, without values.
    pub fn new(template: MailTemplate) -> Self {
        Self {
            template,
            values: Map::new(),
        }
    }

    /// The mail with a value. Texts that people chose are given as a [`Line`](crate::kernel::Line).
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.values.insert(name.to_owned(), value);
        self
    }

    /// The template that puts the mail into words.
    pub const fn template(&self) -> MailTemplate {
        self.template
    }

    /// The values by name.
    pub const fn values(&self) -> &Map<String, Value> {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_is_that_of_the_tag_or_english() {
        for (tag, language) in [
            ("de", Language::German),
            ("de-AT", Language::German),
            ("DE-x-phonebk", Language::German),
            ("en-GB", Language::English),
            ("fr", Language::English),
            ("den", Language::English),
            ("", Language::English),
        ] {
            assert_eq!(Language::of(tag), language, "{tag}");
        }
    }
}
