use chrono::SecondsFormat;
use tenantry_domain::audit::{Risk, StreamRecord};

/// "Log audit" of RFC 5424.
const FACILITY: u8 = 13;

/// The record as a message of RFC 5424, counted as RFC 5425 says: the length in bytes, a space, the message. The message is the JSON of the
/// record, its `MSGID` the kind of the record, its severity the risk.
pub fn frame(record: &StreamRecord) -> Vec<u8> {
    let severity = match record.risk {
        Risk::Low => 6,
        Risk::Medium => 5,
        Risk::High => 4,
    };
    let at = record.at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let message = format!(
        "<{}>1 {at} - tenantry - {} - {}",
        FACILITY * 8 + severity,
        record.kind.as_str(),
        record.line
    );
    format!("{} {message}", message.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tenantry_domain::audit::RecordKind;
    use tenantry_domain::kernel::Time;

    use super::*;

    #[test]
    fn frame_counts_bytes_and_not_characters() {
        let at = Time::from_timestamp_micros(1_800_000_000_123_456).unwrap();
        let members = json!({"name": "é\n"});
        let record = StreamRecord::new("t:1".into(), RecordKind::Event, (at, Risk::High), members);
        let frame = String::from_utf8(frame(&record)).unwrap();
        let (length, message) = frame.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), message.len());
        let head = "<108>1 2027-01-15T08:00:00.123456Z - tenantry - audit_event - {";
        assert!(message.starts_with(head), "{message}");
        assert!(!message.contains('\n') && message.contains('é'));
    }
}
