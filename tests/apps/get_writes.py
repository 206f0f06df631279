"""A plain application that writes on GET: get_writes.py SOCKET DATABASE. It knows nothing of Litepilot."""

import os
import socketserver
import sqlite3
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler

SOCKET, DATABASE = sys.argv[1:]

# What a request does; each in a connection of its own.
PAGES = {
    "/write": ["INSERT INTO t VALUES (1)"],
    "/write-at-commit": ["BEGIN", "SELECT count(*) FROM t", "INSERT INTO t VALUES (1)", "COMMIT"],
    "/write-immediate": ["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT"],
    "/count": ["SELECT count(*) FROM t"],
}


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return "a socket"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, mode = self.path.partition("?")
        init = [f"PRAGMA journal_mode = {mode}", "CREATE TABLE t (x)"]
        statements = init if path == "/init" else PAGES.get(path, ["SELECT 1"])
        try:
            with closing(sqlite3.connect(DATABASE, timeout=1, isolation_level=None)) as connection:
                for statement in statements:
                    found = connection.execute(statement).fetchone()
            self.say(200, str(found[0]) if found else "done")
        except sqlite3.Error as error:
            self.say(500, f"{error.sqlite_errorname}: {error}")

    def say(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


if os.path.exists(SOCKET):
    os.unlink(SOCKET)
Server(SOCKET, App).serve_forever()
