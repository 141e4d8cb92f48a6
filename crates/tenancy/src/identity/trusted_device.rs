//! The devices that take the place of a second factor.

use serde_json::json;
use tenantry_domain::identity::{DeviceToken, Guess, MfaChallenge, TrustedDevice, User};
use tenantry_domain::kernel::{StoreError, UserId};
use tenantry_domain::store::Work;
use uuid::Uuid;

use crate::Cx;
use crate::identity::claim::SecondFactor;
use crate::identity::lockout::{self, Guesser};

/// The hash of the token that a login shows, when it is that of a trusted device of the user. Without a user it costs the
/// same.
pub(crate) async fn shown(
    cx: &Cx,
    work: &mut Work,
    user: Option<&User>,
    second: &SecondFactor,
) -> Result<Option<[u8; 32]>, StoreError> {
    let Some(token) = second.device_token.as_deref().and_then(DeviceToken::parse) else {
        return Ok(None);
    };
    let id = user.map_or_else(|| Uuid::nil().into(), |user| user.id);
    let hash = token.hash(cx.scope().tenant(), id);
    let mut devices = work.second_factors().list_devices(id).await?.into_iter();
    let is_shown = |device: TrustedDevice| {
        device.token_hash == hash && user.is_some_and(|user| is_trusted(cx, &device, user))
    };
    Ok(devices.any(is_shown).then_some(hash))
}

/// Counts a wrong password of a login that shows a trusted device. After as many as make a network wait, the trust in the device
/// ends: its token may be stolen, and no wait holds it up.
pub(crate) async fn fail(
    cx: &Cx,
    work: &mut Work,
    user: UserId,
    token_hash: [u8; 32],
) -> Result<(), StoreError> {
    let guesser = Guesser::of_device(token_hash);
    let ends = lockout::fail(cx, work, Guess::Password, guesser).await?;
    if ends && work.second_factors().delete_device(user, token_hash).await? {
        let event = cx.security("mfa.device_distrusted", "user", Some(user.uuid()), json!({}));
        work.audit().record(event).await?;
    }
    Ok(())
}

/// Whether the trust in a device of a user stands.
pub(crate) fn is_trusted(cx: &Cx, device: &TrustedDevice, user: &User) -> bool {
    let same_password = device.password_digest == MfaChallenge::digest_of(&user.password_hash);
    same_password && cx.now() < device.expires_at
}
