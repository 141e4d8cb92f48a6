use async_trait::async_trait;
use chrono::Duration;

use crate::kernel::{KeptAnswer, Role, StoreError, Time, UserId};

/// What an idempotency key stands for: one request of one user at one route, in the scope's tenant.
///
/// The same text from another user, or at another route, is another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Who sent the request.
    pub user: UserId,
    /// Method and path template, for example `POST /api/v1/projects/{id}/tasks`; of a request with an API key, with the key's id
    /// behind it.
    pub route: String,
    /// The key itself, as the caller chose it: 1 to 255 characters.
    pub key: String,
}

/// A request that was done, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRequest {
    /// Under which key.
    pub key: RequestKey,
    /// A keyed digest of the request, to tell a repetition from another request with the same key.
    pub fingerprint: [u8; 32],
    /// What the user was then. Whoever is less now may no longer be told what came of it.
    pub role: Role,
    /// The answer. In the store its body is sealed: it may hold what is shown only once.
    pub answer: KeptAnswer,
    /// When it was done.
    pub created_at: Time,
    /// From when on the key is free again.
    pub expires_at: Time,
}

impl KeptRequest {
    /// For how long a key stands for its request.
    pub const LIFETIME: Duration = Duration::hours(24);

    /// A request that is done now.
    pub fn new(key: RequestKey, fingerprint: [u8; 32], role: Role, answer: KeptAnswer, now: Time) -> Self {
        Self {
            key,
            fingerprint,
            role,
            answer,
            created_at: now,
            expires_at: now + Self::LIFETIME,
        }
    }

    /// Whether the key is free again.
    pub fn is_expired(&self, now: Time) -> bool {
        now >= self.expires_at
    }
}

/// The idempotency keys of the scope's tenant.
#[async_trait]
pub trait IdempotencyKeys: Send {
    /// Takes a key for as long as the transaction runs; `false`, at once, when another transaction has it.
    async fn lock(&mut self, key: &RequestKey) -> Result<bool, StoreError>;
    /// The request that was done under a key, expired or not.
    async fn find(&mut self, key: &RequestKey) -> Result<Option<KeptRequest>, StoreError>;
    /// Keeps a request; `false` when there is one under this key.
    async fn insert(&mut self, request: &KeptRequest) -> Result<bool, StoreError>;
    /// Forgets the request under a key.
    async fn delete(&mut self, key: &RequestKey) -> Result<(), StoreError>;
    /// Forgets the requests whose keys are free by then; how many there were.
    async fn delete_expired(&mut self, now: Time) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_key_stands_for_its_request_for_a_day() {
        let key = RequestKey {
            user: Uuid::from_u128(1).into(),
            route: "POST /".into(),
            key: "k".into(),
        };
        let answer = KeptAnswer {
            status: 201,
            headers: Vec::new(),
            body: Vec::new(),
        };
        let now = Time::default();
        let kept = KeptRequest::new(key, [0; 32], Role::Member, answer, now);
        assert!(!kept.is_expired(now + Duration::hours(24) - Duration::microseconds(1)));
        assert!(kept.is_expired(now + Duration::hours(24)));
    }
}
