#!/usr/bin/env python3
"""What each kind of traffic costs beside nginx and HAProxy. See README.md here."""

import contextlib
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

import chart
import command
import servers
from harness import Bench, LoadTestError, free_ports, interleave, median, ratio
from kinds import KINDS, OpenLoop
from proxies import SESSION

BASELINE = "nginx"
PEERS = ["nginx", "haproxy"]
NAMES = [*PEERS, "litepilot"]

CPU_OF_NGINX = 1.0  # what a request may cost, × nginx'
CPU_OF_BETTER = 1.05  # × that of whichever of the two costs less
LOAD = 0.25  # of what nginx can, in the open loop
LATE = 1.1  # × the better p99: what differs less is noise
IDLE_KIB = 12.0  # memory of an idle connection that is kept
HEAD = """\
| | nginx, µs | HAProxy, × | Litepilot, × | × the better | requests, × |
| --- | ---: | ---: | ---: | ---: | ---: |"""
DESCRIPTORS = 16384  # the clients' and a proxy's towards both sides


@dataclass(frozen=True)
class Proxy:
    """One of those compared: its port and its process, by scheme."""

    name: str
    ports: dict
    processes: dict


def start(setup, name):
    """A proxy that answers, for HTTP and for HTTPS."""
    http, https = free_ports(2)
    if name == "litepilot":
        processes = {"http": setup.litepilot(http), "https": setup.litepilot_tls(https)}
    else:
        processes = dict.fromkeys(("http", "https"), getattr(setup, name)(http, https))
    processes["http"].wait_until_it_answers(f"http://127.0.0.1:{http}/")
    processes["https"].wait_until_it_accepts(https)
    return Proxy(name, {"http": http, "https": https}, processes)


def costs(samples):
    """CPU per request × nginx' of each, and of Litepilot × the better of the others."""
    haproxy, own = (ratio(samples[name], samples[BASELINE], "cpu") for name in NAMES[1:])
    return haproxy, own, own / min(1.0, haproxy)


def measure(kind, proxies, arguments, cores):
    """One row: all see the same requests, in turns."""
    sides = [kind.contestant(proxy, ("", SESSION)) for proxy in proxies]
    return interleave(kind.generator(cores.load), sides, arguments.rounds, arguments.seconds)


def by_kind(proxies, arguments, cores):
    """Prints the table of costs; returns them by kind, and the limits that were missed."""
    print("\nCPU per request:\n", HEAD, sep="\n")
    found, missed = {}, []
    for kind in KINDS:
        if arguments.only and not any(word in kind.name for word in arguments.only):
            continue
        samples = measure(kind, proxies, arguments, cores)
        haproxy, own, better = found[kind.name] = costs(samples)
        requests = ratio(samples["litepilot"], samples[BASELINE], "throughput")
        cpu = median(samples[BASELINE], "cpu")
        numbers = [f"{cpu:.1f}", *(f"{n:.2f}" for n in (haproxy, own, better, requests))]
        print(f"| {' | '.join([kind.name, *numbers])} |", flush=True)
        if own > CPU_OF_NGINX or better > CPU_OF_BETTER:
            missed.append(f"{kind.name}: {own:.2f} × nginx, {better:.2f} × the better")
    return found, missed


def on_time(proxies, arguments, cores, directory):
    """Prints times at one rate for all; returns the limits that were missed."""
    rows, missed = [], []
    for kind in (KINDS[0], KINDS[1], KINDS[4]):
        full = kind.generator(cores.load)
        sides = [kind.contestant(proxy, ("", SESSION)) for proxy in proxies]
        rate = full.round(sides[0], 2).throughput * LOAD
        loop = OpenLoop(cores.load, full.threads, kind.connections, rate, directory)
        samples = interleave(loop, sides, arguments.rounds, arguments.seconds)
        times = {name: median(samples[name], "p99") for name in NAMES}
        rows.append([kind.name, f"{rate:,.0f}", *(f"{times[name]:,.0f}" for name in NAMES)])
        if times["litepilot"] > LATE * min(times[name] for name in PEERS):
            missed.append(f"{kind.name}: p99 {times['litepilot']:,.0f} µs at {rate:,.0f}/s")
    print("\np99 in µs at the same rate, counted from when each request was due:\n")
    print("| | requests/s | nginx | HAProxy | Litepilot |\n| --- | ---: | ---: | ---: | ---: |")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return missed


def idle(proxies, arguments, cores):
    """Prints what kept connections cost, and what others pay for them."""
    missed, generator = [], KINDS[0].generator(cores.load)
    print(f"\n{arguments.idle:,} idle connections:\n")
    print("| | KiB each | CPU of the others' requests, × without | requests, × without |")
    print("| --- | ---: | ---: | ---: |")
    # HAProxy wants two descriptors for each connection that it might have.
    for proxy in (proxy for proxy in proxies if proxy.name != "haproxy"):
        side = KINDS[0].contestant(proxy, ("",))
        without, before = generator.round(side, arguments.seconds), proxy.processes["http"].memory_kib()
        with kept(proxy.ports["http"], arguments.idle):
            each = (proxy.processes["http"].memory_kib() - before) / arguments.idle
            beside = generator.round(side, arguments.seconds)
        cpu, requests = beside.cpu / without.cpu, beside.throughput / without.throughput
        print(f"| {proxy.name} | {each:.1f} | {cpu:.2f} | {requests:.2f} |")
        if proxy.name == "litepilot" and each > IDLE_KIB:
            missed.append(f"an idle connection takes {each:.1f} KiB, wanted {IDLE_KIB}")
    return missed


@contextlib.contextmanager
def kept(port, count):
    """Connections that had one answer each, and stay."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.sendall(b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n")
            if not client.recv(65536).startswith(b"HTTP/1.1 200 "):
                raise LoadTestError("a connection to be kept had no answer")
        yield


def allow_descriptors():
    """So many may be open in each process that is started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        raise LoadTestError(f"it takes {DESCRIPTORS} open files; {hard} are allowed: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))


def run(arguments):
    """Prints the tables; returns the limits that were missed."""
    allow_descriptors()
    cores = command.cores(arguments)
    commands = [[servers.nginx(), "-v"], [servers.haproxy(), "-v"]]
    commands.append([servers.litepilot(arguments.litepilot), "--version"])
    print(command.heading(arguments, cores, "; ".join(map(servers.version, commands))))
    with Bench() as bench:
        setup = servers.Servers(bench, cores, arguments.litepilot.resolve())
        proxies = [start(setup, name) for name in NAMES]
        # Before any has room from busier times.
        missed = [] if arguments.only else idle(proxies, arguments, cores)
        found, more = by_kind(proxies, arguments, cores)
        missed += more
        if not arguments.only:
            missed += on_time(proxies, arguments, cores, bench.directory)
    if arguments.svg:
        arguments.svg.write_text(chart.bars("CPU per request, × nginx", found))
    return missed if arguments.check else []


def options():
    parser = command.parser(__doc__, rounds=5, seconds=3)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="kinds that have one of these in their name")
    parser.add_argument("--idle", type=command.positive, default=10000, help="idle connections")
    parser.add_argument("--svg", type=Path, help="where to draw the table of costs")
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
