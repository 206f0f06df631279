"""The guestbook as its users know it: a page with a form, a login, a JSON API."""

from datetime import datetime, timezone

from flask import Blueprint, jsonify, redirect, render_template, request, session, url_for

import database
import node

pages = Blueprint("guestbook", __name__)

LONGEST_TEXT = 2000
SHOWN = 100


def newest_entries():
    return database.rows("SELECT * FROM entries ORDER BY id DESC LIMIT ?", SHOWN)


def add_entry(text):
    """Stores an entry and returns it. `text` is untrusted."""
    author = session.get("name", "anonymous")
    created = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    with database.write() as connection:
        cursor = connection.execute(
            "INSERT INTO entries (author, text, created) VALUES (?, ?, ?) RETURNING *",
            (author, text, created),
        )
        return dict(cursor.fetchone())


def problem_with(text):
    """What is wrong with an entry's text, or None."""
    if not isinstance(text, str) or not text.strip():
        return "text must be a string that is not empty"
    if len(text) > LONGEST_TEXT:
        return f"text must have at most {LONGEST_TEXT} characters"
    return None


@pages.get("/")
def index():
    return render_template(
        "guestbook.html", entries=newest_entries(), node=node.describe(), longest=LONGEST_TEXT
    )


@pages.post("/sign")
def sign():
    text = request.form.get("text", "")
    if problem := problem_with(text):
        return jsonify(error=problem), 400
    add_entry(text)
    return redirect(url_for("guestbook.index"), 303)


@pages.post("/login")
def login():
    session["name"] = request.form.get("name", "").strip()[:40] or "anonymous"
    return redirect(url_for("guestbook.index"), 303)


@pages.post("/logout")
def logout():
    session.clear()
    return redirect(url_for("guestbook.index"), 303)


@pages.get("/api/entries")
def list_entries():
    return jsonify(newest_entries())


@pages.get("/api/entries/<int:number>")
def show_entry(number):
    found = database.rows("SELECT * FROM entries WHERE id = ?", number)
    return (jsonify(found[0]), 200) if found else (jsonify(error="no such entry"), 404)


@pages.post("/api/entries")
def create_entry():
    body = request.get_json(silent=True)
    text = body.get("text") if isinstance(body, dict) else None
    if problem := problem_with(text):
        return jsonify(error=f'{problem}; expected JSON {{"text": "…"}}'), 400
    return jsonify(add_entry(text)), 201


@pages.get("/api/node")
def show_node():
    return jsonify(node.describe())


@pages.get("/whoami")
def whoami():
    return jsonify(name=session.get("name"))
