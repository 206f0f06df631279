"""The servers that load tests start: the backend, the proxies in front of it."""

import os
import pwd
import re
import sqlite3
import subprocess
from contextlib import closing

from harness import HERE, LoadTestError, free_ports, program

# The backend's answer, about 1 KiB.
BODY = '{"entries": [' + ", ".join(['{"author": "somebody", "text": "hello there"}'] * 22) + "]}"


class Servers:
    """One backend, started at once, and the proxies in front of it, each started by its method.

    A method takes the port to listen on and returns the `Process`, which need not answer yet.
    """

    def __init__(self, bench, cores, litepilot_binary):
        self.bench = bench
        self.cores = cores
        self.litepilot_binary = litepilot_binary
        [self.backend_port] = free_ports(1)
        backend = self.start_nginx(
            "backend", "backend.conf", self.cores.load, LISTEN=self.backend_port, BODY=BODY
        )
        backend.wait_until_it_answers(f"http://127.0.0.1:{self.backend_port}/")

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
        # It starts one worker for each core that it may use, so it needs no number of workers.
        mount = self.bench.directory / "mount"
        mount.mkdir()
        with closing(sqlite3.connect(mount / "db.sqlite3")) as database:
            database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT)")
        [admin] = free_ports(1)
        environment = {
            "DIRECTORY": str(self.bench.directory),
            "LISTEN": str(port),
            "BACKEND": str(self.backend_port),
            "ADMIN": str(admin),
        }
        argv = [self.litepilot_binary, "run", "-c", HERE / "peers" / "litepilot.yml"]
        return self.bench.start("litepilot", argv, self.cores.proxies, environment)

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


def nginx():
    return program("nginx", "apt install nginx-light")


def haproxy():
    return program("haproxy", "apt install haproxy")


def litepilot(path):
    return program(path.resolve(), "cargo build --release, or name it with --litepilot")


def version(argv):
    """The first line of what a program says about itself."""
    output = subprocess.run(argv, capture_output=True, text=True)
    lines = (output.stdout + output.stderr).splitlines()
    if output.returncode != 0 or not lines:
        raise LoadTestError(f"{argv[0]} cannot run: it ended with status {output.returncode}")
    return lines[0]
