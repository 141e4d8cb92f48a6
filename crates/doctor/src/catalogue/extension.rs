use serde::Deserialize;

use super::{Grant, sql};

/// An extension that is installed.
#[derive(Debug, Deserialize)]
pub(crate) struct Extension {
    pub(crate) name: String,
}

/// Another server that can be reached from here.
#[derive(Debug, Deserialize)]
pub(crate) struct ForeignServer {
    pub(crate) name: String,
    pub(crate) wrapper: String,
    pub(crate) grants: Vec<Grant>,
}

pub(super) const EXTENSIONS: &str = "SELECT extname AS name FROM pg_extension ORDER BY extname";

pub(super) fn foreign_servers() -> String {
    format!(
        "SELECT s.srvname AS name, w.fdwname AS wrapper, {} AS grants
         FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw ORDER BY s.srvname",
        sql::grants("s.srvacl", "'S'", "s.srvowner")
    )
}
