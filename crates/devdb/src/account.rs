use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::DevDbError;

/// The user as whom the server's programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    /// The user id of this process.
    pub(crate) own_uid: u32,
    /// The user and group to change to; nothing when this process is not root.
    pub(crate) other: Option<(u32, u32)>,
}

impl Account {
    /// Chooses the owner of an existing cluster, else `postgres`, else `nobody`; nobody else when we are
    /// not root.
    pub(crate) fn choose(cluster: &Path) -> Result<Account, DevDbError> {
        let own_uid = id(&["-u"])?.ok_or(DevDbError::NoUnprivilegedUser)?;
        if own_uid != 0 {
            return Ok(Account { own_uid, other: None });
        }
        // A clone that its owner used before `sudo make run` must still be theirs afterwards.
        let owner = std::fs::symlink_metadata(cluster)
            .ok()
            .map(|found| (found.uid(), found.gid()));
        if let Some(owner) = owner.filter(|(uid, _)| *uid != 0) {
            return Ok(Account {
                own_uid,
                other: Some(owner),
            });
        }
        for name in ["postgres", "nobody"] {
            if let (Some(uid), Some(gid)) = (id(&["-u", name])?, id(&["-g", name])?) {
                return Ok(Account {
                    own_uid,
                    other: Some((uid, gid)),
                });
            }
        }
        Err(DevDbError::NoUnprivilegedUser)
    }

    /// The user id of the server's processes.
    pub(crate) fn uid(self) -> u32 {
        self.other.map_or(self.own_uid, |(uid, _)| uid)
    }

    /// A command that runs as this user, away from our terminal's signals.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // The current folder may be closed to the other user, and the server must not pin it either.
        command
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .env("LC_ALL", "C");
        // PGDATA, PGPORT, PGOPTIONS and the like are about some other server.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG")) {
                command.env_remove(name);
            }
        }
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes the user own a file or folder that this process created.
    pub(crate) fn give(self, path: &Path) -> Result<(), DevDbError> {
        match self.other {
            Some((uid, gid)) => {
                std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(DevDbError::file(path))
            }
            None => Ok(()),
        }
    }

    /// Whether the user can walk to the folder, which root's own permissions do not tell.
    pub(crate) fn can_enter(self, dir: &Path) -> Result<bool, DevDbError> {
        let mut command = self.command("sh");
        command.args(["-c", "test -x \"$1\"", "sh"]).arg(dir);
        Ok(run(&mut command)?.status.success())
    }
}

/// Runs a command to its end and keeps what it printed.
pub(crate) fn run(command: &mut Command) -> Result<Output, DevDbError> {
    command.output().map_err(|source| DevDbError::Program {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })
}

/// Asks `id`, which knows users from every directory service; nothing for an unknown user.
fn id(arguments: &[&str]) -> Result<Option<u32>, DevDbError> {
    let output = run(Command::new("id").args(arguments).stdin(Stdio::null()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_never_runs_as_root() {
        let account = Account::choose(Path::new("/nonexistent")).unwrap();
        assert_ne!(account.uid(), 0);
    }

    #[test]
    fn a_command_runs_as_the_account() {
        let account = Account::choose(Path::new("/nonexistent")).unwrap();
        let output = run(account.command("id").arg("-u")).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            account.uid().to_string()
        );
    }

    #[test]
    fn unknown_users_are_nothing() {
        assert_eq!(id(&["-u", "no-such-user-here"]).unwrap(), None);
    }
}
