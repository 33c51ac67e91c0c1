//! Values: one parser per shape, each of which can say what it expects.

use std::ops::RangeInclusive;

const MS_PER_HOUR: u64 = 3_600_000;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A whole number between two bounds, both included; the text names the unit.
    Int(i64, i64, &'static str),
    /// `true` or `false`, in any case.
    Bool,
    /// `yes` or `no`; `true` and `false` are taken too.
    YesNo,
    /// One of these words, in any case.
    OneOf(&'static [&'static str]),
    /// A whole number of hours, or a number with a suffix `ms s m h d`.
    Interval,
    /// A number with a fraction.
    Real,
    /// Anything.
    Text,
    /// Anything that is not empty.
    Filled,
}

impl Shape {
    /// What to write instead.
    pub(crate) fn expected(self) -> String {
        match self {
            Shape::Int(min, i64::MAX, unit) => format!("a whole number, {min} or more ({unit})"),
            Shape::Int(min, max, unit) => format!("a whole number from {min} to {max} ({unit})"),
            Shape::Bool => "true or false".to_owned(),
            Shape::YesNo => "yes or no".to_owned(),
            Shape::OneOf(words) => format!("one of: {}", words.join(", ")),
            Shape::Interval => {
                "a whole number of hours, or a number with ms, s, m, h or d behind it".to_owned()
            }
            Shape::Real => "a number".to_owned(),
            Shape::Text => "any text".to_owned(),
            Shape::Filled => "a value that is not empty".to_owned(),
        }
    }

    /// True when `raw` is of this shape.
    pub(crate) fn takes(self, raw: &str) -> bool {
        match self {
            Shape::Int(min, max, _) => int(raw).is_some_and(|n| RangeInclusive::new(min, max).contains(&n)),
            Shape::Bool => boolean(raw).is_some(),
            Shape::YesNo => yes_no(raw).is_some(),
            Shape::OneOf(words) => words.iter().any(|w| w.eq_ignore_ascii_case(raw)),
            Shape::Interval => interval_ms(raw).is_some(),
            Shape::Real => raw.parse::<f64>().is_ok_and(f64::is_finite),
            Shape::Text => true,
            Shape::Filled => !raw.is_empty(),
        }
    }
}

/// A whole number: decimal with an optional sign, or hexadecimal as Java's `Integer.decode` takes it (`0xfffff`).
pub(crate) fn int(raw: &str) -> Option<i64> {
    let (sign, digits) = match raw.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, raw.strip_prefix('+').unwrap_or(raw)),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((digits, 10), |hex| (hex, 16));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(digits, radix).ok().map(|n| n * sign)
}

/// `true` or `false`, in any case, and nothing else.
pub(crate) fn boolean(raw: &str) -> Option<bool> {
    match () {
        () if raw.eq_ignore_ascii_case("true") => Some(true),
        () if raw.eq_ignore_ascii_case("false") => Some(false),
        () => None,
    }
}

/// `yes` or `no`, in any case; `true` and `false` are taken too.
pub(crate) fn yes_no(raw: &str) -> Option<bool> {
    match () {
        () if raw.eq_ignore_ascii_case("yes") => Some(true),
        () if raw.eq_ignore_ascii_case("no") => Some(false),
        () => boolean(raw),
    }
}

/// Milliseconds in `24` (hours), `90m`, `1d`, `500ms`; 0 or less switches off and comes back as 0.
pub(crate) fn interval_ms(raw: &str) -> Option<u64> {
    let split = raw.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
    let (number, unit) = raw.split_at(split);
    let factor = match unit {
        "" | "h" => MS_PER_HOUR,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "d" => 24 * MS_PER_HOUR,
        _ => return None,
    };
    let number = u64::try_from(int(number)?.max(0)).ok()?;
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers() {
        for (raw, want) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("+7", Some(7)),
            ("010", Some(10)),
            ("0xfffff", Some(1_048_575)),
            ("-0X10", Some(-16)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("0x", None),
            ("1.5", None),
            ("1_000", None),
            ("- 1", None),
            ("--1", None),
            ("abc", None),
        ] {
            assert_eq!(int(raw), want, "{raw:?}");
        }
    }

    #[test]
    fn intervals() {
        for (raw, want) in [
            ("0", Some(0)),
            ("-1", Some(0)),
            ("24", Some(86_400_000)),
            ("24h", Some(86_400_000)),
            ("1d", Some(86_400_000)),
            ("90m", Some(5_400_000)),
            ("5s", Some(5_000)),
            ("250ms", Some(250)),
            ("1w", None),
            ("h", None),
            ("", None),
            ("9223372036854775807d", None),
        ] {
            assert_eq!(interval_ms(raw), want, "{raw:?}");
        }
    }

    #[test]
    fn shapes_take_their_own_and_say_what_they_expect() {
        let port = Shape::Int(0, 65_535, "port");
        assert!(port.takes("65535") && !port.takes("65536") && !port.takes("-1"));
        assert_eq!(port.expected(), "a whole number from 0 to 65535 (port)");
        assert!(Shape::Bool.takes("TRUE") && !Shape::Bool.takes("yes"));
        assert!(Shape::YesNo.takes("No") && Shape::YesNo.takes("true") && !Shape::YesNo.takes("0"));
        assert!(Shape::OneOf(&["a", "b"]).takes("A") && !Shape::OneOf(&["a"]).takes(""));
        assert!(Shape::Real.takes("-0.33") && !Shape::Real.takes("NaN") && !Shape::Real.takes("x"));
        assert!(Shape::Text.takes("") && !Shape::Filled.takes(""));
        assert_eq!(Shape::OneOf(&["a", "b"]).expected(), "one of: a, b");
    }
}
