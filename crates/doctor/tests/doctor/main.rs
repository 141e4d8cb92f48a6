//! The doctor on real databases: Tenantry's own, one that never heard of Tenantry, and each rule broken once.

// `cfg(test)` holds for all of it anyway; written down it tells clippy that the helpers are tests too.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod clean;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod service_tables;
#[cfg(test)]
mod stranger;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tamperings;
