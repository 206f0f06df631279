"""Pages that show a test what became of a request, or of a response, on its way."""

import hashlib
import io
import itertools
import os
import time

from flask import Blueprint, Response, jsonify, make_response, request, send_file

import database
import node

pages = Blueprint("probes", __name__)

PIECE = 64 * 1024
# Its length is prime, so that a lost or repeated piece of any usual size shows in the content.
PATTERN = bytes(range(251))
FILE = (PATTERN * 400)[:100_000]


def pattern(length):
    """`length` bytes, in pieces: byte i is i mod 251."""
    block = PATTERN * (PIECE // len(PATTERN))
    for start in range(0, length, len(block)):
        yield block[: length - start]


@pages.route("/upload", methods=["POST", "PUT"])
def upload():
    """Reads a body of any size in constant memory and says what arrived."""
    digest, count = hashlib.sha256(), 0
    while piece := request.stream.read(PIECE):
        digest.update(piece)
        count += len(piece)
    return jsonify(
        bytes=count,
        sha256=digest.hexdigest(),
        content_length=request.headers.get("Content-Length"),
        transfer_encoding=request.headers.get("Transfer-Encoding"),
    )


@pages.get("/download")
def download():
    """`bytes=N` of the pattern; with `chunked=1` without saying beforehand how many."""
    length = request.args.get("bytes", 0, int)
    response = Response(pattern(length), mimetype="application/octet-stream")
    if "chunked" not in request.args:
        response.content_length = length
    return response


@pages.get("/file")
def file():
    """100,000 bytes of the pattern, with ranges and an ETag."""
    return send_file(io.BytesIO(FILE), "application/octet-stream", conditional=True, etag="pattern")


@pages.get("/stream")
def stream():
    """Server-sent events: `events=N` of them (0: without end), one each `interval=S` seconds."""
    events = request.args.get("events", 5, int)
    interval = request.args.get("interval", 0.1, float)

    def lines():
        for number in itertools.count(1) if events == 0 else range(1, events + 1):
            yield f"id: {number}\ndata: event {number}\n\n"
            time.sleep(interval)

    return Response(lines(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@pages.route("/slow", methods=["GET", "POST"])
def slow():
    """Answers after `s=S` seconds."""
    time.sleep(request.args.get("s", 1, float))
    return jsonify(pid=os.getpid())


@pages.get("/echo-headers")
def echo_headers():
    """The request's headers as WSGI has them: names normalized, repeated ones joined by commas."""
    return jsonify(
        headers=[list(header) for header in request.headers],
        url=request.url,
        protocol=request.environ["SERVER_PROTOCOL"],
        remote=request.environ.get("REMOTE_ADDR"),
    )


@pages.route("/api/count", methods=["GET", "POST"])
def count():
    """POST counts itself, and its `X-Request-Id`, in the database; GET tells the counts.

    A request that reached an application twice shows as an id that was seen twice. One of which the
    body does not come whole counts nothing.
    """
    if request.method == "POST":
        while request.stream.read(PIECE):
            pass
        with database.write() as connection:
            increment(connection, "counters", "name", "value", "count")
            if "X-Request-Id" in request.headers:
                increment(connection, "requests", "id", "seen", request.headers["X-Request-Id"])
    total = database.rows("SELECT value FROM counters WHERE name = 'count'")
    seen = database.rows("SELECT id, seen FROM requests")
    return jsonify(
        count=total[0]["value"] if total else 0, requests={row["id"]: row["seen"] for row in seen}
    )


def increment(connection, table, key, value, name):
    connection.execute(
        f"INSERT INTO {table} ({key}, {value}) VALUES (?, 1)"
        f" ON CONFLICT ({key}) DO UPDATE SET {value} = {value} + 1",
        (name,),
    )


@pages.get("/visits")
def visits():
    """Writes on GET: on a replica SQLite refuses, and the middleware asks for a replay."""
    with database.write() as connection:
        increment(connection, "counters", "name", "value", "visits")
    total = database.rows("SELECT value FROM counters WHERE name = 'visits'")
    return jsonify(visits=total[0]["value"], **node.describe())


@pages.route("/replay", methods=["GET", "POST"])
def replay():
    """Asks for a replay by itself: on a replica, or (`always=1`) even on the primary.

    With `fly=…` it does so as Fly.io's applications do, and with this in the header.
    """
    if node.on_replica() or "always" in request.args:
        if "fly" in request.args:
            return Response("not for you", headers={"fly-replay": request.args["fly"]})
        return Response(status=409, headers={"Litepilot-Replay": "primary"})
    return jsonify(replayed_from=request.headers.get("fly-replay-src"), **node.describe())


@pages.route("/status/<int:code>", methods=["GET", "HEAD", "POST"])
def status(code):
    """Answers with this status, and with a body where the status may have one."""
    if not 200 <= code <= 599:
        return jsonify(error=f"{code} is not a final status: 200 to 599"), 400
    if code in (204, 304):
        return Response(status=code)
    return jsonify(status=code), code


@pages.get("/etag")
def etag():
    """An answer that becomes 304 for who has it."""
    response = make_response("tagged\n")
    response.set_etag("guestbook")
    return response.make_conditional(request)


@pages.get("/cookies")
def cookies():
    """The cookies that arrived; and three to set, of which each needs a header of its own."""
    response = jsonify(dict(request.cookies))
    for name in ("one", "two", "three"):
        response.set_cookie(name, "1")
    return response


@pages.get("/pid")
def pid():
    """The worker that answered, and gunicorn's master."""
    return jsonify(pid=os.getpid(), master=os.getppid())
