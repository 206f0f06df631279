#!/usr/bin/env python3
"""Runs nodes by the units beside this, on a machine with systemd that may be played with:

    python3 docker/systemd/trial.py target/release/litepilot [--litefs PATH]

Three nodes are started, reloaded, killed, frozen and stopped, and one is restarted behind its socket
unit, while a client writes. Needs root. Takes away what it has made."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import writing
from writing import Writer, must, says, until

HERE = Path(__file__).parent
PLACE, UNITS = Path("/run/litepilot-trial"), Path("/run/systemd/system")
NODE = """
node: node-{i}
data_dir: /var/lib/litepilot-trial-{i}
proxy: {{listen: "127.0.0.1:{http}", target: "unix:{place}/{i}/socket", db: db.sqlite3}}
{cluster}
litefs: {engine}
app:
  command: [{binary}, demo-app, --socket, {place}/{i}/socket, --db, {place}/{i}/db/db.sqlite3]
  health: /health
admin: {{listen: "127.0.0.1:{admin}"}}
"""
EMBEDDED = "{{engine: embedded, mount: {place}/{i}/db}}"
LITEFS = """
  binary: {litefs}
  mount: {place}/{i}/db
  data: {place}/{i}/litefs
  http: 127.0.0.1:{http}
  lease_listen: 127.0.0.1:{lease}
"""
CLUSTER = """
cluster:
  insecure: true
  listen: 127.0.0.1:{peer}
  peers: {{node-1: "127.0.0.1:14321", node-2: "127.0.0.1:14322", node-3: "127.0.0.1:14323"}}
"""


def systemctl(*arguments, check=True):
    return writing.command("systemctl", *arguments, check=check)


class Node(writing.Node):
    def __init__(self, i, binary, litefs=None, cluster=CLUSTER):
        self.i, self.http, self.admin = i, 18080 + i, 19180 + i
        self.unit = f"litepilot-trial@{i}.service"
        for directory in (PLACE / str(i), PLACE / str(i) / "db", PLACE / str(i) / "litefs"):
            directory.mkdir(parents=True)
            shutil.chown(directory, "www-data", "www-data")
        cluster = cluster.format(peer=14320 + i)
        engine = LITEFS if litefs else EMBEDDED
        engine = engine.format(i=i, place=PLACE, litefs=litefs, http=20200 + i, lease=20300 + i)
        ports = {"http": self.http, "admin": self.admin}
        text = NODE.format(i=i, place=PLACE, binary=binary, cluster=cluster, engine=engine, **ports)
        (PLACE / f"{i}.yml").write_text(text)

    def show(self, what):
        return systemctl("show", "--value", "-p", what, self.unit)

    def signal(self, number):
        os.kill(int(self.show("MainPID")), number)


def install(binary):
    text = (HERE / "litepilot.service").read_text()
    text = text.replace("ExecStart=litepilot run -c /etc/litepilot.yml", f"ExecStart={binary} run -c {PLACE}/%i.yml")
    text = text.replace("StateDirectory=litepilot", "StateDirectory=litepilot-trial-%i")
    (UNITS / "litepilot-trial@.service").write_text(text)
    text = (HERE / "litepilot.socket").read_text()
    text = text.replace("ListenStream=0.0.0.0:8080", "ListenStream=127.0.0.1:18084")
    (UNITS / "litepilot-trial@4.socket").write_text(text)
    systemctl("daemon-reload")


def remove():
    systemctl("stop", "litepilot-trial@4.socket", *(f"litepilot-trial@{i}" for i in (1, 2, 3, 4, 5)), check=False)
    for unit in UNITS.glob("litepilot-trial@*"):
        unit.unlink()
    systemctl("daemon-reload")
    for directory in (PLACE, *Path("/var/lib").glob("litepilot-trial-*")):
        shutil.rmtree(directory, ignore_errors=True)


def three(binary, litefs):
    nodes = [Node(i, binary, litefs) for i in (1, 2, 3)]
    systemctl("start", *(node.unit for node in nodes))
    primary = until("a primary", lambda: next((n for n in nodes if n.takes_writes()), None))
    for node in nodes:
        until("it is ready", node.is_ready)
    says("three units are active, and elect a primary")

    before = primary.show("MainPID")
    systemctl("reload", primary.unit)
    must(primary.show("MainPID") == before and primary.is_ready(), "a reload is no restart")
    says("reload")

    others = [node for node in nodes if node is not primary]
    with Writer(*others) as writer:
        time.sleep(1)
        primary.signal(signal.SIGKILL)
        until("another primary", lambda: any(n.takes_writes() for n in others))
        until("it is started again", lambda: primary.show("NRestarts") == "1" and primary.is_ready())
    must(len(writer.failed) <= 1, f"only the write under way may fail: {writer.failed}")
    says("kill -9 of the primary: started again", writer)

    primary = until("a primary", lambda: next((n for n in nodes if n.takes_writes()), None))
    frozen, other = (node for node in nodes if node is not primary)
    restarts = int(frozen.show("NRestarts"))
    frozen.signal(signal.SIGSTOP)
    until("the watchdog", lambda: int(frozen.show("NRestarts")) > restarts and frozen.is_ready())
    says("one that hangs is killed by the watchdog, and started again")

    with Writer(frozen, other) as writer:
        time.sleep(1)
        systemctl("stop", primary.unit)
        until("another primary", lambda: any(n.takes_writes() for n in (frozen, other)))
        time.sleep(1)
    must(not writer.failed, f"a stop hands over: {writer.failed}")
    must(primary.show("Result") == "success", "it stops by itself")
    must(primary.show("ControlGroup") == "", "it leaves nothing behind")
    says("stop of the primary", writer)


def one(binary):
    node = Node(4, binary, cluster="cluster: {{election: single}}")
    systemctl("start", "litepilot-trial@4.socket")
    with Writer(node) as writer:
        until("a first write", lambda: writer.acknowledged)
        for _ in range(3):
            systemctl("restart", node.unit)
        time.sleep(1)
    must(not writer.failed, f"behind its socket unit nobody is refused: {writer.failed}")
    says("three restarts behind the socket unit", writer)


def bad(binary):
    node = Node(5, binary)
    (PLACE / "5.yml").write_text("proxy: {}\n")
    systemctl("start", node.unit, check=False)
    time.sleep(3)
    must(node.show("ExecMainStatus") == "78" and node.show("NRestarts") == "0", "a bad file is not tried again")
    says("a bad configuration: exit code 78, and no restart")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("litepilot", type=Path)
    parser.add_argument("--litefs", type=Path, help="three nodes with LiteFS, not with `embedded`")
    arguments = parser.parse_args()
    binary = arguments.litepilot.resolve()
    print(subprocess.run(["systemctl", "--version"], capture_output=True, text=True).stdout.splitlines()[0])
    try:
        install(binary)
        three(binary, arguments.litefs and arguments.litefs.resolve())
        one(binary)
        bad(binary)
    finally:
        remove()


if __name__ == "__main__":
    main()
