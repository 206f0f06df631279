"""An application with a database of its own for a queue: two_databases.py SOCKET MOUNT.

POST /PATH adds a row to the queue, GET /PATH says how many there are. `/health` answers without either.
"""

import http.server
import os
import socketserver
import sqlite3
import sys

socket, mount = sys.argv[1], sys.argv[2]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return "a client"

    def answer(self, write):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = 200, "ok"
        if self.path != "/health":
            try:
                queue = sqlite3.connect(os.path.join(mount, "queue.sqlite3"), timeout=5, isolation_level=None)
                if write:
                    queue.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY)")
                    queue.execute("INSERT INTO jobs DEFAULT VALUES")
                body = str(queue.execute("SELECT count(*) FROM jobs").fetchone()[0])
                queue.close()
            except sqlite3.Error as error:
                status, body = 500, str(error)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        self.answer(False)

    def do_POST(self):
        self.answer(True)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


if os.path.exists(socket):
    os.unlink(socket)
Server(socket, Handler).serve_forever()
