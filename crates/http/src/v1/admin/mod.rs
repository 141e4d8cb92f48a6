//! What operators of the platform do: one file per noun, behind a login of its own.

pub(crate) mod audit;
pub(crate) mod billing;
pub(crate) mod event;
pub(crate) mod event_feed;
pub(crate) mod flag;
pub(crate) mod job;
pub(crate) mod mfa;
pub(crate) mod operator;
pub(crate) mod password;
pub(crate) mod rows;
pub(crate) mod segment;
pub(crate) mod support_access;
pub(crate) mod tenant;
pub(crate) mod tenant_audit;

use actix_web::web::ServiceConfig;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .configure(operator::routes)
        .configure(mfa::routes)
        .configure(password::routes)
        .configure(tenant::routes)
        .configure(job::routes)
        .configure(rows::routes)
        .configure(tenant_audit::routes)
        .configure(event::routes)
        .configure(support_access::routes)
        .configure(audit::routes)
        .configure(billing::routes)
        .configure(flag::routes)
        .configure(segment::routes);
}
