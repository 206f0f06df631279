#!/usr/bin/env python3
"""Writes per second that last: beside the same application without replication, and beside rqlite.
See README.md here."""

import argparse
import json
import time
import urllib.request
from pathlib import Path

import command
import servers
from harness import (
    START_TIMEOUT,
    Bench,
    Contestant,
    Cores,
    LoadTestError,
    Wrk,
    free_ports,
    interleave,
    machine,
    program,
    table,
)
from voters import Voters, unmount

ALONE = "nginx, one node"
ENTRIES, ENTRY = "/api/entries", '{"text": "hello"}'
NODES = 3
TTL = 2  # seconds, the default of `cluster.lease.ttl`


def alone(bench, setup, binary):
    """The application of the other sides with its database in an ordinary directory, behind nginx."""
    directory = bench.directory / "alone"
    directory.mkdir()
    return behind_nginx(ALONE, bench, setup, binary, directory)


def on_litefs(bench, setup, binary, litefs):
    """Likewise on a LiteFS that nobody follows."""
    directory = bench.directory / "litefs"
    mount, configuration = directory / "mount", directory / "litefs.yml"
    mount.mkdir(parents=True)
    [port] = free_ports(1)
    lease = f"{{type: static, candidate: true, advertise-url: 'http://127.0.0.1:{port}'}}"
    configuration.write_text(
        f"fuse: {{dir: {mount}}}\ndata: {{dir: {directory / 'data'}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\nlease: {lease}\n"
    )
    argv = [program(litefs, "--litefs PATH"), "mount", "-config", configuration]
    process = bench.start("litefs", argv, setup.cores.load)
    bench.callback(unmount, mount)
    process.wait_until_it_accepts(port)
    return behind_nginx("nginx, one node on LiteFS", bench, setup, binary, mount, process)


def behind_nginx(name, bench, setup, binary, directory, *others):
    socket = bench.directory / f"{len(name)}.socket"
    argv = [binary, "demo-app", "--socket", socket, "--db", directory / "db.sqlite3"]
    app = bench.start(name, argv, setup.cores.load)
    [port] = free_ports(1)
    proxy = setup.nginx(port, name=f"nginx-{port}", backend=f"unix:{socket}")
    proxy.wait_until_it_answers(f"http://127.0.0.1:{port}/")
    return writes(name, port, (app, proxy, *others))


def cluster(bench, binary, arguments, ack):
    """Three nodes; the writes come to the primary's."""
    inner = bench.enter_context(Bench())
    cores = Cores.shared(1).load
    voters = Voters(inner, cores, binary, TTL, arguments.engine, arguments.litefs, ack)
    primary, *_ = voters.settle()
    processes = tuple(node.process for node in voters.nodes)
    return writes(f"Litepilot, ack: {ack}", primary.port, processes)


def rqlite(bench, binary, cores):
    """Three nodes; the writes come to their leader, and a majority holds each."""
    http, raft = free_ports(NODES), free_ports(NODES)
    join = ",".join(f"127.0.0.1:{port}" for port in raft)
    processes = []
    for number in range(NODES):
        argv = [binary, "-node-id", f"node-{number}", "-bootstrap-expect", NODES, "-join", join]
        argv += ["-http-addr", f"127.0.0.1:{http[number]}"]
        argv += ["-raft-addr", f"127.0.0.1:{raft[number]}", bench.directory / f"rqlite-{number}"]
        processes.append(bench.start(f"rqlite-{number}", argv, cores))
    create = "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, text TEXT)"
    deadline = time.monotonic() + START_TIMEOUT
    while not all(execute(port, create) for port in http):
        if time.monotonic() > deadline:
            raise processes[0].failure("takes no writes")
        time.sleep(0.1)
    body = json.dumps(["INSERT INTO entries (text) VALUES ('hello')"])
    url = f"http://127.0.0.1:{leader(http)}/db/execute"
    return Contestant("rqlite", url, tuple(processes), method="POST", body=body)


def execute(port, statement):
    """Whether it was done."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/db/execute",
        json.dumps([statement]).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return "error" not in json.load(response)["results"][0]
    except (OSError, LookupError):
        return False


def leader(ports):
    """The port of the node that needs to pass nothing on."""
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as response:
            if json.load(response)["store"]["raft"]["state"] == "Leader":
                return port
    raise LoadTestError("no node of rqlite leads")


def writes(name, port, processes):
    address = f"http://127.0.0.1:{port}{ENTRIES}"
    return Contestant(name, address, processes, method="POST", body=ENTRY)


def run(arguments):
    """Prints the table."""
    binary, cores = servers.litepilot(arguments.litepilot), Cores.shared(2)
    print(f"{machine()}; {servers.version([binary, '--version'])}.")
    print(f"Engine: {arguments.engine}; {NODES} nodes; {arguments.connections} connections.\n")
    with Bench() as bench:
        setup = servers.Servers(bench, cores, binary)
        sides = [alone(bench, setup, binary)]
        if arguments.engine == "litefs":
            sides.append(on_litefs(bench, setup, binary, arguments.litefs))
        sides += [cluster(bench, binary, arguments, ack) for ack in ("primary", "majority")]
        if arguments.rqlite:
            sides.append(rqlite(bench, program(arguments.rqlite, "--rqlite PATH"), cores.load))
        generator = Wrk(cores.load, 2, arguments.connections)
        print(table(interleave(generator, sides, arguments.rounds, arguments.seconds), ALONE))
    return []


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    command.common(parser)
    command.engine(parser)
    parser.add_argument("--rqlite", type=Path, help="its executable, rqlited: to be compared too")
    parser.add_argument("--connections", type=command.positive, default=16)
    parser.add_argument("--rounds", type=command.positive, default=3)
    parser.add_argument("--seconds", type=command.positive, default=5)
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
