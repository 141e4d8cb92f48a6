//! The keys that sign access tokens: rotation, and what servers do with the stored keys.

use std::sync::Arc;

use chrono::Duration;
use serde_json::json;
use tenantry_domain::identity::{
    LONGEST_PUBLICATION_SECONDS, OpenSigningKey, SHORTEST_PUBLICATION_SECONDS, SigningKeyRecord,
    SigningKeyState,
};
use tenantry_domain::kernel::{Check, Invalid, StoreError, SystemScope, Time};

use crate::{OperatorCx, Tenancy};

/// A signing key, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Its name in the headers of tokens.
    pub kid: String,
    /// What it is used for.
    pub usage: KeyUsage,
    /// When it begins or began to sign; absent for a configured key.
    pub signs_from: Option<Time>,
}

/// What a key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUsage {
    /// A stored key.
    Stored(SigningKeyState),
    /// A stored key that no configured key opens: this process neither signs nor verifies with it.
    Unreadable,
    /// A key of the configuration: it is accepted as long as it is configured, and signs while no stored key does.
    Configured {
        /// Whether it signs.
        signs: bool,
    },
}

/// Errors of the use cases of signing keys.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// Invalid input.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A former rotation has not ended: its key does not sign yet.
    #[error("the key {kid} is published already and signs from {} on; rotate again after that", .from.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))]
    Pending {
        /// Its name.
        kid: String,
        /// When it begins to sign.
        from: Time,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates a key, publishes it, and lets it sign `publication_seconds` later. The key that signs until then is kept until
/// all of its tokens have expired.
///
/// # Errors
/// [`SigningKeyError::Pending`] while the key of a former rotation does not sign yet; `out_of_range` at
/// `/publication_seconds`; those of the store.
pub async fn rotate(cx: &OperatorCx, publication_seconds: i64) -> Result<SigningKeyRecord, SigningKeyError> {
    let mut check = Check::new();
    let range = SHORTEST_PUBLICATION_SECONDS..=LONGEST_PUBLICATION_SECONDS;
    let detail = format!("must be {} to {} seconds", range.start(), range.end());
    let within = range.contains(&publication_seconds);
    check.require(within, "/publication_seconds", "out_of_range", &detail);
    check.verdict()?;
    let ports = &cx.app().ports;
    let mut work = cx.begin().await?;
    let stored = work.signing_keys().keys_for_update().await?;
    let now = cx.now();
    if let Some(pending) = stored.iter().find(|key| key.signs_from > now) {
        return Err(SigningKeyError::Pending {
            kid: pending.kid.clone(),
            from: pending.signs_from,
        });
    }
    let (kid, private) = ports.key_ring.generate();
    let key = SigningKeyRecord {
        sealed: ports.seal.seal(&SigningKeyRecord::place(&kid), &private),
        kid,
        created_at: now,
        signs_from: now + Duration::seconds(publication_seconds),
    };
    work.signing_keys().insert_key(&key).await?;
    let details = json!({"kid": key.kid, "signs_from": key.signs_from});
    work.commit(cx.record("signing_key.created", None, details))
        .await?;
    Ok(key)
}

/// Returns all keys: the configured ones, then the stored ones in the order in which they sign.
///
/// # Errors
/// Those of the store.
pub async fn list(cx: &OperatorCx) -> Result<Vec<ListedKey>, StoreError> {
    let app = cx.app();
    let because = SystemScope::because("signing keys are listed");
    let stored = app.ports.signing_keys.all(because).await?;
    let states = states(&stored, cx.now());
    let readable = |key: &SigningKeyRecord| open(app, key).is_some();
    let listed = stored.iter().zip(&states).map(|(key, state)| ListedKey {
        kid: key.kid.clone(),
        usage: if readable(key) {
            KeyUsage::Stored(*state)
        } else {
            KeyUsage::Unreadable
        },
        signs_from: Some(key.signs_from),
    });
    let listed: Vec<_> = listed.collect();
    let signing = KeyUsage::Stored(SigningKeyState::Signing);
    let stored_signs = listed.iter().any(|key| key.usage == signing);
    let configured = app.ports.key_ring.configured().into_iter().enumerate();
    let configured = configured.map(|(position, kid)| ListedKey {
        kid,
        usage: KeyUsage::Configured {
            signs: position == 0 && !stored_signs,
        },
        signs_from: None,
    });
    Ok(configured.chain(listed).collect())
}

/// Lets this process sign and verify with the keys that are stored now, and deletes those whose tokens have all expired.
/// Returns the names of keys that no configured key opens.
///
/// # Errors
/// Those of the store.
pub async fn refresh(app: &Arc<Tenancy>) -> Result<Vec<String>, StoreError> {
    let because = SystemScope::because("servers read the signing keys");
    let stored = app.ports.signing_keys.all(because).await?;
    let opened = stored.iter().map(|key| OpenSigningKey {
        kid: key.kid.clone(),
        private: open(app, key),
        signs_from: key.signs_from,
    });
    let unreadable = app.ports.key_ring.replace(opened.collect());
    if states(&stored, app.ports.clock.now()).contains(&SigningKeyState::Retired) {
        delete_retired(app).await?;
    }
    Ok(unreadable)
}

/// Seals the stored keys with the present configured key. Returns how many were sealed anew, and the names of those that no
/// configured key opens.
///
/// # Errors
/// Those of the store.
pub async fn reseal(cx: &OperatorCx) -> Result<(usize, Vec<String>), StoreError> {
    let seal = cx.app().ports.seal.as_ref();
    let mut work = cx.begin().await?;
    let (mut resealed, mut unreadable) = (0, Vec::new());
    for key in work.signing_keys().keys_for_update().await? {
        let place = SigningKeyRecord::place(&key.kid);
        if seal.is_current(&place, &key.sealed) {
            continue;
        }
        match seal.open(&place, &key.sealed) {
            Some(private) => {
                let sealed = seal.seal(&place, &private);
                work.signing_keys().reseal_key(&key.kid, &sealed).await?;
                resealed += 1;
            }
            None => unreadable.push(key.kid),
        }
    }
    if resealed > 0 {
        let details = json!({"resealed": resealed, "unreadable": unreadable});
        work.commit(cx.record("signing_key.resealed", None, details))
            .await?;
    }
    Ok((resealed, unreadable))
}

/// Deletes the keys whose tokens have all expired, so that their private parts are not stored longer than they are used.
async fn delete_retired(app: &Arc<Tenancy>) -> Result<(), StoreError> {
    let because = SystemScope::because("a signing key is retired");
    let cx = OperatorCx::command(app, because);
    let mut work = cx.begin().await?;
    let stored = work.signing_keys().keys_for_update().await?;
    let states = states(&stored, cx.now());
    let retired = stored.iter().zip(states);
    let retired = retired.filter(|(_, state)| *state == SigningKeyState::Retired);
    let kids: Vec<&str> = retired.map(|(key, _)| key.kid.as_str()).collect();
    if kids.is_empty() {
        return Ok(());
    }
    for kid in &kids {
        work.signing_keys().delete_key(kid).await?;
    }
    let record = cx.record("signing_key.deleted", None, json!({ "kids": kids }));
    work.commit(record).await
}

fn states(keys: &[SigningKeyRecord], now: Time) -> Vec<SigningKeyState> {
    let from: Vec<Time> = keys.iter().map(|key| key.signs_from).collect();
    SigningKeyState::of_all(&from, now)
}

fn open(app: &Tenancy, key: &SigningKeyRecord) -> Option<Vec<u8>> {
    let place = SigningKeyRecord::place(&key.kid);
    app.ports.seal.open(&place, &key.sealed)
}
