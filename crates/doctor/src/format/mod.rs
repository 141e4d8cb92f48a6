//! The forms in which a report can be had.

mod fix_script;
mod human;
mod json;
mod sarif;

pub(crate) use json::{canonical, value};
