//! Units of work: one transaction of one tenant, with a repository for each noun.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::AuditLog;
use crate::billing::{BillingAccounts, Invoices, MeterReports};
use crate::customization::{Brandings, SettingSheets};
use crate::flags::FlagOverrides;
use crate::identity::{
    AccountLinks, ApiKeys, BoundedNotices, Invitations, Lockouts, Passkeys, RareNotices, SecondFactors,
    Sessions, Users,
};
use crate::kernel::{AsStoreError, Storage, StoreError};
use crate::operations::{IdempotencyKeys, Jobs};
use crate::tenant::{TenantScope, Tenants};
use crate::usage::{Quotas, Usage};
use crate::work::{Members, Projects, Resources, Tasks};

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

/// An open transaction of one tenant, with a repository for each noun.
#[async_trait]
pub trait Store: Send {
    /// The tenant itself.
    fn tenants(&mut self) -> &mut dyn Tenants;
    /// The repository of users.
    fn users(&mut self) -> &mut dyn Users;
    /// Login sessions.
    fn sessions(&mut self) -> &mut dyn Sessions;
    /// Invitations to the tenant.
    fn invitations(&mut self) -> &mut dyn Invitations;
    /// Second factors, and logins that wait for one.
    fn second_factors(&mut self) -> &mut dyn SecondFactors;
    /// Passkeys of users.
    fn passkeys(&mut self) -> &mut dyn Passkeys;
    /// Links that were sent to users by mail.
    fn account_links(&mut self) -> &mut dyn AccountLinks;
    /// Which rare notices users got.
    fn rare_notices(&mut self) -> &mut dyn RareNotices;
    /// Which bounded notices users got.
    fn bounded_notices(&mut self) -> &mut dyn BoundedNotices;
    /// Failed guesses at accounts.
    fn lockouts(&mut self) -> &mut dyn Lockouts;
    /// The repository of API keys.
    fn api_keys(&mut self) -> &mut dyn ApiKeys;
    /// The repository of projects.
    fn projects(&mut self) -> &mut dyn Projects;
    /// Members of projects.
    fn members(&mut self) -> &mut dyn Members;
    /// The repository of tasks.
    fn tasks(&mut self) -> &mut dyn Tasks;
    /// Resources and their versions.
    fn resources(&mut self) -> &mut dyn Resources;
    /// How much is stored.
    fn storage(&mut self) -> &mut dyn Storage;
    /// How much of its quotas is used.
    fn quotas(&mut self) -> &mut dyn Quotas;
    /// What is used.
    fn usage(&mut self) -> &mut dyn Usage;
    /// What the tenant has set.
    fn settings(&mut self) -> &mut dyn SettingSheets;
    /// How the tenant looks.
    fn branding(&mut self) -> &mut dyn Brandings;
    /// What the tenant has chosen of flags.
    fn flag_overrides(&mut self) -> &mut dyn FlagOverrides;
    /// What the tenant has with the payment provider.
    fn billing(&mut self) -> &mut dyn BillingAccounts;
    /// The repository of invoices.
    fn invoices(&mut self) -> &mut dyn Invoices;
    /// What was used, as the payment provider is told.
    fn meter_reports(&mut self) -> &mut dyn MeterReports;
    /// The audit log.
    fn audit(&mut self) -> &mut dyn AuditLog;
    /// Work that is done later.
    fn jobs(&mut self) -> &mut dyn Jobs;
    /// Requests that are done once.
    fn idempotency_keys(&mut self) -> &mut dyn IdempotencyKeys;
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
    /// The tenant itself.
    pub fn tenants(&mut self) -> &mut dyn Tenants {
        self.store.tenants()
    }
    /// The repository of users.
    pub fn users(&mut self) -> &mut dyn Users {
        self.store.users()
    }
    /// Login sessions.
    pub fn sessions(&mut self) -> &mut dyn Sessions {
        self.store.sessions()
    }
    /// Invitations to the tenant.
    pub fn invitations(&mut self) -> &mut dyn Invitations {
        self.store.invitations()
    }
    /// Second factors, and logins that wait for one.
    pub fn second_factors(&mut self) -> &mut dyn SecondFactors {
        self.store.second_factors()
    }
    /// Passkeys of users.
    pub fn passkeys(&mut self) -> &mut dyn Passkeys {
        self.store.passkeys()
    }
    /// Links that were sent to users by mail.
    pub fn account_links(&mut self) -> &mut dyn AccountLinks {
        self.store.account_links()
    }
    /// Which rare notices users got.
    pub fn rare_notices(&mut self) -> &mut dyn RareNotices {
        self.store.rare_notices()
    }
    /// Which bounded notices users got.
    pub fn bounded_notices(&mut self) -> &mut dyn BoundedNotices {
        self.store.bounded_notices()
    }
    /// Failed guesses at accounts.
    pub fn lockouts(&mut self) -> &mut dyn Lockouts {
        self.store.lockouts()
    }
    /// The repository of API keys.
    pub fn api_keys(&mut self) -> &mut dyn ApiKeys {
        self.store.api_keys()
    }
    /// The repository of projects.
    pub fn projects(&mut self) -> &mut dyn Projects {
        self.store.projects()
    }
    /// Members of projects.
    pub fn members(&mut self) -> &mut dyn Members {
        self.store.members()
    }
    /// The repository of tasks.
    pub fn tasks(&mut self) -> &mut dyn Tasks {
        self.store.tasks()
    }
    /// Resources and their versions.
    pub fn resources(&mut self) -> &mut dyn Resources {
        self.store.resources()
    }
    /// How much is stored.
    pub fn storage(&mut self) -> &mut dyn Storage {
        self.store.storage()
    }
    /// How much of its quotas is used.
    pub fn quotas(&mut self) -> &mut dyn Quotas {
        self.store.quotas()
    }
    /// What is used.
    pub fn usage(&mut self) -> &mut dyn Usage {
        self.store.usage()
    }
    /// What the tenant has set.
    pub fn settings(&mut self) -> &mut dyn SettingSheets {
        self.store.settings()
    }
    /// How the tenant looks.
    pub fn branding(&mut self) -> &mut dyn Brandings {
        self.store.branding()
    }
    /// What the tenant has chosen of flags.
    pub fn flag_overrides(&mut self) -> &mut dyn FlagOverrides {
        self.store.flag_overrides()
    }
    /// What the tenant has with the payment provider.
    pub fn billing(&mut self) -> &mut dyn BillingAccounts {
        self.store.billing()
    }
    /// The repository of invoices.
    pub fn invoices(&mut self) -> &mut dyn Invoices {
        self.store.invoices()
    }
    /// What was used, as the payment provider is told.
    pub fn meter_reports(&mut self) -> &mut dyn MeterReports {
        self.store.meter_reports()
    }
    /// The audit log.
    pub fn audit(&mut self) -> &mut dyn AuditLog {
        self.store.audit()
    }
    /// Work that is done later.
    pub fn jobs(&mut self) -> &mut dyn Jobs {
        self.store.jobs()
    }
    /// Requests that are done once.
    pub fn idempotency_keys(&mut self) -> &mut dyn IdempotencyKeys {
        self.store.idempotency_keys()
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
