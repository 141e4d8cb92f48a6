use async_trait::async_trait;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::kernel::{EventId, OperatorId, StoreError, SystemScope, TenantId, Time, UserId};

/// The most bytes of an event's data as JSON. Receivers of webhooks expect less than 20 kB in all.
const MOST_BYTES: usize = 16_384;

/// In data that is too large, members of more bytes than this are left out.
const LARGE_MEMBER: usize = 512;

/// An event of a change that is being recorded. It is stored with the entry of the audit log, in the transaction of the change, and
/// has the entry's id, actor, time and target.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// The name of its type.
    pub kind: &'static str,
    /// What happened, as receivers see it.
    pub data: Value,
    /// The W3C `traceparent` of the request or job that caused it.
    pub trace_parent: Option<String>,
}

impl NewEvent {
    /// An event about an object in its present state, or its last one. `previous` has the former values of what a change has changed.
    /// Of an object that is too large its large members are left out, and `truncated` says so.
    pub fn new(
        kind: &'static str,
        target: Option<Uuid>,
        (object, previous): (Option<Value>, Option<Value>),
    ) -> Self {
        let mut object = match object {
            Some(Value::Object(members)) => members,
            Some(Value::Null) | None => Map::new(),
            Some(state) => Map::from_iter([("state".to_owned(), state)]),
        };
        if let Some(target) = target {
            object.entry("id").or_insert_with(|| json!(target));
        }
        let mut data = json!({ "object": object });
        if let Some(previous) = previous {
            data["previous_attributes"] = previous;
        }
        Self {
            kind,
            data: bounded(data),
            trace_parent: None,
        }
    }
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}

fn bounded(mut data: Value) -> Value {
    if size(&data) <= MOST_BYTES {
        return data;
    }
    for part in ["object", "previous_attributes"] {
        if let Some(Value::Object(members)) = data.get_mut(part) {
            members.retain(|_, member| size(member) <= LARGE_MEMBER);
        }
    }
    if size(&data) > MOST_BYTES {
        data = json!({"object": {"id": data["object"]["id"]}});
    }
    data["truncated"] = json!(true);
    data
}

/// An event about a change of the state of a tenant, which operators and the system make outside of the tenant. It is stored in the
/// transaction of that change.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantEvent {
    /// Identifies the event.
    pub id: EventId,
    /// When it happened.
    pub at: Time,
    /// The tenant whose state has changed.
    pub tenant: TenantId,
    /// The operator who has changed it; `None` when it was the system, or a command on the server.
    pub operator: Option<OperatorId>,
    /// What happened.
    pub event: NewEvent,
}

/// An event in the feed of its tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Identifies the event within the tenant. It is the id of the entry of the audit log that records the change, unless an operator or the
    /// system has changed the state of the tenant.
    pub id: EventId,
    /// Its number in the tenant's feed, from 1 on without gaps. Of two changes where one came after the other, the later one has the
    /// greater number.
    pub position: i64,
    /// The name of its type, for example `task.updated`.
    pub kind: String,
    /// When it happened.
    pub at: Time,
    /// What acted: `user`, `api_key`, `operator`, `job`, `system`, `guest` or `founder`.
    pub actor_kind: String,
    /// The id of the actor; of a job that of the user for whom it runs.
    pub actor_id: Option<Uuid>,
    /// The kind of thing it happened to, for example `task`.
    pub entity: String,
    /// The id of that thing.
    pub entity_id: Option<Uuid>,
    /// The W3C `traceparent` of the request or job that caused it.
    pub trace_parent: Option<String>,
    /// What happened.
    pub data: Value,
}

/// The first and the last number of the events that are kept; zeros before the first event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedEnds {
    /// The number of the oldest event.
    pub oldest: i64,
    /// The number of the newest event.
    pub newest: i64,
}

impl FeedEnds {
    /// Returns the position before the oldest event.
    pub fn before_oldest(self) -> i64 {
        self.oldest.saturating_sub(1).max(0)
    }

    /// Returns whether all events behind a position are kept, and the position is one of this feed.
    pub fn has(self, position: i64) -> bool {
        (self.before_oldest()..=self.newest).contains(&position)
    }
}

/// The events of the scope's tenant.
///
/// The transaction of a change stores its event in an outbox, without a number and without a lock. [`EventFeed::publish`] moves what has
/// committed into the feed and numbers it, one mover of a tenant at a time: so an event that commits late gets a later number, and a
/// reader that goes on from a number passes over none.
#[async_trait]
pub trait EventFeed: Send {
    /// Moves up to `limit` events from the outbox into the feed. Returns how many. None are moved while another transaction does it.
    async fn publish(&mut self, limit: u32) -> Result<u64, StoreError>;

    /// The ends of the feed.
    async fn ends(&mut self) -> Result<FeedEnds, StoreError>;

    /// The events behind a number and up to another one, in order: of these types, or of all when there are none.
    async fn between(
        &mut self,
        range: (i64, i64),
        kinds: &[&'static str],
        limit: u32,
    ) -> Result<Vec<Event>, StoreError>;

    /// Replaces the data of the events about a person that are not published yet: of those whose entity is the person, and of those of before a
    /// time that have one of the addresses, which are lower case. `object` keeps the id of the entity, and `erased` is true. Returns how many
    /// were replaced.
    async fn erase_unpublished(
        &mut self,
        person: UserId,
        addresses: &[&str],
        before: Time,
    ) -> Result<u64, StoreError>;

    /// The same of published events, behind a position and up to another one.
    async fn erase_between(
        &mut self,
        range: (i64, i64),
        person: UserId,
        (addresses, before): (&[&str], Time),
    ) -> Result<u64, StoreError>;

    /// Deletes up to `limit` published events that are older than a time, the oldest first. The newest event is always kept, since its
    /// number says where the feed goes on. Returns how many were deleted.
    async fn delete_before(&mut self, before: Time, limit: u32) -> Result<u64, StoreError>;
}

/// The tenants whose outbox has events: which, and nothing of the events.
#[async_trait]
pub trait UnpublishedEvents: Send + Sync {
    /// Up to `limit` tenants that are not deleted, by id, from after `after` on.
    async fn waiting(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_has_its_id_and_only_a_change_has_former_values() {
        let id = Uuid::from_u128(7);
        let event = NewEvent::new("task.updated", Some(id), (Some(json!({"title": "b"})), None));
        assert_eq!(event.data, json!({"object": {"id": id, "title": "b"}}));
        let former = json!({"title": "a"});
        let event = NewEvent::new("task.updated", None, (Some(json!({"title": "b"})), Some(former)));
        let expected = json!({"object": {"title": "b"}, "previous_attributes": {"title": "a"}});
        assert_eq!(event.data, expected);
        let event = NewEvent::new("task.deleted", Some(id), (None, None));
        assert_eq!(event.data, json!({"object": {"id": id}}));
    }

    #[test]
    fn large_object_is_truncated() {
        let id = Uuid::from_u128(7);
        let object = json!({"id": id, "title": "t", "description": "é".repeat(10_000)});
        let event = NewEvent::new("task.updated", Some(id), (Some(object), None));
        assert_eq!(
            event.data,
            json!({"object": {"id": id, "title": "t"}, "truncated": true})
        );
        let members = (0..2_000).map(|n| (format!("m{n}"), json!("x".repeat(20))));
        let object = Value::Object(members.collect());
        let event = NewEvent::new("task.updated", Some(id), (Some(object), None));
        assert_eq!(event.data, json!({"object": {"id": id}, "truncated": true}));
    }
}
