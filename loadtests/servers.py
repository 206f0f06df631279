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

# Its longer answers, by path, in bytes.
LONG = {"64k": 64 * 1024, "1m": 1024 * 1024}


class Servers:
    """Backends, and the proxies in front of one, each started by its method.

    A proxy's method takes the port to listen on and returns the `Process`, which need not answer
    yet.
    """

    def __init__(self, bench, cores, litepilot_binary, former_binary=None):
        self.bench = bench
        self.cores = cores
        self.litepilot_binary = litepilot_binary
        self.former_binary = former_binary

    def backend(self, name):
        """Starts an application; returns its port once it answers."""
        [port] = free_ports(1)
        for file, size in LONG.items():
            (self.bench.directory / file).write_bytes(b"x" * size)
        values = {"LISTEN": port, "BODY": BODY, "DIRECTORY": self.bench.directory}
        process = self.start_nginx(name, "backend.conf", self.cores.load, **values)
        process.wait_until_it_answers(f"http://127.0.0.1:{port}/")
        return port

    @cached_property
    def backend_port(self):
        """The one backend of all proxies that are compared."""
        return self.backend("backend")

    @cached_property
    def certificate(self):
        """Of the proxies, with its key in the same file, as HAProxy wants it."""
        key, certificate = (self.bench.directory / f"litepilot-0.{end}" for end in ("key", "crt"))
        argv = [program("openssl", "apt install openssl"), "req", "-x509", "-nodes", "-days", "2"]
        argv += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost"]
        subprocess.run([*argv, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        both = self.bench.directory / "site.pem"
        both.write_text(certificate.read_text() + key.read_text())
        return both

    def nginx(self, port, tls_port=None, name="nginx", backend=None):
        """For HTTP at one port, for HTTPS at the other."""
        values = {"LISTEN": port, "TLS": tls_port or free_ports(1)[0]}
        values |= {"BACKEND": backend or f"127.0.0.1:{self.backend_port}"}
        values |= {"CERTIFICATE": self.certificate}
        return self.start_nginx(name, "nginx.conf", self.cores.proxies, **values)

    @cached_property
    def node_certificates(self):
        """The directory with those of node-1 and node-2, and their authority's."""
        directory = self.bench.directory / "certificates"
        for words in (["init"], ["issue", "node-1"], ["issue", "node-2"]):
            argv = [self.litepilot_binary, "certs", words[0], directory, *words[1:]]
            subprocess.run(argv, check=True, capture_output=True)
        return directory

    def nginx_over_tls(self, port):
        """One nginx that passes requests on to another, each of which knows the other."""
        values = {"LISTEN": port, "TLS": free_ports(1)[0], "BACKEND": self.backend_port}
        values |= {"CERTS": self.node_certificates}
        return self.start_nginx("mtls", "mtls.conf", self.cores.proxies, **values)

    def control(self, port):
        """A second nginx: how far its ratio to the first is from 1 is how far noise goes."""
        return self.nginx(port, name="control")

    def haproxy(self, port, tls_port=None):
        cores = self.cores.proxies
        values = {"LISTEN": port, "TLS": tls_port or free_ports(1)[0], "BACKEND": self.backend_port}
        values |= {"CERTIFICATE": self.certificate, "WORKERS": len(cores)}
        configuration = self.render("haproxy", "haproxy.cfg", **values)
        return self.bench.start("haproxy", [haproxy(), "-db", "-f", configuration], cores)

    def litepilot(self, port):
        return self.litepilot_at(port, "litepilot", "litepilot.yml", self.litepilot_binary)

    def litepilot_tls(self, port):
        """HTTPS is for a process of its own, as each has one port."""
        return self.litepilot_at(port, "litepilot-tls", "litepilot-tls.yml", self.litepilot_binary)

    def former(self, port):
        """Another build of Litepilot."""
        return self.litepilot_at(port, "former", "litepilot.yml", self.former_binary)

    def litepilot_at(self, port, name, configuration, binary):
        directory = self.bench.directory / name
        (directory / "mount").mkdir(parents=True)
        create_database(directory / "mount")
        [admin] = free_ports(1)
        environment = {
            "DIRECTORY": str(directory),
            "LISTEN": str(port),
            "BACKEND": str(self.backend_port),
            "ADMIN": str(admin),
            "LITEPILOT_CERTS": str(self.certificate.parent),
        }
        return self.start_litepilot(name, configuration, environment, binary)

    def start_litepilot(self, name, configuration, environment, binary=None):
        # It starts one worker for each core that it may use, so it needs no number of workers.
        argv = [binary or self.litepilot_binary, "run", "-c", HERE / "peers" / configuration]
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
    if not tokens:
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
