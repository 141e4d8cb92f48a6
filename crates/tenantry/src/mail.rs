//! How mail goes out: what the configuration says of it, and `tenantry mail`.

use std::sync::Arc;
use std::time::Duration;

use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{Clock, IdSource as _, Line};
use tenantry_domain::operations::{Mail, Mailbox, Mailer as _, MessageId};
use tenantry_mail::{LogMailer, Login, SmtpConfig, SmtpConfigError, SmtpMailer, TalliedMailer, Tls};
use tenantry_system::{SystemClock, SystemIds};

use crate::config::{self, Configuration, ConfigurationError, Profile, SmtpTls};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Send one mail with these settings, and say what the server answered. It needs no database.
    #[command(
        after_help = "Example: TENANTRY__MAIL__SMTP__HOST=smtp.example.com \\\n         \
                            TENANTRY__MAIL__FROM='Example <no-reply@example.com>' \\\n         \
                            tenantry mail test --to ada@example.com"
    )]
    Test {
        /// Who gets it.
        #[arg(long, value_parser = address)]
        to: Email,
    },
}

fn address(text: &str) -> Result<Email, String> {
    Email::parse(text, "").map_err(|_| "must be an address such as ada@example.com".to_owned())
}

/// Runs the command.
pub async fn run(config: &config::Mail, args: &Args) -> Result<(), CommandError> {
    let Action::Test { to } = &args.action;
    config.check()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mail = Mail {
        id: MessageId::once(SystemIds.uuid()),
        to: Mailbox {
            name: None,
            email: to.clone(),
        },
        subject: Line::of("A mail that tries the settings"),
        text: format!(
            "This mail was sent by `{} mail test`. If you read it, mail goes out.\n",
            console::program()
        ),
        html: None,
        written_at: clock.now(),
        unsubscribe: None,
    };
    let sent = mailer(config, clock)?.send(&mail).await;
    let accepted = sent.map_err(|error| CommandError::Other(error.to_string()))?;
    console::say(&format!("{}: {}", place(config), accepted.0));
    Ok(())
}

/// Whoever delivers mail with these settings.
pub fn mailer(config: &config::Mail, clock: Arc<dyn Clock>) -> Result<TalliedMailer, ConfigurationError> {
    if config.smtp.host.is_empty() {
        let log = LogMailer::new(config.log_contents);
        return Ok(TalliedMailer::new(Box::new(log), clock));
    }
    let smtp = SmtpMailer::new(smtp(config)?).map_err(|error| match error {
        SmtpConfigError::Trusted(problem) => ConfigurationError::invalid("mail.smtp.ca_file", problem),
        SmtpConfigError::Tls(problem) => ConfigurationError::invalid("mail.smtp.tls", problem),
    })?;
    Ok(TalliedMailer::new(Box::new(smtp), clock))
}

/// Where mail goes, for people.
fn place(config: &config::Mail) -> String {
    let smtp = &config.smtp;
    if smtp.host.is_empty() {
        return "the log (mail.smtp.host is not set)".to_owned();
    }
    format!("{}:{}", smtp.host, smtp.port())
}

fn smtp(config: &config::Mail) -> Result<SmtpConfig, ConfigurationError> {
    let smtp = &config.smtp;
    Ok(SmtpConfig {
        host: smtp.host.clone(),
        port: smtp.port(),
        tls: match smtp.tls {
            SmtpTls::Starttls => Tls::Starttls,
            SmtpTls::Tls => Tls::Implicit,
            SmtpTls::None => Tls::None,
        },
        login: (!smtp.user.is_empty()).then(|| Login {
            user: smtp.user.clone(),
            password: smtp.password.reveal().to_owned(),
        }),
        ca_file: smtp.ca_file.clone(),
        connect_timeout: Duration::from_millis(smtp.connect_timeout_ms),
        timeout: Duration::from_millis(smtp.timeout_ms),
        pool_size: smtp.pool_size,
        from: config.sender()?,
    })
}

/// Says at the start that mail goes nowhere.
pub fn warn(config: &Configuration) {
    if config.mail.smtp.host.is_empty() {
        let message = "mail.smtp.host is not set: mail is written to the log and sent to nobody";
        // In development that is how it is meant.
        match config.profile {
            Profile::Development => tracing::info!(message),
            Profile::Production => tracing::warn!(message),
        }
    }
}
