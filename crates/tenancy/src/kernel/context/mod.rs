//! The application and the contexts of its use cases, with the ports that take a context.

pub mod entitlements;
pub mod idempotency;
pub mod metering;
pub mod subscriptions;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tenantry_domain::archive::{ArchiveStore, TenantArchive};
use tenantry_domain::audit::{
    AuditEvent, AuditReceiver, Category, UnsentAudit, changed_fields, cut_details, cut_state,
};
use tenantry_domain::billing::{Customers, PaymentProvider, ProviderEvents};
use tenantry_domain::customization::{Configurations, SettingRegistry};
use tenantry_domain::events::{EventExport, EventTypes, NewEvent, PublishedEvents, UnpublishedEvents};
use tenantry_domain::flags::{FlagDefinitions, FlagSource};
use tenantry_domain::identity::{
    AccessTokens, ApiKeyFormat, BreachedPasswords, CallerClass, CallerGroup, Challenges, HashingCaller,
    InvitationTokens, KeyRing, LinkTokens, MfaRequirement, OneTimeCodes, PasskeyCeremonies, PasswordHasher,
    RefreshTokens, SecretSource, SigningKeys, TotpWindow, Workspaces,
};
use tenantry_domain::kernel::{
    AsStoreError, AuditEventId, Clock, HostResolver, IdSource, KeptAnswer, OperatorId, Permission,
    PermissionRegistry, Seal, StoreError, SystemScope, TenantId, Time, UserId,
};
use tenantry_domain::notifications::UnsubscribeTokens;
use tenantry_domain::operations::{
    MailLimits, MailTemplates, Mailer, OperatorGate, OperatorOutbox, OperatorTokens, Operators, SentMails,
};
use tenantry_domain::plans::PlanCatalogue;
use tenantry_domain::security::RuleChanges;
use tenantry_domain::store::{Units, Work};
use tenantry_domain::tenant::{
    Actor, Denied, Dns, Gate, PortalTokens, Refused, ReservedDomains, Settings, SupportTokens,
    TenantRegistry, TenantRows, TenantScope, TenantSeals,
};
use tenantry_domain::usage::{CallSpool, QuotaUpkeep, UsageUpkeep};
use tenantry_domain::webhooks::{DueLanes, EndpointRules, WebhookKeys, WebhookSender};
use uuid::Uuid;

use self::entitlements::Entitlements;
use self::idempotency::{KeyedRegistration, KeyedRequest, Once};
use self::metering::{QuotaRecovery, UsageRecorder};
use self::subscriptions::Subscriptions;
use crate::kernel::changed::Changed;
use crate::kernel::state::ProcessState;
use crate::kernel::traces::Traces;

/// Everything the use cases need from outside.
#[derive(Clone)]
pub struct Ports {
    /// Transactions.
    pub units: Units,
    /// Admission.
    pub gate: Gate,
    /// Tenants across tenants, for sweeps.
    pub registry: Arc<dyn TenantRegistry>,
    /// The rows of tenants that are deleted, restored or purged.
    pub tenant_rows: Arc<dyn TenantRows>,
    /// The rows of tenants, for archives.
    pub tenant_archive: Arc<dyn TenantArchive>,
    /// Where the archives of exports are kept; there are no exports where it is absent.
    pub archive_store: Option<Arc<dyn ArchiveStore>>,
    /// Operators, and what they do across tenants.
    pub operators: Arc<dyn Operators>,
    /// Admission of operators.
    pub operator_gate: OperatorGate,
    /// Operators' access tokens.
    pub operator_tokens: Arc<dyn OperatorTokens>,
    /// Operators' access tokens for one tenant.
    pub support_tokens: Arc<dyn SupportTokens>,
    /// Admins' tokens for the pages on which endpoints of webhooks are managed.
    pub portal_tokens: Arc<dyn PortalTokens>,
    /// Password hashing.
    pub passwords: Arc<dyn PasswordHasher>,
    /// The keys that sign and verify tokens in this process.
    pub key_ring: Arc<dyn KeyRing>,
    /// The signing keys that all servers share.
    pub signing_keys: Arc<dyn SigningKeys>,
    /// Issues and verifies access tokens (JWT).
    pub access_tokens: Arc<dyn AccessTokens>,
    /// Issues and recognizes refresh tokens.
    pub refresh_tokens: Arc<dyn RefreshTokens>,
    /// Issues and recognizes the tokens of invitations.
    pub invitation_tokens: Arc<dyn InvitationTokens>,
    /// One-time codes of second factors.
    pub one_time_codes: Arc<dyn OneTimeCodes>,
    /// Ceremonies of passkeys; absent where the operator has not set up a relying party.
    pub passkeys: Option<Arc<dyn PasskeyCeremonies>>,
    /// Tokens of links that are sent by mail.
    pub link_tokens: Arc<dyn LinkTokens>,
    /// Tokens of links that end mails of notifications.
    pub unsubscribe_tokens: Arc<dyn UnsubscribeTokens>,
    /// Secrets of API keys.
    pub secrets: Arc<dyn SecretSource>,
    /// Sealing of what is stored of no tenant, and of tenants' data keys. What is stored for a tenant is sealed by [`Cx::seal`].
    pub seal: Arc<dyn Seal>,
    /// The cached seals of tenants.
    pub tenant_seals: Arc<dyn TenantSeals>,
    /// Traces beyond this process.
    pub traces: Arc<dyn Traces>,
    /// The flags of each tenant.
    pub flags: Arc<dyn FlagSource>,
    /// Their definitions as they are stored, for operators.
    pub flag_definitions: Arc<dyn FlagDefinitions>,
    /// Calls that wait to be recorded.
    pub calls: Arc<dyn CallSpool>,
    /// What is looked after of usage across tenants.
    pub usage_upkeep: Arc<dyn UsageUpkeep>,
    /// Leases of quotas across tenants.
    pub quota_upkeep: Arc<dyn QuotaUpkeep>,
    /// Recording of what use cases use.
    pub usage_recorder: Arc<dyn UsageRecorder>,
    /// Taking back leases of quotas.
    pub quota_recovery: Arc<dyn QuotaRecovery>,
    /// Plans on offer.
    pub plans: Arc<dyn PlanCatalogue>,
    /// What tenants may use, and how much they may add.
    pub entitlements: Arc<dyn Entitlements>,
    /// Subscriptions of tenants that sign up.
    pub subscriptions: Arc<dyn Subscriptions>,
    /// Whoever takes the money; nobody does where it is absent.
    pub payments: Option<Arc<dyn PaymentProvider>>,
    /// Which of its customers is which tenant.
    pub customers: Arc<dyn Customers>,
    /// What it tells of.
    pub provider_events: Arc<dyn ProviderEvents>,
    /// How much mail was sent to whom, of all tenants.
    pub sent_mails: Arc<dyn SentMails>,
    /// Which workspaces an address has, and requests to mail that.
    pub workspaces: Arc<dyn Workspaces>,
    /// Puts mails into words, in the language of a tenant.
    pub mail_templates: Arc<dyn MailTemplates>,
    /// Whoever delivers mail.
    pub mailer: Arc<dyn Mailer>,
    /// The list of breached passwords that new ones are compared with; none are where it is absent.
    pub breached_passwords: Option<Arc<dyn BreachedPasswords>>,
    /// The challenges that requests without a credential need; none do where it is absent.
    pub challenges: Option<Challenges>,
    /// What can be set.
    pub settings: Arc<SettingRegistry>,
    /// The permissions of the product and of the service that embeds it.
    pub permissions: Arc<PermissionRegistry>,
    /// The types of events, of the product and of the service that embeds it.
    pub event_types: Arc<EventTypes>,
    /// Tenants with events to publish.
    pub unpublished_events: Arc<dyn UnpublishedEvents>,
    /// The log of what was published in the feeds of all tenants.
    pub published_events: Arc<dyn PublishedEvents>,
    /// Where events are exported to; nowhere where it is absent.
    pub event_export: Option<EventExport>,
    /// Tenants with webhooks to deliver.
    pub due_lanes: Arc<dyn DueLanes>,
    /// What tenants have set, and how they look.
    pub configurations: Arc<dyn Configurations>,
    /// What host names mean.
    pub resolver: Arc<dyn HostResolver>,
    /// Where audit entries are streamed to; nowhere where it is absent.
    pub audit_receiver: Option<AuditReceiver>,
    /// Tenants with audit entries to send there.
    pub unsent_audit: Arc<dyn UnsentAudit>,
    /// Entries of the log of operators to send there.
    pub operator_outbox: Arc<dyn OperatorOutbox>,
    /// DNS as the internet sees it, for custom domains; there are none where it is absent.
    pub dns: Option<Arc<dyn Dns>>,
    /// Makes the secrets of webhook endpoints.
    pub webhook_keys: Arc<dyn WebhookKeys>,
    /// Signs and sends webhooks; none are sent where it is absent.
    pub webhook_sender: Option<Arc<dyn WebhookSender>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Source of new ids (UUIDv7).
    pub ids: Arc<dyn IdSource>,
}

/// What the operator decided about tenants and sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether anybody may found a tenant.
    pub signup_enabled: bool,
    /// The settings a new tenant begins with.
    pub default_settings: Settings,
    /// How long a session lives without being refreshed, in days; 1..=365.
    pub session_days: i64,
    /// How long a session lives from its login, however often it is refreshed, in days; 1..=365.
    pub session_max_days: i64,
    /// Whether operators need a second factor.
    pub operator_mfa_required: bool,
    /// In which time steps a code of an authenticator app is accepted, of users and of operators.
    pub totp_window: TotpWindow,
    /// Which users of every tenant need a second factor; a tenant's setting can only add to it.
    pub users_mfa_minimum: MfaRequirement,
    /// How API keys are written.
    pub api_keys: ApiKeyFormat,
    /// For how many days a slug or subdomain that a tenant gave up is reserved for that tenant; 0..=3650.
    pub name_quarantine_days: u32,
    /// So many days after its deletion a tenant is purged, and can be restored until then; 1..=3650.
    pub purge_after_days: u32,
    /// At which percentages of what is included and of the hard limit a tenant is told of its use; 1..=100 each.
    pub quota_thresholds: Vec<u32>,
    /// Whether a tenant whose API calls of a period are used up is refused.
    pub enforce_api_calls: bool,
    /// Where people use the product; mails lead there.
    pub app_url: String,
    /// Where recipients of mail reach the API: links to unsubscribe lead there.
    pub api_url: String,
    /// The maximum numbers of mails to an address and of a tenant within a day.
    pub mail_limits: MailLimits,
    /// What the operator changes about the rules that find suspicious activity.
    pub alert_rules: RuleChanges,
    /// What the operator decided about payments.
    pub billing: BillingPolicy,
    /// What the operator decided about host names.
    pub domains: DomainPolicy,
    /// Which URLs endpoints of webhooks may have.
    pub webhooks: EndpointRules,
    /// Keys whose signatures of archives are refused: the names of own keys, or public keys in hexadecimal digits.
    pub distrusted_keys: Vec<String>,
}

/// The defaults of the stock server: sign-up is closed.
impl Default for Policy {
    fn default() -> Self {
        Self {
            signup_enabled: false,
            default_settings: Settings {
                self_registration: false,
                timezone: "UTC".into(),
                locale: "en".into(),
            },
            session_days: 30,
            session_max_days: 30,
            operator_mfa_required: true,
            totp_window: TotpWindow::default(),
            users_mfa_minimum: MfaRequirement::Off,
            api_keys: ApiKeyFormat::default(),
            name_quarantine_days: 30,
            purge_after_days: 30,
            quota_thresholds: vec![80, 100],
            enforce_api_calls: true,
            app_url: "http://127.0.0.1:8080/".into(),
            api_url: "http://127.0.0.1:8080/".into(),
            mail_limits: MailLimits::default(),
            alert_rules: RuleChanges::default(),
            billing: BillingPolicy::default(),
            domains: DomainPolicy::default(),
            webhooks: EndpointRules::default(),
            distrusted_keys: Vec::new(),
        }
    }
}

impl Policy {
    /// When a tenant that is deleted now will be purged.
    pub fn purge_at(&self, now: Time) -> Time {
        now + chrono::Duration::days(self.purge_after_days.into())
    }
}

/// What the operator decided about host names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainPolicy {
    /// The name that custom domains must lead to, as CNAME or by its addresses. There are no custom domains where it is absent.
    pub edge: Option<String>,
    /// The domain whose subdomains name tenants.
    pub base_domain: Option<String>,
    /// The host of the service's own pages, where it has a name.
    pub app_host: Option<String>,
    /// The names that no tenant may claim: the product's own.
    pub reserved: ReservedDomains,
}

/// What the operator decided about payments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingPolicy {
    /// Where people come back to from the payment provider's pages.
    pub return_url: String,
    /// Whether the provider works out taxes.
    pub automatic_tax: bool,
    /// So many days after its suspension a tenant that does not pay is deleted; `None` means never.
    pub delete_after_days: Option<u32>,
}

impl Default for BillingPolicy {
    fn default() -> Self {
        Self {
            return_url: "http://127.0.0.1:8080/".into(),
            automatic_tax: false,
            delete_after_days: None,
        }
    }
}

/// The application: ports, policy and the few things it keeps in memory.
pub struct Tenancy {
    /// The adapters that use cases work with.
    pub ports: Ports,
    /// The rules that the configuration decides.
    pub policy: Policy,
    state: ProcessState,
}

impl std::fmt::Debug for Tenancy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenancy")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Tenancy {
    /// The application over its ports.
    pub fn new(ports: Ports, policy: Policy) -> Self {
        Self {
            ports,
            policy,
            state: ProcessState::default(),
        }
    }

    /// Returns what a room, or a crate above this one, keeps in memory for this application: one value of each type, which
    /// is created by the first call.
    pub fn state<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        self.state.get()
    }
}

/// From where a request came, for the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The caller's address.
    pub ip: Option<String>,
    /// The caller's `User-Agent`, at most 256 characters.
    pub user_agent: Option<String>,
}

impl Origin {
    /// The origin of a request: the caller's address, as [`Forwarding`](crate::Forwarding) finds it, and the value of its
    /// `User-Agent`, which is cut and freed of control characters.
    pub fn of_request(address: Option<IpAddr>, user_agent: Option<&[u8]>) -> Self {
        let printable = |value: &[u8]| {
            let text = String::from_utf8_lossy(value);
            text.chars().filter(|c| !c.is_control()).take(256).collect()
        };
        Self {
            ip: address.map(|ip| ip.to_string()),
            user_agent: user_agent.map(printable),
        }
    }

    /// The caller's address, where it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.ip.as_ref().and_then(|ip| ip.parse().ok())
    }
}

/// What a use case is done in: the application, the scope of whoever asks, and from where they ask.
#[derive(Debug, Clone)]
pub struct Cx {
    app: Arc<Tenancy>,
    scope: TenantScope,
    origin: Origin,
    once: Option<Once>,
    /// The operator who acts in the tenant, where the scope is the system's.
    operator: Option<OperatorId>,
}

impl Cx {
    /// A context of one request or job.
    pub fn new(app: Arc<Tenancy>, scope: TenantScope, origin: Origin) -> Self {
        Self {
            app,
            scope,
            origin,
            once: None,
            operator: None,
        }
    }

    /// The system's context in a tenant; `None` of one that has been deleted since it was listed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn enter(
        app: &Arc<Tenancy>,
        because: SystemScope,
        tenant: TenantId,
    ) -> Result<Option<Self>, StoreError> {
        match app.ports.gate.system(because, tenant).await {
            Ok(scope) => Ok(Some(Self::new(Arc::clone(app), scope, Origin::default()))),
            Err(Denied::TenantGone | Denied::TenantNotFound) => Ok(None),
            Err(Denied::Store(error)) => Err(error),
            Err(denied) => Err(StoreError::Other(denied.to_string())),
        }
    }

    /// The same context for a request with an idempotency key: what is written in it happens once. `answer` says what
    /// to keep as the answer; its `T` is what the work of the one [`Cx::write`] returns.
    #[must_use]
    pub fn once<T: Clone + 'static>(
        &self,
        request: KeyedRequest,
        answer: impl Fn(T) -> Option<KeptAnswer> + Send + Sync + 'static,
    ) -> Self {
        Self {
            once: Some(Once::new(request, answer)),
            ..self.clone()
        }
    }

    /// As [`Cx::once`], for a request without a credential that creates its user; `user` names the user in the work's
    /// result.
    #[must_use]
    pub fn once_registered<T: Clone + 'static>(
        &self,
        request: KeyedRegistration,
        user: impl Fn(&T) -> UserId + Send + Sync + 'static,
        answer: impl Fn(T) -> Option<KeptAnswer> + Send + Sync + 'static,
    ) -> Self {
        Self {
            once: Some(Once::registration(request, user, answer)),
            ..self.clone()
        }
    }

    /// The same context without an idempotency key: for work that is not what the request is answered with.
    #[must_use]
    pub fn without_key(&self) -> Self {
        Self {
            once: None,
            ..self.clone()
        }
    }

    /// Fails with the stored answer when the request with this context's idempotency key is done already. A use case calls
    /// it before it does something outside of the database; [`Cx::write`] asks again.
    ///
    /// # Errors
    /// [`StoreError::Key`], and those of the store.
    pub async fn check_once(&self) -> Result<(), StoreError> {
        match &self.once {
            Some(once) => self.read(async |work| once.check(self, work).await).await,
            None => Ok(()),
        }
    }

    /// The same request in another scope, its idempotency key included.
    pub(crate) fn in_scope(&self, scope: TenantScope) -> Self {
        Self {
            scope,
            ..self.clone()
        }
    }

    /// The same context for what came from elsewhere.
    pub(crate) fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The same context for an operator who acts in the tenant: the audit log names the operator.
    #[must_use]
    pub fn by_operator(mut self, operator: Option<OperatorId>) -> Self {
        self.operator = operator;
        self
    }

    /// The application.
    pub fn app(&self) -> &Tenancy {
        &self.app
    }

    /// The application, for work that outlasts the request's handler.
    pub fn shared_app(&self) -> &Arc<Tenancy> {
        &self.app
    }

    /// Returns the adapters that use cases work with.
    pub fn ports(&self) -> &Ports {
        &self.app.ports
    }

    /// Returns the proof of admission to the tenant.
    pub fn scope(&self) -> &TenantScope {
        &self.scope
    }

    /// From where the request came.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The first line of every use case. A permission that is not registered is refused to every caller: it would be missing in
    /// the list of permissions, and no API key could have it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn require(&self, permission: Permission) -> Result<(), Refused> {
        if !self.app.ports.permissions.contains(permission) {
            self.app.state::<Unregistered>().notice(permission);
            return Err(Refused::Forbidden);
        }
        self.scope.require(permission)
    }

    /// Who has a password hashed in this context. A tenant that is being created shares its turn with all that are.
    pub(crate) fn hashing_caller(&self) -> HashingCaller {
        let of_tenant = CallerGroup::Tenant(self.scope.tenant());
        let (class, group) = match self.scope.actor() {
            Actor::Founder => (CallerClass::Guest, CallerGroup::SignUp),
            Actor::Guest => (CallerClass::Guest, of_tenant),
            Actor::System(_)
            | Actor::User { .. }
            | Actor::ApiKey { .. }
            | Actor::Operator { .. }
            | Actor::Job { .. } => (CallerClass::Known, of_tenant),
        };
        HashingCaller::new(class, group, self.origin.address())
    }

    /// The present time.
    pub fn now(&self) -> Time {
        self.app.ports.clock.now()
    }

    /// The source of ids.
    pub fn ids(&self) -> &dyn IdSource {
        self.app.ports.ids.as_ref()
    }

    /// Runs work in a READ ONLY transaction of the scope's tenant.
    ///
    /// # Errors
    /// Those of the work and of the store.
    pub async fn read<T, E>(&self, work: impl AsyncFnOnce(&mut Work) -> Result<T, E> + Clone) -> Result<T, E>
    where
        E: From<StoreError> + AsStoreError,
    {
        self.app.ports.units.read(&self.scope, work).await
    }

    /// Runs work in a transaction of the scope's tenant that commits when the work returns `Ok`. It may be run
    /// again after a lost race, so it has no effects outside the transaction.
    ///
    /// In a context made by [`Cx::once`] the work is done unless it was done before; then the error is
    /// [`StoreError::Key`], with the answer in it.
    ///
    /// # Errors
    /// Those of the work and of the store.
    pub async fn write<T: 'static, E>(
        &self,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, E> + Clone,
    ) -> Result<T, E>
    where
        E: From<StoreError> + AsStoreError,
    {
        let units = &self.app.ports.units;
        let Some(once) = &self.once else {
            return units.write(&self.scope, work).await;
        };
        let work = async move |unit: &mut Work| {
            once.begin(self, unit).await?;
            let done = work(unit).await?;
            let seal = self.seal(unit).await?;
            let kept = once.kept(self, &seal, &done)?;
            Once::complete(unit, &kept).await?;
            Ok(done)
        };
        units.write(&self.scope, work).await
    }

    /// Runs work like [`Cx::write`], but a crash of the database may undo it; see
    /// [`Units::write_behind`](tenantry_domain::store::Units::write_behind).
    ///
    /// # Errors
    /// Those of the work and of the store.
    pub async fn write_behind<T, E>(
        &self,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, E> + Clone,
    ) -> Result<T, E>
    where
        E: From<StoreError> + AsStoreError,
    {
        self.app.ports.units.write_behind(&self.scope, work).await
    }

    /// An audit entry for a change; record it in the transaction of the change. Of an update only what has changed is recorded.
    pub fn changed<T: Serialize>(
        &self,
        action: &'static str,
        target_type: &'static str,
        target: Uuid,
        before: Option<&T>,
        after: Option<&T>,
    ) -> AuditEvent {
        let state = |state: Option<&T>| state.map(to_json).map(cut_state);
        let (before, after) = (state(before), state(after));
        let object = after.clone().or_else(|| before.clone());
        let (before, after) = match (before, after) {
            (Some(before), Some(after)) => {
                let (before, after) = changed_fields(before, after);
                (Some(before), Some(after))
            }
            created_or_deleted => created_or_deleted,
        };
        let previous = before.clone().filter(|_| after.is_some());
        AuditEvent {
            before,
            after,
            event: self.told(action, Some(target), (object, previous)),
            ..self.event(Category::Change, action, (target_type, Some(target)))
        }
    }

    /// Records a change in the audit log, in the transaction of the change.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn record(&self, work: &mut Work, changed: Changed) -> Result<(), StoreError> {
        let Changed {
            action,
            kind,
            target,
            before,
            after,
            object,
        } = changed;
        let previous = before.clone().filter(|_| after.is_some());
        let event = AuditEvent {
            before,
            after,
            event: self.told(action, Some(target), (object, previous)),
            ..self.event(Category::Change, action, (kind, Some(target)))
        };
        work.audit().record(event).await
    }

    /// An audit entry for something that concerns security.
    pub fn security(
        &self,
        action: &'static str,
        target_type: &'static str,
        target: Option<Uuid>,
        details: Value,
    ) -> AuditEvent {
        let details = cut_details(details);
        AuditEvent {
            event: self.told(action, target, (Some(details.clone()), None)),
            after: Some(details),
            ..self.event(Category::Security, action, (target_type, target))
        }
    }

    /// The event of an action, where the catalogue has a type for it. Receivers get the whole object, where the audit log has what has
    /// changed.
    fn told(
        &self,
        action: &str,
        target: Option<Uuid>,
        (object, previous): (Option<Value>, Option<Value>),
    ) -> Option<NewEvent> {
        let kind = self.app.ports.event_types.of_action(action)?.name();
        self.app.event_signals().note_recorded();
        Some(NewEvent {
            trace_parent: self.app.ports.traces.trace_parent(),
            ..NewEvent::new(kind, target, (object, previous))
        })
    }

    /// An entry without states. The tenant is marked here, so that no caller can forget it; its log is chained seconds later, when
    /// the transaction has usually ended.
    fn event(
        &self,
        category: Category,
        action: &'static str,
        (target_type, target_id): (&'static str, Option<Uuid>),
    ) -> AuditEvent {
        let at = self.now();
        self.app.audit_marks().note(self.scope.tenant(), at);
        AuditEvent {
            id: AuditEventId::next(self.ids()),
            at,
            category,
            action,
            target_type,
            target_id,
            ip: self.origin.ip.clone(),
            user_agent: self.origin.user_agent.clone(),
            operator: self.operator,
            before: None,
            after: None,
            event: None,
        }
    }
}

/// The permissions that were refused because they are not registered, so that each is logged once.
#[derive(Default)]
struct Unregistered(Mutex<BTreeSet<&'static str>>);

impl Unregistered {
    fn notice(&self, permission: Permission) {
        let permission = permission.as_str();
        if self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(permission)
        {
            tracing::error!(
                permission,
                "unregistered permission is refused to every caller: register it with `Extension::permission`, or in \
                 `Base::permissions`"
            );
        }
    }
}

fn to_json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
