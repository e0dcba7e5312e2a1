"""Which files make a pair: a glob for the predictions, and for each match its partners by ``{stem}``.

Nothing is lost in silence: a match without a target and a target without a match are errors.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from kldiv_cli.errors import InputError, InputNotFound, UsageError
from kldiv_cli.globs import Glob, directory_entries, find_matches, name_filter, parse_glob
from kldiv_cli.streams import printable
from kldiv_cli.urls import has_wildcard, is_remote, shown, split_dataset

__all__ = ["STEM", "PairFiles", "Written", "address_from", "find_pairs"]

STEM: Final = "{stem}"
"""In an address, the name of the prediction's file without its last suffix."""

_SEPARATORS: Final = re.compile(f"[{re.escape(os.sep + (os.altsep or ''))}]")
_LISTED: Final = 5
_MENDED_BY: Final = "allow_unmatched = true"


class Written(NamedTuple):
    """An address as somebody wrote it."""

    text: str
    where: str
    """How an error about it begins."""

    @property
    def shown(self) -> str:
        return f"'{printable(shown(self.text))}'"


class PairFiles(NamedTuple):
    """The addresses of one pair, and the stem if it is the match of a glob."""

    stem: str | None
    addresses: dict[str, str]


def find_pairs(
    directory: str, written: Mapping[str, Written], *, allow_unmatched: bool = False
) -> list[PairFiles]:
    """The pairs that addresses stand for, those of a glob in the order of their paths.

    `written` has ``predictions``, ``targets`` and whatever files go with them; all are seen from
    `directory`. Wildcards ``* ? [ab] **`` count in the file part of the predictions only, and not in
    a path that exists as it is written. They match no hidden files. Where the targets have no
    ``{stem}``, all matches are held against the same ones. Where it stands in the name of a dataset
    only, datasets that no prediction belongs to are not looked for, nor are objects of a URL.

    Raises
    ------
    UsageError
        An address is none, or ``{stem}`` stands where there is no glob.
    InputNotFound
        Nothing matches, or matches have no targets and `allow_unmatched` does not drop them.
    InputError
        There are targets without a prediction, unless `allow_unmatched`; or a directory can't be read.
    """
    addresses = {role: address_from(directory, address) for role, address in written.items()}
    file, behind = _split(directory, written["predictions"].text)
    glob = None if is_remote(file) else parse_glob(_joined(directory, file))
    _check_stems(directory, written, glob)
    if glob is None:
        return [PairFiles(None, addresses)]
    with _listable(written["predictions"].where):
        paths = find_matches(glob)
    if not paths:
        raise _no_match(directory, written["predictions"])
    found = [_pair(directory, written, path, behind) for path in paths]
    kept = _with_targets(directory, written, found, allow_unmatched=allow_unmatched)
    if not allow_unmatched:
        endings = {os.path.splitext(path)[1] for path in paths}
        _check_no_spare_targets(directory, written, found, glob, endings)
    return kept


def address_from(directory: str, address: Written) -> str:
    """An address seen from where the working directory is, as short as it was written.

    Raises
    ------
    UsageError
        It names no file.
    """
    file, behind = _split(directory, address.text)
    if is_remote(file) and has_wildcard(file):
        raise UsageError(
            f"{address.where}: {address.shown} has a wildcard, but URLs are not listed; name each object in "
            "a table of its own"
        )
    if not file or behind == "::" or "\0" in address.text:
        raise UsageError(
            f"{address.where}: {address.shown}, expected FILE, FILE::DATASET or FILE::[0:1000]; "
            "write it as seen from the suite's directory"
        )
    return _joined(directory, address.text)


def _joined(directory: str, path: str) -> str:
    alone = not directory or os.path.isabs(path) or is_remote(path)
    return path if alone else os.path.join(directory, path)


def _split(directory: str, text: str) -> tuple[str, str]:
    """The file of an address and what is behind it; ``::`` may be in the name of a file that exists.

    It is split before it is joined, for ``::`` and ``{stem}`` in the directory's name mean nothing.
    """
    if is_remote(text):
        file, separator, rest = split_dataset(text)
        return file, separator + rest
    file, separator, rest = text.partition("::")
    if not separator or os.path.lexists(_joined(directory, text)):
        return text, ""
    return file, separator + rest


def _check_stems(directory: str, written: Mapping[str, Written], glob: Glob | None) -> None:
    """``{stem}`` stands for what a glob matches: not in the glob, and not where there is none."""
    predictions = written["predictions"]
    literal = os.path.lexists(_joined(directory, _split(directory, predictions.text)[0]))
    if STEM in predictions.text and not literal:
        raise UsageError(
            f"{predictions.where}: {predictions.shown} has {STEM}, "
            "expected it in the partners of a glob only; write * in its place"
        )
    for role, address in written.items():
        if role != "predictions" and glob is None and STEM in address.text:
            raise UsageError(
                f"{address.where}: {address.shown} has {STEM}, expected it only where the predictions "
                "have a wildcard, and files match it; write the file's name"
            )


def _pair(directory: str, written: Mapping[str, Written], path: str, behind: str) -> PairFiles:
    stem = os.path.splitext(os.path.basename(path))[0]
    partners = {role: _partner(directory, address.text, stem) for role, address in written.items()}
    return PairFiles(stem, partners | {"predictions": path + behind})


def _partner(directory: str, template: str, stem: str | None) -> str:
    return _joined(directory, template if stem is None else template.replace(STEM, stem))


@contextlib.contextmanager
def _listable(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place, problem = printable(str(error.filename)), error.strerror or error
        raise InputError(
            f"{where}: {place}: {problem}, expected a directory that can be listed; mend its rights or links"
        ) from None


# Matches and their targets


def _with_targets(
    directory: str, written: Mapping[str, Written], found: list[PairFiles], *, allow_unmatched: bool
) -> list[PairFiles]:
    """The pairs whose target file is there: all of them, unless `allow_unmatched`; of URLs all."""
    template, _ = _split(directory, written["targets"].text)
    if STEM not in template or is_remote(template):
        return found
    files = [_partner(directory, template, pair.stem) for pair in found]
    kept = [pair for pair, file in zip(found, files, strict=True) if os.path.lexists(file)]
    if kept == found or (kept and allow_unmatched):
        return kept
    raise _no_targets(written, [file for file in files if not os.path.lexists(file)], any_left=bool(kept))


def _check_no_spare_targets(
    directory: str, written: Mapping[str, Written], found: list[PairFiles], glob: Glob, endings: set[str]
) -> None:
    """Refuse target files that a prediction should be there for but is not.

    One should be if the glob would match it under an ending that matches have, and if the file is
    no partner of another pair: ``ref/{stem}_mask.npy`` fits ``ref/{stem}.npy`` too.
    """
    template, _ = _split(directory, written["targets"].text)
    if STEM not in template or is_remote(template):
        return
    with _listable(written["targets"].where):
        there = _by_stem(directory, template)
    matched = {os.path.normcase(str(pair.stem)) for pair in found}
    fits = name_filter(glob.file_pattern)
    partners = _partners_of_others(directory, written, there)
    spare = [
        path
        for stem, path in sorted(there.items())
        if os.path.normcase(stem) not in matched
        and path not in partners
        and any(fits(stem + ending) for ending in endings)
    ]
    if spare:
        raise _no_predictions(written, spare)


def _partners_of_others(directory: str, written: Mapping[str, Written], there: Mapping[str, str]) -> set[str]:
    """Files that are weights or masks of a target, and not that target itself."""
    templates = [
        _split(directory, address.text)[0]
        for role, address in written.items()
        if role not in ("predictions", "targets")
    ]
    partners = ((_partner(directory, each, stem), path) for each in templates for stem, path in there.items())
    return {partner for partner, target in partners if partner != target}


def _by_stem(directory: str, template: str) -> dict[str, str]:
    """The files there are of a path with ``{stem}`` in it."""
    before, after = template.split(STEM, 1)
    top, prefix = os.path.split(_joined(directory, before))
    pieces = [re.escape(piece) for piece in _SEPARATORS.split(after, maxsplit=1)[0].split(STEM)]
    match = re.compile(f"{re.escape(prefix)}(?P<stem>.+){'(?P=stem)'.join(pieces)}", re.DOTALL).fullmatch
    names = [found["stem"] for entry in directory_entries(top) if (found := match(entry.name))]
    paths = {stem: _partner(directory, template, stem) for stem in names}
    return {stem: path for stem, path in paths.items() if os.path.lexists(path) and not os.path.isdir(path)}


# What is missing


def _no_match(directory: str, predictions: Written) -> InputNotFound:
    return InputNotFound(
        f"{predictions.where}: no file matches {predictions.shown}, expected at least one, "
        f"seen from the suite's directory '{printable(directory or os.curdir)}'; mend the pattern or the dump"
    )


def _no_targets(written: Mapping[str, Written], files: Sequence[str], *, any_left: bool) -> InputNotFound:
    remedy = (
        f"add them, or drop such predictions with {_MENDED_BY}" if any_left else "mend the path or the dump"
    )
    return InputNotFound(
        f"{written['targets'].where}: no file {_named(files)}, expected one for each match of "
        f"{written['predictions'].shown}; {remedy}"
    )


def _no_predictions(written: Mapping[str, Written], files: Sequence[str]) -> InputError:
    return InputError(
        f"{written['targets'].where}: no prediction for {_named(files)}, expected a match of "
        f"{written['predictions'].shown} for each; add them, or leave such targets out with {_MENDED_BY}"
    )


def _named(files: Sequence[str]) -> str:
    """The first few by name, the others by their number."""
    more = len(files) - _LISTED
    return ", ".join(map(printable, files[:_LISTED])) + (f" and {more} more" if more > 0 else "")
