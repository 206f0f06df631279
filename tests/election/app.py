"""A small application as people write them: app.py SOCKET DATABASE HABIT.

`tables` makes its table at its start if there is none; `write` writes a row at each start; `memory` reads its
entries once, at its start, and answers from memory.
"""

import sqlite3
import sys

from serving import Handler, serve

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


class App(Handler):
    def do_GET(self):
        self.answer(200, remembered if HABIT == "memory" else run(READ))

    def do_POST(self):
        entry = self.asked()
        if HABIT == "memory":
            run(TABLE)
        run("INSERT INTO entries VALUES (?)", entry["text"])
        remembered.append(entry)
        self.answer(201, entry)


serve(SOCKET, App)
