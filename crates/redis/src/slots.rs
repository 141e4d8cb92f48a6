//! The slots of a Redis Cluster: which master has which, and names whose keys lie there.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use deadpool_redis::redis::{ErrorKind, RedisError, RedisResult, Value};

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// Returns a name for each master of a cluster: as the hash tag of a key it puts the key into a slot of that master. `answer` is
/// that of `CLUSTER SLOTS`.
pub(crate) fn names(answer: &Value) -> RedisResult<Vec<String>> {
    let unreadable = || RedisError::from((ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS is not readable"));
    let mut masters = BTreeMap::new();
    for entry in items(answer).ok_or_else(unreadable)? {
        let (range, master) = owned(entry).ok_or_else(unreadable)?;
        masters.entry(master).or_insert(range);
    }
    let names = masters
        .into_values()
        .map(|range| name_in(&range).ok_or_else(unreadable));
    names.collect()
}

/// The first and the last slot of an entry, and the address of their master.
fn owned(entry: &Value) -> Option<(RangeInclusive<u16>, String)> {
    let [first, last, master, ..] = items(entry)? else {
        return None;
    };
    let slot = |value: &Value| match value {
        Value::Int(slot) => u16::try_from(*slot).ok(),
        _ => None,
    };
    Some((
        slot(first)?..=slot(last)?,
        format!("{:?}", items(master)?.get(..2)?),
    ))
}

fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// A name whose slot is in the range. Each is tried in a fixed order, on average as often as the range is a part of all slots.
fn name_in(range: &RangeInclusive<u16>) -> Option<String> {
    let names = (0..u32::MAX).map(|number| format!("probe{number}"));
    names.take(1_000_000).find(|name| range.contains(&slot(name)))
}

/// The slot of a hash tag (Redis Cluster specification, appendix A).
fn slot(tag: &str) -> u16 {
    crc16(tag.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // `CLUSTER KEYSLOT foo` and `bar`.
        assert_eq!((slot("foo"), slot("bar")), (12_182, 5_061));
    }

    #[test]
    fn each_master_has_a_name_in_one_of_its_slots() {
        let entry = |first, last, port| {
            let node = [Value::BulkString(b"127.0.0.1".to_vec()), Value::Int(port)];
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                Value::Array(node.to_vec()),
            ])
        };
        let answer = Value::Array(vec![
            entry(0, 99, 1),
            entry(100, 9_999, 2),
            entry(10_000, 16_383, 1),
            entry(77, 77, 3),
        ]);
        let found = names(&answer).unwrap();
        let slots: Vec<u16> = found.iter().map(|name| slot(name)).collect();
        assert!(slots[0] < 100 && (100..10_000).contains(&slots[1]), "{slots:?}");
        assert_eq!(slots[2..], [77]);
        assert!(names(&Value::Nil).is_err());
    }
}
