"""Starts a primary and a replica, each in front of an application of its own."""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from harness import START_TIMEOUT, LoadTestError, Process, free_ports, get
from servers import create_database, token_cookies


@dataclass(frozen=True)
class Node:
    """A started Litepilot."""

    name: str
    address: str
    admin: str
    process: Process


class Pair:
    """Both nodes; returned once the replica has what was written at the primary."""

    def __init__(self, setup, tls=False):
        """`tls`: between the nodes."""
        self.setup, self.tls = setup, tls
        self.peer_ports = free_ports(2)
        self.primary = self._start("node-1", self.peer_ports[0])
        create_database(self._directory("node-1") / "mount")
        self.replica = self._start("node-2", self.peer_ports[1])
        self.tokens = self._write()  # the cookies of a client that has just written
        self._wait_for_replica()

    def _directory(self, name):
        return self.setup.bench.directory / name

    def _start(self, name, peer_port):
        directory = self._directory(name)
        (directory / "mount").mkdir(parents=True)
        listen, admin = free_ports(2)
        environment = {
            "NODE": name,
            "DIRECTORY": str(directory),
            "LISTEN": str(listen),
            "BACKEND": str(self.setup.backend(f"{name}-app")),
            "ADMIN": str(admin),
            "PEER": str(peer_port),
            "PEER_1": str(self.peer_ports[0]),
            "PEER_2": str(self.peer_ports[1]),
        }
        if self.tls:
            environment["CERTS"] = str(self.setup.node_certificates)
        configuration = "node-tls.yml" if self.tls else "node.yml"
        process = self.setup.start_litepilot(name, configuration, environment)
        address = f"http://127.0.0.1:{listen}"
        process.wait_until_it_answers(f"{address}/")
        return Node(name, address, f"http://127.0.0.1:{admin}", process)

    def _write(self):
        """The application at the primary writes. It is nginx, so we write its row for it."""
        database = self._directory("node-1") / "mount" / "db.sqlite3"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO entries (text) VALUES ('hello')")
        return token_cookies(self.primary.address)

    def _wait_for_replica(self):
        headers = {"Cookie": "; ".join(self.tokens)}
        deadline = time.monotonic() + START_TIMEOUT
        # Each try waits on the replica for `read_wait`.
        while answered_by(get(self.replica.address, headers=headers)) != ("node-2", "local"):
            if time.monotonic() > deadline:
                raise self.replica.process.failure("has not reached the primary's position")


def answered_by(response):
    """Whose application answered, and by which route."""
    return response.headers["Litepilot-Node"], response.headers["Litepilot-Route"]


def require(response, node, route):
    """Nothing is measured unless requests go where they should."""
    if answered_by(response) != (node, route):
        raise LoadTestError(
            f"{response.url}: node and route are {answered_by(response)}, not {(node, route)}"
        )
