use crate::kernel::{TenantId, Time, UserId};

/// A request of a tenant that was answered, as far as metering wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Whose.
    pub tenant: TenantId,
    /// The user who asked.
    pub user: Option<UserId>,
    /// When it was answered.
    pub at: Time,
}

/// Where calls wait until they are in the ledger: they are noted before the answer is sent and outlast the process.
///
/// What was noted is closed into batches, which never change again. A batch has the same name wherever it is read, also
/// after its process has died, so that whatever is made of it has the same idempotency keys each time.
pub trait CallSpool: Send + Sync {
    /// Notes a call. It never fails and never waits for anything but the file system's memory: where nothing can be
    /// written, the call is remembered in this process.
    fn note(&self, call: Call);

    /// Closes what has been noted into a batch, takes over what processes left that have died, and gives the names of all
    /// batches there are, the oldest first. It reads folders, so it is not for a thread that serves requests.
    fn batches(&self) -> Vec<String>;

    /// Gives the calls of a batch one after the other; it reads a file, and never all of it at once.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read(&self, batch: &str, each: &mut dyn FnMut(Call)) -> std::io::Result<()>;

    /// Forgets a batch that is in the ledger.
    ///
    /// # Errors
    /// When the file cannot be removed; it will be given again, which does no harm.
    fn remove(&self, batch: &str) -> std::io::Result<()>;

    /// Puts calls of a batch where no flush comes upon them, before the batch is removed: calls of tenants that the store
    /// does not know, which nobody can store and everybody else's calls must not wait for. Done twice it is the same as once.
    ///
    /// # Errors
    /// When they cannot be written.
    fn set_aside(&self, batch: &str, calls: &[Call]) -> std::io::Result<()>;

    /// The processes that have died and of whom no batch is left, until [`CallSpool::bury`] is called. They are known after
    /// [`CallSpool::batches`].
    fn ended(&self) -> Vec<EndedSpool>;

    /// Removes what is left of a process that has died. Done twice it is the same as once.
    ///
    /// # Errors
    /// When it cannot be removed; it will be given by [`CallSpool::ended`] again.
    fn bury(&self, name: &str) -> std::io::Result<()>;

    /// How it stands.
    fn tally(&self) -> SpoolTally;
}

/// What is left of a process that has died and whose batches are all in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSpool {
    /// The name of the process.
    pub name: String,
    /// Whether it is proven that its batches held all of its calls. Otherwise calls may be lost: they waited in memory, or a file
    /// was deleted, truncated or overwritten, or the machine has been restarted since.
    pub is_whole: bool,
}

/// How a spool stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolTally {
    /// Calls that were noted.
    pub noted: u64,
    /// Calls that could not be written and were remembered instead: they are lost if the process is killed.
    pub remembered: u64,
    /// Calls that could neither be written nor remembered, and those whose records were gone when they were to be stored.
    pub lost: u64,
    /// Calls of this process that are not in the ledger yet.
    pub pending: u64,
    /// What is wrong, or was a few minutes ago.
    pub trouble: Option<SpoolTrouble>,
}

/// Why calls may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpoolTrouble {
    /// Nothing can be written: calls wait in memory and are lost if the process is killed.
    Unwritable,
    /// The folder, its lock or a file in it was deleted while the process ran. What was in the files is still readable, and the
    /// folder was made anew.
    Deleted,
    /// Records of calls are gone, since a file was truncated or overwritten.
    Lost,
}

impl SpoolTrouble {
    /// A sentence for operators.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unwritable => "calls cannot be written to the spool and wait in memory",
            Self::Deleted => "the spool's folder was deleted while the server ran, and was made anew",
            Self::Lost => "calls were lost, since a file of the spool was truncated",
        }
    }
}
