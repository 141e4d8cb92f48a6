use chrono::Duration;

use crate::identity::MFA_CHALLENGE_SECONDS;
use crate::kernel::{OperatorId, Time};
use crate::operations::Operator;

/// An operator's login whose password was right and that waits for its second factor. It is no row: its token names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingOperator {
    /// Who logs in.
    pub operator: OperatorId,
    /// The operator's epoch then: what ends the operator's tokens ends the login.
    pub epoch: i64,
    /// When the password was right.
    pub began_at: Time,
}

impl PendingOperator {
    /// What its token is sealed for: nothing else that is sealed opens as one.
    pub const PLACE: &str = "login of an operator that waits for a second factor";

    /// The bytes that its token seals.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.operator.uuid().as_bytes().to_vec();
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(self.began_at.timestamp_micros().to_be_bytes());
        bytes
    }

    /// Reads the bytes; `None` when they are of another length or out of range.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, numbers) = bytes.split_first_chunk::<16>()?;
        let (epoch, began_at) = numbers.split_first_chunk::<8>()?;
        let began_at = i64::from_be_bytes(began_at.try_into().ok()?);
        Some(Self {
            operator: uuid::Uuid::from_bytes(*id).into(),
            epoch: i64::from_be_bytes(*epoch),
            began_at: Time::from_timestamp_micros(began_at)?,
        })
    }

    /// Whether the login of this operator still waits: for [`MFA_CHALLENGE_SECONDS`], and until one is finished.
    pub fn is_waiting(self, operator: &Operator, now: Time) -> bool {
        let same = operator.id == self.operator && operator.epoch == self.epoch;
        let finished_since = operator.factor_at.is_some_and(|at| self.began_at < at);
        let in_time = now < self.began_at + Duration::seconds(MFA_CHALLENGE_SECONDS);
        operator.is_active && same && !finished_since && in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Email, PasswordHash};
    use crate::operations::OperatorRole;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn operator() -> Operator {
        let email = Email::stored("olga@platform.example".to_owned());
        let hash = PasswordHash::new("hash".to_owned());
        let id = uuid::Uuid::from_u128(7).into();
        Operator::new(id, email, "Olga", OperatorRole::Owner, hash, at(0)).unwrap()
    }

    fn pending() -> PendingOperator {
        PendingOperator {
            operator: operator().id,
            epoch: 0,
            began_at: at(10),
        }
    }

    #[test]
    fn pending_login_is_read_as_written() {
        let bytes = pending().to_bytes();
        assert_eq!(PendingOperator::from_bytes(&bytes), Some(pending()));
        for wrong in [&bytes[1..], &[bytes.as_slice(), b"0"].concat(), &[]] {
            assert_eq!(PendingOperator::from_bytes(wrong), None);
        }
    }

    #[test]
    fn login_waits_five_minutes_and_until_one_is_finished() {
        let waits = |operator: &Operator, seconds| pending().is_waiting(operator, at(seconds));
        assert!(waits(&operator(), 10) && waits(&operator(), 309));
        assert!(!waits(&operator(), 310));
        let changed: [fn(&mut Operator); 4] = [
            |operator| operator.is_active = false,
            |operator| operator.epoch = 1,
            |operator| operator.id = uuid::Uuid::from_u128(8).into(),
            |operator| operator.factor_at = Some(at(11)),
        ];
        for change in changed {
            let mut operator = operator();
            change(&mut operator);
            assert!(!waits(&operator, 20), "{operator:?}");
        }
        let earlier = Operator {
            factor_at: Some(at(9)),
            ..operator()
        };
        assert!(waits(&earlier, 20));
    }
}
