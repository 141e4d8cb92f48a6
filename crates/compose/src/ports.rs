use std::sync::Arc;

use tenantry_billing::billing::billing_provision::PaidSubscriptions;
use tenantry_billing::plans::entitlement::PlanEntitlements;
use tenantry_billing::usage::quota_recovery::LeaseRecovery;
use tenantry_billing::usage::usage_rollup::LedgerRecorder;
use tenantry_domain::kernel::InvalidationPublisher;
use tenantry_domain::operations::OperatorGate;
use tenantry_domain::store::Units;
use tenantry_domain::tenant::Gate;
use tenantry_mail::{CompiledTemplates, LogMailer};
use tenantry_persistence::{
    PgCustomers, PgDueLanes, PgFlags, PgOperatorOutbox, PgOperators, PgProviderEvents, PgPublishedEvents,
    PgQuotaUpkeep, PgRegistry, PgSentMails, PgSigningKeys, PgTenantArchive, PgTenantRows, PgUnits,
    PgUnpublishedEvents, PgUnsentAudit, PgUsageUpkeep, PgWorkspaces,
};
use tenantry_system::{
    AccessTokensError, AeadSeal, CachedAccessTokens, FileSpool, HmacInvitationTokens, HmacLinkTokens,
    HmacOneTimeCodes, HmacRefreshTokens, HmacUnsubscribeTokens, JwtAccessTokens, JwtOperatorTokens,
    JwtPortalTokens, JwtSupportTokens, LocalCaches, SigningKey, SigningKeyRing, SystemResolver,
    SystemSecrets,
};
use tenantry_tenancy::{NoTraces, Policy, Ports, Tenancy};
use tenantry_webhooks::StandardKeys;

use crate::{Base, Caches, ComposeError};

/// The use cases of one process, whose changes invalidate the caches of this process only.
///
/// # Errors
/// [`ComposeError::Tokens`] and [`ComposeError::Flags`].
pub fn application(base: &Base, policy: Policy) -> Result<Arc<Tenancy>, ComposeError> {
    let caches = Caches::new(base)?;
    let publisher = Arc::new(LocalCaches::new(caches.invalidated()));
    Ok(Arc::new(Tenancy::new(ports(base, &caches, publisher)?, policy)))
}

/// A port for everything the use cases need. The publisher gets each change that the process commits, and invalidates at
/// least the caches. Unless they are replaced, the ports write mail to the log, keep calls in memory and no archives, send no webhooks, and
/// have neither a payment provider nor challenges.
///
/// # Errors
/// [`ComposeError::Tokens`].
pub fn ports(
    base: &Base,
    caches: &Caches,
    publisher: Arc<dyn InvalidationPublisher>,
) -> Result<Ports, ComposeError> {
    let (runtime, platform) = (&base.runtime, &base.platform);
    let tokens = Tokens::new(base)?;
    let derived = Derived::of(&base.keys);
    let operators = Arc::new(PgOperators::new(platform.clone(), Arc::clone(&publisher)));
    Ok(Ports {
        units: units(base, publisher),
        gate: gate(base, caches, &tokens),
        registry: Arc::new(PgRegistry::new(platform.clone())),
        tenant_rows: Arc::new(PgTenantRows::new(runtime.clone(), platform.clone())),
        tenant_archive: Arc::new(PgTenantArchive::new(runtime, platform.clone())?),
        archive_store: None,
        operators: operators.clone(),
        operator_gate: OperatorGate::new(operators, tokens.operator.clone()),
        operator_tokens: tokens.operator,
        support_tokens: tokens.support,
        portal_tokens: tokens.portal,
        flags: caches.flags.clone(),
        flag_definitions: Arc::new(PgFlags::new(platform.clone())),
        permissions: Arc::clone(&base.permissions),
        event_types: Arc::clone(&base.event_types),
        unpublished_events: Arc::new(PgUnpublishedEvents::new(platform.clone())),
        published_events: Arc::new(PgPublishedEvents::new(platform.clone())),
        event_export: None,
        due_lanes: Arc::new(PgDueLanes::new(platform.clone())),
        passkeys: None,
        passwords: Arc::clone(&base.passwords),
        key_ring: tokens.ring,
        signing_keys: Arc::new(PgSigningKeys::new(platform.clone())),
        access_tokens: tokens.access,
        refresh_tokens: Arc::new(derived.refresh_tokens),
        invitation_tokens: Arc::new(derived.invitation_tokens),
        one_time_codes: Arc::new(HmacOneTimeCodes),
        link_tokens: Arc::new(derived.link_tokens),
        unsubscribe_tokens: Arc::new(derived.unsubscribe_tokens),
        secrets: Arc::new(SystemSecrets),
        seal: Arc::new(derived.seal),
        tenant_seals: caches.seals.clone(),
        traces: Arc::new(NoTraces),
        calls: Arc::new(FileSpool::new(None, base.ids.uuid().to_string())),
        usage_upkeep: Arc::new(PgUsageUpkeep::new(platform.clone())),
        quota_upkeep: Arc::new(PgQuotaUpkeep::new(platform.clone())),
        usage_recorder: Arc::new(LedgerRecorder),
        quota_recovery: Arc::new(LeaseRecovery),
        plans: Arc::clone(&base.plans),
        entitlements: Arc::new(PlanEntitlements),
        subscriptions: Arc::new(PaidSubscriptions),
        payments: None,
        customers: Arc::new(PgCustomers::new(platform.clone())),
        provider_events: Arc::new(PgProviderEvents::new(platform.clone())),
        sent_mails: Arc::new(PgSentMails::new(platform.clone())),
        workspaces: Arc::new(PgWorkspaces::new(platform.clone())),
        mail_templates: Arc::new(CompiledTemplates::new()),
        mailer: Arc::new(LogMailer::new(false)),
        breached_passwords: None,
        challenges: None,
        settings: Arc::clone(&base.settings),
        configurations: caches.configurations.clone(),
        resolver: Arc::new(SystemResolver::default()),
        audit_receiver: None,
        unsent_audit: Arc::new(PgUnsentAudit::new(platform.clone())),
        operator_outbox: Arc::new(PgOperatorOutbox::new(platform.clone())),
        dns: None,
        webhook_keys: Arc::new(StandardKeys),
        webhook_sender: None,
        clock: Arc::clone(&base.clock),
        ids: Arc::clone(&base.ids),
    })
}

fn units(base: &Base, publisher: Arc<dyn InvalidationPublisher>) -> Units {
    let clock = Arc::clone(&base.clock);
    Units::new(Arc::new(PgUnits::new(base.runtime.clone(), publisher, clock)))
}

fn gate(base: &Base, caches: &Caches, tokens: &Tokens) -> Gate {
    let verified =
        CachedAccessTokens::new(tokens.access.clone(), Arc::clone(&base.clock), base.cache.entries);
    Gate::new(
        caches.directory.clone(),
        Arc::new(verified),
        tokens.support.clone(),
        tokens.portal.clone(),
        Arc::clone(&base.ids),
    )
}

/// The keys of tokens, and what signs and verifies with them.
struct Tokens {
    ring: Arc<SigningKeyRing>,
    access: Arc<JwtAccessTokens>,
    operator: Arc<JwtOperatorTokens>,
    support: Arc<JwtSupportTokens>,
    portal: Arc<JwtPortalTokens>,
}

impl Tokens {
    fn new(base: &Base) -> Result<Self, AccessTokensError> {
        let ring = Arc::new(SigningKeyRing::new(base.keys.clone(), Arc::clone(&base.clock))?);
        let operator = JwtOperatorTokens::new(
            Arc::clone(&ring),
            base.issuer.clone(),
            &base.audience,
            Arc::clone(&base.clock),
            Arc::clone(&base.ids),
        )?;
        let support = JwtSupportTokens::new(
            Arc::clone(&ring),
            base.issuer.clone(),
            &base.audience,
            Arc::clone(&base.clock),
            Arc::clone(&base.ids),
        )?;
        let portal = JwtPortalTokens::new(
            Arc::clone(&ring),
            base.issuer.clone(),
            &base.audience,
            Arc::clone(&base.clock),
            Arc::clone(&base.ids),
        )?;
        let access = JwtAccessTokens::new(
            Arc::clone(&ring),
            base.issuer.clone(),
            base.audience.clone(),
            base.access_token_seconds,
            Arc::clone(&base.clock),
            Arc::clone(&base.ids),
        )?;
        Ok(Self {
            ring,
            access: Arc::new(access),
            operator: Arc::new(operator),
            support: Arc::new(support),
            portal: Arc::new(portal),
        })
    }
}

/// What has secrets that derive from the signing keys.
struct Derived {
    refresh_tokens: HmacRefreshTokens,
    link_tokens: HmacLinkTokens,
    unsubscribe_tokens: HmacUnsubscribeTokens,
    invitation_tokens: HmacInvitationTokens,
    seal: AeadSeal,
}

impl Derived {
    /// Of signing keys, of which there is one at least, the present one first. The secrets that derive from the earlier ones
    /// still open what they sealed.
    fn of(keys: &[SigningKey]) -> Self {
        let present = &keys[0];
        let mut refresh_tokens = HmacRefreshTokens::new(&present.derive_secret("refresh tokens"));
        let mut invitation_tokens = HmacInvitationTokens::new(&present.derive_secret("invitation tokens"));
        let mut link_tokens = HmacLinkTokens::new(&present.derive_secret("link tokens"));
        let mut unsubscribe_tokens = HmacUnsubscribeTokens::new(&present.derive_secret("unsubscribe tokens"));
        let mut seal = AeadSeal::new(&present.derive_secret("seal"));
        for earlier in &keys[1..] {
            refresh_tokens = refresh_tokens.reading(&earlier.derive_secret("refresh tokens"));
            invitation_tokens = invitation_tokens.reading(&earlier.derive_secret("invitation tokens"));
            link_tokens = link_tokens.reading(&earlier.derive_secret("link tokens"));
            unsubscribe_tokens = unsubscribe_tokens.reading(&earlier.derive_secret("unsubscribe tokens"));
            seal = seal.opening(&earlier.derive_secret("seal"));
        }
        Self {
            refresh_tokens,
            link_tokens,
            unsubscribe_tokens,
            invitation_tokens,
            seal,
        }
    }
}
