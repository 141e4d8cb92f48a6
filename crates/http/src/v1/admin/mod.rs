//! What operators of the platform do: one file per noun, behind a login of its own.

pub(crate) mod operator;
pub(crate) mod tenant;

use actix_web::web::ServiceConfig;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.configure(operator::routes).configure(tenant::routes);
}
