//! The migrations on a real PostgreSQL, and mostly as the runtime role: as a superuser every test of
//! row-level security passes, whatever the policies say.

// `cfg(test)` holds for all of it anyway; written down it tells clippy that the helpers are tests too.
#[cfg(test)]
mod bootstrapping;
#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod data;
#[cfg(test)]
mod first_passwords;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod running;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tenant_names;
#[cfg(test)]
mod workspaces;
