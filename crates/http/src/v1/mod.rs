//! Version 1 of the API: rooms as in the other layers, where they have routes, and `admin` for operators. One file per noun, each
//! with its routes, its handlers and what they read and write.

pub(crate) mod admin;
pub(crate) mod archive;
pub(crate) mod audit;
pub(crate) mod billing;
pub(crate) mod customization;
pub(crate) mod events;
pub(crate) mod flags;
pub(crate) mod identity;
pub(crate) mod kernel;
pub(crate) mod notifications;
pub(crate) mod plans;
pub(crate) mod security;
pub(crate) mod tenant;
pub(crate) mod usage;
pub(crate) mod webhooks;
pub(crate) mod work;

use actix_web::web::ServiceConfig;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .configure(admin::routes)
        .configure(tenant::signup::routes)
        .configure(identity::auth::routes)
        .configure(identity::challenge::routes)
        .configure(identity::session::routes)
        .configure(identity::mfa::routes)
        .configure(identity::passkey::routes)
        .configure(identity::account::routes)
        .configure(identity::workspace::routes)
        .configure(tenant::tenant::routes)
        .configure(tenant::support_access::routes)
        .configure(tenant::custom_domain::routes)
        .configure(plans::capability::routes)
        .configure(plans::entitlement::routes)
        .configure(usage::quota::routes)
        .configure(customization::security_policy::routes)
        .configure(customization::setting::routes)
        .configure(customization::branding::routes)
        .configure(billing::billing::routes)
        .configure(identity::user::routes)
        .configure(identity::erasure::routes)
        .configure(identity::invitation::routes)
        .configure(identity::permission::routes)
        .configure(identity::api_key::routes)
        .configure(identity::custom_role::routes)
        .configure(work::project::routes)
        .configure(work::task::routes)
        .configure(work::resource::routes)
        .configure(flags::feature::routes)
        .configure(usage::usage::routes)
        .configure(archive::export::routes)
        .configure(security::alert::routes)
        .configure(security::rule::routes)
        .configure(archive::person::routes)
        .configure(events::event_type::routes)
        .configure(events::event::routes)
        .configure(events::consumer::routes)
        .configure(notifications::unsubscribe::routes)
        .configure(notifications::notification::routes)
        .configure(notifications::preferences::routes)
        .configure(webhooks::endpoint::routes)
        .configure(webhooks::portal::routes)
        .configure(webhooks::delivery::routes)
        .configure(webhooks::message::routes)
        .configure(audit::event::routes)
        .configure(audit::export::routes);
}
