//! Domains under which a tenant is reached, proven by DNS.

use std::net::IpAddr;

use async_trait::async_trait;
use chrono::Duration;
use serde::Serialize;

use crate::kernel::name::named_enum;
use crate::kernel::{DomainId, Page, PageRequest, StoreError, Time};
use crate::tenant::DomainName;

named_enum! {
    /// The state of a custom domain.
    pub enum DomainState {
        /// Claimed; the tenant has not proven yet that it controls the domain.
        Pending = "pending",
        /// Proven, and held by the tenant among all tenants; DNS does not lead here yet.
        Verified = "verified",
        /// Proven and served.
        Active = "active",
        /// The proof is gone since a while; held, and served when it was before.
        Failing = "failing",
        /// Given up by the system: the claim has expired, or the proof was gone for too long. It stays so.
        Released = "released",
    }
}

impl DomainState {
    /// Whether the tenant holds the domain, so that no other tenant can.
    pub const fn holds(self) -> bool {
        match self {
            Self::Verified | Self::Active | Self::Failing => true,
            Self::Pending | Self::Released => false,
        }
    }
}

named_enum! {
    /// Why a domain was released by the system.
    pub enum ReleaseReason {
        /// The claim was not proven in time.
        ClaimExpired = "claim_expired",
        /// The proof was gone for [`CustomDomain::GRACE`].
        ProofGone = "proof_gone",
    }
}

named_enum! {
    /// What a check of the TXT record found.
    pub enum CheckResult {
        /// The record has the token.
        Proven = "proven",
        /// There is no such record, or no such name.
        NotFound = "not_found",
        /// There are records, and none has the token.
        OtherValue = "other_value",
        /// There are more records than are looked at, and none of those has the token.
        TooMany = "too_many_records",
        /// The name servers failed or refused to answer.
        Failed = "servers_failed",
        /// No answer came in time.
        Timeout = "timeout",
    }
}

impl CheckResult {
    /// Whether the proof is certainly not there. What failed on the way says nothing about it.
    const fn disproves(self) -> bool {
        match self {
            Self::NotFound | Self::OtherValue => true,
            Self::Proven | Self::TooMany | Self::Failed | Self::Timeout => false,
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainCheck {
    /// Of the TXT record.
    pub result: CheckResult,
    /// Whether the domain leads to the edge.
    pub routed: bool,
}

/// A domain of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CustomDomain {
    /// Identifies the domain.
    pub id: DomainId,
    /// The host name.
    pub domain: DomainName,
    /// How far the proof is.
    pub state: DomainState,
    /// What the TXT record must have, beside [`CustomDomain::PREFIX`]. The audit log does not need it.
    #[serde(skip)]
    pub token: String,
    /// Until when a pending claim can be proven.
    pub claimed_until: Time,
    /// When it was proven first.
    pub verified_at: Option<Time>,
    /// When DNS led here first.
    pub activated_at: Option<Time>,
    /// Since when the proof is gone.
    pub failing_since: Option<Time>,
    /// When the system released it.
    pub released_at: Option<Time>,
    /// Why it did.
    pub release_reason: Option<ReleaseReason>,
    /// When it was last checked.
    #[serde(skip)]
    pub checked_at: Option<Time>,
    /// What that found.
    #[serde(skip)]
    pub check_result: Option<CheckResult>,
    /// When it was claimed.
    pub created_at: Time,
    /// When it was last changed.
    #[serde(skip)]
    pub updated_at: Time,
    /// Counts the changes, from 1.
    #[serde(skip)]
    pub version: i64,
}

/// What a check has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainStep {
    /// The state is the same.
    Unchanged,
    /// It was proven.
    Verified,
    /// It is served from now on.
    Activated,
    /// The proof is gone.
    Failing,
    /// The proof is back.
    Recovered,
    /// It was given up.
    Released,
}

impl CustomDomain {
    /// The most domains of a tenant, whatever its plan says; released ones do not count.
    pub const MOST: u64 = 100;
    /// So long a claim can be proven: longer than a former holder keeps the domain without its proof, so that whoever takes a name over
    /// can claim it at once and prove the same claim when the name is free.
    pub const CLAIM: Duration = Duration::days(14);
    /// So long a domain is held without its proof.
    pub const GRACE: Duration = Duration::days(7);
    /// So long a released domain is listed.
    pub const LISTED: Duration = Duration::days(30);
    /// The shortest time between two checks that a tenant asks for.
    pub const PAUSE: Duration = Duration::seconds(10);
    /// The system checks a domain again after so long.
    pub const RECHECK: Duration = Duration::hours(12);
    /// The label before the domain that has the TXT record; the domain itself may be a CNAME then.
    pub const LABEL: &'static str = "_tenantry-verify";
    /// What the TXT record begins with.
    pub const PREFIX: &'static str = "tenant-verification=";

    /// A claim.
    pub fn new(id: DomainId, domain: DomainName, token: String, now: Time) -> Self {
        Self {
            id,
            domain,
            state: DomainState::Pending,
            token,
            claimed_until: now + Self::CLAIM,
            verified_at: None,
            activated_at: None,
            failing_since: None,
            released_at: None,
            release_reason: None,
            checked_at: None,
            check_result: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// The name of the TXT record.
    pub fn txt_name(&self) -> String {
        format!("{}.{}", Self::LABEL, self.domain)
    }

    /// The value of the TXT record.
    pub fn txt_value(&self) -> String {
        format!("{}{}", Self::PREFIX, self.token)
    }

    /// Whether requests for the host lead to the tenant.
    pub const fn serves(&self) -> bool {
        self.state.holds() && self.activated_at.is_some()
    }

    /// In how many seconds the tenant may ask for a check; 0 is now.
    pub fn seconds_until_check(&self, now: Time) -> i64 {
        let ready = self.checked_at.map_or(now, |checked| checked + Self::PAUSE);
        // Rounded up, and never longer than the pause, whatever a clock was set to.
        let wait = ((ready - now).num_milliseconds() + 999) / 1_000;
        wait.clamp(0, Self::PAUSE.num_seconds())
    }

    /// Whether the system should check it.
    pub fn is_due(&self, now: Time) -> bool {
        let last = self.checked_at.unwrap_or(self.created_at);
        self.state != DomainState::Released && now - last >= Self::RECHECK
    }

    /// Takes over what a check has found.
    pub fn apply(&mut self, check: DomainCheck, now: Time) -> DomainStep {
        self.checked_at = Some(now);
        self.check_result = Some(check.result);
        let was = self.state;
        let step = match (was, check.result) {
            (DomainState::Released, _) => DomainStep::Unchanged,
            (DomainState::Pending, _) if now >= self.claimed_until => {
                self.release(ReleaseReason::ClaimExpired, now)
            }
            (_, CheckResult::Proven) => self.prove(check.routed, now),
            (DomainState::Failing, result) if result.disproves() => self.fail_again(now),
            (DomainState::Verified | DomainState::Active, result) if result.disproves() => {
                self.failing_since = Some(now);
                self.state = DomainState::Failing;
                DomainStep::Failing
            }
            (_, _) => DomainStep::Unchanged,
        };
        if step != DomainStep::Unchanged {
            self.updated_at = now;
            self.version += 1;
        }
        step
    }

    /// Once served it is served again: a name that moves for a while need not lead here at the moment of a check.
    fn prove(&mut self, routed: bool, now: Time) -> DomainStep {
        let was = self.state;
        self.verified_at = self.verified_at.or(Some(now));
        self.failing_since = None;
        if routed {
            self.activated_at = self.activated_at.or(Some(now));
        }
        self.state = if self.activated_at.is_some() {
            DomainState::Active
        } else {
            DomainState::Verified
        };
        match (was, self.state) {
            (DomainState::Failing, _) => DomainStep::Recovered,
            (was, is) if was == is => DomainStep::Unchanged,
            (_, DomainState::Active) => DomainStep::Activated,
            (_, _) => DomainStep::Verified,
        }
    }

    fn fail_again(&mut self, now: Time) -> DomainStep {
        let over = self.failing_since.is_none_or(|since| now - since >= Self::GRACE);
        if over {
            self.release(ReleaseReason::ProofGone, now)
        } else {
            DomainStep::Unchanged
        }
    }

    fn release(&mut self, reason: ReleaseReason, now: Time) -> DomainStep {
        self.state = DomainState::Released;
        self.failing_since = None;
        self.released_at = Some(now);
        self.release_reason = Some(reason);
        DomainStep::Released
    }
}

/// Why DNS has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name, or such a record of it, does not exist.
    #[error("no such record")]
    NotFound,
    /// The name servers failed, refused or sent nonsense.
    #[error("the name servers failed")]
    Failed,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
}

/// The values of TXT records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxtRecords {
    /// The values, of which there are at most [`TxtRecords::MOST`]; each is the texts of a record put together.
    pub values: Vec<String>,
    /// Whether there were more.
    pub cut: bool,
}

impl TxtRecords {
    /// How many records of an answer are looked at.
    pub const MOST: usize = 64;
}

/// Where a name leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsRoute {
    /// The names on the way (CNAME), without trailing dots.
    pub names: Vec<String>,
    /// The addresses at its end.
    pub addresses: Vec<IpAddr>,
}

/// The domain name system, as the internet sees it: the files and search domains of this machine do not count.
#[async_trait]
pub trait Dns: Send + Sync {
    /// The TXT records of a name.
    async fn txt(&self, name: &str) -> Result<TxtRecords, DnsError>;

    /// Where a name leads to. A name that does not exist leads nowhere.
    async fn route(&self, name: &str) -> Result<DnsRoute, DnsError>;
}

/// Looks for the proof of a domain, and, when that is there, whether it leads to `edge`: by a CNAME on the way, or because it has an
/// address of the edge, as the apex of a domain does, which cannot be a CNAME.
pub async fn check_domain(dns: &dyn Dns, domain: &CustomDomain, edge: &str) -> DomainCheck {
    let result = match dns.txt(&domain.txt_name()).await {
        Ok(records) => look_for(&domain.txt_value(), &records),
        Err(DnsError::NotFound) => CheckResult::NotFound,
        Err(DnsError::Failed) => CheckResult::Failed,
        Err(DnsError::Timeout) => CheckResult::Timeout,
    };
    let routed = result == CheckResult::Proven && leads_to(dns, domain.domain.as_str(), edge).await;
    DomainCheck { result, routed }
}

fn look_for(value: &str, records: &TxtRecords) -> CheckResult {
    if records.values.iter().any(|found| found.trim() == value) {
        CheckResult::Proven
    } else if records.cut {
        CheckResult::TooMany
    } else if records.values.is_empty() {
        CheckResult::NotFound
    } else {
        CheckResult::OtherValue
    }
}

async fn leads_to(dns: &dyn Dns, name: &str, edge: &str) -> bool {
    let Ok(route) = dns.route(name).await else {
        return false;
    };
    let edge = edge.trim_end_matches('.');
    if route.names.iter().any(|name| name.eq_ignore_ascii_case(edge)) {
        return true;
    }
    if route.addresses.is_empty() {
        return false;
    }
    let of_edge = dns.route(edge).await.unwrap_or_default();
    route
        .addresses
        .iter()
        .any(|address| of_edge.addresses.contains(address))
}

/// The domains of the scope's tenant.
#[async_trait]
pub trait CustomDomains: Send {
    /// One domain.
    async fn find(&mut self, id: DomainId) -> Result<Option<CustomDomain>, StoreError>;

    /// One domain, locked until the end of the transaction.
    async fn find_for_update(&mut self, id: DomainId) -> Result<Option<CustomDomain>, StoreError>;

    /// The domain of that name, in whatever state.
    async fn find_by_name(&mut self, name: &DomainName) -> Result<Option<CustomDomain>, StoreError>;

    /// A page of them, newest first.
    async fn list(&mut self, page: PageRequest) -> Result<Page<CustomDomain>, StoreError>;

    /// All but the released ones, the one whose last check is oldest first; at most [`CustomDomain::MOST`].
    async fn live(&mut self) -> Result<Vec<CustomDomain>, StoreError>;

    /// Those that were released at this time or before; at most [`CustomDomain::MOST`].
    async fn released_until(&mut self, time: Time) -> Result<Vec<DomainId>, StoreError>;

    /// How many there are; released ones do not count.
    async fn count(&mut self) -> Result<u64, StoreError>;

    /// Adds a claim.
    async fn insert(&mut self, domain: &CustomDomain) -> Result<(), StoreError>;

    /// Notes a check of this time, so that the next one waits, and what it found of the record; `None` while it is under way.
    async fn note_check(
        &mut self,
        id: DomainId,
        now: Time,
        result: Option<CheckResult>,
    ) -> Result<(), StoreError>;

    /// Stores a change. A domain that is held by another tenant is [`Constraint::DomainHeld`](crate::kernel::Constraint::DomainHeld).
    async fn update(&mut self, domain: &CustomDomain) -> Result<(), StoreError>;

    /// Gives the domain up: its host is free from the commit on.
    async fn delete(&mut self, id: DomainId) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(hours: i64) -> Time {
        Time::UNIX_EPOCH + Duration::hours(hours)
    }

    fn claim() -> CustomDomain {
        let name = DomainName::parse("app.acme.com").unwrap();
        CustomDomain::new(DomainId::from(Uuid::nil()), name, "t0k3n".into(), at(0))
    }

    const fn found(result: CheckResult, routed: bool) -> DomainCheck {
        DomainCheck { result, routed }
    }

    const GONE: DomainCheck = found(CheckResult::NotFound, false);
    const PROVEN: DomainCheck = found(CheckResult::Proven, false);
    const ROUTED: DomainCheck = found(CheckResult::Proven, true);

    #[test]
    fn a_domain_is_proven_then_served_then_lost_and_won_back() {
        let mut domain = claim();
        assert_eq!(domain.apply(GONE, at(1)), DomainStep::Unchanged);
        assert_eq!(domain.apply(PROVEN, at(2)), DomainStep::Verified);
        assert!(!domain.serves());
        assert_eq!(domain.apply(ROUTED, at(3)), DomainStep::Activated);
        assert!(domain.serves());
        assert_eq!(domain.apply(PROVEN, at(4)), DomainStep::Unchanged);
        assert_eq!(domain.apply(GONE, at(5)), DomainStep::Failing);
        assert!(domain.serves(), "during the grace it is served");
        assert_eq!(domain.apply(PROVEN, at(6)), DomainStep::Recovered);
        assert_eq!(domain.state, DomainState::Active);
        assert_eq!(domain.apply(GONE, at(7)), DomainStep::Failing);
        assert_eq!(domain.apply(GONE, at(7 + 167)), DomainStep::Unchanged);
        assert_eq!(domain.apply(GONE, at(7 + 168)), DomainStep::Released);
        assert_eq!(domain.release_reason, Some(ReleaseReason::ProofGone));
        assert!(!domain.serves());
        assert_eq!(
            domain.apply(ROUTED, at(400)),
            DomainStep::Unchanged,
            "it stays so"
        );
        assert_eq!(domain.state, DomainState::Released);
    }

    #[test]
    fn a_claim_expires_and_can_not_be_proven_afterwards() {
        let mut domain = claim();
        assert_eq!(domain.apply(ROUTED, at(335)), DomainStep::Activated);
        let mut domain = claim();
        assert_eq!(domain.apply(ROUTED, at(336)), DomainStep::Released);
        assert_eq!(domain.release_reason, Some(ReleaseReason::ClaimExpired));
    }

    #[test]
    fn checks_that_a_tenant_asks_for_have_a_pause() {
        let mut domain = claim();
        assert_eq!(domain.seconds_until_check(at(1)), 0);
        domain.checked_at = Some(at(1));
        assert_eq!(domain.seconds_until_check(at(1)), 10);
        assert_eq!(
            domain.seconds_until_check(at(1) + Duration::milliseconds(9_001)),
            1
        );
        assert_eq!(domain.seconds_until_check(at(1) + Duration::seconds(10)), 0);
        assert_eq!(
            domain.seconds_until_check(at(-1_000)),
            10,
            "a clock that was ahead"
        );
    }

    #[test]
    fn the_token_is_found_among_other_records() {
        let value = claim().txt_value();
        let records = |values: &[&str], cut| TxtRecords {
            values: values.iter().map(|&value| value.to_owned()).collect(),
            cut,
        };
        assert_eq!(
            look_for(&value, &records(&["v=spf1 -all", &value], true)),
            CheckResult::Proven
        );
        assert_eq!(
            look_for(&value, &records(&["v=spf1 -all"], false)),
            CheckResult::OtherValue
        );
        assert_eq!(
            look_for(&value, &records(&["v=spf1 -all"], true)),
            CheckResult::TooMany
        );
        assert_eq!(look_for(&value, &records(&[], false)), CheckResult::NotFound);
        let longer = format!("{value}x");
        assert_eq!(
            look_for(&value, &records(&[&longer], false)),
            CheckResult::OtherValue
        );
    }

    fn checks() -> impl Strategy<Value = Vec<(DomainCheck, i64)>> {
        let result = prop::sample::select(CheckResult::ALL.to_vec());
        let check = (result, any::<bool>()).prop_map(|(result, routed)| found(result, routed));
        prop::collection::vec((check, 0..100_i64), 0..40)
    }

    proptest! {
        /// Whatever the checks find: it is served only after it was proven and led here, is released only after the claim or the grace
        /// is over, and then stays so.
        #[test]
        fn states_keep_their_rules(checks in checks()) {
            let (mut domain, mut hour) = (claim(), 0);
            let (mut proven, mut routed) = (false, false);
            for (check, later) in checks {
                hour += later;
                let (was, before) = (domain.state, domain.clone());
                let step = domain.apply(check, at(hour));
                let in_time = was != DomainState::Pending || hour < CustomDomain::CLAIM.num_hours();
                if check.result == CheckResult::Proven && in_time && was != DomainState::Released {
                    proven = true;
                    routed |= check.routed;
                }
                prop_assert!(!domain.serves() || proven && routed);
                prop_assert_eq!(domain.state.holds(), domain.state.holds() && proven);
                prop_assert_eq!(domain.state == DomainState::Failing, domain.failing_since.is_some());
                prop_assert_eq!(domain.state == DomainState::Released, domain.released_at.is_some());
                prop_assert_eq!(step == DomainStep::Released, was != domain.state && domain.state == DomainState::Released);
                prop_assert!(domain.state != DomainState::Pending || was == DomainState::Pending);
                if step == DomainStep::Released {
                    let over = match before.failing_since {
                        Some(since) => at(hour) - since >= CustomDomain::GRACE,
                        None => at(hour) >= before.claimed_until,
                    };
                    prop_assert!(over);
                }
                if was == DomainState::Released {
                    prop_assert_eq!(domain.state, was);
                }
                if matches!(check.result, CheckResult::Failed | CheckResult::Timeout | CheckResult::TooMany) && was.holds() {
                    prop_assert_eq!(domain.state, was, "a failure on the way changes nothing");
                }
            }
        }
    }
}
