//! The OpenAPI document: made of the handlers' annotations, completed with what operations and schemas have in common.

pub(crate) mod docs;
pub(crate) mod links;
pub(crate) mod openapi;
pub(crate) mod operation;
pub(crate) mod schemas;
pub(crate) mod webhooks;
