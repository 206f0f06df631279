"""An application that writes without end, and prints what SQLite said was committed.

writer.py DATABASE FIRST STEP: rows FIRST, FIRST + STEP, ... until standard input ends.
"""

import sqlite3
import sys
import threading
import time

database, x, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()

while not stop.is_set():
    # After an error a new connection, as applications have it.
    try:
        connection = sqlite3.connect(database, timeout=0.5, isolation_level=None)
        while not stop.is_set():
            x += step
            connection.execute("INSERT INTO t VALUES (?)", (x,))
            print(x, flush=True)
            time.sleep(0.001)
        connection.close()
    except sqlite3.Error:
        time.sleep(0.005)
