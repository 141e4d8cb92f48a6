use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lettre::address::Envelope;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use tenantry_domain::kernel::Line;
use tenantry_domain::operations::{Accepted, Mail, MailError, Mailer};
use tokio::time::{Instant, timeout};

use crate::connection::Connection;
use crate::message::encode;
use crate::{SmtpConfig, SmtpConfigError};

/// For how long nobody tries a server that could not be reached.
const PAUSE: Duration = Duration::from_secs(5);

/// For how long a connection is kept that nobody uses: most servers close it after five minutes, some much
/// earlier.
const KEPT: Duration = Duration::from_secs(20);

/// Hands mail to a server over SMTP.
///
/// A server that is away costs whoever sends mail its timeout once. After that everybody is told at once that
/// it is away, and one of them looks again every few seconds; so mail that cannot be sent takes no room from
/// other work.
pub struct SmtpMailer {
    config: SmtpConfig,
    tls: TlsParameters,
    hello: ClientId,
    uptime: Uptime,
    state: Mutex<State>,
}

/// Returns how much time has passed since some moment. It never goes back as a wall clock does, which would lengthen the pause.
type Uptime = Box<dyn Fn() -> Duration + Send + Sync>;

#[derive(Default)]
struct State {
    /// Connections that wait for the next mail, and since when.
    idle: Vec<(Connection, Instant)>,
    /// While the server is away: when to try the next connection, by the uptime, and what the matter was.
    away: Option<(Duration, MailError)>,
}

impl std::fmt::Debug for SmtpMailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpMailer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl SmtpMailer {
    /// One that uses this server; connects to nothing yet.
    ///
    /// # Errors
    /// [`SmtpConfigError`].
    pub fn new(config: SmtpConfig) -> Result<Self, SmtpConfigError> {
        let start = Instant::now();
        Self::timed_by(config, move || start.elapsed())
    }

    /// The same with another source of the time that passes, for tests.
    ///
    /// # Errors
    /// [`SmtpConfigError`].
    pub fn timed_by(
        config: SmtpConfig,
        uptime: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<Self, SmtpConfigError> {
        let tls = tls(&config)?;
        let from = config.from.email.as_str();
        let hello = from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
        Ok(Self {
            hello: ClientId::Domain(hello.to_owned()),
            config,
            tls,
            uptime: Box::new(uptime),
            state: Mutex::default(),
        })
    }

    async fn hand_over(&self, envelope: &Envelope, message: &[u8]) -> Result<Accepted, MailError> {
        // Whoever stops waiting takes the connection with them: nobody knows how far it was.
        let mut connection = self.connection().await?;
        let handing = connection.hand_over(envelope, message);
        let Ok(handed) = timeout(self.config.timeout, handing).await else {
            let error = self.is_away(too_slow(self.config.timeout));
            return Err(connection.in_doubt(error));
        };
        let mut state = self.lock();
        state.away = None;
        if handed.is_ok() && state.idle.len() < self.config.pool_size {
            state.idle.push((connection, Instant::now()));
        }
        handed
    }

    /// A connection that has been used before, or a new one.
    async fn connection(&self) -> Result<Connection, MailError> {
        while let Some(mut idle) = self.take_idle() {
            if timeout(self.config.connect_timeout, idle.stands()).await == Ok(true) {
                return Ok(idle);
            }
        }
        self.admit()?;
        let opening = Connection::open(&self.config, &self.tls, &self.hello);
        match timeout(self.config.connect_timeout, opening).await {
            Ok(opened) => opened.map_err(|error| self.is_away(error)),
            Err(_) => Err(self.is_away(too_slow(self.config.connect_timeout))),
        }
    }

    /// Whether a connection may be tried now. One of those who ask after a pause is let through, and the
    /// others are not until it is known what becomes of it.
    fn admit(&self) -> Result<(), MailError> {
        let now = (self.uptime)();
        let trying = self.config.connect_timeout + self.config.timeout;
        match &mut self.lock().away {
            Some((until, error)) if now < *until => Err(error.clone()),
            Some((until, _)) => {
                *until = now + PAUSE + trying;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Notes that nobody need try for a while.
    fn is_away(&self, error: MailError) -> MailError {
        let mut state = self.lock();
        state.idle.clear();
        state.away = Some(((self.uptime)() + PAUSE, error.clone()));
        error
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut state = self.lock();
        state.idle.retain(|(_, since)| since.elapsed() < KEPT);
        state.idle.pop().map(|(connection, _)| connection)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, mail: &Mail) -> Result<Accepted, MailError> {
        let (envelope, message) = encode(mail, &self.config.from)?;
        let sent = self.hand_over(&envelope, &message).await;
        sent.map_err(|error| discreet(error, mail.to.email.as_str()))
    }
}

fn too_slow(after: Duration) -> MailError {
    MailError::Unavailable(format!("no answer within {} ms", after.as_millis()))
}

/// Servers repeat whom they refuse, and the reason ends up in logs and terminals: it is one plain line
/// without the address, whatever the server says.
fn discreet(error: MailError, address: &str) -> MailError {
    let without = |problem: String| Line::of(&problem.replace(address, "…")).to_string();
    match error {
        MailError::Unavailable(problem) => MailError::Unavailable(without(problem)),
        MailError::InDoubt(problem) => MailError::InDoubt(without(problem)),
        MailError::GivenUp(times) => MailError::GivenUp(times),
        MailError::Misconfigured(problem) => MailError::Misconfigured(without(problem)),
        MailError::RecipientRefused(problem) => MailError::RecipientRefused(without(problem)),
        MailError::Refused(problem) => MailError::Refused(without(problem)),
    }
}

/// How a certificate begins in PEM (RFC 7468).
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn tls(config: &SmtpConfig) -> Result<TlsParameters, SmtpConfigError> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        let unusable = |problem: String| SmtpConfigError::Trusted(format!("{}: {problem}", path.display()));
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        if !pem.windows(BEGIN.len()).any(|text| text == BEGIN) {
            return Err(unusable("there is no certificate in it".to_owned()));
        }
        let certificate = Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
        builder = builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(certificate);
    }
    builder
        .build_rustls()
        .map_err(|error| SmtpConfigError::Tls(error.to_string()))
}
