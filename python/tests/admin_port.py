"""An admin port that says what a test wants it to, in the node's own form."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class AdminPort:
    """Serves `/status`, and `/events`: what has been told so far, then what is told."""

    def __init__(self) -> None:
        self.status = {"primary": {"node": "node-2", "epoch": 3}}
        self.told: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._followers: list[queue.Queue[dict[str, str] | None]] = []
        self.followed = threading.Semaphore(0)
        port = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/status":
                    self._answer("application/json", json.dumps(port.status))
                elif self.path == "/events":
                    self._stream()
                else:
                    self.send_error(404)

            def _answer(self, kind: str, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def _stream(self) -> None:
                told, follower = port.follow()
                self._answer("text/event-stream", ": events\n\n" + "".join(map(message, told)))
                port.followed.release()
                while (event := follower.get()) is not None:
                    self.wfile.write(message(event).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def follow(self) -> tuple[list[dict[str, str]], queue.Queue[dict[str, str] | None]]:
        with self._lock:
            self._followers.append(queue.Queue())
            return list(self.told), self._followers[-1]

    def tell(self, kind: str, text: str, at: str) -> None:
        with self._lock:
            self.told.append({"at": at, "kind": kind, "text": text})
            for follower in self._followers:
                follower.put(self.told[-1])

    def hang_up(self) -> None:
        """Ends every stream, as a node does that stops."""
        with self._lock:
            for follower in self._followers:
                follower.put(None)
            self._followers.clear()

    def close(self) -> None:
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()


def message(event: dict[str, str]) -> str:
    return f"data: {json.dumps(event)}\n\n"
