//! A service that embeds Tenantry: everything of its own is notes.
//!
//! It is complete: a table, an entity, use cases, routes and their description. The integration tests put it
//! through the same isolation tests as Tenantry itself.

mod migration;
mod note;

pub use migration::Migrator;

use tenantry_http::Api;

/// Tenantry's API with the routes of this service in it.
pub fn extend(api: Api) -> Api {
    api.with_routes(note::routes).with_document(note::document())
}
