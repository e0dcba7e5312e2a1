"""Names of pairs: what a report can show on one line and no CI runner takes for a command."""

from __future__ import annotations

from typing import Final

from kldiv_cli.pair_files import STEM, PairFiles
from kldiv_cli.streams import printable
from kldiv_cli.suite_tables import Table, shown

__all__ = ["check_name", "full_name"]

_LONGEST: Final = 200


def full_name(name: str, files: PairFiles, table: Table) -> str:
    """The name of a pair of the table `name`: for the match of a glob with its stem in it, or behind it."""
    if files.stem is None:
        if STEM in name:
            raise table.error(
                f"the name has {STEM} but the predictions no wildcard, expected both; name the pair otherwise"
            )
        return name
    full = name.replace(STEM, files.stem) if STEM in name else f"{name}/{files.stem}"
    check_name(full, table, files.addresses["predictions"])
    return full


def check_name(name: str, table: Table, predictions: str | None = None) -> None:
    """Refuse names that a report can't show or that a CI runner would take for a command."""
    problem, expected = "", "another one"
    if not name.strip():
        problem = "is empty"
    elif len(name) > _LONGEST:
        problem, expected = f"has {len(name)} characters", f"at most {_LONGEST}"
    elif not name.isprintable():
        problem, expected = "has control characters", "printable ones"
    elif name.lstrip().startswith("::"):
        problem = "begins with '::', which CI runners take for a command"
    elif "##[" in name:
        problem = "has '##[' in it, which CI runners take for a command"
    if problem and predictions is None:
        raise table.error(f"the name '{shown(name)}' {problem}, expected {expected}; rename the table")
    if problem:
        source = printable(str(predictions))
        raise table.error(
            f"the name '{shown(name)}' {problem}, expected {expected}; rename {source} or the table"
        )
