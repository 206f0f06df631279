"""`manage.py litepilot config|check|run|status|primary`: the program, with LITEFS as its configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from argparse import REMAINDER
from pathlib import Path
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser

from .... import program
from ....settings import Settings
from ... import conf

# Litepilot's own default.
_DATA_DIR = "/var/lib/litepilot"


class Command(BaseCommand):
    help = "Runs Litepilot with what LITEFS says in the settings."
    # It says itself what is wrong with LITEFS, and the rest does not matter to it.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        config = commands.add_parser(
            "config", help="print the litepilot.yml that says what LITEFS says"
        )
        config.add_argument("-o", "--output", metavar="FILE", help="write it there instead")
        check = commands.add_parser("check", help="have the program check it")
        check.add_argument("--elsewhere", action="store_true", help="it is for another machine")
        run = commands.add_parser("run", help="run this node, and the application with it")
        run.add_argument(
            "app", nargs=REMAINDER, help="-- APP…: the application, instead of app.command"
        )
        status = commands.add_parser(
            "status", help="show every node's role, position, lag and health"
        )
        status.add_argument("--json", action="store_true")
        status.add_argument("--ready", action="store_true", help="only whether this node can serve")
        primary = commands.add_parser("primary", help="print the primary's name")
        primary.add_argument("--wait", metavar="DURATION", help="e.g. 30s")

    def handle(self, *_: Any, **options: Any) -> None:
        settings = conf.load()
        if not settings.enabled:
            raise CommandError("LITEFS['ENABLED'] is False: there is no Litepilot here")
        getattr(self, f"_{options['command']}")(settings, options)

    def _config(self, settings: Settings, options: dict[str, Any]) -> None:
        if options["output"]:
            _replace(Path(options["output"]), settings.to_yaml())
        else:
            self.stdout.write(settings.to_yaml(), ending="")

    def _check(self, settings: Settings, options: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "litepilot.yml")
            file.write_text(settings.to_yaml(), encoding="utf-8")
            elsewhere = ["--elsewhere"] if options["elsewhere"] else []
            command = [_program(), "check", "-c", str(file), *elsewhere]
            checked = subprocess.run(command, check=False, capture_output=True, text=True)
        # The file is gone, and its lines mean nothing to those who wrote LITEFS.
        said = re.sub(rf"{re.escape(str(file))}(:\d+)*", "LITEFS", checked.stdout + checked.stderr)
        self.stdout.write(said, ending="")
        if checked.returncode:
            sys.exit(checked.returncode)

    def _run(self, settings: Settings, options: dict[str, Any]) -> None:
        file = Path(settings.config.get("data_dir", _DATA_DIR), "litepilot.yml")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # It may hold admin.token.
            _replace(file, settings.to_yaml(), 0o600)
        except OSError as error:
            what = (
                f"{file} cannot be written: {error}. LITEFS['CONFIG']['data_dir'] is its directory"
            )
            raise CommandError(what) from error
        app = options["app"][1:] if options["app"][:1] == ["--"] else options["app"]
        _become("run", "-c", str(file), *(["--", *app] if app else []))

    def _status(self, settings: Settings, options: dict[str, Any]) -> None:
        flags = [f"--{flag}" for flag in ("json", "ready") if options[flag]]
        _become("status", "--admin", settings.admin_url, *flags)

    def _primary(self, settings: Settings, options: dict[str, Any]) -> None:
        wait = ["--wait", options["wait"]] if options["wait"] else []
        _become("primary", "--admin", settings.admin_url, *wait)


def _program() -> str:
    found = program.find()
    if found is None:
        raise CommandError("the program litepilot is not in the PATH; LITEPILOT_BIN may name it")
    return found


def _become(*arguments: str) -> NoReturn:
    """The program takes this process' place: signals and exit codes are its own."""
    sys.stdout.flush()
    command = [_program(), *arguments]
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise CommandError(f"{command[0]} cannot be run: {error}") from error


def _replace(file: Path, text: str, mode: int = 0o666) -> None:
    """As a whole: a Litepilot that is told to read it anew never sees half of it."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
    beside.replace(file)
