//! The SeaORM adapter: tenant-scoped transactions over PostgreSQL, and a repository for each noun on top of them.
//!
//! A transaction ([`TenantTx`]) begins with a tenant and offers only builders that already carry the tenant
//! predicate: there is no connection to run an unscoped query on.
//!
//! ```compile_fail,E0277
//! # use tenantry_persistence::TenantTx;
//! use sea_orm::EntityTrait;
//! # mod note {
//! #     use sea_orm::entity::prelude::*;
//! #     #[sea_orm::model]
//! #     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
//! #     #[sea_orm(table_name = "notes")]
//! #     pub struct Model {
//! #         #[sea_orm(primary_key, auto_increment = false)]
//! #         pub tenant_id: Uuid,
//! #         #[sea_orm(primary_key, auto_increment = false)]
//! #         pub id: Uuid,
//! #     }
//! #     impl ActiveModelBehavior for ActiveModel {}
//! # }
//! async fn unscoped(tx: &mut TenantTx) {
//!     // `TenantTx` is no `ConnectionTrait`: the ORM's own queries do not run on it.
//!     let _ = note::Entity::find().all(&*tx).await;
//! }
//! ```
//!
//! Nor can a transaction be opened without a scope, or its connection be taken out:
//!
//! ```compile_fail,E0624
//! async fn open(pool: &tenantry_persistence::Pool, tenant: tenantry_domain::kernel::TenantId) {
//!     let _ = tenantry_persistence::TenantTx::begin(pool, tenant, tenantry_domain::store::Mode::Read).await;
//! }
//! ```
//!
//! ```compile_fail,E0616
//! fn take(tx: tenantry_persistence::TenantTx) {
//!     let _ = tx.open;
//! }
//! ```
//!
//! # A table of one's own
//!
//! An embedder declares its entity, states which column holds the tenant, and reaches the transaction of the
//! running unit of work through [`tenant_tx`]:
//!
//! ```
//! mod note {
//!     use sea_orm::entity::prelude::*;
//!     #[sea_orm::model]
//!     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
//!     #[sea_orm(table_name = "notes")]
//!     pub struct Model {
//!         #[sea_orm(primary_key, auto_increment = false)]
//!         pub tenant_id: Uuid,
//!         #[sea_orm(primary_key, auto_increment = false)]
//!         pub id: Uuid,
//!         pub text: String,
//!     }
//!     impl ActiveModelBehavior for ActiveModel {}
//!     tenantry_persistence::tenant_entity!(Entity, Model, Column);
//! }
//!
//! use tenantry_domain::{kernel::StoreError, store::Work};
//! use tenantry_persistence::{ColumnTrait, tenant_tx};
//!
//! async fn notes_with(work: &mut Work, text: &str) -> Result<Vec<note::Model>, StoreError> {
//!     tenant_tx(work)?.find::<note::Entity>().filter(note::Column::Text.contains(text)).all().await
//! }
//! ```
#![deny(missing_docs)]

mod archive;
mod audit;
mod billing;
mod customization;
mod events;
mod flags;
mod identity;
mod kernel;
mod notifications;
mod operations;
mod plans;
mod security;
mod tenant;
mod usage;
mod webhooks;
mod work;

pub use archive::rows::PgTenantArchive;
pub use audit::stream::PgUnsentAudit;
pub use billing::customer::PgCustomers;
pub use billing::provider_event::PgProviderEvents;
pub use events::feed::PgUnpublishedEvents;
pub use events::log::PgPublishedEvents;
pub use flags::flag::PgFlags;
pub use identity::challenge::PgSpentChallenges;
pub use identity::signing_key::PgSigningKeys;
pub use identity::workspace::PgWorkspaces;
pub use kernel::error::OWN_TABLES;
pub use kernel::store::{PgUnits, tenant_tx};
pub use kernel::transport::Transport;
pub use kernel::tx::{
    Delete, Find, FindBoth, ListedEntity, Lock, Pool, PoolConfig, RawSql, StatementTimeouts, TenantEntity,
    TenantTx, Update,
};
pub use kernel::vitals::{Vitals, vitals};
pub use operations::job::PgJobQueue;
pub use operations::operator::PgOperators;
pub use operations::operator_outbox::PgOperatorOutbox;
pub use operations::sent_mail::PgSentMails;
pub use operations::system_job::PgSystemJobs;
pub use plans::plan::PgPlanVersions;
pub use sea_orm::{ActiveValue::Set, ColumnTrait, Condition, IntoActiveModel};
pub use tenant::directory::PgDirectory;
pub use tenant::registry::PgRegistry;
pub use tenant::rows::PgTenantRows;
pub use usage::quota_upkeep::PgQuotaUpkeep;
pub use usage::usage_upkeep::PgUsageUpkeep;
pub use webhooks::lane::PgDueLanes;

#[doc(hidden)]
pub use sea_orm as __sea_orm;
#[doc(hidden)]
pub use tenantry_domain as __domain;
