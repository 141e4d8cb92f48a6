use tenantry_tenancy::operations::job::Handlers;

use crate::billing;
use crate::usage;

/// Adds the job handlers of this crate to those that a worker knows.
pub trait BillingHandlers {
    /// Adds those of metering and quotas.
    #[must_use]
    fn with_usage(self) -> Self;

    /// Adds those that follow the payment provider, for where there is one.
    #[must_use]
    fn with_billing(self) -> Self;
}

impl BillingHandlers for Handlers {
    fn with_usage(self) -> Self {
        self.with(usage::usage_rollup::Keep)
            .with(usage::quota_alert::TellAlert)
            .with(usage::quota_recovery::Lapse)
            .with(usage::quota_recovery::SettleEnded)
            .with_system(usage::quota_recovery::LapseAll)
            .with(usage::usage_rollup::RollUp)
            .with_system(usage::usage_rollup::RollUpAll)
            .with_system(usage::usage_rollup::MakePartitions)
    }

    fn with_billing(self) -> Self {
        self.with(billing::billing_provision::Provision)
            .with(billing::billing_sync::Sync)
            .with(billing::Change)
            .with(billing::billing_surplus::EndSurplus)
            .with(billing::meter_report::Publish)
            .with_system(billing::publish::PublishAll)
            .with_system(billing::billing_provision::RemoveLeftBehind)
            .with_system(billing::provider_event::Process)
            .with_system(billing::provider_event::FetchMissed)
    }
}
