#!/usr/bin/env python3
"""Replaces one build of Litepilot by another, node after node, and back, while clients write and read.
See README.md here."""

import argparse
import contextlib
import random
import re
import sys
import threading
from collections import Counter
from pathlib import Path

import command
import pairs
import servers
from harness import HERE, Bench, Cores, LoadTestError, machine
from voters import PATIENCE, Voters

TTL = 5  # seconds: nobody is to be replaced, however slow the machine is
PAIRS = 200  # written and read between two steps


class Front:
    """What a load balancer knows: the nodes that get new requests."""

    def __init__(self, nodes):
        self.nodes = list(nodes)
        self.busy = Counter()
        self.lock = threading.Condition()

    @contextlib.contextmanager
    def a_request(self):
        with self.lock:
            node = random.choice(self.nodes)
            self.busy[node.name] += 1
        try:
            yield node
        finally:
            with self.lock:
                self.busy[node.name] -= 1
                self.lock.notify_all()

    def take_out(self, node):
        """No more requests go there; returns once it has answered those that it had."""
        with self.lock:
            self.nodes.remove(node)
            if not self.lock.wait_for(lambda: not self.busy[node.name], PATIENCE):
                raise node.process.failure("does not answer what it was asked")

    def put_back(self, node):
        with self.lock:
            self.nodes.append(node)


class Client(pairs.Client):
    """One that asks only nodes that are in front, and notes what failed."""

    def __init__(self, number, front, work):
        super().__init__(number, None, work)
        self.front, self.failed, self.lives = front, [], {}

    def _ask(self, method, body, headers):
        with self.front.a_request() as node:
            if self.lives.get(node.name) != node.lives:
                # Its connections ended with its former life.
                self.connections.pop(node.name, None)
                self.lives[node.name] = node.lives
            answer = self._ask_node(node, method, body, headers)
        status = answer[0].status if answer is not None else "no answer"
        if status not in (200, 201):
            said = answer[1][:300] if answer is not None else b""
            self.failed.append(f"{method} at {node.name}: {status} {said.decode(errors='replace')}")
        return answer


class Endless(pairs.Work):
    """Pairs until it is ended."""

    def __init__(self):
        super().__init__(0)
        self.done, self.ended = 0, False

    def take(self):
        with self.lock:
            self.done += 1
            self.lock.notify_all()
            return not self.ended

    def some_more(self, clients):
        """Waits for so many pairs."""
        with self.lock:
            goal = self.done + PAIRS
            in_time = self.lock.wait_for(lambda: self.done >= goal, 2 * PATIENCE)
        for client in clients:
            if client.failure is not None:
                raise client.failure
        if not in_time:
            raise LoadTestError("the clients do not get on")

    def end(self):
        with self.lock:
            self.ended = True


def replace(voters, front, binary):
    """Restarts each node with that build, the primary last; yields after each."""
    primary = voters.level()
    for node in [*voters.others(primary), primary]:
        voters.level()
        front.take_out(node)
        if (status := node.stop()) != 0:
            raise node.process.failure(f"was stopped and ended with status {status}")
        node.binary = binary
        node.start()
        voters.level()
        front.put_back(node)
        yield node


def roll(voters, front, work, clients, builds):
    """From the first build to the second, and back."""
    work.some_more(clients)
    for build in (builds[1], builds[0]):
        for node in replace(voters, front, build):
            work.some_more(clients)
            print(f"  {node.name} runs {build}", file=sys.stderr)


def measure(voters, builds):
    """What the clients counted, what failed, what the nodes hold."""
    work, front, counts = Endless(), Front(voters.nodes), pairs.Counts()
    clients = [Client(number, front, work) for number in range(pairs.CLIENTS)]
    for client in clients:
        client.start()
    try:
        roll(voters, front, work, clients, builds)
    finally:
        work.end()
        for client in clients:
            client.join()
    for client in clients:
        counts.add(client.counts)
    return counts, [each for client in clients for each in client.failed], pairs.held(voters)


def report(counts, failed, copies):
    """Prints the table; returns what should not be."""
    bad = [("requests that failed", len(failed)), *pairs.wrong(counts, copies)]
    slowest = ("slowest pair, ms", f"{counts.slowest * 1000:,.0f}")
    pairs.show([("pairs of a write and a read", counts.pairs), slowest, *bad])
    for each in failed[:10]:
        print(f"  {each}", file=sys.stderr)
    return pairs.missed(bad)


def configuration(bench):
    """A node's configuration, without what former builds do not know."""
    text = (HERE / "peers/voter.yml").read_text()
    path = bench.directory / "voter.yml"
    path.write_text(re.sub(r"^shutdown_delay:.*\n", "", text, flags=re.MULTILINE))
    return path


def run(arguments):
    """Prints the table; what should not be is a limit missed."""
    builds = [servers.litepilot(each) for each in (arguments.old, arguments.new)]
    names = " → ".join(servers.version([build, "--version"]) for build in builds)
    engine = ("litefs", arguments.litefs) if arguments.litefs else ("embedded",)
    print(f"{machine()}.\n")
    print(f"{names}, and back; engine {engine[0]}, ttl {TTL} s, ack majority.\n")
    with Bench() as bench:
        options = {"ack": "majority", "configuration": configuration(bench)}
        voters = Voters(bench, Cores.shared(1).load, builds[0], TTL, *engine, **options)
        missed = report(*measure(voters, builds))
    return missed


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="old", type=Path, required=True, help="the former build")
    parser.add_argument("--to", dest="new", type=Path, required=True, help="the new one")
    parser.add_argument("--litefs", help="LiteFS' executable; without it, the embedded engine")
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
