//! The templates of mail, which are compiled in: one for each kind of mail and language, in `templates/`. The same template
//! gives the text and the HTML; `blocks.txt` and `blocks.html` say how paragraphs, links and tables look in each.
//!
//! In HTML all values are escaped. In plain text they are lines ([`Line`](tenantry_domain::kernel::Line)), so they begin no line of their own.

use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value, context};
use tenantry_domain::kernel::{Language, Message, Recipient};
use tenantry_domain::operations::{Look, MailTemplates, RenderedMail, TemplateError};

/// Each template with its source, for each part of a mail.
const SOURCES: [(&str, &str); 24] = [
    ("en/account_link", include_str!("../templates/en/account_link.j2")),
    (
        "en/account_notice",
        include_str!("../templates/en/account_notice.j2"),
    ),
    ("en/api_keys", include_str!("../templates/en/api_keys.j2")),
    ("en/domain", include_str!("../templates/en/domain.j2")),
    ("en/dunning", include_str!("../templates/en/dunning.j2")),
    ("en/invitation", include_str!("../templates/en/invitation.j2")),
    (
        "en/notifications",
        include_str!("../templates/en/notifications.j2"),
    ),
    ("en/quota", include_str!("../templates/en/quota.j2")),
    (
        "en/security_alert",
        include_str!("../templates/en/security_alert.j2"),
    ),
    (
        "en/security_notice",
        include_str!("../templates/en/security_notice.j2"),
    ),
    (
        "en/webhook_disabled",
        include_str!("../templates/en/webhook_disabled.j2"),
    ),
    ("en/workspaces", include_str!("../templates/en/workspaces.j2")),
    ("de/account_link", include_str!("../templates/de/account_link.j2")),
    (
        "de/account_notice",
        include_str!("../templates/de/account_notice.j2"),
    ),
    ("de/api_keys", include_str!("../templates/de/api_keys.j2")),
    ("de/domain", include_str!("../templates/de/domain.j2")),
    ("de/dunning", include_str!("../templates/de/dunning.j2")),
    ("de/invitation", include_str!("../templates/de/invitation.j2")),
    (
        "de/notifications",
        include_str!("../templates/de/notifications.j2"),
    ),
    ("de/quota", include_str!("../templates/de/quota.j2")),
    (
        "de/security_alert",
        include_str!("../templates/de/security_alert.j2"),
    ),
    (
        "de/security_notice",
        include_str!("../templates/de/security_notice.j2"),
    ),
    (
        "de/webhook_disabled",
        include_str!("../templates/de/webhook_disabled.j2"),
    ),
    ("de/workspaces", include_str!("../templates/de/workspaces.j2")),
];

/// What all templates use.
const SHARED: [(&str, &str); 3] = [
    ("blocks.txt", include_str!("../templates/blocks.txt")),
    ("blocks.html", include_str!("../templates/blocks.html")),
    ("layout.html", include_str!("../templates/layout.html")),
];

/// What a template gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Subject,
    Text,
    Html,
}

impl Part {
    const ALL: [Self; 3] = [Self::Subject, Self::Text, Self::Html];

    const fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Text | Self::Html => "body",
        }
    }

    const fn format(self) -> &'static str {
        match self {
            Self::Subject | Self::Text => "txt",
            Self::Html => "html",
        }
    }
}

/// The templates of Tenantry's own mail.
pub struct CompiledTemplates {
    environment: Environment<'static>,
}

impl std::fmt::Debug for CompiledTemplates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CompiledTemplates")
    }
}

impl Default for CompiledTemplates {
    fn default() -> Self {
        Self::new()
    }
}

impl CompiledTemplates {
    /// The templates, which the first call of a process compiles.
    ///
    /// # Panics
    /// When one is no template, which a test finds.
    pub fn new() -> Self {
        static COMPILED: LazyLock<Environment<'static>> = LazyLock::new(CompiledTemplates::compile);
        Self {
            environment: COMPILED.clone(),
        }
    }

    fn compile() -> Environment<'static> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.expect("the usual delimiters"));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|name| {
            if name.ends_with(".html") {
                AutoEscape::Html
            } else {
                AutoEscape::None
            }
        });
        environment.add_filter("flow", flow);
        environment.add_filter("table", table);
        environment.add_filter("grouped", grouped);
        environment.add_filter("decimal", decimal);
        for (name, source) in SHARED {
            let added = environment.add_template(name, source);
            added.expect("compiled-in templates are tested");
        }
        for (name, source) in SOURCES {
            for format in ["txt", "html"] {
                let added = environment.add_template_owned(format!("{name}.{format}"), source);
                added.expect("compiled-in templates are tested");
            }
        }
        environment
    }

    fn part(
        &self,
        part: Part,
        message: &Message,
        recipient: &Recipient,
        look: &Look,
    ) -> Result<String, TemplateError> {
        let name = format!("{}.{}", name(message, look.language), part.format());
        let mut values = message.values().clone();
        let common = [
            ("part", part.name()),
            ("format", part.format()),
            ("lang", look.language.as_str()),
            ("name", recipient.name.as_str()),
            ("tenant", recipient.tenant.as_str()),
            ("app_url", recipient.app_url.as_str()),
        ];
        for (name, value) in common {
            values.insert(name.to_owned(), value.into());
        }
        self.render_named(&name, Value::from(Serde(values)))
    }

    fn render_named(&self, name: &str, values: Value) -> Result<String, TemplateError> {
        let template = self.environment.get_template(name);
        let rendered = template.and_then(|template| template.render(values));
        rendered.map_err(|error| TemplateError {
            template: name.to_owned(),
            problem: error.to_string(),
        })
    }
}

impl MailTemplates for CompiledTemplates {
    fn render(
        &self,
        message: &Message,
        recipient: &Recipient,
        look: &Look,
    ) -> Result<RenderedMail, TemplateError> {
        let [subject, text, html] = Part::ALL.map(|part| self.part(part, message, recipient, look));
        let subject = recipient.subject(subject?.trim());
        let layout = context! {
            lang => look.language.as_str(),
            subject => subject.as_str(),
            color => look.color.as_str(),
            text_color => look.text_color.as_str(),
            tenant => recipient.tenant.as_str(),
            // Its values are escaped already.
            content => Value::from_safe_string(html?),
        };
        Ok(RenderedMail {
            subject,
            text: format!("{}\n", text?.trim_end()),
            html: self.render_named("layout.html", layout)?,
        })
    }
}

/// The name of a mail's template, without the format.
fn name(message: &Message, language: Language) -> String {
    format!("{}/{}", language.as_str(), message.template().as_str())
}

/// A paragraph on one line, whatever lines the template has.
fn flow(paragraph: &Value) -> Value {
    let line = paragraph
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    if paragraph.is_safe() {
        Value::from_safe_string(line)
    } else {
        Value::from(line)
    }
}

/// Rows of a name and a value in plain text, the values below each other.
fn table(rows: &Value) -> Result<String, Error> {
    let mut lines = Vec::new();
    for row in rows.try_iter()? {
        let [name, value] = [0, 1].map(|at| row.get_item_by_index(at).map(|cell| cell.to_string()));
        lines.push((name?, value?));
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or_default();
    let lines = lines
        .iter()
        .map(|(name, value)| format!("  {name:width$}  {value}"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// A whole number, its digits in groups of three as the language does it.
fn grouped(state: &State<'_, '_>, number: &Value) -> Result<String, Error> {
    if number.kind() != ValueKind::Number {
        return Err(Error::new(ErrorKind::InvalidOperation, "no number"));
    }
    let separator = if is_german(state) { '.' } else { ',' };
    let mut text = number.to_string();
    for at in (1..text.len()).rev().skip(2).step_by(3) {
        text.insert(at, separator);
    }
    Ok(text)
}

/// An amount with a decimal point, with the sign of the language instead.
fn decimal(state: &State<'_, '_>, amount: &str) -> String {
    if is_german(state) {
        amount.replace('.', ",")
    } else {
        amount.to_owned()
    }
}

fn is_german(state: &State<'_, '_>) -> bool {
    let lang = state.lookup("lang");
    lang.is_some_and(|lang| lang.as_str() == Some(Language::German.as_str()))
}

#[cfg(test)]
#[path = "templates_tests.rs"]
mod tests;
