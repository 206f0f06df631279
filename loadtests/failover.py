#!/usr/bin/env python3
"""How long writes have to wait when the primary, or what it runs, dies or hands over. See README.md
here."""

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import time

import command
import servers
from harness import Bench, Cores, LoadTestError, machine
from voters import PATIENCE, Voters, Writer

TTLS = (1, 2)  # seconds
# Seconds, p95: whatever dies, and a planned handoff.
DEATH = 0.5
HANDOFF = {"embedded": 0.3, "litefs": 0.4}
TRIES = 20  # for each run, to have the primary lead Raft


def fail_over(voters):
    """Kills a primary that does not lead Raft."""
    primary, leader, third = voters.settle()
    with Writer(random.choice((leader, third))) as writer:
        writer.first_after(0)
        # At any moment between two renewals of the lease.
        time.sleep(random.uniform(0, voters.ttl / 5))
        return killed(primary, writer)


def fail_over_of_leader(voters):
    """Kills a primary that leads Raft. It passes that on within ttl / 5, so it is brought about: the
    leader is stopped until another node leads, which is the primary about every second time."""
    for _ in range(TRIES):
        primary, leader, third = voters.settle()
        with Writer(third) as writer:
            writer.first_after(0)
            leader.signal(signal.SIGSTOP)
            try:
                is_both = comes_to_lead(primary, leader)
            finally:
                leader.signal(signal.SIGCONT)
            if is_both:
                return killed(primary, writer)
    return None


def comes_to_lead(primary, former):
    """Waits for a leader of Raft after `former`; whether it is the primary, and still the primary."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        status = primary.status() or {}
        name = (status.get("raft") or {}).get("leader")
        if name not in (None, former.name):
            return name == primary.name and status["writable"]
        time.sleep(0.005)
    raise primary.process.failure("sees no new leader of Raft")


def killed(primary, writer):
    """Seconds from the kill to the first acknowledged write that was sent after it."""
    before, gone = primary.kill()
    seconds = writer.first_after(gone).answered - before
    primary.start()
    return seconds


def what_it_runs_dies(key):
    """Kills the primary's LiteFS or application: by itself, without a word to Litepilot."""

    def kill(voters):
        primary, *others = voters.settle()
        pid = ((primary.status() or {}).get(key) or {}).get("pid")
        if pid is None:
            return None
        with Writer(random.choice(others)) as writer:
            writer.first_after(0)
            before = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            return writer.first_after(time.monotonic()).answered - before

    return kill


def restart(voters):
    """What a service manager does: SIGTERM, and a start once it has ended; the seconds of the longest
    write around it."""
    primary, _, third = voters.settle()
    with Writer(third) as writer:
        writer.first_after(0)
        begin = time.monotonic()
        primary.signal(signal.SIGTERM)
        primary.process.child.wait()
        primary.start()
        voters.settle()
        return longest(writer, begin)


def hand_over(voters):
    """A planned handoff; the seconds of the longest write around it."""
    primary, *others = voters.settle()
    target, third = random.sample(others, 2)
    argv = [voters.binary, "promote", target.name, "--admin", primary.admin]
    argv += ["--token-file", primary.directory / "data/admin.token"]
    with Writer(third) as writer:
        writer.first_after(0)
        begin = time.monotonic()
        promoted = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
        if promoted.returncode != 0:
            raise LoadTestError(f"the handoff failed: {promoted.stderr}")
        return longest(writer, begin)


def longest(writer, begin):
    """The seconds of the longest write since `begin`; none may have failed."""
    end = time.monotonic()
    writer.first_after(end)
    writes = writer.between(begin, end)
    if failed := [write.status for write in writes if not write.acknowledged]:
        raise LoadTestError(f"writes failed during a handoff, with status {failed}")
    return max(write.answered - write.sent for write in writes)


KINDS = {
    # kind: what is measured, heading
    "kill": (fail_over, "killed, another node leads Raft"),
    "kill-leader": (fail_over_of_leader, "killed while it leads Raft"),
    "litefs": (what_it_runs_dies("litefs"), "loses its LiteFS, killed"),
    "app": (what_it_runs_dies("app"), "loses its application, killed"),
    "restart": (restart, "is restarted in order"),
    "handoff": (hand_over, "hands over"),
}


def percentile(times, share):
    """The least time that this share of all does not exceed."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


def measure(voters, kind, runs):
    """The times of so many runs; fewer if some could not be brought about."""
    times = []
    for number in range(runs):
        if (seconds := KINDS[kind][0](voters)) is not None:
            times.append(seconds)
        done = "not brought about" if seconds is None else f"{seconds * 1000:.0f} ms"
        print(f"  ttl {voters.ttl} s, {kind} {number + 1} of {runs}: {done}", file=sys.stderr)
    return times


def row(ttl, kind, times, limit):
    """A line of the table, in milliseconds."""
    if not times:
        return f"| {ttl} s | {KINDS[kind][1]} | 0 | not measured | | | |"
    p50, p95, most = (f"{percentile(times, share) * 1000:,.0f}" for share in (0.5, 0.95, 1))
    return f"| {ttl} s | {KINDS[kind][1]} | {len(times)} | {p50} | {p95} | {most} | {limit:,.0f} |"


def run(arguments):
    """Prints the table; returns the limits that were missed."""
    binary, missed = servers.litepilot(arguments.litepilot), []
    print(f"{machine()}; {servers.version([binary, '--version'])}.\n")
    print(f"Engine: {arguments.engine}.\n")
    print("| ttl | the primary | runs | p50 ms | p95 ms | max ms | p95 at most |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for ttl in arguments.ttl:
        with Bench() as bench:
            engine = (arguments.engine, arguments.litefs)
            voters = Voters(bench, Cores.shared(1).load, binary, ttl, *engine)
            kinds = [k for k in arguments.only if k != "litefs" or arguments.engine == "litefs"]
            for kind in kinds:
                times = measure(voters, kind, arguments.runs)
                limit = HANDOFF[arguments.engine] if kind == "handoff" else DEATH
                print(row(ttl, kind, times, limit * 1000), flush=True)
                if not times or percentile(times, 0.95) > limit:
                    missed.append(f"ttl {ttl} s, {kind}: p95 is not within {limit * 1000:.0f} ms")
    return missed if arguments.check else []


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    command.common(parser)
    command.engine(parser)
    parser.add_argument("--runs", type=command.positive, default=20, help="of each kind")
    parser.add_argument("--ttl", type=int, choices=TTLS, nargs="+", default=TTLS, help="seconds")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS))
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
