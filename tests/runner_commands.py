"""What the runner of GitHub Actions takes for a command, after its ActionCommand.cs.

Every line of both streams is looked at: ``::NAME PROPERTIES::MESSAGE`` where the line begins so, and the
older ``##[NAME PROPERTIES]MESSAGE`` anywhere in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Command", "command_in", "commands_in"]

NAMES: Final = frozenset(
    {
        *("add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "notice"),
        *("remove-matcher", "save-state", "set-env", "set-output", "stop-commands", "warning"),
    }
)
_MESSAGE: Final = {"%0D": "\r", "%0A": "\n"}
_PROPERTY: Final = {**_MESSAGE, "%3A": ":", "%2C": ","}
_OLDER: Final = {"%3B": ";", **_MESSAGE, "%5D": "]"}


class Command(NamedTuple):
    name: str
    properties: Mapping[str, str]
    message: str


def commands_in(printed: str) -> list[Command]:
    """All commands in what a step printed."""
    found = (command_in(line) for line in re.split(r"\r\n|\r|\n", printed))
    return [command for command in found if command is not None]


def command_in(line: str) -> Command | None:
    return _newer(line.lstrip()) or _older(line)


def _newer(line: str) -> Command | None:
    head, separator, message = line.removeprefix("::").partition("::")
    if not line.startswith("::") or not separator:
        return None
    return _command(head, message, ",", _PROPERTY, _MESSAGE)


def _older(line: str) -> Command | None:
    _, found, rest = line.partition("##[")
    head, separator, message = rest.partition("]")
    if not found or not separator:
        return None
    return _command(head, message, ";", _OLDER, _OLDER)


def _command(
    head: str, message: str, comma: str, of_property: Mapping[str, str], of_message: Mapping[str, str]
) -> Command | None:
    name, _, properties = head.partition(" ")
    if name.lower() not in NAMES:
        return None
    named = {}
    for part in properties.strip().split(comma):
        key, _, value = part.lstrip("=").partition("=")
        if value := value.lstrip("="):
            named[key] = _unescaped(value, of_property)
    return Command(name.lower(), named, _unescaped(message, of_message))


def _unescaped(text: str, escapes: Mapping[str, str]) -> str:
    for escape, meant in {**escapes, "%25": "%"}.items():
        text = text.replace(escape, meant)
    return text
