"""The application that the chaos runs: app.py SOCKET DATABASE JOURNAL.

It has entries, each with the name and the number that its writer gave it, and registers, which are read, written, and
compared and set. While a file SOCKET.slow is there, each answer takes as many seconds longer as that says.
"""

import json
import os
import socketserver
import sqlite3
import sys
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

SOCKET, DATABASE, JOURNAL = sys.argv[1:]
TABLES = """
CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT NOT NULL, writer TEXT NOT NULL, number INTEGER NOT NULL);
CREATE INDEX by_writer ON entries (writer, number);
CREATE TABLE registers (id INTEGER PRIMARY KEY, value INTEGER NOT NULL);
"""
NEWEST = "SELECT text FROM entries WHERE writer = ? ORDER BY number DESC LIMIT 100"
SET = "INSERT INTO registers VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


def connect(mode="rw"):
    return closing(sqlite3.connect(f"file:{DATABASE}?mode={mode}", uri=True, timeout=5, isolation_level=None))


def make_tables():
    with connect("rwc") as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'registers'").fetchone():
            db.execute(f"PRAGMA journal_mode={JOURNAL}")
            db.executescript(f"BEGIN IMMEDIATE; {TABLES} COMMIT")


def value_of(db, register):
    row = db.execute("SELECT value FROM registers WHERE id = ?", (register,)).fetchone()
    return row[0] if row else 0


def entries(query):
    with connect() as db:
        if "writer" in query:
            rows = db.execute(NEWEST, query["writer"])
        else:
            rows = db.execute("SELECT text FROM entries ORDER BY id")
        return [{"text": row[0]} for row in rows]


def add(entry):
    writer, number = entry["text"].split("-")
    with connect() as db:
        sql = "INSERT INTO entries (text, writer, number) VALUES (?, ?, ?)"
        db.execute(sql, (entry["text"], writer, int(number)))
    return entry


def set_register(register, change):
    """To a value; if there is a `from`, only if that is what it has. Says what it had."""
    with connect() as db:
        db.execute("BEGIN IMMEDIATE")
        before = value_of(db, register)
        if change.get("from", before) == before:
            db.execute(SET, (register, change["to"]))
        db.execute("COMMIT")
    return {"value": before}


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        try:
            with open(SOCKET + ".slow") as slow:
                time.sleep(float(slow.read() or 0))
        except FileNotFoundError:
            pass
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self, body):
        url = urlsplit(self.path)
        match url.path.strip("/").split("/"):
            case ["health"]:
                return "well"
            case ["api", "entries"]:
                return add(body) if body else entries(parse_qs(url.query))
            case ["registers", register]:
                if body:
                    return set_register(int(register), body)
                with connect() as db:
                    return {"value": value_of(db, int(register))}

    def do(self, body):
        try:
            self.answer(200, self.serve(body))
        except sqlite3.Error as why:
            self.answer(500, str(why))

    def do_GET(self):
        self.do(None)

    def do_POST(self):
        self.do(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_):
        """Says nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


make_tables()
if os.path.exists(SOCKET):
    os.remove(SOCKET)
Server(SOCKET, App).serve_forever()
