//! What the process takes from its machine, behind the ports of the domain: time ([`SystemClock`]), ids
//! ([`SystemIds`]), secrets ([`Argon2Passwords`], [`JwtAccessTokens`], [`HmacRefreshTokens`], [`AeadSeal`]) and memory:
//! what was read or verified a moment ago ([`CachedDirectory`], [`CachedAccessTokens`], [`ConfigurationCache`]) and how much was asked for
//! ([`LocalLimiter`]).
//!
//! This is the one crate that reads the clock and the random generator; everywhere else clippy refuses it, so
//! that tests decide what time it is and which id comes next.
#![deny(missing_docs)]

mod access_token;
mod archive_folder;
mod archive_reader;
#[cfg(test)]
mod archive_tests;
mod archive_writer;
mod cached_configurations;
mod clock;
mod configuration_cache;
mod directory_cache;
mod epochs;
mod fair_queue;
mod flag_cache;
mod freshness;
mod ids;
mod imported_hash;
mod invitation_token;
mod key_ring;
mod limiter;
mod link_token;
mod local_caches;
mod one_time_codes;
mod operator_token;
mod password;
mod portal_token;
mod proof_of_work;
mod quota_leases;
mod refresh_token;
mod resolver;
mod seal;
mod secret;
mod secret_source;
mod signed_token;
mod signing_key;
mod single_flight;
mod spool;
mod support_token;
mod tenant_seals;
mod token_cache;
mod unsubscribe_token;

pub use access_token::{AccessTokensError, JwtAccessTokens};
pub use archive_folder::ArchiveFolder;
pub use archive_reader::FileArchiveReader;
pub use archive_writer::FileArchiveWriter;
pub use cached_configurations::CachedConfigurations;
pub use clock::SystemClock;
pub use configuration_cache::ConfigurationCache;
pub use directory_cache::{CacheConfig, CacheStats, CachedDirectory};
pub use flag_cache::{CachedDefinitions, CachedFlags};
pub use ids::SystemIds;
pub use invitation_token::HmacInvitationTokens;
pub use key_ring::SigningKeyRing;
pub use limiter::LocalLimiter;
pub use link_token::HmacLinkTokens;
pub use local_caches::LocalCaches;
pub use one_time_codes::HmacOneTimeCodes;
pub use operator_token::JwtOperatorTokens;
pub use password::{Argon2Passwords, PasswordCost, PasswordCostError};
pub use portal_token::JwtPortalTokens;
pub use proof_of_work::ProofOfWork;
pub use quota_leases::{QuotaLeases, QuotaStats};
pub use refresh_token::HmacRefreshTokens;
pub use resolver::SystemResolver;
pub use seal::AeadSeal;
pub use secret_source::SystemSecrets;
pub use signing_key::{SigningKey, SigningKeyError};
pub use spool::FileSpool;
pub use support_token::JwtSupportTokens;
pub use tenant_seals::CachedTenantSeals;
pub use token_cache::CachedAccessTokens;
pub use unsubscribe_token::HmacUnsubscribeTokens;
