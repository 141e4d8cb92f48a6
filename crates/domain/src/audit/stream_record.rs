use serde_json::{Map, Value, json};

use crate::audit::audit::cut_details;
use crate::audit::chain::Head;
use crate::audit::entry::AuditEntry;
use crate::audit::risk::Risk;
use crate::kernel::name::named_enum;
use crate::kernel::{TenantId, Time, hex};

named_enum! {
    /// What a record of the stream is.
    pub enum RecordKind {
        /// An entry of a tenant's audit log.
        Event = "audit_event",
        /// A signed head of a tenant's hash chain.
        Head = "audit_head",
        /// Entries that were deleted before they were sent.
        Gap = "audit_gap",
        /// What is sent in place of a record that the receiver refuses.
        Refused = "audit_refused",
        /// An entry of the log of operators.
        OperatorEvent = "operator_event",
    }
}

/// Members with states and details. Of a record that is too long they are left out.
const STATES: [&str; 3] = ["before", "after", "details"];

/// Members that identify what a record is about. They have no text that a caller has written.
const IDENTITIES: [&str; 6] = [
    "tenant_id",
    "sequence",
    "hash",
    "entry_id",
    "first_sequence",
    "last_sequence",
];

/// How many bytes of a hash are in an id: enough to tell two entries with one number apart.
const HASH_IN_ID: usize = 8;

/// What the receiver gets: an entry or a signed head of a tenant's log, or an entry of the log of operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Identifies the record for ever, so that a receiver recognizes one that it gets twice. A chained entry has a part of its hash in it: after
    /// a backup was restored, another entry may have the same number.
    pub id: String,
    /// Whether it is an entry or a head, and whose.
    pub kind: RecordKind,
    /// When it happened.
    pub at: Time,
    /// How much it deserves attention.
    pub risk: Risk,
    /// The record as JSON, without a line break; at most [`StreamRecord::MOST_BYTES`].
    pub line: String,
}

impl StreamRecord {
    /// The most bytes of a line: receivers of syslog take messages of 64 KiB.
    pub const MOST_BYTES: usize = 48 * 1_024;

    /// A record with these members, to which the id and the kind are added. Of a record that is too long, the states and details become
    /// `{"cut":true}`; where that is not enough, every text is cut to 256 characters.
    pub fn new(id: String, kind: RecordKind, (at, risk): (Time, Risk), mut members: Value) -> Self {
        members["id"] = json!(id);
        members["kind"] = json!(kind);
        members["at"] = json!(at);
        Self {
            id,
            kind,
            at,
            risk,
            line: bounded(members),
        }
    }

    /// The record that is sent in place of this one when the receiver refuses it again and again: what identifies the entry, and no text of
    /// it.
    #[must_use]
    pub fn refused(&self) -> Self {
        // The line is JSON of this module.
        let members: Map<String, Value> = serde_json::from_str(&self.line).unwrap_or_default();
        let is_kept = |name: &String| IDENTITIES.contains(&name.as_str());
        let mut kept: Map<String, Value> = members.into_iter().filter(|(name, _)| is_kept(name)).collect();
        kept.insert("refused_id".into(), json!(self.id));
        kept.insert("refused_kind".into(), json!(self.kind));
        kept.insert("risk".into(), json!(self.risk));
        let id = format!("{}:refused", self.id);
        Self::new(id, RecordKind::Refused, (self.at, self.risk), kept.into())
    }

    pub(super) fn event(tenant: TenantId, (sequence, hash): (i64, &[u8; 32]), entry: &AuditEntry) -> Self {
        let members = json!({
            "tenant_id": tenant,
            "sequence": sequence,
            "hash": hex(hash),
            "entry_id": entry.id,
            "category": entry.category,
            "action": entry.action,
            "entity": entry.entity,
            "entity_id": entry.entity_id,
            "actor": {"kind": entry.actor_kind, "id": entry.actor_id},
            "request_id": entry.request_id,
            "address": entry.address,
            "user_agent": entry.user_agent,
            "outcome": entry.outcome,
            "risk": entry.risk,
            "before": entry.before,
            "after": entry.after,
        });
        let id = format!("{tenant}:{sequence}:{}", hex(&hash[..HASH_IN_ID]));
        Self::new(id, RecordKind::Event, (entry.at, entry.risk), members)
    }

    pub(super) fn head(tenant: TenantId, head: &Head) -> Self {
        let members = json!({
            "tenant_id": tenant,
            "sequence": head.sequence,
            "hash": hex(&head.hash),
            "kid": head.kid,
            "signature": hex(&head.signature),
            "at_micros": head.created_at.timestamp_micros(),
        });
        let id = format!(
            "{tenant}:head:{}:{}",
            head.sequence,
            hex(&head.hash[..HASH_IN_ID])
        );
        Self::new(id, RecordKind::Head, (head.created_at, Risk::Low), members)
    }

    pub(super) fn gap(tenant: TenantId, first: i64, last: i64, at: Time) -> Self {
        let members = json!({"tenant_id": tenant, "first_sequence": first, "last_sequence": last});
        let id = format!("{tenant}:gap:{first}-{last}");
        Self::new(id, RecordKind::Gap, (at, Risk::High), members)
    }
}

/// The members as one line of at most [`StreamRecord::MOST_BYTES`].
fn bounded(mut members: Value) -> String {
    let line = members.to_string();
    if line.len() <= StreamRecord::MOST_BYTES {
        return line;
    }
    for name in STATES {
        if members.get(name).is_some_and(|state| !state.is_null()) {
            members[name] = json!({"cut": true});
        }
    }
    let line = members.to_string();
    if line.len() <= StreamRecord::MOST_BYTES {
        return line;
    }
    cut_details(members).to_string()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::audit::risk::Outcome;

    fn at() -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn tenant() -> TenantId {
        Uuid::from_u128(1).into()
    }

    fn entry(after: Value) -> AuditEntry {
        AuditEntry {
            id: Uuid::from_u128(2).into(),
            at: at(),
            category: "change".into(),
            action: "settings.changed".into(),
            entity: "settings".into(),
            entity_id: None,
            actor_kind: "user".into(),
            actor_id: Some(Uuid::from_u128(3)),
            request_id: "r".into(),
            address: Some("203.0.113.7".into()),
            user_agent: Some("probe/1.0".into()),
            outcome: Outcome::Success,
            risk: Risk::Medium,
            before: None,
            after: Some(after),
        }
    }

    fn line(record: &StreamRecord) -> Value {
        serde_json::from_str(&record.line).unwrap()
    }

    /// Twenty links of a navigation, with the longest labels and addresses.
    #[test]
    fn longest_settings_are_cut_to_a_bounded_line() {
        let link =
            json!({"label": "é".repeat(40), "url": format!("https://x.example/{}", "a".repeat(1_970))});
        let long = entry(json!({"appearance.navigation": vec![link; 20], "more": "x".repeat(20_000)}));
        let record = StreamRecord::event(tenant(), (7, &[9; 32]), &long);
        assert!(record.line.len() <= StreamRecord::MOST_BYTES);
        let cut = line(&record);
        assert_eq!(
            (&cut["after"], &cut["before"]),
            (&json!({"cut": true}), &Value::Null)
        );
        assert_eq!(
            (&cut["action"], &cut["user_agent"], &cut["sequence"]),
            (&json!("settings.changed"), &json!("probe/1.0"), &json!(7))
        );
        let short = StreamRecord::event(tenant(), (7, &[9; 32]), &entry(json!({"a": "b"})));
        assert_eq!(line(&short)["after"], json!({"a": "b"}));
    }

    #[test]
    fn long_text_outside_of_states_is_cut_as_well() {
        let long = AuditEntry {
            // Each of these characters takes six bytes in JSON.
            user_agent: Some("\u{1}".repeat(60_000)),
            ..entry(json!({"a": "b"}))
        };
        let record = StreamRecord::event(tenant(), (7, &[9; 32]), &long);
        assert!(record.line.len() <= StreamRecord::MOST_BYTES);
        assert_eq!(line(&record)["id"], record.id);
        assert!(
            line(&record)["user_agent"]
                .as_str()
                .unwrap()
                .contains("60000 characters")
        );
    }

    /// After a restored backup another entry has the same number.
    #[test]
    fn one_number_with_two_hashes_has_two_ids() {
        let entry = entry(json!({"a": "b"}));
        let one = StreamRecord::event(tenant(), (7, &[9; 32]), &entry);
        let other = StreamRecord::event(tenant(), (7, &[8; 32]), &entry);
        assert_ne!(one.id, other.id);
        assert_eq!(one.id, format!("{}:7:{}", tenant(), "09".repeat(8)));
        let gaps = [10, 11].map(|last| StreamRecord::gap(tenant(), 5, last, at()).id);
        assert_eq!(gaps[0], format!("{}:gap:5-10", tenant()));
        assert_ne!(gaps[0], gaps[1]);
    }

    #[test]
    fn refused_record_is_identified_and_has_no_text() {
        let poisoned = entry(json!({"a": "${jndi:"}));
        let record = StreamRecord::event(tenant(), (7, &[9; 32]), &poisoned);
        let refused = record.refused();
        let expected = json!({
            "id": format!("{}:refused", record.id),
            "kind": "audit_refused",
            "at": at(),
            "risk": "medium",
            "refused_id": record.id,
            "refused_kind": "audit_event",
            "tenant_id": tenant(),
            "sequence": 7,
            "hash": "09".repeat(32),
            "entry_id": poisoned.id,
        });
        assert_eq!(line(&refused), expected);
        assert_eq!((refused.kind, refused.risk), (RecordKind::Refused, Risk::Medium));
    }
}
