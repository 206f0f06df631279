"""What the trials of systemd and of containers share: a client that writes, and words for what was seen."""

import http.client
import json
import subprocess
import sys
import threading
import time

PATIENCE = 60  # seconds


def until(what, ready):
    deadline = time.monotonic() + PATIENCE
    while not (found := ready()):
        if time.monotonic() > deadline:
            sys.exit(f"not within {PATIENCE} s: {what}")
        time.sleep(0.02)
    return found


def command(*words, check=True):
    """What it prints; with `check` a failure ends the trial."""
    done = subprocess.run(words, capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def must(truth, what):
    if not truth:
        sys.exit(f"FAIL {what}")


def says(what, writer=None):
    if writer:
        what += f": {len(writer.acknowledged)} written, {len(writer.failed)} failed {writer.failed[:3] or ''}"
        what += f", longest pause {writer.longest * 1000:.0f} ms"
    print(f"ok   {what}", flush=True)


def get(port, path):
    """Status and body; 0 if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Node:
    """A node's ports on this machine: for clients and for operators."""

    http = admin = 0

    def takes_writes(self):
        return get(self.admin, "/primary")[0] == 200

    def is_ready(self):
        return get(self.admin, "/health/ready")[0] == 200


class Writer(threading.Thread):
    """One write after the other, through whichever node takes the connection."""

    def __init__(self, *nodes):
        super().__init__()
        self.nodes, self.stopping = nodes, False
        self.acknowledged, self.failed, self.longest = [], [], 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.join()

    def run(self):
        number, last = 0, time.monotonic()
        while not self.stopping:
            number += 1
            outcome = self.write(f"{id(self)}-{number}")
            if outcome is None:
                self.longest = max(self.longest, time.monotonic() - last)
                last = time.monotonic()
            else:
                self.failed.append(outcome)
            time.sleep(0.005)

    def write(self, text):
        for node in self.nodes:
            connection = http.client.HTTPConnection("127.0.0.1", node.http, timeout=PATIENCE)
            try:
                connection.connect()
            except OSError:
                continue  # nothing was sent
            try:
                head = {"Content-Type": "application/json"}
                connection.request("POST", "/api/entries", json.dumps({"text": text}), head)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                return type(error).__name__
            if response.status // 100 != 2:
                return response.status
            self.acknowledged.append(text)
            return None
        return "refused"
