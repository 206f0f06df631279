//! Who is let in, and what everybody else is told.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::log::Log;
use super::*;
use crate::peer::greeting::GreetingRefusal;
use crate::peer::{DialError, Stream};

pub(crate) fn refusal(result: Result<Stream, DialError>) -> (GreetingRefusal, String) {
    match result {
        Err(DialError::Refused(refusal, detail)) => (refusal, detail),
        other => panic!("{other:?} is no refusal"),
    }
}

pub(crate) async fn round_trip(stream: &mut Stream) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn a_peer_that_has_moved_is_found_where_it_says_it_is() {
    for over in Over::BOTH {
        let mut tasks = JoinSet::new();
        let new = over.echo(&mut tasks, "n1", MANY, TIMES).await;
        // Somebody else is there now.
        let old = over.echo(&mut tasks, "n3", MANY, TIMES).await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for old in [old, nobody] {
            let dialer = over.dialer("n2", &[("n1", old)]);
            assert!(dialer.dial_now(&node("n1"), ECHO).await.is_err());
            dialer.announce(&node("n1"), host_port(new));
            for _ in 0..2 {
                round_trip(&mut dialer.dial_now(&node("n1"), ECHO).await.unwrap()).await;
            }
        }
    }
}

#[tokio::test]
async fn a_member_reaches_the_protocol_it_asks_for() {
    for over in Over::BOTH {
        let mut listener = over.bind("n1", TIMES).await;
        let at = listener.local_addr().unwrap();
        let (seen, mut incoming) = tokio::sync::mpsc::unbounded_channel();
        for protocol in ["test-a/1", "test-b/1"] {
            let seen = seen.clone();
            listener.handle(protocol, MANY, Arc::new(move |i| seen.send((protocol, i)).unwrap()));
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(listener.run());
        for (from, protocol) in [("n2", "test-b/1"), ("n3", "test-a/1")] {
            let dialed =
                over.dialer(from, &[("n1", at)]).dial(&node("n1"), protocol).await.unwrap();
            let (by, incoming) = incoming.recv().await.unwrap();
            assert_eq!((by, incoming.node.as_str()), (protocol, from));
            for stream in [&dialed, &incoming.stream] {
                let socket = socket2::SockRef::from(stream.socket());
                assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            }
            drop(dialed);
        }
    }
}

#[tokio::test]
async fn bytes_pass_untouched_and_either_way_can_end_first() {
    for over in Over::BOTH {
        let mut tasks = JoinSet::new();
        let at = over.echo(&mut tasks, "n1", MANY, TIMES).await;
        let stream = over.dialer("n2", &[("n1", at)]).dial(&node("n1"), ECHO).await.unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let expected = sent.clone();
        tasks.spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.unwrap();
        assert!(back == expected);
    }
}

#[tokio::test]
async fn a_connection_can_move_to_another_runtime() {
    for over in Over::BOTH {
        let (streams, mut dialed) = tokio::sync::mpsc::unbounded_channel::<Stream>();
        let worker = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut stream = dialed.recv().await.unwrap().adopt().unwrap();
                round_trip(&mut stream).await;
            });
        });
        let mut tasks = JoinSet::new();
        let at = over.echo(&mut tasks, "n1", MANY, TIMES).await;
        streams
            .send(over.dialer("n2", &[("n1", at)]).dial(&node("n1"), ECHO).await.unwrap())
            .unwrap();
        tokio::task::spawn_blocking(|| worker.join().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn strangers_are_refused_with_the_reason() {
    for over in Over::BOTH {
        let mut tasks = JoinSet::new();
        let at = over.echo(&mut tasks, "n1", MANY, TIMES).await;

        let stranger = over.dialer("n9", &[("n1", at)]).dial(&node("n1"), ECHO).await;
        assert_eq!(refusal(stranger).0, GreetingRefusal::NotAMember);

        let (reason, detail) =
            refusal(over.dialer("n2", &[("n3", at)]).dial(&node("n3"), ECHO).await);
        assert_eq!(reason, GreetingRefusal::WrongNode);
        assert!(detail.contains("this is n1"), "{detail}");

        let itself = over.dialer("n1", &[("n2", at)]).dial(&node("n2"), ECHO).await;
        // With TLS it recognizes itself by the certificate.
        let expected =
            if over == Over::Tls { GreetingRefusal::WrongNode } else { GreetingRefusal::Itself };
        assert_eq!(refusal(itself).0, expected);

        let (reason, detail) =
            refusal(over.dialer("n2", &[("n1", at)]).dial(&node("n1"), "no/1").await);
        assert_eq!(reason, GreetingRefusal::UnknownProtocol);
        assert!(detail.contains("no/1"), "{detail}");
    }
}

#[tokio::test]
async fn a_refusal_is_logged_once_a_minute_for_each_peer() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let mut tasks = JoinSet::new();
    let at = echo(&mut tasks, "n1", MANY, TIMES).await;
    for _ in 0..20 {
        answer_to(at, b"GET / HTTP/1.1\r\n\r\n").await;
    }
    let text = log.text();
    assert_eq!(text.matches("refused on the peer port").count(), 1, "{text}");
    assert!(text.contains("malformed") && text.contains("127.0.0.1"), "{text}");
}

/// Sends raw bytes and returns all that comes back.
async fn answer_to(at: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(at).await.unwrap();
    // A big piece of garbage may be cut off by the answer; the answer still arrives.
    let _ = socket.write_all(bytes).await;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn garbage_is_refused_and_hurts_nobody() {
    let mut tasks = JoinSet::new();
    let at = echo(&mut tasks, "n1", MANY, TIMES).await;
    let endless = [&b"LITEPILOT/1 "[..], &[b'a'; 5000]].concat();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"LITEPILOT/9 test-echo/1 n2 n1\n",
        b"LITEPILOT/1 test-echo/1 n2\n",
        b"LITEPILOT/1 test-echo/1 n2 n1\nand more at once",
        &endless,
    ] {
        let answer = answer_to(at, garbage).await;
        assert!(answer.starts_with("NO malformed "), "{answer:?}");
    }
    let mut stream = dialer("n2", &[("n1", at)]).dial(&node("n1"), ECHO).await.unwrap();
    round_trip(&mut stream).await;
}

#[tokio::test]
async fn the_silent_and_the_slow_are_refused_and_hold_nobody_up() {
    let mut tasks = JoinSet::new();
    let times = Times { greeting: Duration::from_millis(300), ..TIMES };
    let at = echo(&mut tasks, "n1", MANY, times).await;
    let mut silent = TcpStream::connect(at).await.unwrap();
    let mut slow = TcpStream::connect(at).await.unwrap();

    let mut stream = dialer("n2", &[("n1", at)]).dial(&node("n1"), ECHO).await.unwrap();
    round_trip(&mut stream).await;

    let (mut slow_reader, mut slow_writer) = slow.split();
    let drip = async {
        // A valid beginning and no end, byte by byte, until the connection is taken away.
        let line = b"LITEPILOT/1 ".iter().chain(std::iter::repeat(&b'a'));
        for byte in line {
            if slow_writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let mut answer = String::new();
    tokio::select! {
        read = slow_reader.read_to_string(&mut answer) => drop(read.unwrap()),
        () = drip => {}
    }
    assert!(answer.starts_with("NO too-slow "), "{answer:?}");
    let mut answer = String::new();
    silent.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("NO too-slow "), "{answer:?}");
}

/// More than may greet at once.
const CROWD: usize = 300;

#[tokio::test]
async fn a_crowd_of_silent_strangers_is_bounded_and_keeps_no_member_out() {
    for over in Over::BOTH {
        let mut tasks = JoinSet::new();
        let times = Times { greeting: Duration::from_secs(600), ..TIMES };
        let at = over.echo(&mut tasks, "n1", MANY, times).await;
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(TcpStream::connect(at).await.unwrap());
        }
        let dialer = over.dialer("n2", &[("n1", at)]);
        round_trip(&mut dialer.dial_now(&node("n1"), ECHO).await.unwrap()).await;
        // Those who came first were closed without a word.
        assert!(matches!(crowd[0].read(&mut [0]).await, Ok(0) | Err(_)));
        let present = crowd.iter().filter(|one| !is_closed(one)).count();
        assert!((200..CROWD).contains(&present), "{present}");
    }
}

fn is_closed(stranger: &TcpStream) -> bool {
    let read = stranger.try_read(&mut [0]);
    !matches!(read, Err(why) if why.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn members_get_in_while_strangers_take_every_place_again_and_again() {
    for over in Over::BOTH {
        let mut tasks = JoinSet::new();
        let times = Times { greeting: Duration::from_secs(600), ..TIMES };
        let at = over.echo(&mut tasks, "n1", MANY, times).await;
        tasks.spawn(async move {
            let mut crowd = std::collections::VecDeque::new();
            loop {
                crowd.push_back(TcpStream::connect(at).await);
                if crowd.len() > CROWD {
                    crowd.pop_front();
                }
            }
        });
        let dialer = over.dialer("n2", &[("n1", at)]);
        for _ in 0..20 {
            round_trip(&mut dialer.dial_now(&node("n1"), ECHO).await.unwrap()).await;
        }
    }
}

#[tokio::test]
async fn connections_are_counted_per_peer_and_in_all_and_places_come_free() {
    for over in Over::BOTH {
        let mut tasks = JoinSet::new();
        let limits = ConnectionLimits { per_peer: 2, total: 3 };
        let at = over.echo(&mut tasks, "n1", limits, TIMES).await;
        let two = over.dialer("n2", &[("n1", at)]);
        let three = over.dialer("n3", &[("n1", at)]);
        let n1 = node("n1");

        let first = two.dial(&n1, ECHO).await.unwrap();
        let _second = two.dial(&n1, ECHO).await.unwrap();
        assert_eq!(refusal(two.dial(&n1, ECHO).await).0, GreetingRefusal::Busy);
        let _third = three.dial(&n1, ECHO).await.unwrap();
        assert_eq!(refusal(three.dial(&n1, ECHO).await).0, GreetingRefusal::Busy);

        drop(first);
        let mut again = loop {
            match three.dial(&n1, ECHO).await {
                Ok(stream) => break stream,
                Err(DialError::Refused(GreetingRefusal::Busy, _)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        };
        round_trip(&mut again).await;
    }
}

#[tokio::test]
async fn whoever_is_no_litepilot_is_recognized() {
    let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = somebody.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut socket, _) = somebody.accept().await.unwrap();
        socket.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let error = dialer("n2", &[("n1", at)]).dial(&node("n1"), ECHO).await.unwrap_err();
    assert!(matches!(error, DialError::Greeting(_)), "{error:?}");
    assert!(error.to_string().contains("no Litepilot"), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_answers_is_given_up() {
    let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let peers = [(node("n1"), host_port(somebody.local_addr().unwrap()))];
    let times = Times { greeting: Duration::from_millis(100), ..TIMES };
    let error = Dialer::new(node("n2"), &peers, times).dial(&node("n1"), ECHO).await.unwrap_err();
    assert!(matches!(error, DialError::Net(crate::net::DialError::TimedOut(_))), "{error:?}");
}
