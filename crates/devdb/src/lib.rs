//! A private PostgreSQL cluster, run from the machine's own server binaries.
//!
//! `tenantry dev` keeps its data in one, and the tests start a throwaway one when neither a database nor
//! Docker is at hand. It is not a way to run PostgreSQL in production: there is one superuser, one machine
//! and no backup.
//!
//! PostgreSQL refuses to run as root, so when this process is root the server runs as the user `postgres`,
//! or as `nobody` where that user does not exist.
//!
//! # What lies in the data folder
//!
//! | Path                 | What                                                          |
//! |----------------------|---------------------------------------------------------------|
//! | `pg`                 | the cluster; `pg.partial` while it is being made               |
//! | `run`                | the directory of the Unix socket, entered by the server's user only |
//! | `superuser.password` | the password of `postgres`, mode 0600                          |
//! | `port`               | the TCP port of the last run, taken again when it is free      |
//! | `postgres.log`       | what the server said                                           |
//! | `lock`               | held while a start or a stop is under way                      |
//! | `moved-to`           | only when the data had to go elsewhere: the real place         |

mod account;
mod binaries;
mod cluster;
mod error;
mod files;
mod folder;
mod server;
mod watchdog;

pub use binaries::find_binaries;
pub use cluster::{Cluster, ClusterOptions, Durability};
pub use error::DevDbError;
