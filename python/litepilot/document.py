"""Writes a tree as YAML that people can read, and reads back what it has written.

Mappings are blocks, and everything else is JSON, which is YAML too. It is no reader for other YAML:
that is Litepilot's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Tree = dict[str, Any]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# What YAML would not take for text.
_NO_TEXT = ("null", "true", "false")
_LINE = re.compile(r'( *)("(?:[^"\\]|\\.)*"|[A-Za-z_][A-Za-z0-9_-]*):(?: (.+))?')
# JSON may hold these as they are, YAML may not.
_UNPRINTABLE = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_INDENT = "  "


class DocumentError(ValueError):
    """The text is not one that was written here."""


def write(tree: Mapping[str, Any]) -> str:
    """The tree as YAML. `${` in a text stays as it is: Litepilot replaces no variable in it."""
    return "".join(line + "\n" for line in _lines(tree, ""))


def read(text: str) -> Tree:
    """What `write` has written. Raises DocumentError."""
    root: Tree = {}
    # The mappings that the line at hand is in, each with its indentation.
    around: list[tuple[int, Tree]] = [(-1, root)]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise DocumentError(f"line {number} is not as it would be written here: {line!r}")
        depth, key = len(match[1]), _key(match[2])
        while around[-1][0] >= depth:
            around.pop()
        mapping = around[-1][1]
        if match[3] is None:
            mapping[key] = {}
            around.append((depth, mapping[key]))
        else:
            mapping[key] = _unescaped(_json(match[3], number))
    return root


def _lines(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in tree.items():
        plain = _PLAIN_KEY.fullmatch(key) and key not in _NO_TEXT
        name = key if plain else _dumped(key)
        if isinstance(value, Mapping) and value:
            lines.append(f"{indent}{name}:")
            lines += _lines(value, indent + _INDENT)
        else:
            lines.append(f"{indent}{name}: {_dumped(_escaped(value))}")
    return lines


def _dumped(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _json(text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DocumentError(f"line {number} has a value that is no JSON: {error}") from error


def _key(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def _escaped(value: Any) -> Any:
    return _each_text(value, lambda text: text.replace("${", "$${"))


def _unescaped(value: Any) -> Any:
    return _each_text(value, lambda text: text.replace("$${", "${"))


def _each_text(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(item, change) for item in value]
    if isinstance(value, Mapping):
        return {key: _each_text(item, change) for key, item in value.items()}
    return value
