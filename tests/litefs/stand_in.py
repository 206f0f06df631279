#!/usr/bin/env python3
"""Stands in for LiteFS where there is no FUSE: the same command line, configuration, lease client, HTTP
port, output and exit codes, over a plain directory.

What differs, for want of a file system:
* It sees a commit a few milliseconds after it was made, so `<db>-pos` is not synchronous with writes.
* It cannot keep applications from writing a replica's database, nor have them hang while it hangs, but for those
  into which `preload.so`, made of `preload.c`, is preloaded: these are refused with the same errors.
* It replicates whole databases, in a protocol of its own.
"""

import base64
import fcntl
import hashlib
import http.client
import http.server
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import struct
import sys
import threading
import time
import urllib.parse

VERSION = "LiteFS v0.5.14, commit=stand-in"
OWN_FILES = re.compile(r"-(journal|wal|shm|pos|lock)$")
HEARTBEAT = 1.0
# Beside the database's name: SQLite's index of a WAL, and where in it readers hold locks.
WAL_INDEX, WAL_READERS = "-shm", (123, 5)
# In the database itself.
READERS = (0x40000002, 510)

# Every key that LiteFS v0.5 knows.
KEYS = {
    "": "exit-on-error skip-sync strict-verify exec data fuse http proxy lease backup log tracing",
    "data": "dir compress retention retention-monitor-interval",
    "fuse": "dir allow-other debug",
    "http": "addr snapshot-timeout",
    "proxy": "addr target db max-lag debug passthrough always-forward primary-redirect-timeout "
    "read-timeout read-header-timeout write-timeout idle-timeout",
    "lease": "type hostname advertise-url candidate promote reconnect-delay demote-delay databases consul",
    "consul": "url key ttl lock-delay",
    "backup": "type path url cluster auth-token",
    "log": "format timestamp debug",
    "tracing": "enabled path max-size max-count compress",
}


def log(message):
    print(json.dumps({"level": "INFO", "msg": message}), file=sys.stderr, flush=True)


def fail(message, code):
    print(f"ERROR: {message}", file=sys.stderr, flush=True)
    os._exit(code)


def replace(path, text):
    """All of it or nothing, whenever this process is killed."""
    new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(new, path)


def read_config(path):
    """As much of YAML as Litepilot writes."""
    config, sections = {}, [(-1, "", {})]
    config = sections[0][2]
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"( *)([a-z-]+):(?: (.*))?\n", line)
        if not match:
            fail(f"yaml: line {number}: not understood", 2)
        depth, key, value = len(match[1]), match[2], match[3]
        while sections[-1][0] >= depth:
            sections.pop()
        _, name, section = sections[-1]
        if key not in KEYS.get(name, "").split():
            fail(f"yaml: unmarshal errors:\n  line {number}: field {key} not found in type main.Config", 2)
        if value is None:
            section[key] = {}
            sections.append((depth, key, section[key]))
        else:
            section[key] = json.loads(value.replace("\\x24", "\\u0024"))
    return config


def seconds(text):
    units = {"ns": 1e-9, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
    return sum(float(n) * units[u] for n, u in re.findall(r"([0-9.]+)(ns|ms|s|m|h)", text))


class Lease:
    """Consul's client: one connection, kept open, without a time limit."""

    def __init__(self, lease):
        url = urllib.parse.urlsplit(lease["consul"]["url"])
        self.host, self.port, self.token = url.hostname, url.port, url.password
        self.key = lease["consul"]["key"]
        self.ttl, self.lock_delay = lease["consul"]["ttl"], lease["consul"]["lock-delay"]
        info = {"hostname": lease["hostname"], "advertise-url": lease["advertise-url"]}
        self.info = json.dumps(info, separators=(",", ":"))
        self.connection = None

    def ask(self, method, path, body=None):
        headers = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
        if self.token:
            headers["X-Consul-Token"] = self.token
        for fresh in (False, True):
            if self.connection is None or fresh:
                self.connection = http.client.HTTPConnection(self.host, self.port)
            try:
                self.connection.request(method, path, body if body is not None else b"", headers)
                answer = self.connection.getresponse()
                text = answer.read().decode()
                return answer.status, text
            except (http.client.HTTPException, OSError):
                self.connection.close()
                if fresh:
                    raise

    def get(self, key):
        status, text = self.ask("GET", f"/v1/kv/{key}")
        if status == 404:
            return None
        if status != 200:
            raise OSError(f"unexpected response code: {status}")
        return base64.b64decode(json.loads(text)[0]["Value"]).decode()

    def put(self, path, body=""):
        status, text = self.ask("PUT", path, body)
        if status != 200:
            raise OSError(f"unexpected response code: {status} ({text})")
        return text.strip()

    def cluster_id(self):
        return self.get(f"{self.key}/clusterid") or ""

    def primary(self):
        value = self.get(self.key)
        return json.loads(value) if value else None

    def create(self):
        delay = f"{int(seconds(self.lock_delay) * 1000)}ms"
        body = {"Behavior": "delete", "Checks": [], "LockDelay": delay, "Name": "litefs", "TTL": self.ttl}
        return json.loads(self.put("/v1/session/create", json.dumps(body, separators=(",", ":"))))["ID"]

    def acquire(self, session):
        return self.put(f"/v1/kv/{self.key}?acquire={session}", self.info) == "true"

    def renew(self, session):
        """False: it is no more."""
        status, text = self.ask("PUT", f"/v1/session/renew/{session}")
        if status == 404:
            return False
        if status != 200 or not isinstance(json.loads(text)[0]["LockDelay"], int):
            raise OSError(f"unexpected response: {status} {text}")
        return True

    def close(self, session):
        try:
            if self.put(f"/v1/kv/{self.key}?release={session}") != "true":
                log(f"cannot release consul key: key={self.key} session={session}")
        except OSError:
            log(f"consul key release error: key={self.key} session={session}")
        self.put(f"/v1/session/destroy/{session}")


class Database:
    def __init__(self, store, name):
        self.store, self.name = store, name
        self.path = os.path.join(store.mount, name)
        self.saved = os.path.join(store.data, f"{name}.json")
        self.txid, self.checksum, self.version = 0, 0, None
        self.seen = False
        if os.path.exists(self.saved):
            self.txid, self.checksum = json.load(open(self.saved))
        self.connection = self.open()
        # Closing one would drop the locks of this process, SQLite's own.
        self.files = {}

    def open(self):
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        return connection

    def is_read_in_wal_mode(self):
        """Somebody is in a read transaction, which SQLite lets a writer pass, and LiteFS does not."""
        return self.is_locked(self.path + WAL_INDEX, *WAL_READERS)

    def is_locked(self, path, start, length):
        """By another process."""
        try:
            file = os.stat(path)
            if path not in self.files or not os.path.samestat(os.fstat(self.files[path]), file):
                self.files[path] = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        return struct.unpack("hhqqi4x", fcntl.fcntl(self.files[path], fcntl.F_GETLK, lock))[0] != fcntl.F_UNLCK

    def is_in_wal_mode(self):
        return os.path.exists(self.path + WAL_INDEX)

    def is_read(self):
        return self.is_read_in_wal_mode() if self.is_in_wal_mode() else self.is_locked(self.path, *READERS)

    def locks(self):
        """In the words of the real one."""
        state = {False: "unlocked", True: "shared"}
        readers = {"shared": state[self.is_locked(self.path, *READERS)], "read1": state[self.is_read_in_wal_mode()]}
        return {"name": self.name, "locks": {"dms": state[self.is_in_wal_mode()]} | readers}

    def sum(self):
        dump = "\n".join(self.connection.iterdump()).encode()
        return int.from_bytes(hashlib.blake2b(dump, digest_size=8).digest()) | 1 << 63

    def observe(self):
        """A commit by an application is the next transaction."""
        try:
            version = self.connection.execute("PRAGMA data_version").fetchone()[0]
            self.seen = version == self.version
            if self.seen or os.path.getsize(self.path) == 0:
                return
            found = self.sum()
            self.version, self.seen = version, True
        except sqlite3.Error:
            self.seen = False
            return
        if found != self.checksum:
            self.set(self.txid + 1, found)

    def set(self, txid, checksum):
        self.txid, self.checksum = txid, checksum
        replace(self.saved, json.dumps([txid, checksum]))
        self.publish()
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        data = {"txID": f"{txid:016x}", "postApplyChecksum": f"{checksum:016x}", "pageSize": 4096}
        data |= {"commit": os.path.getsize(self.path) // 4096, "timestamp": now}
        self.store.tell({"type": "tx", "db": self.name, "data": data})

    def publish(self):
        replace(f"{self.path}-pos", f"{self.txid:016x}/{self.checksum:016x}\n")

    def apply(self, frame, go_on):
        """Waits for readers, and for writers that should not be there."""
        source = sqlite3.connect(":memory:")
        data = bytearray(base64.b64decode(frame["data"]))
        mode = "wal" if data[18] == 2 else "delete"
        # In memory there is no WAL.
        data[18:20] = b"\x01\x01"
        source.deserialize(data)
        while go_on():
            try:
                if not self.is_read_in_wal_mode():
                    self.connection.execute(f"PRAGMA journal_mode = {mode}")
                    source.backup(self.connection)
                    break
            except sqlite3.OperationalError:
                pass
            time.sleep(0.002)
        else:
            return
        self.version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        self.set(frame["txid"], frame["checksum"])

    def frame(self):
        data = base64.b64encode(self.connection.serialize()).decode()
        return {"type": "ltx", "db": self.name, "txid": self.txid, "checksum": self.checksum, "data": data}

    def is_written_in_wal_mode(self):
        """Somebody holds the write lock."""
        try:
            if self.connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                return False
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.execute("ROLLBACK")
            return False
        except sqlite3.OperationalError:
            return True


class Store:
    def __init__(self, config):
        self.config, lease = config, config["lease"]
        self.mount, self.data = config["fuse"]["dir"], config["data"]["dir"]
        self.hostname, self.candidate = lease["hostname"], lease.get("candidate", True)
        self.delay, self.ttl = seconds(lease["reconnect-delay"]), seconds(lease["consul"]["ttl"])
        self.id = secrets.token_hex(8).upper()
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.databases, self.listeners = {}, set()
        self.session, self.primary, self.handoff = None, None, None
        self.ready, self.closing, self.primacy = threading.Event(), threading.Event(), 0
        try:
            os.makedirs(self.mount, exist_ok=True)
            os.makedirs(self.data, exist_ok=True)
        except OSError as error:
            fail(f"cannot open store: {error}", 1)
        self.id_file = os.path.join(self.data, "clusterid")
        self.cluster_id = open(self.id_file).read().strip() if os.path.exists(self.id_file) else ""
        self.lease = Lease(lease)
        self.mark()

    def mark(self):
        """For `preload.c`."""
        role = "primary" if self.session else "replica"
        replace(os.path.join(self.mount, ".stand-in"), f"{os.getpid()} {role}\n")

    # Databases

    def scan(self):
        with self.lock:
            for name in os.listdir(self.mount):
                if name not in self.databases and not name.startswith(".") and not OWN_FILES.search(name):
                    self.databases[name] = Database(self, name)
                    self.databases[name].publish()
            if self.session:
                for database in self.databases.values():
                    database.observe()

    def settle(self):
        """Every commit that was made before has been seen."""
        while True:
            with self.lock:
                self.scan()
                if not self.session or all(db.seen for db in self.databases.values()):
                    return
            time.sleep(0.002)

    def watch(self):
        while True:
            self.scan()
            time.sleep(0.002)

    # Events

    def role(self):
        role = {"isPrimary": self.session is not None}
        if self.primary:
            role["hostname"] = self.primary["hostname"]
        return role

    def tell(self, event):
        with self.changed:
            for queue in self.listeners:
                queue.append(event)
            self.changed.notify_all()

    def listen(self):
        queue = Queue([{"type": "init", "data": self.role()}])
        self.listeners.add(queue)
        return queue

    def set_role(self, session=None, primary=None):
        with self.changed:
            self.session, self.primary = session, primary
            self.primacy += 1
            self.mark()
            self.tell({"type": "primaryChange", "data": self.role()})

    # The lease

    def follow_lease(self):
        handed = None
        while not self.closing.is_set():
            try:
                handed = self.one_turn(handed)
            except (OSError, http.client.HTTPException, ValueError) as error:
                handed = None
                log(f"{self.id}: cannot acquire lease or find primary, retrying: {error}")
                self.closing.wait(self.delay)

    def recover(self):
        """What it follows, or was, it has left: it has its databases for itself for a moment."""
        while not self.closing.is_set() and any(db.is_read() for db in list(self.databases.values())):
            time.sleep(0.002)

    def one_turn(self, handed):
        theirs, session = self.lease.cluster_id(), None
        if theirs and self.cluster_id and theirs != self.cluster_id:
            raise OSError(f"lease already initialized with different ID: {theirs}")
        if theirs and not self.cluster_id:
            info = self.lease.primary()
            if info is None:
                raise OSError("cannot find primary")
        elif handed:
            log(f"{self.id}: acquiring existing lease from handoff")
            if not self.lease.renew(handed) or not self.lease.acquire(handed):
                raise OSError("cannot acquire existing lease from handoff: lease expired")
            info, session = None, handed
        else:
            info, session = self.acquire_or_find()
        if session:
            log(f"{self.id}: primary lease acquired")
            self.reign(session)
            self.recover()
            return None
        log(f"{self.id}: existing primary found ({info['hostname']}), connecting as replica")
        try:
            handed = self.be_replica(info)
        finally:
            self.recover()
        if handed is None:
            self.closing.wait(self.delay)
        return handed

    def acquire_or_find(self):
        info = self.lease.primary()
        if info:
            return info, None
        if not self.candidate:
            raise OSError("no primary & ineligible to become primary")
        session = self.lease.create()
        if self.lease.acquire(session):
            return None, session
        self.lease.close(session)
        info = self.lease.primary()
        if info is None:
            raise OSError("no primary")
        return info, None

    def reign(self, session):
        keep = False
        try:
            if not self.lease.cluster_id():
                self.cluster_id = self.cluster_id or "LFSC" + secrets.token_hex(8).upper()
                if self.lease.cluster_id():
                    raise OSError("cluster already initialized")
                self.lease.put(f"/v1/kv/{self.lease.key}/clusterid", self.cluster_id)
                self.save_id()
            self.scan()
            self.set_role(session)
            self.ready.set()
            keep = self.renew_until_lost(session)
        finally:
            self.demote()
            if keep:
                log(f"{self.id}: exiting primary, preserving lease for handoff")
            else:
                log(f"{self.id}: exiting primary, destroying lease")
                self.lease.close(session)

    def renew_until_lost(self, session):
        """Whether the lease was handed to another node."""
        renewed, wait = time.monotonic(), self.ttl / 2
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.handoff or self.closing.is_set(), wait)
                target, self.handoff = self.handoff, None
            if self.closing.is_set():
                return False
            try:
                if not self.lease.renew(session):
                    return False
                renewed, wait = time.monotonic(), self.ttl / 2
            except (OSError, http.client.HTTPException, ValueError):
                if time.monotonic() - renewed + 1 > self.ttl:
                    time.sleep(1)
                    return False
                wait = 1
            if target is not None:
                target.append({"type": "handoff", "lease": session})
                return True

    def demote(self):
        with self.lock:
            self.scan()
            busy = [db for db in self.databases.values() if db.is_written_in_wal_mode()]
            before = [db.checksum for db in busy]
        self.set_role()
        for database, checksum in zip(busy, before):
            while database.is_written_in_wal_mode():
                time.sleep(0.002)
            if database.sum() != checksum:
                log("fatal error occurred while committing WAL: node lost write access during transaction")
                os._exit(99)

    def be_replica(self, info):
        """The lease that was handed over, if it was."""
        address = urllib.parse.urlsplit(info["advertise-url"])
        self.set_role(primary=info)
        connection = http.client.HTTPConnection(address.hostname, address.port)
        try:
            with self.lock:
                have = {db.name: [db.txid, db.checksum] for db in self.databases.values()}
            connection.request("POST", "/stream", json.dumps(have), {"Litefs-Id": self.id})
            answer = connection.getresponse()
            theirs = answer.headers.get("Litefs-Cluster-Id", "")
            if answer.status != 200 or self.cluster_id not in ("", theirs):
                raise OSError(f"cannot stream: {answer.status}, cluster {theirs!r}")
            if not self.cluster_id:
                self.cluster_id = theirs
                self.save_id()
            while line := answer.readline():
                frame = json.loads(line)
                if frame["type"] == "handoff":
                    return frame["lease"]
                if frame["type"] == "ready":
                    self.ready.set()
                if frame["type"] == "ltx":
                    self.apply(frame)
        finally:
            connection.close()
            self.set_role()

    def apply(self, frame):
        with self.lock:
            path = os.path.join(self.mount, frame["db"])
            if frame["db"] not in self.databases:
                open(path, "a").close()
                self.databases[frame["db"]] = Database(self, frame["db"])
            database = self.databases[frame["db"]]
        database.apply(frame, lambda: not self.closing.is_set())

    def save_id(self):
        replace(self.id_file, self.cluster_id + "\n")


class Queue(list):
    """A list with an identity."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = None

    def log_message(self, *_):
        pass

    def answer(self, status, body, content="text/plain"):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Litefs-Cluster-Id", self.store.cluster_id)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def line(self, value):
        data = (json.dumps(value, separators=(",", ":")) + "\n").encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def do_GET(self):
        url, store = urllib.parse.urlsplit(self.path), self.store
        if url.path == "/info":
            primary = {"hostname": store.hostname} if store.session else {}
            if store.primary:
                primary = {"hostname": store.primary["hostname"]}
            info = {"clusterID": store.cluster_id} if store.cluster_id else {}
            info |= {"isPrimary": store.session is not None, "candidate": store.candidate}
            self.answer(200, json.dumps(info | {"path": store.data, "primary": primary}, indent=2) + "\n")
        elif url.path == "/events":
            self.events()
        elif url.path == "/debug/vars":
            with store.lock:
                databases = list(store.databases.values())
            self.answer(200, json.dumps({"store": {"dbs": {db.name: db.locks() for db in databases}}}))
        elif url.path == "/settle":
            # Which the real one has no need of.
            store.settle()
            self.answer(200, "")
        elif url.path == "/export":
            name = urllib.parse.parse_qs(url.query).get("name", [""])[0]
            with store.lock:
                database = store.databases.get(name)
                data = database.connection.serialize() if database else None
            self.answer(200 if data else 404, data or "database not found")
        else:
            self.answer(404, "404 page not found\n")

    def events(self):
        with self.store.changed:
            queue = self.store.listen()
        self.begin_stream()
        try:
            while True:
                with self.store.changed:
                    self.store.changed.wait_for(lambda: queue)
                    events = queue[:]
                    queue.clear()
                for event in events:
                    self.line(event)
        finally:
            with self.store.changed:
                self.store.listeners.discard(queue)

    def do_POST(self):
        url, store = urllib.parse.urlsplit(self.path), self.store
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if url.path == "/promote":
            self.promote()
        elif url.path == "/handoff":
            node = urllib.parse.parse_qs(url.query).get("nodeID", [""])[0]
            with store.changed:
                target = store.streams.get(node) if store.session else None
                store.handoff = target
                store.changed.notify_all()
            self.answer(200 if target is not None else 500, "")
        elif url.path == "/stream":
            self.stream(json.loads(body))
        else:
            self.answer(404, "404 page not found\n")

    def promote(self):
        store = self.store
        if not store.candidate:
            return self.answer(409, "node is not eligible to become primary")
        if store.session:
            return self.answer(200, "")
        if not store.primary:
            return self.answer(500, "no primary is currently available for handoff, cannot promote")
        address = urllib.parse.urlsplit(store.primary["advertise-url"])
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
        connection.request("POST", f"/handoff?nodeID={store.id}", b"")
        status = connection.getresponse().status
        self.answer(200 if status == 200 else 500, "" if status == 200 else "handoff failed")

    def stream(self, have):
        """Everything that the other side lacks, and then what happens, until this node is not primary."""
        store, node = self.store, self.headers.get("Litefs-Id", "")
        if node == store.id:
            return self.answer(400, "cannot connect to self")
        with store.changed:
            if not store.session:
                return self.answer(503, "not primary")
            reign, queue = store.primacy, Queue()
            store.streams[node] = queue
        log(f"{store.id}: stream connected")
        self.begin_stream()
        sent = {name: tuple(position) for name, position in have.items()}
        ready = False
        while True:
            with store.changed:
                frames = []
                for database in store.databases.values():
                    now = (database.txid, database.checksum)
                    if database.txid and sent.get(database.name) != now:
                        frames.append(database.frame())
                        sent[database.name] = now
            for frame in frames:
                self.line(frame)
            if not ready:
                ready = True
                self.line({"type": "ready"})
            with store.changed:
                def news():
                    return queue or store.primacy != reign or any(
                        sent.get(db.name) != (db.txid, db.checksum) for db in store.databases.values()
                    )
                heard = store.changed.wait_for(news, HEARTBEAT)
                over = queue or store.primacy != reign
            if not heard:
                self.line({"type": "heartbeat"})
            for frame in queue:
                self.line(frame)
            if over:
                log(f"{store.id}: stream disconnected")
                self.close_connection = True
                self.wfile.write(b"0\r\n\r\n")
                return


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self):
        # Without SO_REUSEPORT or a name look-up.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)

    def handle_error(self, *_):
        pass


def mount(path):
    config = read_config(path)
    if config["fuse"]["dir"] == config["data"]["dir"]:
        fail("fuse directory and data directory cannot be the same path", 2)
    print(VERSION, flush=True)
    store = Store(config)
    store.streams = {}
    host, port = config["http"]["addr"].rsplit(":", 1)
    Handler.store = store
    try:
        server = Server((host, int(port)), Handler)
    except OSError as error:
        fail(f"cannot init http server: cannot open http server: listen tcp {host}:{port}: {error}", 1)
    log("Using Consul to determine primary")
    log(f"initializing consul: key={store.lease.key} url={config['lease']['consul']['url']}")
    # A handler that sets an event could come just as that begins to be waited for: a deadlock.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=store.watch, daemon=True).start()
    lease = threading.Thread(target=store.follow_lease, daemon=True)
    lease.start()
    log(f"LiteFS mounted to: {store.mount}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log(f"http server listening on: http://{host}:{port}")
    if not config.get("skip-sync"):
        # A signal is heard only once it has met a primary, or is one.
        store.ready.wait()
    print("waiting for signal or subprocess to exit", flush=True)
    signal.sigwait({signal.SIGTERM})
    print("signal received, litefs shutting down", flush=True)
    server.socket.close()
    with store.changed:
        store.closing.set()
        store.changed.notify_all()
    lease.join(2)
    print("litefs shut down complete", flush=True)
    os._exit(0)


def main():
    arguments = sys.argv[1:]
    if arguments == ["version"]:
        print(VERSION)
    elif len(arguments) == 3 and arguments[:2] == ["mount", "-config"]:
        mount(arguments[2])
    else:
        print("litefs is a distributed file system for replicating SQLite databases.")
        sys.exit(2)


main()
