"""Zarr stores in a bucket and on a web server: the same numbers as in a directory, or one line."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Asked, ObjectServer, S3Server

from kldiv_cli.__main__ import main
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import DatasetError, FormatError, InputChanged, InputError, InputNotFound
from kldiv_cli.sources import AnyArray, Source, open_source
from kldiv_cli.sources.listing import list_arrays
from kldiv_cli.sources.requesters import answer_of

zarr = pytest.importorskip("zarr")
codecs = pytest.importorskip("zarr.codecs")

BlockCheck = Callable[..., None]
RandomArray = Callable[..., AnyArray]
Put = Callable[[Path], str]

LAYOUTS: dict[str, dict[str, Any]] = {
    "v2": {"zarr_format": 2, "chunks": (4, 5)},
    "v3": {"chunks": (4, 5), "compressors": codecs.ZstdCodec()},
    "sharded": {"chunks": (2, 4), "shards": (4, 8)},
}
PAIR = ("--log-softmax", "-1", "--json")


def numbers(shape: tuple[int, ...], seed: int = 3) -> AnyArray:
    return np.random.default_rng(seed).dirichlet(np.ones(shape[1]), shape[0])


@pytest.fixture
def to_bucket(bucket: Any, moto: S3Server) -> Put:
    """What puts a directory into the bucket, and returns its address there."""

    def put(top: Path) -> str:
        for old in bucket.client.list_objects(Bucket="dumps", Prefix=f"{top.name}/").get("Contents", ()):
            bucket.client.delete_object(Bucket="dumps", Key=old["Key"])
        for file in top.rglob("*"):
            if file.is_file():
                bucket(file.relative_to(top.parent).as_posix(), file.read_bytes())
        return f"s3://dumps/{top.name}"

    return put


@pytest.fixture
def to_web(web: ObjectServer) -> Put:
    """What puts a directory onto a server, and returns its address there."""

    def put(top: Path) -> str:
        for file in top.rglob("*"):
            if file.is_file():
                web.objects[f"/{file.relative_to(top.parent).as_posix()}"] = file.read_bytes()
        return f"{web.url}/{top.name}"

    return put


@pytest.fixture(params=["bucket", "web"])
def put(request: pytest.FixtureRequest) -> Put:
    found: Put = request.getfixturevalue(f"to_{request.param}")
    return found


def first_rows(source: Source, stop: int) -> AnyArray:
    return source.read((slice(0, stop), *(slice(0, n) for n in source.shape[1:])), Buffer())


def read_chunks(asked: list[Any]) -> set[str]:
    """The chunks that were asked for, by their keys in the store."""
    paths = (each.path.partition(".zarr/")[2] for each in asked if each.method == "GET")
    return {path for path in paths if path.startswith("c/")}


# What is read


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_of_any_layout_equal_numpys_slices(
    to_web: Put, tmp_path: Path, random_array: RandomArray, check_blocks: BlockCheck, layout: str
) -> None:
    array = random_array((11, 8))
    zarr.create_array(tmp_path / "a.zarr", data=array, **LAYOUTS[layout])
    check_blocks(open_source(to_web(tmp_path / "a.zarr")), array)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_command_gives_the_same_bits_as_for_a_directory(
    to_bucket: Put,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("q", 1), ("p", 2)):
        options = LAYOUTS[layout] | {
            "chunks": (600, 40),
            "shards": (1800, 40) if layout == "sharded" else None,
        }
        zarr.create_array(f"{name}.zarr", name="x", data=numbers((3400, 40), seed), **options)
        to_bucket(tmp_path / f"{name}.zarr")
    pair = ["q.zarr::/x[20:]", "p.zarr::/x[20:]"]
    assert main(["compute", *pair, *PAIR]) == 0
    local = capsys.readouterr().out
    assert main(["compute", *(f"s3://dumps/{each}" for each in pair), *PAIR, "--workers", "2"]) == 0
    assert capsys.readouterr().out.replace("s3://dumps/", "") == local


def test_requests_are_made_in_threads_that_are_gone_when_the_store_is_closed(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What obstore makes in its own threads holds objects of Python still when the result is there.
    monkeypatch.delattr("obstore.get_async")
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((9, 7)), chunks=(2, 3))
    url = put(tmp_path / "a.zarr")
    answer_of(int)  # starts the thread that makes single requests for the main one, and stays
    before = set(threading.enumerate())
    with contextlib.closing(open_source(url)) as source:
        assert (first_rows(source, 9) == 1).all()
        ours = [t for t in threading.enumerate() if t.name == "kldiv-request" and t not in before]
        assert ours
    for thread in ours:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as POSIX has them")
@pytest.mark.usefixtures("interruptible")
def test_of_a_read_that_is_interrupted_nothing_goes_on(
    to_web: Put, web: ObjectServer, tmp_path: Path
) -> None:
    """What Zarr does in a thread of its own would ask for the rest, though nobody waits for it."""
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((1000, 2)), chunks=(1, 2))
    chunks = itertools.count()

    def before(asked: Asked) -> None:
        if "/c/" in asked.path:
            if next(chunks) == 20:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.01)

    web.before = before
    url = to_web(tmp_path / "a.zarr")
    with pytest.raises(KeyboardInterrupt), contextlib.closing(open_source(url)) as source:
        first_rows(source, 1000)
    time.sleep(1.0)  # in which all others could have been asked for
    assert next(chunks) < 500


def test_a_read_that_is_interrupted_before_it_began_leaves_no_coroutine_behind(
    to_web: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((9, 7)))
    source = open_source(to_web(tmp_path / "a.zarr"))
    first_rows(source, 1)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kldiv_cli.sources.zarr_store.answer_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        first_rows(source, 9)
    gc.collect()
    assert not [str(warning.message) for warning in recwarn]


def test_only_the_chunks_of_a_part_are_read(to_bucket: Put, moto: S3Server, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=numbers((40, 6)), chunks=(4, 6))
    source = open_source(f"{to_bucket(tmp_path / 'a.zarr')}::[8:16]")
    first_rows(source, 8)
    source.verify()
    assert read_chunks(moto.asked) == {"c/2/0", "c/3/0"}


def test_of_a_shard_only_its_index_and_the_chunks_of_a_part_are_read(
    to_bucket: Put, moto: S3Server, tmp_path: Path
) -> None:
    zarr.create_array(
        tmp_path / "a.zarr", data=numbers((64, 1000)), chunks=(1, 1000), shards=(64, 1000), compressors=None
    )
    source = open_source(to_bucket(tmp_path / "a.zarr"))
    first_rows(source, 2)
    gets = [asked for asked in moto.asked if asked.path.endswith("c/0/0")]
    assert {asked.headers["range"].startswith("bytes=") for asked in gets} == {True}
    assert sum(asked.range_bytes or 0 for asked in gets) == 2 * 8000


def test_an_array_without_a_name_is_looked_for_in_a_bucket_as_in_a_directory(
    to_bucket: Put, tmp_path: Path
) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("deep/x", data=numbers((8, 4)), chunks=(4, 4))
    url = to_bucket(tmp_path / "g.zarr")
    assert open_source(url).shape == (8, 4)
    assert [stored.address for stored in list_arrays(url)] == [f"{url}::/deep/x"]
    with pytest.raises(DatasetError, match=rf"^{url}: no array 'y'; it has '/deep/x' \(8, 4\) float64$"):
        open_source(f"{url}::y")


def test_inspect_tells_of_a_store_as_of_a_directory(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    zarr.create_array("a.zarr", data=numbers((64, 4)), chunks=(16, 4))
    url = put(tmp_path / "a.zarr")
    assert main(["inspect", "a.zarr", "--json"]) == 0
    local = json.loads(capsys.readouterr().out)["arrays"]
    assert main(["inspect", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["arrays"]
    assert found[0].pop("address") == url
    if url.startswith("http"):
        assert found[0]["storage"].pop("stored_bytes") is None
        del local[0]["storage"]["stored_bytes"]
    assert found == [{name: value for name, value in local[0].items() if name != "address"}]


# What was never written


def test_chunks_left_out_in_a_bucket_are_zeros_or_refused_by_the_same_rule(
    to_bucket: Put, tmp_path: Path
) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="f4")
    array[0:4, 0:4] = 1
    with pytest.raises(FormatError, match=r"^s3://dumps/a\.zarr: 3 of 4 chunks never written"):
        open_source(to_bucket(tmp_path / "a.zarr"))
    array[4:8, 4:8] = 1
    source = open_source(to_bucket(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(first_rows(source, 8), array[:])


def test_a_chunk_that_is_not_on_a_server_which_lists_nothing_is_refused_when_it_is_met(
    to_web: Put, tmp_path: Path
) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 8), dtype="f4")
    array[0:4] = 1
    source = open_source(to_web(tmp_path / "a.zarr"))
    assert first_rows(source, 4).sum() == 32
    with pytest.raises(FormatError, match=r"/a\.zarr: 'c/1/0' is not on the server: never written, or left"):
        first_rows(source, 8)


def test_a_group_on_a_server_tells_its_arrays_by_its_consolidated_metadata(
    to_web: Put, tmp_path: Path
) -> None:
    group = zarr.create_group(tmp_path / "g.zarr", zarr_format=2)
    group.create_array("deep/x", data=numbers((8, 4)), chunks=(4, 4))
    url = to_web(tmp_path / "g.zarr")
    assert open_source(f"{url}::deep/x").shape == (8, 4)
    with pytest.raises(DatasetError, match="a group on a server that lists nothing"):
        open_source(url)
    zarr.consolidate_metadata(tmp_path / "g.zarr", zarr_format=2)
    url = to_web(tmp_path / "g.zarr")
    assert open_source(url).shape == (8, 4)


# What changes


@pytest.mark.parametrize("change", ["again", "gone", "added"])
def test_a_chunk_that_is_written_again_removed_or_added_is_a_change(
    bucket: Any, to_bucket: Put, tmp_path: Path, change: str
) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(4, 4), dtype="f4", fill_value=0)
    array[0:8, 0:4] = 1
    source = pickle.loads(pickle.dumps(open_source(to_bucket(tmp_path / "a.zarr"))))
    source.verify()
    if change == "gone":
        bucket.client.delete_object(Bucket="dumps", Key="a.zarr/c/1/0")
        source.close()
    else:
        bucket("a.zarr/c/1/0" if change == "again" else "a.zarr/c/1/1", b"another")
    with pytest.raises(InputChanged, match=r"^s3://dumps/a\.zarr: changed while it was read"):
        source.verify()


def test_metadata_written_again_on_a_server_are_a_change(
    web: ObjectServer, to_web: Put, tmp_path: Path
) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=numbers((8, 4)), chunks=(4, 4))
    source = open_source(to_web(tmp_path / "a.zarr"))
    source.verify()
    web.objects["/a.zarr/zarr.json"] += b" "
    with pytest.raises(InputChanged):
        source.verify()


# What goes wrong


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("s3://dumps/none.zarr", InputNotFound, "no Zarr array or group"),
        ("s3://nobucket/a.zarr", InputNotFound, r"no such object \(404 Not Found, NoSuchBucket\)"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    bucket: Any, address: str, kind: type[InputError], said: str
) -> None:
    with pytest.raises(kind, match=f"^{address}: {said}$"):
        open_source(address)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/404/a.zarr", "no Zarr array or group"),
        ("/403/a.zarr", "no access (403 Forbidden"),
        ("/500/a.zarr", "the server failed (500"),
    ],
)
def test_a_refusal_of_a_server_is_said_without_user_and_signature(
    web: ObjectServer, path: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "500" in path:
        monkeypatch.setattr("kldiv_cli.sources.stores._RETRIES", {"max_retries": 0})
    with pytest.raises(InputError) as raised:
        open_source(f"{web.url}{path}?signature=secret".replace("//", "//me:secret@"))
    assert str(raised.value).startswith(f"{web.url}{path}: {said}")
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert all(asked.path.endswith("?signature=secret") for asked in web.asked)
    assert all("authorization" in asked.headers for asked in web.asked)


def test_a_server_that_is_not_there_is_said_to_refuse_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kldiv_cli.sources.stores._RETRIES", {"max_retries": 0})
    with pytest.raises(InputError, match="can't be reached: connection refused"):
        open_source("http://127.0.0.1:9/a.zarr")


def test_a_shard_on_a_server_without_ranges_is_refused_in_one_line(
    web: ObjectServer, to_web: Put, tmp_path: Path
) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=numbers((8, 4)), chunks=(2, 4), shards=(8, 4))
    source = open_source(to_web(tmp_path / "a.zarr"))
    web.faults.add("no ranges")
    with pytest.raises(InputError, match="the server does not send parts of it"):
        first_rows(source, 2)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["obstore"], "the package obstore, there is none"),
        (["zarr", "obstore"], "3.1.3 or newer, there is none and by the package obstore, there is none"),
    ],
)
def test_both_extras_are_named_where_a_package_is_not_installed(missing: list[str], said: str) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
    code += "from kldiv_cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "compute", "gs://b/a.zarr", "gs://b/a.zarr"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.endswith("; pip install 'kldiv-cli[gs,zarr]'\n")
    assert done.stderr.count("\n") == 1


def test_a_store_in_a_directory_needs_no_obstore(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=numbers((8, 4)))
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    code = "import sys; sys.modules['obstore'] = None\n"
    code += "from kldiv_cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
    pair = [str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr"), "--log-softmax", "-1"]
    done = subprocess.run([sys.executable, "-c", code, "compute", *pair], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
