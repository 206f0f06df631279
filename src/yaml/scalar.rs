//! What an unquoted scalar means: YAML 1.2's core schema, less the forms that surprise.
//!
//! `yes`, `off`, `0x10`, `.inf` are text here; where a number or a boolean is wanted that is an error,
//! which is better than a guess.

use super::Value;

/// The value of a scalar without quotes.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::Text(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Rust's own parser also takes "inf" and "nan".
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Value::Int);
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_and_booleans_are_typed() {
        for (text, value) in [
            ("", Value::Null),
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("-12", Value::Int(-12)),
            ("007", Value::Int(7)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
        ] {
            assert_eq!(resolve(text), value, "{text}");
        }
        for text in [
            "yes", "off", "True", "0x10", "1_000", "inf", "nan", ".inf", "1.2.3", "5s", "-", "+",
            ".", "1e999",
        ] {
            assert_eq!(resolve(text), Value::Text(text.to_owned()));
        }
    }
}
