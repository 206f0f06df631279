#!/usr/bin/env python3
"""Backups of a real LiteFS in buckets of real servers: versitygw for S3, Azurite for Azure, fake-gcs-server for Google.

    LITEFS_BIN=/usr/local/bin/litefs VERSITYGW_BIN=/path/to/versitygw tests/litefs/buckets.py s3 --litepilot target/debug/litepilot
    LITEFS_BIN=/usr/local/bin/litefs AZURITE_BIN=/path/to/azurite-blob tests/litefs/buckets.py azure --litepilot target/debug/litepilot
    LITEFS_BIN=/usr/local/bin/litefs FAKE_GCS_BIN=/path/to/fake-gcs-server tests/litefs/buckets.py google --litepilot target/debug/litepilot

Takes a litepilot that was built with the feature `cloud`, root and FUSE. What is not there is said, and nothing is tried.
"""
import argparse, base64, contextlib, email.utils, hashlib, hmac, json, os, pathlib, shutil, signal, socket, sqlite3, subprocess, sys, tempfile, time, urllib.error, urllib.parse, urllib.request
import xml.etree.ElementTree

KEY, SECRET = "akeyofthetest", base64.b64encode(b"a secret of the test").decode()
WRONG = base64.b64encode(b"another secret").decode()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(what, is_so, limit=120):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if found := is_so():
                return found
        except (OSError, urllib.error.URLError, KeyError, TypeError, ValueError):
            pass
        time.sleep(0.05)
    sys.exit(f"not within {limit} s: {what}")


class Server:
    """One that keeps a bucket in a directory, so that it is there again after a stop."""

    program, scheme, secret, wrong = None, None, None, WRONG

    def __init__(self, root):
        self.root, self.port, self.child = root / "store", free_port(), None
        self.root.mkdir()

    def start(self):
        args, env = self.command()
        self.child = subprocess.Popen(args, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the server listens", lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)

    def other_credentials(self, node):
        """Others that are accepted, for those servers that have some."""

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:  # Azurite waits for connections that nobody closes
            self.child.kill()
            self.child.wait()


class S3(Server):
    program, scheme, secret = "VERSITYGW_BIN", "s3", "AWS_SECRET_ACCESS_KEY"

    def command(self):
        for made in ("meta", "data/bucket"):
            (self.root / made).mkdir(parents=True, exist_ok=True)
        args = [os.environ[self.program], "--port", f"127.0.0.1:{self.port}", "posix", "--sidecar", str(self.root / "meta"), str(self.root / "data")]
        return args, {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}

    def environment(self):
        return {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}", "AWS_ALLOW_HTTP": "true",
        }

    def objects(self):
        bucket = self.root / "data" / "bucket"
        return {str(file.relative_to(bucket)): file.stat().st_size for file in sorted(bucket.rglob("*.ltx")) if file.is_file()}

    def change(self, key, changed):
        file = self.root / "data" / "bucket" / key
        file.write_bytes(changed(file.read_bytes()))


class Azure(Server):
    program, scheme, secret = "AZURITE_BIN", "az", "AZURE_STORAGE_ACCOUNT_KEY"

    def command(self):
        args = [os.environ[self.program], "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self.root), "--silent", "--skipApiVersionCheck"]
        return args, {"AZURITE_ACCOUNTS": f"{KEY}:{SECRET}"}

    def start(self):
        super().start()
        with contextlib.suppress(urllib.error.HTTPError):  # after the first start it is there
            self.ask("PUT", "", {"restype": "container"})

    def environment(self):
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": KEY, "AZURE_STORAGE_ACCOUNT_KEY": SECRET,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.port}/{KEY}", "AZURE_ALLOW_HTTP": "true",
        }

    def objects(self):
        listed = xml.etree.ElementTree.fromstring(self.ask("GET", "", {"comp": "list", "restype": "container"}))
        sizes = {blob.findtext("Name"): int(blob.findtext("Properties/Content-Length")) for blob in listed.iter("Blob")}
        return {key: size for key, size in sorted(sizes.items()) if key.endswith(".ltx")}

    def change(self, key, changed):
        self.ask("PUT", f"/{key}", {}, changed(self.ask("GET", f"/{key}", {})), {"x-ms-blob-type": "BlockBlob"})

    def ask(self, method, path, query, body=b"", headers={}):
        """A request with Azure's signature by the shared key."""
        path = f"/{KEY}/bucket{urllib.parse.quote(path)}"
        kind = "application/octet-stream" if body else ""
        headers = headers | {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        lines = [method, "", "", str(len(body) or ""), "", kind, "", "", "", "", "", ""]
        lines += [f"{name}:{value}" for name, value in sorted(headers.items())]
        lines += [f"/{KEY}{path}", *(f"{name}:{value}" for name, value in sorted(query.items()))]
        signature = base64.b64encode(hmac.digest(base64.b64decode(SECRET), "\n".join(lines).encode(), hashlib.sha256)).decode()
        headers |= {"Authorization": f"SharedKey {KEY}:{signature}"} | ({"Content-Type": kind} if kind else {})
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(urllib.request.Request(url, body or None, headers, method=method), timeout=20) as answer:
            return answer.read()


class Google(Server):
    """Behind google.py, which speaks the protocol of Google's that object_store does."""

    program, scheme, secret = "FAKE_GCS_BIN", "gs", "GOOGLE_SERVICE_ACCOUNT"

    def __init__(self, root):
        super().__init__(root)
        self.account = self.key(root / "account.json")
        self.wrong = str(self.key(root / "wrong.json"))

    def key(self, file):
        """As Google's console gives it, but for where its server is."""
        private = subprocess.run(["openssl", "genpkey", "-algorithm", "RSA"], capture_output=True, text=True, check=True).stdout
        account = {"type": "service_account", "client_email": "backup@the-test.iam", "private_key_id": "1", "private_key": private}
        file.write_text(json.dumps(account | {"gcs_base_url": f"http://127.0.0.1:{self.port}"}))
        return file

    def command(self):
        (self.root / "bucket").mkdir(exist_ok=True)
        front = pathlib.Path(__file__).parent / "google.py"
        return [sys.executable, front, str(self.port), str(free_port()), str(self.root), str(self.account)], {}

    def environment(self):
        return {self.secret: str(self.account)}

    def objects(self):
        return {key: len(file.read_bytes()) for key, file in self.files() if key.endswith(".ltx")}

    def change(self, key, changed):
        file = dict(self.files())[key]
        file.write_bytes(changed(file.read_bytes()))

    def files(self):
        bucket = self.root / "bucket"
        return [(urllib.parse.unquote(str(file.relative_to(bucket))), file) for file in sorted(bucket.rglob("*")) if file.is_file()]

    def other_credentials(self, node):
        """The account of a file that all of Google's tools know, and that of an instance."""
        where = {self.secret: None, "GOOGLE_BASE_URL": f"http://127.0.0.1:{self.port}"}
        done = node.backup("list", **where, GOOGLE_APPLICATION_CREDENTIALS=str(self.account))
        contains("by the application's credentials", done.stdout, "book.sqlite3")
        done = node.backup("list", **where, GCE_METADATA_HOST=f"127.0.0.1:{self.port}")
        contains("by the instance's account", done.stdout, "book.sqlite3")
        done = node.backup("list", **{self.secret: "/nowhere.json"})
        contains("no key file", done.stderr, "/nowhere.json")


class Node:
    """A node on its own, with LiteFS and the guestbook."""

    def __init__(self, args, root, name, server, prefix):
        self.args, self.root, self.child = args, root / name, None
        self.root.mkdir()
        (self.root / "mount").mkdir()
        self.url = f"{server.scheme}://bucket/{prefix}"
        self.proxy, self.admin = free_port(), free_port()
        self.env = os.environ | server.environment()
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
        env = {name: value for name, value in (self.env | more).items() if value is not None}
        return subprocess.run([self.args.litepilot, "backup", args[0], "-c", self.config, *args[1:]], env=env, capture_output=True, text=True)

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


def away(node, server):
    server.stop()
    for n in range(6, 9):
        node.post(f"entry {n}")
    until("the lag shows", lambda: node.status()["backup"]["lag_transactions"] > 0)
    contains("away", until("the reason shows", lambda: node.status()["backup"]["error"]))
    server.start()
    node.until_kept()
    check("after the bucket was away", node.restored(), [f"entry {i}" for i in range(9)])


def hangs(node, server):
    """It takes connections and says nothing."""
    server.child.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    node.post("entry 9")
    node.post("entry 10")
    node.stop()
    node.start()
    node.post("entry 11")
    took = time.monotonic() - began
    server.child.send_signal(signal.SIGCONT)
    node.until_kept()
    check("after the server hung", node.restored(), [f"entry {i}" for i in range(12)])
    print(f"ok: writes, stop and start took {took:.1f} s meanwhile")


def large(node, server):
    """More than goes in one piece: in parts."""
    with contextlib.closing(sqlite3.connect(node.root / "mount" / "large.db", timeout=60)) as db:
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", ((os.urandom(1 << 20),) for _ in range(20)))
        db.commit()
    until("a large snapshot is there", lambda: any("/large" in key and size > 8 << 20 for key, size in server.objects().items()))
    to = node.root / "large"
    done = node.backup("restore", "--db", "large.db", "--output", str(to))
    check("a large database", (done.returncode, to.exists() and to.stat().st_size > 20 << 20), (0, True))


def damaged(node, server):
    key = [key for key in server.objects() if key.startswith("shop/db/book")][-1]
    server.change(key, lambda data: (half := len(data) // 2) and data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
    done = node.backup("verify")
    check("verify fails", done.returncode, 1)
    contains("a damaged object", done.stdout, "DAMAGED", pathlib.Path(key).name, "good")
    contains("restore names it", node.restored("--db", "book.sqlite3"), pathlib.Path(key).name, "can be restored")


def merges(node, server):
    """What is old becomes one file, a minute after the start."""

    def kept():
        return [key for key in server.objects() if "/book" in key]

    node.stop()
    node.config.write_text(node.config.read_text().replace("backup: {", "backup: {precision: 1s, "))
    before = len(kept())
    node.start()
    node.post("entry 12")
    node.until_kept()
    until("files are merged", lambda: len(kept()) < before / 2)
    check("what was merged", node.restored("--db", "book.sqlite3"), [f"entry {i}" for i in range(13)])
    check("verify", node.backup("verify").returncode, 0)
    print(f"ok: {before} files became {len(kept())}")


def wrong(args, root, server, node):
    contains("wrong credentials", node.backup("list", **{server.secret: server.wrong}).stderr, "credentials")
    contains("no such bucket", node.backup("list", "--from", f"{server.scheme}://elsewhere/x").stderr, "bucket")
    server.other_credentials(node)
    other = Node(args, root, "other", server, "shop")
    other.start()
    other.post("theirs")
    until("it is refused", lambda: "another cluster" in (other.status()["backup"]["error"] or ""))
    contains("a bucket of another cluster", other.status()["backup"]["error"], "another cluster", "backup.url")
    other.stop()


def fresh(args, root, server, old):
    """All disks are lost."""
    new = Node(args, root, "new", server, "shop-2")
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
    parser.add_argument("store", choices=["s3", "azure", "google"])
    parser.add_argument("--litepilot", type=pathlib.Path, required=True)
    args = parser.parse_args()
    kind = {"s3": S3, "azure": Azure, "google": Google}[args.store]
    args.litefs = os.environ.get("LITEFS_BIN")
    if not args.litefs or not os.environ.get(kind.program):
        sys.exit(f"SKIPPED: this takes a real LiteFS (LITEFS_BIN) and a real server ({kind.program})")
    args.litepilot = args.litepilot.resolve()
    root = pathlib.Path(tempfile.mkdtemp(prefix="litepilot-bucket-"))
    server, node = kind(root), None
    try:
        server.start()
        node = Node(args, root, "node", server, "shop")
        node.start()
        history(node)
        away(node, server)
        hangs(node, server)
        args.at, args.entries = moment(), [f"entry {i}" for i in range(12)]
        large(node, server)
        wrong(args, root, server, node)
        fresh(args, root, server, node)
        merges(node, server)
        damaged(node, server)
        node.stop()
    finally:
        if node and node.child and node.child.poll() is None:
            node.stop()
        server.stop()
    shutil.rmtree(root, ignore_errors=True)
    print("all of it works")


main()
