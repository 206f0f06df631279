use super::*;
use proptest::prelude::*;

fn with_cookies(lines: &[&str]) -> HeaderMap {
    lines.iter().map(|l| (COOKIE, HeaderValue::from_str(l).unwrap())).collect()
}

/// What is left of the cookies that are taken off.
fn left(found: Carried, headers: &mut HeaderMap) -> String {
    let mut lines = RawHeaders::default();
    found.strip(headers, &mut lines);
    String::from_utf8(lines.as_bytes().to_vec()).unwrap()
}

fn at(epoch: u64, txid: u64) -> Option<Token> {
    Some(EpochTxid { epoch: Epoch(epoch), txid: Txid(txid) })
}

#[test]
fn found_among_other_cookies_and_taken_out() {
    let mut headers =
        with_cookies(&["a=1; __txid=00000000000000ff;__txid_epoch=7; b=\"x; y\"", "c"]);
    let found = find(&headers, false);
    assert_eq!((found.token, found.malformed), (at(7, 255), false));
    assert_eq!(left(found, &mut headers), "cookie: a=1; b=\"x; y\"\r\ncookie: c\r\n");
    assert!(headers.is_empty());
}

#[test]
fn a_header_with_nothing_left_is_removed() {
    let mut headers = with_cookies(&["__txid=00000000000000ff; __txid_epoch=7"]);
    assert_eq!(left(find(&headers, false), &mut headers), "");
    assert!(headers.is_empty());
}

#[test]
fn cookies_without_a_token_are_left_alone() {
    let mut headers = with_cookies(&["a=1;;b=2 "]);
    assert_eq!(left(find(&headers, false), &mut headers), "");
    assert_eq!(headers, with_cookies(&["a=1;;b=2 "]));
}

#[test]
fn the_highest_of_several_counts() {
    let mut headers = with_cookies(&[
        "__txid=0000000000000009; __txid_epoch=1; __txid=0000000000000003; __txid_epoch=2",
    ]);
    assert_eq!(find(&headers, false).token, at(2, 3));
    headers.insert(TXID_HEADER, HeaderValue::from_static("0000000000000005"));
    headers.insert(EPOCH_HEADER, HeaderValue::from_static("2"));
    assert_eq!(find(&headers, true).token, at(2, 5));
}

#[test]
fn litefs_own_cookie_alone_has_no_epoch() {
    assert_eq!(find(&with_cookies(&["__txid=0000000000000009"]), false).token, at(0, 9));
}

#[test]
fn malformed_tokens_are_told_from_none() {
    for bad in [
        "__txid=9",
        "__txid=000000000000000G",
        "__txid=",
        "__txid",
        "__txid=0000000000000009; __txid_epoch=-1",
        "__txid_at_00ff=0000000000000009",
        "__txid_at_00ff=2.9",
        "__txid=0000000000000009; __txid_epoch=99999999999999999999",
    ] {
        let found = find(&with_cookies(&[bad]), false);
        assert!(found.malformed && found.token.is_none(), "{bad}");
    }
    assert_eq!(
        find(
            &with_cookies(&[
                "x__txid=9; __txidx=1; __txid_at_=1; __txid_at_00FF=1; __txid_at_00ff0=2"
            ]),
            false
        ),
        Carried::default()
    );
}

#[test]
fn cookies_say_what_the_configuration_says() {
    let setter = |secure, domain: Option<&str>| {
        Setter::new(&config::Cookie {
            same_site: config::SameSite::Lax,
            secure,
            domain: domain.map(str::to_owned),
        })
    };
    let cookies = |setter: Setter, tls| {
        let mut headers = HeaderMap::new();
        setter.set(at(3, 10).unwrap(), tls, &Marks::default(), &mut headers);
        let all: Vec<_> =
            headers.get_all(SET_COOKIE).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        all
    };
    let plain = cookies(setter(config::Secure::Auto, None), false);
    let marked = plain[2].split_once('=').unwrap();
    assert!(mark(marked.0.as_bytes()).is_some(), "{marked:?}");
    assert_eq!(marked.1, "3.000000000000000a; HttpOnly; SameSite=Lax; Path=/; Max-Age=300");
    assert_eq!(
        plain[..2],
        [
            "__txid=000000000000000a; HttpOnly; SameSite=Lax; Path=/; Max-Age=300",
            "__txid_epoch=3; HttpOnly; SameSite=Lax; Path=/; Max-Age=300"
        ]
    );
    let tls = cookies(setter(config::Secure::Auto, Some("example.org")), true);
    assert!(tls[0].contains("Domain=example.org") && tls[0].ends_with("; Secure"), "{tls:?}");
    assert!(cookies(setter(config::Secure::Always, None), false)[1].ends_with("; Secure"));
    assert!(!cookies(setter(config::Secure::Never, None), true)[1].contains("Secure"));
}

/// What a browser does with the `Set-Cookie` fields of responses, in the order in which they arrive.
#[derive(Default)]
struct Jar(std::collections::BTreeMap<String, String>);

impl Jar {
    fn take(&mut self, response: &HeaderMap) {
        for cookie in response.get_all(SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => self.0.remove(name),
                false => self.0.insert(name.to_owned(), value.to_owned()),
            };
        }
    }

    fn carried(&self) -> Carried {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        find(&with_cookies(&[&pairs.join("; ")]), false)
    }
}

#[test]
fn what_a_browser_holds_only_grows_in_whatever_order_responses_arrive() {
    let setter = Setter::new(&config::Cookie {
        same_site: config::SameSite::Lax,
        secure: config::Secure::Auto,
        domain: None,
    });
    let response = |jar: &Carried, txid| {
        let mut headers = HeaderMap::new();
        setter.set(at(2, txid).unwrap(), false, &jar.marks, &mut headers);
        headers
    };
    let mut jar = Jar::default();
    for round in 0..20 {
        let (sent, base) = (jar.carried(), round * 10);
        let [one, two, three] = [1, 2, 3].map(|n| response(&sent, base + n));
        jar.take(&three);
        jar.take(&one);
        assert_eq!(jar.carried().token, at(2, base + 3), "what came last is older");
        jar.take(&two);
        assert_eq!(jar.carried().token, at(2, base + 3));
        assert!(jar.0.len() <= 2 + 3, "{:?}", jar.0);
    }
    // A token that the primary finds impossible goes, with the cookie that it came by.
    let sent = jar.carried();
    jar.take(&response(&sent, 1));
    assert_eq!(jar.carried().token, at(2, 1));
    assert!(!jar.carried().malformed);
}

#[test]
fn shared_caches_get_no_cookie_but_clients_the_header() {
    let setter = Setter::new(&config::Cookie {
        same_site: config::SameSite::Lax,
        secure: config::Secure::Auto,
        domain: None,
    });
    for (control, cookie) in [
        ("public, max-age=3", false),
        ("S-MaxAge=60", false),
        ("private", true),
        ("no-store", true),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
        setter.set(at(1, 1).unwrap(), false, &Marks::default(), &mut headers);
        assert_eq!(headers.contains_key(SET_COOKIE), cookie, "{control}");
        assert_eq!(headers[TXID_HEADER], "0000000000000001");
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_a_cookie_nothing_of_ours_reaches_the_app(line in "[ -~]{0,80}", txid: u64) {
        let mut headers =
            with_cookies(&[&line, &format!("{line}; __txid={txid:016x}; {line}")]);
        let left = left(find(&headers, false), &mut headers);
        prop_assert!(headers.is_empty());
        let kept: Vec<_> = left.lines().map(|l| l.strip_prefix("cookie: ").unwrap()).collect();
        prop_assert_eq!(tokens(&with_cookies(&kept)).count(), 0);
    }
}
