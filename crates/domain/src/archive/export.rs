use async_trait::async_trait;
use chrono::Duration;

use crate::kernel::name::named_enum;
use crate::kernel::{ExportId, Page, PageRequest, StoreError, Time, UserId};

named_enum! {
    /// How far an export is.
    pub enum ExportStatus {
        /// A worker will take it up.
        Queued = "queued",
        /// It is being written.
        Running = "running",
        /// It can be downloaded.
        Ready = "ready",
        /// It was not written.
        Failed = "failed",
        /// It was deleted after its time.
        Expired = "expired",
    }
}

/// An archive of the tenant that is being written or can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Identifies the export.
    pub id: ExportId,
    /// When it was asked for.
    pub created_at: Time,
    /// The user who has asked for it.
    pub requested_by: Option<UserId>,
    /// The person whose data is exported; none when it is everything of the tenant.
    pub person: Option<UserId>,
    /// How far it is.
    pub status: ExportStatus,
    /// How many rows are written.
    pub rows_written: u64,
    /// The size of the archive.
    pub bytes: Option<u64>,
    /// Why it failed.
    pub failure: Option<String>,
    /// When it was written, or had failed.
    pub finished_at: Option<Time>,
    /// Until when it can be downloaded.
    pub expires_at: Option<Time>,
}

impl Export {
    /// How long an archive is kept.
    pub const KEPT: Duration = Duration::days(7);

    /// How long a link to an archive works.
    pub const LINK_MINUTES: i64 = 15;

    /// A new export.
    pub fn new(id: ExportId, requested_by: Option<UserId>, person: Option<UserId>, now: Time) -> Self {
        Self {
            id,
            created_at: now,
            requested_by,
            person,
            status: ExportStatus::Queued,
            rows_written: 0,
            bytes: None,
            failure: None,
            finished_at: None,
            expires_at: None,
        }
    }

    /// Whether a worker has to write it.
    pub fn is_open(&self) -> bool {
        matches!(self.status, ExportStatus::Queued | ExportStatus::Running)
    }

    /// Whether it can be downloaded.
    pub fn is_ready(&self, now: Time) -> bool {
        self.status == ExportStatus::Ready && self.expires_at.is_some_and(|at| at > now)
    }

    /// It is being written: the number of rows that are.
    pub fn progress(&mut self, rows: u64) {
        self.status = ExportStatus::Running;
        self.rows_written = rows;
    }

    /// It is written.
    pub fn finish(&mut self, rows: u64, bytes: u64, now: Time) {
        self.status = ExportStatus::Ready;
        self.rows_written = rows;
        self.bytes = Some(bytes);
        self.finished_at = Some(now);
        self.expires_at = Some(now + Self::KEPT);
    }

    /// It was given up.
    pub fn fail(&mut self, failure: &str, now: Time) {
        self.status = ExportStatus::Failed;
        self.failure = Some(failure.chars().take(500).collect());
        self.finished_at = Some(now);
    }

    /// The states that an export can have before it gets its present one.
    pub const fn states_before(&self) -> &'static [ExportStatus] {
        match self.status {
            ExportStatus::Expired => &[ExportStatus::Ready],
            ExportStatus::Queued | ExportStatus::Running | ExportStatus::Ready | ExportStatus::Failed => {
                &[ExportStatus::Queued, ExportStatus::Running]
            }
        }
    }

    /// Its archive is deleted.
    pub fn expire(&mut self) {
        self.status = ExportStatus::Expired;
    }
}

/// The exports of the tenant.
#[async_trait]
pub trait Exports: Send {
    /// Adds one.
    ///
    /// # Errors
    /// [`StoreError::Unique`] while another one of the tenant, or of the same person, is under way.
    async fn insert(&mut self, export: &Export) -> Result<(), StoreError>;

    /// The export with an id.
    async fn find(&mut self, id: ExportId) -> Result<Option<Export>, StoreError>;

    /// A page of those of the whole tenant, or of a person; newest first.
    async fn list(&mut self, person: Option<UserId>, page: PageRequest) -> Result<Page<Export>, StoreError>;

    /// How many of the whole tenant, or of a person, can be downloaded or are under way.
    async fn count_kept(&mut self, person: Option<UserId>) -> Result<u64, StoreError>;

    /// Those whose time is over, up to a few hundred.
    async fn overdue(&mut self, now: Time) -> Result<Vec<Export>, StoreError>;

    /// Stores how far one is, and returns whether it was: one that has ended is not changed, except that a ready one expires.
    async fn update(&mut self, export: &Export) -> Result<bool, StoreError>;
}
