//! The receiver of audit entries: what the configuration says of it.

use std::sync::Arc;

use tenantry_domain::audit::{AuditReceiver, AuditSink};
use tenantry_siem::{HttpReceiver, HttpReceiverConfig, SyslogConfig, SyslogConfigError, SyslogReceiver};

use crate::config::{ConfigurationError, Stream, StreamKind};

/// The receiver, where the configuration names one. It is not connected to yet.
pub fn receiver(stream: &Stream) -> Result<Option<AuditReceiver>, ConfigurationError> {
    let sink: Arc<dyn AuditSink> = match stream.kind {
        StreamKind::Off => return Ok(None),
        StreamKind::Http => Arc::new(http(stream)?),
        StreamKind::Syslog => Arc::new(syslog(stream)?),
    };
    Ok(Some(AuditReceiver {
        sink,
        from: stream.from,
        limits: stream.limits(),
        timeout: stream.timeout(),
    }))
}

fn http(stream: &Stream) -> Result<HttpReceiver, ConfigurationError> {
    let invalid = |problem: String| ConfigurationError::invalid("audit.stream.url", problem);
    let url = stream.url.parse();
    let token = match &stream.token_file {
        None => stream.token.reveal().to_owned(),
        Some(file) => {
            let text = String::from_utf8_lossy(&Stream::read("audit.stream.token_file", file)?).into_owned();
            let token = text.trim().to_owned();
            if token.is_empty() {
                let problem = format!("{} is empty", file.display());
                return Err(ConfigurationError::invalid("audit.stream.token_file", problem));
            }
            token
        }
    };
    let authorization = format!("{} {token}", stream.token_scheme);
    let config = HttpReceiverConfig {
        url: url.map_err(|error: url::ParseError| invalid(error.to_string()))?,
        authorization: (!token.is_empty()).then(|| authorization.trim().to_owned()),
        authorities: authorities(stream)?,
        timeout: stream.timeout(),
    };
    HttpReceiver::new(config).map_err(invalid)
}

fn syslog(stream: &Stream) -> Result<SyslogReceiver, ConfigurationError> {
    let (host, port) = stream.host_and_port().ok_or_else(|| {
        let problem = "must be host:port of a syslog receiver over TLS, for example siem.example.com:6514";
        ConfigurationError::invalid("audit.stream.address", problem)
    })?;
    let client = match (&stream.client_cert_file, &stream.client_key_file) {
        (Some(certificate), Some(key)) => Some((
            Stream::read("audit.stream.client_cert_file", certificate)?,
            Stream::read("audit.stream.client_key_file", key)?,
        )),
        _ => None,
    };
    let config = SyslogConfig {
        host,
        port,
        authorities: authorities(stream)?,
        client,
        accept_plain_close: stream.accept_plain_close,
        timeout: stream.timeout(),
    };
    SyslogReceiver::new(config).map_err(|error| {
        let key = match error {
            SyslogConfigError::Host => "audit.stream.address",
            SyslogConfigError::Authorities(_) => "audit.stream.ca_file",
            SyslogConfigError::Client(_) => "audit.stream.client_cert_file",
        };
        ConfigurationError::invalid(key, error.to_string())
    })
}

fn authorities(stream: &Stream) -> Result<Option<Vec<u8>>, ConfigurationError> {
    let file = stream.ca_file.as_deref();
    file.map(|file| Stream::read("audit.stream.ca_file", file))
        .transpose()
}
