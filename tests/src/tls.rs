use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// An authority made for a test, and a certificate of its for 127.0.0.1, in a folder that goes with this
/// value.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

/// A connection, encrypted or not.
pub type Wired = Box<dyn Stream>;

/// What can be read and written.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// When openssl is not installed.
    pub fn make() -> Self {
        let folder = folder("tls");
        make_certificates(&folder);
        Self { folder }
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Where `server.crt`, `server.key` and `ca.crt` are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's side of TLS on a connection.
    pub fn serve(&self, stream: TcpStream) -> Wired {
        Box::new(self.serve_tls(stream))
    }

    /// The same, with what is known of the connection.
    pub fn serve_tls(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        let certificate = CertificateDer::from_pem_file(self.folder.join("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.folder.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        StreamOwned::new(connection, stream)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder of one server of the tests.
pub fn folder(what: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tenantry-{what}-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn make_certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let made = command
            .args(arguments.split_whitespace())
            .current_dir(folder)
            .output();
        let made = made.unwrap_or_else(|error| panic!("{error}: install openssl"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=tests"
    ));
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=server"
    ));
    fs::write(folder.join("server.ext"), "subjectAltName = IP:127.0.0.1\n").unwrap();
    let signed = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext";
    openssl(&format!("x509 -req -in server.csr {signed} -out server.crt"));
}
