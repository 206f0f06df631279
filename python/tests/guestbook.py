"""The Django guestbook, set up once for all tests of a process, with a database that refuses writes."""

import os
import pathlib
import sys
import tempfile

import django

directory = tempfile.TemporaryDirectory()
DATABASE = pathlib.Path(directory.name, "db.sqlite3")

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests/apps/django_guestbook"))
os.environ.update(
    GUESTBOOK_DB=str(DATABASE),
    DJANGO_SETTINGS_MODULE="config.settings",
    DJANGO_ALLOWED_HOSTS="testserver",  # as Django's test clients call themselves
)
django.setup()

# For projects of their own: their databases need not survive the machine. Django takes it from 5.1 on.
UNSYNCED = {"init_command": "PRAGMA synchronous = OFF"} if django.VERSION >= (5, 1) else {}
