"""One client with one connection: each request is sent once the answer to the last has come.

Beside wrk because wrk 4 "corrects" its percentiles: for each slow answer it invents those that a
client with a timetable would have seen meanwhile. Differences of microseconds do not survive that.
"""

import os
import re
import socket
import statistics
import time
from urllib.parse import urlsplit

from harness import LoadTestError, Sample

TIMEOUT = 10.0  # seconds for one answer


class Client:
    """A generator for `interleave`."""

    connections = 1

    def __init__(self, cores):
        os.sched_setaffinity(0, cores)

    def round(self, contestant, seconds):
        """Measures one contestant for `seconds`. A failed request fails the test."""
        request = _request(contestant)
        address = urlsplit(contestant.url)
        times = []
        with socket.create_connection((address.hostname, address.port), TIMEOUT) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            cpu = contestant.cpu_seconds()
            begin = time.perf_counter()
            while time.perf_counter() < begin + seconds:
                times.append(_exchange(contestant.name, connection, request))
            duration = time.perf_counter() - begin
            cpu = contestant.cpu_seconds() - cpu
        percentiles = statistics.quantiles(times, n=100, method="inclusive")
        return Sample(
            throughput=len(times) / duration,
            cpu=cpu / len(times) * 1e6,
            p50=percentiles[49] * 1e6,
            p99=percentiles[98] * 1e6,
            memory=contestant.memory_kib(),
        )


def _request(contestant):
    """The bytes of the one request that is sent again and again; without cookies."""
    address = urlsplit(contestant.url)
    lines = [
        f"{contestant.method} {address.path} HTTP/1.1",
        f"Host: {address.netloc}",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Accept: application/json",
        "Content-Type: application/json",
        f"Content-Length: {len(contestant.body)}",
        "",
        contestant.body,
    ]
    return "\r\n".join(lines).encode("ascii")


def _exchange(name, connection, request):
    """Sends a request and reads the whole response; the seconds between."""
    begin = time.perf_counter()
    connection.sendall(request)
    answer = b""
    while not (whole := _is_whole(answer)):
        piece = connection.recv(65536)
        if not piece:
            break
        answer += piece
    seconds = time.perf_counter() - begin
    if not whole or not answer.startswith(b"HTTP/1.1 200 "):
        raise LoadTestError(f"{name}: the answer to a request was {answer[:500]!r}")
    return seconds


def _is_whole(answer):
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return bool(end and length) and len(body) >= int(length[1])
