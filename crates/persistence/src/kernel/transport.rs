use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tenantry_domain::kernel::StoreError;

/// How a connection to PostgreSQL is protected on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// It does not leave this machine: a Unix socket, or a loopback address.
    Local,
    /// Encrypted, and the server proves with a certificate that it has the name of the URL (`sslmode=verify-full`).
    Verified,
    /// Anything less: somebody on the way can read it, or can take the server's place.
    Open,
}

impl Transport {
    /// What a URL asks for, together with the variables that libpq knows (`PGSSLMODE`, `PGHOST`).
    ///
    /// # Errors
    /// [`StoreError::Other`] for a URL that cannot be read, and for one with an IPv6 address in brackets, which the driver takes
    /// for a name; the message does not repeat the URL, as it holds a password.
    pub fn of(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url
            .parse()
            .map_err(|_| StoreError::Other("the database URL cannot be read".into()))?;
        if let Some(address) = options
            .get_host()
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            let problem = format!(
                "the driver cannot read the IPv6 address [{address}] in the URL; write it as a parameter: \
                 postgres://USER@localhost/DATABASE?host={address}"
            );
            return Err(StoreError::Other(problem));
        }
        let socket = options.get_socket().is_some() || options.get_host().starts_with('/');
        if socket || is_loopback(options.get_host()) {
            return Ok(Self::Local);
        }
        Ok(match options.get_ssl_mode() {
            PgSslMode::VerifyFull => Self::Verified,
            PgSslMode::Disable
            | PgSslMode::Allow
            | PgSslMode::Prefer
            | PgSslMode::Require
            | PgSslMode::VerifyCa => Self::Open,
        })
    }
}

/// Whether a host is this machine: `localhost` (RFC 6761), or a loopback address.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verify_full_protects_what_leaves_the_machine() {
        for (url, transport) in [
            ("postgres://u@127.0.0.1/x", Transport::Local),
            ("postgres://u@127.9.9.9:5433/x?sslmode=disable", Transport::Local),
            ("postgres://u@localhost/x?host=::1", Transport::Local),
            ("postgres://u@localhost/x", Transport::Local),
            ("postgres:///x?host=/var/run/postgresql", Transport::Local),
            ("postgres://%2Fvar%2Frun%2Fpostgresql/x", Transport::Local),
            ("postgres://u@db/x?sslmode=verify-full", Transport::Verified),
            (
                "postgres://u@db/x?sslmode=verify-full&sslrootcert=/etc/ca.pem",
                Transport::Verified,
            ),
            ("postgres://u@db/x", Transport::Open),
            ("postgres://u@db/x?sslmode=disable", Transport::Open),
            ("postgres://u@db/x?sslmode=prefer", Transport::Open),
            ("postgres://u@db/x?sslmode=require", Transport::Open),
            ("postgres://u@db/x?sslmode=verify-ca", Transport::Open),
            ("postgres://u@10.0.0.7/x", Transport::Open),
            ("postgres://u@localhost.example.com/x", Transport::Open),
            ("postgres://u@localhost/x?host=db", Transport::Open),
            ("postgres://u@localhost:5433/x?host=2001:db8::1", Transport::Open),
        ] {
            assert_eq!(Transport::of(url).unwrap(), transport, "{url}");
        }
        assert!(Transport::of("postgres://u:secret@[/x").is_err());
        assert!(Transport::of("postgres://u@[::1]/x").is_err());
    }
}
