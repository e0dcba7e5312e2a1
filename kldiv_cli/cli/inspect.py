"""``kldiv inspect``: every array of some files, what it looks like, and what fits together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kldiv_cli.cli import options
from kldiv_cli.cli.formats import choose_format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kldiv_cli.errors import KldivError
    from kldiv_cli.inspection import Inspection

__all__ = ["inspect"]

_MOST_LINES: Final = 8


def inspect(
    files: options.Files,
    exact: options.Exact = False,
    format: options.FormatName = "auto",
    json: options.Json = False,
    precision: options.Precision = None,
    allow_external: options.AllowExternal = False,
    debug: options.Debug = False,
) -> None:
    """List the arrays of files and what they look like.

    \b
    What is in a file, and which lines fit:
      kldiv inspect outputs.h5
    A pair, with every value read however many there are:
      kldiv inspect logits.npy labels.npy --exact
    One group of a file, or of a Zarr store, as JSON:
      kldiv inspect outputs.h5::/run --json

    Below stand the compute and compare lines that fit pairs of them.
    Of an array of more than 4 Mi elements a sample is read, and said to be one.
    An array that can't be read as numbers is listed with the reason.
    A file that can't be read is an error, said after what the others hold.

    Exit codes: 0 fine, 2 a file can't be read, 3 an internal error.
    """
    from kldiv_cli.pairing import suggest
    from kldiv_cli.report.console import tell, write
    from kldiv_cli.report.inspection import render_inspections

    shown = choose_format(format, json=json, precision=precision)
    inspections, errors = _inspect(files, exact=exact, allow_external=allow_external)
    if inspections or not errors:
        extra = ("--allow-external",) if allow_external else ()
        suggestions, more = suggest(inspections, most=_MOST_LINES, extra=extra)
        write(render_inspections(inspections, suggestions, shown, precision))
        _tell(inspections, more=more)
    for error in errors[:-1]:
        tell("kldiv: error", str(error))
    if errors:
        raise errors[-1]


def _inspect(
    files: Sequence[str], *, exact: bool, allow_external: bool
) -> tuple[list[Inspection], list[KldivError]]:
    """Every array once, and why some of the files could not be read."""
    from kldiv_cli.errors import KldivError
    from kldiv_cli.inspection import inspect_array
    from kldiv_cli.sources.listing import list_arrays

    inspections: list[Inspection] = []
    errors: list[KldivError] = []
    for file in dict.fromkeys(files):
        seen = {inspection.address for inspection in inspections}
        try:
            inspections += [
                inspect_array(stored, exact=exact, allow_external=allow_external)
                for stored in list_arrays(file, allow_external=allow_external)
                if stored.address not in seen
            ]
        except KldivError as error:
            errors.append(error)
    return inspections, errors


def _tell(inspections: list[Inspection], *, more: bool) -> None:
    """Say what was left out."""
    from kldiv_cli.report.console import tell

    sampled = [inspection for inspection in inspections if inspection.sampled]
    if sampled:
        arrays = "1 array" if len(sampled) == 1 else f"{len(sampled)} arrays"
        tell("note", f"{arrays} read in part, evenly spread; --exact reads all of it")
    if more:
        tell("note", f"more than {_MOST_LINES} pairs fit; name fewer files or a group to see the others")
