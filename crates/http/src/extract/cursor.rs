use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike};
use sha2::{Digest, Sha256};
use tenantry_domain::events::LogPosition;
use tenantry_domain::kernel::{ErrorCode, Position};
use tenantry_domain::operations::RowPosition;
use uuid::Uuid;

use crate::ApiError;

/// Ties the cursors of a list to the tenant (or the operator), the list and the filter they were given out for.
///
/// It protects callers from their own mix-ups, not rows from callers: a cursor carries no authority, because
/// it is applied inside the scope like any other filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding([u8; 16]);

impl Binding {
    /// The binding of a list, by its path, under a filter.
    pub fn new(reader: Uuid, path: &str, filter: &[(String, String)]) -> Self {
        let mut sorted: Vec<_> = filter.iter().collect();
        sorted.sort_unstable();
        let mut hash = Sha256::new_with_prefix(reader.as_bytes());
        let texts = sorted
            .into_iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        for text in std::iter::once(path).chain(texts) {
            // The length keeps apart what would read the same when strung together.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        let mut binding = [0; 16];
        binding.copy_from_slice(&hash.finalize()[..16]);
        Self(binding)
    }

    /// A cursor that begins after a row.
    pub fn seal(self, position: Position) -> String {
        let mut bytes = position.created_at.timestamp_micros().to_be_bytes().to_vec();
        bytes.extend_from_slice(position.id.as_bytes());
        self.encode(bytes)
    }

    /// The row that a cursor begins after.
    ///
    /// # Errors
    /// `invalid_cursor` for anything that was not given out for this list, filter and tenant.
    pub fn open(self, cursor: &str) -> Result<Position, ApiError> {
        let read = |bytes: [u8; 24]| {
            let (micros, id) = bytes.split_at(8);
            let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(micros.try_into().ok()?))?;
            let plausible = (1970..=9999).contains(&created_at.year());
            plausible.then_some(Position {
                created_at,
                id: Uuid::from_slice(id).ok()?,
            })
        };
        self.decode(cursor).and_then(read).ok_or_else(invalid)
    }

    /// A cursor that begins below a number.
    pub fn seal_number(self, number: i64) -> String {
        self.encode(number.to_be_bytes().to_vec())
    }

    /// The number that a cursor begins below.
    ///
    /// # Errors
    /// See [`Binding::open`].
    pub fn open_number(self, cursor: &str) -> Result<i64, ApiError> {
        self.decode(cursor).map(i64::from_be_bytes).ok_or_else(invalid)
    }

    /// A cursor that begins after a row of some tenant.
    pub fn seal_row(self, position: RowPosition) -> String {
        let mut bytes = position.tenant.uuid().as_bytes().to_vec();
        bytes.extend_from_slice(position.id.as_bytes());
        self.encode(bytes)
    }

    /// The row of some tenant that a cursor begins after.
    ///
    /// # Errors
    /// See [`Binding::open`].
    pub fn open_row(self, cursor: &str) -> Result<RowPosition, ApiError> {
        let bytes: [u8; 32] = self.decode(cursor).ok_or_else(invalid)?;
        let (tenant, id) = bytes.split_at(16);
        let id_of = |bytes| Uuid::from_slice(bytes).map_err(|_| invalid());
        Ok(RowPosition {
            tenant: id_of(tenant)?.into(),
            id: id_of(id)?,
        })
    }

    /// A cursor that begins behind a place in the log of all tenants' events.
    pub fn seal_log(self, place: LogPosition) -> String {
        let mut bytes = place.number.to_be_bytes().to_vec();
        bytes.extend_from_slice(&place.position.to_be_bytes());
        self.encode(bytes)
    }

    /// The place in the log of all tenants' events that a cursor begins behind.
    ///
    /// # Errors
    /// See [`Binding::open`].
    pub fn open_log(self, cursor: &str) -> Result<LogPosition, ApiError> {
        let bytes: [u8; 16] = self.decode(cursor).ok_or_else(invalid)?;
        let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).map_err(|_| invalid());
        Ok(LogPosition {
            number: number(&bytes[..8])?,
            position: number(&bytes[8..])?,
        })
    }

    fn encode(self, mut bytes: Vec<u8>) -> String {
        bytes.extend_from_slice(&self.0);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn decode<const N: usize>(self, cursor: &str) -> Option<[u8; N]> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let position = bytes.strip_suffix(&self.0)?;
        position.try_into().ok()
    }
}

fn invalid() -> ApiError {
    ApiError::new(ErrorCode::InvalidCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(last: u128) -> Uuid {
        Uuid::from_u128(last)
    }

    fn filter(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn a_cursor_opens_where_it_was_sealed() {
        let binding = Binding::new(
            tenant(1),
            "/api/v1/tasks",
            &filter(&[("status", "todo"), ("q", "a")]),
        );
        let again = Binding::new(
            tenant(1),
            "/api/v1/tasks",
            &filter(&[("q", "a"), ("status", "todo")]),
        );
        let created_at = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap();
        let position = Position {
            created_at,
            id: Uuid::from_u128(7),
        };
        assert_eq!(again.open(&binding.seal(position)).unwrap(), position);
        assert_eq!(again.open_number(&binding.seal_number(41)).unwrap(), 41);
        let place = LogPosition::behind(7);
        assert_eq!(again.open_log(&binding.seal_log(place)).unwrap(), place);
    }

    #[test]
    fn and_nowhere_else() {
        let binding = Binding::new(tenant(1), "/api/v1/tasks", &[]);
        let position = Position {
            created_at: DateTime::from_timestamp_micros(1).unwrap(),
            id: Uuid::from_u128(7),
        };
        let cursor = binding.seal(position);
        let others = [
            Binding::new(tenant(2), "/api/v1/tasks", &[]),
            Binding::new(tenant(1), "/api/v1/users", &[]),
            Binding::new(tenant(1), "/api/v1/tasks", &filter(&[("q", "a")])),
        ];
        for other in others {
            assert_eq!(other.open(&cursor).unwrap_err().code(), ErrorCode::InvalidCursor);
        }
        let far = Position {
            created_at: DateTime::from_timestamp_micros(i64::MAX / 30).unwrap(),
            ..position
        };
        for garbage in [
            "",
            "x",
            "%%%",
            &cursor[1..],
            &binding.seal_number(3),
            &binding.seal(far),
        ] {
            assert_eq!(
                binding.open(garbage).unwrap_err().code(),
                ErrorCode::InvalidCursor,
                "{garbage}"
            );
        }
    }

    #[test]
    fn a_filter_is_not_what_it_reads_like() {
        let one = Binding::new(tenant(1), "/", &filter(&[("a", "bc")]));
        let other = Binding::new(tenant(1), "/", &filter(&[("ab", "c")]));
        assert_ne!(one, other);
    }
}
