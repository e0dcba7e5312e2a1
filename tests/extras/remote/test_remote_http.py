"""Objects of web servers: good ones, and ones that are not."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Contents, deflated, hdf5, npy
from servers import Asked, ObjectServer

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import DatasetError, FormatError, InputChanged, InputError, InputNotFound, UsageError
from kldiv_cli.inspection import inspect_array
from kldiv_cli.sources import AnyArray, open_source
from kldiv_cli.sources.files import open_file
from kldiv_cli.sources.listing import list_arrays
from kldiv_cli.sources.remote import open_remote

BIG = np.arange(3 << 20, dtype="<f4").reshape(3072, 1024)
"""12 MiB."""


def whole(array: AnyArray) -> tuple[slice, ...]:
    return tuple(slice(0, length) for length in array.shape)


def test_every_format_reads_as_numpy_slices_it(
    web: ObjectServer,
    format: tuple[str, Contents],
    random_array: Callable[..., AnyArray],
    check_blocks: Callable[..., None],
) -> None:
    array = random_array((40, 30, 20))
    name, contents = format
    web.objects[f"/dumps/{name}"] = contents(array)
    check_blocks(open_source(f"{web.url}/dumps/{name}"), array)
    assert all(asked.range_bytes is not None for asked in web.asked)


def test_a_dataset_and_a_selection_are_named_as_in_a_file(web: ObjectServer) -> None:
    array = np.arange(60.0).reshape(6, 10)
    web.objects["/x.h5"] = hdf5(array)
    source = open_source(f"{web.url}/x.h5::/group/inner[2:4, 3]")
    np.testing.assert_array_equal(source.read(whole(array[2:4, 3]), Buffer()), array[2:4, 3])
    with pytest.raises(DatasetError, match=r"x\.h5: no dataset '/other'; it has '/group/inner'"):
        open_source(f"{web.url}/x.h5::/other")


def test_the_path_and_the_query_are_sent_as_they_are_written(web: ObjectServer) -> None:
    web.objects["/a b/x+y.npy"] = npy(np.ones(3))
    open_source(f"{web.url}/a%20b/x+y.npy?sig=1%2B2&v=3")
    assert {asked.path for asked in web.asked} == {"/a%20b/x+y.npy?sig=1%2B2&v=3"}


def test_user_and_password_are_sent_but_shown_nowhere(web: ObjectServer) -> None:
    web.objects["/x.npy"] = npy(np.ones(3))
    address = web.url.replace("://", "://me:p%40ss@")
    source = open_source(f"{address}/x.npy?sig=secret::[0:2]")
    assert web.asked[0].headers["authorization"] == "Basic bWU6cEBzcw=="
    assert source.address == f"{web.url}/x.npy::[0:2]"
    assert source.path == f"{web.url}/x.npy"
    with pytest.raises(InputNotFound) as raised:
        open_source(f"{address}/y.npy?sig=secret")
    assert str(raised.value) == f"{web.url}/y.npy: no such object (404 Not Found)"


def test_a_small_array_takes_one_request_to_open_and_read(web: ObjectServer) -> None:
    array = np.arange(100.0)
    web.objects["/x.npy"] = npy(array)
    source = open_source(f"{web.url}/x.npy")
    source.read(whole(array), Buffer())
    assert len(web.asked) == 1
    source.verify()
    assert [asked.range_bytes for asked in web.asked[1:]] == [1]


def test_a_large_read_is_several_ranges_at_once_and_each_byte_once(web: ObjectServer) -> None:
    web.objects["/x.npy"] = npy(BIG)
    source = open_source(f"{web.url}/x.npy")
    web.asked.clear()
    met = threading.Barrier(3)
    web.before = lambda asked: met.wait(10) and None
    np.testing.assert_array_equal(source.read(whole(BIG), Buffer()), BIG)
    assert sum(asked.range_bytes or 0 for asked in web.asked) == BIG.nbytes
    source.close()


def test_runs_that_lie_close_together_are_read_across(web: ObjectServer) -> None:
    web.objects["/x.npy"] = npy(BIG)
    source = open_source(f"{web.url}/x.npy")
    web.asked.clear()
    block = (slice(10, 1000), slice(100, 400))
    np.testing.assert_array_equal(source.read(block, Buffer()), BIG[block])
    assert len(web.asked) == 1


def test_runs_that_lie_far_apart_are_read_alone(web: ObjectServer) -> None:
    array = BIG.reshape(4, 768, 1024)
    web.objects["/x.npy"] = npy(array)
    source = open_source(f"{web.url}/x.npy")
    web.asked.clear()
    block = (slice(0, 4), slice(700, 702), slice(0, 1024))
    np.testing.assert_array_equal(source.read(block, Buffer()), array[block])
    assert [asked.range_bytes for asked in web.asked] == [8192] * 4


def test_threads_read_one_source_at_once(web: ObjectServer) -> None:
    web.objects["/x.npy"] = npy(BIG)
    source = open_source(f"{web.url}/x.npy")
    wrong: list[int] = []

    def read(number: int) -> None:
        block = (slice(number * 700, number * 700 + 600), slice(0, 1024))
        if not np.array_equal(source.read(block, Buffer()), BIG[block]):
            wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_pickled_file_reads_and_watches_the_object_that_was_opened(web: ObjectServer) -> None:
    web.objects["/x.npy"] = npy(BIG)
    file = pickle.loads(pickle.dumps(open_file(f"{web.url}/x.npy?sig=1")))
    assert file.read(100_000, 8) == npy(BIG)[100_000:100_008]
    file.verify()
    web.objects["/x.npy"] = npy(BIG + 1)
    with pytest.raises(InputChanged):
        file.verify()


def test_a_chunked_dataset_is_read_in_few_requests_and_hardly_more_bytes_than_it_has(
    web: ObjectServer, rng: np.random.Generator
) -> None:
    array = rng.standard_normal((1024, 1024))
    web.objects["/x.h5"] = contents = hdf5(array, chunks=(64, 64), compression="gzip")
    source = open_source(f"{web.url}/x.h5")
    web.asked.clear()
    for start in range(0, 1024, 64):
        block = (slice(start, start + 64), slice(0, 1024))
        np.testing.assert_array_equal(source.read(block, Buffer()), array[block])
    assert len(web.asked) < 12
    assert sum(asked.range_bytes or 0 for asked in web.asked) < 1.1 * len(contents) + (1 << 20)


def test_inspect_lists_an_object_and_opens_it_by_its_whole_address(web: ObjectServer) -> None:
    web.objects["/x.h5"] = hdf5(np.array([[0.25, 0.75]]))
    web.before = lambda asked: None if "sig=1" in asked.path else pytest.fail(asked.path)
    (stored,) = list_arrays(f"{web.url}/x.h5?sig=1")
    assert stored.address == f"{web.url}/x.h5::/group/inner"
    inspection = inspect_array(stored)
    assert inspection.problem is None
    assert inspection.likeness is not None
    assert inspection.likeness.space == "probs"


# What servers do


def test_an_object_that_is_gone_or_replaced_while_it_is_read_has_changed(web: ObjectServer) -> None:
    for faults in (set[str](), {"no etags"}, {"no dates"}, {"no etags", "no dates"}):
        for replacement in (npy(BIG[1:]), None, b""):
            web.faults = faults
            web.objects["/x.npy"] = npy(BIG)
            file = open_remote(f"{web.url}/x.npy")
            web.objects["/x.npy"] = replacement or b""
            if replacement is None:
                del web.objects["/x.npy"]
            with pytest.raises(InputChanged, match="changed while it was read"):
                file.read(8 << 20, 8)
            with pytest.raises(InputChanged, match="changed while it was read"):
                file.verify()


def test_a_change_between_two_ranges_of_a_computation_fails_it(web: ObjectServer) -> None:
    web.objects["/q.npy"] = npy(BIG)
    web.objects["/p.npy"] = npy(BIG)

    def change(asked: Asked) -> None:
        if asked.path == "/p.npy" and "bytes=0-" not in asked.headers["range"]:
            web.objects["/p.npy"] = npy(BIG + 1)

    web.before = change
    run = kldiv("compute", f"{web.url}/q.npy", f"{web.url}/p.npy", "--log-softmax", "-1")
    assert run.returncode == 2
    assert run.stderr.startswith(f"kldiv: error: {web.url}/p.npy: changed while it was read")


def test_a_server_without_ranges_is_refused_in_one_line(web: ObjectServer) -> None:
    web.faults.add("no ranges")
    web.objects["/x.npy"] = npy(BIG)
    with pytest.raises(InputError, match="does not send parts of it"):
        open_source(f"{web.url}/x.npy")


def test_a_server_that_fails_at_first_is_asked_again(web: ObjectServer) -> None:
    web.faults.add("fail 2")
    web.objects["/x.npy"] = npy(np.ones(3))
    assert open_source(f"{web.url}/x.npy").shape == (3,)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "/401?token=hidden",
            r"/401: no access \(401 Unauthorized, ExpiredToken\); check the address, or the signature",
        ),
        ("/403", r"/403: no access \(403 Forbidden, ExpiredToken\); check the address"),
        (
            "/400",
            r"/400: the server refused the request \(400 Bad Request, ExpiredToken\); check",
        ),
        ("/404", r"/404: no such object \(404 Not Found, ExpiredToken\)"),
    ],
)
def test_a_refusal_is_said_with_its_status(web: ObjectServer, path: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        open_source(web.url + path)
    assert "\n" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_an_empty_object_is_no_array(web: ObjectServer) -> None:
    web.objects["/x.npy"] = b""
    with pytest.raises(FormatError, match=r"empty file \(0 bytes\)"):
        open_source(f"{web.url}/x.npy")


def test_a_server_that_is_not_there_is_said_to_refuse_the_connection(
    monkeypatch: pytest.MonkeyPatch, web: ObjectServer
) -> None:
    monkeypatch.setattr("kldiv_cli.sources.stores._RETRIES", {"max_retries": 1})
    url = web.url
    web.server_close()
    with pytest.raises(InputError, match="can't be reached: connection refused; check the address"):
        open_source(f"{url}/x.npy?sig=secret")
    with pytest.raises(InputError, match="can't be reached: no such host"):
        open_source("http://nowhere.invalid/x.npy")


def test_what_an_object_in_hdf5_points_to_beside_it_is_not_followed(web: ObjectServer) -> None:
    import io

    contents = io.BytesIO()
    with h5py.File(contents, "w") as file:
        file["beside"] = h5py.ExternalLink("other.h5", "/x")
    web.objects["/x.h5"] = contents.getvalue()
    with pytest.raises(FormatError, match=r"a link into .other\.h5.; name that file, or copy all of them"):
        open_source(f"{web.url}/x.h5::/beside", allow_external=True)
    (stored,) = list_arrays(f"{web.url}/x.h5", allow_external=True)
    assert stored.problem == "a link into 'other.h5'; name that file, or copy all of them here"


def test_damaged_objects_are_format_errors(web: ObjectServer) -> None:
    for name, contents in (("x.h5", hdf5(BIG[:99])), ("x.npz", deflated(BIG[:99])), ("x.npy", npy(BIG[:99]))):
        web.objects[f"/{name}"] = contents[: len(contents) // 2]
        with pytest.raises(FormatError):
            open_source(f"{web.url}/{name}")


@pytest.mark.parametrize(
    "address",
    [
        "https:///x.npy",
        "http://?x",
        "http://h:99999/x.npy",
        "http://[::1/x.npy",
        "http://a b/x.npy",
        "s3://bucket",
        "s3:///key",
        "gs://b/",
    ],
)
def test_an_address_without_host_bucket_or_object_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        open_source(address)


def kldiv(*arguments: str) -> subprocess.CompletedProcess[Any]:
    return subprocess.run([sys.executable, "-m", "kldiv_cli", *arguments], capture_output=True, text=True)
