use std::num::NonZeroU32;
use std::str::FromStr as _;

use argon2::Params;
use argon2::password_hash::phc;
use aws_lc_rs::{constant_time, pbkdf2};
use bcrypt::HashParts;
use tenantry_domain::identity::{PasswordError, RefusedHash};

/// A password hash that was made elsewhere, and is compared until its user has logged in: bcrypt (`$2a$`, `$2b$`, `$2y$`), and
/// PBKDF2 and scrypt as PHC strings. Whoever stores a hash decides what a login costs, so the parameters are bounded.
#[derive(Clone)]
pub(crate) enum ImportedHash {
    /// It sees the first 72 bytes of a password, as where the hash was made.
    Bcrypt(String),
    Pbkdf2 {
        algorithm: pbkdf2::Algorithm,
        iterations: NonZeroU32,
        salt: phc::Salt,
        output: phc::Output,
    },
    Scrypt {
        params: scrypt::Params,
        salt: phc::Salt,
        output: phc::Output,
    },
}

impl ImportedHash {
    /// Reads a text; `None` when it looks like none of these kinds.
    ///
    /// # Errors
    /// [`RefusedHash`], when it is malformed or its parameters are out of bounds.
    pub(crate) fn read(text: &str) -> Option<Result<Self, RefusedHash>> {
        if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            return Some(read_bcrypt(text));
        }
        match text.strip_prefix('$')?.split('$').next()? {
            "pbkdf2-sha256" => Some(read_pbkdf2(text, pbkdf2::PBKDF2_HMAC_SHA256)),
            "pbkdf2-sha512" => Some(read_pbkdf2(text, pbkdf2::PBKDF2_HMAC_SHA512)),
            "scrypt" => Some(read_scrypt(text)),
            _ => None,
        }
    }

    /// Returns whether the password has this hash. It takes up to a second and, for scrypt, up to 128 MiB.
    ///
    /// # Errors
    /// [`PasswordError::Failed`].
    pub(crate) fn matches(&self, password: &str) -> Result<bool, PasswordError> {
        let password = password.as_bytes();
        match self {
            Self::Bcrypt(text) => {
                bcrypt::verify(password, text).map_err(|error| PasswordError::Failed(error.to_string()))
            }
            Self::Pbkdf2 {
                algorithm,
                iterations,
                salt,
                output,
            } => Ok(pbkdf2::verify(*algorithm, *iterations, salt, password, output.as_bytes()).is_ok()),
            Self::Scrypt { params, salt, output } => {
                let mut computed = vec![0; output.len()];
                scrypt::scrypt(password, salt, params, &mut computed)
                    .map_err(|error| PasswordError::Failed(error.to_string()))?;
                Ok(constant_time::verify_slices_are_equal(&computed, output.as_bytes()).is_ok())
            }
        }
    }
}

/// Checks the parameters of an Argon2 hash that was made elsewhere.
///
/// # Errors
/// [`RefusedHash`].
pub(crate) fn check_argon2(hash: &phc::PasswordHash) -> Result<(), RefusedHash> {
    let params = Params::try_from(hash).map_err(|error| RefusedHash(error.to_string()))?;
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > 128 * 1_024 || work > 1 << 20 || params.p_cost() > 16 {
        return refused("Argon2 may take m=131072, p=16, and m times t of 1048576 at the most");
    }
    Ok(())
}

/// 2^14 rounds take about a second.
const BCRYPT_COST: u32 = 14;
/// About a second with SHA-512.
const PBKDF2_ITERATIONS: u32 = 2_000_000;
/// Blocks of 128 bytes: 128 MiB.
const SCRYPT_BLOCKS: u64 = 1 << 20;
/// Blocks that are computed, about a second.
const SCRYPT_WORK: u64 = 1 << 21;

fn read_bcrypt(text: &str) -> Result<ImportedHash, RefusedHash> {
    let parts = HashParts::from_str(text).map_err(|error| RefusedHash(error.to_string()))?;
    if !(4..=BCRYPT_COST).contains(&parts.get_cost()) {
        return refused(&format!("the cost of bcrypt must be 4 to {BCRYPT_COST}"));
    }
    Ok(ImportedHash::Bcrypt(text.to_owned()))
}

fn read_pbkdf2(text: &str, algorithm: pbkdf2::Algorithm) -> Result<ImportedHash, RefusedHash> {
    let (hash, salt, output) = read_phc(text, &["i", "l"])?;
    let iterations = hash.params.get_decimal("i");
    let iterations = iterations.filter(|given| *given <= PBKDF2_ITERATIONS);
    let Some(iterations) = iterations.and_then(NonZeroU32::new) else {
        return refused(&format!("i of PBKDF2 must be 1 to {PBKDF2_ITERATIONS}"));
    };
    Ok(ImportedHash::Pbkdf2 {
        algorithm,
        iterations,
        salt,
        output,
    })
}

fn read_scrypt(text: &str) -> Result<ImportedHash, RefusedHash> {
    let (hash, salt, output) = read_phc(text, &["ln", "r", "p"])?;
    let param = |name: &str| hash.params.get_decimal(name).filter(|value| *value > 0);
    let (Some(ln), Some(r), Some(p)) = (param("ln"), param("r"), param("p")) else {
        return refused("scrypt needs ln, r and p, each at least 1");
    };
    let n = 1_u64.checked_shl(ln).unwrap_or(u64::MAX);
    let blocks = n.saturating_mul(r.into());
    if ln > 20 || blocks > SCRYPT_BLOCKS || blocks.saturating_mul(p.into()) > SCRYPT_WORK {
        return refused(
            "scrypt may take 128 MiB (2^ln * r of 1048576) and, with p, twice as much work at the most",
        );
    }
    let ln = u8::try_from(ln).map_err(|error| RefusedHash(error.to_string()))?;
    let params = scrypt::Params::new(ln, r, p).map_err(|error| RefusedHash(error.to_string()))?;
    Ok(ImportedHash::Scrypt { params, salt, output })
}

/// The parts of a PHC string that has no other parameters than these.
fn read_phc(text: &str, params: &[&str]) -> Result<(phc::PasswordHash, phc::Salt, phc::Output), RefusedHash> {
    let hash = phc::PasswordHash::new(text).map_err(|error| RefusedHash(error.to_string()))?;
    let unknown = hash
        .params
        .iter()
        .find(|(name, _)| !params.contains(&name.as_str()));
    if let Some((name, _)) = unknown {
        return refused(&format!("the parameter '{}' is unknown", name.as_str()));
    }
    let length = hash.params.get_decimal("l");
    match (hash.salt, hash.hash) {
        (Some(salt), Some(output)) if length.is_none_or(|length| length as usize == output.len()) => {
            Ok((hash, salt, output))
        }
        (Some(_), Some(_)) => refused("the length of the hash is not l"),
        _ => refused("the salt or the hash is missing"),
    }
}

fn refused<T>(detail: &str) -> Result<T, RefusedHash> {
    Err(RefusedHash(detail.to_owned()))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    use super::*;

    fn matches(text: &str, password: &str) -> bool {
        ImportedHash::read(text)
            .unwrap()
            .unwrap()
            .matches(password)
            .unwrap()
    }

    fn phc(prefix: &str, salt: &[u8], hash: &str) -> String {
        let hash: Vec<u8> = hash
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        format!(
            "{prefix}${}${}",
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(hash)
        )
    }

    /// Openwall's crypt_blowfish 1.3, wrapper.c: its test vectors.
    #[test]
    fn bcrypt_agrees_with_its_reference() {
        for (hash, password) in [
            (
                "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
                "U*U",
            ),
            (
                "$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK",
                "U*U*",
            ),
            (
                "$2y$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a",
                "U*U*U",
            ),
            ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy", ""),
        ] {
            assert!(matches(hash, password), "{hash}");
            assert!(!matches(hash, "U*V"), "{hash}");
        }
        let long = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let hash = "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui";
        assert!(matches(hash, &format!("{long}chars after 72 are ignored")));
        assert!(!matches(hash, &long[..71]));
    }

    /// RFC 7914 section 12: the vector whose salt is long enough for a PHC string.
    #[test]
    fn scrypt_agrees_with_rfc_7914() {
        let hash = phc(
            "$scrypt$ln=14,r=8,p=1",
            b"SodiumChloride",
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2\
             d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
        );
        assert!(matches(&hash, "pleaseletmein"));
        assert!(!matches(&hash, "pleaseletmeout"));
    }

    /// Vectors made with Python's `hashlib.pbkdf2_hmac`.
    #[test]
    fn pbkdf2_agrees_with_python() {
        const SHA256: &str = "70183c0f60ee9e0441f64efab334e17f97a17f2073f7dd5acba3d3f12af09383";
        const SHA512: &str = "38cd0502822a0952b5b16b710e27df56505e8ed2dafa4b384cfef526279cc2e4\
             99086f222db9e52043ce328557fa2d81db0912c6343c091191f4e90d1ae20f31";
        for (prefix, hash) in [
            ("$pbkdf2-sha256$i=1000", SHA256),
            ("$pbkdf2-sha256$i=1000,l=32", SHA256),
            ("$pbkdf2-sha512$i=1000", SHA512),
        ] {
            let hash = phc(prefix, b"0123456789abcdef", hash);
            assert!(matches(&hash, "correct horse"), "{hash}");
            assert!(!matches(&hash, "correct horsf"), "{hash}");
        }
    }

    #[test]
    fn hostile_and_malformed_hashes_are_refused() {
        let salt = "$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg";
        for text in [
            format!("$scrypt$ln=30,r=8,p=1{salt}"),
            format!("$scrypt$ln=4294967295,r=8,p=1{salt}"),
            format!("$scrypt$ln=17,r=16,p=1{salt}"),
            format!("$scrypt$ln=17,r=8,p=3{salt}"),
            format!("$scrypt$ln=1,r=4294967295,p=4294967295{salt}"),
            format!("$scrypt$ln=17,r=8,p=0{salt}"),
            format!("$scrypt$ln=17,r=8{salt}"),
            format!("$scrypt$ln=17,r=8,p=1,x=1{salt}"),
            "$scrypt$ln=17,r=8,p=1".into(),
            format!("$pbkdf2-sha256$i=1000000000{salt}"),
            format!("$pbkdf2-sha256$i=0{salt}"),
            format!("$pbkdf2-sha256$i=-1{salt}"),
            format!("$pbkdf2-sha256${salt}"),
            format!("$pbkdf2-sha512$i=1000,l=64{salt}"),
            "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg".into(),
            "$2b$31$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui".into(),
            "$2b$15$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui".into(),
            "$2b$03$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui".into(),
            "$2b$05$abc".into(),
            "$2b$05$\u{fc}bcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBu".into(),
        ] {
            assert!(matches!(ImportedHash::read(&text), Some(Err(_))), "{text}");
        }
        for text in ["", "$", "$2x$05$abc", "$1$salt$hash", "plain", "$argon2id$v=19"] {
            assert!(ImportedHash::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn an_argon2_hash_of_too_much_memory_or_work_is_refused() {
        let check = |params: &str| {
            let text = format!("$argon2id$v=19${params}$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg");
            check_argon2(&phc::PasswordHash::new(&text).unwrap()).is_ok()
        };
        assert!(check("m=65536,t=3,p=4") && check("m=131072,t=8,p=1"));
        for hostile in ["m=131073,t=1,p=1", "m=65536,t=17,p=1", "m=4096,t=1,p=17"] {
            assert!(!check(hostile), "{hostile}");
        }
    }
}
