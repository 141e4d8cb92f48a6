use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::sender::SenderSetupError;

/// The TLS of all connections: the CA certificates of the system, and those in PEM, if any. It is made once, since reading the certificates
/// is slow, and sessions are resumed within it.
pub(crate) fn client_config(authorities: Option<&[u8]>) -> Result<ClientConfig, SenderSetupError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = authorities {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = read.map_err(|error| SenderSetupError::Authorities(error.to_string()))?;
        if certificates.is_empty() {
            return Err(SenderSetupError::Authorities(
                "there is no certificate in PEM".into(),
            ));
        }
        for certificate in certificates {
            let added = roots.add(certificate);
            added.map_err(|error| SenderSetupError::Authorities(error.to_string()))?;
        }
    }
    if roots.is_empty() {
        return Err(SenderSetupError::NoAuthorities);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SenderSetupError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
