//! Version 1 of the API: one file per noun, each with its routes, its handlers and what they read and write.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod api_key;
pub(crate) mod auth;
pub(crate) mod billing;
pub(crate) mod branding;
pub(crate) mod capability;
pub(crate) mod entitlement;
pub(crate) mod feature;
pub(crate) mod invitation;
pub(crate) mod mfa;
pub(crate) mod permission;
pub(crate) mod project;
pub(crate) mod quota;
pub(crate) mod resource;
mod schema;
pub(crate) mod session;
pub(crate) mod setting;
pub(crate) mod signup;
pub(crate) mod task;
pub(crate) mod tenant;
pub(crate) mod usage;
pub(crate) mod user;

use actix_web::web::ServiceConfig;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .configure(admin::routes)
        .configure(signup::routes)
        .configure(auth::routes)
        .configure(session::routes)
        .configure(mfa::routes)
        .configure(account::routes)
        .configure(tenant::routes)
        .configure(capability::routes)
        .configure(entitlement::routes)
        .configure(quota::routes)
        .configure(setting::routes)
        .configure(branding::routes)
        .configure(billing::routes)
        .configure(user::routes)
        .configure(invitation::routes)
        .configure(permission::routes)
        .configure(api_key::routes)
        .configure(project::routes)
        .configure(task::routes)
        .configure(resource::routes)
        .configure(feature::routes)
        .configure(usage::routes);
}
