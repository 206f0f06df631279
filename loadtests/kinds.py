"""The kinds of traffic that `traffic.py` compares, and the generators for them."""

import json
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from harness import HERE, Contestant, Generator, Wrk, program

UPLOAD = 64 * 1024
CLOSE = ("Connection: close",)
# In a second.
NEW_CLIENTS = 800


class H2load(Generator):
    """h2load: HTTP/2 over TLS, ten requests at a time on each connection."""

    log: Path = None

    def command(self, contestant, seconds):
        h2load = program("h2load", "apt install nghttp2-client")
        # Where the time of each request goes.
        self.log = contestant.processes[0].log.with_suffix(".h2load")
        self.log.unlink(missing_ok=True)
        argv = [h2load, f"-t{self.threads}", *self.load(seconds), f"--log-file={self.log}"]
        argv += [option for cookie in contestant.cookies if cookie for option in ("-H", f"cookie: {cookie}")]
        return [*argv, contestant.url]

    def load(self, seconds):
        return [f"-c{self.connections}", "-m10", f"-D{seconds}"]

    def report(self, _):
        lines = [line.split("\t") for line in self.log.read_text().splitlines()]
        starts = [int(start) for start, _, _ in lines]
        times = sorted(int(time) for _, status, time in lines if status == "200")
        return {
            "requests": len(times),
            "duration": max(starts) - min(starts),
            "p50": times[len(times) // 2],
            "p99": times[len(times) * 99 // 100],
            "failed": len(lines) - len(times),
        }


class NewClients(H2load):
    """h2load: one request over HTTP/1.1 from each of many clients, at a rate. A client that nobody knows has no
    session to resume, as wrk's have from the second request on."""

    def load(self, seconds):
        clients = NEW_CLIENTS * seconds
        return ["--h1", f"-c{clients}", f"-n{clients}", f"-r{NEW_CLIENTS // 20}", "--rate-period=50ms"]


@dataclass(frozen=True)
class Kind:
    """One row: what all of its requests have in common."""

    name: str
    connections: int = 32
    path: str = "/guestbook/entries?page=2"
    body: str = ""
    headers: tuple = ()
    scheme: str = "http"
    load: type = Wrk

    def contestant(self, proxy, cookies):
        return Contestant(
            proxy.name,
            f"{self.scheme}://127.0.0.1:{proxy.ports[self.scheme]}{self.path}",
            (proxy.processes[self.scheme],),
            method="POST" if self.body else "GET",
            body=self.body,
            cookies=cookies,
            headers=self.headers,
        )

    def generator(self, cores):
        return self.load(cores, min(2, len(cores)), self.connections)


KINDS = [
    Kind("keep-alive, 32 connections"),
    Kind("keep-alive, 512 connections", 512),
    Kind("keep-alive, 2,000 connections", 2000),
    Kind("a connection for each request", headers=CLOSE),
    Kind("64 KiB up", body="x" * UPLOAD),
    Kind("64 KiB down", path="/64k"),
    Kind("1 MiB down", path="/1m"),
    Kind("TLS, keep-alive", scheme="https"),
    Kind("TLS, a session resumed for each request", scheme="https", headers=CLOSE),
    Kind("TLS, a new client for each request", scheme="https", load=NewClients),
    Kind("HTTP/2", scheme="https", load=H2load),
]


@dataclass
class OpenLoop(Generator):
    """`openloop.rs`: requests by a timetable, so that an answer that is late is late for all."""

    rate: float = 1000
    directory: Path = None

    def command(self, contestant, seconds):
        address = urlsplit(contestant.url)
        requests = []
        for number, cookies in enumerate(contestant.cookies):
            request = self.directory / f"request-{number}"
            request.write_text(head(contestant, address, cookies) + contestant.body)
            requests.append(request)
        argv = [openloop(self.directory), address.netloc, self.connections, self.rate, seconds]
        return [*argv, *requests]

    def report(self, output):
        return json.loads(output.splitlines()[-1])


def head(contestant, address, cookies):
    """A request's head as `load.lua` makes it."""
    lines = [
        f"{contestant.method} {address.path}?{address.query} HTTP/1.1",
        f"Host: {address.netloc}",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-US,en;q=0.5",
        "Accept-Encoding: gzip, deflate",
        *([f"Cookie: {cookies}"] if cookies else []),
        *([f"Content-Length: {len(contestant.body)}"] if contestant.body else []),
    ]
    return "\r\n".join([*lines, "", ""])


@cache
def openloop(directory):
    """The generator, built by the compiler that builds Litepilot."""
    built = directory / "openloop"
    rustc = program("rustc", "see rust-version in Cargo.toml")
    argv = [rustc, "--edition=2024", "-O", "-o", built, HERE / "openloop.rs"]
    subprocess.run(argv, check=True)
    return built


