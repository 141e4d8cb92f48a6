use crate::kernel::Check;

pub(crate) fn check_key(check: &mut Check, pointer: &str, key: &str) {
    check.require(is_key(key), pointer, "invalid_key", KEY_RULE);
}

/// Keys go into paths and logs as they are.
pub(crate) fn is_key(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(inner)
}

pub(crate) const KEY_RULE: &str = "must be 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter";
