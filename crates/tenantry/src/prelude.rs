//! What the routes, entities and migrations of a service are written with: `use tenantry::prelude::*`.

pub use actix_web::HttpResponse;
pub use serde::{Deserialize, Serialize};
pub use tenantry_domain::events::{EventType, Field};
pub use tenantry_domain::kernel::{
    Check, ErrorCode, Invalid, Needs, Page, PageRequest, Permission, Position, ProjectId, ResourceId, Role,
    StoreError, TaskId, TenantId, UserId,
};
pub use tenantry_domain::store::Work;
pub use tenantry_http::permission::*;
pub use tenantry_http::{
    Answer, ApiError, Body, Ctx, Endpoint, Id, IdempotencyKey, IfMatch, NoFilter, PageView, Paged, created,
    entity, no_content,
};
pub use tenantry_migration::{OnDelete, TenantTable};
pub use tenantry_persistence::{ColumnTrait, IntoActiveModel, Set, tenant_tx};
pub use tenantry_tenancy::{Changed, Cx};
pub use utoipa::ToSchema;

pub use crate::{Extension, Service};
