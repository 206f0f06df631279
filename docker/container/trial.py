#!/usr/bin/env python3
"""Runs three nodes in containers with a read-only root, of an image made by docker/Dockerfile:

    docker build -t litepilot:embedded -f docker/Dockerfile --target embedded .
    python3 docker/container/trial.py litepilot:embedded
    docker build -t litepilot -f docker/Dockerfile .
    python3 docker/container/trial.py litepilot --litefs

They are stopped, killed, and made anew with other host names and addresses, one and all of them, while a
client writes. Takes away what it has made."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import writing
from writing import Writer, get, must, says, until

NAME = "litepilot-trial"
# Addresses of containers are drawn from it, and never twice.
SUBNET = "172.30.81"
CONFIG = """
proxy: {target: "unix:/tmp/app.socket", db: db.sqlite3}
cluster:
  insecure: true
  peers: {node-1: "node-1:4321", node-2: "node-2:4321", node-3: "node-3:4321"}
litefs: {engine: ENGINE}
app:
  command: [litepilot, demo-app, --socket, /tmp/app.socket, --db, /litefs/db.sqlite3]
  health: /health
admin: {listen: "0.0.0.0:9180"}
"""
READ_ONLY = ["--read-only", "--tmpfs", "/tmp"]
UNPRIVILEGED = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
FUSE = ["--device", "/dev/fuse", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"]


def docker(*arguments, check=True):
    return writing.command("docker", *arguments, check=check)


class Node(writing.Node):
    made = 0

    def __init__(self, i, image, litefs, config):
        self.i, self.http, self.admin = i, 18080 + i, 19180 + i
        self.container = f"{NAME}-{i}"
        ports = [f"127.0.0.1:{self.http}:8080", f"127.0.0.1:{self.admin}:9180"]
        kept = "/var/lib/litefs" if litefs else "/litefs"
        volumes = [f"{NAME}-state-{i}:/var/lib/litepilot", f"{NAME}-data-{i}:{kept}", f"{config}:/etc/litepilot.yml:ro"]
        self.options = [
            *READ_ONLY,
            *(FUSE if litefs else UNPRIVILEGED),
            *(option for volume in volumes for option in ("--volume", volume)),
            *(option for port in ports for option in ("--publish", port)),
            *("--env", f"LITEPILOT_NODE=node-{i}", "--network", NAME, "--network-alias", f"node-{i}", image),
        ]

    def make(self):
        """Under a host name and an address that it has not had before."""
        Node.made += 1
        place = ["--hostname", f"host-{Node.made}", "--ip", f"{SUBNET}.{10 + Node.made}"]
        docker("run", "--detach", "--name", self.container, *place, *self.options)

    def stop(self):
        docker("stop", "--time", "60", self.container)
        code = docker("inspect", "--format", "{{.State.ExitCode}}", self.container)
        must(code == "0", f"it stops by itself, and not with {code}: docker logs {self.container}")

    def make_anew(self):
        docker("rm", self.container)
        self.make()

    def is_healthy(self):
        return docker("inspect", "--format", "{{.State.Health.Status}}", self.container) == "healthy"


def the_primary(nodes):
    return until("a primary", lambda: next((node for node in nodes if node.takes_writes()), None))


def all_ready(nodes):
    for node in nodes:
        until(f"node-{node.i} is ready", node.is_ready)


def start(nodes):
    for node in nodes:
        node.make()
    the_primary(nodes)
    for node in nodes:
        until(f"the image's health check says that node-{node.i} is healthy", node.is_healthy)
    says("three nodes with a read-only root elect a primary, and are healthy")


def stop(nodes):
    primary = the_primary(nodes)
    others = [node for node in nodes if node is not primary]
    with Writer(*others) as writer:
        time.sleep(1)
        primary.stop()
        the_primary(others)
        primary.make_anew()
        until("it is ready again", primary.is_ready)
    must(not writer.failed, f"a stop hands over: {writer.failed}")
    says("docker stop of the primary; back under another name and address", writer)
    return writer.acknowledged


def kill(nodes):
    primary = the_primary(nodes)
    others = [node for node in nodes if node is not primary]
    with Writer(*others) as writer:
        time.sleep(1)
        docker("kill", primary.container)
        the_primary(others)
        docker("start", primary.container)
        until("it is ready again", primary.is_ready)
    must(len(writer.failed) <= 1, f"only the write under way may fail: {writer.failed}")
    says("docker kill of the primary, docker start", writer)


def move(nodes, written):
    for node in nodes:
        node.stop()
    for node in reversed(nodes):
        node.make_anew()
    primary = the_primary(nodes)
    all_ready(nodes)
    with Writer(primary) as writer:
        until("a write", lambda: writer.acknowledged)
    there = {entry["text"] for entry in json.loads(get(primary.http, "/api/entries")[1])}
    must(there.issuperset(written), "all that was written is there")
    says("all three under other names and addresses")


def remove():
    containers = docker("ps", "--all", "--quiet", "--filter", f"name={NAME}", check=False).split()
    if containers:
        docker("rm", "--force", *containers, check=False)
    volumes = docker("volume", "ls", "--quiet", "--filter", f"name={NAME}", check=False).split()
    if volumes:
        docker("volume", "rm", *volumes, check=False)
    docker("network", "rm", NAME, check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--litefs", action="store_true", help="with LiteFS, not with `embedded`")
    arguments = parser.parse_args()
    print(docker("version", "--format", "Docker {{.Server.Version}}"))
    try:
        with tempfile.TemporaryDirectory() as directory:
            config = Path(directory) / "litepilot.yml"
            config.write_text(CONFIG.replace("ENGINE", "litefs" if arguments.litefs else "embedded"))
            Path(directory).chmod(0o755)
            docker("network", "create", "--subnet", f"{SUBNET}.0/24", NAME)
            nodes = [Node(i, arguments.image, arguments.litefs, config) for i in (1, 2, 3)]
            start(nodes)
            written = stop(nodes)
            kill(nodes)
            all_ready(nodes)
            move(nodes, written)
    finally:
        remove()


if __name__ == "__main__":
    main()
