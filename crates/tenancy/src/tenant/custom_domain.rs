//! Custom domains: a tenant claims a host name, proves by a TXT record that it controls the name, and is reached under it.
//!
//! A claim reserves nothing and tells no other tenant anything: the tenant that proves the name holds it. That another tenant holds a name
//! is told only to a tenant that has just proven that it controls the name as well.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{StreamExt as _, stream};
use tenantry_domain::billing::{DomainNotice, Notice};
use tenantry_domain::kernel::{Constraint, DomainId, Page, PageRequest, Permission, StoreError};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{
    CheckResult, CustomDomain, Dns, DomainCheck, DomainName, DomainState, DomainStep, ReleaseReason,
    check_domain,
};

use crate::kernel::step_up::lock_tenant;
use crate::operations::job::{self, JobFailure, JobHandler, Nothing};
use crate::operations::mail::{SendMail, tell_admins};
use crate::plans::{Countable, Feature};
use crate::tenant::domain_checks::DomainChecks;
use crate::{Changed, Cx, OwnReason, Precondition, UseCaseError, audited};

audited!(CustomDomain, "domain");

/// How many domains of a tenant the system checks at once.
const CHECKED_AT_ONCE: usize = 4;

/// Errors of the use cases of custom domains.
pub type DomainError = UseCaseError<DomainReason>;

/// Why a domain is not claimed or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainReason {
    /// The operator has not set up custom domains.
    #[error("this server has no custom domains")]
    NotSetUp,
    /// The tenant has claimed it already.
    #[error("the tenant has the domain already")]
    Claimed,
    /// The tenant has [`CustomDomain::MOST`] domains.
    #[error("the tenant has {} domains, which is the maximum", CustomDomain::MOST)]
    TooMany,
    /// Another tenant holds it. Only a caller who has proven the domain learns this.
    #[error("another tenant holds the domain")]
    Held,
    /// It was released: it is claimed anew.
    #[error("the domain was released")]
    Released,
    /// It was checked just now: try again after so many seconds.
    #[error("the domain was checked just now, try again in {0} seconds")]
    TooSoon(i64),
    /// The tenant has asked for too many checks: try again after so many seconds.
    #[error("the tenant has asked for too many checks, try again in {0} seconds")]
    TooManyChecks(i64),
}

impl OwnReason for DomainReason {
    fn of_store(error: StoreError) -> DomainError {
        match error {
            StoreError::Unique(Constraint::DomainClaimed) => Self::Claimed.into(),
            StoreError::Unique(Constraint::DomainHeld) => Self::Held.into(),
            other => UseCaseError::Store(other),
        }
    }
}

/// A page of the tenant's domains, newest first.
///
/// # Errors
/// [`DomainError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<CustomDomain>, DomainError> {
    cx.require(Permission::ReadDomains)?;
    cx.read(async |work| Ok(work.custom_domains().list(page).await?))
        .await
}

/// Returns one domain.
///
/// # Errors
/// [`DomainError`].
pub async fn get(cx: &Cx, id: DomainId) -> Result<CustomDomain, DomainError> {
    cx.require(Permission::ReadDomains)?;
    cx.read(async |work| {
        let found = work.custom_domains().find(id).await?;
        found.ok_or(DomainError::NotFound)
    })
    .await
}

/// Claims a domain. A domain that was released is claimed anew, with another token.
///
/// # Errors
/// [`DomainError`].
pub async fn claim(cx: &Cx, domain: &str) -> Result<CustomDomain, DomainError> {
    cx.require(Permission::ManageDomains)?;
    set_up(cx)?;
    cx.require_feature(Feature::CUSTOM_DOMAIN)?;
    let name = DomainName::claimed(domain, &cx.app().policy.domains.reserved)?;
    let token = URL_SAFE_NO_PAD.encode(cx.ports().secrets.secret());
    let claim = CustomDomain::new(DomainId::next(cx.ids()), name, token, cx.now());
    cx.write(async |work| {
        lock_tenant(work).await?;
        replace_released(work, &claim.domain).await?;
        if work.custom_domains().count().await? >= CustomDomain::MOST {
            return Err(DomainReason::TooMany.into());
        }
        let entitlements = &cx.ports().entitlements;
        entitlements
            .require_one_more(cx, work, Countable::Domains)
            .await?;
        work.custom_domains().insert(&claim).await?;
        cx.record(work, Changed::created(&claim)).await?;
        Ok(claim)
    })
    .await
}

/// Checks a domain now: looks for its TXT record, and for where it leads to.
///
/// # Errors
/// [`DomainReason::TooSoon`], [`DomainReason::TooManyChecks`], [`DomainReason::Held`]; [`DomainError`].
pub async fn verify(cx: &Cx, id: DomainId) -> Result<CustomDomain, DomainError> {
    cx.require(Permission::ManageDomains)?;
    let (dns, edge) = set_up(cx)?;
    cx.require_feature(Feature::CUSTOM_DOMAIN)?;
    let domain = cx
        .write(async |work| {
            let domain = find_for_update(work, id).await?;
            if domain.state == DomainState::Released {
                return Err(DomainReason::Released.into());
            }
            let wait = domain.seconds_until_check(cx.now());
            if wait > 0 {
                return Err(DomainReason::TooSoon(wait).into());
            }
            let checks = cx.app().state::<DomainChecks>();
            let counted = checks.count(cx.scope().tenant(), cx.now());
            counted.map_err(DomainReason::TooManyChecks)?;
            work.custom_domains().note_check(id, cx.now(), None).await?;
            Ok::<_, DomainError>(domain)
        })
        .await?;
    // Without a transaction: name servers may take seconds.
    let check = check_domain(dns.as_ref(), &domain, edge).await;
    let settled = settle(cx, &domain, check).await;
    if let Err(DomainError::Own(DomainReason::Held)) = &settled {
        // The state stays; that the record was found is true all the same.
        cx.write(async |work| {
            let domains = work.custom_domains();
            domains.note_check(id, cx.now(), Some(check.result)).await
        })
        .await?;
    }
    settled
}

/// Deletes a domain: from now on it leads to no tenant here, and within a second on every other server.
///
/// # Errors
/// [`DomainError`].
pub async fn delete(cx: &Cx, id: DomainId, when: &Precondition) -> Result<(), DomainError> {
    cx.require(Permission::ManageDomains)?;
    cx.write(async |work| {
        let domain = find_for_update(work, id).await?;
        when.check(domain.version)?;
        work.custom_domains().delete(id).await?;
        Ok(cx.record(work, Changed::deleted(&domain)).await?)
    })
    .await
}

/// Stores what a check of a domain has found, with the audit entry, and the mails where the proof is gone. A domain that was claimed anew
/// meanwhile has another token, so the check was not about it.
async fn settle(cx: &Cx, checked: &CustomDomain, check: DomainCheck) -> Result<CustomDomain, DomainError> {
    cx.write(async |work| {
        let before = find_for_update(work, checked.id).await?;
        let mut domain = before.clone();
        let step = domain.apply(check, cx.now());
        work.custom_domains().update(&domain).await?;
        let action = match step {
            DomainStep::Unchanged => return Ok(domain),
            DomainStep::Verified => "domain.verified",
            DomainStep::Activated => "domain.activated",
            DomainStep::Failing => "domain.failing",
            DomainStep::Recovered => "domain.recovered",
            DomainStep::Released => "domain.released",
        };
        cx.record(work, Changed::with(action, Some(&before), &domain))
            .await?;
        if let Some(notice) = notice(&domain, step) {
            let told = tell_admins::<SendMail>(cx, work, &Notice::Domain(notice)).await;
            told.map_err(job::store_error)?;
        }
        Ok(domain)
    })
    .await
}

/// What admins are notified of: that the proof is gone, and that the domain is lost by that.
fn notice(domain: &CustomDomain, step: DomainStep) -> Option<DomainNotice> {
    let release_at = match (step, domain.release_reason) {
        (DomainStep::Failing, _) => domain.failing_since.map(|since| since + CustomDomain::GRACE),
        (DomainStep::Released, Some(ReleaseReason::ProofGone)) => None,
        _ => return None,
    };
    Some(DomainNotice {
        domain: domain.domain.to_string(),
        record: domain.txt_name(),
        value: domain.txt_value(),
        release_at,
    })
}

/// Sees to it that the domains of a tenant are checked daily: puts [`CheckDomains`] into the queue where one is due. Name servers of one
/// tenant that do not answer keep no other tenant waiting.
#[derive(Debug, Clone, Copy)]
pub struct KeepDomains;

impl JobHandler for KeepDomains {
    const KIND: &'static str = "domain.keep";
    // A suspended tenant is reached under its domains too.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::KeepDomains)?;
        let now = cx.now();
        let until = now - CustomDomain::LISTED;
        let old = cx.read(async |work| work.custom_domains().released_until(until).await);
        for id in old.await? {
            cx.write(async |work| work.custom_domains().delete(id).await)
                .await?;
        }
        let domains = cx.read(async |work| work.custom_domains().live().await).await?;
        if domains.iter().any(|domain| domain.is_due(now)) {
            job::enqueue_in::<CheckDomains>(cx, &Nothing {}).await?;
        }
        Ok(())
    }
}

/// Checks the domains of a tenant that are due, and releases those whose time is over.
#[derive(Debug, Clone, Copy)]
pub struct CheckDomains;

impl JobHandler for CheckDomains {
    const KIND: &'static str = "domain.check";
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::KeepDomains)?;
        let Ok((dns, edge)) = set_up(cx) else {
            return Ok(());
        };
        let domains = cx.read(async |work| work.custom_domains().live().await).await?;
        let due = domains.into_iter().filter(|domain| domain.is_due(cx.now()));
        let checked = stream::iter(due).map(|domain| check(cx, domain, dns, edge));
        let outcomes: Vec<_> = checked.buffer_unordered(CHECKED_AT_ONCE).collect().await;
        outcomes.into_iter().try_for_each(|outcome| match outcome {
            // Deleted meanwhile, or another tenant was first: nothing is to be done again.
            Ok(_) | Err(DomainError::NotFound | DomainError::Own(_)) => Ok(()),
            Err(DomainError::Store(error)) => Err(error.into()),
            Err(other) => Err(JobFailure::Retry(other.to_string())),
        })
    }
}

/// Checks a domain for the system. A claim whose time is over is not asked about.
async fn check(
    cx: &Cx,
    domain: CustomDomain,
    dns: &Arc<dyn Dns>,
    edge: &str,
) -> Result<CustomDomain, DomainError> {
    let is_over = domain.state == DomainState::Pending && cx.now() >= domain.claimed_until;
    let found = if is_over {
        OVER
    } else {
        check_domain(dns.as_ref(), &domain, edge).await
    };
    settle(cx, &domain, found).await
}

/// What is found of a claim whose time is over, without asking DNS.
const OVER: DomainCheck = DomainCheck {
    result: CheckResult::NotFound,
    routed: false,
};

/// DNS and the name that domains must lead to, where the operator has set up custom domains.
fn set_up(cx: &Cx) -> Result<(&Arc<dyn Dns>, &str), DomainReason> {
    let edge = cx.app().policy.domains.edge.as_deref();
    let dns = cx.ports().dns.as_ref();
    dns.zip(edge).ok_or(DomainReason::NotSetUp)
}

/// Makes room for a new claim of a domain that was released, or whose claim was never proven in time.
async fn replace_released(work: &mut Work, name: &DomainName) -> Result<(), StoreError> {
    match work.custom_domains().find_by_name(name).await? {
        Some(former) if former.state == DomainState::Released => {
            work.custom_domains().delete(former.id).await
        }
        Some(_) | None => Ok(()),
    }
}

async fn find_for_update(work: &mut Work, id: DomainId) -> Result<CustomDomain, DomainError> {
    let found = work.custom_domains().find_for_update(id).await?;
    found.ok_or(DomainError::NotFound)
}
