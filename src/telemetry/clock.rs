//! Points in time and spans of it as text.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 in UTC, to the millisecond: `2026-11-20T11:31:32.5Z`.
pub fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    // Years beyond 9999 have no such form; a clock set that wrong is not worth an error.
    at.format(&Rfc3339).unwrap_or_default()
}

/// Reads a whole number with its unit: `250ms`, `5s`, `3m`, `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = digits.parse().ok()?;
    let seconds = |factor| number.checked_mul(factor).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn is_utc_with_milliseconds() {
        let at = UNIX_EPOCH + Duration::new(1_795_174_292, 512_345_678);
        assert_eq!(rfc3339(at), "2026-11-20T11:31:32.512Z");
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        for bad in
            ["", "5", "s", "5 s", "-5s", "1.5s", "99999999999999999999s", "9999999999999999h"]
        {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }
}
