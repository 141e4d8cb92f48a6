//! The context of an operator's use case.

use std::sync::Arc;

use serde_json::Value;
use tenantry_domain::kernel::{OperatorEventId, RequestId, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::operations::{KeptRequest, OperatorEvent, OperatorScope, OperatorWork};

use crate::kernel::context::idempotency::OperatorRequest;
use crate::kernel::context::{Origin, Tenancy};

/// What an operator's use case is done in: the application, the scope of the operator, and from where they ask.
#[derive(Debug, Clone)]
pub struct OperatorCx {
    app: Arc<Tenancy>,
    scope: OperatorScope,
    origin: Origin,
}

impl OperatorCx {
    /// A context of one request or command.
    pub fn new(app: Arc<Tenancy>, scope: OperatorScope, origin: Origin) -> Self {
        Self { app, scope, origin }
    }

    /// The context of a command on the server, with the reason.
    pub fn command(app: &Arc<Tenancy>, because: SystemScope) -> Self {
        let request = RequestId::next(app.ports.ids.as_ref());
        let scope = app.ports.operator_gate.system(because, request);
        Self::new(Arc::clone(app), scope, Origin::default())
    }

    /// The application.
    pub fn app(&self) -> &Arc<Tenancy> {
        &self.app
    }

    /// Returns the proof that an operator acts.
    pub fn scope(&self) -> &OperatorScope {
        &self.scope
    }

    /// From where the request came.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The present time.
    pub fn now(&self) -> Time {
        self.app.ports.clock.now()
    }

    /// Begins a transaction; it can only be committed with the record of what was done in it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn begin(&self) -> Result<Box<dyn OperatorWork>, StoreError> {
        self.app.ports.operators.begin(&self.scope).await
    }

    /// Begins a transaction for the record of a caller who was not admitted. It leaves operators their connections.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn begin_for_guest(&self) -> Result<Box<dyn OperatorWork>, StoreError> {
        self.app.ports.operators.begin_for_guest(&self.scope).await
    }

    /// Returns the details of what this operator did with an idempotency key within the last day.
    ///
    /// # Errors
    /// [`KeyTaken::Reused`] when the key identifies another request, and those of the store.
    pub(crate) async fn done_before(
        &self,
        work: &mut dyn OperatorWork,
        request: &OperatorRequest,
    ) -> Result<Option<Value>, StoreError> {
        let since = self.now() - KeptRequest::LIFETIME;
        let details = work.keyed(&request.route, &request.key, since).await?;
        if let Some(details) = &details {
            request.check(details)?;
        }
        Ok(details)
    }

    /// The record of what was done.
    pub fn record(&self, action: &'static str, target: Option<TenantId>, details: Value) -> OperatorEvent {
        OperatorEvent {
            id: OperatorEventId::next(self.app.ports.ids.as_ref()),
            at: self.now(),
            action,
            reason: None,
            target_tenant: target,
            ip: self.origin.ip.clone(),
            details,
        }
    }
}
