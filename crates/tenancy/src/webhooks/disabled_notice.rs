//! The mail about an endpoint that the server has disabled.

use tenantry_domain::billing::{Notice, WebhookNotice};
use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;
use tenantry_domain::webhooks::{DisableReason, WebhookEndpoint};

use crate::Cx;
use crate::operations::job;
use crate::operations::mail::{SendMail, tell_admins};

/// Asks for the mail to each admin, with the transaction that has disabled the endpoint.
pub(crate) async fn send(cx: &Cx, work: &mut Work, disabled: &WebhookEndpoint) -> Result<(), StoreError> {
    let is_failing = disabled.state.disabled_reason() == Some(DisableReason::Failing);
    let notice = WebhookNotice {
        origin: disabled.url.origin(),
        description: disabled.description.clone(),
        failing_since: disabled.streak.filter(|_| is_failing).map(|streak| streak.first),
    };
    let told = tell_admins::<SendMail>(cx, work, &Notice::Webhook(notice)).await;
    told.map_err(job::store_error)
}
