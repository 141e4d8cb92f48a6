//! One connection to the mail server, and what its refusals mean at which point of the conversation.

use lettre::address::Envelope;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use tenantry_domain::kernel::Line;
use tenantry_domain::operations::{Accepted, MailError};

use crate::{SmtpConfig, Tls};

/// How to log in, the safest first that both know. The oldest (LOGIN) is what some know alone.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// A connection over which mail can be handed over.
pub struct Connection {
    server: AsyncSmtpConnection,
    /// Whether the server may have got a mail that it has not answered.
    is_in_doubt: bool,
}

impl Connection {
    /// Connects, encrypts and logs in, as the settings say. Whatever goes wrong here is not the mail's fault.
    pub async fn open(config: &SmtpConfig, tls: &TlsParameters, hello: &ClientId) -> Result<Self, MailError> {
        let server = (config.host.as_str(), config.port);
        let implicit = (config.tls == Tls::Implicit).then(|| tls.clone());
        let connected = AsyncSmtpConnection::connect_tokio1(server, None, hello, implicit, None).await;
        let mut connection = connected.map_err(|error| unusable(&error))?;
        if config.tls == Tls::Starttls {
            let encrypted = connection.starttls(tls.clone(), hello).await;
            encrypted.map_err(|error| unusable(&error))?;
        }
        if let Some(login) = &config.login {
            let credentials = Credentials::new(login.user.clone(), login.password.clone());
            let entered = connection.auth(&MECHANISMS, &credentials).await;
            entered.map_err(|error| unusable(&error))?;
        }
        Ok(Self {
            server: connection,
            is_in_doubt: false,
        })
    }

    /// Whether the server is still there.
    pub async fn stands(&mut self) -> bool {
        !self.server.has_broken() && self.server.test_connected().await
    }

    /// Hands a mail over.
    pub async fn hand_over(&mut self, envelope: &Envelope, message: &[u8]) -> Result<Accepted, MailError> {
        let sender = Mail::new(envelope.from().cloned(), Vec::new());
        // A server that refuses whoever sends refuses every mail: that is for the settings to mend.
        self.server
            .command(sender)
            .await
            .map_err(|error| unusable(&error))?;
        for recipient in envelope.to() {
            let command = Rcpt::new(recipient.clone(), Vec::new());
            self.server
                .command(command)
                .await
                .map_err(|error| refusal_of_recipient(&error))?;
        }
        self.server.command(Data).await.map_err(|error| refusal(&error))?;
        self.is_in_doubt = true;
        let answer = self.server.message(message).await;
        let answer = answer.map_err(|error| {
            // A code is an answer.
            self.is_in_doubt = error.status().is_none();
            self.in_doubt(refusal(&error))
        })?;
        self.is_in_doubt = false;
        let words: Vec<_> = answer.message().collect();
        let words = format!("{} {}", answer.code(), words.join(" "));
        Ok(Accepted(Line::of(&words).to_string()))
    }

    /// What an error means for the mail that was handed over last: the server may have got all of it.
    pub fn in_doubt(&self, error: MailError) -> MailError {
        match error {
            MailError::Unavailable(problem) if self.is_in_doubt => MailError::InDoubt(problem),
            other => other,
        }
    }
}

/// What is wrong when no mail can be handed over at all.
fn unusable(error: &Error) -> MailError {
    if error.is_permanent() || error.is_client() || is_untrusted(error) {
        MailError::Misconfigured(words(error))
    } else {
        MailError::Unavailable(words(error))
    }
}

/// What is wrong when this mail is not taken.
fn refusal(error: &Error) -> MailError {
    if error.is_permanent() {
        MailError::Refused(words(error))
    } else {
        MailError::Unavailable(words(error))
    }
}

/// What is wrong when a recipient is not taken. Servers that block us as a sender often say so at this point, by a status of policy (5.7.x
/// of RFC 3463): that is nothing about the recipient.
fn refusal_of_recipient(error: &Error) -> MailError {
    match refusal(error) {
        MailError::Refused(words) if !is_of_policy(&words) => MailError::RecipientRefused(words),
        other => other,
    }
}

fn is_of_policy(words: &str) -> bool {
    words.split_whitespace().any(|word| word.starts_with("5.7."))
}

/// Whether encryption failed, most likely because the certificate is not one to be trusted: that comes as
/// data that do not hold.
fn is_untrusted(error: &Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
    };
    error.is_tls() || causes(error).any(broken)
}

/// The server's answer with its code, or what went wrong, without what only wraps it.
fn words(error: &Error) -> String {
    let cause = causes(error).last().filter(|_| error.status().is_none());
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

/// The error and what is behind it, the outermost first.
fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let outermost: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(outermost), |cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_policy_says_nothing_about_the_recipient() {
        assert!(is_of_policy(
            "permanent error (554): 5.7.1 Client host [192.0.2.7] blocked"
        ));
        assert!(!is_of_policy(
            "permanent error (550): 5.1.1 <ada@example.com>: no such user"
        ));
        assert!(!is_of_policy("permanent error (550): 5.7 users"));
    }
}
