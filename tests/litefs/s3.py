#!/usr/bin/env python3
"""Backups of a real LiteFS in a real S3 server: versitygw, over a directory.

    LITEFS_BIN=/usr/local/bin/litefs VERSITYGW_BIN=/path/to/versitygw tests/litefs/s3.py --litepilot target/debug/litepilot

Takes a litepilot that was built with the feature `cloud`, root and FUSE. What is not there is said, and nothing is tried.
"""
import argparse, contextlib, json, os, pathlib, shutil, signal, socket, sqlite3, subprocess, sys, tempfile, time, urllib.error, urllib.request

KEY, SECRET = "a-key-of-the-test", "a-secret-of-the-test"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(what, is_so, limit=60):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if is_so():
                return
        except (OSError, urllib.error.URLError, KeyError, TypeError, ValueError):
            pass
        time.sleep(0.05)
    sys.exit(f"not within {limit} s: {what}")


class S3:
    """The server; its bucket is a directory, so what is in it can be damaged."""

    def __init__(self, program, root):
        self.program, self.root, self.port, self.child = program, root, free_port(), None
        (root / "data" / "bucket").mkdir(parents=True)

    def start(self):
        env = os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        args = [self.program, "--port", f"127.0.0.1:{self.port}", "posix", "--sidecar", str(self.root / "meta"), str(self.root / "data")]
        (self.root / "meta").mkdir(exist_ok=True)
        self.child = subprocess.Popen(args, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the S3 server listens", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)

    def stop(self):
        self.child.terminate()
        self.child.wait()

    def files(self):
        return sorted(file for file in (self.root / "data" / "bucket").rglob("*.ltx") if file.is_file())


class Node:
    """A node on its own, with LiteFS and the guestbook."""

    def __init__(self, args, root, name, s3, prefix, secret=SECRET):
        self.args, self.root, self.child = args, root / name, None
        self.root.mkdir()
        (self.root / "mount").mkdir()
        self.url = f"s3://bucket/{prefix}"
        self.proxy, self.admin = free_port(), free_port()
        self.env = os.environ | {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{s3.port}", "AWS_ALLOW_HTTP": "true",
        }
        self.config = self.root / "litepilot.yml"
        self.config.write_text(f"""
node: {name}
data_dir: {self.root}/state
proxy: {{listen: '127.0.0.1:{self.proxy}', target: 'unix:{self.root}/s', db: book.sqlite3}}
litefs: {{binary: {args.litefs}, mount: {self.root}/mount, data: {self.root}/litefs, http: '127.0.0.1:{free_port()}', lease_listen: '127.0.0.1:{free_port()}'}}
backup: {{url: '{self.url}', listen: '127.0.0.1:{free_port()}'}}
app:
  command: [{args.litepilot}, demo-app, --socket, {self.root}/s, --db, {self.root}/mount/book.sqlite3]
  health: /health
admin: {{listen: '127.0.0.1:{self.admin}'}}
""")

    def start(self):
        log = open(self.root / "log", "ab")
        self.child = subprocess.Popen([self.args.litepilot, "run", "-c", self.config], env=self.env, stdout=log, stderr=log)
        until("the node takes writes", lambda: self.status()["writable"] and self.status()["app"]["state"] == "up")

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)

    def status(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status", timeout=5) as answer:
            return json.load(answer)

    def post(self, text):
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.proxy}/api/entries", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 201

    def until_kept(self):
        until("all of it is kept", lambda: self.status()["backup"]["lag_transactions"] == 0)

    def backup(self, *args, **more):
        return subprocess.run([self.args.litepilot, "backup", args[0], "-c", self.config, *args[1:]], env=self.env | more, capture_output=True, text=True)

    def restored(self, *args):
        to = self.root / "restored.db"
        to.unlink(missing_ok=True)
        done = self.backup("restore", "--output", str(to), *args)
        if done.returncode:
            return done.stderr
        with contextlib.closing(sqlite3.connect(f"file:{to}?immutable=1", uri=True)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return [text for text, in db.execute("SELECT text FROM entries ORDER BY id")]


def check(what, found, expected):
    if found != expected:
        sys.exit(f"FAILED: {what}: {found!r}, not {expected!r}")
    print(f"ok: {what}")


def contains(what, text, *words):
    if not all(word in text for word in words):
        sys.exit(f"FAILED: {what}: {text}")
    print(f"ok: {what}: {text.strip().splitlines()[-1][:160]}")


def moment():
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"


def history(node):
    """Each second of it."""
    moments = []
    for n in range(6):
        node.post(f"entry {n}")
        node.until_kept()
        moments.append(moment())
    for n, at in enumerate(moments):
        check(f"restored to {at}", node.restored("--at", at), [f"entry {i}" for i in range(n + 1)])


def away(node, s3):
    s3.stop()
    for n in range(6, 9):
        node.post(f"entry {n}")
    until("the lag shows", lambda: node.status()["backup"]["error"] and node.status()["backup"]["lag_transactions"] > 0)
    contains("away", node.status()["backup"]["error"])
    s3.start()
    node.until_kept()
    check("after the bucket was away", node.restored(), [f"entry {i}" for i in range(9)])


def hangs(node, s3):
    """It takes connections and says nothing."""
    s3.child.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    node.post("entry 9")
    node.post("entry 10")
    node.stop()
    node.start()
    node.post("entry 11")
    took = time.monotonic() - began
    s3.child.send_signal(signal.SIGCONT)
    node.until_kept()
    check("after the S3 server hung", node.restored(), [f"entry {i}" for i in range(12)])
    print(f"ok: writes, stop and start took {took:.1f} s meanwhile")


def large(node, s3):
    """More than goes in one piece: in parts."""
    with contextlib.closing(sqlite3.connect(node.root / "mount" / "large.db", timeout=60)) as db:
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", ((os.urandom(1 << 20),) for _ in range(20)))
        db.commit()
    until("a large snapshot is there", lambda: any("large" in str(file) and file.stat().st_size > 8 << 20 for file in s3.files()))
    to = node.root / "large"
    done = node.backup("restore", "--db", "large.db", "--output", str(to))
    check("a large database", (done.returncode, to.exists() and to.stat().st_size > 20 << 20), (0, True))


def damaged(node, s3):
    file = [file for file in s3.files() if "/shop/db/book" in str(file)][-1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    done = node.backup("verify")
    check("verify fails", done.returncode, 1)
    contains("a damaged object", done.stdout, "DAMAGED", file.name, "good")
    contains("restore names it", node.restored("--db", "book.sqlite3"), file.name, "can be restored")


def wrong(args, root, s3, node):
    contains("wrong credentials", node.backup("list", AWS_SECRET_ACCESS_KEY="wrong").stderr, "credentials")
    contains("no such bucket", node.backup("list", "--from", "s3://elsewhere/x").stderr, "bucket")
    other = Node(args, root, "other", s3, "shop")
    other.start()
    other.post("theirs")
    until("it is refused", lambda: "another cluster" in (other.status()["backup"]["error"] or ""))
    contains("a bucket of another cluster", other.status()["backup"]["error"], "another cluster", "backup.url")
    other.stop()


def fresh(args, root, s3, old):
    """All disks are lost."""
    new = Node(args, root, "new", s3, "shop-2")
    hook = f"  on_promote: [{args.litepilot}, backup, restore, -c, {new.config}, --from, {old.url}, --db, book.sqlite3, --into-cluster, --if-empty, --generation, 1-0, --at, '{args.at}']\n"
    new.config.write_text(new.config.read_text().replace("  health: /health\n", "  health: /health\n" + hook))
    new.start()
    with contextlib.closing(sqlite3.connect(f"file:{new.root}/mount/book.sqlite3?mode=ro", uri=True)) as db:
        found = [text for text, in db.execute("SELECT text FROM entries ORDER BY id")]
    check("a new cluster begins with what the old one had", found, args.entries)
    new.until_kept()
    new.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--litepilot", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.litefs, versitygw = os.environ.get("LITEFS_BIN"), os.environ.get("VERSITYGW_BIN")
    if not args.litefs or not versitygw:
        sys.exit("SKIPPED: this takes a real LiteFS (LITEFS_BIN) and a real S3 server (VERSITYGW_BIN)")
    args.litepilot = args.litepilot.resolve()
    root = pathlib.Path(tempfile.mkdtemp(prefix="litepilot-s3-"))
    s3, node = S3(versitygw, root), None
    try:
        s3.start()
        node = Node(args, root, "node", s3, "shop")
        node.start()
        history(node)
        away(node, s3)
        hangs(node, s3)
        args.at, args.entries = moment(), [f"entry {i}" for i in range(12)]
        large(node, s3)
        wrong(args, root, s3, node)
        fresh(args, root, s3, node)
        damaged(node, s3)
        node.stop()
    finally:
        if node and node.child.poll() is None:
            node.stop()
        s3.stop()
    shutil.rmtree(root, ignore_errors=True)
    print("all of it works")


main()
