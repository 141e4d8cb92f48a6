//! What handlers take from a request and give back: context, body, ids, pages, entity tags, idempotency keys.
//!
//! An extractor that fails answers with a problem document. Knows no route.

pub(crate) mod answer;
pub(crate) mod api_key;
pub(crate) mod body;
pub(crate) mod bypass_reason;
pub(crate) mod challenge;
pub(crate) mod ctx;
pub(crate) mod cursor;
pub(crate) mod etag;
pub mod feature;
pub(crate) mod guest;
pub(crate) mod hints;
pub(crate) mod idempotency;
pub(crate) mod json;
pub(crate) mod moment;
pub(crate) mod operator_ctx;
pub(crate) mod operator_permission;
pub(crate) mod origin;
pub(crate) mod page;
pub(crate) mod path;
pub mod permission;
pub(crate) mod query;
pub(crate) mod shape;
