"""Zarr arrays read as the same numbers as .npy, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import pickle
import shutil
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kldiv_cli.__main__ import main
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import DatasetError, FormatError, InputChanged, InputError, InputNotFound
from kldiv_cli.sources import AnyArray, Source, open_source
from kldiv_cli.sources.listing import list_arrays

zarr = pytest.importorskip("zarr")
codecs = pytest.importorskip("zarr.codecs")
numcodecs = pytest.importorskip("numcodecs")
Blosc = numcodecs.Blosc

BlockCheck = Callable[..., None]
RandomArray = Callable[..., AnyArray]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have a Zarr V3 specification:zarr.errors.UnstableSpecificationWarning",
    "ignore:Numcodecs codecs are not in the Zarr version 3:UserWarning",
)

SHAPE = (11, 7, 9)
LAYOUTS: dict[str, dict[str, Any]] = {
    "v2": {"zarr_format": 2, "chunks": (4, 3, 5)},
    "v2 whole": {"zarr_format": 2, "chunks": SHAPE, "compressors": None},
    "v2 fortran": {"zarr_format": 2, "chunks": (4, 3, 5), "order": "F"},
    "v2 nested": {
        "zarr_format": 2,
        "chunks": (4, 3, 5),
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "v3": {"chunks": (4, 3, 5)},
    "v3 plain": {"chunks": (4, 3, 5), "compressors": None},
    "v3 gzip": {"chunks": (4, 7, 9), "compressors": codecs.GzipCodec()},
    "v3 zstd": {"chunks": (1, 7, 9), "compressors": codecs.ZstdCodec(level=3, checksum=True)},
    "v3 blosc": {"chunks": (4, 3, 5), "compressors": codecs.BloscCodec(cname="lz4")},
    "v3 checksums": {"chunks": (4, 3, 5), "compressors": codecs.Crc32cCodec()},
    "v3 beyond the shape": {"chunks": (100, 2, 9)},
    "v3 dots": {"chunks": (4, 3, 5), "chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 keys of v2": {"chunks": (4, 3, 5), "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v3 transposed": {"chunks": (4, 3, 5), "filters": codecs.TransposeCodec(order=(2, 0, 1))},
    "v3 big-endian": {"chunks": (4, 3, 5), "serializer": codecs.BytesCodec(endian="big")},
    "sharded": {"chunks": (2, 3, 5), "shards": (4, 6, 10)},
    "sharded and packed": {"chunks": (2, 7, 9), "shards": (4, 7, 9), "compressors": codecs.GzipCodec()},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, array: AnyArray, **layout: Any) -> None:
    zarr.create_array(name, data=array, **layout)


def read(source: Source) -> AnyArray:
    return source.read(tuple(slice(0, length) for length in source.shape), Buffer()).copy()


def replace_in(path: str, old: str, new: str) -> None:
    text = Path(path).read_text("utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new), "utf-8")


# What is read


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_of_any_layout_equal_numpys_slices(
    random_array: RandomArray, check_blocks: BlockCheck, layout: str
) -> None:
    array = random_array(SHAPE)
    write("a.zarr", array, **LAYOUTS[layout])
    check_blocks(open_source("a.zarr"), array)


@pytest.mark.parametrize(
    ("version", "dtype"), [(2, ">f8"), (2, "?"), (2, "<i2"), (3, "<f2"), (3, "u1"), (3, "<u8")]
)
def test_real_numbers_of_any_dtype_are_read(
    random_array: RandomArray, check_blocks: BlockCheck, version: int, dtype: str
) -> None:
    array = random_array(SHAPE, dtype)
    write("a.zarr", array, zarr_format=version, chunks=(4, 3, 5))
    check_blocks(open_source("a.zarr"), array.astype(zarr.open_array("a.zarr").dtype))


def test_filters_of_version_2_are_undone(random_array: RandomArray, check_blocks: BlockCheck) -> None:
    from numcodecs import Delta

    array = random_array((40,), "<i4")
    write("a.zarr", array, zarr_format=2, chunks=(8,), filters=[Delta("<i4")])
    check_blocks(open_source("a.zarr"), array)


@pytest.mark.parametrize("version", [2, 3])
def test_a_single_number_and_an_empty_array_are_arrays_too(version: int) -> None:
    write("one.zarr", np.array(3.5), zarr_format=version)
    write("none.zarr", np.zeros((0, 4)), zarr_format=version, chunks=(2, 2))
    assert read(open_source("one.zarr")) == 3.5
    assert read(open_source("none.zarr")).shape == (0, 4)


def test_a_part_of_an_array_is_read(random_array: RandomArray, check_blocks: BlockCheck) -> None:
    array = random_array(SHAPE)
    write("a.zarr", array, chunks=(4, 3, 5))
    check_blocks(open_source("a.zarr::[3:10, 2, :-1]"), array[3:10, 2, :-1])


def test_a_zip_archive_of_a_store_is_read(random_array: RandomArray, check_blocks: BlockCheck) -> None:
    array = random_array(SHAPE)
    with zarr.storage.ZipStore("a.zip", mode="w") as store:
        zarr.create_group(store).create_array("x/y", data=array, chunks=(4, 3, 5))
    check_blocks(open_source("a.zip"), array)
    check_blocks(open_source("a.zip::x/y"), array)


def test_links_in_a_store_are_read_as_what_they_lead_to(random_array: RandomArray) -> None:
    array = random_array((8, 4))
    write("a.zarr", array, chunks=(4, 4))
    Path("a.zarr/c").rename("elsewhere")
    Path("a.zarr/c").symlink_to(Path("elsewhere").resolve(), target_is_directory=True)
    source = open_source("a.zarr")
    np.testing.assert_array_equal(read(source), array)
    Path("elsewhere/0/0").touch()
    with pytest.raises(InputChanged, match="changed while it was read"):
        source.verify()


def test_threads_read_side_by_side_what_one_would(random_array: RandomArray) -> None:
    array = random_array((64, 32))
    write("a.zarr", array, chunks=(7, 5))
    source = open_source("a.zarr")
    buffers = threading.local()

    def total(start: int) -> bool:
        buffers.mine = buffer = getattr(buffers, "mine", None) or Buffer()
        block = slice(start, start + 3), slice(1, 31)
        return bool((source.read(block, buffer) == array[block]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(total, list(range(61)) * 4))


def test_a_loop_that_runs_already_as_in_a_notebook_is_no_hindrance(random_array: RandomArray) -> None:
    array = random_array((8, 4))
    write("a.zarr", array)

    async def cell() -> AnyArray:
        return read(open_source("a.zarr"))

    np.testing.assert_array_equal(asyncio.run(cell()), array)


def test_a_chunk_that_blocks_share_is_unpacked_once(
    random_array: RandomArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = random_array((12, 6))
    write("a.zarr", array, chunks=(12, 3))
    source: Any = open_source("a.zarr")
    fetched: list[object] = []
    fetch = source._fetch
    monkeypatch.setattr(source, "_fetch", lambda block: fetched.append(block) or fetch(block))
    for row in range(12):
        np.testing.assert_array_equal(
            source.read((slice(row, row + 1), slice(0, 6)), Buffer())[0], array[row]
        )
    assert len(fetched) == 2


# Which array is meant


def test_the_only_numeric_array_of_a_group_needs_no_name(random_array: RandomArray) -> None:
    group = zarr.create_group("g.zarr")
    group.create_array("deep/er/x", data=random_array((3, 2)))
    group.create_array("text", shape=(3,), dtype="S4")
    assert open_source("g.zarr").shape == (3, 2)


def test_an_array_that_is_not_named_is_chosen_by_the_user_from_a_list(random_array: RandomArray) -> None:
    group = zarr.create_group("g.zarr", zarr_format=2)
    group.create_array("x", data=random_array((3, 2)))
    group.create_array("sub/y", data=random_array((5,), "u1"))
    expected = (
        r"^g\.zarr: 2 arrays it could be; it has '/sub/y' \(5,\) uint8, '/x' \(3, 2\) float32; "
        r"name one as g\.zarr::/sub/y$"
    )
    with pytest.raises(DatasetError, match=expected):
        open_source("g.zarr")
    with pytest.raises(DatasetError, match=r"no array 'z'; it has '/sub/y'"):
        open_source("g.zarr::z")
    with pytest.raises(DatasetError, match=r"'/sub' is a group, expected an array; it has"):
        open_source("g.zarr::/sub")
    assert open_source("g.zarr::/sub/y").dtype == np.uint8
    zarr.create_group("empty.zarr")
    with pytest.raises(DatasetError, match=r"no numeric array; it has no arrays"):
        open_source("empty.zarr")


def test_a_directory_that_is_no_store_is_a_directory() -> None:
    Path("d.zarr").mkdir()
    with pytest.raises(InputError, match=r"^d\.zarr: a directory, expected a regular file$"):
        open_source("d.zarr")
    with pytest.raises(InputNotFound, match="no such file"):
        open_source("missing.zarr")


def test_groups_that_are_links_to_themselves_end() -> None:
    zarr.create_group("g.zarr")
    Path("g.zarr/again").symlink_to(Path("g.zarr").resolve(), target_is_directory=True)
    with pytest.raises(InputError, match=r"groups more than 32 deep|Too many levels"):
        open_source("g.zarr")


# What was never written


def sparse(name: str, written: list[tuple[int, int]], **layout: Any) -> None:
    """A 3 by 2 grid of chunks of 2 by 2, of which some are written."""
    array = zarr.create_array(name, shape=(6, 4), dtype="f4", chunks=(2, 2), **layout)
    for i, j in written:
        array[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = 1


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_left_out_beside_others_of_their_row_are_zeros(version: int) -> None:
    sparse("a.zarr", [(0, 0), (1, 1), (2, 0)], zarr_format=version)
    expected = np.kron([[1, 0], [0, 1], [1, 0]], np.ones((2, 2), "f4"))
    np.testing.assert_array_equal(read(open_source("a.zarr")), expected)
    (listed,) = list_arrays("a.zarr")
    assert listed.problem is None
    assert listed.storage is not None
    assert listed.storage.kind == "sparse"


@pytest.mark.parametrize(
    ("written", "layout", "problem"),
    [
        ([], {}, r"6 of 6 chunks never written, Zarr would read them as 0\.0"),
        ([(0, 0), (0, 1), (1, 0)], {}, r"3 of 6 chunks never written, Zarr would read them as 0\.0"),
        ([(0, 0), (1, 1), (2, 0)], {"fill_value": 7}, r"3 of 6 chunks never written, .* as 7\.0"),
        ([(0, 0), (1, 1), (2, 0)], {"fill_value": np.nan}, r"3 of 6 chunks never written, .* as nan"),
        ([(0, 0)], {"zarr_format": 2}, r"5 of 6 chunks never written, .* as 0\.0"),
    ],
    ids=str,
)
def test_an_array_that_was_not_written_whole_is_refused(
    written: list[tuple[int, int]], layout: dict[str, Any], problem: str
) -> None:
    sparse("a.zarr", written, **layout)
    with pytest.raises(FormatError, match=rf"^a\.zarr: {problem}; write the array whole"):
        open_source("a.zarr")
    (listed,) = list_arrays("a.zarr")
    assert listed.problem is not None
    assert "never written" in listed.problem


def test_a_fill_value_of_null_stands_for_nothing() -> None:
    sparse("a.zarr", [(0, 0), (1, 1), (2, 0)], zarr_format=2)
    metadata = json.loads(Path("a.zarr/.zarray").read_text("utf-8"))
    Path("a.zarr/.zarray").write_text(json.dumps({**metadata, "fill_value": None}), "utf-8")
    with pytest.raises(FormatError, match="3 of 6 chunks never written, Zarr would read them as anything"):
        open_source("a.zarr")


def test_shards_are_counted_where_there_are_some() -> None:
    array = zarr.create_array("a.zarr", shape=(8, 2), dtype="f4", chunks=(1, 2), shards=(4, 2))
    array[:4] = 1
    with pytest.raises(FormatError, match="1 of 2 shards never written"):
        open_source("a.zarr")


def test_zeros_that_were_written_are_no_gap() -> None:
    write("a.zarr", np.zeros((6, 4)), chunks=(2, 2), config={"write_empty_chunks": True})
    assert not read(open_source("a.zarr")).any()


def test_chunks_outside_of_a_shape_that_shrank_do_not_count() -> None:
    sparse("a.zarr", [(0, 0), (0, 1), (2, 0), (2, 1)])
    replace_in("a.zarr/zarr.json", '"shape": [\n    6,', '"shape": [\n    4,')
    with pytest.raises(FormatError, match="2 of 4 chunks never written"):
        open_source("a.zarr")


# What can't be read


@pytest.mark.parametrize("dtype", ["c8", "S4", [("a", "f4"), ("b", "i4")]], ids=str)
@pytest.mark.parametrize("version", [2, 3])
def test_what_are_not_real_numbers_is_refused_and_listed(version: int, dtype: Any) -> None:
    array = np.zeros(3, dtype)
    write("a.zarr", array, zarr_format=version)
    with pytest.raises(FormatError, match=r"^a\.zarr: (dtype|structured dtype) .*expected"):
        open_source("a.zarr")
    (listed,) = list_arrays("a.zarr")
    assert listed.problem is not None
    assert "expected" in listed.problem


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("zarr.json", '"zarr_format": 3', '"zarr_format": 9'),
        ("zarr.json", '"node_type": "array"', '"node_type": "arr'),
        ("zarr.json", "float32", "bfloat16"),
        ("zarr.json", '"zstd"', '"no-such-codec"'),
        ("zarr.json", "8,\n    4", "-8,\n    4"),
        ("zarr.json", "8,\n    4", "8e99,\n    4"),
        ("zarr.json", "8,\n    4", "9223372036854775807,\n    4"),
    ],
)
def test_damaged_metadata_are_one_line(name: str, old: str, new: str) -> None:
    write("a.zarr", np.ones((8, 4), "f4"), chunks=(4, 2))
    replace_in(f"a.zarr/{name}", old, new)
    with pytest.raises(FormatError, match=r"^a\.zarr: damaged .*Zarr metadata: [^\n]+$"):
        open_source("a.zarr")
    with pytest.raises(FormatError, match="Zarr metadata"):
        list(list_arrays("a.zarr"))


def test_metadata_of_an_absurd_size_are_not_read() -> None:
    write("a.zarr", np.ones((8, 4), "f4"))
    with open("a.zarr/zarr.json", "a", encoding="utf-8") as file:
        file.write(" " * (17 << 20))
    with pytest.raises(FormatError, match=r"'zarr\.json' has more than 16777216 bytes"):
        open_source("a.zarr")


def test_one_damaged_array_of_a_group_leaves_the_others_to_be_named(random_array: RandomArray) -> None:
    group = zarr.create_group("g.zarr")
    group.create_array("x", data=random_array((3, 2)))
    group.create_array("y", data=random_array((3, 2)))
    Path("g.zarr/y/zarr.json").write_text("{", "utf-8")
    with pytest.raises(FormatError, match=r"^g\.zarr::/y: damaged .*; name the array that is meant"):
        open_source("g.zarr")
    assert open_source("g.zarr::x").shape == (3, 2)
    listed = {stored.address: stored.problem for stored in list_arrays("g.zarr")}
    assert listed["g.zarr::/x"] is None
    assert listed["g.zarr::/y"]
    assert listed["g.zarr::/y"].startswith("damaged or unreadable Zarr metadata")


@pytest.mark.parametrize(
    ("compressor", "version"),
    [
        (codecs.ZstdCodec(), 3),
        (codecs.GzipCodec(), 3),
        (codecs.BloscCodec(), 3),
        (codecs.Crc32cCodec(), 3),
        (None, 3),
        (Blosc(), 2),
        (numcodecs.LZMA(), 2),
    ],
    # The text of some is another in every process.
    ids=["zstd", "gzip", "blosc", "crc32c", "none", "blosc of version 2", "lzma of version 2"],
)
def test_a_damaged_chunk_is_one_line_that_names_the_array(
    random_array: RandomArray, compressor: object, version: int
) -> None:
    write("a.zarr", random_array((8, 4)), chunks=(4, 4), compressors=compressor, zarr_format=version)
    chunk = Path("a.zarr/c/1/0" if version == 3 else "a.zarr/1.0")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    source = open_source("a.zarr")
    with pytest.raises(InputError, match=r"^a\.zarr: a chunk can't be read: [^\n]+; write the array again$"):
        read(source)


@pytest.fixture
def write_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], bytes]], None]:
    """What writes ``a.zarr`` with a codec that unpacks a chunk by a function."""

    def write_it(unpack: Callable[[bytes], bytes]) -> None:
        class Ours(numcodecs.abc.Codec):  # type: ignore[misc, name-defined]
            codec_id = "ours"

            def encode(self, buf: Any) -> bytes:
                return bytes(buf)

            def decode(self, buf: Any, out: Any = None) -> bytes:
                return unpack(bytes(buf))

        monkeypatch.setitem(numcodecs.registry.codec_registry, "ours", Ours)
        write("a.zarr", np.ones((8, 4)), chunks=(4, 4), compressors=Ours(), zarr_format=2)

    return write_it


def test_out_of_memory_while_a_chunk_is_unpacked_is_no_damage(
    write_with: Callable[[Callable[[bytes], bytes]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write_with(lambda packed: np.zeros(1 << 62, "u1").tobytes())
    with pytest.raises(MemoryError):
        read(open_source("a.zarr"))
    assert main(["compute", "a.zarr", "a.zarr", "--log-softmax", "-1", "--workers", "1"]) == 2
    assert capsys.readouterr().err.startswith("kldiv: error: out of memory; give --memory")


def test_metadata_that_describe_more_than_memory_holds_are_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.zarr", np.ones((8, 4)))

    async def refuse(**_: Any) -> None:
        # So ends a fill value of two billion bytes, where there is no room for it.
        raise MemoryError

    monkeypatch.setattr("zarr.api.asynchronous.open", refuse)
    with pytest.raises(FormatError, match=r"^a\.zarr: damaged .* metadata: what they describe needs"):
        open_source("a.zarr")


def test_a_package_that_a_codec_needs_is_named(
    write_with: Callable[[Callable[[bytes], bytes]], None],
) -> None:
    def unpack(packed: bytes) -> bytes:
        import no_such_package

        return no_such_package.unpack(packed)  # type: ignore[no-any-return]

    write_with(unpack)
    said = "needs the package no_such_package, which can't be imported; pip install no_such_package"
    with pytest.raises(InputError, match=rf"^a\.zarr: a chunk can't be read: {said}$"):
        read(open_source("a.zarr"))


@pytest.mark.skipif(importlib.util.find_spec("pcodec") is not None, reason="needs a codec to be missing")
def test_a_codec_that_is_not_installed_is_named_with_what_installs_it() -> None:
    remedy = r"the codec 'pcodec' is not installed; install it with pip install 'numcodecs\[pcodec\]'"
    write("a.zarr", np.ones((8, 4)), compressors=Blosc(), zarr_format=2)
    replace_in("a.zarr/.zarray", '"blosc"', '"pcodec"')
    with pytest.raises(FormatError, match=rf"^a\.zarr: damaged or unreadable Zarr metadata: {remedy}, or"):
        open_source("a.zarr")
    write("b.zarr", np.ones((8, 4)), compressors=None)
    document = json.loads(Path("b.zarr/zarr.json").read_text("utf-8"))
    document["codecs"] = [{"name": "numcodecs.pcodec", "configuration": {}}]
    Path("b.zarr/zarr.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(
        InputError, match=rf"^b\.zarr: a chunk can't be read: {remedy}, or store it with zstd$"
    ):
        read(open_source("b.zarr"))


# What changes meanwhile


def test_a_chunk_that_is_written_again_removed_or_added_is_a_change(random_array: RandomArray) -> None:
    array = random_array((8, 4))

    def removed() -> None:
        Path("a.zarr/c/1/0").unlink()

    def written() -> None:
        chunk = Path("a.zarr/c/1/0")
        chunk.write_bytes(chunk.read_bytes())
        os.utime(chunk, ns=(1, 1))

    def redefined() -> None:
        write("a.zarr", array[:4], overwrite=True)

    def gone() -> None:
        shutil.rmtree("a.zarr")

    for change in (removed, written, redefined, gone):
        write("a.zarr", array, chunks=(4, 4), overwrite=True)
        source = open_source("a.zarr")
        copy = pickle.loads(pickle.dumps(source))
        Path("a.zarr/notes.txt").touch()
        source.verify()
        change()
        for watched in (source, copy):
            with pytest.raises(InputChanged, match=r"^a\.zarr: changed while it was read"):
                watched.verify()


def test_an_archive_that_is_written_again_is_a_change(random_array: RandomArray) -> None:
    for round_ in range(2):
        with zarr.storage.ZipStore("a.zip", mode="w") as store:
            zarr.create_array(store, data=random_array((8, 4)))
        if not round_:
            source = open_source("a.zip")
    with pytest.raises(InputChanged, match="changed while it was read"):
        source.verify()


@pytest.fixture(params=["a.zarr", "a.zarr.zip"])
def sent(request: pytest.FixtureRequest, here: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes]:
    """A store of ones, and its array as a worker in another directory gets it."""
    write_group(request.param, 1)
    contents = pickle.dumps(open_source(f"{request.param}::x"))
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    return here / request.param, contents


def write_group(path: str, number: float) -> None:
    zipped = path.endswith(".zip")
    with contextlib.closing(
        zarr.storage.ZipStore(path, mode="w") if zipped else zarr.storage.LocalStore(path)
    ) as store:
        group = zarr.create_group(store)
        group.create_array("x", data=np.full((6, 4), number), chunks=(3, 4))


def test_a_store_is_found_from_another_working_directory(sent: tuple[Path, bytes]) -> None:
    with contextlib.closing(pickle.loads(sent[1])) as source:
        assert (read(source) == 1).all()


def test_another_store_in_the_place_of_one_that_was_sent_is_refused(sent: tuple[Path, bytes]) -> None:
    path, contents = sent
    path.rename(path.with_name("before"))
    with pytest.raises(
        InputNotFound, match=r"a\.zarr.*::x: a worker on \S+ can't see /.*a\.zarr.* \(No such file"
    ):
        read(pickle.loads(contents))
    write_group(str(path), 2)
    for look in (read, lambda source: source.check_arrival()):
        with pytest.raises(
            InputChanged, match=r"::x: a worker on \S+ sees another store at /.*share its file system"
        ):
            look(pickle.loads(contents))


def test_a_copy_of_a_store_that_kept_its_times_is_the_same(sent: tuple[Path, bytes]) -> None:
    path, contents = sent
    (shutil.copytree if path.is_dir() else shutil.copy2)(path, path.with_name("copy"))
    path.rename(path.with_name("before"))
    path.with_name("copy").rename(path)
    with contextlib.closing(pickle.loads(contents)) as source:
        assert (read(source) == 1).all()


def test_a_damaged_archive_is_one_line(random_array: RandomArray) -> None:
    with zarr.storage.ZipStore("a.zip", mode="w") as store:
        zarr.create_array(store, data=random_array((64, 4)), compressors=None)
    with zipfile.ZipFile("a.zip") as archive:
        start = archive.getinfo("c/0/0").header_offset
    contents = bytearray(Path("a.zip").read_bytes())
    contents[start + 300] ^= 1
    Path("a.zip").write_bytes(contents)
    with pytest.raises(InputError, match=r"^a\.zip: a chunk can't be read: Bad CRC-32"):
        read(open_source("a.zip"))


# The commands


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[AnyArray, AnyArray]:
    q, p = rng.normal(0, 2, (300, 40)).astype("f4"), rng.dirichlet(np.ones(40), 300).astype("f4")
    np.save("q.npy", q)
    np.save("p.npy", p)
    return q, p


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize(
    "layout",
    [
        {"zarr_format": 2, "chunks": (64, 16)},
        {"chunks": (64, 40), "compressors": codecs.GzipCodec()},
        {"chunks": (32, 20), "shards": (64, 40)},
    ],
    ids=str,
)
def test_no_bit_of_a_result_depends_on_the_format(
    pair: tuple[AnyArray, AnyArray], capsys: pytest.CaptureFixture[str], layout: dict[str, Any], axis: int
) -> None:
    group = zarr.create_group("g.zarr", zarr_format=layout.get("zarr_format", 3))
    layout = {key: value for key, value in layout.items() if key != "zarr_format"}
    for name, array in zip("qp", pair, strict=True):
        group.create_array(name, data=array, **layout)
    found = []
    options = ["--log-softmax", str(axis), "--workers", "2", "--json"]
    for part in ("", "[7:211]"):
        for inputs in (["q.npy", "p.npy"], ["g.zarr::q", "g.zarr::p"]):
            addresses = [
                f"{name}::{part}" if part and "::" not in name else f"{name}{part}" for name in inputs
            ]
            assert main(["compute", *addresses, *options]) == 0
            result = json.loads(capsys.readouterr().out)
            found.append({k: result[k] for k in ("sum", "mean", "batchmean", "distmean", "statistics")})
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[0] != found[2]


def test_the_list_of_arrays_says_how_each_is_stored(
    pair: tuple[AnyArray, AnyArray], capsys: pytest.CaptureFixture[str]
) -> None:
    group = zarr.create_group("g.zarr")
    group.create_array("q", data=pair[0], chunks=(16, 8), shards=(64, 40))
    group.create_array("p", data=pair[1], chunks=(64, 40), compressors=codecs.GzipCodec(level=6))
    write("v2.zarr", pair[0], zarr_format=2, chunks=(300, 40), order="F", compressors=None)
    assert main(["inspect", "g.zarr", "v2.zarr", "--json"]) == 0
    arrays = json.loads(capsys.readouterr().out)["arrays"]
    p, q, old = (array["storage"] for array in arrays)
    assert [array["address"] for array in arrays] == ["g.zarr::/p", "g.zarr::/q", "v2.zarr"]
    assert (p["kind"], p["chunks"], p["compression"]) == ("chunked", [64, 40], "gzip 6")
    assert (q["kind"], q["chunks"], q["bytes"]) == ("sharded", [16, 8], 48000)
    assert (old["order"], old["stored_bytes"], old["compression"]) == ("F", 48000, None)
    assert main(["inspect", "g.zarr::/q[0:10]"]) == 0
    assert "(10, 40)" in capsys.readouterr().out


def test_a_name_that_ends_in_brackets_is_listed_as_it_can_be_opened() -> None:
    zarr.create_group("g.zarr").create_array("a[0]", data=np.ones((2, 3)))
    (listed,) = list_arrays("g.zarr")
    assert read(open_source(listed.address)).shape == (2, 3)
