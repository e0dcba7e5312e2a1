"""Dumps of small pairs, and pairs that misbehave where they are computed: what tests of batches share."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from kldiv_cli.batch_pair import BatchPair
from kldiv_cli.spec import Spec, resolve_spec

SPEC: Final = resolve_spec(log_softmax=-1)


def write_pair(directory: Path, name: str, *, rows: int = 6, classes: int = 5) -> None:
    """Logits ``q/NAME.npy`` and probabilities ``p/NAME.npy``, which depend on the name alone."""
    random = np.random.default_rng(list(name.encode()))
    p = random.dirichlet(np.ones(classes), rows)
    q = np.log(p) + random.normal(0, 0.1, p.shape)
    for part, array in (("q", q.astype(np.float32)), ("p", p)):
        (directory / part).mkdir(exist_ok=True)
        np.save(directory / part / f"{name}.npy", array)


def names_of(count: int) -> list[str]:
    return [f"{number:03}" for number in range(count)]


def write_dump(directory: Path, names: Sequence[str] | int, *, rows: int = 6) -> list[BatchPair]:
    """As many pairs, and what a batch computes of them."""
    names = names_of(names) if isinstance(names, int) else names
    for name in names:
        write_pair(directory, name, rows=rows)
    return [pair_in(directory, name) for name in names]


def pair_in(
    directory: Path, name: str, spec: Spec = SPEC, files: Mapping[str, str] | None = None, size: int = 0
) -> BatchPair:
    addresses = [str(directory / part / f"{name}.npy") for part in ("q", "p")]
    size = size or sum(os.path.getsize(address) for address in addresses if os.path.exists(address))
    return BatchPair(
        name=name,
        predictions=addresses[0],
        targets=addresses[1],
        spec=spec,
        files={} if files is None else files,
        size=size,
    )


def children_of(pid: int) -> set[int]:
    """The processes that one started and that still run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.add(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# Where a pair is computed


class Trap(Mapping[str, str]):
    """The files of a pair, none, which spring something on the worker that opens them."""

    def __init__(self, spring: Callable[[], object]) -> None:
        self._spring = spring

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __getitem__(self, key: str) -> str:
        raise KeyError(key)

    def keys(self):  # type: ignore[no-untyped-def]
        self._spring()
        return super().keys()


class TrappedSpec(Spec):
    """A spec that springs something on every process it is sent to."""

    __slots__ = ("spring",)

    def __reduce__(self) -> tuple[object, ...]:
        return _sprung, (self.spring,)  # type: ignore[attr-defined]


def trapped_spec(spring: Callable[[], object]) -> Spec:
    spec = TrappedSpec(log_softmax=-1, predictions_are="logits")
    object.__setattr__(spec, "spring", spring)
    return spec


def _sprung(spring: Callable[[], object]) -> Spec:
    spring()
    return SPEC


def dying(signal: int, marker: Path | None = None) -> Callable[[], None]:
    """Dies of a signal; where there is a marker to be set, only the first time."""
    return partial(_die, signal, marker)


def _die(signal: int, marker: Path | None) -> None:
    if marker is not None:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), signal)
    time.sleep(60)


def raising(error: BaseException) -> Callable[[], None]:
    return partial(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


def sleeping(seconds: float) -> Callable[[], None]:
    return partial(time.sleep, seconds)
