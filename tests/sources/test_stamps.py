from __future__ import annotations

import os
from pathlib import Path

import pytest

from kldiv_cli.errors import FormatError, InputError, InputNotFound
from kldiv_cli.sources.stamps import file_stamp


def test_a_stamp_changes_with_the_size_and_the_time_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(b"123")
    os.utime(file, ns=(5, 7_000_000_100))
    first = file_stamp(str(file))
    assert first == (3, 7_000_000_100)
    os.utime(file, ns=(5, 7_000_000_200))
    assert file_stamp(str(file)).mtime_ns == 7_000_000_200
    file.write_bytes(b"1234")
    os.utime(file, ns=(5, 7_000_000_100))
    assert file_stamp(str(file)) == (4, 7_000_000_100)


def test_what_can_be_no_input_has_no_stamp(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        file_stamp(str(tmp_path / "missing.npy"))
    with pytest.raises(InputError, match="a directory, expected a regular file"):
        file_stamp(str(tmp_path))
    (tmp_path / "empty.npy").touch()
    with pytest.raises(FormatError, match="empty file"):
        file_stamp(str(tmp_path / "empty.npy"))
