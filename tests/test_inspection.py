"""What is counted in stored arrays, whole and sampled, and what they are taken for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli import inspection as module
from kldiv_cli.blocks import Block
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import InputChanged
from kldiv_cli.inspection import Inspection, inspect_array, inspect_source
from kldiv_cli.likeness import Likeness, look, traits
from kldiv_cli.sources import AnyArray, ArraySource
from kldiv_cli.sources.listing import list_arrays

Floats = npt.NDArray[np.float64]


class Counting(ArraySource):
    """An array in memory that notes how much of it is read."""

    elements = 0

    def read(self, block: Block, buffer: Buffer) -> AnyArray:
        values = super().read(block, buffer)
        self.elements += values.size
        return values


def probabilities(shape: tuple[int, ...], axis: int, rng: np.random.Generator) -> Floats:
    z = np.exp(rng.normal(0, 2, shape))
    return np.asarray(z / z.sum(axis, keepdims=True))


def inspected(path: str, *, exact: bool = False) -> Inspection:
    (stored,) = list_arrays(path)
    return inspect_array(stored, exact=exact)


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes scaled down, so that arrays of a few thousand elements are sampled."""
    for name, size in {
        "SAMPLE": 4096,
        "_BLOCK": 1024,
        "_SAMPLED_BLOCK": 256,
        "_LARGEST_SAMPLED_BLOCK": 512,
        "_MOST_TO_UNPACK": 65536,
        "_LONGEST_LANES": 16384,
    }.items():
        monkeypatch.setattr(module, name, size)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "u1", "<i8", "?"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (30, 5, 4)], ids=str)
def test_all_of_a_small_array_is_counted(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, order: str, random_array: Any
) -> None:
    array = np.asarray(random_array(shape, dtype), order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "x.npy", array)
    found = inspected(str(tmp_path / "x.npy"))
    assert found.traits == traits(array)
    assert found.likeness == look(array)
    assert not found.sampled


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize(
    "storage", [{}, {"chunks": (8, 16, 5)}, {"chunks": (3, 2, 20), "compression": "lzf"}]
)
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.usefixtures("small_sample")
def test_the_axis_is_found_in_a_sample_and_in_all(
    tmp_path: Path,
    axis: int,
    logs: bool,
    storage: dict[str, Any],
    exact: bool,
    rng: np.random.Generator,
) -> None:
    p = probabilities((24, 32, 20), axis, rng)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.log(p) if logs else p, dtype="f4", **storage)
    found = inspected(str(tmp_path / "x.h5"), exact=exact)
    assert found.likeness == Likeness("log-probs" if logs else "probs", axis)
    assert found.sampled != exact
    assert found.traits is not None
    assert found.traits.size == p.size if exact else found.traits.size <= 4096


@pytest.mark.usefixtures("small_sample")
def test_a_sample_is_bounded_evenly_spread_and_the_same_every_time(rng: np.random.Generator) -> None:
    array = np.arange(1_000_000).reshape(1000, 1000)
    source = Counting(array)
    found, _ = inspect_source(source)
    assert source.elements == found.size <= 4096
    assert found.lowest == 0
    assert found.highest == 999_999
    assert inspect_source(Counting(array))[0] == found


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_read_to_find_the_axis_is_bounded_too(axis: int, rng: np.random.Generator) -> None:
    source = Counting(probabilities((3000, 2000), axis, rng))
    _, likeness = inspect_source(source)
    assert likeness == Likeness("probs", axis)
    assert source.elements < 4096 + 8 * 16384


@pytest.mark.usefixtures("small_sample")
def test_a_distribution_longer_than_a_sample_is_known_only_when_all_is_read(rng: np.random.Generator) -> None:
    p = probabilities((30_000,), 0, rng)
    assert inspect_source(ArraySource(p))[1] == Likeness("probs")
    assert inspect_source(ArraySource(p), exact=True)[1] == Likeness("probs", 0)


@pytest.mark.usefixtures("small_sample")
def test_exact_finds_the_one_value_that_a_sample_misses(rng: np.random.Generator) -> None:
    array = rng.random(100_000)
    array[77_777] = np.nan
    assert inspect_source(ArraySource(array))[0].nan == 0
    found, _ = inspect_source(ArraySource(array), exact=True)
    assert (found.nan, found.size) == (1, 100_000)


@pytest.mark.usefixtures("small_sample")
def test_one_distribution_that_is_not_normalised_shows_when_all_is_read(rng: np.random.Generator) -> None:
    p = probabilities((2000, 10), 1, rng)
    p[777] /= 2
    assert inspect_source(ArraySource(p))[1] == Likeness("probs", 1)
    assert inspect_source(ArraySource(p), exact=True)[1] == Likeness("probs")


def test_an_array_that_can_not_be_read_keeps_its_problem(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object))
    found = inspected(str(tmp_path / "x.npy"))
    assert "unpickling" in str(found.problem)
    assert (found.traits, found.likeness, found.sampled) == (None, None, False)


def test_what_breaks_while_it_is_read_is_a_problem_of_that_array(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.ones(100_000), y=np.ones(3))
    raw = bytearray(path.read_bytes())
    raw[400_000] ^= 1
    path.write_bytes(raw)
    x, y = (inspect_array(stored) for stored in list_arrays(str(path)))
    assert "wrong checksum" in str(x.problem)
    assert (y.problem, y.elements) == (None, 3)


def test_a_file_that_changes_between_listing_and_reading_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones(1000))

    def disturbed(values: AnyArray) -> Any:
        os.utime(path, ns=(1, 1))
        return traits(values)

    monkeypatch.setattr(module, "traits", disturbed)
    with pytest.raises(InputChanged):
        inspected(str(path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss in KiB")
@pytest.mark.parametrize("options", [[], ["--exact"]], ids=["sampled", "exact"])
@pytest.mark.parametrize("shape", [(200_000, 400), (80_000_000,), (400, 200_000)], ids=str)
def test_memory_stays_within_100_mib_of_importing_numpy(
    tmp_path: Path, options: list[str], shape: tuple[int, ...]
) -> None:
    with open(tmp_path / "x.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * int(np.prod(shape)))
    peak = "import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    ours = f"from kldiv_cli.__main__ import main; main(['inspect', 'x.npy', *{options!r}]); {peak}"

    def measured(code: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return int(done.stderr.split()[-1])

    assert measured(ours) - measured(f"import numpy; {peak}") < 100 << 10
