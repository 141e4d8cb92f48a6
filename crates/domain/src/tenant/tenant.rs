use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::data_key::DataKey;
use super::status::{RowWork, StatusChange, TenantStatus};
use crate::kernel::{
    Check, Invalid, Patch, StoreError, TenantId, Time, check_text, is_language_tag, is_time_zone,
};
use crate::plans::{Agreed, PlanTerms, Subscription};

/// A name for URLs: `^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$`, so 3 to 63 characters, a DNS label (RFC 1035).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Slug(String);

/// Names that are, or may become, hosts and paths of the product itself.
const RESERVED: [&str; 40] = [
    "about",
    "account",
    "admin",
    "api",
    "app",
    "assets",
    "auth",
    "billing",
    "blog",
    "cdn",
    "console",
    "dashboard",
    "dev",
    "docs",
    "ftp",
    "health",
    "help",
    "internal",
    "localhost",
    "login",
    "mail",
    "metrics",
    "ns1",
    "ns2",
    "ofrep",
    "oauth",
    "operator",
    "public",
    "root",
    "scim",
    "signup",
    "smtp",
    "sso",
    "static",
    "status",
    "support",
    "system",
    "tenantry",
    "webhooks",
    "www",
];

impl Slug {
    /// A slug of the right form; reserved names included, because they can be asked for.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let holds = (3..=63).contains(&bytes.len())
            && bytes.iter().all(inner)
            && edge(bytes.first())
            && edge(bytes.last());
        holds.then(|| Self(text.to_owned()))
    }

    /// A slug that a tenant may take.
    ///
    /// # Errors
    /// At `pointer`: `invalid_slug` or `reserved`.
    pub fn chosen(text: &str, pointer: &str) -> Result<Self, Invalid> {
        let slug = Self::parse(text).ok_or_else(|| {
            let detail = "must be 3 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'";
            Invalid::one(pointer, "invalid_slug", detail)
        })?;
        if slug.is_encoded() {
            let detail =
                "must not have '--' as its third and fourth character: such names stand for others in DNS";
            return Err(Invalid::one(pointer, "invalid_slug", detail));
        }
        if slug.is_reserved() {
            return Err(Invalid::one(
                pointer,
                "reserved",
                format!("'{text}' is reserved, choose another"),
            ));
        }
        Ok(slug)
    }

    /// Whether DNS reads it as another name: labels with hyphens in the third and fourth place are reserved for
    /// encodings (RFC 5891, section 4.2.3.1), of which `xn--` (punycode) is in use.
    pub fn is_encoded(&self) -> bool {
        self.0.as_bytes().get(2..4) == Some(b"--")
    }

    /// Whether the product keeps the name for its own hosts and paths.
    pub fn is_reserved(&self) -> bool {
        RESERVED.contains(&self.as_str())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The settings of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether anybody may register as a member.
    pub self_registration: bool,
    /// IANA time zone for presentation; sums and periods are always UTC.
    pub timezone: String,
    /// BCP 47 language tag for presentation.
    pub locale: String,
}

impl Settings {
    fn check(&self, check: &mut Check) {
        let (zone, locale) = (&self.timezone, &self.locale);
        match check_text(zone, 1..=64, false) {
            Err(detail) => check.fail("/settings/timezone", "invalid_text", detail),
            Ok(()) => check.require(
                is_time_zone(zone),
                "/settings/timezone",
                "invalid_timezone",
                "must be the name of a time zone of the IANA database, for example Europe/Berlin",
            ),
        }
        match check_text(locale, 2..=35, false) {
            Err(detail) => check.fail("/settings/locale", "invalid_text", detail),
            Ok(()) => check.require(
                is_language_tag(locale),
                "/settings/locale",
                "invalid_locale",
                "must be a language tag of BCP 47, for example de-CH",
            ),
        }
    }
}

/// A customer: the owner of everything that has a `tenant_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tenant {
    /// The `tenant_id` of every row of the tenant.
    pub id: TenantId,
    /// What people call it; 1 to 120 characters.
    pub name: String,
    /// Its name in URLs, unique, for good.
    pub slug: Slug,
    /// Its label below the base domain, unique.
    pub subdomain: Option<Slug>,
    /// Key of the present plan.
    pub plan: String,
    /// The version of that plan that it bought.
    pub plan_version: u32,
    /// What was agreed beside the plan.
    pub agreed: Agreed,
    /// Where it is in its life.
    pub status: TenantStatus,
    /// Whether it is suspended because something is owed: then paying lifts that. What an operator suspends stays so.
    pub suspended_for_payment: bool,
    /// Settings that are stored with the tenant: registration, locale and time zone.
    pub settings: Settings,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Since when it is suspended. It stays while the tenant is deleted, for the time when it is restored.
    pub suspended_at: Option<Time>,
    /// When it was deleted, if it was. Rows that are marked by the deletion have this time as their `deleted_at`.
    pub deleted_at: Option<Time>,
    /// When a deleted tenant is purged.
    pub purge_at: Option<Time>,
    /// Who changed its state last, and why.
    pub status_change: Option<StatusChange>,
    /// What is still to be done to its rows.
    #[serde(skip)]
    pub row_work: Option<RowWork>,
    /// How many rows of each table that was done to.
    #[serde(skip)]
    pub row_counts: BTreeMap<String, u64>,
    /// Counts its changes, from 1.
    pub version: i64,
}

/// Which tenants an operator looks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantFilter {
    /// Only those in this state.
    pub status: Option<TenantStatus>,
    /// Only those on this plan.
    pub plan: Option<String>,
    /// Only those whose name or slug contains this text, whatever the case.
    pub q: Option<String>,
}

/// What a sign-up says of the tenant.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// See [`Tenant::name`].
    pub name: String,
    /// See [`Tenant::slug`].
    pub slug: String,
    /// See [`Tenant::subdomain`]; the slug when absent.
    pub subdomain: Option<String>,
    /// See [`Tenant::plan`]; the catalogue's default when absent.
    pub plan: Option<String>,
}

/// What an admin may change of their tenant.
#[derive(Debug, Clone, Default)]
pub struct TenantPatch {
    /// See [`Tenant::name`].
    pub name: Patch<String>,
    /// See [`Tenant::subdomain`]; may be cleared.
    pub subdomain: Patch<String>,
    /// See [`Settings::self_registration`].
    pub self_registration: Patch<bool>,
    /// See [`Settings::timezone`].
    pub timezone: Patch<String>,
    /// See [`Settings::locale`].
    pub locale: Patch<String>,
}

impl Tenant {
    /// A tenant as signed up.
    ///
    /// # Errors
    /// Every field that does not hold. The plan and its version are the catalogue's to judge.
    pub fn new(
        id: TenantId,
        data: NewTenant,
        (plan, plan_version): (String, u32),
        settings: Settings,
        now: Time,
    ) -> Result<Self, Invalid> {
        let mut check = Check::new();
        let name = data.name.trim().to_owned();
        check.line("/name", &name, 1..=120);
        let slug = check.take(Slug::chosen(&data.slug, "/slug"));
        let subdomain = match &data.subdomain {
            Some(text) => check.take(Slug::chosen(text, "/subdomain")),
            None => slug.clone(),
        };
        check.verdict()?;
        let slug = slug.ok_or_else(|| Invalid(Vec::new()))?;
        Ok(Self {
            id,
            name,
            slug,
            subdomain,
            plan,
            plan_version,
            agreed: Agreed::default(),
            status: TenantStatus::Active,
            suspended_for_payment: false,
            settings,
            created_at: now,
            updated_at: now,
            suspended_at: None,
            deleted_at: None,
            purge_at: None,
            status_change: None,
            row_work: None,
            row_counts: BTreeMap::new(),
            version: 1,
        })
    }

    /// Applies a change, all of it or nothing.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn apply(&mut self, patch: TenantPatch, now: Time) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut next = self.clone();
        check.not_null("/name", &patch.name);
        check.not_null("/settings/self_registration", &patch.self_registration);
        check.not_null("/settings/timezone", &patch.timezone);
        check.not_null("/settings/locale", &patch.locale);
        patch
            .name
            .map(|name| name.trim().to_owned())
            .apply_required(&mut next.name);
        check.line("/name", &next.name, 1..=120);
        match patch.subdomain {
            Patch::Keep => {}
            Patch::Clear => next.subdomain = None,
            Patch::Set(text) => next.subdomain = check.take(Slug::chosen(&text, "/subdomain")),
        }
        patch
            .self_registration
            .apply_required(&mut next.settings.self_registration);
        patch.timezone.apply_required(&mut next.settings.timezone);
        patch.locale.apply_required(&mut next.settings.locale);
        next.settings.check(&mut check);
        check.verdict()?;
        next.touch(now);
        *self = next;
        Ok(())
    }

    /// Puts the tenant on these terms; whether that is a change.
    pub fn subscribe(&mut self, terms: &PlanTerms, now: Time) -> bool {
        self.subscribe_to(&terms.name, terms.version, now)
    }

    /// Puts the tenant on this version of a plan, whose terms need not be known here yet; whether that is a change.
    pub fn subscribe_to(&mut self, plan: &str, version: u32, now: Time) -> bool {
        if self.plan == plan && self.plan_version == version {
            return false;
        }
        plan.clone_into(&mut self.plan);
        self.plan_version = version;
        self.touch(now);
        true
    }

    /// Agrees on something beside the plan; whether that is a change.
    pub fn agree(&mut self, agreed: Agreed, now: Time) -> bool {
        let changes = self.agreed != agreed;
        if changes {
            self.agreed = agreed;
            self.touch(now);
        }
        changes
    }

    /// Its plan, and what was agreed beside it.
    pub fn subscription(&self) -> Subscription {
        Subscription {
            plan: self.plan.clone(),
            version: self.plan_version,
            agreed: self.agreed.clone(),
        }
    }

    pub(super) fn touch(&mut self, now: Time) {
        self.updated_at = now;
        self.version += 1;
    }
}

/// The scope's own tenant: the only row of `tenants` it can see.
#[async_trait]
pub trait Tenants: Send {
    /// The tenant.
    async fn current(&mut self) -> Result<Option<Tenant>, StoreError>;
    /// The tenant, locked until the transaction ends: serialises rules over all of its users.
    async fn current_for_update(&mut self) -> Result<Option<Tenant>, StoreError>;
    /// Adds the tenant that the scope was founded for, with its first data key: no tenant is without one.
    async fn insert(&mut self, tenant: &Tenant, first_key: &DataKey) -> Result<(), StoreError>;
    /// Stores the tenant's new state.
    async fn update(&mut self, tenant: &Tenant) -> Result<(), StoreError>;
}
