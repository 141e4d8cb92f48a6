//! The job handlers of the product, from every room.

use crate::operations::job::Handlers;

impl Handlers {
    /// Those of Tenantry itself.
    pub fn standard() -> Self {
        Self::default()
            .with(crate::tenant::purge::Purge)
            .with(crate::identity::api_key_expiry::NotifyOfExpiry)
            .with(crate::identity::first_password::NotifyOfFirstPasswords)
            .with_system(crate::tenant::upkeep::TendSome)
            .with(crate::archive::export::WriteExport)
            .with(crate::identity::erasure::EraseTraces)
            .with(crate::tenant::audit_upkeep::KeepAudit)
            .with(crate::events::upkeep::KeepEvents)
            .with(crate::notifications::fan_out::NotifyUsers)
            .with(crate::notifications::next_digest::SendDigests)
            .with(crate::notifications::send::MailNotifications)
            .with(crate::notifications::upkeep::KeepNotifications)
            .with(crate::webhooks::removal::RemoveEndpoint)
            .with(crate::tenant::data_key::KeepDataKeys)
            .with(crate::tenant::custom_domain::KeepDomains)
            .with(crate::tenant::custom_domain::CheckDomains)
            .with_system(crate::tenant::row_work::SettleAll)
            .with_system(crate::tenant::archive_files::SweepArchives)
            .with_system(crate::tenant::purge::FreeNames)
            .with_system(crate::tenant::purge::PurgeSentMails)
            .with(crate::operations::mail::SendMail)
            .with(crate::identity::invitation::SendInvitation)
            .with(crate::operations::mail::SendFarewell)
            .with(crate::identity::account_mail::SendNotice)
            .with(crate::identity::account_mail::SendLink)
            .with(crate::identity::account_mail::SendAskedLink)
            .with(crate::identity::security_notice::SendSecurityNotice)
            .with(crate::identity::account_link::AskForLink)
            .with(crate::security::detection::DetectActivity)
            .with(crate::security::notice::SendAlert)
            .with(crate::security::notice::MailHeld)
    }
}
