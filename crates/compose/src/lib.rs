//! The use cases put together over PostgreSQL, without HTTP.
//!
//! The crate `tenantry` builds on it and adds HTTP, Redis, Stripe and commands. A service with another web framework uses it
//! as it is: [`Base`] says where the database and the keys are, [`application`] gives the use cases, and [`beside`] runs the
//! service with the loops that they need.
//!
//! ```no_run
//! # async fn example(pem: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use tenantry_compose::{Base, application};
//! use tenantry_system::SigningKey;
//! use tenantry_tenancy::Policy;
//!
//! let keys = vec![SigningKey::from_pem(pem)?];
//! let (app, platform) = ("postgres://tenantry_app@db/tenantry", "postgres://tenantry_platform@db/tenantry");
//! let app = application(&Base::new(app, platform, keys)?, Policy::default())?;
//! tenantry_compose::read_keys(&app).await?;
//! tenantry_compose::beside(&app, async { /* serve */ }).await;
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

mod base;
mod caches;
mod ports;
mod upkeep;

pub use base::{Base, ComposeError};
pub use caches::Caches;
pub use ports::{application, ports};
pub use upkeep::{beside, follow_keys, mail_workspaces, read_keys, store_notes};
