//! The demo that `tenantry dev` serves, and how commands in other terminals find it.
//!
//! While the demo runs it holds a lock on `demo.lock` in its data folder, and `demo.json` beside it has the configuration that
//! it runs with: database, signing key, Redis, payment provider, mail. Both have the mode 0600, because the configuration holds
//! passwords. The operating system releases the lock however the demo ends, so a killed demo is never mistaken for a
//! running one.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::CommandError;
use crate::config::Configuration;

/// A running demo, as a command sees it.
#[derive(Serialize, Deserialize)]
pub struct Demo {
    /// Where it serves, `http://host:port`.
    pub address: String,
    /// The configuration that it runs with; relative paths are resolved.
    pub config: Configuration,
}

/// The claim of `tenantry dev` on its data folder. Dropping it removes the configuration and releases the folder.
pub struct Claim {
    config: PathBuf,
    _lock: File,
}

impl Claim {
    /// Claims a data folder, which exists.
    ///
    /// # Errors
    /// When another demo runs over the folder, or the folder cannot be written to.
    pub fn of(data_dir: &Path) -> Result<Self, CommandError> {
        let lock = open_lock(data_dir)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CommandError::Other(format!(
                    "a demo runs over {} already: stop it first, or give this one another folder with --data-dir",
                    data_dir.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(data_dir, &error)),
        }
        let claim = Self {
            config: config_file(data_dir),
            _lock: lock,
        };
        // A killed demo has left its configuration behind.
        claim.remove_config()?;
        Ok(claim)
    }

    /// Tells commands in other terminals where the demo is and which configuration it runs with.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, address: &str, config: &Configuration) -> Result<(), CommandError> {
        let demo = Demo {
            address: address.to_owned(),
            config: config.with_absolute_paths(),
        };
        let text = serde_json::to_string(&demo).map_err(|error| CommandError::Other(error.to_string()))?;
        // Written under another name first, so that a reader never sees a part of it.
        let partial = self.config.with_extension("partial");
        crate::dev::write_private(&partial, &text).map_err(|error| unusable(&partial, &error))?;
        std::fs::rename(&partial, &self.config).map_err(|error| unusable(&self.config, &error))
    }

    fn remove_config(&self) -> Result<(), CommandError> {
        for path in [&self.config, &self.config.with_extension("partial")] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(unusable(path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What stays behind is not used without the lock.
        let _ = self.remove_config();
    }
}

/// Returns the demo that runs over a data folder; `None` when none does.
///
/// # Errors
/// When it is still starting, or its configuration cannot be read.
pub fn running(data_dir: &Path) -> Result<Option<Demo>, CommandError> {
    if !is_running(data_dir)? {
        return Ok(None);
    }
    let path = config_file(data_dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let problem = "the demo is still starting: try again when it has printed its address";
            return Err(CommandError::Other(problem.into()));
        }
        Err(error) => return Err(unusable(&path, &error)),
    };
    let problem = |error: serde_json::Error| {
        let help = "the demo runs with another version of this program: restart it with";
        let program = crate::console::program();
        CommandError::Other(format!("{}: {error}; {help} `{program} dev`", path.display()))
    };
    serde_json::from_str(&text).map(Some).map_err(problem)
}

/// Whether a demo runs, or is starting, over a data folder.
fn is_running(data_dir: &Path) -> Result<bool, CommandError> {
    if !lock_file(data_dir).exists() {
        return Ok(false);
    }
    match open_lock(data_dir)?.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(unusable(data_dir, &error)),
    }
}

fn open_lock(data_dir: &Path) -> Result<File, CommandError> {
    let path = lock_file(data_dir);
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(0o600);
    options.open(&path).map_err(|error| unusable(&path, &error))
}

fn lock_file(data_dir: &Path) -> PathBuf {
    data_dir.join("demo.lock")
}

fn config_file(data_dir: &Path) -> PathBuf {
    data_dir.join("demo.json")
}

fn unusable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::Other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tenantry-demo-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_demo_is_found_while_it_holds_its_claim() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = scratch("found");
        assert!(running(&folder).unwrap().is_none());
        let claim = Claim::of(&folder).unwrap();
        assert!(running(&folder).is_err_and(|error| error.to_string().contains("still starting")));
        let mut config = Configuration::default();
        config.metering.spool_dir = "usage".into();
        claim.publish("http://127.0.0.1:8080", &config).unwrap();
        let demo = running(&folder).unwrap().unwrap();
        assert_eq!(demo.address, "http://127.0.0.1:8080");
        assert!(demo.config.metering.spool_dir.is_absolute());
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(config_file(&folder)), mode(lock_file(&folder))),
            (0o600, 0o600)
        );
        assert!(Claim::of(&folder).is_err_and(|error| error.to_string().contains("already")));
        drop(claim);
        assert!(running(&folder).unwrap().is_none() && !config_file(&folder).exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn configuration_of_a_killed_demo_is_not_used() {
        let folder = scratch("killed");
        std::fs::write(lock_file(&folder), "").unwrap();
        std::fs::write(config_file(&folder), "{}").unwrap();
        assert!(running(&folder).unwrap().is_none());
        let claim = Claim::of(&folder).unwrap();
        assert!(!config_file(&folder).exists());
        drop(claim);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
