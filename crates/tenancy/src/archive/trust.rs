//! Who has signed an archive.

use tenantry_domain::archive::{ArchiveError, Manifest, ManifestSignature};
use tenantry_domain::kernel::hex;

use crate::{Ports, Tenancy};

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
/// [`ArchiveError::Untrusted`]; also for a key that the operator distrusts.
pub fn verify(app: &Tenancy, manifest: &Manifest, trusted: &[Vec<u8>]) -> Result<Signer, ArchiveError> {
    let ports = &app.ports;
    let untrusted = |problem: &str| ArchiveError::Untrusted(problem.to_owned());
    let signature = manifest.signature.as_ref();
    let signature = signature.ok_or_else(|| untrusted("it is not signed"))?;
    let bytes = |text: &str| unhex(text).ok_or_else(|| untrusted("the signature is not hexadecimal"));
    let (key, value) = (bytes(&signature.public_key)?, bytes(&signature.value)?);
    let message = manifest.message()?;
    if signature.alg != "EdDSA" || !ports.key_ring.verifies(&key, message.as_bytes(), &value) {
        return Err(untrusted("the signature is wrong"));
    }
    let own = is_own(ports, manifest);
    // The name of a key is bound to it where it is this installation's; of another one's only the key itself counts.
    let distrusted = &app.policy.distrusted_keys;
    if own && distrusted.contains(&signature.kid) || distrusted.contains(&hex(&key)) {
        let kid = &signature.kid;
        return Err(untrusted(&format!(
            "it is signed with the key {kid}, which the operator distrusts"
        )));
    }
    if own {
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

/// Whether the public key of the signature is one that this installation has signed with: it was sealed here.
pub fn is_own(ports: &Ports, manifest: &Manifest) -> bool {
    let own = manifest.signature.as_ref().and_then(|signature| {
        let (key, sealed) = (unhex(&signature.public_key)?, unhex(&signature.sealed_key)?);
        let opened = ports.seal.open(&Manifest::place(&signature.kid), &sealed)?;
        Some(opened == key)
    });
    own.unwrap_or(false)
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
