//! Timestamps as text.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 in UTC, to the millisecond: `2026-11-20T11:31:32.512Z`.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    // Years beyond 9999 have no such form; a clock set that wrong is not worth an error.
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn is_utc_with_milliseconds() {
        let at = UNIX_EPOCH + Duration::new(1_795_174_292, 512_345_678);
        assert_eq!(rfc3339(at), "2026-11-20T11:31:32.512Z");
    }
}
