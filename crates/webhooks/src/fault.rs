use std::error::Error;
use std::io;

use rustls::CertificateError;
use tenantry_domain::webhooks::ConnectionFault;

/// What an error of connecting, or of the handshake of TLS, means.
pub(crate) fn of_io(error: &io::Error) -> ConnectionFault {
    if let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return of_tls(tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectionFault::Refused,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => ConnectionFault::Unreachable,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ConnectionFault::Closed,
        // More than the allowance of an answer, or records of TLS that are none.
        io::ErrorKind::InvalidData => ConnectionFault::Protocol,
        _ => ConnectionFault::Other,
    }
}

fn of_tls(error: &rustls::Error) -> ConnectionFault {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => ConnectionFault::CertificateExpired,
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => ConnectionFault::CertificateName,
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            ConnectionFault::CertificateIssuer
        }
        _ => ConnectionFault::Tls,
    }
}

/// What an error of an exchange over HTTP means.
pub(crate) fn of_http(error: &hyper::Error) -> ConnectionFault {
    if error.is_parse() || error.is_parse_too_large() {
        return ConnectionFault::Protocol;
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return ConnectionFault::Closed;
    }
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    io.map_or(ConnectionFault::Other, of_io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_certificates_are_told_apart() {
        let of = |error: CertificateError| {
            of_io(&io::Error::new(
                io::ErrorKind::InvalidData,
                rustls::Error::InvalidCertificate(error),
            ))
        };
        assert_eq!(of(CertificateError::Expired), ConnectionFault::CertificateExpired);
        assert_eq!(
            of(CertificateError::NotValidYet),
            ConnectionFault::CertificateExpired
        );
        assert_eq!(
            of(CertificateError::NotValidForName),
            ConnectionFault::CertificateName
        );
        assert_eq!(
            of(CertificateError::UnknownIssuer),
            ConnectionFault::CertificateIssuer
        );
        assert_eq!(of(CertificateError::BadEncoding), ConnectionFault::Tls);
        for (kind, fault) in [
            (io::ErrorKind::ConnectionRefused, ConnectionFault::Refused),
            (io::ErrorKind::HostUnreachable, ConnectionFault::Unreachable),
            (io::ErrorKind::UnexpectedEof, ConnectionFault::Closed),
            (io::ErrorKind::InvalidData, ConnectionFault::Protocol),
            (io::ErrorKind::AddrNotAvailable, ConnectionFault::Other),
        ] {
            assert_eq!(of_io(&kind.into()), fault, "{kind:?}");
        }
    }
}
