"""A small application as people write them: app.py SOCKET DATABASE HABIT.

`tables` makes its table at its start if there is none; `write` writes a row at each start; `memory` reads its
entries once, at its start, and answers from memory.
"""

import json
import os
import socketserver
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler

SOCKET, DATABASE, HABIT = sys.argv[1:]
TABLE = "CREATE TABLE IF NOT EXISTS entries (text TEXT)"


def run(sql, *values):
    db = sqlite3.connect(DATABASE, timeout=3)
    try:
        with db:
            return [{"text": row[0]} for row in db.execute(sql, values)]
    finally:
        db.close()


if HABIT != "memory":
    run(TABLE)
if HABIT == "write":
    run("INSERT INTO entries VALUES ('started')")
READ = "SELECT text FROM entries"
remembered = []
if HABIT == "memory":
    try:
        remembered = run(READ)
    except sqlite3.OperationalError:
        pass  # There is no table yet.


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, remembered if HABIT == "memory" else run(READ))

    def do_POST(self):
        entry = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if HABIT == "memory":
            run(TABLE)
        run("INSERT INTO entries VALUES (?)", entry["text"])
        remembered.append(entry)
        self.answer(201, entry)

    def log_message(self, *_):
        """Says nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


if os.path.exists(SOCKET):
    os.remove(SOCKET)
Server(SOCKET, App).serve_forever()
