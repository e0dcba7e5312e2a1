"""Many pairs from a bucket: what tells an object from another, a journal that holds, and processes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import FORMATS, npy
from servers import Asked, ObjectServer, S3Server

from kldiv_cli import placement
from kldiv_cli.__main__ import main
from kldiv_cli.errors import FormatError, InputNotFound
from kldiv_cli.sources.stamps import FileStamp, file_stamp, file_stamps

PAIRS = 10
OPTIONS = ("--log-softmax", "-1")


def numbers(seed: int, rows: int = 30) -> Any:
    return np.random.default_rng(seed).dirichlet(np.ones(20), rows).astype("f4")


# Stamps


def test_an_object_is_told_by_its_etag_in_one_small_request(bucket: Any, moto: S3Server) -> None:
    first = npy(numbers(1, 5000))
    url = bucket("a.npy", first)
    stamp = file_stamp(url)
    assert [asked.range_bytes for asked in moto.asked] == [1]
    assert stamp.size == len(first)
    bucket("a.npy", first)
    assert file_stamp(url) == stamp
    bucket("a.npy", npy(numbers(2, 5000)))
    assert file_stamp(url)._replace(etag=stamp.etag) == stamp
    assert file_stamp(url) != stamp


def test_without_an_etag_an_object_is_told_by_its_time(web: ObjectServer) -> None:
    web.faults.add("no etags")
    web.objects["/a.npy"] = b"123"
    assert file_stamp(f"{web.url}/a.npy") == FileStamp(3, 1_795_548_682 * 10**9)
    web.objects["/a.zarr/.zarray"] = b"{}"
    first = file_stamp(f"{web.url}/a.zarr")
    assert first.tells_changes
    web.date = "Tue, 24 Nov 2026 19:31:23 GMT"
    assert file_stamp(f"{web.url}/a.npy") == FileStamp(3, 1_795_548_683 * 10**9)
    assert file_stamp(f"{web.url}/a.zarr") != first


@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_without_an_etag_whole_addresses_are_told_apart_and_with_one_they_are_not(
    web: ObjectServer, name: str
) -> None:
    web.objects = {"/a.npy": b"123", "/a.zarr/.zarray": b"{}"}
    there = f"{web.url}/{name}"
    users = there.replace("://", "://me:secret@"), there.replace("://", "://you:secret@")
    addresses = (there, f"{there}?id=1", f"{there}?id=2", *users)
    assert len({file_stamp(address) for address in addresses}) == 1
    web.faults.add("no etags")
    assert len({file_stamp(address) for address in addresses}) == len(addresses)
    assert file_stamp(users[0]) == file_stamp(users[0].replace("secret", "renewed"))


@pytest.mark.parametrize("name", ["a.npy", "a.zarr"])
def test_an_object_with_neither_etag_nor_time_has_a_size_and_nothing_that_tells_changes(
    web: ObjectServer, name: str
) -> None:
    web.objects = {"/a.npy": b"123", "/a.zarr/.zarray": b"{}"}
    stamp = file_stamp(f"{web.url}/{name}")
    assert stamp.tells_changes
    web.faults |= {"no etags", "no dates"}
    bare = file_stamp(f"{web.url}/{name}?id=1")
    assert not bare.tells_changes
    assert bare.size == stamp.size


def test_what_can_be_no_input_has_no_stamp(bucket: Any, web: ObjectServer) -> None:
    empty = bucket("empty.npy", b"")
    with pytest.raises(FormatError, match="empty file"):
        file_stamp(empty)
    for url in ("s3://dumps/none.npy", f"{web.url}/none.npy", "s3://dumps/none.zarr", "s3://no/a.zarr"):
        with pytest.raises(InputNotFound):
            file_stamp(url)
    assert file_stamps(["s3://dumps/none.npy", empty, "s3:///x"]) == dict.fromkeys(
        ["s3://dumps/none.npy", empty, "s3:///x"]
    )


def test_a_store_in_a_bucket_is_told_by_one_listing(bucket: Any, moto: S3Server) -> None:
    bucket("stamped.zarr/zarr.json", b"{}")
    for name in ("0", "1"):
        bucket(f"stamped.zarr/c/{name}", b"123")
    stamp = file_stamp("s3://dumps/stamped.zarr")
    assert len(moto.asked) == 1
    assert stamp.size == 8
    bucket("stamped.zarr/c/1", b"456")
    assert file_stamp("s3://dumps/stamped.zarr") != stamp


def test_many_objects_are_asked_for_at_once(web: ObjectServer) -> None:
    web.objects = {f"/{k}.npy": b"123" for k in range(32)}
    lock, now, most = threading.Lock(), 0, 0

    def before(asked: Asked) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1

    web.before = before
    stamps = file_stamps(web.url + path for path in web.objects)
    assert {stamp and stamp.size for stamp in stamps.values()} == {3}
    assert 2 <= most <= 16


# A batch


def test_a_batch_from_a_bucket_goes_on_where_it_was_stopped(
    bucket: Any,
    moto: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["name,predictions,targets"]
    for k in range(PAIRS):
        pair = bucket(f"q{k}.npy", npy(numbers(k))), bucket(f"p{k}.npy", npy(numbers(100 + k)))
        rows.append(f"pair{k},{','.join(pair)}")
    Path("pairs.csv").write_text("\n".join(rows))
    command = ["batch", "pairs.csv", *OPTIONS, "--journal", "run.jsonl", "--json", "--workers", "1"]
    assert main(command) == 0, capsys.readouterr().err
    first = json.loads(capsys.readouterr().out)
    moto.asked.clear()
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert len(moto.asked) == 2 * PAIRS
    assert {asked.range_bytes for asked in moto.asked} == {1}
    bucket("p3.npy", npy(numbers(7)))
    assert main(command) == 0
    changed = json.loads(capsys.readouterr().out)
    read = {asked.path for asked in moto.asked if asked.range_bytes != 1}
    assert read == {"/dumps/q3.npy", "/dumps/p3.npy"}
    assert again["pairs"] == first["pairs"]
    assert [pair["pair"] for pair in changed["pairs"] if pair not in first["pairs"]] == ["pair3"]


def test_what_is_secret_in_an_address_is_in_no_result_and_no_journal(
    web: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    web.objects = {"/q.npy": npy(numbers(1)), "/p.npy": npy(numbers(2))}
    rows = [f"{web.url}/{q}.npy?sig=hush,{web.url}/p.npy?sig=hush" for q in ("q", "none")]
    Path("pairs.csv").write_text("\n".join(["predictions,targets", *rows]))
    outputs = ("--journal", "run.jsonl", "--results", "results.csv")
    assert main(["batch", "pairs.csv", *OPTIONS, *outputs, "--json", "--workers", "1"]) == 2
    said = capsys.readouterr()
    written = [Path(name).read_text() for name in ("run.jsonl", "results.csv")]
    assert f"{web.url}/q.npy" in written[0]
    assert not [text for text in (said.out, said.err, *written) if "hush" in text]


class Journaled(NamedTuple):
    """What a batch of one pair came to, and whether its journal had it."""

    distmean: float
    from_journal: int


@pytest.fixture
def run_one(
    web: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Journaled]:
    """Predictions of a server by their query against targets, with a journal."""
    monkeypatch.chdir(tmp_path)
    web.objects = {"/p": npy(numbers(9)), "/get?id=1": npy(numbers(1)), "/get?id=2": npy(numbers(2))}
    web.reads_query = True

    def run(query: str) -> Journaled:
        Path("pairs.csv").write_text(f"name,predictions,targets\nx,{web.url}/get?{query},{web.url}/p")
        command = ("batch", "pairs.csv", *OPTIONS, "--journal", "run.jsonl", "--format", "jsonl")
        assert main([*command, "--workers", "1"]) == 0
        pair, summary = map(json.loads, capsys.readouterr().out.splitlines())
        return Journaled(pair["distmean"], summary["summary"]["from_journal"])

    return run


def test_a_journal_tells_objects_without_etags_apart_by_their_query_and_does_not_show_it(
    web: ObjectServer, run_one: Callable[[str], Journaled]
) -> None:
    web.faults.add("no etags")
    first, second = run_one("id=1"), run_one("id=2")
    assert first.distmean != second.distmean
    assert second.from_journal == 0
    assert run_one("id=2") == second._replace(from_journal=1)
    assert "id=" not in Path("run.jsonl").read_text()


def test_a_journal_gives_back_nothing_of_what_has_neither_etag_nor_time(
    web: ObjectServer, run_one: Callable[[str], Journaled]
) -> None:
    web.faults |= {"no etags", "no dates"}
    first = run_one("id=1")
    web.objects["/get?id=1"] = web.objects["/get?id=2"]
    second = run_one("id=1")
    assert second.distmean != first.distmean
    assert second.from_journal == 0


# Processes


def test_large_chunked_datasets_are_read_by_processes_with_the_same_bits(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("q", 1), ("p", 2)):
        contents = FORMATS["chunked.h5"](numbers(seed, 15000))
        Path(f"{name}.h5").write_bytes(contents)
        bucket(f"{name}.h5", contents)
    assert main(["compute", "q.h5", "p.h5", *OPTIONS, "--json", "--workers", "1"]) == 0
    local = capsys.readouterr().out
    monkeypatch.setattr(placement, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(placement, "Threads", None)  # what would run on threads fails
    pair = ("s3://dumps/q.h5", "s3://dumps/p.h5")
    assert main(["compute", *pair, *OPTIONS, "--json", "--workers", "2"]) == 0
    assert capsys.readouterr().out.replace("s3://dumps/", "") == local
