"""A worker that may run once in the cluster: worker.py FILE. Says in the file when it starts and ends, by its
node's name, and that there were two if another one holds the lock."""

import fcntl
import os
import signal
import sys
import time

NODE = os.environ["LITEPILOT_NODE"]
file = open(sys.argv[1], "a")


def say(what):
    file.write(f"{what} {NODE}\n")
    file.flush()


def end(*_):
    say("end")
    os._exit(0)


lock = open(sys.argv[1] + ".lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    say("twice")
signal.signal(signal.SIGTERM, end)
say("start")
while True:
    time.sleep(1)
