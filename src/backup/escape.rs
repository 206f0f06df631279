//! Bytes as a mark and two hex digits.

/// Reads them; `None`: some are none, or no text.
pub(super) fn unescape(text: &str, mark: u8) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, more)) = rest.split_first() {
        rest = more;
        if *byte == mark {
            let (digits, more) = rest.split_at_checked(2)?;
            // A sign is no digit, though to `from_str_radix` it may stand before some.
            let digits =
                std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = more;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}
