"""Starts three nodes that elect their primary, each with a guestbook of its own, and a client that
writes all the time."""

import http.client
import json
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from harness import HERE, LoadTestError, free_ports, get

NAMES = ("node-1", "node-2", "node-3")
PATIENCE = 60.0  # seconds until the cluster must be as wanted
PAUSE = 0.002  # seconds between two writes of a client
LEVEL = 1000  # milliseconds that a node may lag and count as level


class Node:
    """One of them; it can be killed and started again."""

    def __init__(self, bench, cores, binary, name, environment, configuration):
        self.name = name
        self.binary = binary  # from the next start on
        self.directory = Path(environment["DIRECTORY"])
        self.port = int(environment["LISTEN"])
        self.admin = f"http://127.0.0.1:{environment['ADMIN']}"
        self._begin = lambda life: bench.start(
            f"{name}-{life}",
            [self.binary, "run", "-c", configuration],
            cores,
            environment | {"LITEPILOT": str(self.binary)},
        )
        self.lives = 0
        self.start()

    def start(self):
        self.lives += 1
        self.process = self._begin(self.lives)

    def signal(self, number):
        self.process.child.send_signal(number)

    def kill(self):
        """`kill -9`; the times before it, and once the process is gone."""
        before = time.monotonic()
        self.signal(signal.SIGKILL)
        self.process.child.wait()
        return before, time.monotonic()

    def stop(self):
        """SIGTERM, and until it has ended; returns its exit status."""
        self.signal(signal.SIGTERM)
        return self.process.child.wait(PATIENCE)

    def status(self):
        """What it says of itself; `None` if it does not answer."""
        try:
            return json.loads(get(f"{self.admin}/status").text)
        except OSError:
            return None


class Voters:
    """The nodes; returned once the first entry is written."""

    def __init__(
        self,
        bench,
        cores,
        binary,
        ttl,
        engine="embedded",
        litefs="litefs",
        ack="primary",
        delay="0s",
        configuration=HERE / "peers/voter.yml",
    ):
        self.binary, self.ttl = binary, ttl
        peers = free_ports(len(NAMES))
        ports = {f"PEER_{number}": str(port) for number, port in enumerate(peers, 1)}
        self.nodes = []
        for name, peer in zip(NAMES, peers):
            directory = bench.directory / name
            (directory / "mount").mkdir(parents=True)
            if engine == "litefs":
                # One that was killed leaves its file system behind.
                bench.callback(unmount, directory / "mount")
            listen, admin, http, lease, backup = free_ports(5)
            environment = ports | {
                "NODE": name,
                "DIRECTORY": str(directory),
                "LISTEN": str(listen),
                "ADMIN": str(admin),
                "PEER": str(peer),
                "TTL": f"{ttl}s",
                "ENGINE": engine,
                "LITEFS": str(litefs),
                "ACK": ack,
                "DELAY": delay,
                "HTTP": str(http),
                "LEASE": str(lease),
                "BACKUP": str(backup),
            }
            self.nodes.append(Node(bench, cores, binary, name, environment, configuration))
        self.primary()
        with Writer(self.nodes[0]) as writer:
            writer.first_after(0)

    def named(self, name):
        return next(node for node in self.nodes if node.name == name)

    def others(self, *than):
        return [node for node in self.nodes if node not in than]

    def primary(self):
        """Whoever takes writes."""

        def takes_writes():
            return next((n for n in self.nodes if (n.status() or {}).get("writable")), None)

        return self._wait("no node takes writes", takes_writes)

    def leader(self):
        """Whoever leads Raft, by the word of all nodes; `None` if they do not agree."""
        named = {((node.status() or {}).get("raft") or {}).get("leader") for node in self.nodes}
        return self.named(named.pop()) if len(named) == 1 and None not in named else None

    def level(self):
        """Waits until all follow one primary, and are level; returns it."""

        def level():
            primary = self.primary()
            follow = all(_is_level(node.status(), primary) for node in self.others(primary))
            return primary if follow else None

        return self._wait("the nodes are not level", level)

    def settle(self):
        """Waits until all follow one primary, are level, and it does not lead Raft. Returns
        it, the Raft leader, and the third."""

        def settled():
            primary, leader = self.primary(), self.leader()
            follow = all(_is_level(node.status(), primary) for node in self.others(primary))
            if not follow or leader in (None, primary):
                return None
            return primary, leader, *self.others(primary, leader)

        return self._wait("the nodes do not settle", settled)

    def _wait(self, otherwise, ready):
        deadline = time.monotonic() + PATIENCE
        while not (found := ready()):
            if time.monotonic() > deadline:
                whys = {(node.status() or {}).get("no_primary") for node in self.nodes} - {None}
                why = ": ".join([otherwise, *whys])
                raise self.nodes[0].process.failure(f"is one of the nodes: {why}")
            time.sleep(0.01)
        return found


def unmount(directory):
    argv = ["umount", "--lazy", directory]
    subprocess.run(argv, stderr=subprocess.DEVNULL)


def _is_level(status, primary):
    return (
        status is not None
        and (status["primary"] or {}).get("node") == primary.name
        and status["lag_ms"] is not None
        and status["lag_ms"] < LEVEL
        and status["app"]["state"] == "up"
    )


@dataclass(frozen=True)
class Write:
    """One of a client's writes; times of the monotonic clock, in seconds."""

    sent: float
    answered: float
    status: int  # 0 if there was no answer

    @property
    def acknowledged(self):
        return 200 <= self.status < 300


class Writer(threading.Thread):
    """A client that writes through one node, one write after the other, until it is left."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE)
        self.writes = []
        self.news = threading.Condition()
        self.stopping = False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.join()
        self.connection.close()

    def run(self):
        while not self.stopping:
            sent = time.monotonic()
            write = Write(sent, status=self._write(), answered=time.monotonic())
            with self.news:
                self.writes.append(write)
                self.news.notify_all()
            time.sleep(PAUSE)

    def _write(self):
        try:
            headers = {"Content-Type": "application/json"}
            self.connection.request("POST", "/api/entries", b'{"text": "hello"}', headers)
            response = self.connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return 0

    def first_after(self, moment):
        """The first acknowledged write that was sent at `moment` or later; waits for it."""

        def found():
            later = (write for write in reversed(self.writes) if write.sent >= moment)
            return min((w for w in later if w.acknowledged), key=lambda w: w.sent, default=None)

        with self.news:
            if not self.news.wait_for(found, PATIENCE):
                raise LoadTestError(f"no write was acknowledged within {PATIENCE:.0f} s")
            return found()

    def between(self, begin, end):
        """The writes that were under way at some moment between the two."""
        with self.news:
            return [write for write in self.writes if write.sent <= end and write.answered >= begin]
