use async_trait::async_trait;

use crate::identity::{Email, User};
use crate::kernel::{ErasureId, StoreError, Time, UserId};

/// The erasure of a person: the account is anonymous at once, and a job erases what is left of them elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Identifies the erasure.
    pub id: ErasureId,
    /// When the account was erased.
    pub created_at: Time,
    /// The account, whose row stays for the records that refer to it.
    pub user: UserId,
    /// The addresses that the person had; none once it is finished.
    pub addresses: Vec<Email>,
    /// Keyed digests of these addresses, by which an import recognizes them.
    pub digests: Vec<[u8; 32]>,
    /// Up to which number the audit log was searched.
    pub sequence: i64,
    /// How many of its entries were erased.
    pub entries: u64,
    /// Up to which position the feed of events was searched.
    pub event_position: i64,
    /// When everything was erased.
    pub finished_at: Option<Time>,
}

impl Erasure {
    /// The place for which digests of addresses are computed.
    pub const PLACE: &'static str = "address of an erased person";

    /// The begin of an erasure.
    pub fn new(
        id: ErasureId,
        user: UserId,
        (addresses, digests): (Vec<Email>, Vec<[u8; 32]>),
        now: Time,
    ) -> Self {
        Self {
            id,
            created_at: now,
            user,
            addresses,
            digests,
            sequence: 0,
            entries: 0,
            event_position: 0,
            finished_at: None,
        }
    }

    /// The addresses that were the person's at a time: none after the erasure has begun, since they may be somebody else's by then.
    pub fn addresses_at(&self, at: Time) -> &[Email] {
        if at <= self.created_at {
            &self.addresses
        } else {
            &[]
        }
    }

    /// Everything was erased; the addresses are not needed any more.
    pub fn finish(&mut self, now: Time) {
        self.addresses.clear();
        self.finished_at = Some(now);
    }
}

/// What is stored of a person, live or removed, and its erasure.
#[async_trait]
pub trait Persons: Send {
    /// The account with an id, also a removed one, locked until the transaction ends.
    async fn find(&mut self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The accounts with an address, also removed ones.
    async fn named(&mut self, email: &Email) -> Result<Vec<User>, StoreError>;

    /// The addresses of which it is proven that the person reads their mail: the present one when it is verified, and former ones that
    /// were. What an export shows is searched by these. An address that another account has by now is not among them.
    async fn proven_addresses(&mut self, id: UserId) -> Result<Vec<Email>, StoreError>;

    /// Every address that the account has or had, proven or not: what an erasure searches by, and nothing that is shown. An address that
    /// another account has by now is not among them.
    async fn known_addresses(&mut self, id: UserId) -> Result<Vec<Email>, StoreError>;

    /// Makes the row of an account anonymous.
    async fn anonymize(&mut self, id: UserId, now: Time) -> Result<(), StoreError>;

    /// Deletes rows that go with an account, at most so many. Returns how many: none when there are no more.
    async fn erase_rows(&mut self, id: UserId, at_most: u32) -> Result<u64, StoreError>;

    /// Deletes invitations to the addresses of an erasure and jobs that name one, which are from before it, and jobs that are a mail to the
    /// person. Returns how many such jobs are running, which are not deleted.
    async fn erase_named(&mut self, erasure: &Erasure) -> Result<u64, StoreError>;

    /// The erasure of an account, locked until the transaction ends.
    async fn erasure(&mut self, id: UserId) -> Result<Option<Erasure>, StoreError>;

    /// The accounts whose erasure has begun and is not finished, and that had an address when it began.
    async fn unfinished(&mut self, email: &Email) -> Result<Vec<UserId>, StoreError>;

    /// Whether a person was erased since a moment who had the address of a keyed digest.
    async fn is_erased_since(&mut self, digest: &[u8; 32], since: Time) -> Result<bool, StoreError>;

    /// Adds an erasure.
    async fn begin(&mut self, erasure: &Erasure) -> Result<(), StoreError>;

    /// Stores how far an erasure is.
    async fn update(&mut self, erasure: &Erasure) -> Result<(), StoreError>;
}
