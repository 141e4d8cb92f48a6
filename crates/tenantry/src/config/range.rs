use super::ConfigurationError;

/// Refuses a number that is not from its least to its most, by the key of its setting.
pub(super) fn in_range(numbers: &[(&'static str, u64, u64, u64)]) -> Result<(), ConfigurationError> {
    for &(key, value, least, most) in numbers {
        if !(least..=most).contains(&value) {
            return Err(ConfigurationError::invalid(
                key,
                format!("must be in {least}..={most}, is {value}"),
            ));
        }
    }
    Ok(())
}

/// An hour, in milliseconds.
pub(super) const HOUR_MS: u64 = 3_600_000;
