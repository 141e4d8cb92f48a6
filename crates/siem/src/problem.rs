//! What an operator of the server reads about a receiver that cannot be reached.

/// What rustls says of a receiver that identifies itself with the certificate of a CA.
const CA_AS_END_ENTITY: &str = "CaUsedAsEndEntity";

/// An error with its causes, since the first alone often says only that something was not sent, and with what to do about it where the error
/// names only a rule of certificates.
pub(crate) fn problem(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    if text.contains(CA_AS_END_ENTITY) {
        text.push_str(
            ". The receiver identifies itself with the certificate of a CA, as a self-signed one is by default: give the receiver a \
             certificate that a CA has signed, and put the certificate of that CA into audit.stream.ca_file",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    #[test]
    fn certificate_of_a_ca_is_explained() {
        let said = problem(&Error::other(
            "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
        ));
        assert!(said.starts_with("invalid peer certificate"), "{said}");
        assert!(said.ends_with("into audit.stream.ca_file"), "{said}");
        assert_eq!(problem(&Error::other("connection refused")), "connection refused");
    }
}
