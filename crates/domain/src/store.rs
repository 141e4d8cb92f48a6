//! Units of work: one transaction of one tenant, with a repository for each noun.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;

use crate::kernel::{AsStoreError, StoreError};
use crate::tenant::TenantScope;

/// Whether a unit of work may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A READ ONLY transaction.
    Read,
    /// A READ WRITE transaction.
    Write,
    /// A READ WRITE transaction whose commit does not wait for the disk. Others see it at once, and the database loses all
    /// of it or nothing when it crashes soon after.
    WriteBehind,
}

/// Opens transactions. Only [`Units`] calls it.
#[async_trait]
pub trait UnitOfWork: Send + Sync {
    /// Begins a transaction with the scope's tenant set.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had in time.
    async fn begin(&self, scope: &TenantScope, mode: Mode) -> Result<Box<dyn Store>, StoreError>;

    /// Waits until everything that was committed before outlasts a crash.
    async fn make_durable(&self) -> Result<(), StoreError>;
}

/// Every repository, with its port: an entry here gives [`Work`] and [`Repositories`] its method, and the adapter's accessor. It
/// calls a macro with the list.
#[macro_export]
macro_rules! repositories {
    ($callback:ident) => {
        $callback! {
            /// The tenant itself.
            tenants: $crate::tenant::Tenants,
            /// Custom domains of the tenant.
            custom_domains: $crate::tenant::CustomDomains,
            /// The keys that seal what is stored for the tenant.
            data_keys: $crate::tenant::DataKeys,
            /// The repository of users.
            users: $crate::identity::Users,
            /// People whose data is exported or erased.
            persons: $crate::identity::Persons,
            /// Login sessions.
            sessions: $crate::identity::Sessions,
            /// Invitations to the tenant.
            invitations: $crate::identity::Invitations,
            /// The tenant's custom roles.
            custom_roles: $crate::identity::CustomRoles,
            /// Second factors, and logins that wait for one.
            second_factors: $crate::identity::SecondFactors,
            /// Passkeys of users.
            passkeys: $crate::identity::Passkeys,
            /// Links that were sent to users by mail.
            account_links: $crate::identity::AccountLinks,
            /// Which rare notices users got.
            rare_notices: $crate::identity::RareNotices,
            /// Which bounded notices users got.
            bounded_notices: $crate::identity::BoundedNotices,
            /// Failed guesses at accounts.
            lockouts: $crate::identity::Lockouts,
            /// The repository of API keys.
            api_keys: $crate::identity::ApiKeys,
            /// The repository of projects.
            projects: $crate::work::Projects,
            /// Members of projects.
            members: $crate::work::Members,
            /// The repository of tasks.
            tasks: $crate::work::Tasks,
            /// Resources and their versions.
            resources: $crate::work::Resources,
            /// How much is stored.
            storage: $crate::kernel::Storage,
            /// How much of its quotas is used.
            quotas: $crate::usage::Quotas,
            /// What is used.
            usage: $crate::usage::Usage,
            /// What the tenant has set.
            settings: $crate::customization::SettingSheets,
            /// How the tenant looks.
            branding: $crate::customization::Brandings,
            /// What the tenant has chosen of flags.
            flag_overrides: $crate::flags::FlagOverrides,
            /// What the tenant has with the payment provider.
            billing: $crate::billing::BillingAccounts,
            /// The repository of invoices.
            invoices: $crate::billing::Invoices,
            /// What was used, as the payment provider is told.
            meter_reports: $crate::billing::MeterReports,
            /// Exports of the tenant.
            exports: $crate::archive::Exports,
            /// Operators' access to the tenant.
            support_accesses: $crate::tenant::SupportAccesses,
            /// The audit log.
            audit: $crate::audit::AuditLog,
            /// The hash chain of the audit log.
            audit_chain: $crate::audit::AuditChain,
            /// Up to where the audit log was sent to a receiver outside.
            audit_streams: $crate::audit::AuditStreams,
            /// Events for receivers outside.
            events: $crate::events::EventFeed,
            /// Positions in the feed that programs have stored.
            event_consumers: $crate::events::EventConsumers,
            /// How far the export of events is.
            event_exports: $crate::events::EventExports,
            /// Notifications of users.
            notifications: $crate::notifications::Notifications,
            /// What users want to be notified of.
            notice_preferences: $crate::notifications::NoticePreferences,
            /// Where webhooks go: endpoints with their URLs, filters and sealed secrets.
            webhook_endpoints: $crate::webhooks::WebhookEndpoints,
            /// Deliveries of webhooks, and their attempts.
            webhook_deliveries: $crate::webhooks::WebhookDeliveries,
            /// The lanes in which the messages of endpoints are sent.
            webhook_lanes: $crate::webhooks::WebhookLanes,
            /// Alerts about suspicious activity.
            security_alerts: $crate::security::Alerts,
            /// What the security rules have counted.
            security_detections: $crate::security::Detections,
            /// Work that is done later.
            jobs: $crate::operations::Jobs,
            /// Requests that are done once.
            idempotency_keys: $crate::operations::IdempotencyKeys,
        }
    };
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident: $port:path,)*) => {
        /// A repository for each noun, in one open transaction.
        pub trait Repositories: Send {
            $($(#[$doc])* fn $name(&mut self) -> &mut dyn $port;)*
        }

        impl Work {
            $($(#[$doc])* pub fn $name(&mut self) -> &mut dyn $port {
                self.store.$name()
            })*
        }
    };
}

repositories!(methods);

/// An open transaction of one tenant, with a repository for each noun.
#[async_trait]
pub trait Store: Repositories {
    /// The adapter's own transaction, for repositories added outside of these crates.
    fn adapter(&mut self) -> &mut dyn Any;
    /// Makes it last.
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
    /// Undoes it.
    async fn rollback(self: Box<Self>);
}

/// What a use case gets to work with: the repositories of one open transaction of one tenant.
///
/// It cannot be committed from inside: [`Units`] does that when the work returns `Ok`.
pub struct Work {
    store: Box<dyn Store>,
    scope: TenantScope,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Work {
    /// The scope it was begun with.
    pub fn scope(&self) -> &TenantScope {
        &self.scope
    }
    /// The adapter's own transaction, for repositories added outside of these crates.
    pub fn adapter(&mut self) -> &mut dyn Any {
        self.store.adapter()
    }
}

/// Runs units of work: one transaction each, opened and closed here.
///
/// Work is an async closure that is cloned for each attempt. `AsyncFn`, which could be called again as it is, would
/// make futures that cannot be spawned once the closure borrows something.
#[derive(Clone)]
pub struct Units {
    inner: Arc<dyn UnitOfWork>,
}

impl std::fmt::Debug for Units {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Units")
    }
}

impl Units {
    /// How often work is run before its contention is reported.
    pub const ATTEMPTS: u32 = 4;

    /// Units of work over an adapter.
    pub fn new(inner: Arc<dyn UnitOfWork>) -> Self {
        Self { inner }
    }

    /// Runs `work` in a READ ONLY transaction.
    ///
    /// # Errors
    /// Those of `work`, and those of the store.
    pub async fn read<T, E>(
        &self,
        scope: &TenantScope,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, E> + Clone,
    ) -> Result<T, E>
    where
        E: From<StoreError> + AsStoreError,
    {
        self.run(scope, Mode::Read, work).await
    }

    /// Runs `work` in a transaction that commits when it returns `Ok` and rolls back when it returns `Err`.
    ///
    /// On a serialization failure or deadlock the work is run again, at most [`Self::ATTEMPTS`] times in all; so
    /// it must have no effect outside the transaction.
    ///
    /// # Errors
    /// Those of `work`, and those of the store.
    pub async fn write<T, E>(
        &self,
        scope: &TenantScope,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, E> + Clone,
    ) -> Result<T, E>
    where
        E: From<StoreError> + AsStoreError,
    {
        self.run(scope, Mode::Write, work).await
    }

    /// Like [`Self::write`], but a crash of the database may undo what was committed until [`Self::make_durable`] has
    /// returned: for whoever does the same again then, and has so many transactions that waiting for the disk with each
    /// would take longer than all else.
    ///
    /// # Errors
    /// Those of `work`, and those of the store.
    pub async fn write_behind<T, E>(
        &self,
        scope: &TenantScope,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, E> + Clone,
    ) -> Result<T, E>
    where
        E: From<StoreError> + AsStoreError,
    {
        self.run(scope, Mode::WriteBehind, work).await
    }

    /// Waits until everything that was committed before outlasts a crash of the database.
    ///
    /// # Errors
    /// [`StoreError`]; then nobody knows.
    pub async fn make_durable(&self) -> Result<(), StoreError> {
        self.inner.make_durable().await
    }

    async fn run<T, E>(
        &self,
        scope: &TenantScope,
        mode: Mode,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, E> + Clone,
    ) -> Result<T, E>
    where
        E: From<StoreError> + AsStoreError,
    {
        let mut attempt = 1;
        loop {
            let outcome = self.attempt(scope, mode, work.clone()).await;
            match outcome {
                Err(error) if attempt < Self::ATTEMPTS && error.is_contention() => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn attempt<T, E>(
        &self,
        scope: &TenantScope,
        mode: Mode,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<StoreError>,
    {
        let store = self.inner.begin(scope, mode).await?;
        let mut unit = Work {
            store,
            scope: scope.clone(),
        };
        match work(&mut unit).await {
            Ok(value) => {
                unit.store.commit().await?;
                Ok(value)
            }
            Err(error) => {
                unit.store.rollback().await;
                Err(error)
            }
        }
    }
}
