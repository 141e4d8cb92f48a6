use crate::kernel::StoreError;

/// Why an archive was not written, read or accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The disk, or what stands for it.
    #[error("{0}")]
    Io(String),
    /// The file is no archive of this format, or one of a version that is not known.
    #[error("not an archive of a tenant: {0}")]
    Malformed(String),
    /// A file of the archive is not as the manifest says.
    #[error("{file}: {problem}; nothing of the archive was used")]
    Tampered {
        /// The first file that is wrong.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The signature of the manifest is missing or wrong, or nobody trusts its key.
    #[error("manifest.json: {0}; nothing of the archive was used")]
    Untrusted(String),
    /// The archive does not fit the tables of this database.
    #[error("the archive does not fit this database: {0}")]
    Misfit(String),
    /// Another process writes the same archive.
    #[error("{0}")]
    Busy(String),
    /// Something else is in the way.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveError {
    /// A file that is not as the manifest says.
    pub fn tampered(file: &str, problem: impl Into<String>) -> Self {
        Self::Tampered {
            file: file.to_owned(),
            problem: problem.into(),
        }
    }
}
