//! What the process takes from its machine, behind the ports of the domain: time ([`SystemClock`]), ids
//! ([`SystemIds`]) and secrets ([`Argon2Passwords`], [`JwtAccessTokens`], [`HmacRefreshTokens`, `AeadSeal`]).
//!
//! This is the one crate that reads the clock and the random generator; everywhere else clippy refuses it, so
//! that tests decide what time it is and which id comes next.
#![deny(missing_docs)]

mod access_token;
mod bounded;
mod clock;
mod ids;
mod password;
mod refresh_token;
mod seal;
mod secret;
mod signing_key;

pub use access_token::{AccessTokensError, JwtAccessTokens};
pub use clock::SystemClock;
pub use ids::SystemIds;
pub use password::{Argon2Passwords, PasswordCost, PasswordCostError};
pub use refresh_token::HmacRefreshTokens;
pub use seal::AeadSeal;
pub use signing_key::{SigningKey, SigningKeyError};
