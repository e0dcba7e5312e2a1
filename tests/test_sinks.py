from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.blocks import Block, Layout, cut
from kldiv_cli.errors import OutputError, UsageError
from kldiv_cli.sinks import MapSink, check_output, open_map

Array = npt.NDArray[Any]

SHAPES = [(), (0, 3), (1,), (50,), (13, 7), (5, 4, 6)]
ENDINGS = ["npy", "h5"]


def blocks_of(shape: tuple[int, ...], seed: int = 3) -> list[Block]:
    """Small blocks that cover `shape`, in no order; of any two dimensions one may be cut."""
    blocks = list(cut(Layout(shape=shape, axis=None), 9))
    random.Random(seed).shuffle(blocks)
    return blocks


def write_all(sink: MapSink, array: Array, workers: int = 1) -> None:
    def write(block: Block) -> None:
        sink.write(block, array[block])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(write, blocks_of(array.shape)))


def open_at(path: Path, shape: tuple[int, ...], dtype: Any = "f8") -> MapSink:
    place, dataset = check_output(str(path), [], force=True)
    return open_map(place, dataset, shape, np.dtype(dtype))


def load(path: Path, dataset: str = "map") -> Array:
    if path.suffix == ".npy":
        return np.asarray(np.load(path))
    with h5py.File(path) as file:
        return np.asarray(file[dataset][()])


@pytest.fixture(params=ENDINGS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"map.{request.param}"


@pytest.fixture
def sink(path: Path) -> Iterator[MapSink]:
    """A sink for a map of 5 by 4, over an old file."""
    path.write_bytes(b"the old output")
    sink = open_at(path, (5, 4))
    yield sink
    sink.discard()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_in_any_order_and_from_threads_give_the_file_that_numpy_saves(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...], dtype: str, workers: int
) -> None:
    array = np.asarray(rng.standard_normal(shape)).astype(dtype)
    sink = open_at(tmp_path / "map.npy", shape, dtype)
    write_all(sink, array, workers)
    sink.commit(force=True)
    np.save(tmp_path / "expected.npy", array)
    assert (tmp_path / "map.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_in_any_order_and_from_threads_give_the_dataset(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...], dtype: str, workers: int
) -> None:
    array = np.asarray(rng.standard_normal(shape)).astype(dtype)
    sink = open_at(tmp_path / "map.h5", shape, dtype)
    write_all(sink, array, workers)
    sink.commit(force=True)
    np.testing.assert_array_equal(load(tmp_path / "map.h5"), array, strict=True)


def test_values_are_written_in_the_dtype_of_the_sink(path: Path, rng: np.random.Generator) -> None:
    array = rng.standard_normal((5, 4))
    sink = open_at(path, (5, 4), "f4")
    write_all(sink, array)
    sink.commit(force=True)
    np.testing.assert_array_equal(load(path), array.astype("f4"), strict=True)


def test_blocks_that_are_not_contiguous_in_memory_are_written_right(
    path: Path, rng: np.random.Generator
) -> None:
    array = rng.standard_normal((6, 10))
    sink = open_at(path, (10, 3))
    for first in range(0, 10, 4):
        sink.write((slice(first, min(first + 4, 10)), slice(0, 3)), array[::2, first : first + 4].T)
    sink.commit(force=True)
    np.testing.assert_array_equal(load(path), array[::2].T)


def test_a_dataset_may_be_named_and_lie_in_groups(tmp_path: Path) -> None:
    place, dataset = check_output(f"{tmp_path / 'map.h5'}::/losses/kl", [], force=False)
    sink = open_map(place, dataset, (2,), np.dtype("f8"))
    sink.write((slice(0, 2),), np.array([1.0, 2.0]))
    sink.commit(force=True)
    np.testing.assert_array_equal(load(tmp_path / "map.h5", "losses/kl"), [1.0, 2.0])


def test_the_old_output_is_untouched_until_commit(path: Path, sink: MapSink) -> None:
    for block in blocks_of((5, 4)):
        sink.write(block, np.ones((5, 4))[block])
        assert path.read_bytes() == b"the old output"
    sink.commit(force=True)
    np.testing.assert_array_equal(load(path), np.ones((5, 4)))


def test_a_new_output_has_no_name_until_commit(path: Path) -> None:
    sink = open_at(path, (2,))
    sink.write((slice(0, 2),), np.zeros(2))
    assert not path.exists()
    sink.commit(force=True)
    assert path.exists()


def test_the_temporary_file_lies_beside_the_output_and_is_gone_after_commit(
    path: Path, sink: MapSink
) -> None:
    assert sink.temporary.parent == path.parent
    write_all(sink, np.ones((5, 4)))
    sink.commit(force=True)
    assert list(path.parent.iterdir()) == [path]


def test_a_discarded_sink_leaves_nothing_behind_but_the_old_output(path: Path, sink: MapSink) -> None:
    sink.write((slice(0, 2), slice(0, 4)), np.ones((2, 4)))
    sink.discard()
    sink.discard()
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == b"the old output"


def test_discarding_after_commit_keeps_the_output(path: Path, sink: MapSink) -> None:
    write_all(sink, np.ones((5, 4)))
    sink.commit(force=True)
    sink.discard()
    np.testing.assert_array_equal(load(path), np.ones((5, 4)))


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_permissions_of_the_old_output_are_kept(path: Path, sink: MapSink, mode: int) -> None:
    path.chmod(mode)
    write_all(sink, np.ones((5, 4)))
    sink.commit(force=True)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_new_output_has_the_permissions_that_the_umask_leaves(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        sink = open_at(path, (2,))
        sink.write((slice(0, 2),), np.zeros(2))
        sink.commit(force=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need a privilege here")
def test_a_symbolic_link_stays_one_and_its_target_is_replaced(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / path.name
    target.write_bytes(b"the old output")
    path.symlink_to(target)
    sink = open_at(path, (2,))
    sink.write((slice(0, 2),), np.ones(2))
    sink.commit(force=True)
    assert path.is_symlink()
    np.testing.assert_array_equal(load(target), [1.0, 1.0])


# Where a map may go


@pytest.mark.parametrize("ending", [".h5", ".hdf5", ".hdf", ".he5"])
def test_the_ending_says_the_format(tmp_path: Path, ending: str) -> None:
    place = tmp_path.resolve()
    assert check_output(f"{tmp_path}/m.npy", [], force=False) == (place / "m.npy", None)
    assert check_output(f"{tmp_path}/m{ending}", [], force=False) == (place / f"m{ending}", "map")
    assert check_output(f"{tmp_path}/m{ending}::/a/b", [], force=False) == (place / f"m{ending}", "a/b")


@pytest.mark.parametrize("name", ["map.txt", "map", "map.npz", "map.npy::/x", "npy", "", "map.csv::/x"])
def test_any_other_ending_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"expected a name like map\.npy or map\.h5::/name"):
        check_output(f"{tmp_path}/{name}", [], force=False)


def test_an_existing_file_needs_force(path: Path) -> None:
    path.touch()
    with pytest.raises(OutputError, match="exists; overwrite it with --force"):
        check_output(str(path), [], force=False)
    assert check_output(str(path), [], force=True)[0] == path.resolve()


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no directory"):
        check_output(str(tmp_path / "missing" / "map.npy"), [], force=True)


def test_a_directory_is_no_output(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OutputError, match="is a directory"):
        check_output(str(path), [], force=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
def test_a_fifo_is_no_output(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OutputError, match="is not a regular file"):
        check_output(str(path), [], force=True)


@pytest.mark.parametrize("dataset", [".", "..", "a/../b", "a//b", "", "nul\0"])
def test_an_odd_dataset_name_is_written_or_an_error_of_ours_that_leaves_nothing(
    tmp_path: Path, dataset: str
) -> None:
    try:
        place, name = check_output(f"{tmp_path / 'map.h5'}::/{dataset}", [], force=False)
        sink = open_map(place, name, (2,), np.dtype("f8"))
    except (OutputError, UsageError):
        assert list(tmp_path.iterdir()) == []
        return
    sink.write((slice(0, 2),), np.ones(2))
    sink.commit(force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["map.h5"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 64 KiB: what a full disk or a quota does, without one."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def write_ones(path: Path, length: int) -> None:
    sink = open_at(path, (length,))
    try:
        sink.write((slice(0, length),), np.ones(length))
        sink.commit(force=True)
    finally:
        sink.discard()


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("length", [7_000, 9_000, 1_000_000])
def test_an_output_that_does_not_fit_leaves_nothing_behind_but_the_old_one(path: Path, length: int) -> None:
    path.write_bytes(b"the old output")
    if length * 8 + 4096 < 1 << 16:
        write_ones(path, length)
        np.testing.assert_array_equal(load(path), np.ones(length))
    else:
        with pytest.raises(OutputError, match=rf"{path.name}: (?s:.*)File too large") as caught:
            write_ones(path, length)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == b"the old output"
    assert list(path.parent.iterdir()) == [path]


def test_without_force_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    sink = open_map(path, None, (2,), np.dtype("f8"))
    sink.write((slice(0, 2),), np.zeros(2))
    path.write_text("another's")
    with pytest.raises(OutputError, match="exists by now"):
        sink.commit(force=False)
    sink.discard()
    assert path.read_text() == "another's"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["m.h5::/a[0:3]", "m.h5::/a/../b", "m.h5::/./a"])
def test_a_dataset_name_that_no_address_reaches_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a dataset"):
        check_output(f"{tmp_path}/{name}", [], force=False)


def test_endings_are_known_in_any_case(tmp_path: Path) -> None:
    assert check_output(str(tmp_path / "M.NPY"), [], force=False)[1] is None
    assert check_output(str(tmp_path / "M.H5"), [], force=False)[1] == "map"
