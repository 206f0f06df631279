#!/usr/bin/env python3
"""Writes notes through a compose file's load balancer and reads each back, while a command runs:

    python3 docker/trial.py 'docker compose -f docker/compose.nginx.yml restart node-1'

Exits with 1 if a note is there twice, if a client did not find what it had written, or if one is
missing without its client having been told so (Litepilot-Lost-Write)."""

import argparse
import collections
import http.client
import json
import os
import subprocess
import sys
import threading
import time

ADDRESS = "127.0.0.1", 8080
TOKEN = ("Litepilot-Txid", "Litepilot-Epoch")
# Above the load balancer's own limits, so that it is its answer that is counted.
TIMEOUT = 90


class Record:
    """What the clients saw; each only appends."""

    def __init__(self):
        self.acknowledged, self.told, self.stale, self.failures, self.times = [], [], [], [], []


def request(connection, failures, *arguments):
    """The response and its body if its status is 2xx; anything else is a failure."""
    try:
        connection.request(*arguments)
        response = connection.getresponse()
        body = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        connection.close()  # the next request opens it again
        failures.append(f"{arguments[0]}: {type(error).__name__}")
        return None, ""
    if response.status // 100 == 2:
        return response, body
    failures.append(f"{arguments[0]}: {response.status}")
    return None, ""


def client(name, record, stop, pause):
    connection = http.client.HTTPConnection(*ADDRESS, timeout=TIMEOUT)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    number = 0
    while not stop.is_set():
        number += 1
        text = f"{name}-{number}"
        begin = time.monotonic()
        written, _ = request(connection, record.failures, "POST", "/notes", f"text={text}", form)
        record.times.append(time.monotonic() - begin)
        token = {}
        if written:
            record.acknowledged.append(text)
            token = {key: written.getheader(key) for key in TOKEN}
        read, body = request(connection, record.failures, "GET", "/notes", None, token)
        if read and written:
            if read.getheader("Litepilot-Lost-Write"):
                record.told.append(text)
            elif f'"{text}"' not in body:
                record.stale.append(text)
        stop.wait(pause)
    connection.close()


def report(record, name):
    """Prints what happened; whether all was as promised."""
    connection = http.client.HTTPConnection(*ADDRESS, timeout=TIMEOUT)
    response, body = request(
        connection, [], "GET", "/notes", None, {"Litepilot-Consistency": "strong"}
    )
    if not response:
        sys.exit("the notes cannot be read")
    there = collections.Counter(note["text"] for note in json.loads(body))
    missing = [text for text in record.acknowledged if not there[text]]
    untold = sorted(set(missing) - set(record.told))
    twice = [text for text, count in there.items() if count > 1 and text.startswith(name)]
    print(f"acknowledged  {len(record.acknowledged)}")
    print(f"longest write {max(record.times):.2f} s")
    print(f"failures      {dict(collections.Counter(record.failures))}")
    print(f"lost          {len(missing)}, not told: {untold}")
    print(f"not found     {record.stale}")
    print(f"twice         {twice}")
    return not (untold or record.stale or twice)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition(":\n")[0])
    parser.add_argument("command", help="for the shell")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.02, help="between notes, in seconds")
    arguments = parser.parse_args()
    record, stop, name = Record(), threading.Event(), f"trial-{os.getpid()}"
    clients = [
        threading.Thread(target=client, args=(f"{name}-{i}", record, stop, arguments.pause))
        for i in range(arguments.clients)
    ]
    for thread in clients:
        thread.start()
    time.sleep(2)
    status = subprocess.run(arguments.command, shell=True, check=False).returncode
    time.sleep(2)
    stop.set()
    for thread in clients:
        thread.join()
    sys.exit(0 if report(record, name) and status == 0 else 1)


if __name__ == "__main__":
    main()
