"""A small application on the Unix socket named by its argument, which says what becomes of it.

Every answer is the process id. A request for /slow is answered once the file `go` is beside the socket.
"""

import os
import pathlib
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer

SOCKET = pathlib.Path(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/slow":
            print("slow request begun", flush=True)
            while not SOCKET.with_name("go").exists():
                time.sleep(0.01)
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *args):
        """Says nothing."""


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


def end(*_):
    print("application says goodbye", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
SOCKET.unlink(missing_ok=True)
print("application says hello", flush=True)
Server(str(SOCKET), Handler).serve_forever()
