"""A small application with releases: release.py SOCKET DATABASE JOURNAL. The file `release` beside the socket says
which one this is. The second adds a column at its start, as migrations do, and cannot do without it.
"""

import json
import os
import socketserver
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler

SOCKET, DATABASE, JOURNAL = sys.argv[1:]
with open(os.path.join(os.path.dirname(SOCKET), "release")) as file:
    RELEASE = int(file.read())


def run(sql, *values):
    db = sqlite3.connect(DATABASE, timeout=10)
    try:
        with db:
            return db.execute(sql, values).fetchall()
    finally:
        db.close()


def migrate():
    columns = [row[1] for row in run("PRAGMA table_info(entries)")]
    if not columns:
        run(f"PRAGMA journal_mode = {JOURNAL}")
        run("CREATE TABLE entries (text TEXT)")
    if RELEASE == 2 and "author" not in columns:
        run("ALTER TABLE entries ADD COLUMN author TEXT DEFAULT 'unknown'")


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Release", str(RELEASE))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        columns = ["text", "author"][:RELEASE]
        rows = run(f"SELECT {', '.join(columns)} FROM entries")
        self.answer(200, [dict(zip(columns, row)) for row in rows])

    def do_POST(self):
        entry = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if RELEASE == 2:
            run("INSERT INTO entries (text, author) VALUES (?, 'known')", entry["text"])
        else:
            run("INSERT INTO entries (text) VALUES (?)", entry["text"])
        self.answer(201, entry)

    def log_message(self, *_):
        """Says nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


migrate()
if os.path.exists(SOCKET):
    os.remove(SOCKET)
Server(SOCKET, App).serve_forever()
