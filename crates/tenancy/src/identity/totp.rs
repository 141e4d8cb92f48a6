//! Authenticator apps and recovery codes, of users and of operators: sealed secrets, and codes that work once.

use tenantry_domain::identity::{
    OneTimeCodes, RECOVERY_CODES, RecoveryCode, TotpFactor, TotpSecret, TotpWindow, without_separators,
};
use tenantry_domain::kernel::{Seal, Time};

/// What apps are checked with, and the place that the secret of one is sealed for.
#[derive(Clone, Copy)]
pub(crate) struct Apps<'a> {
    /// Makes codes.
    pub codes: &'a dyn OneTimeCodes,
    /// Seals secrets.
    pub seal: &'a dyn Seal,
    /// The place of the owner.
    pub place: &'a str,
    /// In which steps a code is accepted.
    pub window: TotpWindow,
}

impl Apps<'_> {
    /// A new app, which waits for its confirmation.
    pub(crate) fn enroll<Owner>(self, owner: Owner, secret: &TotpSecret, now: Time) -> TotpFactor<Owner> {
        TotpFactor {
            owner,
            sealed_secret: self.seal.seal(self.place, secret.bytes()),
            confirmed_at: None,
            last_step: None,
            created_at: now,
        }
    }

    /// Confirms an app with a code of it, and returns whether the code is accepted.
    pub(crate) fn confirm<Owner>(self, factor: &mut TotpFactor<Owner>, code: &str, now: Time) -> bool {
        let is_right = self.use_step(factor, code, now);
        if is_right {
            factor.confirmed_at = Some(now);
        }
        is_right
    }

    /// Uses a code of an app up, and returns whether it is accepted. The app has to be stored then.
    pub(crate) fn use_step<Owner>(self, factor: &mut TotpFactor<Owner>, code: &str, now: Time) -> bool {
        let secret = self.open(factor);
        let step = secret.and_then(|secret| {
            let code = without_separators(code);
            secret.accepted_step(self.codes, &code, (now, self.window), factor.last_step)
        });
        let Some(step) = step else {
            return false;
        };
        factor.last_step = Some(step);
        if !self.is_current(factor) {
            self.reseal(factor);
        }
        true
    }

    /// Whether a known key opens the secret.
    pub(crate) fn can_open<Owner>(self, factor: &TotpFactor<Owner>) -> bool {
        self.open(factor).is_some()
    }

    /// Whether the secret is sealed with the present key.
    pub(crate) fn is_current<Owner>(self, factor: &TotpFactor<Owner>) -> bool {
        self.seal.is_current(self.place, &factor.sealed_secret)
    }

    /// Seals the secret with the present key; whether a known key opens it.
    pub(crate) fn reseal<Owner>(self, factor: &mut TotpFactor<Owner>) -> bool {
        let secret = self.open(factor);
        if let Some(secret) = &secret {
            factor.sealed_secret = self.seal.seal(self.place, secret.bytes());
        }
        secret.is_some()
    }

    /// The secret of an app; `None` when the key that it was sealed with is not known any more.
    fn open<Owner>(self, factor: &TotpFactor<Owner>) -> Option<TotpSecret> {
        let opened = self.seal.open(self.place, &factor.sealed_secret);
        let bytes = opened.and_then(|bytes| bytes.try_into().ok());
        if bytes.is_none() {
            tracing::error!(
                what = self.place,
                "the secret of a second factor cannot be opened"
            );
        }
        bytes.map(TotpSecret::new)
    }
}

/// New recovery codes: [`RECOVERY_CODES`] of them.
pub(crate) fn new_recovery_codes(random: &dyn OneTimeCodes) -> Vec<RecoveryCode> {
    (0..RECOVERY_CODES)
        .map(|_| RecoveryCode::of(&random.token()))
        .collect()
}
