use async_trait::async_trait;
use chrono::Duration;

use crate::billing::{ChargedTime, ProviderKey};
use crate::kernel::name::named_enum;
use crate::kernel::{MeterReportId, Period, StoreError, Time};
use crate::usage::MeterKey;

named_enum! {
    /// Where a report of usage stands.
    pub enum ReportState {
        /// It is still to be sent.
        Pending = "pending",
        /// The provider has counted it.
        Sent = "sent",
        /// A later revision takes its place, and it was taken back or never sent.
        Replaced = "replaced",
        /// It came when it was too late to take back what the provider has counted of the hour: it is known to us alone.
        Late = "late",
        /// It cannot be sent any more.
        Dead = "dead",
    }
}

/// What a tenant used of a meter in an hour, as it is told to the payment provider; of what does not add up, what it comes
/// to in the month up to the end of the hour. There is one for each revision of the hour's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReport {
    /// Identifies the report within the tenant.
    pub id: MeterReportId,
    /// Key of the reported meter.
    pub meter: MeterKey,
    /// The beginning of the hour.
    pub hour: Time,
    /// The revision of its number.
    pub revision: i64,
    /// The number.
    pub quantity: u64,
    /// What makes it the same report when it is repeated: SHA-256 of tenant, meter, hour and revision.
    pub identifier: ProviderKey,
    /// Where it stands.
    pub state: ReportState,
    /// How often it was tried to send it.
    pub attempts: u32,
    /// Why it did not go, or goes no more.
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// When the provider had it.
    pub sent_at: Option<Time>,
}

impl MeterReport {
    /// How long after it happened usage may be told. The provider takes what is 35 days old; a day is left for whatever
    /// comes between.
    pub const TELLABLE: Duration = Duration::days(34);
    /// How long a report can be taken back. The provider says a day; an hour is left for whatever comes between.
    pub const REVOCABLE: Duration = Duration::hours(23);

    /// The moment for which it is told, where it is known when its meter is charged: [`ChargedTime::told_at`].
    pub fn told_at(&self, time: Option<&ChargedTime>) -> Time {
        let hour = Period::hour_of(self.hour);
        time.map_or(hour.end - Duration::seconds(1), |time| time.told_at(hour))
    }

    /// Whether it is too late to tell.
    pub fn is_too_old(&self, now: Time) -> bool {
        now - self.hour > Self::TELLABLE
    }

    /// Whether the provider would still take it back.
    pub fn is_revocable(&self, now: Time) -> bool {
        self.sent_at
            .is_some_and(|sent_at| now - sent_at <= Self::REVOCABLE)
    }
}

/// Reports of usage of the scope's tenant.
#[async_trait]
pub trait MeterReports: Send {
    /// The newest revision that is known of each hour of a meter in a period.
    async fn newest(&mut self, meter: &MeterKey, period: Period) -> Result<Vec<MeterReport>, StoreError>;
    /// All in a period, by hour and revision.
    async fn list(&mut self, meter: &MeterKey, period: Period) -> Result<Vec<MeterReport>, StoreError>;
    /// The oldest that are in that state, at most `limit`.
    async fn in_state(&mut self, state: ReportState, limit: u32) -> Result<Vec<MeterReport>, StoreError>;
    /// Adds one, unless that revision of the hour is there.
    async fn insert_unless_there(&mut self, report: &MeterReport) -> Result<bool, StoreError>;
    /// Stores where it stands, unless it no longer stands where it was: then somebody else was faster, and false is given.
    async fn update(&mut self, report: &MeterReport, was: ReportState) -> Result<bool, StoreError>;
}
