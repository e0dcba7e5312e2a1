"""Which files make a pair: a glob for the predictions, and for each match its partners by ``{stem}``.

Nothing is lost in silence: a match without a target and a target without a match are collected, and
are errors unless somebody said that they may be there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from kldiv_cli.addresses import Viewpoint, Written, address_from, is_there, joined, split_address
from kldiv_cli.errors import InputError, InputNotFound, UsageError
from kldiv_cli.globs import (
    Glob,
    directory_entries,
    files_below,
    find_matches,
    is_directory,
    parse_glob,
    parts_filter,
)
from kldiv_cli.placeholders import PATH, STEM, check_known, filled, placeholders_in, stem_of
from kldiv_cli.streams import printable
from kldiv_cli.urls import is_url

__all__ = [
    "Matches",
    "PairFiles",
    "Unmatched",
    "find_pairs",
    "listable",
    "match_pairs",
    "named",
    "without_suffix",
]

_SEPARATORS: Final = re.compile(f"[{re.escape(os.sep + (os.altsep or ''))}]")
_LISTED: Final = 5


class Unmatched(NamedTuple):
    """What has no partner."""

    address: str
    role: Literal["predictions", "targets", "group"]
    """What it is; a group has neither of the two."""


class PairFiles(NamedTuple):
    """The addresses of one pair, and what they have in common if it is the match of a glob."""

    stem: str | None
    addresses: dict[str, str]
    path: str | None = None
    """Below what is literal in the glob, without the suffix, between slashes."""
    suffix: str = ""


class Matches(NamedTuple):
    """What the addresses stand for: all pairs that there are, and what has no partner."""

    pairs: list[PairFiles]
    without_targets: list[PairFiles]
    """Those whose targets are not there."""
    missing: list[str]
    """The targets' files that are not there."""
    spare: list[str]
    """The targets that no prediction belongs to."""

    @property
    def unmatched(self) -> tuple[Unmatched, ...]:
        return (
            *(Unmatched(pair.addresses["predictions"], "predictions") for pair in self.without_targets),
            *(Unmatched(address, "targets") for address in self.spare),
        )


def find_pairs(view: Viewpoint, written: Mapping[str, Written], *, allow_unmatched: bool = False) -> Matches:
    """As `match_pairs`, but what has no partner is an error unless `allow_unmatched`.

    Raises
    ------
    InputNotFound
        Matches have no targets, and `allow_unmatched` does not drop them or nothing would be left.
    InputError
        There are targets without a prediction, unless `allow_unmatched`.
    """
    matches = match_pairs(view, written)
    if matches.missing and not (matches.pairs and allow_unmatched):
        raise _no_targets(view, written, matches.missing, any_left=bool(matches.pairs))
    if matches.spare and not allow_unmatched:
        raise _no_predictions(view, written, matches.spare)
    return matches


def match_pairs(view: Viewpoint, written: Mapping[str, Written]) -> Matches:
    """The pairs that addresses stand for, those of a glob in the order of their paths.

    `written` has ``predictions``, ``targets`` and whatever files go with them. Wildcards
    ``* ? [ab] **`` count in the file part of the predictions only, and not in a path that exists as it
    is written, nor in a URL. They match no hidden files. Where the targets have neither ``{stem}`` nor
    ``{path}``, all matches are held against the same ones. Where it stands in the name of a dataset
    only, datasets that no prediction belongs to are not looked for, and neither are URLs.

    Raises
    ------
    UsageError
        An address is none, or ``{stem}`` stands where there is no glob.
    InputNotFound
        Nothing matches.
    InputError
        A directory can't be read.
    """
    addresses = {role: address_from(view, address) for role, address in written.items()}
    file, behind = split_address(view.directory, written["predictions"].text)
    glob = None if is_url(file) else parse_glob(joined(view.directory, file))
    _check_placeholders(view.directory, written, glob)
    if glob is None:
        return Matches([PairFiles(None, addresses)], [], [], [])
    with listable(written["predictions"].where):
        paths = find_matches(glob)
    if not paths:
        raise _no_match(view, written["predictions"])
    found = [_pair(view.directory, written, glob, path, behind) for path in paths]
    kept, lacking = _split_by_targets(view.directory, written, found)
    return Matches(
        pairs=kept,
        without_targets=[pair for pair, _ in lacking],
        missing=[file for _, file in lacking],
        spare=_spare_targets(view.directory, written, found, glob, paths),
    )


def without_suffix(path: str) -> str:
    return os.path.splitext(path)[0]


def _check_placeholders(directory: str, written: Mapping[str, Written], glob: Glob | None) -> None:
    """``{stem}`` stands for what a glob matches: not in the glob, and not where there is none."""
    predictions = written["predictions"]
    literal = is_there(joined(directory, split_address(directory, predictions.text)[0]))
    for role, address in written.items():
        if role != "predictions" and glob is not None:
            check_known(address, (STEM, PATH), directory)
        for placeholder in placeholders_in(address.text):
            if role == "predictions" and not literal:
                raise UsageError(
                    f"{predictions.where}: {predictions.shown} has {placeholder}, "
                    "expected it in the partners of a glob only; write * in its place"
                )
            if role != "predictions" and glob is None:
                raise UsageError(
                    f"{address.where}: {address.shown} has {placeholder}, expected it only where the "
                    "predictions have a wildcard, and files match it; write the file's name"
                )


def _pair(directory: str, written: Mapping[str, Written], glob: Glob, path: str, behind: str) -> PairFiles:
    below, suffix = os.path.splitext(path[len(glob.base) :].lstrip(os.sep + (os.altsep or "")))
    below = below.replace(os.sep, "/")
    partners = {role: _partner(directory, address.text, below) for role, address in written.items()}
    return PairFiles(stem_of(below), partners | {"predictions": path + behind}, below, suffix)


def _partner(directory: str, template: str, path: str) -> str:
    return joined(directory, filled(template, path))


@contextlib.contextmanager
def listable(where: str) -> Iterator[None]:
    """Tell of a directory that can't be listed, where it was needed."""
    try:
        yield
    except OSError as error:
        place, problem = printable(str(error.filename)), error.strerror or error
        raise InputError(
            f"{where}: {place}: {problem}, expected a directory that can be listed; mend its rights or links"
        ) from None


# Matches and their targets


def _split_by_targets(
    directory: str, written: Mapping[str, Written], found: list[PairFiles]
) -> tuple[list[PairFiles], list[tuple[PairFiles, str]]]:
    """The pairs whose target file is there, and the others with the file that is not."""
    template, _ = split_address(directory, written["targets"].text)
    if not placeholders_in(template):
        return found, []
    files = [(pair, _partner(directory, template, str(pair.path))) for pair in found]
    there = [is_there(file) for _, file in files]
    return (
        [pair for (pair, _), is_kept in zip(files, there, strict=True) if is_kept],
        [item for item, is_kept in zip(files, there, strict=True) if not is_kept],
    )


def _spare_targets(
    directory: str,
    written: Mapping[str, Written],
    found: list[PairFiles],
    glob: Glob,
    paths: Iterable[str],
) -> list[str]:
    """Target files that a prediction should be there for but is not.

    One should be if the glob would match it under an ending that matches have, and if the file is
    no partner of another pair: ``ref/{stem}_mask.npy`` fits ``ref/{stem}.npy`` too.
    """
    template, _ = split_address(directory, written["targets"].text)
    if not placeholders_in(template) or is_url(template):
        return []
    by_path = PATH in template
    with listable(written["targets"].where):
        there = (_by_path if by_path else _by_stem)(directory, template)
    matched = {os.path.normcase(str(pair.path if by_path else pair.stem)) for pair in found}
    endings = {os.path.splitext(path)[1] for path in paths}
    fits = parts_filter(glob.parts if by_path else (glob.file_pattern,))
    partners = _partners_of_others(directory, written, there)
    return [
        path
        for value, path in sorted(there.items())
        if os.path.normcase(value) not in matched
        and path not in partners
        and any(fits(f"{value}{ending}".split("/")) for ending in endings)
    ]


def _partners_of_others(directory: str, written: Mapping[str, Written], there: Mapping[str, str]) -> set[str]:
    """Files that are weights or masks of a target, and not that target itself."""
    templates = [
        split_address(directory, address.text)[0]
        for role, address in written.items()
        if role not in ("predictions", "targets")
    ]
    partners = ((_partner(directory, each, stem), path) for each in templates for stem, path in there.items())
    return {partner for partner, target in partners if partner != target}


def _by_stem(directory: str, template: str) -> dict[str, str]:
    """The files there are of a path with ``{stem}`` in it."""
    before, after = template.split(STEM, 1)
    top, prefix = os.path.split(joined(directory, before))
    pieces = [re.escape(piece) for piece in _SEPARATORS.split(after, maxsplit=1)[0].split(STEM)]
    match = re.compile(f"{re.escape(prefix)}(?P<stem>.+){'(?P=stem)'.join(pieces)}", re.DOTALL).fullmatch
    names = [found["stem"] for entry in directory_entries(top) if (found := match(entry.name))]
    paths = {stem: _partner(directory, template, stem) for stem in names}
    return {stem: path for stem, path in paths.items() if os.path.lexists(path) and not is_directory(path)}


def _by_path(directory: str, template: str) -> dict[str, str]:
    """The files there are of a path with ``{path}`` in it, at any depth."""
    literal = min((template.partition(placeholder)[0] for placeholder in placeholders_in(template)), key=len)
    top = os.path.dirname(literal)
    match = re.compile(_expression(template[len(literal) :]), re.DOTALL).fullmatch
    prefix = os.path.basename(literal)
    names = [name[len(prefix) :] for name in files_below(joined(directory, top)) if name.startswith(prefix)]
    found = [(name, matched["path"]) for name in names if (matched := match(name))]
    paths = {path: _partner(directory, template, path) for _, path in found}
    return {path: paths[path] for name, path in found if paths[path] == joined(directory, literal + name)}


def _expression(template: str) -> str:
    """What matches a template; that ``{stem}`` is the end of ``{path}`` is not in it."""
    before, after = template.split(PATH, 1)
    any_stem = "[^/]+".join
    return (
        any_stem(map(re.escape, before.split(STEM)))
        + "(?P<path>.+)"
        + "(?P=path)".join(any_stem(map(re.escape, piece.split(STEM))) for piece in after.split(PATH))
    )


# What is missing


def _no_match(view: Viewpoint, predictions: Written) -> InputNotFound:
    return InputNotFound(
        f"{predictions.where}: no file matches {predictions.shown}, expected at least one, seen from "
        f"{view.called} '{printable(view.directory or os.curdir)}'; mend the pattern or the dump"
    )


def _no_targets(
    view: Viewpoint, written: Mapping[str, Written], files: Sequence[str], *, any_left: bool
) -> InputNotFound:
    remedy = f"add them, or drop such predictions with {view.allow_unmatched}"
    return InputNotFound(
        f"{written['targets'].where}: no file {named(files)}, expected one for each match of "
        f"{written['predictions'].shown}; {remedy if any_left else 'mend the path or the dump'}"
    )


def _no_predictions(view: Viewpoint, written: Mapping[str, Written], files: Sequence[str]) -> InputError:
    return InputError(
        f"{written['targets'].where}: no prediction for {named(files)}, expected a match of "
        f"{written['predictions'].shown} for each; add them, or leave such targets out with "
        f"{view.allow_unmatched}"
    )


def named(files: Sequence[str]) -> str:
    """The first few by name, the others by their number."""
    more = len(files) - _LISTED
    return ", ".join(map(printable, files[:_LISTED])) + (f" and {more} more" if more > 0 else "")
