"""What must be as it was for a pair to be done already: its files, its settings and the programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import Any, NamedTuple

from kldiv_cli.batch_pair import BatchPair
from kldiv_cli.sources import parse_address
from kldiv_cli.sources.stamps import file_stamps
from kldiv_cli.sources.store_names import is_store
from kldiv_cli.spec import Spec
from kldiv_cli.urls import is_remote, shown

__all__ = ["InputStamp", "Stamps", "stamp_of"]


class InputStamp(NamedTuple):
    """One input: where it lies, and what tells it from what may lie there after a change."""

    address: str
    """With its dataset and selection."""
    size: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None
    """Of a remote file."""
    address_digest: str | None = None
    """A digest of what `address` doesn't show, where there is no ETag."""


def stamp_of(inputs: Mapping[str, InputStamp], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a finished pair to hold: its inputs by their role, and the settings.

    Settings are all that decides the numbers and the records, in values that JSON has, or nan and inf.

    >>> stamp_of({"targets": InputStamp("p.npy", 128, 5)}, {"axis": -1, "ignore_value": math.nan})
    {'inputs': {'targets': {'address': 'p.npy', 'size': 128, 'mtime_ns': 5}},
     'settings': {'axis': -1, 'ignore_value': 'nan'}}
    """
    return {
        "inputs": {
            role: {name: value for name, value in stamp._asdict().items() if value is not None}
            for role, stamp in inputs.items()
        },
        "settings": _without_nonfinite(dict(settings)),
    }


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nonfinite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Stamps:
    """How large the files of pairs are, and what tells them from the same files after a change."""

    def __init__(self, pairs: Iterable[BatchPair], version: str) -> None:
        """Look at every file; `version` is that of the programs, whose numbers may be others'."""
        self._version = version
        self._paths = {address: parse_address(address).path for pair in pairs for address in pair.inputs}
        # What can't be read has no stamp; the pair's result will tell of it.
        self._stamps = file_stamps(self._paths.values())
        self._uses = Counter(path for pair in pairs for path in {self._paths[a] for a in pair.inputs})

    def sized(self, pair: BatchPair) -> BatchPair:
        """The pair with how much is to be read for it: of a file that others read too, its share."""
        paths = {self._paths[address] for address in pair.inputs}
        sizes = ((self._stamps[path], self._uses[path]) for path in paths)
        return replace(pair, size=sum(stamp.size // uses for stamp, uses in sizes if stamp is not None))

    def are_known(self, pair: BatchPair) -> bool:
        """Whether all files of a pair can be told from changed ones; external ones are not looked at."""
        stamps = (self._stamps[self._paths[address]] for address in pair.inputs)
        return not pair.allow_external and all(stamp is not None and stamp.tells_changes for stamp in stamps)

    def after_reading(self, pair: BatchPair) -> dict[str, Any]:
        """The same as `of` where the files are as they were at first, else what that never is.

        Objects on servers are held to their ETags by whoever reads them. A Zarr store in a directory is
        looked at if it is of this pair alone, for that takes as long as it has files.
        """
        paths = {self._paths[address] for address in pair.inputs}
        looked_at = {path for path in paths if self._is_cheap(path)}
        stamps = file_stamps(looked_at)
        replaced = sorted(path for path in looked_at if stamps[path] != self._stamps[path])
        return {**self.of(pair), **({"replaced": replaced} if replaced else {})}

    def _is_cheap(self, path: str) -> bool:
        return not is_remote(path) and (self._uses[path] == 1 or not is_store(path))

    def of(self, pair: BatchPair) -> dict[str, Any]:
        """What must be the same for a finished pair to hold."""
        inputs = {role: self._of_input(address) for role, address in pair.roles.items()}
        return stamp_of(
            inputs, {"version": self._version, **_settings_of(pair.spec), **_settings_of_files(pair)}
        )

    def _of_input(self, address: str) -> InputStamp:
        stamp = self._stamps[self._paths[address]]
        return InputStamp(shown(address), *(() if stamp is None else stamp))


@cache
def _settings_of(spec: Spec) -> Mapping[str, Any]:
    return asdict(spec)


def _settings_of_files(pair: BatchPair) -> dict[str, Any]:
    outputs = pair.outputs._asdict()
    del outputs["force"]
    return {"allow_external": pair.allow_external, **outputs}
