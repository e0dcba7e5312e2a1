from __future__ import annotations

import pytest

from kldiv_cli.errors import UsageError
from kldiv_cli.sources import parse_address
from kldiv_cli.sources.address import Address
from kldiv_cli.urls import has_wildcard, is_remote, is_url, shown, split_dataset


@pytest.mark.parametrize(
    "address", ["s3://b/k", "gs://b/k", "gcs://b/k", "https://h/x", "http://h/x", "S3://b/k"]
)
def test_these_are_read_over_the_network(address: str) -> None:
    assert is_remote(address)


@pytest.mark.parametrize(
    "address", ["x.npy", "s3/x.npy", "s3:/x.npy", "C://x.npy", "/s3://x", "a.h5::s3://b/k"]
)
def test_these_are_files(address: str) -> None:
    assert not is_remote(address)
    assert not is_url(address)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://bucket/key.h5", Address("s3://bucket/key.h5")),
        ("s3://bucket/key.h5::/group/data[0:100]", Address("s3://bucket/key.h5", "/group/data", "0:100")),
        ("https://host:80/x.npy?v=1&s=a%3Ab::[3]", Address("https://host:80/x.npy?v=1&s=a%3Ab", None, "3")),
        ("http://me:pw@[::1]:80/x.h5::/p", Address("http://me:pw@[::1]:80/x.h5", "/p")),
        ("http://[::1]/x.npy", Address("http://[::1]/x.npy")),
    ],
)
def test_an_address_may_begin_with_a_url(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["ftp://host/x.npy", "hdfs://x/y.h5::/z", "file:///x.npy", "az://c/x.npy"])
def test_another_scheme_is_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(UsageError, match="no such kind of address; expected a file, or one of s3://, gs://"):
        parse_address(text)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://me:pw@host/x.npy?X-Amz-Signature=1#top::/p[0]", "https://host/x.npy::/p[0]"),
        ("http://me@[::1]:80/x.npy", "http://[::1]:80/x.npy"),
        ("https://host/a@b.npy", "https://host/a@b.npy"),
        ("HTTPS://me:pw@host?secret", "HTTPS://host"),
        ("s3://bucket/key.npy?versionId=abc", "s3://bucket/key.npy?versionId=abc"),
        ("what?.npy", "what?.npy"),
    ],
)
def test_what_is_shown_has_no_password_and_no_query(address: str, expected: str) -> None:
    assert shown(address) == expected


def test_a_dataset_begins_behind_the_host() -> None:
    assert split_dataset("http://[::1]/x.h5::/a::b") == ("http://[::1]/x.h5", "::", "/a::b")
    assert split_dataset("s3://b/x.npy") == ("s3://b/x.npy", "", "")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://b/*.npy", True),
        ("s3://b/a?.npy", True),
        ("gs://b/[ab].npy", True),
        ("https://h/*.npy?v=1", True),
        ("https://[::1]/x.npy?v=*", False),
        ("s3://b/x.npy?versionId=a", False),
    ],
)
def test_a_wildcard_is_one_in_the_path(url: str, expected: bool) -> None:
    assert has_wildcard(url) == expected
