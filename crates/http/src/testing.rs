//! A small application for the tests of this crate: one tenant, one user of each role, and a database that is
//! always away. A request that got as far as its use case ends as 503.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

use actix_web::{
    body::MessageBody,
    dev::ServiceResponse,
    http::{
        Method, StatusCode,
        header::{self, HeaderMap},
    },
    test,
};
use async_trait::async_trait;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tenantry_billing::billing::billing_provision::PaidSubscriptions;
use tenantry_billing::plans::entitlement::PlanEntitlements;
use tenantry_billing::usage::quota_recovery::LeaseRecovery;
use tenantry_billing::usage::usage_rollup::LedgerRecorder;
use tenantry_domain::archive::{
    ArchiveError, ArchiveSink, ArchiveStore, ErasedPerson, Put, RowBatch, Snapshot, TableShape, TenantArchive,
};
use tenantry_domain::audit::{StreamFrom, UnsentAudit, UnsentTenants};
use tenantry_domain::billing::{
    CustomerRef, Customers, EventRef, EventState, KnownCustomer, ProviderEvents, ReceivedEvent,
};
use tenantry_domain::customization::{
    Branding, Configurations, EffectiveSettings, SettingRegistry, TenantConfiguration,
};
use tenantry_domain::events::{ExportBacklog, LogEnds, PublishedEvents, UnpublishedEvents};
use tenantry_domain::flags::{FlagDefinitions, FlagProgram, FlagSet, FlagSource};
use tenantry_domain::identity::{
    AccessClaims, AccessTokens, AddressRules, ApiKey, ApiKeyFormat, AuthMethods, Email, HashingCaller,
    InvitationTokens, IssuedInvitation, IssuedLink, IssuedRefresh, KeyRing, LinkTokens, MfaRequirement,
    NewApiKey, OneTimeCodes, OpenSigningKey, PasskeyAssertion, PasskeyCeremonies, PasskeyCeremony,
    PasskeyCredential, PasskeyOwner, PasskeyRefusal, Password, PasswordError, PasswordHash, PasswordHasher,
    PresentedInvitation, PresentedLink, PresentedRefresh, RefreshTokens, RefusedHash, Requested,
    SecretSource, Signature, SigningKeyRecord, SigningKeys, TokenError, TotpSecret, TotpWindow, UserHandle,
    Verified, Workspace, WorkspaceRequest, Workspaces,
};
use tenantry_domain::kernel::{
    AccountLinkId, ApiKeyId, Clock, ExportId, HostResolver, IdSource, InvitationId, Limit, Message,
    OperatorEventId, OperatorId, Permission, PermissionRegistry, Recipient, Reset, Role, Seal, SessionId,
    StoreError, SupportAccessId, SystemScope, TenantId, Time, Unresolved, UserId,
};
use tenantry_domain::notifications::{PresentedUnsubscribe, UnsubscribeTokens};
use tenantry_domain::operations::{
    Accepted, Look, Mail, MailDecision, MailError, MailLimits, MailTemplates, Mailer, MessageId, Operator,
    OperatorClaims, OperatorGate, OperatorGuesses, OperatorOutbox, OperatorRole, OperatorScope,
    OperatorTokens, OperatorWork, Operators, OutgoingMail, RecordedOperatorEvent, RenderedMail, SentMails,
    SystemJob, TemplateError,
};
use tenantry_domain::plans::{Agreed, PlanCatalogue, PlanTerms, Subscription};
use tenantry_domain::store::{Mode, Store, UnitOfWork, Units};
use tenantry_domain::tenant::{
    ApiKeyFacts, Directory, Dns, DnsError, DnsRoute, Gate, JobFacts, JobLease, MembershipFacts, PortalClaims,
    PortalTokens, RowStep, RowTable, RowWork, SealEpoch, Settings, Slug, SupportClaims, SupportFacts,
    SupportTokens, Tenant, TenantFacts, TenantRegistry, TenantRows, TenantScope, TenantSeal, TenantSeals,
    TenantSelector, TenantStatus, Tombstone, TxtRecords,
};
use tenantry_domain::usage::{
    Aggregation, Call as Noted, CallSpool, Meter, MeterKey, MeterTerms, Meters, QuotaUpkeep, SpoolTally,
    UsageUpkeep,
};
use tenantry_domain::webhooks::{
    Backlog, DueLanes, NewSecret, SecretError, SignatureKind, SigningSecret, WebhookKeys,
};
use tenantry_tenancy::customization::product_settings;
use tenantry_tenancy::plans::Feature;
use tenantry_tenancy::{BillingPolicy, DomainPolicy, NoTraces, Policy, Ports, Tenancy};
use uuid::Uuid;

use crate::{Api, HttpConfig, Readiness, app};

/// An id that is well-formed and nobody's.
pub(crate) const SOME_ID: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";

/// The API over the small application.
pub(crate) fn api(config: HttpConfig) -> Api {
    let fake = Arc::new(Fake::default());
    let ports = Ports {
        units: Units::new(fake.clone()),
        gate: Gate::new(
            fake.clone(),
            fake.clone(),
            fake.clone(),
            fake.clone(),
            fake.clone(),
        ),
        registry: fake.clone(),
        tenant_rows: fake.clone(),
        tenant_archive: fake.clone(),
        archive_store: Some(fake.clone()),
        operators: fake.clone(),
        operator_gate: OperatorGate::new(fake.clone(), fake.clone()),
        operator_tokens: fake.clone(),
        support_tokens: fake.clone(),
        portal_tokens: fake.clone(),
        flags: fake.clone(),
        flag_definitions: fake.clone(),
        passwords: fake.clone(),
        key_ring: fake.clone(),
        signing_keys: fake.clone(),
        access_tokens: fake.clone(),
        refresh_tokens: fake.clone(),
        invitation_tokens: fake.clone(),
        one_time_codes: fake.clone(),
        passkeys: Some(fake.clone()),
        link_tokens: fake.clone(),
        unsubscribe_tokens: fake.clone(),
        secrets: fake.clone(),
        seal: fake.clone(),
        tenant_seals: fake.clone(),
        traces: Arc::new(NoTraces),
        calls: fake.clone(),
        usage_upkeep: fake.clone(),
        quota_upkeep: fake.clone(),
        usage_recorder: Arc::new(LedgerRecorder),
        quota_recovery: Arc::new(LeaseRecovery),
        plans: fake.clone(),
        entitlements: Arc::new(PlanEntitlements),
        subscriptions: Arc::new(PaidSubscriptions),
        payments: None,
        customers: fake.clone(),
        provider_events: fake.clone(),
        sent_mails: fake.clone(),
        workspaces: fake.clone(),
        mail_templates: fake.clone(),
        mailer: fake.clone(),
        breached_passwords: None,
        challenges: None,
        settings: Arc::new(SettingRegistry::new(product_settings::definitions()).unwrap()),
        permissions: Arc::default(),
        event_types: Arc::default(),
        unpublished_events: fake.clone(),
        published_events: fake.clone(),
        event_export: None,
        due_lanes: fake.clone(),
        configurations: fake.clone(),
        resolver: fake.clone(),
        audit_receiver: None,
        unsent_audit: fake.clone(),
        operator_outbox: fake.clone(),
        dns: Some(fake.clone()),
        webhook_keys: fake.clone(),
        webhook_sender: None,
        clock: fake.clone(),
        ids: fake,
    };
    let default_settings = Settings {
        self_registration: false,
        timezone: "UTC".into(),
        locale: "en".into(),
    };
    let policy = Policy {
        quota_thresholds: vec![80, 100],
        enforce_api_calls: true,
        signup_enabled: false,
        default_settings,
        session_days: 30,
        session_max_days: 30,
        operator_mfa_required: false,
        totp_window: TotpWindow::default(),
        users_mfa_minimum: MfaRequirement::Off,
        api_keys: ApiKeyFormat::new("test").unwrap(),
        name_quarantine_days: 30,
        purge_after_days: 30,
        app_url: "http://127.0.0.1:8080/".into(),
        api_url: "http://127.0.0.1:8080/".into(),
        mail_limits: MailLimits::default(),
        billing: BillingPolicy::default(),
        domains: DomainPolicy {
            edge: Some("edge.example.com".into()),
            ..DomainPolicy::default()
        },
        ..Policy::default()
    };
    Api::new(
        Arc::new(Tenancy::new(ports, policy)),
        config,
        Arc::new(Readiness::new()),
    )
}

/// A request that is put together in a test.
pub(crate) struct Call(test::TestRequest);

/// What came back.
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Call {
    pub fn new(method: Method, uri: &str) -> Self {
        Self(test::TestRequest::with_uri(uri).method(method))
    }

    pub fn get(uri: &str) -> Self {
        Self::new(Method::GET, uri)
    }

    pub fn post(uri: &str, json: &str) -> Self {
        Self::new(Method::POST, uri)
            .header("Content-Type", "application/json")
            .body(json)
    }

    /// `viewer`, `member` and `admin` are tokens of users with that role.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.append_header((name, value)))
    }

    pub fn body(self, body: &str) -> Self {
        Self(self.0.set_payload(body.to_owned()))
    }

    pub async fn send(self, api: &Api) -> Reply {
        let service = test::init_service(app(api.clone())).await;
        let mut request = self.0.to_request();
        // Who sends chunks names no length (RFC 9112, 6.2); the framework's test request always names one.
        let headers = &mut request.head_mut().headers;
        if headers.contains_key(header::TRANSFER_ENCODING) {
            headers.remove(header::CONTENT_LENGTH);
        }
        match test::try_call_service(&service, request).await {
            Ok(response) => Reply::of(response).await,
            Err(error) => {
                let request = test::TestRequest::default().to_http_request();
                Reply::of(ServiceResponse::new(request, error.error_response())).await
            }
        }
    }
}

impl Reply {
    async fn of(response: ServiceResponse<impl MessageBody>) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
        Self {
            status,
            headers,
            text,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The code of the problem, after a look at whether it is a proper one.
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("Content-Type"),
            Some("application/problem+json"),
            "{}",
            self.text
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["request_id"], self.header("X-Request-ID").unwrap());
        assert_eq!(
            problem["type"],
            format!("/problems/{}", problem["code"].as_str().unwrap())
        );
        problem["code"].as_str().unwrap().to_owned()
    }
}

#[derive(Default)]
struct Fake {
    ids: AtomicU64,
}

fn acme() -> TenantFacts {
    TenantFacts {
        id: Uuid::from_u128(1).into(),
        slug: Slug::parse("acme").unwrap(),
        subdomain: Slug::parse("acme"),
        subscription: Arc::new(Subscription {
            plan: "free".into(),
            version: 1,
            agreed: Agreed::default(),
        }),
        status: TenantStatus::Active,
    }
}

#[async_trait]
impl Dns for Fake {
    async fn txt(&self, _: &str) -> Result<TxtRecords, DnsError> {
        Err(DnsError::Failed)
    }

    async fn route(&self, _: &str) -> Result<DnsRoute, DnsError> {
        Err(DnsError::Failed)
    }
}

#[async_trait]
impl Directory for Fake {
    async fn tenant(&self, selector: &TenantSelector) -> Result<Option<TenantFacts>, StoreError> {
        let acme = acme();
        let found = match selector {
            TenantSelector::Id(id) => *id == acme.id,
            TenantSelector::Slug(slug) | TenantSelector::Subdomain(slug) => *slug == acme.slug,
            TenantSelector::Domain(_) => false,
        };
        Ok(found.then_some(acme))
    }

    async fn tenants(&self, ids: &[TenantId]) -> Result<Vec<TenantFacts>, StoreError> {
        let acme = acme();
        Ok(if ids.contains(&acme.id) {
            vec![acme]
        } else {
            Vec::new()
        })
    }

    async fn membership(
        &self,
        _: TenantId,
        user: UserId,
        _: SessionId,
    ) -> Result<Option<MembershipFacts>, StoreError> {
        let role = Role::ALL
            .into_iter()
            .find(|role| UserId::from(Uuid::from_u128(*role as u128)) == user);
        Ok(role.map(|role| MembershipFacts {
            tenant: acme(),
            role,
            narrowing: None,
            is_active: true,
            session_is_live: true,
            session_expires_at: self.now(),
        }))
    }

    async fn api_key(&self, tenant: TenantId, id: ApiKeyId) -> Result<Option<ApiKeyFacts>, StoreError> {
        let acme = acme();
        let key = SomeKey::of(id).filter(|_| tenant == acme.id);
        Ok(key.map(|key| ApiKeyFacts {
            tenant: acme,
            key: key.stored(self.now()),
            creator_role: Some(Role::Admin),
            creator_narrowing: None,
        }))
    }

    fn caches_api_key(&self, _: TenantId, _: ApiKeyId) -> bool {
        true
    }

    async fn support_access(
        &self,
        _: TenantId,
        _: SupportAccessId,
    ) -> Result<Option<SupportFacts>, StoreError> {
        Ok(None)
    }

    async fn job(&self, _: &JobLease) -> Result<Option<JobFacts>, StoreError> {
        Ok(None)
    }
}

/// An API key of the small application.
#[derive(Clone, Copy)]
pub(crate) enum SomeKey {
    /// With every scope that there is.
    All,
    /// With one that no route of a test asks for.
    Least,
}

impl SomeKey {
    const SECRET: [u8; 32] = [7; 32];

    fn of(id: ApiKeyId) -> Option<Self> {
        let keys = [Self::All, Self::Least];
        keys.into_iter().find(|key| key.id() == id)
    }

    fn id(self) -> ApiKeyId {
        Uuid::from_u128(70 + self as u128).into()
    }

    fn format() -> ApiKeyFormat {
        ApiKeyFormat::new("test").unwrap()
    }

    pub fn text(self) -> String {
        Self::format().issue(acme().id, self.id(), Self::SECRET).text
    }

    fn stored(self, now: Time) -> ApiKey {
        let scopes = Permission::ALL.iter().filter(|permission| permission.is_scope());
        let scopes = scopes.map(|permission| permission.as_str().to_owned());
        let new = NewApiKey {
            name: "Some".into(),
            scopes: match self {
                Self::All => scopes.collect(),
                Self::Least => vec!["branding.manage".into()],
            },
            expires_at: None,
            allowed_networks: None,
            service_account: false,
        };
        let hash = Self::format()
            .issue(acme().id, self.id(), Self::SECRET)
            .secret_hash;
        ApiKey::new(
            self.id(),
            Uuid::from_u128(2).into(),
            hash,
            (new, &PermissionRegistry::default()),
            now,
        )
        .unwrap()
    }
}

impl SecretSource for Fake {
    fn secret(&self) -> [u8; 32] {
        [7; 32]
    }
}

impl WebhookKeys for Fake {
    fn generate(&self, _: SignatureKind) -> Result<NewSecret, SecretError> {
        WebhookKeys::read(self, "whsec_c2VjcmV0")
    }

    fn read(&self, text: &str) -> Result<NewSecret, SecretError> {
        Ok(NewSecret {
            secret: SigningSecret::stored(text.to_owned()),
            public_key: None,
        })
    }
}

impl KeyRing for Fake {
    fn configured(&self) -> Vec<String> {
        Vec::new()
    }

    fn generate(&self) -> (String, Vec<u8>) {
        ("kid".into(), Vec::new())
    }

    fn replace(&self, _: Vec<OpenSigningKey>) -> Vec<String> {
        Vec::new()
    }

    fn sign(&self, _: &[u8]) -> Signature {
        Signature {
            kid: "kid".into(),
            public_key: Vec::new(),
            bytes: Vec::new(),
        }
    }

    fn verifies(&self, _: &[u8], _: &[u8], _: &[u8]) -> bool {
        true
    }
}

#[async_trait]
impl SigningKeys for Fake {
    async fn all(&self, _: SystemScope) -> Result<Vec<SigningKeyRecord>, StoreError> {
        Ok(Vec::new())
    }
}

impl AccessTokens for Fake {
    fn sign(&self, _: &AccessClaims) -> String {
        "signed".into()
    }

    fn verify(&self, token: &str) -> Result<AccessClaims, TokenError> {
        let user = match token {
            "expired" => return Err(TokenError::Expired),
            "removed" => 99,
            role => Role::parse(role).ok_or(TokenError::Invalid)? as u128,
        };
        Ok(AccessClaims {
            tenant: acme().id,
            user: Uuid::from_u128(user).into(),
            session: Uuid::from_u128(1).into(),
            role: Role::Viewer,
            factor_at: None,
            methods: AuthMethods::PASSWORD,
            issued_at: self.now(),
            expires_at: self.now(),
        })
    }

    fn issued_to(&self, token: &str) -> Option<TenantId> {
        AccessTokens::verify(self, token).ok().map(|claims| claims.tenant)
    }

    fn jwks(&self) -> Value {
        serde_json::json!({"keys": []})
    }

    fn lifetime_seconds(&self) -> i64 {
        900
    }
}

impl OneTimeCodes for Fake {
    fn secret(&self) -> TotpSecret {
        TotpSecret::new([0; 20])
    }

    fn token(&self) -> [u8; 32] {
        [0; 32]
    }

    fn code(&self, _: &TotpSecret, _: u64) -> String {
        "000000".into()
    }
}

impl PasskeyCeremonies for Fake {
    fn start_registration(&self, _: &PasskeyOwner<'_>, _: &[PasskeyCredential]) -> PasskeyCeremony {
        self.start_login()
    }

    fn finish_registration(&self, _: &[u8], _: &str) -> Result<PasskeyCredential, PasskeyRefusal> {
        Err(PasskeyRefusal::Malformed("none".into()))
    }

    fn start_login(&self) -> PasskeyCeremony {
        PasskeyCeremony {
            options: Value::Null,
            state: Vec::new(),
        }
    }

    fn credential_id(&self, _: &str) -> Result<Vec<u8>, PasskeyRefusal> {
        Err(PasskeyRefusal::Malformed("none".into()))
    }

    fn finish_login(
        &self,
        _: &[u8],
        _: &str,
        _: Option<(UserHandle, &PasskeyCredential)>,
    ) -> Result<PasskeyAssertion, PasskeyRefusal> {
        Err(PasskeyRefusal::Malformed("none".into()))
    }
}

impl RefreshTokens for Fake {
    fn first(&self, _: TenantId, _: SessionId) -> IssuedRefresh {
        IssuedRefresh {
            token: "first".into(),
            hash: [0; 32],
        }
    }

    fn read(&self, _: &str) -> Option<PresentedRefresh> {
        None
    }
}

impl InvitationTokens for Fake {
    fn issue(&self, _: TenantId, _: InvitationId) -> IssuedInvitation {
        IssuedInvitation {
            token: "issued".into(),
            hash: [0; 32],
        }
    }

    fn read(&self, _: &str) -> Option<PresentedInvitation> {
        None
    }
}

impl LinkTokens for Fake {
    fn issue(&self, _: TenantId, _: AccountLinkId) -> IssuedLink {
        IssuedLink {
            token: "issued".into(),
            hash: [0; 32],
        }
    }

    fn read(&self, _: &str) -> Option<PresentedLink> {
        None
    }
}

impl UnsubscribeTokens for Fake {
    fn issue(&self, _: &PresentedUnsubscribe) -> String {
        "issued".into()
    }

    fn read(&self, _: &str) -> Option<PresentedUnsubscribe> {
        None
    }
}

#[async_trait]
impl UnitOfWork for Fake {
    async fn begin(&self, _: &TenantScope, _: Mode) -> Result<Box<dyn Store>, StoreError> {
        away()
    }

    async fn make_durable(&self) -> Result<(), StoreError> {
        away()
    }
}

#[async_trait]
impl TenantRegistry for Fake {
    async fn list(&self, _: SystemScope, _: Option<TenantId>, _: u32) -> Result<Vec<Tenant>, StoreError> {
        Ok(Vec::new())
    }

    async fn dealt(&self, _: SystemScope, _: u32, _: u32) -> Result<Vec<TenantId>, StoreError> {
        Ok(Vec::new())
    }

    async fn free_names(&self, _: SystemScope, _: Time) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl TenantArchive for Fake {
    async fn tables(&self, _: SystemScope) -> Result<Vec<TableShape>, StoreError> {
        Ok(Vec::new())
    }

    async fn snapshot(&self, _: SystemScope, _: TenantId) -> Result<Box<dyn Snapshot>, StoreError> {
        Err(StoreError::Unavailable("there is no database".into()))
    }

    async fn put(&self, _: SystemScope, _: TenantId, _: RowBatch<'_>) -> Result<Put, StoreError> {
        Ok(Put::default())
    }

    async fn erased(&self, _: SystemScope, _: TenantId) -> Result<Vec<ErasedPerson>, StoreError> {
        Ok(Vec::new())
    }

    async fn settle(&self, _: SystemScope, _: TenantId) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl TenantRows for Fake {
    async fn tables(&self, _: SystemScope) -> Result<Vec<RowTable>, StoreError> {
        Ok(Vec::new())
    }

    async fn step(
        &self,
        _: SystemScope,
        _: TenantId,
        _: (RowWork, &RowTable),
        _: Option<Uuid>,
        _: u32,
    ) -> Result<RowStep, StoreError> {
        Ok(RowStep::Stopped)
    }

    async fn tenant(&self, _: SystemScope, _: TenantId) -> Result<Option<Tenant>, StoreError> {
        Ok(None)
    }

    async fn tenant_named(&self, _: SystemScope, _: &Slug) -> Result<Option<Tenant>, StoreError> {
        Ok(None)
    }

    async fn pending(&self, _: SystemScope, _: Time, _: u32) -> Result<Vec<TenantId>, StoreError> {
        Ok(Vec::new())
    }

    async fn has_archives(&self, _: SystemScope, _: TenantId) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn purged_among(&self, _: SystemScope, _: &[TenantId]) -> Result<Vec<TenantId>, StoreError> {
        Ok(Vec::new())
    }

    async fn tombstones(&self, _: SystemScope) -> Result<Vec<Tombstone>, StoreError> {
        Ok(Vec::new())
    }
}

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the secret host is away".into()))
}

fn no_disk<T>() -> Result<T, ArchiveError> {
    Err(ArchiveError::Io("the secret disk is away".into()))
}

#[async_trait]
impl ArchiveStore for Fake {
    async fn create(&self, _: TenantId, _: ExportId) -> Result<Box<dyn ArchiveSink>, ArchiveError> {
        no_disk()
    }

    async fn read(
        &self,
        _: TenantId,
        _: ExportId,
        _: u64,
        _: usize,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        no_disk()
    }

    async fn remove(&self, _: TenantId, _: ExportId) -> Result<(), ArchiveError> {
        no_disk()
    }

    async fn remove_all(&self, _: TenantId) -> Result<(), ArchiveError> {
        no_disk()
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, ArchiveError> {
        no_disk()
    }
}

#[async_trait]
impl Customers for Fake {
    async fn expect(&self, _: SystemScope, _: TenantId, _: Time) -> Result<(), StoreError> {
        away()
    }

    async fn bind(&self, _: SystemScope, _: TenantId, _: &CustomerRef) -> Result<CustomerRef, StoreError> {
        away()
    }

    async fn tenant_of(&self, _: SystemScope, _: &CustomerRef) -> Result<Option<TenantId>, StoreError> {
        away()
    }

    async fn list(&self, _: SystemScope, _: Option<TenantId>, _: u32) -> Result<Vec<TenantId>, StoreError> {
        away()
    }

    async fn left_behind(
        &self,
        _: SystemScope,
        _: Option<TenantId>,
        _: u32,
    ) -> Result<Vec<KnownCustomer>, StoreError> {
        away()
    }

    async fn known(&self, _: SystemScope, _: TenantId) -> Result<Option<KnownCustomer>, StoreError> {
        away()
    }

    async fn replace(
        &self,
        _: SystemScope,
        _: TenantId,
        _: &CustomerRef,
        _: &CustomerRef,
    ) -> Result<CustomerRef, StoreError> {
        away()
    }

    async fn removed(&self, _: SystemScope, _: TenantId, _: Time) -> Result<(), StoreError> {
        away()
    }
}

#[async_trait]
impl ProviderEvents for Fake {
    async fn receive(
        &self,
        _: SystemScope,
        _: &ReceivedEvent,
        _: Option<&SystemJob>,
    ) -> Result<bool, StoreError> {
        away()
    }

    async fn begin(&self, _: SystemScope, _: &EventRef) -> Result<Option<ReceivedEvent>, StoreError> {
        away()
    }

    async fn settle(
        &self,
        _: SystemScope,
        _: &EventRef,
        _: (EventState, Option<&str>),
        _: Time,
    ) -> Result<(), StoreError> {
        away()
    }

    async fn list(
        &self,
        _: SystemScope,
        _: Option<EventState>,
        _: u32,
    ) -> Result<Vec<ReceivedEvent>, StoreError> {
        away()
    }

    async fn looked_until(&self, _: SystemScope) -> Result<Option<Time>, StoreError> {
        away()
    }

    async fn look_until(&self, _: SystemScope, _: Time) -> Result<(), StoreError> {
        away()
    }

    async fn clear_bodies_of(&self, _: SystemScope, _: TenantId, _: &[Email]) -> Result<u64, StoreError> {
        away()
    }

    async fn clear_bodies(&self, _: SystemScope, _: Time) -> Result<u64, StoreError> {
        away()
    }
}

impl SupportTokens for Fake {
    fn sign(&self, _: &SupportClaims) -> String {
        "support".into()
    }

    fn verify(&self, _: &str) -> Result<SupportClaims, TokenError> {
        Err(TokenError::Invalid)
    }

    fn issued_to(&self, _: &str) -> Option<TenantId> {
        None
    }
}

impl PortalTokens for Fake {
    fn sign(&self, _: &PortalClaims) -> String {
        "portal".into()
    }

    fn verify(&self, _: &str) -> Result<PortalClaims, TokenError> {
        Err(TokenError::Invalid)
    }

    fn issued_to(&self, _: &str) -> Option<TenantId> {
        None
    }
}

impl OperatorTokens for Fake {
    fn sign(&self, _: &OperatorClaims) -> String {
        "operator".into()
    }

    fn verify(&self, token: &str) -> Result<OperatorClaims, TokenError> {
        if token != "operator" {
            return Err(TokenError::Invalid);
        }
        Ok(OperatorClaims {
            epoch: 0,
            factor_at: None,
            operator: Uuid::from_u128(5).into(),
            issued_at: self.now(),
            expires_at: self.now(),
        })
    }

    fn lifetime_seconds(&self) -> i64 {
        900
    }
}

#[async_trait]
impl Operators for Fake {
    async fn find(&self, _: SystemScope, id: OperatorId) -> Result<Option<Operator>, StoreError> {
        let email = Email::stored("olga@example.com".into());
        let hash = PasswordHash::new("hash".into());
        Ok(Operator::new(id, email, "Olga", OperatorRole::Owner, hash, self.now()).ok())
    }

    async fn find_by_email(&self, _: SystemScope, _: &Email) -> Result<Option<Operator>, StoreError> {
        Ok(None)
    }

    async fn find_to_log_in(&self, _: SystemScope, _: &Email) -> Result<Option<Operator>, StoreError> {
        Ok(None)
    }

    async fn login_addresses(
        &self,
        _: SystemScope,
        _: &Email,
        _: Time,
    ) -> Result<Vec<Option<String>>, StoreError> {
        Ok(Vec::new())
    }

    async fn list(&self, _: SystemScope) -> Result<Vec<Operator>, StoreError> {
        Ok(Vec::new())
    }

    async fn begin_for_guest(&self, _: &OperatorScope) -> Result<Box<dyn OperatorWork>, StoreError> {
        away()
    }

    async fn begin(&self, _: &OperatorScope) -> Result<Box<dyn OperatorWork>, StoreError> {
        away()
    }

    async fn begin_guess(&self, _: SystemScope) -> Result<Box<dyn OperatorGuesses>, StoreError> {
        away()
    }
}

#[async_trait]
impl FlagSource for Fake {
    async fn flags(&self, _: &TenantScope) -> Result<Arc<FlagSet>, StoreError> {
        away()
    }

    fn cached(&self, _: &TenantScope) -> Option<Arc<FlagSet>> {
        None
    }
}

#[async_trait]
impl FlagDefinitions for Fake {
    async fn program(&self, _: SystemScope) -> Result<Arc<FlagProgram>, StoreError> {
        away()
    }
}

impl CallSpool for Fake {
    fn note(&self, _: Noted) {}
    fn batches(&self) -> Vec<String> {
        Vec::new()
    }
    fn read(&self, _: &str, _: &mut dyn FnMut(Noted)) -> std::io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }
    fn set_aside(&self, _: &str, _: &[Noted]) -> std::io::Result<()> {
        Ok(())
    }

    fn ended(&self) -> Vec<tenantry_domain::usage::EndedSpool> {
        Vec::new()
    }
    fn bury(&self, _: &str) -> std::io::Result<()> {
        Ok(())
    }

    fn tally(&self) -> SpoolTally {
        SpoolTally::default()
    }
}

#[async_trait]
impl QuotaUpkeep for Fake {
    async fn lapsed(&self, _: SystemScope, _: Option<TenantId>, _: u32) -> Result<Vec<TenantId>, StoreError> {
        away()
    }
    async fn held_by(
        &self,
        _: SystemScope,
        _: Uuid,
        _: Option<TenantId>,
        _: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        away()
    }
}

#[async_trait]
impl UnsentAudit for Fake {
    async fn waiting(
        &self,
        _: SystemScope,
        _: Option<TenantId>,
        _: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        away()
    }
    async fn count(&self, _: SystemScope) -> Result<UnsentTenants, StoreError> {
        away()
    }
}

#[async_trait]
impl UnpublishedEvents for Fake {
    async fn waiting(
        &self,
        _: SystemScope,
        _: Option<TenantId>,
        _: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        away()
    }
}

#[async_trait]
impl PublishedEvents for Fake {
    async fn last_of(&self, _: SystemScope, _: TenantId) -> Result<i64, StoreError> {
        away()
    }

    async fn append(&self, _: SystemScope, _: (Time, Time), _: u32) -> Result<u64, StoreError> {
        away()
    }

    async fn ends(&self, _: SystemScope) -> Result<LogEnds, StoreError> {
        away()
    }

    async fn to_export(
        &self,
        _: SystemScope,
        _: Option<TenantId>,
        _: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        away()
    }

    async fn backlog(&self, _: SystemScope) -> Result<ExportBacklog, StoreError> {
        away()
    }
}

#[async_trait]
impl DueLanes for Fake {
    async fn tenants(
        &self,
        _: SystemScope,
        _: (u32, &[TenantId], bool),
        _: Time,
    ) -> Result<Vec<TenantId>, StoreError> {
        away()
    }

    async fn backlog(&self, _: SystemScope, _: Time) -> Result<Backlog, StoreError> {
        away()
    }
}

#[async_trait]
impl OperatorOutbox for Fake {
    async fn begin(&self, _: SystemScope, _: StreamFrom) -> Result<bool, StoreError> {
        away()
    }
    async fn lease(
        &self,
        _: SystemScope,
        _: (Uuid, i64),
        _: u32,
    ) -> Result<Vec<RecordedOperatorEvent>, StoreError> {
        away()
    }
    async fn acknowledge(&self, _: SystemScope, _: Uuid, _: &[OperatorEventId]) -> Result<(), StoreError> {
        away()
    }
    async fn since(&self, _: SystemScope) -> Result<Option<Time>, StoreError> {
        away()
    }
}

#[async_trait]
impl UsageUpkeep for Fake {
    async fn with_changes(
        &self,
        _: SystemScope,
        _: Time,
        _: Option<TenantId>,
        _: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        away()
    }
    async fn waiting_since(&self, _: SystemScope) -> Result<Option<Time>, StoreError> {
        away()
    }
    async fn make_partitions(&self, _: SystemScope) -> Result<u32, StoreError> {
        away()
    }
}

#[async_trait]
impl PasswordHasher for Fake {
    async fn hash(&self, _: &HashingCaller, _: Password) -> Result<PasswordHash, PasswordError> {
        Ok(PasswordHash::new("hash".into()))
    }

    async fn verify(
        &self,
        _: &HashingCaller,
        _: Password,
        _: Option<PasswordHash>,
    ) -> Result<Verified, PasswordError> {
        Ok(Verified::Wrong)
    }

    fn import(&self, hash: String) -> Result<PasswordHash, RefusedHash> {
        Ok(PasswordHash::new(hash))
    }

    fn unusable(&self) -> PasswordHash {
        PasswordHash::new("unusable".into())
    }

    fn is_common(&self, _: &Password, _: &[&str]) -> bool {
        false
    }

    fn generate(&self) -> Password {
        Password::presented("generated".into())
    }
}

impl Seal for Fake {
    fn seal(&self, _: &str, plain: &[u8]) -> Vec<u8> {
        plain.to_vec()
    }

    fn open(&self, _: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        Some(sealed.to_vec())
    }

    fn digest(&self, _: &str, plain: &[u8]) -> [u8; 32] {
        Sha256::digest(plain).into()
    }

    fn is_digest(&self, place: &str, plain: &[u8], digest: &[u8; 32]) -> bool {
        self.digest(place, plain) == *digest
    }

    fn is_current(&self, _: &str, _: &[u8]) -> bool {
        true
    }

    fn new_data_key(&self, _: &str) -> Vec<u8> {
        vec![0; 32]
    }

    fn with_data_key(&self, _: &str, _: &[u8]) -> Option<Arc<dyn Seal>> {
        None
    }
}

impl TenantSeals for Fake {
    fn cached(&self, _: TenantId) -> Option<Arc<TenantSeal>> {
        None
    }

    fn epoch(&self, _: TenantId) -> SealEpoch {
        SealEpoch(0)
    }

    fn keep(&self, _: SealEpoch, _: &Arc<TenantSeal>) {}
}

#[async_trait]
impl PlanCatalogue for Fake {
    fn default_plan(&self) -> &str {
        "free"
    }

    fn is_open_to_signup(&self, plan: &str) -> bool {
        plan == self.default_plan()
    }

    fn on_offer(&self) -> Vec<Arc<PlanTerms>> {
        vec![self.terms("free", 1)]
    }

    fn meters(&self) -> &Meters {
        static METERS: LazyLock<Meters> = LazyLock::new(|| {
            let calls = Meter {
                key: MeterKey::api_calls(),
                title: "API calls".into(),
                unit: "call".into(),
                aggregation: Aggregation::Sum,
                reset: Reset::BillingCycle,
            };
            Meters::from([(calls.key.clone(), Arc::new(calls))])
        });
        &METERS
    }

    async fn refresh(&self, _: Time) -> Result<(), StoreError> {
        Ok(())
    }

    fn terms(&self, _: &str, _: u32) -> Arc<PlanTerms> {
        let ten_thousand = MeterTerms {
            included: Limit::Of(10_000),
            limit: Limit::Of(10_000),
            overage: Vec::new(),
        };
        Arc::new(PlanTerms {
            meters: BTreeMap::from([(MeterKey::api_calls(), ten_thousand)]),
            prices: Vec::new(),
            trial_days: 0,
            grace_days: 7,
            name: "free".into(),
            version: 1,
            title: "Free".into(),
            limits: BTreeMap::new(),
            features: [
                Feature::AUDIT_EXPORT,
                Feature::BRANDING,
                Feature::CUSTOM_DOMAIN,
                Feature::CUSTOM_ROLES,
            ]
            .map(|feature| feature.0.to_owned())
            .into(),
            settings: BTreeMap::new(),
        })
    }
}

#[async_trait]
impl Configurations for Fake {
    /// Without lists of networks, as admission reads them.
    fn cached(&self, _: TenantId) -> Option<Arc<TenantConfiguration>> {
        Some(Arc::new(TenantConfiguration {
            name: "Acme".into(),
            settings: EffectiveSettings::default(),
            addresses: AddressRules::default(),
            branding: Branding::default(),
        }))
    }

    async fn of(&self, _: &TenantScope) -> Result<Arc<TenantConfiguration>, StoreError> {
        away()
    }
}

#[async_trait]
impl HostResolver for Fake {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, Unresolved> {
        Err(Unresolved)
    }
}

impl MailTemplates for Fake {
    fn render(&self, _: &Message, recipient: &Recipient, _: &Look) -> Result<RenderedMail, TemplateError> {
        Ok(RenderedMail {
            subject: recipient.subject(""),
            text: String::new(),
            html: String::new(),
        })
    }
}

#[async_trait]
impl SentMails for Fake {
    async fn admit(
        &self,
        _: SystemScope,
        _: &OutgoingMail,
        _: MailLimits,
    ) -> Result<MailDecision, StoreError> {
        Ok(MailDecision::Send)
    }

    async fn note_in_doubt(&self, _: SystemScope, _: MessageId) -> Result<u32, StoreError> {
        Ok(1)
    }

    async fn delete_before(&self, _: SystemScope, _: Time) -> Result<u64, StoreError> {
        Ok(0)
    }
}

#[async_trait]
impl Workspaces for Fake {
    async fn request(&self, _: SystemScope, _: &WorkspaceRequest) -> Result<Requested, StoreError> {
        Ok(Requested::Stored)
    }

    async fn take_due(&self, _: SystemScope, _: Time) -> Result<Option<WorkspaceRequest>, StoreError> {
        Ok(None)
    }

    async fn put_off(&self, _: SystemScope, _: &WorkspaceRequest, _: Time) -> Result<(), StoreError> {
        Ok(())
    }

    async fn settle(&self, _: SystemScope, _: &WorkspaceRequest, _: Time) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete_settled(&self, _: SystemScope, _: Time) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn list(&self, _: SystemScope, _: &Email, _: usize) -> Result<Vec<Workspace>, StoreError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Mailer for Fake {
    async fn send(&self, _: &Mail) -> Result<Accepted, MailError> {
        Err(MailError::Unavailable("there is none".into()))
    }
}

impl Clock for Fake {
    fn now(&self) -> Time {
        Time::default()
    }
}

impl IdSource for Fake {
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(1000 + u128::from(self.ids.fetch_add(1, Ordering::Relaxed)))
    }
}
