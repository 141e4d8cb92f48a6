//! The second factor: time-based one-time codes (TOTP, RFC 6238) and recovery codes.

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::identity::PasswordHash;
use crate::kernel::{MfaChallengeId, OperatorId, Role, SessionId, StoreError, TenantId, Time, UserId, hex};

/// How long a TOTP code is valid, in seconds.
pub const TOTP_STEP_SECONDS: i64 = 30;

/// How many recovery codes a user gets at once.
pub const RECOVERY_CODES: usize = 10;

/// How long a login may wait for its second factor, in seconds.
pub const MFA_CHALLENGE_SECONDS: i64 = 300;

/// How many wrong codes end a login that waits for its second factor.
pub const MFA_CHALLENGE_FAILURES: i32 = 5;

/// How many logins of one user may wait for their second factor. A further one ends the oldest.
pub const MFA_CHALLENGES: usize = 20;

/// For how many days a device is trusted.
pub const TRUSTED_DEVICE_DAYS: i64 = 30;

/// How many devices of a user are trusted. A further one ends the oldest.
pub const TRUSTED_DEVICES: usize = 10;

/// The secret that a user's authenticator app and the server share: 160 bits, as RFC 4226 section 4 recommends.
#[derive(Clone, PartialEq, Eq)]
pub struct TotpSecret([u8; 20]);

impl std::fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

impl TotpSecret {
    /// The secret of these bytes.
    pub const fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 random bytes that codes are made of.
    pub const fn bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The secret in base32 without padding, as people type it into an app: 32 characters.
    pub fn base32(&self) -> String {
        base32(&self.0)
    }

    /// The key URI that apps read from a QR code (`otpauth://totp/ISSUER:ACCOUNT?…`). The issuer is a label: it is cut to
    /// 40 characters, and loses its colons, which separate it from the account.
    pub fn uri(&self, issuer: &str, account: &str) -> String {
        let issuer: String = issuer
            .chars()
            .filter(|character| *character != ':')
            .take(40)
            .collect();
        let (issuer, account) = (encoded(issuer.trim()), encoded(account));
        let secret = self.base32();
        format!(
            "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period={TOTP_STEP_SECONDS}"
        )
    }

    /// Returns the time step that a code of six digits belongs to, among those of the window. A step up to `last` is not accepted, so that
    /// a code works once.
    pub fn accepted_step(
        &self,
        codes: &dyn OneTimeCodes,
        code: &str,
        (now, window): (Time, TotpWindow),
        last: Option<i64>,
    ) -> Option<i64> {
        let is_code = code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit());
        if !is_code {
            return None;
        }
        let present = now.timestamp().div_euclid(TOTP_STEP_SECONDS);
        let around = i64::from(window.steps_around());
        let steps = (present - around..=present + around).filter(|step| last.is_none_or(|last| *step > last));
        let mut accepted = None;
        // All steps are compared, in the same time whichever it is.
        for step in steps {
            let right = u64::try_from(step).is_ok_and(|counter| is_same(&codes.code(self, counter), code));
            accepted = accepted.or(right.then_some(step));
        }
        accepted
    }
}

/// In which time steps a code is accepted: its own, and perhaps the ones before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TotpWindow {
    /// A code is accepted for 30 seconds. Clocks must be right, and users quick.
    PresentStep,
    /// A code is accepted for 90 seconds, as RFC 6238 section 5.2 allows for delays and clocks that differ.
    #[default]
    OneStepAround,
}

impl TotpWindow {
    /// The window of so many steps before and after the present one; `None` for more than 1.
    pub const fn around(steps: u8) -> Option<Self> {
        match steps {
            0 => Some(Self::PresentStep),
            1 => Some(Self::OneStepAround),
            _ => None,
        }
    }

    /// How many steps before and after the present one are accepted.
    pub const fn steps_around(self) -> u8 {
        match self {
            Self::PresentStep => 0,
            Self::OneStepAround => 1,
        }
    }
}

/// The authenticator app of a user, or of an operator of the platform. It is in effect once it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotpFactor<Owner = UserId> {
    /// Whose it is.
    pub owner: Owner,
    /// The secret, sealed for the place of the owner ([`TotpFactor::place`]).
    pub sealed_secret: Vec<u8>,
    /// When the owner proved that the app works.
    pub confirmed_at: Option<Time>,
    /// The step of the last code that was accepted.
    pub last_step: Option<i64>,
    /// When it was enrolled.
    pub created_at: Time,
}

/// How long after its confirmation a factor is settled: its user had a day to read the notice of it.
pub const FACTOR_SETTLES_AFTER: Duration = Duration::hours(24);

impl TotpFactor {
    /// The place that the secret of a user is sealed for.
    pub fn place(tenant: TenantId, user: UserId) -> String {
        format!("totp secret of {user} in {tenant}")
    }
}

impl TotpFactor<OperatorId> {
    /// The place that the secret of an operator is sealed for.
    pub fn place_of_operator(operator: OperatorId) -> String {
        format!("totp secret of operator {operator}")
    }
}

impl<Owner> TotpFactor<Owner> {
    /// Whether a login needs it.
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed_at.is_some()
    }

    /// Whether it was confirmed [`FACTOR_SETTLES_AFTER`] before `at`, or earlier. Until then a thief may have enrolled it
    /// with a stolen password.
    pub fn is_settled(&self, at: Time) -> bool {
        self.confirmed_at
            .is_some_and(|confirmed| at - confirmed >= FACTOR_SETTLES_AFTER)
    }
}

/// A code that works once in place of the app: 120 random bits, written as `xxxx-xxxx-xxxx-xxxx-xxxx-xxxx`. A code of this length
/// needs no slow hash (OWASP ASVS 5.0, 6.5.2).
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(String);

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

impl RecoveryCode {
    /// The number of characters of a code, without separators.
    const LENGTH: usize = 24;

    /// The same of a code that was made when codes had 80 bits. It works until it is used or replaced.
    const FORMER_LENGTH: usize = 16;

    /// The code of the first fifteen of some random bytes.
    pub fn of(random: &[u8; 32]) -> Self {
        let (bytes, _) = random.split_at(15);
        Self(base32(bytes).to_ascii_lowercase())
    }

    /// Reads a code as people type it: case, spaces and hyphens make no difference.
    pub fn parse(text: &str) -> Option<Self> {
        let text = without_separators(text).to_ascii_lowercase();
        let is_code = matches!(text.len(), Self::LENGTH | Self::FORMER_LENGTH)
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
        is_code.then_some(Self(text))
    }

    /// The text for the user, in groups of four.
    pub fn reveal(&self) -> String {
        let characters: Vec<_> = self.0.chars().collect();
        let groups = characters.chunks(4).map(|group| group.iter().collect::<String>());
        groups.collect::<Vec<_>>().join("-")
    }

    /// The SHA-256 that is stored of it, of this tenant and user only.
    pub fn hash(&self, tenant: TenantId, user: UserId) -> [u8; 32] {
        Sha256::digest(format!("{tenant} {user} {}", self.0)).into()
    }

    /// The SHA-256 that is stored of it, of this operator only.
    pub fn hash_of_operator(&self, operator: OperatorId) -> [u8; 32] {
        Sha256::digest(format!("operator {operator} {}", self.0)).into()
    }
}

/// What a trusted device shows at a login in place of a code: 256 random bits in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceToken(String);

impl std::fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceToken(…)")
    }
}

impl DeviceToken {
    /// The token of some random bytes.
    pub fn of(random: &[u8; 32]) -> Self {
        Self(hex(random))
    }

    /// Reads a token.
    pub fn parse(text: &str) -> Option<Self> {
        let is_token = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_token.then(|| Self(text.to_owned()))
    }

    /// The text for the device.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The SHA-256 that is stored of it, of this tenant and user only.
    pub fn hash(&self, tenant: TenantId, user: UserId) -> [u8; 32] {
        Sha256::digest(format!("{tenant} {user} {}", self.0)).into()
    }
}

/// A device on which a user logs in without a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedDevice {
    /// Whose it is.
    pub user_id: UserId,
    /// The SHA-256 of the token that the device presents.
    pub token_hash: [u8; 32],
    /// A digest of the stored hash of the user's password: another password ends the trust.
    pub password_digest: [u8; 32],
    /// The caller's `User-Agent` when it became trusted.
    pub user_agent: Option<String>,
    /// The caller's address when it became trusted.
    pub ip: Option<String>,
    /// When it became trusted.
    pub created_at: Time,
    /// When the trust ends.
    pub expires_at: Time,
}

/// A login whose password was right and that waits for its second factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MfaChallenge {
    /// Identifies the device within the tenant.
    pub id: MfaChallengeId,
    /// Who logs in.
    pub user_id: UserId,
    /// A digest of the stored hash of the password that was right: another password ends the login.
    pub password_digest: [u8; 32],
    /// How many wrong codes it has got.
    pub failures: i32,
    /// When it began.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
}

impl MfaChallenge {
    /// The digest of a stored password hash.
    pub fn digest_of(hash: &PasswordHash) -> [u8; 32] {
        Sha256::digest(hash.as_str()).into()
    }
}

/// Which users of a tenant need a second factor: those of a requirement also need it by each greater one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MfaRequirement {
    /// None.
    #[default]
    Off,
    /// Users with the role admin need a factor.
    Admins,
    /// All.
    Everyone,
}

impl MfaRequirement {
    /// Whether users with that role need one.
    pub fn applies_to(self, role: Role) -> bool {
        match self {
            Self::Off => false,
            Self::Admins => role == Role::Admin,
            Self::Everyone => true,
        }
    }
}

/// The code with the spaces and hyphens removed that people type.
pub fn without_separators(code: &str) -> String {
    let is_separator = |character: &char| character.is_whitespace() || *character == '-';
    code.chars()
        .filter(|character| !is_separator(character))
        .collect()
}

/// Makes secrets, and the codes of RFC 4226 (HOTP).
pub trait OneTimeCodes: Send + Sync {
    /// A new random secret.
    fn secret(&self) -> TotpSecret;

    /// 256 random bits.
    fn token(&self) -> [u8; 32];

    /// The code of six digits for a counter, which of TOTP is the number of the time step.
    fn code(&self, secret: &TotpSecret, counter: u64) -> String;
}

/// The second factors of the tenant's users.
#[async_trait]
pub trait SecondFactors: Send {
    /// A user's app, confirmed or not.
    async fn find_totp(&mut self, user: UserId) -> Result<Option<TotpFactor>, StoreError>;
    /// The same, locked until the transaction ends.
    async fn find_totp_for_update(&mut self, user: UserId) -> Result<Option<TotpFactor>, StoreError>;
    /// At most so many apps, of users after one, in the order of the users' ids.
    async fn list_totp(&mut self, after: Option<UserId>, limit: u32) -> Result<Vec<TotpFactor>, StoreError>;
    /// Stores a user's app in place of the one that there is.
    async fn replace_totp(&mut self, factor: &TotpFactor) -> Result<(), StoreError>;
    /// Stores the new state of an app.
    async fn update_totp(&mut self, factor: &TotpFactor) -> Result<(), StoreError>;
    /// Removes a user's app, recovery codes, trusted devices and waiting logins; whether there was an app.
    async fn delete_all(&mut self, user: UserId) -> Result<bool, StoreError>;
    /// Stores recovery codes in place of those that there are.
    async fn replace_recovery_codes(
        &mut self,
        user: UserId,
        hashes: &[[u8; 32]],
        at: Time,
    ) -> Result<(), StoreError>;
    /// Uses a recovery code up; whether it was one.
    async fn use_recovery_code(&mut self, user: UserId, hash: [u8; 32]) -> Result<bool, StoreError>;
    /// When a factor was last given in a session, other than by a step-up, which counts for its own token alone.
    async fn given_at(&mut self, session: SessionId) -> Result<Option<Time>, StoreError>;
    /// Stores a login that waits, and removes those of the user that are over or too many.
    async fn insert_challenge(&mut self, challenge: &MfaChallenge) -> Result<(), StoreError>;
    /// A login that waits.
    async fn find_challenge(&mut self, id: MfaChallengeId) -> Result<Option<MfaChallenge>, StoreError>;
    /// The same, locked until the transaction ends.
    async fn find_challenge_for_update(
        &mut self,
        id: MfaChallengeId,
    ) -> Result<Option<MfaChallenge>, StoreError>;
    /// Stores the number of wrong codes of a login that waits.
    async fn update_challenge(&mut self, challenge: &MfaChallenge) -> Result<(), StoreError>;
    /// Ends a login that waits.
    async fn delete_challenge(&mut self, id: MfaChallengeId) -> Result<(), StoreError>;
    /// Stores a trusted device, and removes those of the user that are over or too many.
    async fn insert_device(&mut self, device: &TrustedDevice) -> Result<(), StoreError>;
    /// The trusted devices of a user, newest first.
    async fn list_devices(&mut self, user: UserId) -> Result<Vec<TrustedDevice>, StoreError>;
    /// Ends the trust in the device of a user whose token has this hash; whether it was there.
    async fn delete_device(&mut self, user: UserId, token_hash: [u8; 32]) -> Result<bool, StoreError>;
    /// Ends the trust in all devices of a user; how many there were.
    async fn delete_devices(&mut self, user: UserId) -> Result<u64, StoreError>;
    /// Deletes waiting logins and trusted devices that expired before then; how many there were.
    async fn delete_expired(&mut self, before: Time) -> Result<u64, StoreError>;
}

/// Base32 (RFC 4648) without padding. The lengths here are multiples of five bytes.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len() * 8 / 5);
    for chunk in bytes.chunks_exact(5) {
        let bits = chunk
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for shift in (0..8).rev() {
            let index = (bits >> (shift * 5) & 31) as usize;
            text.push(char::from(ALPHABET[index]));
        }
    }
    text
}

/// Percent-encoding of all but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Compares in a time that says nothing of where two texts differ.
fn is_same(left: &str, right: &str) -> bool {
    let pairs = left.bytes().zip(right.bytes());
    left.len() == right.len() && pairs.fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    /// Codes that show their counter.
    struct Counters;

    impl OneTimeCodes for Counters {
        fn secret(&self) -> TotpSecret {
            TotpSecret::new([0; 20])
        }
        fn token(&self) -> [u8; 32] {
            [0; 32]
        }
        fn code(&self, _: &TotpSecret, counter: u64) -> String {
            format!("{:06}", counter % 1_000_000)
        }
    }

    fn at(seconds: i64) -> Time {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn accepted(code: &str, seconds: i64, last: Option<i64>) -> Option<i64> {
        accepted_in(TotpWindow::default(), code, seconds, last)
    }

    fn accepted_in(window: TotpWindow, code: &str, seconds: i64, last: Option<i64>) -> Option<i64> {
        Counters
            .secret()
            .accepted_step(&Counters, code, (at(seconds), window), last)
    }

    #[test]
    fn window_of_the_present_step_is_30_seconds() {
        let window = TotpWindow::around(0).unwrap();
        for (seconds, expected) in [(299, None), (300, Some(10)), (329, Some(10)), (330, None)] {
            assert_eq!(
                accepted_in(window, "000010", seconds, None),
                expected,
                "{seconds}"
            );
        }
        assert_eq!(accepted_in(window, "000010", 300, Some(10)), None);
        for steps in 0..=3 {
            let around = TotpWindow::around(steps).map(TotpWindow::steps_around);
            assert_eq!(around, (steps < 2).then_some(steps));
        }
    }

    #[test]
    fn a_code_is_accepted_one_step_early_and_late() {
        // Step 10 lasts from 300 to 329.
        for (seconds, expected) in [
            (269, None),
            (270, Some(10)),
            (300, Some(10)),
            (329, Some(10)),
            (359, Some(10)),
            (360, None),
        ] {
            assert_eq!(accepted("000010", seconds, None), expected, "{seconds}");
        }
    }

    #[test]
    fn a_step_is_accepted_once_and_none_before_it() {
        assert_eq!(accepted("000010", 300, Some(10)), None);
        assert_eq!(accepted("000009", 300, Some(10)), None);
        assert_eq!(accepted("000011", 300, Some(10)), Some(11));
        assert_eq!(accepted("000010", 300, Some(9)), Some(10));
    }

    #[test]
    fn only_six_digits_are_a_code() {
        for code in ["", "00010", "0000010", "00001o", "+00010", "٠٠٠٠١٠", "000010\0"] {
            assert_eq!(accepted(code, 300, None), None, "{code:?}");
        }
        // Before the epoch there is no counter.
        assert_eq!(accepted("000000", -60, None), None);
    }

    /// RFC 4648 section 10, without padding.
    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
        assert_eq!(
            TotpSecret::new(*b"12345678901234567890").base32(),
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
        );
    }

    #[test]
    fn a_uri_encodes_names_and_keeps_the_issuer_apart() {
        let secret = TotpSecret::new(*b"12345678901234567890");
        assert_eq!(
            secret.uri("Müller: & Co", "ada+x@example.com"),
            "otpauth://totp/M%C3%BCller%20%26%20Co:ada%2Bx%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=M%C3%BCller%20%26%20Co&algorithm=SHA1&digits=6&period=30"
        );
    }

    #[test]
    fn a_recovery_code_is_read_as_people_type_it() {
        let code = RecoveryCode::of(&[0xA5; 32]);
        let text = code.reveal();
        assert_eq!(text.len(), 29);
        for typed in [
            text.clone(),
            text.to_uppercase(),
            text.replace('-', " "),
            text.replace('-', ""),
        ] {
            assert_eq!(RecoveryCode::parse(&typed), Some(code.clone()), "{typed}");
        }
        // A code of before the length grew is known as the same one.
        let former = RecoveryCode("mfrggzdfmztwq2lk".into());
        assert_eq!(RecoveryCode::parse("MFRG-gzdf mztwq2lk"), Some(former));
        for wrong in [
            "",
            "aaaa",
            "aaaa-aaaa-aaaa-aaa1",
            "aaaa-aaaa-aaaa-aaaaa",
            "ääää-aaaa-aaaa-aaaa",
            "aaaa-aaaa-aaaa-aaaa-aaaa",
            "aaaa-aaaa-aaaa-aaaa-aaaa-aaa1",
            "aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa",
        ] {
            assert_eq!(RecoveryCode::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_a_token_in_its_own_form_is_read() {
        let token = DeviceToken::of(&[0xAB; 32]);
        assert_eq!(DeviceToken::parse(token.reveal()), Some(token.clone()));
        let upper = token.reveal().to_uppercase();
        for wrong in [
            "",
            "ab",
            &upper,
            &token.reveal()[1..],
            &format!("{}0", token.reveal()),
        ] {
            assert_eq!(DeviceToken::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_recovery_code_hashes_apart_by_tenant_and_user() {
        let id = |number| uuid::Uuid::from_u128(number);
        let code = RecoveryCode::of(&[1; 32]);
        let hash = |tenant: u128, user: u128| code.hash(id(tenant).into(), id(user).into());
        assert_eq!(hash(1, 2), hash(1, 2));
        assert_ne!(hash(1, 2), hash(2, 2));
        assert_ne!(hash(1, 2), hash(1, 1));
        let operator = |number| code.hash_of_operator(id(number).into());
        assert_ne!(operator(2), operator(1));
        assert_ne!(operator(2), hash(2, 2));
    }

    #[test]
    fn factor_is_settled_a_day_after_its_confirmation() {
        let factor = |confirmed_at| TotpFactor {
            owner: UserId::from(uuid::Uuid::from_u128(1)),
            sealed_secret: Vec::new(),
            confirmed_at,
            last_step: None,
            created_at: at(0),
        };
        assert!(factor(Some(at(100))).is_settled(at(100 + 86_400)));
        assert!(!factor(Some(at(100))).is_settled(at(99 + 86_400)));
        assert!(!factor(None).is_settled(at(86_400)));
    }
}
