//! The applications of `tests/apps` by themselves, without Litepilot: a fault of theirs shows here,
//! and is not searched for in the proxy.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::python::{
    self, Address, App, DJANGO_PASSWORD, DJANGO_USER, Gunicorn, Uvicorn, Worker, django_migrate,
};

/// What has not happened by then never will.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn the_python_package_passes_its_own_tests() {
    python::succeed(
        python::program("python")
            .args(["-m", "pytest", "--quiet", "tests"])
            .env("LITEPILOT_BIN", env!("CARGO_BIN_EXE_litepilot"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("python")),
    );
}

#[tokio::test]
async fn flask_keeps_entries_and_sessions_under_either_worker() {
    for worker in [Worker::Sync, Worker::Gthread] {
        let dir = tempfile::tempdir().unwrap();
        let app = Gunicorn::flask(worker, 2, dir.path()).start();

        assert_eq!(get_json(&app, "/api/entries").await, json!([]), "{worker:?}");
        let login = ask(&app, form("/login", "name=ann", "")).await;
        assert_eq!(login.status(), StatusCode::SEE_OTHER);
        let signed = ask(&app, form("/sign", "text=hello", &cookies(&login))).await;
        assert_eq!(signed.status(), StatusCode::SEE_OTHER);

        let page = text(ask(&app, get("/")).await);
        assert!(page.contains("hello") && page.contains("ann"), "{page}");
        let entries = get_json(&app, "/api/entries").await;
        assert_eq!(entries[0]["text"], "hello");
        assert_eq!(entries[0]["author"], "ann");
    }
}

#[tokio::test]
async fn flask_api_takes_good_entries_and_says_what_is_wrong_with_bad_ones() {
    let dir = tempfile::tempdir().unwrap();
    let app = Gunicorn::flask(Worker::Gthread, 1, dir.path()).start();

    let made = ask(&app, post_json("/api/entries", r#"{"text": "hello"}"#)).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    for bad in ["", "[]", "{}", r#"{"text": 1}"#, r#"{"text": " "}"#] {
        let refused = ask(&app, post_json("/api/entries", bad)).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(get_json(&app, "/api/entries").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn flask_says_how_an_upload_was_framed() {
    let dir = tempfile::tempdir().unwrap();
    let app = Gunicorn::flask(Worker::Sync, 1, dir.path()).start();

    let whole = Request::post("/upload").body(full("12345")).unwrap();
    let seen = json_of(ask(&app, whole).await);
    assert_eq!(seen["bytes"], 5);
    assert_eq!(seen["content_length"], "5");
    assert_eq!(seen["transfer_encoding"], Value::Null);

    let chunked = Request::post("/upload").header(header::TRANSFER_ENCODING, "chunked");
    let seen_chunked = json_of(ask(&app, chunked.body(full("12345")).unwrap()).await);
    assert_eq!(seen_chunked["bytes"], 5);
    assert_eq!(seen_chunked["content_length"], Value::Null);
    assert_eq!(seen_chunked["transfer_encoding"], "chunked");
    assert_eq!(seen_chunked["sha256"], seen["sha256"]);
}

#[tokio::test]
async fn flask_sends_what_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let app = Gunicorn::flask(Worker::Gthread, 1, dir.path()).start();

    for path in ["/download?bytes=300000", "/download?bytes=300000&chunked=1"] {
        let body = ask(&app, get(path)).await.into_body();
        assert!(body.iter().copied().eq((0..300_000).map(|i| (i % 251) as u8)), "{path}");
    }
    let range = Request::get("/file").header(header::RANGE, "bytes=250-252");
    let part = ask(&app, range.body(full("")).unwrap()).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 250-252/100000");
    assert_eq!(&part.body()[..], [250, 0, 1]);

    let events = text(ask(&app, get("/stream?events=2&interval=0")).await);
    assert_eq!(events, "id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n");
    for status in [200, 204, 304, 404, 500] {
        let answer = ask(&app, get(&format!("/status/{status}"))).await;
        assert_eq!(answer.status(), status);
    }
    let known = Request::get("/etag").header(header::IF_NONE_MATCH, "\"guestbook\"");
    let unchanged = ask(&app, known.body(full("")).unwrap()).await;
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn both_guestbooks_count_how_often_a_request_came() {
    let dir = tempfile::tempdir().unwrap();
    let flask = Gunicorn::flask(Worker::Sync, 2, dir.path()).start();
    let django_dir = tempfile::tempdir().unwrap();
    django_migrate(django_dir.path());
    let django = Gunicorn::django(Worker::Sync, 2, django_dir.path()).start();

    for app in [&flask, &django] {
        for id in ["a", "b", "a"] {
            let counted = Request::post("/api/count").header("x-request-id", id);
            let answer = ask(app, counted.body(full("")).unwrap()).await;
            assert_eq!(answer.status(), StatusCode::OK);
        }
        let counts = get_json(app, "/api/count").await;
        assert_eq!(counts, json!({"count": 3, "requests": {"a": 2, "b": 1}}));
    }
}

#[tokio::test]
async fn flask_asks_for_a_replay_on_a_replica_only() {
    let dir = tempfile::tempdir().unwrap();
    let app = Gunicorn::flask(Worker::Sync, 1, dir.path()).start();

    for (path, role, replay) in [
        ("/replay", "replica", true),
        ("/replay", "primary", false),
        ("/replay?always=1", "primary", true),
    ] {
        let request = Request::get(path).header("litepilot-role", role);
        let answer = ask(&app, request.body(full("")).unwrap()).await;
        assert_eq!(answer.headers().contains_key("litepilot-replay"), replay, "{path} {role}");
    }
}

#[tokio::test]
async fn gunicorn_is_reloaded_killed_and_restarted_in_its_place() {
    for unix in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let launch = Gunicorn::flask(Worker::Sync, 1, dir.path());
        let mut app = if unix { launch.unix() } else { launch }.start();
        let address = app.address().clone();

        let before = get_json(&app, "/pid").await;
        assert_eq!(before["master"], app.pid());
        app.reload();
        let replaced = async {
            while get_json(&app, "/pid").await["pid"] == before["pid"] {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, replaced).await.expect("the old worker still answers");
        assert_eq!(get_json(&app, "/pid").await["master"], before["master"]);

        app.kill_9();
        assert!(connect(&address).await.is_err(), "{address}: somebody still listens");
        app.restart();
        assert_eq!(app.address(), &address);
        assert_ne!(get_json(&app, "/pid").await["master"], before["master"]);
    }
}

#[tokio::test]
async fn django_signs_people_in_under_gunicorn_and_uvicorn() {
    let dir = tempfile::tempdir().unwrap();
    django_migrate(dir.path());
    for app in [
        Gunicorn::django(Worker::Sync, 1, dir.path()).start(),
        Gunicorn::django(Worker::Gthread, 1, dir.path()).start(),
        Uvicorn::django(dir.path()).start(),
    ] {
        let page = ask(&app, get("/admin/login/")).await;
        let token = csrf_token(&page);
        let visitor = cookies(&page);
        let login = format!(
            "csrfmiddlewaretoken={token}&username={DJANGO_USER}&password={DJANGO_PASSWORD}&next=/admin/"
        );
        let unprotected = ask(&app, form("/admin/login/", &login, "")).await;
        assert_eq!(unprotected.status(), StatusCode::FORBIDDEN);
        let welcome = ask(&app, form("/admin/login/", &login, &visitor)).await;
        assert_eq!(welcome.status(), StatusCode::FOUND, "{}", app.log());

        let user = cookies(&welcome);
        let admin = Request::get("/admin/").header(header::COOKIE, &user);
        assert!(text(ask(&app, admin.body(full("")).unwrap()).await).contains("Log out"));
        for visits in [1, 2] {
            let visit = Request::get("/visits/").header(header::COOKIE, &user);
            let answer = json_of(ask(&app, visit.body(full("")).unwrap()).await);
            assert_eq!(answer["visits"], visits);
        }
        let token = cookie(&user, "csrftoken");
        let entry = format!("csrfmiddlewaretoken={token}&text=hello");
        let signed = ask(&app, form("/sign", &entry, &user)).await;
        assert_eq!(signed.status(), StatusCode::SEE_OTHER);
        assert_eq!(get_json(&app, "/api/entries").await[0]["author"], DJANGO_USER);
    }
}

#[tokio::test]
async fn django_reads_uploads_and_streams_events() {
    let dir = tempfile::tempdir().unwrap();
    django_migrate(dir.path());
    let app = Uvicorn::django(dir.path()).start();

    let body = "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n\
                12345\r\n--cut--\r\n";
    let upload = Request::post("/upload")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=cut")
        .body(full(body));
    assert_eq!(json_of(ask(&app, upload.unwrap()).await)["bytes"], 5);
    let bare = Request::post("/upload").body(full("1234567")).unwrap();
    assert_eq!(json_of(ask(&app, bare).await)["bytes"], 7);

    let events = text(ask(&app, get("/stream?events=2&interval=0")).await);
    assert_eq!(events, "id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n");
}

#[tokio::test]
async fn django_believes_the_proxy_about_scheme_and_host() {
    let dir = tempfile::tempdir().unwrap();
    django_migrate(dir.path());
    let app = Gunicorn::django(Worker::Sync, 1, dir.path()).start();

    let request = Request::get("/echo-headers")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "localhost:8443");
    let seen = json_of(ask(&app, request.body(full("")).unwrap()).await);
    assert_eq!(seen["url"], "https://localhost:8443/echo-headers");
    assert_eq!(seen["secure"], true);
}

#[tokio::test]
async fn the_websocket_echo_greets_and_echoes() {
    let app = Uvicorn::ws_echo().start();
    let mut socket = TcpStream::connect(("127.0.0.1", app.port())).await.unwrap();
    // The key and the masked "Hello" are the examples of RFC 6455, sections 1.3 and 5.7.
    let handshake = "GET /room?x=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    const MASKED_HELLO: [u8; 11] =
        [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    const HELLO: &[u8] = b"\x81\x05Hello";
    socket.write_all(handshake.as_bytes()).await.unwrap();
    // A client must not send a frame before it has the whole answer to its handshake.
    let mut received = read_until(&mut socket, b"}").await;
    socket.write_all(&MASKED_HELLO).await.unwrap();
    received.extend(read_until(&mut socket, HELLO).await);

    let received = String::from_utf8_lossy(&received);
    assert!(received.starts_with("HTTP/1.1 101 "), "{received}");
    assert!(received.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{received}");
    assert!(received.contains(r#""path": "/room", "query": "x=1""#), "{received}");
}

async fn read_until(socket: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    while !received.ends_with(end) {
        assert_ne!(socket.read_buf(&mut received).await.unwrap(), 0, "{received:?}");
    }
    received
}

/// One request on a connection of its own, and the whole response.
async fn ask(app: &App, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let io = TokioIo::new(connect(app.address()).await.unwrap());
    let (mut sender, connection) = handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    head.headers.insert(header::HOST, header::HeaderValue::from_static("localhost"));
    let response = sender.send_request(Request::from_parts(head, body)).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Response::from_parts(head, body)
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(address: &Address) -> std::io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

fn full(body: &str) -> Full<Bytes> {
    Full::new(Bytes::copy_from_slice(body.as_bytes()))
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(full("")).unwrap()
}

async fn get_json(app: &App, path: &str) -> Value {
    json_of(ask(app, get(path)).await)
}

fn form(path: &str, fields: &str, cookies: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::COOKIE, cookies)
        .body(full(fields))
        .unwrap()
}

fn post_json(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path).header(header::CONTENT_TYPE, "application/json").body(full(body)).unwrap()
}

fn text(response: Response<Bytes>) -> String {
    String::from_utf8(response.into_body().to_vec()).unwrap()
}

fn json_of(response: Response<Bytes>) -> Value {
    let status = response.status();
    let body = text(response);
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {status} {body}"))
}

/// The cookies that a response sets, as a browser sends them back.
fn cookies(response: &Response<Bytes>) -> String {
    let set = response.headers().get_all(header::SET_COOKIE).iter();
    let pairs = set.map(|value| value.to_str().unwrap().split(';').next().unwrap());
    pairs.collect::<Vec<_>>().join("; ")
}

/// One cookie's value.
fn cookie<'a>(cookies: &'a str, name: &str) -> &'a str {
    let mut pairs = cookies.split("; ").filter_map(|pair| pair.split_once('='));
    pairs.find(|pair| pair.0 == name).unwrap().1
}

/// The token in a page's form.
fn csrf_token(page: &Response<Bytes>) -> String {
    let body = std::str::from_utf8(page.body()).unwrap();
    let (_, after) = body.split_once(r#"name="csrfmiddlewaretoken" value=""#).unwrap();
    after.split_once('"').unwrap().0.to_owned()
}
