use std::fmt::Write as _;

use serde_json::{Number, Value};

/// Integers beyond this have no exact double, and RFC 8785 knows no other number.
const LARGEST_EXACT: u64 = 1 << 53;

/// A JSON value in the canonical form of RFC 8785, so that equal values have equal bytes.
///
/// An integer that has no exact double becomes the string of its digits, as the RFC advises: rounded, two different numbers would
/// have the same bytes.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    text
}

fn write(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(is) => text.push_str(if *is { "true" } else { "false" }),
        Value::Number(number) => write_number(text, number),
        Value::String(string) => write_string(text, string),
        Value::Array(members) => {
            text.push('[');
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(text, member);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            text.push('{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_string(text, name);
                text.push(':');
                write(text, member);
            }
            text.push('}');
        }
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            // Writing into a string cannot fail.
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

fn write_number(text: &mut String, number: &Number) {
    let exact = number
        .as_i64()
        .is_some_and(|number| number.unsigned_abs() <= LARGEST_EXACT);
    match number.as_f64() {
        _ if exact => text.push_str(&number.to_string()),
        Some(double) if number.is_f64() => write_double(text, double),
        _ => write_string(text, &number.to_string()),
    }
}

/// A double as ECMAScript writes it: the shortest digits that are read as the same double, and an exponent where the number is
/// below 1e-6 or at least 1e21.
fn write_double(text: &mut String, double: f64) {
    if double == 0.0 {
        return text.push('0');
    }
    let scientific = format!("{:e}", double.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    // The decimal point comes after so many digits.
    let point = exponent.parse::<i32>().unwrap_or_default() + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if double < 0.0 {
        text.push('-');
    }
    let zeros = |number: i32| "0".repeat(usize::try_from(number).unwrap_or_default());
    let (head, tail) = digits.split_at(usize::try_from(point.clamp(0, count)).unwrap_or_default());
    let _ = match point {
        _ if count <= point && point <= 21 => write!(text, "{digits}{}", zeros(point - count)),
        1..=21 => write!(text, "{head}.{tail}"),
        -5..=0 => write!(text, "0.{}{digits}", zeros(-point)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            write!(text, "{first}{dot}{rest}e{:+}", point - 1)
        }
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The example of RFC 8785, section 3.2.4, and the numbers of its appendix B.
    #[test]
    fn canonical_form_is_that_of_rfc_8785() {
        let value = json!({
            "numbers": [333_333_333.333_333_3, 1e30, 4.50, 2e-3, 0.000_000_000_000_000_000_000_000_001],
            "string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/",
            "literals": [null, true, false],
        });
        assert_eq!(
            canonical(&value),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        for (double, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (f64::from_bits(1), "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (295_147_905_179_352_830_000.0, "295147905179352830000"),
            (9.999_999_999_999_997e22, "9.999999999999997e+22"),
            (1e23, "1e+23"),
            (999_999_999_999_999_700_000.0, "999999999999999700000"),
            (1e21, "1e+21"),
            (0.000_001, "0.000001"),
            (1e-7, "1e-7"),
            (-333_333_333.333_333_25, "-333333333.33333325"),
        ] {
            assert_eq!(canonical(&json!(double)), expected);
        }
    }

    #[test]
    fn names_are_sorted_by_utf_16_and_large_integers_stay_exact() {
        let value = json!({"\u{fb33}": 1, "\u{1f600}": 2, "\u{20ac}": 3, "1": 4, "\r": 5});
        assert_eq!(
            canonical(&value),
            "{\"\\r\":5,\"1\":4,\"\u{20ac}\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
        let large = json!([
            9_007_199_254_740_992_i64,
            9_007_199_254_740_993_i64,
            u64::MAX,
            i64::MIN
        ]);
        assert_eq!(
            canonical(&large),
            "[9007199254740992,\"9007199254740993\",\"18446744073709551615\",\"-9223372036854775808\"]"
        );
    }
}
