use super::*;
use proptest::prelude::*;

/// The body and the trailers of what comes in such pieces; `None`: its end is missing.
fn decode(pieces: &[&[u8]]) -> io::Result<Option<(Vec<u8>, Option<HeaderMap>)>> {
    let (mut chunks, mut came, mut body) = (Chunks::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        came.extend_from_slice(piece);
        loop {
            match chunks.decode(&mut came)? {
                Found::Data(data) => body.extend_from_slice(&data),
                Found::End(trailers) => return Ok(Some((body, trailers))),
                Found::Nothing => break,
            }
        }
    }
    Ok(None)
}

#[test]
fn chunks_are_put_together() {
    for (said, body) in [
        ("0\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("3;x=\"y\"\r\nabc\r\n1 \r\nd\r\n000\r\n\r\n", "abcd"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
    ] {
        let (decoded, trailers) = decode(&[said.as_bytes()]).unwrap().unwrap();
        assert_eq!((decoded.as_slice(), trailers), (body.as_bytes(), None), "{said:?}");
    }
}

#[test]
fn trailers_follow_the_last_chunk() {
    let (_, trailers) = decode(&[b"0\r\nX-Sum: 6\r\nx-b: c\r\n\r\n"]).unwrap().unwrap();
    let trailers = trailers.unwrap();
    assert_eq!((trailers.len(), &trailers["x-sum"]), (2, &HeaderValue::from_static("6")));
}

#[test]
fn what_others_may_read_otherwise_is_refused() {
    let long = format!("1;{}", "x".repeat(MAX_LINE));
    let trailers = format!("0\r\nx: {}", "y".repeat(MAX_TRAILERS));
    for said in [
        "\r\n",
        ";x\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1\n",
        "1;x\ny\r\n",
        "1\rx\r\n",
        "10000000000000000\r\n",
        "1\r\nabc\r\n",
        "1\r\na\nb",
        "1\r\na0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nx: y\n\n",
        "0\r\nx: y\r\n folded\r\n\r\n",
        &long,
        &trailers,
    ] {
        assert!(decode(&[said.as_bytes()]).is_err(), "{said:?}");
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_body(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6),
        cut in 1..30usize,
    ) {
        let mut said = Vec::new();
        for piece in &pieces {
            said.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            said.extend_from_slice(piece);
            said.extend_from_slice(b"\r\n");
        }
        said.extend_from_slice(b"0\r\nx: y\r\n\r\n");
        let cuts: Vec<_> = said.chunks(cut).collect();
        let (body, trailers) = decode(&cuts).unwrap().unwrap();
        prop_assert_eq!(body, pieces.concat());
        prop_assert_eq!(trailers.unwrap().len(), 1);
    }

    #[test]
    fn no_bytes_are_too_much_for_it(
        said in proptest::collection::vec(any::<u8>(), 0..200), cut in 1..30usize
    ) {
        let cuts: Vec<_> = said.chunks(cut).collect();
        if let Ok(Some((body, _))) = decode(&cuts) {
            prop_assert!(body.len() < said.len());
        }
    }
}
