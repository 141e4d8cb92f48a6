use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::audit::canonical::canonical;
use crate::audit::personal::{Salt, erased, erased_text};
use crate::audit::risk::{Outcome, Risk};
use crate::kernel::{AuditEventId, Invalid, TenantId, Time};

/// An entry of the audit log, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Identifies the entry within the tenant.
    pub id: AuditEventId,
    /// When it happened.
    pub at: Time,
    /// `change` or `security`.
    pub category: String,
    /// What happened, for example `project.created`.
    pub action: String,
    /// The kind of thing it happened to.
    pub entity: String,
    /// The id of that thing.
    pub entity_id: Option<Uuid>,
    /// What acted: `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    pub actor_kind: String,
    /// The id of the actor; of a job that of the user for whom it runs.
    pub actor_id: Option<Uuid>,
    /// The request that caused it.
    pub request_id: String,
    /// The IP address of the caller, where there was one.
    pub address: Option<String>,
    /// The caller's `User-Agent`.
    pub user_agent: Option<String>,
    /// Whether it was done.
    pub outcome: Outcome,
    /// How much it deserves attention.
    pub risk: Risk,
    /// State before.
    pub before: Option<Value>,
    /// State after.
    pub after: Option<Value>,
}

impl AuditEntry {
    /// The hash of this entry at a place of the chain: SHA-256 over the hash before it and the canonical form of its erased
    /// state.
    pub fn hash(&self, tenant: TenantId, sequence: i64, previous: &[u8; 32], salt: &Salt) -> [u8; 32] {
        let entry = canonical(&self.hashed(tenant, sequence, salt));
        Sha256::new()
            .chain_update(previous)
            .chain_update(entry)
            .finalize()
            .into()
    }

    /// The entry with its personal data erased: what a person's erasure stores in its place. The hash stays the same.
    #[must_use]
    pub fn erased(&self, salt: &Salt) -> Self {
        let text = |text: &Option<String>| text.as_ref().map(|text| erased_text(text, salt));
        let state = |state: &Option<Value>| state.as_ref().map(|state| erased(state, salt));
        Self {
            address: text(&self.address),
            user_agent: text(&self.user_agent),
            before: state(&self.before),
            after: state(&self.after),
            ..self.clone()
        }
    }

    /// Whether it tells about a person: as the actor, as what was changed, or by the id or an address in a state.
    pub fn concerns(&self, person: Uuid, addresses: &[&str]) -> bool {
        let id = person.to_string();
        let names =
            |text: &str| text == id || addresses.iter().any(|address| text.eq_ignore_ascii_case(address));
        self.actor_id == Some(person)
            || self.entity_id == Some(person)
            || [&self.before, &self.after]
                .into_iter()
                .flatten()
                .any(|state| any_text(state, &names))
    }

    fn hashed(&self, tenant: TenantId, sequence: i64, salt: &Salt) -> Value {
        let erased = self.erased(salt);
        let members = [
            ("tenant_id", json!(tenant)),
            ("sequence", json!(sequence)),
            ("id", json!(self.id)),
            ("at_micros", json!(self.at.timestamp_micros())),
            ("category", json!(self.category)),
            ("action", json!(self.action)),
            ("entity", json!(self.entity)),
            ("entity_id", json!(self.entity_id)),
            ("actor_kind", json!(self.actor_kind)),
            ("actor_id", json!(self.actor_id)),
            ("request_id", json!(self.request_id)),
            ("address", json!(erased.address)),
            ("user_agent", json!(erased.user_agent)),
            ("outcome", json!(self.outcome)),
            ("risk", json!(self.risk)),
            ("before", erased.before.unwrap_or_default()),
            ("after", erased.after.unwrap_or_default()),
        ];
        let members = members.into_iter();
        members
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>()
            .into()
    }
}

fn any_text(value: &Value, holds: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => holds(text),
        Value::Array(members) => members.iter().any(|member| any_text(member, holds)),
        Value::Object(members) => members.values().any(|member| any_text(member, holds)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The place of an entry in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chained {
    /// Its number in the tenant's log, from 1 on without gaps.
    pub sequence: i64,
    /// The SHA-256 that chains it to the entry before it.
    pub hash: [u8; 32],
}

/// An entry with what is known of it when it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// What was recorded, as it is stored.
    pub entry: AuditEntry,
    /// The present name of the user or API key that acted, where there is one. It is not part of the log.
    pub actor_name: Option<String>,
    /// Its place in the chain; `None` in the first seconds.
    pub chained: Option<Chained>,
}

/// Which entries are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only of the actor with this id.
    pub actor_id: Option<Uuid>,
    /// Only of actors of this kind.
    pub actor_kind: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only of this kind of entity.
    pub entity: Option<String>,
    /// Only of the entity with this id.
    pub entity_id: Option<Uuid>,
    /// Only of this risk.
    pub risk: Option<Risk>,
    /// Only from this time on.
    pub from: Option<Time>,
    /// Only before this time.
    pub to: Option<Time>,
}

/// What can act, as entries say it.
const ACTORS: [&str; 7] = ["user", "api_key", "operator", "job", "system", "guest", "founder"];

impl AuditFilter {
    /// The same filter for an actor: an id or a kind of actors.
    ///
    /// # Errors
    /// `/query/actor` when it is neither.
    pub fn of_actor(self, actor: Option<&str>) -> Result<Self, Invalid> {
        let Some(actor) = actor else { return Ok(self) };
        if let Some(id) = Uuid::try_parse(actor).ok().filter(|_| actor.len() == 36) {
            let actor_id = Some(id);
            return Ok(Self { actor_id, ..self });
        }
        if ACTORS.contains(&actor) {
            let actor_kind = Some(actor.to_owned());
            return Ok(Self { actor_kind, ..self });
        }
        let detail = format!("must be the id of an actor or one of {}", ACTORS.join(", "));
        Err(Invalid::one("/query/actor", "invalid_value", detail))
    }
}
