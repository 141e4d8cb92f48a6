//! Who has signed an archive.

use tenantry_domain::archive::{ArchiveError, Manifest, ManifestSignature};
use tenantry_domain::kernel::hex;

use crate::Ports;

/// Whose archive it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// This installation's.
    Own,
    /// Another installation's, whose key the caller trusts.
    Trusted,
}

/// Signs a manifest with the present signing key.
///
/// # Errors
/// [`ArchiveError`].
pub fn sign(ports: &Ports, manifest: &mut Manifest) -> Result<(), ArchiveError> {
    let signature = ports.key_ring.sign(manifest.message()?.as_bytes());
    let place = Manifest::place(&signature.kid);
    manifest.signature = Some(ManifestSignature {
        alg: "EdDSA".to_owned(),
        public_key: hex(&signature.public_key),
        // The signing keys rotate and are deleted; sealed, the key is trusted without them.
        sealed_key: hex(&ports.seal.seal(&place, &signature.public_key)),
        value: hex(&signature.bytes),
        kid: signature.kid,
    });
    Ok(())
}

/// Verifies the signature of a manifest. It must be of a key of this installation, or of one of these public keys.
///
/// # Errors
/// [`ArchiveError::Untrusted`].
pub fn verify(ports: &Ports, manifest: &Manifest, trusted: &[Vec<u8>]) -> Result<Signer, ArchiveError> {
    let untrusted = |problem: &str| ArchiveError::Untrusted(problem.to_owned());
    let signature = manifest.signature.as_ref();
    let signature = signature.ok_or_else(|| untrusted("it is not signed"))?;
    let bytes = |text: &str| unhex(text).ok_or_else(|| untrusted("the signature is not hexadecimal"));
    let (key, value) = (bytes(&signature.public_key)?, bytes(&signature.value)?);
    let message = manifest.message()?;
    if signature.alg != "EdDSA" || !ports.key_ring.verifies(&key, message.as_bytes(), &value) {
        return Err(untrusted("the signature is wrong"));
    }
    let sealed = bytes(&signature.sealed_key)?;
    if ports
        .seal
        .open(&Manifest::place(&signature.kid), &sealed)
        .as_ref()
        == Some(&key)
    {
        return Ok(Signer::Own);
    }
    if trusted.contains(&key) {
        return Ok(Signer::Trusted);
    }
    let key = &signature.public_key;
    Err(ArchiveError::Untrusted(format!(
        "it is signed by another installation, with the public key {key}, which nobody has said to trust"
    )))
}

/// The bytes of hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}
