"""The arguments of `evaluate`, by name, as a spec of what to compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kldiv_cli.spec import Spec, resolve_spec

__all__ = ["FILES", "files_of", "spec_of"]

FILES: Final = ("weight", "pos_weight", "mask")
"""The inputs that there may be beside predictions and targets."""
_OF_READING: Final = "allow_external"


def files_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the files that are given."""
    return {role: arguments[role] for role in FILES if arguments.get(role) is not None}


def spec_of(arguments: Mapping[str, Any], *, histogram: bool = False) -> Spec:
    """What they ask to be computed; `loss` may be one or several.

    Raises
    ------
    UsageError
        They contradict each other, or one of them is not what it may be.
    """
    loss, files = arguments.get("loss", "kl"), files_of(arguments)
    others: dict[str, Any] = {k: v for k, v in arguments.items() if k not in (*FILES, "loss", _OF_READING)}
    others |= {role: role in files for role in FILES}
    losses = (loss,) if isinstance(loss, str) else tuple(loss)
    return resolve_spec(losses=losses, histogram=histogram, **others)
