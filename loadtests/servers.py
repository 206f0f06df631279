"""The servers that load tests start: the backend, the proxies in front of it."""

import os
import pwd
import re
import sqlite3
import subprocess
from contextlib import closing
from functools import cached_property

from harness import HERE, LoadTestError, free_ports, get, program

# The backend's answer, about 1 KiB.
BODY = '{"entries": [' + ", ".join(['{"author": "somebody", "text": "hello there"}'] * 22) + "]}"


class Servers:
    """Backends, and the proxies in front of one, each started by its method.

    A proxy's method takes the port to listen on and returns the `Process`, which need not answer
    yet.
    """

    def __init__(self, bench, cores, litepilot_binary):
        self.bench = bench
        self.cores = cores
        self.litepilot_binary = litepilot_binary

    def backend(self, name):
        """Starts an application; returns its port once it answers."""
        [port] = free_ports(1)
        process = self.start_nginx(name, "backend.conf", self.cores.load, LISTEN=port, BODY=BODY)
        process.wait_until_it_answers(f"http://127.0.0.1:{port}/")
        return port

    @cached_property
    def backend_port(self):
        """The one backend of all proxies that are compared."""
        return self.backend("backend")

    def nginx(self, port, name="nginx"):
        cores, backend = self.cores.proxies, self.backend_port
        return self.start_nginx(name, "nginx.conf", cores, LISTEN=port, BACKEND=backend)

    def control(self, port):
        """A second nginx: how far its ratio to the first is from 1 is how far noise goes."""
        return self.nginx(port, name="control")

    def haproxy(self, port):
        cores, backend = self.cores.proxies, self.backend_port
        configuration = self.render(
            "haproxy", "haproxy.cfg", LISTEN=port, BACKEND=backend, WORKERS=len(cores)
        )
        return self.bench.start("haproxy", [haproxy(), "-db", "-f", configuration], cores)

    def litepilot(self, port):
        mount = self.bench.directory / "mount"
        mount.mkdir()
        create_database(mount)
        [admin] = free_ports(1)
        environment = {
            "DIRECTORY": str(self.bench.directory),
            "LISTEN": str(port),
            "BACKEND": str(self.backend_port),
            "ADMIN": str(admin),
        }
        return self.start_litepilot("litepilot", "litepilot.yml", environment)

    def start_litepilot(self, name, configuration, environment):
        # It starts one worker for each core that it may use, so it needs no number of workers.
        argv = [self.litepilot_binary, "run", "-c", HERE / "peers" / configuration]
        return self.bench.start(name, argv, self.cores.proxies, environment)

    def start_nginx(self, name, template, cores, **values):
        configuration = self.render(name, template, WORKERS=len(cores), **values)
        # The prefix keeps its temporary files in our directory; errors go to its log there.
        argv = [nginx(), "-p", self.bench.directory, "-c", configuration, "-e", "stderr"]
        return self.bench.start(name, argv, cores)

    def render(self, name, template, **values):
        """Writes a peer's configuration with its places (`@NAME@`) filled in."""
        values |= {"NAME": name, "USER": pwd.getpwuid(os.geteuid()).pw_name}
        text = (HERE / "peers" / template).read_text()
        text = re.sub(r"@([A-Z]+)@", lambda place: str(values[place[1]]), text)
        path = self.bench.directory / f"{name}.conf"
        path.write_text(text)
        return path


def create_database(mount):
    """The application's database."""
    with closing(sqlite3.connect(mount / "db.sqlite3")) as database:
        database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT)")


def token_cookies(address):
    """The cookies of a client that has just written, so that its token can be satisfied."""
    cookies = get(f"{address}/", method="POST").headers.get_all("Set-Cookie") or []
    tokens = [cookie.split(";")[0] for cookie in cookies if cookie.startswith("__txid")]
    if len(tokens) != 2:
        raise LoadTestError(f"Litepilot set no token after a write: {cookies}")
    return tokens


def nginx():
    return program("nginx", "apt install nginx-light")


def haproxy():
    return program("haproxy", "apt install haproxy")


def litepilot(path):
    return program(path.resolve(), "cargo build --profile dist --features aws-lc-rs, or name it with --litepilot")


def version(argv):
    """The first line of what a program says about itself."""
    output = subprocess.run(argv, capture_output=True, text=True)
    lines = (output.stdout + output.stderr).splitlines()
    if output.returncode != 0 or not lines:
        raise LoadTestError(f"{argv[0]} cannot run: it ended with status {output.returncode}")
    return lines[0]
