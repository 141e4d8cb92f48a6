/// Why a database could not be examined. Every message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// The connection is in a transaction of somebody else's, whose outcome is not the doctor's to decide.
    #[error("the connection is in a transaction: give the doctor one that is not")]
    InTransaction,
    /// The catalogue could not be read.
    #[error("the catalogue cannot be read: {0}")]
    Database(#[from] sqlx::Error),
    /// What came back is not what was asked for.
    #[error("the catalogue's answer cannot be understood: {0}")]
    Answer(#[from] serde_json::Error),
    /// A manifest has a line that says nothing.
    #[error("line {line} of the manifest has no tab between a kind and an object")]
    Manifest {
        /// Its number, from 1.
        line: usize,
    },
    /// There is no role of that name, so nothing can be said about what it may do.
    #[error("there is no role {role}: name the one the application connects as")]
    NoSuchRole {
        /// Its name.
        role: String,
    },
    /// There is no schema of that name, and to pass an empty one would be to vouch for nothing.
    #[error("there is no schema {schema}, or it is one of PostgreSQL's own")]
    NoSuchSchema {
        /// Its name.
        schema: String,
    },
}
