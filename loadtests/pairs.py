#!/usr/bin/env python3
"""Writes through one node and reads through another, while the primary is killed again and again. See
README.md here."""

import argparse
import http.client
import json
import random
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass, field

import command
import servers
from harness import Bench, Cores, LoadTestError, machine
from voters import PATIENCE, Voters

CLIENTS = 4
TTL = 1  # seconds
# Before a client that was refused tries again, in seconds.
PAUSE = 0.02
TOKEN = ("Litepilot-Txid", "Litepilot-Epoch")


@dataclass
class Counts:
    """What became of the requests of one client, or of all."""

    pairs: int = 0
    unanswered: int = 0  # writes that got no answer, or an error
    again: int = 0  # reads that got no answer, or an error
    stale: list = field(default_factory=list)
    told_lost: list = field(default_factory=list)
    written: list = field(default_factory=list)  # acknowledged
    slowest: float = 0.0  # seconds of a whole pair

    def add(self, other):
        self.pairs += other.pairs
        self.unanswered += other.unanswered
        self.again += other.again
        self.stale += other.stale
        self.told_lost += other.told_lost
        self.written += other.written
        self.slowest = max(self.slowest, other.slowest)


class Work:
    """So many pairs, dealt out to the clients."""

    def __init__(self, pairs):
        self.left = self.all = pairs
        self.lock = threading.Condition()

    def take(self):
        with self.lock:
            self.left -= 1
            self.lock.notify_all()
            return self.left >= 0

    def until(self, share):
        """Waits until so much of it is dealt out."""
        with self.lock:
            if not self.lock.wait_for(lambda: self.left <= self.all * (1 - share), 20 * PATIENCE):
                raise LoadTestError("the clients do not get on")


class Client(threading.Thread):
    """One client that writes, reads what it has written through any node, and begins anew."""

    path = "/api/entries"

    def __init__(self, number, nodes, work):
        super().__init__(daemon=True)
        self.number, self.nodes, self.work = number, nodes, work
        self.connections, self.counts, self.failure = {}, Counts(), None

    def run(self):
        try:
            while self.work.take():
                self._pair()
        except Exception as failure:  # pylint: disable=broad-exception-caught
            self.failure = failure
            # Nobody waits for it.
            while self.work.take():
                pass

    def _pair(self):
        begin = time.monotonic()
        text, token = self._write()
        entries, lost = self._read(token)
        if lost:
            self.counts.told_lost.append(text)
        elif text not in entries:
            self.counts.stale.append(text)
        self.counts.pairs += 1
        self.counts.slowest = max(self.counts.slowest, time.monotonic() - begin)

    def _write(self):
        """The text of an acknowledged write, and its token. One of which nothing is known is not sent
        again: the next one has another text."""
        for text in self._tries("a write"):
            headers = {"Content-Type": "application/json"}
            answer = self._ask("POST", json.dumps({"text": text}), headers)
            if answer is not None and answer[0].status == 201:
                response = answer[0]
                if response.headers["Litepilot-Ack"] != "majority":
                    raise LoadTestError(f"acknowledged by {response.headers['Litepilot-Ack']}")
                self.counts.written.append(text)
                return text, {name: response.headers[name] for name in TOKEN}
            self.counts.unanswered += 1
        raise AssertionError("unreachable")

    def _read(self, token):
        """The texts that some node shows to whoever has this token, and whether it says that the write
        was lost."""
        for _ in self._tries("a read"):
            answer = self._ask("GET", None, token)
            if answer is not None and answer[0].status == 200:
                texts = {entry["text"] for entry in json.loads(answer[1])}
                return texts, answer[0].headers["Litepilot-Lost-Write"] is not None
            self.counts.again += 1
        raise AssertionError("unreachable")

    def _tries(self, what):
        deadline = time.monotonic() + PATIENCE
        number = 0
        while time.monotonic() < deadline:
            yield f"{self.number}-{self.counts.pairs}-{number}"
            number += 1
            time.sleep(PAUSE)
        raise LoadTestError(f"{what} did not succeed within {PATIENCE:.0f} s")

    def _ask(self, method, body, headers):
        """The answer of a node chosen by chance; `None` if there is none."""
        return self._ask_node(random.choice(self.nodes), method, body, headers)

    def _ask_node(self, node, method, body, headers):
        connection = self.connections.get(node.name)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE)
            self.connections[node.name] = connection
        try:
            connection.request(method, self.path, body, headers)
            response = connection.getresponse()
            return response, response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return None


def kill_primaries(voters, work, kills):
    """Spread over the work."""
    for number in range(1, kills + 1):
        work.until(number / (kills + 1))
        primary, *_ = voters.settle()
        primary.kill()
        print(f"  kill {number} of {kills}: {primary.name}", file=sys.stderr)
        voters.primary()
        primary.start()


def held(voters):
    """The texts in each node's database, once all are level."""
    voters.settle()
    copies, ours = [], "SELECT text FROM entries WHERE text LIKE '%-%-%'"
    for node in voters.nodes:
        database = sqlite3.connect(node.directory / "mount/db.sqlite3", timeout=PATIENCE)
        copies.append([text for (text,) in database.execute(ours)])
        database.close()
    return copies


def measure(voters, pairs, kills):
    """All clients' counts, and what the nodes hold afterwards."""
    work, counts = Work(pairs), Counts()
    clients = [Client(number, voters.nodes, work) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    kill_primaries(voters, work, kills)
    for client in clients:
        client.join()
        if client.failure is not None:
            raise client.failure
        counts.add(client.counts)
    return counts, held(voters)


def wrong(counts, copies):
    """Rows of what should not be, by what clients were told and what the copies hold."""
    lost = [set(counts.written) - set(copy) for copy in copies]
    twice = [len(copy) - len(set(copy)) for copy in copies]
    return [
        ("reads that were stale", len(counts.stale)),
        ("reads that were told of a lost write", len(counts.told_lost)),
        ("acknowledged writes that a node lacks afterwards", max(map(len, lost))),
        ("writes that a node holds twice", max(twice)),
        ("copies that differ", sum(sorted(copy) != sorted(copies[0]) for copy in copies)),
    ]


def show(rows):
    print("| what | number |\n| --- | ---: |")
    for what, number in rows:
        print(f"| {what} | {number} |")


def missed(rows):
    """Those that are not 0."""
    return [f"{what}: {number}, wanted 0" for what, number in rows if number]


def report(counts, copies, kills):
    """Prints the table; returns what should not be."""
    bad = wrong(counts, copies)
    show(
        [
            ("pairs", counts.pairs),
            ("kills of the primary", kills),
            *bad,
            ("writes without success, not sent again", counts.unanswered),
            ("reads without success, sent again", counts.again),
            ("slowest pair, ms", f"{counts.slowest * 1000:,.0f}"),
        ]
    )
    return missed(bad)


def run(arguments):
    """Prints the table; what should not be is a limit missed."""
    binary = servers.litepilot(arguments.litepilot)
    print(f"{machine()}; {servers.version([binary, '--version'])}.\n")
    print(f"Engine: {arguments.engine}; ttl {TTL} s; ack majority; {CLIENTS} clients.\n")
    with Bench() as bench:
        engine = (arguments.engine, arguments.litefs)
        voters = Voters(bench, Cores.shared(1).load, binary, TTL, *engine, ack="majority")
        voters.settle()
        failures = report(*measure(voters, arguments.pairs, arguments.kills), arguments.kills)
    return failures if arguments.check else []


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    command.common(parser)
    command.engine(parser)
    parser.add_argument("--pairs", type=command.positive, default=10_000)
    parser.add_argument("--kills", type=command.positive, default=5, help="of the primary")
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
