use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tenantry_domain::audit::{AuditSink, SinkError, StreamRecord};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::message::frame;
use crate::problem::problem;

/// How a syslog receiver is reached.
#[derive(Clone)]
pub struct SyslogConfig {
    /// The host, which the receiver's certificate must name.
    pub host: String,
    /// The port; 6514 is that of syslog over TLS.
    pub port: u16,
    /// The certificates (PEM) trusted to sign the receiver's; those of the system when absent.
    pub authorities: Option<Vec<u8>>,
    /// The certificate and the private key (PEM) with which this server identifies itself; none when absent.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether the end of the TCP connection acknowledges a batch where the receiver sends no `close_notify`.
    pub accept_plain_close: bool,
    /// How long connecting, sending and the acknowledgment may take together.
    pub timeout: Duration,
}

/// What is wrong with the settings of a syslog receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyslogConfigError {
    /// The host is neither a name nor an address.
    #[error("must be the name or address of a host, with a port")]
    Host,
    /// There is no certificate to trust.
    #[error("{0}")]
    Authorities(String),
    /// The certificate or key of this server cannot be used.
    #[error("{0}")]
    Client(String),
}

/// Sends each batch over a TLS connection of its own. Syslog has no acknowledgments, so the end of the connection is used as one: a receiver
/// of RFC 5425 answers the sender's `close_notify` with its own, when it has read everything before it. A receiver that is killed does not.
pub struct SyslogReceiver {
    connector: TlsConnector,
    name: ServerName<'static>,
    address: (String, u16),
    accept_plain_close: bool,
    timeout: Duration,
}

impl std::fmt::Debug for SyslogReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyslogReceiver")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl SyslogReceiver {
    /// A receiver. It is not connected to yet.
    ///
    /// # Errors
    /// [`SyslogConfigError`].
    pub fn new(config: SyslogConfig) -> Result<Self, SyslogConfigError> {
        let name = ServerName::try_from(config.host.clone()).map_err(|_| SyslogConfigError::Host)?;
        let roots = roots(config.authorities.as_deref())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SyslogConfigError::Authorities(error.to_string()))?
            .with_root_certificates(roots);
        let tls = match &config.client {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                let wrong = |error: String| SyslogConfigError::Client(error);
                let certificates = certificates_of(certificates).map_err(wrong)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(error.to_string()))?;
                let built = builder.with_client_auth_cert(certificates, key);
                built.map_err(|error| wrong(error.to_string()))?
            }
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(tls)),
            name,
            address: (config.host, config.port),
            accept_plain_close: config.accept_plain_close,
            timeout: config.timeout,
        })
    }

    /// Sends a batch and waits for the acknowledgment. `connected` says whether anything of the batch may have been sent.
    async fn deliver(&self, records: &[StreamRecord], connected: &mut bool) -> std::io::Result<()> {
        let (host, port) = (self.address.0.as_str(), self.address.1);
        let tcp = TcpStream::connect((host, port)).await?;
        let mut tls = self.connector.connect(self.name.clone(), tcp).await?;
        *connected = true;
        let frames: Vec<u8> = records.iter().flat_map(frame).collect();
        tls.write_all(&frames).await?;
        tls.shutdown().await?;
        self.acknowledged(&mut tls).await
    }

    /// Waits until the receiver has closed its side.
    async fn acknowledged(&self, tls: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
        let mut ignored = [0; 1_024];
        loop {
            match tls.read(&mut ignored).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof && self.accept_plain_close => {
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    let problem = "the receiver has closed the connection without close_notify";
                    return Err(std::io::Error::new(ErrorKind::UnexpectedEof, problem));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl AuditSink for SyslogReceiver {
    async fn send(&self, records: &[StreamRecord]) -> Result<(), SinkError> {
        let mut connected = false;
        let sent = tokio::time::timeout(self.timeout, self.deliver(records, &mut connected)).await;
        let problem = match sent {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => problem(&error),
            Err(_) => "no answer within the timeout".to_owned(),
        };
        if connected {
            return Err(SinkError::Unacknowledged(problem));
        }
        Err(SinkError::Unavailable {
            problem,
            retry_after: None,
        })
    }
}

fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, SyslogConfigError> {
    let wrong = |problem: String| SyslogConfigError::Authorities(problem);
    let certificates = match authorities {
        Some(pem) => certificates_of(pem).map_err(wrong)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(wrong("there is no CA certificate to trust".into()));
    }
    Ok(roots)
}

/// The certificates of a PEM file; one at least.
fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("there is no certificate in PEM".into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}
