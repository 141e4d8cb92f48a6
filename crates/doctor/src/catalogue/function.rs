use serde::Deserialize;

use super::{Grant, sql};
use crate::Options;
use crate::quote::{self, literal};

/// A function or a procedure.
#[derive(Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The types of its arguments, as SQL names it.
    pub(crate) arguments: String,
    pub(crate) owner: String,
    /// SECURITY DEFINER: it runs with the rights of its owner.
    pub(crate) definer: bool,
    /// What is set while it runs, as `name=value`.
    pub(crate) settings: Vec<String>,
    pub(crate) language: String,
    pub(crate) trusted: bool,
    pub(crate) leakproof: bool,
    pub(crate) extension: Option<String>,
    /// One of PostgreSQL's own that reach files or other servers.
    pub(crate) built_in: bool,
    pub(crate) grants: Vec<Grant>,
}

impl Function {
    /// Its full name with its arguments, as SQL writes it.
    pub(crate) fn sql_name(&self) -> String {
        format!(
            "{}({})",
            quote::qualified(&self.schema, &self.name),
            self.arguments
        )
    }
}

/// A function that stands for the tenant setting in policies, if it is one.
#[derive(Debug, Deserialize)]
pub(crate) struct TenantFunction {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) stable: bool,
    pub(crate) language: String,
    pub(crate) body: String,
}

pub(super) fn functions() -> String {
    format!(
        "SELECT f.nspname AS schema, p.proname AS name, pg_get_function_identity_arguments(p.oid) AS arguments,
            pg_get_userbyid(p.proowner) AS owner, p.prosecdef AS definer,
            coalesce(to_json(p.proconfig), '[]') AS settings, l.lanname AS language,
            l.lanpltrusted AS trusted, p.proleakproof AS leakproof, {extension} AS extension, p.oid < 16384 AS built_in,
            {grants} AS grants
         FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace f ON f.oid = p.pronamespace
         WHERE p.oid >= 16384 AND f.oid IN (SELECT oid FROM searched)
            OR p.oid < 16384 AND f.nspname = 'pg_catalog' AND p.proname IN ({BUILT_IN})
         ORDER BY 1, 2, 3",
        extension = sql::extension("pg_proc", "p.oid"),
        grants = sql::grants("p.proacl", "'f'", "p.proowner"),
    )
}

/// They reach the files of the server, which hold the rows of everybody.
pub(super) const BUILT_IN: &str =
    "'pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'pg_stat_file', 'lo_import', 'lo_export'";

pub(super) fn tenant_functions(options: &Options) -> String {
    let names: Vec<String> = options
        .tenant_functions
        .iter()
        .map(|name| literal(name))
        .collect();
    let condition = if names.is_empty() {
        "false".to_owned()
    } else {
        let names = names.join(", ");
        format!("(p.proname IN ({names}) OR n.nspname || '.' || p.proname IN ({names}))")
    };
    format!(
        "SELECT n.nspname AS schema, p.proname AS name, p.provolatile = 's' AS stable, l.lanname AS language,
            coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
         WHERE p.pronargs = 0 AND {condition} ORDER BY 1, 2"
    )
}
