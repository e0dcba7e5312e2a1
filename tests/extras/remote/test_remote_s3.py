"""S3 as moto speaks it: reads that are no more than they need be, credentials, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Contents, forget_stores, hdf5, npy, npz
from servers import ObjectServer, S3Server

from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import InputChanged, InputError, InputNotFound, UsageError
from kldiv_cli.sources import AnyArray, open_source

LOGITS = np.random.default_rng(7).standard_normal((600, 50)).astype("f4")
PROBS = np.random.default_rng(8).dirichlet(np.ones(50), 600)
CREDENTIALS = "Credential="


def kldiv(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kldiv_cli", *arguments], capture_output=True, text=True)


def test_every_format_reads_as_numpy_slices_it(
    bucket: Any,
    format: tuple[str, Contents],
    random_array: Callable[..., AnyArray],
    check_blocks: Callable[..., None],
) -> None:
    array = random_array((12, 10, 8))
    name, contents = format
    check_blocks(open_source(bucket(f"a dir/{name}", contents(array))), array)


def test_a_large_array_is_read_without_more_than_a_tenth_above_its_bytes(bucket: Any, moto: S3Server) -> None:
    array = np.zeros((4096, 1024), "<f4")  # 16 MiB
    address = bucket("big.npy", npy(array))
    labels = bucket("labels.npy", npy(np.zeros(4096, "i4")))
    options = ("--log-softmax", "-1", "--targets-are", "labels", "--workers", "2")
    run = kldiv("compute", address, labels, *options)
    assert run.returncode == 0, run.stderr
    gets = [asked for asked in moto.asked if asked.path == "/dumps/big.npy"]
    assert {asked.method for asked in gets} == {"GET"}
    assert all(asked.range_bytes is not None for asked in gets)
    assert array.nbytes <= sum(asked.range_bytes or 0 for asked in gets) < 1.1 * array.nbytes
    later = [asked for asked in gets if not asked.headers["range"].startswith("bytes=0-")]
    assert all("if-match" in asked.headers for asked in later)


@pytest.mark.parametrize("name", ["p.npy", "p.npz::inner", "p.h5::/group/inner", "c.h5", "p.npy::[100:500]"])
def test_the_command_gives_the_same_bits_as_for_local_files(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = {
        "q.npy": npy(LOGITS),
        "p.npy": npy(PROBS),
        "p.npz": npz(PROBS),
        "p.h5": hdf5(PROBS),
        "c.h5": hdf5(PROBS, chunks=(100, 50), compression="gzip"),
    }
    for file, contents in made.items():
        Path(file).write_bytes(contents)
        bucket(file, contents)
    pair = ("q.npy::[100:500]" if "[" in name else "q.npy", name)
    options = ("--log-softmax", "-1", "--json", "--workers", "2")
    local = kldiv("compute", *pair, *options)
    remote = kldiv("compute", *(f"s3://dumps/{each}" for each in pair), *options)
    assert local.returncode == 0, local.stderr
    assert remote.stdout.replace("s3://dumps/", "") == local.stdout


def test_check_and_a_suite_read_from_s3(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    q, p = bucket("q.npy", npy(LOGITS)), bucket("p.npy", npy(PROBS))
    run = kldiv("check", q, p, "--log-softmax", "-1", "--limit", "distmean < 1000", "--json")
    assert run.returncode == 0, run.stderr
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "suite.toml").write_text(
        f'[pairs.digits]\npredictions = "{q}"\ntargets = "{p}"\nlog_softmax = -1\nlimits = ["mean < 1000"]\n'
    )
    monkeypatch.chdir(tmp_path)
    run = kldiv("check", "deep/suite.toml", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["results"][0]["pair"] == "digits"


def test_inspect_lists_what_is_in_a_bucket(bucket: Any) -> None:
    run = kldiv("inspect", bucket("p.h5", hdf5(PROBS)), bucket("p.npz", npz(LOGITS)), "--json")
    assert run.returncode == 0, run.stderr
    assert [array["address"] for array in json.loads(run.stdout)["arrays"]] == [
        "s3://dumps/p.h5::/group/inner",
        "s3://dumps/p.npz::inner",
    ]


def test_an_output_to_s3_is_refused(bucket: Any) -> None:
    q = bucket("q.npy", npy(LOGITS))
    run = kldiv("compute", q, q, "--log-softmax", "-1", "--output", "s3://dumps/map.npy")
    assert run.returncode == 2
    assert run.stderr == (
        "kldiv: error: --output s3://dumps/map.npy: a URL, expected a file; write it here and copy it there\n"
    )


def test_an_older_version_is_read_by_its_id(bucket: Any) -> None:
    client = bucket.client
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    old = client.put_object(Bucket="versions", Key="x.npy", Body=npy(np.array([1.0])))["VersionId"]
    client.put_object(Bucket="versions", Key="x.npy", Body=npy(np.array([2.0])))
    for query, value in (("", 2.0), (f"?versionId={old}", 1.0)):
        source = open_source(f"s3://versions/x.npy{query}")
        assert source.read((slice(0, 1),), Buffer()).tolist() == [value]
        source.verify()


def test_an_object_replaced_while_it_is_read_has_changed(bucket: Any) -> None:
    array = np.zeros(1 << 18)
    source = open_source(bucket("x.npy", npy(array)))
    bucket("x.npy", npy(array + 1))
    with pytest.raises(InputChanged, match=r"s3://dumps/x\.npy: changed while it was read"):
        source.read((slice(1 << 17, 1 << 18),), Buffer())
    with pytest.raises(InputChanged):
        source.verify()


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("s3://dumps/nothing.npy", "NoSuchKey"),
        ("s3://nobucket/x.npy", "NoSuchBucket"),
        ("S3://dumps/nothing.h5", "NoSuchKey"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(bucket: Any, address: str, code: str) -> None:
    with pytest.raises(InputNotFound) as raised:
        open_source(address)
    assert str(raised.value) == f"{address}: no such object (404 Not Found, {code})"


def test_a_key_that_no_library_can_ask_for_is_refused_in_one_line(bucket: Any) -> None:
    with pytest.raises(InputError, match=r"^s3://dumps/a//b\.npy: .*empty path segment") as raised:
        open_source("s3://dumps/a//b.npy")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:15000", "minio", "http://", "http://h:99999", "http://a b", "http://[::1"]
)
def test_an_endpoint_that_is_no_address_is_refused_in_one_line(
    bucket: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(InputError) as raised:
        open_source("s3://dumps/x.npy")
    expected = "expected http://HOST:PORT or https://HOST"
    assert str(raised.value) == f"s3://dumps: AWS_ENDPOINT_URL is {endpoint!r}, {expected}"


@pytest.mark.parametrize("address", ["s3://dumps/x.npy", "s3://dumps/x.zarr"])
def test_what_makes_obstore_panic_is_an_error_of_the_input(
    bucket: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", 'http://h"')
    with pytest.raises(InputError, match=rf"^{address}: obstore broke off: .*; check the address") as raised:
        open_source(address)
    assert "\n" not in str(raised.value)


def test_a_name_that_no_bucket_has_is_refused(bucket: Any) -> None:
    with pytest.raises(UsageError, match=r"^s3://a b/x\.npy: 'a b' is the name of no bucket"):
        open_source("s3://a b/x.npy")


def test_a_bucket_of_another_region_is_said_to_be_one(
    bucket: Any, web: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    with pytest.raises(InputError, match="the bucket is in another region; set AWS_REGION to it"):
        open_source("s3://301/x.npy")


# Credentials


def key_used(moto: S3Server) -> str | None:
    """Which access key the last request was signed with."""
    signature = moto.asked[-1].headers.get("authorization")
    return None if signature is None else signature.partition(CREDENTIALS)[2].partition("/")[0]


def test_keys_come_from_the_environment(bucket: Any, moto: S3Server) -> None:
    open_source(bucket("x.npy", npy(PROBS)))
    assert key_used(moto) == "AKIAFROMENVIRONMENT"


def test_keys_endpoint_and_region_come_from_a_profile(
    bucket: Any, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = bucket("x.npy", npy(PROBS))
    for name in [name for name in os.environ if name.startswith("AWS_") and "METADATA" not in name]:
        monkeypatch.delenv(name)
    folder = Path(os.environ["HOME"]) / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[lab]\naws_access_key_id = AKIAOFPROFILE\naws_secret_access_key = secret\n"
    )
    (folder / "config").write_text(f"[profile lab]\nregion = eu-west-1\nendpoint_url = {moto.url}\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    forget_stores()
    open_source(address)
    assert key_used(moto) == "AKIAOFPROFILE"
    assert "/eu-west-1/s3/" in moto.asked[-1].headers["authorization"]


def test_an_unknown_profile_is_said_in_one_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nonsense")
    with pytest.raises(InputError, match=r"s3://dumps: the AWS configuration can't be used: .*\(nonsense\)"):
        open_source("s3://dumps/x.npy")


def test_credentials_that_can_not_be_renewed_are_said_in_one_line(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    folder = Path(os.environ["HOME"]) / ".aws"
    folder.mkdir()
    failing = "echo gone >&2; exit 1"
    (folder / "config").write_text(f"[default]\ncredential_process = sh -c '{failing}'\n")
    forget_stores()
    with pytest.raises(InputError, match=r"^s3://dumps.*gone") as raised:
        open_source("s3://dumps/x.npy")
    assert "\n" not in str(raised.value)


def test_a_public_object_is_read_without_credentials(
    bucket: Any, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = bucket("x.npy", npy(PROBS))
    bucket.client.put_object_acl(Bucket="dumps", Key="x.npy", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_stores()
    open_source(address)
    assert key_used(moto) is None


def test_without_credentials_a_private_object_is_said_to_need_them(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = bucket("private.npy", npy(PROBS))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_stores()
    with pytest.raises(InputError, match=r"no access \(403 Forbidden\); no credentials were found"):
        open_source(address)


def test_a_presigned_address_is_read_though_it_allows_get_alone(bucket: Any, moto: S3Server) -> None:
    bucket("x.npy", npy(PROBS))
    url = bucket.client.generate_presigned_url("get_object", {"Bucket": "dumps", "Key": "x.npy"})
    assert "Signature=" in url
    source = open_source(url)
    assert source.address == f"{moto.url}/dumps/x.npy"
    source.verify()
    assert {asked.method for asked in moto.asked} == {"GET"}
