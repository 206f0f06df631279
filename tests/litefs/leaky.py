"""An application that can forget to end a transaction: leaky.py SOCKET DATABASE.

GET /leak leaves one open in a process of its own, as a worker of a server may; POST writes; anything else counts.
"""

import http.server
import os
import socketserver
import sqlite3
import subprocess
import sys

LEAK = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); " \
    "c.execute('BEGIN'); c.execute('SELECT count(*) FROM t').fetchone(); print('leaked', flush=True); time.sleep(3600)"


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, text, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/leak":
            leak = subprocess.Popen([sys.executable, "-c", LEAK, sys.argv[2]], stdout=subprocess.PIPE)
            return self.answer(leak.stdout.readline().decode())
        try:
            connection = sqlite3.connect(sys.argv[2], timeout=3)
            self.answer(str(connection.execute("SELECT count(*) FROM t").fetchone()[0]))
        except sqlite3.Error as error:
            self.answer(str(error), 404 if "no such table" in str(error) else 500)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = sqlite3.connect(sys.argv[2], timeout=3)
        connection.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES (NULL)")
        connection.commit()
        connection.close()
        self.answer("written", 201)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("app", 0)


if os.path.exists(sys.argv[1]):
    os.remove(sys.argv[1])
Server(sys.argv[1], App).serve_forever()
