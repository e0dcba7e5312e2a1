"""Addresses as they are written: which of them are joined to a directory, and which name nothing here."""

from __future__ import annotations

import os

import pytest

from kldiv_cli.addresses import COMMAND_LINE, Viewpoint, Written, address_from, is_there, is_url
from kldiv_cli.errors import UsageError

TABLE = Viewpoint("lists", "the table's directory", "--allow-unmatched")


@pytest.mark.parametrize("text", ["s3://b/x.npy", "gs://b", "https://h/x?y=1::/z[0:1]", "az+x.y://b"])
def test_what_has_a_scheme_is_no_file_here_and_is_not_joined(text: str) -> None:
    assert is_url(text)
    assert is_there(text)
    assert address_from(TABLE, Written(text, "x")) == text


@pytest.mark.parametrize("text", ["a.npy", "C://x.npy", "a/b://c", "x::/y", "3s://b", "://b"])
def test_what_has_none_is_a_file_seen_from_the_directory(text: str) -> None:
    assert not is_url(text)
    assert not is_there(text)
    if not os.path.isabs(text):
        assert address_from(TABLE, Written(text, "x")) == os.path.join("lists", text)


@pytest.mark.parametrize("text", ["", "::x", "a::", "a\0b"])
def test_what_names_no_file_is_an_error_that_says_from_where_it_would_be_seen(text: str) -> None:
    with pytest.raises(UsageError, match=r"^t: line 2: .* write it as seen from the table's directory$"):
        address_from(TABLE, Written(text, "t: line 2"))
    with pytest.raises(UsageError, match="the working directory"):
        address_from(COMMAND_LINE, Written(text, "FIRST"))
