"""A list of notes in FastAPI and SQLite. On a replica it asks for the primary if a GET turns out to write."""

import os
import sqlite3
import sys
from typing import Annotated

from fastapi import Depends, FastAPI
from litepilot.starlette import Place, ReplayReadonlyWrites, health_route, place
from pydantic import BaseModel

SCHEMA = """
    CREATE TABLE IF NOT EXISTS notes (
        id INTEGER PRIMARY KEY, text TEXT NOT NULL, views INTEGER NOT NULL DEFAULT 0
    );
"""

app = FastAPI()
# A request that SQLite refuses on a replica, since it writes after all, is sent again to the primary.
app.add_middleware(ReplayReadonlyWrites)
app.router.routes.append(health_route(os.environ["DATABASE"]))


class Note(BaseModel):
    text: str


def database():
    """One connection for each request, in autocommit: each statement is a transaction."""
    path = os.environ["DATABASE"]
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        yield connection
    finally:
        connection.close()


@app.get("/about")
def about(here: Annotated[Place, Depends(place)]):
    """Who has answered, and who is primary."""
    return vars(here)


@app.get("/notes")
def notes(connection=Depends(database)):
    return [dict(row) for row in connection.execute("SELECT * FROM notes ORDER BY id")]


@app.post("/notes", status_code=201)
def add(note: Note, connection=Depends(database)):
    return {"id": connection.execute("INSERT INTO notes (text) VALUES (?)", [note.text]).lastrowid}


@app.get("/notes/{id}")
def view(id: int, connection=Depends(database)):
    """A GET that writes: it counts views."""
    sql = "UPDATE notes SET views = views + 1 WHERE id = ? RETURNING *"
    return dict(connection.execute(sql, [id]).fetchone())


if __name__ == "__main__" and sys.argv[1:] == ["init-db"]:
    # Litepilot runs it where a node becomes the primary: app.on_promote.
    sqlite3.connect(os.environ["DATABASE"]).executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
