use std::cmp::Ordering;

use serde_json::Number;

/// The value of a JSON number, compared exactly: `5` is `5.0`, and 2^53 + 1 is not 2^53. As `f64` alone those two would
/// be equal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Exact {
    /// A whole number below [`LARGEST_WHOLE`].
    Whole(i128),
    /// A fraction, or a number from there on.
    Other(f64),
}

/// 2^100. Every whole `f64` below it is an `i128`, and every integer of 64 bits is below it.
const LARGEST_WHOLE: f64 = 1_267_650_600_228_229_401_496_703_205_376.0;

impl Exact {
    /// The value of a number.
    pub(crate) fn of(number: &Number) -> Self {
        let integer = number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from));
        match (integer, number.as_f64()) {
            (Some(integer), _) => Self::Whole(integer),
            // The cast cannot truncate: the number is whole and in range.
            (None, Some(number)) if number.fract() == 0.0 && number.abs() < LARGEST_WHOLE => {
                Self::Whole(number as i128)
            }
            (None, number) => Self::Other(number.unwrap_or(f64::NAN)),
        }
    }

    /// How it compares; `None` for what is no number.
    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (Self::Other(one), Self::Other(other)) => one.partial_cmp(&other),
            (Self::Whole(one), Self::Other(other)) => compare_whole(one, other),
            (Self::Other(one), Self::Whole(other)) => compare_whole(other, one).map(Ordering::reverse),
        }
    }
}

/// The two are never equal: the one is whole, and the other a fraction or larger than every whole.
fn compare_whole(whole: i128, other: f64) -> Option<Ordering> {
    if other.is_nan() {
        return None;
    }
    let is_less = if other.abs() >= LARGEST_WHOLE {
        other > 0.0
    } else {
        // Fractions end below 2^52, so that the cast cannot truncate.
        whole <= other.floor() as i128
    };
    Some(if is_less {
        Ordering::Less
    } else {
        Ordering::Greater
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn compare(one: &Value, other: &Value) -> Option<Ordering> {
        let exact = |value: &Value| Exact::of(value.as_number().unwrap());
        exact(one).compare(exact(other))
    }

    #[test]
    fn numbers_compare_by_their_exact_value() {
        use Ordering::{Equal, Greater, Less};
        for (one, other, ordering) in [
            (json!(5), json!(5.0), Equal),
            (json!(0), json!(-0.0), Equal),
            (
                json!(9_007_199_254_740_993_u64),
                json!(9_007_199_254_740_992_u64),
                Greater,
            ),
            (
                json!(9_007_199_254_740_993_u64),
                json!(9_007_199_254_740_992.0),
                Greater,
            ),
            (
                json!(76_561_198_000_000_001_u64),
                json!(76_561_198_000_000_002_u64),
                Less,
            ),
            (json!(u64::MAX), json!(18_446_744_073_709_551_616.0), Less),
            (json!(i64::MIN), json!(-9_223_372_036_854_775_808.0), Equal),
            (json!(5), json!(5.5), Less),
            (json!(-5), json!(-5.5), Greater),
            (json!(-6), json!(-5.5), Less),
            (json!(u64::MAX), json!(1e300), Less),
            (json!(i64::MIN), json!(-1e300), Greater),
            (json!(1e300), json!(1e299), Greater),
            (json!(5e-324), json!(0), Greater),
        ] {
            assert_eq!(compare(&one, &other), Some(ordering), "{one} {other}");
            assert_eq!(compare(&other, &one), Some(ordering.reverse()), "{other} {one}");
        }
    }

    proptest! {
        #[test]
        fn integers_compare_as_integers(one: i64, other: i64) {
            prop_assert_eq!(compare(&json!(one), &json!(other)), Some(one.cmp(&other)));
        }

        #[test]
        fn fractions_compare_as_fractions(one in -1e40..1e40_f64, other in -1e40..1e40_f64) {
            prop_assert_eq!(compare(&json!(one), &json!(other)), one.partial_cmp(&other));
        }

        #[test]
        fn small_integers_compare_with_fractions_as_fractions(one in -1_000_000..1_000_000_i64, other in -1e6..1e6_f64) {
            let expected = (one as f64).partial_cmp(&other);
            prop_assert_eq!(compare(&json!(one), &json!(other)), expected);
        }
    }
}
