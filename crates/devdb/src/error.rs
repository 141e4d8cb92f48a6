use std::path::{Path, PathBuf};

/// Why a private cluster could not be found, made, started or stopped.
///
/// Every message is one line that ends in what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevDbError {
    /// No folder with `initdb`, `pg_ctl` and `postgres` was found.
    #[error(
        "PostgreSQL server binaries not found: install them (Debian: `apt-get install postgresql`, \
         macOS: `brew install postgresql@17`) or set TENANTRY_PG_BIN"
    )]
    BinariesMissing,
    /// `TENANTRY_PG_BIN` names a folder that lacks one of the programs.
    #[error(
        "TENANTRY_PG_BIN is {}, which does not hold initdb, pg_ctl and postgres: \
         set it to the `bin` folder of a PostgreSQL server, or unset it", path.display()
    )]
    WrongBinaries {
        /// What the variable says.
        path: PathBuf,
    },
    /// This process is root and there is no user to run the server as.
    #[error(
        "PostgreSQL must not run as root and this machine has neither a user `postgres` nor `nobody`: \
         create one (`useradd --system postgres`) or run as another user"
    )]
    NoUnprivilegedUser,
    /// A folder in a shared place belongs to somebody else, who could read or replace what is put there.
    #[error(
        "{} exists and belongs to somebody else: remove it or choose another data folder", path.display()
    )]
    FolderNotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// The folder's name holds characters that `pg_ctl` would hand to a shell.
    #[error(
        "{} cannot hold a PostgreSQL cluster: choose a folder whose path is UTF-8 \
         and has no quote, backslash, dollar sign or line break", path.display()
    )]
    UnusablePath {
        /// The folder.
        path: PathBuf,
    },
    /// There is a cluster, but the file with its superuser's password is gone.
    #[error(
        "{} is missing, so nobody can log in to the cluster beside it: \
         restore the file, or remove the folder to start with an empty database", path.display()
    )]
    PasswordMissing {
        /// Where the password should be.
        path: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb could not create a cluster in {}: {output}; fix that or set TENANTRY_PG_BIN", path.display())]
    InitFailed {
        /// Where the cluster should have been.
        path: PathBuf,
        /// The end of what `initdb` said, lines joined with ` | `.
        output: String,
    },
    /// The server did not start.
    #[error("PostgreSQL did not start, see {}: {tail}", log.display())]
    StartFailed {
        /// The server's log.
        log: PathBuf,
        /// The last five lines that this start wrote to it, joined with ` | `.
        tail: String,
    },
    /// A server runs on the folder, but it neither became ready nor went away within a minute.
    #[error(
        "the PostgreSQL server on {} is neither ready nor gone after a minute: \
         look into postgres.log, or stop it with `pg_ctl stop -m immediate`", path.display()
    )]
    NotReady {
        /// The data folder.
        path: PathBuf,
    },
    /// The server did not stop.
    #[error("PostgreSQL on {} did not stop: {output}; try `pg_ctl stop -m immediate`", path.display())]
    StopFailed {
        /// The data folder.
        path: PathBuf,
        /// The end of what `pg_ctl` said, lines joined with ` | `.
        output: String,
    },
    /// Another process has held the folder's lock for too long.
    #[error(
        "another process has been starting or stopping the cluster in {} for two minutes: \
         end that process and try again", path.display()
    )]
    Busy {
        /// The data folder.
        path: PathBuf,
    },
    /// A file or a folder could not be read, written or given away.
    #[error("cannot use {}: {source}; check who owns it or choose another data folder", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A program could not be run at all.
    #[error("cannot run {program}: {source}; check that it is installed and that everybody may execute it")]
    Program {
        /// Name or path of the program, for example `initdb`.
        program: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The runtime is shutting down, or the work panicked.
    #[error("the work on the cluster was interrupted: {0}; try again")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl DevDbError {
    /// Names the path in an I/O error, which by itself does not.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> DevDbError {
        let path = path.to_owned();
        move |source| DevDbError::File { path, source }
    }
}
