#!/usr/bin/env python3
"""Half of the peak for a long time, with a failover each minute: does everything come back to where it
began? See README.md here."""

import argparse
import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import command
import pairs
import servers
from failover import percentile
from harness import HERE, Bench, Cores, LoadTestError, machine
from timeline import Panel, svg
from voters import PATIENCE, Voters

TTL = 2  # seconds
CLIENTS = 16
DATABASES = 3
PEAK = 20  # seconds of the measurement of the peak
SETTLING = 20  # seconds after the last request
AWAY = 5  # seconds that a killed node stays away
# What a request may take: held, then answered by the application, in seconds.
LIMIT = 5 + 10 + 1
# By how much a node may have grown; a primary has more connections than a replica.
MORE = {"descriptors": 32, "threads": 8, "connections": 32, "memory MiB": 32, "data_dir MiB": 16}


@dataclass
class Second:
    """The requests that were answered in one second."""

    times: list = field(default_factory=list)
    failed: int = 0


class Record:
    """What the clients have seen, second by second."""

    def __init__(self):
        self.begin, self.seconds, self.lock = time.monotonic(), {}, threading.Lock()

    def now(self):
        return time.monotonic() - self.begin

    def add(self, took, success):
        with self.lock:
            second = self.seconds.setdefault(int(self.now()), Second())
            second.times.append(took)
            second.failed += not success


class Client(pairs.Client):
    """One that writes to any database, at a pace, and reads what it has written."""

    def __init__(self, number, nodes, work, record, pause):
        super().__init__(number, nodes, work)
        self.record, self.pause = record, pause
        self.database, self.text = 0, ""

    def _pair(self):
        due = time.monotonic() + random.expovariate(1 / self.pause) if self.pause else 0
        self.database = random.randrange(DATABASES)
        super()._pair()
        time.sleep(max(0, due - time.monotonic()))

    def _ask_node(self, node, method, body, headers):
        if body is not None:
            self.text = json.loads(body)["text"]
        self.path = f"/api/entries?db={self.database}&text={quote(self.text)}"
        begin = time.monotonic()
        answer = super()._ask_node(node, method, body, headers)
        success = answer is not None and answer[0].status < 300
        self.record.add(time.monotonic() - begin, success)
        return answer


class Load:
    """Clients at work until it is left."""

    numbers = iter(range(10**6))  # no two clients write the same texts

    def __init__(self, voters, rate=None):
        self.record, self.counts = Record(), pairs.Counts()
        self.work = pairs.Work(10**9)
        pause = CLIENTS / rate if rate else 0
        self.clients = [
            Client(next(self.numbers), voters.nodes, self.work, self.record, pause)
            for _ in range(CLIENTS)
        ]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        with self.work.lock:
            self.work.left = 0
        for client in self.clients:
            client.join()
            for connection in client.connections.values():
                connection.close()
            self.counts.add(client.counts)

    def check(self):
        for client in self.clients:
            if client.failure is not None:
                raise client.failure


@dataclass(frozen=True)
class Usage:
    """What a node's Litepilot takes."""

    descriptors: int
    threads: int
    connections: int
    memory: float  # MiB
    disk: float  # MiB of its data_dir

    @classmethod
    def of(cls, node):
        process = Path(f"/proc/{node.process.child.pid}")
        links = []
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                links.append(os.readlink(descriptor))
        status = dict(
            line.split(":", 1) for line in (process / "status").read_text().splitlines()
        )
        return cls(
            descriptors=len(links),
            threads=int(status["Threads"]),
            connections=sum(link.startswith("socket:") for link in links),
            memory=int(status["VmRSS"].split()[0]) / 1024,
            disk=size(node.directory / "data"),
        )

    def row(self):
        values = (self.descriptors, self.threads, self.connections, self.memory, self.disk)
        return dict(zip(MORE, values))


def size(directory):
    """MiB of the files below it."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_blocks * 512
    return total / 2**20


class Watcher(threading.Thread):
    """Notes each second what all nodes take together."""

    def __init__(self, voters, record):
        super().__init__(daemon=True)
        self.voters, self.record = voters, record
        self.memory = Panel("memory of the three Litepilots, MiB")
        self.descriptors = Panel("their open descriptors")
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(1):
            # A node that was killed has none.
            with contextlib.suppress(OSError, KeyError):
                all_usage = [Usage.of(node) for node in self.voters.nodes]
                at = self.record.now()
                self.memory.points.append((at, sum(usage.memory for usage in all_usage)))
                self.descriptors.points.append((at, sum(u.descriptors for u in all_usage)))


def fail_over(voters, number):
    """A kill of the primary, and a handoff, in turns; says which."""
    primary = voters.level()
    if number % 2 == 0:
        primary.kill()
        voters.primary()
        time.sleep(AWAY)
        primary.start()
        return "killed"
    target = random.choice(voters.others(primary))
    argv = [voters.binary, "promote", target.name, "--admin", primary.admin]
    argv += ["--token-file", primary.directory / "data/admin.token"]
    promoted = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    if promoted.returncode != 0:
        raise LoadTestError(f"the handoff failed: {promoted.stderr}")
    return "handed over"


def endure(voters, rate, seconds, every):
    """The load, and when what happened meanwhile."""
    events = []
    with Load(voters, rate) as load:
        watcher = Watcher(voters, load.record)
        watcher.start()
        while (at := load.record.now() + every) < seconds:
            time.sleep(max(0, at - load.record.now()))
            at = load.record.now()
            events.append((at, fail_over(voters, len(events))))
            print(f"  {at:.0f} s: the primary was {events[-1][1]}", file=sys.stderr)
            load.check()
        time.sleep(max(0, seconds - load.record.now()))
        watcher.ended.set()
        watcher.join()
    load.check()
    return load, watcher, events


def held(voters):
    """The clients' texts in each node's databases, once all are level."""
    voters.level()
    copies, ours = [], "SELECT text FROM entries WHERE text LIKE '%-%-%'"
    for node in voters.nodes:
        texts = []
        for number in range(DATABASES):
            path = node.directory / f"mount/db{number}.sqlite3"
            with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
                texts += [text for (text,) in database.execute(ours)]
        copies.append(texts)
    return copies


def settled(voters):
    """What each node takes, once nobody has asked it anything for a while."""
    time.sleep(SETTLING)
    return {node.name: Usage.of(node).row() for node in voters.nodes}


def report_usage(before, after):
    """Prints a table; returns what has grown too much."""
    missed = []
    print("| node | what | before | after | at most |\n| --- | --- | ---: | ---: | ---: |")
    for name, row in before.items():
        for what, value in row.items():
            now, most = after[name][what], value + MORE[what]
            print(f"| {name} | {what} | {value:.0f} | {now:.0f} | {most:.0f} |")
            if now > most:
                missed.append(f"{name}: {what}: {now:.0f}, at most {most:.0f}")
    return missed


def report_requests(load, copies):
    """Prints a table; returns what should not be."""
    counts = load.counts
    longest = max(t for second in load.record.seconds.values() for t in second.times)
    bad = pairs.wrong(counts, copies)
    pairs.show(
        [
            ("pairs of a write and a read", counts.pairs),
            ("writes without success, not sent again", counts.unanswered),
            ("reads without success, sent again", counts.again),
            ("slowest request, ms", f"{longest * 1000:,.0f}"),
            *bad,
        ]
    )
    print()
    missed = pairs.missed(bad)
    if longest > LIMIT:
        missed.append(f"a request took {longest:.1f} s, at most {LIMIT}")
    return missed


def picture(heading, load, watcher, events, seconds):
    throughput, slow = Panel("requests per second"), Panel("p99 of their times, ms")
    for at in range(int(seconds)):
        second = load.record.seconds.get(at, Second())
        throughput.points.append((at, len(second.times) - second.failed))
        if second.times:
            slow.points.append((at, percentile(second.times, 0.99) * 1000))
    panels = [throughput, slow, watcher.memory, watcher.descriptors]
    return svg(heading, panels, events, seconds)


def configuration(bench):
    text = (HERE / "peers/endurance.yml").read_text()
    text = text.replace("${PEERS:-.}", str(HERE / "peers"))
    text = text.replace("${PYTHON:-python3}", sys.executable)
    path = bench.directory / "endurance.yml"
    path.write_text(text)
    return path


def run(arguments):
    """Prints the tables, writes the picture; what should not be is a limit missed."""
    binary = servers.litepilot(arguments.litepilot)
    version = servers.version([binary, "--version"])
    with Bench() as bench:
        options = {"ack": "majority", "configuration": configuration(bench)}
        engine = ("litefs", arguments.litefs)
        voters = Voters(bench, Cores.shared(1).load, binary, TTL, *engine, **options)
        voters.level()
        with Load(voters) as load:
            time.sleep(PEAK)
        load.check()
        peak = load.counts.pairs / PEAK
        before, seconds = settled(voters), arguments.minutes * 60
        load, watcher, events = endure(voters, peak / 2, seconds, arguments.every)
        after, copies = settled(voters), held(voters)
    print(f"{machine()}; {version}.\n")
    print(f"LiteFS, {DATABASES} databases, backups, ttl {TTL} s, ack majority; {CLIENTS} clients.")
    print(f"Peak: {peak:.0f} pairs of a write and a read per second; then half of it, for")
    print(f"{arguments.minutes} minutes, with {len(events)} failovers.\n")
    missed = report_requests(load, copies) + report_usage(before, after)
    heading = f"half of the peak, a failover each {arguments.every} s"
    arguments.picture.write_text(picture(heading, load, watcher, events, seconds))
    return missed


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    dist = HERE.parent / "target/dist/litepilot"
    parser.add_argument("--litepilot", type=Path, default=dist)
    parser.add_argument("--litefs", default="litefs", help="its executable")
    parser.add_argument("--minutes", type=command.positive, default=30)
    parser.add_argument("--every", type=command.positive, default=60, help="seconds to a failover")
    parser.add_argument("--picture", type=Path, default=HERE / "results/endurance.svg")
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
