use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A CA that is made for a test, in a folder that goes with this value.
pub struct Authority {
    folder: PathBuf,
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

impl Authority {
    pub fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tenantry-webhooks-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let request = format!("req -x509 {KEY} -keyout ca.key -out ca.crt -days 2 -subj /CN=tests-{number}");
        openssl(&folder, &request);
        Self { folder }
    }

    /// The certificate of the CA, in PEM.
    pub fn certificate(&self) -> Vec<u8> {
        std::fs::read(self.folder.join("ca.crt")).unwrap()
    }

    /// The server's side of TLS with a certificate for these names, such as `DNS:a.example` and `IP:127.0.0.1`.
    pub fn acceptor(&self, names: &str) -> TlsAcceptor {
        let folder = &self.folder;
        openssl(
            folder,
            &format!("req {KEY} -keyout server.key -out server.csr -subj /CN=server"),
        );
        std::fs::write(folder.join("server.ext"), format!("subjectAltName = {names}\n")).unwrap();
        let signed = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext";
        openssl(
            folder,
            &format!("x509 -req -in server.csr {signed} -out server.crt"),
        );
        let certificate = CertificateDer::from_pem_file(folder.join("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let made = command
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output();
    let made = made.unwrap_or_else(|error| panic!("{error}: install openssl"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
