use aws_lc_rs::hmac;
use tenantry_domain::identity::{OneTimeCodes, TotpSecret};

use crate::secret;

/// One-time codes by HMAC-SHA-1 (RFC 4226), which is what authenticator apps compute. SHA-1's collisions are no weakness of
/// HMAC (RFC 6151, RFC 4226 appendix B.2).
#[derive(Debug, Clone, Copy, Default)]
pub struct HmacOneTimeCodes;

impl OneTimeCodes for HmacOneTimeCodes {
    /// # Panics
    /// When the machine has no random generator.
    fn secret(&self) -> TotpSecret {
        TotpSecret::new(secret::random())
    }

    /// # Panics
    /// When the machine has no random generator.
    fn token(&self) -> [u8; 32] {
        secret::random()
    }

    fn code(&self, secret: &TotpSecret, counter: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.bytes());
        let tag = hmac::sign(&key, &counter.to_be_bytes());
        format!("{:06}", truncated(tag.as_ref()) % 1_000_000)
    }
}

/// Dynamic truncation (RFC 4226 section 5.3): 31 bits from the place that the last four bits name.
fn truncated(tag: &[u8]) -> u32 {
    let offset = tag.last().map_or(0, |last| usize::from(last & 15));
    let four = tag.iter().skip(offset).take(4);
    four.fold(0, |number, byte| number << 8 | u32::from(*byte)) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(counter: u64) -> String {
        HmacOneTimeCodes.code(&TotpSecret::new(*b"12345678901234567890"), counter)
    }

    /// RFC 4226 appendix D.
    #[test]
    fn codes_are_those_of_rfc_4226() {
        let expected = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871",
            "520489",
        ];
        for (counter, expected) in expected.into_iter().enumerate() {
            assert_eq!(code(counter as u64), expected);
        }
    }

    /// RFC 6238 appendix B, SHA-1: the vectors have eight digits, of which these are the last six.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        for (seconds, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code(seconds / 30), expected, "{seconds}");
        }
    }

    #[test]
    fn secrets_and_tokens_differ() {
        assert_ne!(HmacOneTimeCodes.secret(), HmacOneTimeCodes.secret());
        assert_ne!(HmacOneTimeCodes.token(), HmacOneTimeCodes.token());
    }
}
