//! Verifies passkeys: the adapter of [`tenantry_domain::identity::PasskeyCeremonies`] on `webauthn_rp`, which implements the
//! relying party of WebAuthn in Rust, signatures included (ES256, ES384, EdDSA, RS256).
//!
//! Challenges come from the operating system's randomness, and the end of a ceremony is compared with the system's clock: the
//! library has no ports for them. Use cases compare the end with their own clock as well.
#![deny(missing_docs)]

mod origin;

use serde_json::Value;
use tenantry_domain::identity::{
    PasskeyAssertion, PasskeyBackup, PasskeyCeremonies, PasskeyCeremony, PasskeyCredential, PasskeyOwner,
    PasskeyRefusal, UserHandle,
};
use webauthn_rp::bin::{Decode as _, Encode as _};
use webauthn_rp::request::auth::{
    AuthenticationVerificationOptions, DiscoverableCredentialRequestOptions, SignatureCounterEnforcement,
};
use webauthn_rp::request::register::{
    CredProtect, PublicKeyCredentialCreationOptions, PublicKeyCredentialUserEntity,
    RegistrationVerificationOptions, UserHandle as Handle,
};
use webauthn_rp::request::{AsciiDomain, PublicKeyCredentialDescriptor, RpId};
use webauthn_rp::response::register::{CompressedPubKey, DynamicState, StaticState};
use webauthn_rp::response::{AuthTransports, AuthenticatorAttachment, Backup, CredentialId};
use webauthn_rp::{
    AuthenticatedCredential, DiscoverableAuthentication, DiscoverableAuthenticationServerState, Registration,
    RegistrationServerState,
};

/// How long a user handle is, in bytes.
const HANDLE: usize = 32;

/// A stored public key as the library reads it.
type StoredKey = StaticState<CompressedPubKey<[u8; 32], [u8; 32], [u8; 48], Vec<u8>>>;

/// Passkeys of one relying party.
#[derive(Debug, Clone)]
pub struct RelyingParty {
    id: RpId,
    origins: Vec<String>,
    decoy: PasskeyCredential,
}

/// Why a relying party cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelyingPartyError {
    /// The id is not the name of a host.
    #[error(
        "must be a domain in lower case without port and scheme, for example example.com; for development localhost"
    )]
    Id,
    /// There is no origin.
    #[error("must have at least one origin, for example https://app.example.com")]
    NoOrigin,
    /// An origin is not one, or not of the relying party.
    #[error("{origin} {problem}")]
    Origin {
        /// The text that was given as an origin.
        origin: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl RelyingParty {
    /// The relying party with this id, whose pages are of these origins: each `https://HOST[:PORT]` with the id or a subdomain of
    /// it as the host, or `http` where the host is `localhost`.
    ///
    /// # Errors
    /// [`RelyingPartyError`].
    pub fn new(id: &str, origins: &[String]) -> Result<Self, RelyingPartyError> {
        if !origin::is_domain(id) {
            return Err(RelyingPartyError::Id);
        }
        let domain = AsciiDomain::try_from(id.to_owned()).map_err(|_| RelyingPartyError::Id)?;
        if origins.is_empty() {
            return Err(RelyingPartyError::NoOrigin);
        }
        for one in origins {
            origin::check(one, id).map_err(|problem| RelyingPartyError::Origin {
                origin: one.clone(),
                problem,
            })?;
        }
        Ok(Self {
            id: RpId::Domain(domain),
            origins: origins.to_vec(),
            decoy: decoy(),
        })
    }
}

impl PasskeyCeremonies for RelyingParty {
    fn start_registration(&self, owner: &PasskeyOwner<'_>, present: &[PasskeyCredential]) -> PasskeyCeremony {
        let handle = handle(owner.handle);
        let present = present.iter().filter_map(descriptor).collect();
        let user = PublicKeyCredentialUserEntity::from(&handle);
        let mut options = PublicKeyCredentialCreationOptions::passkey(&self.id, user, present);
        // Security keys without this extension are welcome, too: user verification is required in each ceremony.
        options.extensions.cred_protect = CredProtect::None;
        let (server, client) = options
            .start_ceremony()
            .expect("options of the library's own defaults are valid");
        let mut options = serde_json::to_value(&client).expect("options have a JSON form");
        // The library allows few names, and these are for people only.
        name(&mut options, "/user/name", owner.account);
        name(&mut options, "/user/displayName", owner.full_name);
        name(&mut options, "/rp/name", owner.tenant);
        let state = server.encode().expect("the system's clock is past 1970");
        PasskeyCeremony { options, state }
    }

    fn finish_registration(&self, state: &[u8], response: &str) -> Result<PasskeyCredential, PasskeyRefusal> {
        let state = RegistrationServerState::<HANDLE>::decode(state).map_err(refused)?;
        let response = Registration::from_json_relaxed(response.as_bytes()).map_err(malformed)?;
        let options = RegistrationVerificationOptions::<String, String> {
            allowed_origins: &self.origins,
            error_on_unsolicited_extensions: false,
            ..RegistrationVerificationOptions::default()
        };
        let made = state.verify(&self.id, &response, &options).map_err(refused)?;
        let Ok(public_key) = made.static_state().encode();
        let Ok(transports) = made.transports().encode();
        let dynamic = made.dynamic_state();
        Ok(PasskeyCredential {
            credential_id: made.id().as_ref().to_vec(),
            public_key,
            sign_count: dynamic.sign_count,
            backup: backup(dynamic.backup),
            transports,
        })
    }

    fn start_login(&self) -> PasskeyCeremony {
        let options = DiscoverableCredentialRequestOptions::passkey(&self.id);
        let (server, client) = options
            .start_ceremony()
            .expect("options of the library's own defaults are valid");
        PasskeyCeremony {
            options: serde_json::to_value(&client).expect("options have a JSON form"),
            state: server.encode().expect("the system's clock is past 1970"),
        }
    }

    fn credential_id(&self, response: &str) -> Result<Vec<u8>, PasskeyRefusal> {
        let response = read_login(response)?;
        Ok(response.raw_id().as_ref().to_vec())
    }

    fn finish_login(
        &self,
        state: &[u8],
        response: &str,
        known: Option<(UserHandle, &PasskeyCredential)>,
    ) -> Result<PasskeyAssertion, PasskeyRefusal> {
        let state = DiscoverableAuthenticationServerState::decode(state).map_err(refused)?;
        let response = read_login(response)?;
        // Whose it is and which it is are compared at the end, so that all refusals come after the same work.
        let presented = *response.response().user_handle();
        let credential = known.map_or(&self.decoy, |(_, credential)| credential);
        let key = StoredKey::decode(&credential.public_key).map_err(refused)?;
        let dynamic = DynamicState {
            user_verified: true,
            backup: stored_backup(credential.backup),
            // So that the presented counter comes back whatever it is: it is compared where the passkey is locked.
            sign_count: 0,
            authenticator_attachment: AuthenticatorAttachment::None,
        };
        let id = response.raw_id();
        let mut verified = AuthenticatedCredential::new(id, &presented, key, dynamic).map_err(refused)?;
        let options = AuthenticationVerificationOptions::<String, String> {
            allowed_origins: &self.origins,
            error_on_unsolicited_extensions: false,
            sig_counter_enforcement: SignatureCounterEnforcement::Update,
            ..AuthenticationVerificationOptions::default()
        };
        state
            .verify(&self.id, &response, &mut verified, &options)
            .map_err(refused)?;
        let is_theirs = known.is_some_and(|(owner, _)| handle(owner) == presented);
        if !is_theirs || credential.credential_id != id.as_ref() {
            return Err(PasskeyRefusal::Refused("the user has no such credential".into()));
        }
        let dynamic = verified.dynamic_state();
        Ok(PasskeyAssertion {
            sign_count: dynamic.sign_count,
            backup: backup(dynamic.backup),
        })
    }
}

/// The response to a login. Its user handle has the length of ours.
fn read_login(response: &str) -> Result<DiscoverableAuthentication<HANDLE>, PasskeyRefusal> {
    DiscoverableAuthentication::<HANDLE>::from_json_relaxed(response.as_bytes()).map_err(malformed)
}

fn malformed(error: impl std::fmt::Display) -> PasskeyRefusal {
    PasskeyRefusal::Malformed(error.to_string())
}

fn refused(error: impl std::fmt::Display) -> PasskeyRefusal {
    PasskeyRefusal::Refused(error.to_string())
}

fn handle(owner: UserHandle) -> Handle<HANDLE> {
    let Ok(handle) = Handle::decode(*owner.bytes());
    handle
}

/// A passkey that a user has, for authenticators; `None` for one that the library would not have made.
fn descriptor(credential: &PasskeyCredential) -> Option<PublicKeyCredentialDescriptor<Vec<u8>>> {
    Some(PublicKeyCredentialDescriptor {
        id: CredentialId::decode(credential.credential_id.clone()).ok()?,
        transports: AuthTransports::decode(credential.transports).ok()?,
    })
}

/// Puts a name for people in its place.
fn name(options: &mut Value, pointer: &str, text: &str) {
    if let Some(place) = options.pointer_mut(pointer) {
        *place = text.into();
    }
}

fn backup(backup: Backup) -> PasskeyBackup {
    match backup {
        Backup::NotEligible => PasskeyBackup::None,
        Backup::Eligible => PasskeyBackup::Eligible,
        Backup::Exists => PasskeyBackup::Exists,
    }
}

fn stored_backup(backup: PasskeyBackup) -> Backup {
    match backup {
        PasskeyBackup::None => Backup::NotEligible,
        PasskeyBackup::Eligible => Backup::Eligible,
        PasskeyBackup::Exists => Backup::Exists,
    }
}

/// A credential with which the response of an unknown one is verified, so that it costs the same. The key is the generator of
/// P-256: whatever it verifies is refused all the same.
fn decoy() -> PasskeyCredential {
    const X: [u8; 32] = [
        0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77,
        0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96,
    ];
    let mut public_key = vec![1];
    public_key.extend(X);
    // y is odd; no protection policy, no secret.
    public_key.extend([1, 0, 0]);
    PasskeyCredential {
        credential_id: vec![0; 16],
        public_key,
        sign_count: 0,
        backup: PasskeyBackup::None,
        transports: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn party() -> RelyingParty {
        RelyingParty::new("example.com", &["https://app.example.com".into()]).unwrap()
    }

    fn owner() -> PasskeyOwner<'static> {
        PasskeyOwner {
            handle: UserHandle::of(Uuid::from_u128(1).into(), Uuid::from_u128(2).into()),
            account: "ada lovelace@example.com",
            full_name: "Ada \u{202e}Lovelace",
            tenant: "Acme Inc",
        }
    }

    #[test]
    fn registration_asks_for_a_verified_discoverable_credential() {
        let options = party().start_registration(&owner(), &[decoy()]).options;
        assert_eq!(options["rp"]["id"], "example.com");
        assert_eq!(options["rp"]["name"], "Acme Inc");
        assert_eq!(options["user"]["name"], "ada lovelace@example.com");
        assert_eq!(options["user"]["displayName"], "Ada \u{202e}Lovelace");
        assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
        assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
        assert_eq!(options["attestation"], "none");
        assert_eq!(options["excludeCredentials"].as_array().unwrap().len(), 1);
        assert_eq!(options["timeout"], 300_000);
        assert_eq!(options["challenge"].as_str().unwrap().len(), 22);
    }

    #[test]
    fn login_names_no_credential_and_has_a_fresh_challenge() {
        let (one, other) = (party().start_login(), party().start_login());
        assert_eq!(one.options["rpId"], "example.com");
        assert_eq!(one.options["userVerification"], "required");
        assert_eq!(one.options["allowCredentials"], serde_json::json!([]));
        assert_ne!(one.options["challenge"], other.options["challenge"]);
        assert_ne!(
            PasskeyCeremony::digest(&one.state),
            PasskeyCeremony::digest(&other.state)
        );
    }

    #[test]
    fn decoy_is_a_key_that_the_library_reads() {
        assert!(StoredKey::decode(&decoy().public_key).is_ok());
    }

    #[test]
    fn relying_party_has_a_domain_and_origins_of_it() {
        for id in [
            "",
            "Example.com",
            "https://example.com",
            "example.com:443",
            "10.0.0.1",
            "[::1]",
            "com",
            "a b.c",
            ".example.com",
        ] {
            let made = RelyingParty::new(id, &[format!("https://{id}")]);
            assert_eq!(made.err(), Some(RelyingPartyError::Id), "{id}");
        }
        assert_eq!(
            RelyingParty::new("example.com", &[]).err(),
            Some(RelyingPartyError::NoOrigin)
        );
        for origin in ["https://example.com", "https://app.example.com:8443"] {
            assert!(
                RelyingParty::new("example.com", &[origin.into()]).is_ok(),
                "{origin}"
            );
        }
        assert!(
            RelyingParty::new(
                "localhost",
                &[
                    "http://localhost:8080".into(),
                    "http://acme.localhost:8080".into()
                ]
            )
            .is_ok()
        );
        for origin in [
            "",
            "example.com",
            "http://example.com",
            "https://example.com/",
            "https://example.com/login",
            "https://example.org",
            "https://badexample.com",
            "https://user@example.com",
            "https://EXAMPLE.com",
            "https://example.com:443",
            "https://example.com.",
            "ftp://example.com",
        ] {
            let made = RelyingParty::new("example.com", &[origin.into()]);
            assert!(matches!(made, Err(RelyingPartyError::Origin { .. })), "{origin}");
        }
    }
}
