//! Durations as Go's `time.ParseDuration` takes them: `300ms`, `1.5h`, `2h45m`.

use std::time::Duration;

/// Go's are 64 bits of nanoseconds, with a sign.
const LONGEST: u128 = i64::MAX as u128;

/// The duration. Negative ones, which make no sense for any key, are refused.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    match rest {
        "0" => return Some(Duration::ZERO),
        "" => return None,
        _ => {}
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, behind) = digits(rest);
        let (fraction, behind) = match behind.strip_prefix('.') {
            Some(behind) => digits(behind),
            None => ("", behind),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, behind) = unit(behind)?;
        nanos = nanos.checked_add(number(whole)?.checked_mul(unit)?)?;
        nanos = nanos.checked_add(part(fraction, unit)?)?;
        rest = behind;
    }
    let nanos = u64::try_from(nanos).ok().filter(|nanos| u128::from(*nanos) <= LONGEST)?;
    Some(Duration::from_nanos(nanos))
}

/// The shortest form of which Go makes the same; at most what Go can hold.
pub(crate) fn text(duration: Duration) -> String {
    let nanos = duration.as_nanos().min(LONGEST);
    for (unit, name) in [(3_600_000_000_000, "h"), (1_000_000_000, "s"), (1_000_000, "ms")] {
        if nanos.is_multiple_of(unit) && nanos > 0 {
            return format!("{}{name}", nanos / unit);
        }
    }
    if nanos == 0 { "0s".to_owned() } else { format!("{nanos}ns") }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn number(digits: &str) -> Option<u128> {
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

/// What so many digits behind the point are of a unit. Go drops what is less than a nanosecond.
fn part(digits: &str, unit: u128) -> Option<u128> {
    let digits = digits.get(..digits.len().min(18))?;
    let scale = 10u128.pow(u32::try_from(digits.len()).ok()?);
    Some(number(digits)?.checked_mul(unit)? / scale)
}

fn unit(text: &str) -> Option<(u128, &str)> {
    // The longer names first.
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    units.iter().find_map(|(name, unit)| Some((*unit, text.strip_prefix(name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn goes_own_examples() {
        for (text, millis) in [
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("2h45m", 9_900_000),
            ("1h0m0.25s", 3_600_250),
            (".5s", 500),
            ("10s", 10_000),
            ("0", 0),
            ("+5s", 5_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "3", "-5s", "s", "1d", "1 s", ".s", "1h ", "99999999h", "1.5", "+", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_text_means_the_duration(nanos in 0..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&text(duration)), Some(duration));
        }
    }
}
