#!/usr/bin/env python3
"""What forwarding adds to a write: sent to a replica's node, beside the primary's. See README.md
here."""

import statistics

import command
import servers
from client import Client
from harness import Bench, Contestant, get, interleave, median, table
from pair import Pair, require

DIRECT, FORWARDED = "to the primary's node", "to a replica's node"
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


def added(samples):
    """By how many microseconds the median was later, round by round."""
    return [there.p50 - here.p50 for here, there in zip(samples[DIRECT], samples[FORWARDED])]


def run(arguments):
    """Prints the table; returns the limit if it was missed."""
    cores = command.cores(arguments)
    binary = servers.litepilot(arguments.litepilot)
    print(command.heading(arguments, cores, servers.version([binary, "--version"])))
    with Bench() as bench:
        sides = contestants(Pair(servers.Servers(bench, cores, binary)))
        samples = interleave(Client(cores.load), sides, arguments.rounds, arguments.seconds)
    print(f"\nWrites, one after the other on one connection; × {DIRECT}:\n")
    print(table(samples, DIRECT))
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
