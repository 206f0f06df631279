"""A small application with releases: release.py SOCKET DATABASE JOURNAL. The file `release` beside the socket says
which one this is. The second adds a column at its start, as migrations do, and cannot do without it.
"""

import os
import sqlite3
import sys

from serving import Handler, serve

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


class App(Handler):
    def do_GET(self):
        columns = ["text", "author"][:RELEASE]
        rows = run(f"SELECT {', '.join(columns)} FROM entries")
        self.answer(200, [dict(zip(columns, row)) for row in rows], Release=str(RELEASE))

    def do_POST(self):
        entry = self.asked()
        if RELEASE == 2:
            run("INSERT INTO entries (text, author) VALUES (?, 'known')", entry["text"])
        else:
            run("INSERT INTO entries (text) VALUES (?)", entry["text"])
        self.answer(201, entry, Release=str(RELEASE))


migrate()
serve(SOCKET, App)
