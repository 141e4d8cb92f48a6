use std::fmt::Display;

/// A number with its noun: `1 line`, `2 lines`.
pub fn counted<N: Display + PartialEq + From<u8>>(number: &N, noun: &str) -> String {
    let ending = if *number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{ending}")
}
