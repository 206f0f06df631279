#!/usr/bin/env python3
"""Compares Litepilot with nginx and HAProxy in front of the same backend. See README.md here."""

import argparse
import os
import pwd
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from harness import (
    HERE,
    Bench,
    Contestant,
    Cores,
    Generator,
    LoadTestError,
    free_ports,
    get,
    interleave,
    machine,
    program,
    ratio,
    table,
)

PROXIES = ["nginx", "haproxy", "litepilot"]
BASELINE = "nginx"
PATH = "/guestbook/entries?page=2"
SESSION = "csrftoken=Xq1mTz0bW8fJr4KcYv7uLs2n; sessionid=8f1u0k3v5x7y9z2a4c6e8g0i2k4m6o8q"
BODY = '{"entries": [' + ", ".join(['{"author": "somebody", "text": "hello there"}'] * 22) + "]}"

# What issue "Speed" asks of Litepilot, as ratios to nginx.
LIMITS = {
    "cpu": ("at most", 1.05),
    "throughput": ("at least", 0.95),
    "p99": ("at most", 1.10),
}


class Setup:
    """The backend, and the proxies in front of it."""

    def __init__(self, bench, cores, binary):
        self.bench = bench
        self.cores = cores
        self.binary = binary
        self.backend_port = self.start_backend()

    def render(self, template, **values):
        """Writes a peer's configuration with its places filled in."""
        values |= {"USER": pwd.getpwuid(os.geteuid()).pw_name}
        text = (HERE / "peers" / template).read_text()
        text = re.sub(r"@([A-Z]+)@", lambda place: str(values[place[1]]), text)
        path = self.bench.directory / template
        path.write_text(text)
        return path

    def start_nginx(self, name, configuration, cores):
        # Its own prefix keeps its temporary files in our directory; errors go to its log there.
        binary = program("nginx", "apt install nginx-light")
        argv = [binary, "-p", self.bench.directory, "-c", configuration, "-e", "stderr"]
        return self.bench.start(name, argv, cores)

    def start_backend(self):
        [port] = free_ports(1)
        configuration = self.render(
            "backend.conf", LISTEN=port, WORKERS=len(self.cores.load), BODY=BODY
        )
        process = self.start_nginx("backend", configuration, self.cores.load)
        process.wait_until_it_answers(f"http://127.0.0.1:{port}/")
        return port

    def nginx(self, port):
        configuration = self.render("nginx.conf", **self.places(port))
        return self.start_nginx("nginx", configuration, self.cores.proxies)

    def haproxy(self, port):
        configuration = self.render("haproxy.cfg", **self.places(port))
        argv = [program("haproxy", "apt install haproxy"), "-db", "-f", configuration]
        return self.bench.start("haproxy", argv, self.cores.proxies)

    def places(self, port):
        return {"LISTEN": port, "BACKEND": self.backend_port, "WORKERS": len(self.cores.proxies)}

    def litepilot(self, port):
        # It starts one worker for each core that it may use, so it needs no number of workers.
        mount = self.bench.directory / "mount"
        mount.mkdir()
        with closing(sqlite3.connect(mount / "db.sqlite3")) as database:
            database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT)")
        [admin] = free_ports(1)
        environment = {
            "DIRECTORY": str(self.bench.directory),
            "LISTEN": str(port),
            "BACKEND": str(self.backend_port),
            "ADMIN": str(admin),
        }
        argv = [self.binary, "run", "-c", HERE / "peers" / "litepilot.yml"]
        return self.bench.start("litepilot", argv, self.cores.proxies, environment)


def start(setup, name):
    """A proxy that answers, shown to do its work, and where it listens."""
    [port] = free_ports(1)
    process = getattr(setup, name)(port)
    address = f"http://127.0.0.1:{port}"
    process.wait_until_it_answers(f"{address}/")
    check_headers(name, address, port)
    return process, address


def check_headers(name, address, port):
    """No proxy may win by doing less: what the app and the client see must be the same."""
    response = get(f"{address}/seen")
    expected = {
        "host": f"127.0.0.1:{port}",
        "for": "127.0.0.1",
        "proto": "http",
        "forwarded-host": f"127.0.0.1:{port}",
        "port": f"{port}",
        "role": "primary",
        "primary": "node-1",
        "connection": "",
    }
    seen = dict(line.split("=", 1) for line in response.text.splitlines())
    if seen != expected:
        raise LoadTestError(f"{name}: the application saw {seen}, not {expected}")
    added = {header: response.headers[header] for header in ["Litepilot-Node", "Litepilot-Route"]}
    if added != {"Litepilot-Node": "node-1", "Litepilot-Route": "local"}:
        raise LoadTestError(f"{name}: the client saw {added}")


def token_cookies(address):
    """The cookies of a client that has just written, so that its token can be satisfied."""
    cookies = get(f"{address}/", method="POST").headers.get_all("Set-Cookie") or []
    tokens = [cookie.split(";")[0] for cookie in cookies if cookie.startswith("__txid")]
    if len(tokens) != 2:
        raise LoadTestError(f"Litepilot set no token after a write: {cookies}")
    return tokens


def contestants(setup, names):
    """The started proxies; all of them get the same requests, half of them with cookies."""
    started = {name: start(setup, name) for name in names}
    tokens = ["__txid=0000000000000001", "__txid_epoch=1"]
    if "litepilot" in started:
        tokens = token_cookies(started["litepilot"][1])
    cookies = ("", "; ".join([SESSION, *tokens]))
    return [
        Contestant(name, address + PATH, (process,), cookies=cookies)
        for name, (process, address) in started.items()
    ]


def missed(samples, connections):
    """The limits that Litepilot does not keep."""
    for measure, (bound, limit) in LIMITS.items():
        reached = ratio(samples["litepilot"], samples[BASELINE], measure)
        kept = reached <= limit if bound == "at most" else reached >= limit
        if not kept:
            yield (
                f"{measure} at {connections} connections: {reached:.3f} × {BASELINE},"
                f" wanted {bound} {limit:.2f} ×"
            )


def version(argv):
    output = subprocess.run(argv, capture_output=True, text=True, check=True)
    return (output.stdout + output.stderr).splitlines()[0]


def versions(names, binary):
    commands = {
        "nginx": lambda: [program("nginx", ""), "-v"],
        "haproxy": lambda: [program("haproxy", ""), "-v"],
        "litepilot": lambda: [binary, "--version"],
    }
    return "; ".join(version(commands[name]()) for name in names)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litepilot", type=Path, default=HERE.parent / "target/release/litepilot")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=5, help="length of a round")
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--workers", type=int, help="of each proxy (2; with --apart 1)")
    parser.add_argument("--only", nargs="+", choices=PROXIES, default=PROXIES)
    parser.add_argument(
        "--apart",
        action="store_true",
        help="the proxies on cores of their own: a steadier CPU per request",
    )
    parser.add_argument("--check", action="store_true", help="fail if a limit is missed")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.seconds, *arguments.connections) < 1:
        parser.error("rounds, seconds and connections start at 1")
    if arguments.check and not {BASELINE, "litepilot"} <= set(arguments.only):
        parser.error(f"--check compares litepilot with {BASELINE}; leave both in --only")
    return arguments


def run(arguments):
    binary = program(arguments.litepilot.resolve(), "cargo build --release, or --litepilot PATH") if (
        "litepilot" in arguments.only
    ) else None
    workers = arguments.workers or (1 if arguments.apart else 2)
    cores = Cores.apart(workers) if arguments.apart else Cores.shared(workers)
    print(f"{machine()}; {versions(arguments.only, binary)}")
    print(f"{cores}; {workers} workers each; medians of {arguments.rounds} interleaved rounds of")
    print(f"{arguments.seconds} s; in brackets the lowest and highest ratio of single rounds.")
    failures = []
    with Bench() as bench:
        generator = Generator(cores.load, threads=min(2, len(cores.load)))
        sides = contestants(Setup(bench, cores, binary), arguments.only)
        for connections in arguments.connections:
            samples = interleave(
                generator, sides, connections, arguments.rounds, arguments.seconds
            )
            print(f"\n{connections} keep-alive connections:\n\n{table(samples, BASELINE)}")
            if arguments.check:
                failures += missed(samples, connections)
    return failures


def main():
    try:
        failures = run(parse_arguments())
    except LoadTestError as error:
        sys.exit(f"error: {error}")
    for failure in failures:
        print(f"missed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
