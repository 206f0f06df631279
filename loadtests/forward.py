#!/usr/bin/env python3
"""What forwarding adds to a write: sent to a replica's node, beside the primary's. See README.md
here."""

import statistics

import command
import servers
from client import Client
from harness import Bench, Contestant, free_ports, get, interleave, median, table
from pair import Pair, require

DIRECT, FORWARDED = "to the primary's node", "to a replica's node"
NGINX = "by one nginx to another"
LIMIT = 200  # microseconds that forwarding may add to the median
PATH = "/guestbook/entries"
BODY = '{"author": "somebody", "text": "hello there"}'


def contestants(pair):
    """The same writes, both answered by the primary's application."""
    require(get(pair.primary.address + PATH, method="POST"), "node-1", "local")
    require(get(pair.replica.address + PATH, method="POST"), "node-1", "primary")
    both = (pair.primary.process, pair.replica.process)
    return [
        Contestant(name, node.address + PATH, both, method="POST", body=BODY)
        for name, node in [(DIRECT, pair.primary), (FORWARDED, pair.replica)]
    ]


def over_tls(setup, pair):
    """A write by a replica's node, and one by an nginx that passes it on to another."""
    [port] = free_ports(1)
    nginx = setup.nginx_over_tls(port)
    nginx.wait_until_it_answers(f"http://127.0.0.1:{port}/")
    address = f"http://127.0.0.1:{port}{PATH}"
    peer = Contestant(NGINX, address, (nginx,), method="POST", body=BODY)
    return [peer, contestants(pair)[1]]


def added(samples):
    """By how many microseconds the median was later, round by round."""
    return [there.p50 - here.p50 for here, there in zip(samples[DIRECT], samples[FORWARDED])]


def run(arguments):
    """Prints the table; returns the limit if it was missed."""
    cores = command.cores(arguments)
    binary = servers.litepilot(arguments.litepilot)
    print(command.heading(arguments, cores, servers.version([binary, "--version"])))
    client, length = Client(cores.load), (arguments.rounds, arguments.seconds)
    with Bench() as bench:
        setup = servers.Servers(bench, cores, binary)
        samples = interleave(client, contestants(Pair(setup)), *length)
    with Bench() as bench:
        setup = servers.Servers(bench, cores, binary)
        secure = interleave(client, over_tls(setup, Pair(setup, tls=True)), *length)
    print(f"\nWrites, one after the other on one connection; × {DIRECT}:\n")
    print(table(samples, DIRECT))
    print(f"\nThe same over TLS, in which both sides show certificates; × {NGINX}:\n")
    print(table(secure, NGINX))
    rounds = added(samples)
    more = statistics.median(rounds)
    print(
        f"\nMedian {DIRECT} {median(samples[DIRECT], 'p50'):.0f} µs,"
        f" {FORWARDED} {median(samples[FORWARDED], 'p50'):.0f} µs:"
        f" forwarding adds {more:.0f} µs ({min(rounds):.0f}–{max(rounds):.0f})"
    )
    if arguments.check and more > LIMIT:
        return [f"p50: {more:.0f} µs more than {DIRECT}, wanted at most {LIMIT} µs"]
    return []


if __name__ == "__main__":
    command.main(run, command.parser(__doc__, rounds=9, seconds=3).parse_args())
