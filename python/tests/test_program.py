"""A node of its own: `manage.py litepilot run`, and what the other commands say of it."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests import program
from tests.guestbook import UNSYNCED

APPS = pathlib.Path(__file__).parents[2] / "tests/apps"


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


class Project:
    """The guestbook as a project that has its Litepilot in the settings."""

    def __init__(self, path):
        self.path = path
        self.port, target, admin = free_port(), free_port(), free_port()
        run = [sys.executable, "-m", "django", "runserver", "--noreload", f"127.0.0.1:{target}"]
        litefs = {
            "MOUNT_PATH": str(path / "db"),
            "PROXY": {
                "ADDR": f"127.0.0.1:{self.port}",
                "TARGET": f"127.0.0.1:{target}",
                "PRIMARY_REDIRECT_TIMEOUT": "2m",
            },
            "CONFIG": {
                "node": "node-7",
                "data_dir": str(path / "state"),
                "litefs": {"engine": "embedded"},
                "admin": {"listen": f"127.0.0.1:{admin}"},
                "app": {"command": run, "on_promote": [sys.executable, "-m", "django", "migrate"]},
            },
        }
        database = {"ENGINE": "litepilot.django.backend", "NAME": "default", "OPTIONS": UNSYNCED}
        (path / "db").mkdir()
        (path / "project_settings.py").write_text(
            "from config.settings import *\n"
            f"DATABASES = {{'default': {database!r}}}\n"
            "INSTALLED_APPS = ['litepilot.django', *INSTALLED_APPS]\n"
            f"LITEFS = {litefs!r}\n"
        )
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(path), str(APPS / "django_guestbook"), *sys.path]),
            "DJANGO_SETTINGS_MODULE": "project_settings",
            "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
            "LITEPILOT_BIN": program.required(),
        }

    def manage(self, *arguments):
        command = [sys.executable, "-m", "django", "litepilot", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True)

    @contextmanager
    def running(self):
        log = (self.path / "log").open("wb")
        command = [sys.executable, "-m", "django", "litepilot", "run"]
        node = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        try:
            yield node
        finally:
            node.send_signal(signal.SIGTERM)
            try:
                node.wait(60)
            finally:
                node.kill()
                log.close()

    def ask(self, path, data=None, **headers):
        request = Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            with urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


def test_a_node_runs_from_the_settings(tmp_path):
    project = Project(tmp_path)
    checked = project.manage("check")
    assert checked.returncode == 0, checked.stdout
    with project.running() as node:
        primary = project.manage("primary", "--wait", "2m")
        assert (primary.returncode, primary.stdout) == (0, "node-7\n"), (
            tmp_path / "log"
        ).read_text()
        assert node.poll() is None, "the program is the process that was started"
        # Held until the application answers; migrated by then.
        status, said = project.ask("/api/count", b"", **{"X-Request-Id": "one"})
        assert (status, '"count": 1' in said) == (200, True), said
        assert "node-7" in project.manage("status").stdout
        assert project.manage("status", "--ready").returncode == 0
    assert node.returncode == 0
    assert project.manage("primary").returncode == 1
    assert (tmp_path / "state/litepilot.yml").stat().st_mode & 0o777 == 0o600
