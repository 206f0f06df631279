#!/usr/bin/env python3
"""What a read at a replica costs with a token that it satisfies, beside one without. See README.md
here."""

import command
import servers
from harness import Bench, Contestant, LoadTestError, Wrk, get, interleave, ratio, table
from pair import Pair, require

WITHOUT, CONTROL, WITH = "no token", "no token again", "satisfied token"
LIMIT = 1.03  # CPU per request, × without
CONNECTIONS = 32
PATH = "/guestbook/entries?page=2"
SESSION = "csrftoken=Xq1mTz0bW8fJr4KcYv7uLs2n; sessionid=8f1u0k3v5x7y9z2a4c6e8g0i2k4m6o8q"


def contestants(pair):
    """The same process, asked the same; only the names of two cookies differ, not their length."""
    tokens = "; ".join([SESSION, *pair.tokens])
    others = tokens.replace("__txid", "__seen")
    show_that_tokens_count(pair, tokens, others)

    def reads(name, cookies):
        url, process = pair.replica.address + PATH, pair.replica.process
        return Contestant(name, url, (process,), cookies=(cookies,))

    return [reads(WITHOUT, others), reads(CONTROL, others), reads(WITH, tokens)]


def show_that_tokens_count(pair, tokens, others):
    """The replica serves both, but not a token that it has not reached: so it reads them."""

    def read(cookies):
        return get(pair.replica.address + PATH, headers={"Cookie": cookies})

    require(read(others), "node-2", "local")
    require(read(tokens), "node-2", "local")
    txid = pair.tokens[0].removeprefix("__txid=")
    ahead = tokens.replace(txid, f"{int(txid, 16) + 1:016x}")
    require(read(ahead), "node-1", "primary")


def reads_sent_to_primary(node):
    """How many reads this node has not served itself, since its start."""
    total = 0
    for line in get(f"{node.admin}/metrics").text.splitlines():
        if line.startswith('litepilot_requests_total{class="read",route="primary"'):
            total += int(line.split()[-1])
    return total


def run(arguments):
    """Prints the table; returns the limit if it was missed."""
    cores = command.cores(arguments)
    binary = servers.litepilot(arguments.litepilot)
    print(command.heading(arguments, cores, servers.version([binary, "--version"])))
    with Bench() as bench:
        pair = Pair(servers.Servers(bench, cores, binary))
        sides = contestants(pair)
        elsewhere = reads_sent_to_primary(pair.replica)
        generator = Wrk(cores.load, threads=1, connections=CONNECTIONS)
        samples = interleave(generator, sides, arguments.rounds, arguments.seconds)
        if reads_sent_to_primary(pair.replica) != elsewhere:
            raise LoadTestError("the replica sent reads to the primary: their cost is another one")
    print(f"\nReads at a replica, {CONNECTIONS} keep-alive connections; × {WITHOUT}:\n")
    print(table(samples, WITHOUT))
    reached = ratio(samples[WITH], samples[WITHOUT], "cpu")
    print(f"\nCPU per request with a satisfied token: {reached:.3f} ×")
    if arguments.check and reached > LIMIT:
        return [f"cpu: {reached:.3f} × {WITHOUT}, wanted at most {LIMIT:.2f} ×"]
    return []


if __name__ == "__main__":
    command.main(run, command.parser(__doc__, rounds=40, seconds=1).parse_args())
