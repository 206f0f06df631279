//! Starts the Python applications of `tests/apps`: real servers in processes of their own.
//!
//! `Gunicorn::flask(Worker::Sync, 2, dir).start()` returns once the application answers, on a port
//! that the system chose; dropping it kills the whole process group. A failure shows the server's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// What has not happened by then never will; only a broken server is waited for this long.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// How long one attempt to get an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The user that [`django_migrate`] creates; may use the admin.
pub const DJANGO_USER: &str = "alice";
/// Her password.
pub const DJANGO_PASSWORD: &str = "wonderland";

/// gunicorn's kinds of workers.
#[derive(Clone, Copy, Debug)]
pub enum Worker {
    /// One request at a time per worker, no keep-alive.
    Sync,
    /// Four threads per worker, with keep-alive.
    Gthread,
}

/// Applications under gunicorn.
pub struct Gunicorn;

impl Gunicorn {
    /// The Flask guestbook, with `dir/db.sqlite3`.
    pub fn flask(worker: Worker, workers: usize, dir: &Path) -> Launch {
        gunicorn("flask_guestbook", worker, workers, dir)
    }

    /// The Django guestbook, with `dir/db.sqlite3`; see [`django_migrate`].
    pub fn django(worker: Worker, workers: usize, dir: &Path) -> Launch {
        gunicorn("django_guestbook", worker, workers, dir)
    }
}

/// Applications under uvicorn.
pub struct Uvicorn;

impl Uvicorn {
    /// The Django guestbook over ASGI, with `dir/db.sqlite3`; see [`django_migrate`].
    pub fn django(dir: &Path) -> Launch {
        uvicorn("django_guestbook", "config.asgi:application").env("GUESTBOOK_DB", database(dir))
    }

    /// The WebSocket echo.
    pub fn ws_echo() -> Launch {
        uvicorn("", "ws_echo:app")
    }
}

fn gunicorn(app: &str, worker: Worker, workers: usize, dir: &Path) -> Launch {
    let worker = match worker {
        Worker::Sync => ["--worker-class=sync", "--threads=1"],
        Worker::Gthread => ["--worker-class=gthread", "--threads=4"],
    };
    let config = apps().join(app).join("gunicorn.conf.py");
    Launch::new(Server::Gunicorn)
        .args([format!("--config={}", config.display()), format!("--workers={workers}")])
        .args(worker.map(String::from))
        .env("GUESTBOOK_DB", database(dir))
}

fn uvicorn(dir: &str, app: &str) -> Launch {
    let dir = apps().join(dir);
    Launch::new(Server::Uvicorn).args([format!("--app-dir={}", dir.display()), app.to_owned()])
}

fn database(dir: &Path) -> String {
    dir.join("db.sqlite3").display().to_string()
}

/// `tests/apps`
pub fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}

/// A program of the applications' environment, which is created at the first call.
pub fn program(name: &str) -> Command {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    let venv = VENV.get_or_init(|| {
        let output = succeed(Command::new("sh").arg(apps().join("venv.sh")));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    Command::new(venv.join("bin").join(name))
}

/// Creates the Django guestbook's tables in `dir/db.sqlite3`, and its user.
pub fn django_migrate(dir: &Path) {
    let manage = |arguments: &[&str]| {
        succeed(
            program("python")
                .arg(apps().join("django_guestbook/manage.py"))
                .args(arguments)
                .env("GUESTBOOK_DB", database(dir))
                .env("DJANGO_SUPERUSER_PASSWORD", DJANGO_PASSWORD),
        )
    };
    manage(&["migrate", "--verbosity=0"]);
    manage(&["createsuperuser", "--noinput", "--username", DJANGO_USER, "--email=a@example.com"]);
}

/// Runs a command to its end, which must be a good one.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[derive(Clone, Copy)]
enum Server {
    Gunicorn,
    Uvicorn,
}

/// Where an application listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// On loopback.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// As `proxy.target` has it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An application to be started.
pub struct Launch {
    server: Server,
    args: Vec<String>,
    env: Vec<(String, String)>,
    unix: bool,
    /// What gunicorn finds open instead of opening it.
    socket: Option<TcpListener>,
}

impl Launch {
    fn new(server: Server) -> Self {
        Self { server, args: Vec::new(), env: Vec::new(), unix: false, socket: None }
    }

    /// More arguments for the server.
    pub fn args(mut self, args: impl IntoIterator<Item = String>) -> Self {
        self.args.extend(args);
        self
    }

    /// A variable of the application's environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Listens on a Unix socket instead of a TCP port.
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Is given a socket that stays open while it restarts, as systemd's socket activation does.
    /// gunicorn only.
    pub fn at_an_open_socket(mut self) -> Self {
        self.socket = Some(TcpListener::bind("127.0.0.1:0").unwrap());
        self
    }

    /// Starts the server and returns once the application answers.
    pub fn start(self) -> App {
        let scratch = tempfile::tempdir().unwrap();
        let address = if self.unix {
            Address::Unix(scratch.path().join("app.sock"))
        } else {
            Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
        };
        let mut app = App { launch: self, scratch, address, child: None };
        app.spawn();
        app.learn_port();
        app.wait_until_it_answers();
        app
    }

    fn command(&self, address: &Address) -> Command {
        let mut command = match self.server {
            Server::Gunicorn => program("gunicorn"),
            Server::Uvicorn => program("uvicorn"),
        };
        match (self.server, address) {
            (Server::Gunicorn, _) if self.socket.is_some() => command.arg("--bind=fd://0"),
            (Server::Gunicorn, _) => command.arg(format!("--bind={address}")),
            (Server::Uvicorn, Address::Unix(path)) => command.arg("--uds").arg(path),
            (Server::Uvicorn, Address::Tcp(tcp)) => {
                command.args([format!("--host={}", tcp.ip()), format!("--port={}", tcp.port())])
            }
        };
        command.args(&self.args).envs(self.env.iter().cloned());
        command
    }
}

/// A running application.
pub struct App {
    launch: Launch,
    scratch: TempDir,
    address: Address,
    /// None between a kill and a restart.
    child: Option<Child>,
}

impl App {
    /// Where it listens; the same after a restart.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its port, if it does not listen on a Unix socket.
    pub fn port(&self) -> u16 {
        match &self.address {
            Address::Tcp(address) => address.port(),
            Address::Unix(path) => panic!("listens on {}", path.display()),
        }
    }

    /// The server's first process, which is the leader of its process group.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the application was killed").id()
    }

    /// All that the server and the application have said.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills the server and its workers at once, as a crash would, and returns once nobody listens.
    pub fn kill_9(&mut self) {
        self.kill_group();
        // The workers, which hold the socket too, are not ours to wait for.
        self.wait_for("to be gone", |app| connect(&app.address).is_err().then_some(()));
    }

    /// Sends SIGTERM and waits for the server's end.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
    }

    /// Sends SIGHUP: gunicorn replaces its workers while its socket stays open.
    pub fn reload(&self) {
        let child = self.child.as_ref().expect("the application was killed");
        kill_process(Pid::from_child(child), Signal::HUP).unwrap();
    }

    /// Starts it again where it listened before, and returns once it answers.
    pub fn restart(&mut self) {
        self.stop();
        self.spawn();
        self.wait_until_it_answers();
    }

    fn spawn(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.launch.command(&self.address);
        let stdin = match &self.launch.socket {
            Some(socket) => OwnedFd::from(socket.try_clone().unwrap()),
            None => File::open("/dev/null").unwrap().into(),
        };
        command.env("PYTHONUNBUFFERED", "1").stdin(stdin);
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.child = Some(command.spawn().unwrap());
    }

    /// Both servers log the address that they got.
    fn learn_port(&mut self) {
        const BEFORE: &str = "http://127.0.0.1:";
        if let Address::Tcp(mut address) = self.address {
            let port = self.wait_for("to say where it listens", |app| {
                let log = app.log();
                let (_, after) = log.split_once(BEFORE)?;
                // Without what follows the number, its end may not be written yet.
                after.split_once(|c: char| !c.is_ascii_digit())?.0.parse().ok()
            });
            address.set_port(port);
            self.address = Address::Tcp(address);
        }
    }

    fn wait_until_it_answers(&mut self) {
        self.wait_for("to answer", |app| answers(&app.address).then_some(()));
    }

    fn wait_for<T>(&mut self, what: &str, ready: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            if ended.is_some() || Instant::now() > deadline {
                panic!("waited for the app {what}; ended: {ended:?}; its log:\n{}", self.log());
            }
            thread::sleep(POLL);
        }
    }

    fn kill_group(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The leader is not reaped yet, so that the number cannot be another's. Drop comes here too,
        // where a panic would hide the test's own.
        kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
        child.wait().ok();
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("app.log")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log of the app at {}:\n{}", self.address, self.log());
        }
        self.kill_group();
    }
}

/// Whether there is an application that answers requests, whatever it answers.
fn answers(address: &Address) -> bool {
    let answer = || -> io::Result<[u8; 5]> {
        let mut stream = connect(address)?;
        let mut first = [0; 5];
        stream.write_all(b"GET /pid HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        stream.read_exact(&mut first)?;
        Ok(first)
    };
    answer().is_ok_and(|first| &first == b"HTTP/")
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        }
    })
}
