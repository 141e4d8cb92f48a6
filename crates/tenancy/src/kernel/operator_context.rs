//! The context of an operator's use case.

use std::sync::Arc;

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::events::{NewEvent, TenantEvent};
use tenantry_domain::kernel::{
    Check, EventId, Invalid, OperatorEventId, OperatorId, RequestId, StoreError, SystemScope, TenantId, Time,
};
use tenantry_domain::operations::{
    KeptRequest, Operator, OperatorEvent, OperatorPermission, OperatorScope, OperatorSession, OperatorWork,
};
use tenantry_domain::tenant::{Denied, Refused, TenantScope};

use crate::kernel::context::idempotency::OperatorRequest;
use crate::kernel::context::{Cx, Origin, Tenancy};
use crate::kernel::step_up::RECENT_SECONDS;
use crate::kernel::use_case_error::{OwnReason, UseCaseError};

/// What an operator's use case is done in: the application, the scope of the operator, and from where they ask.
#[derive(Debug, Clone)]
pub struct OperatorCx {
    app: Arc<Tenancy>,
    scope: OperatorScope,
    origin: Origin,
    reason: Option<Arc<str>>,
}

impl OperatorCx {
    /// A context of one request or command.
    pub fn new(app: Arc<Tenancy>, scope: OperatorScope, origin: Origin) -> Self {
        Self {
            app,
            scope,
            origin,
            reason: None,
        }
    }

    /// The context of a command on the server, with the reason.
    pub fn command(app: &Arc<Tenancy>, because: SystemScope) -> Self {
        let request = RequestId::next(app.ports.ids.as_ref());
        let scope = app.ports.operator_gate.system(because, request);
        Self::new(Arc::clone(app), scope, Origin::default())
    }

    /// The same context with the reason that the operator gives, which every record of it has: 1 to 500 characters in one line.
    ///
    /// # Errors
    /// `invalid_text` at `/reason`.
    pub fn with_reason(self, reason: &str) -> Result<Self, Invalid> {
        Check::all(|check| check.line("/reason", reason, 1..=500))?;
        Ok(Self {
            reason: Some(reason.into()),
            ..self
        })
    }

    /// The reason that the operator gives.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
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

    /// The first line of every use case of operators. The system, such as a command on the server, has every permission.
    ///
    /// # Errors
    /// [`Refused::Forbidden`] when the operator's role does not have it, before [`Refused::OperatorFactorRequired`] when the second
    /// factor was given too long ago.
    pub fn require(&self, permission: OperatorPermission) -> Result<(), Refused> {
        if !self.scope.has(permission) {
            return Err(Refused::Forbidden);
        }
        let session = self.scope.session();
        if permission.needs_recent_factor() && !session.is_none_or(|session| self.is_recent(session)) {
            return Err(Refused::OperatorFactorRequired);
        }
        Ok(())
    }

    /// The first line of a use case that only commands on the server have.
    ///
    /// # Errors
    /// [`Refused::Forbidden`] of an operator's request.
    pub fn require_command(&self) -> Result<(), Refused> {
        match self.scope.operator() {
            Some(_) => Err(Refused::Forbidden),
            None => Ok(()),
        }
    }

    /// Whether the second factor was given minutes ago. Where operators need none, one without it passes.
    fn is_recent(&self, session: &OperatorSession) -> bool {
        match session.factor_at {
            Some(given_at) => self.now() - given_at < Duration::seconds(RECENT_SECONDS),
            None => !self.app.policy.operator_mfa_required,
        }
    }

    /// Stores the record of what is about to be done elsewhere, such as in a tenant's scope: before it is done, so that nothing is
    /// done without its record.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn announce(&self, record: OperatorEvent) -> Result<(), StoreError> {
        self.begin().await?.commit(record).await
    }

    /// Does something outside of the transactions of operators, such as in a tenant's scope. Its record is stored before; where it fails,
    /// another record says so.
    ///
    /// # Errors
    /// Those of the work and of the store.
    pub async fn act<T, E>(
        &self,
        record: OperatorEvent,
        failed: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: From<StoreError> + std::fmt::Display,
    {
        let (target, of, reason) = (record.target_tenant, record.id, record.reason.clone());
        self.announce(record).await?;
        let done = work.await;
        if let Err(error) = &done {
            let details = json!({"event": of, "error": error.to_string()});
            let record = OperatorEvent {
                reason,
                ..self.record(failed, target, details)
            };
            if let Err(lost) = self.announce(record).await {
                tracing::warn!(%lost, failed, "the failure of an operator's action is not recorded");
            }
        }
        done
    }

    /// The operator's context in a tenant, whose log names the operator and the request, as the operators' own log does.
    pub fn inside(&self, scope: TenantScope) -> Cx {
        let scope = scope.on_behalf_of(self.scope.request());
        Cx::new(Arc::clone(&self.app), scope, self.origin.clone()).by_operator(self.scope.operator())
    }

    /// Enters a tenant that is in use, for the system in the operator's place: see [`OperatorCx::inside`].
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn enter(&self, because: SystemScope, tenant: TenantId) -> Result<Cx, Denied> {
        let scope = self.app.ports.gate.system(because, tenant).await?;
        Ok(self.inside(scope))
    }

    /// The same of a tenant that may be deleted, or that is still being imported: nothing leads into it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn try_enter(&self, because: SystemScope, tenant: TenantId) -> Result<Option<Cx>, StoreError> {
        let entered = Cx::enter(&self.app, because, tenant).await?;
        Ok(entered.map(|cx| self.inside(cx.scope().clone())))
    }

    /// Begins a transaction; it can only be committed with the record of what was done in it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn begin(&self) -> Result<Box<dyn OperatorWork>, StoreError> {
        self.app.ports.operators.begin(&self.scope).await
    }

    /// Begins a transaction in which the operator is asked for again, and stays locked: the body of a request may come minutes after its
    /// head, and the operator may have been deactivated, logged out or given another role since.
    ///
    /// # Errors
    /// [`Denied::Revoked`], [`Refused::Forbidden`], and those of the store.
    pub async fn begin_as<R: OwnReason>(
        &self,
        permission: OperatorPermission,
    ) -> Result<Box<dyn OperatorWork>, UseCaseError<R>> {
        let mut work = self.begin().await?;
        let Some((id, session)) = self.scope.operator().zip(self.scope.session()) else {
            return Ok(work);
        };
        let found = work.lock_operator(id).await?;
        let is_admitted = |operator: &Operator| operator.is_active && operator.epoch == session.epoch;
        let operator = found.filter(is_admitted).ok_or(Denied::Revoked)?;
        if !operator.role.has(permission) {
            return Err(Refused::Forbidden.into());
        }
        Ok(work)
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
    /// [`KeyTaken::Reused`](tenantry_domain::kernel::KeyTaken::Reused) when the key identifies another request, and those of the store.
    pub async fn done_before(
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
            reason: self.reason.as_deref().map(str::to_owned),
            target_tenant: target,
            ip: self.origin.ip.clone(),
            details,
        }
    }

    /// The event of an action that changes the state of a tenant, for [`OperatorWork::emit`]; `None` where the catalogue has no type for the
    /// action.
    pub(crate) fn tenant_event(
        &self,
        action: &str,
        (tenant, operator): (TenantId, Option<OperatorId>),
        object: Value,
    ) -> Option<TenantEvent> {
        let ports = &self.app.ports;
        let kind = ports.event_types.of_action(action)?.name();
        self.app.event_signals().note_recorded();
        Some(TenantEvent {
            id: EventId::next(ports.ids.as_ref()),
            at: self.now(),
            tenant,
            operator,
            event: NewEvent {
                trace_parent: ports.traces.trace_parent(),
                ..NewEvent::new(kind, Some(tenant.uuid()), (Some(object), None))
            },
        })
    }
}
