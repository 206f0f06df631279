#!/usr/bin/env python3
"""Compares Litepilot with nginx and HAProxy in front of the same backend. See README.md here."""

import re
from pathlib import Path

import command
import servers
from harness import (
    Bench,
    Contestant,
    LoadTestError,
    Wrk,
    free_ports,
    get,
    interleave,
    ratio,
    table,
)

BASELINE = "nginx"
PROXIES = ["nginx", "control", "haproxy", "litepilot", "former"]
DEFAULT_PROXIES = ["nginx", "haproxy", "litepilot"]
PATH = "/guestbook/entries?page=2"
SESSION = "csrftoken=Xq1mTz0bW8fJr4KcYv7uLs2n; sessionid=8f1u0k3v5x7y9z2a4c6e8g0i2k4m6o8q"

# What Litepilot has to reach, as ratios to the baseline.
LIMITS = {
    "cpu": ("at most", 1.05),
    "throughput": ("at least", 0.95),
    "p99": ("at most", 1.10),
}


def start(setup, name):
    """A proxy that answers, shown to do its work, and its address."""
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
    request_id, traceparent = seen.pop("request-id"), seen.pop("traceparent")
    if not re.fullmatch("[0-9a-fA-F]{32}", request_id) or f"00-{request_id}-" not in traceparent:
        raise LoadTestError(f"{name}: the names {request_id!r} and {traceparent!r} make no sense")
    if seen != expected:
        raise LoadTestError(f"{name}: the application saw {seen}, not {expected}")
    added = {header: response.headers[header] for header in ["Litepilot-Node", "Litepilot-Route"]}
    if added != {"Litepilot-Node": "node-1", "Litepilot-Route": "local"}:
        raise LoadTestError(f"{name}: the client saw {added}")
    if response.headers["X-Request-Id"] != request_id:
        raise LoadTestError(f"{name}: the client was told another name of its request")


def contestants(setup, names):
    """The started proxies; all of them get the same requests, half of them with cookies."""
    started = {name: start(setup, name) for name in names}
    tokens = ["__txid=0000000000000001", "__txid_epoch=1"]
    if "litepilot" in started:
        tokens = servers.token_cookies(started["litepilot"][1])
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


def parse_arguments():
    parser = command.parser(__doc__, rounds=9, seconds=5)
    parser.add_argument("--connections", type=command.positive, nargs="+", default=[32, 256])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PROXIES,
        default=DEFAULT_PROXIES,
        metavar="PROXY",
        help=f"of {', '.join(PROXIES)}; control is a second nginx, to see the noise",
    )
    parser.add_argument("--former", type=Path, help="another build of Litepilot, to be compared too")
    arguments = parser.parse_args()
    if arguments.former and "former" not in arguments.only:
        arguments.only = [*arguments.only, "former"]
    if "former" in arguments.only and not arguments.former:
        parser.error("--only former: name it with --former")
    if arguments.check and not {BASELINE, "litepilot"} <= set(arguments.only):
        parser.error(f"--check compares litepilot with {BASELINE}: leave both in --only")
    return arguments


def versions(arguments):
    """Who takes part; also finds out at once if somebody is missing."""
    commands = {
        "nginx": lambda: [servers.nginx(), "-v"],
        "haproxy": lambda: [servers.haproxy(), "-v"],
        "litepilot": lambda: [servers.litepilot(arguments.litepilot), "--version"],
        "former": lambda: [servers.litepilot(arguments.former), "--version"],
    }
    return "; ".join(
        servers.version(commands[name]()) for name in arguments.only if name in commands
    )


def run(arguments):
    """Prints the tables; returns the limits that were missed."""
    cores = command.cores(arguments)
    print(command.heading(arguments, cores, versions(arguments)))
    failures = []
    with Bench() as bench:
        setup = servers.Servers(bench, cores, arguments.litepilot.resolve(), arguments.former)
        sides = contestants(setup, arguments.only)
        for connections in arguments.connections:
            generator = Wrk(cores.load, min(2, len(cores.load)), connections)
            samples = interleave(generator, sides, arguments.rounds, arguments.seconds)
            print(f"\n{connections} keep-alive connections; × {BASELINE}:\n")
            print(table(samples, BASELINE))
            if arguments.check:
                failures += missed(samples, connections)
    return failures


if __name__ == "__main__":
    command.main(run, parse_arguments())
