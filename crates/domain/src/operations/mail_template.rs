//! Putting mails into words.

use crate::kernel::{Language, Line, Message, Recipient};

/// How mails of a tenant look, and in which language they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// In which language the mail is written.
    pub language: Language,
    /// The tenant's color as `#rrggbb`.
    pub color: String,
    /// The color of text on it, as `#rrggbb`.
    pub text_color: String,
}

/// A mail in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedMail {
    /// The subject, with the name of the tenant.
    pub subject: Line,
    /// Plain text; lines end with a line feed.
    pub text: String,
    /// The same in HTML.
    pub html: String,
}

/// A mail could not be put into words: a template is wrong, or a value is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template {template} cannot be rendered: {problem}")]
pub struct TemplateError {
    /// The template's name, with the language.
    pub template: String,
    /// What is wrong.
    pub problem: String,
}

/// Renders mails as text and HTML.
pub trait MailTemplates: Send + Sync {
    /// Renders a mail.
    ///
    /// # Errors
    /// [`TemplateError`].
    fn render(
        &self,
        message: &Message,
        recipient: &Recipient,
        look: &Look,
    ) -> Result<RenderedMail, TemplateError>;
}
