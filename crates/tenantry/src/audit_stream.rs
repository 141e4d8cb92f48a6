//! The receiver of audit entries: what the settings say of it.

use std::sync::Arc;

use tenantry_domain::audit::{AuditReceiver, AuditSink};
use tenantry_siem::{
    HttpReceiver, HttpReceiverSettings, SyslogReceiver, SyslogSettings, SyslogSettingsError,
};

use crate::config::{SettingsError, Stream, StreamKind};

/// The receiver, where the settings name one. It is not connected to yet.
pub fn receiver(stream: &Stream) -> Result<Option<AuditReceiver>, SettingsError> {
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

fn http(stream: &Stream) -> Result<HttpReceiver, SettingsError> {
    let invalid = |problem: String| SettingsError::invalid("audit.stream.url", problem);
    let url = stream.url.parse();
    let token = match &stream.token_file {
        None => stream.token.reveal().to_owned(),
        Some(file) => {
            let text = String::from_utf8_lossy(&Stream::read("audit.stream.token_file", file)?).into_owned();
            let token = text.trim().to_owned();
            if token.is_empty() {
                let problem = format!("{} is empty", file.display());
                return Err(SettingsError::invalid("audit.stream.token_file", problem));
            }
            token
        }
    };
    let authorization = format!("{} {token}", stream.token_scheme);
    let settings = HttpReceiverSettings {
        url: url.map_err(|error: url::ParseError| invalid(error.to_string()))?,
        authorization: (!token.is_empty()).then(|| authorization.trim().to_owned()),
        authorities: authorities(stream)?,
        timeout: stream.timeout(),
    };
    HttpReceiver::new(settings).map_err(invalid)
}

fn syslog(stream: &Stream) -> Result<SyslogReceiver, SettingsError> {
    let (host, port) = stream.host_and_port().ok_or_else(|| {
        let problem = "must be host:port of a syslog receiver over TLS, for example siem.example.com:6514";
        SettingsError::invalid("audit.stream.address", problem)
    })?;
    let client = match (&stream.client_cert_file, &stream.client_key_file) {
        (Some(certificate), Some(key)) => Some((
            Stream::read("audit.stream.client_cert_file", certificate)?,
            Stream::read("audit.stream.client_key_file", key)?,
        )),
        _ => None,
    };
    let settings = SyslogSettings {
        host,
        port,
        authorities: authorities(stream)?,
        client,
        accept_plain_close: stream.accept_plain_close,
        timeout: stream.timeout(),
    };
    SyslogReceiver::new(settings).map_err(|error| {
        let key = match error {
            SyslogSettingsError::Host => "audit.stream.address",
            SyslogSettingsError::Authorities(_) => "audit.stream.ca_file",
            SyslogSettingsError::Client(_) => "audit.stream.client_cert_file",
        };
        SettingsError::invalid(key, error.to_string())
    })
}

fn authorities(stream: &Stream) -> Result<Option<Vec<u8>>, SettingsError> {
    let file = stream.ca_file.as_deref();
    file.map(|file| Stream::read("audit.stream.ca_file", file))
        .transpose()
}
