use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tenantry_domain::kernel::{Change, Clock, InvalidationPublisher, StoreError};
use tenantry_domain::store::{Mode, Repositories, Store, UnitOfWork, Work};
use tenantry_domain::tenant::{Actor, TenantScope};
use tenantry_domain::usage::MeterKey;

use crate::kernel::support_guard::SupportGuard;
use crate::kernel::tx::{Party, make_durable};
use crate::{Pool, TenantTx};

/// Units of work over PostgreSQL, connected as the runtime role.
#[derive(Clone)]
pub struct PgUnits {
    pool: Pool,
    publisher: Arc<dyn InvalidationPublisher>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for PgUnits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgUnits")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl PgUnits {
    /// Units over a pool of the runtime role; `publisher` gets every change of what scopes are made of. The clock says when the access
    /// of an operator is over.
    pub fn new(pool: Pool, publisher: Arc<dyn InvalidationPublisher>, clock: Arc<dyn Clock>) -> Self {
        Self {
            pool,
            publisher,
            clock,
        }
    }
}

#[async_trait]
impl UnitOfWork for PgUnits {
    async fn begin(&self, scope: &TenantScope, mode: Mode) -> Result<Box<dyn Store>, StoreError> {
        let tenant = scope.tenant();
        let party = match scope.actor() {
            Actor::Guest => Party::Guest(tenant),
            Actor::Founder => Party::Founder,
            Actor::User { .. }
            | Actor::ApiKey { .. }
            | Actor::Operator { .. }
            | Actor::System(_)
            | Actor::Job { .. } => Party::Tenant(tenant),
        };
        let mut tx = TenantTx::begin_for(party, &self.pool, tenant, mode).await?;
        let access = scope.support_access();
        let guard = access.map(|access| SupportGuard::new(access, Arc::clone(&self.clock)));
        if let Some(guard) = &guard
            && let Err(error) = guard.begin(&mut tx).await
        {
            tx.rollback().await;
            return Err(error);
        }
        Ok(Box::new(PgStore {
            tx,
            scope: scope.clone(),
            changes: Changes::new(Arc::clone(&self.publisher)),
            // What was read before an access ends was read while it was in force.
            guard: guard.filter(|_| mode != Mode::Read),
        }))
    }

    async fn make_durable(&self) -> Result<(), StoreError> {
        make_durable(&self.pool).await
    }
}

/// The transaction of a running unit of work, for repositories of an embedder's own tables.
///
/// # Errors
/// [`StoreError::Other`] when the work runs on another adapter than this one.
pub fn tenant_tx(work: &mut Work) -> Result<&mut TenantTx, StoreError> {
    let tx = work.adapter().downcast_mut::<TenantTx>();
    tx.ok_or_else(|| StoreError::Other("the unit of work does not run on PostgreSQL".into()))
}

/// The repositories of one open transaction; each noun's file implements its port for it.
pub(crate) struct PgStore {
    pub(crate) tx: TenantTx,
    pub(crate) scope: TenantScope,
    pub(crate) changes: Changes,
    /// Of an operator's transaction that writes.
    guard: Option<SupportGuard>,
}

/// What a transaction has changed of the facts that scopes are made of. It is published when this value is dropped: after
/// the commit, and also when the caller goes away while the commit is under way.
pub(crate) struct Changes {
    publisher: Arc<dyn InvalidationPublisher>,
    made: BTreeSet<Change>,
}

impl Changes {
    pub(crate) fn new(publisher: Arc<dyn InvalidationPublisher>) -> Self {
        Self {
            publisher,
            made: BTreeSet::new(),
        }
    }

    /// Whether the transaction has made such a change.
    pub(crate) fn has(&self, change: Change) -> bool {
        self.made.contains(&change)
    }

    pub(crate) fn note(&mut self, change: Change) {
        self.made.insert(change);
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.made
            .iter()
            .for_each(|change| self.publisher.publish(*change));
    }
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $port:path,)*) => {
        impl Repositories for PgStore {
            $(fn $name(&mut self) -> &mut dyn $port {
                self
            })*
        }
    };
}

tenantry_domain::repositories!(accessors);

#[async_trait]
impl Store for PgStore {
    fn adapter(&mut self) -> &mut dyn Any {
        &mut self.tx
    }
    async fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        if let Some(guard) = self.guard.take()
            && let Err(error) = guard.end(&mut self.tx).await
        {
            self.rollback().await;
            return Err(error);
        }
        let Self { tx, changes, .. } = *self;
        let done = tx.commit().await;
        drop(changes);
        done
    }
    async fn rollback(self: Box<Self>) {
        let Self { tx, mut changes, .. } = *self;
        changes.made.clear();
        tx.rollback().await;
    }
}

/// A stored text that no longer is what the domain knows: a mistake of ours or somebody's hand in the database.
pub(crate) fn unknown(column: &'static str, text: &str) -> StoreError {
    StoreError::Other(format!("{column} holds '{text}', which is not known"))
}

/// The key of a meter, as a column holds it.
pub(crate) fn meter(text: &str, column: &'static str) -> Result<MeterKey, StoreError> {
    MeterKey::parse(text).ok_or_else(|| unknown(column, text))
}

/// One row must have been changed; a lock is held on it, so anything else is a mistake of ours.
pub(crate) fn exactly_one(rows: u64) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Other(format!("changed {rows} rows instead of one")))
    }
}
