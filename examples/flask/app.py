"""A list of notes in Flask and SQLite, as Flask's own tutorial would have it."""

import os
import sqlite3

from flask import Flask, g, jsonify, request, session
from litepilot.flask import Litepilot, place

app = Flask(__name__)
# What writes on a replica after all is sent again to the primary; /healthz, /about.
Litepilot(app, database=os.environ["DATABASE"])
# The same on every node, or a session would end with each change of node.
app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY", "not a secret: this is an example")

SCHEMA = """
    CREATE TABLE IF NOT EXISTS notes (
        id INTEGER PRIMARY KEY, text TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
    );
"""


def database():
    """One connection for each request."""
    if "database" not in g:
        g.database = sqlite3.connect(os.environ["DATABASE"], timeout=5)
        g.database.row_factory = sqlite3.Row
    return g.database


@app.teardown_appcontext
def close(_error):
    if "database" in g:
        g.pop("database").close()


@app.cli.command("init-db")
def init_db():
    """Creates the tables. Litepilot runs it where a node becomes the primary: app.on_promote."""
    database().executescript("PRAGMA journal_mode = WAL;" + SCHEMA)


@app.get("/notes")
def notes():
    rows = database().execute("SELECT id, text, at FROM notes ORDER BY id")
    return jsonify([dict(row) for row in rows])


@app.get("/about")
def about():
    """Who has answered, and who is primary."""
    return jsonify(vars(place()))


@app.post("/notes")
def add():
    # A session is a signed cookie in Flask: it writes nothing here.
    session["written"] = session.get("written", 0) + 1
    with database() as connection:
        connection.execute("INSERT INTO notes (text) VALUES (?)", [request.form["text"]])
    return jsonify(written=session["written"]), 201
