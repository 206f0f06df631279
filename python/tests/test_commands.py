"""`manage.py litepilot` and `manage.py migrate`, as somebody runs them, and the system checks."""

import io
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connections

from litepilot import reading
from litepilot import settings as litepilot_settings
from litepilot.django.checks import check_settings
from litepilot.django.management.commands import litepilot as litepilot_command
from litepilot.django.management.commands import migrate as migrate_command
from tests import databases, program
from tests.guestbook import UNSYNCED

pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
BACKEND = "litepilot.django.backend"
MIDDLEWARE = "litepilot.django.middleware.ReplayReadonlyWrites"


def run(*arguments, out=None):
    out = out or io.StringIO()
    call_command(litepilot_command.Command(), *arguments, stdout=out)
    return out.getvalue()


def test_config_prints_what_can_be_read_back(settings_of, tmp_path):
    settings_of(LITEFS={"MOUNT_PATH": tmp_path, "RETENTION": "2h"})
    printed = run("config")
    assert litepilot_settings.parse(printed) == reading.read(django_settings.LITEFS)
    run("config", "-o", str(tmp_path / "litepilot.yml"))
    assert (tmp_path / "litepilot.yml").read_text() == printed
    assert [file.name for file in tmp_path.iterdir()] == ["litepilot.yml"]


def test_there_is_no_configuration_where_there_is_no_litepilot(settings_of):
    settings_of(LITEFS={"ENABLED": False})
    with pytest.raises(CommandError, match="ENABLED"):
        run("config")


def test_check_is_the_programs(settings_of, monkeypatch):
    monkeypatch.setenv("LITEPILOT_BIN", program.required())
    settings_of(LITEFS={"CONFIG": {"node": "n"}})
    assert "fine" in run("check", "--elsewhere")
    settings_of(LITEFS={"RETENTION": "soon"})
    out = io.StringIO()
    with pytest.raises(SystemExit) as caught:
        run("check", "--elsewhere", out=out)
    assert caught.value.code == 78
    assert out.getvalue().startswith("LITEFS: litefs.retention"), out.getvalue()


# -- migrate, in a project of its own


@pytest.fixture
def project(settings_of, tmp_path):
    """The guestbook on a node's database, with nothing applied yet."""
    name = str(tmp_path / "db.sqlite3")
    databases_of = {"default": {"ENGINE": BACKEND, "NAME": name, "OPTIONS": UNSYNCED}}
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "DJANGO_SETTINGS_MODULE": "node_settings",
    }
    (tmp_path / "node_settings.py").write_text(
        "from config.settings import *\n"
        f"DATABASES = {databases_of!r}\n"
        "INSTALLED_APPS = ['litepilot.django', *INSTALLED_APPS]\n"
        f"LITEFS = {{'MOUNT_PATH': {str(tmp_path)!r}, 'CONFIG': {{'node': 'node-2'}}}}\n"
    )

    def manage(*arguments):
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    manage.path = tmp_path
    return manage


def follow_node_1(path):
    (path / ".primary").write_text("node-1\n")


def test_migrate_runs_where_it_can_and_is_content_where_nothing_is_left(project):
    applied = project("migrate")
    assert applied.returncode == 0, applied.stderr
    assert "Applying" in applied.stdout
    databases.refuse_writes(project.path / "db.sqlite3")
    follow_node_1(project.path)
    again = project("migrate", "--wait", "0")
    assert again.returncode == 0, again.stderr
    assert "No migrations to apply" in again.stdout


def test_migrate_on_a_replica_says_where(project):
    databases.make_replica(project.path / "db.sqlite3")
    follow_node_1(project.path)
    for arguments in ([], ["guestbook"]):
        refused = project("migrate", *arguments, "--wait", "0")
        assert refused.returncode == 1
        assert "node-1 is the primary" in refused.stderr
        assert "litepilot on-primary" in refused.stderr


def test_migrate_that_is_refused_by_the_database_says_why(project):
    databases.make_replica(project.path / "db.sqlite3")
    pathlib.Path(project.path, "db.sqlite3-pos").touch()
    refused = project("migrate", "--wait", "0")
    assert refused.returncode == 1
    assert "no primary is known" in refused.stderr, refused.stderr


def test_migrate_on_a_replica_waits_for_what_the_primary_applies(project, monkeypatch):
    follow_node_1(project.path)
    waiting = threading.Event()
    done = []
    # As soon as it has looked once, the primary's work arrives.
    monkeypatch.setattr(migrate_command.time, "sleep", lambda _: (waiting.set(), arrive()))

    def arrive():
        (project.path / ".primary").unlink(missing_ok=True)
        assert project("migrate").returncode == 0
        follow_node_1(project.path)
        done.append(True)

    settings = {
        **connections.settings["default"],
        "ENGINE": BACKEND,
        "NAME": str(project.path / "db.sqlite3"),
        "OPTIONS": {},
    }
    monkeypatch.setitem(connections.settings, "default", settings)
    kept = connections["default"]
    del connections["default"]
    try:
        out = io.StringIO()
        call_command(migrate_command.Command(), stdout=out)
        connections["default"].close()
    finally:
        connections["default"] = kept
    assert done == [True]
    assert "No migrations to apply" in out.getvalue()


def test_the_commands_are_the_projects(project, monkeypatch):
    said = project("litepilot", "config")
    assert said.returncode == 0, said.stderr
    assert 'node: "node-2"' in said.stdout
    status = project("litepilot", "primary")
    assert status.returncode != 0


def test_the_projects_own_tests_run(project):
    (project.path / "test_of_project.py").write_text(
        "from django.test import TestCase\n"
        "class Visits(TestCase):\n"
        "    def test_a_page(self):\n"
        "        self.assertEqual(self.client.get('/').status_code, 200)\n"
    )
    ran = project("test", "test_of_project")
    assert ran.returncode == 0, ran.stderr
    assert "Ran 1 test" in ran.stderr


# -- system checks


def ids():
    return sorted(message.id.removeprefix("litepilot.") for message in check_settings())


@pytest.fixture
def good(settings_of, tmp_path, monkeypatch):
    monkeypatch.setenv("LITEPILOT_BIN", "/bin/true")
    settings_of(
        LITEFS={"MOUNT_PATH": tmp_path},
        DATABASES={"default": {"ENGINE": BACKEND, "NAME": "default"}},
        MIDDLEWARE=[MIDDLEWARE, *django_settings.MIDDLEWARE[1:]],
    )
    assert ids() == []
    return tmp_path


def test_settings_that_are_wrong(settings_of):
    settings_of(LITEFS={"MOUNT": "/litefs", "RETENTION": 1})
    assert ids() == ["E001", "E001"]
    settings_of(LITEFS=[])
    assert ids() == ["E001"]


def test_databases_that_are_not_replicated(good, settings_of):
    path = {"ENGINE": BACKEND, "NAME": good / "db.sqlite3"}
    cache = {"ENGINE": BACKEND, "NAME": "/tmp/cache.sqlite3"}
    settings_of(DATABASES={"default": path, "cache": cache})
    assert ids() == ["W001"]
    settings_of(DATABASES={"default": {**path, "ENGINE": "django.db.backends.sqlite3"}})
    assert ids() == ["W002"]
    settings_of(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}})
    assert ids() == ["E002"]


def test_the_middleware_comes_first(good, settings_of):
    others = django_settings.MIDDLEWARE[1:]
    settings_of(MIDDLEWARE=others)
    assert ids() == ["W003"]
    settings_of(MIDDLEWARE=[*others, MIDDLEWARE])
    assert ids() == ["W004"]


def test_the_health_page_is_asked_for_by_the_applications_address(good, settings_of):
    health = {"MOUNT_PATH": good, "CONFIG": {"app": {"health": "/healthz"}}}
    settings_of(LITEFS=health, ALLOWED_HOSTS=["shop.example.com"])
    assert ids() == ["W006"]
    settings_of(ALLOWED_HOSTS=["shop.example.com", "127.0.0.1"])
    assert ids() == []
    unix = {**health, "PROXY": {"TARGET": "unix:/run/gunicorn.sock"}}
    settings_of(LITEFS=unix, ALLOWED_HOSTS=["localhost"])
    assert ids() == []


def test_a_program_that_is_not_there(good, monkeypatch):
    monkeypatch.setattr("litepilot.program.find", lambda: None)
    assert ids() == ["W005"]


@pytest.mark.parametrize("peers", [{}, {"RAFT_PEERS": ["a:4321", "b:4321"]}])
def test_nothing_is_asked_where_there_is_no_litepilot(settings_of, peers):
    settings_of(LITEFS={"ENABLED": False, **peers})
    assert ids() == []
