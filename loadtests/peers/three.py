"""An application with three databases: three.py SOCKET DIRECTORY. Entries are written to, and read from, the
database whose number the query names."""

import json
import socketserver
import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SOCKET, DIRECTORY = Path(sys.argv[1]), Path(sys.argv[2])
NUMBERS = range(3)
SCHEMA = """
PRAGMA journal_mode = wal;
CREATE TABLE IF NOT EXISTS entries (text TEXT);
CREATE INDEX IF NOT EXISTS by_text ON entries (text);
"""


class Databases(threading.local):
    """A thread's connections; one that has failed is opened anew."""

    def __init__(self):
        self.open = {}

    def run(self, number, statement, *values):
        try:
            if number not in self.open:
                path = DIRECTORY / f"db{number}.sqlite3"
                self.open[number] = sqlite3.connect(path, timeout=5, isolation_level=None)
            return self.open[number].execute(statement, values).fetchall()
        except sqlite3.Error:
            if broken := self.open.pop(number, None):
                broken.close()
            raise


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    databases = Databases()

    def do_GET(self):
        target = urlsplit(self.path)
        if target.path == "/health":
            return self.answer(200, [])
        query = parse_qs(target.query)
        return self.run(200, query, "SELECT text FROM entries WHERE text = ?", query["text"][0])

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        query = parse_qs(urlsplit(self.path).query)
        self.run(201, query, "INSERT INTO entries (text) VALUES (?)", text)

    def run(self, status, query, statement, text):
        try:
            rows = self.databases.run(int(query.get("db", "0")[0]), statement, text)
            self.answer(status, [{"text": row[0]} for row in rows])
        except sqlite3.Error as error:
            self.answer(500, {"error": f"{error.sqlite_errorname}: {error}"})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "unix"  # there is no address

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def create():
    """What is not there yet; on a replica it comes from the primary."""
    for number in NUMBERS:
        try:
            with sqlite3.connect(DIRECTORY / f"db{number}.sqlite3", timeout=5) as database:
                database.executescript(SCHEMA)
            database.close()
        except sqlite3.Error as error:
            print(f"db{number} is not ours to create: {error}", flush=True)


create()
SOCKET.unlink(missing_ok=True)
Server(str(SOCKET), App).serve_forever()
