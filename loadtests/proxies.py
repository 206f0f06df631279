#!/usr/bin/env python3
"""Compares Litepilot with nginx and HAProxy in front of the same backend. See README.md here."""

import argparse
import sys
from pathlib import Path

import servers
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
    ratio,
    table,
)

BASELINE = "nginx"
PROXIES = ["nginx", "control", "haproxy", "litepilot"]
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


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litepilot", type=Path, default=HERE.parent / "target/release/litepilot")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=5, help="length of a round")
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--workers", type=int, help="of each proxy: 2; with --apart 1")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PROXIES,
        default=DEFAULT_PROXIES,
        metavar="PROXY",
        help=f"of {', '.join(PROXIES)}; control is a second nginx, to see the noise",
    )
    parser.add_argument("--apart", action="store_true", help="the proxies on cores of their own")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.seconds, *arguments.connections) < 1:
        parser.error("rounds, seconds and connections start at 1")
    if arguments.check and not {BASELINE, "litepilot"} <= set(arguments.only):
        parser.error(f"--check compares litepilot with {BASELINE}: leave both in --only")
    arguments.workers = arguments.workers or (1 if arguments.apart else 2)
    return arguments


def versions(arguments):
    """Who takes part; also finds out at once if somebody is missing."""
    commands = {
        "nginx": lambda: [servers.nginx(), "-v"],
        "haproxy": lambda: [servers.haproxy(), "-v"],
        "litepilot": lambda: [servers.litepilot(arguments.litepilot), "--version"],
    }
    return "; ".join(
        servers.version(commands[name]()) for name in arguments.only if name in commands
    )


def run(arguments):
    """Prints the tables; returns the limits that were missed."""
    cores = (Cores.apart if arguments.apart else Cores.shared)(arguments.workers)
    print(
        f"{machine()}; {versions(arguments)}.\n"
        f"Workers of each proxy: {arguments.workers}; {cores}.\n"
        f"Medians of {arguments.rounds} interleaved rounds of {arguments.seconds} s; × {BASELINE}"
        " is the median of the rounds' ratios (in brackets the lowest and the highest)."
    )
    failures = []
    with Bench() as bench:
        generator = Generator(cores.load, threads=min(2, len(cores.load)))
        setup = servers.Servers(bench, cores, arguments.litepilot.resolve())
        sides = contestants(setup, arguments.only)
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
