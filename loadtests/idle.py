#!/usr/bin/env python3
"""What a node costs while nobody asks it anything. See README.md here."""

import argparse
import re
import time

import command
import servers
from harness import Bench, Cores, machine
from voters import Voters

TTL = 2  # seconds, the default of `cluster.lease.ttl`
SETTLING = 20  # seconds, after the last write
CPU = 1.0  # percent of a core, at most


def run(arguments):
    """Prints the table; returns the limits that were missed."""
    binary, missed = servers.litepilot(arguments.litepilot), []
    print(f"{machine()}; {servers.version([binary, '--version'])}.")
    print(f"Engine: {arguments.engine}; {arguments.seconds} s.\n")
    print("| node | CPU, % of a core | with its children | bytes written |")
    print("| --- | ---: | ---: | ---: |")
    with Bench() as bench:
        voters = Voters(
            bench, Cores.shared(1).load, binary, TTL, arguments.engine, arguments.litefs
        )
        primary, leader, third = voters.settle()
        nodes = {"primary": primary, "leads Raft": leader, "neither": third}
        time.sleep(SETTLING)
        before = {what: cost(node.process) for what, node in nodes.items()}
        time.sleep(arguments.seconds)
        for what, node in nodes.items():
            own, whole, written = (b - a for a, b in zip(before[what], cost(node.process)))
            own, whole = (seconds / arguments.seconds * 100 for seconds in (own, whole))
            print(f"| {what} | {own:.2f} | {whole:.2f} | {written:,} |")
            if own >= CPU or written:
                missed.append(f"{what}: {own:.2f} % of a core and {written:,} bytes written")
    return missed if arguments.check else []


def cost(process):
    """Seconds of CPU of Litepilot itself, those of its children too, and bytes that it wrote to disks."""
    with open(f"/proc/{process.child.pid}/io") as counts:
        written = re.search(r"^write_bytes: (\d+)$", counts.read(), re.MULTILINE)
    return process.own_cpu_seconds(), process.cpu_seconds(), int(written.group(1))


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    command.common(parser)
    command.engine(parser)
    parser.add_argument("--seconds", type=command.positive, default=60)
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
