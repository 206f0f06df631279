//! How a path may read to an application.
//!
//! We forward the path as it came; what an application makes of it we cannot know. So a path that
//! can be read in more than one way is classified in each, and the strictest class wins:
//!
//! | reading | who reads so | `/x/..%2F%61dmin;p` |
//! | --- | --- | --- |
//! | as it came | access lists that look at the raw target | `/x/..%2F%61dmin;p` |
//! | decoded | WSGI, ASGI, Rack: Django, Flask, Rails | `/x/../admin;p` |
//! | decoded, then dots removed | nginx, Go | `/admin;p` |
//! | dots removed, then decoded | the WHATWG URL parser: Node, Deno | `/x/../admin;p` |
//! | decoded; `\` is `/`; parameters cut, slashes merged, dots removed | Tomcat, and all leniencies at once | `/admin` |
//!
//! Decoding happens once, as in every server: `%2561` means the text `%61`. A `%` that begins no
//! valid escape stands for itself. Bytes need not be UTF-8 afterwards. Upper and lower case differ.

/// The path holds a NUL, plain or encoded: no application means that, C strings end there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

impl std::fmt::Display for BadPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the path holds a NUL (%00); paths hold none")
    }
}

impl std::error::Error for BadPath {}

/// Whether every reader reads this path as it came. Most paths are so: this is on the path of
/// every request, and may say no to a plain path (`/.well-known/`), but never yes to another.
pub(crate) fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' | b';' | 0 => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// The readings of a path other than as it came, each once.
///
/// # Errors
///
/// If the path holds a NUL once decoded.
pub(crate) fn readings(path: &[u8]) -> Result<Vec<Vec<u8>>, BadPath> {
    let decoded = decode(path);
    if decoded.contains(&0) {
        return Err(BadPath);
    }
    let mut readings = vec![
        without_dots(&decoded, dots),
        decode(&without_dots(&with_slashes(path), |segment| dots(&decode(segment)))),
        without_dots(&lenient(&decoded), dots),
        decoded,
    ];
    readings.sort_unstable();
    readings.dedup();
    readings.retain(|reading| reading != path);
    Ok(readings)
}

/// Replaces each valid `%XX` by its byte, once.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match escape(rest) {
            Some(byte) => {
                decoded.push(byte);
                rest = &rest[3..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

/// The byte that an escape at the beginning of the text stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// What a segment of only dots does.
enum Dots {
    Stay,
    Up,
}

fn dots(segment: &[u8]) -> Option<Dots> {
    match segment {
        b"." => Some(Dots::Stay),
        b".." => Some(Dots::Up),
        _ => None,
    }
}

/// Removes dot segments as RFC 3986, section 5.2.4, does for absolute paths.
fn without_dots(path: &[u8], dots: impl Fn(&[u8]) -> Option<Dots>) -> Vec<u8> {
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    let mut removed = Vec::with_capacity(path.len());
    let mut segments = relative.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let Some(dots) = dots(segment) else {
            removed.push(b'/');
            removed.extend_from_slice(segment);
            continue;
        };
        if let Dots::Up = dots {
            removed.truncate(removed.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        }
        if segments.peek().is_none() {
            removed.push(b'/');
        }
    }
    removed
}

/// Takes backslashes for slashes.
fn with_slashes(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// Takes backslashes for slashes, cuts `;parameters` off each segment, merges slashes.
fn lenient(path: &[u8]) -> Vec<u8> {
    let mut simple = Vec::with_capacity(path.len());
    let mut in_parameters = false;
    for byte in with_slashes(path) {
        in_parameters = match byte {
            b'/' => false,
            b';' => true,
            _ => in_parameters,
        };
        let doubled = byte == b'/' && simple.last() == Some(&b'/');
        if !in_parameters && !doubled {
            simple.push(byte);
        }
    }
    simple
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The readings as text, sorted.
    fn read(path: &str) -> Vec<String> {
        let readings = readings(path.as_bytes()).unwrap();
        readings.iter().map(|reading| String::from_utf8_lossy(reading).into_owned()).collect()
    }

    #[test]
    fn plain_paths_have_one_reading() {
        for path in ["/", "*", "", "/a/b.c", "/a../b", "/a/b/", "/a:b@c", "/caf\u{e9}"] {
            assert!(is_plain(path.as_bytes()), "{path}");
            assert!(read(path).is_empty() || !path.starts_with('/'), "{path}: {:?}", read(path));
        }
    }

    #[test]
    fn other_paths_are_read_in_every_way_an_application_might() {
        for (path, expected) in [
            ("/%61dmin", &["/admin"][..]),
            ("/%2561dmin", &["/%61dmin"]),
            ("/a%2Fb", &["/a/b"]),
            ("/a%2fb", &["/a/b"]),
            ("/a/./b/../c/.", &["/a/c/"]),
            ("/../../a", &["/a"]),
            ("/a/..", &["/"]),
            ("/a/%2e%2E/b", &["/a/../b", "/b"]),
            ("/a%2F..%2Fb", &["/a/../b", "/b"]),
            ("/a%2Fx/../b", &["/a/b", "/a/x/../b", "/b"]),
            ("/x%2F..%2Fa;v", &["/a", "/a;v", "/x/../a;v"]),
            ("//a///b", &["/a/b"]),
            ("/a//../b", &["/a/b", "/b"]),
            ("/a;v=1/b;w", &["/a/b"]),
            ("/a/..;/b", &["/b"]),
            ("/a\\..\\b", &["/b"]),
            ("/a%5Cb", &["/a/b", "/a\\b"]),
            ("/a%", &[]),
            ("/a%zz%4", &[]),
            ("/a%zz%41", &["/a%zzA"]),
            ("/%+1%-1", &[]),
            ("/.well-known/x", &[]),
            ("/.../x", &[]),
        ] {
            assert!(!is_plain(path.as_bytes()), "{path}");
            assert_eq!(read(path), expected, "{path}");
        }
    }

    #[test]
    fn decoding_yields_bytes_whether_they_are_text_or_not() {
        assert_eq!(readings(b"/%ff%C3"), Ok(vec![b"/\xff\xc3".to_vec()]));
    }

    #[test]
    fn nul_is_refused_but_its_name_is_not() {
        assert_eq!(readings(b"/a%00.css"), Err(BadPath));
        assert_eq!(readings(b"/a\0"), Err(BadPath));
        assert!(!is_plain(b"/a\0"));
        assert_eq!(read("/a%2500"), ["/a%00"]);
    }
}
