"""What every load test needs: processes with their CPU time and memory, a generator, rounds, a table.

Linux only: CPU time and memory come from /proc. Everything stays on loopback, on ports that the
system chose, in one temporary directory, and ends with the test, whatever ends the test.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_TIMEOUT = 20.0  # seconds until a started server must answer
STOP_TIMEOUT = 10.0  # seconds between SIGTERM and SIGKILL


class LoadTestError(Exception):
    """The test could not be carried out; its message is for the person who ran it."""


# --- Processes -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cores:
    """Which cores belong to the proxies, and which to the generator and the backend."""

    proxies: frozenset
    load: frozenset

    @classmethod
    def shared(cls, workers):
        """Proxies on `workers` cores, everything else anywhere: they may compete."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < workers:
            raise LoadTestError(f"{workers} workers need {workers} cores; here are {len(cores)}")
        return cls(frozenset(cores[:workers]), frozenset(cores))

    @classmethod
    def apart(cls, workers):
        """Proxies on `workers` cores of their own, everything else on the remaining ones."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) <= workers:
            raise LoadTestError(
                f"{workers} workers on cores of their own need more than {workers} cores;"
                f" here are {len(cores)}"
            )
        return cls(frozenset(cores[:workers]), frozenset(cores[workers:]))

    def __str__(self):
        def names(cores):
            return ", ".join(map(str, sorted(cores)))

        return f"proxies on core {names(self.proxies)}; generator and backend on {names(self.load)}"


class Process:
    """A server under test, with all its children."""

    def __init__(self, name, argv, cores, directory, environment=None):
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                [str(argument) for argument in argv],
                cwd=directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that nothing it starts can outlive it.
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )

    def pids(self):
        """The process and its descendants."""
        found, waiting = [], [self.child.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += map(int, _read(children).split())
        return found

    def cpu_seconds(self):
        """User and system time so far, of all threads, all children, and children that ended."""
        return sum(sum(_ticks(pid)) for pid in self.pids()) / TICKS_PER_SECOND

    def own_cpu_seconds(self):
        """The same without the children."""
        return sum(_ticks(self.child.pid)[:2]) / TICKS_PER_SECOND

    def memory_kib(self):
        """Proportional set size: what children share is counted once."""
        sizes = [
            re.search(r"^Pss:\s+(\d+) kB", _read(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
            for pid in self.pids()
        ]
        return sum(int(size.group(1)) for size in sizes if size)

    def failure(self, what):
        tail = self.log.read_text(errors="replace").splitlines()[-20:]
        return LoadTestError("\n  ".join([f"{self.name} {what}; its log ends:", *tail]))

    def wait_until_it_answers(self, url):
        """Returns once `url` gives a 200."""
        return self._wait_for(lambda: get(url), f"does not answer at {url}")

    def wait_until_it_accepts(self, port):
        """Returns once somebody can connect."""
        address = ("127.0.0.1", port)
        self._wait_for(lambda: socket.create_connection(address).close(), f"is not at {port}")

    def _wait_for(self, ready, failure):
        deadline = time.monotonic() + START_TIMEOUT
        while self.child.poll() is None:
            with contextlib.suppress(OSError):
                return ready()
            if time.monotonic() > deadline:
                raise self.failure(failure)
            time.sleep(0.05)
        raise self.failure(f"ended with status {self.child.returncode}")

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(STOP_TIMEOUT)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def _ticks(pid):
    """User and system time of a process, and of its children that ended."""
    # After the command's name, which may contain anything: state is field 3 of proc(5), utime, stime,
    # cutime and cstime are 14 to 17.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def _read(path):
    """The text of a file in /proc; empty if its process has ended."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Bench(contextlib.ExitStack):
    """One temporary directory and the servers in it; leaving it stops and removes all of them."""

    def __enter__(self):
        super().__enter__()
        # SIGTERM unwinds like Ctrl-C; otherwise the servers would be left behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        temporary = tempfile.TemporaryDirectory(prefix="litepilot-load-")
        self.directory = Path(self.enter_context(temporary))
        # Workers of nginx that run as another user must get in.
        self.directory.chmod(0o755)
        return self

    def start(self, name, argv, cores, environment=None):
        process = Process(name, argv, cores, self.directory, environment)
        self.callback(process.stop)
        return process


def program(name, hint):
    """The path of a program that must be there."""
    # Debian keeps servers where a user's PATH may not look.
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise LoadTestError(f"{name} not found: {hint}")
    return path


def free_ports(count):
    """Ports on loopback that the system chose, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def get(url, method="GET", headers=None):
    """The response to one request, its body read into `text`. A status from 400 on is an OSError."""
    request = urllib.request.Request(url, method=method, headers=headers or {})
    with urllib.request.urlopen(request, timeout=15) as response:
        response.text = response.read().decode()
        return response


# --- Load ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison: where the load goes, what it is, whose cost is counted."""

    name: str
    url: str
    processes: tuple
    method: str = "GET"
    body: str = ""
    cookies: tuple = ("",)  # the requests rotate through them; "" means none
    headers: tuple = ()  # further ones, "Name: value"

    def cpu_seconds(self):
        return sum(process.cpu_seconds() for process in self.processes)

    def memory_kib(self):
        return sum(process.memory_kib() for process in self.processes)


@dataclass(frozen=True)
class Sample:
    """One round of one contestant."""

    throughput: float  # requests per second
    cpu: float  # microseconds per request, of the contestant's processes
    p50: float  # microseconds
    p99: float  # microseconds
    memory: float  # KiB, under load


@dataclass
class Generator:
    """A closed loop: each connection sends its next request once it has the last answer."""

    cores: frozenset
    threads: int
    connections: int

    def round(self, contestant, seconds):
        """Measures one contestant for `seconds`. A failed request fails the test."""
        cpu_before = contestant.cpu_seconds()
        with subprocess.Popen(
            [str(argument) for argument in self.command(contestant, seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
        ) as generator:
            try:
                time.sleep(seconds / 2)
                memory = contestant.memory_kib()
                output, _ = generator.communicate(timeout=seconds + 30)
            except BaseException:
                generator.kill()
                raise
        cpu = contestant.cpu_seconds() - cpu_before
        try:
            report = self.report(output)
        except (IndexError, KeyError, ValueError):
            raise LoadTestError(f"the generator failed: {output}") from None
        if report["failed"] or not report["requests"]:
            raise LoadTestError(f"{contestant.name}: {report['failed']} requests failed: {output}")
        return Sample(
            throughput=report["requests"] / report["duration"] * 1e6,
            cpu=cpu / report["requests"] * 1e6,
            p50=report["p50"],
            p99=report["p99"],
            memory=memory,
        )


class Wrk(Generator):
    """wrk: HTTP/1.1."""

    def command(self, contestant, seconds):
        wrk = program("wrk", "apt install wrk")
        argv = [wrk, f"-t{self.threads}", f"-c{self.connections}", f"-d{seconds}s"]
        argv += ["--timeout=10s", "-s", HERE / "load.lua"]
        argv += [option for header in contestant.headers for option in ("-H", header)]
        argv += [contestant.url, "--", contestant.method, contestant.body]
        return [*argv, *contestant.cookies]

    def report(self, output):
        return json.loads(output.splitlines()[-1])


def interleave(generator, contestants, rounds, seconds):
    """The samples of each contestant, by name. All see the same moments of the machine: they take
    turns, and who begins rotates. One short round each, not counted, opens the connections."""
    samples = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        generator.round(contestant, 1)
    for number in range(rounds):
        shift = number % len(contestants)
        for contestant in contestants[shift:] + contestants[:shift]:
            sample = generator.round(contestant, seconds)
            samples[contestant.name].append(sample)
        done = f"round {number + 1} of {rounds}"
        print(f"  connections: {generator.connections}, {done}", file=sys.stderr)
    return samples


# --- Results ---------------------------------------------------------------------------------


def median(samples, measure):
    return statistics.median(getattr(sample, measure) for sample in samples)


def ratios(samples, baseline, measure):
    """Round by round: two contestants of one round saw the same machine, those of two did not."""
    return [getattr(a, measure) / getattr(b, measure) for a, b in zip(samples, baseline)]


def ratio(samples, baseline, measure):
    """The median of the rounds' ratios. On a machine whose speed changes it is nearer to the truth
    than the ratio of the medians."""
    return statistics.median(ratios(samples, baseline, measure))


COLUMNS = {
    # measure: heading, format
    "throughput": ("requests/s", "{:,.0f}"),
    "cpu": ("CPU µs/request", "{:.1f}"),
    "p50": ("p50 µs", "{:,.0f}"),
    "p99": ("p99 µs", "{:,.0f}"),
    "memory": ("memory KiB", "{:,.0f}"),
}


def table(samples, baseline):
    """Medians as a Markdown table; each with its ratio to the contestant named `baseline`, and the
    lowest and highest ratio of a single round."""
    rows = [
        ["", *(heading for heading, _ in COLUMNS.values())],
        ["---", *("---:" for _ in COLUMNS)],
    ]
    for name, own in samples.items():
        row = [name]
        for measure, (_, form) in COLUMNS.items():
            cell = form.format(median(own, measure))
            if name != baseline and baseline in samples:
                single = ratios(own, samples[baseline], measure)
                times = ratio(own, samples[baseline], measure)
                cell += f"; {times:.2f} × ({min(single):.2f}–{max(single):.2f})"
            row.append(cell)
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine():
    """The machine in one line, and how much else it does at this moment."""
    cpuinfo = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    model = cpuinfo.group(1) if cpuinfo else "unknown CPU"
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return f"{model}, {cores} cores, Linux {os.uname().release}, load average before {load:.1f}"
