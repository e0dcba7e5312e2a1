"""Servers, once for all tests, and an environment that knows no other."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from servers import ObjectServer, S3Server, object_server, s3_server

from kldiv_cli.sources import AnyArray, stores

Contents = Callable[[AnyArray], bytes]


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    pytest.importorskip("moto")
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3_client(moto: S3Server) -> Any:
    """What tests put objects with; making one takes longer than most tests."""
    import boto3

    key = {"aws_access_key_id": "AKIAFROMTESTS", "aws_secret_access_key": "secret"}
    client = boto3.client("s3", endpoint_url=moto.url, region_name="us-east-1", **key)
    client.create_bucket(Bucket="dumps")
    return client


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No credentials, no profiles, no proxies, and no clouds."""
    pytest.importorskip("obstore")
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "GCE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_stores()
    yield
    forget_stores()


def forget_stores() -> None:
    stores._s3_store.cache_clear()
    stores._gcs_store.cache_clear()


@pytest.fixture
def web() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture
def bucket(moto: S3Server, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts an object into a bucket, and returns its address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def put(key: str, contents: bytes) -> str:
        s3_client.put_object(Bucket="dumps", Key=key, Body=contents)
        moto.asked.clear()
        return f"s3://dumps/{key}"

    put.client = s3_client  # type: ignore[attr-defined]
    return put


def npy(array: AnyArray) -> bytes:
    contents = io.BytesIO()
    np.save(contents, array)
    return contents.getvalue()


def npz(array: AnyArray) -> bytes:
    contents = io.BytesIO()
    np.savez(contents, inner=array)
    return contents.getvalue()


def deflated(array: AnyArray) -> bytes:
    contents = io.BytesIO()
    np.savez_compressed(contents, inner=array)
    return contents.getvalue()


def hdf5(array: AnyArray, **options: Any) -> bytes:
    contents = io.BytesIO()
    with h5py.File(contents, "w") as file:
        file.create_dataset("group/inner", data=array, **options)
    return contents.getvalue()


def chunked(array: AnyArray) -> bytes:
    return hdf5(array, chunks=tuple(max(1, n // 3) for n in array.shape), compression="gzip")


FORMATS: dict[str, Contents] = {
    "a.npy": npy,
    "fortran.npy": lambda array: npy(np.asfortranarray(array)),
    "stored.npz": npz,
    "deflated.npz": deflated,
    "contiguous.h5": hdf5,
    "chunked.h5": chunked,
}


@pytest.fixture(params=sorted(FORMATS))
def format(request: pytest.FixtureRequest) -> tuple[str, Contents]:
    """The name of a file, and what makes its contents."""
    return request.param, FORMATS[request.param]
