use serde_json::{Map, Value};

use crate::kernel::{Role, TenantId};

/// The tenant that flags are evaluated in, as far as rules may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagTenant {
    id: TenantId,
    id_text: String,
    slug: String,
    plan: String,
}

impl FlagTenant {
    /// A tenant.
    pub fn new(id: TenantId, slug: &str, plan: &str) -> Self {
        Self {
            id,
            id_text: id.to_string(),
            slug: slug.to_owned(),
            plan: plan.to_owned(),
        }
    }

    pub(crate) const fn id(&self) -> TenantId {
        self.id
    }

    pub(crate) fn id_text(&self) -> &str {
        &self.id_text
    }

    pub(crate) fn slug(&self) -> &str {
        &self.slug
    }

    pub(crate) fn plan(&self) -> &str {
        &self.plan
    }
}

/// For whom flags are evaluated. The tenant is not in it: that comes with the set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subject {
    /// Who: a user of the tenant, or whoever the caller stands for. Nobody in particular when absent.
    pub key: Option<String>,
    /// The role of a user of the tenant, as stored; goes before an attribute of that name.
    pub role: Option<Role>,
    /// What the caller says of them.
    pub attributes: Map<String, Value>,
}

impl Subject {
    /// Somebody, of whom nothing else is known.
    pub fn of(key: impl Into<String>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::default()
        }
    }

    /// The same with something more known of them.
    #[must_use]
    pub fn with(mut self, attribute: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(attribute.to_owned(), value.into());
        self
    }
}
