use super::*;
use proptest::prelude::*;

fn read(said: &str, method: &Method) -> io::Result<ParsedHead> {
    parse(&Bytes::copy_from_slice(said.as_bytes()), method)
}

fn head(fields: &str) -> io::Result<Head> {
    match read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), &Method::GET)? {
        ParsedHead::Final(head) => Ok(head),
        other => panic!("{fields:?}: {other:?}"),
    }
}

#[test]
fn each_body_has_one_end() {
    for (fields, framing) in [
        ("content-length: 5\r\n", Framing::Length(5)),
        ("content-length: 5\r\nContent-Length: 5\r\n", Framing::Length(5)),
        ("content-length: 5, 5\r\n", Framing::Length(5)),
        ("content-length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
        ("transfer-encoding: Chunked\r\n", Framing::Chunked),
        ("content-length: 5\r\ntransfer-encoding: chunked\r\n", Framing::Chunked),
        ("x: y\r\n", Framing::UntilClose),
    ] {
        let head = head(fields).unwrap();
        assert_eq!(head.framing, framing, "{fields}");
        let lengths: Vec<_> = head.response.headers().get_all(CONTENT_LENGTH).iter().collect();
        match framing {
            Framing::Length(length) => assert_eq!(lengths, [&HeaderValue::from(length)]),
            _ => assert!(lengths.is_empty(), "{fields}"),
        }
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: +5\r\n",
        "content-length: -5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length: \r\n",
        "content-length: ,\r\n",
        "content-length: 18446744073709551616\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: \r\n",
        "transfer-encoding : chunked\r\n",
        " x: folded\r\n",
        "x: y\r\n folded\r\n",
        "x y: z\r\n",
        "x\0: z\r\n",
        "x: a\0b\r\n",
        "x: a\rb\r\n",
        "no colon\r\n",
    ] {
        assert!(head(fields).is_err(), "{fields:?}");
    }
    for line in ["HTTP/2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 099 OK", "ICY 200 OK", "200 OK"] {
        assert!(read(&format!("{line}\r\n\r\n"), &Method::GET).is_err(), "{line}");
    }
    let old = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(read(old, &Method::GET).is_err());
}

#[test]
fn some_responses_have_no_body_whatever_they_say() {
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
        for fields in ["content-length: 5\r\n", "transfer-encoding: chunked\r\n", ""] {
            let said = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
            let ParsedHead::Final(head) = read(&said, &method).unwrap() else { panic!("{said}") };
            assert_eq!((head.framing, head.keep), (Framing::Length(0), true), "{said}");
        }
    }
}

#[test]
fn what_concerns_the_connection_goes_no_further() {
    let head = head(
        "connection: x-private, keep-alive\r\nX-Private: 1\r\nkeep-alive: timeout=5\r\n\
         upgrade: h2c\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\nx-kept: 1\r\n",
    )
    .unwrap();
    let mut names: Vec<_> = head.response.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-kept"]);
}

#[test]
fn interim_responses_are_told_from_final_ones() {
    let said = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 2";
    let ParsedHead::Interim(status, rest) = read(said, &Method::GET).unwrap() else { panic!() };
    assert_eq!((status.as_u16(), &rest[..]), (103, &b"HTTP/1.1 2"[..]));
    let said = "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\n\r\nhello";
    let ParsedHead::Final(head) = read(said, &Method::GET).unwrap() else { panic!() };
    assert_eq!((head.framing, head.keep), (Framing::Switched, false));
    assert_eq!(&head.rest[..], b"hello");
}

#[test]
fn a_reason_of_its_own_is_kept() {
    let ParsedHead::Final(head) = read("HTTP/1.1 200 Fine\r\n\r\n", &Method::GET).unwrap() else {
        panic!()
    };
    let reason = head.response.extensions().get::<ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Fine");
}

#[test]
fn a_head_has_its_limits() {
    let fields = |n| (0..n).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    assert!(head(&fields(MAX_FIELDS)).is_ok());
    assert!(head(&fields(MAX_FIELDS + 1)).is_err());
    assert!(head(&format!("x: {}\r\n", "y".repeat(MAX_HEAD))).is_err());
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD));
    assert!(read(&endless, &Method::GET).is_err());
}

proptest! {
    #[test]
    fn no_bytes_are_too_much_for_it(said in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&Bytes::from(said), &Method::GET);
    }

    #[test]
    fn the_end_of_a_head_is_never_overlooked(
        fields in "([a-z]{1,5}: [ -~]{0,9}\r?\n){0,5}", cut in any::<proptest::sample::Index>()
    ) {
        let said = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let cut = cut.index(said.len());
        prop_assert!(matches!(read(&said[..cut], &Method::GET), Ok(ParsedHead::Partial) | Err(_)));
        prop_assert!(may_end(said.as_bytes(), cut), "{said:?} cut at {cut}");
    }
}
