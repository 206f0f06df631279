//! As a service manager starts it, and what the application has of that.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

use super::program::Setup;
use super::raw::Client;

/// Gives the socket that its argument numbers to what it becomes, as systemd does.
const ACTIVATE: &str = "import os, sys
fd = int(sys.argv[1])
os.dup2(fd, 3) if fd != 3 else os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])";

#[tokio::test]
async fn the_application_has_the_limits_umask_and_environment_of_the_service() {
    let app = "echo limit $(ulimit -Sn) umask $(umask) of $FOR_THE_APP
        echo input $(wc -c) told $(env | grep -c 'NOTIFY_SOCKET\\|WATCHDOG\\|LISTEN')
        exec sleep 1000";
    let service = "ulimit -Sn 512; umask 027; export FOR_THE_APP=service NOTIFY_SOCKET=@nobody \
        WATCHDOG_USEC=1000000 LISTEN_FDS=0; exec \"$@\"";
    let mut program = Setup::new()
        .wrapped_in(&["sh", "-c", service, "sh"])
        .arguments(&["--", "sh", "-c", app])
        .start()
        .await;
    program.says("limit 512 umask 0027 of service").await;
    program.says("input 0 told 0").await;
}

#[tokio::test]
async fn the_service_manager_is_told_of_start_life_and_end() {
    let setup = Setup::new();
    let path = setup.file("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut text = [0; 64];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let notify = format!("NOTIFY_SOCKET={}", path.display());
    let program = setup.wrapped_in(&["env", &notify, "WATCHDOG_USEC=200000"]).start().await;
    let mut seen = vec![told(), told(), told()];
    assert!(seen.contains(&"READY=1".to_owned()), "{seen:?}");
    assert!(seen.contains(&"WATCHDOG=1".to_owned()), "{seen:?}");
    program.signal(Signal::TERM);
    while seen.last().unwrap() != "STOPPING=1" {
        seen.push(told());
    }
}

#[tokio::test]
async fn a_socket_of_the_service_manager_refuses_nobody_during_a_restart() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    let address = socket.local_addr().unwrap();
    let fd = socket.as_raw_fd().to_string();
    let setup = || {
        Setup::new()
            .proxy(&format!("listen: {address}"))
            .wrapped_in(&["python3", "-c", ACTIVATE, &fd])
    };
    let mut first = setup().start().await;
    assert_eq!(first.proxy_address(), address);
    let mut client = first.client().await;
    assert_eq!(client.ask("GET /litefs/health", &[]).await.status(), 503);
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0));
    let mut between = Client::connect(address).await;
    between.begin("GET /litefs/health", &[]).await;
    let second = setup().start().await;
    assert_eq!(between.response().await.status(), 503);
    assert_eq!(second.proxy_address(), address);
}

#[tokio::test]
async fn a_socket_that_is_for_nothing_here_is_named() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    let fd = socket.as_raw_fd().to_string();
    let mut program = Setup::new().wrapped_in(&["python3", "-c", ACTIVATE, &fd]).start().await;
    let said = program.says("is neither proxy.listen nor admin.listen").await;
    assert!(said.contains(&socket.local_addr().unwrap().to_string()), "{said}");
}
